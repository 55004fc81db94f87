// @ts-check
/** A page with the model inside: another text, another word, both by the browser alone. */

import {drawnAs} from "./handles.js";
import {record} from "./live.js";
import {page, typing, unpacked} from "./main.js";
import {Model} from "./model.js";
import {patched} from "./patched.js";
import {el, token} from "./views.js";
import {duration, plain, say} from "./words.js";

const MOST = 40; // words at once

/** @param {string} id @returns {any} */
const $ = (id) => document.getElementById(id);

/** What the page asks its own model for. */
class Alive {
  /** @param {any} about what records say of model, steps and costs */
  constructor(about) {
    this.about = about;
    this.turn = 0;
    /** @type {Model | undefined} */
    this.made = undefined;
    this.note = el("p", {class: "soft"});
    $("ask").after(this.note);
    typing(page.run?.header.text.prompt ?? "", (text) => this.write(text));
    page.offer(["no-cache"], () => {
      const {text, options} = page.run?.header ?? {};
      this.write(text.pieces.length ? text.prompt : text.ids, drawnAs(options));
    });
    $("language").addEventListener("click", () => this.translate());
    page.branch = (ids) => this.write(ids);
    page.patching.compare = async (ids, patch) => patched(this.model, ids, patch);
    this.translate();
    page.translate();
  }

  /** The model, unpacked at its first use. */
  get model() {
    return (this.made ??= new Model(unpacked($("model").textContent)));
  }

  translate() {
    const {source, ticks_per_second: ticks} = page.run?.header.clock ?? {};
    const tick = duration(source === "performance.now" ? 1e9 / ticks : 1e5);
    this.note.textContent = say("live", {tick});
  }

  /** Continue a text, or ids, which is a branch. @param {string | number[]} prompt
   * @param {import("./model.js").Options} [drawing] */
  async write(prompt, drawing = page.drawing) {
    const turn = ++this.turn;
    this.#say(this.made ? "live.running" : "live.loading");
    page.pause(true);
    await new Promise((done) => setTimeout(done)); // so that it is seen
    try {
      const given = typeof prompt === "string" ? prompt : this.model.tokenizer.decode(prompt);
      $("words").replaceChildren(token(given, {class: "token given"}));
      const options = {...drawing, max_new_tokens: MOST, use_cache: $("lever").value !== "no-cache"};
      const run = await record(this.model, prompt, options, this.about, async (moment) => {
        $("words").append(token(moment.text));
        await new Promise((done) => setTimeout(done));
        return turn === this.turn;
      });
      if (!run || turn !== this.turn) return;
      this.#say("");
      page.show(run);
      this.translate();
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      if (page.run) page.show(page.run);
      this.#say("live.wrong", {why: why === "empty" ? say("ask") : plain(why)});
    }
  }

  /** @param {string} key @param {Record<string, string>} [values] */
  #say(key, values) {
    $("state").classList.toggle("wrong", Boolean(values));
    $("state").textContent = key && say(key, values);
  }
}

const about = $("about")?.textContent;
if (about) new Alive({...page.run?.header, ...JSON.parse(about)});
