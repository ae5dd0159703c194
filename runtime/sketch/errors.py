"""What sketches refuse, and whose fault it is.

ValueError
└── SketchError
    ├── BadValues       values of a dtype, shape or order that no sketch takes: the caller's
    ├── NotMergeable    two sketches of different shapes or settings: the caller's
    └── Malformed       bytes or memory that are no sketch of this version: their writer's
"""

from __future__ import annotations


class SketchError(ValueError):
    """The root."""


class BadValues(SketchError):
    pass


class NotMergeable(SketchError):
    pass


class Malformed(SketchError):
    pass
