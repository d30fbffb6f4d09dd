// @ts-check
// Times as the server writes them, for people.

const FORMAT = new Intl.DateTimeFormat(undefined, { dateStyle: "short", timeStyle: "medium" });
let aheadMs = 0; // of this clock: how far that of the server is

/** Learn the server's clock, by which it writes times. @param {string} now */
export function setClock(now) {
  const ms = Date.parse(now);
  if (!Number.isNaN(ms)) aheadMs = ms - Date.now();
}

/** Whether it is a time at all: the zero time stands for none. @param {string | undefined} text */
const isTime = (text) => Boolean(text) && !text?.startsWith("0001-") && !Number.isNaN(Date.parse(text ?? ""));

/** Local date and time. @param {string | undefined} text */
export const dateText = (text) => (isTime(text) ? FORMAT.format(Date.parse(text ?? "")) : "–");

/** How long from then to then, or until now. @param {string | undefined} start @param {string} [end] */
export function spanText(start, end) {
  if (!isTime(start)) return "–";
  const until = end && isTime(end) ? Date.parse(end) : Date.now() + aheadMs;
  const seconds = Math.max(0, Math.floor((until - Date.parse(start ?? "")) / 1000));
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min ${seconds % 60} s` : `${seconds} s`;
}
