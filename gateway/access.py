"""Who may change things: the same rule on the admin port and for Triton's repository calls on the data port."""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable

from gateway.errors import Denied, Unauthenticated

LOOPBACK_PEER = re.compile(r"^(unix:|unix-abstract:|ipv4:127\.|ipv6:(\[|%5B)(::1|::ffff:127\.[0-9.]+)(\]|%5D))")
AUTHORIZATION = "authorization"
BEARER = "bearer "


def from_loopback(peer: str) -> bool:
    """`peer` as gRPC names it: ipv4:127.0.0.1:5000, ipv6:[::1]:5000, unix:..."""
    return LOOPBACK_PEER.match(peer) is not None


def presented_token(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    for key, value in metadata:
        if key == AUTHORIZATION and isinstance(value, str) and value.lower().startswith(BEARER):
            return value[len(BEARER) :].strip()
    return ""


def token_matches(presented: str, expected: str) -> bool:
    return bool(expected) and hmac.compare_digest(presented.encode(), expected.encode())


def require(verb: str, policy: str, peer: str, metadata: Iterable[tuple[str, str | bytes]], token: str) -> str:
    """Answers the actor's name. `policy`: loopback, token, off. Raises Denied or Unauthenticated."""
    if policy == "off":
        raise Denied(f"{verb} is switched off on this port (repository_control: off): use the admin API")
    presented = presented_token(metadata)
    if presented:
        if token_matches(presented, token):
            return "token"
        raise Unauthenticated(f"{verb}: the bearer token in the metadata 'authorization' is not the one configured")
    if policy == "loopback" and from_loopback(peer):
        return "loopback"
    raise Unauthenticated(
        f"{verb} needs the metadata 'authorization: Bearer <token>'"
        + (" from peers that are not on loopback" if policy == "loopback" else "")
    )
