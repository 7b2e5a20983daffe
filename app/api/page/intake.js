// Every way in which pictures come in: picked, dropped, pasted, samples.
// Knows nothing of what happens to them.

import { ROOT, ask } from "./api.js";
import { find, make, toast } from "./dom.js";

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
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  const show = () => { veil.hidden = depth === 0; };
  addEventListener("dragenter", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    depth += 1;
    show();
  });
  addEventListener("dragleave", (event) => {
    if (!hasFiles(event)) return;
    depth = Math.max(0, depth - 1);
    show();
  });
  addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
  });
  addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault(); // else the browser would open the picture instead of this page
    depth = 0;
    show();
    take([...event.dataTransfer.files]);
  });
}

function setUpPaste(take) {
  addEventListener("paste", (event) => {
    const pasted = [...(event.clipboardData?.files ?? [])];
    // cells of a spreadsheet come as a text and as a picture of it
    const isText = event.target.matches?.("input, textarea") && event.clipboardData?.getData("text/plain");
    if (!pasted.length || isText || event.defaultPrevented) return;
    event.preventDefault();
    take(pasted);
  });
  const button = find("paste");
  button.hidden = !navigator.clipboard?.read;
  button.addEventListener("click", async () => {
    try {
      const found = await fromClipboard();
      if (found.length) take(found);
      else toast("There is no picture on the clipboard.");
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
