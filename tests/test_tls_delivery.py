"""Tests of the work that TLS causes in the delivery: as little as may be."""

import contextlib
import shutil
import socket
import ssl

import pytest

import protocol
import server
from protocol import TlsPipe

TEXT = 0x17  # the first byte of a record that carries text, not a handshake


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """The path of a key and a certificate."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    return server.make_certificate(str(tmp_path_factory.mktemp("tls")))


@pytest.fixture
def trusting():
    """A context for clients that takes any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@pytest.fixture
def client():
    """A client of the server whose delivery does not run."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        stack.enter_context(socket.create_connection(listener.getsockname()))
        client = server.Client(stack.enter_context(listener.accept()[0]), "192.0.2.1", 6667)
        stack.callback(client.writer.detach)
        yield client


def test_outbox_is_encrypted_at_once(client, certificate, trusting):
    context, _ = server.load_certificate(certificate, "")
    client.tls, peer = TlsPipe(context), TlsPipe(trusting, "hubbub.example")
    while not (client.tls.is_open and peer.is_open):
        client.decrypt(peer.outgoing())
        client.encrypt_outbox(client.tls)
        peer.receive(b"".join(client.outbox))
        client.outbox.clear()

    client.outbox = [b"one, ", b"two, "]
    client.encrypt_outbox(client.tls)
    (record,) = client.outbox
    assert record[0] == TEXT
    assert len(record) == 5 + int.from_bytes(record[3:5], "big")

    client.is_blocked = True
    client.outbox += [b"three, ", b"four"]
    client.encrypt_outbox(client.tls)
    assert client.outbox[0] is record
    assert peer.receive(b"".join(client.outbox)) == b"one, two, three, four"

    for _ in range(5):
        client.tls.send(bytes(protocol.MAX_RECORD))  # an answer of TLS itself, not taken
    peer.send(b"x")
    with pytest.raises(server.Disconnect, match="SendQ exceeded"):
        client.decrypt(peer.outgoing())
    peer.receive(client.tls.outgoing())

    client.is_blocked, client.finishing = False, True
    client.outbox = [b"Goodbye."]
    client.encrypt_outbox(client.tls)
    assert peer.receive(b"".join(client.outbox)) == b"Goodbye."
    assert peer.is_ended


def test_work_is_posted_only_when_tls_has_something_to_say(open_room, certificate, trusting):
    """Work of one client among the messages of a channel costs each member a send."""
    room = open_room(tls_cert=certificate)
    delivery, posted = room.server.delivery, []
    delivery.enqueue = lambda work: (posted.append(work), delivery.pending.append(work))
    with socket.create_connection(("127.0.0.1", room.server.port)) as plain:
        with trusting.wrap_socket(plain) as talker, talker.makefile("r") as lines:
            talker.sendall(b"NICK alice\r\nUSER a 0 * :a\r\nPING :ready\r\n")
            assert any("PONG" in line and "ready" in line for line in lines)
            handshake = [work for work in posted if work[1:] == (bytes,)]
            assert handshake
            for number in range(5):
                talker.sendall(b"PING :%d\r\n" % number)
                assert ":%d" % number in next(lines)
    assert [work for work in posted if work[1:] == (bytes,)] == handshake
