// @ts-check
// A task of a project in a list.

import { cancelTask, resumeTask, startPlan } from "../actions.js";
import { h, setAttribute, setText } from "../dom.js";
import { countText } from "../figures.js";
import { links } from "../router.js";
import { badge, setBadge, statusText } from "../states.js";
import { cell, rowOf, setAgo, setClipped, setLink } from "./cells.js";

/** @type {[string, string][]} */
export const TASK_COLUMNS = [
  ["state", "State"], ["task", "Task"], ["note", "Why"], ["runs number", "Runs"],
  ["failed number", "Failed"], ["active", "Last activity"], ["act", "Actions"],
];

/** @typedef {{is_run: boolean, tasks: Map<string, {title: string, why: string, state: string}>}} Plan
 *   what a row needs of the plan of its project */

/** @param {() => Plan | null} planNow @returns {import("./cells.js").Row} */
export function taskRow(planNow) {
  const [state, task, title, note] = [badge(""), h("a", {}), h("span", { class: "quiet" }), h("span", {})];
  const [runs, failed, active] = [h("span", {}), h("span", {}), h("time", {})];
  /** @type {any} */
  let shown = {};
  const button = h("button", { type: "button", onclick: () => ACTS[actOf(shown, planNow())]?.act(shown) });
  const element = rowOf([
    cell("state", state), cell("task clip", task, " ", title), cell("note clip quiet", note), cell("runs number", runs),
    cell("failed number", failed), cell("active", active), cell("act", button),
  ]);

  /** @param {any} item */
  function update(item) {
    shown = item;
    const planned = planNow()?.tasks.get(item.id);
    setBadge(state, item.status);
    setLink(task, links.task(item.project_id, item.id), item.id);
    setText(title, planned && planned.title !== item.id ? planned.title : "");
    setClipped(note, planned && planned.state !== "done" ? planned.why : noteOf(item));
    setText(runs, countText(item.run_count));
    setText(failed, item.run_counts.failed ? countText(item.run_counts.failed) : "–");
    setAgo(active, item.last_activity);
    const words = ACTS[actOf(item, planNow())]?.words;
    setText(button, words ?? "");
    setAttribute(button, "aria-label", words ? `${words}: ${item.id}` : null);
    setAttribute(button, "hidden", words ? null : "");
  }
  return { element, update };
}

/** @type {Record<string, {words: string, act: (item: any) => unknown}>} */
const ACTS = {
  retry: { words: "Retry", act: (item) => startPlan(item.project_id, { only: [item.id] }) },
  cancel: { words: "Cancel", act: (item) => cancelTask({ project_id: item.project_id, task_id: item.id }) },
  resume: { words: "Start again", act: (item) => resumeTask({ project_id: item.project_id, task_id: item.id }) },
};

/** What can be done with it here: a plan that is run decides on its tasks itself.
 * @param {{id: string, status: string, live?: boolean, run_count: number}} item @param {Plan | null} plan
 * @returns {"" | "retry" | "cancel" | "resume"} */
export function actOf(item, plan) {
  const hasFailed = item.status === "failed" || item.status === "unknown";
  if (plan?.tasks.has(item.id)) return hasFailed && !plan.is_run ? "retry" : "";
  if (item.live || ["queued", "running", "partial_failure"].includes(item.status)) return "cancel";
  return hasFailed && item.run_count ? "resume" : "";
}

/** What it waits for, or how its loop stands where that is not its state.
 * @param {{blocked_by?: string[] | null, depends_on?: string[] | null, queue_position?: number, loop?: string, status: string}} item */
export function noteOf({ blocked_by, depends_on, queue_position, loop, status }) {
  if (queue_position) return `is number ${queue_position} in the queue`;
  if (blocked_by?.length) return `waits for ${blocked_by.join(", ")}`;
  if (loop && loop !== statusText(status)) return `its loop: ${loop}`;
  return depends_on?.length ? `comes after ${depends_on.join(", ")}` : "";
}
