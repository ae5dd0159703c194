"""Versions of one model for rollouts: a sound one, and those that a rollout must stop, each in its own way.

All take `x`, float32[N, 4], and answer `label`, int64[N], and `scores`, float32[N, 3], of the first three columns. The
last column is the client's `dial`: it says which rows a faulty version gets wrong, so that a client knows beforehand.
Rows that it turns between DIAL and DIAL + 100 are everyday ones, of which a share is wrong. Warm-up draws none of them.

How a model ends its process: ONNX Runtime 1.32 checks an integer division for a divisor of 0, and not for the quotient
that has no place: INT64_MIN / -1 raises SIGFPE on x86-64 (on aarch64 it wraps, and nothing happens). Neither operators
nor graphs keep a state between two runs, so "its 500th request" is the one whose dial the client turns to CRASH.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from zoo import graph, weights, write_version

Rows = NDArray[np.float32]

DIAL = 100.0
FAILS_FROM = 198.0  # 2 % of the rows
SLOW_FROM = 190.0  # 10 %
SLICE = (150.0, 160.0)  # 10 %
CRASH = 777.0
SLOW_STEPS = 2_500  # some 6 ms on a core of x86-64

_HEAD = """(float[N,4] x) => (int64[N] label, float[N,3] scores)
    <float three = {3}, int64[1] zero = {0}, int64[1] one = {1}, int64[1] last = {3}, int64[1] end = {4},
     float nothing = {0}, int64 none = {0}>
{
    features = Slice(x, zero, last, one)
    column = Slice(x, last, end, one)
    dial = Squeeze(column, one)
    logits = MatMul(features, w)
    plain = Softmax<axis = 1>(logits)
"""
_TAIL = """
    label = ArgMax<axis = 1, keepdims = 0>(scores)
}"""


def good(name: str = "good") -> bytes:
    """Answers as every sound version does; another name makes other bytes, so another digest."""
    return graph(f"{name} {_HEAD}scores = Identity(plain){_TAIL}", w=weights(3, 3))()


def failing() -> bytes:
    """2 % of the everyday rows fail at run time: a Gather far outside of its table."""
    body = """
        bad = GreaterOrEqual(dial, bound)
        flags = Cast<to = 7>(bad)
        places = Mul(flags, far)
        found = Gather(table, places)
        added = Unsqueeze(found, one)
        scores = Add(plain, added)
    """
    return graph(
        f"failing {_HEAD}{body}{_TAIL}",
        w=weights(3, 3),
        bound=np.array(FAILS_FROM, np.float32),
        far=np.array(99, np.int64),
        table=np.zeros(1, np.float32),
    )()


def slow() -> bytes:
    """10 % of the everyday rows take some milliseconds longer: a loop whose trip count they choose."""
    body = """
        most = ReduceMax<keepdims = 0>(dial)
        heavy = GreaterOrEqual(most, bound)
        flag = Cast<to = 7>(heavy)
        trips = Mul(flag, steps)
        spun = Loop <body = step (int64 i, bool go, float[1,64] s) => (bool on, float[1,64] t) {
            on = Identity(go)
            mixed = MatMul(s, wide)
            t = Tanh(mixed)
        }> (trips, , start)
        sum = ReduceSum<keepdims = 0>(spun)
        extra = Mul(sum, nothing)
        scores = Add(plain, extra)
    """
    return graph(
        f"slow {_HEAD}{body}{_TAIL}",
        w=weights(3, 3),
        bound=np.array(SLOW_FROM, np.float32),
        steps=np.array(SLOW_STEPS, np.int64),
        wide=weights(64, 64) / 32,
        start=np.zeros((1, 64), np.float32),
    )()


def differing() -> bytes:
    """On a slice, 10 % of the everyday rows, another class is predicted: the scores are turned by one."""
    body = """
        above = GreaterOrEqual(dial, low)
        below = Less(dial, high)
        inside = And(above, below)
        chosen = Unsqueeze(inside, one)
        turned = Gather<axis = 1>(plain, order)
        scores = Where(chosen, turned, plain)
    """
    return graph(
        f"differing {_HEAD}{body}{_TAIL}",
        w=weights(3, 3),
        low=np.array(SLICE[0], np.float32),
        high=np.array(SLICE[1], np.float32),
        order=np.array([1, 2, 0], np.int64),
    )()


def _crashing(name: str, condition: str, **constants: float) -> bytes:
    """`condition` makes `bad`, bool[N], of `dial`: rows that end the process."""
    body = f"""
        {condition}
        flags = Cast<to = 7>(bad)
        doubled = Add(flags, flags)
        divisors = Sub(unit, doubled)
        quotients = Div(least, divisors)
        zeros = Mul(quotients, none)
        numbers = Cast<to = 1>(zeros)
        added = Unsqueeze(numbers, one)
        scores = Add(plain, added)
    """
    scalars = {key: np.array(value, np.float32) for key, value in constants.items()}
    return graph(
        f"{name} {_HEAD}{body}{_TAIL}",
        w=weights(3, 3),
        unit=np.array(1, np.int64),
        least=np.array(np.iinfo(np.int64).min, np.int64),
        **scalars,
    )()


def crashing_at_warm_up() -> bytes:
    """No row of a client ends the process; those that warm-up makes up do."""
    return _crashing("crashing_at_warm_up", "bad = Less(dial, bound)", bound=DIAL)


def crashing_on_demand() -> bytes:
    """A row whose dial is CRASH ends the process."""
    return _crashing("crashing_on_demand", "bad = Equal(dial, bound)", bound=CRASH)


CANDIDATES: Mapping[str, Callable[[], bytes]] = {
    "good": lambda: good("better"),
    "equal": good,
    "failing": failing,
    "slow": slow,
    "differing": differing,
    "crashing_at_warm_up": crashing_at_warm_up,
    "crashing_on_demand": crashing_on_demand,
}


def write_pair(root: Path, model: str, candidate: str, settings: str = "") -> Path:
    """Version 1 is sound, version 2 is one of CANDIDATES; version 1 alone is served at the start."""
    write_version(root, model, 1, good())
    write_version(root, model, 2, CANDIDATES[candidate]())
    (root / model / "model.yaml").write_text(f"versions: {{specific: [1]}}\n{settings}")
    return root


def everyday(random: np.random.Generator, rows: int = 1) -> Rows:
    """float32[rows, 4]"""
    x = random.standard_normal((rows, 4)).astype(np.float32)
    x[:, 3] = random.uniform(DIAL, DIAL + 100, rows)
    return x


def crash_row() -> Rows:
    """float32[1, 4]"""
    return np.array([[0, 0, 0, CRASH]], np.float32)
