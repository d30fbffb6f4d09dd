// @ts-check
// How many tasks stand how, in the order in which it is told.

import { counted } from "../figures.js";
import { statusOf } from "../states.js";

/** @typedef {{state: string, count: number}} Share */

const ORDER = ["done", "running", "waiting", "quota", "blocked", "failed", "stopped", "unknown", "pending"];

/** Those that there are, by the states of the page. @param {Record<string, number>} counts by what the server calls them
 * @returns {Share[]} */
export function sharesOf(counts) {
  /** @type {Map<string, number>} */
  const found = new Map();
  for (const [name, count] of Object.entries(counts)) {
    const state = statusOf(name === "skipped" ? "stopped" : name);
    found.set(state, (found.get(state) ?? 0) + count);
  }
  return ORDER.map((state) => ({ state, count: found.get(state) ?? 0 })).filter(({ count }) => count > 0);
}

/** `14 of 34 tasks done, 2 failed`. @param {Record<string, number>} counts @param {number} total */
export function sentenceOf(counts, total) {
  const shares = sharesOf(counts);
  const done = shares.find(({ state }) => state === "done")?.count ?? 0;
  const rest = shares.filter(({ state }) => state !== "done" && state !== "pending");
  return [`${done} of ${counted(total, "task")} done`, ...rest.map(({ state, count }) => `${count} ${wordOf(state)}`)].join(", ");
}

/** @param {string} state */
const wordOf = (state) => ({ quota: "waiting for a quota", waiting: "waiting", stopped: "skipped" })[state] ?? state;
