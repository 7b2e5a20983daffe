// Takes a picture with the camera. Knows nothing of what happens to it.

import { find } from "./dom.js";

const REASONS = {
  NotAllowedError: "The browser or its user did not allow the camera.",
  NotFoundError: "There is no camera.",
  NotReadableError: "The camera is in use by another program.",
};

/** Sets up the button: a live view where the browser has one, else the camera of the phone. */
export function setUpCamera({ take }) {
  const open = find("camera");
  const capture = find("capture");
  const live = Boolean(navigator.mediaDevices?.getUserMedia);
  // without https browsers give pages no live view, but a phone still opens its camera
  open.hidden = !live && !matchMedia("(pointer: coarse)").matches;
  open.addEventListener("click", () => (live ? view(take) : capture.click()));
  capture.addEventListener("change", () => {
    take([...capture.files]);
    capture.value = "";
  });
}

async function view(take) {
  const booth = find("booth");
  const video = find("booth-video");
  const shutter = find("booth-take");
  let stream = null;
  find("booth-error").textContent = "";
  shutter.disabled = true;
  shutter.onclick = async () => {
    take([await snapshot(video)]);
    booth.close();
  };
  find("booth-cancel").onclick = () => booth.close();
  booth.onclose = () => {
    for (const track of stream?.getTracks() ?? []) track.stop();
    video.srcObject = null;
  };
  booth.showModal();
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    if (!booth.open) {
      booth.onclose();
      return;
    }
    video.srcObject = stream;
    await video.play();
    shutter.disabled = false;
    shutter.focus();
  } catch (error) {
    find("booth-error").textContent = REASONS[error.name] ?? "The camera cannot be used.";
  }
}

async function snapshot(video) {
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  const blob = await new Promise((done) => { canvas.toBlob(done, "image/jpeg", 0.92); });
  const time = new Date().toTimeString().slice(0, 8).replaceAll(":", "");
  return new File([blob], `camera-${time}.jpg`, { type: "image/jpeg" });
}
