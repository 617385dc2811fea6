#!/usr/bin/env python3
"""Hubbub's client: a window to chat in, or a terminal where there is no window.

    python3 client.py [SERVER[:PORT]] [--username NAME] [--terminal]

Three parts, each of which knows nothing of the next:

    Connection   the socket and the `receive` thread, which connects, reads, writes, and comes
                 back when the connection is lost; all that it tells goes into one queue:
                 Connected, Message, Lost, Disconnected
    Chat         what is known and what it means: no socket, no widget, no clock. Its layers
                 are the Desk, which is what the user sees; the Voice, one's own words; the
                 Memory, which is the history; the Wire, which comes and goes; the Ear, what the
                 server says
    Window       widgets only; it polls the queue and redraws what a Chat says has changed

What comes from the network is made safe to show once, in the receive thread. The queue is
bounded: when the window cannot keep up the thread waits, and so, in the end, does the sender.
What one has typed stands there at once and waits until the server has it; after a loss the
history tells what had arrived, and nothing is sent twice.
It speaks IRC (see protocol.py), and asks of a server only what it offers.
"""

import argparse
import bisect
import codecs
import contextlib
import copy
import ctypes
import datetime
import difflib
import errno
import functools
import getpass
import html
import io
import itertools
import json
import logging
import math
import os
import queue
import random
import re
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import webbrowser
import zlib
from collections import deque
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Deque,
    Dict,
    FrozenSet,
    Iterable,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Pattern,
    Sequence,
    Set,
    Tuple,
    Union,
)

import protocol
from protocol import FROM_ME, FROM_OTHERS, FROM_SERVER, PRIVATE, Line, Message

try:
    import tkinter as tk
    from tkinter import font as tkfont
    from tkinter import ttk
except ImportError:  # the terminal does without
    tk = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from typing import Literal

# The server that is offered at first, for those who like to edit the file.
SERVER_IP = "127.0.0.1"
SERVER_PORT = protocol.PORT

log = logging.getLogger("hubbub")

CONNECT_TIME = 5.0  # seconds that a server has to answer, at each step of registration
PING_AFTER = 60.0  # seconds of silence after which the server is asked whether it lives
ANSWER_TIME = 20.0  # seconds that it has to answer that
WATCH_TIME = 5.0  # seconds between two looks whether we have slept, or moved to another network
SLEPT = 5.0  # seconds that nobody waited for: the computer must have slept
RETRY_TIMES = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)  # seconds before each attempt to come back
BACK_TIME = 3.0  # seconds for which one is told that the connection is back
QUIT_TIME = 1.0  # seconds of silence after a goodbye; that the program waits at its end
END_TIME = 10.0  # seconds without a sign of the server, at the end of the input
DAY = 86400  # seconds
LAST_TIME = 32472144000.0  # seconds since 1970: the year 2999; Windows knows no year 3001
MAX_EVENTS = 4000  # messages that wait for the window; past it the receive thread waits
RECEIVE_SIZE = 65536  # bytes read at once
MAX_OUTGOING = 1024 * 1024  # bytes that wait for a server that goes on asking
MAX_NAMES = 100000  # people in a room, and names in the answers about it
MAX_ASKED = 200  # people in a room of whom one asks who is away
MAX_WATCHED = 100  # people that one has watched
MAX_TARGETS = 400  # bytes of their names in one line: they fit, whatever stands before them
MAX_ENTRIES = 100000  # lines of the conversation in view; a tenth of that of others
MAX_CONVERSATIONS = 200
MAX_STRANGERS = 20  # private ones that others may open by writing; then they stand in the room
MAX_HITS = 10000  # of a search
MAX_FAILED = 1000  # messages that can be tried again
MAX_UNSENT = 500  # lines of a pipe that wait for the server
MAX_SERVERS = 10  # that are remembered
MAX_REQUESTS = 1000  # pieces of the history that are asked for and not yet told
MAX_BATCHES = 20  # pieces of the history that are being told at once
MAX_PIECE = 2000  # messages in one of them
MAX_PASTE = 20000  # characters of a paste, or bytes of a line, that are taken at once
PAGE, MISSED_PAGE = 50, 500  # messages of the history that are asked for at once
HISTORY_TIME = 60.0  # seconds that a server has to tell what was asked for, to its end
MAX_PAGES = 10  # of what was missed; past them one begins anew
RECENT = 500  # lines whose speakers are offered first
MAX_OFFERED = 200  # people who may be meant by a name that is begun, or misspelt

HISTORY = "draft/chathistory"  # a capability
CONNECTING, CONNECTED = "Connecting", "Connected"
RECONNECTING, DISCONNECTED = "Reconnecting", "Disconnected"


# The connection

# Whose turn it is to mend a Disconnected: another name, the password, another server or
# another try; or nobody's, for the user had it end.
NAME, PASSWORD, SERVER, LOST, CLOSED = "name", "password", "server", "lost", "closed"

RESUME = "hubbub/resume"  # the capability; README.md describes it


class Connected(NamedTuple):
    """The server has welcomed us, for the first time or again."""

    nickname: str
    caps: FrozenSet[str] = frozenset()  # what it has agreed to
    session: int = 1  # counts the welcomes
    is_resumed: bool = False  # we have taken our old place: nobody saw us go


class Lost(NamedTuple):
    """The connection is down; it is tried again by itself, after `seconds`."""

    reason: str
    attempt: int = 1  # the number of the coming one
    seconds: float = 0.0
    unsent: Tuple[Message, ...] = ()  # of what was to be sent, what surely did not go


class Disconnected(NamedTuple):
    """The connection is over for good, or never was. `reason` is for the user."""

    fault: str  # NAME, PASSWORD, SERVER, LOST or CLOSED
    reason: str


Event = Union[Connected, Message, Lost, Disconnected]


class Login(NamedTuple):
    """An account, for as long as the program runs: never shown, logged or kept in a file."""

    name: str
    password: str


class RefusedError(Exception):
    """The server will not have us; carries the Disconnected that says why."""

    def __init__(self, fault: str, reason: str, is_final: bool = False) -> None:
        super().__init__(reason)
        self.event = Disconnected(fault, reason)
        self.is_final = is_final  # there is no use in trying again


class Handshake:
    """What is said until the server has welcomed us (no I/O).

    https://modern.ircdocs.horse/#connection-setup
    With a `token` it takes back the place of a connection that was lost; `is_return` says
    that there was one, so that a name in use (by our own ghost, most likely) is no refusal.
    """

    WANTED = (
        "account-notify", "away-notify", "batch", "draft/account-registration",
        "draft/chathistory", "echo-message", "extended-join", RESUME, "invite-notify",
        "labeled-response", "message-tags", "multi-prefix", "sasl", "server-time", "setname",
        "standard-replies",
    )  # fmt: skip

    def __init__(
        self, nickname: str, password: str = "", login: Optional[Login] = None,
        token: str = "", is_return: bool = False,
    ) -> None:  # fmt: skip
        self.nickname = self._wanted = nickname
        self.done = False
        self.caps: FrozenSet[str] = frozenset()  # what the server has agreed to
        self.is_resumed = False
        self.login = login  # what is, or was, taken for the account
        self._password, self._token = password, token
        self._is_return = is_return
        self._offered: List[str] = []
        self._is_introduced = False  # who takes a place back says so before all else
        self._is_resuming = False
        self._is_ended = False  # the negotiation of capabilities
        self._tries = 0  # of other names

    def opening(self) -> List[Message]:
        """The first messages."""
        messages = [Message("PASS", (self._password,))] if self._password else []
        messages.append(Message("CAP", ("LS", "302")))
        return messages if self._token else [*messages, *self._introduce()]

    def _introduce(self) -> List[Message]:
        if self._is_introduced:
            return []
        self._is_introduced = True
        user = Message("USER", (self.nickname, "0", "*", self.nickname))
        return [Message("NICK", (self.nickname,)), user]

    def answer(self, message: Message) -> List[Message]:
        """What to say to `message`. Raises RefusedError."""
        command, params = message.command, message.params
        if command == "CAP" and len(params) > 2:
            return self._answer_cap(params[1], params[2:])
        if command == "AUTHENTICATE" and self.login is not None:
            pieces = protocol.compose_plain(*self.login)
            return [Message("AUTHENTICATE", (piece,)) for piece in pieces]
        if command in _AUTHENTICATED:
            return self._go_on(command == "903")
        if command == "001" and params and protocol.is_word(params[0]):
            self.nickname = params[0]
            self.done, self.is_resumed = True, self._is_resuming
        elif command == "FAIL" and params[:1] == ("RESUME",):
            self._is_resuming = False
            return self._end()
        elif command == "433" and "registered" in message.text and not self._is_return:
            return self._log_in()
        elif command == "421":  # it knows nothing of CAP
            return self._introduce()
        elif command in ("433", "436") and self._is_return and self._tries < 3:
            self._tries += 1
            self.nickname = self._wanted[: protocol.MAX_NAME - self._tries] + "_" * self._tries
            return [Message("NICK", (self.nickname,))]
        elif command in _REFUSALS:
            raise self._refusal(message)
        return []

    def _refusal(self, message: Message) -> RefusedError:
        fault, is_final = _REFUSALS[message.command]
        text = message.text
        if message.command in ("433", "436"):
            text = "“%s” is already here. Try another name, for example %s2."
            text %= (self.nickname, self.nickname[: protocol.MAX_NAME - 1])
        elif fault == PASSWORD:
            text = "Wrong password." if self._password else "This server asks for a password."
        return RefusedError(fault, text, is_final)

    def _answer_cap(self, verb: str, rest: Tuple[str, ...]) -> List[Message]:
        words = [word.partition("=")[0] for word in rest[-1].split()]
        if verb == "LS":
            self._offered += words
            if rest[0] == "*":  # more lines follow
                return []
            wanted = [cap for cap in self.WANTED if cap in self._offered]
            if wanted:
                return [Message("CAP", ("REQ", " ".join(wanted)))]
        elif verb == "ACK":
            self.caps |= frozenset(words)
            is_answered = self._is_ended or self._is_resuming
            if rest[0] == "*" or is_answered:  # more lines follow, or one more has come
                return []
            if self.login is not None and "sasl" in self.caps:
                return [Message("AUTHENTICATE", ("PLAIN",))]
        elif verb == "DEL":
            self.caps -= frozenset(words)
            return []
        elif verb != "NAK":
            return []
        return self._end()

    def _log_in(self) -> List[Message]:
        """The name has an owner: perhaps the password is not the server's, but theirs."""
        if not self._password or self.login is not None or "sasl" not in self.caps:
            text = "“%s” is registered. If it is yours, type its password; else choose another."
            raise RefusedError(PASSWORD, text % self.nickname)
        self.login = Login(self.nickname, self._password)
        return [Message("AUTHENTICATE", ("PLAIN",))]

    def _go_on(self, is_logged_in: bool) -> List[Message]:
        if not self._is_ended:
            return self._end()
        if not is_logged_in:
            raise RefusedError(PASSWORD, "Wrong password.", is_final=True)
        return [Message("NICK", (self.nickname,))]

    def _end(self) -> List[Message]:
        """The last messages: who we are, and that this is all. Who was here before says so first.

        README.md tells of the token: it is answered by the welcome, or by FAIL.
        """
        if self._token and RESUME in self.caps:
            token, self._token, self._is_resuming = self._token, "", True
            return [Message("RESUME", (token,))]
        self._is_ended = True
        return [*self._introduce(), Message("CAP", ("END",))]


# The end of a login, good or bad: registration goes on.
_AUTHENTICATED = frozenset("903 904 905 906 907 908".split())
# What ends a registration: whose turn it is, and whether there is no use in trying again.
_REFUSALS = {
    "432": (NAME, False), "433": (NAME, False), "436": (NAME, False), "437": (NAME, False),
    "464": (PASSWORD, True), "465": (SERVER, True), "ERROR": (SERVER, False),
}  # fmt: skip


class Connection:
    """A connection to one server, from `start` until its Disconnected is in the queue.

    Once it has been welcomed it comes back by itself whenever it is lost (unless `returns` is
    False): at once, then after pauses that grow, and at once again when the computer wakes, the
    network is back, or `retry` is called. What others call may be called from any thread
    and never waits for the network.
    """

    def __init__(
        self, host: str, port: int, password: str, nickname: str, events: "queue.Queue[Any]",
        returns: bool = True,
    ) -> None:  # fmt: skip
        self.host, self.port = host, port
        self._events = events
        self._returns = returns
        self._lock = threading.Lock()  # guards _outgoing, _unsent, _written and _open
        self._outgoing = bytearray()
        self._unsent: Deque[Tuple[int, Message]] = deque()  # sizes and messages in _outgoing
        self._written = 0  # bytes of the first of them that are gone
        self._open = 0  # the session that one may send in; 0 for none
        self._closing_since = 0.0  # since the goodbye, or what was heard last; 0 before that
        self._is_heard = True  # somebody polls the queue
        self._hurries = False  # the next attempt waits no more
        # Of the receive thread alone:
        self._nickname, self._password, self._token = nickname, password, ""
        self._session = 0  # counts the welcomes
        self._login: Optional[Login] = None  # but this is written by `carry_out`
        self._handshake = Handshake(nickname, password)
        self._peer: Any = None  # family and address of the last connection
        self._woken, self._waker = socket.socketpair()
        for end in (self._woken, self._waker):
            end.setblocking(False)
        # Daemon: a name that is being looked up cannot be called off.
        self._thread = threading.Thread(target=self._run, name="receive", daemon=True)

    @property
    def address(self) -> str:
        """Where it connects to, for people."""
        return "%s:%d" % (self.host, self.port)

    @property
    def unsent(self) -> int:
        """How many messages wait to be handed to the network."""
        with self._lock:
            return len(self._unsent)

    def start(self) -> None:
        """Connect."""
        self._thread.start()

    def carry_out(self, outcome: "Outcome") -> None:
        """Send what a Chat wants sent, remember what it wants remembered, end when it is done."""
        self._login = outcome.login or self._login
        if outcome.done:
            self._say_goodbye(outcome.send)
        elif outcome.send and not self._closing_since:
            self.send(outcome.send, outcome.session)

    def send(self, messages: Iterable[Message], session: int = 0) -> None:
        """Send in order, after all that is still to be sent. Nothing is sent after `close`.

        What was meant for an earlier `session` is not sent in this one.
        """
        lines = [(protocol.serialize(message), message) for message in messages]
        with self._lock:
            if session and session != self._open:
                return
            for line, message in lines:
                self._outgoing += line
                self._unsent.append((len(line), message))
        self._wake()

    def retry(self) -> None:
        """Try again now, if it is waiting for that."""
        self._hurries = True
        self._wake()

    def close(self, wait: float = 0.0) -> None:
        """Say goodbye after what is left to send, and end when the server hangs up.

        That takes as long as the server still has something to say. `wait` seconds for it.
        The only event that follows is a Disconnected. Idempotent.
        """
        self._is_heard = False
        self._say_goodbye([Message("QUIT")])
        if wait and self._thread.is_alive():
            self._thread.join(wait)

    def _say_goodbye(self, messages: Iterable[Message]) -> None:
        if not self._closing_since:
            self._closing_since = time.monotonic()
            self.send(messages)

    @property
    def _is_late(self) -> bool:
        """Whether a goodbye has met with silence. Who has not been welcomed says none."""
        patience = QUIT_TIME if self._handshake.done else 0.0
        return bool(self._closing_since) and time.monotonic() > self._closing_since + patience

    def _wake(self) -> None:
        try:
            self._waker.send(b"!")
        except OSError:
            pass  # it is awake already, or at its end

    # The receive thread

    def _run(self) -> None:
        end = Disconnected(LOST, "The connection was lost.")
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._woken, selectors.EVENT_READ)
                end = self._stay(selector)
        except Exception:
            log.exception("%s: our mistake", self.address)
        finally:
            self._put(Disconnected(CLOSED, "") if self._closing_since else end)
            self._woken.close()
            self._waker.close()

    def _stay(self, selector: selectors.BaseSelector) -> Disconnected:
        """Connect, and again whenever the connection is lost, until it is over for good."""
        attempt = 0
        while not self._closing_since:
            sessions = self._session
            refused = self._visit(selector)
            if self._closing_since or not self._returns or not self._session or refused.is_final:
                return refused.event
            attempt = 1 if self._session > sessions else attempt + 1
            seconds = RETRY_TIMES[min(attempt, len(RETRY_TIMES)) - 1]
            seconds *= random.uniform(0.8, 1.2)  # noqa: S311 (so that not all come at once)
            self._hurries = False
            self._put(Lost(refused.event.reason, attempt, seconds, self._drop()))
            self._pause(seconds, selector)
        return Disconnected(CLOSED, "")

    def _visit(self, selector: selectors.BaseSelector) -> RefusedError:
        """Connect and talk, once; how that ended."""
        sock = None
        try:
            sock = self._connect(selector)
            return self._talk(sock, selector)
        except RefusedError as refused:
            return refused
        except OSError as error:
            log.info("%s: %s", self.address, error)
            return RefusedError(LOST, "The connection was lost.")
        finally:
            if sock is not None:
                selector.unregister(sock)
                sock.close()

    def _drop(self) -> Tuple[Message, ...]:
        """Forget what was to be sent; what of it surely did not go."""
        with self._lock:
            self._open = 0
            unsent = [message for _, message in self._unsent]
            if self._written:  # of half a message nobody knows
                del unsent[0]
            self._outgoing.clear()
            self._unsent.clear()
            self._written = 0
        return tuple(unsent)

    def _pause(self, seconds: float, selector: selectors.BaseSelector) -> None:
        """Wait, but no longer than there is a reason to."""
        deadline = time.monotonic() + seconds
        path = self._path()
        while not self._closing_since and not self._hurries and time.monotonic() < deadline:
            _, has_slept = self._select(selector, min(1.0, deadline - time.monotonic()))
            before, path = path, self._path()
            if has_slept or (path and path != before):
                return

    def _select(self, selector: selectors.BaseSelector, seconds: float) -> Tuple[List[int], bool]:
        """Wait for something to happen: what the socket is ready for, and whether we slept.

        The clock on the wall goes on while a computer sleeps; a timeout does not.
        """
        started = time.time()
        masks = []
        for key, mask in selector.select(max(0.0, seconds)):
            if key.fileobj is self._woken:
                self._woken.recv(4096)
            else:
                masks.append(mask)
        return masks, time.time() > started + seconds + SLEPT

    def _path(self) -> str:
        """Our own address on the way to the server, "" where there is no way. Sends nothing."""
        if self._peer is None:
            return ""
        family, address = self._peer
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect(address)
                return str(probe.getsockname()[0])
        except OSError:
            return ""

    def _put(self, event: Event) -> None:
        """Hand an event over; wait for room in the queue, for as long as somebody polls it."""
        while self._is_heard or isinstance(event, Disconnected):
            try:
                return self._events.put(event, timeout=0.1)
            except queue.Full:
                if not self._is_heard:
                    return None
        return None

    def _connect(self, selector: selectors.BaseSelector) -> socket.socket:
        silence = "Nothing answered at %s within %g seconds. Is server.py running there?"
        reason = silence % (self.address, CONNECT_TIME)
        found = self._look_up()
        for family, kind, proto, _, address in found:
            sock = socket.socket(family, kind, proto)
            try:
                sock.setblocking(False)
                sock.connect_ex(address)
                selector.register(sock, selectors.EVENT_WRITE)
                answered = self._await(selector, CONNECT_TIME / len(found))
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if answered and not code:
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self._peer = family, address
                    return sock
                selector.unregister(sock)
                if answered:
                    reason = _connect_fault(code, self.address)
            except OSError as error:
                reason = _connect_fault(error.errno or 0, self.address)
            sock.close()
        raise RefusedError(SERVER, reason)

    def _await(self, selector: selectors.BaseSelector, seconds: float) -> bool:
        """Whether the socket was ready in time, and before we closed."""
        deadline = time.monotonic() + seconds
        while not self._closing_since and time.monotonic() < deadline:
            if self._select(selector, deadline - time.monotonic())[0]:
                return True
        return False

    def _look_up(self) -> List[Tuple[Any, ...]]:
        """The addresses of the host. Raises RefusedError where there are none in time."""
        found: "queue.Queue[List[Tuple[Any, ...]]]" = queue.Queue()

        def look_up() -> None:
            try:
                found.put(socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM))
            except (OSError, UnicodeError):
                found.put([])

        # Daemon: as above.
        threading.Thread(target=look_up, name="look up", daemon=True).start()
        try:
            addresses = found.get(timeout=CONNECT_TIME)
        except queue.Empty:
            addresses = []
        if not addresses:
            text = "No computer called “%s” was found. Check the spelling, or use its address."
            raise RefusedError(SERVER, text % self.host)
        return addresses

    def _talk(self, sock: socket.socket, selector: selectors.BaseSelector) -> RefusedError:
        """Read and write until the connection ends; how it did."""
        is_return = bool(self._session)
        login, token = self._login, self._token
        handshake = Handshake(self._nickname, self._password, login, token, is_return)
        self._handshake = handshake
        framer = protocol.Framer(protocol.MAX_TAGS + protocol.MAX_MESSAGE)
        self._drop()
        self.send(handshake.opening())
        path = self._path()
        asked = False  # a PING is out
        deadline = time.monotonic() + CONNECT_TIME  # of what the server is to say next
        # Who closes while something is unread may take back what was said last, so it is the
        # server that hangs up.
        while not self._is_late:
            writing = selectors.EVENT_WRITE if self._outgoing else 0
            selector.modify(sock, selectors.EVENT_READ | writing)
            until = self._closing_since + QUIT_TIME if self._closing_since else deadline
            left = until - time.monotonic()
            masks, has_slept = self._select(selector, min(left, WATCH_TIME))
            before, path = path, self._path() if not masks else path
            if handshake.done and not asked and (has_slept or path != before):
                deadline = 0.0  # who knows whether the line still stands
            if not masks and not self._closing_since and time.monotonic() >= deadline:
                self._mind_silence(asked)
                asked, deadline = True, time.monotonic() + min(PING_AFTER, ANSWER_TIME)
            for mask in masks:
                if mask & selectors.EVENT_WRITE:
                    self._write(sock)
                if mask & selectors.EVENT_READ:
                    data = sock.recv(RECEIVE_SIZE)
                    if not data:
                        self._mind_stranger()
                        return RefusedError(LOST, "The connection was lost.")
                    for line in framer.feed(data):
                        if line:
                            self._handle(line)
                    asked = False
                    if self._closing_since:
                        self._closing_since = time.monotonic()
                    wait = PING_AFTER if handshake.done else CONNECT_TIME
                    deadline = time.monotonic() + wait
        return RefusedError(CLOSED, "")

    def _write(self, sock: socket.socket) -> None:
        with self._lock:
            sent = sock.send(self._outgoing)
            del self._outgoing[:sent]
            self._written += sent
            while self._unsent and self._unsent[0][0] <= self._written:
                self._written -= self._unsent.popleft()[0]

    def _mind_silence(self, asked: bool) -> None:
        self._mind_stranger()
        if asked:
            raise RefusedError(LOST, "The server does not answer any more.")
        self.send([Message("PING", ("hubbub",))])

    def _mind_stranger(self) -> None:
        if not self._handshake.done:
            self._token = ""  # whoever that is knows nothing of it
            text = "%s is there, but does not answer as a chat server does." % self.address
            raise RefusedError(SERVER, text)

    def _handle(self, line: bytes) -> None:
        try:
            message = protocol.parse(line, "replace")
        except protocol.ProtocolError:
            return  # whatever it was, it is nothing that could be shown
        if len(self._outgoing) > MAX_OUTGOING:
            raise RefusedError(LOST, "The server does not read what it asks for.")
        if message.command == "PING":
            self.send([protocol.fit(Message("PONG", (message.text,)))])
            return
        if message.command == "RESUME":  # a secret between the server and this thread
            self._token = message.text if message.params[:1] == ("TOKEN",) else self._token
            return
        message = _cleaned(message)
        if not self._handshake.done:
            self.send(self._handshake.answer(message))
            if self._handshake.done:
                self._welcome(message)
        elif message.command == "ERROR":
            raise self._ended(message.text)
        else:
            is_ours = message.nickname == self._handshake.nickname
            if message.command == "NICK" and is_ours and protocol.is_word(message.text):
                self._nickname = self._handshake.nickname = message.text
            self._put(message)

    def _ended(self, reason: str) -> RefusedError:
        """The server ends it. Who has logged in elsewhere, too, would come back to no end."""
        owner = protocol.OWNER_CAME.format(self._login.name if self._login is not None else "")
        is_taken = protocol.casefold(reason) == protocol.casefold(owner)
        return RefusedError(NAME if is_taken else LOST, reason, is_final=is_taken)

    def _welcome(self, message: Message) -> None:
        """Go on from the handshake; under another name only until ours is free again."""
        handshake = self._handshake
        self._session += 1
        with self._lock:
            self._open = self._session
        if self._session == 1 or handshake.is_resumed:
            self._nickname = handshake.nickname
        self._login = handshake.login or self._login
        told = (handshake.nickname, handshake.caps, self._session, handshake.is_resumed)
        self._put(Connected(*told))
        self._put(message)


def _connect_fault(code: int, address: str) -> str:
    name = os.strerror(code)
    if code == errno.ECONNREFUSED:
        return "Nothing is listening at %s. Is server.py running there?" % address
    return "%s cannot be reached: %s. Is it on, and on this network?" % (address, name)


_TAGS = frozenset(["batch", "label", "msgid", "time"])  # those that we read
# Commands whose last parameter is a name, or several; elsewhere it is a text.
_NAMES_LAST = frozenset("JOIN INVITE MODE NICK 353 366 730 731".split())


def _cleaned(message: Message) -> Message:
    """`message` with all its text safe to show; what CTCP wraps stays wrapped.

    Of its tags those stay that mean something to us, and can be said to the server again.
    """
    params = [protocol.clean_name(param) for param in message.params]
    if params and message.command not in _NAMES_LAST:
        mark = "\x01" if message.text.startswith("\x01") else ""
        params[-1] = mark + protocol.clean(message.text) + mark
    source = protocol.clean_name(message.source, 200)
    tags = {k: v for k, v in message.tags.items() if k in _TAGS and protocol.is_word(v)}
    return message._replace(params=tuple(params), source=source, tags=tags)


# Conversations

SENT, WAITING, FAILED = "sent", "waiting", "failed"  # of a line that is one's own
ROOM, CONSOLE = "room", "console"  # kinds of conversation, beside PRIVATE
ALL, MENTIONS, NONE = "all", "mentions", "none"  # what one wants to be told of
ONLINE, AWAY, OFFLINE = "online", "away", "offline"
OUTSIDE = "You are not in {0}. /join {0}"
FROM_SYSTEM = "system"  # a kind of line, beside protocol's: what this program says

# What looks different; the window redraws that and nothing else.
ADDED, CHANGED, REMOVED = "added", "changed", "removed"  # entries: at the end, in place, gone
EARLIER, RELOADED = "earlier", "reloaded"  # entries before all others; everything
MARKED = "marked"  # the line above what is new
HEADER, PEOPLE = "header", "people"  # of a conversation
LIST, STATUS, SELECTED = "list", "status", "selected"  # conversations, the title, the one in view
ALERT = "alert"  # entries that deserve notice
RECALLED = "recalled"  # entries that were said earlier, for who reads line by line


class Entry:
    """One line of a conversation. The same one may stand in two of them."""

    __slots__ = ("did", "folded", "id", "is_mention", "line", "msgid", "note", "state")

    def __init__(self, number: int, line: Line, msgid: str = "", did: str = "") -> None:
        self.id = number
        self.did = did  # what somebody did that crowds do: "joined", "left"
        self.is_mention = False
        self.revise(line, msgid)

    def revise(self, line: Line, msgid: str) -> None:
        """It has been said, and looks like this."""
        self.line, self.msgid, self.state = line, msgid, SENT
        self.note = ""  # what else there is to say of it, in parentheses
        self.folded = self.text.casefold()  # as a search sees it

    @property
    def text(self) -> str:
        """What one sees of it, but for the time."""
        return "%s %s" % (self.line.head, self.line.text)

    @property
    def day(self) -> str:
        """The reader's date, as 2026-11-22."""
        return time.strftime("%Y-%m-%d", time.localtime(self.line.when))


Span = Tuple[int, int]  # from a character to another


class Person(NamedTuple):
    """Somebody in a room. `prefix` is @ for its operators, + for who may speak, or ""."""

    nickname: str
    prefix: str = ""
    is_away: bool = False


# Why a piece of the history is asked for: all that is new to us, what was before that, what was
# said while one was away, what the user wants to read again, with whom there is something new.
FIRST, OLDER, MISSED, TYPED, TARGETS = "first", "older", "missed", "typed", "targets"


class Past:
    """What is known of the history of a conversation, and what may be missing.

    It is `asked` for and `told` piece by piece. What was said after one had `lost` sight of it
    follows `link`, and is missing until all of it has been told.
    """

    def __init__(self) -> None:
        self.has_older = False  # there may be more before all that is known
        self.is_fetching = False  # a piece is asked for, and not yet told
        self.is_behind = False  # there may be more than is known after `link`
        self.link: Optional[Entry] = None
        self.is_linked = False  # what is told of it begins with `link`
        self.pages = self.missed = 0  # of it that were told; what others said in them

    def lost(self, newest: Optional[Entry]) -> None:
        """Things may be said that one does not hear; what was told of them begins anew."""
        if not self.is_behind:  # else what one has heard since stands beyond a gap
            self.is_behind, self.link = True, newest
        self.is_fetching = self.is_linked = False
        self.pages = self.missed = 0

    def asked(self) -> None:
        """For a piece."""
        self.is_fetching = True

    def refused(self) -> None:
        """The piece will not be told."""
        self.is_fetching = False

    def told(self, purpose: str, is_full: bool, is_linked: bool) -> None:
        """A piece; a full one may have more beyond it, a linked one has something known in it."""
        self.is_fetching = self.is_fetching and purpose in (TYPED, "")
        if purpose == MISSED:
            self.pages += 1
            self.is_linked = self.is_linked or is_linked
        if purpose in (FIRST, OLDER) or (purpose == MISSED and not self.is_linked):
            self.has_older = is_full

    def caught_up(self) -> None:
        """Nothing is missing any more, or nothing but what is older than all that is known."""
        self.is_behind = False


class Conversation:
    """A room, a person one talks to, or the server itself (while there is neither)."""

    def __init__(self, name: str, kind: str) -> None:
        self.rename(name)
        self.kind = kind
        self.topic = self.last_topic = ""  # now, and before one had to leave
        self.entries: List[Entry] = []  # in the order of the server, one's own waiting ones last
        self.unread = self.mentions = 0
        self.first_unread = self.new_count = 0  # the id of the entry below the mark; how many
        self.draft = ""
        self.level = MENTIONS
        self.past = Past()
        self.is_joined = kind != ROOM
        self.is_wanted = False  # a room that one comes back to
        self.members: Dict[str, Person] = {}
        self.names: Dict[str, Person] = {}  # of the members, as they are being told
        self.lists = 0  # how often the user has asked for them
        self.is_online = False  # whom one talks to, as far as one is told
        self.limit = MAX_ENTRIES
        self._known: Dict[str, Entry] = {}  # those with a msgid, by it

    def rename(self, name: str) -> None:
        self.name = name
        self.key = protocol.casefold(name)

    @property
    def title(self) -> str:
        """Its name without the sign that says what it is."""
        return self.name[1:] if self.kind == ROOM else self.name

    @property
    def people(self) -> List[Person]:
        """Who is in it, in order."""
        return [self.members[key] for key in sorted(self.members)]

    @property
    def is_outside(self) -> bool:
        """Whether one is not in it, and does not come back to it by oneself."""
        return not self.is_joined and not self.is_wanted

    def is_with(self, key: str) -> bool:
        """Whether somebody is in it."""
        return key in self.members or (key == self.key and self.kind == PRIVATE)

    def leave(self) -> None:
        """Know no more who is there, and not be there oneself."""
        self.members, self.names, self.lists = {}, {}, 0
        self.is_online, self.is_joined = False, self.kind != ROOM

    def tell_name(self, name: str, prefix: str) -> None:
        """Somebody is there; that holds once all have been told."""
        if name and len(self.names) < MAX_NAMES:
            self.names[protocol.casefold(name)] = Person(name, prefix)

    def end_names(self) -> bool:
        """All have been told; whether they are news."""
        is_news = len(self.members) < 2
        for key, person in self.members.items():
            if person.is_away and key in self.names:
                self.names[key] = self.names[key]._replace(is_away=True)
        self.members, self.names = self.names, {}
        return is_news

    def knows(self, msgid: str) -> bool:
        return msgid in self._known

    def add(self, entry: Entry) -> None:
        """Put `entry` at the end; past the limit the oldest that were sent go, many at once."""
        self.entries.append(entry)
        if entry.msgid:
            self._known[entry.msgid] = entry
        if len(self.entries) > self.limit + self.limit // 10:
            self._cut(len(self.entries) - self.limit)
            self.past.has_older = True

    def _cut(self, count: int) -> None:
        sent = (entry for entry in self.entries if entry.state == SENT)
        gone = set(itertools.islice(sent, count))
        for entry in gone:
            self._known.pop(entry.msgid, None)
        self.entries[:] = [entry for entry in self.entries if entry not in gone]

    def remove(self, entry: Entry) -> bool:
        """Take `entry` away; whether it was there."""
        index = self._index(entry)
        if index < 0:
            return False
        del self.entries[index]
        self._known.pop(entry.msgid, None)
        return True

    def settle(self, entry: Entry) -> bool:
        """Have an entry that waited stand where the server puts it; whether that is elsewhere."""
        if entry.msgid:
            self._known[entry.msgid] = entry
        for other in reversed(self.entries):
            if other is entry:
                break
            if other.state == SENT:
                self.remove(entry)
                self.add(entry)
                return True
        return False

    def _index(self, entry: Entry, before: Optional[int] = None) -> int:
        """Where `entry` is, looked for from the end; -1 for nowhere."""
        for index in range(len(self.entries) if before is None else before, 0, -1):
            if self.entries[index - 1] is entry:
                return index - 1
        return -1

    def merge(self, earlier: Sequence[Entry], is_older: bool = False) -> Tuple[str, List[Entry]]:
        """Put a piece of the history where it belongs: the kind of change, and what is new.

        A piece is in the server's order and has no gaps; so what is not known yet stands next
        to what is.
        """
        runs: List[Tuple[int, List[Entry]]] = []  # where, and what; the last first
        run: List[Entry] = []
        place: Optional[int] = None
        for entry in reversed(earlier):
            known = self._known.get(entry.msgid)
            if known is None:
                run.append(entry)
                continue
            place = max(0, self._index(known, place))
            runs.append((self._below(place + 1, run), run))
            run = []
        if run and place is None:
            place = self._place_of(run[0].line.when)
            oldest = self.oldest() if is_older else None
            if oldest is not None:  # which may have been said in the same millisecond
                place = min(place, self._index(oldest))
        if run:
            runs.append((place or 0, run))
        fresh: List[Entry] = []
        for place, run in runs:
            self.entries[place:place] = run[::-1]
            fresh += run
        self._known.update((entry.msgid, entry) for entry in fresh if entry.msgid)
        is_earlier = all(place == 0 for place, run in runs if run)
        return EARLIER if is_earlier else RELOADED, fresh[::-1]

    def _below(self, place: int, run: List[Entry]) -> int:
        """Where a run from `place` on goes: below what this program said before it."""
        for entry in self.entries[place:] if run else ():
            if entry.msgid or entry.state != SENT or entry.line.when > run[-1].line.when:
                break
            place += 1
        return place

    def _place_of(self, when: float) -> int:
        place = len(self.entries)
        while place and (
            self.entries[place - 1].state != SENT or self.entries[place - 1].line.when > when
        ):
            place -= 1
        return place

    def forget(self) -> None:
        """Know nothing but what still waits: there is a gap, and history closes none."""
        self.entries = [entry for entry in self.entries if entry.state != SENT]
        self._known = {}

    def newest(self) -> Optional[Entry]:
        """The last entry that the history has of it."""
        entries = reversed(self.entries if self._known else ())  # many, where nothing is kept
        return next(filter(self._is_kept, entries), None)

    def oldest(self) -> Optional[Entry]:
        """The first one."""
        return next(filter(self._is_kept, self.entries if self._known else ()), None)

    def _is_kept(self, entry: Entry) -> bool:
        """Whether the history has it here: not who came, nor what is private in a room."""
        kinds = (PRIVATE,) if self.kind == PRIVATE else (FROM_ME, FROM_OTHERS)
        return bool(entry.msgid) and entry.line.kind in kinds

    def find(self, words: str) -> Dict[Entry, List[Span]]:
        """Where `words` stand in the texts of entries, whatever their case.

        In order; of more than MAX_HITS places only those in the last entries.
        """
        needle = words.casefold()
        pattern = re.compile(re.escape(needle))
        found: List[Tuple[Entry, List[Span]]] = []
        count = 0
        for entry in reversed(self.entries if needle else ()):
            if needle in entry.folded:
                found.append((entry, _find_in(entry, pattern)))
                count += len(found[-1][1])
                if count >= MAX_HITS:
                    break
        return dict(reversed(found))


def _find_in(entry: Entry, pattern: Pattern[str]) -> List[Span]:
    text, folded = entry.text, entry.folded
    spans = [match.span() for match in pattern.finditer(folded)]
    if len(folded) != len(text):
        places = [i for i, char in enumerate(text) for _ in char.casefold()]
        spans = [(places[start], places[end - 1] + 1) for start, end in spans]
    return spans


class Change(NamedTuple):
    """Something that looks different now; no conversation where it is about all of them."""

    kind: str
    conversation: Optional[Conversation] = None
    entries: Sequence[Entry] = ()


class Outcome(NamedTuple):
    """What follows from something typed or received."""

    send: Sequence[Message] = ()
    changes: Sequence[Change] = ()
    done: bool = False  # the user has had enough
    session: int = 0  # where `send` belongs
    login: Optional[Login] = None  # what to come back with


class Banner(NamedTuple):
    """What is wrong with the connection; no text while nothing is."""

    text: str
    can_retry: bool = False


# One's own words

QUEUED, OUT, DOUBTFUL = "queued", "out", "doubtful"  # it waits; it is on its way; who knows


class Pending:
    """Something of one's own that is not known to be delivered."""

    __slots__ = ("entry", "key", "message", "places", "serial", "stage")

    def __init__(self, entry: Entry, message: Message, places: List[Conversation]) -> None:
        self.entry = entry
        self.message = message  # as it is sent: with its label
        self.key = protocol.casefold(message.params[0])  # to whom
        self.places = places
        self.stage = QUEUED
        self.serial = 0  # counts what was sent


class Outbox:
    """One's own messages from the moment they are typed until the server has them, in order.

    None of them is sent twice: what was under way when a connection was lost is DOUBTFUL until
    the history, or its absence, tells what became of it.
    """

    def __init__(self) -> None:
        self.waiting: List[Pending] = []
        self.failed: Dict[int, Pending] = {}  # by the ids of their entries
        self._serial = 0

    def send(self, is_ready: Callable[[str], bool], labels: bool) -> List[Pending]:
        """Those that are to be sent now."""
        ready = [p for p in self.waiting if p.stage == QUEUED and is_ready(p.key)]
        for pending in ready:
            self._serial += 1
            pending.serial, pending.stage = self._serial, OUT
            tags = {"label": "m%d" % self._serial} if labels else protocol.NO_TAGS
            pending.message = pending.message._replace(tags=tags)
        return ready

    def lose(self, unsent: Iterable[Message]) -> None:
        """The connection is lost; of these it is known that they did not go."""
        kept = {id(message) for message in unsent}
        for pending in self.waiting:
            if pending.stage == OUT:
                pending.stage = QUEUED if id(pending.message) in kept else DOUBTFUL

    def labeled(self, label: str) -> Optional[Pending]:
        """The one that was sent with this label."""
        return next((p for p in self.waiting if label and p.message.tag("label") == label), None)

    def said(self, stage: str, params: Tuple[str, ...]) -> Optional[Pending]:
        """The first one in this stage that begins with these parameters."""
        key = protocol.casefold(params[0])
        for pending in self.waiting:
            said = pending.message.params[1 : len(params)]
            if pending.stage == stage and pending.key == key and said == params[1:]:
                return pending
        return None

    @property
    def sent(self) -> List[Pending]:
        """Those that are on their way."""
        return [p for p in self.waiting if p.stage == OUT]

    def doubtful(self, key: str) -> List[Pending]:
        return [p for p in self.waiting if p.stage == DOUBTFUL and p.key == key]

    def forget(self, key: str) -> None:
        """Do without what waits for this room."""
        self.waiting = [p for p in self.waiting if p.key != key or p.stage == OUT]

    def fail(self, pending: Pending) -> None:
        self.waiting.remove(pending)
        self.failed[pending.entry.id] = pending
        if len(self.failed) > MAX_FAILED:
            del self.failed[next(iter(self.failed))]

    def again(self, entry: Entry) -> Optional[Pending]:
        """Have what failed wait again."""
        pending = self.failed.pop(entry.id, None)
        if pending is not None:
            pending.stage = QUEUED
            self.waiting.append(pending)
        return pending


class Request:
    """A piece of the history: asked for, then told message by message."""

    __slots__ = ("key", "limit", "messages", "place", "purpose", "until")

    def __init__(
        self, purpose: str, key: str, place: Optional[Conversation], until: float, limit: int = 0
    ) -> None:
        self.purpose = purpose  # "" where nobody has asked
        self.key = key  # as it was asked for; "" for TARGETS
        self.place = place
        self.until = until  # all of it is to have been told
        self.limit = limit
        self.messages: List[Message] = []


class Desk:
    """The conversations as their user sees them: which there are, what is in view, what is new.

    It knows nothing of where they come from.
    """

    def __init__(self, server: str, levels: Optional[Dict[str, str]]) -> None:
        self.nickname = ""
        self._console = Conversation(server, CONSOLE)
        self.conversations = [self._console]
        self.current = self._console
        self._address = server
        self._ignored: Dict[str, str] = {}  # folded nicknames to nicknames
        self._levels = {} if levels is None else levels
        self._entries = 0  # made so far
        self._is_attended = True  # the user looks at the conversation in view
        self._begin_outcome(0.0)

    @property
    def news(self) -> str:
        """What is new, as a title begins with it: "(3) ", or "(3!) " if it is meant for us."""
        counted = [c for c in self.conversations if c.level != NONE]
        unread = sum(c.unread for c in counted)
        mark = "!" if any(c.mentions for c in counted) else ""
        return "(%d%s) " % (unread, mark) if unread else ""

    def find(self, name: str) -> Optional[Conversation]:
        """The conversation of this name."""
        key = protocol.casefold(name)
        return next((c for c in self.conversations if c.key == key and c.kind != CONSOLE), None)

    def next_unread(self) -> Optional[Conversation]:
        """Where there is something new: first what mentions us."""
        unread = [c for c in self.conversations if c.unread and c is not self.current]
        return max(unread, key=lambda c: bool(c.mentions)) if unread else None

    def neighbour(self, step: int) -> Conversation:
        """The conversation so many places further."""
        index = self.conversations.index(self.current)
        return self.conversations[(index + step) % len(self.conversations)]

    def presence(self, nickname: str) -> str:
        """Whether somebody is here, as far as is known."""
        key = protocol.casefold(nickname)
        found = [c.members[key] for c in self.conversations if key in c.members]
        if found:
            return AWAY if found[0].is_away else ONLINE
        return ONLINE if any(c.is_online for c in self.conversations if c.key == key) else OFFLINE

    def attend(self, is_attended: bool, now: float) -> Outcome:
        """The user has begun, or ceased, to look at the window."""
        self._begin_outcome(now)
        self._is_attended = is_attended
        if is_attended:
            self._read(self.current)
        elif not self.current.unread:
            self._unmark(self.current)
        return self._outcome()

    def set_level(self, conversation: Conversation, level: str) -> Outcome:
        """What one wants to be told of there."""
        conversation.level = self._levels[self._level_key(conversation.name)] = level
        return Outcome(changes=[Change(LIST)])

    def note(self, text: str, now: float) -> Outcome:
        """Tell the user something, where one looks."""
        self._begin_outcome(now)
        self._tell(text)
        return self._outcome()

    # For who knows where they come from

    def _begin_outcome(self, now: float) -> None:
        self._now = now
        self._changes: List[Change] = []

    def _outcome(self, done: bool = False) -> Outcome:
        return Outcome(changes=self._changes, done=done)

    def _changed(self, kind: str, place: Optional[Conversation] = None) -> None:
        change = Change(kind, place)
        if change not in self._changes[-8:]:
            self._changes.append(change)

    def _entry(self, line: Line, msgid: str = "", did: str = "") -> Entry:
        self._entries += 1
        return Entry(self._entries, line, msgid, did)

    def _add(self, entry: Entry, place: Conversation) -> None:
        place.add(entry)
        self._changes.append(Change(ADDED, place, [entry]))

    def _tell(
        self, text: str, kind: str = FROM_SERVER, place: Optional[Conversation] = None
    ) -> None:
        line = protocol.server_line(text, self._now)
        if kind == FROM_SYSTEM:
            line = line._replace(kind=kind, head="[system]:")
        self._add(self._entry(line), place or self.current)

    def _inform(self, text: str, place: Optional[Conversation] = None) -> None:
        """Say something of our own."""
        self._tell(text, FROM_SYSTEM, place)

    def _arrive(self, place: Conversation, entries: List[Entry], is_missed: bool = False) -> None:
        """Count what others have said, and raise an alert for what deserves it."""
        is_seen = self._is_attended and place is self.current
        if not entries or (is_seen and not is_missed):
            return
        meant = [e for e in entries if e.is_mention or place.kind == PRIVATE]
        place.first_unread = place.first_unread or entries[0].id
        place.new_count += len(entries)
        self._changed(MARKED, place)
        if is_seen:
            return
        place.unread += len(entries)
        place.mentions += len(meant)
        self._changed(LIST)
        wanted = {ALL: entries, MENTIONS: meant, NONE: []}[place.level]
        if wanted:
            self._changes.append(Change(ALERT, place, wanted))

    def _is_meant(self, text: str) -> bool:
        """Whether a text names us."""
        name = self.nickname.casefold()
        text = text.casefold()
        return name in text and bool(re.search(r"(?<!\w)%s(?!\w)" % re.escape(name), text))

    def _is_me(self, nickname: str) -> bool:
        return nickname == self.nickname or (
            protocol.casefold(nickname) == protocol.casefold(self.nickname)
        )

    def _level_key(self, name: str) -> str:
        return "%s/%s" % (self._address, protocol.casefold(name))

    def _new(self, name: str, kind: str) -> Conversation:
        """A conversation that is not there yet; rooms stand before people."""
        new = Conversation(name, kind)
        new.level = self._levels.get(self._level_key(name), MENTIONS)
        new.limit = MAX_ENTRIES // 10
        if kind == ROOM and self._console in self.conversations:  # it has done its part
            self.conversations.remove(self._console)
            new.entries, self._console.entries = self._console.entries, []
        index = len([c for c in self.conversations if c.kind == ROOM])
        self.conversations.insert(index if kind == ROOM else len(self.conversations), new)
        self._changed(LIST)
        return new

    @property
    def _room(self) -> Optional[Conversation]:
        """The room in view, or else the first one."""
        rooms = [c for c in self.conversations if c.kind == ROOM]
        return self.current if self.current in rooms else next(iter(rooms), None)

    def _is_full(self, kind: str, most: int) -> bool:
        return sum(c.kind == kind for c in self.conversations) >= most

    def _private(self, name: str, most: int = MAX_CONVERSATIONS) -> Conversation:
        """The conversation with somebody; where there can be none, the one in view."""
        found = self.find(name)
        if found is None and protocol.is_word(name) and not self._is_full(PRIVATE, most):
            found = self._new(name, PRIVATE)
        return found or self.current

    def _nicknames(self, begun: str) -> List[str]:
        """Whom one may mean by a name that begins so; of very many people only some.

        First who spoke last here, then the others here and elsewhere.
        """
        begun = protocol.casefold(begun)
        here = [self.current, *(c for c in self.conversations if c is not self.current)]
        names: Dict[str, str] = {}
        for entry in self.current.entries[:-RECENT:-1]:
            if entry.line.kind == FROM_OTHERS:
                name = entry.line.head.strip("[]:* ")
                names.setdefault(protocol.casefold(name), name)
        names = {key: name for key, name in names.items() if any(c.is_with(key) for c in here)}
        for place in here:
            keys = (key for key in place.members if key.startswith(begun))
            for key in sorted(itertools.islice(keys, MAX_OFFERED)):
                names.setdefault(key, place.members[key].nickname)
        names.update((c.key, c.name) for c in here if c.kind == PRIVATE and c.key not in names)
        names.pop(protocol.casefold(self.nickname), None)
        return [name for key, name in names.items() if key.startswith(begun)][:MAX_OFFERED]

    def _show(self, place: Conversation) -> None:
        if place is not self.current:
            self._unmark(self.current)
            self.current.limit, place.limit = MAX_ENTRIES // 10, MAX_ENTRIES
            self.current = place
            self._changed(SELECTED, place)
        if self._is_attended:
            self._read(place)

    def _discard(self, place: Conversation) -> None:
        index = self.conversations.index(place)
        self.conversations.remove(place)
        if not self.conversations:
            self.conversations.append(self._console)
        if place is self.current:
            self._show(self.conversations[max(0, index - 1)])
        self._changed(LIST)

    def _read(self, place: Conversation) -> None:
        if place.unread:
            place.unread = place.mentions = 0
            self._changed(LIST)

    def _unmark(self, place: Conversation) -> None:
        if place.first_unread:
            place.first_unread = place.new_count = 0
            self._changed(MARKED, place)


_PREFIX = "(qaohv)~&@%+"  # as most servers have it, where none is told


class Session:
    """What holds for one connection alone: what the server can do, and how far we are with it."""

    def __init__(
        self, number: int = 0, caps: FrozenSet[str] = frozenset(), is_return: bool = False,
        is_resumed: bool = False,
    ) -> None:  # fmt: skip
        self.number = number  # as Connected counts them
        self.caps = caps
        self.tokens: Dict[str, str] = {}  # of ISUPPORT
        self.is_return = is_return  # we were here before
        self.is_resumed = is_resumed
        self.is_settled = False  # past the welcome: one may talk
        self.is_certain = True  # nobody but this connection sends what we have typed
        self.held: Set[str] = set()  # to whom nothing is sent yet
        self.entering: Dict[str, float] = {}  # rooms that one is about to enter: since when
        self.leaving: Dict[str, float] = {}  # and to leave
        self.asked: List[Request] = []  # of the history; they are answered in order
        self.told: Dict[str, Request] = {}  # those that have begun, by their batches

    def forget(self) -> None:
        """The connection is lost: nothing that was asked will be answered."""
        self.is_settled = False
        self.entering, self.leaving, self.asked, self.told = {}, {}, [], {}

    @property
    def has_history(self) -> bool:
        return HISTORY in self.caps

    @property
    def room_signs(self) -> Tuple[str, ...]:
        """With which a room's name begins."""
        return tuple(self.tokens.get("CHANTYPES", "#")) or ("#",)

    @property
    def requests(self) -> List[Request]:
        """What is not told to its end."""
        return [*self.asked, *self.told.values()]

    @property
    def signs(self) -> Dict[str, str]:
        """What stands before the names of those who have a say in a room, by their modes."""
        return protocol.parse_prefix(self.tokens.get("PREFIX", _PREFIX))

    @property
    def modes(self) -> Dict[str, str]:
        """What each mode of a room takes: a table like protocol.ROOM_MODES."""
        return protocol.room_modes(self.tokens.get("CHANMODES", protocol.CHANMODES), self.signs)

    def page(self, size: int) -> int:
        """How much of the history one asks for at once, if one may."""
        most = self.tokens.get("CHATHISTORY", "")[:9]
        return min(size, int(most)) if most.isdecimal() and int(most) else size


_LABELED = frozenset(["echo-message", "labeled-response"])  # what tells which echo is whose
_WAITS, _FAILED, _DOUBT = "waiting to send", "not delivered", "may not have arrived"


class Voice(Desk):
    """One's own words: they stand on the Desk at once, and wait until the server has them."""

    def __init__(self, server: str, levels: Optional[Dict[str, str]]) -> None:
        self._session = Session()
        self._outbox = Outbox()
        super().__init__(server, levels)

    @property
    def is_settled(self) -> bool:
        """Whether we are past the welcome: one may talk."""
        return self._session.is_settled

    @property
    def unsent(self) -> int:
        """How many of one's own messages are not known to be delivered."""
        return len(self._outbox.waiting)

    def retry(self, entry: Entry, now: float) -> Outcome:
        """Send again what had failed."""
        self._begin_outcome(now)
        pending = self._outbox.again(entry)
        if pending is not None:
            entry.state, entry.note = WAITING, _WAITS
            for place in pending.places:
                if place.remove(entry):
                    self._changes.append(Change(REMOVED, place, [entry]))
                place.add(entry)
                self._changes.append(Change(ADDED, place, [entry]))
            self._flush()
        return self._outcome()

    def drop(self, entry: Entry) -> Outcome:
        """Do without what had failed."""
        self._begin_outcome(self._now)
        pending = self._outbox.failed.pop(entry.id, None)
        for place in pending.places if pending is not None else ():
            if place.remove(entry):
                self._changes.append(Change(REMOVED, place, [entry]))
        return self._outcome()

    # For who hears the server

    def _begin_outcome(self, now: float) -> None:
        super()._begin_outcome(now)
        self._send: List[Message] = []

    def _outcome(self, done: bool = False) -> Outcome:
        return Outcome(self._send, self._changes, done, self._session.number)

    def _say(self, message: Message) -> None:
        said = message._replace(source=self.nickname + "!")
        line = protocol.describe(said, self.nickname, self._now)
        if line is None:
            return
        entry = self._entry(line, message.tag("msgid"))
        entry.state, entry.note = WAITING, _WAITS
        places = [self.current]
        other = self.find(message.params[0])
        if other is not None and other is not self.current:
            places.append(other)
        pending = Pending(entry, message, places)
        if self._is_ready(pending.key):
            entry.note = ""
        self._outbox.waiting.append(pending)
        for place in places:
            self._add(entry, place)

    def _is_ready(self, key: str) -> bool:
        return self.is_settled and key not in self._session.held

    def _flush(self) -> None:
        """Send what waits and may go."""
        ready = self._outbox.send(self._is_ready, self._session.caps >= _LABELED)
        for pending in ready:
            self._send.append(pending.message)
            self._renote(pending, "")
        if ready:
            self._ask_for_echo()

    def _ask_for_echo(self) -> None:
        """Where nothing comes back, have an answer say that all that was sent was taken."""
        sent = self._outbox.sent
        if sent and "echo-message" not in self._session.caps:
            self._send.append(Message("PING", ("sent-%d" % sent[-1].serial,)))

    def _renote(self, pending: Pending, note: str) -> None:
        if pending.entry.note != note:
            pending.entry.note = note
            for place in pending.places:
                self._changes.append(Change(CHANGED, place, [pending.entry]))

    def _confirm(self, pending: Pending, line: Line, msgid: str, target: str) -> None:
        """The server has it; so it stands where the server put it."""
        self._accept(pending, line, msgid, is_told=False)
        entry = pending.entry
        for place in pending.places:
            if place.settle(entry):
                self._changes.append(Change(REMOVED, place, [entry]))
                self._changes.append(Change(ADDED, place, [entry]))
            else:
                self._changes.append(Change(CHANGED, place, [entry]))
        if not target.startswith(self._session.room_signs):
            place = self._private(target)
            if place not in pending.places:
                self._add(entry, place)

    def _accept(self, pending: Pending, line: Line, msgid: str, is_told: bool = True) -> None:
        entry = pending.entry
        self._outbox.waiting.remove(pending)
        entry.revise(line, msgid)
        for place in pending.places if is_told else ():
            self._changes.append(Change(CHANGED, place, [entry]))

    def _fail(self, pending: Pending, note: str) -> None:
        self._outbox.fail(pending)
        pending.entry.state = FAILED
        self._renote(pending, note)

    def _resolve(self, key: str, is_proof: bool) -> None:
        """It is known which of our words to `key` have arrived, or (no proof) will never be."""
        self._session.held.discard(key)
        for pending in self._outbox.doubtful(key):
            if is_proof and self._session.is_certain:
                pending.stage = QUEUED
            else:
                self._fail(pending, _DOUBT)
        self._flush()

    def _when(self, message: Message) -> float:
        """When it was said: by the server's clock where it tells, else now."""
        try:
            when = protocol.parse_time(message.tags["time"])
            return min(max(float(DAY), when), LAST_TIME)
        except (KeyError, ValueError):
            return self._now


_HISTORIES = (("chathistory",), ("draft/chathistory-targets",))


class Memory(Voice):
    """The history: what is known of each conversation, what is asked for, what it tells."""

    def fetch_older(self, conversation: Conversation, now: float) -> Outcome:
        """Ask for what was said before all that is known."""
        self._begin_outcome(now)
        past = conversation.past
        if past.has_older and not past.is_fetching and self.is_settled:
            first = conversation.oldest()
            if first is None:
                self._ask(conversation, FIRST, ("LATEST", conversation.name, "*"))
            else:
                point = "msgid=" + first.msgid
                self._ask(conversation, OLDER, ("BEFORE", conversation.name, point))
        return self._outcome()

    def is_overdue(self, now: float) -> bool:
        """Whether something should have come by now; `handle` is to know of the time."""
        return any(request.until < now for request in self._session.requests)

    # For who hears the server

    @property
    def _is_behind(self) -> bool:
        """Whether we have come back, and not been told yet all that we have missed."""
        is_asking = any(r.purpose in (TARGETS, MISSED) for r in self._session.requests)
        return self._session.is_return and (is_asking or not self.is_settled)

    def _new(self, name: str, kind: str) -> Conversation:
        new = super()._new(name, kind)
        new.past.has_older = self._session.has_history  # until the answer says otherwise
        if kind == PRIVATE and self._is_behind:
            new.past.lost(None)
        return new

    def _show(self, place: Conversation) -> None:
        super()._show(place)
        is_unknown = place.newest() is None and not place.past.is_fetching
        if place.kind == PRIVATE and is_unknown and self._session.has_history and self.is_settled:
            self._catch_up(place, FIRST)

    def _request(
        self, purpose: str, key: str, place: Optional[Conversation], params: Tuple[str, ...],
        limit: int,
    ) -> None:  # fmt: skip
        request = Request(purpose, key, place, self._now + HISTORY_TIME, limit)
        if len(self._session.asked) < MAX_REQUESTS:
            self._session.asked.append(request)
            self._send.append(Message("CHATHISTORY", (*params, str(limit))))
        else:
            self._give_up(request)

    def _ask(self, place: Conversation, purpose: str, params: Tuple[str, ...]) -> None:
        """Ask for a piece of the history of a conversation."""
        place.past.asked()
        self._changed(HEADER, place)
        limit = self._session.page(MISSED_PAGE if purpose == MISSED else PAGE)
        self._request(purpose, place.key, place, params, limit)

    def _give_up(self, request: Request) -> None:
        """A piece will not be told, so nothing proves what has arrived."""
        if request in self._session.asked:
            self._session.asked.remove(request)
        is_typed = request.purpose == TYPED
        request.purpose, request.until = "", math.inf  # what still comes of it is only shown
        if request.place is not None and not is_typed:
            request.place.past.refused()
            self._changed(HEADER, request.place)
            self._resolve(request.key, False)

    def _catch_up(self, place: Conversation, purpose: str = MISSED) -> None:
        """Ask for what was said since one was there."""
        past = place.past
        if purpose == MISSED:  # and that it was asked for must not be forgotten
            past.lost(place.newest())
        last = past.link if past.is_behind else place.newest()
        if not self._session.has_history:
            self._resolve(place.key, False)
        elif last is None:
            self._ask(place, purpose, ("LATEST", place.name, "*"))
        else:  # the last that is known, too: the link to what is not
            point = "timestamp=" + protocol.format_time(last.line.when - 0.001)
            self._ask(place, purpose, ("AFTER", place.name, point))

    def _catch_up_with(self, name: str) -> None:
        """`_catch_up`, once, where the conversation is with one person."""
        if not name.startswith(self._session.room_signs):
            place = self._private(name)
            if place.key != protocol.casefold(name):  # there is no room for it
                self._resolve(protocol.casefold(name), False)
            elif not place.past.is_fetching:
                self._catch_up(place)

    def _on_batch(self, message: Message) -> None:
        sign, ref, kind = message.params[0][:1], message.params[0][1:], message.params[1:2]
        if sign == "+" and kind in _HISTORIES and len(self._session.told) < MAX_BATCHES:
            target = message.params[-1] if kind == ("chathistory",) else ""
            self._session.told[ref] = self._answered(protocol.casefold(target))
        elif sign == "-" and ref in self._session.told:
            request = self._session.told.pop(ref)
            (self._take_targets if request.purpose == TARGETS else self._take_history)(request)

    def _answered(self, key: str) -> Request:
        """The piece of which the history of `key` begins to be told."""
        for index, request in enumerate(self._session.asked):
            if request.key == key:
                return self._session.asked.pop(index)
        return Request("", key, self.find(key), math.inf)

    def _take_targets(self, request: Request) -> None:
        for message in request.messages:
            if len(message.params) > 2:
                self._catch_up_with(message.params[1])
        for place in self.conversations:
            if place.kind == PRIVATE and not place.past.is_fetching:
                place.past.caught_up()

    def _take_history(self, request: Request) -> None:
        purpose, messages, place = request.purpose, request.messages, request.place
        if place not in self.conversations:
            return self._resolve(request.key, False)
        is_full = len(messages) >= request.limit > 0
        is_linked = any(place.knows(message.tag("msgid")) for message in messages)
        told = [entry for message in messages for entry in self._earlier(message, place)]
        place.past.told(purpose, is_full, is_linked)
        kind, fresh = place.merge(told, purpose == OLDER)
        if fresh:
            self._changes.append(Change(kind, place, fresh))
        recalled = told if purpose == TYPED else fresh
        if (recalled and purpose != OLDER) or purpose == TYPED:
            self._changes.append(Change(RECALLED, place, recalled))
        if purpose == MISSED:
            self._take_missed(place, messages, fresh, is_full)
        elif purpose == FIRST and place.key in self._session.held:
            self._resolve(place.key, False)
        return self._changed(HEADER, place)

    def _take_missed(
        self, place: Conversation, messages: List[Message], fresh: List[Entry], is_full: bool
    ) -> None:
        past = place.past
        news = [e for e in fresh if e.line.kind in (FROM_OTHERS, PRIVATE) and not self._is_own(e)]
        past.missed += len(news)
        self._arrive(place, news, is_missed=True)
        last = messages[-1].tag("msgid") if messages else ""
        if is_full and last and past.pages < MAX_PAGES:
            return self._ask(place, MISSED, ("AFTER", place.name, "msgid=" + last))
        past.caught_up()
        if is_full:  # too much to fetch it all: begin anew
            place.forget()
            self._changes.append(Change(RELOADED, place))
            return self._ask(place, FIRST, ("LATEST", place.name, "*"))
        if past.missed:
            words = "1 message" if past.missed == 1 else "%d messages" % past.missed
            self._inform("Welcome back. You missed %s." % words, place)
        is_whole = place.kind == ROOM and past.link is None and past.pages == 1
        return self._resolve(place.key, past.is_linked or is_whole or self._session.is_resumed)

    def _earlier(self, message: Message, place: Conversation) -> Iterator[Entry]:
        """The entry of something said earlier: the one that is there already, if there is one."""
        line = protocol.describe(message, self.nickname, self._when(message))
        if line is None or (
            message.nickname and protocol.casefold(message.nickname) in self._ignored
        ):
            return
        msgid = message.tag("msgid")
        if self._is_me(message.nickname) and not place.knows(msgid):
            pending = self._outbox.said(DOUBTFUL, message.params[:2])
            if pending is not None:  # it had arrived
                place.remove(pending.entry)
                self._accept(pending, line, msgid)
                yield pending.entry
                return
        entry = self._entry(line, message.tag("msgid"))
        is_text = line.kind == FROM_OTHERS
        entry.is_mention = is_text and self._is_meant(line.text)
        yield entry

    def _is_own(self, entry: Entry) -> bool:
        return entry.line.kind == FROM_ME or entry.line.head.startswith("[you ->")


class Wire(Memory):
    """Whether one is connected, and what it takes to go on where one was."""

    def __init__(self, server: str, levels: Optional[Dict[str, str]]) -> None:
        self.server = server  # its network's name, once that is known
        self.state = DISCONNECTED
        self._room_keys: Dict[str, str] = {}  # what opens a room
        self._wanted = ""  # the nickname that we want back
        self._former = ""  # the one that we had when the connection was lost
        self._banner = ""
        self._retry_at = self._back_at = 0.0
        self._last_heard = 0.0  # the server's time of the last message before which none is missing
        super().__init__(server, levels)

    # What the window reads

    @property
    def title(self) -> str:
        """For the window's title bar."""
        form = {
            CONNECTING: "Connecting to {1}…", CONNECTED: "Connected: {0} @ {1}",
            RECONNECTING: "Reconnecting… — {1}", DISCONNECTED: "Disconnected — {1}",
        }[self.state]  # fmt: skip
        return self.news + form.format(self.nickname, self.server) + " — Hubbub"

    @property
    def status(self) -> str:
        """The state, for people."""
        return self.state + ("…" if self.state in (CONNECTING, RECONNECTING) else "")

    def banner(self, now: float) -> Banner:
        """What the window warns of; it changes with the time."""
        if self.state == CONNECTED:
            return Banner("Connected again." if now < self._back_at + BACK_TIME else "")
        if self.state != RECONNECTING:
            return Banner(self._banner)
        left = math.ceil(self._retry_at - now)
        when = "in %d s" % left if left > 0 else "now"
        return Banner(self._banner.format(when), left > 0)

    # For who hears the server

    def _on_connected(self, event: Connected) -> None:
        is_return = self.state == RECONNECTING or bool(self._room)
        self._session = session = Session(event.session, event.caps, is_return, event.is_resumed)
        self.state, self.nickname = CONNECTED, event.nickname
        if is_return:
            self._back_at = self._now
            self._inform("Connected again.")
            session.is_certain = self._is_me(self._former)
            session.held = {c.key for c in self.conversations if c.is_wanted}
            session.held |= {p.key for p in self._outbox.waiting if p.stage == DOUBTFUL}
        else:
            self._wanted = event.nickname
        self._changed(STATUS)

    def _on_lost(self, event: Lost) -> None:
        if self.state == CONNECTED:
            self._leave_all(event.unsent)
            self._inform("%s. Messages you send now wait here." % event.reason.rstrip("."))
        self.state = RECONNECTING
        self._banner = "Connection lost. Trying again {} (attempt %d)." % event.attempt
        self._retry_at = self._now + event.seconds
        self._changed(STATUS)

    def _on_disconnected(self, event: Disconnected) -> None:
        was_here = self.state in (CONNECTED, RECONNECTING)
        if self.state == CONNECTED:
            self._leave_all(())
        self.state, self._banner = DISCONNECTED, event.reason if was_here else ""
        if was_here and event.reason:
            self._inform(event.reason)
        self._changed(STATUS)

    def _leave_all(self, unsent: Iterable[Message]) -> None:
        self._former = self.nickname
        self._outbox.lose(unsent)
        for pending in self._outbox.waiting:
            self._renote(pending, _WAITS)
        for conversation in self.conversations:
            conversation.past.lost(conversation.newest())
            conversation.leave()
            self._changed(PEOPLE, conversation)
        self._session.forget()
        self._changed(LIST)

    def _settle(self) -> None:
        """Go on from the welcome: back to where we were, and what was missed there."""
        session = self._session
        if session.is_settled:
            return
        session.is_settled = True
        rooms = [c for c in self.conversations if c.is_wanted and not c.is_joined]
        for room in rooms:
            key = self._room_keys.get(room.key, "")
            self._send.append(Message("JOIN", (room.name, key) if key else (room.name,)))
        if not session.is_resumed and "SILENCE" in session.tokens:
            self._send += [Message("SILENCE", ("+" + name,)) for name in self._ignored.values()]
        private = [c for c in self.conversations if c.kind == PRIVATE]
        watched = [c.name for c in private]
        self._watch(watched if self._is_me(self._wanted) else [self._wanted, *watched])
        if session.is_return and session.has_history:
            after = protocol.format_time(self._last_heard)
            points = ["timestamp=" + after, "timestamp=" + protocol.format_time(self._now + DAY)]
            self._request(TARGETS, "", None, ("TARGETS", *points), PAGE)
        for name in [p.message.params[0] for p in self._outbox.waiting if p.stage == DOUBTFUL]:
            self._catch_up_with(name)
        self._flush()

    def _watch(self, names: List[str]) -> None:
        """Have the server tell when these people come and go."""
        if "MONITOR" in self._session.tokens:
            targets = protocol.pack(names[:MAX_WATCHED], ",", MAX_TARGETS)
            self._send += [Message("MONITOR", ("+", target)) for target in targets]

    def _new(self, name: str, kind: str) -> Conversation:
        if kind == PRIVATE and self.is_settled:
            self._watch([name])
        return super()._new(name, kind)

    def _reclaim(self, key: str) -> None:
        """Take our name back from the ghost that had it."""
        if key == protocol.casefold(self._wanted) and not self._is_me(self._wanted):
            self._send.append(Message("NICK", (self._wanted,)))


Places = Sequence[Conversation]  # where the line of a message is shown


_DEEDS = {"JOIN": "joined", "PART": "left", "QUIT": "left"}  # that many do at once
_TOKENS = frozenset(  # that we read
    "CHANMODES CHANTYPES CHATHISTORY MONITOR NETWORK PREFIX SILENCE".split()
)

# Numerics that refuse what was said: nobody there, no such room, may not, too many.
_UNDELIVERED = frozenset("401 403 404 407 411 412 477 486 531".split())
_NO_ENTRY = "403 405 437 470 471 473 474 475 476 477 479 480 489 520".split()


class Ear(Wire):
    """What the server says, and what it means."""

    def __init__(self, server: str, levels: Optional[Dict[str, str]]) -> None:
        self.is_away = False
        self._correspondent = ""  # who wrote privately last
        self._candidate: Optional[Login] = None  # typed, but not yet accepted
        super().__init__(server, levels)

    def handle(self, event: Optional[Event], now: float) -> Outcome:
        """Something that the connection told; None where only time has passed."""
        self._begin_outcome(now)
        for request in self._session.requests:
            if request.until < now:
                self._give_up(request)
        if isinstance(event, Connected):
            self._on_connected(event)
        elif isinstance(event, Lost):
            self._on_lost(event)
        elif isinstance(event, Disconnected):
            self._on_disconnected(event)
        elif event is not None:
            self._on_message(event)
        return self._outcome()

    def _begin_outcome(self, now: float) -> None:
        super()._begin_outcome(now)
        self._login: Optional[Login] = None  # accepted just now

    def _outcome(self, done: bool = False) -> Outcome:
        return super()._outcome(done)._replace(login=self._login)

    def _on_message(self, message: Message) -> None:
        request = self._session.told.get(message.tag("batch"))
        if message.command == "BATCH" and message.params:
            self._on_batch(message)
        elif request is not None:
            if len(request.messages) < MAX_PIECE:
                request.messages.append(message)
        else:
            if "time" in message.tags and not self._is_behind:
                self._last_heard = self._when(message)
            if not self._is_refusal(message):
                least, handler = _HANDLERS.get(message.command, (0, None))
                if handler is None:
                    self._show_line(message, [self.current])
                elif len(message.params) >= least:
                    self._show_line(message, handler(self, message))

    def _show_line(self, message: Message, places: "Places") -> None:
        """Show what `message` looks like in each of `places`."""
        if not places:
            return
        modes = self._session.modes if message.command == "MODE" else protocol.ROOM_MODES
        line = protocol.describe(message, self.nickname, self._when(message), modes=modes)
        if line is not None:
            did = _DEEDS.get(message.command, "")
            entry = self._entry(line, message.tag("msgid"), did)
            for place in places:
                if not place.knows(entry.msgid):
                    self._add(entry, place)

    def _is_refusal(self, message: Message) -> bool:
        """Whether `message` refuses something of ours in words that have been shown."""
        command, label = message.command, message.tag("label")
        if command != "FAIL" and not "400" <= command <= "599":
            return False
        pending = self._outbox.labeled(label)
        if pending is None and command in _UNDELIVERED and len(message.params) > 1:
            pending = self._outbox.said(OUT, message.params[1:2])
        if pending is not None:
            self._fail(pending, _FAILED)
            if command == "401" and len(message.params) > 1:
                self._tell(protocol.NO_SUCH_USER.format(message.params[1]) + self._hint(message))
                return True
        return False

    def _hint(self, message: Message) -> str:
        """Who may have been meant."""
        wanted = protocol.casefold(message.params[1])
        begun = wanted[: len(wanted) // 2 + 1]  # a slip after it leaves it as it is
        close_by = [*self._nicknames(begun), *self._nicknames("")]
        known = {protocol.casefold(name): name for name in close_by}
        close = difflib.get_close_matches(wanted, [key for key in known if key != wanted], 1, 0.7)
        return ". Did you mean %s?" % known[close[0]] if close else ""

    def _on_text(self, message: Message) -> "Places":
        """PRIVMSG and NOTICE"""
        target, who = message.params[0], message.nickname
        is_mine = self._is_me(who)
        line = protocol.describe(message, self.nickname, self._when(message))
        if line is None or protocol.casefold(who) in self._ignored:
            return ()
        if is_mine:
            pending = self._outbox.labeled(message.tag("label"))
            pending = pending or self._outbox.said(OUT, message.params[:2])
            if pending is not None:
                self._confirm(pending, line, message.tag("msgid"), target)
                return ()
        if "!" not in message.source:
            return [self.find(target) or self.current]
        is_private = not target.lstrip("@+").startswith(self._session.room_signs)
        place = self.find(target.lstrip("@+")) or self.current
        if is_private:
            place = self._private(target) if is_mine else self._private(who, MAX_STRANGERS)
            self._correspondent = self._correspondent if is_mine else who
        entry = self._entry(line, message.tag("msgid"))
        if place.knows(entry.msgid):
            return ()
        entry.is_mention = not is_mine and not is_private and self._is_meant(line.text)
        self._add(entry, place)
        if is_private and self.current is not place and self.current.kind != PRIVATE:
            self._add(entry, self.current)
        if not is_mine:
            self._arrive(place, [entry])
        return ()

    def _on_join(self, message: Message) -> "Places":
        name, who = message.params[0], message.nickname
        room = self.find(name)
        if not self._is_me(who):
            if room is None or not who or len(room.members) >= MAX_NAMES:
                return ()
            room.members[protocol.casefold(who)] = Person(who)
            self._changed(PEOPLE, room)
            return [room]
        if not name.startswith(self._session.room_signs) or not protocol.is_word(name):
            return ()
        if room is None and self._is_full(ROOM, MAX_CONVERSATIONS):
            return [self.current]
        if room is not None and room.is_joined:
            return ()
        was_known = room is not None
        room = room or self._new(name, ROOM)
        is_return = room.key in self._session.held
        room.rename(name)
        room.topic, room.is_joined, room.is_wanted = "", True, True
        room.members = {protocol.casefold(who): Person(who)}
        self._settle()
        if self.current is self._console or room.key in self._session.entering:
            self._session.entering.pop(room.key, None)
            self._show(room)
        self._catch_up(room, MISSED if was_known else FIRST)
        self._changed(LIST)
        self._changed(HEADER, room)
        return () if is_return else [room]

    def _on_part(self, message: Message) -> "Places":
        room = self.find(message.params[0])
        if room is None:
            return ()
        if self._is_me(message.nickname):
            self._session.leaving.pop(room.key, None)
            self._show_line(message, [room])
            self._discard(room)
            return ()
        self._lose_member(room, message.nickname)
        return [room]

    def _on_kick(self, message: Message) -> "Places":
        room = self.find(message.params[0])
        if room is None:
            return ()
        self._lose_member(room, message.params[1])
        if self._is_me(message.params[1]):
            room.leave()
            room.is_wanted = False
            self._changed(HEADER, room)
        return [room]

    def _on_quit(self, message: Message) -> "Places":
        key = protocol.casefold(message.nickname)
        self._reclaim(key)
        places = [c for c in self.conversations if key in c.members or c.key == key]
        for place in places:
            self._lose_member(place, message.nickname)
        return places

    def _lose_member(self, room: Conversation, nickname: str) -> None:
        room.members.pop(protocol.casefold(nickname), None)
        self._changed(PEOPLE, room)
        self._changed(LIST)

    def _on_nick(self, message: Message) -> "Places":
        old, new = protocol.casefold(message.nickname), message.params[0]
        places = [c for c in self.conversations if old in c.members or c.key == old]
        if not protocol.is_word(new):
            return ()
        for place in places:
            person = place.members.pop(old, None)
            if person is not None:
                place.members[protocol.casefold(new)] = person._replace(nickname=new)
                self._changed(PEOPLE, place)
            elif self.find(new) is None:
                place.rename(new)
                self._changed(HEADER, place)
        if self._is_me(message.nickname):
            self.nickname = self._wanted = new
            self._changed(STATUS)
        else:
            self._reclaim(old)
        self._changed(LIST)
        return places

    def _on_topic(self, message: Message) -> "Places":
        """TOPIC, 331 and 332"""
        is_news = message.command == "TOPIC"
        room = self.find(message.params[0 if is_news else 1])
        if room is None:
            return [self.current]
        is_told = message.command == "332" and room.key in self._session.held  # one comes back
        is_known = is_told and message.text == room.last_topic
        room.topic = room.last_topic = "" if message.command == "331" else message.text
        self._changed(HEADER, room)
        return () if is_known else [room]

    def _on_mode(self, message: Message) -> "Places":
        room = self.find(message.params[0])
        if room is None:
            return [self.current]
        signs = self._session.signs
        told = message.params[1:], self._session.modes, protocol.MAX_MESSAGE
        for change in protocol.parse_modes(*told):
            person = room.members.get(protocol.casefold(change.arg))
            sign = signs.get(change.letter, "")
            if person is not None and sign:
                kept = person.prefix.replace(sign, "") + (sign if change.adding else "")
                prefix = "".join(sign for sign in signs.values() if sign in kept)
                room.members[protocol.casefold(change.arg)] = person._replace(prefix=prefix)
                self._changed(PEOPLE, room)
        return [room]

    def _on_away(self, message: Message) -> "Places":
        self._set_away(message.nickname, bool(message.params and message.text))
        return ()

    def _set_away(self, nickname: str, is_away: bool) -> None:
        key = protocol.casefold(nickname)
        for room in self.conversations:
            person = room.members.get(key)
            if person is not None and person.is_away != is_away:
                room.members[key] = person._replace(is_away=is_away)
                self._changed(PEOPLE, room)
                self._changed(LIST)
        if self._is_me(nickname) and self.is_away != is_away:
            self.is_away = is_away
            self._changed(STATUS)

    def _on_own_away(self, message: Message) -> "Places":
        """305 and 306"""
        self.is_away = message.command == "306"
        self._set_away(self.nickname, self.is_away)
        self._changed(STATUS)
        return [self.current]

    def _on_names(self, message: Message) -> "Places":
        """353"""
        room = self.find(message.params[-2])
        if room is None:
            return ()
        signs = "".join(self._session.signs.values())
        for word in message.text.split():
            name = word.lstrip(signs)
            room.tell_name(name, word[: len(word) - len(name)])
        return ()

    def _on_end_of_names(self, message: Message) -> "Places":
        """366"""
        room = self.find(message.params[1])
        if room is None:
            return ()
        is_news = room.end_names()
        if room.lists:
            room.lists -= 1
            for text in protocol.online([person.nickname for person in room.people]):
                self._tell(text)
        elif is_news and "away-notify" in self._session.caps and len(room.members) <= MAX_ASKED:
            self._send.append(Message("WHO", (room.name,)))
        self._changed(PEOPLE, room)
        return ()

    def _on_who(self, message: Message) -> "Places":
        """352"""
        self._set_away(message.params[5], message.params[6].startswith("G"))
        return ()

    def _on_monitored(self, message: Message) -> "Places":
        """730 and 731"""
        for name in message.text.split(",")[:MAX_NAMES]:
            name = name.partition("!")[0]
            place = self.find(name)
            if place is not None:
                place.is_online = message.command == "730"
            if message.command == "731":
                self._reclaim(protocol.casefold(name))
        self._changed(LIST)
        return ()

    def _on_cap(self, message: Message) -> "Places":
        """CAP DEL: the server cannot do any more what it could."""
        if message.params[1] == "DEL":
            self._session.caps -= frozenset(message.text.split())
            self._ask_for_echo()
        return ()

    def _on_welcome(self, message: Message) -> "Places":
        """Numerics of the welcome, which one has read when one comes back."""
        return () if self._session.is_return else [self.current]

    def _on_isupport(self, message: Message) -> "Places":
        """005"""
        for token in message.params[1:-1]:
            name, _, value = token.partition("=")
            if name in _TOKENS:
                self._session.tokens[name] = protocol.unescape_token(value)
        network = self._session.tokens.get("NETWORK", "")
        if network and network != self.server:
            self.server = network
            self._console.rename(network)
            self._changed(STATUS)
        return ()

    def _on_end_of_motd(self, message: Message) -> "Places":
        """376 and 422"""
        self._settle()
        return ()

    def _on_pong(self, message: Message) -> "Places":
        word, _, serial = message.text.partition("-")
        if word == "sent" and serial.isdecimal():
            for pending in self._outbox.sent:
                if pending.serial <= int(serial[:9]):
                    self._confirm(pending, pending.entry.line, "", pending.message.params[0])
        return ()

    def _on_ack(self, message: Message) -> "Places":
        pending = self._outbox.labeled(message.tag("label"))
        if pending is not None:
            self._confirm(pending, pending.entry.line, "", pending.message.params[0])
        return ()

    def _on_login(self, message: Message) -> "Places":
        """903, or REGISTER SUCCESS"""
        if message.command == "903" or message.params[0] == "SUCCESS":
            self._login, self._candidate = self._candidate, None
        return [self.current]

    def _on_fail(self, message: Message) -> "Places":
        if message.params[0] != "CHATHISTORY" or not self._session.asked:
            return [self.current]
        request = self._session.asked[0]
        is_typed = request.purpose == TYPED
        self._give_up(request)
        return [self.current] if is_typed else ()

    def _on_outside(self, message: Message) -> "Places":
        """442"""
        self._session.leaving.pop(protocol.casefold(message.params[1]), None)
        return [self.current]

    def _on_no_entry(self, message: Message) -> "Places":
        """The refusals of JOIN, some of them of PART, too"""
        key = protocol.casefold(message.params[1])
        for moves in (self._session.entering, self._session.leaving):
            moves.pop(key, None)
        room = self.find(key)
        if room is None or key not in self._session.held:
            return [self.current]
        self._session.held.discard(key)
        room.is_wanted = False
        for pending in [p for p in self._outbox.waiting if p.key == key]:
            self._fail(pending, _FAILED)
        return [room]


# What each command of the server means: how many parameters it has at least, and who sees to
# it, which tells where its line is shown. What is in no row is shown where one looks.
_HANDLERS: Dict[str, Tuple[int, Callable[[Ear, Message], Places]]] = {
    "PRIVMSG": (2, Ear._on_text), "NOTICE": (2, Ear._on_text),
    "JOIN": (1, Ear._on_join), "PART": (1, Ear._on_part), "KICK": (2, Ear._on_kick),
    "QUIT": (0, Ear._on_quit), "NICK": (1, Ear._on_nick), "MODE": (2, Ear._on_mode),
    "TOPIC": (2, Ear._on_topic), "331": (3, Ear._on_topic), "332": (3, Ear._on_topic),
    "AWAY": (0, Ear._on_away), "305": (1, Ear._on_own_away), "306": (1, Ear._on_own_away),
    "353": (2, Ear._on_names), "366": (2, Ear._on_end_of_names), "352": (7, Ear._on_who),
    "730": (2, Ear._on_monitored), "731": (2, Ear._on_monitored),
    "001": (1, Ear._on_welcome), "372": (1, Ear._on_welcome), "375": (1, Ear._on_welcome),
    "005": (2, Ear._on_isupport), "376": (0, Ear._on_end_of_motd),
    "422": (0, Ear._on_end_of_motd), "PONG": (1, Ear._on_pong), "ACK": (0, Ear._on_ack),
    "CAP": (3, Ear._on_cap), "442": (2, Ear._on_outside),
    "903": (1, Ear._on_login), "REGISTER": (1, Ear._on_login), "FAIL": (1, Ear._on_fail),
    **dict.fromkeys(_NO_ENTRY, (2, Ear._on_no_entry)),
}  # fmt: skip


class Completer:
    """What Tab makes of a text; from what it made itself it goes on to the next possibility."""

    def __init__(self) -> None:
        self._last = "", 0  # what it made
        self._start = self._index = 0
        self._words: List[str] = []

    def complete(
        self, text: str, cursor: int, step: int, words: Callable[[str, bool], List[str]]
    ) -> Optional[Tuple[str, int]]:
        """The text and the cursor afterwards; None where nothing is to complete.

        `words` tells what the beginning of a word may become, and at the beginning of the text.
        """
        if self._words and (text, cursor) == self._last:
            self._index = (self._index + step) % len(self._words)
        else:
            self._start = max(text.rfind(" ", 0, cursor), text.rfind("\n", 0, cursor)) + 1
            self._words = words(text[self._start : cursor], self._start == 0)
            self._index = 0 if step > 0 else len(self._words) - 1
        if not self._words:
            return None
        before = text[: self._start] + self._words[self._index]
        self._last = before + text[cursor:], len(before)
        return self._last


# Room for what a server will put before our words: user@host, at their longest.
_USER_AT_HOST = "!" + "u" * 10 + "@" + "h" * 63


class Chat(Ear):
    """All that is known of a server, and what its user can do there.

    It is made of layers, each of which knows only those before it: the Desk, which is what one
    sees; the Voice, one's own words; the Memory, which is the history; the Wire, which comes and
    goes; the Ear, what the server says.

    Pure: the same events give the same state. Not for several threads at once. `now` is the
    time in seconds since 1970. What is refused to the user is a protocol.InputError.
    """

    def __init__(self, server: str, levels: Optional[Dict[str, str]] = None) -> None:
        self._completer = Completer()
        super().__init__(server, levels)

    @property
    def hint(self) -> str:
        """What the empty chat box says."""
        if self.current.kind == CONSOLE:
            return "Enter a room with /join ROOM, or write to one person: @USERNAME MESSAGE"
        later = "" if self.state == CONNECTED else " — sent when you are back online"
        return "Message %s%s" % (self.current.name, later)

    def begin(self, nickname: str) -> None:
        """A connection is under way."""
        self.nickname = self._wanted = nickname
        self.state = CONNECTING

    def submit(self, text: str, now: float) -> Outcome:
        """What the user typed, or pasted: only its first line can be a command.

        Raises protocol.InputError, with the words for the user; then nothing was sent.
        """
        lines = [protocol.clean(line, MAX_PASTE).strip() for line in text.splitlines()]
        lines = [line for line in lines if line]
        if not lines:
            return Outcome()
        self._begin_outcome(now)
        typed = protocol.parse_input(lines[0])
        if typed.verb == "leave" and self.current.kind == PRIVATE:
            return self.close(self.current, now)
        messages = self._compose(typed)
        for line in lines[1:]:  # to whom the first line went
            to_one = typed.verb == "msg"
            args = (typed.args[0], line) if to_one else (line,)
            messages += self._compose(protocol.Input("msg" if to_one else "say", args))
        self._check(typed, messages)
        local = _LOCAL.get(typed.verb)
        if local is not None:
            messages = local(self, typed.args, messages)
        for message in messages:
            if message.command == "PRIVMSG":
                self._say(message)
            else:
                self._send.append(message)
        self._flush()
        self._unmark(self.current)
        return self._outcome(done=typed.verb == "quit")

    def _compose(self, typed: protocol.Input) -> List[Message]:
        here = self.current.name if self.current.kind != CONSOLE else ""
        if typed.verb not in ("say", "me", "history"):
            here = self._room.name if self._room is not None else ""
        source = self.nickname + _USER_AT_HOST
        return protocol.compose(typed, here, source, self._correspondent)

    def _check(self, typed: protocol.Input, messages: List[Message]) -> None:
        need = _NEEDS.get(typed.verb, "")
        texts = [message for message in messages if message.command == "PRIVMSG"]
        if typed.verb == "quit" or (typed.verb in _LOCAL and not messages):
            return
        if not self.is_settled and len(texts) < len(messages):
            raise protocol.InputError("You are not connected. Wait until you are.")
        if need and self.state == CONNECTED and need not in self._session.caps:
            raise protocol.InputError("This server has no /%s." % typed.verb)
        if texts and typed.verb in ("say", "me") and self.current.is_outside:
            raise protocol.InputError(OUTSIDE.format(self.current.name))

    @property
    def entering(self) -> FrozenSet[str]:
        """The keys of the rooms that one has asked to enter, and has not entered yet."""
        return frozenset(self._session.entering)

    def is_moving(self, now: float) -> bool:
        """Whether the server has yet to say in which room one is."""
        moves = [*self._session.entering.values(), *self._session.leaving.values()]
        return self.is_settled and any(now < since + ANSWER_TIME for since in moves)

    def select(self, conversation: Conversation, now: float) -> Outcome:
        """Show a conversation."""
        self._begin_outcome(now)
        self._show(conversation)
        return self._outcome()

    def open(self, name: str, now: float) -> Outcome:
        """Show the conversation with a person, or in a room, which is entered first."""
        found = self.find(name)
        if found is not None and not found.is_outside:
            return self.select(found, now)
        if name.startswith(self._session.room_signs):
            return self.submit("/join " + name, now)
        if not protocol.is_nickname(name):
            raise protocol.InputError(protocol.NO_SUCH_USER.format(name))
        self._begin_outcome(now)
        self._show(self._private(name))
        return self._outcome()

    def close(self, conversation: Conversation, now: float) -> Outcome:
        """Leave a room, with what waits for it; put a private conversation away."""
        self._begin_outcome(now)
        if conversation.kind == ROOM:
            self._outbox.forget(conversation.key)
        if conversation.kind == ROOM and conversation.is_joined and self.is_settled:
            self._send.append(Message("PART", (conversation.name,)))
        if conversation.kind == PRIVATE and self.is_settled and "MONITOR" in self._session.tokens:
            self._send.append(Message("MONITOR", ("-", conversation.name)))
        self._discard(conversation)
        return self._outcome()

    def complete(self, text: str, cursor: int, step: int = 1) -> Optional[Tuple[str, int]]:
        """The text and the cursor after Tab (or Shift+Tab, -1); None: nothing to complete."""
        return self._completer.complete(text, cursor, step, self._candidates)

    def _candidates(self, begun: str, is_first: bool) -> List[str]:
        """What a word may become."""
        sign = begun[:1]
        if not begun:
            return []
        if sign == "/" and is_first:
            names = [("/%s " % verb) for verb in protocol.VERBS]
        elif sign in self._session.room_signs:
            names = [c.name + " " for c in self.conversations if c.kind == ROOM]
        else:
            at = "@" if sign == "@" else ""
            end = ": " if is_first and not at else " "
            names = [at + name + end for name in self._nicknames(begun.lstrip("@"))]
        key = protocol.casefold(begun)
        return [name for name in names if protocol.casefold(name).startswith(key)]

    # What the user can do without the server

    def _help(self, args: Tuple[str, ...], messages: List[Message]) -> List[Message]:
        for line in protocol.help_lines():
            self._tell(line)
        return messages

    def _list(self, args: Tuple[str, ...], messages: List[Message]) -> List[Message]:
        if self._room is not None:
            self._room.lists += 1
        return messages

    def _history(self, args: Tuple[str, ...], messages: List[Message]) -> List[Message]:
        asked = messages[0]
        key = protocol.casefold(asked.params[1])
        limit, until = int(asked.params[-1][:9]), self._now + HISTORY_TIME
        self._session.asked.append(Request(TYPED, key, self.find(key), until, limit))
        return messages

    def _join(self, args: Tuple[str, ...], messages: List[Message]) -> List[Message]:
        name = messages[0].params[0]
        found = self.find(name)
        if found is not None and found.is_joined:
            self._show(found)
            return messages[1:]
        for key in protocol.casefold(name).split(","):
            self._session.entering[key] = self._now
        if len(messages[0].params) > 1:
            self._room_keys[protocol.casefold(name)] = messages[0].params[1]
        return messages

    def _leave(self, args: Tuple[str, ...], messages: List[Message]) -> List[Message]:
        self._session.leaving[protocol.casefold(messages[0].params[0])] = self._now
        return messages

    def _ignore(self, args: Tuple[str, ...], messages: List[Message]) -> List[Message]:
        if args and self._is_me(args[0]):
            raise protocol.InputError("You cannot ignore yourself.")
        if args:
            self._ignored[protocol.casefold(args[0])] = args[0]
            return self._unsilenced(messages, "You do not hear %s any more" % args[0])
        names = ", ".join(sorted(self._ignored.values(), key=protocol.casefold))
        self._tell("You ignore %s." % (names or "nobody"))
        return messages[1:]

    def _unignore(self, args: Tuple[str, ...], messages: List[Message]) -> List[Message]:
        self._ignored.pop(protocol.casefold(args[0]), None)
        return self._unsilenced(messages, "You hear %s again" % args[0])

    def _unsilenced(self, messages: List[Message], text: str) -> List[Message]:
        """`messages` for a server that may be unable to ignore for us; then we do, and say so."""
        if "SILENCE" in self._session.tokens:
            return messages
        self._tell(text)
        return messages[1:]

    def _remember(self, args: Tuple[str, ...], messages: List[Message]) -> List[Message]:
        name = args[0] if len(args) > 1 else self.nickname
        self._candidate = Login(name, args[-1])
        return messages


# What the server must have agreed to before these are asked of it.
_NEEDS = {
    "history": HISTORY, "register": "draft/account-registration", "login": "sasl",
    "ban": RESUME, "mute": RESUME, "unban": RESUME, "bans": RESUME, "announce": RESUME,
    "stats": RESUME,
}  # fmt: skip

# What is done here before, or in place of, what goes to the server.
_LOCAL: Dict[str, Callable[[Chat, Tuple[str, ...], List[Message]], List[Message]]] = {
    "help": Chat._help, "list": Chat._list, "history": Chat._history, "join": Chat._join,
    "leave": Chat._leave,
    "ignore": Chat._ignore, "unignore": Chat._unignore,
    "register": Chat._remember, "login": Chat._remember,
}  # fmt: skip


_LINK = re.compile(r"\bhttps?://[^\s<>\"“”]+", re.IGNORECASE)


def find_links(text: str) -> List[Tuple[int, int]]:
    """Where links to web pages stand in `text`, without the punctuation that follows them."""
    links = []
    for match in _LINK.finditer(text):
        link = match.group()
        while link[-1] in ".,;:!?'*_~…" or (
            link[-1] in ")]}" and link.count(link[-1]) > link.count("([{"[")]}".index(link[-1])])
        ):
            link = link[:-1]
        if link.partition("://")[2]:
            links.append((match.start(), match.start() + len(link)))
    return links


def is_secret(text: str) -> bool:
    """Whether what was typed holds a password, and is to be remembered nowhere."""
    return text.lstrip()[:1] == "/" and text.split()[0][1:].lower() in protocol.SECRETS


# The settings


class Settings:
    """What the program remembers from one time to the next; no password is among it.

    Never stops the program: what cannot be read is moved aside, what cannot be written is not.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self.name = ""
        self.servers: List[str] = []  # the last first
        self.theme = "dark"
        self.zoom = 100  # per cent
        self.geometry = ""
        self.levels: Dict[str, str] = {}  # of what one wants to be told, by conversation
        self.sound = True
        self.emoji = "auto"  # "off" where they end the program (HUBBUB_EMOJI wins), or "on"
        self._before = self._values()  # as they were found, or written

    def load(self) -> None:
        """Take what the file has, as far as it makes sense."""
        try:
            with open(self._path, encoding="utf-8") as file:
                found = json.load(file)
            found = dict(found)
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError, RecursionError) as error:
            log.warning("%s is not used: %s", self._path, error)
            self._move_aside()
            return
        for name, default in self._values().items():
            value = found.get(name, default)
            if type(value) is type(default):
                setattr(self, name, value)
        self.servers = [protocol.clean(s, 200) for s in self.servers if isinstance(s, str)]
        self.levels = {k: v for k, v in self.levels.items() if v in (ALL, MENTIONS, NONE)}
        self._before = self._values()

    def save(self) -> None:
        """Write the file, all of it or nothing; what only another window has changed stays so."""
        found = Settings(self._path)
        found.load()
        for name, value in self._values().items():
            if name == "levels":
                changed = [key for key in value if value[key] != self._before[name].get(key)]
                found.levels.update((key, value[key]) for key in changed)
            elif value != self._before[name]:
                if name == "servers":
                    value = [*value, *(s for s in found.servers if s not in value)][:MAX_SERVERS]
                setattr(found, name, value)
        whole = json.dumps(found._values(), ensure_ascii=False, indent=1, sort_keys=True)
        try:
            os.makedirs(os.path.dirname(self._path), exist_ok=True)
            with open(self._path + ".new", "w", encoding="utf-8") as file:
                file.write(whole + "\n")
            os.replace(self._path + ".new", self._path)
            self._before = self._values()
        except (OSError, ValueError) as error:
            log.warning("The settings are not kept: %s", error)

    def remember(self, server: str) -> None:
        """Put a server before the others that one has been to."""
        self.servers = [server, *[s for s in self.servers if s != server]][:MAX_SERVERS]

    def _values(self) -> Dict[str, Any]:
        """A copy of them all."""
        return {name: copy.copy(value) for name, value in vars(self).items() if name[0] != "_"}

    def _move_aside(self) -> None:
        try:
            os.replace(self._path, self._path + ".broken")
        except OSError as error:
            log.warning("%s cannot be moved aside: %s", self._path, error)


def settings_path() -> str:
    """The file of the settings, where this system keeps such things."""
    home = os.path.expanduser("~")
    if sys.platform == "win32":
        return os.path.join(os.environ.get("APPDATA") or home, "Hubbub", "settings.json")
    if sys.platform == "darwin":
        return os.path.join(home, "Library", "Application Support", "Hubbub", "settings.json")
    folder = os.environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    return os.path.join(folder, "hubbub", "settings.json")


# The terminal


class Typed(NamedTuple):
    """A line from standard input; None at its end."""

    text: Optional[str]


class Terminal:
    """Chats on standard input and output, line by line: for pipes and screen readers too."""

    _LAST = "hubbub-last"  # the PING whose PONG says that all was delivered

    def __init__(self) -> None:
        self._events: "queue.Queue[Any]" = queue.Queue(MAX_EVENTS)
        self._lines = _read_lines(sys.stdin)
        self._output = _text_stream(sys.stdout)
        self._errors = _text_stream(sys.stderr)
        self._may_read = threading.Event()  # the server sets the pace of a long input
        self._may_read.set()
        self._unshown: Set[int] = set()  # entries that have not been delivered yet
        self._is_person = sys.stdin.isatty()
        self._is_reading = False  # the thread `input` takes what is typed
        self._is_ending = False  # all of it has been taken
        self._typed: Deque[Optional[str]] = deque()  # what waits until one is in a room, or is not
        self._meant: FrozenSet[str] = frozenset()  # the rooms for one of which it is meant

    def run(self, host: str, port: int, nickname: str) -> int:
        """Chat until /quit or the end of input (0), or until the connection is lost (1).

        Where a person types, a connection that is lost comes back.
        """
        try:
            return self._stay(host, port, nickname)
        except KeyboardInterrupt:
            return 0
        except EOFError:  # in place of a password
            return 1
        except OSError as error:  # what is left goes nowhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if isinstance(error, BrokenPipeError):  # who read along has had enough
                return 0
            print("The chat cannot be written: %s." % error.strerror, file=self._errors)
            return 1

    def _stay(self, host: str, port: int, nickname: str) -> int:
        password = ""
        while True:
            nickname = nickname or self._ask("Username: ")
            if not nickname:
                print("No username was given.", file=self._errors)
                return 1
            connection = Connection(host, port, password, nickname, self._events, self._is_person)
            chat = Chat(connection.address)
            chat.begin(nickname)
            connection.start()
            try:
                end = self._chat(connection, chat)
            finally:
                connection.close(QUIT_TIME)
            if end.fault == CLOSED:
                return 0
            reason = end.reason
            if chat.unsent:
                form = "%s: %d of your messages may not have arrived."
                reason = form % (reason.rstrip("."), chat.unsent)
            print(reason, file=self._errors)
            if not self._is_person or self._is_reading or end.fault not in (NAME, PASSWORD):
                return 1
            if end.fault == NAME:
                nickname = ""
            else:
                password = getpass.getpass("Password: ")

    def _ask(self, prompt: str) -> str:
        if self._is_person:
            print(prompt, end="", file=self._output, flush=True)
        return protocol.normalize(next(self._lines, "").strip())

    def _chat(self, connection: Connection, chat: Chat) -> Disconnected:
        while True:
            try:
                event = self._events.get(timeout=END_TIME)
            except queue.Empty:
                if self._is_ending:  # a server that answers no more
                    lost = Disconnected(LOST, "The server does not answer.")
                    return lost if chat.unsent else Disconnected(CLOSED, "")
                event = None
            if isinstance(event, Typed):
                self._typed.append(event.text)
            else:
                outcome = chat.handle(event, time.time())
                is_pong = isinstance(event, Message) and event.command == "PONG"
                if is_pong and event.text == self._LAST:
                    outcome = outcome._replace(send=[Message("QUIT")], done=True)
                self._carry_out(outcome, connection, chat)
            if isinstance(event, Disconnected):
                return event
            while self._typed and not chat.is_moving(time.time()):
                self._carry_out(self._submit(chat, self._typed.popleft()), connection, chat)
            if self._is_person and not self._typed and not chat.is_moving(time.time()):
                self._meant = frozenset()  # who sees where one is means that
            is_slow = chat.unsent + len(self._typed) >= MAX_UNSENT
            (self._may_read.clear if is_slow else self._may_read.set)()
            if chat.is_settled and not self._is_reading:
                self._is_reading = True
                # Daemon: reading from a terminal cannot be called off.
                threading.Thread(target=self._read, name="input", daemon=True).start()

    def _carry_out(self, outcome: Outcome, connection: Connection, chat: Chat) -> None:
        self._print(outcome.changes, chat)
        connection.carry_out(outcome)

    def _submit(self, chat: Chat, text: Optional[str]) -> Outcome:
        if text is None:
            self._is_ending = True
            return Outcome(send=[Message("PING", (self._LAST,))])
        try:
            if not text:
                raise protocol.InputError("A line of more than %d bytes is not sent." % MAX_PASTE)
            verb = protocol.parse_input(text).verb
            if verb in ("say", "me") and self._meant and chat.current.key not in self._meant:
                raise protocol.InputError(OUTSIDE.format(min(self._meant)))
            outcome = chat.submit(text, time.time())
        except protocol.InputError as error:
            return chat.note(str(error), time.time())
        if verb in ("join", "leave"):
            self._meant = chat.entering
        return outcome

    def _read(self) -> None:
        for text in self._lines:
            self._may_read.wait()
            self._events.put(Typed(text))
        self._events.put(Typed(None))

    def _print(self, changes: Iterable[Change], chat: Chat) -> None:
        """Print what is new, each line once."""
        shown: Dict[int, Tuple[Entry, Conversation]] = {}  # those in view are told where they are
        for kind, place, entries in changes:
            if place is None or kind not in (ADDED, CHANGED, RECALLED):
                continue
            if kind == RECALLED:
                self._recall(place, entries)
                continue
            for entry in entries:
                is_first = entry.id not in shown or place is chat.current
                if is_first and (kind == ADDED or entry.id in self._unshown):
                    shown[entry.id] = entry, place
        for entry, place in shown.values():
            if entry.state == SENT or entry.note in (_WAITS, _DOUBT):  # refusals are told in words
                self._print_line(entry, place, chat)
            (self._unshown.discard if entry.state == SENT else self._unshown.add)(entry.id)

    def _recall(self, place: Conversation, entries: Sequence[Entry]) -> None:
        now = time.time()
        text = "Earlier in %s:" % place.name if entries else "Nothing was said earlier."
        end = [protocol.server_line("Now:", now)] if entries else []
        lines = [protocol.server_line(text, now), *[entry.line for entry in entries], *end]
        for line in lines:
            print(line, file=self._output, flush=True)

    def _print_line(self, entry: Entry, place: Conversation, chat: Chat) -> None:
        line = entry.line
        if place.kind == ROOM and place is not chat.current:
            line = line._replace(head="%s %s" % (place.name, line.head))
        note = "  (%s)" % entry.note if entry.note else ""
        print("%s%s" % (line, note), file=self._output, flush=True)


def _read_lines(stream: Any) -> Iterator[str]:
    """The lines of standard input, without their ends; "" for one of more than MAX_PASTE bytes.

    Read below Python's buffer, whose lock a thread that never returns would keep for ever.
    """
    encoding = _encoding(stream)
    framer = protocol.Framer(MAX_PASTE)
    data = b"\n"
    while data:
        data = stream.buffer.raw.read(protocol.MAX_TYPED) or b""
        for line in framer.feed(data or b"\n"):
            if line != b"":
                yield line.decode(encoding, "replace") if line else ""


def _text_stream(stream: Any) -> Any:
    """A standard stream that never fails on a character."""
    encoding = _encoding(stream)
    return io.TextIOWrapper(stream.buffer, encoding, errors="replace", line_buffering=True)


def _encoding(stream: Any) -> str:
    """What a standard stream is to speak: UTF-8 in pipes, and where nobody has said what."""
    is_known = stream.isatty() and codecs.lookup(stream.encoding).name != "ascii"
    return str(stream.encoding) if is_known else "utf-8"


# The look: colours, type, pictures, and what ttk makes of them

POLL_MS = 30  # between two looks at the queue; 10 when there was more than is taken at once
BATCH = 100  # events shown at once, so that a flood leaves time for keys
BATCH_TIME = 0.005  # seconds that taking them may last: other threads and programs run, too
SWITCH_TIME = 0.001  # seconds: for so long a thread may keep Tk's from coming back to Python
MAX_ROWS = 5  # lines that the chat box grows to
CROWD = 5  # people who join or leave one after the other share a line
MANY_LINES = 20  # of a paste; for more the user is asked

PALETTES = {
    "dark": {
        "bg": "#14171c", "chat": "#1a1e25", "field": "#232933", "hover": "#222832",
        "selected": "#2b3648", "line": "#2b313c", "outline": "#6b7687", "text": "#f2f4f8",
        "muted": "#a3adbd", "time": "#99a3b3", FROM_SERVER: "#6cb6ff", FROM_ME: "#7ee0a1",
        FROM_OTHERS: "#f2f4f8", PRIVATE: "#d3adff", "warn": "#f2c14e", "error": "#ff8a80",
        "ok": "#4fd18b", "away": "#f2b93b", "offline": "#6b7687", "accent": "#2f6be0",
        "accent_hover": "#3771e6", "accent_pressed": "#2459c4", "on_accent": "#ffffff",
        "focus": "#6aa5ff", "link": "#8cc4ff", "badge": "#2f6be0", "mention_badge": "#d1344b",
        "mention": "#3b3115", "banner": "#3a2f12", "banner_text": "#ffe2a0",
        "selection": "#284269", "find": "#5a4a00", "found": "#f2c14e", "on_found": "#1b2027",
        "thumb": "#444d5c", "thumb_active": "#5b6678",
    },
    "light": {
        "bg": "#eff2f6", "chat": "#ffffff", "field": "#ffffff", "hover": "#e4e9f0",
        "selected": "#d5e3fb", "line": "#d9dfe7", "outline": "#7b8696", "text": "#1b2027",
        "muted": "#525c6a", "time": "#626d7c", FROM_SERVER: "#0b57b7", FROM_ME: "#166b34",
        FROM_OTHERS: "#1b2027", PRIVATE: "#7434b5", "warn": "#8a5700", "error": "#b3261e",
        "ok": "#1a7f43", "away": "#d08700", "offline": "#98a3b2", "accent": "#1f5fd0",
        "accent_hover": "#2c6ce0", "accent_pressed": "#184da9", "on_accent": "#ffffff",
        "focus": "#1f5fd0", "link": "#0b57b7", "badge": "#1f5fd0", "mention_badge": "#c4243c",
        "mention": "#fff1c9", "banner": "#fff1c9", "banner_text": "#5c4100",
        "selection": "#cadcfb", "find": "#ffe58a", "found": "#f2b705", "on_found": "#1b2027",
        "thumb": "#b9c2ce", "thumb_active": "#98a3b2",
    },
}  # fmt: skip
AVATARS = ("#c2553b", "#a8640f", "#5d7a1f", "#1f7f5c", "#1f7a94", "#3c6fd1", "#7a57c9", "#a94799")
FAMILIES = ("Segoe UI", "Inter", "Cantarell", "Ubuntu", "Noto Sans", "DejaVu Sans")
FONTS: "Dict[str, Tuple[int, Literal['normal', 'bold']]]" = {  # pixels at 96 dpi, weight
    "chat": (14, "normal"), "name": (14, "bold"), "time": (12, "normal"), "ui": (13, "normal"),
    "ui_bold": (13, "bold"), "small": (12, "normal"), "small_bold": (12, "bold"),
    "caption": (11, "bold"), "room": (16, "bold"), "title": (22, "bold"),
}  # fmt: skip
ZOOMS = (80, 90, 100, 110, 125, 150, 175, 200)  # percent

# On a grid of 24: l a line through points, o a ring, d a disc, m a disc less another,
# p a polygon, r a round box.
ICONS = {
    "search": "o 10 10 6.5 l 15 15 21 21",
    "person": "o 12 7.5 4 l 4 21 4.6 17.8 6.6 15.6 9.5 14.7 14.5 14.7 17.4 15.6 19.4 17.8 20 21",
    "plus": "l 12 4 12 20 l 4 12 20 12",
    "sun": "d 12 12 4.6 l 12 1.5 12 4 l 12 20 12 22.5 l 1.5 12 4 12 l 20 12 22.5 12"
           " l 4.6 4.6 6.3 6.3 l 17.7 17.7 19.4 19.4 l 4.6 19.4 6.3 17.7 l 17.7 6.3 19.4 4.6",
    "moon": "m 12 12 9 16 8 7.5",
    "send": "p 2.5 3.5 22 12 2.5 20.5 6.5 12",
    "check": "l 4 13 9.5 18.5 20 6",
    "lock": "l 5 11 19 11 19 21 5 21 5 11 l 8 11 8 7.5 9.2 5 12 3.8 14.8 5 16 7.5 16 11",
    "up": "l 12 20 12 4 l 5 11 12 4 19 11",
    "down": "l 12 4 12 20 l 5 13 12 20 19 13",
    "close": "l 5 5 19 19 l 19 5 5 19",
    "menu": "l 4 6 20 6 l 4 12 20 12 l 4 18 20 18",
    "warn": "l 12 3.5 22 20.5 2 20.5 12 3.5 l 12 10 12 14 d 12 17.3 .5",
}  # fmt: skip

Color = Tuple[int, ...]


def make_png(width: int, rows: Sequence[bytes]) -> bytes:
    """A picture of rows of RGBA pixels, as a PNG file."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    head = struct.pack(">IIBBBBB", width, len(rows), 8, 6, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows), 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def _rgb(color: str) -> Color:
    return tuple(int(color[index : index + 2], 16) for index in (1, 3, 5))


def _cover(distance: float) -> float:
    """How much of a pixel lies inside a shape whose edge is so far from its middle."""
    return min(1.0, max(0.0, 0.5 - distance))


def draw_box(
    width: int, height: int, radius: float, fill: str, outline: str = "", thickness: float = 0
) -> bytes:
    """A box with round corners, as PNG; "" is transparent. Its corners are one, mirrored."""
    inner, edge = _rgb(fill or outline), _rgb(outline or fill)
    radius = min(radius, width / 2, height / 2)
    reach = int(max(radius, thickness)) + 2
    columns, lines = min(reach, (width + 1) // 2), min(reach, (height + 1) // 2)

    def to_edge(x: float, y: float) -> float:
        if x < radius and y < radius:
            return math.hypot(radius - x, radius - y) - radius
        return -min(x, y)

    def pixel(distance: float) -> bytes:
        whole = _cover(distance)
        inside = _cover(distance + thickness) if thickness else whole
        share = inside / whole if whole else 0.0
        color = [round(b + (a - b) * share) for a, b in zip(inner, edge)]
        alpha = whole if fill else whole - inside
        return bytes([*color, round(alpha * 255)])

    rows = []
    for line in range(lines):
        left: List[bytes] = []
        distance = 0.0
        while len(left) < columns and distance > -thickness - 1:
            distance = to_edge(len(left) + 0.5, line + 0.5)
            left.append(pixel(distance))
        left += left[-1:] * (columns - len(left))  # no edge is near any more
        right = left[: width - columns][::-1] if width < 2 * columns else left[::-1]
        rows.append(b"".join(left) + left[-1] * (width - 2 * columns) + b"".join(right))
    below = rows[: height - lines][::-1] if height < 2 * lines else rows[::-1]
    return make_png(width, rows + [rows[-1]] * (height - 2 * lines) + below)


def _parts(shapes: str) -> Iterator[Tuple[str, List[float], float, float, float, float]]:
    """Shapes as in ICONS one by one: kind, numbers, and the box that they lie in."""
    for kind, text in re.findall(r"([a-z])([^a-z]*)", shapes):
        at = [float(number) for number in text.split()]
        if kind == "l":
            pieces = [at[index : index + 4] for index in range(0, len(at) - 3, 2)]
        else:
            pieces = [at]
        for at in pieces:
            if kind in "odm":
                yield (kind, at, at[0] - at[2], at[1] - at[2], at[0] + at[2], at[1] + at[2])
            else:
                points = at[:4] if kind == "r" else at
                xs, ys = points[::2], points[1::2]
                yield (kind, at, min(xs), min(ys), max(xs), max(ys))


def _to_line(x: float, y: float, ax: float, ay: float, bx: float, by: float) -> float:
    """The distance to a line from a point to another."""
    dx, dy = bx - ax, by - ay
    along = ((x - ax) * dx + (y - ay) * dy) / ((dx * dx + dy * dy) or 1)
    along = min(1.0, max(0.0, along))
    return math.hypot(x - ax - along * dx, y - ay - along * dy)


def _to_shape(x: float, y: float, kind: str, at: Sequence[float], pen: float) -> float:
    """The distance to the edge of a shape of ICONS; negative inside."""
    if kind == "l":
        return _to_line(x, y, *at) - pen
    if kind == "r":
        left, top, right, bottom, radius = at
        dx = max(left - x, x - right) + radius
        dy = max(top - y, y - bottom) + radius
        return math.hypot(max(0.0, dx), max(0.0, dy)) + min(0.0, max(dx, dy)) - radius
    if kind == "p":
        sides = list(zip(at[::2], at[1::2], [*at[2::2], at[0]], [*at[3::2], at[1]]))
        crossed = [s for s in sides if (s[1] > y) != (s[3] > y)
                   and x < s[0] + (y - s[1]) * (s[2] - s[0]) / (s[3] - s[1])]  # fmt: skip
        distance = min(_to_line(x, y, *side) for side in sides)
        return (-distance if len(crossed) % 2 else distance) - pen / 3
    distance = math.hypot(x - at[0], y - at[1]) - at[2]
    if kind == "m":
        return max(distance, at[5] - math.hypot(x - at[3], y - at[4]))
    return abs(distance) - pen if kind == "o" else distance - pen / 2


def draw_shapes(size: int, layers: Sequence[Tuple[str, str]]) -> bytes:
    """Shapes as in ICONS, each layer with its colour, one over the other, as PNG."""
    unit = 24 / size
    pen = max(1.15, unit * 0.55)  # half the width of a stroke; never too thin to see
    pixels: List[Color] = [(0, 0, 0, 0)] * (size * size)
    for shapes, color in layers:
        shares: Dict[int, float] = {}  # how much of a pixel the layer covers
        for kind, at, left, top, right, bottom in _parts(shapes):
            span = [(max(0, int((low - pen) / unit)), min(size, int((high + pen) / unit) + 2))
                    for low, high in ((left, right), (top, bottom))]  # fmt: skip
            for line in range(*span[1]):
                column, end = span[0]
                while column < end:
                    x, y = (column + 0.5) * unit, (line + 0.5) * unit
                    distance = _to_shape(x, y, kind, at, pen) / unit
                    share, start = _cover(distance), line * size + column
                    column += 1 + int(abs(distance) - 0.5)  # no edge is nearer: all are like this
                    for index in range(start, line * size + min(column, end)) if share else ():
                        shares[index] = max(share, shares.get(index, 0.0))
        rgb = _rgb(color)
        for index, share in shares.items():
            pixels[index] = _blend(pixels[index], rgb, share)
    rows = [pixels[line * size : (line + 1) * size] for line in range(size)]
    return make_png(size, [b"".join(map(bytes, row)) for row in rows])


def _blend(below: Color, rgb: Color, share: float) -> Color:
    """A pixel (RGBA) with so much of a colour over it."""
    kept = below[3] / 255 * (1 - share)
    if not kept:
        return (*rgb, round(share * 255))
    total = share + kept
    color = [round((old * kept + new * share) / total) for old, new in zip(below, rgb)]
    return (*color, round(total * 255))


# The program's own: a speech bubble on a tile.
_TILE = "r .3 .3 23.7 23.7 5.2"
_BUBBLE = "r 4.8 5.8 19.2 15.4 3.2 p 7.2 14 12 15.2 7.4 19.6"
_DOTS = "d 8.4 10.6 .75 d 12 10.6 .75 d 15.6 10.6 .75"


class Button(NamedTuple):
    """How a kind of button looks, in names of the palette; "" is transparent."""

    surface: str  # what it lies on
    text: str
    normal: str
    hover: str
    pressed: str
    outline: str = ""
    font: str = "ui_bold"
    padding: Tuple[int, int] = (16, 9)
    radius: int = 8


BUTTONS = {
    "Accent": Button("bg", "on_accent", "accent", "accent_hover", "accent_pressed"),
    "AccentCard": Button("field", "on_accent", "accent", "accent_hover", "accent_pressed"),
    "PlainCard": Button("field", "text", "", "hover", "selected", "outline"),
    "Pill": Button("chat", "on_accent", "accent", "accent_hover", "accent_pressed", radius=17),
    "Banner": Button("banner", "banner_text", "", "mention", "mention", "banner_text",
                     padding=(12, 3)),
    "Link": Button("bg", "link", "", "hover", "selected", font="ui", padding=(8, 4)),
    "Icon": Button("chat", "muted", "", "hover", "selected", padding=(7, 7)),
    "IconBg": Button("bg", "muted", "", "hover", "selected", padding=(7, 7)),
    "IconField": Button("field", "focus", "", "hover", "selected", padding=(7, 7)),
}  # fmt: skip

# The frames that have nothing but their surface.
SURFACES = {"bg": "Bg", "chat": "Chat", "banner": "Banner", "line": "Line", "field": "Inner",
            "focus": "Focus"}  # fmt: skip

# Frames that hold a field: what they lie on, the colour of the edge. Boxes are in "field".
FIELDS = {"Field": ("bg", "outline"), "ChatField": ("chat", "outline"), "Card": ("bg", "line"),
          "CardField": ("field", "outline"), "Sheet": ("chat", "outline")}  # fmt: skip

# Labels: what they lie on, the colour of the text, the font.
LABELS = {
    "Strong": ("bg", "text", "ui_bold"), "Muted": ("bg", "muted", "small"),
    "Error": ("bg", "error", "small"), "Empty": ("chat", "muted", "ui"),
    "Card": ("field", "text", "ui"), "CardTitle": ("field", "text", "ui_bold"),
    "CardStrong": ("field", "text", "room"), "CardMuted": ("field", "muted", "small"),
    "CardError": ("field", "error", "small"),
    "Banner": ("banner", "banner_text", "ui"),
}  # fmt: skip


class Look:
    """The colours, fonts, sizes and pictures of a theme at a zoom, and what ttk makes of them.

    What depends on them is done by functions that `follow` calls, at once and after each
    `change`; that is all that widgets need to know of themes.
    """

    def __init__(self, root: "tk.Tk", theme: str, zoom: int = 100, emoji: str = "auto") -> None:
        self._root = root
        self.theme, self.zoom = "", 0
        self.color: Dict[str, str] = {}
        self.system = str(root.tk.call("tk", "windowingsystem"))
        self.control = "Command" if self.system == "aqua" else "Control"  # goes with letters
        dpi = root.winfo_fpixels("1i")
        steps = round(dpi / 96 * 4) if 0 < dpi < 960 else 4  # some systems report nonsense
        self._scale = min(16, max(4, steps)) / 4
        default = tkfont.nametofont("TkDefaultFont").actual("family")
        families = set(tkfont.families(root))
        family = next((name for name in FAMILIES if name in families), default)
        if self.system == "aqua":
            self._scale, family = 1.0, default
        self.font = {
            name: tkfont.Font(root, family=family, weight=weight)
            for name, (_, weight) in FONTS.items()
        }
        self._images: Dict[Any, Any] = {}  # Tk draws nothing for an image that Python has let go
        self._followers: List[Tuple[Any, Callable[[], object]]] = []
        self._show_emoji = emoji == "on" or (emoji != "off" and self._can_show_emoji())
        self.change(theme, zoom)

    def _can_show_emoji(self) -> bool:
        """False where a colour font would end the program with an X error, as old libraries do."""
        patch = str(self._root.tk.call("info", "patchlevel")).split(".")[:3]
        is_new = [int(part) for part in patch if part.isdigit()] >= [8, 6, 11]
        if is_new or self.system != "x11":
            return True
        try:
            return int(ctypes.CDLL("libXft.so.2").XftGetVersion()) >= 20305
        except (OSError, AttributeError):
            return True  # a Tk without that library draws no colours

    def px(self, size: float) -> int:
        """Pixels on this screen for so many on one of 96 dpi."""
        return round(size * self._scale)

    def dp(self, size: float) -> int:
        """The same for what grows with the text."""
        return round(size * self._scale * self.zoom / 100)

    def follow(self, widget: "tk.Misc", function: Callable[[], object]) -> None:
        """Call `function` now, and whenever the look has changed while `widget` exists."""
        function()
        self._followers.append((widget, function))

    def change(self, theme: str, zoom: int) -> None:
        """Take another theme or zoom."""
        self.theme, self.zoom, self.color = theme, zoom, PALETTES[theme]
        for name, (size, _) in FONTS.items():
            self.font[name].configure(size=-self.dp(size))
        self._use_theme()
        self._root.configure(bg=self.color["bg"])
        self._followers = [pair for pair in self._followers if pair[0].winfo_exists()]
        for _, function in self._followers:
            function()

    def text(self, text: str) -> str:
        """`text` as this Tk can show it: Python 3.6 takes other characters as two halves."""
        if max(text, default="") <= ("\uffff" if self._show_emoji else "\u25ff"):
            return text
        if not self._show_emoji:
            text = _EMOJI.sub("□", text)
        if sys.version_info >= (3, 7):
            return text
        data = text.encode("utf-16-le", "surrogatepass")
        units = (data[index : index + 2] for index in range(0, len(data), 2))
        return "".join(chr(int.from_bytes(unit, "little")) for unit in units)

    def shorten(self, text: str, font: str, width: int) -> str:
        """As much of `text` as fits into `width` pixels, with an ellipsis where it was cut."""
        measure = self.font[font].measure
        text = self.text(text[:200])
        if measure(text) <= width:
            return text
        low, high = 0, len(text)  # so many characters fit; so many do not
        while high - low > 1:
            middle = (low + high) // 2
            if measure(text[:middle] + "…") <= width:
                low = middle
            else:
                high = middle
        return text[:low].rstrip() + "…"

    def write(self, canvas: "tk.Canvas", x: int, y: int, text: str, color: str, font: str,
              width: int = 200000, anchor: "Literal['w', 'e', 'center']" = "w") -> int:  # fmt: skip
        """Draw a line of text, at most so wide, from the middle of its height; how wide it is."""
        text = self.shorten(text, font, width)
        canvas.create_text(x, y, text=text, anchor=anchor, fill=self.color.get(color, color),
                           font=self.font[font])  # fmt: skip
        return self.font[font].measure(text)

    # Pictures, made once

    def box(self, width: int, height: int, radius: float, fill: str, outline: str = "",
            thickness: float = 0) -> Any:  # fmt: skip
        """A round box, in pixels; colours by their names in the palette, or as #rrggbb."""
        fill, outline = self.color.get(fill, fill), self.color.get(outline, outline)
        args = (width, height, radius, fill, outline, thickness)
        return self._image(args, lambda: draw_box(*args))

    def icon(self, name: str, color: str = "muted", size: int = 18, dot: str = "") -> Any:
        """A drawing of ICONS, with a dot of another colour at its corner."""
        marks = (("d 20 4 3.6", self.color[dot]),) if dot else ()
        layers = ((ICONS[name], self.color[color]), *marks)
        return self._image((self.dp(size), layers), lambda: draw_shapes(self.dp(size), layers))

    def logo(self, size: int) -> Any:
        """The program's own, so many pixels wide."""
        accent = self.color["accent"]
        layers = ((_TILE, accent), (_BUBBLE, "#ffffff"), (_DOTS, accent))
        return self._image((size, layers), lambda: draw_shapes(size, layers))

    def _image(self, key: Any, draw: Callable[[], bytes]) -> Any:
        if key not in self._images:
            self._images[key] = tk.PhotoImage(master=self._root, data=draw(), format="png")
        return self._images[key]

    # ttk

    def _use_theme(self) -> None:
        style = ttk.Style(self._root)
        name = "hubbub-%s-%d" % (self.theme, self.zoom)
        if name not in style.theme_names():
            style.theme_create(name, "clam")
            style.theme_use(name)
            self._fill_theme(style)
        style.theme_use(name)

    def _fill_theme(self, style: "ttk.Style") -> None:
        color = self.color
        style.configure(".", background=color["bg"], foreground=color["text"],
                        font=self.font["ui"], borderwidth=0, focuscolor=color["bg"])  # fmt: skip
        style.configure("TButton", width=0)
        for surface in SURFACES:
            style.configure(SURFACES[surface] + ".TFrame", background=color[surface])
        for name, (surface, text, font) in LABELS.items():
            style.configure(name + ".TLabel", background=color[surface], foreground=color[text],
                            font=self.font[font])  # fmt: skip
        for name, (surface, edge) in FIELDS.items():
            self._style_field(style, name, surface, edge)
        for name, button in BUTTONS.items():
            self._style_button(style, name, button)
        for surface in ("bg", "chat", "field"):
            self._style_scrollbar(style, surface)

    def _patch(self, radius: int, fill: str, outline: str = "", thickness: float = 0) -> Any:
        """A picture that can be stretched: its middle is laid in tiles, so it is not small."""
        size = 2 * self.px(radius) + self.px(4) + 80
        return self.box(size, size, self.px(radius), fill, outline, self.px(thickness))

    def _element(
        self, style: "ttk.Style", name: str, radius: int, *images: Any, width: int = 1
    ) -> None:
        side = self.px(radius) + self.px(2)
        border = (side if width == 1 else self.px(radius), side)
        style.element_create(name, "image", *images, border=border, padding=0, width=width,
                             height=3 * width, sticky="nswe")  # fmt: skip

    def _style_field(self, style: "ttk.Style", name: str, surface: str, edge: str) -> None:
        radius = 10
        normal = self._patch(radius, "field", edge, 1)
        wrong = ("invalid", self._patch(radius, "field", "error", 2))
        focus = ("focus", self._patch(radius, "field", "focus", 2))
        self._element(style, name + ".field", radius, normal, wrong, focus)
        style.layout(name + ".TFrame", [(name + ".field", {"sticky": "nswe"})])
        style.configure(name + ".TFrame", background=self.color[surface])
        area: Any = [("Entry.textarea", {"sticky": "nswe"})]
        padding: Any = [("Entry.padding", {"sticky": "nswe", "children": area})]
        field: Any = (name + ".field", {"sticky": "nswe", "children": padding})
        style.layout(name + ".TEntry", [field])
        style.configure(name + ".TEntry", background=self.color[surface],
                        foreground=self.color["text"], insertcolor=self.color["text"],
                        padding=(self.px(12), self.px(9)),
                        selectbackground=self.color["selection"],
                        selectforeground=self.color["text"])  # fmt: skip
        style.map(name + ".TEntry", foreground=[("disabled", self.color["muted"])])

    def _style_button(self, style: "ttk.Style", name: str, button: Button) -> None:
        def patch(fill: str, edge: str = button.outline, thickness: float = 1) -> Any:
            if not fill and not edge:
                return self._patch(button.radius, button.surface)
            return self._patch(button.radius, fill, edge, thickness if edge else 0)

        disabled = patch("hover" if button.normal else "", button.outline)
        ring = "text" if button.normal else "focus"  # which is the same blue in the light theme
        self._element(style, name + ".box", button.radius, patch(button.normal),
                      ("disabled", disabled), ("pressed", patch(button.pressed)),
                      ("focus", patch(button.normal or button.surface, ring, 2)),
                      ("active", patch(button.hover)))  # fmt: skip
        label: Any = [("Button.label", {"sticky": "nswe"})]
        padding: Any = [("Button.padding", {"sticky": "nswe", "children": label})]
        style.layout(name + ".TButton", [(name + ".box", {"sticky": "nswe", "children": padding})])
        style.configure(name + ".TButton", background=self.color[button.surface],
                        foreground=self.color[button.text], font=self.font[button.font],
                        anchor="center",
                        padding=[self.px(part) for part in button.padding])  # fmt: skip
        style.map(name + ".TButton", foreground=[("disabled", self.color["muted"])])

    def _style_scrollbar(self, style: "ttk.Style", surface: str) -> None:
        name = surface.title()
        thumb = [self.box(self.px(10), self.px(16), self.px(5), color, surface, self.px(2))
                 for color in ("thumb", "thumb_active")]  # fmt: skip
        self._element(style, name + ".thumb", 4, thumb[0], ("pressed", thumb[1]),
                      ("active", thumb[1]), width=self.px(10))  # fmt: skip
        inner: Any = [(name + ".thumb", {"expand": "1", "sticky": "nswe"})]
        trough: Any = ("Vertical.Scrollbar.trough", {"sticky": "ns", "children": inner})
        style.layout(name + ".Vertical.TScrollbar", [trough])
        style.configure(name + ".Vertical.TScrollbar", troughcolor=self.color[surface],
                        bordercolor=self.color[surface], lightcolor=self.color[surface],
                        darkcolor=self.color[surface], background=self.color[surface],
                        arrowsize=self.px(10), width=self.px(10))  # fmt: skip


_EMOJI = re.compile("[\U00010000-\U0010ffff\u2600-\u27bf]\ufe0f?")


# Widgets that know nothing of chat


class Row(NamedTuple):
    """A row of a RowList. One without a key cannot be chosen."""

    text: str
    key: Any = None
    is_caption: bool = False
    detail: str = ""  # a second line, smaller
    sign: str = ""  # a character before the text
    dot: str = ""  # a colour: a dot before the text, or at the avatar
    avatar: str = ""  # whose
    color: str = "text"
    is_bold: bool = False
    badge: str = ""
    badge_color: str = "badge"
    note: str = ""  # muted, at the right end
    icon: str = ""  # there too


class RowList:
    """Rows on a canvas, of which only those in view are drawn.

    `choose` is called with the key of a row that was clicked, or entered by the keyboard;
    `menu` with the key and the place on the screen of a click with the other button.
    """

    CAPTION = 34

    def __init__(
        self, parent: "tk.Misc", look: Look, surface: str, height: int,
        choose: Callable[[Any], object],
        menu: Optional[Callable[[Any, int, int], object]] = None,
    ) -> None:  # fmt: skip
        self._look, self._surface, self._height = look, surface, height
        self._choose, self._menu = choose, menu
        self._inset = 8 if surface == "bg" else 4
        self.rows: List[Row] = []
        self._tops: List[int] = [0]  # where each row begins, and the last one ends
        self._top = 0  # the first pixel in view
        self._cursor: Any = None  # the key of the row that the keys are at
        self._unseen: Any = None  # that of a row to bring into view
        self._hover: Any = None
        self._drawing = ""  # the id of a redraw that is due
        self.selected: Any = None  # a key
        self.frame = ttk.Frame(parent, style=SURFACES[surface] + ".TFrame")
        # Grid lays nothing out anew, where that asks for a single pixel: hence 10.
        self.canvas = tk.Canvas(self.frame, bd=0, highlightthickness=0, width=10, height=10,
                                takefocus=0)  # fmt: skip
        self.scrollbar = Scrollbar(self.frame, surface, self._on_scrollbar)
        self.scrollbar.beside(self.canvas)
        look.follow(self.canvas, self._restyle)
        bind_all(self.canvas, {
            "<Configure>": lambda event: self._redraw_soon(),
            "<FocusIn>": lambda event: self.move(0),
            "<FocusOut>": lambda event: self._redraw_soon(),
            "<Motion>": self._on_motion, "<Leave>": self._on_motion,
            "<Button-1>": self._on_click, "<<ContextMenu>>": self._on_menu,
            "<Up>": lambda event: self.move(-1), "<Down>": lambda event: self.move(1),
            "<Home>": lambda event: self.move(-len(self.rows)),
            "<End>": lambda event: self.move(len(self.rows)),
            "<Prior>": lambda event: self.move(-8), "<Next>": lambda event: self.move(8),
            "<Return>": self._on_return, "<KP_Enter>": self._on_return, "<space>": self._on_return,
        })  # fmt: skip
        bind_wheel(self.canvas, lambda steps: self._scroll_to(self._top + steps * look.dp(36)))

    def show(self, rows: List[Row], selected: Any = None) -> None:
        """Show these; cheap when nothing has changed."""
        if (rows, selected) == (self.rows, self.selected):
            return
        if selected != self.selected:
            self._cursor = self._unseen = selected
        self.rows, self.selected = rows, selected
        self.canvas.configure(takefocus=any(row.key is not None for row in rows))
        self._measure()

    def move(self, steps: int) -> str:
        """Move the keys' row so many rows on."""
        keys = [row.key for row in self.rows if row.key is not None]
        if keys:
            at = keys.index(self._cursor) if self._cursor in keys else -1 if steps > 0 else 0
            self._cursor = keys[max(0, min(len(keys) - 1, at + steps))]
            self._see(self._cursor)
            self._redraw_soon()
        return "break"

    def enter(self) -> None:
        """Choose the keys' row."""
        if any(row.key == self._cursor for row in self.rows) and self._cursor is not None:
            self._choose(self._cursor)

    def select(self, key: Any) -> None:
        """Mark another row."""
        self.selected = key
        self._redraw_soon()

    @property
    def cursor(self) -> Any:
        """The key of the row that the keys are at."""
        return self._cursor

    def _restyle(self) -> None:
        self.canvas.configure(bg=self._look.color[self._surface])
        self._measure()

    def _measure(self) -> None:
        self._tops = [0]
        for row in self.rows:
            size = self.CAPTION if row.is_caption else self._height
            self._tops.append(self._tops[-1] + self._look.dp(size))
        self._redraw_soon()

    def _redraw_soon(self) -> None:
        if not self._drawing:
            self._drawing = self.canvas.after_idle(self._redraw)

    def _scroll_to(self, top: float) -> None:
        self._top = max(0, min(int(top), self._tops[-1] - self.canvas.winfo_height()))
        self._redraw_soon()

    def _on_scrollbar(self, *args: str) -> None:
        if args[0] == "moveto":
            self._scroll_to(float(args[1]) * self._tops[-1])
        else:
            size = self.canvas.winfo_height() if args[2] == "pages" else self._look.dp(36)
            self._scroll_to(self._top + int(args[1]) * size)

    def _see(self, key: Any) -> None:
        index = next((i for i, row in enumerate(self.rows) if row.key == key is not None), -1)
        if index < 0:
            return
        above, below = self._tops[index], self._tops[index + 1]
        if above < self._top:
            self._scroll_to(above if index > 1 else 0)
        elif below > self._top + self.canvas.winfo_height():
            self._scroll_to(below - self.canvas.winfo_height())

    def _redraw(self) -> None:
        self._drawing = ""
        canvas = self.canvas
        if not canvas.winfo_exists() or canvas.winfo_width() < self._look.px(60):
            return
        self._see(self._unseen)
        self._unseen = None
        height, whole = canvas.winfo_height(), self._tops[-1]
        self._top = max(0, min(self._top, whole - height))
        self.scrollbar.set(self._top / (whole or 1), (self._top + height) / (whole or 1))
        canvas.delete("all")
        first = max(0, bisect.bisect_right(self._tops, self._top) - 1)
        for index in range(first, len(self.rows)):
            if self._tops[index] > self._top + height:
                break
            self._draw(self.rows[index], self._tops[index + 1] - self._top)

    def _draw(self, row: Row, bottom: int) -> None:
        look, canvas, dp = self._look, self.canvas, self._look.dp
        width, inset = canvas.winfo_width(), look.px(self._inset)
        size = dp(self.CAPTION if row.is_caption else self._height)
        middle = bottom - size // 2
        is_chosen = row.key is not None and row.key == self.selected
        has_keys = row.key is not None and row.key == self._cursor and (
            canvas.focus_get() is canvas)  # fmt: skip
        color = "selected" if is_chosen else "hover" if row.key == self._hover else ""
        if row.is_caption:
            color = ""
        if row.key is not None and (color or has_keys):
            edge = ("focus", look.px(2)) if has_keys else ("", 0)
            image = look.box(width - 2 * inset, size - dp(2), look.px(8), color, *edge)
            canvas.create_image(inset, bottom - size + dp(1), image=image, anchor="nw")
        right = width - look.px(18 if self._surface == "bg" else 16)
        if row.is_caption:
            look.write(canvas, look.px(16), middle + dp(5), row.text, "muted", "caption")
            if row.icon:
                canvas.create_image(right + look.px(2), middle + dp(5), anchor="e",
                                    image=look.icon(row.icon, "muted", 14))  # fmt: skip
            return
        left = look.px(self._inset + 14)
        if row.avatar:
            left = self._draw_avatar(row, look.px(16), middle)
        elif row.dot:
            image = look.box(dp(10), dp(10), dp(5), row.dot)
            canvas.create_image(left, middle, image=image, anchor="w")
            left += dp(24 if row.detail else 18)
        elif row.sign:
            look.write(canvas, left, middle, row.sign, row.color, "ui_bold")
            left += dp(18)
        if row.badge:
            right -= self._draw_badge(row, right, middle) + dp(8)
        if row.note:
            width = look.write(canvas, right, middle, row.note, "muted", "small", anchor="e")
            right -= width + dp(8)
        if row.icon:
            image = look.icon(row.icon, "focus" if is_chosen else "muted", 16)
            canvas.create_image(right, middle, image=image, anchor="e")
            right -= dp(24)
        font = "ui_bold" if row.is_bold else "ui"
        up = dp(10) if row.detail else 0
        look.write(canvas, left, middle - up, row.text, row.color, font, right - left)
        look.write(canvas, left, middle + dp(11), row.detail, "muted", "small", right - left)

    def _draw_avatar(self, row: Row, left: int, middle: int) -> int:
        look, dp = self._look, self._look.dp
        draw_avatar(self.canvas, look, row.avatar, left, middle, 28)
        if row.dot:
            dot = look.box(dp(12), dp(12), dp(6), row.dot, self._surface, dp(2))
            self.canvas.create_image(left + dp(30), middle + dp(16), image=dot, anchor="se")
        return left + dp(38)

    def _draw_badge(self, row: Row, right: int, middle: int) -> int:
        look, dp = self._look, self._look.dp
        width = max(dp(20), look.font["caption"].measure(row.badge) + dp(12))
        image = look.box(width, dp(20), dp(10), row.badge_color)
        self.canvas.create_image(right, middle, image=image, anchor="e")
        look.write(self.canvas, right - width // 2, middle, row.badge, "#ffffff", "caption",
                   anchor="center")  # fmt: skip
        return width

    def _row_at(self, y: int) -> Optional[Row]:
        index = bisect.bisect_right(self._tops, self._top + y) - 1
        return self.rows[index] if 0 <= index < len(self.rows) else None

    def _on_motion(self, event: "tk.Event[Any]") -> None:
        row = None if event.type == tk.EventType.Leave else self._row_at(event.y)
        hover = row.key if row else None
        if hover != self._hover:
            self._hover = hover
            self._redraw_soon()

    def _on_click(self, event: "tk.Event[Any]") -> None:
        row = self._row_at(event.y)
        is_icon = event.x > self.canvas.winfo_width() - self._look.dp(44)
        if row and row.key is not None and (is_icon or not row.is_caption):
            self._cursor = row.key
            self._choose(row.key)

    def _on_return(self, event: "tk.Event[Any]") -> str:
        self.enter()
        return "break"

    def _on_menu(self, event: "tk.Event[Any]") -> str:
        key, (x, y), keys = self._cursor, menu_place(event), [row.key for row in self.rows]
        if event.type != tk.EventType.KeyPress:
            row = self._row_at(event.y)
            key = row.key if row else None
        elif key in keys:
            y += self._tops[keys.index(key)] - self._top
        if self._menu and key is not None and key in keys:
            self._menu(key, x, y)
        return "break"


def draw_avatar(canvas: "tk.Canvas", look: Look, name: str, left: int, middle: int,
                size: int) -> None:  # fmt: skip
    """The first letter of a name on its colour."""
    shade = AVATARS[zlib.crc32(protocol.casefold(name).encode("utf-8", "replace")) % len(AVATARS)]
    across = look.dp(size)
    image = look.box(across, across, across / 2, shade)
    canvas.create_image(left, middle, image=image, anchor="w")
    look.write(canvas, left + across // 2, middle, name[:1].upper(), "#ffffff", "ui_bold",
               anchor="center")  # fmt: skip


def bind_all(widget: "tk.Misc", handlers: Mapping[str, Callable[[Any], object]]) -> None:
    """Have a widget call these on events: a handler for each sequence."""
    for sequence, handler in handlers.items():
        widget.bind(sequence, handler)


def bind_wheel(widget: "tk.Misc", scroll: Callable[[int], object]) -> None:
    """Call `scroll` with so many steps down, or up if negative, on each system's wheel."""
    divisor = 1 if sys.platform == "darwin" else 120

    def turn(event: "tk.Event[Any]") -> str:
        scroll(int(-event.delta / divisor) or (-1 if event.delta > 0 else 1))
        return "break"

    widget.bind("<MouseWheel>", turn)
    widget.bind("<Button-4>", lambda event: scroll(-1))
    widget.bind("<Button-5>", lambda event: scroll(1))


def menu_place(event: "tk.Event[Any]") -> Tuple[int, int]:
    """Where on the screen one opens: at the mouse, or in the widget that has the keys."""
    if event.type != tk.EventType.KeyPress:
        return event.x_root, event.y_root
    return event.widget.winfo_rootx() + 20, event.widget.winfo_rooty() + 20


class Drawing:
    """A canvas that is drawn by a function, again at each change of size or look."""

    def __init__(self, parent: "tk.Misc", look: Look, surface: str, height: int,
                 draw: Callable[["tk.Canvas", int], object]) -> None:  # fmt: skip
        self._look, self._surface, self._height, self._draw = look, surface, height, draw
        self.canvas = tk.Canvas(parent, bd=0, highlightthickness=0, width=1, takefocus=0)
        self.canvas.bind("<Configure>", lambda event: self.redraw())
        look.follow(self.canvas, self._restyle)

    def redraw(self) -> None:
        """Draw it again."""
        self.canvas.delete("all")
        self._draw(self.canvas, self.canvas.winfo_width())

    def _restyle(self) -> None:
        self.canvas.configure(bg=self._look.color[self._surface],
                              height=self._look.dp(self._height))  # fmt: skip
        self.redraw()


class Scrollbar:
    """A slim bar at the right edge of its parent; away while everything is in view."""

    def __init__(self, parent: "tk.Misc", surface: str, command: Callable[..., Any]) -> None:
        self._bar = ttk.Scrollbar(parent, command=command, takefocus=0,
                                  style=surface.title() + ".Vertical.TScrollbar")  # fmt: skip

    def beside(self, widget: "tk.Misc") -> None:
        """Lay both out in their parent."""
        parent = widget.master
        parent.columnconfigure(0, weight=1)  # type: ignore[union-attr]
        parent.rowconfigure(0, weight=1)  # type: ignore[union-attr]
        widget.grid(row=0, column=0, sticky="nsew")  # type: ignore[attr-defined]
        self._bar.grid(row=0, column=1, sticky="ns")
        self._bar.grid_remove()  # until it is known to be needed

    def set(self, first: float, last: float) -> None:
        """What part is in view, from 0 to 1."""
        self._bar.set(first, last)
        if float(first) <= 0 and float(last) >= 1:
            self._bar.grid_remove()
        else:
            self._bar.grid()


def icon_button(
    parent: "tk.Misc",
    look: Look,
    icon: str,
    style: str,
    command: Callable[[], object],
    tip: str,
    color: str = "muted",
    size: int = 18,
) -> "ttk.Button":
    """A button with a drawing, and words when the mouse rests on it."""
    button = ttk.Button(parent, style=style + ".TButton", command=command)
    look.follow(button, lambda: button.configure(image=look.icon(icon, color, size)))
    Tip(button, look, tip)
    return button


class Tip:
    """A word about a widget, beside it while the mouse rests on it."""

    DELAY_MS = 600

    def __init__(self, widget: "tk.Misc", look: Look, text: str) -> None:
        self._widget, self._look, self._text = widget, look, text
        self._label: Optional[tk.Label] = None
        self._due = ""
        widget.bind("<Enter>", self._on_enter)
        for sequence in ("<Leave>", "<Button-1>", "<Destroy>"):
            widget.bind(sequence, self._on_leave)

    def _on_enter(self, event: "tk.Event[Any]") -> None:
        self._due = self._widget.after(self.DELAY_MS, self._show)

    def _show(self) -> None:
        widget, color = self._widget, self._look.color
        top = widget.winfo_toplevel()
        self._label = tk.Label(top, text=self._text, bg=color["selected"], fg=color["text"],
                               font=self._look.font["small"], padx=self._look.px(8),
                               pady=self._look.px(3))  # fmt: skip
        x = widget.winfo_rootx() - top.winfo_rootx() + widget.winfo_width() // 2
        y = widget.winfo_rooty() - top.winfo_rooty()
        half = self._label.winfo_reqwidth() // 2 + 4
        x = max(half, min(x, top.winfo_width() - half))
        is_low = y > top.winfo_height() // 2
        at = y - 4 if is_low else y + widget.winfo_height() + 4
        self._label.place(x=x, y=at, anchor="s" if is_low else "n")

    def _on_leave(self, event: "tk.Event[Any]") -> None:
        if self._due:
            self._widget.after_cancel(self._due)
            self._due = ""
        if self._label is not None:
            self._label.destroy()
            self._label = None


class Column:
    """A part at the left or the right edge of its parent, or over the other parts, or away."""

    def __init__(self, parent: "tk.Misc", look: Look, side: "Literal['left', 'right']",
                 width: int) -> None:  # fmt: skip
        self._look, self._side = look, side
        self.frame = ttk.Frame(parent, style="Bg.TFrame")
        self.frame.pack_propagate(False)
        edge = ttk.Frame(self.frame, style="Line.TFrame", width=look.px(1))
        edge.pack(side="right" if side == "left" else "left", fill="y")
        look.follow(self.frame, lambda: self.frame.configure(width=look.dp(width) + look.px(1)))

    @property
    def is_over(self) -> bool:
        """Whether it lies over the other parts."""
        return self.frame.winfo_manager() == "place"

    def show(self, is_shown: bool) -> None:
        """Have it beside the other parts, or away."""
        self.frame.place_forget()
        if is_shown:
            self.frame.grid(row=0, column=0 if self._side == "left" else 2, sticky="ns")
        else:
            self.frame.grid_forget()

    def toggle(self) -> None:
        """Lay it over the other parts, or put it away."""
        if self.is_over:
            self.frame.place_forget()
        elif self._side == "left":
            self.frame.place(relheight=1)
        else:
            self.frame.place(relx=1, relheight=1, anchor="ne")
        self.frame.lift()

    def add_head(self, draw: Callable[["tk.Canvas", int], object]) -> Drawing:
        """Put a drawing above everything else in it."""
        drawing = Drawing(self.frame, self._look, "bg", 60, draw)
        drawing.canvas.pack(fill="x")
        ttk.Frame(self.frame, style="Line.TFrame", height=self._look.px(1)).pack(fill="x")
        return drawing


class Item(NamedTuple):
    """A line of a Transcript. Items that are equal look alike."""

    source: Any  # what it shows; None for a mark between what was said
    face: Tuple[Any, ...]  # what it looks like, for who renders it


Piece = Tuple[str, Tuple[str, ...]]  # text, and the tags that it is shown in


class Transcript:
    """Lines that one can scroll and copy but not change; however many, a screen's worth of work.

    It is a window of some hundred lines onto a list of any length, moved when one scrolls to
    its edge. `show` makes it say what the list says, and touches only what differs: what is
    read stays where it is, and who was at the end stays there.

    `lay_out` gives the items for a part of the list, `render` the pieces of an item; one with
    a source begins with a CLOCK, then comes the source's text.
    """

    PAGE, MAX_LINES = 100, 600
    CLOCK = "[00:00:00] "

    def __init__(
        self, parent: "tk.Misc", look: Look, lay_out: Callable[[Sequence[Any]], List[Item]],
        render: Callable[[Item], List[Piece]], want_older: Callable[[], object],
        scrolled: Callable[[], object],
    ) -> None:  # fmt: skip
        self._look, self._render, self._lay_out = look, render, lay_out
        self._want_older, self._scrolled = want_older, scrolled
        self._lines: Sequence[Any] = ()
        self._count = 0  # how many there were: the list may grow under our hands
        self._first = self._last = 0  # what part of them is here
        self._items: List[Item] = []  # that part, laid out: a line of the text for each
        self._at_end = True  # before the last change: new lines and new sizes keep it so
        self._top = "1.0"  # what was at the top then
        self._hits: Dict[Any, List[Span]] = {}  # what was looked for, by line
        self._hit: Tuple[Any, Span] = (None, (0, 0))  # the one that one is at
        self._is_moving = False
        self.pad = 20  # at the left
        self.frame = ttk.Frame(parent, style="Chat.TFrame")
        self.text = tk.Text(
            self.frame, wrap="word", state="disabled", bd=0, highlightthickness=0, cursor="arrow",
            insertwidth=0, padx=0, pady=look.px(10), exportselection=True, takefocus=1, width=1,
            height=1,
        )  # fmt: skip
        self._scrollbar = Scrollbar(self.frame, "chat", self.text.yview)
        self._scrollbar.beside(self.text)
        self.text.configure(yscrollcommand=self._on_scroll)
        self.empty = ttk.Label(self.frame, style="Empty.TLabel")
        look.follow(self.text, self.restyle)
        self.text.bind("<Configure>", lambda event: self._keep_in_view())
        focus = ttk.Frame(self.frame, style="Focus.TFrame", width=look.px(2))  # that it has it
        self.text.bind("<FocusIn>", lambda event: focus.place(relheight=1))
        self.text.bind("<FocusOut>", lambda event: focus.place_forget())
        self.text.tag_bind("hand", "<Enter>", lambda event: self.text.configure(cursor="hand2"))
        self.text.tag_bind("hand", "<Leave>", lambda event: self.text.configure(cursor="arrow"))

    @property
    def at_end(self) -> bool:
        """Whether the last line is in view."""
        return self._at_end and self._last == len(self._lines)

    def restyle(self) -> None:
        """Take the look's colours and sizes."""
        look, color, text = self._look, self._look.color, self.text
        text.configure(
            bg=color["chat"], fg=color["text"], font=(look.font["time"].actual("family"), -4),
            selectbackground=color["selection"], inactiveselectbackground=color["selection"],
            selectforeground=color["text"],
        )  # fmt: skip
        left = look.px(self.pad)
        text.tag_configure("line", font=look.font["chat"], rmargin=look.px(20), lmargin1=left,
                           lmargin2=left + look.font["time"].measure(self.CLOCK),
                           spacing1=look.px(3), spacing2=look.px(1),
                           spacing3=look.px(3))  # fmt: skip
        for kind in ("day", "new"):
            text.tag_configure(kind, justify="center", font=look.font["small"],
                               foreground=color["muted"], spacing1=look.px(12),
                               spacing3=look.px(10))  # fmt: skip
        text.tag_configure("new", foreground=color["error"], font=look.font["small_bold"])
        text.tag_configure("time", foreground=color["time"], font=look.font["time"])
        for kind in (FROM_SERVER, FROM_ME, FROM_OTHERS, PRIVATE, "muted", "warn", "error"):
            text.tag_configure(kind, foreground=color[kind])
        text.tag_configure("name", font=look.font["name"])
        text.tag_configure("mention", background=color["mention"])
        text.tag_configure("link", foreground=color["link"], underline=True)
        text.tag_configure("find", background=color["find"], foreground=color["text"])
        text.tag_configure("found", background=color["found"], foreground=color["on_found"])
        text.tag_raise("sel")
        self._keep_in_view()

    def open(self, lines: Sequence[Any], at: Optional[int] = None) -> None:
        """Show another list, from its end, or with its line `at` in view."""
        self._first = self._last = self._count = 0
        self._at_end = True
        self.show(lines, at)

    def show(self, lines: Sequence[Any], at: Optional[int] = None) -> None:
        """Show what the list says now; bring its line `at` into view, if one is given."""
        count, known = len(lines), self._count
        if known:
            self._notice(self.text.yview()[1])
        was_whole = self._last == known
        self._lines, self._count = lines, count
        here = next((item.source for item in self._items if item.source is not None), None)
        is_here = self._first < count and lines[self._first] is here
        if here is not None and not is_here and (self._first or not self._at_end):
            self._follow(here, count - known)  # lines have come, or gone, before ours
        if at is not None and not self._first <= at < self._last:
            self._first = max(0, at - self.PAGE)
            self._last = min(count, at + self.PAGE)
        elif was_whole and (self._at_end or count - self._first < 3 * self.MAX_LINES):
            self._last = count
            if self._at_end and count - self._first > self.MAX_LINES + self.PAGE:
                self._first = count - self.MAX_LINES
            if not known:
                self._first = max(0, count - self.PAGE)
        self._last = min(self._last, count)
        self._first = min(self._first, self._last)
        self._update()
        if at is not None:
            self._at_end = False
            self.text.see("%d.0" % (self._row_of(at) + 1))
        elif not self._at_end:
            self._reach(*self.text.yview())
        if self._items:
            self.empty.place_forget()
        else:
            self.empty.place(relx=0.5, rely=0.4, anchor="center")

    def show_end(self) -> None:
        """Go to the last line."""
        if self._last < len(self._lines):
            self._last = len(self._lines)
            self._first = max(0, self._last - self.PAGE)
            self._update()
        self._at_end = True
        self.text.see("end")

    def scroll(self, pages: int) -> str:
        """Move the view by pages."""
        self.text.yview_scroll(pages, "pages")
        return "break"

    def find(self, hits: Dict[Any, List[Span]], hit: Tuple[Any, Span] = (None, (0, 0))) -> None:
        """Mark what was found, and that `hit` is the one; {} for nothing."""
        is_other, self._hits, self._hit = hits is not self._hits, hits, hit
        if is_other:
            self._mark_found()
        else:
            self._mark_hit()
        self._keep_in_view()

    def line_at(self, index: str) -> Any:
        """The line at a place of the text; None where there is none."""
        row = int(self.text.index(index).partition(".")[0]) - 1
        return self._items[row].source if row < len(self._items) else None

    def _row_of(self, at: int) -> int:
        """The row that says a line of the list, alone or with others before it."""
        rows = {id(item.source): row for row, item in enumerate(self._items)}
        while at > self._first and id(self._lines[at]) not in rows:
            at -= 1
        return rows.get(id(self._lines[at]), 0)

    def _follow(self, here: Any, grown: int) -> None:
        """Find our part again after lines were put before it, or taken away."""
        size = self._last - self._first
        guess = min(self._first + max(0, grown), len(self._lines) - 1)
        while guess >= 0 and self._lines[guess] is not here:
            guess -= 1
        if guess < 0:  # it is gone
            self._last = len(self._lines)
            self._first = max(0, self._last - self.PAGE)
        else:
            self._first, self._last = guess, min(len(self._lines), guess + size)

    def _update(self) -> None:
        """Make the text say the items of our part."""
        new = self._lay_out(self._lines[self._first : self._last])
        at_end = self._at_end
        if new != self._items:
            spot = None if at_end else self._spot()
            self.text.configure(state="normal")
            for row, remove, items in edits(self._items, new):
                start = "%d.0" % (row + 1)
                if remove:
                    self.text.delete(start, "%d.0" % (row + 1 + remove))
                if items:
                    pieces = [piece for item in items for piece in self._render(item)]
                    parts: List[Any] = [part for piece in pieces for part in piece]
                    self.text.insert(start, *parts)
            self.text.configure(state="disabled")
            self._items = new
            if spot:
                self._go_back(*spot)
            if self._hits:
                self._mark_found()
        if at_end:
            self.text.see("end")

    def _spot(self) -> Optional[Tuple[Any, str, int]]:
        """The first line in view, and where exactly; a mark moves with what comes before it."""
        row, _, column = self.text.index("@0,0").partition(".")
        for index, item in enumerate(self._items[int(row) - 1 :], int(row)):
            if item.source is not None:
                column = column if index == int(row) else "0"
                place = self.text.dlineinfo("%d.%s" % (index, column))
                return (item.source, column, place[1]) if place is not None else None
        return None

    def _go_back(self, line: Any, column: str, y: int) -> None:
        row = next((row for row, item in enumerate(self._items, 1) if item.source is line), 0)
        if row:
            index = "%d.%s" % (row, column)
            self.text.yview(index)
            place = self.text.dlineinfo(index)
            if place is not None and place[1] != y:
                self.text.yview_scroll(place[1] - y, "pixels")

    def _mark_found(self) -> None:
        self.text.tag_remove("find", "1.0", "end")
        marks: List[str] = []
        for row, item in enumerate(self._items, 1):
            if item.source in self._hits:
                marks += self._ends(row, item.source.text, self._hits[item.source])
        if marks:
            self.text.tag_add("find", *marks)
        self._mark_hit()

    def _mark_hit(self) -> None:
        self.text.tag_remove("found", "1.0", "end")
        source, span = self._hit
        for row, item in enumerate(self._items, 1):
            if item.source is source is not None:
                self.text.tag_add("found", *self._ends(row, source.text, [span]))

    def _ends(self, row: int, text: str, spans: List[Span]) -> List[str]:
        """Where parts of a text stand that is in a row."""
        start, ends = len(self.CLOCK), [end for span in spans for end in span]
        return ["%d.%d" % (row, start + units(text[:end])) for end in ends]

    def _keep_in_view(self) -> None:
        """After a change of size: the end, or what was found."""
        if self._at_end:
            self._top = "1.0"  # lines that get shorter bring others into view above
            self.text.see("end")
        elif self.text.tag_ranges("found"):
            self.text.see("found.first + 2 display lines")  # not behind the button at the bottom
            self.text.see("found.first")

    def _on_scroll(self, first: Any, last: Any) -> None:
        first, last = float(first), float(last)
        self._scrollbar.set(first, last)
        self._notice(last)
        self._reach(first, last)
        self._scrolled()

    def _notice(self, last: float) -> None:
        """See whether somebody has scrolled: Tk tells of it only once it has drawn."""
        top = self.text.index("@0,0")
        if self._at_end and last <= 0.999 and self.text.compare(top, ">=", self._top):
            self.text.after_idle(self.text.see, "end")  # lines have changed; nobody has scrolled
        else:
            self._at_end = last > 0.999
        self._top = top

    def _reach(self, first: float, last: float) -> None:
        """Near an edge of our part: bring in what lies beyond it, or ask for more."""
        if self._is_moving:
            return
        if (first < 0.05 and self._first) or (last > 0.95 and self._last < len(self._lines)):
            self._is_moving = True
            self.text.after_idle(self._move, first < 0.05)
        elif first <= 0.0 and not self._first and self._items:
            self.text.after_idle(self._ask)

    def _ask(self) -> None:
        """Ask for more, if the first line is in view even when all is drawn."""
        if self.text.yview()[0] <= 0.0:
            self._want_older()

    def _move(self, up: bool) -> None:
        """Bring in what lies beyond the edge of our part."""
        try:
            size, count = 3 * self.PAGE, len(self._lines)
            self._at_end = False
            if up:
                self._first = max(0, self._first - self.PAGE)
                self._last = min(self._last, self._first + max(size, self.MAX_LINES))
            else:
                self._last = min(count, self._last + self.PAGE)
                self._first = max(self._first, self._last - max(size, self.MAX_LINES))
            self._update()
        finally:
            self._is_moving = False


def edits(old: Sequence[Any], new: Sequence[Any]) -> Iterator[Tuple[int, int, Sequence[Any]]]:
    """What makes `new` of `old`: at a row, remove so many and insert these; in order.

    Rows count what the edits before have done. Meant for lists that are nearly the same:
    lines come and go at the ends, and now and then one changes, comes or goes between.
    """
    row = at = 0
    while at < len(old) and row < len(new) and old[at] == new[row]:
        at, row = at + 1, row + 1
    if at < len(old) and row < len(new):  # lines have gone, or come, before all that follow
        if new[row] in old[at:]:
            gone = old.index(new[row], at) - at
            yield row, gone, ()
            at += gone
        elif old[at] in new[row:]:
            come = new.index(old[at], row)
            yield row, 0, new[row:come]
            row = come
    while at < len(old) and row < len(new):
        if old[at] == new[row]:
            at, row = at + 1, row + 1
        elif old[at + 1 : at + 2] == new[row + 1 : row + 2] != []:
            yield row, 1, new[row : row + 1]
            at, row = at + 1, row + 1
        elif row + 1 < len(new) and old[at] == new[row + 1]:
            yield row, 0, new[row : row + 1]
            row += 1
        elif at + 1 < len(old) and old[at + 1] == new[row]:
            yield row, 1, ()
            at += 1
        else:
            break
    if at < len(old) or row < len(new):
        yield row, len(old) - at, new[row:]


def units(text: str) -> int:
    """The length of a text in Tk 8.6's index units: UTF-16's."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


class Box:
    """A round box to write in, with a note at its right end.

    A Text even for one line: Tk's own entry fields damage memory when emoji are edited.
    """

    def __init__(self, parent: "tk.Misc", look: Look, style: str, font: str, pad: int) -> None:
        self._look, self._font, px = look, font, look.px
        self.frame = ttk.Frame(parent, style=style + ".TFrame", padding=(px(6), px(pad)))
        self.frame.columnconfigure(1, weight=1)
        self.text = tk.Text(self.frame, height=1, width=1, bd=0, undo=True, highlightthickness=0,
                            wrap="word", pady=px(pad))  # fmt: skip
        self.text.grid(row=0, column=1, sticky="nsew")
        self.note = ttk.Label(self.frame, style="CardMuted.TLabel")
        self.note.grid(row=0, column=2, sticky="se", padx=px(6), pady=(0, px(pad)))
        look.follow(self.text, self._restyle)
        bind_all(self.text, {
            "<FocusIn>": lambda event: self.frame.state(["focus"]),
            "<FocusOut>": lambda event: self.frame.state(["!focus"]),
            "<<Paste>>": functools.partial(self._on_paste, "CLIPBOARD"),
            "<<PasteSelection>>": functools.partial(self._on_paste, "PRIMARY"),
        })  # fmt: skip

    def get(self) -> str:
        """The text."""
        return whole(self.text.get("1.0", "end-1c"))

    def set(self, text: str) -> None:
        """Have another text in the box."""
        self.text.delete("1.0", "end")
        self.text.insert("1.0", self._look.text(text))

    def insert(self, text: str) -> None:
        """Type for the user."""
        if self.text.tag_ranges("sel"):
            self.text.delete("sel.first", "sel.last")
        self.text.insert("insert", self._look.text(text))
        self.text.see("insert")
        self.text.focus_set()

    def paste(self, text: str) -> None:
        """Take what the clipboard has."""
        self.insert(" ".join(text[:200].split()))

    def _on_paste(self, selection: str, event: "tk.Event[Any]") -> str:
        try:
            text: str = self.text.selection_get(selection=selection)  # type: ignore[no-untyped-call]
        except tk.TclError:
            return "break"  # nothing there that is text
        if selection == "PRIMARY":  # X11's: the middle button, with what is selected anywhere
            self.text.tag_remove("sel", "1.0", "end")
            self.text.mark_set("insert", "@%d,%d" % (event.x, event.y))
        self.paste(whole(text[:MAX_PASTE]).replace("\0", ""))
        return "break"

    def _restyle(self) -> None:
        color = self._look.color
        self.text.configure(bg=color["field"], fg=color["text"], insertbackground=color["text"],
                            font=self._look.font[self._font], selectbackground=color["selection"],
                            selectforeground=color["text"],
                            inactiveselectbackground=color["selection"])  # fmt: skip


class Composer(Box):
    """The chat box: Enter hands the text over, Shift+Enter begins a line.

    A text that `submit` refuses, by returning False, stays.
    """

    def __init__(
        self, parent: "tk.Misc", look: Look, submit: Callable[[str], bool],
        complete: Callable[[str, int, int], Optional[Tuple[str, int]]],
        may_keep: Callable[[str], bool],
    ) -> None:  # fmt: skip
        self._submit, self._complete = submit, complete
        self._may_keep = may_keep  # in the history
        self._hint_text = ""
        self.history: List[str] = []  # what was sent, for Up and Down
        self._at = 0  # the place in the history; its length while writing something new
        self._unfinished = ""  # what was being written before Up
        self.limit = 2000  # characters
        self.confirm_paste: Callable[[int, Callable[[], None]], bool] = lambda lines, go: False
        super().__init__(parent, look, "ChatField", "chat", 6)
        self.text.configure(padx=look.px(10))
        self._hint = tk.Label(self.text, bd=0, padx=0, cursor="xterm", anchor="w")
        look.follow(self._hint, self._restyle_hint)
        self._button = icon_button(
            self.frame, look, "send", "IconField", self._on_send, "Send", "focus"
        )
        self._button.configure(takefocus=0)
        self._button.grid(row=0, column=3, rowspan=2, sticky="s")
        self.note.grid(row=1, column=1, columnspan=2)  # below: no line gets shorter for it
        for kind in ("Button", "ButtonRelease"):  # the mouse goes through it
            for number in (1, 2, 3):
                sequence = "<%s-%d>" % (kind, number)
                self._hint.bind(sequence, functools.partial(self._pass_on, sequence))
        bind_all(self.text, {
            "<Return>": self._on_send, "<KP_Enter>": self._on_send,
            "<Shift-Return>": lambda event: None,
            "<Tab>": lambda event: self._on_tab(1),
            "<<PrevWindow>>": lambda event: self._on_tab(-1),  # Shift+Tab: X11 has a name for it
            "<Up>": lambda event: self._on_arrow(-1), "<Down>": lambda event: self._on_arrow(1),
            "<<Modified>>": self._on_modified, "<Configure>": lambda event: self._grow(),
        })  # fmt: skip
        self._on_modified()

    def set_hint(self, hint: str) -> None:
        """What the empty box says."""
        if hint != self._hint_text:
            self._hint_text = hint
            self._hint.configure(text=self._look.text(hint))

    def set(self, text: str) -> None:
        """Have another text in the box."""
        if text != self.get():
            super().set(text)
            self.text.edit_reset()
            self._on_modified()
        self._at = len(self.history)

    def paste(self, text: str) -> None:
        """Take all lines, once the user has agreed to many."""
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        if not self.confirm_paste(text.count("\n") + 1, lambda: self.insert(text)):
            self.insert(text)

    def _pass_on(self, sequence: str, event: "tk.Event[Any]") -> None:
        self.text.event_generate(sequence, x=event.x, y=event.y, rootx=event.x_root,
                                 rooty=event.y_root)  # fmt: skip

    def _restyle_hint(self) -> None:
        color = self._look.color
        self._hint.configure(bg=color["field"], fg=color["muted"], font=self._look.font["chat"])

    def _on_send(self, event: "Optional[tk.Event[Any]]" = None) -> str:
        text = self.get()
        if len(text) > self.limit:
            self.text.bell()
        elif self._submit(text):
            if text.strip() and text not in self.history[-1:] and self._may_keep(text):
                self.history.append(text)
            self.set("")
        return "break"

    def _on_tab(self, step: int) -> str:
        """Complete what stands before the cursor; Tab again goes on to the next way to do it."""
        cursor = len(whole(self.text.get("1.0", "insert")))
        completed = self._complete(self.get(), cursor, step)
        if completed is not None:
            self.set(completed[0])
            self.text.mark_set("insert", "1.0 + %d indices" % units(completed[0][: completed[1]]))
            self.text.see("insert")
        elif not self.get().strip():
            other = self.text.tk_focusNext() if step > 0 else self.text.tk_focusPrev()
            if other is not None:
                other.focus_set()
        return "break"

    def _on_arrow(self, step: int) -> Optional[str]:
        """Go through what was sent, from the first or the last row of the box."""
        edge = "1.0" if step < 0 else "end-1c"
        rows = self.text.count("insert", edge, "displaylines")
        if rows and (rows[0] if isinstance(rows, tuple) else rows):
            return None
        if not 0 <= self._at + step <= len(self.history):
            return "break"
        if self._at == len(self.history):
            self._unfinished = self.get()
        at = self._at + step
        self.set(self.history[at] if at < len(self.history) else self._unfinished)
        self._at = at
        return "break"

    def _on_modified(self, event: "Optional[tk.Event[Any]]" = None) -> None:
        length = units(self.text.get("1.0", "end-1c"))
        if length:
            self._hint.place_forget()
        else:
            self._hint.place(x=self._look.px(3), y=0, relwidth=0.95)
        if length >= 0.9 * self.limit:
            is_over = len(self.get()) > self.limit
            self.note.configure(
                text="{:,} / {:,}".format(len(self.get()), self.limit),
                style="CardError.TLabel" if is_over else "CardMuted.TLabel",
            )
            self.note.grid()
            self.frame.state(["invalid" if is_over else "!invalid"])
        else:
            self.note.grid_remove()
            self.frame.state(["!invalid"])
        self.text.edit_modified(False)
        self.text.after_idle(self._grow)

    def _grow(self) -> None:
        if not self.text.winfo_exists():
            return
        rows = self.text.count("1.0", "end", "displaylines") or 1
        rows = rows[0] if isinstance(rows, tuple) else rows
        height = max(1, min(MAX_ROWS, rows))
        if int(self.text.cget("height")) != height:
            self.text.configure(height=height)


def whole(text: str) -> str:
    """What Tk gives, with the halves of characters joined: ready for the network."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class Field(Box):
    """A line to write in, in the place of Tk's entry field."""

    def __init__(self, parent: "tk.Misc", look: Look, style: str, changed: Callable[[], object],
                 icon: str = "") -> None:  # fmt: skip
        super().__init__(parent, look, style, "ui", 5)
        self.text.configure(wrap="none", padx=look.px(6))
        if icon:
            label = ttk.Label(self.frame, style="Card.TLabel")
            look.follow(label, lambda: label.configure(image=look.icon(icon, "muted", 16)))
            label.grid(row=0, column=0, padx=(look.px(5), 0))
        bind_all(self.text, {
            "<<Modified>>": lambda event: self._on_modified(changed),
            "<Tab>": lambda event: self._leave(self.text.tk_focusNext()),
            "<<PrevWindow>>": lambda event: self._leave(self.text.tk_focusPrev()),
        })  # fmt: skip

    def get(self) -> str:
        """The text, without blanks at its ends."""
        return super().get().strip()

    def set(self, text: str) -> None:
        """Have another text, all of it selected."""
        super().set(text)
        self.text.tag_add("sel", "1.0", "end-1c")

    def focus(self) -> None:
        """Have the keys, and all of the text selected."""
        self.text.focus_set()
        self.text.tag_add("sel", "1.0", "end-1c")

    def _leave(self, other: "Optional[tk.Misc]") -> str:
        if other is not None:
            other.focus_set()
        return "break"

    def _on_modified(self, changed: Callable[[], object]) -> None:
        if self.text.edit_modified():
            self.text.edit_modified(False)
            changed()


class Sheet:
    """A question inside the window: words, a field and a list where wanted, and buttons.

    `offer` gives the rows for what stands in the field; `choose` takes a row's key.
    """

    def __init__(
        self, parent: "tk.Misc", look: Look, title: str, text: str = "",
        buttons: Sequence[Tuple[str, Callable[[], object]]] = (),
        offer: Optional[Callable[[str], List[Row]]] = None,
        choose: Callable[[Any], object] = lambda key: None, has_field: bool = True,
        closed: Callable[[], object] = lambda: None, width: int = 420,
    ) -> None:  # fmt: skip
        px = look.px
        self._look, self._width, self._offer, self._closed = look, width, offer, closed
        self.frame = frame = ttk.Frame(parent, style="Sheet.TFrame", padding=px(20))
        frame.columnconfigure(0, weight=1)
        self._title = ttk.Label(frame, style="CardStrong.TLabel", text=look.text(title))
        self._title.grid(row=0, sticky="w", pady=(0, px(8)))
        self.text = ttk.Label(frame, style="Card.TLabel", text=look.text(text), justify="left")
        if text:
            self.text.grid(row=1, sticky="w", pady=(0, px(12)))
        self.field: Optional[Field] = None
        self.list: Optional[RowList] = None
        if offer is not None:
            self.list = RowList(frame, look, "field", 36, lambda key: self._choose(choose, key))
            self.list.frame.grid(row=3, sticky="nsew")
            frame.rowconfigure(3, weight=1)
            if has_field:
                self.field = Field(frame, look, "CardField", self._refresh)
                self.field.frame.grid(row=2, sticky="ew", pady=(0, px(8)))
                bind_all(self.field.text, {
                    "<Up>": lambda event: self._move(-1), "<Down>": lambda event: self._move(1),
                    "<Return>": self._on_return, "<KP_Enter>": self._on_return,
                })  # fmt: skip
        row = ttk.Frame(frame, style="Inner.TFrame")
        row.grid(row=4, sticky="e", pady=(px(12), 0))
        self.buttons = []
        for index, (label, command) in enumerate(buttons):
            style = "AccentCard.TButton" if index == len(buttons) - 1 else "PlainCard.TButton"
            press = functools.partial(self._press, command)
            button = ttk.Button(row, text=label, style=style, command=press)
            button.bind("<Return>", press)
            button.pack(side="left", padx=(px(8), 0))
            self.buttons.append(button)
        stops: List[tk.Misc] = [*self.buttons]  # what Tab goes through: nothing outside
        if self.list is not None:
            stops.insert(0, self.list.canvas)
        if self.field is not None:
            stops.insert(0, self.field.text)
        for stop, after, before in zip(stops, [*stops[1:], stops[0]], [stops[-1], *stops]):
            stop.bind("<Tab>", functools.partial(self._walk, after))
            stop.bind("<<PrevWindow>>", functools.partial(self._walk, before))
        look.follow(frame, self.fit)
        frame.lift()
        self._refresh()
        stops[0 if self.list is not None else -1].focus_set()

    def fit(self) -> None:
        """Be as large as it wants to be, and as the window allows."""
        look, parent = self._look, self.frame.master
        width = min(look.dp(self._width), parent.winfo_width() - look.px(20))
        self.text.configure(wraplength=width - look.px(40))
        self.frame.place(relx=0.5, rely=0.5, anchor="center", width=width)
        if self.list is not None:
            self.frame.place(height=min(look.dp(480), parent.winfo_height() - look.px(20)))

    def close(self) -> None:
        """Take it away. Idempotent."""
        if self.frame.winfo_exists():
            self.frame.destroy()
            self._closed()

    def _refresh(self) -> None:
        if self._offer is not None and self.list is not None:
            rows = self._offer(self.field.get() if self.field else "")
            keys = [row.key for row in rows if row.key is not None]
            self.list.show(rows, keys[0] if keys and self.field else None)

    def _move(self, step: int) -> str:
        if self.list is not None:
            self.list.move(step)
            self.list.select(self.list.cursor)
        return "break"

    def _walk(self, to: "tk.Misc", event: "tk.Event[Any]") -> str:
        to.focus_set()
        return "break"

    def _on_return(self, event: "tk.Event[Any]") -> str:
        if self.list is not None:
            self.list.enter()
        return "break"

    def _choose(self, choose: Callable[[Any], object], key: Any) -> None:
        self.close()
        choose(key)

    def _press(
        self, command: Callable[[], object], event: "Optional[tk.Event[Any]]" = None
    ) -> None:
        self.close()
        command()


# The views: they show what Chat says, and hand on what is done


class Search:
    """A bar in which one writes what is looked for, and goes from one place to the next.

    `conversation` gives the one in view, which the transcript shows; `closed` is called when
    the bar goes.
    """

    DELAY_MS = 100  # more may be typed

    def __init__(
        self, parent: "tk.Misc", look: Look, transcript: Transcript,
        conversation: Callable[[], Optional[Conversation]], closed: Callable[[], object],
    ) -> None:  # fmt: skip
        px = look.px
        self._transcript, self._conversation, self._closed = transcript, conversation, closed
        self._spans: Dict[Entry, List[Span]] = {}  # what was found
        self._hits: List[Tuple[Entry, Span]] = []  # the same, one by one
        self._at = 0  # the one that one is at
        self._due = ""  # the id of a search that is due
        self.frame = ttk.Frame(parent, style="Chat.TFrame", padding=(px(16), px(8)))
        self.frame.columnconfigure(0, weight=1)
        self.field = Field(self.frame, look, "ChatField", self._look_soon, "search")
        self.field.frame.grid(row=0, column=0, sticky="ew", padx=(0, px(6)))
        for column, (icon, command, tip) in enumerate((
            ("up", lambda: self.step(-1), "Previous (Shift+Enter)"),
            ("down", lambda: self.step(1), "Next (Enter)"),
            ("close", self.close, "Close (Esc)"),
        ), 1):  # fmt: skip
            button = icon_button(self.frame, look, icon, "Icon", command, tip, size=16)
            button.grid(row=0, column=column)
        bind_all(self.field.text, {
            "<Return>": lambda event: self.step(1), "<KP_Enter>": lambda event: self.step(1),
            "<Shift-Return>": lambda event: self.step(-1),
        })  # fmt: skip

    @property
    def is_open(self) -> bool:
        """Whether it is in view."""
        return bool(self.frame.winfo_manager())

    def open(self) -> None:
        """Show it, or go back to it."""
        self.frame.grid()
        self.field.focus()
        self.look()

    def close(self) -> None:
        """Put it away. Idempotent."""
        if self.is_open:
            self._cancel()
            self.frame.grid_remove()
            self._transcript.find({})
            self._closed()

    def look(self) -> None:
        """Look for what the field says now, from the end."""
        self._cancel()
        words, conversation = self.field.get(), self._conversation()
        self._spans = conversation.find(words) if words and conversation is not None else {}
        self._hits = [(entry, span) for entry, spans in self._spans.items() for span in spans]
        self._at = len(self._hits) - 1
        self._show()

    def step(self, step: int) -> str:
        """Go to the next place, or to the previous."""
        if not self.is_open:
            self.open()
        elif self._due:
            self.look()
        elif self._hits:
            self._at = (self._at + step) % len(self._hits)
            self._show()
        return "break"

    def _look_soon(self) -> None:
        self._cancel()
        self._due = self.frame.after(self.DELAY_MS, self.look)

    def _cancel(self) -> None:
        if self._due:
            self.frame.after_cancel(self._due)
            self._due = ""

    def _show(self) -> None:
        conversation = self._conversation()
        if not self._hits or conversation is None:
            words = self.field.get()
            self._say("No matches" if words else "", bool(words))
            self._transcript.find({})
            return
        self._say("%d of %d" % (self._at + 1, len(self._hits)), False)
        entry, span = self._hits[self._at]
        with contextlib.suppress(ValueError):  # it has gone since
            self._transcript.show(conversation.entries, conversation.entries.index(entry))
        self._transcript.find(self._spans, (entry, span))

    def _say(self, text: str, is_wrong: bool) -> None:
        self.field.note.configure(text=text)
        self.field.frame.state(["invalid" if is_wrong else "!invalid"])


class ConnectView:
    """Asks who the user is and where the server runs, and says what went wrong."""

    HINTS = {
        NAME: "Up to %d letters, digits, - or _" % protocol.MAX_NAME,
        SERVER: "The address that the server's console shows",
        PASSWORD: "The host can tell you",
    }
    SIZE, LEAST = (460, 600), (460, 520)  # of the window, at first and at least

    def __init__(
        self, root: "tk.Tk", look: Look, connect: Callable[[str, str, str], None],
        cancel: Callable[[], None],
    ) -> None:  # fmt: skip
        px = look.px
        self._look, self._connect, self._cancel = look, connect, cancel
        self._connecting = False
        self._servers: List[str] = []
        self.frame = ttk.Frame(root, style="Bg.TFrame", padding=(px(32), px(28), px(32), px(20)))
        self._body = body = ttk.Frame(self.frame, style="Bg.TFrame")
        body.columnconfigure(0, weight=1)
        body.grid(column=1, sticky="nsew")  # in the middle of a wide window
        self.frame.columnconfigure((0, 2), weight=1)
        self.frame.rowconfigure(0, weight=1)
        look.follow(body, lambda: self.frame.columnconfigure(1, minsize=look.dp(396)))
        self._head = Drawing(body, look, "bg", 54, self._draw_head)
        self._head.canvas.grid(sticky="ew", pady=(0, px(24)))
        accept = root.register(self._on_edit)
        self.fields: Dict[str, ttk.Entry] = {}
        self.hints: Dict[str, ttk.Label] = {}
        self._parts: Dict[str, List[Any]] = {}
        for field, caption in ((NAME, "Your name"), (PASSWORD, "Password")):
            self._add_field(field, caption, accept)
        title = ttk.Label(body, text="Servers", style="Strong.TLabel")
        title.grid(sticky="w", pady=(px(6), px(6)))
        card = ttk.Frame(body, style="Card.TFrame", padding=px(6))
        card.columnconfigure(0, weight=1)
        card.rowconfigure(0, weight=1)
        self.list = RowList(card, look, "field", 60, self._on_choose)
        self.list.frame.grid(sticky="nsew")
        self._nothing = ttk.Frame(card, style="Inner.TFrame")
        hint = "Ask someone to start the server,\nand for the address that its console shows."
        for style, words in (("CardTitle", "No servers yet"), ("CardMuted", hint)):
            label = ttk.Label(self._nothing, text=words, style=style + ".TLabel", justify="center")
            label.pack(pady=(0, px(8)))
        card.grid(sticky="nsew", pady=(0, px(8)))
        body.rowconfigure(int(card.grid_info()["row"]), weight=1)
        self.other = ttk.Button(body, text="Other server…", style="Link.TButton",
                                command=self._on_other)  # fmt: skip
        self.other.grid(sticky="e")
        self._add_field(SERVER, "Address", accept)
        self.button = ttk.Button(body, style="Accent.TButton", command=self.submit)
        self.button.grid(sticky="ew", pady=(px(12), px(10)))
        keys = "Enter to connect   ·   Esc to quit"
        ttk.Label(body, text=keys, style="Muted.TLabel").grid()
        for field in (PASSWORD, SERVER):  # now that all rows are taken
            self._show_field(field, False)
        for entry in self.fields.values():
            bind_all(entry, {
                "<Return>": lambda event: self.submit(), "<KP_Enter>": lambda event: self.submit(),
                "<Down>": lambda event: self.list.canvas.focus_set(),
            })  # fmt: skip
        self.button.bind("<Return>", lambda event: self.submit())

    def _add_field(self, field: str, caption: str, accept: str) -> None:
        px = self._look.px
        label = ttk.Label(self._body, text=caption, style="Strong.TLabel")
        entry = ttk.Entry(self._body, style="Field.TEntry", validate="key",
                          validatecommand=(accept, "%P"))  # fmt: skip
        self._look.follow(entry, lambda: entry.configure(font=self._look.font["chat"]))
        if field == PASSWORD:
            entry.configure(show="•")
        hint = ttk.Label(self._body, style="Muted.TLabel")
        self._look.follow(hint, lambda: hint.configure(wraplength=self._look.dp(390)))
        label.grid(sticky="w")
        entry.grid(sticky="ew", pady=(px(6), px(5)))
        hint.grid(sticky="w", pady=(0, px(14)))
        self.fields[field], self.hints[field] = entry, hint
        self._parts[field] = [label, entry, hint]

    def _show_field(self, field: str, is_shown: bool) -> None:
        for part in self._parts[field]:
            if is_shown:
                part.grid()
            else:
                part.grid_remove()
        if field == SERVER:  # and what shows it goes
            (self.other.grid_remove if is_shown else self.other.grid)()

    def _draw_head(self, canvas: "tk.Canvas", width: int) -> None:
        look, size = self._look, self._look.dp(52)
        canvas.create_image(0, 0, image=look.logo(size), anchor="nw")
        left = size + look.px(14)
        words = "Join the chat", "Pick a name and a server on your network."
        look.write(canvas, left, size // 2 - look.dp(11), words[0], "text", "title", width - left)
        look.write(canvas, left, size // 2 + look.dp(15), words[1], "muted", "ui", width - left)

    def fill(self, name: str, servers: Sequence[str], server: str) -> None:
        """Set the name, the servers to choose from, and the one that is chosen."""
        self._servers = list(servers)
        self._write(NAME, name)
        self._write(SERVER, server)
        self._show_field(SERVER, server not in servers)
        self._refresh()

    def _on_edit(self, text: str) -> bool:
        """Whether a field may say this: Tk's entry fields cannot take emoji, and need none here."""
        self.frame.after_idle(self._refresh)
        return max(text, default="") <= "\uffff"

    def _write(self, field: str, text: str) -> None:
        self.fields[field].delete(0, "end")
        self.fields[field].insert(0, text)

    def say(self, field: str, fault: str) -> None:
        """Ready for another try: mark what is wrong with a field ("" for none)."""
        self.set_connecting("")
        if field:
            self._show_field(field, True)
        for name, entry in self.fields.items():
            wrong = name == field
            entry.state(["invalid" if wrong else "!invalid"])
            hint = self._look.text(fault if wrong else self.HINTS[name])
            self.hints[name].configure(text=hint, style="Error.TLabel" if wrong else "Muted.TLabel")
        entry = self.fields[field or NAME]
        entry.focus_set()
        entry.selection_range(0, "end")
        entry.icursor("end")

    def set_connecting(self, server: str) -> None:
        """Show that a connection to `server` is under way; "" shows that none is."""
        self._connecting = bool(server)
        for entry in self.fields.values():
            entry.state(["disabled" if server else "!disabled"])
        self._refresh()
        if server:
            self.button.configure(text="Connecting to %s…   (Esc to cancel)" % server)
            self.button.focus_set()

    def submit(self) -> None:
        """Connect with what the fields say, or call off what is under way."""
        if self._connecting:
            return self._cancel()
        values = (self.fields[field].get().strip() for field in (NAME, SERVER, PASSWORD))
        return self._connect(*values)

    def _refresh(self) -> None:
        server = self.fields[SERVER].get().strip()
        rows = []
        for known in self._servers:
            is_own = known.partition(":")[0] in ("127.0.0.1", "localhost")
            detail = "This computer" if is_own else "You were there before"
            icon = "check" if known == server else ""
            rows.append(Row(known, known, detail=detail, dot="offline", is_bold=True, icon=icon))
        self.list.show(rows, server if server in self._servers else None)
        if rows:
            self._nothing.place_forget()
        else:
            self._nothing.place(relx=0.5, rely=0.5, anchor="center")
        if not self._connecting:
            self.button.configure(text="Connect to %s" % server if server else "Connect")
        self.button.state(["!disabled" if server else "disabled"])

    def _on_choose(self, server: str) -> None:
        is_sure = (
            server == self.fields[SERVER].get() and self.list.canvas.focus_get() is self.list.canvas
        )
        self._write(SERVER, server)
        self._show_field(SERVER, False)
        if is_sure:
            self.submit()

    def _on_other(self) -> None:
        self._write(SERVER, "")
        self._show_field(SERVER, True)
        self.fields[SERVER].focus_set()


def lay_out(entries: Sequence[Entry], first_unread: int, new_count: int, today: str) -> List[Item]:
    """The items of a conversation: what was said, the days, and where the new begins."""
    items: List[Item] = []
    crowd: List[Entry] = []  # those who did the same, one after the other
    day, quarter = "", 0.0  # no zone's midnight lies within a quarter of an hour of its clock
    for entry in entries:
        if entry.line.when // 900 != quarter:
            quarter = entry.line.when // 900
            if entry.day != day:
                day, crowd = entry.day, []
                items.append(Item(None, ("day", day_name(day, today))))
        if entry.id == first_unread and new_count:
            crowd = []
            text = "%d new message%s" % (new_count, "" if new_count == 1 else "s")
            items.append(Item(None, ("new", "─────  %s  ─────" % text)))
        if crowd and entry.did and entry.did == crowd[0].did:
            crowd.append(entry)
        else:
            crowd = [entry]
        line = entry.line
        if len(crowd) >= CROWD:
            del items[-1 if len(crowd) > CROWD else 1 - CROWD :]
            line = line._replace(text="%d people %s" % (len(crowd), entry.did))
        items.append(Item(crowd[0], (line, entry.state, entry.note, entry.is_mention)))
    return items


def day_name(day: str, today: str) -> str:
    """A day in words."""
    if day == today:
        return "Today"
    then = datetime.datetime.strptime(day, "%Y-%m-%d")
    if (datetime.datetime.strptime(today, "%Y-%m-%d") - then).days == 1:
        return "Yesterday"
    name = "%s %d %s" % (then.strftime("%A"), then.day, then.strftime("%B"))
    return name if day[:4] == today[:4] else "%s %d" % (name, then.year)


def render(item: Item, me: str, text: Callable[[str], str]) -> List[Piece]:
    """The pieces of an item, in the tags of a Transcript; `text` makes it fit for Tk."""
    if item.source is None:
        return [(item.face[1] + "\n", (item.face[0],))]
    line, state, note, is_mention = item.face
    base = ("line", "mention") if is_mention else ("line",)
    kind = {WAITING: "muted", FAILED: "error", FROM_SYSTEM: "warn"}
    tags = (*base, kind.get(state, kind.get(line.kind, line.kind)))
    pieces: List[Piece] = [(line.clock + " ", (*base, "time"))]
    pieces.append((text(line.head), (*tags, "name")))
    name = re.compile("(@?%s)" % re.escape(me), re.IGNORECASE) if is_mention and me else None

    def say(words: str) -> None:
        parts = name.split(words) if name else [words]
        for index, part in enumerate(parts):  # every second one is the name
            pieces.append((text(part), (*tags, "name") if index % 2 else tags))

    said, end = " " + line.text, 0
    for start, stop in find_links(said):
        say(said[end:start])
        pieces.append((text(said[start:stop]), (*tags, "link", "hand")))
        end = stop
    say(said[end:])
    if note:
        pieces.append((text("  (%s)" % note), (*base, "muted")))
    if state == FAILED:
        hand = (*base, "link", "hand")
        pieces += [("   ", base), ("Try again", (*hand, "retry"))]
        pieces += [("  ·  ", (*base, "muted")), ("Discard", (*hand, "drop"))]
    return [*pieces, ("\n", base)]


class Conversations(Column):
    """The server, the conversations on it, and oneself."""

    def __init__(self, parent: "tk.Misc", look: Look, window: "Window") -> None:
        px = look.px
        super().__init__(parent, look, "left", 232)
        self._window = window
        self._head = self.add_head(self._draw_server)
        self.list = RowList(self.frame, look, "bg", 36, window.on_choose_row,
                            window.on_conversation_menu)  # fmt: skip
        foot = ttk.Frame(self.frame, style="Bg.TFrame")
        foot.pack(side="bottom", fill="x")
        ttk.Frame(foot, style="Line.TFrame", height=px(1)).pack(fill="x")
        theme = ttk.Button(foot, style="IconBg.TButton", command=window.on_theme)
        look.follow(theme, lambda: theme.configure(
            image=look.icon("sun" if look.theme == "dark" else "moon")))  # fmt: skip
        Tip(theme, look, "Light or dark (%s+T)" % look.control.replace("Control", "Ctrl"))
        theme.pack(side="right", padx=(0, px(12)))
        self.me = Drawing(foot, look, "bg", 54, self._draw_me)
        self.me.canvas.pack(side="left", fill="x", expand=True)
        self.me.canvas.bind("<Button-1>", lambda event: window.on_own_menu(*menu_place(event)))
        self.list.frame.pack(fill="both", expand=True, pady=(px(4), px(8)))

    def tell(self) -> None:
        """Say what the chat knows."""
        chat = self._window.chat
        self._head.redraw()
        self.me.redraw()
        self.list.show(self._rows(chat), chat.current)

    def _draw_server(self, canvas: "tk.Canvas", width: int) -> None:
        look, dp, chat = self._look, self._look.dp, self._window.chat
        canvas.create_image(look.px(16), dp(30), image=look.logo(dp(30)), anchor="w")
        left = look.px(16) + dp(40)
        look.write(canvas, left, dp(21), chat.server, "text", "ui_bold", width - left - dp(8))
        color = {CONNECTED: "ok", DISCONNECTED: "error"}.get(chat.state, "away")
        canvas.create_image(left, dp(38), image=look.box(dp(8), dp(8), dp(4), color), anchor="w")
        look.write(canvas, left + dp(13), dp(38), chat.status, "muted", "small")

    def _draw_me(self, canvas: "tk.Canvas", width: int) -> None:
        look, dp, chat = self._look, self._look.dp, self._window.chat
        draw_avatar(canvas, look, chat.nickname, look.px(14), dp(27), 32)
        left = look.px(14) + dp(42)
        look.write(canvas, left, dp(19), chat.nickname, "text", "ui_bold", width - left)
        status = "Offline" if chat.state != CONNECTED else "Away" if chat.is_away else "Available"
        look.write(canvas, left, dp(36), status, "muted", "small", width - left)

    def _rows(self, chat: Chat) -> List[Row]:
        rows = []
        for caption, kinds in (("ROOMS", (ROOM, CONSOLE)), ("PRIVATE", (PRIVATE,))):
            rows.append(Row(caption, caption, is_caption=True, icon="plus"))
            for conversation in chat.conversations:
                if conversation.kind in kinds:
                    rows.append(self._row(chat, conversation))
        return rows

    def _row(self, chat: Chat, conversation: Conversation) -> Row:
        unread = conversation.unread
        is_muted = conversation.level == NONE
        is_bright = conversation is chat.current or (unread and not is_muted)
        dots = {ONLINE: "ok", AWAY: "away", OFFLINE: "offline"}
        return Row(
            conversation.title, conversation, is_bold=bool(unread and not is_muted),
            sign="" if conversation.kind == PRIVATE else "#" if conversation.kind == ROOM else "·",
            dot=dots[chat.presence(conversation.name)] if conversation.kind == PRIVATE else "",
            color="text" if is_bright else "muted",
            badge="" if not unread or is_muted else str(unread) if unread < 100 else "99+",
            badge_color="mention_badge" if conversation.mentions else "badge",
        )  # fmt: skip


class People(Column):
    """Who takes part in the conversation in view."""

    def __init__(self, parent: "tk.Misc", look: Look, window: "Window") -> None:
        super().__init__(parent, look, "right", 200)
        self._window = window
        self._of: Optional[Conversation] = None  # they stay while the connection is lost
        self.list = RowList(self.frame, look, "bg", 38, window.on_person, window.on_person_menu)
        self._head = self.add_head(self._draw_count)
        self.list.frame.pack(fill="both", expand=True, pady=(look.px(4), look.px(8)))

    def tell(self) -> None:
        """Say what the chat knows."""
        chat = self._window.chat
        if chat.state == CONNECTED or chat.current is not self._of:
            self._of = chat.current
            self.list.show(self._rows(chat))
            self._head.redraw()

    def _draw_count(self, canvas: "tk.Canvas", width: int) -> None:
        look, left, middle = self._look, self._look.px(16), self._look.dp(30)
        left += look.write(canvas, left, middle, "People", "text", "ui_bold") + look.dp(8)
        count = len([row for row in self.list.rows if row.key is not None])
        look.write(canvas, left, middle, str(count), "muted", "ui")

    def _people(self, chat: Chat) -> Sequence[Person]:
        """Who takes part in the conversation in view."""
        here = chat.current
        if here.kind != PRIVATE:
            return here.people
        presence = chat.presence(here.name)
        other = [] if presence == OFFLINE else [Person(here.name, "", presence == AWAY)]
        return [Person(chat.nickname, "", chat.is_away), *other]

    def _rows(self, chat: Chat) -> List[Row]:
        rows: List[Row] = []
        people = self._people(chat)
        for caption, is_away in (("ONLINE", False), ("AWAY", True)):
            group = [person for person in people if person.is_away == is_away]
            if group:
                rows.append(Row("%s — %d" % (caption, len(group)), is_caption=True))
            for name, prefix, _ in group:
                is_me = name == chat.nickname
                color = FROM_ME if is_me else "muted" if is_away else "text"
                note = "you" if is_me else "host" if prefix == "@" else ""
                rows.append(Row(name, name, avatar=name, dot="away" if is_away else "ok",
                                color=color, note=note))  # fmt: skip
        return rows


class BannerBar:
    """What is wrong with the connection, and a button against it; away while nothing is."""

    def __init__(self, parent: "tk.Misc", look: Look, retry: Callable[[], object]) -> None:
        px = look.px
        self._look, self._icon = look, "warn"
        self.frame = ttk.Frame(parent, style="Banner.TFrame",
                               padding=(px(20), px(6), px(14), px(6)))  # fmt: skip
        self.text = ttk.Label(self.frame, style="Banner.TLabel", compound="left",
                              padding=(0, px(5)))  # fmt: skip
        look.follow(self.text, self._show_icon)
        self.button = ttk.Button(self.frame, text="Try now", style="Banner.TButton", command=retry)
        self.text.pack(side="left", fill="x")
        self.frame.bind("<Configure>", lambda event: self.text.configure(
            wraplength=max(1, event.width - px(170))))  # fmt: skip

    def show(self, banner: Banner, is_well: bool) -> None:
        """Say something; nothing hides it."""
        self._icon = "check" if is_well else "warn"
        self._show_icon()
        self.text.configure(text="  " + self._look.text(banner.text))
        self.button.pack_forget()
        if banner.can_retry:
            self.button.pack(side="right", before=self.text)
        (self.frame.grid if banner.text else self.frame.grid_remove)()

    def _show_icon(self) -> None:
        self.text.configure(image=self._look.icon(self._icon, "banner_text"))


class ChatView:
    """The conversation in view with its chat box; the conversations and the people beside it.

    What is done in it calls the methods of `window` whose names begin with `on_`.
    """

    SIZE, LEAST = (1160, 720), (480, 360)  # of the window, at first and at least
    NARROW, NARROWEST = 900, 680  # below: no people; no sidebar either (in dp)

    def __init__(self, root: "tk.Tk", look: Look, window: "Window") -> None:
        px = look.px
        self._look, self._window = look, window
        self._width = 0  # in pixels
        self._shown: Tuple[bool, ...] = ()  # what is beside the chat: at the left, at the right
        self._wants_people = True
        self._unseen = 0  # lines that came below what is in view
        self.frame = ttk.Frame(root, style="Chat.TFrame")
        self.frame.columnconfigure(1, weight=1)
        self.frame.rowconfigure(0, weight=1)
        self.frame.bind("<Configure>", self._on_resize)
        self.side = Conversations(self.frame, look, window)
        middle = ttk.Frame(self.frame, style="Chat.TFrame")
        middle.columnconfigure(0, weight=1)
        middle.rowconfigure(4, weight=1)
        middle.grid(row=0, column=1, sticky="nsew")
        self._make_head(middle).grid(row=0, sticky="ew")
        ttk.Frame(middle, style="Line.TFrame", height=px(1)).grid(row=1, sticky="ew")
        self.banner = BannerBar(middle, look, window.on_retry)
        self.banner.frame.grid(row=2, sticky="ew")
        self.transcript = Transcript(middle, look, window.lay_out, window.render,
                                     window.on_top, self._show_pill)  # fmt: skip
        self.transcript.frame.grid(row=4, sticky="nsew")
        self.transcript.empty.configure(text="No messages here yet. Say hello.")
        self.pill = ttk.Button(self.transcript.frame, style="Pill.TButton", compound="left",
                               takefocus=0, command=window.on_jump)  # fmt: skip
        look.follow(
            self.pill, lambda: self.pill.configure(image=look.icon("down", "on_accent", 14))
        )
        self.search = Search(middle, look, self.transcript, window.conversation_in_view,
                             window.focus_composer)  # fmt: skip
        self.search.frame.grid(row=3, sticky="ew")
        self.composer = Composer(
            middle, look, window.on_submit, window.on_complete, window.may_keep
        )
        self.composer.frame.grid(row=5, sticky="ew", padx=px(16), pady=(px(4), px(14)))
        self.aside = People(self.frame, look, window)
        for bar in (self.banner.frame, self.search.frame):
            bar.grid_remove()
        look.follow(self.frame, self._lay_out)

    def _make_head(self, parent: "tk.Misc") -> "ttk.Frame":
        look, px, window = self._look, self._look.px, self._window
        head = ttk.Frame(parent, style="Chat.TFrame")
        head.columnconfigure(1, weight=1)
        self.menu_button = icon_button(
            head, look, "menu", "Icon", self.toggle_side, "Conversations"
        )
        look.follow(self.menu_button, self._show_menu_button)
        self.menu_button.grid(row=0, column=0, padx=(px(10), 0))
        self.room = Drawing(head, look, "chat", 60, self._draw_room)
        self.room.canvas.grid(row=0, column=1, sticky="ew")
        self.room.canvas.bind("<Button-1>", lambda event: window.on_topic())
        search = icon_button(head, look, "search", "Icon", lambda: self.search.open(),
                             "Search (Ctrl+F)")  # fmt: skip
        search.grid(row=0, column=2)
        people = icon_button(head, look, "person", "Icon", self.toggle_people, "People")
        people.grid(row=0, column=3, padx=(px(2), px(13)))
        return head

    def tell(self, with_people: bool) -> None:
        """Make all but the transcript and the banner say what the chat knows."""
        chat = self._window.chat
        self.room.redraw()
        self.side.tell()
        if with_people or chat.current.kind == PRIVATE:
            self.aside.tell()
        self.composer.set_hint(chat.hint)
        self._show_menu_button()

    def _draw_room(self, canvas: "tk.Canvas", width: int) -> None:
        look, dp, chat = self._look, self._look.dp, self._window.chat
        conversation = chat.current
        left = look.px(6 if self.menu_button.winfo_manager() else 20)
        sign = "# " if conversation.kind == ROOM else ""
        look.write(canvas, left, dp(21), sign + conversation.title, "text", "room", width - left)
        topic = conversation.topic
        if not topic and conversation.kind == ROOM:
            topic = "No topic. Set one with /topic"
        elif conversation.kind == PRIVATE:
            words = {ONLINE: "Online", AWAY: "Away", OFFLINE: "Not here"}
            topic = "Private · %s" % words[chat.presence(conversation.name)]
        look.write(canvas, left, dp(41), topic, "muted", "small", width - left)

    def count_unseen(self, new: int) -> None:
        """So many lines came below what is in view."""
        self._unseen += new
        self._show_pill()

    def _show_pill(self) -> None:
        if self.transcript.at_end:
            self._unseen = 0
            self.pill.place_forget()
            return
        count = self._unseen
        words = "%d new message%s" % (count, "" if count == 1 else "s")
        self.pill.configure(text=" " + words if count else " Jump to latest")
        self.pill.place(relx=0.5, rely=1, y=-self._look.px(10), anchor="s")

    # What is beside the chat

    def toggle_side(self) -> None:
        """Show the conversations over the chat, or put them away."""
        if not self._shown[0]:
            self.side.toggle()
            (self.side.list.canvas if self.side.is_over else self.composer.text).focus_set()

    def toggle_people(self) -> None:
        """Show who is here, or put them away."""
        if self._width >= self._look.dp(self.NARROW):
            self._wants_people = not self._wants_people
            self._lay_out()
        else:
            self.aside.toggle()

    def close_overlays(self) -> bool:
        """Put away what lies over the chat; whether anything did."""
        over = [column for column in (self.side, self.aside) if column.is_over]
        for column in over:
            column.toggle()
        return bool(over)

    def panes(self) -> List["tk.Widget"]:
        """What F6 goes through."""
        panes = [self.side.list.canvas, self.transcript.text, self.composer.text,
                 self.aside.list.canvas]  # fmt: skip
        return [pane for pane in panes if pane.winfo_viewable()]

    def _on_resize(self, event: "tk.Event[Any]") -> None:
        self._width = event.width
        self._lay_out()

    def _lay_out(self) -> None:
        """Have beside the chat what there is room for."""
        dp = self._look.dp
        room = self._width or dp(1160)
        shown = (room >= dp(self.NARROWEST), room >= dp(self.NARROW) and self._wants_people)
        if shown == self._shown:
            return
        self._shown = shown
        for column, is_shown in zip((self.side, self.aside), shown):
            column.show(is_shown)
        (self.menu_button.grid_remove if shown[0] else self.menu_button.grid)()
        self.transcript.pad = 20 if shown[0] else 14
        self.transcript.restyle()
        self.composer.frame.grid_configure(padx=self._look.px(16 if shown[0] else 10))
        self.room.redraw()

    def _show_menu_button(self) -> None:
        is_unread = any(c.unread for c in self._window.chat.conversations)
        self.menu_button.configure(
            image=self._look.icon("menu", dot="mention_badge" if is_unread else "")
        )


class Notifier:
    """Draws attention to the window by what the system has: a bell, a flash, a notification."""

    PAUSE = 2.0  # seconds between two of them

    def __init__(self, root: "tk.Tk", system: str) -> None:
        self._root, self._system = root, system
        self._last = -self.PAUSE
        self._is_urgent = False

    def alert(self, title: str, body: str, sound: bool) -> None:
        """Something deserves notice now. Never waits; says no more than once in PAUSE."""
        now = time.monotonic()
        if now < self._last + self.PAUSE:
            return
        self._last = now
        self._set_urgent(True)
        command = self._command(title, body)
        if command:
            try:
                null = subprocess.DEVNULL
                process = subprocess.Popen(command, stdin=null, stdout=null, stderr=null)  # noqa: S603
                # Daemon: it waits for another program, which may outlive ours.
                threading.Thread(target=process.wait, name="notify", daemon=True).start()
            except OSError as error:
                log.info("no notification: %s", error)
        if sound:
            self._root.bell()

    def calm(self) -> None:
        """The user is here."""
        if self._is_urgent:
            self._set_urgent(False)

    def _command(self, title: str, body: str) -> List[str]:
        """The program that shows a notification, [] where there is none. No text is an option."""
        if self._system == "aqua":
            script = "display notification (item 2 of argv) with title (item 1 of argv)"
            script = "on run argv\n%s\nend run" % script
            return ["osascript", "-e", script, title, body]
        program = shutil.which("notify-send") if self._system == "x11" else None
        return [program, "-a", "Hubbub", "--", title, html.escape(body, False)] if program else []

    def _set_urgent(self, is_urgent: bool) -> None:
        self._is_urgent = is_urgent
        try:
            if self._system == "x11":
                set_x11_urgency(self._root.winfo_id(), is_urgent, self._root.winfo_screen())
            elif self._system == "win32" and is_urgent:
                flash_on_windows(self._root.winfo_id())
        except (OSError, AttributeError) as error:
            log.info("no flash: %s", error)


# What only one windowing system has, and Tk does not hand through


@contextlib.contextmanager
def x11_frame(window: int, display_name: str) -> Iterator[Tuple[Any, Any, Any]]:
    """Xlib, a connection of our own, and the window around Tk's, which Tk does not let us have.

    OSError or AttributeError where there is no such thing.
    """
    x11: Any = ctypes.CDLL("libX11.so.6")
    handle, number = ctypes.c_void_p, ctypes.c_ulong
    x11.XOpenDisplay.restype, x11.XOpenDisplay.argtypes = handle, [ctypes.c_char_p]
    x11.XFree.argtypes = x11.XCloseDisplay.argtypes = [handle]
    x11.XQueryTree.argtypes = [handle, number] + [ctypes.POINTER(number)] * 2 + [
        ctypes.POINTER(ctypes.POINTER(number)), ctypes.POINTER(ctypes.c_uint)]  # fmt: skip
    display = x11.XOpenDisplay(display_name.rpartition(".")[0].encode() or None)
    if not display:
        raise OSError("no connection to %s" % display_name)
    try:
        desktop, frame, count = number(), number(), ctypes.c_uint()
        children = ctypes.POINTER(number)()
        x11.XQueryTree(display, window, ctypes.byref(desktop), ctypes.byref(frame),
                       ctypes.byref(children), ctypes.byref(count))  # fmt: skip
        if children:
            x11.XFree(children)
        if frame.value == desktop.value:
            raise OSError("the window has not been shown yet")
        yield x11, display, frame
    finally:
        x11.XCloseDisplay(display)


def set_x11_urgency(window: int, is_urgent: bool, display_name: str) -> None:
    """Set the urgency hint of a window. OSError or AttributeError where that cannot be."""
    handle, number = ctypes.c_void_p, ctypes.c_ulong

    class Hints(ctypes.Structure):
        _fields_ = [("flags", ctypes.c_long), ("input", ctypes.c_int), ("state", ctypes.c_int),
                    ("icon_pixmap", number), ("icon_window", number), ("x", ctypes.c_int),
                    ("y", ctypes.c_int), ("icon_mask", number), ("group", number)]  # fmt: skip

    with x11_frame(window, display_name) as (x11, display, frame):
        x11.XGetWMHints.restype, x11.XGetWMHints.argtypes = ctypes.POINTER(Hints), [handle, number]
        x11.XSetWMHints.argtypes = [handle, number, ctypes.POINTER(Hints)]
        hints = x11.XGetWMHints(display, frame)
        if hints:
            bit = 256  # XUrgencyHint
            hints.contents.flags = hints.contents.flags & ~bit | (bit if is_urgent else 0)
            x11.XSetWMHints(display, frame, hints)
            x11.XFree(hints)


def set_x11_background(window: int, color: str, display_name: str) -> None:
    """What is seen where a window has grown and Tk has not drawn yet: white, if nobody says so.

    OSError or AttributeError where that cannot be.
    """
    with x11_frame(window, display_name) as (x11, display, frame):
        x11.XSetWindowBackground.argtypes = [ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong]
        x11.XSetWindowBackground(display, frame, int(color[1:], 16))


def flash_on_windows(window: int) -> None:
    """Flash the taskbar's button until the window comes to the front."""

    class Info(ctypes.Structure):
        _fields_ = [("size", ctypes.c_uint), ("window", ctypes.c_void_p), ("flags", ctypes.c_uint),
                    ("count", ctypes.c_uint), ("pause", ctypes.c_uint)]  # fmt: skip

    user32: Any = ctypes.windll.user32  # type: ignore[attr-defined]
    tray_until_front = 2 | 12
    user32.GetParent.restype, user32.GetParent.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    info = Info(ctypes.sizeof(Info), user32.GetParent(window), tray_until_front, 0, 0)
    user32.FlashWindowEx(ctypes.byref(info))


# The window


# The letters of a keyboard, by X11's number of the first key of each row.
LETTERS = {24: "qwertyuiop", 38: "asdfghjkl", 52: "zxcvbnm"}


def latin(event: "tk.Event[Any]", system: str) -> str:
    """The letter that the key has where letters are Latin, if here it has another alphabet's."""
    rows = {"x11": LETTERS, "win32": {65: "abcdefghijklmnopqrstuvwxyz"}}.get(system, {})
    letters = (row[event.keycode - first : event.keycode - first + 1]
               for first, row in rows.items() if event.keycode >= first)  # fmt: skip
    return "".join(letters) if event.keysym_num > 255 else ""


class Key(NamedTuple):
    """A key, or several that belong together, in the words of the help."""

    name: str
    help: str
    actions: "Mapping[str, Callable[[Window], object]]" = {}  # by sequence; none: a widget's own
    everywhere: bool = False  # and not only in the chat


class Window:
    """The program's window. All of it runs on Tk's thread."""

    def __init__(self, root: "tk.Tk", settings: Settings) -> None:
        root.withdraw()  # until there is something to see
        root.report_callback_exception = self._on_exception
        self.root, self.settings = root, settings
        self.chat = Chat("", settings.levels)  # of nobody, until there is a server
        self._connection: Optional[Connection] = None
        self._events: "queue.Queue[Any]" = queue.Queue()  # of the connection; each has its own
        self._place = ("", 0, "")  # host, port and password of the last connection
        self._server = ""  # what the user calls it
        self._polling = ""  # the id of the next look at the queue
        self._banner_due = 0.0  # when the banner is to be asked for again; 0 for never
        self._shown: Optional[Conversation] = None  # whose transcript is in view
        self._sheet: Optional[Sheet] = None
        theme = settings.theme if settings.theme in PALETTES else "dark"
        zoom = settings.zoom if settings.zoom in ZOOMS else 100
        emoji = os.environ.get("HUBBUB_EMOJI") or settings.emoji
        self.look = look = Look(root, theme, zoom, emoji)
        self.notifier = Notifier(root, look.system)
        self.connect_view = ConnectView(root, look, self._on_connect, self._cancel)
        self._chat_view: Optional[ChatView] = None
        self.view: Union[ConnectView, ChatView, None] = None
        self._placed: Set[Any] = set()  # the views that have been in view
        root.protocol("WM_DELETE_WINDOW", self.close)
        root.after(POLL_MS, lambda: root.iconphoto(True, look.logo(64)))  # first the window
        for sequence in ("<FocusIn>", "<FocusOut>"):
            root.bind(sequence, lambda event: root.after_idle(self._on_focus))
        look.follow(root, self._paint_behind)
        look.follow(root, self._set_minimum)
        self._bind_keys()
        self.menu = tk.Menu(root, tearoff=False, bd=1, relief="solid")  # it has keys of its own

    @property
    def chat_view(self) -> ChatView:
        """Made when it is first asked for: nobody waits for it before there is a server."""
        if self._chat_view is None:
            self._chat_view = view = ChatView(self.root, self.look, self)
            view.frame.bind("<Configure>", self._on_chat_resized, "+")
            self._bind_chat_keys(view)
        return self._chat_view

    @property
    def _is_chatting(self) -> bool:
        """Whether the chat is in view."""
        return isinstance(self.view, ChatView)

    def run(self, host: str, port: int, username: str, at_once: bool) -> None:
        """Show the window until it is closed; connect at once where all is known."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: self._close_soon())
        self.start(host, port, username, at_once)
        self.root.mainloop()

    def start(self, host: str, port: int, username: str, at_once: bool) -> None:
        """All that `run` does before Tk's loop."""
        sys.setswitchinterval(SWITCH_TIME)
        host = "[%s]" % host if ":" in host else host
        server = host if port == SERVER_PORT else "%s:%d" % (host, port)
        self.connect_view.fill(username or self.settings.name, self.settings.servers, server)
        self._show(self.connect_view)
        self.connect_view.say("", "")
        self._poll()
        if at_once:
            self.connect_view.submit()

    def close(self) -> None:
        """Say goodbye and end, once the user has agreed to lose what waits. Idempotent."""
        chat = self.chat
        unsent = chat.unsent if self._is_chatting else 0
        # A few are on their way, and arrive while we say goodbye; a paste may take longer.
        few = MANY_LINES if chat.is_settled else 0
        if self.root is not None and unsent > few and self._sheet is None:
            words = "1 message has" if unsent == 1 else "%d messages have" % unsent
            self.open_sheet("Close Hubbub?", words + " not been sent yet, and would be lost.",
                            [("Close", self._end), ("Stay", self.focus_composer)])  # fmt: skip
        else:
            self._end()

    def _end(self) -> None:
        if self.root is None:
            return
        self._keep_settings()
        self.root.after_cancel(self._polling)
        self._leave(QUIT_TIME)
        root, self.root = self.root, None  # type: ignore[assignment]
        root.destroy()

    def _close_soon(self) -> None:
        """Close when what is under way is done: for signals, which come at any time."""
        if self.root is not None:
            self.root.after(0, self._end)

    def _keep_settings(self) -> None:
        if self._is_chatting:
            self.settings.geometry = self.root.geometry()
        self.settings.theme, self.settings.zoom = self.look.theme, self.look.zoom
        self.settings.save()

    def _show(self, view: Union[ConnectView, ChatView]) -> None:
        """Put a view in place of the other, at its size."""
        self._show_title()
        if view is self.view:
            return
        if self.view is not None:
            self.view.frame.pack_forget()
        view.frame.pack(fill="both", expand=True)
        self.view = view
        if view not in self._placed:  # afterwards the place is the user's
            self._placed.add(view)
            self._place_for(view)
        self._set_minimum()
        self.root.update_idletasks()
        self.root.deiconify()
        self._paint_behind()
        if self._is_chatting:
            self.focus_composer()

    def _pixels(self, view: Union[ConnectView, ChatView], sizes: Tuple[int, int]) -> List[int]:
        """Sizes on this screen; the view that asks cannot scroll, and grows with its letters."""
        zoom = max(100, self.look.zoom) if view is self.connect_view else 100
        room = self.root.winfo_vrootwidth(), self.root.winfo_vrootheight() - self.look.px(60)
        return [min(self.look.px(size * zoom / 100), most) for size, most in zip(sizes, room)]

    def _set_minimum(self) -> None:
        """Have the window no smaller than its view needs."""
        if self.view is not None:
            self.root.minsize(*self._pixels(self.view, self.view.LEAST))

    def _paint_behind(self) -> None:
        """Have no white flash where the window grows."""
        root = self.root
        if self.look.system == "x11":
            with contextlib.suppress(OSError, AttributeError):
                set_x11_background(root.winfo_id(), self.look.color["bg"], root.winfo_screen())

    def _place_for(self, view: Union[ConnectView, ChatView]) -> None:
        """Have the window as a view is at first, or was the last time; all of it on the screen."""
        root = self.root
        place = self._pixels(view, view.SIZE)
        kept = re.match(r"(\d+)x(\d+)\+(-?\d+)\+(-?\d+)\Z", self.settings.geometry)
        if kept and self._is_chatting:
            place = [int(number) for number in kept.groups()]
        elif root.winfo_viewable():
            place += [root.winfo_x(), root.winfo_y()]
        rooms = (
            (root.winfo_vrootx(), root.winfo_vrootwidth()),
            (root.winfo_vrooty(), root.winfo_vrootheight() - root.winfo_rooty() + root.winfo_y()),
        )
        for size, (start, room) in enumerate(rooms):
            place[size] = min(place[size], room)
            for at in range(size + 2, len(place), 2):
                place[at] = max(start, min(place[at], start + room - place[size]))
        root.geometry(("%dx%d+%d+%d" if place[2:] else "%dx%d") % tuple(place))

    def _show_title(self) -> None:
        chat = self.chat
        title = self.look.text(chat.title if chat.nickname else "Not connected — Hubbub")
        if title != self.root.title():
            self.root.title(title)

    # Connecting

    def _on_connect(self, name: str, server: str, password: str) -> None:
        name = protocol.normalize(name)
        fault = protocol.nickname_fault(name)
        if fault:
            return self.connect_view.say(NAME, fault)
        try:
            place = (*parse_server(server), password)
        except ValueError as error:
            return self.connect_view.say(SERVER, str(error))
        if not self.chat.nickname or self._place[:2] != place[:2]:
            self.chat, self._shown = Chat("%s:%d" % place[:2], self.settings.levels), None
        self._place, self._server = place, server
        self.settings.name = name
        self._open(name)
        self.root.after_idle(lambda: self.chat_view)  # it will be needed soon
        return self.connect_view.set_connecting(server)

    def _open(self, name: str) -> None:
        self._leave()
        self._events = queue.Queue(MAX_EVENTS)
        host, port, password = self._place
        self._connection = Connection(host, port, password, name, self._events)
        self.chat.begin(name)
        self._connection.start()
        self._show_title()

    def _leave(self, wait: float = 0.0) -> None:
        if self._connection is not None:
            self._connection.close(wait)
            self._connection = None

    def _cancel(self) -> None:
        self._leave()
        self.chat, self._events = Chat("", self.settings.levels), queue.Queue()
        self.connect_view.say("", "")
        self._show_title()

    # What happens

    def _poll(self) -> None:
        delay = POLL_MS
        try:
            self._take()
            if not self._events.empty():
                delay = POLL_MS // 3
            if self.chat.is_overdue(time.time()):
                self._do(self.chat.handle(None, time.time()))
            if self._banner_due and time.monotonic() >= self._banner_due:
                self._show_banner()
        finally:  # whatever happened, the window lives on
            if self.root is not None:
                self._polling = self.root.after(delay, self._poll)

    def _take(self) -> None:
        """Show what has come, up to a BATCH of events."""
        changes: List[Change] = []
        count, until = 0, time.monotonic() + BATCH_TIME
        end = None
        while count < BATCH and time.monotonic() < until and end is None:
            try:
                event = self._events.get_nowait()
            except queue.Empty:
                break
            count += 1
            try:
                outcome = self.chat.handle(event, time.time())
                changes += outcome.changes
                if self._connection is not None:
                    self._connection.carry_out(outcome)
            except Exception:
                log.exception("our mistake")
            if isinstance(event, Connected) and not self._is_chatting:
                self.settings.remember(self._server)
                self.settings.save()
                self._show(self.chat_view)
            elif isinstance(event, Disconnected):
                end = event
        if count:
            self._apply(changes)
        if end is not None:
            self._on_disconnected(end)

    def _do(self, outcome: Outcome) -> None:
        """Carry out what follows from something that was done here."""
        if self._connection is not None:
            self._connection.carry_out(outcome)
        self._apply(outcome.changes)
        if outcome.done:
            self.root.after_idle(self._end)

    def _try(self, action: Callable[[str, float], Outcome], text: str) -> bool:
        """Do something with what was typed, or say what is wrong with that; whether it was done."""
        now = time.time()
        try:
            outcome = action(text, now)
        except protocol.InputError as error:
            self._do(self.chat.note(str(error), now))
            return False
        self._do(outcome)
        return True

    def _apply(self, changes: Sequence[Change]) -> None:
        """Show what has changed; many changes cost as much as one."""
        if not self._is_chatting:
            return
        kinds = {change.kind for change in changes}
        current, transcript = self.chat.current, self.chat_view.transcript
        new = 0
        for change in changes:
            if change.kind == ALERT:
                self._alert(change)
            elif change.kind == ADDED and change.conversation is current:
                new += len(change.entries)
        if current is not self._shown:
            self._open_conversation(current)
            kinds.add(PEOPLE)
        elif any(change.conversation is current for change in changes):
            transcript.show(current.entries)
            if new and not transcript.at_end:
                self.chat_view.count_unseen(new)
        self.chat_view.tell(PEOPLE in kinds or STATUS in kinds)
        if STATUS in kinds:
            self._show_banner()
        self._show_title()

    def _open_conversation(self, conversation: Conversation) -> None:
        composer, before = self.chat_view.composer, self._shown
        if before is not None:
            before.draft = composer.get()
        self._shown = conversation
        self.chat_view.search.close()
        self.chat_view.transcript.open(conversation.entries)
        composer.set(conversation.draft)
        self.focus_composer()

    def _show_banner(self) -> None:
        banner = self.chat.banner(time.time())
        self.chat_view.banner.show(banner, self.chat.state == CONNECTED)
        self._banner_due = time.monotonic() + 1 if banner.text else 0.0

    def _alert(self, change: Change) -> None:
        entry = change.entries[-1]
        title = change.conversation.name if change.conversation else "Hubbub"
        self.notifier.alert(title, entry.text, self.settings.sound)

    def _on_disconnected(self, end: Disconnected) -> None:
        self._leave()
        if end.fault != CLOSED:
            self._show(self.connect_view)
            self.connect_view.say(SERVER if end.fault == LOST else end.fault, end.reason)

    def _on_focus(self) -> None:
        if self.root is None:
            return
        try:
            is_focused = self.root.focus_displayof() is not None
        except KeyError:  # a menu, which Python does not know
            is_focused = True
        if is_focused:
            self.notifier.calm()
        self._do(self.chat.attend(is_focused, time.time()))

    def _on_exception(self, kind: Any, error: BaseException, trace: Any) -> None:
        log.error("our mistake", exc_info=(kind, error, trace))

    # The transcript

    def conversation_in_view(self) -> Optional[Conversation]:
        """What it shows."""
        return self._shown

    def lay_out(self, entries: Sequence[Entry]) -> List[Item]:
        """What the transcript shows for these."""
        if self._shown is None:
            return []
        today = time.strftime("%Y-%m-%d")
        return lay_out(entries, self._shown.first_unread, self._shown.new_count, today)

    def render(self, item: Item) -> List[Piece]:
        """How it shows an item."""
        return render(item, self.chat.nickname, self.look.text)

    def on_top(self) -> None:
        """Its first line is in view."""
        if self._shown is not None and self._shown.past.has_older:
            self._do(self.chat.fetch_older(self._shown, time.time()))

    def on_jump(self) -> None:
        """Show the latest."""
        self.chat_view.transcript.show_end()
        self.focus_composer()

    def _on_link(self, event: "tk.Event[Any]") -> str:
        text = self.chat_view.transcript.text
        index = text.index("@%d,%d" % (event.x, event.y))
        tags, entry = text.tag_names(index), self.chat_view.transcript.line_at(index)
        if text.tag_ranges("sel"):
            return ""
        if "retry" in tags and entry is not None:
            self._do(self.chat.retry(entry, time.time()))
        elif "drop" in tags and entry is not None:
            self._do(self.chat.drop(entry))
        else:
            ends = text.tag_prevrange("link", index + "+1c")
            if ends:
                open_link(whole(text.get(*ends)))
        return "break"

    # The chat box

    def on_submit(self, text: str) -> bool:
        """Whether the text may go from the chat box."""
        is_sent = self._try(self.chat.submit, text)
        if self.root is not None:
            self.chat_view.transcript.show_end()
        return is_sent

    def on_complete(self, text: str, cursor: int, step: int) -> Optional[Tuple[str, int]]:
        """What Tab makes of the chat box."""
        return self.chat.complete(text, cursor, step)

    def may_keep(self, text: str) -> bool:
        """Whether the text may be recalled with Up."""
        return not is_secret(text)

    def _confirm_paste(self, lines: int, go: Callable[[], None]) -> bool:
        """Whether the user is asked before so many lines go into the chat box."""
        if lines <= MANY_LINES:
            return False
        self.open_sheet("Paste %d lines?" % lines, "Each line will be a message of its own.",
                        [("Cancel", self.focus_composer), ("Paste", go)])  # fmt: skip
        return True

    def focus_composer(self) -> None:
        """Have the keys go to the chat box."""
        self.chat_view.composer.text.focus_set()

    # Conversations and people

    def on_choose_row(self, row: Any) -> None:
        """A conversation was chosen, or a caption's plus."""
        if row == "ROOMS":
            self.on_join()
        elif row == "PRIVATE":
            self.on_private()
        else:
            self.select(row)

    def select(self, conversation: Optional[Conversation]) -> None:
        """Show another conversation."""
        self.chat_view.close_overlays()
        if conversation is not None:
            self._do(self.chat.select(conversation, time.time()))
            self.focus_composer()

    def open(self, name: str) -> None:
        """Go to a room or a person."""
        self.chat_view.close_overlays()
        self._try(self.chat.open, name)
        self.focus_composer()

    def on_person(self, name: str) -> None:
        """Write to somebody."""
        if name != self.chat.nickname:
            self.open(name)

    def on_person_menu(self, name: str, x: int, y: int) -> None:
        """What can be done with somebody."""
        if name == self.chat.nickname:
            return self.on_own_menu(x, y)
        entries: List[Any] = [
            ("Write privately", lambda: self.on_person(name)),
            ("Mention", lambda: self.chat_view.composer.insert("@%s " % name)),
            ("Who is %s?" % name, lambda: self.on_submit("/whois %s" % name)),
            None,
            ("Ignore", lambda: self.on_submit("/ignore %s" % name)),
        ]  # fmt: skip
        return self._pop_up(entries, x, y)

    def on_conversation_menu(self, conversation: Any, x: int, y: int) -> None:
        """What can be done with a conversation."""
        chat = self.chat
        if not isinstance(conversation, Conversation):
            return

        def set_level(level: str) -> None:
            self._do(chat.set_level(conversation, level))

        entries: List[Any] = []
        for level, text in ((ALL, "Notify me of everything"), (MENTIONS, "Notify me of mentions"),
                            (NONE, "Never notify me")):  # fmt: skip
            mark = "✓ " if conversation.level == level else "    "
            entries.append((mark + text, functools.partial(set_level, level)))
        last = "Leave %s" if conversation.kind == ROOM else "Close %s"
        if conversation.kind != CONSOLE:
            close = functools.partial(chat.close, conversation)
            entries += [None, (last % conversation.name, lambda: self._do(close(time.time())))]
        self._pop_up(entries, x, y)

    def on_own_menu(self, x: int, y: int) -> None:
        """What can be done with oneself, and with the window."""
        chat = self.chat
        away = ("I am back", "/away") if chat.is_away else ("I am away", "/away away")
        sound = "Sound off" if self.settings.sound else "Sound on"
        self._pop_up([
            (away[0], lambda: self.on_submit(away[1])),
            ("Another name…", lambda: self.prompt("/nick ")), None,
            ("Light or dark", self.on_theme), ("Larger", lambda: self.on_zoom(1)),
            ("Smaller", lambda: self.on_zoom(-1)), (sound, self._toggle_sound), None,
            ("Help and keys", self.on_help), ("Quit", self.close),
        ], x, y)  # fmt: skip

    def on_topic(self) -> None:
        """The head of the conversation was clicked."""
        if self._shown is not None and self._shown.kind == ROOM:
            self.prompt("/topic " + self._shown.topic)

    def prompt(self, text: str) -> None:
        """Have the user go on writing this."""
        if not self.chat_view.composer.get():
            self.chat_view.composer.set(text)
        self.focus_composer()

    def _toggle_sound(self) -> None:
        self.settings.sound = not self.settings.sound
        self.settings.save()

    def _pop_up(self, entries: Sequence[Any], x: int, y: int) -> None:
        """Open a context menu; None stands for a line."""
        color = self.look.color
        menu = self.menu
        menu.delete(0, "end")
        menu.configure(bg=color["field"], fg=color["text"], activebackground=color["accent"],
                       activeborderwidth=self.look.dp(3), activeforeground="#ffffff",
                       font=self.look.font["ui"])  # fmt: skip
        for entry in entries:
            if entry is None:
                menu.add_separator()
            else:
                menu.add_command(label=self.look.text("  %s  " % entry[0]), command=entry[1])
        menu.tk_popup(x, y)
        menu.grab_release()

    # Sheets

    def open_sheet(
        self, title: str, text: str, buttons: Sequence[Tuple[str, Callable[[], object]]] = (),
        **more: Any,
    ) -> Sheet:  # fmt: skip
        """Ask something inside the window; one question at a time."""
        if self._sheet is not None:
            self._sheet.close()
        sheet = Sheet(self.chat_view.frame, self.look, title, text, buttons,
                      closed=self._on_sheet_closed, **more)  # fmt: skip
        self._sheet = sheet
        self._add_keys(sheet.frame)
        return sheet

    def _on_chat_resized(self, event: "tk.Event[Any]") -> None:
        if self._sheet is not None:
            self._sheet.fit()

    def _on_sheet_closed(self) -> None:
        self._sheet = None
        self.focus_composer()

    def on_help(self) -> None:
        """Show the keys."""
        patch = self.root.tk.call("info", "patchlevel")
        tail = "Python %d.%d, Tk %s" % (*sys.version_info[:2], patch)
        rows = [Row(key.help, key.name, note=key.name) for key in self.KEYS]
        self.open_sheet("Hubbub %s" % protocol.VERSION, "Chat for a local network. %s. "
                        "/help lists what you can type." % tail, [("Close", lambda: None)],
                        offer=lambda text: rows, has_field=False, width=480)  # fmt: skip

    def on_go(self) -> None:
        """Go to a conversation or a person, by a part of the name."""
        self._pick("Go to", lambda chat: [c.name for c in chat.conversations
                                          if c.kind != CONSOLE] + everybody(chat),
                   "Join #%s", "Write to %s")  # fmt: skip

    def on_private(self) -> None:
        """Write to one person."""
        self._pick("Write to", everybody, "Write to %s")

    def on_join(self) -> None:
        """Join or make a room."""
        self._pick("Join a room", lambda chat: [c.name for c in chat.conversations
                                                if c.kind == ROOM], "Join #%s")  # fmt: skip

    def _pick(self, title: str, names: Callable[[Chat], List[str]], *others: str) -> None:
        chat = self.chat
        if self._is_chatting:
            self.open_sheet(title, "", choose=self.open, offer=lambda text: offer_names(
                [name for name in names(chat) if name != chat.nickname], text, others
            ))  # fmt: skip

    # Keys

    def _add_keys(self, widget: "tk.Misc") -> None:
        """Give a widget and all that is in it the window's keys."""
        widget.bindtags(("HubbubKeys", *(tag for tag in widget.bindtags() if tag != "HubbubKeys")))
        for child in widget.winfo_children():
            self._add_keys(child)

    def _on_key(
        self, action: "Callable[[Window], object]", everywhere: bool, event: "tk.Event[Any]"
    ) -> Optional[str]:
        if not everywhere and not self._is_chatting:
            return None
        action(self)
        return "break"

    def _on_other_key(self, event: "tk.Event[Any]") -> Optional[str]:
        """A letter of another alphabet: it does what the Latin one on its key does."""
        letter = latin(event, self.look.system)
        for key in self.KEYS:
            if "Control-" + letter in key.actions:
                return self._on_key(key.actions["Control-" + letter], key.everywhere, event)
        known = {"a": "SelectAll", "c": "Copy", "v": "Paste", "x": "Cut", "z": "Undo"}
        if letter in known:
            event.widget.event_generate("<<%s>>" % known[letter])
            return "break"
        return None

    def on_theme(self) -> None:
        """Light or dark, whichever it is not."""
        self.look.change("light" if self.look.theme == "dark" else "dark", self.look.zoom)
        self._keep_settings()

    def on_zoom(self, step: int) -> None:
        """Larger, smaller, or (0) the usual size."""
        at = ZOOMS.index(self.look.zoom) + step if step else ZOOMS.index(100)
        self.look.change(self.look.theme, ZOOMS[max(0, min(len(ZOOMS) - 1, at))])
        self._keep_settings()

    def _neighbour(self, step: int) -> None:
        self.select(self.chat.neighbour(step))

    def _nth(self, number: int) -> None:
        if number <= len(self.chat.conversations):
            self.select(self.chat.conversations[number - 1])

    def _on_pane(self, step: int) -> None:
        panes, here = self.chat_view.panes(), self.root.focus_get()
        at = panes.index(here) if here in panes else -1
        panes[(at + step) % len(panes)].focus_set()

    def _on_ends(self, fraction: float) -> None:
        if fraction:
            self.chat_view.transcript.show_end()
        elif self._shown is not None and self._shown.entries:
            self.chat_view.transcript.show(self._shown.entries, 0)

    def _on_edit_menu(self, event: "tk.Event[Any]") -> None:
        """What can be done with what one has written."""
        box = event.widget
        box.focus_set()
        self._pop_up([(words, functools.partial(box.event_generate, "<<%s>>" % words.title()))
                      for words in ("Cut", "Copy", "Paste")] + [None,
                     ("Select all", lambda: box.event_generate("<<SelectAll>>"))],
                     *menu_place(event))  # fmt: skip

    def _on_text_menu(self, event: "tk.Event[Any]") -> str:
        text = self.chat_view.transcript.text
        entries: List[Any] = []
        index = text.index("@%d,%d" % (event.x, event.y))
        ends = text.tag_prevrange("link", index + "+1c") if "link" in text.tag_names(index) else ()
        if ends and "retry" not in text.tag_names(index) and "drop" not in text.tag_names(index):
            link = whole(text.get(*ends))
            entries += [("Open %s" % link[:60], lambda: open_link(link)),
                        ("Copy the link", lambda: self._copy(link))]  # fmt: skip
        if text.tag_ranges("sel"):
            entries.append(("Copy", lambda: text.event_generate("<<Copy>>")))
        entries += [("Select all", lambda: text.tag_add("sel", "1.0", "end-1c")),
                    ("Search…", self.chat_view.search.open)]  # fmt: skip
        self._pop_up(entries, *menu_place(event))
        return "break"

    def _copy(self, words: str) -> None:
        self.root.clipboard_clear()
        self.root.clipboard_append(self.look.text(words))

    def _on_stray_key(self, event: "tk.Event[Any]") -> Optional[str]:
        """Typing goes to the chat box, wherever one has clicked."""
        others = 0x20004 if self.look.system == "win32" else 0x4C  # there 8 is Num Lock
        if not event.char or not event.char.isprintable() or int(event.state) & others:
            return None  # a key, or one with Control or Alt, that a text may want
        self.chat_view.composer.insert(event.char)
        return "break"

    def _on_escape(self) -> None:
        if not self._is_chatting:
            return self._cancel() if self._connection is not None else self.close()
        view = self.chat_view
        if self._sheet is not None:
            self._sheet.close()
        elif view.close_overlays():
            self.focus_composer()
        elif view.search.is_open:
            view.search.close()
        else:
            view.transcript.show_end()
            self.focus_composer()
        return None

    def on_retry(self) -> None:
        """Try to come back now."""
        if self._connection is not None:
            self._connection.retry()

    # In a sequence Control stands for what goes with letters: Command on a Mac.
    KEYS = (
        Key("Enter", "send"), Key("Shift+Enter", "begin a new line"),
        Key("Up, Down", "what you sent before"),
        Key("Tab", "complete a name, a /command or a #room"),
        Key("Ctrl+F", "search; Enter and F3 go on", {
            "Control-f": lambda self: self.chat_view.search.open(),
            "F3": lambda self: self.chat_view.search.step(1),
            "Shift-F3": lambda self: self.chat_view.search.step(-1)}),
        Key("Ctrl+K", "go to a room or a person", {"Control-k": on_go}),
        Key("Ctrl+N", "write to one person", {"Control-n": on_private}),
        Key("Ctrl+PgUp, Ctrl+PgDn", "the conversation above or below", {
            "Control-Prior": lambda self: self._neighbour(-1),
            "Control-Next": lambda self: self._neighbour(1),
            "Alt-Up": lambda self: self._neighbour(-1),
            "Alt-Down": lambda self: self._neighbour(1)}),
        Key("Alt+1 … Alt+9", "the first to the ninth conversation", {
            "Alt-Key-%d" % n: functools.partial(lambda n, self: self._nth(n), n)
            for n in range(1, 10)}),
        Key("Alt+A", "the next conversation with something new", {
            "Alt-a": lambda self: self.select(self.chat.next_unread())}),
        Key("PgUp, PgDn", "scroll"),
        Key("Ctrl+Home, Ctrl+End", "to the top, to the latest", {
            "Control-Home": lambda self: self._on_ends(0.0),
            "Control-End": lambda self: self._on_ends(1.0)}),
        Key("F6", "on to the next part of the window", {
            "F6": lambda self: self._on_pane(1), "Shift-F6": lambda self: self._on_pane(-1)}),
        Key("Shift+F10", "what can be done with this"),
        Key("Ctrl+T", "light or dark", {"Control-t": on_theme}, everywhere=True),
        Key("Ctrl++, Ctrl+-, Ctrl+0", "larger, smaller, usual size", {
            "Control-plus": lambda self: self.on_zoom(1),
            "Control-equal": lambda self: self.on_zoom(1),
            "Control-KP_Add": lambda self: self.on_zoom(1),
            "Control-minus": lambda self: self.on_zoom(-1),
            "Control-KP_Subtract": lambda self: self.on_zoom(-1),
            "Control-0": lambda self: self.on_zoom(0)}, everywhere=True),
        Key("F1", "this help", {"F1": on_help}),
        Key("Esc", "close what is open, go to the latest", {"Escape": _on_escape}, everywhere=True),
        Key("Ctrl+Q", "quit", {"Control-q": close}, everywhere=True),
    )  # fmt: skip

    def _bind_keys(self) -> None:
        """Bind the keys of the window: before the widgets' own, which would take some of them."""
        root, control = self.root, self.look.control
        for key in self.KEYS:
            for sequence, action in key.actions.items():
                handler = functools.partial(self._on_key, action, key.everywhere)
                sequence = sequence.replace("Control", control)
                locked = re.sub("-([a-z])$", lambda key: "-Lock-" + key.group(1).upper(), sequence)
                for each in {sequence, locked}:
                    root.bind_class("HubbubKeys", "<%s>" % each, handler)
        root.bind_class("HubbubKeys", "<%s-Key>" % control, self._on_other_key)
        select_all = "<%s-a>" % control, "<%s-Lock-A>" % control
        root.event_delete("<<LineStart>>", *select_all)  # one of Emacs's keys, on X11
        if control == "Control":  # others change the text: nobody expects that of these
            for letter in "dhio":
                root.unbind_class("Text", "<Control-%s>" % letter)
        root.event_add("<<SelectAll>>", *select_all)
        root.tk.call("bind", "Text", "<<SelectAll>>", "%W tag add sel 1.0 end-1c")
        menu_key = {"win32": "<App>", "x11": "<Menu>"}.get(self.look.system, "<Control-F10>")
        root.event_add("<<ContextMenu>>", menu_key, "<Shift-F10>")  # beside the mouse's button
        for kind in ("Text", "TEntry"):
            root.bind_class(kind, "<<ContextMenu>>", self._on_edit_menu)
        self._add_keys(root)

    def _bind_chat_keys(self, view: ChatView) -> None:
        """Bind those of the chat's own widgets."""
        bind_all(view.composer.text, {
            "<Prior>": lambda event: view.transcript.scroll(-1),
            "<Next>": lambda event: view.transcript.scroll(1),
        })  # fmt: skip
        view.composer.confirm_paste = self._confirm_paste
        bind_all(view.transcript.text, {
            "<Key>": self._on_stray_key, "<<ContextMenu>>": self._on_text_menu,
        })  # fmt: skip
        view.transcript.text.tag_bind("hand", "<ButtonRelease-1>", self._on_link)
        self._add_keys(view.frame)


def everybody(chat: Chat) -> List[str]:
    """Who is here, as far as is known; those in view first."""
    places = [chat.current, *chat.conversations]
    return [person.nickname for place in places for person in place.people]


def offer_names(names: Sequence[str], text: str, others: Sequence[str]) -> List[Row]:
    """Rows for the names that have `text` in them; then what else it may be the name of.

    That is said as in "Join #%s".
    """
    folded, name = protocol.casefold(text.lstrip("#@")), text.lstrip("#@").replace(" ", "-")
    rows = []
    for known in dict.fromkeys(names):
        if folded not in protocol.casefold(known):
            continue
        if known.startswith("#"):
            rows.append(Row(known.lstrip("#"), known, sign="#"))
        else:
            rows.append(Row(known, known, avatar=known))
    rows.sort(key=lambda row: not protocol.casefold(row.text).startswith(folded))
    if name and not any(protocol.casefold(row.text) == protocol.casefold(name) for row in rows):
        rows += [Row(words % name, "#" + name if "#" in words else name, sign="+")
                 for words in others]  # fmt: skip
    return rows or [Row("Write a name", color="muted")]


def open_link(address: str) -> None:
    """Show a web page, and nothing but a web page."""
    if address.startswith(("http://", "https://")):
        # Daemon: the browser may take its time to start.
        threading.Thread(
            target=webbrowser.open, args=(address,), name="browser", daemon=True
        ).start()


def open_window(settings: Settings) -> Optional[Window]:
    """The window; None, after saying why, where there is no tkinter or no display."""
    if tk is None:
        print("There is no tkinter here, so you chat in the terminal.", file=sys.stderr)
        return None
    try:
        if sys.platform == "win32":
            _sharpen_windows()
        return Window(tk.Tk(className="Hubbub"), settings)
    except tk.TclError as error:
        print("There is no window (%s), so you chat in the terminal." % error, file=sys.stderr)
        return None


def _sharpen_windows() -> None:
    """Have Windows not blow our pixels up: we draw for its resolution ourselves."""
    try:
        ctypes.windll.shcore.SetProcessDpiAwareness(1)  # type: ignore[attr-defined]
    except (OSError, AttributeError):
        ctypes.windll.user32.SetProcessDPIAware()  # type: ignore[attr-defined]


# The command line


def parse_server(text: str) -> Tuple[str, int]:
    """Host and port of `HOST`, `HOST:PORT`, `[IPV6]:PORT` or a bare IPv6 address. ValueError."""
    text = text.strip()
    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not host.endswith("]")):
        host, port = text, str(SERVER_PORT)
    host = host.strip("[]")
    if not host or " " in host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError("A server is written as 192.168.1.20 or 192.168.1.20:%d." % SERVER_PORT)
    return host, int(port)


def main(argv: Optional[List[str]] = None) -> int:
    """Open the window, or chat in the terminal."""
    parser = argparse.ArgumentParser(description="Chat on the local network.")
    parser.add_argument("server", nargs="?", metavar="SERVER[:PORT]", help="where the server runs")
    parser.add_argument("--username", default="", metavar="NAME", help="who you are")
    parser.add_argument("--terminal", action="store_true", help="chat here, without a window")
    parser.add_argument("--theme", choices=sorted(PALETTES), help="how it looks")
    parser.add_argument("--version", action="version", version="Hubbub %s" % protocol.VERSION)
    args = parser.parse_args(argv)
    logging.basicConfig(level="WARNING", format="%(levelname)s %(message)s")
    username = protocol.normalize(args.username.strip())
    try:
        host, port = parse_server(args.server) if args.server else (SERVER_IP, SERVER_PORT)
    except ValueError as error:
        parser.error(str(error))
    fault = username and protocol.nickname_fault(username)
    if fault:
        parser.error(fault)
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # it was closed before we began
            setattr(sys, name, open(os.devnull, "r+"))  # noqa: SIM115
    if not args.terminal:
        settings = Settings(settings_path())
        settings.load()
        settings.theme = args.theme or settings.theme
        if settings.servers and not args.server and SERVER_IP == "127.0.0.1":  # nobody edited it
            with contextlib.suppress(ValueError):
                host, port = parse_server(settings.servers[0])
        window = open_window(settings)
        if window is not None:
            window.run(host, port, username, at_once=bool(args.server and username))
            return 0
    return Terminal().run(host, port, username)


if __name__ == "__main__":
    sys.exit(main())
