"""The client's registration and connection: its events, and how it ends, whatever the peer does."""

import ast
import contextlib
import socket
import sys
from pathlib import Path

import pytest
from client_harness import CAPS, Cable, Caller, closed_port, dead_end, wait_until
from harness import TIMEOUT

import client
import protocol
import server
from client import CLOSED, LOST, NAME, PASSWORD, REJECTED, SERVER, Connected, Disconnected, Message

needs_dead_end = pytest.mark.skipif(
    sys.platform != "linux", reason="other systems refuse where Linux lets wait"
)
NOT_A_CHAT = "127.0.0.1:%d answers, but not as a chat server does."
TAKEN = "“alice” is already here. Try another name, for example alice2."
REGISTERED = (
    "“alice” is registered. If it is yours, type its password. If not, choose another name."
)


# Registration, without a network


class Registration:
    """A Handshake; `hear` returns its answers, `refused` how it ends."""

    def __init__(self, password="", login=None, token=""):
        self.handshake = client.Handshake("alice", password, login, token)
        self.opening = self._lines([client.OPENING])

    def started(self):
        """Say who we are; return self."""
        self.handshake.start()
        return self

    def hear(self, *lines):
        answers = []
        for line in lines:
            answers += self.handshake.answer(protocol.parse(line.encode()))
        return self._lines(answers)

    def refused(self, *lines):
        with pytest.raises(client.EndedError) as refusal:
            self.hear(*lines)
        return refusal.value.event

    @staticmethod
    def _lines(messages):
        return [protocol.serialize(message).decode()[:-2] for message in messages]


INTRODUCTION = ["NICK alice", "USER alice 0 * :alice"]
UNKNOWN = ":hub 421 alice CAP :Unknown command"


@pytest.mark.parametrize("answer", ["CAP * LS :", UNKNOWN, ":hub 451 * :You have not registered"])
def test_client_says_who_it_is_once_the_server_is_known(answer):
    guest, member = Registration(), Registration("sesame")
    assert guest.opening == member.opening == ["CAP LS :302"]
    assert guest.hear("NOTICE * :*** Looking up your hostname") == []
    end = ["CAP END"] if answer.startswith("CAP") else []
    assert guest.hear(answer) == [*INTRODUCTION, *end]
    assert member.hear(answer) == ["PASS sesame", *INTRODUCTION, *end]
    assert guest.hear(UNKNOWN) == []


def test_nothing_is_said_in_the_clear_where_encryption_is_offered():
    alice = Registration("sesame", client.Login("alice", "sesame"), "token")
    assert alice.hear("CAP * LS * :hubbub/tls sasl", "CAP * LS :batch") == []
    assert alice.handshake.offers_tls


WANTED = "CAP REQ :echo-message message-tags server-time"


@pytest.mark.parametrize(
    ("heard", "answers"),
    [
        (["CAP * LS :echo-message message-tags server-time"], [WANTED]),
        (["CAP * LS :x-sasl=PLAIN server-time=x echo-message message-tags"], [WANTED]),
        (["CAP * LS * :message-tags a=b", "CAP * LS :server-time echo-message"], [WANTED]),
        (["CAP * LS * :echo-message message-tags server-time"], []),
        (["CAP * LS :server-time x-notify"], ["CAP REQ :server-time"]),
        (["CAP * LS :x-notify"], ["CAP END"]),
        (["CAP * LS :"], ["CAP END"]),
        (["CAP * ACK :echo-message server-time "], ["CAP END"]),
        (["CAP * ACK * :echo-message"], []),
        (["CAP * ACK * :echo-message", "CAP * ACK :server-time"], ["CAP END"]),
        (["CAP * ACK :echo-message", "CAP * ACK :server-time"], ["CAP END"]),
        (["CAP * NAK :echo-message server-time"], ["CAP END"]),
        (["CAP * DEL :batch"], []),
        (["CAP * NEW :batch"], []),
        (["CAP"], []),
        (["CAP *"], []),
        (["NOTICE * :*** Looking up your hostname"], []),
        ([UNKNOWN], []),
    ],
)
def test_capabilities_are_negotiated_and_always_ended(heard, answers):
    assert Registration().started().hear(*heard) == answers


@pytest.mark.parametrize(
    "line", ["CAP * LS * :x%d", "CAP * ACK * :x%d", "NOTICE * :wait", "020 * :x"]
)
def test_handshake_without_end_is_given_up(line):
    registration = Registration()
    lines = [line.replace("%d", str(number)) for number in range(client.MAX_HANDSHAKE - 1)]
    assert registration.hear(*lines) == []
    registration.hear(":hub 001 alice :Welcome")  # the last that is heard
    assert registration.handshake.is_done
    assert registration.refused(line)[0] == SERVER


def test_only_acknowledged_capabilities_count():
    refused, agreed = Registration(), Registration()
    refused.hear("CAP * LS :echo-message", "CAP * NAK :echo-message")
    assert refused.handshake.caps == frozenset()
    agreed.hear("CAP * LS :batch echo-message", "CAP * ACK * :batch", "CAP * ACK :echo-message")
    assert agreed.handshake.caps == {"batch", "echo-message"}


def test_nickname_in_use_is_tried_again_when_the_server_says_if_it_is_registered():
    taken = ":hub 433 * alice :In use"
    for answer, event in ((RESERVED, (PASSWORD, REGISTERED)), (taken, (NAME, TAKEN))):
        alice = Registration().started()
        again = ["CAP REQ :sasl", "CAP END", "NICK alice"]
        assert alice.hear("CAP * LS :sasl", taken, "CAP * ACK :sasl") == again
        assert alice.refused(answer) == event
    alice = Registration().started()
    assert alice.hear("CAP * LS :") == ["CAP END"]
    assert alice.refused(taken) == (NAME, TAKEN)  # it would have said so


def test_server_may_shorten_the_nickname():
    registration = Registration()
    assert registration.hear(":hub 001 alic :Welcome") == []
    assert (registration.handshake.is_done, registration.handshake.nickname) == (True, "alic")


ASKED = "This server asks for a password. The host can tell you."
RESERVED = ":hub FAIL NICK NICKNAME_RESERVED alice :It has an owner"
IN_USE = ":hub 433 * alice :In use"
AGREED = ["CAP * LS :sasl", "CAP * ACK :sasl"]


@pytest.mark.parametrize(
    ("password", "lines", "event"),
    [
        ("", [IN_USE], (NAME, TAKEN)),
        ("", [":hub 433 * alice aIice :It looks like aIice."], (NAME, "It looks like aIice.")),
        ("", [":hub 436 * alice :Collision"], (NAME, TAKEN)),
        ("", [":hub 432 * alice :Not so."], (NAME, "Not so.")),
        ("", [":hub 437 * alice :Not now."], (NAME, "Not now.")),
        ("", [":hub 464 alice :Nope"], (PASSWORD, ASKED)),
        ("sesame", [":hub 464 alice :Nope"], (PASSWORD, "Wrong password.")),
        ("", [":hub 465 alice :You are banned"], (REJECTED, "You are banned")),
        ("", ["ERROR :Office is full (10 people)."], (REJECTED, "Office is full (10 people).")),
        ("", [*AGREED, RESERVED], (PASSWORD, REGISTERED)),
        ("sesame", [*AGREED, RESERVED, ":hub 904 alice :No"], (PASSWORD, "Wrong password.")),
        ("sesame", [IN_USE, *AGREED, ":hub 904 alice :No", IN_USE], (NAME, TAKEN)),
        (
            "sesame",
            [IN_USE, *AGREED, ":hub 904 alice :No", RESERVED],
            (PASSWORD, "Wrong password."),
        ),
        ("sesame", [IN_USE, "CAP * LS :x-sasl", IN_USE], (NAME, TAKEN)),
        ("sesame", ["CAP * LS :", IN_USE], (NAME, TAKEN)),
    ],
)
def test_refusal_says_what_the_user_must_fix(password, lines, event):
    assert Registration(password).refused(*lines) == event


def test_password_logs_in_to_the_account_that_owns_the_nickname():
    for early in ([], [":hub 433 * alice :Reserved"]):
        alice = Registration("sesame").started()
        end = [] if early else ["CAP END"]
        assert alice.hear(*early, *AGREED)[1:] == (end or ["AUTHENTICATE PLAIN"])
        if not early:
            assert alice.hear(RESERVED) == ["AUTHENTICATE PLAIN"]
        assert alice.hear("AUTHENTICATE +") == ["AUTHENTICATE AGFsaWNlAHNlc2FtZQ=="]
        answers = alice.hear(":hub 900 alice a!u@h alice :Logged in", ":hub 903 alice :Welcome")
        assert answers == (["CAP END", "NICK alice"] if early else ["NICK alice"])
        assert alice.handshake.login == ("alice", "sesame")
        assert alice.refused(":hub 433 * alice :In use") == (NAME, TAKEN)


def test_known_login_is_used_before_the_nickname_is_claimed():
    alice = Registration(login=client.Login("alice", "sesame")).started()
    assert alice.hear(*AGREED) == ["CAP REQ :sasl", "AUTHENTICATE PLAIN"]
    assert alice.hear("AUTHENTICATE +") == ["AUTHENTICATE AGFsaWNlAHNlc2FtZQ=="]
    assert alice.hear(":hub 904 alice :Changed meanwhile") == ["CAP END"]
    alice = Registration(login=client.Login("alice", "sesame")).started()
    alice.hear(":hub 433 * alice :Our own dead connection has it", *AGREED)
    assert alice.hear(":hub 903 alice :Welcome") == ["CAP END", "NICK alice"]


# With the real server


@pytest.fixture
def call():
    """Opens connections; at the end none of their threads may be left."""
    callers = []

    def open_(*args, **options):
        callers.append(Caller(*args, **options))
        return callers[-1]

    yield open_
    for caller in callers:
        caller.close()


def test_connected_comes_before_all_messages(room, call):
    alice = call(room.server.port)
    welcome = alice.next()
    assert (welcome.nickname, welcome.session, welcome.is_resumed) == ("alice", 1, False)
    assert "echo-message" in welcome.caps
    assert alice.next().command == "001"
    alice.joined()


def test_messages_are_sent_echoed_and_received(room, call):
    bob = room.irc("bob")
    alice = call(room.server.port).joined()
    alice.say(Message("PRIVMSG", ("#lobby", "é 李 😀")))
    bob.expect(":alice!alice@127.0.0.1 PRIVMSG #lobby :é 李 😀")
    assert alice.hear("é 李 😀").tags["time"]
    bob.send("PRIVMSG alice :good to see you")
    assert alice.hear("good to see you").nickname == "bob"


def test_refused_nickname_is_answered_in_words(room, call):
    room.irc("alice")
    assert call(room.server.port).end() == Disconnected(NAME, TAKEN)
    end = call(room.server.port, "server").end()
    assert end == Disconnected(NAME, "server is a reserved name. Choose another.")


@pytest.mark.parametrize(("password", "words"), [("", ASKED), ("wrong", "Wrong password.")])
def test_server_password_is_asked_for(open_room, call, password, words):
    port = open_room(password="sesame").server.port
    assert call(port, password=password).end() == Disconnected(PASSWORD, words)
    assert isinstance(call(port, password="sesame").next(), Connected)


def test_server_that_stops_says_so(room, call):
    alice = call(room.server.port).joined()
    room.stop()
    assert alice.lost().reason == "The host has ended the chat"


@pytest.fixture
def owned(open_room, tmp_path):
    """A server on which alice is an account, with the password opensesame."""
    room = open_room(data=str(tmp_path / "data"))
    alice = room.irc("alice", "draft/account-registration")
    alice.send("REGISTER * * opensesame")
    assert any("REGISTER SUCCESS alice" in line for line in alice.heard())
    alice.send("QUIT")
    alice.rest()
    return room


def test_registered_nickname_needs_its_password(owned, call):
    port = owned.server.port
    assert call(port).end() == Disconnected(PASSWORD, REGISTERED)
    assert call(port, password="wrong").end() == Disconnected(PASSWORD, "Wrong password.")
    alice = call(port, password="opensesame")
    assert alice.welcomed().nickname == "alice"
    assert alice.connection._login == ("alice", "opensesame")


def test_owner_who_logs_in_elsewhere_ends_the_connection_for_good(owned, call):
    here = call(owned.server.port, password="opensesame")
    here.welcomed()
    assert call(owned.server.port).end() == Disconnected(PASSWORD, REGISTERED)
    there = owned.irc("alicia", "sasl")
    typed = protocol.parse_input("/login alice opensesame")
    there.send(*(protocol.serialize(m).decode() for m in protocol.compose(typed, "", "", "")))
    there.heard()
    there.send("NICK alice")
    assert here.end().fault == PASSWORD
    assert any(" NICK alice" in line or " NICK :alice" in line for line in there.heard())


def test_cut_connection_is_resumed_unseen(room, call):
    bob = room.irc("bob")
    bob.send("JOIN #tea")
    with contextlib.closing(Cable(room.server.port)) as cable:
        alice = call(cable.port).joined()
        alice.say(Message("JOIN", ("#tea",)))
        alice.joined()
        bob.heard()
        cable.pull()
        alice.lost()
        welcome = alice.welcomed()
        assert (welcome.nickname, welcome.is_resumed) == ("alice", True)
        alice.joined().joined()
        alice.say(Message("PRIVMSG", ("#tea", "as if nothing had been")))
        alice.hear("as if nothing had been")
        assert [line.partition(" ")[2] for line in bob.heard()] == [
            "PRIVMSG #tea :as if nothing had been"
        ]
        alice.connection.close(TIMEOUT)


# Where no server is


def test_port_without_a_listener_is_named(call):
    with closed_port() as port:
        reason = "Nothing is listening at 127.0.0.1:%d. Is server.py running there?" % port
        assert call(port).end() == Disconnected(SERVER, reason)


@pytest.mark.parametrize("host", ["nobody.invalid", "x" * 300, "a..b"])
def test_host_that_is_not_found_is_named(call, host):
    reason = "No computer called “%s” was found. Check the spelling, or use its address." % host
    assert call(12001, host=host).end() == Disconnected(SERVER, reason)


def test_listener_that_never_speaks_is_given_up(call, hub, monkeypatch):
    monkeypatch.setattr(client, "CONNECT_TIME", 0.5)
    assert call(hub.port).end() == Disconnected(SERVER, NOT_A_CHAT % hub.port)


@needs_dead_end
def test_machine_that_never_answers_is_given_up(call, monkeypatch):
    monkeypatch.setattr(client, "CONNECT_TIME", 0.5)
    with dead_end() as port:
        reason = "Nothing answered at 127.0.0.1:%d within 0.5 seconds. Is server.py running there?"
        assert call(port).end() == Disconnected(SERVER, reason % port)


@pytest.mark.parametrize("first", [closed_port, pytest.param(dead_end, marks=needs_dead_end)])
def test_next_address_of_a_host_is_tried(call, hub, monkeypatch, first):
    monkeypatch.setattr(client, "CONNECT_TIME", 0.5)
    with first() as port:
        found = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", number))
            for number in (port, hub.port)
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: found)
        alice = call(0)
        wait_until(lambda: hub.is_called() or not alice.events.empty())
        assert alice.events.empty()
        hub.welcome()
        assert isinstance(alice.next(), Connected)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x01\0\2\2\x46"])
def test_other_kind_of_server_is_recognized(call, hub, answer):
    alice = call(hub.port)
    hub.accept().send_bytes(answer)
    hub.expect("USER alice 0 * :alice")
    hub.finish()
    assert alice.end() == Disconnected(SERVER, NOT_A_CHAT % hub.port)


# A peer that is no friend


@pytest.fixture
def alice(call, hub):
    """Alice is in #lobby of a server that the test speaks for."""
    alice = call(hub.port)
    hub.welcome()
    return alice.joined()


@pytest.mark.parametrize(
    ("sent", "heard"),
    [
        (b"caf\xe9", "caf\ufffd"),
        (b"\xff\xfe\xfd", "\ufffd\ufffd\ufffd"),
        (b"\xed\xa0\xbd half", "\ufffd\ufffd\ufffd half"),
        (b"\xe9" * 300, "\ufffd" * 300),
        (b"\x1b[2Jwiped", "[2Jwiped"),
        (b"\x1b]0;title\x07", "]0;title"),
        (b"bell\x07 back\x08", "bell back"),
        (b"\x0304red\x03", "red"),
        (b"tab\there", "tab here"),
        ("\x9b2Jwiped".encode(), "2Jwiped"),
        ("\u202eexe.gpj".encode(), "exe.gpj"),
        ("\u2066a\u2069\u200b\ufeff".encode(), "a"),
        ("a\u2028[SERVER]: b".encode(), "a [SERVER]: b"),
        ("\ufffe\U000e0041".encode(), ""),
        (b"\x01ACTION \x1bwaves\x01", "\x01ACTION waves\x01"),
        ("😀 李 \u05d0 👩\u200d💻".encode(), "😀 李 \u05d0 👩\u200d💻"),
    ],
)
def test_text_that_arrives_is_safe_to_show(alice, hub, sent, heard):
    hub.send_bytes(b":bob!b@h PRIVMSG alice :" + sent + b"\r\nPONG :barrier\r\n")
    event = alice.next()
    assert (event.command, event.text) == ("PRIVMSG", heard)


@pytest.mark.parametrize(
    ("line", "params"),
    [
        ("PRIVMSG al\u200dice :hi", ("alice", "hi")),
        ("353 alice = #lobby :al\u200dice bo\u200db", ("alice", "=", "#lobby", "alice bob")),
        ("NICK :r\x07o\u202e\u200bb", ("rob",)),
    ],
)
def test_names_that_arrive_are_safe_to_show(alice, hub, line, params):
    hub.send_bytes((":ca\u200d\x1brol!c@h %s\r\n" % line).encode())
    event = alice.next()
    assert (event.nickname, event.params) == ("carol", params)


def test_tags_that_no_message_could_carry_are_dropped(alice, hub):
    hub.send("@msgid=7;time=t:1;batch;label=a\\sb :bob!b@h PRIVMSG alice :hi")
    hub.send("@msgid=%s :bob!b@h PRIVMSG alice :hi" % ("7" * (protocol.MAX_MIDDLE + 1)))
    assert [alice.next().tags for _ in range(2)] == [{"msgid": "7", "time": "t:1"}, {}]


def test_noise_and_endless_lines_are_skipped(alice, hub):
    noise = [
        *[b"", b"\0", b":", b"@", b"@a", b" ", b"\r", b"\xff\xff", b"{}", b"<html>", b":bob!b@h"],
        b"PRIVMSG alice :a\0b",
        b"PRIVMSG alice :" + b"x" * 600,
        b"@" + b"x" * 9000 + b" PONG x",
        b"x" * 1_000_000,
    ]
    hub.send_bytes(b"\r\n".join([*noise, b":bob!b@h PRIVMSG alice :still here", b""]))
    assert alice.next().text == "still here"


def test_lines_may_come_byte_by_byte(alice, hub):
    for byte in ":bob!b@h PRIVMSG alice :é 😀\r\n".encode():
        hub.send_bytes(bytes([byte]))
    assert alice.next().text == "é 😀"


def test_ping_is_answered_and_not_shown(call, hub):
    alice = call(hub.port)
    hub.accept().send("PING :early bird")
    hub.expect("PONG :early bird")
    hub.send(":hub 001 alice :Welcome", "PING hub")
    hub.expect("PONG hub")
    assert isinstance(alice.next(), Connected)
    assert alice.next().command == "001"
    assert alice.events.empty()


@pytest.mark.parametrize("module", [client, protocol, server])
def test_constant_is_set_once(module):
    """A second value would replace the first, such as the patience with a silent server."""
    body = ast.parse(Path(module.__file__).read_text(encoding="utf-8")).body
    targets = [target for node in body if isinstance(node, ast.Assign) for target in node.targets]
    names = [n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)]
    assert sorted(names) == sorted(set(names))


def test_silence_is_questioned_and_then_ends_the_connection(call, hub, monkeypatch):
    for name in ("PING_AFTER", "ANSWER_TIME"):
        monkeypatch.setattr(client, name, 0.4)
    alice = call(hub.port)
    hub.welcome()
    hub.expect("PING hubbub")
    hub.send("PONG hub :hubbub")
    hub.expect("PING hubbub")
    assert alice.lost().reason == "The server has stopped answering."


def test_slow_window_slows_the_sender(call, hub):
    alice = call(hub.port, space=10)
    hub.welcome()
    alice.joined()
    line = b":bob!b@h PRIVMSG alice :flood\r\n"
    hub.patience(0.3)
    with pytest.raises(socket.timeout):
        for _ in range(1000):  # 32 MB
            hub.send_bytes(line * 1000)
    wait_until(alice.events.full)
    for _ in range(1000):  # it goes on when there is room
        assert alice.next().text == "flood"


def test_server_that_asks_and_does_not_read_is_left(call, hub, monkeypatch):
    monkeypatch.setattr(client, "MAX_OUTGOING", 5000)
    alice = call(hub.port)
    hub.accept()
    with contextlib.suppress(OSError):
        while not alice.is_over(0):
            hub.send_bytes(b"PING x\r\n" * 10000)
    assert alice.end().reason == "The server does not read what it is sent."


def test_server_without_capabilities_is_joined(call, hub):
    alice = call(hub.port)
    hub.welcome(caps="")
    assert alice.next() == Connected("alice")


# The end


def test_close_sends_quit_after_all_else(alice, hub):
    lines = [Message("PRIVMSG", ("bob", "%d" % number)) for number in range(10000)]
    alice.say(*lines)
    alice.connection.close()
    heard = [line for line in hub.rest() if line.startswith(("PRIVMSG", "QUIT"))]
    assert heard == ["PRIVMSG bob :%d" % number for number in range(10000)] + ["QUIT"]
    assert alice.end() == Disconnected(CLOSED, "")
    assert alice.is_over()


def test_close_during_registration_ends_at_once(call, hub):
    alice = call(hub.port)
    hub.accept().expect("USER alice 0 * :alice")
    alice.connection.close()
    assert alice.end() == Disconnected(CLOSED, "")


def test_close_is_idempotent_and_later_messages_are_dropped(call, hub):
    alice = call(hub.port)
    hub.welcome()
    alice.connection.close(TIMEOUT)
    alice.connection.close(TIMEOUT)
    alice.say(Message("PRIVMSG", ("bob", "too late")))
    assert alice.end() == Disconnected(CLOSED, "")


def test_close_does_not_wait_for_a_peer_that_never_reads(alice, hub):
    alice.say(*[Message("PRIVMSG", ("bob", "x" * 400))] * 50000)
    alice.connection.close(client.QUIT_TIME)
    is_over = alice.is_over(1)
    hub.reset()
    assert is_over


def test_close_does_not_wait_for_a_full_queue(call, hub):
    alice = call(hub.port, space=10)
    hub.welcome()
    alice.joined()
    hub.send(*[":bob!b@h PRIVMSG alice :flood"] * 1000)
    wait_until(alice.events.full)
    alice.connection.close(3)
    assert alice.is_over(0)


# Reconnecting


@pytest.fixture
def slow(monkeypatch):
    """The second attempt comes long after the test, if nothing ends the pause."""
    monkeypatch.setattr(client, "RETRY_TIMES", (0.0, 1000.0))


def refuse(hub):
    hub.accept().send("ERROR :Not now.")
    hub.finish()


@pytest.mark.parametrize("depart", ["finish", "reset"])
def test_lost_connection_comes_back_by_itself(alice, hub, depart):
    getattr(hub, depart)()
    lost = alice.lost()
    assert (lost.reason, lost.attempt, lost.seconds) == ("The connection was lost.", 1, 0.0)
    hub.welcome()
    assert alice.welcomed() == Connected("alice", frozenset(CAPS.split()), 2)


def test_pauses_grow_and_start_again_after_a_registration(call, hub, monkeypatch):
    assert client.RETRY_TIMES == (0, 1, 2, 4, 8)
    monkeypatch.setattr(client, "RETRY_TIMES", (0.0, 0.01, 0.02))
    alice = call(hub.port)
    hub.welcome()
    hub.finish()
    for attempt, least, most in [
        (1, 0, 0),
        (2, 0.008, 0.012),
        (3, 0.016, 0.024),
        (4, 0.016, 0.024),
    ]:
        lost = alice.lost()
        assert lost.attempt == attempt
        assert least <= lost.seconds <= most
        if attempt < 4:
            refuse(hub)
    hub.welcome()
    assert alice.welcomed().session == 2
    hub.finish()
    assert alice.lost().attempt == 1


def test_first_attempt_that_fails_is_the_only_one(call, hub):
    alice = call(hub.port)
    refuse(hub)
    assert alice.end() == Disconnected(REJECTED, "Not now.")


REMOVED = "You were removed from the chat by boss: noise"


# The server's reasons not to let a user in again, and the fault; "" if another attempt may help
@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (":hub 432 alice :alice is banned", NAME),
        (":hub 433 * alice :In use", ""),
        (":hub 437 * alice :Not now", ""),
        (":hub 464 alice :Password incorrect", PASSWORD),
        (":hub 465 alice :You are banned", REJECTED),
        (RESERVED, PASSWORD),
        ("ERROR :Office is full (10 people).", ""),
        ("ERROR :There are 8 connections from your address already.", ""),
    ],
)
def test_attempts_end_where_they_cannot_help(alice, hub, line, fault):
    hub.finish()
    assert not alice.lost().is_rejected
    hub.accept().send(line)
    if fault:
        assert alice.next().fault == fault
    else:
        hub.finish()
        assert alice.lost().is_rejected == line.startswith("ERROR")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (":boss!b@h KILL alice :noise", REMOVED),
        (":hub 465 alice :You are banned, by boss.", "You are banned, by boss."),
    ],
)
def test_removed_user_does_not_come_back_at_once(alice, hub, line, reason):
    hub.send(line, "ERROR :Closing link")
    assert alice.end() == Disconnected(REJECTED, reason)


def test_nickname_that_is_registered_meanwhile_ends_the_attempts(alice, hub):
    hub.finish()
    alice.lost()
    hub.accept().send(RESERVED)
    assert alice.next() == Disconnected(PASSWORD, REGISTERED)


def test_nickname_in_use_is_tried_again_for_some_time(call, hub, monkeypatch):
    monkeypatch.setattr(client, "RETRY_TIMES", (0.0,))
    monkeypatch.setattr(client, "MAX_NAME_RETRIES", 2)
    alice = call(hub.port)
    for refusals in (1, 2):  # most likely, our own dead connection holds it for a while
        hub.welcome()
        alice.welcomed()
        hub.finish()
        for _ in range(refusals):
            alice.lost()
            hub.accept().send(":hub 433 * alice :In use")
    assert alice.end() == Disconnected(NAME, TAKEN)


def test_retry_ends_the_pause(alice, hub, slow):
    hub.finish()
    alice.lost()
    refuse(hub)
    assert alice.lost().seconds > 500
    alice.connection.retry()
    hub.welcome()
    assert alice.welcomed().session == 2


def test_close_ends_the_pause(alice, hub, slow):
    hub.finish()
    alice.lost()
    refuse(hub)
    alice.lost()
    alice.connection.close()
    assert alice.end() == Disconnected(CLOSED, "")


def test_connection_without_returns_ends_when_it_is_lost(call, hub):
    alice = call(hub.port, reconnects=False)
    hub.welcome()
    alice.joined()
    hub.finish()
    assert alice.end() == Disconnected(LOST, "The connection was lost.")


def test_messages_for_an_earlier_session_are_dropped(call, hub):
    alice = call(hub.port)
    hub.welcome()
    first = alice.welcomed().session
    hub.finish()
    alice.lost()
    alice.connection.send([Message("PRIVMSG", ("bob", "too early"))], first)
    hub.welcome()
    second = alice.welcomed().session
    alice.connection.send([Message("PRIVMSG", ("bob", "too late"))], first)
    alice.connection.send([Message("PRIVMSG", ("bob", "in time"))], second)
    assert hub.until("in time")[-1:] == ["PRIVMSG bob :in time"]
    assert not [line for line in hub.seen if "too" in line]


@pytest.mark.parametrize(
    ("new", "expected"),
    [("alicia", "alicia"), ("no name at all", "alice"), (":", "alice"), ("", "alice")],
)
def test_changed_nickname_is_used_to_reconnect_if_it_is_one(alice, hub, new, expected):
    hub.send(":alice!a@h NICK :" + new, ":bob!b@h NICK bert", "PING barrier")
    hub.expect("PONG barrier")
    hub.finish()
    alice.lost()
    hub.accept().expect("NICK " + expected)


def test_token_resumes_the_session_and_is_never_shown(call, hub):
    alice = call(hub.port)
    hub.welcome(caps=client.RESUME_CAP)
    hub.send("RESUME TOKEN s3cret")
    alice.joined()
    hub.send("PING barrier")
    hub.expect("PONG barrier")
    hub.finish()
    assert "s3cret" not in repr(alice.lost())
    hub.accept()
    assert hub.until("CAP LS :302") == ["CAP LS :302"]
    hub.send("CAP * LS :" + client.RESUME_CAP)
    hub.expect("CAP REQ :" + client.RESUME_CAP)
    hub.send("CAP * ACK :" + client.RESUME_CAP)
    assert hub.until("RESUME s3cret") == ["RESUME s3cret"]
    hub.send(":hub 001 alice :Welcome", "RESUME TOKEN another")
    assert alice.welcomed().is_resumed


def test_refused_token_leads_to_an_ordinary_registration(call, hub):
    alice = call(hub.port)
    hub.welcome(caps=client.RESUME_CAP)
    hub.send("RESUME TOKEN s3cret", "PING barrier")
    hub.expect("PONG barrier")
    hub.finish()
    alice.lost()
    hub.accept().send("CAP * LS :" + client.RESUME_CAP, "CAP * ACK :" + client.RESUME_CAP)
    hub.expect("RESUME s3cret")
    hub.send(":hub FAIL RESUME INVALID_TOKEN :No such session")
    assert hub.until("CAP END") == ["NICK alice", "USER alice 0 * :alice", "CAP END"]
    hub.send(":hub 001 alice :Welcome")
    assert not alice.welcomed().is_resumed


def test_login_is_repeated_when_reconnecting(alice, hub):
    outcome = client.Outcome()
    outcome.login = client.Login("alice", "sesame")
    alice.connection.carry_out(outcome)
    hub.finish()
    alice.lost()
    hub.accept().send("CAP * LS :sasl", "CAP * ACK :sasl")
    hub.expect("AUTHENTICATE PLAIN")
    hub.send("AUTHENTICATE +")
    hub.expect("AUTHENTICATE AGFsaWNlAHNlc2FtZQ==")
    hub.send(":hub 903 alice :Welcome back")
    hub.expect("CAP END")


def test_login_elsewhere_ends_the_connection_for_good(alice, hub):
    hub.send("FAIL * LOGGED_IN_ELSEWHERE alice :alice has logged in elsewhere", "ERROR :Bye")
    assert alice.end() == Disconnected(PASSWORD, "alice has logged in elsewhere")
