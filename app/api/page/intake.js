// Every way in which pictures come: picked, dropped, pasted, samples.
// Knows nothing of what happens to them.

import { ROOT } from "./api.js";
import { find, make, toast } from "./dom.js";

export const SAMPLES = [
  "cat", "dog", "octopus", "banana", "pizza", "doughnut", "sunflower",
  "guitar", "umbrella", "key", "bicycle", "airplane", "rocket",
];

/** Sets up all of them; `take` gets files, and for a sample the address it is fetched from. */
export function setUpIntake({ take }) {
  const files = find("files");
  find("drop").addEventListener("click", () => files.click());
  files.addEventListener("change", () => {
    take([...files.files]);
    files.value = ""; // so that the same file can be picked again
  });
  setUpDrop(take);
  setUpPaste(take);
  find("samples").append(...SAMPLES.map((name) => sample(name, take)));
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

function sample(name, take) {
  const url = new URL(`page/samples/${name}.webp`, ROOT).href;
  const image = make("img", { src: url, alt: "", width: "64", height: "64" });
  const fetchIt = async () => {
    try {
      const response = await fetch(url);
      if (!response.ok) throw new TypeError(response.statusText);
      take([new File([await response.blob()], `${name}.webp`, { type: "image/webp" })], url);
    } catch {
      toast("The sample cannot be fetched; does the server still answer?");
    }
  };
  const button = make("button", { type: "button", title: name, "aria-label": `Sample: ${name}`, on: { click: fetchIt } }, image);
  return make("li", {}, button);
}
