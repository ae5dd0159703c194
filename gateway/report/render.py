"""The drift report as one HTML file that needs nothing else: no script, no font, no picture from anywhere."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from gateway.report.page import page
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

TEMPLATE, STYLE = "report.html.j2", "report.css"


def render(drift: pb.DriftReport, features: pb.GetFeaturesResponse, *, generated_at: datetime | None = None) -> str:
    """`features`: of the same version and window. `generated_at`: with a zone; None: now.

    Without a reference or a look the page has what was seen of the features, and says why there is no verdict.
    """
    shown = page(drift, features, generated_at or datetime.now(UTC))
    return _environment().get_template(TEMPLATE).render(page=shown, style=_style())


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("gateway.report", "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip


def _style() -> Markup:
    """The sheet stands in the page as it is: it is ours."""
    source, _, _ = _environment().loader.get_source(_environment(), STYLE)  # type: ignore[union-attr]
    return Markup(source)  # noqa: S704
