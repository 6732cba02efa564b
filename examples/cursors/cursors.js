import { connect, hubUrl } from "./hub.js";

const SEND_MS = 50;
const GONE_MS = 10_000;
const me = crypto.randomUUID().slice(0, 8);
const hub = connect(hubUrl);
const cursors = new Map();
let place;
let isSending = false;

hub.subscribe("cursors/{id}", {
  maxRate: 20,
  onEvent({ topic, data: { id, x, y } }) {
    if (id === me) return;
    const cursor = cursors.get(topic) ?? added(topic, id);
    // Fractions of the window: the others' may have another size.
    cursor.element.style.translate = `${x * innerWidth}px ${y * innerHeight}px`;
    clearTimeout(cursor.timer);
    cursor.timer = setTimeout(() => {
      cursor.element.remove();
      cursors.delete(topic);
    }, GONE_MS);
  },
  onState: (state) => (document.getElementById("state").textContent = state),
});

function added(topic, id) {
  const element = document.createElement("div");
  element.className = "cursor";
  element.textContent = `➤ ${id}`;
  document.body.append(element);
  const cursor = { element };
  cursors.set(topic, cursor);
  return cursor;
}

/** Sends the newest place, one request after the other: a slow network gets fewer. */
async function send() {
  if (isSending) return;
  isSending = true;
  while (place) {
    const data = { id: me, ...place };
    place = undefined;
    const body = JSON.stringify({ topic: `cursors/${me}`, data, ttl: "10s" });
    const headers = { "Content-Type": "application/json" };
    await hub.request("events", { method: "POST", headers, body }).catch(() => {});
    await new Promise((resolve) => setTimeout(resolve, SEND_MS));
  }
  isSending = false;
}

addEventListener("pointermove", ({ clientX, clientY }) => {
  place = { x: clientX / innerWidth, y: clientY / innerHeight };
  void send();
});
