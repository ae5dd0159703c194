"""Elements of SVG as escaped text: what is no Markup is escaped."""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup, escape

Points = Iterable[tuple[float, float]]


def element(name: str, *children: str | Markup, **attributes: object) -> Markup:
    """`stroke_width=2` → stroke-width="2", `class_="a"` → class="a"; an attribute that is None is left out."""
    written = [
        f' {key.rstrip("_").replace("_", "-")}="{escape(_text(value))}"'
        for key, value in attributes.items()
        if value is not None
    ]
    inside = Markup("").join(escape(child) for child in children)
    return Markup(f"<{name}{''.join(written)}>{inside}</{name}>")  # noqa: S704  (escaped above)


def picture(
    title: str, description: str, width: float, height: float, *children: Markup, **attributes: object
) -> Markup:
    """One plot, for eyes and for screen readers. Its width is that of the page's column."""
    return element(
        "svg", element("title", title), element("desc", description), *children,
        viewBox=f"0 0 {_text(width)} {_text(height)}", role="img", **attributes,
    )  # fmt: skip


def path(points: Points, **attributes: object) -> Markup:
    return element("path", d=line_of(points), **attributes)


def line(x1: float, y1: float, x2: float, y2: float, **attributes: object) -> Markup:
    return element("path", d=line_of([(x1, y1), (x2, y2)]), **attributes)


def text(x: float, y: float, content: str, **attributes: object) -> Markup:
    return element("text", content, x=x, y=y, **attributes)


def rectangle(x: float, y: float, width: float, height: float, **attributes: object) -> Markup:
    return element("rect", x=x, y=y, width=max(width, 0.0), height=max(height, 0.0), **attributes)


def line_of(points: Points) -> str:
    return "".join(f"{'L' if at else 'M'}{_text(x)} {_text(y)}" for at, (x, y) in enumerate(points))


def _text(value: object) -> str:
    """A tenth of a pixel cannot be seen, and digits are most of a page's size."""
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)
