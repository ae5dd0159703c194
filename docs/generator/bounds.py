"""The tables of docs/how-to/limits.md: every bound with its value, read from the code that applies it."""

from __future__ import annotations

from gateway import link, messages
from gateway.config import Config, Drain, Limits, Restart, Statistics, Telemetry
from gateway.control import (
    admin,
    changes,
    drift_budget,
    drift_history,
    events,
    fleet,
    preparation,
    rollout_admin,
    rollout_replay,
)
from gateway.control import main as control
from gateway.supervisor import log_relay, ports, restart
from gateway.supervisor import main as supervisor
from gateway.traffic_settings import ShadowSettings
from gateway.wire import encode, layout
from gateway.worker import health, observer, streams
from gateway.worker.transport import queue
from generator.markdown import NOTHING, code, number, size, table
from runtime.batching import runner
from runtime.onnx import warmup
from runtime.profile.levels import Levels
from runtime.repository import document, graph, manifest, source
from runtime.repository import layout as repository_layout
from runtime.repository.statistics_settings import StatisticsSettings
from runtime.shadow import ring_layout as copy_layout
from runtime.shm import panes_layout, record_layout, ring_layout, series_layout, statistics_layout
from runtime.versions import manager

HEADERS = ("bound", "value", "set by", "at the bound")
FIXED = "fixed"
LEVELS = Levels(Statistics().pane_seconds, Statistics().windows_seconds)

Row = tuple[str, str, str, str]


def requests() -> str:
    """What a client can fill."""
    limits, batching = Limits.model_fields, manifest.BatchingSettings.model_fields
    return _table(
        (
            "requests in flight in a worker",
            number(limits["max_in_flight"].default),
            code("limits.max_in_flight"),
            "RESOURCE_EXHAUSTED with RetryInfo",
        ),
        (
            "requests that wait for one version in a worker",
            number(batching["max_queue_requests"].default),
            code("batching.max_queue_requests"),
            "RESOURCE_EXHAUSTED with RetryInfo",
        ),
        (
            "one request message",
            size(limits["max_message_bytes"].default),
            code("limits.max_message_bytes"),
            "RESOURCE_EXHAUSTED from gRPC's core, without details",
        ),
        (
            "metadata of one request",
            size(limits["max_metadata_bytes"].default),
            code("limits.max_metadata_bytes"),
            "RESOURCE_EXHAUSTED from gRPC's core, without details",
        ),
        (
            "RPCs at once on one connection",
            number(limits["max_concurrent_streams"].default),
            code("limits.max_concurrent_streams"),
            "the client's gRPC library holds further ones back",
        ),
        (
            "rows of one request",
            "none, or as configured",
            code("batching.max_batch_size"),
            "INVALID_ARGUMENT where it is configured; else a larger request runs alone",
        ),
        (
            "rows that requests share in one run",
            number(warmup.DEFAULT_MAX_ROWS),
            code("batching.max_batch_size"),
            "the rest forms the next run",
        ),
        (
            "requests of one stream in flight",
            number(streams.MAX_IN_FLIGHT),
            FIXED,
            "the stream is not read on until an answer has been made",
        ),
        (
            "health watches in a worker",
            number(health.MAX_WATCHES),
            FIXED,
            "RESOURCE_EXHAUSTED with RetryInfo",
        ),
        (
            "clients that wait for control through one worker (index, load, unload)",
            number(link.MAX_REQUESTS),
            FIXED,
            "UNAVAILABLE",
        ),
        (
            "events drained at once by a receiving thread",
            number(queue.MAX_DRAINED_EVENTS),
            FIXED,
            "what is ready is answered first",
        ),
        (
            "ModelInfer calls posted to gRPC's core",
            number(queue.POSTED_INFER_CALLS),
            FIXED,
            "further calls wait in the core",
        ),
        (
            "a run inline on a receiving thread",
            f"{runner.INLINE_LIMIT_NS / 1e6:g} ms",
            FIXED,
            f"after {runner.SLOW_RUNS} longer runs in a row the version gets threads of its own",
        ),
        (
            "a run that no client waits for any more",
            f"{manager.LONG_NS / 1e6:g} ms",
            FIXED,
            "it is stopped between two nodes of the graph",
        ),
        (
            "memory for what a worker measures",
            size(Statistics.model_fields["max_bytes_per_worker"].default),
            code("statistics.max_bytes_per_worker"),
            "a version that finds no room is not measured, and counted; [what a feature takes](../statistics.md)",
        ),
        (
            "copies for shadows that wait, of a worker",
            size(ShadowSettings.model_fields["queue_bytes_per_worker"].default),
            code("shadow.queue_bytes_per_worker"),
            "further ones are thrown away, and counted; [how copies travel](../copies.md)",
        ),
        (
            "how long a copy waits, or is run",
            f"{ShadowSettings.model_fields['late_seconds'].default:g} s",
            code("shadow.late_seconds"),
            "it is thrown away, and counted",
        ),
        (
            "pairs of versions that a worker copies for",
            number(copy_layout.PAIRS),
            FIXED,
            "further ones are not copied; the log says so",
        ),
        (
            "rows that are [replayed](../rollouts.md#a-replay) for a step",
            number(rollout_replay.MAX_ROWS),
            FIXED,
            "a uniform sample is",
        ),
        ("versions measured in a worker", number(panes_layout.SLOTS), FIXED, "as above"),
        (
            "columns of a version measured one by one",
            number(StatisticsSettings.model_fields["max_features"].default),
            code("statistics.max_features") + " in model.yaml",
            "of wider inputs a sample is, and a summary of each row",
        ),
        ("rows put aside before they are measured", number(observer.FEW_ROWS), FIXED, "they are measured"),
        (
            "panes of a version in its windows",
            f"{number(LEVELS.panes)}, and one under way in each window",
            code("statistics.windows_seconds"),
            "older ones are merged, and dropped in the end",
        ),
        ("processor time of looks for drift", f"{drift_budget.SHARE:.0%} of a core", FIXED, "the next look waits"),
        ("looks remembered of a version", number(drift_history.MAX_LOOKS), FIXED, "the oldest is forgotten"),
        (
            "remembered layouts of requests",
            number(layout.MAX_KEYS * layout.MAX_LAYOUTS_PER_KEY),
            FIXED,
            "others are parsed in full, which is slower",
        ),
        (
            "remembered shapes of answers of a version",
            number(encode.MAX_CACHED_HEADERS),
            FIXED,
            "they are forgotten and learned anew",
        ),
    )


def models() -> str:
    """What a repository can fill."""
    warm = manifest.WarmupSettings.model_fields
    return _table(
        ("model.yaml, config.pbtxt", size(document.DOCUMENT_LIMIT_BYTES), FIXED, "the model is refused"),
        ("problems named of one model.yaml", number(manifest.PROBLEMS_LIMIT), FIXED, "the others are not listed"),
        (
            "rows that max_batch_size may name",
            number(manifest.BATCH_LIMIT_ROWS),
            FIXED,
            "model.yaml is refused; config.pbtxt is taken as this",
        ),
        ("versions' numbers", number(repository_layout.VERSION_LIMIT), FIXED, "the folder is no version"),
        ("files of a version", number(source.FILES_LIMIT), FIXED, "the version is incomplete"),
        ("folders inside a version's", f"{source.DEPTH_LIMIT} deep", FIXED, "the version is incomplete"),
        ("external data files of a graph", number(graph.FILES_LIMIT), FIXED, "the version is incomplete"),
        ("nesting of a graph", number(graph.NESTING_LIMIT), FIXED, "the version is incomplete"),
        (
            "looks at a version whose files still change",
            number(repository_layout.SETTLE_ROUNDS),
            FIXED,
            "the version is incomplete, and tried again at the next load",
        ),
        (
            "a warm-up",
            f"{warm['limit_seconds'].default:g} s",
            code("warmup.limit_seconds"),
            "it is stopped, and the load fails",
        ),
        (
            "a load on one worker",
            f"{preparation.LOAD_SECONDS:g} s",
            FIXED,
            "the load fails with UNAVAILABLE; nothing has changed",
        ),
        (
            "tries of a load that ends its worker",
            number(preparation.TRIES),
            FIXED,
            "the load fails; nothing has changed",
        ),
        ("runs of a version that is being retired", f"{manager.DRAIN_LIMIT_SECONDS:g} s", FIXED, "they are stopped"),
        (
            "versions in a worker with counters for ModelStatistics",
            number(statistics_layout.SLOTS),
            FIXED,
            "a new one takes the place of one not served any more; else `driftgate_statistics_lost_versions_total`",
        ),
        (
            "batch sizes of a version with statistics of their own",
            number(statistics_layout.BATCH_SIZES),
            FIXED,
            "further sizes are in the totals only",
        ),
    )


def operators() -> str:
    """What operators' clients can fill."""
    return _table(
        ("watchers", number(events.MAX_WATCHERS), FIXED, "RESOURCE_EXHAUSTED with RetryInfo"),
        (
            "events that wait for one watcher",
            number(events.MAX_WAITING),
            FIXED,
            "further ones are lost; the next event says how many",
        ),
        ("records in one audit page", number(admin.MAX_AUDIT), FIXED, "INVALID_ARGUMENT"),
        ("rollouts, or decisions, in one answer", number(rollout_admin.MAX_ROLLOUTS), FIXED, "INVALID_ARGUMENT"),
        (
            "bytes of such an answer",
            number(rollout_admin.MAX_ANSWER_BYTES),
            FIXED,
            "it ends there; the rest is asked for anew",
        ),
        ("a change's reason", f"{number(admin.MAX_TEXT)} characters", FIXED, "the rest is cut off"),
        ("records in the audit", "none", NOTHING, "the database grows with each change"),
    )


def processes() -> str:
    """What the processes owe each other."""
    drain, again, config = Drain.model_fields, Restart.model_fields, Config.model_fields
    return _table(
        ("processes", "workers + 3", code("workers"), f"at most {_most(config['workers'])} workers"),
        (
            "service after health has flipped",
            f"{drain['delay_seconds'].default:g} s",
            code("drain.delay_seconds"),
            "the port closes to new requests",
        ),
        (
            "requests in flight at a shutdown",
            f"{drain['grace_seconds'].default:g} s",
            code("drain.grace_seconds"),
            "they are cancelled",
        ),
        (
            "a shutdown, beyond delay and grace",
            f"{supervisor.KILL_AFTER_SECONDS:g} s",
            FIXED,
            "what still runs is killed, and the exit status is 1",
        ),
        (
            "wait before a restart",
            f"{again['initial_seconds'].default:g} s, doubling to {again['max_seconds'].default:g} s",
            code("restart"),
            f"forgotten after {restart.QUIET_SECONDS:g} s without an end",
        ),
        (
            "a process that refuses to run (exit status 2)",
            f"{restart.EARLY_REFUSALS} times in a row",
            FIXED,
            "the gateway ends with status 1",
        ),
        (
            "workers that control waits for at its start",
            f"{changes.WORKER_SECONDS:g} s",
            FIXED,
            "it goes on with those that are there",
        ),
        (
            "time for workers to take up new routes",
            f"{changes.FLIP_SECONDS:g} s",
            FIXED,
            "a warning in the log; the change stands",
        ),
        (
            "looks for a repository that vanished",
            f"every {control.LOOK_SECONDS:g} s",
            code("repository.poll_seconds"),
            NOTHING,
        ),
        (
            "a message between control and a worker",
            size(messages.MAX_FRAME_BYTES),
            FIXED,
            "the connection is made anew",
        ),
        ("messages of a worker that wait for control", number(link.MAX_OUTGOING), FIXED, "the connection is made anew"),
        ("bytes that wait for a worker", size(fleet.MAX_UNSENT_BYTES), FIXED, "the connection is made anew"),
        (
            "connections that wait to be accepted (HTTP, link)",
            number(ports.BACKLOG),
            FIXED,
            "further ones wait in the client",
        ),
        (
            "lines of the process log that wait for their reader",
            size(log_relay.MAX_WAITING_BYTES),
            FIXED,
            "they are dropped, and a line in their place says how many",
        ),
        ("counters of a worker's versions", _mib(statistics_layout.PAGE_BYTES), FIXED, NOTHING),
        ("series of a worker, with their histograms", f"up to {_mib(series_layout.PAGE_BYTES)}", FIXED, NOTHING),
        (
            "request records of a worker, with their names",
            f"up to {_mib(_ring_bytes())}",
            code("telemetry.ring_records"),
            NOTHING,
        ),
    )


def _table(*rows: Row) -> str:
    return table(HEADERS, rows)


def _mib(count: int) -> str:
    return f"{count / (1 << 20):.1f} MiB of shared memory"


def _ring_bytes() -> int:
    records: int = Telemetry.model_fields["ring_records"].default
    return ring_layout.RECORDS_OFFSET + records * record_layout.RECORD_BYTES


def _most(field: object) -> str:
    return next(number(item.le) for item in getattr(field, "metadata", ()) if hasattr(item, "le"))
