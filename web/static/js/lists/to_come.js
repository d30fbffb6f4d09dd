// @ts-check
// The tasks of a plan that have not begun: they have no folder yet, and are in no list of tasks.

import { h, setAttribute, setText } from "../dom.js";
import { countText } from "../figures.js";
import { links } from "../router.js";
import { badge, setBadge } from "../states.js";
import { setClipped, setLink, syncRows } from "./cells.js";

const MOST = 100;

/** @param {string} project */
export function toCome(project) {
  const [total, list] = [h("span", { class: "quiet total" }), h("ul", { class: "to-come" })];
  const more = h("a", { href: links.plan(project), hidden: true }, "All of them in the plan");
  const element = h("section", { hidden: true }, h("h2", {}, "Not begun ", total), list, more);
  return {
    element,
    /** @param {any[]} tasks of the plan */
    show(tasks) {
      const found = tasks.filter(({ runs, state, in_scope }) => in_scope && runs.length === 0 && state !== "done");
      syncRows(list, found.slice(0, MOST), ({ id }) => id, () => item(project));
      setText(total, countText(found.length));
      setAttribute(element, "hidden", found.length ? null : "");
      setAttribute(more, "hidden", found.length > MOST ? null : "");
    },
  };
}

/** @param {string} project @returns {import("./cells.js").Row} */
function item(project) {
  const [state, name, why] = [badge(""), h("a", { class: "clip" }), h("span", { class: "quiet clip" })];
  const element = h("li", { "data-row": true }, h("span", {}, state), name, why);
  /** @param {any} task */
  function update(task) {
    setBadge(state, task.state);
    setLink(name, links.plan(project, { task: task.id }), task.id, task.title || task.id);
    setClipped(why, task.why);
  }
  return { element, update };
}
