'use strict';
// Run harmless programs one after another, each with its tests in a context of its own: most fail, within a millisecond.
//
// Nothing from here is a pass: what seems to pass is confirmed apart. What must not go wrong is a false failure. So only
// programs run here that mention nothing but the language itself, and any doubt (time, memory, output, code made from
// strings, an unusual test) is answered with "defer": the host then runs that program in a process of its own. No object
// of this realm is ever handed to a program; a context cannot make code from strings.

const assert = require('node:assert');
const vm = require('node:vm');
const { receive, send } = require('./channel.js');
const { PARAMETERS, compile } = require('./compile.js');
const { PROGRAM, describe, oneLine } = require('./text.js');

const MOST_OUTPUT = 1 << 16; // characters
const COMPARISONS = [
  'deepEqual', 'equal', 'notEqual', 'notDeepEqual', 'strictEqual', 'deepStrictEqual', 'notStrictEqual',
  'notDeepStrictEqual', 'ok',
];

// Words of the text, in comments and strings too, that send a program to a process of its own: what Node adds to the
// language, what runs after the program, what leads from an object to its makings, and the tests' own name for assert.
const OF_THE_LANGUAGE = new Set(vm.runInNewContext('Object.getOwnPropertyNames(globalThis)'));
const POWERFUL = new Set([
  ...Object.getOwnPropertyNames(globalThis).filter((name) => !OF_THE_LANGUAGE.has(name) && name !== 'console'),
  'require', 'module', 'exports', '__filename', '__dirname', 'assert', 'eval', 'Function', 'import', 'async', 'await',
  'Promise', 'WeakRef', 'FinalizationRegistry', 'SharedArrayBuffer', 'Atomics', 'WebAssembly', 'Proxy', 'Reflect',
  'Symbol', 'constructor', '__proto__', '__defineGetter__', '__defineSetter__', '__lookupGetter__', '__lookupSetter__',
  'prepareStackTrace', 'captureStackTrace', 'stackTraceLimit', 'getPrototypeOf', 'setPrototypeOf', 'defineProperty',
  'defineProperties', 'getOwnPropertyDescriptor', 'getOwnPropertyDescriptors', 'getOwnPropertySymbols', 'callee',
  'caller', 'debugger', 'globalThis',
]);

function harmless(program) {
  if (program.includes('\\u')) return false; // identifiers may be spelt so
  for (const [word] of program.matchAll(/[\p{ID_Start}$_][\p{ID_Continue}$\u200c\u200d]*/gu)) {
    if (POWERFUL.has(word)) return false;
  }
  return true;
}

// Runs inside each context, before the program: what Node offers to the tests, made of the context's own objects. The
// bridge compares in this process's realm, with a message of its own, so that no value is inspected there.
const SETTING = new vm.Script(`(function (bridge, most, comparisons) {
  'use strict';
  const state = { written: 0, deferred: false };
  class AssertionError extends Error {
    constructor() { super('differs'); this.name = 'AssertionError'; this.code = 'ERR_ASSERTION'; }
  }
  const fail = () => { throw new AssertionError(); };
  const ok = function (value) { if (!value) fail(); };
  const known = { __proto__: null, ok };
  for (const kind of comparisons) {
    if (kind !== 'ok') known[kind] = function (a, b) { if (!bridge(kind, a, b)) fail(); };
  }
  const assert = new Proxy(ok, {
    get(_, name) {
      if (name in known) return known[name];
      state.deferred = true; // an assertion that is not made here
      throw new Error('deferred');
    },
  });
  const require = (name) => {
    if (name === 'assert' || name === 'node:assert') return assert;
    state.deferred = true;
    throw new Error('deferred');
  };
  const write = (...values) => {
    for (const value of values) state.written += typeof value === 'string' ? value.length + 1 : 10;
    if (state.written > most) { state.deferred = true; throw new Error('deferred'); }
  };
  const console = {};
  for (const kind of ['log', 'error', 'warn', 'info', 'debug']) console[kind] = write;
  Object.defineProperty(globalThis, 'console', { value: console, writable: true, configurable: true });
  Object.defineProperty(Error, 'prepareStackTrace', { value: undefined, writable: false, configurable: false });
  return { assert, require, state };
})`, { filename: 'setting.js' });

function bridge(kind, a, b) {
  try {
    assert[kind](a, b, 'differs');
    return true;
  } catch (error) {
    if (error instanceof assert.AssertionError) return false;
    throw error;
  }
}

function run(program, tests, budget) {
  const lines = tests.split('\n');
  const start = program.split('\n').length - 1;
  try {
    compile(program + tests); // as the whole file would be compiled; nothing of it runs
  } catch (error) {
    return { outcome: 'syntax', evidence: oneLine(`${error.name}: ${error.message}`) };
  }
  if (!harmless(program)) return { outcome: 'defer', evidence: '' };
  const context = vm.createContext(Object.create(null), { codeGeneration: { strings: false, wasm: false } });
  const setting = SETTING.runInContext(context)(bridge, MOST_OUTPUT, COMPARISONS);
  const body = vm.compileFunction(program + tests, PARAMETERS, { filename: PROGRAM, parsingContext: context });
  context.kringle = body;
  context.kringleRequire = setting.require;
  const started = process.cpuUsage();
  try {
    CALL.runInContext(context, { timeout: budget });
  } catch (error) {
    const used = process.cpuUsage(started);
    const cpu = (used.user + used.system) / 1e6;
    const code = error !== null && typeof error === 'object' ? error.code : '';
    if (code === 'ERR_SCRIPT_EXECUTION_TIMEOUT' || setting.state.deferred) return { outcome: 'defer', evidence: '' };
    const evidence = describe(error, lines, start);
    // Code from strings is allowed in a process of its own; a full heap is told apart there.
    if (/^(EvalError|RangeError: (Invalid|Array buffer))/.test(evidence)) return { outcome: 'defer', evidence: '' };
    return { outcome: 'fail', evidence, cpu };
  }
  const used = process.cpuUsage(started);
  return { outcome: setting.state.deferred ? 'defer' : 'pass', evidence: '', cpu: (used.user + used.system) / 1e6 };
}

const CALL = new vm.Script(
  `{ const body = kringle, require = kringleRequire; delete globalThis.kringle; delete globalThis.kringleRequire;
     const module = { exports: {} };
     body.call(module.exports, module.exports, require, module, '/tmp/program.js', '/tmp'); }`,
  { filename: 'call.js' },
);

const known = new Map();
for (let request = receive(); request !== null; request = receive()) {
  if ('tests' in request) known.set(request.problem, request.tests);
  const answer = run(request.program, known.get(request.problem), Math.ceil(request.budget * 1000));
  send({ cpu: 0, quiet: false, changed: false, ...answer, serial: request.serial });
}
