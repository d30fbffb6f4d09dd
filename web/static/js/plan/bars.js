// @ts-check
// What a timeline shows of a task: its attempts and waits as spans of time. No DOM here.

import { msOf } from "../times.js";
import { endOf, isLive } from "./model.js";
import { lanesOf } from "./scale.js";

/** @typedef {import("./model.js").Model} Model */
/** @typedef {import("./model.js").Run} Run */
/** @typedef {import("./model.js").Stage} Stage */
/** @typedef {import("./model.js").Task} Task */
/** end: null while it goes on. `status` is one of states.js.
 * @typedef {{key: string, run: Run | null, start: number, end: number | null, status: string,
 *   lane: number, isWait: boolean}} Bar */
/** A row is the head of a stage or a task. @typedef {{key: string, stage: Stage, task: Task | null}} Row */

/** @param {Model} model @param {(task: Task) => boolean} isShown @returns {Row[]} */
export function rowsOf(model, isShown) {
  return model.stages.flatMap((stage) => {
    const tasks = stage.tasks.filter(isShown);
    const rows = tasks.map((task) => ({ key: `task ${task.id}`, stage, task }));
    return tasks.length ? [{ key: `stage ${stage.id}`, stage, task: null }, ...rows] : [];
  });
}

const RESULTS = new Map([["done", "done"], ["failed", "failed"], ["quota", "quota"], ["running", "running"], ["void", "stopped"]]);

/** How an attempt stands. @param {Run} run */
export function statusOfRun(run) {
  if (isLive(run)) return "running";
  const told = RESULTS.get(run.result);
  if (told && told !== "running") return told;
  return run.status === "completed" ? "done" : run.status === "failed" ? "failed" : "stopped";
}

/** The bars of a task in lanes, the oldest first. @param {Task} task @param {number} nowMs
 * @returns {{bars: Bar[], lanes: number}} */
export function barsOf(task, nowMs) {
  const runs = task.runs.filter((run) => !Number.isNaN(msOf(run.started)));
  const spans = runs.map((run) => ({ start: msOf(run.started), end: isLive(run) ? nowMs : endOf(run) }));
  const { lanes, count } = lanesOf(spans);
  const bars = runs.map((run, at) => ({
    key: run.run_id, run, start: spans[at].start, end: isLive(run) ? null : spans[at].end,
    status: statusOfRun(run), lane: lanes[at], isWait: false,
  }));
  return { bars: [...waitsOf(task, bars), ...bars], lanes: count };
}

/** From an attempt that met a quota to the one that follows it, or to now.
 * @param {Task} task @param {Bar[]} bars @returns {Bar[]} */
function waitsOf(task, bars) {
  return bars.flatMap((bar) => {
    if (bar.status !== "quota" || bar.end === null) return [];
    const from = bar.end;
    const next = bars.find((other) => other.start >= from);
    const isOpen = !next && (task.status === "quota" || task.status === "waiting");
    if (!next && !isOpen) return [];
    return [{ ...bar, key: `${bar.key} wait`, run: null, start: from, end: next ? next.start : null, isWait: true }];
  });
}

/** From the first start to the last end of all, or to now; null where nothing has begun.
 * @param {Model} model @param {number} nowMs @returns {{start: number, end: number, isOpen: boolean} | null} */
export function domainOf({ domain, isRun }, nowMs) {
  if (domain.start === Infinity) return null;
  const isOpen = isRun || domain.hasLive;
  return { start: domain.start, end: isOpen ? Math.max(domain.end, nowMs) : domain.end, isOpen };
}
