// What is asked of the server besides the pictures, remembered between visits.

import { ROOT } from "./api.js";

const KEY = `openvocab:settings:${ROOT.pathname}`;
const OWN = "*own";

const DEFAULTS = {
  mode: "own",
  labels: ["cat", "dog", "octopus", "pizza", "doughnut", "banana", "rocket", "umbrella"],
  labelset: "",
  templates: "",
  ownTemplates: "",
  topK: "",
  threshold: "",
  multiLabel: false,
  abstain: false,
  explain: false,
  heat: 0.7,
};

export { OWN };
export const settings = restored();

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
  found.labels = found.labels.filter((label) => typeof label === "string");
  return found;
}

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
export function fields({ explains }) {
  const found = [];
  if (settings.mode === "own") found.push(["labels", JSON.stringify(settings.labels)]);
  else found.push(["labelset", settings.labelset]);
  if (settings.templates === OWN) found.push(["templates", JSON.stringify(ownTemplates())]);
  else if (settings.templates) found.push(["templates", settings.templates]);
  if (settings.topK) found.push(["top_k", settings.topK]);
  if (settings.threshold) found.push(["threshold", settings.threshold]);
  if (settings.multiLabel) found.push(["multi_label", "true"]);
  if (settings.abstain) found.push(["abstain", "true"]);
  if (settings.explain && explains) found.push(["explain", "true"]);
  return found;
}

// the server would take a single one without {} for the name of a set
function wrongTemplates() {
  const lines = ownTemplates();
  if (!lines.length) return "Write at least one template in the options.";
  const wrong = lines.find((line) => line.split("{}").length !== 2);
  return wrong === undefined ? "" : `Each template needs one {} for the word; “${wrong}” has not.`;
}

/** What is still missing before anything can be asked, in words; nothing: an empty text. */
export function missing() {
  return missingWords() || (settings.templates === OWN ? wrongTemplates() : "");
}

function missingWords() {
  if (settings.mode === "set") return settings.labelset ? "" : "Pick a label set.";
  if (settings.labels.length === 0) return "Type at least two words that it might be.";
  if (settings.labels.length === 1 && !settings.multiLabel && !settings.threshold && !settings.abstain) {
    return "One word alone always scores 100 %. Add another, or set a least score in the options.";
  }
  return "";
}
