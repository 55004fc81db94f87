// @ts-check
/** How far each step is from a reference, and how long it takes beside other twins. */

import {NEAR} from "./recording.js";
import {apart, bar, el, twin} from "./views.js";
import {digits, duration, named, say} from "./words.js";

/** @typedef {import("./recording.js").Run} Run */

const FINEST = 1e-9;  // where a bar begins, whose scale is by powers of ten

/** The runs that may stand beside one: the newest of each twin, of the same text, step by step.
 * @param {Run} run @param {Run[]} runs */
export function peers(run, runs) {
  const prompt = String(run.header.text.ids), every = Math.max(...run.covered.map((list) => list.length));
  /** @type {Map<string, Run>} */
  const found = new Map([[twin(run.header.model.twin), run]]);
  for (const other of [...runs].reverse()) {
    const fits = String(other.header.text.ids) === prompt && other.steps.length === run.steps.length
      && Math.max(...other.covered.map((list) => list.length)) === every;
    if (fits && !found.has(twin(other.header.model.twin))) found.set(twin(other.header.model.twin), other);
  }
  return [...found.values()];
}

/** The first step that differs, else the farthest; in a sentence. @param {Run} run */
export function verdict(run) {
  const all = run.distances, {against, positions, tolerance} = run.compared;
  const first = all.find((d) => d.distance > tolerance) ?? null;
  const shown = first ?? all.reduce((a, b) => (b.distance > a.distance ? b : a));
  const where = shown.layer < 0 ? "" : `, ${say("layer", {n: shown.layer})}`;
  return {first, words: el("p", {class: `look${first ? " wrong" : ""}`},
    say(first ? "look.proof.differs" : "look.proof.agrees", {
      against: say(`proof.${against}`), step: `${run.steps[shown.step].name}${where}`,
      distance: apart(shown.distance), n: all.indexOf(shown), all: all.length, positions, tolerance: digits(tolerance),
    }))};
}

/** @param {Run} run @param {Run[]} runs */
export function proof(run, runs) {
  const all = run.distances, {tolerance} = run.compared, {first, words} = verdict(run);
  const beside = peers(run, runs), several = beside.length > 1;
  const rows = run.steps.map((step, n) => {
    const mine = all.filter((d) => d.step === n);
    return {step, n, worst: mine.length ? mine.reduce((a, b) => (b.distance > a.distance ? b : a)) : null};
  }).filter(({worst}) => worst || several);
  const cycles = beside.map((r) => (r.typical < 0 ? 0 : r.typical));
  /** @param {(i: import("./recording.js").Interval) => boolean} [picks] */
  const times = (picks) => several ? beside.map((r, at) =>
    el("td", {class: "number"}, duration(r.total(cycles[at], picks).net))) : [];
  return [
    words,
    several ? el("p", {}, say("look.proof.times", {
      times: beside.map((r, at) => `${twin(r.header.model.twin)} ${duration(r.lasted(cycles[at]))}`).join(", "),
    })) : "",
    el("div", {class: "scroll", tabindex: 0, role: "region", "aria-label": say("proof")}, el("table", {class: "bars proof"},
      el("thead", {}, el("tr", {}, el("th", {scope: "col"}, say("step.name")), el("td"),
        el("th", {scope: "col", class: "number"}, say("proof.distance")),
        ...(several ? beside.map((r) => el("th", {scope: "col", class: "number"}, twin(r.header.model.twin))) : []))),
      el("tbody", {}, ...rows.map(({step, n, worst}) => {
        const at = first?.step === n ? first : worst, wrong = Boolean(at && at.distance > tolerance);
        const kind = run.kind(at?.distance ?? -1);
        return el("tr", {class: first?.step === n ? "here" : "", "data-step": step.name},
          el("th", {scope: "row"}, wrong ? "✗ " : at ? "✓ " : "", named(step.label),
            at && at.layer >= 0 ? el("span", {class: "soft"}, ` ${say("layer", {n: at.layer})}`) : null),
          el("td", {class: "wide"}, at ? bar(share(at.distance), kind) : null),
          el("td", {class: "number"}, at ? apart(at.distance) : "–"),
          ...times((i) => i.steps.includes(n)));
      })),
      several ? el("tfoot", {}, el("tr", {}, el("th", {scope: "row"}, say("sum")), el("td"), el("td"), ...times())) : null)),
    el("p", {class: "soft legend"}, ...["agrees", "near", "differs"].flatMap((kind) => [
      el("span", {class: "swatch", "data-phase": kind, "aria-hidden": true}), 
      `${say(`proof.${kind}`, {near: digits(NEAR * tolerance), tolerance: digits(tolerance)})} `])),
  ];
}

/** The length of a bar. @param {number} distance */
function share(distance) {
  return Math.max(0.02, Math.log10(Math.max(distance, FINEST) / FINEST) / -Math.log10(FINEST));
}
