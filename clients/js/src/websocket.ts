import { climbing } from "./climbing.js";
import type { Ending, ErrorKind, StreamRequest, StreamSink, Transport } from "./index.js";

// The stream is over (RFC 6455 §7.4.1); 1012: a drain, a limit, a lag.
const OVER = 1000;
const RETURN = 1012;

/**
 * Streams over WebSocket, for networks that let nothing else through. `connect` loads this by itself
 * when no stream has opened for 30 s: `transports` has `"websocket"`. The server needs wsproto.
 */
export const webSocket: Transport = {
  name: "websocket",
  afterMs: 30_000,
  isAvailable: () => typeof WebSocket === "function",
  run: (request, sink) => climbing(request, "websocket", (inner) => open(inner, sink)),
};
export { webSocket as transport };

async function open(request: StreamRequest, sink: StreamSink): Promise<Ending> {
  await request.prepare();
  const url = new URL(request.url);
  url.protocol = url.protocol.replace("http", "ws");
  url.pathname = url.pathname.replace(/events$/, "ws");
  url.searchParams.set("initial_id", "true");
  const ticket = await request.ticket();
  if (ticket) url.searchParams.set("ticket", ticket);
  return new Promise((resolve, reject) => {
    const fail = (kind: ErrorKind, message: string) => reject(new request.StreamError(kind, message));
    read({ ...request, url }, sink, (ending) => (ending === OVER ? resolve("done") : resolve("over")), fail);
  });
}

function read(
  request: StreamRequest,
  sink: StreamSink,
  done: (code: number) => void,
  fail: (kind: ErrorKind, message: string) => void,
): void {
  const { url, signal, openTimeoutMs, idleTimeoutMs, maxEventChars } = request;
  const feed = request.parser(sink);
  const socket = new WebSocket(url);
  let isOpen = false;
  // A close frame may never be answered, so nothing waits for `onclose`.
  const end = (settle: () => void) => {
    clearTimeout(timer);
    signal.removeEventListener("abort", stop);
    socket.onmessage = socket.onclose = null;
    socket.close();
    settle();
  };
  const stop = () => end(() => fail("network", "closed"));
  const late = () => end(() => (isOpen ? done(RETURN) : fail("buffered", `silent for ${openTimeoutMs} ms`)));
  let timer = setTimeout(late, openTimeoutMs);
  signal.addEventListener("abort", stop);
  if (signal.aborted) stop();
  socket.onclose = ({ code }) =>
    end(() => (code === OVER || code === RETURN ? done(code) : fail("network", `WebSocket closed: ${code}`)));
  socket.onmessage = ({ data }: MessageEvent<string>) => {
    // Pings are not visible here: a socket that is silent for long is opened again, to be sure.
    clearTimeout(timer);
    timer = setTimeout(late, idleTimeoutMs);
    if (!isOpen) sink.open();
    isOpen = true;
    try {
      if (data.length > maxEventChars) throw new RangeError(`an event above ${maxEventChars}`);
      feed(`${data}\n\n`);
    } catch (error) {
      end(() => fail("too-large", String(error)));
    }
  };
}
