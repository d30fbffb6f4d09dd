// @ts-check
// The messages of a project or task, the newest first, and the new ones as they come.

import { addresses, get, link } from "./api.js";
import { byId, h } from "./dom.js";
import { follow } from "./stream.js";
import { dateText } from "./times.js";

const MOST_MESSAGES = 300; // in the page
const FIRST_MESSAGES = 100;

/** @typedef {{msg_id?: string, timestamp: string, type?: string, project_id?: string,
 *   task_id?: string, run_id?: string, body: string}} Message */

const section = byId("messages");
const list = /** @type {Element} */ (section.querySelector("ol"));
const none = /** @type {HTMLElement} */ (section.querySelector(".none"));
/** @type {Set<string>} */
let known = new Set();
let stop = () => {};
let shownScope = "";

/** Shows them, from now on; nothing happens where it does so already.
 * @param {string} project @param {string} task */
export async function showMessages(project, task) {
  const scope = link(project, task);
  if (scope === shownScope) return;
  closeMessages();
  shownScope = scope;
  const { messages } = await get(addresses.messages(project, task, FIRST_MESSAGES)).catch((error) => {
    if (scope === shownScope) shownScope = ""; // the next refresh tries again
    throw error;
  });
  if (scope !== shownScope) return; // others were asked for meanwhile
  messages.forEach(add);
  none.hidden = list.childElementCount > 0;
  stop = follow(
    addresses.messageStream(project, task),
    { message: (event) => add(JSON.parse(event.data)) },
    { lastId: messages.at(-1)?.msg_id ?? "" },
  );
}

export function closeMessages() {
  stop();
  stop = () => {};
  shownScope = "";
  known = new Set();
  list.replaceChildren();
  none.hidden = true;
}

/** @param {Message} message */
function add(message) {
  const id = message.msg_id ?? "";
  if (id && known.has(id)) return; // the last ones come again where the stream had lost its place
  known.add(id);
  list.prepend(item(message));
  none.hidden = true;
  while (list.childElementCount > MOST_MESSAGES) list.lastElementChild?.remove();
}

/** @param {Message} message */
function item(message) {
  const { project_id: project = "", task_id: task = "", run_id: run = "" } = message;
  const head = h("p", { class: "quiet" }, h("b", {}, message.type || "message"), " ", dateText(message.timestamp));
  if (project && task) {
    head.append(" ", h("a", { href: link(project, task) }, task));
    if (run) head.append(" ", h("a", { href: link(project, task, run) }, run));
  }
  return h("li", {}, head, h("pre", {}, message.body));
}
