// What the types allow and refuse; tsc checks this file, nothing runs it.
import { connect, StreamError, type Gap, type Hub, type HubEvent, type State, type Transport } from "../dist/index.js";
import { createOutbox } from "../dist/outbox.js";
import { longPoll } from "../dist/poll.js";
import { useEvents } from "../dist/react.js";
import { connectTabs } from "../dist/tabs.js";
import { webSocket } from "../dist/websocket.js";

interface Order {
  total: number;
}

const hub: Hub = connect(new URL("https://sse.example.com"), {
  token: async () => "token",
  transports: ["fetch", "eventsource", longPoll, "poll", webSocket],
  onError: (error) => error.isFinal && error.kind === "status" && error.status.toFixed(),
});

const orders = hub.subscribe<Order>("orders/{id}", {
  last: 1,
  filter: "data.total > 5",
  maxRate: 2,
  event: ["paid", "sent"],
  signal: new AbortController().signal,
  onEvent(event) {
    const total: number = event.data.total;
    const topic: string | string[] = event.topic;
    void [total, topic];
    // @ts-expect-error it is a member of the data
    void event.total;
  },
  onGap: (gap: Gap) => gap.reason === "evicted",
  onState: (state: State) => state === "open",
});
const place: string = orders.lastEventId;
orders.unsubscribe();
void place;

// @ts-expect-error the name is maxRate
hub.subscribe("a", { onEvent() {}, max_rate: 5 });
// @ts-expect-error onEvent is missing
hub.subscribe("a", { last: 5 });
// @ts-expect-error a number of events
hub.subscribe("a", { onEvent() {}, last: "5" });
// @ts-expect-error no such transport
connect("/", { transports: ["carrier-pigeon"] });
// @ts-expect-error read-only
orders.selector = "b";
hub.subscribe("a", {
  onEvent(event) {
    // @ts-expect-error unknown without a type argument
    void event.data.total;
  },
});

const shared: Hub = connectTabs("/", { share: "leader" });
// @ts-expect-error no such way
connectTabs("/", { share: "all" });

const sent: Promise<string> = createOutbox(shared, { persist: "chat" }).publish("a", { n: 1 }, { ttl: "1h", private: true });
// @ts-expect-error the name of the field is event
void createOutbox(shared).publish("a", 1, { type: "x" });
void sent;

const own: Transport = {
  name: "own",
  isAvailable: () => true,
  async run(request, sink) {
    sink.open();
    sink.block("message", "{}", "1-1");
    const response = await request.send(request.url, { signal: request.signal });
    if (!response.ok) throw await request.errorOf(response);
    throw new StreamError("network", "cut");
  },
};
void own;

export function Component(): string {
  const { events } = useEvents<Order>(hub, "orders/{id}", { limit: 5, lastEach: 1 });
  const { value } = useEvents<Order, number>(hub, null, {
    initial: 0,
    reduce: (sum: number, event: HubEvent<Order>) => sum + event.data.total,
  });
  return `${events[0]?.data.total.toFixed()} ${value.toFixed()}`;
}
