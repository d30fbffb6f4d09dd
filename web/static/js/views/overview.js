// @ts-check
// The first page: how far everything is, what needs somebody, what runs, and where to go from here.

import { addresses } from "../api.js";
import { h, setAttribute } from "../dom.js";
import { everySecond, keepShowing, onLines } from "../live.js";
import { agents } from "../overview/agents.js";
import { beginnings } from "../overview/beginnings.js";
import { plans } from "../overview/plans.js";
import { problems } from "../overview/problems.js";
import { recentProjects } from "../overview/projects.js";
import { statusLine } from "../overview/status_line.js";
import { problem } from "../parts.js";

/** @returns {import("../main.js").View} */
export function openOverview() {
  const refused = problem();
  const [status, wrong, live, planned, recent] = [statusLine(), problems(), agents(), plans(), recentProjects()];
  const begin = h("div", { hidden: true }, beginnings());
  const parts = h("div", { class: "overview" },
    h("div", { class: "now" }, wrong.element, live.element),
    h("div", { class: "whole" }, planned.element, recent.element));
  const all = h("div", { hidden: true }, status.element, parts);
  const waiting = h("p", { class: "quiet late" }, "…");

  const keeper = keepShowing(addresses.overview, (answer) => {
    refused.show("");
    waiting.remove();
    const isEmpty = answer.run_total === 0 && answer.plan_total === 0 && answer.project_total === 0;
    setAttribute(begin, "hidden", isEmpty ? null : "");
    setAttribute(all, "hidden", isEmpty ? "" : null);
    for (const part of [status, wrong, live, planned, recent]) part.show(answer);
  }, { onRefused: (error) => refused.show(error.message) });
  const stopLines = onLines(live.hear);
  const stopClock = everySecond(() => {
    for (const part of [status, wrong, live, recent]) part.tick();
  });

  return {
    element: h("div", {}, h("h1", { class: "away", tabindex: -1 }, "Overview"), refused.element, waiting, begin, all),
    title: "Overview",
    close() {
      keeper.stop();
      stopLines();
      stopClock();
    },
  };
}
