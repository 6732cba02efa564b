// The console: one view at a time, chosen by the part of the address behind #.
import * as nodes from "./nodes.js";
import * as overview from "./overview.js";
import {byId, fields, message, operator, useOperator} from "./page.js";
import * as streams from "./streams.js";
import * as tokens from "./tokens.js";
import * as topics from "./topics.js";
import * as trial from "./trial.js";

const VIEWS = {try: trial, overview, topics, streams, nodes, tokens};
let current = null;

function show() {
  const name = location.hash.slice(1) in VIEWS ? location.hash.slice(1) : "try";
  if (current) VIEWS[current].close();
  current = name;
  message("");
  for (const section of document.querySelectorAll("[data-view]")) section.hidden = section.dataset.view !== name;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === "#" + name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  VIEWS[name].open();
}

byId("sign-in").operator.value = operator();
byId("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  useOperator(fields(event.target).operator);
  show();
});
addEventListener("hashchange", show);
show();
