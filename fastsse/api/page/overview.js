// Figures of this node, live, with the last fifteen minutes, which the server keeps.
import {ask, attempt, byId, checks, element, message, number, operator, row, size} from "./page.js";
import {follow} from "./stream.js";

const POINTS = 180;
const LOOK_MS = 10000;
const TILES = [
  ["connections", "streams", number],
  ["published", "events in a second", number],
  ["delivered", "events out a second", number],
  ["bytes", "sent a second", size],
  ["p50_ms", "publish to socket, half", (ms) => "≤ " + ms + " ms"],
  ["p99_ms", "publish to socket, 99 %", (ms) => "≤ " + ms + " ms"],
  ["lag_bytes", "largest lag", size],
  ["blocked", "clients that do not read", number],
  ["memory", "memory for events", size],
  ["history", "events kept", number],
  ["workers", "workers", number],
];
let points = [];
let reading = null;
let looking = null;

function line(values) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 " + (POINTS - 1) + " 20");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const most = Math.max(...values, 1e-9);
  const drawn = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  const left = POINTS - values.length;
  drawn.setAttribute("points", values.map((v, i) => (left + i) + "," + (19 - 18 * v / most).toFixed(2)).join(" "));
  svg.append(drawn);
  return svg;
}

function draw() {
  const now = points[points.length - 1];
  if (!now) return;
  byId("tiles").replaceChildren(...TILES.map(([key, name, show]) => {
    const tile = element("article");
    tile.dataset.figure = key;
    const value = now[key];
    tile.append(
      element("h3", "", name),
      element("p", "value", value === null || value === undefined ? "–" : show(value)),
      line(points.map((point) => point[key] || 0)),
    );
    return tile;
  }));
  byId("reasons").replaceChildren(...Object.entries(now.reasons || {}).flatMap(([what, counts]) =>
    Object.entries(counts).filter(([, count]) => count).map(([reason, count]) =>
      row([["", what], ["", reason], ["number", number(count)]]))));
}

function add(point) {
  points.push(point);
  points = points.slice(-POINTS);
  if (!document.hidden) draw();
}

function say(text, kind) {
  byId("live").textContent = text;
  byId("live").className = "state " + kind;
}

async function look() {
  if (document.hidden) return;
  byId("condition").replaceChildren(...checks((await ask("/admin/explain")).checks));
}

export function open() {
  const opened = new AbortController();
  reading = opened;
  attempt(async () => {
    points = (await ask("/admin/history")).points;
    draw();
    await look();
    if (opened.signal.aborted) return;
    looking = setInterval(() => look().catch((error) => message(error.message, true)), LOOK_MS);
    follow("/admin/live", {
      signal: opened.signal,
      token: operator(),
      onEvent: (event) => { if (event.type === "stats") add(JSON.parse(event.data)); },
      say,
    });
  });
}

export function close() {
  clearInterval(looking);
  if (reading) reading.abort();
  reading = null;
}
