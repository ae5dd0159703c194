"""Which answer a reply is: by the request, its length and a hash of its bytes; and how long it took."""

from __future__ import annotations

from numba import int32, int64, types, uint8, uint64

from bench.generator.layout import ANSWER_PLACES, BUCKETS, HISTOGRAM_BITS, MOST_ANSWERS, STATE
from bench.generator.system_kernels import copy, load32, load64
from runtime.kernels import inline, kernel, leading_zeros

_BYTES = types.Array(uint8, 1, "C")
_NUMBERS = types.Array(int64, 1, "C")

P1, P2, P3 = uint64(0x9E3779B185EBCA87), uint64(0xC2B2AE3D27D4EB4F), uint64(0x165667B19E3779F9)
P4, P5 = uint64(0x85EBCA77C2B2AE63), uint64(0x27D4EB2F165667C5)


@inline
def _turned(value, bits):  # type: ignore[no-untyped-def]
    return (value << uint64(bits)) | (value >> uint64(64 - bits))


@inline
def _round(lane, word):  # type: ignore[no-untyped-def]
    return _turned(lane + word * P2, 31) * P1


@inline
def _merged(sum_, lane):  # type: ignore[no-untyped-def]
    return (sum_ ^ _round(uint64(0), lane)) * P1 + P4


@kernel(uint64(_BYTES, int64, int64, uint64), allocates=False)
def xxh64(data, at, size, seed):  # type: ignore[no-untyped-def]
    """XXH64 of data[at : at + size]: four lanes, so that replies of megabytes are compared at memory's speed."""
    end = at + size
    if size >= 32:
        one, two, three, four = seed + P1 + P2, seed + P2, seed, seed - P1
        while at + 32 <= end:
            one = _round(one, load64(data, at))
            two = _round(two, load64(data, at + 8))
            three = _round(three, load64(data, at + 16))
            four = _round(four, load64(data, at + 24))
            at += 32
        sum_ = _turned(one, 1) + _turned(two, 7) + _turned(three, 12) + _turned(four, 18)
        sum_ = _merged(_merged(_merged(_merged(sum_, one), two), three), four)
    else:
        sum_ = seed + P5
    sum_ += uint64(size)
    while at + 8 <= end:
        sum_ = _turned(sum_ ^ _round(uint64(0), load64(data, at)), 27) * P1 + P4
        at += 8
    if at + 4 <= end:
        sum_ = _turned(sum_ ^ (uint64(load32(data, at)) * P1), 23) * P2 + P3
        at += 4
    while at < end:
        sum_ = _turned(sum_ ^ (uint64(data[at]) * P5), 11) * P1
        at += 1
    sum_ = (sum_ ^ (sum_ >> uint64(33))) * P2
    sum_ = (sum_ ^ (sum_ >> uint64(29))) * P3
    return sum_ ^ (sum_ >> uint64(32))


@kernel(int64(STATE, int64, _BYTES, int64, int64), allocates=False)
def answer_of(state, request, data, at, size):  # type: ignore[no-untyped-def]
    """Which of `answer` the reply data[at : at + size] is, a new one copied aside; -1 if there is no place for it.

    There is room aside: the caller has seen to it.
    """
    run = state.run[0]
    hash_ = xxh64(data, at, size, uint64(request))
    place = int64(hash_ % uint64(ANSWER_PLACES))
    while state.answer_at[place] != 0:
        known = int64(state.answer_at[place]) - 1
        answer = state.answer[known]
        if answer.hash == hash_ and answer.size == size and answer.request == request:
            return known
        place = place + 1 if place + 1 < ANSWER_PLACES else 0
    if run.answers == MOST_ANSWERS:
        return -1
    index = run.answers
    run.answers += 1
    state.answer_at[place] = int32(index + 1)
    new = state.answer[index]
    new.hash = hash_
    new.request = request
    new.size = size
    new.count = 0
    new.aside_at = run.aside_fill
    copy(state.aside, run.aside_fill, data, at, size)
    run.aside_fill += size
    return index


@kernel(types.void(_NUMBERS, int64), allocates=False)
def observe(histogram, nanoseconds):  # type: ignore[no-untyped-def]
    """histogram: int64[BUCKETS]; buckets double in width with every power of two of the value."""
    value = uint64(max(nanoseconds, 0))
    bits = int64(64) - int64(leading_zeros(value))
    shift = max(bits - HISTOGRAM_BITS - 1, 0)
    bucket = (shift << HISTOGRAM_BITS) + int64(value >> uint64(shift))
    histogram[min(bucket, BUCKETS - 1)] += 1


@kernel(types.void(STATE, int64, int64, int64, int64), allocates=False)
def count_answered(state, answer, size, began_ns, now_ns):  # type: ignore[no-untyped-def]
    """A request that got one message and status 0; whether the message is right is judged later."""
    run = state.run[0]
    run.in_flight -= 1
    state.statuses[1] += 1
    if answer < 0:
        run.overflowed += 1
        run.failed += 1
        return
    run.answered += 1
    state.answer[answer].count += 1
    run.reply_bytes += size
    if now_ns <= run.end_ns:
        run.in_time += 1
    observe(state.latency, now_ns - began_ns)
    run.longest_ns = max(run.longest_ns, now_ns - began_ns)


@kernel(types.void(STATE, int64, int64), allocates=False)
def count_failed(state, status, requests):  # type: ignore[no-untyped-def]
    """Requests that were in flight and got no message, or a status that is not 0; -1: none."""
    run = state.run[0]
    run.in_flight -= requests
    run.failed += requests
    state.statuses[min(status + 1, len(state.statuses) - 1)] += requests
