"""Triton's config.pbtxt: what maps is mapped, what does not is named, and nothing breaks the reader."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.wire.pbtxt import read_config_pbtxt
from runtime.errors import LoadError
from runtime.repository.manifest import manifest_of

EVERYTHING = """
name: "loans"  # a brace in a comment: {
platform: "onnxruntime_onnx"
max_batch_size: 16
input [ { name: "x", data_type: TYPE_FP32, dims: [ 3, -1 ] }, { name: "y" data_type: TYPE_STRING dims: 1 } ]
output { name: "z" data_type: TYPE_INT64 dims: [] }
version_policy: { specific { versions: [3, 1] } }
instance_group [ { count: 2 kind: KIND_CPU }, { count: 1 } ]
dynamic_batching {
  max_queue_delay_microseconds: 250
  default_queue_policy < max_queue_size: 64 >
}
optimization { graph : { level : 1 } }
parameters { key: "intra_op_thread_count" value: { string_value: "4" } }
parameters: { key: "inter_op_thread_count", value: { string_value: "2" } }
parameters [ { key: "execution_mode" value: { string_value: "1" } } ]
parameters { key: "enable_mem_arena" value: { string_value: "0" } }
default_model_filename: "net.onnx"
"""


def test_what_maps_is_mapped_and_nothing_else_is_said():
    found, warnings = read_config_pbtxt(EVERYTHING)
    assert found == {
        "batching": {"max_batch_size": 16, "max_queue_delay_seconds": 0.00025, "max_queue_requests": 64},
        "session": {
            "graph_optimization": "extended",
            "intra_op_threads": 4,
            "inter_op_threads": 2,
            "execution": "parallel",
            "memory_arena": False,
        },
        "versions": {"specific": [1, 3]},
        "instances": 3,
        "model_filename": "net.onnx",
    }
    assert warnings == []


def test_what_is_mapped_is_a_valid_manifest():
    found, _ = read_config_pbtxt(EVERYTHING)
    del found["model_filename"]
    manifest = manifest_of(found, "config.pbtxt")
    assert str(manifest.versions) == "specific(1, 3)"
    assert manifest.session.execution == "parallel"


def test_an_empty_file_sets_nothing():
    assert read_config_pbtxt("") == ({}, [])


@pytest.mark.parametrize(
    ("text", "versions"),
    [
        ("version_policy { all {} }", "all"),
        ("version_policy: { latest { num_versions: 3 } }", {"latest": 3}),
        ("version_policy { latest {} }", {"latest": 1}),
        ("version_policy { specific { versions: 7 versions: 2 } }", {"specific": [2, 7]}),
    ],
)
def test_each_version_policy(text, versions):
    assert read_config_pbtxt(text) == ({"versions": versions}, [])


@pytest.mark.parametrize(("level", "name"), [(-1, "basic"), (0, "all"), (1, "extended"), (2, "disabled")])
def test_graph_levels_are_tritons_numbers(level, name):
    assert read_config_pbtxt(f"optimization {{ graph {{ level: {level} }} }}")[0] == {
        "session": {"graph_optimization": name}
    }


def test_a_batch_size_that_is_not_written_is_left_to_the_graph_and_a_zero_is_kept():
    assert "batching" not in read_config_pbtxt('name: "x"')[0]
    assert read_config_pbtxt("max_batch_size: 0") == ({"batching": {"max_batch_size": 0}}, [])


def test_a_batch_size_without_dynamic_batching_is_mapped_with_a_warning_where_requests_could_be_merged():
    found, (warning,) = read_config_pbtxt("max_batch_size: 8")
    assert found == {"batching": {"max_batch_size": 8}}
    assert "without dynamic_batching Triton would not merge requests; driftgate does, up to 8 rows" in warning
    assert read_config_pbtxt("max_batch_size: 1")[1] == []
    assert read_config_pbtxt("max_batch_size: 8 dynamic_batching {}")[1] == []


@pytest.mark.parametrize(
    "text", ['backend: "python"', 'platform: "tensorrt_plan"', 'backend: "onnxruntime" platform: "x"']
)
def test_other_backends_are_refused(text):
    with pytest.raises(LoadError, match=r"config\.pbtxt asks for (backend|platform) '.*'; driftgate serves ONNX only"):
        read_config_pbtxt(text)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('\nmodel_warmup [ { name: "}" batch_size: 1 inputs { key: "x" } } ]', "line 2: model_warmup"),
        ("ensemble_scheduling < step: [ ] >", "line 1: ensemble_scheduling"),
        ("sequence_batching { max_sequence_idle_microseconds: 1 }", "line 1: sequence_batching"),
        ("response_cache: { enable: true }", "line 1: response_cache"),
        ('cc_model_filenames [ { key: "6.1" value: "a" } ]', "line 1: cc_model_filenames"),
        ("runtime: 'a' 'b'", "line 1: runtime"),
        ("zork: -3", "line 1: zork"),
        ("zork: [1, 2]", "line 1: zork"),
        ("[a.b/c.d] { x: 1 }", "line 1: [extension]"),
        ("input { name: 'a' reshape { shape: [ 1 ] } }", "line 1: input.reshape"),
        ("input [ { name: 'a' }, {\n is_shape_tensor: true } ]", "line 2: input.is_shape_tensor"),
        ("dynamic_batching { preferred_batch_size: [4, 8] }", "line 1: dynamic_batching.preferred_batch_size"),
        ("optimization { execution_accelerators { gpu: 1 } }", "line 1: optimization.execution_accelerators"),
        ("output { label_filename: 'l' }", "line 1: output.label_filename"),
    ],
)
def test_a_field_without_counterpart_is_named_wherever_it_stands(text, path):
    """Those that Triton knows and driftgate does not, and those that driftgate parses but does not use."""
    found, warnings = read_config_pbtxt(f"{text}\ndefault_model_filename: 'after'")
    assert warnings == [f"config.pbtxt: {path} has no counterpart here and is ignored"]
    assert found == {"model_filename": "after"}


@pytest.mark.parametrize(
    ("text", "settings", "warning"),
    [
        ("instance_group { count: 2 kind: KIND_GPU }", {}, "KIND_GPU is ignored"),
        ("instance_group { count: 900 }", {"instances": 64}, "instance_group.count 900 is outside 1..64; taken as 64"),
        (
            "dynamic_batching { default_queue_policy { max_queue_size: 0 } }",
            {},
            "max_queue_size 0 asks for a queue without bound",
        ),
        (
            "dynamic_batching { max_queue_delay_microseconds: 60000000 }",
            {"batching": {"max_queue_delay_seconds": 10}},
            "60 is outside 0..10; taken as 10",
        ),
        ("optimization { graph { level: 7 } }", {}, "level 7 is none of -1, 0, 1, 2"),
        (
            'parameters { key: "intra_op_thread_count" value { string_value: "0" } }',
            {},
            "0 asks for every core of the machine; here the default is 1 thread",
        ),
        (
            'parameters { key: "execution_mode" value { string_value: "fast" } }',
            {},
            "execution_mode has the value 'fast', which is not understood",
        ),
        ('parameters { key: "zork" value { string_value: "1" } }', {}, "'zork' has no counterpart here"),
    ],
)
def test_a_value_without_counterpart_is_named(text, settings, warning):
    found, (said,) = read_config_pbtxt(text)
    assert found == settings
    assert warning in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_batch_size: -1", "max_batch_size: expected 0 or more, got -1"),
        ("name: 'a'\nmax_batch_size: many", "line 2, column 17"),
        ("name: 'a' name: 'b'", "multiple"),
        ("input { data_type: TYPE_ZORK }", "TYPE_ZORK"),
        ("name: 'a'\nmodel_warmup [ {\n name: 'x' }", "line 2: the bracket of model_warmup is never closed"),
        ("dynamic_batching { } }", "line 1: } closes nothing"),
        ("zork [ }", "closes nothing"),
        ("a{" * 3000, "nests deeper than 50"),
        ("version_policy { specific { versions: 0 } }", "names no version of 1 or more"),
        ("max_batch_size: 99999999999", "max_batch_size|line 1"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(text, message):
    with pytest.raises(LoadError, match=message) as caught:
        read_config_pbtxt(text)
    assert caught.value.message.startswith("config.pbtxt")


def test_a_file_full_of_unknown_fields_is_summed_up():
    _, warnings = read_config_pbtxt("\n".join(f"zork{number}: 1" for number in range(20_000)))
    assert len(warnings) == 51
    assert warnings[-1] == "config.pbtxt: 19950 further fields are ignored"


WORDS = ["name", "zork", "input", "dims", "parameters", "dynamic_batching", ":", "{", "}", "[", "]", "<", ">", ",", ";"]


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from([*WORDS, "-1", "1e9", '"a"', "'", "#", "\n", "\\", "$", "\x00"]), max_size=25))
def test_any_text_is_read_or_refused(words):
    try:
        found, warnings = read_config_pbtxt(" ".join(words))
    except LoadError as error:
        assert error.message.startswith("config.pbtxt")  # noqa: PT017 - either outcome is right
    else:
        assert isinstance(found, dict)
        assert all(warning.startswith("config.pbtxt: ") for warning in warnings)
