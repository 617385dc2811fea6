"""The server as a program: its command line, log, signals, exit codes, and account chores."""

import contextlib
import hashlib
import logging
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness import PROGRAM, TIMEOUT, IrcTalker, PlainTalker, Process, Room

import client
import server
from protocol import PID_FILE, VERSION

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are sent otherwise there")
needs_scrypt = pytest.mark.skipif(not hasattr(hashlib, "scrypt"), reason="this Python lacks scrypt")


@pytest.fixture
def start(tmp_path):
    """Starts `python server.py` with arguments; ends what is left of it."""
    processes = []

    def start_(*args):
        processes.append(Process(tmp_path / "stderr", *args))
        return processes[-1]

    yield start_
    for process in processes:
        process.close()


@pytest.fixture(scope="module")
def cut_certificate(make_certificate):
    """A certificate and its key apart, and others that are of no use."""
    key, cert = re.findall(
        "-----BEGIN.*?-----END[A-Z ]*-----\n", Path(make_certificate()).read_text(), re.S
    )
    locked = ["openssl", "pkey", "-aes128", "-passout", "pass:sesame"]
    return {
        "key": key,
        "cert": cert,
        "other": Path(make_certificate()).read_text().partition("-----BEGIN CERTIFICATE")[0],
        "trusted": cert.replace(" CERTIFICATE", " TRUSTED CERTIFICATE"),
        "locked": subprocess.check_output(locked, input=key.encode()).decode(),
    }


def test_a_server_says_where_it_runs_and_that_it_stopped(start):
    """The first line is the address with the real port, once connections are accepted."""
    process = start()
    assert re.match(r"\[SERVER\] Running on 127\.0\.0\.1:\d+$", process.first_line)
    process.irc("alice")
    process.signal(signal.SIGTERM)
    assert process.wait() == 0
    told = process.rest_of_output()
    assert [told[0], told[-1]] == ["[SERVER] Only this computer can join", "[SERVER] Stopped"]
    assert re.match(r"\[SERVER\] (Encrypted, with the fingerprint|Not encrypted: the) ", told[1])


@pytest.mark.parametrize(
    ("arg", "first"), [("--version", "Hubbub " + VERSION), ("--help", "usage: server.py [-h]")]
)
def test_version_and_help_are_printed_and_nothing_starts(start, arg, first):
    process = start(arg)
    assert process.first_line.startswith(first)
    assert process.wait() == 0


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--host", "192.0.2.1"], "cannot listen on 192.0.2.1:0"),
        (["--host", "a..b"], "cannot listen on a..b:0"),
        (["--port", "65536"], "is not a number from 0 to 65535"),
        (["--port", "chat"], "is not a number from 0 to 65535"),
        (["--motd", "FOLDER/missing"], "cannot read FOLDER/missing: No such file"),
        (["--motd", "FOLDER"], "cannot read FOLDER: Is a directory"),
        (["--motd", "FOLDER/binary"], "cannot read FOLDER/binary: it is not UTF-8"),
        (["--password-file", "FOLDER/missing"], "cannot read FOLDER/missing: No such file"),
        (["--password-file", "FOLDER/empty"], "has no password in its first line"),
        (["--lobby", "lobby"], "A room's name is #"),
        (["--server-name", "my server"], "my server: This is not a host name"),
        (["--rate-limit", "nan"], "nan is not a number from 0"),
        (["--ping-interval", "-1"], "-1 is not a number from 0"),
        (["--max-clients", "-1"], "-1"),
        (["--max-per-address", "-1"], "-1"),
        (["--max-sendq", "-1"], "-1"),
        (["--rate-limit", "fast"], "fast"),
        (["--log-level", "LOUD"], "LOUD"),
        (["--add-account", "has space"], "A name has no spaces. How about has-space?"),
        (["--remove-account", "server"], "server is a reserved name"),
        (["--add-account", "alice", "--remove-account", "bob"], "not allowed with"),
        (["--oper"], "--oper is for --add-account"),
        (["--list-accounts", "--oper"], "--oper is for --add-account"),
        (["--data", "", "--list-accounts"], "this needs a folder: --data"),
        (["--data", "", "--stop"], "this needs a folder: --data"),
        (["--data", "FOLDER/missing", "--stop"], "no server uses FOLDER/missing."),
        (["--data", "FOLDER/kept", "--status"], "no server uses FOLDER/kept."),
        (["--data", "FOLDER/kept", "--stop"], "no server uses FOLDER/kept."),
        (["--stop", "--list-accounts"], "not allowed with"),
        (
            ["--data", "FOLDER/missing", "--list-accounts"],
            "there are no accounts in FOLDER/missing.",
        ),
        (["--data", "FOLDER/kept", "--remove-account", "bob"], "bob has no account."),
        (["--data", "FOLDER/binary", "--list-accounts"], "there are no accounts in FOLDER/binary."),
        (["--data", "FOLDER/damaged", "--list-accounts"], "move it aside: mv FOLDER/damaged/"),
        (["--data", "FOLDER/damaged"], "move it aside: mv FOLDER/damaged/"),
        (["--tls-key", "FOLDER/key"], "--tls-key is for --tls-cert"),
        (["--require-tls", "--data", ""], "a certificate is kept in the folder of --data"),
        (["--data", "FOLDER/cut"], "tls.pem: there is none. Without that file, a new certificate"),
        (["--tls-cert", "FOLDER/missing"], "in FOLDER/missing: No such file"),
        (["--tls-cert", "FOLDER"], "in FOLDER: Is a directory"),
        (["--tls-cert", "FOLDER/binary"], "in FOLDER/binary: there is none."),
        (["--tls-cert", "FOLDER/key"], "in FOLDER/key: there is none."),
        (["--tls-cert", "FOLDER/trusted", "--tls-key", "FOLDER/key"], ": there is none."),
        (["--tls-cert", "FOLDER/cert"], "in FOLDER/cert: its key is missing"),
        (["--tls-cert", "FOLDER/cert", "--tls-key", "FOLDER/missing"], "No such file"),
        (["--tls-cert", "FOLDER/cert", "--tls-key", "FOLDER/other"], "key is that of another"),
        (["--tls-cert", "FOLDER/cert", "--tls-key", "FOLDER/locked"], "kept with a passphrase."),
        (["--nonsense"], "--nonsense"),
        (["@FOLDER/missing"], "FOLDER/missing"),
        (["@FOLDER/unbalanced"], "Bob's"),
        (["@FOLDER/binary"], "cannot read FOLDER/binary: it is not UTF-8"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_command_line_exits_with_2_and_a_line_that_says_why(
    start, tmp_path, cut_certificate, args, words
):
    """No traceback, nothing on stdout, and no word that only the programmer knows."""
    (tmp_path / "binary").write_bytes(b"caf\xe9")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "unbalanced").write_text("--network Bob's\n")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / server.STORE_FILE).write_bytes(b"")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / server.STORE_FILE).write_bytes(b"no database" * 100)
    (tmp_path / "cut").mkdir(0o700)
    (tmp_path / "cut" / "tls.pem").write_text(cut_certificate["key"])
    for name, text in cut_certificate.items():
        (tmp_path / name).write_text(text)
    process = start(*[arg.replace("FOLDER", str(tmp_path)) for arg in args])
    assert process.first_line == ""
    assert process.wait() == 2
    (line,) = process.log
    assert line.startswith("server.py: ")
    assert words.replace("FOLDER", str(tmp_path)) in line
    assert not re.search(r"\b_[a-z]", line)


def test_a_port_in_use_exits_with_2_and_a_line_that_says_what_to_do(start):
    """The second server on a port says so and leaves the first alone."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        process = start("--port", str(port))
        assert process.wait() == 2
    assert process.log == [
        "server.py: another program uses port %d of this computer. Close it, then try again." % port
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_in_order(start, number):
    """Each of 100 clients is told, it is over in 2 seconds, and the port is free at once."""
    process = start("--rate-limit", "0")
    people = [process.irc("irc%d" % n) for n in range(50)]
    people += [process.plain("plain%d" % n) for n in range(50)]
    people[0].heard()
    started = time.monotonic()
    process.signal(number)
    assert process.wait() == 0
    assert time.monotonic() - started < 2
    for person in people:
        lines = person.rest()
        assert lines[-1].endswith("The host has ended the chat")
        assert sum("ended the chat" in line for line in lines) == 1
        assert not any("QUIT" in line or "left the chat" in line for line in lines)
    again = Room(port=process.port)
    again.close()


def test_the_log_has_connections_and_never_messages(start):
    """A line for each connection, registration and end, whatever the level; no message's text."""
    process = start("--log-level", "DEBUG")
    alice, carol = process.irc("alice"), process.plain("carol")
    alice.send("PRIVMSG #lobby :secret", "PRIVMSG carol :secret", "TOPIC #lobby :secret")
    alice.send("FOO secret", "PASS secret", "QUIT :secret")
    alice.rest()
    carol.send("@alice secret", "/foo secret", "secret", "/quit secret")
    carol.rest()
    alice.close()
    carol.close()
    process.signal(signal.SIGTERM)
    assert process.wait() == 0
    log = process.log
    assert not any("secret" in line for line in log)
    for person, name, dialect in ((alice, "alice", "IRC"), (carol, "carol", "plain text")):
        words = [line.split(" ", 3)[3] for line in log if person.address in line]
        assert words == [
            "%s connected" % person.address,
            "%s joined as %s (%s)" % (person.address, name, dialect),
            "%s (%s) ended: Quit" % (person.address, name),
        ]


def test_options_may_come_from_a_file(start, tmp_path):
    """@FILE holds options as in a shell, with quotes and comments."""
    (tmp_path / "motd").write_text("Be kind, zoë.\n", encoding="utf-8")
    (tmp_path / "password").write_text("secret\nnot this\n")
    (tmp_path / "options").write_text(
        "# Our server\n--network 'The Office' --lobby=#kitchen\n"
        "--motd %s\n--password-file %s\n" % (tmp_path / "motd", tmp_path / "password")
    )
    process = start("@%s" % (tmp_path / "options"), "--server-name", "chat.example")
    alice = process.connect(IrcTalker)
    alice.send("PASS secret", "NICK alice", "USER alice 0 * :Alice")
    alice.expect(":chat.example 001 alice :Welcome to The Office, alice. 1 person is here.")
    alice.expect(":chat.example 372 alice :Be kind, zoë.")
    alice.expect(":alice!alice@127.0.0.1 JOIN #kitchen")
    carol = process.connect(PlainTalker)
    carol.send("carol")
    carol.expect("The Office asks for a password. Type it and press Enter.")


def test_files_from_an_editor_that_marks_the_byte_order(start, tmp_path):
    """Of options, the message of the day, and the password, as Notepad saves them."""
    for name, text in (("motd", "Be kind, zoë."), ("password", "secret"), ("more", "--lobby #tea")):
        (tmp_path / name).write_text(text + "\n", encoding="utf-8-sig")
    words = "--network Zoë @%s --motd %s --password-file %s\n"
    words %= tuple(str(tmp_path / name) for name in ("more", "motd", "password"))
    (tmp_path / "options").write_text(words, encoding="utf-8-sig")
    alice = start("@%s" % (tmp_path / "options")).connect(IrcTalker)
    alice.send_bytes(b"\xef\xbb\xbfPASS secret\r\nNICK alice\r\nUSER alice 0 * :Alice\r\n")
    alice.expect(":hubbub.local 001 alice :Welcome to Zoë, alice. 1 person is here.")
    alice.expect(":hubbub.local 372 alice :Be kind, zoë.")
    alice.expect(":alice!alice@127.0.0.1 JOIN #tea")


def test_address_of_an_ipv6_server_is_printed_as_the_client_reads_it(start):
    process = start("--host", "::1")
    if not process.port:
        pytest.skip("IPv6 is turned off")
    process.signal(signal.SIGTERM)
    assert process.wait() == 0
    told = process.first_line.partition("Running on ")[2]
    assert client.parse_server(told) == ("::1", process.port)


def test_a_second_server_on_a_folder_does_not_start(start, tmp_path):
    """It says why in one line, and the first goes on."""
    folder = str(tmp_path / "data")
    alice = start("--data", folder).irc("alice")
    second = start("--data", folder)
    assert second.wait() == 2
    (line,) = second.log
    assert line.startswith("server.py: another server uses %s." % folder)
    alice.heard()


def test_stop_ends_the_server_that_uses_the_folder(start, tmp_path):
    """Its users are told; the folder is free once the command has ended."""
    folder = str(tmp_path / "data")
    first, other = start("--data", folder), start("--data", str(tmp_path / "other"))
    alice, bob = first.irc("alice"), other.irc("bob")
    found = (tmp_path / "data" / PID_FILE).read_text()
    assert found == "%d 127.0.0.1 %d\n" % (first.pid, first.port)
    chore = start("--data", folder, "--status")
    assert (chore.first_line, chore.wait()) == (first.first_line, 0)
    assert chore.rest_of_output() == ["[SERVER] Only this computer can join"]
    chore = start("--data", folder, "--stop")
    assert (chore.first_line, chore.wait()) == ("The server has stopped.", 0)
    alice.expect("ERROR :The host has ended the chat")
    assert first.wait() == 0
    assert not (tmp_path / "data" / PID_FILE).exists()
    assert start("--data", folder).port
    bob.heard()


@pytest.mark.parametrize(
    ("text", "is_used"), [("4242", False), *((text, True) for text in ("", "x", "0", "-1"))]
)
def test_stop_signals_nobody_but_the_server(tmp_path, monkeypatch, text, is_used):
    """After a crash the number may be that of another program; some numbers mean all programs."""
    signals = []
    monkeypatch.setattr(server.os, "kill", lambda *args: signals.append(args))
    with contextlib.closing(server.Store(str(tmp_path), claim=is_used)):
        (tmp_path / PID_FILE).write_text(text)
        with pytest.raises(server.StoreError, match="no server uses %s" % tmp_path):
            server.stop_server(str(tmp_path))
    assert signals == []


def test_stop_says_so_when_the_server_does_not_end(tmp_path, monkeypatch):
    """And when it may not be stopped."""
    monkeypatch.setattr(server, "STOP_TIMEOUT", 0.1)
    signals = []
    monkeypatch.setattr(server.os, "kill", lambda *args: signals.append(args))
    with contextlib.closing(server.Store(str(tmp_path))):
        with pytest.raises(server.StoreError, match="process %d does not stop" % os.getpid()):
            server.stop_server(str(tmp_path))
        assert signals == [(os.getpid(), signal.SIGTERM)]
        monkeypatch.setattr(server.os, "kill", lambda *args: os.listdir(str(tmp_path / "missing")))
        with pytest.raises(server.StoreError, match="cannot stop process"):
            server.stop_server(str(tmp_path))


def test_folder_and_files_are_for_their_owner_alone(start, tmp_path):
    """Of a folder that was there before, only the files."""
    for folder, rights in ((tmp_path / "new" / "data", 0o700), (tmp_path, 0o755)):
        tmp_path.chmod(0o755)
        process = start("--data", str(folder))
        process.irc("alice").send("PRIVMSG #lobby :hello")
        process.irc("bob").heard()
        assert stat.S_IMODE(folder.stat().st_mode) == rights
        files = [path for path in folder.iterdir() if path.name.startswith(server.STORE_FILE)]
        assert [stat.S_IMODE(path.stat().st_mode) for path in files] == [0o600] * 3


# A console that nobody reads


def test_a_full_pipe_holds_up_no_client_and_not_the_end(tmp_path):
    """Nobody reads stdout and stderr: more is logged than a pipe takes, and people chat."""
    command = [sys.executable, str(PROGRAM), "--host", "127.0.0.1", "--port", "0"]
    command += ["--data", str(tmp_path / "data"), "--rate-limit", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    talkers = []
    try:
        port = int(process.stdout.readline().decode().rpartition(":")[2])
        for number in range(400):  # two lines each, some 150 bytes together
            with contextlib.closing(IrcTalker(port)) as talker:
                talker.send("NICK %s" % ("n" * 20 + str(number)), "USER u 0 * :u", "QUIT")
                talker.rest()
        talkers += [IrcTalker(port).register("alice"), IrcTalker(port).register("bob")]
        talkers[0].send("PRIVMSG bob :still here")
        talkers[1].expect("PRIVMSG bob :still here")
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) == 0
        assert time.monotonic() - started < 5
        written = process.stderr.read()
        assert len(written) > 60000 and b"ended the chat" not in written  # it was full
    finally:
        process.kill()
        process.wait()
        for file in (*talkers, process.stdout, process.stderr):
            file.close()


def test_nothing_in_the_log_commands_a_terminal(monkeypatch):
    """Not a name, and not the text of an exception; its lines stay lines."""
    out, into = os.pipe()
    with open(out, "rb", buffering=0) as pipe, open(into, "wb", buffering=0) as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        console = server.Console()
        try:
            raise ValueError("\x1b]0;title\x07 \u202e\x9b2J zoë")
        except ValueError:
            console.handle(
                logging.LogRecord("", logging.INFO, "", 0, "a\rb %s", ("\x1b[2J",), sys.exc_info())
            )
        console.stop()
        first, *_, last, end = pipe.read(1 << 20).decode().split(os.linesep)
    assert (first, last, end) == ("a b [2J", "ValueError: ]0;title 2J zoë", "")


def test_log_lines_that_nobody_reads_are_dropped(monkeypatch):
    """A line reports their number as soon as the console is read again."""
    monkeypatch.setattr(server, "MAX_LOG_LINES", 10)
    out, into = os.pipe()
    with open(out, "rb", buffering=0) as pipe, open(into, "wb", buffering=0) as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        monkeypatch.setattr(sys, "stdout", None)  # as in a program without a console
        console = server.Console()
        console.print("lost")
        for number in range(50):
            text = "%02d " % number + "x" * 65536  # more than a pipe takes
            console.handle(logging.LogRecord("", logging.INFO, "", 0, text, None, None))
        shown = b""
        while b"dropped" not in shown:
            shown += pipe.read(1 << 20)
        console.handle(logging.LogRecord("", logging.INFO, "", 0, "the last", None, None))
        while b"the last" not in shown:
            shown += pipe.read(1 << 20)
        console.stop()
    lines = [line[:60] for line in shown.decode().split(os.linesep)]
    dropped = [line for line in lines if "dropped" in line]
    assert len(dropped) == 1
    kept = [line[:2] for line in lines if line.endswith("x")]
    assert kept == ["%02d" % number for number in range(len(kept))] and 9 <= len(kept) < 13
    assert lines[-3:] == [dropped[0], "the last", ""]


# Account chores


def do(folder, *args, said=b""):
    """Run `server.py --data FOLDER` to its end: its exit code, stdout and stderr."""
    command = [sys.executable, str(PROGRAM), "--data", str(folder), *args]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = process.communicate(said, timeout=TIMEOUT)
    return process.returncode, out.decode().splitlines(), err.decode().splitlines()


def log_in(folder, name, password):
    """The account, if that is its password."""
    with contextlib.closing(server.Store(str(folder), claim=False)) as store:
        return store.log_in(name, password)


@needs_scrypt
def test_accounts_are_made_changed_and_deleted_while_a_server_runs(start, tmp_path):
    """The password is a line of standard input; each time the user reads what was done."""
    folder = tmp_path / "data"
    process = start("--data", str(folder))
    alice = process.irc("alice")
    made = do(folder, "--add-account", "Zo\u00eb", "--oper", said=b"correct horse\nnot this\n")
    assert made == (0, ["Zo\u00eb now has an operator's account."], [])
    assert log_in(folder, "zo\u00eb", "correct horse").is_operator
    assert do(folder, "--add-account", "bob", said="p\u00e4ssword\r\n".encode())[0] == 0
    assert log_in(folder, "bob", "p\u00e4ssword")
    assert do(folder, "--list-accounts") == (0, ["bob", "Zo\u00eb (operator)"], [])
    changed = do(folder, "--add-account", "zo\u00eb", said=b"battery staple")
    assert changed == (0, ["zo\u00eb has a new password, and is an ordinary account."], [])
    assert log_in(folder, "zo\u00eb", "correct horse") is None
    assert not log_in(folder, "zo\u00eb", "battery staple").is_operator
    text = "bob no longer has an account. Anyone may use the name."
    assert do(folder, "--remove-account", "bob") == (0, [text], [])
    assert do(folder, "--list-accounts")[1] == ["Zo\u00eb"]
    alice.send("PRIVMSG #lobby :still here")
    alice.heard()
    process.signal(signal.SIGTERM)
    assert process.wait() == 0
    assert not any("horse" in line or "kept" in line for line in process.log)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"", "A password has at least 8 characters."),
        (b"1234567\n", "A password has at least 8 characters."),
        (b"x" * 301, "That password is too long: 300 bytes at most."),
        (b"caf\xe9 au lait", "The password is not UTF-8."),
    ],
)
def test_a_password_that_is_not_allowed_is_refused_in_one_line(tmp_path, said, words):
    """Nothing is made."""
    told = do(tmp_path / "data", "--add-account", "alice", said=said)
    assert told == (2, [], ["server.py: " + words])
    assert not (tmp_path / "data").exists()


@needs_scrypt
@pytest.mark.parametrize(
    ("typed", "code", "told"),
    [
        ("correct horse\ncorrect horse\n", 0, "alice now has an ordinary account."),
        ("correct horse\nwrong horse\n", 2, "The two passwords differ."),
        ("short\n", 2, "A password has at least 8 characters."),
        ("correct horse\n\x04", 2, "nothing was changed."),
        ("\x03", 2, "nothing was changed."),
    ],
)
def test_a_terminal_is_asked_for_a_password_twice_and_never_shows_it(tmp_path, typed, code, told):
    """Ctrl-C and Ctrl-D leave everything as it was."""
    pty = pytest.importorskip("pty")
    folder = tmp_path / "data"
    command = "import os, sys, pty; sys.exit(pty.spawn(sys.argv[1:]) >> 8)"  # a terminal of its own
    arguments = [sys.executable, str(PROGRAM), "--data", str(folder), "--add-account", "alice"]
    outer, inner = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", command, *arguments], stdin=inner, stdout=inner, stderr=inner
    )
    try:
        os.close(inner)
        shown = read_until(outer, b"Password for alice: ")
        first, newline, second = typed.partition("\n")
        os.write(outer, (first + newline).encode())
        if second:
            shown += read_until(outer, b"Repeat it: ")
            os.write(outer, second.encode())
        shown += read_until(outer, told.encode())
        assert process.wait(TIMEOUT) == code
    finally:
        process.kill()  # and its terminal hangs up on the server
        process.wait()
        os.close(outer)
    assert b"horse" not in shown
    assert folder.exists() == (code == 0)
    if code == 0:
        assert log_in(folder, "alice", "correct horse")


def read_until(descriptor, end):
    """Return the output of a terminal up to `end`."""
    shown = b""
    while end not in shown:
        shown += os.read(descriptor, 4096)
    return shown


@pytest.mark.skipif(
    not (hasattr(hashlib, "scrypt") and os.path.exists("/proc/self/statm")),
    reason="no scrypt, or no way to ask for the memory in use",
)
def test_passwords_of_many_clients_take_the_memory_of_two(start, tmp_path):
    """Each costs 16 MiB while it is hashed, two at a time."""
    process = start("--data", str(tmp_path / "data"))

    def pages():
        path = "/proc/%d/statm" % process._process.pid
        with open(path, encoding="ascii") as file:
            return int(file.read().split()[1])

    people = [process.irc("guest%d" % number) for number in range(12)]
    before = pages()
    for number, person in enumerate(people):
        person.send("OPER nobody%d :wrong password" % number)
    for person in people:
        assert " 464 " in person.heard()[-1]
    taken = (pages() - before) * os.sysconf("SC_PAGE_SIZE")
    assert taken < 48 << 20
