// @ts-check
// Wiring: which view is shown at which place, and the frame around it.

import { byId, h, setAttribute, setText } from "./dom.js";
import * as keys from "./keys.js";
import { begin, end } from "./live.js";
import { links, parse } from "./router.js";

/** @typedef {import("./router.js").Place} Place */
/** What is shown in the middle of the page.  `update` takes another query of the same place and
 * says whether it could; `close` ends all that it has begun; `up` is where Esc leads.
 * @typedef {{element: HTMLElement, title: string, close: () => void, up?: string,
 *   update?: (place: Place) => boolean, keys?: import("./keys.js").KeyMap, isMissing?: boolean}} View */

/** Each is loaded when it is first gone to: nobody waits for what is not shown.
 * @type {Record<string, () => Promise<(place: Place) => View>>} */
const VIEWS = {
  overview: async () => (await import("./views/overview.js")).openOverview,
  projects: async () => (await import("./views/projects.js")).openProjects,
  project: async () => (await import("./views/project.js")).openProject,
  plan: async () => (await import("./views/plan.js")).openPlan,
  task: async () => (await import("./views/task.js")).openTask,
  run: async () => (await import("./views/run.js")).openRun,
  runs: async () => (await import("./views/runs.js")).openRuns,
  messages: async () => (await import("./views/messages.js")).openMessages,
  start: async () => (await import("./views/start.js")).openStart,
  unknown: async () => openUnknown,
};
const WORDS = { connecting: "connecting", live: "live", retrying: "connection lost, retrying", closed: "closed" };

/** @type {View | null} */
let view = null;
/** @type {Place | null} that of the view */
let place = null;
/** @type {Place | null} where somebody wants to go, while its view is loaded */
let wanted = null;
/** @type {string} */
let connection = "";
let isLocked = false;

/** @returns {View} */
function openUnknown() {
  const element = h("div", {}, h("h1", { tabindex: -1 }, "There is no such place"),
    h("p", {}, "The address leads nowhere. ", h("a", { href: links.overview() }, "To the overview")));
  return { element, title: "No such place", close: () => {} };
}

async function goToPlace() {
  const named = parse(location.hash);
  if (!named || isLocked) return;
  wanted = named;
  markNavigation(named);
  if (place && view && isSame(named, place) && view.update?.(named)) {
    place = named;
    return;
  }
  const open = await VIEWS[named.view]().catch(() => openMissing);
  if (wanted !== named) return; // somebody has gone on meanwhile
  show(named, open(named));
}

/** @param {Place} named @param {View} opened */
function show(named, opened) {
  const isFirst = place === null;
  view?.close();
  [place, view] = [named, opened];
  const main = byId("main");
  main.replaceChildren(view.element);
  main.hidden = false;
  setTitle(view.title);
  if (isFirst) return;
  window.scrollTo(0, 0);
  const title = view.element.querySelector("h1");
  (title ?? main).focus({ preventScroll: true }); // a screen reader says where one is now
}

/** In place of a view that could not be loaded: a browser may not try a module again before the
 * page is loaded anew, which showConnection() does when the server is back.
 * @returns {View} */
function openMissing() {
  const element = h("div", {}, h("h1", { tabindex: -1 }, "This part of the page could not be loaded"),
    h("p", {}, h("button", { type: "button", onclick: () => location.reload() }, "Load the page anew")));
  return { element, title: "Not loaded", close: () => {}, isMissing: true };
}

/** @param {Place} one @param {Place} other */
const isSame = (one, other) =>
  one.view === other.view && one.project === other.project && one.task === other.task && one.run === other.run;

/** @param {string} title */
function setTitle(title) {
  document.title = title ? `${title} – Conductor Loop` : "Conductor Loop";
}

/** @param {Place} shown */
function markNavigation(shown) {
  const top = { project: "projects", plan: "projects", task: "projects", run: "runs" }[shown.view] ?? shown.view;
  const href = top === "overview" ? "#/" : `#/${top}`;
  for (const link of document.querySelectorAll(".bar nav a")) {
    const isShown = link.getAttribute("href") === href;
    if (isShown === link.hasAttribute("aria-current")) continue;
    setAttribute(link, "aria-current", isShown ? "page" : null);
    if (isShown) bringIntoSight(link);
  }
}

/** On a phone they do not all fit.  By scrollIntoView() the first Tab would go to what is behind the link.
 * @param {Element} link */
function bringIntoSight(link) {
  const nav = /** @type {Element} */ (link.closest("nav"));
  const [box, own] = [nav.getBoundingClientRect(), link.getBoundingClientRect()];
  nav.scrollLeft += Math.max(0, own.right - box.right) - Math.max(0, box.left - own.left);
}

/** @param {keyof typeof WORDS | "locked"} state */
function showConnection(state) {
  if (state === "live" && connection === "retrying" && view?.isMissing) location.reload();
  connection = state;
  const element = byId("connection");
  setAttribute(element, "data-state", state === "locked" ? "closed" : state);
  setText(element, state === "locked" ? "no access" : WORDS[state]);
}

// ---- with the key, and without

/** Nothing that was shown stays in the page. */
function lock() {
  if (isLocked) return;
  isLocked = true;
  end();
  view?.close();
  view = place = wanted = null;
  document.querySelectorAll("dialog").forEach((dialog) => dialog.close());
  for (const id of ["main", "notices"]) byId(id).replaceChildren();
  byId("main").hidden = true;
  setText(byId("origin"), location.origin);
  byId("locked").hidden = false;
  setTitle("");
  showConnection("locked");
}

function open() {
  isLocked = false;
  byId("locked").hidden = true;
  goToPlace();
  begin(showConnection, lock);
}

// ---- wiring

keys.listen(() => view?.keys ?? {}, () => {
  if (view?.up) location.hash = view.up;
});
// Its address would take the place of that of the view.
byId("skip").addEventListener("click", (event) => {
  event.preventDefault();
  byId("main").focus();
});
byId("help").addEventListener("click", () => keys.help(view?.keys ?? {}));
window.addEventListener("hashchange", goToPlace);
window.addEventListener("focus", () => {
  if (isLocked) open(); // perhaps the link was opened meanwhile
});
open();
