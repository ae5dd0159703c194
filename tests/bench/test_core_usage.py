"""Whose time the two cores spent."""

from bench.cores import Usage


def usage(server: float, load: float, server_core: float, load_core: float) -> Usage:
    return Usage(
        wall_seconds=10.0,
        server_seconds=server,
        load_seconds=load,
        server_core_seconds=server_core,
        load_core_seconds=load_core,
    )


def test_others_are_what_server_and_load_leave_unexplained_on_the_worse_core() -> None:
    assert usage(server=7, load=2, server_core=10, load_core=3).others_seconds(shared=False) == 3
    assert usage(server=9, load=2, server_core=10, load_core=8).others_seconds(shared=False) == 6


def test_on_a_shared_core_server_and_load_both_explain_its_time() -> None:
    assert usage(server=6, load=3, server_core=10, load_core=10).others_seconds(shared=True) == 1


def test_clocks_that_tick_apart_never_give_less_than_nothing() -> None:
    assert usage(server=9.99, load=1, server_core=9.98, load_core=0.99).others_seconds(shared=False) == 0


def test_a_span_is_the_difference_of_every_clock() -> None:
    span = usage(9, 3, 10, 5).since(usage(2, 1, 4, 4))

    assert (span.wall_seconds, span.server_seconds, span.load_seconds) == (0, 7, 2)
    assert (span.server_core_seconds, span.load_core_seconds) == (6, 1)
