"""The limits and the store alone: history, accounts, channels, sanctions, faults of the disk."""

import contextlib
import hashlib
import hmac
import os
import shlex
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import server
from server import Row, Sanction, Store, StoreError

PASSWORD = "correct horse"
ROOT = Path(server.__file__).parent
END = 1 << 62  # above the number of every message

needs_scrypt = pytest.mark.skipif(not hasattr(hashlib, "scrypt"), reason="this Python lacks scrypt")


@pytest.fixture(autouse=True)
def cheap_passwords(monkeypatch):
    monkeypatch.setattr(server, "SCRYPT", (16, 8, 1))


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def open_store(folder):
    """Opens stores, by default on the folder of the test, and closes them."""
    with contextlib.ExitStack() as stack:

        def open_(where=folder, **options):
            store = Store(str(where), **options)
            stack.callback(store.close)
            return store

        yield open_


@pytest.fixture
def store(open_store):
    return open_store()


def row(number, text="x", to="alice bob", command="PRIVMSG", at=None, waiting_for=0):
    line = (":alice!a@h %s bob :%s" % (command, text)).encode()
    return Row(number, time.time() if at is None else at, to, command, line, waiting_for)


def numbers(rows):
    return [found.number for found in rows]


def query(folder, text, *values):
    """Run SQL on the file, without the store."""
    with contextlib.closing(sqlite3.connect(str(folder / server.STORE_FILE))) as file:
        found = file.execute(text, values).fetchall()
        file.commit()
        return found


def python(code, *args):
    """Start another Python that has imported `server`, with cheap passwords."""
    code = "import sys, server\nfrom server import *\nserver.SCRYPT = (16, 8, 1)\n" + code
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.Popen(command, cwd=str(ROOT), stdout=subprocess.PIPE)


def run(code, *args):
    """Return the words that another Python prints."""
    process = python(code, *args)
    printed = process.communicate()[0].decode()
    assert process.returncode == 0
    return printed.split()


# Limits


def test_a_bucket_holds_its_burst_and_gains_its_rate():
    bucket = server.Bucket(10.0, 100.0)
    assert [bucket.charge(1, 50.0) for _ in range(100)] == [0.0] * 100
    assert bucket.charge(1, 50.0) == pytest.approx(0.1)
    assert bucket.charge(19, 50.0) == pytest.approx(2.0)
    assert bucket.charge(0, 51.0) == pytest.approx(1.0)
    bucket.charge(-10, 51.0)
    assert bucket.charge(0, 51.0) == 0.0
    assert bucket.charge(0, 49.0) == 0.0  # a clock that goes back gives nothing
    bucket.charge(-1000, 51.0)
    assert bucket.balance(51.0) == 100.0
    assert bucket.charge(101, 1000.0) == pytest.approx(0.1)


def test_a_rate_of_0_is_no_limit():
    assert server.Bucket(0, 0).charge(1e9, 1.0) == 0.0
    limiter = server.Limiter(0, 0)
    assert [limiter.try_take("a", 1.0) for _ in range(10)] == [0.0] * 10


def test_a_limiter_has_a_bucket_for_each_key():
    """A refused attempt costs nothing, an attempt that is refunded neither."""
    limiter = server.Limiter(0.1, 5)

    def take(key, now, times):
        return [pytest.approx(limiter.try_take(key, now)) for _ in range(times)]

    assert take("a", 100.0, 7) == [0.0] * 5 + [10.0] * 2
    assert take("b", 100.0, 1) == [0.0]
    assert take("a", 107.5, 1) == [2.5]
    assert take("a", 110.0, 2) == [0.0, 10.0]
    for _ in range(50):
        assert take("c", 110.0, 1) == [0.0]
        limiter.charge("c", -1.0, 110.0)
    assert take("c", 110.0, 6) == [0.0] * 5 + [10.0]
    assert take("a", 1000.0, 6) == [0.0] * 5 + [10.0]


def test_turns_are_fair():
    """Who wants less and was served less comes first; nobody takes what others wait for."""
    limiter = server.Limiter(10, 100)

    def ask(*requests, at):
        return [limiter.try_turn("a", client, tokens, at) for client, tokens in requests]

    class Client:
        pass

    honest, greedy, other = Client(), Client(), Client()
    assert ask((greedy, 100), at=0.0) == [0.0]
    assert ask((greedy, 50), (other, 50), (honest, 1), at=0.0) == [5.0, 5.0, pytest.approx(0.1)]
    assert ask((greedy, 50), (honest, 1), at=5.0) == [pytest.approx(0.1), 0.0]
    assert ask((greedy, 50), at=5.1) == [0.0]
    assert ask((greedy, 50), (other, 50), at=5.1) == [10.0, 5.0]  # others are served first
    limiter.leave("a", other)
    assert ask((greedy, 50), at=10.1) == [0.0]
    assert limiter._queues == {}
    assert ask((greedy, 1000), at=30.0) == [0.0]  # more than there will ever be takes all
    assert ask((greedy, 1), at=30.0) == [pytest.approx(0.1)]


def test_a_limiter_forgets_the_keys_with_the_highest_balances(monkeypatch):
    """A peer with many addresses cannot wipe out its debts."""
    monkeypatch.setattr(server, "MAX_KEYS", 100)
    limiter = server.Limiter(0.1, 5)
    for _ in range(5):
        limiter.try_take("a", 0.0)
    for number in range(1000):
        assert limiter.try_take("other%d" % number, 0.0) == 0.0
        assert len(limiter._buckets) <= 100
    assert limiter.try_take("a", 0.0) == pytest.approx(10.0)


# History


def test_messages_are_read_by_conversation_number_and_kind(store):
    events = [row(n, command="JOIN", to="#lobby") for n in range(1, 100)]
    texts = [row(n, command="NOTICE", to="#lobby") for n in (10, 20, 30, 200)]
    events = [event for event in events if event.number not in (10, 20, 30)]
    store.append(events + texts + [row(15), row(500, to="#tea")])
    read = store.read
    assert read("#lobby", 0, END, 10, latest=True) == texts
    assert numbers(read("#lobby", 10, 200, 10, latest=True)) == [20, 30]
    assert numbers(read("#lobby", 0, END, 2, latest=True)) == [30, 200]
    assert numbers(read("#lobby", 0, END, 2, latest=False)) == [10, 20]
    assert numbers(read("#lobby", 0, END, 3, True, with_events=True)) == [98, 99, 200]
    assert numbers(read("#lobby", 8, END, 3, False, with_events=True)) == [9, 10, 11]
    assert len(read("#lobby", 0, END, 1000, False, with_events=True)) == 100
    assert read("#lobby", 0, END, 0, latest=True) == read("#none", 0, END, 9, True) == []
    assert numbers(read("alice bob", 0, END, 9, latest=True)) == [15]


@pytest.mark.parametrize("latest", [True, False])
@pytest.mark.parametrize("with_events", [True, False])
def test_reading_is_a_search_and_never_a_scan_or_a_sort(store, folder, latest, with_events):
    """Messages are found in the B-tree in which they are stored."""
    asked = []
    store._reader.run(lambda reader: reader.set_trace_callback(asked.append))
    store.read("#lobby", 1, 100, 5, latest, with_events)
    store.correspondents("alice", 0, END)
    store.waiting(1)
    store.waiting_count(1)
    asked = [statement for statement in asked if "SELECT" in statement]
    plans = [query(folder, "EXPLAIN QUERY PLAN " + statement) for statement in asked]
    assert len(plans) == 4 + with_events
    assert not any("SCAN" in str(plan) or "TEMP" in str(plan) for plan in plans)


def test_many_rows_are_stored_by_an_append(store, open_store):
    """More than a statement takes; again, they change nothing; and a restart finds them."""
    rows = [row(n, "text %d" % n, to="#%d" % (n % 7)) for n in range(1, 1001)]
    store.append(rows)
    store.append(rows[500:])
    store.append([])
    assert store.read("#3", 0, END, 1000, latest=False) == [
        r for r in rows if r.conversation == "#3"
    ]
    store.close()
    again = open_store()
    assert again.last_number() == 1000
    assert len(again.read("#3", 0, END, 1000, latest=False)) == 143


def test_correspondents_are_those_of_the_last_message_between_two_numbers(store):
    """Account owners (=1), guests, and the owner of the notes to themselves."""
    store.append([row(1, at=0), row(3, to="=1 bob", at=9), row(5, to="=1 bob", at=4.5)])
    store.append([row(7, to="bob carol", at=0), row(9, to="bob bob", at=0)])
    store.append([row(11, to="#bob"), row(13, to="alice carol")])

    def found(owner, after=0, before=END):
        return sorted(store.correspondents(owner, after, before))

    assert found("bob") == [("=1", 5, 4.5), ("alice", 1, 0), ("bob", 9, 0), ("carol", 7, 0)]
    assert found("bob", 1, 9) == [("=1", 5, 4.5), ("carol", 7, 0)]
    assert found("=1") == [("bob", 5, 4.5)]
    assert found("mallory") == []


def test_a_message_waits_until_it_is_delivered(store, open_store):
    """Oldest first, for its account alone; it stays in the history afterwards."""
    rows = [row(3, waiting_for=7), row(1, waiting_for=7), row(2), row(4, waiting_for=8)]
    store.append(rows)
    assert store.waiting(7) == [rows[1], rows[0]] == store.waiting(7)
    assert [store.waiting_count(account) for account in (7, 8, 9)] == [2, 1, 0]
    store.forget_waiting(7, 1)
    assert store.waiting(7) == [rows[0]]
    store.close()
    again = open_store()
    again.forget_waiting(7, 3)
    assert again.waiting(7) == [] and again.waiting_count(8) == 1
    assert len(again.read("alice bob", 0, END, 9, latest=True)) == 4


def test_so_many_waiting_messages_are_given_at_once(store):
    store.append([row(n, waiting_for=7) for n in range(1, server.MAX_WAITING + 3)])
    assert numbers(store.waiting(7)) == list(range(1, server.MAX_WAITING + 1))
    store.forget_waiting(7, server.MAX_WAITING)
    assert store.waiting_count(7) == 2


def clean(store):
    """Clean in steps until nothing is left to do; return their number."""
    for step in range(1, 1000):
        if not store.clean():
            return step
    raise AssertionError("cleaning never ends")


def test_old_messages_are_deleted_in_steps(open_store, folder, monkeypatch):
    """With what waits, and after a restart with conversations of which nothing is left."""
    monkeypatch.setattr(server, "CLEANED_AT_ONCE", 10)
    store, now, old = open_store(history_days=1), 10**9, time.time() - 90000
    store.append([row(n, to="#lobby", at=old) for n in range(35)])
    store.append([row(n, to="#lobby", at=old, command="JOIN") for n in range(35, 50)])
    store.append([row(n, to="alice n%d" % n, at=old, waiting_for=n) for n in range(60, 70)])
    store.append([row(now + n, to="#lobby") for n in range(10)])
    store.append([row(now + 80, waiting_for=69)])
    assert clean(store) == 7
    kept = store.read("#lobby", 0, END, 99, True, with_events=True)
    assert numbers(kept) == list(range(now, now + 10))
    assert [pair[:2] for pair in store.correspondents("alice", 0, END)] == [("bob", now + 80)]
    assert numbers(store.waiting(69)) == [now + 80] and store.waiting_count(61) == 0
    store.close()
    store = open_store(history_days=1)
    tables = ("messages", "conversations")
    assert [query(folder, "SELECT COUNT(*) FROM " + table) for table in tables] == [[(11,)], [(3,)]]
    store.append([row(now + 90, to="alice n61")])  # it begins anew
    assert "n61" in [pair[0] for pair in store.correspondents("alice", 0, END)]
    assert clean(store) == 1


def test_without_history_days_nothing_is_too_old(store):
    store.append([row(1)])
    assert clean(store) == 1
    assert numbers(store.read("alice bob", 0, END, 9, latest=True)) == [1]


@pytest.mark.parametrize(
    ("ages", "left"),
    [
        ((40, 35, 20, 0), 2),
        ((40, -3650, 35, 0), 2),  # the clock was ten years ahead, or is ten years behind
        ((40, 20000, 35, 0), 1),  # it was in 1970
        ((40, 29, 35, 0), 3),  # an hour or a day wrong: oldest first
        ((-1, 40, 0), 2),
    ],
)
def test_a_wrong_clock_deletes_no_message_of_the_future(open_store, ages, left):
    """Nor does it delete those of now: the first that is young enough ends the search."""
    store = open_store(history_days=30)
    store.append([row(n, at=time.time() - age * 86400) for n, age in enumerate(ages, 1)])
    assert clean(store) == 1
    assert len(store.read("alice bob", 0, END, 9, latest=True)) == left


def test_the_oldest_messages_go_when_there_are_too_many(open_store, folder, caplog):
    """Of all conversations in turn, in small steps; the log says so a single time."""
    store = open_store(max_history=1)
    rows = [row(n, "x" * 400, to="#%d" % (n % 3), at=n) for n in range(1, 9001)]
    store.append(rows)
    assert clean(store) > 5
    kept = [found for n in range(3) for found in store.read("#%d" % n, 0, END, 9999, False)]
    kept = sorted(numbers(kept))
    assert kept == list(range(kept[0], 9001)) and 1300 < len(kept) < 2300
    store.append([row(n, "x" * 400, to="#%d" % (n % 3)) for n in range(9001, 12001)])
    assert clean(store) > 5
    assert (folder / server.STORE_FILE).stat().st_size < 6 << 20  # the space is used again
    assert [text for text in caplog.messages if "--max-history" in text] == [
        "the history is full (--max-history): the oldest messages are deleted"
    ]


@pytest.mark.parametrize("clock", [(0, 1, 1, 3), (0, 10**8, 10**8, 0, 1, 1, 3)])
def test_a_time_is_found_though_the_clock_was_wrong_once(store, clock):
    """Numbers say nothing of it: here it was three years ahead."""
    store.append([row(n, at=100 + second + 0.0004) for n, second in enumerate(clock, 10)])
    first = 10 + len(clock) - 3
    assert store.span(101.0) == (first, first + 1)
    assert store.span(102.0) == (first + 2, first + 1)
    assert store.span(104.0) == (first + 3, first + 2)
    assert store.span(7) == (7, 7)


# Channels


def test_a_channel_is_remembered_until_it_is_deleted(store, open_store, folder):
    """With its history, which a later channel of that name does not show, or without."""
    state = {"name": "#Tea", "topic": "caf\u00e9 \U0001f600", "bans": ["a", 1.5], "limit": None}
    store.save_channel("#tea", {"old": True})
    store.save_channel("#tea", state)
    store.save_channel("#empty", {})
    store.append([row(n, to="#tea") for n in range(1, 50)] + [row(50, to="#empty")])
    store.close()
    again = open_store()
    assert again.channels() == [{}, state]
    again.append([row(51, to="#tea")])
    again.delete_channel("#tea")
    assert again.channels() == [{}]
    assert len(again.read("#tea", 0, END, 99, latest=True)) == 50
    for _ in range(2):
        again.delete_channel("#tea", since=0)
        assert again.read("#tea", 0, END, 99, latest=True) == []
    again.append([row(60, to="#tea")])
    assert numbers(again.read("#tea", 0, END, 99, latest=True)) == [60]
    assert query(folder, "SELECT COUNT(*) FROM messages") == [(2,)]


def test_a_large_room_is_deleted_in_steps_and_is_unreadable_at_once(
    open_store, folder, monkeypatch
):
    """Also for who opens the file after a kill; what is said in a new room of that name stays."""
    monkeypatch.setattr(server, "CLEANED_AT_ONCE", 10)
    store = open_store()
    store.append([row(number, to="#tea") for number in range(1, 51)])
    store.append([row(51, to="#cake")])
    store.delete_channel("#tea", since=6)
    store.append([row(52, to="#tea")])

    def left():
        return query(folder, "SELECT COUNT(*) FROM messages WHERE key = '#tea'")[0][0]

    sizes = [left()]
    for number in range(10):
        reader = server.Store(str(folder), claim=False) if number == 1 else store
        shown = numbers(reader.read("#tea", 0, END, 99, latest=True))
        assert shown == ([52] if query(folder, "SELECT * FROM deletions") else [1, 2, 3, 4, 5, 52])
        if reader is not store:
            reader.close()
        store.clean()
        sizes.append(left())
    assert sizes == [41, 31, 21, 11, 6, *[6] * 6]
    assert not store.clean()
    assert numbers(store.read("#cake", 0, END, 99, latest=True)) == [51]


@needs_scrypt
def test_a_removed_account_leaves_nothing_after_a_kill(open_store, folder, monkeypatch):
    monkeypatch.setattr(server, "CLEANED_AT_ONCE", 10)
    store = open_store()
    alice = store.add_account("alice", PASSWORD)
    store.append([row(number, to="=%d bob" % alice.id) for number in range(1, 51)])
    store.remove_account("alice")
    store.close()
    again = open_store()
    assert again.account("alice") is None
    while again.clean():
        pass
    assert query(folder, "SELECT COUNT(*) FROM messages") == [(0,)]


def test_a_channel_that_cannot_be_understood_is_skipped(store, folder):
    store.save_channel("#tea", {"topic": "tea"})
    query(folder, "INSERT INTO channels VALUES ('#a', 'oops')")
    assert store.channels() == [{"topic": "tea"}]


# Sanctions


@pytest.mark.parametrize(
    ("until", "now", "words"),
    [
        (0.0, 1000, "muted, by root: noise"),
        (600.0, 0, "muted for 10 minutes, by root: noise"),
        (600.0, 1, "muted for 10 minutes, by root: noise"),
        (600.0, 61, "muted for 9 more minutes, by root: noise"),
        (600.0, 590, "muted for 10 more seconds, by root: noise"),
        (7200.0, 3600, "muted for 1 more hour, by root: noise"),
    ],
)
def test_sanction_says_how_long_it_still_lasts(until, now, words):
    assert Sanction("mute", "bob", until, "noise", "root", 0.0).describe(now, "root") == words


def test_sanctions_are_in_force_until_they_expire_or_are_removed(store, open_store, folder):
    """A target has at most one of a kind; expired sanctions are deleted by the next."""
    now = time.time()
    expired = Sanction("ban", "carol", now - 1, "", "alice", now - 1)
    ban = Sanction("ban", "10.0.0.0/8", 0.0, "noise", "alice", now)
    mute = Sanction("mute", "bob", now + 3600, "", "alice", now - 2)
    given = [expired, ban._replace(reason="older"), ban, mute, mute._replace(kind="ban")]
    for sanction in [*given, expired._replace(target="dave")]:
        store.add_sanction(sanction)
    kept = (mute._replace(kind="ban"), mute, ban)
    assert store.sanctions == kept
    assert query(folder, "SELECT COUNT(*) FROM sanctions") == [(4,)]  # with the last, not carol's
    store.close()
    again = open_store()
    assert again.sanctions == kept
    assert again.find_sanction("mute", ["ally", "bob"], "192.0.2.1") == mute
    assert again.find_sanction("mute", ["alice"], "10.1.2.3") is None
    assert again.find_sanction("ban", ["alice"], "10.1.2.3") == ban
    targets = ("Bob", "bob", "10.9.9.9/8")
    kinds = [again.remove_sanctions(target) for target in targets]
    assert kinds == [["ban", "mute"], [], ["ban"]]
    assert again.sanctions == ()


# Accounts


@needs_scrypt
def test_an_account_is_entered_with_its_password_alone(store, open_store):
    """The case of the name does not matter, nor how the password's letters are composed."""
    made = store.add_account("Zo\u00eb", "pass\u00e9word", is_operator=True)
    store.close()
    again = open_store()
    assert made == again.account("zo\u00eb") == again.log_in("ZO\u00cb", "passe\u0301word")
    assert made.name == "Zo\u00eb" and made.is_operator and abs(made.created - time.time()) < 60
    wrong = ("passeword", "PASS\u00c9WORD", "pass\u00e9word ", "", "x" * 5000, "\ud800" * 9)
    for password in wrong:
        assert again.log_in("zo\u00eb", password) is None
    assert again.log_in("bob", "pass\u00e9word") is again.account("bob") is None
    assert again.accounts() == [made]


@needs_scrypt
def test_a_name_has_one_account(store):
    store.add_account("alice", PASSWORD)
    with pytest.raises(server.AccountExistsError, match="ALICE has an account already"):
        store.add_account("ALICE", "another password")
    assert store.log_in("alice", PASSWORD)


@needs_scrypt
def test_a_password_and_the_rights_can_be_changed(store):
    assert not store.set_password("alice", PASSWORD, is_operator=True)
    store.add_account("alice", PASSWORD, is_operator=True)
    assert store.set_password("Alice", "another password", is_operator=True)
    assert store.log_in("alice", PASSWORD) is None
    assert store.log_in("alice", "another password").is_operator
    assert store.set_password("alice", "another password", is_operator=False)
    assert not store.account("alice").is_operator


@needs_scrypt
def test_a_deleted_account_leaves_nothing_to_a_later_one_of_that_name(store):
    """It has another id, under which nothing waits."""
    old = store.add_account("alice", PASSWORD)
    bob = store.add_account("bob", PASSWORD)
    store.append([row(1, waiting_for=old.id), row(2, waiting_for=bob.id)])
    assert store.remove_account("ALICE") and not store.remove_account("alice")
    assert store.account("alice") is store.log_in("alice", PASSWORD) is None
    assert store.waiting_count(bob.id) == 1 and store.remove_account("bob")
    assert store.waiting_count(bob.id) == 1  # guests said that
    assert store.add_account("alice", PASSWORD).id > bob.id > old.id


@needs_scrypt
def test_the_private_history_of_an_account_goes_with_it(store, folder):
    """Nobody could read it any more; that of others stays."""
    old, bob = store.add_account("alice", PASSWORD), store.add_account("bob", PASSWORD)
    names = ["=%d =%d" % (old.id, bob.id), "=%d carol" % old.id, "=%d carol" % bob.id, "#lobby"]
    store.append([row(n, to=name, waiting_for=old.id) for n, name in enumerate(names, 1)])
    store.remove_account("alice")
    while store.clean():
        pass
    kept = query(folder, "SELECT DISTINCT key FROM messages ORDER BY 1")
    assert [key for (key,) in kept] == sorted(names[2:])
    store.append([row(9, to=names[2])])
    assert store.correspondents("carol", 0, END)[0][:2] == ("=%d" % bob.id, 9)


@needs_scrypt
@pytest.mark.parametrize("password", ["1234567", "e\u0301" * 7, "x" * 301, "\u00e9" * 151], ids=len)
def test_a_password_that_is_not_allowed_is_refused(store, password):
    """The text says why; nothing is made or changed."""
    store.add_account("alice", PASSWORD)
    for ask, name in ((store.add_account, "bob"), (store.set_password, "alice")):
        with pytest.raises(StoreError, match=r"at least 8|300 bytes at most"):
            ask(name, password, True)
    assert store.accounts() == [store.log_in("alice", PASSWORD)]


@needs_scrypt
def test_the_time_of_a_login_does_not_tell_whether_there_is_an_account(store, monkeypatch):
    """The same hash and comparison are done for every name and password."""
    monkeypatch.undo()
    store.add_account("alice", PASSWORD)
    done, scrypt, compare = [], hashlib.scrypt, hmac.compare_digest

    def count_scrypt(data, salt, **cost):
        done.append((len(salt), cost))
        return scrypt(data, salt=salt, **cost)

    def count_compare(*digests):
        done.append([len(digest) for digest in digests])
        return compare(*digests)

    monkeypatch.setattr(hashlib, "scrypt", count_scrypt)
    monkeypatch.setattr(hmac, "compare_digest", count_compare)
    right = ("alice", PASSWORD)
    for tried in (right, ("alice", "wrong"), ("bob", PASSWORD), ("", ""), ("alice", "x" * 400)):
        assert bool(store.log_in(*tried)) == (tried == right)
        cost = {"dklen": 32, "maxmem": 2**25, "n": 2**14, "p": 1, "r": 8}
        assert done == [(16, cost), [32, 32]]
        done.clear()


@needs_scrypt
def test_two_passwords_are_hashed_at_a_time(store, monkeypatch):
    """Each takes 16 MiB: a crowd that logs in waits its turn."""
    store.add_account("alice", PASSWORD)
    scrypt, pair, busy, most, found = hashlib.scrypt, threading.Barrier(2, timeout=20), [], [], []

    def slow_scrypt(data, **cost):
        busy.append(data)
        most.append(len(busy))
        pair.wait()  # there are always two
        busy.pop()
        return scrypt(data, **cost)

    monkeypatch.setattr(hashlib, "scrypt", slow_scrypt)
    log_in = lambda: found.append(store.log_in("alice", PASSWORD))  # noqa: E731
    threads = [threading.Thread(target=log_in) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 2 and len(found) == 8 and all(found)


@needs_scrypt
def test_passwords_that_wait_while_the_store_closes_are_not_hashed(store):
    """The end of the server does not wait for a crowd that logs in."""
    store._is_closed = True
    with pytest.raises(StoreError, match="shutting down"):
        store.log_in("alice", PASSWORD)


@needs_scrypt
def test_a_stored_password_is_salted(store, folder):
    """The same password looks different each time, and stands nowhere in the files."""
    for name in ("alice", "bob"):
        store.add_account(name, PASSWORD)
    (salt, digest), (other_salt, other) = query(folder, "SELECT salt, digest FROM accounts")
    assert len(salt) == 16 and len(digest) == 32
    assert salt != other_salt and digest != other
    store.close()
    for path in folder.iterdir():
        assert PASSWORD.encode() not in path.read_bytes()


def test_without_scrypt_there_are_no_accounts(store, monkeypatch, folder, open_store):
    """A Python that lacks it says so; names that have an account keep it."""
    values = "(5, 'alice', 'alice', 0, 1.0, x'00', x'00')"
    query(folder, "INSERT INTO accounts VALUES " + values)
    store.close()
    monkeypatch.delattr(hashlib, "scrypt", raising=False)
    again = open_store()
    assert again.keeps_history and not again.has_accounts
    assert again.account("alice").id == 5
    for ask in (again.log_in, again.add_account):
        with pytest.raises(StoreError, match="Python has no scrypt"):
            ask("bob", PASSWORD)


# Without a folder


def test_without_a_folder_nothing_outlives_the_store(open_store):
    store = open_store("")
    assert not store.keeps_history and not store.has_accounts
    store.save_channel("#tea", {"topic": "tea"})
    store.add_sanction(Sanction("ban", "bob", 0.0, "", "alice", 1.0))
    assert store.channels() == [{"topic": "tea"}]
    assert len(store.sanctions) == 1
    assert store.account("alice") is None and store.accounts() == []
    assert store.size() == store.last_number() == 0
    assert open_store("").channels() == []


# Other processes

OPEN = "store = Store(sys.argv[1], claim=False)\n"


@needs_scrypt
def test_accounts_that_another_process_changes_are_noticed(store, folder):
    """By the next look for changes; a login always uses the present password."""
    assert not store.accounts_changed()
    run(OPEN + "store.add_account('alice', sys.argv[2], True)", folder, PASSWORD)
    assert store.log_in("alice", PASSWORD)
    assert store.accounts_changed() and not store.accounts_changed()
    assert store.account("alice").is_operator
    run(OPEN + "store.set_password('alice', 'another one', False)", folder)
    assert store.log_in("alice", PASSWORD) is None
    assert store.accounts_changed() and not store.account("alice").is_operator
    run(OPEN + "store.remove_account('alice')", folder)
    assert store.accounts_changed() and store.account("alice") is None


def test_a_file_that_another_process_is_creating_is_waited_for(folder, open_store):
    folder.mkdir()
    file = sqlite3.connect(str(folder / server.STORE_FILE), check_same_thread=False)
    with contextlib.closing(file) as other:
        other.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(0.3, other.rollback)
        timer.start()
        assert open_store().channels() == []
        timer.join()


def test_cleaning_goes_on_while_another_process_writes(store, folder):
    code = OPEN + (
        "print('ready', flush=True)\nwhile True:\n    store.save_channel('#noise', {})\n"
    )
    store.append([row(number, to="#tea") for number in range(1, 20001)])
    process = python(code, folder)
    try:
        assert process.stdout.readline().strip() == b"ready"
        store.delete_channel("#tea", 1)
        while store.clean():
            pass
    finally:
        process.kill()
        process.communicate()
    assert query(folder, "SELECT COUNT(*) FROM messages") == [(0,)]


@needs_scrypt
def test_many_processes_create_the_file_and_accounts_at_once(folder, open_store):
    code = OPEN + (
        "for number in range(10):\n"
        "    store.add_account('%s%d' % (sys.argv[2], number), 'password')\n"
        "try:\n"
        "    store.add_account('same', 'password')\n"
        "    print('mine')\n"
        "except AccountExistsError:\n"
        "    print('taken')\n"
    )
    processes = [python(code, folder, name) for name in "abcd"]
    said = [process.communicate()[0].decode().strip() for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    assert sorted(said) == ["mine", "taken", "taken", "taken"]
    expected = sorted(["%s%d" % (name, n) for name in "abcd" for n in range(10)] + ["same"])
    assert [account.name for account in open_store().accounts()] == expected


def test_a_process_that_opens_and_closes_the_file_loses_nothing(store, folder):
    number = 0
    for _ in range(3):
        process = python(OPEN + "store.close()\nprint('done')", folder)
        while process.poll() is None:
            number += 1
            store.append([row(number)])
        assert process.communicate()[0].split() == [b"done"]
    store.close()
    assert query(folder, "SELECT COUNT(*) FROM messages") == [(number,)]
    assert query(folder, "PRAGMA integrity_check") == [("ok",)]


def test_a_folder_has_one_server(store, folder, open_store):
    """A second server is told which folder, and what to do; account chores may use it."""
    with pytest.raises(StoreError) as refusal:
        Store(str(folder))
    assert str(folder) in str(refusal.value) and "--data FOLDER" in str(refusal.value)
    open_store(claim=False)
    store.close()
    open_store()


def test_a_process_that_asks_for_the_server_does_not_stop_its_start(folder, open_store):
    folder.mkdir()
    look = server._claim_folder(str(folder))
    timer = threading.Timer(0.05, look.close)
    timer.start()
    open_store()
    timer.join()


def test_stored_rows_outlive_kill(folder, open_store):
    """Again and again, in the middle of it."""
    code = (
        "store = Store(sys.argv[1])\n"
        "for number in range(int(sys.argv[2]), 10 ** 9):\n"
        "    store.append([Row(number, 1.0, '#lobby', 'PRIVMSG', b'x')] )\n"
        "    store.save_channel('#%d' % number, {'number': number})\n"
        "    store.add_sanction(Sanction('ban', str(number), 0.0, '', '', 1.0))\n"
        "    print(number, flush=True)\n"
    )
    done = set()
    for turn in range(4):
        process = python(code, folder, turn * 10000)
        done |= {int(process.stdout.readline()) for _ in range(20 + 30 * turn)}
        process.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
        done |= set(map(int, process.communicate()[0].split(b"\n")[:-1]))
    store = open_store()
    assert done <= set(numbers(store.read("#lobby", -1, END, 10**6, latest=True)))
    assert done <= {channel["number"] for channel in store.channels()}
    assert done <= {int(sanction.target) for sanction in store.sanctions}
    assert store.last_number() >= max(done)
    assert query(folder, "PRAGMA integrity_check") == [("ok",)]


# Faults of the disk


def refused(ask, *args):
    """Return what users are told when the disk fails: a sentence without SQL."""
    with pytest.raises(StoreError) as refusal:
        ask(*args)
    text = str(refusal.value)
    assert text.startswith("The server cannot use its disk: ") and text.endswith(".")
    assert "\n" not in text and "INSERT" not in text and "sqlite" not in text.lower()
    return text


def test_a_file_that_is_locked_is_waited_for_and_can_be_read(store, folder, monkeypatch):
    monkeypatch.setattr(server, "DISK_TIMEOUT", 0.05)
    store._writer.close()
    with contextlib.closing(sqlite3.connect(str(folder / server.STORE_FILE))) as other:
        other.execute("BEGIN IMMEDIATE")
        for _ in range(2):
            assert "locked" in refused(store.append, [row(1)])
        assert store.channels() == [] == store.read("alice bob", 0, END, 9, True)
        other.rollback()
    store.append([row(1)])
    assert numbers(store.read("alice bob", 0, END, 9, True)) == [1]


@pytest.mark.parametrize("name", ["_writer", "_reader"])
def test_a_disk_that_does_not_answer_is_not_waited_for_long(store, monkeypatch, name):
    """What is asked for is refused: soon at first, then at once; the other handle works."""
    monkeypatch.setattr(server, "DISK_TIMEOUT", 0.05)
    inside, may_go = threading.Event(), threading.Event()

    def hang(connection):
        inside.set()
        may_go.wait(20)

    def ask():
        with contextlib.suppress(StoreError):
            getattr(store, name).run(hang)

    thread = threading.Thread(target=ask)
    thread.start()
    inside.wait(20)
    writes, reads = lambda: store.save_channel("#tea", {}), lambda: store.channels()
    for _ in range(2):
        assert "does not answer" in refused(writes if name == "_writer" else reads)
    if name == "_writer":
        assert store.channels() == []
    else:
        writes()
        thread.join(20)
        assert not thread.is_alive()  # the first does not wait either
    may_go.set()
    thread.join()
    writes()
    monkeypatch.undo()
    while server.time.monotonic() and store._reader._busy_since:
        pass
    assert store.channels() == [{}]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs here")
def test_a_fifo_in_place_of_the_file_stops_the_start(folder):
    """With an error: nothing waits for it to answer."""
    folder.mkdir()
    os.mkfifo(str(folder / server.STORE_FILE))
    with pytest.raises(StoreError, match="cannot use "):
        Store(str(folder))


@pytest.mark.skipif(os.name != "posix", reason="modes are of POSIX")
@pytest.mark.parametrize("mode, is_warned", [(0o700, False), (0o750, True), (0o701, True)])
def test_a_folder_that_others_can_read_gets_a_warning(folder, open_store, caplog, mode, is_warned):
    folder.mkdir()
    folder.chmod(mode)
    open_store()
    assert any("chmod 700" in text for text in caplog.messages) == is_warned


def test_after_a_fault_the_file_is_opened_again(store):
    """A transaction that could not even be ended does not stand in the way."""
    refused(store._writer.run, lambda writer: writer.close())
    store.append([row(1)])
    assert numbers(store.read("alice bob", 0, END, 9, True)) == [1]


def test_a_store_that_cannot_be_created_is_tried_again(folder, open_store):
    """There is nothing to lose: the chat starts, and nothing is kept until it can be."""
    folder.write_text("in the way")
    store = open_store()
    server.log.handlers[-1].texts.clear()  # it is in the log
    assert store.account("alice") is None and store.sanctions == ()
    refused(store.append, [row(1)])
    refused(store.channels)
    refused(store.read, "alice bob", 0, END, 9, True)
    assert store.last_number() == 0
    with pytest.raises(StoreError):
        Store(str(folder), claim=False)
    folder.unlink()
    store.append([row(1)])
    assert numbers(store.read("alice bob", 0, END, 9, True)) == [1]


def test_a_delivery_that_cannot_be_noted_is_repeated(store, folder, tmp_path):
    store.append([row(1, waiting_for=7)])
    store._writer.close()
    folder.rename(tmp_path / "elsewhere")
    folder.write_text("in the way")
    store.forget_waiting(7, 1)
    folder.unlink()
    (tmp_path / "elsewhere").rename(folder)
    assert numbers(store.waiting(7)) == [1]


@pytest.fixture
def disk(folder):
    """A small disk mounted on the folder; a function that mounts it differently."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    if not is_root or subprocess.run(mount, stderr=subprocess.DEVNULL, check=False).returncode:
        pytest.skip("no tmpfs can be mounted here")
    yield lambda how: subprocess.run(["mount", "-o", "remount,%s" % how, str(folder)], check=True)
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(path):
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 4096):
            pass


def test_a_full_disk_is_refused_until_there_is_room(disk, store, folder):
    """Rows in the file can be read, and nothing of a refused append is among them."""
    store.append([row(1, "first")])
    fill(folder / "ballast")
    stored = 1
    with pytest.raises(StoreError, match="full"):
        for number in range(2, 100):
            store.append([row(number, "x" * 2000, to="#%d" % number), row(number, "x" * 2000)])
            stored = number
    assert store.read("alice bob", 0, END, 999, True)[0].number == 1
    assert numbers(store.read("alice bob", 0, END, 999, True))[-1] == stored
    (folder / "ballast").unlink()
    for number in range(100, 110):
        store.append([row(number, to="#%d" % (number - 100 + stored))])
    assert numbers(store.read("#%d" % (stored + 1), 0, END, 9, True)) == [101]
    store.close()
    assert query(folder, "PRAGMA integrity_check") == [("ok",)]


def test_a_file_that_cannot_be_written_stops_the_start(disk, open_store, folder):
    """Without its accounts and bans the server must not start."""
    store = open_store()
    store.add_sanction(Sanction("ban", "bob", 0.0, "", "alice", 1.0))
    store.close()
    disk("ro")
    with pytest.raises(StoreError, match="cannot use .*%s: " % server.STORE_FILE):
        Store(str(folder))
    disk("rw")
    assert len(open_store().sanctions) == 1


# Damage


def furnish(folder):
    """Make a file with something of everything; its path."""
    store = Store(str(folder))
    store.save_channel("#tea", {"topic": "tea"})
    store.add_sanction(Sanction("ban", "bob", 0.0, "", "alice", 1.0))
    store.append([row(n, "x" * 300, to="#%d" % (n % 50)) for n in range(1, 2000)])
    store.close()
    return folder / server.STORE_FILE


def overwrite(path, where, size=20000):
    with path.open("r+b") as file:
        file.seek(where)
        file.write(b"garbage!" * (size // 8))


DAMAGES = {
    "no database": lambda path: path.write_bytes(b"This is no database. " * 500),
    "a header alone": lambda path: path.write_bytes(b"SQLite format 3\0" * 200),
    "the first page": lambda path: overwrite(path, 100, 4000),
    "the middle": lambda path: overwrite(path, 20 * 4096),
    "the end is missing": lambda path: os.truncate(str(path), 10 * 4096),
    "another version": lambda path: query(path.parent, "PRAGMA user_version = 99"),
}


@pytest.mark.skipif(os.name == "nt", reason="mv is of POSIX")
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=list(DAMAGES))
def test_a_file_that_cannot_be_used_stops_the_start(folder, damage, open_store):
    """With the file's name and a command that moves it aside, and works; it stays as it was."""
    path = furnish(folder)
    damage(path)
    before = path.read_bytes()
    with pytest.raises(StoreError) as refusal:
        Store(str(folder))
    text = str(refusal.value)
    assert "\n" not in text and text.startswith("cannot use %s: " % path)
    assert path.read_bytes() == before
    command = text.partition("move it aside: ")[2]
    assert shlex.split(command)[:2] == ["mv", str(path)]
    subprocess.run(command, shell=True, check=True)
    open_store().append([row(1)])
    assert Path(shlex.split(command)[2]).read_bytes() == before


def test_damage_while_it_runs_is_refused_like_other_faults(folder, open_store):
    """The server says that nothing is kept, and never touches the file; the next start tells."""
    path = furnish(folder)
    store = open_store()
    store._writer.close()
    store._reader._drop()
    overwrite(path, 0)
    for ask in (lambda: store.append([row(5000)]), lambda: store.read("#1", 0, END, 9, True)):
        with pytest.raises(StoreError):
            ask()
    assert len(store.sanctions) == 1
    assert path.read_bytes()[:8] == b"garbage!"
    assert sorted(os.listdir(str(folder)))[0] == server.STORE_FILE
