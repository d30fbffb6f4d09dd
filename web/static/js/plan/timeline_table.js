// @ts-check
// The timeline as a table.

import { h, setAttribute, setText, syncChildren } from "../dom.js";
import { countText } from "../figures.js";
import { badge, setBadge, statusText } from "../states.js";
import { clockText, dateText, now } from "../times.js";
import { spanOf, tookText } from "./model.js";

/** @typedef {import("./bars.js").Row} Row */
/** @typedef {import("./stages.js").Choice} Choice */

const PAGE = 200;

export class Table {
  constructor() {
    this.body = h("tbody", {});
    this.more = h("button", { type: "button", onclick: () => this.showMore() });
    this.count = PAGE;
    this.element = h("div", { class: "table-box", hidden: true },
      h("table", {},
        h("caption", { class: "away" }, "The tasks of the plan and their times"),
        h("thead", {}, h("tr", {}, ["Task", "Stage", "State"].map((name) => h("th", { scope: "col" }, name)),
          ["Started", "Ended", "Took", "Attempts"].map((name) => h("th", { scope: "col", class: "number" }, name)), h("th", { scope: "col" }, "Critical"))),
        this.body),
      this.more);
  }

  /** @type {[import("./model.js").Model, Row[], Choice] | undefined} */
  last;

  /** @param {import("./model.js").Model} model @param {Row[]} rows @param {Choice} choice */
  show(model, rows, choice) {
    this.last = [model, rows, choice];
    const tasks = rows.filter((row) => row.task);
    syncChildren(this.body, tasks.slice(0, this.count), (row) => row.key, makeRow, (element, row) => showRow(element, row, choice));
    this.more.hidden = tasks.length <= this.count;
    setText(this.more, `${countText(tasks.length - this.count)} more`);
  }

  showMore() {
    this.count += 5 * PAGE;
    if (this.last) this.show(...this.last);
  }
}

/** @param {Row} row */
function makeRow({ task }) {
  const times = [0, 1].map(() => h("td", { class: "number" }, h("time", {})));
  return h("tr", { "data-row": "" }, h("th", { scope: "row" }, h("a", { class: "mono id", "data-task": task?.id }, task?.id)), h("td", {}),
    h("td", {}, badge("pending")), times, h("td", { class: "number" }), h("td", { class: "number" }), h("td", {}));
}

/** @param {Element} element @param {Row} row @param {Choice} choice */
function showRow(element, { task, stage }, choice) {
  if (!task) return;
  const [name, of, state, started, ended, took, attempts, critical] = element.children;
  const span = spanOf(task, now());
  const isOpen = task.status === "running";
  setAttribute(name.children[0], "href", choice.hrefOf(task.id));
  setText(of, stage.title || stage.id);
  setBadge(state.children[0], task.state, statusText(task.state));
  showTime(started.children[0], span?.start);
  showTime(ended.children[0], isOpen ? undefined : span?.end);
  setText(took, tookText(task, now()) || "–");
  setText(attempts, countText(task.tries));
  setText(critical, task.isCritical ? "yes" : "");
}

/** @param {Element} element @param {number | undefined} ms */
function showTime(element, ms) {
  const text = ms === undefined ? null : new Date(ms).toISOString();
  setText(element, clockText(text));
  setAttribute(element, "datetime", text);
  setAttribute(element, "title", text && dateText(text));
}
