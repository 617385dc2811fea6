"""Each capability that the server offers: the lines of a client with it, and without."""

import base64
import re
import threading

import pytest
from harness import TIMEOUT, IrcTalker

import server

PASSWORD = "correct horse"
BOB = ":bob!bob@127.0.0.1 "
ME = ":alice!alice@127.0.0.1 "
HUB = ":hubbub.local "


def plain(name):
    """Return the parameter of AUTHENTICATE."""
    return base64.b64encode(("\0%s\0%s" % (name, PASSWORD)).encode()).decode()


# Capability and those that it needs beside it; what is said, by whom ("who> line"; without a name
# it is alice, who has the capability or not); what she hears of it with it, and without.
# Times and msgids are T and N. "…" stands for what else there is in a line.
ROWS = (
    (
        "account-notify", "", ("bob> REGISTER * * longenough",),
        (BOB + "ACCOUNT bob",), (),
    ),
    (
        "account-tag", "", ("bob> REGISTER * * longenough", "bob> PRIVMSG #lobby hi"),
        ("@account=bob " + BOB + "PRIVMSG #lobby hi",), (BOB + "PRIVMSG #lobby hi",),
    ),
    (
        "away-notify", "", ("bob> AWAY tea", "bob> AWAY"),
        (BOB + "AWAY tea", BOB + "AWAY"), (),
    ),
    (
        "batch", "labeled-response", ("@label=a ISON bob", "@label=b MONITOR + bob,dave"),
        (
            "@label=a " + HUB + "303 alice bob", "@label=b " + HUB + "BATCH +b… labeled-response",
            "@batch=b… " + HUB + "730 alice bob!bob@127.0.0.1",
            "@batch=b… " + HUB + "731 alice dave", HUB + "BATCH -b…",
        ),
        (
            "@label=a " + HUB + "303 alice bob",
            "@label=b " + HUB + "730 alice bob!bob@127.0.0.1", HUB + "731 alice dave",
        ),
    ),
    (
        "draft/account-registration", "", ("REGISTER * * longenough",),
        (HUB + "REGISTER SUCCESS alice …", HUB + "900 alice …"),
        (HUB + "REGISTER SUCCESS alice …", HUB + "900 alice …"),
    ),
    (  # who can ask is not told unasked
        "draft/chathistory", "", ("bob> JOIN #tea", "bob> PRIVMSG #tea hi", "JOIN #tea"),
        (ME + "JOIN #tea", HUB + "353 …", HUB + "366 …"),
        (
            ME + "JOIN #tea", HUB + "353 …", HUB + "366 …",
            HUB + "NOTICE alice Earlier in #tea:", HUB + "NOTICE alice …",
            HUB + "NOTICE alice …hi", HUB + "NOTICE alice That was all.",
        ),
    ),
    (
        "draft/event-playback", "batch server-time draft/chathistory",
        ("JOIN #tea", "bob> JOIN #tea", "CHATHISTORY LATEST #tea * 9"),
        ("…JOIN #tea",) * 1 + ("…353 …", "…366 …", "…JOIN #tea", "…BATCH +…", "…JOIN #tea",
                               "…JOIN #tea", "…BATCH -…"),
        ("…JOIN #tea", "…353 …", "…366 …", "…JOIN #tea", "…BATCH +…", "…BATCH -…"),
    ),
    ("echo-message", "", ("PRIVMSG #lobby hi",), (ME + "PRIVMSG #lobby hi",), ()),
    (  # to the sender: the message, and its echo
        "echo-message", "", ("PRIVMSG alice hi",), (ME + "PRIVMSG alice hi",) * 2,
        (ME + "PRIVMSG alice hi",),
    ),
    (
        "extended-join", "", ("JOIN #tea", "bob> JOIN #tea"),
        (ME + "JOIN #tea * Alice", HUB + "353 …", HUB + "366 …", BOB + "JOIN #tea * Bob"),
        (ME + "JOIN #tea", HUB + "353 …", HUB + "366 …", BOB + "JOIN #tea"),
    ),
    (
        "invite-notify", "", ("JOIN #tea", "bob> JOIN #tea", "bob> INVITE root #tea"),
        (
            ME + "JOIN #tea", HUB + "353 …", HUB + "366 …", BOB + "JOIN #tea",
            BOB + "INVITE root #tea",
        ),
        (ME + "JOIN #tea", HUB + "353 …", HUB + "366 …", BOB + "JOIN #tea"),
    ),
    (
        "labeled-response", "", ("@label=a PING x", "@label=b PONG x"),
        ("@label=a " + HUB + "PONG hubbub.local x", "@label=b " + HUB + "ACK"),
        (HUB + "PONG hubbub.local x",),
    ),
    (  # that the recipient is away, or offline, belongs to the answer
        "labeled-response", "batch echo-message",
        ("bob> AWAY tea", "@label=a PRIVMSG bob hi", "@label=b PRIVMSG olga hi"),
        (
            "@label=a " + HUB + "BATCH +… labeled-response", "@batch=… " + ME + "PRIVMSG bob hi",
            "@batch=… " + HUB + "301 alice bob tea", HUB + "BATCH -…",
            "@label=b " + HUB + "BATCH +… labeled-response", "@batch=… " + ME + "PRIVMSG olga hi",
            "@batch=… " + HUB + "NOTICE alice olga is offline; your message will be delivered",
            HUB + "BATCH -…",
        ),
        (
            ME + "PRIVMSG bob hi", HUB + "301 alice bob tea", ME + "PRIVMSG olga hi",
            HUB + "NOTICE alice olga is offline; your message will be delivered",
        ),
    ),
    (
        "message-tags", "", ("bob> @+x=1;y=2 PRIVMSG #lobby hi", "bob> @+x=1 TAGMSG #lobby"),
        ("@msgid=N;+x=1 " + BOB + "PRIVMSG #lobby hi", "@msgid=N;+x=1 " + BOB + "TAGMSG #lobby"),
        (BOB + "PRIVMSG #lobby hi",),
    ),
    (
        "multi-prefix", "", ("JOIN #tea", "MODE #tea +v alice", "NAMES #tea"),
        ("…", "…", "…", "…", HUB + "353 alice = #tea @+alice", "…"),
        ("…", "…", "…", "…", HUB + "353 alice = #tea @alice", "…"),
    ),
    (
        "sasl", "", ("AUTHENTICATE PLAIN", "AUTHENTICATE " + plain("olga")),
        (HUB + "AUTHENTICATE +", HUB + "900 alice alice!… olga …", HUB + "903 …"),
        (HUB + "AUTHENTICATE +", HUB + "900 alice alice!… olga …", HUB + "903 …"),
    ),
    (
        "server-time", "", ("bob> PRIVMSG #lobby hi", "ISON bob", "PING x", "TEA"),
        (
            "@time=T " + BOB + "PRIVMSG #lobby hi", "@time=T " + HUB + "303 alice bob",
            "@time=T " + HUB + "PONG hubbub.local x", "@time=T " + HUB + "421 …",
        ),
        (
            BOB + "PRIVMSG #lobby hi", HUB + "303 alice bob",
            HUB + "PONG hubbub.local x", HUB + "421 …",
        ),
    ),
    ("setname", "", ("bob> SETNAME Bobby",), (BOB + "SETNAME Bobby",), ()),
    (
        "soju.im/search", "batch", ("bob> PRIVMSG #lobby hi", "SEARCH text=HI"),
        (
            BOB + "PRIVMSG #lobby hi", HUB + "BATCH +b… soju.im/search",
            "@batch=b… " + BOB + "PRIVMSG #lobby hi", HUB + "BATCH -b…",
        ),
        (BOB + "PRIVMSG #lobby hi", HUB + "421 alice SEARCH …"),
    ),
    (
        "standard-replies", "", ("PRIVMSG olga hi", "NICK olga"),
        (HUB + "NOTE PRIVMSG OFFLINE olga …", HUB + "FAIL NICK NICKNAME_RESERVED olga …"),
        (
            HUB + "NOTICE alice olga is offline; …", HUB + "NOTICE alice olga is registered. …",
            HUB + "433 alice olga Nickname is registered",
        ),
    ),
)  # fmt: skip
TOKEN = "hubbub/resume"  # has the test below


@pytest.fixture
def kept(open_room, tmp_path, monkeypatch):
    """Opens a server that keeps things, where passwords cost nothing."""
    monkeypatch.setattr(server, "SCRYPT", (16, 8, 1))

    def open_():
        room = open_room(data=str(tmp_path / "kept"))
        if room.server.store.account("root") is None:
            room.server.store.add_account("root", PASSWORD, is_operator=True)
            room.server.store.add_account("olga", PASSWORD)
        return room

    return open_


def log_in(room, name, caps="", then=()):
    """Return a client that has logged in to its account, and the lines that it got."""
    talker = room.connect(IrcTalker)
    talker.send("CAP REQ :sasl " + caps, "NICK " + name, *then, "USER u 0 * :U")
    talker.send("AUTHENTICATE PLAIN", "AUTHENTICATE " + plain(name), "CAP END")
    return talker, talker.heard()


def told(talker):
    """Return the lines that have come, without what no test can know."""
    lines = [re.sub(r"\btime=[^ ;]*", "time=T", line) for line in talker.heard()]
    lines = [re.sub(r"\bmsgid=\d+", "msgid=N", line) for line in lines]
    return [re.sub(r"(?<=.)(:\S+ .*?) :", r"\1 ", " " + line)[1:].rstrip() for line in lines]


def is_like(form, line):
    return re.fullmatch(".*".join(map(re.escape, form.split("…"))), line) is not None


@pytest.mark.parametrize("is_on", [True, False], ids=["on", "off"])
@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_capability_changes_what_a_client_hears(kept, row, is_on):
    """As its specification says; without it, nothing."""
    capability, more, said, with_it, without = row
    room = kept()
    people = {"bob": room.irc("bob"), "root": log_in(room, "root")[0]}
    caps = ("%s %s" % (capability if is_on else "", more)).strip()
    people["alice"] = alice = room.irc("alice", caps=caps)
    heard = []
    for line in said:
        who, _, words = line.rpartition("> ")
        people[who or "alice"].send(words)
        if who:
            people[who].heard()
        heard += told(alice)
    forms = with_it if is_on else without
    assert len(heard) == len(forms), heard
    for form, line in zip(forms, heard):
        assert is_like(form, line), (form, line)


def test_each_capability_has_a_row():
    assert {row[0] for row in ROWS} | {TOKEN} == set(server.CAPABILITIES)


def test_extended_join_fits_into_a_line(room):
    """The realname is truncated beside the longest names."""
    long, name = room.connect(IrcTalker), "𐌰" * 31
    alice = room.irc("alice", caps="extended-join")
    alice.send("JOIN #" + name)
    alice.heard()
    long.send("NICK " + name, "USER u 0 * :" + "𐌱" * 100, "JOIN #" + name)
    long.heard()
    line = alice.heard()[-1]
    assert set(line.partition(" JOIN #%s * :" % name)[2]) == {"𐌱"}
    assert 500 < len(line.encode()) <= 510


# Registration


@pytest.mark.parametrize(
    "lines",
    [
        ("NICK alice", "USER a 0 * :A"),
        ("USER a 0 * :A", "NICK alice"),
        ("CAP LS 302", "NICK alice", "USER a 0 * :A", "CAP REQ batch", "CAP END"),
        ("CAP REQ batch", "USER a 0 * :A", "CAP END", "NICK alice"),
        ("NICK bob", "NICK alice", "CAP LS", "USER a 0 * :A", "CAP END"),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_registration_ends_with_its_last_line(room, lines, at_once):
    talker = room.connect(IrcTalker)
    for index, line in enumerate(lines):
        talker.send(*(lines if at_once else [line]))
        heard = talker.heard()
        is_last = at_once or index == len(lines) - 1
        assert any(" 001 alice " in line for line in heard) == is_last
        if at_once:
            break


def test_capabilities_are_granted_all_or_none(room):
    talker = room.irc("alice", caps="batch server-time")
    talker.send("CAP REQ :setname -batch no-such-thing", "CAP LIST", "CAP REQ :setname -batch")
    talker.send("CAP LIST")
    assert told(talker) == [
        "@time=T " + HUB + "CAP alice NAK setname -batch no-such-thing",
        "@time=T " + HUB + "CAP alice LIST batch server-time",
        "@time=T " + HUB + "CAP alice ACK setname -batch",
        "@time=T " + HUB + "CAP alice LIST server-time setname",
    ]


def test_capability_works_after_its_acknowledgement(room):
    """Not for what was on the way before."""
    talker = room.connect(IrcTalker)
    talker.send("CAP REQ server-time", "CAP LIST", "CAP REQ -server-time", "CAP LIST")
    assert told(talker) == [
        HUB + "CAP * ACK server-time",
        "@time=T " + HUB + "CAP * LIST server-time",
        "@time=T " + HUB + "CAP * ACK -server-time",
        HUB + "CAP * LIST",
    ]


def test_capability_values_are_for_version_302(kept):
    """Also after another LS of that version."""
    talker = kept().connect(IrcTalker)
    talker.send("CAP LS 302", "CAP LS")
    new, old = told(talker)
    assert " sasl=PLAIN " in new and " sasl " in old and "=" not in old


# Labels


LABELS = "labeled-response batch echo-message message-tags"


@pytest.mark.parametrize("command", sorted({*server.COMMANDS, "NONSENSE"} - {"QUIT"}))
def test_label_is_answered_by_a_message_or_a_batch(room, command):
    """Whatever the parameters; a batch holds the whole answer."""
    for number, params in enumerate(("", " a", " a b", " a b c", " #a", " me x", " b,#lobby x")):
        me = room.irc("me%d" % number, LABELS)
        me.send("@label=x " + command + params.replace(" me ", " me%d " % number))
        first, *others = me.heard()
        labeled = [line for line in (first, *others) if "label=" in line]
        assert labeled == [first] and first.startswith("@label=x"), (params, first, others)
        batch = re.search(r" BATCH \+(\S+)", first)
        if batch:
            assert others.pop().endswith(" BATCH -" + batch.group(1))
            assert all("batch=" + batch.group(1) in line for line in others), (params, others)
        else:  # a message to its sender comes once more, as to anybody
            assert [line.split()[2] for line in others] in ([], [command]), (params, others)


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        (b"PING :" + b"x" * 600, HUB + "417 alice :Input line was too long"),
        (b"PRIVMSG bob :\xff", HUB + "FAIL * INVALID_UTF8 :…"),
        (b":source", HUB + "400 alice * :…"),
        (b"QUIT :bye", "ERROR Goodbye."),
        (b"NICK ALICE", ME + "NICK ALICE"),
    ],
)
def test_label_of_any_line_comes_back(room, line, answer):
    """Also of one that is no message, and of the last; a single answer needs no batch."""
    alice = room.irc("alice", "labeled-response batch")
    alice.send_bytes(b"@label=x " + line + b"\r\n")
    (only,) = alice.heard_or_rest()
    assert is_like("@label=x " + answer, only), only


def test_owner_who_takes_a_name_for_whom_nothing_waits_gets_no_batch(kept):
    room = kept()
    guest = room.irc("guest", LABELS)
    guest.send("AUTHENTICATE PLAIN", "AUTHENTICATE " + plain("olga"))
    guest.heard()
    guest.send("@label=x NICK olga")
    (only,) = guest.heard()
    assert only.startswith("@label=x") and only.endswith("NICK olga")


def test_reactions_are_in_the_history_of_a_channel(kept):
    """For those who asked for events; typing is not, nor what has no tags."""
    room = kept()
    caps = "batch draft/chathistory message-tags "
    alice, bob = room.irc("alice", caps + "draft/event-playback"), room.irc("bob", caps)
    old = room.irc("old", "batch draft/chathistory draft/event-playback")
    for line in ("@+draft/react=tea TAGMSG %s", "@+typing=active TAGMSG %s", "TAGMSG %s"):
        alice.send(line % "#lobby", line % "bob")
    alice.heard()
    for talker, count in ((alice, 1), (bob, 0), (old, 0)):
        talker.heard()
        talker.send("CHATHISTORY LATEST #lobby * 9", "CHATHISTORY LATEST bob * 9")
        kept_ = [line for line in talker.heard() if " TAGMSG " in line]
        assert len(kept_) == count and all("+draft/react=tea" in line for line in kept_)


@pytest.mark.parametrize("label", ["x" * 64, "\u00e9" * 32])
def test_label_of_more_than_64_bytes_is_ignored(room, label):
    """Truncated, it would be another's."""
    alice = room.irc("alice", LABELS)
    alice.send("@label=%s PONG x" % label, "@label=%sx PONG x" % label)
    assert alice.heard() == ["@label=%s %sACK" % (label, HUB)]


# Accounts, over the wire


@pytest.mark.parametrize("is_registered", [True, False])
def test_owner_takes_nickname_from_its_holder(kept, is_registered):
    """Logging in alone does not: the owner asks for the nickname then."""
    room = kept()
    room.server.store.remove_account("olga")
    holder = room.connect(IrcTalker)
    holder.send("CAP REQ standard-replies", "NICK olga", "USER u 0 * :U")
    if is_registered:
        holder.send("CAP END")
    holder.heard()
    room.server.store.add_account("olga", PASSWORD)
    olga, heard = log_in(room, "olga")
    assert any(" 433 * olga " in line for line in heard)
    assert not any(" 001 " in line for line in heard)
    olga.send("NICK olga")
    assert any(" 001 olga " in line for line in olga.heard())
    fail, error = holder.rest()[-2:]
    assert " FAIL * LOGGED_IN_ELSEWHERE olga :" in fail and error.startswith("ERROR ")


def test_waiting_message_comes_with_its_time(kept):
    """A single time."""
    room = kept()
    alice = room.irc("alice")
    alice.send("PRIVMSG olga :Call me")
    alice.heard()
    olga, heard = log_in(room, "olga", "server-time")
    message = next(line for line in heard if line.endswith("PRIVMSG olga :Call me"))
    assert message.startswith("@time=20")
    olga.send("QUIT")
    olga.rest()
    room.wait_for_thread(olga)
    assert not any("Call me" in line for line in log_in(room, "olga", "server-time")[1])


def test_user_who_comes_while_they_are_written_to_is_told_at_once(kept, monkeypatch):
    """Else the message would wait until they come again."""
    room = kept()
    alice, olgas = room.irc("alice"), []

    def come(owner):
        olgas.append(log_in(room, "olga")[0])
        return 0

    monkeypatch.setattr(room.server.store, "waiting_count", come)
    alice.send("PRIVMSG olga :Call me")
    assert alice.heard()[-1] == ":olga!u@127.0.0.1 JOIN #lobby"
    assert told(olgas[0])[-1] == ME + "PRIVMSG olga Call me"


def test_message_written_a_moment_before_is_delivered(kept, monkeypatch):
    """Though it was not on disk yet."""
    room = kept()
    alice, olga = room.irc("alice"), room.connect(IrcTalker)
    olga.send("CAP REQ :sasl draft/chathistory", "NICK olga", "USER u 0 * :U")
    olga.send("AUTHENTICATE PLAIN", "AUTHENTICATE " + plain("olga"))
    olga.heard()
    store, delivery, directory = room.server.store, room.server.delivery, room.server.directory
    is_stored, may_write = threading.Event(), threading.Event()
    append, sync, relay = store.append, delivery.sync, directory.relay
    monkeypatch.setattr(store, "append", lambda rows: may_write.wait(TIMEOUT) and append(rows))
    monkeypatch.setattr(delivery, "sync", lambda: may_write.set() or sync())
    monkeypatch.setattr(directory, "relay", lambda *a: (relay(*a), is_stored.set())[0])
    alice.send("PRIVMSG olga :Call me")
    assert is_stored.wait(TIMEOUT)
    olga.send("CAP END")
    assert any(line.endswith("Call me") for line in olga.heard())


def test_message_that_could_not_be_sent_waits_on(kept, monkeypatch):
    """The connection was lost just when it was about to be sent."""
    room = kept()
    store, is_lost = room.server.store, threading.Event()
    waiting = store.waiting
    alice = room.irc("alice")
    alice.send("PRIVMSG olga :Call me")
    alice.heard()
    monkeypatch.setattr(store, "waiting", lambda *a: is_lost.wait(TIMEOUT) and waiting(*a))
    olga = room.connect(IrcTalker)
    olga.send("CAP REQ :sasl draft/chathistory", "NICK olga", "USER u 0 * :U")
    olga.send("AUTHENTICATE PLAIN", "AUTHENTICATE " + plain("olga"), "CAP END")
    olga.expect("JOIN #lobby")
    olga.reset()
    is_lost.set()
    room.wait_for_thread(olga)
    assert any("Call me" in line for line in log_in(room, "olga")[1])
    assert store.waiting_count(store.account("olga").id) == 0


def test_bans_and_channels_outlive_the_server(kept):
    room = kept()
    root, _ = log_in(room, "root")
    root.send("JOIN #tea", "TOPIC #tea :Tea at four", "MODE #tea +kb key *!*@10.0.0.1")
    root.send("BAN eve * :Noise")
    root.heard()
    room.close()
    room = kept()
    root, _ = log_in(room, "root")
    root.send("JOIN #tea key", "MODE #tea b", "BANS")
    heard = "\n".join(told(root))
    for words in ("332 root #tea Tea at four", "367 root #tea *!*@10.0.0.1", "eve is banned"):
        assert words in heard
    eve = room.connect(IrcTalker)
    eve.send("NICK eve")
    assert " 432 * eve " in eve.heard()[0]
    room.irc("alice").send("JOIN #tea")


def test_connection_is_resumed_unseen(room):
    """With hubbub/resume, a token comes after the welcome; without, none."""
    bob = room.irc("bob")
    lines = ("CAP REQ " + TOKEN, "NICK alice", "USER a 0 * :A", "CAP END")
    alice = room.connect(IrcTalker)
    alice.send(*lines)
    token = next(line for line in alice.heard() if " RESUME TOKEN " in line).split()[-1].lstrip(":")
    bob.heard()
    again = room.connect(IrcTalker)
    again.send(lines[0], "RESUME " + token)
    heard = again.heard()
    assert any(" 001 alice " in line for line in heard)
    assert any(line.endswith(("JOIN :#lobby", "JOIN #lobby")) for line in heard)
    alice.rest()
    again.send("PRIVMSG #lobby :Here again")
    again.heard()
    assert bob.heard() == [":alice!a@127.0.0.1 PRIVMSG #lobby :Here again"]
    thief = room.connect(IrcTalker)
    thief.send(lines[0], "RESUME " + token)  # a token is valid once
    assert "INVALID_TOKEN" in thief.heard()[-1]
    assert not any("RESUME" in line for line in room.irc("carol").heard())
