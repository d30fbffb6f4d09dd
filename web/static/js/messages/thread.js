// @ts-check
// From messages to threads: a reply stands below what it answers.  Pure.

/** A message as the server sends it.
 * @typedef {{msg_id: string, ts: string, type: string, project_id: string, task_id?: string,
 *   run_id?: string, body: string, truncated?: boolean, parents?: {msg_id: string}[],
 *   meta?: Record<string, string>}} Message */
/** A message in its thread: `level` 0 is the one that began it, `depth` the same, bounded; `replies` are all below it;
 * `others` are further messages that it answers; `isContext` is shown for another's sake.
 * @typedef {{message: Message, key: string, level: number, depth: number, replies: number, others: string[],
 *   isContext: boolean}} Item */
/** @typedef {{key: string, newest: string, items: Item[]}} Thread items: each before its replies */

export const MOST_DEPTH = 4;

/** What tells it from all others: ids are those of one writer, and foreign ones may be of any form.
 * @param {Message} message */
export const keyOf = (message) => `${message.project_id}/${message.task_id ?? ""}/${message.msg_id}`;

/** Orders by time, then by id. @param {Message} one @param {Message} other */
function compare(one, other) {
  const [a, b] = [timeOf(one), timeOf(other)];
  if (a !== b) return a < b ? -1 : 1;
  return one.msg_id < other.msg_id ? -1 : one.msg_id > other.msg_id ? 1 : 0;
}

/** RFC 3339 in UTC as text that sorts, whatever the length of its fraction. @param {Message} message */
const timeOf = (message) => message.ts.replace("Z", "");

/** All of both, each once, the oldest first; where both have one the newer answer counts.
 * @param {Message[]} known @param {Message[]} found */
export function merged(known, found) {
  const all = new Map(known.map((message) => [keyOf(message), message]));
  for (const message of found) all.set(keyOf(message), message);
  return [...all.values()].sort(compare);
}

/** The threads, that with the newest message first; within one the oldest message is first.
 *
 * Whatever parents say, each message stands once and below an older one: so there is no circle.
 * @param {Message[]} messages the oldest first, each once @returns {Thread[]} */
export function threadsOf(messages) {
  /** @type {Map<string, Node>} */
  const byId = new Map();
  /** @type {Node[]} */
  const roots = [];
  for (const message of messages) {
    const answered = [...new Set((message.parents ?? []).map((parent) => parent.msg_id))].filter(Boolean);
    const above = answered.map((id) => byId.get(id)).find(Boolean) ?? null;
    const node = { message, children: [], others: answered.filter((id) => id !== above?.message.msg_id) };
    if (above) above.children.push(node);
    else roots.push(node);
    if (!byId.has(message.msg_id)) byId.set(message.msg_id, node);
  }
  return roots.map(flat).sort((one, other) => (one.newest < other.newest ? 1 : one.newest > other.newest ? -1 : 0));
}

/** @typedef {{message: Message, children: Node[], others: string[]}} Node */

/** Without recursion: a chain of answers may be as long as the list.
 * @param {Node} root @returns {Thread} */
function flat(root) {
  /** @type {Item[]} */
  const items = [];
  let newest = "";
  /** @type {{node: Node, level: number}[]} */
  const stack = [{ node: root, level: 0 }];
  for (let top = stack.pop(); top; top = stack.pop()) {
    const { node, level } = top;
    items.push({
      message: node.message, key: keyOf(node.message), level, depth: Math.min(level, MOST_DEPTH),
      replies: 0, others: node.others, isContext: false,
    });
    const moment = `${timeOf(node.message)} ${node.message.msg_id}`;
    if (moment > newest) newest = moment;
    for (const child of [...node.children].reverse()) stack.push({ node: child, level: level + 1 });
  }
  countReplies(items, root);
  return { key: keyOf(root.message), newest, items };
}

/** @param {Item[]} items @param {Node} root */
function countReplies(items, root) {
  /** @type {Map<Message, number>} */
  const sizes = new Map();
  const order = [root];
  for (let at = 0; at < order.length; at += 1) for (const child of order[at].children) order.push(child);
  for (const node of order.reverse()) {
    sizes.set(node.message, node.children.reduce((sum, child) => sum + 1 + (sizes.get(child.message) ?? 0), 0));
  }
  for (const item of items) item.replies = sizes.get(item.message) ?? 0;
}

/** Only what is wanted, and what it answers, marked as context; threads without any are left out.
 * @param {Thread[]} threads @param {(message: Message) => boolean} isWanted @returns {Thread[]} */
export function filtered(threads, isWanted) {
  return threads.flatMap((thread) => {
    const wanted = thread.items.map((item) => isWanted(item.message));
    if (!wanted.includes(true)) return [];
    const items = thread.items.flatMap((item, at) => {
      if (wanted[at]) return [item];
      const below = wanted.slice(at + 1, at + 1 + item.replies); // they follow it at once
      return below.includes(true) ? [{ ...item, isContext: true }] : [];
    });
    return [{ ...thread, items }];
  });
}
