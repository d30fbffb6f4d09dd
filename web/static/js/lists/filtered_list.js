// @ts-check
// A long list of the server with a field for words and a choice of states above it; both stand in
// the page's address.

import { get } from "../api.js";
import { h, setAttribute, setText } from "../dom.js";
import { countText } from "../figures.js";
import { everySecond, keepFresh } from "../live.js";
import { problem } from "../parts.js";
import { VirtualList } from "../virtual_list.js";
import { choice, setAddress, wordField } from "./filters.js";
import { Pages } from "./pages.js";

/** @typedef {{q: string, status: string}} Wanted */

/** @param {{
 *   label: string, name: string, columns: [string, string][], makeRow: () => import("./cells.js").Row,
 *   keyOf: (item: any) => string, states: [string, string][], placeholder: string,
 *   address: (part: Wanted & {offset: number, limit: number}) => string,
 *   href: (wanted: Wanted) => string, wants: (change: import("../live.js").Change) => boolean,
 *   emptiness: (isFiltered: boolean) => Node | string}} options
 *   states: value and words; address: of a page of it; href: of the place that shows it so
 * @param {Wanted} wanted */
export function filteredList(options, wanted) {
  const { keyOf, address, href, emptiness } = options;
  let { q, status } = wanted;
  const [refused, total, none] = [problem(), h("span", { class: "quiet total" }), h("div", { class: "empty", hidden: true })];
  const words = wordField(`Filter: ${options.label}`, options.placeholder, (text) => choose({ q: text, status }));
  const states = choice("State", options.states, (value) => choose({ q, status: value }));
  let pages = newPages();
  const list = new VirtualList({
    ...options,
    source: {
      count: () => pages.count(), at: (index) => pages.at(index), keyOf,
      indexOf: (key) => pages.indexOf(key), want: (first, last) => pages.want(first, last),
    },
  });
  let keeper = begin();

  function newPages() {
    return new Pages((offset, limit, signal) => get(address({ q, status, offset, limit }), signal), keyOf, show,
      { onTrouble: () => keeper.refresh() });
  }

  function begin() {
    words.set(q);
    states.set(status);
    const current = pages;
    return keepFresh((signal) => current.refresh(signal), { wants: options.wants, onRefused: (error) => refused.show(error.message) });
  }

  function show() {
    refused.show("");
    setText(total, countText(pages.count()));
    setAttribute(none, "hidden", pages.total === 0 ? null : "");
    if (pages.total === 0) none.replaceChildren(emptiness(Boolean(q || status)));
    list.update();
  }

  /** @param {Wanted} other */
  function choose(other) {
    if (other.q === q && other.status === status) return;
    ({ q, status } = other);
    setAddress(href(other));
    end();
    pages = newPages();
    list.toTop();
    keeper = begin();
  }

  function end() {
    keeper.stop();
    pages.close();
  }

  const stopClock = everySecond(() => list.tick());
  return {
    element: h("div", {}, h("div", { class: "tools" }, words.element, states.element), refused.element, none, list.element),
    total,
    choose,
    tick: () => list.tick(),
    close() {
      end();
      stopClock();
      words.close();
      list.close();
    },
  };
}
