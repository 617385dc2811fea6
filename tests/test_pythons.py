"""A server and a client on different versions of Python, for all installed versions."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from subprocess import PIPE
from urllib.request import urlopen

import pytest

ROOT = Path(__file__).resolve().parent.parent
OLDEST = (3, 6)
TIMEOUT = 20  # seconds; reached only by a failing test

PRINT_VERSION = "import sys; print(*sys.version_info[:2], sys.executable, sep='\\n')"
EXCHANGE = """
import ssl, sys
import protocol, server
for size in (1, 100, 1 << 20):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    theirs = protocol.TlsPipe(server.load_certificate(sys.argv[1], "")[0])
    ours = protocol.TlsPipe(context, "hubbub.example")
    ours.send(b"hello")
    heard = {ours: b"", theirs: b""}
    def carry():
        for here, there in ((ours, theirs), (theirs, ours)) * 4:
            data = here.outgoing()
            for start in range(0, len(data), size):
                heard[there] += there.receive(data[start : start + size])
    carry()
    theirs.send(b"x" * 50000)
    ours.send(b"bye")
    ours.close()
    carry()
    assert heard == {theirs: b"hellobye", ours: b"x" * 50000}, heard
    assert theirs.is_ended and not ours.is_ended
    assert ours.fingerprint() == server.load_certificate(sys.argv[1], "")[1]
"""
CLOCK = re.compile(r"\[\d\d:\d\d:\d\d\] ")
LOG_LINE = re.compile(r"(\d{4}-\d\d-\d\d [\d:,]+ )?(DEBUG|INFO|WARNING) .")


def candidates():
    """Yield paths of Pythons: the running Python, those of pyenv, and pythonX.Y in PATH."""
    yield Path(sys.executable)
    pyenv = Path(os.environ.get("PYENV_ROOT") or "~/.pyenv").expanduser()
    yield from pyenv.glob("versions/3.*/bin/python")
    for folder in os.get_exec_path():
        for path in Path(folder).glob("python3.*"):
            if re.match(r"python3\.\d+(\.exe)?$", path.name):
                yield path


def find_pythons():
    """Return the path of a Python for each version from OLDEST on, as {(3, minor): path}."""
    found = {}
    for path in candidates():
        name = re.match(r"python(3)\.(\d+)", path.name)
        if name and tuple(map(int, name.groups())) in found:
            continue
        try:
            command = [str(path), "-c", PRINT_VERSION]
            result = subprocess.run(command, stdout=PIPE, stderr=PIPE, timeout=TIMEOUT)
        except (OSError, subprocess.SubprocessError):
            continue
        if result.returncode == 0:  # pyenv's wrappers of inactive versions fail
            major, minor, executable = result.stdout.decode().splitlines()
            found.setdefault((int(major), int(minor)), executable)
    return {version: found[version] for version in sorted(found) if version >= OLDEST}


PYTHONS = find_pythons()
VERSIONS = list(PYTHONS)
PAIRS = list(zip(VERSIONS, VERSIONS[1:] + VERSIONS[:1]))


class User:
    """A user of plain text or of the terminal: sends lines and reads lines."""

    def __init__(self, write, read):
        self._write = write
        self._read = read

    def send(self, *lines):
        for line in lines:
            self._write.write(line.encode() + b"\n")
        self._write.flush()

    def expect(self, *texts):
        """Read until all of `texts` have come in this order, each after its time."""
        for text in texts:
            seen = None
            while seen != text:
                line = self._read.readline().decode().rstrip("\r\n")
                assert CLOCK.match(line), "%r instead of %r" % (line, text)
                print(line)  # shown if the test fails
                seen = CLOCK.sub("", line, 1)


@pytest.fixture
def start(tmp_path):
    """Start programs of the repository on a version of Python, with stderr in a file."""
    with ExitStack() as stack:

        def start_program(version, *arguments, folder=ROOT):
            errors = tmp_path / (arguments[0] + ".err")
            stderr = stack.enter_context(errors.open("wb"))
            stack.callback(lambda: print(errors.read_text("utf-8")))  # shown if the test fails
            command = [PYTHONS[version], "-E", "-B", "-W", "error", *arguments]
            program = stack.enter_context(
                subprocess.Popen(command, cwd=str(folder), stdin=PIPE, stdout=PIPE, stderr=stderr)
            )
            stack.callback(program.kill)
            program.errors = errors
            return program

        yield start_program


def check_exit(program):
    """Check that a program ends by itself with exit code 0 and wrote only log lines."""
    code = program.wait(TIMEOUT)
    errors = program.errors.read_text("utf-8")
    assert [line for line in errors.splitlines() if not LOG_LINE.match(line)] == []
    assert code == 0, errors


def serve(start, version):
    """Start a server; return it and its port."""
    options = "--host", "127.0.0.1", "--port", "0", "--no-discovery"
    server = start(version, "server.py", *options)
    first_line = server.stdout.readline().decode()
    running = re.match(r"\[SERVER\] Running on 127\.0\.0\.1:(\d+)\r?\n", first_line)
    assert running, first_line
    return server, int(running.group(1))


@pytest.mark.parametrize(
    ("server_version", "client_version"),
    PAIRS,
    ids=["server_%d.%d-client_%d.%d" % (*server, *client) for server, client in PAIRS],
)
def test_client_and_server_run_on_different_pythons(start, server_version, client_version):
    server, port = serve(start, server_version)
    address = "127.0.0.1:%d" % port
    with ExitStack() as stack:
        peer = stack.enter_context(socket.create_connection(("127.0.0.1", port), TIMEOUT))
        bob = User(*(stack.enter_context(peer.makefile(mode)) for mode in ("wb", "rb")))
        bob.send("bob")
        bob.expect("[SERVER]: bob joined the chat")

        client = start(client_version, "client.py", address, "--username", "alice", "--terminal")
        alice = User(client.stdin, client.stdout)
        alice.expect("[SERVER]: alice joined the chat")
        alice.send("é 李 😀", "@bob psst: é 李 😀")
        bob.expect("[SERVER]: alice joined the chat", "[alice]: é 李 😀")
        bob.expect("[alice -> you]: psst: é 李 😀")
        alice.expect("[alice]: é 李 😀", "[you -> bob]: psst: é 李 😀")

        bob.send("😀 李 é", "@alice yes: 😀 李 é")
        bob.expect("[bob]: 😀 李 é", "[you -> alice]: yes: 😀 李 é")
        alice.expect("[bob]: 😀 李 é", "[bob -> you]: yes: 😀 李 é")

        if shutil.which("openssl"):
            irc = stack.enter_context(socket.create_connection(("127.0.0.1", int(port)), TIMEOUT))
            irc.sendall(b"NICK carol\r\nUSER c 0 * :c\r\nWHOIS alice\r\nQUIT\r\n")
            assert b" 671 carol alice " in b"".join(iter(lambda: irc.recv(65536), b""))
            bob.expect("[SERVER]: carol left the chat")
            alice.expect("[SERVER]: carol left the chat")

        alice.send("/list")
        alice.expect("[SERVER]: Online users (2): alice, bob")
        alice.send("/quit")
        check_exit(client)
        bob.expect("[SERVER]: alice left the chat")

    if sys.platform != "win32":  # where terminating a program is killing it
        server.send_signal(signal.SIGTERM)
        check_exit(server)


@pytest.mark.parametrize("version", VERSIONS, ids=["%d.%d" % version for version in VERSIONS])
def test_tls_is_the_same_on_all_pythons(version, certificate):
    """Their ssl modules report the end of what a peer says in different ways."""
    command = [PYTHONS[version], "-E", "-B", "-W", "error", "-c", EXCHANGE, str(certificate)]
    subprocess.run(command, cwd=str(ROOT), timeout=TIMEOUT, check=True)


@pytest.mark.parametrize("version", [VERSIONS[0], VERSIONS[-1]], ids="{0[0]}.{0[1]}".format)
def test_app_that_a_server_hands_out_joins_it(start, tmp_path, version):
    """From an empty folder, without an argument that names the server."""
    _, port = serve(start, VERSIONS[-1 - VERSIONS.index(version)])
    folder = tmp_path / "downloads"
    folder.mkdir()
    with urlopen("http://127.0.0.1:%d/hubbub.pyz" % port, timeout=TIMEOUT) as answer:
        (folder / "hubbub.pyz").write_bytes(answer.read())
    client = start(version, "hubbub.pyz", "--username", "alice", "--terminal", folder=folder)
    alice = User(client.stdin, client.stdout)
    alice.expect("[SERVER]: alice joined the chat")
    alice.send("hello", "/quit")
    alice.expect("[alice]: hello")
    check_exit(client)
    assert os.listdir(str(folder)) == ["hubbub.pyz"]
