// Sets the remembered theme before anything is painted. Knows nothing of the page.
// A plain script, because modules run only after the first paint.
(() => {
  let remembered = null;
  try {
    remembered = localStorage.getItem("openvocab:theme");
  } catch {
    // storage is forbidden here: the system's theme it is
  }
  if (remembered === "light" || remembered === "dark") {
    document.documentElement.dataset.theme = remembered;
  }
})();
