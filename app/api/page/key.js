// Asks for an API key where the server wants one. Knows nothing of what it opens.

import { hasKey, useKey } from "./api.js";
import { find, toast } from "./dom.js";

/** Sets up the form. `load` tells whether the server takes the key, `accepted` follows. */
export function setUpKey({ load, accepted }) {
  const field = find("key");
  find("key-open").addEventListener("click", () => showKey(find("key-panel").hidden));
  find("key-panel").addEventListener("submit", async (event) => {
    event.preventDefault();
    const secret = field.value.trim();
    if (!/^[\x21-\x7e]+$/.test(secret)) {
      refuseKey("A key has letters, digits and signs, and no spaces.");
      return;
    }
    useKey(secret);
    field.value = "";
    if (!(await load())) return;
    showKey(false);
    toast("The key is accepted.");
    accepted();
  });
  find("key-forget").addEventListener("click", () => {
    useKey("");
    showKey(true);
    toast("The key is forgotten.");
  });
}

function showKey(open) {
  const panel = find("key-panel");
  const opener = find("key-open");
  panel.hidden = !open;
  opener.hidden = false;
  opener.setAttribute("aria-expanded", String(open));
  find("key-forget").hidden = !hasKey();
  find("key-error").textContent = "";
  find("key").removeAttribute("aria-invalid");
  if (open) find("key").focus();
}

function refuseKey(text) {
  find("key-error").textContent = text;
  find("key").setAttribute("aria-invalid", "true");
}

/** The server wants a key, or another one. */
export function askForKey(problem) {
  const sent = hasKey();
  useKey(""); // one that is refused opens nothing later either
  if (find("key-panel").hidden || sent) showKey(true);
  if (sent) refuseKey(problem.sentence);
}

/** Shows the button for who has a key and may want to change it. */
export function offerKey() {
  if (hasKey()) find("key-open").hidden = false;
}
