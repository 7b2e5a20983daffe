// The request of a card as code: a shell command, Python, JavaScript. Pure: texts in, a text out.
//
// Each function takes `url` of the route, `fields` as pairs, the name of a `file` or the address of
// a `sample`, which the code then fetches itself, and whether a `key` is needed. The key itself
// does not belong on a clipboard: the code reads it from OPENVOCAB_API_KEY.

const PLAIN = /^[\w@%+=:,./-]+$/;
const SIMPLE_LABEL = /^[\p{L}\p{N}](?:[\p{L}\p{N} ._-]*[\p{L}\p{N}._-])?$/u;

/** One word of a POSIX shell, whatever is in it. */
export function quoted(text) {
  return PLAIN.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

// in -F a semicolon, a comma or a quote would end the name of the file
function fileName(name) {
  const path = name.startsWith("-") ? `./${name}` : name;
  if (!/["\\;,]|^\s|\s$/.test(path)) return path;
  return `"${path.replace(/["\\]/g, "\\$&")}"`;
}

// a list of harmless labels reads better with commas; anything else is sent as JSON
function argument([name, value]) {
  if (name === "labels") {
    const labels = JSON.parse(value);
    if (labels.length > 1 && labels.every((label) => SIMPLE_LABEL.test(label))) {
      return `-F ${quoted(`labels=${labels.join(",")}`)}`;
    }
  }
  // --form-string, because -F gives a meaning to @, < and ;
  return /^[\w.-]+$/.test(value)
    ? `-F ${name}=${value}`
    : `--form-string ${quoted(`${name}=${value}`)}`;
}

/** The argument of curl that sends the key. */
export const KEY_HEADER = '-H "Authorization: Bearer $OPENVOCAB_API_KEY"';

function curl({ url, fields, file, sample, key }) {
  const header = key ? KEY_HEADER : "";
  const image = sample ? "-F image=@-" : `-F ${quoted(`image=@${fileName(file)}`)}`;
  const send = ["curl", header, image, ...fields.map(argument), quoted(url)];
  const line = send.filter(Boolean).join(" ");
  return sample ? `curl -s ${quoted(sample)} | ${line}` : line;
}

// a string of JSON is one of Python and of JavaScript, too
const text = (value) => JSON.stringify(value);
const isList = (value) => value.startsWith("[");
const items = (value) => `[${JSON.parse(value).map(text).join(", ")}]`;

function python({ url, fields, file, sample, key }) {
  const lists = fields.some(([, value]) => isList(value));
  const imports = [lists && "import json", key && "import os", "", "import requests"];
  const data = fields.map(([name, value]) =>
    `    ${text(name)}: ${isList(value) ? `json.dumps(${items(value)})` : text(value)},`);
  const image = sample ? `requests.get(${text(sample)}).content` : `open(${text(file)}, "rb")`;
  return [
    ...imports.filter((line) => typeof line === "string"),
    "",
    `image = ${image}`,
    "fields = {",
    ...data,
    "}",
    "response = requests.post(",
    `    ${text(url)},`,
    '    files={"image": image},',
    "    data=fields,",
    ...(key ? ['    headers={"Authorization": f"Bearer {os.environ[\'OPENVOCAB_API_KEY\']}"},'] : []),
    ")",
    "response.raise_for_status()",
    ...pythonLoop(fields),
    "",
  ].join("\n").trimStart();
}

// the answer about a part of the picture, and that of several label sets, has a level more
const asksPart = (fields) => fields.some(([name]) => name === "boxes");
const asksSeveral = (fields) => fields.some(([name, value]) => name === "labelset" && value.includes(","));

function pythonLoop(fields) {
  const whole = `response.json()${asksPart(fields) ? '["boxes"][0]' : ""}`;
  const loop = (result) => [`for prediction in ${result}["predictions"]:`, '    print(prediction["label"], prediction["score"])'];
  if (!asksSeveral(fields)) return loop(whole);
  return [`for result in ${whole}["results"].values():`, ...loop("result").map((line) => `    ${line}`)];
}

function javascriptLoop(fields) {
  const whole = `(await response.json())${asksPart(fields) ? ".boxes[0]" : ""}`;
  const loop = (result) => `for (const { label, score } of ${result}.predictions) console.log(label, score);`;
  if (!asksSeveral(fields)) return [loop(whole)];
  return [`for (const result of Object.values(${whole}.results)) {`, `  ${loop("result")}`, "}"];
}

function javascript({ url, fields, file, sample, key }) {
  const image = sample ? `await (await fetch(${text(sample)})).blob()` : `await openAsBlob(${text(file)})`;
  const header = key ? ", headers: { Authorization: `Bearer ${process.env.OPENVOCAB_API_KEY}` }" : "";
  return [
    ...(sample ? [] : ['import { openAsBlob } from "node:fs";', ""]),
    "const form = new FormData();",
    `form.append("image", ${image});`,
    ...fields.map(([name, value]) =>
      `form.append(${text(name)}, ${isList(value) ? `JSON.stringify(${items(value)})` : text(value)});`),
    `const response = await fetch(${text(url)}, { method: "POST", body: form${header} });`,
    "if (!response.ok) throw new Error(await response.text());",
    ...javascriptLoop(fields),
    "",
  ].join("\n");
}

/** Each language with its name and how it writes a request. */
export const LANGUAGES = [
  { name: "curl", write: curl },
  { name: "Python", write: python },
  { name: "JavaScript", write: javascript },
];
