// @ts-check
// A long list that the server has: it is loaded in pages, and only those that are looked at.

/** @template T
 * @typedef {(offset: number, limit: number, signal: AbortSignal) => Promise<{items: T[], total: number}>} Load */

/** @template T */
export class Pages {
  /** @param {Load<T>} load @param {(item: T) => string} keyOf @param {() => void} onUpdate
   * @param {{size?: number, onTrouble?: (error: unknown) => void}} [options]
   *   onTrouble: a page could not be loaded */
  constructor(load, keyOf, onUpdate, { size = 200, onTrouble = () => {} } = {}) {
    this.load = load;
    this.keyOf = keyOf;
    this.onUpdate = onUpdate;
    this.size = size;
    this.onTrouble = onTrouble;
    /** @type {Map<number, {items: T[], isStale: boolean}>} */
    this.pages = new Map();
    this.total = -1; // of all that there are; -1: not known yet
    this.round = 0; // what was asked for before is not taken after a newer answer
    /** @type {Set<number>} */
    this.onTheWay = new Set();
    this.wanted = [0, 0];
    this.abort = new AbortController();
  }

  count = () => Math.max(0, this.total);

  /** @param {number} index @returns {T | undefined} undefined: not loaded */
  at = (index) => this.pages.get(Math.floor(index / this.size))?.items[index % this.size];

  /** @param {string} key @returns {number} -1: it is not there, or not loaded */
  indexOf = (key) => {
    for (const [number, { items }] of this.pages) {
      const index = items.findIndex((item) => this.keyOf(item) === key);
      if (index >= 0) return number * this.size + index;
    }
    return -1;
  };

  /** These are looked at: loads what is missing of them. @param {number} first @param {number} last */
  want = (first, last) => {
    this.wanted = [first, last];
    if (this.total < 0) return;
    for (const number of this.numbers()) {
      const known = this.pages.get(number);
      if ((!known || known.isStale) && !this.onTheWay.has(number)) this.fetch(number);
    }
  };

  /** Loads anew what is looked at; the rest when it is looked at again.  Throws what `load` throws.
   * @param {AbortSignal} signal */
  async refresh(signal) {
    this.round += 1;
    const round = this.round;
    this.onTheWay.clear();
    for (const page of this.pages.values()) page.isStale = true;
    const numbers = this.numbers();
    const answers = await Promise.all(numbers.map((number) => this.load(number * this.size, this.size, signal)));
    if (round !== this.round || signal.aborted) return;
    numbers.forEach((number, at) => this.keep(number, answers[at]));
    this.onUpdate();
  }

  /** @param {number} number */
  async fetch(number) {
    const round = this.round;
    this.onTheWay.add(number);
    try {
      const answer = await this.load(number * this.size, this.size, this.abort.signal);
      if (round !== this.round || this.abort.signal.aborted) return;
      this.keep(number, answer);
      this.onTheWay.delete(number);
      this.onUpdate();
    } catch (error) {
      if (round === this.round) this.onTheWay.delete(number);
      if (!this.abort.signal.aborted) this.onTrouble(error);
    }
  }

  /** @param {number} number @param {{items: T[], total: number}} answer */
  keep(number, { items, total }) {
    this.total = total;
    this.pages.set(number, { items, isStale: false });
    for (const known of this.pages.keys()) if (known * this.size >= total) this.pages.delete(known);
  }

  /** The pages of what is looked at, and of half a page around it. */
  numbers() {
    const spare = this.size / 2;
    const end = this.total < 0 ? 0 : Math.max(0, this.total - 1);
    const first = Math.floor(Math.max(0, Math.min(this.wanted[0] - spare, end)) / this.size);
    const last = Math.floor(Math.min(this.wanted[1] + spare, end) / this.size);
    return Array.from({ length: Math.max(1, last - first + 1) }, (_, at) => first + at);
  }

  close() {
    this.round += 1;
    this.abort.abort();
  }
}
