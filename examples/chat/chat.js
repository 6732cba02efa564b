import { connect, hubUrl } from "./hub.js";

const { createOutbox } = await import(`${hubUrl}/client/outbox.js`);
const BEAT_MS = 3_000;
const GONE_MS = 3 * BEAT_MS;

const element = (id) => document.getElementById(id);
const hub = connect(hubUrl);
// What is written while the network is away is sent later, once, in order.
const outbox = createOutbox(hub, { persist: "chat" });
const seen = new Map();

element("name").value = localStorage.name ?? `guest ${Math.floor(Math.random() * 1000)}`;

hub.subscribe("rooms/1", {
  last: 50,
  onEvent({ data }) {
    const message = document.createElement("div");
    message.textContent = `${data.name}: ${data.text}`;
    element("messages").append(message);
    message.scrollIntoView();
  },
  onState: (state) => (element("state").textContent = state),
});

// Who is there says so every few seconds; who is silent for longer is gone.
hub.subscribe("rooms/1/here", {
  last: 20,
  onEvent({ time, data }) {
    seen.set(data.name, data.isLeaving ? 0 : time);
    show(time);
  },
});

function show(now) {
  const names = [...seen].filter(([, time]) => time > now - GONE_MS).map(([name]) => name);
  element("here").textContent = names.sort().join(", ");
}

function beat(isLeaving = false) {
  const body = JSON.stringify({ topic: "rooms/1/here", data: { name: element("name").value, isLeaving }, ttl: "30s" });
  // Not through the outbox: what was is of no use later.
  const sent = hub.request("events", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body,
    keepalive: isLeaving,
  });
  sent.catch(() => {});
}

element("form").onsubmit = (event) => {
  event.preventDefault();
  const [name, text] = [element("name").value, element("text").value];
  localStorage.name = name;
  element("text").value = "";
  outbox.publish("rooms/1", { name, text }).catch((error) => (element("state").textContent = error.message));
};
addEventListener("pagehide", () => beat(true));
setInterval(beat, BEAT_MS);
beat();
