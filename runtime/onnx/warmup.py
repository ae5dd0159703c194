"""Validation and warm-up: what a version must show before it may take traffic.

Inputs come from the version's warm-up file (an .npz with one array per input, rows along axis 0) or are synthesized
from the signature. Whether axis 0 really is an axis of rows is measured, not assumed: three rows, of which the first
and the last differ, are run together and one by one, and must give the same answers.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.errors import LoadError, RunError
from runtime.onnx.dtypes import BY_NAME
from runtime.onnx.session import RunStop, Session, plain_words
from runtime.onnx.signature import batch_axis, show_shape
from runtime.repository.manifest import WarmupSettings
from runtime.types import ANY, Signature, TensorSpec

Array = npt.NDArray[Any]
Feeds = dict[str, Array]

DEFAULT_MAX_ROWS = 64  # where nothing is configured: one run of a small model stays far below a millisecond
ROWS = 3
SYNTHETIC = ("random", "bits", "zeros", "ones")
COLUMNS = ((1, 2, 0), (0, 2, 1))  # sorting changes them, reversing too, the latter also where only 0 and 1 are left


@dataclass(frozen=True, slots=True)
class WarmUp:
    """`max_rows`: rows that may share a run (0: none). `run_seconds`: one run of the largest batch, warm."""

    max_rows: int
    run_seconds: float
    warnings: tuple[str, ...]


class _Stopped(Exception):
    """The warm-up's time is over."""


def warm_up(session: Session, folder: Path, settings: WarmupSettings, configured_max_rows: int | None) -> WarmUp:
    """Runs every batch size that will be used. Raises LoadError if the version must not take traffic."""
    stop = RunStop()
    timer = stop.after(settings.limit_seconds)
    try:
        return _warm_up(session, folder, settings, configured_max_rows, stop)
    except _Stopped:
        raise LoadError(
            f"warm-up was stopped after {settings.limit_seconds:g} s (warmup.limit_seconds): the model may loop "
            "without end"
        ) from None
    finally:
        timer.cancel()


def _warm_up(session: Session, folder: Path, settings: WarmupSettings, configured: int | None, stop: RunStop) -> WarmUp:
    warnings: list[str] = []
    signature = session.signature
    if configured and not batch_axis(signature):
        raise LoadError(
            f"max_batch_size is {configured}, but axis 0 of {_fixed_tensor(signature)} is not of any size: export the "
            "model with a dynamic batch axis, or set batching.max_batch_size to 0"
        )
    if not settings.enabled:
        return WarmUp(configured or 0, 0.0, ("warm-up is off: the first requests pay for it, and batching needs it",))
    feeds, failure = _first_that_runs(session, folder / settings.file, settings, stop)
    if feeds is None:
        warnings.append(
            f"not warmed up: the model refused every synthesized input ({failure}); "
            f"put real rows into {settings.file} beside the model"
        )
        return WarmUp(configured or 0, 0.0, tuple(warnings))
    max_rows = 0
    if configured != 0 and batch_axis(signature):
        probe = _probe(session, feeds, settings, stop)
        mixed = "" if probe is None else _rows_influence_each_other(session, probe, stop)
        if probe is None:
            max_rows = configured or 0
            warnings.append(
                "whether rows influence each other is not known, for no rows that differ were accepted: put three "
                f"different rows into {settings.file} beside the model"
                + ("" if configured else "; until then requests are run one by one")
            )
        elif not mixed:
            max_rows = configured or DEFAULT_MAX_ROWS
        elif configured:
            raise LoadError(
                f"max_batch_size is {configured}, but {mixed}: requests of different clients would change each "
                "other's answers; set batching.max_batch_size to 0"
            )
        else:
            warnings.append(f"requests are run one by one: {mixed}")
    sizes = settings.batch_sizes or (batch_sizes(max_rows) if max_rows else ())
    seconds = 0.0
    for size in sizes or (0,):
        batch = _resize(feeds, size) if size and batch_axis(signature) else feeds
        seconds = min(_timed_run(session, batch, stop) for _ in range(settings.runs + 1))
    return WarmUp(max_rows, seconds, tuple(warnings))


def batch_sizes(max_rows: int) -> tuple[int, ...]:
    """Powers of two up to `max_rows`, and `max_rows` itself: ONNX Runtime plans memory per size class it has seen."""
    sizes = [1 << exponent for exponent in range(max_rows.bit_length()) if 1 << exponent < max_rows]
    return (*sizes, max_rows)


def synthesize(signature: Signature, rows: int, free_axis_size: int, kind: str) -> Feeds:
    """Inputs of the right shapes; `kind` is of SYNTHETIC. Axes of the row axis' symbolic name get its size.

    "random" and "bits" differ between the first row and the third: floats are normal, integers at most 2 ("bits": 1),
    so that they are valid as ids.
    """
    random = np.random.default_rng(0)
    batched = batch_axis(signature)
    row_axis = signature.inputs[0].axes[0] if batched and signature.inputs[0].axes else ""
    feeds: Feeds = {}
    for spec in signature.inputs:
        shape = tuple(
            axis
            if axis != ANY
            else rows
            if batched and (position == 0 or (row_axis and spec.axes[position] == row_axis))
            else free_axis_size
            for position, axis in enumerate(spec.shape)
        )
        feeds[spec.name] = _values(spec, shape, kind, random)
    return feeds


def _values(spec: TensorSpec, shape: tuple[int, ...], kind: str, random: np.random.Generator) -> Array:
    dtype = BY_NAME[spec.datatype].numpy
    if kind == "random" and (dtype.kind == "f" or spec.datatype == "BF16"):
        values: Array = np.asarray(random.normal(size=shape))
    elif kind in ("zeros", "ones") or not shape:
        values = np.full(shape, kind == "ones", np.int64)
    else:
        column = random.integers(0, len(COLUMNS), size=(1, *shape[1:]))
        values = np.array(COLUMNS)[column, (np.arange(shape[0]) % ROWS).reshape(-1, *[1] * (len(shape) - 1))]
        if kind == "bits":
            values = np.minimum(values, 1)
    if spec.datatype == "BYTES":
        words = np.array(["a", "b", "1.5"] if kind == "random" else ["0", "1"], object)
        return np.asarray(words[values], object)
    if spec.datatype == "BF16":  # the upper half of a float32
        bits: Array = np.asarray((np.asarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16))
        return bits
    return np.asarray(values).astype(dtype)


def _first_that_runs(session: Session, file: Path, settings: WarmupSettings, stop: RunStop) -> tuple[Feeds | None, str]:
    if file.is_file():
        feeds = _read_file(file, session.signature)
        _run(session, feeds, stop)
        return feeds, ""
    failure = ""
    for kind in SYNTHETIC:
        feeds = synthesize(session.signature, ROWS, settings.free_axis_size, kind)
        try:
            session.run(feeds, None, stop)
        except RunError as error:
            _raise_if_stopped(stop)
            failure = failure or plain_words(error.detail)
        else:
            return feeds, ""
    return None, failure


def _read_file(file: Path, signature: Signature) -> Feeds:
    try:
        # Opened here, for numpy leaves it open where the archive is broken.
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except Exception as error:
        raise LoadError(f"{file.name} is not a readable .npz file: {error}") from None
    feeds: Feeds = {}
    problems = [f"{name!r} is not an input of the model" for name in arrays.keys() - {s.name for s in signature.inputs}]
    for spec in signature.inputs:
        array = arrays.get(spec.name)
        if array is None:
            problems.append(f"no array for input {spec.name!r}")
            continue
        want = BY_NAME[spec.datatype].numpy
        if spec.datatype == "BYTES":
            array = np.array([_text(element) for element in array.ravel()], object).reshape(array.shape)
        fits = array.ndim == len(spec.shape) and all(
            axis in (ANY, size) for axis, size in zip(spec.shape, array.shape, strict=True)
        )
        if array.dtype != want or not fits:
            problems.append(
                f"input {spec.name!r}: expected {spec.datatype} {show_shape(spec.shape)}, "
                f"got {array.dtype} {show_shape(array.shape)}"
            )
        feeds[spec.name] = np.ascontiguousarray(array)
    if problems:
        raise LoadError(f"{file.name} does not fit the model: " + "; ".join(problems))
    return feeds


def _text(element: Any) -> str:
    return element.decode("utf-8", "replace") if isinstance(element, bytes) else str(element)


def _timed_run(session: Session, feeds: Feeds, stop: RunStop) -> float:
    started = time.perf_counter()
    _run(session, feeds, stop)
    return time.perf_counter() - started


def _run(session: Session, feeds: Feeds, stop: RunStop) -> list[Array]:
    try:
        return session.run(feeds, None, stop)
    except RunError as error:
        _raise_if_stopped(stop)
        raise LoadError(f"the model fails in warm-up: {plain_words(error.detail)}", detail=error.detail) from None


def _raise_if_stopped(stop: RunStop) -> None:
    if stop.options.terminate:
        raise _Stopped


def _probe(session: Session, feeds: Feeds, settings: WarmupSettings, stop: RunStop) -> Feeds | None:
    """Rows that tell mixed or reordered answers from right ones: `feeds`, or synthesized ones; None if none run."""
    if _tells(feeds):
        return feeds
    for kind in SYNTHETIC:
        made = synthesize(session.signature, ROWS, settings.free_axis_size, kind)
        if not _tells(made):
            continue
        try:
            session.run(made, None, stop)
        except RunError:
            _raise_if_stopped(stop)
        else:
            return made
    return None


def _tells(feeds: Feeds) -> bool:
    three = _resize(feeds, ROWS).values()
    return any(array[:1].tolist() != array[-1:].tolist() for array in three)


def _rows_influence_each_other(session: Session, feeds: Feeds, stop: RunStop) -> str:
    """Why rows of different requests may not share a run; "" if they may."""
    rows = [{name: array[i : i + 1] for name, array in _resize(feeds, ROWS).items()} for i in range(ROWS)]
    try:
        alone = [_run(session, row, stop) for row in rows]
        again = _run(session, rows[0], stop)
        together = _run(session, _resize(feeds, ROWS), stop)
    except LoadError as error:
        _raise_if_stopped(stop)
        return f"three rows cannot be run together and one by one ({plain_words(error.detail)})"
    names = [spec.name for spec in session.signature.outputs]
    for index, name in enumerate(names):
        whole = together[index]
        if whole.ndim == 0 or whole.shape[0] != ROWS or any(a[index].shape[:1] != (1,) for a in alone):
            return f"output {name!r} does not have one entry per row"
        if not _same(alone[0][index], again[index]):
            continue  # random by design: its values prove nothing about mixing
        for i in range(ROWS):
            if not _same(alone[i][index], whole[i : i + 1]):
                return f"output {name!r} of one row depends on the other rows of the run"
    return ""


def _same(a: Array, b: Array) -> bool:
    if a.shape != b.shape:
        return False
    if a.dtype.kind == "f":
        half = a.dtype.itemsize == 2
        return bool(np.allclose(a, b, rtol=2e-2 if half else 1e-3, atol=1e-2 if half else 1e-4, equal_nan=True))
    return bool(np.array_equal(a, b))


def _resize(feeds: Feeds, rows: int) -> Feeds:
    """The same rows, repeated or cut to `rows`."""
    return {name: np.ascontiguousarray(np.resize(a, (rows, *a.shape[1:]))) for name, a in feeds.items()}


def _fixed_tensor(signature: Signature) -> str:
    for role, specs in (("input", signature.inputs), ("output", signature.outputs)):
        for spec in specs:
            if not spec.shape or spec.shape[0] != ANY:
                return f"{role} {spec.name!r} {show_shape(spec.shape)}"
    return "the model (it has no inputs)"
