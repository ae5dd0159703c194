"""From an order to a profile: fetches the version, runs it on the data, and writes what was measured."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.cli.failure import Failure
from gateway.config import Config
from gateway.version import VERSION
from gateway.wire.pbtxt import read_config_pbtxt
from runtime.errors import ServingError
from runtime.onnx.session import Session
from runtime.onnx.warmup import warm_up
from runtime.profile.build import Building, Built, missing_numbers, rows_in_a_run
from runtime.profile.build_columns import assign
from runtime.profile.build_data import Data, DataProblem, data_files, fingerprint, open_data
from runtime.profile.of_signature import column_names, names_in, schema_of
from runtime.profile.reference import Profile
from runtime.repository.cache import ArtifactCache, CacheUnwritable
from runtime.repository.repository import ModelEntry, ProfileExists, Repository
from runtime.sketch.errors import Malformed
from runtime.types import Artifact

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

SEED_DIGITS = 15
"""Of the data's fingerprint, in base 16: the same rows give the same sample of rows."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What was asked for on the command line."""

    model: str
    version: int
    paths: Sequence[Path]
    target: str = ""
    names: str = ""
    output: Path | None = None
    force: bool = False
    commit: str = ""
    parameters: Mapping[str, str]
    limit_rows: int | None = None
    batch_rows: int | None = None
    quiet: bool = False


@contextlib.contextmanager
def open_repository(config: Config) -> Iterator[Repository]:
    """With the gateway's own cache, so that nothing is fetched twice; with another where that is not ours."""
    with contextlib.ExitStack() as stack:
        try:
            cache = ArtifactCache(config.state_folder() / "cache")
        except CacheUnwritable:
            cache = ArtifactCache(stack.enter_context(tempfile.TemporaryDirectory(prefix="driftgate-profile-")))
        stack.callback(cache.close)
        yield Repository(config.models, cache, read_config_pbtxt, settle_seconds=config.repository.settle_seconds)


def build_profile(config: Config, order: Order) -> tuple[Profile, str, bool]:
    """The profile, where it is, and whether anything was written. Raises Failure, and writes nothing then."""
    with open_repository(config) as repository:
        try:
            entry = repository.model(order.model)
            if entry.problems:
                raise Failure(f"{order.model}: {'; '.join(entry.problems)}")
            artifact = repository.fetch(order.model, order.version)
            with _progress(order.quiet) as progress:
                built = _built(entry, artifact, order, progress)
            return _kept(repository, built, order)
        except ServingError as error:
            raise Failure(error.message) from None
        except (DataProblem, Malformed) as error:
            raise Failure(str(error)) from None


def _built(entry: ModelEntry, artifact: Artifact, order: Order, progress: Bars) -> Profile:
    files = data_files(order.paths)
    data = open_data(files)
    manifest = entry.manifest
    session = Session(Path(artifact.folder) / artifact.model_filename, manifest.session)
    settings = manifest.statistics
    schema = schema_of(session.signature, settings)
    inputs = assign(
        session.signature,
        data.columns,
        target=order.target,
        names=_names(session, column_names(session.signature, settings), order.names),
        missing=missing_numbers(schema, settings),
    )
    ready = warm_up(session, Path(artifact.folder), manifest.warmup, manifest.batching.max_batch_size)
    digest = progress.reading(files)
    building = Building(
        session,
        schema,
        inputs,
        order.target,
        rows_in_a_run(session.signature, ready.max_rows, order.batch_rows),
        int(digest.removeprefix("sha256:")[:SEED_DIGITS], 16),
        order.limit_rows,
        progress.running(data, files, order.limit_rows),
    )
    built = building.build(data)
    about = _about(order, artifact, files, digest, built)
    return Profile.of_data(built.summary, about, float(_now()), dict(built.labels.counts))


def _now() -> int:
    """Whole seconds. SOURCE_DATE_EPOCH stands for the clock where builds are to be the same, byte for byte."""
    return int(os.environ.get("SOURCE_DATE_EPOCH") or time.time())


def _names(session: Session, known: dict[str, list[str]], given: str) -> dict[str, list[str]]:
    if not given:
        return known
    inputs = session.signature.inputs
    if len(inputs) != 1:
        raise Failure(f"--names: the model has {len(inputs)} inputs; each takes the column of its own name")
    names = names_in(given)
    if len(set(names)) != len(names) or not all(names):
        raise Failure("--names: expected names that differ, with commas between them, or a JSON list of texts")
    return {inputs[0].name: names}


def _about(order: Order, artifact: Artifact, files: Sequence[Path], digest: str, built: Built) -> dict[str, str]:
    facts = {
        "model": order.model,
        "model_version": str(order.version),
        "version_digest": artifact.digest,
        "driftgate_version": VERSION,
        "data": ", ".join(file.name for file in files)[:4096],
        "data_fingerprint": digest,
        "commit": order.commit,
        "target": order.target,
        "limit_rows": str(order.limit_rows or ""),
        "rows_left_out": str(built.left_out or ""),
        "labels": "too many different values to count" if built.labels.too_many else "",
    }
    parameters = {f"parameter.{key}": value for key, value in order.parameters.items()}
    return {key: value for key, value in facts.items() if value} | parameters


def _kept(repository: Repository, built: Profile, order: Order) -> tuple[Profile, str, bool]:
    if order.output is not None:
        _write(order.output, built.encode())
        return built, str(order.output), True
    where = f"{order.model}/profiles/{order.version}.profile"
    present = _present(repository, order)
    if present is not None and present.same_but_time(built):
        return present, where, False
    try:
        changed = repository.write_profile(order.model, order.version, built.encode(), replace=order.force)
    except ProfileExists:
        shown = f", made of {present.about.get('data', 'other data')}" if present is not None else ""
        raise Failure(f"{where}: there is another profile{shown}; --force replaces it") from None
    return built, where, changed


def _present(repository: Repository, order: Order) -> Profile | None:
    try:
        data = repository.profile(order.model, order.version)
        return None if data is None else Profile.decode(data)
    except (ServingError, Malformed):  # write_profile says whether it is in the way
        return None


def _write(path: Path, content: bytes) -> None:
    """Whole, or not at all."""
    try:
        descriptor, staged = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            Path(staged).chmod(0o644)
            Path(staged).replace(path)
        except BaseException:
            Path(staged).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise Failure(f"{path}: cannot be written: {error.strerror}") from None


class Bars:
    """Progress on standard error: of reading the files, then of running their rows. Nothing without a terminal."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress

    def reading(self, files: Sequence[Path]) -> str:
        task = self._task("fingerprint", sum(file.stat().st_size for file in files))
        return fingerprint(files, lambda count: self._advance(task, count))

    def running(self, data: Data, files: Sequence[Path], limit_rows: int | None) -> Callable[[int], None]:
        """What `Building` calls."""
        total = data.rows
        if total is not None and limit_rows is not None:
            total = min(total, limit_rows)
        by_bytes = total is None
        task = self._task("rows", sum(file.stat().st_size for file in files) if by_bytes else total)
        started = time.monotonic()

        def on_rows(rows: int) -> None:
            if self._progress is None or task is None:
                return
            speed = rows / max(time.monotonic() - started, 1e-9)
            self._progress.update(
                task, completed=data.bytes_read if by_bytes else rows, shown=f"{rows:,} rows, {speed:,.0f} rows/s"
            )

        return on_rows

    def _task(self, what: str, total: int | None) -> TaskID | None:
        return self._progress.add_task(what, total=total, shown="") if self._progress is not None else None

    def _advance(self, task: TaskID | None, count: int) -> None:
        if self._progress is not None and task is not None:
            self._progress.advance(task, count)


@contextlib.contextmanager
def _progress(quiet: bool) -> Iterator[Bars]:
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        yield Bars(None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if console.is_dumb_terminal:
        yield Bars(None)
        return
    columns: tuple[Any, ...] = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[shown]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield Bars(progress)
