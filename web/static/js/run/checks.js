// @ts-check
// The end of what the checks of a plan have printed for a run.

import { addresses, get } from "../api.js";
import { h, setText } from "../dom.js";

const END_BYTES = 2000;

/** @param {string} run @param {string} href where all of it is */
export function makeChecks(run, href) {
  const text = h("pre", { class: "card checks", tabindex: 0 });
  const element = h("section", { hidden: true }, h("h2", {}, "Checks ", h("a", { class: "more", href }, "All")), text);
  let size = -1;
  return {
    element,
    /** @param {{name: string, size: number}[]} files @param {AbortSignal} signal */
    async show(files, signal) {
      const file = files.find(({ name }) => name === "verify.txt");
      element.hidden = !file?.size;
      if (!file?.size || file.size === size) return;
      const { lines } = await get(addresses.lines(run, { name: "verify.txt", end: 1, limit: END_BYTES }), signal);
      setText(text, lines.map((/** @type {string} */ line) => line.slice(0, 500)).join("\n"));
      size = file.size;
    },
  };
}
