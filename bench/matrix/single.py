"""placeholder"""

from bench.matrix.case import Section

SINGLE: tuple[Section, ...] = ()
