// @ts-check
// Sums over time, as steps; without a document.

import { msOf, now } from "../times.js";

/** @typedef {{start_time: string, end_time?: string, status?: string, cost_usd?: number | null,
 *   cost_estimated?: boolean, input_tokens?: number | null, output_tokens?: number | null}} Used */
/** @typedef {{ms: number, value: number}} Step the sum from then on */

/** Of a run that lives, what it tells counts now. @param {Used[]} runs @param {number} [nowMs]
 * @returns {{cost: Step[], tokens: Step[], isEstimated: boolean}} the first step is 0 at the first start; none where nothing is told */
export function usageSteps(runs, nowMs = now()) {
  const known = runs.map((run) => ({ run, start: msOf(run.start_time), end: msOf(run.end_time) || nowMs })).filter(({ start }) => start > 0)
    .sort((one, other) => one.end - other.end);
  const begin = Math.min(...known.map(({ start }) => start));
  /** @param {(run: Used) => number | null} valueOf */
  const sums = (valueOf) => {
    const told = known.filter(({ run }) => valueOf(run) !== null);
    let value = 0;
    const steps = told.map(({ run, end }) => ({ ms: Math.max(begin, end), value: (value += valueOf(run) ?? 0) }));
    return steps.length && value > 0 ? [{ ms: begin, value: 0 }, ...steps] : [];
  };
  return { cost: sums((run) => run.cost_usd ?? null), tokens: sums(tokensOf), isEstimated: runs.some((run) => run.cost_estimated) };
}

/** @param {Used} run */
function tokensOf({ input_tokens, output_tokens }) {
  const isTold = typeof input_tokens === "number" || typeof output_tokens === "number";
  return isTold ? (input_tokens ?? 0) + (output_tokens ?? 0) : null;
}

/** The steps as a path in a picture of this size; at most two points for each of its pixels.
 * @param {Step[]} steps @param {number} width @param {number} height */
export function stepPath(steps, width, height) {
  const [first, last] = [steps[0], steps[steps.length - 1]];
  const span = Math.max(1, last.ms - first.ms);
  const x = (/** @type {number} */ at) => Math.round(((at - first.ms) / span) * width * 10) / 10;
  const y = (/** @type {number} */ value) => Math.round((1 - value / last.value) * height * 10) / 10;
  let path = `M0 ${y(0)}`;
  let before = -1;
  steps.slice(1).forEach((step, at) => {
    if (x(step.ms) - before < 0.5 && at < steps.length - 2) return; // its height comes with the next
    before = x(step.ms);
    path += `H${before}V${y(step.value)}`;
  });
  return path;
}
