"""Server and client talk across Python versions: each one that is here with its neighbour."""

import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from subprocess import PIPE

import pytest

ROOT = Path(__file__).resolve().parent.parent
OLDEST = (3, 6)
TIMEOUT = 20  # seconds; reached only where something is broken

WHO = "import sys; print(*sys.version_info[:2], sys.executable, sep='\\n')"
CLOCK = re.compile(r"\[\d\d:\d\d:\d\d\] ")
LOGGED = re.compile(r"(\d{4}-\d\d-\d\d [\d:,]+ )?(DEBUG|INFO|WARNING) .")


def find_pythons():
    """The Pythons of this machine, oldest first: (3, minor) to path, one for each minor."""
    found = {}
    for path in candidates():
        name = re.match(r"python(3)\.(\d+)", path.name)
        if name and tuple(map(int, name.groups())) in found:
            continue
        try:
            answer = subprocess.run(
                [str(path), "-c", WHO], stdout=PIPE, stderr=PIPE, timeout=TIMEOUT
            )
        except (OSError, subprocess.SubprocessError):
            continue
        if answer.returncode == 0:  # pyenv's stand-ins for versions that are not active fail
            major, minor, executable = answer.stdout.decode().splitlines()
            found.setdefault((int(major), int(minor)), executable)
    return {version: found[version] for version in sorted(found) if version >= OLDEST}


def candidates():
    """What may be a Python: the one that runs this, pyenv's, and pythonX.Y on PATH."""
    yield Path(sys.executable)
    pyenv = Path(os.environ.get("PYENV_ROOT") or "~/.pyenv").expanduser()
    yield from pyenv.glob("versions/3.*/bin/python")
    for folder in os.get_exec_path():
        for path in Path(folder).glob("python3.*"):
            if re.match(r"python3\.\d+(\.exe)?$", path.name):
                yield path


PYTHONS = find_pythons()
VERSIONS = list(PYTHONS)
NEIGHBOURS = list(zip(VERSIONS, VERSIONS[1:] + VERSIONS[:1]))


class Speaker:
    """One side of the conversation: lines go in, and lines come out."""

    def __init__(self, write, read):
        self._write = write
        self._read = read

    def say(self, *lines):
        for line in lines:
            self._write.write(line.encode() + b"\n")
        self._write.flush()

    def expect(self, *texts):
        """Read on until all of `texts` have come, in this order, each behind its time."""
        for text in texts:
            while True:
                line = self._read.readline().decode().rstrip("\r\n")
                assert line, "the end came before %r" % text
                print(line)  # shown where a test fails
                assert CLOCK.match(line)
                if CLOCK.sub("", line, 1) == text:
                    break


@pytest.fixture
def start(tmp_path):
    """Start a program of the repository; what it says on stderr goes into a file."""
    with ExitStack() as stack:

        def start_program(version, *arguments):
            errors = tmp_path / (arguments[0] + ".err")
            stderr = stack.enter_context(errors.open("wb"))
            stack.callback(lambda: print(errors.read_text("utf-8")))  # shown where a test fails
            command = [PYTHONS[version], "-E", "-B", "-W", "error", *arguments]
            program = stack.enter_context(
                subprocess.Popen(command, cwd=str(ROOT), stdin=PIPE, stdout=PIPE, stderr=stderr)
            )
            stack.callback(program.kill)
            program.errors = errors
            return program

        yield start_program


def check_end(program):
    """It ends by itself with exit code 0, and has nothing to report but its log."""
    code = program.wait(TIMEOUT)
    errors = program.errors.read_text("utf-8")
    assert [line for line in errors.splitlines() if not LOGGED.match(line)] == []
    assert code == 0, errors


@pytest.mark.parametrize(
    ("server_version", "client_version"),
    NEIGHBOURS,
    ids=["server_%d.%d-client_%d.%d" % (*server, *client) for server, client in NEIGHBOURS],
)
def test_neighbouring_pythons_understand_each_other(start, server_version, client_version):
    """A client and a server on different Pythons understand each other, emoji and all."""
    server = start(server_version, "server.py", "--host", "127.0.0.1", "--port", "0")
    opening = server.stdout.readline().decode()
    running = re.match(r"\[SERVER\] Running on (127\.0\.0\.1:(\d+))\r?\n", opening)
    assert running, opening
    place, port = running.groups()

    with ExitStack() as stack:
        peer = stack.enter_context(socket.create_connection(("127.0.0.1", int(port)), TIMEOUT))
        bob = Speaker(*(stack.enter_context(peer.makefile(mode)) for mode in ("wb", "rb")))
        bob.say("bob")
        bob.expect("[SERVER]: bob joined the chat")

        client = start(client_version, "client.py", place, "--username", "alice", "--terminal")
        alice = Speaker(client.stdin, client.stdout)
        alice.expect("[SERVER]: alice joined the chat")
        alice.say("é 李 😀", "@bob psst: é 李 😀")
        bob.expect("[SERVER]: alice joined the chat", "[alice]: é 李 😀")
        bob.expect("[alice -> you]: psst: é 李 😀")
        alice.expect("[alice]: é 李 😀", "[you -> bob]: psst: é 李 😀")

        bob.say("😀 李 é", "@alice yes: 😀 李 é")
        bob.expect("[bob]: 😀 李 é", "[you -> alice]: yes: 😀 李 é")
        alice.expect("[bob]: 😀 李 é", "[bob -> you]: yes: 😀 李 é")

        alice.say("/list")
        alice.expect("[SERVER]: Online users (2): alice, bob")
        alice.say("/quit")
        check_end(client)
        bob.expect("[SERVER]: alice left the chat")

    if sys.platform != "win32":  # where terminating a program is the same as killing it
        server.send_signal(signal.SIGTERM)
        check_end(server)
