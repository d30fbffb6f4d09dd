// @ts-check
// Questions before something is done, and short notices after it.

import { byId, h } from "./dom.js";

const NOTICE_MS = 8000;

/** Says it for some seconds, to screen readers too.
 * @param {string} text @param {{href: string, words: string}} [link] where more is to be seen */
export function notice(text, link) {
  const element = h("p", {}, text, link && [" ", h("a", { href: link.href }, link.words)]);
  byId("notices").append(element);
  let timer = setTimeout(() => element.remove(), NOTICE_MS);
  if (!link) return;
  // Who is about to follow the link finds it still there.
  for (const name of ["focusin", "pointerenter"]) element.addEventListener(name, () => clearTimeout(timer));
  for (const name of ["focusout", "pointerleave", "click"]) {
    element.addEventListener(name, () => {
      clearTimeout(timer);
      timer = setTimeout(() => element.remove(), NOTICE_MS / 4);
    });
  }
}

/** Shows a dialog until it is closed, or another place is gone to; the focus goes back to where it was.
 * @param {HTMLDialogElement} dialog */
export function show(dialog) {
  const before = document.activeElement;
  const close = () => dialog.close();
  document.body.append(dialog);
  window.addEventListener("hashchange", close);
  dialog.addEventListener("close", () => {
    window.removeEventListener("hashchange", close);
    dialog.remove();
    if (before instanceof HTMLElement || before instanceof SVGElement) before.focus();
  });
  dialog.showModal();
}

/** One thing that a person can choose.
 * @typedef {{value: string, words: string, isDanger?: boolean}} Choice */

/** Asks, having said what will happen, and gives the value that was chosen, "" for none.
 *
 * The focus is on the first choice that ends nothing, else on the button that leaves all as it is, as the first.
 * @param {{title: string, what: string[], command?: string, choices: Choice[]}} question
 *   what: sentences; command: the line that does the same in a terminal
 * @returns {Promise<string>} */
export function choose({ title, what, command = "", choices }) {
  return new Promise((resolve) => {
    const safe = choices.find((choice) => !choice.isDanger);
    const buttons = choices.map((choice) => h("button", {
      value: choice.value, autofocus: choice === safe,
      class: choice.isDanger ? "first danger" : "first",
    }, choice.words));
    const dialog = h("dialog", { "aria-labelledby": "dialog-title", "aria-describedby": "dialog-what" },
      h("form", { method: "dialog" },
        h("h2", { id: "dialog-title" }, title),
        h("ul", { id: "dialog-what" }, what.map((sentence) => h("li", {}, sentence))),
        command && h("p", { class: "small" }, "The same in a terminal:", h("span", { class: "command" }, h("code", {}, command))),
        h("p", { class: "actions" }, h("button", { value: "" }, "Leave it"), buttons)));
    dialog.addEventListener("close", () => resolve(dialog.returnValue));
    show(dialog);
  });
}

/** Asks whether to do it. @param {{title: string, what: string[], command?: string, action: string,
 *   isDanger?: boolean}} question action: the word on the button
 * @returns {Promise<boolean>} */
export async function confirm({ action, isDanger = false, ...question }) {
  return (await choose({ ...question, choices: [{ value: "yes", words: action, isDanger }] })) === "yes";
}

/** Says why something was not done, and with which line for a terminal it can be.
 * @param {string} sentence @param {string} command */
export function explain(sentence, command) {
  const dialog = h("dialog", { "aria-labelledby": "dialog-title" },
    h("form", { method: "dialog" },
      h("h2", { id: "dialog-title" }, "Not done"),
      h("p", {}, sentence),
      h("p", { class: "command" }, h("code", {}, command)),
      h("p", { class: "actions" }, h("button", { autofocus: true }, "Close"))));
  show(dialog);
}

/** The keys of the page, and of the view that is shown. @param {[string, string][]} keys */
export function showKeys(keys) {
  if (document.querySelector("dialog[open]")) return;
  show(h("dialog", { "aria-labelledby": "dialog-title" },
    h("form", { method: "dialog" },
      h("h2", { id: "dialog-title" }, "Keys"),
      h("dl", { class: "facts" }, keys.map(([key, what]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, what)])),
      h("p", { class: "actions" }, h("button", { autofocus: true }, "Close")))));
}
