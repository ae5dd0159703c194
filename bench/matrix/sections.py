"""The sections whose cases take turns: models, load, observing, latency, growth."""

from __future__ import annotations

from pathlib import Path

from bench.catalogue import ServerSpec
from bench.matrix import networks, tables
from bench.matrix.case import Case, Claim, Round, Step, ratio
from bench.matrix.interleaved import Interleaved
from bench.matrix.servers import AIO_ONNX, ALL_ON, CANARY, QUEUE_ECHO, SETTINGS, VERSIONS, driftgate, with_workers
from bench.matrix.subject import Subject
from bench.matrix.workload import Workload, workload, write
from bench.sample import Load

MODELS = (tables.linear, tables.forest, tables.strings, networks.digits, networks.images, networks.embedding)
ROWS = (1, 32)

FEW = Load(connections=2, streams=2)
SOME = Load(connections=4, streams=4)
MANY = Load(connections=4, streams=16)
HEAVY_BYTES = 64 << 10
HUGE_BYTES = 4 << 20
"""Of a request: above it fewer are in flight, since each is more work than a batch of small ones."""

HUGE_TIMES_LONGER = 4.0

SHAPES = ((1, 1), (1, 16), (1, 64), (4, 16), (16, 4), (64, 1), (16, 16), (64, 16))
"""Connections, and requests in flight on each: 1, 16, 64, 256 and 1,024 in flight."""

OPEN = Load(connections=16, streams=64)
"""Room enough that an arrival hardly ever waits for a free stream of HTTP/2; where it does, that counts."""

OPEN_CAPACITY = Load(OPEN.connections, MANY.in_flight // OPEN.connections)
"""What an open loop has its shares of: 64 in flight on the same connections, each of which has its own cost."""

MODEL_COUNTS = (1, 10, 100)
VERSION_COUNTS = (1, 5, 20)
FEATURE_COUNTS = (30, 1_000, 10_000)

BOTH_CORES = (
    "one worker has a core of its own; two have both cores, and share them with the load. ratio: to 1 worker\n"
    "load core: what the load used, in parts of one core; two workers have that back where it runs elsewhere"
)


def _load_for(pool: Workload) -> Load:
    if pool.request_bytes > HUGE_BYTES:
        return FEW
    return SOME if pool.request_bytes > HEAVY_BYTES else MANY


def _all_on(subject: Subject, root: Path) -> tuple[Path, Path]:
    """A repository with a canary, and the graph."""
    return root, write(subject, root, versions=VERSIONS[CANARY], settings=CANARY)


def models(folder: Path) -> tuple[Case, ...]:
    """Each model on driftgate with all on, on `grpc.aio` with ONNX Runtime, and in a loop without a server."""
    cases: list[Case] = []
    for make in MODELS:
        subject = make()
        root, graph = _all_on(subject, folder / subject.name)
        pools = [workload(subject, rows) for rows in ROWS]
        steps = tuple(
            Step(
                f"{subject.name}-{pool.rows}",
                f"{subject.title}, {_shape(_load_for(pool))}",
                pool,
                _load_for(pool),
                times_longer=HUGE_TIMES_LONGER if pool.request_bytes > HUGE_BYTES else 1,
            )
            for pool in pools
        )
        limit = f"{subject.name}-limit"
        cases += [
            Case(f"{subject.name}-driftgate", "driftgate, all on", ALL_ON, root, graph, steps, against=limit),
            Case(f"{subject.name}-aio", "grpc.aio + onnxruntime", AIO_ONNX, root, graph, steps, against=limit),
            Case(limit, "ONNX Runtime in a loop", None, root, graph, steps),
        ]
    return tuple(cases)


def _shape(load: Load) -> str:
    return f"{load.connections} x {load.streams}"


def load(folder: Path) -> tuple[Case, ...]:
    """The linear model under every shape of load, beside the bare loop on the completion queue."""
    subject = tables.linear()
    root, graph = _all_on(subject, folder / "models")
    pool = workload(subject, 1)

    def steps(*, streaming: bool) -> tuple[Step, ...]:
        kind = "streaming" if streaming else "unary"
        return tuple(
            Step(
                f"{kind}-{connections}x{streams}",
                f"{kind}, {connections * streams:,} in flight, {connections} connections",
                pool,
                Load(connections, streams, streaming=streaming),
            )
            for connections, streams in SHAPES
        )

    unary, streamed = steps(streaming=False), steps(streaming=True)
    return (
        Case("all", "driftgate, all on", ALL_ON, root, graph, unary + streamed, against="echo"),
        Case("echo", "completion-queue echo", QUEUE_ECHO, root, graph, unary),
    )


def observing(folder: Path) -> tuple[Case, ...]:
    """The linear model with each of what observes a request off, on, and all on."""
    subject = tables.linear()
    pool = workload(subject, 1)
    steps = (Step("64", "64 in flight", pool, MANY), Step("1", "1 in flight", pool, Load(1, 1)))
    cases = []
    for key, title, settings, environment, exports in SETTINGS:
        root = folder / key
        graph = write(subject, root, versions=VERSIONS[settings], settings=settings)
        spec = driftgate(key, title, environment, exports=exports)
        cases.append(Case(key, title, spec, root, graph, steps, against="" if key == "off" else "off"))
    return tuple(cases)


def latency(folder: Path) -> tuple[Case, ...]:
    """The linear model at shares of what the same server has just reached: arrivals at random times."""
    subject = tables.linear()
    root, graph = _all_on(subject, folder / "models")
    pool = workload(subject, 1)
    steps = (
        Step("capacity", "closed loop, 64 in flight", pool, OPEN_CAPACITY),
        Step("50", "open loop, 50 % of that", pool, OPEN, share=0.5),
        Step("80", "open loop, 80 % of that", pool, OPEN, share=0.8),
    )
    return (
        Case("all", "driftgate, all on", ALL_ON, root, graph, steps),
        Case("aio", "grpc.aio + onnxruntime", AIO_ONNX, root, graph, steps),
    )


def number_of_models(folder: Path) -> tuple[Case, ...]:
    """Traffic on one model, with others loaded beside it that get none."""
    subject = tables.linear()
    steps = (Step("64", "64 in flight", workload(subject, 1, "model-1"), MANY),)
    cases = []
    for count in MODEL_COUNTS:
        root = folder / str(count)
        graphs = [
            write(subject, root, f"model-{index}", versions=VERSIONS[CANARY], settings=CANARY)
            for index in range(1, count + 1)
        ]
        against = "" if count == 1 else "models-1"
        title = f"{count} model{'s' * (count > 1)} loaded"
        cases.append(Case(f"models-{count}", title, ALL_ON, root, graphs[0], steps, against, rests=True))
    return tuple(cases)


def number_of_versions(folder: Path) -> tuple[Case, ...]:
    """Traffic on the newest of some versions, without a route."""
    subject = tables.linear()
    steps = (Step("64", "64 in flight", workload(subject, 1), MANY),)
    spec = driftgate("plain", "driftgate", {}, exports=True)
    cases = []
    for count in VERSION_COUNTS:
        root = folder / str(count)
        graph = write(subject, root, versions=count, settings="versions: all\n")
        against = "" if count == 1 else "versions-1"
        title = f"{count} version{'s' * (count > 1)} loaded"
        cases.append(Case(f"versions-{count}", title, spec, root, graph, steps, against))
    return tuple(cases)


def number_of_features(folder: Path) -> tuple[Case, ...]:
    """Linear models over more and more features, with everything on, everything off, and in a loop."""
    cases = []
    off = driftgate("off", "driftgate, all off", SETTINGS[0][3], exports=False)
    for count in FEATURE_COUNTS:
        subject = tables.wide(count)
        root, graph = _all_on(subject, folder / f"{count}-all")
        plain = folder / f"{count}-off"
        write(subject, plain)
        pool = workload(subject, 1)
        steps = (Step(f"{count}", f"{count:,} features, {_shape(MANY)}", pool, MANY),)
        against = f"{count}-off"
        cases += [
            Case(f"{count}-all", "driftgate, all on", ALL_ON, root, graph, steps, against),
            Case(against, "driftgate, all off", off, plain, graph, steps),
            Case(f"{count}-aio", "grpc.aio + onnxruntime", AIO_ONNX, root, graph, steps, against),
        ]
    return tuple(cases)


def number_of_workers(folder: Path) -> tuple[Case, ...]:
    """One worker on one core, the load on the other; two workers on both cores, and the load wherever there is room."""
    cases = []
    for make, rows, shape in (
        (tables.linear, 1, Load(64, 1)),
        (tables.forest, 32, Load(64, 1)),
        (networks.embedding, 32, Load(64, 1)),
        (networks.images, 1, Load(16, 1)),
    ):
        subject = make()
        root, graph = _all_on(subject, folder / subject.name)
        pool = workload(subject, rows)
        steps = (Step(f"{subject.name}-{rows}", f"{subject.title}, {_shape(shape)}", pool, shape),)
        one, two = (f"{subject.name}-{workers}" for workers in (1, 2))
        cases += [
            Case(one, "1 worker", _workers(1), root, graph, steps),
            Case(two, "2 workers", _workers(2), root, graph, steps, against=one, both_cores=True),
        ]
    return tuple(cases)


def _workers(count: int) -> ServerSpec:
    return with_workers(ALL_ON, count)


def _tail_ratio(samples: Round) -> float:
    burst = samples["all"]["80"].burst
    return burst.p99_ms / burst.p50_ms


SECTIONS = (
    Interleaved(
        "models",
        "kinds of models, 1 and 32 rows a request",
        models,
        (
            Claim(
                "32 images of 224 x 224 x 3 in a request: driftgate, all on, to ONNX Runtime in a loop",
                ratio(("images-driftgate", "images-32"), ("images-limit", "images-32")),
                0.85,
            ),
        ),
        "ratio: to ONNX Runtime called in a loop, one request's rows a call, without a server",
    ),
    Interleaved(
        "load",
        "requests in flight, connections, unary and streaming",
        load,
        (
            Claim(
                "driftgate, all on, to a bare completion-queue echo, 64 in flight",
                ratio(("all", "unary-4x16"), ("echo", "unary-4x16")),
                0.75,
            ),
            Claim(
                "streaming to unary, 64 in flight",
                ratio(("all", "streaming-4x16"), ("all", "unary-4x16")),
                1.5,
            ),
        ),
        "ratio: to the completion-queue echo",
    ),
    Interleaved(
        "observing",
        "what each thing that observes a request costs",
        observing,
        (Claim("all on to all off, 64 in flight", ratio(("all", "64"), ("off", "64")), 0.8),),
        "ratio: to all off",
    ),
    Interleaved(
        "latency",
        "open loop: requests come at random times, whatever is under way",
        latency,
        (Claim("99th percentile to median, driftgate at 80 % of its capacity", _tail_ratio, 4.0, at_least=False),),
        "latencies of an open loop count from when a request was due, also if it had to wait before it was sent",
    ),
    Interleaved(
        "model-count",
        "models loaded, traffic on one of them",
        number_of_models,
        (Claim("100 models loaded to 1", ratio(("models-100", "64"), ("models-1", "64")), 0.95),),
        "each model has two versions and a canary; ratio: to one model",
    ),
    Interleaved("version-count", "versions loaded, traffic on the newest", number_of_versions),
    Interleaved(
        "feature-count",
        "features of a row",
        number_of_features,
        caption="ratio: to all off, of the same model",
    ),
    Interleaved(
        "worker-count",
        "workers",
        number_of_workers,
        (
            Claim(
                "2 workers to 1, a row's embedding taking longer than the load generator's part",
                ratio(("embedding-2", "embedding-32"), ("embedding-1", "embedding-32")),
                1.7,
            ),
        ),
        BOTH_CORES,
    ),
)
