// @ts-check
// A thin bar with the shares of what is done, runs, has failed and so on.

import { h, setAttribute } from "../dom.js";
import { syncRows } from "./cells.js";
import { sentenceOf, sharesOf } from "./counts.js";

/** @typedef {import("./counts.js").Share} Share */

/** What it says stands in words beside it, too: it is a picture. */
export function progress() {
  const element = h("div", { class: "progress", role: "img" });
  return {
    element,
    /** @param {Record<string, number>} counts @param {number} total */
    update(counts, total) {
      setAttribute(element, "aria-label", sentenceOf(counts, total));
      syncRows(element, sharesOf(counts), ({ state }) => state, makePart);
    },
  };
}

/** @returns {import("./cells.js").Row} */
function makePart() {
  const element = h("span", {});
  return {
    element,
    /** @param {Share} share */
    update({ state, count }) {
      setAttribute(element, "data-status", state);
      element.style.flexGrow = String(count);
    },
  };
}
