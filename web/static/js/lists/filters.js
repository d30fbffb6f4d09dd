// @ts-check
// Fields above a list by which it is made shorter; what they say stands in the page's address, too.

import { h, setAttribute } from "../dom.js";

const PAUSE_MS = 200; // after the last letter

/** A field for words. @param {string} label @param {string} placeholder @param {(words: string) => void} onWords */
export function wordField(label, placeholder, onWords) {
  let timer = 0;
  const input = h("input", {
    type: "search", "data-search": true, "aria-label": label, placeholder, autocomplete: "off", spellcheck: "false", maxlength: 500,
    oninput: () => {
      clearTimeout(timer);
      timer = setTimeout(() => onWords(input.value.trim()), PAUSE_MS);
    },
  });
  return {
    element: input,
    /** @param {string} words */
    set(words) {
      clearTimeout(timer);
      if (input.value.trim() !== words) input.value = words;
    },
    close: () => clearTimeout(timer),
  };
}

/** One of some, as buttons. @param {string} label
 * @param {[string, string][]} choices value and words; the first is chosen where none else is
 * @param {(value: string) => void} onChoice */
export function choice(label, choices, onChoice) {
  const buttons = choices.map(([value, words]) =>
    h("button", { type: "button", "data-value": value, onclick: () => onChoice(value) }, words));
  return {
    element: h("div", { class: "choice", role: "group", "aria-label": label }, buttons),
    /** @param {string} chosen */
    set(chosen) {
      const at = choices.findIndex(([value]) => value === chosen);
      buttons.forEach((button, number) => setAttribute(button, "aria-pressed", String(number === Math.max(0, at))));
    },
  };
}

/** Puts it into the page's address, without another entry in the history. @param {string} href */
export function setAddress(href) {
  if (location.hash !== href) history.replaceState(history.state, "", href);
}
