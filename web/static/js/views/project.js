// @ts-check
// A project: its plan, what it has used, and its tasks.

import { addresses, get } from "../api.js";
import { h, setAttribute, setText } from "../dom.js";
import { counted, countText, moneyText } from "../figures.js";
import { filteredList } from "../lists/filtered_list.js";
import { toCome } from "../lists/to_come.js";
import { TASK_COLUMNS, taskRow } from "../lists/task_row.js";
import { keepFresh } from "../live.js";
import { planCard } from "../overview/plans.js";
import { heading, problem, trail } from "../parts.js";
import { links } from "../router.js";
import { statusText } from "../states.js";

/** @typedef {import("../router.js").Place} Place */

/** @type {[string, string][]} */
const STATES = [["", "All"], ["running", "Running"], ["failed", "Failed"], ["blocked", "Blocked"], ["queued", "Queued"], ["done", "Done"]];

const MOST_PLANNED = 500; // tasks of a plan that is asked for in full

/** @param {Place} place @returns {import("../main.js").View} */
export function openProject(place) {
  const project = place.project;
  const head = openHead(project, () => list.tick());
  const list = filteredList({
    label: `Tasks of ${project}`, name: "tasks", columns: TASK_COLUMNS, makeRow: () => taskRow(head.plan), states: STATES,
    keyOf: (task) => task.id,
    placeholder: "Words of the name",
    address: (part) => addresses.tasks(project, part),
    href: (wanted) => links.project(project, wanted),
    wants: (change) => concerns(change, project),
    emptiness: (isFiltered) => h("p", { class: "none" }, isFiltered ? "No task in this state has all these words." : "No task has a folder here yet."),
  }, wantedAt(place));
  return {
    element: h("div", {}, trail({}), head.element, h("section", {}, h("h2", {}, "Tasks ", list.total), list.element), head.rest),
    title: project,
    up: links.projects(),
    update(other) {
      list.choose(wantedAt(other));
      return true;
    },
    close() {
      list.close();
      head.close();
    },
  };
}

/** Its title, what can be done, its plan, and the sums of its runs.
 * @param {string} project @param {() => void} onPlan is called when something else is known of its plan */
function openHead(project, onPlan) {
  /** @type {import("../lists/task_row.js").Plan | null} */
  let known = null;
  let titled = {};
  const rest = toCome(project);
  const [plan, used, folder] = [planCard(), h("p", { class: "quiet used" }), h("p", { class: "quiet small id" })];
  const trouble = problem();
  setAttribute(plan.element, "hidden", "");
  const keeper = keepFresh(async (signal) => {
    const [{ plans }, totals, { projects }] = await Promise.all([
      get(addresses.plans, signal), get(addresses.totals({ project }), signal), get(addresses.projects, signal),
    ]);
    const own = plans.find((/** @type {any} */ item) => item.project_id === project);
    setAttribute(plan.element, "hidden", own ? null : "");
    if (own) plan.update({ ...own, ...titled });
    if (!own) known = null;
    if (own) ({ known, titled } = await loadPlan(own, signal));
    if (own) plan.update({ ...own, ...titled });
    rest.show([...(known?.tasks.values() ?? [])]);
    onPlan();
    setText(used, usedText(totals));
    const found = projects.find((/** @type {any} */ item) => item.id === project);
    setText(folder, found?.project_root ?? "");
    trouble.show(own || found ? "" : `The project ${project} was not found: nothing here is called so.`);
  }, { wants: (change) => concerns(change, project), onRefused: (error) => trouble.show(error.message) });
  const actions = [
    h("a", { class: "button", href: links.messages(project) }, "Messages"),
    h("a", { class: "button", href: links.start({ project }) }, "Start a task"),
  ];
  return {
    element: h("div", { class: "project-head" }, heading(project, [], actions), trouble.element, used, folder, plan.element),
    rest: rest.element,
    plan: () => known,
    close: () => keeper.stop(),
  };
}

/** What its rows say of its tasks; of a large plan no more than whether it is run.
 * @param {any} plan @param {AbortSignal} signal
 * @returns {Promise<{known: import("../lists/task_row.js").Plan, titled: {title?: string, seconds_left?: number}}>} */
async function loadPlan({ project_id, is_run, total }, signal) {
  if (total > MOST_PLANNED) return { known: { is_run, tasks: new Map() }, titled: {} };
  const { title, seconds_left, tasks } = await get(addresses.plan(project_id), signal);
  return { known: { is_run, tasks: new Map(tasks.map((/** @type {any} */ task) => [task.id, task])) }, titled: { title, seconds_left } };
}

/** `12 runs (10 done, 2 failed) · $1.20`. @param {any} totals */
function usedText({ run_count, runs, cost_usd, cost_estimated, unknown_cost_runs }) {
  if (!run_count) return "No run yet.";
  const states = Object.entries(runs).map(([state, count]) => `${countText(/** @type {number} */ (count))} ${statusText(state)}`);
  const cost = moneyText(cost_usd, cost_estimated) + (unknown_cost_runs ? ` + ${countText(unknown_cost_runs)} without cost` : "");
  return `${counted(run_count, "run")} (${states.join(", ")}) · ${cost}`;
}

/** @param {import("../live.js").Change} change @param {string} project */
const concerns = (change, project) => change.projects.includes(project) || change.plans.includes(project);

/** @param {Place} place */
const wantedAt = ({ query }) => ({ q: query.get("q") ?? "", status: query.get("status") ?? "" });
