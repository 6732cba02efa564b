import type { Hub } from "./index.js";

/** What a publisher may say of an event; the names of the HTTP fields. */
export interface PublishFields {
  event?: string;
  id?: string;
  retry?: number;
  private?: boolean;
  meta?: Record<string, string | number | boolean>;
  /** Seconds, or a span (`10m`), after which no reader gets it. */
  ttl?: number | string;
  end?: boolean;
}

/** An event that waits to be sent. */
export interface Waiting extends PublishFields {
  topic: string | string[];
  data: unknown;
  /** The `Idempotency-Key`: the server takes an event once, however often it is sent. */
  key: string;
  /** When it was published, in unix milliseconds. */
  at: number;
}

export interface OutboxOptions {
  /** Events that may wait. 1,000. */
  maxEvents?: number;
  /** Characters of JSON that may wait. 1 Mi. */
  maxChars?: number;
  /**
   * Milliseconds that an event is tried for. 540,000: the server remembers keys for ten minutes
   * (`key_window`), and an event that is sent again later could be taken twice.
   */
  maxAgeMs?: number;
  /** Keeps events in localStorage under this name, and sends those of an earlier page. */
  persist?: string;
  retryMinMs?: number;
  retryMaxMs?: number;
  /** Called for each event that was taken, also for one of an earlier page. */
  onSent?(event: Waiting, id: string): void;
  /** Called for each event that is given up. */
  onFailed?(event: Waiting, error: Error): void;
}

export interface Outbox {
  /** Events that wait. */
  readonly size: number;
  /**
   * Sends an event, after those before it. Resolves with its id when the server has it. Rejects when
   * the outbox is full, the server refuses the event, or `maxAgeMs` is over.
   */
  publish(topic: string | string[], data: unknown, fields?: PublishFields): Promise<string>;
  /** Sends no more. What is persisted stays. */
  close(): void;
}

interface Item {
  event: Waiting;
  chars: number;
  resolve(id: string): void;
  reject(error: Error): void;
}

const RETRIED = [408, 425, 429];

/** Publishes from a page: in order, again after a lost connection, each event once. */
export function createOutbox(hub: Hub, options: OutboxOptions = {}): Outbox {
  const { maxEvents = 1_000, maxChars = 2 ** 20, maxAgeMs = 540_000, persist } = options;
  const { retryMinMs = 1_000, retryMaxMs = 30_000 } = options;
  const prefix = `fastsse outbox ${persist} `;
  const items: Item[] = [];
  let chars = 0;
  let isSending = false;
  let isClosed = false;
  let wake = () => {};

  function publish(topic: string | string[], data: unknown, fields: PublishFields = {}): Promise<string> {
    const event: Waiting = { ...fields, topic, data, key: crypto.randomUUID(), at: Date.now() };
    return new Promise((resolve, reject) => {
      const text = JSON.stringify(event);
      if (isClosed) return reject(new Error("the outbox is closed"));
      if (items.length >= maxEvents || chars + text.length > maxChars) {
        return reject(new Error(`the outbox is full: ${items.length} events, ${chars} characters`));
      }
      // A full localStorage throws, which rejects.
      if (persist) localStorage.setItem(prefix + event.key, text);
      add({ event, chars: text.length, resolve, reject });
    });
  }

  function add(item: Item): void {
    items.push(item);
    chars += item.chars;
    if (!isSending) void run();
  }

  async function run(): Promise<void> {
    isSending = true;
    for (let failures = 0; items[0] && !isClosed; ) {
      const item = items[0];
      try {
        const id = await send(item.event);
        failures = 0;
        done(item);
        item.resolve(id);
        options.onSent?.(item.event, id);
      } catch (error) {
        const leftMs = item.event.at + maxAgeMs - Date.now();
        if (error instanceof Refused || leftMs <= 0) {
          done(item);
          item.reject(error as Error);
          options.onFailed?.(item.event, error as Error);
        } else await pause(Math.min(leftMs, retryMinMs * 2 ** failures++, retryMaxMs));
      }
    }
    isSending = false;
  }

  async function send({ key, at, ...event }: Waiting): Promise<string> {
    const response = await hub.request("events", {
      method: "POST",
      headers: { "Content-Type": "application/json", "Idempotency-Key": key },
      body: JSON.stringify(event),
    });
    const { ok, status } = response;
    const answer = (await response.json().catch(() => null)) as { id?: string; detail?: string } | null;
    if (ok && answer?.id) return answer.id;
    // Without an id it is not the answer of the server, but a page of a network that wants a login.
    const message = `the server answered ${status} ${ok ? "without an id" : (answer?.detail ?? "")}`;
    const isFinal = status >= 400 && status < 500 && !RETRIED.includes(status);
    throw isFinal ? new Refused(message) : new Error(message);
  }

  function done(item: Item): void {
    items.splice(items.indexOf(item), 1);
    chars -= item.chars;
    if (persist) localStorage.removeItem(prefix + item.event.key);
  }

  function pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      wake = resolve;
      setTimeout(resolve, Math.max(100, ms * (1 + Math.random() / 2)));
    });
  }

  /** Events of earlier pages, in their order. Another page may send one too: its key is the same. */
  function restore(): void {
    const names = Object.keys(localStorage).filter((name) => name.startsWith(prefix));
    const kept = names.flatMap((name) => {
      const text = localStorage.getItem(name) ?? "";
      const event = eventOf(text);
      if (!event) localStorage.removeItem(name);
      return event ? [{ event, chars: text.length }] : [];
    });
    kept.sort((one, other) => one.event.at - other.event.at);
    for (const one of kept.slice(0, maxEvents)) add({ ...one, resolve() {}, reject() {} });
  }

  const online = () => wake();
  globalThis.addEventListener?.("online", online);
  if (persist) restore();
  return {
    get size() {
      return items.length;
    },
    publish,
    close() {
      isClosed = true;
      globalThis.removeEventListener?.("online", online);
      wake();
    },
  };
}

/** A stored event; undefined for another text. */
function eventOf(text: string): Waiting | undefined {
  try {
    const event = JSON.parse(text) as Waiting | null;
    if (event?.key && event.at) return event;
  } catch {
    // Not ours, or cut.
  }
}

/** The server will never take this event. */
class Refused extends Error {}
