"""A real MLflow gets what is sampled of the traffic and nothing else, and its page shows where a request's time went.

DRIFTGATE_PICTURES: a folder for the picture of that page.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased
from receivers_backends import HTTP, Mlflow
from receivers_checks import agree, requests_of, runs_of
from receivers_client import Asked, TracedClient
from receivers_picture import Picture
from receivers_tools import MLFLOW, needs
from support.admin import until
from support.browser import Browser, needs_chromium
from support.gateway import Gateway
from zoo import versioned, write_version

from gateway.telemetry.conventions import INFER_METHOD, RUN_SPAN_NAME

pytestmark = [pytest.mark.process, pytest.mark.receivers, needs(MLFLOW)]

RATIO = 0.15
AT_ONCE = 200
OF_EACH = 3  # requests whose caller has decided
MODEL = "churn"
SIZE = (1280, 720)
LAST = "driftgate.output.duration"  # of a span's attributes
DIFFERENT_ROWS = 200  # of the picture's, at least: a page that is blank, or a plain form, has fewer


@dataclass
class Kept:
    """What the client asked, and the MLflow that was told of a part of it."""

    asked: list[Asked]
    mlflow: Mlflow

    @property
    def sampled(self) -> list[Asked]:
        return [one for one in self.asked if one.sampled]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    folder = tmp_path_factory.mktemp("page")
    write_version(folder / "models", MODEL, 1, versioned(1.0))
    (folder / "mlflow").mkdir()
    with Mlflow(folder / "mlflow") as mlflow:
        sampler = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": str(RATIO)}
        environment = mlflow.settings(HTTP) | sampler
        with (
            Gateway(folder / "models", folder / "state", environment=environment, workers=2) as gateway,
            TracedClient(gateway.grpc, f"http://{mlflow.http}/v1/traces", mlflow.headers) as client,
        ):
            asked = client.ask_at_once(MODEL, AT_ONCE)
            for number in range(OF_EACH):
                asked.append(client.ask(MODEL, f"order-{number}", rows=1 + number))
                asked.append(client.ask(MODEL, f"unseen-{number}", sampled=False))
        # The gateway has ended, so what it exports has been exported.
        found = Kept(asked, mlflow)
        until(lambda: len(requests_of(mlflow.spans())) >= len(found.sampled), f"{len(found.sampled)} requests")
        yield found


def test_the_requests_that_the_gateway_called_sampled_have_come_and_no_others(kept: Kept) -> None:
    agree(kept.asked, kept.mlflow.spans())
    runs = runs_of(kept.mlflow.spans())
    assert kept.mlflow.traces() == {one.trace_id for one in kept.sampled} | {run.trace_id for run in runs}
    ids = {one.span_id for one in kept.sampled}
    for run in runs:
        members = {span_id for _, span_id in run.links} or {run.parent_id}
        assert members <= ids


def test_what_is_sampled_is_what_an_opentelemetry_sdk_would_sample(kept: Kept) -> None:
    sampler, decided = TraceIdRatioBased(RATIO), set()
    for one in kept.asked:
        if one.parent_id:
            assert one.sampled == one.request_id.startswith("order"), "the caller has decided"
        else:
            decision = sampler.should_sample(None, int(one.trace_id, 16), INFER_METHOD).decision
            assert one.sampled == (decision is Decision.RECORD_AND_SAMPLE)
            decided.add(decision)
    assert len(decided) == 2


@needs_chromium
def test_the_page_shows_which_model_answered_a_request_and_where_its_time_went(kept: Kept, tmp_path: Path) -> None:
    one = next(one for one in kept.asked if one.request_id == f"order-{OF_EACH - 1}")
    with Browser(tmp_path, *SIZE) as browser:
        browser.open(kept.mlflow.page(one.trace_id))
        browser.click("[aria-label='Full screen']")
        browser.click(f"[data-testid='span-text-block-{one.span_id}']")
        browser.click("button", "Pretty")  # form of the attributes; this one leaves room for a third of them
        browser.click("[role='menuitemradio']", "YAML")
        shown = browser.wait_for(f"document.body.innerText.includes({LAST!r}) && document.body.innerText")
        assert {INFER_METHOD, RUN_SPAN_NAME} <= {*shown.splitlines()}
        assert {f"driftgate.model.name: {MODEL}", f"driftgate.request.rows: {one.rows}"} <= {*shown.splitlines()}
        png = browser.picture()
    picture = Picture.of(png)
    assert (picture.width, picture.height) == SIZE
    assert len(set(picture.rows)) >= DIFFERENT_ROWS
    if folder := os.environ.get("DRIFTGATE_PICTURES"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / "trace-in-mlflow.png").write_bytes(png)
