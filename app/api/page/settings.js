// Words and options: remembered between visits, sent with each picture, carried by a link.

import { ROOT } from "./api.js";
import { typed } from "./labels.js";

const KEY = `openvocab:settings:${ROOT.pathname}`;
const OWN = "*own";

const DEFAULTS = {
  mode: "own",
  labels: ["cat", "dog", "octopus", "pizza", "doughnut", "banana", "rocket", "umbrella"],
  labelsets: [],
  several: false,
  model: "",
  view: "",
  coverage: "",
  others: "",
  shares: false,
  templates: "",
  ownTemplates: "",
  topK: "",
  threshold: "",
  multiLabel: false,
  abstain: false,
  explain: false,
  heat: 0.7,
};

// fields that a link carries, with the type of each
const IN_LINK = ["mode", "several", "model", "view", "coverage", "others", "shares", "templates", "ownTemplates", "topK", "threshold", "multiLabel", "abstain"];
const MODES = ["own", "set", "tags"];
const NUMBERS = ["topK", "threshold", "coverage"]; // kept as text, as their fields have it

export { OWN };
export const settings = { ...restored(), ...linked() };

function restored() {
  const found = { ...DEFAULTS };
  try {
    const kept = JSON.parse(localStorage.getItem(KEY) ?? "{}");
    for (const [name, usual] of Object.entries(DEFAULTS)) {
      if (typeof kept[name] === typeof usual && Array.isArray(kept[name]) === Array.isArray(usual)) {
        found[name] = kept[name];
      }
    }
  } catch {
    // storage is forbidden here, or holds something else: the defaults will do
  }
  for (const list of ["labels", "labelsets"]) found[list] = found[list].filter((name) => typeof name === "string");
  return checked(found);
}

function checked(found) {
  if (!MODES.includes(found.mode)) found.mode = "own";
  if (!found.several) found.labelsets = found.labelsets.slice(0, 1);
  // a number's field would show nothing for it, and it could not be cleared
  for (const name of NUMBERS) if (!Number.isFinite(Number(found[name]))) found[name] = "";
  return found;
}

/** Whether the address carries words and options after #. */
export function isLinked() {
  return afterHash().has("mode");
}

function afterHash() {
  return new URLSearchParams(location.hash.slice(1));
}

/** What the address carries after #: it wins over what is remembered, and is read once. */
function linked() {
  if (!isLinked()) return {};
  const carried = afterHash();
  const all = (name) => [...new Set(carried.getAll(name).map((text) => text.trim()).filter(Boolean))];
  const found = { labels: all("label"), labelsets: all("labelset") };
  for (const name of IN_LINK) {
    const text = carried.get(name) ?? "";
    found[name] = typeof DEFAULTS[name] === "boolean" ? text === "1" : text;
  }
  history.replaceState(null, "", location.pathname + location.search);
  return checked(found);
}

/** The address of this page with words and options after #, which browsers send to no server. */
export function link() {
  const carried = new URLSearchParams({ mode: settings.mode });
  if (settings.mode === "own") for (const label of settings.labels) carried.append("label", label);
  if (settings.mode === "set") for (const name of settings.labelsets) carried.append("labelset", name);
  for (const name of IN_LINK.slice(1)) {
    const value = settings[name];
    const belongs = name === "several" ? settings.mode === "set" : name !== "ownTemplates" || settings.templates === OWN;
    if (value && belongs) carried.set(name, value === true ? "1" : value);
  }
  const address = new URL(location.href);
  address.hash = carried;
  return address.href;
}

export const EXAMPLES = DEFAULTS.labels;

/** Whether the words are the examples of a first visit, and perhaps those of samples after them. */
export function areExamples(labels) {
  return EXAMPLES.every((label, at) => label === labels[at]);
}

/** Whether there is one word and nothing that it could be measured against. */
export function isAlone({ alwaysAlone }) {
  return isBare() && !settings.multiLabel && !alwaysAlone;
}

const isOneWord = () => settings.mode === "own" && settings.labels.length === 1;
const isBare = () => isOneWord() && !settings.threshold && !settings.abstain && !otherThings().length;
const otherThings = () => typed(settings.others);

/** Remember them. */
export function save() {
  try {
    localStorage.setItem(KEY, JSON.stringify(settings));
  } catch {
    // storage is forbidden or full: they last as long as this page
  }
}

/** Own templates, one a line. */
export function ownTemplates() {
  return settings.ownTemplates.split("\n").map((line) => line.trim()).filter(Boolean);
}

/** The fields of POST /classify besides the image, as pairs; lists are JSON, so any text will do. */
export function fields({ explains, alwaysAlone }) {
  const found = [];
  // without either the server answers tags
  if (settings.mode === "own") found.push(["labels", JSON.stringify(settings.labels)]);
  if (settings.mode === "set") found.push(["labelset", settings.labelsets.join(",")]);
  if (settings.model) found.push(["model", settings.model]);
  if (settings.view) found.push(["view", settings.view]);
  if (settings.templates === OWN) found.push(["templates", JSON.stringify(ownTemplates())]);
  else if (settings.templates) found.push(["templates", settings.templates]);
  if (settings.topK) found.push(["top_k", settings.topK]);
  const multiLabel = settings.multiLabel && !alwaysAlone;
  // a share of one word says nothing, but its similarity does: 0 lets the server answer
  const threshold = isBare() && !multiLabel ? "0" : settings.threshold;
  if (threshold) found.push(["threshold", threshold]);
  if (multiLabel) found.push(["multi_label", "true"]);
  if (settings.shares && alwaysAlone && !isOneWord()) found.push(["scores", "softmax"]);
  if (settings.mode === "set" && settings.coverage) found.push(["coverage", String(Number(settings.coverage) / 100)]);
  if (settings.abstain) found.push(["abstain", "true"]);
  const others = settings.mode === "own" ? otherThings() : [];
  if (others.length) found.push(["not", JSON.stringify(others)]);
  if (settings.explain && explains) found.push(["explain", "true"]);
  return found;
}

// the server would take a single one without {} for the name of a set
function wrongTemplates() {
  const lines = ownTemplates();
  if (!lines.length) return "Write at least one template in the options.";
  const wrong = lines.find((line) => line.split("{}").length !== 2);
  return wrong === undefined ? "" : `Each template needs exactly one {} for the word; “${wrong}” has not.`;
}

/** What is still missing before anything can be asked, in words; nothing: an empty text. */
export function missing() {
  return missingWords() || (settings.templates === OWN ? wrongTemplates() : "");
}

function missingWords() {
  if (settings.mode === "tags") return "";
  if (settings.mode === "set") return settings.labelsets.length ? "" : "Pick a label set.";
  return settings.labels.length ? "" : "Type at least two words to choose between.";
}
