"""The access log: one line a request on standard output, for those requests that it is set to show.

    write ── choose, copy ──> at most MAX_WAITING records ──> the line writer's thread: format, write ──> stream

Whoever calls `write` never waits: a stream that nobody reads, or too slowly, costs lines, which are counted.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from typing import Literal, TextIO

import numpy as np
import numpy.typing as npt

from gateway.lines import LineWriter
from gateway.logs import for_people, takes_colour
from gateway.telemetry.access_lines import AccessLines
from runtime.shm.record import Records

log = logging.getLogger(__name__)

MAX_WAITING = 16_384  # records, 384 bytes each
FORMATTED_AT_ONCE = 256  # lines

Mode = Literal["off", "errors", "sampled", "all"]
Words = npt.NDArray[np.uint64]


class AccessLog:
    """Thread-safe. `style`: auto, text, json. `ratio`: the share of requests without an error that `sampled` shows.

    A request is in the sample by its trace id alone: every gateway that a trace passes shows all of it, or nothing.
    `stream` None: standard output was closed when the process started, and nothing is shown.
    Every record chosen ends up in `written` or `dropped`. Call `close` at the end.
    """

    def __init__(
        self, mode: Mode, ratio: float, stream: TextIO | None, style: str, attribute_keys: Sequence[str] = ()
    ) -> None:
        self._mode = mode
        self._ratio = ratio
        self._writer: LineWriter | None = None
        if stream is not None and mode != "off":
            people, colour = for_people(style, stream), takes_colour(stream)
            self._lines = AccessLines(people=people, colour=colour, attribute_keys=attribute_keys)
            self._writer = LineWriter(
                stream.fileno(), "access log", MAX_WAITING, on_broken=_tell_broken, on_mended=_tell_mended
            )

    @property
    def written(self) -> int:
        """Lines that the stream took."""
        return self._writer.written if self._writer is not None else 0

    @property
    def dropped(self) -> int:
        """Lines that found no room, or a stream that nobody reads."""
        return self._writer.dropped if self._writer is not None else 0

    def write(self, worker: int, records: Records, names: Sequence[str]) -> int:
        """Answers how many of `records` (RECORD[n], which may be overwritten afterwards) become lines, if read.

        `names`: the ring's names, a list that only ever grows.
        """
        if self._writer is None:
            return 0
        chosen = self._chosen(records)
        taken = 0
        for start in range(0, len(chosen), FORMATTED_AT_ONCE):
            part = chosen[start : start + FORMATTED_AT_ONCE]
            make = functools.partial(self._format, worker, part, names)
            taken += len(part) if self._writer.offer(len(part), len(part), make) else 0
        return taken

    def close(self, seconds: float = 1.0) -> None:
        """Writes what waits, as far as the stream takes it within `seconds`; the rest is dropped."""
        if self._writer is not None:
            self._writer.close(seconds)

    def _chosen(self, records: Records) -> Records:
        """A copy of those to be shown."""
        if self._mode == "all":
            return records.copy()
        wanted = records["code"] != 0
        if self._mode == "sampled":
            wanted |= in_sample(records, self._ratio)
        chosen: Records = records[wanted]
        return chosen

    def _format(self, worker: int, records: Records, names: Sequence[str]) -> list[bytes]:
        try:
            return self._lines.lines(worker, records, names)
        except Exception:
            log.exception("%d lines of the access log could not be made", len(records))
            return []


def _tell_broken(error: OSError) -> None:
    log.warning("the access log cannot be written (%s): lines are dropped until it can", error)


def _tell_mended(lost: int) -> None:
    log.warning("the access log is written again; %d lines were dropped", lost)


def in_sample(records: Records, ratio: float) -> npt.NDArray[np.bool_]:
    """bool[n], by a hash of the trace id; of the time and the client where a request has no id."""
    if ratio >= 1:
        return np.ones(len(records), np.bool_)
    ids: Words = np.ascontiguousarray(records["trace_id"]).view(np.uint64).reshape(-1, 2)
    mixed = ids[:, 0] ^ _mixed(ids[:, 1])
    without = ~ids.any(axis=1)
    if without.any():
        port = records["peer_port"].astype(np.uint64)
        mixed[without] = (records["received_unix_ns"] ^ _mixed(port ^ records["decoded_ns"]))[without]
    sample: npt.NDArray[np.bool_] = _mixed(mixed) < np.uint64(int(ratio * 2**64))
    return sample


def _mixed(words: Words) -> Words:
    """The finalizer of SplitMix64 (Steele, Lea and Flood, 2014): ids that are counted up become evenly spread."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
