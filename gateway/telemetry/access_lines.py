"""Request records as lines of the access log: one JSON object a line, or one line for people at a terminal.

What comes from clients is escaped: a line holds no control character, whatever is in an id or in metadata.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gateway.logs import escaped, json_text
from gateway.telemetry.conventions import CODES, INFER_METHOD, SERVER_ERRORS, STREAM_METHOD
from runtime.shm.record import Records
from runtime.shm.record_layout import Mark, PeerFamily, Reason
from runtime.shm.ring_layout import SEPARATOR

MAX_REMEMBERED = 4096  # parts of lines that requests share, and clients' addresses; beyond it the memory starts anew
SECOND_NS = 1_000_000_000
LOGGER = "access"
COLOURS = {"error": "\x1b[31m", "warning": "\x1b[33m"}
RESET = "\x1b[0m"
NO_TRACE = "0" * 32

_STREAM, _ID_CUT = int(Mark.STREAM), int(Mark.ID_CUT)  # an IntFlag's own arithmetic takes longer than a line


class _Row(NamedTuple):
    """One record, as a line needs it. `shared` is what many requests have in common, made once."""

    shared: Any
    peer: str
    received_unix_ns: int
    duration_ms: float
    queue_ms: float
    run_ms: float
    ran: bool
    rows: int
    bytes_in: int
    bytes_out: int
    run_rows: int
    run_requests: int
    trace_id: str
    span_id: str
    sampled: bool
    request_id: bytes
    id_cut: bool
    extra: bytes


class AccessLines:
    """Not thread-safe. `attribute_keys[number]` is the key of a record's extra attribute of that number."""

    def __init__(self, *, people: bool, colour: bool = False, attribute_keys: Sequence[str] = ()) -> None:
        self._format = self._text if people else self._json
        self._share = self._shared_text if people else self._shared_json
        self._colours = COLOURS if colour else {}
        self._keys = tuple(attribute_keys)
        self._names: dict[int, Sequence[str]] = {}
        self._shared: dict[tuple[int, int, int], Any] = {}
        self._peers: dict[tuple[int, bytes], str] = {}
        self._second = -1
        self._clock = ""

    def lines(self, worker: int, records: Records, names: Sequence[str]) -> list[bytes]:
        """One for each of `records`: RECORD[n]. `names` are those of the worker's ring; the same object each time."""
        if self._names.get(worker) is not names:
            self._names[worker] = names
            self._shared = {}
        times = {name: records[name].astype(np.int64) for name in ("replied_ns", "decoded_ns", "started_ns", "ran_ns")}
        columns = (
            self._shared_of(worker, records, names),
            self._peers_of(records),
            records["received_unix_ns"].tolist(),
            (times["replied_ns"] / 1e6).tolist(),
            ((times["started_ns"] - times["decoded_ns"]) / 1e6).tolist(),
            ((times["ran_ns"] - times["started_ns"]) / 1e6).tolist(),
            (times["ran_ns"] != 0).tolist(),
            *(records[name].tolist() for name in ("rows", "bytes_in", "bytes_out", "run_rows", "run_requests")),
            _hexadecimal(records["trace_id"]),
            _hexadecimal(records["span_id"]),
            (records["trace_flags"] & 1 == 1).tolist(),
            _cut(records["request_id"], np.zeros_like(records["request_id_bytes"]), records["request_id_bytes"]),
            (records["marks"] & _ID_CUT != 0).tolist(),
            _cut(records["text"], records["state_bytes"], records["extra_bytes"]),
        )
        return [self._format(row).encode() for row in map(_Row._make, zip(*columns, strict=True))]

    def _shared_of(self, worker: int, records: Records, names: Sequence[str]) -> list[Any]:
        """For each record, what all requests of one version, route and outcome have in common."""
        wide = {name: records[name].astype(np.uint64) for name in ("target", "variant", "authority", "refusal", "code")}
        names_of = wide["target"] | wide["variant"] << np.uint64(32) | wide["authority"] << np.uint64(48)
        rest = wide["refusal"] | wide["code"] << np.uint64(16) | records["reason"].astype(np.uint64) << np.uint64(24)
        rest |= (records["marks"].astype(np.uint64) & np.uint64(_STREAM)) << np.uint64(32)
        found = []
        for place, key in enumerate(zip(names_of.tolist(), rest.tolist(), strict=True)):
            known = self._shared.get((worker, *key))
            if known is None:
                if len(self._shared) >= MAX_REMEMBERED:
                    self._shared = {}
                known = self._shared[worker, *key] = self._share(_shared_fields(worker, records[place], names))
            found.append(known)
        return found

    def _peers_of(self, records: Records) -> list[str]:
        numbers = (records["peer_port"].astype(np.int64) << 8 | records["peer_family"]).tolist()
        found = []
        for number, address in zip(numbers, _cut(records["peer_address"]), strict=True):
            known = self._peers.get((number, address))
            if known is None:
                if len(self._peers) >= MAX_REMEMBERED:
                    self._peers = {}
                known = self._peers[number, address] = peer_text(number & 0xFF, number >> 8, address)
            found.append(known)
        return found

    def _shared_json(self, fields: dict[str, Any]) -> str:
        return json_text(fields)[1:-1]

    def _shared_text(self, fields: dict[str, Any]) -> str:
        model = f"{fields['model']}/{fields['version']}" if "model" in fields else "-"
        route = ", ".join(fields[key] for key in ("variant", "reason") if key in fields)
        method = fields["method"].rpartition("/")[2]
        code, refusal = fields["code"], fields.get("refusal", "")
        outcome = f"{code} ({refusal})" if refusal not in ("", code) else code
        colour = self._colours.get(fields["level"], "")
        asked = escaped(f"{method} {model}" + (f" ({route})" if route else ""))
        return f"{asked} {colour}{escaped(outcome)}{RESET if colour else ''}"

    def _json(self, row: _Row) -> str:
        second, nanosecond = divmod(row.received_unix_ns, SECOND_NS)
        if second != self._second:
            self._second = second
            self._clock = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        line = (
            f'{{"time":"{self._clock}.{nanosecond // 1000:06d}+00:00",{row.shared},"peer":"{row.peer}",'
            f'"rows":{row.rows},"bytes_in":{row.bytes_in},"bytes_out":{row.bytes_out},'
            f'"duration_ms":{row.duration_ms:.3f}'
        )
        if row.ran:
            line += (
                f',"queue_ms":{row.queue_ms:.3f},"run_ms":{row.run_ms:.3f},'
                f'"batch_rows":{row.run_rows},"batch_requests":{row.run_requests}'
            )
        if row.request_id:
            line += f',"request_id":{json_text(_request_id(row))}'
        if row.trace_id != NO_TRACE:
            sampled = "true" if row.sampled else "false"
            line += f',"trace_id":"{row.trace_id}","span_id":"{row.span_id}","sampled":{sampled}'
        if row.extra:
            line += "".join(f",{json_text(key)}:{json_text(value)}" for key, value in self._attributes(row.extra))
        return line + "}\n"

    def _text(self, row: _Row) -> str:
        second, nanosecond = divmod(row.received_unix_ns, SECOND_NS)
        if second != self._second:
            self._second = second
            self._clock = time.strftime("%H:%M:%S", time.localtime(second))
        line = (
            f"{self._clock}.{nanosecond // 1_000_000:03d} {row.peer or '-'} {row.shared} rows={row.rows} "
            f"bytes={row.bytes_in}/{row.bytes_out} {row.duration_ms:.3f} ms"
        )
        if row.ran:
            line += f" (queue {row.queue_ms:.3f}, run {row.run_ms:.3f}) batch={row.run_rows}/{row.run_requests}"
        if row.request_id:
            line += f" id={_quoted(_request_id(row))}"
        if row.trace_id != NO_TRACE:
            line += f" trace={row.trace_id} span={row.span_id}"
        for key, value in self._attributes(row.extra):
            line += f" {_quoted(key.removeprefix('driftgate.'))}={_quoted(value)}"
        return line + "\n"

    def _attributes(self, data: bytes) -> Iterator[tuple[str, str]]:
        """(number u8, length u8, utf-8)*, as far as their numbers have keys."""
        at = 0
        while at + 2 <= len(data):
            number, length = data[at], data[at + 1]
            value = data[at + 2 : at + 2 + length]
            at += 2 + length
            if number < len(self._keys):
                yield self._keys[number], value.decode("utf-8", "replace")


def peer_text(family: int, port: int, address: bytes) -> str:
    """`127.0.0.1:5000`, `[::1]:5000`, `unix`; "" where it is not known."""
    if family == PeerFamily.IPV4:
        return f"{socket.inet_ntop(socket.AF_INET, address[:4])}:{port}"
    if family == PeerFamily.IPV6:
        return f"[{socket.inet_ntop(socket.AF_INET6, address)}]:{port}"
    return "unix" if family == PeerFamily.UNIX else ""


def _shared_fields(worker: int, record: Any, names: Sequence[str]) -> dict[str, Any]:
    """`record`: one of RECORD, with numbers of `names`."""
    number, reason = int(record["code"]), int(record["reason"])
    code = CODES[number] if number < len(CODES) else str(number)
    level = "error" if code in SERVER_ERRORS else "warning" if number else "info"
    method = STREAM_METHOD if record["marks"] & _STREAM else INFER_METHOD
    fields: dict[str, Any] = {"level": level, "logger": LOGGER, "worker": worker, "method": method}
    target = _name(record["target"], names)
    if len(target) == 3:
        model, version, digest = target
        fields |= {"model": model, "version": int(version) if version.isdecimal() else version, "digest": digest}
    if record["variant"]:
        fields["variant"] = _name(record["variant"], names)[0]
    if 0 < reason < len(Reason):
        fields["reason"] = Reason(reason).name.lower()
    fields["code"] = code
    if record["refusal"]:
        fields["refusal"] = _name(record["refusal"], names)[0]
    if record["authority"]:
        fields["authority"] = _name(record["authority"], names)[0]
    return fields


def _name(number: int, names: Sequence[str]) -> list[str]:
    """The parts of a name after its kind; one empty part where there is no such name."""
    text = names[number] if number < len(names) else ""
    return text.split(SEPARATOR)[1:] or [""]


def _hexadecimal(ids: npt.NDArray[np.uint8]) -> list[str]:
    """`ids`: uint8[n, size]."""
    size = ids.shape[1] * 2
    text = ids.tobytes().hex()
    return [text[at : at + size] for at in range(0, len(text), size)]


def _cut(
    fields: npt.NDArray[np.uint8],
    starts: npt.NDArray[np.uint8] | None = None,
    sizes: npt.NDArray[np.uint8] | None = None,
) -> list[bytes]:
    """`fields`: uint8[n, size]. Of each, `sizes` bytes from `starts` on; all of it where none are given."""
    size = fields.shape[1]
    data = fields.tobytes()
    begins = range(0, len(data), size)
    if starts is None or sizes is None:
        return [data[at : at + size] for at in begins]
    return [
        data[at + start : at + min(start + length, size)]
        for at, start, length in zip(begins, starts.tolist(), sizes.tolist(), strict=True)
    ]


def _request_id(row: _Row) -> str:
    """One that was cut may end in the middle of a character, which is left out."""
    return row.request_id.decode("utf-8", "ignore" if row.id_cut else "replace")


def _quoted(text: str) -> str:
    """For people: as it is where it is one word, else in quotes with escapes."""
    if text and text.isprintable() and not any(character in text for character in ' "='):
        return text
    return json_text(text)
