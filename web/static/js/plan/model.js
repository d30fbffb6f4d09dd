// @ts-check
// A plan as the server tells it, with what all tabs ask of it: no DOM here.

import { statusOf } from "../states.js";
import { msOf, secondsText } from "../times.js";

/** @typedef {{run_id: string, kind: string, unit: string, agent: string, instead_of: string | null,
 *   result: string, status: string | null, started: string | null, ended: string | null,
 *   seconds: number | null, exit_code: number | null, verdict: string | null, why: string | null,
 *   note: string | null, input_tokens: number | null, cached_tokens: number | null,
 *   output_tokens: number | null, cost_usd: number | null, cost_estimated: boolean}} Run */
/** `state` is the server's word, or `quota` for a task that waits for one; `stageIndex` -1 where
 * its stage is not known; `tries` of the judge, if it has several, who was asked most often.
 * @typedef {{id: string, title: string, stage: string, stageIndex: number, role: string | null,
 *   in_scope: boolean, state: string, status: string, why: string, until: string | null,
 *   attempts: number, agents_asked: string[], agents_used: string[], depends_on: string[],
 *   dependants: string[], blocked_by: string[], quorum: number, verdicts: Record<string, string>,
 *   runs: Run[], seconds: number, input_tokens: number | null, output_tokens: number | null,
 *   cached_tokens: number | null, cost_usd: number | null, cost_estimated: boolean,
 *   runs_without_cost: number, wave: number, isCritical: boolean, tries: number}} Task */
/** @typedef {{id: string, title: string, barrier: boolean, is_open: boolean, state: string,
 *   counts: Record<string, number>, tasks: Task[]}} Stage */
/** @typedef {{plan: any, project: string, isRun: boolean, tasks: Map<string, Task>, stages: Stage[],
 *   critical: string[], runIds: Set<string>, counts: Record<string, number>, readMs: number,
 *   domain: Domain}} Model */
/** From the first start of a run to the last end; hasLive: some have not ended. start is Infinity
 * where nothing has begun. @typedef {{start: number, end: number, hasLive: boolean}} Domain */

/** @param {any} plan the answer of the server @param {number} readMs when it came
 * @returns {Model} */
export function modelOf(plan, readMs) {
  const waits = new Set(plan.quota_waits.flatMap((/** @type {any} */ wait) => wait.tasks));
  const critical = plan.critical_path ?? [];
  const isCritical = new Set(critical);
  const stageIndex = new Map(plan.stages.map((/** @type {any} */ stage, /** @type {number} */ at) => [stage.id, at]));
  /** @type {Map<string, Task>} */
  const tasks = new Map();
  for (const task of plan.tasks) {
    const state = waits.has(task.id) && task.state === "waiting" ? "quota" : task.state;
    tasks.set(task.id, {
      ...task, state, status: statusOf(state), dependants: [], wave: task.wave ?? 0,
      isCritical: isCritical.has(task.id), tries: triesOf(task), stageIndex: stageIndex.get(task.stage) ?? -1,
    });
  }
  for (const task of tasks.values()) {
    for (const need of task.depends_on) tasks.get(need)?.dependants.push(task.id);
  }
  return {
    plan, tasks, critical, readMs, project: plan.project_id, isRun: plan.is_run,
    stages: stagesOf(plan, tasks),
    counts: countStates([...tasks.values()].filter((task) => task.in_scope)),
    domain: domainOfRuns(plan.tasks.flatMap((/** @type {any} */ task) => task.runs), msOf(plan.timeline.start)),
    runIds: new Set(plan.tasks.flatMap((/** @type {any} */ task) => task.runs.map((/** @type {Run} */ run) => run.run_id))),
  };
}

/** @param {Run[]} runs @param {number} begun NaN where that is not known @returns {Domain} */
function domainOfRuns(runs, begun) {
  let [start, end] = Number.isNaN(begun) ? [Infinity, -Infinity] : [begun, begun];
  for (const run of runs) {
    const from = msOf(run.started);
    if (Number.isNaN(from)) continue;
    start = Math.min(start, from);
    end = Math.max(end, isLive(run) ? from : endOf(run));
  }
  return { start, end, hasLive: runs.some(isLive) };
}

/** When a run that does not live any more has ended. @param {Run} run */
export function endOf(run) {
  const end = msOf(run.ended);
  return Number.isNaN(end) ? msOf(run.started) + (run.seconds ?? 0) * 1000 : end;
}

/** @param {any} plan @param {Map<string, Task>} tasks @returns {Stage[]} */
function stagesOf(plan, tasks) {
  const stages = plan.stages.map((/** @type {any} */ stage) => ({ ...stage, tasks: tasksOf(stage.tasks, tasks) }));
  const placed = new Set(plan.stages.flatMap((/** @type {any} */ stage) => stage.tasks));
  const rest = [...tasks.values()].filter((task) => !placed.has(task.id));
  if (!rest.length) return stages;
  const counts = countStates(rest); // the plan file cannot be read: its state has the tasks alone
  const state = UNSETTLED.find((status) => counts[status]) ?? "done";
  return [...stages, { id: "", title: "", barrier: false, is_open: true, state, counts, tasks: rest }];
}

const UNSETTLED = ["running", "quota", "waiting", "pending", "unknown", "failed", "blocked", "stopped"];

/** @param {string[]} names @param {Map<string, Task>} tasks */
const tasksOf = (names, tasks) => names.flatMap((name) => tasks.get(name) ?? []);

const ORDER = ["failed", "blocked", "running", "quota", "waiting", "unknown", "stopped", "pending", "done"];

/** How many tasks there are of each state, what needs a look first. @param {Task[]} tasks */
export function countStates(tasks) {
  const found = new Map();
  for (const task of tasks) found.set(task.status, (found.get(task.status) ?? 0) + 1);
  return Object.fromEntries(ORDER.filter((status) => found.has(status)).map((status) => [status, found.get(status)]));
}

/** @param {any} task as the server tells it; what met a quota was no try */
function triesOf(task) {
  const counts = new Map();
  for (const run of attemptsOf(task)) {
    if (run.result !== "quota") counts.set(run.unit, (counts.get(run.unit) ?? 0) + 1);
  }
  return Math.max(0, ...counts.values());
}

/** The attempts of a task alone, without the runs that its own loop has started. @param {Task} task */
export const attemptsOf = (task) => task.runs.filter((run) => run.kind === "attempt");

/** @param {Run} run */
export const isLive = (run) => run.result === "running" && !run.ended;

/** From its first start to its last end, or to now; null before it has begun.
 * @param {Task} task @param {number} nowMs @returns {{start: number, end: number} | null} */
export function spanOf(task, nowMs) {
  const starts = task.runs.map((run) => msOf(run.started)).filter((ms) => !Number.isNaN(ms));
  if (!starts.length) return null;
  const ends = task.runs.map((run) => (isLive(run) ? nowMs : msOf(run.ended))).filter((ms) => !Number.isNaN(ms));
  const start = Math.min(...starts);
  return { start, end: Math.max(start, ...ends) };
}

/** How long it took, or takes; "" before it has begun. @param {Task} task @param {number} nowMs */
export function tookText(task, nowMs) {
  const span = spanOf(task, nowMs);
  if (!span) return "";
  const seconds = (span.end - span.start) / 1000;
  return seconds < 10 && !task.runs.some(isLive) ? `${seconds.toFixed(1)} s` : secondsText(seconds);
}

/** Whether a text or a state chooses it. @param {Task} task @param {string} text in lower case
 * @param {string} status "" for any */
export function isChosen(task, text, status) {
  if (status && task.status !== status) return false;
  if (!text) return true;
  return [task.id, task.title, task.why, ...task.agents_used, ...task.agents_asked]
    .some((words) => words.toLowerCase().includes(text));
}

/** All that a task needs, in turn (`depends_on`), or all that waits for it (`dependants`).
 * @param {Map<string, Task>} tasks @param {string} id @param {"depends_on" | "dependants"} side */
export function reach(tasks, id, side) {
  const found = new Set();
  const queue = [...(tasks.get(id)?.[side] ?? [])];
  for (const name of queue) { // which grows
    if (found.has(name)) continue;
    found.add(name);
    queue.push(...(tasks.get(name)?.[side] ?? []));
  }
  return found;
}
