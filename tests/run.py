#!/usr/bin/env python3
"""The tests, in one command:

    python3 tests/run.py                    everything: ruff, mypy, pytest
    python3 tests/run.py -k name -x         pytest alone, with these arguments

Makes .venv at the repository's top with the Python that runs this file, installs
tests/requirements.txt into it, and makes it anew when either has changed or the last
attempt was cut short. Stops at the first failure, with its exit code. Every command
runs at the repository's top, whatever the current directory: paths start from there.
"""

import importlib.util
import shlex
import subprocess
import sys
from pathlib import Path
from typing import List

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
REQUIREMENTS = ROOT / "tests" / "requirements.txt"
STAMP = VENV / "made-from.txt"  # written last: where it stands, .venv is whole
OLDEST = (3, 10)  # that the tools run on; Hubbub itself also runs on older ones

CHECKS = [
    ["-m", "ruff", "check", "."],
    ["-m", "mypy", "--strict", "server.py", "client.py", "protocol.py"],
]


def main(arguments: List[str]) -> int:
    """Run the checks and the tests; the exit code of the first that fails, or 0."""
    fault = python_fault()
    if fault:
        print("tests/run.py: " + fault, file=sys.stderr)
        return 2
    tests = ["-m", "pytest", *arguments]
    try:
        return make_venv() or run_each([tests] if arguments else [*CHECKS, tests])
    except KeyboardInterrupt:
        return 130


def python_fault() -> str:
    """Why the Python that runs this file cannot make .venv, and what to do; "" if it can."""
    if sys.version_info < OLDEST:
        return "the tests' tools need Python %d.%d or newer, this is %d.%d." % (
            *OLDEST,
            *sys.version_info[:2],
        )
    if not all(importlib.util.find_spec(name) for name in ("venv", "ensurepip")):
        return "this Python has no venv. On Debian and Ubuntu: apt install python3-venv"
    return ""


def make_venv() -> int:
    """Bring .venv up to date; the exit code of what failed, or 0."""
    made_from = "%s\n%s\n%s" % (sys.version, sys.base_prefix, REQUIREMENTS.read_text("utf-8"))
    if is_whole(made_from):
        return 0
    code = run([sys.executable, "-m", "venv", "--clear", str(VENV)])
    if code:
        return code
    code = run([str(PYTHON), "-m", "pip", "install", "--quiet", "-r", str(REQUIREMENTS)])
    if not code:
        STAMP.write_text(made_from, "utf-8")
    return code


def is_whole(made_from: str) -> bool:
    """Whether .venv was finished, from this Python and these requirements, and still runs."""
    try:
        if STAMP.read_text("utf-8") != made_from:
            return False
        probe = [str(PYTHON), "-c", "import hypothesis, mypy, pytest, pytest_timeout, ruff"]
        return subprocess.call(probe, stderr=subprocess.DEVNULL) == 0
    except (OSError, ValueError):
        return False


def run_each(commands: List[List[str]]) -> int:
    """Run Python with each list of arguments; the exit code of the first that fails, or 0."""
    for command in commands:
        code = run([str(PYTHON), *command])
        if code:
            return code
    return 0


def run(command: List[str]) -> int:
    """Print a command, run it at the repository's top, give its exit code."""
    shown = [word.replace(str(ROOT), ".", 1) for word in command]
    print("$ " + " ".join(map(shlex.quote, shown)), flush=True)
    return subprocess.call(command, cwd=str(ROOT))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
