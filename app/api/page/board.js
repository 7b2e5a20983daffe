// The pictures on the page, the answers to them, and how they are laid out.
// Knows nothing of where the question comes from.

import { Problem, ROOT, ask, hasKey, stages } from "./api.js";
import { Card } from "./card.js";
import { announce, copy, find, make, toast } from "./dom.js";
import { Queue } from "./queue.js";
import { FORMATS, refusal } from "./sniff.js";
import { csvOf } from "./table.js";
import { best, counted } from "./words.js";

// pictures on their way to the server at once, and on the page
const MOST_AT_ONCE = 3;
const MOST_CARDS = 60;

// from so many on they are tiles of a grid
const GRID_FROM = 3;

const UNREADABLE = {
  title: "The file cannot be read",
  detail: "it is a folder, or it was changed or moved since it was chosen",
  field: "image",
};

export class Board {
  #cards = [];
  #layoutDue = 0;
  #queue = new Queue({
    most: MOST_AT_ONCE,
    work: (card, signal) => this.#classify(card, signal),
    idle: () => this.#report(),
  });

  /**
   * `question` gives what is asked now, or nothing while something is missing; `failed` gets each
   * problem, `answered` is called after each answer, `changed` when pictures come or go, `heat`
   * gets an opacity.
   */
  constructor({ question, failed, answered, changed, heat }) {
    Object.assign(this, { question, failed, answered, changed });
    this.actions = {
      heat,
      remove: (card) => this.#remove(card),
      again: (card) => this.ask([card], true),
      open: (card, open) => this.#open(card, open),
      part: (card) => this.ask([card]),
      copyCode,
      copyJson,
    };
    find("clear").addEventListener("click", () => this.#removeAll());
    find("csv").addEventListener("click", () => download("openvocab.csv", csvOf(this.#cards)));
    find("group").addEventListener("change", () => this.#layout());
    // on a narrow screen the answers are below everything else
    new IntersectionObserver(([entry]) => {
      find("peek").classList.toggle("away", entry.isIntersecting);
    }).observe(find("cards"));
  }

  /** How many pictures there are. */
  get size() {
    return this.#cards.length;
  }

  /** Takes files; `source` is the address of a sample, of which one copy is enough. */
  async take(files, source = null) {
    const reasons = await Promise.all(files.map(refusal));
    const images = files.filter((_, at) => !reasons[at]);
    const same = source && this.#cards.find((card) => card.source === source);
    if (same) this.#take(same);
    const room = Math.max(0, MOST_CARDS - this.size);
    const refused = reasons.filter(Boolean);
    if (refused.length > 3) refused.splice(2, Infinity, `${refused.length - 2} more files are not images.`);
    if (refused.some((reason) => !reason.endsWith("is empty."))) refused.push(FORMATS);
    if (images.length > room) {
      refused.push(`${MOST_CARDS} pictures fit on this page; for folders use “openvocab classify” in a terminal.`);
    }
    find("image-error").textContent = refused.join(" ");
    const cards = images.slice(0, room).map((file) => new Card(file, source, this.actions));
    this.#cards.unshift(...cards);
    this.#changed();
    this.ask();
  }

  /** Asks for the pictures whose answer is to another question; with `anyway`, for these all. */
  ask(cards = this.#cards, anyway = false) {
    const question = this.question();
    if (question) {
      for (const card of cards) {
        const wanted = about(question, card);
        if (!anyway && card.question?.key === wanted.key) continue;
        card.question = wanted;
        card.state = "waiting";
        card.problem = null;
        card.show();
        this.#queue.add(card);
      }
    }
    this.mark();
  }

  /** Marks the answers that do not answer what is asked now. */
  mark() {
    const question = this.question();
    for (const card of this.#cards) card.mark(about(question, card)?.key);
  }

  /** Asks for every picture. */
  askAll() {
    this.ask(this.#cards, true);
  }

  /** Asks again for every picture that failed. */
  askFailed() {
    this.ask(this.#cards.filter((card) => card.problem), true);
  }

  async #classify(card, signal) {
    const { question } = card;
    const form = new FormData();
    for (const [name, value] of question.fields) form.append(name, value);
    form.append("image", card.file);
    try {
      const { data, headers, ms } = await ask("classify", { method: "POST", body: form, signal });
      const timed = { stages: stages(headers), ms };
      Object.assign(card, { answer: data, answered: question, timed, chosen: [0, 0], state: "done" });
      this.answered();
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Problem && error.isBuilding) {
        card.show(error.sentence);
        await pause(1000 * (error.retryAfter ?? 2), signal);
        if (!signal.aborted) await this.#classify(card, signal);
        return;
      }
      card.problem = await problemOf(error, card.file);
      card.state = "failed";
      this.failed(card.problem);
    }
    card.show();
    card.mark(about(this.question(), card)?.key);
    this.#layoutSoon();
  }

  #take(card) {
    this.#queue.drop(card);
    this.#cards.splice(this.#cards.indexOf(card), 1);
    card.close();
  }

  #remove(card) {
    const at = this.#cards.indexOf(card);
    const inside = card.element.contains(document.activeElement);
    this.#leave([card], `${card.file.name} is removed.`, () => this.#cards.splice(at, 0, card));
    const next = this.#cards[Math.min(at, this.size - 1)]?.element;
    if (inside) (visible(next, ".tile, .remove") ?? find("drop")).focus();
  }

  #removeAll() {
    const all = [...this.#cards];
    this.#leave(all, `${counted(all.length, "picture")} removed.`, () => this.#cards.push(...all));
    find("drop").focus();
  }

  /** Takes cards off the page; they are freed once that can no longer be undone. */
  #leave(cards, text, back) {
    for (const card of cards) this.#queue.drop(card);
    this.#cards = this.#cards.filter((card) => !cards.includes(card));
    this.#changed();
    toast(text, {
      undo: () => {
        back();
        this.#changed();
        const asked = cards.filter((card) => card.state === "waiting");
        this.ask(asked, true);
        this.ask();
        cards[0].element.scrollIntoView({ block: "nearest" });
      },
      gone: () => cards.forEach((card) => card.close()),
    });
  }

  #changed() {
    this.#layout();
    this.#peek();
    this.changed();
  }

  #open(card, open) {
    for (const other of this.#cards) if (other !== card && other.isOpen) other.open(false);
    card.open(open, true);
    card.element.scrollIntoView({ block: "nearest" });
  }

  // many answers at once are one layout
  #layoutSoon() {
    this.#layoutDue ||= requestAnimationFrame(() => {
      this.#layoutDue = 0;
      this.#layout();
    });
  }

  /** Whole cards, or from GRID_FROM on a grid of tiles; by answer if that is wanted. */
  #layout() {
    const box = find("cards");
    const grid = this.size >= GRID_FROM;
    box.classList.toggle("grid", grid);
    find("answers-tools").hidden = !this.size;
    find("by-answer").hidden = find("csv").hidden = !grid;
    find("answers-count").textContent = grid ? String(this.size) : "";
    const wanted = grid && find("group").checked ? grouped(this.#cards) : this.#cards.map((card) => card.element);
    const before = document.activeElement;
    const held = box.contains(before);
    wanted.forEach((element, at) => {
      const here = box.children[at];
      // the same heading again keeps what is on the screen as it is
      if (here === element) return;
      box.insertBefore(element, here ?? null);
    });
    while (box.children.length > wanted.length) box.lastElementChild.remove();
    if (held && before.isConnected && document.activeElement !== before) before.focus();
  }

  /** Everything was answered: say so to who does not see it. */
  #report() {
    const [first] = this.#cards;
    const failed = this.#cards.filter((card) => card.problem).length;
    const errors = failed ? `, ${counted(failed, "error")}` : "";
    if (this.size > 1) announce(`${counted(this.size, "picture")} answered${errors}`);
    else if (first) {
      const text = first.problem ? first.problem.sentence : best(first.answer, 3);
      announce(`${first.file.name}: ${text}`);
    }
    this.#peek();
  }

  #peek() {
    const first = this.#cards.find((card) => card.state === "done");
    find("peek").hidden = !first;
    if (first) find("peek").textContent = best(first.answer, 1);
  }
}

// the question about a card's picture, or about the part of it that is chosen; null: nothing is asked
function about(question, card) {
  const part = card.part.value;
  if (!question || !part) return question;
  const fields = [...question.fields, ["boxes", JSON.stringify([part])]];
  return { ...question, fields, part, key: JSON.stringify(fields) };
}

// groups by size, what is no word of the user's last
function grouped(cards) {
  const groups = new Map();
  for (const card of cards) {
    const group = groups.get(card.verdict) ?? { named: card.isNamed, cards: [] };
    group.cards.push(card);
    groups.set(card.verdict, group);
  }
  const sorted = [...groups].sort(([, a], [, b]) => b.named - a.named || b.cards.length - a.cards.length);
  return sorted.flatMap(([verdict, group]) => [
    make("h3", { class: "group" }, verdict, " ", make("span", { class: "number", text: String(group.cards.length) })),
    ...group.cards.map((card) => card.element),
  ]);
}

// ends early where the work is given up
function pause(ms, signal) {
  return new Promise((done) => {
    setTimeout(done, ms);
    signal.addEventListener("abort", done, { once: true });
  });
}

function visible(element, selector) {
  return [...(element?.querySelectorAll(selector) ?? [])].find((one) => one.checkVisibility());
}

function download(name, text) {
  const url = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

// what is no problem of the server's is a fault of this page, and belongs on the console
async function problemOf(error, file) {
  if (!(error instanceof Problem)) {
    console.error(error);
    return new Problem({ title: "This page failed" });
  }
  return error.status || (await readable(file)) ? error : new Problem(UNREADABLE);
}

async function readable(file) {
  try {
    await file.slice(0, 1).arrayBuffer();
    return true;
  } catch {
    return false;
  }
}

async function copyCode(card, language) {
  const code = language.write({
    url: new URL("classify", ROOT).href,
    fields: card.answered.fields,
    file: card.file.name || "picture.png",
    sample: card.source,
    key: hasKey(),
  });
  const done = await copy(code);
  card.showCode(code, language, done);
  if (!done) toast("This browser does not let a page copy; the code is shown below the answer.");
  else if (hasKey()) toast("Copied. The code reads the key from OPENVOCAB_API_KEY.");
  else if (card.source) toast(`Copied as ${language.name}.`);
  else toast(`Copied as ${language.name}. The code reads ${card.file.name} from the folder where you run it.`);
}

async function copyJson(card) {
  const done = await copy(JSON.stringify(card.answer, null, 2));
  toast(done ? "The JSON is copied." : "This browser does not let a page copy.");
}
