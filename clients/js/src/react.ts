import { useEffect, useRef, useState } from "react";
import type { Gap, Hub, HubEvent, Start, State, StreamError, View } from "./index.js";

export interface UseEventsOptions<T, S> extends Start, View {
  /** Events that are kept, the newest. 100. */
  limit?: number;
  /** Makes a state of the events instead of a list. */
  reduce?(state: S, event: HubEvent<T>): S;
  /** The state before the first event. */
  initial?: S;
  /** Events are missing: fetch the state again. */
  onGap?(gap: Gap): void;
}

export interface EventsState<T, S> {
  /** The newest events, the newest last; empty with `reduce`. */
  events: readonly HubEvent<T>[];
  /** What `reduce` made. */
  value: S;
  state: State;
  error: StreamError | undefined;
}

/**
 * Subscribes while the component is there: `const { events } = useEvents(hub, "news", { last: 10 })`.
 *
 * Renders at most once a frame, whatever the rate of events. Without a hub or selector (null) it
 * does nothing, as on a server, where effects do not run.
 */
export function useEvents<T = unknown, S = undefined>(
  hub: Hub | null,
  selector: string | null,
  options: UseEventsOptions<T, S> = {},
): EventsState<T, S> {
  const { limit = 100, reduce, initial, onGap, ...wanted } = options;
  const empty = (): EventsState<T, S> => ({
    events: [],
    value: initial as S,
    state: "connecting",
    error: undefined,
  });
  const [shown, show] = useState(empty);
  // The newest callbacks, without another subscription at each render.
  const latest = useRef({ limit, reduce, onGap });
  latest.current = { limit, reduce, onGap };
  const key = JSON.stringify(wanted);

  useEffect(() => {
    if (!hub || selector === null) return;
    let now = empty();
    let frame: number | undefined;
    const change = (part: Partial<EventsState<T, S>>) => {
      now = { ...now, ...part };
      frame ??= requestAnimationFrame(() => {
        frame = undefined;
        events = events.slice(-latest.current.limit);
        show({ ...now, events });
        // The list that was given is not changed any more.
        events = [...events];
      });
    };
    let events: HubEvent<T>[] = [];
    const subscription = hub.subscribe<T>(selector, {
      ...(JSON.parse(key) as Start & View),
      onEvent(event) {
        const by = latest.current.reduce;
        if (by) return change({ value: by(now.value, event) });
        events.push(event);
        // A hidden page draws no frame.
        if (events.length > 2 * latest.current.limit) events = events.slice(-latest.current.limit);
        change({});
      },
      onGap: (gap) => latest.current.onGap?.(gap),
      onState: (state) => change({ state }),
      onError: (error) => change({ error }),
    });
    return () => {
      subscription.unsubscribe();
      if (frame !== undefined) cancelAnimationFrame(frame);
    };
  }, [hub, selector, key]);

  return shown;
}
