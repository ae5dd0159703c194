"""Lines over time and bars in thresholds."""

from __future__ import annotations

import math
import re

import pytest
from support.drift_answers import START, stamp

from gateway.report.ranking import LINEAR_TO, Scale, ranking
from gateway.report.timeline import HEIGHT, MOST_LINES, MOST_POINTS, WIDTH, timeline
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

NAN = math.nan


def look(minutes: float, *effects: float, alarmed: tuple[bool, ...] = (), decision: str = "stable") -> pb.DriftLook:
    return pb.DriftLook(time=stamp(START + 60 * minutes), effects=effects, alarmed=alarmed, decision=decision)


def report(*looks: pb.DriftLook, subjects: int = 2) -> pb.DriftReport:
    return pb.DriftReport(history=looks, history_subjects=[f"s{n}" for n in range(subjects)])


def lines(picture: str, style: str) -> list[str]:
    return re.findall(rf'<path d="([^"]+)" class="{style}"', picture)


def test_one_look_is_no_line() -> None:
    assert timeline(report()) is None
    assert timeline(report(look(0, 1, 1))) is None
    assert timeline(report(look(0, 1, 1), look(0, 1, 1))) is None


def test_a_line_goes_through_its_looks_by_time_whatever_order_they_come_in() -> None:
    drawn = timeline(report(look(10, 0, 0), look(0, 1.5, 0), look(5, 0.75, 0)))
    assert drawn is not None
    place = HEIGHT * (1 - 1.5 / 1.56)
    assert lines(str(drawn.picture), "line line-5") == [
        f"M0 {place:g}L{WIDTH / 2:g} {HEIGHT * (1 - 0.75 / 1.56):g}L{WIDTH:g} {HEIGHT:g}"
    ]
    assert drawn.grey == 1


def test_a_look_without_the_subject_breaks_its_line() -> None:
    drawn = timeline(report(look(0, 1), look(1, 1), look(2, NAN), look(3, 1), look(4, 1), subjects=1))
    assert drawn is not None
    assert [path.count("L") for path in lines(str(drawn.picture), "line line-5")] == [1, 1]
    assert "nan" not in str(drawn.picture)


def test_an_alarm_is_marked_where_it_was_raised() -> None:
    on, off = (True, False), (False, False)
    looks = [look(n, 2, 0, alarmed=on if n in {2, 3, 6} else off, decision="drifted") for n in range(9)]
    drawn = timeline(report(*looks))
    assert drawn is not None
    marks = lines(str(drawn.picture), "raised line-0")
    assert [mark.split(" ")[0] for mark in marks] == [f"M{WIDTH * n / 8:.0f}" for n in (2, 6)]
    assert [(entry.subject, entry.alarmed) for entry in drawn.entries] == [("s0", True)]


def test_where_nobody_tells_when_alarms_were_raised_the_dot_is_since_when_they_stand() -> None:
    looks = [look(n, 2, 0) for n in range(9)]
    shown = report(*looks)
    shown.verdicts.add(subject="s0", alarmed=True, since=stamp(START + 150))
    drawn = timeline(shown)
    assert drawn is not None
    assert not drawn.marks_raised
    [mark] = lines(str(drawn.picture), "raised line-0")
    assert mark.startswith(f"M{WIDTH * 3 / 8:g} ")


def test_an_effect_without_end_is_drawn() -> None:
    drawn = timeline(report(look(0, 1e300, 0), look(1, math.inf, 0), look(2, 1e38, 1)))
    assert drawn is not None
    assert not {"nan", "inf"} & set(re.findall("[a-z]+", " ".join(lines(str(drawn.picture), "line line-5"))))


def test_colours_go_to_those_that_alarm_and_no_further_than_they_can_be_told_apart() -> None:
    alarmed = tuple(n >= 2 for n in range(20))
    drawn = timeline(report(look(0, *[1.0] * 20), look(1, *[1.0] * 20, alarmed=alarmed), subjects=20))
    assert drawn is not None
    assert [entry.subject for entry in drawn.entries] == [f"s{n}" for n in range(2, 2 + MOST_LINES)]
    assert len({entry.style for entry in drawn.entries}) == MOST_LINES
    assert drawn.grey == 20 - MOST_LINES


def test_a_day_of_looks_is_thinned_and_keeps_its_peak() -> None:
    looks = [look(n / 6, 9.0 if n == 4_321 else 0.1) for n in range(8_640)]
    drawn = timeline(report(*looks, subjects=1))
    assert drawn is not None
    [path] = lines(str(drawn.picture), "line line-5")
    assert path.count("L") < MOST_POINTS
    assert f" {HEIGHT * (1 - 1 / 1.04):g}L" in path
    assert "8,640 looks" in str(drawn.picture)


def test_fields_that_an_older_gateway_does_not_send_are_no_error() -> None:
    drawn = timeline(report(look(0, 1.0), look(1, 2.0)))  # one effect for two subjects, no alarms
    assert drawn is not None
    assert len(drawn.entries) == 1


@pytest.mark.parametrize("most", [1.5, 5.0, LINEAR_TO, 13.0, 1e6])
def test_a_scale_has_the_threshold_and_round_ticks(most: float) -> None:
    scale = Scale(most)
    labels = [text for _, text in scale.ticks]
    assert labels[0] == "0"
    assert "1" in labels
    places = [place for place, _ in scale.ticks]
    assert places == sorted(places)
    assert all(0 <= place <= 1 for place in places)
    assert len(labels) <= 9


def verdict(name: str, value: float, decision: str = "stable", **fields: object) -> pb.DriftVerdict:
    effect = pb.DriftEffect(measure="KS", value=value, low=value, high=value, floor=0.01, critical=0.05, threshold=0.1)
    finding = pb.DriftFinding(aspect="distribution", effects=[effect], p_adjusted=0.001)
    return pb.DriftVerdict(subject=name, role="feature", decision=decision, findings=[finding], **fields)  # type: ignore[arg-type]


def test_a_bar_is_as_long_as_its_effect_and_the_threshold_stands_at_one() -> None:
    found = ranking([verdict("a", 0.4, "drifted", alarmed=True), verdict("b", 0.2)])
    assert found.scale.most == pytest.approx(4.16)
    long, short = (str(row.bar) for row in found.rows)
    widths = [float(re.findall(r'width="([\d.]+)" height="10" class="bar-', bar)[0]) for bar in (long, short)]
    assert widths == pytest.approx([1000 * 4 / 4.16, 1000 * 2 / 4.16], abs=0.1)
    assert f'd="M{1000 / 4.16:.1f} 0L' in long
    assert ("bar-loud" in long, "bar-loud" in short) == (True, False)


def test_what_drifted_is_never_hidden_behind_what_did_not() -> None:
    many = [verdict(f"d{n}", 1, "drifted") for n in range(12)] + [verdict(f"s{n}", 0.01) for n in range(30)]
    found = ranking(many)
    assert [row.subject for row in found.rows] == [f"d{n}" for n in range(12)] + [f"s{n}" for n in range(10)]
    assert found.hidden == 20


def test_a_verdict_without_findings_has_a_row_without_a_bar() -> None:
    [row] = ranking([pb.DriftVerdict(subject="x", decision="stable")]).rows
    assert (row.subject, row.measure, row.p) == ("x", "", "")
