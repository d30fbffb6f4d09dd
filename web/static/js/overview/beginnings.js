// @ts-check
// What to do where nothing has been run yet.

import { h } from "../dom.js";
import { command } from "../parts.js";

const STEPS = /** @type {[string, string][]} */ ([
  ["Try it out: the plan that comes with it, with an agent that costs nothing.", "./run-all-tasks.py --agent offline"],
  ["One agent, once, on the folder where you are.", "./run-agent.py claude . prompt.md"],
  ["A plan of your own: a commented example, then the plan.", "./run-all-tasks.py --init my-plan.yaml"],
]);

export function beginnings() {
  return h("div", { class: "card beginnings" },
    h("h2", {}, "Nothing has been run here yet"),
    h("p", { class: "quiet" }, "Start something in a terminal, in the folder of the toolkit; it appears here by itself."),
    h("ol", {}, STEPS.map(([words, line]) => h("li", {}, h("p", {}, words), command(line)))));
}
