// @ts-check
// How far everything is, in one line: counts, shares, time, tokens, money, disk, the last event.

import { h, setAttribute, setText } from "../dom.js";
import { bytesText, countText, counted, moneyText, tokensText } from "../figures.js";
import { setAgo, syncRows } from "../lists/cells.js";
import { progress } from "../lists/progress.js";
import { links } from "../router.js";
import { sign } from "../states.js";
import { msOf, now, secondsText } from "../times.js";

const ORDER = ["done", "running", "waiting", "blocked", "failed", "quota", "pending"];

/** The counts in the order in which they are told: failures first, where there are any.
 * @param {Record<string, number>} counts @returns {{state: string, count: number}[]} */
export function ordered(counts) {
  const found = ORDER.map((state) => ({ state, count: counts[state] ?? 0 }));
  return found.sort((one, other) => rank(one) - rank(other));
}

/** @param {{state: string, count: number}} share */
const rank = ({ state, count }) => (state === "failed" && count > 0 ? -1 : ORDER.indexOf(state));

export function statusLine() {
  const [counts, bar] = [h("ul", { class: "counts", "aria-label": "Tasks" }), progress()];
  const [elapsed, left, tokens, cost, disk] = ["Elapsed", "Left", "Tokens", "Cost", "Disk"].map(fact);
  const event = lastEvent();
  const element = h("section", { class: "status-line", "aria-label": "Status" },
    counts, bar.element,
    h("dl", { class: "figures" }, [elapsed, left, tokens, cost, disk].map((item) => item.element), event.element));
  /** @type {any} */
  let shown = null;

  function tick() {
    if (!shown) return;
    const grown = isAtWork(shown) ? Math.max(0, now() - msOf(shown.time)) / 1000 : 0;
    elapsed.show(shown.elapsed_seconds === null ? null : secondsText(shown.elapsed_seconds + grown));
    left.show(shown.seconds_left === null ? null : leftText(shown.seconds_left - grown));
    event.tick();
  }

  return {
    element,
    tick,
    /** @param {any} answer */
    show(answer) {
      shown = answer;
      syncRows(counts, ordered(answer.counts), ({ state }) => state, countItem);
      bar.update(answer.counts, answer.total);
      setAttribute(bar.element, "hidden", answer.total ? null : "");
      tokens.show(`${tokensText(answer.usage.input_tokens)} in, ${tokensText(answer.usage.output_tokens)} out`, missing(answer.usage.runs_without_tokens, "tokens"));
      cost.show(moneyText(answer.usage.cost_usd, answer.usage.cost_estimated), missing(answer.usage.runs_without_cost, "cost"));
      disk.show(answer.disk.free_bytes === null ? null : `${bytesText(answer.disk.free_bytes)} free`);
      event.show(answer.last_event);
      tick();
    },
  };
}

/** @param {any} answer */
const isAtWork = ({ live, plans }) => live.length > 0 || plans.some((/** @type {any} */ plan) => plan.is_run);

/** An estimate is told in round figures. @param {number} seconds */
const leftText = (seconds) => (seconds < 5 ? "a moment" : `about ${secondsText(seconds < 120 ? seconds : Math.round(seconds / 60) * 60)}`);

/** @param {number} count @param {string} what */
const missing = (count, what) => (count ? `+ ${counted(count, "run")} without ${what}` : "");

/** @returns {import("../lists/cells.js").Row} */
function countItem() {
  const number = h("strong", {});
  const word = h("span", {});
  const element = h("li", {});
  return {
    element,
    /** @param {{state: string, count: number}} share */
    update({ state, count }) {
      if (!element.firstChild) element.append(sign(state), number, " ", word);
      setAttribute(element, "data-status", state);
      setAttribute(element, "class", count ? null : "zero");
      setText(number, countText(count));
      setText(word, state === "quota" ? "wait for quota" : state);
    },
  };
}

/** A figure with its name; out of sight while it is not known. @param {string} name */
function fact(name) {
  const [value, more] = [h("span", {}), h("span", { class: "quiet" })];
  const element = h("div", { hidden: true }, h("dt", {}, name), h("dd", {}, value, more));
  return {
    element,
    /** @param {string | null} text @param {string} [rest] */
    show(text, rest = "") {
      setAttribute(element, "hidden", text === null ? "" : null);
      setText(value, text ?? "");
      setText(more, rest && ` ${rest}`);
    },
  };
}

/** The newest message of all, as a link to where it is from. */
function lastEvent() {
  const [time, link] = [h("time", {}), h("a", { class: "clip" })];
  const element = h("div", { class: "event", hidden: true }, h("dt", {}, "Last event"), h("dd", {}, time, link));
  /** @type {any} */
  let shown = null;
  return {
    element,
    tick: () => shown && setAgo(time, shown.time),
    /** @param {any} event */
    show(event) {
      shown = event;
      setAttribute(element, "hidden", event ? null : "");
      if (!event) return;
      const text = event.text || event.type || "a message";
      setText(link, text);
      setAttribute(link, "title", text);
      setAttribute(link, "href", placeOf(event));
    },
  };
}

/** @param {any} event */
function placeOf({ project_id, task_id, run_id }) {
  if (run_id) return links.run(project_id ?? "", task_id ?? "", run_id);
  if (project_id && task_id) return links.task(project_id, task_id);
  return project_id ? links.project(project_id) : links.messages();
}
