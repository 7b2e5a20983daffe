// Registered label sets: the list to pick from, and saving a new one.
// Knows nothing of pictures.

import { Problem, ask } from "./api.js";
import { find, make, toast } from "./dom.js";
import { counted, percent } from "./words.js";

const PAGE = 50;
const ALL = 1000;
const POLL_MS = 700;

export class Picker {
  #sets = new Map();
  #next = "";
  #timer = 0;

  /** `pick` is called with a name, `edit` with the labels of a set. */
  constructor({ chosen, pick, edit }) {
    this.chosen = chosen;
    this.pick = pick;
    this.filter = find("set-filter");
    this.filter.addEventListener("input", () => this.#filtered());
    find("sets-more").addEventListener("click", () => this.#more(PAGE));
    find("set-edit").addEventListener("click", () => this.#edit(edit));
    find("sets").addEventListener("change", (event) => this.#pick(event.target.value));
  }

  /** How many labels a set has, if that is known. */
  size(name) {
    return this.#sets.get(name)?.label_count ?? 0;
  }

  /** Reads the first page anew. */
  async load() {
    this.#sets.clear();
    this.#next = "";
    await this.#more(PAGE);
    if (this.chosen && !this.#sets.has(this.chosen)) await this.#read(this.chosen);
    this.#show();
  }

  /** Chooses a set that is there, such as one just saved. */
  choose(name) {
    this.chosen = name;
    this.#show();
  }

  async #more(limit) {
    const after = this.#next ? `&after=${encodeURIComponent(this.#next)}` : "";
    try {
      const { data } = await ask(`labelsets?limit=${limit}${after}`);
      for (const one of data.labelsets) this.#sets.set(one.name, one);
      this.#next = data.next ?? "";
      find("labelset-error").textContent = "";
    } catch (problem) {
      find("labelset-error").textContent = problem.sentence;
    }
    this.#show();
  }

  // the server lists by name only, so a filter needs all of them
  async #filtered() {
    while (this.#next && this.filter.value) {
      const before = this.#next;
      await this.#more(ALL);
      if (this.#next === before) break;
    }
    this.#show();
  }

  async #read(name) {
    try {
      const { data } = await ask(`labelsets/${encodeURIComponent(name)}`);
      this.#sets.set(name, data);
      return data;
    } catch (problem) {
      if (problem.status === 404) this.#gone(name);
      else find("labelset-error").textContent = problem.sentence;
      return null;
    }
  }

  #gone(name) {
    this.#sets.delete(name);
    if (this.chosen !== name) return;
    this.chosen = "";
    this.pick("");
  }

  #pick(name) {
    this.chosen = name;
    find("labelset-error").textContent = "";
    this.pick(name);
    this.#show();
  }

  async #edit(edit) {
    const found = await this.#read(this.chosen);
    if (found) edit(found.labels);
  }

  #show() {
    const wanted = this.filter.value.trim().toLowerCase();
    const fits = (one) => `${one.name} ${one.description}`.toLowerCase().includes(wanted);
    const shown = [...this.#sets.values()].filter(fits).sort((a, b) => (a.name < b.name ? -1 : 1));
    const group = find("sets");
    const held = group.contains(document.activeElement) ? document.activeElement.value : null;
    group.replaceChildren(group.firstElementChild, ...shown.map((one) => this.#row(one)));
    if (held !== null) group.querySelector(`input[value="${CSS.escape(held)}"]`)?.focus();
    find("sets-more").hidden = !this.#next;
    find("set-edit").hidden = !this.#sets.has(this.chosen);
    find("sets-state").textContent = this.#state(shown.length, wanted);
    this.#watch();
  }

  #state(shown, wanted) {
    if (!this.#sets.size) return "No label sets yet. Type your own words and save them.";
    const more = this.#next ? " so far" : "";
    return wanted
      ? `${shown} of ${counted(this.#sets.size, "label set")}${more} match`
      : `${counted(this.#sets.size, "label set")}${more}`;
  }

  #row({ name, description, label_count: count, templates, status, progress, error }) {
    const radio = make("input", { type: "radio", name: "labelset", value: name });
    radio.checked = name === this.chosen;
    const state = { building: `building, ${percent(progress)}`, failed: `failed: ${error}` }[status];
    const about = [counted(count, "word"), templates, state].filter(Boolean).join(" · ");
    return make("label", { class: `set ${status}` }, radio,
      make("span", { class: "set-name", text: name }),
      make("span", { class: "set-about", text: about }),
      ...(description ? [make("span", { class: "set-description", text: description })] : []));
  }

  // a build that goes on is looked at again, as long as somebody can see it
  #watch() {
    clearTimeout(this.#timer);
    const building = [...this.#sets.values()].filter((one) => one.status === "building");
    if (!building.length || find("set").hidden) return;
    this.#timer = setTimeout(async () => {
      for (const one of building.slice(0, 10)) await this.#read(one.name);
      this.#show();
    }, POLL_MS);
  }
}

/** Sets up saving. `definition` gives labels and templates; `saved` gets the name. */
export function setUpSaving({ definition, saved }) {
  const form = find("save");
  const open = find("save-open");
  const name = find("save-name");
  open.addEventListener("click", () => {
    form.hidden = !form.hidden;
    open.setAttribute("aria-expanded", String(!form.hidden));
    if (!form.hidden) name.focus();
  });
  name.addEventListener("input", clear);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    clear();
    put(name.value.trim(), definition(), { "If-None-Match": "*" }, saved);
  });
  find("save-again").addEventListener("click", () => {
    clear();
    put(name.value.trim(), definition(), {}, saved);
  });
}

function clear() {
  find("save-error").textContent = "";
  find("save-state").textContent = "";
  find("save-replace").hidden = true;
  find("save-name").removeAttribute("aria-invalid");
}

async function put(name, definition, match, saved) {
  if (!name) {
    refuse(new Problem({ title: "A label set needs a name" }));
    return;
  }
  find("save-state").textContent = "Saving…";
  try {
    let { data } = await ask(`labelsets/${encodeURIComponent(name)}`, {
      method: "PUT",
      headers: { "Content-Type": "application/json", ...match },
      body: JSON.stringify(definition),
    });
    while (data.status === "building") {
      find("save-state").textContent = `Building: ${percent(data.progress)}`;
      await new Promise((done) => { setTimeout(done, POLL_MS); });
      ({ data } = await ask(`labelsets/${encodeURIComponent(name)}`));
    }
    if (data.status === "failed") throw new Problem({ title: "The build failed", detail: data.error });
    find("save-state").textContent = "";
    toast(`“${name}” is saved and ready`);
    saved(name);
  } catch (problem) {
    find("save-state").textContent = "";
    refuse(problem, name);
  }
}

function refuse(problem, name) {
  const taken = problem.status === 412;
  find("save-replace").hidden = !taken;
  find("save-error").textContent = taken ? `Label set “${name}” already exists.` : problem.sentence;
  find("save-name").setAttribute("aria-invalid", "true");
}
