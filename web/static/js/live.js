// @ts-check
// What is shown is kept fresh: asked for at once, and again whenever the server says that it has
// changed or the connection has come back, such as after the server was started anew.

import { get, Refused } from "./api.js";
import { connect } from "./stream.js";

const PAUSE_MS = 200; // between two rounds of one view, however much happens
const RETRY_MS = 2000;

/** @typedef {{runs: string[], plans: string[], projects: string[],
 *   buses: {project_id: string, task_id: string}[], more: boolean}} Change */
/** @typedef {Record<string, {line: string, sizes: Record<string, number>}>} Lines */

/** @type {Set<Keeper>} */
const keepers = new Set();
/** @type {Set<(lines: Lines) => void>} */
const listeners = new Set();
/** @type {Set<() => void>} */
const clocks = new Set();
/** @type {(() => void) | null} */
let disconnect = null;
let onLock = () => {};

/** Connects, until lock() or the end of the page.
 * @param {(state: import("./stream.js").State) => void} onState
 * @param {() => void} locked is called when the server asks for a key */
export function begin(onState, locked) {
  onLock = locked;
  disconnect?.();
  disconnect = connect(
    {
      heartbeat: () => {}, // that it came is enough
      change: (change) => keepers.forEach((keeper) => keeper.onChange(change)),
      lines: (lines) => listeners.forEach((listener) => listener(lines)),
    },
    (state) => {
      onState(state);
      // Of a server that is away an EventSource says no more than of one that refuses.
      if (state === "live" || state === "retrying") keepers.forEach((keeper) => keeper.refresh());
    },
  );
}

/** Lets go of the server; nothing is asked for until begin(). */
export function end() {
  disconnect?.();
  disconnect = null;
}

/** Calls `load` now and whenever what it asks for has changed, one call at a time.
 *
 * `load` gets a signal for its requests and shows what it got; `wants` says whether a change is
 * one of its own, without it each is.  A refusal goes to `onRefused`; where nobody answers it is
 * tried again.
 * @param {(signal: AbortSignal) => Promise<void>} load
 * @param {{wants?: (change: Change) => boolean, onRefused?: (error: Refused) => void}} [options]
 * @returns {Keeper} whose stop() ends it, and whose refresh() asks for it once more */
export function keepFresh(load, { wants = () => true, onRefused = () => {} } = {}) {
  const keeper = new Keeper(load, wants, onRefused);
  keepers.add(keeper);
  keeper.refresh();
  return keeper;
}

/** Calls `show` with the JSON at an address, as keepFresh() does.
 * @param {string} address @param {(answer: any) => void} show
 * @param {{wants?: (change: Change) => boolean, onRefused?: (error: Refused) => void}} [options] */
export const keepShowing = (address, show, options) =>
  keepFresh(async (signal) => show(await get(address, signal)), options);

class Keeper {
  /** @param {(signal: AbortSignal) => Promise<void>} load @param {(change: Change) => boolean} wants
   * @param {(error: Refused) => void} onRefused */
  constructor(load, wants, onRefused) {
    this.load = load;
    this.wants = wants;
    this.onRefused = onRefused;
    this.isDue = false;
    this.isBusy = false;
    this.timer = 0;
    this.abort = new AbortController();
  }

  /** @param {Change} change */
  onChange(change) {
    if (change.more || this.wants(change)) this.refresh();
  }

  async refresh() {
    clearTimeout(this.timer);
    this.isDue = true;
    if (this.isBusy) return;
    this.isBusy = true;
    while (this.isDue && !this.abort.signal.aborted) {
      this.isDue = false;
      await this.round();
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
    this.isBusy = false;
  }

  async round() {
    try {
      await this.load(this.abort.signal);
    } catch (error) {
      if (this.abort.signal.aborted) return;
      if (error instanceof Refused && error.status === 401) return onLock();
      if (error instanceof Refused && error.status < 500) return this.onRefused(error);
      if (!(error instanceof Refused || error instanceof TypeError)) console.error(error);
      this.timer = setTimeout(() => this.refresh(), RETRY_MS);
    }
  }

  stop() {
    clearTimeout(this.timer);
    this.abort.abort();
    keepers.delete(this);
  }
}

/** Calls `listener` with the last lines and file sizes of runs that have written.
 * @param {(lines: Lines) => void} listener @returns {() => void} what ends it */
export function onLines(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** Calls `tick` once a second, while the page is seen. @param {() => void} tick
 * @returns {() => void} what ends it */
export function everySecond(tick) {
  clocks.add(tick);
  return () => clocks.delete(tick);
}

setInterval(() => {
  if (!document.hidden) clocks.forEach((tick) => tick());
}, 1000);
