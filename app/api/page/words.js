// Numbers and problems in words. Pure.

/** Whether the answer is "none of these", which somebody allowed. */
export function noneOfThese(reason) {
  return Boolean(reason) && reason.code !== "score_below_threshold";
}

/** A score from 0 to 1 as people read it. */
export function percent(score) {
  const value = 100 * score;
  if (value > 0 && value < 0.05) return "< 0.1 %";
  if (value < 100 && value > 99.95) return "> 99.9 %";
  return `${value.toFixed(1)} %`;
}

/** Milliseconds with two or three digits. */
export function milliseconds(ms) {
  if (ms >= 1000) return `${(ms / 1000).toFixed(2)} s`;
  return `${ms.toFixed(ms < 10 ? 1 : 0)} ms`;
}

/** The size of a file. */
export function bytes(count) {
  if (count < 1000) return `${count} B`;
  return count < 1e6 ? `${Math.round(count / 1000)} kB` : `${(count / 1e6).toFixed(1)} MB`;
}

/** One of something, or many. */
export const counted = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;

/** The results of an answer as pairs: the label set where there are several, and what is among it. */
export function resultsOf(answer) {
  const whole = answer.boxes?.[0] ?? answer;
  return whole.results ? Object.entries(whole.results) : [["", whole]];
}

/** The best words of an answer in one line. */
export function best(answer, count) {
  return resultsOf(answer).map(([, result]) => bestOf(result, count)).join("; ");
}

function bestOf({ predictions, reason }, count) {
  if (noneOfThese(reason)) return "none of these";
  if (!predictions.length) return "no word reached the minimum score";
  return predictions.slice(0, count).map(({ label, score }) => `${label} ${percent(score)}`).join(", ");
}

/** What a problem says beyond its sentence: field, limit, value, when to try again, id. */
export function facts(problem) {
  const found = [];
  if (problem.field) found.push(`field: ${problem.field}`);
  if (problem.limit !== undefined) found.push(`limit: ${problem.limit}`);
  if (problem.value !== undefined && problem.value !== null) found.push(`sent: ${problem.value}`);
  if (problem.retryAfter !== null) found.push(`try again in ${counted(problem.retryAfter, "second")}`);
  if (problem.id) found.push(`request: ${problem.id}`);
  return found;
}
