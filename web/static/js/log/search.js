// @ts-check
// Searching in a file on the server, which has all of it: for words, and for errors.

/** @typedef {{line: number, offset: number, text: string}} Found */

export class Search {
  /** @param {import("./source.js").Source} source */
  constructor(source) {
    this.source = source;
    this.abort = new AbortController();
    /** @type {{line: number, offset: number} | null} where one is */
    this.at = null;
  }

  /** The next place from where one is, or from a line that is seen; then from the other end.
   * @param {Record<string, string>} what q or kind @param {boolean} isBackward @param {number} line from 0
   * @returns {Promise<{found: Found | null, isAround: boolean}>} line from 0 */
  async next(what, isBackward, line) {
    this.abort.abort();
    const abort = (this.abort = new AbortController());
    const from = await this.offsetFrom(line, isBackward);
    let found = await this.find(what, from, isBackward, abort.signal);
    const isAround = !found;
    if (!found) found = await this.find(what, isBackward ? this.source.size : 0, isBackward, abort.signal);
    if (found) this.at = found;
    return { found, isAround };
  }

  /** @param {Record<string, string>} what @param {number} offset @param {boolean} isBackward
   * @param {AbortSignal} signal @returns {Promise<Found | null>} */
  async find(what, offset, isBackward, signal) {
    const found = await this.source.find(what, offset, isBackward, signal);
    return found && { ...found, line: found.line - 1 };
  }

  /** @param {number} line @param {boolean} isBackward */
  async offsetFrom(line, isBackward) {
    if (this.at) return isBackward ? this.at.offset : this.at.offset + 1;
    const { offset, first, lines } = await this.source.load({ line: line + 1 }, 1);
    return lines.length && first <= line ? offset : isBackward ? this.source.size : offset;
  }

  /** Begins anew at what is seen. */
  reset() {
    this.abort.abort();
    this.at = null;
  }

  close() {
    this.abort.abort();
  }
}
