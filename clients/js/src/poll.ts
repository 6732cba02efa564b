import { climbing } from "./climbing.js";
import type { Ending, StreamRequest, StreamSink, Transport } from "./index.js";

const WAIT_S = 25;
// An answer without events before its time is up: a proxy or another server does not wait.
const EARLY_MS = 1_000;

/**
 * Long-polling, for networks in which a stream does not get through. `connect` loads this by itself
 * when it needs it: `transports` has `"poll"`.
 */
export const longPoll: Transport = {
  name: "poll",
  afterMs: 0,
  run: (request, sink) => climbing(request, "poll", (inner) => poll(inner, sink)),
};
export { longPoll as transport };

async function poll(request: StreamRequest, sink: StreamSink): Promise<Ending> {
  const { searchParams } = request.url;
  // Without a place the first answer names one; it comes at once.
  let waitS = searchParams.has("last_event_id") ? WAIT_S : 0;
  for (let isFirst = true; ; isFirst = false) {
    const askedAt = Date.now();
    const { events, next, gap, ended } = await request.page(waitS);
    if (request.signal.aborted) return "over";
    if (isFirst) sink.open();
    if (gap) sink.block("fastsse.gap", JSON.stringify(gap), gap.from);
    for (const event of events) sink.block("message", JSON.stringify(event), event.id);
    sink.block("", null, next);
    if (ended) return "done";
    for (const name of ["last", "last_each", "since"]) searchParams.delete(name);
    searchParams.set("last_event_id", next);
    if (waitS && !events.length && Date.now() - askedAt < EARLY_MS) await sleep(EARLY_MS);
    waitS = WAIT_S;
  }
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
