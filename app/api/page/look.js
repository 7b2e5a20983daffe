// Light and dark: the system's choice until somebody makes another. theme.js brings it back.

import { find } from "./dom.js";

/** Sets up the button. */
export function setUpTheme() {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const tell = () => find("theme").setAttribute("aria-pressed", String(isDark()));
  system.addEventListener("change", tell);
  find("theme").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try {
      localStorage.setItem("openvocab:theme", root.dataset.theme);
    } catch {
      // storage is forbidden here: it lasts as long as this page
    }
    tell();
  });
  tell();
}
