// @ts-check
// A plan: its stages, the graph of what needs what, and its timeline; a task opens in place.

import { addresses, get } from "../api.js";
import { h, setAttribute, setText } from "../dom.js";
import { counted } from "../figures.js";
import { setAddress, wordField } from "../lists/filters.js";
import { everySecond, keepFresh } from "../live.js";
import { command, tabs } from "../parts.js";
import { Graph, MOST_NODES, tooLarge } from "../plan/graph.js";
import { Head } from "../plan/head.js";
import { attemptsOf, isChosen, modelOf } from "../plan/model.js";
import { Stages } from "../plan/stages.js";
import { Panel } from "../plan/task_panel.js";
import { Timeline } from "../plan/timeline.js";
import { links } from "../router.js";
import { makeUsageCharts } from "../run/usage_chart.js";
import { now } from "../times.js";

/** @typedef {import("../router.js").Place} Place */
/** @typedef {import("../plan/model.js").Model} Model */

const TABS = new Map([["stages", "Stages"], ["graph", "Graph"], ["timeline", "Timeline"]]);
const OLD_MS = 15_000; // sentences tell how long something takes: of a plan that is run they are asked for again
const NARROW = matchMedia("(max-width: 64rem)"); // as in plan.css: a task lies over the plan

/** @param {Place} place @returns {import("../main.js").View} */
export function openPlan(place) {
  const view = new PlanView(place);
  return {
    element: view.element,
    title: `Plan of ${place.project}`,
    up: links.project(place.project),
    update: (next) => view.update(next),
    close: () => view.close(),
    get keys() {
      return view.keys();
    },
  };
}

/** The attempts of a plan, as a chart of what was used takes them. @param {Model} model */
const usedBy = ({ tasks }) => [...tasks.values()].filter((task) => task.in_scope).flatMap(attemptsOf)
  .map(({ started, ended, cost_usd, cost_estimated, input_tokens, output_tokens }) =>
    ({ start_time: started ?? "", end_time: ended ?? "", cost_usd, cost_estimated, input_tokens, output_tokens }));

class PlanView {
  /** @param {Place} place */
  constructor({ project, query }) {
    this.project = project;
    this.query = query;
    this.head = new Head(project, (state) => this.href({ state }));
    this.nav = h("div", {});
    this.filter = this.makeFilter();
    this.content = h("div", { class: "plan-content" });
    this.panel = new Panel(project, () => this.closeTask(), (task) => this.href({ task }));
    this.usage = makeUsageCharts();
    this.main = h("div", { class: "plan-main" }, this.nav, this.filter.element, this.content, this.usage.element);
    this.body = h("div", { class: "plan-body", hidden: true }, this.main, this.panel.element);
    this.element = h("div", { class: "plan-view" }, this.head.element, this.body);
    /** @type {HTMLElement | null} */
    this.opener = null;
    this.keeper = keepFresh((signal) => this.load(signal), {
      wants: (change) => change.plans.includes(project) || change.runs.some((run) => this.model?.runIds.has(run)),
      onRefused: (error) => this.refuse(error),
    });
    this.stopClock = everySecond(() => this.tick());
    this.onWidth = () => this.cover();
    NARROW.addEventListener("change", this.onWidth);
    this.showTab();
  }

  /** @type {Model | undefined} */
  model;

  /** @param {AbortSignal} signal */
  async load(signal) {
    const plan = await get(addresses.plan(this.project), signal);
    this.model = modelOf(plan, now());
    this.body.hidden = false;
    this.show();
  }

  /** @param {import("../api.js").Refused} error */
  refuse(error) {
    this.body.hidden = true;
    this.model = undefined;
    this.cover();
    this.head.refuse(error.status === 404 ? `The project ${this.project} has no plan.` : error.message,
      error.status === 404 ? command("./run-all-tasks.py plan.yaml") : null);
  }

  // ---- what the address says

  get tab() {
    const named = this.query.get("tab") ?? "";
    return TABS.has(named) ? named : "stages";
  }

  get task() {
    return this.query.get("task") ?? "";
  }

  /** This place with other values. @param {Record<string, string>} other */
  href(other) {
    const tab = this.query.get("tab");
    const kept = { tab, q: this.query.get("q"), state: this.query.get("state"), task: this.task };
    return links.plan(this.project, { ...kept, ...other });
  }

  /** @param {Place} place */
  update({ query }) {
    const [tab, task] = [this.tab, this.task];
    if (task !== (query.get("task") ?? "") && !this.panel.element.contains(document.activeElement)) {
      this.opener = /** @type {HTMLElement | null} */ (document.activeElement);
    }
    this.query = query;
    if (tab !== this.tab) this.showTab();
    this.show();
    if (task !== this.task) this.moveFocus();
    return true;
  }

  // ---- tabs

  showTab() {
    this.shown?.close();
    this.shown = undefined;
    this.content.replaceChildren();
  }

  /** @type {Stages | Graph | Timeline | undefined} */
  shown;

  /** @param {Model} model */
  contentFor(model) {
    const isLarge = this.tab === "graph" && model.tasks.size > MOST_NODES;
    const Kind = this.tab === "timeline" ? Timeline : this.tab === "graph" && !isLarge ? Graph : Stages;
    if (this.shown instanceof Kind) return this.shown;
    this.shown?.close();
    this.shown = new Kind();
    this.filter.tools.replaceChildren(...(this.shown.tools ? [this.shown.tools] : []));
    this.content.replaceChildren(...(isLarge ? [tooLarge(model.tasks.size)] : []), this.shown.element);
    return this.shown;
  }

  show() {
    const { model } = this;
    if (!model) return;
    const began = performance.now();
    this.head.show(model, this.query.get("state") ?? "");
    this.showNav();
    this.showFilter(model);
    this.panel.show(model, this.task);
    setAttribute(this.body, "data-open", this.task ? "" : null);
    this.contentFor(model).show(model, {
      hrefOf: (task) => this.href({ task }),
      isShown: (task) => isChosen(task, (this.query.get("q") ?? "").toLowerCase(), this.query.get("state") ?? ""),
      open: this.task,
    });
    this.usage.show(usedBy(model));
    this.cover();
    performance.measure("plan", { start: began });
  }

  showNav() {
    const made = tabs("Ways to see the plan", [...TABS].map(([tab, words]) => [words, this.href({ tab }), tab === this.tab]));
    const shown = this.nav.firstElementChild;
    if (!shown) return this.nav.append(made);
    [...made.children].forEach((link, at) => {
      setAttribute(shown.children[at], "href", link.getAttribute("href"));
      setAttribute(shown.children[at], "aria-current", link.getAttribute("aria-current"));
    });
  }

  tick() {
    const { model } = this;
    if (!model) return;
    this.head.tick(model);
    this.shown?.tick();
    this.panel.tick();
    if (model.isRun && now() - model.readMs > OLD_MS) this.keeper.refresh();
  }

  // ---- the filter

  makeFilter() {
    const words = wordField("Filter tasks by name, title, agent or reason", "Filter tasks", (text) => {
      this.query.set("q", text);
      setAddress(this.href({}));
      this.show();
    });
    words.set(this.query.get("q") ?? "");
    const count = h("span", { class: "quiet small", role: "status" });
    const tools = h("div", { class: "plan-tools" });
    return { element: h("div", { class: "tools plan-filter" }, words.element, count, tools), words, count, tools };
  }

  /** @param {Model} model */
  showFilter(model) {
    const [text, state] = [this.query.get("q") ?? "", this.query.get("state") ?? ""];
    if (document.activeElement !== this.filter.words.element) this.filter.words.set(text);
    const shown = [...model.tasks.values()].filter((task) => isChosen(task, text.toLowerCase(), state)).length;
    setText(this.filter.count, text || state ? `${shown} of ${counted(model.tasks.size, "task")}` : "");
  }

  // ---- a task that is opened

  closeTask() {
    location.hash = this.href({ task: "" });
  }

  moveFocus() {
    if (this.task) {
      this.panel.element.scrollTop = 0;
      return this.panel.id.focus();
    }
    const { opener } = this;
    const again = this.content.querySelector(`[data-task="${CSS.escape(opener?.dataset.task ?? "")}"]`);
    const target = opener?.isConnected ? opener : again;
    if (target instanceof HTMLElement || target instanceof SVGElement) target.focus({ preventScroll: true });
  }

  /** On a narrow screen the task lies over the rest, which then cannot be reached. */
  cover() {
    const isCovered = NARROW.matches && this.task !== "" && !this.body.hidden;
    this.main.inert = this.head.element.inert = isCovered;
    setCovered(isCovered);
  }

  keys() {
    /** @type {import("../keys.js").KeyMap} */
    const keys = {};
    if (this.task) keys.Escape = ["close the task", () => this.closeTask()];
    return keys;
  }

  close() {
    this.keeper.stop();
    this.stopClock();
    this.shown?.close();
    this.filter.words.close();
    NARROW.removeEventListener("change", this.onWidth);
    setCovered(false);
  }
}

/** The frame of the page lies behind the task, too. @param {boolean} isCovered */
function setCovered(isCovered) {
  document.body.classList.toggle("is-covered", isCovered);
  document.querySelector(".bar")?.toggleAttribute("inert", isCovered);
}
