// A list of labels as chips, with a place to type more. Knows nothing of what they are for.

import { announce, icon, make } from "./dom.js";
import { isList, label, listed, parts, typed } from "./labels.js";

export class Chips {
  /**
   * `box` holds the `list` and the `input`; `changed` is called with all labels. Labels that are
   * `examples` are replaced by the first that is typed.
   */
  constructor({ box, list, input, labels, examples, changed }) {
    this.list = list;
    this.input = input;
    this.changed = changed;
    this.labels = [];
    this.examples = examples;
    box.addEventListener("click", (event) => {
      if (event.target === box || event.target === list) input.focus();
    });
    input.addEventListener("keydown", (event) => this.#typing(event));
    input.addEventListener("input", (event) => this.#comma(event));
    input.addEventListener("compositionend", (event) => this.#comma(event));
    input.addEventListener("paste", (event) => this.#pasted(event));
    input.addEventListener("blur", () => this.commit());
    list.addEventListener("keydown", (event) => this.#among(event));
    list.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button) this.#remove(this.#buttons().indexOf(button));
    });
    list.addEventListener("focusin", (event) => this.#rove(event.target));
    this.#show(labels);
  }

  /** Shows other labels instead. */
  replace(labels) {
    this.#empty();
    this.#show(labels);
    this.changed(this.labels);
  }

  /** Adds a word to the examples, which stay examples; own words stay as they are. */
  suggest(label) {
    if (!this.examples || this.labels.includes(label)) return;
    this.#show([label]);
    this.changed(this.labels);
  }

  /** Adds what is typed. True if there was something. */
  commit() {
    const found = typed(this.input.value);
    this.input.value = "";
    this.#add(found);
    return found.length > 0;
  }

  #empty() {
    this.labels = [];
    this.examples = false;
    this.list.replaceChildren();
  }

  #show(labels) {
    this.list.append(...labels.map(chip));
    this.labels.push(...labels);
    this.#rove(this.list.lastElementChild?.querySelector("button"));
  }

  #add(labels) {
    if (!labels.length) return;
    if (this.examples) this.#empty();
    const known = new Set(this.labels);
    const fresh = [...new Set(labels)].filter((one) => !known.has(one));
    const again = labels.find((one) => known.has(one));
    if (again !== undefined) this.#flash(again);
    if (!fresh.length) return;
    this.#show(fresh);
    announce(fresh.length === 1 ? `${fresh[0]} added` : `${fresh.length} labels added`);
    this.changed(this.labels);
    this.input.scrollIntoView({ block: "nearest" });
  }

  #flash(again) {
    const item = this.list.children[this.labels.indexOf(again)];
    item.classList.remove("again");
    requestAnimationFrame(() => item.classList.add("again"));
    announce(`${again} is already in the list`);
  }

  #remove(at) {
    this.examples = false; // who picks among the examples keeps the others
    const [gone] = this.labels.splice(at, 1);
    const inside = this.list.contains(document.activeElement);
    this.list.children[at].remove();
    const next = this.#buttons()[Math.min(at, this.labels.length - 1)];
    this.#rove(next);
    if (inside) (next ?? this.input).focus();
    announce(`${gone} removed`);
    this.changed(this.labels);
  }

  #typing(event) {
    if (event.isComposing) return;
    const atStart = this.input.selectionStart === 0 && this.input.selectionEnd === 0;
    if (event.key === "Enter") {
      event.preventDefault();
      this.commit();
    } else if (event.key === "Backspace" && !this.input.value && this.labels.length) {
      this.#remove(this.labels.length - 1);
    } else if (event.key === "ArrowLeft" && atStart && this.labels.length) {
      event.preventDefault();
      this.#buttons().at(-1).focus();
    }
  }

  // not by key: the keyboards of phones do not say which key it was
  #comma(event) {
    if (event.isComposing) return;
    const found = parts(this.input.value);
    if (found.length === 1) return;
    this.input.value = found.pop().trimStart();
    this.#add(found.map(label).filter(Boolean));
  }

  #pasted(event) {
    const text = event.clipboardData?.getData("text/plain") ?? "";
    if (!isList(text)) return;
    event.preventDefault();
    this.commit();
    this.#add(listed(text));
  }

  #among(event) {
    const buttons = this.#buttons();
    const at = buttons.indexOf(event.target);
    const steps = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: buttons.length - 1 };
    if (event.key in steps) {
      event.preventDefault();
      const to = Math.max(0, steps[event.key]);
      (buttons[to] ?? this.input).focus();
    } else if (event.key === "Backspace" || event.key === "Delete") {
      event.preventDefault();
      this.#remove(at);
    }
  }

  #buttons() {
    return [...this.list.querySelectorAll("button")];
  }

  // a thousand labels are one stop of the tab key
  #rove(button) {
    if (!button) return;
    this.list.querySelector('button[tabindex="0"]')?.setAttribute("tabindex", "-1");
    button.setAttribute("tabindex", "0");
  }
}

function chip(text) {
  const remove = make("button", { type: "button", tabindex: "-1", "aria-label": `Remove ${text}` }, icon("close"));
  return make("li", { class: "chip" }, make("span", { dir: "auto", text }), remove);
}
