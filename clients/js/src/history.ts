import type { Member } from "./member.js";
import type { StreamRequest, Transport } from "./transport.js";
import type { HubEvent } from "./types.js";

const POSITION = /^\d+-\d+$/;
// A worker that is behind the one of the stream by more than this would be restarted.
const QUIET_MS = 2_000;
const AGAIN_MS = 1_000;

/**
 * Gives members, which ask for the same, the older events, then what was held meanwhile: each
 * event once, in order.
 *
 * A stream of their own brings the older events, and live ones until it has reached `mark`, the
 * place of the shared stream when they joined it; or until it is quiet, because there may be no event
 * of theirs behind it. From then on the shared stream has all.
 */
export async function catchUp(
  members: Member[],
  mark: string,
  signal: AbortSignal,
  transport: Transport,
  requestOf: (signal: AbortSignal) => StreamRequest,
): Promise<void> {
  const seen = new Set<string>();
  for (let isDone = false; !isDone && !signal.aborted; ) {
    const cut = new AbortController();
    const end = () => cut.abort();
    let timer: ReturnType<typeof setTimeout>;
    const done = () => {
      isDone = true;
      end();
    };
    const wait = () => {
      clearTimeout(timer);
      timer = setTimeout(done, QUIET_MS);
    };
    signal.addEventListener("abort", end);
    const run = transport.run(requestOf(cut.signal), {
      open: wait,
      retry() {},
      waiting: end,
      block(type, data, id) {
        if (isDone || signal.aborted) return;
        wait();
        const value = data && JSON.parse(data);
        for (const member of members) {
          if (type === "fastsse.gap") member.call("onGap", value);
          else if (value?.topic !== undefined && member.wants(value)) member.call("onEvent", value);
          if (id) member.at = id;
        }
        seen.add(id);
        if (reaches(id, mark)) done();
      },
    });
    // Whatever ends it, the shared stream and its members are not concerned.
    const ending = await run.catch(() => {});
    clearTimeout(timer!);
    signal.removeEventListener("abort", end);
    if (ending === "done") isDone = true;
    if (!isDone) await sleep(AGAIN_MS);
  }
  if (signal.aborted) return;
  for (const member of members) release(member, seen);
}

/** Gives what came live meanwhile and was not in the history. */
function release(member: Member, seen: Set<string>): void {
  const held: HubEvent[] = member.held ?? [];
  member.held = null;
  member.isLive = true;
  for (const event of held) if (!seen.has(event.id)) member.call("onEvent", event);
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Whether both are positions, and the first is not before the other. */
function reaches(one: string, other: string): boolean {
  return POSITION.test(one) && POSITION.test(other) && ordered(one) >= ordered(other);
}

/** A position as a text that is compared as one: its numbers have up to 20 digits. */
function ordered(position: string): string {
  return position.replace(/\d+/g, (digits) => digits.padStart(20, "0"));
}
