import { connect, StreamError } from "./index.js";
import type { ConnectOptions, Hub, State, SubscribeOptions, Subscription } from "./index.js";
import { lockOf, TabsHost, type FromHost, type FromTab, type Greeting, type ToKeep } from "./tabs-host.js";

export interface TabsOptions extends ConnectOptions {
  /**
   * What shares the stream. `auto`: a SharedWorker if its file is of the page's origin, else the tab
   * that holds a lock. Without Web Locks, which need https or localhost, each tab has its stream.
   */
  share?: "auto" | "worker" | "leader";
  /** Makes the SharedWorker from a file of the page's own: `new SharedWorker(…, { type: "module" })`. */
  worker?: () => SharedWorker;
}

/** What a tab has of a subscription, to tell it to the next host. */
interface Kept {
  n: number;
  selector: string;
  options: SubscribeOptions<any>;
  at: string;
  state: State;
}

/** The way to a host. */
interface Line {
  send(message: FromTab): void;
  close(): void;
}

const CALLBACKS = ["onEvent", "onGap", "onState", "onSnapshot", "onEnd", "onError"] as const;

/**
 * As `connect`, with one stream for all tabs of the page's origin.
 *
 * Options that differ between tabs make a stream for each difference. A transport that is an object
 * can't be sent to a worker; with `share: "leader"` it can be used.
 */
export function connectTabs(url: string | URL, options: TabsOptions = {}): Hub {
  const alone = connect(url, coreOf(options));
  if (!globalThis.navigator?.locks || typeof BroadcastChannel !== "function") return alone;
  const tab = crypto.randomUUID();
  const kept = new Map<number, Kept>();
  let count = 0;
  let isClosed = false;
  let leave = () => {};
  let line: Line | undefined;

  // Held while the tab lives, so that the host learns of its end. The host asks for it too, so it
  // must be ours before the host knows of the tab.
  void navigator.locks.request(lockOf(tab), () => {
    if (isClosed) return;
    line = usesWorker(options) ? workerLine() : leaderLine();
    tellAll();
    return new Promise<void>((resolve) => (leave = resolve));
  });

  function take(message: FromHost): void {
    if (message.tab !== tab) return;
    if (message.on === "token") return void answer();
    const one = kept.get(message.n);
    if (!one) return;
    const { on, value } = message;
    if (on === "place") one.at = value;
    else if (on === "onEvent") one.at = (value as { id: string }).id || one.at;
    else if (on === "onState") {
      if (one.state === value) return;
      one.state = value as State;
    }
    if (on === "onError") one.options.onError?.(Object.assign(new StreamError("network", ""), value));
    else if (on !== "place") (one.options[on] as ((value: unknown) => void) | undefined)?.(value);
    if (on === "onState" && value === "closed") kept.delete(message.n);
  }

  async function answer(): Promise<void> {
    try {
      const { token } = options;
      line?.send({ do: "token", tab, token: typeof token === "function" ? await token() : token });
    } catch (error) {
      line?.send({ do: "token", tab, error: String(error) });
    }
  }

  /** Tells a host all subscriptions, each with its place. */
  function tellAll(): void {
    for (const one of kept.values()) tell(one);
  }

  function tell({ n, selector, options: wanted, at }: Kept): void {
    const plain: Partial<SubscribeOptions> = { ...wanted };
    for (const name of [...CALLBACKS, "signal"] as const) delete plain[name];
    if (at) {
      plain.lastEventId = at;
      delete plain.last;
      delete plain.since;
    }
    line?.send({ do: "subscribe", tab, n, selector, options: plain });
  }

  function subscribe<T>(selector: string, wanted: SubscribeOptions<T>): Subscription {
    // For the errors of wrong options; it is never open.
    alone.subscribe(selector, { ...wanted, onState: undefined, signal: AbortSignal.abort() });
    const one: Kept = { n: ++count, selector, options: wanted, at: wanted.lastEventId ?? "", state: "connecting" };
    const subscription: Subscription = {
      selector,
      get lastEventId() {
        return one.at;
      },
      get state() {
        return one.state;
      },
      unsubscribe() {
        if (!kept.delete(one.n)) return;
        line?.send({ do: "unsubscribe", tab, n: one.n });
        one.state = "closed";
        wanted.onState?.("closed");
      },
    };
    if (wanted.signal?.aborted) {
      one.state = "closed";
      return subscription;
    }
    wanted.signal?.addEventListener("abort", () => subscription.unsubscribe(), { once: true });
    kept.set(one.n, one);
    tell(one);
    return subscription;
  }

  // -- hosts --------------------------------------------------------------------------------------

  function workerLine(): Line {
    const lock = `fastsse worker ${alone.url}`;
    let port: MessagePort;
    let hasFailed = false;
    function open(): void {
      const worker =
        options.worker?.() ?? new SharedWorker(new URL("./worker.js", import.meta.url), { type: "module" });
      // Its file can't be loaded here, or the page's policy forbids it.
      worker.onerror = () => {
        if (hasFailed) return;
        hasFailed = true;
        line = leaderLine();
        tellAll();
      };
      port = worker.port;
      port.onmessage = ({ data }: MessageEvent<FromHost | ToKeep>) => {
        if (data.on === "keep") keep(data);
        else take(data);
      };
      const { token, share, worker: _, onError, fetch, ...plain } = options;
      const hasToken = token !== undefined;
      const greeting: Greeting = { do: "connect", url: alone.url, options: plain, hasToken, lock, memory: memory() };
      port.postMessage(greeting);
      // The worker holds it by then; it is granted when the browser has ended the worker.
      setTimeout(() => {
        void navigator.locks.request(lock, { mode: "shared" }, () => {
          if (isClosed || hasFailed) return;
          open();
          tellAll();
        });
      }, 1_000);
    }
    open();
    return { send: (message) => port.postMessage(message), close: () => port.close() };
  }

  function leaderLine(): Line {
    const name = `fastsse ${alone.url} ${JSON.stringify([options.transports, options.credentials])}`;
    const channel = new BroadcastChannel(name);
    let host: TabsHost | undefined;
    let release = () => {};
    // A message to a tab, to the host, or the host's greeting.
    channel.onmessage = ({ data }: MessageEvent<FromHost | FromTab | { on: "host" }>) => {
      if ("do" in data) host?.take(data);
      else if (data.on === "host") tellAll();
      else take(data);
    };
    const abort = new AbortController();
    navigator.locks
      .request(name, { signal: abort.signal }, () => {
        host = new TabsHost(alone.url, coreOf(options), false, (message) =>
          message.tab === tab ? take(message) : channel.postMessage(message),
        );
        channel.postMessage({ on: "host" });
        tellAll();
        return new Promise<void>((resolve) => (release = resolve));
      })
      .catch(() => {}); // Closed before it was granted.
    return {
      send: (message) => (host ? host.take(message) : channel.postMessage(message)),
      close() {
        abort.abort();
        host?.close();
        release();
        channel.close();
      },
    };
  }

  return {
    url: alone.url,
    subscribe,
    request: alone.request,
    close() {
      if (isClosed) return;
      isClosed = true;
      for (const one of [...kept.values()]) {
        one.state = "closed";
        one.options.onState?.("closed");
      }
      kept.clear();
      line?.send({ do: "leave", tab });
      line?.close();
      leave();
    },
  };
}

/** What the client has in the storage of this tab; none where a browser forbids storage. */
function memory(): [string, string][] {
  try {
    return Object.entries<string>(sessionStorage).filter(([name]) => name.startsWith("fastsse "));
  } catch {
    return [];
  }
}

function keep({ name, value }: ToKeep): void {
  try {
    sessionStorage.setItem(name, value);
  } catch {
    // No storage here: the next page finds it out again.
  }
}

function coreOf({ share, worker, ...options }: TabsOptions): ConnectOptions {
  return options;
}

function usesWorker({ share = "auto", worker, transports = [] }: TabsOptions): boolean {
  if (typeof SharedWorker !== "function" || share === "leader") return false;
  if (share === "worker" || worker) return true;
  const isPlain = transports.every((one) => typeof one === "string");
  return isPlain && new URL(import.meta.url).origin === globalThis.location?.origin;
}
