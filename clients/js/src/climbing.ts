import type { Ending, StreamRequest, StreamSink, Transport } from "./index.js";

// A trial takes `openTimeoutMs` at most, so trials take a twelfth of the time, and less and less of it.
const SPAN_OPENINGS = 12;
const SPAN_MS_MAX = 30 * 60_000;
const STARTS = ["last", "last_each", "since", "last_event_id", "wait"];

/**
 * Runs a transport that stands in for the first one, and tries that one in between. As soon as it
 * works, it is chosen, and the run is over: the stream goes on from its place.
 */
export function climbing(
  request: StreamRequest,
  self: string,
  run: (request: StreamRequest) => Promise<Ending>,
): Promise<Ending> {
  if (request.first.name === self) return run(request);
  const cut = new AbortController();
  const end = () => cut.abort();
  request.signal.addEventListener("abort", end);
  if (request.signal.aborted) end();
  const inner = { ...request, signal: cut.signal };
  return Promise.race([run(inner), firstWorks(inner, end)]).finally(() => {
    end();
    request.signal.removeEventListener("abort", end);
  });
}

/** Resolves when the first transport was tried with success. */
function firstWorks(request: StreamRequest, end: () => void): Promise<Ending> {
  const { first, signal, openTimeoutMs } = request;
  return new Promise((resolve) => {
    let spanMs = SPAN_OPENINGS * openTimeoutMs;
    let timer: ReturnType<typeof setTimeout>;
    let isTrying = false;
    const plan = () => {
      clearTimeout(timer);
      // Spread, because many clients fell back at the same time.
      timer = setTimeout(attempt, spanMs * (1 + Math.random() / 2));
      spanMs = Math.min(2 * spanMs, SPAN_MS_MAX);
    };
    const attempt = async () => {
      if (isTrying) return;
      isTrying = true;
      clearTimeout(timer);
      const isOpen = await opens(first, request);
      isTrying = false;
      if (signal.aborted) return;
      if (isOpen) {
        request.use(first);
        // At once, so that nothing more comes from the other one.
        end();
        resolve("over");
      } else plan();
    };
    // Another network is another chance.
    globalThis.addEventListener?.("online", attempt, { signal });
    signal.addEventListener("abort", () => clearTimeout(timer));
    if (!signal.aborted) plan();
  });
}

/** Whether a stream of the same topics opens, from now on; it is closed again. */
function opens(transport: Transport, request: StreamRequest): Promise<boolean> {
  const cut = new AbortController();
  const end = () => cut.abort();
  request.signal.addEventListener("abort", end, { signal: cut.signal });
  const url = new URL(request.url);
  for (const name of STARTS) url.searchParams.delete(name);
  return new Promise<boolean>((resolve) => {
    const no = () => resolve(false);
    const sink: StreamSink = { open: () => resolve(true), block() {}, retry() {}, waiting: no };
    transport.run({ ...request, url, signal: cut.signal }, sink).then(no, no);
  }).finally(end);
}
