"""The addresses that the console tells people, and the answers to clients that look for servers.

No datagram leaves this computer; broadcasts are sent in network namespaces (test_network.py).
"""

import contextlib
import socket

import pytest
from harness import TIMEOUT, IrcTalker

import protocol
import server
from server import others_reach, parse_interfaces

IP_ADDR = """\
1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536 qdisc noqueue state UNKNOWN group default qlen 1000
    link/loopback 00:00:00:00:00:00 brd 00:00:00:00:00:00
    inet 127.0.0.1/8 scope host lo
       valid_lft forever preferred_lft forever
    inet6 ::1/128 scope host
2: docker0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc noqueue state UP group default
    inet 172.17.0.1/16 brd 172.17.255.255 scope global docker0
3: enp0s25: <NO-CARRIER,BROADCAST,MULTICAST,UP> mtu 1500 qdisc pfifo_fast state DOWN
    inet 10.0.0.5/24 brd 10.0.0.255 scope global enp0s25
4: wlp3s0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc noqueue state UP group default
    link/ether aa:bb:cc:dd:ee:ff brd ff:ff:ff:ff:ff:ff
    inet 192.168.1.20/24 brd 192.168.1.255 scope global dynamic noprefixroute wlp3s0
    inet 192.168.1.21/24 brd 192.168.1.255 scope global secondary wlp3s0:1
    inet6 2001:db8::20/64 scope global dynamic
    inet6 fe80::1c2d/64 scope link
5: tun0@if4: <POINTOPOINT,NOARP,UP,LOWER_UP> mtu 1500
    inet 10.8.0.6 peer 10.8.0.5/32 scope global tun0
"""
MACOS = """\
lo0: flags=8049<UP,LOOPBACK,RUNNING,MULTICAST> mtu 16384
\tinet 127.0.0.1 netmask 0xff000000
\tinet6 ::1 prefixlen 128
\tinet6 fe80::1%lo0 prefixlen 64 scopeid 0x1
utun2: flags=8051<UP,POINTOPOINT,RUNNING,MULTICAST> mtu 1380
\tinet 10.9.0.2 --> 10.9.0.2 netmask 0xffffff00
en0: flags=8863<UP,BROADCAST,SMART,RUNNING,SIMPLEX,MULTICAST> mtu 1500
\tether aa:bb:cc:dd:ee:ff
\tinet6 fe80::8a1%en0 prefixlen 64 secured scopeid 0x4
\tinet 192.168.1.30 netmask 0xffffff00 broadcast 192.168.1.255
\tmedia: autoselect
"""
BUSYBOX = """\
eth0      Link encap:Ethernet  HWaddr 02:42:AC:11:00:02
          inet addr:192.168.1.40  Bcast:192.168.1.255  Mask:255.255.255.0
          inet6 addr: 2001:db8::40/64 Scope:Global
          UP BROADCAST RUNNING MULTICAST  MTU:1500  Metric:1

lo        Link encap:Local Loopback
          inet addr:127.0.0.1  Mask:255.0.0.0
"""


@pytest.mark.parametrize(
    ("output", "told", "told_with_ipv6"),
    [
        (
            IP_ADDR,
            ["192.168.1.20", "192.168.1.21", "172.17.0.1", "10.0.0.5", "10.8.0.6"],
            ["192.168.1.20", "192.168.1.21", "2001:db8::20", "172.17.0.1", "10.0.0.5", "10.8.0.6"],
        ),
        (MACOS, ["192.168.1.30", "10.9.0.2"], ["192.168.1.30", "10.9.0.2"]),
        (BUSYBOX, ["192.168.1.40"], ["192.168.1.40", "2001:db8::40"]),
        ("", [], []),
    ],
    ids=["ip addr", "macOS", "BusyBox", "nothing"],
)
def test_addresses_are_told_that_others_reach_the_most_useful_first(output, told, told_with_ipv6):
    """Of no loopback or link-local IPv6 address; IPv6 only where it is accepted."""
    found = parse_interfaces(output)
    assert others_reach(found, "0.0.0.0") == told
    assert others_reach(found, "::") == told_with_ipv6


@pytest.mark.parametrize(
    ("found", "bound", "told"),
    [
        (["169.254.3.4", "192.168.1.20"], "0.0.0.0", ["192.168.1.20", "169.254.3.4"]),
        (["192.168.1.20", "192.168.1.20"], "0.0.0.0", ["192.168.1.20"]),
        (["fe80::1%eth0", "127.0.0.2", "::1"], "::", []),
        (["192.168.1.20", "10.0.0.5"], "10.0.0.5", ["10.0.0.5"]),
        (["fe80::1%eth0"], "fe80::1%eth0", ["fe80::1%eth0"]),
        (["192.168.1.20"], "127.0.0.2", []),
        (["192.168.1.20"], "::1", []),
    ],
)
def test_address_of_the_listener_decides_what_is_told(found, bound, told):
    assert others_reach(found, bound) == told


@pytest.mark.parametrize(
    ("bound", "found", "lines"),
    [
        ("127.0.0.1", ["192.168.1.20"], ["Only this computer can join"]),
        ("::1", [], ["Only this computer can join"]),
        (
            "::",
            ["192.168.1.20", "2001:db8::20"],
            [
                "Tell people: 192.168.1.20:12001",
                "Tell people: [2001:db8::20]:12001",
                "In a browser: http://192.168.1.20:12001",
            ],
        ),
        (
            "0.0.0.0",
            ["127.0.0.1"],
            [
                "No network was found, so nobody else can join."
                " Connect this computer to Wi-Fi or a cable, then ask again."
            ],
        ),
    ],
)
def test_console_says_how_people_join(monkeypatch, bound, found, lines):
    monkeypatch.setattr(server, "find_addresses", lambda: found)
    assert server.invitation(bound, 12001) == lines


def test_addresses_are_found_without_commands_of_the_system(monkeypatch):
    """From the host's name and its route, as on Windows."""
    found = [(socket.AF_INET, 1, 6, "", ("192.168.1.20", 0))]
    monkeypatch.setattr(server.socket, "getaddrinfo", lambda *args: found)
    monkeypatch.setenv("PATH", "/nowhere")
    assert server.find_addresses()[-1] == "192.168.1.20"


def test_ipv6_server_for_all_addresses_accepts_ipv4(open_room):
    """As the console tells people."""
    try:
        room = open_room(host="::")
    except OSError:
        pytest.skip("IPv6 is turned off")
    room.irc("alice", host="127.0.0.1")
    room.irc("bob", host="::1")


# Discovery


class Seeker:
    """A client that looks for servers; it asks the one on `port`, from one address."""

    def __init__(self, port, host="127.0.0.1"):
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(TIMEOUT)
        self._server = host, port

    def send(self, data):
        self._socket.sendto(data, self._server)

    def ask(self, query_id="a1"):
        self.send(protocol.make_query(query_id))

    def answer(self):
        """Return the next answer: its id, what it says, and whom it is from."""
        data, address = self._socket.recvfrom(2048)
        assert len(data) <= protocol.QUERY_SIZE
        return (*protocol.parse_answer(data), address)

    def close(self):
        self._socket.close()


@pytest.fixture
def seek():
    """Make seekers; close them."""
    with contextlib.ExitStack() as stack:
        yield lambda *args: stack.enter_context(contextlib.closing(Seeker(*args)))


@pytest.fixture(autouse=True)
def also_on(monkeypatch):
    """The UDP port that servers share in this test."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setattr(server, "DISCOVERY_PORT", port)
    return port


def test_server_answers_on_its_port_and_on_the_usual_one(open_room, seek, also_on):
    room = open_room(discovery=True, network="Class 4B")
    room.irc("alice")
    for port in (room.server.port, also_on):
        seeker = seek(port)
        seeker.ask("b2")
        announcement = protocol.ServerInfo("Class 4B", room.server.port, 1, False)
        assert seeker.answer() == ("b2", announcement, ("127.0.0.1", port))


def test_servers_of_one_computer_share_the_usual_port(open_room, seek, also_on):
    """All are found by broadcasts there, and each on its own port."""
    rooms = [open_room(discovery=True, network=name) for name in ("4A", "4B")]
    for room, name in zip(rooms, ("4A", "4B")):
        assert len(room.server.discovery.senders) == 2
        seeker = seek(room.server.port)
        seeker.ask()
        assert seeker.answer()[1].network == name


def test_port_that_another_program_has_is_no_error(open_room, seek, also_on, caplog):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", also_on))
        room = open_room(discovery=True)
    assert "UDP port %d" % also_on in caplog.text
    seeker = seek(room.server.port)
    seeker.ask()
    assert seeker.answer()[1].port == room.server.port


def test_answers_count_registered_users(open_room, seek):
    """Not connections; those who resume are counted once, those who leave no more."""
    room = open_room(discovery=True)
    seeker = seek(room.server.port)

    def count():
        seeker.ask()
        return seeker.answer()[1].users

    room.connect(IrcTalker).send("NICK half")
    alice = room.connect(IrcTalker)
    alice.send("CAP REQ :hubbub/resume", "NICK alice", "USER a 0 * :A", "CAP END")
    alice.heard()
    bob = room.plain("bob")
    assert count() == 2
    bob.close()
    room.wait_until_gone(bob)
    assert count() == 1
    token = room.client("alice").token
    again = room.connect(IrcTalker)
    again.send("CAP REQ :hubbub/resume", "RESUME " + token)
    again.heard()
    alice.close()
    room.wait_until_gone(alice)
    assert count() == 1
    again.close()
    room.wait_until_gone(again)
    assert count() == 0


@pytest.mark.parametrize(
    "junk",
    [b"", b"x", b"{", b"NICK evil\r\n", bytes(512), bytes(2000), protocol.make_query("a1").strip()],
)
def test_what_is_no_query_is_dropped(open_room, seek, junk):
    seeker = seek(open_room(discovery=True).server.port)
    seeker.send(junk)
    seeker.ask("after")
    assert seeker.answer()[0] == "after"


def test_answers_have_a_rate(open_room, seek):
    """Queries past it are dropped; joining works meanwhile."""
    room = open_room(discovery=True)
    room.server.discovery._bucket = server.Bucket(1e-9, 5)
    seeker = seek(room.server.port)
    for number in range(server.MAX_DATAGRAMS * 3):
        seeker.ask("q%d" % number)
    room.irc("alice")
    room.stop()
    assert [seeker.answer()[0] for _ in range(5)] == ["q%d" % number for number in range(5)]
    seeker._socket.settimeout(0)
    with pytest.raises(BlockingIOError):
        seeker.answer()


@pytest.mark.parametrize(
    ("bound", "ports", "hosts"),
    [
        ("127.0.0.1", [0], ["127.0.0.1"]),
        ("0.0.0.0", [0], ["0.0.0.0"]),
        ("::", [0], ["0.0.0.0"]),
        ("::1", [0], []),
        ("fd00::2%eth0", [0], []),
        ("127.0.0.1", [], []),
    ],
)
def test_sockets_hear_where_the_server_is_reached(bound, ports, hosts):
    with contextlib.closing(server.Discovery(bound, ports)) as discovery:
        assert [sock.getsockname()[0] for sock in discovery.senders] == hosts
        assert all(sock is sender for sock, sender in discovery.senders.items())


def test_server_without_discovery_has_no_such_port(open_room):
    assert open_room(discovery=False).server.discovery.senders == {}
