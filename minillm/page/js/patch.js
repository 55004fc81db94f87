// @ts-check
/** What would follow if one value of a pass were another. */

import {bar, el} from "./views.js";
import {named, percent, plain, quoted, say} from "./words.js";

/** @typedef {import("./recording.js").Run} Run */

/**
 * Which value is changed: `part` of a layer (attn.context of one head, attn.out, mlp.out or
 * mlp.residual), at a position, or with -1 at all; into 0, or into what it is at the last position of
 * another text.
 * @typedef {{layer: number, part: string, head: number, at: number, other: string | null}} Patch
 *
 * What follows: the words that are likeliest, before or after; and of each later step, how far it moves
 * at the last position, as a share of its length.
 * @typedef {{words: {word: string, before: number, after: number}[],
 *   changed: {name: string, share: number}[]}} Patched
 */

const PARTS = ["attn.context", "attn.out", "mlp.out", "mlp.residual"];

/** The view: which value, into what, and what follows. */
export class Patching {
  /** @param {HTMLElement} place */
  constructor(place) {
    /** Computes what follows, where there is a model.
     * @type {?((ids: number[], patch: Patch) => Promise<Patched>)} */ this.compare = null;
    this.asked = false;  // what follows, of the word that is picked
    this.turn = 0;
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
    this.where = choice("where");
    this.into = choice("into", ["zero", "taken"]);
    this.other = /** @type {HTMLInputElement} */ (el("input", {id: "patch-text", maxlength: 2000}));
    this.other.addEventListener("change", () => this.draw());
    this.answer = el("div", {role: "status"});
    this.look = el("p", {class: "look"});
    this.labels = new Map([this.part, this.layer, this.head, this.where, this.into, this.other]
      .map((control) => [control, el("label", {for: control.id})]));
    this.controls = el("p", {class: "times"}, ...[...this.labels].flatMap(([control, label]) => [label, control]));
    this.go = el("button", {type: "button", id: "patch-go", onclick: () => {
      this.asked = true;
      this.draw();
    }});
    place.append(this.look, this.controls, this.go, this.answer);
  }

  /** @param {Run} run @param {number} moment */
  show(run, moment) {
    const count = (/** @type {HTMLSelectElement} */ select, /** @type {number} */ n) => {
      if (select.length !== n) {
        select.replaceChildren(...Array.from({length: n}, (_, i) => el("option", {value: i}, `${i}`)));
      }
    };
    count(this.layer, run.layers);
    count(this.head, run.heads);
    const before = String(this.ids);
    this.run = run;
    this.ids = run.ids.slice(0, run.position(moment) + 1);
    const said = say(this.compare ? "look.patch" : "look.patch.none", {word: quoted(run.word(run.moments[moment].id))});
    this.look.replaceChildren(...said.split("`").map((part, n) => n % 2 ? el("code", {}, part) : part));
    for (const part of [this.controls, this.go, this.answer]) part.hidden = !this.compare;
    if (!this.compare) return;
    this.go.textContent = say("patch.go");
    for (const [{id}, label] of this.labels) label.textContent = say(id.replace("-", "."));
    for (const select of [this.part, this.into]) {
      for (const option of select.options) option.textContent = say(`patch.${option.value}`);
    }
    const all = this.where.value === "-1", last = this.ids.length - 1;
    this.where.replaceChildren(el("option", {value: -1, selected: all}, say("patch.all")),
      ...this.ids.map((id, p) => el("option", {value: p, selected: !all && p === last},
        say("patch.at", {p, word: named(run.word(id), 16)}))).reverse());
    if (before !== String(this.ids)) {
      this.asked = false;
      this.answer.replaceChildren();
    }
    this.draw();
  }

  /** Show what can be chosen, and once it was asked for, what follows. */
  async draw() {
    const {ids, compare} = this, turn = ++this.turn;
    const head = this.part.value === "attn.context", text = this.into.value === "taken";
    for (const [control, used] of /** @type {const} */ ([[this.head, head], [this.other, text]])) {
      control.hidden = !used;
      const label = this.labels.get(control);
      if (label) label.hidden = !used;
    }
    if (!ids || !compare || !this.asked) return;
    const told = (/** @type {string} */ said) => this.answer.replaceChildren(el("p", {class: "soft"}, said));
    if (text && !this.other.value) return told(say("patch.no.text"));
    try {
      const found = await compare(ids, {
        layer: Number(this.layer.value), part: this.part.value, head: Number(this.head.value),
        at: Number(this.where.value), other: text ? this.other.value : null,
      });
      if (turn === this.turn) this.answer.replaceChildren(...follows(found));
    } catch (error) {
      if (turn === this.turn) told(plain(error instanceof Error ? error.message : String(error)));
    }
  }
}

/** @param {Patched} found */
function follows({words, changed}) {
  const likeliest = (/** @type {"before" | "after"} */ when) => words.reduce((a, b) => b[when] > a[when] ? b : a);
  const first = likeliest("before"), now = likeliest("after"), most = Math.max(first.before, now.after);
  return [
    el("p", {class: "look"}, say(first === now ? "patch.same" : "patch.other", {
      word: quoted(first.word), before: percent(first.before), after: percent(first.after),
      other: quoted(now.word), now: percent(now.after),
    })),
    el("table", {class: "bars"},
      el("thead", {}, el("tr", {}, el("th", {scope: "col"}, say("word")), el("td"),
        el("th", {scope: "col", class: "number"}, say("patch.without")),
        el("th", {scope: "col", class: "number"}, say("patch.with")))),
      el("tbody", {}, ...words.map((one) => el("tr", {class: one === now ? "here" : ""},
        el("th", {scope: "row"}, el("bdi", {}, named(one.word))),
        el("td", {class: "wide"}, bar(one.before / most, "before"), bar(one.after / most, "after")),
        el("td", {class: "number"}, percent(one.before)),
        el("td", {class: "number"}, percent(one.after)))))),
    el("p", {class: "look"}, say("patch.downstream")),
    el("div", {class: "long", tabindex: 0, role: "region", "aria-label": say("patch.downstream")},
      el("table", {class: "bars"}, el("tbody", {}, ...changed.map(({name, share}) => el("tr", {},
        el("th", {scope: "row"}, name), el("td", {class: "wide"}, bar(share, "after")),
        el("td", {class: "number"}, percent(share))))))),
  ];
}
