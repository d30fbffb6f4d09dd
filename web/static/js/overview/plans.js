// @ts-check
// The plans: how far each is, and what can be done with it.

import { startPlan, stopPlan } from "../actions.js";
import { h, setAttribute, setText } from "../dom.js";
import { countText, moneyText } from "../figures.js";
import { setAgo, syncRows } from "../lists/cells.js";
import { sentenceOf } from "../lists/counts.js";
import { progress } from "../lists/progress.js";
import { links } from "../router.js";
import { badge, setBadge } from "../states.js";
import { secondsText } from "../times.js";

/** @type {Map<string, [string, string]>} */
const ACTS = new Map([
  ["running", ["stop", "Stop"]], ["failed", ["retry", "Retry failed"]],
  ["stopped", ["continue", "Continue"]], ["gone", ["continue", "Continue"]], ["idle", ["continue", "Start"]],
]);

export function plans() {
  const [title, total, list] = [h("h2", {}), h("span", { class: "quiet" }), h("ul", { class: "plans" })];
  const none = h("p", { class: "none" }, "No plan has been run.");
  const element = h("section", { "aria-label": "Plans" }, title, none, list);
  title.append("Plans ", total);
  return {
    element,
    /** @param {any} answer */
    show(answer) {
      syncRows(list, answer.plans, ({ project_id }) => project_id, () => planCard("li"));
      setAttribute(none, "hidden", answer.plans.length ? "" : null);
      setText(total, answer.plan_total ? moreText(answer.plans.length, answer.plan_total) : "");
    },
  };
}

/** `20 of 34`, or `3`. @param {number} shown @param {number} total */
export const moreText = (shown, total) => (shown < total ? `${countText(shown)} of ${countText(total)}` : countText(total));

/** One plan. @param {"li" | "div"} [tag] */
export function planCard(tag = "div") {
  /** @type {any} */
  let shown = {};
  const [name, state, bar] = [h("a", { class: "name" }), badge(""), progress()];
  const [project, said, facts, when] = [h("span", { class: "quiet small clip" }), h("span", {}), h("span", { class: "quiet" }), h("time", { class: "quiet" })];
  const button = h("button", { type: "button", onclick: () => act(shown) });
  const element = h(tag, { class: "card plan-card", "data-row": tag === "li" },
    h("div", { class: "plan-head" }, h("div", { class: "plan-name" }, name, project), state, button),
    bar.element,
    h("p", { class: "plan-said small" }, said, facts, when));

  /** @param {any} plan */
  function update(plan) {
    shown = plan;
    setText(name, plan.title || plan.project_id);
    setAttribute(name, "href", links.plan(plan.project_id));
    setText(project, plan.title ? plan.project_id : "");
    setBadge(state, plan.state, { gone: "cut off", idle: "not begun" }[/** @type {string} */ (plan.state)]);
    const words = ACTS.get(plan.state)?.[1];
    setAttribute(button, "hidden", words ? null : "");
    setText(button, words ?? "");
    setAttribute(button, "aria-label", words ? `${words}: ${plan.title || plan.project_id}` : null);
    bar.update(plan.counts, plan.total);
    setText(said, plan.problem || sentenceOf(plan.counts, plan.total));
    setText(facts, factsOf(plan).join(" · "));
    setAgo(when, plan.is_run ? null : plan.updated);
    setAttribute(when, "hidden", plan.is_run || !plan.updated ? "" : null);
  }
  return { element, update };
}

/** @param {any} plan */
function factsOf({ is_run, seconds_left, cost_usd, cost_estimated }) {
  const left = is_run && typeof seconds_left === "number" ? [`about ${secondsText(seconds_left)} left`] : [];
  return cost_usd === null ? left : [...left, moneyText(cost_usd, cost_estimated)];
}

/** @param {any} plan */
function act({ state, project_id }) {
  const what = ACTS.get(state)?.[0];
  if (what === "stop") return stopPlan(project_id);
  return startPlan(project_id, { retryFailed: what === "retry" });
}
