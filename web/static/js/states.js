// @ts-check
// How things stand: one word, one sign and one colour for each state, wherever it is shown.

import { h, setAttribute, setText, svg } from "./dom.js";

/** What the server calls a state, as one of those that the page has. */
const SAME = new Map([
  ["completed", "done"], ["all_finished", "done"], ["all_done", "done"], ["success", "done"],
  ["partial_failure", "failed"], ["error", "failed"], ["gone", "failed"], ["unreadable", "failed"],
  ["verifying", "running"], ["working", "running"],
  ["queued", "waiting"], ["idle", "pending"], ["-", "pending"], ["", "pending"],
]);
const WORDS = new Map([
  ["partial_failure", "running after a failure"], ["-", "not started"], ["", "not started"],
  ["completed", "done"], ["all_finished", "done"], ["gone", "cut off"], ["idle", "not begun"],
]);
const SHAPES = new Map([
  ["done", "M3 8.5 6.5 12 13 4.5"],
  ["failed", "M4 4l8 8M12 4l-8 8"],
  ["waiting", "M8 4v4.5l3 1.5M8 1.5a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13"],
  ["quota", "M2 8h12M8 2v12M3.8 3.8l8.4 8.4"],
  ["blocked", "M3.5 3.5l9 9M8 1.5a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13"],
  ["stopped", "M4 4h8v8H4z"],
  ["unknown", "M5.5 6a2.5 2.5 0 1 1 3.5 2.3c-.7.3-1 .8-1 1.7M8 13v.2"],
  ["running", "M8 1.8a6.2 6.2 0 1 0 6.2 6.2"],
  ["pending", "M8 2.5a5.5 5.5 0 1 0 0 11 5.5 5.5 0 0 0 0-11"],
]);

/** done, running, failed, waiting, quota, blocked, stopped, unknown or pending.
 * @param {string | null | undefined} state as the server says it */
export function statusOf(state) {
  const name = SAME.get(state ?? "") ?? state ?? "";
  return SHAPES.has(name) ? name : "unknown";
}

/** The word for it. @param {string | null | undefined} state */
export const statusText = (state) => WORDS.get(state ?? "") ?? state ?? "";

/** Its sign alone; say the word beside it. @param {string | null | undefined} state */
export function sign(state) {
  const status = statusOf(state);
  return svg(
    "svg",
    { class: "sign", "data-status": status, viewBox: "0 0 16 16", "aria-hidden": "true" },
    svg("path", {
      class: status === "running" ? "turns" : null,
      d: SHAPES.get(status), fill: "none", stroke: "currentColor", "stroke-width": 2,
      "stroke-linecap": "round", "stroke-linejoin": "round",
    }),
  );
}

/** Sign and word. @param {string | null | undefined} state @param {string} [text] in place of its word */
export function badge(state, text) {
  const element = h("span", { class: "badge" });
  setBadge(element, state, text);
  return element;
}

/** @param {Element} element made by badge() @param {string | null | undefined} state @param {string} [text] */
export function setBadge(element, state, text = statusText(state)) {
  const status = statusOf(state);
  if (element.getAttribute("data-status") !== status) {
    setAttribute(element, "data-status", status);
    element.replaceChildren(sign(state), h("span", {}, text));
  } else setText(/** @type {Node} */ (element.lastChild), text);
}
