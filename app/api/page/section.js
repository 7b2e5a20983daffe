// The predictions among one list of words: heading, bars and groups, or why there are none.
// Knows nothing of pictures.

import { make } from "./dom.js";
import { noneOfThese, percent } from "./words.js";

export class Section {
  /** `choose` is called with the place of a prediction whose heat map is wanted. */
  constructor(choose) {
    this.choose = choose;
    this.title = make("h4", { class: "set-title", hidden: true });
    this.none = make("p", { class: "none", hidden: true });
    this.named = make("div", { class: "columns-named", "aria-hidden": "true", hidden: true },
      ...["word", "score", "similarity"].map((text) => make("span", { text })));
    this.rows = make("ol", { class: "rows", role: "list" }, ...[0.9, 0.5, 0.3].map(bone));
    this.promise = make("p", { class: "promise hint", hidden: true });
    this.groups = make("dl", { class: "groups", hidden: true });
    this.element = make("div", { class: "section" }, this.title, this.none, this.named, this.rows, this.promise, this.groups);
  }

  /** Shows a result; `title` is the label set where there are several, `chosen` a place or -1. */
  show(result, { title = "", threshold, coverage, chosen }) {
    const old = this.rows.dataset.bones === "gone" ? [...this.rows.children] : [];
    const none = noneOfThese(result.reason);
    const shown = none ? result.reason.withheld : result.predictions;
    const below = result.abstained && !none;
    this.title.hidden = !title;
    this.title.textContent = title.replace(/^preset:/, "");
    this.rows.replaceChildren(...shown.map((prediction, at) => this.#row(old[at], prediction, at, chosen)));
    this.rows.dataset.bones = "gone";
    this.rows.classList.toggle("withheld", none);
    this.rows.style.setProperty("--threshold", threshold || 0);
    this.rows.classList.toggle("bounded", Boolean(threshold));
    this.none.hidden = !none && !below;
    if (none) this.none.replaceChildren(make("strong", { text: "None of these." }), ` ${sentence(result.reason.detail)}`);
    if (below) this.none.textContent = `No word reached the minimum score of ${threshold}.`;
    this.named.hidden = !shown.length;
    this.#showPromise(result.set, coverage);
    this.#showGroups(result.groups ?? []);
  }

  #showPromise(covering, coverage) {
    this.promise.hidden = !covering?.length;
    if (covering) this.promise.textContent = `For ${coverage} of 100 pictures like those of the calibration, the right word is among: ${covering.join(", ")}.`;
  }

  #showGroups(groups) {
    this.groups.hidden = !groups.length;
    this.groups.replaceChildren(...groups.map(({ path, score }) =>
      make("div", {}, make("dt", { text: path.join(" › ") }), make("dd", { text: percent(score) }))));
  }

  #row(old, { label, score, similarity, heatmap, text, path }, at, chosen) {
    const row = old ?? make("li", {}, make("span", { class: "word", dir: "auto" }), make("span", { class: "score" }), make("span", { class: "similarity" }), make("span", { class: "track", "aria-hidden": "true" }, make("span", { class: "fill" })), make("span", { class: "via" }));
    const [word, shown, cosine, track, via] = row.children;
    if (heatmap) this.#choice(word, label, at, chosen);
    else word.replaceChildren(label);
    shown.textContent = percent(score);
    cosine.replaceChildren(make("span", { class: "sr", text: ", similarity " }), similarity.toFixed(3));
    track.firstElementChild.style.setProperty("--share", score);
    via.textContent = [path && `in ${path.join(" › ")}`, text && `nearest: ${text}`].filter(Boolean).join(" · ");
    via.hidden = !via.textContent;
    return row;
  }

  #choice(word, label, at, chosen) {
    const button = word.querySelector("button") ?? make("button", { type: "button", class: "choice" });
    button.textContent = label;
    button.setAttribute("aria-pressed", String(at === chosen));
    button.onclick = () => this.choose(at);
    if (!button.isConnected) word.replaceChildren(button);
  }
}

function sentence(text) {
  return `${text[0].toUpperCase()}${text.slice(1)}.`;
}

function bone(share) {
  const fill = make("span", { class: "fill" });
  fill.style.setProperty("--share", share);
  return make("li", { class: "bone", "aria-hidden": "true" }, make("span", { class: "track" }, fill));
}
