"""A pair's comparison as the admin API answers it."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.control.comparisons import PairView
from gateway.control.drift_reports import timestamp
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb
from runtime.shadow.pair import PairKey
from runtime.shadow.tally import ABSOLUTE, RELATIVE, OutputTally, Spread
from runtime.shadow.worst import Disagreement
from runtime.sketch.exponential import ExponentialHistogram

QUANTILES = (0.5, 0.9, 0.95, 0.99, 0.999, 1.0)

MAX_CELLS = 400
"""Of an output's matrix, those of most rows: the others are in `confusion_other`."""

MAX_ANSWER_BYTES = 3_500 * 1024
"""gRPC clients take 4 MiB where they were told nothing else."""


def comparison_answer(key: PairKey, view: PairView) -> pb.Comparison:
    whole = view.whole
    ratio = whole.latency_ratio
    return pb.Comparison(
        model=key.model,
        primary=key.primary,
        primary_digest=key.primary_digest,
        shadow=key.shadow,
        shadow_digest=key.shadow_digest,
        begin=timestamp(view.begin_seconds),
        end=timestamp(view.end_seconds),
        chosen=view.chosen,
        compared=whole.compared,
        agreed=whole.agreed,
        failed=whole.failed,
        shed=view.shed,
        waiting=view.waiting,
        rows=whole.compared_rows,
        agreed_rows=whole.agreed_rows,
        outputs=[_output(name, tally) for name, tally in sorted(whole.outputs.items())],
        primary_seconds=_quantiles(whole.run_seconds(shadow=False)),
        shadow_seconds=_quantiles(whole.run_seconds(shadow=True)),
        latency_ratio=ratio if whole.primary_ns else 0.0,
        worst=[_disagreement(each) for each in whole.disagreements],
        last_failure=_text(whole.failure[1]),
    )


def within(answers: Sequence[pb.Comparison]) -> list[str]:
    """Leaves out what an answer has no room for: inputs first, then disagreements, then cells. Returns what was."""
    notes = []
    for name, leave_out in (("inputs", _inputs), ("disagreements", _worst), ("classes", _cells)):
        over = sum(answer.ByteSize() for answer in answers) - MAX_ANSWER_BYTES
        if over <= 0:
            break
        for answer in answers:
            leave_out(answer)
        notes.append(f"{name} are left out, for the answer would be too large: ask for one model and one pair")
    return notes


def tolerance_note(key: PairKey, view: PairView) -> str:
    """Where the route's tolerance was changed in that time; else ""."""
    tolerances = sorted(view.whole.tolerances)
    if len(tolerances) < 2:
        return ""
    named = "; ".join(f"{absolute:g} + {relative:g} |x|" for absolute, relative in tolerances)
    return f"{key.model} {key.primary} and {key.shadow} were compared within several tolerances: {named}"


def _inputs(answer: pb.Comparison) -> None:
    for each in answer.worst:
        each.inputs = ""


def _worst(answer: pb.Comparison) -> None:
    del answer.worst[:]


def _cells(answer: pb.Comparison) -> None:
    for output in answer.outputs:
        output.confusion_other += sum(cell.rows for cell in output.confusion)
        del output.confusion[:]


def _output(name: str, tally: OutputTally) -> pb.OutputComparison:
    message = pb.OutputComparison(
        output=name,
        rows=tally.rows,
        equal_rows=tally.equal_rows,
        close_rows=tally.close_rows,
        predicted_rows=tally.predicted_rows,
        predicted_equal_rows=tally.predicted_equal_rows,
        not_finite=tally.not_finite,
        incomparable_rows=tally.incomparable_rows,
    )
    # Classes that differ come before those that do not, each from the most rows.
    cells = sorted(tally.confusion.items(), key=lambda item: (item[0].agree, -item[1], item[0]))
    for pair, rows in cells[:MAX_CELLS]:
        message.confusion.add(primary=_text(pair.primary), shadow=_text(pair.shadow), rows=rows)
    message.confusion_other = tally.confusion.other + sum(rows for _, rows in cells[MAX_CELLS:])
    if tally.differences is not None:
        message.absolute.CopyFrom(_differences(Spread.of(tally.differences, ABSOLUTE)))
        message.relative.CopyFrom(_differences(Spread.of(tally.differences, RELATIVE)))
    return message


def _differences(spread: Spread) -> pb.Differences:
    return pb.Differences(
        count=spread.histogram.finite,
        mean=spread.moments.mean,
        greatest=spread.greatest,
        quantiles=_quantiles(spread.histogram),
        relative_error=spread.histogram.relative_error,
    )


def _text(text: str) -> str:
    """As protobuf can carry it: a model's texts may hold halves of characters."""
    return text.encode("utf-8", "backslashreplace").decode()


def _quantiles(histogram: ExponentialHistogram) -> list[pb.Quantile]:
    if not histogram.finite:
        return []
    values = histogram.quantiles(QUANTILES).tolist()
    return [pb.Quantile(q=share, value=value) for share, value in zip(QUANTILES, values, strict=True)]


def _disagreement(each: Disagreement) -> pb.Disagreement:
    return pb.Disagreement(
        time=timestamp(each.unix_ns / 1e9),
        request_id=_text(each.request_id),
        row=each.row,
        output=each.output,
        severity=each.severity,
        primary_value=_text(each.primary_value),
        shadow_value=_text(each.shadow_value),
        inputs=each.inputs,
    )
