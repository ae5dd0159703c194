"""Why a request goes where it goes: what the router looked at, in order, as data and as text.

`Router.decide` writes the steps itself while it decides, so an explanation cannot differ from what is done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gateway.routing.decision import Decision
from runtime.routing.route import Match, Source


@dataclass(frozen=True, slots=True)
class NameStep:
    """The version or label that the client named; "" for none."""

    version: str

    def lines(self) -> list[str]:
        return [f"version or label named by the client: {self.version or 'none'}"]


@dataclass(frozen=True, slots=True)
class ConditionStep:
    """`values`: those that came under the key; none: it was not sent."""

    key: str
    match: Match
    text: str
    values: tuple[str, ...]
    holds: bool

    def line(self) -> str:
        came = ", ".join(repr(value) for value in self.values) or "not sent"
        return f"{self.key} {self.match.value} {self.text!r}: {came}: {'holds' if self.holds else 'does not hold'}"


@dataclass(frozen=True, slots=True)
class RuleStep:
    """A rule that was tried. Conditions after the first that does not hold were not looked at."""

    rule: str
    conditions: tuple[ConditionStep, ...]
    applies: bool

    def lines(self) -> list[str]:
        head = f"rule {self.rule}: {'applies' if self.applies else 'does not apply'}"
        return [head, *(f"  {condition.line()}" for condition in self.conditions)]


@dataclass(frozen=True, slots=True)
class KeyStep:
    """The sticky key. `source` None: the route names none. `key`: the bytes that are hashed; empty: none was sent."""

    source: Source | None
    name: str
    key: bytes

    def lines(self) -> list[str]:
        if self.source is None:
            return ["sticky key: the route names none, so the request is drawn"]
        where = " ".join(part for part in (self.source.value.replace("_", " "), self.name) if part)
        came = repr(self.key.decode(errors="backslashreplace")) if self.key else "not sent, so the request is drawn"
        return [f"sticky key: {where}: {came}"]


@dataclass(frozen=True, slots=True)
class ArmStep:
    """One arm of a split.

    By key: `hashed`, 64 bits, and `figure`, log(u) / weight, of which the greatest wins; None for a weight of 0. Drawn:
    the points `begin` <= p < `end` are this arm's.
    """

    variant: str
    target: str
    weight: float
    share: float
    hashed: int | None = None
    figure: float | None = None
    begin: float | None = None
    end: float | None = None


@dataclass(frozen=True, slots=True)
class SplitStep:
    """`rule`: whose split; "" for the route's own. `point`, 0..1: where a request without a key was drawn."""

    rule: str
    arms: tuple[ArmStep, ...]
    point: float | None
    chosen: int

    def lines(self) -> list[str]:
        lines = [f"split of {f'rule {self.rule}' if self.rule else 'the route'}, "]
        lines[0] += "the greatest figure wins" if self.point is None else f"drawn: {self.point:.6f}"
        for index, arm in enumerate(self.arms):
            mark = ">" if index == self.chosen else " "
            line = f"{mark} {arm.variant} to {arm.target}, weight {arm.weight:g}, share {arm.share:.2%}"
            if arm.hashed is not None:
                line += f": hash {arm.hashed:016x}, figure {arm.figure:.6g}"
            elif arm.begin is not None:
                line += f": {arm.begin:.6f} to {arm.end:.6f}"
            lines.append(line)
        return lines


@dataclass(frozen=True, slots=True)
class DefaultStep:
    """The route has no split, so the model's default answers."""

    def lines(self) -> list[str]:
        return ["no split: the model's default"]


Step = NameStep | RuleStep | KeyStep | SplitStep | DefaultStep


@dataclass(frozen=True, slots=True)
class Explanation:
    """`steps`: all that was looked at, in order; what comes after the step that decided was not."""

    model: str
    decision: Decision
    steps: tuple[Step, ...]

    def lines(self) -> list[str]:
        decision = self.decision
        to = decision.target or "the model's default"
        lines = [f"{self.model}: to {to}, variant {decision.variant}, reason {decision.reason.name.lower()}"]
        return lines + [f"  {line}" for step in self.steps for line in step.lines()]

    def document(self) -> dict[str, Any]:
        """As JSON has it: a hash as 16 hexadecimal digits, a key as text, with escapes for bytes that are none."""
        decision = self.decision
        return {
            "model": self.model,
            "target": decision.target,
            "variant": decision.variant,
            "reason": decision.reason.name.lower(),
            "steps": [_document(step) for step in self.steps],
        }


def _document(step: Step) -> dict[str, Any]:
    kind = type(step).__name__.removesuffix("Step").lower()
    return {"step": kind, **{name: _plain(name, value) for name, value in asdict(step).items()}}


def _plain(name: str, value: Any) -> Any:
    match value:
        case Match() | Source():
            return value.value
        case bytes():
            return value.decode(errors="backslashreplace")
        case int() if name == "hashed":
            return f"{value:016x}"
        case dict():
            return {key: _plain(key, item) for key, item in value.items()}
        case tuple() | list():
            return [_plain(name, item) for item in value]
    return value


class Story:
    """Takes the steps of one decision, as they happen."""

    __slots__ = ("conditions", "steps")

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.conditions: list[ConditionStep] = []

    def condition(self, key: str, match: Match, text: str, values: Sequence[str], *, holds: bool) -> None:
        self.conditions.append(ConditionStep(key, match, text, tuple(values), holds))

    def rule(self, name: str, *, applies: bool) -> None:
        self.steps.append(RuleStep(name, tuple(self.conditions), applies))
        self.conditions = []
