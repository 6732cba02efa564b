"""Verifies tokens, and caches their rights until they end."""

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Final, Literal

from fastsse.auth.claims import Expected, read_rights
from fastsse.auth.jwks import KeySet
from fastsse.auth.rights import Rights
from fastsse.auth.token import TOKEN_BYTES_MAX, Token, open_token, read_payload
from fastsse.errors import Unauthorised
from fastsse.jwtkeys import Key

__all__ = ["KeyRing", "Side", "Verifier"]

Side = Literal["publish", "subscribe", "console"]

# Bounds of the cache of each side, and the counted overhead of a token in bytes.
REMEMBERED_MAX: Final = 50_000
REMEMBERED_BYTES_MAX: Final = 64 * 1024 * 1024
_RIGHTS_BYTES: Final = 1024
_NEVER_S: Final = float("inf")


class KeyRing:
    """The keys of one side.

    Arguments:
        keys: tried in order for each token of their algorithms.
        key_set: gives more keys.
        key_set_algorithms: the algorithms that its keys may be used for.
    """

    def __init__(
        self,
        keys: Sequence[Key],
        key_set: KeySet | None = None,
        key_set_algorithms: Sequence[str] = (),
    ) -> None:
        self._keys = keys
        self.key_set: Final = key_set
        self._set_algorithms = frozenset(key_set_algorithms) if key_set else frozenset()
        self.algorithms: Final = self._set_algorithms.union(*(key.algorithms for key in keys))

    def verify(self, token: Token, now_s: float) -> Key:
        """The key that signed the token. Raises Unauthorised or KeysMissing."""
        if token.algorithm not in self.algorithms:
            allowed = ", ".join(sorted(self.algorithms))
            raise Unauthorised(f"The token's alg is not accepted; allowed: {allowed}.")
        key = _signer(self._keys, token, now_s)
        if key is None and self.key_set and token.algorithm in self._set_algorithms:
            key = self._of_set(self.key_set, token, now_s)
        if key is None:
            raise Unauthorised("The token's signature matches no valid key.")
        return key

    def _of_set(self, key_set: KeySet, token: Token, now_s: float) -> Key | None:
        """The key of the set. After a failed signature the set is fetched again, because issuers
        rotate keys without names and reuse names. `find` handles unknown names."""
        found = key_set.find(token.algorithm, token.kid)
        key = _signer(found, token, now_s)
        if key is None and (found or token.kid is None) and key_set.look_again(_digest(token)):
            key = _signer(key_set.find(token.algorithm, token.kid), token, now_s)
        return key


def _digest(token: Token) -> bytes:
    return blake2b(token.signed + token.signature, digest_size=16).digest()


def _signer(keys: Sequence[Key], token: Token, now_s: float) -> Key | None:
    for key in keys:
        is_valid = key.until_s is None or now_s < key.until_s
        if is_valid and key.verifies(token.algorithm, token.signed, token.signature):
            return key
    return None


# The rights, the end of their validity, and their counted size.
_Known = tuple[Rights, float, int]


class _Memory:
    """A cache of verified tokens of one side, by a keyed hash, so that no token stays in memory.
    The oldest are evicted when it is full."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._known: dict[bytes, _Known] = {}
        self._bytes = 0
        self.generation = 0

    def name(self, raw: bytes) -> bytes:
        return blake2b(raw, digest_size=16, key=self._key).digest()

    def get(self, name: bytes, now_s: float) -> Rights | None:
        known = self._known.get(name)
        if known is None:
            return None
        if now_s < known[1]:
            return known[0]
        self._drop(name)
        return None

    def until_s(self, name: bytes) -> float:
        known = self._known.get(name)
        return 0.0 if known is None else known[1]

    def put(self, name: bytes, rights: Rights, until_s: float, token_bytes: int) -> None:
        size_bytes = _RIGHTS_BYTES + 4 * token_bytes
        self._known[name] = (rights, until_s, size_bytes)
        self._bytes += size_bytes
        while len(self._known) > REMEMBERED_MAX or self._bytes > REMEMBERED_BYTES_MAX:
            self._drop(next(iter(self._known)))

    def clear(self) -> None:
        self._known.clear()
        self._bytes = 0

    def _drop(self, name: bytes) -> None:
        self._bytes -= self._known.pop(name)[2]

    def __len__(self) -> int:
        return len(self._known)


class Verifier:
    """Verifies tokens of both sides. Loop thread only.

    Arguments:
        rings: the keys of each side that has keys.
        expected: the required claims.
        now_s: unix seconds.
    """

    def __init__(
        self,
        rings: Mapping[Side, KeyRing],
        expected: Expected,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._rings = rings
        self._expected = expected
        self._now_s = now_s
        self._memories: dict[str, _Memory] = {side: _Memory() for side in rings}
        self._forgotten = 0

    def verify(self, raw: bytes, side: Side) -> Rights:
        """The rights that a token gives on a side; the same object while it is in the cache.

        Raises Unauthorised with the reason, or KeysMissing. O(bytes): the first call verifies a
        signature, later calls compute a hash.
        """
        ring, now_s = self._rings.get(side), self._now_s()
        if ring is None:
            whose = "subscribers'" if side == "subscribe" else "publishers'"
            raise Unauthorised(f"The server has no key for {whose} tokens.")
        memory = self._memories[side]
        if ring.key_set is not None:
            generation = ring.key_set.generation
            if generation != memory.generation:
                memory.clear()
                memory.generation = generation
        # A token that is too long is refused before its bytes are read.
        name = memory.name(raw[: TOKEN_BYTES_MAX + 1])
        rights = memory.get(name, now_s)
        if rights is not None:
            return rights
        token = open_token(raw)
        key = ring.verify(token, now_s)
        rights = read_rights(read_payload(token), self._expected, side, now_s)
        until_s = _NEVER_S if rights.expires_s is None else rights.expires_s
        if key.until_s is not None:
            until_s = min(until_s, key.until_s)
        memory.put(name, rights, until_s, len(raw))
        return rights

    def until_s(self, raw: bytes, side: Side) -> float:
        """Until when the cached result of a token is valid while `generation` does not change: unix
        seconds; 0 if it is not cached. O(bytes)."""
        memory = self._memories[side]
        return memory.until_s(memory.name(raw[: TOKEN_BYTES_MAX + 1]))

    def generation(self, side: Side) -> int:
        """A number that changes when the tokens of a side must be verified again."""
        key_set = self._rings[side].key_set
        return self._forgotten if key_set is None else self._forgotten + key_set.generation

    @property
    def remembered(self) -> int:
        """Number of tokens in the cache."""
        return sum(map(len, self._memories.values()))

    def forget(self) -> None:
        """Empties the cache, so that every token is verified again."""
        self._forgotten += 1
        for memory in self._memories.values():
            memory.clear()

    def close(self) -> None:
        """Cancels pending fetches."""
        for ring in self._rings.values():
            if ring.key_set is not None:
                ring.key_set.close()
