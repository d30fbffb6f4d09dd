// @ts-check
// One file of a run, in parts: whole lines, without secrets, as many as fit.

import { addresses, get, Refused } from "../api.js";
import { Pieces } from "./window.js";

/** @typedef {import("./window.js").Piece} Piece */

const KEPT_PIECES = 16; // of at most LIMIT bytes each
const MOST_TRIES = 20;
const RETRY_MS = 500;
const LIMIT = 256 << 10;

export class Source {
  /** @param {string} run @param {string} name */
  constructor(run, name) {
    this.run = run;
    this.name = name;
    this.size = 0; // bytes, as far as the server has told
    this.end = 0; // bytes of the whole lines among them
    this.lineCount = 0;
    this.isLive = false;
    this.pieces = new Pieces(KEPT_PIECES);
    this.abort = new AbortController();
  }

  /** Asks for a part, and keeps it.
   * @param {Record<string, number>} part offset, line, before or end @param {number} [limit]
   * @returns {Promise<Piece>} */
  async load(part, limit = LIMIT) {
    const answer = await this.ask(addresses.lines(this.run, { name: this.name, ...part, limit }));
    if (answer.size < this.size) this.pieces.clear(); // another file of that name
    const piece = {
      first: answer.first_line - 1, offset: answer.offset, end: answer.end,
      lines: answer.lines, cut: new Set(answer.cut ?? []),
    };
    this.size = answer.size;
    this.lineCount = answer.line_count;
    this.isLive = answer.is_live;
    if (piece.first + piece.lines.length >= this.lineCount) this.end = piece.end;
    if (piece.lines.length) this.pieces.add(piece);
    return piece;
  }

  /** A very large file is counted for some seconds, once: until then it is asked for again.
   * @param {string} address @returns {Promise<any>} */
  async ask(address) {
    for (let tries = 0; ; tries += 1) {
      try {
        return await get(address, this.abort.signal);
      } catch (error) {
        if (!(error instanceof Refused && error.status === 503 && tries < MOST_TRIES)) throw error;
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      }
    }
  }

  /** The next place behind (or before) a byte; null for none.  The server looks through a part of
   * a large file at a time.
   * @param {Record<string, string>} what q or kind @param {number} offset @param {boolean} isBackward
   * @param {AbortSignal} signal
   * @returns {Promise<{line: number, offset: number, text: string} | null>} */
  async find(what, offset, isBackward, signal) {
    for (let from = offset; ; ) {
      const part = { name: this.name, ...what, offset: from, backward: isBackward ? 1 : 0 };
      const { found, next } = await get(addresses.find(this.run, part), signal);
      if (found || next === null || next === undefined) return found;
      from = next;
    }
  }

  close() {
    this.abort.abort();
    this.pieces.clear();
  }
}
