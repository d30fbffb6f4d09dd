// Which lines of a long file are seen, and which parts of it are asked for.

import assert from "node:assert/strict";
import { test } from "node:test";

import { heightOf, lastTop, MOST_PIXELS, Pieces, rangeAt, scrollOf, topAfter } from "../../web/static/js/log/window.js";

const SHORT = { lines: 1000, rowHeight: 20, viewHeight: 400 };
const LONG = { lines: 5_000_000, rowHeight: 20, viewHeight: 400 };

/** @param {number} first @param {number} count @param {number} [bytes] of each line */
const piece = (first, count, bytes = 10) => ({
  first, offset: first * bytes, end: (first + count) * bytes, cut: new Set(),
  lines: Array.from({ length: count }, (_, at) => `line ${first + at}`),
});

test("a short file stands in the page line by line", () => {
  assert.equal(heightOf(SHORT), 20_000);
  assert.equal(scrollOf(SHORT, 500), 10_000);
  assert.equal(topAfter(SHORT, { scroll: 0, top: 0 }, 10_000), 500);
  assert.equal(lastTop(SHORT), 980);
  assert.equal(scrollOf(SHORT, 1000), 19_600);
});

test("a file that fits is not scrolled", () => {
  const measures = { lines: 5, rowHeight: 20, viewHeight: 400 };
  assert.equal(lastTop(measures), 0);
  assert.equal(scrollOf(measures, 5), 0);
  assert.deepEqual(rangeAt(measures, 0, 20), [0, 5]);
});

test("only what is seen is held, and some lines beside it", () => {
  assert.deepEqual(rangeAt(SHORT, 500.5, 20), [480, 541]);
  assert.deepEqual(rangeAt(SHORT, 980, 20), [960, 1000]);
  assert.deepEqual(rangeAt({ ...SHORT, lines: 0 }, 0, 20), [0, 0]);
});

test("no file is higher than a browser can bear, and each of its lines can be reached", () => {
  assert.equal(heightOf(LONG), MOST_PIXELS);
  for (const top of [0, 1, 2_500_000, lastTop(LONG)]) {
    const scroll = scrollOf(LONG, top);
    assert.ok(scroll >= 0 && scroll <= MOST_PIXELS - LONG.viewHeight);
  }
  assert.equal(topAfter(LONG, { scroll: 100, top: 50 }, 0), 0);
  assert.equal(topAfter(LONG, { scroll: 0, top: 0 }, MOST_PIXELS - 400), lastTop(LONG));
});

test("the wheel moves a long file by lines, and the bar by its share", () => {
  const before = { scroll: scrollOf(LONG, 1_000_000), top: 1_000_000 };
  assert.equal(topAfter(LONG, before, before.scroll + 60), 1_000_003);
  assert.equal(topAfter(LONG, before, before.scroll - 60), 999_997);
  const half = topAfter(LONG, before, (MOST_PIXELS - 400) / 2);
  assert.ok(Math.abs(half - LONG.lines / 2) < 100);
});

test("lines that are known are not asked for", () => {
  const pieces = new Pieces(4);
  pieces.add(piece(100, 50));
  assert.equal(pieces.missing(100, 150), null);
  assert.equal(pieces.holding(149)?.lines[49], "line 149");
  assert.equal(pieces.holding(150), null);
});

test("what lies beside a known part is asked for by its bytes", () => {
  const pieces = new Pieces(4);
  pieces.add(piece(100, 50));
  assert.deepEqual(pieces.missing(120, 160), { offset: 1500 });
  assert.deepEqual(pieces.missing(90, 130), { before: 1000 });
  assert.deepEqual(pieces.missing(500, 540), { line: 501 });
});

test("only the parts that were used last are kept", () => {
  const pieces = new Pieces(2);
  pieces.add(piece(0, 10));
  pieces.add(piece(100, 10));
  pieces.holding(5);
  pieces.add(piece(200, 10));
  assert.ok(pieces.holding(5) && pieces.holding(205));
  assert.equal(pieces.holding(105), null);
});

test("what is written behind a part joins it, with the places of its cut lines", () => {
  const pieces = new Pieces(4);
  pieces.add({ ...piece(0, 10), cut: new Set([3]) });
  pieces.add({ ...piece(10, 2), cut: new Set([1]) });
  assert.equal(pieces.kept.length, 1);
  assert.deepEqual([...pieces.kept[0].cut], [3, 11]);
  assert.equal(pieces.holding(11)?.lines[11], "line 11");
});
