"""Train the example models, check each export against scikit-learn, and write a model repository with their profiles.

python examples/build.py --out DIR [--only NAME]...
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import breast_cancer
import diabetes
import digits
import patients
from export import publish, publish_profiles
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rows import SPLITS
from threadpoolctl import threadpool_limits

MODELS = {module.__name__: module for module in (breast_cancer, patients, diabetes, digits)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the example models and write a model repository.")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="root of the model repository")
    parser.add_argument("--only", choices=MODELS, action="append", help="build this model only (repeat for more)")
    arguments = parser.parse_args()

    console = Console()
    table = Table("model", "version", "kind", "held-out score", "size", title=f"model repository {arguments.out}")
    started = time.perf_counter()
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    # One thread: sums split over more round differently, and the number of cores would change the digests.
    with Progress(*columns, console=console, transient=True) as progress, threadpool_limits(1):
        for name in arguments.only or MODELS:
            task = progress.add_task(f"{name}: training", total=None)
            versions = []
            for version in MODELS[name].build():
                versions.append(version)
                progress.update(task, description=f"{name}: version {version.number}, {version.kind}, checked")
            # Nothing is published unless every version of the model answers as scikit-learn does.
            publish(arguments.out, name, MODELS[name].MANIFEST, versions)
            progress.update(task, description=f"{name}: profiles of the training rows")
            publish_profiles(arguments.out, name, versions, SPLITS[name]())
            progress.remove_task(task)
            for version in versions:
                score = f"{version.metric} {version.score:.3f}"
                size = f"{len(version.onnx_bytes) / 1024:.0f} KiB"
                table.add_row(name, str(version.number), version.kind, score, size)
            table.add_section()
    console.print(table)
    console.print(f"Built in {time.perf_counter() - started:.1f} s.")


if __name__ == "__main__":
    main()
