"""A server that exports is believed only when every span is accounted for."""

import dataclasses

import pytest
from support.bursts import burst

from bench.catalogue import EXPORTING, SDK
from bench.exports import Recorded, Sent, objection, read_recorded, read_triton, summed_up
from bench.process import ServerFailed
from bench.receiver import Received
from bench.sample import Measurement

METRICS = """\
# TYPE driftgate_requests_total counter
driftgate_requests_total{driftgate_model_name="tabular",rpc_response_status_code="OK"} 1000.0
driftgate_requests_total{driftgate_model_name="",rpc_response_status_code="NOT_FOUND"} 3.0
# TYPE driftgate_request_in_flight gauge
driftgate_request_in_flight{driftgate_process="0"} 1.0
driftgate_request_in_flight{driftgate_process="1"} 2.0
# TYPE otel_sdk_processor_span_processed_total counter
otel_sdk_processor_span_processed_total{otel_component_name="batching_span_processor/0"} 900.0
otel_sdk_processor_span_processed_total{error_type="queue_full",otel_component_name="batching_span_processor/0"} 40.0
# TYPE otel_sdk_exporter_span_exported_total counter
otel_sdk_exporter_span_exported_total{otel_component_name="otlp_grpc_span_exporter/requests"} 850.0
otel_sdk_exporter_span_exported_total{error_type="rejected",otel_component_name="otlp_grpc_span_exporter/requests"} 20.0
otel_sdk_exporter_span_exported_total{error_type="failed",otel_component_name="otlp_grpc_span_exporter/requests"} 30.0
otel_sdk_exporter_span_exported_total{error_type="failed",otel_component_name="otlp_grpc_span_exporter/runs"} 7.0
# TYPE otel_sdk_processor_log_processed_total counter
otel_sdk_processor_log_processed_total{error_type="queue_full",otel_component_name="batching_log_processor/0"} 9.0
"""


def sent(requests: int, under_way: int = 0) -> Sent:
    found = Sent()
    found.add(requests)
    found.most += under_way
    return found


def recorded(requests: int, dropped: int = 0) -> Recorded:
    return Recorded(requests, dropped, in_flight=0)


def received(spans: int, *, data_points: int = 1, log_records: int = 1) -> Received:
    arrivals = ((9.0, spans // 4), (11.0, spans // 2), (13.0, spans - spans // 4 - spans // 2))
    return Received(
        server_spans=spans,
        repeated_spans=0,
        other_spans=0,
        data_points=data_points,
        log_records=log_records,
        exports=3,
        bytes=1000,
        arrivals=arrivals,
    )


def test_requests_and_dropped_spans_are_read_from_the_metrics() -> None:
    """A full queue, a failure and a rejection lose spans of requests; spans of runs and log records are not these."""
    assert read_recorded(METRICS) == Recorded(requests=1003, dropped=90, in_flight=3)


def test_tritons_statistics_count_what_was_answered_and_what_failed() -> None:
    text = """{"model_stats": [
        {"inference_count": 2000, "inference_stats": {"success": {"count": 1000}, "fail": {"count": 2}}},
        {"inference_count": 5, "inference_stats": {"success": {"count": 5}, "fail": {"count": 0}}}
    ]}"""
    assert read_triton(text) == Recorded(requests=1007, dropped=0, in_flight=0)


def test_a_server_that_exports_traces_alone_owes_no_metrics() -> None:
    traced = dataclasses.replace(SDK, exports_metrics=False)

    assert objection(traced, sent(1000), recorded(1000), received(900, data_points=0, log_records=0)) is None
    assert objection(SDK, sent(1000), recorded(1000), received(900, data_points=0)) is not None


def test_metrics_that_count_no_requests_are_refused() -> None:
    with pytest.raises(ServerFailed, match="driftgate_requests_total"):
        read_recorded("# TYPE other gauge\nother 1\n")


def test_an_orderly_burst_says_exactly_what_a_server_was_sent() -> None:
    found = Sent()
    found.add(3)
    found.add_burst(burst(requests=1000))

    assert (found.least, found.most) == (1003, 1003)


def test_a_burst_leaves_open_whether_what_failed_or_was_under_way_at_its_end_arrived() -> None:
    found = Sent()
    found.add_burst(burst(requests=1000, failed=5, undecided=64))

    assert (found.least, found.most) == (1000, 1069)


def test_spans_that_all_arrive_leave_nothing_to_object() -> None:
    assert objection(EXPORTING, sent(1000), recorded(1000), received(1000)) is None


def test_spans_counted_as_dropped_are_accounted_for() -> None:
    assert objection(EXPORTING, sent(1000), recorded(1000, dropped=30), received(970)) is None


@pytest.mark.parametrize(("spans", "dropped"), [(999, 0), (970, 29), (970, 31), (1000, 1)])
def test_a_span_neither_received_nor_counted_as_dropped_fails_the_row(spans: int, dropped: int) -> None:
    complaint = objection(EXPORTING, sent(1000), recorded(1000, dropped), received(spans))

    assert complaint is not None
    assert "1,000 requests" in complaint
    assert f"{dropped:,} were counted as dropped" in complaint


@pytest.mark.parametrize("count", [989, 1065])
def test_a_record_of_other_requests_than_the_load_made_fails_the_row(count: int) -> None:
    complaint = objection(EXPORTING, sent(990, under_way=74), recorded(count), received(count))

    assert complaint is not None
    assert "the load made 990 to 1,064" in complaint


@pytest.mark.parametrize("spec", [EXPORTING, SDK], ids=lambda spec: spec.key)
def test_a_receiver_that_gets_no_span_fails_the_row_even_where_all_were_counted_as_dropped(spec) -> None:
    assert objection(spec, sent(10), recorded(10, dropped=10), received(0)) == "no span of a request arrived"


def test_more_spans_than_requests_fail_the_row() -> None:
    assert objection(SDK, sent(10), recorded(10), received(11)) == "11 requests' spans arrived of 10 requests"


def test_a_server_that_counts_no_drops_loses_what_did_not_arrive() -> None:
    many = Measurement(burst(requests=500), 10.0, 12.0, 0, 0.9, 0.2, 0.1, 0.0, 1.0)

    assert objection(SDK, sent(1000), recorded(1000), received(800, log_records=0)) is None
    exported = summed_up(recorded(1000), received(800), many)
    assert (exported.recorded, exported.server_spans, exported.lost) == (1000, 800, 200)


def test_spans_in_time_are_those_received_while_the_load_ran() -> None:
    many = Measurement(burst(requests=500), 10.0, 12.0, 0, 0.9, 0.2, 0.1, 0.0, 1.0)

    assert summed_up(recorded(1000), received(1000), many).in_time_64 == 1.0


def test_metrics_are_owed_by_both_and_log_records_by_the_one_that_exports_them() -> None:
    one = (sent(1), recorded(1))

    assert objection(SDK, *one, received(1, log_records=0)) is None
    assert objection(EXPORTING, *one, received(1, log_records=0)) == "no log record arrived"
    for spec in (EXPORTING, SDK):
        assert objection(spec, *one, received(1, data_points=0)) == "no data point of a metric arrived"


def test_a_span_that_arrived_between_two_moments_is_counted_by_its_export() -> None:
    found = dataclasses.replace(received(0), arrivals=((1.0, 5), (2.0, 7), (3.0, 11)))

    assert found.between(2.0, 3.0) == 7
    assert found.between(0.0, 9.0) == 23
