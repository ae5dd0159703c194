"""Who may change things, by where they come from and what they show."""

from __future__ import annotations

import pytest

from gateway.access import from_loopback, presented_token, require, token_matches
from gateway.errors import Denied, Unauthenticated

TOKEN = "a-token-of-some-length"
LOCAL, REMOTE = "ipv4:127.0.0.1:5000", "ipv4:10.0.0.7:5000"


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("ipv4:127.0.0.1:40000", True),
        ("ipv4:127.8.9.1:1", True),
        ("ipv6:[::1]:40000", True),
        ("ipv6:%5B::1%5D:40000", True),
        ("ipv6:[::ffff:127.0.0.1]:40000", True),
        ("unix:/run/socket", True),
        ("unix:", True),
        ("unix-abstract:name", True),
        ("ipv4:10.0.0.7:40000", False),
        ("ipv4:1.127.0.0:40000", False),
        ("ipv4:1270.0.0.1:1", False),
        ("ipv6:[::2]:40000", False),
        ("ipv6:[::1:2]:40000", False),
        ("ipv6:[2001:db8::1]:40000", False),
        ("ipv6:[::ffff:10.0.0.1]:40000", False),
        ("dns:127.0.0.1", False),
        ("", False),
        (" ipv4:127.0.0.1:1", False),
    ],
)
def test_loopback_is_this_machine_and_nobody_else(peer: str, *, expected: bool) -> None:
    assert from_loopback(peer) is expected


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ([("authorization", "Bearer abc")], "abc"),
        ([("authorization", "bearer  abc ")], "abc"),
        ([("user-agent", "x"), ("authorization", "BEARER abc")], "abc"),
        ([("authorization", "Basic abc")], ""),
        ([("authorization", "Bearerabc")], ""),
        ([("authorization", b"Bearer abc")], ""),
        ([("x-authorization", "Bearer abc")], ""),
        ([], ""),
    ],
)
def test_a_bearer_token_is_read_from_the_authorization(metadata: list[tuple[str, str | bytes]], expected: str) -> None:
    assert presented_token(metadata) == expected


@pytest.mark.parametrize(
    ("presented", "expected", "matches"),
    [(TOKEN, TOKEN, True), (TOKEN, TOKEN + "x", False), ("", "", False), (TOKEN, "", False), ("é", "é", True)],
)
def test_no_token_matches_where_none_is_configured(presented: str, expected: str, *, matches: bool) -> None:
    assert token_matches(presented, expected) is matches


def ask(policy: str, peer: str, presented: str, token: str = TOKEN) -> str:
    metadata = [("authorization", f"Bearer {presented}")] if presented else []
    return require("load", policy, peer, metadata, token)


@pytest.mark.parametrize(
    ("policy", "peer", "presented", "actor"),
    [
        ("loopback", LOCAL, "", "loopback"),
        ("loopback", LOCAL, TOKEN, "token"),
        ("loopback", REMOTE, TOKEN, "token"),
        ("token", LOCAL, TOKEN, "token"),
        ("token", REMOTE, TOKEN, "token"),
    ],
)
def test_who_may_is_named_for_the_audit(policy: str, peer: str, presented: str, actor: str) -> None:
    assert ask(policy, peer, presented) == actor


@pytest.mark.parametrize(
    ("policy", "peer", "presented", "error", "says"),
    [
        ("off", LOCAL, TOKEN, Denied, "load is switched off on this port"),
        ("loopback", REMOTE, "", Unauthenticated, "load needs .* from peers that are not on loopback"),
        ("token", LOCAL, "", Unauthenticated, "load needs the metadata 'authorization: Bearer <token>'$"),
        ("loopback", LOCAL, "guess", Unauthenticated, "load: the bearer token .* is not the one configured"),
        ("token", REMOTE, "guess", Unauthenticated, "load: the bearer token .* is not the one configured"),
    ],
)
def test_who_may_not_is_told_what_is_needed_and_never_the_secret(
    policy: str, peer: str, presented: str, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says) as caught:
        ask(policy, peer, presented)
    assert TOKEN not in str(caught.value)
    assert "guess" not in str(caught.value)


def test_a_token_shown_to_a_gateway_without_one_is_refused_even_on_loopback() -> None:
    """A caller who believes that he is authenticated must learn that he is not."""
    with pytest.raises(Unauthenticated):
        ask("loopback", LOCAL, "anything", token="")
