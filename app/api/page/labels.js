// From what somebody typed or pasted to labels. Pure: texts in, texts out.

/** The parts between commas; a part in double quotes may hold commas. The last may be unfinished. */
export function parts(text) {
  const found = [""];
  let inside = false;
  for (const letter of text) {
    const at = found.length - 1;
    if (letter === '"' && (inside || !found[at].trim())) inside = !inside;
    if (letter === "," && !inside) found.push("");
    else found[at] += letter;
  }
  return found;
}

/** A label without the white space and the quotes around it. */
export function label(part) {
  const text = part.trim();
  return /^".*"$/s.test(text) && text.length > 1 ? text.slice(1, -1).trim() : text;
}

/** The labels of a typed text. */
export const typed = (text) => parts(text).map(label).filter(Boolean);

/** The labels of a pasted list, one a line, or a row of a table; a line is taken as it is. */
export function listed(text) {
  return text.split(/[\r\n\t]+/).map((line) => line.trim()).filter(Boolean);
}

/** Whether a text is a list rather than something to type on with. */
export const isList = (text) => /[\r\n\t]/.test(text.trim());
