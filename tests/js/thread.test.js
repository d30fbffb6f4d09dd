// Messages as threads, and which of them are wanted.

import assert from "node:assert/strict";
import { test } from "node:test";

import { isEmpty, placesOf, queryOf, readFilter, TALK, typesOf, wants } from "../../web/static/js/messages/filter.js";
import { filtered, keyOf, merged, MOST_DEPTH, threadsOf } from "../../web/static/js/messages/thread.js";

let number = 0;
const message = (msg_id, parents = [], more = {}) => ({
  msg_id, ts: `2026-01-01T00:00:00.${String((number += 1)).padStart(6, "0")}Z`, type: "FACT", project_id: "p", task_id: "t",
  body: msg_id, parents: parents.map((id) => ({ msg_id: id })), ...more,
});
const shape = (threads) => threads.map((thread) => thread.items.map((item) => `${"  ".repeat(item.level)}${item.message.msg_id}`));

test("a reply stands below what it answers, and its thread where its newest message belongs", () => {
  const threads = threadsOf([message("a"), message("b"), message("a1", ["a"]), message("c"), message("a2", ["a"]), message("a11", ["a1"])]);
  assert.deepEqual(shape(threads), [["a", "  a1", "    a11", "  a2"], ["c"], ["b"]]);
  assert.deepEqual(threads[0].items.map((item) => item.replies), [3, 1, 0, 0]);
});

test("every message stands once, whatever their parents say", () => {
  const odd = [
    message("x", ["y"]), message("y", ["x"]), // a circle
    message("self", ["self"]), message("lost", ["gone", ""]),
    message("two", ["x", "lost", "x"]), message("none", [], { parents: undefined }),
  ];
  const threads = threadsOf(odd);
  assert.deepEqual(threads.flatMap((thread) => thread.items.map((item) => item.message.msg_id)).sort(),
    ["lost", "none", "self", "two", "x", "y"]);
  const others = new Map(threads.flatMap((thread) => thread.items.map((item) => [item.message.msg_id, item.others])));
  assert.deepEqual(others.get("two"), ["lost"]);
  assert.deepEqual(others.get("lost"), ["gone"]);
  assert.deepEqual(others.get("x"), ["y"]);
});

test("a chain of thousands is no deeper than can be shown, and breaks nothing", () => {
  const chain = [message("0")];
  for (let at = 1; at < 20000; at += 1) chain.push(message(String(at), [String(at - 1)]));
  const [thread] = threadsOf(chain);
  assert.equal(thread.items.length, 20000);
  assert.equal(Math.max(...thread.items.map((item) => item.depth)), MOST_DEPTH);
  assert.equal(thread.items[0].replies, 19999);
});

test("a filter keeps what is wanted with what it answers, and nothing else of a thread", () => {
  const threads = threadsOf([message("a"), message("a1", ["a"]), message("a11", ["a1"]), message("a2", ["a"]), message("b")]);
  const found = filtered(threads, ({ msg_id }) => msg_id === "a11" || msg_id === "b");
  assert.deepEqual(shape(found), [["b"], ["a", "  a1", "    a11"]]);
  assert.deepEqual(found[1].items.map((item) => item.isContext), [true, true, false]);
  assert.deepEqual(filtered(threads, () => false), []);
  assert.deepEqual(shape(filtered(threads, () => true)), shape(threads));
});

test("merging keeps each message once, in the order of time whatever the form of the times", () => {
  const [late, early] = [message("late", [], { ts: "2026-01-01T00:00:01.25Z" }), message("early", [], { ts: "2026-01-01T00:00:01Z" })];
  const again = { ...late, body: "as it is now" };
  assert.deepEqual(merged([late], [early, again]).map((each) => each.body), ["early", "as it is now"]);
  const same = message("late", [], { task_id: "other", ts: late.ts });
  assert.equal(merged([late], [same]).length, 2);
  assert.notEqual(keyOf(late), keyOf(same));
});

test("a filter is by type, place and words, and goes through the address", () => {
  const one = message("1", [], { type: "RUN_START", body: "Run started\nin a folder" });
  const two = message("2", [], { type: "QUESTION", task_id: "", body: "Which Rounding?" });
  const crash = message("3", [], { type: "RUN_CRASH", project_id: "q" });
  const count = (filter) => [one, two, crash].filter(wants({ type: "", place: "", text: "", ...filter })).map((each) => each.msg_id).join("");
  assert.equal(count({}), "123");
  assert.equal(count({ type: "QUESTION" }), "2");
  assert.equal(count({ type: TALK }), "23");
  assert.equal(count({ place: "p" }), "12");
  assert.equal(count({ place: "p/t" }), "1");
  assert.equal(count({ text: "  which ROUND " }), "2");
  assert.equal(count({ text: "folder started" }), "1");
  assert.equal(count({ text: "folder question" }), "");
  assert.equal(count({ text: ".*" }), "");
  const filter = { type: "A&B", place: "p/t", text: "50 % ?#" };
  assert.deepEqual(readFilter(new URLSearchParams(queryOf(filter))), filter);
  assert.ok(isEmpty(readFilter(new URLSearchParams())));
  assert.deepEqual(typesOf([one, two, one]), [["QUESTION", 1], ["RUN_START", 2]]);
  assert.deepEqual(placesOf([one, two, crash]), [["p", 2], ["p/t", 1], ["q", 1], ["q/t", 1]]);
});
