// What the page of `edgecls serve` and the one of `edgecls export --format web` share. All text goes through textContent:
// names of files and classes come from strangers.
export const at = (id) => document.getElementById(id);

export function element(tag, text = "", className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  made.className = className;
  return made;
}

const percent = (share) => `${(100 * share).toFixed(1)} %`;

// A heading, and under it a bar for each of [{class, probability}].
export function section(title, predictions) {
  const made = element("section");
  made.append(element("h2", title));
  for (const { class: name, probability } of predictions) {
    const row = element("div", "", "row");
    row.append(element("span", name), element("span", percent(probability)));
    const bar = element("progress");
    bar.value = probability;
    bar.setAttribute("aria-label", name);
    made.append(row, bar);
  }
  return made;
}

// Puts a photo at the top of the list, and gives the elements for its answers and for what goes wrong.
export function addPhoto(file) {
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
  return { answers, sections };
}

// Calls `add` with each file that is chosen, dropped or pasted, one after the other.
export function onFiles(add) {
  let last = Promise.resolve();
  const take = (files) => {
    for (const file of files) last = last.then(() => add(file));
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
