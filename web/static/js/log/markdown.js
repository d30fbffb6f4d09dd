// @ts-check
// A transcript as a tree of what is in it; without a document.
//
// A transcript is Markdown of an agent, between lines of the recorder: `▶` a tool call, under it
// what came of it, indented; `▷` with what it began, `■` how it ended.  Of Markdown there are
// headings, paragraphs, lists, code, bold, and links with http or https; all else stays as it is.

/** @typedef {{kind: "text" | "code" | "bold", text: string} | {kind: "link", text: string, href: string}} Inline */
/** `line` is that of its first line, from 0; `isMore`: it goes on with the paragraph before it.
 * @typedef {{line: number, source: string, isMore: boolean} & (
 *   {kind: "heading", level: number, text: Inline[]} | {kind: "paragraph", text: Inline[]}
 *   | {kind: "list", isOrdered: boolean, start: number, items: Inline[][]}
 *   | {kind: "code", language: string, text: string}
 *   | {kind: "call", summary: string, result: string, isError: boolean}
 *   | {kind: "note", text: string, isEnd: boolean})} Block */

const FENCE = /^ {0,3}(```+|~~~+) *([\w+#.-]{0,30})[^`]*$/;
const HEADING = /^(#{1,6}) +(.*?) *#*$/;
const ITEM = /^ {0,3}(?:([-*+])|(\d{1,6})[.)]) +(.*)$/;
const RECORDED = /^[▶▷■] /u;
const INDENT = "    ";
const MOST_LINES = 25; // of a paragraph in one block: what grows is made anew
const MOST_INLINE = 20_000; // characters of a paragraph that are looked through for marks

/** @param {string[]} lines @param {number} [first] the number of the first of them @returns {Block[]} */
export function parse(lines, first = 0) {
  /** @type {Block[]} */
  const blocks = [];
  for (let at = 0; at < lines.length; ) {
    if (!lines[at].trim()) {
      at += 1;
      continue;
    }
    const [end, block] = blockAt(lines, at);
    const isMore = at > 0 && blocks.at(-1)?.kind === "paragraph" && lines[at - 1].trim() !== "";
    blocks.push(/** @type {Block} */ ({ ...block, isMore, line: first + at, source: lines.slice(at, end).join("\n") }));
    at = end;
  }
  return blocks;
}

/** @param {string[]} lines @param {number} at @returns {[number, object]} where it ends, and what it is */
function blockAt(lines, at) {
  const line = lines[at];
  if (line.startsWith("▶ ")) return callAt(lines, at);
  if (RECORDED.test(line)) return [at + 1, { kind: "note", text: line.slice(2), isEnd: line.startsWith("■") }];
  const fence = FENCE.exec(line);
  if (fence) return codeAt(lines, at, fence[1], fence[2]);
  const heading = HEADING.exec(line);
  if (heading) return [at + 1, { kind: "heading", level: heading[1].length, text: inline(heading[2]) }];
  if (ITEM.test(line)) return listAt(lines, at);
  if (line.startsWith("|")) return tableAt(lines, at);
  let end = at + 1;
  while (end < lines.length && end < at + MOST_LINES && isMoreOfParagraph(lines[end])) end += 1;
  return [end, { kind: "paragraph", text: inline(lines.slice(at, end).join("\n")) }];
}

/** @param {string} line */
const isMoreOfParagraph = (line) =>
  line.trim() !== "" && ![RECORDED, FENCE, HEADING, ITEM].some((mark) => mark.test(line));

/** A call and what came of it: all that is indented, with the empty lines in between.
 * @param {string[]} lines @param {number} at @returns {[number, object]} */
function callAt(lines, at) {
  let end = at + 1;
  for (let next = end; next < lines.length && (lines[next] === "" || lines[next].startsWith(INDENT)); next += 1) {
    if (lines[next]) end = next + 1;
  }
  const result = lines.slice(at + 1, end).map((line) => line.slice(INDENT.length));
  const isError = result[0]?.startsWith("✗ ") ?? false;
  return [end, { kind: "call", summary: lines[at].slice(2), result: result.join("\n"), isError }];
}

/** A line of the recorder ends it, too: a part of a file may begin within code.
 * @param {string[]} lines @param {number} at @param {string} fence @param {string} language
 * @returns {[number, object]} */
function codeAt(lines, at, fence, language) {
  let end = at + 1;
  while (end < lines.length && !isEndOf(fence, lines[end]) && !RECORDED.test(lines[end])) end += 1;
  const isClosed = end < lines.length && !RECORDED.test(lines[end]);
  return [isClosed ? end + 1 : end, { kind: "code", language, text: lines.slice(at + 1, end).join("\n") }];
}

/** A table stays as it was written, in columns. @param {string[]} lines @param {number} at
 * @returns {[number, object]} */
function tableAt(lines, at) {
  let end = at;
  while (end < lines.length && lines[end].startsWith("|")) end += 1;
  return [end, { kind: "code", language: "", text: lines.slice(at, end).join("\n") }];
}

/** @param {string} fence @param {string} line */
const isEndOf = (fence, line) => line.trim().startsWith(fence) && !line.trim().replaceAll(fence[0], "");

/** @param {string[]} lines @param {number} at @returns {[number, object]} */
function listAt(lines, at) {
  const head = /** @type {RegExpExecArray} */ (ITEM.exec(lines[at]));
  const isOrdered = head[2] !== undefined;
  /** @type {string[]} */
  const items = [];
  let end = at;
  for (; end < lines.length; end += 1) {
    const item = ITEM.exec(lines[end]);
    if (item && (item[2] !== undefined) === isOrdered) items.push(item[3]);
    else if (isIndented(lines[end])) items[items.length - 1] += `\n${lines[end].trim()}`;
    else break;
  }
  return [end, { kind: "list", isOrdered, start: Number(head[2] ?? 1), items: items.map(inline) }];
}

/** @param {string} line */
const isIndented = (line) => /^ {2,}\S/.test(line) && !FENCE.test(line);

const MARKS = /(`{1,4})([^`\n]+)\1|\*\*([^*\n]{1,2000})\*\*|\[([^[\]\n]{1,500})\]\((https?:\/\/[^\s()]{1,1000})\)|(https?:\/\/[^\s<>"'`()[\]{}]{0,999}[^\s<>"'`()[\]{}.,;:!?*])/g;

/** @param {string} text @returns {Inline[]} */
export function inline(text) {
  /** @type {Inline[]} */
  const pieces = [];
  let from = 0;
  /** @param {number} to */
  const add = (to) => to > from && pieces.push({ kind: "text", text: text.slice(from, to) });
  for (const match of text.slice(0, MOST_INLINE).matchAll(MARKS)) {
    add(match.index);
    pieces.push(pieceOf(match));
    from = match.index + match[0].length;
  }
  add(text.length);
  return pieces;
}

/** @param {RegExpMatchArray} match @returns {Inline} */
function pieceOf([whole, , code, bold, words, href, bare]) {
  if (code !== undefined) return { kind: "code", text: code };
  if (bold !== undefined) return { kind: "bold", text: bold };
  if (href !== undefined) return isWeb(href) ? { kind: "link", text: words, href } : { kind: "text", text: whole };
  return isWeb(bare) ? { kind: "link", text: bare, href: bare } : { kind: "text", text: bare };
}

/** Whether it is an address that a browser takes for one of the web.  @param {string} text */
function isWeb(text) {
  return URL.canParse(text) && ["http:", "https:"].includes(new URL(text).protocol);
}
