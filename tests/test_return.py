"""Two people talk while their server is killed and started again: nothing lost, nothing twice."""

import contextlib
import queue
import signal
import sys
import time

import pytest
from harness import TIMEOUT, Process

import client
from client import ROOM, SENT, Chat, Connection

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are sent otherwise there")


class Person:
    """Somebody with a client, but without a window."""

    def __init__(self, name, port):
        self._events = queue.Queue(client.MAX_EVENTS)
        self.connection = Connection("127.0.0.1", port, "", name, self._events)
        self.chat = Chat("127.0.0.1:%d" % port)
        self.chat.begin(name)
        self.connection.start()

    def say(self, text):
        self.connection.carry_out(self.chat.submit(text, time.time()))

    def live(self, wait=0.01):
        """Take what has come, waiting a moment for it."""
        with contextlib.suppress(queue.Empty):
            event = self._events.get(timeout=wait)
            assert not isinstance(event, client.Disconnected), event
            self.connection.carry_out(self.chat.handle(event, time.time()))

    def said(self, name="#lobby"):
        """What people have said there, as this person reads it."""
        entries = self.chat.find(name).entries
        return [e.text for e in entries if "[SERVER]" not in e.text and "[system]" not in e.text]

    @property
    def is_done(self):
        rooms = [c for c in self.chat.conversations if c.kind == ROOM]
        return (
            self.chat.state == client.CONNECTED and not self.chat.unsent
            and bool(rooms) and all(room.is_joined and not room.is_behind for room in rooms)
        )  # fmt: skip

    def close(self):
        self.connection.close()
        deadline = time.monotonic() + TIMEOUT
        while self.connection._thread.is_alive() and time.monotonic() < deadline:
            with contextlib.suppress(queue.Empty):
                self._events.get(timeout=0.01)


def until(people, condition):
    """Let people live until `condition()` is true; fail if it never is."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        for person in people:
            person.live()
        assert time.monotonic() < deadline, "it never came about"


def test_a_server_that_is_killed_five_times_costs_no_word(tmp_path, monkeypatch):
    """Each message is there once, and in the same order for both."""
    monkeypatch.setattr(client, "RETRY_TIMES", (0.0, 0.05))
    options = ("--data", str(tmp_path / "history"), "--rate-limit", "0")
    with contextlib.ExitStack() as stack:
        server = Process(tmp_path / "stderr", *options)
        stack.callback(lambda: server.close())
        people = [Person(name, server.port) for name in ("alice", "bob")]
        for person in people:
            stack.callback(person.close)
        until(people, lambda: all(person.is_done for person in people))
        typed = {"alice": [], "bob": []}
        for round_ in range(5):
            until(people, lambda: all(p.chat.state == client.CONNECTED for p in people))
            for number in range(20):
                for person in people:
                    text = "%d of round %d" % (number, round_)
                    typed[person.chat.nickname].append(text)
                    person.say(text)
                    person.live(0)
            server.signal(signal.SIGKILL)
            server.wait()
            for person in people:
                until([person], lambda p=person: p.chat.state == client.RECONNECTING)
                typed[person.chat.nickname].append("typed meanwhile, round %d" % round_)
                person.say(typed[person.chat.nickname][-1])
            server.close()
            server = Process(tmp_path / "stderr", *options, "--port", str(server.port))
        until(people, lambda: all(person.is_done for person in people))
        until(people, lambda: len({len(person.said()) for person in people}) == 1)
        alice, bob = (person.said() for person in people)
        assert alice == bob
        for name, texts in typed.items():
            head = "[%s]: " % name
            assert [line[len(head) :] for line in alice if line.startswith(head)] == texts
        assert all(e.state == SENT for p in people for e in p.chat.find("#lobby").entries)
