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

/** Shows a confirmation for a moment, and says it. */
export function toast(text) {
  const shown = find("toast");
  shown.textContent = text;
  shown.hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => { shown.hidden = true; }, 4000);
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
