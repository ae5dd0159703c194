"""Fixtures of all suites."""

from __future__ import annotations
