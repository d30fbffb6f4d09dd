// @ts-check
// A line as it is shown; without a document.

// Sequences that end; what is left of one that does not is shown as signs.
const SEQUENCES = /\u001b\[[0-?]{0,64}[ -/]{0,8}[@-~]|\u009b[0-?]{0,64}[ -/]{0,8}[@-~]|\u001b[\]PX^_][^\u0007\u001b\n]{0,4096}(?:\u0007|\u001b\\)|\u001b[ -/]{0,8}[0-OQ-WYZ\\`-~]/g;

/** The line without what would colour it in a terminal.
 * @param {string} line @param {boolean} withCodes all of it, the control characters as signs */
export function plain(line, withCodes) {
  if (withCodes) return line;
  const text = line.endsWith("\r") ? line.slice(0, -1) : line;
  return text.includes("\u001b") || text.includes("\u009b") ? text.replace(SEQUENCES, "") : text;
}

/** What finds these words in a line, in any case; null for none. @param {string} words */
export const finder = (words) => (words ? new RegExp(words.replace(/[.*+?^${}()|[\]\\/-]/g, "\\$&"), "gi") : null);

/** The text in pieces, every second of which is found. @param {string} text @param {RegExp | null} wanted
 * @returns {string[]} */
export function split(text, wanted) {
  if (!wanted) return [text];
  /** @type {string[]} */
  const pieces = [];
  let from = 0;
  for (const match of text.matchAll(wanted)) {
    pieces.push(text.slice(from, match.index), match[0]);
    from = match.index + match[0].length;
  }
  return [...pieces, text.slice(from)];
}
