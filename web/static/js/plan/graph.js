// @ts-check
// The dependency graph of a plan: a column for each wave, an arrow from what is needed.

import { h, setAttribute, setText, svg } from "../dom.js";
import { countText } from "../figures.js";
import { sign, statusText } from "../states.js";
import { now } from "../times.js";
import { layOut } from "./layout.js";
import { reach, tookText } from "./model.js";

/** @typedef {import("./model.js").Model} Model */
/** @typedef {import("./model.js").Task} Task */
/** @typedef {import("./stages.js").Choice} Choice */

export const MOST_NODES = 1000; // beyond, nobody can read a graph
const HEIGHT = 46;
const LETTER = 7.3; // px, of an id
const LETTERS = [12, 24]; // of an id, at the least and at the most
const HEAD = 30; // px above the columns, for the names of the stages
const MOST_NAMES = 8; // in what is told of a task
const EDGE = 14; // px around all of it

export class Graph {
  constructor() {
    this.svg = svg("svg", { class: "graph", role: "group", "aria-label": "Dependency graph" });
    this.box = h("div", { class: "graph-box", tabindex: 0, role: "region", "aria-label": "Dependency graph, scrolls" }, this.svg);
    this.fit = h("button", { type: "button", "aria-pressed": "false", onclick: () => this.zoom() }, "Fit");
    this.tools = h("div", { class: "plan-tools" }, this.fit, legend());
    this.element = h("div", {}, this.box);
    this.structure = "";
    /** @type {Map<string, Node>} */
    this.nodes = new Map();
    /** @type {{from: string, to: string, element: SVGElement}[]} */
    this.edges = [];
    /** @type {Model | undefined} */
    this.model = undefined;
    this.listen();
  }

  listen() {
    for (const name of ["pointerover", "focusin"]) this.svg.addEventListener(name, (event) => this.light(idAt(event.target)));
    for (const name of ["pointerleave", "focusout"]) this.svg.addEventListener(name, () => this.light(""));
  }

  /** @param {Model} model @param {Choice} choice */
  show(model, choice) {
    this.model = model;
    const structure = [...model.tasks.values()].map((task) => `${task.id} ${task.wave} ${task.depends_on}`).join("\n")
      + model.critical + model.stages.map((stage) => stage.barrier);
    const isFirst = this.structure === "";
    if (structure !== this.structure) this.draw(model);
    this.structure = structure;
    for (const task of model.tasks.values()) this.nodes.get(task.id)?.show(task, choice);
    if (isFirst) this.scrollTo(choice.open || this.pressing(model));
  }

  /** Where something is to be seen first. @param {Model} model */
  pressing({ tasks }) {
    const all = [...tasks.values()];
    return (all.find((task) => task.status === "failed") ?? all.find((task) => task.status === "running"))?.id ?? "";
  }

  /** @param {string} id */
  scrollTo(id) {
    const node = this.nodes.get(id);
    if (!node) return;
    this.box.scrollLeft = node.x - this.box.clientWidth / 3;
    this.box.scrollTop = node.y - this.box.clientHeight / 3;
  }

  tick() {
    for (const node of this.nodes.values()) if (node.task.status === "running") node.tick();
  }

  close() {}

  /** @param {Model} model */
  draw(model) {
    const tasks = [...model.tasks.values()];
    const letters = Math.max(LETTERS[0], Math.min(LETTERS[1], ...[Math.max(...tasks.map((task) => task.id.length))]));
    const width = Math.round(letters * LETTER) + 36;
    const items = tasks.map((task) => ({ id: task.id, wave: task.wave, needs: task.depends_on }));
    const layout = layOut(items, { width, height: HEIGHT, gapX: 44, gapY: 12, joint: 4 });
    const size = [layout.width + 2 * EDGE, layout.height + HEAD + 2 * EDGE];
    this.svg.setAttribute("width", String(size[0]));
    this.svg.setAttribute("height", String(size[1]));
    this.svg.setAttribute("viewBox", `0 0 ${size[0]} ${size[1]}`);
    this.drawEdges(model, layout, width);
    this.drawNodes(tasks, layout, width, letters);
    const inside = svg("g", { transform: `translate(${EDGE} ${EDGE + HEAD})` },
      svg("g", {}, bands(model, layout, width)),
      svg("g", {}, this.edges.map((edge) => edge.element)),
      svg("g", {}, [...this.nodes.values()].map((node) => node.element)));
    this.svg.replaceChildren(inside);
  }

  isFit = false;

  zoom() {
    this.isFit = !this.isFit;
    setAttribute(this.fit, "aria-pressed", String(this.isFit));
    this.svg.classList.toggle("fitted", this.isFit);
  }

  /** @param {Model} model @param {import("./layout.js").Layout} layout @param {number} width */
  drawEdges({ critical }, layout, width) {
    const pairs = new Set(critical.slice(1).map((id, at) => `${critical[at]}\n${id}`));
    this.edges = layout.edges.map(({ from, to, path }) => {
      const isCritical = pairs.delete(`${from}\n${to}`);
      return { from, to, element: edge(path, layout.spots.get(to), isCritical ? "edge critical" : "edge") };
    });
    for (const pair of pairs) { // what the path waits for is a barrier
      const [from, to] = pair.split("\n");
      const [one, other] = [layout.spots.get(from), layout.spots.get(to)];
      if (one && other) this.edges.push({ from, to, element: edge(between(one, other, width), other, "edge critical barred") });
    }
    this.edges.sort((one, other) => Number(one.element.classList.contains("critical")) - Number(other.element.classList.contains("critical")));
  }

  /** @param {Task[]} tasks @param {import("./layout.js").Layout} layout @param {number} width @param {number} letters */
  drawNodes(tasks, layout, width, letters) {
    const before = this.nodes;
    this.nodes = new Map();
    for (const task of tasks) {
      const spot = layout.spots.get(task.id);
      if (!spot) continue;
      const node = before.get(task.id) ?? new Node(task);
      node.place(spot.x, spot.y, width, letters);
      this.nodes.set(task.id, node);
    }
  }

  /** Marks what a task needs and what waits for it. @param {string} id "" for none */
  light(id) {
    const { model } = this;
    setAttribute(this.svg, "data-lit", id && model?.tasks.has(id) ? "" : null);
    if (!model || !id) return;
    const needs = reach(model.tasks, id, "depends_on").add(id);
    const dependants = reach(model.tasks, id, "dependants").add(id);
    for (const [name, node] of this.nodes) {
      node.element.classList.toggle("lit", needs.has(name) || dependants.has(name));
    }
    for (const { from, to, element } of this.edges) {
      element.classList.toggle("lit", (needs.has(from) && needs.has(to)) || (dependants.has(from) && dependants.has(to)));
    }
  }
}

/** In place of the graph where it has too many tasks. @param {number} count */
export const tooLarge = (count) => h("p", { class: "none" },
  `A graph of ${countText(count)} tasks cannot be read (up to ${countText(MOST_NODES)} are drawn); here are the stages. A task that is opened says what it needs and what waits for it.`);

class Node {
  /** @param {Task} task */
  constructor(task) {
    this.task = task;
    this.letters = this.x = this.y = 0;
    this.rect = svg("rect", { height: HEIGHT, rx: 6 });
    this.sign = svg("g", { transform: "translate(9 8)" });
    this.id = svg("text", { class: "node-id", x: 28, y: 20 });
    this.facts = svg("text", { class: "node-facts", x: 28, y: 36 });
    this.title = svg("title");
    this.element = svg("a", { "data-row": "", "data-task": task.id }, this.title, this.rect, this.sign, this.id, this.facts);
  }

  /** @param {number} x @param {number} y @param {number} width @param {number} letters */
  place(x, y, width, letters) {
    this.element.setAttribute("transform", `translate(${x} ${y})`);
    this.rect.setAttribute("width", String(width));
    [this.x, this.y] = [x, y];
    this.letters = letters;
  }

  /** @param {Task} task @param {Choice} choice */
  show(task, choice) {
    this.task = task;
    const { element } = this;
    if (element.getAttribute("data-status") !== task.status) {
      const drawn = sign(task.state);
      drawn.setAttribute("width", "14");
      drawn.setAttribute("height", "14");
      this.sign.replaceChildren(drawn);
    }
    setAttribute(element, "data-status", task.status);
    setAttribute(element, "href", choice.hrefOf(task.id));
    setAttribute(element, "aria-current", choice.open === task.id ? "true" : null);
    setAttribute(element, "class", [
      "node", element.classList.contains("lit") && "lit", task.isCritical && "critical",
      !choice.isShown(task) && "dim", !task.in_scope && "unscoped",
    ].filter(Boolean).join(" "));
    setText(this.id, task.id.length > this.letters ? `${task.id.slice(0, this.letters - 1)}…` : task.id);
    setText(this.title, titleOf(task));
    this.tick();
  }

  tick() {
    setText(this.facts, [statusText(this.task.state), tookText(this.task, now())].filter(Boolean).join(" · "));
  }
}

/** The name of the link, and what is shown beside the pointer. @param {Task} task */
function titleOf(task) {
  return [
    `${task.id}: ${statusText(task.state)}${task.isCritical ? ", on the critical path" : ""}`, task.title, task.why,
    task.depends_on.length ? `Needs ${listText(task.depends_on)}.` : "",
    task.dependants.length ? `Waits for it: ${listText(task.dependants)}.` : "",
  ].filter(Boolean).join("\n");
}

/** @param {string[]} names */
const listText = (names) => (names.length > MOST_NAMES ? `${names.slice(0, MOST_NAMES).join(", ")} and ${names.length - MOST_NAMES} more` : names.join(", "));

/** @param {EventTarget | null} target */
const idAt = (target) => (target instanceof Element ? target.closest("[data-task]")?.getAttribute("data-task") ?? "" : "");

/** @param {string} path @param {import("./layout.js").Spot | undefined} to @param {string} name */
function edge(path, to, name) {
  const [x, y] = [to?.x ?? 0, (to?.y ?? 0) + HEIGHT / 2];
  return svg("g", { class: name }, svg("path", { class: "line", d: path }),
    svg("path", { class: "tip", d: `M${x} ${y}l-7 -3.5v7z` }));
}

/** @param {import("./layout.js").Spot} one @param {import("./layout.js").Spot} other @param {number} width */
function between(one, other, width) {
  const [x, y, toX, toY] = [one.x + width, one.y + HEIGHT / 2, other.x, other.y + HEIGHT / 2];
  const middle = (x + toX) / 2;
  return `M${x} ${y}C${middle} ${y} ${middle} ${toY} ${toX} ${toY}`;
}

/** The names of the stages over their columns, and a line at each barrier.
 * @param {Model} model @param {import("./layout.js").Layout} layout @param {number} width */
function bands(model, layout, width) {
  const drawn = [];
  let names = /** @type {string[]} */ ([]);
  let xs = /** @type {number[]} */ ([]);
  for (const stage of model.stages) {
    names.push(stage.title || stage.id);
    xs.push(...stage.tasks.flatMap((task) => layout.spots.get(task.id)?.x ?? []));
    const isLast = stage === model.stages[model.stages.length - 1];
    if (!stage.barrier && !isLast) continue;
    if (xs.length) drawn.push(band(names.join(" + "), Math.min(...xs), Math.max(...xs) + width, layout.height, !isLast));
    [names, xs] = [[], []];
  }
  return drawn;
}

/** @param {string} name @param {number} left @param {number} right @param {number} height @param {boolean} hasBarrier */
function band(name, left, right, height, hasBarrier) {
  const letters = Math.max(6, Math.floor((right - left) / LETTER));
  return svg("g", { class: "band" },
    svg("text", { x: left, y: -HEAD / 2 }, svg("title", {}, name), name.length > letters ? `${name.slice(0, letters - 1)}…` : name),
    hasBarrier && svg("path", { d: `M${right + 22} ${-HEAD}V${height}` }, svg("title", {}, `barrier: what is behind it waits until all of ${name} has ended`)));
}

function legend() {
  /** @param {string} name @param {string} words */
  const entry = (name, words) => h("li", {}, svg("svg", { viewBox: "0 0 28 10", class: name, "aria-hidden": "true" }, svg("path", { class: "line", d: "M1 5H27" })), words);
  return h("ul", { class: "legend small quiet" },
    entry("edge", "needs"), entry("edge critical", "critical path"),
    entry("edge critical barred", "critical, by a barrier"), entry("band", "barrier"));
}
