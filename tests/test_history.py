"""The history: messages are on disk before anybody sees them, and no disk stops the chat."""

import contextlib
import os
import re
import signal
import sqlite3
import subprocess
import threading
import time

import pytest
from harness import TIMEOUT, IrcTalker, PlainTalker, Process

import server
from protocol import format_time, parse, parse_time

CAPS = "batch draft/chathistory echo-message message-tags server-time"


def texts(lines):
    """Return the texts of the messages among `lines`."""
    return [parse(line.encode()).text for line in lines if " PRIVMSG " in line]


def ids(lines):
    return [parse(line.encode()).tags["msgid"] for line in lines if " PRIVMSG " in line]


def stored(folder, key="#lobby"):
    """Return the texts in the file of a store, read without the store."""
    database = sqlite3.connect(str(folder / "hubbub.db"))
    try:
        query = "SELECT line FROM messages WHERE key = ? AND command = 'PRIVMSG' ORDER BY number"
        return [parse(line).text for (line,) in database.execute(query, (key,))]
    finally:
        database.close()


@pytest.fixture
def room(open_room, tmp_path):
    return open_room(data=str(tmp_path / "history"))


@pytest.fixture
def start(tmp_path):
    """Start `python server.py` on the same data folder, as often as the test likes."""
    processes = []

    def start_(*args):
        stderr = tmp_path / ("stderr%d" % len(processes))
        data = ("--data", str(tmp_path / "history"), "--rate-limit", "0")
        processes.append(Process(stderr, *data, *args))
        return processes[-1]

    yield start_
    for process in processes:
        process.close()


# Keeping


def test_echo_means_stored(room, tmp_path):
    alice = room.irc("alice", CAPS)
    for number in range(20):
        alice.send("PRIVMSG #lobby :text %d" % number)
        alice.until("PRIVMSG #lobby :text %d" % number)
        assert stored(tmp_path / "history")[-1] == "text %d" % number


def test_joins_leaves_and_topics_are_kept(room, tmp_path):
    """Each a single time, for its channel, in order."""
    alice, bob = room.irc("alice"), room.irc("bob")
    bob.send("TOPIC #lobby :tea", "PART #lobby :bye")
    alice.until("PART #lobby :bye")
    bob.send("JOIN #lobby", "QUIT :gone")
    alice.until("QUIT :Quit: gone")
    database = sqlite3.connect(str(tmp_path / "history" / "hubbub.db"))
    query = "SELECT command FROM messages ORDER BY number"
    found = [command for (command,) in database.execute(query)]
    database.close()
    assert found == ["JOIN", "JOIN", "TOPIC", "PART", "JOIN", "QUIT"]


def test_old_messages_are_deleted(open_room, tmp_path):
    """After --history-days."""
    folder = tmp_path / "history"
    room = open_room(data=str(folder))
    room.irc("alice", CAPS).send("PRIVMSG #lobby :old")
    room.close()
    database = sqlite3.connect(str(folder / "hubbub.db"))
    database.execute("UPDATE messages SET time = time - 2 * 86400")
    database.commit()
    database.close()
    bob = open_room(data=str(folder), history_days=1).irc("bob", CAPS)
    bob.send("PRIVMSG #lobby :new")
    bob.until("PRIVMSG #lobby :new")
    for _ in range(1000):
        if stored(folder) == ["new"]:
            break
        threading.Event().wait(0.01)
    assert stored(folder) == ["new"]


# Telling


def test_joining_user_is_shown_the_last_messages(room):
    """Twenty lines in order, with the channel and the day."""
    alice = room.irc("alice", CAPS)
    alice.send(*("PRIVMSG #lobby :text %d" % number for number in range(25)))
    alice.heard()
    bob = room.connect(PlainTalker)
    bob.send("bob")
    heard = [line.partition("]: ")[2] for line in bob.heard()]
    start = heard.index("Earlier in #lobby:")
    assert heard[start + 1] == time.strftime("%A, %d %B %Y")
    assert heard[start + 2 : start + 23] == ["text %d" % n for n in range(5, 25)] + [
        "That was all."
    ]


def test_irc_client_without_chathistory_is_shown_them_too(room):
    """With their times if it has server-time, else in words."""
    alice = room.irc("alice", CAPS)
    alice.send("PRIVMSG #lobby :hello")
    alice.expect("PRIVMSG #lobby :hello")
    bob, carol = room.connect(IrcTalker), room.connect(IrcTalker)
    for talker, name, cap in ((bob, "bob", "server-time"), (carol, "carol", "echo-message")):
        talker.send("CAP REQ :" + cap, "NICK " + name, "USER u 0 * :u", "CAP END")
    line = bob.until("PRIVMSG #lobby :hello")[-1]
    assert line.startswith("@time=")
    carol.expect(":hubbub.local NOTICE carol :Earlier in #lobby:")
    assert carol.until("[alice]: hello")[-1].startswith(":hubbub.local NOTICE carol :[")


def test_client_with_chathistory_asks_for_itself(room):
    """It is shown nothing on joining."""
    alice = room.irc("alice", CAPS)
    alice.send("PRIVMSG #lobby :hello")
    alice.expect("PRIVMSG #lobby :hello")
    bob = room.connect(IrcTalker)
    bob.send("CAP REQ :" + CAPS, "NICK bob", "USER bob 0 * :Bob", "CAP END")
    assert texts(bob.heard()) == []


@pytest.mark.parametrize(
    ("ask", "answer"),
    [
        ("LATEST #lobby * 3", "789"),
        ("LATEST #lobby msgid={6} 10", "789"),
        ("LATEST #LOBBY timestamp={t6} 2", "89"),
        ("BEFORE #lobby msgid={4} 2", "23"),
        ("BEFORE #lobby timestamp={t4} 10", "0123"),
        ("AFTER #lobby msgid={4} 2", "56"),
        ("AFTER #lobby timestamp={t4} 3", "567"),
        ("AROUND #lobby msgid={4} 5", "23456"),
        ("AROUND #lobby timestamp={t4} 3", "345"),
        ("BETWEEN #lobby msgid={2} msgid={6} 10", "345"),
        ("BETWEEN #lobby msgid={2} msgid={6} 2", "34"),
        ("BETWEEN #lobby msgid={6} msgid={2} 2", "45"),
        ("BETWEEN #lobby timestamp={t2} msgid={6} 10", "345"),
        ("BEFORE #lobby msgid={0} 10", ""),
        ("AFTER #lobby msgid={9} 10", ""),
        ("LATEST #lobby * 0", ""),
    ],
)
def test_chathistory_selects_messages(room, ask, answer):
    """By msgid and by time, in a batch, oldest first."""
    alice = room.irc("alice", CAPS)
    said = []
    for number in range(10):
        alice.send("PRIVMSG #lobby :%d" % number)
        said.append(parse(alice.until("PRIVMSG #lobby :%d" % number)[-1].encode()).tags)
        while time.time() * 1000 < int(said[-1]["msgid"]) / 1000 + 1:
            pass  # the next message comes in another millisecond
    places = {"t%d" % number: tags["time"] for number, tags in enumerate(said)}
    alice.send("CHATHISTORY " + ask.format(*(tags["msgid"] for tags in said), **places))
    heard = alice.heard()
    assert " BATCH +" in heard[0] and " chathistory " in heard[0] and " BATCH -" in heard[-1]
    assert "".join(texts(heard)) == answer
    assert ids(heard) == [said[int(number)]["msgid"] for number in answer]


@pytest.mark.parametrize(
    ("ask", "code"),
    [
        ("FOO #lobby * 3", "INVALID_PARAMS"),
        ("LATEST #lobby *", "INVALID_PARAMS"),
        ("LATEST #lobby * many", "INVALID_PARAMS"),
        ("LATEST #lobby yesterday 3", "INVALID_PARAMS"),
        ("LATEST #lobby msgid=x 3", "INVALID_PARAMS"),
        ("LATEST #lobby timestamp=noon 3", "INVALID_PARAMS"),
        ("BETWEEN #lobby msgid=1 3", "INVALID_PARAMS"),
        ("LATEST #lobby msgid=1 msgid=2 3", "INVALID_PARAMS"),
        ("LATEST #lobby * 3 4", "INVALID_PARAMS"),
        ("BEFORE #lobby * 3", "INVALID_PARAMS"),
        ("BETWEEN #lobby msgid=1 * 3", "INVALID_PARAMS"),
        ("LATEST #elsewhere * 3", "INVALID_TARGET"),
    ],
)
def test_invalid_chathistory_fails_in_words(room, ask, code):
    """A standard reply, and the connection goes on."""
    room.irc("carol").send("JOIN #elsewhere", "PRIVMSG #elsewhere :secret")
    alice = room.irc("alice", CAPS)
    alice.send("CHATHISTORY " + ask)
    (line,) = alice.heard()
    assert " FAIL CHATHISTORY %s " % code in line


@pytest.mark.parametrize(
    ("points", "limit", "found"),
    [("04", 9, ["#a", "bob"]), ("40", 9, ["#a", "bob"]), ("04", 1, ["#a"]), ("40", 1, ["bob"]),
     ("05", 9, ["#a", "bob", "#b"]), ("50", 2, ["bob", "#b"]), ("02", 9, []), ("04", 0, [])],
)  # fmt: skip
def test_targets_are_counted_from_the_first_reference(room, points, limit, found):
    """Each by its last message, oldest first."""
    alice = room.irc("alice", CAPS)
    room.irc("bob")
    alice.send("JOIN #a,#b")
    times = ["2020-01-01T00:00:00.000Z"]
    for words in ("#b :x", "#a :y", "bob :z", "#b :w"):
        alice.send("PRIVMSG " + words)
        times.append(parse(alice.until("PRIVMSG " + words)[-1].encode()).tags["time"])
        while format_time(time.time()) == times[-1]:
            pass  # the next message comes in another millisecond
    times.append("2099-01-01T00:00:00.000Z")
    first, second = (times[int(point)] for point in points)
    alice.send("CHATHISTORY TARGETS timestamp=%s timestamp=%s %d" % (first, second, limit))
    targets = re.findall(r" CHATHISTORY TARGETS (\S+)", "\n".join(alice.heard()))
    assert targets == found


def test_event_in_many_channels_has_the_same_msgid_in_each(room):
    """NICK and QUIT keep the msgid with which they were sent."""

    def seen(line):
        message = parse(line.encode())
        return message._replace(tags=message.tags["msgid"])

    alice = room.irc("alice", CAPS + " draft/event-playback")
    bob = room.irc("bob")
    for talker in (alice, bob):
        talker.send("JOIN #a,#b")
        talker.heard()
    alice.heard()
    bob.send("NICK bobby", "QUIT")
    told = [alice.until(end)[-1] for end in (" NICK bobby", " QUIT Quit")]
    for name in ("#a", "#b", "#lobby"):
        alice.send("CHATHISTORY LATEST %s * 2" % name)
        assert [seen(line) for line in alice.heard()[1:-1]] == [seen(line) for line in told]


def test_client_with_batch_gets_a_batch_without_times_too(room):
    """Under the name that was asked for; others are told in words; a label stands a single time."""
    alice = room.irc("alice", "batch draft/chathistory labeled-response")
    alice.send("PRIVMSG #lobby :hello", "@label=x CHATHISTORY LATEST #LOBBY * 5")
    first, said, last = alice.heard()
    assert first.startswith("@label=x ") and first.endswith(" chathistory :#LOBBY")
    assert said.startswith("@batch=b1 ") and last.endswith(" BATCH -b1")
    alice.send("CAP REQ -draft/chathistory", "@label=y CHATHISTORY LATEST #lobby * 5")
    _, first, *told, last = alice.heard()
    assert first.startswith("@label=y ") and last.endswith(" BATCH -b2")
    assert len(told) == 4 and all(line.startswith("@batch=b2 ") for line in told)


def test_private_conversation_is_for_its_participants_alone(room):
    """Both find it under the other's nickname, and in TARGETS."""
    alice, bob, eve = (room.irc(name, CAPS) for name in ("alice", "bob", "eve"))
    alice.send("PRIVMSG bob :psst")
    bob.until("PRIVMSG bob :psst")
    bob.send("PRIVMSG alice :what?")
    alice.until("PRIVMSG alice :what?")
    always = "timestamp=2020-01-01T00:00:00.000Z timestamp=2099-01-01T00:00:00.000Z 10"
    for talker, other in ((alice, "bob"), (bob, "alice"), (eve, "bob"), (eve, "alice")):
        talker.heard()
        talker.send("CHATHISTORY LATEST %s * 10" % other)
        assert texts(talker.heard()) == ([] if talker is eve else ["psst", "what?"])
        talker.send("CHATHISTORY TARGETS " + always)
        found = [line for line in talker.heard() if " CHATHISTORY TARGETS %s " % other in line]
        assert bool(found) == (talker is not eve)


def test_next_guest_with_a_nickname_reads_nothing_of_the_last(room):
    """Only what was said since they took it."""
    alice, bob = room.irc("alice", CAPS), room.irc("bob", CAPS)
    alice.send("PRIVMSG bob :psst")
    bob.until("PRIVMSG bob :psst")
    bob.close()
    room.wait_until_gone(bob)
    mallory = room.irc("mallory", CAPS)
    mallory.send("NICK bob", "CHATHISTORY LATEST alice * 10")
    assert texts(mallory.heard()) == []


def test_next_guest_reads_nothing_that_is_still_being_written(open_room, tmp_path, monkeypatch):
    """A guest's history begins with the claim, in the order of events and not by the clock."""
    slowly, append = threading.Event(), server.Store.append

    def append_slowly(self, rows):
        slowly.wait(0.3)
        append(self, rows)

    monkeypatch.setattr(server.Store, "append", append_slowly)
    room = open_room(data=str(tmp_path / "history"))
    alice, bob = room.irc("alice", CAPS), room.irc("bob", CAPS)
    mallory = room.irc("mallory", CAPS)
    bob.heard()
    alice.send("PRIVMSG bob :SECRET", "QUIT")
    heard = []
    while not any(" NICK :alice" in line or " NICK alice" in line for line in heard):
        mallory.send("NICK alice")
        heard = mallory.heard()
    always = "timestamp=2020-01-01T00:00:00.000Z timestamp=2099-01-01T00:00:00.000Z 10"
    mallory.send("CHATHISTORY LATEST bob * 10", "CHATHISTORY TARGETS " + always)
    told = mallory.heard()
    assert not any("SECRET" in line or "TARGETS bob" in line for line in told)
    assert stored(tmp_path / "history", "alice bob") == ["SECRET"]
    slowly.set()


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("text=TEA", "tea-1 tea-2 tea-3 tea-4"),
        ("text=tea;limit=2", "tea-3 tea-4"),
        ("text=tea;limit=0", ""),
        ("text=tea;in=#den", "tea-2"),
        ("text=tea;in=bob", "tea-3"),
        ("text=tea;from=BOB", "tea-2 tea-3"),
        ("from=bob;limit=1", "tea-3"),
        ("text=cafe\\s2", "Café 2"),
        ("text=STRASSE", "Straße"),
        ("text=privmsg", ""),  # words of the line, but not of the text
        ("text=tea;in=#secret", ""),  # of others
        ("text=tea;in=#nowhere", ""),
        ("text=tea;before=2020-01-01T00:00:00.000Z", ""),
        ("text=tea;after=2020-01-01T00:00:00.000Z;limit=2", "tea-1 tea-2"),
        ("text=tea;after=2020-01-01T00:00:00.000Z;before=2099-01-01T00:00:00.000Z;limit=1",
         "tea-1"),
        ("text=100%", ""),
    ],
)  # fmt: skip
def test_search_finds_messages_that_may_be_read(room, monkeypatch, query, found):
    """In channels that the client is in, and its private conversations; in several steps."""
    monkeypatch.setattr(server, "SEARCHED_AT_ONCE", 3)
    alice, bob, eve = (room.irc(name, CAPS + " soju.im/search") for name in ("alice", "bob", "eve"))
    alice.send("JOIN #den")
    bob.send("JOIN #den,#secret")
    talk = [
        (alice, "#lobby :tea-1"), (bob, "#den :tea-2"), (bob, "#secret :tea secret"),
        (bob, "alice :tea-3"), (bob, "eve :tea for eve"), (alice, "#lobby :Café 2"),
        (alice, "#lobby :Straße"), (alice, "#lobby :tea-4"),
    ]  # fmt: skip
    for number in range(5):
        talk.insert(5, (alice, "#lobby :filling %d" % number))
    for talker, said in talk:
        talker.send("PRIVMSG " + said)
        talker.heard()
    alice.heard()
    alice.send("SEARCH " + query)
    answer = alice.heard()
    assert " BATCH +" in answer[0] and answer[0].endswith(" :soju.im/search")
    assert " ".join(texts(answer)) == found
    eve.heard()
    eve.send("SEARCH text=tea;in=#den", "SEARCH text=tea-3")
    assert texts(eve.heard()) == []


def test_search_finds_nothing_of_the_last_guest_or_of_a_removed_channel(room):
    alice, bob = room.irc("alice", CAPS), room.irc("bob", CAPS)
    alice.send("PRIVMSG bob :psst", "JOIN #den", "MODE #den +i", "PRIVMSG #den :psst")
    bob.until("PRIVMSG bob :psst")
    alice.heard()
    bob.close()
    room.wait_until_gone(bob)
    alice.send("PART #den")
    alice.heard()
    mallory = room.irc("mallory", CAPS + " soju.im/search")
    mallory.send("NICK bob", "JOIN #den", "SEARCH text=psst")
    assert texts(mallory.heard()) == []


def test_search_ends_in_time_and_is_paid_for(open_room, tmp_path, monkeypatch):
    """With what was found so far; each step costs, before it is made."""
    room = open_room(data=str(tmp_path / "history"))
    monkeypatch.setattr(server, "SEARCHED_AT_ONCE", 1)
    alice = room.irc("alice", CAPS + " soju.im/search standard-replies")
    alice.send(*("PRIVMSG #lobby :tea %d" % number for number in range(20)))
    alice.heard()
    paid = []
    monkeypatch.setattr(server.Session, "charge", lambda session, tokens: paid.append(tokens))
    alice.send("SEARCH text=tea;in=#lobby")
    heard = alice.heard()
    assert len(texts(heard)) == 20 and " NOTE " not in str(heard)
    assert paid.count(1 / server.SEARCHED_PER_TOKEN) >= 20
    monkeypatch.setattr(server, "SEARCH_TIME", 0.0)
    bob = room.irc("bob", CAPS + " soju.im/search")
    for talker in (alice, bob):
        talker.heard()
        talker.send("SEARCH text=tea")
        start, *notes, end = talker.heard()
        assert " BATCH +" in start and " BATCH -" in end
        words = ["NOTE SEARCH INCOMPLETE :There was no time to search all messages."]
        assert [line.split(" ", 2)[2] for line in notes] == words * (talker is alice)


def test_history_can_be_typed_in_plain_text(room):
    """It includes what the user has just said."""
    carol = room.plain("carol")
    carol.send("one", "two", "three", "/history 2")
    heard = [line.partition("]: ")[2] for line in carol.heard()]
    assert heard[heard.index("Earlier in #lobby:") + 2 :] == ["two", "three", "That was all."]


def test_server_without_history_does_not_offer_it(open_room):
    alice = open_room().irc("alice")
    alice.send("CAP LS", "CHATHISTORY LATEST #lobby * 3")
    heard = "\n".join(alice.heard())
    assert "chathistory" not in heard
    assert "FAIL CHATHISTORY MESSAGE_ERROR" in heard


# The clock


@pytest.fixture
def clock(monkeypatch):
    """A list of the seconds by which the wall clock is ahead."""
    ahead, now = [0.0], time.time
    monkeypatch.setattr(time, "time", lambda: now() + ahead[0])
    return ahead


ALWAYS = "timestamp=2020-01-01T00:00:00.000Z timestamp=2099-01-01T00:00:00.000Z"


@pytest.mark.parametrize("wrong", [3600, 10 * 365 * 86400], ids=["an hour", "ten years"])
def test_clock_that_is_set_right_changes_neither_order_nor_times(room, clock, wrong):
    """Ids go on rising; a message is of the time at which it was said."""
    alice, bob = room.irc("alice", CAPS), room.irc("bob")
    said, when = [], []
    for number, ahead in enumerate((0, wrong, 0, 0)):
        clock[0] = ahead
        alice.send("PRIVMSG #lobby :%d" % number)
        said.append(parse(alice.until("PRIVMSG #lobby :%d" % number)[-1].encode()).tags)
        when.append(time.time())
    assert [int(tags["msgid"]) for tags in said] == sorted(int(tags["msgid"]) for tags in said)
    for tags, at in zip(said, when):
        assert abs(parse_time(tags["time"]) - at) < 5
    alice.send("PRIVMSG bob :psst", "CHATHISTORY LATEST #lobby * 9")
    heard = [parse(line.encode()) for line in alice.heard() if " PRIVMSG #lobby" in line]
    assert [(m.text, m.tags["time"]) for m in heard] == [
        (str(number), tags["time"]) for number, tags in enumerate(said)
    ]
    recent = "timestamp=%s timestamp=%s 9" % tuple(map(format_time, (when[3] - 60, when[3] + 60)))
    alice.send("CHATHISTORY TARGETS " + recent)
    listed = re.findall(r" CHATHISTORY TARGETS (\S+) :?(\S+)", "\n".join(alice.heard()))
    assert [name for name, _ in listed] == ["#lobby", "bob"]
    assert all(abs(parse_time(at) - when[3]) < 5 for _, at in listed)
    bob.heard()


def test_clock_that_is_set_back_opens_no_private_history(room, clock):
    """Neither for the next guest of a nickname nor for its new owner."""
    alice, bob = room.irc("alice", CAPS), room.irc("bob", CAPS)
    alice.send("PRIVMSG bob :psst")
    bob.until("PRIVMSG bob :psst")
    bob.close()
    room.wait_until_gone(bob)
    clock[0] = -3600
    mallory = room.irc("bob", CAPS)
    for _ in range(2):
        mallory.send("CHATHISTORY LATEST alice * 10", "CHATHISTORY TARGETS %s 9" % ALWAYS)
        heard = mallory.heard()
        assert texts(heard) == [] and not any("TARGETS alice" in line for line in heard)
        mallory.send("REGISTER * * :correct horse")
        mallory.heard()


def test_start_warns_of_messages_of_the_future(open_room, tmp_path, clock, caplog):
    clock[0] = 10 * 365 * 86400
    room = open_room(data=str(tmp_path / "history"))
    room.irc("alice")
    room.close()
    assert "clock" not in caplog.text
    clock[0] = 0
    open_room(data=str(tmp_path / "history"))
    assert "the newest message is of " in caplog.text and "this clock is wrong" in caplog.text


# Pages


@pytest.fixture
def stopped(monkeypatch):
    """A wall clock that stands still: all messages are of the same millisecond."""
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    return format_time(now)


def test_pages_by_time_lose_no_message_of_the_same_millisecond(room, monkeypatch, stopped):
    """A page ends with the last of its millisecond; pages by msgid have their limit."""
    alice = room.irc("alice", CAPS)
    alice.send(*("PRIVMSG #lobby :%d" % number for number in range(5)))
    said = ids(alice.heard())
    later = parse_time(stopped) + 1
    monkeypatch.setattr(time, "time", lambda: later)
    alice.send(*("PRIVMSG #lobby :%d" % number for number in range(5, 8)))
    alice.heard()
    for ask, found in {
        "AFTER #lobby timestamp=2020-01-01T00:00:00.000Z 3": "01234",
        "AFTER #lobby timestamp=%s 9" % stopped: "567",
        "BEFORE #lobby timestamp=%s 2" % format_time(later + 1): "567",
        "BEFORE #lobby timestamp=%s 2" % format_time(later): "01234",
        "BETWEEN #lobby timestamp=%s msgid=%s 1" % (format_time(later), said[2]): "34",
        "AFTER #lobby msgid=%s 2" % said[0]: "12",
        "LATEST #lobby * 2": "67",
    }.items():
        alice.send("CHATHISTORY " + ask)
        assert "".join(texts(alice.heard())) == found, ask


def test_pages_of_targets_lose_none_of_the_same_millisecond(room, monkeypatch, stopped):
    """Four recipients of a message, three a page."""
    others = [room.irc(name) for name in ("bob", "carol", "dave", "eve")]
    alice = room.irc("alice", CAPS)
    alice.send("PRIVMSG bob,carol,dave,eve :hello")
    alice.heard()
    now = parse_time(stopped)
    pages = []
    for first, last in ((now - 1, now + 1), (now, now + 1), (now + 1, now - 1), (now, now - 1)):
        span = "timestamp=%s timestamp=%s 3" % (format_time(first), format_time(last))
        alice.send("CHATHISTORY TARGETS " + span)
        pages.append(re.findall(r" CHATHISTORY TARGETS (\S+)", "\n".join(alice.heard())))
    assert pages == [["bob", "carol", "dave", "eve"], []] * 2
    for talker in others:
        talker.heard()


# Faults of the disk


def fails(talker):
    return talker.until(server.HISTORY_FAILS)


def works(talker):
    return talker.until(server.HISTORY_WORKS)


def until_it_works(talker):
    """Talk until it is kept again."""
    pause = threading.Event()
    for number in range(200):
        talker.send("PRIVMSG #lobby :again %d" % number)
        if any(server.HISTORY_WORKS in line for line in talker.heard()):
            return
        pause.wait(0.1)
    raise AssertionError("never kept again")


def test_stuck_disk_stops_nobody(open_room, tmp_path, monkeypatch, caplog):
    """Users are told a single time that nothing is kept, and that it is again."""
    monkeypatch.setattr(server, "STORE_TIMEOUT", 0.2)
    monkeypatch.setattr(server, "RETRY_AFTER", 0.1)
    stuck, append = threading.Event(), server.Store.append
    stuck.set()

    def append_slowly(self, rows):
        stuck.wait()
        append(self, rows)

    monkeypatch.setattr(server.Store, "append", append_slowly)
    room = open_room(data=str(tmp_path / "history"))
    alice, carol = room.irc("alice", CAPS), room.plain("carol")
    stuck.clear()
    for number in range(3):
        alice.send("PRIVMSG #lobby :lost %d" % number)
        carol.until("lost %d" % number)
    told = fails(alice)
    assert sum(server.HISTORY_FAILS in line for line in told) == 1
    assert not any(server.HISTORY_FAILS in line for line in alice.heard())
    bob = room.connect(PlainTalker)
    bob.send("bob")
    fails(bob)
    stuck.set()
    until_it_works(alice)
    works(carol)
    works(bob)
    alice.send("PRIVMSG #lobby :the last")
    alice.until("the last")
    assert stored(tmp_path / "history")[-1] == "the last"
    server.log.handlers[-1].texts.clear()  # the log says why: that is right here


@pytest.fixture
def locked(monkeypatch, tmp_path):
    """Another process that holds the file of the store; a function that lets it go."""
    monkeypatch.setattr(server, "STORE_TIMEOUT", 0.2)
    monkeypatch.setattr(server, "RETRY_AFTER", 0.05)
    monkeypatch.setattr(server, "UPKEEP_INTERVAL", 0.05)
    file = sqlite3.connect(str(tmp_path / "history" / "hubbub.db"), check_same_thread=False)
    file.execute("PRAGMA journal_mode = WAL")
    with contextlib.closing(file):
        file.execute("BEGIN EXCLUSIVE")
        yield file.rollback
    server.log.handlers[-1].texts.clear()  # the log says why: that is right here


@pytest.fixture
def olgas(room, monkeypatch):
    """A server with the account olga, and alice."""
    monkeypatch.setattr(server, "SCRYPT", (16, 8, 1))
    monkeypatch.setattr(server, "DISK_TIMEOUT", 0.6)
    room.server.store.add_account("olga", "correct horse")
    alice = room.irc("alice", CAPS)
    alice.send("JOIN #den")
    alice.heard()
    return room, alice


@pytest.mark.parametrize("is_long", [False, True])
def test_disk_that_stalls_loses_nothing(olgas, locked, tmp_path, is_long):
    """Rows, modes and what waits are written when it is back, though nobody says anything.

    What is not on disk yet is not promised.
    """
    room, alice = olgas
    if is_long:  # longer than SQLite waits, so that the write fails and is tried again
        alice.send("PRIVMSG #lobby :first")
        fails(alice)
        while "locked" not in room.server.journal.fault:
            alice.heard()
    else:
        alice.send("PRIVMSG olga :hello")
        (note,) = [line for line in alice.until("soon") if "offline" in line]
        assert note.endswith(
            "olga is offline; your message will be delivered if the server's disk works again soon"
        )
    alice.send("MODE #den +k sesame", *("PRIVMSG #den :%d" % number for number in range(30)))
    assert len(texts(alice.heard())) == 30
    locked()
    works(alice)
    assert stored(tmp_path / "history", "#den") == [str(number) for number in range(30)]
    (state,) = room.server.store.channels()
    assert state["name"] == "#den" and state["password"] == "sesame"
    assert room.server.store.waiting_count(1) == (not is_long)


def test_disk_that_stalls_for_a_moment_is_no_fault(olgas, locked, monkeypatch):
    """Nobody is told, and what waits is promised when it is on disk."""
    monkeypatch.setattr(server, "STORE_TIMEOUT", TIMEOUT)
    room, alice = olgas
    alice.send("PRIVMSG olga :hello")
    while not room.server.journal._in_progress:
        pass
    bob = room.connect(IrcTalker)
    bob.send("NICK bob", "USER bob 0 * :Bob")
    while len(room.server.directory.users()) < 2:
        pass
    assert room.server.journal.fault == ""
    locked()
    assert alice.until("delivered")
    assert not any(server.HISTORY_FAILS in line for line in bob.heard() + alice.heard())


def test_users_are_told_what_is_lost(olgas, locked, monkeypatch, tmp_path):
    """Past MAX_BACKLOG, a single time; of a channel the last state is kept in any case."""
    monkeypatch.setattr(server, "MAX_BACKLOG", 10)
    room, alice = olgas
    alice.send("PRIVMSG #lobby :first")
    fails(alice)
    for number in range(30):
        alice.send("PRIVMSG #lobby :%d" % number, "MODE #den +k key%d" % number)
    alice.until(server.HISTORY_LOST)
    assert not any(server.HISTORY_LOST in line for line in alice.heard())
    assert room.server.journal.lost and len(room.server.journal._backlog) <= 2 * 11
    bob = room.connect(PlainTalker)
    bob.send("bob")
    bob.until(server.HISTORY_LOST)
    locked()
    works(alice)
    alice.send("PRIVMSG #lobby :last")
    alice.until("last")
    found = stored(tmp_path / "history")
    assert found[0] == "first" and found[-1] == "last" and len(found) < 30
    assert found[1:-1] == [str(number) for number in range(len(found) - 2)]
    assert room.server.store.channels()[0]["password"] == "key29"


def test_stop_waits_for_a_disk_that_is_busy(olgas, locked, tmp_path):
    room, alice = olgas
    alice.send("PRIVMSG #lobby :last")
    fails(alice)
    threading.Timer(0.3, locked).start()
    room.stop()
    assert stored(tmp_path / "history") == ["last"]


def test_stop_says_what_is_lost(olgas, locked):
    room, alice = olgas
    alice.send("PRIVMSG #lobby :last")
    fails(alice)
    room.stop()
    assert any("are lost" in text for text in server.log.handlers[-1].texts)
    room.server.journal.join(TIMEOUT)


def test_disk_that_never_answers_holds_up_no_reader(olgas, monkeypatch):
    """Questions are refused; newcomers join all the same, and the server ends."""
    room, alice = olgas
    monkeypatch.setattr(server, "DISK_TIMEOUT", 0.2)
    store, is_inside, may_go = room.server.store, threading.Event(), threading.Event()

    def hang(reader):
        is_inside.set()
        may_go.wait()

    def ask():
        with contextlib.suppress(server.StoreError):
            store._reader.run(hang)

    thread = threading.Thread(target=ask)
    thread.start()
    assert is_inside.wait(TIMEOUT)
    for asked in ("LATEST #lobby * 9", "TARGETS %s 9" % ALWAYS, "LATEST bob * 9"):
        alice.send("CHATHISTORY " + asked)
        (line,) = alice.heard()
        assert " FAIL CHATHISTORY TEMPORARILY_UNAVAILABLE :The server cannot use its disk" in line
    alice.send("PRIVMSG olga :hello")
    assert " FAIL PRIVMSG TEMPORARILY_UNAVAILABLE :" in alice.heard()[0]
    bob = room.plain("bob")
    bob.send("hello", "/login olga correct horse")
    heard = bob.heard()
    assert heard[0].endswith("[bob]: hello") and "it does not answer" in heard[1]
    alice.until("PRIVMSG #lobby :hello")
    room.stop()
    may_go.set()
    thread.join()
    store._reader.close()


@pytest.mark.parametrize("method", ["append", "accounts_changed"])
def test_mistake_of_ours_does_not_end_the_history(open_room, tmp_path, monkeypatch, method):
    """What was being written is lost; users are told that it is not kept."""
    monkeypatch.setattr(server, "RETRY_AFTER", 0.1)
    monkeypatch.setattr(server, "UPKEEP_INTERVAL", 0.01)
    room = open_room(data=str(tmp_path / "history"))
    alice, has_failed = room.irc("alice", CAPS), threading.Event()
    work = getattr(room.server.store, method)

    def fail_once(*args):
        if has_failed.is_set():
            return work(*args)
        has_failed.set()
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(room.server.store, method, fail_once)
    alice.send("PRIVMSG #lobby :hello")
    assert has_failed.wait(TIMEOUT)
    if method == "append":
        until_it_works(alice)
    alice.send("PRIVMSG #lobby :the last")
    alice.until("the last")
    assert stored(tmp_path / "history")[-1] == "the last"
    assert "RuntimeError: a mistake of ours" in server.log.handlers[-1].texts[0]
    server.log.handlers[-1].texts.clear()


def test_message_to_offline_user_is_refused_while_the_disk_fails(room, monkeypatch):
    """With the reason: the user does exist."""
    monkeypatch.setattr(server, "SCRYPT", (16, 8, 1))
    room.server.store.add_account("olga", "correct horse")
    alice = room.irc("alice", CAPS)
    room.server.journal.fault, room.server.journal._announced = "full", server.HISTORY_FAILS
    alice.send("PRIVMSG olga :hello")
    (line,) = alice.heard()
    assert line.endswith(
        "FAIL PRIVMSG TEMPORARILY_UNAVAILABLE :olga is offline, and no messages can be kept now."
    )


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting is root's")
def test_full_disk_stops_nobody(start, tmp_path):
    """Messages are passed on, and written when there is space."""
    folder = tmp_path / "history"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if subprocess.run(mount, stderr=subprocess.DEVNULL, check=False).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        (folder / "ballast").write_bytes(b"x" * 65536)
        process = start("--lobby", "#lobby")
        alice, carol = process.connect(IrcTalker), process.plain("carol")
        alice.register("alice", caps=CAPS)
        heard = []
        for number in range(2000):
            alice.send("PRIVMSG #lobby :%d %s" % (number, "x" * 300))
            if number % 20 == 19:
                heard += alice.heard()
        assert len(texts(heard)) == 2000
        assert sum(server.HISTORY_FAILS in line for line in heard) == 1
        fails(carol)
        (folder / "ballast").unlink()
        subprocess.run(["mount", "-o", "remount,size=4m", str(folder)], check=True)
        until_it_works(alice)
        works(carol)
        alice.send("PRIVMSG #lobby :the last")
        alice.until("the last")
        found = stored(folder)
        assert found[-1] == "the last"
        kept = [int(text.split()[0]) for text in found if text[0].isdigit()]
        assert kept == list(range(2000))  # what waited for the disk, too
        assert any("full" in line for line in process.log)
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_folder_that_cannot_be_written_stops_nobody(start, tmp_path):
    """Users are told that nothing is kept."""
    (tmp_path / "history").write_text("in the way")
    process = start()
    alice, carol = process.irc("alice"), process.connect(PlainTalker)
    carol.send("carol")
    fails(carol)
    alice.send("PRIVMSG #lobby :hello")
    carol.until("[alice]: hello")
    assert any("the history is not being kept" in line for line in process.log)


def test_killed_server_has_kept_every_echo(start, tmp_path):
    """Under load, again and again: a single time, and in order."""
    seen = []
    for turn in range(8):
        process = start()
        talkers = [process.connect(IrcTalker) for _ in range(4)]
        for index, talker in enumerate(talkers):
            talker.register("n%d" % index, caps=CAPS)
        for number in range(400):
            for index, talker in enumerate(talkers):
                talker.send("PRIVMSG #lobby :%d.%d.%d" % (turn, index, number))
        talkers[0].until("%d.0.%d" % (turn, 20 + 40 * turn))
        process.signal(signal.SIGKILL)
        process.wait()
        echoes = set()
        for index, talker in enumerate(talkers):
            heard = texts(talker.rest())
            echoes.update(text for text in heard if text.startswith("%d.%d." % (turn, index)))
        seen.append(echoes)
    found = stored(tmp_path / "history")
    assert len(found) == len(set(found))
    for echoes in seen:
        assert echoes <= set(found)
    for turn in range(8):
        for index in range(4):
            start_ = "%d.%d." % (turn, index)
            numbers = [int(text.split(".")[2]) for text in found if text.startswith(start_)]
            assert numbers == list(range(len(numbers)))


def test_history_outlives_a_restart(start):
    first = start()
    first.irc("alice").send("PRIVMSG #lobby :before")
    carol = first.plain("carol")
    carol.send("/list")
    carol.until("alice, carol")
    first.signal(signal.SIGTERM)
    assert first.wait() == 0
    dave = start().connect(PlainTalker)
    dave.send("dave")
    dave.until("[alice]: before")
