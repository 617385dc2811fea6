#!/usr/bin/env python3
"""The tests, in one command:

    python3 tests/run.py                    everything: ruff, mypy, pytest
    python3 tests/run.py -k name -x         pytest alone, with these arguments

Makes .venv at the repository's top with the Python that runs this file, installs
tests/requirements.txt into it, and makes it anew when either has changed or the last
attempt was cut short. Before everything it also installs the Debian packages of the
programs that the tests drive, where that takes no question: as root, or with sudo in CI.
The tests of what is missing then are skipped. Stops at the first failure, with its exit
code. Every command runs at the repository's top, whatever the current directory: paths
start from there.
"""

import glob
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import List, Optional

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
REQUIREMENTS = ROOT / "tests" / "requirements.txt"
STAMP = VENV / "made-from.txt"  # written last: where it stands, .venv is whole
OLDEST = (3, 10)  # that the tools run on; Hubbub itself also runs on older ones

PACKAGES = {  # of Debian and Ubuntu, by the program, or file, that the tests need
    "Xvfb": "xvfb",
    "xdotool": "xdotool",
    "import": "imagemagick",
    "weechat": "weechat-curses",
    "/usr/lib/*/weechat/plugins/fifo.so": "weechat-plugins",
    "irssi": "irssi",
    "hexchat": "hexchat",
    "dbus-daemon": "dbus-daemon",
    "tmux": "tmux",
    "nc": "netcat-openbsd",
    "ngircd": "ngircd",
}
SERVICES = ["ngircd"]  # that Debian would start at once, and open to the network
APT = [
    "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-o", "Dpkg::Use-Pty=0",
    "-o", "DPkg::Lock::Timeout=60", "-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=20",
]  # fmt: skip

# A process for each core takes one file of tests after the other.
SIDE_BY_SIDE = ["-n", "auto", "--dist", "loadfile"]
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
    tests = ["-m", "pytest", *(arguments or SIDE_BY_SIDE)]
    try:
        if not arguments:
            install_programs()
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


def install_programs() -> None:
    """Install what the tests drive and this machine lacks, and say what it lacks then."""
    missing = missing_packages()
    root = how_to_be_root() if missing and shutil.which("apt-get") else None
    if root is not None:
        services = [name + ".service" for name in SERVICES if name in missing]
        if services and shutil.which("systemctl"):
            run([*root, "systemctl", "--quiet", "mask", *services])
        install = [*root, *APT, "install", "-y", "--no-install-recommends"]
        if run([*root, *APT, "update"]) or run([*install, *missing], is_quiet=True):
            for package in missing:  # one that there is not must not keep out the others
                run([*install, package], is_quiet=True)
        missing = missing_packages()
    if missing:
        print("Not installed, so that tests are skipped: " + " ".join(missing), flush=True)


def missing_packages() -> List[str]:
    """The packages of what is not there."""
    return [package for program, package in PACKAGES.items() if not find_program(program)]


def find_program(name: str) -> Optional[str]:
    """Where a program or a file is, be it one that only root has in the PATH."""
    if "/" in name:
        return next(glob.iglob(name), None)
    return shutil.which(name, path=os.environ.get("PATH", os.defpath) + os.pathsep + "/usr/sbin")


def how_to_be_root() -> Optional[List[str]]:
    """What to put before a command of root's; None where that takes a question."""
    if os.geteuid() == 0:
        return []
    if not (os.environ.get("CI") and shutil.which("sudo")):
        return None
    sudo = ["sudo", "-n"]
    return sudo if subprocess.call([*sudo, "true"], stderr=subprocess.DEVNULL) == 0 else None


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
        probe = [str(PYTHON), "-c", "import hypothesis, mypy, pytest, pytest_timeout, ruff, xdist"]
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


def run(command: List[str], is_quiet: bool = False) -> int:
    """Print a command, run it at the repository's top, give its exit code."""
    shown = [word.replace(str(ROOT), ".", 1) for word in command]
    print("$ " + " ".join(map(shlex.quote, shown)), flush=True)
    stdout = subprocess.DEVNULL if is_quiet else None
    return subprocess.call(command, cwd=str(ROOT), stdout=stdout)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
