// What a token says. It is decoded here and sent nowhere.
import {age, byId, element, fields} from "./page.js";

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
    "Whether its signature is right, only the server knows: fastsse token explain",
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
  byId("token-facts").replaceChildren(...lines.map((line) => element("li", "", line)));
});

export function open() {}
export function close() {}
