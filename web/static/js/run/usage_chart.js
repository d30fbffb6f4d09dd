// @ts-check
// What a task has used so far, over time: a step at the end of each run.

import { h, setAttribute, setText, svg } from "../dom.js";
import { usageSteps, stepPath } from "./usage_steps.js";
import { moneyText, tokensText } from "../figures.js";
import { dateText } from "../times.js";

const [WIDTH, HEIGHT] = [320, 72];

/** Two of them: money and tokens. */
export function makeUsageCharts() {
  const charts = [makeChart("Cost", (value, isEstimated) => moneyText(value, isEstimated)), makeChart("Tokens", (value) => tokensText(value))];
  const element = h("section", { hidden: true }, h("h2", {}, "Cost and tokens over time"),
    h("div", { class: "used-charts" }, charts.map((chart) => chart.element)));
  return {
    element,
    /** @param {import("./usage_steps.js").Used[]} runs */
    show(runs) {
      const { cost, tokens, isEstimated } = usageSteps(runs);
      element.hidden = cost.length + tokens.length < 3;
      charts[0].show(cost, isEstimated);
      charts[1].show(tokens, false);
    },
  };
}

/** @param {string} name @param {(value: number, isEstimated: boolean) => string} textOf */
function makeChart(name, textOf) {
  const under = svg("path", { class: "under" });
  const line = svg("path", { class: "step" });
  const picture = svg("svg", { viewBox: `0 -2 ${WIDTH} ${HEIGHT + 4}`, preserveAspectRatio: "none", role: "img" },
    under, svg("path", { class: "axis", d: `M0 ${HEIGHT}H${WIDTH}` }), line);
  const [sum, from, to] = [h("b", {}), h("span", {}), h("span", {})];
  const element = h("figure", { class: "used-chart" }, h("figcaption", {}, `${name} `, sum), picture,
    h("div", { class: "used-ends" }, from, to));
  return {
    element,
    /** @param {import("./usage_steps.js").Step[]} steps @param {boolean} isEstimated */
    show(steps, isEstimated) {
      element.hidden = steps.length < 2;
      if (steps.length < 2) return;
      const [first, last] = [steps[0], steps[steps.length - 1]];
      const path = stepPath(steps, WIDTH, HEIGHT);
      setAttribute(line, "d", path);
      setAttribute(under, "d", `${path}V${HEIGHT}H0Z`);
      setText(sum, textOf(last.value, isEstimated));
      setText(from, shortDate(first.ms));
      setText(to, shortDate(last.ms));
      setAttribute(picture, "aria-label",
        `${name} over time: ${textOf(last.value, isEstimated)} after ${steps.length - 1} steps, from ${shortDate(first.ms)} to ${shortDate(last.ms)}`);
    },
  };
}

/** @param {number} ms */
const shortDate = (ms) => dateText(new Date(ms).toISOString());
