"""The server under stress: labels, missing resources, crowds, clients that stop reading."""

import contextlib
import re
import signal
import socket
import threading

import pytest
from harness import IrcTalker, Process

import server
from protocol import parse

HOST = socket.gethostname()

CAPS = "batch echo-message labeled-response message-tags"


def answers(talker, command):
    """Return the messages that answer a labeled command, up to a barrier."""
    talker.heard()
    talker.send("@label=x1 " + command)
    return [parse(line.encode()) for line in talker.heard()]


# Labels: https://ircv3.net/specs/extensions/labeled-response


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("PRIVMSG #lobby :hi", "PRIVMSG"),
        ("PRIVMSG bob :hi", "PRIVMSG"),
        ("NOTICE #lobby :hi", "NOTICE"),
        ("PRIVMSG nobody :hi", "401"),
        ("PING here", "PONG"),
        ("PONG here", "ACK"),
        ("NOTICE nobody,#nowhere :hi", "ACK"),
        ("NICK alicia", "NICK"),
        ("NICK bob", "433"),
        ("PART #lobby", "PART"),
        ("FOO", "421"),
        ("WHOIS", "461"),
        ("ISON bob", "303"),
    ],
)
def test_single_answer_has_the_label_itself(room, command, answer):
    """An echo, an error, or ACK if there is nothing to say."""
    room.irc("bob")
    alice = room.irc("alice", CAPS)
    found = answers(alice, command)
    labeled = [message for message in found if message.tags.get("label") == "x1"]
    if "BATCH" in [message.command for message in labeled]:
        assert [m.command for m in found if m.tags.get("batch")] == [answer]
    else:
        assert [message.command for message in labeled] == [answer]


@pytest.mark.parametrize(
    "command", ["JOIN #new", "NAMES #lobby", "WHO #lobby", "WHOIS bob", "LIST"]
)
def test_several_answers_are_a_batch(room, command):
    """The label stands at its beginning, and all answers are in it."""
    room.irc("bob")
    alice = room.irc("alice", CAPS)
    first, *inside, last = answers(alice, command)
    assert first.command == last.command == "BATCH"
    assert first.params[1] == "labeled-response" and first.tags["label"] == "x1"
    reference = first.params[0][1:]
    assert last.params == ("-" + reference,)
    assert len(inside) > 1
    assert all(message.tags["batch"] == reference for message in inside)


def test_text_without_an_echo_is_acknowledged(room):
    alice = room.irc("alice", "batch labeled-response message-tags")
    (answer,) = answers(alice, "PRIVMSG #lobby :hi")
    assert (answer.command, dict(answer.tags)) == ("ACK", {"label": "x1"})


def test_label_is_for_its_sender_alone(room):
    """And nothing without the capability."""
    alice, bob = room.irc("alice", CAPS), room.irc("bob", "message-tags batch")
    alice.send("@label=x1 PRIVMSG #lobby :hi", "@label=x2 JOIN #new", "@label=x3 PART #lobby")
    bob.expect("PART #lobby")
    bob.send("@label=x4 PING here")
    heard = bob.heard()
    assert not any("label" in line for line in heard)


# Missing resources


def test_client_beyond_the_descriptors_is_refused_with_a_reason(tmp_path):
    """The others chat on, and there is room again when some of them leave."""
    limit = server.RESERVED_DESCRIPTORS + 6
    launcher = ["sh", "-c", 'ulimit -n %d; exec "$@"' % limit, "sh"]
    process = Process(tmp_path / "stderr", "--data", "", launcher=launcher)
    with contextlib.closing(process):
        alice = process.irc("alice")
        crowd = [process.connect(IrcTalker) for _ in range(8)]
        for late in crowd[5:]:
            assert late.rest() == ["ERROR :%s is full (6 people). Try again later." % HOST]
        alice.send("PRIVMSG #lobby :still here")
        alice.heard()
        for member in crowd:
            member.close()
        pause = threading.Event()
        for _ in range(100):  # until the others are gone
            with contextlib.suppress(AssertionError, OSError):
                process.irc("bob")
                break
            pause.wait(0.05)
        alice.until("JOIN #lobby")
    assert not any("Traceback" in line for line in process.log)


def test_statistics_are_logged_at_the_end(tmp_path):
    with contextlib.closing(Process(tmp_path / "stderr", "--data", "")) as process:
        process.irc("alice")
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
        (line,) = (line for line in process.log if "statistics" in line)
    assert re.search(r"connections=0 clients=0 rooms=\d waiting=0 threads=\d+", line)


# Crowds


def test_clients_that_stop_reading_stop_nobody(open_room):
    """Ten of them in a channel of sixteen; the others get everything, in order."""
    room = open_room(rate_limit=0, max_sendq=65536)
    stuck = [room.irc("stuck%d" % number, receive_buffer=4096) for number in range(10)]
    readers = [room.irc("reader%d" % number) for number in range(5)]
    alice = room.irc("alice", "echo-message")
    text = "x" * 400
    for number in range(9000):
        alice.send("PRIVMSG #lobby :%d %s" % (number, text))
        if number % 50 == 49:
            alice.heard()
    for reader in readers:
        heard = [line.split()[3] for line in reader.heard() if " PRIVMSG " in line]
        assert heard == [":%d" % number for number in range(9000)]
    room.wait_until_gone(*stuck)
    assert "stuck0" not in room.names()


def test_flood_does_not_delay_other_users(open_room):
    """20,000 lines at once are taken slowly; a paste of thirty passes at once."""
    room = open_room(rate_limit=50)
    flooder, alice, bob = room.irc("flooder"), room.irc("alice"), room.irc("bob")
    data = b"PRIVMSG #lobby :flood\r\n" * 20000
    pouring = threading.Thread(target=_pour, args=(flooder, data))
    pouring.start()
    alice.send(*("PRIVMSG bob :line %d" % number for number in range(30)))
    bob.until("PRIVMSG bob :line 29")
    flooder.reset()
    pouring.join()


def _pour(talker, data):
    with contextlib.suppress(OSError):
        talker.send_bytes(data)


def test_half_registrations_delay_nobody(open_room):
    """300 connections that never finish a line are ended after --register-timeout."""
    room = open_room(register_timeout=2, max_per_address=0)
    alice = room.irc("alice")
    slow = [room.connect(IrcTalker) for _ in range(300)]
    for talker in slow:
        talker.send_bytes(b"NICK ")
    bob = room.irc("bob")
    bob.send("PRIVMSG alice :hello")
    alice.expect("PRIVMSG alice :hello")
    room.wait_until_gone(*slow)
    assert room.names() == {"alice", "bob"}


def test_long_lists_arrive_in_full(open_room):
    """/list of a crowd, and WHOIS of a user in many channels."""
    room = open_room(rate_limit=0)
    names = ["person_with_a_long_name_%03d" % number for number in range(60)]
    for name in names:
        room.irc(name)
    carol = room.plain("carol")
    carol.send("/list")
    told = " ".join(line.partition("]: ")[2] for line in carol.heard())
    assert told.startswith("Online users (61): carol, ")
    assert all(name in told for name in names)
    alice = room.irc("alice")
    rooms = ["#a_room_with_a_long_name_%03d" % number for number in range(40)]
    alice.send(*("JOIN " + name for name in rooms), "WHOIS alice")
    told = " ".join(line for line in alice.heard() if " 319 " in line).split()
    assert set(rooms) <= {word.lstrip(":@") for word in told}


def test_names_are_true_while_users_come_and_go(open_room):
    """A client that asks for NAMES meanwhile has no ghost in its list."""
    room = open_room(rate_limit=0)
    watcher = room.irc("watcher")
    stop = threading.Event()

    def come_and_go(number):
        while not stop.is_set():
            talker = IrcTalker(room.server.port)
            talker.register("guest%d" % number)
            talker.send("QUIT")
            talker.rest()
            talker.close()

    guests = [threading.Thread(target=come_and_go, args=(number,)) for number in range(8)]
    for guest in guests:
        guest.start()
    members, listed = set(), set()
    try:
        for _ in range(200):
            watcher.send("NAMES #lobby")
            for message in (parse(line.encode()) for line in watcher.heard()):
                if message.command == "353":
                    listed |= set(message.text.split())
                elif message.command == "366":
                    members, listed = listed, set()
                elif message.command == "JOIN":
                    members.add(message.nickname)
                elif message.command == "QUIT":
                    members.discard(message.nickname)
    finally:
        stop.set()
        for guest in guests:
            guest.join()
    room.wait_until_gone()
    for message in (parse(line.encode()) for line in watcher.heard()):
        if message.command == "JOIN":
            members.add(message.nickname)
        elif message.command == "QUIT":
            members.discard(message.nickname)
    assert members == {"watcher"}


def test_names_come_before_a_change_of_nickname_that_follows(room):
    """Otherwise a client that tracks members would rename the wrong one."""
    alice, _bob = room.irc("alice"), room.irc("bob")
    directory = room.server.directory
    alice.heard()
    directory.names(room.client("alice"), directory.channel("#lobby"))
    directory.claim(room.client("bob"), "robert")
    names, _end, nick = alice.heard()
    assert names.endswith(" = #lobby :alice bob") and nick.endswith(" NICK robert")
