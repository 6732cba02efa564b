import { errorOf, StreamError } from "./errors.js";
import { createParser, type OnBlock } from "./parser.js";
import type { Gap, HubEvent } from "./types.js";

export type TransportName = "fetch" | "eventsource" | "poll" | "websocket";

/** What a transport needs to open a stream. */
export interface StreamRequest {
  url: URL;
  /** Ends the stream. */
  signal: AbortSignal;
  openTimeoutMs: number;
  idleTimeoutMs: number;
  maxEventChars: number;
  /** More types that an EventSource listens to. */
  eventTypes?: readonly string[];
  /** Fetches the token, and stores a feed for a long `url`; both may take longer than an opening. */
  prepare(): Promise<unknown>;
  /** Sends a request with the token. */
  send(url: URL | string, init: RequestInit): Promise<Response>;
  /** A ticket for a request that can't have headers; undefined without a token. */
  ticket(): Promise<string | undefined>;
  credentials: RequestCredentials;
  /**
   * Asks for a page of history, for which the server may wait. Rejects with a StreamError.
   */
  page(waitS: number): Promise<Page>;
  /** The error for an answer that is not the one that was asked for. */
  errorOf(response: Response): Promise<StreamError>;
  /** Makes a parser, which takes the text of the stream piece by piece. */
  parser(sink: StreamSink): (text: string) => void;
  /** What a transport rejects with. */
  StreamError: typeof StreamError;
  /** The transport that is used where it works. */
  first: Transport;
  /** From now on streams are opened with this transport. */
  use(transport: Transport): void;
}

/** The answer to `wait=`. */
export interface Page {
  events: HubEvent[];
  /** The place to ask from next. */
  next: string;
  gap: Gap | null;
  ended: boolean;
}

/** Takes what a transport receives. */
export interface StreamSink {
  /** The opening has arrived. */
  open(): void;
  block: OnBlock;
  retry(ms: number): void;
  /** The transport reconnects by itself. */
  waiting(): void;
}

/** How a response ended: at its last chunk, or with a 204, which says that nothing more comes. */
export type Ending = "over" | "done";

export interface Transport {
  readonly name: string;
  /**
   * After so many milliseconds without a stream, and at least `openTimeoutMs`, it is tried in between.
   * Without this it is used where it is the first, or in the place of one that the browser lacks.
   */
  readonly afterMs?: number;
  /** Whether it works here; without it, it does. */
  isAvailable?(): boolean;
  /** Runs one stream to its end. Rejects with a StreamError when it breaks. */
  run(request: StreamRequest, sink: StreamSink): Promise<Ending>;
}

// Half of a frame.
const BUSY_MS_MAX = 8;
// A longer timer fires at once.
const TIMER_MS_MAX = 2 ** 31 - 1;

/** Streams by `fetch`: the token is in a header, and the script sees status and comments. */
export const fetchTransport: Transport = {
  name: "fetch",
  async run(request, sink) {
    request.url.searchParams.set("initial_id", "true");
    const ending = await exchange<Ending>(request, "text/event-stream", async ({ body }, watching) => {
      if (!body) throw new StreamError("unsupported", "no stream");
      await read(body.getReader(), watching, request, sink);
      return "over";
    });
    return ending ?? "done";
  },
};

/** Sends a request and reads its answer; undefined for a 204. Rejects with a StreamError. */
async function exchange<T>(
  request: StreamRequest,
  type: string,
  use: (response: Response, watching: Watch) => Promise<T>,
): Promise<T | undefined> {
  await request.prepare();
  const watching = watch(request);
  try {
    const response = await request.send(request.url, { headers: { Accept: type }, signal: watching.signal });
    if (response.status === 204) return;
    const { ok, headers } = response;
    // Without a type the text is `null`.
    if (!ok || !new RegExp(`^${type}`, "i").test(headers.get("content-type")!)) throw await errorOf(response);
    return await use(response, watching);
  } catch (error) {
    throw watching.fault(error);
  } finally {
    watching.stop();
  }
}

export async function page(this: StreamRequest, waitS: number): Promise<Page> {
  this.url.searchParams.set("wait", `${waitS}s`);
  const openTimeoutMs = 1000 * waitS + this.idleTimeoutMs;
  const answer = await exchange<Page>({ ...this, openTimeoutMs }, "application/json", (response) => response.json());
  if (answer && !answer.events?.map) throw new StreamError("format", "no page");
  return answer ?? { events: [], next: "", gap: null, ended: true };
}

export function parser(this: StreamRequest, { block, retry }: StreamSink): (text: string) => void {
  return createParser(block, retry, this.maxEventChars);
}

async function read(
  reader: ReadableStreamDefaultReader<Uint8Array>,
  watching: Watch,
  request: StreamRequest,
  sink: StreamSink,
): Promise<void> {
  const decoder = new TextDecoder();
  const feed = request.parser(sink);
  let turnAt = performance.now();
  for (let isFirst = true; ; isFirst = false) {
    const { done, value } = await reader.read();
    if (done) return;
    watching.alive();
    if (isFirst) sink.open();
    feed(decoder.decode(value, { stream: true }));
    // A long replay arrives without a pause, and the page must draw.
    if (performance.now() - turnAt > BUSY_MS_MAX) {
      await turn();
      turnAt = performance.now();
    }
  }
}

/** A turn of the event loop. A timer would be a second long in a hidden page. */
function turn(): Promise<void> {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(0);
  });
}

/** The fault that an error is; `late` if the error comes of a time-out. */
export function asStreamError(error: unknown, late?: StreamError): StreamError {
  if (error instanceof StreamError) return error;
  const kind = error instanceof RangeError ? "too-large" : "network";
  return late ?? new StreamError(kind, `${(error as Error)?.message ?? error}`, { cause: error });
}

/** The time-outs of a request. */
export interface Watch {
  readonly signal: AbortSignal;
  /** A byte has arrived. */
  alive(): void;
  /** Ends the request. */
  stop(): void;
  /** Why the request failed: a time-out, or `error`. */
  fault(error: unknown): StreamError;
}

/** Aborts a request that is silent for too long. */
export function watch(request: StreamRequest): Watch {
  const controller = new AbortController();
  const { signal, openTimeoutMs, idleTimeoutMs } = request;
  const page = globalThis.document;
  let timer: ReturnType<typeof setTimeout>;
  let aliveAt = Date.now();
  let limitMs = openTimeoutMs;
  let kind: "buffered" | "idle" = "buffered";
  let late: StreamError | undefined;

  // Timers stand still while a computer sleeps, so the time is compared when the page is seen.
  function check(): void {
    clearTimeout(timer);
    const leftMs = aliveAt + limitMs - Date.now();
    if (leftMs > 0) timer = setTimeout(check, Math.min(leftMs, TIMER_MS_MAX));
    else {
      late = new StreamError(kind, `silent for ${limitMs} ms`);
      controller.abort();
    }
  }

  function stop(): void {
    clearTimeout(timer);
    controller.abort();
  }

  // With its `signal` the controller removes them.
  signal.addEventListener("abort", stop, controller);
  page?.addEventListener("visibilitychange", check, controller);
  if (signal.aborted) stop();
  else check();
  return {
    signal: controller.signal,
    alive() {
      aliveAt = Date.now();
      if (kind === "idle") return;
      kind = "idle";
      limitMs = idleTimeoutMs;
      check();
    },
    stop,
    fault: (error) => asStreamError(error, late),
  };
}
