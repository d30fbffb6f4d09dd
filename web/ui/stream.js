// @ts-check
// The only place that makes an EventSource.
//
// The browser connects again by itself after a lost connection, and sends the last id it got, so
// nothing is missed and nothing comes twice.  It gives up for good after an answer that is an
// error, such as that of a proxy while the server starts: then it is tried anew here, with the
// same id.  A page that nobody sees lets go of its streams: a browser has six connections to a
// server for all its tabs.

const RETRY_MS = [1000, 2000, 5000, 10000];

/** @typedef {"connecting" | "live" | "lost"} State */

/** Follows a stream until the returned function is called.
 * @param {string} address
 * @param {Record<string, (event: MessageEvent) => void>} handlers by the name of the event
 * @param {{onState?: (state: State) => void, lastId?: string, resumes?: boolean}} options
 *   lastId: go on behind it; resumes: false where what was missed while hidden is not wanted */
export function follow(address, handlers, { onState = () => {}, lastId = "", resumes = true } = {}) {
  /** @type {EventSource | null} */
  let source = null;
  let timer = 0;
  let failures = 0;

  function open() {
    close();
    onState("connecting");
    source = new EventSource(resumes ? behind(address, lastId) : address);
    source.onopen = () => {
      failures = 0;
      onState("live");
    };
    source.onerror = (event) => {
      if (event instanceof MessageEvent) return; // an event of the server by that name
      onState("lost");
      if (source?.readyState !== EventSource.CLOSED) return;
      timer = setTimeout(open, RETRY_MS[Math.min(failures, RETRY_MS.length - 1)]);
      failures += 1;
    };
    for (const [name, handler] of Object.entries(handlers)) {
      source.addEventListener(name, (event) => {
        if (!(event instanceof MessageEvent)) return;
        lastId = event.lastEventId || lastId;
        handler(event);
      });
    }
  }

  function close() {
    clearTimeout(timer);
    source?.close();
    source = null;
  }

  const onVisibility = () => (document.hidden ? close() : open());
  document.addEventListener("visibilitychange", onVisibility);
  if (!document.hidden) open();
  return () => {
    document.removeEventListener("visibilitychange", onVisibility);
    close();
  };
}

/** @param {string} address @param {string} lastId */
function behind(address, lastId) {
  if (!lastId) return address;
  const separator = address.includes("?") ? "&" : "?";
  return `${address}${separator}last_event_id=${encodeURIComponent(lastId)}`;
}
