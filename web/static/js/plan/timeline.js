// @ts-check
// The timeline of a plan: a row for each task, a bar for each attempt.
//
// Only the rows that are seen are in the page, however many tasks there are.  The names lie in a
// column that stays at the left while the bars scroll sideways.

import { h, setAttribute, setText, svg, syncChildren } from "../dom.js";
import { counted } from "../figures.js";
import { badge, setBadge, sign, statusText } from "../states.js";
import { now } from "../times.js";
import { domainOf, rowsOf } from "./bars.js";
import { roomyEnd, stepOf, ticksOf, tickText, xOf } from "./scale.js";
import { drawRow, RIGHT } from "./timeline_row.js";
import { Table } from "./timeline_table.js";

/** @typedef {import("./model.js").Model} Model */
/** @typedef {import("./bars.js").Row} Row */
/** @typedef {import("./scale.js").Axis} Axis */
/** @typedef {import("./stages.js").Choice} Choice */

const ROWS = { usual: 28, phone: 40 }; // px: a finger needs more
const PHONE = matchMedia("(max-width: 45rem)");
const AXIS = 28;
const SPARE = 6; // rows above and below those that are seen
const MOST_WIDTH = 60_000;

export class Timeline {
  constructor() {
    this.axis = svg("svg", { class: "axis", height: AXIS, "aria-hidden": "true" });
    this.labels = h("ol", { class: "labels", role: "list", "aria-label": "Tasks in order of their stages" });
    this.bars = svg("svg", { class: "bars", "aria-hidden": "true" });
    this.body = h("div", { class: "timeline-body" }, this.labels, this.bars);
    this.canvas = h("div", { class: "timeline-canvas" }, h("div", { class: "timeline-top" }, h("span", { class: "corner small quiet" }), this.axis), this.body);
    this.box = h("div", { class: "timeline-box", tabindex: 0, role: "region", "aria-label": "Timeline, scrolls" }, this.canvas);
    this.none = h("p", { class: "none", hidden: true });
    this.table = new Table();
    this.buttons = this.makeButtons();
    this.tools = this.buttons.element;
    this.element = h("div", {}, this.none, this.box, this.table.element);
    this.row = ROWS.usual;
    this.factor = 1; // 1: all of it fits
    this.right = 0; // ms: where the axis ends while now moves
    /** @type {Row[]} */
    this.rows = [];
    this.box.addEventListener("scroll", () => this.draw());
    this.sizes = new ResizeObserver(() => this.draw());
    this.sizes.observe(this.box);
  }

  makeButtons() {
    /** @param {string} words @param {string} name @param {() => void} act */
    const button = (words, name, act) => h("button", { type: "button", "aria-label": name || null, title: name || null, onclick: act }, words);
    const fit = button("Fit", "", () => this.zoom(0));
    const table = h("button", { type: "button", "aria-pressed": "false", onclick: () => this.toggleTable() }, "As a table");
    const element = h("div", { class: "plan-tools" }, fit,
      button("−", "Zoom out", () => this.zoom(0.5)), button("+", "Zoom in", () => this.zoom(2)), table, legend());
    return { element, fit, table };
  }

  /** @param {Model} model @param {Choice} choice */
  show(model, choice) {
    this.model = model;
    this.choice = choice;
    this.rows = rowsOf(model, choice.isShown);
    this.draw();
    if (this.isTable) this.table.show(model, this.rows, choice);
  }

  tick() {
    if (this.model && domainOf(this.model, now())?.isOpen) this.draw();
  }

  close() {
    this.sizes.disconnect();
  }

  /** @type {Model | undefined} */
  model;
  /** @type {Choice | undefined} */
  choice;
  isTable = false;

  toggleTable() {
    this.isTable = !this.isTable;
    setAttribute(this.buttons.table, "aria-pressed", String(this.isTable));
    this.table.element.hidden = !this.isTable;
    if (this.model && this.choice) this.show(this.model, this.choice);
  }

  /** The middle of what is seen stays where it is. @param {number} by 0: all of it */
  zoom(by) {
    const { box } = this;
    const seen = box.clientWidth - this.labels.offsetWidth;
    const middle = (box.scrollLeft + seen / 2) / Math.max(1, this.axis.clientWidth);
    this.factor = by ? Math.max(1, Math.min(this.factor * by, MOST_WIDTH / Math.max(1, seen))) : 1;
    this.draw();
    box.scrollLeft = middle * this.axis.clientWidth - seen / 2;
  }

  /** All that is seen, as it is now. */
  draw() {
    const { model, box } = this;
    if (!model || !box.isConnected) return;
    const at = now();
    const domain = domainOf(model, at);
    this.showNone(domain !== null);
    setAttribute(this.buttons.fit, "aria-pressed", String(this.factor === 1));
    if (!domain || !box.clientWidth || this.isTable) return;
    this.row = PHONE.matches ? ROWS.phone : ROWS.usual;
    this.box.style.setProperty("--timeline-row", `${this.row}px`);
    const axis = this.axisOf(domain, at);
    const isAtEnd = box.scrollLeft + box.clientWidth >= box.scrollWidth - 8 && this.factor > 1;
    this.body.style.height = `${this.rows.length * this.row}px`;
    this.canvas.style.width = `${this.labels.offsetWidth + axis.width + RIGHT}px`;
    this.drawAxis(axis, domain.isOpen ? at : null);
    this.drawRows(axis, at, domain.isOpen);
    if (isAtEnd && domain.isOpen) box.scrollLeft = box.scrollWidth;
  }

  /** @param {boolean} hasBegun */
  showNone(hasBegun) {
    const words = !hasBegun ? "Nothing of this plan has begun; there is no time to show yet." : this.rows.length ? "" : "No task is as the filter wants it.";
    setText(this.none, words);
    this.none.hidden = !words;
    this.box.hidden = words !== "" || this.isTable;
  }

  /** @param {{start: number, end: number, isOpen: boolean}} domain @param {number} at @returns {Axis} */
  axisOf({ start, end, isOpen }, at) {
    if (!isOpen) this.right = Math.max(end, start + 1000);
    else if (at > this.right || this.right - start > 3 * (at - start) + 20_000) this.right = roomyEnd(start, at);
    const seen = Math.max(160, this.box.clientWidth - this.labels.offsetWidth - RIGHT);
    return { start, end: this.right, width: Math.round(seen * this.factor) };
  }

  /** @param {Axis} axis @param {number | null} at */
  drawAxis(axis, at) {
    const offset = -new Date(axis.start).getTimezoneOffset() * 60_000;
    const step = stepOf(axis.end - axis.start, axis.width);
    const ticks = ticksOf(axis.start, axis.end, step, offset);
    this.ticks = ticks.map((ms) => xOf(axis, ms));
    setAttribute(this.axis, "width", String(axis.width + RIGHT));
    setText(/** @type {Node} */ (this.canvas.querySelector(".corner")), `${counted(this.rows.filter((row) => row.task).length, "task")}`);
    const marks = ticks.map((ms, number) => ({ key: String(ms), x: this.ticks[number], text: tickText(ms, step, offset) }));
    if (at !== null) marks.push({ key: "now", x: xOf(axis, at), text: "now" });
    syncChildren(this.axis, marks, (mark) => mark.key, (mark) => svg("g", { class: mark.key === "now" ? "now" : null }, svg("path", {}), svg("text", { y: 17 })),
      (element, mark) => {
        element.firstChild.setAttribute("d", `M${mark.x} ${AXIS}V${AXIS - 6}`);
        element.lastChild.setAttribute("x", String(mark.x + 4));
        const isHidden = mark.key !== "now" && at !== null && Math.abs(mark.x - xOf(axis, at)) < 60;
        setText(element.lastChild, isHidden ? "" : mark.text);
      });
  }

  /** @type {number[]} */
  ticks = [];

  /** @param {Axis} axis @param {number} at @param {boolean} isOpen */
  drawRows(axis, at, isOpen) {
    const { box } = this;
    const first = Math.max(0, Math.floor(box.scrollTop / this.row) - SPARE);
    const last = Math.min(this.rows.length, Math.ceil((box.scrollTop + box.clientHeight) / this.row) + SPARE);
    const seen = this.rows.slice(first, last).map((row, number) => ({ row, top: (first + number) * this.row, index: first + number }));
    const held = this.heldRow(first, last);
    syncChildren(this.labels, held ? [...seen, held] : seen, ({ row }) => row.key, ({ row }) => makeLabel(row), (element, item) => this.showLabel(element, item));
    this.bars.style.top = `${first * this.row}px`;
    setAttribute(this.bars, "width", String(axis.width + RIGHT));
    setAttribute(this.bars, "height", String((last - first) * this.row));
    const height = (last - first) * this.row;
    const lines = [{ key: "ticks", d: this.ticks.map((x) => `M${x} 0V${height}`).join("") }, { key: "now", d: isOpen ? `M${xOf(axis, at)} 0V${height}` : "" }];
    syncChildren(this.bars, [...lines.slice(0, 1), ...seen, ...lines.slice(1)], (item) => ("d" in item ? item.key : item.row.key),
      (item) => ("d" in item ? svg("path", { class: `line ${item.key}` }) : svg("g", { class: "row" })),
      (element, item) => ("d" in item ? setAttribute(element, "d", item.d) : drawRow(element, item.row, { top: item.top - first * this.row, height: this.row }, axis, at)));
  }

  /** The row with the focus stays in the page, wherever it is. @param {number} first @param {number} last */
  heldRow(first, last) {
    const label = document.activeElement?.closest(".labels > li");
    if (!label || !this.labels.contains(label)) return null;
    const index = this.rows.findIndex((row) => row.key === label.getAttribute("data-key"));
    return index < 0 || (index >= first && index < last) ? null : { row: this.rows[index], top: index * this.row, index };
  }

  /** @param {HTMLElement} element @param {{row: Row, top: number, index: number}} item */
  showLabel(element, { row, top, index }) {
    element.style.top = `${top}px`;
    setAttribute(element, "aria-posinset", String(index + 1));
    setAttribute(element, "aria-setsize", String(this.rows.length));
    const { task, stage } = row;
    if (!task) {
      setText(/** @type {Node} */ (element.firstChild), stage.title || stage.id || "Tasks");
      return setBadge(/** @type {Element} */ (element.lastChild), stage.state || "pending");
    }
    const link = /** @type {Element} */ (element.firstChild);
    if (link.getAttribute("data-status") !== task.status) link.replaceChild(sign(task.state), /** @type {Node} */ (link.firstChild));
    setAttribute(link, "data-status", task.status);
    setAttribute(link, "href", this.choice?.hrefOf(task.id) ?? "");
    setAttribute(link, "aria-current", this.choice?.open === task.id ? "true" : null);
    setAttribute(link, "class", task.isCritical ? "critical" : null);
    setAttribute(link, "title", `${task.id}${task.title ? `: ${task.title}` : ""}${task.isCritical ? "\nOn the critical path." : ""}`);
    setText(/** @type {Node} */ (link.lastChild), ` ${statusText(task.state)}${task.isCritical ? ", on the critical path" : ""}`);
  }
}

/** @param {Row} row */
function makeLabel({ key, task }) {
  if (!task) return h("li", { class: "stage-row", "data-key": key }, h("span", { class: "clip" }), badge("pending"));
  return h("li", { "data-key": key }, h("a", { "data-row": "", "data-task": task.id },
    sign(task.state), h("span", { class: "clip mono" }, task.id), h("span", { class: "away" })));
}

function legend() {
  const states = ["running", "done", "failed", "quota"].map((status) => h("li", {}, sign(status), statusText(status)));
  return h("ul", { class: "legend small quiet" }, states, h("li", { class: "critical" }, "critical path"));
}
