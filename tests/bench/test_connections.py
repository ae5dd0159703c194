"""Connections dealt out by chance: what the busiest worker leaves of the capacity of all."""

from itertools import product

import pytest

from bench.connections import CONNECTIONS, share, table


def enumerated(connections, workers):
    """Over all ways that the connections may fall."""
    ways = list(product(range(workers), repeat=connections))
    return sum(connections / workers / max(map(way.count, range(workers))) for way in ways) / len(ways)


@pytest.mark.parametrize(("connections", "workers"), [(1, 4), (2, 2), (3, 2), (4, 4), (5, 3), (8, 2)])
def test_the_share_is_that_of_all_ways_counted(connections, workers):
    """Where they can be counted."""
    assert share(connections, workers) == pytest.approx(enumerated(connections, workers))


def test_more_connections_even_out():
    """And never reach all of it."""
    shares = [share(count, 4) for count in CONNECTIONS]
    assert shares == sorted(shares)
    assert shares[-1] < 1


def test_the_table_has_a_row_for_each_count():
    assert len(table().rows) == len(CONNECTIONS)
