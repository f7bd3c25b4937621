// Classifies dropped files one after the other and shows each answer; without this script the form shows its JSON.
const form = document.getElementById("try"), answers = document.getElementById("answers"), said = document.getElementById("said");
const token = document.querySelector('meta[name="csrf-token"]')?.content;

function line(kind, text) {
  const made = document.createElement("p");
  made.className = kind;
  made.textContent = text;
  return made;
}

async function classify(file) {
  const card = document.createElement("li");
  card.append(line("", file.name), line("muted", "Looking…"));
  answers.prepend(card);
  try {
    const body = new FormData();
    body.append("file", file);
    const response = await fetch(form.action, { method: "POST", body, headers: token ? { "X-CSRF-Token": token } : {} });
    const answer = await response.json();
    if (!response.ok) throw new Error(`${answer.error.code}: ${answer.error.detail}`);
    const label = line(answer.prediction === "fractured" ? "label positive" : "label", answer.prediction);
    const number = document.createElement("span");
    number.className = "number";
    number.textContent = answer.probability.toFixed(3);
    label.append(number);
    card.replaceChildren(label, line("", file.name),
      line("muted", `Fractured from ${answer.threshold.toFixed(3)}, says ${answer.model.name} ${answer.model.version}. ${answer.notes.join("; ")} ${answer.disclaimer}`));
    if (answer.heatmap) {
      const picture = new Image();
      picture.src = answer.heatmap;
      picture.alt = "The radiograph under what speaks for a fracture";
      card.prepend(picture);
    }
    said.textContent = `${file.name}: ${answer.prediction}`;
  } catch (error) {
    card.replaceChildren(line("", file.name), line("bad", error.message));
    said.textContent = `${file.name}: ${error.message}`;
  }
}

async function all(files) { for (const file of [...files]) await classify(file); }

form.addEventListener("submit", (event) => { event.preventDefault(); all(form.elements.file.files); });
form.elements.file.addEventListener("change", () => { all(form.elements.file.files); });
for (const name of ["dragenter", "dragover"]) addEventListener(name, (event) => { event.preventDefault(); form.classList.add("over"); });
for (const name of ["dragleave", "drop"]) addEventListener(name, (event) => { event.preventDefault(); form.classList.remove("over"); });
addEventListener("drop", (event) => all(event.dataTransfer.files));
