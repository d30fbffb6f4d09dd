// @ts-check
// The only way from data to the page: everything that is shown is text of a text node.

// Escape sequences and what turns the direction of writing round would show something else
// than what is there; line feed and tab stay.
const CONTROLS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

/** The text with each control character as a visible sign. @param {unknown} text */
export function visible(text) {
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

/** A new element; children that are no elements become text.
 * @param {string} tag @param {Record<string, string>} attributes @param {...unknown} children */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.map((child) => (child instanceof Node ? child : visible(child))));
  return element;
}

/** Sets the text if it is another: a selection in it, and the focus, stay.
 * @param {Node} node @param {unknown} text */
export function setText(node, text) {
  const shown = visible(text);
  if (node.textContent !== shown) node.textContent = shown;
}

/** @param {Element} element @param {string} name @param {string | null} value */
export function setAttribute(element, name, value) {
  if (value === null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

/** The parent's children become one for each item; one of the same key is kept and updated,
 * so that a row keeps the focus when the list changes around it.
 * @template T
 * @param {Element} parent @param {T[]} items @param {(item: T) => string} keyOf
 * @param {(item: T) => Element} make @param {(element: any, item: T) => void} update */
export function syncChildren(parent, items, keyOf, make, update) {
  const known = new Map([...parent.children].map((child) => [keys.get(child), child]));
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
