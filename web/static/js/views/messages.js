// @ts-check
// The messages of all buses, of a project or of a task: threads, the one with the newest on top.
//
// While somebody reads further down nothing moves: what comes meanwhile waits behind a button.

import { addresses, get } from "../api.js";
import { notice } from "../dialogs.js";
import { h, setChildren, setText } from "../dom.js";
import { setOptions } from "../fields.js";
import { counted, countText } from "../figures.js";
import { everySecond, keepFresh } from "../live.js";
import * as filters from "../messages/filter.js";
import { tickItem } from "../messages/item.js";
import { postForm } from "../messages/post_form.js";
import { threadList } from "../messages/thread_list.js";
import { filtered, keyOf, merged, threadsOf } from "../messages/thread.js";
import { command, heading, problem, trail } from "../parts.js";
import { links } from "../router.js";

/** @typedef {import("../messages/thread.js").Message} Message */

const STEP = 500; // messages that are asked for at first, and by each "older"
const MOST = 5000; // that the server gives, and the page keeps
const NEWS = 50; // asked for when something has changed: more than can come at once
const TYPING_MS = 150;

/** @param {import("../router.js").Place} place @returns {import("../main.js").View} */
export function openMessages(place) {
  const scope = { project: place.project, task: place.task };
  let filter = filters.readFilter(place.query);
  let linked = place.query.get("msg") ?? ""; // the message that the address names
  let wanted = linked; // the same until it has been brought into sight
  let limit = STEP;
  let hasMore = false;
  let isLoaded = false;
  let isDue = true; // a whole list, not only what is new
  let typing = 0;
  /** @type {Message[]} */
  let messages = []; // all that is known, the oldest first
  /** @type {Message[]} */
  let shown = []; // what the list is made of

  // ---- what it is made of

  const search = h("input", { type: "search", "data-search": true, placeholder: "Words", "aria-label": "Filter by words", oninput: onTyping });
  const type = h("select", { "aria-label": "Filter by type", onchange: () => setFilter({ type: type.value }) });
  const from = h("select", { "aria-label": "Filter by where it comes from", onchange: () => setFilter({ place: from.value }) });
  const clear = h("button", { type: "button", class: "plain", onclick: () => setFilter({ type: "", place: "", text: "" }) }, "Without filter");
  const count = h("p", { class: "quiet small count" });
  const refusal = problem();
  const news = h("button", { type: "button", class: "first news", hidden: true, onclick: showNews });
  const none = h("div", { class: "none", hidden: true });
  const older = h("button", { type: "button", hidden: true, onclick: askOlder }, "Older messages");
  const list = threadList({ ...scope, reply, linkOf: (message) => links.messages(scope.project, scope.task, { msg: message.msg_id }) });
  const form = postForm(scope, onPosted);
  form.element.hidden = !form.hasDraft();
  const write = h("button", { type: "button", "aria-expanded": String(!form.element.hidden), onclick: () => openForm(Boolean(form.element.hidden)) }, "Post a message");
  const where = scope.task || scope.project;
  const element = h("div", { class: "messages" },
    trail(scope),
    heading(where ? `Messages of ${where}` : "Messages", [], [write]),
    form.element,
    h("div", { class: "tools" }, search, type, !scope.task && from, clear, count),
    refusal.element, h("div", { class: "news-place" }, news), none, list.element, h("p", { class: "older" }, older));

  // ---- what it asks for

  const address = (/** @type {number} */ number) =>
    scope.task ? addresses.messages(scope.project, scope.task, { limit: number }) : addresses.recentMessages(number, scope.project);
  const keeper = keepFresh(load, {
    wants: (change) => !isLoaded || change.buses.some((bus) =>
      !scope.project || !bus.project_id || (bus.project_id === scope.project && (!scope.task || !bus.task_id || bus.task_id === scope.task))),
    onRefused: (error) => refusal.show(error.message),
  });

  /** @param {AbortSignal} signal */
  async function load(signal) {
    if (isDue || !(await loadNews(signal))) await loadAll(signal);
    refusal.show("");
    isLoaded = true;
    render(isReading());
    if (wanted) await lookFor(signal);
  }

  /** @param {AbortSignal} signal */
  async function loadAll(signal) {
    const answer = await get(address(limit), signal);
    isDue = false;
    messages = merged([], answer.messages);
    hasMore = Boolean(answer.has_more);
  }

  /** False where it is not known that nothing is between the new ones and those that are known.
   * @param {AbortSignal} signal */
  async function loadNews(signal) {
    const answer = await get(address(NEWS), signal);
    const known = new Set(messages.map(keyOf));
    const found = /** @type {Message[]} */ (answer.messages);
    if (!found.some((message) => known.has(keyOf(message)))) return false;
    if (!answer.has_more && found.length < messages.length) return false; // a bus has been taken away
    messages = merged(messages, found);
    if (messages.length > Math.max(limit, STEP)) {
      messages = messages.slice(-Math.max(limit, STEP));
      hasMore = true;
    }
    return true;
  }

  function askOlder() {
    limit = Math.min(MOST, limit < 2 * STEP ? 2 * STEP : 2 * limit);
    isDue = true;
    keeper.refresh();
  }

  // ---- what it shows

  /** What somebody reads must not move. */
  function isReading() {
    const selection = document.getSelection();
    const isMarked = Boolean(selection && !selection.isCollapsed && list.element.contains(selection.anchorNode));
    return shown.length > 0 && (isMarked || list.element.getBoundingClientRect().top < 0);
  }

  /** @param {boolean} [isHeld] new messages wait */
  function render(isHeld = false) {
    const known = new Set(shown.map(keyOf));
    const isWanted = filters.wants(filter);
    const added = shown.length ? messages.filter((message) => !known.has(keyOf(message))) : [];
    const newest = shown.at(-1);
    const isNews = added.filter((message) => newest && message.ts > newest.ts && isWanted(message)).length;
    if (isHeld && isNews) {
      showCount(isNews);
      return;
    }
    shown = messages;
    list.show(filtered(threadsOf(shown), (message) => isWanted(message) || message.msg_id === linked), linked,
      list.element.getBoundingClientRect().top > 0);
    showCount(0);
    showTools(isWanted);
  }

  /** @param {number} number of messages that wait */
  function showCount(number) {
    news.hidden = !number;
    if (number) setText(news, `${countText(number)} new`);
  }

  /** @param {(message: Message) => boolean} isWanted */
  function showTools(isWanted) {
    const all = /** @type {[string, string]} */ (["", "All types"]);
    const talk = /** @type {[string, string]} */ ([filters.TALK, "All but starts and ends of runs"]);
    setOptions(type, [all, talk, ...withCounts(filters.typesOf(shown))], filter.type);
    setOptions(from, [["", scope.project ? "All tasks" : "All projects"], ...withCounts(placesIn())], filter.place);
    if (document.activeElement !== search && search.value !== filter.text) search.value = filter.text;
    const fits = filters.isEmpty(filter) ? shown.length : shown.filter(isWanted).length;
    const total = `${hasMore ? "the newest " : ""}${counted(shown.length, "message")}`;
    setText(count, filters.isEmpty(filter) ? total : `${countText(fits)} of ${total}`);
    clear.hidden = filters.isEmpty(filter);
    older.hidden = !hasMore || limit >= MOST;
    none.hidden = fits > 0;
    if (!fits) setChildren(none, shown.length ? nothingFits() : nothingThere());
  }

  const placesIn = () => filters.placesOf(shown).filter(([name]) => !scope.project || name.startsWith(`${scope.project}/`)).slice(0, 300);
  const nothingFits = () => h("p", {}, `None of ${hasMore ? "the newest " : ""}${counted(shown.length, "message")} fits.`);

  function nothingThere() {
    return [h("p", {}, "No messages yet. Runs tell when they start and end; agents tell what they find out and decide, by this line in a run:"),
      command("bin/bus-append --type FACT 'what is known now'")];
  }

  /** @param {[string, number][]} names @returns {[string, string][]} */
  const withCounts = (names) =>
    names.map(([name, number]) => [name, `${scope.project ? name.replace(`${scope.project}/`, "") : name} (${countText(number)})`]);

  function showNews() {
    render();
    list.element.scrollIntoView({ block: "start" });
    window.scrollTo({ top: 0 });
    list.focusFirst();
  }

  // ---- one message

  /** Shows it with its thread, loading older ones if it must. @param {AbortSignal} signal */
  async function lookFor(signal) {
    const msg = wanted;
    const isThere = () => messages.some((message) => message.msg_id === msg);
    if (!isThere() && hasMore && limit < MOST) {
      limit = MOST;
      await loadAll(signal);
      render();
    }
    if (list.mark(msg)) wanted = "";
    else if (!isThere()) {
      wanted = "";
      notice(`The message ${msg} is not among the ${hasMore ? "newest " : ""}${counted(messages.length, "message")} here.`);
    }
  }

  /** @param {{msg_id: string}} posted */
  function onPosted({ msg_id }) {
    linked = wanted = msg_id;
    openForm(false);
    notice("Posted.");
    shown = []; // nothing is held back
    keeper.refresh();
  }

  /** @param {Message} message */
  function reply(message) {
    openForm(true);
    form.replyTo(message);
    form.element.scrollIntoView({ block: "nearest" });
  }

  /** @param {boolean} isOpen */
  function openForm(isOpen) {
    form.element.hidden = !isOpen;
    write.setAttribute("aria-expanded", String(isOpen));
    if (isOpen) form.focus();
  }

  // ---- the filter

  function onTyping() {
    clearTimeout(typing);
    typing = setTimeout(() => setFilter({ text: search.value }), TYPING_MS);
  }

  /** @param {Partial<filters.Filter>} changed */
  function setFilter(changed) {
    filter = { ...filter, ...changed };
    if (changed.text === "") search.value = "";
    linked = "";
    history.replaceState(null, "", links.messages(scope.project, scope.task, filters.queryOf(filter)));
    render();
  }

  // ---- its life

  const onScroll = () => {
    if (!news.hidden && !isReading()) render();
  };
  window.addEventListener("scroll", onScroll, { passive: true });
  const endTicks = everySecond(() => list.visibleItems().forEach(tickItem));
  return {
    element,
    title: where ? `Messages of ${where}` : "Messages",
    up: scope.task ? links.task(scope.project, scope.task) : scope.project ? links.project(scope.project) : links.overview(),
    keys: {
      p: ["post a message", () => openForm(true)],
      r: ["reply to the message", () => {
        const message = list.focused();
        if (message) reply(message);
      }],
    },
    update(next) {
      filter = filters.readFilter(next.query);
      linked = wanted = next.query.get("msg") ?? "";
      if (isLoaded) render();
      if (wanted && isLoaded) keeper.refresh();
      return true;
    },
    close() {
      clearTimeout(typing);
      keeper.stop();
      endTicks();
      list.close();
      window.removeEventListener("scroll", onScroll);
    },
  };
}
