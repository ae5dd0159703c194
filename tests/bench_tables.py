"""Results as a run gives them, of made-up figures."""

from bench.report.of_matrix import CPU_BEYOND, MEASURED, RATIO
from bench.report.results import Code, Column, Machine, Method, Results, Row, Table

QUANTILES = {"p50": 1.0, "p90": 1.5, "p99": 3.0, "p999": 6.0}


def spread(value):
    return (value, value * 0.9, value * 1.15)


def row(key, rate, against="", cpu=40.0, scale=1.0):
    values = {column.key: spread(1.0) for column in MEASURED}
    values |= {"rate": spread(rate), "cpu": spread(cpu)}
    values |= {name: spread(ms * scale) for name, ms in QUANTILES.items()}
    case, _, step = key.partition("/")
    return Row(key, f"{case}: {step}", values, against, case, step)


def cases(name, *rows):
    return Table(name, name, (*MEASURED, RATIO, CPU_BEYOND), rows, "case")


def servers(name):
    columns = (
        Column("rate_64", "64 in flight", "requests/s", spread=True),
        Column("p50_1", "p50, 1 in flight", "ms", ".3f"),
        Column("to_echo", "to the echo", "", ".2f", of="rate_64", to="echo"),
    )
    rates = {"echo": 10_000, "slow": 2_000, "driftgate": 24_000}
    rows = tuple(Row(key, f"the {key}", {"rate_64": spread(rate), "p50_1": spread(0.2)}) for key, rate in rates.items())
    return Table(name, "Servers", columns, rows, "server")


def stages():
    from bench.stages.mapping import STAGES

    columns = tuple(Column(key, key, "µs", ".1f") for key in ("off_1", "off_64", "on_1", "on_64"))
    rows = [
        Row(stage.partition(":")[0], stage, {column.key: spread(3.0 + at) for column in columns})
        for at, stage in enumerate(STAGES)
    ]
    return Table("stages", "Stages", columns, tuple(rows), "stage")


SHAPES = ("1x1", "1x16", "1x64", "4x16", "16x4", "64x1", "16x16", "64x16")

TABLES = (
    servers("servers"),
    servers("peers"),
    stages(),
    cases("observing", row("off/64", 26_000), *(row(f"{key}/64", 25_000, "off/64") for key in ("metrics", "all"))),
    cases(
        "load",
        *(row(f"all/unary-{shape}", 5_000 + 2_000 * at) for at, shape in enumerate(SHAPES)),
        *(row(f"all/streaming-{shape}", 6_000 + 4_000 * at) for at, shape in enumerate(SHAPES)),
        *(row(f"echo/unary-{shape}", 6_000 + 3_000 * at) for at, shape in enumerate(SHAPES)),
    ),
    cases(
        "latency",
        *(row(f"{case}/{share}", 1e4, scale=int(share) / 50) for case in ("all", "aio") for share in ("50", "80")),
    ),
    cases("model-count", *(row(f"models-{count}/64", 2e4, cpu=40 + count / 50) for count in (1, 10, 100))),
    cases("version-count", *(row(f"versions-{count}/64", 2e4, cpu=40 + count / 20) for count in (1, 5, 20))),
    cases(
        "feature-count",
        *(
            row(f"{count}-{kind}/{count}", 2e4, cpu=40 + count / 9)
            for count in (30, 1000, 10_000)
            for kind in ("all", "off")
        ),
    ),
)


def results(*tables):
    return Results(
        command="python -m bench",
        date="2026-01-02T03:04:05+00:00",
        code=Code("0123456789abcdef", clean=True),
        machine=Machine("a processor", 2, 8 << 30, "6.1", None),
        versions={"python": "3.11.7", "grpcio": "1.85.1"},
        method=Method(3, 1.5, 0.5, "wire", (0,), (1,), "A note."),
        tables=tables,
        failures={"slow": "it ended"},
    )
