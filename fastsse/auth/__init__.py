"""Access by tokens: verifies tokens (JWT), and handles tickets, renewal and revocation.

What the routes call, all on the loop thread:

- `guard.Guard.subscriber(headers, pairs, mercure=…) -> Rights | None` and
  `guard.Guard.publisher(headers, pairs, mercure=…) -> Rights`. They take the headers by lower-case
  name (`authorization`, `cookie`, `origin`, `referer`) and the decoded pairs of the query. They
  raise `Unauthorised` (401), or `Pending` when something must be fetched first. The fetch has not
  started then: `pending.wait(done)` starts it and calls `done` once with Rights, None or an error.
  `guard.make_guard(config, control, origins)` returns None when no JWT key is configured.
- `Rights.check_publish(topics)` raises `Forbidden` (403). `Rights.covers_subscribe(topics)` says
whether private events of these topics may be read. `Rights.claims` is for `Sender.attach`.
- `POST /tickets`: `guard.subscriber(…)`, then `guard.tickets.issue(rights, done)`: `done` gets the
ticket (str) or `Refused`. A client opens it as `?ticket=…`. `guard.subscriber` handles that and
raises Pending.
- `POST /renew`: `guard.subscriber(…)`, then `renewal.Renewals(reach, hub.streams).renew(stream_id,
  rights, done)`, which finds the stream in any worker: `done` gets True, False when there is no
  such stream (404), or `Forbidden` or `Refused`. Each worker has one
  `stream_lookup.StreamLookup(control)`, which serves pongs too: `reach.teach(b"p", act)`.
- `POST /revoke`: `rights = guard.publisher(…)`, `rights.check_publish((REVOKE_TOPIC,))`, then
  `guard.revocations.revoke(Revocation.of_json(body), done)`; `done` gets None or `Refused`.
  After `guard.revocations.on_revoked = f`, every worker calls
  `f(subject_hash, token_hash, issued_before_s)`, the arguments of `Sender.revoke`.
- Control services for the node: `tickets.TicketDesk`, `revocations.RevocationDesk`; `guard.DESKS`
has them
  by subject, as `service.Services` takes them.

`selectors` matches topics. `keys` and `jwks` hold keys. `token` parses a token, `claims` reads
its claims, and `verifier` does both and caches the result. `credentials` finds the token in a
request.
"""
