"""Attacks on other users and on the server: each test is an attempt that fails."""

import hashlib
import re
import threading
import time

import pytest
from harness import TIMEOUT, IrcTalker, PlainTalker, folded

import protocol
import server
from protocol import Message

PASSWORD = "correct horse"
LOG_IN = ("AUTHENTICATE PLAIN", "AUTHENTICATE AGFsaWNlAGNvcnJlY3QgaG9yc2U=")  # as alice

needs_scrypt = pytest.mark.skipif(not hasattr(hashlib, "scrypt"), reason="this Python lacks scrypt")


@pytest.fixture
def kept(open_room, tmp_path, monkeypatch):
    """A server with a store and cheap passwords; boss is an operator's account."""
    monkeypatch.setattr(server, "SCRYPT", (16, 8, 1))
    monkeypatch.setattr(server, "UPKEEP_INTERVAL", 0.01)
    room = open_room(data=str(tmp_path / "data"))
    if room.server.store.has_accounts:
        room.server.store.add_account("alice", PASSWORD)
        room.server.store.add_account("boss", PASSWORD, is_operator=True)
    return room


def log_in_as_operator(room, caps=""):
    boss = room.irc("boss2", caps)
    boss.send("OPER boss :" + PASSWORD)
    assert any(" 381 " in line for line in boss.heard())
    return boss


def has(lines, words):
    return any(words in line for line in lines)


# Nicknames


@needs_scrypt
def test_owner_keeps_nickname_when_its_former_holder_is_gone(kept):
    holder = kept.connect(IrcTalker)
    holder.send("CAP LS 302", "NICK alice", "USER a 0 * :a")
    holder.heard()
    alice = kept.connect(PlainTalker)
    alice.send("/login alice " + PASSWORD)
    alice.expect("alice joined the chat")
    kept.wait_until_gone(holder)
    assert kept.client("alice")


@needs_scrypt
def test_owner_takes_nickname_and_gets_what_waited(kept):
    alice, holder = kept.irc("guest"), kept.connect(IrcTalker)
    alice.send(*LOG_IN)
    assert not has(alice.heard(), " NICK ")
    bob = kept.irc("bob")
    bob.send("PRIVMSG alice :hello")
    assert has(bob.heard(), "message will be delivered")
    holder.send("CAP LS 302", "NICK alice", "USER a 0 * :a")
    holder.heard()
    alice.send("NICK alice")
    assert has(alice.heard(), "hello")
    assert has(holder.rest(), "logged in elsewhere")
    kept.wait_until_gone(holder)
    bob.send("PRIVMSG alice :again")
    alice.expect("again")


@needs_scrypt
def test_account_of_a_deleted_name_gives_its_former_owner_nothing(kept):
    old = log_in_as_operator(kept)
    kept.server.store.remove_account("boss")
    boss = kept.irc("boss")
    boss.send("REGISTER * * :" + PASSWORD)
    boss.heard()
    old.send("NICK boss")
    heard = old.heard()
    assert has(heard, " 433 ")
    kept.wait_until_noticed()
    old.send("BAN bob")
    heard += old.heard()
    assert has(heard, " 901 boss2 boss2!boss2@127.0.0.1 :") and has(heard, " 481 ")
    boss.send("PING x")
    boss.expect("PONG hubbub.local :x")


@needs_scrypt
@pytest.mark.parametrize("is_resumed", [False, True])
def test_account_that_is_not_an_operators_any_more_has_no_rights(kept, is_resumed):
    boss, token = come_with_token(kept, "guest")
    boss.send("OPER boss :" + PASSWORD)
    boss.heard()
    kept.server.store.set_password("boss", PASSWORD, is_operator=False)
    kept.wait_until_noticed()
    if is_resumed:
        boss, _ = resume(kept, token)
        assert not kept.client("guest").is_operator
    boss.send("BAN bob")
    assert has(boss.heard(), " 481 ")
    boss.send("WHOIS guest")
    assert has(boss.heard(), " 330 guest guest boss ")


@needs_scrypt
def test_account_registered_while_accounts_are_looked_up_is_kept(kept):
    dan, directory, store = kept.irc("dan"), kept.server.directory, kept.server.store
    update, client = directory.update_accounts, kept.client("dan")

    def register_first(accounts):
        if not client.account.id:
            directory.set_account(client, store.add_account("dan", PASSWORD))
        update(accounts)

    directory.update_accounts = register_first  # until they have been looked up
    store.add_account("eve", PASSWORD)
    kept.wait_until_noticed()
    assert client.account.name == "dan" and not has(dan.heard(), " 901 ")


@needs_scrypt
def test_conversation_with_a_deleted_account_is_not_a_target(kept):
    bob = kept.irc("bob", "draft/chathistory")
    bob.send("PRIVMSG alice :hello", "PRIVMSG bob :note")
    bob.heard()
    kept.server.store.remove_account("alice")
    bob.send("CHATHISTORY TARGETS timestamp=2020-01-01T00:00:00Z timestamp=2099-01-01T00:00:00Z 9")
    assert [line.split()[3] for line in bob.heard()] == ["bob"]


@needs_scrypt
def test_next_account_of_a_name_has_no_say_in_channels_of_the_last(kept, monkeypatch):
    """Before the server notices that there is another."""
    monkeypatch.setattr(kept.server.store, "accounts_changed", lambda: False)
    dan = kept.irc("dan")
    dan.send("REGISTER * * :" + PASSWORD, "JOIN #den", "MODE #den +i", "PRIVMSG #den :private")
    dan.send("PART #den", "JOIN #den", "PART #den", "QUIT")
    heard = dan.rest()
    assert sum(" JOIN #den" in line for line in heard) == 2
    kept.wait_for_thread(dan)
    kept.server.store.remove_account("dan")
    other = kept.irc("dan")
    other.send("REGISTER * * :" + PASSWORD, "JOIN #den")
    heard = other.heard()
    assert has(heard, " 473 ") and not has(heard, "private")


@needs_scrypt
@pytest.mark.parametrize("nickname", ["carol", "other"])
def test_owner_cannot_read_what_a_guest_said_under_the_nickname(kept, nickname):
    """Nor can the guest read what was said to the owner, and each reads their own."""
    guest, bob = kept.irc("carol", "batch draft/chathistory"), kept.irc("bob")
    kept.server.store.add_account("carol", PASSWORD)
    guest.send("PRIVMSG bob :from the guest")
    guest.heard()
    login = ("AUTHENTICATE PLAIN", "AUTHENTICATE AGNhcm9sAGNvcnJlY3QgaG9yc2U=")
    carol = kept.irc(nickname + "2", "batch draft/chathistory")
    carol.send(*login, "NICK carol", "PRIVMSG bob :from the owner", "CHATHISTORY LATEST bob * 9")
    heard = carol.heard()
    assert has(heard, ":from the owner") and not has(heard, "from the guest")
    assert has(guest.rest(), "logged in elsewhere")
    bob.heard()
    bob.send("CHATHISTORY LATEST carol * 9")
    heard = bob.heard()
    assert has(heard, "from the owner") and not has(heard, "from the guest")


@pytest.fixture
def slow(kept, monkeypatch):
    """A room in which an address has 3 guesses at once, then 5 a second; #den has a key."""
    for name in ("guess", "guesses"):
        monkeypatch.setitem(kept.server.limits, name, server.Limiter(5, 3))
    dan = kept.irc("dan")
    dan.send("JOIN #den", "MODE #den +k 1234")
    dan.heard()
    return kept


@needs_scrypt
@pytest.mark.parametrize(
    ("guess", "wrong", "right"),
    [("OPER boss :", " 464 ", " 381 "), ("JOIN #den ", " 475 ", " JOIN ")],
)
def test_right_word_after_many_guesses_waits_for_its_turn(slow, guess, wrong, right):
    """Guesses do not become more with the number of connections, and none is left unanswered."""
    mallory = [slow.irc("mallory%d" % number) for number in range(4)]
    started = time.monotonic()
    for talker in mallory:
        talker.send(*[guess + "guess"] * 3)
    erin = slow.irc("erin")
    erin.send(guess + (PASSWORD if "OPER" in guess else "1234"))
    assert has(erin.heard(), right)
    heard = [line for talker in mallory for line in talker.heard()]
    assert sum(wrong in line for line in heard) == 4 * 3
    assert has(heard, "Too many wrong passwords or keys: yours will be tried in 1 seconds.")
    assert time.monotonic() - started > (4 * 3 - 3) / 5


@needs_scrypt
def test_guess_that_waits_ends_with_its_connection(slow, monkeypatch):
    monkeypatch.setitem(slow.server.limits, "guess", server.Limiter(1e-9, 1))
    limit, mallory = slow.server.limits["guess"], slow.irc("mallory")
    mallory.send(*["OPER boss guess"] * 2)
    mallory.expect("seconds.")
    mallory.reset()
    slow.wait_until_gone(mallory)
    assert limit._queues == {}


@needs_scrypt
def test_wrong_passwords_for_one_account_do_not_block_another(kept):
    mallory = kept.irc("mallory")
    mallory.send(*["OPER alice :wrong one"] * 6)
    mallory.expect("seconds.")
    log_in_as_operator(kept)


@needs_scrypt
def test_guesses_from_one_address_are_limited_over_all_accounts(kept, monkeypatch):
    monkeypatch.setitem(kept.server.limits, "guesses", server.Limiter(0.001, 20))
    hashed = []
    monkeypatch.setattr(kept.server.store, "_hash", lambda *args: hashed.append(args) or b"")
    mallory = kept.irc("mallory")
    mallory.send(*["OPER name%d :wrong one" % number for number in range(50)])
    mallory.expect("seconds.")
    assert len(hashed) == 20


@needs_scrypt
def test_password_typed_in_place_of_the_name_is_not_logged(kept, caplog):
    mallory = kept.irc("mallory")
    mallory.send("OPER %s alice" % PASSWORD.replace(" ", ""), "OPER alice wrong-one")
    mallory.heard()
    assert "wrong password for alice" in caplog.text
    assert PASSWORD.replace(" ", "") not in caplog.text and "wrong-one" not in caplog.text


def test_guesses_of_the_servers_password_are_limited(open_room, monkeypatch):
    room = open_room(password="open sesame")
    monkeypatch.setitem(room.server.limits, "guesses", server.Limiter(1, 2))
    started = time.monotonic()
    words = [
        ("a", "Wrong"),
        ("open sesame", " 001 "),
        ("b", "Wrong"),
        ("c", "tried in"),
        ("d", "Wrong"),
    ]
    for word, answer in [*words, ("open sesame", " 001 ")]:
        talker = room.connect(IrcTalker)
        talker.send("PASS :" + word, "NICK bob", "USER b 0 * :b", "QUIT")
        assert has(talker.rest(), answer)
        talker.close()
    assert time.monotonic() - started > 4 - 2


def test_keys_of_a_channel_are_guessed_like_passwords(room):
    """Nobody else's keys, other channels or own errors are counted."""
    dan, eve = room.irc("dan"), room.irc("eve")
    dan.send("JOIN #den,#pub", "MODE #den +k 1234", "MODE #pub +k 1234")
    dan.heard()
    eve.send(*["JOIN #den"] * 20, "JOIN #pub 1234", "PART #pub")
    eve.send(*("JOIN #den %04d" % number for number in range(1230, 1235)))
    heard = eve.heard()
    assert has(heard, " JOIN #den") and not has(heard, "Too many")


def test_channels_without_a_key_are_open_to_an_address_that_guesses(room, monkeypatch):
    monkeypatch.setitem(room.server.limits, "guesses", server.Limiter(0.001, 1))
    dan, eve = room.irc("dan"), room.irc("eve")
    dan.send("JOIN #den,#pub", "MODE #den +k 1234")
    dan.heard()
    eve.send("JOIN #den 1", "JOIN #pub key")
    heard = eve.heard()
    assert has(heard, " 475 ") and has(heard, " JOIN #pub")


@pytest.mark.parametrize("first", ["ban", "invitation"])
def test_invitation_opens_no_ban(room, first):
    """It opens the other modes."""
    dan, eve = room.irc("dan"), room.irc("eve")
    lines = ["MODE #den +b eve", "INVITE eve #den"]
    dan.send("JOIN #den", "MODE #den +ikl sesame 1", *(lines if first == "ban" else lines[::-1]))
    dan.heard()
    eve.heard()
    eve.send("JOIN #den")
    assert has(eve.heard(), " 474 eve #den ")
    dan.send("MODE #den -b eve")
    dan.heard()
    eve.send("JOIN #den")
    assert has(eve.heard(), " JOIN #den")


def test_ban_of_an_ipv6_address_holds_however_it_is_written(open_room):
    try:
        room = open_room(host="::1")
    except OSError:
        pytest.skip("IPv6 is turned off")
    dan, eve = (room.connect(IrcTalker, host="::1").register(name) for name in ("dan", "eve"))
    dan.send("JOIN #den")
    for mask in ("*!*@::1", ":::1", "*!*@0::1", "*@0:0:0:0:0:0:0:1"):
        dan.send("MODE #den +b " + mask)
        dan.expect("MODE #den +b :*!*@0::1")
        eve.send("JOIN #den")
        assert has(eve.heard(), " 474 eve #den ")
        dan.send("MODE #den -b " + mask)
        dan.expect("MODE #den -b :*!*@0::1")


def test_client_that_comes_over_ipv6_has_its_ipv4_address(open_room):
    """So that one ban keeps it out."""
    try:
        room = open_room(host="::")
    except OSError:
        pytest.skip("IPv6 is turned off")
    alice = room.irc("alice")
    alice.send("USERHOST alice")
    assert alice.heard()[-1].endswith(":alice=+alice@127.0.0.1")


PSST = Message("PRIVMSG", ("bob", "psst"))
ACTIONS = {  # the next step of a thread whose client was removed a moment ago
    "claim": lambda directory, client: directory.claim(client, "mallory"),
    "register": lambda directory, client: directory.register(client),
    "join": lambda directory, client: directory.join(client, "#den", ""),
    "relay": lambda directory, client: directory.relay(client, "bob", PSST, b""),
    "resume": lambda directory, client: directory.resume(client, "of another"),
    "log in": lambda directory, client: directory.set_account(client, ACCOUNT),
    "watch": lambda directory, client: directory.watch(client, {"bob": "bob"}),
    "kick": lambda directory, client: directory.kick(client, "#lobby", "bob", ""),
    "topic": lambda directory, client: directory.set_topic(client, "#lobby", "mine"),
    "away": lambda directory, client: directory.change_user(client, "AWAY", "tea", away="tea"),
}
ACCOUNT = server.Account(1, "alice", False, 0.0)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("way", ["the owner takes the nickname", "the connection is resumed"])
def test_removed_client_does_nothing_more_under_its_nickname(room, way, action):
    bob, (_alice, token) = room.irc("bob"), come_with_token(room, "alice")
    old, directory = room.client("alice"), room.server.directory
    old.modes = frozenset("o")
    new = room.irc("owner")
    owner = room.client("owner")
    if way == "the connection is resumed":
        assert directory.resume(owner, token)
    else:
        directory.set_account(owner, ACCOUNT)
        directory.claim(owner, "alice")
    bob.heard()
    with pytest.raises(server.Disconnect):
        ACTIONS[action](directory, old)
    assert bob.heard() == [] and room.client("mallory") is None
    new.send("PRIVMSG bob :hello")
    bob.expect(":hello")
    assert room.names() == folded("alice", "bob")


LOOKALIKES = ("аӏісе", "alıce", "aIice", "ɑlice")


@needs_scrypt
@pytest.mark.parametrize("is_here", [True, False])
def test_name_that_looks_like_a_users_or_an_accounts_is_refused(kept, is_here):
    """Whether the user is here or has an account; and no second rule keeps them from it."""
    if is_here:
        kept.server.store.remove_account("alice")
        alice = kept.irc("alice")
    for name in LOOKALIKES:
        mallory = kept.connect(IrcTalker)
        mallory.send("NICK " + name, "USER m 0 * :M")
        heard = mallory.heard()
        assert has(heard, " 433 * %s alice :%s looks like alice" % (name, name)), heard
        mallory.send("NICK mallory", "NICK " + name)
        assert has(mallory.heard(), " 433 mallory %s alice :" % name)
        mallory.send("QUIT")
        mallory.rest()
        kept.wait_for_thread(mallory)
    if is_here:
        alice.send("NICK ALICE", "NICK carol")
        alice.heard()
        assert kept.irc("alIce") and kept.client("alice")


def test_name_that_looks_like_another_is_free_when_that_is(room):
    alice, eve = room.irc("alice"), room.plain("eve")
    eve.send("/nick aIice")
    assert eve.heard() == [
        "[SERVER]: aIice looks like alice, which is the name of another user. Choose another."
    ]
    alice.send("QUIT")
    alice.rest()
    room.wait_for_thread(alice)
    eve.heard()
    eve.send("/nick aIice")
    assert eve.heard() == ["[SERVER]: eve is now called aIice"]
    assert room.server.directory._skeletons == {"alice": {"aIice"}}


def test_all_names_that_look_alike_are_compared(room):
    """Iisa may stand beside Lisa, but hides it from nobody who comes after."""
    room.irc("Lisa")
    iisa, eve = room.irc("Iisa"), room.irc("eve")
    eve.send("NICK Lisɑ")
    assert has(eve.heard(), " 433 eve Lisɑ ")
    iisa.send("QUIT")
    iisa.rest()
    room.wait_for_thread(iisa)
    eve.send("NICK Lisɑ")
    assert has(eve.heard(), " 433 eve Lisɑ Lisa ")


@needs_scrypt
def test_owner_of_an_account_comes_in_beside_a_name_that_looks_alike(kept):
    """And whoever was there first stays."""
    kept.server.store.remove_account("alice")
    first = kept.irc("aIice")
    kept.server.store.add_account("alice", PASSWORD)
    alice = kept.connect(IrcTalker)
    alice.send("CAP REQ sasl", "NICK alice", "USER a 0 * :A")
    assert has(alice.heard(), " 433 * alice aIice :")
    alice.send(*LOG_IN, "NICK alice", "CAP END")
    assert has(alice.heard(), " 001 alice ")
    first.send("PRIVMSG alice :hello")
    alice.expect(":hello")


# Filling the server


@needs_scrypt
def test_an_address_makes_a_limited_number_of_accounts(kept):
    """A class of 30 registers at once."""
    pupils = [kept.irc("pupil%d" % number) for number in range(31)]
    for pupil in pupils:
        pupil.send("REGISTER * * :" + PASSWORD)
    registered = [has(pupil.heard(), "REGISTER SUCCESS") for pupil in pupils]
    assert sorted(registered) == [False] + [True] * 30


def test_an_address_makes_a_limited_number_of_channels(room, monkeypatch):
    """Others can go on making them, and all can enter those that there are."""
    monkeypatch.setitem(room.server.limits, "founding", server.Limiter(1 / 300, 3))
    eve, dan = room.irc("eve"), room.irc("dan")
    eve.send("JOIN #a,#b,#a,#B", "PART #a", "JOIN #c,#d,#e")
    heard = eve.heard()
    assert sum(" JOIN " in line for line in heard) == 3
    refusal = ":hubbub.local 405 eve #%s :Your address has made too many rooms. Wait %s."
    for name in "de":
        assert refusal % (name, "5 minutes") in heard
    dan.send("JOIN #b")
    assert has(dan.heard(), " JOIN #b")
    room.client("dan").host = "192.0.2.1"
    dan.send("JOIN #e")
    assert has(dan.heard(), " JOIN #e")


@needs_scrypt
def test_a_guest_cannot_fill_a_mailbox(kept):
    """An account has its own share, whatever the guests of its address have used."""
    eve, dan = kept.irc("eve"), kept.irc("dan")
    eve.send(*["PRIVMSG alice :spam %d" % number for number in range(60)], "NICK mallory")
    heard = eve.heard()
    assert sum("message will be delivered" in line for line in heard) == 50
    assert sum(" FAIL PRIVMSG MAILBOX_FULL alice :" in line for line in heard) == 10
    eve.send("PRIVMSG alice :spam", "PRIVMSG boss :hello")
    full, other = eve.heard()
    assert "MAILBOX_FULL" in full and "message will be delivered" in other
    dan.send("REGISTER * * :" + PASSWORD, "PRIVMSG alice :homework")
    assert has(dan.heard(), "message will be delivered")


@needs_scrypt
def test_the_accounts_of_an_address_cannot_fill_a_mailbox(kept):
    """Those of another address still have room."""
    eve, dan, stored = kept.irc("eve"), kept.irc("dan"), 0
    for number in range(5):
        kept.client("eve").account = server.Account(100 + number, "eve", False, 0.0)
        eve.send(*["PRIVMSG alice :spam"] * 50)
        stored += sum("message will be delivered" in line for line in eve.heard())
    assert stored == 200
    kept.client("dan").host = "192.0.2.1"
    dan.send("PRIVMSG alice :hello")
    assert has(dan.heard(), "message will be delivered")


def test_a_recipient_named_twice_gets_a_message_once(room):
    bob, alice = room.irc("bob"), room.irc("alice", "echo-message")
    alice.send("PRIVMSG bob,BOB,#lobby,bob :hello", "JOIN #a,#A")
    heard = alice.heard()
    assert [line.split()[1:3] for line in heard[:3]] == [
        ["PRIVMSG", "bob"], ["PRIVMSG", "#lobby"], ["JOIN", "#a"]
    ]  # fmt: skip
    assert sum("hello" in line for line in bob.heard()) == 2


def test_an_address_fills_the_history_no_faster_than_its_limit(open_room, tmp_path, monkeypatch):
    """What exceeds it waits; other addresses do not, and all that is passed on is kept."""
    monkeypatch.setitem(server.LIMITS, "storing", (1 / 3600, 2000))
    room = open_room(data=str(tmp_path), rate_limit=10)
    eve, dan = room.irc("eve"), room.irc("dan")
    room.client("dan").host = "192.0.2.1"
    eve.send(*("PRIVMSG #lobby :%d %s" % (number, "x" * 400) for number in range(9)))
    for _ in range(5):
        dan.until("x" * 400)
    dan.send("PRIVMSG #lobby :from another address")
    assert not has(dan.heard(), " PRIVMSG #lobby :")
    rows = room.server.store.read("#lobby", 0, 1 << 62, 99, True)
    said = [b"%d xx" % number for number in range(5)]
    assert [row.line.split(b":")[2][:4] for row in rows] == [*said, b"from"]


@needs_scrypt
def test_more_than_a_mailbox_is_delivered_in_turns(kept, monkeypatch):
    """None is lost, and none comes twice."""
    monkeypatch.setattr(server, "MAX_WAITING", 3)
    store = kept.server.store
    line = b":bob!b@h PRIVMSG alice :%d"
    store.append([server.Row(n, 1.0, "=1 bob", "PRIVMSG", line % n, 1) for n in range(1, 9)])
    alice = kept.irc("guest")
    alice.send(*LOG_IN, "NICK alice")
    texts = re.findall(r"\[bob -> you\]: (\d)", "\n".join(alice.heard()))
    assert texts == list("12345678") and store.waiting_count(1) == 0


# Private messages


@needs_scrypt
@pytest.mark.parametrize(
    "end", ["QUIT", "NICK rob", "the owner takes the name", "another takes the name"]
)
def test_reply_goes_to_nobody_who_has_taken_the_name_since(kept, end):
    """Nor to its new holder's mailbox: it is refused in words."""
    bob, stranger = kept.plain("bob"), kept.irc("stranger")
    kept.server.store.remove_account("alice")
    alice = kept.irc("alice")
    alice.send("PRIVMSG bob :psst")
    bob.expect("psst")
    if end == "the owner takes the name":
        kept.server.store.add_account("alice", PASSWORD)
        stranger.send(*LOG_IN)
    else:
        alice.send("NICK rob" if end == "another takes the name" else end)
        alice.heard_or_rest()
        kept.wait_for_thread(alice) if end == "QUIT" else None
    if end != "NICK rob":
        stranger.send("NICK alice")
    stranger.heard()
    bob.heard()
    bob.send("/reply secret")
    assert bob.heard() == ["[SERVER]: You have no private message to reply to yet."]
    assert not has(stranger.heard(), "secret")


def test_reply_goes_on_when_the_sender_is_resumed(room):
    bob, (alice, token) = room.plain("bob"), come_with_token(room, "alice")
    alice.send("PRIVMSG bob :psst")
    bob.expect("psst")
    again, _ = resume(room, token)
    bob.send("/reply yes")
    again.expect("PRIVMSG alice :yes")


def test_reply_goes_to_the_sender_of_the_last_text(room):
    """A client that only seems to type does not get it."""
    bob, carol = room.plain("bob"), room.irc("carol")
    mallory = room.irc("mallory", "message-tags")
    carol.send("PRIVMSG bob :hello")
    bob.expect("hello")
    mallory.send("@+typing=active TAGMSG bob")
    mallory.heard()
    bob.send("/reply secret")
    carol.expect("PRIVMSG carol :secret")
    assert not has(mallory.heard(), "secret")


# Moderation


@needs_scrypt
def test_operator_removes_a_channel(kept):
    """Its members are told, each of itself; the next of that name begins anew."""
    dan, eve = kept.irc("dan", "batch draft/chathistory"), kept.irc("eve")
    boss = log_in_as_operator(kept)
    dan.send("REGISTER * * :" + PASSWORD, "JOIN #den", "TOPIC #den :tea", "PRIVMSG #den :private")
    dan.heard()
    eve.send("JOIN #den")
    boss.send("JOIN #den")
    for talker in (dan, eve, boss):
        talker.heard()
    boss.send("DROP #Den")
    for talker, name in ((boss, "boss2"), (dan, "dan"), (eve, "eve")):
        kicks = [line for line in talker.heard() if " KICK " in line]
        assert kicks == [":boss2!boss2@127.0.0.1 KICK #den %s :The room was removed" % name]
    assert channels(kept) == ({"#lobby"}, set())
    dan.send("PRIVMSG #den :hello", "JOIN #den", "CHATHISTORY LATEST #den * 9")
    heard = dan.heard()
    assert has(heard, " 403 dan #den ") and has(heard, "353 dan = #den :@dan")
    assert not has(heard, "private")


@needs_scrypt
def test_operator_removes_an_account(kept):
    """Its owner is logged out at once; the name is free, and nobody reads its messages."""
    alice, bob, boss = kept.irc("guest"), kept.irc("bob", "draft/chathistory"), kept.plain("boss2")
    alice.send(*LOG_IN, "NICK alice", "PRIVMSG bob :private")
    alice.heard()
    boss.send("/login boss " + PASSWORD, "/drop Alice")
    assert boss.heard()[-1] == "[SERVER]: Alice was removed, with its history."
    assert has(alice.heard(), " 901 alice ")
    alice.send("REGISTER * * :" + PASSWORD)
    assert has(alice.heard(), "REGISTER SUCCESS alice")
    bob.heard()
    bob.send("CHATHISTORY LATEST alice * 9")
    assert not has(bob.heard(), "private")
    boss.send("/drop nobody")
    assert boss.heard() == ["[SERVER]: nobody has no account."]


@needs_scrypt
@pytest.mark.parametrize("target", ["", "*", "a b", "\x1b[2J", "*!*@*"])
@pytest.mark.parametrize("verb", ["BAN", "MUTE"])
def test_sanction_without_a_valid_target_is_refused(kept, verb, target):
    """It does not apply to all those whose account has no name either."""
    boss, bob = log_in_as_operator(kept), kept.irc("bob")
    boss.send("%s :%s" % (verb, target))
    assert has(boss.heard(), "FAIL %s INVALID_TARGET" % verb)
    bob.send("PRIVMSG boss2 :hello")
    boss.expect("hello")
    boss.send("BAN 127.0.0.1")
    boss.expect("You cannot ban 127.0.0.1: it is your own address, too.")


@pytest.mark.parametrize("target", ["eve", "127.0.0.1"])
def test_ban_in_the_moment_of_registration_holds(room, monkeypatch, target):
    directory, store = room.server.directory, room.server.store
    register = directory.register

    def ban_and_register(*args):
        store.add_sanction(server.Sanction("ban", target, 0.0, "noise", "boss", 1.0))
        return register(*args)

    monkeypatch.setattr(directory, "register", ban_and_register)
    eve = room.connect(IrcTalker)
    eve.send("NICK eve", "USER eve 0 * :Eve")
    heard = eve.rest()
    assert heard[-1] == "ERROR :You are banned, by boss: noise." and not has(heard, " 001 ")


@needs_scrypt
def test_killed_client_that_does_not_read_is_gone_at_once(kept):
    """Though its socket takes no more."""
    boss, bob = log_in_as_operator(kept), kept.irc("bob", receive_buffer=4096)
    while not kept.client("bob").is_blocked:
        boss.send(*["PRIVMSG bob :" + "x" * 400] * 50)
        boss.heard()
    boss.send("KILL bob :noise")
    kept.wait_for_thread(bob)
    assert "bob" not in kept.names()


@needs_scrypt
@pytest.mark.parametrize(
    ("command", "logged"),
    [
        ("KICK #lobby bob :no\x1b[2Jise", "removed bob from #lobby: no[2Jise"),
        ("BAN eve 1h :noise", "banned eve (1 hour): noise"),
        ("MUTE eve * :noise", "muted eve (forever): noise"),
        ("UNBAN dan", "lifted the sanctions against dan"),
        ("UNBAN 192.0.2.7/32", "lifted the sanctions against 192.0.2.7"),
        ("ANNOUNCE :tea", "announced something"),
        ("KILL bob :noise", "(bob): noise"),
    ],
)
def test_operators_commands_are_logged(kept, caplog, command, logged):
    """With the operator, the target and the reason, in a line that does nothing to a terminal."""
    boss = log_in_as_operator(kept)
    kept.irc("bob")
    boss.send("MUTE dan", "MUTE 192.0.2.7", command)
    boss.heard()
    assert "(boss2): " in caplog.messages[-1] and caplog.messages[-1].endswith(logged)


@needs_scrypt
@pytest.mark.parametrize("verb", ["BAN", "MUTE", "UNBAN"])
def test_target_with_a_zone_is_refused(kept, caplog, verb):
    """It may be any text, such as one that commands a terminal."""
    boss = log_in_as_operator(kept)
    boss.send("MUTE fe80::1", verb + " :fe80::1%\x1b[2J")
    assert has(boss.heard(), "FAIL %s INVALID_TARGET" % verb)
    assert "\x1b" not in caplog.text


DEMOTED = {  # commands that an operator may use in channels, and the refusal that others get
    "JOIN #shut": " 475 ",
    "TOPIC #den :mine": " 482 ",
    "MODE #den +i": " 482 ",
    "KICK #den dan": " 482 ",
    "INVITE eve #den": " 482 ",
}


@needs_scrypt
def test_demoted_operator_has_no_say_in_channels(kept):
    dan, _eve = kept.irc("dan"), kept.irc("eve")
    dan.send("JOIN #den,#shut", "MODE #den +ti", "MODE #shut +k sesame")
    dan.heard()
    boss = log_in_as_operator(kept)
    boss.send("JOIN #den")
    dan.until(" JOIN #den")
    dan.send("MODE #den -o boss2")
    dan.heard()
    boss.heard()
    kept.server.store.set_password("boss", PASSWORD, is_operator=False)
    kept.wait_until_noticed()
    for line, refusal in DEMOTED.items():
        boss.send(line)
        assert has(boss.heard(), refusal), line


@needs_scrypt
@pytest.mark.parametrize("is_deleted", [False, True])
def test_user_is_told_what_their_account_has_lost(kept, is_deleted):
    """At once, and without the label of a command."""
    boss = log_in_as_operator(kept, "account-notify batch labeled-response")
    bob = kept.irc("bob", "account-notify")
    boss.heard()
    lost = [":boss2!boss2@127.0.0.1 MODE boss2 :-o"]
    if is_deleted:
        kept.server.store.remove_account("boss")
        account = ":boss2!boss2@127.0.0.1 ACCOUNT *"
        told = ":hubbub.local 901 boss2 boss2!boss2@127.0.0.1 :You are now logged out"
        lost = [told, account, *lost]
    else:
        kept.server.store.set_password("boss", PASSWORD, is_operator=False)
    kept.wait_until_noticed()
    for_all = [":hubbub.local MODE #lobby :-t"]  # nobody could set the topic otherwise
    assert boss.heard() == lost + for_all
    assert bob.heard() == lost[1:2] + for_all


@needs_scrypt
def test_muted_user_cannot_speak_in_any_other_way(kept):
    """Commands that others would read are refused; the reasons of leaving are not passed on."""
    boss, (dan, token) = log_in_as_operator(kept), come_with_token(kept, "dan")
    dan.send("CAP REQ :message-tags", "JOIN #den")
    dan.heard()
    boss.send("CAP REQ :message-tags setname away-notify", "JOIN #den", "MUTE dan")
    boss.heard()
    dan.heard()
    refused = (
        "AWAY :gossip", "INVITE boss2 #den :gossip", "KICK #den boss2 :gossip",
        "MODE #den +b gossip", "NICK gossip", "NOTICE #den gossip", "PRIVMSG boss2,#den gossip",
        "SETNAME gossip", "@+gossip TAGMSG #den", "TOPIC #den gossip",
    )  # fmt: skip
    # An empty parameter behind the text changes nothing.
    refused += tuple(line + " :" for line in refused if ":" not in line)
    for line in refused:
        dan.send(line)
        assert len(dan.heard()) == (not line.startswith("NOTICE")), line
    again, heard = resume(kept, token)
    assert has(heard, " 001 dan ")
    for line in ("PRIVMSG #den gossip", "AWAY", "MODE #den b", "TOPIC #den"):
        again.send(line)
    assert sum("FAIL PRIVMSG MUTED" in line for line in again.heard()) == 1
    again.send("PART #den :gossip", "QUIT :gossip")
    heard = boss.until(" QUIT Quit")
    assert has(heard, " PART #den") and not has(heard, "gossip")


@needs_scrypt
def test_mute_of_a_name_holds_for_its_next_holder(kept):
    boss, dan = log_in_as_operator(kept), kept.irc("dan")
    boss.send("MUTE eve")
    boss.heard()
    dan.send("NICK eve", "PRIVMSG #lobby :gossip")
    assert has(dan.heard(), "FAIL PRIVMSG MUTED")


# Channels


CLOSED = {"+k sesame": " 475 ", "+i": " 473 ", "+b eve": " 474 ", "-n+b *!*@127.*": " 474 "}


@needs_scrypt
@pytest.mark.parametrize("mode", CLOSED)
def test_empty_channel_of_an_account_is_as_closed_as_a_full_one(kept, mode):
    """And so is its history."""
    dan, eve = kept.irc("dan"), kept.irc("eve")
    dan.send("REGISTER * * :" + PASSWORD, "JOIN #den", "MODE #den " + mode)
    dan.send("PRIVMSG #den :private", "PART #den")
    dan.heard()
    eve.send("JOIN #den")
    heard = eve.heard()
    assert has(heard, CLOSED[mode]) and not has(heard, "private")


@pytest.mark.parametrize("is_restarted", [False, True])
@pytest.mark.parametrize("mode", CLOSED)
def test_guests_close_no_channel_for_good(kept, open_room, monkeypatch, mode, is_restarted):
    """When the last has left it is gone, with its history; after a restart they may come back."""
    dan = kept.irc("dan")
    dan.send("JOIN #den", "MODE #den " + mode, "PRIVMSG #den :private")
    dan.heard()
    if is_restarted:
        kept.stop()
        kept = open_room(data=kept.server.options.data)
        eve = kept.irc("eve", "batch draft/chathistory")
        eve.send("JOIN #den")
        assert has(eve.heard(), CLOSED[mode])
        monkeypatch.setattr(kept.server, "_unused_at", 0.0)
        upkeep = threading.Event()
        monkeypatch.setattr(kept.server.delivery, "wake", upkeep.set)
        assert upkeep.wait(TIMEOUT)
        monkeypatch.undo()
    else:
        eve = kept.irc("eve", "batch draft/chathistory")
        dan.send("PART #den")
        dan.heard()
    assert channels(kept) == ({"#lobby"}, set())
    eve.send("JOIN #den", "CHATHISTORY LATEST #den * 9")
    heard = eve.heard()
    assert has(heard, " 353 eve = #den :@eve") and not has(heard, "private")


def channels(room):
    """The channels that there are, and those that there would be after a restart."""
    room.server.delivery.sync()
    here = {channel.name for channel in room.server.directory.channels()}
    return here, {state["name"] for state in room.server.store.channels()}


def test_next_channel_of_a_name_is_kept_though_the_disk_is_behind(kept, monkeypatch):
    dan, eve = kept.irc("dan"), kept.irc("eve", "draft/chathistory")
    dan.send("JOIN #den", "TOPIC #den :old")
    dan.heard()
    store, directory = kept.server.store, kept.server.directory
    has_left, may_write = threading.Event(), threading.Event()
    append, part = store.append, directory.part
    monkeypatch.setattr(directory, "part", lambda *a: (part(*a), has_left.set()))
    monkeypatch.setattr(store, "append", lambda rows: may_write.wait(TIMEOUT) and append(rows))
    dan.send("PART #den")
    assert has_left.wait(TIMEOUT)
    eve.send("JOIN #den", "TOPIC #den :new")
    may_write.set()
    eve.expect("TOPIC #den :new")
    eve.heard()
    assert channels(kept) == ({"#lobby", "#den"}, {"#den"})


@needs_scrypt
def test_empty_channel_is_kept_for_its_owner(kept, open_room):
    """The lobby in any case; an account that was deleted owns nothing."""
    boss, dan, eve = log_in_as_operator(kept), kept.irc("dan"), kept.irc("eve")
    for talker in (dan, eve):
        talker.send("REGISTER * * :" + PASSWORD)
    boss.send("TOPIC #lobby :tea")
    for talker, name in ((boss, "#boss"), (dan, "#dan"), (eve, "#eve"), (kept.irc("fay"), "#fay")):
        talker.send("JOIN " + name, "TOPIC %s :mine" % name, "PART %s,#lobby" % name)
        talker.heard()
    assert channels(kept) == ({"#lobby", "#boss", "#dan", "#eve"},) * 2
    kept.server.store.remove_account("dan")
    kept.server.store.add_account("dan", PASSWORD)
    kept.wait_until_noticed()
    assert channels(kept) == ({"#lobby", "#boss", "#eve"},) * 2
    kept.close()
    again = open_room(data=kept.server.options.data)
    guest = again.irc("guest")
    guest.send("JOIN #eve")
    assert has(guest.heard(), " 353 guest = #eve :guest")
    assert channels(again) == ({"#lobby", "#boss", "#eve"},) * 2


@needs_scrypt
def test_channel_that_nobody_enters_goes_after_a_month(kept, monkeypatch):
    """With its history; a visit begins the month anew, also if the server is killed then."""
    boss = log_in_as_operator(kept)
    for name in ("#a", "#b", "#c"):
        boss.send("JOIN " + name, "TOPIC %s :mine" % name, "PRIVMSG %s :old" % name)
    boss.send("PART #a,#b")
    boss.heard()
    directory = kept.server.directory

    def found_after(days):
        """The clock plays no part: it may be wrong."""
        monkeypatch.setattr(server, "UNUSED_INTERVAL", days * 86400.0)
        directory.drop_unused()
        return channels(kept)

    assert found_after(20) == ({"#lobby", "#a", "#b", "#c"}, {"#a", "#b", "#c"})
    boss.send("JOIN #b", "PART #b")
    boss.heard()
    unused = {state["name"]: state["unused"] / 86400 for state in kept.server.store.channels()}
    assert unused == {"#a": 20, "#b": 0, "#c": 0}
    assert found_after(9) == ({"#lobby", "#a", "#b", "#c"}, {"#a", "#b", "#c"})
    assert found_after(2) == ({"#lobby", "#b", "#c"}, {"#b", "#c"})
    assert kept.server.store.read("#a", 0, 1 << 62, 9, True) == []
    assert found_after(20) == ({"#lobby", "#c"}, {"#c"})
    boss.send("TOPIC #lobby :tea", "PART #lobby")
    boss.heard()
    assert found_after(999) == ({"#lobby", "#c"},) * 2


def test_restricting_a_channel_hides_nothing_that_was_said_before(kept):
    """What was said since goes with the channel: nobody could open it again."""
    anna, eve = kept.irc("anna"), kept.irc("eve")
    anna.send("JOIN #project", "PRIVMSG #project :open", "PART #project")
    anna.heard()
    eve.send("JOIN #project", "MODE #project +s", "PRIVMSG #project :secret", "PART #project")
    eve.heard()
    rows = kept.server.store.read("#project", 0, 1 << 62, 9, True)
    assert [row.line.rpartition(b":")[2] for row in rows] == [b"open"]


@needs_scrypt
def test_operator_opens_an_empty_channel_from_outside(kept):
    """It is dropped with the last mode that kept it."""
    boss, dan = log_in_as_operator(kept), kept.irc("dan")
    dan.send("REGISTER * * :" + PASSWORD)
    dan.send("JOIN #den", "MODE #den +ik sesame", "PART #den")
    dan.heard()
    boss.send("MODE #den -i")
    boss.heard()
    assert "#den" in channels(kept)[0]
    boss.send("MODE #den -k")
    boss.heard()
    assert channels(kept) == ({"#lobby"}, set())


@pytest.mark.parametrize("mode, refusal", [("+k sesame", " 475 "), ("+l 1", " 471 ")])
def test_only_a_chanops_invitation_opens_a_channel(room, mode, refusal):
    dan, bob, eve = room.irc("dan"), room.irc("bob"), room.irc("eve")
    dan.send("JOIN #den")
    dan.heard()
    bob.send("JOIN #den")
    bob.heard()
    dan.send("MODE #den " + mode)
    dan.heard()
    for member, answer in ((bob, refusal), (dan, " JOIN #den")):
        member.send("INVITE eve #den")
        member.heard()
        eve.send("JOIN #den")
        assert has(eve.heard(), answer)


# All that a member says to a channel, or to all its channels; what is left of it if it may not
# speak; and the answer.
SAYINGS = {
    "PRIVMSG #den :gossip": ("", " 404 bob #den "),
    "NOTICE #den :gossip": ("", None),
    "@+gossip TAGMSG #den": ("", " 404 bob #den "),
    "TOPIC #den :gossip": ("", " 404 bob #den "),
    "KICK #den dan :gossip": ("", " 482 bob #den "),
    "MODE #den +b gossip": ("", " 482 bob #den "),
    "NICK gossip": ("", "FAIL NICK MUTED "),
    "AWAY :gossip": ("", " 306 bob "),
    "SETNAME gossip": ("", " SETNAME "),
    "PART #den :gossip": (" PART #den", " PART #den"),
    "QUIT :gossip": (" QUIT Quit", "ERROR "),
}


@pytest.mark.parametrize("line", SAYINGS)
@pytest.mark.parametrize("mode", ["+b bob", "+m"])
def test_member_who_may_not_speak_is_not_heard_in_any_other_way(room, mode, line):
    """Members with a voice are; and those who share another channel hear what is not for one."""
    dan, eve = (room.irc(name, "away-notify message-tags setname") for name in ("dan", "eve"))
    bob = room.irc("bob", "message-tags setname")
    dan.send("PART #lobby", "JOIN #den")
    dan.heard()
    bob.send("JOIN #den")
    bob.heard()
    dan.send("MODE #den " + mode)
    for talker in (dan, eve, bob):
        talker.heard()
    left, answer = SAYINGS[line]
    bob.send(line)
    answered = bob.heard_or_rest()
    assert has(answered, answer) if answer else not answered
    heard = dan.until(left) if line.startswith("QUIT") else dan.heard()
    assert not has(heard, "gossip") and has(heard, left) == bool(heard)
    if line.startswith(("AWAY", "SETNAME")):
        assert has(eve.heard(), "gossip")
    if line.startswith(("QUIT", "MODE", "KICK")):
        return
    dan.send("INVITE bob #den", "MODE #den +v bob") if "PART" not in line else None
    dan.heard()
    if "PART" not in line:
        bob.send(line)
        bob.heard()
        assert has(dan.heard(), "gossip")


def test_away_message_is_not_said_on_joining_where_nobody_may_speak(room):
    dan, bob = room.irc("dan", "away-notify"), room.irc("bob")
    dan.send("JOIN #den", "MODE #den +m", "PART #lobby")
    dan.heard()
    bob.send("AWAY :gossip", "JOIN #den")
    bob.heard()
    heard = dan.heard()
    assert has(heard, " JOIN #den") and not has(heard, "gossip")


# Connections that are resumed


def come_with_token(room, nickname):
    """A client that can be resumed, and the token for that."""
    talker = room.irc(nickname, "hubbub/resume")
    return talker, room.client(nickname).token


def resume(room, token):
    """A client that connects with that token, and what it hears."""
    talker = room.connect(IrcTalker)
    talker.send("CAP REQ hubbub/resume", "RESUME " + token)
    return talker, talker.heard()


def test_token_is_good_once_and_transfers_the_user(room):
    dan = room.irc("dan")
    dan.send("JOIN #den", "MODE #den +i")
    bob, token = come_with_token(room, "bob")
    bob.send("MONITOR + dan", "AWAY :tea")
    bob.heard()
    dan.send("INVITE bob #den")
    dan.heard()
    again, heard = resume(room, token)
    assert has(heard, " RESUME TOKEN ") and has(heard, " JOIN #lobby")
    assert has(bob.rest(), "Connected again")
    again.send("MONITOR L", "JOIN #den")
    heard = again.heard()
    for words in (" 732 bob :dan", " JOIN #den"):
        assert has(heard, words)
    for wrong in (token, "", "0", room.client("bob").token + "0"):
        assert has(resume(room, ":" + wrong)[1], "INVALID_TOKEN")
    assert room.server.directory._tokens.keys() == {room.client("bob").token}


def test_names_that_are_sent_after_a_resume_have_the_user(room):
    bob, (alice, token) = room.irc("bob"), come_with_token(room, "alice")
    alice.send("JOIN #den")
    alice.heard()
    room.irc("owner")
    directory, may_go_on = room.server.directory, threading.Event()
    held_up = server.Output(room.client("bob"), lambda: may_go_on.wait(TIMEOUT) and b"")
    room.server.delivery.enqueue(held_up)
    directory.names(room.client("bob"), directory.channel("#den"))
    assert directory.resume(room.client("owner"), token)
    may_go_on.set()
    assert has(bob.heard(), " 353 bob = #den :@alice")


def test_resume_is_not_shown_to_others(room):
    """Watchers are told nothing, and messages reach the new connection at once."""
    bob, (_alice, token) = room.irc("bob"), come_with_token(room, "alice")
    bob.send("MONITOR + alice")
    bob.heard()
    owner = room.irc("owner")
    bob.heard()
    assert room.server.directory.resume(room.client("owner"), token)
    bob.send("PRIVMSG alice :hello")
    assert bob.heard() == []
    owner.expect("PRIVMSG alice :hello")


@needs_scrypt
def test_removed_user_cannot_resume(kept):
    """Not even in the moment before their connection has ended."""
    boss, (_bob, token) = log_in_as_operator(kept), come_with_token(kept, "bob")
    kept.client("bob").end_reason = "Killed"  # as KILL does, a moment before the thread notices
    assert has(resume(kept, token)[1], "INVALID_TOKEN")
    eve, token = come_with_token(kept, "eve")
    boss.send("BAN eve")
    assert has(eve.rest(), "You are banned") and has(resume(kept, token)[1], "INVALID_TOKEN")


@needs_scrypt
def test_banned_user_cannot_resume_or_get_what_waited(kept, monkeypatch):
    """It waits until they may join again."""
    eve, token = come_with_token(kept, "eve")
    eve.send(*LOG_IN)
    eve.heard()
    bob = kept.irc("bob")
    bob.send("PRIVMSG alice :hello")
    assert has(bob.heard(), "message will be delivered")
    ban = server.Sanction("ban", "alice", 0.0, "noise", "boss", 1.0)
    monkeypatch.setattr(kept.server, "apply_sanctions_to_all", lambda: None)
    kept.server.store.add_sanction(ban)  # a moment ago: nobody has been disconnected yet
    for talker, lines in (
        (kept.connect(IrcTalker), ["CAP REQ hubbub/resume", "RESUME " + token]),
        (kept.irc("newcomer"), [*LOG_IN, "NICK alice"]),
    ):
        talker.send(*lines)
        heard = talker.rest()
        assert has(heard, "You are banned, by boss: noise.")
        assert not has(heard, " 001 ") and not has(heard, "hello")
    assert kept.server.store.waiting_count(kept.server.store.account("alice").id) == 1


# Work for nothing


@needs_scrypt
@pytest.mark.parametrize("target", ["alice", "#lobby"])
def test_history_keeps_no_tags_that_could_fill_a_sendq(kept, target):
    """A page of them would exceed the sendq and end the client at each CHATHISTORY."""
    most = server.MAX_KEPT_TAGS + 2 * protocol.MAX_MESSAGE
    assert most * max(server.MAX_HISTORY, server.MAX_WAITING) <= server.Options().max_sendq
    eve = kept.irc("eve", "batch draft/chathistory message-tags server-time")
    for size in (server.MAX_KEPT_TAGS, server.MAX_KEPT_TAGS + 1):
        tags = "+a=".ljust(size - len("@ "), "x")
        eve.send("@%s PRIVMSG %s :with %d" % (tags, target, size))
    eve.send("CHATHISTORY LATEST %s * 2" % target)
    lines = [line for line in eve.heard() if " PRIVMSG " in line]
    assert ["+a=" in line for line in lines] == [True, False]
