// Sends each photo to every model of the server and shows the answers. All text goes through textContent: names of
// files and classes come from strangers.
const TOP = 3;
const at = (id) => document.getElementById(id);

function element(tag, text = "", className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  made.className = className;
  return made;
}

const percent = (share) => `${(100 * share).toFixed(1)} %`;

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

function show(model, predictions) {
  const section = element("section");
  section.append(element("h2", model));
  for (const { class: name, probability } of predictions) {
    const row = element("div", "", "row");
    row.append(element("span", name), element("span", percent(probability)));
    const bar = element("progress");
    bar.value = probability;
    bar.setAttribute("aria-label", name);
    section.append(row, bar);
  }
  return section;
}

async function add(file, models) {
  const item = element("li");
  const image = element("img");
  image.src = URL.createObjectURL(file);
  image.onload = () => URL.revokeObjectURL(image.src);
  image.onerror = () => image.remove();  // not a photo, or of a kind that the browser does not know
  image.alt = "";
  const answers = element("div", "", "answers");
  const sections = element("div", "", "models");
  answers.append(element("p", file.name, "name"), sections);
  item.append(image, answers);
  at("photos").prepend(item);
  try {
    const all = [];
    for (const model of models) {
      const predictions = await classify(file, model);
      sections.append(show(model, predictions));
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
  let last = Promise.resolve();
  const take = (files) => {
    for (const file of files) last = last.then(() => add(file, models));
  };
  at("files").addEventListener("change", (event) => take(event.target.files));
  const drop = at("drop");
  for (const kind of ["dragenter", "dragover"]) {
    document.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add("over"); });
  }
  document.addEventListener("dragleave", () => drop.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    take(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => take(event.clipboardData.files));
}

start().catch((error) => { at("error").textContent = error.message; });
