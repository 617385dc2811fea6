"""Tests of encryption: the pipe without I/O, the server's door, and the client's trust."""

import shutil
import ssl
import subprocess

import pytest

import protocol
from protocol import TlsPipe

LINES = b"NICK alice\r\n" + b"PRIVMSG #lobby :%s\r\n" % (b"x" * 400) * 100


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """Return the path of a key and a certificate, as the server makes them."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    path = tmp_path_factory.mktemp("tls") / "tls.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=x"
    command += " -days 3650 -keyout %s -out %s.crt" % (path, path)
    subprocess.run(command.split(), check=True, stderr=subprocess.DEVNULL)
    path.write_text(path.read_text() + (path.parent / (path.name + ".crt")).read_text())
    return path


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
