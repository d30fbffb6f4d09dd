// @ts-check
// Time as pixels: the axis of a timeline, its ticks, and which bars lie beside each other.

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const STEPS = [
  100, 200, 500, SECOND, 2 * SECOND, 5 * SECOND, 10 * SECOND, 15 * SECOND, 30 * SECOND,
  MINUTE, 2 * MINUTE, 5 * MINUTE, 10 * MINUTE, 15 * MINUTE, 30 * MINUTE,
  HOUR, 2 * HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY, 2 * DAY, 7 * DAY, 14 * DAY, 28 * DAY,
];
const MOST_TICKS = 500;

/** The step between ticks that are at least so far apart.
 * @param {number} spanMs @param {number} width px @param {number} [apart] px */
export function stepOf(spanMs, width, apart = 90) {
  const least = Math.max((spanMs * apart) / Math.max(1, width), spanMs / MOST_TICKS);
  const last = STEPS[STEPS.length - 1];
  return STEPS.find((step) => step >= least) ?? Math.ceil(least / last) * last;
}

/** Where ticks lie, at round times of the clock that is so far from UTC.
 * @param {number} start ms @param {number} end ms @param {number} step ms @param {number} [offset] ms */
export function ticksOf(start, end, step, offset = 0) {
  const ticks = [];
  for (let at = Math.ceil((start + offset) / step) * step - offset; at <= end && ticks.length <= MOST_TICKS; at += step) {
    ticks.push(at);
  }
  return ticks;
}

/** The end of an axis on which now moves: it stays for a while, so that not every second draws
 * all bars anew at other places. @param {number} start ms @param {number} now ms */
export function roomyEnd(start, now) {
  const least = Math.max(10 * SECOND, (now - start) * 1.04);
  const step = STEPS.find((size) => size * 8 >= least) ?? STEPS[STEPS.length - 1];
  return start + Math.ceil(least / step) * step;
}

/** @typedef {{start: number, end: number, width: number}} Axis ms and px */

/** @param {Axis} axis @param {number} ms */
export function xOf({ start, end, width }, ms) {
  return end > start ? ((ms - start) / (end - start)) * width : 0;
}

/** Spans that overlap get different lanes: the lane of each, and how many there are. Sorted by start.
 * @param {{start: number, end: number}[]} spans @returns {{lanes: number[], count: number}} */
export function lanesOf(spans) {
  /** @type {number[]} */
  const ends = [];
  const lanes = spans.map(({ start, end }) => {
    const free = ends.findIndex((last) => last <= start);
    const lane = free < 0 ? ends.length : free;
    ends[lane] = Math.max(end, start);
    return lane;
  });
  return { lanes, count: Math.max(1, ends.length) };
}

/** The words at a tick: the time of day, with the date where a day begins.
 * @param {number} ms @param {number} step ms @param {number} offset ms */
export function tickText(ms, step, offset) {
  const [date, time] = new Date(ms + offset).toISOString().split("T");
  if (step >= DAY || time.startsWith("00:00:00.000")) return date.slice(5);
  if (step >= MINUTE) return time.slice(0, 5);
  return step >= SECOND ? time.slice(0, 8) : time.slice(3, 10);
}
