// @ts-check
// Pieces that several views show.

import { notice } from "./dialogs.js";
import { h, setAttribute, setText } from "./dom.js";
import { links } from "./router.js";

/** Where one is: links from the overview down. @param {{project?: string, task?: string, run?: string}} place */
export function trail({ project = "", task = "", run = "" }) {
  const steps = [h("a", { href: links.overview() }, "Overview")];
  if (project) steps.push(h("a", { href: links.project(project) }, project));
  if (project && task) steps.push(h("a", { href: links.task(project, task) }, task));
  if (run) steps.push(h("a", { href: links.run(project, task, run) }, run));
  return h("nav", { "aria-label": "You are here" }, h("ol", { class: "trail" }, steps.map((step) => h("li", {}, step))));
}

/** Title, badges and buttons of a view. @param {string} title @param {unknown[]} beside
 * @param {unknown[]} actions */
export function heading(title, beside = [], actions = []) {
  return h("div", { class: "heading" },
    h("h1", { tabindex: -1 }, title), beside,
    h("div", { class: "actions" }, actions));
}

/** Links between the views of one thing. @param {string} label
 * @param {[string, string, boolean][]} tabs words, address, whether it is the one that is shown */
export function tabs(label, tabs) {
  return h("nav", { class: "tabs", "aria-label": label },
    tabs.map(([words, href, isShown]) => h("a", { href, "aria-current": isShown ? "page" : null }, words)));
}

/** A line for a terminal, with a button that copies it. @param {string} line */
export function command(line) {
  return h("span", { class: "command" }, h("code", {}, line),
    h("button", { type: "button", class: "plain", "aria-label": `Copy: ${line}`, onclick: () => copy(line) }, "Copy"));
}

/** @param {string} text */
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    notice("Copied.");
  } catch {
    notice("The browser does not let the page copy; select the text."); // such as on plain HTTP
  }
}

/** The sentence of a refusal, in place of what cannot be shown. */
export function problem() {
  const element = h("p", { class: "problem", role: "alert", hidden: true });
  return {
    element,
    /** @param {string} text "" for none */
    show(text) {
      setText(element, text);
      setAttribute(element, "hidden", text ? null : "");
    },
  };
}
