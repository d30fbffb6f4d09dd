// @ts-check
// What somebody should look at, before anything else: each with the command that helps, and a
// button where the page can do it.

import { resumeTask, retryRun, startPlan, stopRun } from "../actions.js";
import { h, setAttribute, setText } from "../dom.js";
import { countText } from "../figures.js";
import { setAgo, syncRows } from "../lists/cells.js";
import { command } from "../parts.js";
import { links } from "../router.js";
import { badge, setBadge } from "../states.js";
import { remedyOf } from "./remedies.js";

/** @typedef {import("./remedies.js").Problem} Problem */
/** @typedef {import("./remedies.js").Plans} Plans */

const SHOWN_FIRST = 8;

export function problems() {
  const [title, total] = [h("h2", {}), h("span", { class: "quiet" })];
  const [list, none] = [h("ul", { class: "problems" }), h("p", { class: "none all-well" })];
  const more = h("button", { type: "button", hidden: true, onclick: () => toggle() });
  const left = h("p", { class: "quiet", hidden: true });
  const element = h("section", { "aria-label": "Problems" }, title, none, list, more, left);
  title.append("Problems ", total);
  /** @type {any} */
  let shown = null;
  let isWhole = false;
  /** @type {Plans} */
  let plans = new Map();

  function toggle() {
    isWhole = !isWhole;
    show(shown);
  }

  /** @param {any} answer */
  function show(answer) {
    shown = answer;
    const [found, count] = [/** @type {Problem[]} */ (answer.problems), answer.problem_total];
    setAttribute(title, "hidden", count ? null : "");
    setAttribute(none, "hidden", count ? "" : null);
    setText(none, "No problems: nothing has failed, is stuck or silent.");
    setText(total, countText(count));
    plans = new Map(answer.plans.map((/** @type {any} */ plan) => [plan.project_id, plan]));
    syncRows(list, isWhole ? found : found.slice(0, SHOWN_FIRST), keyOf, () => problemItem(() => plans));
    setAttribute(more, "hidden", found.length > SHOWN_FIRST ? null : "");
    setText(more, isWhole ? "Show fewer" : `Show all ${countText(found.length)}`);
    setAttribute(more, "aria-expanded", String(isWhole));
    setAttribute(left, "hidden", isWhole && count > found.length ? null : "");
    setText(left, `${countText(count - found.length)} more are not shown; in a terminal: bin/monitor`);
  }

  return { element, show, tick: () => list.querySelectorAll("li").forEach((item) => ticks.get(item)?.()) };
}

/** @type {WeakMap<Element, () => void>} */
const ticks = new WeakMap();

/** @param {Problem} problem */
const keyOf = ({ kind, project_id, task_id, run_id, text }) =>
  `${kind}\n${project_id}\n${task_id}\n${run_id ?? (task_id ? "" : text)}`;

/** @param {() => Plans} plansNow @returns {import("../lists/cells.js").Row} */
function problemItem(plansNow) {
  /** @type {Problem} */
  let shown;
  const [kind, text, when] = [badge(""), h("a", { class: "sentence" }), h("time", {})];
  const [places, line] = [h("span", { class: "places" }), h("div", { class: "cure" })];
  const button = h("button", { type: "button", onclick: () => act(shown, plansNow()) });
  const element = h("li", { "data-row": true },
    h("div", { class: "what" },
      h("div", { class: "said" }, kind, text),
      h("div", { class: "help" }, line, h("span", { class: "quiet small meta" }, when, places))),
    button);
  ticks.set(element, () => setAgo(when, shown?.since));

  /** @param {Problem} problem */
  function update(problem) {
    const isSame = shown?.command === problem.command && shown?.run_id === problem.run_id;
    shown = problem;
    setAttribute(element, "data-status", problem.severity === "bad" ? "failed" : "waiting");
    setBadge(kind, problem.severity === "bad" ? "failed" : "waiting", problem.kind);
    setText(text, problem.text);
    setAttribute(text, "href", placesOf(problem, plansNow())[0]?.[1] ?? links.messages());
    setAttribute(when, "hidden", problem.since ? null : "");
    setAgo(when, problem.since);
    syncRows(places, placesOf(problem, plansNow()), ([words]) => words, placeLink);
    if (!isSame || !line.firstChild) line.replaceChildren(...(problem.command ? [command(problem.command)] : []));
    const remedy = remedyOf(problem, plansNow());
    setAttribute(button, "hidden", remedy ? null : "");
    setText(button, remedy?.[1] ?? "");
    setAttribute(button, "aria-label", remedy ? `${remedy[1]}: ${problem.text.slice(0, 80)}` : null);
  }
  return { element, update };
}

/** @returns {import("../lists/cells.js").Row} */
function placeLink() {
  const element = h("a", {});
  /** @param {[string, string]} place */
  const update = ([words, href]) => {
    setText(element, words);
    setAttribute(element, "href", href);
  };
  return { element, update };
}

/** Where it can be looked at, the nearest first. @param {Problem} problem @param {Plans} plans
 * @returns {[string, string][]} */
function placesOf({ project_id, task_id, run_id }, plans) {
  /** @type {[string, string][]} */
  const found = [];
  if (run_id) found.push(["Run", links.run(project_id, task_id, run_id)]);
  if (project_id && task_id) found.push(["Task", links.task(project_id, task_id)]);
  if (plans.has(project_id)) found.push(["Plan", links.plan(project_id, { task: task_id })]);
  else if (project_id) found.push(["Project", links.project(project_id)]);
  return found;
}

/** @param {Problem} problem @param {Plans} plans */
function act(problem, plans) {
  const { project_id, task_id, run_id } = problem;
  switch (remedyOf(problem, plans)?.[0]) {
    case "continue": return startPlan(project_id);
    case "retry task": return startPlan(project_id, { only: [task_id] });
    case "retry": return retryRun({ project_id, task_id, run_id: run_id ?? "" });
    case "stop": return stopRun({ project_id, task_id, run_id: run_id ?? "" });
    case "resume": return resumeTask({ project_id, task_id });
    default: return undefined;
  }
}
