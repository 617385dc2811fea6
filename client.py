#!/usr/bin/env python3
"""Hubbub's client: a window to chat in, or a terminal where there is no window.

    python3 client.py [SERVER[:PORT]] [--username NAME] [--terminal]

Three parts, each of which knows nothing of the next:

    Connection   the socket and the `receive` thread, which connects, reads and writes;
                 all that it tells goes into one queue: Connected, Message, Disconnected
    Chat         what is known and what it means: no socket, no widget, no clock
    Window       widgets only; it polls the queue and shows what Chat says

What comes from the network is made safe to show once, in the receive thread. The queue is
bounded: when the window cannot keep up the thread waits, and so, in the end, does the sender.
It speaks IRC (see protocol.py), and nothing that only Hubbub's own server would understand.
"""

import argparse
import errno
import getpass
import io
import logging
import os
import queue
import selectors
import signal
import socket
import sys
import threading
import time
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Dict,
    Iterable,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
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
QUIT_TIME = 1.0  # seconds to say goodbye when the program ends
MAX_EVENTS = 4000  # messages that wait for the window; past it the receive thread waits
RECEIVE_SIZE = 65536  # bytes read at once
MAX_OUTGOING = 1024 * 1024  # bytes that wait for a server that goes on asking
MAX_NAMES = 100000  # people in a room, and names in the answers about it
MAX_SEEN = 2000  # msgids that are remembered
MAX_BATCHES = 100  # pieces of the history that are being told at once
MAX_PASTE = 20000  # characters of a paste, or bytes of a line, that are taken at once


# The connection

# Whose turn it is to mend a Disconnected: another name, the password, another server or
# another try; or nobody's, for the user had it end.
NAME, PASSWORD, SERVER, LOST, CLOSED = "name", "password", "server", "lost", "closed"


class Connected(NamedTuple):
    """The server has welcomed us."""

    nickname: str
    echoes: bool  # what we say comes back when it is delivered


class Disconnected(NamedTuple):
    """The connection is over, or never was. `reason` is for the user."""

    fault: str  # NAME, PASSWORD, SERVER, LOST or CLOSED
    reason: str


Event = Union[Connected, Message, Disconnected]


class RefusedError(Exception):
    """The server will not have us; carries the Disconnected that says why."""

    def __init__(self, fault: str, reason: str) -> None:
        super().__init__(reason)
        self.event = Disconnected(fault, reason)


class Handshake:
    """What is said until the server has welcomed us (no I/O).

    https://modern.ircdocs.horse/#connection-setup
    """

    WANTED = ("batch", "echo-message", "message-tags", "server-time")

    def __init__(self, nickname: str, password: str) -> None:
        self.nickname = nickname
        self.done = False
        self.caps: List[str] = []  # what the server has agreed to
        self._password = password
        self._offered: List[str] = []

    def opening(self) -> List[Message]:
        """The first messages."""
        messages = [Message("PASS", (self._password,))] if self._password else []
        user = Message("USER", (self.nickname, "0", "*", self.nickname))
        return [*messages, Message("CAP", ("LS", "302")), Message("NICK", (self.nickname,)), user]

    def answer(self, message: Message) -> List[Message]:
        """What to say to `message`. Raises RefusedError."""
        command, params = message.command, message.params
        if command == "CAP" and len(params) > 2:
            return self._answer_cap(params[1], params[2:])
        if command == "001" and params:
            self.nickname = params[0]
            self.done = True
        elif command in ("433", "436"):
            text = "“%s” is already here. Try another name, for example %s2."
            raise RefusedError(NAME, text % (self.nickname, self.nickname[: protocol.MAX_NAME - 1]))
        elif command in ("432", "437"):
            raise RefusedError(NAME, message.text)
        elif command == "464":
            wrong = "Wrong password." if self._password else "This server asks for a password."
            raise RefusedError(PASSWORD, wrong)
        elif command in ("ERROR", "465"):
            raise RefusedError(SERVER, message.text)
        return []

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
            self.caps = words
        elif verb != "NAK":
            return []
        return [Message("CAP", ("END",))]


class Connection:
    """A connection to one server, from `start` until its Disconnected is in the queue.

    `send` and `close` may be called from any thread and never wait for the network.
    """

    def __init__(
        self, host: str, port: int, password: str, nickname: str, events: "queue.Queue[Any]"
    ) -> None:
        self.host, self.port = host, port
        self._handshake = Handshake(nickname, password)
        self._events = events
        self._lock = threading.Lock()  # guards _outgoing
        self._outgoing = bytearray()
        self._closing_since = 0.0  # seconds of the monotonic clock; 0 before `close`
        self._woken, self._waker = socket.socketpair()
        for end in (self._woken, self._waker):
            end.setblocking(False)
        # Daemon: a name that is being looked up cannot be called off.
        self._thread = threading.Thread(target=self._run, name="receive", daemon=True)

    @property
    def address(self) -> str:
        """Where it connects to, for people."""
        return "%s:%d" % (self.host, self.port)

    def start(self) -> None:
        """Connect."""
        self._thread.start()

    def send(self, messages: Iterable[Message]) -> None:
        """Send in order, after all that is still to be sent. Nothing is sent after `close`."""
        data = b"".join(map(protocol.serialize, messages))
        with self._lock:
            self._outgoing += data
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
        sock = None
        end = Disconnected(LOST, "The connection was lost.")
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._woken, selectors.EVENT_READ)
                sock = self._connect(selector)
                self._talk(sock, selector)
        except RefusedError as refused:
            end = refused.event
        except OSError as error:
            log.info("%s: %s", self.address, error)
        except Exception:
            log.exception("%s: our mistake", self.address)
        finally:
            if sock is not None:
                sock.close()
            self._put(Disconnected(CLOSED, "") if self._closing_since else end)
            self._woken.close()
            self._waker.close()

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
                answered = self._await(sock, selector, CONNECT_TIME / len(found))
                selector.unregister(sock)
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if answered and not code:
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    return sock
                if answered:
                    reason = _connect_fault(code, self.address)
            except OSError as error:
                reason = _connect_fault(error.errno or 0, self.address)
            sock.close()
        raise RefusedError(SERVER, reason)

    def _await(
        self, sock: socket.socket, selector: selectors.BaseSelector, seconds: float
    ) -> bool:
        """Whether `sock` was ready in time, and before we closed."""
        deadline = time.monotonic() + seconds
        while not self._closing_since and time.monotonic() < deadline:
            for key, _ in selector.select(max(0.0, deadline - time.monotonic())):
                if key.fileobj is sock:
                    return True
                self._woken.recv(4096)
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

    def _talk(self, sock: socket.socket, selector: selectors.BaseSelector) -> None:
        """Read and write until the connection ends. Returns when it was closed by either side."""
        handshake = self._handshake
        framer = protocol.Framer(protocol.MAX_TAGS + protocol.MAX_MESSAGE)
        self.send(handshake.opening())
        selector.register(sock, selectors.EVENT_READ)
        asked = False  # a PING is out
        while not self._closing_since or (self._outgoing and not self._is_late):
            writing = selectors.EVENT_WRITE if self._outgoing else 0
            selector.modify(sock, selectors.EVENT_READ | writing)
            timeout = PING_AFTER if handshake.done else CONNECT_TIME
            ready = selector.select(QUIT_TIME if self._closing_since else timeout)
            if not ready and not self._closing_since:
                self._mind_silence(asked)
                asked = True
            for key, mask in ready:
                if key.fileobj is not sock:
                    self._woken.recv(4096)
                    continue
                if mask & selectors.EVENT_WRITE:
                    with self._lock:
                        del self._outgoing[: sock.send(self._outgoing)]
                if mask & selectors.EVENT_READ:
                    data = sock.recv(RECEIVE_SIZE)
                    if not data:
                        self._mind_stranger()
                        return
                    asked = False
                    for line in framer.feed(data):
                        if line:
                            self._handle(line)

    def _mind_silence(self, asked: bool) -> None:
        self._mind_stranger()
        if asked:
            raise RefusedError(LOST, "The server does not answer any more.")
        self.send([Message("PING", ("hubbub",))])

    def _mind_stranger(self) -> None:
        if not self._handshake.done:
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
        message = _cleaned(message)
        if self._handshake.done:
            if message.command == "ERROR":
                raise RefusedError(LOST, message.text)
            self._put(message)
        else:
            self.send(self._handshake.answer(message))
            if self._handshake.done:
                self._put(Connected(message.params[0], "echo-message" in self._handshake.caps))
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


# The chat

CONNECTING, CONNECTED, DISCONNECTED = "Connecting", "Connected", "Disconnected"
WAITING = "waiting"  # a kind of line beside protocol's: one's own, not sent yet

# Numerics that refuse what was said: nobody there, no such room, may not, too many.
_UNDELIVERED = ("401", "403", "404", "407", "411", "412", "477")

# Room for what a server will put before our words: user@host, at their longest.
_USER_AT_HOST = "!" + "u" * 10 + "@" + "h" * 63


class Outcome(NamedTuple):
    """What follows from something typed or received."""

    show: Sequence[Line] = ()
    send: Sequence[Message] = ()
    done: bool = False  # the user has had enough


class Batch:
    """A piece of the history that is being told."""

    __slots__ = ("is_announced", "is_asked", "room")

    def __init__(self, room: str, is_asked: bool) -> None:
        self.room = room
        self.is_asked = is_asked  # by /history: what has been seen before is shown again
        self.is_announced = False  # something of it has been shown


class Chat:
    """All that is known of a conversation, and what each event means for it.

    Pure: the same events give the same state. Not for several threads at once.
    """

    def __init__(self, server: str) -> None:
        self.nickname = ""
        self.server = server  # its network's name, once that is known
        self.state = DISCONNECTED
        self.room = ""  # where what is typed is said: the first room that we are placed in
        self.topic = ""
        self._echoes = False
        self._members: Dict[str, str] = {}  # folded nickname to nickname, of the room
        self._names: List[str] = []  # of an answer to NAMES, until it is whole
        self._asked_names = False
        self._is_placed = False  # in our room, on this connection
        self._unconfirmed: List[Message] = []  # said, but not yet known to be delivered
        self._resent: List[Message] = []  # those of them that waited for this connection
        self._seen: Dict[str, None] = {}  # the last msgids; what comes again is not shown again
        self._asked_history = False
        self._batches: Dict[str, Batch] = {}  # of the history, by their references

    @property
    def title(self) -> str:
        """For the window's title bar."""
        return "%s: %s @ %s — Hubbub" % (self.state, self.nickname, self.server)

    @property
    def people(self) -> List[str]:
        """Who is in the room, in order."""
        return [self._members[key] for key in sorted(self._members)]

    def begin(self, nickname: str) -> None:
        """A connection is under way."""
        self.nickname, self.state = nickname, CONNECTING

    def submit(self, text: str, now: float) -> Outcome:
        """What the user typed, or pasted: only its first line can be a command.

        Raises protocol.InputError, with the words for the user; then nothing was sent.
        """
        lines = [protocol.clean(line).strip() for line in text.splitlines()]
        lines = [line for line in lines if line]
        if not lines:
            return Outcome()
        typed = protocol.parse_input(lines[0])
        if typed.verb == "quit":
            return Outcome(send=[Message("QUIT", typed.args)], done=True)
        messages = self._compose(typed)
        for line in lines[1:]:  # to whom the first line went
            to_one = typed.verb == "msg"
            args = (typed.args[0], line) if to_one else (line,)
            messages += self._compose(protocol.Input("msg" if to_one else "say", args))
        outcome = self._send(typed, messages, now)
        if typed.verb == "help":
            helps = [protocol.server_line(line, now) for line in protocol.help_lines()]
            outcome = outcome._replace(show=[*helps, *outcome.show])
        return outcome

    def _send(self, typed: protocol.Input, messages: List[Message], now: float) -> Outcome:
        texts = [message for message in messages if message.command == "PRIVMSG"]
        if not self._is_placed and self.room:
            if not texts and messages:
                raise protocol.InputError("You are not connected. Reconnect first.")
            self._unconfirmed += texts
            return Outcome([self._waiting(message, now) for message in texts], [])
        self._asked_names = self._asked_names or typed.verb == "list"
        self._asked_history = self._asked_history or typed.verb == "history"
        if not self._echoes:
            return Outcome([line for m in texts for line in self._own(m, now)], messages)
        self._unconfirmed += texts
        return Outcome([], messages)

    def handle(self, event: Event, now: float) -> Outcome:
        """Something that the connection told."""
        if isinstance(event, Connected):
            self.state, self.nickname, self._echoes = CONNECTED, event.nickname, event.echoes
            self._members, self._names, self._asked_names = {}, [], False
            self._batches, self._asked_history = {}, False
            return Outcome()
        if isinstance(event, Disconnected):
            return self._lose(event, now)
        if event.command == "BATCH" and event.params:
            return Outcome(self._follow_batch(event, now))
        if self._is_repeated(event):
            return Outcome()
        when = now
        if "time" in event.tags:
            try:
                when = protocol.parse_time(event.tags["time"])
            except ValueError:
                pass  # then it is now
        if event.command == "FAIL":
            self._asked_history = False
        send = self._follow(event)
        show = self._answer_names(event, when)
        if not self._echoes:
            show += [line for message in send for line in self._own(message, now)]
        line = protocol.describe(event, self.nickname, when)
        if line:
            show += [*self._announce(event.tags.get("batch", ""), now), line]
        return Outcome(show + self._answer_refusal(event, when), send)

    def _follow_batch(self, message: Message, now: float) -> List[Line]:
        """Know where a piece of the history begins and ends, and mark it for the reader."""
        ref, kind = message.params[0][1:], message.params[1:2]
        if message.params[0].startswith("+"):
            if kind == ("chathistory",) and len(self._batches) < MAX_BATCHES:
                self._batches[ref] = Batch(message.params[-1], self._asked_history)
                self._asked_history = False
            return []
        batch = self._batches.pop(ref, None)
        if batch is None or not (batch.is_announced or batch.is_asked):
            return []
        text = "Now:" if batch.is_announced else "Nothing was said earlier."
        return [protocol.server_line(text, now)]

    def _announce(self, ref: str, now: float) -> List[Line]:
        batch = self._batches.get(ref)
        if batch is None or batch.is_announced:
            return []
        batch.is_announced = True
        return [protocol.server_line("Earlier in %s:" % batch.room, now)]

    def _is_repeated(self, message: Message) -> bool:
        msgid = message.tags.get("msgid", "")
        batch = self._batches.get(message.tags.get("batch", ""))
        if not msgid or (batch is not None and batch.is_asked):
            return False
        known = msgid in self._seen
        self._seen[msgid] = None
        if len(self._seen) > MAX_SEEN:
            del self._seen[next(iter(self._seen))]
        return known

    def _compose(self, typed: protocol.Input) -> List[Message]:
        return protocol.compose(typed, self.room, self.nickname + _USER_AT_HOST)

    def _own(self, message: Message, now: float) -> List[Line]:
        said = message._replace(source=self.nickname + "!")
        line = protocol.describe(said, self.nickname, now)
        return [line] if line else []

    def _waiting(self, message: Message, now: float) -> Line:
        line = self._own(message, now)[0]
        return line._replace(kind=WAITING, text=line.text + "  (waiting to send)")

    def _lose(self, event: Disconnected, now: float) -> Outcome:
        was_connected, self.state = self.state == CONNECTED, DISCONNECTED
        self._members, self._is_placed = {}, False
        if not was_connected or event.fault == CLOSED:
            return Outcome()
        show = [protocol.server_line(event.reason, now)]
        return Outcome(show + [self._waiting(message, now) for message in self._unconfirmed])

    def _follow(self, message: Message) -> List[Message]:
        """Keep the state true to what happened; what to send because of it."""
        command, params, who = message.command, message.params, message.nickname
        key = protocol.casefold(who)
        mine = key == protocol.casefold(self.nickname)
        here = self._is_here(params[:1])
        if command == "PRIVMSG" and mine:
            self._forget(message.params)
        elif command == "JOIN" and params and who:
            if mine and (here or not self.room) and " " not in params[0] and len(params[0]) < 100:
                self.room, self.topic, self._is_placed = params[0], "", True
                self._resent = list(self._unconfirmed)
                return self._resent if self._echoes else self._take_unconfirmed()
            if here and len(self._members) < MAX_NAMES:
                self._members[key] = who
        elif command == "PART" and here:
            self._members.pop(key, None)
        elif command == "QUIT":
            self._members.pop(key, None)
        elif command == "NICK" and params and params[0]:
            if self._members.pop(key, None):
                self._members[protocol.casefold(params[0])] = params[0]
            if mine:
                self.nickname = params[0]
        elif command == "TOPIC" and here:
            self.topic = message.text
        elif command == "332" and len(params) > 2 and self._is_here(params[1:2]):
            self.topic = params[2]
        elif command == "005":
            for token in params[1:]:
                name, _, value = token.partition("=")
                if name == "NETWORK" and value:
                    self.server = protocol.unescape_token(value)
        elif command == "353" and self._is_here(params[-2:-1]):
            names = [name.lstrip("~&@%+") for name in message.text.split()]
            self._names += [name for name in names if name][: MAX_NAMES - len(self._names)]
        return []

    def _is_here(self, room: Tuple[str, ...]) -> bool:
        return [protocol.casefold(name) for name in room] == [protocol.casefold(self.room)]

    def _take_unconfirmed(self) -> List[Message]:
        taken, self._unconfirmed = self._unconfirmed, []
        return taken

    def _answer_refusal(self, message: Message, when: float) -> List[Line]:
        """What could not be delivered is given back to its writer."""
        if message.command not in _UNDELIVERED or len(message.params) < 2:
            return []
        refused = self._forget(message.params[1:2])
        if refused is None or refused not in self._resent:
            return []  # its writer has just typed it, and sees why
        line = self._own(refused, when)[0]
        return [line._replace(kind=WAITING, text=line.text + "  (not delivered)")]

    def _forget(self, params: Tuple[str, ...]) -> Optional[Message]:
        """What was said with these parameters has been delivered, or refused."""
        for message in self._unconfirmed:
            said = message.params[: len(params)]
            same_target = protocol.casefold(said[0]) == protocol.casefold(params[0])
            if same_target and said[1:] == params[1:]:
                self._unconfirmed.remove(message)
                return message
        return None

    def _answer_names(self, message: Message, when: float) -> List[Line]:
        if message.command != "366" or not self._is_here(message.params[1:2]):
            return []
        names, self._names = self._names, []
        self._members = {protocol.casefold(name): name for name in names}
        asked, self._asked_names = self._asked_names, False
        texts = protocol.online(names) if asked else []
        return [protocol.server_line(text, when) for text in texts]


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

    def run(self, host: str, port: int, nickname: str) -> int:
        """Chat until /quit or the end of input (0), or until the connection is lost (1)."""
        password = ""
        while True:
            nickname = nickname or self._ask("Username: ")
            if not nickname:
                print("No username was given.", file=self._errors)
                return 1
            connection = Connection(host, port, password, nickname, self._events)
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
            if not sys.stdin.isatty() or end.fault not in (NAME, PASSWORD):
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
        reading = done = False
        while True:
            try:
                event = self._events.get(timeout=2 * QUIT_TIME if done else None)
            except queue.Empty:  # a server that does not answer to QUIT either
                return Disconnected(CLOSED, "")
            now = time.time()
            if isinstance(event, Typed):
                if event.text is None:
                    outcome = Outcome(send=[Message("PING", (self._LAST,))])
                else:
                    try:
                        outcome = chat.submit(event.text, now)
                    except protocol.InputError as error:
                        outcome = Outcome([protocol.server_line(str(error), now)])
            else:
                outcome = chat.handle(event, now)
                is_pong = isinstance(event, Message) and event.command == "PONG"
                if is_pong and event.text == self._LAST:
                    outcome = Outcome(send=[Message("QUIT")], done=True)
            for line in outcome.show:
                print(line, file=self._output, flush=True)
            connection.send(outcome.send)
            done = done or outcome.done
            if isinstance(event, Disconnected):
                return Disconnected(CLOSED, "") if done else event
            if chat.room and not reading:
                reading = True
                # Daemon: reading from a terminal cannot be called off.
                threading.Thread(target=self._read, name="input", daemon=True).start()

    def _read(self) -> None:
        for text in self._lines:
            self._events.put(Typed(text))
        self._events.put(Typed(None))


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
        "warn": "#f2c14e", "accent": "#2f6be0", "accent_hover": "#3771e6",
        "accent_pressed": "#2459c4", "focus": "#6aa5ff", "banner": "#3a2f12",
        "banner_text": "#ffe2a0", "selection": "#284269", "thumb": "#444d5c",
    },
    "light": {
        "bg": "#eff2f6", "chat": "#ffffff", "field": "#ffffff", "hover": "#e4e9f0",
        "line": "#d9dfe7", "outline": "#7b8696", "text": "#1b2027", "muted": "#525c6a",
        "time": "#626d7c", FROM_SERVER: "#0b57b7", FROM_ME: "#166b34", FROM_OTHERS: "#1b2027",
        PRIVATE: "#7434b5", WAITING: "#525c6a", "error": "#b3261e", "ok": "#1a7f43",
        "warn": "#8a5700", "accent": "#1f5fd0", "accent_hover": "#2c6ce0",
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
        for kind in (FROM_SERVER, FROM_ME, FROM_OTHERS, PRIVATE, WAITING):
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
        self._room.configure(text=tk_text(chat.room or chat.server))
        self._topic.configure(text=tk_text(chat.topic or "No topic"))
        self._count.configure(text="People  %d" % len(chat.people))
        self.people.show(chat.people, chat.nickname)
        later = "" if chat.state == CONNECTED else " — sent when you are back online"
        self.composer.set_hint("Message %s%s" % (chat.room or chat.server, later))

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
        if self.chat is not None:
            self._open(self.chat.nickname)
            self.chat_view.warn("Connecting to %s…" % self.chat.server, button=False)

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
        lines: List[Line] = []
        count = 0
        end = None
        while count < BATCH and end is None and self.chat is not None:
            try:
                event = self._events.get_nowait()
            except queue.Empty:
                break
            count += 1
            outcome = self.chat.handle(event, time.time())
            lines += outcome.show
            if outcome.send and self._connection is not None:
                self._connection.send(outcome.send)
            if isinstance(event, Connected):
                self.chat_view.warn("")
                self._show(self.chat_view)
            elif isinstance(event, Disconnected):
                end = event
        if count:
            self.chat_view.transcript.append(lines)
            self._refresh()
        if end is not None:
            self._on_disconnected(end)
        return count

    def _refresh(self) -> None:
        if self.chat is not None:
            self.chat_view.show(self.chat)
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
            self.chat_view.transcript.append([protocol.server_line(str(error), time.time())])
            self.chat_view.transcript.show_end()
            return False
        if self._connection is not None:
            self._connection.send(outcome.send)
        self.chat_view.transcript.append(outcome.show)
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
