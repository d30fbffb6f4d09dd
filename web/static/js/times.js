// @ts-check
// Times as the server writes them, for people.

const FORMAT = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
let aheadMs = 0; // of this clock: how far that of the server is

/** Learn the server's clock, by which it writes times. @param {string} now */
export function setClock(now) {
  const ms = Date.parse(now);
  // A header tells whole seconds: the clock is moved only by what cannot be its rounding.
  if (!Number.isNaN(ms) && Math.abs(ms - Date.now() - aheadMs) > 1500) aheadMs = ms - Date.now();
}

/** Now by the server's clock, in milliseconds since 1970. */
export const now = () => Date.now() + aheadMs;

/** Milliseconds since 1970; NaN for what is no time: the zero time stands for none.
 * @param {string | null | undefined} text */
export const msOf = (text) => (!text || text.startsWith("0001-") ? NaN : Date.parse(text));

/** Local date and time. @param {string | null | undefined} text */
export const dateText = (text) => (Number.isNaN(msOf(text)) ? "–" : FORMAT.format(msOf(text)));

/** Local time of day. @param {string | null | undefined} text */
export const clockText = (text) => (Number.isNaN(msOf(text)) ? "–" : CLOCK.format(msOf(text)));

/** `42 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`. @param {number | null | undefined} seconds */
export function secondsText(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "–";
  const whole = Math.max(0, Math.floor(seconds));
  const [days, hours, minutes] = [Math.floor(whole / 86400), Math.floor(whole / 3600) % 24, Math.floor(whole / 60) % 60];
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min ${whole % 60} s` : `${whole} s`;
}

/** How long from then to then, or until now.
 * @param {string | null | undefined} start @param {string | null} [end] */
export function spanText(start, end) {
  const until = Number.isNaN(msOf(end)) ? now() : msOf(end);
  return secondsText((until - msOf(start)) / 1000);
}

/** `5 s ago`, `3 min ago`, `2 d ago`. @param {string | null | undefined} text */
export function agoText(text) {
  const seconds = (now() - msOf(text)) / 1000;
  if (Number.isNaN(seconds)) return "–";
  if (seconds < 60) return `${Math.max(0, Math.floor(seconds))} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  return seconds < 86400 ? `${Math.floor(seconds / 3600)} h ago` : `${Math.floor(seconds / 86400)} d ago`;
}
