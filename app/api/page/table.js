// The answers as a table: one line a prediction, or one with the error. Pure: cards in, a text out.

const HEAD = ["file", "label", "score", "similarity", "error"];

/** The answers of `cards` as CSV (RFC 4180); a picture without an answer has a line, too. */
export function csvOf(cards) {
  return [HEAD, ...cards.flatMap(lines)].map((line) => line.map(cell).join(",")).join("\r\n") + "\r\n";
}

function lines({ file, answer, problem }) {
  const predictions = problem ? [] : answer?.predictions ?? [];
  if (!predictions.length) return [[file.name, "", "", "", problem ? problem.sentence : ""]];
  return predictions.map(({ label, score, similarity }) => [file.name, label, score, similarity, ""]);
}

function cell(value) {
  // a spreadsheet would run a text that starts so; a number may start with a minus
  const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
  return /[",\r\n]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
