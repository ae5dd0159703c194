"""Routes as operators write them: read whole, refused whole, stored and read back equal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from route_samples import ROUTES

from runtime.routing.document import (
    RouteError,
    document_of,
    from_json,
    parse_route,
    read_route,
    route_of,
    to_json,
)
from runtime.routing.route import Condition, Match, Route, Rule, Shadow, Source, Sticky, Variant

TEXT = """
sticky: {metadata: X-User-Id}
salt: spring
rules:
  - name: testers
    when: {X-Tier: gold, x-user-id: {prefix: "test-"}, x-n: 3}
    to: 7
  - name: europe
    when: {x-region: {regex: "eu-.*"}}
    split: {stable: 50, canary: 50}
split:
  stable: 95
  challenger: {to: canary, weight: 5}
  3: 0
shadows:
  - {to: 8, percent: 10, of: stable, tolerance: {absolute: 1e-3}, worst: 4, inputs: true, redact: [age]}
  - to: next
"""
READ = Route(
    rules=(
        Rule("testers", (
            Condition("x-tier", Match.EXACT, "gold"),
            Condition("x-user-id", Match.PREFIX, "test-"),
            Condition("x-n", Match.EXACT, "3"),
        ), target="7"),
        Rule("europe", (Condition("x-region", Match.REGEX, "eu-.*"),),
             split=(Variant("stable", "stable", 50), Variant("canary", "canary", 50))),
    ),
    split=(Variant("stable", "stable", 95), Variant("challenger", "canary", 5), Variant("3", "3", 0)),
    sticky=Sticky(Source.METADATA, "x-user-id"),
    salt="spring",
    shadows=(
        Shadow("8", 0.1, "stable", absolute=1e-3, worst=4, inputs=True, redact=("age",)),
        Shadow("next"),
    ),
)  # fmt: skip


def test_a_route_is_read_as_it_is_written() -> None:
    assert parse_route(TEXT) == READ


@pytest.mark.parametrize("text", ["", "{}", "rules:\nsplit:\nsticky:\n", "# nothing"])
def test_an_empty_document_is_an_empty_route(text: str) -> None:
    assert parse_route(text) == Route()


@given(ROUTES)
def test_every_route_comes_back_equal_from_the_store_and_from_yaml(route: Route) -> None:
    assert from_json(to_json(route)) == route
    assert parse_route(to_json(route)) == route
    assert read_route(document_of(route)) == (route, [])


@given(st.floats(1e-6, 100))
def test_a_percentage_is_written_as_it_was_read(percent: float) -> None:
    route = parse_route(f"shadows: [{{to: 3, percent: {percent!r}}}]")
    assert from_json(to_json(route)) == route


def test_a_percentage_is_written_short() -> None:
    document = document_of(parse_route("shadows: [{to: 3, percent: 7}]"))
    assert document == {"shadows": [{"to": "3", "percent": 7}]}


NAME = "a letter, then up to 62 letters, digits, '.', '_' or '-'"
TARGET = f"a version's number or a label ({NAME})"
KEY = "a metadata key of 1 to 128 lower-case letters, digits, '-', '_' and '.'"
WEIGHT = "0 or a number 1e-06..1e+09"
OWN = "a key of the client's own: those that begin with grpc- are the protocol's"
CONDITION = "a text, or one of {exact: text}, {prefix: text}, {regex: text}"
STICKY = "request_id, {metadata: key} or {parameter: name}"


SHADOW_KEYS = "to, percent, of, tolerance, worst, inputs, redact"


def one_shadow(**fields: object) -> dict[str, object]:
    return {"shadows": [{"to": "a"} | fields]}


def one_rule(**fields: object) -> dict[str, object]:
    return {"rules": [{"name": "r", "when": {"x": "y"}, "to": "a"} | fields]}


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ([], "the document: expected a mapping with sticky, salt, rules, split, shadows, got []"),
        ({"stiky": 1}, "stiky: unknown key; did you mean sticky? known keys are sticky, salt, rules, split, shadows"),
        ({"sticky": "user"}, f"sticky: expected {STICKY}, got 'user'"),
        ({"sticky": {"metadata": "a", "parameter": "b"}},
         f"sticky: expected {STICKY}, got {{'metadata': 'a', 'parameter': 'b'}}"),
        ({"sticky": {"metadata": "a b"}}, f"sticky.metadata: expected {KEY}, got 'a b'"),
        ({"sticky": {"metadata": "grpc-x"}}, f"sticky.metadata: expected {OWN}, got 'grpc-x'"),
        ({"sticky": {"parameter": ""}}, "sticky.parameter: expected a name of 1 to 128 characters, got ''"),
        ({"salt": 7}, "salt: expected a text of at most 128 characters, got 7"),
        ({"rules": {}}, "rules: expected a list of at most 64 rules, got {}"),
        ({"rules": [0] * 65}, "rules: expected a list of at most 64 rules, got '65 rules'"),
        ({"rules": [7]}, "rules[0]: expected a mapping with name, when, to, split, got 7"),
        (one_rule(nme="x"), "rules[0].nme: unknown key; did you mean name? known keys are name, when, to, split"),
        (one_rule(name="3"), f"rules[0].name: expected {NAME}, got '3'"),
        (one_rule(when={}), "rules[0].when: expected a mapping of 1 to 8 metadata keys to what they must be, got {}"),
        (one_rule(when={"a/b": "x"}), f"rules[0].when.'a/b': expected {KEY}, got 'a/b'"),
        (one_rule(when={"x-bin": "x"}),
         "rules[0].when.x-bin: expected a key of texts: values of keys that end in -bin are bytes, got 'x-bin'"),
        (one_rule(when={"x": "1", "X": "2"}),
         "rules[0].when.X: the key 'x' is given twice: upper and lower case are the same"),
        (one_rule(when={"x": 1.5}),
         "rules[0].when.x: expected a text of at most 1024 characters (put it in quotes), got 1.5"),
        (one_rule(when={"x": {"suffix": "y"}}), f"rules[0].when.x: expected {CONDITION}, got {{'suffix': 'y'}}"),
        (one_rule(when={"x": {"regex": "("}}),
         "rules[0].when.x.regex: expected a regular expression that RE2 takes (missing ): (), got '('"),
        (one_rule(to=None), "rules[0]: expected one of `to` and `split`, got neither"),
        (one_rule(split={"a": 1}), "rules[0]: expected one of `to` and `split`, got both"),
        (one_rule(to="0"), f"rules[0].to: expected {TARGET}, got '0'"),
        (one_rule(to=True), f"rules[0].to: expected {TARGET}, got true"),
        ({"split": {}}, "split: expected a mapping of 1 to 16 variants to weights, got {}"),
        ({"split": {"a": 0, "b": 0}}, "split: expected a weight above 0 for one variant at least, got 0 for all"),
        ({"split": {"a": -1}}, f"split.a: expected {WEIGHT}, got -1"),
        ({"split": {"a": True}}, f"split.a: expected {WEIGHT}, got true"),
        ({"split": {"a": float("nan")}}, f"split.a: expected {WEIGHT}, got nan"),
        ({"split": {"a": float("inf")}}, f"split.a: expected {WEIGHT}, got inf"),
        ({"split": {"a": 1e-9}}, f"split.a: expected {WEIGHT}, got 1e-09"),
        ({"split": {"a": {"to": "b"}}}, f"split.a.weight: expected {WEIGHT}, got null"),
        ({"split": {"a": {"weight": 1, "two": 2}}},
         "split.a.two: unknown key; did you mean to? known keys are to, weight"),
        ({"split": {"a b": 1}}, f"split.'a b': expected a variant's name: {TARGET}, got 'a b'"),
        ({"split": {3: 1, "3": 1}}, "split.3: given twice, as a number and as a text"),
        ({"shadows": {"to": 3}}, "shadows: expected a list of at most 4 shadows, got {'to': 3}"),
        ({"shadows": [0] * 5}, "shadows: expected a list of at most 4 shadows, got '5 shadows'"),
        ({"shadows": [3]}, f"shadows[0]: expected a mapping with {SHADOW_KEYS}, got 3"),
        ({"shadows": [{}]}, f"shadows[0].to: expected {TARGET}, got null"),
        ({"shadows": [{"to": 3}, {"to": "3"}]},
         "shadows[1].to: '3' is already the target of shadow 0: give each target once"),
        (one_shadow(too=1), f"shadows[0].too: unknown key; did you mean to? known keys are {SHADOW_KEYS}"),
        (one_shadow(of=0), f"shadows[0].of: expected {TARGET}, got 0"),
        (one_shadow(of="a"), "shadows[0].of: 'a' would get copies of its own requests: name another"),
        (one_shadow(percent=0), "shadows[0].percent: expected a number 1e-06..100, got 0"),
        (one_shadow(percent=100.1), "shadows[0].percent: expected a number 1e-06..100, got 100.1"),
        (one_shadow(percent=True), "shadows[0].percent: expected a number 1e-06..100, got true"),
        (one_shadow(percent=float("nan")), "shadows[0].percent: expected a number 1e-06..100, got nan"),
        (one_shadow(tolerance=1e-6),
         "shadows[0].tolerance: expected a mapping with absolute, relative, got 1e-06"),
        (one_shadow(tolerance={"relative": -1}),
         "shadows[0].tolerance.relative: expected a number of 0 or more, got -1"),
        (one_shadow(tolerance={"absolute": float("inf")}),
         "shadows[0].tolerance.absolute: expected a number of 0 or more, got inf"),
        (one_shadow(worst=257), "shadows[0].worst: expected an integer 0..256, got 257"),
        (one_shadow(inputs="yes"), "shadows[0].inputs: expected true or false, got 'yes'"),
        (one_shadow(redact="age"),
         "shadows[0].redact: expected a list of at most 256 names of features, got 'age'"),
        (one_shadow(redact=["age", 3]), "shadows[0].redact[1]: expected a name of 1 to 256 characters, got 3"),
        (one_shadow(redact=["age", "age"]), "shadows[0].redact[1]: 'age' is given twice"),
    ],
)  # fmt: skip
def test_a_problem_says_where_what_was_expected_and_what_came(document: object, problem: str) -> None:
    assert read_route(document)[1] == [problem]


def test_all_problems_are_named_at_once_under_the_name_of_the_source() -> None:
    text = """
        salt: a
        salt: 3
        rules:
          - {name: a, when: {x: y}, to: 0}
          - {name: a, when: {grpc-x: y}}
          - {when: {x: y}, to: b}
        split: {stable: 0}
    """
    with pytest.raises(RouteError) as caught:
        parse_route(text, "route.yaml")
    assert caught.value.message.startswith("route.yaml has 8 problems:\n")
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "line 3, column 9", "salt", "rules[0].to", "rules[1].when.grpc-x", "rules[1]", "rules[1].name", "rules[2].name",
        "split",
    ]  # fmt: skip


def test_a_problem_has_its_place_in_the_file_that_the_route_is_part_of() -> None:
    assert read_route({"split": 3}, "route")[1] == [
        "route.split: expected a mapping of 1 to 16 variants to weights, got 3"
    ]


@pytest.mark.parametrize("text", ["{", "[]", "7", '{"split": 0}', "[" * 100_000])
def test_what_the_store_holds_and_is_no_route_is_refused(text: str) -> None:
    with pytest.raises(RouteError, match="the stored route has 1 problem"):
        from_json(text)


def test_text_that_is_no_yaml_is_refused_in_words() -> None:
    with pytest.raises(RouteError, match="not valid YAML"):
        parse_route("split: {a: 1")


WORDS = ["sticky", "salt", "rules", "split", "name", "when", "to", "weight", "regex", "metadata"]
WORDS += ["shadows", "percent", "of", "tolerance", "absolute", "worst", "inputs", "redact"]
ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.sampled_from(["x", "canary", "3"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(
                st.sampled_from(WORDS),
                st.text(max_size=3),
                st.integers(),
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=20,
)


@given(ANYTHING)
def test_whatever_a_document_holds_it_is_a_route_or_has_problems(document: object) -> None:
    route, problems = read_route(document)
    if problems:
        with pytest.raises(RouteError):
            route_of(document)
    else:
        assert from_json(to_json(route)) == route
