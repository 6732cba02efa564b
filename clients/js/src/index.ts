export { connect } from "./hub.js";
export { StreamError, type ErrorKind } from "./errors.js";
export type { OnBlock } from "./parser.js";
export type { Ending, StreamRequest, StreamSink, Transport, TransportName } from "./transport.js";
export type * from "./types.js";
