"""What somebody might try who wishes the others no good: each test is one attempt that fails."""

import hashlib
import re
import threading

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
    """A room that keeps things, whose passwords cost next to nothing; boss is its operator."""
    monkeypatch.setattr(server, "SCRYPT", (16, 8, 1))
    room = open_room(data=str(tmp_path / "data"))
    if room.server.store.has_accounts:
        room.server.store.add_account("alice", PASSWORD)
        room.server.store.add_account("boss", PASSWORD, is_operator=True)
    return room


def become_operator(room):
    boss = room.irc("somebody")
    boss.send("OPER boss :" + PASSWORD)
    assert any(" 381 " in line for line in boss.heard())
    return boss


def has(lines, words):
    return any(words in line for line in lines)


# Names


@needs_scrypt
def test_who_squats_on_a_name_does_not_take_it_along(kept):
    """Its owner, who has taken it, is still found by it when the squatter's thread ends."""
    squatter = kept.connect(IrcTalker)
    squatter.send("CAP LS 302", "NICK alice", "USER a 0 * :a")
    squatter.heard()
    alice = kept.connect(PlainTalker)
    alice.send("/login alice " + PASSWORD)
    alice.expect("alice joined the chat")
    kept.wait_until_gone(squatter)
    assert kept.client("alice")


@needs_scrypt
def test_an_owner_gets_the_name_from_whoever_holds_it(kept):
    """With NICK too, once logged in; and then what waited for it."""
    alice, ghost = kept.irc("guest"), kept.connect(IrcTalker)
    alice.send("OPER alice :" + PASSWORD, *LOG_IN, "NICK guest")
    assert has(alice.heard(), " NICK guest")
    bob = kept.irc("bob")
    bob.send("PRIVMSG alice :hello")
    assert has(bob.heard(), "it will be delivered")
    ghost.send("CAP LS 302", "NICK alice", "USER a 0 * :a")
    ghost.heard()
    alice.send("NICK alice")
    assert has(alice.heard(), "hello")
    assert has(ghost.rest(), "taken the name")
    kept.wait_until_gone(ghost)
    bob.send("PRIVMSG alice :again")
    alice.expect("again")


@needs_scrypt
def test_who_had_an_account_has_no_more_than_the_next_who_has_it(kept):
    """It was removed while they were here, and its name is another's now."""
    records = kept.server.store
    old = become_operator(kept)
    old.send("NICK somebody")
    old.heard()
    records.remove_account("boss")
    boss = kept.irc("boss")
    boss.send("REGISTER * * :" + PASSWORD)
    boss.heard()
    old.send("NICK boss")
    heard = old.heard()
    assert has(heard, " 901 somebody somebody!somebody@127.0.0.1 :") and has(heard, " 433 ")
    old.send("BAN bob")
    assert has(old.heard(), " 481 ")
    boss.send("PING x")
    boss.expect("PONG hubbub.local :x")


@needs_scrypt
@pytest.mark.parametrize("is_resumed", [False, True])
def test_who_is_no_operator_any_more_has_no_rights_of_one(kept, is_resumed):
    """From the next command on, and not by the token of an earlier place either."""
    records = kept.server.store
    boss, token = come_with_token(kept, "guest")
    boss.send("OPER boss :" + PASSWORD)
    boss.heard()
    records.set_password("boss", PASSWORD, is_operator=False)
    if is_resumed:
        boss, _ = resume(kept, token)
        assert not kept.client("boss").is_operator
    boss.send("@label=x BAN bob")
    assert has(boss.heard(), " 481 ")
    boss.send("WHOIS boss")
    assert has(boss.heard(), " 330 boss boss boss ") and not kept.client("boss").is_operator


@needs_scrypt
def test_the_next_account_of_a_name_has_no_say_in_the_rooms_of_the_last(kept):
    """Nor gets past what keeps others out; whose the room is, does, again and again."""
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
def test_an_account_that_was_made_by_a_wrong_clock_keeps_its_say(kept):
    """A clock that was ahead, and is right again, takes nobody's room away."""
    ahead = "UPDATE accounts SET created = created + 3600"
    kept.server.store.write(lambda writer: writer.execute(ahead))
    dan = kept.irc("dan")
    dan.send(*LOG_IN, "JOIN #den", "MODE #den +i", "PART #den", "JOIN #den")
    assert has(dan.heard()[-2:], " 353 alice = #den :@alice")


def test_a_room_that_an_earlier_version_kept_is_restored():
    """It knew its operators by their names alone."""
    room = server.Room("#den")
    room.restore(dict(room.state(), operators=["dan"], flags=["i"]))
    assert room.operators == {"dan": server.END}


@needs_scrypt
@pytest.mark.parametrize("way", ["as they come", "by NICK"])
def test_what_a_guest_said_under_the_name_is_not_for_its_owner(kept, way):
    """The account was made while somebody else had its name; not even later is it the owner's."""
    guest, bob = kept.irc("carol"), kept.irc("bob")
    kept.server.store.add_account("carol", PASSWORD)
    guest.send("PRIVMSG bob :mine alone")
    guest.heard()
    login = ("AUTHENTICATE PLAIN", "AUTHENTICATE AGNhcm9sAGNvcnJlY3QgaG9yc2U=")
    ask = "CHATHISTORY LATEST bob * 9"
    for nickname in ("carol" if way == "as they come" else "other", "carol"):
        carol = kept.connect(IrcTalker)
        carol.send("CAP REQ :batch draft/chathistory", "NICK " + nickname, "USER c 0 * :C", *login)
        carol.send("CAP END", "NICK carol")
        carol.expect(" JOIN #lobby")
        carol.send(ask, "PRIVMSG bob :hers", ask)
        heard = carol.heard()
        assert has(heard, ":hers") and not has(heard, "mine alone")
    assert has(guest.rest(), "taken the name")
    bob.send("CHATHISTORY LATEST carol * 9")
    assert has(bob.heard(), "mine alone")


@needs_scrypt
def test_who_only_seems_to_come_takes_nothing_from_the_owner(kept):
    """A name that is asked for and not used changes nothing of what its owner may read."""
    number = kept.server.store.account("alice").number
    ghost = kept.connect(IrcTalker)
    ghost.send("CAP LS 302", "NICK alice", "USER a 0 * :A")
    ghost.heard()
    alice = kept.irc("guest")
    alice.send(*LOG_IN)
    assert has(alice.heard(), " NICK alice") and has(ghost.rest(), "taken the name")
    assert kept.server.store.account("alice").number == number


@needs_scrypt
def test_wrong_passwords_for_one_account_keep_nobody_from_another(kept):
    """From the same address, as all of a classroom are; the account itself has to wait."""
    mallory, boss = kept.irc("mallory"), kept.irc("somebody")
    mallory.send(*["OPER alice :wrong one"] * 6)
    assert has(mallory.heard(), "Too many wrong passwords")
    mallory.send("OPER alice :" + PASSWORD)
    assert has(mallory.heard(), "Too many wrong passwords")
    boss.send("OPER boss :" + PASSWORD)
    assert has(boss.heard(), " 381 ")


@needs_scrypt
def test_guesses_at_many_accounts_cost_the_server_only_so_much(kept, monkeypatch):
    """What an address has left is spent at last, however many names it tries."""
    monkeypatch.setattr(kept.server, "guesses", server.Attempts(20, 1000.0))
    hashed = []
    monkeypatch.setattr(kept.server.store, "_digest", lambda *args: hashed.append(args) or b"")
    mallory = kept.irc("mallory")
    mallory.send(*["OPER name%d :wrong one" % number for number in range(50)])
    assert sum("Too many wrong passwords" in line for line in mallory.heard()) == 30
    assert len(hashed) == 20


@needs_scrypt
def test_who_mistakes_the_password_for_the_name_does_not_find_it_in_the_log(kept, caplog):
    mallory = kept.irc("mallory")
    mallory.send("OPER %s alice" % PASSWORD.replace(" ", ""), "OPER alice wrong-one")
    mallory.heard()
    assert "wrong password for alice" in caplog.text
    assert PASSWORD.replace(" ", "") not in caplog.text and "wrong-one" not in caplog.text


def test_the_servers_password_cannot_be_guessed_at_leisure(open_room, monkeypatch):
    room = open_room(password="open sesame")
    monkeypatch.setattr(room.server, "guesses", server.Attempts(2, 1000.0))
    for word, answer in (("a", "Wrong"), ("open sesame", " 001 "), ("b", "Wrong"), ("c", "Too")):
        talker = room.connect(IrcTalker)
        talker.send("PASS :" + word, "NICK bob", "USER b 0 * :b", "QUIT")
        assert has(talker.rest(), answer)
        talker.close()


ACTIONS = {  # what the thread of a connection may be about to do when it is put out
    "claim": lambda directory, client: directory.claim(client, "mallory"),
    "release": lambda directory, client: directory.release(client),
    "register": lambda directory, client: directory.register(client, ""),
    "join": lambda directory, client: directory.join(client, "#den"),
    "tell": lambda directory, client: directory.tell(client, Message("PRIVMSG", ("bob", "psst"))),
    "resume": lambda directory, client: directory.resume(client, "of somebody else", ""),
    "leave word": lambda directory, client: directory.leave_word(
        client, Message("PRIVMSG", ("carol", "psst")), "carol"
    ),
    "watch": lambda directory, client: directory.watch(client, "bob"),
    "ignore": lambda directory, client: directory.ignore(client, "bob!*@*", True),
}


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("way", ["the owner comes", "the place is taken back"])
def test_who_was_put_out_does_nothing_more_under_that_name(room, way, action):
    """In the moment in which their thread has not heard of it: it has waited for its turn."""
    bob, (_alice, token) = room.irc("bob"), come_with_token(room, "alice")
    old, directory = room.client("alice"), room.server.directory
    new = room.irc("owner")
    if way == "the owner comes":
        assert directory.claim(room.client("owner"), "alice", is_owner=True) is old
    else:
        assert directory.resume(room.client("owner"), token, "") is old
    bob.heard()
    with pytest.raises(server.Ended):
        ACTIONS[action](directory, old)
    assert bob.heard() == [] and room.client("mallory") is None
    new.send("PRIVMSG bob :hello")
    bob.expect(":hello")
    assert room.names() == folded("alice", "bob")
    room.server.end(old)


# Private words


@pytest.mark.parametrize("ignored, words", [("", "@+typing=active TAGMSG bob"), ("mallory", "")])
def test_a_reply_goes_to_whom_one_has_read(room, ignored, words):
    """Neither who only seems to type, nor who is ignored, gets it in their stead."""
    bob, carol = room.plain("bob"), room.irc("carol")
    mallory = room.irc("mallory", "message-tags")
    if ignored:
        bob.send("/ignore " + ignored)
        bob.heard()
    carol.send("PRIVMSG bob :hello")
    bob.expect("hello")
    mallory.send(words or "PRIVMSG bob :psst")
    mallory.heard()
    bob.send("/reply secret")
    carol.expect("PRIVMSG carol :secret")
    assert not has(mallory.heard(), "secret")


# Operators


@needs_scrypt
@pytest.mark.parametrize("target", ["", "*", "a b", "\x1b[2J", "*!*@*"])
@pytest.mark.parametrize("verb", ["BAN", "MUTE"])
def test_a_sanction_without_a_target_meets_nobody(kept, verb, target):
    """Not those without an account, whose account has no name either."""
    boss, bob = become_operator(kept), kept.irc("bob")
    boss.send("%s :%s" % (verb, target))
    assert has(boss.heard(), "FAIL %s INVALID_TARGET" % verb)
    bob.send("PRIVMSG boss :hello")
    boss.expect("hello")
    boss.send("BAN 127.0.0.1")
    boss.expect("That would ban yourself.")


@pytest.mark.parametrize("target", ["eve", "127.0.0.1"])
def test_a_ban_meets_who_is_coming_in_just_now(room, monkeypatch, target):
    """They were looked at before it, and are here after it."""
    directory, sanctions = room.server.directory, room.server.sanctions
    register = directory.register

    def ban_and_register(*args):
        sanctions.add(server.Sanction("ban", target, 0.0, "noise", "boss", 1.0))
        return register(*args)

    monkeypatch.setattr(directory, "register", ban_and_register)
    eve = room.connect(IrcTalker)
    eve.send("NICK eve", "USER eve 0 * :Eve")
    heard = eve.rest()
    assert heard[-1] == "ERROR :You are banned: noise." and not has(heard, " 001 ")


@needs_scrypt
@pytest.mark.parametrize(
    ("act", "logged"),
    [
        ("KICK #lobby bob :no\x1b[2Jise", "removed bob from #lobby: no[2Jise"),
        ("BAN eve 1h :noise", "banned eve (1 hour): noise"),
        ("MUTE eve * :noise", "muted eve (for ever): noise"),
        ("UNBAN dan", "lifted what was against dan"),
        ("ANNOUNCE :tea", "announced something"),
        ("CHGHOST bob tea.lan", "(bob) has the host tea.lan"),
        ("KILL bob :noise", "(bob): noise"),
    ],
)
def test_what_an_operator_does_is_in_the_log(kept, caplog, act, logged):
    """Who did it, to whom and why, in one line that does nothing to a terminal."""
    boss = become_operator(kept)
    kept.irc("bob")
    boss.send("MUTE dan", act)
    boss.heard()
    assert "(boss): " in caplog.messages[-1] and caplog.messages[-1].endswith(logged)


@needs_scrypt
def test_who_guesses_too_often_is_told_so_in_one_sentence(kept):
    """However they log in; until then it says that the password was wrong."""
    eve, dan = kept.irc("eve"), kept.plain("dan")
    eve.heard()
    wrong = "[SERVER]: That username and that password do not belong together."
    dan.send(*["/login alice a-password"] * 6)
    *lines, last = dan.heard()
    assert lines == [wrong] * 5
    assert re.match(r"\[SERVER\]: Too many wrong passwords. Try again in \d+ seconds.", last)
    eve.send("OPER alice :" + PASSWORD)
    (line,) = eve.heard()
    assert " 464 eve :Too many wrong passwords. Try again in " in line


DEMOTED = {  # what an operator may do in rooms, and the refusal that others get
    "JOIN #shut": " 475 ",
    "TOPIC #den :mine": " 482 ",
    "MODE #den +i": " 482 ",
    "KICK #den dan": " 482 ",
    "INVITE eve #den": " 482 ",
}


@needs_scrypt
@pytest.mark.parametrize("line", DEMOTED)
def test_who_is_no_operator_any_more_has_no_say_in_rooms(kept, line):
    """With the very next command, whatever it is that took the rights away."""
    dan, eve = kept.irc("dan"), kept.irc("eve")
    dan.send("JOIN #den,#shut", "MODE #den +t", "MODE #shut +k sesame")
    dan.heard()
    boss = become_operator(kept)
    boss.send("JOIN #den")
    dan.until(" JOIN #den")
    dan.send("MODE #den -o boss", "MODE #den +i" if line.startswith("INVITE") else "PING x")
    dan.heard()
    eve.heard()
    boss.heard()
    kept.server.store.set_password("boss", PASSWORD, is_operator=False)
    boss.send(line)
    assert has(boss.heard(), DEMOTED[line])


@needs_scrypt
@pytest.mark.parametrize("line", ["TOPIC #den :Tea", "JOIN #tea"])
@pytest.mark.parametrize("is_gone", [False, True])
def test_what_an_account_has_lost_is_told_and_answers_no_question(kept, is_gone, line):
    """The label of the command that finds out is for what it asked."""
    boss = kept.irc("guest", "account-notify batch echo-message labeled-response")
    boss.send("OPER boss :" + PASSWORD, "JOIN #den")
    boss.heard()
    who = ":boss!guest@127.0.0.1"
    lost = ["%s MODE boss :-o" % who]
    if is_gone:
        kept.server.store.remove_account("boss")
        told = ":hubbub.local 901 boss %s :You are now logged out" % who[1:]
        lost = ["%s ACCOUNT *" % who, told, *lost]
    else:
        kept.server.store.set_password("boss", PASSWORD, is_operator=False)
    boss.send("@label=x " + line)
    heard = boss.heard()
    assert heard[: len(lost)] == lost
    assert heard[len(lost)].startswith("@label=x ")


# Rooms


def test_who_is_ignored_invites_nobody(room):
    bob, eve = room.irc("bob"), room.irc("eve")
    bob.send("SILENCE +eve")
    bob.heard()
    eve.send("JOIN #den", "INVITE bob #den")
    assert has(eve.heard(), " 341 ")
    assert not has(bob.heard(), "INVITE")


@pytest.mark.parametrize(
    "mode, refusal",
    [("+k sesame", " 475 "), ("+i", " 473 "), ("+b eve", " 474 "), ("-n+b *!*@127.*", " 474 ")],
)
def test_an_empty_room_is_as_closed_as_a_full_one(kept, mode, refusal):
    """What was said in it is behind that door."""
    dan, eve = kept.irc("dan"), kept.irc("eve")
    dan.send("JOIN #den", "MODE #den " + mode, "PRIVMSG #den :private", "PART #den")
    dan.heard()
    eve.send("JOIN #den")
    heard = eve.heard()
    assert has(heard, refusal) and not has(heard, "private")


def kept_rooms(room):
    """Those that are there, and those that would be after a restart."""
    room.server.delivery.sync()
    here = {found.name for found in room.server.directory.channels()}
    return here, {state["name"] for state in room.server.store.rooms()}


def test_guests_leave_no_more_rooms_behind_than_so_many(kept, monkeypatch):
    """What was left first goes first, and what was said there is not for the next of its name."""
    monkeypatch.setattr(server, "MAX_GUEST_ROOMS", 2)
    dan, eve = kept.irc("dan"), kept.irc("eve", "batch draft/chathistory draft/event-playback")
    for name in ("#a", "#b", "#c"):
        dan.send("JOIN " + name, "MODE %s +k sesame" % name, "PRIVMSG %s :private" % name)
    dan.send("PART #a,#b", "JOIN #a sesame", "PART #a")
    dan.heard()
    assert kept_rooms(kept) == ({"#lobby", "#a", "#b", "#c"}, {"#a", "#b", "#c"})
    dan.send("PART #c")
    dan.heard()
    assert kept_rooms(kept) == ({"#lobby", "#a", "#c"}, {"#a", "#c"})
    eve.send("JOIN #a", "JOIN #b", "PRIVMSG #b :hello", "CHATHISTORY LATEST #b * 9")
    heard = eve.heard()
    assert has(heard, " 475 eve #a ") and has(heard, "353 eve = #b :@eve")
    assert has(heard, "PRIVMSG #b :hello") and not has(heard, "private")
    assert not has(kept.irc("fay").heard(), "private")
    assert not has(heard, "GONE")


def test_the_next_room_of_a_name_is_kept_though_the_disk_is_behind(kept, monkeypatch):
    """That the last one is gone is written first."""
    monkeypatch.setattr(server, "MAX_GUEST_ROOMS", 0)
    dan, eve = kept.irc("dan"), kept.irc("eve", "draft/chathistory")
    dan.send("JOIN #den", "TOPIC #den :old")
    dan.heard()
    history, delivery, directory = kept.server.history, kept.server.delivery, kept.server.directory
    is_left, may_write = threading.Event(), threading.Event()
    write, sync, part = history._write, delivery.sync, directory.part
    monkeypatch.setattr(directory, "part", lambda *a: (part(*a), is_left.set()))
    monkeypatch.setattr(history, "_write", lambda rows: may_write.wait(TIMEOUT) and write(rows))
    monkeypatch.setattr(delivery, "sync", lambda: may_write.set() or sync())
    dan.send("PART #den")
    assert is_left.wait(TIMEOUT)
    eve.send("JOIN #den", "TOPIC #den :new")
    eve.expect("TOPIC #den :new")
    eve.heard()
    assert kept_rooms(kept) == ({"#lobby", "#den"}, {"#den"})


@needs_scrypt
def test_a_room_in_which_an_account_has_a_say_is_there_for_good(kept, monkeypatch):
    """And so is the lobby, though nobody is in it."""
    monkeypatch.setattr(server, "MAX_GUEST_ROOMS", 1)
    boss, dan = become_operator(kept), kept.irc("dan")
    boss.send("TOPIC #lobby :tea", "JOIN #own", "TOPIC #own :tea", "PART #own,#lobby")
    boss.heard()
    dan.send(*("JOIN #%d" % n for n in range(3)), *("TOPIC #%d :x" % n for n in range(3)))
    dan.send("PART #lobby,#0,#1,#2")
    dan.heard()
    assert kept_rooms(kept) == ({"#lobby", "#own", "#2"},) * 2


@needs_scrypt
def test_the_rooms_of_an_account_that_is_gone_are_guests_rooms(kept, open_room, monkeypatch):
    """After a restart; those of others are not, nor is one whose account is another's now."""
    boss, dan, eve = become_operator(kept), kept.irc("dan"), kept.irc("eve")
    for talker in (dan, eve):
        talker.send("REGISTER * * :" + PASSWORD)
    for talker, name in ((boss, "#boss"), (dan, "#dan"), (eve, "#eve")):
        talker.send("JOIN " + name, "TOPIC %s :mine" % name, "PART " + name)
        talker.heard()
    records = kept.server.store
    kept.server.delivery.sync()
    for name in ("dan", "eve"):
        records.remove_account(name)
    records.add_account("eve", PASSWORD)
    kept.close()
    monkeypatch.setattr(server, "MAX_GUEST_ROOMS", 1)
    again = open_room(data=kept.server.options.data)
    assert kept_rooms(again) == ({"#boss", "#eve"}, {"#boss", "#eve"})


@needs_scrypt
def test_an_operator_opens_an_empty_room_from_outside_and_it_is_gone(kept):
    """With the last that kept it."""
    boss, dan = become_operator(kept), kept.irc("dan")
    dan.send("JOIN #den", "MODE #den +ik sesame", "PART #den")
    dan.heard()
    boss.send("MODE #den -i")
    boss.heard()
    assert "#den" in kept_rooms(kept)[0]
    boss.send("MODE #den -k")
    boss.heard()
    assert kept_rooms(kept) == ({"#lobby"}, set())


@pytest.mark.parametrize("mode, refusal", [("+k sesame", " 475 "), ("+b eve", " 474 ")])
def test_only_operators_let_people_past_a_ban_or_a_key(room, mode, refusal):
    """A member's invitation is a kind word: the operator's opens the door."""
    dan, bob, eve = room.irc("dan"), room.irc("bob"), room.irc("eve")
    dan.send("JOIN #den")
    dan.heard()
    bob.send("JOIN #den")
    bob.heard()
    dan.send("MODE #den " + mode)
    dan.heard()
    for friend, answer in ((bob, refusal), (dan, " JOIN #den")):
        friend.send("INVITE eve #den")
        friend.heard()
        eve.send("JOIN #den")
        assert has(eve.heard(), answer)


@needs_scrypt
def test_who_is_muted_has_no_other_way_to_speak(kept):
    """Whatever others would read of it: each is refused; of a leave, its reason is not told."""
    boss, (dan, token) = become_operator(kept), come_with_token(kept, "dan")
    dan.send("CAP REQ :message-tags", "JOIN #den")
    dan.heard()
    boss.send("CAP REQ :message-tags setname away-notify", "JOIN #den", "MUTE dan")
    boss.heard()
    dan.heard()
    refused = (
        "AWAY :gossip", "INVITE boss #den :gossip", "KICK #den boss :gossip",
        "MODE #den +b gossip", "NICK gossip", "NOTICE boss gossip", "PRIVMSG boss,#den gossip",
        "SETNAME gossip", "@+gossip TAGMSG #den", "TOPIC #den gossip",
    )  # fmt: skip
    for line in refused:
        dan.send(line)
        is_notice = line.startswith("NOTICE")
        assert len(dan.heard()) == (not is_notice), line
    again, heard = resume(kept, token)
    assert has(heard, " 001 dan ")
    for line in ("PRIVMSG boss gossip", "AWAY", "MODE #den b", "TOPIC #den"):
        again.send(line)
    assert sum("FAIL PRIVMSG MUTED" in line for line in again.heard()) == 1
    again.send("PART #den :gossip", "QUIT :gossip")
    heard = boss.until(" QUIT Quit")
    assert has(heard, " PART #den") and not has(heard, "gossip")


@pytest.mark.parametrize("mode", ["+b bob", "+m"])
def test_who_may_not_speak_in_a_room_may_not_set_its_topic(room, mode):
    dan, bob = room.irc("dan"), room.irc("bob")
    dan.send("JOIN #den")
    dan.heard()
    bob.send("JOIN #den")
    bob.heard()
    dan.send("MODE #den " + mode)
    dan.heard()
    bob.send("TOPIC #den :gossip")
    assert has(bob.heard(), " 404 ") and not has(dan.heard(), "gossip")


# Places taken back


def come_with_token(room, nickname):
    """Somebody who can take their place back, and the token for that."""
    talker = room.irc(nickname, "hubbub/resume")
    return talker, room.client(nickname).token


def resume(room, token):
    """Whoever connects with that token, and what they hear."""
    talker = room.connect(IrcTalker)
    talker.send("CAP REQ hubbub/resume", "RESUME " + token)
    return talker, talker.heard()


def test_a_token_is_good_once_and_brings_all_of_the_place(room):
    dan = room.irc("dan")
    dan.send("JOIN #den", "MODE #den +i")
    bob, token = come_with_token(room, "bob")
    bob.send("MONITOR + dan", "SILENCE +eve", "MODE bob +w", "AWAY :tea")
    bob.heard()
    dan.send("INVITE bob #den")
    dan.heard()
    again, heard = resume(room, token)
    assert has(heard, " RESUME TOKEN ") and has(heard, " JOIN #lobby")
    assert has(bob.rest(), "Connected again")
    again.send("MONITOR L", "SILENCE", "MODE bob", "JOIN #den")
    heard = again.heard()
    for words in (" 732 bob :dan", " 271 bob eve!", " 221 bob :+w", " JOIN #den"):
        assert has(heard, words)
    for wrong in (token, "", "0", room.client("bob").token + "0"):
        assert has(resume(room, ":" + wrong)[1], "INVALID_TOKEN")
    assert room.server.directory._tokens.keys() == {room.client("bob").token}


def test_who_takes_a_place_back_was_never_away(room):
    """Who watches them hears nothing, and they can be written to as soon as it is theirs."""
    bob, (_alice, token) = room.irc("bob"), come_with_token(room, "alice")
    bob.send("MONITOR + alice")
    bob.heard()
    owner = room.irc("owner")
    bob.heard()
    old = room.server.directory.resume(room.client("owner"), token, "")
    bob.send("PRIVMSG alice :hello")
    assert bob.heard() == []
    owner.expect("PRIVMSG alice :hello")
    room.server.end(old)


@pytest.mark.parametrize("host", ["10.0.0.9", "hidden.example"])
def test_a_place_is_taken_back_with_the_host_that_was_given_to_it(room, host):
    """Another address is told of, where it is the address that others see."""
    bob, (_alice, token) = room.irc("bob", "chghost"), come_with_token(room, "alice")
    bob.heard()
    old = room.client("alice")
    room.server.directory.become(old, host=host)
    old.address = "10.0.0.9:1"
    bob.heard()
    again, _ = resume(room, token)
    is_hidden = host == "hidden.example"
    assert bob.heard() == [] if is_hidden else has(bob.heard(), "CHGHOST alice :127.0.0.1")
    again.send("WHOIS alice")
    assert has(again.heard(), "311 alice alice alice " + (host if is_hidden else "127.0.0.1"))


@needs_scrypt
def test_no_token_saves_who_was_put_out(kept):
    """Not even in the moment before their connection has ended."""
    boss, (_bob, token) = become_operator(kept), come_with_token(kept, "bob")
    kept.client("bob").end = "Killed"  # as KILL does, a moment before the thread hears of it
    assert has(resume(kept, token)[1], "INVALID_TOKEN")
    eve, token = come_with_token(kept, "eve")
    boss.send("BAN eve")
    assert has(eve.rest(), "You are banned") and has(resume(kept, token)[1], "INVALID_TOKEN")


@needs_scrypt
def test_who_is_banned_takes_back_no_place_and_gets_nothing_that_waited(kept):
    """That waits on, until they may come in again."""
    eve, token = come_with_token(kept, "eve")
    eve.send(*LOG_IN, "NICK eve")
    eve.heard()
    bob = kept.irc("bob")
    bob.send("PRIVMSG alice :hello")
    assert has(bob.heard(), "it will be delivered")
    ban = server.Sanction("ban", "alice", 0.0, "noise", "boss", 1.0)
    kept.server.sanctions._held = (ban,)  # a moment ago: nobody was ended yet
    again = kept.connect(IrcTalker)
    again.send("CAP REQ hubbub/resume", "RESUME " + token)
    newcomer = kept.irc("newcomer")
    newcomer.send(*LOG_IN)
    for talker in (again, newcomer):
        heard = talker.rest()
        assert has(heard, "You are banned: noise.")
        assert not has(heard, " 001 ") and not has(heard, "hello")
    assert kept.server.history.waiting_count("alice") == 1


# Work for nothing


@pytest.mark.parametrize("more", [False, True])
def test_coming_and_going_does_not_bury_what_was_said(kept, more):
    """What is asked of the history is found by an index, whatever came since."""
    database, history = kept.server.store, kept.server.history
    asked = []
    history._select = lambda query, values: asked.append((query, values)) or []
    history.read("#lobby", 0, 1, 20, latest=True, more=more)
    query, values = asked[0]
    plan = str(database.read("EXPLAIN QUERY PLAN " + query, values))
    assert ("messages_by_key" if more else "texts_by_key") in plan
    assert "number>? AND number<?" in plan


def test_who_is_gone_is_remembered_by_nobody_they_ignored(room):
    bob = room.irc("bob")
    for _ in range(3):
        mallory = room.irc("mallory")
        mallory.send("SILENCE +*!*@*", "QUIT")
        mallory.rest()
    bob.heard()
    assert not room.client("bob").ignored_by


@pytest.mark.parametrize("masks", [["+bob", "+*!*@*", "-*!*@*", "-bob"], ["+x*", "+b?b", "-b?b"]])
def test_masks_are_added_and_removed_one_by_one(room, masks):
    """At each step those are ignored for whom one of the masks that are left stands."""
    bob, eve = room.irc("bob"), room.irc("eve")
    held = set()
    for mask in masks:
        eve.send("SILENCE " + mask)
        eve.heard()
        (held.add if mask[0] == "+" else held.discard)(mask[1:])
        bob.send("PRIVMSG eve :hello")
        bob.heard()
        is_ignored = bool(held & {"bob", "b?b", "*!*@*"})
        assert has(eve.heard(), "hello") != is_ignored


def test_a_hundred_masks_of_stars_are_matched_together():
    """In steps of the text alone: the work does not grow with what has to be tried."""
    masks = protocol.Masks("*%d*a*b*c*d*e!*@*" % number for number in range(100))
    text = "abcde" * 12 + "!user@host"
    assert not masks.match("x" + text) and masks.match("42" + text)
    assert not protocol.Masks(()).match("") and protocol.Masks(["*"]).match("")


@pytest.mark.parametrize(
    "line", ["WHO zzz", "LIST zzz", "SILENCE +zzz", "JOIN #a", "JOIN #a,#b,#c,#d"]
)
def test_a_question_that_finds_nothing_counts_by_the_work_it_makes(room, monkeypatch, line):
    """Looking at thousands costs others' time; and each of many names in a line is a line."""
    monkeypatch.setattr(server, "LOOKS_A_LINE", 0.01)
    charged = []
    monkeypatch.setattr(server.Session, "charge", lambda session, lines: charged.append(lines))
    bob = room.irc("bob")
    before = sum(charged)
    bob.send(line)
    bob.heard()
    assert sum(charged) > before + 20


@pytest.mark.parametrize("question", ["WHO *", "WHO bob", "WHOIS bob", "LIST", "WHO 0 %tcnf,7"])
def test_asking_copies_no_rooms(room, monkeypatch, question):
    """However many are in them."""
    bob = room.irc("bob")
    monkeypatch.setattr(server.Room, "copy", None)
    bob.send(question)
    assert has(bob.heard(), "#lobby")


def test_a_kilobyte_of_tags_is_no_short_line(room, monkeypatch):
    charged = []
    bob = room.irc("bob", "message-tags")
    monkeypatch.setattr(server.Session, "charge", lambda session, lines: charged.append(lines))
    bob.send("@+a=b TAGMSG #lobby", "@+a=%s TAGMSG #lobby" % ("x" * 2048))
    bob.heard()
    assert charged == [0, 4 * server.LINES_A_TOKEN]


@needs_scrypt
@pytest.mark.parametrize("target", ["alice", "#lobby"])
def test_no_tags_make_more_of_the_history_than_one_may_be_told_at_once(kept, target):
    """They would end whoever logs in to what waits, or asks, each time anew: SendQ exceeded."""
    told = server.MAX_KEPT_TAGS + 2 * protocol.MAX_MESSAGE
    assert told * max(server.MAX_HISTORY, server.MAX_WAITING) <= server.Options().max_sendq
    eve = kept.irc("eve", "batch draft/chathistory message-tags server-time")
    for size in (server.MAX_KEPT_TAGS, server.MAX_KEPT_TAGS + 1):
        tags = "+a=".ljust(size - len("@ "), "x")
        eve.send("@%s PRIVMSG %s :with %d" % (tags, target, size))
    eve.send("CHATHISTORY LATEST %s * 2" % target)
    lines = [line for line in eve.heard() if " PRIVMSG " in line]
    assert ["+a=" in line for line in lines] == [True, False]


def test_a_ban_in_the_moment_of_coming_in_holds(room, monkeypatch):
    """Between the look at the bans and the welcome, one may be added."""
    register = room.server.directory.register

    def register_late(client, token):
        ban = server.Sanction("ban", "eve", 0.0, "Noise", "root", 1.0)
        room.server.sanctions.add(ban)
        return register(client, token)

    monkeypatch.setattr(room.server.directory, "register", register_late)
    eve = room.connect(IrcTalker)
    eve.send("NICK eve", "USER e 0 * :E")
    assert eve.rest()[-1] == "ERROR :You are banned: Noise."


def test_who_leaves_all_rooms_leaves_the_others_though_put_out_of_one_meanwhile(room, monkeypatch):
    """A kick between the look at the rooms and the leaving is no refusal."""
    directory, rooms = room.server.directory, room.server.directory.rooms

    def rooms_and_a_kick(client=None, of=None):
        found = rooms(client, of)
        if of is not None:
            directory.part(of, "#a", "")
        return found

    alice = room.irc("alice")
    alice.send("JOIN #a,#b")
    alice.heard()
    monkeypatch.setattr(directory, "rooms", rooms_and_a_kick)
    alice.send("JOIN 0")
    assert [line.split()[1:] for line in alice.heard()] == [
        ["PART", "#a"],
        ["PART", "#b"],
        ["PART", "#lobby"],
    ]
