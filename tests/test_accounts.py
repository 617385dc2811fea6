"""Accounts as users see them: what is theirs, and what outlives a restart, a kill and a chore."""

import base64
import contextlib
import hashlib
import io
import signal
import time

import pytest
from harness import IrcTalker, PlainTalker, Process

import protocol
import server

pytestmark = pytest.mark.skipif(
    not hasattr(hashlib, "scrypt"), reason="this Python has no accounts"
)

PASSWORD = "correct horse"
CAPS = "message-tags server-time standard-replies"


@pytest.fixture(autouse=True)
def cheap_passwords(monkeypatch):
    monkeypatch.setattr(server, "SCRYPT", (16, 8, 1))


@pytest.fixture
def folder(tmp_path):
    return str(tmp_path / "data")


@pytest.fixture
def kept(open_room, folder):
    """A server with the accounts alice, root (an operator) and zoe."""
    with contextlib.closing(server.Store(folder, claim=False)) as store:
        for name in ("alice", "root", "zoe"):
            store.add_account(name, PASSWORD, is_operator=name == "root")
    return open_room(data=folder)


def chore(folder, act):
    """Change accounts as another process would, with a store of its own."""
    with contextlib.closing(server.Store(folder, claim=False)) as store:
        act(store)


def sasl(name, password=PASSWORD):
    """The lines that log an IRC client in."""
    data = base64.b64encode(("\0%s\0%s" % (name, password)).encode()).decode()
    return ["AUTHENTICATE PLAIN", "AUTHENTICATE " + data]


def log_in(talker, name):
    talker.send(*sasl(name))
    talker.expect(" 903 %s :SASL authentication successful" % talker.nickname)
    return talker


def guest(kept, nickname, caps=CAPS):
    talker = kept.irc(nickname, caps)
    talker.nickname = nickname
    return talker


# Names


def test_a_registered_name_is_refused_in_the_words_of_each_dialect(kept):
    """A FAIL for those who know it, else 433; people with nc read what to do."""
    modern, old, plain = guest(kept, "bob"), kept.irc("carol"), kept.connect(PlainTalker)
    text = "alice is registered. If it is yours, log in with /login alice."
    for talker in (modern, old):
        talker.send("NICK Alice")
    assert " FAIL NICK NICKNAME_RESERVED Alice :" + text in modern.expect("choose another.")
    old.expect(" 433 carol Alice :Nickname is registered")
    plain.send("alice")
    assert text in plain.expect("choose another.")


def test_logging_in_leaves_the_nickname_alone(kept):
    """SASL and OPER give the account and its rights; NICK then takes the name."""
    bob = log_in(guest(kept, "bob"), "alice")
    assert kept.client("bob").account.name == "alice"
    assert kept.client("alice") is None
    bob.send("NICK alice")
    assert any(line.endswith(" NICK alice") for line in bob.heard())
    carol = guest(kept, "carol")
    carol.send("OPER root :" + PASSWORD)
    heard = "\n".join(carol.heard())
    assert " 900 carol " in heard and " 381 carol " in heard and " NICK " not in heard
    assert kept.client("carol").is_operator


def test_login_in_the_chat_box_takes_the_name(kept):
    """From a connection that was left over, too."""
    for nickname in ("bob", "carol"):
        talker = kept.plain(nickname)
        talker.send("/login alice " + PASSWORD)
        talker.expect("%s is now called alice" % nickname)
        assert kept.names() == {"alice"}


# The host, whose account is made by the window


@pytest.fixture
def host(kept, folder):
    """The host of the chat, logged in as tina."""
    chore(folder, lambda store: store.add_account(protocol.HOST_ACCOUNT, PASSWORD, True))
    return log_in(guest(kept, "tina"), protocol.HOST_ACCOUNT)


HOSTS_NAME = "%s is the name of this chat's host. Choose another."


@pytest.mark.parametrize("name", ["tina", "TINA"])
def test_name_of_the_host_is_kept_while_the_host_is_away(kept, host, name):
    """Over a restart too; nobody is asked for a password that does not exist."""
    pupil = guest(kept, "pupil")
    host.finish()
    pupil.expect("QUIT :Connection closed")
    pupil.send("NICK " + name)
    assert " 433 pupil %s tina :" % name in pupil.expect("Choose another.")
    plain = kept.connect(PlainTalker)
    plain.send("tina")
    assert "tina" in plain.expect("Choose another.")
    pupil.send("PRIVMSG tina :a question")
    pupil.expect("tina is offline; your message will be delivered")


@pytest.mark.parametrize(
    ("name", "alike"),
    [("mona", "rnona"), ("mona", "m0na"), ("coco", "сосо"), ("vvilma", "wilma")],
)
@pytest.mark.parametrize("is_here", [True, False])
def test_lookalikes_of_the_host_s_name_are_refused(kept, host, name, alike, is_here):
    """In Latin and Cyrillic letters, whether the host is here or away."""
    pupil = guest(kept, "pupil")
    host.send("NICK " + name)
    pupil.expect(" NICK " + name)
    if not is_here:
        host.finish()
        pupil.expect("QUIT :Connection closed")
    pupil.send("NICK " + alike)
    line = pupil.expect("Choose another.")
    assert " 433 pupil %s %s :%s looks like %s," % (alike, name, alike, name) in line


@pytest.mark.parametrize(
    ("name", "refused", "free"),
    [
        ("tina", "tina_ _tina_ ti-na tina2 Tina1 t1na TlNA t|na tina| |t1na1 tina1_",
         "tin tins martina katina tina-k tína"),
        ("emil", "emi1 emi1_ EMLL emli", "emi em1 emi-lia"),
        ("tina3", "tina4 t1na", "tin3"),
        ("मीना", "मीना2", "मोना"),  # the vowels differ
        ("_1", "", "_2"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("is_here", [True, False])
def test_names_with_the_letters_of_the_host_s_are_refused(kept, host, name, refused, free, is_here):
    pupil = guest(kept, "pupil")
    host.send("NICK guest", "NICK " + name)
    pupil.expect(" NICK " + name)
    if not is_here:
        host.finish()
        pupil.expect("QUIT :Connection closed")
    for alike in refused.split():
        pupil.send("NICK " + alike)
        line = pupil.expect("Choose another.")
        assert " 433 pupil %s %s :%s looks like %s," % (alike, name, alike, name) in line
    for other in free.split():
        pupil.send("NICK " + other)
        pupil.expect(" NICK " + other)


def test_letters_of_other_names_are_free(kept):
    """Those of the users who are here, and of the accounts that are not the host's."""
    pupil = guest(kept, "pupil")
    for name in ("pupil2", "alice_", "root1"):
        pupil.send("NICK " + name)
        pupil.expect(" NICK " + name)


def test_owner_of_a_name_with_the_letters_of_the_host_s_is_asked_to_log_in(kept, folder, host):
    chore(folder, lambda store: store.add_account("tina2", PASSWORD))
    kept.wait_until_noticed()
    pupil = guest(kept, "pupil")
    pupil.send("NICK tina2")
    assert "FAIL NICK NICKNAME_RESERVED tina2 :" in pupil.expect("choose another.")
    log_in(pupil, "tina2").send("NICK tina2")
    pupil.expect(" NICK tina2")


def test_first_window_of_the_host_keeps_the_name_while_it_is_connected(kept, host):
    second = log_in(guest(kept, "guest"), protocol.HOST_ACCOUNT)
    second.send("NICK tina3")
    second.expect(" NICK tina3")
    pupil = guest(kept, "pupil")
    host.finish()
    pupil.expect("QUIT :Connection closed")
    pupil.send("NICK tina")
    assert HOSTS_NAME % "tina" in pupil.expect("Choose another.")
    second.send("NICK zora")  # the only window now
    pupil.expect(" NICK zora")
    pupil.send("NICK tina")
    pupil.expect(" NICK tina")


def test_chores_know_the_host_by_the_name(kept, folder, host, monkeypatch, capsys):
    """It has no password that anybody could change; it can be removed."""

    def run(*options, password=PASSWORD):
        monkeypatch.setattr(server.sys, "stdin", io.TextIOWrapper(io.BytesIO(password.encode())))
        code = server.main(["--data", folder, *options])
        said = capsys.readouterr()
        return code, said.out + said.err

    words = "server.py: tina is the name of the host, and needs no password.\n"
    assert run("--add-account", "tina") == (2, words)
    assert "tina (operator)" in run("--list-accounts")[1].splitlines()
    gone = "tina no longer has an account. Anyone may use the name.\n"
    assert run("--remove-account", "tina") == (0, gone)
    assert "tina" not in run("--list-accounts")[1]
    host.expect(":You are now logged out")
    assert run("--add-account", "tina") == (0, "tina now has an ordinary account.\n")


def test_host_s_name_follows_the_host(kept, host):
    """The old one is free again; one that is registered stays with its owner."""
    host.send("NICK teacher", "NICK zoe")
    host.expect("If not, choose another.")
    pupil = guest(kept, "pupil")
    pupil.send("NICK teacher")
    assert HOSTS_NAME % "teacher" in pupil.expect("Choose another.")
    pupil.send("NICK tina")
    pupil.expect(" NICK tina")


def test_host_who_has_a_registered_name_takes_no_other(kept, folder, host):
    zoe = log_in(guest(kept, "guest"), "zoe")
    zoe.send("NICK zoe", "OPER %s :%s" % (protocol.HOST_ACCOUNT, PASSWORD))
    zoe.expect(" 381 zoe :You are now an operator")
    assert "zoe" in {account.name for account in kept.server.store.accounts()}
    again = log_in(guest(kept, "other"), "zoe")
    again.send("NICK zoe")
    again.expect(" NICK zoe")


def test_host_gets_what_was_sent_in_the_absence_and_reads_private_talks(kept, host):
    pupil = guest(kept, "pupil")
    host.send("PRIVMSG pupil :before")
    pupil.expect("before")
    host.finish()
    pupil.expect("QUIT :Connection closed")
    pupil.send("PRIVMSG tina :a question")
    pupil.heard()
    back = kept.connect(IrcTalker)
    back.send("CAP REQ :sasl draft/chathistory batch", "NICK tina", "USER t 0 * t")
    back.send(*sasl(protocol.HOST_ACCOUNT), "CAP END")
    back.expect("[pupil -> you]: a question")
    back.send("CHATHISTORY LATEST pupil * 10")
    back.expect(":before")


def test_host_is_told_that_the_name_needs_no_password(kept, host):
    host.send("REGISTER * * :another-secret")
    host.expect("FAIL REGISTER ALREADY_AUTHENTICATED tina :tina is yours already.")


def test_host_can_log_in_after_the_name_was_registered_at_the_same_moment(folder):
    """By whom it was free for a moment before; the host's account is as at first then."""
    with contextlib.closing(server.Store(folder)) as store:
        store.add_account(protocol.HOST_ACCOUNT, PASSWORD, True)
        host, change = store.log_in(protocol.HOST_ACCOUNT, PASSWORD), store._change

        def change_late(query, *values):
            store._change = change
            assert store.name_host(host, "tina")
            return change(query, *values)

        store._change = change_late
        tina = store.add_account("tina", PASSWORD)
        assert store.account("tina") == tina == store.log_in("tina", PASSWORD)
        assert store.log_in(protocol.HOST_ACCOUNT, PASSWORD) == host


def test_login_of_the_host_is_one_labeled_answer(kept, host):
    """With the rights in channels, which are events for all others there."""
    pupil, host = kept.irc("pupil"), guest(kept, "window", "batch labeled-response")
    pupil.send("JOIN #tea")
    pupil.heard()
    host.send("JOIN #tea")
    host.heard()
    host.send("@label=x OPER %s :%s" % (protocol.HOST_ACCOUNT, PASSWORD))
    answer = [line for line in host.heard() if line.startswith("@")]
    assert answer[0] == "@label=x :hubbub.local BATCH +b1 :labeled-response"
    words = [line.split()[:3] for line in answer[1:]]
    assert [word[0] for word in words] == ["@batch=b1"] * len(words)
    assert sorted(word[2] for word in words) == ["381", "900", "MODE", "MODE"]


def test_whois_tells_of_an_owner_since_when_the_account_has_been(kept):
    """However late the owner has come; a new account proves nothing of the time before."""
    dora, bob = kept.irc("dora"), kept.irc("bob")

    def since():
        bob.send("WHOIS dora")
        (line,) = [line for line in bob.heard() if " 317 " in line]
        return int(line.split()[5])

    dora.send("REGISTER * * :" + PASSWORD)
    dora.heard()
    made = int(kept.server.store.account("dora").created)
    assert since() <= made
    dora.send("QUIT")
    kept.wait_until_gone(dora)
    while int(time.time()) == made:
        bob.heard()
    again = kept.irc("ann")
    again.send(*sasl("dora"), "NICK dora")
    again.heard()
    assert since() == made


@pytest.mark.parametrize(
    "command", ["REGISTER * * :" + PASSWORD, "OPER root :" + PASSWORD], ids=["new", "known"]
)
def test_account_takes_over_the_rooms_that_its_user_made_as_a_guest(kept, command):
    """They stay when the user leaves; the lobby and the rooms of others are not the user's."""
    zoe, bob = log_in(guest(kept, "zed"), "zoe"), guest(kept, "bob")
    zoe.send("JOIN #zoes")
    zoe.heard()
    bob.send("JOIN #zoes,#bobs", "TOPIC #bobs :Tea at four", "MODE #bobs +m")
    bob.heard()
    zoe.send("MODE #zoes +o bob", "JOIN #bobs")
    zoe.heard()
    bob.send(command)
    bob.heard()
    account = kept.client("bob").account.id
    rooms = kept.client("bob").channels
    assert [room.name for room in rooms if account in room.operators] == ["#bobs"]
    for talker in (bob, zoe):
        talker.send("PART #bobs")
        talker.heard()
    zoe.send("JOIN #bobs")
    heard = "\n".join(zoe.heard())
    assert "Tea at four" in heard and "@zed" not in heard
    bob.send("JOIN #bobs")
    assert any("@bob" in line for line in bob.heard())


# Chores while the server runs


@pytest.mark.parametrize(
    ("name", "act", "line"),
    [
        ("alice", lambda store: store.remove_account("alice"), ":You are now logged out"),
        ("root", lambda store: store.set_password("root", PASSWORD, False), " MODE bob :-o"),
    ],
    ids=["removed", "no operator any more"],
)
def test_a_chore_reaches_clients_that_are_logged_in(kept, folder, name, act, line):
    """Within seconds, though they do nothing."""
    bob = log_in(guest(kept, "bob"), name)
    bob.heard()
    chore(folder, act)
    assert bob.expect(line)
    assert not kept.client("bob").is_operator


def test_an_account_made_by_another_process_can_be_used_at_once(kept, folder):
    """A login does not wait until the server looks for changes."""
    bob = guest(kept, "bob")
    chore(folder, lambda store: store.add_account("newcomer", PASSWORD))
    log_in(bob, "newcomer")


# Restarts


@pytest.fixture
def start(folder, tmp_path):
    """Starts `python server.py` on the folder, as often as the test likes."""
    processes = []

    def start_():
        stderr = tmp_path / ("stderr%d" % len(processes))
        processes.append(Process(stderr, "--data", folder, "--rate-limit", "0"))
        return processes[-1]

    yield start_
    for process in processes:
        process.close()


def test_what_an_account_has_outlives_a_kill(start):
    """The account, its channel, what waits for it, and bans: all that was confirmed."""
    first = start()
    alice, bob = first.connect(IrcTalker).register("alice", CAPS), first.irc("bob")
    alice.send("REGISTER * * :" + PASSWORD)
    alice.expect(" 900 alice alice!alice@127.0.0.1 alice :You are now logged in as alice")
    alice.send("JOIN #tea", "MODE #tea +i", "TOPIC #tea :oolong", "QUIT")
    alice.rest()
    bob.send(*("PRIVMSG alice :text %d" % number for number in range(3)))
    bob.until("alice is offline; your message will be delivered")
    bob.heard()
    first.signal(signal.SIGKILL)
    first.wait()
    second = start()
    again = second.connect(IrcTalker)
    again.send("CAP REQ :sasl server-time", *sasl("alice"), "NICK alice", "USER a 0 * :A")
    again.send("CAP END")
    waited = again.until(" NOTICE alice :That was all.")
    said = [line.rpartition(" :")[2] for line in waited if " PRIVMSG alice :" in line]
    assert said == ["text 0", "text 1", "text 2"]
    again.send("JOIN #tea")
    again.expect(" 332 alice #tea :oolong")
    again.expect(" 353 alice = #tea :@alice")
    again.heard()
    second.signal(signal.SIGKILL)
    second.wait()
    third = start().connect(IrcTalker)
    third.send("CAP REQ :sasl", *sasl("alice"), "NICK alice", "USER a 0 * :A", "CAP END")
    assert not any(" PRIVMSG " in line for line in third.heard())  # delivered once


def test_bans_outlive_a_restart(kept, open_room, folder):
    root = guest(kept, "bob")
    root.send("OPER root :" + PASSWORD, "BAN mallory 1h :noise")
    root.expect("mallory is banned (1 hour).")
    kept.close()
    talker = open_room(data=folder).connect(IrcTalker)
    talker.send("NICK mallory", "USER m 0 * :m")
    assert any("banned" in line for line in talker.heard_or_rest())


# The topic of the lobby


def modes(talker):
    """Return the modes of the lobby, as MODE tells a user of IRC."""
    talker.send("MODE #lobby")
    return next(line.split(":")[-1] for line in talker.heard() if " 324 " in line)


def test_topic_of_the_lobby_is_for_operators(kept):
    """Where the server has one; other rooms are as they were."""
    bob, carol, root = guest(kept, "bob"), kept.plain("carol"), guest(kept, "root2")
    assert modes(bob) == "+nt"
    bob.send("TOPIC #lobby :mine")
    bob.expect(" 482 bob #lobby :You're not channel operator")
    carol.send("/topic mine")
    carol.expect("[SERVER]: Only operators of #lobby may do that.")
    root.send("OPER root :" + PASSWORD, "TOPIC #lobby :tests on Monday")
    carol.expect("[SERVER]: root2 set the topic: tests on Monday")
    bob.send("JOIN #den", "PART #lobby", "JOIN #tea", "TOPIC #tea :mine", "MODE #tea")
    bob.expect(" 324 bob #tea :+n")


def test_topic_of_the_lobby_is_for_everyone_where_nobody_operates(open_room, folder):
    """People with nc learn when that changes, at either end."""
    room = open_room(data=folder)
    bob, carol = guest(room, "bob"), room.plain("carol")
    carol.send("/topic mine")
    bob.expect(" TOPIC #lobby :mine")
    assert modes(bob) == "+n"
    for act, sign, words in (
        (lambda store: store.add_account("root", PASSWORD, True), "+", "lets only operators set"),
        (lambda store: store.add_account("zoe", PASSWORD, True), "", ""),
        (lambda store: store.remove_account("root"), "", ""),
        (lambda store: store.remove_account("zoe"), "-", "lets everyone in #lobby set"),
    ):
        chore(folder, act)
        room.wait_until_noticed()
        heard = [line for line in bob.heard() if " MODE #lobby " in line]
        assert [line[-2:] for line in heard] == [sign + "t"] * bool(sign)
        assert any("The server now " + words in line for line in carol.heard()) == bool(sign)
    carol.send("/topic ours")
    bob.expect(" TOPIC #lobby :ours")


@pytest.mark.parametrize("topic", ["", "tea"])
def test_operators_open_the_topic_of_the_lobby_for_good(kept, open_room, folder, topic):
    """Also if nobody has set one by the time that the lobby is empty, and after a restart."""
    root = guest(kept, "root2")
    root.send("OPER root :" + PASSWORD, "MODE #lobby -t", "TOPIC #lobby :" + topic, "QUIT")
    root.rest()
    assert modes(guest(kept, "bob")) == "+n"
    kept.close()
    again = open_room(data=folder)
    again.wait_until_noticed()
    assert modes(guest(again, "carol")) == "+n"


def test_topic_of_the_lobby_is_guarded_from_the_next_start_on(open_room, folder):
    """If the first operator is added while the server does not run."""
    room = open_room(data=folder)
    room.plain("carol").send("/topic mine")
    guest(room, "bob").heard()
    room.close()
    chore(folder, lambda store: store.add_account("root", PASSWORD, True))
    assert modes(guest(open_room(data=folder), "dave")) == "+nt"


# Sanctions


def test_operators_learn_of_each_other_s_sanctions(kept):
    """In a NOTE if they know it, else in a notice, as with nc; all others hear nothing."""
    boss, modern, old = guest(kept, "boss"), guest(kept, "modern"), kept.irc("old")
    plain, bob = kept.plain("plain"), guest(kept, "bob")
    for operator in (boss, modern, old):
        operator.send("OPER root :" + PASSWORD)
    plain.send("/login root " + PASSWORD)
    plain.expect("plain is now called root")
    for line, words, text in (
        ("MUTE zed 10m", "MUTE DONE zed 600", "zed is muted (10 minutes)."),
        ("BAN 0::1 1h :noise", "BAN DONE 0::1 3600", "::1 is banned (1 hour)."),
        ("UNBAN zed", "UNBAN DONE zed", "zed may write again."),
    ):
        for talker in (boss, modern, old, plain, bob):
            talker.heard()
        boss.send(line)
        note = ":hubbub.local NOTE %s :" % words
        assert [line.partition(" ")[2] for line in boss.heard()] == [note + text]
        modern.expect(note + "By boss: " + text)
        old.expect(":hubbub.local NOTICE old :By boss: " + text)
        plain.expect("[SERVER]: By boss: " + text)
        assert bob.heard() == []
