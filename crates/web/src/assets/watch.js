const find = (id) => document.getElementById(id);
const svg = (name, attributes = {}, text) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
};
const make = (name, attributes = {}, ...children) => {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
};

const carried = find("data") ? JSON.parse(find("data").textContent) : null;
const runs = [];
const color = (index) => `c${(index % 6) + 1}`;
const number = (value) => (typeof value === "number" ? value : value === null || value === undefined ? NaN : Number(value));
const short = (value) => (!Number.isFinite(value) ? "\u2013" : Math.abs(value) >= 1000 || (Math.abs(value) < 1e-3 && value !== 0) ? value.toExponential(2) : value.toPrecision(4));

// Each chart: its lines from what a run says, at steps or at validations.
const step = (take) => (run) => run.steps.map((one) => [one.step, number(take(one))]);
const at = (take) => (run) => run.validations.map((one) => [one.step, number(take(one))]);
const CHARTS = [
  { title: "Loss", lines: [["", step((s) => s.loss)]] },
  { title: "Accuracy on held-out pairs", lines: [["", at((v) => v.implicit_accuracy)]], percent: true, band: [at((v) => v.accuracy_low), at((v) => v.accuracy_high)], reference: 0.5 },
  { title: "Drift on held-out pairs", lines: [["winner", at((v) => v.winner_error - v.ref_winner)], ["loser", at((v) => v.loser_error - v.ref_loser)]], reference: 0 },
  { title: "Drift in training", lines: [["winner", step((s) => s.winner_error - s.ref_winner)], ["loser", step((s) => s.loser_error - s.ref_loser)]], reference: 0 },
  { title: "Accuracy in training", lines: [["", step((s) => s.implicit_accuracy)]], percent: true, reference: 0.5 },
  { title: "Margin", lines: [["training", step((s) => s.margin)], ["held out", at((v) => v.margin)]], reference: 0 },
  { title: "Margin by timesteps", lines: ["least noise", "second quarter", "third quarter", "most noise"].map((name, index) => [name, step((s) => s.margin_by_quarter?.[index])]), reference: 0 },
  { title: "Length of outputs", lines: [["model", step((s) => s.prediction_norm)], ["reference", step((s) => s.ref_norm)]] },
  { title: "Gradient norm", lines: [["", step((s) => s.grad_norm)]] },
  { title: "Learning rate", lines: [["", step((s) => s.lr)]], exact: true },
  { title: "Pairs per second", lines: [["", step((s) => s.pairs_per_second)]] },
];
const [W, H, LEFT, RIGHT, TOP, BOTTOM] = [440, 220, 52, 8, 10, 24];
const DASHES = ["", "second", "third", "fourth"];
const MARKS = ["\u2501", "\u254d", "\u2505", "\u2509"];

function smoothed(points, reach) {
  if (reach === 0) return points;
  const sums = [0];
  points.forEach(([, y]) => sums.push(sums.at(-1) + y));
  return points.map(([x], index) => {
    const from = Math.max(0, index - reach);
    const to = Math.min(points.length, index + reach + 1);
    return [x, (sums[to] - sums[from]) / (to - from)];
  });
}
// At most a point for each pixel.
function thinned(points) {
  const every = Math.ceil(points.length / (W * 2));
  return every <= 1 ? points : points.filter((_, index) => index % every === 0 || index === points.length - 1);
}
function ticks(low, high) {
  const rough = (high - low) / 4 || 1;
  const size = 10 ** Math.floor(Math.log10(rough));
  const width = [1, 2, 5, 10].map((factor) => factor * size).find((value) => value >= rough);
  const found = [];
  for (let value = Math.ceil(low / width) * width; value <= high + width * 1e-6; value += width) found.push(Math.abs(value) < width * 1e-6 ? 0 : value);
  return found;
}
const label = (value, percent) => (percent ? `${Math.round(100 * value)}%` : Math.abs(value) >= 1e4 || (value !== 0 && Math.abs(value) < 1e-3) ? value.toExponential(1).replace(".0e", "e") : String(Number(value.toPrecision(3))));
const path = (points, x, y) => points.map(([a, b], index) => `${index ? "L" : "M"}${x(a).toFixed(1)} ${y(b).toFixed(1)}`).join("");

const figures = CHARTS.map((chart) => {
  const readout = make("span");
  const drawing = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img" });
  const figure = make("figure", {}, make("figcaption", {}, chart.title, readout), drawing);
  find("charts").append(figure);
  const made = { chart, figure, drawing, readout, drawn: [], x: null };
  drawing.addEventListener("pointermove", (event) => {
    const box = drawing.getBoundingClientRect();
    figures.forEach((other) => point(other, ((event.clientX - box.left) / box.width) * W));
  });
  drawing.addEventListener("pointerleave", () => figures.forEach((other) => point(other, null)));
  return made;
});

function point(made, px) {
  made.drawing.querySelector(".cursor")?.remove();
  if (px === null || made.drawn.length === 0) { made.readout.textContent = last(made); return; }
  const wanted = made.back(px);
  const values = made.drawn.map(({ name, points }) => {
    const nearest = points.reduce((best, one) => (Math.abs(one[0] - wanted) < Math.abs(best[0] - wanted) ? one : best));
    return [name, nearest];
  });
  const [, [x]] = values[0];
  made.drawing.append(svg("path", { class: "cursor", d: `M${made.x(x)} ${TOP}V${H - BOTTOM}` }));
  made.readout.textContent = `step ${x}: ${values.map(([name, [, y]]) => `${name} ${value(made, y)}`.trim()).join(", ")}`;
}
const value = ({ chart }, y) => (chart.percent ? `${(100 * y).toFixed(1)}%` : short(y));
const last = (made, mark = true) => made.drawn.slice(0, 4).map(({ name, points, dash }) => `${mark && made.chart.lines.length > 1 ? `${MARKS[DASHES.indexOf(dash)]} ` : ""}${name} ${value(made, points.at(-1)[1])}`.trim()).join(", ");

function draw(made) {
  const { chart, figure, drawing } = made;
  const reach = chart.exact ? 0 : Number(find("smooth").value);
  const shown = runs.filter((run) => run.shown);
  const finite = ([, y]) => Number.isFinite(y);
  made.drawn = [];
  const bands = [];
  for (const run of shown) {
    chart.lines.forEach(([name, take], index) => {
      const raw = take(run).filter(finite);
      if (raw.length === 0) return;
      const dense = raw.length > 60;
      made.drawn.push({ name: [shown.length > 1 ? run.name : "", name].filter(Boolean).join(" "), raw, points: dense ? smoothed(raw, reach) : raw, dense: dense && reach > 0, run, dash: DASHES[index] });
    });
    if (chart.band) {
      const [low, high] = chart.band.map((take) => take(run).filter(finite));
      if (low.length) bands.push({ run, outline: [...low, ...high.reverse()] });
    }
  }
  figure.hidden = made.drawn.length === 0;
  if (figure.hidden) return;
  const xs = made.drawn.flatMap(({ raw }) => [raw[0][0], raw.at(-1)[0]]);
  const end = Math.max(1, ...xs);
  let [low, high] = [Infinity, -Infinity];
  const see = (y) => { if (y < low) low = y; if (y > high) high = y; };
  for (const { raw, points, dense } of made.drawn) {
    const ys = (dense ? points : raw).map(([, y]) => y).sort((a, b) => a - b);
    // A few outliers must not press all others flat.
    see(ys[Math.floor(ys.length * 0.005)]);
    see(ys[Math.ceil(ys.length * 0.995) - 1]);
  }
  if (chart.reference !== undefined) see(chart.reference);
  bands.forEach(({ outline }) => outline.forEach(([, y]) => see(y)));
  const room = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
  [low, high] = [low - room, high + room];
  const x = (a) => LEFT + ((W - LEFT - RIGHT) * a) / end;
  const y = (b) => Math.min(H, Math.max(0, H - BOTTOM - ((H - BOTTOM - TOP) * (b - low)) / (high - low)));
  made.x = x;
  made.back = (px) => ((px - LEFT) / (W - LEFT - RIGHT)) * end;
  const parts = [];
  for (const tick of ticks(low, high)) {
    parts.push(svg("path", { class: "grid", d: `M${LEFT} ${y(tick)}H${W - RIGHT}` }));
    parts.push(svg("text", { x: LEFT - 6, y: y(tick), dy: ".32em", "text-anchor": "end" }, label(tick, chart.percent)));
  }
  for (const tick of ticks(0, end)) parts.push(svg("text", { x: x(tick), y: H - 6, "text-anchor": "middle" }, label(tick)));
  if (chart.reference !== undefined) parts.push(svg("path", { class: "reference", d: `M${LEFT} ${y(chart.reference)}H${W - RIGHT}` }));
  for (const { run, outline } of bands) parts.push(svg("path", { class: `band ${run.color}`, d: `${path(outline, x, y)}Z` }));
  for (const { raw, points, dense, run, dash } of made.drawn) {
    if (dense) parts.push(svg("path", { class: `raw ${run.color}`, d: path(thinned(raw), x, y) }));
    parts.push(svg("path", { class: `line ${run.color} ${dash}`, d: path(thinned(points), x, y) }));
  }
  for (const run of shown) {
    for (const alarm of run.alarms) {
      const mark = svg("path", { class: "alarm", d: `M${x(alarm.step)} ${TOP}l-5 -9h10z` });
      mark.append(svg("title", {}, `step ${alarm.step}: ${words(alarm)}`));
      parts.push(mark);
    }
  }
  drawing.setAttribute("aria-label", `${chart.title} over steps; ${last(made, false)}`);
  drawing.replaceChildren(...parts);
  made.readout.textContent = last(made);
}

// A log that says nothing for so long may be of a run that was killed.
const QUIET = 120_000;
function stateOf(run) {
  const quiet = Date.now() - run.heard;
  if (run.state !== "running" || !(quiet > QUIET)) return run.state;
  return `running, or killed: nothing new for ${quiet > 7_200_000 ? `${Math.round(quiet / 3_600_000)} hours` : `${Math.round(quiet / 60_000)} minutes`}`;
}
// Boxes stay, for whoever is at one by keyboard.
function drawRuns() {
  for (const run of runs) {
    if (!run.box) {
      run.box = make("input", { type: "checkbox" });
      run.box.checked = run.shown;
      run.box.addEventListener("change", () => { run.shown = run.box.checked; drawAll(); });
      run.about = make("i");
      find("runs").append(make("li", {}, make("label", {}, run.box, make("span", { class: `dot ${run.color}` }), run.name, run.about)));
    }
    run.about.textContent = [stateOf(run), run.facts].filter(Boolean).join(", ");
  }
}

// Words of an alarm begin with its step, which stands beside them here.
const words = ({ step: when, message }) => String(message).replace(`step ${when}: `, "");
function drawAlarms() {
  const all = runs.flatMap((run) => run.alarms.map((alarm) => ({ run, ...alarm })));
  find("alarms-section").hidden = all.length === 0;
  find("alarms").replaceChildren(...all.map(({ run, ...alarm }) => make("li", { class: "warning" }, make("b", {}, `step ${alarm.step}`), make("p", {}, runs.length > 1 ? `${run.name}: ` : "", words(alarm)))));
}

function source(run, name, mark) {
  const index = runs.indexOf(run);
  const path = String(name).split("/").map(encodeURIComponent).join("/");
  return carried ? carried.events[index].images[name] ?? "" : `/image/${index}/${path}?${mark}`;
}
let imagesDrawn = null;
function drawImages() {
  const with_images = runs.filter((run) => run.images.length > 0);
  find("images-section").hidden = with_images.length === 0;
  if (with_images.length === 0) return;
  const steps = [...new Set(with_images.flatMap((run) => run.images.map((one) => one.step)))].sort((a, b) => a - b);
  const slider = find("step");
  const atEnd = slider.value === slider.max;
  slider.max = steps.length - 1;
  if (atEnd) slider.value = slider.max;
  const now = steps[slider.value];
  find("step-now").textContent = `${now} of ${steps.at(-1)}`;
  // Only what is new is drawn, for images are loaded for it.
  const drawn = JSON.stringify([now, runs.map((run) => [run.shown, run.images.at(-1)?.mark, run.images.length])]);
  if (drawn === imagesDrawn) return;
  imagesDrawn = drawn;
  find("images").replaceChildren(...with_images.filter((run) => run.shown).flatMap((run) => {
    const of = [...run.images].reverse().find((one) => one.step <= now) ?? run.images[0];
    const [base] = run.images;
    const prompts = run.plan?.validation?.validation_prompts ?? [];
    return of.paths.map((name, index) => make("div", {},
      make("p", {}, make("span", { class: `dot ${run.color}` }), prompts[index] ?? `image ${index}`),
      make("div", { class: "pair" }, ...[[base, "before training"], [of, `step ${of.step}`]].map(([one, words]) => make("figure", {},
        make("img", { src: source(run, one.paths[index] ?? name, one.mark), alt: `${prompts[index] ?? "image"}, ${words}`, loading: "lazy" }), make("figcaption", {}, words))))));
  }));
}

let planned = 0;
function drawPlan({ runs: about, differences }) {
  const table = (heads, rows) => make("div", { class: "scroll" }, make("table", {},
    make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))),
    make("tbody", {}, ...rows.map(([first, ...rest]) => make("tr", {}, make("th", { scope: "row" }, first), ...rest.map((cell) => make("td", {}, cell)))))));
  if (about.length > 1) {
    const rows = differences.map(({ key, values }) => [key, ...values.map((one) => one ?? "\u2013")]);
    find("plan").replaceChildren(rows.length ? table(["", ...about.map(({ name }) => name)], rows) : make("p", {}, "These plans are alike."));
    return;
  }
  const leaves = (at_key, one) => (one && typeof one === "object" && !Array.isArray(one)
    ? Object.entries(one).flatMap(([key, inner]) => leaves(at_key ? `${at_key}.${key}` : key, inner)) : [[at_key, typeof one === "string" ? one : JSON.stringify(one)]]);
  find("plan").replaceChildren(table(["Setting", "Value"], leaves("", about[0].plan ?? {}).filter(([, value]) => value !== "null")));
}

const WORDS = {
  start: (e) => `${e.step ? `resumed at step ${e.step}` : "started"}: ${e.method}, ${e.n_pairs} pairs, ${e.device}${Object.entries(e.betas ?? {}).map(([name, beta]) => `, beta ${Number(beta.toPrecision(4))} as ${name}`).join("")}`,
  alarm: (e) => `alarm: ${words(e)}`,
  checkpoint: (e) => `checkpoint ${e.path}${e.best ? ", the best so far" : ""}`,
  stopping: (e) => `stopping: ${e.reason}`,
  note: (e) => e.text,
  skipped: (e) => `skipped ${e.place}: ${e.detail}`,
  finish: (e) => `finished: ${e.outcome}`,
};
function logged(run, event) {
  const words = WORDS[event.event];
  if (!words) return;
  const item = make("li", {}, make("b", { class: run.color }, runs.length > 1 ? `${run.name} ` : ""), event.step !== undefined ? `step ${event.step}: ` : "", words(event));
  find("log").append(item);
  while (find("log").children.length > 1000) find("log").firstChild.remove();
  find("log").scrollTop = find("log").scrollHeight;
}

// Pages and browsers keep images by their addresses; those of a run that began anew have the same names.
let taken = 0;
const loaded = Date.now().toString(36);

const memory = ({ peak_memory_bytes: bytes }) => `${(bytes / 2 ** 30).toFixed(2)} GiB`;

function take(run, event) {
  if (event === null || typeof event !== "object") return;
  const kind = { probe: "validation", pictures: "images" }[event.event] ?? event.event;
  if (kind === "start") {
    // What was done after the checkpoint that a run resumes from is done again.
    const before = (one) => one.step < event.step || event.step === 0;
    if (event.step > 0) {
      run.steps = run.steps.filter(before);
      run.validations = run.validations.filter((one) => one.step <= event.step);
      run.images = run.images.filter((one) => one.step <= event.step);
      run.alarms = run.alarms.filter(before);
    }
    run.state = "running";
    run.facts = `${event.method}, ${event.device}${event.peak_memory_bytes ? `, ${memory(event)} before the first step` : ""}`;
  } else if (kind === "step") run.steps.push(event);
  else if (kind === "validation") run.validations.push(event);
  else if (kind === "images" && Array.isArray(event.paths)) run.images.push({ ...event, mark: `${loaded}-${taken += 1}` });
  else if (kind === "alarm") run.alarms.push(event);
  else if (kind === "finish") {
    run.state = event.outcome;
    if (event.peak_memory_bytes) run.facts += `, ${memory(event)} at most`;
  }
  logged(run, event);
}

let due = false;
// Drawing takes a fifth of the time at most, however long a log is.
let rest = 0;
function drawAll() {
  if (due) return;
  due = true;
  setTimeout(() => requestAnimationFrame(() => {
    due = false;
    const begun = performance.now();
    figures.forEach(draw);
    drawRuns();
    drawAlarms();
    drawImages();
    document.body.dataset.steps = runs.map((run) => run.steps.length).join(" ");
    rest = 4 * (performance.now() - begun);
  }), rest);
}

function begin(about) {
  about.runs.forEach((run, index) => runs.push({ ...run, color: color(index), shown: true, state: "waiting", facts: "", steps: [], validations: [], images: [], alarms: [] }));
  drawPlan(about);
  drawAll();
}
function reset(run) { Object.assign(run, { steps: [], validations: [], images: [], alarms: [] }); }

find("smooth").addEventListener("input", drawAll);
find("step").addEventListener("input", drawImages);
if (carried) {
  begin(carried.about);
  carried.events.forEach(({ lines }, index) => lines.forEach((event) => take(runs[index], event)));
  find("state").textContent = "as it was when this page was written";
  drawAll();
} else {
  begin(await (await fetch("/api/about")).json());
  setInterval(drawRuns, 30_000);
  const events = new EventSource("/api/events");
  events.addEventListener("open", async () => {
    find("state").textContent = "live";
    // At this address there may be a server of other runs now.
    const about = await fetch("/api/about").then((answer) => answer.json(), () => null);
    if (about && String(about.runs.map((run) => run.folder)) !== String(runs.map((run) => run.folder))) location.reload();
  });
  events.addEventListener("open", () => {
    // Everything comes again.
    runs.forEach(reset);
    find("log").replaceChildren();
  });
  events.addEventListener("error", () => { find("state").textContent = "the server does not answer; waiting for it"; });
  events.addEventListener("message", ({ data }) => {
    const { run: index, reset: anew, gone, age, lines } = JSON.parse(data);
    const run = runs[index];
    if (gone) run.state = "its log is gone";
    if (lines.length > 0) run.heard = Date.now() - 1000 * age;
    if (anew) {
      reset(run);
      planned += 1;
      fetch("/api/about").then((answer) => answer.json()).then((about) => { run.plan = about.runs[index].plan; drawPlan(about); }, () => {});
    }
    lines.forEach((event) => take(run, event));
    drawAll();
  });
}
