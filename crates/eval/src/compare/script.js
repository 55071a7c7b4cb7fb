"use strict";
// Without this script the page still shows everything, every scorer below the other.
const root = document.documentElement;
const find = (id) => document.getElementById(id);
const theme = find("theme");
theme.hidden = false;
theme.addEventListener("click", () => {
  const dark = getComputedStyle(root).colorScheme === "dark"
    || (root.dataset.theme === undefined && matchMedia("(prefers-color-scheme: dark)").matches);
  root.dataset.theme = dark ? "light" : "dark";
});

const duels = [...document.querySelectorAll(".duel")].map((element, index) => ({
  element,
  index,
  text: element.querySelector("h3").textContent.toLowerCase(),
  scores: element.dataset.scores.split(";").map((row) => row.split(" ").map(Number)),
}));
const controls = find("controls");
let scorer = 0;

function arrange() {
  if (!controls) return;
  const words = find("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const category = find("category") ? find("category").value : "";
  const choice = find("choice").value;
  const [model, sign] = find("order").value.split(" ").map(Number);
  const gain = (duel) => duel.scores[scorer][model] - duel.scores[scorer][0];
  const order = sign ? (a, b) => sign * (gain(a) - gain(b)) || a.index - b.index : (a, b) => a.index - b.index;
  let shown = 0;
  for (const duel of [...duels].sort(order)) {
    const data = duel.element.dataset;
    const fits = words.every((word) => duel.text.includes(word))
      && (category === "" || data.category === category)
      && (choice === "" || data.choice === choice);
    duel.element.hidden = !fits;
    shown += fits;
    duel.element.parentElement.append(duel.element);
  }
  find("count").textContent = `${shown} of ${duels.length}`;
  find("none").hidden = shown > 0;
}

function judgeBy(index) {
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
  find("judge-choice").hidden = false;
  find("scorer").addEventListener("input", (event) => judgeBy(Number(event.target.value)));
}
judgeBy(0);

const zoom = find("zoom");
let open = null;
function show(duel, model) {
  const figures = [...duel.querySelectorAll("figure")];
  const position = (model + figures.length) % figures.length;
  open = { duel, position };
  const image = figures[position].querySelector("img");
  const large = zoom.querySelector("img");
  large.src = image.src;
  large.alt = image.alt;
  find("zoom-prompt").textContent = duel.querySelector("h3").textContent;
  find("zoom-names").replaceChildren(...figures.map((figure, index) => {
    const name = document.createElement("button");
    const score = figure.querySelectorAll(".score")[scorer].textContent;
    name.type = "button";
    name.textContent = `${figure.querySelector("figcaption").firstChild.nextSibling.textContent}  ${score}`;
    name.setAttribute("aria-pressed", String(index === position));
    name.addEventListener("click", () => show(duel, index));
    return name;
  }));
  if (!zoom.open) zoom.showModal();
  find("zoom-names").children[position].focus();
}
function step(by) {
  const visible = [...document.querySelectorAll(".duel:not([hidden])")];
  const next = visible[visible.indexOf(open.duel) + by];
  if (next) show(next, open.position);
}
for (const { element } of duels) {
  element.querySelectorAll("button").forEach((button, index) => {
    button.addEventListener("click", () => show(element, index));
  });
}
zoom.addEventListener("keydown", (event) => {
  const moves = {
    ArrowLeft: () => show(open.duel, open.position - 1),
    ArrowRight: () => show(open.duel, open.position + 1),
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
