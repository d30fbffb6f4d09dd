// @ts-check
// One message as it stands in the list.

import { h, setAttribute, setChildren, setText } from "../dom.js";
import { bytesText, counted } from "../figures.js";
import { links } from "../router.js";
import { agoText, dateText } from "../times.js";

/** @typedef {import("./thread.js").Item} Item */
/** @typedef {import("./thread.js").Message} Message */
/** What the list does for its messages; `isShort` says which part of the place goes without saying.
 * @typedef {{project: string, task: string, reply: (message: Message) => void, fold: (key: string) => void,
 *   linkOf: (message: Message) => string}} Around */

const MOST_LINES = 12; // of a body at first
const MOST_CHARACTERS = 1200;
const STATUS = new Map([
  ["ERROR", "failed"], ["RUN_CRASH", "failed"], ["QUESTION", "waiting"], ["REVIEW", "waiting"],
  ["DECISION", "quota"], ["FACT", "done"], ["PROGRESS", "running"], ["RUN_START", "running"],
]);

/** @type {WeakMap<Element, {time: HTMLElement, replies: HTMLButtonElement, expand: () => void}>} */
const parts = new WeakMap();

/** @param {Item} item @param {Around} around */
export function makeItem(item, around) {
  const { message, key } = item;
  const time = h("time", { datetime: message.ts, title: dateText(message.ts) });
  const replies = h("button", { type: "button", class: "plain small", onclick: () => around.fold(key) });
  const { body, more, expand } = bodyOf(message);
  const element = h("article",
    { class: "message", tabindex: -1, "data-row": true, "data-key": key, "aria-label": `${message.type || "message"}, ${whereText(message)}` },
    h("header", {}, typeOf(message), whereOf(message, around),
      h("button", { type: "button", class: "plain small", onclick: () => around.reply(message) }, "Reply",
        h("span", { class: "away" }, ` to ${message.type} of ${whereText(message)}`)),
      h("a", { class: "when quiet small", href: around.linkOf(message) }, time)),
    item.others.length > 0 && h("p", { class: "quiet small" }, "answers ",
      item.others.map((id, at) => [at > 0 && ", ", h("a", { class: "id", href: links.messages(around.project, around.task, { msg: id }) }, id)])),
    body,
    h("footer", {}, more, replies));
  parts.set(element, { time, replies, expand });
  return element;
}

/** @param {Element} element made by makeItem() @param {Item} item
 * @param {{isFolded: boolean, isMarked: boolean}} state */
export function updateItem(element, item, { isFolded, isMarked }) {
  const { replies, expand } = /** @type {any} */ (parts.get(element));
  setAttribute(element, "data-depth", String(item.depth));
  setAttribute(element, "data-context", item.isContext ? "" : null);
  setAttribute(element, "aria-current", isMarked ? "true" : null);
  replies.hidden = !item.replies || item.level > 0; // one for the thread is enough
  setAttribute(replies, "aria-expanded", isFolded ? "false" : "true");
  const words = counted(item.replies, "reply", "replies");
  setText(replies, isFolded ? `Show ${words}` : `Hide ${words}`);
  if (isMarked) expand();
  tickItem(element);
}

/** Its age, now. @param {Element} element */
export function tickItem(element) {
  const time = parts.get(element)?.time;
  if (time) setText(time, agoText(time.getAttribute("datetime")));
}

/** @param {Message} message */
const typeOf = (message) =>
  h("span", { class: "type clip", "data-status": STATUS.get(message.type) ?? "pending", title: message.type }, message.type || "message");

/** @param {Message} message */
function whereText({ project_id, task_id }) {
  return [project_id, task_id].filter(Boolean).join(" / ") || "no project";
}

/** Links to where it comes from, without what the list is of. @param {Message} message @param {Around} around */
function whereOf({ project_id, task_id, run_id }, around) {
  const steps = [];
  if (project_id && !around.project) steps.push(h("a", { class: "clip", title: project_id, href: links.project(project_id) }, project_id));
  if (project_id && task_id && !around.task) {
    steps.push(h("a", { class: "clip", title: task_id, href: links.task(project_id, task_id) }, task_id));
  }
  if (run_id) {
    const href = links.run(project_id, task_id ?? "", run_id);
    steps.push(h("a", { class: "clip mono", title: run_id, href }, run_id));
  }
  return h("span", { class: "where" }, steps);
}

/** The body, of a long one its beginning and what shows the rest. @param {Message} message */
function bodyOf(message) {
  const lines = message.body.split("\n");
  const isLong = lines.length > MOST_LINES || message.body.length > MOST_CHARACTERS;
  const head = isLong ? lines.slice(0, MOST_LINES - 2).join("\n").slice(0, MOST_CHARACTERS) : message.body;
  const body = h("div", { class: "body" }, head, isLong && " …");
  if (!isLong) return { body, more: null, expand: () => {} };
  let isOpen = false;
  const size = lines.length > MOST_LINES ? counted(lines.length, "line") : bytesText(message.body.length);
  const more = h("button", { type: "button", class: "plain small", "aria-expanded": "false", onclick: () => turn(!isOpen) });
  /** @param {boolean} wanted */
  function turn(wanted) {
    isOpen = wanted;
    setChildren(body, isOpen ? [message.body, message.truncated && cutNote(message)] : [head, " …"]);
    setAttribute(more, "aria-expanded", String(isOpen));
    setText(more, isOpen ? "Show less" : `Show all (${size})`);
  }
  turn(false);
  return { body, more, expand: () => isOpen || turn(true) };
}

/** @param {Message} message */
const cutNote = ({ msg_id }) =>
  h("p", { class: "quiet small" }, `It goes on; what is more stands on the bus, behind ${msg_id}.`);
