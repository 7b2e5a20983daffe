// Draws a heat map in colours. Knows nothing of pictures or labels.

// from cold to hot: red, green, blue, opacity. What is cold lies in the dark and what is hot is seen,
// so that it reads on a picture of any colour and without telling hues apart
const RAMP = [
  [14, 16, 38, 0.86],
  [58, 24, 84, 0.78],
  [176, 42, 92, 0.6],
  [248, 130, 40, 0.42],
  [255, 214, 110, 0.2],
];

/** Draws the PNG of a data URI, a grey one in colours; whether there is anything to be seen in it. */
export async function drawHeat(canvas, uri) {
  if (!uri.startsWith("data:image/png;base64,")) throw new TypeError("not a PNG in a data URI");
  const image = new Image();
  image.src = uri;
  await image.decode();
  canvas.width = image.naturalWidth;
  canvas.height = image.naturalHeight;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  if (!isGrey(pixels.data)) return true;
  const isHot = pixels.data.some((value, at) => at % 4 === 0 && value && pixels.data[at + 3]);
  paint(pixels.data);
  context.putImageData(pixels, 0, 0);
  return isHot;
}

function isGrey(data) {
  for (let at = 0; at < data.length; at += 4) {
    if (data[at] !== data[at + 1] || data[at] !== data[at + 2]) return false;
  }
  return true;
}

function paint(data) {
  for (let at = 0; at < data.length; at += 4) {
    // what is transparent is cold, whatever colour it would have
    const heat = (data[at] / 255) * (data[at + 3] / 255);
    const place = heat * (RAMP.length - 1);
    const low = RAMP[Math.floor(place)];
    const high = RAMP[Math.ceil(place)];
    const mixed = low.map((value, part) => value + (high[part] - value) * (place % 1));
    data.set([mixed[0], mixed[1], mixed[2], 255 * mixed[3]], at);
  }
}
