"""Regular expressions of route rules: the only file that imports RE2, whose time is linear in the text's length.

Operators write the patterns and clients the texts, so a pattern that is slow on some text would be a way to stop a
worker. RE2 has no such patterns; what is left is size, which is bounded here.
"""

from __future__ import annotations

import re2

PATTERN_LIMIT = 256
"""Characters of a pattern."""

PROGRAM_LIMIT = 2_000
"""Instructions that a pattern becomes: repetitions such as {1000} make many of few characters."""

TEXT_LIMIT = 1_024
"""Characters of a text; a longer one matches nothing. At worst a match takes PROGRAM_LIMIT × TEXT_LIMIT steps."""

MEMORY_BYTES = 1 << 20
"""Of one pattern's states in a worker; RE2 makes them as it goes, and starts anew when they fill this."""


class PatternError(ValueError):
    """What is wrong with a pattern, in words."""


class Pattern:
    """Matches whole texts. Raises PatternError."""

    __slots__ = ("_fullmatch", "text")

    def __init__(self, text: str) -> None:
        if len(text) > PATTERN_LIMIT:
            raise PatternError(f"{len(text)} characters; the limit is {PATTERN_LIMIT}")
        options = re2.Options()
        options.max_mem = MEMORY_BYTES
        options.log_errors = False
        options.never_capture = True
        try:
            # Bytes: for text, RE2's wrapper counts characters after each match, at twice the time of the match.
            compiled = re2.compile(text.encode(), options)
        except re2.error as error:
            reason = error.args[0] if error.args else "unknown"
            raise PatternError(reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)) from None
        except UnicodeEncodeError:
            raise PatternError("it holds half a character (a lone surrogate)") from None
        if compiled.programsize > PROGRAM_LIMIT:
            raise PatternError(f"it becomes {compiled.programsize} instructions; the limit is {PROGRAM_LIMIT}")
        self.text = text
        self._fullmatch = compiled.fullmatch

    def matches(self, text: str) -> bool:
        return len(text) <= TEXT_LIMIT and self._fullmatch(text.encode()) is not None
