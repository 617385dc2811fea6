#!/usr/bin/env python3
"""Attackers: how quick the chat stays for others, and what the server uses meanwhile.

    python3 tests/bench_hostile.py                              all kinds; 5, 20, 100 attackers
    python3 tests/bench_hostile.py --kind tags --attackers 50   some kinds, some numbers
    python3 tests/bench_hostile.py --soak 10                    all kinds at once, for minutes

Starts server.py with its default options and a new data folder. Two people at 127.0.0.2 write
to each other in the lobby and privately, while attackers at 127.0.0.1 do what their kind says
(the table KINDS in bench_attackers.py). Prints a line for each case:

    p50 p99 worst  milliseconds from sending a message to its arrival at the other
    newcomer       milliseconds from connecting to the welcome, at 127.0.3.x: median, worst
    room bob       messages a second of the attackers to the lobby, and to one person
    event          joins, leaves and new nicknames of theirs a second, in the lobby
    peak           memory of the server in MiB, and in parentheses that before the attack
    cpu            seconds of CPU time of the server in a second
    stop           seconds from SIGTERM, in the middle of the attack, to the server's end
    lag            milliseconds by which this program was late itself. If that is much, the
                   machine was short of CPU time, and the case proves nothing

then what the attackers did, and what was noticed: disconnected people, messages that did not
arrive, errors in the server's log. The last lines are the verdicts. "quiet" has no attackers.
Linux only.
"""

import argparse
import collections
import itertools
import json
import os
import re
import selectors
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Callable, Dict, List, Optional, Tuple

from bench_attackers import DONE, JOINED, KINDS, PASSWORD, SERVER_ADDRESS, SET_BANS, hello, to_bytes

TESTS = Path(__file__).resolve().parent
SERVER = str(TESTS.parent / "server.py")
OTHERS_ADDRESS, NEWCOMER_ADDRESS = "127.0.0.2", "127.0.3.%d"
TICK = os.sysconf("SC_CLK_TCK")

# Goals
MEDIAN_GOAL, WORST_GOAL = 25.0, 250.0  # milliseconds
STOP_GOAL = 8.0  # seconds
ADDRESS_BURST, ADDRESS_RATE = 2000, 100  # messages of an address: at once, and a second

GRACE = 15.0  # seconds that messages may take to arrive after the last was sent
TIMEOUT = 30.0  # seconds for a step of the preparation, and for the server to end
SOAK_RATE = 8.0  # messages a second of an other in a soak: less than the flood limit
SOAK_REPORT = 30.0  # seconds between lines about the server in a soak
CALM = 20.0  # seconds after a soak until the last line about it

HOSTILE_LINE = re.compile(rb"^:[^ ]+@127\.0\.0\.1 ([A-Z]+) :?([^ \r]+)", re.M)
OWN_LINE = re.compile(rb" :~(\d+)\r")
ERROR = re.compile(r"^(?:\S+ \S+ (?:ERROR|CRITICAL) |Traceback).*(?:\n(?!\d{4}-).*)*", re.M)


class Person:
    """An IRC client. Blocks until a measurement begins."""

    def __init__(self, port: int, nickname: str, address: str) -> None:
        self.nickname, self.rest, self.end = nickname, b"", ""
        self.sock = socket.socket()
        self.sock.settimeout(TIMEOUT)
        self.sock.bind((address, 0))
        self.sock.connect((SERVER_ADDRESS, port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.sendall(hello(nickname, "draft/chathistory"))
        self._wait(JOINED.pattern)

    def say(self, *lines: str) -> None:
        try:
            self.sock.sendall(to_bytes(*lines))
        except OSError as error:
            self.end = self.end or str(error)

    def say_all(self, *lines: str) -> None:
        """Send lines, and wait until the server has carried them out."""
        self.say(*lines, "PING :done")
        self._wait(DONE.pattern)

    def receive(self) -> bytes:
        """Return the whole lines that have come; set `end` if there will be no more."""
        try:
            data = self.sock.recv(1 << 18)
        except OSError as error:
            self.end = self.end or str(error)
            return b""
        if not data:
            self.end = self.end or "closed"
        lines, newline, self.rest = (self.rest + data).rpartition(b"\n")
        farewell = re.search(rb"^ERROR :?([^\r\n]+)", lines, re.M)
        if farewell:
            self.end = farewell[1].decode("utf-8", "replace")
        if re.search(rb"^(?::\S+ )?PING ", lines, re.M):
            self.say("PONG :x")
        return lines + newline

    def _wait(self, pattern: bytes) -> None:
        heard = b""
        while not re.search(pattern, heard):
            heard += self.receive()
            if self.end:
                raise SystemExit("%s was disconnected: %s" % (self.nickname, self.end))


class Stage:
    """A server with default options, its people, and what they prepare before an attack."""

    def __init__(self, server: str, folder: str, needs: List[str]) -> None:
        self._log, self.data = Path(folder) / "log", Path(folder) / "data"
        password = Path(folder) / "password"
        password.write_text(PASSWORD + "\n")
        command = [sys.executable, server, "--host", SERVER_ADDRESS, "--port", "0"]
        command += ["--data", str(self.data)]
        command += ["--password-file", str(password)] if "password" in needs else []
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        self.port = self._wait_for_port()
        self.keepers: List[Person] = []  # people who stay, and say nothing
        self.others = [Person(self.port, name, OTHERS_ADDRESS) for name in ("alice", "bob")]
        for need in sorted(set(needs) - {"password"}):
            self._prepare(need)

    def _prepare(self, need: str) -> None:
        if need == "bans":
            masks = [text.format(room="#banned") for text in SET_BANS]
            self._add_keeper().say_all("JOIN #banned", *masks)
        elif need == "crowd":
            for _ in range(100):
                self._add_keeper()
        elif need == "history":
            for _ in range(10):
                texts = ["PRIVMSG #lobby :" + 100 * "h"] * 60
                self._add_keeper().say_all(*texts, "PART #lobby")
        else:  # "2,000 rooms"
            # As many for each keeper as its burst of tokens pays for.
            for start in range(0, int(need.split()[0].replace(",", "")), 40):
                names = ",".join("#room%d" % i for i in range(start, start + 40))
                self._add_keeper().say_all("PART #lobby", "JOIN " + names)

    def _add_keeper(self) -> Person:
        """Return a new person at an address of its own."""
        n = len(self.keepers)
        person = Person(self.port, "keeper%d" % n, "127.9.%d.%d" % (n // 250, n % 250 + 1))
        self.keepers.append(person)
        return person

    def _wait_for_port(self) -> int:
        for _ in range(400):
            match = re.search(r"Running on \S+:(\d+)", self._log.read_text("utf-8", "replace"))
            if match:
                return int(match[1])
            time.sleep(0.05)
        raise SystemExit("the server did not start: " + self._log.read_text("utf-8", "replace"))

    def memory(self) -> float:
        """Return the memory of the server in MiB."""
        return self._status("VmRSS") / 1024

    def cpu(self) -> float:
        text = Path("/proc/%d/stat" % self._process.pid).read_text()
        return sum(map(int, text.rpartition(")")[2].split()[11:13])) / TICK

    def _status(self, name: str) -> int:
        text = Path("/proc/%d/status" % self._process.pid).read_text()
        return int(text.partition(name + ":")[2].split()[0])

    def describe(self) -> str:
        disk = sum(path.stat().st_size for path in self.data.iterdir())
        descriptors = len(os.listdir("/proc/%d/fd" % self._process.pid))
        form = "memory %.1f MiB, disk %.1f MiB, %d descriptors, %d threads"
        return form % (self.memory(), disk / (1 << 20), descriptors, self._status("Threads"))

    def errors(self) -> List[str]:
        """Return the errors in the log by their last lines, with their numbers."""
        found = ERROR.findall(self._log.read_text("utf-8", "replace"))
        texts = [re.sub(r"^\d\S+ \S+ ", "", error.strip().rpartition("\n")[2]) for error in found]
        counts = collections.Counter(texts)
        return ["ERROR in the log, %d times: %s" % (n, text) for text, n in counts.most_common(5)]

    def stop(self) -> float:
        """End the server, and return the seconds that it took."""
        start = time.monotonic()
        self._process.terminate()
        try:
            self._process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for person in self.others + self.keepers:
            person.sock.close()
        return time.monotonic() - start


class Figures:
    """The figures of a case."""

    def __init__(self) -> None:
        self.delays: List[float] = []  # milliseconds
        self.newcomers: List[float] = []  # milliseconds
        self.counts: Dict[str, int] = collections.Counter()  # of the attackers' lines
        self.seconds = self.memory = self.peak = self.cpu = self.stop = self.lag = 0.0
        self.remarks: Dict[str, None] = {}  # a set in order

    def show(self, name: str, attackers: int) -> None:
        words = ["%-13s %4d" % (name, attackers)]
        values = [percentile(self.delays, 0.5), percentile(self.delays, 0.99), max(self.delays)]
        words += ["%7.1f" % value for value in values]
        words.append("%6.0f %6.0f" % (percentile(self.newcomers, 0.5), max(self.newcomers)))
        words += ["%6.0f" % (self.counts[what] / self.seconds) for what in ("room", "bob", "event")]
        words.append("%11s" % ("%.0f (%.0f)" % (self.peak, self.memory)))
        words.append("%4.2f %5.1f %5.0f  " % (self.cpu, self.stop, self.lag))
        print(" ".join(words) + "; ".join(self.remarks), flush=True)


HEADER = (
    "kind             n     p50     p99   worst      newcomer   room    bob  event        peak"
    "  cpu  stop   lag   remarks"
)


def percentile(values: List[float], share: float) -> float:
    return sorted(values)[int((len(values) - 1) * share)]


class Newcomers(threading.Thread):
    """People who connect, found a room and leave, one after the other."""

    def __init__(self, port: int, figures: Figures) -> None:
        super().__init__()
        self._port, self._figures = port, figures
        self.is_over = threading.Event()
        self.start()

    def run(self) -> None:
        numbers = itertools.count()
        while not self.is_over.wait(0.5):
            number, start = next(numbers), time.monotonic()
            with socket.socket() as sock:
                sock.settimeout(GRACE)
                try:
                    sock.bind((NEWCOMER_ADDRESS % (number % 250 + 1), 0))
                    sock.connect((SERVER_ADDRESS, self._port))
                    sock.sendall(hello("new%d" % number))
                    self._wait(sock, rb" 001 ")
                    self._figures.newcomers.append((time.monotonic() - start) * 1000)
                    sock.sendall(to_bytes("JOIN #new"))
                    if b" 366 " not in self._wait(sock, rb" (366|405|437) [^\r]*#new |FAIL JOIN"):
                        self._figures.remarks["a newcomer could NOT found a room"] = None
                    sock.sendall(to_bytes("QUIT"))
                except OSError as error:
                    self._figures.newcomers.append((time.monotonic() - start) * 1000)
                    self._figures.remarks["a newcomer was NOT served: %s" % error] = None

    def _wait(self, sock: socket.socket, pattern: bytes) -> bytes:
        heard = b""
        while not re.search(pattern, heard):
            data = sock.recv(1 << 16)
            if not data:
                raise ConnectionResetError(heard[-100:].decode("utf-8", "replace").strip())
            heard += data
        return re.search(pattern, heard)[0]  # type: ignore[index]


class Measurement:
    """Two others who write to each other while attackers work."""

    def __init__(self, stage: Stage, figures: Figures) -> None:
        self._stage, self._figures = stage, figures
        self._next_number = 0
        self._outstanding: Dict[int, float] = {}  # messages, and when they were sent
        self._selector = selectors.DefaultSelector()
        for person in stage.others + stage.keepers:
            person.sock.setblocking(False)
            self._selector.register(person.sock, selectors.EVENT_READ, person)

    def run(self, seconds: float, rate: float, report: Optional[float] = None) -> None:
        """Measure, and wait until all messages have arrived, GRACE at most.

        Prints a line about the server every `report` seconds.
        """
        stage, figures = self._stage, self._figures
        figures.memory, cpu = stage.memory(), stage.cpu()
        newcomers = Newcomers(stage.port, figures)
        start = now = next_message = next_look = time.monotonic()
        end, next_report = start + seconds, start + (report or seconds + GRACE)
        while now < end or (self._outstanding and now < end + GRACE):
            if now < end and now >= next_message:
                figures.lag = max(figures.lag, (now - next_message) * 1000)
                self._say(now)
                next_message += 0.5 / rate
            if now >= next_look:
                figures.peak = max(figures.peak, stage.memory())
                next_look = now + 0.2
            if now >= next_report:
                print("after %4.0f s: %s" % (now - start, stage.describe()), flush=True)
                next_report += report or 0
            wake = min(next_message, next_look) if now < end else next_look
            for key, _ in self._selector.select(max(0.0, wake - now)):
                self._listen(key.data)
            now = time.monotonic()
        newcomers.is_over.set()
        newcomers.join()
        figures.seconds, figures.cpu = now - start, (stage.cpu() - cpu) / (time.monotonic() - start)
        figures.delays += [(now - sent) * 1000 for sent in self._outstanding.values()]
        if self._outstanding:
            figures.remarks["%d messages did NOT arrive" % len(self._outstanding)] = None
        for person in stage.others + stage.keepers:
            if person.end:
                figures.remarks["%s was DISCONNECTED: %s" % (person.nickname, person.end)] = None
        self._selector.close()

    def _say(self, now: float) -> None:
        number, self._next_number = self._next_number, self._next_number + 1
        one, other = self._stage.others[:: -1 if number % 2 else 1]
        if not (one.end or other.end):
            self._outstanding[number] = now
            target = other.nickname if number // 2 % 2 else "#lobby"
            one.say("PRIVMSG %s :~%d" % (target, number))

    def _listen(self, person: Person) -> None:
        data, now, counts = person.receive(), time.monotonic(), self._figures.counts
        if person.end:
            self._selector.unregister(person.sock)
        data = data if person in self._stage.others else b""
        for number in map(int, OWN_LINE.findall(data)):
            if number in self._outstanding:
                self._figures.delays.append((now - self._outstanding.pop(number)) * 1000)
        is_alice = person is self._stage.others[0]
        for command, target in HOSTILE_LINE.findall(data):
            if command not in (b"PRIVMSG", b"NOTICE"):
                counts["event"] += is_alice
            elif target == b"#lobby":
                counts["room"] += is_alice
            else:
                counts["bob"] += not is_alice


class Attack:
    """The process of the attackers."""

    def __init__(self, port: int, mix: Dict[str, int]) -> None:
        command = [sys.executable, str(TESTS / "bench_attackers.py"), str(port), json.dumps(mix)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def stop(self) -> str:
        """End it, and return what it did."""
        return self._process.communicate(timeout=TIMEOUT)[0].decode().strip()


def measure(args: argparse.Namespace, name: str, attackers: int) -> Figures:
    figures = Figures()
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(args.server, folder, list(KINDS[name].needs))
        attack = Attack(stage.port, {name: attackers})
        try:
            Measurement(stage, figures).run(args.seconds, args.rate)
        finally:
            figures.stop = stage.stop()
            did = attack.stop()
        figures.remarks.update(dict.fromkeys([did, *stage.errors()]))
    figures.show(name, attackers)
    return figures


def soak(args: argparse.Namespace) -> Figures:
    """Measure all kinds at once, and show what the server uses before, during and after."""
    figures, count = Figures(), (args.attackers or [5])[0]
    mix = {name: count for name, kind in KINDS.items() if kind.sizes != (0,)}
    needs = {need for name in mix for need in KINDS[name].needs} - {"9,000 rooms"}
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(args.server, folder, list(needs))
        try:
            print("before:       %s" % stage.describe(), flush=True)
            attack = Attack(stage.port, mix)
            Measurement(stage, figures).run(args.soak * 60, SOAK_RATE, SOAK_REPORT)
            did = attack.stop()
            time.sleep(CALM)
            print("%2.0f s calm:    %s" % (CALM, stage.describe()), flush=True)
            attack = Attack(stage.port, mix)
            time.sleep(3)
        finally:
            figures.stop = stage.stop()
        attack.stop()
        figures.remarks.update(dict.fromkeys([did, *stage.errors()]))
    print(HEADER)
    figures.show("all", count * len(mix))
    return figures


def judge(cases: Dict[str, Figures]) -> None:
    """Print a verdict for each goal."""

    def is_over_budget(figures: Figures) -> bool:
        most = max(figures.counts["room"], figures.counts["bob"])
        return most > ADDRESS_BURST + ADDRESS_RATE * figures.seconds

    def has_remark(word: str) -> Callable[[Figures], bool]:
        return lambda figures: word in "".join(figures.remarks)

    goals: List[Tuple[str, Callable[[Figures], bool]]] = [
        ("median under %g ms" % MEDIAN_GOAL, lambda f: percentile(f.delays, 0.5) >= MEDIAN_GOAL),
        ("worst under %g ms" % WORST_GOAL, lambda f: max(f.delays) >= WORST_GOAL),
        ("messages within the budget of an address", is_over_budget),
        ("nobody else disconnected", has_remark("DISCONNECTED")),
        ("all messages arrived, all newcomers served", has_remark("NOT")),
        ("no error in the log", has_remark("ERROR")),
        ("ended within %g s" % STOP_GOAL, lambda f: f.stop >= STOP_GOAL),
    ]
    for goal, is_missed in goals:
        missed = [name for name, figures in cases.items() if is_missed(figures)]
        form = "%-4s %s: %d of %d missed it: %s" if missed else "%-4s %s"
        details = (len(missed), len(cases), ", ".join(missed)) if missed else ()
        print(form % ("FAIL" if missed else "ok", goal, *details))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kind", action="append", choices=list(KINDS), help="default: all")
    parser.add_argument("--attackers", action="append", type=int, help="default: 5, 20 and 100")
    parser.add_argument("--seconds", type=float, default=6.0, help="length of a case")
    parser.add_argument("--rate", type=float, default=20.0, help="messages a second of an other")
    parser.add_argument("--soak", type=float, metavar="MINUTES", help="all kinds at once")
    parser.add_argument("--server", default=SERVER, metavar="FILE", help="server.py to measure")
    args = parser.parse_args()
    cases: Dict[str, Figures] = {}
    if args.soak:
        cases["all"] = soak(args)
    else:
        print(HEADER, flush=True)
        for name in args.kind or KINDS:
            sizes = KINDS[name].sizes
            for attackers in (args.attackers if len(sizes) > 1 else None) or sizes:
                cases["%s %d" % (name, attackers)] = measure(args, name, attackers)
    judge(cases)


if __name__ == "__main__":
    main()
