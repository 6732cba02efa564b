"""Who may read and write: tokens (JWT) to rights, tickets, renewal, revocation.

What the routes call, all on the loop thread:

- `guard.Guard.subscriber(headers, pairs, mercure=…) -> Rights | None` and
  `guard.Guard.publisher(headers, pairs, mercure=…) -> Rights`. They take the headers by lower-case
  name (`authorization`, `cookie`, `origin`, `referer`) and the decoded pairs of the query. They
  raise `Unauthorised` (401), or `Pending` when the answer must be fetched first: nothing was
  begun then; `pending.wait(done)` begins it and calls `done` once with Rights, None or an error.
  `guard.make_guard(config, control, origins)` gives None when no JWT key is configured.
- `Rights.check_publish(topics)` raises `Forbidden` (403), `Rights.covers_subscribe(topics)` tells
  whether private events of these topics may be read, `Rights.claims` is what `Sender.attach` takes.
- `POST /tickets`: `guard.subscriber(…)`, then `guard.tickets.issue(rights, done)`: `done` gets the
  ticket (str) or `Refused`. It is opened as `?ticket=…`, which `guard.subscriber` understands (it
  raises Pending then).
- `POST /renew`: `guard.subscriber(…)`, then `renewal.Renewals(reach, hub.streams).renew(stream_id,
  rights, done)`, which finds the stream in whatever worker it is: `done` gets True, False when
  there is no such stream (404), or `Forbidden` or `Refused`. `stream_lookup.StreamLookup(control)`
  is one for each worker, and serves pongs too: `reach.teach(b"p", act)`.
- `POST /revoke`: `rights = guard.publisher(…)`, `rights.check_publish((REVOKE_TOPIC,))`, then
  `guard.revocations.revoke(Revocation.of_json(body), done)`; `done` gets None or `Refused`.
  `guard.revocations.on_revoked = f` has `f(subject_hash, token_hash, issued_before_s)` called in
  every worker, which is what `Sender.revoke` takes.
- Control services for the node: `tickets.TicketDesk`, `revocations.RevocationDesk`; `guard.DESKS`
has them
  by subject, as `service.Services` takes them.

`selectors` matches; `keys` and `jwks` know keys; `token` opens a token, `claims` reads it,
`verifier` does both and remembers; `credentials` finds the token in a request.
"""
