// @ts-check
// Lines for a terminal about a run or a task.

import { h } from "../dom.js";
import { command } from "../parts.js";
import { shellLine } from "../shell.js";

/** A list of them under a title; nothing changes while they are the same. @param {string} title */
export function makeAdvice(title) {
  const list = h("ul", { class: "advice" });
  let shown = "";
  return {
    element: h("section", {}, h("h2", {}, title), list),
    /** @param {[string, string[]][]} lines what it is for, and its words */
    show(lines) {
      const key = JSON.stringify(lines);
      if (key === shown) return;
      shown = key;
      list.replaceChildren(...lines.map(([what, words]) =>
        h("li", {}, h("span", { class: "small quiet" }, what), command(shellLine(...words)))));
    },
  };
}

/** @param {string} run @param {boolean} isLive @param {string[]} options @returns {[string, string[]][]} */
export function linesForRun(run, isLive, options) {
  return isLive
    ? [["Follow it", ["bin/show-run", run, "-f", ...options]], ["Stop it", ["bin/stop-run", run, ...options]]]
    : [["See it and its end", ["bin/show-run", run, ...options]],
      ["Its answer", ["bin/show-run", run, "--file", "output", "-n", "0", ...options]]];
}
