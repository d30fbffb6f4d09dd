// @ts-check
// A line of a file as an element: its number, which is a link to it, and its text.

import { h, setAttribute, setChildren } from "../dom.js";
import { show } from "../dialogs.js";
import { countText } from "../figures.js";
import { plain, split } from "./text.js";

const MOST_CHARACTERS = 2000; // in the list; a browser takes long over many long lines

/** How lines are shown: with control codes or not, what is searched for, which one is marked, and
 * the address of each.
 * @typedef {{withCodes: boolean, wanted: RegExp | null, marked: number, hrefOf: (line: number) => string}} Look */

/** @param {number} line from 0 */
export function makeRow(line) {
  // By keyboard a line is gone to by its number, in the field above: no stop at each of them.
  const number = h("a", { class: "log-number", tabindex: -1, "aria-label": `Line ${line + 1}` }, String(line + 1));
  return h("div", { class: "log-line", "data-line": line + 1 }, number, h("span", { class: "log-text", dir: "ltr" }));
}

/** @type {WeakMap<Element, string>} */
const shownAs = new WeakMap();

/** @param {Element} row @param {number} line @param {string | undefined} text undefined: not known yet
 * @param {boolean} isCut @param {Look} look */
export function fillRow(row, line, text, isCut, look) {
  setAttribute(row, "aria-current", look.marked === line ? "true" : null);
  const [number, content] = row.children;
  setAttribute(number, "href", look.hrefOf(line + 1));
  const key = `${text === undefined}${look.withCodes}${look.wanted?.source}\n${text}`;
  if (shownAs.get(row) === key) return;
  shownAs.set(row, key);
  if (text === undefined) return setChildren(content, h("span", { class: "quiet" }, "…"));
  const whole = plain(text, look.withCodes);
  const start = whole.slice(0, MOST_CHARACTERS);
  const rest = whole.length - start.length;
  setChildren(content, marked(start, look.wanted), (rest > 0 || isCut) && more(line, whole, rest, isCut));
}

/** @param {string} text @param {RegExp | null} wanted */
function marked(text, wanted) {
  return split(text, wanted).map((part, at) => (at % 2 ? h("mark", {}, part) : part));
}

/** @param {number} line @param {string} whole @param {number} rest @param {boolean} isCut */
function more(line, whole, rest, isCut) {
  const words = `… ${isCut ? "more than " : ""}${countText(rest)} more characters`;
  return h("button", { type: "button", class: "plain log-more", onclick: () => showLine(line, whole, isCut) }, words);
}

/** @param {number} line @param {string} text @param {boolean} isCut */
function showLine(line, text, isCut) {
  show(h("dialog", { "aria-labelledby": "dialog-title", class: "log-whole" },
    h("form", { method: "dialog" },
      h("h2", { id: "dialog-title" }, `Line ${line + 1}`),
      h("pre", { tabindex: 0 }, text),
      isCut && h("p", { class: "quiet" }, "The line goes on: the raw file has all of it."),
      h("p", { class: "actions" }, h("button", { autofocus: true }, "Close")))));
}

/** For a Flow of lines that break where they are too long. @param {Look} look
 * @returns {import("./flow.js").Maker<{line: number, text: string, isCut: boolean}>} */
export function lineMaker(look) {
  return {
    items: (lines, first, cut) => lines.map((text, at) => ({ line: first + at, text, isCut: cut.has(first + at) })),
    make: (item) => makeRow(item.line),
    update: (row, item) => fillRow(row, item.line, item.text, item.isCut, look),
  };
}
