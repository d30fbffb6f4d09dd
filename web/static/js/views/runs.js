// @ts-check
// All runs, the newest first, found by words and by how they stand.

import { addresses } from "../api.js";
import { h } from "../dom.js";
import { filteredList } from "../lists/filtered_list.js";
import { RUN_COLUMNS, runRow } from "../lists/run_row.js";
import { command, heading } from "../parts.js";
import { links } from "../router.js";

/** @typedef {import("../router.js").Place} Place */

/** In the words of the server and of the page. @type {[string, string][]} */
const STATES = [["", "All"], ["running", "Running"], ["completed", "Done"], ["failed", "Failed"], ["unknown", "Unknown"]];

/** @param {Place} place @returns {import("../main.js").View} */
export function openRuns(place) {
  const list = filteredList({
    label: "Runs", name: "runs", columns: RUN_COLUMNS, makeRow: runRow, states: STATES,
    keyOf: (run) => run.run_id,
    placeholder: "id, project, task, agent, model, error, title",
    address: addresses.search,
    href: links.runs,
    wants: (change) => change.runs.length > 0,
    emptiness,
  }, wantedAt(place));
  return {
    element: h("div", {}, heading("Runs", [list.total]), list.element),
    title: "Runs",
    up: links.overview(),
    update(other) {
      list.choose(wantedAt(other));
      return true;
    },
    close: list.close,
  };
}

/** @param {Place} place */
function wantedAt({ query }) {
  const status = query.get("status") ?? "";
  return { q: query.get("q") ?? "", status: status === "done" ? "completed" : status };
}

/** @param {boolean} isFiltered */
function emptiness(isFiltered) {
  if (isFiltered) return h("p", { class: "none" }, "No run in this state has all these words.");
  return h("div", {}, h("p", { class: "none" }, "There is no run yet. Start one in a terminal:"),
    command("./run-agent.py claude . prompt.md"));
}
