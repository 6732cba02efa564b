import { StreamError } from "./errors.js";
import type { ConnectOptions } from "./types.js";

// Clocks differ, and a request takes time.
const FRESH_MS = 30_000;
const SHORT_MS = 1_000;

/** The token of a connection. */
export interface Tokens {
  /** Whether a fresh one can be had. */
  readonly isRenewable: boolean;
  /** The token, fetched if there is none or `exp` is near. Rejects with a StreamError. */
  get(): Promise<string | undefined>;
  /** The next `get` fetches one. */
  expire(): void;
}

export function tokensFrom(source: ConnectOptions["token"]): Tokens {
  let token: string | undefined;
  let expiresAt = 0;
  let asked: Promise<string | undefined> | undefined;

  async function ask(): Promise<string | undefined> {
    try {
      token = typeof source === "function" ? await source() : source;
    } catch (cause) {
      throw new StreamError("token", `no token: ${cause}`, { cause });
    }
    // One connection uses one token, also if that has no `exp`, or one that is near.
    expiresAt = Math.max(expiryOf(token), Date.now() + FRESH_MS + SHORT_MS);
    return token;
  }

  return {
    isRenewable: typeof source === "function",
    async get() {
      if (Date.now() < expiresAt - FRESH_MS) return token;
      return (asked ??= ask().finally(() => (asked = undefined)));
    },
    expire: () => void (expiresAt = 0),
  };
}

/** The `exp` of a JWT in unix milliseconds; 0 when it names none. */
function expiryOf(token = ""): number {
  try {
    const part = token.split(".")[1] ?? "";
    return 1000 * (JSON.parse(atob(part.replace(/-/g, "+").replace(/_/g, "/"))).exp || 0);
  } catch {
    return 0; // Another kind of token.
  }
}
