// What parsing costs, next to eventsource-parser, in one run: node bench/parse.mjs
//
// Both decode and parse the same 20,000 events of 200 bytes, in pieces of three sizes, one after the
// other 41 times. Printed are the medians, and the median ratio with its first and last decile.
import { createRequire } from "node:module";
import { fileURLToPath, pathToFileURL } from "node:url";
import { createParser as ours } from "../dist/parser.js";

const modules = process.env.FASTSSE_NODE_MODULES ?? fileURLToPath(new URL("../node_modules", import.meta.url));
const found = createRequire(`${modules}/_.js`).resolve("eventsource-parser");
const { createParser: theirs } = await import(pathToFileURL(found));

const EVENTS = 20_000;
const ROUNDS = 41;
const block = (n) =>
  `id: 1795304300442-${n}\n${n % 3 ? "" : "event: tick\n"}data: {"topic":"prices/ACME","id":"1795304300442-${n}",` +
  `"event":null,"data":{"price":${n / 7},"volume":${n * 3}},"meta":null,"time":1795304300442}\n\n`;
const bytes = new TextEncoder().encode(Array.from({ length: EVENTS }, (_, n) => block(n)).join(""));
let chars = 0;

function read(pieces, feed) {
  const decoder = new TextDecoder();
  for (const piece of pieces) feed(decoder.decode(piece, { stream: true }));
}

const runs = [
  (pieces) => read(pieces, ours((type, data) => data !== null && (chars += data.length))),
  (pieces) => {
    const parser = theirs({ onEvent: ({ data }) => (chars += data.length) });
    read(pieces, (text) => parser.feed(text));
  },
];

function nanoseconds(run, pieces) {
  const begun = process.hrtime.bigint();
  run(pieces);
  return Number(process.hrtime.bigint() - begun) / EVENTS;
}

const at = (values, part) => values.toSorted((a, b) => a - b)[Math.floor(part * (values.length - 1))];

for (const size of [65_536, 4_096, 300]) {
  const pieces = [];
  for (let from = 0; from < bytes.length; from += size) pieces.push(bytes.subarray(from, from + size));
  for (let round = 0; round < 20; round++) for (const run of runs) run(pieces);
  const rows = Array.from({ length: ROUNDS }, () => runs.map((run) => nanoseconds(run, pieces)));
  const [mine, other] = [0, 1].map((n) => at(rows.map((row) => row[n]), 0.5).toFixed(0));
  const ratios = rows.map(([a, b]) => a / b);
  const [low, middle, high] = [0.1, 0.5, 0.9].map((part) => at(ratios, part).toFixed(2));
  console.log(`pieces of ${size} B: ${mine} ns an event, eventsource-parser ${other} ns, ratio ${middle} (${low} to ${high})`);
}
