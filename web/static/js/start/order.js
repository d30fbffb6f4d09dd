// @ts-check
// What the form asks for: in words, as a request, as options of the script, and what is wrong with it.
// Pure.

import { lengthProblem } from "../api.js";
import { nameProblem } from "../names.js";

/** @typedef {{project: string, task: string, agent: string, prompt: string, folder: string, needs: string[]}} Order */
/** @typedef {"project" | "task" | "agent" | "prompt" | "folder" | "needs"} FieldName */

const ATTEMPTS = 100; // as run-task has it, unless it is told otherwise

/** Names between commas or spaces, each once. @param {string} text */
export const namesIn = (text) => [...new Set(text.split(/[\s,]+/).filter(Boolean))];

/** What a list proposes for the last of several names. @param {string} text @param {string[]} names */
export function completions(text, names) {
  const [, before, last] = /** @type {RegExpMatchArray} */ (text.match(/^(.*[\s,])?([^\s,]*)$/s));
  const chosen = namesIn(before ?? "");
  return names.filter((name) => !chosen.includes(name) && name.includes(last)).slice(0, 50).map((name) => `${before ?? ""}${name}`);
}

/** Some sentences. @param {Order} order @param {boolean} isKnown there is such a task */
export function whatHappens({ project, task, agent, folder, needs }, isKnown) {
  const who = agent || "the agent";
  const where = folder ? `in ${folder}` : isKnown ? "in the folder that it had before" : "in the folder of the task";
  const first = needs.length ? `Waits until ${needs.join(", ")} ${needs.length === 1 ? "is" : "are"} done, then starts` : "Starts";
  return `${first} ${who} on ${task || "the task"} of ${project || "the project"}, ${where}. `
    + `When it ends and the file DONE is not there, it is started again: up to ${ATTEMPTS} times. `
    + "It works with the rights of this server, and asks nobody.";
}

/** A sentence for each field with which something is wrong.
 * @param {Order} order @param {{name: string, ready: boolean, problem: string}[]} agents
 * @returns {Partial<Record<FieldName, string>>} */
export function problemsOf(order, agents) {
  const agent = agents.find((each) => each.name === order.agent);
  const found = {
    project: nameProblem("project", order.project),
    agent: !order.agent ? "Choose an agent." : agent && !agent.ready ? agent.problem || "It is not ready." : "",
    prompt: !order.prompt.trim() ? "Say what is to be done." : lengthProblem(order.prompt),
    task: nameProblem("task", order.task),
    folder: order.folder && !/^[/~]/.test(order.folder) ? "Give an absolute path: it begins with a slash." : "",
    needs: needsProblem(order),
  };
  return Object.fromEntries(Object.entries(found).filter(([, sentence]) => sentence));
}

/** @param {Order} order */
function needsProblem({ needs, task }) {
  if (needs.includes(task)) return "A task cannot wait for itself.";
  const bad = needs.find((name) => nameProblem("task", name));
  return bad ? `${bad}: ${nameProblem("task", bad)}` : "";
}

/** @param {Order} order */
export function requestOf({ project, task, agent, prompt, folder, needs }) {
  return {
    project_id: project, task_id: task, agent_type: agent, prompt,
    ...(folder && { project_root: folder }),
    ...(needs.length && { depends_on: needs }),
  };
}

/** What bin/run-task is to be told besides project and task. @param {Order} order */
export function optionsOf({ agent, prompt, folder, needs }) {
  const isShort = prompt.trim() && prompt.trim().length <= 60 && !prompt.trim().includes("\n");
  return [
    ...(agent ? ["--agent", agent] : []),
    ...(folder ? ["--cwd", folder] : []),
    ...(needs.length ? ["--depends-on", needs.join(",")] : []),
    ...(isShort ? ["--prompt", prompt.trim()] : ["--prompt-file", "PROMPT.md"]),
  ];
}

/** The field that a refusal of the server is about; "" for one that is about none.
 * @param {string} message @returns {FieldName | ""} */
export function fieldOf(message) {
  /** @type {[RegExp, FieldName][]} */
  const fields = [
    [/^project_root/, "folder"], [/^project_id/, "project"], [/^(task_id|task is)/, "task"],
    [/^depends_on/, "needs"], [/^(agent|agent_type)\b/, "agent"], [/^prompt/, "prompt"],
  ];
  return fields.find(([form]) => form.test(message))?.[1] ?? "";
}
