// @ts-check
// What is shown, and when it is fetched.
//
// The address of the page names the project, task and run; lists are fetched whenever the stream
// of all runs says that something has changed, and at each of its heartbeats.  The first of these
// comes with the connection, so a server that was started anew is asked for everything, too.

import { addresses, get, link, parseLink, Refused } from "./api.js";
import { byId, h, setAttribute, setText } from "./dom.js";
import { closeFile, showFile } from "./file_view.js";
import { showProjects, showRun, showRuns, showTasks } from "./lists.js";
import { noteLine, setLive, tick } from "./live.js";
import { closeMessages, showMessages } from "./messages.js";
import { follow } from "./stream.js";

const PAUSE_MS = 300; // between two rounds, however much happens
const RETRY_MS = 2000;
const PAGE_TASKS = 100;
const MOST_RUNS = 200; // of a task, in the page
const FILES = ["transcript.md", "output.md", "stdout", "stderr", "prompt"];
const STATES = { connecting: "connecting", live: "live", lost: "connection lost, trying again" };

/** @type {[string, string, string]} */
let place = ["", "", ""];
let offset = 0; // of the page of tasks
let file = ""; // which one of the run was chosen
let fileAddress = ""; // what is shown of it
/** @type {import("./lists.js").RunDetail | null} */
let shownRun = null;
/** @type {(() => void) | null} */
let stopStream = null;
let retry = 0;

// ---- what there is to show

/** What is only asked for at this place; a refusal is something to show, but for that of the key.
 * @param {[string, string, string]} place */
async function details([project, task, run]) {
  try {
    if (!project) return {};
    if (!task) return { tasks: await get(addresses.tasks(project, PAGE_TASKS, offset)) };
    const [shown, detail] = await Promise.all([
      get(addresses.task(project, task)),
      run ? get(addresses.run(project, task, run)) : null,
    ]);
    return { task: shown, run: detail };
  } catch (error) {
    if (!(error instanceof Refused) || error.status === 401) throw error;
    return { problem: error.message };
  }
}

async function load() {
  const wanted = place;
  try {
    const [status, projects, found] = await Promise.all([
      get(addresses.status),
      get(addresses.projects),
      details(wanted),
    ]);
    if (wanted !== place) return;
    open();
    showProjects(projects.projects, place[0]);
    showLiveRuns(status.running_tasks);
    showDetails(found);
    if (place[0]) await showMessages(place[0], place[1]);
  } catch (error) {
    if (error instanceof Refused && error.status === 401) return lock();
    const isAway = error instanceof TypeError; // nobody answers
    if (!isAway) showProblem(String(error));
    else if (!stopStream) showState("lost");
    clearTimeout(retry);
    retry = setTimeout(refresh, RETRY_MS);
  }
}

let isDue = false;
let isLoading = false;

/** Fetches what is shown; what is asked for meanwhile is fetched after that, once. */
async function refresh() {
  isDue = true;
  if (isLoading) return;
  isLoading = true;
  while (isDue) {
    isDue = false;
    await load();
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
  isLoading = false;
}

// ---- showing it

/** @param {import("./lists.js").LiveRun[]} runs */
function showLiveRuns(runs) {
  const [project, task] = place;
  byId("live").hidden = task !== "";
  setLive(task ? [] : runs.filter((run) => !project || run.project_id === project));
}

/** @param {any} found */
function showDetails(found) {
  showProblem(found.problem ?? "");
  byId("tasks").hidden = !found.tasks;
  if (found.tasks) showTaskPage(found.tasks);
  byId("runs").hidden = !found.task;
  if (found.task) {
    const newest = found.task.runs.slice(-MOST_RUNS).reverse();
    showRuns(place[0], place[1], newest, place[2]);
  }
  shownRun = found.run ?? null;
  byId("run").hidden = !shownRun;
  if (shownRun) {
    showRun(shownRun);
    chooseFile(file || usualFile(found.run.files ?? []));
  } else stopFile();
}

/** @param {any} page */
function showTaskPage(page) {
  showTasks(page.items);
  /** @type {HTMLButtonElement} */ (byId("newer")).disabled = page.offset === 0;
  /** @type {HTMLButtonElement} */ (byId("older")).disabled = !page.has_more;
  /** @type {HTMLElement} */ (byId("extent").parentElement).hidden = !page.offset && !page.has_more;
  const last = page.offset + page.items.length;
  setText(byId("extent"), page.total ? `${page.offset + 1} to ${last} of ${page.total}` : "");
}

/** @param {{name: string}[]} files */
const usualFile = (files) => (files.some(({ name }) => name === FILES[0]) ? FILES[0] : "stdout");

/** @param {string} name */
function chooseFile(name) {
  file = name;
  for (const button of byId("files").children) {
    setAttribute(button, "aria-pressed", String(button.textContent === name));
  }
  const address = addresses.file(...place, name);
  if (address === fileAddress) return;
  fileAddress = address;
  showFile(address);
}

function stopFile() {
  fileAddress = "";
  closeFile();
}

/** @param {string} text */
function showProblem(text) {
  setText(byId("problem"), text);
  byId("problem").hidden = !text;
}

/** @param {"connecting" | "live" | "lost" | "locked"} state */
function showState(state) {
  setAttribute(byId("state"), "data-state", state);
  setText(byId("state"), state === "locked" ? "no access" : STATES[state]);
}

function showTrail() {
  const parts = place.filter(Boolean);
  const links = parts.flatMap((name, number) => [
    number ? " / " : "",
    h("a", { href: link(...parts.slice(0, number + 1)) }, name),
  ]);
  byId("trail").replaceChildren(...links);
  document.title = [...parts.slice(-1), "Conductor Loop"].join(" – ");
}

// ---- with the key, and without

function open() {
  if (byId("page").hidden) showTrail();
  byId("locked").hidden = true;
  byId("page").hidden = false;
  stopStream ??= follow(
    addresses.allRuns,
    { heartbeat: refresh, status: refresh, log: noteLine },
    { onState: onStream, resumes: false },
  );
}

/** @param {"connecting" | "live" | "lost"} state */
function onStream(state) {
  showState(state);
  if (state === "lost") refresh(); // an EventSource does not tell a refusal from a server that is away
}

/** Nothing that was shown stays in the page. */
function lock() {
  stopStream?.();
  stopStream = null;
  showProjects([], "");
  setLive([]);
  showTasks([]);
  showRuns("", "", [], "");
  byId("run").querySelector("dl")?.replaceChildren();
  byId("trail").replaceChildren();
  document.title = "Conductor Loop";
  showProblem("");
  shownRun = null;
  stopFile();
  closeMessages();
  setText(byId("origin"), location.origin);
  byId("page").hidden = true;
  byId("locked").hidden = false;
  showState("locked");
}

// ---- wiring

function goToPlace() {
  const named = parseLink(location.hash);
  if (!named) return; // an anchor within the page
  if (named[0] !== place[0]) offset = 0;
  if (named[2] !== place[2]) file = "";
  if (named[0] !== place[0] || named[1] !== place[1]) closeMessages();
  place = named;
  byId("messages").hidden = !place[0];
  showTrail();
  refresh();
}

/** @param {number} step */
function turnPage(step) {
  offset = Math.max(0, offset + step);
  refresh();
}

for (const name of FILES) {
  const button = h("button", { type: "button", "aria-pressed": "false" }, name);
  button.addEventListener("click", () => chooseFile(name));
  byId("files").append(button, " ");
}
byId("newer").addEventListener("click", () => turnPage(-PAGE_TASKS));
byId("older").addEventListener("click", () => turnPage(PAGE_TASKS));
window.addEventListener("hashchange", goToPlace);
window.addEventListener("focus", () => {
  if (!byId("locked").hidden) refresh(); // perhaps the link was opened meanwhile
});
setInterval(() => {
  if (document.hidden) return;
  tick();
  if (shownRun?.status === "running") showRun(shownRun);
}, 1000);
goToPlace();
