"use strict";
// Without this script a page still shows everything, every scorer below the other.
const find = (id) => document.getElementById(id);
const root = document.documentElement;
const theme = find("theme");
theme.hidden = false;
theme.addEventListener("click", () => {
  const dark = getComputedStyle(root).colorScheme === "dark"
    || (root.dataset.theme === undefined && matchMedia("(prefers-color-scheme: dark)").matches);
  root.dataset.theme = dark ? "light" : "dark";
});

const exhibits = [...document.querySelectorAll(".exhibit")].map((element, index) => ({
  element,
  index,
  text: element.querySelector("h3").textContent.toLowerCase(),
  scores: (element.dataset.scores || "").split(";").map((row) => row.split(" ").map(Number)),
}));
const controls = find("controls");
let scorer = 0;

function arrange() {
  if (!controls) return;
  const words = find("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const category = find("category") ? find("category").value : "";
  const choice = find("choice") ? find("choice").value : "";
  const [model, sign] = find("order").value.split(" ").map(Number);
  const gain = (one) => one.scores[scorer][model] - one.scores[scorer][0];
  const order = sign ? (a, b) => sign * (gain(a) - gain(b)) || a.index - b.index : (a, b) => a.index - b.index;
  let shown = 0;
  for (const { element, text } of [...exhibits].sort(order)) {
    const fits = words.every((word) => text.includes(word))
      && (category === "" || element.dataset.category === category)
      && (choice === "" || element.dataset.choice === choice);
    element.hidden = !fits;
    shown += fits;
    element.parentElement.append(element);
  }
  find("count").textContent = `${shown} of ${exhibits.length}`;
  find("none").hidden = shown > 0;
}

function scoreBy(index) {
  scorer = index;
  document.querySelectorAll("[data-scorer]").forEach((element) => {
    element.hidden = Number(element.dataset.scorer) !== index;
  });
  arrange();
}

if (controls) {
  controls.hidden = false;
  controls.addEventListener("input", arrange);
  controls.addEventListener("submit", (event) => event.preventDefault());
}
if (find("scorer")) {
  find("scorer-choice").hidden = false;
  find("scorer").addEventListener("input", (event) => scoreBy(Number(event.target.value)));
}
scoreBy(0);

const zoom = find("zoom");
let open = null;
function show(exhibit, wanted) {
  const figures = [...exhibit.querySelectorAll("figure:has(img)")];
  const position = (wanted + figures.length) % figures.length;
  open = { exhibit, position };
  const image = figures[position].querySelector("img");
  const large = zoom.querySelector("img");
  large.src = image.src;
  large.alt = image.alt;
  find("zoom-title").textContent = exhibit.querySelector("h3").textContent;
  find("zoom-names").replaceChildren(...figures.map((figure, index) => {
    const name = document.createElement("button");
    const score = figure.querySelectorAll(".score")[scorer];
    name.type = "button";
    name.textContent = score ? `${figure.dataset.name}  ${score.textContent}` : figure.dataset.name;
    name.setAttribute("aria-pressed", String(index === position));
    name.addEventListener("click", () => show(exhibit, index));
    return name;
  }));
  if (!zoom.open) zoom.showModal();
  find("zoom-names").children[position].focus();
}
function step(by) {
  const visible = [...document.querySelectorAll(".exhibit:not([hidden]):has(img)")];
  const next = visible[visible.indexOf(open.exhibit) + by];
  if (next) show(next, open.position);
}
for (const { element } of exhibits) {
  element.querySelectorAll("button").forEach((button, index) => {
    button.addEventListener("click", () => show(element, index));
  });
}
zoom.addEventListener("keydown", (event) => {
  const moves = {
    ArrowLeft: () => show(open.exhibit, open.position - 1),
    ArrowRight: () => show(open.exhibit, open.position + 1),
    ArrowUp: () => step(-1),
    ArrowDown: () => step(1),
  };
  if (moves[event.key]) {
    event.preventDefault();
    moves[event.key]();
  }
});
zoom.addEventListener("click", (event) => {
  if (event.target === zoom) zoom.close();
});
document.addEventListener("keydown", (event) => {
  const typing = ["INPUT", "SELECT"].includes(document.activeElement.tagName);
  if (event.key === "/" && controls && !typing && !zoom.open) {
    event.preventDefault();
    find("search").focus();
  }
});
