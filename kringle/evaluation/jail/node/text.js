'use strict';
// How a failure is told: one line, the same in the warm process, in a fresh one and in the referee.

const LONGEST = 300; // characters, as in execute.py
const PROGRAM = 'program.js';

// An error as one line, with the line of the tests that it came through. `start` is the number of lines before the tests
// in the compiled text, `tests` their lines.
function describe(error, tests, start) {
  let name = 'Error';
  let message = '';
  let stack = '';
  try {
    if (error !== null && typeof error === 'object') {
      name = String(error.name);
      message = String(error.message);
      stack = String(error.stack);
      if (name === 'AssertionError') message = ''; // it shows both values, over many lines
    } else {
      message = `threw ${String(error)}`;
    }
  } catch {
    message = '(its message cannot be read)';
  }
  let text = message ? `${name}: ${message}` : name;
  const place = new RegExp(`${PROGRAM}:(\\d+):`, 'g');
  for (const match of stack.matchAll(place)) {
    const number = Number(match[1]) - start;
    if (number >= 1 && number <= tests.length) {
      text = `${text.slice(0, LONGEST / 2)} in the tests, line ${number}: ${tests[number - 1].trim()}`;
      break;
    }
  }
  return oneLine(text);
}

function oneLine(text) {
  return text.split(/\s+/u).join(' ').trim().slice(0, LONGEST);
}

module.exports = { PROGRAM, describe, oneLine };
