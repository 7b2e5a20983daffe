// Finds and makes elements; texts stay texts. Knows nothing of what they show.

/** The element with this id. */
export const find = (id) => document.getElementById(id);

/** A new element. `text`, `class` and `on` (listeners by event) are special, the rest attributes. */
export function make(tag, { text, class: classes, on, ...attributes } = {}, ...children) {
  const element = document.createElement(tag);
  if (classes) element.className = classes;
  if (text !== undefined) element.textContent = text;
  for (const [event, listener] of Object.entries(on ?? {})) element.addEventListener(event, listener);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

/** An icon of the page's sprite. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/** Says something to screen readers; the same text twice in a row is said twice. */
export function announce(text) {
  const status = find("status");
  status.textContent = status.textContent === text ? `${text}\u00a0` : text;
}

let toastTimer = 0;
let forgotten = () => {};

/**
 * Shows a confirmation for a moment, and says it. With `undo` it stays longer and has a button;
 * `gone` is called once it can no longer be undone.
 */
export function toast(text, { undo, gone = () => {} } = {}) {
  const shown = find("toast");
  const button = find("toast-undo");
  const leave = () => {
    if (button.contains(document.activeElement)) find("drop").focus();
    shown.hidden = true;
  };
  clearTimeout(toastTimer);
  forgotten();
  forgotten = gone;
  find("toast-text").textContent = text;
  button.hidden = !undo;
  button.onclick = () => {
    forgotten = () => {};
    leave();
    undo();
  };
  shown.hidden = false;
  const end = () => {
    if (shown.matches(":hover, :focus-within")) {
      toastTimer = setTimeout(end, 2000); // somebody is about to press it
      return;
    }
    forgotten();
    forgotten = () => {};
    leave();
  };
  toastTimer = setTimeout(end, undo ? 10_000 : 4000);
  announce(text);
}

/** Puts a text on the clipboard; false if the browser does not let a page do that. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text);
  }
}

// without https, other than on localhost, browsers have no clipboard for pages but this
function copyBySelection(text) {
  const before = document.activeElement;
  const area = make("textarea", { class: "sr", "aria-hidden": "true", tabindex: "-1" });
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  before?.focus();
  return done;
}
