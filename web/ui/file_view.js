// @ts-check
// One file of a run, as it grows: its end stays in sight until somebody scrolls up.
//
// Of a large file the end is in the page.  What counts is lines: a browser stands still for
// minutes over half a million short ones.  What comes between two frames is put in at once.

import { byId, setText, visible } from "./dom.js";
import { follow } from "./stream.js";

const MOST_LINES = 5000; // at least so many stay, at most twice as many
const MOST_CHARACTERS = 500_000;
const WORDS = { connecting: "connecting", live: "following", lost: "connection lost, trying again" };

const log = byId("log");
let stop = () => {};
let pending = "";
let state = "";
let isEmpty = true;
let isCut = false;

/** Shows the file at this address, and follows it until the run has ended.
 * @param {string} address */
export function showFile(address) {
  closeFile();
  stop = follow(
    address,
    {
      message: (event) => append(event.data),
      done: (event) => {
        stop();
        showState(event.data);
      },
      error: (event) => showState(event.data),
    },
    { onState: (now) => showState(WORDS[now]) },
  );
}

export function closeFile() {
  stop();
  stop = () => {};
  pending = "";
  isEmpty = true;
  isCut = false;
  log.replaceChildren();
  showState("");
}

/** @param {string} text */
function showState(text) {
  state = text;
  const more = isEmpty ? "; the file is empty" : isCut ? "; this is the end of the file" : "";
  setText(byId("log-state"), text && text + more);
}

/** @param {string} text */
function append(text) {
  if (!text) return;
  if (!pending) requestAnimationFrame(flush);
  pending = end(pending + text);
  if (isEmpty) {
    isEmpty = false;
    showState(state);
  }
}

function flush() {
  if (!pending) return; // another file is shown
  const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  log.append(document.createTextNode(visible(pending)));
  pending = "";
  const pieces = [...log.childNodes].map((node) => node.textContent ?? "");
  while (pieces.length > 1 && isFull(pieces.slice(1))) {
    log.firstChild?.remove();
    pieces.shift();
    noteCut();
  }
  if (isAtEnd) log.scrollTop = log.scrollHeight;
}

/** The last lines of a text, no more than the page should hold. @param {string} text */
function end(text) {
  let at = Math.max(0, text.length - MOST_CHARACTERS);
  for (let lines = 0, from = text.length - 2; from >= at; lines += 1) {
    from = text.lastIndexOf("\n", from);
    if (from < at) break;
    if (lines === MOST_LINES) at = from + 1;
    from -= 1;
  }
  if (at > 0) noteCut();
  return text.slice(at);
}

/** @param {string[]} pieces */
function isFull(pieces) {
  const characters = pieces.reduce((sum, piece) => sum + piece.length, 0);
  const lines = pieces.reduce((sum, piece) => sum + piece.split("\n").length - 1, 0);
  return characters >= MOST_CHARACTERS || lines >= MOST_LINES;
}

function noteCut() {
  if (isCut) return;
  isCut = true;
  showState(state);
}
