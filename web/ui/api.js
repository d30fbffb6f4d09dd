// @ts-check
// All addresses of the server, and how it is asked.

import { setClock } from "./times.js";

/** The server has answered with an error. */
export class Refused extends Error {
  /** @param {number} status @param {string} message */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The JSON at an address; Refused for an error, TypeError where nobody answers.
 * @param {string} address */
export async function get(address) {
  const response = await fetch(address, { headers: { "X-Conductor-Client": "web-ui" } });
  setClock(response.headers.get("Date") ?? "");
  if (response.ok) return response.json();
  const body = await response.json().catch(() => ({}));
  throw new Refused(response.status, body.error?.message ?? body.message ?? response.statusText);
}

/** @param {string[]} parts */
const path = (...parts) => parts.map(encodeURIComponent).join("/");
/** @param {string} project @param {string} task */
const folder = (project, task) =>
  `/api/projects/${path(project)}${task ? `/tasks/${path(task)}` : ""}`;

export const addresses = {
  status: "/api/v1/status",
  projects: "/api/projects",
  allRuns: "/api/v1/runs/stream/all",
  /** @param {string} project @param {number} limit @param {number} offset */
  tasks: (project, limit, offset) => `${folder(project, "")}/tasks?limit=${limit}&offset=${offset}`,
  /** @param {string} project @param {string} task */
  task: (project, task) => `${folder(project, task)}?include_files=0`,
  /** @param {string} project @param {string} task @param {string} run */
  run: (project, task, run) => `${folder(project, task)}/runs/${path(run)}`,
  /** @param {string} project @param {string} task @param {string} run @param {string} name */
  file: (project, task, run, name) =>
    `${folder(project, task)}/runs/${path(run)}/stream?resume=1&name=${path(name)}`,
  /** @param {string} run @param {number} bytes */
  end: (run, bytes) => `/api/v1/runs/${path(run)}/transcript?offset=${-bytes}`,
  /** The newest messages. @param {string} project @param {string} task @param {number} limit */
  messages: (project, task, limit) => `${folder(project, task)}/messages?limit=${limit}`,
  /** @param {string} project @param {string} task */
  messageStream: (project, task) => `${folder(project, task)}/messages/stream`,
};

/** The address of a project, task or run in this page. @param {string[]} parts */
export const link = (...parts) => `#/${path(...parts)}`;

/** [project, task, run], each may be "", of the page's address; null for one that is none.
 * @param {string} hash @returns {[string, string, string] | null} */
export function parseLink(hash) {
  if (hash !== "" && !hash.startsWith("#/")) return null;
  try {
    const [project = "", task = "", run = ""] = hash.slice(2).split("/").map(decodeURIComponent);
    return [project, task, run];
  } catch {
    return ["", "", ""];
  }
}
