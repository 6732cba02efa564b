import { StreamError, type HubEvent, type Gap, type StreamRequest, type Transport } from "./index.js";

const WAIT_S = 25;
// An answer without events before its time is up: a proxy or another server does not wait.
const EARLY_MS = 1_000;

interface Answer {
  events: HubEvent[];
  next: string;
  gap?: Gap | null;
  ended?: boolean;
}

/**
 * Long-polling, for networks in which nothing else gets through:
 * `connect(url, { transports: ["fetch", longPoll] })`.
 */
export const longPoll: Transport = {
  name: "poll",
  polls: true,
  isAvailable: () => true,
  async run(request, sink) {
    const { searchParams } = request.url;
    // Without a place the first answer names one; it comes at once.
    let waitS = searchParams.has("last_event_id") ? WAIT_S : 0;
    for (let isFirst = true; ; isFirst = false) {
      searchParams.set("wait", waitS ? `${waitS}s` : "0");
      const askedAt = Date.now();
      const answer = await ask(request, waitS * 1000);
      if (!answer) return "done";
      if (isFirst) sink.open();
      const { events, next, gap, ended } = answer;
      if (gap) sink.block("fastsse.gap", JSON.stringify(gap), gap.from);
      for (const event of events) sink.block("message", JSON.stringify(event), event.id);
      sink.block("", null, next);
      if (ended) return "done";
      for (const name of ["last", "last_each", "since"]) searchParams.delete(name);
      searchParams.set("last_event_id", next);
      if (waitS && !events.length && Date.now() - askedAt < EARLY_MS) await sleep(EARLY_MS);
      waitS = WAIT_S;
    }
  },
};

/** One request; undefined for a 204. Rejects with a StreamError. */
async function ask(request: StreamRequest, waitMs: number): Promise<Answer | undefined> {
  const abort = new AbortController();
  const stop = () => abort.abort();
  if (request.signal.aborted) stop();
  request.signal.addEventListener("abort", stop);
  const timer = setTimeout(stop, waitMs + request.idleTimeoutMs);
  try {
    const init = { headers: { Accept: "application/json" }, signal: abort.signal };
    const response = await request.send(request.url, init);
    if (response.status === 204) return undefined;
    if (!response.ok) throw await request.errorOf(response);
    return (await response.json()) as Answer;
  } catch (error) {
    if (error instanceof StreamError) throw error;
    throw new StreamError("network", String(error));
  } finally {
    clearTimeout(timer);
    request.signal.removeEventListener("abort", stop);
  }
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
