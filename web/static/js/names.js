// @ts-check
// Names that projects and tasks can have, by the same rules as the scripts.  Pure.

const MOST = 128;
const PLAIN = /^[A-Za-z0-9._@-]*$/;
const RUN = /^(run_|\d{8}-\d{6})/;

/** What is wrong with a name, as a sentence; "" for a good one.
 * @param {"project" | "task"} kind @param {string} name */
export function nameProblem(kind, name) {
  if (!name) return `Name a ${kind}.`;
  if (name.length > MOST) return `At most ${MOST} characters.`;
  if (!PLAIN.test(name)) return "Only letters (a–z), digits and . _ @ - can be in it.";
  if (/^[.-]/.test(name)) return "It cannot begin with a dot or a dash.";
  if (name.includes("..")) return "It cannot have two dots in a row.";
  if (kind === "project" && RUN.test(name)) return "It looks like the name of a run; choose another one.";
  if (kind === "project" && name === "_audit") return "The server uses that name itself.";
  return "";
}

/** `task-20260223-204859-fix-the-cart`, for what a prompt begins with.
 * @param {number} ms since 1970 @param {string} prompt */
export function proposedTask(ms, prompt) {
  const stamp = new Date(ms).toISOString().replace(/[-:]/g, "").replace("T", "-").slice(0, 15);
  return `task-${stamp}-${slugOf(prompt)}`;
}

/** Its first words in lower case with dashes. @param {string} text */
export function slugOf(text) {
  const line = text.split("\n").find((each) => /[A-Za-z0-9]/.test(each) && !each.startsWith("```")) ?? "";
  const words = line.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase().match(/[a-z0-9]+/g) ?? [];
  let slug = "";
  for (const word of words.slice(0, 6)) {
    if (slug.length + word.length > 40) break;
    slug += `${slug && "-"}${word}`;
  }
  return slug.length >= 3 ? slug : "work"; // shorter ones are refused by tools of others
}
