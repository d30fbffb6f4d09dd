// @ts-check
// A file of any length as elements of any height: a stretch of it is in the page, which moves on as
// one scrolls.

import { h, syncChildren } from "../dom.js";

const [LEAST_BYTES, FIRST_BYTES, LARGE_BYTES] = [4 << 10, 16 << 10, 64 << 10]; // of a piece
const PIECE_LINES = 800;
const MOST_LINES = 3000;
const MOST_BYTES = 384 << 10;

/** How lines become elements: items, each with the line (from 0) with which it begins.
 * @template {{line: number}} Item
 * @typedef {{items: (lines: string[], first: number, cut: Set<number>) => Item[],
 *   make: (item: Item) => Element, update: (element: Element, item: Item) => void}} Maker */

/** @typedef {import("./window.js").Piece} Piece */

/** @typedef {import("./rows.js").Shower} Shower */

/** @implements {Shower} */
export class Flow {
  /** @param {import("./source.js").Source} source @param {Maker<any>} maker @param {string} kind a class
   * @param {() => void} onMove is called when other lines are seen */
  constructor(source, maker, kind, onMove) {
    this.source = source;
    this.maker = maker;
    this.onMove = onMove;
    this.list = h("div", { class: `log-flow ${kind}` });
    this.element = h("div", { class: "log-box", tabindex: 0, role: "region", "aria-label": source.name }, this.list);
    /** @type {Piece[]} one behind the other */
    this.pieces = [];
    /** @type {number[]} the line of each element */
    this.starts = [];
    this.isLoading = false;
    this.scroll = 0;
    this.element.addEventListener("scroll", () => this.onScroll());
  }

  async showEnd() {
    this.pieces = [await this.source.load({ end: 1 }, this.pieceBytes())];
    this.draw();
    this.scrollTo(this.element.scrollHeight);
    await this.extend();
  }

  /** @param {number} line from 0 */
  async showLine(line) {
    const [first, end] = this.range();
    if (line < first || line >= end) this.pieces = [await this.source.load({ line: Math.max(1, line - 50) }, this.pieceBytes())];
    this.draw();
    const at = Math.max(0, this.starts.filter((start) => start <= line).length - 1);
    const element = this.list.children[at];
    if (!element) return;
    const [box, own] = [this.element.getBoundingClientRect(), element.getBoundingClientRect()];
    const isSeen = own.top >= box.top && own.top < box.bottom - 40;
    if (!isSeen) this.scrollTo(this.element.scrollTop + own.top - box.top - box.height / 3);
    await this.extend();
  }

  /** Takes in what was written; its end stays in sight if it was. */
  async grow() {
    const last = this.pieces.at(-1);
    const wasAtEnd = this.isAtEnd();
    if (!last?.lines.length || (wasAtEnd && this.source.size - last.end > LARGE_BYTES)) return this.showEnd();
    if (!wasAtEnd) {
      await this.source.load({ end: 1 }, 1); // how many lines there are; nothing moves under a reader
      return this.onMove();
    }
    await this.append();
    this.scrollTo(this.element.scrollHeight);
  }

  /** For about as many lines as a few windows have; they may be short. */
  pieceBytes() {
    const { size, lineCount } = this.source;
    return lineCount ? Math.round(Math.min(LARGE_BYTES, Math.max(LEAST_BYTES, (size / lineCount) * PIECE_LINES))) : FIRST_BYTES;
  }

  /** @returns {[number, number]} the lines that are in the page */
  range() {
    const last = this.pieces.at(-1);
    return last ? [this.pieces[0].first, last.first + last.lines.length] : [0, 0];
  }

  isAtEnd() {
    const { scrollTop, clientHeight, scrollHeight } = this.element;
    return this.range()[1] >= this.source.lineCount && scrollTop + clientHeight >= scrollHeight - 30;
  }

  topLine() {
    const edge = this.element.getBoundingClientRect().top;
    const at = [...this.list.children].findIndex((child) => child.getBoundingClientRect().bottom > edge + 1);
    return this.starts[Math.max(0, at)] ?? 0;
  }

  redraw() {
    this.draw();
  }

  /** @param {number} scroll */
  scrollTo(scroll) {
    this.element.scrollTop = scroll;
    this.scroll = this.element.scrollTop;
    this.onMove();
  }

  onScroll() {
    if (this.element.scrollTop === this.scroll) return;
    this.scroll = this.element.scrollTop;
    this.onMove();
    this.extend().catch(() => {}); // the next scroll tries it again
  }

  /** Loads what comes next above and below, while an end of the stretch is near. */
  async extend() {
    if (this.isLoading) return;
    this.isLoading = true;
    try {
      for (let isMore = true; isMore; ) {
        const { scrollTop, clientHeight, scrollHeight } = this.element;
        const isNearTop = scrollTop < 2 * clientHeight;
        isMore = isNearTop && await this.prepend();
        if (!isMore && scrollTop + clientHeight > scrollHeight - 2 * clientHeight) isMore = await this.append();
      }
    } finally {
      this.isLoading = false;
    }
  }

  /** @returns {Promise<boolean>} whether there was more */
  async prepend() {
    const first = this.pieces[0];
    if (!first?.offset) return false;
    const piece = await this.source.load({ before: first.offset }, this.pieceBytes());
    if (first !== this.pieces[0] || !piece.lines.length) return false;
    this.pieces.unshift(piece);
    while (this.isFull()) this.pieces.pop();
    this.drawInPlace();
    return true;
  }

  /** @returns {Promise<boolean>} whether there was more */
  async append() {
    const last = this.pieces.at(-1);
    if (!last || last.end >= this.source.size) return false;
    const piece = await this.source.load({ offset: last.end }, this.pieceBytes());
    if (last !== this.pieces.at(-1) || !piece.lines.length) return false;
    if (last.lines.length + piece.lines.length < 200) this.pieces.splice(-1, 1, joined(last, piece));
    else this.pieces.push(piece);
    while (this.isFull()) this.pieces.shift();
    this.drawInPlace();
    return true;
  }

  isFull() {
    const first = this.pieces[0];
    const [from, to] = this.range();
    return this.pieces.length > 2
      && (to - from > MOST_LINES || /** @type {Piece} */ (this.pieces.at(-1)).end - first.offset > MOST_BYTES);
  }

  /** Draws; what is at the upper edge stays there. */
  drawInPlace() {
    const edge = this.element.getBoundingClientRect().top;
    const shown = [...this.list.children].filter((child) => child.getBoundingClientRect().bottom > edge);
    const before = shown.map((child) => child.getBoundingClientRect().top);
    this.draw();
    const at = shown.findIndex((child) => child.isConnected);
    if (at < 0) return;
    this.element.scrollTop += shown[at].getBoundingClientRect().top - before[at];
    this.scroll = this.element.scrollTop;
  }

  draw() {
    const lines = this.pieces.flatMap((piece) => piece.lines);
    const cut = new Set(this.pieces.flatMap((piece) => [...piece.cut].map((at) => at + piece.first)));
    const items = this.maker.items(lines, this.range()[0], cut);
    this.starts = items.map((item) => item.line);
    syncChildren(this.list, items, (item) => String(item.line), this.maker.make, this.maker.update);
    this.onMove();
  }

  close() {
    this.pieces = [];
  }
}

/** @param {Piece} one @param {Piece} next @returns {Piece} */
function joined(one, next) {
  const cut = [...next.cut].map((at) => at + one.lines.length);
  return { ...one, end: next.end, lines: [...one.lines, ...next.lines], cut: new Set([...one.cut, ...cut]) };
}
