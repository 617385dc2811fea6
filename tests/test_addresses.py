"""The addresses that the console tells people."""

import socket

import pytest

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
            ["Tell people: 192.168.1.20:12001", "Tell people: [2001:db8::20]:12001"],
        ),
        (
            "0.0.0.0",
            ["127.0.0.1"],
            ["No network was found; `ip addr` shows the addresses of this computer"],
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
