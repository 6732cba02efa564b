import { StreamError } from "./errors.js";
import type { Transport } from "./transport.js";

const TYPES = ["message", ...["gap", "refused", "end", "snapshot", "expiring"].map((name) => `fastsse.${name}`)];

/** Streams by the browser's EventSource: its network view shows events; types must be known. */
export const eventSourceTransport: Transport = {
  name: "eventsource",
  isAvailable: () => typeof EventSource === "function",
  async run(request, sink) {
    const { url, signal } = request;
    await request.prepare();
    const ticket = await request.ticket();
    if (ticket) url.searchParams.set("ticket", ticket);
    // Ids that come without an event are not visible to scripts.
    url.searchParams.set("initial_id", "data");
    return new Promise((_, reject) => {
      const source = new EventSource(url, { withCredentials: request.credentials === "include" });
      let isReturning = false;
      const close = () => {
        clearTimeout(timer);
        source.close();
        reject(new StreamError(kind, "closed"));
      };
      let kind: "network" | "buffered" = "network";
      const timer = setTimeout(() => {
        kind = "buffered";
        close();
      }, request.openTimeoutMs);
      signal.addEventListener("abort", close);
      const take = (event: MessageEvent<string>) => {
        clearTimeout(timer);
        sink.block(event.type, event.data || null, event.lastEventId);
      };
      const named = ["event", "until"].flatMap((name) => url.searchParams.get(name)?.split(",") ?? []);
      for (const type of new Set([...TYPES, ...(request.eventTypes ?? []), ...named])) source.addEventListener(type, take);
      source.onopen = () => {
        isReturning = false;
        sink.open();
      };
      // It returns by itself once, after the server's `retry:`, which scripts do not see.
      source.onerror = () => {
        if (source.readyState === EventSource.CLOSED || isReturning) close();
        else sink.waiting();
        isReturning = true;
      };
    });
  },
};
