// Puts the page together: what is asked, who answers, and where what is wrong is said.

import { Problem, ask } from "./api.js";
import { Board } from "./board.js";
import { setUpCamera } from "./camera.js";
import { Chips } from "./chips.js";
import { find } from "./dom.js";
import { setUpIntake } from "./intake.js";
import { askForKey, offerKey, setUpKey } from "./key.js";
import { Picker, setUpSaving } from "./labelsets.js";
import { setUpTheme } from "./look.js";
import { aboutTemplates, listTemplates, showModel, showNoModel } from "./model.js";
import { OWN, fields, missing, ownTemplates, save, settings } from "./settings.js";
import { counted } from "./words.js";

// what the server answers where nobody says how many
const USUAL_ANSWERS = 5;

// so long somebody may pause while he types
const PAUSE_MS = 250;

// the fields that have a place of their own for what is wrong with them
const CONTROLS = {
  labels: "label-input",
  labelset: "set-filter",
  templates: "templates",
  top_k: "top-k",
  threshold: "threshold",
};
const IN_OPTIONS = ["templates", "top_k", "threshold"];

let known = { templates: { default: "…", sets: [] }, explains: false, alwaysAlone: false };
let timer = 0;

const board = new Board({ question, failed, changed: show, heat });
const chips = new Chips({
  box: find("chips"),
  list: find("chip-list"),
  input: find("label-input"),
  labels: settings.labels,
  changed: (labels) => change({ labels: [...labels] }),
});
const picker = new Picker({
  chosen: settings.labelset,
  pick: (labelset) => change({ labelset }),
  edit: (labels) => {
    chips.replace(labels);
    change({ mode: "own" });
    find("label-input").focus();
  },
});

/** Something else is asked: remember it, show it, and ask anew after a pause. */
function change(changes) {
  Object.assign(settings, changes);
  save();
  clearErrors();
  show();
  clearTimeout(timer);
  timer = setTimeout(() => board.ask(), PAUSE_MS);
}

function question() {
  if (missing()) return null;
  const asked = fields(known);
  const { mode, labels, labelset, topK, threshold, multiLabel } = settings;
  return {
    fields: asked,
    key: JSON.stringify(asked),
    threshold,
    most: Number(topK) || USUAL_ANSWERS,
    words: mode === "own" ? labels.length : picker.size(labelset),
    alone: multiLabel || known.alwaysAlone || (mode === "own" && labels.length === 1),
  };
}

function take(files, source) {
  chips.commit(); // what is typed counts, even without Enter
  board.take(files, source);
  board.ask();
}

function failed(problem) {
  if (problem.status === 401) askForKey(problem);
  const place = CONTROLS[problem.field] && find(`${problem.field}-error`);
  if (!place) return;
  place.textContent = problem.sentence;
  find(CONTROLS[problem.field]).setAttribute("aria-invalid", "true");
  if (IN_OPTIONS.includes(problem.field)) find("options").open = true;
}

function clearErrors() {
  for (const [field, control] of Object.entries(CONTROLS)) {
    find(`${field}-error`).textContent = "";
    find(control).removeAttribute("aria-invalid");
  }
}

/** Shows what is asked, on all controls. */
function show() {
  const { mode, labels, templates, topK, threshold, multiLabel, abstain } = settings;
  find("own").hidden = mode !== "own";
  find("set").hidden = mode !== "set";
  document.querySelector(`input[name="mode"][value="${mode}"]`).checked = true;
  find("label-count").textContent = counted(labels.length, "word");
  find("labels-clear").hidden = find("save-open").hidden = !labels.length;
  find("own-templates").hidden = templates !== OWN;
  aboutTemplates(known.templates, templates, mode, labels[0]);
  const named = templates === OWN ? counted(ownTemplates().length, "own template") : templates;
  find("options-summary").textContent = [
    named || "default templates",
    `best ${topK || USUAL_ANSWERS}`,
    threshold && `from ${threshold}`,
    multiLabel && "each on its own",
    abstain && "or none of these",
  ].filter(Boolean).join(" · ");
  find("clear").hidden = !board.size;
  const reason = missing();
  find("empty").hidden = board.size > 0 && !reason;
  find("empty").classList.toggle("brief", board.size > 0);
  find("empty-text").textContent = board.size > 0 ? reason : "Drop a picture, or pick one of the samples.";
}

function heat(value) {
  settings.heat = value;
  save();
  find("cards").style.setProperty("--heat", value);
  for (const slider of document.querySelectorAll(".heat-box input")) slider.value = value;
}

function setUpControls() {
  for (const radio of document.querySelectorAll('input[name="mode"]')) {
    radio.addEventListener("change", () => {
      change({ mode: radio.value });
      if (radio.value === "set") picker.load();
    });
  }
  find("labels-clear").addEventListener("click", () => {
    chips.replace([]);
    find("label-input").focus();
  });
  for (const [id, name] of [["top-k", "topK"], ["threshold", "threshold"], ["template-lines", "ownTemplates"]]) {
    const control = find(id);
    control.value = settings[name];
    control.addEventListener("input", () => change({ [name]: control.value }));
  }
  for (const [id, name] of [["multi-label", "multiLabel"], ["abstain", "abstain"], ["explain", "explain"]]) {
    const control = find(id);
    control.checked = settings[name];
    control.addEventListener("change", () => change({ [name]: control.checked }));
  }
  find("templates").addEventListener("change", (event) => change({ templates: event.target.value }));
}

/** Reads what the server has. False if it did not say. */
async function load() {
  try {
    const [models, templates] = await Promise.all([ask("models"), ask("templates")]);
    const { explains, loaded } = models.data;
    known = { templates: templates.data, explains, alwaysAlone: loaded.logit_bias !== null };
    showModel(models.data);
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    showNoModel(problem);
    if (problem.status === 401) askForKey(problem);
    return false;
  }
  offerKey();
  find("why").hidden = !known.explains;
  listTemplates(known.templates);
  const names = [OWN, ...known.templates.sets.map(({ name }) => name)];
  if (!names.includes(settings.templates)) settings.templates = "";
  find("templates").value = settings.templates;
  show();
  if (settings.mode === "set") await picker.load();
  return true;
}

// a label set keeps the templates that were chosen for its labels
function definition() {
  const templates = settings.templates === OWN ? ownTemplates() : settings.templates;
  return { labels: settings.labels, ...(templates.length ? { templates } : {}) };
}

function saved(name) {
  picker.choose(name);
  find("save").hidden = true;
  find("save-open").setAttribute("aria-expanded", "false");
  change({ mode: "set", labelset: name });
  picker.load();
}

setUpTheme();
setUpControls();
setUpKey({ load, accepted: () => board.askAll() });
setUpIntake({ take });
setUpCamera({ take });
setUpSaving({ definition, saved });
heat(settings.heat);
listTemplates(known.templates);
show();
load();
