import type { StreamError } from "./errors.js";
import type { Transport, TransportName } from "./transport.js";

/** An event, as the server's `envelope=json` has it: what was read can be published. */
export interface HubEvent<T = unknown> {
  /** The topic; a list for an event of several topics. */
  topic: string | string[];
  /** The id to resume after: a position, or the publisher's own id. */
  id: string;
  /** The type; null for an event without one. */
  event: string | null;
  /** JSON if the publisher sent JSON, else a string. */
  data: T;
  /** Named values that the publisher added. */
  meta: Record<string, string | number | boolean> | null;
  /** When it was published, in unix milliseconds. */
  time: number;
}

/** Events are missing before the next one. An application that shows state fetches it again. */
export interface Gap {
  reason: "evicted" | "unknown" | "future" | "lagged" | "lost";
  requested: string;
  from: string;
}

export type State =
  /** A request is under way. */
  | "connecting"
  /** Events arrive. */
  | "open"
  /** Closed by a fault; the next attempt is planned. */
  | "waiting"
  /** Closed by `pauseHidden` while no one sees the page. */
  | "paused"
  /** Ended for good: unsubscribed, closed, ended by the server, or refused for a reason that lasts. */
  | "closed";

/** Where a subscription begins. Without a member: with the next event. One member at most. */
export interface Start {
  /** With the newest N events of the selector. */
  last?: number;
  /** With the newest N events of each topic; `onSnapshot` is called after them. */
  lastEach?: number;
  /** At an RFC 3339 time, a span before now (`10m`), or `earliest`. */
  since?: string;
  /** After this event, or `earliest`. */
  lastEventId?: string;
}

/** Which events a subscription gets. Subscriptions with equal views share a stream. */
export interface View {
  /** Only these types; `message` is an event without a type. */
  event?: string | string[];
  /** Only events for which this expression holds: `data.price > 5`. */
  filter?: string;
  /** At most so many events a second of each topic and type, the newest: 0.1 to 100. */
  maxRate?: number;
  /** The subscription ends behind an event of one of these types. */
  until?: string | string[];
  /** The subscription ends behind an event with this data. */
  untilData?: string;
}

export interface SubscribeOptions<T = unknown> extends Start, View {
  onEvent(event: HubEvent<T>): void;
  onGap?(gap: Gap): void;
  onState?(state: State): void;
  /** All of `lastEach` has arrived. */
  onSnapshot?(): void;
  /** The topics have ended, or `until` was met: nothing more comes. */
  onEnd?(): void;
  onError?(error: StreamError): void;
  /** Unsubscribes. */
  signal?: AbortSignal;
}

export interface Subscription {
  readonly selector: string;
  /** The place to resume after, for `lastEventId` of a later subscription. */
  readonly lastEventId: string;
  readonly state: State;
  unsubscribe(): void;
}

export interface ConnectOptions {
  /** A token (JWT), or what fetches one. A function is called again before `exp` and after a 401. */
  token?: string | (() => string | undefined | Promise<string | undefined>);
  /**
   * Those that may be used, or transports of one's own. The first is used where it works; one behind
   * it stands in for it (`Transport.afterMs`).
   */
  transports?: readonly (TransportName | Transport)[];
  /** For requests across origins; `include` sends cookies. */
  credentials?: RequestCredentials;
  /** Milliseconds before the first retry, where the server names none. 1,000. */
  retryMinMs?: number;
  /** The longest wait between two attempts, unless the server asks for more. 30,000. */
  retryMaxMs?: number;
  /** Failed attempts in a row after which a subscription is closed. Unlimited. */
  retries?: number;
  /** Milliseconds in which the opening must arrive; a proxy that buffers holds it back. 5,000. */
  openTimeoutMs?: number;
  /** Milliseconds without a byte after which a connection counts as lost. 60,000. */
  idleTimeoutMs?: number;
  /** The longest event, in characters. 16 Mi. */
  maxEventChars?: number;
  /** Closes streams when the page was hidden for so long, and resumes when it is seen. Off. */
  pauseHiddenMs?: number;
  /** Types that an EventSource listens to, besides those of `event`. It needs to know them. */
  eventTypes?: readonly string[];
  /** Called with each fault, also with those that are retried. */
  onError?(error: StreamError): void;
  fetch?: typeof fetch;
}

export interface Hub {
  /** The address of the server, with a slash at the end. */
  readonly url: string;
  /**
   * Subscribes to a topic, a URI template (`orders/{id}`) or `*`.
   *
   * All subscriptions with an equal view share one stream. A new one begins where its `Start`
   * says and costs the others no event. Throws a TypeError for options that contradict each other.
   */
  subscribe<T = unknown>(selector: string, options: SubscribeOptions<T>): Subscription;
  /** Sends a request to a path of the server, such as `presence?topic=a`, with the token. */
  request(path: string, init?: RequestInit): Promise<Response>;
  /** Closes all streams. */
  close(): void;
}
