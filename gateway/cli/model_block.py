"""One model as the commands show it: a heading, its versions, what they take and give, and what is wrong with them.

iris  policy latest(1); default newest
VERSION  STATE      SERVED AS        DIGEST        LOAD    MEMORY    BATCH  WORKERS
      2  available  default, stable  3f2a9c01b7de  820 ms  12.3 MiB     32      2/2
  takes  X FP32[-1,30]
  gives  label INT64[-1], probabilities FP32[-1,2]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from gateway.cli.console import state_name, state_text, table
from gateway.cli.text import NOTHING, byte_count, duration, moment, one_line, short_digest, signature
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

INDENT = 2


def model_block(model: pb.Model, *, verbose: bool = False) -> list[RenderableType]:
    body: list[RenderableType] = list(_details(model) if verbose else _summary(model))
    body += [_note("problem", one_line(problem), "red") for problem in model.problems]
    return [_heading(model), *(Padding(part, (0, 0, 0, INDENT), expand=False) for part in body)]


def _heading(model: pb.Model) -> Text:
    target = one_line(model.default_target) or "newest"
    facts = [f"policy {one_line(model.policy) or NOTHING}", f"default {target}"]
    if not model.served:
        facts.insert(0, "not served")
    return Text.assemble((one_line(model.name), "bold"), "  ", ("; ".join(facts), "dim"))


def _summary(model: pb.Model) -> Iterator[RenderableType]:
    if model.versions:
        yield _versions(model)
    for word, of in (("takes", _takes), ("gives", _gives)):
        for text, numbers in _by_text(model.versions, of):
            yield _note(word, text, "", _scope(numbers, model))
    for version in model.versions:
        if version.reason:
            failed = version.state == pb.VERSION_STATE_FAILED
            yield _note("reason", one_line(version.reason), "red" if failed else "", _scope([version.version], model))
    for text, numbers in _by_text(model.versions, lambda version: [one_line(w) for w in version.warnings]):
        yield _note("warning", text, "yellow", _scope(numbers, model))


def _versions(model: pb.Model) -> RenderableType:
    right = frozenset({"VERSION", "LOAD", "MEMORY", "BATCH", "WORKERS"})
    drawn = table(
        "VERSION",
        "STATE",
        "SERVED AS",
        "DIGEST",
        "LOAD",
        "MEMORY",
        "BATCH",
        "WORKERS",
        right=right,
        fold=frozenset({"SERVED AS"}),
    )
    for version in model.versions:
        drawn.add_row(
            str(version.version),
            state_text(version.state),
            Text(_names(version)),
            short_digest(version.digest),
            _load_duration(version),
            byte_count(version.memory_bytes) if version.memory_bytes else NOTHING,
            _max_batch(version),
            f"{version.workers_available}/{version.workers_total}",
        )
    return drawn


def _details(model: pb.Model) -> Iterator[RenderableType]:
    for version in model.versions:
        facts: list[tuple[str, str]] = [
            ("state", state_name(version.state)),
            ("reason", one_line(version.reason)),
            ("served as", _names(version)),
            ("digest", one_line(version.digest) or NOTHING),
            *(("takes", signature([tensor])) for tensor in version.inputs),
            *(("gives", signature([tensor])) for tensor in version.outputs),
            ("loaded at", moment(version.loaded_at) if version.HasField("loaded_at") else NOTHING),
            ("load", _load_duration(version)),
            ("memory", byte_count(version.memory_bytes) if version.memory_bytes else NOTHING),
            ("files", byte_count(version.file_bytes) if version.file_bytes else NOTHING),
            ("providers", ", ".join(map(one_line, version.execution_providers)) or NOTHING),
            ("max batch", _max_batch(version)),
            ("workers", f"{version.workers_available} of {version.workers_total}"),
            *(("warning", one_line(warning)) for warning in version.warnings),
        ]
        yield Text(f"version {version.version}", style="bold")
        for word, text in facts:
            if text:
                yield Text(f"  {word:<10}  {text}")


def _takes(version: pb.Version) -> list[str]:
    return [signature(version.inputs)]


def _gives(version: pb.Version) -> list[str]:
    return [signature(version.outputs)]


def _by_text(versions: Iterable[pb.Version], texts: Callable[[pb.Version], list[str]]) -> list[tuple[str, list[int]]]:
    """What several versions have in common is said once: each text with the versions that it is true of."""
    found: dict[str, list[int]] = {}
    for version in versions:
        for text in filter(None, texts(version)):
            found.setdefault(text, []).append(version.version)
    return list(found.items())


def _scope(numbers: list[int], model: pb.Model) -> str:
    """Empty where it is said of every version."""
    if len(set(numbers)) == len(model.versions):
        return ""
    return f"{'version' if len(numbers) == 1 else 'versions'} {', '.join(map(str, numbers))}: "


def _note(word: str, text: str, style: str, scope: str = "") -> Text:
    return Text.assemble((f"{word:>7}  ", "dim"), scope, (text, style))


def _names(version: pb.Version) -> str:
    return ", ".join([*(["default"] if version.is_default else []), *map(one_line, version.labels)])


def _load_duration(version: pb.Version) -> str:
    return duration(version.load_duration) if version.HasField("load_duration") else NOTHING


def _max_batch(version: pb.Version) -> str:
    return str(version.max_batch_size) if version.max_batch_size else NOTHING
