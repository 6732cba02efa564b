// Appends words with the library's producer, and reads them with `stream()` until the end. Prints what
// was read. Arguments: the stream's URL for the producer and for the reader, the live mode, how many
// words.
import { DurableStream, IdempotentProducer, stream } from "@durable-streams/client"

const [writeUrl, url, live, count] = process.argv.slice(2)
const words = Array.from({ length: Number(count) }, (_, n) => `word-${n} `)
const retries = { initialDelay: 5, maxDelay: 100, multiplier: 1.5, maxRetries: 1000 }

const handle = await again(() =>
  DurableStream.create({ url: writeUrl, contentType: "text/plain", backoffOptions: retries }),
)
const failures = []
const warnings = []
console.warn = (text) => warnings.push(String(text))
const producer = new IdempotentProducer(handle, "words", {
  maxBatchBytes: 64,
  lingerMs: 1,
  onError: (error) => failures.push(String(error)),
})
const reading = read()
for (const word of words) {
  producer.append(word)
  await new Promise((resolve) => setTimeout(resolve, 2))
}
await producer.flush()
await producer.close()
const text = await reading
console.log(JSON.stringify({ text, failures, warnings }))
process.exit(0)

// What the library does not repeat by itself.
async function again(action) {
  for (;;) {
    try {
      return await action()
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
  }
}

async function read() {
  let text = ""
  let offset = "-1"
  const whole = words.join("").length
  while (text.length < whole) {
    await again(async () => {
      const response = await stream({ url, live, offset, backoffOptions: retries })
      await new Promise((resolve, reject) => {
        response.subscribeText((chunk) => {
          text += chunk.text
          offset = chunk.offset
          if (text.length >= whole) resolve()
        })
        response.closed.then(resolve, reject)
      })
    })
  }
  return text
}
