// Subscribe, publish, and see what comes.
import {byId, element, fields, operator} from "./page.js";
import {follow} from "./stream.js";

const ROWS_MOST = 500;
let stopping = null;
let shown = 0;
let held = [];
let language = "curl";

function say(text, kind) {
  byId("state").textContent = text;
  byId("state").className = "state " + (kind || "");
}

function query() {
  const {topics, begin, filter, max_rate: rate} = fields(byId("subscribe"));
  const parts = topics.trim().split(/\s+/).map((topic) => "topic=" + encodeURIComponent(topic));
  if (begin) parts.push(begin);
  if (filter) parts.push("filter=" + encodeURIComponent(filter));
  if (rate) parts.push("max_rate=" + encodeURIComponent(rate));
  return parts.join("&");
}

function stop() {
  const before = stopping;
  stopping = null;
  byId("toggle").textContent = "Subscribe";
  if (before) before.abort();
}

byId("subscribe").addEventListener("submit", (submitted) => {
  submitted.preventDefault();
  if (stopping) { stop(); return; }
  const signal = (stopping = new AbortController()).signal;
  byId("toggle").textContent = "Stop";
  explain();
  follow("/events?" + query() + "&envelope=json", {
    signal, token: fields(submitted.target).token, onEvent: show, say,
  }).then(() => { if (stopping && stopping.signal === signal) { stopping = null; byId("toggle").textContent = "Subscribe"; } });
});

function rowOf(event) {
  const made = element("li", event.type === "fastsse.gap" ? "gap new" : "new");
  const what = element("div");
  if (event.topic) what.append(element("span", "topic", event.topic));
  what.append(element("span", "type", event.type), element("pre", "", event.data));
  if (event.meta) what.append(element("span", "meta", event.meta));
  made.append(element("time", "", event.time), what, element("span", "id", event.id));
  return made;
}

// Replaces an event in an envelope by its content; control events have no envelope.
function unwrap(event) {
  let envelope = null;
  try { envelope = JSON.parse(event.data); } catch (error) { return; }
  if (event.type.startsWith("fastsse.") || !envelope || typeof envelope.time !== "number") return;
  event.topic = [].concat(envelope.topic || []).join(", ");
  event.data = typeof envelope.data === "string" ? envelope.data : JSON.stringify(envelope.data, null, 2);
  event.meta = Object.entries(envelope.meta || {}).map(([name, value]) => name + "=" + value).join(" ");
  event.at = envelope.time;
}

function show(event) {
  unwrap(event);
  const now = new Date(event.at || Date.now());
  event.time = now.toTimeString().slice(0, 8) + "." + String(now.getMilliseconds()).padStart(3, "0");
  held.push(event);
  if (held.length > ROWS_MOST) held.shift();
  shown += 1;
}

function matches(made) {
  return made.textContent.toLowerCase().includes(byId("filter").value.toLowerCase());
}

function paint() {
  requestAnimationFrame(paint);
  const holds = byId("hold").getAttribute("aria-pressed") === "true";
  const text = shown ? shown + (shown === 1 ? " event" : " events") + (holds ? ", held" : "") : "";
  if (byId("count").textContent !== text) byId("count").textContent = text;
  if (holds || !held.length) return;
  const list = byId("events");
  const rows = held.map(rowOf).reverse();
  held = [];
  rows.forEach((made) => { made.hidden = !matches(made); });
  list.prepend(...rows);
  while (list.children.length > ROWS_MOST) list.lastChild.remove();
  byId("empty").hidden = true;
  setTimeout(() => rows.forEach((made) => made.classList.remove("new")), 50);
}
requestAnimationFrame(paint);

byId("filter").addEventListener("input", () => {
  for (const made of byId("events").children) made.hidden = !matches(made);
});
byId("hold").addEventListener("click", ({target}) => {
  target.setAttribute("aria-pressed", String(target.getAttribute("aria-pressed") !== "true"));
  target.textContent = target.getAttribute("aria-pressed") === "true" ? "Go on" : "Hold";
});
byId("clear").addEventListener("click", () => {
  byId("events").replaceChildren();
  held = [];
  shown = 0;
  byId("empty").hidden = false;
});

function answer(text, isBad) {
  byId("answer").textContent = text;
  byId("answer").className = isBad ? "note bad" : "note";
}

byId("publish").addEventListener("submit", async (submitted) => {
  submitted.preventDefault();
  explain();
  const {topic, event, data, token} = fields(submitted.target);
  const target = new URLSearchParams({topic});
  if (event) target.set("event", event);
  const headers = {"Content-Type": "text/plain;charset=utf-8"};
  if (token) headers.Authorization = "Bearer " + token;
  try {
    const response = await fetch("/events?" + target, {method: "POST", body: data, headers});
    const reply = await response.json();
    answer(response.ok ? "Published as " + reply.id : reply.detail, !response.ok);
  } catch (error) {
    answer("The server can't be reached.", true);
  }
});
byId("publish").data.addEventListener("keydown", (pressed) => {
  if (pressed.key === "Enter" && (pressed.ctrlKey || pressed.metaKey)) byId("publish").requestSubmit();
});

// ── The same in a program ─────────────────────────────────────────────────────────────────────

const quoted = (text) => "'" + text.replace(/'/g, "'\\''") + "'";

function snippets() {
  const {topic, data} = fields(byId("publish"));
  const read = location.origin + "/events?" + query();
  const write = location.origin + "/events?topic=" + encodeURIComponent(topic);
  return {
    curl: `curl -N ${quoted(read)}\ncurl -d ${quoted(data)} ${quoted(write)}`,
    js: `const source = new EventSource(${JSON.stringify(read)});\n` +
      "source.onmessage = (event) => console.log(event.data);\n" +
      `await fetch(${JSON.stringify(write)}, {method: "POST", body: ${JSON.stringify(data)}});`,
    python: "from fastsse.client import Listener, Publisher\n\n" +
      `async with Publisher(${JSON.stringify(location.origin)}) as publisher:\n` +
      `    await publisher.publish(${JSON.stringify(topic)}, ${JSON.stringify(data)})\n` +
      `async with Listener(${JSON.stringify(location.origin)}, ${JSON.stringify(topic)}) as listener:\n` +
      "    async for event in listener:\n        print(event.data)",
  };
}

function explain() { byId("snippet").textContent = snippets()[language]; }

byId("languages").addEventListener("click", ({target}) => {
  if (!target.dataset.language) return;
  language = target.dataset.language;
  for (const button of byId("languages").children) {
    button.setAttribute("aria-pressed", String(button.dataset.language === language));
  }
  explain();
});

let isBegun = false;
export function open() {
  explain();
  if (!isBegun && !operator()) byId("subscribe").requestSubmit();
  isBegun = true;
}
export function close() {}
