// The modules behind all views that need no browser.

import assert from "node:assert/strict";
import { test } from "node:test";

import { bytesText, counted, moneyText, tokensText } from "../../web/static/js/figures.js";
import { links, parse } from "../../web/static/js/router.js";
import { statusOf } from "../../web/static/js/states.js";
import { agoText, msOf, now, secondsText, spanText } from "../../web/static/js/times.js";

const NAMES = ["plain", "a/b", "50 %", "<img src=x>", "?#&=", "t", "r", "plan", "messages", "ü\u202e", "."];

test("each place is what its link says, whatever it is called", () => {
  for (const name of NAMES) {
    const cases = [
      [links.project(name), { view: "project", project: name, task: "", run: "" }],
      [links.plan(name), { view: "plan", project: name, task: "", run: "" }],
      [links.task("p", name), { view: "task", project: "p", task: name, run: "" }],
      [links.run("p", "t", name), { view: "run", project: "p", task: "t", run: name }],
      [links.run("", "", name), { view: "run", project: "", task: "", run: name }],
      [links.messages("p", name), { view: "messages", project: "p", task: name, run: "" }],
      [links.messages(name), { view: "messages", project: name, task: "", run: "" }],
    ];
    for (const [address, wanted] of cases) {
      const { query, ...found } = parse(address);
      assert.deepEqual(found, wanted, address);
      assert.equal(query.size, 0);
    }
  }
  assert.equal(parse("").view, "overview");
  assert.equal(parse(links.overview()).view, "overview");
});

test("the query of a link comes back, without what has no value", () => {
  const { query } = parse(links.plan("p", { tab: "graph", task: "a?b=c&d%", none: "", nothing: null }));
  assert.deepEqual([...query], [["tab", "graph"], ["task", "a?b=c&d%"]]);
});

test("what is no place is said to be none", () => {
  assert.equal(parse("#main"), null);
  for (const address of ["#/x", "#/p", "#/p/a/b", "#/p/a/t/b/r", "#/p/%E0%A4%A", "#/r/a/b/c", "#/p/a/plan/x"]) {
    assert.equal(parse(address).view, "unknown", address);
  }
});

test("numbers are short, and what is not known is a dash", () => {
  assert.deepEqual([0, 999, 1000, 12_345, 999_949, 999_950, 1_234_567].map(tokensText),
    ["0", "999", "1.0 k", "12.3 k", "999.9 k", "1.00 M", "1.23 M"]);
  assert.deepEqual([moneyText(0), moneyText(0.0042), moneyText(0.1), moneyText(1234.5, true)],
    ["$0.00", "$0.0042", "$0.10", "~$1234.50"]);
  assert.deepEqual([0, 999, 1000, 99_949, 99_950, 1e9, 5e15].map(bytesText),
    ["0 B", "999 B", "1.0 kB", "99.9 kB", "100 kB", "1.0 GB", "5000 TB"]);
  for (const nothing of [null, undefined]) {
    assert.deepEqual([tokensText(nothing), moneyText(nothing), bytesText(nothing)], ["–", "–", "–"]);
  }
  assert.deepEqual([counted(1, "run"), counted(2, "run"), counted(1234, "entry", "entries")],
    ["1 run", "2 runs", "1,234 entries"]);
});

test("times are spans, and the zero time is none", () => {
  assert.deepEqual([0, 59.9, 60, 3600, 7260, 90_000].map(secondsText),
    ["0 s", "59 s", "1 min 0 s", "1 h 0 min", "2 h 1 min", "1 d 1 h"]);
  assert.equal(secondsText(NaN), "–");
  assert.ok(Number.isNaN(msOf("0001-01-01T00:00:00Z")));
  assert.equal(spanText("2026-01-01T00:00:00Z", "2026-01-01T00:01:05Z"), "1 min 5 s");
  assert.equal(spanText("", null), "–");
  assert.equal(agoText(new Date(now() - 61_000).toISOString()), "1 min ago");
  assert.equal(agoText(null), "–");
});

test("every state has a sign, those of others too", () => {
  assert.equal(statusOf("completed"), "done");
  assert.equal(statusOf("verifying"), "running");
  assert.equal(statusOf("never heard of"), "unknown");
  assert.equal(statusOf(null), "pending");
});
