// @ts-check
// The runs of a task, the newest first; of many those that were the last, until one asks for more.

import { h, setAttribute, setText, syncChildren } from "../dom.js";
import { countText, moneyText, tokensText } from "../figures.js";
import { agentText } from "../lists/run_row.js";
import { links } from "../router.js";
import { badge, setBadge } from "../states.js";
import { agoText, dateText } from "../times.js";
import { tookText } from "./facts.js";

const FIRST = 50;
const MORE = 200;
/** @type {[string, string][]} names of the columns, and the class of their cells */
const COLUMNS = [
  ["Run", ""], ["State", ""], ["Agent", ""], ["Started", "number"], ["Took", "number"], ["In", "number"], ["Out", "number"],
  ["Cost", "number"], ["Exit", "number"], ["Why", "why-cell"],
];

/** @param {string} project @param {string} task */
export function makeRunsTable(project, task) {
  const body = h("tbody", {});
  const more = h("button", { type: "button", hidden: true, onclick: () => showMore() });
  const none = h("p", { class: "none", hidden: true }, "No run yet.");
  const table = h("table", { class: "runs-table" },
    h("thead", {}, h("tr", {}, COLUMNS.map(([name, kind]) => h("th", { scope: "col", class: kind === "number" ? kind : null }, name)))), body);
  const box = h("div", { class: "table-box", tabindex: 0, role: "region", "aria-label": "Runs" }, table);
  /** @type {any[]} */
  let runs = [];
  let most = FIRST;

  function draw() {
    syncChildren(body, runs.slice(0, most), (run) => run.id, (run) => makeRow(project, task, run), updateRow);
    const rest = runs.length - most;
    more.hidden = rest <= 0;
    setText(more, `Show ${countText(Math.min(rest, MORE))} of ${countText(rest)} older`);
    none.hidden = runs.length > 0;
    box.hidden = !runs.length;
  }
  function showMore() {
    const next = most;
    most += MORE;
    draw();
    const link = body.children[next]?.querySelector("a");
    if (link instanceof HTMLElement) link.focus();
  }
  return {
    element: h("section", {}, h("h2", {}, "Runs"), none, box, more),
    /** @param {any[]} shown RunSummary, the newest first */
    show(shown) {
      runs = shown;
      draw();
    },
    /** What time alone changes. */
    tick: () => syncChildren(body, runs.slice(0, most), (run) => run.id, (run) => makeRow(project, task, run), updateRow),
  };
}

/** @param {string} project @param {string} task @param {any} run */
function makeRow(project, task, run) {
  const cells = COLUMNS.slice(2).map(([, kind]) => h("td", { class: kind || null }));
  return h("tr", { "data-row": true },
    h("td", {}, h("a", { class: "id clip", href: links.run(project, task, run.id), title: run.id }, run.id)),
    h("td", {}, badge(run.status)), cells);
}

/** @param {Element} row @param {any} run */
function updateRow(row, run) {
  const [, state, ...cells] = row.children;
  setBadge(/** @type {Element} */ (state.firstElementChild), run.status);
  const why = run.error_summary ?? run.reason ?? "";
  const texts = [
    agentText(run), agoText(run.start_time), tookText(run), tokensText(run.input_tokens), tokensText(run.output_tokens),
    moneyText(run.cost_usd, run.cost_estimated), run.exit_code < 0 ? "–" : String(run.exit_code), why.length > 160 ? `${why.slice(0, 160)}…` : why,
  ];
  texts.forEach((text, at) => setText(cells[at], text));
  setAttribute(cells[1], "title", dateText(run.start_time));
  setAttribute(cells[7], "title", why || null);
}
