// The workers and sources of all nodes, and what of these could not become events.
import {age, ask, attempt, byId, element, number, row, size} from "./page.js";

const LOOK_MS = 300;
let opened = "";

function source(one) {
  const look = element("button", "small", "Show");
  look.type = "button";
  look.setAttribute("aria-label", "Show the dead letters of " + one.name);
  look.addEventListener("click", () => attempt(() => show(one.name)));
  return row([
    ["", one.name], ["", one.system], [one.state === "away" ? "wrong" : "", one.state],
    ["", age(one.lag_ms / 1000)], ["number", one.backlog === null ? "" : number(one.backlog)], ["", one.trouble],
    ["", look],
  ]);
}

function said(answer) {
  if (answer.trouble) return "They can't be read: " + answer.trouble;
  const done = answer.replay;
  if (!done) return number(answer.letters.length) + " shown";
  return done.state + ": " + number(done.events) + " became events, " + number(done.filtered)
    + " were left out by the filter, " + number(done.set_aside) + " stay.";
}

async function show(name) {
  const answer = await ask("/admin/dead-letters", {source: name, limit: 50});
  opened = name;
  byId("h-letters").textContent = "Dead letters of " + name;
  byId("letters").hidden = false;
  byId("letters-note").textContent = said(answer);
  byId("letter-rows").replaceChildren(...answer.letters.map((one) => row([
    ["", one.origin], ["", one.why], ["number", size(one.bytes)], ["", one.payload],
  ])));
  return answer.replay && answer.replay.state === "running";
}

byId("replay").addEventListener("click", () => attempt(async () => {
  const name = opened;
  await ask("/admin/dead-letters", {source: name}, "POST");
  while (await show(name)) await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
}));

export function open() {
  attempt(async () => {
    const {workers, missing} = await ask("/admin/nodes");
    byId("workers-note").textContent = missing.length ? "No answer from " + missing.join(", ") : "";
    byId("workers").replaceChildren(...workers.map((one) => row([
      ["", one.node], ["", one.worker + " (" + one.pid + ")"], ["", one.state], ["number", number(one.connections)],
      ["number", number(one.room)], ["number", one.cpu_s.toFixed(1)], ["number", size(one.resident_bytes)],
      ["", age(one.uptime_s)],
    ])));
    const {sources} = await ask("/admin/sources");
    byId("sources-note").textContent = sources.length ? "" : "No sources are configured.";
    byId("sources").replaceChildren(...sources.map(source));
  });
}

export function close() { byId("letters").hidden = true; }
