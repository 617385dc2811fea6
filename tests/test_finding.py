"""Tests of what the client does to find servers: whom it asks, what it believes, --find."""

import contextlib
import socket
import sys

import pytest
from client_harness import Responder, responder_at, wait_until

import client
import protocol
from client import Finder, short_address

LOOPBACK_IS_A_NETWORK = sys.platform == "linux"  # elsewhere 127.0.0.1 is the only address of it
linux_only = pytest.mark.skipif(not LOOPBACK_IS_A_NETWORK, reason="127.0.0.2 is no address there")

HEAD = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"


@pytest.fixture
def finder(responder):
    with contextlib.closing(Finder()) as finder:
        yield finder


def networks(finder, now=0.0):
    return [found.network for found in finder.poll(now)]


def wait_for(finder, *expected, now=0.0):
    wait_until(lambda: networks(finder, now) == list(expected))


def test_answer_is_found_at_the_address_it_came_from(finder, responder):
    assert finder.poll(0.0) == []
    responder.answer(responder.query(), "Class 4B", 4000, 1, True)
    wait_for(finder, "Class 4B")
    assert finder.poll(0.0) == [client.FoundServer("127.0.0.1", "Class 4B", 4000, 1, True, True)]
    assert finder.poll(0.0)[0].people == "1 person"


def test_query_is_sent_at_once_and_then_every_few_seconds_with_another_id(finder, responder):
    ids = set()
    for now in (0.0, client.FIND_INTERVAL, 2 * client.FIND_INTERVAL):
        finder.poll(now)
        ids.add(responder.query())
        finder.poll(now + client.FIND_INTERVAL - 0.1)
        assert not responder.has_query()
    assert len(ids) == 3


def test_only_answers_to_recent_queries_count(finder, responder):
    ids = []
    for number in range(client.MAX_SILENT_ROUNDS + 1):
        finder.poll(number * client.FIND_INTERVAL)
        ids.append(responder.query())
    last = number * client.FIND_INTERVAL
    responder.answer("0123456789ab", "Guess")
    responder.answer(ids[0], "Late", 1)
    responder.send(b"", b"{", b"\xff" * 400, b" " * 2000, protocol.make_query(ids[-1]))
    responder.answer(ids[1], "Slow", 2)
    responder.answer(ids[-1], "Quick", 3)
    wait_for(finder, "Slow", "Quick", now=last)


def test_server_that_answers_no_more_is_dropped(finder, responder):
    finder.poll(0.0)
    responder.answer(responder.query(), "Gone", 1)
    wait_for(finder, "Gone")
    for number in range(1, client.MAX_SILENT_ROUNDS + 1):
        assert networks(finder, number * client.FIND_INTERVAL) == ["Gone"]
        query_id = responder.query()
    responder.answer(query_id, "Stays", 2)
    wait_for(finder, "Gone", "Stays", now=number * client.FIND_INTERVAL)
    assert networks(finder, (number + 1) * client.FIND_INTERVAL) == ["Stays"]


def test_names_are_made_safe_and_order_stays(finder, responder):
    finder.poll(0.0)
    query_id = responder.query()
    responder.answer(query_id, "A\x1b[2J\u202e" + "a" * 20, 1)
    responder.answer(query_id, "B", 2, 0)
    responder.answer(query_id, "A", 1, 9)
    wait_for(finder, "A", "B")
    assert [found.people for found in finder.poll(0.0)] == ["9 people", "nobody yet"]


@linux_only
def test_own_addresses_are_this_computer(finder, responder):
    """A server that answers at several of them is a single one, and 127.0.0.1 is asked first."""
    finder.poll(0.0)
    query_id = responder.query()
    responder.answer(query_id, "Here", 1)
    with responder_at("127.0.0.2", responder.asker) as other:
        other.answer(query_id, "Here again", 1)
        other.answer(query_id, "Elsewhere", 2)
    wait_for(finder, "Here again", "Elsewhere")
    assert [(found.host, found.is_own) for found in finder.poll(0.0)] == [
        ("127.0.0.1", True),
        ("127.0.0.2", True),  # it does not listen at 127.0.0.1
    ]


def test_address_of_another_computer_is_not_own():
    assert client.is_own_address("127.0.0.1")
    assert not client.is_own_address("192.0.2.1")
    assert not client.is_own_address("2001:db8::1")


@linux_only
def test_flood_fills_few_rows_and_costs_little_at_a_time(finder, responder, monkeypatch):
    monkeypatch.setattr(client, "is_own_address", lambda host: False)
    finder.poll(0.0)
    query_id = responder.query()
    read, parse = [], protocol.parse_answer
    monkeypatch.setattr(protocol, "parse_answer", lambda data: read.append(1) or parse(data))
    for number in range(1000):
        responder.answer(query_id, "Spam %d" % number, 1 + number)
    finder.poll(0.0)
    assert len(read) <= client.MAX_DATAGRAMS
    assert networks(finder) == ["Spam %d" % number for number in range(client.MAX_OF_ADDRESS)]
    for host in range(2, 20):
        with responder_at("127.0.0.%d" % host, responder.asker) as other:
            for port in range(1, client.MAX_OF_ADDRESS + 2):
                other.answer(query_id, "Host %d" % host, port)
        while read:
            read.clear()
            finder.poll(0.0)
    assert len(finder.poll(0.0)) == client.MAX_FOUND


@pytest.mark.parametrize("variable", ["", " "])
def test_empty_variable_forbids_asking(monkeypatch, variable):
    monkeypatch.setenv("HUBBUB_FIND", variable)
    monkeypatch.setattr(socket, "socket", None)
    finder = Finder()
    assert not finder.can_ask
    assert finder.poll(0.0) == []
    finder.close()


@pytest.mark.skipif(not socket.has_ipv6, reason="there is no IPv6")
def test_variable_lists_addresses_and_wrong_ones_are_passed_over(responder, monkeypatch):
    with contextlib.closing(Responder("::1")) as other:
        listed = "a b,nowhere.invalid,192.0.2.1:x, %s ,%s" % (other.address, responder.address)
        monkeypatch.setenv("HUBBUB_FIND", listed)
        with contextlib.closing(Finder()) as finder:
            finder.poll(0.0)
            assert other.query() == responder.query()
            other.answer(finder._ids[-1], "Six", 1)
            wait_for(finder, "Six")
            assert finder.poll(0.0)[0].host == "::1"


class Sent:
    """A stand-in for sockets that records what they send, and fails as networks do."""

    def __init__(self, family=socket.AF_INET, kind=socket.SOCK_DGRAM):
        self.own = ""

    def bind(self, address):
        self.own = address[0]

    def sendto(self, data, address):
        self.log.append((self.own, *address))
        raise OSError(101, "Network is unreachable")

    def recvfrom(self, size):
        raise BlockingIOError

    def __getattr__(self, name):
        return lambda *args: None


ANY = [("", host, client.SERVER_PORT) for host in ("127.0.0.1", "255.255.255.255")]
NET = [("", "192.168.7.255", client.SERVER_PORT)]


@pytest.mark.parametrize(
    ("platform", "expected"),
    [
        ("darwin", ANY + NET),
        ("win32", ANY + NET + [("192.168.7.20", "255.255.255.255", client.SERVER_PORT)]),
    ],
)
def test_networks_are_asked_as_the_system_allows(monkeypatch, platform, expected):
    """Errors of sending do no harm."""
    monkeypatch.delenv("HUBBUB_FIND")
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(Sent, "log", [], raising=False)
    monkeypatch.setattr(socket, "socket", Sent)
    monkeypatch.setattr(client, "own_addresses", lambda: ["192.168.7.20"])
    with contextlib.closing(Finder()) as finder:
        assert finder.poll(0.0) == []
    assert Sent.log == expected


@linux_only
def test_all_servers_of_this_computer_and_all_networks_are_asked(monkeypatch):
    monkeypatch.delenv("HUBBUB_FIND")
    monkeypatch.setattr(Sent, "log", [], raising=False)
    monkeypatch.setattr(socket, "socket", Sent)
    monkeypatch.setattr(client, "broadcast_addresses", lambda routes: ["192.168.7.255"])
    with contextlib.closing(Finder()) as finder:
        finder.poll(0.0)
    local = [("", "127.255.255.255", client.SERVER_PORT)]
    assert Sent.log == ANY[:1] + local + ANY[1:] + NET


@pytest.mark.skipif(sys.byteorder == "big", reason="the numbers are those of other machines")
@pytest.mark.parametrize(
    ("routes", "expected"),
    [
        ("", []),
        ("eth0\t00000000\t0107A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n", []),  # the default
        ("eth0\t0007A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n", ["192.168.7.255"]),
        ("eth0\t0000FEA9\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n", ["169.254.255.255"]),
        ("eth0\t0007A8C0\t00000000\t0000\t0\t0\t100\t00FFFFFF\t0\t0\t0\n", []),  # down
        ("tun0\t0000000A\t0100080A\t0003\t0\t0\t0\t000000FF\t0\t0\t0\n", []),  # another network
        ("tun0\t0100080A\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0\n", []),  # a single host
        ("ppp0\t0000080A\t00000000\t0001\t0\t0\t0\tFEFFFFFF\t0\t0\t0\n", []),  # two hosts
        ("lo\t0000007F\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0\n", []),
        ("eth0\t0007A8C0\n\nwlan0 x y z 0 0 0 0\n", []),
        ("".join("br%d\t00%02X1EAC\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n" % (n, n)
                 for n in range(99)),
         ["172.30.%d.255" % n for n in range(client.MAX_NETWORKS)]),
    ],
)  # fmt: skip
def test_broadcast_addresses_come_from_the_routes(routes, expected):
    assert client.broadcast_addresses(HEAD + routes) == expected


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("192.168.1.20:12001", "192.168.1.20"),
        ("192.168.1.20:4000", "192.168.1.20:4000"),
        (" office ", "office"),
        ("[::1]:12001", "::1"),
        ("::1", "::1"),
        ("[::1]:4000", "[::1]:4000"),
        ("irc://office:12001/", "office"),
        ("Office.LAN:12001", "office.lan"),
        ("[FD77::1]:4000", "[fd77::1]:4000"),
        ("fe80::1%Eth0", "fe80::1%Eth0"),
        ("my office", "my office"),
        ("", ""),
    ],
)
def test_addresses_are_shortened_to_what_users_write(text, short):
    assert short_address(text) == short


# --find


def find(capfd, *args):
    code = client.main(["--find", *args])
    return code, capfd.readouterr().out.splitlines()


def test_find_prints_a_line_for_each_server(capfd, monkeypatch):
    found = [
        client.FoundServer("192.168.1.20", "Class 4B", 12001, 25, False, False),
        client.FoundServer("fe80::1", "Büro", 4000, 1, True, False),
    ]
    monkeypatch.setattr(client, "FIND_TIME", 0.1)
    monkeypatch.setattr(Finder, "poll", lambda self, now: found)
    monkeypatch.setenv("HUBBUB_FIND", "127.0.0.1")
    assert find(capfd) == (
        0,
        [
            "192.168.1.20:12001  Class 4B  (25 people)",
            "[fe80::1]:4000  Büro  (1 person, encrypted)",
        ],
    )


@pytest.mark.parametrize("is_allowed", [True, False])
def test_find_says_what_to_do_if_there_is_none(capfd, monkeypatch, responder, is_allowed):
    if not is_allowed:
        monkeypatch.setenv("HUBBUB_FIND", "")
    monkeypatch.setattr(client, "FIND_TIME", 0.1)
    code, (line,) = find(capfd)
    assert code == 1
    assert line.startswith("No server was found.")
    assert responder.has_query() == is_allowed
