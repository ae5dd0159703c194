"""A peer's own virtual environment, made once from its pinned packages: bench/peers/<name>.txt."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

REPOSITORY_ROOT = Path(__file__).resolve().parent.parent.parent
CACHE = REPOSITORY_ROOT / ".bench" / "peers"
INSTALL_SECONDS = 600.0

COMPLETE = ".complete"
"""Written last, with a digest of what it was made of."""


class NotInstalled(Exception):
    """A peer cannot be had here; says why in one line."""


@dataclass(frozen=True, slots=True)
class Home:
    """A peer's virtual environment."""

    folder: Path

    @property
    def programs(self) -> Path:
        return self.folder / "bin"

    @property
    def packages(self) -> Path:
        return self.folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"


def requirements_of(name: str) -> Path:
    return Path(__file__).with_name(f"{name}.txt")


def versions_of(name: str) -> dict[str, str]:
    """What is pinned, by package."""
    lines = (line.partition("#")[0].strip() for line in requirements_of(name).read_text().splitlines())
    return {package: version for package, _, version in (line.partition("==") for line in lines if line)}


def installed(
    name: str, finish: Callable[[Home], None] = lambda _: None, cache: Path = CACHE, pip: tuple[str, ...] = ()
) -> Home:
    """The peer's home; made anew where it is not that of these packages and this Python. `pip`: more of its arguments.

    Raises NotInstalled. Two runs at once do not meet: the second waits.
    """
    home = Home(cache / name)
    stamp = home.folder / COMPLETE
    wanted = hashlib.sha256(requirements_of(name).read_bytes() + sys.version.encode()).hexdigest()
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.is_file() and stamp.read_text() == wanted:
            return home
        shutil.rmtree(home.folder, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(home.folder)])
        # Without dependencies: the list is complete, and what it leaves out is not needed.
        command = [str(home.programs / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*command, *pip, "--no-deps", "--only-binary", ":all:", "--requirement", str(requirements_of(name))])
        finish(home)
        stamp.write_text(wanted)
    return home


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=INSTALL_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise NotInstalled(f"{Path(command[0]).name} did not end within {INSTALL_SECONDS:.0f} s") from error
    if done.returncode:
        raise NotInstalled(last_line(done.stderr) or f"{Path(command[0]).name} ended with {done.returncode}")


def last_line(text: str) -> str:
    """Of pip's complaint: its last line says what is wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("ERROR: ") if lines else ""
