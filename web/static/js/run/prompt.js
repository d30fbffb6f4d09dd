// @ts-check
// The prompt of a task, folded; it is asked for when it is opened.

import { addresses, get, getIfThere, Refused } from "../api.js";
import { h, setText } from "../dom.js";

const MOST_BYTES = 256 << 10;

/** `run`: the id of the newest, "" for none. @typedef {{run: string, isPlanned: boolean}} Known */

/** @param {string} project @param {string} task @param {() => Known} known */
export function makePrompt(project, task, known) {
  const text = h("pre", { class: "card prompt-text", tabindex: 0 });
  const element = h("details", { ontoggle: () => element.open && load() }, h("summary", {}, h("b", {}, "Prompt")), text);

  async function load() {
    try {
      setText(text, await promptOf(project, task, known()) || "There is none yet.");
    } catch (error) {
      setText(text, error instanceof Refused ? `${error.message}.` : "The server does not answer.");
    }
  }
  return h("section", {}, element);
}

/** That of its loop; a task of a plan has but that of each run.
 * @param {string} project @param {string} task @param {Known} known @returns {Promise<string>} */
async function promptOf(project, task, { run, isPlanned }) {
  const own = isPlanned ? null : await getIfThere(addresses.taskPrompt(project, task));
  if (own || !run) return own?.content ?? "";
  const { lines, size, end } = await get(addresses.lines(run, { name: "prompt.md", line: 1, limit: MOST_BYTES }));
  return lines.join("\n") + (end < size ? "\n… the run has all of it, as a file" : "");
}
