'use strict';
// Messages over one descriptor: four bytes of length, big-endian, then JSON. Blocking, and independent of anything that a
// program could replace later: every function is taken hold of here, before any program runs.

const fs = require('node:fs');

const CHANNEL = 3;
const LONGEST = 16 * 2 ** 20; // bytes, as in wire.py
const { readSync, writeSync } = fs;
const { alloc, from } = Buffer;
const { parse, stringify } = JSON;
const concat = Buffer.concat;

function readExactly(size) {
  const buffer = alloc(size);
  let filled = 0;
  while (filled < size) {
    let count;
    try {
      count = readSync(CHANNEL, buffer, filled, size - filled, null);
    } catch (error) {
      if (error.code === 'EAGAIN') continue; // a program has touched the descriptor's flags
      throw error;
    }
    if (count === 0) return null;
    filled += count;
  }
  return buffer;
}

function receive() {
  const header = readExactly(4);
  if (header === null) return null;
  const size = header.readUInt32BE(0);
  if (size > LONGEST) throw new RangeError('a message that is too long');
  const body = readExactly(size);
  return body === null ? null : parse(body.toString('utf8'));
}

function send(message) {
  const body = from(stringify(message), 'utf8');
  const header = alloc(4);
  header.writeUInt32BE(body.length, 0);
  const whole = concat([header, body]);
  let written = 0;
  while (written < whole.length) {
    try {
      written += writeSync(CHANNEL, whole, written, whole.length - written);
    } catch (error) {
      if (error.code !== 'EAGAIN') throw error;
    }
  }
}

module.exports = { receive, send };
