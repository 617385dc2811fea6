"""Servers on a network of their own: hosts on a cable, without a gateway or a name server.

The hosts are network namespaces of Linux, so no broadcast of these tests leaves this computer.
"""

import json
import os
import signal
import subprocess
import sys

import pytest
from harness import TIMEOUT, Process

import protocol
from server import NOT_ENCRYPTED

SEEK = """
import json, socket, sys
sys.path.insert(0, sys.argv[1])
import protocol
seeker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
seeker.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
seeker.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")  # there is no route
seeker.settimeout(2)
seeker.sendto(protocol.make_query("a1"), (sys.argv[2], int(sys.argv[3])))
for _ in range(int(sys.argv[4])):
    data, address = seeker.recvfrom(2048)
    print(json.dumps([address[0], protocol.parse_answer(data)[1].network]))
"""
REFUSED = """
import socket, sys
sys.path.insert(0, sys.argv[1])
import protocol
seeker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
seeker.settimeout(2)
seeker.connect((sys.argv[2], int(sys.argv[3])))
seeker.send(protocol.make_query("a1"))
try:
    print(seeker.recv(2048))
except ConnectionRefusedError:
    print("refused")
"""
TALK = """
import socket, ssl, sys
host, port, is_encrypted, *lines = sys.argv[1:]
sock = socket.create_connection((host, int(port)), 10)
if is_encrypted == "True":
    sock = ssl._create_unverified_context().wrap_socket(sock)
sock.sendall("".join(line + "\\r\\n" for line in lines).encode())
sys.stdout.buffer.write(sock.recv(65536))
"""


def run(*command):
    return subprocess.check_output(command, stderr=subprocess.STDOUT, timeout=TIMEOUT)


class Host:
    """A network namespace, and the programs that run in it."""

    def __init__(self, name, folder):
        self.name = name
        self._folder = folder
        self._processes = []
        run("ip", "netns", "add", name)

    def up(self, interface, *addresses):
        run("ip", "-n", self.name, "link", "set", interface, "up")
        for address in addresses:
            nodad = ["nodad"] if ":" in address else []
            run("ip", "-n", self.name, "addr", "add", address, "dev", interface, *nodad)

    def plug(self, interface, other, its_interface):
        """Lay a cable to an interface of another host."""
        peer = ("peer", "name", its_interface, "netns", other.name)
        run("ip", "-n", self.name, "link", "add", interface, "type", "veth", *peer)

    def serve(self, network, *args):
        """Start a server; it reads the same options as that of a user."""
        stderr = self._folder / ("stderr-%s-%d" % (self.name, len(self._processes)))
        launcher = ("ip", "netns", "exec", self.name)
        given = ("--host", "0.0.0.0", "--data", "", "--network", network, *args)
        process = Process(stderr, *given, launcher=launcher, discovery=True)
        assert process.port, process.log
        self._processes.append(process)
        return process

    def python(self, code, *args):
        """Run Python code here, and return its output."""
        return run("ip", "netns", "exec", self.name, sys.executable, "-c", code, *args).decode()

    def seek(self, count, host="255.255.255.255", port=protocol.PORT):
        """Ask for servers, and return the address and network of `count` of them, sorted."""
        folder = os.path.dirname(protocol.__file__)
        output = self.python(SEEK, folder, host, str(port), str(count))
        return sorted(map(json.loads, output.splitlines()))

    def is_refused(self, host, port):
        """Return True if nobody listens on a UDP port of another host."""
        output = self.python(REFUSED, os.path.dirname(protocol.__file__), host, str(port))
        return output == "refused\n"

    def close(self):
        for process in self._processes:
            process.close()
        subprocess.call(["ip", "netns", "delete", self.name])


@pytest.fixture
def make_host(tmp_path):
    hosts = []

    def make():
        try:
            host = Host("hubbub-%d-%d" % (os.getpid(), len(hosts)), tmp_path)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip("no network namespaces: %s" % getattr(error, "output", error))
        hosts.append(host)
        host.up("lo")
        return host

    yield make
    for host in hosts:
        host.close()


@pytest.fixture
def cable(make_host):
    """Two hosts on a cable."""
    one, two = make_host(), make_host()
    one.plug("eth0", two, "eth0")
    one.up("eth0", "192.168.77.1/24", "fd77::1/64")
    two.up("eth0", "192.168.77.2/24", "fd77::2/64")
    return one, two


def told(process):
    """Stop a server, and return what its console has told people."""
    process.signal(signal.SIGTERM)
    assert process.wait() == 0
    return [line.partition(" ")[2] for line in process.rest_of_output()[:-1]]


def test_host_on_a_cable_is_told_and_found(cable):
    """From the other side, within two seconds; what it hands out joins that address."""
    one, two = cable
    server = one.serve("Class 4B")
    assert two.seek(1) == [["192.168.77.1", "Class 4B"]]
    assert two.seek(1, "192.168.77.1", server.port) == [["192.168.77.1", "Class 4B"]]
    at = "192.168.77.1:%d" % server.port
    code = "import io, sys, zipfile; from urllib.request import urlopen; app = urlopen(sys.argv[1])"
    code += ";print(zipfile.ZipFile(io.BytesIO(app.read())).read('__main__.py').decode())"
    assert "server='%s'" % at in two.python(code, "http://%s/hubbub.pyz" % at)
    assert told(server)[:2] == ["Tell people: " + at, "In a browser: http://" + at]


def test_host_with_two_interfaces_is_told_and_found_on_both(cable, make_host):
    """Virtual interfaces, and those without a cable, come last."""
    one, two = cable
    three = make_host()
    one.plug("wlan0", three, "eth0")
    one.up("wlan0", "10.77.0.1/24")
    three.up("eth0", "10.77.0.3/24")
    for number, virtual_or_unplugged in enumerate(["docker0", "eth7"]):
        one.plug(virtual_or_unplugged, three, "eth%d" % (number + 1))
        one.up(virtual_or_unplugged, "172.17.%d.1/24" % number)
    server = one.serve("School")
    assert two.seek(1) == [["192.168.77.1", "School"]]
    assert three.seek(1) == [["10.77.0.1", "School"]]
    addresses = [line[len("Tell people: ") :].partition(":")[0] for line in told(server)[:4]]
    assert sorted(addresses[:2]) == ["10.77.0.1", "192.168.77.1"]
    assert sorted(addresses[2:]) == ["172.17.0.1", "172.17.1.1"]


def test_servers_of_one_computer_are_all_found(cable):
    """By one broadcast; also by their own host."""
    one, two = cable
    for name in ("4A", "4B"):
        one.serve(name)
    assert two.seek(2) == [["192.168.77.1", "4A"], ["192.168.77.1", "4B"]]
    assert one.seek(2) == [["192.168.77.1", "4A"], ["192.168.77.1", "4B"]]


def test_server_on_one_address_is_found_there(cable):
    """Though another address is asked."""
    one, two = cable
    one.up("eth0", "192.168.77.9/24")
    server = one.serve("School", "--host", "192.168.77.9")
    assert two.seek(1) == [["192.168.77.9", "School"]]
    assert two.seek(1, "192.168.77.9") == [["192.168.77.9", "School"]]
    assert told(server)[0] == "Tell people: 192.168.77.9:%d" % server.port


def test_server_that_does_not_answer_is_not_found(cable):
    """Its ports of UDP are closed, and so are those of a server for its computer alone."""
    one, two = cable
    for args in (["--no-discovery"], ["--host", "127.0.0.1"]):
        server = one.serve("Secret", *args)
        for port in (protocol.PORT, server.port):
            assert two.is_refused("192.168.77.1", port)
    one.serve("School")
    assert not two.is_refused("192.168.77.1", protocol.PORT)


def test_ipv6_is_told_where_it_is_accepted(cable):
    one, two = cable
    server = one.serve("School", "--host", "::")
    assert two.seek(1) == [["192.168.77.1", "School"]]
    assert told(server)[:2] == [
        "Tell people: 192.168.77.1:%d" % server.port,
        "Tell people: [fd77::1]:%d" % server.port,
    ]


def test_computer_without_a_network_says_so(make_host):
    server = make_host().serve("School")
    assert told(server)[0].startswith("No network was found, so nobody else can join.")


def test_server_may_require_encryption_on_the_network(cable, make_certificate):
    """It says what to do instead; this computer itself may talk to it in the clear."""
    one, two = cable
    server = one.serve(
        "Class 4B", "--host", "::", "--require-tls", "--tls-cert", make_certificate()
    )
    for here, host, is_encrypted, answer in (
        (two, "192.168.77.1", False, "ERROR :" + NOT_ENCRYPTED),
        (two, "fd77::1", False, "ERROR :" + NOT_ENCRYPTED),
        (two, "192.168.77.1", True, ":hubbub.local 001 bob :"),
        (one, "127.0.0.1", False, ":hubbub.local 001 bob :"),
    ):
        arguments = (host, str(server.port), str(is_encrypted), "NICK bob", "USER b 0 * :b")
        assert here.python(TALK, *arguments).startswith(answer)
        arguments = (host, str(server.port), str(is_encrypted), "CAP LS")
        assert here.python(TALK, *arguments).startswith(":hubbub.local CAP * LS :")
    for line in ("bob", "PASS sesame"):
        arguments = ("192.168.77.1", str(server.port), "False", line)
        assert NOT_ENCRYPTED in two.python(TALK, *arguments)
