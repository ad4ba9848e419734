'use strict';
// Run one program with its tests in one fresh process, as `node program.js` would, and say how it went.
//
// The program shares this process with its tests and with the report, so a pass reported from here is no proof: it only
// says that the program is worth confirming. A failure is final.

require('./output.js');
const { createRequire } = require('node:module');
const { receive, send } = require('./channel.js');
const { compile } = require('./compile.js');
const { describe, oneLine } = require('./text.js');

const request = receive();
const lines = request.tests.split('\n');
const start = request.program.split('\n').length - 1;
const finish = process.reallyExit.bind(process);
let ended = false;
let reported = false;

function report(outcome, evidence, quiet = false) {
  if (reported) return;
  reported = true;
  send({ outcome, evidence, quiet });
  finish(0);
}

process.on('exit', (code) => {
  if (ended && !code) report('pass', '');
  else report('fail', `the process ended with status ${code || 0} before its tests did`, !code);
});
process.on('uncaughtException', (error) => report('fail', describe(error, lines, start)));

let body = null;
try {
  body = compile(request.program + request.tests);
} catch (error) {
  report('syntax', oneLine(`${error.name}: ${error.message}`));
}
const main = { exports: {}, id: '.', filename: '/tmp/program.js', loaded: false, children: [], paths: [] };
const load = createRequire('/tmp/program.js');
load.main = main;
try {
  body.call(main.exports, main.exports, load, main, '/tmp/program.js', '/tmp');
  ended = true;
} catch (error) {
  report('fail', describe(error, lines, start));
}
