// Choosing a part of a picture: a rectangle that is drawn, moved by arrow keys, and taken away.
// Knows nothing of answers.

import { make } from "./dom.js";

const STEP = 0.05; // an arrow key, as a share of the picture
const LEAST = 0.04; // a smaller rectangle was a click

export class Part {
  #start = null;
  #drawn = null;

  /** `frame` holds the `image`; `changed` gets [x, y, width, height] as shares of it, or null. */
  constructor({ frame, image, name, changed }) {
    Object.assign(this, { frame, image, changed });
    this.value = null;
    this.isOn = false;
    this.box = make("div", { class: "part", role: "application", tabindex: "0", hidden: true,
      "aria-label": `Part of ${name}: arrow keys move it, with Shift they change its size, Escape takes it away`,
      on: { keydown: (event) => this.#key(event) } });
    this.button = make("button", { type: "button", class: "text look-part", text: "Look at a part", on: { click: () => this.#toggle() } });
    frame.append(this.box);
    frame.addEventListener("pointerdown", (event) => this.#down(event));
    frame.addEventListener("pointermove", (event) => this.#move(event));
    frame.addEventListener("pointerup", () => this.#up());
    frame.addEventListener("pointercancel", () => this.#stop());
  }

  #toggle() {
    if (this.isOn) this.#clear();
    else {
      this.#turn(true);
      this.#set([0.25, 0.25, 0.5, 0.5]);
      this.box.focus();
    }
  }

  #turn(on) {
    this.isOn = on;
    this.frame.classList.toggle("parting", on);
    this.button.textContent = on ? "Whole picture" : "Look at a part";
  }

  #clear() {
    const held = this.box === document.activeElement;
    this.#turn(false);
    this.#set(null);
    if (held) this.button.focus();
  }

  /** Draws the rectangle; `done` asks about it. */
  #set(value, done = true) {
    this.#drawn = value;
    this.box.hidden = !value;
    if (value) place(this.box, value);
    if (!done) return;
    this.value = value?.map((share) => Number(share.toFixed(4))) ?? null;
    this.changed(this.value);
  }

  #key(event) {
    const way = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] }[event.key];
    if (event.key === "Escape") this.#clear();
    if (!way) return;
    event.preventDefault();
    const [x, y, width, height] = this.value;
    if (event.shiftKey) {
      this.#set([x, y, within(width + way[0], STEP, 1 - x), within(height + way[1], STEP, 1 - y)]);
    } else {
      this.#set([within(x + way[0], 0, 1 - width), within(y + way[1], 0, 1 - height), width, height]);
    }
  }

  #down(event) {
    if (!this.isOn || event.button !== 0) return;
    event.preventDefault();
    this.frame.setPointerCapture(event.pointerId);
    this.#start = this.#at(event);
  }

  #move(event) {
    if (!this.#start) return;
    const end = this.#at(event);
    const [left, right] = [this.#start[0], end[0]].sort((a, b) => a - b);
    const [top, bottom] = [this.#start[1], end[1]].sort((a, b) => a - b);
    this.#set([left, top, right - left, bottom - top], false);
  }

  #up() {
    const [, , width, height] = this.#drawn ?? [0, 0, 0, 0];
    if (this.#start && width >= LEAST && height >= LEAST) {
      this.#start = null;
      this.#set(this.#drawn);
      this.box.focus();
    } else this.#stop();
  }

  #stop() {
    if (!this.#start) return;
    this.#start = null;
    this.#set(this.value, false);
  }

  #at({ clientX, clientY }) {
    const { left, top, width, height } = this.image.getBoundingClientRect();
    return [within((clientX - left) / width, 0, 1), within((clientY - top) / height, 0, 1)];
  }
}

/** Lays an element over a part of its frame. */
export function place(element, [x, y, width, height]) {
  Object.assign(element.style, { left: `${100 * x}%`, top: `${100 * y}%`, width: `${100 * width}%`, height: `${100 * height}%` });
}

const within = (value, least, most) => Math.min(Math.max(value, least), most);
