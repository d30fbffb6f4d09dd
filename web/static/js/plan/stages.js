// @ts-check
// The stages of a plan as columns of cards; a barrier is a line between two of them.

import { h, setAttribute, setText, syncChildren } from "../dom.js";
import { counted, countText, moneyText } from "../figures.js";
import { badge, setBadge, sign, statusText } from "../states.js";
import { now } from "../times.js";
import { countStates, tookText } from "./model.js";

/** @typedef {import("./model.js").Model} Model */
/** @typedef {import("./model.js").Stage} Stage */
/** @typedef {import("./model.js").Task} Task */
/** What a tab is given. @typedef {{hrefOf: (task: string) => string, isShown: (task: Task) => boolean,
 *   open: string}} Choice hrefOf: where a task opens; open: the one that does */

const MOST_CARDS = 400; // of all stages, until one asks for more
const LEAST_CARDS = 4;

export class Stages {
  constructor() {
    /** @type {Element | null} */
    this.tools = null;
    this.element = h("div", { class: "stages-box", tabindex: -1 });
    this.list = h("ol", { class: "stages" });
    this.element.append(this.list);
    /** @type {Map<string, number>} how many cards somebody has asked for */
    this.asked = new Map();
    /** @type {WeakMap<Element, Card>} */
    this.cards = new WeakMap();
    /** @type {Map<string, Card>} */
    this.running = new Map();
  }

  /** @param {Model} model @param {Choice} choice */
  show(model, choice) {
    this.running.clear();
    const most = Math.max(LEAST_CARDS, Math.floor(MOST_CARDS / Math.max(1, model.stages.length)));
    syncChildren(this.list, model.stages, (stage) => stage.id, (stage) => this.makeStage(stage, model, choice),
      (element, stage) => this.showStage(element, stage, model, choice, this.asked.get(stage.id) ?? most));
  }

  tick() {
    for (const card of this.running.values()) card.tick();
  }

  close() {}

  /** @param {Stage} stage @param {Model} model @param {Choice} choice */
  makeStage(stage, model, choice) {
    const more = h("button", { type: "button", class: "plain", hidden: true });
    const element = h("li", { class: "stage" },
      h("div", { class: "stage-head" }, h("h2", {}), badge("pending"), h("p", { class: "quiet small" })),
      h("ol", { class: "cards" }), more,
      h("p", { class: "barrier" }, h("span", {}, "barrier")));
    more.addEventListener("click", () => {
      this.asked.set(stage.id, (this.asked.get(stage.id) ?? element.querySelectorAll(".task-card").length) + 200);
      this.last && this.show(this.last.model, this.last.choice);
    });
    this.last = { model, choice };
    return element;
  }

  /** @type {{model: Model, choice: Choice} | undefined} */
  last;

  /** @param {Element} element @param {Stage} stage @param {Model} model @param {Choice} choice @param {number} most */
  showStage(element, stage, model, choice, most) {
    this.last = { model, choice };
    const [head, cards, more, barrier] = element.children;
    const shown = stage.tasks.filter(choice.isShown);
    const first = shown.length > most ? pressing(shown, most) : shown;
    setText(head.children[0], stage.title || stage.id || "Tasks");
    setAttribute(head.children[0], "title", stage.id);
    setBadge(head.children[1], stage.state || "pending", stageText(stage));
    setText(head.children[2], countsText(stage, shown.length));
    setAttribute(element, "data-open", String(stage.is_open));
    syncChildren(cards, first, (task) => task.id, (task) => this.makeCard(task), (card, task) => this.showCard(card, task, choice));
    setAttribute(more, "hidden", first.length < shown.length ? null : "");
    setText(more, `${countText(shown.length - first.length)} more`);
    setAttribute(barrier, "hidden", stage.barrier && stage !== model.stages[model.stages.length - 1] ? null : "");
    setAttribute(barrier, "title", "The stages after it wait until all of this one has ended.");
  }

  /** @param {Task} task */
  makeCard(task) {
    const card = new Card(task);
    this.cards.set(card.element, card);
    return card.element;
  }

  /** @param {Element} element @param {Task} task @param {Choice} choice */
  showCard(element, task, choice) {
    const card = /** @type {Card} */ (this.cards.get(element));
    card.show(task, choice);
    if (task.status === "running") this.running.set(task.id, card);
  }
}

/** What needs a look comes first where not all can be shown. @param {Task[]} tasks @param {number} most */
function pressing(tasks, most) {
  const order = Object.keys(countStates(tasks));
  const chosen = new Set([...tasks].sort((one, other) => order.indexOf(one.status) - order.indexOf(other.status)).slice(0, most));
  return tasks.filter((task) => chosen.has(task));
}

/** @param {Stage} stage */
function stageText(stage) {
  if (stage.is_open || stage.state !== "pending") return statusText(stage.state || "pending");
  return "behind a barrier";
}

/** @param {Stage} stage @param {number} shown */
function countsText(stage, shown) {
  const counts = Object.entries(countStates(stage.tasks.filter((task) => task.in_scope)));
  const total = stage.tasks.length;
  const done = counts.find(([status]) => status === "done")?.[1] ?? 0;
  const bad = counts.filter(([status]) => status === "failed" || status === "blocked").map(([status, count]) => `, ${count} ${status}`).join("");
  return `${done} of ${total} done${bad}${shown < total ? ` · ${shown} shown` : ""}`;
}

/** One task. */
class Card {
  /** @param {Task} task */
  constructor(task) {
    this.task = task;
    this.sign = h("span", { class: "card-sign" });
    this.id = h("span", { class: "clip mono" });
    this.title = h("span", { class: "card-title" });
    this.facts = h("span", { class: "card-facts small quiet" });
    this.why = h("span", { class: "card-why small" });
    this.word = h("span", { class: "away" });
    this.link = h("a", { class: "task-card", "data-row": "" },
      h("span", { class: "card-head" }, this.sign, this.id, this.word), this.title, this.facts, this.why);
    this.element = h("li", {}, this.link);
  }

  /** @param {Task} task @param {Choice} choice */
  show(task, choice) {
    this.task = task;
    const { link } = this;
    if (link.getAttribute("data-status") !== task.status) this.sign.replaceChildren(sign(task.state));
    setAttribute(link, "data-status", task.status);
    setAttribute(link, "data-task", task.id);
    setAttribute(link, "href", choice.hrefOf(task.id));
    setAttribute(link, "aria-current", choice.open === task.id ? "true" : null);
    setAttribute(link, "data-unscoped", task.in_scope ? null : "");
    setText(this.id, task.id);
    setAttribute(this.id, "title", task.id);
    setText(this.word, ` ${statusText(task.state)}`);
    setText(this.title, task.title === task.id ? "" : task.title);
    setText(this.why, whyText(task));
    setAttribute(this.why, "title", task.why);
    this.tick();
  }

  tick() {
    setText(this.facts, factsText(this.task));
  }
}

/** Why it is not done; of one that is nothing. @param {Task} task */
function whyText(task) {
  if (!task.in_scope) return "not chosen at the last start";
  return task.status === "done" ? "" : task.why;
}

/** Agent, time, attempt and cost, as far as there are any. @param {Task} task */
function factsText(task) {
  const agents = (task.agents_used.length ? task.agents_used : task.agents_asked.slice(0, 1)).filter(Boolean);
  return [
    agents.length > 2 ? counted(agents.length, "agent") : agents.join(", "),
    tookText(task, now()),
    task.tries > 1 ? `attempt ${task.tries}` : "",
    task.cost_usd ? moneyText(task.cost_usd, task.cost_estimated) : "",
  ].filter(Boolean).map((part) => String(part).replaceAll(" ", "\u00a0")).join(" · ");
}
