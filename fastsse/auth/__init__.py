"""Access by tokens: verifies tokens (JWT), and handles tickets, renewal and revocation.

What the routes call, all on the loop thread:

- `guard.Guard.subscriber` and `guard.Guard.publisher` turn the headers and the query of a request
  into `rights.Rights`. They raise `Unauthorised` (401), or `Pending` when a key set or a ticket
  must be fetched first: `pending.wait(done)` starts that and calls `done` once.
  `guard.make_guard` returns None when no JWT key is configured.
- `rights.Rights` says what a token grants: `check_publish(topics)` raises `Forbidden` (403),
  `covers_subscribe(topics)` is asked for private events.
- `tickets.Tickets` issues and opens what `POST /tickets` answers with; `renewal.Renewals` gives an
  open stream a new token (`POST /renew`); `revocations` ends streams and tokens (`POST /revoke`).
- `guard.SERVICES` has the control services of tickets and revocations, for `fastsse.services`.

`credentials` finds the token in a request, `token` parses it, `claims` reads its claims, `verifier`
does both and caches the result. `jwks` fetches key sets.
"""
