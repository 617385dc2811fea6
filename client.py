#!/usr/bin/env python3
"""Hubbub's client: a window to chat in, or a terminal where there is no window.

    python3 client.py [SERVER[:PORT]] [--username NAME] [--terminal]

Three parts, each of which knows nothing of the next:

    Connection   the socket and the `receive` thread, which connects, reads, writes, and comes
                 back when the connection is lost; all that it tells goes into one queue:
                 Connected, Message, Lost, Disconnected
    Chat         what is known and what it means: no socket, no widget, no clock. Its Desk is
                 what the user sees of it, its Outbox what has been typed and not yet delivered
    Window       widgets only; it polls the queue and redraws what a Chat says has changed

What comes from the network is made safe to show once, in the receive thread. The queue is
bounded: when the window cannot keep up the thread waits, and so, in the end, does the sender.
What one has typed stands there at once and waits until the server has it; after a loss the
history tells what had arrived, and nothing is sent twice.
It speaks IRC (see protocol.py), and asks of a server only what it offers.
"""

import argparse
import difflib
import errno
import getpass
import io
import json
import logging
import math
import os
import queue
import random
import re
import selectors
import signal
import socket
import sys
import threading
import time
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
    NamedTuple,
    Optional,
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
QUIT_TIME = 1.0  # seconds to say goodbye when the program ends
END_TIME = 10.0  # seconds without a sign of the server, at the end of the input
DAY = 86400  # seconds
MAX_EVENTS = 4000  # messages that wait for the window; past it the receive thread waits
RECEIVE_SIZE = 65536  # bytes read at once
MAX_OUTGOING = 1024 * 1024  # bytes that wait for a server that goes on asking
MAX_NAMES = 100000  # people in a room, and names in the answers about it
MAX_ASKED = 200  # people in a room of whom one asks who is away
MAX_WATCHED = 10  # people that one has watched at once: they fit a line
MAX_ENTRIES = 100000  # lines of the conversation in view; a tenth of that of others
MAX_CONVERSATIONS = 200
MAX_HITS = 10000  # of a search
MAX_FAILED = 1000  # messages that can be tried again
MAX_UNSENT = 500  # lines of a pipe that wait for the server
MAX_SERVERS = 10  # that are remembered
MAX_BATCHES = 100  # pieces of the history that are being told at once
MAX_PIECE = 2000  # messages in one of them
MAX_PASTE = 20000  # characters of a paste, or bytes of a line, that are taken at once
PAGE, MISSED_PAGE = 50, 500  # messages of the history that are asked for at once
MAX_PAGES = 10  # of what was missed; past them one begins anew
RECENT = 500  # lines whose speakers are offered first

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
        if command == "001" and params:
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
            self.caps = frozenset(words)
            if self.login is not None and "sasl" in self.caps:
                return [Message("AUTHENTICATE", ("PLAIN",))]
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
        self._closing_since = 0.0  # seconds of the monotonic clock; 0 before `close`
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
        """Send what a Chat wants sent, and remember what it wants remembered."""
        self._login = outcome.login or self._login
        if outcome.send:
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
        """Say QUIT after what is left to send, and end; `wait` seconds for that.

        The only event that follows is a Disconnected. Idempotent.
        """
        if not self._closing_since:
            self.send([Message("QUIT")])
            self._closing_since = time.monotonic()
            self._wake()
        if wait and self._thread.is_alive():
            self._thread.join(wait)

    @property
    def _is_late(self) -> bool:
        """Whether goodbyes have taken long enough."""
        return bool(self._closing_since) and time.monotonic() > self._closing_since + QUIT_TIME

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
        while not self._closing_since or isinstance(event, Disconnected):
            try:
                return self._events.put(event, timeout=0.1)
            except queue.Full:
                if self._closing_since:
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
        while not self._closing_since or (self._outgoing and not self._is_late):
            writing = selectors.EVENT_WRITE if self._outgoing else 0
            selector.modify(sock, selectors.EVENT_READ | writing)
            left = QUIT_TIME if self._closing_since else deadline - time.monotonic()
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
            text = "%s answers, but not as a chat server does." % self.address
            raise RefusedError(SERVER, text)

    def _handle(self, line: bytes) -> None:
        try:
            message = protocol.parse(line, "replace")
        except protocol.ProtocolError:
            return  # whatever it was, it is nothing that could be shown
        if message.command == "PING":
            if len(self._outgoing) > MAX_OUTGOING:
                raise RefusedError(LOST, "The server does not read what it asks for.")
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
            raise RefusedError(LOST, message.text)
        else:
            if message.command == "NICK" and message.nickname == self._handshake.nickname:
                self._nickname = self._handshake.nickname = message.text
            self._put(message)

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


def _cleaned(message: Message) -> Message:
    """`message` with all its text safe to show; what CTCP wraps stays wrapped."""
    params = []
    for param in message.params:
        mark = "\x01" if param.startswith("\x01") else ""
        params.append(mark + protocol.clean(param) + mark)
    source = protocol.clean(message.source, 200)
    return message._replace(params=tuple(params), source=source)


# Conversations

SENT, WAITING, FAILED = "sent", "waiting", "failed"  # of a line that is one's own
ROOM, CONSOLE = "room", "console"  # kinds of conversation, beside PRIVATE
ALL, MENTIONS, NONE = "all", "mentions", "none"  # what one wants to be told of
ONLINE, AWAY, OFFLINE = "online", "away", "offline"
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

    __slots__ = ("folded", "id", "is_mention", "line", "msgid", "note", "state")

    def __init__(self, number: int, line: Line, msgid: str = "") -> None:
        self.id = number
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


class Hit(NamedTuple):
    """Where a search has found something: from `start` to `end` in the entry's text."""

    entry: Entry
    start: int
    end: int


class Person(NamedTuple):
    """Somebody in a room. `prefix` is @ for its operators, + for who may speak, or ""."""

    nickname: str
    prefix: str = ""
    is_away: bool = False


class Conversation:
    """A room, a person one talks to, or the server itself (while there is neither)."""

    def __init__(self, name: str, kind: str) -> None:
        self.rename(name)
        self.kind = kind
        self.topic = ""
        self.entries: List[Entry] = []  # in the order of the server, one's own waiting ones last
        self.unread = self.mentions = 0
        self.first_unread = self.new_count = 0  # the id of the entry below the mark; how many
        self.draft = ""
        self.level = MENTIONS
        self.has_older = self.is_fetching = False
        self.is_joined = kind != ROOM
        self.is_wanted = False  # a room that one comes back to
        self.members: Dict[str, Person] = {}
        self.limit = MAX_ENTRIES
        self.is_behind = False  # there may be more than is known after `link`
        self.link: Optional[Entry] = None
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

    def knows(self, msgid: str) -> bool:
        return msgid in self._known

    def add(self, entry: Entry) -> None:
        """Put `entry` at the end; past the limit the oldest go, many at once."""
        self.entries.append(entry)
        if entry.msgid:
            self._known[entry.msgid] = entry
        if len(self.entries) > self.limit + self.limit // 10:
            self._cut(len(self.entries) - self.limit)
            self.has_older = True

    def _cut(self, count: int) -> None:
        for entry in self.entries[:count]:
            self._known.pop(entry.msgid, None)
        del self.entries[:count]

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

    def merge(self, earlier: Sequence[Entry]) -> Tuple[str, List[Entry]]:
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
            runs.append((place + 1, run))
            run = []
        if run:
            runs.append((self._place_of(run[0].line.when) if place is None else place, run))
        fresh: List[Entry] = []
        for place, run in runs:
            self.entries[place:place] = run[::-1]
            fresh += run
        self._known.update((entry.msgid, entry) for entry in fresh if entry.msgid)
        is_earlier = all(place == 0 for place, run in runs if run)
        return EARLIER if is_earlier else RELOADED, fresh[::-1]

    def _place_of(self, when: float) -> int:
        place = len(self.entries)
        while place and (
            self.entries[place - 1].state != SENT or self.entries[place - 1].line.when > when
        ):
            place -= 1
        return place

    def fall_behind(self) -> None:
        """From now on things may be said that one does not hear."""
        if not self.is_behind:  # else what one has heard since stands beyond a gap
            self.is_behind, self.link = True, self.newest()

    def forget(self) -> None:
        """Know nothing but what still waits: there is a gap, and history closes none."""
        self.entries = [entry for entry in self.entries if entry.state != SENT]
        self._known = {}

    def newest(self) -> Optional[Entry]:
        """The last entry that the history has."""
        return next((entry for entry in reversed(self.entries) if entry.msgid), None)

    def oldest(self) -> Optional[Entry]:
        """The first one."""
        return next((entry for entry in self.entries if entry.msgid), None)

    def find(self, words: str) -> List[Hit]:
        """The places where `words` stand, whatever their case: the last MAX_HITS, in order."""
        needle = words.casefold()
        hits: List[Hit] = []
        for entry in reversed(self.entries if needle else ()):
            if needle in entry.folded:
                hits += reversed(list(_find_in(entry, needle)))
                if len(hits) >= MAX_HITS:
                    break
        return hits[MAX_HITS - 1 :: -1]


def _find_in(entry: Entry, needle: str) -> Iterator[Hit]:
    text, folded = entry.text, entry.folded
    places: Sequence[int] = range(len(text) + 1)  # of the folded text in the text
    if len(folded) != len(text):
        places = [i for i, char in enumerate(text) for _ in char.casefold()] + [len(text)]
    start = folded.find(needle)
    while start >= 0:
        end = start + len(needle)
        yield Hit(entry, places[start], places[end - 1] + 1)
        start = folded.find(needle, end)


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
        serial = int(label[1:]) if label[:1] == "m" and label[1:].isdecimal() else 0
        return next((p for p in self.waiting if serial and p.serial == serial), None)

    def said(self, stage: str, params: Tuple[str, ...]) -> Optional[Pending]:
        """The first one in this stage that begins with these parameters."""
        key = protocol.casefold(params[0])
        for pending in self.waiting:
            said = pending.message.params[1 : len(params)]
            if pending.stage == stage and pending.key == key and said == params[1:]:
                return pending
        return None

    def before(self, serial: int) -> List[Pending]:
        """Those that were sent up to this one."""
        return [p for p in self.waiting if p.stage == OUT and p.serial <= serial]

    def doubtful(self, key: str) -> List[Pending]:
        return [p for p in self.waiting if p.stage == DOUBTFUL and p.key == key]

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


class Request(NamedTuple):
    """A piece of the history that was asked for."""

    purpose: str  # FIRST, OLDER, MISSED, TYPED or TARGETS; "" where nobody has asked
    key: str  # of the conversation
    limit: int = 0
    page: int = 1
    is_linked: bool = False  # it reaches back to what is known


FIRST, OLDER, MISSED, TYPED, TARGETS = "first", "older", "missed", "typed", "targets"


class Batch:
    """A piece of the history that is being told."""

    __slots__ = ("messages", "request", "target")

    def __init__(self, target: str, request: Request) -> None:
        self.target = target
        self.request = request
        self.messages: List[Message] = []


class Desk:
    """The conversations as their user sees them: which there are, what is in view, what is new.

    It knows nothing of where they come from.
    """

    def __init__(self, server: str, levels: Optional[Dict[str, str]]) -> None:
        self.nickname = ""
        self.has_history = False  # there may be more than is known
        self._console = Conversation(server, CONSOLE)
        self.conversations = [self._console]
        self.current = self._console
        self._address = server
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

    def _entry(self, line: Line, msgid: str = "") -> Entry:
        self._entries += 1
        return Entry(self._entries, line, msgid)

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
        new.has_older = self.has_history  # until the answer says otherwise
        if kind == ROOM and self._console in self.conversations:  # it has done its part
            self.conversations.remove(self._console)
            new.entries, self._console.entries = self._console.entries, []
        index = len([c for c in self.conversations if c.kind == ROOM])
        self.conversations.insert(index if kind == ROOM else len(self.conversations), new)
        self._changed(LIST)
        return new

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


class Chat(Desk):
    """All that is known of a server, and what each of its messages means.

    Pure: the same events give the same state. Not for several threads at once. `now` is the
    time in seconds since 1970. What is refused to the user is a protocol.InputError.
    """

    def __init__(self, server: str, levels: Optional[Dict[str, str]] = None) -> None:
        self.server = server  # its network's name, once that is known
        self.state = DISCONNECTED
        self.is_away = False
        self._outbox = Outbox()
        self._completer = Completer()
        self._correspondent = ""  # who wrote privately last
        self._room_keys: Dict[str, str] = {}  # what opens a room
        self._ignored: Dict[str, str] = {}  # folded nicknames to nicknames
        self._wanted = ""  # the nickname that we want back
        self._banner = ""
        self._retry_at = self._back_at = 0.0
        self._last_heard = 0.0  # the server's time of the last message
        self._candidate: Optional[Login] = None  # typed, but not yet accepted
        self._login: Optional[Login] = None  # accepted just now
        self._forget_session()
        super().__init__(server, levels)

    def _forget_session(self) -> None:
        """Know nothing of a connection any more."""
        self._caps: FrozenSet[str] = frozenset()
        self._tokens: Dict[str, str] = {}  # of ISUPPORT
        self._session = 0
        self.is_settled = False  # past the welcome: one may talk
        self._is_return = self._is_resumed = False
        self._held: Set[str] = set()  # to whom nothing is sent yet
        self._is_certain = True  # nobody but this connection sends what we have typed
        self._names: Dict[str, Dict[str, Person]] = {}  # of answers to NAMES
        self._asked_names = 0
        self._wants_view: Set[str] = set()  # rooms that the user is about to enter
        self._requests: List[Request] = []
        self._batches: Dict[str, Batch] = {}
        self._online: Dict[str, bool] = {}  # who is watched, and whether they are here
        self._missed: Dict[str, int] = {}  # how many were, in each conversation

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

    @property
    def hint(self) -> str:
        """What the empty chat box says."""
        if self.current.kind == CONSOLE:
            return "Enter a room with /join ROOM, or write to one person: @USERNAME MESSAGE"
        later = "" if self.state == CONNECTED else " — sent when you are back online"
        return "Message %s%s" % (self.current.name, later)

    @property
    def unsent(self) -> int:
        """How many of one's own messages are not known to be delivered."""
        return len(self._outbox.waiting)

    def banner(self, now: float) -> Banner:
        """What the window warns of; it changes with the time."""
        if self.state == CONNECTED:
            return Banner("Connected again." if now < self._back_at + BACK_TIME else "")
        if self.state != RECONNECTING:
            return Banner(self._banner)
        left = math.ceil(self._retry_at - now)
        when = "in %d s" % left if left > 0 else "now"
        return Banner(self._banner.format(when), left > 0)

    def presence(self, nickname: str) -> str:
        """Whether somebody is here, as far as is known."""
        key = protocol.casefold(nickname)
        found = [c.members[key] for c in self.conversations if key in c.members]
        if found:
            return AWAY if found[0].is_away else ONLINE
        return ONLINE if self._online.get(key) else OFFLINE

    # What the user does

    def begin(self, nickname: str) -> None:
        """A connection is under way."""
        self.nickname = self._wanted = nickname
        self.state = CONNECTING

    def submit(self, text: str, now: float) -> Outcome:
        """What the user typed, or pasted: only its first line can be a command.

        Raises protocol.InputError, with the words for the user; then nothing was sent.
        """
        lines = [protocol.clean(line).strip() for line in text.splitlines()]
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
        if typed.verb not in ("say", "me"):
            here = self._room.name if self._room is not None else ""
        source = self.nickname + _USER_AT_HOST
        return protocol.compose(typed, here, source, self._correspondent)

    @property
    def _room(self) -> Optional[Conversation]:
        """The room in view, or else the first one."""
        rooms = [c for c in self.conversations if c.kind == ROOM]
        return self.current if self.current in rooms else next(iter(rooms), None)

    def _check(self, typed: protocol.Input, messages: List[Message]) -> None:
        need = _NEEDS.get(typed.verb, "")
        texts = [message for message in messages if message.command == "PRIVMSG"]
        if typed.verb == "quit" or (typed.verb in _LOCAL and not messages):
            return
        if not self.is_settled and len(texts) < len(messages):
            raise protocol.InputError("You are not connected. Wait until you are.")
        if need and self.state == CONNECTED and need not in self._caps:
            raise protocol.InputError("This server has no /%s." % typed.verb)
        place = self.current
        is_out = self.is_settled and not place.is_joined and place.key not in self._held
        if texts and typed.verb in ("say", "me") and is_out:
            raise protocol.InputError("You are not in {0}. /join {0}".format(place.name))

    def select(self, conversation: Conversation, now: float) -> Outcome:
        """Show a conversation."""
        self._begin_outcome(now)
        self._show(conversation)
        return self._outcome()

    def open(self, name: str, now: float) -> Outcome:
        """Show the conversation with a person, or in a room, which is entered first."""
        found = self.find(name)
        if found is not None and (found.is_joined or found.key in self._held):
            return self.select(found, now)
        if name.startswith(self._room_signs):
            return self.submit("/join " + name, now)
        if not protocol.is_nickname(name):
            raise protocol.InputError(protocol.NO_SUCH_USER.format(name))
        self._begin_outcome(now)
        self._show(self._private(name))
        return self._outcome()

    def close(self, conversation: Conversation, now: float) -> Outcome:
        """Leave a room; put a private conversation away."""
        self._begin_outcome(now)
        if conversation.kind == ROOM and conversation.is_joined and self.is_settled:
            self._send.append(Message("PART", (conversation.name,)))
        self._discard(conversation)
        return self._outcome()

    def fetch_older(self, conversation: Conversation) -> Outcome:
        """Ask for what was said before all that is known."""
        self._begin_outcome(self._now)
        if conversation.has_older and not conversation.is_fetching and self.is_settled:
            first = conversation.oldest()
            if first is None:
                self._ask(conversation, FIRST, ("LATEST", conversation.name, "*"))
            else:
                point = "msgid=" + first.msgid
                self._ask(conversation, OLDER, ("BEFORE", conversation.name, point))
        return self._outcome()

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
        elif sign in self._room_signs:
            names = [c.name + " " for c in self.conversations if c.kind == ROOM]
        else:
            at = "@" if sign == "@" else ""
            end = ": " if is_first and not at else " "
            names = [at + name + end for name in self._nicknames()]
        key = protocol.casefold(begun)
        return [name for name in names if protocol.casefold(name).startswith(key)]

    def _nicknames(self) -> List[str]:
        """Whom one may mean: first who spoke last here, then the others here and elsewhere."""
        found: Dict[str, str] = {}
        for entry in self.current.entries[:-RECENT:-1]:
            if entry.line.kind == FROM_OTHERS:
                name = entry.line.head.strip("[]:* ")
                found.setdefault(protocol.casefold(name), name)
        here = [c for c in (self.current, self._room) if c is not None]
        people = [person.nickname for c in here for person in c.people]
        people += [c.name for c in self.conversations if c.kind == PRIVATE]
        for name in people:
            found.setdefault(protocol.casefold(name), name)
        found.pop(protocol.casefold(self.nickname), None)
        present = {key for c in here for key in c.members} | {c.key for c in self.conversations}
        return [name for key, name in found.items() if key in present]

    # What the user can do without the server

    def _help(self, args: Tuple[str, ...], messages: List[Message]) -> List[Message]:
        for line in protocol.help_lines():
            self._tell(line)
        return messages

    def _list(self, args: Tuple[str, ...], messages: List[Message]) -> List[Message]:
        self._asked_names += 1
        return messages

    def _history(self, args: Tuple[str, ...], messages: List[Message]) -> List[Message]:
        asked = messages[0]
        limit = int(asked.params[-1][:9])
        self._requests.append(Request(TYPED, protocol.casefold(asked.params[1]), limit))
        return messages

    def _join(self, args: Tuple[str, ...], messages: List[Message]) -> List[Message]:
        name = messages[0].params[0]
        found = self.find(name)
        if found is not None and found.is_joined:
            self._show(found)
            return messages[1:]
        self._wants_view.add(protocol.casefold(name))
        if len(messages[0].params) > 1:
            self._room_keys[protocol.casefold(name)] = messages[0].params[1]
        return messages

    def _ignore(self, args: Tuple[str, ...], messages: List[Message]) -> List[Message]:
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
        if "SILENCE" in self._tokens:
            return messages
        self._tell(text)
        return messages[1:]

    def _remember(self, args: Tuple[str, ...], messages: List[Message]) -> List[Message]:
        name = args[0] if len(args) > 1 else self.nickname
        self._candidate = Login(name, args[-1])
        return messages

    # What happens to the connection

    def handle(self, event: Event, now: float) -> Outcome:
        """Something that the connection told."""
        self._begin_outcome(now)
        if isinstance(event, Connected):
            self._on_connected(event)
        elif isinstance(event, Lost):
            self._on_lost(event)
        elif isinstance(event, Disconnected):
            self._on_disconnected(event)
        else:
            self._on_message(event)
        return self._outcome()

    def _on_connected(self, event: Connected) -> None:
        is_return = self.state == RECONNECTING or bool(self._room)
        self._forget_session()
        self.state, self.nickname, self._session = CONNECTED, event.nickname, event.session
        self._caps, self._is_resumed = event.caps, event.is_resumed
        self.has_history = HISTORY in self._caps
        self._is_return = is_return
        if is_return:
            self._back_at = self._now
            self._is_certain = self._is_me(self._wanted)
            self._held = {c.key for c in self.conversations if c.is_wanted}
            self._held |= {p.key for p in self._outbox.waiting if p.stage == DOUBTFUL}
        else:
            self._wanted = event.nickname
        self._changed(STATUS)

    def _on_lost(self, event: Lost) -> None:
        if self.state == CONNECTED:
            self._leave_all(event.unsent)
            self._inform("%s Messages you send now wait here." % event.reason)
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
        self._outbox.lose(unsent)
        for pending in self._outbox.waiting:
            self._renote(pending, _WAITS)
        for conversation in self.conversations:
            conversation.is_fetching = False
            conversation.fall_behind()
            if conversation.kind == ROOM:
                conversation.members, conversation.is_joined = {}, False
                self._changed(PEOPLE, conversation)
        self.is_settled = False
        self._changed(LIST)

    def _settle(self) -> None:
        """Go on from the welcome: back to where we were, and what was missed there."""
        if self.is_settled:
            return
        self.is_settled = True
        rooms = [c for c in self.conversations if c.is_wanted and not c.is_joined]
        for room in rooms:
            key = self._room_keys.get(room.key, "")
            self._send.append(Message("JOIN", (room.name, key) if key else (room.name,)))
        if not self._is_resumed and "SILENCE" in self._tokens:
            self._send += [Message("SILENCE", ("+" + name,)) for name in self._ignored.values()]
        private = [c for c in self.conversations if c.kind == PRIVATE]
        watched = [c.name for c in private]
        self._watch(watched if self._is_me(self._wanted) else [self._wanted, *watched])
        if self._is_return and self.has_history:
            after = protocol.format_time(self._last_heard)
            points = ["timestamp=" + after, "timestamp=" + protocol.format_time(self._now + DAY)]
            self._request(Request(TARGETS, "", PAGE), ("TARGETS", *points, str(PAGE)))
        for name in [p.message.params[0] for p in self._outbox.waiting if p.stage == DOUBTFUL]:
            if not name.startswith(self._room_signs) and not self._is_asked(name):
                self._catch_up(self._private(name))
        self._flush()

    def _is_asked(self, name: str) -> bool:
        return protocol.casefold(name) in [request.key for request in self._requests]

    def _watch(self, names: List[str]) -> None:
        """Have the server tell when these people come and go."""
        if names and "MONITOR" in self._tokens:
            self._send.append(Message("MONITOR", ("+", ",".join(names[:MAX_WATCHED]))))

    # What the server says

    def _on_message(self, message: Message) -> None:
        batch = self._batches.get(message.tags.get("batch", ""))
        if message.command == "BATCH" and message.params:
            self._on_batch(message)
        elif batch is not None:
            if len(batch.messages) < MAX_PIECE:
                batch.messages.append(message)
        else:
            if "time" in message.tags:
                self._last_heard = max(self._last_heard, self._when(message))
            if not self._is_refusal(message):
                least, handler = _HANDLERS.get(message.command, (0, None))
                if handler is None:
                    self._show_line(message, [self.current])
                elif len(message.params) >= least:
                    self._show_line(message, handler(self, message))

    def _is_refusal(self, message: Message) -> bool:
        """Whether `message` refuses something of ours in words that have been shown."""
        command, label = message.command, message.tags.get("label", "")
        if command != "FAIL" and not "400" <= command <= "599":
            return False
        pending = self._outbox.labeled(label)
        if pending is None and command in _UNDELIVERED and len(message.params) > 1:
            pending = self._outbox.said(OUT, message.params[1:2])
        if pending is not None:
            self._fail(pending, _FAILED)
            if command == "401":
                self._tell(protocol.NO_SUCH_USER.format(message.params[1]) + self._hint(message))
                return True
        return False

    def _hint(self, message: Message) -> str:
        """Who may have been meant."""
        known = {protocol.casefold(name): name for name in self._nicknames()}
        wanted = protocol.casefold(message.params[1])
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
            pending = self._outbox.labeled(message.tags.get("label", ""))
            pending = pending or self._outbox.said(OUT, message.params[:2])
            if pending is not None:
                self._confirm(pending, line, message.tags.get("msgid", ""), target)
                return ()
        if "!" not in message.source:
            return [self.find(target) or self.current]
        is_private = not target.lstrip("@+").startswith(self._room_signs)
        place = self.find(target.lstrip("@+")) or self.current
        if is_private:
            place = self._private(target if is_mine else who)
            self._correspondent = self._correspondent if is_mine else who
        entry = self._entry(line, message.tags.get("msgid", ""))
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
        if not name.startswith(self._room_signs) or " " in name or len(name) > 100:
            return ()
        was_known = room is not None
        room = room or self._new(name, ROOM)
        is_return = room.key in self._held
        room.rename(name)
        room.topic, room.is_joined, room.is_wanted = "", True, True
        room.members = {protocol.casefold(who): Person(who)}
        self._settle()
        if self.current is self._console or room.key in self._wants_view:
            self._wants_view.discard(room.key)
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
            room.members, room.is_joined, room.is_wanted = {}, False, False
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
        if not new:
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

    def _reclaim(self, key: str) -> None:
        """Take our name back from the ghost that had it."""
        if key == protocol.casefold(self._wanted) and not self._is_me(self._wanted):
            self._send.append(Message("NICK", (self._wanted,)))

    def _on_topic(self, message: Message) -> "Places":
        """TOPIC, 331 and 332"""
        is_news = message.command == "TOPIC"
        room = self.find(message.params[0 if is_news else 1])
        if room is None:
            return [self.current]
        room.topic = "" if message.command == "331" else message.text
        self._changed(HEADER, room)
        return [room]

    def _on_mode(self, message: Message) -> "Places":
        room = self.find(message.params[0])
        if room is None:
            return [self.current]
        for change in protocol.parse_modes(message.params[1:]):
            person = room.members.get(protocol.casefold(change.arg))
            sign = {"o": "@", "v": "+"}.get(change.letter, "")
            if person is not None and sign:
                prefix = person.prefix.replace(sign, "")
                prefix = "".join(sorted(prefix + sign, reverse=True)) if change.adding else prefix
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
        found = self._names.setdefault(protocol.casefold(message.params[-2]), {})
        for word in message.text.split():
            name = word.lstrip(_PREFIXES)
            if name and len(found) < MAX_NAMES:
                found[protocol.casefold(name)] = Person(name, word[: -len(name)])
        return ()

    def _on_end_of_names(self, message: Message) -> "Places":
        """366"""
        room = self.find(message.params[1])
        found = self._names.pop(protocol.casefold(message.params[1]), {})
        if room is None:
            return ()
        for key, person in room.members.items():
            if key in found and person.is_away:
                found[key] = found[key]._replace(is_away=True)
        is_news, room.members = len(room.members) < 2, found
        if self._asked_names:
            self._asked_names -= 1
            for text in protocol.online([person.nickname for person in room.people]):
                self._tell(text)
        elif is_news and "away-notify" in self._caps and len(found) <= MAX_ASKED:
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
            key = protocol.casefold(name.partition("!")[0])
            self._online[key] = message.command == "730"
            if message.command == "731":
                self._reclaim(key)
        self._changed(LIST)
        return ()

    def _on_welcome(self, message: Message) -> "Places":
        """Numerics of the welcome, which one has read when one comes back."""
        return () if self._is_return else [self.current]

    def _on_isupport(self, message: Message) -> "Places":
        """005"""
        for token in message.params[1:-1]:
            name, _, value = token.partition("=")
            self._tokens[name] = protocol.unescape_token(value)
        network = self._tokens.get("NETWORK", "")
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
            for pending in self._outbox.before(int(serial[:9])):
                target = pending.message.params[0]
                self._confirm(pending, pending.entry.line, "", target)
        return ()

    def _on_ack(self, message: Message) -> "Places":
        pending = self._outbox.labeled(message.tags.get("label", ""))
        if pending is not None:
            self._confirm(pending, pending.entry.line, "", pending.message.params[0])
        return ()

    def _on_login(self, message: Message) -> "Places":
        """903, or REGISTER SUCCESS"""
        if message.command == "903" or message.params[0] == "SUCCESS":
            self._login, self._candidate = self._candidate, None
        return [self.current]

    def _on_fail(self, message: Message) -> "Places":
        if message.params[0] == "CHATHISTORY" and self._requests:
            request = self._requests.pop(0)
            found = self.find(request.key)
            if found is not None:
                found.is_fetching = False
                self._changed(HEADER, found)
            self._resolve(request.key, False)
            return [self.current] if request.purpose == TYPED else ()
        return [self.current]

    def _on_no_entry(self, message: Message) -> "Places":
        """The refusals of JOIN"""
        key = protocol.casefold(message.params[1])
        self._wants_view.discard(key)
        room = self.find(key)
        if room is None or key not in self._held:
            return [self.current]
        self._held.discard(key)
        room.is_wanted = False
        for pending in [p for p in self._outbox.waiting if p.key == key]:
            self._fail(pending, _FAILED)
        return [room]

    # The history

    def _request(self, request: Request, params: Tuple[str, ...]) -> None:
        self._requests.append(request)
        self._send.append(Message("CHATHISTORY", params))

    def _ask(
        self, place: Conversation, purpose: str, params: Tuple[str, ...], page: int = 1,
        is_linked: bool = False,
    ) -> None:  # fmt: skip
        """Ask for a piece of the history of a conversation."""
        most = self._tokens.get("CHATHISTORY", "")
        limit = MISSED_PAGE if purpose == MISSED else PAGE
        limit = min(limit, int(most[:9])) if most.isdecimal() and int(most[:9]) else limit
        place.is_fetching = True
        self._changed(HEADER, place)
        request = Request(purpose, place.key, limit, page, is_linked)
        self._request(request, (*params, str(limit)))

    def _catch_up(self, place: Conversation, purpose: str = MISSED) -> None:
        """Ask for what was said since one was there."""
        last = place.link if place.is_behind else place.newest()
        if not self.has_history:
            self._resolve(place.key, False)
        elif last is None:
            self._ask(place, purpose, ("LATEST", place.name, "*"))
        else:  # the last that is known, too: the link to what is not
            point = "timestamp=" + protocol.format_time(last.line.when - 0.001)
            self._ask(place, purpose, ("AFTER", place.name, point))

    def _on_batch(self, message: Message) -> None:
        sign, ref, kind = message.params[0][:1], message.params[0][1:], message.params[1:2]
        if sign == "+" and kind in _HISTORIES and len(self._batches) < MAX_BATCHES:
            target = message.params[-1] if kind == ("chathistory",) else ""
            self._batches[ref] = Batch(target, self._answered(protocol.casefold(target)))
        elif sign == "-" and ref in self._batches:
            batch = self._batches.pop(ref)
            if batch.request.purpose == TARGETS:
                self._take_targets(batch.messages)
            else:
                self._take_history(batch)

    def _answered(self, key: str) -> Request:
        """The request that a piece of history answers: they are answered in order."""
        for index, request in enumerate(self._requests):
            if request.key == key:
                return self._requests.pop(index)
        return Request("", key)  # nobody asked

    def _take_targets(self, messages: List[Message]) -> None:
        for message in messages:
            name = message.params[1] if len(message.params) > 2 else "#"
            if not name.startswith(self._room_signs) and not self._is_asked(name):
                self._catch_up(self._private(name))
        for place in self.conversations:
            if place.kind == PRIVATE and not self._is_asked(place.name):
                place.is_behind = False

    def _take_history(self, batch: Batch) -> None:
        request, messages = batch.request, batch.messages
        place = self.find(batch.target)
        if place is None:
            return self._resolve(protocol.casefold(batch.target), False)
        place.is_fetching = False
        linked = request.is_linked or any(place.knows(m.tags.get("msgid", "-")) for m in messages)
        told = [entry for m in messages for entry in self._earlier(m, place)]
        kind, fresh = place.merge(told)
        if fresh:
            self._changes.append(Change(kind, place, fresh))
        if request.purpose in (FIRST, OLDER) or (request.purpose == MISSED and not linked):
            place.has_older = len(messages) >= request.limit > 0
        recalled = told if request.purpose == TYPED else fresh
        if (recalled and request.purpose != OLDER) or request.purpose == TYPED:
            self._changes.append(Change(RECALLED, place, recalled))
        if request.purpose == MISSED:
            self._take_missed(place, request, messages, fresh, linked)
        elif request.purpose == FIRST and place.key in self._held:
            self._resolve(place.key, False)
        return self._changed(HEADER, place)

    def _take_missed(
        self, place: Conversation, request: Request, messages: List[Message],
        fresh: List[Entry], linked: bool,
    ) -> None:  # fmt: skip
        news = [e for e in fresh if e.line.kind in (FROM_OTHERS, PRIVATE) and not self._is_own(e)]
        self._missed[place.key] = self._missed.get(place.key, 0) + len(news)
        self._arrive(place, news, is_missed=True)
        last = messages[-1].tags.get("msgid", "") if messages else ""
        if len(messages) >= request.limit and last and request.page < MAX_PAGES:
            params = ("AFTER", place.name, "msgid=" + last)
            return self._ask(place, MISSED, params, request.page + 1, linked)
        if len(messages) >= request.limit:  # too much to fetch it all: begin anew
            place.forget()
            place.is_behind = False
            self._changes.append(Change(RELOADED, place))
            self._ask(place, FIRST, ("LATEST", place.name, "*"))
            return None
        place.is_behind = False
        count = self._missed.pop(place.key)
        if count:
            words = "1 message" if count == 1 else "%d messages" % count
            self._inform("Connected again. You missed %s." % words, place)
        self._resolve(place.key, place.kind == ROOM or linked or self._is_resumed)
        return None

    def _earlier(self, message: Message, place: Conversation) -> Iterator[Entry]:
        """The entry of something said earlier: the one that is there already, if there is one."""
        line = protocol.describe(message, self.nickname, self._when(message))
        if line is None or (
            message.nickname and protocol.casefold(message.nickname) in self._ignored
        ):
            return
        msgid = message.tags.get("msgid", "")
        if self._is_me(message.nickname) and not place.knows(msgid):
            pending = self._outbox.said(DOUBTFUL, message.params[:2])
            if pending is not None:  # it had arrived
                place.remove(pending.entry)
                self._accept(pending, line, msgid)
                yield pending.entry
                return
        entry = self._entry(line, message.tags.get("msgid", ""))
        is_text = line.kind == FROM_OTHERS
        entry.is_mention = is_text and self._is_meant(line.text)
        yield entry

    def _resolve(self, key: str, is_proof: bool) -> None:
        """It is known which of our words to `key` have arrived, or (no proof) will never be."""
        self._held.discard(key)
        for pending in self._outbox.doubtful(key):
            if is_proof and self._is_certain:
                pending.stage = QUEUED
            else:
                self._fail(pending, _DOUBT)
        self._flush()

    # One's own words

    def _say(self, message: Message) -> None:
        said = message._replace(source=self.nickname + "!")
        line = protocol.describe(said, self.nickname, self._now)
        if line is None:
            return
        entry = self._entry(line, message.tags.get("msgid", ""))
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
        return self.is_settled and key not in self._held

    def _flush(self) -> None:
        """Send what waits and may go."""
        echoes = "echo-message" in self._caps
        ready = self._outbox.send(self._is_ready, echoes and "labeled-response" in self._caps)
        for pending in ready:
            self._send.append(pending.message)
            self._renote(pending, "")
        if ready and not echoes:  # its answer says that what came before was taken
            self._send.append(Message("PING", ("sent-%d" % ready[-1].serial,)))

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
        if not target.startswith(self._room_signs):
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

    # What is seen

    def _begin_outcome(self, now: float) -> None:
        super()._begin_outcome(now)
        self._send: List[Message] = []
        self._login = None

    def _outcome(self, done: bool = False) -> Outcome:
        return Outcome(self._send, self._changes, done, self._session, self._login)

    def _show(self, place: Conversation) -> None:
        super()._show(place)
        is_unknown = place.newest() is None and not place.is_fetching
        if place.kind == PRIVATE and is_unknown and self.has_history and self.is_settled:
            self._catch_up(place, FIRST)

    def _show_line(self, message: Message, places: "Places") -> None:
        """Show what `message` looks like in each of `places`."""
        line = protocol.describe(message, self.nickname, self._when(message)) if places else None
        if line is not None:
            entry = self._entry(line, message.tags.get("msgid", ""))
            for place in places:
                if not place.knows(entry.msgid):
                    self._add(entry, place)

    def _is_own(self, entry: Entry) -> bool:
        return entry.line.kind == FROM_ME or entry.line.head.startswith("[you ->")

    def _when(self, message: Message) -> float:
        """When it was said: by the server's clock where it tells, else now."""
        try:
            return max(float(DAY), protocol.parse_time(message.tags["time"]))
        except (KeyError, ValueError):
            return self._now

    @property
    def _room_signs(self) -> Tuple[str, ...]:
        return tuple(self._tokens.get("CHANTYPES", "#")) or ("#",)

    def _private(self, name: str) -> Conversation:
        """The conversation with somebody; where there are too many, the one in view."""
        found = self.find(name)
        if found is None and len(self.conversations) >= MAX_CONVERSATIONS:
            return self.current
        if found is None:
            found = self._new(name, PRIVATE)
            if self.is_settled:
                self._watch([name])
        return found


Places = Sequence[Conversation]  # where the line of a message is shown

_WAITS, _FAILED, _DOUBT = "waiting to send", "not delivered", "may not have arrived"
_PREFIXES = "~&@%+"  # before the names of those who have a say in a room
_HISTORIES = (("chathistory",), ("draft/chathistory-targets",))

# Room for what a server will put before our words: user@host, at their longest.
_USER_AT_HOST = "!" + "u" * 10 + "@" + "h" * 63

# Numerics that refuse what was said: nobody there, no such room, may not, too many.
_UNDELIVERED = frozenset("401 403 404 407 411 412 477 486 531".split())
_NO_ENTRY = "403 405 437 471 473 474 475 476 477 479 480 489 520".split()

# What the server must have agreed to before these are asked of it.
_NEEDS = {
    "history": HISTORY, "register": "draft/account-registration", "login": "sasl",
    "ban": RESUME, "mute": RESUME, "unban": RESUME, "bans": RESUME, "announce": RESUME,
    "stats": RESUME,
}  # fmt: skip

# What is done here before, or in place of, what goes to the server.
_LOCAL: Dict[str, Callable[[Chat, Tuple[str, ...], List[Message]], List[Message]]] = {
    "help": Chat._help, "list": Chat._list, "history": Chat._history, "join": Chat._join,
    "ignore": Chat._ignore, "unignore": Chat._unignore,
    "register": Chat._remember, "login": Chat._remember,
}  # fmt: skip

# What each command of the server means: how many parameters it has at least, and who sees to
# it, which tells where its line is shown. What is in no row is shown where one looks.
_HANDLERS: Dict[str, Tuple[int, Callable[[Chat, Message], Places]]] = {
    "PRIVMSG": (2, Chat._on_text), "NOTICE": (2, Chat._on_text),
    "JOIN": (1, Chat._on_join), "PART": (1, Chat._on_part), "KICK": (2, Chat._on_kick),
    "QUIT": (0, Chat._on_quit), "NICK": (1, Chat._on_nick), "MODE": (2, Chat._on_mode),
    "TOPIC": (2, Chat._on_topic), "331": (3, Chat._on_topic), "332": (3, Chat._on_topic),
    "AWAY": (0, Chat._on_away), "305": (1, Chat._on_own_away), "306": (1, Chat._on_own_away),
    "353": (2, Chat._on_names), "366": (2, Chat._on_end_of_names), "352": (7, Chat._on_who),
    "730": (2, Chat._on_monitored), "731": (2, Chat._on_monitored),
    "001": (1, Chat._on_welcome), "372": (1, Chat._on_welcome), "375": (1, Chat._on_welcome),
    "005": (2, Chat._on_isupport), "376": (0, Chat._on_end_of_motd),
    "422": (0, Chat._on_end_of_motd), "PONG": (1, Chat._on_pong), "ACK": (0, Chat._on_ack),
    "903": (1, Chat._on_login), "REGISTER": (1, Chat._on_login), "FAIL": (1, Chat._on_fail),
    **dict.fromkeys(_NO_ENTRY, (2, Chat._on_no_entry)),
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

    def save(self) -> None:
        """Write the file, all of it or nothing."""
        whole = json.dumps(self._values(), ensure_ascii=False, indent=1, sort_keys=True)
        try:
            os.makedirs(os.path.dirname(self._path), exist_ok=True)
            with open(self._path + ".new", "w", encoding="utf-8") as file:
                file.write(whole + "\n")
            os.replace(self._path + ".new", self._path)
        except (OSError, ValueError) as error:
            log.warning("The settings are not kept: %s", error)

    def remember(self, server: str) -> None:
        """Put a server before the others that one has been to."""
        self.servers = [server, *[s for s in self.servers if s != server]][:MAX_SERVERS]

    def _values(self) -> Dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name[0] != "_"}

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

    def run(self, host: str, port: int, nickname: str) -> int:
        """Chat until /quit or the end of input (0), or until the connection is lost (1).

        Where a person types, a connection that is lost comes back.
        """
        password = ""
        is_person = sys.stdin.isatty()
        while True:
            nickname = nickname or self._ask("Username: ")
            if not nickname:
                print("No username was given.", file=self._errors)
                return 1
            connection = Connection(host, port, password, nickname, self._events, is_person)
            chat = Chat(connection.address)
            chat.begin(nickname)
            connection.start()
            try:
                end = self._chat(connection, chat)
            except KeyboardInterrupt:
                end = Disconnected(CLOSED, "")
            except BrokenPipeError:  # who read along has had enough; what is left goes nowhere
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                end = Disconnected(CLOSED, "")
            finally:
                connection.close(QUIT_TIME)
            if end.fault == CLOSED:
                return 0
            print(end.reason, file=self._errors)
            if not is_person or end.fault not in (NAME, PASSWORD):
                return 1
            if end.fault == NAME:
                nickname = ""
            else:
                password = getpass.getpass("Password: ")

    def _ask(self, prompt: str) -> str:
        if sys.stdin.isatty():
            print(prompt, end="", file=self._output, flush=True)
        return protocol.normalize(next(self._lines, "").strip())

    def _chat(self, connection: Connection, chat: Chat) -> Disconnected:
        reading = done = is_ending = False
        while True:
            patience = 2 * QUIT_TIME if done else END_TIME if is_ending else None
            try:
                event = self._events.get(timeout=patience)
            except queue.Empty:  # a server that answers no more
                if done or not chat.unsent:
                    return Disconnected(CLOSED, "")
                text = "The server does not answer: %d of your messages may not have arrived."
                return Disconnected(LOST, text % chat.unsent)
            if isinstance(event, Typed):
                is_ending = event.text is None
                outcome = self._submit(chat, event.text)
            else:
                outcome = chat.handle(event, time.time())
                is_pong = isinstance(event, Message) and event.command == "PONG"
                if is_pong and event.text == self._LAST:
                    outcome = outcome._replace(send=[Message("QUIT")], done=True)
            (self._may_read.set if chat.unsent < MAX_UNSENT else self._may_read.clear)()
            if done and isinstance(event, Disconnected):
                return Disconnected(CLOSED, "")
            self._print(outcome.changes, chat)
            connection.carry_out(outcome)
            done = done or outcome.done
            if isinstance(event, Disconnected):
                return event
            if chat.is_settled and not reading:
                reading = True
                # Daemon: reading from a terminal cannot be called off.
                threading.Thread(target=self._read, name="input", daemon=True).start()

    def _submit(self, chat: Chat, text: Optional[str]) -> Outcome:
        if text is None:
            return Outcome(send=[Message("PING", (self._LAST,))])
        try:
            return chat.submit(text, time.time())
        except protocol.InputError as error:
            return chat.note(str(error), time.time())

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
            if entry.state == SENT or (entry.state == WAITING and entry.note):
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
    """The lines of standard input, without their ends; pipes are UTF-8 everywhere.

    Read below Python's buffer, whose lock a thread that never returns would keep for ever.
    """
    encoding = stream.encoding if stream.isatty() else "utf-8"
    framer = protocol.Framer(MAX_PASTE)
    data = b"\n"
    while data:
        data = stream.buffer.raw.read(protocol.MAX_TYPED) or b""
        for line in framer.feed(data or b"\n"):
            if line:
                yield line.decode(encoding, "replace")


def _text_stream(stream: Any) -> Any:
    """A standard stream that never fails on a character; pipes are UTF-8 everywhere."""
    encoding = stream.encoding if stream.isatty() else "utf-8"
    return io.TextIOWrapper(stream.buffer, encoding, errors="replace", line_buffering=True)


# The look: colours, sizes and fonts, in one place

PALETTES = {
    "dark": {
        "bg": "#14171c", "chat": "#1a1e25", "field": "#232933", "hover": "#222832",
        "line": "#2b313c", "outline": "#6b7687", "text": "#f2f4f8", "muted": "#a3adbd",
        "time": "#99a3b3", FROM_SERVER: "#6cb6ff", FROM_ME: "#7ee0a1", FROM_OTHERS: "#f2f4f8",
        PRIVATE: "#d3adff", WAITING: "#a3adbd", "error": "#ff8a80", "ok": "#4fd18b",
        FROM_SYSTEM: "#f2c14e", "warn": "#f2c14e", "accent": "#2f6be0", "accent_hover": "#3771e6",
        "accent_pressed": "#2459c4", "focus": "#6aa5ff", "banner": "#3a2f12",
        "banner_text": "#ffe2a0", "selection": "#284269", "thumb": "#444d5c",
    },
    "light": {
        "bg": "#eff2f6", "chat": "#ffffff", "field": "#ffffff", "hover": "#e4e9f0",
        "line": "#d9dfe7", "outline": "#7b8696", "text": "#1b2027", "muted": "#525c6a",
        "time": "#626d7c", FROM_SERVER: "#0b57b7", FROM_ME: "#166b34", FROM_OTHERS: "#1b2027",
        PRIVATE: "#7434b5", WAITING: "#525c6a", "error": "#b3261e", "ok": "#1a7f43",
        FROM_SYSTEM: "#8a5700", "warn": "#8a5700", "accent": "#1f5fd0", "accent_hover": "#2c6ce0",
        "accent_pressed": "#184da9", "focus": "#1f5fd0", "banner": "#fff1c9",
        "banner_text": "#5c4100", "selection": "#cadcfb", "thumb": "#b9c2ce",
    },
}  # fmt: skip
AVATARS = ("#c2553b", "#a8640f", "#5d7a1f", "#1f7f5c", "#1f7a94", "#3c6fd1", "#7a57c9", "#a94799")
FAMILIES = ("Segoe UI", "Inter", "Cantarell", "Ubuntu", "Noto Sans", "DejaVu Sans")
FONTS: "Dict[str, Tuple[int, Literal['normal', 'bold']]]" = {  # pixels at 96 dpi, weight
    "chat": (14, "normal"), "name": (14, "bold"), "time": (12, "normal"), "ui": (13, "normal"),
    "ui_bold": (13, "bold"), "small": (12, "normal"), "caption": (11, "bold"),
    "room": (16, "bold"), "title": (22, "bold"),
}  # fmt: skip

POLL_MS = 30  # between two looks at the queue; 10 when there was more than a batch
BATCH = 200  # events shown at once, so that a flood leaves time for keys
MAX_LINES = 5000  # lines of a transcript that are kept on the screen
MAX_ROWS = 5  # lines that the chat box grows to


class Look:
    """The colours, fonts and sizes of one theme, and what ttk makes of them."""

    def __init__(self, root: "tk.Tk", theme: str) -> None:
        self.color = PALETTES[theme]
        dpi = root.winfo_fpixels("1i")
        steps = round(dpi / 96 * 4) if 0 < dpi < 960 else 4  # some systems report nonsense
        self._scale = min(16, max(4, steps)) / 4
        families = set(tkfont.families(root))
        default = tkfont.nametofont("TkDefaultFont").actual("family")
        family = next((name for name in FAMILIES if name in families), default)
        self.font = {
            name: tkfont.Font(root, family=family, size=-self.dp(size), weight=weight)
            for name, (size, weight) in FONTS.items()
        }
        self._style(root)

    def dp(self, size: int) -> int:
        """Pixels on this screen for so many on one of 96 dpi."""
        return round(size * self._scale)

    def _style(self, root: "tk.Tk") -> None:
        color, style = self.color, ttk.Style(root)
        style.theme_use("clam")
        style.configure(".", background=color["bg"], foreground=color["text"])
        style.configure(".", font=self.font["ui"])
        for name in ("Chat.TFrame", "Chat.TLabel"):
            style.configure(name, background=color["chat"])
        style.configure("Line.TFrame", background=color["line"])
        style.configure("Title.TLabel", font=self.font["title"])
        style.configure("Room.TLabel", background=color["chat"], font=self.font["room"])
        style.configure("Strong.TLabel", font=self.font["ui_bold"])
        style.configure("Muted.TLabel", foreground=color["muted"], font=self.font["small"])
        style.configure("ChatMuted.TLabel", foreground=color["muted"], font=self.font["small"],
                        background=color["chat"])  # fmt: skip
        style.configure("Error.TLabel", foreground=color["error"], font=self.font["small"])
        for name in ("Banner.TFrame", "Banner.TLabel"):
            style.configure(name, background=color["banner"], foreground=color["banner_text"])
        pad = self.dp(9)
        style.configure("TEntry", fieldbackground=color["field"], foreground=color["text"],
                        insertcolor=color["text"], bordercolor=color["outline"],
                        lightcolor=color["field"], darkcolor=color["field"],
                        selectbackground=color["selection"], selectforeground=color["text"],
                        padding=(self.dp(12), pad))  # fmt: skip
        edge = [("invalid", color["error"]), ("focus", color["focus"])]
        style.map("TEntry", bordercolor=edge, lightcolor=edge, darkcolor=edge,
                  foreground=[("disabled", color["muted"])],
                  fieldbackground=[("disabled", color["bg"])])  # fmt: skip
        self._style_button(style, "Accent.TButton", "#ffffff", color["accent"],
                           color["accent_hover"], color["accent_pressed"])  # fmt: skip
        self._style_button(style, "Banner.TButton", color["banner_text"], color["banner"],
                           color["banner"], color["banner"])  # fmt: skip
        style.configure("Banner.TButton", bordercolor=color["banner_text"], relief="solid",
                        padding=(self.dp(12), self.dp(3)))  # fmt: skip
        thumb: Any = [("Vertical.Scrollbar.thumb", {"expand": "1", "sticky": "nswe"})]
        trough: Any = ("Vertical.Scrollbar.trough", {"sticky": "ns", "children": thumb})
        style.layout("TScrollbar", [trough])
        style.configure("TScrollbar", background=color["thumb"], troughcolor=color["chat"],
                        bordercolor=color["chat"], lightcolor=color["thumb"],
                        darkcolor=color["thumb"], gripcount=0, width=self.dp(10))  # fmt: skip

    def _style_button(
        self, style: "ttk.Style", name: str, text: str, normal: str, hover: str, pressed: str
    ) -> None:
        style.configure(name, foreground=text, background=normal, bordercolor=normal,
                        lightcolor=normal, darkcolor=normal, font=self.font["ui_bold"],
                        padding=self.dp(8), focuscolor=text, relief="flat")  # fmt: skip
        states = [("pressed", pressed), ("active", hover)]
        style.map(name, background=states, lightcolor=states, darkcolor=states,
                  bordercolor=[("focus", self.color["focus"])])  # fmt: skip


def tk_text(text: str) -> str:
    """`text` as this Python's Tk can show it: 3.6 takes other characters as two halves."""
    if sys.version_info >= (3, 7) or max(text, default="") <= "\uffff":
        return text
    data = text.encode("utf-16-le", "surrogatepass")
    units = (data[index : index + 2] for index in range(0, len(data), 2))
    return "".join(chr(int.from_bytes(unit, "little")) for unit in units)


class Transcript:
    """The lines of a conversation, which one can scroll and copy but not change."""

    def __init__(self, parent: "tk.Misc", look: Look) -> None:
        color, dp = look.color, look.dp
        self.frame = ttk.Frame(parent, style="Chat.TFrame")
        self.text = tk.Text(
            self.frame, wrap="word", state="disabled", bd=0, highlightthickness=0, cursor="arrow",
            bg=color["chat"], fg=color["text"], font=look.font["chat"], insertwidth=0,
            padx=dp(20), pady=dp(12), spacing1=dp(3), spacing2=dp(1), spacing3=dp(3),
            selectbackground=color["selection"], inactiveselectbackground=color["selection"],
        )  # fmt: skip
        self._scrollbar = ttk.Scrollbar(self.frame, command=self.text.yview)
        self.text.configure(yscrollcommand=self._on_scroll)
        self.frame.columnconfigure(0, weight=1)
        self.frame.rowconfigure(0, weight=1)
        self.text.grid(row=0, column=0, sticky="nsew")
        self._scrollbar.grid(row=0, column=1, sticky="ns", padx=(0, dp(2)))
        hanging = look.font["time"].measure("[00:00:00] ")
        self.text.tag_configure("line", lmargin2=hanging)
        self.text.tag_configure("time", foreground=color["time"], font=look.font["time"])
        for kind in (FROM_SERVER, FROM_ME, FROM_OTHERS, PRIVATE, FROM_SYSTEM, WAITING):
            self.text.tag_configure(kind, foreground=color[kind])
        self.text.tag_configure("name", font=look.font["name"])
        self.text.tag_raise("sel")
        self._at_end = True  # before the last change: new lines and new sizes keep it so
        self.text.bind("<Configure>", self._on_resize)

    def show_end(self) -> None:
        """Scroll to the last line."""
        self.text.see("end")

    def append(self, lines: Iterable[Line]) -> None:
        """Add lines at the end, and stay there if the end was in view."""
        pieces: List[Any] = []
        for line in lines:
            newline = "\n" if pieces or self.text.index("end-1c") != "1.0" else ""
            pieces += [newline, "line", line.clock + " ", ("line", "time")]
            pieces += [tk_text(line.head), ("line", line.kind, "name")]
            pieces += [" " + tk_text(line.text), ("line", line.kind)]
        if not pieces:
            return
        at_end = self._at_end
        self.text.configure(state="normal")
        self.text.insert("end", *pieces)
        count = int(self.text.index("end-1c").partition(".")[0])
        if count > MAX_LINES:  # many at once, which costs as little as one
            self.text.delete("1.0", "%d.0" % (count - MAX_LINES + MAX_LINES // 10))
        self.text.configure(state="disabled")
        if at_end:
            self.show_end()

    def clear(self) -> None:
        """Remove all lines."""
        self.text.configure(state="normal")
        self.text.delete("1.0", "end")
        self.text.configure(state="disabled")

    def _on_resize(self, event: "tk.Event[Any]") -> None:
        if self._at_end:
            self.show_end()

    def _on_scroll(self, first: float, last: float) -> None:
        self._scrollbar.set(first, last)
        self._at_end = float(last) > 0.999
        if float(first) <= 0 and float(last) >= 1:
            self._scrollbar.grid_remove()
        else:
            self._scrollbar.grid()


class Composer:
    """The chat box: Enter hands the text over, Shift+Enter begins a line.

    A text that `submit` refuses, by returning False, stays. (A Text even for one line:
    Tk's entry fields damage memory when emoji are edited.)
    """

    def __init__(self, parent: "tk.Misc", look: Look, submit: Callable[[str], bool]) -> None:
        color, dp = look.color, look.dp
        self._submit = submit
        self._focus, self._outline = color["focus"], color["outline"]
        self.frame = tk.Frame(parent, bg=color["field"], highlightthickness=dp(1),
                              highlightbackground=color["outline"])  # fmt: skip
        self.text = tk.Text(
            self.frame, height=1, width=1, wrap="word", bd=0, highlightthickness=0, undo=True,
            bg=color["field"], fg=color["text"], insertbackground=color["text"],
            font=look.font["chat"], padx=dp(12), pady=dp(9), selectbackground=color["selection"],
        )  # fmt: skip
        self.text.pack(fill="both", expand=True)
        self._hint = tk.Label(self.text, bg=color["field"], fg=color["muted"], bd=0, padx=0,
                              font=look.font["chat"], cursor="xterm")  # fmt: skip
        self._hint.bind("<Button-1>", lambda event: self.text.focus_set())
        bindings = {
            "<Return>": self._on_return, "<KP_Enter>": self._on_return,
            "<Shift-Return>": lambda event: None, "<<Paste>>": self._on_paste,
            "<Control-a>": self._on_select_all, "<Tab>": self._on_tab,
            "<FocusIn>": self._on_focus, "<FocusOut>": self._on_focus,
            "<<Modified>>": self._on_modified,
        }  # fmt: skip
        for sequence, handler in bindings.items():
            self.text.bind(sequence, handler)
        self._on_modified()

    def set_hint(self, hint: str) -> None:
        """What the empty box says."""
        self._hint.configure(text=tk_text(hint))

    def insert(self, text: str) -> None:
        """Type `text` for the user, at the beginning."""
        self.text.insert("1.0", tk_text(text))
        self.text.focus_set()

    def _on_return(self, event: "tk.Event[Any]") -> str:
        if self._submit(self.text.get("1.0", "end-1c")):
            self.text.delete("1.0", "end")
            self.text.edit_reset()
        return "break"

    def _on_paste(self, event: "tk.Event[Any]") -> str:
        try:
            text = self.text.clipboard_get()[:MAX_PASTE]
        except tk.TclError:
            return "break"  # nothing there that is text
        if self.text.tag_ranges("sel"):
            self.text.delete("sel.first", "sel.last")
        self.text.insert("insert", tk_text(text.replace("\r\n", "\n").replace("\0", "")))
        self.text.see("insert")
        return "break"

    def _on_select_all(self, event: "tk.Event[Any]") -> str:
        self.text.tag_add("sel", "1.0", "end-1c")
        return "break"

    def _on_tab(self, event: "tk.Event[Any]") -> str:
        event.widget.tk_focusNext().focus_set()
        return "break"

    def _on_focus(self, event: "tk.Event[Any]") -> None:
        focused = event.type == tk.EventType.FocusIn
        edge = self._focus if focused else self._outline
        self.frame.configure(highlightbackground=edge, highlightcolor=edge)

    def _on_modified(self, event: "Optional[tk.Event[Any]]" = None) -> None:
        if self.text.get("1.0", "2.0") in ("", "\n") and self.text.index("end-1c") == "1.0":
            self._hint.place(x=1, y=0)
        else:
            self._hint.place_forget()
        self.text.edit_modified(False)
        self.text.after_idle(self._grow)

    def _grow(self) -> None:
        rows = self.text.count("1.0", "end", "displaylines") or 1
        rows = rows[0] if isinstance(rows, tuple) else rows
        height = max(1, min(MAX_ROWS, rows))
        if int(self.text.cget("height")) != height:
            self.text.configure(height=height)


class PeopleList:
    """Names with their avatars; draws only those in view. A click hands the name over."""

    def __init__(self, parent: "tk.Misc", look: Look, choose: Callable[[str], None]) -> None:
        self._look = look
        self._choose = choose
        self._names: List[str] = []
        self._me = ""
        self._top = 0  # the first pixel in view
        self._drawing = ""  # the id of a redraw that is due
        self.canvas = tk.Canvas(parent, bg=look.color["bg"], bd=0, highlightthickness=0,
                                width=look.dp(200), height=1, takefocus=0)  # fmt: skip
        self.canvas.bind("<Configure>", lambda event: self._redraw_soon())
        self.canvas.bind("<Button-1>", self._on_click)
        self.canvas.bind("<MouseWheel>", lambda event: self._scroll(-event.delta / 120))
        self.canvas.bind("<Button-4>", lambda event: self._scroll(-1))
        self.canvas.bind("<Button-5>", lambda event: self._scroll(1))

    def show(self, names: List[str], me: str) -> None:
        """Show these; cheap when nothing changed."""
        if (names, me) != (self._names, self._me):
            self._names, self._me = names, me
            self._redraw_soon()

    def _scroll(self, rows: float) -> None:
        self._top += int(rows * self._look.dp(38))
        self._redraw_soon()

    def _redraw_soon(self) -> None:
        if not self._drawing:
            self._drawing = self.canvas.after_idle(self._redraw)

    def _redraw(self) -> None:
        self._drawing = ""
        look, canvas = self._look, self.canvas
        dp, row = look.dp, look.dp(38)
        width, height = canvas.winfo_width(), canvas.winfo_height()
        self._top = max(0, min(self._top, len(self._names) * row - height))
        canvas.delete("all")
        last = min(len(self._names), (self._top + height) // row + 1)
        for index in range(self._top // row, last):
            name, y = self._names[index], index * row - self._top + row // 2
            mine = name == self._me
            shade = AVATARS[sum(map(ord, protocol.casefold(name))) % len(AVATARS)]
            canvas.create_oval(dp(16), y - dp(14), dp(44), y + dp(14), fill=shade, outline="")
            canvas.create_text(dp(30), y, text=tk_text(name[0].upper()), fill="#ffffff",
                               font=look.font["ui_bold"])  # fmt: skip
            canvas.create_oval(dp(35), y + dp(4), dp(46), y + dp(15), fill=look.color["ok"],
                               outline=look.color["bg"], width=dp(2))  # fmt: skip
            room = width - dp(54) - dp(12)
            if mine:
                canvas.create_text(width - dp(14), y, text="you", anchor="e",
                                   fill=look.color["muted"], font=look.font["small"])  # fmt: skip
                room -= dp(30)
            color = look.color[FROM_ME if mine else "text"]
            canvas.create_text(dp(54), y, text=tk_text(self._shorten(name, room)), anchor="w",
                               fill=color, font=look.font["ui"])  # fmt: skip

    def _shorten(self, name: str, width: int) -> str:
        font = self._look.font["ui"]
        if font.measure(tk_text(name)) <= width:
            return name
        while name and font.measure(tk_text(name) + "…") > width:
            name = name[:-1]
        return name + "…"

    def _on_click(self, event: "tk.Event[Any]") -> None:
        index = (self._top + event.y) // self._look.dp(38)
        if 0 <= index < len(self._names):
            self._choose(self._names[index])


class ConnectView:
    """Asks who the user is and where the server runs, and says what went wrong."""

    def __init__(
        self, root: "tk.Tk", look: Look, connect: Callable[[str, str, str], None],
        cancel: Callable[[], None],
    ) -> None:  # fmt: skip
        dp = look.dp
        self._connect, self._cancel = connect, cancel
        self._connecting = False
        self.frame = ttk.Frame(root, padding=(dp(32), dp(28), dp(32), dp(20)))
        self.frame.columnconfigure(0, weight=1)
        ttk.Label(self.frame, text="Join the chat", style="Title.TLabel").grid(sticky="w")
        ttk.Label(self.frame, text="Pick a name and a server on your network.",
                  style="Muted.TLabel").grid(sticky="w", pady=(dp(2), dp(24)))  # fmt: skip
        # Tk's entry fields cannot take emoji; neither a name nor an address has any.
        accept = root.register(lambda text: all(char <= "\uffff" for char in text))
        self.fields: Dict[str, ttk.Entry] = {}
        self.hints: Dict[str, ttk.Label] = {}
        self._usual = {
            NAME: "Up to %d letters, digits, - or _" % protocol.MAX_NAME,
            SERVER: "The address that the server's console shows",
            PASSWORD: "The host can tell you",
        }
        captions = ((NAME, "Your name"), (SERVER, "Server"), (PASSWORD, "Password"))
        self._password_parts: List[Any] = []
        for field, caption in captions:
            label = ttk.Label(self.frame, text=caption, style="Strong.TLabel")
            entry = ttk.Entry(self.frame, font=look.font["chat"], validate="key",
                              validatecommand=(accept, "%P"))  # fmt: skip
            hint = ttk.Label(self.frame, style="Muted.TLabel", wraplength=dp(390))
            label.grid(sticky="w")
            entry.grid(sticky="ew", pady=(dp(6), dp(5)))
            hint.grid(sticky="w", pady=(0, dp(16)))
            self.fields[field], self.hints[field] = entry, hint
            if field == PASSWORD:
                entry.configure(show="•")
                self._password_parts = [label, entry, hint]
        for part in self._password_parts:
            part.grid_remove()
        self.frame.rowconfigure(20, weight=1)
        self.button = ttk.Button(self.frame, style="Accent.TButton", command=self.submit)
        self.button.grid(row=21, sticky="ew", pady=(dp(16), dp(10)))
        ttk.Label(self.frame, text="Enter to connect   ·   Esc to quit", style="Muted.TLabel").grid(
            row=22
        )
        for entry in self.fields.values():
            entry.bind("<Return>", lambda event: self.submit())
            entry.bind("<KP_Enter>", lambda event: self.submit())
        self.say("", "")

    def fill(self, name: str, server: str) -> None:
        """Set the fields."""
        for field, text in ((NAME, name), (SERVER, server)):
            self.fields[field].delete(0, "end")
            self.fields[field].insert(0, text)

    def say(self, field: str, fault: str) -> None:
        """Ready for another try: mark what is wrong with a field ("" for none)."""
        self.set_connecting("")
        if field == PASSWORD:
            for part in self._password_parts:
                part.grid()
        for name, entry in self.fields.items():
            wrong = name == field
            entry.state(["invalid" if wrong else "!invalid"])
            hint = fault if wrong else self._usual[name]
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
        text = "Connecting to %s…  (Esc to cancel)" % server if server else "Connect"
        self.button.configure(text=text)
        if server:
            self.button.focus_set()

    def submit(self) -> None:
        """Connect with what the fields say, or call off what is under way."""
        if self._connecting:
            return self._cancel()
        values = (self.fields[field].get().strip() for field in (NAME, SERVER, PASSWORD))
        return self._connect(*values)


class ChatView:
    """The transcript, the chat box, who is here, and a banner while the connection is down."""

    def __init__(
        self, root: "tk.Tk", look: Look, submit: Callable[[str], bool],
        reconnect: Callable[[], None],
    ) -> None:  # fmt: skip
        dp = look.dp
        self.frame = ttk.Frame(root, style="Chat.TFrame")
        self.frame.columnconfigure(0, weight=1)
        self.frame.rowconfigure(3, weight=1)
        header = ttk.Frame(self.frame, style="Chat.TFrame", padding=(dp(20), dp(10)))
        self._room = ttk.Label(header, style="Room.TLabel")
        self._topic = ttk.Label(header, style="ChatMuted.TLabel")
        self._room.pack(anchor="w")
        self._topic.pack(anchor="w")
        header.grid(row=0, column=0, sticky="ew")
        header.bind("<Configure>", lambda event: self._topic.configure(wraplength=event.width))
        ttk.Frame(self.frame, style="Line.TFrame", height=1).grid(row=1, columnspan=3, sticky="ew")
        self._banner = ttk.Frame(self.frame, style="Banner.TFrame")
        self._banner.configure(padding=(dp(20), dp(8), dp(14), dp(8)))
        self.banner_text = ttk.Label(self._banner, style="Banner.TLabel")
        self.banner_button = ttk.Button(self._banner, text="Reconnect", style="Banner.TButton",
                                        command=reconnect)  # fmt: skip
        self.banner_button.pack(side="right")
        self.banner_text.pack(side="left", fill="x")
        self._banner.bind("<Configure>", lambda event: self.banner_text.configure(
            wraplength=max(1, event.width - dp(180))))  # fmt: skip
        self._banner.grid(row=2, column=0, sticky="ew")
        self._banner.grid_remove()
        self.transcript = Transcript(self.frame, look)
        self.transcript.frame.grid(row=3, column=0, sticky="nsew")
        self.composer = Composer(self.frame, look, submit)
        self.composer.frame.grid(row=4, column=0, sticky="ew", padx=dp(16), pady=(dp(4), dp(14)))
        edge = ttk.Frame(self.frame, style="Line.TFrame", width=1)
        edge.grid(row=0, column=1, rowspan=5, sticky="ns")
        side = ttk.Frame(self.frame)
        side.grid(row=0, column=2, rowspan=5, sticky="ns")
        self._count = ttk.Label(side, style="Strong.TLabel", padding=(dp(16), dp(20), 0, dp(12)))
        self._count.pack(anchor="w")
        self.people = PeopleList(side, look, self._address)
        self.people.canvas.pack(fill="both", expand=True)
        # Typing goes to the chat box, wherever one has clicked.
        self.transcript.text.bind("<Key>", self._on_stray_key)

    def show(self, chat: Chat) -> None:
        """Make all but the transcript say what `chat` knows."""
        self._room.configure(text=tk_text(chat.current.name))
        self._topic.configure(text=tk_text(chat.current.topic or "No topic"))
        people = [person.nickname for person in chat.current.people]
        self._count.configure(text="People  %d" % len(people))
        self.people.show(people, chat.nickname)
        self.composer.set_hint(chat.hint)

    def warn(self, text: str, button: bool = True) -> None:
        """Show the banner; "" hides it."""
        self.banner_text.configure(text=tk_text(text))
        if button:
            self.banner_button.pack(side="right")
        else:
            self.banner_button.pack_forget()
        if text:
            self._banner.grid()
        else:
            self._banner.grid_remove()

    def _address(self, name: str) -> None:
        if not self.composer.text.get("1.0", "end").startswith("@%s " % name):
            self.composer.insert("@%s " % name)

    def _on_stray_key(self, event: "tk.Event[Any]") -> Optional[str]:
        if not event.char.isprintable() or not event.char or int(event.state) & 0x4C:
            return None  # a key, or one with Control or Alt, that a text may want
        self.composer.text.focus_set()
        self.composer.text.insert("insert", event.char)
        return "break"


class Window:
    """The program's window. All of it runs on Tk's thread."""

    def __init__(self, root: "tk.Tk", theme: str) -> None:
        root.withdraw()  # until there is something to see
        root.report_callback_exception = self._on_exception
        self.root = root
        self.chat: Optional[Chat] = None
        self._connection: Optional[Connection] = None
        self._events: "queue.Queue[Any]" = queue.Queue()  # of the connection; each has its own
        self._place = ("", 0, "")  # host, port and password of the last connection
        self._polling = ""  # the id of the next look at the queue
        look = Look(root, theme)
        root.configure(bg=look.color["bg"])
        self.connect_view = ConnectView(root, look, self._on_connect, self._cancel)
        self.chat_view = ChatView(root, look, self._on_submit, self._reconnect)
        self._sizes = {
            self.connect_view: (look.dp(460), look.dp(600)),
            self.chat_view: (look.dp(1160), look.dp(720)),
        }
        self._minimum = {
            self.connect_view: (look.dp(460), look.dp(520)),  # all fields and the button
            self.chat_view: (look.dp(480), look.dp(360)),
        }
        self.view: Union[ConnectView, ChatView, None] = None
        root.protocol("WM_DELETE_WINDOW", self.close)
        root.bind("<Escape>", self._on_escape)
        root.bind("<Control-q>", lambda event: self.close())

    def run(self, host: str, port: int, username: str, at_once: bool) -> None:
        """Show the window until it is closed; connect at once where all is known."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: self._close_soon())
        self.start(host, port, username, at_once)
        self.root.mainloop()

    def start(self, host: str, port: int, username: str, at_once: bool) -> None:
        """All that `run` does before Tk's loop."""
        host = "[%s]" % host if ":" in host else host
        server = host if port == SERVER_PORT else "%s:%d" % (host, port)
        self.connect_view.fill(username, server)
        self._show(self.connect_view)
        self.connect_view.say("", "")
        self._poll()
        if at_once:
            self.connect_view.submit()

    def close(self) -> None:
        """Say goodbye and end. Idempotent."""
        if self.root is None:
            return
        self.root.after_cancel(self._polling)
        self._leave(QUIT_TIME)
        root, self.root = self.root, None  # type: ignore[assignment]
        root.destroy()

    def _close_soon(self) -> None:
        """Close when what is under way is done: for signals, which come at any time."""
        if self.root is not None:
            self.root.after(0, self.close)

    def _show(self, view: Union[ConnectView, ChatView]) -> None:
        """Put a view in place of the other, at its size."""
        self._show_title()
        if view is self.view:
            return
        if self.view is not None:
            self.view.frame.pack_forget()
        view.frame.pack(fill="both", expand=True)
        self.view = view
        width, height = self._sizes.pop(view, (0, 0))
        if width:  # afterwards its size is the user's
            width = min(width, self.root.winfo_screenwidth())
            height = min(height, self.root.winfo_screenheight())
            self.root.geometry("%dx%d" % (width, height))
        self.root.minsize(*self._minimum[view])
        self.root.update_idletasks()
        self.root.deiconify()
        if isinstance(view, ChatView):
            view.composer.text.focus_set()

    def _show_title(self) -> None:
        title = self.chat.title if self.chat else "Not connected — Hubbub"
        if title != self.root.title():
            self.root.title(tk_text(title))

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
        if self.chat is None or self._place[:2] != place[:2]:
            self.chat = Chat("%s:%d" % place[:2])
            self.chat_view.transcript.clear()
        self._place = place
        self._open(name)
        return self.connect_view.set_connecting(server)

    def _open(self, name: str) -> None:
        assert self.chat is not None  # noqa: S101
        self._leave()
        self._events = queue.Queue(MAX_EVENTS)
        self._connection = Connection(*self._place, name, self._events)
        self._connection.start()
        self.chat.begin(name)
        self._show_title()

    def _reconnect(self) -> None:
        if self._connection is not None:
            self._connection.retry()

    def _leave(self, wait: float = 0.0) -> None:
        if self._connection is not None:
            self._connection.close(wait)
            self._connection = None

    def _cancel(self) -> None:
        self._leave()
        self.chat = None
        self.connect_view.say("", "")
        self._show_title()

    # What happens

    def _poll(self) -> None:
        delay = POLL_MS
        try:
            if self._take() == BATCH:
                delay = POLL_MS // 3
        finally:  # whatever happened, the window lives on
            if self.root is not None:
                self._polling = self.root.after(delay, self._poll)

    def _take(self) -> int:
        """Show what has come, up to a BATCH of events; how many there were."""
        changes: List[Change] = []
        count = 0
        end = None
        while count < BATCH and end is None and self.chat is not None:
            try:
                event = self._events.get_nowait()
            except queue.Empty:
                break
            count += 1
            outcome = self.chat.handle(event, time.time())
            changes += outcome.changes
            if self._connection is not None:
                self._connection.carry_out(outcome)
            if isinstance(event, Connected):
                self._show(self.chat_view)
            elif isinstance(event, Disconnected):
                end = event
        if count:
            self._redraw(changes)
            self._refresh()
        if end is not None:
            self._on_disconnected(end)
        return count

    def _redraw(self, changes: Iterable[Change]) -> None:
        """Show what is different."""
        assert self.chat is not None  # noqa: S101
        here = [c for c in changes if c.conversation is self.chat.current]
        transcript = self.chat_view.transcript
        if any(c.kind in (CHANGED, REMOVED, EARLIER, RELOADED, SELECTED) for c in here):
            transcript.clear()
            entries: Sequence[Entry] = self.chat.current.entries[-MAX_LINES:]
        else:
            entries = [entry for c in here if c.kind == ADDED for entry in c.entries]
        lines = []
        for entry in entries:
            note = "  (%s)" % entry.note if entry.note else ""
            kind = entry.line.kind if entry.state == SENT else WAITING
            lines.append(entry.line._replace(kind=kind, text=entry.line.text + note))
        transcript.append(lines)

    def _refresh(self) -> None:
        if self.chat is not None:
            self.chat_view.show(self.chat)
            banner = self.chat.banner(time.time())
            if self.view is self.chat_view:
                self.chat_view.warn(banner.text, banner.can_retry)
        self._show_title()

    def _on_disconnected(self, end: Disconnected) -> None:
        self._leave()
        if end.fault in (NAME, PASSWORD) or self.view is self.connect_view:
            self._show(self.connect_view)
            self.connect_view.say(SERVER if end.fault == LOST else end.fault, end.reason)
        else:
            self.chat_view.warn(end.reason)

    def _on_submit(self, text: str) -> bool:
        """Whether the text may go from the chat box."""
        if self.chat is None:
            return False
        try:
            outcome = self.chat.submit(text, time.time())
        except protocol.InputError as error:
            self._redraw(self.chat.note(str(error), time.time()).changes)
            self.chat_view.transcript.show_end()
            return False
        if self._connection is not None:
            self._connection.carry_out(outcome)
        self._redraw(outcome.changes)
        self.chat_view.transcript.show_end()
        if outcome.done:
            self.root.after_idle(self.close)
        return True

    def _on_escape(self, event: "tk.Event[Any]") -> None:
        if self.view is self.chat_view:
            self.chat_view.composer.text.focus_set()
        elif self._connection is not None:
            self._cancel()
        else:
            self.close()

    def _on_exception(self, kind: Any, error: BaseException, trace: Any) -> None:
        log.error("our mistake", exc_info=(kind, error, trace))


def open_window(theme: str) -> Optional[Window]:
    """The window; None, after saying why, where there is no tkinter or no display."""
    if tk is None:
        print("There is no tkinter here, so you chat in the terminal.", file=sys.stderr)
        return None
    try:
        return Window(tk.Tk(className="Hubbub"), theme)
    except tk.TclError as error:
        print("There is no window (%s), so you chat in the terminal." % error, file=sys.stderr)
        return None


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
    parser.add_argument("--theme", choices=sorted(PALETTES), default="dark")
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
    if not args.terminal:
        window = open_window(args.theme)
        if window is not None:
            window.run(host, port, username, at_once=bool(args.server and username))
            return 0
    return Terminal().run(host, port, username)


if __name__ == "__main__":
    sys.exit(main())
