// @ts-check
// What stands above a file: search, errors, going to a line, and how it is shown.

import { h, setAttribute } from "../dom.js";

/** What a person can ask for.
 * @typedef {{find: (isBackward: boolean) => void, words: (words: string) => void,
 *   error: (isBackward: boolean) => void, line: (line: number) => void, beginning: () => void,
 *   end: () => void, toggle: (name: "readable" | "wrap" | "codes") => void}} Wishes */

/** @param {Wishes} wishes */
export function makeTools(wishes) {
  const state = h("span", { class: "log-found", role: "status" });
  const raw = h("a", { class: "button", download: true }, "Raw file");
  const toggles = {
    readable: toggle("Readable", "Markdown and folded tool calls, or the file as it is", () => wishes.toggle("readable")),
    wrap: toggle("Wrap", "Break long lines", () => wishes.toggle("wrap")),
    codes: toggle("Codes", "Show control codes, such as those for colours", () => wishes.toggle("codes")),
  };
  const element = h("div", { class: "log-tools" },
    searchForm(wishes, state),
    h("span", { class: "joined" },
      button("◂ Error", "Error before (E)", () => wishes.error(true)),
      button("Error ▸", "Next error (e)", () => wishes.error(false))),
    lineForm(wishes),
    h("span", { class: "joined" },
      button("⤒", "To the beginning", wishes.beginning), button("⤓", "To the end", wishes.end)),
    h("span", { class: "log-toggles" }, Object.values(toggles), raw));
  return { element, state, raw, toggles };
}

/** @param {Wishes} wishes @param {HTMLElement} state */
function searchForm(wishes, state) {
  const field = h("input", {
    type: "search", "data-search": true, "aria-label": "Search in the file", placeholder: "Search in the file",
    maxlength: 200, spellcheck: "false", oninput: () => wishes.words(field.value),
    onkeydown: (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      wishes.find(event.shiftKey);
    },
  });
  return h("form", { role: "search", onsubmit: (event) => event.preventDefault() },
    h("span", { class: "log-search" }, field, state),
    h("span", { class: "joined" },
      button("▴", "Match before (Shift+Enter)", () => wishes.find(true)),
      button("▾", "Next match (Enter)", () => wishes.find(false))));
}

/** @param {Wishes} wishes */
function lineForm(wishes) {
  const field = h("input", {
    class: "log-line-field", inputmode: "numeric", pattern: "[0-9]*", maxlength: 12, "aria-label": "Go to line", placeholder: "Line",
  });
  return h("form", {
    onsubmit: (event) => {
      event.preventDefault();
      if (Number(field.value) > 0) wishes.line(Math.floor(Number(field.value)));
    },
  }, field);
}

/** @param {string} words @param {string} label @param {() => void} onclick */
const button = (words, label, onclick) =>
  h("button", { type: "button", "aria-label": label, title: label, onclick }, words);

/** @param {string} words @param {string} title @param {() => void} onclick */
const toggle = (words, title, onclick) =>
  h("button", { type: "button", title, "aria-pressed": "false", onclick }, words);

/** @param {HTMLElement} element @param {boolean} isOn @param {boolean} [isOffered] */
export function setToggle(element, isOn, isOffered = true) {
  setAttribute(element, "aria-pressed", String(isOn));
  setAttribute(element, "hidden", isOffered ? null : "");
}
