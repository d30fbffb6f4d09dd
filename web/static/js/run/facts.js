// @ts-check
// What is known of a run, as names and values that are updated in place.

import { h, setAttribute, setText, syncChildren } from "../dom.js";
import { countText, moneyText, tokensText } from "../figures.js";
import { agoText, dateText, msOf, secondsText, spanText } from "../times.js";

/** A value; the whole of it in `title`, an address where it leads somewhere.
 * @typedef {{name: string, text: string, title?: string, href?: string}} Fact */

/** @param {string} kind a class: `strip` for a line of them, `facts` for a list */
export function makeFacts(kind) {
  const element = h("dl", { class: kind });
  return {
    element,
    /** @param {(Fact | null | false)[]} facts what is not known is left out */
    show(facts) {
      const known = /** @type {Fact[]} */ (facts.filter((fact) => fact && fact.text && fact.text !== "–"));
      syncChildren(element, known, (fact) => fact.name + Boolean(fact.href), make, update);
    },
  };
}

/** @param {Fact} fact */
const make = (fact) => h("div", {}, h("dt", {}, fact.name), h("dd", {}, fact.href ? h("a", {}) : h("span", {})));

/** @param {Element} element @param {Fact} fact */
function update(element, fact) {
  const value = /** @type {Element} */ (element.lastElementChild?.firstElementChild);
  setText(value, fact.text);
  setAttribute(value, "title", fact.title ?? null);
  if (fact.href) setAttribute(value, "href", fact.href);
}

/** The line above the files. @param {any} run RunDetail @param {any} family @param {any} attempt of its plan
 * @returns {(Fact | false)[]} */
export function summaryOf(run, family, attempt) {
  const isRunning = run.status === "running";
  return [
    { name: "Agent", text: agentText(run, family, attempt) },
    { name: "Model", text: family.model ?? run.model ?? "" },
    { name: "Attempt", text: attemptText(family.attempt) },
    { name: "Exit code", text: exitText(family, isRunning) },
    { name: "Verdict", text: attempt?.verdict ?? "" },
    { name: "Started", text: agoText(run.start_time), title: dateText(run.start_time) },
    { name: isRunning ? "For" : "Took", text: tookText(run) },
    { name: "Tokens in", text: tokensText(run.input_tokens), title: `${countText(run.input_tokens)} tokens` },
    { name: "Cached", text: tokensText(run.cached_tokens), title: `${countText(run.cached_tokens)} of these tokens` },
    { name: "Out", text: tokensText(run.output_tokens), title: `${countText(run.output_tokens)} tokens` },
    { name: "Cost", text: moneyText(run.cost_usd, run.cost_estimated), title: run.cost_estimated ? "reckoned from list prices" : "" },
  ];
}

/** What stands beside the files. @param {any} run @param {any} family @returns {Fact[]} */
export function detailsOf(run, family) {
  return [
    { name: "Working folder", text: run.cwd ?? "" },
    { name: "Run folder", text: run.path ?? "" },
    { name: "Agent version", text: family.agent_version ?? run.agent_version ?? "" },
    { name: "Command", text: clipped(run.commandline ?? ""), title: run.commandline ?? "" },
    { name: "Process", text: run.status === "running" && run.pid ? String(run.pid) : "" },
    { name: "Kept by", text: run.alive_by ?? "" },
    { name: "Started", text: dateText(run.start_time) },
    { name: "Ended", text: Number.isNaN(msOf(run.end_time)) ? "" : dateText(run.end_time) },
  ];
}

/** @param {string} text */
const clipped = (text) => (text.length > 300 ? `${text.slice(0, 300)}…` : text);

/** @param {any} run @param {any} family @param {any} attempt */
function agentText(run, family, attempt) {
  const used = family.agent || run.agent_name || run.agent || "";
  const asked = attempt?.instead_of;
  return asked && asked !== used ? `${used}, instead of ${asked}` : used;
}

/** `2 of 3`. @param {{number: number, of: number | null} | null | undefined} attempt */
const attemptText = (attempt) =>
  (attempt ? `${attempt.number}${attempt.of ? ` of ${attempt.of}` : ""}` : "");

/** `3`, `137, SIGKILL`. @param {any} family @param {boolean} isRunning */
function exitText(family, isRunning) {
  if (isRunning) return "";
  const code = family.exit_code === null || family.exit_code === undefined || family.exit_code < 0 ? "" : String(family.exit_code);
  return [code, family.signal ?? ""].filter(Boolean).join(", ") || "not known";
}

/** Until now only for one that runs: nobody knows when one ended that was cut off. @param {any} run */
export function tookText(run) {
  if (run.status === "running") return spanText(run.start_time);
  const ms = msOf(run.end_time) - msOf(run.start_time);
  return secondsText(Number.isNaN(ms) ? null : ms / 1000);
}
