"""Clients for the tests: `alice.send(...)`, `bob.expect(...)`, and the server they meet on.

Nothing here waits for time to pass. A barrier proves that an event has happened, or has not: the
server answers in order, so everything that it sent before an answer has come.
"""

import contextlib
import itertools
import os
import re
import socket
import ssl
import struct
import subprocess
import sys
import threading
from pathlib import Path

import server
from protocol import casefold

TIMEOUT = 20.0  # seconds until a test fails; no passing test waits for it
PROGRAM = Path(server.__file__)
_numbers = itertools.count()


def count_descriptors():
    """Return the number of open file descriptors of this process; 0 without /proc."""
    with contextlib.suppress(OSError):
        return len(os.listdir("/proc/self/fd"))
    return 0


def trusting_context():
    """Return a context for clients that takes any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


class Talker:
    """A connection that sends nothing by itself, and reads line by line."""

    def __init__(self, port, receive_buffer=0, host="127.0.0.1", tls=False):
        self._socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self._socket.settimeout(TIMEOUT)
        if receive_buffer:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.connect((host, port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.address = "%s:%d" % self._socket.getsockname()[:2]
        if tls:
            self._socket = trusting_context().wrap_socket(self._socket)
            self.certificate = self._socket.getpeercert(binary_form=True)
        self._lines = []
        self._rest = b""

    # Sending

    def send(self, *lines):
        """Send lines, in a single write."""
        self.send_bytes("".join(line + "\r\n" for line in lines).encode())

    def send_bytes(self, data):
        self._socket.sendall(data)

    def pour(self, data):
        """Send as much as fits into the buffers of both ends."""
        self._socket.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            while data:
                data = data[self._socket.send(data) :]
        self._socket.settimeout(TIMEOUT)

    def finish(self):
        """Close the sending direction and go on reading, as `nc -N` does."""
        socket.socket.shutdown(self._socket, socket.SHUT_WR)  # that of SSLSocket ends TLS, too

    def close(self):
        """Close the connection. Idempotent."""
        self._socket.close()

    def reset(self):
        """Close the connection with RST instead of FIN, as a crashed machine does."""
        linger = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._socket.close()

    # Receiving

    def line(self):
        """Return the next line, without its end; raise EOFError if the server has closed."""
        while not self._lines:
            try:
                data = self._socket.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                raise EOFError(repr(self._rest))
            *lines, self._rest = (self._rest + data).split(b"\r\n")
            self._lines += [self._read(line.decode()) for line in lines]
        return self._lines.pop(0)

    def _read(self, line):
        return line

    def until(self, end):
        """Return the lines up to the first that ends with `end`, included."""
        lines = []
        while not (lines and lines[-1].endswith(end)):
            try:
                lines.append(self.line())
            except (EOFError, socket.timeout) as error:
                raise AssertionError("%r never came, but %r" % (end, lines)) from error
        return lines

    def expect(self, end):
        """Wait for a line that ends with `end`, and return it."""
        return self.until(end)[-1]

    def rest(self):
        """Return all lines until the server closes the connection."""
        lines = []
        with contextlib.suppress(EOFError):
            while True:
                lines.append(self.line())
        return lines

    def rest_of_bytes(self):
        """Return all bytes until the server closes the connection."""
        return b"".join(iter(lambda: self._socket.recv(65536), b""))


class IrcTalker(Talker):
    """An IRC client."""

    def heard(self):
        """Return the lines that the server has sent up to now."""
        word = "barrier-%d" % next(_numbers)
        self.send("PING " + word)
        return self.until(" :" + word)[:-1]

    def heard_or_rest(self):
        """Return the same, or all lines before the end if the server closes the connection."""
        word = "barrier-%d" % next(_numbers)
        lines = []
        with contextlib.suppress(ConnectionError):
            self.send("PING " + word)
        with contextlib.suppress(EOFError):
            while not (lines and lines[-1].endswith(" :" + word)):
                lines.append(self.line())
            lines.pop()
        return lines

    def register(self, nickname, caps="", password=""):
        if password:
            self.send("PASS " + password)
        if caps:
            self.send("CAP REQ :" + caps)
        self.send("NICK " + nickname, "USER %s 0 * :%s" % (nickname, nickname.title()))
        if caps:
            self.send("CAP END")
        assert any(" 001 %s " % nickname in line for line in self.heard())
        return self


class PlainTalker(Talker):
    """A user of nc."""

    CLOCK = re.compile(r"\[[0-2]\d:[0-5]\d:[0-6]\d\] (?=\[|\* )")

    def _read(self, line):
        clock = self.CLOCK.match(line)
        assert clock, "no time at the start of %r" % line
        assert line.isprintable(), "not safe to print: %r" % line
        return line[clock.end() :]

    def heard(self):
        """Return the lines that the server has sent up to now, without the times."""
        word = "/barrier-%d" % next(_numbers)
        self.send(word)
        return self.until("Unknown command: %s. Type /help for the list." % word)[:-1]

    def register(self, nickname):
        self.send(nickname)
        self.expect("[SERVER]: %s joined the chat" % nickname)
        self.heard()
        return self


class Room:
    """A server in this process, and its clients."""

    def __init__(self, tls=False, **options):
        chosen = {"host": "127.0.0.1", "port": 0, "rate_limit": 0, "discovery": False, **options}
        self.server = server.Server(server.Options(**chosen))
        self._talkers, self._tls = [], tls
        self._thread = threading.Thread(target=self.server.run, name="server under test")
        self._thread.start()

    def connect(self, kind=Talker, **options):
        talker = kind(self.server.port, **{"tls": self._tls, **options})
        self._talkers.append(talker)
        return talker

    def irc(self, nickname, caps="", password="", **options):
        """Return an IRC client that has registered and read all replies."""
        return self.connect(IrcTalker, **options).register(nickname, caps, password)

    def plain(self, nickname, **options):
        """Return a user of nc who has registered and read all replies."""
        return self.connect(PlainTalker, **options).register(nickname)

    def wait_until_gone(self, *talkers):
        """Wait until the server has dropped these connections, which end by themselves."""
        last = self.connect(IrcTalker)  # accepted after all earlier connections
        last.heard()
        last.close()
        for talker in (*talkers, last):
            self.wait_for_thread(talker)

    def wait_for_thread(self, talker):
        """Wait until the server's thread for a connection, which ends by itself, has ended."""
        for thread in threading.enumerate():
            if thread.name == "client " + talker.address:
                thread.join(TIMEOUT)
                assert not thread.is_alive()

    def wait_until_noticed(self):
        """Wait until the server has reread its accounts."""
        updated = threading.Event()
        update = self.server.directory.update_accounts
        self.server.directory.update_accounts = lambda read: (update(read), updated.set())
        self.server.store._reported = 0
        assert updated.wait(TIMEOUT)
        del self.server.directory.update_accounts

    def client(self, nickname):
        """Return the server's client with that nickname."""
        return self.server.directory.find(nickname)

    def names(self):
        """Return the casefolded nicknames of all clients, registered or not."""
        return set(self.server.directory._clients)

    def stop(self):
        self.server.stop()
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive()

    def close(self):
        for talker in self._talkers:
            talker.close()
        self.stop()
        self.server.close()


def folded(*names):
    """Return names as the directory stores them."""
    return {casefold(name) for name in names}


class Process:
    """`python server.py` as a process."""

    def __init__(self, stderr, *args, launcher=(), discovery=False, tls=False, environment=None):
        command = [*launcher, sys.executable, str(PROGRAM), "--host", "127.0.0.1", "--port", "0"]
        # Without discovery, no fixed port is bound.
        command += [*([] if discovery else ["--no-discovery"]), *args]
        self._stderr, self._tls = stderr, tls
        self._talkers = []
        with stderr.open("wb") as file:
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=file, env=environment
            )
        self.first_line = self._process.stdout.readline().decode().rstrip()
        address = re.search(r"Running on .*:(\d+)$", self.first_line)
        self.port = int(address.group(1)) if address else 0

    def connect(self, kind):
        talker = kind(self.port, tls=self._tls)
        self._talkers.append(talker)
        return talker

    def irc(self, nickname):
        return self.connect(IrcTalker).register(nickname)

    def plain(self, nickname):
        return self.connect(PlainTalker).register(nickname)

    def signal(self, number):
        self._process.send_signal(number)

    def wait(self, timeout=TIMEOUT):
        """Wait for the exit, and return its code."""
        return self._process.wait(timeout)

    def rest_of_output(self):
        """Return the lines that the server has printed after the first."""
        return self._process.stdout.read().decode().splitlines()

    @property
    def pid(self):
        return self._process.pid

    @property
    def log(self):
        return self._stderr.read_text(encoding="utf-8").splitlines()

    def close(self):
        for talker in self._talkers:
            talker.close()
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
