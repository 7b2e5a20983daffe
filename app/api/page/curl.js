// The shell command that asks what the page asked. Pure: texts in, a text out.

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

/**
 * The line: `url` of the route, `fields` as pairs, and the picture as the name of a file, or as
 * the address of a `sample`, which the line then fetches itself.
 */
export function curlLine({ url, fields, file, sample, key }) {
  // the name of a variable: a key does not belong on a clipboard
  const header = key ? '-H "Authorization: Bearer $OPENVOCAB_API_KEY"' : "";
  const image = sample ? "-F image=@-" : `-F ${quoted(`image=@${fileName(file)}`)}`;
  const send = ["curl", header, image, ...fields.map(argument), quoted(url)];
  const line = send.filter(Boolean).join(" ");
  return sample ? `curl -s ${quoted(sample)} | ${line}` : line;
}
