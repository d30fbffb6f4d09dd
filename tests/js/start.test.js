// Names, lines for a terminal, and what the form that starts a task asks for.

import assert from "node:assert/strict";
import { test } from "node:test";

import { nameProblem, proposedTask, slugOf } from "../../web/static/js/names.js";
import { quoted, shellLine } from "../../web/static/js/shell.js";
import { completions, fieldOf, namesIn, optionsOf, problemsOf, requestOf, whatHappens } from "../../web/static/js/start/order.js";

const ORDER = { project: "shop", task: "task-20261101-120000-cart", agent: "claude", prompt: "Build it.", folder: "", needs: [] };
const AGENTS = [{ name: "claude", ready: true, problem: "" }, { name: "codex", ready: false, problem: "it is not on PATH" }];

test("names are refused that no folder of a task could have", () => {
  for (const good of ["a", "A.b_c-d@2", "x".repeat(128), "_x", "@", "1..".slice(0, 2)]) assert.equal(nameProblem("task", good), "", good);
  for (const bad of ["", " ", "a b", "a/b", "a\\b", "..", ".a", "-a", "a..b", "x".repeat(129), "ä", "a\n"]) {
    assert.notEqual(nameProblem("task", bad), "", JSON.stringify(bad));
  }
  for (const bad of ["run_1", "20261101-120000", "20261101-120000-x", "_audit"]) assert.notEqual(nameProblem("project", bad), "", bad);
  assert.equal(nameProblem("task", "run_1"), "");
});

test("a proposed name is valid for any prompt", () => {
  const ms = Date.UTC(2026, 1, 3, 4, 5, 6);
  assert.equal(proposedTask(ms, "# Fix the Cart!\nnow"), "task-20260203-040506-fix-the-cart");
  assert.equal(slugOf("Größe über Maß"), "gro-e-uber-ma");
  for (const prompt of ["", "a", "日本語", "```sh\nmake test\n```", "x".repeat(9000), "../..", "\u0000"]) {
    const name = proposedTask(ms, prompt);
    assert.equal(nameProblem("task", name), "", name);
    assert.ok(name.length <= 70, name);
  }
  assert.equal(slugOf("```sh\nmake test\n```"), "make-test");
});

test("a line for a terminal means what its words say", () => {
  assert.equal(shellLine("bin/stop-run", "run_1"), "bin/stop-run run_1");
  assert.equal(quoted("it's $HOME"), "'it'\\''s $HOME'");
  for (const word of ["", "a b", "$x", "`x`", "a;b", "~", "*", "#", "!", "a\nb", "é"]) assert.equal(quoted(word), `'${word}'`);
});

test("what is wrong is said at its field", () => {
  assert.deepEqual(problemsOf(ORDER, AGENTS), {});
  const wrong = problemsOf({ project: "a b", task: "", agent: "codex", prompt: " ", folder: "src", needs: ["a/b"] }, AGENTS);
  assert.deepEqual(Object.keys(wrong).sort(), ["agent", "folder", "needs", "project", "prompt", "task"]);
  assert.equal(wrong.agent, "it is not on PATH");
  assert.match(problemsOf({ ...ORDER, needs: [ORDER.task] }, AGENTS).needs, /itself/);
  assert.match(problemsOf({ ...ORDER, prompt: "x".repeat(1e6) }, AGENTS).prompt, /too long/);
  assert.deepEqual(problemsOf({ ...ORDER, agent: "own" }, AGENTS), {}, "an agent that is not listed is for the server to judge");
});

test("a refusal of the server stands at the field that it is about", () => {
  const cases = {
    "project_id: 'x' cannot be the name of a folder": "project", "task is done; resume it first": "task",
    "project_root does not exist, or is no folder": "folder", "depends_on: a circle": "needs",
    "prompt is required": "prompt", "agent_type is required": "agent", "the disk is full": "",
  };
  for (const [message, field] of Object.entries(cases)) assert.equal(fieldOf(message), field, message);
});

test("it says what will happen, and asks for just that", () => {
  assert.match(whatHappens(ORDER, false), /^Starts claude on task-20261101-120000-cart of shop, in the folder of the task\. .*DONE.*100 times/);
  assert.match(whatHappens({ ...ORDER, folder: "/src", needs: ["a", "b"] }, false), /^Waits until a, b are done, then starts claude .* in \/src\./);
  assert.match(whatHappens(ORDER, true), /that it had before/);
  assert.deepEqual(requestOf(ORDER), { project_id: "shop", task_id: ORDER.task, agent_type: "claude", prompt: "Build it." });
  assert.deepEqual(requestOf({ ...ORDER, folder: "/src", needs: ["a"] }).depends_on, ["a"]);
  assert.deepEqual(optionsOf(ORDER), ["--agent", "claude", "--prompt", "Build it."]);
  assert.deepEqual(optionsOf({ ...ORDER, prompt: "a\nb", folder: "/s", needs: ["a", "b"] }),
    ["--agent", "claude", "--cwd", "/s", "--depends-on", "a,b", "--prompt-file", "PROMPT.md"]);
});

test("the list completes the last of several names", () => {
  assert.deepEqual(namesIn(" a, b  a,,c"), ["a", "b", "c"]);
  assert.deepEqual(completions("", ["a", "b"]), ["a", "b"]);
  assert.deepEqual(completions("a, b", ["a", "ab", "b", "c"]), ["a, ab", "a, b"]);
  assert.deepEqual(completions("a,", ["a", "b"]), ["a,b"]);
});
