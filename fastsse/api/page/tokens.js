// What a token says: it is decoded here, and sent only where the server is asked. And new tokens.
import {age, ask, attempt, byId, element, fields, message} from "./page.js";

function decoded(token) {
  const text = token.trim().split(".")[1].replace(/-/g, "+").replace(/_/g, "/");
  return JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(text), (c) => c.charCodeAt(0))));
}

function facts(claims) {
  const grants = claims["https://mercure.rocks/"] || claims.mercure || {};
  const list = (value) => (Array.isArray(value) && value.length ? value.join(", ") : "nothing");
  const left = claims.exp - Date.now() / 1000;
  return [
    "Subject: " + (claims.sub || "none"),
    claims.exp === undefined ? "It has no end." : left > 0 ? "It ends in " + age(left) + "." : "It ended " + age(-left) + " ago.",
    "Private events of: " + list(grants.subscribe),
    "May publish to: " + list(grants.publish),
    "Console: " + ((claims.fastsse && claims.fastsse.console) || "nothing"),
  ];
}

byId("read-token").addEventListener("submit", (event) => {
  event.preventDefault();
  let lines;
  try {
    lines = facts(decoded(fields(event.target).token));
  } catch (error) {
    lines = ["This is no JWT: three parts with dots between."];
  }
  show(lines);
});

byId("judge-token").addEventListener("click", () => attempt(async () => {
  const {token} = fields(byId("read-token"));
  const judged = await ask("/admin/tokens/explain", {}, "POST", token.trim());
  const who = {publish: "As a publisher's: ", subscribe: "As a subscriber's: ", console: "As an operator's: "};
  show(Object.entries(judged.sides).map(([side, one]) => {
    if (!one.taken) return who[side] + one.why;
    const granted = Array.isArray(one.grants) ? one.grants.join(", ") : one.grants;
    return who[side] + "taken; it grants " + (granted || "nothing");
  }));
}));

byId("mint-token").addEventListener("submit", (event) => {
  event.preventDefault();
  const wanted = fields(event.target);
  const list = (text) => text.split(/\s+/).filter(Boolean);
  byId("minted").hidden = true;
  attempt(async () => {
    const parameters = {...wanted, publish: list(wanted.publish), subscribe: list(wanted.subscribe)};
    const made = await ask("/admin/tokens", parameters, "POST");
    byId("minted").hidden = false;
    byId("minted").querySelector("textarea").value = made.token;
    message("A token was made.");
  });
});

function show(lines) {
  byId("token-facts").replaceChildren(...lines.map((line) => element("li", "", line)));
}

export function open() {}

// What was made is gone from the page with the view.
export function close() {
  byId("minted").hidden = true;
  byId("minted").querySelector("textarea").value = "";
}
