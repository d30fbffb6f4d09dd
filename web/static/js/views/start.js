// @ts-check
// The form that starts an agent on a task.  It says beforehand what will happen.

import { taskLine, whyNot } from "../actions.js";
import { addresses, get, Refused, send } from "../api.js";
import { notice } from "../dialogs.js";
import { h, setChildren, setText } from "../dom.js";
import { keepDraft, readDraft } from "../draft.js";
import { field, propose } from "../fields.js";
import { counted } from "../figures.js";
import { keepShowing } from "../live.js";
import { nameProblem, proposedTask } from "../names.js";
import { command, heading, problem, trail } from "../parts.js";
import { links } from "../router.js";
import * as orders from "../start/order.js";
import { now } from "../times.js";

/** @typedef {{name: string, ready: boolean, problem: string}} Agent */

const DRAFT = "start";

/** @param {import("../router.js").Place} place @returns {import("../main.js").View} */
export function openStart(place) {
  const draft = readDraft(DRAFT);
  const text = { autocomplete: "off", spellcheck: "false" };
  const lists = { project: h("datalist"), task: h("datalist"), folder: h("datalist"), needs: h("datalist") };
  const project = field("Project", h("input", { ...text, value: place.query.get("project") || draft.project || "", required: true }),
    { list: lists.project });
  const agent = field("Agent", h("select", { required: true }));
  const prompt = field("What is to be done", h("textarea", { rows: 10, required: true }),
    { hint: "The prompt, in Markdown. It is kept as TASK.md in the folder of the task." });
  const task = field("Task", h("input", { ...text, value: place.query.get("task") || draft.task || "", required: true }), { list: lists.task });
  const folder = field("Working folder", h("input", { ...text, value: draft.folder || "" }),
    { list: lists.folder, hint: "An absolute path on the server's machine. Empty: the folder of the task." });
  const needs = field("Depends on", h("input", { ...text, value: draft.needs || "" }),
    { list: lists.needs, hint: "Tasks of the project that must be done before, separated by commas." });
  const fields = { project, task, agent, prompt, folder, needs };
  prompt.control.value = draft.prompt || "";
  const will = h("p", { class: "will", role: "status" });
  const unready = h("ul", {});
  const unreadyCount = h("summary", {});
  const others = h("details", { class: "agents quiet small", hidden: true }, unreadyCount, unready);
  const trouble = problem();
  const disabled = h("p", { class: "problem", hidden: true },
    "This server was started with --disable-task-start: it shows and stops, and starts nothing. The command below does, in a terminal on its machine.");
  const terminal = h("div", { class: "small" });
  const submit = h("button", { class: "first" }, "Start");
  const form = h("form", { class: "start", novalidate: true },
    h("div", { class: "beside" }, project.element, agent.element), others, prompt.element, task.element,
    h("div", { class: "beside" }, folder.element, needs.element),
    will, trouble.element, h("p", { class: "actions" }, submit, h("span", { class: "quiet small" }, h("kbd", {}, "Ctrl"), "+", h("kbd", {}, "Enter"))),
    terminal);
  const element = h("div", {}, trail({}), heading("Start a task"), disabled, form);

  /** @type {Agent[]} */
  let agents = [];
  /** @type {string[]} */
  let tasks = []; // of the project that is named
  /** @type {string[] | null} */
  let projects = null;
  let tasksOf = "";
  let chosen = draft.agent || ""; // before the agents are known
  let isProposed = !task.control.value; // the name of the task is ours, and follows the prompt
  let mayStart = true;
  let isBusy = false;
  let isOpen = true;
  let terminalNumber = 0;
  const stampMs = now();

  // ---- what is known

  const keepers = [
    keepShowing(addresses.agents, showAgents, { wants: () => false, onRefused: (error) => trouble.show(error.message) }),
    keepShowing(addresses.projects, (answer) => {
      const isFirst = projects === null; // later somebody may have emptied the field to write another
      const names = answer.projects.map((/** @type {{id: string}} */ each) => each.id);
      projects = names;
      propose(lists.project, names);
      if (isFirst && !project.control.value) project.control.value = names[0] ?? "";
      if (isFirst) loadTasks();
      show();
    }, { wants: (change) => change.projects.length > 0 }),
    keepShowing(addresses.homeDirs, (answer) => propose(lists.folder, answer.dirs ?? []), { wants: () => false }),
  ];

  /** @param {{agents: Agent[], can_start: boolean, problem?: string}} answer */
  function showAgents(answer) {
    agents = [...answer.agents].sort((one, other) => Number(other.ready) - Number(one.ready));
    mayStart = answer.can_start;
    disabled.hidden = mayStart || Boolean(answer.problem);
    submit.disabled = !mayStart;
    chosen = chosen || (agents.find((each) => each.ready)?.name ?? "");
    const select = /** @type {HTMLSelectElement} */ (agent.control);
    select.replaceChildren(...agents.map((each) =>
      h("option", { value: each.name, disabled: !each.ready }, each.ready ? each.name : `${each.name} – not ready`)));
    select.value = chosen;
    const missing = agents.filter((each) => !each.ready);
    others.hidden = !missing.length;
    others.open = others.open || missing.length === agents.length;
    setText(unreadyCount, `${counted(missing.length, "agent")} not ready`);
    if (answer.problem) trouble.show(answer.problem);
    setChildren(unready, ...missing.map((each) => h("li", {}, h("strong", {}, each.name), `: ${each.problem || "not ready"}`)));
    show();
  }

  async function loadTasks() {
    const name = project.control.value.trim();
    if (name === tasksOf || nameProblem("project", name)) return;
    tasksOf = name;
    const found = await get(addresses.tasks(name, { limit: 500 })).catch(() => null); // then nothing is proposed
    if (name !== tasksOf) return;
    if (!found) tasksOf = "";
    tasks = (found?.items ?? []).map((/** @type {{id: string}} */ each) => each.id);
    propose(lists.task, tasks);
    show();
  }

  // ---- what it says

  const order = () => ({
    project: project.control.value.trim(),
    task: task.control.value.trim(),
    agent: agent.control.value || chosen,
    prompt: prompt.control.value,
    folder: folder.control.value.trim(),
    needs: orders.namesIn(needs.control.value),
  });

  function show() {
    if (isProposed) task.control.value = proposedTask(stampMs, prompt.control.value);
    const wish = order();
    setText(will, orders.whatHappens(wish, tasks.includes(wish.task)));
    project.hint(projects && wish.project && !projects.includes(wish.project) && !nameProblem("project", wish.project)
      ? `There is no project ${wish.project} yet: it is made.` : "");
    task.hint(tasks.includes(wish.task)
      ? "There is a task of that name: it is started again, by the prompt above, unless it is done or at work."
      : isProposed ? "A proposal; change it as you like." : "");
    propose(lists.needs, orders.completions(needs.control.value, tasks.filter((name) => name !== wish.task)));
    showTerminal(wish);
  }

  /** The same for a terminal. @param {orders.Order} wish */
  async function showTerminal(wish) {
    terminalNumber += 1;
    const number = terminalNumber;
    const line = await taskLine("bin/run-task", wish.project || "PROJECT", wish.task || "TASK", ...orders.optionsOf(wish));
    if (number === terminalNumber && terminal.textContent !== line) setChildren(terminal, h("p", { class: "quiet" }, "The same in a terminal:"), command(line));
  }

  function keep() {
    const wish = { ...order(), needs: needs.control.value };
    keepDraft(DRAFT, wish.prompt ? { ...wish, task: isProposed ? "" : wish.task } : {});
  }

  // ---- what it does

  function check() {
    const found = orders.problemsOf(order(), agents);
    for (const [name, each] of Object.entries(fields)) each.problem(found[/** @type {keyof typeof fields} */ (name)] ?? "");
    const first = Object.entries(fields).find(([name]) => found[/** @type {keyof typeof fields} */ (name)]);
    first?.[1].control.focus();
    return !first;
  }

  async function start() {
    trouble.show("");
    if (isBusy || !mayStart || !check()) return;
    setBusy(true);
    const wish = order();
    try {
      const answer = await send(addresses.startTask, orders.requestOf(wish));
      keepDraft(DRAFT, {});
      const waits = answer.queue_position ? ` waits for its turn, as number ${answer.queue_position}.` : " has begun.";
      const href = links.task(wish.project, wish.task);
      notice(`${wish.task}${waits}`, isOpen ? undefined : { href, words: "See the task" });
      if (isOpen) location.hash = href; // who has gone elsewhere meanwhile stays there
    } catch (error) {
      refuse(error); // and what was written stays
    } finally {
      setBusy(false);
    }
  }

  /** @param {unknown} error */
  function refuse(error) {
    const name = error instanceof Refused ? orders.fieldOf(error.message) : "";
    if (name && error instanceof Refused) {
      fields[name].problem(error.message);
      fields[name].control.focus();
    } else trouble.show(whyNot(error));
  }

  /** @param {boolean} is */
  function setBusy(is) {
    isBusy = is;
    setText(submit, is ? "Starting…" : "Start");
    submit.setAttribute("aria-disabled", String(is)); // not disabled: that would take the focus away
  }

  // ---- its life

  form.addEventListener("input", (event) => {
    if (event.target === task.control) isProposed = !task.control.value;
    if (event.target === agent.control) chosen = agent.control.value;
    for (const each of Object.values(fields)) if (each.control === event.target) each.problem("");
    if (event.target === task.control && isProposed) return keep(); // who clears it is about to write
    show();
    keep();
  });
  form.addEventListener("change", (event) => {
    if (event.target === project.control) loadTasks();
    show();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    start();
  });
  form.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    start();
  });
  for (const each of [task, needs]) each.control.addEventListener("focus", loadTasks);
  show();
  return {
    element, title: "Start a task", up: links.overview(),
    close() {
      isOpen = false;
      keepers.forEach((keeper) => keeper.stop());
    },
  };
}
