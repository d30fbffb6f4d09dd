// @ts-check
// A file of any length as rows of one height: only those that are seen are in the page.

import { h, setAttribute, syncChildren } from "../dom.js";
import { fillRow, makeRow } from "./line_row.js";
import { heightOf, lastTop, rangeAt, scrollOf, topAfter } from "./window.js";

const MARGIN = 20; // rows that are ready above and below what is seen

/** What shows a file: as rows, wrapped, or as a transcript.
 * @typedef {{element: HTMLElement, showEnd: () => Promise<void>, showLine: (line: number) => Promise<void>,
 *   grow: () => Promise<void>, redraw: () => void, isAtEnd: () => boolean, topLine: () => number,
 *   close: () => void}} Shower */

/** @implements {Shower} */
export class Rows {
  /** @param {import("./source.js").Source} source @param {import("./line_row.js").Look} look
   * @param {() => void} onMove is called when other lines are seen */
  constructor(source, look, onMove) {
    this.source = source;
    this.look = look;
    this.onMove = onMove;
    this.list = h("div", { class: "log-rows" });
    this.space = h("div", { class: "log-space" }, this.list);
    this.element = h("div", { class: "log-box", tabindex: 0, role: "region", "aria-label": `${source.name}, lines` }, this.space);
    this.top = 0; // the line at the upper edge, with its fraction
    this.scroll = 0;
    this.widest = 0;
    this.isLoading = false;
    this.frame = 0;
    this.element.addEventListener("scroll", () => this.onScroll());
    this.resizes = new ResizeObserver(() => this.redraw());
    this.resizes.observe(this.element);
  }

  measures() {
    this.rowHeight ||= this.list.firstElementChild?.getBoundingClientRect().height || 0;
    return { lines: this.source.lineCount, rowHeight: this.rowHeight || 20, viewHeight: this.viewHeight || 400 };
  }

  async showEnd() {
    await this.source.load({ end: 1 });
    this.goTo(this.source.lineCount);
  }

  /** @param {number} line from 0; it comes to a third of the height, unless it is seen already */
  async showLine(line) {
    if (this.source.pieces.missing(line, line + 1)) await this.source.load({ line: Math.max(1, line - 200) });
    const { rowHeight, viewHeight } = this.measures();
    const seen = viewHeight / rowHeight;
    const isSeen = line >= this.top && line + 1 <= this.top + seen;
    this.goTo(isSeen ? this.top : line - seen / 3);
  }

  /** Takes in what was written; its end stays in sight if it was. */
  async grow() {
    const wasAtEnd = this.isAtEnd();
    const isFar = this.source.size - this.source.end > 1 << 20;
    await this.source.load(isFar || !this.source.end ? { end: 1 } : { offset: this.source.end });
    if (wasAtEnd) this.goTo(this.source.lineCount);
    else this.draw();
  }

  /** @param {number} top */
  goTo(top) {
    this.draw(); // the height first: a browser scrolls no further than that
    const measures = this.measures();
    this.top = Math.min(lastTop(measures), Math.max(0, top));
    this.scroll = scrollOf(measures, this.top);
    this.element.scrollTop = this.scroll;
    this.scroll = this.element.scrollTop; // as the browser has rounded it
    this.draw();
    this.onMove();
  }

  onScroll() {
    const scroll = this.element.scrollTop;
    if (scroll === this.scroll) return;
    this.top = topAfter(this.measures(), { scroll: this.scroll, top: this.top }, scroll);
    this.scroll = scroll;
    this.onMove();
    if (!this.frame) this.frame = requestAnimationFrame(() => this.draw());
  }

  redraw() {
    const wasAtEnd = this.isAtEnd();
    this.rowHeight = this.widest = 0;
    this.space.style.minWidth = "";
    this.viewHeight = this.element.clientHeight;
    if (wasAtEnd) this.goTo(this.source.lineCount);
    else this.draw();
  }

  isAtEnd() {
    return this.top >= lastTop(this.measures()) - 1;
  }

  topLine() {
    return Math.ceil(this.top - 0.01);
  }

  draw() {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    this.viewHeight ||= this.element.clientHeight;
    const measures = this.measures();
    const [first, end] = rangeAt(measures, this.top, MARGIN);
    const numbers = Array.from({ length: end - first }, (_, at) => first + at);
    this.space.style.height = `${heightOf(measures)}px`;
    this.element.style.setProperty("--log-digits", String(String(this.source.lineCount).length));
    syncChildren(this.list, numbers, String, makeRow, (row, line) => this.fill(row, line));
    this.list.style.transform = `translateY(${this.scroll - (this.top - first) * measures.rowHeight}px)`;
    this.keepWidth();
    this.fetchMissing(first, end);
  }

  /** @param {Element} row @param {number} line */
  fill(row, line) {
    const piece = this.source.pieces.holding(line);
    const at = piece ? line - piece.first : 0;
    fillRow(row, line, piece?.lines[at], piece?.cut.has(at) ?? false, this.look);
  }

  /** So that what was scrolled to at the side stays when long lines leave. */
  keepWidth() {
    const width = this.list.scrollWidth;
    if (width <= this.widest) return;
    this.widest = width;
    this.space.style.minWidth = `${width}px`;
  }

  /** @param {number} first @param {number} end */
  async fetchMissing(first, end) {
    const part = this.isLoading ? null : this.source.pieces.missing(first, end);
    setAttribute(this.element, "aria-busy", part ? "true" : null);
    if (!part) return;
    this.isLoading = true;
    try {
      const piece = await this.source.load(part);
      this.isLoading = false;
      if (piece.lines.length) this.draw();
    } catch (error) {
      this.isLoading = false;
      if (!(error instanceof DOMException && error.name === "AbortError")) setTimeout(() => this.draw(), 2000);
    }
  }

  close() {
    cancelAnimationFrame(this.frame);
    this.resizes.disconnect();
  }
}
