import { errorOf, StreamError } from "./errors.js";
import { eventSourceTransport } from "./eventsource.js";
import { guarded, makeMember } from "./member.js";
import { makeStream, type Host, type Settings, type Stream } from "./stream.js";
import { tokensFrom } from "./tokens.js";
import { asStreamError, fetchTransport, page, parser, type Transport, type TransportName } from "./transport.js";
import type { ConnectOptions, Hub, Subscription, SubscribeOptions } from "./types.js";

const BY_NAME = {
  fetch: fetchTransport,
  eventsource: eventSourceTransport,
  poll: loaded("poll", 0, () => import("./poll.js")),
  websocket: loaded("websocket", 30_000, () => import("./websocket.js")),
};
// A shorter address has no 100 topics, the most that a server takes in one.
const SHORT_CHARS = 800;
const DEFAULTS = {
  transports: ["fetch", "eventsource", "poll", "websocket"] as const,
  credentials: "same-origin" as const,
  retryMinMs: 1_000,
  retryMaxMs: 30_000,
  openTimeoutMs: 5_000,
  idleTimeoutMs: 60_000,
  maxEventChars: 2 ** 24,
};

/**
 * A connection to a fastsse server, for any number of subscriptions. Nothing is sent before the
 * first of them.
 *
 * @param server its address (`https://sse.example.com`), a path of the page's own (`/`), or `…/events`
 */
export function connect(server: string | URL, options: ConnectOptions = {}): Hub {
  const url = addressOf(server);
  // A member that is undefined is as one that is missing.
  const given = Object.entries(options).filter(([, value]) => value !== undefined);
  const settings: Settings = { ...DEFAULTS, ...Object.fromEntries(given) };
  const tokens = tokensFrom(settings.token);
  const streams = new Set<Stream>();
  const tab = globalThis.document;
  const known = settings.transports.map((one) => BY_NAME[one as TransportName] ?? (one as Transport));
  let transports = known.filter((one) => one.isAvailable?.() ?? true);
  let chosen = transports.find(({ name }) => name === memory(url)) ?? transports[0];
  let hiddenTimer: ReturnType<typeof setTimeout>;
  let paused: Promise<void> | undefined;
  let resume = () => {};

  function subscribe<T>(selector: string, wanted: SubscribeOptions<T>): Subscription {
    const member = makeMember(selector, wanted);
    const { lastEach, signal } = wanted;
    if (signal?.aborted) {
      member.become("closed");
      return member;
    }
    // Subscriptions with a snapshot begin together, because pages of history have none.
    const key = JSON.stringify([member.view, lastEach, lastEach && member.behind]);
    // A snapshot is of all topics of a stream, so a stream that runs takes no other.
    let stream = [...streams].find((one) => one.key === key && !(lastEach && one.isRunning));
    if (!stream) {
      if (!streams.size) listen("addEventListener");
      streams.add((stream = makeStream(host, member.view, key)));
    }
    const { add, members, remove } = stream;
    member.unsubscribe = () => members.has(member) && remove(member);
    signal?.addEventListener("abort", member.unsubscribe, { once: true });
    add(member);
    return member;
  }

  // -- requests -----------------------------------------------------------------------------------

  async function send(target: URL | string, init: RequestInit): Promise<Response> {
    const token = await tokens.get();
    const headers = new Headers(init.headers);
    if (token) headers.set("Authorization", `Bearer ${token}`);
    const { credentials } = settings;
    return (settings.fetch ?? fetch)(target, { cache: "no-store", credentials, ...init, headers });
  }

  async function request(path: string, init: RequestInit = {}): Promise<Response> {
    const target = new URL(path, url);
    const response = await send(target, init);
    return response.status === 401 && host.refresh() ? send(target, init) : response;
  }

  async function post(path: string, body?: string): Promise<Response> {
    const response = await request(path, { method: "POST", body });
    if (!response.ok) throw await errorOf(response);
    return response;
  }

  async function ticket(): Promise<string | undefined> {
    if (settings.token) return ((await (await post("tickets")).json()) as { ticket: string }).ticket;
  }

  // -- for streams --------------------------------------------------------------------------------

  const host: Host = {
    settings,
    current() {
      if (!chosen) throw new StreamError("unsupported", "no transport");
      return chosen;
    },
    choose(transport) {
      chosen = transport;
      memory(url, transport.name);
    },
    instead(error, outMs, tried) {
      if (error.kind === "unsupported") {
        // The next one of the list is in its place.
        transports = transports.filter((one) => one !== (tried ?? chosen));
        if (!tried) chosen = transports[0];
        error.isFinal = !chosen;
        return chosen;
      }
      if (/refused|token/.test(error.kind)) return;
      const others = transports.filter(
        // Without `afterMs` it is NaN, and no time is enough.
        (one, at) => one !== chosen && outMs >= Math.max(settings.openTimeoutMs, at && one.afterMs!),
      );
      return others[others.indexOf(tried!) + 1];
    },
    requestOf(params, signal) {
      const target = new URL(`events?${new URLSearchParams(params)}`, url);
      async function prepare(): Promise<void> {
        await tokens.get();
        if (target.href.length > SHORT_CHARS) await (await import("./feed.js")).shorten(target, post);
      }
      const given = { send, ticket, errorOf, page, parser, StreamError, prepare, signal };
      return { ...settings, ...given, url: target, first: transports[0]!, use: host.choose };
    },
    refresh() {
      tokens.expire();
      return tokens.isRenewable;
    },
    renew(stream) {
      // If it fails, the stream ends at `exp` and is opened with the token of then.
      if (host.refresh()) {
        post(`renew?stream=${encodeURIComponent(stream)}`).catch((error) => host.fail(asStreamError(error)));
      }
    },
    fail: (error) => guarded(() => settings.onError?.(error)),
    allowed: () => paused,
    emptied(stream) {
      streams.delete(stream);
      if (!streams.size) listen("removeEventListener");
    },
  };

  // -- the page -----------------------------------------------------------------------------------

  function listen(change: "addEventListener" | "removeEventListener"): void {
    globalThis[change]?.("online", wake);
    tab?.[change]("visibilitychange", see);
    see();
  }

  function wake(): void {
    for (const stream of streams) stream.wake();
  }

  function see(): void {
    clearTimeout(hiddenTimer);
    if (tab?.visibilityState !== "hidden") {
      paused = undefined;
      resume();
      wake();
    } else if (settings.pauseHiddenMs! >= 0) hiddenTimer = setTimeout(pause, settings.pauseHiddenMs);
  }

  function pause(): void {
    paused = new Promise((resolve) => (resume = resolve));
    for (const stream of streams) stream.restart();
  }

  return {
    url,
    subscribe,
    request,
    close() {
      for (const { members } of streams) for (const member of members) member.unsubscribe();
    },
  };
}

/** A transport whose code is loaded when it is used. */
function loaded(name: string, afterMs: number, load: () => Promise<{ transport: Transport }>): Transport {
  return {
    name,
    afterMs,
    async run(request, sink) {
      return (await load()).transport.run(request, sink);
    },
  };
}

/** The address with a slash at the end, below which the routes are. */
function addressOf(server: string | URL): string {
  const base = new URL(server, globalThis.location?.href);
  base.pathname = base.pathname.replace(/(\/events)?\/?$/, "/");
  base.search = base.hash = "";
  return base.href;
}

/** The transport that works here, kept for the tab: a proxy that buffers costs its wait once. */
function memory(url: string, name?: string): string | null {
  try {
    if (name) sessionStorage.setItem(`fastsse ${url}`, name);
    return sessionStorage.getItem(`fastsse ${url}`);
  } catch {
    return null; // No storage here.
  }
}
