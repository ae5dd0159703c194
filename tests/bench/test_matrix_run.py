"""A section runs whole: real servers, real calls, the limit in a process of its own."""

import json
import os
from pathlib import Path

import pytest

from bench import cores
from bench.matrix import tables
from bench.matrix.case import Case, Claim, Setting, Step, ratio
from bench.matrix.interleaved import Interleaved
from bench.matrix.memory import look, watched
from bench.matrix.servers import AIO_ONNX, QUEUE_ECHO
from bench.matrix.workload import workload, write
from bench.sample import Load


@pytest.mark.process
def test_a_section_measures_its_cases_in_rounds_and_judges_its_claims(tmp_path: Path) -> None:
    def cases(folder: Path) -> tuple[Case, ...]:
        subject = tables.strings()
        graph = write(subject, folder / "models")
        steps = (
            Step("closed", "closed", workload(subject, 3), Load(2, 2)),
            Step("half", "half", workload(subject, 3), Load(2, 8), share=0.5),
        )
        where = folder / "models", graph
        return (
            Case("aio", "grpc.aio + onnxruntime", AIO_ONNX, *where, steps, against="limit"),
            Case("echo", "echo", QUEUE_ECHO, *where, steps, against="limit"),
            Case("limit", "ONNX Runtime in a loop", None, *where, steps[:1]),
        )

    lines: list[str] = []
    section = Interleaved(
        "small", "a small one", cases, (Claim("any", ratio(("aio", "closed"), ("echo", "closed")), 0),)
    )
    setting = Setting(tmp_path, cores.choose(), 2, 0.1, 0.05, 0.0, lines.append)
    with cores.pinned(setting.cores.load):
        outcome = section.run(setting)

    assert not outcome.failed, lines
    document = json.loads(json.dumps(outcome.document))
    assert {(row["case"], row["step"]) for row in document["rows"]} == {
        ("aio", "closed"),
        ("aio", "half"),
        ("echo", "closed"),
        ("echo", "half"),
        ("limit", "closed"),
    }
    assert len(document["rounds"]) == 2
    assert document["claims"][0]["holds"]
    assert len(outcome.tables) == 2


def test_a_watcher_looks_at_memory_until_it_is_ended() -> None:
    with watched(os.getpid(), 0.05) as looks:
        here = look(os.getpid())

    assert here.total_bytes > 0
    assert looks.taken
    assert all(each.total_bytes > 0 for each in looks.taken)
