// The page of the log terminal: an EventSource, a virtual list, and the controls.

import { LEVELS, Terminal, lineOf } from "./terminal.js";

const ROW_PX = 18;
// Parsing takes at most so long in a frame; the rest waits for the next one.
const FRAME_MS = 8;
const parameters = new URLSearchParams(location.search);
const server = parameters.get("server") ?? "http://127.0.0.1:8080";
const element = (id) => document.getElementById(id);
const [screen, spacer, rows] = ["screen", "spacer", "rows"].map(element);

const terminal = new Terminal(Number(parameters.get("lines") ?? 100_000));
let follows = true;
let raw = [];
let first = 0; // Of `raw`: what is not parsed yet.
let source = null;
let lastId = "";
const drawn = [];
// For tests and the console.
globalThis.terminal = terminal;
globalThis.frames = 0;
globalThis.rawWaiting = () => raw.length - first;

function open() {
  source?.close();
  const url = new URL("/events", server);
  const service = element("service").value.trim() || "{service}";
  url.searchParams.set("topic", `logs/${service}/{level}`);
  const filter = element("filter").value.trim();
  if (filter !== "") url.searchParams.set("filter", filter);
  if (lastId === "") url.searchParams.set("last", "1000");
  else url.searchParams.set("last_event_id", lastId);
  source = new EventSource(url);
  source.addEventListener("line", (event) => raw.push(event));
  source.addEventListener("fastsse.gap", (event) => raw.push(event));
  source.addEventListener("error", () => {
    // A refused filter ends the source for good.
    if (source.readyState === EventSource.CLOSED) element("state").textContent = "refused";
  });
}

function openAlerts() {
  const url = new URL("/events?topic=alerts&last=20", server);
  new EventSource(url).addEventListener("alert", (event) => {
    const alert = JSON.parse(event.data);
    const row = document.createElement("div");
    row.textContent = `${alert.service}: ${alert.errors} errors in ${alert.window_s} s`;
    element("alerts").prepend(row);
    while (element("alerts").childNodes.length > 20) element("alerts").lastChild.remove();
  });
}

/** Parses what came, within the time of a frame. */
function take() {
  const until = performance.now() + FRAME_MS;
  let lines = [];
  while (first < raw.length) {
    const event = raw[first++];
    lastId = event.lastEventId || lastId;
    if (event.type === "fastsse.gap") {
      terminal.add(lines);
      lines = [];
      terminal.addGap(JSON.parse(event.data).reason, event.lastEventId);
    } else {
      lines.push(lineOf(event.data, event.lastEventId));
    }
    if (lines.length % 64 === 0 && performance.now() > until) break;
  }
  if (first === raw.length || first > 50_000) {
    raw = raw.slice(first);
    first = 0;
  }
  terminal.add(lines);
}

/** Draws the visible rows, with as many elements as fit. */
function draw() {
  const { shown } = terminal;
  spacer.style.height = `${shown.length * ROW_PX}px`;
  if (follows) screen.scrollTop = shown.length * ROW_PX;
  const top = Math.max(0, Math.floor(screen.scrollTop / ROW_PX) - 5);
  const count = Math.min(Math.ceil(screen.clientHeight / ROW_PX) + 10, shown.length - top);
  while (drawn.length < count) drawn.push(rows.appendChild(makeRow()));
  rows.style.top = `${top * ROW_PX}px`;
  for (let at = 0; at < drawn.length; at++) {
    const line = at < count ? shown[top + at] : null;
    fill(drawn[at], line);
  }
  const waiting = terminal.waiting.length;
  element("state").textContent =
    `${terminal.shown.length} of ${terminal.lines.length} lines` + (waiting ? `, ${waiting} wait` : "");
}

function makeRow() {
  const row = document.createElement("div");
  row.append(document.createElement("span"));
  const trace = document.createElement("button");
  trace.className = "trace";
  trace.addEventListener("click", () => {
    element("trace").value = trace.textContent;
    showTrace(trace.textContent);
  });
  row.append(trace);
  return row;
}

function fill(row, line) {
  row.hidden = line === null;
  if (row.line === line || line === null) return;
  row.line = line;
  row.className = `row ${line.level}`;
  row.firstChild.textContent = line.isGap
    ? line.message
    : `${line.time} ${line.level.padEnd(7)} ${line.service.padEnd(8)} ${line.message} `;
  row.lastChild.textContent = line.trace;
}

function showTrace(trace) {
  terminal.setTrace(trace);
  setFollows(trace === "");
  if (trace !== "") screen.scrollTop = 0;
}

/** Leaves all lines and goes to the first of a trace. */
function jump(trace) {
  showTrace("");
  const index = terminal.indexOfTrace(trace);
  if (index < 0) return false;
  setFollows(false);
  spacer.style.height = `${terminal.shown.length * ROW_PX}px`;
  screen.scrollTop = index * ROW_PX;
  return true;
}
globalThis.jump = jump;

function setFollows(isOn) {
  follows = isOn;
  element("follow").setAttribute("aria-pressed", String(isOn));
}

function setPaused(isOn) {
  if (isOn) terminal.pause();
  else terminal.resume();
  element("pause").setAttribute("aria-pressed", String(isOn));
}

for (const level of LEVELS) {
  const label = document.createElement("label");
  const box = Object.assign(document.createElement("input"), { type: "checkbox", checked: true });
  box.id = `level-${level}`;
  box.addEventListener("change", () => terminal.setLevel(level, box.checked));
  label.append(box, level);
  element("levels").append(label);
}
element("search").addEventListener("input", (event) => terminal.setSearch(event.target.value));
element("trace").addEventListener("input", (event) => showTrace(event.target.value.trim()));
element("trace").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && jump(event.target.value.trim())) event.target.value = "";
});
for (const name of ["service", "filter"]) {
  element(name).addEventListener("change", () => {
    lastId = "";
    // Also what came of the other selection and was not parsed or shown yet.
    raw = [];
    first = 0;
    terminal.waiting = [];
    terminal.lines = [];
    terminal.filter();
    open();
  });
}
element("pause").addEventListener("click", () => setPaused(!terminal.isPaused));
element("follow").addEventListener("click", () => setFollows(!follows));
screen.addEventListener("wheel", (event) => event.deltaY < 0 && setFollows(false), { passive: true });

function frame() {
  take();
  draw();
  globalThis.frames += 1;
  // No frames come while the page is hidden; lines come all the same.
  if (document.hidden) setTimeout(frame, 200);
  else requestAnimationFrame(frame);
}

open();
openAlerts();
frame();
