// `node eventsource.mjs <node_modules> <url>`: prints what npm's eventsource dispatches, a line each.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [modules, url] = process.argv.slice(2);
const require = createRequire(pathToFileURL(`${modules}/`));
const { EventSource } = require("eventsource");

const source = new EventSource(url);
const print = (type, data, id) => console.log(JSON.stringify({ data, type, id }));
source.onopen = () => print("open", "", "");
source.onmessage = (event) => print("message", event.data, event.lastEventId);
