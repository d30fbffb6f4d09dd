// @ts-check
// All projects: how their plans stand, what runs, and what they have used.

import { addresses, get } from "../api.js";
import { h, setAttribute, setText } from "../dom.js";
import { countText } from "../figures.js";
import { setAddress, wordField } from "../lists/filters.js";
import { PROJECT_COLUMNS, projectRow } from "../lists/project_row.js";
import { everySecond, keepFresh } from "../live.js";
import { beginnings } from "../overview/beginnings.js";
import { heading, problem } from "../parts.js";
import { VirtualList, sourceOf } from "../virtual_list.js";
import { links } from "../router.js";

/** @typedef {import("../lists/project_row.js").Project} Project */

/** @param {import("../router.js").Place} place @returns {import("../main.js").View} */
export function openProjects(place) {
  let q = place.query.get("q") ?? "";
  /** @type {Project[]} */
  let all = [];
  const [refused, total] = [problem(), h("span", { class: "quiet" })];
  const none = h("div", { class: "empty", hidden: true });
  const words = wordField("Filter the projects", "Words of their names", choose);
  const source = sourceOf(/** @param {Project} project */ (project) => project.id);
  const list = new VirtualList({ label: "Projects", name: "projects", columns: PROJECT_COLUMNS, source, makeRow: projectRow });
  words.set(q);
  const keeper = keepFresh(async (signal) => {
    all = await loadProjects(signal);
    refused.show("");
    show();
  }, { onRefused: (error) => refused.show(error.message) });

  function show() {
    const found = all.filter(({ id }) => hasAll(id, q));
    source.set(found);
    setText(total, countText(found.length));
    setAttribute(none, "hidden", found.length ? "" : null);
    if (!found.length) none.replaceChildren(all.length ? h("p", { class: "none" }, "No project has all these words in its name.") : beginnings());
    list.update();
  }

  /** @param {string} text */
  function choose(text) {
    if (q === text) return;
    q = text;
    words.set(q);
    setAddress(q ? `${links.projects()}?${new URLSearchParams({ q })}` : links.projects());
    list.toTop();
    show();
  }

  const stopClock = everySecond(() => list.tick());
  const element = h("div", {},
    heading("Projects", [total], [h("a", { class: "button", href: links.start() }, "Start a task")]),
    h("div", { class: "tools" }, words.element), refused.element, none, list.element);
  return {
    element,
    title: "Projects",
    up: links.overview(),
    update(other) {
      choose(other.query.get("q") ?? "");
      return true;
    },
    close() {
      keeper.stop();
      stopClock();
      words.close();
      list.close();
    },
  };
}

/** The projects, those of plans alone too. @param {AbortSignal} signal @returns {Promise<Project[]>} */
async function loadProjects(signal) {
  const [{ projects }, { plans }, { groups }] = await Promise.all([
    get(addresses.projects, signal), get(addresses.plans, signal), get(addresses.totals({ by: "project" }), signal),
  ]);
  const planOf = new Map(plans.map((/** @type {any} */ plan) => [plan.project_id, plan]));
  const totalsOf = new Map(groups.map((/** @type {any} */ group) => [group.project_id, group]));
  const known = new Set(projects.map((/** @type {any} */ project) => project.id));
  const planned = plans.filter((/** @type {any} */ plan) => !known.has(plan.project_id))
    .map((/** @type {any} */ plan) => ({ id: plan.project_id, task_count: plan.total, last_activity: plan.updated }));
  return [...planned, ...projects].map((project) => ({ ...project, plan: planOf.get(project.id), totals: totalsOf.get(project.id) }));
}

/** @param {string} name @param {string} words */
const hasAll = (name, words) => words.toLowerCase().split(/\s+/).every((word) => name.toLowerCase().includes(word));
