// Who is connected; an operator may end a stream.
import {age, ask, attempt, byId, element, fields, message, number, row, size} from "./page.js";

let following = null;

function shown(stream) {
  const end = element("button", "small", "End");
  end.type = "button";
  end.setAttribute("aria-label", "End the stream of " + stream.address);
  const made = row([
    ["short", stream.address], ["", stream.subject], ["", stream.topics.join(" ") + (stream.more_topics ? " …" : "")],
    ["short", stream.state], ["short", age(stream.age_s)], ["number", number(stream.events)], ["number", size(stream.bytes)],
    ["number", stream.lag_bytes ? size(stream.lag_bytes) : ""], ["", stream.agent], ["id", stream.id], ["", end],
  ]);
  end.addEventListener("click", () => attempt(async () => {
    const {kicked} = await ask("/admin/connections", {id: stream.id}, "DELETE");
    made.remove();
    message(kicked ? "The stream was ended." : "The stream had ended already.");
  }));
  return made;
}

async function load(after) {
  const wanted = fields(byId("find-streams"));
  const page = await ask("/admin/connections", {...wanted, after, limit: 100});
  const rows = page.connections.map(shown);
  if (after) byId("streams").append(...rows); else byId("streams").replaceChildren(...rows);
  following = page.next;
  byId("more-streams").hidden = !following;
  byId("streams-note").textContent = number(byId("streams").children.length) + " streams" + (following ? ", and more" : "");
}

export function open() { attempt(() => load()); }
export function close() {}

byId("find-streams").addEventListener("submit", (event) => { event.preventDefault(); open(); });
byId("more-streams").addEventListener("click", () => attempt(() => load(following)));
