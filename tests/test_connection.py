"""The client's connection: what reaches its queue, and how it ends, whatever the peer does."""

import contextlib
import socket
import sys

import pytest
from client_harness import (
    Cable,
    Caller,
    ScriptedServer,
    closed_port,
    dead_end,
    wait_for_look_ups,
    wait_until,
)
from harness import TIMEOUT

import client
import protocol
from client import CLOSED, LOST, NAME, PASSWORD, SERVER, Connected, Disconnected, Message

needs_dead_end = pytest.mark.skipif(
    sys.platform != "linux", reason="other systems refuse where Linux lets wait"
)


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
    wait_for_look_ups()


@pytest.fixture
def hub():
    """A server that says what the test tells it."""
    with contextlib.closing(ScriptedServer()) as server:
        yield server


# With the real server


def test_the_welcome_is_told_before_all_else(room, call):
    """Connected says who we are and whether we are echoed; the rest follows in order."""
    alice = call(room.server.port)
    welcome = alice.next()
    assert (welcome.nickname, welcome.session, welcome.is_resumed) == ("alice", 1, False)
    assert "echo-message" in welcome.caps
    assert alice.next().command == "001"
    alice.joined()


def test_what_is_said_is_heard_on_both_sides(room, call):
    """Words go out, come back as an echo with the server's time, and are answered."""
    bob = room.irc("bob")
    alice = call(room.server.port).joined()
    alice.say(Message("PRIVMSG", ("#lobby", "é 李 😀")))
    bob.expect(":alice!alice@127.0.0.1 PRIVMSG #lobby :é 李 😀")
    assert alice.hear("é 李 😀").tags["time"]
    bob.send("PRIVMSG alice :good to see you")
    assert alice.hear("good to see you").nickname == "bob"


def test_a_taken_name_is_the_user_s_turn(room, call):
    """The end says that another name is wanted."""
    room.irc("alice")
    end = call(room.server.port).end()
    assert end.fault == NAME
    assert end.reason == "“alice” is already here. Try another name, for example alice2."


def test_a_name_that_may_not_be_is_answered_with_the_rule(room, call):
    """The server's words for a bad name reach the user."""
    end = call(room.server.port, "server").end()
    assert end == Disconnected(NAME, "server is a reserved name. Choose another.")


@pytest.mark.parametrize(
    ("password", "words"),
    [("", "This server asks for a password."), ("wrong", "Wrong password.")],
)
def test_a_password_is_asked_for(open_room, call, password, words):
    """Without the right one the end says so; with it one is welcome."""
    port = open_room(password="sesame").server.port
    assert call(port, password=password).end() == Disconnected(PASSWORD, words)
    assert isinstance(call(port, password="sesame").next(), Connected)


def test_a_server_that_stops_says_so(room, call):
    """The server's last words are the reason of the end."""
    alice = call(room.server.port).joined()
    room.stop()
    assert alice.lost().reason == "The server is shutting down"


# Where there is no server


def test_nobody_listening_is_told_with_the_address(call):
    """The words say where one looked, and what to start there."""
    with closed_port() as port:
        reason = "Nothing is listening at 127.0.0.1:%d. Is server.py running there?" % port
        assert call(port).end() == Disconnected(SERVER, reason)


@pytest.mark.parametrize("host", ["nobody.invalid", "x" * 300, "a..b"])
def test_a_host_that_is_not_found_is_named(call, host):
    """A misspelt name is shown, with what to do about it."""
    end = call(12001, host=host).end()
    reason = "No computer called “%s” was found. Check the spelling, or use its address." % host
    assert end == Disconnected(SERVER, reason)


def test_a_listener_that_never_speaks_is_given_up(call, hub, monkeypatch):
    """What accepts but never answers is no chat server."""
    monkeypatch.setattr(client, "CONNECT_TIME", 0.5)
    end = call(hub.port).end()
    reason = "127.0.0.1:%d is there, but does not answer as a chat server does." % hub.port
    assert end == Disconnected(SERVER, reason)


@needs_dead_end
def test_a_machine_that_never_answers_is_given_up(call, monkeypatch):
    """Packets that vanish are waited for as long as CONNECT_TIME says."""
    monkeypatch.setattr(client, "CONNECT_TIME", 0.5)
    with dead_end() as port:
        end = call(port).end()
        reason = "Nothing answered at 127.0.0.1:%d within 0.5 seconds. Is server.py running there?"
        assert end == Disconnected(SERVER, reason % port)


def addresses(*ports):
    """What a look-up gives for a host that is at several addresses."""
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in ports]


def test_an_address_that_refuses_is_followed_by_the_next(call, hub, monkeypatch):
    """A host may be found under several addresses; one that works is enough."""
    with closed_port() as port:
        found = addresses(port, hub.port)
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: found)
        alice = call(0)
        hub.welcome()
        assert isinstance(alice.next(), Connected)


@needs_dead_end
def test_an_address_that_never_answers_is_followed_by_the_next(call, hub, monkeypatch):
    """An address that leads nowhere (often the one of IPv6) takes no other's time away."""
    monkeypatch.setattr(client, "CONNECT_TIME", 1.0)
    with dead_end() as port:
        found = addresses(port, hub.port)
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: found)
        alice = call(0)
        wait_until(lambda: hub.is_called() or not alice.events.empty())
        assert alice.events.empty()
        hub.welcome()
        assert isinstance(alice.next(), Connected)


@needs_dead_end
def test_waiting_costs_no_work(call, monkeypatch):
    """What is typed meanwhile wakes the thread once, not until the connection stands."""
    monkeypatch.setattr(client, "CONNECT_TIME", 0.5)
    turns = []
    select = client.selectors.DefaultSelector.select

    def counted(selector, timeout=None):
        turns.append(timeout)
        return select(selector, timeout)

    monkeypatch.setattr(client.selectors.DefaultSelector, "select", counted)
    with dead_end() as port:
        alice = call(port)
        alice.say()
        alice.end()
    assert len(turns) < 20


# A peer that is no friend


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
        ("😀 李 \u05d0".encode(), "😀 李 \u05d0"),
    ],
)
def test_what_arrives_is_safe_to_show(call, hub, sent, heard):
    """Bytes that are no text, controls, escapes and what reorders text stay outside."""
    alice = call(hub.port)
    hub.welcome()
    alice.joined()
    hub.send_bytes(b":bob!b@h PRIVMSG alice :" + sent + b"\r\nPONG :barrier\r\n")
    event = alice.next()
    assert event.command == "PRIVMSG"
    assert event.text == heard


def test_names_that_arrive_are_safe_to_show(call, hub):
    """Not only the text: every part of a message that is shown is made safe."""
    alice = call(hub.port)
    hub.welcome()
    alice.joined()
    hub.send_bytes(":b\u202eo\x1bb!b@h NICK :r\x07o\u200bb\r\n".encode())
    event = alice.next()
    assert (event.nickname, event.params) == ("bob", ("rob",))


@pytest.mark.parametrize(
    ("line", "params"),
    [
        ("PRIVMSG al\u200dice :👩\u200d💻", ("alice", "👩\u200d💻")),
        ("PRIVMSG alice :\x01ACTION 👩\u200d💻\x01", ("alice", "\x01ACTION 👩\u200d💻\x01")),
        ("353 alice = #lobby :al\u200dice bo\u200db", ("alice", "=", "#lobby", "alice bob")),
        ("NICK bo\u200db", ("bob",)),
    ],
)
def test_what_joins_emoji_joins_no_names(call, hub, line, params):
    """Two names that look alike would be two people."""
    alice = call(hub.port)
    hub.welcome()
    alice.joined()
    hub.send_bytes((":ca\u200drol!c@h %s\r\n" % line).encode())
    event = alice.next()
    assert (event.nickname, event.params) == ("carol", params)


def test_of_the_tags_only_what_is_of_use_arrives(call, hub):
    """What could not be said to the server again, or nobody reads, is not kept."""
    alice = call(hub.port)
    hub.welcome()
    alice.joined()
    hub.send("@msgid=7;time=t:1;account=bob;batch;label=a\\sb :bob!b@h PRIVMSG alice :hi")
    too_long = "7" * (protocol.MAX_WORD + 1)
    hub.send("@msgid=%s;+typing=active :bob!b@h PRIVMSG alice :hi" % too_long)
    assert [alice.next().tags for _ in range(2)] == [{"msgid": "7", "time": "t:1"}, {}]


def test_what_is_no_message_is_passed_over(call, hub):
    """Noise between two messages costs neither of them."""
    alice = call(hub.port)
    hub.welcome()
    alice.joined()
    noise = [
        b"", b"\0", b":", b"@", b"@a", b" ", b"\r", b"\xff\xff", b"{}", b"<html>", b":bob!b@h",
        b"PRIVMSG alice :a\0b", b"PRIVMSG alice :" + b"x" * 600, b"@" + b"x" * 9000 + b" PONG x",
    ]  # fmt: skip
    hub.send_bytes(b"\r\n".join([*noise, b":bob!b@h PRIVMSG alice :still here", b""]))
    assert alice.next().text == "still here"


def test_a_line_without_end_is_not_kept(call, hub):
    """A megabyte before the line's end is dropped; the next line arrives."""
    alice = call(hub.port)
    hub.welcome()
    alice.joined()
    hub.send_bytes(b"x" * 1_000_000)
    hub.send_bytes(b"\r\n:bob!b@h PRIVMSG alice :at last\r\n")
    assert alice.next().text == "at last"


def test_lines_arrive_whole_in_whatever_pieces_they_come(call, hub):
    """The network may cut anywhere, in the middle of a character too."""
    alice = call(hub.port)
    hub.welcome()
    alice.joined()
    for byte in ":bob!b@h PRIVMSG alice :é 😀\r\n".encode():
        hub.send_bytes(bytes([byte]))
    assert alice.next().text == "é 😀"


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x01\0\2\2\x46"])
def test_what_speaks_something_else_ends_in_words(call, hub, answer):
    """Another program's port is no reason to break: the end has a reason."""
    alice = call(hub.port)
    hub.accept().send_bytes(answer)
    hub.expect("USER alice 0 * :alice")
    hub.finish()
    reason = "127.0.0.1:%d is there, but does not answer as a chat server does." % hub.port
    assert alice.end() == Disconnected(SERVER, reason)


@pytest.mark.parametrize("depart", ["finish", "reset"])
def test_a_peer_that_goes_without_a_word_is_noticed(call, hub, depart):
    """FIN and RST both end the connection, as lost."""
    alice = call(hub.port)
    hub.welcome()
    alice.joined()
    getattr(hub, depart)()
    assert alice.lost().reason == "The connection was lost."


# Pings


def test_a_ping_is_answered_and_not_shown(call, hub):
    """The server's question is answered with its own words, before the welcome too."""
    alice = call(hub.port)
    hub.accept().send("PING :early bird")
    hub.expect("PONG :early bird")
    hub.send(":hub 001 alice :Welcome", "PING hub")
    hub.expect("PONG hub")
    assert isinstance(alice.next(), Connected)
    assert alice.next().command == "001"
    assert alice.events.empty()


def test_silence_is_asked_about_and_then_is_an_end(call, hub, monkeypatch):
    """A line that is dead without saying so is found out by a PING that nobody answers."""
    monkeypatch.setattr(client, "PING_AFTER", 0.4)
    alice = call(hub.port)
    hub.welcome()
    hub.expect("PING hubbub")
    hub.send("PONG hub :hubbub")
    hub.expect("PING hubbub")
    assert alice.lost().reason == "The server does not answer any more."


# The end


def test_closing_says_goodbye_and_ends_the_thread(call, hub):
    """The server hears QUIT, and the last event says that it was our wish."""
    alice = call(hub.port)
    hub.welcome()
    alice.joined()
    alice.connection.close(TIMEOUT)
    assert alice.is_over(0)
    assert alice.end() == Disconnected(CLOSED, "")
    assert [line for line in hub.rest() if line.startswith("QUIT")]


def test_what_was_sent_before_closing_arrives(call, hub):
    """Closing cuts nothing off that was said."""
    alice = call(hub.port)
    hub.welcome()
    alice.joined()
    lines = [Message("PRIVMSG", ("bob", "%d" % number)) for number in range(10000)]
    alice.say(*lines)
    alice.connection.close()
    heard = [line for line in hub.rest() if line.startswith("PRIVMSG")]
    assert heard == ["PRIVMSG bob :%d" % number for number in range(10000)]
    assert alice.is_over()


def test_closing_ends_what_only_tries_to_connect(call, hub):
    """A connection that was never answered can be called off at once."""
    alice = call(hub.port)
    hub.accept().expect("USER alice 0 * :alice")
    alice.connection.close()
    assert alice.end() == Disconnected(CLOSED, "")


def test_closing_twice_and_sending_afterwards_harm_nobody(call, hub):
    """Whoever is late finds a closed door, not an error."""
    alice = call(hub.port)
    hub.welcome()
    alice.connection.close(TIMEOUT)
    alice.connection.close(TIMEOUT)
    alice.say(Message("PRIVMSG", ("bob", "too late")))
    assert alice.end() == Disconnected(CLOSED, "")


def test_closing_does_not_wait_for_a_peer_that_never_reads(call, hub):
    """What cannot be sent is given up soon, and the thread is not left behind."""
    alice = call(hub.port)
    hub.welcome()
    alice.joined()
    alice.say(*[Message("PRIVMSG", ("bob", "x" * 400))] * 50000)
    alice.connection.close(client.QUIT_TIME)
    is_over = alice.is_over(1)
    hub.reset()
    assert is_over


def test_a_window_that_cannot_keep_up_slows_the_sender(call, hub):
    """The queue is bounded: past it the thread waits, then the network, then the sender."""
    alice = call(hub.port, space=10)
    hub.welcome()
    alice.joined()
    line = b":bob!b@h PRIVMSG alice :flood\r\n"
    hub.patience(0.3)
    with pytest.raises(socket.timeout):
        for _ in range(1000):  # 32 MB
            hub.send_bytes(line * 1000)
    wait_until(alice.events.full)
    for _ in range(1000):  # and goes on when there is room
        assert alice.next().text == "flood"


@pytest.mark.parametrize("question", ["PING x", "CAP * NAK :"])
def test_who_asks_and_does_not_read_is_left(call, hub, monkeypatch, question):
    """What the server makes us say does not pile up here for ever."""
    monkeypatch.setattr(client, "MAX_OUTGOING", 5000)
    alice = call(hub.port)
    hub.accept()
    with contextlib.suppress(OSError):
        while not alice.is_over(0):
            hub.send_bytes((question + "\r\n").encode() * 10000)
    assert alice.end().reason == "The server does not read what it asks for."


def test_closing_does_not_wait_for_a_window_that_looks_no_more(call, hub):
    """A thread that waits for room in the queue ends too, whatever it still holds."""
    alice = call(hub.port, space=10)
    hub.welcome()
    alice.joined()
    hub.send(*[":bob!b@h PRIVMSG alice :flood"] * 1000)
    wait_until(alice.events.full)
    alice.connection.close(3)
    assert alice.is_over(0)


def test_a_server_that_offers_nothing_is_joined_without_echo(call, hub):
    """Old servers have no capabilities; Connected says that words do not come back."""
    alice = call(hub.port)
    hub.welcome(caps="")
    assert alice.next() == Connected("alice")


@pytest.fixture
def owned(open_room, tmp_path):
    """A server on which alice is somebody's name, with the password opensesame."""
    room = open_room(data=str(tmp_path / "data"))
    alice = room.irc("alice", "draft/account-registration")
    alice.send("REGISTER * * opensesame")
    assert any("REGISTER SUCCESS alice" in line for line in alice.heard())
    alice.send("QUIT")
    alice.rest()
    return room


def test_a_registered_name_asks_for_its_password(owned, call):
    """Without it one is told whose name it is; with a wrong one, that it is wrong."""
    words = "“alice” is registered. If it is yours, type its password; else choose another."
    assert call(owned.server.port).end() == Disconnected(PASSWORD, words)
    wrong = call(owned.server.port, password="wrong").end()
    assert wrong == Disconnected(PASSWORD, "Wrong password.")


def test_its_owner_is_let_in_and_comes_back(owned, call):
    """The password is said once; after that the connection knows it."""
    alice = call(owned.server.port, password="opensesame")
    assert alice.welcomed().nickname == "alice"
    assert alice.connection._login == ("alice", "opensesame")


def test_who_logs_in_elsewhere_takes_the_name_for_good(owned, call):
    """Two windows of one person do not throw each other out for ever."""
    here = call(owned.server.port, password="opensesame")
    here.welcomed()
    there = owned.irc("alicia", "sasl")
    typed = protocol.parse_input("/login alice opensesame")
    there.send(*(protocol.serialize(m).decode() for m in protocol.compose(typed, "", "", "")))
    assert here.end() == Disconnected(NAME, "alice has come back, and taken the name")
    assert any(" NICK alice" in line for line in there.heard())


def test_a_lost_place_is_taken_back_unseen(room, call):
    """On the real server: nobody sees a leave or a join, and the rooms are ours at once."""
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


# Coming back


@pytest.fixture
def quick(monkeypatch):
    """Attempts follow each other at once."""
    monkeypatch.setattr(client, "RETRY_TIMES", (0.0, 0.01))


@pytest.fixture
def slow(monkeypatch):
    """The second attempt comes when the test is long over, if nothing hastens it."""
    monkeypatch.setattr(client, "RETRY_TIMES", (0.0, 1000.0))


def refuse(hub):
    """Let a client in no further than the door."""
    hub.accept().send("ERROR :Not now.")
    hub.finish()


def test_a_lost_connection_comes_back_by_itself(call, hub):
    """At once, under the same name; each welcome has its number."""
    alice = call(hub.port)
    hub.welcome()
    assert alice.welcomed().session == 1
    hub.finish()
    lost = alice.lost()
    assert (lost.attempt, lost.seconds) == (1, 0.0)
    hub.welcome()
    assert alice.welcomed() == Connected("alice", frozenset(client_caps()), 2)


def client_caps():
    return "echo-message message-tags server-time".split()


def test_the_pauses_grow_and_begin_again_after_a_welcome(call, hub, monkeypatch):
    """Each attempt has its number and its pause, a little more or less; a welcome resets them."""
    monkeypatch.setattr(client, "RETRY_TIMES", (0.0, 0.01, 0.02))
    alice = call(hub.port)
    hub.welcome()
    hub.finish()
    for attempt, least, most in [(1, 0, 0), (2, 0.008, 0.012), (3, 0.016, 0.024),
                                 (4, 0.016, 0.024)]:  # fmt: skip
        lost = alice.lost()
        assert lost.attempt == attempt
        assert least <= lost.seconds <= most
        if attempt < 4:
            refuse(hub)
    hub.welcome()
    assert alice.welcomed().session == 2
    hub.finish()
    assert alice.lost().attempt == 1


def test_the_pauses_are_those_of_the_design():
    """At once, then 1, 2, 4 ... 30 seconds."""
    assert client.RETRY_TIMES == (0, 1, 2, 4, 8, 16, 30)


def test_who_was_never_welcome_does_not_come_back(call, hub):
    """The first attempt is the user's, who is told why it failed."""
    alice = call(hub.port)
    refuse(hub)
    assert alice.end() == Disconnected(SERVER, "Not now.")


@pytest.mark.parametrize(
    ("line", "fault"),
    [(":hub 464 alice :Password incorrect", PASSWORD), (":hub 465 alice :You are banned", SERVER)],
)
def test_a_password_and_a_ban_end_it(call, hub, line, fault):
    """What no patience mends is not tried again."""
    alice = call(hub.port)
    hub.welcome()
    alice.joined()
    hub.finish()
    alice.lost()
    hub.accept().send(line)
    assert alice.end().fault == fault


def test_trying_now_ends_the_pause(call, hub, slow):
    """The user need not wait."""
    alice = call(hub.port)
    hub.welcome()
    hub.finish()
    alice.lost()
    refuse(hub)
    assert alice.lost().seconds > 500
    alice.connection.retry()
    hub.welcome()
    assert alice.welcomed().session == 2


def test_waking_from_sleep_ends_the_pause(call, hub, slow, monkeypatch):
    """The clock on the wall has gone on while the computer slept: time to try."""
    alice = call(hub.port)
    hub.welcome()
    hub.finish()
    alice.lost()
    refuse(hub)
    assert alice.lost().attempt == 2
    real, hours = client.time.time, []
    monkeypatch.setattr(client.time, "time", lambda: hours.append(1) or real() + 3600 * len(hours))
    hub.welcome()
    assert alice.welcomed().session == 2


def test_a_network_that_is_back_ends_the_pause(call, hub, slow, monkeypatch):
    """As soon as there is a way to the server again, it is tried."""
    alice = call(hub.port)
    hub.welcome()
    hub.finish()
    alice.lost()
    monkeypatch.setattr(client.Connection, "_path", lambda connection: "")
    refuse(hub)
    assert alice.lost().attempt == 2
    monkeypatch.setattr(client.Connection, "_path", lambda connection: "192.0.2.7")
    hub.welcome()
    assert alice.welcomed().session == 2


def test_after_sleep_the_line_is_tested_at_once(call, hub, monkeypatch):
    """A connection that may have died meanwhile is asked about, not waited for."""
    monkeypatch.setattr(client, "WATCH_TIME", 0.05)
    alice = call(hub.port)
    hub.welcome()
    alice.joined()
    real, hours = client.time.time, []
    monkeypatch.setattr(client.time, "time", lambda: hours.append(1) or real() + 3600 * len(hours))
    hub.expect("PING hubbub")


def test_closing_ends_the_pause_too(call, hub, slow):
    """Who has had enough waits for nothing."""
    alice = call(hub.port)
    hub.welcome()
    hub.finish()
    alice.lost()
    refuse(hub)
    alice.lost()
    alice.connection.close()
    assert alice.end() == Disconnected(CLOSED, "")


def test_who_wants_no_return_gets_none(call, hub):
    """For a pipe a lost connection is the end."""
    alice = call(hub.port, returns=False)
    hub.welcome()
    alice.joined()
    hub.finish()
    assert alice.end() == Disconnected(LOST, "The connection was lost.")


def test_what_did_not_go_is_told(call, hub):
    """Of what was to be sent, the connection says what the network never got."""
    alice = call(hub.port)
    hub.welcome()
    alice.joined()
    lines = [Message("PRIVMSG", ("bob", "%d %s" % (number, "x" * 400))) for number in range(50000)]
    alice.say(*lines)
    assert alice.connection.unsent > 40000
    hub.expect("PRIVMSG bob :0 " + "x" * 400)
    hub.reset()
    unsent = alice.lost().unsent
    assert 0 < len(unsent) < len(lines)
    assert all(a is b for a, b in zip(unsent, lines[-len(unsent) :]))
    assert alice.connection.unsent <= 3  # the first words of the next attempt


def test_what_was_meant_for_an_earlier_session_is_not_sent_in_this_one(call, hub):
    """Who has not yet heard of the loss cannot speak into the new connection by mistake."""
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


def test_a_name_that_is_in_use_is_no_obstacle_on_the_way_back(call, hub):
    """Our own ghost has it, most likely: another one will do until it has gone."""
    alice = call(hub.port)
    hub.welcome()
    hub.finish()
    alice.lost()
    hub.accept().send("CAP * LS :")
    hub.send(":hub 433 * alice :In use")
    hub.expect("NICK alice_")
    hub.send(":hub 433 * alice_ :In use")
    hub.expect("NICK alice__")
    hub.send(":hub 001 alice__ :Welcome")
    assert alice.welcomed().nickname == "alice__"
    hub.finish()
    alice.lost()
    hub.accept().expect("NICK alice")  # the next time it is tried again


def test_a_new_name_is_the_one_to_come_back_with(call, hub):
    """/nick outlives the connection."""
    alice = call(hub.port)
    hub.welcome()
    hub.send(":alice!a@h NICK alicia", ":bob!b@h NICK alice")
    alice.hear("alice")
    hub.finish()
    alice.lost()
    hub.accept().expect("NICK alicia")


@pytest.mark.parametrize("name", ["no name at all", ":", ""])
def test_a_name_that_is_none_does_not_keep_us_from_coming_back(call, hub, name):
    """Whatever a server calls us: we come back with a name that can be said."""
    alice = call(hub.port)
    hub.accept().send(":hub 001 :" + name, ":hub 001 alice :Welcome")
    assert alice.welcomed().nickname == "alice"
    hub.send(":alice!a@h NICK :" + name, "PING barrier")
    hub.expect("PONG barrier")
    hub.finish()
    alice.lost()
    hub.accept().expect("NICK alice")


def test_a_token_takes_the_old_place_back(call, hub):
    """It is said before the name, once; and nobody but the two ends ever sees it."""
    alice = call(hub.port)
    hub.welcome(caps=client.RESUME)
    hub.send("RESUME TOKEN s3cret")
    alice.joined()
    hub.send("PING barrier")
    hub.expect("PONG barrier")
    hub.finish()
    assert "s3cret" not in repr(alice.lost())
    hub.accept()
    assert hub.until("CAP LS :302") == ["CAP LS :302"]
    hub.send("CAP * LS :" + client.RESUME)
    hub.expect("CAP REQ :" + client.RESUME)
    hub.send("CAP * ACK :" + client.RESUME)
    assert hub.until("RESUME s3cret") == ["RESUME s3cret"]
    hub.send(":hub 001 alice :Welcome", "RESUME TOKEN another")
    assert alice.welcomed().is_resumed


def test_a_token_that_is_refused_costs_nothing(call, hub):
    """Registration goes on as if there had been none."""
    alice = call(hub.port)
    hub.welcome(caps=client.RESUME)
    hub.send("RESUME TOKEN s3cret", "PING barrier")
    hub.expect("PONG barrier")
    hub.finish()
    alice.lost()
    hub.accept().send("CAP * LS :" + client.RESUME, "CAP * ACK :" + client.RESUME)
    hub.expect("RESUME s3cret")
    hub.send(":hub FAIL RESUME INVALID_TOKEN :No such place")
    assert hub.until("CAP END") == ["NICK alice", "USER alice 0 * :alice", "CAP END"]
    hub.send(":hub 001 alice :Welcome")
    assert not alice.welcomed().is_resumed


def test_who_has_logged_in_does_so_again(call, hub):
    """An account's name is its owner's after a restart of the server as well."""
    alice = call(hub.port)
    hub.welcome()
    alice.connection.carry_out(client.Outcome(login=client.Login("alice", "sesame")))
    hub.finish()
    alice.lost()
    hub.accept().send("CAP * LS :sasl", "CAP * ACK :sasl")
    hub.expect("AUTHENTICATE PLAIN")
    hub.send("AUTHENTICATE +")
    hub.expect("AUTHENTICATE AGFsaWNlAHNlc2FtZQ==")
    hub.send(":hub 903 alice :Welcome back")
    hub.expect("CAP END")
