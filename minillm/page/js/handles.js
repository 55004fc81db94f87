// @ts-check
/** Temperature, top-k, top-p and min-p as handles: the next word's distribution, as they move. */

import {OFF} from "./sampling.js";
import {el} from "./views.js";
import {say, spoken} from "./words.js";

/** @typedef {import("./sampling.js").How} How */

/** What a handle may be; its text where it does nothing. @type {Record<keyof How, any>} */
const HANDLES = {
  temperature: {min: 0, max: 2, step: 0.05},
  top_k: {min: 0, max: 50, step: 1},
  top_p: {min: 0.05, max: 1, step: 0.05},
  min_p: {min: 0, max: 0.5, step: 0.01},
};
const NAMES = /** @type {(keyof How)[]} */ (Object.keys(HANDLES));

/** What a model is asked for, so that it draws as a run was drawn.
 * @param {Record<string, any>} options of the run @returns {Record<string, number>} */
export function drawnAs(options) {
  const known = [...NAMES, "seed"].filter((name) => (options[name] ?? null) !== null);
  return Object.fromEntries(known.map((name) => [name, options[name]]));
}

/** The four handles, and a button that goes on with them where there is a model. */
export class Handles {
  /** @param {HTMLElement} place @param {() => void} moved @param {() => void} go */
  constructor(place, moved, go) {
    /** @type {How} */ this.how = {...OFF};
    this.moved = false;  // since they stood as the run was written
    this.rows = NAMES.map((name) => ({
      name, label: el("label", {for: name}), output: el("output", {for: name}),
      input: /** @type {HTMLInputElement} */ (el("input", {
        id: name, type: "range", ...HANDLES[name], oninput: (/** @type {Event} */ {target}) => {
          this.how[name] = Number(/** @type {HTMLInputElement} */ (target).value);
          this.moved = true;
          this.#tell();
          moved();
        },
      })),
    }));
    this.button = el("button", {type: "button", id: "draw", onclick: go});
    place.append(el("div", {class: "handles"},
      ...this.rows.flatMap(({label, input, output}) => [label, input, output])), this.button);
  }

  /** As a run was written. @param {Record<string, any>} options */
  set(options) {
    for (const name of NAMES) this.how[name] = options[name] ?? OFF[name];
    this.moved = false;
    this.#tell();
  }

  /** What a model is asked for. @param {number} seed @returns {Record<string, number>} */
  options(seed) {
    return this.how.temperature ? {...this.how, seed} : {temperature: 0};
  }

  /** @param {boolean} can whether there is a model that goes on */
  translate(can) {
    for (const {name, label} of this.rows) label.textContent = say(name);
    this.button.textContent = say("draw");
    this.button.hidden = !can;
    this.#tell();
  }

  #tell() {
    for (const {name, input, output} of this.rows) {
      const value = this.how[name], off = name === "temperature" ? !value : value === OFF[name];
      output.textContent = off ? say(`${name}.off`) : value.toLocaleString(spoken());
      input.value = String(value);
      input.setAttribute("aria-valuetext", output.textContent);
      input.disabled = name !== "temperature" && !this.how.temperature;  // nothing is drawn
    }
  }
}
