"""Typed and raw contents of each datatype, requested outputs, ids, metadata, compression."""

from __future__ import annotations

import re
from typing import Any

import grpc
import ml_dtypes
import numpy as np
import pytest
from dataplane_client import (
    DATATYPES,
    TIMEOUT_SECONDS,
    Array,
    Client,
    answers,
    channel_to,
    make_request,
    raw_of,
    refused,
)
from dataplane_repository import LABELS, VERSIONS
from support.answered_by import answered_by
from support.gateway import Gateway
from zoo import INTEGERS, built, by_name, draw, reference, session

from gateway.wire.pb.inference import grpc_service_pb2 as pb

CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
X = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], dtype=np.float32)


def typed_request(model: str, feeds: dict[str, Array]) -> pb.ModelInferRequest:
    request = make_request(model, feeds)
    del request.raw_input_contents[:]
    for tensor, array in zip(request.inputs, feeds.values(), strict=True):
        values = [v.encode() for v in array.ravel()] if array.dtype.kind == "O" else array.ravel().tolist()
        getattr(tensor.contents, CONTENTS[tensor.datatype]).extend(values)
    return request


@pytest.mark.parametrize("name", ["integers", "boolean", "mixed", "float64", "strings", "mlp", "scalar"])
@pytest.mark.parametrize("rows", [0, 1, 7])
def test_typed_contents_mean_the_same_as_raw_ones(client: Client, name: str, rows: int) -> None:
    feeds = by_name[name].feeds(np.random.default_rng(rows), rows)
    raw = client.response(make_request(name, feeds))
    assert client.response(typed_request(name, feeds)) == raw
    assert not any(tensor.HasField("contents") for tensor in raw.outputs), "answers are raw, whatever was sent"


def test_inputs_may_come_in_any_order(client: Client) -> None:
    feeds = by_name["mixed"].feeds(np.random.default_rng(1), 3)
    backwards = dict(reversed(feeds.items()))
    assert client.response(make_request("mixed", backwards)) == client.response(make_request("mixed", feeds))


@pytest.mark.parametrize("name", INTEGERS)
def test_integers_keep_both_ends_of_their_range(client: Client, name: str) -> None:
    info = np.iinfo(name)
    feeds = {f"{other}_in": np.zeros(2, dtype=other) for other in INTEGERS}
    feeds[f"{name}_in"] = np.array([info.min, info.max], dtype=name)
    for request in (make_request("integers", feeds), typed_request("integers", feeds)):
        assert client.infer(request)[f"{name}_out"].tolist() == [info.min, info.max]


@pytest.mark.parametrize(("name", "value"), [("int8", 128), ("int8", -129), ("uint16", 65_536), ("int16", 1 << 31 - 1)])
def test_a_typed_integer_beyond_its_datatype_is_refused_not_wrapped(client: Client, name: str, value: int) -> None:
    request = typed_request("integers", {f"{other}_in": np.zeros(1, dtype=other) for other in INTEGERS})
    (tensor,) = [tensor for tensor in request.inputs if tensor.name == f"{name}_in"]
    getattr(tensor.contents, CONTENTS[name.upper()])[0] = value
    refusal = client.refused(request)
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    info = np.iinfo(name)
    assert f"expected values in [{info.min}, {info.max}], got {value}" in refusal.message
    assert refusal.fields == [f"{name}_in"]


def test_floats_keep_their_bits(client: Client) -> None:
    """NaN with its payload, both zeros, infinities, and the smallest subnormal."""
    bits = np.array([0x7FC12345, 0x80000000, 0, 0x7F800000, 0xFF800000, 1, 0x7FC00000, 0xFFC00000], dtype=np.uint32)
    x = bits.view(np.float32).reshape(-1, 2)
    got = client.infer(make_request("anonymous_axis", {"x": x}))["y"]  # y = |x|
    assert got.tobytes() == np.abs(x).tobytes()


@pytest.mark.parametrize(("name", "dtype"), [("float16", np.float16), ("bfloat16", ml_dtypes.bfloat16)])
def test_half_floats_are_raw_only(client: Client, name: str, dtype: Any) -> None:
    x = draw(np.random.default_rng(2), dtype, (5, 3 if name == "float16" else 4))
    got = client.infer(make_request(name, {"x": x}))
    for output, expected in reference(session(built(name)), {"x": x}).items():
        assert got[output].dtype == expected.dtype
        assert got[output].tobytes() == expected.tobytes()
    typed = make_request(name, {"x": x})
    del typed.raw_input_contents[:]
    typed.inputs[0].contents.fp32_contents.extend(x.astype(np.float32).ravel().tolist())
    refusal = client.refused(typed)
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "raw_input_contents only" in refusal.message


def test_strings_that_are_not_utf8_are_refused_raw_and_typed(client: Client) -> None:
    good = np.array(["a", "b"], dtype=object)
    bad = np.array(["a", b"caf\xe9"], dtype=object)
    raw = make_request("strings", {"a": good, "b": good})
    raw.raw_input_contents[1] = raw_of(bad)
    typed = typed_request("strings", {"a": good, "b": good})
    typed.inputs[1].contents.bytes_contents[1] = b"caf\xe9"
    for request in (raw, typed):
        refusal = client.refused(request)
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
        assert "input 'b': element 1 is not UTF-8 (byte 3)" in refusal.message
        assert "base64" in refusal.message


def test_a_request_may_ask_for_some_outputs_in_its_own_order(client: Client) -> None:
    feeds = by_name["three_outputs"].feeds(np.random.default_rng(4), 3)
    expected = reference(session(built("three_outputs")), feeds)
    names = list(expected)
    for asked in ([names[2]], [names[1], names[0]], names[::-1]):
        got = client.infer(make_request("three_outputs", feeds, outputs=asked))
        assert list(got) == asked
        for name in asked:
            assert got[name].tobytes() == expected[name].tobytes()


def test_requests_for_different_outputs_do_not_mix(client: Client) -> None:
    feeds = [by_name["three_outputs"].feeds(np.random.default_rng(seed), 2) for seed in range(30)]
    expected = [reference(session(built("three_outputs")), one) for one in feeds]
    names = list(expected[0])
    futures = [
        client.stub.ModelInfer.future(
            make_request("three_outputs", one, outputs=[names[seed % 3]]), timeout=TIMEOUT_SECONDS
        )
        for seed, one in enumerate(feeds)
    ]
    for seed, future in enumerate(futures):
        got = answers(future.result())
        assert list(got) == [names[seed % 3]]
        np.testing.assert_allclose(got[names[seed % 3]], expected[seed][names[seed % 3]], rtol=1e-6)


@pytest.mark.parametrize("id", ["", "a", "id with spaces", "日本🚀", "x" * 5000, "nul\0in"])
def test_the_id_comes_back(client: Client, id: str) -> None:  # noqa: A002  (the protocol's own name)
    assert client.response(make_request("add_const", {"x": X}, id=id)).id == id


@pytest.mark.parametrize(("asked", "answered"), [("", 2), ("1", 1), ("10", 10), *LABELS.items()])
def test_headers_name_the_version_and_the_digest_that_answered(client: Client, asked: str, answered: int) -> None:
    response, call = client.stub.ModelInfer.with_call(
        make_request("versions", {"x": X}, version=asked), timeout=TIMEOUT_SECONDS
    )
    by = answered_by(dict(call.initial_metadata()))
    assert by.version == int(response.model_version) == answered
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", by.digest)
    np.testing.assert_array_equal(answers(response)["y"], X + np.float32(VERSIONS[answered]))


def test_versions_of_other_content_have_other_digests(client: Client) -> None:
    digests = set()
    for version in ("1", "2", "10"):
        _, call = client.stub.ModelInfer.with_call(make_request("versions", {"x": X}, version=version))
        digests.add(answered_by(dict(call.initial_metadata())).digest)
    assert len(digests) == 3


def test_metadata_of_any_kind_is_taken(client: Client) -> None:
    metadata = (
        ("x-text", "v"),
        ("x-data-bin", bytes(range(256))),
        ("x-text", "again"),
        ("authorization", "Basic eA=="),
    )
    assert client.infer(make_request("add_const", {"x": X}), metadata=metadata)["y"][0, 0] == 2


@pytest.mark.parametrize("algorithm", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_a_compressed_channel_and_a_compressed_call(gateway: Gateway, algorithm: grpc.Compression) -> None:
    x = np.zeros((5000, 4), dtype=np.float32)
    with grpc.insecure_channel(gateway.grpc, compression=algorithm) as channel:
        np.testing.assert_array_equal(Client(channel).infer(make_request("add_const", {"x": x}))["y"], x + 1)
    with channel_to(gateway.grpc) as channel:
        got = Client(channel).infer(make_request("add_const", {"x": x}), compression=algorithm)
        np.testing.assert_array_equal(got["y"], x + 1)


def test_large_messages_pass_up_to_the_limit_and_not_beyond(client: Client) -> None:
    """The limit here is 16 MiB; grpc's own of 4 MiB must not apply."""
    rows = 15 * 2**20 // 16
    x = np.arange(rows * 4, dtype=np.float32).reshape(rows, 4)
    np.testing.assert_array_equal(client.infer(make_request("add_const", {"x": x}))["y"], x + 1)
    beyond = np.zeros((17 * 2**20 // 16, 4), dtype=np.float32)
    refusal = client.refused(make_request("add_const", {"x": beyond}))
    assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert client.infer(make_request("add_const", {"x": X}))["y"][0, 0] == 2


@pytest.mark.parametrize("path", ["/inference.GRPCInferenceService/Nothing", "/a.B/C", "/", "/inference/日本"])
def test_unknown_methods_are_unimplemented(client: Client, path: str) -> None:
    unary: Any = client.channel.unary_unary(path)
    stream: Any = client.channel.stream_stream(path)
    for call in (
        lambda: unary(b"", timeout=TIMEOUT_SECONDS),
        lambda: list(stream(iter([b"a", b"b"]), timeout=TIMEOUT_SECONDS)),
    ):
        assert refused(call).code is grpc.StatusCode.UNIMPLEMENTED


def test_every_datatype_of_the_protocol_is_in_the_zoo(client: Client) -> None:
    """So that the suite's promise for each type holds."""
    seen = set()
    for name in by_name:
        metadata = client.stub.ModelMetadata(pb.ModelMetadataRequest(name=name), timeout=TIMEOUT_SECONDS)
        seen |= {tensor.datatype for tensor in (*metadata.inputs, *metadata.outputs)}
    assert seen == set(DATATYPES)
