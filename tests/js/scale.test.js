// Time as pixels.

import assert from "node:assert/strict";
import { test } from "node:test";

import { lanesOf, roomyEnd, stepOf, ticksOf, tickText, xOf } from "../../web/static/js/plan/scale.js";

const [SECOND, MINUTE, HOUR, DAY] = [1000, 60_000, 3_600_000, 86_400_000];

test("ticks are at sensible steps, far enough apart to be read", () => {
  const cases = [[4 * SECOND, 500], [90 * SECOND, 10 * SECOND], [HOUR, 10 * MINUTE], [8 * HOUR, HOUR], [10 * DAY, DAY]];
  for (const [span, step] of cases) assert.equal(stepOf(span, 1000), step, String(span));
  for (let span = 50; span < 400 * DAY; span *= 1.7) {
    const step = stepOf(span, 800);
    assert.ok((step / span) * 800 >= 90 || span < 900, `${span}: ${step}`);
    assert.ok(ticksOf(0, span, step).length <= 10);
  }
});

test("ticks lie at round times of the clock on the wall", () => {
  const start = Date.UTC(2026, 0, 1, 10, 7, 3);
  assert.deepEqual(ticksOf(start, start + 20 * MINUTE, 10 * MINUTE).map((ms) => tickText(ms, 10 * MINUTE, 0)), ["10:10", "10:20"]);
  const offset = 5.5 * HOUR; // Kolkata
  assert.deepEqual(ticksOf(start, start + 2 * HOUR, HOUR, offset).map((ms) => tickText(ms, HOUR, offset)), ["16:00", "17:00"]);
});

test("words at ticks are as exact as the step, and say where a day begins", () => {
  const ms = Date.UTC(2026, 4, 9, 23, 59, 58, 500);
  assert.equal(tickText(ms, 500, 0), "59:58.5");
  assert.equal(tickText(ms, SECOND, 0), "23:59:58");
  assert.equal(tickText(Date.UTC(2026, 4, 10), HOUR, 0), "05-10");
  assert.equal(tickText(ms, DAY, 0), "05-09");
});

test("a span of years has a bounded number of ticks", () => {
  assert.ok(ticksOf(0, 4000 * DAY, stepOf(4000 * DAY, 1e6)).length <= 501);
});

test("the axis has room for now, and stays for a while", () => {
  for (const seconds of [0, 1, 9, 60, 3600, 100_000]) {
    const end = roomyEnd(0, seconds * SECOND);
    assert.ok(end > seconds * SECOND, String(seconds));
    assert.ok(end <= Math.max(12, seconds * 1.25) * SECOND, `${seconds}: ${end}`);
  }
  assert.equal(roomyEnd(0, 61 * SECOND), roomyEnd(0, 63 * SECOND));
});

test("a moment is at its share of the width", () => {
  assert.equal(xOf({ start: 100, end: 300, width: 50 }, 200), 25);
  assert.equal(xOf({ start: 100, end: 100, width: 50 }, 200), 0);
});

test("only what overlaps is put into another lane", () => {
  const spans = [[0, 10], [5, 20], [10, 15], [12, 30], [20, 21]].map(([start, end]) => ({ start, end }));
  assert.deepEqual(lanesOf(spans), { lanes: [0, 1, 0, 2, 0], count: 3 });
  assert.deepEqual(lanesOf([]), { lanes: [], count: 1 });
});
