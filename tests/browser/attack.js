// What a stranger's page tries on the server.  `attack(target, paths, change)` gives a list of all
// that it could read; `change` is an address that takes messages.
"use strict";

const WAIT_MS = 10000; // for what a browser does not even tell the end of
const later = () => new Promise((resolve) => setTimeout(() => resolve(""), WAIT_MS));
const within = (attempt) => Promise.race([attempt.catch(() => ""), later()]);

async function fetched(address, options) {
  const response = await fetch(address, options);
  return response.type === "opaque" ? "" : `fetch: ${await response.text()}`;
}

function streamed(address, withCredentials) {
  return new Promise((resolve) => {
    const source = new EventSource(address, { withCredentials });
    const tell = (event) => {
      source.close();
      resolve(`stream: ${event.data ?? event.type}`);
    };
    for (const name of ["open", "message", "heartbeat", "status", "log"]) {
      source.addEventListener(name, tell);
    }
    source.onerror = () => {
      source.close();
      resolve("");
    };
  });
}

function embedded(tag, attribute, address) {
  return new Promise((resolve) => {
    const element = document.createElement(tag);
    element.onload = () => {
      let inside = "";
      try {
        inside = element.contentDocument?.body?.textContent ?? "";
      } catch {
        inside = ""; // of another origin
      }
      const isPlain = tag === "iframe" || tag === "link";
      resolve(isPlain ? inside && `${tag}: ${inside}` : `${tag}: loaded`);
    };
    element.onerror = () => resolve("");
    if (tag === "link") element.rel = "stylesheet";
    element[attribute] = address;
    document.body.append(element);
  });
}

/** Tells nothing, once there is an answer in the frame. */
function submitted(address, kind, name, value) {
  const frame = document.createElement("iframe");
  frame.name = `f${Math.random()}`;
  const form = document.createElement("form");
  Object.assign(form, { method: "POST", action: address, enctype: kind, target: frame.name });
  const field = document.createElement("input");
  Object.assign(field, { name, value });
  form.append(field);
  document.body.append(frame, form);
  form.submit(); // the empty page that a frame begins with has been loaded by now
  return new Promise((resolve) => {
    frame.onload = () => resolve("");
  });
}

async function attack(target, paths, change) {
  const message = JSON.stringify({ type: "FACT", body: "of a stranger" });
  const json = { "Content-Type": "application/json" };
  const plain = { "Content-Type": "text/plain" };
  const attempts = paths.flatMap((path) => [
    fetched(target + path),
    fetched(target + path, { credentials: "include" }),
    fetched(target + path, { mode: "no-cors", credentials: "include" }),
    embedded("img", "src", target + path),
    embedded("script", "src", target + path),
    embedded("link", "href", target + path),
    embedded("iframe", "src", target + path),
  ]);
  const address = target + change;
  for (const credentials of ["omit", "include"]) {
    attempts.push(
      fetched(address, { method: "POST", headers: json, body: message, credentials }),
      fetched(address, { method: "POST", headers: plain, body: message, credentials }),
      fetched(address, { method: "POST", mode: "no-cors", body: message, credentials }),
      fetched(address, { method: "DELETE", credentials }),
      streamed(`${target}/api/v1/runs/stream/all`, credentials === "include"),
      streamed(`${address}/stream`, credentials === "include"),
    );
  }
  const [first, second] = message.split('"body"');
  attempts.push(
    submitted(address, "text/plain", `${first}"x`, `":1,"body"${second}`),
    submitted(address, "application/x-www-form-urlencoded", "body", "of a stranger"),
    submitted(address, "multipart/form-data", "body", "of a stranger"),
  );
  navigator.sendBeacon(address, message);
  navigator.sendBeacon(address, new Blob([message], { type: "application/json" }));
  const found = await Promise.all(attempts.map(within));
  return found.filter((text) => text !== "");
}
