// A transcript as a tree: what is in it, and that nothing of it can be more than text.

import assert from "node:assert/strict";
import { test } from "node:test";

import { inline, parse } from "../../web/static/js/log/markdown.js";
import { finder, plain, split } from "../../web/static/js/log/text.js";

/** @param {string} text @returns {any[]} */
const blocks = (text) => parse(text.split("\n"));
/** @param {string} text */
const kinds = (text) => blocks(text).map((block) => block.kind);

test("a transcript of the recorder has notes, calls with their results, and what the agent said", () => {
  const [begin, said, call, failed, end, ...more] = blocks(
    "▷ session 1, model m\n\nI look.\n\n▶ tool Bash: ls -l\n    a.c\n\n    b.c\n▶ tool Edit: a.c\n    ✗ not found\n\n■ done, 4 turns\n");
  assert.deepEqual([begin.kind, begin.text, begin.isEnd], ["note", "session 1, model m", false]);
  assert.deepEqual([said.kind, said.text[0].text], ["paragraph", "I look."]);
  assert.deepEqual([call.kind, call.summary, call.result, call.isError], ["call", "tool Bash: ls -l", "a.c\n\nb.c", false]);
  assert.deepEqual([failed.isError, failed.line], [true, 8]);
  assert.deepEqual([end.kind, end.isEnd, more], ["note", true, []]);
});

test("headings, lists and code are known", () => {
  const [heading, list, numbers, code, table] = blocks(
    "## What *I* found ##\n- one\n- two\n  goes on\n\n3. three\n4. four\n\n```python\n# no heading\n- no list\n```\n| a | b |\n|---|---|");
  assert.deepEqual([heading.kind, heading.level, heading.text[0].text], ["heading", 2, "What *I* found"]);
  assert.deepEqual([list.isOrdered, list.items.length, list.items[1][0].text], [false, 2, "two\ngoes on"]);
  assert.deepEqual([numbers.isOrdered, numbers.start, numbers.items.length], [true, 3, 2]);
  assert.deepEqual([code.kind, code.language, code.text], ["code", "python", "# no heading\n- no list"]);
  assert.deepEqual([table.kind, table.text], ["code", "| a | b |\n|---|---|"]);
});

test("every line is in one block, and a block says where it begins", () => {
  const text = "a\nb\n\n# c\n\n- d\n```\ne";
  assert.deepEqual(parse(text.split("\n"), 100).map(({ line, source }) => [line, source]),
    [[100, "a\nb"], [103, "# c"], [105, "- d"], [106, "```\ne"]]);
});

test("code that is not closed ends at the next line of the recorder", () => {
  assert.deepEqual(kinds("```\nx\n\n▶ tool Bash: ls\n    a\nsaid\n"), ["code", "call", "paragraph"]);
});

test("a long paragraph is several blocks, which belong together", () => {
  const found = blocks(Array.from({ length: 60 }, (_, at) => `line ${at}`).join("\n"));
  assert.deepEqual(found.map((block) => [block.kind, block.isMore]), [["paragraph", false], ["paragraph", true], ["paragraph", true]]);
});

test("bold, code and links are pieces, and all else is text", () => {
  assert.deepEqual(inline("a **b** `c` [d](https://e.org/f) <b>g</b>"), [
    { kind: "text", text: "a " }, { kind: "bold", text: "b" }, { kind: "text", text: " " },
    { kind: "code", text: "c" }, { kind: "text", text: " " }, { kind: "link", text: "d", href: "https://e.org/f" },
    { kind: "text", text: " <b>g</b>" },
  ]);
  assert.deepEqual(inline("see https://e.org/x?y=1."), [
    { kind: "text", text: "see " }, { kind: "link", text: "https://e.org/x?y=1", href: "https://e.org/x?y=1" }, { kind: "text", text: "." },
  ]);
});

test("only addresses of the web become links", () => {
  for (const text of [
    "[x](javascript:alert(1))", "[x](data:text/html,hi)", "[x](file:///etc/passwd)", "[x](//e.org)", "[x](/ui/)",
    "javascript:alert(1)", "[x](JAVASCRIPT:alert(1))", "[x](http:// )", "https://", "http://[",
  ]) assert.deepEqual(inline(text).filter((piece) => piece.kind === "link"), [], text);
});

test("no text takes long, however it is made", () => {
  const begun = process.cpuUsage().user;
  for (const sign of ["`", "*", "**", "[", "[x](", "http://", "- ", "```\n", "1. ", "|", "#", "▶ ", "\u001b]", "\u001b[", "**a", "`a", "[a]"]) {
    parse(sign.repeat(100_000).split("\n"));
    plain(sign.repeat(100_000), false);
  }
  assert.ok(process.cpuUsage().user - begun < 20e6, "seconds for what ought to be milliseconds");
});

test("what would colour a terminal is left out, and shown when it is asked for", () => {
  const line = "\u001b[1;31mred\u001b[0m \u001b]0;title\u0007text \u001b(Bend\r";
  assert.equal(plain(line, false), "red text end");
  assert.equal(plain(line, true), line);
  assert.equal(plain("a\u001b", false), "a\u001b");
  assert.equal(plain("10%\r20%", false), "10%\r20%");
});

test("what is searched for is found as it is written, in any case", () => {
  assert.deepEqual(split("a.B.ab", finder(".b")), ["a", ".B", ".ab"]);
  assert.deepEqual(split("x(*[^$\\x", finder("(*[^$\\")), ["x", "(*[^$\\", "x"]);
  assert.deepEqual(split("nothing", finder("")), ["nothing"]);
  assert.deepEqual(split("a-b", finder("A-B")), ["", "a-b", ""]);
});
