"""Where a request goes, and that an explanation tells the same."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from route_samples import REQUESTS, ROUTES, Asked

from gateway.routing.decision import DEFAULT, Decision, grouped, named
from gateway.routing.explanation import DefaultStep, KeyStep, NameStep, RuleStep, SplitStep
from gateway.routing.router import Metadata, Router
from runtime.routing.document import parse_route
from runtime.routing.route import Route
from runtime.shm.record_layout import Reason


def router(text: str, point: float = 0.5) -> Router:
    return Router("m", parse_route(text), draw=lambda: point)


def outcome(decision: Decision) -> tuple[str, str, Reason]:
    return decision.target, decision.variant, decision.reason


RULES = """
  - {name: first, when: {x-a: yes!}, to: "7"}
  - {name: second, when: {x-b: yes!}, split: {canary: 1}}
"""
NAMES = {"": None, "3": ("3", "pinned", Reason.VERSION), "prod": ("prod", "prod", Reason.LABEL)}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("key", ["", "bob"])
@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("rules", [False, True])
@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("sticky", [False, True])
def test_a_name_wins_over_rules_the_first_rule_over_the_next_rules_over_weights_and_these_over_the_default(
    name: str, key: str, second: bool, first: bool, rules: bool, split: bool, sticky: bool
) -> None:
    text = f"rules: {RULES}\n" if rules else ""
    text += "split: {stable: 1}\n" if split else ""
    text += "sticky: {metadata: x-user}\n" if sticky else ""
    metadata: list[tuple[str, str | bytes]] = [("x-user", key)] if key else []
    metadata += [("x-b", "yes!")] if second else []
    metadata += [("x-a", "yes!")] if first else []
    by_weight = Reason.STICKY if sticky and key else Reason.DRAWN
    expected = NAMES[name]
    if expected is None and rules and first:
        expected = ("7", "first/7", Reason.RULE)
    if expected is None and rules and second:
        expected = ("canary", "second/canary", by_weight)
    if expected is None and split:
        expected = ("stable", "stable", by_weight)
    if expected is None:
        expected = ("", "default", Reason.DEFAULT)
    assert outcome(router(text).decide(name, metadata)) == expected


@pytest.mark.parametrize(
    ("condition", "metadata", "applies"),
    [
        ("gold", [("x-a", "gold")], True),
        ("gold", [("x-a", "golden")], False),
        ("gold", [("x-a", "Gold")], False),
        ("gold", [("x-b", "gold")], False),
        ("gold", [], False),
        ("gold", [("x-a", "tin"), ("x-a", "gold")], True),  # one of the values is enough
        ("gold", [("x-a", b"gold")], False),
        ('""', [("x-a", "")], True),
        ('""', [], False),
        ("{exact: gold}", [("x-a", "gold")], True),
        ("{prefix: go}", [("x-a", "gold")], True),
        ("{prefix: go}", [("x-a", "ago")], False),
        ('{prefix: ""}', [("x-a", "")], True),  # sent at all
        ('{prefix: ""}', [], False),
        ("{regex: 'g.*d'}", [("x-a", "gold")], True),
        ("{regex: 'g.*d'}", [("x-a", "golden")], False),  # the whole value
        ("{regex: 'é+'}", [("x-a", "éé")], True),
        ("12", [("x-a", "12")], True),
    ],
)
def test_a_condition_is_about_the_whole_text_of_one_value(condition: str, metadata: Metadata, applies: bool) -> None:
    reached = router(f"rules: [{{name: r, when: {{x-a: {condition}}}, to: canary}}]").decide("", metadata)
    assert outcome(reached) == (("canary", "r/canary", Reason.RULE) if applies else ("", "default", Reason.DEFAULT))


@pytest.mark.parametrize("sent", [(), ("a",), ("b",), ("a", "b")])
def test_a_rule_applies_if_all_of_its_conditions_hold(sent: tuple[str, ...]) -> None:
    decision = router("rules: [{name: r, when: {a: x, b: x}, to: canary}]").decide("", [(key, "x") for key in sent])
    assert (decision.reason is Reason.RULE) is (sent == ("a", "b"))


SPLIT = "split: {a: 1, b: 1, c: 1, d: 1, e: 1, f: 1, g: 1, h: 1}"


@pytest.mark.parametrize(
    ("sticky", "asked"),
    [
        ("{metadata: x-user}", Asked("", (("x-user", "bob"),), None, "")),
        ("{metadata: X-User}", Asked("", (("x-other", "eve"), ("x-user", "bob"), ("x-user", "eve")), None, "eve")),
        ("{metadata: x-user}", Asked("", (("x-user", ""), ("x-user", "bob")), None, "")),
        ("{metadata: x-user-bin}", Asked("", (("x-user-bin", b"bob"),), None, "")),
        ("{parameter: user}", Asked("", (("user", "eve"),), {"user": "bob", "other": "eve"}, "eve")),
        ("request_id", Asked("", (("request_id", "eve"),), {"request_id": "eve"}, "bob")),
    ],
)
def test_the_same_key_has_the_same_variant_wherever_it_comes_from(sticky: str, asked: Asked) -> None:
    direct = Router("m", parse_route(f"{SPLIT}\nsticky: request_id")).decide("", (), None, "bob")
    decision = Router("m", parse_route(f"{SPLIT}\nsticky: {sticky}")).decide(*asked)
    assert outcome(decision) == outcome(direct)
    assert decision.reason is Reason.STICKY


@pytest.mark.parametrize(
    ("value", "text"), [(12, "12"), (-3, "-3"), (True, "true"), (False, "false"), (1.5, "1.5"), (0, "0")]
)
def test_a_parameter_that_is_no_text_is_the_key_of_its_text(value: float, text: str) -> None:
    made = router(f"{SPLIT}\nsticky: {{parameter: user}}")
    assert made.decide("", (), {"user": value}) is made.decide("", (), {"user": text})


@pytest.mark.parametrize(
    ("sticky", "asked"),
    [
        ("null", Asked("", (("x-user", "bob"),), {"user": "bob"}, "bob")),
        ("{metadata: x-user}", Asked("", (), {"x-user": "bob"}, "bob")),
        ("{metadata: x-user}", Asked("", (("x-user", ""),), None, "bob")),
        ("{parameter: user}", Asked("", (("user", "bob"),), None, "bob")),
        ("{parameter: user}", Asked("", (), {"user": ""}, "bob")),
        ("request_id", Asked("", (), None, "")),
    ],
)
def test_without_a_key_the_request_is_drawn_by_weight_and_says_so(sticky: str, asked: Asked) -> None:
    text = f"split: {{a: 1, b: 2, c: 1}}\nsticky: {sticky}"
    drawn = [router(text, point).decide(*asked) for point in (0.0, 0.24, 0.25, 0.74, 0.75, 0.999)]
    assert [outcome(decision) for decision in drawn] == [(name, name, Reason.DRAWN) for name in "aabbcc"]


def test_requests_without_a_key_are_drawn_anew_each_time() -> None:
    made = Router("m", parse_route("split: {a: 1, b: 1}"))
    counts = Counter(made.decide("").variant for _ in range(10_000))
    assert abs(counts["a"] - 5_000) < 5 * 50  # five standard deviations
    other = Router("m", made.route)  # of another worker
    assert [made.decide("").variant for _ in range(200)] != [other.decide("").variant for _ in range(200)]


def test_two_models_choose_different_clients_and_one_salt_the_same() -> None:
    def chosen(model: str, salt: str) -> list[str]:
        made = Router(model, parse_route(f"split: {{a: 1, b: 1}}\nsticky: request_id\nsalt: '{salt}'"))
        return [made.decide("", request_id=str(number)).variant for number in range(100)]

    assert chosen("one", "") != chosen("two", "")
    assert chosen("one", "spring") == chosen("two", "spring")
    assert chosen("one", "") == chosen("two", "one")


def test_a_client_that_is_in_the_canary_by_weight_is_in_the_larger_canary_of_a_rule() -> None:
    made = router("""
        sticky: {metadata: x-user}
        rules: [{name: eu, when: {x-region: eu}, split: {stable: 70, canary: 30}}]
        split: {stable: 90, canary: 10}
    """)
    for number in range(2_000):
        user = ("x-user", str(number))
        if made.decide("", [user]).target == "canary":
            assert made.decide("", [user, ("x-region", "eu")]).variant == "eu/canary"


def test_a_decision_is_always_one_of_those_that_the_router_lists() -> None:
    made = router(f"rules: {RULES}\nsplit: {{stable: 1, canary: 0}}\nsticky: request_id")
    assert [outcome(decision) for decision in made.decisions] == [
        ("7", "first/7", Reason.RULE),
        ("canary", "second/canary", Reason.STICKY), ("canary", "second/canary", Reason.DRAWN),
        ("stable", "stable", Reason.STICKY), ("canary", "canary", Reason.STICKY),
        ("stable", "stable", Reason.DRAWN), ("canary", "canary", Reason.DRAWN),
    ]  # fmt: skip
    assert Router("m", Route()).decisions == (DEFAULT,)


@given(ROUTES, st.lists(REQUESTS, max_size=8), st.integers())
def test_an_explanation_ends_where_the_decision_does(route: Route, requests: list[Asked], seed: int) -> None:
    deciding, telling = (Router("m", route, draw=random.Random(seed).random) for _ in range(2))
    for asked in requests:
        explanation = telling.explain(*asked)
        decided = deciding.decide(*asked)
        assert outcome(explanation.decision) == outcome(decided)
        assert decided in deciding.decisions or asked.version
        assert outcome(deciding.decide(*asked)) == outcome(telling.decide(*asked))  # both have drawn as often
        check_story(route, asked, explanation.steps, explanation.decision)
        assert json.loads(json.dumps(explanation.document()))["variant"] == decided.variant
        assert all("\n" not in line for line in explanation.lines())


def check_story(route: Route, asked: Asked, steps: tuple[object, ...], decision: Decision) -> None:
    assert steps[0] == NameStep(asked.version)
    rules = [step for step in steps if isinstance(step, RuleStep)]
    assert [step.rule for step in rules] == [rule.name for rule in route.rules][: len(rules)]
    assert [step.applies for step in rules[:-1]] == [False] * len(rules[:-1])
    for step in rules:
        assert step.applies is all(condition.holds for condition in step.conditions)
    match decision.reason:
        case Reason.VERSION | Reason.LABEL:
            assert len(steps) == 1
        case Reason.RULE:
            assert rules[-1].applies
            assert decision.variant == f"{rules[-1].rule}/{decision.target}"
            assert steps[-1] is rules[-1]
        case Reason.DEFAULT:
            assert isinstance(steps[-1], DefaultStep)
        case _:
            key, split = steps[-2:]
            assert isinstance(key, KeyStep)
            assert isinstance(split, SplitStep)
            arm = split.arms[split.chosen]
            assert decision.variant == (f"{split.rule}/{arm.variant}" if split.rule else arm.variant)
            if decision.reason is Reason.STICKY:
                assert key.key
                assert arm.figure == max(other.figure for other in split.arms if other.figure is not None)
            else:
                assert not key.key
                assert split.point is not None
                assert arm.begin is not None
                assert arm.begin <= split.point < (arm.end or 0)


def test_an_explanation_reads_as_a_story() -> None:
    made = router("""
        sticky: {metadata: x-user}
        rules: [{name: testers, when: {x-tier: gold, x-user: {prefix: t-}}, to: canary}]
        split: {stable: 95, canary: 5, old: 0}
    """)
    lines = made.explain("", [("x-tier", "gold"), ("x-user", "user-1")]).lines()
    assert lines == STORY
    assert made.explain("", [("x-tier", "tin")]).lines()[2:] == [
        "  rule testers: does not apply",
        "    x-tier exact 'gold': 'tin': does not hold",
        "  sticky key: metadata x-user: not sent, so the request is drawn",
        "  split of the route, drawn: 0.500000",
        "  > stable to stable, weight 95, share 95.00%: 0.000000 to 0.950000",
        "    canary to canary, weight 5, share 5.00%: 0.950000 to 1.000000",
        "    old to old, weight 0, share 0.00%: 1.000000 to 1.000000",
    ]


STORY = [
    "m: to stable, variant stable, reason sticky",
    "  version or label named by the client: none",
    "  rule testers: does not apply",
    "    x-tier exact 'gold': 'gold': holds",
    "    x-user prefix 't-': 'user-1': does not hold",
    "  sticky key: metadata x-user: 'user-1'",
    "  split of the route, the greatest figure wins",
    "  > stable to stable, weight 95, share 95.00%: hash 8c86435b86629eb0, figure -0.00631364",
    "    canary to canary, weight 5, share 5.00%: hash e01b77b970db42b6, figure -0.0266105",
    "    old to old, weight 0, share 0.00%",
]


def test_requests_are_grouped_by_decision_in_their_order() -> None:
    made = router("split: {a: 1, b: 1}\nsticky: request_id")
    ids = [str(number) for number in range(100)]
    groups = grouped(ids, [made.decide("", request_id=request_id) for request_id in ids])
    assert len(groups) == 2
    assert sorted(itertools.chain(*groups.values()), key=int) == ids
    for decision, requests in groups.items():
        assert requests == [r for r in ids if made.decide("", request_id=r) is decision]
    assert grouped([], []) == {}
    with pytest.raises(ValueError, match="shorter"):
        grouped([1, 2], [DEFAULT])


def test_names_that_clients_make_up_take_no_lasting_room() -> None:
    assert named("canary") is named("canary")
    long = "x" * 1_000_000
    assert named(long) is not named(long)
    assert outcome(named(long)) == (long, long, Reason.LABEL)
