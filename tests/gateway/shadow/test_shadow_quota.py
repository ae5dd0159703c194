"""The container's quota, as the kernel tells of it."""

from __future__ import annotations

from pathlib import Path

from gateway.shadow.quota import Quota


def test_a_quota_was_used_up_if_the_kernel_has_throttled_since_the_last_look(tmp_path: Path) -> None:
    file = tmp_path / "cpu.stat"
    file.write_text("usage_usec 10\nnr_periods 5\nnr_throttled 2\nthrottled_usec 9\n")
    quota = Quota((tmp_path / "missing", file))
    assert not quota.was_used_up(), "what was before counts for nothing"
    file.write_text("usage_usec 10\nnr_periods 6\nnr_throttled 3\nthrottled_usec 12\n")
    assert quota.was_used_up()
    assert not quota.was_used_up()


def test_where_nobody_counts_there_is_no_quota(tmp_path: Path) -> None:
    (tmp_path / "cpu.stat").write_text("usage_usec 10\n")
    assert not Quota((tmp_path / "cpu.stat",)).was_used_up()
    assert not Quota((tmp_path / "missing",)).was_used_up()
