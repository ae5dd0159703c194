"""The page: what a reader finds on it, what it is made of, and that no name on it does anything."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from datetime import UTC, datetime

import pytest
from report_page import Element, read
from support.drift_answers import Answers, without_reference
from support.drift_scenes import SHIFTED

from gateway.report.page import PLOTTED
from gateway.report.render import render
from gateway.version import VERSION
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

NOW = datetime(2025, 6, 15, 17, 42, 5, tzinfo=UTC)
HOSTILE = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "{{ 7 * 7 }}{% include 'x' %}",
    "\u202eesrever\u2066",
    "\x00\x1b[2J\r\n",
    "]]></style></svg><b>",
    "x" * 10_000,
    "شحن",
]


def shown(answers: Answers) -> tuple[str, Element]:
    page = render(answers.drift, answers.features, generated_at=NOW)
    return page, read(page)


def titles(root: Element) -> list[str]:
    return [card.one("h3").text for card in root.all("article", "card")]


def test_the_first_sentence_names_what_has_drifted_and_since_when(cancer_answers: Answers) -> None:
    _, root = shown(cancer_answers)
    header = root.one("header")
    assert header.one("h1").text == "▲ Drift of worst texture and mean smoothness"
    assert "2 of 33 comparisons are alarmed, the first since 2025-06-15 15:34 UTC: 31 min by now." in header.text
    facts = " ".join(header.one("dl").text.split())
    for fact in ("breast_cancer version 3", "3 drifted", "29 stable", "1 not enough data", "3,000 rows in 10 min"):
        assert fact in " ".join(header.text.split()), fact
    assert "profile fedcba987654, 20,000 rows" in facts
    assert cancer_answers.drift.digest in facts


def test_the_ranking_and_the_plots_stand_in_the_gateways_order(cancer_answers: Answers) -> None:
    _, root = shown(cancer_answers)
    ranked = [row.one("bdi").text for row in root.one("ol").all("li")]
    verdicts = [verdict.subject for verdict in cancer_answers.drift.verdicts]
    assert ranked == verdicts[: len(ranked)]
    assert ranked[:2] == list(SHIFTED)
    assert len(ranked) == 3 + 10
    assert "20 more changed less and are not drawn here" in root.text
    assert titles(root)[: len(verdicts) - 1] == [name for name in verdicts if name != "all features"]


def test_every_feature_has_a_plot_and_its_numbers_on_both_sides(cancer_answers: Answers) -> None:
    _, root = shown(cancer_answers)
    cards = root.one(class_="cards").all("article")
    assert len(cards) == 32
    assert all(len(card.one("figure").all("svg")) >= 1 for card in cards)
    first = {row.one("th").text: [cell.text for cell in row.all("td")]
             for row in cards[0].one("table", "numbers").one("tbody").all("tr")}  # fmt: skip
    feature = next(f for f in cancer_answers.features.features if f.name == SHIFTED[0])
    means = [float(text) for text in first["mean"]]
    assert means == pytest.approx([feature.reference.mean, feature.live.mean], rel=1e-3)
    assert {"deviation", "median", "1 % … 99 %", "range", "different values", "correlation"} <= first.keys()


def test_every_picture_has_a_title_a_description_and_is_xml(cancer_answers: Answers, orders_answers: Answers) -> None:
    for answers in (cancer_answers, orders_answers):
        page, root = shown(answers)
        pictures = [svg for svg in root.all("svg") if svg.attributes.get("aria-hidden") != "true"]
        assert len(pictures) > 20
        for picture in pictures:
            assert picture.attributes["role"] == "img"
            assert picture.one("title").text
            assert picture.one("desc").text
        for source in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
            ET.fromstring(source)


def test_what_has_no_place_in_a_plot_is_drawn_beside_it(orders_answers: Answers) -> None:
    _, root = shown(orders_answers)
    cards = {card.one("h3").text: card for card in root.one(class_="cards").all("article")}
    values, faults = cards["distance"].one("figure").all("svg")
    assert "half of the rows lie below" in values.one("desc").text
    assert re.fullmatch(r"NaN: 1\d\.?\d* % of live rows, 1\.?\d* % of the reference", faults.one("desc").text)
    assert "new: " in cards["payment"].text
    assert "The axis is logarithmic." in cards["weight in kg"].text
    assert "Further left, to -" in cards["balance"].text


def test_what_was_not_compared_is_listed_with_the_reason(orders_answers: Answers) -> None:
    answers = Answers(orders_answers.drift, pb.GetFeaturesResponse())
    answers.features.CopyFrom(orders_answers.features)
    answers.features.notes.append("pixels 0 to 9,999 are measured by projections: too many for a sketch each")
    _, root = shown(answers)
    section = next(s for s in root.all("section") if "What was not compared" in s.text)
    assert [item.text for item in section.all("li")] == [
        "only live: the reference does not have it",
        "only in training: only the reference has it",
        "pixels 0 to 9,999 are measured by projections: too many for a sketch each",
    ]


def test_the_guarantee_the_words_and_the_making_are_said(cancer_answers: Answers) -> None:
    _, root = shown(cancer_answers)
    assert cancer_answers.drift.guarantee in root.text
    words = [word.text for word in root.one("dl", "words").all("dt")]
    assert {"drifted", "stable", "not enough data", "alarm", "by chance", "PSI", "KS", "2·AUC−1"} <= set(words)
    assert "evidence" not in words
    assert f"Written 2025-06-15 17:42:05 UTC by driftgate {VERSION}" in root.one("footer").text
    assert "4f2a9c1" in root.text  # what the profile says of itself


def test_evidence_alone_is_a_headline(cancer_answers: Answers) -> None:
    report = pb.DriftReport()
    report.CopyFrom(cancer_answers.drift)
    for verdict in report.verdicts:
        verdict.alarmed, verdict.decision = False, "stable"
    report.verdicts[4].alarmed_by_evidence, report.verdicts[4].log_evidence = True, 14.0
    _, root = shown(Answers(report, cancer_answers.features))
    assert root.one("h1").text == f"▲ Evidence of drift of {report.verdicts[4].subject}"
    assert "evidence" in [word.text for word in root.one("dl", "words").all("dt")]


def test_a_calm_report_says_so(cancer_answers: Answers) -> None:
    report = pb.DriftReport()
    report.CopyFrom(cancer_answers.drift)
    for verdict in report.verdicts:
        verdict.alarmed, verdict.decision = False, "stable"
        verdict.ClearField("since")
    report.decision = "stable"
    report.notes.append("looks are made every 40 s")
    for look in report.history:
        del look.alarmed[:]
    _, root = shown(Answers(report, cancer_answers.features))
    assert root.one("h1").text == "● No drift: live rows are distributed as the reference's"
    assert "In all 33 comparisons of 3,000 live rows, a change at a threshold would have shown." in root.text
    assert "looks are made every 40 s" in root.text


def test_projections_that_know_too_little_make_no_stable_model_uncertain(cancer_answers: Answers) -> None:
    report = pb.DriftReport(decision="stable", reference=cancer_answers.drift.reference)
    report.verdicts.add(subject="f", decision="stable")
    report.verdicts.add(subject="projection 1", role="projection", decision="not enough data")
    _, root = shown(Answers(report, pb.GetFeaturesResponse()))
    assert root.one("h1").text.startswith("● No drift")
    assert "In 1 of 2 comparisons" in root.text


def test_an_alarm_that_recovers_is_still_one(cancer_answers: Answers) -> None:
    report = pb.DriftReport()
    report.CopyFrom(cancer_answers.drift)
    report.verdicts[0].decision = "stable"
    _, root = shown(Answers(report, cancer_answers.features))
    assert "In the last look 1 alarm had no drift; more such looks clear it." in root.one("header").text
    assert root.one(class_="cards").all("article")[0].all(class_="badge")[0].text == "▲ stable, alarmed"


def test_too_few_rows_are_no_verdict_but_a_reason(few_answers: Answers) -> None:
    _, root = shown(few_answers)
    assert root.one("h1").text == "○ Not enough data to tell"
    assert "With 40 live rows against 20,000, a change at the threshold need not have shown in" in root.text
    assert root.all(class_="badge")


def test_without_a_reference_the_page_says_how_to_get_one(cancer_answers: Answers) -> None:
    _, root = shown(without_reference(cancer_answers))
    assert root.one("h1").text == "– Nothing to compare live rows with"
    commands = [code.text for code in root.all("pre")]
    assert commands == [
        "driftgate profile build --model breast_cancer --version 3 --data train.parquet",
        "driftgate reference breast_cancer --version 3 --live-rows 10000",
    ]
    assert len(root.one(class_="cards").all("figure")) == 32
    assert not root.all(class_="ranking")
    assert not root.all(class_="reference")


def test_while_a_reference_is_gathered_the_page_says_how_far_it_is(orders_answers: Answers) -> None:
    _, root = shown(without_reference(orders_answers, gathered=1_200, wanted=10_000))
    assert root.one("h1").text == "– The reference is being gathered: 1,200 of 10,000 rows"


def test_an_empty_answer_is_a_page_too() -> None:
    _, root = shown(Answers(pb.DriftReport(model="m", version=1), pb.GetFeaturesResponse(model="m", version=1)))
    assert "No feature was measured in this window." in root.text


def test_of_a_thousand_features_those_that_changed_most_are_drawn_and_the_others_listed(many_answers: Answers) -> None:
    page, root = shown(many_answers)
    assert len(root.one(class_="cards").all("article")) == PLOTTED
    assert "Of 1,000 features the 50 that have changed most are drawn." in root.text
    listed = root.one("table", "others").one("tbody").all("tr")
    names = [f.subject for f in many_answers.drift.verdicts]
    assert [row.one("bdi").text for row in listed] == names[PLOTTED:]
    assert len(page.encode()) < 1_000_000


def test_thirty_features_take_less_than_a_megabyte(cancer_answers: Answers) -> None:
    assert len(shown(cancer_answers)[0].encode()) < 300_000


def test_no_name_is_markup_and_none_turns_the_text_around(orders_answers: Answers) -> None:
    """Whatever a model, a feature, a category, a unit or a note is called, the page's elements are the same."""
    tame, wild = (hostile(orders_answers, names) for names in ([f"name {n}" for n in range(8)], HOSTILE))
    (page, root), (_, expected) = shown(wild), shown(tame)
    assert outline(root) == outline(expected)
    assert not [e for e in root.all() if any(name.startswith("on") for name in e.attributes)]
    assert "<script>alert(1)</script>" in root.text  # as text
    assert "{{ 7 * 7 }}" in root.text
    for banned in ("\u202e", "\u2066", "\x00", "\x1b", "x" * 500):
        assert banned not in page
    assert r"\u202eesrever" in root.text
    assert "شحن" in root.text
    assert len(page) < 200_000


def hostile(answers: Answers, names: list[str]) -> Answers:
    report, features = pb.DriftReport(), pb.GetFeaturesResponse()
    report.CopyFrom(answers.drift)
    features.CopyFrom(answers.features)
    report.model, report.problem, report.guarantee = names[0], names[1], names[0]
    renamed = {}
    for at, feature in enumerate(features.features[:8]):
        renamed[feature.name] = names[at]
        feature.name = names[at]
        feature.bins.extend([pb.FeatureBin(category=names[at], live=5, reference=5)])
    for verdict in report.verdicts:
        verdict.subject = renamed.get(verdict.subject, verdict.subject)
        for finding in verdict.findings:
            finding.note = names[1]
            finding.effects[0].unit = names[0]
    report.history_subjects[:] = [renamed.get(name, name) for name in report.history_subjects]
    report.uncompared[:] = names
    features.notes[:] = names
    report.reference.about.clear()
    report.reference.about[names[1]] = names[2]
    report.reference.kind = names[5]
    return Answers(report, features)


def outline(root: Element) -> list[tuple[str, tuple[str, ...]]]:
    return [(element.name, tuple(sorted(element.attributes))) for element in root.all()]


def test_the_page_asks_for_nothing_and_forbids_the_rest(cancer_answers: Answers) -> None:
    page, root = shown(cancer_answers)
    [policy] = [m for m in root.all("meta") if m.attributes.get("http-equiv") == "Content-Security-Policy"]
    assert policy.attributes["content"] == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert not root.all("script")
    assert not [e for e in root.all() if {"src", "srcset"} & e.attributes.keys()]
    assert {e.attributes["href"] for e in root.all() if "href" in e.attributes} == {"data:,"}
    assert "url(" not in page
    assert "@import" not in page
    assert "http" not in page.replace("http-equiv", "")
