"""`driftgate shadow`: what became of copies, which classes flipped, the worst disagreements."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from canned_gateway import DIGEST, OTHER_DIGEST, CannedGateway, without_colours
from click.testing import Result
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console

from gateway.cli.shadow_table import MATRIX_CLASSES, shadow_screen
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb
from runtime.errors import NotFound

Driftgate = Callable[..., Result]
BEGAN = 1_750_000_000


def quantiles(*values: float) -> list[pb.Quantile]:
    return [pb.Quantile(q=q, value=value) for q, value in zip((0.5, 0.9, 0.95, 0.99, 0.999, 1.0), values, strict=True)]


def confusion(*cells: tuple[str, str, int]) -> list[pb.ConfusionCell]:
    return [pb.ConfusionCell(primary=primary, shadow=shadow, rows=rows) for primary, shadow, rows in cells]


def iris(**other: Any) -> pb.Comparison:
    matrix = confusion(
        ("versicolor", "virginica", 9), ("virginica", "versicolor", 2), ("setosa", "setosa", 400),
        ("versicolor", "versicolor", 300), ("virginica", "virginica", 289),
    )  # fmt: skip
    fields: dict[str, Any] = {
        "model": "iris", "primary": 1, "primary_digest": DIGEST, "shadow": 2, "shadow_digest": OTHER_DIGEST,
        "begin": Timestamp(seconds=BEGAN), "end": Timestamp(seconds=BEGAN + 3800),
        "chosen": 1250, "compared": 500, "agreed": 491, "failed": 3, "shed": {"late": 40, "queue_full": 700, "lost": 0},
        "waiting": 7, "rows": 1000, "agreed_rows": 989, "latency_ratio": 1.2834,
        "primary_seconds": quantiles(1e-4, 2e-4, 3e-4, 4e-4, 5e-4, 1e-2),
        "shadow_seconds": quantiles(2e-4, 3e-4, 4e-4, 5e-4, 6e-4, 2e-2),
        "last_failure": "RunError: version 2 failed on a request",
        "outputs": [
            pb.OutputComparison(
                output="label", rows=1000, equal_rows=989, close_rows=989, predicted_rows=1000,
                predicted_equal_rows=989, confusion=matrix,
            ),
            pb.OutputComparison(
                output="probabilities", rows=1000, equal_rows=12, close_rows=40, predicted_rows=1000,
                predicted_equal_rows=989, confusion=matrix, confusion_other=0, not_finite=1,
                absolute=pb.Differences(count=3000, greatest=0.5, quantiles=quantiles(1e-3, 0, 0, 0.03, 0, 0.5)),
                relative=pb.Differences(count=3000, greatest=7, quantiles=quantiles(0.01, 0, 0, 0.3, 0, 7)),
            ),
        ],
        "worst": [
            pb.Disagreement(
                time=Timestamp(seconds=BEGAN + at), request_id=f"order-{at}", row=at, output="probabilities",
                severity=0.9 - at / 10, primary_value="versicolor (0.9)", shadow_value="virginica (0.5)",
                inputs='{"petal_length": 4.5, "petal_width": null}' if at == 0 else "",
            )
            for at in range(7)
        ],
    }  # fmt: skip
    return pb.Comparison(**{**fields, **other})


@pytest.fixture
def answered(gateway: CannedGateway, monkeypatch: pytest.MonkeyPatch) -> CannedGateway:
    monkeypatch.setenv("TZ", "UTC")
    gateway.answers["GetComparisons"] = pb.GetComparisonsResponse(comparisons=[iris()], notes=["a note"])
    return gateway


def screen(*comparisons: pb.Comparison, width: int | None = 80, everything: bool = False) -> str:
    page = io.StringIO()
    drawn = shadow_screen(pb.GetComparisonsResponse(comparisons=comparisons), width, everything=everything)
    Console(file=page, width=width or 1000, highlight=False, markup=False).print(drawn)
    return "\n".join(line.rstrip() for line in page.getvalue().splitlines())


def test_it_says_what_became_of_copies_what_agrees_and_what_does_not(
    answered: CannedGateway, driftgate: Driftgate
) -> None:
    result = driftgate("shadow", "iris")
    assert (result.exit_code, result.stderr) == (0, "")
    assert (
        result.stdout
        == """\
iris/1 and shadow 2  98.2 % of 500 requests agree
  copies   1,250 requests: 500 compared, 3 failed, 740 shed, 7 waiting
  shed     700 queue full, 40 late
  failure  RunError: version 2 failed on a request
  rows     1,000, of which 98.9 % agree
  run      p50 0.1 ms (p99 0.4 ms), shadow 0.2 ms (p99 0.5 ms): 1.28 times as long in all
  since    2025-06-15 15:06 UTC, 1 h 3 min

  OUTPUT          ROWS  SAME CLASS   EQUAL   CLOSE  |A-B| P50   P99  MAX  REL P99  REL MAX  NOT FINITE  INCOMPARABLE
  label          1,000      98.9 %  98.9 %  98.9 %          -     -    -        -        -           -             -
  probabilities  1,000      98.9 %   1.2 %     4 %      0.001  0.03  0.5      0.3        7           1             -

  classes of label, probabilities (down: primary, across: shadow)
  PRIMARY     versicolor  virginica  setosa  FLIPPED
  versicolor         300          9       -   2.91 %
  virginica            2        289       -  0.687 %
  setosa               -          -     400      0 %

  worst disagreements
      TIME  REQUEST  ROW  OUTPUT         SEVERITY  PRIMARY           SHADOW
  15:06:40  order-0    0  probabilities       0.9  versicolor (0.9)  virginica (0.5)
  15:06:41  order-1    1  probabilities       0.8  versicolor (0.9)  virginica (0.5)
  15:06:42  order-2    2  probabilities       0.7  versicolor (0.9)  virginica (0.5)
  15:06:43  order-3    3  probabilities       0.6  versicolor (0.9)  virginica (0.5)
  15:06:44  order-4    4  probabilities       0.5  versicolor (0.9)  virginica (0.5)
  2 more and inputs: --all

note: a note
"""
    )


def test_all_shows_every_disagreement_and_its_inputs(answered: CannedGateway, driftgate: Driftgate) -> None:
    shown = driftgate("shadow", "iris", "--all").stdout
    assert '  order-0 row 0: {"petal_length": 4.5, "petal_width": null}\n' in shown
    assert "order-6" in shown
    assert "--all" not in shown


def test_the_request_says_what_was_asked_for(answered: CannedGateway, driftgate: Driftgate) -> None:
    driftgate("shadow", "iris", "--primary", "1", "--shadow", "2", "--window", "10m")
    assert answered.request == pb.GetComparisonsRequest(model="iris", primary=1, shadow=2, window_seconds=600)
    answered.asked.clear()
    driftgate("shadow")
    assert answered.request == pb.GetComparisonsRequest()


def test_json_has_every_figure(answered: CannedGateway, driftgate: Driftgate) -> None:
    shown = json.loads(driftgate("shadow", "iris", "--json").stdout)
    assert shown["comparisons"][0]["shed"] == {"late": "40", "lost": "0", "queue_full": "700"}
    assert len(shown["comparisons"][0]["worst"]) == 7


def test_errors_are_the_gateways(gateway: CannedGateway, driftgate: Driftgate) -> None:
    gateway.answers["GetComparisons"] = NotFound("no model 'rose'; known models: iris")
    result = driftgate("shadow", "rose")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no model 'rose'; known models: iris" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--shadow", "2"), "--primary and --shadow are versions of a model: give MODEL too"),
        (("iris", "--window", "soon"), "expected 1m, 10m, 1h, 24h or seconds, got 'soon'"),
        (("iris", "--shadow", "0"), "0 is not in the range"),
    ],
)
def test_wrong_usage_is_told(driftgate: Driftgate, arguments: tuple[str, ...], told: str) -> None:
    result = driftgate("shadow", *arguments)
    assert result.exit_code == 2
    assert told in result.stderr


def test_a_shadow_that_answered_nothing_shows_why() -> None:
    shown = screen(
        pb.Comparison(
            model="iris", primary=1, shadow=3, chosen=12, shed={"no_shadow": 12}, begin=Timestamp(seconds=BEGAN),
            end=Timestamp(seconds=BEGAN + 5),
        )
    )  # fmt: skip
    assert shown.splitlines()[:3] == [
        "iris/1 and shadow 3  nothing compared yet",
        "  copies  12 requests: 0 compared, 0 failed, 12 shed, 0 waiting",
        "  shed    12 no shadow",
    ]


def test_many_classes_are_a_list_from_the_most_rows() -> None:
    many = [(f"class {at}", f"class {at + 1}", 100 - at) for at in range(MATRIX_CLASSES + 8)]
    output = pb.OutputComparison(
        output="label", rows=9000, predicted_rows=9000, confusion=confusion(*many, ("class 0", "class 0", 300)),
        confusion_other=4,
    )  # fmt: skip
    shown = screen(iris(outputs=[output])).splitlines()
    at = shown.index("  classes of label that flipped")
    assert shown[at + 1 : at + 4] == [
        "  PRIMARY  SHADOW    ROWS  OF THE PRIMARY'S",
        "  class 0  class 1    100              25 %",
        "  class 1  class 2     99             100 %",
    ]
    assert shown[at + 12 : at + 14] == ["  6 more flips, of 525 rows (--all)", "  4 rows of other classes"]
    assert "class 15" in screen(iris(outputs=[output]), everything=True)


def test_classes_that_do_not_flip_take_one_line() -> None:
    output = pb.OutputComparison(output="label", rows=5, confusion=confusion(("a", "a", 3), ("b", "b", 2)))
    assert "  classes of label: none of 2 classes flipped" in screen(iris(outputs=[output]))


@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_it_fits_the_window(width: int) -> None:
    wide = pb.OutputComparison(output="a very long name of an output " * 3, rows=10**9, equal_rows=5, close_rows=6)
    shown = screen(iris(outputs=[wide, *iris().outputs]), width=width)
    assert max(map(len, shown.splitlines())) <= width
    assert "98.2 %" in shown


def test_names_of_the_gateway_cannot_drive_the_terminal() -> None:
    evil = "\x1b[2J\nfoo"
    output = pb.OutputComparison(output=evil, rows=1, confusion=confusion((evil, "b", 1)))
    worst = pb.Disagreement(request_id=evil, output=evil, primary_value=evil, shadow_value=evil, inputs=evil)
    comparison = iris(model=evil, outputs=[output], worst=[worst], shed={evil: 1}, last_failure=evil)
    shown = screen(comparison, width=None, everything=True)
    assert "\x1b[2J" not in shown


def test_watch_redraws_until_it_is_interrupted(answered: CannedGateway, terminal: Callable[..., str]) -> None:
    asked = 0

    def answer(context: Any) -> pb.GetComparisonsResponse:
        nonlocal asked
        asked += 1
        if asked > 2:
            raise NotFound("the end of the test")
        return pb.GetComparisonsResponse(comparisons=[iris()])

    answered.answers["GetComparisons"] = answer
    shown = terminal(
        80, "shadow", "iris", "--watch", "--interval", "1", "--admin", answered.address, status=1
    )  # fmt: skip
    assert asked == 3
    assert "98.2 % of 500 requests agree" in without_colours(shown)
