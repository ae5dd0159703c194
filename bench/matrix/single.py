"""The sections that measure one thing at a time."""

from bench.matrix.case import Section
from bench.matrix.idle import Idle
from bench.matrix.tail import Tail

SINGLE: tuple[Section, ...] = (Tail(), Idle())
