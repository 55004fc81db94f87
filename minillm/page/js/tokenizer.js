/** Byte-level BPE, text -> ids -> text, as minillm/tokenizer/bpe.py does it. */

/** @param {Uint8Array} data */
const asKey = (data) => {
  let key = "";
  for (const byte of data) key += String.fromCharCode(byte);
  return key;
};

/** A heap of numbers, the smallest first. */
class Heap {
  /** @type {number[]} */
  items = [];

  /** @param {number} item */
  push(item) {
    const {items} = this;
    let i = items.push(item) - 1;
    for (let up; i > 0 && items[(up = (i - 1) >> 1)] > item; i = up) items[i] = items[up];
    items[i] = item;
  }

  /** @returns {number | undefined} */
  pop() {
    const {items} = this, first = items[0], item = items.pop();
    if (item === undefined || !items.length) return first;
    let i = 0;
    for (let down; (down = 2 * i + 1) < items.length; i = down) {
      if (down + 1 < items.length && items[down + 1] < items[down]) down++;
      if (items[down] >= item) break;
      items[i] = items[down];
    }
    items[i] = item;
    return first;
  }
}

/** How many numbers below n were added: a Fenwick tree, so that long pieces take no n^2. */
class Counter {
  /** @param {number} n */
  constructor(n) {
    this.tree = new Int32Array(n + 1);
  }

  /** @param {number} i */
  add(i) {
    for (i++; i < this.tree.length; i += i & -i) this.tree[i]++;
  }

  /** @param {number} i */
  before(i) {
    let sum = 0;
    for (; i > 0; i -= i & -i) sum += this.tree[i];
    return sum;
  }
}

/** One merge at work: the parts at index `at` and after it become one, by the merge learnt
 * `rank`-th. @typedef {{rank: number, at: number, left: Uint8Array, right: Uint8Array}} Merge */

/** @typedef {{text: string, merges: Merge[], ids: number[]}} Piece */

export class Tokenizer {
  /**
   * @param {import("./packed.js").TokenizerSettings} settings
   * @param {Record<string, Float32Array | Int32Array | Uint8Array>} arrays
   */
  constructor(settings, arrays) {
    this.settings = settings;
    this.patterns = settings.patterns.map((pattern) => new RegExp(pattern, "gu"));
    const bytes = /** @type {Uint8Array} */ (arrays["tokenizer.bytes"]);
    /** The bytes of each id; null for an id without a token. @type {(Uint8Array | null)[]} */
    this.tokens = [];
    let at = 0;
    for (const length of arrays["tokenizer.lengths"]) {
      this.tokens.push(length < 0 ? null : bytes.subarray(at, at + length));
      at += Math.max(0, length);
    }
    const kept = new Set(Object.values(settings.specials));
    const whole = new Set([...kept, ...Object.values(settings.added)]);
    /** @type {Map<string, number>} */
    const ids = new Map();
    for (const i of whole) ids.set(asKey(this.bytesOf(i)), i);
    this.tokens.forEach((token, i) => {
      if (token && !whole.has(i)) ids.set(asKey(token), i);
    });
    this.byteIds = Array.from({length: 256}, (_, b) => ids.get(String.fromCharCode(b)) ?? -1);
    /** left * n + right -> (rank, id of what they make). @type {Map<number, [number, number]>} */
    this.ranks = new Map();
    const merges = arrays["tokenizer.merges"];
    for (let rank = 0; 2 * rank < merges.length; rank++) {
      const [left, right] = merges.subarray(2 * rank, 2 * rank + 2);
      const made = asKey(this.bytesOf(left)) + asKey(this.bytesOf(right));
      this.ranks.set(this.pair(left, right), [rank, ids.get(made) ?? -1]);
    }
    /** Pieces that are taken whole, where the settings say so. @type {Map<string, number>} */
    this.whole = new Map(settings.ignore_merges ? [...ids].filter(([, i]) => !kept.has(i)) : []);
  }

  /** @param {number} left @param {number} right */
  pair(left, right) {
    return left * this.tokens.length + right;
  }

  /**
   * The ids of a text. allowed: which specials become their own id; others are ordinary text.
   * @param {string} text
   * @param {string[] | "all"} [allowed]
   * @returns {number[]}
   */
  encode(text, allowed = []) {
    return this.explain(text, allowed, false).flatMap((piece) => piece.ids);
  }

  /**
   * The pieces of a text, each with its merges in order and the ids that they end in.
   * @param {string} text
   * @param {string[] | "all"} [allowed]
   * @param {boolean} [record] whether merges are told
   * @returns {Piece[]}
   */
  explain(text, allowed = [], record = true) {
    /** @type {Piece[]} */
    const pieces = [];
    for (const [part, special] of this.parts(wellFormed(text), allowed)) {
      if (special !== undefined) {
        pieces.push({text: part, merges: [], ids: [special]});
        continue;
      }
      for (const piece of this.cut(part)) {
        /** @type {Merge[]} */
        const merges = [], data = new TextEncoder().encode(piece);
        const known = this.whole.get(asKey(data));
        const ids = known === undefined ? this.merge(data, record ? merges : null) : [known];
        pieces.push({text: piece, merges, ids});
      }
    }
    return pieces;
  }

  /** Cut a text at the specials: ordinary text, or a special and its id. @param {string} text
   * @param {string[] | "all"} allowed @returns {[string, number | undefined][]} */
  parts(text, allowed) {
    const {specials, added, normalized, normalizer} = this.settings;
    /** @param {string} s */
    const normal = (s) => (normalizer === "NFC" ? s.normalize("NFC") : s);
    const found = new Map(Object.entries(added)), last = new Map();
    for (const s of allowed === "all" ? Object.keys(specials) : allowed) {
      if (!Object.hasOwn(specials, s)) throw new Error(`${s} is no special token`);
      found.set(s, specials[s]);
    }
    for (const s of normalized) {
      if (found.has(s)) last.set(normal(s), found.get(s));
      found.delete(s);
    }
    return splitAt(text, found).flatMap(([part, special]) =>
      special === undefined ? splitAt(normal(part), last) : [[part, special]],
    );
  }

  /** The pieces of a text, by one pattern after the other. @param {string} text */
  cut(text) {
    let pieces = text ? [text] : [];
    for (const pattern of this.patterns) {
      pieces = pieces.flatMap((piece) => {
        const shorter = [];
        let at = 0;
        for (const {0: match, index} of piece.matchAll(pattern)) {
          if (index > at) shorter.push(piece.slice(at, index));
          shorter.push(match);
          at = index + match.length;
        }
        if (at < piece.length) shorter.push(piece.slice(at));
        return shorter;
      });
    }
    return pieces;
  }

  /**
   * The ids of one piece: the pair learnt earliest is merged, the leftmost of these, until none is
   * left. Parts are a linked list and candidates a heap of rank and place.
   * @param {Uint8Array} data
   * @param {Merge[] | null} record
   */
  merge(data, record) {
    let ids = Array.from(data, (byte) => this.byteIds[byte]);
    if (!this.settings.gaps) ids = ids.filter((i) => i >= 0);
    const n = ids.length, after = ids.map((_, i) => (i + 1 < n ? i + 1 : -1));
    const before = ids.map((_, i) => i - 1), heap = new Heap(), PLACE = 2 ** 32;
    const gone = new Counter(record ? n : 0);
    /** @param {number} left @param {number} right */
    const propose = (left, right) => {
      if (left < 0 || right < 0 || ids[left] < 0 || ids[right] < 0) return;
      const known = this.ranks.get(this.pair(ids[left], ids[right]));
      if (known) heap.push(known[0] * PLACE + left);
    };
    for (let i = 0; i + 1 < n; i++) propose(i, i + 1);
    for (let top; (top = heap.pop()) !== undefined; ) {
      const rank = Math.floor(top / PLACE), i = top % PLACE, j = after[i];
      if (ids[i] < 0 || j < 0 || ids[j] < 0) continue;
      const known = this.ranks.get(this.pair(ids[i], ids[j]));
      if (!known || known[0] !== rank) continue; // one of the two has been merged meanwhile
      if (record) {
        const [left, right] = [i, j].map((k) => this.bytesOf(ids[k]));
        record.push({rank, at: i - gone.before(i), left, right});
        gone.add(j);
      }
      [ids[i], ids[j]] = [known[1], -1];
      after[i] = after[j];
      if (after[i] >= 0) before[after[i]] = i;
      propose(before[i], i);
      propose(i, after[i]);
    }
    return ids.filter((i) => i >= 0);
  }

  /** The bytes of an id. @param {number} id */
  bytesOf(id) {
    const token = this.tokens[id];
    if (!token) throw new Error(`id ${id} has no token`);
    return token;
  }

  /** The text of ids; bytes that are not UTF-8 become U+FFFD. @param {number[]} ids */
  decode(ids) {
    const text = this.stream();
    return ids.map((i) => text.push(i)).join("") + text.end();
  }

  /** A text that is written token by token: push(id) gives what is certain, end() the rest. */
  stream() {
    const decoder = new TextDecoder("utf-8", {ignoreBOM: true});
    return {
      push: (/** @type {number} */ id) => decoder.decode(this.bytesOf(id), {stream: true}),
      end: () => decoder.decode(),
    };
  }

  /** Which ids below n are no tokens. @param {number} n @returns {number[]} */
  idsWithoutToken(n) {
    return Array.from({length: n}, (_, i) => i).filter((i) => !this.tokens[i]);
  }
}

/** A text with U+FFFD for lone surrogates. @param {string} text */
export function wellFormed(text) {
  return text.replace(/[\ud800-\udfff]/gu, "\ufffd");
}

/** @param {string} text @param {Map<string, number>} specials
 * @returns {[string, number | undefined][]} */
function splitAt(text, specials) {
  if (!specials.size) return text ? [[text, undefined]] : [];
  const longest = [...specials.keys()].sort((a, b) => b.length - a.length);
  const pattern = longest.map((s) => s.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&")).join("|");
  return text
    .split(new RegExp(`(${pattern})`, "u"))
    .filter((part) => part)
    .map((part) => [part, specials.get(part)]);
}
