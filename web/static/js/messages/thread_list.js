// @ts-check
// The list of threads: a bounded part of it is in the page, more of it as one scrolls down.

import { h, setKey, setText, syncChildren } from "../dom.js";
import { counted } from "../figures.js";
import { makeItem, tickItem, updateItem } from "./item.js";

/** @typedef {import("./thread.js").Thread} Thread */
/** @typedef {import("./thread.js").Item} Item */
/** @typedef {import("./thread.js").Message} Message */

const PAGE = 60; // threads that are added at a time
const FIRST = 2; // messages of a long thread that are shown at once, from its beginning
const LAST = 18; // and up to its end

/** @param {Omit<import("./item.js").Around, "fold">} outside */
export function threadList(outside) {
  const element = h("ol", { class: "threads" });
  const end = h("div");
  const frame = h("div", {}, element, end);
  /** @type {Set<string>} */
  const folded = new Set();
  /** @type {Set<string>} */
  const whole = new Set(); // long threads that are shown in full
  /** @type {Thread[]} */
  let threads = [];
  let most = PAGE;
  let marked = "";
  const around = { ...outside, fold };
  /** @type {WeakMap<Element, string>} */
  const drawn = new WeakMap(); // what a row was made of
  /** @type {Set<Element>} */
  const inSight = new Set();
  const sight = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) inSight.add(target);
      else inSight.delete(target);
      if (isIntersecting) itemsOf(target).forEach(tickItem);
    }
  });
  const watcher = new IntersectionObserver((entries) => {
    if (entries.some((entry) => entry.isIntersecting) && most < threads.length) grow();
  }, { rootMargin: "800px" });
  watcher.observe(end);

  /** What is there stays as it is: only its end is new. */
  function grow() {
    const more = threads.slice(most, most + PAGE);
    most += PAGE;
    element.append(...more.map((thread) => {
      const row = makeThread(thread);
      setKey(row, thread.key);
      updateThread(row, thread);
      return row;
    }));
    watchEnd();
  }

  function watchEnd() {
    watcher.unobserve(end); // so that it tells once more if it is still in sight
    watcher.observe(end);
  }

  function sync() {
    const before = document.activeElement;
    syncChildren(element, threads.slice(0, most), (thread) => thread.key, makeThread, updateThread);
    // What was moved within the page has lost the focus.
    if (before instanceof HTMLElement && before !== document.activeElement && element.contains(before)) before.focus({ preventScroll: true });
    for (const row of inSight) if (!row.isConnected) inSight.delete(row);
    watchEnd();
  }

  /** @param {Thread} thread */
  function makeThread(thread) {
    const row = h("li", { class: "thread" }, h("ol", {}), h("button", {
      type: "button", class: "plain small rest",
      onclick: () => {
        whole.add(thread.key);
        sync();
      },
    }));
    sight.observe(row);
    return row;
  }

  /** Another one when the row would look different. @param {Thread} thread */
  const look = (thread) =>
    `${whole.has(thread.key)} ${thread.items.map((item) =>
      `${item.key} ${item.replies} ${item.isContext} ${folded.has(item.key)} ${item.message.msg_id === marked}`).join("\n")}`;

  /** @param {HTMLElement} row @param {Thread} thread */
  function updateThread(row, thread) {
    const now = look(thread);
    if (drawn.get(row) === now) return;
    drawn.set(row, now);
    const items = unfolded(thread.items);
    const isCut = items.length > FIRST + LAST && !whole.has(thread.key);
    const shown = isCut ? [...items.slice(0, FIRST), ...items.slice(-LAST)] : items;
    const [list, rest] = /** @type {[HTMLElement, HTMLElement]} */ ([...row.children]);
    syncChildren(list, shown, (item) => item.key, (item) => h("li", {}, makeItem(item, around)), (place, item) =>
      updateItem(place.firstElementChild, item, { isFolded: folded.has(item.key), isMarked: item.message.msg_id === marked }));
    rest.hidden = !isCut;
    if (isCut) setText(rest, `Show ${counted(items.length - shown.length, "message")} in between`);
  }

  /** Without what is folded away. @param {Item[]} items */
  function unfolded(items) {
    /** @type {Item[]} */
    const found = [];
    for (let at = 0; at < items.length; at += 1) {
      found.push(items[at]);
      if (folded.has(items[at].key)) at = lastReply(items, at);
    }
    return found;
  }

  /** @param {string} key */
  function fold(key) {
    if (!folded.delete(key)) folded.add(key);
    sync();
  }

  /** @param {Element} row */
  const itemsOf = (row) => [...row.querySelectorAll("article")];
  const articles = () => /** @type {HTMLElement[]} */ ([...element.querySelectorAll("article")]);
  const shownItems = () => threads.flatMap((thread) => thread.items);

  return {
    element: frame,
    /** @param {Thread[]} wanted @param {string} mark the id of a message
     * @param {boolean} isAtTop so that what is far below is not in sight */
    show(wanted, mark, isAtTop) {
      threads = wanted;
      if (isAtTop) most = PAGE;
      marked = mark;
      sync();
    },
    /** Brings a message into sight and marks it; false where it is not in the list. @param {string} id */
    mark(id) {
      const at = threads.findIndex((thread) => thread.items.some((item) => item.message.msg_id === id));
      if (at < 0) return false;
      const thread = threads[at];
      marked = id;
      most = Math.max(most, at + 1);
      whole.add(thread.key);
      for (const item of thread.items) folded.delete(item.key);
      sync();
      const article = articles().find((each) => each.getAttribute("aria-current"));
      article?.scrollIntoView({ block: "center" });
      article?.focus({ preventScroll: true });
      return true;
    },
    focusFirst() {
      articles()[0]?.focus({ preventScroll: true });
    },
    /** The message that has the focus. @returns {Message | undefined} */
    focused() {
      const article = document.activeElement?.closest("article");
      const key = article && article.getAttribute("data-key");
      return key ? shownItems().find((item) => item.key === key)?.message : undefined;
    },
    /** Those whose age is to be kept right. */
    visibleItems: () => [...inSight].flatMap(itemsOf),
    close() {
      watcher.disconnect();
      sight.disconnect();
    },
  };
}

/** Where the last of what is below it stands. @param {Item[]} items @param {number} at */
function lastReply(items, at) {
  let end = at;
  while (end + 1 < items.length && items[end + 1].level > items[at].level) end += 1;
  return end;
}
