"""A profile: what is known of the rows that a version's live traffic is compared with.

    profile
    ┌───────────┬─────────────┬─────────┬────────────────────┬──────────┬────────────────┬────────────┬───────────┐
    │ "DGPR" 4s │ version u16 │ kind u8 │ created_at f64     │ rows u64 │ body bytes u32 │ body, zlib │ crc32 u32 │
    └───────────┴─────────────┴─────────┴────────────────────┴──────────┴────────────────┴────────────┴───────────┘
    kind: 0 profile (of a data set), 1 live (of the first rows that were served); created_at: Unix time, seconds
    body, before it is compressed
    ┌─────────────────────────────────┬──────────────────────────────┬─────────────────────────────────────────────┐
    │ bytes u32, schema: JSON         │ bytes u32, summary, as above │ bytes u32, facts: JSON with the keys about, │
    │                                 │                              │ labels, sorted                              │
    └─────────────────────────────────┴──────────────────────────────┴─────────────────────────────────────────────┘

Little-endian throughout; JSON is UTF-8 without spaces. The checksum (zlib's CRC-32) is over all that comes before it.
The digest of a profile is the SHA-256 of all its bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from runtime.profile.schema import Schema
from runtime.profile.summary import Summary
from runtime.repository.layout import MAX_PROFILE_BYTES
from runtime.sketch.errors import Malformed

MAGIC = b"DGPR"
VERSION = 1
HEAD = struct.Struct("<4sHBdQI")
LENGTH = struct.Struct("<I")

KINDS: tuple[Literal["profile", "live"], ...] = ("profile", "live")

MAX_BODY_BYTES = 256 * 1024 * 1024
"""Decompressed; and of the summary in memory."""

MAX_FACTS = 256
"""Entries of about."""
MAX_FACT_CHARACTERS = 4_096
MAX_LABELS = 1_024
"""Different values of a target. With more it is no label but a number."""

MOST_ROWS = 1 << 62


@dataclass(frozen=True, eq=False)
class Profile:
    """What a version's live traffic is compared with.

    about: where it comes from, as given, among it `version_digest`: of the version that it was made with.
    labels: how often each value of the target came; "" is a missing one. Empty without a target, or for numbers.
    """

    kind: Literal["profile", "live"]
    schema: Schema
    summary: Summary
    about: Mapping[str, str]
    created_at_seconds: float
    rows: int
    labels: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises Malformed for what could not be read again."""
        problem = _problem(self)
        if problem:
            raise Malformed(problem)

    @classmethod
    def of_data(
        cls, summary: Summary, about: Mapping[str, str], created_at_seconds: float, labels: Mapping[str, int]
    ) -> Self:
        """Of all rows of a data set."""
        return cls("profile", summary.schema, summary, about, created_at_seconds, summary.rows, labels)

    @classmethod
    def of_live(cls, summary: Summary, about: Mapping[str, str], created_at_seconds: float) -> Self:
        """Of the first rows that a version served, where there is no profile of its training data."""
        return cls("live", summary.schema, summary, about, created_at_seconds, summary.rows)

    @property
    def version_digest(self) -> str:
        """Of the version that it was made with; "" if that is not known."""
        return self.about.get("version_digest", "")

    @property
    def digest(self) -> str:
        return "sha256:" + hashlib.sha256(self.encode()).hexdigest()

    def encode(self) -> bytes:
        """Raises Malformed for a profile beyond MAX_PROFILE_BYTES."""
        known: bytes | None = self.__dict__.get("_encoded")
        if known is None:
            known = _encode(self)
            object.__setattr__(self, "_encoded", known)
        return known

    @classmethod
    def decode(cls, data: bytes) -> Profile:
        """Raises Malformed for anything that `encode` has not written."""
        profile = _decode(data)
        object.__setattr__(profile, "_encoded", bytes(data))  # another zlib would compress it to other bytes
        return profile

    def same_but_time(self, other: Profile) -> bool:
        """Whether both say the same, whenever they were made."""
        return _body(self) == _body(other) and self.kind == other.kind

    def __repr__(self) -> str:
        return f"Profile(kind={self.kind}, rows={self.rows}, features={len(self.schema.features)})"


def _problem(profile: Profile) -> str:
    facts: list[Any] = [*profile.about, *profile.about.values(), *profile.labels]
    if profile.kind not in KINDS:
        return f"expected a kind of {' or '.join(KINDS)}, got {profile.kind!r}"
    if not all(isinstance(text, str) and len(text) <= MAX_FACT_CHARACTERS for text in facts):
        return f"about, labels: expected texts of {MAX_FACT_CHARACTERS} characters or less"
    if len(profile.about) > MAX_FACTS or len(profile.labels) > MAX_LABELS:
        return f"expected {MAX_FACTS} facts and {MAX_LABELS} labels or less"
    counts: list[Any] = [*profile.labels.values()]
    if not all(type(count) is int and 0 <= count < MOST_ROWS for count in counts):
        return "labels: expected counts of 0 or more"
    if not (0 <= profile.created_at_seconds < math.inf and 0 <= profile.rows < MOST_ROWS):
        return "expected a time and rows of 0 or more"
    return ""


def _body(profile: Profile) -> bytes:
    facts = {"about": dict(profile.about), "labels": dict(profile.labels)}
    parts = (_text(profile.schema.to_json()), profile.summary.encode(), _text(_json(facts)))
    return b"".join(LENGTH.pack(len(part)) + part for part in parts)


def _encode(profile: Profile) -> bytes:
    body = _body(profile)
    head = HEAD.pack(
        MAGIC, VERSION, KINDS.index(profile.kind), profile.created_at_seconds, profile.rows, len(body)
    )  # fmt: skip
    data = head + zlib.compress(body, 6)
    data += LENGTH.pack(zlib.crc32(data))
    if len(data) > MAX_PROFILE_BYTES or len(body) > MAX_BODY_BYTES:
        raise Malformed(f"the profile is too large: {len(data)} bytes, of which {MAX_PROFILE_BYTES} may be stored")
    return data


def _decode(data: bytes) -> Profile:
    if not HEAD.size + LENGTH.size <= len(data) <= MAX_PROFILE_BYTES:
        least = HEAD.size + LENGTH.size
        raise Malformed(f"expected a profile of {least} to {MAX_PROFILE_BYTES} bytes, got {len(data)}")
    magic, version, kind, created_at_seconds, rows, body_bytes = HEAD.unpack_from(data)
    if magic != MAGIC:
        raise Malformed(f"expected a profile, which begins with {MAGIC!r}, got {magic!r}")
    if version != VERSION:
        raise Malformed(f"expected a profile of version {VERSION}, got {version}: another version of driftgate made it")
    end = len(data) - LENGTH.size
    if LENGTH.unpack_from(data, end)[0] != zlib.crc32(data[:end]):
        raise Malformed("the checksum is that of other bytes: they were changed on their way")
    if kind >= len(KINDS):
        raise Malformed(f"expected a kind of 0 or 1, got {kind}")
    schema_text, summary_bytes, facts_text = _parts(_inflated(data[HEAD.size : end], body_bytes))
    schema = Schema.from_json(_read_text(schema_text))
    facts = _facts(_read_text(facts_text))
    summary = _summary(schema, summary_bytes)
    if summary.rows != rows:
        raise Malformed(f"expected a summary of {rows} rows, got {summary.rows}")
    return Profile(KINDS[kind], schema, summary, facts["about"], created_at_seconds, rows, facts["labels"])


def _inflated(packed: bytes, size: int) -> bytes:
    """No more than `size` bytes are ever made: few bytes can stand for very many."""
    if size > MAX_BODY_BYTES:
        raise Malformed(f"expected a body of {MAX_BODY_BYTES} bytes or less, got {size}")
    inflater = zlib.decompressobj()
    try:
        body = inflater.decompress(packed, size + 1)
    except zlib.error as error:
        raise Malformed(f"the body cannot be decompressed: {error}") from None
    if len(body) != size or not inflater.eof or inflater.unused_data:
        raise Malformed(f"expected a body of {size} bytes, got another length")
    return body


def _parts(body: bytes) -> tuple[bytes, bytes, bytes]:
    found, at = [], 0
    for _ in range(3):
        if at + LENGTH.size > len(body):
            raise Malformed(f"expected the length of a part at byte {at} of the body")
        (size,) = LENGTH.unpack_from(body, at)
        at += LENGTH.size + size
        if at > len(body):
            raise Malformed(f"expected {at - len(body)} more bytes in the body")
        found.append(body[at - size : at])
    if at != len(body):
        raise Malformed(f"expected the body to end at byte {at}, got {len(body) - at} more")
    return found[0], found[1], found[2]


def _summary(schema: Schema, data: bytes) -> Summary:
    try:
        size = schema.size_bytes
        if not 0 < size <= MAX_BODY_BYTES:
            raise Malformed(f"expected a schema of {MAX_BODY_BYTES} bytes or less a summary, got {size}")
        return Summary.decode(schema, data)
    except (KeyError, TypeError, AttributeError, ValueError, IndexError, OverflowError) as error:
        raise error if isinstance(error, Malformed) else Malformed(f"not a summary of its schema: {error}") from error


def _facts(text: str) -> dict[str, dict[str, Any]]:
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"the facts are not JSON: {error}") from None
    if not isinstance(facts, dict) or set(facts) != {"about", "labels"}:
        raise Malformed("expected the facts about and labels")
    if not all(isinstance(value, dict) for value in facts.values()) or _json(facts) != text:
        raise Malformed("expected the facts as they are written, in their only form")
    return facts


def _json(document: Any) -> str:
    try:
        return json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False, sort_keys=True)
    except ValueError as error:
        raise Malformed(f"the facts cannot be written: {error}") from None


def _text(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # names of a graph may be any characters


def _read_text(data: bytes) -> str:
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise Malformed(f"a part is not UTF-8: {error.reason}") from None
