"""`driftgate stats`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from canned_gateway import CannedGateway, timestamp, without_colours
from click.testing import Result
from support.drift_answers import Answers, without_reference
from support.drift_scenes import orders

from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb
from runtime.errors import NotFound

Driftgate = Callable[..., Result]


@pytest.fixture(scope="module")
def seen() -> Answers:
    return orders(looks=1)


@pytest.fixture
def answered(gateway: CannedGateway, seen: Answers) -> CannedGateway:
    def answer(_: Any) -> pb.GetFeaturesResponse:
        [(*_, wanted, _)] = gateway.asked[-1:]
        response = pb.GetFeaturesResponse()
        response.CopyFrom(seen.features)
        if wanted.feature:
            kept = [feature for feature in response.features if feature.name == wanted.feature]
            del response.features[:]
            response.features.extend(kept)
        return response

    gateway.answers["GetFeatures"] = answer
    return gateway


def test_features_stand_beside_the_reference(answered: CannedGateway, driftgate: Driftgate) -> None:
    lines = driftgate("stats", "orders").stdout.splitlines()
    assert lines[0].startswith("orders/3  0123456789ab  2,500 rows in 10 min to 2025-06-15 ")
    assert lines[1].startswith("  reference  profile fedcba987654, 30,000 rows")
    assert lines[2] == "  memory     6.0 MiB"
    header = lines[4]
    assert " ".join(header.split()) == (
        "FEATURE KIND ROWS MISSING NAN OUTSIDE MEAN REF MEAN SD MIN P01 P50 REF P50 P99 MAX DISTINCT CORR"
    )
    row = next(line for line in lines if line.startswith("temperature")).split()
    assert row[:3] == ["temperature", "numeric", "2,500"]
    assert all(float(cell.replace(",", "")) for cell in row[9:])
    assert any(line.startswith("score") and "numeric out" in line for line in lines)
    assert answered.request == pb.GetFeaturesRequest(model="orders")


def test_one_feature_has_quantiles_and_a_histogram(answered: CannedGateway, driftgate: Driftgate) -> None:
    lines = driftgate("stats", "orders", "temperature").stdout.splitlines()
    assert answered.request == pb.GetFeaturesRequest(model="orders", feature="temperature")
    assert "temperature  input, numeric" in lines
    assert any(line.split()[:2] == ["75", "%"] for line in lines)
    bars = [line for line in lines if line.strip().startswith("from ")]
    assert len(bars) == 16
    live, reference = ([float(b.replace("(", "").replace(")", "").split("%")[n].split()[-1]) for b in bars]
                       for n in (0, 1))  # fmt: skip
    assert sum(live) == pytest.approx(100, abs=2)
    assert sum(reference) == pytest.approx(100, abs=2)
    for bar, share in zip(bars, live, strict=True):
        assert bar.count("█") == pytest.approx(share / max(*live, *reference) * 60, abs=1.6)


def test_categories_are_bars_and_frequent_values(answered: CannedGateway, driftgate: Driftgate) -> None:
    lines = driftgate("stats", "orders", "payment").stdout.splitlines()
    assert [line.split()[0] for line in lines if "█" in line][1:] == ["card", "transfer", "invoice", "cash"]
    at = lines.index("frequent values")
    assert lines[at + 1].split() == ["VALUE", "LIVE", "SHARE", "REFERENCE"]
    assert lines[at + 2].split()[0] == "card"


def test_without_a_reference_nothing_is_marked(gateway: CannedGateway, driftgate: Driftgate, seen: Answers) -> None:
    alone = without_reference(seen).features
    gateway.answers["GetFeatures"] = pb.GetFeaturesResponse(model="orders", features=[alone.features[4]])
    shown = driftgate("stats", "orders", alone.features[4].name).stdout
    assert "reference  none" in shown
    assert "█ live\n" in shown
    assert "|" not in shown


def test_what_is_not_measured_is_said(gateway: CannedGateway, driftgate: Driftgate) -> None:
    gateway.answers["GetFeatures"] = pb.GetFeaturesResponse(model="m", notes=["9,936 columns by projections\x1b[2J"])
    shown = driftgate("stats", "m").stdout
    assert "nothing was measured in this window" in shown
    assert r"note: 9,936 columns by projections\x1b[2J" in shown


@pytest.mark.parametrize(("text", "seconds"), [("1m", 60), ("10m", 600), ("1h", 3600), ("24h", 86400), ("90", 90)])
def test_windows_have_names(answered: CannedGateway, driftgate: Driftgate, text: str, seconds: int) -> None:
    assert driftgate("stats", "orders", "--window", text, "--version", "3").exit_code == 0
    assert answered.request == pb.GetFeaturesRequest(model="orders", version=3, window_seconds=seconds)


@pytest.mark.parametrize(
    "arguments",
    [("--window", "5w"), ("--window", "0"), ("--window", "-1"), ("--window", "٣"), ("f", "--sketches", "x"),
     ("--json", "--sketches", "x")],
)  # fmt: skip
def test_wrong_usage(driftgate: Driftgate, arguments: tuple[str, ...]) -> None:
    assert driftgate("stats", "orders", *arguments).exit_code == 2


def test_an_unknown_feature_is_status_1(answered: CannedGateway, driftgate: Driftgate) -> None:
    result = driftgate("stats", "orders", "unheard")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == ("error: NOT_FOUND: the model has no feature 'unheard': see driftgate stats orders\n")


def test_an_unknown_model_is_status_1(gateway: CannedGateway, driftgate: Driftgate) -> None:
    gateway.answers["GetFeatures"] = NotFound("no model 'unheard'")
    assert driftgate("stats", "unheard").stderr == "error: NOT_FOUND: no model 'unheard'\n"


def test_json_is_the_answer(answered: CannedGateway, driftgate: Driftgate) -> None:
    document = json.loads(driftgate("stats", "orders", "temperature", "--json").stdout)
    [feature] = document["features"]
    assert feature["live"]["rows"] == "2500"
    assert len(feature["live"]["quantiles"]) == 7


def test_sketches_are_saved_byte_for_byte(gateway: CannedGateway, driftgate: Driftgate, tmp_path: Path) -> None:
    window = pb.Window(seconds=3600, rows=7, start=timestamp(0), end=timestamp(3600))
    gateway.answers["GetSketches"] = pb.GetSketchesResponse(
        model="m", version=3, window=window, schema='{"features": []}', summary=bytes(range(256)) * 8
    )
    file = tmp_path / "m.sketches"
    result = driftgate("stats", "m", "--window", "1h", "--sketches", str(file))
    assert result.stdout == (
        f"{file}: 2.0 KiB, sketches of 7 rows in 1 h of m/3; m.sketches.schema.json: what they are of\n"
    )
    assert file.read_bytes() == bytes(range(256)) * 8
    assert json.loads((tmp_path / "m.sketches.schema.json").read_text()) == {"features": []}
    assert gateway.request == pb.GetSketchesRequest(model="m", window_seconds=3600)


def test_sketches_that_cannot_be_saved_are_said(gateway: CannedGateway, driftgate: Driftgate, tmp_path: Path) -> None:
    gateway.answers["GetSketches"] = pb.GetSketchesResponse()
    result = driftgate("stats", "m", "--sketches", str(tmp_path / "none" / "x"))
    assert result.exit_code == 1
    assert "none/x cannot be written: No such file or directory" in result.stderr


@pytest.mark.parametrize(
    ("columns", "kept", "term"),
    [(80, {"MISSING", "NAN", "MEAN", "P50"}, "xterm"), (80, {"MISSING", "NAN", "MEAN", "P50"}, "dumb"),
     (120, {"ROWS", "P01", "P99"}, "xterm")],
)  # fmt: skip
def test_a_window_keeps_what_matters_on_one_line(
    answered: CannedGateway, terminal: Callable[..., str], columns: int, kept: set[str], term: str
) -> None:
    shown = without_colours(terminal(columns, "stats", "orders", "--admin", answered.address, term=term)).splitlines()
    assert all(len(line.rstrip()) <= columns for line in shown)
    assert kept <= set(next(line for line in shown if line.startswith("FEATURE")).split())
    one = without_colours(terminal(columns, "stats", "orders", "balance", "--admin", answered.address, term=term))
    assert all(len(line.rstrip()) <= columns for line in one.splitlines())
    assert "Further left, to -" in one


def test_a_terminal_without_blocks_gets_signs_that_it_has(answered: CannedGateway, process: Callable[..., Any]) -> None:
    done = process("stats", "orders", "payment", DRIFTGATE_ADMIN=answered.address, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "# live  | reference" in done.stdout
