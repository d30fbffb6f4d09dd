// @ts-check
// One task: how it stands and why, its runs, and what they have used.

import { cancelTask, commandOptions, resumeTask, retryRun, stopRun } from "../actions.js";
import { addresses, get, getIfThere } from "../api.js";
import { h, setText } from "../dom.js";
import { countText, moneyText, tokensText } from "../figures.js";
import { everySecond, keepFresh } from "../live.js";
import { heading, problem, trail } from "../parts.js";
import { links } from "../router.js";
import { makeAdvice } from "../run/advice.js";
import { makeFacts } from "../run/facts.js";
import { makeFamily } from "../run/family.js";
import { lastMessages } from "../run/messages.js";
import { makePrompt } from "../run/prompt.js";
import { makeRunsTable } from "../run/runs_table.js";
import { makeUsageCharts } from "../run/usage_chart.js";
import { badge, setBadge } from "../states.js";
import { agoText, dateText, msOf, now, secondsText } from "../times.js";

const AT_WORK = ["running", "restarting", "waiting-children", "blocked"]; // as a loop says it

/** @param {import("../router.js").Place} place @returns {import("../main.js").View} */
export function openTask(place) {
  const view = new TaskView(place.project, place.task);
  return {
    element: view.parts.element,
    title: place.task,
    up: links.project(place.project),
    close: () => view.close(),
  };
}

class TaskView {
  /** @param {string} project @param {string} task */
  constructor(project, task) {
    this.project = project;
    this.name = task;
    /** @type {any} TaskDetail */
    this.task = null;
    /** @type {any[]} the newest first */
    this.runs = [];
    /** @type {any} of the newest run */
    this.family = null;
    /** @type {any} what the plan knows of it */
    this.planned = null;
    this.hasFolder = false;
    /** @type {string[]} */
    this.options = [];
    this.messages = lastMessages(project, task);
    this.parts = makeParts(this);
    const keeper = keepFresh((signal) => this.load(signal), {
      wants: (change) => change.projects.includes(project) || change.plans.includes(project)
        || this.runs.some((run) => change.runs.includes(run.id)),
      onRefused: (error) => this.parts.problem.show(`${error.message}.`),
    });
    const stopClock = everySecond(() => this.task && this.showFacts());
    this.close = () => [keeper.stop, stopClock, this.messages.close].forEach((end) => end.call(keeper));
    commandOptions().then((options) => {
      this.options = options;
      if (this.task) this.showFacts();
    });
  }

  /** What takes long is asked for less often. @param {AbortSignal} signal */
  async load(signal) {
    const begun = performance.now();
    this.task = await this.askTask(signal);
    this.runs = [...this.task.runs].reverse();
    const newest = this.runs[0];
    this.family = newest ? await getIfThere(addresses.family(newest.id), signal) : null;
    if (this.family?.plan_task) await this.askPlan(signal);
    this.parts.problem.show("");
    this.show();
    await new Promise((resolve) => setTimeout(resolve, Math.min(3000, 4 * (performance.now() - begun))));
  }

  /** A task of a plan that has not begun has no folder and no runs: then it is not asked for.
   * @param {AbortSignal} signal */
  async askTask(signal) {
    this.hasFolder ||= await this.isListed(signal);
    if (!this.hasFolder) {
      await this.askPlan(signal);
      if (this.planned) return { status: this.planned.state, done: false, runs: [] };
    }
    return get(addresses.task(this.project, this.name), signal);
  }

  /** @param {AbortSignal} signal */
  async isListed(signal) {
    const { items, has_more } = await get(addresses.tasks(this.project, { q: this.name, limit: 500 }), signal);
    return has_more || items.some((/** @type {{id: string}} */ task) => task.id === this.name);
  }

  /** @param {AbortSignal} signal */
  async askPlan(signal) {
    const plan = await getIfThere(addresses.plan(this.project), signal);
    this.planned = plan?.tasks?.find((/** @type {any} */ task) => task.id === this.name) ?? null;
  }

  get live() {
    return this.runs.find((run) => run.status === "running");
  }

  /** @param {any} run */
  placeOf(run) {
    return { run_id: run?.id ?? "", project_id: this.project, task_id: this.name };
  }

  show() {
    const { parts, task, planned, family } = this;
    parts.badge.hidden = parts.columns.hidden = false;
    setBadge(parts.badge, planned?.state ?? task.status);
    setText(parts.title, planned && planned.title !== planned.id ? planned.title : "");
    const why = planned?.why || whyOf(task, this.runs[0]);
    setText(parts.why, why);
    parts.why.hidden = !why;
    parts.why.dataset.status = (planned?.state ?? task.status) === "failed" ? "failed" : "";
    parts.plan.hidden = !planned;
    this.showActions();
    this.showFacts();
    parts.table.show(this.runs);
    parts.charts.show(task.runs);
    if (family) parts.kin(family);
  }

  showActions() {
    const { parts, task, live } = this;
    const isPlanned = Boolean(this.planned);
    parts.stop.hidden = !live;
    parts.retry.hidden = Boolean(live) || !this.runs.length || (task.done && !isPlanned);
    parts.resume.hidden = !task.done || isPlanned;
    parts.cancel.hidden = task.done || isPlanned || !(live || AT_WORK.includes(task.loop) || task.queue_position);
    parts.start.hidden = isPlanned || Boolean(live) || this.runs.length > 0;
  }

  showFacts() {
    const { parts, task } = this;
    const sum = sumOf(this.runs);
    parts.summary.show([
      { name: "Runs", text: countText(this.runs.length) },
      { name: "Attempts", text: this.planned ? countText(this.planned.attempts) : "" },
      { name: "Loop", text: task.loop ?? "" },
      { name: "Place in the queue", text: task.queue_position ? countText(task.queue_position) : "" },
      { name: "Last activity", text: agoText(task.last_activity), title: dateText(task.last_activity) },
      { name: "Worked", text: secondsText(sum.seconds), title: "all runs together" },
      { name: "Tokens in", text: tokensText(sum.input_tokens), title: `${countText(sum.input_tokens)} tokens` },
      { name: "Out", text: tokensText(sum.output_tokens), title: `${countText(sum.output_tokens)} tokens` },
      { name: "Cost", text: moneyText(sum.cost_usd, sum.isEstimated), title: sum.unknown ? `without ${sum.unknown} runs that do not tell` : "" },
      { name: "Waits for", text: (this.planned?.blocked_by ?? task.blocked_by ?? []).join(", ") },
    ]);
    parts.table.tick();
    parts.advice.show(this.lines());
  }

  /** @returns {[string, string[]][]} */
  lines() {
    const of = ["--project", this.project, "--task", this.name, ...this.options];
    const newest = this.runs[0]?.id;
    const more = /** @type {[string, string[]][]} */ (newest ? [["See its newest run", ["bin/show-run", newest, ...this.options]]] : []);
    if (this.live) more.push(["Stop it", ["bin/stop-run", ...of]]);
    return [["Its messages", ["bin/bus-tail", ...of]], ...more];
  }
}

/** @param {any} task @param {any} newest */
function whyOf(task, newest) {
  if (task.blocked_by?.length) return `It waits for ${task.blocked_by.join(", ")}.`;
  if (task.queue_position) return "It waits for a free place.";
  return task.done ? "" : newest?.error_summary ?? newest?.reason ?? "";
}

/** What all runs used together; null for what none of them tells. @param {any[]} runs */
function sumOf(runs) {
  /** @param {string} name @returns {number | null} */
  const sum = (name) => runs.reduce((total, run) => (typeof run[name] === "number" ? (total ?? 0) + run[name] : total), null);
  const spans = runs.map((run) => (msOf(run.end_time) || now()) - msOf(run.start_time));
  return {
    input_tokens: sum("input_tokens"), output_tokens: sum("output_tokens"), cost_usd: sum("cost_usd"),
    seconds: runs.length ? spans.reduce((total, ms) => total + (ms > 0 ? ms / 1000 : 0), 0) : null,
    isEstimated: runs.some((run) => run.cost_estimated),
    unknown: runs.filter((run) => typeof run.cost_usd !== "number").length,
  };
}

/** @param {TaskView} view */
function makeParts(view) {
  const { project, name } = view;
  const place = { project_id: project, task_id: name };
  const button = (/** @type {string} */ words, /** @type {() => void} */ onclick, kind = "") =>
    h("button", { type: "button", class: kind || null, hidden: true, onclick }, words);
  const kin = h("div", {});
  const parts = {
    badge: badge(""),
    title: h("span", { class: "quiet" }),
    stop: button("Stop", () => stopRun(view.placeOf(view.live)), "danger"),
    retry: button("Retry", () => retryRun(view.placeOf(view.runs[0]))),
    resume: button("Resume", () => resumeTask(place)),
    cancel: button("Cancel", () => cancelTask(place), "danger"),
    start: h("a", { class: "button", hidden: true, href: links.start({ project, task: name }) }, "Start"),
    plan: h("a", { class: "button", hidden: true, href: links.plan(project, { task: name }) }, "See it in the plan"),
    problem: problem(),
    why: h("p", { class: "why", hidden: true }),
    summary: makeFacts("strip"),
    table: makeRunsTable(project, name),
    charts: makeUsageCharts(),
    advice: makeAdvice("In a terminal"),
    kin: kinIn(kin),
  };
  parts.badge.hidden = true;
  const columns = h("div", { class: "task-columns", hidden: true },
    h("div", {}, parts.table.element, parts.charts.element, makePrompt(project, name, () => ({ run: view.runs[0]?.id ?? "", isPlanned: Boolean(view.planned) }))),
    h("div", { class: "run-aside" }, kin, view.messages.element, parts.advice.element));
  const { plan, retry, resume, start, cancel, stop } = parts;
  const element = h("div", { class: "task-view" }, trail({ project, task: name }),
    heading(name, [parts.badge, parts.title], [plan, start, resume, retry, cancel, stop]),
    parts.problem.element, parts.why, parts.summary.element,
    columns);
  return { ...parts, columns, element };
}

/** Parents and children of the newest run. @param {Element} box */
function kinIn(box) {
  let own = "";
  /** @type {ReturnType<typeof makeFamily> | null} */
  let made = null;
  return (/** @type {any} */ family) => {
    if (!made || family.run_id !== own) {
      own = family.run_id;
      made = makeFamily(own);
      box.replaceChildren(...made.elements.slice(1));
    }
    made.show({ ...family, chain: [] });
  };
}
