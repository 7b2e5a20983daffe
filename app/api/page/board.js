// The pictures on the page and what the server answers to them.
// Knows nothing of where the question comes from.

import { Problem, ROOT, ask, hasKey, stages } from "./api.js";
import { Card } from "./card.js";
import { curlLine } from "./curl.js";
import { announce, copy, find, toast } from "./dom.js";
import { Queue } from "./queue.js";
import { counted, noneOfThese, percent } from "./words.js";

// pictures on their way to the server at once, and on the page
const MOST_AT_ONCE = 3;
const MOST_CARDS = 60;

const UNREADABLE = {
  title: "The file cannot be read",
  detail: "it is a folder, or it was changed or moved since it was chosen",
  field: "image",
};

export class Board {
  #cards = [];
  #queue = new Queue({
    most: MOST_AT_ONCE,
    work: (card, signal) => this.#classify(card, signal),
    idle: () => this.#report(),
  });

  /**
   * `question` gives what is asked now, or nothing while something is missing; `failed` gets each
   * problem, `changed` is called when pictures come or go, `heat` with an opacity.
   */
  constructor({ question, failed, changed, heat }) {
    Object.assign(this, { question, failed, changed });
    this.actions = {
      heat,
      remove: (card) => this.#remove(card),
      again: (card) => this.ask([card], true),
      copyCurl,
      copyJson,
    };
    find("clear").addEventListener("click", () => {
      for (const card of [...this.#cards]) this.#remove(card);
      find("drop").focus();
    });
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
  take(files, source = null) {
    const room = Math.max(0, MOST_CARDS - this.size);
    find("image-error").textContent = files.length > room
      ? `${MOST_CARDS} pictures fit on this page; for folders there is “openvocab classify” in a shell.`
      : "";
    for (const file of files.slice(0, room)) {
      const same = source && this.#cards.find((card) => card.source === source);
      if (same) this.#remove(same);
      const card = new Card(file, source, this.actions);
      this.#cards.unshift(card);
      find("cards").prepend(card.element);
    }
    this.changed();
  }

  /** Asks for the pictures whose answer is to another question; with `anyway`, for these all. */
  ask(cards = this.#cards, anyway = false) {
    const wanted = this.question();
    if (!wanted) return;
    for (const card of cards) {
      if (!anyway && card.asked?.key === wanted.key) continue;
      card.asked = wanted;
      card.state = "waiting";
      card.problem = null;
      card.show();
      this.#queue.add(card);
    }
  }

  /** Asks for every picture. */
  askAll() {
    this.ask(this.#cards, true);
  }

  async #classify(card, signal) {
    const form = new FormData();
    for (const [name, value] of card.asked.fields) form.append(name, value);
    form.append("image", card.file);
    try {
      const { data, headers, ms } = await ask("classify", { method: "POST", body: form, signal });
      const timed = { stages: stages(headers), ms };
      Object.assign(card, { answer: data, timed, chosen: 0, state: "done" });
    } catch (error) {
      if (signal.aborted) return;
      card.problem = await problemOf(error, card.file);
      card.state = "failed";
      this.failed(card.problem);
    }
    card.show();
  }

  #remove(card) {
    const at = this.#cards.indexOf(card);
    const inside = card.element.contains(document.activeElement);
    this.#queue.drop(card);
    this.#cards.splice(at, 1);
    card.close();
    this.#peek();
    this.changed();
    const next = this.#cards[Math.min(at, this.size - 1)]?.element.querySelector(".remove");
    if (inside) (next ?? find("drop")).focus();
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

function best({ predictions, reason }, count) {
  if (noneOfThese(reason)) return "none of these";
  if (!predictions.length) return "no word reached the least score";
  const shown = predictions.slice(0, count);
  return shown.map(({ label, score }) => `${label} ${percent(score)}`).join(", ");
}

async function copyCurl(card) {
  const line = curlLine({
    url: new URL("classify", ROOT).href,
    fields: card.asked.fields,
    file: card.file.name || "picture.png",
    sample: card.source,
    key: hasKey(),
  });
  const done = await copy(line);
  card.showLine(line, done);
  if (!done) toast("This browser does not let a page copy; the line is shown below the answer.");
  else if (hasKey()) toast("Copied. It reads the key from OPENVOCAB_API_KEY.");
  else if (card.source) toast("The curl line is copied.");
  else toast(`The curl line is copied; it reads ${card.file.name} in the folder where you run it.`);
}

async function copyJson(card) {
  const done = await copy(JSON.stringify(card.answer, null, 2));
  toast(done ? "The JSON is copied." : "This browser does not let a page copy.");
}
