// @ts-check
// Which lines of a long file are seen, and where they stand; without a document.
//
// A browser ends an element at some 33 million pixels, and some sooner: a file of more lines than
// that has a scale.  There a small step of the scroll bar still moves by lines, as the wheel and the
// arrow keys do; a large one, as of the bar itself, goes to that share of the file.

export const MOST_PIXELS = 8_000_000;
const MOST_JOINED = 4096; // lines

/** @typedef {{lines: number, rowHeight: number, viewHeight: number}} Measures */

/** How high all of it stands in the page. @param {Measures} measures */
export const heightOf = ({ lines, rowHeight }) => Math.min(lines * rowHeight, MOST_PIXELS);

/** The first line (from 0, with its fraction) that can stand at the upper edge at the end.
 * @param {Measures} measures */
export const lastTop = ({ lines, rowHeight, viewHeight }) => Math.max(0, lines - viewHeight / rowHeight);

/** @param {Measures} measures */
const lastScroll = (measures) => Math.max(0, heightOf(measures) - measures.viewHeight);

/** @param {Measures} measures */
const isScaled = ({ lines, rowHeight }) => lines * rowHeight > MOST_PIXELS;

/** The line at the upper edge after a scroll.
 * @param {Measures} measures @param {{scroll: number, top: number}} before @param {number} scroll */
export function topAfter(measures, before, scroll) {
  if (!isScaled(measures)) return scroll / measures.rowHeight;
  const last = lastTop(measures);
  if (scroll <= 0) return 0;
  if (scroll >= lastScroll(measures) - 1) return last;
  const step = scroll - before.scroll;
  const isSmall = Math.abs(step) < 2 * measures.viewHeight;
  const top = isSmall ? before.top + step / measures.rowHeight : (scroll / lastScroll(measures)) * last;
  return Math.min(last, Math.max(0, top));
}

/** Where the scroll bar stands with this line at the upper edge.
 * @param {Measures} measures @param {number} top */
export function scrollOf(measures, top) {
  const wanted = Math.min(lastTop(measures), Math.max(0, top));
  if (!isScaled(measures)) return wanted * measures.rowHeight;
  return (wanted / lastTop(measures)) * lastScroll(measures);
}

/** The lines to hold in the page, from 0, the second one not among them.
 * @param {Measures} measures @param {number} top @param {number} margin lines beside those that are seen
 * @returns {[number, number]} */
export function rangeAt({ lines, rowHeight, viewHeight }, top, margin) {
  const first = Math.max(0, Math.floor(top) - margin);
  return [Math.min(first, lines), Math.min(lines, Math.ceil(top + viewHeight / rowHeight) + margin)];
}

/** A part of a file: lines from `first` on (from 0), which are its bytes from `offset` to `end`.
 * @typedef {{first: number, offset: number, end: number, lines: string[], cut: Set<number>}} Piece */

/** The parts of a file that were asked for last. */
export class Pieces {
  /** @param {number} most parts that are kept */
  constructor(most) {
    this.most = most;
    /** @type {Piece[]} the one that was used last at the end */
    this.kept = [];
  }

  /** @param {Piece} piece */
  add(piece) {
    this.kept = this.kept.filter((known) => known.offset !== piece.offset || known.end > piece.end);
    this.kept.push(this.joined(piece) ?? piece);
    if (this.kept.length > this.most) this.kept.shift();
  }

  /** A few lines that were written behind a part become part of it. @param {Piece} piece */
  joined(piece) {
    const at = this.kept.findIndex((known) => known.end === piece.offset
      && known.first + known.lines.length === piece.first
      && known.lines.length + piece.lines.length <= MOST_JOINED);
    if (at < 0) return null;
    const [known] = this.kept.splice(at, 1);
    const cut = [...piece.cut].map((line) => line + known.lines.length);
    return { ...known, end: piece.end, lines: [...known.lines, ...piece.lines], cut: new Set([...known.cut, ...cut]) };
  }

  clear() {
    this.kept = [];
  }

  /** The part that has this line (from 0). @param {number} line */
  holding(line) {
    const at = this.kept.findIndex((piece) => line >= piece.first && line < piece.first + piece.lines.length);
    if (at < 0) return null;
    const [piece] = this.kept.splice(at, 1);
    this.kept.push(piece);
    return piece;
  }

  /** What to ask the server for so that these lines are all known; null if they are.
   * @param {number} first @param {number} end
   * @returns {{line: number} | {before: number} | {offset: number} | null} */
  missing(first, end) {
    for (let line = first; line < end; ) {
      const piece = this.holding(line);
      if (!piece) return this.around(line, end);
      line = piece.first + piece.lines.length;
    }
    return null;
  }

  /** By its bytes where a part beside it is known: then nothing comes twice.
   * @param {number} line @param {number} end */
  around(line, end) {
    const before = this.kept.find((piece) => piece.first + piece.lines.length === line);
    if (before) return { offset: before.end };
    const behind = this.kept.find((piece) => piece.first > line && piece.first <= end);
    return behind ? { before: behind.offset } : { line: line + 1 };
  }
}
