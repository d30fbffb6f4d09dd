// @ts-check
// The only way from data to the page: everything that is shown is text of a text node.

// Escape sequences and what turns the direction of writing round would show something else
// than what is there; line feed and tab stay.
const CONTROLS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;
const SVG = "http://www.w3.org/2000/svg";

/** @typedef {string | number | boolean | null | undefined | ((event: any) => void)} Attribute */

/** The text with each control character as a visible sign. @param {unknown} text */
function visible(text) {
  return String(text ?? "").replace(CONTROLS, (sign) => {
    const code = sign.charCodeAt(0);
    if (code < 0x20) return String.fromCharCode(0x2400 + code);
    return code === 0x7f ? "\u2421" : "\ufffd";
  });
}

/** @param {string} id */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found;
}

/** A new element.  Children that are no nodes become text; null, undefined and false are left
 * out, and so are attributes of these values; `onclick` and the like take a function.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag @param {Record<string, Attribute>} attributes @param {...unknown} children
 * @returns {HTMLElementTagNameMap[Tag]} */
export function h(tag, attributes = {}, ...children) {
  return /** @type {any} */ (fill(document.createElement(tag), attributes, children));
}

/** The same for a picture.
 * @template {keyof SVGElementTagNameMap} Tag
 * @param {Tag} tag @param {Record<string, Attribute>} attributes @param {...unknown} children
 * @returns {SVGElementTagNameMap[Tag]} */
export function svg(tag, attributes = {}, ...children) {
  return /** @type {any} */ (fill(document.createElementNS(SVG, tag), attributes, children));
}

/** @param {Element} element @param {Record<string, Attribute>} attributes @param {unknown[]} children */
function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, String(value));
  }
  element.append(...nodesOf(children));
  return element;
}

/** @param {unknown[]} children @returns {(Node | string)[]} */
function nodesOf(children) {
  return children.flat(Infinity)
    .filter((child) => child !== null && child !== undefined && child !== false)
    .map((child) => (child instanceof Node ? child : visible(child)));
}

/** Puts these children in place of all there are. @param {Element} element @param {...unknown} children */
export function setChildren(element, ...children) {
  element.replaceChildren(...nodesOf(children));
}

/** Sets the text if it is another: a selection in it, and the focus, stay.
 * @param {Node} node @param {unknown} text */
export function setText(node, text) {
  const shown = visible(text);
  if (node.textContent !== shown) node.textContent = shown;
}

/** @param {Element} element @param {string} name @param {string | null} value null: without it */
export function setAttribute(element, name, value) {
  if (value === null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

/** The parent's children become one for each item; one of the same key is kept and updated,
 * so that a row keeps the focus when the list changes around it.
 * @template T
 * @param {Element} parent @param {T[]} items @param {(item: T) => string} keyOf
 * @param {(item: T) => Element} make @param {(element: any, item: T) => void} [update] */
export function syncChildren(parent, items, keyOf, make, update = () => {}) {
  /** @type {Map<string | undefined, Element>} */
  const known = new Map();
  for (const child of [...parent.children]) {
    const key = keys.get(child);
    if (known.has(key)) child.remove(); // two items have had the same
    else known.set(key, child);
  }
  const wanted = items.map((item) => {
    const key = keyOf(item);
    const element = known.get(key) ?? make(item);
    known.delete(key);
    keys.set(element, key);
    update(element, item);
    return element;
  });
  for (const gone of known.values()) gone.remove();
  let next = parent.firstElementChild;
  for (const element of wanted) {
    if (element === next) next = next.nextElementSibling;
    else parent.insertBefore(element, next);
  }
}

/** @type {WeakMap<Element, string>} */
const keys = new WeakMap();

/** Has syncChildren() know an element that somebody else has added to its parent.
 * @param {Element} element @param {string} key */
export const setKey = (element, key) => keys.set(element, key);
