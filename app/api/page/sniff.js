// Whether the first bytes of a file are surely those of something else than a picture, before it is
// sent anywhere; the rest is for the server, which may read more than a browser knows. Pure.

const OTHERS = ["PK\u0003\u0004", "%PDF", "\u001f\u008b", "Rar!", "7z\u00bc\u00af", "ID3", "OggS", "\u001aE\u00df\u00a3"];
const VIDEOS = ["isom", "mp41", "mp42", "qt  ", "M4V ", "M4A ", "avc1"];
const LONGEST = 1024;

/** What may be sent. */
export const FORMATS = "JPEG, PNG, WebP, GIF, BMP, TIFF and AVIF are, and SVG, HEIC and others where the server reads them.";

/** Why the file is refused, in words; an image, or what cannot be read, gets an empty text. */
export async function refusal(file) {
  let head;
  try {
    head = String.fromCharCode(...new Uint8Array(await file.slice(0, LONGEST).arrayBuffer()));
  } catch {
    return ""; // gone or a folder: said where it is sent
  }
  if (!file.size) return `${file.name} is empty.`;
  return isNoPicture(head) ? `${file.name} is not an image.` : "";
}

function isNoPicture(head) {
  return OTHERS.some((start) => head.startsWith(start))
    || (head.slice(4, 8) === "ftyp" && VIDEOS.includes(head.slice(8, 12)))
    || (head.startsWith("RIFF") && ["AVI ", "WAVE"].includes(head.slice(8, 12)))
    || (isText(head) && !mayBeDrawing(head));
}

// bytes above ASCII are letters of UTF-8
function isText(head) {
  return ![...head].some((letter) => letter < " " && !"\t\n\f\r".includes(letter));
}

function mayBeDrawing(head) {
  const start = head.replace(/^\u00ef\u00bb\u00bf/, "").trimStart();
  return start.startsWith("<") && !/^<(!doctype\s+html|html|head|body)\b/i.test(start);
}
