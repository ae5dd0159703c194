"""A pair of versions as the writer of copies describes it to their reader."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from runtime.shadow.pair import PairKey, PairSettings


@dataclass(frozen=True, slots=True)
class CopiedPair:
    """`inputs`, `outputs`: the primary's tensors as (name, datatype), in the order of its signature, by which copies
    number them. `batched`: requests are joined on axis 0.
    """

    key: PairKey
    settings: PairSettings
    inputs: tuple[tuple[str, str], ...]
    outputs: tuple[tuple[str, str], ...]
    batched: bool

    def to_json(self) -> bytes:
        return json.dumps(dataclasses.asdict(self), separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, text: bytes) -> CopiedPair:
        """Of what `to_json` wrote."""
        document = json.loads(text)
        settings = document["settings"]
        settings["redact"] = tuple(settings["redact"])
        return cls(
            PairKey(**document["key"]),
            PairSettings(**settings),
            tuple((name, datatype) for name, datatype in document["inputs"]),
            tuple((name, datatype) for name, datatype in document["outputs"]),
            bool(document["batched"]),
        )
