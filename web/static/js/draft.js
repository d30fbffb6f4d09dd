// @ts-check
// What is being written in a form outlasts its view, and the page too when that is loaded anew.

/** @typedef {Record<string, string>} Draft */

/** @param {string} name @returns {Draft} */
export function readDraft(name) {
  try {
    const found = JSON.parse(sessionStorage.getItem(`draft ${name}`) ?? "{}");
    return Object.fromEntries(Object.entries(found).filter(([, value]) => typeof value === "string"));
  } catch {
    return {}; // the browser keeps nothing, or somebody else wrote it
  }
}

/** Keeps it for as long as this tab is open. @param {string} name @param {Draft} draft {} to forget it */
export function keepDraft(name, draft) {
  try {
    if (Object.values(draft).some(Boolean)) sessionStorage.setItem(`draft ${name}`, JSON.stringify(draft));
    else sessionStorage.removeItem(`draft ${name}`);
  } catch {
    // too long, or not allowed: then it lasts as long as the view
  }
}
