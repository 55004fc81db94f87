// @ts-check
/** What the cache keeps: which keys and values a cycle reads, which it writes. */

import {counting, el} from "./views.js";
import {bytes, digits, percent, say} from "./words.js";

/** @typedef {import("./recording.js").Run} Run */

const CELL = 16, LEAST = 3;  // pixels of a position

/** @param {Run} run @param {number} cycle */
export function kept(run, cycle) {
  const {kind, rows, positions, past, kept, read, written} = run.cycles[cycle], all = past + positions;
  const counted = (/** @type {number} */ n) =>
    rows > 1 ? say("position.rows", {positions: counting(n), rows: digits(rows)}) : counting(n);
  const {weights} = run.total(cycle).cost, next = run.cycles[cycle + 1];
  if (!kept) {
    return [
      el("p", {class: "look"}, say("look.kept.none", {n: all, again: run.cycles[cycle - 1]?.positions ?? 0})),
      strip(run, 0, all),
    ];
  }
  const {sizes} = run.header.model, each = kept / all / rows, forgotten = next && next.kept ? Math.max(0, all - next.past) : 0;
  /** @param {string} what @param {number} n @param {number} size */
  const row = (what, n, size) => el("tr", {},
    el("th", {scope: "row"}, el("span", {class: `swatch ${what}`, "aria-hidden": true}), say(`kept.${what}`)),
    el("td", {class: "number"}, rows > 1 ? `${digits(rows)} × ${digits(n)}` : digits(n)), el("td", {class: "number"}, bytes(size)));
  return [
    el("p", {class: "look"}, say(kind === "draft" ? "look.kept.draft" : "look.kept", {
      written: counted(positions), size: bytes(written), n: counted(past), read: bytes(read - written),
      share: percent(read / (read + weights)), P: digits(sizes.P), full: bytes(sizes.P * rows * each), weights: bytes(weights),
    })),
    strip(run, past, all),
    el("table", {class: "numbers"},
      el("thead", {}, el("tr", {}, el("td"), el("th", {scope: "col", class: "number"}, say("kept.positions")),
        el("th", {scope: "col", class: "number"}, say("bytes")))),
      el("tbody", {}, row("old", past, read - written), row("new", positions, written),
        forgotten ? row("forgotten", forgotten, forgotten * each) : null,
        row("all", all - forgotten, kept - forgotten * each))),
    kind === "draft" ? null : el("p", {class: "soft"}, say("kept.each", {
      each: bytes(each), layers: run.layers, heads: sizes.K, width: sizes.D,
    })),
  ];
}

/** A cell for each position: those that are there, those that are new; frames where a word may
 * still come. @param {Run} run @param {number} past @param {number} all */
function strip(run, past, all) {
  const canvas = /** @type {HTMLCanvasElement} */ (el("canvas", {
    class: "kept", role: "img", "aria-label": say("kept.picture", {old: past, new: all - past}),
  }));
  const most = Math.max(...run.cycles.map((c) => c.past + c.positions));
  new ResizeObserver(() => {
    const wide = canvas.clientWidth, size = Math.max(LEAST, Math.min(CELL, Math.sqrt(wide * 90 / most)));
    const columns = Math.max(1, Math.floor(wide / size)), scale = window.devicePixelRatio || 1;
    const tall = Math.ceil(most / columns) * size;
    canvas.style.height = `${tall}px`;
    canvas.width = wide * scale;
    canvas.height = tall * scale;
    const c = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    const style = getComputedStyle(canvas);
    const [grid, soft, here] = ["grid", "soft", "here"].map((name) => style.getPropertyValue(`--${name}`));
    c.scale(scale, scale);
    for (let p = 0; p < most; p++) {
      const x = p % columns * size, y = Math.floor(p / columns) * size;
      c.fillStyle = p < past ? soft : p < all ? here : grid;
      if (p < all) c.fillRect(x, y, size - 1, size - 1);
      else c.fillRect(x + size / 2 - 1, y + size / 2 - 1, 1, 1);  // nothing yet
    }
  }).observe(canvas);
  return canvas;
}
