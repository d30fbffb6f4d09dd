// @ts-check
// A run in a list: how it stands, what it is of, who worked on it, when, how long, for how much.

import { h, setText } from "../dom.js";
import { moneyText, tokensText } from "../figures.js";
import { links } from "../router.js";
import { badge, setBadge } from "../states.js";
import { spanText } from "../times.js";
import { cell, rowOf, setAgo, setClipped, setLink } from "./cells.js";

/** @type {[string, string][]} */
export const RUN_COLUMNS = [
  ["state", "State"], ["run", "Run"], ["task", "Task"], ["agent", "Agent"], ["started", "Started"],
  ["took number", "Took"], ["tokens number", "Tokens in / out"], ["cost number", "Cost"],
];

/** @returns {import("./cells.js").Row} */
export function runRow() {
  const state = badge("");
  const [project, task, run] = [h("a", { class: "quiet" }), h("a", {}), h("a", { class: "mono" })];
  const [agent, took, tokens, cost] = [h("span", {}), h("span", {}), h("span", {}), h("span", {})];
  const started = h("time", {});
  const element = rowOf([
    cell("state", state), cell("run clip", run), cell("task clip", task, " ", project), cell("agent clip", agent),
    cell("started", started), cell("took number", took), cell("tokens number", tokens), cell("cost number", cost),
  ]);

  /** @param {any} found as a search gives it */
  function update(found) {
    setBadge(state, found.status);
    state.title = found.error_summary ?? found.reason ?? "";
    setLink(run, links.run(found.project_id, found.task_id, found.run_id), found.run_id);
    setLink(task, links.task(found.project_id, found.task_id), found.task_id, `${found.task_id}${found.title ? `: ${found.title}` : ""}`);
    setLink(project, links.project(found.project_id), found.project_id);
    setClipped(agent, agentText(found));
    setAgo(started, found.start_time);
    setText(took, found.end_time || found.status === "running" ? spanText(found.start_time, found.end_time) : "–");
    setText(tokens, tokensPair(found));
    setText(cost, moneyText(found.cost_usd, found.cost_estimated));
  }
  return { element, update };
}

/** Who works, and with which model. @param {{agent: string, agent_name?: string, model?: string | null}} run */
export const agentText = ({ agent, agent_name, model }) => `${agent_name || agent || "–"}${model ? ` · ${model}` : ""}`;

/** @param {{input_tokens?: number | null, output_tokens?: number | null}} used */
export function tokensPair({ input_tokens, output_tokens }) {
  const isKnown = typeof input_tokens === "number" || typeof output_tokens === "number";
  return isKnown ? `${tokensText(input_tokens)} / ${tokensText(output_tokens)}` : "–";
}
