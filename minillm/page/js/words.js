// @ts-check
/** What a person reads: texts by language, numbers with units, tokens without surprises. */

/** @type {Record<string, Record<string, string>>} */
let tables = {};
let language = "en";

/** Take the texts of all languages, and begin with one.
 * @param {Record<string, Record<string, string>>} texts @param {string} [wanted] */
export function speak(texts, wanted) {
  tables = texts;
  language = wanted && wanted in tables ? wanted : "en";
}

export function spoken() {
  return language;
}

/** The text of a key, its {names} filled in. @param {string} key
 * @param {Record<string, string | number>} [values] */
export function say(key, values = {}) {
  const text = tables[language]?.[key] ?? tables.en?.[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (all, name) => String(values[name] ?? all));
}

/** A number with three digits. @param {number} x */
export function digits(x) {
  if (x && Math.abs(x) < 1e-3) {
    const [mantissa, power] = x.toExponential(1).split("e");
    const raised = [...String(Number(power))].map((c) => c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[Number(c)]);
    return `${mantissa} · 10${raised.join("")}`;
  }
  return x.toLocaleString(language, Math.abs(x) >= 100 ? {maximumFractionDigits: 0}
    : {maximumSignificantDigits: 3});
}

/** @param {number} x @param {[number, string][]} units */
function withUnit(x, units) {
  const [size, unit] = units.find(([size]) => Math.abs(x) >= 0.9995 * size) ?? units[units.length - 1];
  return `${digits(x / size)}\u202f${unit}`;
}

/** 1234567 ns -> 1.23 ms. @param {number} ns */
export function duration(ns) {
  return withUnit(ns, [[1e9, "s"], [1e6, "ms"], [1e3, "µs"], [1, "ns"]]);
}

/** @param {number} n */
export function bytes(n) {
  return withUnit(n, [[1e9, "GB"], [1e6, "MB"], [1e3, "kB"], [1, "B"]]);
}

/** @param {number} n */
export function flops(n) {
  return withUnit(n, [[1e9, "GFLOP"], [1e6, "MFLOP"], [1e3, "kFLOP"], [1, "FLOP"]]);
}

/** @param {number} share */
export function percent(share) {
  const digits = share < 0.0995 ? 1 : 0;
  return share.toLocaleString(language, {style: "percent", maximumFractionDigits: digits});
}

const MOST = 48;  // characters of a token that are shown in one place

/** A token as it can be read: blanks and line ends as signs, whatever steers a screen (U+202E and
 * its like) as its number, long ones cut. @param {string} text @param {number} [most] */
export function visible(text, most = MOST) {
  const cut = text.length > most ? `${text.slice(0, most)}…` : text;
  return plain(cut).replace(/ /g, "␣").replace(/\n/g, "⏎").replace(/\t/g, "⇥");
}

/** The same without the blank before a word, for labels. @param {string} text
 * @param {number} [most] */
export function named(text, most = MOST) {
  return visible(/^ ./.test(text) ? text.slice(1) : text, most);
}

/** The same in quotes, for sentences. @param {string} text */
export function quoted(text) {
  return say("quoted", {word: `\u2068${named(text)}\u2069`});
}

/** The same with blanks and line ends left, for running text. @param {string} text */
export function plain(text) {
  return text.replace(/[\p{Cc}\p{Cf}\p{Co}\p{Cn}]/gu, (c) => c === "\n" || c === "\t" ? c
    : `\\u${(c.codePointAt(0) ?? 0).toString(16).padStart(4, "0")}`);
}
