// The parser against the grammar of WHATWG HTML §9.2.6.
import assert from "node:assert/strict";
import { test } from "node:test";
import { createParser } from "../dist/parser.js";

/** Reads the text as one piece, or in pieces cut at these bytes. */
function read(bytes, cuts = []) {
  const found = [];
  const retries = [];
  const feed = createParser(
    (type, data, id) => data !== null && found.push([type, data, id]),
    (ms) => retries.push(ms),
  );
  const decoder = new TextDecoder();
  let at = 0;
  for (const cut of [...cuts, bytes.length]) {
    feed(decoder.decode(bytes.subarray(at, cut), { stream: true }));
    at = cut;
  }
  return { found, retries };
}

const bytesOf = (text) => new TextEncoder().encode(text);
const CASES = [
  ["data: one\n\n", [["message", "one", ""]]],
  ["data:one\r\n\r\n", [["message", "one", ""]]],
  ["data: one\r\rdata: two\n\r\n", [["message", "one", ""], ["message", "two", ""]]],
  ["data:  two blanks\n\n", [["message", " two blanks", ""]]],
  ["data: a\ndata: b\ndata\ndata:\n\n", [["message", "a\nb\n\n", ""]]],
  ["data\n\ndata\ndata\n\ndata:", [["message", "", ""], ["message", "\n", ""]]],
  ["data:\n\n", [["message", "", ""]]],
  ["data: \n\n", [["message", "", ""]]],
  ["event: tick\ndata: 1\n\ndata: 2\n\n", [["tick", "1", ""], ["message", "2", ""]]],
  ["event: lost\n\ndata: 2\n\n", [["message", "2", ""]]],
  ["event\ndata: 2\n\n", [["message", "2", ""]]],
  ["data: 1\nevent: late\n\n", [["late", "1", ""]]],
  ["id: 7\ndata: 1\n\ndata: 2\n\nid\ndata: 3\n\n", [["message", "1", "7"], ["message", "2", "7"], ["message", "3", ""]]],
  ["id: 7\n\ndata: 1\n\n", [["message", "1", "7"]]],
  ["id: a\0b\ndata: 1\n\n", [["message", "1", ""]]],
  ["id:  7\ndata: 1\n\n", [["message", "1", " 7"]]],
  [": comment\n:\n:data: no\ndata: 1\n\n", [["message", "1", ""]]],
  ["Data: no\ndatax: no\ndat: no\n data: no\ndata: 1\n\n", [["message", "1", ""]]],
  ["data: a:b: c\n\n", [["message", "a:b: c", ""]]],
  ["\n\n\ndata: 1\n\n\n\n", [["message", "1", ""]]],
  ["\ufeffdata: 1\n\n", [["message", "1", ""]]],
  ["data: \u2603 \u{1f600} \u00e9\n\n", [["message", "\u2603 \u{1f600} \u00e9", ""]]],
  ["data: 1\n\ndata: cut", [["message", "1", ""]]],
  ["data: 1\n\ndata: no blank line\n", [["message", "1", ""]]],
  ["data: a\u2028b\u0085c\n\n", [["message", "a\u2028b\u0085c", ""]]],
];

test("every case of the grammar, cut at every byte and into single bytes", () => {
  for (const [text, wanted] of CASES) {
    const bytes = bytesOf(text);
    assert.deepEqual(read(bytes).found, wanted, JSON.stringify(text));
    const every = Array.from(bytes, (_, at) => at);
    assert.deepEqual(read(bytes, every).found, wanted, `bytes of ${JSON.stringify(text)}`);
    for (const cut of every) {
      assert.deepEqual(read(bytes, [cut]).found, wanted, `${JSON.stringify(text)} at ${cut}`);
    }
  }
});

test("cases one after the other, cut at random, are the cases", () => {
  let seed = 1;
  const random = (n) => (seed = (seed * 48271) % 2147483647) % n;
  for (let run = 0; run < 300; run++) {
    const chosen = Array.from({ length: 6 }, () => CASES[random(20)]);
    const bytes = bytesOf(chosen.map(([text]) => `${text}\n\nid\n\n`).join(""));
    const whole = read(bytes).found;
    const cuts = Array.from({ length: random(12) }, () => random(bytes.length)).sort((a, b) => a - b);
    assert.deepEqual(read(bytes, cuts).found, whole);
  }
});

test("retry takes digits only", () => {
  const text = "retry: 10\nretry: -1\nretry: 1.5\nretry:\nretry: 2s\nretry: 0x10\nretry:20\n\n";
  assert.deepEqual(read(bytesOf(text)).retries, [10, 20]);
});

test("truncated UTF-8 becomes replacement characters and the stream goes on", () => {
  const bytes = Uint8Array.from([...bytesOf("data: "), 0xe2, 0x98, ...bytesOf("\n\ndata: ok\n\n")]);
  assert.deepEqual(read(bytes).found, [["message", "\ufffd", ""], ["message", "ok", ""]]);
});

// Searching the whole line for each piece would take minutes, not 30 ms.
test("a line of 10 MB in pieces of 1 KiB is one event", { timeout: 60_000 }, () => {
  const piece = "x".repeat(1024);
  const found = [];
  const feed = createParser((type, data) => found.push(data.length));
  feed("data: ");
  for (let n = 0; n < 10 * 1024; n++) feed(piece);
  feed("\n\n");
  assert.deepEqual(found, [10 * 2 ** 20]);
});

test("an event above the limit is an error that names the limit", () => {
  const feed = createParser(() => assert.fail("it is too long"), () => {}, 1000);
  assert.throws(() => { for (;;) feed("data: " + "x".repeat(300) + "\n"); }, /above 1000/);
  const lines = createParser(() => assert.fail("it is too long"), () => {}, 1000);
  assert.throws(() => { for (;;) lines("x".repeat(300)); }, /above 1000/);
});

test("a callback that throws leaves a parser that goes on", () => {
  const found = [];
  const feed = createParser((type, data) => {
    found.push([type, data]);
    if (data === "1") throw new Error("no");
  });
  assert.throws(() => feed("event: a\ndata: 1\n\n"));
  feed("data: 2\n\n");
  assert.deepEqual(found, [["a", "1"], ["message", "2"]]);
});
