// Puts the page together: what is asked, who answers, and where problems are shown.

import { Problem, ask } from "./api.js";
import { Board } from "./board.js";
import { setUpCamera } from "./camera.js";
import { Chips } from "./chips.js";
import { copy, find, toast } from "./dom.js";
import { setUpIntake } from "./intake.js";
import { askForKey, offerKey, setUpKey } from "./key.js";
import { Picker, setUpSaving } from "./labelsets.js";
import { setUpTheme } from "./look.js";
import { aboutTemplates, listModels, listTemplates, showModel, showNoModel } from "./model.js";
import { EXAMPLES, OWN, areExamples, fields, isAlone, isLinked, link, missing, ownTemplates, save, settings } from "./settings.js";
import { counted } from "./words.js";

// answers of the server unless a request says how many
const USUAL_ANSWERS = 5;

// a pause in typing after which the question is asked
const PAUSE_MS = 250;

// fields with a place of their own for their errors
const CONTROLS = {
  labels: "label-input",
  labelset: "set-filter",
  templates: "templates",
  top_k: "top-k",
  threshold: "threshold",
  model: "model-choice",
  view: "view",
  coverage: "coverage",
  not: "others",
};
const IN_OPTIONS = ["templates", "top_k", "threshold", "model", "view", "coverage", "not"];

let known = { templates: { default: "…", sets: [] }, explains: false, alwaysAlone: false };
let timer = 0;

const board = new Board({ question, failed, answered: () => showDown(""), changed: show, heat });
const chips = new Chips({
  box: find("chips"),
  list: find("chip-list"),
  input: find("label-input"),
  labels: settings.labels,
  examples: areExamples(settings.labels),
  changed: (labels) => change({ labels: [...labels] }),
});
const picker = new Picker({
  chosen: settings.labelsets,
  several: settings.several,
  pick: (labelsets, several) => change({ labelsets, several }),
  edit: (labels) => {
    chips.replace(labels);
    change({ mode: "own" });
    find("label-input").focus();
  },
});

/** The question changed: remember it, show it, and ask again after a pause. */
function change(changes) {
  Object.assign(settings, changes);
  save();
  clearErrors();
  show();
  board.mark();
  clearTimeout(timer);
  timer = setTimeout(() => board.ask(), PAUSE_MS);
}

function question() {
  if (missing()) return null;
  const asked = fields(known);
  const { mode, labels, labelsets, topK, threshold, coverage, multiLabel, shares } = settings;
  return {
    fields: asked,
    key: JSON.stringify(asked),
    threshold,
    coverage,
    most: Number(topK) || USUAL_ANSWERS,
    words: mode === "own" ? labels.length : mode === "set" ? picker.size(labelsets) : 0,
    alone: (known.alwaysAlone ? !shares : multiLabel) || (mode === "own" && labels.length === 1),
    single: isAlone(known),
  };
}

function take(files, { source, name } = {}) {
  chips.commit(); // what is typed counts, even without Enter
  if (name) chips.suggest(name); // among the examples should be one that fits the sample
  board.take(files, source);
}

function failed(problem) {
  if (problem.status === 401) askForKey(problem);
  if (problem.isUnreachable) showDown(problem.sentence);
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

/** A server that does not answer: says so, with a button to try again; an empty text hides it. */
function showDown(text) {
  find("down").hidden = !text;
  find("down-text").textContent = text;
}

/** Shows the settings on all controls. */
function show() {
  const { mode, labels, templates, topK, threshold, coverage, view, model, multiLabel, shares, abstain, others } = settings;
  find("own").hidden = mode !== "own";
  find("set").hidden = mode !== "set";
  find("tags").hidden = mode !== "tags";
  find("coverage-field").hidden = mode !== "set";
  find("others-field").hidden = mode !== "own";
  document.querySelector(`input[name="mode"][value="${mode}"]`).checked = true;
  find("label-count").textContent = counted(labels.length, "word");
  find("labels-clear").hidden = find("save-open").hidden = !labels.length;
  find("own-templates").hidden = templates !== OWN;
  aboutTemplates(known.templates, templates, mode, labels[0]);
  const named = templates === OWN ? counted(ownTemplates().length, "own template") : templates;
  find("options-summary").textContent = [
    named || "default templates",
    `best ${topK || USUAL_ANSWERS}`,
    threshold && `score ≥ ${threshold}`,
    model,
    view && find("view").selectedOptions[0]?.textContent.toLowerCase(),
    mode === "set" && coverage && `right in ${coverage} %`,
    known.alwaysAlone ? shares && !(mode === "own" && labels.length === 1) && "shares of 100 %" : multiLabel && "each on its own",
    (abstain || (mode === "own" && others.trim())) && "or none of these",
  ].filter(Boolean).join(" · ");
  find("examples-hint").hidden = !areExamples(labels);
  find("intro").classList.toggle("sr", board.size > 0);
  document.body.classList.toggle("answering", board.size > 0);
  showEmpty();
}

function showEmpty() {
  const alone = isAlone(known);
  const reason = missing() || (alone ? "One word has nothing to be compared with, so only its similarity is shown." : "");
  find("empty").hidden = board.size > 0 && !reason;
  find("empty").classList.toggle("brief", board.size > 0);
  find("empty-text").textContent = board.size > 0 ? reason : "Drop a picture, or pick one of the samples.";
  find("alone").hidden = !alone || board.size === 0;
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
  for (const [id, name] of [["top-k", "topK"], ["threshold", "threshold"], ["template-lines", "ownTemplates"], ["coverage", "coverage"], ["others", "others"]]) {
    const control = find(id);
    control.value = settings[name];
    control.addEventListener("input", () => change({ [name]: control.value }));
  }
  for (const [id, name] of [["multi-label", "multiLabel"], ["shares", "shares"], ["abstain", "abstain"], ["explain", "explain"]]) {
    const control = find(id);
    control.checked = settings[name];
    control.addEventListener("change", () => change({ [name]: control.checked }));
  }
  find("alone").addEventListener("click", () => {
    find("multi-label").checked = true;
    change({ multiLabel: true });
    find("answers").focus();
  });
  find("copy-link").addEventListener("click", async () => {
    const address = link();
    toast(await copy(address) ? "The link is copied." : `This browser does not let a page copy: ${address}`);
  });
  find("down-retry").addEventListener("click", async () => {
    showDown("");
    if (await load()) board.askFailed();
  });
  // a sheet closes like a menu
  const sheet = find("model");
  addEventListener("click", (event) => { if (!sheet.contains(event.target)) sheet.open = false; });
  sheet.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !sheet.open) return;
    sheet.open = false;
    sheet.querySelector("summary").focus();
  });
  find("view").value = settings.view;
  for (const [id, name] of [["templates", "templates"], ["view", "view"], ["model-choice", "model"]]) {
    find(id).addEventListener("change", (event) => change({ [name]: event.target.value }));
  }
  find("model-choice").addEventListener("change", () => load());
}

/** Reads what the server has. False if that failed. */
async function load() {
  try {
    const [models, templates] = await Promise.all([ask("models"), ask("templates")]);
    const { explains } = models.data;
    const loaded = listModels(models.data, settings.model);
    if (!loaded.isChosen) settings.model = "";
    known = { templates: templates.data, explains, alwaysAlone: (loaded.info.logit_bias ?? null) !== null };
    showModel(loaded.info);
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    showNoModel(problem);
    if (problem.status === 401) askForKey(problem);
    else showDown(problem.sentence);
    return false;
  }
  offerKey();
  find("show-heat").hidden = !known.explains;
  find("alone-field").hidden = known.alwaysAlone;
  find("shares-field").hidden = !known.alwaysAlone;
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
  change({ mode: "set", labelsets: [name], several: false });
  picker.load();
}

// a link that is opened where the page is open already changes the address alone
addEventListener("hashchange", () => { if (isLinked()) location.reload(); });

setUpTheme();
setUpControls();
setUpKey({ load, accepted: () => board.askAll() });
setUpIntake({ take, first: EXAMPLES });
setUpCamera({ take });
setUpSaving({ definition, saved });
heat(settings.heat);
listTemplates(known.templates);
show();
load();
