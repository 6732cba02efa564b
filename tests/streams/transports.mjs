// A model server as the transports of AI SDK and TanStack AI want it: it writes what a stand-in model
// says into Durable Streams, and names the stream from which pages read. Arguments: the URL of streams
// to write to, the URL to read from, a folder with page.js, and what to do:
// `serve` prints its URL and ends with its standard input; `POST /say?words=n` lets the model go on.
// `aisdk N` and `tanstack N` read an answer of N words through the read URL, which is cut again and
// again, and print it.
import { createServer } from "node:http"
import { readFileSync } from "node:fs"
import { readUIMessageStream } from "ai"
import { createDurableChatTransport, toDurableStreamResponse } from "@durable-streams/aisdk-transport"
import {
  durableStreamConnection,
  ensureDurableChatSessionStream,
  materializeSnapshotFromDurableStream,
  toDurableChatSessionResponse,
} from "@durable-streams/tanstack-ai-transport"

const [writeUrl, readUrl, folder, act, count] = process.argv.slice(2)
const word = (n) => `word-${n} `
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
let allowed = 0
let wake = () => {}
let total = Number(count ?? 12)
let active = false
let posts = 0

async function* spoken(begin, say, end) {
  yield* begin
  for (let n = 0; n < total; n++) {
    if (act !== "serve") await sleep(5)
    while (act === "serve" && n >= allowed) await new Promise((resolve) => (wake = resolve))
    yield say(word(n))
  }
  active = false
  yield* end
}

const ofAiSdk = () =>
  spoken(
    [{ type: "start", messageId: "m" }, { type: "text-start", id: "t" }],
    (delta) => ({ type: "text-delta", id: "t", delta }),
    [{ type: "text-end", id: "t" }, { type: "finish" }],
  )
const run = { threadId: "chat", runId: "run" }
const ofTanStack = () =>
  spoken(
    [{ type: "RUN_STARTED", ...run }, { type: "TEXT_MESSAGE_START", messageId: "m", role: "assistant" }],
    (delta) => ({ type: "TEXT_MESSAGE_CONTENT", messageId: "m", delta }),
    [{ type: "TEXT_MESSAGE_END", messageId: "m" }, { type: "RUN_FINISHED", ...run }],
  )

// What a database would keep.
const stored = () => posts ? [{ id: "u", role: "user", parts: [{ type: "text", text: "hi" }] }] : []
const page = () =>
  "<!doctype html><title>chat</title><div id=root></div>" +
  `<script>window.stored = ${JSON.stringify(stored())}</script><script src=page.js></script>`
const routes = {
  "GET /": () => new Response(page(), { headers: { "Content-Type": "text/html" } }),
  "GET /page.js": () => new Response(readFileSync(`${folder}/page.js`)),
  "POST /say": (url) => {
    allowed = Number(url.searchParams.get("words"))
    wake()
    return new Response(null, { status: 204 })
  },
  "POST /api/chat": () => {
    posts += 1
    active = true
    const stream = { writeUrl: `${writeUrl}/run`, readUrl: `${readUrl}/run` }
    return toDurableStreamResponse({ source: ofAiSdk(), stream })
  },
  "GET /api/chat/one/stream": () =>
    active || act !== "serve"
      ? Response.json({ streamUrl: `${readUrl}/run` }, { headers: { Location: `${readUrl}/run` } })
      : new Response(null, { status: 204 }),
  "POST /api/session": (url, body) => {
    posts += 1
    const newMessages = [body.messages.at(-1)]
    const stream = { writeUrl: `${writeUrl}/session` }
    return toDurableChatSessionResponse({ stream, newMessages, responseStream: ofTanStack() })
  },
  "GET /read": async () => {
    await ensureDurableChatSessionStream({ writeUrl: `${writeUrl}/session` })
    return Response.json({ url: `${readUrl}/session` })
  },
  "GET /posts": () => Response.json(posts),
}

const server = createServer(async (request, response) => {
  let text = ""
  for await (const part of request) text += part
  const url = new URL(request.url, "http://localhost")
  const handle = routes[`${request.method} ${url.pathname}`]
  const answer = handle
    ? await handle(url, text ? JSON.parse(text) : undefined)
    : new Response(null, { status: 404 })
  response.writeHead(answer.status, Object.fromEntries(answer.headers))
  response.end(Buffer.from(await answer.arrayBuffer()))
})
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve))
const base = `http://127.0.0.1:${server.address().port}`

async function readAiSdk() {
  const transport = createDurableChatTransport({ api: `${base}/api/chat` })
  const messages = [{ id: "u", role: "user", parts: [{ type: "text", text: "hi" }] }]
  let source = await transport.sendMessages({ trigger: "submit-message", chatId: "one", messages })
  for (;;) {
    // What the library does not repeat by itself: a page calls resumeStream().
    let text = ""
    try {
      let failed
      const all = readUIMessageStream({ stream: source, onError: (error) => (failed = error) })
      for await (const message of all) {
        text = message.parts.map((part) => part.text ?? "").join("")
      }
      if (!failed && text.endsWith(word(total - 1))) return text
    } catch {
      await sleep(10)
    }
    for (source = undefined; !source; ) {
      source = await transport.reconnectToStream({ chatId: "one" }).catch(() => sleep(10))
    }
  }
}

async function readTanStack() {
  const connection = durableStreamConnection({
    sendUrl: `${base}/api/session`,
    readUrl: `${readUrl}/session`,
  })
  await connection.send([{ id: "u", role: "user", parts: [{ type: "text", content: "hi" }] }])
  let text = ""
  const take = (chunk) => {
    if (chunk.type === "MESSAGES_SNAPSHOT") {
      text = chunk.messages.filter((one) => one.id === "m").flatMap((one) => one.parts)
        .map((part) => part.content).join("")
    } else if (chunk.type === "TEXT_MESSAGE_CONTENT" && chunk.messageId === "m") {
      text += chunk.delta
    }
  }
  while (!text.endsWith(word(total - 1))) {
    try {
      for await (const chunk of connection.subscribe()) {
        take(chunk)
        if (text.endsWith(word(total - 1))) break
      }
    } catch {
      await sleep(10)
    }
  }
  const whole = await materializeSnapshotFromDurableStream({ readUrl: `${writeUrl}/session` })
  const last = whole.messages.at(-1).parts.map((part) => part.content).join("")
  return text === last ? text : `${text} is not ${last}`
}

// A stream that is cut rejects a promise of the library's that no caller has.
process.on("unhandledRejection", () => {})
if (act === "serve") {
  console.log(base)
  process.stdin.resume().on("end", () => process.exit(0))
} else {
  const text = await (act === "aisdk" ? readAiSdk() : readTanStack())
  console.log(JSON.stringify({ text, posts }))
  process.exit(0)
}
