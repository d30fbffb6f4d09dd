// A plan as the page knows it: its tasks and bars.

import assert from "node:assert/strict";
import { test } from "node:test";

import { barsOf, domainOf, rowsOf } from "../../web/static/js/plan/bars.js";
import { isChosen, modelOf, reach, tookText } from "../../web/static/js/plan/model.js";

const AT = Date.UTC(2026, 0, 1, 12);
const iso = (/** @type {number} */ seconds) => new Date(AT + seconds * 1000).toISOString();

/** A run from then to then, in seconds; null: it lives. @param {number} from @param {number | null} to */
function run(from, to, more = {}) {
  return {
    run_id: `run-${from}-${to}`, kind: "attempt", unit: "t", agent: "claude", result: to === null ? "running" : "done",
    status: null, started: iso(from), ended: to === null ? null : iso(to), seconds: null, verdict: null,
    input_tokens: 100, output_tokens: 20, cost_usd: 0.5, cost_estimated: false, ...more,
  };
}

/** @param {string} id */
function task(id, more = {}) {
  return {
    id, title: `Title of ${id}`, stage: "s", in_scope: true, state: "pending", why: "", agents_asked: ["claude"],
    agents_used: [], depends_on: [], blocked_by: [], runs: [], wave: 0, ...more,
  };
}

/** @param {any[]} tasks */
function model(tasks, more = {}) {
  const stages = [{ id: "s", title: "Stage", barrier: true, is_open: true, state: "", counts: {}, tasks: tasks.map(({ id }) => id) }];
  return modelOf({ project_id: "p", is_run: true, stages, tasks, quota_waits: [], critical_path: [], timeline: { start: null, end: null }, ...more }, AT);
}

/** @param {import("../../web/static/js/plan/model.js").Model} made @param {string} id */
const of = (made, id) => /** @type {import("../../web/static/js/plan/model.js").Task} */ (made.tasks.get(id));

test("a task that waits for a quota says so, another that waits does not", () => {
  const made = model([task("a", { state: "waiting" }), task("b", { state: "waiting" }), task("c", { state: "running" })], { quota_waits: [{ tasks: ["a", "c"] }] });
  assert.deepEqual(["a", "b", "c"].map((id) => of(made, id).state), ["quota", "waiting", "running"]);
  assert.deepEqual(made.counts, { running: 1, quota: 1, waiting: 1 });
});

test("what needs a look is counted first, and what was not chosen is not counted", () => {
  const made = model([task("a", { state: "done" }), task("b", { state: "failed" }), task("c", { state: "done", in_scope: false })]);
  assert.deepEqual(Object.entries(made.counts), [["failed", 1], ["done", 1]]);
});

test("needs and dependants are followed to their end, through circles too", () => {
  const made = model([task("a"), task("b", { depends_on: ["a"] }), task("c", { depends_on: ["b", "gone"] }), task("x", { depends_on: ["x"] })]);
  assert.deepEqual(reach(made.tasks, "c", "depends_on"), new Set(["b", "gone", "a"]));
  assert.deepEqual(reach(made.tasks, "a", "dependants"), new Set(["b", "c"]));
  assert.deepEqual(reach(made.tasks, "x", "dependants"), new Set(["x"]));
});

test("a task of no stage that is known is shown all the same", () => {
  for (const [state, wanted] of [["done", "done"], ["failed", "failed"], ["pending", "pending"]]) {
    const tasks = [task("a", { state }), task("b", { state: "done" })];
    const made = modelOf({ project_id: "p", is_run: false, stages: [], tasks, quota_waits: [], timeline: { start: null } }, AT);
    assert.deepEqual(made.stages.map((stage) => stage.tasks.map(({ id }) => id)), [["a", "b"]]);
    assert.equal(made.stages[0].state, wanted);
  }
});

test("each judge's attempts are counted alone, and no wait for a quota is one", () => {
  const runs = [run(0, 1, { unit: "t@a" }), run(0, 1, { unit: "t@b" }), run(2, 3, { unit: "t@b" }), run(0, 1, { unit: "t@b", result: "quota" })];
  assert.equal(of(model([task("t", { runs })]), "t").tries, 2);
});

test("a task is found by name, title, agent and reason", () => {
  const made = of(model([task("a-1", { why: "waits for B", agents_used: ["Codex"], state: "done" })]), "a-1");
  for (const text of ["", "a-1", "title of", "codex", "waits for b"]) assert.ok(isChosen(made, text, ""), text);
  assert.ok(!isChosen(made, "gemini", ""));
  assert.ok(isChosen(made, "", "done") && !isChosen(made, "", "failed"));
});

test("an attempt has a bar, one that met a quota a wait behind it up to the next", () => {
  const runs = [run(0, 10, { result: "quota" }), run(40, 50)];
  const { bars, lanes } = barsOf(of(model([task("t", { runs, state: "done" })]), "t"), AT + 60_000);
  assert.equal(lanes, 1);
  assert.deepEqual(bars.map(({ status, isWait, start, end }) => [status, isWait, (start - AT) / 1000, end && (end - AT) / 1000]),
    [["quota", true, 10, 40], ["quota", false, 0, 10], ["done", false, 40, 50]]);
});

test("a wait that goes on and a run that lives have no end", () => {
  const waiting = of(model([task("t", { runs: [run(0, 10, { result: "quota" })], state: "waiting" })]), "t");
  assert.deepEqual(barsOf(waiting, AT + 60_000).bars.map(({ end }) => end), [null, AT + 10_000]);
  const live = of(model([task("t", { runs: [run(5, null)], state: "running" })]), "t");
  assert.deepEqual(barsOf(live, AT).bars.map(({ end, status }) => [end, status]), [[null, "running"]]);
  assert.equal(tookText(live, AT + 47_000), "42 s");
});

test("runs at the same time lie beside each other", () => {
  const runs = [run(0, 10), run(2, 8), run(11, 12)];
  const { bars, lanes } = barsOf(of(model([task("t", { runs })]), "t"), AT);
  assert.equal(lanes, 2);
  assert.deepEqual(bars.map(({ lane }) => lane), [0, 1, 0]);
});

test("the time that is shown goes on to now only while something runs", () => {
  const tasks = [task("a", { runs: [run(10, 20), run(5, 8)] })];
  assert.deepEqual(domainOf(model(tasks), AT + 99_000), { start: AT + 5000, end: AT + 99_000, isOpen: true });
  assert.deepEqual(domainOf(model(tasks, { is_run: false }), AT + 99_000), { start: AT + 5000, end: AT + 20_000, isOpen: false });
  assert.equal(domainOf(model([task("a")]), AT), null);
});

test("rows are those of chosen tasks below their stage; a stage without any is left out", () => {
  const made = model([task("a"), task("b")]);
  assert.deepEqual(rowsOf(made, ({ id }) => id === "b").map(({ key }) => key), ["stage s", "task b"]);
  assert.deepEqual(rowsOf(made, () => false), []);
});
