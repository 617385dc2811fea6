"""Tests of encryption: the pipe without I/O, the server's door, and the client's trust."""

import contextlib
import functools
import inspect
import itertools
import os
import queue
import select
import signal
import socket
import ssl
import stat
import subprocess
import threading

import pytest
import test_budget
import test_server
from client_harness import Caller
from harness import TIMEOUT, IrcTalker, Process, Talker, count_descriptors, trusting_context

import client
import protocol
import server
from protocol import TlsPipe

LINES = b"NICK alice\r\n" + b"PRIVMSG #lobby :%s\r\n" % (b"x" * 400) * 100


@pytest.fixture
def make_pipes(certificate):
    """Make the two ends of a connection, of these versions at most."""

    def make(version=ssl.TLSVersion.MAXIMUM_SUPPORTED):
        contexts = [ssl.SSLContext(p) for p in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT)]
        contexts[0].load_cert_chain(str(certificate))
        contexts[1].check_hostname = False
        contexts[1].verify_mode = ssl.CERT_NONE
        contexts[1].maximum_version = version
        return TlsPipe(contexts[0]), TlsPipe(contexts[1], "hubbub.example")

    return make


def exchange(one, other, size=1 << 30):
    """Carry bytes between two pipes, in pieces, until there are none; return what each heard."""
    heard = {one: b"", other: b""}
    while True:
        carried = 0
        for here, there in ((one, other), (other, one)):
            data = here.outgoing()
            carried += len(data)
            for start in range(0, len(data), size):
                heard[there] += there.receive(data[start : start + size])
        if not carried:
            return heard[one], heard[other]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("size", [1, 2, 5, 1000, 1 << 30])
def test_what_is_said_arrives_in_any_pieces(make_pipes, version, size):
    server, client = make_pipes(version)
    client.send(LINES)  # before the handshake: it waits
    server.send(b"hello")
    assert exchange(server, client, size) == (LINES, b"hello")
    server.send(LINES * 3)
    client.send(b"")
    assert exchange(server, client, size) == (b"", LINES * 3)
    client.send(b"bye")
    client.close()
    assert exchange(server, client, size) == (b"bye", b"")
    assert (server.is_ended, client.is_ended) == (True, False)


def test_stream_is_cut_at_every_byte(make_pipes):
    server, client = make_pipes()
    assert exchange(server, client) == (b"", b"")
    for cut in range(60):
        client.send(b"PING :%d" % cut)
        data = client.outgoing()
        heard = server.receive(data[:cut]) + server.receive(data[cut:])
        assert heard == b"PING :%d" % cut


@pytest.mark.parametrize("data", [b"NICK bob\r\n", b"\x16\x03\x01\x00\x05hello", b"\0" * 99])
def test_garbage_ends_the_connection(make_pipes, data):
    for pipe in make_pipes():
        with pytest.raises(ssl.SSLError):
            pipe.receive(data)


def test_changed_byte_is_noticed(make_pipes):
    server, client = make_pipes()
    exchange(server, client)
    client.send(b"hello")
    data = bytearray(client.outgoing())
    data[-1] ^= 1
    with pytest.raises(ssl.SSLError):
        server.receive(bytes(data))


def test_fingerprint_is_that_of_the_certificate(make_pipes, certificate):
    server, client = make_pipes()
    assert client.fingerprint() == ""
    exchange(server, client)
    command = ["openssl", "x509", "-in", str(certificate), "-noout", "-sha256", "-fingerprint"]
    said = subprocess.check_output(command).decode().strip().partition("=")[2]
    assert client.fingerprint().upper() == said.replace(":", "")
    assert server.fingerprint() == ""
    groups = protocol.format_fingerprint(client.fingerprint()).split()
    assert "".join(groups) == said.replace(":", "")
    assert {len(group) for group in groups} == {4}


# The server


@pytest.fixture
def open_room(open_room, certificate):
    """Start servers whose clients are encrypted unless said otherwise."""
    return functools.partial(open_room, tls=True, tls_cert=str(certificate))


KEPT = [
    (test_server.test_irc_and_plain_text_users_talk_to_each_other, {}),
    (test_server.test_conversation_in_plain_text, {}),
    (test_server.test_silent_user_is_asked_for_a_username, {}),
    (test_server.test_messages_in_a_single_write_arrive_apart, {}),
    (test_server.test_message_split_across_writes_is_joined, {}),
    (test_server.test_all_users_see_the_same_order, {}),
    (test_server.test_endless_line_is_refused_and_forgotten, {}),
    (test_server.test_client_that_never_reads_delays_nobody, {}),
    (test_server.test_client_that_reads_late_gets_all_that_waited, {}),
    (test_server.test_many_short_visits_leave_nothing_behind, {}),
    (test_server.test_flood_is_slowed_and_loses_nothing, {}),
    (test_server.test_full_queue_slows_the_readers_and_loses_nothing, {}),
    (test_server.test_server_that_stops_tells_all_and_waits_for_nobody, {}),
    (test_server.test_probe_is_told_goodbye_and_counts_for_nothing, {"lines": ["QUIT"]}),
    (test_server.test_probe_is_told_goodbye_and_counts_for_nothing, {"lines": []}),
    (test_server.test_registration_that_takes_too_long_is_ended, {"line": ""}),
    (test_budget.test_piece_of_a_line_has_its_price, {}),
    (test_budget.test_largest_outbox_goes_first, {"limit": "MAX_OUTBOXES"}),
    *(
        (test_server.test_hostile_peer_leaves_nothing_behind, {"pieces": pieces, "leave": leave})
        for pieces in test_server.HOSTILE.values()
        for leave in ("close", "reset")
    ),
    *(
        (
            test_server.test_end_of_a_connection_is_announced_once,
            dict(zip(("end", "reason", "options"), end)),
        )
        for end in test_server.ENDS
    ),
]


@pytest.mark.parametrize(("test", "arguments"), KEPT)
def test_promise_is_kept_over_tls(request, test, arguments):
    for name in set(inspect.signature(test).parameters) - set(arguments):
        arguments = {**arguments, name: request.getfixturevalue(name)}
    test(**arguments)


def run_s_client(port, *options, text="bob\r\nhello\r\n/quit\r\n"):
    """Return what `openssl s_client` shows to a user who types `text`."""
    command = ["openssl", "s_client", "-connect", "127.0.0.1:%d" % port, *options]
    return subprocess.run(
        command, input=text.encode(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=20
    ).stdout.decode()


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_user_with_openssl_is_in_the_chat(room, version):
    alice = room.irc("alice")
    assert "[bob]: hello\r\n" in run_s_client(room.server.port, "-quiet", version)
    assert [line.split()[1] for line in alice.heard()] == ["JOIN", "PRIVMSG", "QUIT"]


def test_old_versions_are_refused(room):
    shown = run_s_client(room.server.port, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0")
    assert "alert protocol version" in shown and "hello" not in shown


def test_renegotiation_is_refused(room):
    """Each would have the server compute, for nothing."""
    shown = run_s_client(room.server.port, "-tls1_2", text="R\n")
    assert "no renegotiation" in shown
    room.irc("alice").heard()


@pytest.mark.parametrize("group", ["X448", "P-521", "ffdhe2048", "ffdhe8192"])
def test_key_exchange_that_takes_the_server_long_is_refused(room, group):
    """A hello costs its sender nothing, and the largest group cost the server 90 ms."""
    assert "handshake failure" in run_s_client(room.server.port, "-groups", group)
    assert "[bob]: hello" in run_s_client(room.server.port, "-quiet", "-groups", group + ":P-256")


def test_page_is_served_inside_tls(room):
    browser = room.connect()
    browser.send("GET / HTTP/1.1", "Host: 127.0.0.1:%d" % room.server.port, "")
    assert browser.rest_of_bytes().startswith(b"HTTP/1.1 200 OK\r\n")


def test_encryption_is_offered_in_the_clear_alone(room):
    for is_encrypted in (False, True):
        talker = room.connect(IrcTalker, tls=is_encrypted)
        talker.send("CAP LS 302", "CAP REQ :hubbub/tls")
        offer, answer = talker.heard()
        assert ("hubbub/tls" in offer.split()) != is_encrypted
        assert answer == ":hubbub.local CAP * NAK :hubbub/tls"


def test_users_see_who_is_encrypted(room):
    alice = room.irc("alice")
    room.irc("bob", tls=False)
    alice.send("WHOIS bob", "WHOIS alice")
    (line,) = [line for line in alice.heard() if " 671 " in line]
    assert line == ":hubbub.local 671 alice alice :is using a secure connection"


def test_fingerprint_is_in_the_statistics(room, monkeypatch):
    alice = room.irc("alice")
    monkeypatch.setattr(server.Client, "is_operator", True)
    alice.send("STATS")
    digest = protocol.format_fingerprint(protocol.fingerprint(alice.certificate))
    assert any(line.endswith(" :fingerprint: " + digest) for line in alice.heard())


# Hostile peers


class RawPeer(Talker):
    """A client that does TLS by itself, and wrongly."""

    def __init__(self, port, tls=True, version=ssl.TLSVersion.TLSv1_3):
        super().__init__(port)
        context = trusting_context()
        context.maximum_version = version
        self.pipe = TlsPipe(context, "hubbub.example")
        self.hello = self.pipe.outgoing()

    def open(self):
        """Shake hands; return self."""
        self.send_bytes(self.hello)
        while not self.pipe.is_open:
            self.pipe.receive(self._socket.recv(65536))
            self.send_bytes(self.pipe.outgoing())
        return self

    def encrypted(self, data):
        self.pipe.send(data)
        return self.pipe.outgoing()

    def until_closed(self):
        """Return what the server says inside TLS until it closes the connection."""
        said = b""
        while True:
            data = self._socket.recv(65536)
            if not data:
                return said.decode()
            said += self.pipe.receive(data)


def garbage_after_the_hello(peer):
    peer.send_bytes(peer.hello + b"NICK evil\r\nUSER evil 0 * :evil\r\n")


def garbage_in_the_hello(peer):
    peer.send_bytes(peer.hello[:60] + bytes(len(peer.hello)))


def half_a_hello(peer):
    peer.send_bytes(peer.hello[:100])
    peer.finish()


def hello_alone(peer):
    peer.send_bytes(peer.hello)
    peer.finish()


def clear_text_inside(peer):
    peer.open().send_bytes(b"NICK evil\r\nUSER evil 0 * :evil\r\n")


def changed_record(peer):
    data = bytearray(peer.open().encrypted(b"NICK evil\r\nUSER evil 0 * :evil\r\n"))
    data[-3] ^= 1
    peer.send_bytes(data)


def repeated_record(peer):
    data = peer.open().encrypted(b"PING x\r\n")
    peer.send_bytes(data + data)


def endless_record(peer):
    peer.open().send_bytes(b"\x17\x03\x03\xff\xff" + bytes(70000))


def hello_inside(peer):
    other = TlsPipe(trusting_context(), "hubbub.example")
    peer.open().send_bytes(peer.encrypted(other.outgoing()))


def end_without_notice(peer):
    peer.open().send_bytes(peer.encrypted(b"NICK evil\r\nUSER evil 0 * :evi"))
    peer.finish()


def notice_without_end(peer):
    peer.open().send_bytes(peer.encrypted(b"NICK evil\r\n"))
    peer.pipe.close()
    peer.send_bytes(peer.pipe.outgoing())


def ssl_2_hello(peer):
    peer.send_bytes(b"\x16\x80\x2e\x01\x00\x02" + bytes(40))


ATTACKS = [
    garbage_after_the_hello, garbage_in_the_hello, half_a_hello, hello_alone, clear_text_inside,
    changed_record, repeated_record, endless_record, hello_inside, end_without_notice,
    notice_without_end, ssl_2_hello,
]  # fmt: skip


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("attack", ATTACKS)
def test_wrong_tls_ends_the_connection_and_leaves_nothing_behind(room, attack, version):
    alice = room.irc("alice")
    alice.heard()
    threads, descriptors = threading.active_count(), count_descriptors()
    peer = room.connect(RawPeer, version=version)
    attack(peer)
    with contextlib.suppress(ConnectionResetError, ssl.SSLError):
        assert "evil" not in peer.until_closed()
    peer.close()
    room.wait_until_gone(peer)
    assert alice.heard() == []
    assert (threading.active_count(), count_descriptors()) == (threads, descriptors)
    assert room.names() == {"alice"}


def test_half_handshake_has_the_time_of_registration(open_room, monkeypatch):
    """It is not asked for a username, though it is slower than that."""
    monkeypatch.setattr(server, "PROMPT_AFTER", 0.02)
    room = open_room(register_timeout=0.3)
    stopped, slow = room.connect(RawPeer), room.connect(RawPeer)
    for peer in (stopped, slow):
        peer.send_bytes(peer.hello[:100])
    stopped.until_closed()
    slow = room.connect(RawPeer)
    slow.send_bytes(slow.hello[:100])
    for byte in slow.hello[100:]:
        slow.send_bytes(bytes([byte]))
    slow.hello = slow.encrypted(b"QUIT\r\n")
    assert slow.open().until_closed() == "ERROR Goodbye.\r\n"


def test_slow_handshake_is_not_asked_for_a_username(open_room, monkeypatch):
    monkeypatch.setattr(server, "PROMPT_AFTER", 0.02)
    room, noticed = open_room(), threading.Event()
    take = server.Session.flush
    monkeypatch.setattr(server.Session, "flush", lambda *args: (take(*args), noticed.set()))
    slow = room.connect(RawPeer)
    slow.send_bytes(slow.hello[:100])
    assert noticed.wait(20)  # it has been silent for too long
    slow.hello = slow.hello[100:]
    slow.pipe.send(b"QUIT\r\n")
    assert slow.open().until_closed() == "ERROR Goodbye.\r\n"
    assert slow.pipe.is_ended  # nobody has cut it short


def test_large_record_in_pieces_arrives_whole_and_is_paid_for_once(room, monkeypatch):
    peer, paid = room.connect(RawPeer).open(), []
    peer.send_bytes(peer.encrypted(b"NICK bob\r\nUSER bob 0 * :Bob\r\n"))
    alice = room.irc("alice")
    monkeypatch.setattr(server.Session, "_take", lambda session, count: paid.append(count) or 0.0)
    lines = b"PRIVMSG alice :%s\r\n" % (b"x" * 340)
    data = peer.encrypted(lines * 40 + b"QUIT\r\n")
    for start in range(0, len(data), 1000):
        peer.send_bytes(data[start : start + 1000])
    peer.until_closed()
    heard = alice.heard()
    assert sum(" PRIVMSG alice " in line for line in heard) == 40
    assert sum(paid) < 2 * 40 + len(data) / server.BYTES_PER_TOKEN + 10


def test_records_that_say_little_are_paid_for(room, monkeypatch):
    """Such as those with a single letter each."""
    peer, paid = room.connect(RawPeer).open(), []
    monkeypatch.setattr(server.Session, "_take", lambda session, count: paid.append(count) or 0.0)
    data = b"".join(peer.encrypted(b"x") for _ in range(600)) + peer.encrypted(b"\r\n/quit\r\n")
    peer.send_bytes(data)
    peer.until_closed()
    assert sum(paid) > 0.9 * len(data) / server.BYTES_PER_TOKEN


def test_pieces_of_a_handshake_are_paid_for(room, monkeypatch):
    paid, peer = queue.Queue(), room.connect(RawPeer)
    monkeypatch.setattr(server.Session, "_take", lambda session, count: paid.put(count) or 0.0)
    for byte in peer.hello[:50]:
        peer.send_bytes(bytes([byte]))
        while paid.get(timeout=TIMEOUT) != server.PIECE_PRICE:
            pass


def test_twenty_that_never_read_delay_nobody(open_room):
    """They are ended once too much waits for them, encrypted; the rest goes on."""
    room = open_room(max_sendq=100000)
    for number in range(20):
        room.irc("sleeper%d" % number, receive_buffer=4096)
    alice, bob = room.irc("alice"), room.irc("bob")
    for round_ in range(10):
        alice.send(*["PRIVMSG #lobby :%d %s" % (round_, "x" * 300)] * 100)
        alice.heard()
        assert sum(":%d x" % round_ in line for line in bob.heard()) == 100
    while len(room.names()) > 2:
        alice.send(*["PRIVMSG #lobby :" + "x" * 400] * 100)
        alice.heard()
    assert sum("SendQ exceeded" in line for line in bob.heard()) == 20


# The server's certificate


@pytest.fixture
def start(tmp_path):
    """Start `python server.py` with arguments; end what is left of it."""
    with contextlib.ExitStack() as stack:

        def start_(*args, **options):
            process = Process(tmp_path / "stderr", *args, **options)
            stack.callback(process.close)
            return process

        yield start_


def told(process):
    """Stop a server; return what its console has told."""
    process.signal(signal.SIGTERM)
    assert process.wait() == 0
    return [line.partition(" ")[2] for line in process.rest_of_output()]


def test_certificate_is_made_once_and_kept(start, tmp_path):
    folder, certificates = tmp_path / "data", set()
    for _ in range(2):
        process = start("--data", str(folder), tls=True)
        alice = process.irc("alice")
        certificates.add(alice.certificate)
        digest = protocol.format_fingerprint(protocol.fingerprint(alice.certificate))
        assert "Encrypted, with the fingerprint " + digest in told(process)
        assert stat.S_IMODE((folder / "tls.pem").stat().st_mode) == 0o600
        assert not list(folder.glob("*.new"))
    assert len(certificates) == 1


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("data", "the openssl command is not installed, so there is no certificate"),
        ("", "a certificate is kept in the folder of --data, and there is none"),
    ],
)
def test_chat_is_in_the_clear_without_a_certificate(start, tmp_path, data, words):
    folder = str(tmp_path / data) if data else ""
    process = start("--data", folder, environment={**os.environ, "PATH": str(tmp_path)})
    assert not list(tmp_path.glob("*/*.new"))
    alice = process.irc("alice")
    alice.send("CAP LS")
    assert "hubbub/tls" not in alice.heard()[0]
    assert "Not encrypted: %s" % words in told(process)


@pytest.mark.skipif(os.name == "nt", reason="the command is a shell script")
@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("exit 0", "cannot use the certificate in FOLDER/tls.pem.new: there is none"),
        ("exit 3", "openssl made no certificate: Command openssl returned non-zero exit status 3."),
        (
            "exec sleep 60",
            "openssl made no certificate: Command openssl timed out after 0.2 seconds",
        ),
        ("echo No space left >&2; exit 1", "openssl made no certificate: No space left"),
    ],
)
def test_certificate_that_is_of_no_use_is_not_kept(tmp_path, monkeypatch, script, words):
    command = tmp_path / "openssl"
    command.write_text("#!/bin/sh\n%s\n" % script)
    command.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(server, "OPENSSL_TIMEOUT", 0.2)
    with pytest.raises(server.CertificateError) as raised:
        server.make_certificate(str(tmp_path))
    assert str(raised.value) == words.replace("FOLDER", str(tmp_path))
    assert os.listdir(str(tmp_path)) == ["openssl"]


# The client, and a man in the middle


class ManInTheMiddle:
    """Answers in the place of a server, as `plan` says; keeps all that clients say to it."""

    def __init__(self, port, certificate):
        self._far_port = port
        self._context, _ = server.load_certificate(certificate, "")
        self.heard = bytearray()  # as it came
        self.decrypted = bytearray()
        self.calls = 0
        self.plan = self.relay
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._near = None
        self._thread = threading.Thread(target=self._run, name="man in the middle")
        self._thread.start()

    def _run(self):
        with contextlib.suppress(OSError):  # the end
            while True:
                self._near = self._listener.accept()[0]
                self.calls += 1
                with self._near, contextlib.suppress(OSError):
                    self.plan()

    def _hear(self):
        data = self._near.recv(65536)
        self.heard += data
        return data

    def relay(self, is_stripped=False):
        with socket.create_connection(("127.0.0.1", self._far_port)) as far:
            while True:
                ready = select.select([self._near, far], [], [])[0]
                data = self._hear() if self._near in ready else far.recv(65536)
                if not data:
                    return
                if self._near in ready:
                    far.sendall(data)
                else:
                    self._near.sendall(data.replace(b"hubbub/tls", b"") if is_stripped else data)

    def strip(self):
        """Hide that the server is encrypted, too."""
        self.relay(is_stripped=True)

    def impersonate(self):
        """Show another certificate."""
        pipe = TlsPipe(self._context)
        while not pipe.is_ended:
            data = self._hear()
            if not data:
                return
            self.decrypted += pipe.receive(data)
            self._near.sendall(pipe.outgoing())

    def hang_up(self):
        self._hear()

    def answer_in_the_clear(self):
        while self._hear():
            self._near.sendall(b"CAP * LS :sasl\r\n")

    def cut(self):
        self._near.shutdown(socket.SHUT_RDWR)

    def close(self):
        """End, after all that was said has been heard. Idempotent."""
        with contextlib.suppress(OSError):  # closed already
            self._listener.shutdown(socket.SHUT_RDWR)
            self.cut()
        self._thread.join(20)
        self._listener.close()


def pin_of(room):
    """Return the fingerprint of a server's certificate as clients keep it."""
    return room.server.digest.replace(" ", "").lower()


@pytest.fixture
def hidden(open_room, make_certificate):
    """A server with a password, behind a man in the middle."""
    room = open_room(password="sesame")
    with contextlib.closing(ManInTheMiddle(room.server.port, make_certificate())) as mallory:
        mallory.pin = pin_of(room)
        yield mallory


@pytest.fixture
def call(monkeypatch):
    """Open connections, which give up in the end; at the end none of their threads is left."""
    monkeypatch.setattr(client, "RETRY_TIMES", (0.0, 0.01))
    with contextlib.ExitStack() as stack:

        def call_(port, **options):
            caller = Caller(port, "alice", **options)
            stack.callback(caller.close)
            return caller

        yield call_


CAP_LS = b"CAP LS :302\r\n"


def test_first_contact_is_encrypted_before_a_name_is_given(hidden, call):
    alice = call(hidden.port, password="sesame")
    assert alice.welcomed().pin == hidden.pin
    alice.joined()
    assert hidden.heard.startswith(CAP_LS + b"\x16\x03")
    assert not {word for word in (b"alice", b"sesame") if word in hidden.heard}


def test_first_contact_may_be_in_the_clear(hidden, call):
    """Nothing could tell the client; the user is told that it is not encrypted."""
    hidden.plan = hidden.strip
    alice = call(hidden.port, password="sesame")
    assert alice.welcomed().pin == ""
    assert b"alice" in hidden.heard


@pytest.mark.parametrize(
    ("pin", "is_reconnecting"), [("known", False), ("known", True), ("", True)]
)
@pytest.mark.parametrize(
    ("plan", "text"),
    [
        ("strip", ""),
        ("impersonate", client.OTHER_CERTIFICATE),
        ("hang_up", "%s answers, but not as a chat server does."),
        ("answer_in_the_clear", client.NO_ENCRYPTION),
    ],
)
def test_later_contact_says_nothing_secret_to_another(
    hidden, call, plan, text, pin, is_reconnecting
):
    """No name, no password, no token, neither in the clear nor encrypted for the other."""
    hidden.plan = hidden.relay if is_reconnecting else getattr(hidden, plan)
    alice = call(hidden.port, password="sesame", pin=pin and hidden.pin)
    if is_reconnecting:
        assert alice.welcomed().pin == hidden.pin
        alice.joined()
        assert alice.connection._token
        hidden.plan = getattr(hidden, plan)
        hidden.heard.clear()
        hidden.cut()
    text = text and text % alice.connection.address
    if plan == "strip":  # there is nothing to strip any more
        assert alice.welcomed().pin == hidden.pin
    elif plan == "hang_up" and is_reconnecting:
        while alice.lost().attempt < 3:
            pass
    else:
        assert alice.end() == (client.SERVER if plan == "hang_up" else client.TRUST, text)
    alice.close()
    hidden.close()
    assert bytes(hidden.heard[:2]) == b"\x16\x03"
    assert not {word for word in (b"CAP", b"alice", b"sesame") if word in hidden.heard}
    assert hidden.decrypted == b""


def test_certificate_that_changes_while_the_server_restarts_is_refused(
    open_room, make_certificate, call, tmp_path
):
    room = open_room(data=str(tmp_path))
    alice = call(room.server.port)
    pin = alice.welcomed().pin
    alice.joined()
    for path, is_known in ((room.server.options.tls_cert, True), (make_certificate(), False)):
        room.close()
        room = open_room(data=str(tmp_path), port=room.server.port, tls_cert=path)
        if is_known:
            assert alice.welcomed().pin == pin
            alice.joined()
    assert alice.end() == (client.TRUST, client.OTHER_CERTIFICATE % alice.connection.address)
    again = call(room.server.port, pin=client.FIRST)  # trusted on purpose
    assert again.welcomed().pin == pin_of(room)


def test_end_of_tls_is_the_end_of_the_connection(certificate):
    """Even if it comes with a last line, and the network's connection stays."""
    pipe = TlsPipe(server.load_certificate(str(certificate), "")[0])
    ours, theirs = socket.socketpair()
    with ours, theirs:
        carrier = client.Carrier(ours, "hubbub.example", client.FIRST)
        while not (carrier.is_open and pipe.is_open):
            carrier.send(b"")
            pipe.receive(theirs.recv(65536))
            theirs.sendall(pipe.outgoing())
            assert carrier.is_open or carrier.receive() == b""
        pipe.send(b"bye")
        pipe.close()
        theirs.sendall(pipe.outgoing())
        assert carrier.receive() == b"bye"
        with pytest.raises(client.EndedError):
            carrier.receive()


@pytest.mark.parametrize("is_known", [False, True])
def test_full_server_says_so_to_an_encrypted_client(open_room, call, is_known):
    """Before the server knows how the client speaks."""
    room = open_room(max_clients=1)
    room.irc("bob")
    alice = call(room.server.port, pin=pin_of(room) if is_known else client.FIRST)
    assert alice.end() == (client.REJECTED, "Hubbub is full (1 person). Try again later.")


def test_damage_on_the_way_is_a_lost_connection(hidden, call):
    alice = call(hidden.port, password="sesame")
    alice.joined()
    hidden._near.sendall(b"NOTICE alice :Type your password here\r\n")
    alice.lost()
    assert alice.welcomed().pin == hidden.pin


@pytest.fixture(scope="module")
def issue(tmp_path_factory):
    """Issue certificates of an authority; each call returns the path of another."""
    folder = tmp_path_factory.mktemp("authority")
    run = functools.partial(subprocess.run, check=True, cwd=folder, stderr=subprocess.DEVNULL)
    new = "openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=%s"
    run((new % "authority" + " -x509 -keyout ca.key -out ca.pem").split())
    count = itertools.count()

    def issue_(name):
        path, extensions = folder / ("%d.pem" % next(count)), folder / "extensions"
        extensions.write_text("subjectAltName = %s\n" % name)
        run((new % "server" + " -keyout %s -out request" % path).split())
        sign = "openssl x509 -req -in request -CA ca.pem -CAkey ca.key -CAcreateserial -extfile"
        run([*sign.split(), extensions.name, "-out", "certificate"])
        path.write_text(path.read_text() + (folder / "certificate").read_text())
        return str(path)

    issue_.authority = str(folder / "ca.pem")
    return issue_


def test_certificates_that_the_system_trusts_need_no_pin(
    open_room, certificate, call, issue, monkeypatch
):
    monkeypatch.setenv("SSL_CERT_FILE", issue.authority)
    valid, another, wrong = (issue(name) for name in ("IP:127.0.0.1", "IP:127.0.0.1", "DNS:x.org"))
    for path, pin, kept in (
        (valid, "", client.SYSTEM),
        (valid, client.FIRST, client.SYSTEM),
        (another, client.SYSTEM, client.SYSTEM),
        (certificate, client.SYSTEM, None),
        (wrong, client.SYSTEM, None),
        (wrong, client.FIRST, "fingerprint"),
        (certificate, client.FIRST, "fingerprint"),
        (certificate, "", "fingerprint"),
    ):
        room = open_room(tls_cert=str(path))
        alice = call(room.server.port, pin=pin)
        if kept is None:
            assert alice.end().fault == client.TRUST
        else:
            expected = pin_of(room) if kept == "fingerprint" else kept
            assert alice.welcomed().pin == expected
