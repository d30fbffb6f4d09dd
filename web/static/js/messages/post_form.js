// @ts-check
// The form that posts a message, of its own or in answer to another.

import { addresses, get, lengthProblem, Refused, send } from "../api.js";
import { whyNot } from "../actions.js";
import { h, setChildren, setText } from "../dom.js";
import { keepDraft, readDraft } from "../draft.js";
import { field, propose } from "../fields.js";
import { nameProblem } from "../names.js";
import { problem } from "../parts.js";

/** @typedef {import("./thread.js").Message} Message */

const TYPES = ["USER", "INFO", "FACT", "PROGRESS", "DECISION", "QUESTION", "ANSWER", "REVIEW", "ERROR"];
const MOST_TYPE = 64;

/** @param {{project: string, task: string}} scope what is fixed
 * @param {(posted: {msg_id: string}) => void} onPosted is called when it stands on the bus */
export function postForm(scope, onPosted) {
  const name = `post ${scope.project}/${scope.task}`;
  const draft = readDraft(name);
  const lists = { project: h("datalist"), task: h("datalist"), type: h("datalist", {}, TYPES.map((value) => h("option", { value }))) };
  const text = { autocomplete: "off", spellcheck: "false" };
  const project = field("Project", h("input", { ...text, value: scope.project || draft.project || "" }), { list: lists.project });
  const task = field("Task", h("input", { ...text, value: scope.task || draft.task || "" }),
    { list: lists.task, hint: "Empty: to the whole project." });
  const type = field("Type", h("input", { ...text, value: draft.type || "USER", maxlength: MOST_TYPE }), { list: lists.type });
  const body = field("Message", h("textarea", { rows: 4 }), { hint: "Agents that read their bus see it. Ctrl+Enter posts it." });
  body.control.value = draft.body || "";
  const trouble = problem();
  const answered = h("p", { class: "answered" });
  const submit = h("button", { class: "first" }, "Post");
  const element = h("form", { class: "card post", novalidate: true, "aria-label": "Post a message" },
    answered, h("div", { class: "beside" }, !scope.project && project.element, !scope.task && task.element, type.element),
    body.element, trouble.element, h("div", { class: "actions" }, submit));
  /** @type {{msg_id: string, project_id: string, task_id: string, words: string} | null} */
  let parent = draft.parent ? JSON.parse(draft.parent) : null;
  let isBusy = false;
  showParent();

  element.addEventListener("input", (event) => {
    keep();
    for (const each of [project, task, type, body]) if (event.target === each.control) each.problem("");
  });
  element.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    post();
  });
  element.addEventListener("submit", (event) => {
    event.preventDefault();
    post();
  });
  if (!scope.project) project.control.addEventListener("focus", proposeProjects);
  if (!scope.task) task.control.addEventListener("focus", proposeTasks);

  function keep() {
    const written = { project: project.control.value, task: task.control.value, type: type.control.value, body: body.control.value };
    const isUsed = written.body || parent;
    keepDraft(name, isUsed ? { ...written, parent: parent ? JSON.stringify(parent) : "" } : {});
  }

  async function proposeProjects() {
    const found = await get(addresses.projects).catch(() => ({ projects: [] }));
    propose(lists.project, found.projects.map((/** @type {{id: string}} */ each) => each.id));
  }

  async function proposeTasks() {
    const wanted = project.control.value.trim();
    if (!wanted) return;
    const found = await get(addresses.tasks(wanted, { limit: 500 })).catch(() => ({ items: [] }));
    propose(lists.task, found.items.map((/** @type {{id: string}} */ each) => each.id));
  }

  function showParent() {
    setChildren(answered, ...(parent ? ["Answers ", h("strong", {}, parent.words), " ",
      h("button", { type: "button", class: "plain", onclick: () => replyTo(null) }, "Not as an answer")] : []));
    answered.hidden = !parent;
  }

  /** @param {Message | null} message */
  function replyTo(message) {
    parent = message && {
      msg_id: message.msg_id, project_id: message.project_id, task_id: message.task_id ?? "",
      words: `${message.type}: ${message.body.split("\n")[0].slice(0, 80)}`,
    };
    if (message) {
      if (!scope.project && message.project_id) project.control.value = message.project_id;
      if (!scope.task) task.control.value = message.task_id ?? "";
      if (message.type === "QUESTION" && type.control.value === "USER") type.control.value = "ANSWER";
    }
    showParent();
    keep();
    body.control.focus();
  }

  /** The first field that something is wrong with gets the focus. */
  function check() {
    const taskName = task.control.value.trim();
    const kind = type.control.value.trim();
    /** @type {[import("../fields.js").Field, string][]} */
    const found = [
      [project, scope.project ? "" : nameProblem("project", project.control.value.trim())],
      [task, taskName && !scope.task ? nameProblem("task", taskName) : ""],
      [type, kind.length > MOST_TYPE ? `At most ${MOST_TYPE} characters.` : ""],
      [body, !body.control.value.trim() ? "Write something." : lengthProblem(body.control.value)],
    ];
    for (const [each, sentence] of found) each.problem(sentence);
    found.find(([, sentence]) => sentence)?.[0].control.focus();
    return found.every(([, sentence]) => !sentence);
  }

  async function post() {
    trouble.show("");
    if (isBusy || !check()) return;
    setBusy(true);
    const request = {
      project_id: project.control.value.trim(), task_id: task.control.value.trim(),
      type: type.control.value.trim() || "USER", body: body.control.value, parents: parent ? [parent.msg_id] : [],
    };
    try {
      const posted = await send(addresses.post, request);
      body.control.value = "";
      parent = null;
      showParent();
      keepDraft(name, {});
      onPosted(posted);
    } catch (error) {
      refuse(error); // and what was written stays
    } finally {
      setBusy(false);
    }
  }

  /** @param {unknown} error */
  function refuse(error) {
    const said = error instanceof Refused ? error.message : "";
    const at = said.startsWith("project_id") ? project : said.startsWith("task_id") ? task
      : said.startsWith("type") ? type : said.startsWith("body") ? body : null;
    if (at && element.contains(at.element)) at.problem(said);
    else trouble.show(whyNot(error));
  }

  /** @param {boolean} is */
  function setBusy(is) {
    isBusy = is;
    setText(submit, is ? "Posting…" : "Post");
    submit.setAttribute("aria-disabled", String(is)); // not disabled: that would take the focus away
  }

  return {
    element,
    /** Whether something is written that has not been posted. */
    hasDraft: () => parent !== null || body.control.value.trim() !== "",
    focus: () => (scope.project || project.control.value ? body : project).control.focus(),
    replyTo,
  };
}
