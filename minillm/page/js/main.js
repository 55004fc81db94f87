// @ts-check
/** The page: wires a recording to the views, and keys, pointer and time to what is picked. */

import {Handles, drawnAs} from "./handles.js";
import {kept} from "./kept.js";
import {proof, verdict} from "./proof.js";
import {Drawing} from "./map.js";
import {parting} from "./parting.js";
import {Patching} from "./patch.js";
import {read} from "./recording.js";
import {Scope} from "./scope.js";
import {attention, candidates, compared, cycle, el, facts, here, lens, lever, mark, norms, picked, pulled, source,
  step, table, telling, text, threads, token, tokens} from "./views.js";
import {digits, named, plain, say, speak, spoken} from "./words.js";

/** @typedef {import("./recording.js").Run} Run */

const ON_SCREEN = 0.45, MOST_ON_SCREEN = 45;  // seconds of a cycle, and of all of them

/** @param {string} id @returns {any} */
const $ = (id) => document.getElementById(id);

export class Page {
  constructor() {
    this.still = matchMedia("(prefers-reduced-motion: reduce)");
    this.playing = false;
    this.painted = false;  // by the distance from a reference
    /** @type {(() => void)[]} */ this.parts = [];  // cards that are yet to be drawn
    this.at = {layer: 0, head: -1};
    /** @type {?SVGElement} */ this.opener = null;  // in the drawing, of the step that is open
    new Drawing($("map"), (what, name, opener) => this.#part(what, name, opener));
    /** @type {Run | undefined} */ this.run = undefined;
    /** @type {Run | undefined} */ this.other = undefined;  // that was shown before
    /** @type {Run[]} */ this.runs = [];  // all branches, the newest last
    /** @type {?((ids: number[]) => void)} */ this.branch = null;  // how to go on after some ids
    this.sources = JSON.parse($("sources").textContent);
    this.handles = new Handles($("handles"), () => this.#candidates(), () => {
      const {run, moment} = this;
      if (run) this.branch?.(run.ids.slice(0, run.position(moment) + 1));
    });
    this.patching = new Patching($("patch"));
    /** @type {?Element} */ this.touched = null;  // what was pointed at last
    this.#controls();
  }

  // ---- what is shown

  /** Show a recording, from its beginning. @param {Run} run */
  show(run) {
    const again = String(this.run?.header.text.ids) === String(run.header.text.ids);
    const cycle = again ? this.scope?.cycle ?? 0 : 0;
    if (this.run !== run) this.other = this.run;
    this.run = run;
    if (!this.runs.includes(run)) this.runs.push(run);
    this.at = telling(run);
    this.handles.set(run.header.options);
    const canvas = el("canvas", {
      id: "scope", tabindex: 0, role: "slider", "aria-valuemin": 0,
      "aria-valuemax": run.cycles.length - 1,
    });
    $("scope").replaceWith(canvas);
    this.scope = new Scope(/** @type {HTMLCanvasElement} */ (canvas), run, () => this.#picked(), false,
      () => this.#card("kept"));
    $("proof-card").hidden = $("paint").hidden = !run.compared;
    $("parting-card").hidden = !this.parted;
    if (run.parting) {  // it is what such a lever is about
      $("parting-card").parentElement.prepend($("parting-card"));
    }
    if (run.compared?.against === "textbook") {  // somebody looks for what is wrong
      $("proof-card").parentElement.prepend($("proof-card"));
      this.painted = true;
    }
    this.paint(this.painted);
    canvas.addEventListener("pointerdown", () => {
      this.opener = null;
      this.pause(true);
    });
    this.#beside();
    text(run, $("words"), (moment) => this.pick(run.moments[moment].cycle));
    this.translate();
    this.scope.begin();
    this.scope.pick(this.still.matches && !again ? run.cycles.length - 1 : cycle);
    this.#factor();
    if (this.still.matches) this.pause(true);
    else this.play(true);
  }

  /** Write everything anew, in the language that is spoken. */
  translate() {
    document.documentElement.lang = spoken();
    document.title = `minillm: ${say("title")}`;
    for (const place of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("[data-say]"))) {
      place.textContent = say(place.dataset.say ?? "");
    }
    for (const place of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("[data-label]"))) {
      place.setAttribute("aria-label", say(place.dataset.label ?? ""));
      place.title = say(place.dataset.label ?? "");
    }
    this.handles.translate(Boolean(this.branch));
    for (const option of $("lever").options) {
      const [what, how] = option.value.split(":");
      option.textContent = !what ? say("lever.none") : what === "threads" ? threads(Number(how))
        : say(`lever.${how || what === "no-cache" ? what : "stored"}`, {how: how ?? what});
    }
    for (const place of document.querySelectorAll("[data-source]")) {
      const view = /** @type {HTMLElement} */ (place).dataset.source ?? "";
      place.replaceChildren(source(say(`equation.${view}`), this.sources[view]));
    }
    const {run, scope} = this;
    if (!run || !scope) return;
    const {model, runs, machine} = run.header;
    $("lead").textContent = say("lead", {
      title: model.title, name: plain(model.name).slice(0, 60), parameters: model.parameters.toLocaleString(spoken()),
      layers: run.layers, heads: run.heads, twin: model.twin,
      threads: threads(model.threads),
    });
    const yours = run.compared?.against === "textbook" ? [el("li", {}, verdict(run).words)] : [];
    $("facts").replaceChildren(...yours, ...facts(run).map((fact) => el("li", {}, fact)),
      ...(run.predicts ? [] : [el("li", {class: "soft"}, say("no.prediction"))]));
    $("runs").textContent = say("runs", {
      difference: digits(runs.difference), machine: plain(String(machine.processor ?? "")).slice(0, 100),
    });
    $("scope").setAttribute("aria-label", say("scope"));
    $("tokens").replaceChildren(...only(tokens(run)));
    if (this.other) {
      const how = lever(this.other, run);
      $("beside-name").textContent = say("beside", {how});
      $("beside").setAttribute("aria-label", say("beside", {how}));
      $("compared").textContent = compared(run, this.other);
      $("levers").replaceChildren(...pulled(run, this.other)
        .map((what) => source(say(`equation.lever.${what}`), this.sources[`lever.${what}`])));
    }
    if (run.compared) $("proof").replaceChildren(...proof(run, this.runs));
    this.#tabs();
    $("table").replaceChildren(...table(run, (n) => this.pick(n)));
    scope.unfold(scope.detail);
    this.#picked();
    this.#allCards();
    this.#factor();
  }

  /** Let a lever be chosen: "no-cache", "int8", "draft:ngram" (page/levers.py).
   * @param {string[]} names @param {() => void} chosen */
  offer(names, chosen) {
    $("lever").replaceChildren(...["", ...names].map((value) => el("option", {value})));
    $("lever").addEventListener("change", chosen);
    this.translate();
  }

  /** The run that was shown before, under this one and on its time scale. */
  #beside() {
    const {scope, other} = this;
    $("beside-view").hidden = !other;
    if (!scope || !other) return;
    const canvas = /** @type {HTMLCanvasElement} */ (el("canvas", {id: "beside", role: "img"}));
    $("beside").replaceWith(canvas);
    scope.beside = new Scope(canvas, other, (cycle) => {  // it comes up
      this.show(other);
      this.pick(cycle);
    }, true);
    scope.beside.cycle = -1;  // nothing of it is picked
    scope.unfold(scope.detail);
  }

  /** A tab for each branch, called by the words in which it differs from the one before. */
  #tabs() {
    $("runs-tabs").hidden = this.runs.length < 2;
    $("runs-tabs").replaceChildren(...this.runs.map((run, n) => {
      const before = this.runs[Math.max(0, n - 1)].ids, own = run.ids;
      const from = n ? own.findIndex((id, at) => id !== before[at]) : run.position(0) + 1;
      const words = from < 0 ? "=" : own.slice(from, from + 4).map((id) => run.word(id)).join("");
      return el("button", {
        type: "button", "aria-pressed": String(run === this.run), onclick: () => this.show(run),
      }, `${n + 1} ${lever(run, this.runs[0])}: `, el("bdi", {}, named(words, 24)));
    }));
  }

  #picked() {
    const {run, scope} = this;
    if (!run || !scope) return;
    const n = scope.cycle, opened = scope.interval >= 0;
    $("scope").setAttribute("aria-valuenow", String(n));
    $("scope").setAttribute("aria-valuetext", scope.spoken);
    mark($("words"), scope.now === Infinity ? Infinity : this.reached, this.moment);
    $("step-view").hidden = !opened;
    if (opened) $("step").replaceChildren(...only(step(run, n, scope.interval, this.opener?.dataset.step)));
    this.#light(opened ? run.interval(n, scope.interval) : null);
    $("table").querySelector("tr.here")?.classList.remove("here");
    $("table").querySelector(`tr[data-cycle="${n}"]`)?.classList.add("here");
    const idle = !this.parts.length;
    this.parts = this.#cards();  // follow, one a frame, after the scope has moved
    const next = () => {
      this.parts.shift()?.();
      if (this.parts.length) requestAnimationFrame(next);
    };
    if (idle) requestAnimationFrame(() => requestAnimationFrame(next));
  }

  /** What draws each card of the cycle and the moment that are picked.
   * @returns {(() => void)[]} */
  #cards() {
    const {run, scope, moment} = this;
    if (!run || !scope) return [];
    return [
      () => $("picked").textContent = picked(run, scope.cycle),
      () => $("here").textContent = here(run, scope.cycle, scope.interval < 0 ? null
        : run.interval(scope.cycle, scope.interval)),
      () => $("cycle").replaceChildren(...only(cycle(run, scope.cycle, (i) => this.open(i)))),
      () => this.#candidates(),
      () => $("kept").replaceChildren(...only(kept(run, scope.cycle))),
      () => $("lens").replaceChildren(...only(lens(run, moment))),
      () => this.#attention(run, moment),
      () => this.#parting(moment),
      () => $("norms").replaceChildren(...only(norms(run, moment))),
      () => this.patching.show(run, moment),
    ];
  }

  #candidates() {
    const {run, moment, handles} = this;
    if (!run) return;
    const branch = this.branch && ((/** @type {number} */ id) => {
      this.branch?.([...run.ids.slice(0, run.position(moment) + 1), id]);
    });
    $("candidates").replaceChildren(...candidates(run, moment, handles.moved ? handles.how : null, branch));
  }

  /** Of the two runs that stand beside each other, the one that was told apart. */
  get parted() {
    return [this.run, this.other].find((run) => run?.parting);
  }

  /** @param {number} moment */
  #parting(moment) {
    const {parted} = this;
    if (!parted) return;
    const shown = Math.min(moment, parted.moments.length - 1);
    $("parting").replaceChildren(...parting(parted, this.runs, shown, (m) => {
      const {moments} = /** @type {Run} */ (this.run);
      this.pick(moments[Math.min(m, moments.length - 1)].cycle);
    }));
  }

  /** @param {Run} run @param {number} moment */
  #attention(run, moment) {
    const focused = document.activeElement?.closest(".heads");
    $("attention").replaceChildren(...only(attention(run, moment, this.at, (layer, head) => {
      this.at = {layer, head};
      this.#attention(run, moment);
    }, (position) => this.pick(run.moments[Math.max(0, position - run.position(0))].cycle))));
    if (focused) $("attention").querySelector("[aria-pressed=true]")?.focus();
  }

  #allCards() {
    this.parts = [];  // those that were to follow are drawn now
    for (const part of this.#cards()) part();
  }

  /** Light up in the drawing of the model what an interval does.
   * @param {?import("./recording.js").Interval} i */
  #light(i) {
    for (const part of document.querySelectorAll("#map .here")) part.classList.remove("here");
    if (i && i.layer >= 0) {
      for (const part of document.querySelectorAll(`#map [data-layer="${i.layer}"]`)) part.classList.add("here");
    }
    for (const n of i?.steps ?? []) {
      const name = CSS.escape(this.run?.steps[n].name ?? "");
      for (const part of document.querySelectorAll(`#map [data-step="${name}"]`)) part.classList.add("here");
    }
  }

  /** The moment that belongs to what is picked: the last one that the cycle led to. */
  get moment() {
    const {run, scope} = this;
    if (!run || !scope) return 0;
    for (let n = scope.cycle; n < run.cycles.length; n++) {
      const last = run.momentsOf[n].at(-1);
      if (last !== undefined) return last;
    }
    return run.moments.length - 1;
  }

  /** How the next text is drawn: as the handles stand; a draw of its own for each run. */
  get drawing() {
    return this.handles.options(this.runs.length);
  }

  /** The last moment that the sweep has reached, -1 before the first. */
  get reached() {
    const {run, scope} = this;
    if (!run || !scope) return -1;
    let n = run.moments.length - 1;
    while (n >= 0 && run.cycles[run.moments[n].cycle].end > scope.now) n--;
    return n;
  }

  // ---- moving

  /** @param {number} cycle @param {number} [interval] */
  pick(cycle, interval = -1) {
    this.pause(true);
    this.scope?.pick(cycle, interval);
  }

  /** Open a step of the cycle that is picked; without one, its longest.
   * @param {number} [interval] @param {?SVGElement} [opener] in the drawing, to which Esc goes back */
  open(interval, opener = null) {
    const {run, scope} = this;
    if (!run || !scope) return;
    this.opener = opener;
    const all = run.intervals(scope.cycle), longest = Math.max(...all.map((i) => i.net));
    this.pick(scope.cycle, interval ?? (scope.interval >= 0 ? scope.interval
      : all.findIndex((i) => i.net === longest)));
    $("step-view").focus({preventScroll: true});
    $("step-view").scrollIntoView({block: "nearest"});
    $("step").querySelector(".formed.here")?.scrollIntoView({block: "nearest"});
  }

  close() {
    this.scope?.pick(this.scope.cycle);
    if (this.opener) this.opener.focus();
    else $("scope").focus({preventScroll: true});
    this.opener = null;
  }

  /** Go to what a part of the drawing stands for: the longest interval of a step (in the layer that is lit), of a
   * layer or of a phase in the cycle that is picked; a card; or the next cycle.
   * @param {"step" | "layer" | "part" | "phase"} what @param {string} name @param {SVGElement} opener */
  #part(what, name, opener) {
    const {run, scope} = this;
    if (!run || !scope) return;
    if (name === "loop") return this.move(1, false);
    if (what === "part") {
      return this.#card({ids: "tokens", stream: "norms", cache: "kept"}[name] ?? "map");
    }
    const all = run.intervals(scope.cycle), number = run.numbers.get(name) ?? -1;
    const lit = scope.interval < 0 ? -1 : all[scope.interval].layer;
    const fits = (/** @type {import("./recording.js").Interval} */ i) => what === "step" ? i.steps.includes(number)
      : what === "layer" ? i.layer === Number(name) : i.phase === name;
    const mine = all.filter(fits), near = mine.filter(({layer}) => what === "step" && layer === lit);
    const found = (near.length ? near : mine).sort((a, b) => b.net - a.net)[0];
    if (found) this.open(all.indexOf(found), opener);
  }

  /** Bring a card into view, and the focus to it. @param {string} name of what is in it */
  #card(name) {
    const card = $(name).closest("section");
    card.tabIndex = -1;
    card.focus({preventScroll: true});
    card.scrollIntoView({block: "nearest"});
  }

  /** To the next cycle, or the next step of it. @param {number} by @param {boolean} fine */
  move(by, fine) {
    const {run, scope} = this;
    if (!run || !scope) return;
    if (!fine && scope.interval < 0) return this.pick(scope.cycle + by);
    if (!fine) return this.pick(scope.cycle + by, scope.interval);
    const to = scope.interval + by, n = run.count(scope.cycle);
    if (to < 0 && scope.cycle) return this.pick(scope.cycle - 1, Infinity);
    if (to >= n && scope.cycle + 1 < run.cycles.length) return this.pick(scope.cycle + 1, 0);
    this.pick(scope.cycle, Math.max(0, Math.min(to, n - 1)));
  }

  // ---- time

  /** Nanoseconds of the run in a second on the screen. */
  get pace() {
    const {run} = this;
    if (!run) return 1;
    const typical = run.typical < 0 ? run.end : run.lasted(run.typical);
    return Math.max(typical / ON_SCREEN, run.end / MOST_ON_SCREEN);
  }

  #factor() {
    const factor = Number((1e9 / this.pace).toPrecision(2));
    $("slowed").textContent = say("slowed", {factor: factor.toLocaleString(spoken())});
  }

  /** @param {boolean} [anew] */
  play(anew = false) {
    const {run, scope} = this;
    if (!run || !scope) return;
    if (anew || scope.now >= run.end) {
      scope.now = 0;
      scope.begin();
    }
    this.playing = true;
    this.#playButton();
    let before = performance.now(), shown = -2;
    const frame = (/** @type {number} */ time) => {
      if (!this.playing || scope !== this.scope) return;
      const passed = Math.min(time - before, 100) / 1000;
      before = time;
      if (this.still.matches) scope.now = run.cycles[scope.at(scope.now)].end + 1;  // in steps
      else scope.now += passed * this.pace;
      if (scope.now >= run.end) {
        this.pause();
        scope.now = Infinity;
      }
      const cycle = scope.at(scope.now);
      if (cycle !== shown || scope.now === Infinity) {
        shown = cycle;
        if (scope.now !== Infinity) this.#follow(cycle);
      }
      scope.draw();  // what is picked, and so every card, stays: somebody may be reading
      mark($("words"), scope.now === Infinity ? Infinity : this.reached, this.moment);
      if (!this.playing) return;
      if (this.still.matches) setTimeout(() => frame(performance.now()), 1000);
      else requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  }

  /** Keep the sweep in the middle, where not all fits. @param {number} cycle */
  #follow(cycle) {
    const {scope, run} = this;
    if (!scope || !run) return;
    const span = scope.to - scope.from, {start, end} = run.cycles[cycle];
    if (end > scope.to - 0.1 * span || start < scope.from) scope.show(start - 0.4 * span, span);
  }

  /** @param {boolean} [whole] show all that comes later, too */
  pause(whole = false) {
    this.playing = false;
    if (whole && this.scope) this.scope.now = Infinity;
    this.#playButton();
  }

  #playButton() {
    const over = this.run && this.scope && this.scope.now >= this.run.end;
    $("play").textContent = this.playing ? "❚❚" : "▶";
    const label = say(this.playing ? "pause" : over ? "again" : "play");
    $("play").setAttribute("aria-label", label);
    $("play").title = label;
  }

  // ---- controls and keys

  #controls() {
    $("play").onclick = () => this.playing ? this.pause() : this.play();
    $("back").onclick = () => this.move(-1, false);
    $("forward").onclick = () => this.move(1, false);
    $("closer").onclick = () => this.scope?.zoom(2);
    $("farther").onclick = () => this.scope?.zoom(0.5);
    $("whole").onclick = () => this.scope?.fit(true);
    $("one").onclick = () => this.scope?.fit(false);
    $("close").onclick = () => this.close();
    $("paint").onclick = () => this.paint(!this.painted);
    for (const button of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("[data-unfold]"))) {
      button.onclick = () => this.unfold(button.dataset.unfold ?? "phases");
    }
    $("theme").onclick = () => {
      const root = document.documentElement;
      const dark = root.dataset.theme ? root.dataset.theme === "dark"
        : matchMedia("(prefers-color-scheme: dark)").matches;
      root.dataset.theme = dark ? "light" : "dark";
      this.scope?.draw();
      this.#allCards();
    };
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.scope?.draw());
    $("language").onclick = () => {
      speak(texts(), spoken() === "en" ? "zh" : "en");
      this.translate();
      this.#playButton();
    };
    document.addEventListener("pointerdown", ({target}) => this.touched = /** @type {Element} */ (target));
    document.addEventListener("keydown", (event) => this.#key(event));
  }

  /** Paint steps by their distance from the reference. @param {boolean} on */
  paint(on) {
    this.painted = on;
    $("paint").setAttribute("aria-pressed", String(on));
    if (!this.scope) return;
    this.scope.paint = on;
    this.scope.draw();
  }

  /** @param {string} detail */
  unfold(detail) {
    for (const button of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("[data-unfold]"))) {
      button.setAttribute("aria-pressed", String(button.dataset.unfold === detail));
    }
    this.scope?.unfold(/** @type {import("./scope.js").Detail} */ (detail));
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const target = /** @type {HTMLElement} */ (event.target), {scope, run} = this;
    if (!scope || !run || event.ctrlKey || event.metaKey || event.altKey) return;
    if (target.closest("input, textarea, select")) return;
    if (target.closest(".heads") && event.key.startsWith("Arrow")) return this.#heads(event);
    const at = target === document.body ? this.touched : target, along = /^Arrow(Left|Right)$/.test(event.key);
    if (event.key.startsWith("Arrow") && scrolls(at, along)) return;
    const details = ["phases", "layers", "steps"], onScope = target.id === "scope";
    const detail = details[details.indexOf(scope.detail) + ({ArrowUp: -1, ArrowDown: 1}[event.key] ?? 0)];
    const other = Boolean(target.closest("button, summary, a"));
    /** @type {Record<string, () => void>} */
    const keys = {
      ArrowLeft: () => this.move(-1, event.shiftKey),
      ArrowRight: () => this.move(1, event.shiftKey),
      Escape: () => this.close(),
      "+": () => scope.zoom(2), "=": () => scope.zoom(2), "-": () => scope.zoom(0.5),
      "0": () => scope.fit(true), "1": () => scope.fit(false),
      ...(detail || onScope ? {  // with nothing left to unfold, arrows scroll the page
        ArrowDown: () => detail && this.unfold(detail), ArrowUp: () => detail && this.unfold(detail),
      } : {}),
      ...(onScope ? {
        Home: () => this.pick(0), End: () => this.pick(run.cycles.length - 1),
        PageUp: () => this.move(-10, false), PageDown: () => this.move(10, false),
      } : {}),
      ...(other ? {} : {
        Enter: () => this.open(), " ": () => this.playing ? this.pause() : this.play(),
      }),
    };
    const action = keys[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }

  /** Arrows move among the heads. @param {KeyboardEvent} event */
  #heads(event) {
    if (!this.run) return;
    const by = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]}[event.key];
    if (!by) return;
    event.preventDefault();
    const {layers, heads} = this.run;
    this.at = {
      layer: Math.max(0, Math.min(this.at.layer + by[0], layers - 1)),
      head: Math.max(-1, Math.min(this.at.head + by[1], heads - 1)),
    };
    this.#attention(this.run, this.moment);
  }
}

/** Whether arrows scroll a panel in which an element is. @param {?Element} element
 * @param {boolean} along from left to right */
function scrolls(element, along) {
  for (let e = element; e && e !== document.body; e = e.parentElement) {
    const {overflowX, overflowY} = getComputedStyle(e);
    const more = along ? e.scrollWidth - e.clientWidth : e.scrollHeight - e.clientHeight;
    if (more > 1 && /auto|scroll/.test(along ? overflowX : overflowY)) return true;
  }
  return false;
}

/** @param {any[]} children */
function only(children) {
  return children.filter((child) => child !== null && child !== undefined);
}

/** The texts of all languages, as they lie in the page. */
function texts() {
  return JSON.parse($("texts").textContent);
}

/** The bytes of a base64 text. @param {string} base64 @returns {ArrayBuffer} */
export function unpacked(base64) {
  const binary = atob(base64.trim()), data = new Uint8Array(binary.length);
  for (let n = 0; n < binary.length; n++) data[n] = binary.charCodeAt(n);
  return data.buffer;
}

/** Show where a text is typed: Enter sends it, with Shift it ends a line. @param {string} text
 * @param {(text: string) => void} send */
export function typing(text, send) {
  $("ask").hidden = false;
  $("prompt").value = text;
  $("ask").addEventListener("submit", (/** @type {Event} */ event) => {
    event.preventDefault();
    send($("prompt").value);
  });
  $("prompt").addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    $("ask").requestSubmit();
  });
}

/** Lines of JSON, as they come from the server. @param {Response} response */
async function* lines(response) {
  const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
  const decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const {done, value} = await reader.read();
    const parts = (rest + decoder.decode(value, {stream: !done})).split("\n");
    rest = parts.pop() ?? "";
    for (const part of parts) if (part) yield JSON.parse(part);
    if (done) return;
  }
}

/** What the server says. @param {object} body @param {AbortSignal} signal */
async function* served(body, signal) {
  const headers = {"Content-Type": "application/json"};
  const response = await fetch("run", {method: "POST", signal, body: JSON.stringify(body), headers});
  if (!response.ok) throw new Error(String(response.status));
  yield* lines(response);
}

let turns = 0;

/** What the notebook says in whose frame the page stands. @param {object} body
 * @param {AbortSignal} signal */
async function* framed(body, signal) {
  const turn = ++turns, said = /** @type {any[]} */ ([]);
  let wake = () => {};
  signal.addEventListener("abort", () => wake());
  const hear = (/** @type {MessageEvent} */ {source, data}) => {
    if (source !== parent || data?.minillm?.turn !== turn) return;
    said.push(data.minillm.said);
    wake();
  };
  addEventListener("message", hear);
  parent.postMessage({minillm: {...body, turn}}, "*");
  try {
    while (!signal.aborted) {
      for (const one of said.splice(0)) {
        if (one.over) return;
        yield one;
      }
      await new Promise((done) => wake = () => done(undefined));
    }
  } finally {
    removeEventListener("message", hear);
  }
}

/** Typing a text, and what the server answers: words as they come, then their recording. */
class Asking {
  /** @param {Page} page @param {{text: string, levers: string[], patches?: boolean, framed?: boolean}} asked */
  constructor(page, asked) {
    this.page = page;
    this.answers = asked.framed ? framed : served;
    this.levers = asked.levers;
    typing(asked.text, (text) => this.ask({text}));
    page.offer(asked.levers, () => {
      if (!page.run) return;
      const {text, options} = page.run.header;
      this.ask(text.pieces.length ? {text: text.prompt} : {ids: text.ids}, drawnAs(options));
    });
    page.branch = (ids) => this.ask({ids});
    $("patch-card").hidden = !asked.patches;
    page.patching.compare = asked.patches ? (ids, patch) => this.patched(ids, patch) : null;
    if (!asked.framed) {
      const alive = new EventSource("alive");
      alive.onerror = () => {
        alive.close();
        this.#wrong(say("state.gone"));
      };
    }
    if (!$("recording").textContent.trim()) this.ask({text: asked.text});
  }

  /** @param {{text: string} | {ids: number[]}} what
   * @param {Record<string, number>} [drawing] as the server thinks best, before there is a run */
  async ask(what, drawing = this.page.run && this.page.drawing) {
    this.stop?.abort();
    const stop = this.stop = new AbortController();
    this.#say("state.running");
    this.page.pause(true);
    try {
      const body = {...what, drawing, lever: $("lever").value};
      let over = false;
      for await (const said of this.answers(body, stop.signal)) {
        if (stop !== this.stop) return;
        if (said.waiting) this.#say("state.waiting");
        if (said.prompt !== undefined) $("words").replaceChildren(token(said.prompt, {class: "token given"}));
        if (said.word !== undefined) $("words").append(token(said.word));
        if (said.measuring) this.#say("state.measuring");
        if (said.parting) this.#say("state.parting");
        if (said.error !== undefined) this.#wrong(plain(said.error));
        else if (said.watching && !$("state").textContent) this.#say("state.watching");
        if (said.recording) {
          this.#say("");
          this.page.show(read(unpacked(said.recording)));
        }
        over = !said.watching && (over || said.error !== undefined || Boolean(said.recording));
      }
      if (!over) this.#wrong(say("state.gone"));
    } catch (error) {
      if (stop === this.stop) this.#wrong(say("state.gone"));
    }
  }

  /** What follows from a patch, of the weights that the run was computed with.
   * @param {number[]} ids @param {import("./patch.js").Patch} patch
   * @returns {Promise<import("./patch.js").Patched>} */
  async patched(ids, patch) {
    this.stopPatch?.abort();
    const stop = this.stopPatch = new AbortController(), {stored} = /** @type {Run} */ (this.page.run).header.model;
    for await (const said of this.answers({ids, patch, lever: this.levers.includes(stored) ? stored : ""}, stop.signal)) {
      if (said.patched) return said.patched;
      if (said.error !== undefined) throw new Error(said.error);
    }
    throw new Error(say("state.gone"));
  }

  /** @param {string} key */
  #say(key) {
    $("state").classList.remove("wrong");
    $("state").textContent = key && say(key);
  }

  /** @param {string} why */
  #wrong(why) {
    $("state").classList.add("wrong");
    $("state").textContent = why;
  }
}

speak(texts(), new URLSearchParams(location.search).get("lang") ?? navigator.language.slice(0, 2));
export const page = new Page();
page.translate();
const asked = JSON.parse($("asked").textContent);
if (asked) new Asking(page, asked);
const inside = $("recording").textContent.split(" ").filter(Boolean)
  .map((/** @type {string} */ packed) => read(unpacked(packed)));
page.runs.push(...inside);
for (const run of inside.slice(0, 2).reverse()) page.show(run);
