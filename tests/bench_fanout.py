#!/usr/bin/env python3
"""How fast one room's talk reaches everybody: Hubbub beside InspIRCd and ngIRCd.

    python3 tests/bench_fanout.py                     all of the README's table
    python3 tests/bench_fanout.py 1000 --only hubbub  one size, one server

Each server gets the same load from the same C program (bench_load.c, compiled here), one
after the other in one run: N clients in a room, 100-byte messages, flood limits off, first
saturated, then paced. Prints one line of figures for each server and case. CPU and memory
are the server's own, from /proc: Linux alone.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional

TESTS = Path(__file__).resolve().parent
TICK = os.sysconf("SC_CLK_TCK")
PORT = {"hubbub": 16701, "inspircd": 16702, "ngircd": 16703}

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


class Case(NamedTuple):
    """N clients, S of whom talk: `rate` messages a second in all, or (0) without a pause."""

    clients: int
    senders: int
    rate: int
    stuck: int
    seconds: float


def start(name: str, folder: Path, arguments: List[str]) -> "subprocess.Popen[bytes]":
    port = PORT[name]
    if name == "hubbub":
        command = [sys.executable, str(TESTS.parent / "server.py"), "--host", "127.0.0.1"]
        command += ["--port", str(port), "--data", str(folder), "--rate-limit", "0"]
        command += ["--max-per-address", "0", "--max-clients", "0", "--log-level", "ERROR"]
        command += ["--lobby", "", "--register-timeout", "0", *arguments]
    else:
        config = folder / "config"
        text = INSPIRCD if name == "inspircd" else NGIRCD
        config.write_text(text.format(port=port, folder=folder))
        folder.chmod(0o777)
        command = {
            "inspircd": ["inspircd", "--nofork", "--runasroot", "--config", str(config)],
            "ngircd": ["ngircd", "-n", "-f", str(config)],
        }[name]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def cpu_seconds(pid: int) -> float:
    fields = Path("/proc/%d/stat" % pid).read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def memory_kib(pid: int) -> int:
    for line in Path("/proc/%d/status" % pid).read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    return 0


def wait_for_port(port: int) -> None:
    import socket

    for _ in range(200):
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.05)
    raise SystemExit("nothing listens on port %d" % port)


def measure(name: str, load: Path, case: Case, arguments: List[str]) -> Optional[Dict[str, float]]:
    with tempfile.TemporaryDirectory() as folder:
        server = start(name, Path(folder), arguments)
        try:
            wait_for_port(PORT[name])
            time.sleep(0.5)
            empty = memory_kib(server.pid)
            words = [PORT[name], case.clients, case.senders, case.seconds, case.rate, 100]
            command = [str(load), *map(str, words), str(case.stuck)]
            with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
                assert process.stdout is not None
                process.stdout.readline()
                cpu, memory = cpu_seconds(server.pid), memory_kib(server.pid)
                result = process.stdout.readline().split()
            cpu, peak = cpu_seconds(server.pid) - cpu, memory_kib(server.pid)
        finally:
            server.terminate()
            server.wait()
    names = "registered register_s sent rate lost seconds p50 p99 max gone".split()
    figures = dict(zip(names, map(float, result)))
    deliveries = figures["sent"] * (case.clients - 1) - figures["lost"]
    figures["cpu_us"] = cpu * 1e6 / deliveries if deliveries else 0.0
    figures["kib"] = (memory - empty) / case.clients
    figures["peak_mib"] = peak / 1024
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("sizes", nargs="*", type=int, default=[100, 1000, 5000])
    parser.add_argument("--only", action="append", choices=sorted(PORT))
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--senders", type=int, default=20)
    parser.add_argument("--rate", type=int, action="append", help="messages/s; 0: saturated")
    parser.add_argument("--stuck", type=int, default=0, help="clients that stop reading")
    parser.add_argument("--options", default="", help="more options for Hubbub's server")
    args = parser.parse_args()
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise SystemExit("no C compiler for the load generator: install gcc")
    with tempfile.TemporaryDirectory() as folder:
        load = Path(folder) / "load"
        source = str(TESTS / "bench_load.c")
        subprocess.run([compiler, "-O2", "-o", str(load), source], check=True)
        for size in args.sizes:
            for rate in args.rate or ([0, 200] if size <= 100 else [0]):
                case = Case(size, args.senders, rate, args.stuck, args.seconds)
                for name in args.only or sorted(PORT):
                    if name != "hubbub" and not shutil.which(name, path="/usr/sbin:/usr/bin"):
                        continue
                    if name == "ngircd" and size > 500:
                        continue  # it registers some dozen clients a second
                    figures = measure(name, load, case, args.options.split())
                    pace = "%d/s" % rate if rate else "saturated"
                    print("%-9s %5d clients %-9s" % (name, size, pace), end="")
                    form = "%(rate)10.0f deliveries/s  p50 %(p50).1f p99 %(p99).1f max %(max).1f ms"
                    form += "  %(cpu_us).2f us CPU  %(kib).0f KiB/client peak %(peak_mib).0f MiB"
                    form += "  registered %(registered).0f in %(register_s).1f s"
                    form += "  lost %(lost).0f gone %(gone).0f"
                    print(form % figures, flush=True)


if __name__ == "__main__":
    main()
