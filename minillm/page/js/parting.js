// @ts-check
/** Where two computations part: the steps of a word, from the same inputs, and the probabilities of all words. */

import {bar, el, lever, pulled, twin} from "./views.js";
import {digits, named, percent, plain, quoted, say} from "./words.js";

/** @typedef {import("./recording.js").Run} Run */

const TALL = 72, LEAST = 0.1;  // pixels; where a bar begins, in times of the rounding, whose scale is by powers of ten

/** @param {Run} run that was told apart from another @param {Run[]} runs among which that one may be
 * @param {number} moment that is picked @param {(moment: number) => void} pick */
export function parting(run, runs, moment, pick) {
  const words = run.moments.length, all = Array.from({length: words}, (_, m) => run.partings(m));
  const first = all.findIndex((steps) => steps.some(({times}) => times > 1));
  const other = runs.find((one) => one !== run && !one.parting && one.header.model.stored === run.parting.stored
    && one.header.model.name === run.parting.name && String(one.header.text.ids) === String(run.header.text.ids)
    && pulled(one, run).every((what) => ["stored", "model", "twin"].includes(what)));
  const texts = other ? run.moments.findIndex(({id}, m) => id !== other.moments[m]?.id) : -2;
  const apart = run.arrays["parting.probabilities"], {name, stored} = run.parting;
  const against = [plain(name).slice(0, 40), stored, twin(run.parting.twin)].join(", ");
  const of = (/** @type {{step: number, layer: number}} */ {step, layer}) =>
    `${run.steps[step].label} (${run.steps[step].name})${layer < 0 ? "" : `, ${say("layer", {n: layer})}`}`;
  const one = all[Math.max(0, first)].find(({times}) => times > 1);
  const said = one ? say("look.parting", {
    against, how: lever(run, other ?? run), step: of(one), times: digits(one.times), n: first + 1, apart: percent(apart[first]),
    text: texts < -1 ? "" : texts < 0 ? say("parting.text.same", {n: words})
      : say("parting.text", {n: texts + 1, word: quoted(run.word(run.moments[texts].id)), apart: percent(apart[texts])}),
  }) : say("look.parting.never", {against, how: lever(run, other ?? run), n: words, apart: percent(Math.max(...apart))});
  const now = all[moment], most = Math.max(10, ...now.map(({times}) => times));
  const long = (/** @type {number} */ times) => Math.log10(Math.max(times, LEAST) / LEAST) / Math.log10(most / LEAST);
  const rows = run.steps.map((step, n) => {
    const mine = now.filter((at) => at.step === n);
    return {step, n, worst: mine.length ? mine.reduce((a, b) => (b.times > a.times ? b : a)) : null};
  }).flatMap((row) => row.worst ? [{...row, worst: row.worst}] : []);
  const head = now.find(({times}) => times > 1)?.step;
  return [
    el("p", {class: "look"}, said),
    strip(run, apart, texts, moment, pick),
    el("p", {class: "soft"}, say("parting.strip", {most: percent(Math.max(...apart))})),
    el("h3", {}, say("parting.word", {word: quoted(run.word(run.moments[moment].id)), n: moment + 1})),
    el("table", {class: "bars proof"},
      el("thead", {}, el("tr", {}, el("th", {scope: "col"}, say("step.name")), el("td"),
        el("th", {scope: "col", class: "number"}, say("parting.times")))),
      el("tbody", {}, ...rows.map(({step, n, worst}) => el("tr", {
        class: n === head ? "here" : "", "data-step": step.name,
      }, el("th", {scope: "row"}, worst.times > 1 ? "✗ " : "✓ ", named(step.label),
        worst.layer < 0 ? null : el("span", {class: "soft"}, ` ${say("layer", {n: worst.layer})}`)),
      el("td", {class: "wide"}, bar(Math.max(0.02, long(worst.times)), worst.times > 1 ? "differs" : "agrees")),
      el("td", {class: "number"}, worst.times >= 1e9 ? "∞" : digits(worst.times)))))),
    el("p", {class: "soft legend"}, ...["agrees", "differs"].flatMap((kind) => [
      el("span", {class: "swatch", "data-phase": kind, "aria-hidden": true}), `${say(`parting.${kind}`)} `])),
  ];
}

/** A bar for each word: how far its probabilities are apart. @param {Run} run @param {Float32Array} apart
 * @param {number} texts the word from which the texts are others, below 0 if there is none
 * @param {number} moment @param {(moment: number) => void} pick */
function strip(run, apart, texts, moment, pick) {
  const canvas = /** @type {HTMLCanvasElement} */ (el("canvas", {
    class: "kept strip", role: "img", "aria-label": say("parting.picture", {
      words: run.moments.length, most: percent(Math.max(...apart)), n: apart.indexOf(Math.max(...apart)) + 1,
    }),
    onclick: (/** @type {MouseEvent} */ event) => pick(Math.min(run.moments.length - 1,
      Math.floor(event.offsetX / canvas.clientWidth * run.moments.length))),
  }));
  new ResizeObserver(() => {
    const wide = canvas.clientWidth, scale = window.devicePixelRatio || 1, each = wide / apart.length;
    canvas.style.height = `${TALL}px`;
    canvas.width = wide * scale;
    canvas.height = TALL * scale;
    const c = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    const style = getComputedStyle(canvas);
    const [grid, ink, here, red] = ["grid", "ink", "here", "differs"].map((name) => style.getPropertyValue(`--${name}`));
    const most = Math.max(...apart, 1e-9);
    c.scale(scale, scale);
    apart.forEach((share, m) => {
      const tall = (TALL - 8) * share / most;
      c.fillStyle = m === moment ? here : grid;
      c.fillRect(m * each, 0, Math.max(each - 1, 0.5), TALL);
      c.fillStyle = m === moment ? style.getPropertyValue("--paper") : ink;
      c.fillRect(m * each + each * 0.2, TALL - tall, Math.max(each * 0.6, 0.5), tall);
    });
    if (texts < 0) return;
    c.fillStyle = red;
    c.fillRect(texts * each - 1.5, 0, 3, TALL);
  }).observe(canvas);
  return canvas;
}
