"""Routes and requests, drawn at random from few names, so that they meet often."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import strategies as st

from runtime.routing.route import Condition, Match, Route, Rule, Shadow, Source, Sticky, Variant

KEYS = st.sampled_from(["x-user", "x-tier", "x-region"])
TEXTS = st.sampled_from(["", "a", "b", "ab", "gold", "eu-1"])
TARGETS = st.sampled_from(["1", "2", "stable", "canary"])
WEIGHTS = st.one_of(st.sampled_from([0.0, 1.0, 5.0, 95.0, 1e-6, 1e9]), st.floats(1e-6, 1e9))

MATCHES = st.one_of(
    st.tuples(st.sampled_from([Match.EXACT, Match.PREFIX]), TEXTS),
    st.tuples(st.just(Match.REGEX), st.sampled_from(["", "a*b", ".*", "[a-z]+", "eu-[0-9]"])),
)


@st.composite
def splits(draw: st.DrawFn) -> tuple[Variant, ...]:
    names = draw(st.lists(st.sampled_from(["stable", "canary", "c", "3"]), min_size=1, max_size=4, unique=True))
    weights = draw(st.lists(WEIGHTS, min_size=len(names), max_size=len(names)).filter(any))
    targets = [draw(st.one_of(st.just(name), TARGETS)) for name in names]
    return tuple(Variant(*arm) for arm in zip(names, targets, weights, strict=True))


@st.composite
def rules(draw: st.DrawFn) -> tuple[Rule, ...]:
    made = []
    for name in draw(st.lists(st.sampled_from(["r", "s", "t"]), max_size=3, unique=True)):
        keys = draw(st.lists(KEYS, min_size=1, max_size=2, unique=True))
        when = tuple(Condition(key, *draw(MATCHES)) for key in keys)
        if draw(st.booleans()):
            made.append(Rule(name, when, target=draw(TARGETS)))
        else:
            made.append(Rule(name, when, split=draw(splits())))
    return tuple(made)


STICKY = st.one_of(
    st.none(),
    st.just(Sticky(Source.REQUEST_ID)),
    st.builds(Sticky, st.just(Source.METADATA), KEYS),
    st.just(Sticky(Source.PARAMETER, "user")),
)
SALTS = st.sampled_from(["", "salt", "ß"])


@st.composite
def shadows(draw: st.DrawFn) -> tuple[Shadow, ...]:
    return tuple(
        Shadow(
            target,
            share=draw(st.one_of(st.just(100.0), st.floats(1e-6, 100))) / 100,
            of=draw(st.one_of(st.just(""), TARGETS.filter(lambda of: of != target))),  # noqa: B023  # drawn at once
            absolute=draw(st.one_of(st.just(1e-6), st.floats(0, 1e308))),
            relative=draw(st.one_of(st.just(1e-4), st.floats(0, 1e308))),
            worst=draw(st.integers(0, 256)),
            inputs=draw(st.booleans()),
            redact=tuple(draw(st.lists(st.sampled_from(["age", "name", "größe"]), max_size=2, unique=True))),
        )
        for target in draw(st.lists(TARGETS, max_size=2, unique=True))
    )


ROUTES = st.builds(Route, rules(), st.one_of(st.just(()), splits()), STICKY, SALTS, shadows())


class Asked(NamedTuple):
    version: str
    metadata: tuple[tuple[str, str | bytes], ...]
    parameters: dict[str, str | int | float | bool] | None
    request_id: str


REQUESTS = st.builds(
    Asked,
    st.sampled_from(["", "", "", "1", "99", "canary"]),
    st.lists(st.tuples(KEYS, st.one_of(TEXTS, st.just(b"\xff"))), max_size=4).map(tuple),
    st.one_of(st.none(), st.dictionaries(st.just("user"), st.one_of(TEXTS, st.integers(), st.booleans(), st.floats()))),
    TEXTS,
)
