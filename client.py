#!/usr/bin/env python3
"""Hubbub's client: chat in a window, or in a terminal.

    python3 client.py [SERVER[:PORT]] [--username NAME] [--terminal]

Three parts, none of which knows those after it:

    Connection         the socket and the `receive` thread: connects, registers, reads, writes,
                       reconnects. Its only output is a queue of events: Connected, Message,
                       Lost, Disconnected.
    Chat               the state, pure: a Session (what this connection can do), an Outbox (own
                       messages until they are stored), a History (what the server was asked
                       for) and Conversations. `submit` (typed text) and `handle` (an event)
                       return an Outcome: messages to send, and changes to show.
    Terminal, Window   poll the queue, pass events to the Chat, show exactly its changes.

Threads: a Connection's public methods may be called from any thread; all else belongs to the
main thread. The queue is bounded: if the window cannot keep up, the receive thread waits, and
TCP slows the sender down.

Guarantees:

- An own message shows at once and is sent exactly once. It has one state, `Entry.delivery`,
  which only the Outbox changes: QUEUED, IN_FLIGHT, SENT. When the connection is lost, messages
  in flight are UNCERTAIN until the history has them (SENT), or is complete without them (QUEUED
  again); if neither is certain, they are UNKNOWN and the user decides.
- Text from the network is made safe to show once, in the receive thread.
- Passwords are never shown, logged or kept in a file.

To add an IRC command or numeric: a row in SERVER_COMMANDS and its function. To add a verb for
the chat box: a row in protocol.VERBS, and one in USER_VERBS if it takes more than sending. To
add to what an entry shows (reactions, say): a field of Entry, and a CHANGED when it is set.

Contents: Limits and times; Events; Handshake; Connection; Conversations; Changes; Outbox;
History; Session; Chat; Catching up; What servers send; What users type; Completion and links;
Settings; Terminal; Look; Widgets; Views; The window; The command line.
"""

import argparse
import codecs
import contextlib
import difflib
import functools
import getpass
import itertools
import json
import logging
import math
import os
import queue
import random
import re
import select
import socket
import sys
import threading
import time
from typing import (
    Any,
    Callable,
    Dict,
    FrozenSet,
    Iterable,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Pattern,
    Sequence,
    Set,
    Tuple,
    Union,
)

import protocol
from protocol import FROM_ME, FROM_OTHERS, PRIVATE, InputError, Line, Message

# The server that the window offers at first; edit it to taste.
SERVER_IP = "127.0.0.1"
SERVER_PORT = protocol.PORT

log = logging.getLogger("hubbub")


# Limits and times
# ----------------

# The connection, in seconds
CONNECT_TIME = 5.0  # for each address of the server, and for each answer during registration
PING_AFTER = 60.0  # of silence before a PING
ANSWER_TIME = 20.0  # for its PONG
RETRY_TIMES = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)  # before each attempt to reconnect
MAX_NAME_RETRIES = 10  # while our own dead connection holds the nickname: some minutes
QUIT_TIME = 1.0  # of silence after QUIT before the connection is closed
BACK_TIME = 3.0  # for which the banner says that the connection is back
END_TIME = 10.0  # of silence at the end of a pipe, while messages are not stored

# Memory, whatever a server sends
RECEIVE_SIZE = 65536  # bytes read at once
MAX_EVENTS = 4000  # events in the queue; then the receive thread waits
MAX_OUTGOING = 1024 * 1024  # unsent bytes at which the server gets no more replies
MAX_ENTRIES = 10000  # of a conversation; the oldest go, a tenth at once
MAX_CONVERSATIONS = 200  # of a kind
MAX_STRANGERS = 20  # private conversations that others may open by writing
MAX_MEMBERS = 100000  # of a channel
MAX_REQUESTS = 1000  # to the history, which only a hostile server causes
MAX_BATCH = 2000  # messages of a batch
LATEST_TIME = 32472144000.0  # the year 2999, in seconds since 1970; Windows fails from 3001 on

# What the client asks for
PAGE, MISSED_PAGE = 50, 500  # messages of history at once
HISTORY_TIME = 60.0  # seconds for the whole answer
MAX_WHO = 200  # members of a channel for which WHO asks who is away

# What users do
MAX_PASTE = 20000  # characters of a paste, or bytes of a line in a pipe
MAX_UNSENT = 500  # messages that are not stored at which a pipe is not read on
MAX_SERVERS = 10  # that the settings remember
MAX_SUGGESTIONS = 200  # nicknames for Tab, or for "Did you mean"
RECENT = 500  # entries whose senders Tab suggests first
CROWD = 5  # joins (or leaves) in a row that become a single entry


# Events
# ------

# Disconnected.fault: what the user must fix before reconnecting
NAME, PASSWORD, SERVER, LOST, CLOSED = "name", "password", "server", "lost", "closed"


class Connected(NamedTuple):
    """The server has accepted the registration, for the first time or again."""

    nickname: str
    caps: FrozenSet[str] = frozenset()  # capabilities that it has acknowledged
    session: int = 1  # counts the registrations of a Connection
    is_resumed: bool = False  # RESUME worked: others saw neither a leave nor a join


class Lost(NamedTuple):
    """The connection is lost; after `seconds` follows the attempt with this number."""

    reason: str
    attempt: int = 1
    seconds: float = 0.0


class Disconnected(NamedTuple):
    """The last event: the connection has ended for good. `reason` is for the user."""

    fault: str  # NAME, PASSWORD, SERVER, LOST or CLOSED
    reason: str


Event = Union[Connected, Message, Lost, Disconnected]


class Login(NamedTuple):
    """An account, in memory only."""

    name: str
    password: str


class RefusedError(Exception):
    """The attempt to connect, or the connection, has ended; carries its Disconnected."""

    def __init__(self, fault: str, reason: str, is_final: bool = False) -> None:
        super().__init__(reason)
        self.event = Disconnected(fault, reason)
        self.is_final = is_final  # reconnecting would not help


# Handshake
# ---------

HISTORY = "draft/chathistory"
RESUME = "hubbub/resume"  # described in README.md
# Capabilities to request, if offered
WANTED = tuple(
    "account-notify away-notify batch draft/account-registration draft/chathistory echo-message"
    " extended-join hubbub/resume invite-notify labeled-response message-tags multi-prefix sasl"
    " server-time setname standard-replies".split()
)
_SASL_ENDS = frozenset("903 904 905 906 907 908".split())  # 903 is success
_TAKEN = "“%s” is already here. Try another name, for example %s2."
_REGISTERED = "“%s” is registered. If it is yours, type its password; else choose another."
_WRONG_PASSWORD = "Wrong password."  # noqa: S105
_NO_PASSWORD = "This server asks for a password."  # noqa: S105


class Handshake:
    """Registration, without I/O (https://modern.ircdocs.horse/#connection-setup).

    `token` resumes a lost session. If the nickname is refused and there is a password, that may
    be the account's: log in, then try the nickname again.
    """

    def __init__(
        self, nickname: str, password: str = "", login: Optional[Login] = None, token: str = ""
    ) -> None:
        self.nickname = nickname
        self.done = False
        self.caps: FrozenSet[str] = frozenset()  # acknowledged
        self.is_resumed = False
        self.login = login
        self._password, self._token = password, token
        self._offered: List[str] = []
        self._is_introduced = False  # NICK and USER were sent
        self._has_ended_caps = False
        self._has_asked_login = False
        self._is_logged_in: Optional[bool] = None  # None until the server has answered
        self._refusal: Optional[RefusedError] = None  # of the nickname, until that answer

    def opening(self) -> List[Message]:
        """Return the first messages. A session is resumed before a nickname is claimed."""
        messages = [Message("PASS", (self._password,))] if self._password else []
        messages.append(Message("CAP", ("LS", "302")))
        return messages if self._token else [*messages, *self._introduce()]

    def answer(self, message: Message) -> List[Message]:
        """Return the replies to `message`. Raises RefusedError."""
        command, params = message.command, message.params
        if command == "CAP" and len(params) > 2:
            return self._on_cap(params[1], params[-1].split(), has_more=params[2] == "*")
        if command == "AUTHENTICATE" and self.login is not None:
            chunks = protocol.sasl_plain_chunks(*self.login)
            return [Message("AUTHENTICATE", (chunk,)) for chunk in chunks]
        if command in _SASL_ENDS:
            self._is_logged_in = command == "903"
            return self._go_on()
        if command == "FAIL" and params[:1] == ("RESUME",):
            self.is_resumed = False
            return self._go_on()
        if command == "FAIL" and params[:2] == ("NICK", "NICKNAME_RESERVED"):
            text = _WRONG_PASSWORD if self._password else _REGISTERED % self.nickname
            return self._on_nickname_refused(RefusedError(PASSWORD, text, bool(self._password)))
        if command in ("433", "436"):
            text = _TAKEN % (self.nickname, self.nickname[: protocol.MAX_NAME - 1])
            return self._on_nickname_refused(RefusedError(NAME, text))
        if command in ("432", "437"):
            raise RefusedError(NAME, message.text)
        if command == "464":
            text = _WRONG_PASSWORD if self._password else _NO_PASSWORD
            raise RefusedError(PASSWORD, text, is_final=True)
        if command in ("465", "ERROR"):
            raise RefusedError(SERVER, message.text, is_final=command == "465")
        if command == "001" and params and protocol.is_middle(params[0]):
            self.nickname, self.done = params[0], True
        return []

    def _introduce(self) -> List[Message]:
        if self._is_introduced:
            return []
        self._is_introduced = True
        user = Message("USER", (self.nickname, "0", "*", self.nickname))
        return [Message("NICK", (self.nickname,)), user]

    def _on_cap(self, verb: str, caps: List[str], has_more: bool) -> List[Message]:
        names = [cap.partition("=")[0] for cap in caps]
        if verb == "LS":
            self._offered += names
            wanted = [cap for cap in WANTED if cap in self._offered]
            if wanted and not has_more:
                return [Message("CAP", ("REQ", " ".join(wanted)))]
        elif verb == "ACK":
            self.caps |= frozenset(names)
        return self._go_on() if verb in ("LS", "ACK", "NAK") and not has_more else []

    def _on_nickname_refused(self, refusal: RefusedError) -> List[Message]:
        if self._is_logged_in is not None or not (self._password or self.login):
            raise refusal
        self._refusal = refusal
        return self._go_on() if self._has_ended_caps else []

    def _go_on(self) -> List[Message]:
        """Return the next step after the capabilities: log in, resume, claim the nickname, end."""
        if (self.login or self._refusal) and "sasl" in self.caps and not self._has_asked_login:
            self._has_asked_login = True
            self.login = self.login or Login(self.nickname, self._password)
            return [Message("AUTHENTICATE", ("PLAIN",))]
        again = []
        if self._refusal is not None:
            if not self._is_logged_in:
                raise self._refusal
            self._refusal, again = None, [Message("NICK", (self.nickname,))]
        if self._token and RESUME in self.caps:  # answered by 001 or FAIL
            token, self._token, self.is_resumed = self._token, "", True
            return [Message("RESUME", (token,))]
        if self._has_ended_caps:
            return again
        self._has_ended_caps = True
        return [*again, *self._introduce(), Message("CAP", ("END",))]


# Connection
# ----------


class Connection:
    """A connection to one server, from `start` until its Disconnected is in the queue.

    Once registered it reconnects whenever it is lost (unless `returns` is False): immediately,
    then after growing pauses, which `retry` ends.
    Methods may be called from any thread; only `close` waits, and only if asked to.
    """

    def __init__(
        self,
        host: str,
        port: int,
        password: str,
        nickname: str,
        events: "queue.Queue[Any]",
        returns: bool = True,
    ) -> None:
        self.address = "%s:%d" % (host, port)
        self._host, self._port = host, port
        self._events = events
        self._returns = returns
        self._lock = threading.Lock()  # guards _outgoing and _open_session
        self._outgoing = bytearray()
        self._open_session = 0  # the session that may send; 0 for none
        self._quit_at = 0.0  # time of the QUIT; 0 before it
        self._is_polled = True  # until `close`: then a full queue is no reason to wait
        self._pause_is_over = threading.Event()
        self._login: Optional[Login] = None  # written by `carry_out` too
        # Used by the receive thread only:
        self._nickname, self._password, self._token = nickname, password, ""
        self._session = 0  # registrations so far
        self._handshake = Handshake(nickname, password)
        self._wake_end, self._waker = socket.socketpair()
        for end in (self._wake_end, self._waker):
            end.setblocking(False)
        # Daemon: looking up a name, and connecting, cannot be cancelled.
        self._thread = threading.Thread(target=self._run, name="receive", daemon=True)

    def start(self) -> None:
        """Start to connect."""
        self._thread.start()

    def carry_out(self, outcome: "Outcome") -> None:
        """Send what an Outcome holds, keep its login for the next reconnect, quit if it is done."""
        self._login = outcome.login or self._login
        if outcome.done:
            self._quit(outcome.send)
        elif outcome.send and not self._quit_at:
            self.send(outcome.send, outcome.session)

    def send(self, messages: Iterable[Message], session: int = 0) -> None:
        """Send messages in order; drop them if `session` is given and is not open any more."""
        data = b"".join(map(protocol.serialize, messages))
        with self._lock:
            if session and session != self._open_session:
                return
            self._outgoing += data
        with contextlib.suppress(OSError):  # already awake, or ended
            self._waker.send(b"!")

    def retry(self) -> None:
        """End the pause before the next attempt to reconnect."""
        self._pause_is_over.set()

    def close(self, wait: float = 0.0) -> None:
        """Send QUIT after all else, and end when the server hangs up; join for `wait` seconds.

        Idempotent. Nothing needs to poll the queue any more.
        """
        self._is_polled = False
        self._quit([Message("QUIT")])
        if wait and self._thread.is_alive():
            self._thread.join(wait)

    def _quit(self, messages: Iterable[Message]) -> None:
        if not self._quit_at:
            self._quit_at = time.monotonic()
            self.send(messages)
            self.retry()

    # The receive thread

    def _run(self) -> None:
        end = Disconnected(LOST, "The connection was lost.")
        try:
            end = self._connect_until_closed()
        except Exception:
            log.exception("%s: receive thread failed", self.address)
        finally:
            self._put(Disconnected(CLOSED, "") if self._quit_at else end)
            self._wake_end.close()
            self._waker.close()

    def _connect_until_closed(self) -> Disconnected:
        attempt = 0
        while not self._quit_at:
            session = self._session
            self._pause_is_over.clear()
            refused = self._visit()
            attempt = 1 if self._session > session else attempt + 1
            is_over = self._quit_at or not self._returns or not self._session
            is_taken = refused.event.fault == NAME and attempt > MAX_NAME_RETRIES
            if is_over or is_taken or refused.is_final:
                return refused.event
            seconds = RETRY_TIMES[min(attempt, len(RETRY_TIMES)) - 1]
            seconds *= random.uniform(0.8, 1.2)  # noqa: S311 (spreads the clients of a server)
            with self._lock:
                self._open_session = 0
            self._put(Lost(refused.event.reason, attempt, seconds))
            self._pause_is_over.wait(seconds)
        return Disconnected(CLOSED, "")

    def _visit(self) -> RefusedError:
        """Connect, talk until the connection ends, and return how it ended."""
        try:
            with self._connect() as sock:
                self._talk(sock)
            return RefusedError(CLOSED, "")
        except RefusedError as refused:
            end = refused
        except OSError as error:
            log.info("%s: %s", self.address, error)
            end = RefusedError(LOST, "The connection was lost.")
        if end.event.fault == LOST and not self._handshake.done:
            self._token = ""  # not for this server
            text = "%s is there, but does not answer as a chat server does." % self.address
            return RefusedError(SERVER, text)
        return end

    def _connect(self) -> socket.socket:
        """Connect to the first address of the host that accepts. Raises RefusedError."""
        try:
            sock = socket.create_connection((self._host, self._port), CONNECT_TIME)
        except (socket.gaierror, UnicodeError):
            text = "No computer called “%s” was found. Check the spelling, or use its address."
            raise RefusedError(SERVER, text % self._host) from None
        except ConnectionRefusedError:
            text = "Nothing is listening at %s. Is server.py running there?"
            raise RefusedError(SERVER, text % self.address) from None
        except socket.timeout:
            text = "Nothing answered at %s within %g seconds. Is server.py running there?"
            raise RefusedError(SERVER, text % (self.address, CONNECT_TIME)) from None
        except OSError as error:
            text = "%s cannot be reached: %s. Is it on, and on this network?"
            raise RefusedError(SERVER, text % (self.address, error.strerror)) from None
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def _talk(self, sock: socket.socket) -> None:
        """Read and write until we have quit. Raises RefusedError, or OSError."""
        handshake = Handshake(self._nickname, self._password, self._login, self._token)
        self._handshake = handshake
        framer = protocol.Framer(protocol.MAX_TAGS + protocol.MAX_MESSAGE)
        with self._lock:
            self._outgoing.clear()
        self.send(handshake.opening())
        is_pinged = False
        silent_since = time.monotonic()
        while True:
            patience = ANSWER_TIME if is_pinged else PING_AFTER
            if self._quit_at:
                # The server hangs up after QUIT: closing first, with data unread, would reset the
                # connection and could discard what was sent last.
                patience = QUIT_TIME if handshake.done else 0.0
            elif not handshake.done:
                patience = CONNECT_TIME
            seconds = max(silent_since, self._quit_at) + patience - time.monotonic()
            if seconds <= 0 and self._quit_at:
                return
            if seconds <= 0 and (is_pinged or not handshake.done):
                raise RefusedError(LOST, "The server does not answer any more.")
            if seconds <= 0:
                self.send([Message("PING", ("hubbub",))])
                is_pinged, silent_since = True, time.monotonic()
                continue
            writing = [sock] if self._outgoing else []
            ready, writing, _ = select.select([sock, self._wake_end], writing, [], seconds)
            if self._wake_end in ready:
                self._wake_end.recv(4096)
            if writing:
                with self._lock:
                    del self._outgoing[: sock.send(self._outgoing)]
            if sock in ready:
                self._read(sock, framer)
                is_pinged, silent_since = False, time.monotonic()

    def _read(self, sock: socket.socket, framer: protocol.Framer) -> None:
        data = sock.recv(RECEIVE_SIZE)
        if not data:
            raise RefusedError(LOST, "The connection was lost.")
        for line in framer.feed(data):
            if line:
                self._on_line(line)

    def _put(self, event: Event) -> None:
        """Put an event into the queue; wait while that is full and still polled."""
        while True:
            try:
                return self._events.put(event, self._is_polled, 0.1)
            except queue.Full:
                if not self._is_polled:
                    return None

    def _on_line(self, line: bytes) -> None:
        try:
            message = protocol.clean_message(protocol.parse(line, "replace"))
        except protocol.ProtocolError:
            return  # nothing that could be shown
        handshake = self._handshake
        if message.command == "PING":
            self._reply([protocol.fit(Message("PONG", (message.text,)))])
        elif message.command == "RESUME":  # a secret between the server and this thread
            self._token = message.text if message.params[:1] == ("TOKEN",) else self._token
        elif not handshake.done:
            self._reply(handshake.answer(message))
            if handshake.done:
                self._nickname, self._login = handshake.nickname, handshake.login or self._login
                self._session += 1
                with self._lock:
                    self._open_session = self._session
                caps, is_resumed = handshake.caps, handshake.is_resumed
                self._put(Connected(self._nickname, caps, self._session, is_resumed))
                self._put(message)
        elif message.command == "ERROR":
            raise RefusedError(LOST, message.text)
        elif message.command == "FAIL" and message.param(1) == "LOGGED_IN_ELSEWHERE":
            raise RefusedError(NAME, message.text, is_final=True)
        else:
            is_own = message.nickname == self._nickname
            if message.command == "NICK" and is_own and protocol.is_middle(message.text):
                self._nickname = message.text
            self._put(message)

    def _reply(self, messages: List[Message]) -> None:
        if messages and len(self._outgoing) > MAX_OUTGOING:
            raise RefusedError(SERVER, "The server does not read what it asks for.")
        self.send(messages)


# Conversations
# -------------

CHANNEL, CONSOLE = "channel", "console"  # kinds of conversation, beside PRIVATE
ALL, MENTIONS, NONE = "all", "mentions", "none"  # alert levels of a conversation
ONLINE, AWAY, OFFLINE = "online", "away", "offline"
FROM_SYSTEM = "system"  # a kind of line, beside protocol's: the client's own

# Entry.state, for views: does the server have an own message?
SENT, WAITING, FAILED = "sent", "waiting", "failed"
# Entry.delivery: SENT, or an own message that
QUEUED = "queued"  # waits for the connection, and until its channel is joined again
IN_FLIGHT = "in flight"  # was sent; the server has not confirmed it
UNCERTAIN = "uncertain"  # was in flight when the connection was lost; the history decides
REFUSED = "refused"  # was refused, in the server's words
UNKNOWN = "unknown"  # may have arrived or not
# The state and the note that each delivery is shown with
_SHOWN = {
    SENT: (SENT, ""),
    QUEUED: (WAITING, "waiting to send"),
    IN_FLIGHT: (WAITING, ""),
    UNCERTAIN: (WAITING, "waiting to send"),
    REFUSED: (FAILED, "not delivered"),
    UNKNOWN: (FAILED, "may not have arrived"),
}

# Conversation.membership of a channel
JOINED = "joined"
JOINING = "joining"  # the user has asked to join; what is typed there follows the JOIN
REJOINING = "rejoining"  # the connection was lost; joined again after the reconnect
OUTSIDE = "outside"  # removed from it, or refused

Span = Tuple[int, int]  # start and end in a text


class Entry:
    """A line of a conversation. Own and private messages may stand in two conversations."""

    __slots__ = ("count", "delivery", "event", "id", "is_mention", "is_own", "line", "msgid")

    def __init__(self, number: int, line: Line, msgid: str = "", is_own: bool = False) -> None:
        self.id = number  # in order of creation
        self.line = line
        self.msgid = msgid
        self.is_own = is_own
        self.is_mention = False
        self.delivery = SENT  # changed by the Outbox alone
        self.event = ""  # "joined" or "left", which a crowd is made of
        self.count = 1  # people, in the entry of a crowd

    @property
    def state(self) -> str:
        """SENT, WAITING or FAILED."""
        return _SHOWN[self.delivery][0]

    @property
    def note(self) -> str:
        """Words about the delivery, shown in parentheses."""
        return _SHOWN[self.delivery][1]

    @property
    def text(self) -> str:
        """The entry as it is shown and searched, without the time."""
        return "%s %s" % (self.line.head, self.line.text)

    @property
    def day(self) -> str:
        """The local date, as "2026-11-22"."""
        return time.strftime("%Y-%m-%d", time.localtime(self.line.when))


class Person(NamedTuple):
    """A member of a channel. `prefix` is "@" for chanops, "+" for voiced members, or ""."""

    nickname: str
    prefix: str = ""
    is_away: bool = False


class Conversation:
    """A channel, a private conversation, or the console: the server, while there is neither."""

    def __init__(self, name: str, kind: str) -> None:
        self.rename(name)
        self.kind = kind
        self.topic = ""
        self.last_topic = ""  # before a reconnect, after which it is not shown again
        self.entries: List[Entry] = []  # in the server's order, own waiting ones where typed
        self.unread = self.mentions = 0
        self.mark: Optional[Entry] = None  # the first entry that is new
        self.new_count = 0
        self.draft = ""
        self.level = MENTIONS
        self.membership = OUTSIDE if kind == CHANNEL else JOINED
        self.members: Dict[str, Person] = {}
        self.names: Dict[str, Person] = {}  # the members, while NAMES is being answered
        self.list_requests = 0  # by the user, not answered yet
        # Of the history:
        self.has_older = False
        self.is_complete = True  # nothing is missing between the entries
        self.anchor: Optional[Entry] = None  # while something is: the last entry before it
        self._known: Dict[str, Entry] = {}  # entries by msgid

    def rename(self, name: str) -> None:
        """Set the name, and the key by which it is found."""
        self.name = name
        self.key = protocol.casefold(name)

    @property
    def title(self) -> str:
        """The name without the sign of a channel."""
        return self.name[1:] if self.kind == CHANNEL else self.name

    @property
    def people(self) -> List[Person]:
        """The members, in order."""
        return [self.members[key] for key in sorted(self.members)]

    @property
    def is_outside(self) -> bool:
        """True for a channel that the user has to join to write there."""
        return self.kind == CHANNEL and self.membership == OUTSIDE

    @property
    def first_unread(self) -> int:
        """The id of the entry below "N new messages"; 0 for none."""
        return self.mark.id if self.mark is not None else 0

    def part(self, membership: str) -> None:
        """Forget the members; from now on messages may be missed."""
        self.members, self.names, self.list_requests = {}, {}, 0
        if self.kind == CHANNEL:
            self.membership = membership
        if self.is_complete:
            self.is_complete, self.anchor = False, self.newest()

    # Entries

    def knows(self, msgid: str) -> bool:
        """Return True if an entry with this msgid is here."""
        return msgid in self._known

    def insert(self, index: int, entry: Entry) -> None:
        """Put an entry at an index."""
        self.entries.insert(index, entry)
        if entry.msgid:
            self._known[entry.msgid] = entry

    def remove(self, entries: Iterable[Entry]) -> List[Entry]:
        """Take entries away, and return those that were here."""
        wanted = set(entries)
        gone = [entry for entry in self.entries if entry in wanted]
        self.entries[:] = [entry for entry in self.entries if entry not in wanted]
        for entry in gone:
            self._known.pop(entry.msgid, None)
        return gone

    def confirm(self, entry: Entry) -> bool:
        """Note that the server has an own message; return True if it moved to the end for that."""
        index = self.index(entry)
        moves = index >= 0 and any(e.delivery == SENT for e in self.entries[index + 1 :])
        if moves:
            self.entries.append(self.entries.pop(index))
        if entry.msgid:
            self._known[entry.msgid] = entry
        return moves

    def index(self, entry: Entry) -> int:
        """Return the position of an entry; -1 if it is not here."""
        return self.entries.index(entry) if entry in self.entries else -1

    def merge(self, page: Sequence[Entry], before: Optional[Entry] = None) -> List["Change"]:
        """Put a page of the history where it belongs, and return what was added.

        A page is in the server's order and has no gaps, so what is new stands next to what is
        known. If nothing is, it stands `before` an entry, or else where its time belongs.
        """
        start = next((self._known[e.msgid] for e in page if e.msgid in self._known), before)
        when = page[0].line.when if page else 0.0
        sent = ((i, entry) for i, entry in enumerate(self.entries) if entry.delivery == SENT)
        after = max((i + 1 for i, entry in sent if entry.line.when <= when), default=0)
        index = after if start is None else self.index(start)
        added: List[Change] = []
        for entry in page:
            if entry.msgid in self._known:
                index = self.index(self._known[entry.msgid]) + 1
                continue
            while self._is_local(index) and self.entries[index].line.when <= entry.line.when:
                index += 1
            below = self.entries[index] if index < len(self.entries) else None
            if not added or added[-1].before is not below:
                new: List[Entry] = []
                added.append(Change(ADDED, self, new, below))
            new.append(entry)
            self.insert(index, entry)
            index += 1
        return added

    def _is_local(self, index: int) -> bool:
        """Return True if a line that no history has stands there."""
        here = self.entries[index : index + 1]
        return bool(here) and not here[0].msgid and here[0].delivery == SENT

    def newest(self) -> Optional[Entry]:
        """Return the last entry that the history of this conversation has."""
        entries = reversed(self.entries if self._known else ())  # long, without a history
        return next(filter(self._is_in_history, entries), None)

    def oldest(self) -> Optional[Entry]:
        """Return the first entry that the history of this conversation has."""
        return next(filter(self._is_in_history, self.entries if self._known else ()), None)

    def _is_in_history(self, entry: Entry) -> bool:
        """Return False for joins, and for private messages in a channel."""
        kinds = (PRIVATE,) if self.kind == PRIVATE else (FROM_ME, FROM_OTHERS)
        return bool(entry.msgid) and entry.line.kind in kinds

    def find(self, words: str) -> Dict[Entry, List[Span]]:
        """Return where `words` stand in the texts of entries, ignoring case, in order."""
        pattern = re.compile(re.escape(words.casefold()))
        entries = self.entries if words else []
        found = ((entry, _find_folded(entry.text, pattern)) for entry in entries)
        return {entry: spans for entry, spans in found if spans}


def _find_folded(text: str, pattern: Pattern[str]) -> List[Span]:
    folded = text.casefold()
    spans = [match.span() for match in pattern.finditer(folded)]
    if spans and len(folded) != len(text):  # "ß" becomes "ss"
        indices = [index for index, char in enumerate(text) for _ in char.casefold()]
        spans = [(indices[start], indices[end - 1] + 1) for start, end in spans]
    return spans


# Changes
# -------

# Kinds of changes. Of entries:
ADDED = "added"  # directly before `before`; None is the end
CHANGED = "changed"  # they look different, in place
REMOVED = "removed"
RECALLED = "recalled"  # read from the history now, new or not; for views that only print
ALERT = "alert"  # they deserve a notification
# Of other parts of the window:
SIDEBAR = "sidebar"  # which conversations there are, their badges and presence
PEOPLE = "people"  # the members of a conversation
HEADER = "header"  # its title or topic
STATUS = "status"  # the state of the connection, own nickname, away
SELECTED = "selected"  # another conversation is in view


class Change(NamedTuple):
    """Something to show. Changes are applied in order, and are exact."""

    kind: str
    conversation: Optional[Conversation] = None
    entries: Sequence[Entry] = ()
    before: Optional[Entry] = None


class Outcome:
    """The results of one call to a Chat, filled by the functions that it runs through."""

    __slots__ = ("changes", "done", "login", "send", "session")

    def __init__(self, session: int = 0, login: Optional[Login] = None) -> None:
        self.send: List[Message] = []
        self.changes: List[Change] = []
        self.done = False  # the user has quit
        self.session = session  # in which `send` may be sent
        self.login = login  # to be used when reconnecting


class Banner(NamedTuple):
    """A warning about the connection; "" while there is none."""

    text: str
    can_retry: bool = False


# Outbox
# ------


class Outgoing:
    """An own message that the server has not confirmed."""

    def __init__(self, entry: Entry, message: Message) -> None:
        self.entry = entry
        self.message = message  # with its label, once it is in flight
        self.key = protocol.casefold(message.params[0])  # of its target
        self.conversations: List[Conversation] = []  # in which the entry stands
        self.nickname = ""  # under which it was sent
        self.number = 0  # counts what is sent


class Outbox:
    """Own messages, in order, until the server has them: the only owner of Entry.delivery.

    QUEUED -> IN_FLIGHT -> SENT, or REFUSED by the server. A lost connection makes IN_FLIGHT
    UNCERTAIN; then the history has it (SENT), or is complete without it (QUEUED), or proves
    nothing (UNKNOWN). What is REFUSED or UNKNOWN stays until the user retries or discards it.
    """

    def __init__(self, change: Callable[[str, Conversation, Sequence[Entry]], None]) -> None:
        self.items: List[Outgoing] = []
        self.last_number = 0
        self._change = change  # records a Change

    def add(self, entry: Entry, message: Message) -> Outgoing:
        """Queue a message."""
        item = Outgoing(entry, message)
        entry.delivery = QUEUED
        self.items.append(item)
        return item

    def take(self, can_send: Callable[[str], bool], nickname: str, labels: bool) -> List[Message]:
        """Return the queued messages that can be sent now; they are in flight then.

        None overtakes an uncertain message to the same target.
        """
        messages = []
        blocked = {item.key for item in self.having(UNCERTAIN)}
        for item in self.having(QUEUED):
            if item.key not in blocked and can_send(item.key):
                self.last_number += 1
                item.number, item.nickname = self.last_number, nickname
                tags = {"label": "m%d" % item.number} if labels else protocol.NO_TAGS
                item.message = item.message._replace(tags=tags)
                self.set(item, IN_FLIGHT)
                messages.append(item.message)
        return messages

    def having(self, delivery: str) -> List[Outgoing]:
        """Return the messages in this state."""
        return [item for item in self.items if item.entry.delivery == delivery]

    def labeled(self, label: str) -> Optional[Outgoing]:
        """Return the message that was sent with this label."""
        return next((i for i in self.items if label and i.message.tag("label") == label), None)

    def matching(self, delivery: str, *params: str, sender: str = "") -> Optional[Outgoing]:
        """Return the first message in this state to a target, with a text if that is given."""
        key, sender = protocol.casefold(params[0]), protocol.casefold(sender)
        for item in self.having(delivery):
            is_from = not sender or protocol.casefold(item.nickname) == sender
            if item.key == key and is_from and item.message.params[1 : len(params)] == params[1:]:
                return item
        return None

    def set(self, item: Outgoing, delivery: str) -> None:
        """Set the state of a message that is not delivered."""
        has_changed = _SHOWN[item.entry.delivery] != _SHOWN[delivery]
        item.entry.delivery = delivery
        for conversation in item.conversations if has_changed else ():
            self._change(CHANGED, conversation, [item.entry])

    def deliver(self, item: Outgoing, line: Line, msgid: str) -> None:
        """Note that the server has a message, which looks like `line`."""
        self.items.remove(item)
        item.entry.line, item.entry.msgid, item.entry.delivery = line, msgid, SENT

    def resolve(self, key: str, is_complete: bool, nickname: str) -> None:
        """Decide on the uncertain messages to a target that the history does not have.

        They can be sent again if the history is complete and their nickname is ours: then no
        other connection of ours is left that could still deliver them.
        """
        for item in self.having(UNCERTAIN):
            is_ours = protocol.casefold(item.nickname) == protocol.casefold(nickname)
            if item.key == key:
                self.set(item, QUEUED if is_complete and is_ours else UNKNOWN)

    def discard(self, entry: Entry) -> Optional[Outgoing]:
        """Forget a message that had failed, and return it."""
        failed = (i for i in self.items if i.entry is entry and entry.state == FAILED)
        item = next(failed, None)
        if item is not None:
            self.items.remove(item)
        return item

    def forget(self, key: str) -> None:
        """Drop what waits for a target that the user has left."""
        kept = [i for i in self.items if i.key != key or i.entry.delivery == IN_FLIGHT]
        self.items = kept


# History
# -------

# Purposes of a request: the latest page of a new conversation, the page before all that is known,
# what was missed while the connection was lost, the answer to /history, and the users who have
# sent private messages meanwhile
LATEST, OLDER, MISSED, TYPED, TARGETS = "latest", "older", "missed", "typed", "targets"


class Request:
    """A CHATHISTORY command, and the messages of its answer so far."""

    def __init__(
        self, purpose: str, conversation: Optional[Conversation], limit: int, deadline: float
    ) -> None:
        self.purpose = purpose
        self.conversation = conversation  # None for TARGETS
        self.key = conversation.key if conversation is not None else ""  # when it was asked for
        self.limit = limit  # messages of a page
        self.deadline = deadline  # for the whole answer
        self.batch = ""  # the reference of its answer, once that has begun
        self.messages: List[Message] = []
        self.missed = 0  # messages, in all pages of MISSED so far
        self.reaches_back = False  # the pages of MISSED have everything since the anchor

    @property
    def is_full(self) -> bool:
        """True if there may be more than this page."""
        return len(self.messages) >= self.limit


class History:
    """The requests to the server's history that are not answered completely.

    What is missing is known by each Conversation: `has_older`, `is_complete`, `anchor`.
    """

    def __init__(self) -> None:
        self.requests: List[Request] = []

    def is_fetching(self, conversation: Conversation) -> bool:
        """Return True if a page of the conversation was asked for."""
        pages = (request for request in self.requests if request.purpose != TYPED)
        return any(request.conversation is conversation for request in pages)

    def waiting(self, target: str) -> Optional[Request]:
        """Return the first request for a target, which may have been renamed since."""
        key = protocol.casefold(target)
        for request in self.requests:
            renamed = request.conversation.key if request.conversation is not None else ""
            if not request.batch and key in (request.key, renamed):
                return request
        return None

    def answering(self, batch: str) -> Optional[Request]:
        """Return the request that an open batch answers."""
        return next((r for r in self.requests if batch and r.batch == batch), None)


# Session
# -------

_TOKENS = frozenset("CHANMODES CHANTYPES CHATHISTORY NETWORK PREFIX".split())  # of use
_PREFIX = "(qaohv)~&@%+"  # the usual one, for servers that send none


class Session:
    """The state that lasts as long as a connection: capabilities, ISUPPORT, progress."""

    def __init__(self, number: int = 0, caps: FrozenSet[str] = frozenset()) -> None:
        self.number = number  # as in Connected
        self.caps = caps
        self.tokens: Dict[str, str] = {}  # ISUPPORT
        self.is_return = False  # a reconnect
        self.is_resumed = False
        self.is_settled = False  # past the welcome: messages can be sent

    @property
    def has_history(self) -> bool:
        """Return True if the server answers CHATHISTORY."""
        return HISTORY in self.caps

    def is_channel(self, target: str) -> bool:
        """Return True if a target is a channel's name here."""
        return target.startswith(tuple(self.tokens.get("CHANTYPES", "#")) or ("#",))

    @property
    def prefixes(self) -> Dict[str, str]:
        """The signs before members' names, by mode, the highest first."""
        return protocol.parse_prefix(self.tokens.get("PREFIX", _PREFIX))

    @property
    def modes(self) -> Dict[str, str]:
        """The channel modes, like protocol.CHANNEL_MODES."""
        chanmodes = self.tokens.get("CHANMODES", protocol.CHANMODES)
        return protocol.channel_modes(chanmodes, self.prefixes)

    def page(self, size: int) -> int:
        """Return how many messages of history to ask for at once."""
        limit = self.tokens.get("CHATHISTORY", "")[:9]
        return min(size, int(limit)) if limit.isdecimal() and int(limit) else size


# Chat
# ----

# Chat.state
CONNECTING, CONNECTED = "Connecting", "Connected"
RECONNECTING, DISCONNECTED = "Reconnecting", "Disconnected"

# Room for the "user@host" that a server puts before our messages, at its longest
_USER_AT_HOST = "!" + "u" * 10 + "@" + "h" * 63


class Chat:
    """Everything known about one server, and what its user can do there.

    Pure: the same calls give the same state. `now` is the time in seconds since 1970. What the
    user may not do raises protocol.InputError, and then nothing is sent. `levels` (alerts by
    conversation) and `ignored` (nicknames) are the settings' own objects, changed in place.

    The functions in SERVER_COMMANDS and USER_VERBS work with the methods of the second half:
    they change the state and record the change in the Outcome of the current call.
    """

    def __init__(self, server: str, levels: Dict[str, str], ignored: List[str]) -> None:
        self.server = server  # its address, then the name of its network
        self.nickname = ""
        self.state = DISCONNECTED
        self.is_away = False
        self.console = Conversation(server, CONSOLE)
        self.conversations = [self.console]  # channels first
        self.current = self.console
        self.session = Session()
        self.outbox = Outbox(self.change)
        self.history = History()
        self.ignored = ignored
        self.outcome = Outcome()
        self.now = 0.0
        self.channel_keys: Dict[str, str] = {}
        self.correspondent = ""  # the sender of the last private message
        self.candidate: Optional[Login] = None  # typed, not accepted yet
        self._levels = levels
        self._address = server
        self._has_focus = True
        self._entries = 0  # created
        self._banner = ""
        self._retry_at = self._back_at = 0.0
        self.complete_until = 0.0  # server time up to which nothing was missed
        self._completer = Completer()

    # For the views

    @property
    def title(self) -> str:
        """The window's title: what is new, state, nickname and server."""
        counted = [c for c in self.conversations if c.level != NONE]
        unread = sum(c.unread for c in counted)
        news = "(%d%s) " % (unread, "!" if any(c.mentions for c in counted) else "")
        text = "%s — %s" % (self.status, self.server)
        if self.state == CONNECTING:
            text = "Connecting to %s…" % self.server
        elif self.state == CONNECTED:
            text = "Connected: %s @ %s" % (self.nickname, self.server)
        return "%s%s — Hubbub" % (news if unread else "", text)

    @property
    def status(self) -> str:
        """The state of the connection, for people."""
        return self.state + ("…" if self.state in (CONNECTING, RECONNECTING) else "")

    @property
    def hint(self) -> str:
        """The text of the empty composer."""
        if self.current.kind == CONSOLE:
            return "Enter a room with /join ROOM, or write to one person: @USERNAME MESSAGE"
        later = "" if self.state == CONNECTED else " — sent when you are back online"
        return "Message %s%s" % (self.current.name, later)

    def banner(self, now: float) -> Banner:
        """Return the warning about the connection, which changes with the time."""
        if self.state == CONNECTED:
            return Banner("Connected again." if now < self._back_at + BACK_TIME else "")
        if self.state != RECONNECTING:
            return Banner(self._banner)
        seconds = math.ceil(self._retry_at - now)
        when = "in %d s" % seconds if seconds > 0 else "now"
        return Banner(self._banner.format(when), seconds > 0)

    @property
    def is_settled(self) -> bool:
        """True if messages can be sent."""
        return self.session.is_settled

    @property
    def unsent(self) -> int:
        """The number of own messages that the server has not confirmed."""
        return sum(item.entry.state == WAITING for item in self.outbox.items)

    def find(self, name: str) -> Optional[Conversation]:
        """Return the channel or private conversation of this name."""
        key = protocol.casefold(name)
        return next((c for c in self.conversations if c.key == key and c.kind != CONSOLE), None)

    def next_unread(self) -> Optional[Conversation]:
        """Return a conversation with something new, preferably with a mention."""
        unread = [c for c in self.conversations if c.unread and c is not self.current]
        return max(unread, key=lambda c: bool(c.mentions)) if unread else None

    def neighbour(self, step: int) -> Conversation:
        """Return the conversation `step` rows below the current conversation."""
        index = self.conversations.index(self.current)
        return self.conversations[(index + step) % len(self.conversations)]

    def presence(self, nickname: str) -> str:
        """Return ONLINE, AWAY or OFFLINE, as far as our channels show."""
        key = protocol.casefold(nickname)
        found = [c.members[key] for c in self.conversations if key in c.members]
        if not found:
            return OFFLINE
        return AWAY if found[0].is_away else ONLINE

    def everybody(self) -> List[str]:
        """Return the nicknames of all other members, those of the channel in view first."""
        people = [p.nickname for c in (self.current, *self.conversations) for p in c.people]
        return [nickname for nickname in dict.fromkeys(people) if not self.is_me(nickname)]

    def complete(self, text: str, cursor: int, step: int = 1) -> Optional[Tuple[str, int]]:
        """Return text and cursor after Tab (or Shift+Tab, -1); None if nothing completes it."""
        return self._completer.complete(text, cursor, functools.partial(_suggest, self), step)

    def begin(self, nickname: str) -> None:
        """Note that a connection was started."""
        self.nickname = nickname
        self.state = CONNECTING

    # What happens: each of these returns an Outcome

    def handle(self, event: Event, now: float) -> Outcome:
        """Take an event of the connection."""
        self.tick(now)
        if isinstance(event, Connected):
            self._on_connected(event)
        elif isinstance(event, Lost):
            self._on_lost(event)
        elif isinstance(event, Disconnected):
            self._on_disconnected(event)
        else:
            self._on_message(event)
        return self.outcome

    def tick(self, now: float) -> Outcome:
        """Give up requests that are overdue; cheap."""
        self._start(now)
        for request in [r for r in self.history.requests if r.deadline < now]:
            _give_up(self, request)
        return self.outcome

    def submit(self, text: str, now: float) -> Outcome:
        """Do what the user typed or pasted. Only its first line can be a command."""
        self._start(now)
        lines = [protocol.clean(line, MAX_PASTE).strip() for line in text.splitlines()]
        first, *more = [line for line in lines if line] or [""]
        if first:
            _run_input(self, first, more)
            self.unmark(self.current)
        return self.outcome

    def notify(self, text: str, now: float) -> Outcome:
        """Show a line of the program's own in the conversation in view."""
        self._start(now)
        self.answer(text)
        return self.outcome

    def select(self, conversation: Conversation, now: float) -> Outcome:
        """Bring a conversation into view."""
        self._start(now)
        self.bring_up(conversation)
        return self.outcome

    def open(self, name: str, now: float) -> Outcome:
        """Bring up a private conversation, or a channel, which is joined first."""
        found = self.find(name)
        if self.session.is_channel(name) and (found is None or found.is_outside):
            return self.submit("/join " + name, now)
        if found is None and not protocol.is_nickname(name):
            raise InputError(protocol.NO_SUCH_USER.format(name))
        self._start(now)
        self.bring_up(found or self.private(name))
        return self.outcome

    def close(self, conversation: Conversation, now: float) -> Outcome:
        """Leave a channel, or put a private conversation away."""
        self._start(now)
        if conversation.kind == CHANNEL and self.is_settled and not conversation.is_outside:
            self.send(Message("PART", (conversation.name,)))
        self.remove(conversation)
        return self.outcome

    def retry(self, entry: Entry, now: float) -> Outcome:
        """Say a message again that had failed."""
        return self.discard(entry, now, again=True)

    def discard(self, entry: Entry, now: float, again: bool = False) -> Outcome:
        """Remove a message that had failed."""
        self._start(now)
        item = self.outbox.discard(entry)
        for conversation in item.conversations if item is not None else ():
            self.drop([entry], conversation)
        if item is not None and again:
            self.say(item.message)
        return self.outcome

    def fetch_older(self, conversation: Conversation, now: float) -> Outcome:
        """Ask for the page of the history before all that is known."""
        self._start(now)
        can_ask = self.is_settled and self.session.has_history and conversation.has_older
        first = conversation.oldest()
        if can_ask and first is None:
            _catch_up(self, conversation)
        elif can_ask and first is not None and not self.history.is_fetching(conversation):
            reference = "msgid=" + first.msgid
            _ask(self, OLDER, conversation, "BEFORE", conversation.name, reference)
        return self.outcome

    def set_focus(self, has_focus: bool, now: float) -> Outcome:
        """Note whether the user looks at the window."""
        self._start(now)
        self._has_focus = has_focus
        if has_focus:
            self._read(self.current)
        elif not self.current.unread:
            self.unmark(self.current)
        return self.outcome

    def set_level(self, conversation: Conversation, level: str, now: float) -> Outcome:
        """Set which alerts the user wants."""
        self._start(now)
        conversation.level = self._levels[self._level_key(conversation.name)] = level
        self.change(SIDEBAR)
        return self.outcome

    # Events

    def _start(self, now: float) -> None:
        self.now = now
        self.outcome = Outcome(self.session.number)

    def _on_connected(self, event: Connected) -> None:
        session = Session(event.session, event.caps)
        session.is_return = self.state == RECONNECTING or self.channel is not None
        session.is_resumed = event.is_resumed
        self.session, self.outcome.session = session, session.number
        self.state, self.nickname = CONNECTED, event.nickname
        if session.is_return:
            self._back_at = self.now
            self.inform("Connected again.")
        self.change(STATUS)

    def _on_lost(self, event: Lost) -> None:
        if self.state == CONNECTED:
            self._lose()
            self.inform("%s. Messages you send now wait here." % event.reason.rstrip("."))
        self.state = RECONNECTING
        self._banner = "Connection lost. Trying again {} (attempt %d)." % event.attempt
        self._retry_at = self.now + event.seconds
        self.change(STATUS)

    def _on_disconnected(self, event: Disconnected) -> None:
        was_connected = self.state in (CONNECTED, RECONNECTING)
        if self.state == CONNECTED:
            self._lose()
        self.state, self._banner = DISCONNECTED, event.reason if was_connected else ""
        if self._banner:
            self.inform(event.reason)
        self.change(STATUS)

    def _lose(self) -> None:
        for item in self.outbox.having(IN_FLIGHT):
            self.outbox.set(item, UNCERTAIN)
        self.history = History()
        self.session.is_settled = False
        for conversation in self.conversations:
            conversation.part(OUTSIDE if conversation.is_outside else REJOINING)
            self.change(PEOPLE, conversation)
        self.change(SIDEBAR)

    def _on_message(self, message: Message) -> None:
        request = self.history.answering(message.tag("batch"))
        if request is not None and message.command != "BATCH":
            if len(request.messages) < MAX_BATCH:
                request.messages.append(message)
            return
        if "time" in message.tags and not self.is_catching_up:
            self.complete_until = self.time_of(message)
        if message.command in _IGNORABLE and self.is_ignored(message.nickname):
            return
        self._note_refusal(message)
        least, handler = SERVER_COMMANDS.get(message.command, (0, None))
        if handler is None:
            self.show(message, self.current)
        elif len(message.params) >= least:
            handler(self, message)

    def _note_refusal(self, message: Message) -> None:
        """Fail the own message that an error is about."""
        command = message.command
        is_error = command == "FAIL" or "400" <= command <= "599"
        item = self.outbox.labeled(message.tag("label")) if is_error else None
        if item is None and command in _UNDELIVERED and len(message.params) > 1:
            item = self.outbox.matching(IN_FLIGHT, message.params[1])
        if item is not None:
            self.outbox.set(item, REFUSED)

    # For the functions below: what they send and show

    def send(self, message: Message) -> None:
        """Send a message in this session."""
        self.outcome.send.append(message)

    def change(
        self, kind: str, conversation: Optional[Conversation] = None, entries: Sequence[Entry] = ()
    ) -> None:
        """Record a change; changes without entries once."""
        change = Change(kind, conversation, entries)
        if entries or change not in self.outcome.changes:
            self.outcome.changes.append(change)

    def describe(self, message: Message, me: str = "") -> Optional[Line]:
        """Return a message as the user sees it, or as the user `me` did."""
        modes = self.session.modes if message.command == "MODE" else protocol.CHANNEL_MODES
        when = self.time_of(message)
        return protocol.describe(message, me or self.nickname, when, modes=modes)

    def time_of(self, message: Message) -> float:
        """Return when a message was said: its server-time if it has one, else now."""
        try:
            when = protocol.parse_time(message.tags["time"])
        except (KeyError, ValueError):
            return self.now
        return min(max(86400.0, when), LATEST_TIME)  # Windows fails below a day, too

    def new_entry(self, line: Line, msgid: str = "") -> Entry:
        """Return an entry that stands nowhere yet."""
        self._entries += 1
        return Entry(self._entries, line, msgid, bool(line.nickname) and self.is_me(line.nickname))

    def add(self, entry: Entry, conversation: Conversation) -> None:
        """Put an entry at the end of a conversation."""
        conversation.insert(len(conversation.entries), entry)
        self.change(ADDED, conversation, [entry])
        if entry.event and entry.count == 1:
            self._fold(conversation)
        self.trim(conversation)

    def drop(self, entries: Iterable[Entry], conversation: Conversation) -> None:
        """Remove entries from a conversation, as far as they stand there."""
        gone = conversation.remove(entries)
        if gone:
            self.change(REMOVED, conversation, gone)

    def trim(self, conversation: Conversation) -> None:
        """Remove the oldest entries, but no own unsent ones, if there are too many."""
        excess = len(conversation.entries) - MAX_ENTRIES
        if excess > MAX_ENTRIES // 10:
            sent = (entry for entry in conversation.entries if entry.delivery == SENT)
            self.drop(itertools.islice(sent, excess), conversation)
            conversation.has_older = self.session.has_history

    def _fold(self, conversation: Conversation) -> None:
        """Fold the joins (or leaves) at the end into a single entry, if they are a crowd."""
        run: List[Entry] = []
        for entry in reversed(conversation.entries):
            if run and (entry.event, entry.day) != (run[0].event, run[0].day):
                break
            run.insert(0, entry)
        count = sum(entry.count for entry in run)
        if count < CROWD:
            return
        text = "%d people %s" % (count, run[0].event)
        crowd = self.new_entry(run[0].line._replace(text=text))
        crowd.event, crowd.count = run[0].event, count
        del conversation.entries[-len(run) :]  # faster than `drop`
        self.change(REMOVED, conversation, run)
        self.add(crowd, conversation)

    def show(self, message: Message, *conversations: Conversation, event: str = "") -> None:
        """Show a message, once in each of these conversations."""
        line = self.describe(message)
        if line is not None:
            entry = self.new_entry(line, message.tag("msgid"))
            entry.event = event
            for conversation in conversations:
                if not conversation.knows(entry.msgid):
                    self.add(entry, conversation)

    def answer(self, text: str) -> None:
        """Show an answer to the user, as the server's, in the conversation in view."""
        self.add(self.new_entry(protocol.server_line(text, self.now)), self.current)

    def inform(self, text: str, conversation: Optional[Conversation] = None) -> None:
        """Show a line of the client's own."""
        line = Line(FROM_SYSTEM, self.now, "[system]:", text)
        self.add(self.new_entry(line), conversation or self.current)

    def arrive(
        self, conversation: Conversation, entries: List[Entry], is_missed: bool = False
    ) -> None:
        """Count what others have said, mark where it begins, and raise an alert."""
        is_seen = self._has_focus and conversation is self.current
        if not entries or (is_seen and not is_missed):
            return
        conversation.mark = conversation.mark or entries[0]
        conversation.new_count += len(entries)
        self.change(CHANGED, conversation, [conversation.mark])
        if is_seen:
            return
        for_user = [e for e in entries if e.is_mention or conversation.kind == PRIVATE]
        conversation.unread += len(entries)
        conversation.mentions += len(for_user)
        self.change(SIDEBAR)
        wanted = {ALL: entries, MENTIONS: for_user, NONE: []}[conversation.level]
        if wanted:
            self.change(ALERT, conversation, wanted)

    def unmark(self, conversation: Conversation) -> None:
        """Remove the "new messages" mark."""
        mark = conversation.mark
        if mark is not None:
            conversation.mark, conversation.new_count = None, 0
            self.change(CHANGED, conversation, [mark])

    def _read(self, conversation: Conversation) -> None:
        if conversation.unread:
            conversation.unread = conversation.mentions = 0
            self.change(SIDEBAR)

    # For the functions below: conversations

    @property
    def channel(self) -> Optional[Conversation]:
        """The channel in view, or else the first one."""
        channels = [c for c in self.conversations if c.kind == CHANNEL]
        return self.current if self.current in channels else next(iter(channels), None)

    def is_me(self, nickname: str) -> bool:
        """Return True if this is our nickname."""
        return protocol.casefold(nickname) == protocol.casefold(self.nickname)

    def is_mention(self, text: str) -> bool:
        """Return True if a text names the user."""
        name, text = self.nickname.casefold(), text.casefold()
        return name in text and bool(re.search(r"(?<!\w)%s(?!\w)" % re.escape(name), text))

    def is_ignored(self, nickname: str) -> bool:
        """Return True if the user ignores this nickname."""
        key = protocol.casefold(nickname)
        return any(protocol.casefold(name) == key for name in self.ignored)

    def create(self, name: str, kind: str, limit: int = 0) -> Optional[Conversation]:
        """Return a new conversation, unless there are too many; channels stand first."""
        channels = sum(c.kind == CHANNEL for c in self.conversations)
        count = channels if kind == CHANNEL else len(self.conversations) - channels
        if count >= (limit or MAX_CONVERSATIONS) or not protocol.is_middle(name):
            return None
        new = Conversation(name, kind)
        new.level = self._levels.get(self._level_key(name), MENTIONS)
        new.has_older = self.session.has_history  # until the answer says otherwise
        new.is_complete = kind == CHANNEL or not self.is_catching_up
        self.conversations.insert(channels if kind == CHANNEL else len(self.conversations), new)
        self.change(SIDEBAR)
        return new

    def private(self, nickname: str, limit: int = 0) -> Conversation:
        """Return the conversation with a user; if there are too many, the current one."""
        return self.find(nickname) or self.create(nickname, PRIVATE, limit) or self.current

    def bring_up(self, conversation: Conversation) -> None:
        """Bring a conversation into view."""
        if conversation is not self.current:
            self.unmark(self.current)
            self.current = conversation
            self.change(SELECTED, conversation)
        if self._has_focus:
            self._read(conversation)
        if conversation.kind == PRIVATE and self.is_settled:
            _catch_up(self, conversation)

    def remove(self, conversation: Conversation) -> None:
        """Remove a conversation; if it was in view, the one above follows."""
        index = self.conversations.index(conversation)
        self.conversations.remove(conversation)
        if conversation.kind == CHANNEL:
            self.outbox.forget(conversation.key)
        self.resolve(conversation.key, False)
        if not self.conversations:
            self.conversations.append(self.console)
        if conversation is self.current:
            self.bring_up(self.conversations[max(0, index - 1)])
        self.change(SIDEBAR)

    def _level_key(self, name: str) -> str:
        return "%s/%s" % (self._address, protocol.casefold(name))

    def shared_with(self, nickname: str) -> List[Conversation]:
        """Return the channels that a user is in, and the private conversation with the user."""
        key = protocol.casefold(nickname)
        return [c for c in self.conversations if key in c.members or c.key == key]

    # For the functions below: own messages

    def say(self, message: Message) -> None:
        """Show an own message, and send it as soon as it can be."""
        line = self.describe(message._replace(source=self.nickname + "!"))
        if line is None:
            return
        entry = self.new_entry(line)
        item = self.outbox.add(entry, message)
        self.flush()
        for conversation in dict.fromkeys([self.current, self.find(message.params[0])]):
            if conversation is not None:
                item.conversations.append(conversation)
                self.add(entry, conversation)

    def flush(self) -> None:
        """Send what waits and can be sent. Without echoes, a PONG will confirm it."""
        caps = self.session.caps
        labels = caps >= {"echo-message", "labeled-response"}  # then each echo has one
        messages = self.outbox.take(self._can_send, self.nickname, labels)
        self.outcome.send += messages
        if messages and "echo-message" not in caps:
            self.send(Message("PING", ("sent-%d" % self.outbox.last_number,)))

    def _can_send(self, key: str) -> bool:
        conversation = self.find(key)
        is_waiting = conversation is not None and conversation.membership in (REJOINING, OUTSIDE)
        return self.is_settled and not is_waiting

    def confirm(self, item: Outgoing, line: Line, msgid: str, target: str) -> None:
        """Show that the server has a message, where the server puts it."""
        self.outbox.deliver(item, line, msgid)
        for conversation in item.conversations:
            if conversation.confirm(item.entry):
                self.change(REMOVED, conversation, [item.entry])
                self.change(ADDED, conversation, [item.entry])
            else:
                self.change(CHANGED, conversation, [item.entry])
        if not self.session.is_channel(target):
            conversation = self.private(target)
            if conversation not in item.conversations:
                self.add(item.entry, conversation)

    def resolve(self, key: str, is_complete: bool) -> None:
        """Decide on uncertain messages to a target, once its history has been read."""
        self.outbox.resolve(key, is_complete, self.nickname)
        self.flush()

    @property
    def is_catching_up(self) -> bool:
        """True from a reconnect until all that was missed has been read."""
        is_asking = any(r.purpose in (TARGETS, MISSED) for r in self.history.requests)
        return self.session.is_return and (is_asking or not self.is_settled)


# Catching up
# -----------

_HISTORY_BATCHES = ("chathistory", "draft/chathistory-targets")


def _ask(
    chat: Chat, purpose: str, conversation: Optional[Conversation], *params: str, limit: int = 0
) -> Request:
    """Ask the server's history, for a page of a conversation or for TARGETS."""
    limit = limit or chat.session.page(MISSED_PAGE if purpose == MISSED else PAGE)
    request = Request(purpose, conversation, limit, chat.now + HISTORY_TIME)
    if len(chat.history.requests) < MAX_REQUESTS:
        chat.history.requests.append(request)
    chat.send(Message("CHATHISTORY", (*params, str(limit))))
    return request


def _catch_up(chat: Chat, conversation: Conversation) -> None:
    """Ask for what was missed in a conversation, or for the latest page if it is new to us."""
    if not chat.session.has_history:
        chat.resolve(conversation.key, False)
    elif chat.history.is_fetching(conversation):
        return
    elif conversation.is_complete:
        if conversation.has_older and conversation.newest() is None:
            _ask(chat, LATEST, conversation, "LATEST", conversation.name, "*")
    elif conversation.anchor is None:
        _ask(chat, MISSED, conversation, "LATEST", conversation.name, "*")
    else:  # the answer begins with the anchor: proof that the history reaches back to it
        since = protocol.format_time(conversation.anchor.line.when - 0.001)
        _ask(chat, MISSED, conversation, "AFTER", conversation.name, "timestamp=" + since)


def _catch_up_with(chat: Chat, nickname: str) -> None:
    """Catch up with a private conversation, which may be new."""
    if not chat.session.is_channel(nickname):
        conversation = chat.private(nickname)
        if conversation.key == protocol.casefold(nickname):
            _catch_up(chat, conversation)
        else:  # there are too many
            chat.resolve(protocol.casefold(nickname), False)


def _give_up(chat: Chat, request: Request) -> None:
    """Note that a request will not be answered, so it proves nothing."""
    chat.history.requests.remove(request)
    if request.conversation is not None and request.purpose != TYPED:
        chat.resolve(request.conversation.key, False)


def _on_batch(chat: Chat, message: Message) -> None:
    """BATCH: an answer to CHATHISTORY begins, or is complete."""
    sign, reference, kind = message.params[0][:1], message.params[0][1:], message.param(1)
    if sign == "+" and kind in _HISTORY_BATCHES:
        waiting = chat.history.waiting(message.text if kind == "chathistory" else "")
        if waiting is not None:
            waiting.batch = reference
    request = chat.history.answering(reference)
    if sign == "-" and request is not None:
        chat.history.requests.remove(request)
        if request.purpose == TARGETS:
            _take_targets(chat, request)
        elif request.conversation in chat.conversations:
            _take_page(chat, request, request.conversation)


def _take_targets(chat: Chat, request: Request) -> None:
    """Catch up with all private conversations in which something was missed."""
    for message in request.messages:
        if len(message.params) > 2:
            _catch_up_with(chat, message.params[1])
    for conversation in chat.conversations:
        if conversation.kind == PRIVATE and not chat.history.is_fetching(conversation):
            conversation.is_complete = True


def _take_page(chat: Chat, request: Request, conversation: Conversation) -> None:
    """Put a page of history into its conversation."""
    purpose, anchor = request.purpose, conversation.anchor
    page = [entry for m in request.messages for entry in _earlier_entry(chat, m, conversation)]
    changes = conversation.merge(page, conversation.oldest() if purpose == OLDER else None)
    new = [entry for change in changes for entry in change.entries]
    if purpose == TYPED or (new and purpose != OLDER):
        chat.change(RECALLED, conversation, page if purpose == TYPED else new)
    chat.outcome.changes += changes
    if purpose in (LATEST, OLDER) or (purpose == MISSED and anchor is None):
        conversation.has_older = request.is_full
    if purpose == MISSED:
        _take_missed(chat, request, conversation, new)
    elif purpose == LATEST:
        chat.resolve(conversation.key, False)
    if purpose != OLDER:
        chat.trim(conversation)


def _take_missed(
    chat: Chat, request: Request, conversation: Conversation, new: List[Entry]
) -> None:
    """Count what was missed, ask for its next page, or decide on uncertain messages."""
    news = [e for e in new if e.line.kind in (FROM_OTHERS, PRIVATE) and not e.is_own]
    request.missed += len(news)
    chat.arrive(conversation, news, is_missed=True)
    msgids = [message.tag("msgid") for message in request.messages]
    if conversation.anchor is None:  # a channel's history from its first message on is complete
        request.reaches_back = conversation.kind == CHANNEL and not request.is_full
    elif conversation.anchor.msgid in msgids:
        request.reaches_back = True
    if conversation.anchor is not None and request.is_full and msgids[-1]:
        following = _ask(
            chat, MISSED, conversation, "AFTER", conversation.name, "msgid=" + msgids[-1]
        )
        following.missed, following.reaches_back = request.missed, request.reaches_back
        return
    conversation.is_complete = True
    if request.missed:
        count = "1 message" if request.missed == 1 else "%d messages" % request.missed
        chat.inform("Welcome back. You missed %s." % count, conversation)
    chat.resolve(conversation.key, request.reaches_back or chat.session.is_resumed)


def _earlier_entry(chat: Chat, message: Message, conversation: Conversation) -> Iterator[Entry]:
    """Yield the entry for a message in the history, which may be an own uncertain message."""
    msgid, item = message.tag("msgid"), None
    if message.command == "PRIVMSG" and message.params and not conversation.knows(msgid):
        item = chat.outbox.matching(UNCERTAIN, *message.params[:2], sender=message.nickname)
    line = chat.describe(message, message.nickname if item is not None else "")
    if line is None or chat.is_ignored(message.nickname):
        return
    if item is not None:  # it had arrived
        for other in item.conversations:
            if other is not conversation:
                chat.change(CHANGED, other, [item.entry])
            else:
                chat.drop([item.entry], other)
        chat.outbox.deliver(item, line, msgid)
        yield item.entry
        return
    entry = chat.new_entry(line, msgid)
    entry.is_mention = line.kind == FROM_OTHERS and not entry.is_own and chat.is_mention(line.text)
    yield entry


# What servers send
# -----------------

# Numerics that refuse a message: no such user or channel, not allowed, too many targets
_UNDELIVERED = frozenset("401 403 404 407 411 412 477 486 531".split())
# Numerics that refuse JOIN, some of them PART, too
_NOT_JOINED = "403 405 437 470 471 473 474 475 476 477 479 480 489 520".split()
_IGNORABLE = frozenset(["PRIVMSG", "NOTICE", "INVITE"])  # nothing from users that are ignored

Handler = Callable[[Chat, Message], None]


def _on_text(chat: Chat, message: Message) -> None:
    target, sender, msgid = message.params[0], message.nickname, message.tag("msgid")
    line = chat.describe(message)
    if line is None:
        return
    if chat.is_me(sender):
        item = chat.outbox.labeled(message.tag("label"))
        item = item or chat.outbox.matching(IN_FLIGHT, *message.params[:2])
        if item is not None:
            chat.confirm(item, line, msgid, target)
            return
        if chat.is_me(target):  # the copy for the recipient of what was confirmed already
            return
    target = target.lstrip("@+")
    conversation = chat.find(target) or chat.current
    is_private = "!" in message.source and not chat.session.is_channel(target)
    if is_private and chat.is_me(sender):
        conversation = chat.private(target)
    elif is_private:
        conversation = chat.private(sender, MAX_STRANGERS)
        chat.correspondent = sender
    if conversation.knows(msgid):
        return
    entry = chat.new_entry(line, msgid)
    entry.is_mention = line.kind == FROM_OTHERS and chat.is_mention(line.text)
    chat.add(entry, conversation)
    if is_private and chat.current is not conversation and chat.current.kind != PRIVATE:
        chat.add(entry, chat.current)
    if line.nickname and not entry.is_own:
        chat.arrive(conversation, [entry])


def _in_channel(index: int, handler: Callable[[Chat, Message, Conversation], None]) -> Handler:
    """Return a handler for messages about a channel that is ours; others are shown in view."""

    def handle(chat: Chat, message: Message) -> None:
        channel = chat.find(message.params[index])
        if channel is not None:
            handler(chat, message, channel)
        else:
            chat.show(message, chat.current)

    return handle


def _on_join(chat: Chat, message: Message) -> None:
    nickname, channel = message.nickname, chat.find(message.params[0])
    if chat.is_me(nickname):
        _on_own_join(chat, message, channel)
    elif channel is not None and nickname and len(channel.members) < MAX_MEMBERS:
        channel.members[protocol.casefold(nickname)] = Person(nickname)
        chat.change(PEOPLE, channel)
        chat.show(message, channel, event="joined")


def _on_own_join(chat: Chat, message: Message, channel: Optional[Conversation]) -> None:
    """JOIN of our own: the answer to /join, or to a reconnect, or the server's own idea."""
    name = message.params[0]
    if channel is None and chat.session.is_channel(name):
        channel = chat.create(name, CHANNEL)
    if channel is None or channel.membership == JOINED:
        return
    is_return, channel.membership = channel.membership == REJOINING, JOINED
    channel.rename(name)
    channel.last_topic, channel.topic = channel.topic, ""
    channel.members = {protocol.casefold(message.nickname): Person(message.nickname)}
    if chat.console in chat.conversations:  # its entries go on in the first channel
        chat.conversations.remove(chat.console)
        entries, chat.console.entries = chat.console.entries, []
        first = next(iter(channel.entries), None)
        chat.outcome.changes.append(Change(ADDED, channel, entries, first))
        channel.entries[:0] = entries
    _settle(chat)
    if chat.current is chat.console:
        chat.bring_up(channel)
    if not is_return:
        chat.show(message, channel)
    _catch_up(chat, channel)
    chat.flush()
    for kind in (PEOPLE, HEADER):
        chat.change(kind, channel)
    chat.change(SIDEBAR)


def _settle(chat: Chat) -> None:
    """Go on from the welcome: join the channels again, and ask for what was missed."""
    session = chat.session
    if session.is_settled:
        return
    session.is_settled = True
    for channel in chat.conversations:
        if channel.membership == REJOINING and channel.kind == CHANNEL:
            key = chat.channel_keys.get(channel.key, "")
            chat.send(Message("JOIN", (channel.name, key) if key else (channel.name,)))
    if session.is_return and session.has_history:
        bounds = chat.complete_until, chat.now + 86400
        stamps = ["timestamp=" + protocol.format_time(when) for when in bounds]
        _ask(chat, TARGETS, None, "TARGETS", *stamps)
    for item in chat.outbox.having(UNCERTAIN):
        conversation = chat.find(item.key)
        if not session.is_channel(item.key):
            _catch_up_with(chat, item.message.params[0])
        elif conversation is None or conversation.is_outside:  # it will not be joined
            chat.resolve(item.key, False)
    chat.flush()


def _on_not_joined(chat: Chat, message: Message, channel: Conversation) -> None:
    """Numerics that refuse JOIN, some of them PART, too"""
    if channel.membership not in (JOINING, REJOINING):
        chat.show(message, chat.current)
        return
    is_new = channel.membership == JOINING and not channel.entries
    channel.membership = OUTSIDE
    chat.resolve(channel.key, False)
    for item in chat.outbox.having(QUEUED):
        if item.key == channel.key:
            chat.outbox.set(item, REFUSED)
    if is_new:
        chat.remove(channel)
    chat.show(message, chat.current if is_new else channel)


def _on_part(chat: Chat, message: Message) -> None:
    channel = chat.find(message.params[0])
    if chat.is_me(message.nickname):
        if channel is not None:
            chat.remove(channel)
        chat.show(message, chat.current)
    elif channel is not None:
        _lose_member(chat, channel, message.nickname)
        chat.show(message, channel, event="left")


def _on_kick(chat: Chat, message: Message, channel: Conversation) -> None:
    _lose_member(chat, channel, message.params[1])
    if chat.is_me(message.params[1]):
        channel.part(OUTSIDE)
        chat.change(HEADER, channel)
    chat.show(message, channel)


def _on_quit(chat: Chat, message: Message) -> None:
    conversations = chat.shared_with(message.nickname)
    for conversation in conversations:
        _lose_member(chat, conversation, message.nickname)
    chat.show(message, *conversations, event="left")


def _lose_member(chat: Chat, channel: Conversation, nickname: str) -> None:
    """Note that a user has left a channel."""
    channel.members.pop(protocol.casefold(nickname), None)
    chat.change(PEOPLE, channel)
    chat.change(SIDEBAR)


def _on_nick(chat: Chat, message: Message) -> None:
    old, new = protocol.casefold(message.nickname), message.params[0]
    if not protocol.is_middle(new):
        return
    conversations = chat.shared_with(message.nickname)
    for conversation in conversations:
        person = conversation.members.pop(old, None)
        if person is not None:
            conversation.members[protocol.casefold(new)] = person._replace(nickname=new)
            chat.change(PEOPLE, conversation)
        elif chat.find(new) is None:
            conversation.rename(new)
            chat.change(HEADER, conversation)
    if chat.is_me(message.nickname):
        chat.nickname = new
        chat.change(STATUS)
    chat.change(SIDEBAR)
    chat.show(message, *conversations)


def _on_topic(chat: Chat, message: Message, channel: Conversation) -> None:
    channel.topic = "" if message.command == "331" else message.text
    chat.change(HEADER, channel)
    is_known = message.command == "332" and message.text == channel.last_topic
    channel.last_topic = ""
    if not is_known:
        chat.show(message, channel)


def _on_mode(chat: Chat, message: Message, channel: Conversation) -> None:
    prefixes = chat.session.prefixes
    modes = message.params[1:], chat.session.modes, protocol.MAX_MESSAGE
    for change in protocol.parse_modes(*modes):
        key, sign = protocol.casefold(change.arg), prefixes.get(change.letter, "")
        person = channel.members.get(key)
        if person is not None and sign:
            kept = person.prefix.replace(sign, "") + (sign if change.adding else "")
            prefix = "".join(sign for sign in prefixes.values() if sign in kept)
            channel.members[key] = person._replace(prefix=prefix)
            chat.change(PEOPLE, channel)
    chat.show(message, channel)


def _on_away(chat: Chat, message: Message) -> None:
    """AWAY; 305 and 306, which are about the user; 352, of the answer to WHO."""
    nickname, is_away = message.nickname, bool(message.text)
    if message.command in ("305", "306"):
        nickname, is_away = chat.nickname, message.command == "306"
    elif message.command == "352":
        nickname, is_away = message.params[5], message.params[6].startswith("G")
    key = protocol.casefold(nickname)
    for channel in chat.conversations:
        person = channel.members.get(key)
        if person is not None and person.is_away != is_away:
            channel.members[key] = person._replace(is_away=is_away)
            chat.change(PEOPLE, channel)
            chat.change(SIDEBAR)
    if chat.is_me(nickname) and chat.is_away != is_away:
        chat.is_away = is_away
        chat.change(STATUS)
    chat.show(message, chat.current)


def _on_names(chat: Chat, message: Message, channel: Conversation) -> None:
    signs = "".join(chat.session.prefixes.values())
    for word in message.text.split():
        nickname = word.lstrip(signs)
        if nickname and len(channel.names) < MAX_MEMBERS:
            prefix = word[: len(word) - len(nickname)]
            channel.names[protocol.casefold(nickname)] = Person(nickname, prefix)


def _on_end_of_names(chat: Chat, message: Message, channel: Conversation) -> None:
    is_news = len(channel.members) < 2
    for key, person in channel.members.items():
        if person.is_away and key in channel.names:
            channel.names[key] = channel.names[key]._replace(is_away=True)
    channel.members, channel.names = channel.names, {}
    chat.change(PEOPLE, channel)
    if channel.list_requests:
        channel.list_requests -= 1
        for text in protocol.online_lines([person.nickname for person in channel.people]):
            chat.answer(text)
    elif is_news and "away-notify" in chat.session.caps and len(channel.members) <= MAX_WHO:
        chat.send(Message("WHO", (channel.name,)))


def _on_welcome(chat: Chat, message: Message) -> None:
    """001, 372 and 375: read already, on a reconnect."""
    if not chat.session.is_return:
        chat.show(message, chat.current)


def _on_isupport(chat: Chat, message: Message) -> None:
    for token in message.params[1:-1]:
        name, _, value = token.partition("=")
        if name in _TOKENS:
            chat.session.tokens[name] = protocol.unescape_token(value)
    network = chat.session.tokens.get("NETWORK", "")
    if network and network != chat.server:
        chat.server = network
        chat.console.rename(network)
        chat.change(STATUS)


def _on_pong(chat: Chat, message: Message) -> None:
    """PONG: confirms what was sent before its PING, on a server without echoes."""
    word, _, number = message.text.partition("-")
    if word == "sent" and number.isdecimal():
        for item in chat.outbox.having(IN_FLIGHT):
            if item.number <= int(number[:9]):
                chat.confirm(item, item.entry.line, "", item.message.params[0])


def _on_logged_in(chat: Chat, message: Message) -> None:
    """903, or REGISTER: the login is kept, and its nickname taken, which logging in does not do."""
    chat.show(message, chat.current)
    is_success = message.command == "903" or message.params[0] == "SUCCESS"
    if is_success and chat.candidate is not None:
        chat.outcome.login, chat.candidate = chat.candidate, None
        if not chat.is_me(chat.outcome.login.name):
            chat.send(Message("NICK", (chat.outcome.login.name,)))


def _on_fail(chat: Chat, message: Message) -> None:
    request = None
    if message.params[0] == "CHATHISTORY":
        found = map(chat.history.waiting, [*message.params[2:-1], ""])
        request = next(filter(None, found), None)
    if request is None or request.purpose == TYPED:
        chat.show(message, chat.current)
    if request is not None:
        _give_up(chat, request)


def _on_no_such_user(chat: Chat, message: Message) -> None:
    nickname = message.params[1]
    chat.answer(protocol.NO_SUCH_USER.format(nickname) + _guess(chat, nickname))


# For each command and numeric: the least number of parameters, and the handler. Others are
# shown in the conversation in view, if they have a text in protocol.describe.
SERVER_COMMANDS: Dict[str, Tuple[int, Handler]] = {
    "PRIVMSG": (2, _on_text), "NOTICE": (2, _on_text), "PONG": (1, _on_pong),
    "JOIN": (1, _on_join), "PART": (1, _on_part), "KICK": (2, _in_channel(0, _on_kick)),
    "QUIT": (0, _on_quit), "NICK": (1, _on_nick), "MODE": (2, _in_channel(0, _on_mode)),
    "TOPIC": (1, _in_channel(0, _on_topic)), "BATCH": (1, _on_batch), "FAIL": (1, _on_fail),
    "AWAY": (0, _on_away), "352": (7, _on_away), "305": (1, _on_away), "306": (1, _on_away),
    "REGISTER": (1, _on_logged_in), "903": (1, _on_logged_in), "005": (2, _on_isupport),
    **dict.fromkeys(["001", "372", "375"], (1, _on_welcome)),
    **dict.fromkeys(["376", "422"], (0, lambda chat, m: _settle(chat))),  # after the welcome
    **dict.fromkeys(["331", "332"], (3, _in_channel(1, _on_topic))),
    "401": (2, _on_no_such_user), "353": (2, _in_channel(-2, _on_names)),
    "366": (2, _in_channel(1, _on_end_of_names)),
    **dict.fromkeys(_NOT_JOINED, (2, _in_channel(1, _on_not_joined))),
}  # fmt: skip


# What users type
# ---------------


def _run_input(chat: Chat, first: str, more: List[str]) -> None:
    """Do what `first` says; say the lines after it to the same target. Raises InputError."""
    typed = protocol.parse_input(first)
    if more and (typed.verb in ("leave", "quit") or is_secret("\n".join(more))):
        raise InputError("Nothing was sent: type /leave, /quit, /login or /register alone.")
    messages = _compose(chat, typed)
    target = ""
    if messages and messages[0].command in ("PRIVMSG", "JOIN"):
        target = messages[0].params[0].split(",")[-1]
    for line in more:
        messages += _compose(chat, protocol.Input("say", (line,)), target)
    _check(chat, typed.verb, messages)
    if typed.verb in USER_VERBS:
        USER_VERBS[typed.verb](chat, typed.args)
    for message in messages:
        _send(chat, message)


def _compose(chat: Chat, typed: protocol.Input, target: str = "") -> List[Message]:
    """Return the messages for a line said to a target, or in the conversation in view.

    Commands for channels work beside them too, on the first one.
    """
    conversation: Optional[Conversation] = chat.current
    if typed.verb == "leave" and chat.current.kind == PRIVATE:
        return []
    if typed.verb not in ("say", "me", "history", "leave"):
        conversation = chat.channel
    if not target and conversation is not None and conversation.kind != CONSOLE:
        target = conversation.name
    return protocol.compose(typed, target, chat.nickname + _USER_AT_HOST, chat.correspondent)


def _check(chat: Chat, verb: str, messages: List[Message]) -> None:
    """Raise InputError if the server, or the state of the connection, does not allow it."""
    texts = [message for message in messages if message.command == "PRIVMSG"]
    if not chat.is_settled and len(texts) < len(messages) and verb != "quit":
        raise InputError("You are not connected. Wait until you are.")
    needed = _NEEDED.get(verb)
    if needed and chat.state == CONNECTED and needed not in chat.session.caps:
        raise InputError("This server has no /%s." % verb)
    for found in (chat.find(message.params[0]) for message in texts):
        if found is not None and found.is_outside and verb != "join":
            raise InputError("You are not in {0}. Type /join {0}".format(found.name))


def _send(chat: Chat, message: Message) -> None:
    """Send a message of the user's, and show at once what comes of it."""
    if message.command == "PRIVMSG":
        chat.say(message)
    elif message.command == "CHATHISTORY":
        _ask(chat, TYPED, chat.current, *message.params[:-1], limit=int(message.text[:9]))
    else:
        if message.command == "JOIN":
            _enter(chat, message)
        chat.send(message)


def _enter(chat: Chat, message: Message) -> None:
    """Bring channels into view before they are joined: what is typed next is for them."""
    for name in message.params[0].split(","):
        channel = chat.find(name)
        if channel is None and chat.session.is_channel(name):
            channel = chat.create(name, CHANNEL)
        if channel is not None:
            if channel.membership == OUTSIDE:
                channel.membership = JOINING
            if len(message.params) > 1:
                chat.channel_keys[channel.key] = message.params[1]
            chat.bring_up(channel)


def _run_help(chat: Chat, args: Tuple[str, ...]) -> None:
    for line in protocol.help_lines():
        chat.answer(line)


def _run_list(chat: Chat, args: Tuple[str, ...]) -> None:
    """/list: the end of the answer is shown."""
    if chat.channel is not None:
        chat.channel.list_requests += 1


def _run_leave(chat: Chat, args: Tuple[str, ...]) -> None:
    """/leave: what is in view, which is a channel or a private conversation"""
    chat.remove(chat.current)


def _run_quit(chat: Chat, args: Tuple[str, ...]) -> None:
    chat.outcome.done = True


def _run_ignore(chat: Chat, args: Tuple[str, ...]) -> None:
    """/ignore: done here, so that it works on every server"""
    if not args:
        names = ", ".join(sorted(chat.ignored, key=protocol.casefold))
        chat.answer("You ignore %s." % (names or "nobody"))
    elif chat.is_me(args[0]):
        raise InputError("You cannot ignore yourself.")
    else:
        if not chat.is_ignored(args[0]):
            chat.ignored.append(args[0])
        chat.answer("You do not hear %s any more" % args[0])


def _run_unignore(chat: Chat, args: Tuple[str, ...]) -> None:
    key = protocol.casefold(args[0])
    chat.ignored[:] = [name for name in chat.ignored if protocol.casefold(name) != key]
    chat.answer("You hear %s again" % args[0])


def _run_login(chat: Chat, args: Tuple[str, ...]) -> None:
    """/login and /register: once accepted, they are used to reconnect."""
    chat.candidate = Login(args[0] if len(args) > 1 else chat.nickname, args[-1])


# What verbs do beside sending their messages, which follow
USER_VERBS: Dict[str, Callable[[Chat, Tuple[str, ...]], None]] = {
    "help": _run_help,
    "list": _run_list,
    "leave": _run_leave,
    "quit": _run_quit,
    "ignore": _run_ignore,
    "unignore": _run_unignore,
    "register": _run_login,
    "login": _run_login,
}
# The capability that a verb needs; Hubbub's own commands are known by its capability
_NEEDED: Dict[str, str] = {
    "history": HISTORY,
    "register": "draft/account-registration",
    "login": "sasl",
    **dict.fromkeys(protocol.OPERATOR_VERBS - {"kick"}, RESUME),
}


# Completion and links
# --------------------

_LINK = re.compile(r"\bhttps?://[^\s<>\"“”]+", re.IGNORECASE)


class Completer:
    """Tab completion: repeated, it goes through the suggestions."""

    def __init__(self) -> None:
        self._last = "", 0  # text and cursor after the last completion
        self._start = self._index = 0
        self._words: List[str] = []

    def complete(
        self, text: str, cursor: int, suggest: Callable[[str, bool], List[str]], step: int
    ) -> Optional[Tuple[str, int]]:
        """Return the new text and cursor; None if there is no suggestion.

        `suggest` returns words for the beginning of a word; True means that it is the first one.
        """
        if self._words and (text, cursor) == self._last:
            self._index = (self._index + step) % len(self._words)
        else:
            self._start = max(text.rfind(" ", 0, cursor), text.rfind("\n", 0, cursor)) + 1
            self._words = suggest(text[self._start : cursor], self._start == 0)
            self._index = 0 if step > 0 else len(self._words) - 1
        if not self._words:
            return None
        before = text[: self._start] + self._words[self._index]
        self._last = before + text[cursor:], len(before)
        return self._last


def _guess(chat: Chat, nickname: str) -> str:
    """Return a question for the user who may have been meant, or ""."""
    key = protocol.casefold(nickname)
    begun = key[: len(key) // 2 + 1]  # right, if the slip comes after it
    close_by = [*_nicknames(chat, begun), *_nicknames(chat, "")]
    known = {protocol.casefold(name): name for name in close_by}
    close = difflib.get_close_matches(key, [other for other in known if other != key], 1, 0.7)
    return ". Did you mean %s?" % known[close[0]] if close else ""


def _suggest(chat: Chat, begun: str, is_first: bool) -> List[str]:
    """Return the words that `begun` may become, for Tab."""
    if not begun:
        return []
    if begun[0] == "/" and is_first:
        names = ["/%s " % verb for verb in protocol.VERBS]
    elif chat.session.is_channel(begun):
        names = [c.name + " " for c in chat.conversations if c.kind == CHANNEL]
    else:
        at = "@" if begun[0] == "@" else ""
        end = ": " if is_first and not at else " "
        names = [at + name + end for name in _nicknames(chat, begun.lstrip("@"))]
    key = protocol.casefold(begun)
    return [name for name in names if protocol.casefold(name).startswith(key)]


def _nicknames(chat: Chat, begun: str) -> List[str]:
    """Return nicknames that begin so: the last speakers here, then others here, elsewhere."""
    begun = protocol.casefold(begun)
    conversations = [chat.current, *(c for c in chat.conversations if c is not chat.current)]
    names: Dict[str, str] = {}
    for entry in chat.current.entries[:-RECENT:-1]:
        key = protocol.casefold(entry.line.nickname)
        if key and any(key in c.members or c.key == key for c in conversations):
            names.setdefault(key, entry.line.nickname)
    for conversation in conversations:
        keys = (key for key in conversation.members if key.startswith(begun))
        for key in sorted(itertools.islice(keys, MAX_SUGGESTIONS)):
            names.setdefault(key, conversation.members[key].nickname)
    names.update((c.key, c.name) for c in conversations if c.kind == PRIVATE and c.key not in names)
    names.pop(protocol.casefold(chat.nickname), None)
    return [name for key, name in names.items() if key.startswith(begun)][:MAX_SUGGESTIONS]


def find_links(text: str) -> List[Span]:
    """Return where links to web pages stand in `text`, without the punctuation after them."""
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
    """Return True if a line of `text` holds a password, so that it is kept nowhere."""
    verbs = [line.split()[0] for line in text.splitlines() if line.strip()]
    return any(verb[:1] == "/" and verb[1:].lower() in protocol.SECRET_VERBS for verb in verbs)


# Settings
# --------


class Settings:
    """The preferences that the program saves; no passwords.

    It never stops the program: a file that cannot be read is moved aside.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self.name = ""
        self.servers: List[str] = []  # the last used first
        self.theme = "dark"
        self.zoom = 100  # per cent
        self.geometry = ""
        self.levels: Dict[str, str] = {}  # alerts, by conversation
        self.ignored: List[str] = []  # nicknames
        self.sound = True
        self.emoji = "auto"  # or "on" or "off", as some versions of Tk crash on them

    def load(self) -> None:
        """Read the file, as far as it makes sense."""
        try:
            with open(self._path, encoding="utf-8") as file:
                found = dict(json.load(file))
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError, RecursionError) as error:
            log.warning("%s is not used: %s", self._path, error)
            with contextlib.suppress(OSError):
                os.replace(self._path, self._path + ".broken")
            return
        for name, default in self._values().items():
            value = found.get(name, default)
            if type(value) is type(default):
                setattr(self, name, value)
        self.servers = [protocol.clean(s, 200) for s in self.servers if isinstance(s, str)]
        self.ignored = [n for n in self.ignored if isinstance(n, str) and protocol.is_middle(n)]
        self.levels = {k: v for k, v in self.levels.items() if v in (ALL, MENTIONS, NONE)}

    def save(self) -> None:
        """Write the file, all of it or nothing."""
        text = json.dumps(self._values(), ensure_ascii=False, indent=1, sort_keys=True)
        try:
            os.makedirs(os.path.dirname(self._path), exist_ok=True)
            with open(self._path + ".new", "w", encoding="utf-8") as file:
                file.write(text + "\n")
            os.replace(self._path + ".new", self._path)
        except (OSError, ValueError) as error:
            log.warning("The settings are not saved: %s", error)

    def remember(self, server: str) -> None:
        """Put a server before the others."""
        self.servers = [server, *[s for s in self.servers if s != server]][:MAX_SERVERS]

    def _values(self) -> Dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name[0] != "_"}


def settings_path() -> str:
    """Return the file of the settings, where the system keeps such files."""
    home = os.path.expanduser("~")
    if sys.platform == "win32":
        return os.path.join(os.environ.get("APPDATA") or home, "Hubbub", "settings.json")
    if sys.platform == "darwin":
        return os.path.join(home, "Library", "Application Support", "Hubbub", "settings.json")
    folder = os.environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    return os.path.join(folder, "hubbub", "settings.json")


# Terminal
# --------


class Typed(NamedTuple):
    """A line from standard input. The last is a /quit, which the end of input stands for."""

    text: str
    is_last: bool


class Terminal:
    """Chat on standard input and output, line by line: for pipes and screen readers, too."""

    POLL = 0.2  # seconds between checks for signals and overdue requests

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._events: "queue.Queue[Any]" = queue.Queue(MAX_EVENTS)
        self._input = _reopen(sys.stdin)
        self._output = _reopen(sys.stdout)
        self._is_person = sys.stdin.isatty()
        self._can_read = threading.Event()  # the server sets the pace of a long input

    def run(self, host: str, port: int, nickname: str) -> int:
        """Chat until /quit or the end of input (0), or until the connection is lost (1).

        For a person at a terminal, a lost connection comes back.
        """
        # Daemon: reading from a terminal cannot be cancelled.
        threading.Thread(target=self._read, name="input", daemon=True).start()
        try:
            return self._run(host, port, nickname)
        except KeyboardInterrupt:
            return 0
        except OSError as error:  # of the output; what is left goes nowhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if isinstance(error, BrokenPipeError):  # `| head` has had enough
                return 0
            return self._fail("The chat cannot be written: %s." % error.strerror)

    def _run(self, host: str, port: int, nickname: str) -> int:
        password = ""
        while True:
            nickname = nickname or self._ask_nickname()
            if not nickname:
                return self._fail("No username was given.")
            connection = Connection(host, port, password, nickname, self._events, self._is_person)
            chat = Chat(connection.address, self._settings.levels, self._settings.ignored)
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
            self._fail(reason)
            can_ask = self._is_person and not chat.session.number  # it was never connected
            if can_ask and end.fault == NAME:
                nickname = ""
                continue
            password = _ask_password() if can_ask and end.fault == PASSWORD else ""
            if not password:
                return 1

    def _fail(self, reason: str) -> int:
        print(reason, file=_reopen(sys.stderr))
        return 1

    def _ask_nickname(self) -> str:
        """Return the first line of input; "" at its end."""
        if self._is_person:
            print("Username: ", end="", file=self._output, flush=True)
        return protocol.normalize(self._input.readline().strip())

    def _read(self) -> None:
        is_last = False
        while not is_last:
            self._can_read.wait()
            text = self._input.readline() or "/quit"
            is_last = text.lower().split()[:1] == ["/quit"]
            self._events.put(Typed(text, is_last))

    def _chat(self, connection: Connection, chat: Chat) -> Disconnected:
        last_event = time.monotonic()
        goodbye = ""  # the /quit, which waits until the messages before it are delivered
        while True:
            event, now = None, time.time()
            with contextlib.suppress(queue.Empty):
                event = self._events.get(timeout=self.POLL)
                last_event = time.monotonic()
            if event is None:
                outcome = chat.tick(now)
            elif not isinstance(event, Typed):
                outcome = chat.handle(event, now)
            elif event.is_last:
                goodbye, outcome = event.text, Outcome()
            else:
                outcome = self._submit(chat, event.text, now)
            self._print(outcome.changes, chat)
            connection.carry_out(outcome)
            if isinstance(event, Disconnected):
                return event
            if goodbye and (self._is_person or not chat.unsent):
                connection.carry_out(chat.submit(goodbye, now))
                goodbye = ""
            elif goodbye and time.monotonic() > last_event + END_TIME:
                return Disconnected(LOST, "The server does not answer.")
            if chat.unsent >= MAX_UNSENT:
                self._can_read.clear()
            elif chat.is_settled:
                self._can_read.set()

    def _submit(self, chat: Chat, text: str, now: float) -> Outcome:
        ignored = list(self._settings.ignored)
        try:
            if len(text) > MAX_PASTE:
                raise InputError("A line of more than %d characters is not sent." % MAX_PASTE)
            outcome = chat.submit(text, now)
        except InputError as error:
            return chat.notify(str(error), now)
        if ignored != self._settings.ignored:
            self._settings.save()
        return outcome

    def _print(self, changes: Iterable[Change], chat: Chat) -> None:
        """Print what is new: each entry once, as in the conversation in view if it is there."""
        printed: Set[int] = set()
        changes = sorted(changes, key=lambda change: change.conversation is not chat.current)
        for kind, conversation, entries, _ in changes:
            if conversation is None or kind not in (ADDED, CHANGED, RECALLED):
                continue
            lines: List[Any] = []
            if kind != RECALLED:
                new = [e for e in entries if e.id not in printed and (kind == ADDED or e.is_own)]
                lines += [_format(e, conversation, chat) for e in new if _is_printed(e)]
            elif entries:
                lines.append(protocol.server_line("Earlier in %s:" % conversation.name, chat.now))
                lines += [entry.line for entry in entries]
                lines.append(protocol.server_line("Now:", chat.now))
            else:
                lines.append(protocol.server_line("Nothing was said earlier.", chat.now))
            printed |= {entry.id for entry in entries}
            for line in lines:
                print(line, file=self._output)


def _is_printed(entry: Entry) -> bool:
    """Return True unless an own message is not delivered yet, or its refusal says so in words."""
    return entry.count == 1 and entry.delivery not in (IN_FLIGHT, REFUSED)


def _format(entry: Entry, conversation: Conversation, chat: Chat) -> str:
    is_elsewhere = conversation.kind == CHANNEL and conversation is not chat.current
    room = conversation.name + " " if is_elsewhere else ""
    note = "  (%s)" % entry.note if entry.note else ""
    return "%s %s%s%s" % (entry.line.clock, room, entry.text, note)


def _ask_password() -> str:
    """Return the answer of the person at the terminal; "" if there is none."""
    try:
        return getpass.getpass("Password: ")
    except (EOFError, UnicodeError):
        return ""


def _reopen(stream: Any) -> Any:
    """Return a standard stream that never fails because of a character: UTF-8 in pipes.

    It has a buffer of its own: that of sys.stdin has a lock, which Python would wait for at its
    end if the thread `input` held it.
    """
    is_known = stream.isatty() and codecs.lookup(stream.encoding).name != "ascii"
    encoding = stream.encoding if is_known else "utf-8"
    return open(stream.fileno(), stream.mode, 1, encoding, "replace", closefd=False)


# The command line
# ----------------


def parse_server(text: str) -> Tuple[str, int]:
    """Return host and port of HOST, HOST:PORT, [IPV6]:PORT or a bare IPv6 address; ValueError."""
    text = text.strip()
    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not host.endswith("]")):
        host, port = text, str(SERVER_PORT)
    host = host.strip("[]")
    if not host or " " in host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError("A server is written as 192.168.1.20 or 192.168.1.20:%d." % SERVER_PORT)
    return host, int(port)


def main(argv: Optional[List[str]] = None) -> int:
    """Chat in the terminal."""
    parser = argparse.ArgumentParser(description="Chat on the local network.")
    parser.add_argument("server", nargs="?", metavar="SERVER[:PORT]", help="address of the server")
    parser.add_argument("--username", default="", metavar="NAME", help="your username")
    parser.add_argument("--terminal", action="store_true", help="chat here, without a window")
    parser.add_argument("--theme", choices=["dark", "light"], help="colours of the window")
    args = parser.parse_args(argv)
    logging.basicConfig(level="WARNING", format="%(levelname)s %(message)s")
    username = protocol.normalize(args.username.strip())
    try:
        host, port = parse_server(args.server) if args.server else (SERVER_IP, SERVER_PORT)
    except ValueError as error:
        parser.error(str(error))
    fault = username and protocol.nickname_error(username)
    if fault:
        parser.error(fault)
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # closed before the start
            setattr(sys, name, open(os.devnull, "r+"))  # noqa: SIM115
    settings = Settings(settings_path())
    settings.load()
    return Terminal(settings).run(host, port, username)


if __name__ == "__main__":
    sys.exit(main())
