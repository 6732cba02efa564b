import { errorOf, hasType } from "./errors.js";
import type { Member } from "./member.js";
import { watch, type StreamRequest } from "./transport.js";
import type { Gap, HubEvent } from "./types.js";

const PAGE_TIMEOUT_MS = 30_000;
const POSITION = /^\d+-\d+$/;
// The next page of a worker that is behind.
const AGAIN_MS = 100;

/** The answer to `wait=0`. */
interface Page {
  events: HubEvent[];
  next: string;
  gap?: Gap | null;
}

/**
 * Gives members, which ask for the same, the older events, then what was held meanwhile: each
 * event once, in order.
 *
 * A page may come from a worker that is behind the one of the stream, so pages are fetched until
 * they reach `mark`, the place of the stream when the members joined it.
 */
export async function catchUp(
  members: Member[],
  mark: string,
  signal: AbortSignal,
  requestOf: () => StreamRequest,
): Promise<void> {
  const seen = new Set<string>();
  for (;;) {
    const { events, next, gap } = await fetchPage(requestOf());
    if (signal.aborted) return;
    for (const member of members) {
      if (gap) member.call("onGap", gap);
      for (const event of events) {
        seen.add(event.id);
        if (member.wants(event)) member.call("onEvent", event);
      }
      member.at = next;
    }
    if (!isBehind(next, mark)) break;
    await sleep(AGAIN_MS);
  }
  for (const member of members) {
    const held = member.held ?? [];
    member.held = null;
    member.isLive = true;
    for (const event of held) {
      const isRepeated = POSITION.test(event.id) ? !isBehind(member.at, event.id) : seen.has(event.id);
      if (!isRepeated) member.call("onEvent", event);
    }
  }
}

async function fetchPage(request: StreamRequest): Promise<Page> {
  const watching = watch({ ...request, openTimeoutMs: PAGE_TIMEOUT_MS });
  try {
    request.url.searchParams.set("wait", "0");
    const response = await request.send(request.url, {
      headers: { Accept: "application/json" },
      signal: watching.signal,
    });
    if (!hasType(response, "application/json")) throw await errorOf(response);
    return (await response.json()) as Page;
  } catch (error) {
    throw watching.fault(error);
  } finally {
    watching.stop();
  }
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Whether both are positions, and the first comes before the other. */
function isBehind(one: string, other: string): boolean {
  return POSITION.test(one) && POSITION.test(other) && ordered(one) < ordered(other);
}

/** A position as a text that is compared as one: its numbers have up to 20 digits. */
function ordered(position: string): string {
  return position.replace(/\d+/g, (digits) => digits.padStart(20, "0"));
}
