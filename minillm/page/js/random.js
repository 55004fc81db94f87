/**
 * Draws from [0, 1) as numpy.random.default_rng(seed).random() gives them, so that a seed means the
 * same in the page and in Python. Source: O'Neill, "PCG: A Family of Simple Fast Space-Efficient
 * Statistically Good Algorithms for Random Number Generation" (2014), PCG64 XSL RR; and her
 * "Developing a seed_seq Alternative" (2015), with NumPy's constants.
 */

const WORD = (1n << 32n) - 1n, DOUBLE = (1n << 64n) - 1n, QUADRUPLE = (1n << 128n) - 1n;
const MULTIPLIER = (2549297995355413924n << 64n) | 4865540595714422341n;

/** A running hash of 32-bit words. @param {number} constant @param {number} factor */
function hasher(constant, factor) {
  return (/** @type {number} */ value) => {
    value ^= constant;
    constant = Math.imul(constant, factor);
    value = Math.imul(value, constant);
    return value ^ (value >>> 16);
  };
}

/** @param {number} x @param {number} y */
function mix(x, y) {
  const value = Math.imul(0xca01f9dd, x) - Math.imul(0x4973f715, y);
  return value ^ (value >>> 16);
}

/** Eight well-mixed words of a seed. @param {bigint} seed @returns {bigint[]} */
function wordsOf(seed) {
  /** @type {number[]} */
  const entropy = [];
  for (; seed > 0n; seed >>= 32n) entropy.push(Number(seed & WORD));
  const hash = hasher(0x43b0d7e5, 0x931e8875);
  const pool = [0, 1, 2, 3].map((i) => hash(entropy[i] ?? 0));
  for (let from = 0; from < 4; from++) {
    for (let to = 0; to < 4; to++) if (from !== to) pool[to] = mix(pool[to], hash(pool[from]));
  }
  for (const word of entropy.slice(4)) {
    for (let to = 0; to < 4; to++) pool[to] = mix(pool[to], hash(word));
  }
  const state = hasher(0x8b51f9dd, 0x58f38ded);
  return Array.from({length: 8}, (_, i) => BigInt(state(pool[i % 4]) >>> 0));
}

export class Generator {
  /** @param {number | bigint} seed a whole number of at least 0 */
  constructor(seed) {
    const w = wordsOf(BigInt(seed));
    const [a, b, c, d] = [0, 2, 4, 6].map((i) => w[i] | (w[i + 1] << 32n));
    this.increment = (((c << 64n) | d) << 1n | 1n) & QUADRUPLE;
    this.state = 0n;
    this.advance();
    this.state = (this.state + ((a << 64n) | b)) & QUADRUPLE;
    this.advance();
  }

  advance() {
    this.state = (this.state * MULTIPLIER + this.increment) & QUADRUPLE;
  }

  /** A number of [0, 1) of 53 bits. */
  random() {
    this.advance();
    const folded = (this.state >> 64n) ^ (this.state & DOUBLE), turn = this.state >> 122n;
    const turned = ((folded >> turn) | (folded << (64n - turn))) & DOUBLE;
    return Number(turned >> 11n) * 2 ** -53;
  }
}
