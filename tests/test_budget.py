"""The budget of clients and addresses: prices, floods, long answers and full outboxes."""

import collections
import hashlib
import queue
import selectors
import time
import types

import pytest
from harness import TIMEOUT, IrcTalker

import server
from protocol import Message

needs_scrypt = pytest.mark.skipif(not hasattr(hashlib, "scrypt"), reason="this Python lacks scrypt")


@pytest.fixture
def taken(monkeypatch):
    """The tokens that all clients have paid; they are not limited."""
    tokens = []

    def take(session, count):
        tokens.append(count)
        return 0.0

    monkeypatch.setattr(server.Session, "_take", take)
    return tokens


def price(taken, talker, *lines):
    """Return what lines cost, sent one by one."""
    talker.heard()
    taken.clear()
    for line in lines:
        talker.send(line)
        talker.heard()
    return sum(taken) - len(lines)  # that of the barrier


# Prices


@pytest.mark.parametrize(
    ("line", "tokens"),
    [
        ("PING x", 1),
        ("PRIVMSG #lobby :hello", 1),
        ("", 1),
        ("FOO", 1),
        ("PING " + "x" * 400, 1),
        ("PING " + "x" * 506, 2),
        ("@+a=%s TAGMSG #lobby" % ("x" * 2048), 5),
        ("@%s PING x" % ";".join(["a=b"] * 1000), 8),
        ("PRIVMSG #lobby,#lobby,alice,alice :x", 4),
        ("PART #b1,#b2,#b3", 3),
        ("MODE #b1 +bbb a b c", 3),
        ("MODE #b1 +b", 1),
        # Each of its four channels, and their seven members
        ("NICK robert", 1 + 4 + 7),
        ("AWAY :gone", 1 + 4 + 7),
        ("SETNAME Robert", 1 + 4 + 7),
        # Four users, four channels and their members, at a token each; replies are one more each
        # beyond the first.
        ("WHO zzz", 1 + 4),
        ("WHO #lobby", 1 + 4 + 4),
        ("NAMES #lobby", 1 + 4),
        ("JOIN #b4", 1 + 1),  # and for leaving
        ("JOIN #b4,#b5", 2 + 2),
        ("LIST zzz", 1 + 4 * 1.25 + 1),
        ("LIST zzz,yyy,*b*", 1 + 2 + 4 * 1.75 + 5),
        ("MONITOR + alice", 1),
    ],
)
def test_work_has_its_price(room, monkeypatch, taken, line, tokens):
    for nickname in ("alice", "carol", "dora"):
        room.irc(nickname)
    bob = room.irc("bob", "message-tags setname")
    bob.send("JOIN #b1,#b2,#b3")
    bob.heard()
    monkeypatch.setattr(server, "ROWS_PER_TOKEN", 1)
    assert price(taken, bob, line) == pytest.approx(tokens)


def test_those_who_watch_a_nickname_are_paid_for(room, monkeypatch, taken):
    """The old nickname and the new have two watchers each, who are told in a room of nobody."""
    monkeypatch.setattr(server, "WATCHERS_PER_TOKEN", 1)
    bob = room.irc("bob")
    bob.send("PART #lobby")
    plain = price(taken, bob, "NICK ben", "NICK bob")
    for nickname in ("alice", "carol"):
        watcher = room.irc(nickname)
        watcher.send("MONITOR + bob,ben")
        watcher.heard()
    assert price(taken, bob, "NICK ben", "NICK bob") == plain + 8


def test_piece_of_a_line_has_its_price(room, monkeypatch):
    bob, paid = room.irc("bob"), queue.Queue()
    monkeypatch.setattr(server.Session, "_take", lambda session, count: paid.put(count) or 0.0)
    for piece, tokens in ((b"PI", server.PIECE_PRICE), (b"NG x\r\n", 1)):
        bob.send_bytes(piece)
        assert paid.get(timeout=TIMEOUT) == tokens


def test_connection_registration_and_end_have_their_price(room, taken):
    room.irc("alice")
    taken.clear()
    bob = room.irc("bob")
    names, members = 2, 1 / server.ROWS_PER_TOKEN
    barrier = 1
    leaving = 1  # is paid for in advance
    whole = server.CONNECTION_PRICE + names + server.REGISTRATION_PRICE + members + leaving
    assert sum(taken) == pytest.approx(whole + barrier)
    taken.clear()
    bob.send("QUIT")
    bob.rest()
    assert sum(taken) == 1


@needs_scrypt
def test_password_and_history_have_their_price(open_room, tmp_path, monkeypatch, taken):
    monkeypatch.setattr(server, "SCRYPT", (16, 8, 1))
    room = open_room(data=str(tmp_path))
    room.server.store.add_account("alice", "correct horse", is_operator=True)
    bob = room.irc("bob")
    assert price(taken, bob, "OPER alice wrong-horse") == 1 + server.PASSWORD_PRICE
    assert price(taken, bob, "REGISTER * * long-enough") == 1 + server.PASSWORD_PRICE
    rows = server.MAX_HISTORY / server.ROWS_PER_TOKEN
    assert price(taken, bob, "CHATHISTORY LATEST #lobby * 9999") == 1 + rows
    times = "timestamp=1971-01-01T00:00:00.000Z timestamp=1972-01-01T00:00:00.000Z"
    more = (2 * server.SAME_TIME + 1) / server.ROWS_PER_TOKEN
    assert price(taken, bob, "CHATHISTORY BETWEEN #lobby %s 1" % times) == 1 + more


# Budgets


def test_lines_before_the_end_of_a_pipe_arrive(open_room, monkeypatch):
    """Also those that have to wait: `nc -N` closes its sending direction at once."""
    room = open_poor_room(open_room, monkeypatch)
    alice, bob = room.irc("alice"), room.plain("bob")
    bob.send(*("line %d" % number for number in range(70)))
    bob.finish()
    said = [line for line in alice.until(" QUIT :Connection closed") if "PRIVMSG" in line]
    assert [line.rpartition(" ")[2] for line in said] == [str(number) for number in range(70)]


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("lines", [5000, 5000000], ids=["all read", "more than fits"])
def test_peer_that_is_gone_is_noticed_behind_what_it_sent(open_room, monkeypatch, end, lines):
    """Also if its end waits behind bytes for which there is no space."""
    monkeypatch.setattr(server, "MAX_REST", 1.0)
    room = open_poor_room(open_room, monkeypatch)
    alice, bob = room.irc("alice"), room.irc("bob")
    alice.heard()
    bob.heard()
    bob.pour(b"\r\n" * lines)
    getattr(bob, end)()
    assert " QUIT :" in alice.line()
    room.wait_until_gone(bob)


def open_poor_room(open_room, monkeypatch):
    """Return a room in which 60 tokens pass at once, then 100 a second."""
    monkeypatch.setattr(server, "BURST", 50)
    monkeypatch.setattr(server, "ADDRESS_BURST", 60)
    return open_room(rate_limit=10)


def paste(talker, count):
    talker.send(*["PRIVMSG #lobby :word"] * count)


def test_reconnecting_brings_no_new_budget(open_room, monkeypatch):
    """Nothing is lost; what the address has said comes at its rate."""
    room = open_poor_room(open_room, monkeypatch)
    alice, started = room.irc("alice"), time.monotonic()
    for number in range(4):
        flooder = room.connect(IrcTalker)
        flooder.send("NICK flooder%d" % number, "USER a 0 * :a")
        paste(flooder, 30)
        flooder.send("QUIT")
    heard = [alice.expect(" :word") for _ in range(120)]
    assert len(heard) == 120
    assert time.monotonic() - started > (120 - 60) / 100


def test_resuming_brings_no_new_budget(open_room, monkeypatch):
    monkeypatch.setattr(server, "BURST", 50)
    room = open_room(rate_limit=50)
    alice, flooder = room.irc("alice"), room.connect(IrcTalker)
    flooder.send("CAP REQ hubbub/resume", "NICK flooder", "USER a 0 * :a", "CAP END")
    started, buckets = time.monotonic(), set()
    for _ in range(4):
        token = next(line for line in iter(flooder.line, "") if " TOKEN " in line).split()[-1]
        paste(flooder, 30)
        flooder.heard()
        buckets.add(id(room.client("flooder").bucket))
        flooder = room.connect(IrcTalker)
        flooder.send("CAP REQ hubbub/resume", "RESUME " + token)
    for _ in range(120):
        alice.expect(" :word")
    assert len(buckets) == 1
    assert time.monotonic() - started > (120 - 50) / 50


def test_class_behind_an_address_notices_nothing(open_room, tmp_path, monkeypatch):
    """30 join at once, ask for the history and paste 30 lines each: nobody waits."""
    waits = []
    monkeypatch.setattr(server.Session, "_pause", lambda session, wait: waits.append(wait))
    room = open_room(data=str(tmp_path), rate_limit=server.Options().rate_limit)
    caps = "batch draft/chathistory echo-message labeled-response message-tags server-time"
    pupils = [room.irc("pupil%d" % number, caps) for number in range(30)]
    for pupil in pupils:
        pupil.send("CHATHISTORY LATEST #lobby * 100")
        paste(pupil, 30)
    for pupil in pupils:
        for _ in range(30 * 30):
            pupil.expect(" :word")
    assert waits == []


def test_neighbour_of_a_flood_waits_for_no_debt_of_it(open_room, monkeypatch):
    """20 connections of its address want 20 x 40 tokens, of which there are 10 a second."""
    monkeypatch.setattr(server, "ADDRESS_BURST", 40)
    monkeypatch.setattr(server, "ADDRESS_SHARE", 1)
    room = open_room(rate_limit=10)
    alice = room.irc("alice")
    flooders = [room.connect() for _ in range(20)]
    for flooder in flooders:
        flooder.pour(b"QUIT :%s\r\n" % (b"x" * 500) * 1000)
    room.server.limits["work"].charge("127.0.0.1", 40, time.monotonic())
    started = time.monotonic()
    alice.heard()
    newcomer = room.irc("newcomer")
    assert time.monotonic() - started < 20
    newcomer.heard()


def test_limit_of_0_costs_no_look_at_the_clock(open_room, monkeypatch):
    room = open_room(rate_limit=0)
    alice = room.irc("alice")
    monkeypatch.setattr(server.Bucket, "charge", lambda *args: pytest.fail("charged"))
    paste(alice, 300)
    alice.heard()


# Long answers


@pytest.mark.parametrize("command", ["WHO #lobby", "LIST", "WHOWAS ghost", "MODE #r0 b", "HELP"])
def test_long_answer_in_pieces_is_whole(room, monkeypatch, command):
    """In one batch, whatever the size of the pieces."""
    alice = room.irc("alice", "batch labeled-response")
    for _ in range(20):
        ghost = room.irc("ghost")
        ghost.send("QUIT")
        ghost.rest()
    alice.send("JOIN " + ",".join("#r%d" % number for number in range(20)))
    alice.send(*("MODE #r0 +b mask%d" % number for number in range(20)))
    alice.heard()
    answers = []
    for size in (1000, 7, 1):
        monkeypatch.setattr(server, "ROWS_PER_TOKEN", size)
        alice.send("@label=x " + command)
        lines = alice.heard()
        reference = lines[0].split("BATCH +")[1].split()[0]
        assert lines[-1].endswith("BATCH -" + reference)
        assert all(line.startswith("@batch=" + reference) for line in lines[1:-1])
        answers.append([line.partition(" ")[2] for line in lines[1:-1]])
    assert answers[0] == answers[1] == answers[2]


def test_long_answer_waits_for_its_reader_and_ends_with_it(room, monkeypatch):
    """The pieces that nobody will read are not made."""
    alice, bob = room.irc("alice"), room.irc("bob")
    alice.send("JOIN " + ",".join("#r%d" % number for number in range(40)))
    alice.heard()
    made = []
    make_event = server.Response.make_event

    def count(response, reply, source=""):
        made.append(reply[0])
        return make_event(response, reply, source)

    monkeypatch.setattr(server.Response, "make_event", count)
    monkeypatch.setattr(server, "ROWS_PER_TOKEN", 10)
    monkeypatch.setattr(server, "MANY_REPLIES", 10)
    monkeypatch.setattr(server, "MAX_AHEAD", -1)  # it has never read enough
    bob.send("LIST")
    for _ in range(10):
        assert bob.line()
    bob.reset()
    room.wait_until_gone(bob)
    assert made.count("322") == 10  # with 321 in the first piece, one more is made for the next


# Outboxes


@pytest.mark.parametrize("limit", ["MAX_OUTBOXES", "MAX_ADDRESS_OUTBOX"])
def test_largest_outbox_goes_first(room, monkeypatch, limit):
    """Beyond a limit for all together; who reads, and who holds less, stays."""
    monkeypatch.setattr(server, limit, 100000)
    large = room.irc("large", receive_buffer=4096)
    small = room.irc("small", receive_buffer=4096)
    alice, bob = room.irc("alice"), room.irc("bob")
    large.send("JOIN #large")
    alice.send("JOIN #large")
    alice.expect(" 366 alice #large :End of /NAMES list")
    most = 0
    while room.client("large"):
        alice.send(*["PRIVMSG #large :" + "x" * 400] * 100, "PRIVMSG #lobby :" + "x" * 400)
        alice.heard()
        most = max(most, sum(client.queued for client in room.server.directory.users()))
    assert most < 100000 + server.MAX_BATCH * 500
    assert room.client("small")
    quit_line = [line for line in bob.heard() if " QUIT " in line]
    assert quit_line[0].endswith("QUIT :SendQ exceeded")
    assert small.heard()
    small.close()
    room.wait_until_gone(small, large)


def test_select_is_asked_in_parts(open_room, monkeypatch):
    """Windows takes 512 sockets at once: here it is 3, and eight clients are blocked."""

    def limited(readers, writers, others, timeout=None, select=server.select.select):
        if len(readers) + len(writers) > 3:
            raise ValueError("too many file descriptors in select()")
        return select(readers, writers, others, timeout)

    monkeypatch.setattr(server, "MAX_SELECT", 3)
    monkeypatch.setattr(server.select, "select", limited)
    monkeypatch.setattr(selectors.SelectSelector, "_select", staticmethod(limited))
    monkeypatch.setattr(selectors, "DefaultSelector", selectors.SelectSelector)
    room = open_room(max_sendq=0)
    slow = [room.irc("slow%d" % number, receive_buffer=4096) for number in range(8)]
    alice, sent = room.irc("alice"), 0
    while len(room.server.delivery._selector.get_map()) < 9:
        alice.send(*["PRIVMSG #lobby :" + "x" * 400] * 200)
        alice.heard()
        sent += 200
    for talker in slow:
        assert sum(" PRIVMSG " in line for line in talker.heard()) == sent
    assert len(room.server.delivery._selector.get_map()) == 1


def test_batch_has_few_rows():
    """300 who leave 49 channels each: nobody waits until 14,700 rows are on disk."""
    message = Message("QUIT", ("bye",), "a!b@c")
    event = server.Event(message, (), conversations=tuple("#r%d" % number for number in range(49)))
    waiting = types.SimpleNamespace(pending=collections.deque([event] * 300))
    sizes = []
    while waiting.pending:
        sizes.append(len(server.Delivery._next_batch(waiting)))
    assert sum(sizes) == 300 and max(sizes) <= server.MAX_BATCH / 49 + 1
    waiting.pending.extend([server.Event(message, ())] * 300)
    assert len(server.Delivery._next_batch(waiting)) == 300


# Mistakes of ours


@pytest.fixture
def mistakes(monkeypatch):
    """The mistakes that are logged."""
    found = []
    monkeypatch.setattr(server.log, "exception", lambda *args: found.append(args))
    return found


@pytest.mark.parametrize("name", ["render", "render_own"])
def test_event_that_cannot_be_rendered_is_lost_alone(room, monkeypatch, mistakes, name):
    alice, bob = room.irc("alice", "echo-message"), room.irc("bob")
    works = getattr(server.Event, name)

    def fail(event, *args):
        if event.message.text == "wrong":
            raise RuntimeError("a mistake")
        return works(event, *args)

    monkeypatch.setattr(server.Event, name, fail)
    alice.send("PRIVMSG #lobby :one", "PRIVMSG #lobby :wrong", "PRIVMSG #lobby :two")
    for talker, words in ((alice, ["one", "two"]), (bob, ["one", "wrong", "two"])):
        heard = [line.split(":")[-1] for line in talker.heard() if " PRIVMSG " in line]
        assert heard == [word for word in words if word != "wrong" or name == "render_own"]
    assert mistakes


class BrokenWriter:
    def __init__(self, writer):
        self.detach = writer.detach
        self.recv = writer.recv

    def send(self, data):
        raise ValueError("a mistake")


def test_client_that_cannot_be_sent_to_is_ended_alone(room, mistakes):
    alice, eve, bob = room.irc("alice"), room.irc("eve"), room.irc("bob")
    eve.heard()
    client = room.client("eve")
    client.writer = BrokenWriter(client.writer)
    alice.send("PRIVMSG #lobby :hello")
    bob.expect(" PRIVMSG #lobby :hello")
    bob.expect(" QUIT :Connection lost")
    assert eve.rest() == []
    room.wait_until_gone(eve)
    assert mistakes
