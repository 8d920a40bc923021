// Sends each photo to every model of the server and shows the answers.
import { addPhoto, at, element, onFiles, section } from "./shared.js";

const TOP = 3;

async function ask(url, options) {
  const response = await fetch(url, options);
  const content = await response.json();
  if (!response.ok) throw new Error(content.error);
  return content;
}

// While the server is busy it says after how many seconds to try again.
async function classify(file, model) {
  for (let attempt = 0; ; attempt++) {
    const body = new FormData();
    body.append("image", file, file.name);
    const response = await fetch(`predict?top=${TOP}&model=${model}`, { method: "POST", body });
    const content = await response.json();
    if (response.ok) return content.results[0].predictions;
    if (response.status !== 503 || attempt === 5) throw new Error(content.error);
    await new Promise((done) => setTimeout(done, 1000 * Number(response.headers.get("Retry-After"))));
  }
}

async function add(file, models) {
  const { answers, sections } = addPhoto(file);
  try {
    const all = [];
    for (const model of models) {
      const predictions = await classify(file, model);
      sections.append(section(model, predictions));
      all.push(predictions[0].class);
    }
    if (new Set(all).size > 1) answers.append(element("p", "The models differ.", "warn"));
  } catch (error) {
    answers.append(element("p", error.message, "bad"));
  }
}

async function start() {
  const about = await ask("model");
  const models = about.models.map((model) => model.name);
  at("about").textContent = about.models.map((model) => `${model.name}: ${model.file}`).join(" · ");
  onFiles((file) => add(file, models));
}

start().catch((error) => { at("error").textContent = error.message; });
