// @ts-check
// The only EventSource of the page: what changes, of all that the server knows.
//
// The browser connects again by itself after a lost connection.  It gives up for good after an
// answer that is an error, such as that of a proxy while the server starts: then it is tried anew
// here.  A page that nobody sees lets go of its stream: a browser has six connections to a server
// for all its tabs.

import { addresses } from "./api.js";

const RETRY_MS = [1000, 2000, 5000, 10000];
const SILENT_MS = 45_000; // the server says something every 15 s

/** @typedef {"connecting" | "live" | "retrying" | "closed"} State
 *   closed: nobody listens, as the page is hidden or has no access */

/** Follows all changes, from now on.
 * @param {Record<string, (data: any) => void>} handlers by the name of the event
 * @param {(state: State) => void} onState
 * @returns {() => void} what ends it */
export function connect(handlers, onState) {
  /** @type {EventSource | null} */
  let source = null;
  let timer = 0;
  let failures = 0;

  function open() {
    close();
    onState(failures ? "retrying" : "connecting");
    source = new EventSource(addresses.events);
    source.onopen = () => {
      failures = 0;
      watch();
      onState("live");
    };
    source.onerror = () => {
      const wait = RETRY_MS[Math.min(failures, RETRY_MS.length - 1)];
      failures += 1;
      onState("retrying");
      if (source?.readyState !== EventSource.CLOSED) return;
      clearTimeout(timer);
      timer = setTimeout(open, wait);
    };
    for (const [name, handler] of Object.entries(handlers)) {
      source.addEventListener(name, (event) => {
        watch();
        if (event instanceof MessageEvent) handler(JSON.parse(event.data));
      });
    }
    watch();
  }

  /** A connection can be gone without an end, such as after one of the machines has slept. */
  function watch() {
    clearTimeout(timer);
    timer = setTimeout(() => {
      failures += 1;
      open();
    }, SILENT_MS);
  }

  function close() {
    clearTimeout(timer);
    source?.close();
    source = null;
  }

  const onVisibility = () => {
    if (!document.hidden) return open();
    close();
    onState("closed");
  };
  document.addEventListener("visibilitychange", onVisibility);
  if (!document.hidden) open();
  return () => {
    document.removeEventListener("visibilitychange", onVisibility);
    close();
    onState("closed");
  };
}
