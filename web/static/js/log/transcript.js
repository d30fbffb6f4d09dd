// @ts-check
// A transcript as it is read: text of the agent, and its tool calls, folded.

import { h, setAttribute } from "../dom.js";
import { parse } from "./markdown.js";
import { plain } from "./text.js";

/** @typedef {import("./markdown.js").Block} Block */
/** @typedef {import("./markdown.js").Inline} Inline */

/** @param {import("./line_row.js").Look} look @returns {import("./flow.js").Maker<Block>} */
export function transcriptMaker(look) {
  return {
    items: (lines, first) => parse(lines.map((line) => plain(line, look.withCodes)), first),
    make: (block) => h("div", { class: `block block-${block.kind}`, "data-line": block.line + 1 }),
    update: (element, block) => update(element, block, look),
  };
}

/** @type {WeakMap<Element, string>} */
const shownAs = new WeakMap();

/** What is unfolded stays so. @param {Element} element @param {Block} block @param {import("./line_row.js").Look} look */
function update(element, block, look) {
  const isMarked = look.marked >= block.line && look.marked < block.line + block.source.split("\n").length;
  setAttribute(element, "aria-current", isMarked ? "true" : null);
  if (shownAs.get(element) !== block.kind + block.source) {
    shownAs.set(element, block.kind + block.source);
    const isOpen = element.querySelector("details")?.open ?? false;
    element.className = `block block-${block.kind}${block.isMore && block.kind === "paragraph" ? " block-more" : ""}`;
    element.replaceChildren(elementOf(block));
    const details = element.querySelector("details");
    if (details) details.open = isOpen;
  }
  const details = element.querySelector("details");
  if (isMarked && details) details.open = true;
}

/** @param {Block} block @returns {HTMLElement} */
function elementOf(block) {
  switch (block.kind) {
    case "heading": return h("h3", { class: `level-${block.level}` }, inline(block.text));
    case "list": return list(block);
    case "code": return h("pre", { "data-language": block.language || null, tabindex: 0 }, block.text);
    case "call": return call(block);
    case "note": return h("p", { class: block.isEnd ? "note note-end" : "note" }, block.text);
    default: return h("p", {}, inline(block.text));
  }
}

/** @param {Extract<Block, {kind: "list"}>} block */
function list(block) {
  const items = block.items.map((item) => h("li", {}, inline(item)));
  return block.isOrdered ? h("ol", { start: block.start }, items) : h("ul", {}, items);
}

/** @param {Extract<Block, {kind: "call"}>} block */
function call(block) {
  const [, who = "", name = "", what = block.summary] = /^(\S+) ([^:]{1,80}): (.*)$/s.exec(block.summary) ?? [];
  const head = [
    who && who !== "tool" && h("span", { class: "quiet" }, `${who} `), name && h("b", {}, name), " ",
    h("code", {}, what), block.isError && h("span", { class: "call-failed" }, "failed"),
  ];
  if (!block.result) return h("p", { class: "call" }, head);
  return h("details", { class: "call" }, h("summary", {}, head), h("pre", { tabindex: 0 }, block.result));
}

/** @param {Inline[]} pieces */
const inline = (pieces) => pieces.map((piece) => {
  if (piece.kind === "code") return h("code", {}, piece.text);
  if (piece.kind === "bold") return h("strong", {}, piece.text);
  return piece.kind === "link" ? link(piece.text, piece.href) : piece.text;
});

/** Where it leads stands beside words that do not say it. @param {string} words @param {string} href */
function link(words, href) {
  const element = h("a", { href, title: href, target: "_blank", rel: "noreferrer noopener" }, words);
  return words === href ? element : [element, h("span", { class: "quiet" }, ` (${new URL(href).host})`)];
}
