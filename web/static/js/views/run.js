// @ts-check
// One run: how it stands and why, its files, where it comes from and what it has started.

import { commandOptions, retryRun, stopRun } from "../actions.js";
import { addresses, get, getIfThere } from "../api.js";
import { h, setText } from "../dom.js";
import { everySecond, keepFresh } from "../live.js";
import { LogView } from "../log/log_view.js";
import { heading, problem, trail } from "../parts.js";
import { links } from "../router.js";
import { linesForRun, makeAdvice } from "../run/advice.js";
import { makeChecks } from "../run/checks.js";
import { detailsOf, makeFacts, summaryOf } from "../run/facts.js";
import { makeFamily } from "../run/family.js";
import { lastMessages } from "../run/messages.js";
import { badge, setBadge } from "../states.js";

/** @param {import("../router.js").Place} place @returns {import("../main.js").View} */
export function openRun(place) {
  const view = new RunView(place);
  return {
    element: view.element,
    title: place.run,
    up: place.project && place.task ? links.task(place.project, place.task) : links.runs(),
    close: () => view.close(),
    update: (now) => view.update(now),
    keys: view.log.keys,
  };
}

class RunView {
  /** @param {import("../router.js").Place} place */
  constructor(place) {
    this.place = place;
    this.project = place.project;
    this.task = place.task;
    /** @type {any} */
    this.run = null;
    /** @type {any} */
    this.family = null;
    /** @type {any} what its plan knows of it */
    this.attempt = null;
    /** @type {Set<string>} */
    this.relatives = new Set([place.run]);
    /** @type {string[]} */
    this.options = [];
    /** @type {(() => void)[]} */
    this.ends = [];

    this.log = new LogView(place.run, (query) => links.run(place.project, place.task, place.run, query));
    this.parts = makeParts(place, this.log.element, () => this.ids());
    this.element = this.parts.element;
    const keeper = keepFresh((signal) => this.load(signal), {
      wants: (change) => change.runs.some((run) => this.relatives.has(run))
        || (this.run?.status === "running" && change.projects.includes(this.project)),
      onRefused: (error) => this.parts.problem.show(`${error.message}.`),
    });
    const fit = () => this.fit();
    window.addEventListener("resize", fit);
    this.ends.push(() => window.removeEventListener("resize", fit));
    this.ends.push(() => keeper.stop(), everySecond(() => this.showFacts()), () => this.log.close());
    commandOptions().then((options) => {
      this.options = options;
      this.showFacts();
    });
  }

  /** The files are as high as the window has room for. */
  fit() {
    const top = this.parts.columns.getBoundingClientRect().top + window.scrollY;
    this.parts.columns.style.setProperty("--columns-top", `${Math.round(top)}px`);
  }

  ids() {
    return { run_id: this.place.run, project_id: this.project, task_id: this.task };
  }

  /** @param {AbortSignal} signal */
  async load(signal) {
    const { run } = this.place;
    if (!this.project || !this.task) await this.findPlace(signal);
    const [detail, family] = await Promise.all([
      get(addresses.run(this.project, this.task, run), signal), get(addresses.family(run), signal),
    ]);
    const isChanged = detail.status !== this.run?.status;
    this.run = detail;
    this.family = family;
    this.relatives = new Set([run, ...idsOf(family.chain), ...idsOf(family.parents), ...idsOf(family.children)]);
    this.parts.problem.show("");
    if (family.plan_task && isChanged) await this.askPlan(signal);
    this.show();
    this.log.setFiles(family.files, detail.status === "running", family.agent);
    if (!this.log.name) await this.log.show(this.place.query); // the line of the address is gone to once
    await this.parts.checks.show(family.files, signal);
  }

  /** Of a run by its id alone. @param {AbortSignal} signal */
  async findPlace(signal) {
    const found = await get(addresses.family(this.place.run), signal);
    this.project = found.project_id;
    this.task = found.task_id;
    this.parts.trail.replaceChildren(trail({ project: this.project, task: this.task, run: this.place.run }));
  }

  /** @param {AbortSignal} signal */
  async askPlan(signal) {
    const plan = await getIfThere(addresses.plan(this.project), signal);
    const runs = (plan?.tasks ?? []).flatMap((/** @type {any} */ task) => task.runs ?? []);
    this.attempt = runs.find((/** @type {any} */ run) => run.run_id === this.place.run) ?? null;
  }

  show() {
    const { run, family } = this;
    if (!this.parts.messages.firstChild && this.task) {
      const messages = lastMessages(this.project, this.task);
      this.parts.messages.append(messages.element);
      this.ends.push(messages.close);
    }
    const isLive = run.status === "running";
    this.parts.badge.hidden = false;
    setBadge(this.parts.badge, run.status);
    this.parts.stop.hidden = !isLive;
    this.parts.retry.hidden = isLive;
    const why = family.reason || run.error_summary || run.reason || this.attempt?.why || "";
    setText(this.parts.why, why);
    this.parts.why.hidden = !why;
    this.parts.why.dataset.status = isLive || run.status === "completed" ? "" : "failed";
    this.parts.kin.show(family);
    this.showFacts();
    this.parts.columns.hidden = false;
    this.fit();
  }

  /** What time alone changes, too. */
  showFacts() {
    if (!this.run) return;
    this.parts.summary.show(summaryOf(this.run, this.family, this.attempt));
    this.parts.details.show(detailsOf(this.run, this.family));
    this.parts.advice.show(linesForRun(this.place.run, this.run.status === "running", this.options));
  }

  /** @param {import("../router.js").Place} place */
  update(place) {
    this.place = place;
    this.log.show(place.query);
    return true;
  }

  close() {
    this.ends.forEach((end) => end());
  }
}

/** @param {{run_id: string, children?: any[]}[]} links @returns {string[]} */
const idsOf = (links) => links.flatMap((link) => [link.run_id, ...idsOf(link.children ?? [])]);

/** @param {import("../router.js").Place} place @param {HTMLElement} log @param {() => any} ids of this run */
function makeParts(place, log, ids) {
  const parts = {
    badge: badge(""),
    stop: h("button", { type: "button", class: "danger", hidden: true, onclick: () => stopRun(ids()) }, "Stop"),
    retry: h("button", { type: "button", hidden: true, onclick: () => retryRun(ids()) }, "Retry"),
    problem: problem(),
    why: h("p", { class: "why", hidden: true }),
    summary: makeFacts("strip"),
    details: makeFacts("facts"),
    kin: makeFamily(place.run),
    checks: makeChecks(place.run, links.run(place.project, place.task, place.run, { file: "verify.txt" })),
    advice: makeAdvice("In a terminal"),
    messages: h("div", {}),
    trail: h("div", {}, trail(place)),
  };
  parts.badge.hidden = true;
  const aside = h("div", { class: "run-aside" },
    parts.kin.elements, parts.checks.element, parts.messages,
    h("section", {}, h("h2", {}, "Details"), parts.details.element), parts.advice.element);
  const columns = h("div", { class: "run-columns", hidden: true }, log, aside);
  const element = h("div", { class: "run-view" },
    parts.trail, heading(place.run, [parts.badge], [parts.retry, parts.stop]),
    parts.problem.element, parts.why, parts.summary.element,
    columns);
  return { ...parts, columns, element };
}
