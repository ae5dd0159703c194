"""Trace context: what comes in is read as OpenTelemetry's propagators read it, what goes back names the span."""

from __future__ import annotations

import threading

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry import baggage as otel_baggage
from opentelemetry import trace as otel_trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.sdk.trace import sampling
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gateway.telemetry.context import IDS_AT_ONCE, Trace, Tracer, fitting, members_of, valid_state
from gateway.telemetry.sampler import Sampler
from runtime.shm.record_layout import TEXT_BYTES, Mark

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
BOTH = ("tracecontext", "baggage")
HEX = "0123456789abcdef"


def tracer(name: str = "parentbased_always_on", ratio: float = 1.0, **more: object) -> Tracer:
    return Tracer(Sampler.named(name, ratio), more.pop("propagators", BOTH), respond=True, **more)  # type: ignore[arg-type]


def begin(some: Tracer, metadata: object = ()) -> Trace:
    return some.whole(some.begin(metadata))  # type: ignore[arg-type]


def headers_of(trace: Trace) -> dict[str, str]:
    return dict(trace.trailers)


def test_a_request_with_a_parent_joins_its_trace_with_a_span_of_its_own() -> None:
    trace = begin(tracer(), [("user-agent", "x"), ("traceparent", PARENT)])
    assert trace.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    assert trace.parent_id.hex() == "b7ad6b7169203331"
    assert trace.span_id not in (trace.parent_id, bytes(8))
    assert trace.sampled
    assert trace.marks & Mark.PARENT
    assert headers_of(trace) == {"traceparent": f"00-{trace.trace_id.hex()}-{trace.span_id.hex()}-01"}


def test_a_request_without_a_parent_begins_a_trace() -> None:
    first, second = begin(tracer(), [("user-agent", "x")]), begin(tracer(), [])
    assert first.trace_id != second.trace_id
    assert first.parent_id == b""
    assert first.sampled
    assert headers_of(first)["traceparent"] == f"00-{first.trace_id.hex()}-{first.span_id.hex()}-01"


@pytest.mark.parametrize(
    "header",
    [
        "",
        PARENT.upper(),
        PARENT[:-1],
        PARENT + "-00",
        PARENT + " ",
        "ff" + PARENT[2:],
        "00-" + "0" * 32 + PARENT[35:],
        PARENT[:36] + "0" * 16 + "-01",
        PARENT.replace("-", "_"),
        PARENT.replace("a", "g"),
    ],
)
def test_a_wrong_parent_begins_a_trace_instead(header: str) -> None:
    trace = begin(tracer(), [("traceparent", header), ("tracestate", "a=1")])
    assert trace.parent_id == b""
    assert trace.trace_id.hex() != PARENT[3:35]
    assert trace.state_bytes == 0


def test_two_parents_are_no_parent() -> None:
    assert begin(tracer(), [("traceparent", PARENT), ("traceparent", PARENT)]).parent_id == b""


def test_a_later_version_is_read_by_its_beginning() -> None:
    assert begin(tracer(), [("traceparent", "42" + PARENT[2:] + "-more")]).parent_id.hex() == PARENT[36:52]


hexes = st.text(HEX + "AFg-", max_size=34)


@settings(max_examples=300, deadline=None)
@example(PARENT)
@given(
    st.one_of(
        st.builds("{}-{}-{}-{}".format, *(st.text(HEX, min_size=n, max_size=n) for n in (2, 32, 16, 2))),
        st.builds("00-{}-{}-{}{}".format, hexes, hexes, hexes, st.sampled_from(["", "-", "-x"])),
    )
)
def test_parents_are_taken_as_opentelemetry_takes_them(header: str) -> None:
    context = TraceContextTextMapPropagator().extract({"traceparent": header})
    theirs = otel_trace.get_current_span(context).get_span_context()
    ours = begin(tracer(), [("traceparent", header)])
    if header.count("-") == 3 and header.startswith("00-"):
        assert theirs.is_valid == bool(ours.parent_id)
    if theirs.is_valid and ours.parent_id:
        assert (ours.trace_id, ours.parent_id) == (theirs.trace_id.to_bytes(16), theirs.span_id.to_bytes(8))
        assert ours.sampled == theirs.trace_flags.sampled


@pytest.mark.parametrize("name", ["always_on", "always_off", "traceidratio"])
@pytest.mark.parametrize("parent_based", [False, True])
@settings(max_examples=60, deadline=None)
@given(trace_id=st.binary(min_size=16, max_size=16).filter(any), flags=st.sampled_from([None, "00", "01"]))
@example(trace_id=bytes(8) + (2**62).to_bytes(8), flags=None)
@example(trace_id=bytes(8) + (2**62 - 1).to_bytes(8), flags="00")
def test_the_sampler_decides_as_opentelemetrys(
    name: str, parent_based: bool, trace_id: bytes, flags: str | None
) -> None:
    root = {
        "always_on": sampling.ALWAYS_ON,
        "always_off": sampling.ALWAYS_OFF,
        "traceidratio": sampling.TraceIdRatioBased(0.25),
    }[name]
    theirs = sampling.ParentBased(root) if parent_based else root
    context = None
    if flags is not None:
        header = f"00-{trace_id.hex()}-b7ad6b7169203331-{flags}"
        context = TraceContextTextMapPropagator().extract({"traceparent": header})
    expected = theirs.should_sample(context, int.from_bytes(trace_id), "s").decision.is_sampled()
    ours = Sampler.named(f"parentbased_{name}" if parent_based else name, 0.25)
    assert (ours.root(trace_id) if flags is None else ours.child(trace_id, int(flags, 16))) == expected


def test_what_a_sampler_leaves_out_still_has_ids_and_says_so_to_the_client() -> None:
    trace = begin(tracer("always_off"), [("traceparent", PARENT)])
    assert not trace.sampled
    assert headers_of(trace)["traceparent"].endswith("-00")
    assert not begin(tracer(), [("traceparent", PARENT[:-1] + "0")]).sampled
    assert begin(tracer("always_on"), [("traceparent", PARENT[:-1] + "0")]).sampled


def test_a_ratio_samples_its_share_of_new_traces() -> None:
    """The same as OpenTelemetry's SDK would, by the trace's id."""
    some = tracer("parentbased_traceidratio", 0.25)
    theirs = TraceIdRatioBased(0.25)
    begun = [begin(some) for _ in range(20_000)]
    assert 0.23 < sum(trace.sampled for trace in begun) / len(begun) < 0.27
    for trace in begun[:1000]:
        wanted = theirs.should_sample(None, int.from_bytes(trace.trace_id), "").decision.is_sampled()
        assert trace.sampled == wanted == headers_of(trace)["traceparent"].endswith("1")


def test_ids_never_repeat_whichever_thread_takes_them() -> None:
    shared = tracer()
    taken: list[tuple[bytes, bytes]] = []

    def take() -> None:
        for _ in range(20 * IDS_AT_ONCE):
            trace_id, span_id, header = shared.new_id()
            assert header.decode() == f"00-{trace_id.hex()}-{span_id.hex()}-01"
            taken.append((trace_id, span_id))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({trace for trace, _ in taken}) == len({span for _, span in taken}) == len(taken) == 80 * IDS_AT_ONCE


def test_the_state_of_the_trace_is_kept_and_passed_back() -> None:
    trace = begin(tracer(), [("traceparent", PARENT), ("tracestate", "dd=s:1;t:2 , es=x"), ("tracestate", "k@v=3")])
    assert trace.text[: trace.state_bytes] == b"dd=s:1;t:2,es=x,k@v=3"
    assert headers_of(trace)["tracestate"] == "dd=s:1;t:2,es=x,k@v=3"


@pytest.mark.parametrize("state", ["a", "a=1,a=2", "A=1", "a=1,=2", "a=\x01", ",".join(f"k{n}=1" for n in range(33))])
def test_a_wrong_state_is_left_out(state: str) -> None:
    assert valid_state(state) == ""
    assert begin(tracer(), [("traceparent", PARENT), ("tracestate", state)]).state_bytes == 0


@given(st.lists(st.tuples(st.text("abc", min_size=1), st.text("xyz", min_size=1, max_size=60)), max_size=12))
def test_a_long_state_loses_whole_members_from_the_right(members: list[tuple[str, str]]) -> None:
    state = ",".join(f"{key}={value}" for key, value in members)
    kept = fitting(state)
    assert len(kept) <= TEXT_BYTES
    assert state.encode().startswith(kept)
    assert set(kept.decode().split(",")) <= {*state.split(","), ""}
    if len(state) <= TEXT_BYTES:
        assert kept.decode() == state


def test_baggage_goes_back_and_chosen_members_become_attributes() -> None:
    header = "tenant=acme%20inc;meta=1,user=7"
    some = tracer(baggage_keys=("tenant", "absent"), first_key=5)
    trace = begin(some, [("traceparent", PARENT), ("tracestate", "a=1"), ("baggage", header)])
    assert headers_of(trace)["baggage"] == header
    assert trace.text == b"a=1" + bytes((5, 8)) + b"acme inc"
    assert (trace.state_bytes, trace.extra_bytes) == (3, 10)


@given(st.dictionaries(st.text("abcxyz", min_size=1), st.text(max_size=20), max_size=5))
def test_baggage_is_read_as_opentelemetry_writes_it(members: dict[str, str]) -> None:
    context = None
    for key, value in members.items():
        context = otel_baggage.set_baggage(key, value, context)
    carrier: dict[str, str] = {}
    W3CBaggagePropagator().inject(carrier, context)
    written = W3CBaggagePropagator().extract(carrier)
    header = carrier.get("baggage", "").replace("+", "%20")
    ours = members_of(header, members)  # spaces are theirs; the standard has %20
    assert {key: value.strip() for key, value in ours} == {
        key: str(value).strip() for key, value in otel_baggage.get_all(written).items()
    }


def test_chosen_metadata_becomes_attributes_with_or_without_a_parent() -> None:
    trace = begin(tracer(metadata_keys=("X-Tenant",), first_key=2), [("x-tenant", "a"), ("x-tenant", "b")])
    assert trace.text == bytes((2, 3)) + b"a,b"


def test_an_attribute_without_room_is_cut_at_a_character_and_marked() -> None:
    trace = begin(tracer(), [])
    trace.add(0, "é" * 100)
    assert len(trace.text) <= TEXT_BYTES
    assert trace.text[2:].decode() == "é" * 79
    assert trace.marks & Mark.TEXT_CUT
    before = trace.text
    trace.add(1, "more")
    assert trace.text == before


@pytest.mark.parametrize("metadata_keys", [(), ("traceparent", "tracestate", "baggage")])
def test_propagators_that_are_off_read_and_write_nothing(metadata_keys: tuple[str, ...]) -> None:
    """Also where their headers are attributes."""
    off = tracer(propagators=(), metadata_keys=metadata_keys, baggage_keys=("a",))
    trace = begin(off, [("traceparent", PARENT[:-1] + "0"), ("tracestate", "b=2"), ("baggage", "a=1")])
    assert (trace.parent_id, trace.state_bytes, trace.sampled, headers_of(trace)) == (b"", 0, True, {})
    assert (trace.extra_bytes > 0) == bool(metadata_keys)
    one = tracer(propagators=("tracecontext",), metadata_keys=metadata_keys, baggage_keys=("a",))
    trace = begin(one, [("traceparent", PARENT), ("baggage", "a=1")])
    assert headers_of(trace).keys() == {"traceparent"}


def test_of_a_list_without_end_only_its_beginning_is_read() -> None:
    some = tracer(baggage_keys=("a", "z"), first_key=5)
    trace = begin(some, [("baggage", "a=1,a=2," + "b=3," * 5000 + "z=9")])
    assert trace.text == bytes((5, 1)) + b"1"
    assert valid_state("," * 16_000 + "a=1") == ""
    assert valid_state(",".join(f"k{n}=1" for n in range(32))).count(",") == 31
