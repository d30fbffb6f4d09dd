// @ts-check
// Lines for a terminal, of names that may hold anything.

const PLAIN = /^[\w.,:/=@%+-]+$/;

/** A word as a shell takes it for one. @param {string} word */
export const quoted = (word) => (PLAIN.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);

/** The words as one line. @param {...string} words */
export const shellLine = (...words) => words.map(quoted).join(" ");
