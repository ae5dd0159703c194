"""A client's address, from gRPC's text to the record's bytes."""

from __future__ import annotations

import ipaddress
from urllib.parse import unquote

from runtime.shm.record_layout import PeerFamily

Peer = tuple[int, int, bytes]
"""Family, port, and the address: 4 or 16 bytes in network order."""

UNKNOWN: Peer = (PeerFamily.UNKNOWN, 0, b"")
MAX_REMEMBERED = 4096  # connections; beyond it the memory starts anew


def parse_peer(text: str) -> Peer:
    """`ipv4:127.0.0.1:5000`, `ipv6:%5B::1%5D:5000`, `unix:...`; UNKNOWN for anything else."""
    scheme, _, rest = text.partition(":")
    if scheme.startswith("unix"):
        return (PeerFamily.UNIX, 0, b"")
    host, _, port = unquote(rest).rpartition(":")
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
        number = int(port)
    except ValueError:
        return UNKNOWN
    if not 0 <= number <= 0xFFFF:
        return UNKNOWN
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    family = PeerFamily.IPV4 if address.version == 4 else PeerFamily.IPV6
    return (family, number, address.packed)


class Peers:
    """Remembers what it has parsed: a connection's requests all come with the same text."""

    def __init__(self) -> None:
        self.known: dict[str | bytes, Peer] = {}

    def find(self, key: str | bytes) -> Peer:
        """`key`: gRPC's text, or its bytes."""
        known = self.known.get(key)
        if known is None:
            if len(self.known) >= MAX_REMEMBERED:
                self.known.clear()
            text = key.decode("utf-8", "replace") if isinstance(key, bytes) else key
            known = self.known[key] = parse_peer(text)
        return known
