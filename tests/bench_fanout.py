#!/usr/bin/env python3
"""Fan-out: the speed at which one channel's messages reach all its members.

    python3 tests/bench_fanout.py                          100 and 1,000 clients, all loads
    python3 tests/bench_fanout.py 1000 --load round-trip   one size, one load
    python3 tests/bench_fanout.py 100 --peer 'other=/path/to/ircd --port {port}'
    python3 tests/bench_fanout.py --tls                    the cost of encryption

Measures Hubbub with its history and without (hubbub-nohist), InspIRCd and ngIRCd where they
are installed, and any other server given by --peer. Each server gets the same load from the
same C program (bench_load.c, compiled here), in turn and in the same run: N clients in a
channel, messages of 100 bytes, flood limits off. With --tls, Hubbub and InspIRCd are measured
in the clear and encrypted: servers whose name ends in "-tls" get clients that speak TLS (with
OpenSSL, from libssl-dev). There are three loads:

    round-trip   each sender has 8 messages in flight: 10 senders, or 20 beyond 500 clients
    saturated    20 senders have 2,000 messages in flight together
    paced        200 messages a second from 20 senders (up to 500 clients)

Prints a line of figures for each server and case. After each case it prints the figure of
Hubbub divided by that of each other server: deliveries a second, or p99 for the paced load;
over several rounds, the ratio of the medians. CPU time and memory are those of the server's
process, read from /proc: this works on Linux only. The CPU time of the load itself, which
decrypts what it gets, is printed beside them.
"""

import argparse
import os
import shlex
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Dict, List, NamedTuple

TESTS = Path(__file__).resolve().parent
TICK = os.sysconf("SC_CLK_TCK")
MESSAGE_SIZE = 100  # bytes
OPENSSL_HEADER = "/usr/include/openssl/ssl.h"
SMALL = 500  # clients; ngIRCd registers some dozen a second, so it gets no more

INSPIRCD = """
<server name="irc.bench.local" description="bench" network="bench">
<admin name="a" nick="a" email="a@bench.local">
<bind address="127.0.0.1" port="{port}" type="clients">
<connect name="all" allow="*" timeout="240" pingfreq="3600" hardsendq="1G" softsendq="1G"
 recvq="64K" threshold="1000000" commandrate="1000000000" fakelag="no" localmax="100000"
 globalmax="100000" maxconnwarn="no" resolvehostnames="no" useident="no" limit="100000">
<performance softlimit="100000" somaxconn="1024" netbuffersize="65534" clonesonconnect="no">
<limits maxnick="31" maxchan="64">
<pid file="{folder}/pid">
<log method="file" type="* -USERINPUT -USEROUTPUT" level="default" target="{folder}/log">
"""

INSPIRCD_TLS = (
    INSPIRCD.replace("<bind", '<bind sslprofile="bench"')
    + """
<module name="ssl_gnutls">
<sslprofile name="bench" provider="gnutls" certfile="{folder}/tls.pem" keyfile="{folder}/tls.pem">
"""
)

NGIRCD = """
[Global]
Name = irc.bench.local
Info = bench
Listen = 127.0.0.1
Ports = {port}
ServerGID = nogroup
ServerUID = nobody
MotdPhrase = bench
[Limits]
MaxConnections = 0
MaxConnectionsIP = 0
MaxJoins = 0
MaxPenaltyTime = 0
PingTimeout = 3600
PongTimeout = 240
[Options]
DNS = no
Ident = no
PAM = no
"""

HUBBUB = (
    "--host 127.0.0.1 --port {port} --rate-limit 0 --max-per-address 0 --max-clients 0"
    " --register-timeout 0 --lobby '' --log-level ERROR"
)

OPENSSL = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=bench"


class Program(NamedTuple):
    """A server to measure. Its command and its configuration hold {port} and {folder}."""

    name: str
    command: str
    config: str = ""  # written to {folder}/config

    @property
    def is_encrypted(self) -> bool:
        return self.name.endswith("-tls")

    def start(self, port: int, folder: str) -> "subprocess.Popen[bytes]":
        Path(folder).chmod(0o777)
        places = {"port": port, "folder": folder}
        (Path(folder) / "config").write_text(self.config.format(**places))
        if self.is_encrypted:  # Hubbub takes this certificate for the one that it made
            pem = shlex.quote(str(Path(folder) / "tls.pem"))
            certify = OPENSSL + " -keyout %s -out %s" % (pem, pem)
            subprocess.run(shlex.split(certify), check=True, stderr=subprocess.DEVNULL)
        command = [word.format(**places) for word in shlex.split(self.command)]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class Case(NamedTuple):
    """A load for a number of clients. One of `window` and `rate` is 0."""

    load: str
    clients: int
    senders: int
    window: int  # messages in flight for each sender
    rate: int  # messages a second over all senders
    stuck: int  # clients that stop reading
    seconds: float

    def __str__(self) -> str:
        return "%d clients %s" % (self.clients, self.load)


def find_programs(server: str, options: str, peers: List[str], tls: bool) -> List[Program]:
    """Return Hubbub, then the other servers that this machine has, then `peers`.

    With `tls`, return those that can encrypt, each in the clear and encrypted.
    """
    hubbub = " ".join([shlex.quote(sys.executable), shlex.quote(server), HUBBUB, options])
    programs = [
        Program("hubbub", hubbub + " --data {folder}"),
        Program("hubbub-nohist", hubbub + " --data ''"),
    ]
    path = "/usr/sbin:" + os.environ.get("PATH", "")
    inspircd, ngircd = shutil.which("inspircd", path=path), shutil.which("ngircd", path=path)
    if inspircd:
        command = inspircd + " --nofork --runasroot --config {folder}/config"
        programs.append(Program("inspircd", command, INSPIRCD))
        if tls:
            programs.append(Program("inspircd-tls", command, INSPIRCD_TLS))
    if tls:
        programs[1] = programs[0]._replace(name="hubbub-tls")
    elif ngircd:
        programs.append(Program("ngircd", ngircd + " -n -f {folder}/config", NGIRCD))
    for peer in peers:
        name, _, command = peer.partition("=")
        programs.append(Program(name, command))
    return programs


def make_case(load: str, clients: int, stuck: int, seconds: float) -> Case:
    if load == "round-trip":
        return Case(load, clients, 10 if clients <= SMALL else 20, 8, 0, stuck, seconds)
    if load == "saturated":
        return Case(load, clients, 20, 100, 0, stuck, seconds)
    return Case(load, clients, 20, 0, 200, stuck, seconds)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def wait_for_port(port: int) -> None:
    for _ in range(200):
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.05)
    raise SystemExit("nothing listens on port %d" % port)


def cpu_seconds(pid: int) -> float:
    fields = Path("/proc/%d/stat" % pid).read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def memory_kib(pid: int) -> int:
    for line in Path("/proc/%d/status" % pid).read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    return 0


def measure(program: Program, load: Path, case: Case) -> Dict[str, float]:
    """Run a server under a load and return its figures."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        server = program.start(port, folder)
        try:
            wait_for_port(port)
            time.sleep(0.5)
            empty = memory_kib(server.pid)
            words = [port, case.clients, case.senders, case.seconds, case.window, case.rate]
            words += [MESSAGE_SIZE, case.stuck, int(program.is_encrypted)]
            command = [str(load), *map(str, words)]
            with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
                assert process.stdout is not None
                process.stdout.readline()
                cpu, memory = cpu_seconds(server.pid), memory_kib(server.pid)
                result = process.stdout.readline().split()
            cpu, peak = cpu_seconds(server.pid) - cpu, memory_kib(server.pid)
        finally:
            server.terminate()
            server.wait()
    names = "registered register_s sent rate lost seconds p50 p99 max gone load_cpu".split()
    figures = dict(zip(names, map(float, result)))
    deliveries = figures["sent"] * (case.clients - 1) - figures["lost"]
    figures["cpu_us"] = cpu * 1e6 / deliveries if deliveries else 0.0
    figures["load_us"] = figures["load_cpu"] * 1e6 / deliveries if deliveries else 0.0
    figures["kib"] = (memory - empty) / case.clients
    figures["peak_mib"] = peak / 1024
    return figures


def show(program: Program, case: Case, figures: Dict[str, float]) -> None:
    form = "%(rate)10.0f deliveries/s  p50 %(p50).1f p99 %(p99).1f max %(max).1f ms"
    form += "  %(cpu_us).3f us CPU (load %(load_us).3f)"
    form += "  %(kib).0f KiB/client peak %(peak_mib).0f MiB"
    form += "  registered %(registered).0f in %(register_s).1f s"
    form += "  lost %(lost).0f gone %(gone).0f"
    print("%-14s %-24s" % (program.name, case) + form % figures, flush=True)


def show_ratios(case: Case, runs: Dict[str, List[Dict[str, float]]]) -> None:
    """Print the figure of Hubbub, clear and encrypted, divided by that of each other server."""
    what = "p99" if case.rate else "rate"
    medians = {name: statistics.median(run[what] for run in all_) for name, all_ in runs.items()}
    unit = "p99" if case.rate else "deliveries/s"
    for ours in ("hubbub", "hubbub-tls"):
        others = {name: other for name, other in medians.items() if name != ours and other}
        if medians.get(ours) and others:
            ratios = ["%.2f of %s" % (medians[ours] / others[name], name) for name in others]
            form = "%-14s %-24s%10s of %s: %s"
            print(form % ("ratios", case, unit, ours, ", ".join(ratios)), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    loads = ["round-trip", "saturated", "paced"]
    parser.add_argument("sizes", nargs="*", type=int, default=[100, 1000], help="clients")
    parser.add_argument("--load", action="append", choices=loads, help="default: all three")
    parser.add_argument("--only", action="append", metavar="NAME", help="measure this server only")
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="NAME=COMMAND",
        help="measure another server too; the command holds {port}, and {folder} for its files",
    )
    parser.add_argument("--tls", action="store_true", help="in the clear and encrypted")
    parser.add_argument("--rounds", type=int, default=1, help="runs of each server, in turn")
    parser.add_argument("--seconds", type=float, default=6.0, help="length of a run")
    parser.add_argument("--stuck", type=int, default=0, help="clients that stop reading")
    parser.add_argument(
        "--server",
        default=str(TESTS.parent / "server.py"),
        metavar="FILE",
        help="Hubbub's server.py to measure",
    )
    parser.add_argument("--options", default="", help="more options for Hubbub's server")
    args = parser.parse_args()
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise SystemExit("no C compiler for the load generator: install gcc")
    programs = find_programs(args.server, args.options, args.peer, args.tls)
    with tempfile.TemporaryDirectory() as folder:
        load = Path(folder) / "load"
        source = str(TESTS / "bench_load.c")
        libraries = "-DTLS -lssl -lcrypto".split() if Path(OPENSSL_HEADER).exists() else []
        if not libraries and any(program.is_encrypted for program in programs):
            raise SystemExit("no OpenSSL for the load generator: install libssl-dev")
        subprocess.run([compiler, "-O2", "-o", str(load), source, *libraries], check=True)
        for size in args.sizes:
            for name in args.load or (loads if size <= SMALL else loads[:2]):
                case = make_case(name, size, args.stuck, args.seconds)
                runs: Dict[str, List[Dict[str, float]]] = {}
                for _ in range(args.rounds):
                    for program in programs:
                        if args.only and program.name not in args.only:
                            continue
                        if program.name == "ngircd" and size > SMALL:
                            continue
                        figures = measure(program, load, case)
                        show(program, case, figures)
                        runs.setdefault(program.name, []).append(figures)
                show_ratios(case, runs)


if __name__ == "__main__":
    main()
