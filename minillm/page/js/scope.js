// @ts-check
/** The scope: time from left to right, a lane for each part of the circuit, a column for each
 * cycle, all on one true scale. */

import {PHASES, median} from "./recording.js";
import {bytes, duration, named, say} from "./words.js";

/** @typedef {import("./recording.js").Run} Run */
/** @typedef {"phases" | "layers" | "steps"} Detail */

const RIGHT = 30, GAP = 4;  // pixels
const LANE = {phases: 34, layers: 20, steps: 17};  // of a font of 12 pixels, as what follows
const WORDS = 64, AXIS = 30, NAMES = 124, NARROW = 102;
const DENSE = {lane: 18, extra: 20, words: 42};  // where two runs are to fit onto one screen
const COARSE = 0.8;  // pixels of a mean interval below which shares are drawn
const AIMED = 5;  // pixels of an interval below which nobody can mean it with a pointer
/** @type {Record<string, string>} */
export const HATCH = {embed: "dots", attend: "", "feed forward": "", unembed: "lines", choose: "cross",
  agrees: "", near: "lines", differs: "cross"};

/** Whole numbers times 1, 2 or 5 and a power of ten: the ticks of an axis.
 * @param {number} from @param {number} to @param {number} most */
export function ticks(from, to, most) {
  const rough = (to - from) / Math.max(1, most), power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough) ?? rough;
  const found = [];
  for (let n = Math.ceil(from / step); n * step <= to; n++) found.push(n * step);
  return found;
}

export class Scope {
  ink = ""; soft = ""; grid = ""; mark = ""; paper = "";  // colours of the theme
  /** @type {Record<string, string>} */ colours = {};
  /** @type {Record<string, ?CanvasPattern>} */ hatches = {};
  font = 12;  // pixels, as all of these
  unit = 1;  // of a font of 12
  words = WORDS;  // the height of the line of words
  axis = AXIS;
  lane = 0;
  extra = 0;  // the height of the lanes below
  height = 0;
  width = 0;
  left = NAMES;  // the width of the lanes' names
  tallest = 1;  // the largest share of a lane in a cycle
  /** @type {number[][][]} */ shares = [];
  /** @type {{name: string, phase: string}[]} */ lanes = [];
  coarse = false;
  steep = false;
  paint = false;  // steps by their distance from the reference, not by phase
  waiting = false;  // for the next frame
  /** @type {?Scope} */ beside = null;  // another run's, which follows this one
  /** @type {?Record<string, number>[]} */ sums = null;

  /** @param {HTMLCanvasElement} canvas @param {Run} run
   * @param {(cycle: number, interval: number) => void} picked
   * @param {boolean} [second] stands below another one, whose axis is its own, too
   * @param {() => void} [kept] told when somebody points at what the cache keeps */
  constructor(canvas, run, picked, second = false, kept = () => {}) {
    this.canvas = canvas;
    this.run = run;
    this.picked = picked;
    this.second = second;
    this.kept = kept;
    /** @type {Detail} */ this.detail = "phases";
    this.from = 0;
    this.to = run.end;
    this.now = Infinity;  // how far the sweep has come
    this.cycle = 0;
    this.interval = -1;  // of the cycle that is picked; -1: all of it
    this.#lanes();
    this.#listen();
  }

  // ---- what is drawn

  #lanes() {
    const run = this.run;
    this.lanes = PHASES.map((phase) => ({name: say(`phase.${phase}`), phase}));
    /** @type {(i: {phase: string, layer: number, steps: number[]}) => number} */
    this.laneOf = (i) => PHASES.indexOf(i.phase);
    if (this.detail === "layers") {
      const layers = Array.from({length: run.layers}, (_, n) => ({
        name: say("layer", {n}), phase: "",
      }));
      this.lanes = [this.lanes[0], ...layers, this.lanes[3], this.lanes[4]];
      this.laneOf = (i) => i.layer >= 0 ? 1 + i.layer
        : i.phase === "embed" ? 0 : run.layers + (i.phase === "unembed" ? 1 : 2);
    } else if (this.detail === "steps") {
      const used = new Set();
      for (const list of run.covered) for (const i of list) used.add(i.steps.at(-1));
      const rows = run.steps.map((_, n) => n).filter((n) => used.has(n));
      this.lanes = rows.map((n) => ({name: run.steps[n].name, phase: run.steps[n].phase}));
      this.laneOf = (i) => rows.indexOf(/** @type {number} */ (i.steps.at(-1)));
    }
    // of each cycle and lane: the share of time, and of which phase
    this.shares = run.cycles.map((cycle, c) => {
      const row = this.lanes.map(() => [0, 0, 0, 0, 0]);
      for (const i of run.intervals(c)) row[this.laneOf(i)][PHASES.indexOf(i.phase)] += i.end - i.start;
      const whole = Math.max(1, cycle.end - cycle.start);
      return row.map((phases) => phases.map((ns) => ns / whole));
    });
    const most = Math.max(...this.shares.flat().map((phases) => phases.reduce((a, b) => a + b)));
    this.tallest = Math.max(most, 1e-9);
    this.#measure();
  }

  /** Heights follow the page's font, which a projector's browser may enlarge. */
  #measure() {
    const size = Math.round(0.78 * parseFloat(getComputedStyle(this.canvas).fontSize)) || 12;
    const unit = size / 12, more = (this.#predicts ? 1 : 0) + 1, dense = this.#dense;
    this.font = size;
    this.unit = unit;
    this.words = (dense ? DENSE.words : WORDS) * unit;
    this.lane = Math.min(LANE[this.detail], dense ? DENSE.lane : Infinity) * unit;
    this.extra = (dense ? DENSE.extra : LANE.phases) * unit;
    this.axis = this.second ? GAP : AXIS * unit;
    const lanes = this.lanes.length * (this.lane + GAP) + more * (this.extra + GAP);
    this.height = Math.round(this.words + lanes + this.axis);
    this.canvas.style.height = `${this.height}px`;
    this.width = this.canvas.clientWidth;
    this.left = (this.width < 600 ? NARROW : NAMES) * unit;
  }

  /** Whether another run stands beside this one. */
  get #dense() {
    return this.second || this.beside !== null;
  }

  /** Whether what is predicted has a line of its own. */
  get #predicts() {
    return this.run.predicts && !this.second;
  }

  /** @param {Detail} detail */
  unfold(detail) {
    this.detail = detail;
    this.#lanes();
    this.beside?.unfold(detail);
    this.draw();
  }

  /** Whether columns are too narrow for their intervals, so that shares are drawn instead, and for
   * their words; by the median of those in view. @param {number} first @param {number} last */
  #narrow(first, last) {
    const {cycles} = this.run, shown = cycles.slice(first, last + 1);
    const wide = median(shown.map((c) => this.x(c.end) - this.x(c.start)));
    this.coarse = wide / this.run.count(last) < COARSE;
    this.steep = wide < 52 * this.unit;
  }

  /** Pixels of a time. @param {number} ns */
  x(ns) {
    return this.left + (ns - this.from) / (this.to - this.from) * (this.width - this.left - RIGHT);
  }

  /** The time at a pixel. @param {number} x */
  time(x) {
    return this.from + (x - this.left) / (this.width - this.left - RIGHT) * (this.to - this.from);
  }

  /** The number of the cycle that is on at a time, the nearest one where none is.
   * @param {number} ns */
  at(ns) {
    let low = 0, high = this.run.cycles.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.run.cycles[middle].start <= ns) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  draw() {
    if (this.beside) {  // on one time scale
      Object.assign(this.beside, {from: this.from, to: this.to, now: this.now});
      this.beside.draw();
    }
    if (!this.waiting) {
      this.waiting = true;
      requestAnimationFrame(() => {
        this.waiting = false;
        this.#draw();
      });
    }
  }

  #draw() {
    const {canvas, run, width, height} = this;
    if (!width) return;
    const scale = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(height * scale);
      this.hatches = {};
    }
    const c = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    c.setTransform(scale, 0, 0, scale, 0, 0);
    c.clearRect(0, 0, width, height);
    const style = getComputedStyle(canvas);
    /** @param {string} name */
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    this.ink = colour("ink");
    this.soft = colour("soft");
    this.grid = colour("grid");
    this.mark = colour("here");
    this.paper = colour("paper");
    this.colours = Object.fromEntries([...PHASES, "agrees", "near", "differs"].map((p) => [p, colour(p.replace(" ", "-"))]));
    c.font = `${this.font}px ${style.fontFamily}`;
    c.textBaseline = "middle";
    this.#labels(c);
    c.save();
    c.beginPath();
    c.rect(this.left, 0, width - this.left, height);
    c.clip();
    if (this.from >= run.end) {  // of the run below, which was faster
      c.fillStyle = this.soft;
      c.textAlign = "left";
      c.fillText(say("scope.over", {time: duration(run.end)}), this.left + 6, this.words + this.lane / 2);
    }
    const first = this.at(this.from), last = this.at(this.to);
    this.#narrow(first, last);
    for (let n = first; n <= last; n++) this.#column(c, n);
    this.#words(c, first, last);
    if (this.now < run.end) this.#line(c, this.now, this.mark, 2);
    c.restore();
    if (!this.second) this.#axis(c);
  }

  /** @param {number} lane */
  #top(lane) {
    return this.words + lane * (this.lane + GAP);
  }

  get #after() {
    return this.#top(this.lanes.length);
  }

  /** @param {CanvasRenderingContext2D} c */
  #labels(c) {
    c.textAlign = "right";
    this.lanes.forEach((lane, n) => {
      const y = this.#top(n);
      c.fillStyle = this.ink;
      c.fillText(shorten(c, lane.name, this.left - 28), this.left - 18, y + this.lane / 2);
      if (lane.phase && !this.paint) this.#fill(c, lane.phase, this.left - 14, y + this.lane / 2 - 5, 9, 10, true);
      c.fillStyle = this.grid;
      c.fillRect(this.left, y + this.lane + GAP / 2, this.width - this.left - RIGHT, 1);
    });
    c.fillStyle = this.soft;
    let y = this.#after + this.extra / 2;
    if (this.#predicts) {
      c.fillText(say("scope.predicted"), this.left - 8, y);
      y += this.extra + GAP;
    }
    c.fillText(say("scope.cache"), this.left - 8, y);
  }

  /** One cycle, all lanes of it. @param {CanvasRenderingContext2D} c @param {number} n */
  #column(c, n) {
    const {run} = this, cycle = run.cycles[n];
    const left = this.x(cycle.start), right = this.x(cycle.end), picked = n === this.cycle;
    if (picked) {
      c.fillStyle = this.grid;
      c.fillRect(left, this.words - 4, Math.max(right - left, 2), this.height - this.axis - this.words + 4);
    }
    c.save();
    if (this.now < cycle.end) {  // what the sweep has not reached is faint
      c.globalAlpha = this.now <= cycle.start ? 0.13 : 1;
      if (this.now > cycle.start) {
        c.beginPath();
        c.rect(left, 0, this.x(this.now) - left, this.height);
        c.clip();
      }
    }
    const {coarse} = this, gap = right - left > 6 ? 1 : 0;
    if (coarse) {
      this.shares[n].forEach((phases, lane) => {
        let bottom = this.#top(lane) + this.lane;
        phases.forEach((share, p) => {
          const tall = this.lane * share / this.tallest;
          if (tall > 0.05) this.#fill(c, this.#look(PHASES[p], this.detail === "layers" ? lane - 1 : -1), left, bottom - tall, right - left - gap, tall, right - left > 8);
          bottom -= tall;
        });
      });
    } else {
      run.intervals(n).forEach((i, number) => {
        const x = this.x(i.start), w = Math.max(this.x(i.end) - x, 0.5), y = this.#top(this.laneOf(i));
        if (x + w < this.left || x > this.width) return;
        this.#fill(c, this.#look(i.phase, i.layer, i.steps), x, y, w, this.lane, w > 2);
        if (picked && number === this.interval) {
          c.strokeStyle = this.mark;
          c.lineWidth = 3;
          c.strokeRect(x - 1, y - 1, w + 2, this.lane + 2);
        }
        if (w > 34 * this.unit) {
          c.textAlign = "center";
          const text = shorten(c, run.called(i), w - 10), wide = c.measureText(text).width + 6;
          c.fillStyle = this.paper;
          c.globalAlpha *= 0.85;
          c.fillRect(x + w / 2 - wide / 2, y + this.lane / 2 - 7 * this.unit, wide, 14 * this.unit);
          c.globalAlpha /= 0.85;
          c.fillStyle = this.ink;
          c.fillText(text, x + w / 2, y + this.lane / 2);
        }
      });
    }
    let y = this.#after;
    if (this.#predicts) {
      let from = cycle.start;
      const h = this.extra - 8;
      c.save();
      c.beginPath();  // more than was measured ends with the cycle, without an edge
      c.rect(left, y, Math.max(right - left, 2), this.extra);
      c.clip();
      if (coarse) {
        for (const phase of PHASES) {
          const w = this.#predictedOf(n, phase);
          this.#fill(c, phase, this.x(from), y + 4, this.x(from + w) - this.x(from), h, false);
          from += w;
        }
      } else {
        for (const i of run.intervals(n)) {
          const x = this.x(from), w = this.x(from + i.predicted) - x;
          this.#fill(c, i.phase, x, y + 4, w, h, w > 2);
          from += i.predicted;
        }
      }
      c.strokeStyle = this.ink;
      c.lineWidth = 1;
      c.strokeRect(left + 0.5, y + 3.5, Math.max(this.x(from) - left - 1, 1), h + 1);
      c.restore();
      y += this.extra + GAP;
    }
    const most = Math.max(1, run.cycles[run.cycles.length - 1].kept);
    const tall = (this.extra - 4) * cycle.kept / most, old = tall * cycle.past / (cycle.past + cycle.positions);
    const floor = y + this.extra;
    c.fillStyle = this.soft;
    c.fillRect(left, floor - old, right - left - gap, old);
    c.fillStyle = this.mark;
    c.fillRect(left, floor - tall, right - left - gap, Math.max(tall - old, cycle.written ? 1 : 0));
    c.restore();
    if (picked) {
      c.strokeStyle = this.mark;
      c.lineWidth = 2;
      c.strokeRect(left, this.words - 4, Math.max(right - left, 2), this.height - this.axis - this.words + 4);
    } else if (right - left > 6) {
      c.fillStyle = this.grid;
      c.fillRect(left, this.words - 4, 1, this.height - this.axis - this.words + 4);
    }
  }

  /** @param {number} n @param {string} phase */
  #predictedOf(n, phase) {
    this.sums ??= this.run.cycles.map((_, c) => {
      const row = Object.fromEntries(PHASES.map((p) => [p, 0]));
      for (const i of this.run.intervals(c)) row[i.phase] += i.predicted;
      return row;
    });
    return this.sums[n][phase];
  }

  /** What a part is painted as: its phase, or how far the farthest of its steps is from the reference.
   * @param {string} phase @param {number} layer @param {number[]} [steps] of the phase, if not named */
  #look(phase, layer, steps) {
    const {run} = this;
    if (!this.paint || !run.compared) return phase;
    const mine = steps ?? run.steps.map((_, n) => n).filter((n) => run.steps[n].phase === phase);
    return run.kind(Math.max(-1, ...mine.map((n) => run.distance(n, layer))));
  }

  /** A rectangle of a phase: its colour, its hatch where there is room.
   * @param {CanvasRenderingContext2D} c @param {string} phase @param {number} x @param {number} y
   * @param {number} w @param {number} h @param {boolean} [hatched] */
  #fill(c, phase, x, y, w, h, hatched = false) {
    c.fillStyle = this.colours[phase];
    c.fillRect(x, y, Math.max(w, 0.4), h);
    if (!hatched) return;
    const hatch = this.#hatch(c, phase);
    if (hatch) {
      c.fillStyle = hatch;
      c.fillRect(x, y, w, h);
    }
    if (w > 3) {
      c.strokeStyle = this.ink;
      c.lineWidth = 0.4;
      c.strokeRect(x + 0.2, y + 0.2, w - 0.4, h - 0.4);
    }
  }

  /** @param {CanvasRenderingContext2D} c @param {string} phase @returns {CanvasPattern | null} */
  #hatch(c, phase) {
    const kind = HATCH[phase];
    if (!kind) return null;
    const known = this.hatches;
    if (!(kind in known)) {
      const tile = document.createElement("canvas");
      tile.width = tile.height = 6;
      const d = /** @type {CanvasRenderingContext2D} */ (tile.getContext("2d"));
      d.strokeStyle = d.fillStyle = this.ink;
      d.globalAlpha = 0.5;
      d.lineWidth = 0.8;
      d.beginPath();
      if (kind === "dots") d.fillRect(2, 2, 1.4, 1.4);
      if (kind !== "dots") { d.moveTo(0, 6); d.lineTo(6, 0); }
      if (kind === "cross") { d.moveTo(0, 0); d.lineTo(6, 6); }
      d.stroke();
      known[kind] = c.createPattern(tile, "repeat");
    }
    return known[kind];
  }

  /** The words that came, over their cycles. @param {CanvasRenderingContext2D} c
   * @param {number} first @param {number} last */
  #words(c, first, last) {
    const dense = this.#dense;
    let free = -Infinity;
    for (let n = first; n <= last; n++) {
      const {start, end, kind} = this.run.cycles[n], picked = n === this.cycle;
      const left = this.x(start), w = this.x(end) - left;
      const said = this.run.momentsOf[n].map((m) => named(this.run.word(this.run.moments[m].id), 16));
      if (this.now < end || (!said.length && !picked)) continue;
      const text = said.join(" ") || say(`kind.${kind}`);
      c.fillStyle = picked ? this.mark : this.ink;
      if (!this.steep) {
        if (left < free && !picked) continue;
        const shown = shorten(c, text, Math.max(w, 52 * this.unit) - 4);
        c.textAlign = "left";
        c.fillText(shown, left + 3, this.words - 14 * this.unit);
        free = left + 3 + c.measureText(shown).width;
      } else if (picked || left > free) {
        c.save();
        c.translate(left + Math.min(w / 2, 10) + 2, this.words - 9 * this.unit);
        c.rotate(-Math.PI / (dense ? 6 : 3));
        c.textAlign = "left";
        c.font = picked ? `bold ${c.font}` : c.font;
        c.fillText(shorten(c, text, 62 * this.unit), 0, 0);
        c.restore();
        free = left + (dense ? 20 : 11) * this.unit;
      }
    }
  }

  /** @param {CanvasRenderingContext2D} c @param {number} ns @param {string} colour
   * @param {number} width */
  #line(c, ns, colour, width) {
    c.fillStyle = colour;
    c.fillRect(this.x(ns) - width / 2, this.words - 4, width, this.height - this.axis - this.words + 4);
  }

  /** @param {CanvasRenderingContext2D} c */
  #axis(c) {
    const y = this.height - this.axis + 6, most = Math.max(2, (this.width - this.left) / 90);
    c.fillStyle = this.soft;
    c.fillRect(this.left, y - 4, this.width - this.left - RIGHT, 1);
    c.textAlign = "center";
    // Where a cycle or two fill the view, time is told from the beginning of the first of them.
    const zoomed = this.to - this.from < 0.1 * this.run.end && this.at(this.to) - this.at(this.from) < 3;
    const zero = zoomed ? this.run.cycles[this.at((this.from + this.to) / 2)].start : 0;
    for (const tick of ticks(this.from - zero, this.to - zero, most)) {
      const x = this.x(zero + tick);
      c.fillRect(x, y - 4, 1, 5);
      const text = !tick ? (zero ? duration(zero) : "0") : `${zero && tick > 0 ? "+" : ""}${duration(tick)}`;
      const half = c.measureText(text).width / 2;
      c.fillText(text, Math.min(Math.max(x, this.left + half), this.width - half), y + 10 * this.unit);
    }
  }

  // ---- what is picked, and what is in view

  /** Pick a cycle, and of it an interval (-1: all), and bring it into view.
   * @param {number} cycle @param {number} [interval] */
  pick(cycle, interval = -1) {
    this.cycle = Math.max(0, Math.min(cycle, this.run.cycles.length - 1));
    this.interval = Math.min(interval, this.run.count(this.cycle) - 1);
    const {start, end} = this.run.cycles[this.cycle], span = this.to - this.from;
    if (start < this.from || end > this.to) {
      this.show(start - Math.max(0, span - (end - start)) / 2, span);
    }
    this.draw();
    this.picked(this.cycle, this.interval);
  }

  /** Put a span of time into view. @param {number} from @param {number} span */
  show(from, span) {
    const whole = Math.max(this.run.end, this.beside?.run.end ?? 0);
    span = Math.max(Math.min(span, whole), 2000);
    this.from = Math.max(0, Math.min(from, whole - span));
    this.to = this.from + span;
    this.draw();
  }

  /** Zoom in or out, about a time. @param {number} factor @param {number} [about] */
  zoom(factor, about = (this.run.cycles[this.cycle].start + this.run.cycles[this.cycle].end) / 2) {
    const span = (this.to - this.from) / factor;
    this.show(about - (about - this.from) / factor, span);
  }

  /** The cycle that is picked fills the view, or all of it does. @param {boolean} whole */
  fit(whole) {
    const {start, end} = this.run.cycles[this.cycle];
    if (whole) this.show(0, Infinity);
    else this.show(start - 0.04 * (end - start), 1.08 * (end - start));
  }

  /** As many cycles as can be told apart, from the first. */
  begin() {
    const widths = this.run.cycles.map((_, n) => this.run.lasted(n));
    const room = (this.width - this.left - RIGHT) / (13 * this.unit);
    const span = this.run.cycles.length <= room ? this.run.end : room * median(widths) + widths[0];
    this.show(0, span);
  }

  #listen() {
    const {canvas} = this;
    new ResizeObserver(() => {
      this.#measure();
      this.draw();
    }).observe(canvas);
    if (this.second) {  // it moves with the one above
      canvas.addEventListener("click", ({offsetX}) => this.picked(this.at(this.time(offsetX)), -1));
      return;
    }
    /** @type {?{x: number, from: number, moved: boolean}} */
    let drag = null;
    canvas.addEventListener("pointerdown", (event) => {
      drag = {x: event.offsetX, from: this.from, moved: false};
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!drag) return;
      const by = event.offsetX - drag.x;
      drag.moved ||= Math.abs(by) > 4;
      if (!drag.moved) return;
      const perPixel = (this.to - this.from) / (this.width - this.left - RIGHT);
      this.show(drag.from - by * perPixel, this.to - this.from);
    });
    canvas.addEventListener("pointerup", (event) => {
      if (drag && !drag.moved && event.offsetX >= this.left) this.#point(event.offsetX, event.offsetY);
      drag = null;
    });
    canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.shiftKey) return;  // the page scrolls
      event.preventDefault();
      this.zoom(event.deltaY < 0 ? 1.25 : 0.8, this.time(event.offsetX));
    }, {passive: false});
  }

  /** Pick what is at a place. @param {number} x @param {number} y */
  #point(x, y) {
    const ns = this.time(x), cycle = this.at(ns), lane = Math.floor((y - this.words) / (this.lane + GAP));
    const all = this.run.intervals(cycle);
    const fine = !this.coarse;
    let found = all.findIndex((i) => fine && i.start <= ns && ns < i.end);
    const narrow = found >= 0 && this.x(all[found].end) - this.x(all[found].start) < AIMED;
    if ((!fine || narrow) && lane >= 0 && lane < this.lanes.length) {  // the longest of its lane
      const mine = all.map((i, n) => ({i, n})).filter(({i}) => this.laneOf(i) === lane);
      mine.sort((a, b) => b.i.net - a.i.net);
      found = mine.length ? mine[0].n : -1;
    }
    const below = y - this.#after;
    if (this.#predicts && below >= 0 && below < this.extra + GAP) found = this.#foretold(cycle, ns);
    else if (below >= 0) found = -1;
    this.pick(cycle, found);
    if (below >= (this.#predicts ? this.extra + GAP : 0) && y < this.height - this.axis) this.kept();
  }

  /** The interval whose prediction is drawn at a time, the longest of its phase where that is too narrow to point
   * at; -1 where nothing is drawn. @param {number} cycle @param {number} ns */
  #foretold(cycle, ns) {
    const all = this.run.intervals(cycle), {start} = this.run.cycles[cycle];
    const drawn = this.coarse ? PHASES.flatMap((phase) => all.filter((i) => i.phase === phase)) : all;
    let end = start;
    const found = drawn.find((i) => (end += i.predicted) > ns);
    if (!found || this.x(found.predicted) - this.x(0) >= AIMED) return found ? all.indexOf(found) : -1;
    const mine = all.filter(({phase}) => phase === found.phase);
    return all.indexOf(mine.reduce((a, b) => b.net > a.net ? b : a));
  }

  /** What is picked, in words. */
  get spoken() {
    const {run, cycle} = this, {kind, kept} = run.cycles[cycle];
    const words = run.momentsOf[cycle].map((m) => named(run.word(run.moments[m].id))).join(" ");
    const text = say("scope.spoken", {
      n: cycle, kind: say(`kind.${kind}`), words, time: duration(run.lasted(cycle)), cache: bytes(kept),
    });
    if (this.interval < 0) return text;
    const i = run.interval(cycle, this.interval);
    return `${text}; ${i.name}, ${duration(i.net)}`;
  }
}

/** Text that fits into so many pixels. @param {CanvasRenderingContext2D} c @param {string} text
 * @param {number} most */
function shorten(c, text, most) {
  if (c.measureText(text).width <= most) return text;
  let n = text.length;
  while (n > 1 && c.measureText(`${text.slice(0, n)}…`).width > most) n--;
  return `${text.slice(0, n)}…`;
}
