// @ts-check
// A list of any length, of which only the rows in sight are in the page.
//
// It scrolls with the page itself: its body is as high as all rows, which have one height (that of
// `.probe`, by the style).  A table to a screen reader, which gets the number of each row told.
// The row with the focus and its neighbours are always there, so that j and k go through all of it.

import { h, setAttribute } from "./dom.js";

const SPARE = 10; // rows above and below those in sight

/** @typedef {{element: HTMLElement, update: (item: any) => void}} Row */
/** @typedef {Row & {index: number}} Placed */
/** Where the rows come from; `at` is undefined for one that is not loaded yet.
 * @typedef {{count: () => number, at: (index: number) => any, keyOf: (item: any) => string,
 *   indexOf: (key: string) => number, want?: (first: number, last: number) => void}} Source */

/** One that has all of them. @template T @param {(item: T) => string} keyOf
 * @returns {Source & {set: (items: T[]) => void}} */
export function sourceOf(keyOf) {
  /** @type {T[]} */
  let items = [];
  return {
    count: () => items.length,
    at: (index) => items[index],
    keyOf,
    indexOf: (key) => items.findIndex((item) => keyOf(item) === key),
    set: (found) => void (items = found),
  };
}

export class VirtualList {
  /** @param {{label: string, name: string, columns: [string, string][], source: Source, makeRow: () => Row}} options
   *   name: the class for its style; columns: class and title; makeRow: a row, whose element is
   *   made by cells() */
  constructor({ label, name, columns, source, makeRow }) {
    this.source = source;
    this.makeRow = makeRow;
    /** @type {Map<string, Placed>} */
    this.rows = new Map();
    this.focused = ""; // the key of the row that has the focus
    this.anchor = { key: "", index: 0 }; // the first row in sight
    this.frame = 0;
    this.probe = h("div", { class: "probe", "aria-hidden": "true" });
    this.head = h("div", { class: "row head", role: "row", "aria-rowindex": 1 },
      columns.map(([of, title]) => h("div", { class: of, role: "columnheader" }, title)));
    this.body = h("div", { class: "rows", role: "rowgroup", onfocusin: this.#onFocus, onfocusout: this.#onBlur });
    this.table = h("div", { role: "table", "aria-label": label }, h("div", { class: "top", role: "rowgroup" }, this.head), this.body);
    this.element = h("div", { class: `virtual ${name}`, hidden: true }, this.probe, this.table);
    this.sizes = new ResizeObserver(() => this.#measure());
    this.sizes.observe(this.probe);
    this.height = 36;
    this.isMeasured = false;
    window.addEventListener("scroll", this.#later, { passive: true });
    window.addEventListener("resize", this.#later);
  }

  close() {
    cancelAnimationFrame(this.frame);
    this.sizes.disconnect();
    window.removeEventListener("scroll", this.#later);
    window.removeEventListener("resize", this.#later);
  }

  /** Shows what the source has now; what was in sight stays there. */
  update() {
    const count = this.source.count();
    setAttribute(this.element, "hidden", count ? null : "");
    setAttribute(this.table, "aria-rowcount", String(count + 1));
    if (!this.isMeasured) this.#measure();
    this.#fit();
    this.#stay();
    this.#keepFocus(count);
    this.#render();
    this.tick();
  }

  /** Shows the same rows anew, such as for the time that has passed. */
  tick() {
    for (const row of this.rows.values()) this.#fill(row);
  }

  /** Back to its first row, if that is above what is in sight. */
  toTop() {
    this.anchor = { key: "", index: 0 };
    const top = this.element.getBoundingClientRect().top;
    if (top < 0) window.scrollBy(0, top - 160);
  }

  #later = () => {
    this.frame ||= requestAnimationFrame(() => this.#render());
  };

  #measure() {
    const height = this.probe.offsetHeight;
    this.isMeasured = height > 0;
    if (!height || height === this.height) return;
    this.height = height;
    for (const row of this.rows.values()) row.index = -1; // each has another place now
    this.#fit();
    this.#later();
  }

  #fit() {
    const wanted = `${this.source.count() * this.height}px`;
    if (this.body.style.height !== wanted) this.body.style.height = wanted;
  }

  /** Scrolls by as much as rows have come or gone above what is in sight. */
  #stay() {
    if (!this.anchor.index) return;
    const index = this.source.indexOf(this.anchor.key);
    if (index >= 0 && index !== this.anchor.index) window.scrollBy(0, (index - this.anchor.index) * this.height);
  }

  /** The focus of a row that is gone goes to the one in its place. @param {number} count */
  #keepFocus(count) {
    const row = this.rows.get(this.focused);
    if (!row || this.focused.startsWith("#") || this.source.indexOf(this.focused) >= 0) return;
    const next = this.source.at(Math.min(row.index, count - 1));
    this.focused = next === undefined ? "" : this.source.keyOf(next);
    this.#render();
    focusIn(this.rows.get(this.focused)?.element);
  }

  #render() {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    const active = document.activeElement;
    const held = active && isBlank(active) && this.body.contains(active) ? active : null;
    const wanted = this.#keyed(this.#wanted());
    const free = new Set([...this.rows].filter(([key]) => !wanted.has(key)).map(([, row]) => row));
    const shown = new Map();
    for (const [key, index] of wanted) {
      const known = this.rows.get(key);
      const row = known ?? this.#turned(free, index) ?? { ...this.makeRow(), index: -1 };
      free.delete(row);
      shown.set(key, row);
      if (known && row.index === index) continue;
      row.index = index;
      this.#place(row);
      this.#fill(row);
    }
    this.rows = shown;
    for (const { element } of free) element.remove();
    this.#order();
    // Not before: the focus makes it render once more.
    if (held instanceof HTMLElement && !isBlank(held)) focusIn(held);
  }

  /** A row that is to be seen no more, to become another: the one in its place where that can be,
   * and none that has the focus. @param {Set<Placed>} free @param {number} index */
  #turned(free, index) {
    const active = document.activeElement;
    const found = [...free].filter(({ element }) => isBlank(element) || !element.contains(active));
    return found.find((row) => row.index === index) ?? found.find(({ element }) => element !== active);
  }

  /** In the page they stand in the order in which they are seen, for the keyboard and for readers.
   * The others go around one that stays: what is moved loses its focus. */
  #order() {
    const elements = [...this.rows.values()].map(({ element }) => element);
    const focused = elements.findIndex((element) => element.contains(document.activeElement));
    const middle = focused < 0 ? Math.floor(elements.length / 2) : focused;
    if (elements.length && !elements[middle].parentNode) this.body.append(elements[middle]);
    for (let at = middle - 1; at >= 0; at -= 1) {
      if (elements[at].nextElementSibling !== elements[at + 1]) elements[at + 1].before(elements[at]);
    }
    for (let at = middle + 1; at < elements.length; at += 1) {
      if (elements[at - 1].nextElementSibling !== elements[at]) elements[at - 1].after(elements[at]);
    }
  }

  /** The numbers of the rows that are to be in the page, in order. */
  #wanted() {
    const count = this.source.count();
    const top = this.body.getBoundingClientRect().top;
    const first = Math.min(count, Math.max(0, Math.floor(-top / this.height)));
    const last = Math.min(count - 1, Math.ceil((window.innerHeight - top) / this.height));
    if (count && last >= first) this.source.want?.(first, last);
    const item = this.source.at(first);
    if (item !== undefined) this.anchor = { key: this.source.keyOf(item), index: first };
    const focused = this.focused ? this.#indexOf(this.focused) : -1;
    const wanted = new Set(focused < 0 ? [] : [focused - 1, focused, focused + 1]);
    for (let index = first - SPARE; index <= last + SPARE; index += 1) wanted.add(index);
    return [...wanted].filter((index) => index >= 0 && index < count).sort((one, other) => one - other);
  }

  /** @param {string} key */
  #indexOf(key) {
    return key.startsWith("#") ? Number(key.slice(1)) : this.source.indexOf(key);
  }

  /** These numbers by the keys of their items. @param {number[]} indexes @returns {Map<string, number>} */
  #keyed(indexes) {
    const found = new Map();
    for (const index of indexes) {
      const item = this.source.at(index);
      const key = item === undefined ? `#${index}` : this.source.keyOf(item);
      found.set(found.has(key) ? `#${index}` : key, index); // between two looks of the server one can be in two pages
    }
    return found;
  }

  /** @param {Placed} row */
  #place({ element, index }) {
    const top = `${index * this.height}px`;
    if (element.style.top !== top) element.style.top = top;
    setAttribute(element, "aria-rowindex", String(index + 2));
  }

  /** A row whose item is on its way is blank, but can have the focus. @param {Placed} row */
  #fill({ element, index, update }) {
    const item = this.source.at(index);
    element.classList.toggle("blank", item === undefined);
    setAttribute(element, "tabindex", item === undefined ? "-1" : null);
    if (item !== undefined) update(item);
  }

  /** @param {FocusEvent} event */
  #onFocus = (event) => {
    const target = /** @type {Node} */ (event.target);
    for (const [key, { element }] of this.rows) {
      if (element.contains(target)) this.focused = key;
    }
    this.#render();
  };

  /** @param {FocusEvent} event */
  #onBlur = (event) => {
    // Without a target it has not gone anywhere: the window has lost it, or its element is gone.
    if (event.relatedTarget && !this.body.contains(/** @type {Node} */ (event.relatedTarget))) this.focused = "";
  };
}

/** @param {Element} element */
const isBlank = (element) => element.classList.contains("blank");

/** @param {HTMLElement | undefined} element */
function focusIn(element) {
  const target = element?.matches("[tabindex]") ? element : element?.querySelector("a, button");
  if (target instanceof HTMLElement) target.focus({ preventScroll: true });
}
