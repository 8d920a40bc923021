// The page around the classifier: photos from files, and pictures of the camera.
import { PhotoClassifier, photoFrom, photoOf } from "./classifier.js";
import { addPhoto, at, element, onFiles, section } from "./shared.js";

async function answer(classifier, photo) {
  const started = performance.now();
  const predictions = await classifier.top(photo);
  return section(`${(performance.now() - started).toFixed(0)} ms`, predictions);
}

async function add(classifier, file) {
  const { answers, sections } = addPhoto(file);
  try {
    sections.append(await answer(classifier, await photoOf(file)));
  } catch (error) {
    answers.append(element("p", error.message, "bad"));
  }
}

// Classifies what the camera sees, one picture after the other, until the button is pressed again.
function watch(classifier) {
  const [button, video] = [at("camera"), at("video")];
  let stream = null;

  async function start() {
    const wish = { facingMode: "environment", width: { ideal: 1280 } };
    button.disabled = true;  // until it has an answer: a second click would ask again
    stream = await navigator.mediaDevices.getUserMedia({ video: wish }).finally(() => { button.disabled = false; });
    video.srcObject = stream;
    await video.play();
    button.textContent = "Stop the camera";
    at("live").hidden = false;
    while (stream) {
      at("seen").replaceChildren(await answer(classifier, photoFrom(video, video.videoWidth, video.videoHeight)));
      await new Promise(requestAnimationFrame);
    }
  }

  function stop() {
    for (const track of stream?.getTracks() ?? []) track.stop();
    stream = null;
    at("live").hidden = true;
    button.textContent = "Use the camera";
  }

  button.addEventListener("click", () => {
    at("error").textContent = "";
    if (stream) return stop();
    return start().catch((error) => { stop(); at("error").textContent = `camera: ${error.message}`; });
  });
  button.disabled = !navigator.mediaDevices;  // browsers give no camera to a page without HTTPS, but for localhost
  button.title = button.disabled ? "The camera needs HTTPS, or localhost." : "";
}

async function start() {
  at("about").textContent = "Loading the network ...";
  const classifier = await PhotoClassifier.load();
  const { name, labels } = classifier.facts;
  at("about").textContent = `${name}, ${labels.length} classes. It runs in this browser: no photo leaves it.`;
  onFiles((file) => add(classifier, file));
  watch(classifier);
}

start().catch((error) => { at("about").textContent = ""; at("error").textContent = error.message; });
