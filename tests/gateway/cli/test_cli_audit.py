"""`driftgate audit`."""

from __future__ import annotations

import json
from collections.abc import Callable

from canned_gateway import DIGEST, CannedGateway, timestamp, without_colours
from click.testing import Result
from google.protobuf.json_format import ParseDict

from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

Driftgate = Callable[..., Result]

RECORDS = [
    pb.AuditRecord(
        id=12, time=timestamp(1_750_000_060), actor="loopback:ann", peer="ipv4:127.0.0.1:4000", action="load",
        model="iris", version=2, digest=DIGEST, outcome="done", detail="serves 2", reason="June's\ndata\x1b[0m",
    ),
    pb.AuditRecord(
        id=9, time=timestamp(1_750_000_000), actor="token:bob", action="default", model="iris", outcome="refused",
    ),
]  # fmt: skip


def test_records_are_a_table_newest_first(gateway: CannedGateway, driftgate: Driftgate) -> None:
    gateway.answers["ListAudit"] = pb.ListAuditResponse(records=RECORDS)
    result = driftgate("audit", "iris")
    assert gateway.request == pb.ListAuditRequest(model="iris", limit=100)
    assert result.stderr == ""
    assert result.stdout.splitlines() == [
        "ID  TIME                  ACTOR         ACTION   MODEL   OUTCOME  WHY",
        r"12  2025-06-15T15:07:40Z  loopback:ann  load     iris/2  done     June's data\x1b[0m; serves 2",
        " 9  2025-06-15T15:06:40Z  token:bob     default  iris    refused  -",
    ]


def test_a_full_page_names_where_the_next_begins(gateway: CannedGateway, driftgate: Driftgate) -> None:
    gateway.answers["ListAudit"] = pb.ListAuditResponse(records=RECORDS)
    result = driftgate("audit", "--limit", "2", "--before", "13")
    assert gateway.request == pb.ListAuditRequest(limit=2, before_id=13)
    assert result.stderr == "older ones: --before 9\n"


def test_json_holds_what_the_table_leaves_out(gateway: CannedGateway, driftgate: Driftgate) -> None:
    sent = pb.ListAuditResponse(records=RECORDS)
    gateway.answers["ListAudit"] = sent
    document = json.loads(driftgate("audit", "--json").stdout)
    assert document["records"][0]["digest"] == DIGEST
    assert document["records"][1]["peer"] == ""
    assert ParseDict(document, pb.ListAuditResponse()) == sent


def test_an_empty_audit_is_an_answer(gateway: CannedGateway, driftgate: Driftgate) -> None:
    gateway.answers["ListAudit"] = pb.ListAuditResponse()
    assert driftgate("audit").stdout == "no records\n"
    assert json.loads(driftgate("audit", "--json").stdout) == {"records": []}


def test_limits_that_the_gateway_would_refuse_are_usage_errors(gateway: CannedGateway, driftgate: Driftgate) -> None:
    codes = [
        driftgate("audit", *flags).exit_code for flags in (["--limit", "0"], ["--limit", "1001"], ["--before", "0"])
    ]
    assert codes == [2, 2, 2]
    assert gateway.asked == []


def test_a_terminal_of_100_columns_breaks_long_cells_and_crops_none(
    gateway: CannedGateway, terminal: Callable[..., str]
) -> None:
    record = pb.AuditRecord()
    record.CopyFrom(RECORDS[0])
    record.action, record.reason = "set label " + "q" * 63, "z" * 200
    gateway.answers["ListAudit"] = pb.ListAuditResponse(records=[record])
    shown = without_colours(terminal(100, "audit", "--admin", gateway.address))
    assert max(map(len, shown.splitlines())) <= 100
    assert (shown.count("q"), shown.count("z")) == (63, 200)
    assert "2025-06-15T15:07:40Z" in shown
