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
  #shipped = [];
  #next = "";
  #timer = 0;

  /** `chosen` are names; `pick` is called with names and whether there may be several, `edit` with the labels of a set. */
  constructor({ chosen, several, pick, edit }) {
    this.chosen = new Set(chosen);
    this.several = several;
    this.pick = pick;
    this.filter = find("set-filter");
    this.filter.addEventListener("input", () => this.#filtered());
    find("sets-more").addEventListener("click", () => this.#more(PAGE));
    find("set-edit").addEventListener("click", () => this.#edit(edit));
    for (const id of ["sets", "shipped"]) find(id).addEventListener("change", ({ target }) => this.#pick(target));
    find("several").checked = several;
    find("several").addEventListener("change", ({ target }) => this.#allow(target.checked));
  }

  /** How many labels the sets with these names have; 0 if that is not known, or there are several. */
  size([name, ...others]) {
    const known = this.#sets.get(name) ?? this.#shipped.find(({ labelset }) => labelset === name);
    return others.length ? 0 : known?.label_count ?? 0;
  }

  /** Reads the first page anew. */
  async load() {
    this.#sets.clear();
    this.#next = "";
    await Promise.all([this.#more(PAGE), this.#readShipped()]);
    for (const name of this.#own()) if (!this.#sets.has(name)) await this.#read(name);
    this.#show();
  }

  /** Chooses a set that is there, such as one just saved. */
  choose(name) {
    this.#allowed(false);
    this.chosen = new Set([name]);
    this.#show();
  }

  // those chosen that somebody registered
  #own() {
    return [...this.chosen].filter((name) => !name.includes(":"));
  }

  async #readShipped() {
    if (this.#shipped.length) return;
    try {
      this.#shipped = (await ask("vocabularies")).data.vocabularies;
    } catch (problem) {
      find("labelset-error").textContent = problem.sentence;
    }
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
    if (!this.chosen.delete(name)) return;
    const before = find("labelset-error").textContent;  // of another one; a choice empties it
    this.pick([...this.chosen], this.several);
    const told = [before, `There is no label set “${name}” here.`].filter(Boolean);
    find("labelset-error").textContent = told.join(" ");
  }

  #pick({ value, checked }) {
    if (!this.several) this.chosen.clear();
    if (checked) this.chosen.add(value);
    else this.chosen.delete(value);
    this.#picked();
  }

  #allow(several) {
    this.#allowed(several);
    this.chosen = new Set(several ? this.chosen : [...this.chosen].slice(0, 1));
    this.#picked();
  }

  #allowed(several) {
    this.several = several;
    find("several").checked = several;
  }

  #picked() {
    find("labelset-error").textContent = "";
    this.pick([...this.chosen], this.several);
    this.#show();
  }

  async #edit(edit) {
    const [name] = this.#own();
    const definition = await this.#read(name);
    if (definition) edit(definition.labels);
  }

  #show() {
    const wanted = this.filter.value.trim().toLowerCase();
    const fits = (one) => `${one.name} ${one.description}`.toLowerCase().includes(wanted);
    const shown = [...this.#sets.values()].filter(fits).sort((a, b) => (a.name < b.name ? -1 : 1));
    this.#fill(find("sets"), shown.map((one) => this.#row(one)));
    const shipped = this.#shipped.filter(fits);
    this.#fill(find("shipped"), shipped.map((one) => this.#row({ ...one, name: one.labelset, title: one.name })));
    find("shipped-box").hidden = !shipped.length;
    if ([...this.chosen].some((name) => name.includes(":"))) find("shipped-box").open = true;
    find("sets-more").hidden = !this.#next;
    find("set-edit").hidden = !(this.chosen.size === 1 && this.#own().some((name) => this.#sets.has(name)));
    find("sets-state").textContent = this.#state(shown.length, wanted);
    this.#watch();
  }

  #fill(group, rows) {
    const held = group.contains(document.activeElement) ? document.activeElement.value : null;
    group.replaceChildren(group.firstElementChild, ...rows);
    if (held !== null) group.querySelector(`input[value="${CSS.escape(held)}"]`)?.focus();
  }

  #state(shown, wanted) {
    if (!this.#sets.size) return find("labelset-error").textContent ? "" : "No label sets yet. Type your own words and save them.";
    const more = this.#next ? " so far" : "";
    return wanted
      ? `${shown} of ${counted(this.#sets.size, "label set")}${more} match`
      : `${counted(this.#sets.size, "label set")}${more}`;
  }

  #row({ name, title = name, description, label_count: count, templates, status = "ready", progress, error }) {
    const box = make("input", { type: this.several ? "checkbox" : "radio", name: "labelset", value: name });
    box.checked = this.chosen.has(name);
    const state = { building: `building, ${percent(progress)}`, failed: `failed: ${error}` }[status];
    const about = [counted(count, "word"), templates, state].filter(Boolean).join(" · ");
    return make("label", { class: `set ${status}` }, box,
      make("span", { class: "set-name", text: title }),
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
