"""The looks of the past: when, at how many rows, with which decision, and how large each subject's effect was."""

from __future__ import annotations

import base64
import threading
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

MAX_LOOKS = 720
"""Two hours of looks at panes of 10 s."""

MAX_SUBJECTS = 256
"""With MAX_LOOKS: 720 KiB a version, at most."""

Effects = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Past:
    """Oldest first. effects: float32[looks, subjects], in thresholds; NaN: the subject was not in that look."""

    subjects: tuple[str, ...]
    times_seconds: tuple[float, ...]
    rows: tuple[int, ...]
    decisions: tuple[str, ...]
    effects: Effects


class History:
    """At most MAX_LOOKS looks of MAX_SUBJECTS subjects. Written by one thread, read by any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._subjects: list[str] = []
        self._looks: list[tuple[float, int, str]] = []
        self._effects: Effects = np.zeros((0, 0), np.float32)

    def add(
        self,
        time_seconds: float,
        rows: int,
        decision: str,
        effects: Mapping[str, float],
        important: Collection[str] = (),
    ) -> None:
        """`effects`: by subject, the larger first. Once there is no room, only the `important` find some: in the place
        of others, whose past is forgotten.
        """
        with self._lock:
            self._make_room(list(effects), important)
            row = np.array([[effects.get(subject, np.nan) for subject in self._subjects]], np.float32)
            self._effects = np.concatenate([self._effects, row])[-MAX_LOOKS:]
            self._looks = [*self._looks, (time_seconds, rows, decision)][-MAX_LOOKS:]

    def _make_room(self, subjects: Sequence[str], important: Collection[str]) -> None:
        known = set(self._subjects)
        new = [subject for subject in subjects if subject not in known]
        added = new[: MAX_SUBJECTS - len(self._subjects)]
        if added:
            self._subjects += added
            blank = np.full((len(self._looks), len(added)), np.nan, np.float32)
            self._effects = np.concatenate([self._effects, blank], axis=1)
        entering = [subject for subject in new[len(added) :] if subject in important]
        places = (at for at, subject in reversed(list(enumerate(self._subjects))) if subject not in important)
        for subject, at in zip(entering, places, strict=False):
            self._subjects[at] = subject
            self._effects[:, at] = np.nan

    def past(self, most: int = MAX_LOOKS) -> Past:
        """The last looks; a copy."""
        with self._lock:
            looks = self._looks[-most:] if most > 0 else []
            return Past(
                tuple(self._subjects),
                tuple(look[0] for look in looks),
                tuple(look[1] for look in looks),
                tuple(look[2] for look in looks),
                self._effects[len(self._looks) - len(looks) :].copy(),
            )

    def to_json(self) -> dict[str, Any]:
        past = self.past()
        return {
            "subjects": past.subjects,
            "looks": list(zip(past.times_seconds, past.rows, past.decisions, strict=True)),
            "effects": base64.b64encode(zlib.compress(past.effects.astype("<f4").tobytes(), 1)).decode("ascii"),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> History:
        """Raises ValueError, TypeError or KeyError for what `to_json` has not written."""
        history = cls()
        subjects = [str(name) for name in document["subjects"]][:MAX_SUBJECTS]
        looks = [(float(time), int(rows), str(decision)) for time, rows, decision in document["looks"]]
        try:
            data = zlib.decompress(base64.b64decode(document["effects"], validate=True))
        except zlib.error as error:
            raise ValueError(f"effects: {error}") from error
        effects = np.frombuffer(data, "<f4").astype(np.float32).reshape(len(looks), len(document["subjects"]))
        history._subjects = subjects
        history._looks, history._effects = looks[-MAX_LOOKS:], effects[-MAX_LOOKS:, : len(subjects)].copy()
        return history
