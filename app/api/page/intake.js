// Every way in which pictures come in: picked, dropped, pasted, samples.
// Knows nothing of what happens to them.

import { ROOT, ask } from "./api.js";
import { find, make, toast } from "./dom.js";

const NO_PICTURE = "There is no picture on the clipboard.";

/**
 * Sets up all of them; `take` gets files, and for a sample its `source` (an address) and `name`.
 * Samples whose name is among `first` come first.
 */
export function setUpIntake({ take, first }) {
  const files = find("files");
  find("drop").addEventListener("click", () => files.click());
  files.addEventListener("change", () => {
    take([...files.files]);
    files.value = ""; // so that the same file can be picked again
  });
  setUpDrop(take);
  setUpPaste(take);
  setUpSamples(take, first);
}

// the server lists what is in its folder, so a picture more needs no change here
async function setUpSamples(take, first) {
  try {
    const { data } = await ask("page/samples.json");
    // photographs first, then drawings of the words that are there already
    const place = (file) => (file.endsWith(".jpg") ? 0 : first.indexOf(named(file)) + 1 || Infinity);
    const sorted = data.toSorted((a, b) => Math.sign(place(a) - place(b)) || 0);
    find("samples").append(...sorted.map((file) => sample(file, take)));
    find("samples-section").hidden = !data.length;
  } catch {
    // without samples there are still pictures of one's own
  }
}

function setUpDrop(take) {
  const veil = find("veil");
  let depth = 0; // enter and leave come for every element that is passed
  const show = () => { veil.hidden = depth === 0; };
  const on = (name, act) => addEventListener(name, (event) => { if (isWanted(event)) act(event); });
  on("dragenter", (event) => {
    event.preventDefault();
    depth += 1;
    show();
  });
  on("dragleave", () => {
    depth = Math.max(0, depth - 1);
    show();
  });
  on("dragover", (event) => {
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
  });
  on("drop", (event) => {
    event.preventDefault(); // else the browser would open the picture instead of this page
    depth = 0;
    show();
    const { files } = event.dataTransfer;
    if (files.length) take([...files]);
    else takeAddress(event.dataTransfer.getData("text/uri-list"));
  });
}

// of a picture on another page some browsers give the address alone, which a field takes as text
function isWanted({ dataTransfer, target }) {
  const types = dataTransfer?.types ?? [];
  return types.includes("Files") || (types.includes("text/uri-list") && !target.matches?.("input, textarea"));
}

// what is elsewhere this page may not fetch
function takeAddress(address) {
  const sample = [...find("samples").querySelectorAll("img")].find(({ src }) => src === address);
  if (sample) sample.closest("button").click();
  else toast("That is a link, not a picture. Copy the picture and paste it here, or save it and drop the file.");
}

function setUpPaste(take) {
  addEventListener("paste", (event) => {
    const pasted = [...(event.clipboardData?.files ?? [])];
    // cells of a spreadsheet come as a text and as a picture of it
    const isField = event.target.matches?.("input, textarea");
    const isText = isField && event.clipboardData?.getData("text/plain");
    if (isText || event.defaultPrevented) return;
    if (pasted.length) {
      event.preventDefault();
      take(pasted);
    } else if (!isField) toast(NO_PICTURE);
  });
  const button = find("paste");
  button.hidden = !navigator.clipboard?.read;
  button.addEventListener("click", async () => {
    try {
      const found = await fromClipboard();
      if (found.length) take(found);
      else toast(NO_PICTURE);
    } catch {
      toast("The browser does not let this page read the clipboard; press Ctrl+V instead.");
    }
  });
}

async function fromClipboard() {
  const found = [];
  for (const item of await navigator.clipboard.read()) {
    const type = item.types.find((one) => one.startsWith("image/"));
    if (type) {
      found.push(new File([await item.getType(type)], `pasted.${type.slice(6)}`, { type }));
    }
  }
  return found;
}

// what a sample shows is the name of its file
const named = (file) => file.replace(/\.\w+$/, "").replaceAll(/[-_]/g, " ");

function sample(file, take) {
  const url = new URL(`page/samples/${file}`, ROOT).href;
  const name = named(file);
  const image = make("img", { src: url, alt: "", width: "56", height: "56", loading: "lazy" });
  const use = async () => {
    try {
      const response = await fetch(url);
      if (!response.ok) throw new TypeError(response.statusText);
      const blob = await response.blob();
      take([new File([blob], file, { type: blob.type })], { source: url, name });
    } catch {
      toast("The sample cannot be loaded; is the server running?");
    }
  };
  const button = make("button", { type: "button", title: name, "aria-label": `Sample: ${name}`, on: { click: use } }, image);
  return make("li", {}, button);
}
