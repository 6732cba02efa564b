import { connect, type ConnectOptions, type Hub, type Subscription, type SubscribeOptions } from "./index.js";

/** From a tab to the host of the streams. `tab` is its name, `n` counts its subscriptions. */
export type FromTab =
  | { do: "subscribe"; tab: string; n: number; selector: string; options: Partial<SubscribeOptions> }
  | { do: "unsubscribe"; tab: string; n: number }
  | { do: "token"; tab: string; token?: string; error?: string }
  | { do: "leave"; tab: string };

/** The first message to a worker. `memory` has the entries of the tab's storage that are the client's. */
export interface Greeting {
  do: "connect";
  url: string;
  options: ConnectOptions;
  hasToken: boolean;
  lock: string;
  memory: [string, string][];
}

/** From a worker to a tab: what is to be in its storage. */
export interface ToKeep {
  on: "keep";
  name: string;
  value: string;
}

/** From the host to a tab. */
export type FromHost =
  | { tab: string; n: number; on: "onEvent" | "onGap" | "onState" | "onSnapshot" | "onEnd" | "onError"; value: unknown }
  | { tab: string; n: number; on: "place"; value: string }
  | { tab: string; on: "token" };

const TOKEN_TIMEOUT_MS = 15_000;
const PLACE_MS = 2_000;

/** Holds the streams of all tabs: in a SharedWorker, or in the tab that leads. */
export class TabsHost {
  readonly #hub: Hub;
  readonly #tabs = new Map<string, Map<number, Subscription>>();
  readonly #places = new Map<Subscription, string>();
  readonly #timer: ReturnType<typeof setInterval>;
  #asked: ((answer: { token?: string; error?: string }) => void) | undefined;

  /**
   * @param options what can be cloned of the options of `connect`
   * @param asksTabs whether a token is fetched by a tab; else `options.token` does it
   * @param send sends to a tab
   */
  constructor(
    url: string,
    options: ConnectOptions,
    asksTabs: boolean,
    private readonly send: (message: FromHost) => void,
  ) {
    this.#hub = connect(url, asksTabs ? { ...options, token: () => this.#token() } : options);
    this.#timer = setInterval(() => this.#tellPlaces(), PLACE_MS);
  }

  take(message: FromTab): void {
    const { tab } = message;
    if (message.do === "leave") this.#leave(tab);
    else if (message.do === "token") this.#asked?.(message);
    else if (message.do === "unsubscribe") this.#end(tab, message.n);
    else this.#subscribe(tab, message.n, message.selector, message.options);
  }

  close(): void {
    clearInterval(this.#timer);
    this.#hub.close();
  }

  #subscribe(tab: string, n: number, selector: string, options: Partial<SubscribeOptions>): void {
    let known = this.#tabs.get(tab);
    if (!known) {
      this.#tabs.set(tab, (known = new Map()));
      // Granted when the tab is closed or has crashed.
      void navigator.locks.request(lockOf(tab), () => this.#leave(tab));
    }
    if (known.has(n)) return;
    const tell = (on: Exclude<FromHost["on"], "token" | "place">) => (value?: unknown) =>
      this.send({ tab, n, on, value });
    const one = this.#hub.subscribe(selector, {
      ...options,
      onEvent: tell("onEvent"),
      onGap: tell("onGap"),
      onState: tell("onState"),
      onSnapshot: tell("onSnapshot"),
      onEnd: tell("onEnd"),
      // An error is cloned without its members.
      onError: (error) =>
        tell("onError")({ ...error, kind: error.kind, name: error.name, message: error.message }),
    });
    known.set(n, one);
  }

  #end(tab: string, n: number): void {
    const known = this.#tabs.get(tab);
    const one = known?.get(n);
    if (!one) return;
    known?.delete(n);
    this.#places.delete(one);
    one.unsubscribe();
  }

  #leave(tab: string): void {
    for (const n of [...(this.#tabs.get(tab)?.keys() ?? [])]) this.#end(tab, n);
    this.#tabs.delete(tab);
  }

  /** The tabs remember their places, to go on at another host. */
  #tellPlaces(): void {
    for (const [tab, known] of this.#tabs) {
      for (const [n, one] of known) {
        if (this.#places.get(one) === one.lastEventId) continue;
        this.#places.set(one, one.lastEventId);
        this.send({ tab, n, on: "place", value: one.lastEventId });
      }
    }
  }

  /** Asks one tab after the other: one may be frozen. */
  async #token(): Promise<string | undefined> {
    let error = "no tab answered";
    for (const tab of [...this.#tabs.keys()]) {
      const answer = await new Promise<{ token?: string; error?: string }>((resolve) => {
        this.#asked = resolve;
        this.send({ tab, on: "token" });
        setTimeout(resolve, TOKEN_TIMEOUT_MS, { error });
      });
      if (answer.error === undefined) return answer.token;
      error = answer.error;
    }
    throw new Error(error);
  }
}

/** The lock that a tab holds while it lives. */
export const lockOf = (tab: string) => `fastsse tab ${tab}`;
