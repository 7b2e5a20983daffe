// One picture with its answer, or with what went wrong: as a tile of a grid and as a whole card.
// Knows nothing of the server.

import { LANGUAGES } from "./code.js";
import { find, icon, make } from "./dom.js";
import { drawHeat } from "./heat.js";
import { Part, place } from "./part.js";
import { Section } from "./section.js";
import { bytes, facts, milliseconds, noneOfThese, percent, resultsOf } from "./words.js";

// as a picture goes through them; text runs beside it
const STAGES = ["decode", "queue", "encode", "text", "score"];
const TOTAL = "total"; // in Server-Timing, beside the stages
const SHORTENED = 64;

let count = 0;

export class Card {
  /** `actions`: remove, again, open, part, copyCode, copyJson, heat (an opacity). */
  constructor(file, source, actions) {
    count += 1;
    this.file = file;
    this.source = source;
    this.actions = actions;
    this.state = "idle"; // then waiting, then done or failed
    this.question = null; // what is asked now: key, fields, threshold, coverage, most, words, alone, single
    this.answered = null; // the question that `answer` answers
    this.answer = null;
    this.timed = null; // stages, ms
    this.problem = null;
    this.chosen = [0, 0]; // the section and the place of the prediction that the heat map shows
    this.isOpen = false;
    this.url = URL.createObjectURL(file);
    this.element = this.#build(`card-${count}`);
    this.show();
  }

  /** Frees the picture. */
  close() {
    URL.revokeObjectURL(this.url);
  }

  /** The answer in one or two words, to group by. */
  get verdict() {
    if (this.problem) return "Errors";
    if (!this.answer) return "Waiting";
    const first = this.#first;
    if (noneOfThese(first.reason)) return "None of these";
    return first.predictions[0]?.label ?? "Below the minimum score";
  }

  /** Whether `verdict` is a word of the user's own. */
  get isNamed() {
    return !this.problem && Boolean(this.#first?.predictions.length);
  }

  // the result among the words, or of the first of several label sets
  get #first() {
    return this.answer && resultsOf(this.answer)[0][1];
  }

  /** Shows what is known now; `note` says what is waited for. */
  show(note = "") {
    const { answer, problem, state } = this;
    this.waiting.textContent = note;
    this.waiting.hidden = !note;
    this.element.dataset.state = state;
    this.element.setAttribute("aria-busy", String(state === "waiting"));
    this.problemBox.hidden = !problem;
    this.body.hidden = Boolean(problem);
    if (problem) this.#showProblem(problem);
    else if (answer) this.#showAnswer(answer);
    this.#showTile();
  }

  /** Marks an answer that answers something other than what is asked now. */
  mark(key) {
    const stale = Boolean(this.answer ?? this.problem) && this.state !== "idle" && this.question?.key !== key;
    const waiting = this.state === "waiting" && Boolean(this.answer);
    this.element.classList.toggle("stale", stale || waiting);
    this.previous.hidden = !(stale || waiting);
  }

  /** Opens the tile, or folds it again. */
  open(open, focus = false) {
    this.isOpen = open;
    this.element.classList.toggle("open", open);
    this.tile.setAttribute("aria-expanded", String(open));
    if (focus) (open ? this.fold : this.tile).focus();
  }

  #build(id) {
    const { name } = this.file;
    this.image = make("img", { src: this.url, alt: "", decoding: "async", draggable: "false", on: {
      error: () => this.element.classList.add("unseen"),
      load: () => this.#size(this.image.naturalWidth, this.image.naturalHeight),
    } });
    this.canvas = make("canvas", { class: "heat", "aria-hidden": "true", hidden: true });
    const picture = make("div", { class: "picture" }, this.image, this.canvas);
    this.part = new Part({ frame: picture, image: this.image, name, changed: () => this.actions.part(this) });
    this.meta = make("p", { class: "meta", text: bytes(this.file.size) });
    this.slider = make("input", { type: "range", min: "0", max: "1", step: "0.05", on: {
      input: () => this.actions.heat(Number(this.slider.value)),
    } });
    this.heatBox = make("div", { class: "heat-box", hidden: true },
      this.heatText = make("p", { class: "hint" }),
      this.opacity = make("label", {}, make("span", { text: "Opacity" }), this.slider));
    const shot = make("div", { class: "shot" },
      make("div", { class: "frame" }, picture, icon("picture")), make("div", { class: "row tight" }, this.meta, this.part.button), this.heatBox);
    this.previous = make("span", { class: "previous", text: "previous", title: "Answers other words or options than those chosen now", hidden: true });
    this.fold = make("button", { type: "button", class: "ghost icon-only fold", "aria-label": `Close ${name}`, on: { click: () => this.actions.open(this, false) } }, icon("next"));
    const head = make("header", {}, make("h3", { id, text: name }), this.previous, this.fold, this.#buildRemove());
    const verdict = make("div", { class: "verdict" }, head, this.#buildBody(), this.#buildProblem());
    return make("article", { class: "card", "aria-labelledby": id }, this.#buildTile(), make("div", { class: "whole" }, shot, verdict));
  }

  #buildRemove() {
    return make("button", { type: "button", class: "ghost icon-only remove", "aria-label": `Remove ${this.file.name}`, on: { click: () => this.actions.remove(this) } }, icon("close"));
  }

  #buildTile() {
    const track = make("span", { class: "track", "aria-hidden": "true" }, this.tileFill = make("span", { class: "fill" }));
    this.tileWord = make("span", { class: "tile-word", dir: "auto" });
    this.tileScore = make("span", { class: "tile-score" });
    this.tile = make("button", { type: "button", class: "tile", "aria-expanded": "false", title: this.file.name, on: { click: () => this.actions.open(this, true) } },
      make("span", { class: "thumb" }, make("img", { src: this.url, alt: "", decoding: "async", loading: "lazy", draggable: "false" }), icon("picture")),
      make("span", { class: "sr", text: `${this.file.name}: ` }),
      make("span", { class: "tile-line" }, this.tileWord, this.tileScore), track);
    return make("div", { class: "tile-box" }, this.tile, this.#buildRemove());
  }

  #showTile() {
    const first = this.problem ? null : this.#first?.predictions[0];
    this.tileWord.textContent = this.problem ? "Error" : this.answer ? this.verdict : "…";
    this.tileScore.textContent = first ? (this.answered.single ? first.similarity.toFixed(3) : percent(first.score)) : "";
    this.tileFill.style.setProperty("--share", first && !this.answered.single ? first.score : 0);
  }

  #buildBody() {
    this.sections = [new Section((at) => this.#choose(0, at))];
    this.sectionBox = make("div", { class: "sections" }, this.sections[0].element);
    this.foot = make("div", { class: "foot", hidden: true }, this.#buildCode(), this.#buildAbout(), this.#buildRaw());
    this.line = make("pre", { class: "line", tabindex: "0", "aria-label": "The request as code", hidden: true });
    this.waiting = make("p", { class: "hint", role: "status", hidden: true });
    this.notes = make("ul", { class: "notes", role: "list", "aria-label": "Warnings" });
    this.body = make("div", { class: "body" }, this.waiting, this.sectionBox, this.notes, this.foot, this.line);
    return this.body;
  }

  #buildCode() {
    this.codes = LANGUAGES.map((language) => make("button", {
      type: "button", class: "secondary", "aria-label": `Copy as ${language.name}`, text: language.name,
      on: { click: () => this.actions.copyCode(this, language) },
    }));
    return make("div", { class: "copy-as", role: "group", "aria-label": "Copy as" }, make("span", { class: "meta", text: "Copy as" }), ...this.codes);
  }

  #buildAbout() {
    this.basis = make("p", { class: "basis" });
    this.timing = make("div", { class: "timing", hidden: true });
    return make("details", { class: "quiet about" },
      make("summary", {}, icon("info"), make("span", { text: "About" })),
      this.basis, this.timing);
  }

  #buildRaw() {
    this.json = make("pre", { tabindex: "0", "aria-label": "The answer as JSON" });
    this.raw = make("details", { class: "quiet raw", on: { toggle: () => this.#fillJson() } },
      make("summary", { text: "JSON" }),
      this.json,
      make("button", { type: "button", class: "text", text: "Copy the JSON", on: { click: () => this.actions.copyJson(this) } }));
    return this.raw;
  }

  #buildProblem() {
    this.sentence = make("p", { class: "sentence" });
    this.facts = make("p", { class: "meta" });
    this.factsBox = make("details", { class: "quiet" }, make("summary", { text: "Details" }), this.facts);
    this.again = make("button", { type: "button", class: "secondary", on: { click: () => this.actions.again(this) } }, icon("again"), "Retry");
    this.problemBox = make("div", { class: "problem", hidden: true }, icon("alert"),
      make("div", {}, this.sentence, this.factsBox, this.again));
    return this.problemBox;
  }

  /** Shows the code that was to be copied, and on its button whether it was. */
  showCode(code, { name }, copied) {
    this.line.textContent = code;
    this.line.hidden = false;
    const button = this.codes[LANGUAGES.findIndex((language) => language.name === name)];
    button.classList.toggle("done", copied);
    button.textContent = copied ? "Copied" : name;
    setTimeout(() => {
      button.classList.remove("done");
      button.textContent = name;
    }, 2500);
  }

  #showProblem(problem) {
    this.sentence.textContent = problem.sentence;
    const known = facts(problem);
    this.facts.textContent = known.join(" · ");
    this.factsBox.hidden = !known.length;
    this.again.hidden = !passing(problem);
    this.#showHeat(null);
  }

  #showAnswer(answer) {
    const { threshold, coverage, single } = this.answered;
    const results = resultsOf(answer);
    while (this.sections.length < results.length) {
      const at = this.sections.length;
      this.sections.push(new Section((place) => this.#choose(at, place)));
    }
    this.sections.length = results.length;
    this.sectionBox.replaceChildren(...this.sections.map((section) => section.element));
    results.forEach(([title, result], at) => {
      const chosen = at === this.chosen[0] ? this.chosen[1] : -1;
      this.sections[at].show(result, { title, threshold, coverage, chosen });
    });
    this.element.classList.toggle("single", Boolean(single));
    this.#size(answer.image.width, answer.image.height);
    const warnings = [...new Set([...(answer.warnings ?? []), ...results.flatMap(([, result]) => result.warnings)])];
    this.notes.replaceChildren(...warnings.map((text) => note("alert", text)));
    this.basis.textContent = this.#basisText(results[0][1], answer.image);
    this.#showTiming();
    this.foot.hidden = false;
    this.#fillJson();
    this.line.hidden = true;
    const { predictions } = results[this.chosen[0]]?.[1] ?? results[0][1];
    const chosen = predictions[Math.min(this.chosen[1], predictions.length - 1)];
    this.#showHeat(chosen?.heatmap ? chosen : null);
  }

  #choose(section, at) {
    this.chosen = [section, at];
    this.show();
  }

  #basisText({ predictions, templates, calibrated }, image) {
    if (!predictions.length) return "";
    const { words, alone, single, threshold, most } = this.answered;
    const reached = threshold && predictions.length < most ? ` reached ${threshold}` : "";
    const shown = words > predictions.length ? reached ? `${predictions.length} of ${words} words${reached}. ` : `The best ${predictions.length} of ${words} words. ` : "";
    const basis = alone ? "Each word is scored on its own." : "Scores add up to 100 % over your words.";
    const known = image.cached ? " The picture was encoded before (cached)." : "";
    const calibration = calibrated ? " Calibrated on pictures of this label set." : "";
    return `${shown}${single ? "One word has nothing to be compared with." : basis}${calibration} Similarity (cosine) says how near picture and word are, whatever the other words are. Templates: ${templates}.${known}`;
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
    const server = stages.has(TOTAL) ? `${milliseconds(stages.get(TOTAL))} server · ` : "";
    const total = make("p", { class: "meta", text: `${server}${milliseconds(ms)} total` });
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
    this.canvas.hidden = this.opacity.hidden = !prediction;
    if (!prediction) return;
    this.heatText.textContent = `Bright where covering the picture lowers “${prediction.label}” most. The grid has 7 × 7 squares, so edges are coarse; flat ground is left out.`;
    this.slider.setAttribute("aria-label", `Opacity of the heat map over ${this.file.name}`);
    place(this.canvas, this.answered.part ?? [0, 0, 1, 1]);
    this.slider.value = getComputedStyle(find("cards")).getPropertyValue("--heat");
    try {
      if (await drawHeat(this.canvas, prediction.heatmap)) return;
      this.canvas.hidden = this.opacity.hidden = true; // the whole picture would lie in the dark
      this.heatText.textContent = `No single part of the picture lowers “${prediction.label}” when it is covered.`;
    } catch {
      this.canvas.hidden = this.opacity.hidden = true;
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

function note(name, text) {
  return make("li", {}, icon(name), make("span", { text }));
}
