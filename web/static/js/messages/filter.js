// @ts-check
// Which messages are wanted, as it stands in the address.  Pure.

/** @typedef {import("./thread.js").Message} Message */
/** type: "" all, TALK all but those of runs; place: "" all, `project` or `project/task`
 * @typedef {{type: string, place: string, text: string}} Filter */

export const TALK = "-run"; // no type of a message begins so: the kinds that runs post by themselves
const OF_RUNS = new Set(["RUN_START", "RUN_STOP", "RUN_CRASH"]);

/** @param {URLSearchParams} query @returns {Filter} */
export const readFilter = (query) => ({
  type: query.get("type") ?? "",
  place: query.get("from") ?? "",
  text: query.get("q") ?? "",
});

/** What of it stands in the address. @param {Filter} filter */
export const queryOf = (filter) => ({ type: filter.type, from: filter.place, q: filter.text.trim() });

/** @param {Filter} filter */
export const isEmpty = (filter) => !filter.type && !filter.place && !filter.text.trim();

/** Every word of the text must stand in the message somewhere, in any case.
 * @param {Filter} filter @returns {(message: Message) => boolean} */
export function wants(filter) {
  const words = filter.text.toLowerCase().split(/\s+/).filter(Boolean);
  return (message) =>
    isOfType(message, filter.type) && isFrom(message, filter.place)
    && (!words.length || hasWords(message, words));
}

/** @param {Message} message @param {string} type */
function isOfType(message, type) {
  if (type === TALK) return !OF_RUNS.has(message.type) || message.type === "RUN_CRASH";
  return !type || message.type === type;
}

/** @param {Message} message @param {string} place */
function isFrom(message, place) {
  if (!place) return true;
  const [project, task] = place.split("/");
  return message.project_id === project && (task === undefined || (message.task_id ?? "") === task);
}

/** @param {Message} message @param {string[]} words in lower case */
function hasWords(message, words) {
  const { body, type, project_id, task_id, run_id, msg_id } = message;
  const text = [body, type, project_id, task_id, run_id, msg_id].join("\n").toLowerCase();
  return words.every((word) => text.includes(word));
}

/** The types that there are, with how many of each, by name. @param {Message[]} messages
 * @returns {[string, number][]} */
export const typesOf = (messages) => counted(messages.map((message) => message.type));

/** Where they come from: projects, and with `/` their tasks. @param {Message[]} messages
 * @returns {[string, number][]} */
export const placesOf = (messages) =>
  counted(messages.flatMap(({ project_id, task_id }) =>
    [project_id, project_id && task_id ? `${project_id}/${task_id}` : ""]).filter(Boolean));

/** @param {string[]} names @returns {[string, number][]} */
function counted(names) {
  /** @type {Map<string, number>} */
  const counts = new Map();
  for (const name of names) counts.set(name, (counts.get(name) ?? 0) + 1);
  return [...counts].sort(([one], [other]) => (one < other ? -1 : 1));
}
