// Says which model is loaded and what it is good for, and lists the template sets.
// Knows nothing of pictures.

import { find, make } from "./dom.js";
import { OWN } from "./settings.js";
import { counted } from "./words.js";

const UNKNOWN = { note: "It is loaded at its first request.", description: "", languages: [], imagenet_top1: null };

const ALWAYS = "Like every model of this kind it is weak at counting, reading text and telling left from right; and it picks the nearest of your words even if none fits, unless you set a minimum score or allow “none of these”.";

/**
 * Offers the models of GET /models where there are several, with `chosen` or else the default.
 * Returns what is known of it (`info`), and whether `chosen` is among them.
 */
export function listModels({ models, loaded }, chosen) {
  const [, ...others] = models;
  find("model-field").hidden = !others.length;
  find("model-choice").replaceChildren(
    make("option", { value: "", text: `${models[0].name} (default)` }),
    ...others.map(({ name, state }) => make("option", { value: name, text: state === "failed" ? `${name} (failed)` : name })));
  const other = others.find(({ name }) => name === chosen);
  find("model-choice").value = other ? chosen : "";
  // an idle model is described once it was loaded
  const info = other ? other.info ?? { ...UNKNOWN, name: chosen } : loaded;
  return { info, isChosen: Boolean(other) };
}

/** Shows the model that answers: a `loaded` or an `info` of GET /models. */
export function showModel(loaded) {
  const { good, bad } = purposes(loaded.description);
  find("model").setAttribute("aria-busy", "false");
  find("model-name").textContent = loaded.name;
  find("model-about").textContent = loaded.note ?? "";
  const tags = [loaded.precision, loaded.device, loaded.backend, loaded.image_width && `${loaded.image_width} px`];
  find("model-tags").replaceChildren(...tags.filter(Boolean).map((text) => make("li", { text })));
  const facts = [
    ["Good for", good],
    ["Not good for", loaded.note ? "" : [bad, ALWAYS].filter(Boolean).join(" ")],
    ["Labels in", languages(loaded.languages)],
    ["ImageNet", loaded.imagenet_top1 === null ? "" : `${loaded.imagenet_top1} % right without training on it`],
    ["Licence", loaded.licence],
    ["From", loaded.source],
  ];
  find("model-facts").replaceChildren(...facts.filter(([, text]) => text).map(fact));
}

/** Shows why nothing is known of the model. */
export function showNoModel(problem) {
  find("model").setAttribute("aria-busy", "false");
  find("model-name").textContent = problem.status === 401 ? "Sign in with a key to see it" : "no model";
  find("model-about").textContent = problem.status === 401 ? "" : problem.sentence;
}

// a description says in sentences of their own what the model is not for
function purposes(description) {
  const sentences = description.match(/[^.]+\.?/g)?.map((one) => one.trim()) ?? [];
  const isBad = (one) => /^not\b/i.test(one);
  return {
    good: sentences.filter((one) => !isBad(one)).join(" "),
    bad: sentences.filter(isBad).map((one) => one.replace(/^not for\s+(\p{L})/iu, (_, first) => first.toUpperCase())).join(" "),
  };
}

function languages(tags) {
  const names = new Intl.DisplayNames(["en"], { type: "language" });
  const name = (tag) => {
    if (tag === "mul") return "many languages";
    try {
      return names.of(tag);
    } catch {
      return tag; // a model of one's own may say anything
    }
  };
  return tags.map(name).join(", ");
}

function fact([name, text]) {
  const link = /^https:\/\//.test(text);
  const value = link ? make("a", { href: text, rel: "noreferrer", text: text.slice(8) }) : text;
  return make("div", {}, make("dt", { text: name }), make("dd", {}, value));
}

/** Fills the choice of templates from GET /templates. */
export function listTemplates({ default: usual, sets }) {
  const named = sets.map(({ name, templates }) =>
    make("option", { value: name, text: `${name}: ${counted(templates.length, "template")}` }));
  find("templates").replaceChildren(
    make("option", { value: "", text: `Default (${usual})` }), ...named,
    make("option", { value: OWN, text: "My own…" }));
}

/** Says what the chosen templates make of a label. */
export function aboutTemplates({ default: usual, sets }, chosen, mode, label) {
  const select = find("templates");
  select.options[0].textContent = mode === "set" ? "Those of the label set" : `Default (${usual})`;
  const found = sets.find(({ name }) => name === (chosen || (mode === "set" ? "" : usual)));
  // the bare label is the first template of some sets, and shows nothing
  const shown = found && (found.templates.find((one) => one.trim() !== "{}") ?? found.templates[0]);
  find("templates-about").textContent = found
    ? `${found.description} Such as “${shown.replace("{}", () => label || "cat")}”`
    : "";
}
