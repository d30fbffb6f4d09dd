// @ts-check
// What can be done here about a problem.

/** @typedef {{kind: string, severity: string, text: string, project_id: string, task_id: string,
 *   run_id: string | null, since: string | null, command: string}} Problem */
/** @typedef {"continue" | "retry" | "retry task" | "stop" | "resume"} Act */
/** @typedef {Map<string, {is_run: boolean}>} Plans by project */

/** What a button does about it, and its word; null where there is nothing to press.
 * @param {Problem} problem @param {Plans} plans @returns {[Act, string] | null} */
export function remedyOf({ kind, project_id, task_id, run_id }, plans) {
  const plan = plans.get(project_id);
  if (kind === "plan stopped") return ["continue", "Continue"];
  if (kind === "loop gone" && task_id) return ["resume", "Start again"];
  if (kind === "silent" || kind === "supervisor gone") return run_id ? ["stop", "Stop"] : null;
  if (kind !== "failed" && kind !== "unknown") return null;
  if (plan?.is_run) return null; // it decides on its own what is tried again
  if (run_id) return ["retry", "Retry"];
  return plan && task_id ? ["retry task", "Retry"] : null;
}
