"""What is odd about a route that is none the less one: rules that never apply, copies that nobody answers. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.control.route_targets import Targets
from gateway.control.views import VersionView
from gateway.messages import TensorInfo
from runtime.routing.pattern import Pattern
from runtime.routing.route import Condition, Match, Route, Shadow


def route_warnings(route: Route, targets: Targets, *, shadows_enabled: bool) -> list[str]:
    """`route`: as operators have written it, its targets known."""
    warnings = [*_never_applied(route), *targets.problems(route)]
    if route.shadows and not shadows_enabled:
        warnings.append("shadows: nothing is copied: shadow.enabled is false in the gateway's configuration")
    return [*warnings, *_shadow_warnings(route, targets)]


def _never_applied(route: Route) -> Iterator[str]:
    for index, rule in enumerate(route.rules):
        for condition in rule.when:
            if condition.match is not Match.REGEX and not _can_be_sent(condition.text):
                yield (
                    f"rules[{index}] ({rule.name}) never applies: metadata is printable ASCII, and {condition.key} "
                    f"would have to be {condition.text!r}"
                )
                break
        else:
            for earlier, other in enumerate(route.rules[:index]):
                if all(any(_implies(mine, theirs) for mine in rule.when) for theirs in other.when):
                    yield (
                        f"rules[{index}] ({rule.name}) never applies: rules[{earlier}] ({other.name}) takes all that "
                        "it would apply to"
                    )
                    break


def _implies(one: Condition, other: Condition) -> bool:
    """Whether `other` holds wherever `one` does; False where that cannot be told."""
    if one == other:
        return True
    if one.key != other.key:
        return False
    match one.match, other.match:
        case Match.EXACT, Match.PREFIX:
            return one.text.startswith(other.text)
        case Match.EXACT, Match.REGEX:
            return Pattern(other.text).matches(one.text)
        case Match.PREFIX, Match.PREFIX:
            return one.text.startswith(other.text)
        case _, Match.PREFIX:
            return not other.text  # holds where the key is sent at all
    return False


def _can_be_sent(text: str) -> bool:
    return text.isascii() and (not text or text.isprintable())


def _shadow_warnings(route: Route, targets: Targets) -> Iterator[str]:
    first: dict[int | None, int] = {}
    for index, shadow in enumerate(route.shadows):
        version = targets.version(shadow.target)
        if version in first:
            yield f"shadows[{index}].to: {shadow.target!r} is version {version}, as shadows[{first[version]}].to is"
        first.setdefault(version, index)
        if shadow.of and targets.version(shadow.of) == version:
            yield f"shadows[{index}]: nothing is copied: {shadow.target!r} and {shadow.of!r} are both version {version}"
            continue
        yield from _misfits(f"shadows[{index}]", shadow, targets)


def _misfits(place: str, shadow: Shadow, targets: Targets) -> Iterator[str]:
    """Versions whose requests the shadow cannot take, as far as both are loaded."""
    number = targets.version(shadow.target)
    view = targets.view(number) if number is not None else None
    of = targets.version(shadow.of) if shadow.of else None
    for primary in targets.served if not shadow.of else (of,):
        other = targets.view(primary) if primary is not None and primary != number else None
        if view is None or other is None or view.loaded is None or other.loaded is None:
            continue
        theirs, own = _tensors(other.loaded.inputs), _tensors(view.loaded.inputs)
        if theirs != own:
            yield (
                f"{place}: requests of version {primary} are not copied: it takes {theirs}, and version {number} takes "
                f"{own}"
            )
        elif not _output_names(view) & _output_names(other):
            theirs, own = _tensors(other.loaded.outputs), _tensors(view.loaded.outputs)
            yield (
                f"{place}: answers of version {primary} are not compared: it gives {theirs}, and version {number} "
                f"gives {own}"
            )


def _output_names(view: VersionView) -> set[str]:
    return {tensor.name for tensor in view.loaded.outputs} if view.loaded is not None else set()


def _tensors(tensors: tuple[TensorInfo, ...]) -> str:
    return ", ".join(f"{t.name} {t.datatype}[{','.join(map(str, t.shape))}]" for t in sorted(tensors, key=_name))


def _name(tensor: TensorInfo) -> str:
    return tensor.name
