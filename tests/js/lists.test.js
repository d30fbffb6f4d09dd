// Long lists: which pages are loaded, what counts say, what can be done about what.

import assert from "node:assert/strict";
import { test } from "node:test";

import { sentenceOf, sharesOf } from "../../web/static/js/lists/counts.js";
import { Pages } from "../../web/static/js/lists/pages.js";
import { remedyOf } from "../../web/static/js/overview/remedies.js";
import { ordered } from "../../web/static/js/overview/status_line.js";

/** A server with so many items, named by their numbers; `asked` has the pages that it was asked for. */
function server(total) {
  const asked = [];
  const state = { total, first: 0, asked, held: null };
  state.load = async (offset, limit) => {
    asked.push(offset / limit);
    const items = Array.from({ length: Math.max(0, Math.min(limit, state.total - offset)) }, (_, at) => ({ id: `item ${state.first + offset + at}` }));
    const answer = { items, total: state.total };
    if (state.held) await state.held;
    return answer;
  };
  return state;
}

const signal = new AbortController().signal;
const keyOf = ({ id }) => id;
const settled = () => new Promise((resolve) => setTimeout(resolve));

test("only the pages that are looked at are loaded, each once", async () => {
  const source = server(10_000);
  let updates = 0;
  const pages = new Pages(source.load, keyOf, () => (updates += 1), { size: 100 });
  assert.equal(pages.count(), 0);
  await pages.refresh(signal);
  assert.deepEqual(source.asked, [0]);
  assert.equal(pages.count(), 10_000);
  assert.equal(pages.at(99).id, "item 99");
  assert.equal(pages.at(100), undefined);
  pages.want(0, 20);
  pages.want(5020, 5045);
  pages.want(5021, 5046);
  await settled();
  assert.deepEqual(source.asked, [0, 49, 50]);
  assert.equal(pages.at(5040).id, "item 5040");
  assert.equal(pages.indexOf("item 5040"), 5040);
  assert.equal(pages.indexOf("item 200"), -1);
  assert.equal(updates, 3);
});

test("what changes is loaded anew where it is looked at, and elsewhere when it is looked at again", async () => {
  const source = server(1000);
  const pages = new Pages(source.load, keyOf, () => {}, { size: 100 });
  await pages.refresh(signal);
  pages.want(520, 540);
  await settled();
  source.first = -1; // a new one at the top
  source.total = 1001;
  source.asked.length = 0;
  await pages.refresh(signal);
  assert.deepEqual(source.asked, [4, 5]);
  assert.equal(pages.indexOf("item 520"), 521);
  assert.equal(pages.at(0).id, "item 0", "shown as it was until it is looked at");
  pages.want(0, 20);
  await settled();
  assert.deepEqual(source.asked, [4, 5, 0]);
  assert.equal(pages.at(0).id, "item -1");
});

test("an answer that was overtaken by a newer one is not taken", async () => {
  const source = server(1000);
  const pages = new Pages(source.load, keyOf, () => {}, { size: 100 });
  await pages.refresh(signal);
  let release = () => {};
  source.held = new Promise((resolve) => (release = resolve));
  pages.want(500, 520); // of before
  source.held = null;
  source.first = 7000;
  await pages.refresh(signal);
  release();
  await settled();
  assert.equal(pages.at(510).id, "item 7510");
});

test("pages behind the end are let go, and a page that fails is told and tried again", async () => {
  const source = server(1000);
  const troubles = [];
  const pages = new Pages(source.load, keyOf, () => {}, { size: 100, onTrouble: (error) => troubles.push(error.message) });
  await pages.refresh(signal);
  pages.want(900, 999);
  await settled();
  assert.equal(pages.at(999).id, "item 999");
  source.total = 30;
  await pages.refresh(signal);
  pages.want(0, 20);
  await settled();
  assert.equal(pages.count(), 30);
  assert.equal(pages.at(999), undefined);
  source.total = 1000;
  await pages.refresh(signal);
  const { load } = source;
  pages.load = () => Promise.reject(new Error("away"));
  pages.want(500, 510);
  await settled();
  assert.deepEqual([...new Set(troubles)], ["away"]);
  pages.load = load;
  pages.want(500, 510);
  await settled();
  assert.equal(pages.at(500).id, "item 500");
});

test("after its end nothing is taken any more", async () => {
  const source = server(1000);
  let updates = 0;
  const pages = new Pages(source.load, keyOf, () => (updates += 1), { size: 100 });
  const round = pages.refresh(signal);
  pages.close();
  await round;
  assert.equal(updates, 0);
});

test("counts are told by the states of the page, and in words", () => {
  const counts = { done: 14, running: 2, verifying: 1, failed: 2, pending: 15, skipped: 1, blocked: 0 };
  assert.deepEqual(sharesOf(counts).map(({ state, count }) => [state, count]),
    [["done", 14], ["running", 3], ["failed", 2], ["stopped", 1], ["pending", 15]]);
  assert.equal(sentenceOf(counts, 35), "14 of 35 tasks done, 3 running, 2 failed, 1 skipped");
  assert.equal(sentenceOf({}, 1), "0 of 1 task done");
});

test("failures come first where there are any, and stand in their place where there are none", () => {
  const names = (counts) => ordered(counts).map(({ state }) => state);
  assert.equal(names({ done: 3, failed: 1 })[0], "failed");
  assert.deepEqual(names({ done: 3, failed: 0 }), ["done", "running", "waiting", "blocked", "failed", "quota", "pending"]);
});

test("a problem has the button that helps, and none where nothing can be pressed", () => {
  const problem = { kind: "failed", severity: "bad", text: "", project_id: "p", task_id: "t", run_id: "r", since: null, command: "" };
  const [run, rest] = [new Map([["p", { is_run: true }]]), new Map([["p", { is_run: false }]])];
  assert.deepEqual(remedyOf(problem, new Map()), ["retry", "Retry"]);
  assert.equal(remedyOf(problem, run), null);
  assert.deepEqual(remedyOf({ ...problem, run_id: null }, rest), ["retry task", "Retry"]);
  assert.equal(remedyOf({ ...problem, run_id: null }, new Map()), null);
  assert.equal(remedyOf({ ...problem, kind: "silent" }, run)[0], "stop");
  assert.equal(remedyOf({ ...problem, kind: "plan stopped", task_id: "", run_id: null }, rest)[0], "continue");
  assert.equal(remedyOf({ ...problem, kind: "loop gone" }, new Map())[0], "resume");
  assert.equal(remedyOf({ ...problem, kind: "waiting" }, run), null);
  assert.equal(remedyOf({ ...problem, kind: "unreadable", project_id: "", task_id: "", run_id: null }, new Map()), null);
});
