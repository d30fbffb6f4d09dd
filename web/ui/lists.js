// @ts-check
// Projects, tasks and runs: data goes in, rows come out.

import { link } from "./api.js";
import { byId, h, setAttribute, setText, syncChildren } from "./dom.js";
import { dateText, spanText } from "./times.js";

/** @typedef {{id: string, task_count: number}} Project */
/** @typedef {{id: string, project_id: string, status: string, run_count: number,
 *   last_activity: string, blocked_by: string[] | null, queue_position?: number}} Task */
/** @typedef {{id: string, agent: string, status: string, exit_code: number, start_time: string,
 *   end_time?: string, agent_name?: string}} Run */
/** @typedef {Run & {project_id: string, task_id: string, cwd: string, model?: string,
 *   reason?: string, error_summary?: string, cost_usd?: number}} RunDetail */
/** @typedef {{project_id: string, task_id: string, run_id: string, agent: string,
 *   started: string}} LiveRun */

/** The rows of a section's table, or the words for none. @template T
 * @param {string} id @param {T[]} items @param {(item: T) => string} keyOf
 * @param {() => Element} make @param {(row: HTMLTableRowElement, item: T) => void} update */
function fill(id, items, keyOf, make, update) {
  const section = byId(id);
  syncChildren(/** @type {Element} */ (section.querySelector("tbody")), items, keyOf, make, update);
  /** @type {HTMLElement} */ (section.querySelector("table")).hidden = items.length === 0;
  /** @type {HTMLElement} */ (section.querySelector(".none")).hidden = items.length > 0;
}

/** A row with a link in its first cell. @param {...string} classes of the other cells */
const row = (...classes) => () =>
  h("tr", {}, h("td", {}, h("a", {})), ...classes.map((name) => h("td", { class: name })));

/** @param {HTMLTableRowElement} element @param {string} href @param {unknown} text
 * @param {...unknown} others */
function setRow(element, href, text, ...others) {
  const anchor = /** @type {Element} */ (element.cells[0].firstElementChild);
  setAttribute(anchor, "href", href);
  setText(anchor, text);
  others.forEach((value, number) => setText(element.cells[number + 1], value));
}

/** @param {Project[]} projects @param {string} chosen */
export function showProjects(projects, chosen) {
  syncChildren(
    byId("projects"),
    projects,
    (project) => project.id,
    () => h("li", {}, h("a", {}), " ", h("span", { class: "quiet" })),
    (item, project) => {
      const [anchor, count] = item.children;
      setAttribute(anchor, "href", link(project.id));
      setAttribute(anchor, "aria-current", project.id === chosen ? "true" : null);
      setText(anchor, project.id);
      setText(count, project.task_count);
    },
  );
  const none = byId("projects").nextElementSibling;
  if (none instanceof HTMLElement) none.hidden = projects.length > 0;
}

/** @param {LiveRun[]} runs @param {(runId: string) => string} lastLine */
export function showLive(runs, lastLine) {
  fill("live", runs, (run) => link(run.project_id, run.task_id, run.run_id),
    row("agent", "number", "last"),
    (element, run) => {
      const href = link(run.project_id, run.task_id, run.run_id);
      const name = `${run.project_id} / ${run.task_id}`;
      setRow(element, href, name, run.agent, spanText(run.started), lastLine(run.run_id));
    });
}

/** @param {Task[]} tasks */
export function showTasks(tasks) {
  fill("tasks", tasks, (task) => task.id, row("status", "number", "number"), (element, task) => {
    const text = statusText(task);
    setRow(element, link(task.project_id, task.id), task.id, text, task.run_count, dateText(task.last_activity));
    setAttribute(element.cells[1], "data-status", task.status);
  });
}

/** @param {Task} task */
function statusText(task) {
  if (task.status === "blocked" && task.blocked_by) return `blocked by ${task.blocked_by.join(", ")}`;
  if (task.queue_position) return `queued, place ${task.queue_position}`;
  return WORDS.get(task.status) ?? task.status;
}

const WORDS = new Map([
  ["all_finished", "done"],
  ["partial_failure", "running after a failure"],
  ["-", "not started"],
]);

/** @param {string} project @param {string} task @param {Run[]} runs @param {string} chosen */
export function showRuns(project, task, runs, chosen) {
  fill("runs", runs, (run) => run.id, row("status", "agent", "number", "number"), (element, run) => {
    const took = run.end_time || run.status === "running" ? spanText(run.start_time, run.end_time) : "–";
    setRow(element, link(project, task, run.id), run.id, endText(run), run.agent_name || run.agent, dateText(run.start_time), took);
    setAttribute(element.cells[1], "data-status", run.status);
    const anchor = /** @type {Element} */ (element.cells[0].firstElementChild);
    setAttribute(anchor, "aria-current", run.id === chosen ? "true" : null);
  });
}

/** @param {Run} run */
const endText = (run) => (run.exit_code > 0 ? `${run.status}, exit code ${run.exit_code}` : run.status);

/** @param {RunDetail} run */
export function showRun(run) {
  const fields = [
    ["Status", endText(run)],
    ["Why", run.error_summary || run.reason],
    ["Agent", [run.agent_name || run.agent, run.model].filter(Boolean).join(", ")],
    ["Started", dateText(run.start_time)],
    ["Took", run.end_time || run.status === "running" ? spanText(run.start_time, run.end_time) : ""],
    ["Cost", run.cost_usd === undefined ? "" : `$${run.cost_usd.toFixed(4)}`],
    ["Folder", run.cwd],
  ].filter(([, value]) => value);
  const list = /** @type {Element} */ (byId("run").querySelector("dl"));
  const parts = fields.flatMap(([name, value]) => [["dt", name, name], ["dd", name, value]]);
  syncChildren(list, parts, ([tag, name]) => `${tag} ${name}`, ([tag]) => h(String(tag)), (element, [tag, name, value]) => {
    setText(element, value);
    if (tag === "dd" && name === "Status") setAttribute(element, "data-status", run.status);
  });
}
