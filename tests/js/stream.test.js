// The stream of changes, over a connection that is played here.

import assert from "node:assert/strict";
import { mock, test } from "node:test";

/** @type {Source[]} */
const made = [];

class Source extends EventTarget {
  static CLOSED = 2;
  readyState = 1;

  /** @param {string} address */
  constructor(address) {
    super();
    this.address = address;
    made.push(this);
  }

  /** @param {string} name */
  say(name) {
    this.dispatchEvent(new MessageEvent(name, { data: "{}" }));
  }

  close() {
    this.readyState = Source.CLOSED;
  }
}

const page = Object.assign(new EventTarget(), { hidden: false });
Object.assign(globalThis, { EventSource: Source, document: page });
const { connect } = await import("../../web/static/js/stream.js");

test("a connection that is gone without an end is opened anew", () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  /** @type {string[]} */
  const states = [];
  const end = connect({ heartbeat: () => {} }, (state) => states.push(state));
  made[0].onopen();
  for (let beat = 0; beat < 8; beat += 1) {
    mock.timers.tick(15_000);
    made[0].say("heartbeat");
  }
  assert.equal(made.length, 1);
  assert.equal(states.at(-1), "live");
  mock.timers.tick(46_000);
  assert.equal(made.length, 2);
  assert.equal(made[0].readyState, Source.CLOSED);
  assert.equal(states.at(-1), "retrying");
  made[1].onopen();
  assert.equal(states.at(-1), "live");
  end();
  mock.timers.tick(600_000);
  assert.equal(made.length, 2);
  mock.timers.reset();
});

test("after an answer that is an error it is tried again, soon and then less often", () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  made.length = 0;
  const end = connect({}, () => {});
  for (const wait of [1000, 2000, 5000, 10_000, 10_000]) {
    const source = made[made.length - 1];
    source.close();
    source.onerror();
    const before = made.length;
    mock.timers.tick(wait - 1);
    assert.equal(made.length, before);
    mock.timers.tick(1);
    assert.equal(made.length, before + 1);
  }
  end();
  mock.timers.reset();
});
