/** The file of a packed model (minillm/page/packing.py): its header, and its arrays by name. */

import {Matrix} from "./ops.js";

/**
 * @typedef {{V: number, P: number, L: number, C: number, H: number, K: number, D: number,
 *   F: number}} Sizes
 * @typedef {{patterns: string[], normalizer: string | null, specials: Record<string, number>,
 *   added: Record<string, number>, normalized: string[], ignore_merges: boolean, gaps: boolean,
 *   template: [number[], number[]]}} TokenizerSettings
 * @typedef {{version: number, family: string, config: Record<string, any>,
 *   generation: Record<string, any>, sizes: Sizes, stored: string,
 *   matrices: Record<string, [number, number]>, scales: number[], frequencies: number[] | null,
 *   tokenizer: TokenizerSettings}} Header
 */

const BLOCK = 32, BYTES = 34; // numbers of a block, and its bytes: a float16 scale, 32 of 8 bits

/** float16's bits -> its value. @param {number} bits */
function half(bits) {
  const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return sign * (1024 + fraction) * 2 ** (exponent - 25);
}

/** All 65,536 values of float16: looked up far faster than computed. @type {Float32Array | null} */
let halves = null;

function everyHalf() {
  return (halves ??= Float32Array.from({length: 65536}, (_, bits) => half(bits)));
}

/** @param {Uint16Array} bits @returns {Float32Array} */
function widen(bits) {
  const table = everyHalf(), y = new Float32Array(bits.length);
  for (let i = 0; i < y.length; i++) y[i] = table[bits[i]];
  return y;
}

/** A matrix of blocks of 8 bits: each number times the scale of its block.
 * @param {Uint8Array} raw @param {number} N @param {number} K */
function fromBlocks(raw, N, K) {
  const table = everyHalf(), signed = new Int8Array(raw.buffer, raw.byteOffset, raw.length);
  const matrix = new Matrix(N, K), blocks = Math.ceil(K / BLOCK);
  for (let n = 0; n < N; n++) {
    for (let b = 0; b < blocks; b++) {
      const at = (n * blocks + b) * BYTES, scale = table[raw[at] | (raw[at + 1] << 8)];
      matrix.put(n, b * BLOCK, signed, at + 2, Math.min(BLOCK, K - b * BLOCK), scale);
    }
  }
  return matrix;
}

/** @param {Float32Array} numbers @param {number} N @param {number} K */
function fromRows(numbers, N, K) {
  const matrix = new Matrix(N, K);
  for (let n = 0; n < N; n++) matrix.put(n, 0, numbers, n * K, K);
  return matrix;
}

/**
 * Read a packed model. Throws an Error that says what is wrong with the file.
 * @param {ArrayBuffer} file
 * @returns {{header: Header, matrices: Record<string, Matrix>,
 *   arrays: Record<string, Float32Array | Int32Array | Uint8Array>}} matrices: what `linear`
 *   multiplies by; arrays: all else
 */
export function read(file) {
  if (file.byteLength < 8) throw new Error("no packed model: fewer than 8 bytes");
  const length = Number(new DataView(file).getBigUint64(0, true)), start = 8 + length;
  if (start > file.byteLength) throw new Error("no packed model, or one that was cut short");
  const {__metadata__: about, ...entries} = JSON.parse(
    new TextDecoder().decode(new Uint8Array(file, 8, length)),
  );
  if (!about?.model) throw new Error("a safetensors file, but no packed model");
  /** @type {Header} */
  const header = JSON.parse(about.model);
  if (header.version !== 1) throw new Error(`version ${header.version} of packed models is newer`);
  /** @type {Record<string, Float32Array | Int32Array | Uint8Array>} */
  const arrays = {};
  /** @type {Record<string, Matrix>} */
  const matrices = {};
  for (const [name, {dtype, data_offsets: [begin, end]}] of Object.entries(entries)) {
    if (start + end > file.byteLength) throw new Error(`${name} was cut short`);
    const at = start + begin, size = end - begin;
    const shape = header.matrices[name];
    if (dtype === "U8") {
      const bytes = new Uint8Array(file, at, size);
      if (shape) matrices[name] = fromBlocks(bytes, ...shape);
      else arrays[name] = bytes;
    } else if (dtype === "I32") {
      arrays[name] = new Int32Array(file, at, size / 4);
    } else {
      const numbers = dtype === "F16" ? widen(new Uint16Array(file, at, size / 2))
        : new Float32Array(file, at, size / 4);
      if (shape) matrices[name] = fromRows(numbers, ...shape);
      else arrays[name] = numbers;
    }
  }
  return {header, matrices, arrays};
}
