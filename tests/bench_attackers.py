"""The attackers of bench_hostile.py: a program of its own, with one thread.

    python3 tests/bench_attackers.py PORT '{"tags": 20, "empty": 5}'

Connects to a server on this machine and writes prepared bytes to non-blocking sockets, as each
kind's script says, until standard input ends. Prints "ready" when it begins, and as its last
line what it did. Has a lower priority than the server, so that it takes only the CPU time that
is left.
"""

import base64
import collections
import contextlib
import heapq
import json
import os
import random
import re
import selectors
import socket
import ssl
import sys
import time
from typing import Any, Callable, Dict, Generator, List, NamedTuple, Optional, Pattern, Tuple, Union

SERVER_ADDRESS = "127.0.0.1"  # also the address of all attackers
PASSWORD = "open-sesame"  # given by all but those who guess; servers without one ignore it
SMALL_BUFFER = 4096  # bytes that the system receives for an attacker that does not read

# A script yields bytes to write, a pattern to wait for, whose match is sent into it, or seconds
# to wait. When it is done, or the server has hung up, the attacker connects again.
Script = Generator[Union[bytes, Pattern[bytes], float], Any, None]

JOINED = re.compile(rb" 366 ")  # the end of the lobby's names
DONE = re.compile(rb"PONG \S+ :?done")
ENDED = re.compile(rb"(?!)")  # never found: waits until the server hangs up
TOKEN = re.compile(rb"RESUME TOKEN :?(\w+)|FAIL RESUME")


def to_bytes(*lines: str) -> bytes:
    return "".join(line + "\r\n" for line in lines).encode()


def hello(nickname: str, caps: str = "") -> bytes:
    """Return the lines that register an IRC client."""
    begin, end = (["CAP REQ :" + caps], ["CAP END"]) if caps else ([], [])
    names = ["NICK " + nickname, "USER u 0 * :somebody"]
    return to_bytes("PASS " + PASSWORD, *begin, *names, *end)


# Scripts
# -------


def ask(
    *lines: str, count: int, first: Tuple[str, ...] = (), caps: str = "", plain: bool = False
) -> "Callable[[Attacker], Script]":
    """Return a script that sends lines over and over.

    Attackers with an even number stay and send 200 lines at once, again and again. The others
    send `count` lines, as many as a new connection may send at once, leave, and come again. In a
    line, {n} is the attacker's number, {r} that of its connection and {i} that of the line.
    """

    def script(me: "Attacker") -> Script:
        yield to_bytes(me.nickname) if plain else hello(me.nickname, caps)
        if not plain:
            yield JOINED
        names = {"n": me.number, "r": me.round}
        is_staying = me.number % 2 == 0
        texts = [lines[i % len(lines)] for i in range(200 if is_staying else count)]
        block = to_bytes(*(text.format(i=i, **names) for i, text in enumerate(texts)))
        yield to_bytes(*(text.format(**names) for text in first)) + block
        while is_staying:
            yield block
        yield to_bytes("/quit" if plain else "QUIT")
        yield ENDED

    return script


def pour(block: bytes) -> "Callable[[Attacker], Script]":
    """Return a script that registers, and writes the same bytes without end."""

    def script(me: "Attacker") -> Script:
        yield hello(me.nickname)
        yield JOINED
        while True:
            yield block

    return script


def reconnect(me: "Attacker") -> Script:
    yield hello(me.nickname) + SPEECH + to_bytes("QUIT")
    yield ENDED


def resume(me: "Attacker") -> Script:
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


def found_rooms(me: "Attacker") -> Script:
    """Found 50 rooms, and stay in them."""
    yield hello(me.nickname, "draft/chathistory")
    yield JOINED
    rooms = ",".join("#f%dx%d" % (me.number, i) for i in range(50))
    yield to_bytes("PART #lobby", "JOIN " + rooms)
    yield ENDED


def guess_passwords(me: "Attacker") -> Script:
    """Guess passwords of accounts, each another; with an odd number, that of the server."""
    if me.number % 2:
        yield hello(me.nickname).replace(PASSWORD.encode(), b"wrong")
    else:
        yield to_bytes("PASS " + PASSWORD, "CAP REQ :sasl", "NICK " + me.nickname)
        for i in range(40):
            words = b"\0%s%d\0wrong" % (me.nickname.encode(), i)
            yield to_bytes("AUTHENTICATE PLAIN", "AUTHENTICATE " + base64.b64encode(words).decode())
        yield to_bytes("QUIT")
    yield ENDED


def send_garbage(me: "Attacker") -> Script:
    """Send random bytes: alone, after a TLS hello, after HTTP, and as a registered client."""
    openings = [b"", b"\x16\x03\x01\x02\x00\x01", b"POST / HTTP/1.1\r\n", hello(me.nickname)]
    yield openings[me.number % 4] + bytes(random.getrandbits(8) for _ in range(4096))
    for _ in range(10):
        yield GARBAGE
    if me.number % 4 == 3:
        yield ENDED


def say_nothing(me: "Attacker") -> Script:
    yield ENDED


def drip(me: "Attacker") -> Script:
    """Send a byte at a time."""
    data = hello(me.nickname) + SPEECH
    for i in range(len(data)):
        yield data[i : i + 1]
        yield 0.02


def begin_tls() -> "Tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]":
    """Return a client's end of TLS, with its hello in the last."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    bios = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(*bios)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return (tls, *bios)


def greet_in_tls(me: "Attacker") -> Script:
    """Have the server compute its part of a handshake, and come again."""
    yield TLS_HELLO
    yield ANYTHING


def read_nothing_in_tls(me: "Attacker") -> Script:
    """Shake hands, ask for much, and read nothing."""
    tls, incoming, outgoing = begin_tls()
    yield outgoing.read()
    is_open = False
    while not is_open:
        incoming.write((yield ANYTHING)[0])
        with contextlib.suppress(ssl.SSLWantReadError):
            tls.do_handshake()
            is_open = True
    tls.write(hello(me.nickname) + to_bytes(*["WHO #lobby", "HELP"] * 40))
    yield outgoing.read()
    yield ENDED


TLS_HELLO = begin_tls()[2].read()
ANYTHING = re.compile(rb".+", re.DOTALL)
SPEECH = to_bytes(*["PRIVMSG #lobby :" + 60 * "x"] * 90)
GARBAGE = bytes(random.getrandbits(8) for _ in range(65536))
MANY_TAGS = "@" + ";".join("+a%d=b" % i for i in range(560)) + " PING x"
MASKS = ",".join("*r*o*m*q%02d*" % i for i in range(20))
ROOMS = ",".join("#m%d" % i for i in range(49))  # with the lobby, as many as allowed
BANS = [" ".join("*z%dy%d*!*@*" % (i, j) for j in range(8)) for i in range(12)]
SET_BANS = tuple("MODE {room} +bbbbbbbb " + masks for masks in BANS)
OWN_BANS = tuple(text.replace("{room}", "#b{n}r{r}") for text in SET_BANS)
READ_HISTORY = "CHATHISTORY LATEST #lobby * 500"
HISTORY_CAPS = "batch server-time draft/chathistory"


class Kind(NamedTuple):
    """A kind of attack."""

    script: "Callable[[Attacker], Script]"
    needs: Tuple[str, ...] = ()  # what bench_hostile.py prepares
    reads: bool = True  # False: reads nothing but what its script waits for
    sizes: Tuple[int, ...] = (5, 20, 100)  # attackers


# fmt: off
KINDS = {
    "quiet": Kind(say_nothing, sizes=(0,)),
    "reconnect": Kind(reconnect),
    "resume": Kind(resume),
    "empty": Kind(pour(b"\r\n" * 16384)),
    "tags": Kind(pour(to_bytes(*[MANY_TAGS] * 16))),
    "list_masks": Kind(ask("LIST " + MASKS, count=9), ("2,000 rooms",)),
    "list_all": Kind(ask("LIST", count=1), ("9,000 rooms",)),
    "bans": Kind(ask("MODE #banned b", "TOPIC #banned", "WHO #banned", count=40,
                     first=("JOIN #banned",)), ("bans",)),
    "ban_changes": Kind(ask(*OWN_BANS[:1], OWN_BANS[0].replace("+", "-"), count=70,
                            first=("JOIN #b{n}r{r}", *OWN_BANS))),
    "help_plain": Kind(ask("/help", count=40, plain=True)),
    "who_lobby": Kind(ask("WHO #lobby", count=20), ("crowd",)),
    "chathistory": Kind(ask(READ_HISTORY, count=2, caps=HISTORY_CAPS), ("history",)),
    "nick_many": Kind(ask("NICK y{n}r{r}i{i}", count=40, first=("JOIN " + ROOMS,))),
    "mass_join": Kind(ask("JOIN " + ROOMS, "PART " + ROOMS, count=2)),
    "found_rooms": Kind(found_rooms, sizes=(200,)),
    "targets": Kind(ask("PRIVMSG bob,bob,bob,bob :" + 60 * "x", count=22)),
    "private_flood": Kind(ask("PRIVMSG bob :" + 60 * "x", count=90)),
    "never_read": Kind(ask(READ_HISTORY, "LIST", "WHO #lobby", count=3, caps=HISTORY_CAPS),
                       ("2,000 rooms", "history"), reads=False, sizes=(250,)),
    "password": Kind(guess_passwords, ("password",)),
    "garbage": Kind(send_garbage),
    "half_open": Kind(say_nothing),
    "slow_drip": Kind(drip),
    "tls_hello": Kind(greet_in_tls, sizes=(20, 250)),
    "tls_never_read": Kind(read_nothing_in_tls, ("crowd",), reads=False, sizes=(250,)),
}
# fmt: on


# The program
# -----------


class Attacker:
    """Plays the script of a kind, in one connection after the other."""

    def __init__(self, loop: "Loop", kind: Kind, number: int) -> None:
        self.number, self.round = number, 0
        self.token = ""  # for the next connection to resume this one
        self._loop, self._kind = loop, kind
        self._resumed: Optional[socket.socket] = None
        self._connect()

    @property
    def nickname(self) -> str:
        return "x%dr%d" % (self.number, self.round)

    def on_ready(self, events: int, round_: int = 0) -> None:
        """Read, write or, for no events, go on after a pause in the connection `round_`."""
        try:
            if events & selectors.EVENT_READ:
                self._read()
            if events & selectors.EVENT_WRITE:
                self._write()
            if round_ == self.round:
                self._proceed()
            self._select()
        except BlockingIOError:
            pass
        except ConnectionRefusedError:
            time.sleep(0.01)  # the server has ended
            self._reconnect()
        except (StopIteration, OSError):
            self._reconnect()

    def _connect(self) -> None:
        self.round += 1
        self._loop.counts["connections"] += 1
        self._sock = socket.socket()
        self._sock.setblocking(False)
        if not self._kind.reads:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        self._sock.connect_ex((SERVER_ADDRESS, self._loop.port))
        self._script = self._kind.script(self)
        self._block = memoryview(b"")
        self._events = selectors.EVENT_READ
        self._loop.selector.register(self._sock, self._events, self)
        self._proceed()
        self._select()

    def _reconnect(self) -> None:
        self._loop.selector.unregister(self._sock)
        if self._resumed is not None:
            self._resumed.close()
        self._resumed = self._sock
        if not self.token:
            self._sock.close()
        self._connect()

    def _proceed(self, result: object = None) -> None:
        """Go on to the next step of the script."""
        step = self._script.send(result)
        self._wanted, self._heard = None, b""
        if isinstance(step, bytes):
            self._block = memoryview(step)
        elif isinstance(step, float):
            heapq.heappush(self._loop.pauses, (time.monotonic() + step, self.number, self.round))
        else:
            self._wanted = step

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
                self._proceed(match)

    def _write(self) -> None:
        sent = self._sock.send(self._block)
        self._loop.counts["sent"] += sent
        self._block = self._block[sent:]
        if not self._block:
            self._proceed()

    def _select(self) -> None:
        is_reading = self._kind.reads or self._wanted is not None
        events = selectors.EVENT_READ * is_reading | selectors.EVENT_WRITE * bool(self._block)
        if events not in (0, self._events):
            self._events = events
            self._loop.selector.modify(self._sock, events, self)


class Loop:
    """Runs all attackers."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.selector = selectors.DefaultSelector()
        self.counts: Dict[str, int] = collections.Counter()
        self.buffer = bytearray(1 << 18)
        self.pauses: List[Tuple[float, int, int]] = []  # end, attacker, number of its connection

    def run(self, mix: Dict[str, int]) -> None:
        self.selector.register(sys.stdin, selectors.EVENT_READ)
        names = [name for name, count in mix.items() for _ in range(count)]
        attackers = [Attacker(self, KINDS[name], number) for number, name in enumerate(names)]
        while True:
            now = time.monotonic()
            while self.pauses and self.pauses[0][0] <= now:
                _, number, round_ = heapq.heappop(self.pauses)
                attackers[number].on_ready(0, round_)
            timeout = self.pauses[0][0] - now if self.pauses else None
            for key, events in self.selector.select(timeout):
                if key.data is None:
                    return
                key.data.on_ready(events)


def main() -> None:
    os.nice(5)
    loop = Loop(int(sys.argv[1]))
    print("ready", flush=True)
    loop.run(json.loads(sys.argv[2]))
    values = loop.counts["connections"], loop.counts["sent"] / 1e6, loop.counts["received"] / 1e6
    print("%d connections, %.1f MB sent, %.1f received" % values, flush=True)


if __name__ == "__main__":
    main()
