// Whether the first bytes of a file are those of an image, before it is sent anywhere. Pure.

const STARTS = ["\u00ff\u00d8\u00ff", "GIF", "\u0089PNG", "II*\0", "MM\0*", "II+\0", "MM\0+"];
const BRANDS = ["avif", "avis", "heic", "heix", "heim", "heis", "hevc", "hevx", "mif1", "msf1"];
const LONGEST = 12;

/** Why the file is refused, in words; an image, or what cannot be read, gets an empty text. */
export async function refusal(file) {
  let head;
  try {
    head = String.fromCharCode(...new Uint8Array(await file.slice(0, LONGEST).arrayBuffer()));
  } catch {
    return ""; // gone or a folder: said where it is sent
  }
  if (!file.size) return `${file.name} is empty.`;
  return isImage(head) ? "" : `${file.name} is not an image. JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF and HEIC are.`;
}

function isImage(head) {
  return STARTS.some((start) => head.startsWith(start))
    || (head.startsWith("RIFF") && head.slice(8, 12) === "WEBP")
    || (head.startsWith("BM") && head.slice(6, 10) === "\0\0\0\0")
    || (head.slice(4, 8) === "ftyp" && BRANDS.includes(head.slice(8, 12)));
}
