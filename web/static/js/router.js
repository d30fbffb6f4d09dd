// @ts-check
// The places of the page, as they stand in its address: everything that is shown has a link.

/** @typedef {{view: string, project: string, task: string, run: string, query: URLSearchParams}} Place
 *   view: overview, projects, project, plan, task, run, messages, runs, start or unknown */

/** @typedef {Record<string, string | number | null | undefined>} Query */

/** `?a=1&b=2` of what has a value. @param {Query} values */
export function queryText(values) {
  const known = Object.entries(values).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const text = new URLSearchParams(known.map(([name, value]) => [name, String(value)])).toString();
  return text && `?${text}`;
}

/** @param {string[]} parts @param {Query} [query] */
const link = (parts, query = {}) => `#/${parts.map(encodeURIComponent).join("/")}${queryText(query)}`;

export const links = {
  overview: () => link([]),
  projects: () => link(["projects"]),
  /** @param {string} project @param {Query} [query] */
  project: (project, query) => link(["p", project], query),
  /** @param {string} project @param {Query} [query] tab: stages, graph or timeline; task */
  plan: (project, query) => link(["p", project, "plan"], query),
  /** @param {string} project @param {string} task @param {Query} [query] */
  task: (project, task, query) => link(["p", project, "t", task], query),
  /** @param {string} project @param {string} task @param {string} run @param {Query} [query] file, line */
  run: (project, task, run, query) =>
    project && task ? link(["p", project, "t", task, "r", run], query) : link(["r", run], query),
  /** @param {string} [project] @param {string} [task] @param {Query} [query] type, q, msg */
  messages: (project, task, query) =>
    link([...(project ? ["p", project] : []), ...(project && task ? ["t", task] : []), "messages"], query),
  /** @param {Query} [query] q, status */
  runs: (query) => link(["runs"], query),
  /** @param {Query} [query] project, task */
  start: (query) => link(["start"], query),
};

/** What an address names; null for an anchor within the page.
 * @param {string} hash @returns {Place | null} */
export function parse(hash) {
  if (hash !== "" && !hash.startsWith("#/")) return null;
  const [path, query = ""] = hash.slice(2).split(/\?(.*)/s);
  let parts = [""];
  try {
    parts = path.split("/").map(decodeURIComponent);
  } catch {
    parts = ["?"]; // half a percent sign
  }
  const place = { view: viewOf(parts), project: "", task: "", run: "", query: new URLSearchParams(query) };
  if (parts[0] === "r") place.run = parts[1] ?? "";
  if (parts[0] !== "p") return place;
  place.project = parts[1] ?? "";
  if (parts[2] !== "t") return place;
  place.task = parts[3] ?? "";
  if (parts[4] === "r") place.run = parts[5] ?? "";
  return place;
}

/** @param {string[]} parts */
function viewOf(parts) {
  const shape = parts.map((part, number) => (isName(parts, number) ? "*" : part)).join("/");
  return VIEWS.get(shape) ?? "unknown";
}

/** Whether it stands behind one that says what it is a name of. @param {string[]} parts @param {number} number */
const isName = (parts, number) => number % 2 === 1 && (parts[0] === "p" || parts[0] === "r");

const VIEWS = new Map([
  ["", "overview"],
  ["projects", "projects"],
  ["runs", "runs"],
  ["messages", "messages"],
  ["start", "start"],
  ["r/*", "run"],
  ["p/*", "project"],
  ["p/*/plan", "plan"],
  ["p/*/messages", "messages"],
  ["p/*/t/*", "task"],
  ["p/*/t/*/r/*", "run"],
  ["p/*/t/*/messages", "messages"],
]);
