// @ts-check
// All addresses of the server, and how it is asked.

import { queryText } from "./router.js";
import { setClock } from "./times.js";

const MOST_BYTES = 900_000; // of a text: the server takes a request of 1 MiB

/** The server has answered with an error. */
export class Refused extends Error {
  /** @param {number} status @param {string} message
   * @param {Record<string, string>} [details] such as `command`, a line that helps */
  constructor(status, message, details = {}) {
    super(message);
    this.status = status;
    this.details = details;
  }
}

/** The JSON at an address; Refused for an error, TypeError where nobody answers, AbortError.
 * @param {string} address @param {AbortSignal} [signal] @returns {Promise<any>} */
export const get = (address, signal) => ask(address, { signal });

/** The same; null where the server has no such thing. @param {string} address @param {AbortSignal} [signal]
 * @returns {Promise<any>} */
export async function getIfThere(address, signal) {
  try {
    return await get(address, signal);
  } catch (error) {
    if (error instanceof Refused && error.status === 404) return null;
    throw error;
  }
}

/** Whether it is too long for a request, as a sentence; "" if not. @param {string} text */
export const lengthProblem = (text) =>
  (new TextEncoder().encode(text).length > MOST_BYTES ? "It is too long: 900 kB at most. Put it into a file, and say where that is." : "");

/** Asks for a change. @param {string} address @param {object} [body] @param {string} [method]
 * @returns {Promise<any>} */
export function send(address, body = {}, method = "POST") {
  return ask(address, { method, body: JSON.stringify(body), headers: { "Content-Type": "application/json" } });
}

/** @param {string} address @param {RequestInit} options */
async function ask(address, options) {
  const headers = { "X-Conductor-Client": "web-ui", ...options.headers };
  const response = await fetch(address, { ...options, headers });
  setClock(response.headers.get("Date") ?? "");
  if (response.ok) return response.status === 204 ? {} : response.json();
  const body = await response.json().catch(() => ({}));
  throw new Refused(response.status, body.error?.message ?? body.message ?? response.statusText, body.error?.details);
}

/** @param {string[]} parts */
const path = (...parts) => parts.map(encodeURIComponent).join("/");
/** @param {string} project @param {string} [task] */
const folder = (project, task) =>
  `/api/projects/${path(project)}${task ? `/tasks/${path(task)}` : ""}`;

/** @typedef {import("./router.js").Query} Query */

export const addresses = {
  events: "/api/v1/events",
  overview: "/api/v1/overview",
  agents: "/api/v1/agents",
  status: "/api/v1/status",
  plans: "/api/v1/plans",
  projects: "/api/projects",
  startTask: "/api/v1/tasks",
  homeDirs: "/api/projects/home-dirs",
  /** @param {string} project */
  plan: (project) => `/api/v1/plans/${path(project)}`,
  /** @param {string} project */
  startPlan: (project) => `/api/v1/plans/${path(project)}/start`,
  /** @param {string} project */
  stopPlan: (project) => `/api/v1/plans/${path(project)}/stop`,
  /** @param {string} project @param {Query} page */
  tasks: (project, page = {}) => `${folder(project)}/tasks${queryText(page)}`,
  /** @param {string} project @param {string} task */
  task: (project, task) => `${folder(project, task)}?include_files=0`,
  /** @param {string} project @param {string} task */
  taskPrompt: (project, task) => `${folder(project, task)}/file?name=TASK.md`,
  /** @param {string} project @param {string} task */
  resume: (project, task) => `${folder(project, task)}/resume?start=1`,
  /** @param {string} project @param {string} task */
  cancel: (project, task) => `/api/v1/tasks/${path(task)}${queryText({ project_id: project })}`,
  /** @param {string} project @param {string} task @param {string} run */
  run: (project, task, run) => `${folder(project, task)}/runs/${path(run)}`,
  /** @param {string} run */
  family: (run) => `/api/v1/runs/${path(run)}/family`,
  /** @param {string} run */
  stopRun: (run) => `/api/v1/runs/${path(run)}/stop`,
  /** @param {string} run */
  retryRun: (run) => `/api/v1/runs/${path(run)}/retry`,
  /** @param {string} run @param {Query} part */
  lines: (run, part) => `/api/v1/runs/${path(run)}/lines${queryText(part)}`,
  /** @param {string} run @param {Query} part */
  find: (run, part) => `/api/v1/runs/${path(run)}/find${queryText(part)}`,
  /** @param {string} run @param {string} name */
  raw: (run, name) => `/api/v1/runs/${path(run)}/raw${queryText({ name })}`,
  /** @param {Query} what */
  search: (what) => `/api/v1/search${queryText(what)}`,
  /** @param {Query} what */
  totals: (what) => `/api/v1/totals${queryText(what)}`,
  post: "/api/v1/messages",
  /** The newest messages of all buses, or of a project with all of its tasks.
   * @param {number} limit @param {string} [project] */
  recentMessages: (limit, project) => `/api/v1/messages/recent${queryText({ limit, project_id: project })}`,
  /** The newest messages of a project or task. @param {string} project @param {string} task @param {Query} part */
  messages: (project, task, part = {}) => `${folder(project, task)}/messages${queryText(part)}`,
};
