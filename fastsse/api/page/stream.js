// Reads an event stream by fetch: EventSource can send no token, and gives events only by types that
// are known before.

export class EventReader {
  constructor(onEvent) {
    this.onEvent = onEvent;
    this.lastEventId = "";
    this.retryMs = 3000;
    this.begin();
  }

  begin() {
    this.decoder = new TextDecoder();
    this.rest = "";
    this.clear();
    this.id = this.lastEventId;
  }

  clear() { this.data = []; this.type = ""; }

  feed(bytes) {
    const lines = (this.rest + this.decoder.decode(bytes, {stream: true})).split("\n");
    this.rest = lines.pop();
    lines.forEach((line) => this.take(line));
  }

  take(line) {
    if (line === "") { this.dispatch(); return; }
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "data") this.data.push(value);
    else if (name === "event") this.type = value;
    else if (name === "id") this.id = value;
    else if (name === "retry" && /^\d+$/.test(value)) this.retryMs = Number(value);
  }

  dispatch() {
    this.lastEventId = this.id;
    if (this.data.length) {
      this.onEvent({type: this.type || "message", data: this.data.join("\n"), id: this.id});
    }
    this.clear();
  }
}

function wait(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); });
  });
}

// Header values are bytes to fetch; an id is UTF-8.
const encodeId = (id) => String.fromCharCode(...new TextEncoder().encode(id));

async function readOnce(url, reader, signal, token, onOpen) {
  const headers = reader.lastEventId ? {"Last-Event-ID": encodeId(reader.lastEventId)} : {};
  if (token) headers.Authorization = "Bearer " + token;
  const response = await fetch(url, {headers, signal, cache: "no-store"});
  if (response.status === 204) throw new Error("The topic has ended.");
  if (!response.ok) throw new Error((await response.json()).detail);
  onOpen();
  reader.begin();
  const body = response.body.getReader();
  for (;;) {
    const {done, value} = await body.read();
    if (done) return;
    reader.feed(value);
  }
}

// Reads until the signal aborts, and reconnects. A refusal ends it. `say` gets a text and a kind.
export async function follow(url, {signal, token, onEvent, say}) {
  const reader = new EventReader(onEvent);
  while (!signal.aborted) {
    try {
      say("connecting", "trying");
      await readOnce(url, reader, signal, token, () => say("live", "live"));
    } catch (error) {
      if (signal.aborted) break;
      if (!(error instanceof TypeError)) { say(error.message, "trying"); return; }
    }
    say("connection lost, coming back", "trying");
    await wait(reader.retryMs, signal);
  }
  say("not connected", "");
}
