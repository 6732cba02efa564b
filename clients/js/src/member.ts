import { matcher } from "./selector.js";
import type { HubEvent, State, SubscribeOptions, Subscription } from "./types.js";

const START = { last: "last", lastEach: "last_each", since: "since" };
const VIEW = { event: "event", filter: "filter", maxRate: "max_rate", until: "until", untilData: "until_data" };
const CALLBACKS = ["onEvent", "onGap", "onState", "onSnapshot", "onEnd", "onError"] as const;
type Callback = (typeof CALLBACKS)[number];
const KNOWN = [...CALLBACKS, ...Object.keys({ ...START, ...VIEW }), "lastEventId", "signal"];

/** Query parameters, in a fixed order, so that equal ones have equal texts. */
export type Params = [string, string][];

/** A subscription, on the inside: a selector with callbacks, and its place in the stream. */
export interface Member extends Subscription {
  /** What it is sent of its events. */
  readonly view: Params;
  /** The place of a member that is not live; a live one is where its stream is. */
  behind: string;
  isLive: boolean;
  state: State;
  /** What came while older events are fetched; null when there are none to wait for. */
  held: HubEvent[] | null;
  /** The place of its stream. */
  place(): string;
  wants(event: HubEvent): boolean;
  /** The parameters with which it goes on, or begins. */
  asks(): Params;
  become(state: State): void;
  /** Calls back while it is subscribed. A fault of the application does not end the stream. */
  callBack(name: Callback, value?: unknown): void;
}

/** Throws a TypeError for options that are unknown or contradict each other. */
export function makeMember(selector: string, options: SubscribeOptions<any>): Member {
  const unknown = Object.keys(options).find((name) => !KNOWN.includes(name));
  if (unknown) throw new TypeError(`subscribe: ${unknown} is unknown; known are ${KNOWN}`);
  if (typeof options.onEvent !== "function") throw new TypeError("subscribe: onEvent is missing");
  const start = paramsOf(START, options);
  if (start[1]) throw new TypeError(`subscribe: can't combine ${start.map(([name]) => name)}`);
  const matches = matcher(selector);
  const member: Member = {
    selector,
    view: paramsOf(VIEW, options),
    behind: options.lastEventId ?? "",
    isLive: false,
    state: "connecting",
    held: null,
    place: () => "",
    get lastEventId() {
      return member.isLive ? member.place() : member.behind;
    },
    wants: ({ topic }) => (typeof topic === "string" ? matches(topic) : topic.some(matches)),
    asks() {
      if (!member.behind) return start;
      return [...start.filter(([name]) => name === "last_each"), ["last_event_id", member.behind]];
    },
    become(state) {
      if (member.state === state) return;
      member.state = state;
      guarded(() => options.onState?.(state));
    },
    callBack(name, value) {
      // An unsubscribed page is called no more.
      if (member.state !== "closed") guarded(() => options[name]?.(value as never));
    },
    unsubscribe() {},
  };
  return member;
}

/** Calls; an error is reported by the browser, as any that is not caught. */
export function guarded(callback: () => void): void {
  try {
    callback();
  } catch (error) {
    setTimeout(() => {
      throw error;
    });
  }
}

function paramsOf(names: Record<string, string>, options: object): Params {
  return Object.entries(names).flatMap(([key, name]): Params => {
    const value: unknown = (options as Record<string, unknown>)[key];
    return value === undefined ? [] : [[name, String(value)]];
  });
}
