"""model.yaml: defaults, every field, and every problem named at once in words a user knows."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.errors import LoadError
from runtime.repository.manifest import Manifest, ManifestError, parse_manifest
from runtime.repository.policy import VersionPolicy
from runtime.routing.route import Condition, Match, Route, Rule, Variant

EVERYTHING = """
versions: {specific: [3, 1]}
labels: {stable: 1, canary-2.x: 3}
default: stable
route: {rules: [{name: r, when: {x: y}, to: 3}], split: {stable: 9, 3: 1}}
batching: {max_batch_size: 0, max_queue_delay_seconds: 2e-3, max_queue_requests: 10}
session:
  intra_op_threads: 4
  inter_op_threads: 2
  execution: parallel
  graph_optimization: extended
  memory_arena: false
  spinning: true
  execution_providers: [{CUDAExecutionProvider: {device_id: 0}}, CPUExecutionProvider]
  config: {session.intra_op.allow_spinning: 1}
warmup: {enabled: false, batch_sizes: [1, 8], file: sample.npz, free_axis_size: 16, runs: 3, limit_seconds: 7.5}
instances: 2
description: scores loans
metadata: {team: risk, year: 2025}
"""


def problems_of(text: str) -> tuple[str, ...]:
    with pytest.raises(ManifestError) as caught:
        parse_manifest(text, "m/model.yaml")
    return caught.value.problems


def test_an_empty_file_is_the_defaults():
    manifest = parse_manifest("# nothing\n", "m/model.yaml")
    assert manifest == Manifest()
    assert manifest.versions == VersionPolicy("latest", 1)
    assert (manifest.default, manifest.instances, manifest.labels) == ("", 1, {})
    assert manifest.batching.model_dump() == {
        "max_batch_size": None,
        "max_queue_delay_seconds": 0.0,
        "max_queue_requests": 1024,
    }
    assert manifest.session.execution_providers == (("CPUExecutionProvider", {}),)
    assert manifest.session.memory_arena
    assert not manifest.session.spinning


def test_every_field_is_read():
    manifest = parse_manifest(EVERYTHING, "m/model.yaml")
    assert manifest.versions == VersionPolicy("specific", versions=(1, 3))
    assert manifest.labels == {"stable": 1, "canary-2.x": 3}
    assert manifest.default == "stable"
    assert manifest.route == Route(
        (Rule("r", (Condition("x", Match.EXACT, "y"),), target="3"),),
        (Variant("stable", "stable", 9), Variant("3", "3", 1)),
    )
    assert manifest.batching.model_dump() == {
        "max_batch_size": 0,
        "max_queue_delay_seconds": 0.002,
        "max_queue_requests": 10,
    }
    assert manifest.session.model_dump() == {
        "intra_op_threads": 4,
        "inter_op_threads": 2,
        "execution": "parallel",
        "graph_optimization": "extended",
        "memory_arena": False,
        "spinning": True,
        "execution_providers": (("CUDAExecutionProvider", {"device_id": "0"}), ("CPUExecutionProvider", {})),
        "config": {"session.intra_op.allow_spinning": "1"},
    }
    assert manifest.warmup.model_dump() == {
        "enabled": False,
        "batch_sizes": (1, 8),
        "file": "sample.npz",
        "free_axis_size": 16,
        "runs": 3,
        "limit_seconds": 7.5,
    }
    assert (manifest.instances, manifest.description) == (2, "scores loans")
    assert manifest.metadata == {"team": "risk", "year": "2025"}


def test_a_manifest_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Manifest().batching.max_queue_requests = 3


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("all", "all"),
        ("latest", "latest(1)"),
        ("{latest: 3}", "latest(3)"),
        ("{specific: [7, 2, 7]}", "specific(2, 7)"),
    ],
)
def test_each_form_of_a_version_policy(text, policy):
    assert str(parse_manifest(f"versions: {text}", "m").versions) == policy


@pytest.mark.parametrize(
    "text",
    [
        "newest",
        "{latest: 0}",
        "{latest: true}",
        "{latest: '1'}",
        "{specific: []}",
        "{specific: [0]}",
        "{specific: 3}",
        "{latest: 1, specific: [1]}",
        "3",
        "null",
    ],
)
def test_any_other_version_policy_is_refused(text):
    (problem,) = problems_of(f"versions: {text}")
    assert problem.startswith("versions: expected all, latest, {latest: how many} or {specific: [versions]}")


def test_an_empty_section_is_its_defaults():
    text = "labels:\nbatching:\nsession:\n  config:\nwarmup:\nmetadata:\n"
    assert parse_manifest(text, "m") == Manifest()


@pytest.mark.parametrize("text", ["7", "'7'"])
def test_a_default_may_be_a_number_with_or_without_quotes(text):
    assert parse_manifest(f"default: {text}", "m").default == "7"


def test_every_problem_is_named_at_once_with_path_expectation_and_value():
    assert problems_of(
        """
        labels: {9a: 1, ok: 0}
        default: 007a
        batching: {max_batch_size: 70000, max_queue_requests: true}
        session: {intra_op_threads: '2', execution: sequental, config: {a: 1.5}, execution_providers: []}
        warmup: {batch_sizes: [1, 0], file: ../x.npz, runs: 0}
        instances: 2.0
        description: [a]
        """
    ) == (
        "labels.9a: expected a label: a letter, then up to 62 letters, digits, '.', '_' or '-', got '9a'",
        "labels.ok: expected a version: an integer of 1 or more, got 0",
        "default: expected a version's number, a label, or '', got '007a'",
        "batching.max_batch_size: expected an integer 0..65536, got 70000",
        "batching.max_queue_requests: expected an integer 1..1000000, got true",
        "session.intra_op_threads: expected an integer 1..256, got '2'",
        "session.execution: expected 'sequential' or 'parallel', got 'sequental'",
        "session.execution_providers: expected a list of provider names, or of {name: {option: text}}, got []",
        "session.config.a: expected a text (put it in quotes), got 1.5",
        "warmup.batch_sizes[1]: expected an integer 1..65536, got 0",
        "warmup.file: expected the name of a file in the version's folder, got '../x.npz'",
        "warmup.runs: expected an integer 1..100, got 0",
        "instances: expected an integer 1..64, got 2.0",
        "description: expected a text, got ['a']",
    )


def test_every_problem_of_a_route_is_named_with_its_place_beside_all_others():
    text = "instances: 0\nroute: {salt: 7, split: {a: 0}, shadows: [{of: a}]}\nlabels: {a: 0}\n"
    assert sorted(problem.partition(":")[0] for problem in problems_of(text)) == [
        "instances", "labels.a", "route.salt", "route.shadows[0].to", "route.split",
    ]  # fmt: skip
    assert problems_of("route: stable\n") == (
        "route: expected a mapping with sticky, salt, rules, split, shadows, got 'stable'",
    )


def test_the_message_holds_the_source_and_one_line_per_problem():
    with pytest.raises(LoadError) as caught:
        parse_manifest("instances: 0\nbatching: 3", "loans/model.yaml")
    assert caught.value.message.splitlines() == [
        "loans/model.yaml has 2 problems:",
        "batching: expected a mapping, got 3;",
        "instances: expected an integer 1..64, got 0",
    ]


def test_an_unknown_key_is_answered_with_the_key_that_was_meant():
    unknown, top = problems_of("batching: {max_batchsize: 8}\nzork: 1")
    assert unknown.startswith("batching.max_batchsize: unknown key; did you mean max_batch_size? known keys are max_b")
    assert top.startswith("zork: unknown key; known keys are versions, labels")


def test_a_key_given_twice_is_named_with_both_lines():
    assert problems_of("instances: 1\nbatching: {}\ninstances: 2") == (
        "line 3, column 1: the key 'instances' was already given in line 1",
    )


def test_duplicate_keys_and_wrong_values_are_reported_together():
    assert len(problems_of("warmup: {runs: 1, runs: 0}\ninstances: 0")) == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [1", "line 1, column 6: not valid YAML"),
        ("a:\n  b: 1\n c: 2", "line 3, column 2: not valid YAML"),
        ("- 1\n- 2", "expected a mapping of settings, got [1, 2]"),
        ("text", "expected a mapping of settings, got 'text'"),
        ("a: &x 1\nb: *x", "line 2, column 4: not valid YAML: aliases (*x) are not allowed"),
        ("a: 1\n---\nb: 1", "single document"),
        ("a: \x07", "line 1: the character U+0007 is not allowed"),
        ("a: !!python/object/apply:os.system [ls]", "line 1, column 4: not valid YAML: could not determine"),
        ("a: 2024-13-45", "line 1, column 4: not valid YAML: '2024-13-45' is no number or date"),
        ("a: " + "9" * 5000, "is no number or date"),
        ("a: 0x" + "f" * 5000, "is no number or date"),
        ("? 0x" + "f" * 5000 + "\n: 1", "is no number or date"),
        ("? [a]\n: 1", "unhashable key"),
        ("[" * 3000, "the document nests too deeply"),
        ("#" + "x" * (1 << 20), "longer than 1048576 bytes"),
    ],
)
def test_what_is_not_a_mapping_in_yaml_is_refused_with_its_place(text, expected):
    (problem,) = problems_of(text)
    assert expected in problem


def test_an_alias_bomb_is_refused_where_its_first_alias_stands():
    bomb = "a: &a [x, x]\n" + "".join(
        f"{new}: &{new} [*{old}, *{old}]\n" for old, new in zip("abcdefghij", "bcdefghijk", strict=True)
    )
    (problem,) = problems_of(bomb)
    assert problem.startswith("line 2, column 8: not valid YAML: aliases (*a) are not allowed")


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.sampled_from("ab1:-[]{}&*!|>'\"%@,?#. \n\tversions"), max_size=60))
def test_any_text_is_a_manifest_or_a_list_of_problems(text):
    try:
        manifest = parse_manifest(text, "m")
    except ManifestError as error:
        assert error.problems  # noqa: PT017 - either outcome is right
    else:
        assert isinstance(manifest, Manifest)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([*Manifest.model_fields, "other", 3]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
            max_leaves=6,
        ),
        max_size=4,
    )
)
def test_no_problem_shows_the_words_of_a_library(document):
    from runtime.repository.manifest import manifest_of

    try:
        manifest_of(document, "m")
    except ManifestError as error:
        for problem in error.problems:
            assert "pydantic" not in problem
            assert ": expected " in problem or ": unknown key; " in problem


@pytest.mark.parametrize(
    ("policy", "served", "missing"),
    [
        (VersionPolicy(), (9,), ()),
        (VersionPolicy("latest", 2), (5, 9), ()),
        (VersionPolicy("latest", 8), (2, 5, 9), ()),
        (VersionPolicy("all"), (2, 5, 9), ()),
        (VersionPolicy("specific", versions=(5, 7, 2, 3)), (2, 5), (3, 7)),
    ],
)
def test_a_policy_selects_ascending_and_names_what_is_missing(policy, served, missing):
    assert policy.select([9, 2, 5]) == served
    assert policy.missing([9, 2, 5]) == missing


def test_a_policy_selects_nothing_from_nothing():
    assert VersionPolicy().select([]) == ()


@pytest.mark.parametrize(
    "wrong",
    [{"count": 0}, {"kind": "specific"}, {"kind": "all", "versions": (1,)}, {"kind": "specific", "versions": (0,)}],
)
def test_a_policy_that_means_nothing_cannot_be_made(wrong):
    with pytest.raises(ValueError):
        VersionPolicy(**wrong)
