"""What somebody might try who wishes the others no good: each test is one attempt that fails."""

import hashlib

import pytest
from harness import IrcTalker, PlainTalker

import protocol
import server

PASSWORD = "correct horse"

needs_scrypt = pytest.mark.skipif(not hasattr(hashlib, "scrypt"), reason="this Python lacks scrypt")


@pytest.fixture
def kept(open_room, tmp_path, monkeypatch):
    """A room that keeps things, whose passwords cost next to nothing; boss is its operator."""
    monkeypatch.setattr(server, "SCRYPT", (16, 8, 1))
    room = open_room(data=str(tmp_path / "data"))
    if room.server.records.has_accounts:
        room.server.records.add_account("alice", PASSWORD)
        room.server.records.add_account("boss", PASSWORD, is_operator=True)
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
    alice.send(
        "OPER alice :" + PASSWORD, "AUTHENTICATE PLAIN", "AUTHENTICATE AGFsaWNlAGNvcnJlY3QgaG9yc2U="
    )
    alice.send("NICK guest")
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
def test_wrong_passwords_for_one_account_keep_nobody_from_another(kept):
    """From the same address, as all of a classroom are; the account itself has to wait."""
    mallory, boss = kept.irc("mallory"), kept.irc("somebody")
    mallory.send(*["OPER alice :wrong one"] * 6)
    assert has(mallory.heard(), "Too many attempts")
    mallory.send("OPER alice :" + PASSWORD)
    assert has(mallory.heard(), "Too many attempts")
    boss.send("OPER boss :" + PASSWORD)
    assert has(boss.heard(), " 381 ")


@needs_scrypt
def test_guesses_at_many_accounts_cost_the_server_only_so_much(kept, monkeypatch):
    """What an address has left is spent at last, however many names it tries."""
    monkeypatch.setattr(kept.server, "guesses", server.Attempts(20, 1000.0))
    hashed = []
    monkeypatch.setattr(kept.server.records, "_digest", lambda *args: hashed.append(args) or b"")
    mallory = kept.irc("mallory")
    mallory.send(*["OPER name%d :wrong one" % number for number in range(50)])
    assert sum("Too many attempts" in line for line in mallory.heard()) == 30
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
    """Neither by a topic nor by the reason for leaving."""
    boss, dan = become_operator(kept), kept.irc("dan")
    boss.send("JOIN #den", "MUTE dan")
    boss.heard()
    dan.send("TOPIC #lobby :gossip", "JOIN #den", "PART #den :gossip", "QUIT :gossip")
    heard = boss.until(" QUIT Quit")
    assert has(heard, " PART #den") and not has(heard, "gossip")
    assert has(dan.rest(), "FAIL TOPIC MUTED")


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


@needs_scrypt
def test_no_token_saves_who_was_put_out(kept):
    """Not even in the moment before their connection has ended."""
    boss, (_bob, token) = become_operator(kept), come_with_token(kept, "bob")
    kept.client("bob").end = "Killed"  # as KILL does, a moment before the thread hears of it
    assert has(resume(kept, token)[1], "INVALID_TOKEN")
    eve, token = come_with_token(kept, "eve")
    boss.send("BAN eve")
    assert has(eve.rest(), "You are banned") and has(resume(kept, token)[1], "INVALID_TOKEN")


# Work for nothing


@pytest.mark.parametrize("more", [False, True])
def test_coming_and_going_does_not_bury_what_was_said(kept, more):
    """What is asked of the history is found by an index, whatever came since."""
    database, history = kept.server._database, kept.server.history
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
