"""Which rows a sample keeps."""

from __future__ import annotations

from numba import int64, types, uint64

from runtime.kernels import inline, kernel

SEEN, FILLED, SEED, PLACE = range(4)  # PLACE: of the greatest key, once all places are filled


@inline
def _mixed(word):  # type: ignore[no-untyped-def]
    """SplitMix64's finalizer (Steele, Lea, Flood 2014): a counter becomes words that pass for random."""
    word = (word ^ (word >> uint64(30))) * uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> uint64(27))) * uint64(0x94D049BB133111EB)
    return word ^ (word >> uint64(31))


_WORDS = types.Array(uint64, 1, "C")
_PLACES = types.Array(int64, 1, "C")


@kernel(int64(_WORDS, _WORDS, int64, _PLACES, _PLACES), allocates=False)
def choose(head, keys, rows, picked, places):  # type: ignore[no-untyped-def]
    """Which of the next rows are kept, and where: picked[i] goes to places[i]. A later one may go to the same place."""
    size = len(keys)
    count = 0
    for row in range(rows):
        key = _mixed(head[SEED] + (head[SEEN] + uint64(row)) * uint64(0x9E3779B97F4A7C15))
        if head[FILLED] < uint64(size):
            place = int64(head[FILLED])
            head[FILLED] += uint64(1)
        elif key < keys[int64(head[PLACE])]:
            place = int64(head[PLACE])
        else:
            continue
        keys[place] = key
        picked[count] = row
        places[count] = place
        count += 1
        if head[FILLED] == uint64(size):
            greatest = 0
            for i in range(1, size):
                if keys[i] > keys[greatest]:
                    greatest = i
            head[PLACE] = uint64(greatest)
    head[SEEN] += uint64(rows)
    return count
