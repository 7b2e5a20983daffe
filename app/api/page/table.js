// The answers as a table: one line a prediction, or one with the error or why there is none. Pure: cards in, a text out.

import { resultsOf } from "./words.js";

const HEAD = ["file", "label", "score", "similarity", "reason", "error"];

/** The answers of `cards` as CSV (RFC 4180); a picture without an answer has a line, too. */
export function csvOf(cards) {
  // a column more where there are several label sets
  const several = cards.some(({ answer }) => answer && resultsOf(answer).length > 1);
  const width = HEAD.length + several;
  const table = [[...HEAD, "labelset"], ...cards.flatMap(lines)];
  return table.map((line) => line.slice(0, width).map(cell).join(",")).join("\r\n") + "\r\n";
}

function lines({ file, answer, problem }) {
  if (problem || !answer) return [[file.name, "", "", "", "", problem ? problem.sentence : "", ""]];
  return resultsOf(answer).flatMap(([name, { predictions, reason }]) => (predictions.length
    ? predictions.map(({ label, score, similarity }) => [file.name, label, score, similarity, "", "", name])
    : [[file.name, "", "", "", reason?.code ?? "", "", name]]));
}

function cell(value) {
  // a spreadsheet would run a text that starts with one of these; a number may start with a minus
  const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
  return /[",\r\n]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
