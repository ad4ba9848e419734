'use strict';
// Run one program without its tests, and answer the calls that the tests make from another process. Nothing in this
// process has ever held a test, an expected value or a way to report a verdict: what the program can do is answer.

require('./output.js');
const { createRequire } = require('node:module');
const { receive, send } = require('./channel.js');
const { compile } = require('./compile.js');
const { NotAValue, decode, encode } = require('./codec.js');
const { describe } = require('./text.js');

const { program } = receive();
const handles = [];
const keep = (value) => handles.push(value) - 1;
const refuse = () => { throw new NotAValue('functions of the tests stay in their process'); };

let lookUp = null;
try {
  // The last line gives us the names of the program's own scope, as the tests at this place would see them.
  const body = compile(`${program}\n;return (name) => eval(name);`);
  const main = { exports: {}, id: '.', filename: '/tmp/program.js', loaded: false, children: [], paths: [] };
  const load = createRequire('/tmp/program.js');
  load.main = main;
  lookUp = body.call(main.exports, main.exports, load, main, '/tmp/program.js', '/tmp');
} catch (error) {
  send({ raised: describe(error, [], 0) });
}
if (typeof lookUp !== 'function') {
  if (lookUp !== null) send({ raised: 'it ends before its last line' });
  process.exit(0);
}
send({ loaded: true });
for (let request = receive(); request !== null; request = receive()) {
  let answer;
  try {
    if (request.ask === 'name') {
      if (!/^[\p{ID_Start}$_][\p{ID_Continue}$]*$/u.test(request.name)) throw new NotAValue('not a name');
      answer = { value: encode(lookUp(request.name), keep) };
    } else {
      const given = request.arguments.map((one) => decode(one, refuse));
      answer = { value: encode(handles[request.handle](...given), keep) };
    }
  } catch (error) {
    answer = { raised: describe(error, [], 0) };
  }
  send(answer);
}
