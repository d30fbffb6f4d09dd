// @ts-check
// The keyboard: j and k go from row to row, / to the search field, Esc up, ? says all of them.

import { showKeys } from "./dialogs.js";

/** @typedef {Record<string, [string, (event: KeyboardEvent) => void]>} KeyMap
 *   by KeyboardEvent.key: what it does, in words, and the function */

const GENERAL = /** @type {[string, string][]} */ ([
  ["j", "next row"], ["k", "row before"], ["Enter", "open it"], ["/", "search field"],
  ["Esc", "close, or go up"], ["?", "this list"],
]);

/** @param {() => KeyMap} ofView @param {() => void} goUp */
export function listen(ofView, goUp) {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    if (document.querySelector("dialog[open]")) return; // Esc closes it by itself
    const target = /** @type {HTMLElement} */ (event.target);
    if (target.matches("input, textarea, select")) {
      if (event.key === "Escape") target.blur();
      return;
    }
    const own = ofView()[event.key];
    if (own) own[1](event);
    else if (event.key === "j" || event.key === "k") moveRow(event.key === "j" ? 1 : -1);
    else if (event.key === "/") focusSearch();
    else if (event.key === "?") help(ofView());
    else if (event.key === "Escape") return goUp();
    else return;
    event.preventDefault();
  });
}

/** @param {KeyMap} own */
export function help(own) {
  showKeys([...Object.entries(own).map(([key, [what]]) => /** @type {[string, string]} */ ([key, what])), ...GENERAL]);
}

function focusSearch() {
  const field = document.querySelector("[data-search]");
  if (field instanceof HTMLElement) field.focus();
}

/** The focus goes to the link (or button) of the next row that is shown: rows carry `data-row`.
 * @param {number} step */
function moveRow(step) {
  const rows = [...document.querySelectorAll("[data-row]")].filter((row) => row.checkVisibility());
  const at = rows.findIndex((row) => row.contains(document.activeElement));
  const next = at < 0 ? (step > 0 ? 0 : rows.length - 1) : at + step;
  const row = rows[Math.max(0, Math.min(rows.length - 1, next))];
  const target = row?.matches("a, button, [tabindex]") ? row : row?.querySelector("a, button, [tabindex]");
  if (!(target instanceof HTMLElement || target instanceof SVGElement)) return;
  target.focus();
  target.scrollIntoView({ block: "nearest" });
}
