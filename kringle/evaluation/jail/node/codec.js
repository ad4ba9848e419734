'use strict';
// Values between a program and its tests, when they live in two processes: copies of plain data, handles for functions.
//
// The decoder makes built-in objects and nothing else, so comparisons in the tests meet no getter, proxy or method of the
// program's. What legacy deepEqual does not look at (classes and prototypes of plain objects) is not sent; what it does
// look at is: holes and extra properties of arrays, own enumerable properties, boxed values, the kind of typed arrays.
// Not covered: shared structure (a value that contains itself is no answer), symbols, streams, promises.

const DEEPEST = 2000;
const TYPED = {
  Int8Array, Uint8Array, Uint8ClampedArray, Int16Array, Uint16Array, Int32Array, Uint32Array, Float32Array, Float64Array,
};
const { isArray } = Array;
const { keys, is } = Object;
const {
  isBoxedPrimitive, isDate, isMap, isNativeError, isRegExp, isSet, isTypedArray, isArgumentsObject,
} = require('node:util').types;

class NotAValue extends Error {}

function encode(value, exportFunction, depth = 0) {
  if (depth > DEEPEST) throw new NotAValue('a value that is too deep, or contains itself');
  const next = (part) => encode(part, exportFunction, depth + 1);
  switch (typeof value) {
    case 'undefined': return ['undefined'];
    case 'boolean': case 'string': return value;
    case 'number': return Number.isFinite(value) && !is(value, -0) ? value : ['number', is(value, -0) ? '-0' : `${value}`];
    case 'bigint': return ['bigint', value.toString()];
    case 'function': return ['function', exportFunction(value)];
    case 'symbol': return ['other', 'symbol'];
    default:
  }
  if (value === null) return null;
  const properties = () => keys(value).map((key) => [key, next(value[key])]);
  if (isArray(value)) {
    const items = [];
    for (let index = 0; index < value.length; index += 1) items.push(index in value ? next(value[index]) : ['hole']);
    const extra = keys(value).filter((key) => !/^(0|[1-9]\d*)$/.test(key)).map((key) => [key, next(value[key])]);
    return ['array', items, extra];
  }
  if (isMap(value)) return ['map', Array.from(Map.prototype.entries.call(value), ([k, v]) => [next(k), next(v)])];
  if (isSet(value)) return ['set', Array.from(Set.prototype.values.call(value), next)];
  if (isDate(value)) return ['date', next(Date.prototype.getTime.call(value))];
  if (isRegExp(value)) return ['regexp', value.source, value.flags];
  if (isTypedArray(value)) {
    const kind = Object.prototype.toString.call(value).slice(8, -1);
    return kind in TYPED ? ['typed', kind, Array.from(value, next)] : ['other', kind];
  }
  if (isNativeError(value)) return ['error', String(value.name), String(value.message)];
  if (isBoxedPrimitive(value)) {
    const inner = value.valueOf();
    return typeof inner === 'object' || typeof inner === 'symbol' ? ['other', 'boxed'] : ['boxed', next(inner)];
  }
  if (isArgumentsObject(value)) return ['other', 'arguments'];
  const tag = Object.prototype.toString.call(value);
  if (tag !== '[object Object]') return ['other', tag];
  return ['object', properties()];
}

function decode(node, importFunction) {
  const next = (part) => decode(part, importFunction);
  if (node === null || typeof node === 'boolean' || typeof node === 'string' || typeof node === 'number') return node;
  if (!isArray(node)) throw new NotAValue('not a value');
  const [kind, first, second] = node;
  const set = (target, pairs) => {
    for (const [key, value] of pairs) {
      Object.defineProperty(target, String(key), {
        value: next(value), enumerable: true, configurable: true, writable: true,
      });
    }
    return target;
  };
  switch (kind) {
    case 'undefined': return undefined;
    case 'number': return first === '-0' ? -0 : { NaN, Infinity, '-Infinity': -Infinity }[first];
    case 'bigint': return BigInt(first);
    case 'function': return importFunction(first);
    case 'array': {
      const made = new Array(first.length);
      first.forEach((item, index) => {
        if (!(isArray(item) && item[0] === 'hole')) made[index] = next(item);
      });
      return set(made, second);
    }
    case 'map': return new Map(first.map(([key, value]) => [next(key), next(value)]));
    case 'set': return new Set(first.map(next));
    case 'date': return new Date(next(first));
    case 'regexp': return new RegExp(first, second);
    case 'typed': return TYPED[first].from(second.map(next));
    case 'error': return set(new Error(String(second)), [['name', String(first)]]);
    case 'boxed': return Object(next(first));
    case 'object': return set({}, first);
    case 'other': return Symbol(String(first)); // equals nothing
    default: throw new NotAValue(`unknown kind ${String(kind)}`);
  }
}

module.exports = { NotAValue, decode, encode };
