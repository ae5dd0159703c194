"""Reading OTEL_* variables by the rules of OpenTelemetry's "Environment Variable Specification".

An empty value means unset. Numbers that are none or out of range, unknown words of an enumeration, and booleans other
than true and false are warnings, and the default holds. Problems, which end the start, are for what has no default that
could stand for it: where telemetry goes, and with which credentials.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

MOST = 2**31 - 1
"""The largest number that the specification asks for. In milliseconds: 24 days."""
INDEFINITE_SECONDS = 24 * 86_400.0
"""What a timeout of 0 stands for, as the specification allows: sockets count milliseconds in 31 bits."""
SHOWN_CHARACTERS = 100
DIGITS = re.compile(r"[0-9]{1,20}")
SCHEME = re.compile(r"[^/?#@]*//")


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
        """`least` to MOST; anything else counts as unset."""
        name, value = self.text(*names)
        if not value:
            return default
        if not DIGITS.fullmatch(value) or not least <= int(value) <= MOST:
            self.warn(name, f"expected {what} from {least} to {MOST}, got {shown(value)}; the default holds")
            return default
        return int(value)

    def seconds(self, *names: str, default: float, least: int = 0) -> float:
        """From a variable in milliseconds, at `least` so many."""
        milliseconds = self.number(*names, default=None, least=least, what="milliseconds, a whole number")
        return default if milliseconds is None else milliseconds / 1000

    def timeout(self, *names: str, default: float) -> float:
        """The same, where 0 means that there is no limit."""
        return min(self.seconds(*names, default=default) or INDEFINITE_SECONDS, INDEFINITE_SECONDS)

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
    """As messages show it: cut, and without what may be a secret in a URL."""
    value = without_secrets(value)
    return repr(value if len(value) <= SHOWN_CHARACTERS else value[:SHOWN_CHARACTERS] + "...")


def without_secrets(url: str) -> str:
    """Without user, password and query, also of what is no proper URL: http://me:a/b@c:1?key=d → http://...@c:1?..."""
    scheme = SCHEME.match(url)
    begin = scheme[0] if scheme else ""
    head, *queries = re.split(r"([?#])", url.removeprefix(begin), maxsplit=1)
    if "@" in "".join(queries):  # the mark may stand in a password: nothing tells where the host begins
        return f"{begin}..."
    _, at, host = head.rpartition("@")
    return begin + ("...@" if at else "") + host + (f"{queries[0]}..." if queries else "")
