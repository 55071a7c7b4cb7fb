import { get, post } from "./app.js";
import { zoomable } from "./zoom.js";

const find = (id) => document.getElementById(id);
const HEIGHT = 88;
const PART = 200;
const list = find("list");
const sizer = find("sizer");
const zoom = zoomable(find("stage"));
const parts = new Map();
const entries = new Map();
const undone = [];
// The set and list that this page is of, and the page itself: another set at this address has other images.
const { tag: ours } = document.querySelector("main").dataset;
const mark = `${ours}-${Date.now().toString(36)}`;
let total = 0;
let chosen = 0;
let generation = 0;

const filter = () => ({
  words: find("words").value,
  check: find("check")?.value ?? "",
  state: find("state").value,
  order: find("order")?.value ?? "",
});

function say(text, bad = false) {
  find("status").textContent = text;
  find("status").classList.toggle("bad", bad);
}

// The part of the list that a row is in, fetched once.
function part(number, again = false) {
  if (!parts.has(number)) {
    if (parts.size > 30) parts.delete(parts.keys().next().value);
    const asked = new URLSearchParams({ ...filter(), from: number * PART, again });
    parts.set(number, get(`/api/rows?${asked}`).catch((error) => { parts.delete(number); throw error; }));
  }
  return parts.get(number);
}
const row = async (index) => (await part(Math.floor(index / PART))).rows[index % PART];

const tag = (kind, text) => {
  const made = document.createElement("span");
  made.className = `tag ${kind}`;
  made.textContent = text;
  return made;
};
const WORDS = { keep: "kept", exclude: "excluded", swap: "swapped", tie: "tie" };

function fill(entry, data) {
  const { correction } = data;
  const swapped = correction?.do === "swap";
  const sides = swapped ? ["loser", "winner"] : ["winner", "loser"];
  const images = sides.map((side) => {
    const image = entry.querySelector(`img[data-side=${side}]`) ?? document.createElement("img");
    image.dataset.side = side;
    image.alt = "";
    const source = `/thumbnail/${data.position}/${side}?${mark}`;
    if (image.getAttribute("src") !== source) image.src = source;
    return image;
  });
  const text = document.createElement("div");
  const caption = document.createElement("p");
  caption.dir = "auto";
  caption.textContent = correction?.caption ?? data.caption;
  const tags = document.createElement("div");
  tags.className = "tags";
  if (correction) tags.append(tag(correction.do, WORDS[correction.do]));
  if (correction?.caption) tags.append(tag("edited", "caption"));
  for (const check of new Set(data.findings.map((finding) => finding.check))) tags.append(tag("warning", check));
  text.append(caption, tags);
  entry.className = `entry ${correction?.do ?? ""}`;
  entry.replaceChildren(...images, text);
}

// Only the rows that are seen are there.
function draw() {
  const first = Math.max(0, Math.floor(list.scrollTop / HEIGHT) - 6);
  const last = Math.min(total, Math.ceil((list.scrollTop + list.clientHeight) / HEIGHT) + 6);
  for (const [index, entry] of entries) {
    if (index < first || index >= last) { entry.remove(); entries.delete(index); }
  }
  const now = generation;
  for (let index = first; index < last; index += 1) {
    if (entries.has(index)) continue;
    const entry = document.createElement("div");
    entry.className = "entry";
    entry.id = `entry-${index}`;
    entry.style.top = `${index * HEIGHT}px`;
    entry.setAttribute("role", "option");
    entry.setAttribute("aria-posinset", index + 1);
    entry.setAttribute("aria-setsize", total);
    entry.setAttribute("aria-selected", String(index === chosen));
    entry.addEventListener("click", () => choose(index));
    entries.set(index, entry);
    sizer.append(entry);
    row(index).then((data) => { if (now === generation && data) fill(entry, data); }, () => {});
  }
}
let waiting = false;
list.addEventListener("scroll", () => {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; draw(); });
});
addEventListener("resize", draw);

async function search(again = true) {
  generation += 1;
  parts.clear();
  entries.forEach((entry) => entry.remove());
  entries.clear();
  const now = generation;
  const data = await part(0, again);
  // Somebody typed on.
  if (now !== generation) return;
  total = data.total;
  sizer.style.height = `${total * HEIGHT}px`;
  list.scrollTop = 0;
  counts(data);
  draw();
  await choose(0);
}

function counts({ said, changed }) {
  find("counts").textContent = `${said} decided, ${changed} changed`;
  find("found").textContent = total === 1 ? "1 pair" : `${total} pairs`;
}

function show(data) {
  const swapped = data.correction?.do === "swap";
  for (const side of ["winner", "loser"]) {
    const other = side === "winner" ? "loser" : "winner";
    const source = `/image/${data.position}/${swapped ? other : side}?${mark}`;
    const image = find(side).querySelector("img");
    if (image.getAttribute("src") !== source) image.src = source;
  }
  find("caption").value = data.correction?.caption ?? data.caption;
  find("note").value = data.correction?.note ?? "";
  find("findings").replaceChildren(...data.findings.map(({ check, side, detail }) => {
    const item = document.createElement("li");
    item.textContent = `${check}${side ? ` (${side})` : ""}: ${detail}`;
    return item;
  }));
  find("findings").tabIndex = find("findings").scrollHeight > find("findings").clientHeight ? 0 : -1;
  document.querySelectorAll("[data-action]").forEach((button) => {
    button.setAttribute("aria-pressed", String(button.dataset.action === data.correction?.do));
  });
  const sure = data.soft_label === null ? "" : `, ${Math.round(100 * data.soft_label)}% sure`;
  const margins = data.margins.map(([scorer, margin]) => `, ${scorer} ${margin < 0 ? "\u2212" : "+"}${Math.abs(margin).toPrecision(3)}`).join("");
  say(`${data.place}${sure}${margins}`);
}

async function choose(index) {
  if (total === 0) { say("No pair fits."); return; }
  chosen = Math.min(Math.max(0, index), total - 1);
  entries.forEach((entry, at) => entry.setAttribute("aria-selected", String(at === chosen)));
  list.setAttribute("aria-activedescendant", `entry-${chosen}`);
  const [top, bottom] = [chosen * HEIGHT, (chosen + 1) * HEIGHT];
  if (top < list.scrollTop) list.scrollTop = top;
  else if (bottom > list.scrollTop + list.clientHeight) list.scrollTop = bottom - list.clientHeight;
  draw();
  const now = chosen;
  const data = await row(now);
  // Somebody went on.
  if (now !== chosen) return;
  if (data) { zoom.reset(); show(data); document.body.dataset.position = data.position; }
  if (now + 1 < total) row(now + 1).then((next) => {
    for (const side of ["winner", "loser"]) new Image().src = `/image/${next.position}/${side}?${mark}`;
  }, () => {});
}

// The row as it stands now, wherever it is shown.
async function stands(position, { row: { correction }, ...counted }) {
  counts(counted);
  for (const [number, loading] of parts) {
    const rows = (await loading.catch(() => null))?.rows ?? [];
    const at = rows.findIndex((one) => one.position === position);
    if (at < 0) continue;
    const index = number * PART + at;
    const data = rows[at];
    data.correction = correction;
    if (entries.has(index)) fill(entries.get(index), data);
    if (index === chosen) show(data);
    return index;
  }
  return null;
}

async function send({ position, place, correction: before }, correction, keep = true) {
  const body = { position, tag: ours, before, ...correction };
  const { status, data, text } = await post("/api/correct", body, (why) => say(why, true));
  if (data === null) { say(`Not saved: ${text.trim() || `the server refuses (${status})`}.`, true); return null; }
  if (keep && status === 200) undone.push({ position, place, before, correction: data.row.correction });
  const index = await stands(position, data);
  if (status === 409) { say("Another page decided about this pair meanwhile. Look again.", true); return null; }
  return { index };
}

// What is typed belongs to the decision.
function texts(data) {
  const caption = find("caption").value;
  return { ...(caption !== data.caption && { caption }), ...(find("note").value && { note: find("note").value }) };
}

// One after the other: each is about the pair that is shown then.
let deciding = Promise.resolve();
const then = (what) => { deciding = deciding.then(what, what); };
const isShown = (data) => data && document.body.dataset.position === String(data.position);

async function decide(action) {
  const index = chosen;
  const data = await row(index);
  if (!isShown(data)) return;
  if (await send(data, { do: action, ...texts(data) })) await choose(index + 1);
}

async function edited() {
  const data = await row(chosen);
  if (!isShown(data)) return;
  const { caption, note } = data.correction ?? {};
  const typed = texts(data);
  if (typed.caption === caption && typed.note === note) return;
  await send(data, { do: data.correction?.do ?? "keep", ...typed });
}

async function undo() {
  const last = undone.pop();
  if (!last) { say("There is nothing to undo."); return; }
  const sent = await send(last, last.before ?? { do: "open" }, false);
  if (!sent) return;
  if (sent.index !== null) await choose(sent.index);
  say(`Undone: ${last.place}.`);
}

document.querySelectorAll("[data-action]").forEach((button) => button.addEventListener("click", () => then(() => decide(button.dataset.action))));
find("caption").addEventListener("change", () => then(edited));
find("note").addEventListener("change", () => then(edited));
let typing;
find("filter").addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(search, 150); });
find("filter").addEventListener("submit", (event) => event.preventDefault());
find("help").addEventListener("click", () => find("keys").showModal());

const focus = (id) => () => find(id).focus();
const KEYS = {
  ArrowUp: () => choose(chosen - 1),
  ArrowDown: () => choose(chosen + 1),
  PageUp: () => choose(chosen - 8),
  PageDown: () => choose(chosen + 8),
  Home: () => choose(0),
  End: () => choose(total - 1),
  k: () => then(() => decide("keep")),
  x: () => then(() => decide("exclude")),
  s: () => then(() => decide("swap")),
  t: () => then(() => decide("tie")),
  c: focus("caption"),
  n: focus("note"),
  u: () => then(undo),
  z: zoom.toggle,
  "/": focus("words"),
  "?": () => find("keys").showModal(),
};
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || find("keys").open) return;
  const typing = event.target.closest("textarea, input, select");
  if (typing) {
    if (event.key === "Escape" || (event.key === "Enter" && event.target.id !== "words")) { event.preventDefault(); list.focus(); }
    return;
  }
  const action = KEYS[event.key] ?? KEYS[event.key.toLowerCase()];
  if (!action) return;
  event.preventDefault();
  // A key that is held down goes on, and decides once.
  if (!event.repeat || event.key.startsWith("Arrow") || event.key.startsWith("Page")) action();
});

search(false).then(() => list.focus());
