"""Reading OTEL_* variables by the rules of OpenTelemetry's "Environment Variable Specification".

An empty value means unset. Numbers that are none are problems, which end the start; unknown words of an enumeration and
booleans other than true and false are warnings, and the default holds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

MOST = 2**31 - 1
"""The largest number that the specification asks for. In milliseconds: 24 days."""
SHOWN_CHARACTERS = 100
USER_INFORMATION = re.compile(r"(?<=//)[^/@\s]*@")
DIGITS = re.compile(r"[0-9]{1,20}")


class TelemetrySettingsError(ValueError):
    """`problems`: one line each, "VARIABLE: expected this, got that"."""

    def __init__(self, problems: Sequence[str]) -> None:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__(f"the telemetry settings have {count}:\n" + "\n".join(f"  {line}" for line in problems))
        self.problems = list(problems)


class Variables:
    """An environment read with types. What is wrong is collected in `problems` and `warnings`, each line once.

    Where a method takes several names, the first that is set counts, as a signal's own variable before the general one.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._problems: dict[str, None] = {}
        self._warnings: dict[str, None] = {}

    @property
    def problems(self) -> tuple[str, ...]:
        return tuple(self._problems)

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(self._warnings)

    def problem(self, name: str, text: str) -> None:
        self._problems[f"{name}: {text}"] = None

    def warn(self, name: str, text: str) -> None:
        self._warnings[f"{name}: {text}"] = None

    def text(self, *names: str) -> tuple[str, str]:
        """The name that is set, and its value without blanks around it; (the first name, "") if none is."""
        for name in names:
            if value := self._environment.get(name, "").strip():
                return name, value
        return names[0], ""

    def listing(self, name: str) -> tuple[str, ...]:
        """The members of a list separated by commas, in lower case, each once."""
        members = (member.strip().lower() for member in self.text(name)[1].split(","))
        return tuple(dict.fromkeys(member for member in members if member))

    def number(self, *names: str, default: int | None, least: int = 0, what: str = "a whole number") -> int | None:
        """`least` to MOST; anything else is a problem."""
        name, value = self.text(*names)
        if not value:
            return default
        if not DIGITS.fullmatch(value) or not least <= int(value) <= MOST:
            self.problem(name, f"expected {what} from {least} to {MOST}, got {shown(value)}")
            return default
        return int(value)

    def seconds(self, *names: str, default: float) -> float:
        """From a variable in milliseconds."""
        milliseconds = self.number(*names, default=None, least=1, what="milliseconds, a whole number")
        return default if milliseconds is None else milliseconds / 1000

    def flag(self, *names: str) -> bool:
        name, value = self.text(*names)
        if value.lower() not in ("", "true", "false"):
            self.warn(name, f"expected true or false, got {shown(value)}; taken as false")
        return value.lower() == "true"

    def choice(self, *names: str, allowed: Sequence[str], default: str) -> str:
        name, value = self.text(*names)
        if value and value.lower() not in allowed:
            self.warn(name, f"expected one of {', '.join(allowed)}, got {shown(value)}; {default} is used")
            return default
        return value.lower() or default


def shown(value: str) -> str:
    """As messages show it: cut, and without the user and password that a URL may hold."""
    value = USER_INFORMATION.sub("...@", value)
    return repr(value if len(value) <= SHOWN_CHARACTERS else value[:SHOWN_CHARACTERS] + "...")
