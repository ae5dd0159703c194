"""The servers that export, as the benchmark starts them: real processes, a real load, a real receiver."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.receiver import OtlpReceiver

from bench import cores, model
from bench.catalogue import ALL_ON, EXPORTING, SDK, ServerSpec, Site
from bench.generators import generator_of
from bench.model import Workload
from bench.probe import REPEATS, reply_bytes
from bench.process import free_ports, running
from bench.rounds import Bench, Plan

pytestmark = pytest.mark.process

SERVER = 2  # Span.SpanKind
EACH_ITS_OWN = ("duration", "port")
"""How the keys of attributes end whose values no two requests share."""


@pytest.fixture(scope="module")
def workload(tmp_path_factory: pytest.TempPathFactory) -> Workload:
    return model.build(tmp_path_factory.mktemp("bench"))


@pytest.mark.parametrize("spec", [EXPORTING, ALL_ON, SDK], ids=lambda spec: spec.key)
def test_a_sample_accounts_for_every_request(spec: ServerSpec, workload: Workload, tmp_path: Path) -> None:
    generator = generator_of("wire", workload, tmp_path)
    bench = Bench(workload, generator, cores.choose(), Plan((spec,), 1, 0.3, warm_up_seconds=0.1))

    sample = bench.sample(spec)

    exported = sample.exported
    assert exported is not None
    assert sample.errors == 0
    assert exported.recorded >= sample.many.burst.offered + sample.one.burst.offered + 4 * REPEATS
    assert (exported.server_spans, exported.lost) == (exported.recorded, 0)
    assert exported.data_points > 0
    assert (exported.run_spans > 0) == (exported.log_records > 0) == (spec is not SDK)
    assert 0 < sample.many.receiver_busy < sample.many.load_busy


def server_span(spec: ServerSpec, workload: Workload, folder: Path) -> Any:
    """The span of one of the probe's requests."""
    folder.mkdir()
    port, http_port, admin_port = free_ports(3)
    with OtlpReceiver() as receiver:
        site = Site(port, http_port, admin_port, workload.repository, workload.model_file, folder, receiver.grpc_port)
        with running(spec, site, cores.choose().server):
            reply_bytes(port, workload.request, partial(workload.objection, 0))
        spans = [span for span in receiver.spans if span.kind == SERVER]
    assert len(spans) == REPEATS
    return spans[0]


def test_the_sdks_spans_say_what_driftgates_spans_say(workload: Workload, tmp_path: Path) -> None:
    ours, theirs = (server_span(spec, workload, tmp_path / spec.key) for spec in (EXPORTING, SDK))

    assert {each.key for each in ours.attributes} == {each.key for each in theirs.attributes}
    values, others = (
        {each.key: each.value for each in span.attributes if not each.key.endswith(EACH_ITS_OWN)}
        for span in (ours, theirs)
    )
    assert values == others
    assert (ours.name, ours.status.code) == (theirs.name, theirs.status.code)
    for span in (ours, theirs):
        assert span.end_time_unix_nano > span.start_time_unix_nano
