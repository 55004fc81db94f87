// @ts-check
/** What hangs off a place on the time axis: sentences, text, candidates, steps, lens, attention,
 * and the scope as a table. */

import {BINDS, PHASES} from "./recording.js";
import {OFF, recorded, reshaped} from "./sampling.js";
import {bytes, digits, duration, flops, named, percent, plain, quoted, say, spoken, visible} from "./words.js";

/** @typedef {import("./recording.js").Run} Run */
/** @typedef {Node | string | null | undefined} Child */

/** An element. Text is always text, whatever it holds.
 * @param {string} tag @param {Record<string, any>} [about] @param {...Child} children */
export function el(tag, about = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(about)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== undefined) element.setAttribute(name, String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined)
    .map((child) => /** @type {Node | string} */ (child)));
  return element;
}

/** A bar that fills a share of its row, and faintly what may be more.
 * @param {number} share @param {string} kind @param {number} [most] */
export function bar(share, kind, most = share) {
  /** @param {number} share @param {string} more */
  const fill = (share, more = "") => {
    const part = el("span", {class: `fill ${kind} ${more}`});
    part.style.width = `${100 * Math.max(0, Math.min(1, share))}%`;
    return part;
  };
  return el("span", {class: "bar", "aria-hidden": true}, fill(share), most > share ? fill(most - share, "maybe") : null);
}

/** @param {string} phase */
const swatch = (phase) => el("span", {class: "swatch", "data-phase": phase, "aria-hidden": true});

// ---- sentences, computed from this run

/** What the run says as a whole. @param {Run} run @returns {string[]} */
export function facts(run) {
  const {header} = run, found = [], typical = run.typical, [first] = run.cycles;
  const n = header.text.ids.length, last = run.cycles.length - 1, {busy} = run;
  if (typical >= 0) {
    const all = run.total(typical), times = PHASES.map((phase) => ({
      phase, net: run.total(typical, (i) => i.phase === phase).net,
    })).sort((a, b) => b.net - a.net);
    const guesses = run.guesses;
    found.push(say("fact.word", {
      time: duration(run.each), a: percent(times[0].net / all.net),
      phaseA: say(`doing.${times[0].phase}`), b: percent(times[1].net / all.net),
      phaseB: say(`doing.${times[1].phase}`),
    }));
    if (guesses.checked) {
      found.push(say("fact.draft", {
        kept: guesses.kept, checked: guesses.checked, share: percent(guesses.kept / guesses.checked),
        n: digits(guesses.each),
      }));
    }
    if (header.options.batch) {
      found.push(say("fact.batch", {
        n: digits(header.options.batch), time: duration(run.lasted(typical)), rows: digits(run.cycles[typical].rows),
      }));
    }
    if (run.beams) found.push(say("fact.beams", {n: digits(run.beams)}));
    const wide = run.lasted(0) / run.lasted(typical);
    if (first.positions > 1) {
      const more = wider(run, typical);
      found.push(say(wide <= 1.15 ? "fact.first.same" : more.reads ? "fact.first" : "fact.first.other", {
        n: first.positions, times: digits(wide), time: duration(run.lasted(0)),
        each: duration(run.lasted(0) / n), share: percent(more.share),
        phases: more.phases.map((phase) => say(`doing.${phase}`)).join(say("and")),
      }));
    }
    if (run.predicts && busy < TOO_BUSY) {
      const {cost, predicted, binds} = all, read = cost.weights + cost.cache;
      const share = predicted / run.lasted(typical), said = share <= CREDIBLE ? BINDS[binds] : "doubtful";
      found.push(say(`fact.binds.${said}`, {
        what: say(guesses.checked ? "a.check" : "a.word"), time: duration(predicted), read: bytes(read), flops: flops(cost.products + cost.elements),
        share: percent(share),
      }));
    }
    const {kept, past, positions} = run.cycles[last];
    found.push(kept ? say("fact.cache", {kept: bytes(kept), all: past + positions})
      : say("fact.no.cache", {all: past + positions}));
  } else {
    found.push(say("fact.only", {n: first.positions, time: duration(run.lasted(0))}));
  }
  if (busy >= BUSY) found.push(say(busy < TOO_BUSY ? "fact.busy" : "fact.too.busy", {share: percent(busy)}));
  return found;
}

const BUSY = 0.05, TOO_BUSY = 0.25;  // from which others are told of, and no cause is (clock/verdict.py)

const CREDIBLE = 1.05;  // of the time measured: what is predicted, if limits and run are of one moment
const SURE = 0.9;  // how likely a word is that was nearly certain
const SOME = 0.05;  // of the arithmetic that comes on top: a phase with less has hardly more to do

/** What makes the first cycle take longer than another: the phases that have more to compute in it, if they
 * take most of the difference, else the one that does. @param {Run} run @param {number} cycle */
function wider(run, cycle) {
  const more = PHASES.map((phase) => {
    const [a, b] = [0, cycle].map((n) => run.total(n, (i) => i.phase === phase));
    const flops = a.cost.products + a.cost.elements - b.cost.products - b.cost.elements;
    return {phase, net: Math.max(0, a.net - b.net), flops: Math.max(0, flops)};
  });
  const sum = (/** @type {typeof more} */ rows, /** @type {"net" | "flops"} */ what) =>
    rows.reduce((all, row) => all + row[what], 0);
  const busy = more.filter(({flops}) => flops > SOME * sum(more, "flops"));
  const reads = sum(busy, "net") > 0.5 * sum(more, "net");
  const idle = more.filter((row) => !busy.includes(row)).sort((a, b) => b.net - a.net).slice(0, 1);
  const said = reads ? busy : idle;
  return {reads, phases: said.map(({phase}) => phase), share: sum(said, "net") / sum(more, "net")};
}

/** What is different in a run, beside another one. @param {Run} run @param {Run} other */
export function compared(run, other) {
  const from = Math.min(run.header.text.ids.length, other.header.text.ids.length), {ids} = run;
  const parts = ids.findIndex((id, n) => id !== other.ids[n]), levers = pulled(run, other);
  const alike = Math.abs(run.each / other.each - 1) < 0.02;
  return say("compared", {
    now: lever(run, other), before: lever(other, run), time: duration(run.each), other: duration(other.each),
    times: alike ? say("compared.alike") : say("compared.times", {times: digits(run.each / other.each)}),
    text: parts >= 0 && parts < from ? say("other.text")
      : parts >= 0 ? say("parts.at", {n: parts - from + 1, word: quoted(run.word(ids[parts]))})
        : say(levers.every((what) => EXACT.includes(what)) ? "same.numbers" : "same.text"),
  }) + (run.header.model.twin === "numba" && levers.includes("no-cache") ? ` ${say("compared.fused")}` : "");
}

const EXACT = ["no-cache", "threads", "batch", "text"];  // levers with which the same numbers are computed

/** Which levers stand otherwise in two runs; where none does, the text is another.
 * @param {Run} run @param {Run} other */
export function pulled(run, other) {
  const [a, b] = [run, other].map(({header: {model, options}}) => ({
    model: model.name, stored: model.stored, twin: model.twin, threads: model.threads, "no-cache": options.use_cache,
    cache: options.cache_dtype, draft: options.draft, batch: options.batch, beams: options.num_beams ?? 1,
    drawn: [...Object.keys(OFF), "seed"].map((name) => options[name] ?? null).join(),
  }));
  const found = /** @type {(keyof typeof a)[]} */ (Object.keys(a))
    .filter((what) => (a[what] ?? null) !== (b[what] ?? null));
  return found.length ? found : ["text"];
}

/** How a run was computed and written, in as far as it is not plain, or not as another one was.
 * @param {Run} run @param {Run} other */
export function lever(run, other) {
  const {options, model} = run.header, before = other.header;
  const off = {...OFF, temperature: 0, seed: null};
  const drawn = options.temperature && pulled(run, other).includes("drawn") ? Object.entries(off)
    .filter(([name, off]) => (options[name] ?? off) !== off).map(([name]) => `${say(name)} ${options[name]}`) : [];
  return [
    model.name !== before.model.name ? plain(model.name).slice(0, 40) : "",
    options.use_cache ? "" : say("lever.no-cache"),
    options.batch ? say("lever.batch", {how: options.batch}) : "",
    run.beams ? say("lever.beams", {how: run.beams}) : "",
    options.draft ? say("lever.draft", {how: plain(options.draft).slice(0, 40)}) : "",
    options.cache_dtype ? say("lever.cache", {how: options.cache_dtype}) : "",
    model.twin !== before.model.twin ? twin(model.twin) : "",
    model.stored !== before.model.stored ? say("lever.stored", {how: model.stored}) : "",
    model.threads !== before.model.threads ? threads(model.threads) : "",
    ...drawn,
  ].filter(Boolean).join(", ") || say("lever.none");
}

/** Whose functions computed. @param {string} name */
export function twin(name) {
  if (/^(llama\.cpp|transformers) [\w.+-]{1,40}$/.test(name)) return name; // an engine and its version
  return say(["numpy", "numba", "JavaScript"].includes(name) ? `twin.${name}` : "twin.own");
}

/** How far a step is from a reference, as a share of its largest value. @param {number} distance */
export function apart(distance) {
  return distance >= 1e9 ? say("proof.never") : distance < 1e-3 ? digits(distance) : percent(distance);
}

/** @param {number} n */
export function counting(n) {
  return n === 1 ? say("position.1") : say("position.n", {n: digits(n)});
}

/** @param {number} n */
export function threads(n) {
  return n === 1 ? say("threads.1") : say("threads.n", {n});
}

/** What a view rests on: its equation, and the lines of minillm that it comes from.
 * @param {string} equation @param {{file: string, line: number, code: string}} about */
export function source(equation, {file, line, code}) {
  return el("details", {class: "source"},
    el("summary", {}, el("span", {class: "equation"}, equation), el("span", {class: "soft"}, ` ${file}:${line}`)),
    el("pre", {tabindex: 0}, el("code", {}, code)));
}

// ---- the text

/** The prompt and the words that came; those after `upTo` moments are not shown yet.
 * @param {Run} run @param {HTMLElement} place @param {(moment: number) => void} pick */
export function text(run, place, pick) {
  delete place.dataset.upTo;
  place.replaceChildren(
    ...run.header.text.ids.map((/** @type {number} */ id) =>
      token(run.word(id), {class: "token given", title: `${id}`})),
    ...run.moments.map((m, n) => token(run.word(m.id), {
      class: "token came", title: `${m.id}`, "data-moment": n, onclick: () => pick(n),
    })),
  );
}

/** A token of a running text; a mark on it leaves out the blank before a word.
 * @param {string} word @param {Record<string, any>} [about] */
export function token(word, about = {class: "token"}) {
  const [, blank, rest] = /** @type {string[]} */ (word.match(/^( ?)([^]*)$/));
  return el("span", about, blank, el("span", {class: "body"}, plain(rest)));
}

/** Show the words up to a moment, and mark the one that is picked.
 * @param {HTMLElement} place @param {number} upTo @param {number} picked */
export function mark(place, upTo, picked) {
  place.querySelector(".here")?.classList.remove("here");
  place.querySelector(`[data-moment="${picked}"]`)?.classList.add("here");
  if (place.dataset.upTo === String(upTo)) return;
  place.dataset.upTo = String(upTo);
  for (const token of /** @type {NodeListOf<HTMLElement>} */ (place.querySelectorAll(".came"))) {
    token.classList.toggle("later", Number(token.dataset.moment) > upTo);
  }
}

// ---- candidates

const LISTED = 10;  // words, and the one that came

/** @param {Run} run @param {number} moment
 * @param {?import("./sampling.js").How} moved how the word would be drawn; null: as it was
 * @param {?((id: number) => void)} branch what is done to go on with another word, where it can be */
export function candidates(run, moment, moved = null, branch = null) {
  const all = run.candidates(moment), came = run.chosen(moment), id = run.moments[moment].id;
  const how = moved ?? run.header.options, V = run.header.model.sizes.V;
  const {after, kept} = moved || !how.temperature ? reshaped(all, V, how) : recorded(all);
  const listed = all.map((c, n) => ({...c, drawn: after[n]})).filter((c, n) => n < LISTED || c.id === id);
  if (!all.some((c) => c.id === id)) {  // it is one of those of which only the sum is known
    const most = Math.exp((came.logit - all[0].logit) / how.temperature) * after[0][1];
    listed.push({id, ...came, drawn: moved ? [0, kept === null ? most : 0] : [came.after, came.after]});
  }
  const most = Math.max(...listed.map((c) => Math.max(c.before, c.drawn[1])));
  const second = all.find((c) => c.id !== id)?.id ?? id;
  const exact = listed.every(({drawn: [least, most]}) => most - least < 5e-4);
  const key = came.rank > 0 ? run.beams ? "look.candidates.beams" : "look.candidates.drawn"
    : came.before > SURE ? "look.candidates.sure" : "look.candidates.open";
  const rows = listed.map((c) => el("tr", {class: c.id === id ? "here" : ""},
    el("th", {scope: "row"}, branch && c.id !== id ? el("button", {
      class: "link", type: "button", title: say("branch"), onclick: () => branch(c.id),
    }, el("bdi", {}, visible(run.word(c.id)))) : el("bdi", {}, visible(run.word(c.id))),
    c.id === id ? ` ✓` : ""),
    el("td", {class: "wide"}, bar(c.before / most, "before"), bar(c.drawn[0] / most, "after", c.drawn[1] / most)),
    el("td", {class: "number"}, percent(c.before)),
    el("td", {class: "number"}, between(c.drawn)),
    el("td", {class: "number soft"}, digits(c.logit))));
  return [
    el("p", {class: "look"}, say(key, {
      word: quoted(run.word(id)), p: percent(came.rank > 0 ? came.after : came.before), rank: came.rank + 1, second: quoted(run.word(second)),
      other: percent(all.find((c) => c.id !== id)?.before ?? 0), beams: run.beams,
    })),
    el("table", {class: "bars"},
      el("thead", {}, el("tr", {}, el("th", {scope: "col"}, say("word")), el("td"),
        el("th", {scope: "col", class: "number"}, say("before")),
        el("th", {scope: "col", class: "number"}, say("after")),
        el("th", {scope: "col", class: "number"}, say("logit")))),
      el("tbody", {}, ...rows)),
    el("p", {role: "status"}, run.beams && !moved ? say("look.beams", {n: run.beams})
      : say(!how.temperature ? "look.greedy" : kept === null ? "look.drawn.all" : kept === 1
        ? "look.drawn.one" : "look.drawn", {n: kept ?? 0}),
    " ", say(exact ? "exact" : "exact.not", {n: all.length, V: digits(V)})),
  ];
}

/** A share, or between which two it is. @param {[number, number]} share */
function between([least, most]) {
  if (most - least < 5e-4) return most ? percent(most) : "–";
  return `${percent(least)} – ${percent(most)}`;
}

// ---- a cycle, a step

/** One cycle by its phases. @param {Run} run @param {number} cycle
 * @param {(interval: number) => void} pick */
export function cycle(run, cycle, pick) {
  const {kind, positions, past, rows: texts} = run.cycles[cycle], all = run.total(cycle);
  const rows = PHASES.map((phase) => ({phase, ...run.total(cycle, (i) => i.phase === phase)}))
    .filter((row) => row.net > 0);
  const by = (/** @type {(row: typeof rows[0]) => number} */ key) => [...rows].sort((a, b) => key(b) - key(a))[0];
  const longest = by((row) => row.net), far = by((row) => row.net - row.predicted);
  const first = (/** @type {string} */ phase) => {
    const mine = run.intervals(cycle).map((i, n) => ({i, n})).filter(({i}) => i.phase === phase);
    return mine.sort((a, b) => b.i.net - a.i.net)[0].n;
  };
  return [
    el("p", {class: "look"}, say(`look.${kind}`, {positions, past, all: past + positions}), " ",
      texts > 1 ? `${say(run.beams ? "look.rows.beams" : "look.rows", {n: texts})} ` : "",
      say(run.predicts ? "look.cycle" : "look.cycle.plain", {
        phase: say(`doing.${longest.phase}`), share: percent(longest.net / all.net),
        far: say(`phase.${far.phase}`), time: duration(far.net), predicted: duration(far.predicted),
      })),
    el("div", {class: "scroll"}, el("table", {class: "numbers"},
      el("thead", {}, el("tr", {}, ...["part", "measured", "predicted", "limit", "bytes", "flops"]
        .filter((what) => run.predicts || !["predicted", "limit"].includes(what))
        .map((what, n) => el("th", {scope: "col", class: n ? "number" : ""}, say(what))))),
      el("tbody", {}, ...rows.map((row) => el("tr", {},
        el("th", {scope: "row"}, el("button", {
          class: "link", type: "button", onclick: () => pick(first(row.phase)),
        }, swatch(row.phase), say(`phase.${row.phase}`))), ...numbers(run, row)))),
      el("tfoot", {}, el("tr", {}, el("th", {scope: "row"}, say("sum")), ...numbers(run, all))))),
  ];
}

/** @param {Run} run @param {{net: number, predicted: number, binds: number,
 *   cost: import("./recording.js").Cost}} row */
function numbers(run, {net, predicted, binds, cost}) {
  return [
    el("td", {class: "number"}, duration(net)),
    ...(run.predicts ? [
      el("td", {class: "number"}, duration(predicted)),
      el("td", {class: "number"}, say(`limit.${BINDS[binds]}`)),
    ] : []),
    el("td", {class: "number"}, bytes(cost.weights + cost.cache + cost.values)),
    el("td", {class: "number"}, flops(cost.products + cost.elements)),
  ];
}

/** One interval: the steps that it ends, each with equation, shape, and the line that forms it.
 * @param {Run} run @param {number} cycle @param {number} n
 * @param {string} [asked] the one of them that was asked for */
export function step(run, cycle, n, asked) {
  const i = run.interval(cycle, n), {kind, rows, past, positions} = run.cycles[cycle];
  const cost = run.costs(cycle, [i]), several = i.steps.length > 1;
  const where = i.layer < 0 ? say(`phase.${i.phase}`)
    : `${say(`phase.${i.phase}`)}, ${say("layer", {n: i.layer})}`;
  const most = Math.max(i.net, i.predicted || 0), whole = run.total(cycle).net;
  return [
    el("p", {class: "look"}, say(run.predicts ? "look.step" : "look.step.plain", {
      label: run.called(i), where, share: percent(i.net / whole), time: duration(i.net),
      times: digits(i.net / i.predicted), limit: run.predicts ? say(`limit.${BINDS[i.binds]}`) : "",
    })),
    el("div", {class: "timed"}, el("h3", {}, swatch(i.phase), run.called(i, asked),
      el("span", {class: "soft"}, ` ${i.name} · ${where}`)),
    el("dl", {class: "times"},
      el("dt", {}, say("measured")), el("dd", {}, bar(i.net / most, "measured"), duration(i.net)),
      ...(run.predicts ? [
        el("dt", {}, say("predicted")),
        el("dd", {}, bar(i.predicted / most, "before"), `${duration(i.predicted)}; `,
          say("binds", {limit: say(`limit.${BINDS[i.binds]}`)})),
      ] : []),
      el("dt", {}, say("reads")), el("dd", {}, say("reads.what", {
        weights: bytes(cost.weights), cache: bytes(cost.cache), values: bytes(cost.values),
      })),
      el("dt", {}, say("computes")), el("dd", {}, flops(cost.products + cost.elements)))),
    el("div", {class: "all"}, n === 0 && i.net > 3 * i.predicted
      ? el("p", {class: "soft"}, say("first.interval")) : null,
    several ? el("p", {class: "soft"}, say("together", {n: i.steps.length})) : null,
    ...i.steps.map((number) => {
      const {name, equation, letters, file, line, code, shapes} = run.steps[number];
      const one = shapes[kind] ?? Object.values(shapes)[0];
      const grown = one?.map((size, axis) => letters?.split(" ")[axis] === "S" ? past + positions : size);
      const shape = grown?.length > 1 ? [rows, ...grown.slice(1)] : grown, away = run.distance(number, i.layer);
      return el("div", {class: name === asked ? "formed here" : "formed"},
        el("p", {class: "equation"}, el("b", {}, name), " = ", equation,
          letters ? el("span", {class: "soft"}, ` [${letters.replaceAll(" ", ",")}]`) : null,
          shape?.length ? el("span", {class: "soft"}, ` = ${shape.join(" × ")}`) : null),
        file ? el("pre", {}, el("code", {}, code)) : null,
        file ? el("p", {class: "soft source"}, `${file}:${line}`) : null,
        away < 0 ? null : el("p", {class: run.kind(away) === "differs" ? "wrong" : "soft"},
          el("span", {class: "swatch", "data-phase": run.kind(away), "aria-hidden": true}),
          say("proof.step", {distance: apart(away), against: say(`proof.${run.compared.against}`)})));
    })),
  ];
}

// ---- the lens

/** What would come next after each layer. @param {Run} run @param {number} moment */
export function lens(run, moment) {
  const id = run.moments[moment].id, rows = run.lens(moment);
  const first = rows.findIndex((_, n) => rows.slice(n).every((row) => row.words[0].id === id));
  const name = (/** @type {number} */ n) => n ? say("layer", {n: n - 1}) : say("after.embed");
  const key = first < 0 ? "look.lens.never" : first === rows.length - 1 ? "look.lens.last"
    : "look.lens.from";
  return [
    el("p", {class: "look"}, say(key, {
      word: quoted(run.word(id)), after: first > 0 ? name(first) : name(0),
      early: quoted(run.word(rows[Math.min(1, rows.length - 1)].words[0].id)),
    })),
    el("table", {class: "bars lens"},
      el("thead", {}, el("tr", {}, el("th", {scope: "col"}, say("after.which")),
        el("th", {scope: "col"}, say("likeliest")), el("td"),
        el("th", {scope: "col", class: "number"}, say("of.came", {word: named(run.word(id), 12)})))),
      el("tbody", {}, ...rows.map((row, n) => el("tr", {},
        el("th", {scope: "row"}, name(n)),
        el("td", {class: "words"}, ...row.words.map((w) => el("span", {
          class: w.id === id ? "word here" : "word",
        }, el("bdi", {}, named(run.word(w.id), 16)), el("span", {class: "soft"}, ` ${percent(w.probability)}`)))),
        el("td", {class: "wide"}, bar(row.chosen, "before")),
        el("td", {class: "number"}, percent(row.chosen)))))),
  ];
}

// ---- attention

/** Where a position looks: a head over the text itself, and all heads at once.
 * @param {Run} run @param {number} moment @param {{layer: number, head: number}} at head -1: the
 * mean of a layer's @param {(layer: number, head: number) => void} pick
 * @param {(position: number) => void} seek go to the word that a position led to */
export function attention(run, moment, at, pick, seek) {
  const position = run.position(moment), ids = run.ids.slice(0, position + 1);
  if (run.attention(position, 0, 0) === null) {
    const kept = /** @type {number[]} */ (run.header.attention), n = kept.length;
    const [near] = [...kept].sort((a, b) => Math.abs(a - position) - Math.abs(b - position));
    return [el("p", {class: "look"}, say("look.attention.none", {positions: counting(n)}), " ", n ? el("button", {
      class: "link", type: "button", onclick: () => seek(near),
    }, say("attention.nearest", {word: quoted(run.word(run.ids[near]))})) : null)];
  }
  const weights = headWeights(run, position, at.layer, at.head);
  const order = [...weights.keys()].sort((a, b) => weights[b] - weights[a]);
  const [top] = order, most = weights[top];
  const key = top === 0 ? "look.attention.first" : top === position ? "look.attention.self"
    : top === position - 1 ? "look.attention.previous" : "look.attention";
  const heads = Array.from({length: run.heads}, (_, head) => head);
  const head = at.head < 0 ? say("heads.mean") : say("head", {n: at.head});
  return [
    el("p", {class: "look"}, say(key, {
      where: `${say("layer", {n: at.layer})}, ${head}`, word: quoted(run.word(ids[top])),
      from: quoted(run.word(ids[position])), share: percent(most),
    })),
    el("p", {class: "text attended"}, ...ids.map((id, n) => {
      const shaded = token(run.word(id), {
        class: n === position ? "token from" : "token", title: percent(weights[n]),
      });
      shaded.style.setProperty("--share", String(Math.sqrt(weights[n])));
      return shaded;
    })),
    el("p", {class: "soft"}, say("most.attended"), " ", ...order.slice(0, 4).flatMap((n, i) => [
      i ? ", " : "", el("bdi", {}, named(run.word(ids[n]), 16)), ` ${percent(weights[n])}`,
    ])),
    el("div", {class: "heads", role: "group", "aria-label": say("heads")},
      ...Array.from({length: run.layers}, (_, layer) => el("div", {class: "row"},
        el("span", {class: "soft label"}, say("layer", {n: layer})),
        ...[-1, ...heads].map((h) => {
          const all = headWeights(run, position, layer, h), at0 = at.layer === layer && at.head === h;
          const button = el("button", {
            type: "button", class: "head", "aria-pressed": String(at0), tabindex: at0 ? 0 : -1,
            "data-layer": layer, "data-head": h, onclick: () => pick(layer, h),
            title: `${say("layer", {n: layer})}, ${h < 0 ? say("heads.mean") : say("head", {n: h})}`,
          }, strip(all), h < 0 ? say("mean.short") : String(h));
          return button;
        })))),
    matrix(run, position, at, seek),
  ];
}

const FINE = 12, SMALL = 4, WIDE = 420;  // pixels of a cell with its words beside it, at least, of all of them

/** A head as a matrix: a row for each position up to one, with what it looks at from left to right.
 * @param {Run} run @param {number} position @param {{layer: number, head: number}} at
 * @param {(position: number) => void} seek go to the word that a row led to */
function matrix(run, position, {layer, head}, seek) {
  const from = run.header.attention.filter((/** @type {number} */ p) => p <= position), n = position + 1;
  const size = Math.max(SMALL, Math.min(2 * FINE, Math.floor(WIDE / n))), room = size >= FINE ? 78 : 0;
  const canvas = /** @type {HTMLCanvasElement} */ (el("canvas", {
    class: "matrix", role: "img", "aria-label": say("attention.matrix.picture", {rows: from.length, columns: n}),
    onclick: (/** @type {MouseEvent} */ {offsetY}) => {
      const row = from[Math.floor((offsetY - room) / size)];
      if (row !== undefined) seek(row);
    },
  }));
  const wide = room + n * size, tall = room + from.length * size, scale = Math.min(2, window.devicePixelRatio || 1);
  canvas.style.width = `${wide}px`;
  canvas.style.height = `${tall}px`;
  canvas.width = wide * scale;
  canvas.height = tall * scale;
  const c = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const style = getComputedStyle(document.documentElement);
  const [here, ink, grid] = ["here", "ink", "grid"].map((name) => style.getPropertyValue(`--${name}`).trim());
  const word = (/** @type {number} */ p) => named(run.word(run.ids[p]), 9);
  c.scale(scale, scale);
  c.font = `11px ${getComputedStyle(document.body).fontFamily}`;
  c.textBaseline = "middle";
  from.forEach((/** @type {number} */ p, /** @type {number} */ row) => {
    const y = room + row * size;
    c.fillStyle = grid;
    c.fillRect(room, y, (p + 1) * size - 1, size - 1);
    c.fillStyle = here;
    headWeights(run, p, layer, head).forEach((weight, column) => {
      c.globalAlpha = Math.sqrt(weight);
      c.fillRect(room + column * size, y, size - 1, size - 1);
    });
    c.globalAlpha = 1;
    if (p === position) {
      c.strokeStyle = ink;
      c.lineWidth = 2;
      c.strokeRect(room, y, n * size - 1, size - 1);
    }
    if (!room) return;
    c.fillStyle = ink;
    c.textAlign = "right";
    c.fillText(word(p), room - 5, y + size / 2);
  });
  for (let p = 0; room && p < n; p++) {
    c.save();
    c.translate(room + (p + 0.5) * size, room - 5);
    c.rotate(-Math.PI / 2);
    c.fillStyle = ink;
    c.textAlign = "left";
    c.fillText(word(p), 0, 0);
    c.restore();
  }
  return el("div", {class: "attention-matrix"}, el("p", {class: "soft"}, say("attention.matrix")),
    el("div", {class: "scroll", tabindex: 0, role: "region", "aria-label": say("attention.matrix.name")}, canvas));
}

/** The head that most often picks out one word: not the first one, not itself, not the one before.
 * @param {Run} run */
export function telling(run) {
  let best = {layer: 0, head: -1, most: 0};
  for (let layer = 0; layer < run.layers; layer++) {
    for (let head = 0; head < run.heads; head++) {
      let sum = 0;
      for (const position of run.header.attention) {
        const weights = run.attention(position, layer, head);
        if (weights && position > 2) sum += Math.max(...weights.subarray(1, -2));
      }
      if (sum > best.most) best = {layer, head, most: sum};
    }
  }
  return {layer: best.layer, head: best.head};
}

/** @param {Run} run @param {number} position @param {number} layer @param {number} head */
function headWeights(run, position, layer, head) {
  if (head >= 0) return /** @type {Float32Array} */ (run.attention(position, layer, head));
  const sum = new Float32Array(position + 1);
  for (let h = 0; h < run.heads; h++) {
    run.attention(position, layer, h)?.forEach((w, n) => { sum[n] += w / run.heads; });
  }
  return sum;
}

/** A head at a glance: positions from left to right. @param {Float32Array} weights */
function strip(weights) {
  const canvas = /** @type {HTMLCanvasElement} */ (el("canvas", {
    width: 44, height: 14, "aria-hidden": true,
  }));
  const c = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const style = getComputedStyle(document.documentElement);
  c.fillStyle = style.getPropertyValue("--here").trim();
  const n = Math.min(canvas.width, weights.length), most = new Float32Array(n);
  weights.forEach((weight, at) => {
    const place = Math.floor(at * n / weights.length);
    most[place] = Math.max(most[place], weight);
  });
  most.forEach((weight, place) => {
    c.globalAlpha = Math.sqrt(weight);
    c.fillRect(place * canvas.width / n, 0, Math.max(canvas.width / n, 1), canvas.height);
  });
  return canvas;
}

// ---- the residual stream

/** How long the residual stream is, at the position that decides a moment, after each part.
 * @param {Run} run @param {number} moment */
export function norms(run, moment) {
  const at = run.position(moment), wide = 2 * run.layers + 1;
  const all = [...run.arrays.norms.subarray(at * wide, (at + 1) * wide)], most = Math.max(...all);
  const grown = all.map((norm, n) => n ? norm / all[n - 1] : 1);
  const top = grown.indexOf(Math.max(...grown));
  const name = (/** @type {number} */ n) => n === 0 ? say("after.embed")
    : `${say("layer", {n: (n - 1) >> 1})}, ${say(`phase.${n % 2 ? "attend" : "feed forward"}`)}`;
  return [
    el("p", {class: "look"}, say("look.norms", {
      from: digits(all[0]), to: digits(all[wide - 1]), most: name(top), times: digits(grown[top]),
      before: digits(all[Math.max(0, top - 1)]), after: digits(all[top]),
    })),
    el("table", {class: "bars norms"}, el("tbody", {}, ...all.map((norm, n) => el("tr", {},
      el("th", {scope: "row"}, n ? swatch(n % 2 ? "attend" : "feed forward") : swatch("embed"), name(n)),
      el("td", {class: "wide"}, bar(norm / most, "before")),
      el("td", {class: "number"}, digits(norm)))))),
  ];
}

// ---- tokens and their merges

/** How the prompt was cut into tokens: the merges of each piece, in the order of their making.
 * @param {Run} run */
export function tokens(run) {
  /** @type {{text: string, ids: number[], merges: [number, number, string, string][]}[]} */
  const pieces = run.header.text.pieces;
  const merges = pieces.reduce((sum, piece) => sum + piece.merges.length, 0);
  if (!pieces.length) return [el("p", {class: "look"}, say("look.tokens.none"))];
  let tinted = 0;
  return [
    el("p", {class: "look"}, say("look.tokens", {
      letters: [...run.header.text.prompt].length, merges, n: run.header.text.ids.length,
    })),
    el("ol", {class: "pieces"}, ...pieces.slice(0, 200).map((piece) => el("li", {},
      el("details", {}, el("summary", {}, ...piece.ids.map((id) => el("span", {
        class: tinted++ % 2 ? "cut odd" : "cut", title: String(id),
      }, el("bdi", {}, visible(run.word(id)))))),
      piece.merges.length ? el("p", {}, ...piece.merges.flatMap(([rank, , left, right]) => [
        el("span", {class: "merge"}, el("bdi", {class: "cut"}, visible(left)), el("bdi", {class: "cut odd"}, visible(right)),
          el("sub", {}, rank.toLocaleString(spoken()))), " ",
      ])) : el("p", {class: "soft"}, say("no.merges")))))),
  ];
}

// ---- the scope as a table

/** Every cycle in a row. @param {Run} run @param {(cycle: number) => void} pick */
export function table(run, pick) {
  const heads = ["cycle", "word", "came.with", "kind", "start", "measured",
    ...(run.predicts ? ["predicted", "limit"] : []), ...PHASES.map((phase) => `phase.${phase}`)];
  const rows = run.cycles.map((c, n) => {
    const all = run.total(n), words = run.momentsOf[n].map((m) => visible(run.word(run.moments[m].id)));
    return el("tr", {"data-cycle": n},
      el("th", {scope: "row"}, el("button", {
        class: "link", type: "button", onclick: () => pick(n),
      }, String(n))),
      el("td", {}, el("bdi", {}, words.join(" "))),
      el("td", {class: "number"}, run.momentsOf[n].map((m) => percent(run.chosen(m).before)).join(" ")),
      el("td", {}, say(`kind.${c.kind}`)),
      el("td", {class: "number"}, duration(c.start)),
      el("td", {class: "number"}, duration(run.lasted(n))),
      ...(run.predicts ? [el("td", {class: "number"}, duration(all.predicted)),
        el("td", {}, say(`limit.${BINDS[all.binds]}`))] : []),
      ...PHASES.map((phase) => el("td", {class: "number"},
        duration(run.total(n, (i) => i.phase === phase).net))));
  });
  const later = run.cycles.map((_, n) => n).slice(1).sort((a, b) => run.lasted(b) - run.lasted(a));
  return [el("p", {class: "look"}, later.length ? say("look.table", {
    n: run.cycles.length, slow: later[0], time: duration(run.lasted(later[0])),
    fast: later[later.length - 1], least: duration(run.lasted(later[later.length - 1])),
  }) : ""), el("table", {class: "numbers"},
    el("thead", {}, el("tr", {}, ...heads.map((head) => el("th", {scope: "col"}, say(head))))),
    el("tbody", {}, ...rows))];
}

/** Which cycle the cards are about. @param {Run} run @param {number} n */
export function picked(run, n) {
  const words = run.momentsOf[n].map((m) => quoted(run.word(run.moments[m].id))).join(" ");
  return say("picked", {
    n, kind: say(`kind.${run.cycles[n].kind}`), words: words ? say("picked.word", {word: words}) : say("picked.none"),
  });
}

/** Where in the drawing of the model one is, in words. @param {Run} run @param {number} cycle
 * @param {?import("./recording.js").Interval} i */
export function here(run, cycle, i) {
  const longest = run.intervals(cycle).reduce((a, b) => b.net > a.net ? b : a), {net} = run.total(cycle);
  const shown = i ?? longest;
  const where = `${shown.layer < 0 ? "" : `${say("layer", {n: shown.layer})}, `}${say(`phase.${shown.phase}`)}`;
  return say(i ? "look.map.here" : "look.map", {
    where, label: run.called(shown), share: percent(shown.net / net),
  });
}
