// @ts-check
// The projects in which something happened last.

import { h, setAttribute, setText } from "../dom.js";
import { countText } from "../figures.js";
import { setAgo, setLink, syncRows } from "../lists/cells.js";
import { links } from "../router.js";

const COLUMNS = /** @type {[string, string][]} */ ([
  ["", "Project"], ["number", "Tasks"], ["number", "Runs"], ["number", "Running"], ["number", "Failed"], ["number", "Last activity"],
]);

export function recentProjects() {
  const [total, body] = [h("a", { href: links.projects() }), h("tbody", {})];
  const table = h("table", { class: "recent" },
    h("thead", {}, h("tr", {}, COLUMNS.map(([of, name]) => h("th", { scope: "col", class: of }, name)))), body);
  const none = h("p", { class: "none" }, "There is no project yet.");
  const element = h("section", { "aria-label": "Recent projects" }, h("div", { class: "title" }, h("h2", {}, "Recent projects"), total), none, table);
  return {
    element,
    /** @param {any} answer */
    show({ projects, project_total }) {
      syncRows(body, projects, ({ id }) => id, projectItem);
      setAttribute(table, "hidden", projects.length ? null : "");
      setAttribute(none, "hidden", projects.length ? "" : null);
      setAttribute(total, "hidden", projects.length ? null : "");
      setText(total, project_total > projects.length ? `All ${countText(project_total)}` : "All");
    },
    tick: () => [...body.children].forEach((row) => ticks.get(row)?.()),
  };
}

/** @type {WeakMap<Element, () => void>} */
const ticks = new WeakMap();

/** @returns {import("../lists/cells.js").Row} */
function projectItem() {
  const [name, tasks, runs, live, failed, when] = [h("a", {}), h("td", { class: "number" }), h("td", { class: "number" }), h("td", { class: "number" }), h("td", { class: "number" }), h("time", {})];
  const element = h("tr", { "data-row": true }, h("td", { class: "id" }, name), tasks, runs, live, failed, h("td", { class: "number" }, when));
  /** @type {any} */
  let shown = {};
  ticks.set(element, () => setAgo(when, shown.last_activity));
  return {
    element,
    /** @param {any} project */
    update(project) {
      shown = project;
      setLink(name, links.project(project.id), project.id);
      setText(tasks, countText(project.task_count));
      setText(runs, countText(project.run_count));
      setText(live, project.live_count || "–");
      setText(failed, project.failed_count || "–");
      setAgo(when, project.last_activity);
    },
  };
}
