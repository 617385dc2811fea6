"""Tests of encryption: the pipe without I/O, the server's door, and the client's trust."""

import functools
import inspect
import shutil
import ssl
import subprocess
import threading

import pytest
import test_budget
import test_connection
import test_hostile
import test_server
from harness import IrcTalker, PlainTalker, Talker, count_descriptors

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
    client.close()
    assert exchange(server, client, size) == (b"", b"")
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
