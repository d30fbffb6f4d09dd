// @ts-check
// The last messages of a task, beside what they tell of.

import { addresses } from "../api.js";
import { h, setText, syncChildren } from "../dom.js";
import { everySecond, keepShowing } from "../live.js";
import { links } from "../router.js";
import { agoText, dateText } from "../times.js";

const SHOWN = 6;
const MOST_CHARACTERS = 400;

/** @param {string} project @param {string} task */
export function lastMessages(project, task) {
  const list = h("ol", { class: "last-messages" });
  const none = h("p", { class: "none", hidden: true }, "No message yet.");
  const element = h("section", {},
    h("h2", {}, "Messages of the task ", h("a", { class: "more", href: links.messages(project, task) }, "All")), none, list);
  const keeper = keepShowing(addresses.messages(project, task, { limit: SHOWN }), ({ messages }) => {
    none.hidden = messages.length > 0;
    syncChildren(list, [...messages].reverse(), (message) => message.msg_id, (message) => makeMessage(project, task, message));
    tick();
  }, {
    wants: (change) => change.buses.some((bus) => // the bus of the root has messages of all projects
      (!bus.project_id || bus.project_id === project) && (!bus.task_id || bus.task_id === task)),
    onRefused: () => (none.hidden = false),
  });
  const tick = () => list.querySelectorAll("time").forEach((time) => setText(time, agoText(time.dateTime)));
  const stopClock = everySecond(tick);
  return {
    element,
    close() {
      keeper.stop();
      stopClock();
    },
  };
}

/** @param {string} project @param {string} task @param {any} message */
function makeMessage(project, task, message) {
  const body = String(message.body ?? "");
  const shown = body.length > MOST_CHARACTERS ? `${body.slice(0, MOST_CHARACTERS)}…` : body;
  return h("li", { "data-row": true },
    h("p", { class: "message-head small" },
      h("b", {}, message.type),
      h("a", { href: links.messages(project, task, { msg: message.msg_id }) },
        h("time", { datetime: message.timestamp, title: dateText(message.timestamp) }))),
    h("p", { class: "message-text" }, shown));
}
