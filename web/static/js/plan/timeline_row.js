// @ts-check
// A row of the timeline: a bar for each attempt of a task, and how long it took.

import { setAttribute, setText, svg, syncChildren } from "../dom.js";
import { links } from "../router.js";
import { statusText } from "../states.js";
import { dateText, secondsText } from "../times.js";
import { barsOf } from "./bars.js";
import { tookText } from "./model.js";
import { xOf } from "./scale.js";

/** @typedef {import("./model.js").Task} Task */
/** @typedef {import("./bars.js").Bar} Bar */
/** @typedef {import("./bars.js").Row} Row */
/** @typedef {import("./scale.js").Axis} Axis */

export const RIGHT = 96; // px, for the words behind the last bar

/** @param {Element} element @param {Row} row @param {{top: number, height: number}} place @param {Axis} axis @param {number} at */
export function drawRow(element, { task }, { top, height: row }, axis, at) {
  setAttribute(element, "transform", `translate(0 ${top})`);
  setAttribute(element, "class", task ? (task.isCritical ? "row critical" : "row") : "row stage-row");
  const { bars, lanes } = task ? barsOf(task, at) : { bars: [], lanes: 1 };
  const height = Math.max(3, Math.floor((row - 12) / lanes));
  /** @type {(Bar | {key: "words" | "ground"})[]} */
  const items = [{ key: "ground" }, ...bars, ...(task ? [{ key: /** @type {const} */ ("words") }] : [])];
  syncChildren(element, items, (item) => item.key, makeMark, (mark, item) => {
    if ("start" in item) return drawBar(mark, item, axis, at, { row, height });
    setAttribute(mark, item.key === "ground" ? "height" : "y", String(item.key === "ground" ? row : row / 2 + 4));
    if (item.key === "ground") setAttribute(mark, "width", String(axis.width + RIGHT));
    else if (task) drawWords(mark, task, bars, axis, at);
  });
}

/** @param {Bar | {key: string}} item */
function makeMark(item) {
  if (item.key === "ground") return svg("rect", { class: "ground" });
  if (!("start" in item)) return svg("text", { class: "words" });
  if (!item.run) return svg("path", { class: "wait" });
  return svg("a", { class: "bar", tabindex: -1 }, svg("title"), svg("rect", { class: "fill", rx: 3 }), svg("path", { class: "pattern" }));
}

/** @param {Element} element @param {Bar} bar @param {Axis} axis @param {number} at @param {{row: number, height: number}} size */
function drawBar(element, bar, axis, at, { row, height }) {
  const x = xOf(axis, bar.start);
  const width = Math.max(4, xOf(axis, bar.end ?? at) - x);
  const y = 6 + bar.lane * height;
  setAttribute(element, "data-status", bar.status);
  if (!bar.run) return setAttribute(element, "d", `M${x} ${row / 2}h${width}`);
  const [title, fill, pattern] = element.children;
  const last = Math.max(2, height - (bar.lane ? 1 : 0));
  for (const [name, value] of Object.entries({ x, y, width, height: last })) setAttribute(fill, name, String(Math.round(value * 10) / 10));
  setAttribute(pattern, "d", patternOf(bar.status, x, y, width, last));
  setAttribute(element, "href", links.run("", "", bar.run.run_id));
  setText(title, titleOf(bar, at));
}

/** Failed is hatched and quota dotted, so that a state is not told by its colour alone.
 * @param {string} status @param {number} x @param {number} y @param {number} width @param {number} height */
function patternOf(status, x, y, width, height) {
  if (status === "failed") {
    const count = Math.min(400, Math.floor((width - height) / 7));
    return Array.from({ length: Math.max(0, count) }, (_, at) => `M${x + at * 7} ${y + height}l${height} ${-height}`).join("");
  }
  if (status !== "quota" && status !== "stopped") return "";
  return `M${x + 2} ${y + height / 2}h${Math.max(0, width - 4)}`;
}

/** @param {Bar} bar @param {number} at */
function titleOf({ run, start, end, status }, at) {
  return [
    run?.unit, `${statusText(status)}${run?.verdict ? `, ${run.verdict}` : ""} · ${secondsText(((end ?? at) - start) / 1000)} · ${run?.agent ?? ""}`,
    `${dateText(run?.started)} – ${end === null ? "now" : dateText(run?.ended)}`, run?.why,
  ].filter(Boolean).join("\n");
}

/** How long it took, behind its last bar.
 * @param {Element} element @param {Task} task @param {Bar[]} bars @param {Axis} axis @param {number} at */
function drawWords(element, task, bars, axis, at) {
  const took = tookText(task, at);
  const end = bars.length ? Math.max(...bars.map((bar) => xOf(axis, bar.end ?? at))) : 0;
  const retried = task.tries > 1 ? ` · attempt ${task.tries}` : "";
  const words = took ? `${took}${task.status === "done" || task.status === "running" ? "" : ` · ${statusText(task.state)}`}${retried}` : "";
  setText(element, words);
  setAttribute(element, "x", String(Math.round(Math.max(end, 4) + 6)));
}
