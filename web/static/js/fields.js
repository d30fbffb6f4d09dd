// @ts-check
// Fields of forms: each with its label, a hint, and what is wrong with it beside it.

import { h, setAttribute, setText } from "./dom.js";

let made = 0;

/** @typedef {HTMLInputElement | HTMLTextAreaElement | HTMLSelectElement} Control */
/** @typedef {{element: HTMLElement, control: Control, problem: (sentence: string) => void,
 *   hint: (sentence: string) => void}} Field */

/** A field around a control.
 * @param {string} label @param {Control} control @param {{hint?: string, list?: HTMLDataListElement}} [more]
 * @returns {Field} */
export function field(label, control, { hint = "", list } = {}) {
  made += 1;
  const id = `field-${made}`;
  control.id = id;
  const hintLine = h("p", { class: "hint quiet small", id: `${id}-hint` }, hint);
  const wrong = h("p", { class: "wrong small", id: `${id}-wrong`, role: "alert" });
  hintLine.hidden = !hint;
  wrong.hidden = true;
  control.setAttribute("aria-describedby", `${id}-hint ${id}-wrong`);
  if (list) {
    list.id = `${id}-list`;
    control.setAttribute("list", list.id);
  }
  return {
    element: h("div", { class: "field" }, h("label", { for: id }, label), control, list, hintLine, wrong),
    control,
    problem(sentence) {
      setText(wrong, sentence);
      wrong.hidden = !sentence;
      setAttribute(control, "aria-invalid", sentence ? "true" : null);
    },
    hint(sentence) {
      setText(hintLine, sentence);
      hintLine.hidden = !sentence;
    },
  };
}

/** What a control with a list proposes. @param {HTMLDataListElement} list @param {string[]} values */
export function propose(list, values) {
  const shown = [...list.children].map((option) => /** @type {HTMLOptionElement} */ (option).value);
  if (shown.length === values.length && shown.every((value, at) => value === values[at])) return;
  list.replaceChildren(...values.map((value) => h("option", { value })));
}

/** The choices of a select, the chosen one kept. @param {HTMLSelectElement} select
 * @param {[string, string][]} options value and words @param {string} value */
export function setOptions(select, options, value) {
  const all = value && !options.some(([known]) => known === value) ? [...options, /** @type {[string, string]} */ ([value, value])] : options;
  const known = [...select.options].map((option) => `${option.value}\n${option.text}`).join("\n");
  const wanted = all.map(([each, words]) => `${each}\n${words}`).join("\n");
  if (known !== wanted) select.replaceChildren(...all.map(([each, words]) => h("option", { value: each }, words)));
  if (select.value !== value) select.value = value;
}
