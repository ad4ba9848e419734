'use strict';
// A program as Node's own loader compiles a CommonJS file: a sloppy function with five parameters.

const vm = require('node:vm');
const { PROGRAM } = require('./text.js');

const PARAMETERS = ['exports', 'require', 'module', '__filename', '__dirname'];

function compile(text, options = {}) {
  return vm.compileFunction(text, PARAMETERS, { filename: PROGRAM, ...options });
}

module.exports = { PARAMETERS, compile };
