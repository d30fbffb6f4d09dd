// @ts-check
// A project in a list, with how its plan stands and what its runs have used.

import { h, setAttribute, setText } from "../dom.js";
import { countText, moneyText } from "../figures.js";
import { links } from "../router.js";
import { badge, setBadge } from "../states.js";
import { cell, rowOf, setAgo, setLink } from "./cells.js";
import { sentenceOf } from "./counts.js";
import { progress } from "./progress.js";

/** @type {[string, string][]} */
export const PROJECT_COLUMNS = [
  ["project", "Project"], ["plan", "Plan"], ["tasks number", "Tasks"], ["runs number", "Runs"],
  ["live number", "Running"], ["failed number", "Failed"], ["cost number", "Cost"], ["active", "Last activity"],
];

/** @typedef {{id: string, task_count: number, last_activity: string, project_root?: string,
 *   plan?: any, totals?: any}} Project */

/** @returns {import("./cells.js").Row} */
export function projectRow() {
  const [project, plan, state, bar] = [h("a", {}), h("a", {}), badge(""), progress()];
  const [tasks, runs, live, failed, cost] = [h("span", {}), h("span", {}), h("span", {}), h("span", {}), h("span", {})];
  const active = h("time", {});
  const withPlan = h("div", { class: "plan-state" }, state, plan, bar.element);
  const element = rowOf([
    cell("project clip", project), cell("plan clip", withPlan), cell("tasks number", tasks), cell("runs number", runs),
    cell("live number", live), cell("failed number", failed), cell("cost number", cost), cell("active", active),
  ]);

  /** @param {Project} item */
  function update(item) {
    setLink(project, links.project(item.id), item.id, item.project_root ? `${item.id}: ${item.project_root}` : item.id);
    setAttribute(withPlan, "hidden", item.plan ? null : "");
    if (item.plan) {
      setBadge(state, item.plan.state);
      setLink(plan, links.plan(item.id), doneText(item.plan), sentenceOf(item.plan.counts, item.plan.total));
      bar.update(item.plan.counts, item.plan.total);
    }
    setText(tasks, countText(item.task_count));
    setText(runs, countText(item.totals?.run_count));
    setText(live, item.totals?.runs.running || "–");
    setText(failed, item.totals?.runs.failed || "–");
    setText(cost, moneyText(item.totals?.cost_usd, item.totals?.cost_estimated));
    setAgo(active, item.last_activity);
  }
  return { element, update };
}

/** `14 of 34`. @param {{counts: Record<string, number>, total: number}} plan */
export const doneText = ({ counts, total }) => `${countText(counts.done ?? 0)} of ${countText(total)}`;
