"""Servers and networks for tests of the client: scripted, cut, closed or silent."""

import contextlib
import queue
import select
import socket
import threading

import pytest
from harness import TIMEOUT, IrcTalker

import client
import protocol
from protocol import ServerInfo

CAPS = "echo-message message-tags server-time"


def wait_until(condition):
    """Wait until `condition()` is true; fail after TIMEOUT."""
    pause = threading.Event()
    for _ in range(int(TIMEOUT / 0.005)):
        if condition():
            return
        pause.wait(0.005)
    pytest.fail("the condition never became true")


class ScriptedServer(IrcTalker):
    """A server for a single client at a time that sends only what the test tells it to."""

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(TIMEOUT)
        self._socket = None
        self.seen = []  # all lines that clients have sent
        self.port = self._listener.getsockname()[1]

    def _read(self, line):
        self.seen.append(line)
        return line

    def accept(self):
        self._hang_up()
        self._socket, _ = self._listener.accept()
        self._socket.settimeout(TIMEOUT)
        self._lines, self._rest = [], b""
        return self

    def fileno(self):
        """Return the file descriptor of the connection."""
        return self._socket.fileno()

    def is_called(self):
        """Return True if a client is waiting to be accepted."""
        return bool(select.select([self._listener], [], [], 0)[0])

    def patience(self, seconds):
        """Set the timeout of the next reads and writes, in seconds."""
        self._socket.settimeout(seconds)

    def welcome(self, nickname="alice", caps=CAPS):
        """Register the next client with the capabilities `caps`, and join it to #lobby."""
        self.accept()
        self.expect("CAP LS :302")
        self.send("CAP * LS :" + caps)
        self.expect("USER %s 0 * :%s" % (nickname, nickname))
        if caps:
            self.expect("CAP REQ :" + caps)
            self.send("CAP * ACK :" + caps)
        self.expect("CAP END")
        self.send(
            ":hub 001 %s :Welcome to Hub, %s." % (nickname, nickname),
            ":hub 005 %s NETWORK=Hub :are supported by this server" % nickname,
            ":%s!u@host JOIN #lobby" % nickname,
            ":hub 353 %s = #lobby :%s bob" % (nickname, nickname),
            ":hub 366 %s #lobby :End of /NAMES list" % nickname,
        )
        return self

    def _hang_up(self):
        if self._socket is not None:
            self._socket.close()

    def close(self):
        self._hang_up()
        self._listener.close()


class Cable:
    """A relay to a server; `pull` closes the clients' side, which the server does not notice."""

    def __init__(self, port):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._far_port = port
        self._pairs, self._kept = {}, []
        self._wake, self._woken = socket.socketpair()
        self._is_pulled = self._is_over = False
        self._thread = threading.Thread(target=self._run, name="cable")
        self._thread.start()

    def _run(self):
        while not self._is_over:
            ready = select.select([self._listener, self._woken, *self._pairs], [], [])[0]
            for sock in ready:
                if sock is self._woken:
                    self._woken.recv(1)
                elif sock is self._listener:
                    near = self._listener.accept()[0]
                    far = socket.create_connection(("127.0.0.1", self._far_port))
                    self._pairs.update({near: far, far: near})
                elif sock in self._pairs:
                    data = sock.recv(65536)
                    if data:
                        self._pairs[sock].sendall(data)
                    else:
                        other = self._pairs.pop(sock)
                        del self._pairs[other]
                        sock.close()
                        other.close()
            if self._is_pulled:
                self._is_pulled = False
                for near, far in list(self._pairs.items())[::2]:
                    near.close()
                    self._kept.append(far)
                self._pairs = {}

    def pull(self):
        self._is_pulled = True
        self._wake.send(b"!")

    def close(self):
        self._is_over = True
        self._wake.send(b"!")
        self._thread.join(TIMEOUT)
        for sock in [*self._pairs, *self._kept, self._listener, self._wake, self._woken]:
            sock.close()


@contextlib.contextmanager
def closed_port():
    """Reserve a port that refuses connections."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@contextlib.contextmanager
def dead_end():
    """Reserve a port that neither accepts nor refuses connections: its backlog is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


class Caller:
    """A client.Connection and its events."""

    def __init__(
        self,
        port,
        nickname="alice",
        password="",
        host="127.0.0.1",
        space=0,
        reconnects=True,
        pin="",
    ):
        self.events = queue.Queue(space)
        self.connection = client.Connection(
            host, port, password, nickname, self.events, reconnects, pin
        )
        self._thread = self.connection._thread
        self.connection.start()

    def say(self, *messages):
        self.connection.send(messages)

    def next(self):
        """Return the next event."""
        return self.events.get(timeout=TIMEOUT)

    def hear(self, text):
        """Return the next message whose text is `text`."""
        while True:
            event = self.next()
            assert not isinstance(event, client.Disconnected), event
            if isinstance(event, client.Message) and event.text == text:
                return event

    def joined(self):
        """Wait until the client has joined a channel; return self."""
        self.hear("End of /NAMES list")
        return self

    def lost(self):
        """Return the next Lost."""
        event = self.next()
        while not isinstance(event, client.Lost):
            assert not isinstance(event, client.Disconnected), event
            event = self.next()
        return event

    def welcomed(self):
        """Return the next Connected."""
        event = self.next()
        while not isinstance(event, client.Connected):
            assert not isinstance(event, client.Disconnected), event
            event = self.next()
        return event

    def end(self):
        """Return the last event, a Disconnected."""
        event = self.next()
        while not isinstance(event, client.Disconnected):
            event = self.next()
        self._thread.join(TIMEOUT)
        assert self.events.empty()
        return event

    def is_over(self, wait=TIMEOUT):
        self._thread.join(wait)
        return not self._thread.is_alive()

    def close(self):
        """Close the connection and wait for the end of its thread."""
        self.connection.close()
        while not self.is_over(0.01):
            with contextlib.suppress(queue.Empty):
                self.events.get(timeout=TIMEOUT)


class Responder:
    """A UDP socket where a server's would be, on a free port."""

    def __init__(self, host="127.0.0.1"):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.bind((host, 0))
        self.address = protocol.format_address(*self._socket.getsockname()[:2])

    def query(self):
        """Return the id of the next query; remember who asked."""
        self._socket.settimeout(TIMEOUT)
        data, self.asker = self._socket.recvfrom(protocol.MAX_DATAGRAM)
        return protocol.parse_query(data)

    def send(self, *datagrams):
        for data in datagrams:
            self._socket.sendto(data, self.asker)

    def answer(self, query_id, network="Class 4B", port=12001, users=25, is_encrypted=False):
        self.send(protocol.make_answer(query_id, ServerInfo(network, port, users, is_encrypted)))

    def has_query(self):
        self._socket.setblocking(False)
        try:
            return bool(self._socket.recv(protocol.MAX_DATAGRAM))
        except BlockingIOError:
            return False

    def close(self):
        self._socket.close()


@contextlib.contextmanager
def responder_at(host, asker):
    """Another host, which answers the same finder."""
    with contextlib.closing(Responder(host)) as other:
        other.asker = asker
        yield other
