// The suite of the protocol's authors, against a server that runs.
import { runConformanceTests } from "@durable-streams/server-conformance-tests"

runConformanceTests({ baseUrl: process.env.STREAMS_URL!, longPollTimeoutMs: 2000, subscriptions: true })
