// @ts-check
// Where a run comes from and what it has started: restarts, parents, and the tree of its children.

import { h, setAttribute, setText, syncChildren } from "../dom.js";
import { counted, moneyText } from "../figures.js";
import { links } from "../router.js";
import { setBadge, badge } from "../states.js";
import { agoText, dateText, msOf, secondsText } from "../times.js";

/** @typedef {{run_id: string, project_id: string, task_id: string, agent: string, status: string,
 *   started: string | null, ended: string | null, exit_code: number | null, reason: string,
 *   cost_usd: number | null, children?: RunLink[]}} RunLink */

const MOST_OF_CHAIN = 12;

/** @param {string} own the id of the run that is shown */
export function makeFamily(own) {
  const chain = h("ol", { class: "chain" });
  const chainNote = h("p", { class: "small quiet" });
  const parents = h("ol", { class: "chain" });
  const tree = h("ul", { class: "tree" });
  const treeNote = h("p", { class: "small quiet" });
  const sections = {
    chain: h("section", { hidden: true }, h("h2", {}, "Restarts"), chainNote, chain),
    parents: h("section", { hidden: true }, h("h2", {}, "Started by"), parents),
    children: h("section", { hidden: true }, h("h2", {}, "Has started"), treeNote, tree),
  };
  return {
    elements: Object.values(sections),
    /** @param {{chain: RunLink[], parents: RunLink[], children: RunLink[], more: boolean}} family */
    show(family) {
      const shown = aroundOwn(family.chain, own);
      sections.chain.hidden = family.chain.length < 2;
      sections.parents.hidden = !family.parents.length;
      sections.children.hidden = !family.children.length;
      const at = family.chain.findIndex((link) => link.run_id === own);
      setText(chainNote, `This is run ${at + 1} of ${family.chain.length}.`);
      const numbers = new Map(family.chain.map((link, number) => [link.run_id, `Run ${number + 1}`]));
      syncLinks(chain, shown, own, (run) => numbers.get(run.run_id) ?? "");
      syncLinks(parents, family.parents, own, nameOf);
      syncTree(tree, family.children, own);
      setText(treeNote, counted(count(family.children), "run") + (family.more ? " and more" : ""));
    },
  };
}

/** @param {RunLink[]} chain @param {string} own */
function aroundOwn(chain, own) {
  const at = chain.findIndex((link) => link.run_id === own);
  const first = Math.max(0, Math.min(at - MOST_OF_CHAIN / 2, chain.length - MOST_OF_CHAIN));
  return chain.slice(first, first + MOST_OF_CHAIN);
}

/** @param {RunLink[]} links @returns {number} */
const count = (links) => links.reduce((sum, link) => sum + 1 + count(link.children ?? []), 0);

/** By its task where it has one: which run of it, its title says. @param {RunLink} run */
const nameOf = (run) => run.task_id || run.run_id;

/** @param {Element} list @param {RunLink[]} runs @param {string} own @param {(run: RunLink) => string} wordsOf */
function syncLinks(list, runs, own, wordsOf) {
  syncChildren(list, runs, (run) => run.run_id, makeLink, (item, run) => updateLink(item, run, own, wordsOf(run)));
}

/** @param {Element} list @param {RunLink[]} runs @param {string} own */
function syncTree(list, runs, own) {
  syncChildren(list, runs, (run) => run.run_id, (run) => {
    const item = makeLink(run);
    item.append(h("ul", { class: "tree" }));
    return item;
  }, (item, run) => {
    updateLink(item, run, own, nameOf(run));
    syncTree(item.lastElementChild, run.children ?? [], own);
  });
}

/** @param {RunLink} run */
function makeLink(run) {
  return h("li", { "data-row": true },
    h("div", { class: "run-link" }, badge(run.status),
      h("a", { class: "id" }, ""), h("span", { class: "small quiet" })));
}

/** @param {Element} item @param {RunLink} run @param {string} own @param {string} words */
function updateLink(item, run, own, words) {
  const [state, link, about] = /** @type {Element} */ (item.firstElementChild).children;
  setBadge(state, run.status);
  setAttribute(link, "href", links.run(run.project_id, run.task_id, run.run_id));
  setAttribute(link, "aria-current", run.run_id === own ? "page" : null);
  setAttribute(link, "title", run.run_id);
  setText(link, words);
  setText(about, aboutRun(run));
  setAttribute(about, "title", run.reason || dateText(run.started));
}

/** @param {RunLink} run */
function aboutRun(run) {
  const ms = msOf(run.ended) - msOf(run.started);
  const took = Number.isNaN(ms) ? "" : secondsText(ms / 1000);
  const code = run.exit_code !== null && run.exit_code > 0 ? `exit ${run.exit_code}` : "";
  const cost = run.cost_usd === null || run.cost_usd === undefined ? "" : moneyText(run.cost_usd);
  return [run.agent, code, took || agoText(run.started), cost].filter((text) => text && text !== "–").join(" · ");
}
