"""`driftgate models`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

from canned_gateway import DIGEST, CannedGateway, duration, iris, without_colours
from click.testing import Result
from google.protobuf.json_format import ParseDict

from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

Driftgate = Callable[..., Result]
Terminal = Callable[..., str]
Run = Callable[..., subprocess.CompletedProcess[str]]
ESCAPE = "\x1b"


def _listing(*models: pb.Model) -> pb.ListModelsResponse:
    return pb.ListModelsResponse(models=models)


def test_a_model_is_shown_with_its_versions_signature_and_problems(
    gateway: CannedGateway, driftgate: Driftgate
) -> None:
    gateway.answers["ListModels"] = _listing(iris(problems=["model.yaml: batching: unknown"]))
    result = driftgate("models", "iris")
    assert gateway.request == pb.ListModelsRequest(model="iris")
    assert result.stdout.splitlines() == [
        "iris  policy latest(1); default newest",
        "  VERSION  STATE      SERVED AS        DIGEST          LOAD    MEMORY  BATCH  WORKERS",
        "        1  failed                      fedcba987654       -         -      -      0/2",
        "        2  available  default, stable  0123456789ab  820 ms  12.3 MiB     32      2/2",
        "    takes  X FP32[-1,30]",
        "    gives  label INT64[-1], probabilities FP32[-1,2]",
        "   reason  version 1: LOAD_FAILED: not an ONNX graph",
        "  warning  version 2: config.pbtxt: instance_group does not map",
        "  problem  model.yaml: batching: unknown",
    ]


def test_versions_that_differ_in_their_signature_are_told_apart(gateway: CannedGateway, driftgate: Driftgate) -> None:
    model = iris()
    model.versions[0].inputs[0].shape[:] = [-1, 29]
    model.versions[0].outputs.add(name="drift", datatype="FP64")
    gateway.answers["ListModels"] = _listing(model)
    lines = driftgate("models").stdout.splitlines()
    assert [line for line in lines if "takes" in line or "gives" in line] == [
        "    takes  version 1: X FP32[-1,29]",
        "    takes  version 2: X FP32[-1,30]",
        "    gives  version 1: label INT64[-1], probabilities FP32[-1,2], drift FP64[]",
        "    gives  version 2: label INT64[-1], probabilities FP32[-1,2]",
    ]


def test_verbose_shows_every_fact_with_the_digest_in_full(gateway: CannedGateway, driftgate: Driftgate) -> None:
    gateway.answers["ListModels"] = _listing(iris())
    _, _, version_2 = driftgate("models", "iris", "--verbose").stdout.partition("version 2\n")
    facts = [tuple(line.split(None, 1)) for line in version_2.replace("served as", "served-as").splitlines()]
    assert facts == [
        ("state", "available"),
        ("served-as", "default, stable"),
        ("digest", DIGEST),
        ("takes", "X FP32[-1,30]"),
        ("gives", "label INT64[-1]"),
        ("gives", "probabilities FP32[-1,2]"),
        ("loaded", "at   2025-06-15T15:06:40Z"),
        ("load", "820 ms"),
        ("memory", "12.3 MiB"),
        ("files", "1.5 KiB"),
        ("providers", "CPUExecutionProvider"),
        ("max", "batch   32"),
        ("workers", "2 of 2"),
        ("warning", "config.pbtxt: instance_group does not map"),
    ]


def test_json_is_the_whole_message_with_default_values_and_the_protos_names(
    gateway: CannedGateway, driftgate: Driftgate
) -> None:
    sent = _listing(iris())
    gateway.answers["ListModels"] = sent
    output = driftgate("models", "--json").stdout
    document = json.loads(output)
    first = document["models"][0]["versions"][0]
    assert document["models"][0]["versions"][1]["digest"] == DIGEST
    assert (first["is_default"], first["labels"], first["memory_bytes"], first["max_batch_size"]) == (False, [], "0", 0)
    assert ParseDict(document, pb.ListModelsResponse()) == sent
    assert output == json.dumps(document, indent=2, sort_keys=True) + "\n"


def test_a_model_that_is_not_served_says_so(gateway: CannedGateway, driftgate: Driftgate) -> None:
    gateway.answers["ListModels"] = _listing(iris(served=False, versions=[], default_target="stable", policy=""))
    assert driftgate("models").stdout == "iris  not served; policy -; default stable\n"


def test_no_models_is_an_answer_and_no_such_model_is_a_failure(gateway: CannedGateway, driftgate: Driftgate) -> None:
    gateway.answers["ListModels"] = _listing()
    everything, one = driftgate("models"), driftgate("models", "iris")
    assert (everything.exit_code, everything.stderr) == (0, "")
    assert everything.stdout.startswith("no models")
    assert (one.exit_code, one.stdout, one.stderr) == (1, "", "error: NOT_FOUND: the gateway knows no model 'iris'\n")


def test_text_from_the_wire_cannot_drive_the_terminal(gateway: CannedGateway, driftgate: Driftgate) -> None:
    hostile = f"{ESCAPE}]0;owned\x07[bold]x[/bold]\nforged line \u202egnp"
    model = iris(name=hostile, problems=[hostile], policy=hostile)
    for version in model.versions:
        version.reason = version.digest = hostile
        version.labels.append(hostile)
        version.inputs[0].name = version.inputs[0].datatype = hostile
        version.warnings.append(hostile)
        version.execution_providers.append(hostile)
    gateway.answers["ListModels"] = _listing(model)
    for flags in ([], ["--verbose"]):
        output = driftgate("models", *flags).stdout
        assert all(c.isprintable() or c == "\n" for c in output)
        assert not any(line.startswith("forged") for line in output.splitlines())
        assert r"\x1b]0;owned\x07[bold]x[/bold] forged line \u202egnp" in output


def test_a_state_newer_than_this_client_is_shown_by_its_number(gateway: CannedGateway, driftgate: Driftgate) -> None:
    model = iris()
    model.versions[0].state = 99  # type: ignore[assignment]
    gateway.answers["ListModels"] = _listing(model)
    assert "state 99" in driftgate("models").stdout


def test_nothing_is_cropped_in_a_pipe(gateway: CannedGateway, process: Run) -> None:
    warning = "w" * 500
    model = iris()
    model.versions[1].warnings[:] = [warning]
    model.versions[1].labels.extend(f"label-{number}" for number in range(40))
    gateway.answers["ListModels"] = _listing(model)
    done = process("models", "--admin", gateway.address, COLUMNS="80")
    assert (done.returncode, done.stderr) == (0, "")
    assert warning in done.stdout
    assert ", ".join(f"label-{number}" for number in range(40)) in done.stdout
    assert not any(line.endswith(" ") for line in done.stdout.splitlines())


def test_a_terminal_of_100_columns_gets_colours_and_whole_cells(gateway: CannedGateway, terminal: Terminal) -> None:
    model = iris()
    model.versions[1].version = 1_750_000_000
    model.versions[1].labels.append("champion")
    model.versions[0].state = pb.VERSION_STATE_WARMING_UP
    model.versions[0].load_duration.CopyFrom(duration(125))
    gateway.answers["ListModels"] = _listing(model)
    output = terminal(100, "models", "--admin", gateway.address)
    assert f"{ESCAPE}[32mavailable" in output
    lines = without_colours(output).splitlines()
    assert max(map(len, lines)) <= 100
    assert [" ".join(line.split()) for line in lines[2:5]] == [
        "1 warming up fedcba987654 2 min 5 s - - 0/2",
        "1750000000 available default, stable, 0123456789ab 820 ms 12.3 MiB 32 2/2",
        "champion",  # only this column is broken, between words
    ]
