// @ts-check
// The runs that live, each with its last line.
//
// What an agent prints is often JSON, so the line is that of the transcript.  It is fetched for a
// run of which a line has been announced, once a second at most, however much the run prints.

import { addresses, get } from "./api.js";
import { showLive } from "./lists.js";

const END_BYTES = 4000;

/** @type {import("./lists.js").LiveRun[]} */
let runs = [];
/** @type {Map<string, string>} */
const lines = new Map();
/** @type {Map<string, string>} what came last of runs with news */
const news = new Map();
let isFetching = false;

/** A line of some run has been announced. @param {MessageEvent} event */
export function noteLine(event) {
  const { run_id: run, line } = JSON.parse(event.data);
  news.set(run, line);
}

/** @param {import("./lists.js").LiveRun[]} found */
export function setLive(found) {
  runs = found;
  const ids = new Set(runs.map((run) => run.run_id));
  for (const known of [lines, news]) {
    for (const id of known.keys()) if (!ids.has(id)) known.delete(id);
  }
  for (const id of ids) if (!lines.has(id) && !news.has(id)) news.set(id, "");
  render();
}

function render() {
  showLive(runs, (id) => lines.get(id) ?? "");
}

/** To be called once a second: the time goes on, and lines come in. */
export async function tick() {
  render();
  if (isFetching) return;
  isFetching = true;
  const due = runs.map((run) => run.run_id).filter((id) => news.has(id));
  await Promise.all(due.map(fetchLine));
  isFetching = false;
  render();
}

/** @param {string} id */
async function fetchLine(id) {
  const announced = news.get(id) ?? "";
  news.delete(id);
  try {
    const { content } = await get(addresses.end(id, END_BYTES));
    lines.set(id, lastLine(content) || announced);
  } catch {
    lines.set(id, announced); // no transcript, as of runs of the original
  }
}

/** @param {string} text */
const lastLine = (text) => text.trimEnd().split("\n").at(-1)?.slice(0, 300) ?? "";
