// @ts-check
// The files of a run as links, each with its size.

import { h, setAttribute, setText, syncChildren } from "../dom.js";
import { bytesText } from "../figures.js";

/** @typedef {{name: string, size: number}} File */

/** What is called how, in the order in which they stand. */
const LABELS = new Map([
  ["transcript.md", "transcript"], ["output.md", "output"], ["stdout", "stdout"], ["stderr", "stderr"],
  ["prompt.md", "prompt"], ["verify.txt", "checks"], ["supervisor.log", "supervisor"],
]);
const ORDER = [...LABELS.keys()];
const TELLING = ["transcript.md", "stdout", "stderr", "output.md", "prompt.md"];

export class FileTabs {
  /** @param {(query: Record<string, string | number>) => string} hrefOf */
  constructor(hrefOf) {
    this.hrefOf = hrefOf;
    this.element = h("nav", { class: "tabs", "aria-label": "Files of the run" });
    /** @type {File[]} */
    this.files = [];
  }

  /** @param {File[]} files those that there are now */
  set(files) {
    this.files = files.filter((file) => LABELS.has(file.name))
      .sort((one, other) => ORDER.indexOf(one.name) - ORDER.indexOf(other.name));
  }

  /** @param {Record<string, number>} sizes of those that have grown */
  takeSizes(sizes) {
    for (const file of this.files) file.size = sizes[file.name] ?? file.size;
  }

  /** @param {string} name of a file @returns {number | undefined} undefined where there is none */
  sizeOf(name) {
    return this.files.find((file) => file.name === name)?.size;
  }

  /** The file that tells most; of a live run that which will. @param {boolean} isLive */
  proposed(isLive) {
    const full = this.files.filter((file) => file.size > 0 || isLive).map((file) => file.name);
    return TELLING.find((name) => full.includes(name)) ?? this.files[0]?.name ?? "";
  }

  /** @param {string} shown the name of the file that is seen */
  show(shown) {
    syncChildren(this.element, this.files, (file) => file.name,
      (file) => h("a", { href: this.hrefOf({ file: file.name }) }, LABELS.get(file.name), " ", h("span", { class: "quiet small" })),
      (tab, file) => {
        setAttribute(tab, "aria-current", file.name === shown ? "page" : null);
        setText(tab.lastElementChild, file.size ? bytesText(file.size) : "empty");
      });
  }
}
