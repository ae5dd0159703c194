"""Routes as people read them.

iris
  sticky   metadata x-user
  rules    testers  x-tier is gold                 to 2
  split    stable   to stable  ███████████████████  95.00%
           canary   to 2       █                     5.00%
  shadows  3  10% of the runs of stable
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence

import yaml
from rich.console import Group, JustifyMethod, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gateway.cli.text import duration, one_line, short_digest
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb
from runtime.routing.document import RouteError, from_json
from runtime.routing.route import Condition, Match, Route, Rule, Shadow, Variant

INDENT = 2
BAR_CELLS = 30
NARROW_BAR_CELLS = 12
NARROW = 72
"""Cells of a window in which names get the room of the bar."""

NOTHING_CHANGED = 5e-7  # of a share; it is shown in hundredths of a percent
WORDS = {Match.EXACT: "is", Match.PREFIX: "begins with", Match.REGEX: "matches"}


def route_yaml(text: str) -> str:
    """A route's JSON as a file for `route set`; a comment for none."""
    if not text:
        return "# no route: the default answers\n"
    return yaml.safe_dump(json.loads(text), sort_keys=False, allow_unicode=True, width=100)


def route_screen(response: pb.GetRouteResponse, width: int | None) -> Group:
    """`width`: of the window, None where it does not matter."""
    heading = Text(one_line(response.model), "bold")
    if response.rollout_id:
        heading.append(f"  rollout {response.rollout_id} takes the split (driftgate rollout status)", "yellow")
    parts: list[RenderableType] = [heading]
    try:
        route = from_json(response.effective) if response.effective else Route()
    except RouteError:  # of a gateway that knows more
        return Group(heading, Text(one_line(response.effective)))
    facts = _facts(route, response.shares, width)
    if not response.effective:
        parts.append(_indented(Text("no route: the default answers", "dim")))
    parts.append(_indented(_grid(facts)))
    parts += [_note("problem", one_line(problem), "red") for problem in response.problems]
    return Group(*parts)


def change_screen(model: str, response: pb.SetRouteResponse, width: int | None, *, dry_run: bool) -> Group:
    """What a change has come to: of each variant the share before and after."""
    if dry_run:
        done = "dry run, nothing has changed"
    else:
        audit = f", audit {response.audit_id}" if response.audit_id else ""
        what = "changed" if response.changed else "unchanged, it was already so"
        done = f"{what}{audit}, took {duration(response.duration)}"
    parts: list[RenderableType] = [Text(f"{one_line(model)}: {done}")]
    table = Table.grid(padding=(0, 2, 0, 0))
    columns: tuple[JustifyMethod, ...] = ("left", "left", "right", "left", "right", "right", "left")
    for justify in columns:
        table.add_column(justify=justify, no_wrap=True)
    for share in response.shares:
        table.add_row(*_difference(share, width))
    parts.append(_indented(table))
    parts += [_note("warning", one_line(warning), "yellow") for warning in response.warnings]
    return Group(*parts)


def explanation_screen(response: pb.ExplainRouteResponse) -> Iterator[Text]:
    """The story, the arm that was taken marked; then which version that is."""
    first, *rest = [one_line_kept(line) for line in response.lines] or [""]
    yield Text(first, "bold")
    for line in rest:
        taken = line.lstrip().startswith("> ")
        holds = line.endswith((": applies", ": holds"))
        yield Text(line, "bold green" if taken else "green" if holds else "")
    if response.version:
        yield Text(f"  answered by version {response.version}, digest {short_digest(response.digest)}", "bold")
    if response.unavailable:
        word = "" if response.version else "no answer: "
        yield Text(f"  {word}{one_line(response.unavailable)}", "yellow" if response.version else "bold red")
    for version in response.shadows:
        yield Text(f"  a copy may go to version {version}", "dim")


def one_line_kept(line: str) -> str:
    """`one_line`, with the indentation that it has."""
    text = one_line(line)
    return " " * (len(line) - len(line.lstrip(" "))) + text


def _facts(route: Route, shares: Iterable[pb.VariantShare], width: int | None) -> Iterator[tuple[str, RenderableType]]:
    if route.sticky is not None:
        what = " ".join(filter(None, (route.sticky.source.value.replace("_", " "), route.sticky.name)))
        yield "sticky", Text(one_line(what))
    if route.salt:
        yield "salt", Text(one_line(route.salt))
    if route.rules:
        yield "rules", _rules(route.rules)
    yield "split" if route.split else "default", _bars(shares, width)
    if route.shadows:
        yield "shadows", Group(*(Text(_shadow(shadow)) for shadow in route.shadows))


def _rules(rules: Sequence[Rule]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, overflow="ellipsis")
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    for rule in rules:
        conditions = "\n".join(_condition(condition) for condition in rule.when)
        table.add_row(
            Text(rule.name), Text(conditions), Text(f"to {rule.target}" if rule.target else _split(rule.split))
        )
    return table


def _condition(condition: Condition) -> str:
    if condition.match is Match.PREFIX and not condition.text:
        return f"{condition.key} is sent"
    text = one_line(condition.text)
    return f"{condition.key} {WORDS[condition.match]} {text or repr(text)}"


def _split(split: Sequence[Variant]) -> str:
    total = sum(variant.weight for variant in split)
    return ", ".join(f"{_arm(v.name, v.target)} {_percent(v.weight / total)}" for v in split)


def _arm(name: str, target: str) -> str:
    return name if name == target else f"{name} (to {target})"


def _shadow(shadow: Shadow) -> str:
    whose = f"the runs of {shadow.of}" if shadow.of else "all runs"
    text = f"{shadow.target}  {shadow.share * 100:.6g}% of {whose}"
    kept = f"the {shadow.worst} worst disagreements are kept"
    if shadow.inputs:
        kept += " with inputs" + (f" but for {', '.join(map(one_line, shadow.redact))}" if shadow.redact else "")
    return f"{text}; {kept}" if shadow.worst else text


def _bars(shares: Iterable[pb.VariantShare], width: int | None) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, overflow="ellipsis")
    table.add_column(no_wrap=True, overflow="ellipsis")
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, justify="right")
    cells = _bar_cells(width)
    for share in shares:
        bar = Text(_bar(share.share, cells).ljust(cells), "cyan")
        table.add_row(Text(one_line(share.variant)), Text(f"to {one_line(share.target)}"), bar, _percent(share.share))
    return table


def _difference(share: pb.VariantShare, width: int | None) -> list[Text]:
    change = share.share - share.share_before
    style = "" if abs(change) < NOTHING_CHANGED else "green" if change > 0 else "red"
    return [
        Text(one_line(share.variant)),
        Text(f"to {one_line(share.target)}"),
        Text(_percent(share.share_before), "dim"),
        Text("→", "dim"),
        Text(_percent(share.share), style),
        Text(f"{change * 100:+.2f}" if style else "", style),
        Text(_bar(share.share, _bar_cells(width) // 2), "cyan"),
    ]


def _bar_cells(width: int | None) -> int:
    return NARROW_BAR_CELLS if width is not None and width < NARROW else BAR_CELLS


def _bar(share: float, cells: int) -> str:
    """What is more than nothing is seen."""
    full = round(share * cells)
    return "█" * full if full or not share else "▏"


def _percent(share: float) -> str:
    """Of a share that is neither 0 nor 1 never so much as to say that it was."""
    if 0 < share < 0.0001:
        return "<0.01%"
    if 0.9999 < share < 1:
        return ">99.99%"
    return f"{share:.2%}"


def _grid(facts: Iterable[tuple[str, RenderableType]]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for label, fact in facts:
        table.add_row(label, fact)
    return table


def _indented(part: RenderableType) -> Padding:
    return Padding(part, (0, 0, 0, INDENT), expand=False)


def _note(word: str, text: str, style: str) -> Padding:
    return _indented(_grid([(word, Text(text, style))]))
