"""Writes docs/reference/ and the generated blocks of hand-written pages from the code.

    python docs/generate.py            writes what has changed
    python docs/generate.py --check    writes nothing; exit status 1 if a file differs from what the code says

A block stands between `<!-- generated: NAME -->` and `<!-- end of generated -->`; what is outside of it is not touched.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

from generator import (
    bounds,
    bounds_telemetry,
    cli,
    configuration,
    errors,
    events,
    manifest,
    metrics,
    otel,
    protos,
    record,
    rollout_story,
    rollouts,
    routing,
    sketches,
    span_sizes,
    statistics,
    versions,
)

DOCS = Path(__file__).resolve().parent

PAGES: dict[str, Callable[[], str]] = {
    "reference/configuration.md": configuration.page,
    "reference/model-yaml.md": manifest.page,
    "reference/route.md": routing.page,
    "reference/cli.md": cli.page,
    "reference/admin-api.md": protos.admin_page,
    "reference/inference-api.md": protos.inference_page,
    "reference/metrics.md": metrics.page,
    "reference/events.md": events.page,
    "reference/telemetry-attributes.md": metrics.attributes_page,
    "reference/otel-variables.md": otel.page,
    "reference/errors.md": errors.page,
    "reference/versions.md": versions.page,
    "pictures/rollout-watch.svg": rollout_story.picture,
}

BLOCKS: dict[str, dict[str, Callable[[], str]]] = {
    "life-of-a-version.md": {"states": versions.diagram},
    "request-record.md": {
        "record": record.record,
        "numbers": record.numbers,
        "ring": record.ring,
        "series": record.series,
        "sizes": record.sizes,
    },
    "routing.md": {
        "precedence": routing.precedence,
        "document": routing.document,
        "shadows": routing.shadows,
        "story": routing.story,
        "shares": routing.shares,
        "figures": routing.figures,
        "bounds": routing.bounds,
    },
    "panes.md": {"layout": record.panes},
    "copies.md": {"layout": record.copies},
    "sketches.md": {
        "scales": sketches.scales,
        "memory": sketches.memory,
        "block": sketches.block,
        "envelope": sketches.envelope,
        "payloads": sketches.payloads,
        "example": sketches.example,
    },
    "rollouts.md": {"states": rollouts.diagram, "settings": rollouts.settings},
    "statistics.md": {
        "memory": statistics.memory,
        "pane": statistics.pane,
        "summary": statistics.summary,
        "profile": statistics.profile,
    },
    "how-to/rollouts.md": {
        "plan": rollout_story.plan,
        "outline": rollout_story.outline,
        "lines": rollout_story.lines,
        "list": rollout_story.listed,
        "history": rollout_story.history,
    },
    "how-to/observability.md": {"sizes": span_sizes.sizes},
    "how-to/limits.md": {
        "requests": bounds.requests,
        "models": bounds.models,
        "telemetry": bounds_telemetry.telemetry,
        "operators": bounds.operators,
        "processes": bounds.processes,
    },
}


def generated() -> dict[Path, str]:
    """Each file's text as it should be."""
    texts = {DOCS / name: page() for name, page in PAGES.items()}
    for name, blocks in BLOCKS.items():
        text = (DOCS / name).read_text()
        for block, content in blocks.items():
            text = _replace_block(text, name, block, content())
        texts[DOCS / name] = text
    return texts


def _replace_block(text: str, name: str, block: str, content: str) -> str:
    begin, end = f"<!-- generated: {block} -->\n", "<!-- end of generated -->"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    text, count = pattern.subn(lambda _: f"{begin}{content.strip()}\n{end}", text)
    if count != 1:
        raise SystemExit(f"docs/{name}: expected one block {block!r}, found {count}")
    return text


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    texts = generated()
    differing = [path for path, text in texts.items() if not path.exists() or path.read_text() != text]
    for path in differing:
        shown = f"docs/{path.relative_to(DOCS)}"
        if arguments:
            print(f"{shown} differs from what the code says: run python docs/generate.py")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(texts[path])
            print(f"wrote {shown}")
    return 1 if arguments and differing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
