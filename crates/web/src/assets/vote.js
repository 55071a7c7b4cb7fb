import { get, post } from "./app.js";
import { zoomable } from "./zoom.js";

const find = (id) => document.getElementById(id);
const sides = { left: find("left"), right: find("right") };
const stage = find("stage");
const zoom = zoomable(stage);
const status = find("status");
const answers = [...document.querySelectorAll("[data-answer]")];
const ahead = new Map();
let shown = null;
let busy = true;
let seen = 0;
let since = null;
let last = null;
// Whether an image of the pair cannot be shown: nobody can say which is better.
let unseen = false;

// How long two images were looked at: the clock stands while the page is hidden.
function pauseClock() {
  if (since !== null) seen += performance.now() - since;
  since = null;
}
document.addEventListener("visibilitychange", () => {
  if (document.hidden) pauseClock();
  else if (!busy) since = performance.now();
});

let fading;
function say(text, bad = false) {
  status.textContent = text;
  status.classList.toggle("bad", bad);
  status.classList.toggle("shown", text !== "");
  clearTimeout(fading);
  if (text && !bad) fading = setTimeout(() => status.classList.remove("shown"), 1400);
}

// A server that is just started again answers the second time.
async function loads(source) {
  for (const wait of [0, 500, 1500]) {
    if (wait) await new Promise((resolve) => setTimeout(resolve, wait));
    const image = new Image();
    image.src = source;
    if (await image.decode().then(() => true, () => false)) return true;
  }
  return false;
}

function load(source) {
  if (!ahead.has(source)) ahead.set(source, loads(source));
  return ahead.get(source);
}

function minutes(seconds) {
  if (seconds < 90) return "about a minute";
  if (seconds < 5400) return `about ${Math.round(seconds / 60)} minutes`;
  return `about ${(seconds / 3600).toFixed(1)} hours`;
}

// Whoever presses buttons by keyboard finds the next pair's where the last one's were.
let focused = null;
function setBusy(value) {
  busy = value;
  if (value) focused = document.activeElement;
  answers.forEach((button) => { button.disabled = value || (unseen && button.dataset.answer !== "skip"); });
  if (!value && document.activeElement === document.body) focused?.focus();
}

async function show(data) {
  const [task] = data.tasks;
  last = data.last;
  const { done, left, seconds_left: secondsLeft } = data.progress;
  find("bar-done").max = Math.max(1, done + left);
  find("bar-done").value = done;
  const time = secondsLeft && left ? `, ${minutes(secondsLeft)} left` : "";
  find("progress").textContent = `${done} of ${done + left}${time}`;
  find("undo").disabled = last === null;
  find("main").hidden = !task;
  find("done").hidden = Boolean(task);
  find("undo-last").disabled = last === null;
  find("n-done").textContent = done === 1 ? "One vote." : `${done} votes.`;
  if (!task) { shown = null; return; }
  const wanted = new Set(data.tasks.flatMap(({ left: a, right: b }) => [a, b]));
  for (const source of ahead.keys()) if (!wanted.has(source)) ahead.delete(source);
  const isNew = !shown || shown.left !== task.left || shown.right !== task.right;
  const ask = document.querySelector(".ask");
  ask.classList.toggle("changed", Boolean(shown) && shown.question !== task.question);
  find("prompt").hidden = task.prompt === null;
  find("prompt").textContent = task.prompt ?? "";
  // A prompt that is longer than its place is scrolled by keyboard too.
  find("prompt").tabIndex = find("prompt").scrollHeight > find("prompt").clientHeight ? 0 : -1;
  find("question").textContent = task.question;
  if (isNew) {
    zoom.reset();
    stage.classList.add("waiting");
    const loaded = await Promise.all([load(task.left), load(task.right)]);
    unseen = !loaded.every(Boolean);
    if (unseen) loaded.forEach((one, index) => one || ahead.delete([task.left, task.right][index]));
    ["left", "right"].forEach((name, index) => {
      sides[name].classList.toggle("failed", !loaded[index]);
      sides[name].querySelector("img").src = task[name];
    });
    await Promise.all(["left", "right"].map((name) => sides[name].querySelector("img").decode().catch(() => {})));
    stage.classList.remove("waiting");
  }
  Object.values(sides).forEach((side) => side.classList.remove("chosen"));
  answers.forEach((button) => button.classList.remove("pressed"));
  shown = task;
  for (const { left: a, right: b } of data.tasks.slice(1)) { load(a); load(b); }
  seen = 0;
  since = document.hidden ? null : performance.now();
  setBusy(false);
  document.body.dataset.task = task.task;
  if (unseen) say("An image cannot be shown. Load this page again, or skip the pair.", true);
}

async function vote(answer) {
  if (busy || !shown || (unseen && answer !== "skip")) return;
  pauseClock();
  setBusy(true);
  sides[answer]?.classList.add("chosen");
  document.querySelector(`[data-answer="${answer}"]`).classList.add("pressed");
  const body = { task: shown.task, answer, seconds: seen / 1000 };
  const { status: code, data } = await post("/api/vote", body, (why) => say(why, true));
  await settled(code, data, code === 409 ? "Others decided this pair meanwhile." : "");
}

// Says which vote, so that asking again after an answer was lost takes no other one back.
async function undo() {
  if (busy && shown) return;
  if (last === null) return say("There is nothing to take back.");
  setBusy(true);
  const { status: code, data } = await post("/api/undo", { task: last }, (why) => say(why, true));
  await settled(code, data, "Taken back.");
}

async function settled(code, data, text) {
  if (data) {
    say(text);
    return show(data);
  }
  if (code === 401) return say("This link is not valid any more. Open the one you were sent.", true);
  say(`The server refuses (${code}). Load this page again.`, true);
}

answers.forEach((button) => button.addEventListener("click", () => vote(button.dataset.answer)));
find("undo").addEventListener("click", undo);
find("undo-last").addEventListener("click", undo);
find("zoom").addEventListener("click", zoom.toggle);
zoom.onchange((zoomed) => find("zoom").setAttribute("aria-pressed", String(zoomed)));
find("help").addEventListener("click", () => find("keys").showModal());

const KEYS = {
  ArrowLeft: () => vote("left"),
  ArrowRight: () => vote("right"),
  ArrowUp: () => vote("tie"),
  ArrowDown: () => vote("bad"),
  s: () => vote("skip"),
  u: undo,
  Backspace: undo,
  z: zoom.toggle,
  " ": zoom.toggle,
  "+": () => zoom.by(1.5),
  "=": () => zoom.by(1.5),
  "-": () => zoom.by(1 / 1.5),
  Escape: zoom.reset,
  "?": () => find("keys").showModal(),
};
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || find("keys").open) return;
  const action = KEYS[event.key] ?? KEYS[event.key.toLowerCase()];
  const { activeElement } = document;
  const onButton = event.key === " " && activeElement?.tagName === "BUTTON";
  const scrolls = activeElement === find("prompt") && (event.key === "ArrowUp" || event.key === "ArrowDown");
  // A key that is held down is one vote.
  if (!action || onButton || scrolls) return;
  event.preventDefault();
  if (!event.repeat) action();
});

get("/api/state").then(show, (error) => settled(Number(error.message) || 0, null, ""));
