// @ts-check
// What rows of lists are made of.

import { h, setAttribute, setText, syncChildren } from "../dom.js";
import { agoText, dateText } from "../times.js";

/** @typedef {{element: HTMLElement, update: (item: any) => void}} Row */

/** A row of a list that is a table to a screen reader. @param {HTMLElement[]} cells */
export const rowOf = (cells) => h("div", { class: "row", role: "row", "data-row": true }, cells);

/** @param {string} name its class @param {...unknown} children */
export const cell = (name, ...children) => h("div", { class: name, role: "cell" }, children);

/** A link whose words may be cut off by the column: they are in its title, too.
 * @param {HTMLAnchorElement} link @param {string} href @param {string} text @param {string} [title] */
export function setLink(link, href, text, title = text) {
  setAttribute(link, "href", href);
  setAttribute(link, "title", title);
  setText(link, text);
}

/** Text that may be cut off. @param {HTMLElement} element @param {string} text */
export function setClipped(element, text) {
  setText(element, text);
  setAttribute(element, "title", text);
}

/** @type {WeakMap<HTMLElement, string>} */
const shownTimes = new WeakMap();

/** How long ago that was. @param {HTMLTimeElement} element @param {string | null | undefined} time */
export function setAgo(element, time) {
  setText(element, agoText(time));
  if (shownTimes.get(element) === (time ?? "")) return;
  shownTimes.set(element, time ?? "");
  const isKnown = agoText(time) !== "–";
  setAttribute(element, "datetime", isKnown ? String(time) : null);
  setAttribute(element, "title", isKnown ? dateText(time) : null);
}

/** @type {WeakMap<Element, (item: any) => void>} */
const updates = new WeakMap();

/** As syncChildren(), of rows that update themselves.
 * @template T
 * @param {Element} parent @param {T[]} items @param {(item: T) => string} keyOf @param {() => Row} makeRow */
export function syncRows(parent, items, keyOf, makeRow) {
  const make = () => {
    const { element, update } = makeRow();
    updates.set(element, update);
    return element;
  };
  syncChildren(parent, items, keyOf, make, (element, item) => updates.get(element)?.(item));
}
