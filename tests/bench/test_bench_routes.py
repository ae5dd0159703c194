"""The benchmark of routes measures what it says."""

from __future__ import annotations

from bench import routes


def test_every_case_runs_and_is_named_once() -> None:
    made = routes.cases()
    for _, run in made:
        run()
    assert len({title for title, _ in made}) == len(made) == 9
