"""What outlives the server: accounts, rooms, sanctions, waiting messages, and the file itself."""

import contextlib
import hashlib
import hmac
import os
import queue
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import protocol
import server
from server import Sanction

PASSWORD = "correct horse"
ROOT = Path(server.__file__).parent
CHEAP = (16, 8, 1)
BUSY = "The server's records cannot be used: they are busy. Try again in a moment."

needs_scrypt = pytest.mark.skipif(not hasattr(hashlib, "scrypt"), reason="this Python lacks scrypt")
needs_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting is root's"
)


@pytest.fixture
def open_database():
    """Opens the database of a folder, as often as the test likes."""
    with contextlib.ExitStack() as stack:

        def open_(folder, patience=5.0, claim=True):
            database = server.Database(str(folder) if folder else "", patience, claim)
            stack.callback(database.close)
            return database

        yield open_


@pytest.fixture
def database(open_database, tmp_path):
    return open_database(tmp_path / "data")


@pytest.fixture
def records(database, monkeypatch):
    """Records in a folder of their own, whose passwords cost next to nothing."""
    monkeypatch.setattr(server, "SCRYPT", CHEAP)
    return server.Records(database)


@pytest.fixture
def open_history():
    """Starts histories on databases, and fails where one does not keep what it is given."""
    with contextlib.ExitStack() as stack:

        def open_(database, days=0.0):
            history = server.History(database, days, pytest.fail)
            stack.callback(history.stop)
            return history

        yield open_


def keep(history, *rows):
    history.begin(list(rows))
    history.finish()


def row(number, text, waiting_for="", key="alice bob"):
    return number, key, "PRIVMSG", b":alice!a@h PRIVMSG bob :" + text.encode(), waiting_for


def look(folder, query, *values):
    """What the file holds, read with nobody's help."""
    with contextlib.closing(sqlite3.connect(str(folder / "history.db"))) as file:
        return file.execute(query, values).fetchall()


def python(code, *args):
    """Start another Python, in which `server` is at hand."""
    command = [sys.executable, "-c", "import sys, server\n" + code, *map(str, args)]
    return subprocess.Popen(command, cwd=str(ROOT), stdout=subprocess.PIPE)


def run(code, *args):
    """What another Python prints."""
    process = python(code, *args)
    printed = process.communicate()[0].decode()
    assert process.returncode == 0
    return printed.split()


# Accounts


@needs_scrypt
def test_an_account_is_entered_with_its_password_alone(records):
    """Whatever the case of the name, and however the password's letters are composed."""
    made = records.add_account("Zoë", "pass\u00e9word", is_operator=True)
    assert made == records.account("zoë") == records.log_in("ZOË", "passe\u0301word")
    assert made.name == "Zoë" and made.is_operator and abs(made.created - time.time()) < 60
    for password in (
        "passeword",
        "PASS\u00e9WORD",
        "pass\u00e9word ",
        "",
        "x" * 5000,
        "\ud800" * 9,
    ):
        assert records.log_in("zoë", password) is None
    assert records.log_in("bob", "pass\u00e9word") is None
    assert records.account("bob") is None
    assert records.accounts() == [made]


@needs_scrypt
def test_a_name_has_one_account(records):
    """However it is spelled; the first one's password stays."""
    records.add_account("alice", PASSWORD)
    with pytest.raises(server.AccountExistsError, match="ALICE has an account already"):
        records.add_account("ALICE", "another password")
    assert records.log_in("alice", PASSWORD)


@needs_scrypt
def test_a_password_and_the_rights_can_be_changed(records):
    """The rights stay as they are where nothing is said of them."""
    assert not records.set_password("alice", PASSWORD)
    records.add_account("alice", PASSWORD, is_operator=True)
    assert records.set_password("Alice", "another password")
    assert records.log_in("alice", PASSWORD) is None
    assert records.log_in("alice", "another password").is_operator
    assert records.set_password("alice", "another password", is_operator=False)
    assert not records.account("alice").is_operator


@needs_scrypt
def test_an_account_that_is_removed_is_gone(records):
    """Its name is anybody's."""
    records.add_account("alice", PASSWORD)
    assert records.remove_account("ALICE")
    assert not records.remove_account("alice")
    assert records.account("alice") is None
    assert records.log_in("alice", PASSWORD) is None


@pytest.mark.parametrize(
    ("password", "fault"),
    [
        ("", "A password has at least 8 characters."),
        ("1234567", "A password has at least 8 characters."),
        ("e\u0301" * 7, "A password has at least 8 characters."),
        ("12345678", ""),
        ("e\u0301" * 8, ""),
        ("x" * 300, ""),
        ("\u00e9" * 150, ""),
        ("x" * 301, "That password is too long: 300 bytes at most."),
        ("\u00e9" * 151, "That password is too long: 300 bytes at most."),
    ],
    ids=lambda value: str(len(value)),
)
@needs_scrypt
def test_a_password_has_8_characters_to_300_bytes(records, password, fault):
    """Composed; the words say so."""
    assert protocol.password_fault(password) == fault
    if fault:
        with pytest.raises(server.PasswordError) as refusal:
            records.add_account("alice", password)
        assert str(refusal.value) == fault
    else:
        records.add_account("alice", password)
        assert records.log_in("alice", password)
        assert records.log_in("alice", password + "x") is None


@needs_scrypt
def test_nobody_can_tell_by_the_time_whether_a_name_has_an_account(database, monkeypatch):
    """One hash of the same price and one comparison, whatever was offered."""
    records = server.Records(database)
    records.add_account("alice", PASSWORD)
    done = []
    scrypt, compare = hashlib.scrypt, hmac.compare_digest

    def count_scrypt(data, **cost):
        salt = cost.pop("salt")
        done.append((len(salt), sorted(cost.items())))
        return scrypt(data, salt=salt, **cost)

    def count_compare(one, other):
        done.append((len(one), len(other)))
        return compare(one, other)

    monkeypatch.setattr(hashlib, "scrypt", count_scrypt)
    monkeypatch.setattr(hmac, "compare_digest", count_compare)
    work = []
    for name, password in (
        ("alice", PASSWORD),
        ("alice", "wrong password"),
        ("bob", PASSWORD),
        ("bob", ""),
        ("alice", "x" * 400),
    ):
        assert bool(records.log_in(name, password)) == (not work)
        work.append(done.copy())
        done.clear()
    assert work == [[(16, [("dklen", 32), ("maxmem", 2**25), ("n", 2**14), ("p", 1), ("r", 8)]),
                     (32, 32)]] * 5  # fmt: skip


@needs_scrypt
def test_two_passwords_are_hashed_at_once(records, monkeypatch):
    """Each takes 16 MiB: a crowd that logs in waits its turn."""
    records.add_account("alice", PASSWORD)
    scrypt, inside, may_go = hashlib.scrypt, queue.Queue(), threading.Semaphore(0)
    lock, busy, most = threading.Lock(), [0], [0]

    def slow_scrypt(data, **cost):
        with lock:
            busy[0] += 1
            most[0] = max(most[0], busy[0])
        inside.put(None)
        may_go.acquire()
        with lock:
            busy[0] -= 1
        return scrypt(data, **cost)

    monkeypatch.setattr(hashlib, "scrypt", slow_scrypt)
    found = []
    log_in = lambda: found.append(records.log_in("alice", PASSWORD))  # noqa: E731
    threads = [threading.Thread(target=log_in) for _ in range(8)]
    for thread in threads:
        thread.start()
    for _ in threads:
        inside.get(timeout=20)
        if busy[0] == server.HASHES_AT_ONCE or len(found) >= 7:
            may_go.release()
    for _ in threads:
        may_go.release()
    for thread in threads:
        thread.join()
    assert most == [2] and len(found) == 8 and all(found)


@needs_scrypt
def test_a_stored_password_is_salted_and_says_what_it_cost(database, records, tmp_path):
    """The same password looks different each time, and stands nowhere in the files."""
    records.add_account("alice", PASSWORD)
    records.add_account("bob", PASSWORD)
    query = "SELECT n, r, p, salt, hash FROM accounts ORDER BY key"
    alice, bob = look(tmp_path / "data", query)
    assert alice[:3] == bob[:3] == CHEAP
    assert len(alice[3]) == 16 and len(alice[4]) == 32
    assert alice[3] != bob[3] and alice[4] != bob[4]
    database.close()
    for path in (tmp_path / "data").iterdir():
        assert PASSWORD.encode() not in path.read_bytes()


@needs_scrypt
def test_old_passwords_become_as_expensive_as_new_ones(records, monkeypatch, tmp_path):
    """With the next login, unless the password was changed meanwhile; both can log in."""
    records.add_account("alice", PASSWORD, is_operator=True)
    monkeypatch.setattr(server, "SCRYPT", (32, 8, 1))
    assert records.log_in("alice", "wrong password") is None
    cost = "SELECT n FROM accounts"
    assert look(tmp_path / "data", cost) == [(16,)]
    digest, changed = records._digest, []

    def change_meanwhile(*args):
        found = digest(*args)
        if not changed:
            changed.append("begun")
            changed.append(records.set_password("alice", "another password"))
        return found

    monkeypatch.setattr(records, "_digest", change_meanwhile)
    monkeypatch.setattr(server, "SCRYPT", (64, 8, 1))
    assert records.log_in("alice", PASSWORD)
    assert changed == ["begun", True]
    assert records.log_in("alice", PASSWORD) is None
    monkeypatch.setattr(server, "SCRYPT", (128, 8, 1))
    assert records.log_in("alice", "another password")
    assert look(tmp_path / "data", cost) == [(128,)]
    assert records.log_in("alice", "another password").is_operator


def test_without_scrypt_there_are_no_accounts(records, monkeypatch, database):
    """A Python that lacks it says so; names that have an account keep it."""
    add(database, "alice")
    monkeypatch.delattr(hashlib, "scrypt", raising=False)
    again = server.Records(database)
    assert again.keeps and not again.has_accounts
    assert again.account("alice")
    for ask in (again.log_in, again.add_account):
        with pytest.raises(server.RecordsError, match="Python cannot do scrypt"):
            ask("bob", PASSWORD)


def add(database, name):
    """Put an account into a database without making a hash."""
    values = (name, name, 0, 1.0, *CHEAP, bytes(16), bytes(32))
    query = "INSERT INTO accounts VALUES (?,?,?,?,?,?,?,?,?)"
    database.write(lambda writer: writer.execute(query, values))


# Attempts


def test_an_address_may_try_five_passwords_and_then_one_every_ten_seconds():
    """Others are not slowed by it, and a refused attempt costs nothing."""
    attempts = server.Attempts()
    assert [attempts.wait("a", 100.0) for _ in range(7)] == [0.0] * 5 + [10.0] * 2
    assert attempts.wait("b", 100.0) == 0.0
    assert attempts.wait("a", 107.5) == 2.5
    assert [attempts.wait("a", 110.0) for _ in range(2)] == [0.0, 10.0]
    assert [attempts.wait("a", 125.0) for _ in range(2)] == [0.0, 5.0]
    assert [attempts.wait("a", 1000.0) for _ in range(6)] == [0.0] * 5 + [10.0]


def test_a_right_password_is_given_back():
    """Who knows it may log in as often as they like."""
    attempts = server.Attempts()
    for _ in range(100):
        assert attempts.wait("a", 5.0) == 0.0
        attempts.give_back("a")
    attempts.give_back("nobody")
    assert [attempts.wait("a", 5.0) for _ in range(6)] == [0.0] * 5 + [10.0]


def test_attempts_remember_so_many_addresses_and_those_that_wait_longest(monkeypatch):
    """Whoever has many addresses cannot fill the memory, nor have their own sins forgotten."""
    monkeypatch.setattr(server, "MAX_ATTEMPTERS", 100)
    attempts = server.Attempts()
    for _ in range(5):
        attempts.wait("a", 0.0)
    for number in range(1000):
        assert attempts.wait("other%d" % number, 0.0) == 0.0
        assert len(attempts._paid_until) <= 100
    assert attempts.wait("a", 0.0) == 10.0


# Rooms


def test_a_room_is_remembered_until_it_is_forgotten(records, database, open_database, tmp_path):
    """What JSON can say comes back as it was, after a restart too."""
    state = {"name": "#Tea", "topic": "caf\u00e9 \U0001f600", "bans": ["a", 1.5], "limit": None}
    records.save_room("#tea", {"old": True})
    records.save_room("#tea", state)
    records.save_room("#empty", {})
    database.close()
    again = server.Records(open_database(tmp_path / "data"))
    assert again.rooms() == [{}, state]
    again.forget_room("#empty")
    again.forget_room("#empty")
    assert again.rooms() == [state]


def test_a_room_that_cannot_be_understood_keeps_no_other_from_being_read(records, database):
    """It is as if it were not there; the log tells."""
    records.save_room("#tea", {"topic": "tea"})
    database.write(lambda writer: writer.execute("INSERT INTO rooms VALUES ('#a', 'oops')"))
    assert records.rooms() == [{"topic": "tea"}]


# Sanctions


def test_sanctions_hold_until_they_run_out_or_are_removed(records, tmp_path):
    """One of a kind for each target; those that ran out are deleted."""
    now = time.time()
    ban = Sanction("ban", "10.0.0.0/8", 0.0, "noise", "alice", now)
    records.add_sanction(ban._replace(reason="an older one"))
    records.add_sanction(ban._replace(target="10.1.2.3/8"))
    mute = Sanction("mute", "bob", now + 3600, "", "alice", now - 2)
    records.add_sanction(mute._replace(target="BOB"))
    records.add_sanction(mute._replace(kind="ban"))
    records.add_sanction(Sanction("ban", "carol", now - 1, "", "alice", now - 1))
    assert records.sanctions() == [mute._replace(kind="ban"), mute, ban]
    assert look(tmp_path / "data", "SELECT COUNT(*) FROM sanctions") == [(3,)]
    assert records.remove_sanctions("Bob") == 2
    assert records.remove_sanctions("bob") == 0
    assert records.sanctions() == [ban]
    assert records.remove_sanctions("10.9.9.9/8") == 1


@pytest.mark.parametrize(
    ("typed", "target"),
    [
        ("Bob", "bob"),
        ("\uff21lice", "alice"),
        ("192.0.2.7", "192.0.2.7"),
        ("192.0.2.7/24", "192.0.2.0/24"),
        ("192.0.2.7/32", "192.0.2.7"),
        ("192.0.2.0/255.255.255.0", "192.0.2.0/24"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
        ("0::1", "::1"),
        ("2001:DB8::/32", "2001:db8::/32"),
        ("fe80::1%eth0", "fe80::1"),
        ("300.1.1.1", "300.1.1.1"),
    ],
)
def test_a_target_has_one_spelling(typed, target):
    """Names are folded, networks begin where they begin, IPv4 is IPv4."""
    assert protocol.sanction_target(typed) == target
    assert protocol.sanction_target(target) == target


@pytest.mark.parametrize(
    ("target", "address", "matches"),
    [
        ("alice", "192.0.2.7", True),
        ("ALICE", "192.0.2.7", True),
        ("alice2", "192.0.2.7", False),
        ("192.0.2.7", "192.0.2.7", True),
        ("192.0.2.7", "192.0.2.70", False),
        ("192.0.2.0/24", "192.0.2.255", True),
        ("192.0.2.0/24", "192.0.3.0", False),
        ("0.0.0.0/0", "192.0.2.7", True),
        ("0.0.0.0/0", "2001:db8::1", False),
        ("192.0.2.0/24", "::ffff:192.0.2.7", True),
        ("::ffff:192.0.2.0/120", "192.0.2.7", True),
        ("::/0", "192.0.2.7", False),
        ("2001:db8::/32", "2001:db8::1", True),
        ("2001:db8::/32", "2001:db9::1", False),
        ("::1", "0::1", True),
        ("fe80::1", "fe80::1%eth0", True),
        ("192.0.2.0/24", "somewhere", False),
        ("192.0.2.0/24", "", False),
        ("", "192.0.2.7", False),
    ],
)
def test_a_sanction_meets_a_name_an_address_or_a_network(target, address, matches):
    """Whoever comes from there, or has one of the names."""
    assert protocol.sanction_matches(target, ["ally", "alice"], address) == matches


# Waiting messages


def test_a_message_waits_until_it_has_been_delivered(database, open_history, tmp_path):
    """Oldest first, for its owner alone; it stays in the history afterwards."""
    history = open_history(database)
    rows = [row(3, "c", "bob"), row(1, "a", "bob"), row(2, "b"), row(4, "d", "carol")]
    keep(history, *rows)
    assert history.take_waiting("bob") == [rows[1], rows[0]]
    assert history.take_waiting("bob") == [rows[1], rows[0]]
    assert [history.waiting_count(name) for name in ("bob", "carol", "alice")] == [2, 1, 0]
    history.forget_waiting("bob", 1)
    assert history.take_waiting("bob") == [rows[0]]
    history.forget_waiting("bob", 3)
    assert history.take_waiting("bob") == []
    assert history.waiting_count("carol") == 1
    assert look(tmp_path / "data", "SELECT COUNT(*) FROM messages") == [(4,)]


def test_so_many_waiting_messages_are_given_at_once(database, open_history):
    """The rest when those have been delivered."""
    history = open_history(database)
    keep(history, *(row(number, "x", "bob") for number in range(1, server.MAX_WAITING + 3)))
    taken = history.take_waiting("bob")
    assert [number for number, *_ in taken] == list(range(1, server.MAX_WAITING + 1))
    history.forget_waiting("bob", taken[-1][0])
    assert history.waiting_count("bob") == 2


def test_what_waits_goes_with_the_message_and_with_the_account(database, open_history, records):
    """Too old, it is forgotten; and so it is when nobody is there to get it."""
    add(database, "bob")
    history = open_history(database)
    now = int(time.time() * 1e6)
    keep(history, row(now - 2 * 86400 * 1000000, "old", "bob"), row(now, "new", "bob"))
    history.stop()
    history = open_history(database, days=1)
    history.finish()
    assert [number for number, *_ in history.take_waiting("bob")] == [now]
    assert history.waiting_count("bob") == 1
    assert records.remove_account("bob")
    assert history.waiting_count("bob") == 0


def test_where_the_disk_refuses_it_is_delivered_again(database, open_history, tmp_path):
    """That it was delivered could not be noted."""
    history = open_history(database)
    keep(history, row(1, "a", "bob"))
    database.close()
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    (tmp_path / "data").write_text("in the way")
    history.forget_waiting("bob", 1)
    assert history.take_waiting("bob") == []
    (tmp_path / "data").unlink()
    (tmp_path / "elsewhere").rename(tmp_path / "data")
    assert history.waiting_count("bob") == 1


# Without a folder


@needs_scrypt
def test_without_a_folder_all_works_but_nothing_is_kept(open_database, monkeypatch):
    """In memory, of one server each."""
    monkeypatch.setattr(server, "SCRYPT", CHEAP)
    records = server.Records(open_database(""))
    assert not records.keeps and not records.has_accounts
    records.add_account("alice", PASSWORD)
    records.save_room("#tea", {"topic": "tea"})
    records.add_sanction(Sanction("ban", "bob", 0.0, "", "alice", 1.0))
    assert records.log_in("alice", PASSWORD)
    assert records.rooms() == [{"topic": "tea"}]
    assert len(records.sanctions()) == 1
    assert server.Records(open_database("")).account("alice") is None


# Other processes

OPEN = "records = server.Records(server.Database(sys.argv[1], 10.0, claim=False))\n"
ADD = "server.SCRYPT = (16, 8, 1)\n" + OPEN


@needs_scrypt
def test_what_another_process_does_is_noticed_at_once(records, tmp_path):
    """An account that it makes, changes or removes, while this one has the folder."""
    assert records.account("alice") is None
    run(ADD + "records.add_account('alice', sys.argv[2], True)", tmp_path / "data", PASSWORD)
    assert records.account("alice").is_operator
    assert records.log_in("alice", PASSWORD)
    run(ADD + "records.set_password('alice', 'another one', False)", tmp_path / "data")
    assert not records.account("alice").is_operator
    assert records.log_in("alice", PASSWORD) is None
    run(ADD + "records.remove_account('alice')", tmp_path / "data")
    assert records.account("alice") is None


@needs_scrypt
def test_many_processes_make_accounts_at_once(tmp_path, open_database):
    """On a folder that none of them finds made; of one name, one has it."""
    code = ADD + (
        "for number in range(10):\n"
        "    records.add_account('%s%d' % (sys.argv[2], number), 'password')\n"
        "try:\n"
        "    records.add_account('same', 'password')\n"
        "    print('mine')\n"
        "except server.AccountExistsError:\n"
        "    print('taken')\n"
    )
    processes = [python(code, tmp_path / "data", name) for name in "abcd"]
    said = [process.communicate()[0].decode().strip() for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    assert sorted(said) == ["mine", "taken", "taken", "taken"]
    names = [
        account.name for account in server.Records(open_database(tmp_path / "data")).accounts()
    ]
    assert names == sorted(["%s%d" % (name, n) for name in "abcd" for n in range(10)] + ["same"])


def test_a_process_that_comes_and_goes_takes_nothing_along(
    records, database, open_history, tmp_path
):
    """What one server writes meanwhile is all there, whoever closes the file beside it."""
    history = open_history(database)
    number = 0
    for _ in range(3):
        process = python(OPEN + "records._database.close()\nprint('done')", tmp_path / "data")
        while process.poll() is None:
            number += 1
            keep(history, row(number, "x"))
        assert process.communicate()[0].split() == [b"done"]
    database.close()
    assert look(tmp_path / "data", "SELECT COUNT(*) FROM messages") == [(number,)]
    assert look(tmp_path / "data", "PRAGMA integrity_check") == [("ok",)]


def test_a_file_that_is_opened_anew_is_still_in_use(open_database, tmp_path):
    """After a fault of one handle, another process does not take itself for the last one."""
    records = server.Records(open_database(tmp_path / "data", 0.05))
    with contextlib.closing(sqlite3.connect(str(tmp_path / "data" / "history.db"))) as other:
        other.execute("BEGIN IMMEDIATE")
        assert refused(records.save_room, "#tea", {}) == BUSY
        other.rollback()
    records.save_room("#tea", {"topic": "tea"})
    for word in ("oolong", "assam"):
        seen = OPEN + "print(records.rooms()[0]['topic']); records._database.close()"
        run(seen, tmp_path / "data")
        records.save_room("#tea", {"topic": word})
        assert run(seen, tmp_path / "data") == [word]


def test_what_was_done_is_done_though_the_process_is_killed(tmp_path, open_database):
    """Again and again, in the middle of it."""
    code = (
        "records = server.Records(server.Database(sys.argv[1], 10.0))\n"
        "for number in range(100000):\n"
        "    name = '%s.%d' % (sys.argv[2], number)\n"
        "    records.save_room('#' + name, {'name': name})\n"
        "    records.add_sanction(server.Sanction('ban', name, 0.0, '', '', 1.0))\n"
        "    print(name, flush=True)\n"
    )
    done = []
    for turn in range(4):
        process = python(code, tmp_path / "data", "t%d" % turn)
        done += [process.stdout.readline().decode().strip() for _ in range(20 + 30 * turn)]
        process.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
        done += process.communicate()[0].decode().split("\n")[:-1]
    records = server.Records(open_database(tmp_path / "data"))
    assert set(done) <= {room["name"] for room in records.rooms()}
    assert set(done) <= {sanction.target for sanction in records.sanctions()}
    assert look(tmp_path / "data", "PRAGMA integrity_check") == [("ok",)]


# Faults of the disk


def refused(ask, *args):
    """What people are told where the disk refuses: one sentence or two, no word of SQL."""
    with pytest.raises(server.RecordsError) as refusal:
        ask(*args)
    text = str(refusal.value)
    assert text.startswith("The server's records cannot be used: ") and text.endswith(".")
    assert "\n" not in text and "INSERT" not in text and "sqlite" not in text.lower()
    return text


def test_a_database_that_is_in_use_is_waited_for_so_long(open_database, tmp_path):
    """Then it is refused, and done when it is asked for again; one can read all the time."""
    database = open_database(tmp_path / "data", 0.05)
    records = server.Records(database)
    add(database, "alice")
    with contextlib.closing(sqlite3.connect(str(tmp_path / "data" / "history.db"))) as other:
        other.execute("BEGIN IMMEDIATE")
        assert refused(records.save_room, "#tea", {}) == BUSY
        assert records.account("alice")
        assert records.sanctions() == []
        other.rollback()
    records.save_room("#tea", {})
    assert records.rooms() == [{}]


def test_a_disk_that_does_not_answer_is_not_waited_for_for_ever(records, database, monkeypatch):
    """The first who asks is refused then, others at once; who reads is not kept from it."""
    monkeypatch.setattr(server, "DISK_TIMEOUT", 0.05)
    inside, may_go = threading.Event(), threading.Event()

    def hang(writer):
        inside.set()
        may_go.wait(20)

    thread = threading.Thread(target=database.write, args=(hang,))
    thread.start()
    inside.wait(20)
    assert refused(records.save_room, "#tea", {}) == BUSY
    monkeypatch.setattr(server, "DISK_TIMEOUT", threading.TIMEOUT_MAX)
    assert refused(records.save_room, "#tea", {}) == BUSY
    assert records.rooms() == []
    may_go.set()
    thread.join()
    records.save_room("#tea", {})


def test_a_folder_that_cannot_be_had_is_told_of(open_database, tmp_path):
    """Nothing can be kept, no name has an account, and nothing falls over."""
    (tmp_path / "data").write_text("in the way")
    records = server.Records(open_database(tmp_path / "data"))
    assert records.account("alice") is None
    refused(records.rooms)
    refused(records.sanctions)
    refused(records.remove_account, "alice")
    (tmp_path / "data").unlink()
    records.save_room("#tea", {})
    assert records.rooms() == [{}]


@pytest.fixture
def disk(tmp_path):
    """A small disk on a folder; gives what changes how it is mounted."""
    folder = tmp_path / "data"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if subprocess.run(mount, stderr=subprocess.DEVNULL, check=False).returncode:
        pytest.skip("no tmpfs can be mounted here")
    yield lambda how: subprocess.run(["mount", "-o", "remount,%s" % how, str(folder)], check=True)
    subprocess.run(["umount", "-l", str(folder)], check=True)


@needs_root
@needs_scrypt
def test_a_read_only_folder_still_tells_who_owns_a_name(disk, open_database, tmp_path, monkeypatch):
    """They can log in; what cannot be kept is refused."""
    monkeypatch.setattr(server, "SCRYPT", CHEAP)
    database = open_database(tmp_path / "data")
    records = server.Records(database)
    records.add_account("alice", PASSWORD)
    records.save_room("#tea", {"topic": "tea"})
    database.close()  # so that the disk may become read-only
    disk("ro")
    text = refused(records.add_account, "bob", PASSWORD)
    assert "its folder cannot be written. Its host" in text
    for there in (records, server.Records(database)):  # one that starts now, too
        assert there.account("alice") and there.log_in("alice", PASSWORD)
        assert there.account("bob") is None
        assert there.rooms() == [{"topic": "tea"}]
    disk("rw")
    records.add_account("bob", PASSWORD)
    assert records.account("bob")


@needs_root
@needs_scrypt
def test_a_full_disk_is_told_of(disk, open_database, tmp_path, monkeypatch):
    """What is there can be read; when there is room again, all goes on."""
    monkeypatch.setattr(server, "SCRYPT", CHEAP)
    records = server.Records(open_database(tmp_path / "data"))
    records.add_account("alice", PASSWORD)
    ballast = tmp_path / "data" / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 4096):
            pass
    with pytest.raises(server.RecordsError) as refusal:
        for number in range(100):
            records.save_room("#%d" % number, {"topic": "x" * 2000})
    assert "the disk is full. Its host has to make room there." in str(refusal.value)
    assert records.log_in("alice", PASSWORD)
    ballast.unlink()
    records.add_account("bob", PASSWORD)
    assert [account.name for account in records.accounts()] == ["alice", "bob"]


# Damage

OVERWRITE = """
with open(sys.argv[1] + "/history.db", "r+b") as file:
    file.seek(int(sys.argv[2]))
    file.write(b"garbage!" * 20000)
"""


def overwrite(folder, where):
    """Write over the file from there on, as another program might: this one has it open."""
    assert look(folder, "PRAGMA wal_checkpoint(TRUNCATE)") == [(0, 0, 0)]
    run(OVERWRITE, folder, where)


def after_roots(folder):
    """Where in the file the first pages of all tables end: the rest is full of messages."""
    size = look(folder, "PRAGMA page_size")[0][0]
    return size * look(folder, "SELECT MAX(rootpage) FROM sqlite_master")[0][0]


@pytest.fixture
def furnished(open_database, open_history, tmp_path):
    """A folder with something of everything, its records, its history and who has it open."""
    database = open_database(tmp_path / "data")
    records, history = server.Records(database), open_history(database)
    add(database, "alice")
    records.save_room("#tea", {"topic": "tea"})
    records.add_sanction(Sanction("ban", "bob", 0.0, "", "alice", 1.0))
    keep(history, *(row(number, "x" * 300, key="#lobby") for number in range(1, 1000)))
    return tmp_path / "data", records, history, database


@pytest.mark.parametrize("who", ["the history", "the records", "who starts"])
def test_damage_that_is_found_costs_the_messages_alone(furnished, who):
    """The file is moved aside, whole; accounts, rooms and sanctions are taken over."""
    folder, records, history, database = furnished
    overwrite(folder, after_roots(folder))
    if who == "who starts":
        history.stop()
        database.close()
        database = server.Database(str(folder), 5.0)
        records = server.Records(database)
        history = server.History(database, 0.0, pytest.fail)
    if who == "the records":
        with pytest.raises(sqlite3.DatabaseError):
            look(folder, "SELECT SUM(LENGTH(line)) FROM messages")
        database.read("SELECT SUM(LENGTH(line)) FROM messages")
    else:
        assert history.read("#lobby", 0, server.END, 1000, latest=True) == []
    assert records.account("alice")
    assert records.rooms() == [{"topic": "tea"}]
    assert [sanction.target for sanction in records.sanctions()] == ["bob"]
    keep(history, row(2000, "again", key="#lobby"))
    assert len(history.read("#lobby", 0, server.END, 1000, latest=True)) == 1
    records.save_room("#coffee", {})
    (aside,) = folder.glob("history.db.damaged-*[0-9]")
    assert b"garbage!" in aside.read_bytes()
    assert look(folder, "PRAGMA integrity_check") == [("ok",)]
    if who == "who starts":
        history.stop()
        database.close()
    server.log.handlers[-1].found.clear()  # the log says why: that is right here


def test_a_file_that_is_no_database_any_more_is_replaced_while_the_server_runs(furnished):
    """Whoever notices it first, many at once: it is moved once, and everybody goes on."""
    folder, records, history, _ = furnished
    overwrite(folder, 0)
    faults = []

    def work(number):
        try:
            for turn in range(20):
                records.save_room("#%d" % number, {"turn": turn})
                assert any(room.get("turn") == turn for room in records.rooms())
        except Exception as fault:
            faults.append(fault)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    with contextlib.suppress(server.RecordsError):
        records.save_room("#first", {})
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    keep(history, row(2000, "again", key="#lobby"))
    assert faults == []
    assert len(list(folder.glob("history.db.damaged-*[0-9]"))) == 1
    assert len(history.read("#lobby", 0, server.END, 1000, latest=True)) == 1
    assert look(folder, "PRAGMA integrity_check") == [("ok",)]
    server.log.handlers[-1].found.clear()


def test_two_who_find_the_same_damage_move_one_file(furnished, monkeypatch):
    """The second finds a new file in its place, and leaves it there."""
    folder, records, _, _ = furnished
    overwrite(folder, 0)
    with contextlib.suppress(sqlite3.DatabaseError):
        look(folder, "SELECT 1 FROM messages")
    both_know, is_damage, found = threading.Barrier(2, timeout=20), server._is_damage, []

    def know_together(error):
        found.append(is_damage(error))
        if len(found) <= 2:
            both_know.wait()
        return found[0]

    monkeypatch.setattr(server, "_is_damage", know_together)
    names = []
    ask = lambda: names.append([room["topic"] for room in records.rooms()])  # noqa: E731
    save = lambda: records.save_room("#new", {"topic": "new"})  # noqa: E731
    threads = [threading.Thread(target=work) for work in (ask, save)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True, True]
    assert names in ([[]], [["new"]])
    assert records.rooms() == [{"topic": "new"}]
    (aside,) = folder.glob("history.db.damaged-*[0-9]")
    assert b"garbage!" in aside.read_bytes()
    server.log.handlers[-1].found.clear()


def test_who_has_not_the_folder_moves_nothing_aside(tmp_path, open_database):
    """A damaged file is its server's business; others say so."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "history.db").write_bytes(b"This is no database. " * 500)
    records = server.Records(open_database(folder, claim=False))
    assert "the file is damaged" in refused(records.accounts)
    assert [path.name for path in folder.iterdir()] == ["history.db"]


# Versions


@needs_scrypt
def test_a_file_of_the_first_version_is_brought_up_to_date(tmp_path, open_database, monkeypatch):
    """With all that it holds."""
    monkeypatch.setattr(server, "SCRYPT", CHEAP)
    folder = tmp_path / "data"
    folder.mkdir()
    with contextlib.closing(sqlite3.connect(str(folder / "history.db"))) as old:
        old.executescript(server.Database.MIGRATIONS[0])
        old.execute("PRAGMA user_version = 1")
        old.execute("INSERT INTO messages VALUES (7, '#lobby', 'PRIVMSG', ?)", (b"PRIVMSG a :b",))
        old.execute("INSERT INTO conversations VALUES ('alice', 'bob', 7)")
        old.commit()
    database = open_database(folder)
    records = server.Records(database)
    records.add_account("alice", PASSWORD)
    assert look(folder, "PRAGMA user_version") == [(len(server.Database.MIGRATIONS),)]
    assert look(folder, "SELECT * FROM messages") == [(7, "#lobby", "PRIVMSG", b"PRIVMSG a :b")]
    assert look(folder, "SELECT * FROM conversations") == [("alice", "bob", 7)]
    assert records.log_in("alice", PASSWORD)


def test_two_processes_bring_a_file_up_to_date(tmp_path, open_database, monkeypatch):
    """The second finds that it has been done, just when it was about to."""
    connect, turns = sqlite3.connect, []

    class Slow(sqlite3.Connection):
        def execute(self, query, *values):
            if query == "BEGIN IMMEDIATE" and not turns:
                turns.append("the other")
                open_database(tmp_path / "data", claim=False).write(lambda writer: None)
            return super().execute(query, *values)

    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, **k, factory=Slow))
    records = server.Records(open_database(tmp_path / "data"))
    records.save_room("#tea", {"topic": "tea"})
    assert turns == ["the other"]
    assert records.rooms() == [{"topic": "tea"}]


def test_a_file_of_a_later_version_is_left_as_it_is(tmp_path, open_database):
    """What it holds is not for us to understand."""
    folder = tmp_path / "data"
    folder.mkdir()
    with contextlib.closing(sqlite3.connect(str(folder / "history.db"))) as later:
        later.executescript("PRAGMA user_version = 99; CREATE TABLE marvels (name TEXT);")
    records = server.Records(open_database(folder))
    assert refused(records.save_room, "#tea", {}).endswith("it was made by a newer Hubbub.")
    assert look(folder, "SELECT name FROM sqlite_master") == [("marvels",)]
