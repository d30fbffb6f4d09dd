// @ts-check
// What a person can do here: each says what will happen, asks, does it, and says what came of it.
// True means that it is done, or that the server has begun to do it.

import { addresses, get, Refused, send } from "./api.js";
import { choose, confirm, explain, notice } from "./dialogs.js";
import { counted } from "./figures.js";
import { links } from "./router.js";
import { shellLine } from "./shell.js";

/** @typedef {{run_id: string, project_id: string, task_id: string}} RunPlace */
/** @typedef {{project_id: string, task_id: string}} TaskPlace */
/** @typedef {{done: string, href?: string, words?: string}} Outcome */

const GRACE = "What has not ended within the grace (30 s, unless the server was given another) is killed.";
const LOOP = "Its agent is started again and again, up to 100 times, until the task is done.";
const KEPT = "Its files stay: what it has written can be read, and the task can be started again.";
/** @type {Set<string>} */
const asked = new Set(); // so that a second click does not ask a second time

/** @param {RunPlace} run @returns {Promise<boolean>} */
export function stopRun({ run_id, project_id, task_id }) {
  return once(`run ${run_id}`, async () => {
    const [family, task] = await Promise.all([
      peek(addresses.family(run_id)),
      project_id && task_id ? peek(addresses.task(project_id, task_id)) : null,
    ]);
    const isMeant = await confirm({
      title: `Stop the run ${run_id}?`,
      what: [
        "The agent and all that it has started are told to end.", GRACE,
        ...whatEndsWith(task_id, family?.plan_task, task?.loop), KEPT,
      ],
      command: shellLine("bin/stop-run", run_id, ...(await commandOptions())),
      action: "Stop the run",
      isDanger: true,
    });
    return isMeant && does(() => send(addresses.stopRun(run_id)), () => ({ done: `The run ${run_id} is being stopped.` }));
  });
}

/** What the end of one of its runs means for the task.
 * @param {string} task @param {boolean | undefined} isOfPlan @param {string | undefined} loop */
function whatEndsWith(task, isOfPlan, loop) {
  if (isOfPlan) {
    return [
      `The plan takes its task ${task} for failed, without another try: what depends on it is blocked, `
      + "and if the plan is not to keep going, it begins nothing more.",
    ];
  }
  return loop ? [`The loop of the task ${task} ends with it: no other attempt follows by itself.`] : [];
}

/** Does again what the run was to do. @param {RunPlace} run @returns {Promise<boolean>} */
export function retryRun({ run_id, project_id, task_id }) {
  return once(`task ${project_id}/${task_id}`, async () => {
    const family = await peek(addresses.family(run_id));
    const isMeant = await confirm({
      title: `Try ${task_id || run_id} again?`,
      what: family?.plan_task
        ? [`The plan of ${project_id} is started again for its task ${task_id} alone, in the manner in which it was started last.`,
          "While the plan is run, it decides on its own what is tried again, and this is refused."]
        : [`The task ${task_id} is begun again with its prompt and its agent, in a new run.`, LOOP,
          "If it is marked as done, the mark is moved aside."],
      action: "Try again",
    });
    return isMeant && does(() => send(addresses.retryRun(run_id)), (answer) => begun(answer, { project_id, task_id }));
  });
}

/** Opens a task that is done or has ended, and starts its loop again.
 * @param {TaskPlace} task @returns {Promise<boolean>} */
export function resumeTask({ project_id, task_id }) {
  return once(`task ${project_id}/${task_id}`, async () => {
    const isMeant = await confirm({
      title: `Start the task ${task_id} again?`,
      what: ["If it is marked as done, the mark (DONE) is moved aside.",
        "It goes on with the prompt, the agent and the folder that it had.", LOOP],
      command: await taskLine("bin/run-task", project_id, task_id, "--resume"),
      action: "Start again",
    });
    return isMeant && does(() => send(addresses.resume(project_id, task_id)), (answer) => begun(answer, { project_id, task_id }));
  });
}

/** Marks a task as done and ends what runs of it.
 * @param {TaskPlace} task @returns {Promise<boolean>} */
export function cancelTask({ project_id, task_id }) {
  return once(`task ${project_id}/${task_id}`, async () => {
    const isMeant = await confirm({
      title: `Cancel the task ${task_id}?`,
      what: [
        "It is marked as done, though it may not be: tasks that wait for it can start.",
        "Its loop and its agents are told to end, and if it waits for its turn, it waits no more.", GRACE,
        `Only to stop it, so that it can go on: ${await taskLine("bin/stop-run", project_id, task_id)}`,
      ],
      action: "Cancel the task",
      isDanger: true,
    });
    return isMeant && does(() => send(addresses.cancel(project_id, task_id), {}, "DELETE"), (answer) => ({
      done: answer.stopped_runs
        ? `${task_id} is marked as done, and ${counted(answer.stopped_runs, "run")} of it ${answer.stopped_runs === 1 ? "is" : "are"} being stopped.`
        : `${task_id} is marked as done; no run of it was at work.`,
    }));
  });
}

/** Lets a plan go on, or only what has failed of it, or only these tasks.
 * @param {string} project
 * @param {{retryFailed?: boolean, only?: string[], count?: number}} [what] count: of the tasks that it is about
 * @returns {Promise<boolean>} */
export function startPlan(project, { retryFailed = false, only = [], count } = {}) {
  return once(`plan ${project}`, async () => {
    const number = count === undefined ? "" : ` (${counted(count, "task")})`;
    const isMeant = await confirm({
      title: retryFailed ? `Try again what has failed of ${project}?`
        : only.length ? `Run ${only.length === 1 ? only[0] : counted(only.length, "task")} of ${project}?` : `Let the plan of ${project} go on?`,
      what: [
        "Its plan is started again in the manner in which it was started last; it goes on without this server, too.",
        retryFailed ? `Only what has failed is tried again, and what was blocked by that${number}.`
          : only.length ? `Only ${shortList(only)} ${only.length === 1 ? "is" : "are"} run.`
            : `What is done stays done, what still runs is taken over, the rest is run${number}.`,
        "Its agents use tokens, and work with the rights of this server.",
      ],
      action: retryFailed ? "Try again" : "Start",
    });
    return isMeant && does(
      () => send(addresses.startPlan(project), { retry_failed: retryFailed, only }),
      ({ note }) => ({ done: `The plan of ${project} has begun${note ? `; ${note}` : ""}.`, href: links.plan(project), words: "See the plan" }),
    );
  });
}

/** Ends the work on a plan: when the running agents are ready, or at once.
 * @param {string} project @returns {Promise<boolean>} */
export function stopPlan(project) {
  return once(`plan ${project}`, async () => {
    const how = await choose({
      title: `Stop the plan of ${project}?`,
      what: [
        "Nothing more is begun. It can go on later: what is done stays done.",
        "Wait: the agents that run now work on to their end, then the plan ends.",
        `Stop now: these agents are told to end, and their tasks are tried again by the next start. ${GRACE}`,
      ],
      choices: [
        { value: "now", words: "Stop now", isDanger: true },
        { value: "wait", words: "Wait for the agents" },
      ],
    });
    return how !== "" && does(() => send(addresses.stopPlan(project), { now: how === "now" }), () => ({
      done: how === "now" ? `The plan of ${project} and its agents are being stopped.`
        : `The plan of ${project} begins nothing more, and ends with the agents that run now.`,
    }));
  });
}

// ---- what they share

/** @param {string} key @param {() => Promise<boolean>} act */
async function once(key, act) {
  if (asked.has(key) || document.querySelector("dialog[open]")) return false;
  asked.add(key);
  try {
    return await act();
  } finally {
    asked.delete(key);
  }
}

/** Does it and says what came of it. @param {() => Promise<any>} act
 * @param {(answer: any) => Outcome} outcome @returns {Promise<boolean>} */
export async function does(act, outcome) {
  try {
    const { done, href, words } = outcome(await act());
    notice(done, href && words ? { href, words } : undefined);
    return true;
  } catch (error) {
    const command = error instanceof Refused ? error.details.command : "";
    if (command) explain(whyNot(error).replace(/^Not done: /, ""), command);
    else notice(whyNot(error));
    return false;
  }
}

/** The sentence for what kept something from being done. @param {unknown} error */
export function whyNot(error) {
  if (error instanceof Refused) {
    return error.status < 500 ? `Not done: ${error.message}` : `The server has failed: ${error.message}`;
  }
  if (error instanceof TypeError) return "The server does not answer. Whether it was done is not known: look before you try again.";
  throw error;
}

/** @param {{run_id?: string, queue_position?: number, note?: string}} answer @param {TaskPlace} task
 * @returns {Outcome} */
function begun({ run_id, queue_position, note }, { project_id, task_id }) {
  const seeTask = { href: links.task(project_id, task_id), words: "See the task" };
  if (queue_position) return { done: `${task_id} waits for a free place, as number ${queue_position}.`, ...seeTask };
  const done = `${task_id} has begun${note ? `; ${note}` : ""}.`;
  return run_id ? { done, href: links.run(project_id, task_id, run_id), words: "See the run" } : { done, ...seeTask };
}

/** What is there, or null: a question is asked in general words rather than not at all.
 * @param {string} address @returns {Promise<any>} */
const peek = (address) => get(address).catch(() => null);

/** @type {string[] | null} */
let known = null;

/** What a line for a terminal needs besides, so that it means the root of this server. */
export async function commandOptions() {
  known ??= /** @type {string[] | null} */ ((await peek(addresses.status))?.command_options ?? null);
  return known ?? [];
}

/** A script on a task. @param {string} script @param {string} project @param {string} task @param {...string} more */
export const taskLine = async (script, project, task, ...more) =>
  shellLine(script, "--project", project, "--task", task, ...more, ...(await commandOptions()));

/** @param {string[]} names */
const shortList = (names) =>
  names.length > 5 ? `${names.slice(0, 4).join(", ")} and ${names.length - 4} more` : names.join(", ");
