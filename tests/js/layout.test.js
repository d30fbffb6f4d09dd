// Where the tasks of a graph lie.

import assert from "node:assert/strict";
import { test } from "node:test";

import { layOut } from "../../web/static/js/plan/layout.js";

const SIZES = { width: 100, height: 40, gapX: 40, gapY: 10, joint: 4 };

/** @param {string} text such as `c2:a,b`: task c in wave 2 needs a and b */
function items(text) {
  return text.split(" ").map((word) => {
    const [, id, wave, needs] = /** @type {RegExpMatchArray} */ (word.match(/^(\w)(\d+):?(.*)$/));
    return { id, wave: Number(wave), needs: needs ? needs.split(",") : [] };
  });
}

/** @param {import("../../web/static/js/plan/layout.js").Layout} layout @param {string} id */
function spot(layout, id) {
  const found = layout.spots.get(id);
  assert.ok(found, id);
  return found;
}

/** @param {import("../../web/static/js/plan/layout.js").Layout} layout */
function crossings(layout) {
  const lines = layout.edges.map(({ from, to }) => [spot(layout, from), spot(layout, to)]);
  let count = 0;
  lines.forEach(([one, other], at) => {
    for (const [next, last] of lines.slice(at + 1)) {
      const isBeside = one.column === next.column && other.column === last.column;
      if (isBeside && (one.y - next.y) * (other.y - last.y) < 0) count += 1;
    }
  });
  return count;
}

test("a column for each wave that there is, from the left", () => {
  const layout = layOut(items("a0 b0 c3:a d7:c"), SIZES);
  assert.deepEqual(["a", "b", "c", "d"].map((id) => spot(layout, id).x), [0, 0, 140, 280]);
  assert.deepEqual(layout.columns, [0, 140, 280]);
  assert.equal(layout.width, 380);
});

test("no two tasks of a column overlap, and all lie within the height", () => {
  const many = Array.from({ length: 60 }, (_, at) => ({
    id: String(at), wave: at % 5, needs: at % 5 ? [String(at - 1), String(Math.max(0, at - 6))].filter((need) => Number(need) % 5 < at % 5) : [],
  }));
  const layout = layOut(many, SIZES);
  for (let column = 0; column < 5; column += 1) {
    const ys = [...layout.spots.values()].filter((cell) => cell.column === column).map((cell) => cell.y).sort((one, other) => one - other);
    assert.equal(ys.length, 12);
    ys.slice(1).forEach((y, at) => assert.ok(y - ys[at] >= 50, `${y} after ${ys[at]}`));
    assert.ok(ys[0] >= 0 && ys[11] + 40 <= layout.height);
  }
});

test("rows are in the order in which the fewest edges cross", () => {
  assert.equal(crossings(layOut(items("a0 b0 c0 x1:c y1:b z1:a"), SIZES)), 0);
  assert.equal(crossings(layOut(items("a0 b0 c0 d0 x1:d y1:a,b z1:c p2:z q2:x r2:y"), SIZES)), 0);
});

test("an edge over several columns does not run through the tasks between", () => {
  const layout = layOut(items("a0 b1:a c2:a,b"), SIZES);
  const [b, long] = [spot(layout, "b"), layout.edges.find((edge) => edge.from === "a" && edge.to === "c")];
  const level = long?.path.match(/ ([\d.]+)H([\d.]+)/); // through the column of b
  assert.ok(level, long?.path);
  assert.equal(Number(level[2]), 240);
  assert.ok(Number(level[1]) < b.y || Number(level[1]) > b.y + 40, `${level[1]} within b at ${b.y}`);
});

test("an edge goes from the right side of what is needed to the left side of what needs it", () => {
  const layout = layOut(items("a0 b1:a"), SIZES);
  assert.deepEqual(layout.edges, [{ from: "a", to: "b", path: "M100 20C120 20 120 20 140 20" }]);
});

test("what is not in the plan is left out, and nothing is laid out as nothing", () => {
  assert.deepEqual(layOut(items("a0:z"), SIZES).edges, []);
  const none = layOut([], SIZES);
  assert.deepEqual([none.width, none.height, none.spots.size], [0, 0, 0]);
});

test("needs that lead backwards or in a circle are drawn, too", () => {
  assert.equal(layOut(items("a0:b b1:a c1:c"), SIZES).edges.length, 3);
});
