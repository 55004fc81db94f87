// @ts-check
/** The drawing of the model as a control: its parts are buttons, one of them a stop of Tab, and arrows move
 * among them. */

const PARTS = "[data-step], [data-layer], [data-part], [data-phase] > text";

export class Drawing {
  /** @param {HTMLElement} place that holds a drawing for each language
   * @param {(what: "step" | "layer" | "part" | "phase", name: string, opener: SVGElement) => void} open */
  constructor(place, open) {
    for (const svg of place.querySelectorAll("svg")) {
      svg.setAttribute("role", "group");
      const parts = /** @type {NodeListOf<SVGElement>} */ (svg.querySelectorAll(PARTS));
      parts.forEach((part, n) => {
        part.setAttribute("role", "button");
        part.setAttribute("tabindex", n ? "-1" : "0");
        const said = part.querySelector("title")?.textContent;
        if (said) part.setAttribute("aria-label", said);
      });
      svg.addEventListener("click", ({target}) => {
        const part = /** @type {?SVGElement} */ (/** @type {Element} */ (target).closest("[role=button]"));
        if (!part) return;
        this.#choose(parts, part);
        const of = part.tagName === "text" ? /** @type {any} */ (part.parentElement) : part;
        const [[what, name]] = Object.entries(of.dataset);
        open(/** @type {"step"} */ (what), name ?? "", part);
      });
      svg.addEventListener("keydown", (event) => {
        const by = {ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1}[event.key];
        const at = [...parts].indexOf(/** @type {SVGElement} */ (document.activeElement));
        if (at < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
        const to = by ? parts[at + by] : event.key === "Home" ? parts[0]
          : event.key === "End" ? parts[parts.length - 1] : null;
        if (to) {
          this.#choose(parts, to);
          to.focus();
        } else if (event.key === "Enter" || event.key === " ") {
          parts[at].dispatchEvent(new MouseEvent("click", {bubbles: true}));
        } else if (!by) {
          return;
        }
        event.preventDefault();
        event.stopPropagation();
      });
    }
  }

  /** @param {NodeListOf<SVGElement>} parts @param {SVGElement} part */
  #choose(parts, part) {
    for (const one of parts) one.setAttribute("tabindex", one === part ? "0" : "-1");
  }
}
