#!/usr/bin/env python3
"""Run the checks and the tests.

    python3 tests/run.py                    ruff, mypy and pytest
    python3 tests/run.py -k name -x         pytest alone, with these arguments

Creates .venv at the top of the repository with the Python that runs this file and installs
tests/requirements.txt there; creates it again after either has changed or an attempt was
interrupted. Without arguments it also installs the Debian packages of the programs that the
tests run, if that needs no password: as root, or with sudo in CI. Tests of missing programs are
skipped. Stops at the first failure and returns its exit code. All commands run at the top of
the repository.
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
STAMP = VENV / "made-from.txt"  # written last: without it .venv is incomplete
OLDEST = (3, 10)  # for the tools; Hubbub itself also runs on older versions

PACKAGES = {  # program or file: its package in Debian and Ubuntu
    "Xvfb": "xvfb",
    "openbox": "openbox",
    "xdotool": "xdotool",
    "xwininfo": "x11-utils",
    "import": "imagemagick",
    "weechat": "weechat-curses",
    "/usr/lib/*/weechat/plugins/fifo.so": "weechat-plugins",
    "irssi": "irssi",
    "hexchat": "hexchat",
    "dbus-daemon": "dbus-daemon",
    "tmux": "tmux",
    "nc": "netcat-openbsd",
    "ngircd": "ngircd",
    "inspircd": "inspircd",
}
SERVICES = ["ngircd", "inspircd"]  # packages whose server Debian would start, open to the network
APT = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"]
APT += ["-o", "Dpkg::Use-Pty=0", "-o", "DPkg::Lock::Timeout=60"]
APT += ["-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=20"]

CHECKS = [["-m", "ruff", "check", "."], ["-m", "ruff", "format", "--check", "."], ["-m", "mypy"]]
PYTEST = ["-m", "pytest"]
# Tests wait for much of their time: a process more than there are cores. Each file is in one.
PARALLEL = ["-n", str((os.cpu_count() or 1) + 1), "--dist", "loadfile"]


def main(arguments: List[str]) -> int:
    """Run the checks and the tests; return the first exit code other than 0, or 0."""
    error = python_error()
    if error:
        print("tests/run.py: " + error, file=sys.stderr)
        return 2
    commands = [[*PYTEST, *arguments]] if arguments else [*CHECKS, [*PYTEST, *PARALLEL]]
    if not arguments:
        install_packages()
    code = create_venv()
    for command in commands:
        code = code or run([str(PYTHON), *command])
    return code


def python_error() -> str:
    """Return why this Python cannot create .venv and what helps; "" if it can."""
    if sys.version_info < OLDEST:
        return "the test tools need Python %d.%d or newer, this is %d.%d." % (
            *OLDEST,
            *sys.version_info[:2],
        )
    if not all(importlib.util.find_spec(name) for name in ("venv", "ensurepip")):
        return "this Python has no venv. On Debian and Ubuntu: apt install python3-venv"
    return ""


def install_packages() -> None:
    """Install the missing packages if that needs no password; print those still missing."""
    missing = missing_packages()
    root = root_prefix() if missing and shutil.which("apt-get") else None
    if root is not None:
        for package in set(SERVICES) & set(missing):
            if shutil.which("systemctl"):
                run([*root, "systemctl", "--quiet", "mask", package + ".service"])
        run([*root, *APT, "update"])
        for package in missing:  # one at a time: a release may lack some of them
            run([*root, *APT, "install", "-y", "--no-install-recommends", package], is_quiet=True)
        missing = missing_packages()
    if missing:
        print("Not installed, their tests are skipped: " + " ".join(missing), flush=True)


def missing_packages() -> List[str]:
    """Return the packages whose program or file is not on this machine."""
    return [package for program, package in PACKAGES.items() if not find_program(program)]


def find_program(name: str) -> Optional[str]:
    """Return the path of a program, in PATH or /usr/sbin, or of a file; None if there is none."""
    if "/" in name:
        return next(glob.iglob(name), None)
    return shutil.which(name, path=os.environ.get("PATH", os.defpath) + os.pathsep + "/usr/sbin")


def root_prefix() -> Optional[List[str]]:
    """Return the words to put before a command to run it as root; None if not possible."""
    if os.geteuid() == 0:
        return []
    sudo = ["sudo", "-n"]  # fails rather than asking for a password
    if not os.environ.get("CI") or not shutil.which("sudo"):
        return None
    return sudo if subprocess.call([*sudo, "true"], stderr=subprocess.DEVNULL) == 0 else None


def create_venv() -> int:
    """Create .venv unless it is up to date; return the exit code of what failed, or 0."""
    made_from = "%s\n%s\n%s" % (sys.version, sys.base_prefix, REQUIREMENTS.read_text("utf-8"))
    if STAMP.is_file() and STAMP.read_text("utf-8") == made_from:
        return 0
    code = run([sys.executable, "-m", "venv", "--clear", str(VENV)])
    code = code or run([str(PYTHON), "-m", "pip", "install", "-q", "-r", str(REQUIREMENTS)])
    if not code:
        STAMP.write_text(made_from, "utf-8")
    return code


def run(command: List[str], is_quiet: bool = False) -> int:
    """Print a command, run it at the top of the repository and return its exit code."""
    shown = [word.replace(str(ROOT), ".", 1) for word in command]
    print("$ " + " ".join(map(shlex.quote, shown)), flush=True)
    stdout = subprocess.DEVNULL if is_quiet else None
    return subprocess.call(command, cwd=str(ROOT), stdout=stdout)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
