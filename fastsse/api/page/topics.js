// Topics: who has them, and what is kept.
import {age, ask, attempt, byId, checks, element, fields, message, number, row, size} from "./page.js";

let following = null;
let opened = "";

function shown(topic) {
  const name = element("button", "link", topic.topic);
  name.type = "button";
  name.addEventListener("click", () => openTopic(topic));
  return row([
    ["", name], ["number", number(topic.subscribers)], ["number", topic.rate.toFixed(1)],
    ["number", number(topic.events)], ["number", size(topic.bytes)],
    ["short", "last_age_s" in topic ? age(topic.last_age_s) + " ago" : ""],
  ]);
}

function openTopic(topic) {
  opened = topic.topic;
  byId("h-topic").textContent = topic.topic;
  byId("topic").hidden = false;
  byId("checks").replaceChildren();
  calm();
  byId("h-topic").scrollIntoView({block: "nearest"});
}

// The first click asks, the second acts.
function calm() {
  delete byId("purge").dataset.asked;
  byId("purge").textContent = "Purge";
}

async function load(after) {
  const wanted = fields(byId("find-topics"));
  const page = await ask("/admin/topics", {...wanted, after, limit: 100});
  const rows = page.topics.map(shown);
  if (after) byId("topics").append(...rows); else byId("topics").replaceChildren(...rows);
  byId("topics-note").textContent =
    number(page.alive) + " topics; " + number(page.everything) + " streams have all of them (*)";
  following = page.next;
  byId("more-topics").hidden = !following;
}

export function open() { attempt(() => load()); }
export function close() {}

byId("find-topics").addEventListener("submit", (event) => { event.preventDefault(); open(); });
byId("more-topics").addEventListener("click", () => attempt(() => load(following)));
byId("tail").addEventListener("click", () => {
  byId("subscribe").topics.value = opened;
  byId("publish").topic.value = opened;
  location.hash = "#try";
});
byId("explain").addEventListener("click", () => attempt(async () => {
  const found = await ask("/admin/explain", {topic: opened});
  byId("checks").replaceChildren(...checks(found.checks));
}));
byId("purge").addEventListener("click", () => attempt(async () => {
  const button = byId("purge");
  if (!button.dataset.asked) {
    button.dataset.asked = "yes";
    button.textContent = "Delete all events of this topic?";
    return;
  }
  calm();
  await ask("/admin/topics", {topic: opened}, "DELETE");
  await load();
  message("The events of " + opened + " were deleted.");
}));
byId("purge").addEventListener("blur", calm);
