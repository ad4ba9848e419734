'use strict';
// Run tests against a program that lives in another process, and say whether they ran to their end. No line of any
// program ever runs here: a program's function is a stand-in that asks the host to ask that process, and what comes back
// is plain data. So the comparisons of the tests are made here, by an assert that no program can reach.

const { receive, send } = require('./channel.js');
const { PARAMETERS, compile } = require('./compile.js');
const { decode, encode, NotAValue } = require('./codec.js');
const { describe, oneLine } = require('./text.js');

class Gone extends Error {}
class Tampered extends Error {}

const known = new Map();
let over = null; // the end of the program in the middle of its tests: tests may catch any exception and go on

function ask(question) {
  if (over !== null) throw over;
  send({ ask: question });
  const { answer, gone } = receive();
  if (gone !== undefined) {
    over = new Gone(String(gone));
    throw over;
  }
  if (answer !== null && typeof answer === 'object') {
    if (typeof answer.raised === 'string') throw new Error(answer.raised);
    if ('value' in answer) {
      try {
        // A function is a stand-in where it is the whole answer; within a value it equals nothing, and nothing calls it.
        return isFunction(answer.value) ? standIn(answer.value[1]) : decode(answer.value, () => Symbol('function'));
      } catch (error) {
        over = new Tampered(`an answer that is none: ${error.message}`);
        throw over;
      }
    }
  }
  over = new Tampered('an answer that is none');
  throw over;
}

function standIn(handle) {
  return (...given) => ask({ ask: 'call', handle, arguments: given.map((one) => encode(one, refuse)) });
}

function isFunction(node) {
  return Array.isArray(node) && node[0] === 'function' && Number.isInteger(node[1]);
}

function refuse() {
  throw new NotAValue('functions of the tests stay in their process');
}

// Names that the tests use and that neither they nor Node define are the program's.
function scope() {
  const found = new Map();
  return new Proxy(Object.create(null), {
    has: (_, name) => typeof name === 'string' && !PARAMETERS.includes(name) && !(name in globalThis),
    get: (_, name) => {
      if (typeof name !== 'string') return undefined;
      if (!found.has(name)) found.set(name, ask({ ask: 'name', name }));
      return found.get(name);
    },
  });
}

function judge(tests) {
  const lines = tests.split('\n');
  over = null;
  try {
    const body = compile(`with (exports) { return (function (require, module) {\n${tests}\n})(require, module); }`);
    body.call({}, scope(), require, { exports: {} }, '/tmp/tests.js', '/tmp');
  } catch (error) {
    if (over === null) return { outcome: 'fail', evidence: describe(error, lines, 1) };
  }
  if (over instanceof Gone) return { outcome: 'ended', evidence: oneLine(`the program ended during its tests ${over.message}`) };
  if (over !== null) return { outcome: 'tampered', evidence: oneLine(over.message) };
  return { outcome: 'pass', evidence: '' };
}

for (let request = receive(); request !== null; request = receive()) {
  if ('tests' in request) known.set(request.problem, request.tests);
  const started = process.cpuUsage();
  const result = judge(known.get(request.problem));
  const used = process.cpuUsage(started);
  send({ ...result, cpu: (used.user + used.system) / 1e6, nonce: request.nonce });
}
