// @ts-check
// Numbers for people.

const WHOLE = new Intl.NumberFormat("en");

/** `1,234`; `–` for what is not known. @param {number | null | undefined} number */
export const countText = (number) => (number === null || number === undefined ? "–" : WHOLE.format(number));

/** `940`, `12.3 k`, `1.2 M`: of tokens. @param {number | null | undefined} number */
export function tokensText(number) {
  if (number === null || number === undefined) return "–";
  if (number < 1000) return String(number);
  if (number < 999_950) return `${(number / 1000).toFixed(1)} k`;
  return `${(number / 1e6).toFixed(number < 1e8 ? 2 : 0)} M`;
}

/** `$1.23`, `~$0.0042` where it is estimated. @param {number | null | undefined} usd @param {boolean} [isEstimated] */
export function moneyText(usd, isEstimated = false) {
  if (usd === null || usd === undefined) return "–";
  const digits = usd !== 0 && usd < 0.1 ? 4 : 2;
  return `${isEstimated ? "~" : ""}$${usd.toFixed(digits)}`;
}

/** `512 B`, `3.4 MB`. @param {number | null | undefined} bytes */
export function bytesText(bytes) {
  if (bytes === null || bytes === undefined) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let [value, unit] = [bytes, 0];
  while (value >= 999.5 && unit < units.length - 1) [value, unit] = [value / 1000, unit + 1];
  return `${unit && value < 99.95 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

/** `1 run`, `3 runs`. @param {number} number @param {string} noun @param {string} [many] */
export const counted = (number, noun, many = `${noun}s`) => `${countText(number)} ${number === 1 ? noun : many}`;
