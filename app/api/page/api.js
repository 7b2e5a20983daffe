// Talks to the server this page came from. Knows nothing of the page.

/** Where the API lives: beside the folder of this file, whatever path a proxy put before it. */
export const ROOT = new URL("..", import.meta.url);

const KEY = `openvocab:key:${ROOT.pathname}`;
let key = stored();

function stored() {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return "";
  }
}

/** Whether a key is sent. */
export const hasKey = () => key !== "";

/** Sends this key from now on; an empty one is forgotten. */
export function useKey(secret) {
  key = secret;
  try {
    if (key) sessionStorage.setItem(KEY, key);
    else sessionStorage.removeItem(KEY);
  } catch {
    // storage is forbidden here: the key lasts as long as this page
  }
}

/** A problem document (RFC 9457), or what stands for one where the server sent none. */
export class Problem extends Error {
  constructor({ title, detail = "", status = 0, field, limit, value, request_id: id, error_type: type }, retryAfter = null) {
    super(detail || title);
    Object.assign(this, { title, detail, status, field, limit, value, id, type, retryAfter });
  }

  /** Whether the server is still making what the request needs: the same one is answered later. */
  get isBuilding() {
    return ["labelset_building", "model_loading"].includes(this.type);
  }

  /** Whether no server answered at all, or only something before it. */
  get isUnreachable() {
    return this.status === 0 && !this.field;
  }

  /** The problem in one or two sentences. */
  get sentence() {
    if (!this.detail) return `${this.title}.`;
    const detail = this.detail[0].toUpperCase() + this.detail.slice(1);
    return `${this.title}. ${detail}${/[.!?]$/.test(detail) ? "" : "."}`;
  }
}

/** What the server answers: `data` (an object), `headers`, and `ms` until it was all here. */
export async function ask(path, options = {}) {
  const headers = new Headers(options.headers);
  if (key) headers.set("Authorization", `Bearer ${key}`);
  const begun = performance.now();
  let response;
  let data;
  try {
    response = await fetch(new URL(path, ROOT), { ...options, headers, cache: "no-store" });
    data = await read(response);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({
      title: "The server does not respond",
      detail: "is it running, and can this browser reach it?",
    });
  }
  if (!response.ok || typeof data !== "object") throw problemOf(response, data);
  return { data, headers: response.headers, ms: performance.now() - begun };
}

async function read(response) {
  const text = await response.text();
  if (!/[/+]json\b/.test(response.headers.get("Content-Type") ?? "")) return text;
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

function problemOf(response, data) {
  const wait = Number.parseInt(response.headers.get("Retry-After") ?? "", 10);
  const retryAfter = Number.isNaN(wait) ? null : wait;
  if (data && typeof data === "object" && data.title) return new Problem(data, retryAfter);
  if (response.ok) {
    return new Problem({
      title: "Something before the server answered",
      detail: "you may have been signed out; reload the page",
    });
  }
  const title = `The server answered ${response.status} ${response.statusText}`.trim();
  const detail = "there is no more in its answer; something between it and you may have written it";
  return new Problem({ title, detail, status: response.status }, retryAfter);
}

/** Milliseconds by stage from a Server-Timing header, in its order. */
export function stages(headers) {
  const found = new Map();
  for (const part of (headers.get("Server-Timing") ?? "").split(",")) {
    const [name, ...rest] = part.split(";").map((piece) => piece.trim());
    const spent = rest.find((piece) => piece.startsWith("dur="));
    if (name && spent) found.set(name, Number(spent.slice(4)));
  }
  return found;
}
