"""Starts of an idle gateway as the tables that documents quote."""

from __future__ import annotations

from bench.matrix.idle import ROLES, Sample
from bench.report.of_single import idle_tables

MIB = 1 << 20


def test_starts_become_a_row_of_idleness_for_each_number_of_models_and_a_row_for_each_kind_of_start() -> None:
    starts = [
        Sample(1, cold=False, ready_seconds=2.0, cpu_us_per_second=400, pss_bytes={"worker": 90 * MIB}),
        Sample(100, cold=False, ready_seconds=5.0, cpu_us_per_second=500, pss_bytes={"worker": 200 * MIB}),
        Sample(1, cold=False, ready_seconds=3.0, cpu_us_per_second=600, pss_bytes={"worker": 92 * MIB, "control": MIB}),
        Sample(1, cold=True, ready_seconds=60.0, cpu_us_per_second=900, pss_bytes={"worker": 95 * MIB}),
    ]
    idle, ready = idle_tables(starts, ROLES)
    assert [(row.key, row.title) for row in idle.rows] == [("1", "1 model"), ("100", "100 models")]
    assert idle.row("1").values["cpu"] == (400, 600)
    assert idle.row("1").values["memory"] == (90, 93)
    assert idle.row("1").values["control"] == (0, 1)
    assert {row.key: row.values["ready"] for row in ready.rows} == {
        "1": (2.0, 3.0),
        "100": (5.0,),
        "1-cold": (60.0,),
    }
