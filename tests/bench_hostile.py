#!/usr/bin/env python3
"""Attackers: how quick the chat stays for others, and what the server uses meanwhile.

    python3 tests/bench_hostile.py                              all kinds; 5, 20, 100 attackers
    python3 tests/bench_hostile.py --kind tags --attackers 50   some kinds, some numbers
    python3 tests/bench_hostile.py --soak 10                    all kinds at once, for minutes

Starts server.py with its default options and a new data folder. Two people at 127.0.0.2 write
to each other in the lobby and privately, while attackers at 127.0.0.1 do what their kind says.
Prints a line for each case:

    p50 p99 worst  milliseconds from sending a message to its arrival at the other
    newcomer       milliseconds from connecting to the welcome: median and worst, at 127.0.0.3
    room bob event messages of the attackers a second that reached the lobby, and one person,
                   and their joins, leaves and new nicknames that reached the lobby
    peak           memory of the server: most, and in parentheses before the attack, in MiB
    cpu            CPU time of the server a second
    stop           seconds from SIGTERM, in the middle of the attack, to the server's end
    lag            milliseconds by which this program itself was late at most: if that is much,
                   the machine was short of CPU, and the case proves nothing

then what was noticed: others who were disconnected, messages lost, errors in the server's log.
The last lines are the verdicts. The attackers are a process of their own with a lower priority,
with one thread: it writes prepared bytes to non-blocking sockets. Linux only.
"""

import argparse
import collections
import functools
import heapq
import json
import os
import re
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, Generator, List, NamedTuple, Optional, Pattern, Tuple, Union

TESTS = Path(__file__).resolve().parent
SERVER_ADDRESS = ATTACKER_ADDRESS = "127.0.0.1"
OTHERS_ADDRESS, NEWCOMER_ADDRESS = "127.0.0.2", "127.0.0.3"
PASSWORD = "open-sesame"  # sent by all but those who guess; servers without one ignore it
TICK = os.sysconf("SC_CLK_TCK")

# Goals
MEDIAN_GOAL, WORST_GOAL = 25.0, 250.0  # milliseconds
STOP_GOAL = 8.0  # seconds
ADDRESS_BURST, ADDRESS_RATE = 1000, 100  # messages of an address: at once, and a second

GRACE = 15.0  # seconds that messages may take to arrive after the last was sent
TIMEOUT = 30.0  # seconds for a step of the preparation
CALM_AFTER = 20.0  # seconds from the end of a soak to the last look at the server


# The attackers: a process of its own
# -----------------------------------

# A script yields bytes to write, a pattern to wait for, whose match is sent into it, or seconds
# to wait. When it is done, or the server has hung up, the attacker connects again.
Script = Generator[Union[bytes, Pattern[bytes], float], Any, None]

JOINED = re.compile(rb" 366 ")  # the end of the lobby's names
ENDED = re.compile(rb"(?!)")  # never found: waits until the server hangs up
DONE = re.compile(rb"PONG \S+ :?done")
TOKEN = re.compile(rb"RESUME TOKEN :?(\w+)|FAIL RESUME")


class Attacker:
    """A connection after the other that plays the script of a kind."""

    def __init__(self, loop: "AttackLoop", kind: "Kind", number: int) -> None:
        self.number, self.round, self.token = number, 0, ""
        self._loop, self._kind = loop, kind
        self._former: Optional[socket.socket] = None
        self.connect()

    @property
    def nickname(self) -> str:
        return "x%dr%d" % (self.number, self.round)

    def connect(self) -> None:
        self.round += 1
        self._sock = socket.socket()
        self._sock.setblocking(False)
        if not self._kind.reads:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._sock.connect_ex((SERVER_ADDRESS, self._loop.port))
        self._script = self._kind.script(self)
        self._block = memoryview(b"")
        self._wanted: Optional[Pattern[bytes]] = None
        self._heard = b""
        self._events = selectors.EVENT_WRITE
        self._is_fresh = True
        self._loop.selector.register(self._sock, self._events, self)

    def proceed(self, result: object = None) -> None:
        """Go on to the next step of the script."""
        self._wanted = None
        step = self._script.send(result)
        if isinstance(step, bytes):
            self._block = memoryview(step)
        elif isinstance(step, float):
            self._loop.call_later(step, self)
        else:
            self._wanted, self._heard = step, b""

    def on_ready(self, events: int) -> None:
        try:
            if events & selectors.EVENT_READ:
                self._read()
            if events & selectors.EVENT_WRITE:
                self._write()
            self._select()
        except BlockingIOError:
            pass
        except StopIteration:
            self.reconnect()
        except ConnectionRefusedError:
            time.sleep(0.01)  # the server has ended
            self.reconnect()
        except OSError:
            self.reconnect()

    def on_time(self) -> None:
        try:
            self.proceed()
            self._select()
        except StopIteration:
            self.reconnect()

    def reconnect(self) -> None:
        self._loop.selector.unregister(self._sock)
        if self._former is not None:
            self._former.close()
        self._former = self._sock
        if not self.token:  # or else the connection is to be resumed
            self._sock.close()
        self._loop.cancel(self)
        self.connect()

    def _read(self) -> None:
        size = self._sock.recv_into(self._loop.buffer)
        if not size:
            raise ConnectionResetError
        self._loop.counts["received"] += size
        if self._wanted is not None:
            self._heard += self._loop.buffer[:size]
            match = self._wanted.search(self._heard)
            self._heard = self._heard[-512:]
            if match:
                self.proceed(match)

    def _write(self) -> None:
        if self._is_fresh:
            self._is_fresh = False
            self._sock.send(b"")
            self._loop.counts["connections"] += 1
            self.proceed()
        if self._block:
            sent = self._sock.send(self._block)
            self._loop.counts["sent"] += sent
            self._block = self._block[sent:]
            if not self._block:
                self.proceed()

    def _select(self) -> None:
        is_reader = self._kind.reads or self._wanted is not None
        events = selectors.EVENT_READ * is_reader | selectors.EVENT_WRITE * bool(self._block)
        if events != self._events:
            if not events:  # epoll tells of an end even then
                events = selectors.EVENT_READ if self._kind.reads else selectors.EVENT_WRITE
            self._events = events
            self._loop.selector.modify(self._sock, events, self)


class AttackLoop:
    """Runs all attackers in one thread until standard input ends."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.selector = selectors.DefaultSelector()
        self.counts: Dict[str, int] = collections.Counter()
        self.buffer = bytearray(1 << 18)
        self._timers: List[Tuple[float, int, Attacker]] = []

    def call_later(self, seconds: float, attacker: Attacker) -> None:
        heapq.heappush(self._timers, (time.monotonic() + seconds, id(attacker), attacker))

    def cancel(self, attacker: Attacker) -> None:
        self._timers = [timer for timer in self._timers if timer[2] is not attacker]
        heapq.heapify(self._timers)

    def run(self, mix: Dict[str, int]) -> None:
        self.selector.register(sys.stdin, selectors.EVENT_READ)
        print("ready", flush=True)
        numbers = iter(range(1 << 30))
        for name, count in mix.items():
            for _ in range(count):
                Attacker(self, KINDS[name], next(numbers))
        while True:
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                heapq.heappop(self._timers)[2].on_time()
            timeout = self._timers[0][0] - now if self._timers else None
            for key, events in self.selector.select(timeout):
                if key.data is None:
                    print(json.dumps(self.counts), flush=True)
                    return
                key.data.on_ready(events)


# Scripts
# -------


def to_bytes(*lines: str) -> bytes:
    return "".join(line + "\r\n" for line in lines).encode()


def hello(nickname: str, caps: str = "", password: str = PASSWORD) -> bytes:
    """Return the lines that register an IRC client."""
    asked = ["CAP REQ :" + caps] if caps else []
    names = ["NICK " + nickname, "USER u 0 * :attacker"]
    return to_bytes("PASS " + password, *asked, *names, *(["CAP END"] if caps else []))


def ask(
    *lines: str, count: int, first: str = "", caps: str = "", plain: bool = False
) -> Callable[[Attacker], Script]:
    """Return a script that sends lines over and over.

    Attackers with an even number stay and send 200 at once, again and again. The others send
    `count` lines, about what a new connection may send at once, then leave and come again. In a
    line, {n} is the attacker's number, {r} that of its connection and {i} that of the line.
    """

    def script(me: Attacker) -> Script:
        yield to_bytes(me.nickname) if plain else hello(me.nickname, caps)
        if not plain:
            yield JOINED
        if first:
            yield to_bytes(first.format(n=me.number, r=me.round))
        is_staying = me.number % 2 == 0
        texts = [lines[i % len(lines)] for i in range(200 if is_staying else count)]
        block = to_bytes(*(t.format(n=me.number, r=me.round, i=i) for i, t in enumerate(texts)))
        while is_staying:
            yield block
        yield block + to_bytes("/quit" if plain else "QUIT")
        yield ENDED

    return script


def pour(block: bytes) -> Callable[[Attacker], Script]:
    """Return a script that registers, and writes the same bytes without end."""

    def script(me: Attacker) -> Script:
        yield hello(me.nickname)
        yield JOINED
        while True:
            yield block

    return script


SPEECH = to_bytes(*["PRIVMSG #lobby :" + 60 * "x"] * 90)


def reconnect(me: Attacker) -> Script:
    yield hello(me.nickname) + SPEECH + to_bytes("QUIT")
    yield ENDED


def resume(me: Attacker) -> Script:
    if me.token:
        token, me.token = me.token, ""
        yield to_bytes("PASS " + PASSWORD, "CAP REQ :hubbub/resume", "RESUME " + token)
    else:
        yield hello(me.nickname, "hubbub/resume")
    match = yield TOKEN
    if match[1]:
        me.token = match[1].decode()
        yield SPEECH + to_bytes("PING :done")
        yield DONE


ROOMS = ",".join("#m%d" % i for i in range(50))
MASKS = ",".join("*r*o*m*q%02d*" % i for i in range(20))
MANY_TAGS = "@" + ";".join("+a%d=b" % i for i in range(560)) + " PING x"
BANS = ["b" * 8 + " " + " ".join("*z%dy%d*!*@*" % (i, j) for j in range(8)) for i in range(12)]
BAN_CHANGES = [sign + BANS[0] for sign in "+-"]


class Kind(NamedTuple):
    """A kind of attack."""

    script: Callable[[Attacker], Script]
    prepare: "Tuple[Callable[[Stage], None], ...]" = ()
    reads: bool = True  # False: reads nothing but what its script waits for
    sizes: Tuple[int, ...] = (5, 20, 100)
    options: Tuple[str, ...] = ()  # of the server, beside the default ones


# People, and what there is before an attack
# ------------------------------------------


class Person:
    """An IRC client. Blocks until the measurement begins."""

    def __init__(self, port: int, nickname: str, address: str) -> None:
        self.nickname, self.rest, self.end = nickname, b"", ""
        self.sock = socket.socket()
        self.sock.settimeout(TIMEOUT)
        self.sock.bind((address, 0))
        self.sock.connect((SERVER_ADDRESS, port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.sendall(hello(nickname, "draft/chathistory"))
        self.expect(rb" 366 ")

    def say(self, *lines: str) -> None:
        self.sock.sendall(to_bytes(*lines))

    def expect(self, pattern: bytes) -> bytes:
        """Return what comes, up to the line in which the pattern is found."""
        heard = b""
        while not re.search(pattern, heard):
            data = self.receive()
            if self.end:
                raise SystemExit("%s was disconnected: %s" % (self.nickname, self.end))
            heard += data
        return heard

    def say_all(self, *lines: str) -> None:
        """Send lines, and wait until the server has carried them out."""
        self.say(*lines, "PING :done")
        self.expect(DONE.pattern)

    def receive(self) -> bytes:
        """Return the whole lines that have come; set `end` if there will be no more."""
        try:
            data = self.sock.recv(1 << 18)
        except OSError as error:
            self.end = str(error)
            return b""
        if not data:
            self.end = self.rest.decode("utf-8", "replace") or self.end or "closed"
        lines, newline, self.rest = (self.rest + data).rpartition(b"\n")
        if b"ERROR :" in lines:
            self.end = lines[lines.rindex(b"ERROR :") :].decode("utf-8", "replace").strip()
        if b"PING" in lines and re.search(rb"^(:\S+ )?PING ", lines, re.M):
            self.say("PONG :x")
        return lines + newline


class Stage:
    """A server with default options, its people, and what they have prepared."""

    def __init__(self, server: str, folder: str, options: Tuple[str, ...]) -> None:
        self.log = Path(folder) / "log"
        self.data = Path(folder) / "data"
        (Path(folder) / "password").write_text(PASSWORD + "\n")
        words = [word.format(folder=folder) for word in options]
        command = [sys.executable, server, "--host", SERVER_ADDRESS, "--port", "0"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--data", str(self.data), *words], stdout=log, stderr=log
            )
        self.pid = self.process.pid
        self.port = self._wait_for_port()
        self.keepers: List[Person] = []
        self.others = [self.person(name, OTHERS_ADDRESS) for name in ("alice", "bob")]

    def _wait_for_port(self) -> int:
        for _ in range(400):
            match = re.search(r"Running on \S+:(\d+)", self.log.read_text("utf-8", "replace"))
            if match:
                return int(match[1])
            time.sleep(0.05)
        raise SystemExit("the server did not start: " + self.log.read_text("utf-8", "replace"))

    def person(self, nickname: str, address: str) -> Person:
        return Person(self.port, nickname, address)

    def keeper(self) -> Person:
        """Return a new person at an address of its own."""
        n = len(self.keepers)
        person = self.person("keeper%d" % n, "127.9.%d.%d" % (n // 250, n % 250 + 1))
        self.keepers.append(person)
        return person

    # Of the server's process, from /proc

    def memory(self) -> float:
        """Return the memory in MiB."""
        return self._status("VmRSS") / 1024

    def threads(self) -> int:
        return self._status("Threads")

    def descriptors(self) -> int:
        return len(os.listdir("/proc/%d/fd" % self.pid))

    def disk(self) -> float:
        """Return the size of the data folder in MiB."""
        return sum(path.stat().st_size for path in self.data.iterdir()) / (1 << 20)

    def cpu(self) -> float:
        fields = Path("/proc/%d/stat" % self.pid).read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def _status(self, name: str) -> int:
        text = Path("/proc/%d/status" % self.pid).read_text()
        return int(text.partition(name + ":")[2].split()[0])

    def errors(self) -> List[str]:
        """Return the errors in the log, with their tracebacks."""
        text = self.log.read_text("utf-8", "replace")
        form = r"^(?:\S+ \S+ (?:ERROR|CRITICAL) |Traceback|Exception in).*(?:\n(?!\d{4}-).*)*"
        return re.findall(form, text, re.M)

    def stop(self) -> float:
        """End the server, and return the seconds that it took."""
        start = time.monotonic()
        self.process.terminate()
        try:
            self.process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for person in self.others + self.keepers:
            person.sock.close()
        return time.monotonic() - start


def rooms(stage: Stage, count: int) -> None:
    for start in range(0, count, 50):
        names = ",".join("#room%d" % i for i in range(start, start + 50))
        stage.keeper().say_all("JOIN " + names, "PART #lobby")


def history(stage: Stage) -> None:
    """Say 600 lines in the lobby."""
    for _ in range(10):
        person = stage.keeper()
        person.say_all(*["PRIVMSG #lobby :" + 100 * "h"] * 60)
        person.say("PART #lobby")


def crowd(stage: Stage) -> None:
    """Let 100 people wait in the lobby."""
    for _ in range(100):
        stage.keeper()


def bans(stage: Stage) -> None:
    stage.keeper().say_all("JOIN #banned", *("MODE #banned +" + masks for masks in BANS))


# fmt: off
KINDS = {
    "quiet": Kind(pour(b""), sizes=(0,)),
    "reconnect": Kind(reconnect),
    "resume": Kind(resume),
    "empty": Kind(pour(b"\r\n" * 16384)),
    "tags": Kind(pour(to_bytes(*[MANY_TAGS] * 16))),
    "list_masks": Kind(ask("LIST " + MASKS, count=9), (functools.partial(rooms, count=2000),)),
    "list_all": Kind(ask("LIST", count=2), (functools.partial(rooms, count=9000),)),
    "bans": Kind(ask("MODE #banned b", "TOPIC #banned", "WHO #banned", count=40,
                     first="JOIN #banned"), (bans,)),
    "chathistory": Kind(ask("CHATHISTORY LATEST #lobby * 500", count=3,
                            caps="batch server-time draft/chathistory"), (history,)),
    "nick_many": Kind(ask("NICK y{n}r{r}i{i}", count=45, first="JOIN " + ROOMS)),
}
# fmt: on


# The measurement
# ---------------


class Figures:
    """The figures of a case."""

    def __init__(self) -> None:
        self.delays: List[float] = []  # milliseconds
        self.newcomers: List[float] = []  # milliseconds
        self.counts: Dict[str, int] = collections.Counter()
        self.lag = self.seconds = self.stop = self.memory = self.peak = self.cpu = 0.0
        self.remarks: List[str] = []


def percentile(values: List[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else 0.0


HOSTILE_LINE = re.compile(rb"^:[^ ]+@127\.0\.0\.1 ([A-Z]+) :?([^ \r]+)", re.M)
OWN_LINE = re.compile(rb" :~(\d+)\r")


class Measurement:
    """Others who write to each other, and newcomers, while attackers work."""

    def __init__(self, stage: Stage, figures: Figures, rate: float) -> None:
        self._stage, self._figures = stage, figures
        self._interval = 1 / (2 * rate)
        self._selector = selectors.DefaultSelector()
        self._sent: List[float] = []
        self._outstanding: Dict[int, float] = {}  # messages, and when they were sent
        self._newcomer: Optional[socket.socket] = None
        self._newcomer_number, self._newcomer_start = 0, 0.0
        for person in stage.others + stage.keepers:
            person.sock.setblocking(False)
            self._selector.register(person.sock, selectors.EVENT_READ, person)

    def run(self, seconds: float) -> None:
        """Measure, then wait until all messages have arrived, GRACE at most."""
        stage, figures = self._stage, self._figures
        figures.memory, cpu = stage.memory(), stage.cpu()
        start = next_message = next_newcomer = next_look = now = time.monotonic()
        end = start + seconds
        while now < end or ((self._outstanding or self._newcomer) and now < end + GRACE):
            if now < end:
                figures.lag = max(figures.lag, (now - next_message) * 1000)
                while next_message <= now:
                    self._say(now)
                    next_message += self._interval
                if now >= next_newcomer and self._newcomer is None:
                    self._start_newcomer(now)
                    next_newcomer = now + 0.5
            if now >= next_look:
                figures.peak = max(figures.peak, stage.memory())
                next_look = now + 0.2
            wake = min(next_message, next_look) if now < end else next_look
            for key, _ in self._selector.select(max(0.0, wake - now)):
                if key.data is None:
                    self._meet_newcomer()
                else:
                    self._listen(key.data)
            now = time.monotonic()
        figures.seconds, figures.cpu = now - start, (stage.cpu() - cpu) / (now - start)
        figures.delays += [(now - sent) * 1000 for sent in self._outstanding.values()]
        if self._outstanding:
            figures.remarks.append("%d messages did not arrive" % len(self._outstanding))
        if self._newcomer is not None:
            figures.newcomers.append((now - self._newcomer_start) * 1000)
            figures.remarks.append("a newcomer was not let in")
            self._newcomer.close()
        for person in stage.others + stage.keepers:
            if person.end:
                figures.remarks.append("%s DISCONNECTED: %s" % (person.nickname, person.end))
        self._selector.close()

    def _say(self, now: float) -> None:
        number = len(self._sent)
        self._sent.append(now)
        one, other = self._stage.others[:: 1 - 2 * (number % 2)]
        if not (one.end or other.end):
            target = other.nickname if number // 2 % 2 else "#lobby"
            self._outstanding[number] = now
            try:
                one.say("PRIVMSG %s :~%d" % (target, number))
            except OSError as error:
                one.end = one.end or str(error)

    def _listen(self, person: Person) -> None:
        data, now = person.receive(), time.monotonic()
        if person.end:
            self._selector.unregister(person.sock)
        if person not in self._stage.others:
            return
        for number in map(int, OWN_LINE.findall(data)):
            sent = self._outstanding.pop(number, None)
            if sent is not None:
                self._figures.delays.append((now - sent) * 1000)
        in_lobby = person is self._stage.others[0]
        for command, target in HOSTILE_LINE.findall(data):
            if command not in (b"PRIVMSG", b"NOTICE"):
                self._figures.counts["events"] += in_lobby
            elif target == b"#lobby":
                self._figures.counts["room"] += in_lobby
            else:
                self._figures.counts["bob"] += not in_lobby

    def _start_newcomer(self, now: float) -> None:
        self._newcomer_start = now
        self._newcomer_number += 1
        self._newcomer = socket.socket()
        self._newcomer.setblocking(False)
        self._newcomer.bind((NEWCOMER_ADDRESS, 0))
        self._newcomer.connect_ex((SERVER_ADDRESS, self._stage.port))
        self._selector.register(self._newcomer, selectors.EVENT_WRITE)
        self._newcomer_heard = b""

    def _meet_newcomer(self) -> None:
        sock, now = self._newcomer, time.monotonic()
        assert sock is not None
        is_done = False
        try:
            if self._selector.get_key(sock).events == selectors.EVENT_WRITE:
                sock.send(hello("new%d" % self._newcomer_number))
                self._selector.modify(sock, selectors.EVENT_READ)
                return
            data = sock.recv(1 << 16)
            self._newcomer_heard += data
            is_done = b" 001 " in self._newcomer_heard
            reason = "" if data else self._newcomer_heard[-100:].decode("utf-8", "replace")
        except OSError as error:
            data, reason = b"", str(error)
        if is_done or not data:
            self._figures.newcomers.append((now - self._newcomer_start) * 1000)
            if not is_done:
                self._figures.remarks.append("a newcomer was refused: " + reason.strip())
            self._selector.unregister(sock)
            sock.close()
            self._newcomer = None


class Attack:
    """The process of the attackers."""

    def __init__(self, port: int, mix: Dict[str, int]) -> None:
        command = [sys.executable, __file__, "--attack", json.dumps(mix), "--port", str(port)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def stop(self) -> Dict[str, int]:
        """End it, and return what it did."""
        output, _ = self._process.communicate(timeout=TIMEOUT)
        return dict(json.loads(output.decode()))


def measure(server: str, name: str, attackers: int, seconds: float, rate: float) -> Figures:
    kind, figures = KINDS[name], Figures()
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(server, folder, kind.options)
        try:
            for prepare in kind.prepare:
                prepare(stage)
            attack = Attack(stage.port, {name: attackers})
            Measurement(stage, figures, rate).run(seconds)
        finally:
            figures.stop = stage.stop()
        did = attack.stop()
        form = "%d connections, %.1f MB sent, %.1f received"
        megabytes = did.get("sent", 0) / 1e6, did.get("received", 0) / 1e6
        figures.remarks.append(form % (did.get("connections", 0), *megabytes))
        figures.remarks += summarize(stage.errors())
    return figures


def summarize(errors: List[str]) -> List[str]:
    """Return one text for each kind of error, with its number."""
    counts = collections.Counter(error.strip().rpartition("\n")[2] for error in errors)
    return ["ERROR in the log, %d times: %s" % (n, text) for text, n in counts.most_common(5)]


HEADER = "%-13s %4s %7s %7s %7s %14s %6s %5s %5s %11s %4s %5s %5s  remarks" % (
    "kind", "n", "p50", "p99", "worst", "newcomer", "room", "bob", "event", "peak", "cpu", "stop",
    "lag",
)  # fmt: skip


def show(name: str, attackers: int, figures: Figures) -> None:
    delays, newcomers, counts = figures.delays, figures.newcomers, figures.counts
    values = [percentile(delays, 0.5), percentile(delays, 0.99), max(delays, default=0.0)]
    new = "%.0f %.0f" % (percentile(newcomers, 0.5), max(newcomers, default=0.0))
    rates = [counts[what] / figures.seconds for what in ("room", "bob", "events")]
    peak = "%.0f (%.0f)" % (figures.peak, figures.memory)
    form = "%-13s %4d %7.1f %7.1f %7.1f %14s %6.0f %5.0f %5.0f %11s %4.2f %5.1f %5.0f  %s"
    ending = (peak, figures.cpu, figures.stop, figures.lag, "; ".join(figures.remarks))
    print(form % (name, attackers, *values, new, *rates, *ending), flush=True)


def judge(cases: Dict[str, Figures]) -> None:
    """Print a verdict for each goal."""

    def verdict(goal: str, failures: List[str]) -> None:
        text = ": not by " + ", ".join(failures) if failures else ""
        print("%-4s %s%s" % ("FAIL" if failures else "ok", goal, text), flush=True)

    def failing(is_bad: Callable[[Figures], bool]) -> List[str]:
        return [case for case, figures in cases.items() if is_bad(figures)]

    def is_over_budget(figures: Figures) -> bool:
        budget = ADDRESS_BURST + ADDRESS_RATE * figures.seconds
        return max(figures.counts["room"], figures.counts["bob"]) > budget

    def is_faulty(word: str) -> Callable[[Figures], bool]:
        return lambda figures: any(word in remark for remark in figures.remarks)

    form = "median under %g ms"
    verdict(form % MEDIAN_GOAL, failing(lambda f: percentile(f.delays, 0.5) >= MEDIAN_GOAL))
    form = "worst under %g ms"
    verdict(form % WORST_GOAL, failing(lambda f: max(f.delays, default=0.0) >= WORST_GOAL))
    verdict("messages within the budget of an address", failing(is_over_budget))
    verdict("nobody else disconnected", failing(is_faulty("DISCONNECTED")))
    verdict("no message lost, no newcomer refused", failing(is_faulty("not arrive")))
    verdict("no error in the log", failing(is_faulty("ERROR")))
    verdict("ends within %g s" % STOP_GOAL, failing(lambda f: f.stop >= STOP_GOAL))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kind", action="append", choices=list(KINDS), help="default: all kinds")
    parser.add_argument("--attackers", action="append", type=int, help="default: 5, 20 and 100")
    parser.add_argument("--seconds", type=float, default=6.0, help="length of a case")
    parser.add_argument("--rate", type=float, default=20.0, help="messages a second of an other")
    parser.add_argument("--server", default=str(TESTS.parent / "server.py"), metavar="FILE")
    parser.add_argument("--attack", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.attack is not None:
        os.nice(5)
        AttackLoop(args.port).run(args.attack)
        return
    print(HEADER, flush=True)
    cases: Dict[str, Figures] = {}
    for name in args.kind or KINDS:
        sizes = KINDS[name].sizes
        for attackers in (args.attackers if len(sizes) > 1 else 0) or sizes:
            figures = measure(args.server, name, attackers, args.seconds, args.rate)
            cases["%s %d" % (name, attackers)] = figures
            show(name, attackers, figures)
    judge(cases)


if __name__ == "__main__":
    main()
