// @ts-check
// The head of a plan: how it stands as a whole, what it has used, and what can be done.

import * as actions from "../actions.js";
import { h, setAttribute, setText, syncChildren } from "../dom.js";
import { counted, countText, moneyText, tokensText } from "../figures.js";
import { progress } from "../lists/progress.js";
import { heading, problem, trail } from "../parts.js";
import { badge, setBadge, sign, statusOf } from "../states.js";
import { clockText, dateText, msOf, now, secondsText, spanText } from "../times.js";

/** @typedef {import("./model.js").Model} Model */

const FIGURES = /** @type {const} */ (["elapsed", "left", "tokens", "cost", "parallel"]);
const NAMES = { elapsed: "Elapsed", left: "Time left", tokens: "Tokens in / out", cost: "Cost", parallel: "At once" };
const LEFT_OVER = ["pending", "waiting", "quota", "running"];

export class Head {
  /** @param {string} project @param {(status: string) => string} hrefOf the place with tasks of a state only */
  constructor(project, hrefOf) {
    this.project = project;
    this.hrefOf = hrefOf;
    this.state = badge("", "…");
    this.buttons = this.makeButtons();
    this.problem = problem();
    this.shares = progress();
    this.shares.element.hidden = true;
    this.counts = h("ul", { class: "plan-counts", "aria-label": "Tasks by state" });
    this.notes = h("ul", { class: "plan-notes" });
    this.figures = Object.fromEntries(FIGURES.map((name) => [name, h("dd", {}, "–")]));
    this.facts = h("dl", { class: "plan-figures", hidden: true },
      FIGURES.map((name) => h("div", {}, h("dt", {}, NAMES[name]), this.figures[name])));
    this.heading = heading(project, [this.state], Object.values(this.buttons));
    this.title = /** @type {HTMLElement} */ (this.heading.querySelector("h1"));
    this.element = h("header", { class: "plan-top" },
      trail({ project }), this.heading, this.problem.element,
      this.facts, this.shares.element, this.counts, this.notes);
  }

  makeButtons() {
    const { project } = this;
    /** @param {string} words @param {string} name @param {() => unknown} act */
    const button = (words, name, act) => h("button", { type: "button", class: name, hidden: true, onclick: act }, words);
    return {
      go: button("Continue", "first", () => actions.startPlan(project, { count: this.left })),
      retry: button("Retry failed", "", () => actions.startPlan(project, { retryFailed: true, count: this.failed })),
      stop: button("Stop", "danger", () => actions.stopPlan(project)),
    };
  }

  left = 0;
  failed = 0;

  /** In place of a plan. @param {string} text @param {Element | null} help */
  refuse(text, help) {
    setBadge(this.state, "pending", "no plan");
    this.problem.show(text);
    if (help) this.problem.element.append(" Begin one in a terminal: ", help);
    for (const element of [...Object.values(this.buttons), this.facts, this.shares.element]) setAttribute(element, "hidden", "");
    for (const element of [this.counts, this.notes]) element.replaceChildren();
  }

  /** @param {Model} model @param {string} status the one that is chosen, or "" */
  show(model, status) {
    const { plan, counts } = model;
    setText(this.title, plan.title || this.project);
    setBadge(this.state, plan.state);
    this.problem.show(plan.problem ? `The state of this plan cannot be read: ${plan.problem}` : "");
    this.left = LEFT_OVER.reduce((sum, name) => sum + (counts[name] ?? 0), 0);
    this.failed = (counts.failed ?? 0) + (counts.blocked ?? 0);
    setAttribute(this.buttons.stop, "hidden", model.isRun ? null : "");
    setAttribute(this.buttons.go, "hidden", !model.isRun && this.left ? null : "");
    setAttribute(this.buttons.retry, "hidden", !model.isRun && this.failed ? null : "");
    this.showCounts(model, status);
    this.showFigures(model);
    this.showNotes(model);
  }

  /** @param {Model} model @param {string} chosen */
  showCounts({ plan, counts }, chosen) {
    const found = Object.entries(counts);
    this.shares.element.hidden = !found.length;
    this.shares.update(counts, plan.total);
    syncChildren(this.counts, found, ([status]) => status, makeCount, (element, [status, count]) => {
      const link = element.firstElementChild;
      setText(link.lastElementChild, `${countText(count)} ${status}`);
      setAttribute(link, "href", this.hrefOf(chosen === status ? "" : status));
      setAttribute(link, "aria-current", chosen === status ? "true" : null);
      setAttribute(link, "title", chosen === status ? "Show all tasks" : "Show only these");
    });
  }

  /** @param {Model} model */
  showFigures(model) {
    const { plan } = model;
    const without = plan.runs_without_cost ? ` + ${counted(plan.runs_without_cost, "run")} without cost` : "";
    setText(this.figures.tokens, `${tokensText(plan.input_tokens)} / ${tokensText(plan.output_tokens)}`);
    setAttribute(this.figures.tokens, "title", plan.totals.tokens_text);
    setText(this.figures.cost, moneyText(plan.cost_usd, plan.cost_estimated) + without);
    setAttribute(this.figures.cost, "title", plan.totals.cost_text);
    setText(this.figures.parallel, plan.max_parallel === null ? "–" : `up to ${counted(plan.max_parallel, "agent")}`);
    setAttribute(this.facts, "hidden", null);
    this.tick(model);
  }

  /** What time alone changes. @param {Model} model */
  tick(model) {
    const { plan } = model;
    if (plan.quota_waits.length) this.showNotes(model);
    const end = model.isRun ? null : plan.ended ?? plan.timeline.end;
    const hasBegun = !Number.isNaN(msOf(plan.started ?? plan.timeline.start));
    setText(this.figures.elapsed, hasBegun ? spanText(plan.started ?? plan.timeline.start, end) : "–");
    setAttribute(this.figures.elapsed, "title", hasBegun ? `since ${dateText(plan.started)}` : "not begun");
    setText(this.figures.left, leftText(model));
    /** @type {HTMLElement} */ (this.figures.left.parentElement).hidden = !model.isRun || plan.seconds_left === null;
  }

  /** The sentences that hold for the plan as a whole. @param {Model} model */
  showNotes({ plan }) {
    const waits = plan.quota_waits.map((/** @type {any} */ wait) => ({ key: wait.key, status: "quota", text: waitText(wait), title: wait.why }));
    const hold = plan.hold ? [{ key: "\u0000hold", status: "waiting", text: plan.hold, title: "" }] : [];
    const unread = plan.is_plan_known === false && plan.tasks.length
      ? [{ key: "\u0000plan", status: "unknown", text: "The file of the plan is gone or another one: stages and what tasks need are not known.", title: plan.plan }] : [];
    syncChildren(this.notes, [...hold, ...waits, ...unread], (note) => note.key,
      (note) => h("li", { "data-status": note.status }, sign(note.status), h("span", {})),
      (element, note) => {
        setText(element.lastElementChild, note.text);
        setAttribute(element, "title", note.title);
      });
  }
}

/** @param {[string, number]} item */
function makeCount([status]) {
  return h("li", {}, h("a", { class: "badge", "data-status": statusOf(status) }, sign(status), h("span", {})));
}

/** The server's estimate, less what has passed since. @param {Model} model */
function leftText(model) {
  const seconds = model.plan.seconds_left;
  if (!model.isRun || seconds === null) return "–";
  const left = seconds - (now() - model.readMs) / 1000;
  return left < 1 ? "about to end" : `about ${secondsText(left)}`;
}

/** @param {any} wait */
function waitText({ key, until, tasks }) {
  const when = until ? ` until ${clockText(until)} (${Date.parse(until) > now() ? `in ${secondsText((Date.parse(until) - now()) / 1000)}` : "now due"})` : "";
  return `Quota of ${key} is used up${when}: ${tasks.length ? `${counted(tasks.length, "task")} ${tasks.length === 1 ? "waits" : "wait"}` : "no task waits for it"}.`;
}
