// @ts-check
// The agents that work now: on what, for how long, for how much, and what they say.

import { h, setAttribute, setText } from "../dom.js";
import { countText, moneyText } from "../figures.js";
import { setClipped, setLink, syncRows } from "../lists/cells.js";
import { tokensPair } from "../lists/run_row.js";
import { links } from "../router.js";
import { msOf, now, secondsText, spanText } from "../times.js";

const MOST = 100; // rows; the rest is in the list of runs
const LONG_SILENT_SECONDS = 120;
const TITLES = ["Task", "Agent", "For", "Silent", "Tokens in / out", "Cost", "Last line"];
const CLASSES = ["task", "agent", "number for", "number silent", "number tokens", "number cost", "line"];

export function agents() {
  const [title, total, body] = [h("h2", {}), h("span", { class: "quiet" }), h("tbody", {})];
  const table = h("table", { class: "agents" },
    h("thead", {}, h("tr", {}, TITLES.map((name, at) => h("th", { scope: "col", class: CLASSES[at] }, name)))), body);
  const none = h("p", { class: "none" }, "No agent is at work.");
  const more = h("a", { href: links.runs({ status: "running" }), hidden: true });
  const element = h("section", { "aria-label": "Running agents" }, title, none, table, more);
  title.append("Running agents ", total);
  /** @type {Map<string, AgentRow>} */
  let rows = new Map();

  return {
    element,
    /** @param {any} answer */
    show({ live, live_total, time }) {
      const [before, count] = [rows, live_total ?? live.length];
      rows = new Map();
      syncRows(body, live.slice(0, MOST), ({ run_id }) => run_id, () => new AgentRow());
      for (const row of /** @type {Iterable<HTMLElement>} */ (body.children)) {
        const own = of.get(row);
        if (own) rows.set(own.runId, own);
      }
      for (const run of live) rows.get(run.run_id)?.learn(run, time, before.has(run.run_id));
      setAttribute(table, "hidden", live.length ? null : "");
      setAttribute(none, "hidden", live.length ? "" : null);
      setText(total, count ? countText(count) : "");
      setAttribute(more, "hidden", count > MOST ? null : "");
      setText(more, `All ${countText(count)} runs that are at work`);
    },
    tick: () => rows.forEach((row) => row.tick()),
    /** @param {import("../live.js").Lines} lines */
    hear(lines) {
      for (const [run, { line }] of Object.entries(lines)) rows.get(run)?.hear(line);
    },
  };
}

/** @type {WeakMap<HTMLElement, AgentRow>} */
const of = new WeakMap();

class AgentRow {
  constructor() {
    this.runId = "";
    this.started = "";
    this.heardMs = NaN; // when it last said something
    this.task = h("a", {});
    this.place = h("span", { class: "quiet small clip" });
    this.agent = h("span", {});
    this.model = h("span", { class: "quiet small clip" });
    this.for = h("span", {});
    this.silent = h("span", {});
    this.tokens = h("span", {});
    this.cost = h("span", {});
    this.line = h("span", { class: "mono clip" });
    const cells = [[this.task, this.place], [this.agent, this.model], this.for, this.silent, this.tokens, this.cost, this.line];
    this.element = h("tr", { "data-row": true },
      cells.map((content, at) => h("td", { class: CLASSES[at], "data-title": TITLES[at] }, content)));
    of.set(this.element, this);
  }

  /** @param {any} run */
  update = (run) => {
    this.runId = run.run_id;
    this.started = run.started;
    const name = run.title || run.task_id || run.run_id;
    setLink(this.task, links.run(run.project_id, run.task_id, run.run_id), name, run.run_id);
    setClipped(this.place, [run.project_id, run.task_id === name ? "" : run.task_id].filter(Boolean).join(" / "));
    setText(this.agent, run.agent);
    setClipped(this.model, run.model ?? "");
    setText(this.tokens, tokensPair(run));
    setText(this.cost, moneyText(run.cost_usd, run.cost_estimated));
  };

  /** What grows stale: a line that was heard meanwhile is newer than the answer's.
   * @param {any} run @param {string} time of the answer @param {boolean} isKnown */
  learn(run, time, isKnown) {
    const heardMs = run.silent_seconds === null ? NaN : msOf(time) - run.silent_seconds * 1000;
    if (!isKnown || !(this.heardMs > heardMs)) {
      this.heardMs = heardMs;
      if (run.last_line || !isKnown) setClipped(this.line, run.last_line);
    }
    this.tick();
  }

  /** @param {string} line */
  hear(line) {
    this.heardMs = now();
    setClipped(this.line, line);
    this.tick();
  }

  tick() {
    const silent = Math.max(0, (now() - this.heardMs) / 1000);
    setText(this.for, spanText(this.started));
    setText(this.silent, secondsText(silent));
    setAttribute(this.silent, "class", silent >= LONG_SILENT_SECONDS ? "long" : null);
  }
}
