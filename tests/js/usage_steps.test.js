// Sums of what runs have used, over time.

import assert from "node:assert/strict";
import { test } from "node:test";

import { stepPath, usageSteps } from "../../web/static/js/run/usage_steps.js";

const at = (/** @type {number} */ second) => new Date(second * 1000).toISOString();

test("each run adds what it used when it ended, in the order of these ends", () => {
  const { cost, tokens, isEstimated } = usageSteps([
    { start_time: at(10), end_time: at(40), cost_usd: 2, input_tokens: 10, output_tokens: 1 },
    { start_time: at(20), end_time: at(30), cost_usd: 1, cost_estimated: true, input_tokens: 5 },
  ]);
  assert.deepEqual(cost, [{ ms: 10_000, value: 0 }, { ms: 30_000, value: 1 }, { ms: 40_000, value: 3 }]);
  assert.deepEqual(tokens.map(({ value }) => value), [0, 5, 16]);
  assert.equal(isEstimated, true);
});

test("what no run tells has no steps, and one that lives counts now", () => {
  const { cost, tokens } = usageSteps([{ start_time: at(10), output_tokens: 7 }], 50_000);
  assert.deepEqual(cost, []);
  assert.deepEqual(tokens, [{ ms: 10_000, value: 0 }, { ms: 50_000, value: 7 }]);
  assert.deepEqual(usageSteps([]), { cost: [], tokens: [], isEstimated: false });
  assert.deepEqual(usageSteps([{ start_time: "0001-01-01T00:00:00Z", cost_usd: 1 }]).cost, []);
});

test("the path ends at the sum, and has no more points than can be seen", () => {
  const steps = Array.from({ length: 10_001 }, (_, number) => ({ ms: number, value: number }));
  const path = stepPath(steps, 300, 100);
  assert.ok(path.startsWith("M0 100") && path.endsWith("H300V0"), path.slice(-20));
  assert.ok(path.length < 20_000);
  assert.equal(stepPath([{ ms: 0, value: 0 }, { ms: 0, value: 5 }], 300, 100), "M0 100H0V0");
});
