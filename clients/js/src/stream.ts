import { StreamError } from "./errors.js";
import { catchUp, isPosition, sleep } from "./history.js";
import type { Member, Params } from "./member.js";
import { asStreamError, type Ending, type StreamRequest, type Transport } from "./transport.js";
import type { ConnectOptions, HubEvent, State } from "./types.js";

const CONTROL = "fastsse.";
const CALLBACKS: Record<string, "onGap" | "onSnapshot"> = { gap: "onGap", snapshot: "onSnapshot" };
// No server and no application makes attempts come faster than this.
const RETRY_MS_MIN = 100;
// A stream that lived so long was no failure.
const STEADY_MS = 5_000;
// Subscriptions of one moment, such as those of a page that is drawn, come in one request.
const GATHER_MS = 20;
const LEFT_MS = 1_000;
const HELD_CHARS_MAX = 2 ** 24;

/** The options of a hub, with their defaults. */
export type Settings = ConnectOptions &
  Required<
    Pick<
      ConnectOptions,
      | ("transports" | "credentials" | "retryMinMs" | "retryMaxMs" | "openTimeoutMs")
      | ("idleTimeoutMs" | "maxEventChars")
    >
  >;

/** What a stream needs of its hub. */
export interface Host {
  readonly settings: Settings;
  current(): Transport;
  /** From now on it is the transport, also of later pages of the tab. */
  choose(transport: Transport): void;
  /** The transport to try at once after a fault, if any; `tried` was the last that was tried so. */
  instead(error: StreamError, outMs: number, tried?: Transport): Transport | undefined;
  requestOf(params: Params, signal: AbortSignal): StreamRequest;
  /** The next request has a fresh token. False: there is none. */
  refresh(): boolean;
  renew(stream: string): void;
  fail(error: StreamError): void;
  /** Resolves when streams may be open; undefined when they may now. */
  allowed(): Promise<void> | undefined;
  emptied(stream: Stream): void;
}

/** The stream of all subscriptions with one view, across connections. */
export interface Stream {
  /** Names the view; a hub has one stream for a key. */
  readonly key: string;
  readonly members: ReadonlySet<Member>;
  readonly isRunning: boolean;
  add(member: Member): void;
  remove(member: Member): void;
  /** Ends a wait: the network is back, or the page is seen. */
  wake(): void;
  /** Closes the connection; it opens again when `Host.allowed` says so. */
  restart(): void;
}

export function makeStream(host: Host, view: Params, key: string): Stream {
  const members = new Set<Member>();
  const { settings } = host;
  let state: State = "connecting";
  let isRunning = false;
  let timer: ReturnType<typeof setTimeout>;
  let endWait: (() => void) | undefined;
  let triedAt = 0;
  let failures = 0;
  let refreshes = 0;
  // Since when attempts fail; 0 when the last one did not.
  let outSince = 0;
  let trial: Transport | undefined;
  let retryMs = settings.retryMinMs;
  // The place of the live members: the last id.
  let place = "";
  // Of the connection.
  let cut = new AbortController();
  let asked = "";
  let carried: Member[] = [];
  let openedAt = 0;
  let heldChars = 0;
  let hasBegun = false;
  let isOver = false;
  let isRestarting = false;
  let refusal: StreamError | undefined;

  // -- subscriptions ------------------------------------------------------------------------------

  function add(member: Member): void {
    member.place = () => place;
    members.add(member);
    member.become(state === "waiting" ? state : "connecting");
    plan(isRunning ? GATHER_MS : 0);
  }

  function remove(member: Member): void {
    settle(member);
    members.delete(member);
    member.become("closed");
    // From now on its events are ignored; a stream without them is not urgent.
    plan(members.size ? LEFT_MS : 0);
  }

  function plan(delayMs: number): void {
    clearTimeout(timer);
    timer = setTimeout(update, delayMs);
  }

  function update(): void {
    if (!isRunning) void run();
    else if (!members.size || selectors(members) !== asked) restart();
    else if (hasBegun) {
      // A place that is no position is known to be reached by no page. That of an opening is one.
      if (isPosition(place)) begin();
      else restart();
    }
  }

  /** A member that is not live keeps the place from which it goes on. */
  function settle(member: Member): void {
    if (member.isLive) member.behind = place;
    member.isLive = false;
    member.held = null;
  }

  function become(next: State): void {
    state = next;
    for (const member of members) member.become(next);
  }

  function fail(error: StreamError, those: Iterable<Member> = members): void {
    host.fail(error);
    for (const member of those) member.callBack("onError", error);
  }

  /** Reports a fault. True: trying again is useless. */
  function isFinal(error: StreamError, tries: number, those?: Iterable<Member>): boolean {
    if (/40[13]/.test(error.status as never) && !refreshes++ && host.refresh()) error.isFinal = false;
    if (tries >= settings.retries!) error.isFinal = true;
    fail(error, those);
    return error.isFinal;
  }

  /** How long to wait: what the server asks for at least, because it spreads its clients by it. */
  function delayMs(tries: number, askedMs = 0): number {
    const grownMs = Math.min(retryMs * 2 ** tries, Math.max(settings.retryMaxMs, retryMs));
    return Math.max(askedMs, grownMs) * (1 + Math.random() / 2);
  }

  // -- connections --------------------------------------------------------------------------------

  function restart(): void {
    isRestarting = true;
    cut.abort();
    endWait?.();
  }

  async function run(): Promise<void> {
    isRunning = true;
    let isDone = false;
    let error: StreamError | undefined;
    while (members.size && !isDone) {
      const closed = host.allowed();
      if (closed) {
        become("paused");
        await closed;
        continue;
      }
      // Node warns of a negative time.
      await sleep(Math.max(0, triedAt + RETRY_MS_MIN - Date.now()));
      triedAt = Date.now();
      isRestarting = false;
      error = undefined;
      try {
        isDone = (await connect()) === "done" || isOver;
      } catch (caught) {
        error = asStreamError(caught);
      }
      members.forEach(settle);
      if (!isDone && !isRestarting) {
        isDone = judge((error = refusal ?? error));
        if (!isDone && !trial) await wait(error?.retryAfterMs);
      }
    }
    isRunning = false;
    finish(!error);
  }

  async function connect(): Promise<Ending> {
    become("connecting");
    const [first = [], ...others] = groups(members);
    const start = others.length ? [] : first[0]!.asks();
    carried = others.length ? [] : first;
    asked = selectors(members);
    isOver = false;
    refusal = undefined;
    openedAt = heldChars = 0;
    cut = new AbortController();
    try {
      const sink = { open, block, retry, waiting: () => become("waiting") };
      return await (trial ?? host.current()).run(request(asked, start, cut.signal), sink);
    } finally {
      cut.abort();
      // Who joins while there is no connection begins with the next one, as all do.
      hasBegun = false;
    }
  }

  function request(topics: string, start: Params, signal: AbortSignal): StreamRequest {
    const named = topics.split("\n").map((topic): [string, string] => ["topic", topic]);
    return host.requestOf([...named, ["envelope", "json"], ...view, ...start], signal);
  }

  /** Reports a fault. True: there is no other attempt. */
  function judge(error: StreamError | undefined): boolean {
    const now = Date.now();
    if (openedAt && now - openedAt > STEADY_MS) failures = 0;
    const tried = trial;
    trial = undefined;
    if (!error) return false;
    outSince ||= openedAt ? now : triedAt;
    trial = host.instead(error, now - outSince, tried);
    return isFinal(error, failures + 1);
  }

  function wait(askedMs?: number): Promise<void> {
    become("waiting");
    return new Promise((resolve) => {
      endWait = resolve;
      setTimeout(resolve, delayMs(failures++, askedMs));
    });
  }

  function finish(isEnd: boolean): void {
    const left = [...members];
    members.clear();
    host.emptied(stream);
    for (const member of left) {
      if (isEnd) member.callBack("onEnd");
      member.become("closed");
    }
  }

  // -- what arrives -------------------------------------------------------------------------------

  function open(): void {
    openedAt = Date.now();
    refreshes = outSince = 0;
    if (trial) host.choose(trial);
    trial = undefined;
    become("open");
  }

  function retry(ms: number): void {
    retryMs = Math.max(RETRY_MS_MIN, ms);
  }

  function block(type: string, data: string | null, id: string): void {
    if (id) place = id;
    if (!hasBegun) begin();
    if (data === null) return;
    const value = parse(data);
    if (type.startsWith(CONTROL)) control(type.slice(CONTROL.length), value ?? {});
    else if (value?.topic !== undefined) give(value as HubEvent, data.length);
  }

  function parse(data: string): any {
    try {
      return JSON.parse(data);
    } catch (cause) {
      fail(new StreamError("format", "no envelope", { cause }));
    }
  }

  function give(event: HubEvent, chars: number): void {
    failures = 0;
    for (const member of members) {
      if (!member.wants(event)) continue;
      if (member.held) {
        member.held.push(event);
        // Above it the connection is cut, and resumes.
        if ((heldChars += chars) > HELD_CHARS_MAX) throw new RangeError("history is slow");
      } else if (member.isLive) member.callBack("onEvent", event);
    }
  }

  function control(name: string, value: any): void {
    const callback = CALLBACKS[name];
    for (const member of members) if (callback) member.callBack(callback, value);
    if (name === "expiring") host.renew(value.stream);
    if (name === "end") isOver = true;
    if (name === "refused") {
      refusal = new StreamError("refused", `refused: ${value.reason}`, { retryAfterMs: value.retry_ms });
    }
  }

  /** Makes members live: at once, or behind the older events that they ask for. */
  function begin(): void {
    hasBegun = true;
    const late = [...members].filter((member) => {
      if (member.isLive || member.held) return false;
      member.isLive = carried.includes(member) || !member.asks().length;
      return !member.isLive;
    });
    for (const group of groups(late)) {
      for (const member of group) member.held = [];
      const { signal } = cut;
      let tries = 0;
      void catchUp({
        members: group,
        mark: place,
        signal,
        ask: () => request(selectors(group), group[0]!.asks(), signal).page(0),
        async failed(cause) {
          const error = asStreamError(cause);
          if (!isFinal(error, ++tries, group)) {
            await sleep(delayMs(tries - 1, error.retryAfterMs));
            return true;
          }
          for (const member of group) member.unsubscribe();
          return false;
        },
      });
    }
    become(state);
  }

  const stream: Stream = {
    key,
    members,
    get isRunning() {
      return isRunning;
    },
    add,
    remove,
    wake: () => endWait?.(),
    restart,
  };
  return stream;
}

/** The selectors, one a line: names of topics hold no line ends. */
function selectors(members: Iterable<Member>): string {
  return [...new Set([...members].map((member) => member.selector))].sort().join("\n");
}

/** Members by what they ask for next: a place, or a start. */
function groups(members: Iterable<Member>): Member[][] {
  const found = new Map<string, Member[]>();
  for (const member of members) {
    const key = String(member.asks());
    found.set(key, [...(found.get(key) ?? []), member]);
  }
  return [...found.values()];
}
