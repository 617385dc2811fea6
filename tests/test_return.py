"""Two users chat through the real server, which is killed and started again meanwhile."""

import contextlib
import itertools
import os
import queue
import shutil
import signal
import sys
import time

import pytest
from client_harness import Cable
from harness import TIMEOUT, Process

import client
from client import CHANNEL, SENT, Chat, Connection

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are sent otherwise there")


class Person:
    """A user of client.py without a window."""

    def __init__(self, name, port, password=""):
        self._events = queue.Queue(client.MAX_EVENTS)
        self.connection = Connection("127.0.0.1", port, password, name, self._events)
        self.chat = Chat("127.0.0.1:%d" % port, {}, [])
        self.chat.begin(name)
        self.connection.start()

    def say(self, text):
        self.connection.carry_out(self.chat.do(time.time(), self.chat.submit, text))

    def live(self, wait=0.01):
        """Handle the next event, waiting for at most `wait` seconds."""
        with contextlib.suppress(queue.Empty):
            event = self._events.get(timeout=wait)
            assert not isinstance(event, client.Disconnected), event
            self.connection.carry_out(self.chat.do(time.time(), self.chat.handle, event))

    def sees(self, text, name=""):
        """Return True if the named or the current conversation has this text as sent."""
        place = self.chat.conversation_named(name) if name else self.chat.current
        entries = place.entries if place is not None else ()
        return any(entry.text == text and entry.delivery == SENT for entry in entries)

    def said(self, name="#lobby"):
        """The messages of users there."""
        return [
            entry.text
            for entry in self.chat.conversation_named(name).entries
            if entry.line.nickname
        ]

    @property
    def is_done(self):
        channels = [c for c in self.chat.conversations if c.kind == CHANNEL]
        is_connected = self.chat.state == client.CONNECTED and not self.chat.unsent
        is_complete = all(c.membership == client.JOINED and c.is_complete for c in channels)
        return is_connected and bool(channels) and is_complete

    def close(self):
        self.connection.close()
        deadline = time.monotonic() + TIMEOUT
        while self.connection._thread.is_alive() and time.monotonic() < deadline:
            with contextlib.suppress(queue.Empty):
                self._events.get(timeout=0.01)


def until(people, condition):
    """Handle events until `condition()` is true; fail if it never is."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        for person in people:
            person.live()
        assert time.monotonic() < deadline, [p.chat.current.entries[-1].text for p in people]


@pytest.fixture
def people(open_room, tmp_path):
    """Alice and bob, in the lobby of a server with history and accounts."""
    room = open_room(data=str(tmp_path / "data"))
    with contextlib.ExitStack() as stack:
        people = []
        for name in ("alice", "bob"):
            people.append(Person(name, room.server.port))
            stack.callback(people[-1].close)
            until(people, lambda: people[-1].is_done)
        yield people


def test_every_verb_works_from_the_chat_box(people):
    alice, bob = people
    until(people, lambda: alice.sees("[SERVER]: bob joined the chat"))
    for person, text, answer in [
        (alice, "hello", "[alice]: hello"),
        (alice, "/me waves", "* alice waves"),
        (alice, "@bob psst", "[you -> bob]: psst"),
        (bob, "/me listens", "* bob listens"),
        (bob, "/reply what?", "[you -> alice]: what?"),
        (bob, "/list", "[SERVER]: Online users (2): alice, bob"),
        (alice, "/topic Tea", "[SERVER]: alice set the topic: Tea"),
        (alice, "/join tea", "[SERVER]: alice joined #tea"),
        (alice, "in here", "[alice]: in here"),
        (alice, "/rooms", "[SERVER]: #tea (1)"),
        (alice, "/whois bob", "[SERVER]: bob is in #lobby"),
        (alice, "/away lunch", "[SERVER]: You are away."),
        (alice, "/away", "[SERVER]: You are back."),
        (alice, "/ignore bob", "[SERVER]: You now ignore bob."),
        (alice, "/unignore bob", "[SERVER]: You no longer ignore bob."),
        (alice, "/register opensesame", "[SERVER]: You are logged in as alice"),
        (bob, "/nick rob", "[SERVER]: bob is now called rob"),
        (bob, "@nobody hi", "[SERVER]: No such user: nobody"),
        (alice, "/topic", "[SERVER]: #tea has no topic. Type /topic TOPIC to set one."),
    ]:
        person.say(text)
        until(people, lambda person=person, answer=answer: person.sees(answer))
    assert bob.sees("[alice -> you]: psst", "alice")
    assert bob.chat.current.topic == "Tea"
    assert alice.chat.conversation_named("rob").unread == 1  # until a window shows it
    assert alice.chat.presence("rob") == client.ONLINE
    assert alice.connection._login == ("alice", "opensesame")


def test_each_line_of_a_paste_waits_for_the_servers_answer(people):
    """A password is for the new name; after a refusal nothing is run or said."""
    alice, bob = people
    bob.say("/join #closed\nin here")
    until(people, lambda: bob.sees("[bob]: in here", "#closed"))
    bob.connection.send([client.Message("MODE", ("#closed", "+i"))])
    closed = "[SERVER]: bob now lets only invited people join #closed"
    until(people, lambda: bob.sees(closed, "#closed"))
    alice.say("/nick carol\n/register hunter2!\nhi")
    until(people, lambda: bob.sees("[carol]: hi", "#lobby"))
    assert alice.chat.nickname == alice.connection._login.name == "carol"
    alice.say("/join #closed\n/leave\n/nick dora\nthe secret")
    until(people, lambda: not alice.chat.unsent)
    assert alice.chat.outcome.rest == "/join #closed\n/leave\n/nick dora\nthe secret"
    assert (alice.chat.current.name, alice.chat.nickname) == ("#closed", "carol")
    bob.say("after that")
    until(people, lambda: bob.sees("[bob]: after that", "#closed"))
    assert [c.name for c in bob.chat.conversations] == ["#lobby", "#closed"]
    assert bob.said()[-1:] == ["[carol]: hi"]


def test_private_message_to_an_absent_account_is_read_later(people):
    alice, bob = people
    bob.say("/register opensesame")
    until(people, lambda: bob.sees("[SERVER]: You are logged in as bob"))
    bob.connection.close()
    until([alice], lambda: alice.sees("[SERVER]: bob left the chat"))
    alice.say("@bob see you")
    until([alice], lambda: alice.sees("[you -> bob]: see you", "bob"))
    port = int(bob.connection.address.rpartition(":")[2])
    with contextlib.closing(Person("bob", port, "opensesame")) as again:
        until([again], lambda: again.sees("[alice -> you]: see you", "alice"))
        assert again.chat.conversation_named("alice").unread == 1


@pytest.mark.parametrize("is_same", [True, False])
def test_private_draft_goes_to_nobody_who_took_the_name_while_we_were_cut_off(
    open_room, tmp_path, monkeypatch, is_same
):
    """Also if our session is resumed, and nobody tells us that."""
    monkeypatch.setattr(client, "RETRY_TIMES", (TIMEOUT,))
    room = open_room(data=str(tmp_path / "data"))
    with contextlib.ExitStack() as stack:
        cable = stack.enter_context(contextlib.closing(Cable(room.server.port)))
        bob = room.irc("bob")
        alice = stack.enter_context(contextlib.closing(Person("alice", cable.port)))
        until([alice], lambda: alice.is_done)
        started, count = alice.chat.complete_until.when, itertools.count()
        while int(alice.chat.complete_until.when) == int(started):  # WHOIS counts seconds
            bob.send("PRIVMSG alice :psst %d" % next(count))
            bob.heard()
            alice.live()
        cable.pull()
        until([alice], lambda: alice.chat.state == client.RECONNECTING)
        if not is_same:
            bob.send("QUIT")
            room.wait_until_gone(bob)
            bob = room.irc("bob")
        alice.connection.retry()
        until([alice], lambda: alice.is_done)
        assert alice.chat.session.is_resumed
        for text in ("I like tom", "who are you?"):
            alice.say("@bob " + text)
            until([alice], lambda: not alice.chat.unsent)
        heard = [line.partition(" ")[2] for line in bob.heard() if "alice!" in line]
        asked = "PRIVMSG bob :who are you?"
        assert heard == (["PRIVMSG bob :I like tom", asked] if is_same else [asked])


@pytest.mark.parametrize("is_encrypted", [False, True])
def test_server_killed_five_times_loses_and_repeats_nothing(tmp_path, monkeypatch, is_encrypted):
    monkeypatch.setattr(client, "RETRY_TIMES", (0.0, 0.05))
    if is_encrypted and not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    more = {} if is_encrypted else {"environment": {**os.environ, "PATH": str(tmp_path)}}
    options = ("--data", str(tmp_path / "history"), "--rate-limit", "0")
    with contextlib.ExitStack() as stack:
        server = Process(tmp_path / "stderr", *options, **more)
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
            server = Process(tmp_path / "stderr", *options, "--port", str(server.port), **more)
        until(people, lambda: all(person.is_done for person in people))
        until(people, lambda: len({len(person.said()) for person in people}) == 1)
        alice, bob = (person.said() for person in people)
        assert alice == bob
        for name, texts in typed.items():
            head = "[%s]: " % name
            assert [line[len(head) :] for line in alice if line.startswith(head)] == texts
        assert all(bool(person.connection._pin) == is_encrypted for person in people)
        assert all(
            e.delivery == SENT for p in people for e in p.chat.conversation_named("#lobby").entries
        )
