// @ts-check
/** What follows when one value is another: the same pass twice, the second time with a patch. */

import {largest, softmax} from "./decoding.js";
import {bar, el} from "./views.js";
import {named, percent, plain, quoted, say} from "./words.js";

/** @typedef {import("./model.js").Model} Model */
/** @typedef {import("./recording.js").Run} Run */

/**
 * Which value is changed: `part` of a layer (attn.context of one head, attn.out, mlp.out or
 * mlp.residual), at the last position or at all; into 0, or into what it is at the last position
 * of another text.
 * @typedef {{layer: number, part: string, head: number, all: boolean,
 *   other: number[] | null}} Patch
 */

/**
 * Run a text without and with a patch.
 * @param {Model} model @param {number[]} ids @param {Patch} patch
 * @returns {{before: Float32Array, after: Float32Array, changed: {name: string, share: number}[]}}
 *   probabilities of the next token [V]; and of each step after the patch, how far its last row
 *   moved: |new - old| / |old|
 */
export function compare(model, ids, {layer, part, head, all, other}) {
  const target = `h.${layer}.${part}`, plainly = model.trace(ids, {last: true});
  const source = other && model.trace(other, {last: true})[target];
  let reached = false;
  /** @type {{name: string, share: number}[]} */
  const changed = [];
  const logits = model.logits(ids, {last: true, step: (name, value) => {
    if (name === target) {
      reached = true;
      const data = value.data.slice(), old = source?.data, T = value.shape.at(-2) ?? 1;
      const D = value.shape.at(-1) ?? 1, from = source ? (source.shape.at(-2) ?? 1) - 1 : 0;
      const first = value.shape.length === 3 ? head * T : 0; // a head's rows stand together
      for (let t = all ? 0 : T - 1; t < T; t++) {
        for (let i = 0; i < D; i++) {
          const theirs = value.shape.length === 3 ? head * (from + 1) + from : from;
          data[(first + t) * D + i] = old ? old[theirs * D + i] : 0;
        }
      }
      return {data, shape: value.shape};
    }
    if (reached && /(attn.out|mlp.out|residual|ln_f|logits)$/.test(name)) {
      const size = value.shape.at(-1) ?? 1, last = value.data.subarray(-size);
      const was = plainly[name].data.subarray(-size);
      const moved = Math.hypot(...last.map((x, i) => x - was[i]));
      changed.push({name, share: moved / Math.hypot(...was)});
    }
    return value;
  }});
  return {before: softmax(plainly.logits.data), after: softmax(logits), changed};
}

const PARTS = ["attn.context", "attn.out", "mlp.out", "mlp.residual"], SHOWN = 6;

/** The view: which value, into what, and what follows. */
export class Patching {
  /** @param {() => Model} model @param {HTMLElement} place */
  constructor(model, place) {
    this.model = model;
    /** @param {string} id @param {string[]} [values] */
    const choice = (id, values = []) => {
      const select = /** @type {HTMLSelectElement} */ (el("select", {id: `patch-${id}`}));
      for (const value of values) select.append(el("option", {value}));
      select.addEventListener("change", () => this.draw());
      return select;
    };
    this.part = choice("part", PARTS);
    this.layer = choice("layer");
    this.head = choice("head");
    this.where = choice("where", ["last", "all"]);
    this.into = choice("into", ["zero", "taken"]);
    this.other = /** @type {HTMLInputElement} */ (el("input", {id: "patch-text", maxlength: 2000}));
    this.other.addEventListener("change", () => this.draw());
    this.answer = el("div", {role: "status"});
    this.title = el("h2");
    this.look = el("p", {class: "look"});
    this.labels = new Map([this.part, this.layer, this.head, this.where, this.into, this.other]
      .map((control) => [control, el("label", {for: control.id})]));
    const controls = [...this.labels].flatMap(([control, label]) => [label, control]);
    this.opened = /** @type {HTMLDetailsElement} */ (el("details", {},
      el("summary", {}, this.title), this.look, el("p", {class: "times"}, ...controls),
      this.answer, el("div", {"data-source": "patch"})));
    this.opened.addEventListener("toggle", () => this.draw());
    place.append(el("section", {class: "card", id: "patch"}, this.opened));
  }

  /** @param {Run} run @param {number} moment */
  show(run, moment) {
    const count = (/** @type {HTMLSelectElement} */ select, /** @type {number} */ n) => {
      if (select.length !== n) {
        select.replaceChildren();
        for (let i = 0; i < n; i++) select.append(el("option", {value: i}, `${i}`));
      }
    };
    count(this.layer, run.layers);
    count(this.head, run.heads);
    this.run = run;
    this.moment = moment;
    this.title.textContent = say("patch");
    this.look.textContent = say("look.patch");
    for (const [{id}, label] of this.labels) label.textContent = say(id.replace("-", "."));
    for (const select of [this.part, this.where, this.into]) {
      for (const option of select.options) option.textContent = say(`patch.${option.value}`);
    }
    this.draw();
  }

  draw() {
    const {run, moment} = this;
    if (!run || moment === undefined || !this.opened.open) return;
    const head = this.part.value === "attn.context", text = this.into.value === "taken";
    for (const [control, used] of /** @type {const} */ ([[this.head, head], [this.other, text]])) {
      control.hidden = !used;
      const label = this.labels.get(control);
      if (label) label.hidden = !used;
    }
    const model = this.model(), ids = run.ids.slice(0, run.position(moment) + 1);
    const other = text ? model.tokenizer.encode(this.other.value) : null;
    if (other && (!other.length || other.length > model.sizes.P)) {
      this.answer.replaceChildren(el("p", {class: "soft"}, say("patch.no.text")));
      return;
    }
    const {before, after, changed} = compare(model, ids, {
      layer: Number(this.layer.value), part: this.part.value, head: Number(this.head.value),
      all: this.where.value === "all", other,
    });
    const first = largest(before, SHOWN), now = largest(after, 2);
    const listed = [...new Set([...first, ...now])];
    const most = Math.max(before[first[0]], after[now[0]]);
    const word = (/** @type {number} */ id) => {
      const bytes = model.tokenizer.tokens[id];
      return bytes ? new TextDecoder().decode(bytes) : `<${id}>`;
    };
    this.answer.replaceChildren(
      el("p", {class: "look"}, say(first[0] === now[0] ? "patch.same" : "patch.other", {
        word: quoted(word(first[0])), before: percent(before[first[0]]),
        after: percent(after[first[0]]), other: quoted(word(now[0])), now: percent(after[now[0]]),
      })),
      el("table", {class: "bars"},
        el("thead", {}, el("tr", {}, el("th", {scope: "col"}, say("word")), el("td"),
          el("th", {scope: "col", class: "number"}, say("patch.without")),
          el("th", {scope: "col", class: "number"}, say("patch.with")))),
        el("tbody", {}, ...listed.map((id) => el("tr", {class: id === now[0] ? "here" : ""},
          el("th", {scope: "row"}, el("bdi", {}, plain(named(word(id))))),
          el("td", {class: "wide"},
            bar(before[id] / most, "before"), bar(after[id] / most, "after")),
          el("td", {class: "number"}, percent(before[id])),
          el("td", {class: "number"}, percent(after[id])))))),
      el("p", {class: "look"}, say("patch.downstream")),
      el("table", {class: "bars"}, el("tbody", {}, ...changed.map(({name, share}) => el("tr", {},
        el("th", {scope: "row"}, name), el("td", {class: "wide"}, bar(share, "after")),
        el("td", {class: "number"}, percent(share)))))),
    );
  }
}
