export type ErrorKind =
  /** No connection, or a connection that broke. */
  | "network"
  /** No byte for `idleTimeoutMs`. */
  | "idle"
  /** The opening did not arrive in `openTimeoutMs`: a proxy buffers, or the network is very slow. */
  | "buffered"
  /** An answer with an error status; see `status` and `detail`. */
  | "status"
  /** An answer with 200 that is no event stream, such as a proxy's error page. */
  | "content-type"
  /** An event longer than `maxEventChars`. */
  | "too-large"
  /** An event that is no envelope. */
  | "format"
  /** The server is full or restarts; it named the time to return. */
  | "refused"
  /** `token` failed. */
  | "token"
  /** The browser has nothing that the transport needs. */
  | "unsupported";

/** A fault of a stream. It is retried unless `isFinal`. */
export class StreamError extends Error {
  /** The HTTP status; 0 without one. */
  status = 0;
  /** Milliseconds that the server asked to wait; 0 when it asked nothing. */
  retryAfterMs = 0;
  /** Whether trying again is useless. */
  isFinal = false;
  override name = "StreamError";

  constructor(readonly kind: ErrorKind, message: string, more: Partial<StreamError> = {}) {
    super(message);
    Object.assign(this, more);
  }
}

// 408, 425 and 429 pass.
const LASTING = /^4(?!08|25|29)/;

/** The error for an answer that is not the one that was asked for. */
export async function errorOf(response: Response): Promise<StreamError> {
  const { status, headers } = response;
  if (response.ok) {
    return new StreamError("content-type", `content type ${headers.get("content-type")}`);
  }
  // A problem (RFC 9457) says more than the status.
  const problem = (await response.json().catch(() => null)) as { detail?: unknown } | null;
  return new StreamError("status", `answered ${status} ${problem?.detail ?? ""}`, {
    status,
    retryAfterMs: 1000 * Number(headers.get("retry-after")) || 0,
    isFinal: LASTING.test(status as never),
  });
}
