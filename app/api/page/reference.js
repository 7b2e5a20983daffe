// The API reference: openapi.json as a page to read. Texts stay texts.

import { ROOT, hasKey } from "./api.js";
import { KEY_HEADER, quoted } from "./code.js";
import { copy, find, make, toast } from "./dom.js";
import { setUpTheme } from "./look.js";

const METHODS = ["get", "post", "put", "patch", "delete"];
const PROBLEM = "application/problem+json";
let schemas = {};

/** Paragraphs, lists, code and strong text of Markdown, as far as descriptions use it. */
function prose(text = "") {
  const box = make("div", { class: "prose" });
  for (const block of text.trim().split(/\n\s*\n/)) {
    const lines = block.split("\n");
    const items = [];
    for (const line of lines) {
      if (/^[*-] /.test(line)) items.push(line.slice(2));
      else if (items.length && /^\s/.test(line)) items.push(`${items.pop()} ${line.trim()}`);
    }
    if (items.length) box.append(make("ul", {}, ...items.map((item) => make("li", {}, ...inline(item)))));
    else if (block) box.append(make("p", {}, ...inline(lines.join(" "))));
  }
  return box;
}

function inline(text) {
  return text.split(/(`[^`]+`|\*\*[^*]+\*\*)/).filter(Boolean).map((part) => {
    if (part.startsWith("`")) return make("code", { text: part.slice(1, -1) });
    return part.startsWith("**") ? make("strong", { text: part.slice(2, -2) }) : part;
  });
}

const nameOf = (reference) => reference.split("/").at(-1);
const resolved = (schema) => (schema?.$ref ? schemas[nameOf(schema.$ref)] ?? {} : schema ?? {});

/** The type of a schema in words; a named one is a link to it. */
function typeOf(schema) {
  if (!schema) return ["anything"];
  if (schema.$ref) return [make("a", { href: `#schema-${nameOf(schema.$ref)}`, text: nameOf(schema.$ref) })];
  const options = schema.anyOf ?? schema.oneOf;
  if (options) return options.flatMap((one, at) => [...(at ? [" or "] : []), ...typeOf(one)]);
  if (schema.allOf?.length === 1) return typeOf(schema.allOf[0]);
  if (schema.enum) return [schema.enum.map((value) => JSON.stringify(value)).join(" or ")];
  if (schema.const !== undefined) return [JSON.stringify(schema.const)];
  if (schema.type === "array") return ["list of ", ...typeOf(schema.items)];
  if (schema.format === "binary" || schema.contentMediaType) return ["file"];
  if (schema.type === "object" && typeof schema.additionalProperties === "object") return ["object of ", ...typeOf(schema.additionalProperties)];
  return [[schema.type ?? "anything"].flat().join(" or ")];
}

function limits(schema) {
  const known = [["minimum", "≥"], ["maximum", "≤"], ["minLength", "length ≥"], ["maxLength", "length ≤"], ["minItems", "items ≥"], ["maxItems", "items ≤"]];
  const texts = known.filter(([key]) => schema[key] !== undefined).map(([key, sign]) => `${sign} ${schema[key]}`);
  if (schema.default !== undefined && schema.default !== null) texts.push(`default: ${JSON.stringify(schema.default)}`);
  const [example] = schema.examples ?? (schema.example === undefined ? [] : [schema.example]);
  if (example !== undefined && example !== null) texts.push(`for example: ${short(example)}`);
  return texts.join(" · ");
}

function short(value) {
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return text.length > 90 ? `${text.slice(0, 88)}…` : text;
}

function property(name, schema, required, about) {
  const detail = limits({ ...(schema.anyOf?.find((one) => one.type !== "null") ?? {}), ...schema });
  return make("div", { class: "property" },
    make("dt", {}, make("code", { text: name }), ...(required ? [" ", make("span", { class: "required", text: "required" })] : []),
      make("span", { class: "type" }, ...typeOf(schema))),
    make("dd", {}, prose(about ?? schema.description ?? ""), ...(detail ? [make("p", { class: "detail", text: detail })] : [])));
}

function properties(schema) {
  const { properties: all = {}, required = [] } = resolved(schema);
  return make("dl", { class: "fields-table" }, ...Object.entries(all).map(([name, one]) => property(name, one, required.includes(name))));
}

function parametersOf(parameters) {
  const places = { path: "In the path", query: "In the query", header: "Headers" };
  return Object.entries(places).flatMap(([place, title]) => {
    const some = parameters.filter((one) => one.in === place);
    if (!some.length) return [];
    const list = make("dl", { class: "fields-table" }, ...some.map((one) => property(one.name, one.schema ?? {}, one.required, one.description)));
    const label = make("h4", { text: title });
    // the query repeats the fields of a body: folded, where there are many
    return some.length > 5 ? [make("details", {}, make("summary", { text: `${title} (${some.length})` }), list)] : [label, list];
  });
}

function bodyOf(body) {
  if (!body) return [];
  return Object.entries(body.content).flatMap(([type, { schema }], at) => {
    const parts = resolved(schema).properties ? properties(schema) : make("p", { class: "detail", text: resolved(schema).description ?? "The bytes of the file." });
    const named = schema?.$ref ? [" · ", make("a", { href: `#schema-${nameOf(schema.$ref)}`, text: nameOf(schema.$ref) })] : [];
    const box = make("details", {}, make("summary", {}, make("span", { text: `Body: ${type}` })), make("p", { class: "detail" }, "As ", make("code", { text: type }), ...named), parts);
    box.open = at === 0;
    return [box];
  });
}

function responsesOf(responses) {
  const items = Object.entries(responses).map(([status, { description, content = {} }]) => {
    const kinds = Object.entries(content).filter(([type]) => type !== PROBLEM);
    const shown = kinds.flatMap(([type, { schema }], at) => [at ? ", " : " · ", make("code", { text: type }), ...(schema?.$ref ? [" ", ...typeOf(schema)] : [])]);
    return [status, make("li", {}, make("code", { text: status }), make("span", {}, ...inline(description ?? ""), ...shown))];
  });
  const good = items.filter(([status]) => status < "400").map(([, item]) => item);
  const bad = items.filter(([status]) => status >= "400").map(([, item]) => item);
  return [
    make("h4", { text: "Responses" }),
    make("ul", { class: "responses" }, ...good),
    ...(bad.length ? [make("details", {}, make("summary", { text: `Problems (${bad.length})` }), make("ul", { class: "responses" }, ...bad))] : []),
  ];
}

/** A curl command that says how the route is called. */
function curlOf(method, path, { parameters = [], requestBody, security = [] }) {
  const example = (one) => one.example ?? one.schema?.examples?.[0] ?? one.schema?.example ?? "NAME";
  const filled = path.replace(/\{(\w+)\}/g, (_, name) => encodeURIComponent(example(parameters.find((one) => one.name === name) ?? {})));
  const url = quoted(new URL(filled.slice(1), ROOT).href);
  // a body makes it a POST
  const isUsual = method === (requestBody ? "post" : "get");
  const verb = isUsual ? "" : `-X ${method.toUpperCase()}`;
  const key = hasKey() && security.length ? KEY_HEADER : "";
  return ["curl", verb, key, requestBody && bodyArguments(requestBody.content, path), url].filter(Boolean).join(" ");
}

function bodyArguments(content, path) {
  const form = content["multipart/form-data"];
  if (form) return formArguments(resolved(form.schema), path);
  const type = Object.keys(content)[0];
  const value = jsonExample(content[type]);
  const data = type.includes("json") && value !== undefined ? `-d ${quoted(JSON.stringify(value))}` : "--data-binary @FILE";
  return `-H ${quoted(`Content-Type: ${type}`)} ${data}`;
}

// what a form needs, if not in each of its uses; a name that the path has is not repeated
const USUAL = ["name", "labels", "label"];

function formArguments({ properties: all = {}, required = [] }, path) {
  const wanted = Object.entries(all).filter(([name, one]) => (required.includes(name) || isFile(one) || USUAL.includes(name)) && !path.includes(`{${name}}`));
  return wanted.map(([name, one]) => {
    if (isFile(one)) return `-F ${name}=@cat.png`;
    const value = one.examples?.[0] ?? one.example ?? "VALUE";
    // one label for the one picture
    const text = Array.isArray(value) ? (name === "label" ? value[0] : value.join(",")) : value;
    return `-F ${quoted(`${name}=${text}`)}`;
  }).join(" ");
}

const isFile = (schema) => [schema, schema.items ?? {}, ...(schema.anyOf ?? [])].some((one) => one.format === "binary" || one.contentMediaType !== undefined);

function jsonExample({ example, examples, schema }) {
  const [first] = Object.values(examples ?? {});
  return example ?? first?.value ?? resolved(schema).examples?.[0] ?? resolved(schema).example;
}

function sample(line) {
  const button = make("button", { type: "button", class: "secondary", text: "Copy", on: { click: async () => {
    toast(await copy(line) ? "Copied." : "This browser does not let a page copy.");
  } } });
  return make("div", { class: "sample" }, make("pre", { tabindex: "0", "aria-label": "As a curl command", text: line }), button);
}

function route({ method, path, operation }) {
  const id = operation.operationId;
  const heading = `${id}-title`;
  return make("article", { class: "route", id, "aria-labelledby": heading },
    make("header", {}, make("h3", { id: heading, text: operation.summary }),
      make("span", { class: "path" }, make("span", { class: "method", "data-method": method, text: method.toUpperCase() }), path)),
    ...(operation.description ? [prose(operation.description)] : []),
    sample(curlOf(method, path, operation)),
    ...parametersOf(operation.parameters ?? []), ...bodyOf(operation.requestBody), ...responsesOf(operation.responses));
}

function schemaOf(name) {
  const schema = schemas[name];
  return make("article", { class: "route", id: `schema-${name}`, "aria-labelledby": `schema-${name}-title` },
    make("h3", { id: `schema-${name}-title`, text: name }), prose(schema.description), properties(schema));
}

function link(href, ...content) {
  return make("li", {}, make("a", { href }, ...content));
}

function show(api) {
  schemas = api.components?.schemas ?? {};
  find("about").replaceChildren(
    `openvocab ${api.info.version}. Errors are problem documents (RFC 9457). For generators: `,
    make("a", { href: new URL("openapi.json", ROOT).href, text: "openapi.json" }), " (OpenAPI 3.1).");
  const groups = new Map((api.tags ?? []).map(({ name }) => [name, []]));
  for (const [path, item] of Object.entries(api.paths)) {
    for (const method of METHODS.filter((one) => item[one])) {
      const operation = item[method];
      const tag = operation.tags?.[0] ?? "Other";
      groups.set(tag, [...(groups.get(tag) ?? []), { method, path, operation }]);
    }
  }
  const about = Object.fromEntries((api.tags ?? []).map(({ name, description }) => [name, description]));
  for (const [tag, routes] of groups) {
    if (!routes.length) continue;
    find("contents").append(make("h2", { text: tag }), make("ul", {}, ...routes.map(({ method, path, operation }) =>
      link(`#${operation.operationId}`, make("span", { class: "method", "data-method": method, text: method === "delete" ? "DEL" : method.toUpperCase() }), path))));
    find("routes").append(make("h2", { class: "tag", text: tag }), ...(about[tag] ? [prose(about[tag])] : []), ...routes.map(route));
  }
  find("contents").append(make("h2", { text: "Schemas" }), make("ul", {}, ...Object.keys(schemas).sort().map((name) => link(`#schema-${name}`, make("span"), name))));
  find("routes").append(make("h2", { class: "tag", text: "Schemas" }), ...Object.keys(schemas).sort().map(schemaOf));
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

function filter(text) {
  for (const item of document.querySelectorAll("#contents li")) item.hidden = !item.textContent.toLowerCase().includes(text);
  for (const heading of document.querySelectorAll("#contents h2")) heading.hidden = heading.nextElementSibling.querySelectorAll("li:not([hidden])").length === 0;
}

setUpTheme();
find("filter").addEventListener("input", (event) => filter(event.target.value.trim().toLowerCase()));
try {
  const response = await fetch(new URL("openapi.json", ROOT));
  if (!response.ok) throw new TypeError(response.statusText);
  show(await response.json());
} catch {
  find("about").textContent = "The description of the API cannot be loaded; is the server running?";
}
