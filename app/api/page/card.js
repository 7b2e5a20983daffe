// One picture with its answer, or with what went wrong. Knows nothing of the server.

import { find, icon, make } from "./dom.js";
import { drawHeat } from "./heat.js";
import { bytes, facts, milliseconds, noneOfThese, percent } from "./words.js";

// as a picture goes through them; text runs beside it
const STAGES = ["decode", "queue", "encode", "text", "score"];
const TOTAL = "total"; // in Server-Timing, beside the stages
const SHORTENED = 64;

let count = 0;

export class Card {
  /** `actions`: remove, again, copyCurl, copyJson, choose (a label), heat (an opacity). */
  constructor(file, source, actions) {
    count += 1;
    this.file = file;
    this.source = source;
    this.actions = actions;
    this.state = "idle"; // then waiting, then done or failed
    this.asked = null; // what the answer answers: threshold, most (answers), words (how many), alone
    this.answer = null;
    this.timed = null; // stages, ms
    this.problem = null;
    this.chosen = 0;
    this.url = URL.createObjectURL(file);
    this.element = this.#build(`card-${count}`);
    this.show();
  }

  /** Frees the picture. */
  close() {
    URL.revokeObjectURL(this.url);
    this.element.remove();
  }

  /** Shows what is known now. */
  show() {
    const { answer, problem, state } = this;
    this.element.dataset.state = state;
    this.element.setAttribute("aria-busy", String(state === "waiting"));
    this.problemBox.hidden = !problem;
    this.body.hidden = Boolean(problem);
    if (problem) this.#showProblem(problem);
    else if (answer) this.#showAnswer(answer);
  }

  #build(id) {
    this.image = make("img", { src: this.url, alt: "", decoding: "async", on: {
      error: () => this.element.classList.add("unseen"),
      load: () => this.#size(this.image.naturalWidth, this.image.naturalHeight),
    } });
    this.canvas = make("canvas", { class: "heat", "aria-hidden": "true", hidden: true });
    this.meta = make("p", { class: "meta", text: bytes(this.file.size) });
    this.slider = make("input", { type: "range", min: "0", max: "1", step: "0.05", on: {
      input: () => this.actions.heat(Number(this.slider.value)),
    } });
    this.heatBox = make("div", { class: "heat-box", hidden: true },
      this.heatText = make("p", { class: "hint" }),
      make("label", {}, make("span", { text: "Opacity" }), this.slider));
    const shot = make("div", { class: "shot" },
      make("div", { class: "frame" }, this.image, this.canvas, icon("picture")), this.meta, this.heatBox);
    const remove = make("button", { type: "button", class: "ghost icon-only remove", "aria-label": `Remove ${this.file.name}`, on: { click: () => this.actions.remove(this) } }, icon("close"));
    const head = make("header", {}, make("h3", { id, text: this.file.name }), remove);
    const verdict = make("div", { class: "verdict" }, head, this.#buildBody(), this.#buildProblem());
    return make("article", { class: "card", "aria-labelledby": id }, shot, verdict);
  }

  #buildBody() {
    this.rows = make("ol", { class: "rows", role: "list" });
    this.rows.append(...[0.9, 0.5, 0.3].map((share) => bone(share)));
    this.named = make("div", { class: "columns-named", "aria-hidden": "true", hidden: true },
      ...["word", "score", "similarity"].map((text) => make("span", { text })));
    this.none = make("p", { class: "none", hidden: true });
    this.notes = make("ul", { class: "notes", role: "list" });
    this.basis = make("p", { class: "basis" });
    this.timing = make("div", { class: "timing", hidden: true });
    this.json = make("pre", { tabindex: "0", "aria-label": "The answer as JSON" });
    const raw = make("details", { class: "quiet raw", on: { toggle: () => this.#fillJson() } },
      make("summary", { text: "JSON" }),
      this.json,
      make("button", { type: "button", class: "text", text: "Copy the JSON", on: { click: () => this.actions.copyJson(this) } }));
    this.raw = raw;
    this.curl = make("button", { type: "button", class: "secondary", on: { click: () => this.actions.copyCurl(this) } });
    this.#mark(false);
    this.line = make("pre", { class: "line", tabindex: "0", "aria-label": "The curl line", hidden: true });
    this.foot = make("div", { class: "foot", hidden: true }, this.curl, raw);
    this.body = make("div", { class: "body" }, this.none, this.named, this.rows, this.notes, this.basis, this.timing, this.foot, this.line);
    return this.body;
  }

  #buildProblem() {
    this.sentence = make("p", { class: "sentence" });
    this.facts = make("p", { class: "meta" });
    this.again = make("button", { type: "button", class: "secondary", on: { click: () => this.actions.again(this) } }, icon("again"), "Try again");
    this.problemBox = make("div", { class: "problem", hidden: true }, icon("alert"),
      make("div", {}, this.sentence, this.facts, this.again));
    return this.problemBox;
  }

  /** Shows the curl line, and on the button that it was copied, if it was. */
  showLine(line, copied) {
    this.line.textContent = line;
    this.line.hidden = false;
    this.#mark(copied);
    setTimeout(() => this.#mark(false), 2500);
  }

  #mark(copied) {
    this.curl.replaceChildren(icon(copied ? "check" : "terminal"), copied ? "Copied" : "Copy as curl");
    this.curl.classList.toggle("done", copied);
  }

  #showProblem(problem) {
    this.sentence.textContent = problem.sentence;
    this.facts.textContent = facts(problem).join(" · ");
    this.again.hidden = !passing(problem);
    this.#showHeat(null);
  }

  #showAnswer(answer) {
    const { threshold } = this.asked;
    const old = this.rows.dataset.bones === "gone" ? [...this.rows.children] : [];
    const none = noneOfThese(answer.reason);
    const shown = none ? answer.reason.withheld : answer.predictions;
    this.rows.replaceChildren(...shown.map((one, at) => this.#row(old[at], one, at)));
    this.rows.dataset.bones = "gone";
    this.rows.classList.toggle("withheld", none);
    this.none.hidden = !none;
    if (none) this.none.replaceChildren(make("strong", { text: "None of these." }), ` ${sentence(answer.reason.detail)}`);
    this.named.hidden = !shown.length;
    this.rows.style.setProperty("--threshold", threshold || 0);
    this.rows.classList.toggle("bounded", Boolean(threshold));
    this.#size(answer.image.width, answer.image.height);
    const notes = answer.warnings.map((text) => note("alert", text));
    if (answer.abstained && !none) notes.unshift(note("alert", `No word reached the least score of ${threshold}.`));
    this.notes.replaceChildren(...notes);
    this.basis.textContent = this.#basisText(answer);
    this.#showTiming();
    this.foot.hidden = false;
    this.#fillJson();
    this.line.hidden = true;
    const chosen = answer.predictions[Math.min(this.chosen, answer.predictions.length - 1)];
    this.#showHeat(chosen?.heatmap ? chosen : null);
  }

  #row(old, { label, score, similarity, heatmap }, at) {
    const row = old ?? make("li", {}, make("span", { class: "word" }), make("span", { class: "score" }), make("span", { class: "similarity" }), make("span", { class: "track", "aria-hidden": "true" }, make("span", { class: "fill" })));
    const [word, shown, cosine, track] = row.children;
    if (heatmap) this.#choice(word, label, at);
    else word.replaceChildren(label);
    shown.textContent = percent(score);
    cosine.replaceChildren(make("span", { class: "sr", text: ", similarity " }), similarity.toFixed(3));
    track.firstElementChild.style.setProperty("--share", score);
    return row;
  }

  #choice(word, label, at) {
    const button = word.querySelector("button") ?? make("button", { type: "button", class: "choice" });
    button.textContent = label;
    button.setAttribute("aria-pressed", String(at === this.chosen));
    button.onclick = () => {
      this.chosen = at;
      this.show();
    };
    if (!button.isConnected) word.replaceChildren(button);
  }

  #basisText({ predictions, image, templates, calibrated }) {
    if (!predictions.length) return "";
    const { words, alone, threshold, most } = this.asked;
    const reached = threshold && predictions.length < most ? ` reached ${threshold}` : "";
    const shown = words > predictions.length ? reached ? `${predictions.length} of ${words} words${reached}. ` : `The best ${predictions.length} of ${words} words. ` : "";
    const basis = alone ? "Each scored on its own." : "Scores are shares among all words asked.";
    const known = image.cached ? " The picture was known, so it was not encoded again." : "";
    const mended = calibrated ? " Calibrated on pictures of this label set." : "";
    return `${shown}${basis}${mended} Templates: ${templates}.${known}`;
  }

  #showTiming() {
    const { stages, ms } = this.timed;
    const names = new Set([...STAGES, ...stages.keys()].filter((name) => stages.has(name) && name !== TOTAL));
    const parts = [...names].map((name) => [name, stages.get(name)]);
    const sum = parts.reduce((total, [, spent]) => total + spent, 0) || 1;
    const bar = make("div", { class: "stack", "aria-hidden": "true" }, ...parts.map(([name, spent]) => {
      const piece = make("span", { class: "stage", "data-stage": name });
      piece.style.setProperty("--share", spent / sum);
      return piece;
    }));
    const legend = make("dl", {}, ...parts.map(([name, spent]) =>
      make("div", {}, make("dt", { "data-stage": name, text: name }), make("dd", { text: milliseconds(spent) }))));
    const server = stages.has(TOTAL) ? `${milliseconds(stages.get(TOTAL))} in the server, ` : "";
    const total = make("p", { class: "meta", text: `${server}${milliseconds(ms)} with the way there and back` });
    this.timing.replaceChildren(bar, legend, total);
    this.timing.hidden = !parts.length;
  }

  #fillJson() {
    if (!this.raw.open || !this.answer) return;
    const short = (key, value) => (typeof value === "string" && value.startsWith("data:")
      ? `${value.slice(0, SHORTENED)}… (${value.length} characters)` : value);
    this.json.textContent = JSON.stringify(this.answer, short, 2);
  }

  async #showHeat(prediction) {
    this.heatBox.hidden = !prediction;
    this.canvas.hidden = !prediction;
    if (!prediction) return;
    this.heatText.textContent = `Where it looks like “${prediction.label}”`;
    this.slider.setAttribute("aria-label", `Opacity of the heat map over ${this.file.name}`);
    this.slider.value = getComputedStyle(find("cards")).getPropertyValue("--heat");
    try {
      await drawHeat(this.canvas, prediction.heatmap);
    } catch {
      this.canvas.hidden = true;
      this.heatText.textContent = "The heat map cannot be drawn.";
    }
  }

  #size(width, height) {
    this.meta.textContent = `${width} × ${height} · ${bytes(this.file.size)}`;
  }
}

// whether the same request may be answered another time
function passing({ status }) {
  return status < 400 || status >= 500 || [401, 408, 429].includes(status);
}

function sentence(text) {
  return `${text[0].toUpperCase()}${text.slice(1)}.`;
}

function bone(share) {
  const fill = make("span", { class: "fill" });
  fill.style.setProperty("--share", share);
  return make("li", { class: "bone", "aria-hidden": "true" }, make("span", { class: "track" }, fill));
}

function note(name, text) {
  return make("li", {}, icon(name), make("span", { text }));
}
