// @ts-check
// A task of a plan, opened in place: why it stands as it does, its attempts, what it needs.

import * as actions from "../actions.js";
import { h, setAttribute, setText, syncChildren } from "../dom.js";
import { countText, moneyText, tokensText } from "../figures.js";
import { links } from "../router.js";
import { badge, setBadge, sign, statusOf, statusText } from "../states.js";
import { clockText, dateText, msOf, now, secondsText } from "../times.js";
import { statusOfRun } from "./bars.js";
import { attemptsOf, isLive, spanOf, tookText } from "./model.js";

/** @typedef {import("./model.js").Model} Model */
/** @typedef {import("./model.js").Run} Run */
/** @typedef {import("./model.js").Task} Task */

const MOST_RUNS = 100;
const MOST_LINKS = 50;
const FACTS = ["Stage", "Agent asked", "Agent used", "Review", "Started", "Took", "Tokens", "Cost", "Waits until"];

export class Panel {
  /** @param {string} project @param {() => void} close @param {(task: string) => string} hrefOf */
  constructor(project, close, hrefOf) {
    this.project = project;
    this.hrefOf = hrefOf;
    this.id = h("h2", { tabindex: -1, class: "mono id", id: "panel-title" });
    this.title = h("p", { class: "panel-title" });
    this.state = badge("pending");
    this.critical = h("span", { class: "small quiet" }, "on the critical path");
    this.why = h("p", { class: "panel-why", "aria-live": "polite" });
    this.buttons = this.makeButtons();
    this.facts = h("dl", { class: "facts" });
    this.runs = h("table", {});
    this.table = h("div", { class: "table-box" }, this.runs);
    this.noRuns = h("p", { class: "none" }, "It has not been started yet.");
    this.needs = linkList("Needs", "It needs nothing.");
    this.dependants = linkList("Waits for it", "Nothing waits for it.");
    this.element = h("section", { class: "task-panel", hidden: true, "aria-labelledby": "panel-title" },
      h("div", { class: "panel-head" }, this.id, h("button", { type: "button", class: "plain", "aria-label": "Close the task", title: "Close (Esc)", onclick: close }, "✕")),
      this.title, h("p", { class: "panel-state" }, this.state, this.critical), this.why,
      h("div", { class: "actions" }, this.buttons.open, this.buttons.messages, this.buttons.retry, this.buttons.stop),
      this.facts,
      h("section", {}, h("h3", {}, "Attempts"), this.table, this.noRuns),
      this.needs.element, this.dependants.element);
  }

  makeButtons() {
    const { project } = this;
    return {
      open: h("a", { class: "button" }, "Open task"),
      messages: h("a", { class: "button" }, "Messages"),
      retry: h("button", { type: "button", hidden: true, onclick: () => this.retry() }, "Retry"),
      stop: h("button", { type: "button", class: "danger", hidden: true, onclick: () => this.live && actions.stopRun({ run_id: this.live, project_id: project, task_id: this.task?.id ?? "" }) }, "Stop run"),
    };
  }

  live = "";
  /** @type {Task | undefined} */
  task;

  retry() {
    const { project, task } = this;
    if (!task) return;
    const last = attemptsOf(task).at(-1);
    if (last) actions.retryRun({ run_id: last.run_id, project_id: project, task_id: task.id });
    else actions.startPlan(project, { only: [task.id], count: 1 });
  }

  /** Shows a task, or nothing. @param {Model} model @param {string} id "" for none */
  show(model, id) {
    const task = model.tasks.get(id);
    this.task = task;
    this.element.hidden = !id;
    if (!id) return;
    setText(this.id, id);
    if (!task) return this.showMissing();
    setText(this.title, task.title === task.id ? "" : task.title);
    setBadge(this.state, task.state);
    this.critical.hidden = !task.isCritical;
    setText(this.why, `It ${task.why}`);
    this.showButtons(model, task);
    this.showFacts(model, task);
    this.showRuns(task);
    for (const list of [this.needs, this.dependants]) list.element.hidden = false;
    this.needs.show(task.depends_on, model, this.hrefOf, new Set(task.blocked_by));
    this.dependants.show(task.dependants, model, this.hrefOf, new Set());
  }

  showMissing() {
    setText(this.title, "");
    setBadge(this.state, "unknown", "not in this plan");
    setText(this.why, "The plan has no task of this name.");
    for (const list of [this.facts, this.runs]) list.replaceChildren();
    for (const element of [this.critical, this.table, this.noRuns, ...Object.values(this.buttons)]) element.hidden = true;
    for (const list of [this.needs, this.dependants]) list.element.hidden = true;
  }

  /** @param {Model} model @param {Task} task */
  showButtons({ isRun }, task) {
    const { open, messages, retry, stop } = this.buttons;
    this.live = task.runs.find(isLive)?.run_id ?? "";
    open.hidden = messages.hidden = false;
    setAttribute(open, "href", links.task(this.project, task.id));
    setAttribute(messages, "href", links.messages(this.project, task.id));
    retry.hidden = isRun || !["failed", "blocked", "stopped", "pending"].includes(task.status);
    setText(retry, task.runs.length ? "Retry" : "Start");
    stop.hidden = !this.live;
  }

  /** @param {Model} model @param {Task} task */
  showFacts(model, task) {
    const stage = model.stages[task.stageIndex];
    const without = task.runs_without_cost && task.cost_usd !== null ? ` + ${task.runs_without_cost} without cost` : "";
    const verdicts = Object.entries(task.verdicts).map(([unit, verdict]) => `${unit}: ${verdict}`);
    /** @type {Record<string, string>} */
    const told = {
      Stage: stage?.title || task.stage,
      "Agent asked": task.agents_asked.join(", "),
      "Agent used": task.agents_used.join(", "),
      Review: task.quorum ? [`${task.quorum} of the judges must approve`, ...verdicts].join("\n") : "",
      Tokens: task.input_tokens === null ? "" : `${tokensText(task.input_tokens)} in, ${tokensText(task.output_tokens)} out`,
      Cost: task.cost_usd === null ? "" : moneyText(task.cost_usd, task.cost_estimated) + without,
      "Waits until": task.until && (task.status === "quota" || task.status === "waiting") ? dateText(task.until) : "",
      ...timesOf(task),
    };
    const items = FACTS.filter((name) => told[name]).flatMap((name) => [{ key: `${name} dt`, text: name }, { key: `${name} dd`, text: told[name] }]);
    syncChildren(this.facts, items, (item) => item.key, (item) => h(item.key.endsWith("dt") ? "dt" : "dd", {}), (element, item) => setText(element, item.text));
  }

  /** @param {Task} task */
  showRuns(task) {
    const runs = task.runs.slice(-MOST_RUNS).reverse();
    this.table.hidden = !runs.length;
    this.noRuns.hidden = runs.length > 0;
    syncChildren(this.runs, [null, ...runs], (run) => run?.run_id ?? "head", (run) => (run ? makeRun(run, this.project, task.id) : makeHead()),
      (element, run) => run && showRun(element, run, task.id));
  }

  tick() {
    if (!this.task || this.element.hidden || !this.task.runs.some(isLive)) return;
    const { Took } = timesOf(this.task);
    const at = [...this.facts.children].findIndex((element) => element.textContent === "Took");
    if (at >= 0) setText(this.facts.children[at + 1], Took);
    this.showRuns(this.task);
  }
}

/** @param {Task} task @returns {Record<string, string>} */
function timesOf(task) {
  const span = spanOf(task, now());
  if (!span) return {};
  return { Started: dateText(new Date(span.start).toISOString()), Took: tookText(task, now()) };
}

function makeHead() {
  return h("thead", {}, h("tr", {},
    ["Run", "Result"].map((name) => h("th", { scope: "col" }, name)),
    ["Took", "Tokens", "Cost"].map((name) => h("th", { scope: "col", class: "number" }, name))));
}

/** A run, and below it what is said of it. @param {Run} run @param {string} project @param {string} task */
function makeRun(run, project, task) {
  return h("tbody", {},
    h("tr", {},
      h("td", {}, h("a", { href: links.run(project, task, run.run_id), title: run.run_id })),
      h("td", {}, badge("pending")),
      [0, 1, 2].map(() => h("td", { class: "number" }))),
    h("tr", {}, h("td", { colspan: 5, class: "said small quiet" })));
}

/** @param {Element} element @param {Run} run @param {string} task */
function showRun(element, run, task) {
  const [name, result, took, tokens, cost] = element.children[0].children;
  const end = isLive(run) ? now() : msOf(run.ended);
  setText(name.children[0], clockText(run.started));
  setBadge(result.children[0], statusOfRun(run), run.verdict ?? statusText(statusOfRun(run)));
  setText(took, Number.isNaN(end) ? secondsText(run.seconds) : secondsText((end - msOf(run.started)) / 1000));
  setText(tokens, run.input_tokens === null ? "–" : tokensText((run.input_tokens ?? 0) + (run.output_tokens ?? 0)));
  setText(cost, moneyText(run.cost_usd, run.cost_estimated));
  setText(element.children[1].children[0], [
    run.kind !== "attempt" ? "run of its loop" : run.unit === task ? "" : run.unit,
    run.agent + (run.instead_of ? ` instead of ${run.instead_of}` : ""), run.why, run.note,
  ].filter(Boolean).join(" · "));
}

/** Other tasks by name, each with its sign. @param {string} name @param {string} none */
function linkList(name, none) {
  const list = h("ul", { class: "panel-links" });
  const words = h("p", { class: "none small" }, none);
  const element = h("section", {}, h("h3", {}, name), list, words);
  /** @param {string[]} ids @param {Model} model @param {(task: string) => string} hrefOf @param {Set<string>} open */
  function show(ids, model, hrefOf, open) {
    const shown = ids.slice(0, MOST_LINKS);
    syncChildren(list, shown, (id) => id, (id) => h("li", {}, h("span", {}), h("a", { class: "mono id" }, id), h("span", { class: "small quiet" })), (item, id) => {
      setAttribute(item.children[1], "href", hrefOf(id));
      const state = model.tasks.get(id)?.state;
      if (item.getAttribute("data-status") !== statusOf(state)) item.firstElementChild.replaceChildren(sign(state));
      setAttribute(item, "data-status", statusOf(state));
      setText(item.lastElementChild, statusText(state) + (open.has(id) && statusOf(state) !== "done" ? ", waited for" : ""));
    });
    setText(words, ids.length > shown.length ? `and ${countText(ids.length - shown.length)} more` : none);
    words.hidden = ids.length > 0 && ids.length <= shown.length;
  }
  return { element, show };
}
