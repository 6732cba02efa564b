import type { Member } from "./member.js";
import type { Page } from "./transport.js";
import type { HubEvent } from "./types.js";

const POSITION = /^\d+-\d+$/;
// The answering worker may be behind the one of the stream.
const AGAIN_MS = 1_000;

/** What is fetched for members that ask for the same. */
export interface CatchUp {
  members: Member[];
  /** The place of the shared stream when they joined it: a position. */
  mark: string;
  signal: AbortSignal;
  /** Fetches the page that comes next for the members. */
  ask(): Promise<Page>;
  /** Reports a fault. Resolves when the page may be asked for again; false: it may not. */
  failed(error: unknown): Promise<boolean>;
}

/**
 * Gives members the older events, page by page, then what the shared stream brought meanwhile: each
 * event once, in order.
 *
 * All events up to `mark` are in pages, all behind it were held: those that are in both are given
 * once. The shared stream and its members are not concerned, whatever happens here.
 */
export async function catchUp({ members, mark, signal, ask, failed }: CatchUp): Promise<void> {
  const seen = new Set<string>();
  for (let isDone = false; !isDone; ) {
    try {
      const { events, next, gap, ended } = await ask();
      if (signal.aborted) return;
      const isStill = members[0]!.behind === next;
      for (const member of members) {
        if (gap) member.callBack("onGap", gap);
        for (const event of events) if (member.wants(event)) member.callBack("onEvent", event);
        member.behind = next;
      }
      for (const event of events) seen.add(keyOf(event));
      if (ended) return members.forEach(end);
      isDone = isPosition(next) && ordered(next) >= ordered(mark);
      if (!isDone && isStill) await sleep(AGAIN_MS);
    } catch (error) {
      if (signal.aborted || !(await failed(error))) return;
    }
    if (signal.aborted) return;
  }
  for (const member of members) {
    const held = member.held ?? [];
    member.held = null;
    member.isLive = true;
    for (const event of held) if (!seen.has(keyOf(event))) member.callBack("onEvent", event);
  }
}

/** A publisher may use an id of its own again. */
const keyOf = ({ id, time }: HubEvent) => `${id} ${time}`;

function end(member: Member): void {
  member.callBack("onEnd");
  member.unsubscribe();
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

export const isPosition = (id: string) => POSITION.test(id);

/** A position as a text that is compared as one: its numbers have up to 20 digits. */
function ordered(position: string): string {
  return position.replace(/\d+/g, (digits) => digits.padStart(20, "0"));
}
