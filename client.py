#!/usr/bin/env python3
"""Hubbub's client: chat in a window, or in a terminal.

    python3 client.py [SERVER[:PORT]] [--username NAME] [--terminal] [--find] [--host] [--tls]

Three parts, none of which knows those after it:

    Connection         the socket and the `receive` thread: connects, registers, reads, writes,
                       reconnects. Its only output is a queue of events: Connected, Message,
                       Lost, Disconnected.
    Chat               the state, without I/O, threads or a clock: a Session (what this
                       connection can do), an Outbox (own messages until they are stored), a
                       History (what the server was asked for) and Conversations. `do` runs
                       `submit` (typed text), `handle` (an event) and the like, and returns their
                       Outcome: messages to send, and changes to show.
    Terminal, Window   poll the queue, pass events to the Chat, show exactly its changes.

Threads: a Connection's public methods may be called from any thread; all else belongs to the
main thread, except that the terminal reads its input in the `input` thread, a web page is opened
in `browser`, and what a hosted server prints is read in `host`. The queue is bounded: if the
window cannot keep up, the receive thread waits, and TCP slows the sender down.

The way of a line from Return until it is green, that is, stored by the server:

    Composer, ChatView.submit, Chat.submit, protocol.compose, Chat.say    grey: QUEUED
    Chat.flush, Outcome.send, Connection.carry_out                        grey: IN_FLIGHT
    the server's echo: receive thread, queue, Chat.handle, _on_text, or _on_pong without echoes
    Chat.confirm, Outcome.changes, ChatView.show, Transcript.apply        green: SENT

Guarantees:

- An own message shows at once and is never sent twice unless the user asks for it. It has one
  state, `Entry.delivery`, which only the Outbox changes: QUEUED, IN_FLIGHT, SENT. When the
  connection is lost, messages in flight are UNCERTAIN until the history has them (SENT), or is
  complete without them (QUEUED again); if neither is certain, they are UNKNOWN and the user
  decides. A private message that has waited is sent only if WHOIS shows that its recipient is
  still the same user; otherwise it is REFUSED, and the user decides, too.
- Text from the network is made safe to show once, in the receive thread.
- Passwords are never shown, logged or kept in a file.

To add an IRC command or numeric: a row in SERVER_COMMANDS and its function. To add a verb for
the chat box: a row in protocol.VERBS; in USER_VERBS if it takes more than sending, in _NEEDED if
it needs a capability; in protocol's sets of verbs if it is secret, for operators or for the
client alone; in protocol.compose if its arguments are not those of its message. To add to what
an entry shows (reactions, say): a field of Entry, a CHANGED when it is set, Transcript._render,
and Terminal._is_printed if the terminal prints it.

Contents: Limits and times; Events; Handshake; Connection; Conversations; Changes; Outbox;
Session; Chat; History; Search; Names that change hands; What servers send; What users type; Drafts;
Completion; Texts; Settings; Finding servers; Hosting; Terminal; Look; Widgets; Views; The window;
The command line.
"""

import argparse
import bisect
import codecs
import collections
import contextlib
import copy
import ctypes
import datetime
import functools
import getpass
import html
import importlib.machinery
import itertools
import json
import logging
import math
import os
import queue
import random
import re
import secrets
import select
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import webbrowser
import zlib
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Container,
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

try:
    import protocol
    from protocol import FROM_ME, FROM_OTHERS, FROM_SERVER, PRIVATE, InputError, Line, Message
except ImportError as error:  # only client.py was copied
    print("client.py needs protocol.py beside it: %s." % error, file=sys.stderr)
    sys.exit(2)

try:
    import termios
except ImportError:  # Windows
    termios = None  # type: ignore[assignment]

try:
    import tkinter as tk
    from tkinter import font as tkfont
    from tkinter import ttk
except ImportError:  # the terminal does without
    tk = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from typing import Literal

    Anchor = Literal["w", "e", "center"]
    TkEvent = tk.Event[Any]

# The server that the window offers at first; edit it to taste.
SERVER_IP = "127.0.0.1"
SERVER_PORT = protocol.PORT

log = logging.getLogger("hubbub")


# Limits and times
# ----------------

# The connection, in seconds
CAP_TIME = 2.0  # for the answer to CAP LS, which some servers do not know
CONNECT_TIME = 5.0  # for each address of the server, and for each answer during registration
PING_AFTER = 60.0  # of silence before a PING
ANSWER_TIME = 20.0  # for its PONG
RETRY_TIMES = (0.0, 1.0, 2.0, 4.0, 8.0)  # before each attempt to reconnect
MAX_NAME_RETRIES = 10  # while our own dead connection holds the nickname: some minutes
QUIT_TIME = 1.0  # of silence after QUIT before the connection is closed
BACK_TIME = 3.0  # for which the banner says that the connection is back
END_TIME = 10.0  # of silence at the end of a pipe, while messages are unconfirmed

# Memory, whatever a server sends
RECEIVE_SIZE = 65536  # bytes read at once
MAX_HANDSHAKE = 1000  # messages until the welcome
MAX_EVENTS = 4000  # events in the queue; then the receive thread waits
MAX_OUTGOING = 1024 * 1024  # unsent bytes at which a server that does not read is left
MAX_ENTRIES = 10000  # of a conversation; the oldest go, a tenth at once
MAX_CONVERSATIONS = 200  # channels; as many private conversations
MAX_STRANGERS = 50  # private conversations up to which others may open one by writing
MAX_MEMBERS = 100000  # of a channel
MAX_UNASKED = 20  # pages of history that come unasked at a time; others are shown as news
MAX_BATCH = 2000  # messages of a batch
LATEST_TIME = 32472144000.0  # the year 2999, in seconds since 1970; Windows fails from 3001 on

# What the client asks for
PAGE, MISSED_PAGE = 50, 500  # messages of history at once
HISTORY_TIME = 60.0  # seconds for the whole answer
MAX_WHO = 200  # members of a channel for which WHO asks who is away

# Looking for servers; times in seconds
FIND_INTERVAL = 3.0  # between two queries
FIND_TIME = 1.5  # for --find
CHOICE_TIME = 1.0  # after which the only server that is found is chosen
MAX_SILENT_ROUNDS = 3  # queries without an answer after which a server is gone
MAX_DATAGRAMS = 100  # read at once, of each socket
MAX_FOUND = 50  # servers that are shown
MAX_OF_ADDRESS = 5  # of them at the same address
MAX_NETWORKS = 20  # of this computer that are asked

# What users do
MAX_PASTE = 20000  # characters of a paste, or bytes of a line in a pipe
MAX_UNSENT = 500  # unconfirmed messages at which the terminal reads no more input
MAX_SERVERS = 10  # that the settings remember
MAX_ROOMS = 30  # and private conversations of a user there, to be shown at the next start
MAX_VISITS = 30  # users at servers whose rooms are remembered
MAX_LISTED = 1000  # rows of a list that a sheet asks for
MAX_RESULTS = 100  # messages that a search in all conversations finds
MAX_SEARCHED = 100000  # loaded messages that it looks at: some tenths of a second
MAX_ANNOUNCEMENTS = 20  # that are not closed
MAX_SUGGESTIONS = 200  # nicknames for Tab, or for "Did you mean"
RECENT = 500  # entries whose senders Tab suggests first
SEEN_TIME = 5.0  # seconds in view after which a private line in a channel is read
CROWD = 5  # joins (or leaves) in a row that become a single entry
GROUP_TIME = 300.0  # seconds from line to line of a sender that stand close together
PASTE_TIME = 2.0  # seconds from line to line of a paste
REPLY_TIME = 1.0  # seconds from line to line of a server's answer
MAX_CODE = 100  # lines of a paste that are looked at again to find out if it is code


# The window
POLL_MS = 30  # between two polls of the queue; 10 while more waits there
TYPING_MS = 400  # without a key until what is typed is searched
BATCH = 100  # events handled at once, so that a flood leaves time for keys
BATCH_TIME = 0.005  # seconds that handling them may take
SWITCH_TIME = 0.001  # seconds that another thread may keep Tk from coming back to Python
MAX_OFFERED = 8  # links, and rooms, of a line in its menu
MANY_LINES = 20  # of a paste; for more the user is asked
ECHO_TIME = 1.0  # seconds for which closing waits for echoes before it asks
REPEAT_TIME = 0.8  # seconds; presses that follow each other faster may be a key that is held


# Events
# ------

# Disconnected.fault: what the user must fix before reconnecting
NAME, PASSWORD, SERVER, LOST, CLOSED = "name", "password", "server", "lost", "closed"
REJECTED = "rejected"  # by the server, with a reason that no field can mend: banned, or full
TRUST = "trust"  # not the server that was met, or not encrypted any more
NETWORK = "network"  # a field of the connect view, too


class Connected(NamedTuple):
    """The server has accepted the registration, for the first time or again."""

    nickname: str
    caps: FrozenSet[str] = frozenset()  # capabilities that it has acknowledged
    session: int = 1  # counts the registrations of a Connection
    is_resumed: bool = False  # RESUME worked: others saw neither a leave nor a join
    pin: str = ""  # see Connection; "" in the clear


class Lost(NamedTuple):
    """The connection is lost; attempt number `attempt` starts in `seconds`."""

    reason: str
    attempt: int = 1
    seconds: float = 0.0
    is_rejected: bool = False  # the server has answered, with this reason


class Disconnected(NamedTuple):
    """The last event: the connection has ended for good. `reason` is for the user."""

    fault: str  # NAME, PASSWORD, SERVER, TRUST, REJECTED, LOST or CLOSED
    reason: str


Event = Union[Connected, Message, Lost, Disconnected]


class Login(NamedTuple):
    """An account, in memory only."""

    name: str
    password: str


class Outcome:
    """The results of one call to a Chat, filled by the functions that it runs through."""

    def __init__(self, session: int = 0) -> None:
        self.send: List[Message] = []
        self.changes: List[Change] = []  # for views
        self.is_done = False  # the user has quit
        self.rest = ""  # typed lines that go back to the user, as the first was refused
        self.settings_changed = False  # so they are to be saved
        self.session = session  # in which `send` may be sent
        self.login: Optional[Login] = None  # to be used when reconnecting
        self.refused = "", ""  # a command up to its wrong password, and the server's words


class EndedError(Exception):
    """The attempt to connect, or the connection, has ended; carries its Disconnected."""

    def __init__(self, fault: str, reason: str, is_final: bool = False) -> None:
        super().__init__(reason)
        self.event = Disconnected(fault, reason)
        self.is_final = is_final  # reconnecting would not help


class RestartError(Exception):
    """The connection is to be made again at once, encrypted, or with less trust in its server."""


# Handshake
# ---------

OPENING = Message("CAP", ("LS", "302"))  # the first message
HISTORY_CAP = "draft/chathistory"
REPLY_TAG = "+draft/reply"  # https://ircv3.net/specs/client-tags/reply
SEARCH_CAP = "soju.im/search"  # described in README.md, as are these:
RESUME_CAP = "hubbub/resume"
TLS_CAP = "hubbub/tls"  # offered in the clear by a server that is encrypted, too
# Capabilities to request, if offered
WANTED = tuple(
    "account-notify away-notify batch draft/account-registration draft/chathistory echo-message"
    " extended-join hubbub/resume invite-notify labeled-response message-tags multi-prefix sasl"
    " server-time setname soju.im/search standard-replies".split()
)
_SASL_ENDS = frozenset("903 904 905 906 907 908".split())  # 903 is success
_NO_CAP = frozenset(("410", "421", "451"))  # from a server that does not know CAP
_TAKEN = "“%s” is already here. Try another name, for example %s2."
_REGISTERED = "“%s” is registered. If it is yours, type its password. If not, choose another name."
_WRONG_PASSWORD = "Wrong password."  # noqa: S105
_NO_PASSWORD = "This server asks for a password. The host can tell you."  # noqa: S105


class Handshake:
    """Registration, without I/O (https://modern.ircdocs.horse/#connection-setup).

    Nothing but CAP LS is said until the server has answered that: it may offer encryption.
    `token` resumes a lost session. If the nickname is refused and there is a password, that may
    be the account's: log in, then try the nickname again.
    """

    def __init__(
        self,
        nickname: str,
        password: str = "",
        login: Optional[Login] = None,
        token: str = "",
        is_encrypted: bool = False,
    ) -> None:
        self.nickname = nickname
        self.is_done = False
        self.caps: FrozenSet[str] = frozenset()  # acknowledged
        self.has_started = False  # the server is known by what it can do; we say who we are
        self.offers_tls = False  # so that is not done in the clear
        self.is_resumed = False
        self.login = login
        self._password, self._token, self._is_encrypted = password, token, is_encrypted
        self._offered: List[str] = []
        self._heard = 0  # messages so far
        user = Message("USER", (nickname, "0", "*", nickname))
        self._introduction = [Message("NICK", (nickname,)), user]  # until it is sent
        self._has_ended_caps = False
        self._is_logged_in: Optional[bool] = None  # None until the server has answered
        self._refusal: Optional[EndedError] = None  # of the nickname, until that answer

    def start(self) -> List[Message]:
        """Say who we are, once: after CAP LS is answered, or if the server does not know it.

        A session is resumed before a nickname is claimed.
        """
        if self.has_started:
            return []
        self.has_started = True
        messages = [Message("PASS", (self._password,))] if self._password else []
        return messages if self._token else [*messages, *self._introduce()]

    def answer(self, message: Message) -> List[Message]:
        """Return the replies to `message`. Raises EndedError."""
        command, params = message.command, message.params
        self._heard += 1
        if self._heard > MAX_HANDSHAKE:
            raise EndedError(SERVER, "The server's greeting does not end.")
        if command == "CAP" and len(params) > 2:
            return self._on_cap(params[1], params[-1].split(), has_more=params[2] == "*")
        if command == "AUTHENTICATE" and self.login is not None:
            chunks = protocol.sasl_plain_chunks(*self.login)
            return [Message("AUTHENTICATE", (chunk,)) for chunk in chunks]
        if command in _SASL_ENDS:
            self._is_logged_in = command == "903"
            return self._next_step()
        if command == "FAIL" and params[:1] == ("RESUME",):
            self.is_resumed = False
            return self._next_step()
        if command == "FAIL" and params[:2] == ("NICK", "NICKNAME_RESERVED"):
            text = _WRONG_PASSWORD if self._password else _REGISTERED % self.nickname
            return self._on_nickname_refused(EndedError(PASSWORD, text, is_final=True))
        if command in ("433", "436"):
            text = _TAKEN % (self.nickname, self.nickname[: protocol.MAX_NAME - 1])
            if len(message.params) > 3:  # it looks like the name of another
                text = message.text
            return self._on_nickname_refused(EndedError(NAME, text))
        if command in _NO_CAP:
            return self.start()
        if command in ("432", "437"):
            raise EndedError(NAME, message.text, is_final=command == "432")
        if command == "464":
            text = _WRONG_PASSWORD if self._password else _NO_PASSWORD
            raise EndedError(PASSWORD, text, is_final=True)
        if command == "465":
            raise EndedError(REJECTED, message.text, is_final=True)
        if command == "ERROR":  # full, say
            raise EndedError(REJECTED, message.text)
        if command == "001" and params and protocol.is_middle(params[0]):
            self.nickname, self.is_done = params[0], True
        return []

    def _introduce(self) -> List[Message]:
        introduction, self._introduction = self._introduction, []
        return introduction

    def _on_cap(self, verb: str, caps: List[str], has_more: bool) -> List[Message]:
        names = [cap.partition("=")[0] for cap in caps]
        if verb == "LS":
            self._offered += names
            self.offers_tls = TLS_CAP in self._offered and not self._is_encrypted
            if has_more or self.offers_tls:
                return []
            wanted = [cap for cap in WANTED if cap in self._offered]
            request = [Message("CAP", ("REQ", " ".join(wanted)))] if wanted else self._next_step()
            return [*self.start(), *request]
        if verb == "ACK":
            self.caps |= frozenset(names)
        return self._next_step() if verb in ("ACK", "NAK") and not has_more else []

    def _on_nickname_refused(self, refusal: EndedError) -> List[Message]:
        # Before CAP END the server does not say that a nickname in use is registered, too.
        is_early = bool(self._offered) and not self._has_ended_caps
        if self._is_logged_in is not None or not (self._password or self.login or is_early):
            raise refusal
        self._refusal = refusal
        return self._next_step() if self._has_ended_caps else []

    def _next_step(self) -> List[Message]:
        """Return the next step after the capabilities: log in, resume, claim the nickname, end."""
        is_wanted = self.login or (self._refusal and self._password)
        if is_wanted and "sasl" in self.caps and self._is_logged_in is None:
            self.login = self.login or Login(self.nickname, self._password)
            return [Message("AUTHENTICATE", ("PLAIN",))]
        again = []
        if self._refusal is not None:
            if self._has_ended_caps and not self._is_logged_in:
                raise self._refusal
            self._refusal, again = None, [Message("NICK", (self.nickname,))]
        if self._token and RESUME_CAP in self.caps:  # answered by 001 or FAIL
            token, self._token, self.is_resumed = self._token, "", True
            return [Message("RESUME", (token,))]
        if self._has_ended_caps:
            return again
        self._has_ended_caps = True
        return [*self._introduce(), Message("CAP", ("END",)), *again]


# Connection
# ----------


FIRST, SYSTEM = "first", "system"  # pins: see Connection
QUIT = Message("QUIT")
OTHER_CERTIFICATE = (
    "%s shows another certificate than before. Either the server was set up anew, or another"
    " computer answers in its place. Ask the host before you trust it."
)
NO_ENCRYPTION = (
    "%s was encrypted before, and is not any more. What you write could be read on its way. Ask"
    " the host before you trust it."
)
NO_TLS = "%s does not speak TLS: no encryption. Ask the host, or leave out ircs:// and --tls."
# The same of a server at a new address with the name of a known one
OTHER_NAMESAKE = (
    "{0} calls itself “{1}”, but has another certificate than the “{1}” that you know. It may be"
    " another chat of that name, or a computer that poses as yours. Ask the host before you trust"
    " it."
)
CLEAR_NAMESAKE = (
    "{0} calls itself “{1}”, but is not encrypted, as the “{1}” that you know is. What you write"
    " could be read on its way. Ask the host before you trust it."
)


def describe_pin(pin: str) -> str:
    """Return in words how a connection is encrypted."""
    if pin == SYSTEM:
        return "Encrypted, with a certificate that this computer trusts."
    return "Encrypted." if pin else "Not encrypted: others could read what you write."


class Carrier:
    """A connected socket, with TLS if there is a pin. Used by the receive thread alone."""

    def __init__(self, sock: socket.socket, host: str, pin: str) -> None:
        self._sock = sock
        self._pipe: Optional[protocol.TlsPipe] = None
        self._unsent = bytearray()  # encrypted
        self.fingerprint = ""  # of the server, once it has shown its certificate
        if pin:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            if pin == SYSTEM:
                with contextlib.suppress(ssl.SSLError):  # one of Windows' certificates is damaged
                    context.load_default_certs()
            else:  # the fingerprint is compared
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            self._pipe = protocol.TlsPipe(context, host.partition("%")[0])
            self._unsent += self._pipe.outgoing()

    @property
    def is_open(self) -> bool:
        """True once the server hears what is sent."""
        return self._pipe is None or self._pipe.is_open

    @property
    def has_unsent(self) -> bool:
        """True if `send` is to be called again, with or without data."""
        return bool(self._unsent)

    def send(self, data: Union[bytes, bytearray]) -> int:
        """Send what the socket takes; return how much of `data` is done with."""
        if self._pipe is None:
            return self._sock.send(data)
        done = 0
        if not self._unsent:
            self._pipe.send(bytes(data))
            self._unsent += self._pipe.outgoing()
            done = len(data)
        if self._unsent:
            del self._unsent[: self._sock.send(self._unsent)]
        return done

    def receive(self) -> bytes:
        """Return decrypted bytes; b"" for none yet. Raises EndedError and OSError.

        ssl.SSLError, an OSError, is for what is not TLS.
        """
        data = self._sock.recv(RECEIVE_SIZE)
        if data and self._pipe is not None:
            try:
                decrypted = self._pipe.receive(data)
            except ssl.SSLError:
                if self.is_open or not data.startswith(b"ERROR "):
                    raise
                # The server refuses us before it knows how we speak: it is full, perhaps.
                text = data.partition(b"\r\n")[0].decode("utf-8", "replace").partition(":")[2]
                raise EndedError(REJECTED, protocol.clean(text)) from None
            finally:
                self._unsent += self._pipe.outgoing()
            self.fingerprint = self.fingerprint or self._pipe.fingerprint()
            if self._pipe.is_ended:
                self._sock.shutdown(socket.SHUT_RD)  # the next read finds the end
            return decrypted
        if not data:
            raise EndedError(LOST, "The connection was lost.")
        return data


class Connection:
    """A connection to one server, from `start` until its Disconnected is in the queue.

    Once registered it reconnects whenever it is lost (unless `reconnects` is False): immediately,
    then after growing pauses, which `retry` ends.

    `pin`: "" in the clear, but FIRST if TLS is offered; FIRST: never met, becomes SYSTEM if the
    certificate verifies, else its fingerprint; SYSTEM: must verify for this host; 64 digits:
    SHA-256 of its certificate. Connected has the pin to keep. `network`: name of the known chat
    whose pin this new address must match; used in the refusal's words.

    Methods may be called from any thread; only `close` blocks, and only if given a `wait`.
    """

    def __init__(
        self,
        host: str,
        port: int,
        password: str,
        nickname: str,
        events: "queue.Queue[Any]",
        reconnects: bool = True,
        pin: str = "",
        network: str = "",
        login: Optional[Login] = None,
    ) -> None:
        self.address = protocol.format_address(host, port)
        self._host, self._port = host, port
        self._events = events
        self._reconnects = reconnects
        self._lock = threading.Lock()  # guards _outgoing and _open_session, and sets _quit_at
        self._outgoing = bytearray()
        self._open_session = 0  # the session that may send; 0 for none
        self._quit_at = 0.0  # time of the QUIT; 0 before it
        self._is_polled = True  # until `close`: then a full queue is no reason to wait
        self._pause_is_over = threading.Event()
        self._login = login  # written by `carry_out` too
        # Used by the receive thread only:
        self._nickname, self._password, self._token = nickname, password, ""
        self._session = 0  # registrations so far
        self._pin, self._is_pinned = pin.replace(FIRST, SYSTEM), pin not in ("", FIRST)
        self._network = network
        self._wake_end, self._waker = socket.socketpair()
        for end in (self._wake_end, self._waker):
            end.setblocking(False)
        # Daemon: looking up a name, and connecting, cannot be cancelled.
        self._thread = threading.Thread(target=self._run, name="receive", daemon=True)

    def start(self) -> None:
        """Start to connect."""
        self._thread.start()

    def carry_out(self, outcome: Outcome) -> None:
        """Send what an Outcome holds, keep its login for the next reconnect, quit if it is done."""
        if outcome.login is not None:
            self._login = outcome.login
        if outcome.is_done:
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

    def close(self, wait: float = 0.0, quit_message: Message = QUIT) -> None:
        """Send QUIT after all else, and end when the server hangs up; join for `wait` seconds.

        Idempotent. Nothing needs to poll the queue any more.
        """
        self._is_polled = False
        self._quit([quit_message])
        if wait and self._thread.is_alive():
            self._thread.join(wait)

    def _quit(self, messages: Iterable[Message]) -> None:
        with self._lock:
            is_first = not self._quit_at
            self._quit_at = self._quit_at or time.monotonic()
        if is_first:
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
            end = self._connect_once()
            attempt = 1 if self._session > session else attempt + 1
            is_over = self._quit_at or not self._reconnects or not self._session
            is_taken = end.event.fault == NAME and attempt > MAX_NAME_RETRIES
            if is_over or is_taken or end.is_final:
                return end.event
            seconds = RETRY_TIMES[min(attempt, len(RETRY_TIMES)) - 1]
            seconds *= random.uniform(0.8, 1.2)  # noqa: S311 (spreads the clients of a server)
            with self._lock:
                self._open_session = 0
            is_rejected = end.event.fault == REJECTED
            self._put(Lost(end.event.reason, attempt, seconds, is_rejected))
            self._pause_is_over.wait(seconds)
        return Disconnected(CLOSED, "")

    def _connect_once(self) -> EndedError:
        """Connect, talk until the connection ends, and return how it ended."""
        session = self._session
        try:
            with self._connect() as sock:
                self._talk(sock)
            return EndedError(CLOSED, "")
        except RestartError:
            self._pin = FIRST if self._pin else SYSTEM
            return self._connect_once()
        except EndedError as error:
            end = error
        except OSError as error:
            log.info("%s: %s", self.address, error)
            end = EndedError(LOST, "The connection was lost.")
        if end.event.fault == LOST and self._session == session:
            self._token = ""  # a session that this server cannot resume
            text = "%s answers, but not as a chat server does." % self.address
            return EndedError(SERVER, text)
        return end

    def _connect(self) -> socket.socket:
        """Connect to the first address of the host that accepts. Raises EndedError."""
        try:
            sock = socket.create_connection((self._host, self._port), CONNECT_TIME)
        except (socket.gaierror, UnicodeError):
            text = "No computer called “%s” was found. Check the spelling, or use its address."
            raise EndedError(SERVER, text % self._host) from None
        except ConnectionRefusedError:
            text = "Nothing is listening at %s. Is server.py running there?"
            raise EndedError(SERVER, text % self.address) from None
        except socket.timeout:
            text = "Nothing answered at %s within %g seconds. Is server.py running there?"
            raise EndedError(SERVER, text % (self.address, CONNECT_TIME)) from None
        except OSError as error:
            text = "%s cannot be reached: %s. Is it on, and on this network?"
            raise EndedError(SERVER, text % (self.address, error.strerror)) from None
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def _talk(self, sock: socket.socket) -> None:
        """Read and write until we have quit. Raises EndedError, or OSError."""
        carrier = Carrier(sock, self._host, self._pin)
        login = self._password, self._login, self._token
        handshake = Handshake(self._nickname, *login, is_encrypted=bool(self._pin))
        framer = protocol.Framer(protocol.MAX_TAGS + protocol.MAX_MESSAGE)
        with self._lock:
            self._outgoing.clear()
        self.send([OPENING])
        is_pinged = False
        silent_since = time.monotonic()
        while True:
            patience = ANSWER_TIME if is_pinged else PING_AFTER
            if self._quit_at:
                # The server hangs up after QUIT: closing first, with data unread, would reset the
                # connection and could discard what was sent last.
                patience = QUIT_TIME if handshake.is_done else 0.0
            elif not handshake.has_started and carrier.is_open:
                patience = CAP_TIME
            elif not handshake.is_done:
                patience = CONNECT_TIME
            seconds = max(silent_since, self._quit_at) + patience - time.monotonic()
            if seconds <= 0 and self._quit_at:
                return
            if seconds <= 0 and carrier.is_open and not handshake.has_started:
                self.send(handshake.start())
                continue
            if seconds <= 0 and (is_pinged or not handshake.is_done):
                raise EndedError(LOST, "The server has stopped answering.")
            if seconds <= 0:
                self.send([Message("PING", ("hubbub",))])
                is_pinged, silent_since = True, time.monotonic()
                continue
            writing = [sock] if self._outgoing or carrier.has_unsent else []
            ready, writing, _ = select.select([sock, self._wake_end], writing, [], seconds)
            if self._wake_end in ready:
                self._wake_end.recv(4096)
            if writing:
                with self._lock:
                    del self._outgoing[: carrier.send(self._outgoing)]
            if sock in ready:
                for line in filter(None, framer.feed(self._receive(carrier))):
                    self._on_line(line, handshake)
                is_pinged, silent_since = False, time.monotonic()

    def _receive(self, carrier: "Carrier") -> bytes:
        """Return decrypted bytes. Raises EndedError, RestartError or OSError."""
        try:
            data = carrier.receive()
        except (ssl.SSLError, ssl.CertificateError) as error:
            if carrier.is_open:
                raise  # damaged on its way
            log.info("%s: %s", self.address, error)
            is_untrusted = "CERTIFICATE_VERIFY_FAILED" in str(error) or "match" in str(error)
            if is_untrusted and not self._is_pinned:
                raise RestartError from None  # then it is met for the first time
            if not self._is_pinned:
                raise EndedError(SERVER, NO_TLS % self.address) from None
            raise self._refusal(is_untrusted) from None
        if self._pin == FIRST and carrier.fingerprint:
            self._pin = carrier.fingerprint
        if carrier.fingerprint and self._pin not in (SYSTEM, carrier.fingerprint):
            raise self._refusal(is_untrusted=True)
        return data

    def _refusal(self, is_untrusted: bool) -> EndedError:
        """Return the error for a server that is not the one that is trusted, or not encrypted."""
        text = (OTHER_CERTIFICATE if is_untrusted else NO_ENCRYPTION) % self.address
        if self._network:
            text = OTHER_NAMESAKE if is_untrusted else CLEAR_NAMESAKE
            text = text.format(self.address, self._network)
        return EndedError(TRUST, text, is_final=True)

    def _put(self, event: Event) -> None:
        """Put an event into the queue; wait while that is full and still polled."""
        while True:
            try:
                return self._events.put(event, self._is_polled, 0.1)
            except queue.Full:
                if not self._is_polled:
                    return None

    def _on_line(self, line: bytes, handshake: Handshake) -> None:
        try:
            message = protocol.clean_message(protocol.parse(line, "replace"))
        except protocol.ProtocolError:
            return  # nothing that could be shown
        if message.command == "PING":
            self._reply([protocol.fit(Message("PONG", (message.text,)))])
        elif message.command == "RESUME":  # a secret between the server and this thread
            self._token = message.text if message.params[:1] == ("TOKEN",) else self._token
        elif not handshake.is_done:
            self._reply(handshake.answer(message))
            if handshake.offers_tls:
                raise RestartError
            if handshake.is_done:
                self._nickname, self._login = handshake.nickname, handshake.login or self._login
                if not self._pin and self._login and self._login.name == protocol.HOST_ACCOUNT:
                    self._login = None  # in the clear, another server could come to its address
                self._session += 1
                self._is_pinned, self._network = bool(self._pin), ""
                with self._lock:
                    self._open_session = self._session
                caps, is_resumed = handshake.caps, handshake.is_resumed
                self._put(Connected(self._nickname, caps, self._session, is_resumed, self._pin))
                self._put(message)
        elif message.command == "ERROR":
            raise EndedError(LOST, message.text)
        elif message.command == "FAIL" and message.param(1) == "LOGGED_IN_ELSEWHERE":
            raise EndedError(PASSWORD, message.text, is_final=True)
        elif message.command == "KILL" and message.params[:1] == (self._nickname,):
            shown = protocol.describe(message, self._nickname, 0.0)
            raise EndedError(REJECTED, shown.text if shown else message.text, is_final=True)
        elif message.command == "465":
            raise EndedError(REJECTED, message.text, is_final=True)
        else:
            is_own = message.nickname == self._nickname
            if message.command == "NICK" and is_own and protocol.is_middle(message.text):
                self._nickname = message.text
            self._put(message)

    def _reply(self, messages: List[Message]) -> None:
        if messages and len(self._outgoing) > MAX_OUTGOING:
            raise EndedError(SERVER, "The server does not read what it is sent.")
        self.send(messages)


# Conversations
# -------------

CHANNEL, CONSOLE = "channel", "console"  # kinds of conversation, besides PRIVATE
ALL, MENTIONS, NONE = "all", "mentions", "none"  # alert levels of a conversation
ONLINE, AWAY, OFFLINE = "online", "away", "offline"
FROM_SYSTEM = "system"  # a kind of line, besides those of protocol.py: the client's own

# Entry.delivery of an own message; all other entries are SENT
SENT = "sent"  # the server has it
QUEUED = "queued"  # not sent yet: no connection, or its channel is not joined again
IN_FLIGHT = "in flight"  # sent, not confirmed by the server
UNCERTAIN = "uncertain"  # in flight when the connection was lost; the history decides
REFUSED = "refused"  # by the server or the client, which has said why
UNKNOWN = "unknown"  # may have arrived or not
FAILED = (REFUSED, UNKNOWN)
# Words about a delivery
_NOTES = {
    QUEUED: "waiting to send",
    UNCERTAIN: "waiting to send",
    REFUSED: "not delivered",
    UNKNOWN: "may not have arrived",
}

# Conversation.membership of a channel
JOINED = "joined"
JOINING = "joining"  # the user has asked to join; what is typed there follows the JOIN
REJOINING = "rejoining"  # the user was in it before, and is to join it again after the welcome
OUTSIDE = "outside"  # removed from it, or refused

CHANNEL_SIGN = "#"  # before the names of all channels that users can type

Span = Tuple[int, int]  # start and end in a text


class Place(NamedTuple):
    """The place of a message in the server's history."""

    msgid: str
    when: float  # server time

    def precedes(self, other: "Place") -> bool:
        """Return True if the server had it before `other`: by number, or else by time."""
        if self.msgid.isdecimal() and other.msgid.isdecimal():  # numbers that grow
            return (len(self.msgid), self.msgid) < (len(other.msgid), other.msgid)
        return self.when <= other.when


class Entry:
    """A line of a conversation. Own and private messages may be in two conversations."""

    __slots__ = (
        "answer", "count", "delivery", "event", "id", "is_mention", "is_own", "line", "msgid",
        "reply_to",
    )  # fmt: skip

    def __init__(self, number: int, line: Line, msgid: str = "", is_own: bool = False) -> None:
        self.id = number  # in order of creation
        self.line = line
        self.msgid = msgid
        self.is_own = is_own
        self.is_mention = False
        self.answer = ""  # the command, if it is an answer by the server to this user alone
        self.delivery = SENT  # changed by the Outbox alone
        self.event = ""  # "joined" or "left", which a crowd is made of
        self.count = 1  # people, in the entry of a crowd
        self.reply_to = ""  # the msgid of what it replies to

    @property
    def note(self) -> str:
        """Words about the delivery, shown in parentheses."""
        return _NOTES.get(self.delivery, "")

    def follows(self, above: "Optional[Entry]") -> bool:
        """Return True for an answer at once after another of its kind."""
        since = self.line.when - above.line.when if above is not None else REPLY_TIME
        return since < REPLY_TIME and above is not None and self.answer == above.answer != ""

    @property
    def text(self) -> str:
        """The entry as it is shown and searched, without the time."""
        return "%s %s" % (self.line.head, self.line.text)

    @property
    def excerpt(self) -> str:
        """The beginning of its text, for a quote."""
        return protocol.clean(self.line.text, 80)

    @property
    def place(self) -> "Place":
        """The place in the server's history."""
        return Place(self.msgid, self.line.when)

    @property
    def day(self) -> str:
        """The local date, as "2026-11-22"."""
        return time.strftime("%Y-%m-%d", time.localtime(self.line.when))


class Member(NamedTuple):
    """A member of a channel. `prefix` is "@" for chanops, "+" for voiced members, or ""."""

    nickname: str
    prefix: str = ""
    is_away: bool = False


class Conversation:
    """A channel, a private conversation, or the console, shown until a channel is joined."""

    def __init__(self, name: str, kind: str) -> None:
        self.rename(name)
        self.kind = kind
        self.topic = ""
        self.flags: Set[str] = set()  # modes of a channel: "t" if only its operators set the topic
        self.last_topic = ""  # before the reconnect; the same topic is not shown twice
        self.entries: List[Entry] = []  # in the server's order, own waiting ones where typed
        self.unread = self.mentions = 0
        self.mark: Optional[Entry] = None  # the first entry that is new
        self.seen_since = 0.0  # when all news were first seen in a channel; 0 if they are not
        self.new_count = 0
        self.draft = self.topic_draft = ""
        self.draft_question: Optional[Entry] = None  # the private line that it may answer
        self.reply_to: Optional[Entry] = None  # what the next text here replies to
        self.level = MENTIONS
        self.hides_joins = False  # joins and leaves are not shown
        self.membership = OUTSIDE if kind == CHANNEL else JOINED
        self.removal = ""  # why we are outside of the channel, until it is joined again
        self.refusal = ""  # the numeric by which joining is refused, so far as is known
        self.members: Dict[str, Member] = {}
        self.new_members: Dict[str, Member] = {}  # while NAMES is being answered
        self.channel_key: Sequence[str] = ()  # empty, or the key: of the last /join or +k
        self.joined_at = 0.0  # seconds since 1970: when the user's /join was answered
        self.is_operated = False  # by the user, who was told so
        self.list_requests = 0  # by the user, not answered yet
        # Of the history:
        self.has_older = True  # until an answer says otherwise
        self.is_complete = True  # there is no gap between the entries
        self.anchor: Optional[Entry] = None  # the last entry before the gap, if there is a gap
        self._known: Dict[str, Entry] = {}  # entries by msgid

    def rename(self, name: str) -> None:
        """Set the name, and `folded`: the name with its case folded, by which it is found."""
        self.name = name
        self.folded = protocol.casefold(name)

    @property
    def title(self) -> str:
        """The name without the sign of a channel."""
        return self.name[1:] if self.kind == CHANNEL else self.name

    @property
    def sorted_members(self) -> List[Member]:
        """The members, sorted by nickname."""
        return [self.members[folded] for folded in sorted(self.members)]

    @property
    def shown(self) -> List[Entry]:
        """The entries that the user wants to see."""
        if not self.hides_joins:
            return self.entries
        return [entry for entry in self.entries if not entry.event]

    @property
    def news(self) -> int:
        """The number of unread entries that the user wants to hear of."""
        return 0 if self.level == NONE else self.unread

    @property
    def is_outside(self) -> bool:
        """True for a channel that the user has to join to write there."""
        return self.kind == CHANNEL and self.membership == OUTSIDE

    def detach(self, membership: str) -> None:
        """Forget the members; from now on messages may be missed."""
        self.members, self.new_members, self.list_requests = {}, {}, 0
        if self.kind == CHANNEL:
            self.membership = membership
        if self.is_complete:
            self.is_complete, self.anchor = False, self.first_stored(reversed(self.entries))

    # Entries

    def quoted(self, entry: Entry) -> Optional[Entry]:
        """Return the entry that an entry replies to, if it is here."""
        return self._known.get(entry.reply_to)

    def knows(self, msgid: str) -> bool:
        """Return True if an entry with this msgid is here."""
        return msgid in self._known

    def insert(self, index: int, entries: Iterable[Entry]) -> List["Change"]:
        """Put entries at an index."""
        new = list(entries)
        below = self.entries[index] if index < len(self.entries) else None
        self.entries[index:index] = new
        self._known.update((entry.msgid, entry) for entry in new if entry.msgid)
        return [Change(ADDED, self, new, below)]

    def append(self, entry: Entry) -> List["Change"]:
        """Put an entry at the end."""
        return self.insert(len(self.entries), [entry])

    def remove(self, entries: Iterable[Entry]) -> List["Change"]:
        """Remove entries, as far as they are here; fast for the newest."""
        wanted = set(entries)
        start, left = len(self.entries), len(wanted)
        while start and left:
            start -= 1
            left -= self.entries[start] in wanted
        tail = self.entries[start:]
        self.entries[start:] = [entry for entry in tail if entry not in wanted]
        gone = [entry for entry in tail if entry in wanted]
        for entry in gone:
            self._known.pop(entry.msgid, None)
        return [Change(REMOVED, self, gone)] if gone else []

    def trim(self) -> List["Change"]:
        """Remove the oldest entries, but no own unsent ones, if there are too many."""
        excess = len(self.entries) - MAX_ENTRIES
        if excess <= MAX_ENTRIES // 10:
            return []
        self.has_older = True
        sent = (entry for entry in self.entries if entry.delivery == SENT)
        changes = self.remove(itertools.islice(sent, excess))
        if self.mark is not None and self.index(self.mark) < 0:
            self.mark = self.entries[0]
            changes.append(Change(CHANGED, self, [self.mark]))
        return changes

    def confirm(self, entry: Entry) -> List["Change"]:
        """Mark an own message as stored: it moves below those that were stored before."""
        index = self.index(entry)
        if index >= 0 and any(e.delivery == SENT for e in self.entries[index + 1 :]):
            return [*self.remove([entry]), *self.append(entry)]
        if entry.msgid:
            self._known[entry.msgid] = entry
        return [Change(CHANGED, self, [entry])]

    def index(self, entry: Entry) -> int:
        """Return the position of an entry; -1 if it is not here."""
        return self.entries.index(entry) if entry in self.entries else -1

    def merge(self, page: Sequence[Entry], before: Optional[Entry] = None) -> List["Change"]:
        """Put a page of the history where it belongs, and return what was added.

        A page is in the server's order, in which each new entry gets its place: from the end (or
        from `before`) up, below the first entry that precedes it.
        """
        index = len(self.entries) if before is None else self.index(before)
        added: List[Change] = []
        for entry in reversed(page):
            if entry.msgid in self._known:
                index = min(index, self.entries.index(self._known[entry.msgid]))
                continue
            while index and not self._is_above(index - 1, entry):
                index -= 1
            (change,) = self.insert(index, [entry])
            if added and added[-1].entries[0] is change.before:
                below = added.pop()
                change = below._replace(entries=[entry, *below.entries])
            added.append(change)
        return added[::-1]

    def _is_above(self, index: int, entry: Entry) -> bool:
        above = self.entries[index]
        return above.delivery == SENT and above.place.precedes(entry.place)

    def first_stored(self, entries: Iterable[Entry]) -> Optional[Entry]:
        """Return the first of `entries` that the history of this conversation has.

        It has no joins, and a channel's has no private messages.
        """
        kinds = (PRIVATE,) if self.kind == PRIVATE else (FROM_ME, FROM_OTHERS)
        found = (e for e in entries if e.msgid and e.line.kind in kinds)
        return next(found, None) if self._known else None  # without a history, at once

    def find(self, words: str) -> "List[Hit]":
        """Return the hits of `words` in the texts of entries, in order.

        Case and accents make no difference.
        """
        pattern = _folded_pattern(words)
        entries = self.shown if pattern.pattern else []
        return [(e, span) for e in entries for span in _find_folded(e.text, pattern)]

    def counterpart(self, entry: Entry) -> Optional[Entry]:
        """Return an entry as it is here: itself, or that with the same msgid."""
        return entry if entry in self.entries else self._known.get(entry.msgid)


SHADES = 8  # colours of nicknames


@functools.lru_cache(maxsize=1000)
def find_shade(nickname: str) -> int:
    """Return the number of a nickname's colour, below SHADES: everywhere and always the same."""
    number = zlib.crc32(protocol.casefold(nickname).encode("utf-8", "replace"))
    return (number >> 20) % SHADES  # any bits serve; these make a varied picture for the README


# Changes
# -------

# Kinds of changes. Of entries:
ADDED = "added"  # directly before `before`; None is the end
CHANGED = "changed"  # they look different, in place
REMOVED = "removed"
RELOADED = "reloaded"  # others of them are shown than before
RECALLED = "recalled"  # read from the history now, new or not; for views that only print
ALERT = "alert"  # they deserve a notification
# Of other parts of the window:
SIDEBAR = "sidebar"  # the conversations, which is in view, their badges and presence
MEMBERS = "members"  # the members of a conversation
HEADER = "header"  # its title or topic
STATUS = "status"  # the state of the connection, own nickname, away, rights
LISTING = "listing"  # what was asked for with `Chat.request`
HELP = "help"  # the user asks for it
SEARCH = "search"  # the user searches all conversations
RESULTS = "results"  # that search is done
REVEALED = "revealed"  # what was chosen of its results is here, with what stands around it


class Change(NamedTuple):
    """Something to show: applied in order to the view before, changes give the view after."""

    kind: str
    conversation: Optional[Conversation] = None
    entries: Sequence[Entry] = ()
    before: Optional[Entry] = None


# Outbox
# ------


class Outgoing:
    """An own message that the server has not confirmed."""

    def __init__(self, entry: Entry, message: Message) -> None:
        self.entry = entry
        self.message = message  # with its label, once it is in flight
        self.folded = protocol.casefold(message.params[0])  # of its target
        self.conversations: List[Conversation] = []  # those with the entry
        self.nickname = ""  # under which it was sent
        self.number = 0  # counts what is sent
        self.since = Place("", 0.0)  # of the last message before it was sent


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

    def take(
        self, can_send: Callable[[str], bool], nickname: str, caps: Container[str], since: Place
    ) -> List[Message]:
        """Return the queued messages that can be sent now, which are in flight from then on.

        A message waits behind an uncertain message to the same target.
        """
        messages = []
        blocked = {item.folded for item in self.having(UNCERTAIN)}
        for item in self.having(QUEUED):
            if item.folded not in blocked and can_send(item.folded):
                self.last_number += 1
                item.number, item.nickname, item.since = self.last_number, nickname, since
                tags = {}
                if "echo-message" in caps and "labeled-response" in caps:  # each echo has its label
                    tags["label"] = "m%d" % item.number
                if item.entry.reply_to and "message-tags" in caps:
                    tags[REPLY_TAG] = item.entry.reply_to
                item.message = item.message._replace(tags=tags)
                self.set_delivery(item, IN_FLIGHT)
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
        folded, sender = protocol.casefold(params[0]), protocol.casefold(sender)
        for item in self.having(delivery):
            is_from = not sender or protocol.casefold(item.nickname) == sender
            is_same = item.message.params[1 : len(params)] == params[1:]
            if item.folded == folded and is_from and is_same:
                return item
        return None

    def set_delivery(self, item: Outgoing, delivery: str) -> None:
        """Set the delivery of a message that is not confirmed."""
        note, item.entry.delivery = item.entry.note, delivery
        for conversation in item.conversations if item.entry.note != note else ():
            self._change(CHANGED, conversation, [item.entry])

    def deliver(self, item: Outgoing, line: Line, msgid: str) -> None:
        """Mark a message as stored by the server, which shows it as `line`."""
        self.items.remove(item)
        item.entry.line, item.entry.msgid, item.entry.delivery = line, msgid, SENT

    def resolve(self, folded: str, is_complete: bool, nickname: str) -> None:
        """Decide on the uncertain messages to a target that the history does not have.

        They can be sent again if the history is complete and their nickname is ours: then no
        other connection of ours is left that could still deliver them.
        """
        for item in self.having(UNCERTAIN):
            is_ours = protocol.casefold(item.nickname) == protocol.casefold(nickname)
            if item.folded == folded:
                self.set_delivery(item, QUEUED if is_complete and is_ours else UNKNOWN)

    def hold(self) -> None:
        """Leave it to the user if anything is sent: to a server that refuses, or is another."""
        for item in self.items:
            if item.entry.delivery not in FAILED:
                self.set_delivery(item, REFUSED if item.entry.delivery == QUEUED else UNKNOWN)

    def failed(self, entry: Entry) -> Optional[Outgoing]:
        """Return the failed message of an entry."""
        failed = (i for i in self.items if i.entry is entry and entry.delivery in FAILED)
        return next(failed, None)

    def rename(self, folded: str, name: str) -> None:
        """Address what waits for a user to their new name; what has failed keeps that it shows."""
        for item in self.having(QUEUED):
            if item.folded == folded:
                item.message = item.message._replace(params=(name, *item.message.params[1:]))
                item.folded = protocol.casefold(name)

    def forget(self, folded: str) -> None:
        """Remove all messages to a channel that was left, except those in flight."""
        kept = [i for i in self.items if i.folded != folded or i.entry.delivery == IN_FLIGHT]
        self.items = kept


# Session
# -------

_TOKENS = frozenset("CHANMODES CHATHISTORY NETWORK PREFIX".split())  # those we use
_PREFIX = "(qaohv)~&@%+"  # for servers that send none


class Session:
    """The state that lasts as long as a connection: capabilities, ISUPPORT, progress."""

    def __init__(self, start: Connected, is_reconnect: bool = False) -> None:
        self.number, self.caps, self.is_resumed = start.session, start.caps, start.is_resumed
        self.pin = start.pin  # "" in the clear
        self.is_reconnect = is_reconnect
        self.tokens: Dict[str, str] = {}  # ISUPPORT
        self.is_settled = False  # past the welcome: messages can be sent
        self.began = 0.0  # in seconds since 1970, by the server's clock; 0 if that is not known
        self.is_operator = False  # of the server
        self.account = ""  # the user is logged in to it

    @property
    def prefixes(self) -> Dict[str, str]:
        """The signs before members' names, by mode, the highest first."""
        modes, _, signs = self.tokens.get("PREFIX", _PREFIX)[1:].partition(")")
        return dict(zip(modes, signs))

    def is_chanop(self, member: Optional[Member]) -> bool:
        """Return True for an operator, an admin or the owner of a channel."""
        signs = [sign for mode, sign in self.prefixes.items() if mode in "qao"]
        return member is not None and any(sign in member.prefix for sign in signs)

    @property
    def modes(self) -> Dict[str, str]:
        """The channel modes, like protocol.CHANNEL_MODES."""
        chanmodes = self.tokens.get("CHANMODES", protocol.CHANMODES)
        return protocol.channel_modes(chanmodes, self.prefixes)

    def page(self, size: int) -> int:
        """Return the number of messages of history to ask for at once."""
        limit = self.tokens.get("CHATHISTORY", "")[:9]
        return min(size, int(limit)) if limit.isdecimal() and int(limit) else size


class Announcement(NamedTuple):
    """News that stay until the user closes them; with the room to which they invite, if any."""

    text: str
    room: str = ""


class Listing:
    """The answer to a command that a sheet shows as a list, up to the PONG with its word."""

    def __init__(self, *params: str) -> None:
        self.params = params  # the command
        self.word = ""  # as long as it is not sent
        self.rows: List[Message] = []
        self.is_done = False


# Chat
# ----

# Chat.state
CONNECTING, CONNECTED = "Connecting", "Connected"
RECONNECTING, DISCONNECTED = "Reconnecting", "Disconnected"

PRIVATE_RULE = "Earlier private messages are shown to registered names only."
OPERATES = "You are an operator of %s now: you may set its rules, and remove or ban others."
_NOT_CONNECTED = "You are not connected. Try again when you are."
_BANS = ("BANS",)
_PRESENCE = {"JOIN": "joined", "PART": "left", "QUIT": "left"}  # Entry.event
_JOINS = " joins"  # after the key of a channel's level: NONE if its joins are hidden
# Room for the "user@host" that a server puts before our messages, at its longest
_USER_AT_HOST = "!" + "u" * 10 + "@" + "h" * 63


class Chat:
    """Everything known about one server, and what its user can do there.

    Deterministic: no I/O, no thread, no clock (`now` is the time in seconds since 1970). What
    the user may not do is answered with the reason, and not sent. `levels` (alerts by
    conversation) and `ignored` (nicknames) are the settings' own objects, changed in place.
    `rooms` is what `Chat.rooms` was at the last visit: channels are to be joined once the server
    welcomes us.

    The handlers of what servers send and users type, the history, and where a draft goes are
    functions below the class. They work with the methods of its second half, and record what they
    send and change in `outcome`, which is new for each call of `do`.
    """

    def __init__(
        self, server: str, levels: Dict[str, str], ignored: List[str], rooms: Sequence[str] = ()
    ) -> None:
        self.nickname = ""
        self.state = DISCONNECTED
        self.is_away = False
        self.console = Conversation(server, CONSOLE)  # its name: the address, then the network
        self.conversations = [self.console]  # channels first
        self.current = self.console
        self.session = Session(Connected("", session=0))
        self.outbox = Outbox(self.change)
        self.history = History()
        self.ignored = ignored
        self.outcome = Outcome()
        self.now = 0.0
        # Channels that were left while the server was not asked, or had not answered JOIN yet:
        self.left: Dict[str, bool] = {}  # True if it has still to be told
        self.correspondent = ""  # the sender of the last private message
        self.pending_login: Optional[Login] = None  # typed, not accepted yet
        self._levels = levels
        self.address = server
        self._has_focus = True
        self._numbers = itertools.count(1)  # of entries
        self._banner, self._attempt = "", 0
        self._retry_at = self._back_at = 0.0
        self._has_host = True  # False from the end of the chat until it is joined again
        self.complete_until = Place("", 0.0)  # up to which nothing was missed
        self._latest = 0.0  # the latest time of a message, by the server's clock
        self._is_late = False  # the last message was said before another that came first
        self.completer = Completer(functools.partial(_suggest, self))
        # Pasted lines, from a command that is not answered yet on, their recipient and the
        # conversation in view, by the word of the PONG that follows the answer:
        self.pastes: Dict[str, Tuple[List[str], str, Conversation]] = {}
        self.announcements: List[Announcement] = []  # not closed yet, the newest last
        self.listing = Listing()  # the answer to the last `request`
        # Seconds since 1970 until which users are muted, by folded name, as far as answers tell:
        self.muted: Dict[str, float] = {}
        self.lookup = Lookup()  # the last search in all conversations
        # By folded nickname that its user gave up: GONE or the new one, and when. Newest last.
        self.former: Dict[str, Tuple[str, float]] = {}
        # By folded nickname that may be another user's by now: see "Names that change hands".
        self.unsure: Dict[str, Doubt] = {}
        self.asked: Dict[str, bool] = {}  # those that WHOIS is about; True if it is the same user
        for name in rooms:
            is_channel = name.startswith(CHANNEL_SIGN)
            kept = self.create(name, CHANNEL if is_channel else PRIVATE)
            if kept is not None and is_channel:
                kept.membership = REJOINING

    # For the views

    @property
    def title(self) -> str:
        """The window's title: what is new, state, nickname and server."""
        unread = sum(c.news for c in self.conversations)
        is_named = any(c.news and c.mentions for c in self.conversations)
        news = "(%d%s) " % (unread, "!" if is_named else "")
        text = "%s — %s" % (self.status, self.console.name)
        if self.state == CONNECTING:
            text = "Connecting to %s…" % self.console.name
        elif self.state == CONNECTED:
            text = "Connected: %s @ %s" % (self.nickname, self.console.name)
        return "%s%s — Hubbub" % (news if unread else "", text)

    @property
    def status(self) -> str:
        """The state of the connection, for people."""
        return self.state + ("…" if self.state in (CONNECTING, RECONNECTING) else "")

    @property
    def hint(self) -> str:
        """The text of the empty composer."""
        if self.current.kind == CONSOLE:
            return "Join a room with /join ROOM, or write to one person: @USERNAME MESSAGE"
        if self.current.is_outside and self.current.refusal == BANNED:
            return "You are banned from %s" % self.current.name
        if self.current.is_outside:
            return "Join %s to write here" % self.current.name
        if self.current.kind == CHANNEL and protocol.casefold(self.nickname) in self.muted:
            return "You are muted: you can read, but not write here"
        later = "" if self.state == CONNECTED else " — sent when back online"
        return "Message %s%s" % (self.current.name, later)

    @property
    def empty_text(self) -> str:
        """The text of a conversation without messages."""
        is_ours = self.current.kind == PRIVATE and RESUME_CAP in self.session.caps
        if is_ours and self.is_me(self.session.account):
            rule = "What was said before you registered, or %s did, is not shown."
            return "No messages to show here. Say hello.\n" + rule % self.current.name
        return "No messages here yet. Say hello." + ("\n" + PRIVATE_RULE if is_ours else "")

    def banner(self, now: float) -> str:
        """Return the warning about the connection or the room, or ""; it changes with the time."""
        if self.state == CONNECTED:
            is_back = now < self._back_at + BACK_TIME and not self.current.removal
            return "Connected again." if is_back else self.current.removal
        if self.state != RECONNECTING:
            return self._banner
        seconds = math.ceil(self._retry_at - now)
        pause = "in %d s" % seconds if seconds > 0 else "now"
        return "%s %s (attempt %d)." % (self._banner, pause, self._attempt)

    @property
    def unsent(self) -> int:
        """The number of own lines that the server has not confirmed."""
        pasted = sum(len(lines) - 1 for lines, *_ in self.pastes.values())
        return pasted + sum(item.entry.delivery not in FAILED for item in self.outbox.items)

    @property
    def rooms(self) -> List[str]:
        """The names of the channels that the user is in or will be again, and of correspondents."""
        kept = (c for c in self.conversations if c.kind != CONSOLE)
        return [c.name for c in kept if c.membership in (JOINED, REJOINING)]

    def conversation_named(self, name: str) -> Optional[Conversation]:
        """Return the channel or private conversation of this name."""
        folded = protocol.casefold(name)
        found = (c for c in self.conversations if c.folded == folded and c.kind != CONSOLE)
        return next(found, None)

    def can_reply(self, entry: Entry) -> bool:
        """Return False for the server's lines, and for private ones without a conversation."""
        return bool(entry.line.nickname) and self.reply_conversation(entry) is not None

    def reply_conversation(self, entry: Entry) -> Optional[Conversation]:
        """Return the conversation of an entry in view: for a private entry, the private one."""
        if entry.line.kind != PRIVATE or self.current.kind == PRIVATE:
            return self.current
        private = (c for c in self.conversations if c.kind == PRIVATE)
        return next((c for c in private if c.index(entry) >= 0), None)

    def address_of(self, entry: Optional[Entry]) -> str:
        """Return "@name ", with which an answer to a private entry in a channel begins; else ""."""
        if entry is None or self.reply_conversation(entry) is self.current:
            return ""
        home = self.reply_conversation(entry)
        return "@%s " % (home.name if home is not None else entry.line.nickname)

    def next_unread(self) -> Optional[Conversation]:
        """Return a conversation with something new, preferably with a mention."""
        unread = [c for c in self.conversations if c.news and c is not self.current]
        return max(unread, key=lambda c: bool(c.mentions)) if unread else None

    def neighbour(self, step: int) -> Conversation:
        """Return the conversation `step` rows below the current conversation."""
        index = self.conversations.index(self.current)
        return self.conversations[(index + step) % len(self.conversations)]

    def presence(self, nickname: str) -> str:
        """Return ONLINE, AWAY or OFFLINE, as far as our channels show."""
        folded = protocol.casefold(nickname)
        found = [c.members[folded] for c in self.conversations if folded in c.members]
        if not found:
            return OFFLINE
        return AWAY if found[0].is_away else ONLINE

    def can_moderate(self, channel: Conversation) -> bool:
        """Return True if the user may remove others from a channel."""
        own = channel.members.get(protocol.casefold(self.nickname))
        return own is not None and (self.session.is_operator or self.session.is_chanop(own))

    def can_set_topic(self, channel: Conversation) -> bool:
        """Return True if the user may set the topic of a channel."""
        is_there = channel.kind == CHANNEL and channel.membership == JOINED
        return is_there and ("t" not in channel.flags or self.can_moderate(channel))

    def invitable(self, nickname: str) -> List[Conversation]:
        """Return the channels to which the user may invite another user."""
        folded, joined = protocol.casefold(nickname), (c for c in self.conversations if c.members)
        absent = (c for c in joined if folded not in c.members)
        return [c for c in absent if "i" not in c.flags or self.can_moderate(c)]

    def begin(self, nickname: str) -> None:
        """Show that a connection is being made."""
        self.nickname = nickname
        self.state = CONNECTING

    def close_announcement(self) -> None:
        """Forget the announcement that is shown."""
        del self.announcements[-1:]

    def announce(self, text: str, room: str = "") -> None:
        """Keep an announcement, or an invitation to a room in place of an earlier one."""
        self.withdraw_invitation(room)
        kept = self.announcements[1 - MAX_ANNOUNCEMENTS :]
        self.announcements = [*kept, Announcement(text, room)]

    def withdraw_invitation(self, room: str) -> None:
        """Forget the announcement that invites to a room."""
        folded, kept = protocol.casefold(room), self.announcements
        self.announcements = [a for a in kept if not room or protocol.casefold(a.room) != folded]

    def do(self, now: float, action: Callable[..., object], *args: Any) -> Outcome:
        """Run a method of the next part: the only way in for what happens outside."""
        self.now, self.outcome = now, Outcome(self.session.number)
        action(*args)
        return self.outcome

    # What happens: run by `do`

    def handle(self, event: Event) -> None:
        """Process an event of the connection."""
        self.tick()
        if isinstance(event, Connected):
            self._on_connected(event)
        elif isinstance(event, Lost):
            self._on_lost(event)
        elif isinstance(event, Disconnected):
            self._on_disconnected(event)
        else:
            self._on_message(event)

    def tick(self) -> None:
        """Give up requests that are overdue, and forget mutes that have ended; cheap."""
        for name in [name for name, until in self.muted.items() if until < self.now]:
            del self.muted[name]
            self.change(MEMBERS)
        for request in [r for r in self.history.requests if r.deadline < self.now]:
            _give_up(self, request)

    def submit(self, text: str) -> None:
        """Run what the user typed or pasted, line by line.

        The lines after a command wait until the server has answered it. A line that is refused
        ends it: the reason is shown, and `Outcome.rest` begins with that line.
        """
        self._run_lines(split_lines(text), "")

    def _run_lines(self, lines: List[str], recipient: str) -> None:
        for index, line in enumerate(lines):
            sent = len(self.outcome.send)
            try:
                recipient = _run_line(self, line, recipient)
            except InputError as error:
                self.answer(str(error))
                self.outcome.rest = _address_rest(self, lines[index:], recipient, self.current)
                break
            self.unmark(self.current)
            commands = {message.command for message in self.outcome.send[sent:]}
            if self.outcome.is_done:
                break
            # WHOIS and PING, together, ask about a recipient: see "Names that change hands".
            is_text = commands != {"WHOIS"} and commands <= {"PRIVMSG", "PING", "WHOIS"}
            if not is_text and lines[index + 1 :]:
                word = "paste-%d" % next(self._numbers)
                self.pastes[word] = lines[index:], recipient, self.current
                self.send(Message("PING", (word,)))
                break

    def resume_paste(self, word: str) -> None:
        """Run the lines after a command, which the server has answered with this PONG.

        They are for the conversation that was in view; if another is now, the user decides.
        """
        lines, recipient, conversation = self.pastes.pop(word, ([], "", self.current))
        if conversation is self.current:
            self._run_lines(lines[1:], recipient)
        else:
            self.outcome.rest = _address_rest(self, lines[1:], recipient, conversation)

    def answer(self, text: str) -> None:
        """Show an answer to the user, as the server's, in the conversation in view."""
        entry = self.new_entry(protocol.server_line(text, self.now))
        entry.answer = "you"
        self.add(entry, self.current)

    def select(self, conversation: Conversation) -> None:
        """Bring a conversation into view."""
        if conversation is not self.current:
            self.unmark(self.current)
            self.current, self.lookup.revealing = conversation, None
            self.change(SIDEBAR)
        if self._has_focus:
            self._clear_unread(conversation)
        if conversation.kind == PRIVATE and self.session.is_settled:
            _catch_up(self, conversation)

    def open(self, name: str) -> None:
        """Bring up a private conversation, or a channel, which is joined first."""
        found = self.conversation_named(name)
        if name.startswith(CHANNEL_SIGN) and (found is None or found.is_outside):
            self.submit("/join " + name)
        elif found is None and not protocol.is_nickname(name):
            self.answer(protocol.NO_SUCH_USER.format(name))
        else:
            self.select(found or self.private(name))

    def leave(self, conversation: Conversation, *reason: str) -> None:
        """Leave a channel, or close a private conversation."""
        if conversation.kind == CHANNEL and not conversation.is_outside:
            if self.session.is_settled:
                self.send(protocol.fit(Message("PART", (conversation.name, *reason))))
            if not self.session.is_settled or conversation.membership == JOINING:
                self.left[conversation.folded] = not self.session.is_settled
        self.remove(conversation)

    def retry(self, entry: Entry) -> None:
        """Send a failed message again."""
        item = self.outbox.failed(entry)
        if item is not None:
            try:
                _check(self, "say", [item.message])
            except InputError as error:
                self.answer(str(error))
            else:
                self.discard(entry)
                self.say(item.message._replace(tags={REPLY_TAG: entry.reply_to}))

    def edit(self, entry: Entry) -> None:
        """Remove a failed message, and give it back as it can be typed here, with its reply."""
        item = self.outbox.failed(entry)
        if item is not None:
            target, text = item.message.params
            is_here = self.current is self.conversation_named(target)
            if not is_here or (text.startswith("@") and self.current.kind == PRIVATE):
                text = "@%s %s" % (target, text)
            elif text.startswith(protocol.ACTION):
                text = "/me " + text[len(protocol.ACTION) :].rstrip("\x01")
            elif text.startswith("/"):
                text = "/" + text
            if is_here:
                self.reply(self.current.quoted(entry) or self.current.reply_to)
            self.outcome.rest = text
            self.discard(entry)

    def discard(self, entry: Entry) -> None:
        """Remove a failed message."""
        item = self.outbox.failed(entry)
        if item is not None:
            self.outbox.items.remove(item)
            for conversation in item.conversations:
                self.outcome.changes += conversation.remove([entry])

    def fetch_older(self, conversation: Conversation) -> None:
        """Ask for the page of the history before all that is known."""
        has_history = HISTORY_CAP in self.session.caps and conversation.kind != CONSOLE
        can_ask = self.session.is_settled and has_history
        first = conversation.first_stored(conversation.entries)
        is_fetching = self.history.is_fetching(conversation)
        if can_ask and first is None:
            _catch_up(self, conversation)
        elif can_ask and first and conversation.has_older and not is_fetching:
            request = _ask(self, OLDER, conversation, "BEFORE", "msgid=" + first.msgid)
            request.before = first

    def request(self, *params: str) -> None:
        """Ask with a command for rooms, or for bans and mutes; LISTING says that they came."""
        self.listing = Listing(*params)
        if self.session.is_settled:
            self.listing.word = "listing-%d" % next(self._numbers)
            if params == _BANS:  # what comes tells who is muted
                self.muted.clear()
            self.send_command(*params)
            self.send_command("PING", self.listing.word)

    def search(self, words: str) -> None:
        """Search all conversations: what is loaded, and what the server keeps if it can."""
        self.change(SEARCH)
        if self.lookup.words != words or self.lookup.is_done:
            self.lookup = Lookup(words)
            _search(self, self.lookup)

    def reveal(self, result: "Result") -> None:
        """Bring a result into view, then load what stands around it, up to what is loaded."""
        self.open(result.conversation.name)
        if self.current is self.conversation_named(result.conversation.name):
            self.lookup.revealing = result
            _try_reveal(self, self.current)

    def send_command(self, *params: str) -> None:
        """Send a command that was chosen in the window, if there is a connection."""
        if self.session.is_settled:
            _send(self, protocol.fit(Message(params[0], params[1:])))
        else:
            self.answer(_NOT_CONNECTED)

    def reply(self, entry: Optional[Entry]) -> None:
        """Make the next text in the conversation in view a reply to an entry, or (None) to none."""
        self.current.reply_to = entry
        self.change(HEADER)

    def set_focus(self, has_focus: bool) -> None:
        """Set if the user looks at the window; what is in view is read then."""
        self._has_focus = has_focus
        if has_focus:
            self._clear_unread(self.current)
        elif not self.current.unread:
            self.unmark(self.current)

    def mark_seen(self, is_in_view: Callable[[Entry], bool]) -> None:
        """Count a private conversation as read once its news have stayed in view in a channel."""
        for private in (c for c in self.conversations if c.unread and c.kind == PRIVATE):
            news = [e for e in private.entries[-RECENT:] if not e.is_own][-private.unread :]
            is_seen = self._has_focus and bool(news) and all(map(is_in_view, news))
            private.seen_since = (private.seen_since or self.now) if is_seen else 0.0
            if is_seen and self.now >= private.seen_since + SEEN_TIME:
                self.unmark(private)
                self._clear_unread(private)

    def set_level(self, conversation: Conversation, level: str) -> None:
        """Set which alerts the user wants."""
        conversation.level = self._levels[self._level_key(conversation.name)] = level
        self.outcome.settings_changed = True
        self.change(SIDEBAR)

    def toggle_joins(self, conversation: Conversation) -> None:
        """Hide joins and leaves in a channel, or show them."""
        conversation.hides_joins = not conversation.hides_joins
        shown = NONE if conversation.hides_joins else ALL
        self._levels[self._level_key(conversation.name) + _JOINS] = shown
        self.outcome.settings_changed = True
        self.change(RELOADED, conversation, conversation.entries)

    # Events

    def _on_connected(self, event: Connected) -> None:
        session = Session(event, is_reconnect=self.session.number > 0)
        self.is_away = self.is_away and event.is_resumed
        if not event.is_resumed:
            self.muted.pop(protocol.casefold(event.nickname), None)  # else the server says so again
        self.session, self.outcome.session = session, session.number
        self.state, self.nickname = CONNECTED, event.nickname
        if session.is_reconnect:
            self._back_at = self.now
            self.inform("Connected again.")
        self.change(STATUS)

    def _on_lost(self, event: Lost) -> None:
        if self.state == CONNECTED:
            self._lose()
            self._has_host = event.reason != protocol.CHAT_ENDED
            self.inform("%s. Messages you send now wait here." % event.reason.rstrip("."))
        self.state = RECONNECTING
        words, looking = "Connection lost", "Trying"
        if event.is_rejected:
            words = event.reason.rstrip(".")
        elif not self._has_host:
            words, looking = protocol.CHAT_ENDED, "Looking for it"
        self._banner, self._attempt = "%s. %s again" % (words, looking), event.attempt
        self._retry_at = self.now + event.seconds
        self.change(STATUS)

    def _on_disconnected(self, event: Disconnected) -> None:
        was_connected = self.state in (CONNECTED, RECONNECTING)
        if self.state == CONNECTED:
            self._lose()
        if event.fault in (REJECTED, TRUST):
            self.outbox.hold()
        self.state, self._banner = DISCONNECTED, event.reason if was_connected else ""
        if self._banner:
            self.inform(event.reason)
        self.change(STATUS)

    def _lose(self) -> None:
        for item in self.outbox.having(IN_FLIGHT):
            self.outbox.set_delivery(item, UNCERTAIN)
        self._give_back(list(self.pastes))
        for request in self.history.requests:
            _end_search(self, request.lookup, _LOADED % "the connection was lost")
            _mark_gap(self, request)
        self.history = History()
        _doubt_all(self)
        self.left = dict.fromkeys(self.left, True)
        self.correspondent = ""  # the name may change hands
        self.session.is_settled, self.listing = False, Listing(*self.listing.params)
        self.change(LISTING)
        for conversation in self.conversations:
            if conversation.members:
                self.change(MEMBERS, conversation)
            conversation.detach(OUTSIDE if conversation.is_outside else REJOINING)
        self.change(SIDEBAR)

    def _on_message(self, message: Message) -> None:
        request = self.history.answering(message.tag("batch"))
        if request is not None and message.command != "BATCH":
            if len(request.messages) < MAX_BATCH:
                request.messages.append(message)
            return
        if "time" in message.tags and not self.is_catching_up:
            msgid, when = message.tag("msgid") or self.complete_until.msgid, self.time_of(message)
            self.session.began = self.session.began or when
            self.complete_until = Place(msgid, when)
            self._is_late, self._latest = when < self._latest, max(when, self._latest)
        if message.command in _IGNORABLE and self.is_ignored(message.nickname):
            return
        self._note_refusal(message)
        self._note_mute(message)
        is_row = message.command in ("322", "367") or message.params[:1] == ("BANS",)
        listing = self.listing
        if listing.word and not listing.is_done and is_row and len(message.params) > 2:
            listing.rows += [message] if len(listing.rows) < MAX_LISTED else []
            return
        if message.command in _WHOIS and protocol.casefold(message.param(1)) in self.asked:
            _on_whois(self, message)
            return
        least, handler = SERVER_COMMANDS.get(message.command, (0, None))
        if handler is None:
            self.show(message, self.current)
        elif len(message.params) >= least:
            handler(self, message)

    def _note_refusal(self, message: Message) -> None:
        """Mark the user's message that an error refers to as REFUSED."""
        command = message.command
        is_error = command == "FAIL" or "400" <= command <= "599"
        item = self.outbox.labeled(message.tag("label")) if is_error else None
        if item is None and command in _UNDELIVERED and len(message.params) > 1:
            item = self.outbox.matching(IN_FLIGHT, message.params[1])
        if item is not None:
            self.outbox.set_delivery(item, REFUSED)
        elif is_error and message.param(0) not in ("CHATHISTORY", "SEARCH"):
            self._give_back(list(self.pastes)[:1])

    def _note_mute(self, message: Message) -> None:
        """Keep who is muted, as the server tells its operators, and those who are; list again."""
        kind, target, seconds = message.params[:2], message.param(2), message.param(3)
        mutes = ("MUTE", "DONE"), ("MUTE", "MUTED"), ("BANS", "MUTE")  # MUTED: the user is
        is_mute = kind in mutes and seconds.isdecimal()
        if message.command == "NOTE" and is_mute and len(self.muted) < MAX_LISTED:
            self.muted[protocol.casefold(target)] = self.now + (int(seconds[:12]) or math.inf)
        elif message.command in ("NOTE", "FAIL") and kind[:1] == ("UNBAN",):
            self.muted.pop(protocol.casefold(target), None)
        elif message.command != "NOTE" or kind != ("BAN", "DONE"):
            return
        self.change(MEMBERS)
        listing = self.listing  # an answer that has not begun will know of this change
        if (kind[1:], listing.params) == (("DONE",), _BANS) and (listing.rows or not listing.word):
            self.request(*_BANS)

    def _give_back(self, words: Iterable[str]) -> None:
        """Return the lines of these pastes to the user."""
        rests = [_address_rest(self, *self.pastes.pop(word)) for word in words]
        self.outcome.rest = "\n".join(rests)

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

    def new_entry(self, line: Line, msgid: str = "", is_own: bool = False) -> Entry:
        """Return an entry that is not in a conversation yet."""
        is_own = is_own or (bool(line.nickname) and self.is_me(line.nickname))
        entry = Entry(next(self._numbers), line, msgid, is_own)
        is_others = line.kind == FROM_OTHERS and not is_own
        entry.is_mention = is_others and _names(self.nickname, line.text)
        return entry

    def add(self, entry: Entry, conversation: Conversation) -> None:
        """Put an entry at the end of a conversation."""
        self.outcome.changes += conversation.append(entry)
        if entry.event and entry.count == 1:
            self._fold(conversation)
        self.outcome.changes += conversation.trim()

    def _fold(self, conversation: Conversation) -> None:
        """Fold the joins (or leaves) at the end into a single entry, if they are a crowd."""
        newest_first = itertools.groupby(reversed(conversation.entries), lambda e: (e.event, e.day))
        (event, _), run = next((key, list(entries)) for key, entries in newest_first)
        count = sum(entry.count for entry in run)
        if count >= CROWD:
            text = "%d people %s" % (count, event)
            crowd = self.new_entry(run[-1].line._replace(text=text))
            crowd.event, crowd.count = event, count
            self.outcome.changes += conversation.remove(run)
            self.add(crowd, conversation)

    def show(self, message: Message, *conversations: Conversation) -> None:
        """Show a message, once in each of these conversations."""
        line = self.describe(message)
        if line is not None:
            entry = self.new_entry(line, message.tag("msgid"))
            is_removed = message.text.startswith((protocol.KILLED, protocol.BANNED))
            if not (is_removed or self.is_me(message.nickname)):
                entry.event = _PRESENCE.get(message.command, "")
            is_numeric = message.command.isdigit() and message.command not in ("331", "332")
            is_answer = is_numeric or message.command in ("FAIL", "NOTE", "REGISTER")
            is_answer |= message.command == "INVITE" and self.is_me(message.param(0))
            if is_answer and self.session.is_settled:  # unlike the topic
                entry.answer = message.command
            for conversation in conversations:
                last = conversation.entries[-1] if conversation.entries else None
                is_repeated = entry.follows(last) and last is not None and entry.text == last.text
                if not (conversation.knows(entry.msgid) or is_repeated):
                    self.add(entry, conversation)

    def inform(self, text: str, conversation: Optional[Conversation] = None) -> None:
        """Show a line of the client's own."""
        line = Line(FROM_SYSTEM, self.now, "[SYSTEM]:", text)
        self.add(self.new_entry(line), conversation or self.current)

    def count_unread(
        self, conversation: Conversation, entries: List[Entry], is_missed: bool = False
    ) -> None:
        """Count new messages of others, mark the first of them, and raise an alert."""
        is_seen = self._has_focus and conversation is self.current
        if not entries or (is_seen and not is_missed):
            return
        conversation.mark = conversation.mark or entries[0]
        conversation.new_count += len(entries)
        self.change(CHANGED, conversation, [conversation.mark])
        if is_seen:
            return
        for_user = [e for e in entries if e.is_mention or e.line.kind == PRIVATE]
        conversation.unread += len(entries)
        conversation.mentions += len(for_user)
        self.change(SIDEBAR)
        wanted = {ALL: entries, MENTIONS: for_user, NONE: []}[conversation.level]
        is_aside = entries[-1] in self.current.entries[-1:] and not self._is_late
        if wanted and not (self._has_focus and is_aside):
            self.change(ALERT, conversation, wanted)

    def unmark(self, conversation: Conversation) -> None:
        """Remove the "new messages" mark."""
        mark = conversation.mark
        if mark is not None:
            conversation.mark, conversation.new_count = None, 0
            self.change(CHANGED, conversation, [mark])

    def _clear_unread(self, conversation: Conversation) -> None:
        """Count a conversation as read."""
        if conversation.unread:
            conversation.unread = conversation.mentions = 0
            self.change(SIDEBAR)

    # For the functions below: conversations

    @property
    def channel(self) -> Optional[Conversation]:
        """The channel in view, or else the first channel."""
        channels = [c for c in self.conversations if c.kind == CHANNEL]
        return self.current if self.current in channels else next(iter(channels), None)

    def is_me(self, nickname: str) -> bool:
        """Return True if this is our nickname."""
        return protocol.casefold(nickname) == protocol.casefold(self.nickname)

    def is_ignored(self, nickname: str) -> bool:
        """Return True if the user ignores this nickname."""
        folded = protocol.casefold(nickname)
        is_listed = any(protocol.casefold(name) == folded for name in self.ignored)
        return is_listed and not self.is_me(nickname)

    def create(self, name: str, kind: str, limit: int = 0) -> Optional[Conversation]:
        """Return a new conversation, unless there are too many; channels stand first."""
        channels = sum(c.kind == CHANNEL for c in self.conversations)
        count = channels if kind == CHANNEL else len(self.conversations) - channels
        if count >= (limit or MAX_CONVERSATIONS) or not protocol.is_middle(name):
            return None
        new = Conversation(name, kind)
        new.level = self._levels.get(self._level_key(name), MENTIONS)
        new.hides_joins = self._levels.get(self._level_key(name) + _JOINS) == NONE
        new.is_complete = kind == CHANNEL or not self.is_catching_up
        self.conversations.insert(channels if kind == CHANNEL else len(self.conversations), new)
        self.change(SIDEBAR)
        return new

    def private(self, nickname: str, limit: int = 0) -> Conversation:
        """Return the conversation with a user; if there are too many, that in view."""
        known = self.conversation_named(nickname)
        return known or self.create(nickname, PRIVATE, limit) or self.current

    def remove(self, conversation: Conversation) -> None:
        """Remove a conversation; if it was in view, that above it follows."""
        index = self.conversations.index(conversation)
        self.conversations.remove(conversation)
        _lose_sight(self, conversation.members)
        requests = self.history.requests
        requests[:] = [r for r in requests if r.batch or r.conversation is not conversation]
        if conversation.kind == CHANNEL:
            self.outbox.forget(conversation.folded)
        self.resolve(conversation.folded, False)
        if not self.conversations:
            self.conversations.append(self.console)
        if conversation is self.current:
            self.select(self.conversations[max(0, index - 1)])
        self.change(SIDEBAR)

    def _level_key(self, name: str) -> str:
        return "%s/%s" % (self.address, protocol.casefold(name))

    def shared_with(self, nickname: str) -> List[Conversation]:
        """Return the channels that a user is in, and the private conversation with the user."""
        folded = protocol.casefold(nickname)
        return [c for c in self.conversations if folded in c.members or c.folded == folded]

    # For the functions below: own messages

    def say(self, message: Message) -> None:
        """Show an own message, and send it as soon as it can be."""
        line = self.describe(message._replace(source=self.nickname + "!"))
        if line is None:
            return
        entry = self.new_entry(line)
        entry.reply_to = message.tag(REPLY_TAG)
        item = self.outbox.add(entry, message)
        self.flush()
        recipient = self.conversation_named(message.params[0])
        for conversation in dict.fromkeys([self.current, recipient]):
            if conversation is not None:
                item.conversations.append(conversation)
                self.add(entry, conversation)
                self.unmark(conversation)
                self._clear_unread(conversation)

    def flush(self) -> None:
        """Send what waits and can be sent. Without echoes, a PONG will confirm it."""
        caps = self.session.caps
        for item in self.outbox.having(QUEUED) if self.session.is_settled else ():
            _ask_who(self, item)
        messages = self.outbox.take(self._can_send, self.nickname, caps, self.complete_until)
        self.outcome.send += messages
        if messages and "echo-message" not in caps:
            self.send(Message("PING", ("sent-%d" % self.outbox.last_number,)))

    def _can_send(self, folded: str) -> bool:
        conversation = self.conversation_named(folded)
        is_waiting = conversation is not None and conversation.membership in (REJOINING, OUTSIDE)
        is_waiting |= folded in self.unsure or folded in self.asked
        return self.session.is_settled and not is_waiting

    def confirm(self, item: Outgoing, line: Line, msgid: str, target: str) -> None:
        """Show that the server has a message, where the server puts it."""
        self.outbox.deliver(item, line, msgid)
        for conversation in item.conversations:
            self.outcome.changes += conversation.confirm(item.entry)
        if not target.startswith(CHANNEL_SIGN):
            conversation = self.private(target)
            if conversation not in item.conversations:
                self.add(item.entry, conversation)

    def resolve(self, folded: str, is_complete: bool) -> None:
        """Decide on uncertain messages to a target, once its history has been read."""
        self.outbox.resolve(folded, is_complete, self.nickname)
        self.flush()

    @property
    def is_catching_up(self) -> bool:
        """True from a reconnect until all that was missed has been read."""
        is_asking = any(r.purpose in (TARGETS, MISSED) for r in self.history.requests)
        return self.session.is_reconnect and (is_asking or not self.session.is_settled)


# History
# -------

_HISTORY_BATCHES = ("chathistory", "draft/chathistory-targets", SEARCH_CAP)

# Request.purpose
LATEST = "latest"  # the latest page of a new conversation
OLDER = "older"  # the page before all that is known
MISSED = "missed"  # while the connection was lost
TARGETS = "targets"  # the users who have sent private messages meanwhile
TYPED = "typed"  # the answer to /history
UNASKED = "unasked"  # a page that comes unasked, or too late
AROUND = "around"  # a page around a result of a search
BETWEEN = "between"  # the pages from there to what is loaded
SEARCHED = "searched"  # the results of a search
_ABOVE = (OLDER, AROUND, BETWEEN)  # the purposes of pages above what is loaded


class Request:
    """A CHATHISTORY or SEARCH command, and the messages of its answer so far."""

    def __init__(
        self, purpose: str, conversation: Optional[Conversation], limit: int, deadline: float
    ) -> None:
        self.purpose = purpose
        self.conversation = conversation  # None for TARGETS
        self.folded = conversation.folded if conversation is not None else ""  # at this time
        self.limit = limit  # messages of a page
        self.before: Optional[Entry] = None  # the entry that a page of _ABOVE precedes
        self.lookup: Optional[Lookup] = None  # that is SEARCHED
        self.deadline = deadline  # for the whole answer
        self.batch = ""  # the reference of its answer, once that has begun
        self.messages: List[Message] = []
        self.missed = 0  # messages, in all pages of MISSED so far
        self.is_gapless = False  # the pages of MISSED include the anchor: nothing is missing

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
        pages = (r for r in self.requests if r.purpose not in (TYPED, UNASKED))
        return any(request.conversation is conversation for request in pages)

    def waiting(self, target: str) -> Optional[Request]:
        """Return the first request for a target, which may have been renamed since."""
        folded = protocol.casefold(target)
        for request in self.requests:
            names = [request.folded]
            if request.conversation is not None:
                names.append(request.conversation.folded)
            if not request.batch and folded in names:
                return request
        return None

    def answering(self, batch: str) -> Optional[Request]:
        """Return the request that an open batch answers."""
        return next((r for r in self.requests if batch and r.batch == batch), None)


def _ask(
    chat: Chat, purpose: str, conversation: Optional[Conversation], *query: str, limit: int = 0
) -> Request:
    """Ask the server's history, for a page of a conversation or (None) for TARGETS.

    `query` is a subcommand of CHATHISTORY and its bounds.
    """
    limit = limit or chat.session.page(MISSED_PAGE if purpose in (MISSED, BETWEEN) else PAGE)
    request = Request(purpose, conversation, limit, chat.now + HISTORY_TIME)
    chat.history.requests.append(request)
    target = () if conversation is None else (conversation.name,)
    chat.send(Message("CHATHISTORY", (query[0], *target, *query[1:], str(limit))))
    return request


def _catch_up(chat: Chat, conversation: Conversation) -> None:
    """Ask for what was missed in a conversation, or for the latest page if it is new to us."""
    if HISTORY_CAP not in chat.session.caps:
        chat.resolve(conversation.folded, False)
    elif chat.history.is_fetching(conversation):
        return
    elif conversation.is_complete:
        if conversation.has_older and conversation.first_stored(conversation.entries) is None:
            _ask(chat, LATEST, conversation, "LATEST", "*")
    elif conversation.anchor is None:
        _ask(chat, MISSED, conversation, "LATEST", "*")
    else:  # the answer begins with the anchor: proof that the history reaches back to it
        _ask(chat, MISSED, conversation, "AFTER", _just_before(chat, conversation.anchor.place))


def _just_before(chat: Chat, place: Place) -> str:
    """Return a bound for CHATHISTORY; Hubbub's numbers only grow, unlike its clock."""
    is_number = place.msgid.isdecimal() and len(place.msgid) < 19
    if is_number and RESUME_CAP in chat.session.caps:
        return "msgid=%d" % (int(place.msgid) - 1)
    return "timestamp=" + protocol.format_time(max(0.0, place.when - 0.001))


def _catch_up_with(chat: Chat, nickname: str) -> None:
    """Catch up with a private conversation, which may be new."""
    conversation = chat.conversation_named(nickname) or chat.create(nickname, PRIVATE)
    if conversation is not None:
        _catch_up(chat, conversation)
    else:  # there are too many
        chat.resolve(protocol.casefold(nickname), False)


def _give_up(chat: Chat, request: Request) -> None:
    """Stop waiting for an answer that is overdue: it proves nothing."""
    is_page = request.purpose not in (TYPED, TARGETS, SEARCHED)
    _mark_gap(chat, request)
    if request.batch:  # the rest of it may still come
        request.purpose, request.deadline = UNASKED, math.inf
    else:
        chat.history.requests.remove(request)
    _end_search(chat, request.lookup, _LOADED % "the server could not search")
    if is_page and request.conversation is not None:
        chat.resolve(request.conversation.folded, False)
        _try_reveal(chat, request.conversation, can_ask=False)


def _on_batch(chat: Chat, message: Message) -> None:
    """BATCH: an answer to CHATHISTORY or SEARCH begins, or is complete."""
    sign, reference, kind = message.params[0][:1], message.params[0][1:], message.param(1)
    request = chat.history.answering(reference)
    if sign == "+" and reference and kind in _HISTORY_BATCHES and request is None:
        is_list = kind == "draft/chathistory-targets"
        request = chat.history.waiting("" if is_list else message.text)
        unasked = sum(request.purpose == UNASKED for request in chat.history.requests)
        if request is None and unasked < MAX_UNASKED:
            request = Request(UNASKED, chat.conversation_named(message.text), PAGE, math.inf)
            chat.history.requests.append(request)
        if request is not None:
            request.batch = reference
    if sign == "-" and request is not None:
        chat.history.requests.remove(request)
        if request.purpose == TARGETS:
            _take_targets(chat, request)
        elif request.purpose == SEARCHED:
            _take_results(chat, request)
        elif request.conversation in chat.conversations:
            _take_page(chat, request, request.conversation)
            can_ask = request.purpose not in (AROUND, BETWEEN)
            _try_reveal(chat, request.conversation, can_ask)


def _take_targets(chat: Chat, request: Request) -> None:
    """Catch up with all private conversations in which something was missed."""
    for name in (message.param(1) for message in request.messages):
        if not name.startswith(CHANNEL_SIGN) and not chat.is_ignored(name):
            _catch_up_with(chat, name)
    for conversation in chat.conversations:
        if conversation.kind == PRIVATE and not chat.history.is_fetching(conversation):
            conversation.is_complete = True


def _take_page(chat: Chat, request: Request, conversation: Conversation) -> None:
    """Put a page of history into its conversation."""
    purpose, anchor = request.purpose, conversation.anchor
    if request.before is not None and conversation.index(request.before) < 0:
        return  # it was trimmed meanwhile, so there would be a gap
    found = (_earlier_entry(chat, message, conversation) for message in request.messages)
    page = [entry for entry in found if entry is not None]
    changes = conversation.merge(page, request.before)
    new = [entry for change in changes for entry in change.entries]
    if purpose == TYPED or (new and purpose not in _ABOVE):
        chat.change(RECALLED, conversation, page if purpose == TYPED else new)
    chat.outcome.changes += changes
    quoted = {entry.msgid for entry in new if entry.msgid}
    replies = [entry for entry in conversation.entries if entry.reply_to in quoted]
    if replies:
        chat.change(CHANGED, conversation, replies)
    if purpose == LATEST and conversation.kind == PRIVATE:
        _doubt(chat, conversation, page)
    if purpose in (LATEST, OLDER) or (purpose == MISSED and anchor is None):
        conversation.has_older = request.is_full
    if purpose == MISSED:
        _take_missed(chat, request, conversation, new)
    elif purpose == LATEST:
        chat.resolve(conversation.folded, False)
    elif purpose in (AROUND, BETWEEN) and request.before is not None:
        _close_gap(chat, request, conversation, request.before)
    is_past = purpose in (LATEST, OLDER) and request.is_full
    oldest = request.messages[0].tag("msgid") if is_past else ""
    if oldest and not page:  # all from users that are ignored
        following = _ask(chat, OLDER, conversation, "BEFORE", "msgid=" + oldest)
        following.before = request.before
    if purpose not in _ABOVE:
        chat.outcome.changes += conversation.trim()


def _take_missed(
    chat: Chat, request: Request, conversation: Conversation, new: List[Entry]
) -> None:
    """Count what was missed, ask for its next page, or decide on uncertain messages."""
    news = [e for e in new if e.line.kind in (FROM_OTHERS, PRIVATE) and not e.is_own]
    if conversation.anchor is None:  # the page may reach back to before the connection was lost
        news = [e for e in news if chat.complete_until.precedes(e.place)]
    request.missed += len(news)
    chat.count_unread(conversation, news, is_missed=True)
    msgids = [message.tag("msgid") for message in request.messages]
    if conversation.anchor is None:  # a channel's history from its first message on is complete
        request.is_gapless = conversation.kind == CHANNEL and not request.is_full
    elif conversation.anchor.msgid in msgids:
        request.is_gapless = True
    if conversation.anchor is not None and request.is_full and msgids[-1]:
        following = _ask(chat, MISSED, conversation, "AFTER", "msgid=" + msgids[-1])
        following.missed, following.is_gapless = request.missed, request.is_gapless
        return
    conversation.is_complete = True
    if request.missed:
        count = protocol.counted(request.missed, "message")
        chat.inform("Welcome back. You missed %s." % count, conversation)
    is_sure = request.is_gapless and conversation.kind == CHANNEL  # a nickname changes hands
    chat.resolve(conversation.folded, is_sure or chat.session.is_resumed)


def _earlier_entry(chat: Chat, message: Message, conversation: Conversation) -> Optional[Entry]:
    """Return the entry for a message in the history, which may be an own uncertain message."""
    msgid, item = message.tag("msgid"), None
    if message.command == "PRIVMSG" and message.params:
        item = chat.outbox.matching(UNCERTAIN, *message.params[:2], sender=message.nickname)
    is_known = any(c.knows(msgid) for c in chat.conversations)
    place = Place(msgid, chat.time_of(message))
    if item is not None and (is_known or not item.since.precedes(place)):
        item = None  # it is a different message with the same text
    entry = _read_entry(chat, message, conversation, is_own=item is not None)
    if entry is None or item is None:
        return entry
    for other in item.conversations:  # it had arrived
        if other is not conversation:
            chat.change(CHANGED, other, [item.entry])
    chat.outcome.changes += conversation.remove([item.entry])
    chat.outbox.deliver(item, entry.line, msgid)
    return item.entry


def _read_entry(
    chat: Chat, message: Message, conversation: Conversation, is_own: bool = False
) -> Optional[Entry]:
    """Return a new entry for a message that the server has kept, unless it is not shown."""
    # In a private conversation, what the other user has received is our own, under any nickname.
    is_private = conversation.kind == PRIVATE and not chat.is_me(conversation.name)
    is_to_other = is_private and protocol.casefold(message.param(0)) == conversation.folded
    is_own = is_own or is_to_other
    line = chat.describe(message, message.nickname if is_own else "")
    if line is None or chat.is_ignored(message.nickname):
        return None
    entry = chat.new_entry(line, message.tag("msgid"), is_own)
    entry.reply_to = message.tag(REPLY_TAG)
    return entry


# Search
# ------

_LOADED = "found in what is loaded here (%s)"  # and why not in more
_KEPT = "found in everything the server keeps"
_CUT = "found, but the server had no time to search older messages"

Hit = Tuple[Entry, Span]  # what a search has found: a part of the text of an entry
_fold = functools.lru_cache(maxsize=10000)(protocol.fold_text)  # of a character


def _folded_pattern(words: str) -> Pattern[str]:
    return re.compile(re.escape("".join(map(_fold, words))))


def _find_folded(text: str, pattern: Pattern[str]) -> List[Span]:
    if len(text.encode("utf-8", "surrogatepass")) == len(text):  # ASCII, as most is
        return [match.span() for match in pattern.finditer(text.lower())]
    parts = list(map(_fold, text))
    spans = [match.span() for match in pattern.finditer("".join(parts))]
    if spans:  # a character may have become none, or several
        indices = [index for index, part in enumerate(parts) for _ in part] + [len(text)]
        spans = [(indices[s], max(indices[e - 1] + 1, indices[e])) for s, e in spans]
    return spans


class Result(NamedTuple):
    """A message that a search in all conversations has found."""

    conversation: Conversation  # it may be new
    entry: Entry
    spans: Tuple[Span, ...]  # where the words are in the text of its line


class Lookup:
    """A search in all conversations."""

    def __init__(self, words: str = "") -> None:
        self.words = words
        self.results: List[Result] = []  # the newest first
        self.note = "Searching everything the server keeps…"  # then: what was found, and where
        self.is_done = not words
        self.revealing: Optional[Result] = None  # the chosen result, until its message is in view

    def add(self, found: Iterable[Tuple[Conversation, Entry]]) -> None:
        """Merge messages into the results; those that are there already stay."""
        pattern = _folded_pattern(self.words)
        new = [Result(*pair, tuple(_find_folded(pair[1].line.text, pattern))) for pair in found]
        known = {result.entry.msgid or result.entry: result for result in [*new, *self.results]}
        newest_first = sorted(known.values(), key=_age, reverse=True)
        self.results = newest_first[:MAX_RESULTS]


def _age(result: Result) -> Tuple[float, int, str]:
    entry = result.entry
    return entry.line.when, len(entry.msgid), entry.msgid


def _search(chat: Chat, lookup: Lookup) -> None:
    """Search what is loaded, and ask the server to search what it keeps, if it can."""
    letters = "".join(map(_fold, lookup.words))  # without accents
    if len(letters.encode("utf-8")) < 2:  # a letter of Chinese, which is longer, is a word
        lookup.note, lookup.is_done = "Write at least two letters", True
        return chat.change(RESULTS)
    lookup.add(_find_loaded(chat, lookup.words))
    if SEARCH_CAP not in chat.session.caps or not chat.session.is_settled:
        is_able = SEARCH_CAP in chat.session.caps or not chat.session.is_settled
        why = "you are not connected" if is_able else "this server cannot search"
        return _end_search(chat, lookup, _LOADED % why)
    request = Request(SEARCHED, None, MAX_RESULTS, chat.now + HISTORY_TIME)
    request.lookup, request.folded = lookup, SEARCH_CAP  # by which its answer is known
    chat.history.requests.append(request)
    query = {"limit": str(MAX_RESULTS), "text": lookup.words[:200]}
    text = protocol.serialize_tags(query).decode("utf-8")[1:-1]
    return chat.send(protocol.fit(Message("SEARCH", (text,))))


def _find_loaded(chat: Chat, words: str) -> Iterator[Tuple[Conversation, Entry]]:
    """Yield the newest messages with `words` of each conversation."""
    pattern, kinds = _folded_pattern(words), (FROM_ME, FROM_OTHERS, PRIVATE)
    for conversation in chat.conversations:
        most = MAX_SEARCHED // len(chat.conversations)
        newest = itertools.islice(reversed(conversation.entries), most)
        messages = (e for e in newest if e.line.kind in kinds and conversation.kind != CONSOLE)
        found = (e for e in messages if _find_folded(e.line.text, pattern))
        wanted = (e for e in found if not chat.is_ignored(e.line.nickname))
        yield from ((conversation, entry) for entry in itertools.islice(wanted, MAX_RESULTS))


def _take_results(chat: Chat, request: Request) -> None:
    """Merge what the server has found into the results."""
    found = []
    notes = [message for message in request.messages if message.command == "NOTE"]
    for message in request.messages:
        target, sender = message.param(0), message.nickname
        is_channel = target.startswith(CHANNEL_SIGN)
        is_known = chat.conversation_named(target) is not None
        # Of a private message, one of the two is the user, maybe under another nickname.
        is_to_other = chat.is_me(sender) or (is_known and not chat.is_me(target))
        name = target if is_channel or is_to_other else sender
        new = Conversation(name, CHANNEL if is_channel else PRIVATE)
        conversation = chat.conversation_named(name) or new
        entry = _read_entry(chat, message, conversation)
        if entry is not None and entry.line.kind != FROM_SERVER:
            found.append((conversation, entry))
    if request.lookup is not None:
        request.lookup.add(found)
    _end_search(chat, request.lookup, _CUT if notes else _KEPT)


def _end_search(chat: Chat, lookup: Optional[Lookup], scope: str) -> None:
    """Say that a search is done, unless another has followed it."""
    if lookup is chat.lookup:
        number = len(lookup.results)
        count = {0: "Nothing", MAX_RESULTS: "The newest %d messages" % number}
        words = count.get(number, protocol.counted(number, "message"))
        lookup.note = "%s %s" % (words, scope)
        lookup.is_done = True
        chat.change(RESULTS)


def _try_reveal(chat: Chat, conversation: Conversation, can_ask: bool = True) -> None:
    """Bring the result that was chosen into view, or ask for the history around it."""
    chosen = chat.lookup.revealing
    if chosen is None or conversation is not chat.current:
        return
    entry, place = conversation.counterpart(chosen.entry), chosen.entry.place
    later = (e for e in conversation.entries if place.precedes(e.place))
    below = conversation.first_stored(later)
    is_waiting = chat.history.is_fetching(conversation) or conversation.membership == JOINING
    if entry is None and can_ask and is_waiting:
        return  # what comes may have it
    can_ask = can_ask and chat.session.is_settled and HISTORY_CAP in chat.session.caps
    if entry is None and can_ask and below is not None and place.msgid:
        request = _ask(chat, AROUND, conversation, "AROUND", "msgid=" + place.msgid)
        request.before = below
        return
    chat.lookup.revealing = None
    if entry is None:
        chat.inform(
            "The message of %s cannot be loaded now." % chosen.entry.line.clock, conversation
        )
    else:
        chat.change(REVEALED, conversation, [entry])


def _close_gap(chat: Chat, request: Request, conversation: Conversation, below: Entry) -> None:
    """Ask for what stands between a page and what is loaded below it, unless it is too much."""
    last = request.messages[-1].tag("msgid") if request.messages else ""
    is_closed = any(message.tag("msgid") == below.msgid for message in request.messages)
    if not last or is_closed or (request.purpose == BETWEEN and not request.is_full):
        return
    if len(conversation.entries) < MAX_ENTRIES:
        ends = "msgid=" + last, "msgid=" + below.msgid
        request = _ask(chat, BETWEEN, conversation, "BETWEEN", *ends)
        request.before = below
    else:
        request.purpose = BETWEEN
        _mark_gap(chat, request)


def _mark_gap(chat: Chat, request: Request) -> None:
    """Say where messages are missing, if a page of BETWEEN does not come."""
    conversation, below = request.conversation, request.before
    index = conversation.index(below) if conversation is not None and below is not None else 0
    if request.purpose == BETWEEN and conversation is not None and index > 0:
        when = conversation.entries[index - 1].line.when
        line = Line(FROM_SYSTEM, when, "[SYSTEM]:", "Messages are missing here.")
        chat.outcome.changes += conversation.insert(index, [chat.new_entry(line)])


# Names that change hands
# -----------------------

# A nickname that is not registered may be another user's after its user has left, or while we were
# not there. Who has it is then asked by WHOIS, before a private message is sent to it: Hubbub's
# server tells since when; others tell only of the connection. Unless it is the same user, ours
# decides.

GONE = ""  # Chat.former: without another nickname, or in doubt before
_WHOIS_END = "who"  # the word of the PONG after the answer
_STRANGER = "%s may be someone else than before."
_WHOIS = frozenset("301 311 312 313 317 318 319 330 338 378 379 401 671".split())


class Doubt(NamedTuple):
    """Why a nickname may no longer be that of the user who is meant."""

    since: float  # until then it was not, in seconds since 1970 by the server's clock
    is_replaced: bool = False  # another user may have been seen to take it


def _give_up_name(chat: Chat, folded: str, state: str) -> None:
    """Keep what has become of the user who had a name, and names before it; forget the oldest."""
    chat.former.pop(folded, None)
    for earlier, (present, when) in chat.former.items():
        chat.former[earlier] = (state if present == folded else present), when
    chat.former[folded] = state, chat.complete_until.when
    if len(chat.former) > MAX_LISTED:
        del chat.former[next(iter(chat.former))]


def _suspect(chat: Chat, folded: str, since: float, is_replaced: bool = False) -> None:
    """Note that another user may have taken a name; forget the oldest."""
    chat.unsure.pop(folded, None)
    chat.unsure[folded] = Doubt(since, is_replaced)
    if folded in chat.asked:
        chat.asked[folded] = False  # what is known of the name is older
    if len(chat.unsure) > MAX_MEMBERS:
        del chat.unsure[next(iter(chat.unsure))]


def _lose_sight(chat: Chat, names: Iterable[str]) -> None:
    """Doubt those of these users who share no channel with us any more: they may leave unseen.

    Not on other servers: there WHOIS would not tell that a user is the same.
    """
    unseen = (name for name in names if chat.presence(name) == OFFLINE and not chat.is_me(name))
    for folded in unseen if RESUME_CAP in chat.session.caps else ():
        if folded not in chat.unsure:
            _suspect(chat, folded, chat.complete_until.when)


def _note_return(chat: Chat, nickname: str, account: str) -> None:
    """Tell in a private conversation that its user is here again, or who has the name now."""
    folded, conversation = protocol.casefold(nickname), chat.conversation_named(nickname)
    if folded not in chat.former:
        return
    words = "%s is here again." % nickname
    is_unregistered = protocol.casefold(account) != folded
    _suspect(chat, folded, chat.former.pop(folded)[1], is_unregistered)
    if is_unregistered:
        words += " The name is not registered, so it" if account else " It"
        words += " may be someone else."
    if conversation is not None:
        chat.inform(words, conversation)


def _doubt(chat: Chat, conversation: Conversation, page: Iterable[Entry]) -> None:
    """Doubt that a correspondent is still who is in messages from before this session."""
    times = [entry.line.when for entry in page if entry.line.nickname]
    known = chat.unsure.get(conversation.folded, Doubt(0.0))
    if times and not known.is_replaced and not chat.is_me(conversation.name):
        chat.unsure[conversation.folded] = Doubt(max(known.since, *times))


def _doubt_all(chat: Chat) -> None:
    """Doubt, when the connection is lost, that any user will be the same when it is back."""
    names = {folded for c in chat.conversations for folded in c.members}
    names |= {c.folded for c in chat.conversations if c.kind == PRIVATE}
    names |= {*chat.former, *itertools.islice(chat.unsure, MAX_MEMBERS - MAX_LISTED)}
    names |= {i.folded for i in chat.outbox.items if not i.folded.startswith(CHANNEL_SIGN)}
    new, unsure = Doubt(chat.complete_until.when), chat.unsure
    chat.unsure = {name: unsure.get(name, new) for name in names if not chat.is_me(name)}
    chat.asked.clear()


def _ask_who(chat: Chat, item: Outgoing) -> None:
    """Ask once who has the nickname to which a message is addressed, if that is in doubt."""
    if item.folded in chat.unsure and item.folded not in chat.asked:
        chat.asked[item.folded] = False
        chat.send(Message("WHOIS", item.message.params[:1]))
        chat.send(Message("PING", (_WHOIS_END,)))  # not all servers answer with 318


def _on_whois(chat: Chat, message: Message) -> None:
    """Read a line of the answer to that."""
    folded, value = protocol.casefold(message.params[1]), message.param(2)
    since, is_ours = message.param(3)[:12], RESUME_CAP in chat.session.caps
    if message.command == "330" and protocol.casefold(value) == folded and not is_ours:
        chat.asked[folded] = True  # it is registered
    elif message.command == "317" and since.isdecimal() and is_ours:
        chat.asked[folded] |= int(since) < int(chat.unsure.get(folded, Doubt(0.0)).since)
    elif message.command == "401":  # the server refuses, or keeps, what is sent to it
        chat.asked[folded] = True
        _give_up_name(chat, folded, GONE)


def _end_whois(chat: Chat, folded: str) -> None:
    """Send what waits for a user, of whom all is known now, or leave that to our user."""
    is_same = chat.asked.pop(folded)
    items = [i for i in chat.outbox.having(QUEUED) if i.folded == folded and not is_same]
    if is_same or items:  # else they have followed the user to a new name
        chat.unsure.pop(folded, None)
    for item in items:
        chat.outbox.set_delivery(item, REFUSED)
    places = (c for item in items for c in item.conversations if c in chat.conversations)
    if items:
        again = " Send it again if it is for the user who has this name now."
        words = "Not sent: " + _STRANGER % items[0].message.params[0] + again
        chat.inform(words, next(places, None))
    chat.flush()


# What servers send
# -----------------

# Numerics that refuse a message: no such user or channel, not allowed, too many targets
_UNDELIVERED = frozenset("401 403 404 407 411 412 477 486 531".split())
# Numerics that refuse JOIN; some of them refuse PART too
_NOT_JOINED = "403 405 437 470 471 473 474 475 476 477 479 480 489 520".split()
BANNED, NEEDS_KEY, FINAL = "474", "475", ("403", "474", "476", "479")
_IGNORABLE = frozenset(["PRIVMSG", "NOTICE", "INVITE"])  # nothing from users that are ignored

Handler = Callable[[Chat, Message], None]


def _on_text(chat: Chat, message: Message) -> None:
    target, sender, msgid = message.params[0].lstrip("@+"), message.nickname, message.tag("msgid")
    line = chat.describe(message._replace(params=(target, *message.params[1:])))
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
    is_channel = target.startswith(CHANNEL_SIGN)
    if is_channel and chat.conversation_named(target) is None:  # it was left a moment ago
        return
    conversation = chat.conversation_named(target) or chat.current
    is_private = "!" in message.source and not is_channel
    if is_private and chat.is_me(sender):
        conversation = chat.private(target)
    elif is_private:
        conversation = chat.private(sender, MAX_STRANGERS)
        chat.correspondent = sender
    if conversation.knows(msgid):
        return
    entry = chat.new_entry(line, msgid)
    entry.reply_to = message.tag(REPLY_TAG)
    is_servers = "!" not in message.source and chat.session.is_settled
    entry.answer = message.command if is_servers and chat.is_me(target) else ""
    chat.add(entry, conversation)
    if is_private and line.when < chat.session.began:  # it has waited for us
        _doubt(chat, conversation, [entry])
    is_announcement = target == "*" and line.text.startswith(protocol.ANNOUNCEMENT)
    is_mine = line.text.startswith("%s%s:" % (protocol.ANNOUNCEMENT, chat.nickname))
    if is_announcement and "!" not in message.source and not is_mine:
        chat.announce(line.text)
    if is_private and chat.current is not conversation and chat.current.kind != PRIVATE:
        chat.add(entry, chat.current)
    if line.nickname and not entry.is_own:
        chat.count_unread(conversation, [entry])


def _in_channel(index: int, handler: Callable[[Chat, Message, Conversation], None]) -> Handler:
    """Return a handler for messages about a channel of ours.

    Of another channel, numerics are shown in view. Events are not: it was left a moment ago.
    """

    def handle(chat: Chat, message: Message) -> None:
        name = message.params[index]
        channel = chat.conversation_named(name)
        if channel is not None:
            handler(chat, message, channel)
        elif protocol.casefold(name) in chat.left:
            return
        elif message.command.isdigit() or not name.startswith(CHANNEL_SIGN):
            chat.show(message, chat.current)

    return handle


def _on_join(chat: Chat, message: Message) -> None:
    nickname, channel = message.nickname, chat.conversation_named(message.params[0])
    if chat.is_me(nickname):
        _on_own_join(chat, message, channel)
    elif channel is not None and nickname and len(channel.members) < MAX_MEMBERS:
        _set_member(chat, channel, nickname, Member(nickname))
        chat.show(message, channel)
        _note_return(chat, nickname, message.param(1))


def _set_member(chat: Chat, channel: Conversation, nickname: str, new: Optional[Member]) -> None:
    """Add, replace or (None) remove a member, and record what that changes."""
    old = channel.members.pop(protocol.casefold(nickname), None)
    if new is not None:
        channel.members[protocol.casefold(new.nickname)] = new
    if new != old:
        chat.change(MEMBERS, channel)
        names = {member.nickname for member in (old, new) if member is not None}
        if any(map(chat.conversation_named, names)):  # the sidebar shows who is here
            chat.change(SIDEBAR)


def _on_own_join(chat: Chat, message: Message, channel: Optional[Conversation]) -> None:
    """Our own JOIN: answers /join or a rejoin, or the server placed us there."""
    name = message.params[0]
    chat.session.account = message.param(1).strip("*") or chat.session.account
    if channel is None and protocol.casefold(name) in chat.left:
        if chat.left[protocol.casefold(name)]:
            chat.send(Message("PART", (name,)))
        return
    if channel is None and name.startswith(CHANNEL_SIGN):
        channel = chat.create(name, CHANNEL)
    if channel is None or channel.membership == JOINED:
        return
    channel.joined_at = chat.time_of(message) if channel.membership == JOINING else 0.0
    is_rejoin, channel.membership = channel.membership == REJOINING, JOINED
    channel.removal = channel.refusal = ""
    chat.withdraw_invitation(name)
    channel.rename(name)
    channel.last_topic, channel.topic = channel.topic, ""
    channel.members = {protocol.casefold(message.nickname): Member(message.nickname)}
    if chat.console in chat.conversations:  # its entries go on in the first channel
        chat.conversations.remove(chat.console)
        chat.outcome.changes += channel.insert(0, chat.console.entries)
        chat.console.entries = []
        for item in chat.outbox.items:
            item.conversations = [channel if c is chat.console else c for c in item.conversations]
    _finish_registration(chat)
    if chat.current is chat.console:
        chat.select(channel)
    if not (is_rejoin and chat.session.is_reconnect):
        chat.show(message, channel)
    chat.send(Message("MODE", (name,)))  # its key, for the next rejoin
    _catch_up(chat, channel)
    chat.flush()
    for kind in (MEMBERS, HEADER):
        chat.change(kind, channel)
    chat.change(SIDEBAR)


def _on_creation_time(chat: Chat, message: Message, channel: Conversation) -> None:
    """329, which answers our question after a JOIN: the user may have made the channel by it."""
    is_new = message.text[:12].isdecimal() and channel.joined_at < int(message.text[:12]) + 2
    if is_new and channel.joined_at and len(channel.members) == 1:
        guess = protocol.did_you_mean(channel.name, known_rooms(chat))
        words = "You made %s. Nobody else is here yet. %s" % (channel.name, guess)
        chat.inform(words.rstrip(), channel)
    channel.joined_at = 0.0


def _finish_registration(chat: Chat) -> None:
    """Rejoin the channels, and ask for what was missed, once after the welcome."""
    session = chat.session
    if session.is_settled:
        return
    session.is_settled = True
    for channel in chat.conversations:
        if channel.membership == REJOINING and channel.kind == CHANNEL:
            chat.send(Message("JOIN", (channel.name, *channel.channel_key)))
    if session.is_reconnect and HISTORY_CAP in session.caps:
        end = "timestamp=" + protocol.format_time(LATEST_TIME)  # our clock may be wrong
        _ask(chat, TARGETS, None, "TARGETS", _just_before(chat, chat.complete_until), end)
    for item in chat.outbox.having(UNCERTAIN):
        conversation = chat.conversation_named(item.folded)
        if not item.folded.startswith(CHANNEL_SIGN):
            _catch_up_with(chat, item.message.params[0])
        elif conversation is None or conversation.is_outside:  # it will not be joined
            chat.resolve(item.folded, False)
    chat.flush()


def _on_invite(chat: Chat, message: Message) -> None:
    name, channel = message.params[1], chat.conversation_named(message.params[1])
    chat.show(message, chat.current)
    if chat.is_me(message.params[0]) and (channel is None or channel.is_outside):
        chat.announce("%s invites you to %s." % (message.nickname, name), name)


def _on_not_joined(chat: Chat, message: Message, channel: Conversation) -> None:
    """A refused JOIN. Some of these numerics refuse PART too."""
    if channel.membership not in (JOINING, REJOINING):
        chat.show(message, chat.current)
        return
    channel.membership, channel.refusal = OUTSIDE, message.command
    _refuse_waiting(chat, channel, message)
    _try_reveal(chat, channel, can_ask=False)
    if message.command == NEEDS_KEY and channel.channel_key:  # it was sent
        channel.channel_key, channel.removal = (), "That is not the password of %s." % channel.name
        chat.inform(channel.removal, channel)
    else:
        chat.show(message, channel)  # it stays in view: the next lines are not for another room


def _refuse_waiting(chat: Chat, channel: Conversation, message: Message) -> None:
    """Show why we are outside of a channel, and mark what waits for it: it will not be sent."""
    line = chat.describe(message)
    text = line.text if line is not None else ""
    channel.removal = re.sub(r" Type /join \S+ PASSWORD\Z", "", text)  # a button asks for it
    chat.change(HEADER, channel)
    chat.change(SIDEBAR)
    chat.resolve(channel.folded, False)
    for item in chat.outbox.having(QUEUED):
        if item.folded == channel.folded:
            chat.outbox.set_delivery(item, REFUSED)


def _on_part(chat: Chat, message: Message) -> None:
    channel = chat.conversation_named(message.params[0])
    if chat.is_me(message.nickname):
        chat.left.pop(protocol.casefold(message.params[0]), None)
        if channel is not None and channel.membership != JOINING:  # left, and entered again
            chat.remove(channel)
        chat.show(message, chat.current)
    elif channel is not None:
        _set_member(chat, channel, message.nickname, None)
        _lose_sight(chat, [protocol.casefold(message.nickname)])
        chat.show(message, channel)


def _on_kick(chat: Chat, message: Message, channel: Conversation) -> None:
    unseen = [protocol.casefold(message.params[1])]
    _set_member(chat, channel, message.params[1], None)
    if chat.is_me(message.params[1]):
        unseen = list(channel.members)
        channel.detach(OUTSIDE)
        _refuse_waiting(chat, channel, message)
    _lose_sight(chat, unseen)
    chat.show(message, channel)


def _on_quit(chat: Chat, message: Message) -> None:
    if protocol.casefold(chat.correspondent) == protocol.casefold(message.nickname):
        chat.correspondent = ""
    conversations = chat.shared_with(message.nickname)
    for conversation in conversations:
        _set_member(chat, conversation, message.nickname, None)
    _give_up_name(chat, protocol.casefold(message.nickname), GONE)
    chat.show(message, *conversations)


def _on_nick(chat: Chat, message: Message) -> None:
    old, new = protocol.casefold(message.nickname), message.params[0]
    folded = protocol.casefold(new)
    if not protocol.is_middle(new):
        return
    conversations = chat.shared_with(message.nickname)
    namesake = chat.conversation_named(new)  # of a user who had the name before
    is_own = old in (folded, chat.former.get(folded, (GONE,))[0])  # from before
    doubt = chat.unsure.pop(old, None)
    _give_up_name(chat, old, folded if doubt is None else GONE)
    is_taken, given_up = folded in chat.former and not is_own, chat.former.pop(folded, (GONE, 0.0))
    is_free = is_own and old != folded and chat.conversation_named(old) is None
    is_stranger = doubt is not None and doubt.is_replaced
    if doubt is not None and not (is_free and is_stranger):
        chat.unsure[folded] = doubt
    if namesake is not None and namesake not in conversations:
        conversations.append(namesake)
        is_taken = True
    for conversation in conversations:
        member = conversation.members.get(old)
        if member is not None:
            _set_member(chat, conversation, member.nickname, member._replace(nickname=new))
        elif conversation.name != new and chat.conversation_named(new) in (None, conversation):
            conversation.rename(new)
            chat.change(HEADER, conversation)
            chat.change(SIDEBAR)
    if not is_stranger:  # else it was for the user who had the name before
        chat.outbox.rename(old, new)
    if protocol.casefold(chat.correspondent) == old:
        chat.correspondent = new
    for word, (lines, recipient, home) in chat.pastes.items():
        if protocol.casefold(recipient) == old:
            chat.pastes[word] = lines, new, home
    if chat.is_me(message.nickname):
        chat.nickname = new
        chat.change(STATUS)
    chat.show(message, *conversations)
    if is_taken and not chat.is_me(new):
        _suspect(chat, folded, given_up[1], is_replaced=True)
        if namesake is not None:
            chat.inform(_STRANGER % new, namesake)


def _on_topic(chat: Chat, message: Message, channel: Conversation) -> None:
    topic = "" if message.command == "331" else message.text
    if topic != channel.topic:
        channel.topic = topic
        chat.change(HEADER, channel)
    is_known = message.command == "332" and message.text == channel.last_topic
    channel.last_topic = ""
    if not is_known:
        chat.show(message, channel)


def _on_mode(chat: Chat, message: Message, channel: Conversation) -> None:
    """MODE, or 324: the modes of a channel."""
    prefixes, start = chat.session.prefixes, 1 if message.command == "MODE" else 2
    kinds = chat.session.modes
    if message.command != "MODE":
        channel.flags.clear()
    for change in protocol.parse_modes(message.params[start:], kinds, protocol.MAX_MESSAGE):
        if change.letter == "k" and not change.adding:
            channel.channel_key = ()
        elif change.letter == "k" and change.arg not in ("", "*"):  # else it is hidden from us
            channel.channel_key = (change.arg,)
        elif kinds.get(change.letter) == "flag":
            (channel.flags.add if change.adding else channel.flags.discard)(change.letter)
            chat.change(HEADER, channel)
        elif change.letter == "b" and chat.is_me(protocol.short_mask(change.arg)):
            channel.refusal = BANNED if change.adding else ""
        sign = prefixes.get(change.letter, "")
        member = channel.members.get(protocol.casefold(change.arg))
        if member is not None and sign:
            kept = member.prefix.replace(sign, "") + (sign if change.adding else "")
            prefix = "".join(sign for sign in prefixes.values() if sign in kept)
            _set_member(chat, channel, change.arg, member._replace(prefix=prefix))
    chat.show(message, channel)
    own = channel.members.get(protocol.casefold(chat.nickname))
    was_operated, channel.is_operated = channel.is_operated, chat.session.is_chanop(own)
    is_news = channel.is_operated and not was_operated and not chat.session.is_operator
    if is_news and not chat.is_me(message.nickname):
        chat.inform(OPERATES % channel.name, channel)


def _on_own_mode(chat: Chat, message: Message) -> None:
    """MODE of a user, who may be an operator of the server now; or of a channel."""
    before, has_changed, _ = message.params[1].partition("o")
    if not chat.is_me(message.params[0]):
        _in_channel(0, _on_mode)(chat, message)
    elif has_changed:
        chat.session.is_operator = before.rfind("+") > before.rfind("-")
        if chat.session.is_operator and RESUME_CAP in chat.session.caps:
            chat.request(*_BANS)
        chat.change(STATUS)


def _on_away(chat: Chat, message: Message) -> None:
    """AWAY; 305 and 306, which are about the user; 352, of the answer to WHO."""
    nickname, is_away = message.nickname, bool(message.text)
    if message.command in ("305", "306"):
        nickname, is_away = chat.nickname, message.command == "306"
    elif message.command == "352":
        nickname, is_away = message.params[5], message.params[6].startswith("G")
    folded = protocol.casefold(nickname)
    for channel in chat.conversations:
        member = channel.members.get(folded)
        if member is not None:
            _set_member(chat, channel, nickname, member._replace(is_away=is_away))
    if chat.is_me(nickname) and chat.is_away != is_away:
        chat.is_away = is_away
        chat.change(STATUS)
    chat.show(message, chat.current)


def _on_names(chat: Chat, message: Message, channel: Conversation) -> None:
    signs = "".join(chat.session.prefixes.values())
    for word in message.text.split():
        nickname = word.lstrip(signs)
        if nickname and len(channel.new_members) < MAX_MEMBERS:
            prefix = word[: len(word) - len(nickname)]
            channel.new_members[protocol.casefold(nickname)] = Member(nickname, prefix)


def _on_end_of_names(chat: Chat, message: Message, channel: Conversation) -> None:
    is_news = len(channel.members) < 2
    for folded, member in channel.members.items():
        if member.is_away and folded in channel.new_members:
            channel.new_members[folded] = channel.new_members[folded]._replace(is_away=True)
    if channel.members != channel.new_members:
        channel.members = channel.new_members
        chat.change(MEMBERS, channel)
        chat.change(SIDEBAR)
    channel.new_members = {}
    if channel.list_requests:
        channel.list_requests -= 1
        for text in protocol.online_lines([member.nickname for member in channel.sorted_members]):
            chat.answer(text)
    elif is_news and "away-notify" in chat.session.caps and len(channel.members) <= MAX_WHO:
        chat.send(Message("WHO", (channel.name,)))


def _on_welcome(chat: Chat, message: Message) -> None:
    """001, 372 and 375: read already, on a reconnect."""
    if not chat.session.is_reconnect:
        chat.show(message, chat.current)


def _on_isupport(chat: Chat, message: Message) -> None:
    for token in message.params[1:-1]:
        name, _, value = token.partition("=")
        if name in _TOKENS:
            chat.session.tokens[name] = protocol.unescape_token(value)
    network = protocol.clean(chat.session.tokens.get("NETWORK", ""), protocol.MAX_NETWORK)
    if network and network != chat.console.name:
        is_known = chat.console.name != chat.address
        chat.console.rename(network)
        chat.change(STATUS)
        if is_known and chat.session.is_reconnect and not chat.session.is_settled:
            chat.outbox.hold()  # it was meant for other people
            chat.inform("This chat is called %s now." % network)


def _on_pong(chat: Chat, message: Message) -> None:
    """PONG: what was sent before its PING is answered, and stored on a server without echoes."""
    chat.resume_paste(message.text)
    if message.text == _WHOIS_END and chat.asked:
        _end_whois(chat, next(iter(chat.asked)))  # the first question
    if message.text == chat.listing.word != "":
        chat.listing.is_done = True
        chat.change(LISTING)
    elif message.text.startswith("listing-"):
        chat.listing.rows = []  # the answer to an earlier request
    word, _, number = message.text.partition("-")
    if word == "sent" and number.isdecimal():
        for item in chat.outbox.having(IN_FLIGHT):
            if item.number <= int(number[:9]):
                chat.confirm(item, item.entry.line, "", item.message.params[0])


def _on_logged_in(chat: Chat, message: Message) -> None:
    """903, or REGISTER: keep the accepted login, and claim its nickname."""
    chat.show(message, chat.current)
    is_success = message.command == "903" or message.params[0] == "SUCCESS"
    if is_success and chat.pending_login is not None:
        chat.outcome.login, chat.pending_login = chat.pending_login, None
        if not chat.is_me(chat.outcome.login.name):
            chat.send(Message("NICK", (chat.outcome.login.name,)))


def _on_login_refused(chat: Chat, message: Message) -> None:
    """904 and 905: give the command back without its password, which is asked for again."""
    chat.show(message, chat.current)
    login, chat.pending_login = chat.pending_login, None
    line = chat.describe(message)
    if login is not None and line is not None:
        chat.outcome.refused = "/login %s " % login.name, line.text


def _on_account(chat: Chat, message: Message) -> None:
    """900 and 901: logged in or out."""
    chat.session.account = message.params[2] if message.command == "900" else ""
    if message.params[2] != protocol.HOST_ACCOUNT:
        chat.show(message, chat.current)


def _on_fail(chat: Chat, message: Message) -> None:
    names = {"CHATHISTORY": [*message.params[2:-1], ""], "SEARCH": [SEARCH_CAP]}
    found = map(chat.history.waiting, names.get(message.params[0], []))
    request = next(filter(None, found), None)
    if request is None or request.purpose == TYPED:
        chat.show(message, chat.current)
    if request is not None:
        _give_up(chat, request)


def _on_no_such_user(chat: Chat, message: Message) -> None:
    nickname = message.params[1]
    if nickname.startswith(CHANNEL_SIGN):
        chat.show(message._replace(command="403"), chat.current)
        return
    guess = _guess(chat, nickname)
    if guess or chat.current is not chat.conversation_named(nickname):
        words = [protocol.NO_SUCH_USER.format(nickname), guess]
        chat.answer(". ".join(filter(None, words)))
    else:  # in their private conversation
        waits = " Messages wait only for registered names."
        is_ours = RESUME_CAP in chat.session.caps
        chat.answer("%s is not here.%s" % (nickname, waits if is_ours else ""))


# For each command and numeric: the least number of parameters, and the handler. Others are
# shown in the conversation in view, if they have a text in protocol.describe.
SERVER_COMMANDS: Dict[str, Tuple[int, Handler]] = {
    "PRIVMSG": (2, _on_text), "NOTICE": (2, _on_text), "PONG": (1, _on_pong),
    "JOIN": (1, _on_join), "PART": (1, _on_part), "KICK": (2, _in_channel(0, _on_kick)),
    "INVITE": (2, _on_invite),
    "QUIT": (0, _on_quit), "NICK": (1, _on_nick), "MODE": (2, _on_own_mode),
    "TOPIC": (1, _in_channel(0, _on_topic)), "324": (3, _in_channel(1, _on_mode)),
    "BATCH": (1, _on_batch), "FAIL": (1, _on_fail),
    "AWAY": (0, _on_away), "352": (7, _on_away), "305": (1, _on_away), "306": (1, _on_away),
    "REGISTER": (1, _on_logged_in), "903": (1, _on_logged_in), "900": (3, _on_account),
    "901": (3, _on_account), "904": (1, _on_login_refused), "905": (1, _on_login_refused),
    "005": (2, _on_isupport),
    **dict.fromkeys(["001", "372", "375"], (1, _on_welcome)),
    **dict.fromkeys(["376", "422"], (0, lambda chat, m: _finish_registration(chat))),
    **dict.fromkeys(["331", "332"], (3, _in_channel(1, _on_topic))),
    "329": (3, _in_channel(1, _on_creation_time)),
    "401": (2, _on_no_such_user), "353": (2, _in_channel(-2, _on_names)),
    "366": (2, _in_channel(1, _on_end_of_names)),
    **dict.fromkeys(_NOT_JOINED, (2, _in_channel(1, _on_not_joined))),
}  # fmt: skip


# What users type
# ---------------


class Plan(NamedTuple):
    """The reading of a typed line: carried out when it is sent, and described before."""

    typed: protocol.Input
    messages: List[Message]
    recipient: str  # of text below it in the same paste; "" for the conversation in view


def _plan(chat: Chat, line: str, recipient: str, joined: str = "") -> Plan:
    """Return what a line does. Raises InputError.

    `recipient` is that of the lines above it in the same paste: a user who is written to, or a
    channel that is joined. Text is for them too, until a command goes to another conversation.
    `joined` is a channel that will be joined before the line is run.
    """
    typed = protocol.parse_input(line)
    if typed.verb == "say" and not recipient:
        typed = typed._replace(args=(_begin_reply(chat, *typed.args),))
    _check(chat, typed.verb, [])  # that the server has it, before what is wrong with it
    messages = _compose(chat, typed, recipient)
    _check(chat, typed.verb, messages, joined)
    if typed.verb in ("msg", "reply", "join"):
        recipient = messages[0].params[0].split(",")[-1]
    return Plan(typed, messages, "" if typed.verb == "leave" else recipient)


def _run_line(chat: Chat, line: str, recipient: str) -> str:
    """Run a line that was typed; return the recipient of the text below. Raises InputError."""
    plan = _plan(chat, line, recipient)
    if plan.typed.verb in USER_VERBS:
        USER_VERBS[plan.typed.verb](chat, plan.typed.args)
    for message in plan.messages:
        _send(chat, message)
    return plan.recipient


def _address_rest(chat: Chat, paste: Iterable[str], recipient: str, home: Conversation) -> str:
    """Return lines that go back to the user, with "@name " before text that is for a user.

    `home` was in view when they were typed. A line that can never be sent says for whom no text is,
    and is such a text itself if it only looks like a command.
    """
    if not recipient and home.kind == PRIVATE and home is not chat.current:
        recipient = home.name
    lines = list(paste)
    for index, line in enumerate(lines) if recipient[:1] not in ("", CHANNEL_SIGN) else ():
        try:
            typed = protocol.parse_input(line)
            _compose(chat, typed, recipient)
        except InputError:
            word, is_last = line.lower().lstrip().partition(" ")[0], False
            is_text = word[:1] != "/" or word[1:] not in protocol.VERBS
        else:
            is_text = typed.verb in ("say", "me")
            is_last = is_text or typed.verb in ("msg", "reply", "join", "leave")
        if is_text:
            text = line[1:] if line.startswith("//") else line
            lines[index] = "@%s %s" % (recipient, text)
        if is_last:
            break
    return "\n".join(lines)


def _begin_reply(chat: Chat, text: str) -> str:
    """Return a text as it is sent: a reply in a channel begins with the name of its recipient.

    So it is understood by users whose program shows no replies.
    """
    line = chat.current.reply_to.line if chat.current.reply_to is not None else None
    if line is None or line.kind != FROM_OTHERS or _names(line.nickname, text):
        return text
    return "%s: %s" % (line.nickname, text)


def _compose(chat: Chat, typed: protocol.Input, recipient: str) -> List[Message]:
    """Return the messages for what was typed, which is about the conversation in view.

    /list also works in a private conversation: it tells who is in the first channel.
    """
    if typed.verb == "leave" and chat.current.kind != CONSOLE:
        return []  # sent by its function
    conversation = chat.channel if typed.verb == "list" else chat.current
    is_there = recipient[:1] == CHANNEL_SIGN  # it will be in view
    target = recipient if typed.verb in ("say", "me") or is_there else ""
    if not target and conversation is not None and conversation.kind != CONSOLE:
        target = conversation.name
    return protocol.compose(typed, target, chat.nickname + _USER_AT_HOST, chat.correspondent)


def _check(chat: Chat, verb: str, messages: List[Message], joined: str = "") -> None:
    """Raise InputError if the server, or the state of the connection, does not allow it."""
    texts = [message for message in messages if message.command == "PRIVMSG"]
    if not chat.session.is_settled and len(texts) < len(messages) and verb != "quit":
        raise InputError(_NOT_CONNECTED)
    needed = _NEEDED.get(verb)
    if needed and chat.state == CONNECTED and needed not in chat.session.caps:
        raise InputError("This server has no /%s." % verb)
    for found in (chat.conversation_named(message.params[0]) for message in texts):
        if found is not None and found.is_outside and found is not chat.conversation_named(joined):
            raise InputError("You are not in {0}. Type /join {0}".format(found.name))
    joined = ",".join(message.params[0] for message in messages if message.command == "JOIN")
    if any(not name.startswith(CHANNEL_SIGN) for name in joined.split(",") if joined):
        raise InputError("The name of a room begins with %s." % CHANNEL_SIGN)


def _send(chat: Chat, message: Message) -> None:
    """Send a message of the user's, and show at once what comes of it."""
    if message.command == "PRIVMSG":
        recipient, replied = chat.conversation_named(message.params[0]), chat.current.reply_to
        if replied is not None and recipient is not None:
            home = chat.reply_conversation(replied)
            if recipient is home:
                message = message._replace(tags={REPLY_TAG: replied.msgid})
            if recipient in (home, chat.current):
                chat.reply(None)
        chat.say(message)
    elif message.command == "CHATHISTORY":
        _ask(chat, TYPED, chat.current, "LATEST", "*", limit=int(message.text[:9]))
    else:
        if message.command == "JOIN":
            _enter(chat, message)
        chat.send(message)


def _enter(chat: Chat, message: Message) -> None:
    """Bring channels into view before they are joined: what is typed next is for them."""
    for name in message.params[0].split(","):
        channel = chat.conversation_named(name) or chat.create(name, CHANNEL)
        if channel is None:
            raise InputError("You are in too many rooms to join %s." % name)
        if channel.membership == OUTSIDE:
            channel.membership, channel.channel_key = JOINING, ()
        channel.channel_key = message.params[1:] or channel.channel_key
        chat.left.pop(channel.folded, None)
        chat.select(channel)


def _run_list(chat: Chat, args: Tuple[str, ...]) -> None:
    """/list: the end of the answer is shown."""
    if chat.channel is not None:
        chat.channel.list_requests += 1


def _run_quit(chat: Chat, args: Tuple[str, ...]) -> None:
    chat.outcome.is_done = True


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
            chat.outcome.settings_changed = True
        chat.answer("You now ignore %s." % args[0])


def _run_unignore(chat: Chat, args: Tuple[str, ...]) -> None:
    folded, before = protocol.casefold(args[0]), len(chat.ignored)
    chat.ignored[:] = [name for name in chat.ignored if protocol.casefold(name) != folded]
    chat.outcome.settings_changed = len(chat.ignored) < before
    words = "You no longer ignore %s." if len(chat.ignored) < before else "You do not ignore %s."
    chat.answer(words % args[0])


def _run_login(chat: Chat, args: Tuple[str, ...]) -> None:
    """/login and /register: once accepted, they are used to reconnect."""
    chat.pending_login = Login(args[0] if len(args) > 1 else chat.nickname, args[-1])


# What verbs do before their messages are sent
USER_VERBS: Dict[str, Callable[[Chat, Tuple[str, ...]], None]] = {
    "help": lambda chat, args: chat.change(HELP),
    "search": lambda chat, args: chat.search(args[0]),
    "list": _run_list,
    "leave": lambda chat, args: chat.leave(chat.current, *args),
    "quit": _run_quit,
    "ignore": _run_ignore,
    "unignore": _run_unignore,
    "register": _run_login,
    "login": _run_login,
}
# The capability that a verb needs; Hubbub's own commands are known by its capability
_NEEDED: Dict[str, str] = {
    "history": HISTORY_CAP,
    "register": "draft/account-registration",
    "login": "sasl",
    **dict.fromkeys(protocol.OPERATOR_VERBS - {"kick"}, RESUME_CAP),
}


# Drafts
# ------

_ALL, _NEXT = "*", "?"  # recipients: all users of the server; what is in view after /leave
_WAYS = {_ALL: "to everyone on this chat", _NEXT: "to where /leave leads"}
_REPLY_DRAFT = re.compile(r"^[^\S\n]*/reply\s", re.IGNORECASE | re.MULTILINE)
_SECRET_DRAFT = re.compile(r" *(/(?:register|login +\S+) ) *(.*)\Z", re.IGNORECASE)


class Notice(NamedTuple):
    """Words about where a draft goes, and their icon; "" if that is plainly what is in view."""

    words: str = ""
    icon: str = "lock"
    offer: str = ""  # the words of a button that makes it a reply to `entry`
    entry: Optional[Entry] = None


def describe_draft(chat: Chat, draft: str) -> Notice:
    """Return the notice of a draft; for a password that is asked for, of its command."""
    if split_secret(draft)[0]:
        return _describe_password(chat, *split_secret(draft))
    names, here = _recipients(chat, draft), chat.current
    absent = _first_absent(chat, names)
    doubts = {name: chat.unsure.get(protocol.casefold(name)) for name in names}
    strangers = [name for name, doubt in doubts.items() if doubt is not None and doubt.is_replaced]
    ways = [_describe_way(name, name in strangers) for name in names]
    way = "First " * (len(ways) > 1) + ", then ".join(ways)
    way = way[:1].upper() + way[1:]
    if absent and not strangers:
        return Notice("No one called “%s” is here. %s" % (absent, _guess(chat, absent)), "warn")
    if strangers or len(ways) > 1:
        return Notice(way, "warn")
    entry, name = chat.current.reply_to, "".join(names) or here.name
    home = chat.address_of(entry).strip("@ ") or here.name
    if entry is not None and protocol.casefold(name) == protocol.casefold(home):
        if home != here.name:
            return Notice("%s, in reply to: %s" % (way, entry.excerpt))
        where = " in " + name if here.kind == CHANNEL else ""
        words = "Reply to %s%s: %s" % (entry.line.nickname, where, entry.excerpt)
        return Notice(words, "close")
    if name != here.name:
        return Notice(way, "announce" if way.startswith("To ") else "lock")
    is_public = bool(names) and here.kind == CHANNEL
    return _describe_public(chat, draft, way, entry) if is_public else Notice()


def _describe_public(chat: Chat, draft: str, way: str, replied: Optional[Entry]) -> Notice:
    """Return the notice of a draft to the room, which may be meant for a single user."""
    asked = replied or private_question(chat) or chat.current.draft_question
    found = re.findall(r"(?<!\w)@([^\s:,.;!?()]+)", draft)
    named = {protocol.casefold(name) for name in found if chat.presence(name) != OFFLINE}
    other = protocol.casefold(chat.address_of(asked)[1:-1])
    if asked is None or (asked.is_own and not chat.can_reply(asked)) or named - {other}:
        return Notice(way, "announce") if named else Notice()
    shown = re.sub("(?<=^.{13}).{2,}", "…", chat.address_of(asked)[1:-1])
    offer = "Write to %s privately" if asked.is_own else "Answer %s privately"
    return Notice(way, "warn", offer % shown, asked)


def _describe_password(chat: Chat, command: str, password: str) -> Notice:
    """Return the notice of a password; if it is asked for again, it follows the command."""
    name = "".join(command.split()[1:])
    new = "New password for %s, at least %d characters" % (chat.nickname, protocol.MIN_PASSWORD)
    words = "Password of %s" % name if name else new
    words = "The same password again, to be sure" if password else words
    return Notice(words + " (hidden). Esc gives up.")


def _describe_way(name: str, is_stranger: bool) -> str:
    way = ("to everyone in " if name.startswith(CHANNEL_SIGN) else "privately to ") + name
    return _WAYS.get(name, way) + ", who may be someone else than before" * is_stranger


def _recipients(chat: Chat, draft: str) -> List[str]:
    """Return the recipients of a draft's lines, up to a line that is refused; see also _WAYS."""
    found, recipient = [], ""
    for line in split_lines(draft + "…") if draft.strip() else []:  # what is begun has text, too
        try:
            plan = _plan(chat, line, recipient, joined=recipient)
        except InputError:
            break
        found += [message.params[0] for message in plan.messages if message.command == "PRIVMSG"]
        if plan.typed.verb == "announce" and chat.session.is_operator:
            found.append(_ALL)
        recipient = _NEXT if plan.typed.verb == "leave" else plan.recipient
    return list(dict.fromkeys(found))


def _first_absent(chat: Chat, names: Iterable[str]) -> str:
    """Return the first of the recipients who is a user, but not here; "" for none."""
    others = (
        n for n in names if n not in _WAYS and n[0] != CHANNEL_SIGN and n != chat.current.name
    )
    absent = (name for name in others if chat.presence(name) == OFFLINE)
    return next(absent, "") if any(c.members for c in chat.conversations) else ""


def private_question(chat: Chat) -> Optional[Entry]:
    """Return the last private line in the room in view, unless that is answered elsewhere.

    Lines whose other user is not here do not count, nor those above the user's last line to all.
    """
    for entry in itertools.islice(reversed(chat.current.entries), RECENT):
        home = chat.reply_conversation(entry)
        is_private = entry.line.kind == PRIVATE and home is not chat.current
        if is_private and home is not None and chat.presence(home.name) != OFFLINE:
            said = next((e for e in reversed(home.entries) if e.line.nickname), entry)
            if entry.is_own or not said.is_own:
                return entry
        if entry.is_own and not is_private:
            break
    return None


def is_unfinished(draft: str) -> bool:
    """Return True for a draft with more than an address, such as a reply begins with."""
    return bool(re.sub(r"\A\s*@\S*\s*\Z", "", draft).strip())


def follow_draft(chat: Chat, draft: str) -> None:
    """Keep, as long as a draft has text, the private line that it may be meant for."""
    here, has_text = chat.current, bool(draft.strip())
    here.draft_question = (private_question(chat) or here.draft_question) if has_text else None


def next_reply(chat: Chat, draft: str) -> Optional[Entry]:
    """Return the last entry of others to reply to, or that before the present one.

    Text in the draft keeps its readers, unless its notice offers to answer privately.
    """
    entries = [e for e in chat.current.shown if chat.can_reply(e) and not e.is_own]
    present, offered = chat.current.reply_to, describe_draft(chat, draft).entry
    if draft.strip() not in ("", chat.address_of(present).strip()):
        homes = list(map(chat.conversation_named, _recipients(chat, draft)))
        entries = [e for e in entries if e is offered or [chat.reply_conversation(e)] == homes]
    if present is not None and present is not offered and present in entries:
        return entries[entries.index(present) - 1]
    return entries[-1] if entries else None


def name_recipient(chat: Chat, draft: str) -> str:
    """Return a draft with "@name " for "/reply ": no later message changes the recipient."""
    address = "@%s " % chat.correspondent
    return _REPLY_DRAFT.sub(lambda found: address, draft) if chat.correspondent else draft


def missing_password(chat: Chat, text: str) -> str:
    """Return the command in `text` that lacks only its password, "" for all other texts."""
    text = "/login " + chat.nickname if text.lower().split() == ["/login"] else text.rstrip()
    command, password = split_secret(text + " ")
    try:
        _check(chat, command[1:].lower().partition(" ")[0], [Message("AUTHENTICATE")])
    except InputError:  # the server's answer to the command will say so
        return ""
    return "" if password else command


def split_secret(text: str) -> Tuple[str, str]:
    """Return a command up to its password, and the password; "" for another text."""
    found = _SECRET_DRAFT.match(text)
    return (found.group(1), found.group(2)) if found else ("", "")


def is_secret(text: str) -> bool:
    """Return True if a line of `text` holds a password, so that it is kept nowhere."""
    words = [protocol.clean(line).split() for line in text.splitlines()]
    verbs = [first for first, *_ in filter(None, words) if first[0] == "/"]
    return any(verb[1:].lower() in protocol.SECRET_VERBS for verb in verbs)


# Completion
# ----------


class Suggestion(NamedTuple):
    """A word that can be put in, with what is to follow it, and what it does."""

    word: str
    args: str = ""
    help: str = ""


class Completer:
    """Completions of the word before the cursor; repeated, `complete` goes through them.

    `suggest` returns the suggestions for the beginning of a word; True if it is the first word.
    """

    def __init__(self, suggest: Callable[[str, bool], List[Suggestion]]) -> None:
        self._suggest = suggest
        self._draft = "", 0  # text and cursor, for which the suggestions are
        self._start = 0
        self.found: List[Suggestion] = []
        self.index = 0  # of the suggestion that is chosen

    def suggest(self, text: str, cursor: int, signs: str = "") -> List[Suggestion]:
        """Return the suggestions for a draft; only for a word with one of `signs`, if given."""
        self._draft, self.index = (text, cursor), 0
        self._start = max(text.rfind(" ", 0, cursor), text.rfind("\n", 0, cursor)) + 1
        begun = text[self._start : cursor]
        if _JOIN_DRAFT.match(text[: self._start]):  # the sign may be left out
            begun = CHANNEL_SIGN + begun.lstrip(CHANNEL_SIGN)
        is_wanted = begun and (not signs or begun[0] in signs)
        self.found = self._suggest(begun, self._start == 0) if is_wanted else []
        return self.found

    @property
    def is_whole(self) -> bool:
        """True if the word is what was chosen already."""
        begun = self._draft[0][self._start : self._draft[1]]
        whole = protocol.casefold(self.found[self.index].word.strip())
        return protocol.casefold(begun) in (whole, whole.lstrip(CHANNEL_SIGN))

    def complete(self, text: str, cursor: int, step: int = 1) -> Optional[Tuple[str, int]]:
        """Return text and cursor with the next suggestion, or the chosen one (0); None for none."""
        if not self.found or (text, cursor) != self._draft:
            self.suggest(text, cursor)
            self.index = -1 if step > 0 else 0
        if not self.found:
            return None
        self.index = (self.index + step) % len(self.found)
        before = text[: self._start] + self.found[self.index].word
        self._draft = before + text[cursor:], len(before)
        return self._draft


def _guess(chat: Chat, nickname: str) -> str:
    """Return "Did you mean X?" for the known nicknames that are closest, or "".

    Nothing for the name of a user who has written to us: X would be another user.
    """
    known = chat.conversation_named(nickname)
    if known is not None and any(e.line.nickname and not e.is_own for e in known.entries):
        return ""
    begun = nickname[: len(nickname) // 2 + 1]  # right, if the slip comes after it
    return protocol.did_you_mean(nickname, [*nicknames(chat, begun), *nicknames(chat, "")])


def _suggest(chat: Chat, begun: str, is_first: bool) -> List[Suggestion]:
    """Return the suggestions for a word that begins so, the word itself first."""
    if begun[0] == "/" and is_first:
        found = list(commands(chat))
    elif begun.startswith(CHANNEL_SIGN):
        found = [Suggestion(name + " ", "", topic) for name, _, topic in known_rooms(chat).values()]
    else:
        at = "@" if begun[0] == "@" else ""
        end = ": " if is_first and not at else " "
        found = [Suggestion(at + name + end) for name in nicknames(chat, begun.lstrip("@"))]
    folded = protocol.casefold(begun)
    found = [each for each in found if protocol.casefold(each.word).startswith(folded)]
    return sorted(found, key=lambda each: protocol.casefold(each.word.strip()) != folded)


def known_rooms(chat: Chat) -> Dict[str, Sequence[str]]:
    """Return name, people and topic of the rooms in view and in the last list, by folded name."""
    channels = (c for c in chat.conversations if c.kind == CHANNEL)
    known = [(c.name, str(len(c.members)), c.topic) for c in channels]
    listed = [message.params[1:4] for message in chat.listing.rows if len(message.params) == 4]
    return {protocol.casefold(room[0]): room for room in [*known, *listed]}


def commands(chat: Chat) -> Iterator[Suggestion]:
    """Yield the commands that the server has and the user may use."""
    allowed = {"kick"} if chat.can_moderate(chat.current) else set()
    for name, verb in protocol.VERBS.items():
        is_allowed = name not in protocol.OPERATOR_VERBS - allowed or chat.session.is_operator
        if is_allowed and _NEEDED.get(name, "") in ("", *chat.session.caps):
            args = re.sub(" ?PASSWORD$", "", verb.args)  # is asked for where nobody sees it
            yield Suggestion("/%s " % name, args, verb.help)


def nicknames(chat: Chat, begun: str, most: int = MAX_SUGGESTIONS) -> List[str]:
    """Return nicknames that start with `begun`: recent senders in view, its members, the rest."""
    begun = protocol.casefold(begun)
    conversations = [chat.current, *(c for c in chat.conversations if c is not chat.current)]
    names: Dict[str, str] = {}
    for entry in chat.current.entries[:-RECENT:-1]:
        folded = protocol.casefold(entry.line.nickname)
        if folded and any(folded in c.members or c.folded == folded for c in conversations):
            names.setdefault(folded, entry.line.nickname)
    for conversation in conversations:
        known = (folded for folded in conversation.members if folded.startswith(begun))
        for folded in sorted(itertools.islice(known, most)):
            names.setdefault(folded, conversation.members[folded].nickname)
    for conversation in (c for c in conversations if c.kind == PRIVATE):
        names.setdefault(conversation.folded, conversation.name)
    names.pop(protocol.casefold(chat.nickname), None)
    return [name for folded, name in names.items() if folded.startswith(begun)][:most]


# Texts
# -----

_ADDRESS = re.compile(r"\w+://\S*")
_ROOM = re.compile(r"(?<![^\s(“\"])#[^\W\d_][\w-]*")
_JOIN_DRAFT = re.compile(r" */join +\Z", re.IGNORECASE)
_LINK = re.compile(r"\bhttps?://[^\s<>\"“”]+", re.IGNORECASE)


@functools.lru_cache(maxsize=100)
def mention_pattern(nickname: str) -> Pattern[str]:
    """Return a pattern with a group for a nickname as a word, but not as a part of an address."""
    form = r"(?<!\w)(?<!\w[.@])(@?%s)(?!\w|[.@]\w)"
    return re.compile(form % re.escape(nickname), re.IGNORECASE)


def _names(nickname: str, text: str) -> bool:
    """Return True if a text names a user."""
    name, text = nickname.casefold(), text.casefold()
    return name in text and bool(mention_pattern(name).search(_ADDRESS.sub(" ", text)))


def find_links(text: str) -> List[Span]:
    """Return the spans of links to web pages in `text`, without the punctuation after them."""
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


def split_lines(text: str) -> List[str]:
    """Return the lines of a text as they are sent or run.

    Empty lines are not, but for those inside code: as a space, for IRC has no empty messages.
    """
    lines = (protocol.clean(line, MAX_PASTE).rstrip() for line in text.splitlines())
    kept = "\n".join(lines).strip("\n").split("\n")
    keeps_empty = is_code(kept)
    return [line or " " for line in kept if line or keeps_empty]


# Settings
# --------


_PIN = r"(%s|[0-9a-f]{64})?\Z" % SYSTEM


class Settings:
    """The preferences that the program saves; no passwords.

    It never stops the program: a file that cannot be read is moved aside. Other windows save to
    the same file: each saves what it has changed itself.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self.name = ""
        self.servers: List[str] = []  # the last used first
        self.networks: Dict[str, str] = {}  # their names, by short_address
        self.rooms: Dict[str, List[str]] = {}  # Chat.rooms at the last visit, by `visit`
        self.pins: Dict[str, str] = {}  # also by short_address; "": trusted, whatever it shows next
        self.theme = "dark"
        self.zoom = 100  # per cent
        self.geometry = ""
        self.levels: Dict[str, str] = {}  # alerts, by conversation
        self.ignored: List[str] = []  # nicknames
        self.sound = True
        self.hosted = ""  # the name of the chat that was last hosted
        self._saved = copy.deepcopy(self._values())  # when last loaded or saved

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
                setattr(self, name, protocol.clean(value) if isinstance(value, str) else value)
        servers = [protocol.clean(s, 200) for s in self.servers if isinstance(s, str)]
        self.servers = servers[:MAX_SERVERS]
        named = {k: v for k, v in self.networks.items() if isinstance(v, str)}
        limit = protocol.MAX_NETWORK
        self.networks = {protocol.clean(k, 200): protocol.clean(named[k], limit) for k in named}
        pins = {k: v for k, v in self.pins.items() if isinstance(v, str) and re.match(_PIN, v)}
        self.pins = {protocol.clean(k, 200): pin for k, pin in pins.items()}
        rooms = [(k, v) for k, v in self.rooms.items() if isinstance(v, list)]
        self.rooms = {protocol.clean(k, 200): _room_names(v) for k, v in rooms}
        self.ignored = [n for n in self.ignored if isinstance(n, str) and protocol.is_middle(n)]
        levels = (ALL, MENTIONS, NONE)
        self.levels = {protocol.clean(k): v for k, v in self.levels.items() if v in levels}
        self._saved = copy.deepcopy(self._values())

    def save(self) -> None:
        """Write to the file what has changed, all of it or nothing."""
        found, mine = Settings(self._path), self._values()
        found.load()
        theirs = found._values() if os.path.exists(self._path) else self._saved
        values = _merge(theirs, self._saved, mine)
        text = json.dumps(values, ensure_ascii=False, indent=1, sort_keys=True)
        new = "%s.%d" % (self._path, os.getpid())
        try:
            os.makedirs(os.path.dirname(self._path), exist_ok=True)
            private = functools.partial(os.open, mode=0o600)  # it names hidden rooms
            with open(new, "w", encoding="utf-8", opener=private) as file:
                file.write(text + "\n")
            os.replace(new, self._path)
            self._saved = copy.deepcopy(mine)
        except (OSError, ValueError) as error:
            log.warning("The settings are not saved: %s", error)

    def remember(self, server: str) -> None:
        """Put a server before the others."""
        others = [s for s in self.servers if short_address(s) != short_address(server)]
        self.servers = [server, *others][:MAX_SERVERS]

    def learn(self, server: str, network: str) -> bool:
        """Keep the name of a server that is remembered; return True if it is new."""
        known, address = [*map(short_address, self.servers)], short_address(server)
        if address not in known or self.networks.get(address) == network:
            return False
        names = {**self.networks, address: network}
        self.networks = {a: names[a] for a in known if a in names}
        return True

    def visit(self, server: str) -> str:
        """Return the key of `rooms` for the user at a server: they are not another user's."""
        return "%s@%s" % (protocol.casefold(self.name), short_address(server))

    def keep_rooms(self, server: str, rooms: List[str]) -> bool:
        """Keep the rooms of a server that is remembered; return True if they are news."""
        visit, rooms = self.visit(server), rooms[:MAX_ROOMS]
        known = [*map(short_address, self.servers)]
        is_news = short_address(server) in known and rooms != self.rooms.get(visit)
        if is_news:
            others = [v for v in self.rooms if v != visit and v.partition("@")[2] in known]
            self.rooms = {v: self.rooms[v] for v in others[1 - MAX_VISITS :]}
            self.rooms[visit] = rooms
        return is_news

    def pin(self, server: str, network: str = "", is_encrypted: bool = False) -> str:
        """Return the pin for a connection to a server that was found as `network`.

        At a new address, a chat needs the certificate of a known chat whose name looks the same.
        """
        address = short_address(server)
        default = FIRST if is_encrypted or is_tls(server) else ""

        def looks(name: str) -> str:
            return protocol.skeleton("".join(name.split()))

        if address in self.pins or network == protocol.DEFAULT_NETWORK:
            return self.pins.get(address) or default
        for known, name in self.networks.items():
            if looks(name) == looks(network) != "" and self.pins.get(known):
                return self.pins[known]
        return default

    def keep_pin(self, server: str, pin: str) -> bool:
        """Keep the pin of a server that is connected; return True if it is news."""
        address = short_address(server)
        is_news = self.pins.get(address) != pin
        if pin:
            self.pins[address] = pin
        return is_news

    def trust(self, server: str) -> None:
        """Forget the pin of a server, and save that: it is met anew, encrypted or not."""
        self.pins[short_address(server)] = ""
        self.save()

    def _values(self) -> Dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name[0] != "_"}


def _room_names(found: List[Any]) -> List[str]:
    """Return those of the values in a list that can be names of rooms, or of users."""
    names = [protocol.clean(name, 200) for name in found if isinstance(name, str)]
    rooms = [n for n in names if n.startswith(CHANNEL_SIGN) and protocol.is_middle(n)]
    kept = [n for n in rooms if "," not in n] + [*filter(protocol.is_nickname, names)]
    return list({protocol.casefold(n): n for n in kept}.values())[:MAX_ROOMS]


def _merge(theirs: Any, before: Any, mine: Any) -> Any:
    """Return `theirs` with the changes from `before` to `mine`, in lists and dicts by item."""
    if mine == before:
        return theirs
    if isinstance(mine, dict):  # None: it is not there
        theirs, before = theirs or {}, before or {}
        keys = {**theirs, **mine}
        merged = {k: _merge(theirs.get(k), before.get(k), mine.get(k)) for k in keys}
        return {k: value for k, value in merged.items() if value is not None}
    if isinstance(mine, list):
        theirs, before = theirs or [], before or []
        kept = [item for item in mine if item in theirs or item not in before]
        return kept + [item for item in theirs if item not in before and item not in mine]
    return mine


def settings_path() -> str:
    """Return the file of the settings, where the system keeps such files."""
    home = os.path.expanduser("~")
    if sys.platform == "win32":
        return os.path.join(os.environ.get("APPDATA") or home, "Hubbub", "settings.json")
    if sys.platform == "darwin":
        return os.path.join(home, "Library", "Application Support", "Hubbub", "settings.json")
    folder = os.environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    return os.path.join(folder, "hubbub", "settings.json")


# Finding servers
# ---------------


def parse_server(text: str) -> Tuple[str, int]:
    """Return host and port of `HOST`, `HOST:PORT`, `[IPV6]:PORT`, a bare IPv6 address or irc(s)://.

    Raises ValueError with the words for the user.
    """
    text, default = text.strip(), SERVER_PORT
    if text.startswith(("irc://", "ircs://")):
        default = 6697 if is_tls(text) else 6667
        text = text.partition("://")[2].partition("/")[0]
    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not host.endswith("]")):
        host, port = text, str(default)
    host = host.strip("[]")
    if not host or " " in host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError("A server is written as 192.168.1.20 or 192.168.1.20:%d." % SERVER_PORT)
    return host, int(port)


def is_tls(text: str) -> bool:
    """Return True if a server, as users write it, is to be encrypted from the start."""
    return text.strip().startswith("ircs://")


def short_address(text: str) -> str:
    """Return the address of a server as users write it: without the usual port."""
    try:
        host, port = parse_server(text)
    except ValueError:
        return text.strip()
    name, mark, zone = host.partition("%")
    host = name.lower() + mark + zone
    return host if port == SERVER_PORT else protocol.format_address(host, port)


def broadcast_addresses(routes: str) -> List[str]:
    """Return the broadcast addresses of the networks in the text of Linux's /proc/net/route."""
    found = []
    for line in routes.splitlines()[1:]:
        with contextlib.suppress(ValueError):
            interface, *columns = line.split()
            network, gateway, flags, *_, mask = (int(column, 16) for column in columns[:7])
            hosts = ~mask & 0xFFFFFFFF
            is_network = flags & 1 and not gateway and mask and bin(hosts).count("1") > 1
            if interface != "lo" and is_network:  # the numbers are in the machine's byte order
                found.append(socket.inet_ntoa(struct.pack("=I", network | hosts)))
    return list(dict.fromkeys(found))[:MAX_NETWORKS]


@functools.lru_cache(maxsize=1)
def own_addresses() -> List[str]:
    """Return the IPv4 addresses that the name of this computer stands for: looked up once."""
    try:
        found = socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET, socket.SOCK_DGRAM)
    except (OSError, UnicodeError):
        return []
    return list(dict.fromkeys(str(address[0]) for *_, address in found))[:MAX_NETWORKS]


def is_own_address(host: str) -> bool:
    """Return True if an address is this computer's own; False for names, without a lookup."""
    try:
        kind, numeric = socket.SOCK_DGRAM, socket.AI_NUMERICHOST
        family, _, _, _, address = socket.getaddrinfo(host, 0, 0, kind, 0, numeric)[0]
        with socket.socket(family, kind) as sock:
            sock.bind(address)
    except (OSError, UnicodeError):
        return False
    return True


def is_local(server: str) -> bool:
    """Return True if a server's address is this computer's own."""
    try:
        host, _ = parse_server(server)
    except ValueError:
        return False
    return host == "localhost" or is_own_address(host)


class FoundServer(NamedTuple):
    """A server that has answered."""

    host: str
    network: str
    port: int
    users: int
    is_encrypted: bool
    is_own: bool  # it runs on this computer

    @property
    def people(self) -> str:
        return protocol.counted(self.users, "person", "people") if self.users else "nobody yet"


class Finder:
    """Asks the servers of the network for their names, by UDP, and never waits for an answer.

    The environment variable HUBBUB_FIND replaces the addresses that are asked: a list separated
    by commas; if it is empty, nobody is asked, and there is no socket. Answers may come from
    anybody: they count only with the id of a recent query, and few of each address.
    """

    def __init__(self, interval: float = FIND_INTERVAL) -> None:
        self._interval = interval
        self._named = os.environ.get("HUBBUB_FIND")
        self.can_ask = self._named is None or bool(self._named.strip())
        self._sockets: Dict[Tuple[str, int], socket.socket] = {}  # by own address and family
        self._ids: "Deque[str]" = collections.deque(maxlen=MAX_SILENT_ROUNDS)  # of queries
        self._round = 0
        self._next = 0.0  # the time of the next query
        # What was found, and the round of its last answer, by address ("": this computer) and port
        self._found: Dict[Tuple[str, int], Tuple[FoundServer, int]] = {}

    def poll(self, now: float) -> List[FoundServer]:
        """Ask if it is time to; return the servers that have answered, the first of them first."""
        if self.can_ask and now >= self._next:
            self._next = now + self._interval
            self._ask()
        for _ in range(MAX_DATAGRAMS):
            if not sum(self._read(sock) for sock in self._sockets.values()):
                break
        return [found for found, _ in self._found.values()]

    def close(self) -> None:
        """Close the sockets, and forget what was found, until the next poll. Idempotent."""
        while self._sockets:
            self._sockets.popitem()[1].close()
        self._found.clear()
        self._next = 0.0

    def _ask(self) -> None:
        self._round += 1
        for key, (_, seen) in list(self._found.items()):
            if seen + MAX_SILENT_ROUNDS < self._round:
                del self._found[key]
        self._ids.append(os.urandom(6).hex())
        query = protocol.make_query(self._ids[-1])
        for own, host, port in self._targets():
            with contextlib.suppress(OSError, UnicodeError):  # no network, or it may not be asked
                self._socket(own, ":" in host).sendto(query, (host, port))

    def _targets(self) -> List[Tuple[str, str, int]]:
        """Return targets: own address to send from ("": any), host and port; loopback first."""
        if self._named is not None:
            targets = []
            for text in self._named.split(","):
                with contextlib.suppress(ValueError):
                    targets.append(("", *parse_server(text)))
            return targets
        hosts = ["127.0.0.1", "255.255.255.255"]
        own: List[str] = []
        if sys.platform.startswith("linux"):
            hosts.insert(1, "127.255.255.255")  # all servers of this computer hear it
            with contextlib.suppress(OSError), open("/proc/net/route", encoding="ascii") as file:
                hosts += broadcast_addresses(file.read())
        else:
            hosts += [address.rpartition(".")[0] + ".255" for address in own_addresses()]
            own = own_addresses() if sys.platform == "win32" else []  # it asks on a single network
        sources = [("", host) for host in hosts] + [(address, "255.255.255.255") for address in own]
        return [(address, host, SERVER_PORT) for address, host in sources]

    def _socket(self, own: str, is_ipv6: bool) -> socket.socket:
        family = socket.AF_INET6 if is_ipv6 else socket.AF_INET
        if (own, family) not in self._sockets:
            sock = self._sockets[own, family] = socket.socket(family, socket.SOCK_DGRAM)
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            sock.bind((own, 0))
        return self._sockets[own, family]

    def _read(self, sock: socket.socket) -> bool:
        """Read a datagram; return False if there is none."""
        try:
            data, (host, *_) = sock.recvfrom(protocol.MAX_DATAGRAM + 1)
            query_id, answer = protocol.parse_answer(data)
        except BlockingIOError:
            return False
        except (OSError, protocol.ProtocolError):  # Windows: also that a port is closed
            return True
        if query_id in self._ids:
            self._add(host, answer)
        return True

    def _add(self, host: str, answer: protocol.ServerInfo) -> None:
        is_here = is_own_address(host)
        key = "" if is_here else host, answer.port
        if key in self._found:
            host = self._found[key][0].host  # 127.0.0.1 is asked first, if the server listens there
        else:
            of_address = sum(key[0] == other for other, _ in self._found)
            if of_address >= MAX_OF_ADDRESS or len(self._found) >= MAX_FOUND:
                return
        self._found[key] = FoundServer(host, *answer, is_here), self._round


def print_found() -> int:
    """Print the servers that are found; return the exit code: 1 if there is none."""
    output, until = _reopen(sys.stdout), time.monotonic() + FIND_TIME
    with contextlib.closing(Finder(FIND_TIME / MAX_SILENT_ROUNDS)) as finder:
        while finder.can_ask and time.monotonic() < until:
            found = finder.poll(time.monotonic())
            time.sleep(FIND_TIME / 30)
    if not finder.can_ask or not found:
        hint = "Is a server running on this network? python3 client.py ADDRESS asks it directly."
        print("No server was found. " + hint, file=output)
        return 1
    for server in found:
        at = protocol.format_address(server.host, server.port)
        more = ", encrypted" if server.is_encrypted else ""
        print("%s  %s  (%s%s)" % (at, server.network, server.people, more), file=output)
    return 0


# Hosting
# -------

Action = Callable[[], object]


class Host:
    """A run of server.py, as a process of its own that may outlive this program.

    It is the server of the user's data folder, or a command about that server.
    """

    FOLDER = os.path.dirname(os.path.abspath(__file__))  # or zipapp
    COMMAND = (  # with "", the folder that the user is in, others could replace any module
        "import sys; sys.path[:] = [sys.argv.pop(1), *filter(None, sys.path)]; import server;"
        " sys.exit(server.main())"
    )
    OPTIONS: Tuple[str, ...] = ()  # of the server

    def __init__(self, *options: str, secret: str = "", done: Action = lambda: None) -> None:
        """Start it, with a secret to read. Raises OSError with words for the user."""
        if importlib.machinery.PathFinder.find_spec("server", [self.FOLDER]) is None:
            raise OSError("There is no server.py beside client.py. Copy it there, then try again.")
        self.done = done  # to be called once it has ended
        self.last_line = "The server ended at once."
        self.port = 0  # once it accepts connections
        self.was_joined = False
        self.is_copied = self.is_dismissed = False  # of the invitation
        self.address = ""  # at which others reach it
        self._no_address_text = ""  # printed in place of an address
        self._lines: "queue.Queue[str]" = queue.Queue()
        more: Dict[str, Any] = {"start_new_session": True}  # Ctrl+C is not for it
        if sys.platform == "win32":
            more = {"creationflags": 0x08000200}  # CREATE_NO_WINDOW, CREATE_NEW_PROCESS_GROUP
        more.update(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.PIPE)
        command = [sys.executable, "-c", self.COMMAND, self.FOLDER, *self.OPTIONS, *options]
        self.process = subprocess.Popen(command, **more)  # noqa: S603
        with contextlib.suppress(OSError), self.process.stdin as stdin:  # type: ignore[union-attr]
            stdin.write(secret.encode())
        # Daemon: the server may outlive this program.
        self.thread = threading.Thread(target=self._read, name="host", daemon=True)
        self.thread.start()

    def _read(self) -> None:
        with self.process.stdout as output:  # type: ignore[union-attr]
            for line in output:
                self._lines.put(protocol.clean(line.decode("utf-8", "replace").strip()))
        self.process.wait()

    def poll(self) -> bool:
        """Take in what it has printed; return True if it has ended."""
        has_ended = not self.thread.is_alive()
        while not self._lines.empty():
            self._on_line(self._lines.get_nowait())
        return has_ended

    def _on_line(self, line: str) -> None:
        text = line[len("server.py: ") :] if line.startswith("server.py: ") else line
        self.last_line = text[:1].upper() + text[1:] or self.last_line
        said, _, address = line.partition("[SERVER] ")[2].partition(": ")
        if not self.port:
            found = re.match(r"\[SERVER\] Running on .*:(\d{1,5})\Z", line)
            self.port = int(found.group(1)) if found else 0
        elif said == "Tell people":
            self.address = self.address or address
        else:
            self._no_address_text = self._no_address_text or said

    @property
    def server(self) -> str:
        """The address at which this computer reaches it."""
        return short_address("127.0.0.1:%d" % self.port)

    def dismiss(self) -> None:
        """Show the invitation no more."""
        self.is_dismissed = True

    def invitation(self, network: str) -> str:
        """Return the words that tell others how to join the chat of this name, "" at first."""
        return how_to_join(self.address, network) if self.address else self._no_address_text


def is_own_server(address: str) -> bool:
    """Return True if the user's own server is at an address, as the file in its folder says.

    After a crash the file is left; commands of server.py then say that no server runs.
    """
    try:
        host, port = parse_server(address)
        path = os.path.join(protocol.data_folder(), protocol.PID_FILE)
        with open(path, encoding="ascii") as file:
            _, bound, bound_port = file.read().split()
    except (OSError, ValueError):
        return False
    is_at = {"0.0.0.0": ":" not in host, "::": True}.get(bound, host == bound)
    return bound_port == str(port) and is_at and is_own_address(host)


def how_to_join(address: str, network: str) -> str:
    """Return the words that tell others how to join; the address may be "" if it is unknown."""
    words = "open http://%s in a browser, or " % address if address else ""
    return "Others %spick “%s” in Hubbub." % (words, network)


# Terminal
# --------


class Terminal:
    """Chat on standard input and output, line by line: for pipes and screen readers, too."""

    POLL = 0.2  # seconds between checks for signals and overdue requests

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._events: "queue.Queue[Any]" = queue.Queue(MAX_EVENTS)
        self._input = _reopen(sys.stdin)
        self._output = _reopen(sys.stdout)
        self._is_person = sys.stdin.isatty()
        self._chat_now = Chat("", {}, [])  # that the input is for
        self._can_read = threading.Event()  # the server sets the pace of a long input
        self._newest_id = 0  # of the entries printed so far
        self._day = protocol.format_day(time.time())  # of the last line
        self._unsent: Set[int] = set()  # the ids of own messages until they are printed as sent

    def run(self, server: str, nickname: str) -> int:
        """Chat until /quit or the end of input (0), or until the connection is lost (1).

        For a person at a terminal, a lost connection comes back.
        """
        # Daemon: reading from a terminal cannot be cancelled.
        threading.Thread(target=self._read_input, name="input", daemon=True).start()
        try:
            return self._run(server, nickname)
        except KeyboardInterrupt:
            return 0
        except OSError as error:  # of the output; what is left goes nowhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if isinstance(error, BrokenPipeError):  # `| head` has had enough
                return 0
            return self._fail("The chat cannot be printed: %s." % error.strerror)

    def _run(self, server: str, nickname: str) -> int:
        password = ""
        while True:
            nickname = nickname or self._ask_nickname()
            wrong = protocol.nickname_error(nickname) if nickname else "No username was given."
            end, can_ask = Disconnected(NAME, wrong), bool(nickname)
            if not wrong:
                end, can_ask = self._chat_at(server, nickname, password)
            if end.fault == CLOSED:
                return 0
            hint = " To trust it from now on, add --trust." if end.fault == TRUST else ""
            self._fail(end.reason + hint)
            can_ask = can_ask and self._is_person
            if can_ask and end.fault == NAME:
                nickname = ""
                continue
            password = _ask_password() if can_ask and end.fault == PASSWORD else ""
            if not password:
                return 1

    def _chat_at(self, server: str, nickname: str, password: str) -> Tuple[Disconnected, bool]:
        """Chat with a server; return how it ended, and True if that was before the welcome."""
        address, events = (*parse_server(server), password, nickname), self._events
        pin = self._settings.pin(server)
        connection = Connection(*address, events, reconnects=self._is_person, pin=pin)
        chat = Chat(connection.address, self._settings.levels, self._settings.ignored)
        self._chat_now = chat
        chat.begin(nickname)
        connection.start()
        try:
            end = self._chat(connection, chat, server)
        finally:
            connection.close(QUIT_TIME)
        lost = sum(item.entry.delivery != REFUSED for item in chat.outbox.items)
        if lost and end.fault != CLOSED:
            form = "%s: %d of your messages may not have arrived."
            end = end._replace(reason=form % (end.reason.rstrip("."), lost))
        return end, not chat.session.number

    def _fail(self, reason: str) -> int:
        print(reason, file=_reopen(sys.stderr))
        return 1

    def _ask_nickname(self) -> str:
        """Return the first line of input; "" at its end."""
        if self._is_person:
            print("Username: ", end="", file=self._output, flush=True)
        # A signal that comes just before a read would not be handled until the next line.
        while os.name == "posix" and not select.select([self._input], [], [], self.POLL)[0]:
            pass
        return protocol.normalize(self._read_line().strip())

    def _read_line(self) -> str:
        """Return the next line of input, cut if it is too long, or "" at the end of input."""
        text: str = self._input.readline(MAX_PASTE + 1)
        part = text
        while len(part) > MAX_PASTE and part[-1] != "\n":
            part = self._input.readline(MAX_PASTE + 1)
        return text

    def _read_input(self) -> None:
        """Put the lines of the input among the events; the last is /quit, or stands for its end."""
        text = ""
        while not _is_quit(text):
            self._can_read.wait()
            text = self._read_line() or "/quit"
            command = missing_password(self._chat_now, text) if self._is_person else ""
            text = command + _ask_password() if command else text
            self._events.put(text)

    def _chat(self, connection: Connection, chat: Chat, server: str) -> Disconnected:
        last_event = time.monotonic()
        quit_line = ""  # the /quit, which waits until the messages before it are delivered
        while True:
            event, now = None, time.time()
            with contextlib.suppress(queue.Empty):
                event = self._events.get(timeout=self.POLL)
                last_event = time.monotonic()
            if event is None:
                outcome = chat.do(now, chat.tick)
            elif not isinstance(event, str):
                outcome = chat.do(now, chat.handle, event)
            elif _is_quit(event):
                quit_line, outcome = event, Outcome()
            elif len(event) > MAX_PASTE:
                reason = "Lines of more than %d characters are not sent." % MAX_PASTE
                outcome = chat.do(now, chat.answer, reason)
            else:
                outcome = chat.do(now, chat.submit, event)
            self._print(outcome.changes, chat)
            connection.carry_out(outcome)
            if outcome.settings_changed:
                self._settings.save()
            if isinstance(event, Connected):
                self._note_pin(chat, server)
            if isinstance(event, Disconnected):
                return event
            if quit_line and (self._is_person or not chat.unsent):
                connection.carry_out(chat.do(now, chat.submit, quit_line))
                quit_line = ""
            elif quit_line and time.monotonic() > last_event + END_TIME:
                return Disconnected(LOST, "The server does not answer.")
            if chat.unsent >= MAX_UNSENT:
                self._can_read.clear()
            elif chat.session.is_settled:
                self._can_read.set()

    def _note_pin(self, chat: Chat, server: str) -> None:
        """Keep the pin of the server; tell a person what is new about the encryption."""
        pin = chat.session.pin
        if not self._settings.keep_pin(server, pin):
            return
        self._settings.save()
        words = describe_pin(pin)
        if pin not in ("", SYSTEM):
            words += " Fingerprint %s, first met now." % protocol.format_fingerprint(pin)
        if self._is_person and (pin or not chat.session.is_reconnect):
            self._print(chat.do(time.time(), chat.inform, words).changes, chat)

    def _print(self, changes: Iterable[Change], chat: Chat) -> None:
        """Print what is new: each entry once, as in the conversation in view if it is there."""
        printed: Set[int] = set()
        changes = sorted(changes, key=lambda change: change.conversation is not chat.current)
        for kind, conversation, entries, _ in changes:
            lines: List[Line] = []
            if kind == HELP:
                lines = [protocol.server_line(text, chat.now) for text in protocol.help_lines()]
            elif kind == RESULTS:
                found = [_to_line(r.entry, r.conversation, chat) for r in chat.lookup.results[::-1]]
                lines = [*found, protocol.server_line(chat.lookup.note, chat.now)]
            elif conversation is None or kind not in (ADDED, CHANGED, RECALLED):
                continue
            elif kind != RECALLED:
                new = [e for e in entries if e.id not in printed and self._is_printed(e, kind)]
                lines += [_to_line(entry, conversation, chat) for entry in new]
            elif entries:
                lines.append(protocol.server_line("Earlier in %s:" % conversation.name, chat.now))
                lines += [entry.line for entry in entries]
                lines.append(protocol.server_line("That was all.", chat.now))
            else:
                lines.append(protocol.server_line("There are no earlier messages.", chat.now))
            printed |= {entry.id for entry in entries}
            for line in lines:
                day, self._day = self._day, protocol.format_day(line.when)
                if day != self._day:
                    print(protocol.server_line(self._day, line.when), file=self._output)
                print(line, file=self._output)
        self._newest_id = max([self._newest_id, *printed])

    def _is_printed(self, entry: Entry, kind: str) -> bool:
        """Return True for a new entry, and for an own message that is delivered or has failed.

        The server itself says, in words, that a message is refused.
        """
        if entry.delivery != SENT:
            self._unsent.add(entry.id)
            return entry.delivery not in (IN_FLIGHT, REFUSED)
        if entry.id in self._unsent:
            self._unsent.remove(entry.id)
            return True
        return kind == ADDED and entry.count == 1 and entry.id > self._newest_id


def _to_line(entry: Entry, conversation: Conversation, chat: Chat) -> Line:
    """Return the line of an entry with its room, unless that is in view, and its note."""
    is_elsewhere = conversation.kind == CHANNEL and conversation is not chat.current
    room = conversation.name + " " if is_elsewhere else ""
    note = "  (%s)" % entry.note if entry.note else ""
    return entry.line._replace(head=room + entry.line.head, text=entry.line.text + note)


def _is_quit(text: str) -> bool:
    return text.lower().split()[:1] == ["/quit"]


def _ask_password() -> str:
    """Return the answer of the person at the terminal; "" if there is none."""
    try:
        return getpass.getpass("Password: ")
    except (EOFError, UnicodeError):
        return ""


def _reopen(stream: Any) -> Any:
    """Return a standard stream that never fails because of a character: UTF-8 in pipes.

    It has a buffer of its own. At its exit, Python would wait for the lock of that of sys.stdin,
    which the thread `input` holds while it reads.
    """
    is_known = stream.isatty() and codecs.lookup(stream.encoding).name != "ascii"
    encoding = stream.encoding if is_known else "utf-8"
    return open(stream.fileno(), stream.mode, 1, encoding, "replace", closefd=False)


# Look
# ----

COLORS = {  # role: in the dark theme, in the light one
    "bg": ("#14171c", "#eff2f6"), "chat": ("#1a1e25", "#ffffff"), "field": ("#232933", "#ffffff"),
    "hover": ("#222832", "#e4e9f0"), "selected": ("#2b3648", "#d5e3fb"),
    "choice": ("#323945", "#e4e9f0"), "chosen": ("#31405a", "#d5e3fb"),  # answers of a sheet
    "line": ("#2b313c", "#d9dfe7"), "outline": ("#6b7687", "#7b8696"),
    "text": ("#f2f4f8", "#1b2027"), "muted": ("#a3adbd", "#525c6a"), "time": ("#99a3b3", "#626d7c"),
    FROM_SERVER: ("#6cb6ff", "#0b57b7"), FROM_ME: ("#7ee0a1", "#166b34"),
    FROM_OTHERS: ("#f2f4f8", "#1b2027"), PRIVATE: ("#d3adff", "#7434b5"),
    "warn": ("#f2c14e", "#8a5700"), "error": ("#ff8a80", "#b3261e"), "ok": ("#4fd18b", "#1a7f43"),
    "away": ("#f2b93b", "#a86c00"), "offline": ("#8691a2", "#707b8b"),
    "accent": ("#2f6be0", "#1f5fd0"), "accent_hover": ("#3771e6", "#2c6ce0"),
    "accent_pressed": ("#2459c4", "#184da9"), "on_accent": ("#ffffff", "#ffffff"),
    "focus": ("#6aa5ff", "#1f5fd0"), "link": ("#8cc4ff", "#0b57b7"),
    "badge": ("#2f6be0", "#1f5fd0"), "mention_badge": ("#d1344b", "#c4243c"),
    "mention": ("#3b3115", "#fff1c9"), "banner": ("#3a2f12", "#fff1c9"),
    "banner_text": ("#ffe2a0", "#5c4100"), "selection": ("#284269", "#cadcfb"),
    "find": ("#5a4a00", "#ffe58a"), "found": ("#f2c14e", "#f2b705"),
    "on_found": ("#1b2027", "#1b2027"), "thumb": ("#444d5c", "#b9c2ce"),
    "thumb_active": ("#5b6678", "#98a3b2"), "code": ("#232933", "#eff2f6"),
    # Names of others: none looks like own lines, the server's or private ones
    "name0": ("#ff7568", "#d80848"), "name1": ("#bfa590", "#703830"),
    "name2": ("#9cb060", "#607008"), "name3": ("#f6e850", "#785008"),
    "name4": ("#22c7cf", "#087078"), "name5": ("#ee62e6", "#b83898"),
    "name6": ("#e08c0a", "#c04000"), "name7": ("#f8bccf", "#504068"),
}  # fmt: skip
PALETTES = {
    theme: {role: colors[index] for role, colors in COLORS.items()}
    for index, theme in enumerate(("dark", "light"))
}
AVATARS = tuple(PALETTES["light"]["name%d" % number] for number in range(SHADES))
FAMILIES = ("Segoe UI", "Inter", "Cantarell", "Ubuntu", "Noto Sans", "DejaVu Sans")
FONTS: "Dict[str, Tuple[int, Literal['normal', 'bold']]]" = {  # pixels at 96 dpi, weight
    "chat": (14, "normal"), "name": (14, "bold"), "time": (12, "normal"), "ui": (13, "normal"),
    "ui_bold": (13, "bold"), "small": (12, "normal"), "small_bold": (12, "bold"),
    "caption": (11, "bold"), "room": (16, "bold"), "title": (22, "bold"), "code": (13, "normal"),
}  # fmt: skip
ZOOMS = (80, 90, 100, 110, 125, 150, 175, 200)  # per cent

# Shapes on a grid of 24 by 24: l a line through points, o a circle, d a disc, m a disc less
# another one, p a polygon, r a rectangle with round corners (left, top, right, bottom, radius).
ICONS = {
    "search": "o 10 10 6.5 l 15 15 21 21",
    "person": "o 12 7.5 4 l 4 21 4.6 17.8 6.6 15.6 9.5 14.7 14.5 14.7 17.4 15.6 19.4 17.8 20 21",
    "plus": "l 12 4 12 20 l 4 12 20 12",
    "sun": "d 12 12 4.6 l 12 1.5 12 4 l 12 20 12 22.5 l 1.5 12 4 12 l 20 12 22.5 12"
    " l 4.6 4.6 6.3 6.3 l 17.7 17.7 19.4 19.4 l 4.6 19.4 6.3 17.7 l 17.7 6.3 19.4 4.6",
    "moon": "m 12 12 9 16 8 7.5",
    "send": "p 2.5 3.5 22 12 2.5 20.5 6.5 12",
    "check": "l 4 13 9.5 18.5 20 6",
    "up": "l 12 20 12 4 l 5 11 12 4 19 11",
    "down": "l 12 4 12 20 l 5 13 12 20 19 13",
    "close": "l 5 5 19 19 l 19 5 5 19",
    "menu": "l 4 6 20 6 l 4 12 20 12 l 4 18 20 18",
    "more": "d 5 12 1.9 d 12 12 1.9 d 19 12 1.9",
    "chevron": "l 6 9.5 12 15.5 18 9.5",
    "shield": "l 12 2.5 20 5.5 20 11 18.5 15.5 12 21.5 5.5 15.5 4 11 4 5.5 12 2.5"
    " l 8.5 11.5 11.2 14.2 16 8.5",
    "announce": "l 4 9.5 4 14.5 8 14.5 17 20 17 4 8 9.5 4 9.5 l 20.5 10 20.5 14",
    "lock": "r 5 10.5 19 21 2.5 l 8 11 8 7 9.2 4.5 12 3.3 14.8 4.5 16 7 16 11",
    "unlock": "r 2.5 10.5 16.5 21 2.5 l 13.5 11 13.5 7 14.7 4.5 17.5 3.3 20.3 4.5 21.5 7 21.5 9.5",
    "pencil": "l 4 20 5 15.5 16 4.5 19.5 8 8.5 19 4 20 l 13.5 7 17 10.5",
    "warn": "l 12 3.5 22 20.5 2 20.5 12 3.5 l 12 10 12 14 d 12 17.3 .5",
}
# Presence and the state of a connection, by colour: a disc, a crescent, a ring.
DOTS = {
    "ok": "d 12 12 11", "away": "m 12 12 11 19 7 9.5",
    **dict.fromkeys(("offline", "error"), "o 12 12 10 o 12 12 8"),
}  # fmt: skip
# What a button with such an icon does
TIPS = {
    "search": "Search   Ctrl+F", "person": "The people here", "sun": "Light or dark   Ctrl+T",
    "send": "Send   Enter", "up": "Match above   Shift+F3", "down": "Match below   F3",
    "close": "Close   Esc", "menu": "Conversations and menu", "more": "More for this conversation",
}  # fmt: skip
# The program's own icon: a speech bubble on a tile.
_TILE = "r .3 .3 23.7 23.7 5.2"
_BUBBLE = "r 4.8 5.8 19.2 15.4 3.2 p 7.2 14 12 15.2 7.4 19.6"
_DOTS = "d 8.4 10.6 .75 d 12 10.6 .75 d 15.6 10.6 .75"

Pixel = bytes  # red, green, blue and opacity
Shape = Tuple[str, List[float]]  # a letter of ICONS and its numbers


def _parse_shapes(text: str) -> Iterator[Shape]:
    """Yield the shapes of a text like those in ICONS, lines cut into straight segments."""
    for kind, words in re.findall(r"([a-z])([^a-z]*)", text):
        numbers = [float(word) for word in words.split()]
        if kind == "l":
            for index in range(0, len(numbers) - 3, 2):
                yield kind, numbers[index : index + 4]
        else:
            yield kind, numbers


def _segment_distance(x: float, y: float, ax: float, ay: float, bx: float, by: float) -> float:
    dx, dy = bx - ax, by - ay
    along = ((x - ax) * dx + (y - ay) * dy) / ((dx * dx + dy * dy) or 1)
    along = min(1.0, max(0.0, along))
    return math.hypot(x - ax - along * dx, y - ay - along * dy)


def _polygon_distance(x: float, y: float, at: Sequence[float]) -> float:
    distance, is_inside = 99.0, False
    for ax, ay, bx, by in zip(at[::2], at[1::2], [*at[2::2], at[0]], [*at[3::2], at[1]]):
        distance = min(distance, _segment_distance(x, y, ax, ay, bx, by))
        if (ay > y) != (by > y) and x < ax + (y - ay) * (bx - ax) / (by - ay):
            is_inside = not is_inside
    return -distance if is_inside else distance


def _shape_distance(x: float, y: float, shape: Shape, pen: float) -> float:
    """Return the distance to the edge of a shape, negative inside; `pen` is half a stroke."""
    kind, at = shape
    if kind == "l":
        return _segment_distance(x, y, *at) - pen
    if kind == "p":
        return _polygon_distance(x, y, at) - pen / 3
    if kind == "r":
        left, top, right, bottom, radius = at
        dx = max(left - x, x - right) + radius
        dy = max(top - y, y - bottom) + radius
        return math.hypot(max(0.0, dx), max(0.0, dy)) + min(0.0, max(dx, dy)) - radius
    distance = math.hypot(x - at[0], y - at[1]) - at[2]
    if kind == "m":
        return max(distance, at[5] - math.hypot(x - at[3], y - at[4]))
    return abs(distance) - pen if kind == "o" else distance - pen / 2


def _rgb(color: str) -> Tuple[int, ...]:
    return tuple(int(color[index : index + 2], 16) for index in (1, 3, 5))


@functools.lru_cache(maxsize=10000)
def _blend(below: Pixel, color: str, opacity: int) -> Pixel:
    """Return a pixel with a colour laid over it; `opacity` is from 0 to 255."""
    kept = below[3] / 255 * (255 - opacity)
    total = opacity + kept or 1
    rgb = [round((old * kept + new * opacity) / total) for old, new in zip(below, _rgb(color))]
    return bytes([*rgb, round(opacity + kept)])


@functools.lru_cache(maxsize=500)
def _opacities(width: int, height: int, text: str, unit: float, pen: float) -> List[bytearray]:
    """Return rows of the opacity of anti-aliased pixels, from 0 to 255."""
    rows = [bytearray(width) for _ in range(height)]

    def fill(left: int, top: int, size: int, shapes: List[Shape]) -> None:
        """Fill a square at once if no edge is in it, else by quarters."""
        if left >= width or top >= height:
            return
        x, y = (left + size / 2) * unit, (top + size / 2) * unit
        distances = [_shape_distance(x, y, shape, pen) / unit for shape in shapes]
        nearest, reach = min(distances), size * 0.71  # from the middle to a corner
        if size == 1 or abs(nearest) > reach + 0.5:
            opacity = bytes([round(255 * min(1.0, max(0.0, 0.5 - nearest)))])
            for row in rows[top : top + size] if opacity != b"\0" else ():
                end = min(width, left + size)
                row[left:end] = opacity * (end - left)
            return
        near = [s for s, distance in zip(shapes, distances) if distance <= nearest + 2 * reach]
        half = size // 2
        for corner in itertools.product((left, left + half), (top, top + half)):
            fill(*corner, half, near)

    fill(0, 0, 1 << (max(width, height) - 1).bit_length(), list(_parse_shapes(text)))
    return rows


def rasterize(
    width: int, height: int, layers: Sequence[Tuple[str, str]], unit: float = 1, pen: float = 0
) -> List[List[Pixel]]:
    """Return rows of pixels: layers of (shapes, color), each over those before.

    A pixel is `unit` wide on the grid of the shapes.
    """
    rows = [[bytes(4)] * width] * height
    for text, color in layers:
        opacities = _opacities(width, height, text, unit, pen)
        rows = [
            [_blend(below, color, opacity) for below, opacity in zip(row, line)]
            for row, line in zip(rows, opacities)
        ]
    return rows


def _mirror(half: List[Any], size: int) -> List[Any]:
    """Return a list of `size` that begins with `half` and ends with its reverse."""
    end = half[: size - len(half)][::-1]
    return half + half[-1:] * (size - len(half) - len(end)) + end


def draw_box(
    width: int, height: int, radius: float, fill: str, outline: str = "", thickness: int = 0
) -> bytes:
    """Return a box with round corners as a PNG file; a quarter is drawn and mirrored."""
    radius = min(radius, width / 2, height / 2)
    box = "r {0} {0} %d %d {1}" % (2 * width, 2 * height)  # whose other corners lie outside
    layers = [(box.format(0, radius), outline or fill)]
    if thickness:
        layers.append((box.format(thickness, max(0.0, radius - thickness)), fill))
    reach = int(max(radius, thickness)) + 2
    corner = rasterize(min(reach, (width + 1) // 2), min(reach, (height + 1) // 2), layers)
    return make_png(_mirror([_mirror(row, width) for row in corner], height))


def draw_icon(size: int, layers: Sequence[Tuple[str, str]]) -> bytes:
    """Return shapes as in ICONS, each layer with its colour, as a square PNG file."""
    unit = 24 / size
    return make_png(rasterize(size, size, layers, unit, pen=max(1.15, unit * 0.55)))


def make_png(rows: Sequence[Sequence[Pixel]]) -> bytes:
    """Return rows of RGBA pixels as a PNG file."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    head = struct.pack(">IIBBBBB", len(rows[0]), len(rows), 8, 6, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + b"".join(row) for row in rows), 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


class ButtonStyle(NamedTuple):
    """A kind of button, in roles of the palette; a fill of "" is that of the surface."""

    surface: str
    text: str
    normal: str
    hover: str
    pressed: str
    outline: str = ""
    font: str = "ui_bold"
    padding: Tuple[int, int] = (16, 9)
    radius: int = 8


_ACCENT = ("on_accent", "accent", "accent_hover", "accent_pressed")
_FLAT = ("", "hover", "selected")
_OUTLINED = ("", "mention", "mention", "banner_text")
BUTTONS = {
    "Accent": ButtonStyle("bg", *_ACCENT),
    "Pill": ButtonStyle("chat", *_ACCENT, radius=17),
    "Banner": ButtonStyle("banner", "banner_text", *_OUTLINED, padding=(12, 3)),
    "Answer": ButtonStyle("field", "text", *_FLAT, "outline", padding=(12, 3)),
    "Outlined": ButtonStyle("bg", "text", *_FLAT, "outline", padding=(12, 6)),
    "Link": ButtonStyle("bg", "link", *_FLAT, font="ui", padding=(8, 4)),
    "ChatLink": ButtonStyle("chat", "link", *_FLAT, font="ui", padding=(8, 6)),
    "Icon": ButtonStyle("chat", "muted", *_FLAT, padding=(7, 7)),
    "IconBg": ButtonStyle("bg", "muted", *_FLAT, padding=(7, 7)),
    "IconField": ButtonStyle("field", "focus", *_FLAT, padding=(7, 7)),
}
FIELDS = {  # frames with a round edge: the surface below, the edge
    "ChatField": ("chat", "outline"), "CardField": ("field", "outline"), "Entry": ("bg", "outline"),
    "Card": ("bg", "line"), "Sheet": ("chat", "outline"),
}  # fmt: skip
LABELS = {  # the surface below, the text, the font
    "Strong": ("bg", "text", "ui_bold"), "Muted": ("bg", "muted", "small"),
    "Error": ("bg", "error", "small"), "Question": ("bg", "text", "small"),
    "Empty": ("chat", "muted", "ui"), "Card": ("field", "text", "ui"),
    "CardStrong": ("field", "text", "room"), "CardMuted": ("field", "muted", "small"),
    "CardError": ("field", "error", "small"), "Hint": ("field", "muted", "chat"),
    "Private": ("field", PRIVATE, "small_bold"), "Public": ("field", "warn", "small_bold"),
    "Banner": ("banner", "banner_text", "ui"), "Invitation": ("banner", "banner_text", "room"),
    "Tip": ("text", "chat", "small"),
}  # fmt: skip
_EMOJI = re.compile("[\U00010000-\U0010ffff\u2600-\u27bf]")
# What Tk draws beside an emoji instead of joining it: the others of a family, colours of the skin,
# variation selectors, the frame of a key.
_UNJOINED = re.compile(
    "((?:\u200d[\u2190-\u2bff\U0001f000-\U0001faff]|[\ufe0e\ufe0f\u20e3\U0001f3fb-\U0001f3ff])+)"
)


class Look:
    """Colours, fonts, sizes and pictures of a theme at a zoom, and the ttk styles made of them."""

    def __init__(self, root: "tk.Tk", theme: str, zoom: int, emoji: str) -> None:
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
        self.font["code"].configure(family=tkfont.nametofont("TkFixedFont").actual("family"))
        # Tk shows a picture only while Python keeps it. All are kept: there are some dozens for
        # each theme and zoom.
        self._picture = functools.lru_cache(maxsize=None)(self._new_picture)
        # Those as wide as their canvas are kept by it: there is one for each size of the window.
        self._wide_picture = functools.lru_cache(maxsize=32)(self._new_picture)
        self.tip: Optional[ttk.Label] = None  # in view
        self.tip_due = ""  # the id of its timer
        self.is_by_key = False  # what opens or gets the focus now does so by the keyboard
        # A colour font would end the program with an X error in an older Tk on X11.
        patch = str(root.tk.call("info", "patchlevel")).split(".")[:3]
        is_new = [int(part) for part in patch if part.isdigit()] >= [8, 6, 11]
        self._show_emoji = emoji == "on" or (emoji != "off" and (is_new or self.system != "x11"))
        self.change(theme, zoom)

    def px(self, size: float) -> int:
        """Return the pixels of this screen for pixels at 96 dpi."""
        return round(size * self._scale)

    def dp(self, size: float) -> int:
        """Return the same for what grows with the text."""
        return round(size * self._scale * self.zoom / 100)

    def change(self, theme: str, zoom: int) -> None:
        """Switch to another theme or zoom."""
        self.theme, self.zoom, self.color = theme, zoom, PALETTES[theme]
        for name, (size, _) in FONTS.items():
            self.font[name].configure(size=-self.dp(size))
        self._root.configure(bg=self.color["bg"])
        style = ttk.Style(self._root)
        name = "hubbub-%s-%d" % (theme, zoom)
        if name not in style.theme_names():
            style.theme_create(name, "clam")
            style.theme_use(name)
            self._define_styles(style)
        style.theme_use(name)

    def follow(self, widget: "tk.Misc", restyle: Action) -> None:
        """Call `restyle` now and after each change, as long as `widget` exists."""
        restyle()
        widget.winfo_id()  # it exists: events do not reach what was never shown
        widget.bind("<<ThemeChanged>>", lambda event: restyle(), "+")

    def hide_tip(self) -> None:
        """Hide the tip, or do not show it."""
        if self.tip_due:
            self._root.after_cancel(self.tip_due)
        if self.tip is not None:
            self.tip.destroy()
        self.tip, self.tip_due = None, ""

    def text(self, text: str) -> str:
        """Return `text` as this Tk can show it, without what it draws beside an emoji."""
        return self.encode(_UNJOINED.sub("", text))

    def encode(self, text: str) -> str:
        """Return `text` as this Tk can hold it: in Python 3.6, emoji as surrogate pairs."""
        if max(text, default="") <= ("\uffff" if self._show_emoji else "\u25ff"):
            return text
        if not self._show_emoji:
            text = _EMOJI.sub("□", text)
        if sys.version_info >= (3, 7):
            return text
        data = text.encode("utf-16-le", "surrogatepass")
        return "".join(map(chr, struct.unpack("<%dH" % (len(data) // 2), data)))

    def shorten(self, text: str, font: str, width: int) -> str:
        """Return as much of `text` as fits into `width` pixels, with an ellipsis if it is cut."""
        measure = self.font[font].measure
        text = self.text(text[:200])
        if measure(text) <= width:
            return text
        fits, too_long = 0, len(text)  # in characters
        while too_long - fits > 1:
            middle = (fits + too_long) // 2
            if measure(text[:middle] + "…") <= width:
                fits = middle
            else:
                too_long = middle
        return text[:fits].rstrip() + "…"

    # Pictures

    def box(
        self,
        width: int,
        height: int,
        radius: int,
        fill: str,
        outline: str = "",
        thickness: int = 0,
        is_kept: bool = True,
    ) -> Any:
        """Return the picture of a box; sizes in pixels, colours as roles or as #rrggbb.

        The caller keeps it if `is_kept` is False.
        """
        fill, outline = self.color.get(fill, fill), self.color.get(outline, outline)
        picture = self._picture if is_kept else self._wide_picture
        return picture(draw_box, width, height, radius, fill, outline, thickness)

    def icon(self, name: str, color: str = "muted", size: int = 18, dot: str = "") -> Any:
        """Return the picture of an icon, with a dot of another colour at its corner."""
        dots = (("d 20 4 3.6", self.color[dot]),) if dot else ()
        return self._picture(draw_icon, self.dp(size), ((ICONS[name], self.color[color]), *dots))

    def dot(self, color: str, size: int) -> Any:
        """Return the picture of a dot, whose shape tells what its colour does."""
        return self._picture(draw_icon, self.dp(size), ((DOTS[color], self.color[color]),))

    def logo(self, size: int) -> Any:
        """Return the program's own icon, so many pixels wide."""
        accent = self.color["accent"]
        layers = (_TILE, accent), (_BUBBLE, "#ffffff"), (_DOTS, accent)
        return self._picture(draw_icon, size, layers)

    def _new_picture(self, draw: Callable[..., bytes], *args: Any) -> Any:
        return tk.PhotoImage(master=self._root, data=draw(*args), format="png")

    # Styles of ttk

    def _define_styles(self, style: "ttk.Style") -> None:
        color, font = self.color, self.font
        style.configure(".", background=color["bg"], foreground=color["text"], font=font["ui"])
        style.configure(".", borderwidth=0, focuscolor=color["bg"])
        style.configure("TButton", width=0)
        style.configure("TLabel", space=self.px(8))  # between icon and text
        for surface in ("bg", "chat", "field", "banner", "line", "focus"):
            style.configure(surface.title() + ".TFrame", background=color[surface])
        for name, (surface, text, face) in LABELS.items():
            options = {"background": color[surface], "foreground": color[text]}
            style.configure(name + ".TLabel", font=font[face], **options)
        for name, (surface, edge) in FIELDS.items():
            self._define_field(style, name, surface, edge)
        self._define_entry(style)
        for name, button in BUTTONS.items():
            self._define_button(style, name, button)
        for surface in ("bg", "chat", "field"):
            self._define_scrollbar(style, surface)

    def _patch(self, radius: int, fill: str, outline: str = "", thickness: int = 0) -> Any:
        """Return a box that ttk can stretch; not small, since its middle is laid in tiles."""
        size = 2 * self.px(radius) + self.px(4) + 80
        return self.box(size, size, self.px(radius), fill, outline, self.px(thickness))

    def _define_field(self, style: "ttk.Style", name: str, surface: str, edge: str) -> None:
        images = (
            self._patch(10, "field", edge, 1),
            ("invalid", self._patch(10, "field", "error", 2)),
            ("focus", self._patch(10, "field", "focus", 2)),
        )
        create_element(style, name + ".field", self.px(12), images)
        style.layout(name + ".TFrame", nest(name + ".field"))
        style.configure(name + ".TFrame", background=self.color[surface])

    def _define_entry(self, style: "ttk.Style") -> None:
        color, text = self.color, self.color["text"]
        style.layout("TEntry", nest("Entry.field", "Entry.padding", "Entry.textarea"))
        style.configure("TEntry", padding=(self.px(12), self.px(9)))
        style.configure("TEntry", foreground=text, insertcolor=text, selectforeground=text)
        style.configure("TEntry", selectbackground=color["selection"])
        style.map("TEntry", foreground=[("disabled", color["muted"])])
        style.layout("Plain.TEntry", nest("Plain.background", "Entry.padding", "Entry.textarea"))
        style.configure("Plain.TEntry", background=color["field"], padding=0)

    def _define_button(self, style: "ttk.Style", name: str, button: ButtonStyle) -> None:
        def patch(fill: str, edge: str = button.outline, thickness: int = 1) -> Any:
            fill = fill or button.surface
            return self._patch(button.radius, fill, edge, thickness if edge else 0)

        ring = "text" if button.normal else "focus"  # which is the accent in the light theme
        images = (
            patch(button.normal),
            ("disabled", patch("hover" if button.normal else "")),
            ("pressed", patch(button.pressed)),
            ("focus", patch(button.normal, ring, 2)),
            ("active", patch(button.hover)),
        )
        create_element(style, name + ".box", self.px(button.radius + 2), images)
        color, padding = self.color, [self.px(part) for part in button.padding]
        layout = nest(name + ".box", "Button.padding", "Button.label")
        name += ".TButton"
        style.layout(name, layout)
        style.configure(name, background=color[button.surface], foreground=color[button.text])
        style.configure(name, font=self.font[button.font], anchor="center", padding=padding)
        style.map(name, foreground=[("disabled", color["muted"])])

    def _define_scrollbar(self, style: "ttk.Style", surface: str) -> None:
        px, color, name = self.px, self.color[surface], surface.title()
        thumb, active = (
            self.box(px(10), px(16), px(5), role, surface, px(2))
            for role in ("thumb", "thumb_active")
        )
        images = (thumb, ("pressed", active), ("active", active))
        create_element(style, name + ".thumb", (px(4), px(6)), images, px(10))
        layout = nest("Vertical.Scrollbar.trough", name + ".thumb")
        name += ".Vertical.TScrollbar"
        style.layout(name, layout)
        style.configure(name, troughcolor=color, bordercolor=color, background=color)
        style.configure(name, lightcolor=color, darkcolor=color)
        style.configure(name, arrowsize=px(10), width=px(10))


def create_element(style: "ttk.Style", name: str, border: Any, images: Any, width: int = 1) -> None:
    """Define an element by pictures: the normal picture, then pairs of a state and a picture."""
    options: Any = {"border": border, "padding": 0, "width": width, "height": 3 * width}
    style.element_create(name, "image", *images, sticky="nswe", **options)


def nest(*elements: str) -> Any:
    """Return a layout for ttk in which each element fills the element before it."""
    layout: List[Any] = []
    for element in reversed(elements):
        inner = {"children": layout} if layout else {}
        layout = [(element, {"sticky": "nswe", "expand": "1", **inner})]
    return layout


# Widgets
# -------


def bind_wheel(canvas: "tk.Canvas", step: Callable[[], int]) -> None:
    """Scroll a canvas, whose units are pixels: by `step` for a notch of the wheel."""

    def scroll(pixels: float) -> str:
        canvas.yview_scroll(round(pixels), "units")
        return "break"

    notch = 1 if sys.platform == "darwin" and tk.TkVersion < 8.7 else 120
    canvas.bind("<MouseWheel>", lambda event: scroll(-event.delta / notch * step()))
    if tk.TkVersion < 8.7:  # with X11
        canvas.bind("<Button-4>", lambda event: scroll(-step()))
        canvas.bind("<Button-5>", lambda event: scroll(step()))
    else:  # pixels, with a sign, in the lower 16 bits; https://core.tcl-lang.org/tips/doc/trunk/tip/684.md
        move = lambda event: scroll(0x8000 - ((event.delta + 0x8000) & 0xFFFF))  # noqa: E731
        canvas.bind("<TouchpadScroll>", move)


def focus_on(widget: "Optional[tk.Misc]", event: "Optional[TkEvent]" = None) -> str:
    """Give a widget the focus; as a handler, instead of what the key does otherwise."""
    if widget is not None:
        widget.focus_set()
    return "break"


def holds_focus(frame: "tk.Misc") -> bool:
    """Return True if the focus is in a frame, or comes back to it with that of the window."""
    return str(frame.tk.call("focus", "-lastfor", frame)).startswith("%s." % frame)


def set_shown(widget: Any, is_shown: bool) -> None:
    """Show a widget where `grid` had it, or hide it."""
    if is_shown != bool(widget.winfo_manager()):
        (widget.grid if is_shown else widget.grid_remove)()


def set_floating(widget: "tk.Widget", is_shown: bool, **place: Any) -> None:
    """Lay a widget over its parent, or take it away."""
    if is_shown:
        widget.place(**place)
    else:
        widget.place_forget()


def wrap_text(label: "ttk.Label", margin: int = 0) -> None:
    """Keep the text of a label as wide as the label, less a margin in pixels."""
    label.bind("<Configure>", lambda event: label.configure(wraplength=event.width - margin))


def style_text(text: "tk.Text", look: Look, surface: str, font: str) -> None:
    """Give a text widget the colours and a font of the look."""
    color = look.color
    text.configure(bg=color[surface], fg=color["text"], insertbackground=color["text"])
    text.configure(selectbackground=color["selection"], selectforeground=color["text"])
    text.configure(inactiveselectbackground=color["selection"], font=look.font[font])


def set_icon(widget: Any, look: Look, icon: str, color: str, size: int) -> None:
    """Show an icon on a button or a label, in each theme and zoom."""
    look.follow(widget, lambda: widget.configure(image=look.icon(icon, color, size)))


def count(text: "tk.Text", unit: str, start: str, end: str) -> int:
    """Return the distance of two indices, in "displaylines" or "ypixels"."""
    return int(text.tk.call(str(text), "count", "-" + unit, start, end))


def utf16_length(text: str) -> int:
    """Return the length of a text in UTF-16 code units, in which Tk 8.6 counts."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def join_surrogates(text: str) -> str:
    """Return a text from Tk with surrogate pairs joined, fit for the network."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class Tip:
    """Words below a widget at which the mouse or the keyboard stays; "" for none.

    `part` returns the top and the height of the part of it that they are about. Look.hide_tip
    hides the one tip in view: any key, click or change of the focus does so (see Keys).
    """

    DELAY = 600  # ms

    def __init__(
        self,
        widget: "tk.Misc",
        look: Look,
        words: Callable[[], str],
        part: Optional[Callable[[], Tuple[int, int]]] = None,
    ) -> None:
        self._widget, self._look, self._words = widget, look, words
        self._part = part or (lambda: (0, widget.winfo_height()))
        for sequence in ("<Enter>", "<FocusIn>"):
            widget.bind(sequence, lambda event: self.wait(), "+")
        for sequence in ("<Leave>", "<FocusOut>", "<Unmap>", "<Destroy>"):
            widget.bind(sequence, lambda event: look.hide_tip(), "+")

    def wait(self) -> None:
        """Show the tip soon, instead of another."""
        self._look.hide_tip()
        self._look.tip_due = self._widget.winfo_toplevel().after(self.DELAY, self._show)

    def _show(self) -> None:
        self._look.hide_tip()
        widget, root, px = self._widget, self._widget.winfo_toplevel(), self._look.px
        words = self._look.text(self._words())
        menus = [w for w in root.children.values() if w.winfo_class() == "Menu"]
        has_menu = any(menu.winfo_viewable() for menu in menus)
        if not words or has_menu or not widget.winfo_viewable():
            return
        self._look.tip = label = ttk.Label(root, style="Tip.TLabel", text=words)
        label.configure(
            padding=(px(8), px(4)), wraplength=min(px(420), root.winfo_width() - px(28))
        )
        x = widget.winfo_rootx() - root.winfo_rootx()
        x += (min(widget.winfo_width(), px(200)) - label.winfo_reqwidth()) // 2
        x = max(px(6), min(x, root.winfo_width() - label.winfo_reqwidth() - px(6)))
        top, height = self._part()
        y = widget.winfo_rooty() - root.winfo_rooty() + top
        below = y + height + px(4)
        has_room = below + label.winfo_reqheight() <= root.winfo_height()
        label.place(x=x, y=below if has_room else y - label.winfo_reqheight() - px(4))


Painter = Callable[["Drawing"], object]


class Drawing:
    """A canvas that `paint` fills with rows, each drawn from both ends inwards.

    `paint` is called soon after `redraw`, and at each change of the size or of the look. Unless it
    sets `left`, `right` and `middle`, the row is the whole canvas. Sizes are in dp, and `dy` is the
    distance from the middle.
    """

    def __init__(
        self, parent: "tk.Misc", look: Look, surface: str, paint: Painter, height: int, margin: int
    ) -> None:
        self._look, self._surface, self._paint = look, surface, paint
        self._height, self._margin = height, margin  # the margin at the left, in pixels at 96 dpi
        self._redraw_id = ""  # the id of a redraw that is due
        self._pictures: List[Any] = []  # in view
        self._cut: List[str] = []  # the texts in view that are cut
        self._is_hovered = self._has_focus = False  # a button
        self.left = self.right = 0  # what is still free of the row, in pixels
        self.middle = 0  # its height in the canvas
        # 10: grid does not lay out anew where a widget asks for a single pixel.
        self.canvas = tk.Canvas(parent, width=10, bd=0, highlightthickness=0)
        self.canvas.configure(takefocus=0)
        self.canvas.bind("<Configure>", lambda event: self.redraw())
        look.follow(self.canvas, self._restyle)

    def redraw(self) -> None:
        if not self._redraw_id:
            self._redraw_id = self.canvas.after_idle(self._redraw)

    def make_button(self, press: Callable[["tk.Misc"], object], words: Callable[[], str]) -> None:
        """Make a button of the whole drawing; its tip has what is cut, and `words`."""
        canvas = self.canvas
        canvas.configure(takefocus=1, cursor="hand2")
        for sequence in ("<Button-1>", "<<Return>>", "<space>", "<<ContextMenu>>"):
            canvas.bind(sequence, lambda event: press(canvas))
        for name in ("Enter", "Leave", "FocusIn", "FocusOut"):
            canvas.bind("<%s>" % name, self._on_edge)
        Tip(canvas, self._look, lambda: "\n".join(filter(None, [*self._cut, words()])))

    def _on_edge(self, event: "TkEvent") -> None:
        if event.type in (tk.EventType.Enter, tk.EventType.Leave):
            self._is_hovered = event.type == tk.EventType.Enter
        else:
            self._has_focus = event.type == tk.EventType.FocusIn
        self.redraw()

    def picture(self, picture: Any, gap: int = 0, dy: int = 0) -> None:
        """Draw a picture at the left end."""
        self._picture(self.left, picture, dy, "w")
        self.left += picture.width() + self._look.dp(gap)

    def dot(self, color: str, size: int = 10, gap: int = 8, dy: int = 0) -> None:
        """Draw a dot at the left end."""
        self.picture(self._look.dot(color, size), gap, dy)

    def avatar(self, name: str, size: int, dot: str = "") -> None:
        """Draw the first letter of a name on its colour at the left end, with a dot or none."""
        dp, left = self._look.dp, self.left
        self.picture(self._disc(size, AVATARS[find_shade(name)]), 10)
        self._text(left + dp(size) // 2, name[:1].upper(), "#ffffff", "ui_bold", 0, "center")
        if dot:
            for picture in (self._disc(14, self._surface), self._look.dot(dot, 10)):
                self._picture(left + dp(size - 4), picture, size // 2 - 4, "center")

    def text(self, text: str, color: str = "text", font: str = "ui", dy: int = 0) -> int:
        """Draw a text into what is free; return its width."""
        shown = self._look.shorten(text, font, self.right - self.left)
        self._cut += [text] if shown != self._look.text(text) else []
        return self._text(self.left, shown, color, font, dy, "w")

    def skip(self, size: int) -> None:
        """Leave free some room at the left end."""
        self.left += self._look.dp(size)

    def sign(self, text: str, color: str = "text") -> None:
        """Draw a sign such as # at the left end, in the room of a dot."""
        self.skip(6)
        self.text(text, color, "ui_bold")
        self.left += self._look.dp(18)

    def marked(self, text: str, spans: Sequence[Span], dy: int) -> None:
        """Draw a text, with parts of it marked as found."""
        look, y = self._look, self.middle + self._look.dp(dy)
        half = look.font["ui"].metrics("linespace") // 2
        edges = [0, *itertools.chain.from_iterable(spans), len(text)]
        for index, (start, end) in enumerate(zip(edges, edges[1:])):
            part = look.shorten(text[start:end], "ui", self.right - self.left)
            width = look.font["ui"].measure(part)
            if index % 2:
                box = self.left, y - half, self.left + width, y + half
                self.canvas.create_rectangle(*box, fill=look.color["find"], width=0)
            self.left += self._text(self.left, part, "text", "ui", dy, "w")
            if part != look.text(text[start:end]):
                break

    def note(self, text: str, dy: int = 0) -> None:
        """Draw a small text at the right end."""
        width = self._text(self.right, text, "muted", "small", dy, "e")
        self.right -= width + self._look.dp(8)

    def icon(self, name: str, color: str = "muted", size: int = 16, dy: int = 0) -> None:
        """Draw an icon at the right end."""
        self._picture(self.right, self._look.icon(name, color, size), dy, "e")
        self.right -= self._look.dp(size + 8)

    def badge(self, text: str, color: str) -> None:
        """Draw a number on a colour at the right end."""
        dp, font = self._look.dp, self._look.font["caption"]
        width = max(dp(20), font.measure(text) + dp(12))
        self._picture(self.right, self._look.box(width, dp(20), dp(10), color), 0, "e")
        self._text(self.right - width // 2, text, "#ffffff", "caption", 0, "center")
        self.right -= width + dp(8)

    def highlight(self, inset: int, height: int, fill: str, has_focus: bool) -> None:
        """Draw a box behind the row, if it is filled or has the focus; sizes in pixels."""
        if fill or has_focus:
            px, width = self._look.px, self.canvas.winfo_width() - 2 * inset
            ring = ("focus", px(2)) if has_focus else ("", 0)
            box = self._look.box(width, height, px(8), fill or self._surface, *ring, is_kept=False)
            self._picture(inset, box, 0, "w")

    def _disc(self, size: int, color: str) -> Any:
        size = self._look.dp(size)
        return self._look.box(size, size, size // 2, color)

    def _picture(self, x: int, picture: Any, dy: int, anchor: "Anchor") -> None:
        y = self.middle + self._look.dp(dy)
        self._pictures.append(picture)
        self.canvas.create_image(x, y, image=picture, anchor=anchor)

    def _text(self, x: int, text: str, color: str, font: str, dy: int, anchor: "Anchor") -> int:
        fill, face = self._look.color.get(color, color), self._look.font[font]
        text = self._look.text(text)
        y = self.middle + self._look.dp(dy)
        self.canvas.create_text(x, y, text=text, anchor=anchor, fill=fill, font=face)
        return face.measure(text)

    def _restyle(self) -> None:
        color, height = self._look.color[self._surface], self._look.dp(self._height)
        self.canvas.configure(bg=color, height=height)
        self.redraw()

    def _redraw(self) -> None:
        self._redraw_id = ""
        if self.canvas.winfo_exists():
            self.canvas.delete("all")
            self._pictures.clear()
            self._cut.clear()
            self.left = self._look.px(self._margin)
            self.right = self.canvas.winfo_width() - self._look.dp(8)
            self.middle = self.canvas.winfo_height() // 2
            edge, fill = self._look.px(4), "hover" if self._is_hovered else ""
            height = self.canvas.winfo_height() - 2 * edge
            self.highlight(edge, height, fill, self._has_focus)
            self._paint(self)


def add_scrollbar(widget: Any, surface: str, scrolled: Callable[[float, float], object]) -> None:
    """Lay out a widget with a scrollbar, shown while it is of use.

    `scrolled` is called with the part in view, from 0 to 1, whenever that changes.
    """
    style = surface.title() + ".Vertical.TScrollbar"
    bar = ttk.Scrollbar(widget.master, command=widget.yview, takefocus=0, style=style)
    widget.master.columnconfigure(0, weight=1)
    widget.master.rowconfigure(0, weight=1)
    widget.grid(row=0, column=0, sticky="nsew")
    bar.grid(row=0, column=1, sticky="ns")

    def on_scroll(first: str, last: str) -> None:
        bar.set(float(first), float(last))
        set_shown(bar, float(first) > 0 or float(last) < 1)
        scrolled(float(first), float(last))

    widget.configure(yscrollcommand=on_scroll)


class Row(NamedTuple):
    """A row of a RowList, which can be chosen if it has a key."""

    key: Any
    text: str
    paint: Painter
    is_caption: bool = False
    tip: str = ""


def caption(text: str, key: Any = None, tip: str = "") -> Row:
    """Return the row above a group; with a key it has a plus that can be chosen."""

    def paint(row: Drawing) -> None:
        if key is not None:
            row.icon("plus", size=14, dy=5)
        row.text(text, "muted", "caption", dy=5)

    return Row(key, text, paint, True, tip)


def text_row(
    key: Any, text: str, help: str = "", dy: int = 0, sign: str = "", note: str = ""
) -> Row:
    """Return a row with a text, and its explanation: beside it, or `dy` below the middle.

    It stands after a sign, or the avatar of a name; a note stands at the end of the row.
    """

    def paint(row: Drawing) -> None:
        if sign and sign in "#+":
            row.sign(sign)
        elif sign:
            row.avatar(text, 28)
        if note:
            row.note(note)
        color, font = "muted" if key is None else "text", "ui_bold" if sign == "#" else "ui"
        width = row.text(text, color, font, -dy)
        if help and not dy:
            row.left += width
            row.skip(14)
        if help:
            row.text(help, "muted", "small", dy)

    return Row(key, text, paint)


class RowList:
    """Rows on a canvas, of which only those in view are drawn.

    `choose` is called with the key of a row that was clicked or entered by keyboard, `menu` with
    the key and where its context menu opens: an event of the mouse, or this list.
    """

    CAPTION = 34  # dp

    def __init__(
        self, parent: "tk.Misc", look: Look, surface: str, height: int, choose: Callable[[Any], Any]
    ) -> None:
        self._look, self._surface, self._height, self._choose = look, surface, height, choose
        self.menu: Callable[[Any, Spot], object] = lambda key, spot: None
        self.moved: Callable[[Any], object] = lambda key: None  # when an arrow key has moved
        self._inset = 8 if surface == "bg" else 4
        self.least = 0  # if not 0, it asks for room for its rows, and for so many at least
        self.most = 0  # if not 0, it asks for room for so many at most
        self.is_menu = False  # the keyboard's row follows the mouse
        self.fill = ""  # of each row that can be chosen; makes them look like buttons
        self.rows: List[Row] = []
        self._tops: List[int] = [0]  # where each row begins, and where the last row ends
        self.selected: Any = None  # the key of the highlighted row
        self.cursor: Any = None  # of the row that the keyboard is at
        self._to_show: Any = None  # of a row to bring into view at the next redraw
        self._hover: Any = None
        self.frame = ttk.Frame(parent, style=surface.title() + ".TFrame")
        self._drawing = Drawing(self.frame, look, surface, self._paint, 10, 0)
        self.canvas = canvas = self._drawing.canvas
        canvas.configure(yscrollincrement=1)
        add_scrollbar(canvas, surface, lambda first, last: self._drawing.redraw())
        look.follow(canvas, self._measure)
        bind_wheel(canvas, lambda: look.dp(36))
        for sequence in ("<<Return>>", "<space>"):
            canvas.bind(sequence, lambda event: self.enter())
        steps = {"Up": -1, "Down": 1, "Prior": -8, "Next": 8, "Home": -(10**6), "End": 10**6}
        for name, step in {**steps, "FocusIn": 0}.items():
            canvas.bind("<%s>" % name, functools.partial(self.move, step))
        canvas.bind("<FocusOut>", lambda event: self._drawing.redraw())
        canvas.bind("<Motion>", self._on_motion)
        canvas.bind("<Leave>", self._on_motion)
        canvas.bind("<Button-1>", self._on_click)
        canvas.bind("<<ContextMenu>>", self._on_menu)
        self._tip = Tip(canvas, look, self._tip_words, self._tip_part)

    def show(self, rows: List[Row], selected: Any = None) -> None:
        """Show these rows, one of them highlighted."""
        if selected != self.selected:
            self.cursor = self._to_show = selected
        self.rows, self.selected = rows, selected
        self.canvas.configure(takefocus=bool(self._keys()))
        self._measure()

    def move(self, step: int, event: "Optional[TkEvent]" = None) -> str:
        """Move the keyboard's row by so many rows."""
        keys = self._keys()
        if keys:
            index = keys.index(self.cursor) if self.cursor in keys else -1 if step > 0 else 0
            self.cursor = self._to_show = keys[max(0, min(len(keys) - 1, index + step))]
            self._drawing.redraw()
            if step:
                self._tip.wait()
                self.moved(self.cursor)
        return "break"

    @property
    def is_in_use(self) -> bool:
        """True if the mouse is at a row, or the keyboard in the list."""
        return self._hover is not None or self.canvas.focus_get() is self.canvas

    def enter(self) -> str:
        """Choose the keyboard's row."""
        if self.cursor in self._keys():
            self._choose(self.cursor)
        return "break"

    def _keys(self) -> List[Any]:
        return [row.key for row in self.rows if row.key is not None]

    def _measure(self) -> None:
        heights = [self.CAPTION if row.is_caption else self._height for row in self.rows]
        self._tops = [0, *itertools.accumulate(map(self._look.dp, heights))]
        self.canvas.configure(scrollregion=(0, 0, 1, self._tops[-1]))
        if self.least:
            least, most = (self._look.dp(self._height) * n for n in (self.least, self.most))
            height = max(least, self._tops[-1])
            self.canvas.configure(height=min(height, most) if most else height)
        self._drawing.redraw()

    def _scroll_to(self, key: Any) -> None:
        top, height = self.canvas.canvasy(0), self.canvas.winfo_height()
        for index, row in enumerate(self.rows if key is not None else ()):
            if row.key == key:
                above, below = self._tops[index : index + 2]
                if above < top:
                    self.canvas.yview_moveto((above if index > 1 else 0) / self._tops[-1])
                elif below > top + height:
                    self.canvas.yview_moveto((below - height) / self._tops[-1])

    def _paint(self, drawing: Drawing) -> None:
        if min(self.canvas.winfo_width(), self.canvas.winfo_height() * 3) < self._look.px(60):
            return  # not laid out yet
        self._scroll_to(self._to_show)
        self._to_show = None
        top, height = int(self.canvas.canvasy(0)), self.canvas.winfo_height()
        first = max(0, bisect.bisect_right(self._tops, top) - 1)
        last = bisect.bisect_left(self._tops, top + height)
        for row, *edges in zip(self.rows[first:last], self._tops[first:], self._tops[first + 1 :]):
            self._paint_row(drawing, row, *edges)

    def _paint_row(self, drawing: Drawing, row: Row, top: int, bottom: int) -> None:
        canvas, px, inset, fill = self.canvas, self._look.px, self._look.px(self._inset), ""
        if not row.is_caption and row.key is not None:
            hover, selected = ("chosen", "chosen") if self.fill else ("hover", "selected")
            fill = {self._hover: hover, self.selected: selected}.get(row.key, self.fill)
        has_focus = row.key == self.cursor is not None and canvas.focus_get() is canvas
        drawing.left, drawing.right = inset + px(8), canvas.winfo_width() - inset - px(10)
        drawing.middle = (top + bottom) // 2
        drawing.highlight(inset, bottom - top - self._look.dp(2), fill, has_focus)
        row.paint(drawing)

    def _row_at(self, event: "TkEvent") -> Row:
        """Return the row below the mouse; a caption if there is none."""
        index = bisect.bisect_right(self._tops, self.canvas.canvasy(event.y)) - 1
        is_row = event.type != tk.EventType.Leave and index < len(self.rows)
        return self.rows[index] if is_row else caption("")

    def _on_motion(self, event: "TkEvent") -> None:
        hover = self._row_at(event).key
        if hover != self._hover:
            self._hover = hover
            self._tip.wait()
            if self.is_menu and hover is not None:
                self.cursor = hover
                self.selected = hover if self.selected is not None else None
            self._drawing.redraw()

    def _index(self) -> int:
        """Return the index of the row that the mouse is at, else of the keyboard's; -1 for none."""
        key = self.cursor if self._hover is None else self._hover
        keys = [row.key for row in self.rows]
        return keys.index(key) if key is not None and key in keys else -1

    def _tip_words(self) -> str:
        index = self._index()
        return self.rows[index].tip if index >= 0 else ""

    def _tip_part(self) -> Tuple[int, int]:
        top, bottom = self._tops[self._index() :][:2]
        return top - int(self.canvas.canvasy(0)), bottom - top

    def _on_click(self, event: "TkEvent") -> None:
        key = self._row_at(event).key
        if key is not None:
            self.cursor = key
            self._choose(key)

    def _on_menu(self, event: "TkEvent") -> str:
        is_key = event.type == tk.EventType.KeyPress
        key = self.cursor if is_key else self._row_at(event).key
        if key in self._keys():
            self.menu(key, self if is_key else event)
        return "break"

    @property
    def spot(self) -> Tuple[int, int]:
        """The place on the screen below the keyboard's row, in pixels."""
        keys, canvas = [row.key for row in self.rows], self.canvas
        bottom = self._tops[keys.index(self.cursor) + 1] if self.cursor in keys else 0
        y = min(bottom - int(canvas.canvasy(0)), canvas.winfo_height())
        return canvas.winfo_rootx() + self._look.dp(24), canvas.winfo_rooty() + y


def icon_button(
    parent: "tk.Misc",
    look: Look,
    style: str,
    icon: str,
    command: Action,
    size: int = 18,
    tip: Optional[Callable[[], str]] = None,
) -> "ttk.Button":
    """Return a button with an icon, and with its tip, or that of TIPS."""
    button = ttk.Button(parent, style=style + ".TButton", command=command)
    set_icon(button, look, icon, BUTTONS[style].text, size)
    Tip(button, look, tip or (lambda: key_name(TIPS[icon], look.system)))
    return button


class TextBox:
    """A round box to write in, with a note at its right end.

    A tk.Text even for one line: Tk's entry fields corrupt memory when emoji are edited.
    """

    def __init__(
        self, parent: "tk.Misc", look: Look, style: str, font: str, pad: int, changed: Action
    ) -> None:
        self._look, self._changed, px = look, changed, look.px
        self.frame = ttk.Frame(parent, style=style + ".TFrame", padding=(px(6), px(pad)))
        self.frame.columnconfigure(1, weight=1000)
        self.text = tk.Text(self.frame, height=1, width=1, wrap="word", undo=True)
        self.text.configure(bd=0, highlightthickness=0, pady=px(pad))
        self.text.grid(row=0, column=1, sticky="nsew")
        self.hint = ttk.Label(self.text, style="Hint.TLabel", cursor="xterm")  # while it is empty
        for sequence in ("<Button-1>", "<Button-2>", "<ButtonRelease-2>", "<Button-3>"):
            self.hint.bind(sequence, functools.partial(self._pass_to_text, sequence))
        self.note = ttk.Label(self.frame, style="CardMuted.TLabel")
        self.note.grid(row=0, column=2, sticky="se", padx=px(6), pady=(0, px(pad)))
        look.follow(self.text, lambda: style_text(self.text, look, "field", font))
        self.text.bind("<<Modified>>", self._on_modified)
        self.text.bind("<FocusIn>", lambda event: self.frame.state(["focus"]))
        self.text.bind("<FocusOut>", lambda event: self.frame.state(["!focus"]))
        self.text.bind("<<Paste>>", lambda event: self._on_paste(event, "CLIPBOARD"))
        self.text.bind("<<PasteSelection>>", lambda event: self._on_paste(event, "PRIMARY"))
        self._show_hint()

    def get(self) -> str:
        return join_surrogates(self.text.get("1.0", "end-1c"))

    def set(self, text: str) -> None:
        self.text.delete("1.0", "end")
        self.text.insert("1.0", self._look.encode(text))

    def insert(self, text: str) -> None:
        """Insert a text at the cursor, in place of what is selected."""
        if self.text.tag_ranges("sel"):
            self.text.delete("sel.first", "sel.last")
        self.text.insert("insert", self._look.encode(text))
        self.text.see("insert")
        self.text.focus_set()

    def paste(self, text: str) -> None:
        """Insert a text from the clipboard."""
        self.insert(" ".join(text[:200].split()))

    def show_note(self, text: str, is_wrong: bool) -> None:
        """Show a note; if something is wrong, mark the box."""
        style = "CardError" if is_wrong else "CardMuted"
        self.note.configure(text=text, style=style + ".TLabel")
        set_shown(self.note, bool(text))
        self.frame.state(["invalid" if is_wrong else "!invalid"])

    def _on_modified(self, event: "TkEvent") -> None:
        if self.text.edit_modified():
            self.text.edit_modified(False)
            self._show_hint()
            self._changed()

    def _show_hint(self) -> None:
        is_empty = self.text.compare("end-1c", "==", "1.0")
        x = self._look.px(3)
        set_floating(self.hint, is_empty, x=x, y=1, relwidth=1, width=-x)

    def _pass_to_text(self, sequence: str, event: "TkEvent") -> None:
        root: Any = {"rootx": event.x_root, "rooty": event.y_root}
        self.text.event_generate(sequence, x=event.x, y=event.y, **root)

    def _on_paste(self, event: "TkEvent", selection: str) -> str:
        try:
            text: str = self.text.tk.call("tk::GetSelection", str(self.text), selection)
        except tk.TclError:
            return "break"  # no text there
        if selection == "PRIMARY":  # of X11: the middle button pastes what is selected anywhere
            self.text.tag_remove("sel", "1.0", "end")
            self.text.mark_set("insert", "@%d,%d" % (event.x, event.y))
        self.paste(join_surrogates(text[:MAX_PASTE]).replace("\0", ""))
        return "break"


class Field(TextBox):
    """A line to write in; `changed` is called when its text has changed."""

    def __init__(
        self, parent: "tk.Misc", look: Look, style: str, changed: Action, icon: str = ""
    ) -> None:
        super().__init__(parent, look, style, "ui", 5, changed)
        self.text.configure(wrap="none", padx=look.px(6))
        if icon:
            label = ttk.Label(self.frame, style="Card.TLabel")
            set_icon(label, look, icon, "muted", 16)
            label.grid(row=0, column=0, padx=(look.px(5), 0))
        self.text.bind("<Tab>", lambda event: focus_on(self.text.tk_focusNext()))
        self.text.bind("<<PrevWindow>>", lambda event: focus_on(self.text.tk_focusPrev()))

    def get(self) -> str:
        return super().get().strip()

    def set(self, text: str) -> None:
        super().set(text)
        self.focus()

    def focus(self) -> None:
        """Take the focus, with all of the text selected."""
        self.text.focus_set()
        self.text.tag_add("sel", "1.0", "end-1c")


def get_line(entry: "ttk.Entry") -> str:
    """Return the text of an entry field as a line; in a paste there may be more."""
    return protocol.clean(join_surrogates(entry.get()), MAX_PASTE).strip()


def fits_entry(text: str) -> bool:
    """Return False for emoji: Tk's entry fields cannot edit them, and need none here."""
    return max(text, default="") <= "\uffff"


class Suggestions:
    """The list above a message box of what the word before its cursor may become."""

    ROWS, HEIGHT = 8, 30  # in view at most; of a row, in dp

    def __init__(self, parent: "tk.Misc", look: Look, choose: Callable[[int], object]) -> None:
        self._look = look
        self.frame = ttk.Frame(parent, style="Sheet.TFrame", padding=look.px(5))
        self.list = RowList(self.frame, look, "field", self.HEIGHT, choose)
        self.list.frame.pack(fill="both", expand=True)

    @property
    def is_open(self) -> bool:
        return bool(self.frame.winfo_manager())

    def show(self, found: Sequence[Suggestion], index: int, box: "tk.Misc") -> None:
        """Show suggestions, one of them chosen, above a box; none close the list."""
        if not found and not self.is_open:
            return
        rows = [text_row(n, f.word + f.args, f.help) for n, f in enumerate(found)]
        self.list.show(rows, index)
        self.list.canvas.configure(takefocus=0)
        height = self._look.dp(self.HEIGHT) * min(self.ROWS, len(rows)) + self._look.px(10)
        size = {"height": height, "relwidth": 0.95 if any(f.help for f in found) else 0.6}
        place = {"in_": box, "y": -self._look.px(4), "anchor": "sw", "bordermode": "outside"}
        set_floating(self.frame, bool(rows), **size, **place)


class Composer(TextBox):
    """The message box: Enter submits its text, Shift+Enter begins a line.

    What `submit` returns of a text stays. `completer` gives what Tab completes, and suggests as the
    user types. `describe` returns the notice above a text, its icon one of NOTICES, after `rewrite`
    has changed the text; `answer` is the button of its offer. `emptied` is called when the user
    has deleted all of the text. `hidden` covers the text while the password of a command is
    written there, which is run alone. `ask_paste` is called with the number of lines and the
    function that inserts them; it returns True if it asks the user first.
    """

    LIMIT = 2000  # characters
    MAX_ROWS = 5  # that the box grows to
    NOTICES = {  # by icon: the style, the colour of the icon, and the cursor
        "lock": ("Private", PRIVATE, ""),
        "announce": ("Public", "warn", ""),
        "warn": ("Public", "warn", ""),
        "close": ("CardMuted", "muted", "hand2"),  # a click gives it up
    }

    def __init__(self, parent: "tk.Misc", look: Look, submit: Callable[[str], str]) -> None:
        self._submit = submit
        self.completer: Callable[[], Completer] = lambda: Completer(lambda begun, is_first: [])
        self.describe: Callable[[str], Notice] = lambda text: Notice()
        self.emptied: Callable[[], object] = lambda: None
        self.rewrite: Callable[[str], str] = lambda text: text
        self.ask_paste: Callable[[int, Action], bool] = lambda lines, insert: False
        self._history: List[str] = []  # what was sent, for Up and Down
        self._history_index = 0  # the length of the history while something new is written
        self._unfinished = ""  # what was being written before Up
        self._seen = "", 0  # the draft for which suggestions were last looked for
        self._command = ""  # that lacks only the password
        self._password = ""  # a new one, while it is asked for again
        super().__init__(parent, look, "ChatField", "chat", 6, self._on_change)
        self.suggestions = Suggestions(parent, look, self._choose)
        self.notice = ttk.Label(self.frame, compound="left", padding=(look.px(10), look.px(3)))
        self.notice.grid(row=0, column=1, sticky="ew")
        self.answer = ttk.Button(self.frame, style="Answer.TButton")
        self.answer.grid(row=0, column=2, columnspan=2, sticky="e", pady=look.px(2))
        self.frame.columnconfigure(2, weight=1)  # else the column of the send button would grow
        wrap_text(self.notice, look.px(40))
        look.follow(self.notice, self.show_notice)
        self.frame.bind("<Configure>", lambda event: self.show_notice())
        self.text.configure(padx=look.px(10))
        self.text.grid(row=1, columnspan=2)
        # Not in the text: Tk tells no widget that it gets the focus from one inside it.
        self.hidden = ttk.Entry(self.frame, style="Plain.TEntry", show="•", font=look.font["chat"])
        is_valid = (self.hidden.register(fits_entry), "%P")
        self.hidden.configure(validate="key", validatecommand=is_valid)
        self.button = icon_button(self.frame, look, "IconField", "send", self._on_button)
        self.button.grid(row=1, column=3, rowspan=2, sticky="s")
        self.note.grid(row=2, column=1, columnspan=2)  # below, so that no line gets shorter
        text = self.text
        for widget in (text, self.hidden):
            widget.bind("<<Return>>", self._on_return)
        text.bind("<FocusIn>", lambda event: self._command and focus_on(self.hidden), "+")
        text.bind("<FocusOut>", lambda event: self._suggest(False), "+")
        for key in ("Shift-Return", "Control-Tab", "Shift-Up", "Shift-Down"):
            text.bind("<%s>" % key, lambda event: None)  # as in every text of Tk
        text.bind("<Tab>", lambda event: self._on_tab(1))
        text.bind("<<PrevWindow>>", lambda event: self._on_tab(-1))  # Shift+Tab
        self.hidden.bind("<<PrevWindow>>", lambda event: focus_on(text.tk_focusPrev()))
        self.hidden.bind("<FocusIn>", lambda event: self.frame.state(["focus"]))
        self.hidden.bind("<FocusOut>", lambda event: self.frame.state(["!focus"]))
        text.bind("<Up>", lambda event: self._on_arrow(-1))
        text.bind("<Down>", lambda event: self._on_arrow(1))
        text.bind("<Configure>", lambda event: self._grow())
        changed = "Changed" + str(text)  # a tag for what is to be done after Tk's own bindings
        text.bindtags((*text.bindtags()[:2], changed, *text.bindtags()[2:]))
        text.bind_class(changed, "<Key>", self._on_key)
        text.bind_class(changed, "<Button>", lambda event: self._suggest(False))
        self._on_change()

    def set(self, text: str) -> None:
        if text != self.get():
            super().set(text)
            self.text.edit_reset()
            self._on_change()
        self._suggest(False)
        self._history_index = len(self._history)

    def insert(self, text: str) -> None:
        if self._command:
            if self.hidden.selection_present():
                self.hidden.delete("sel.first", "sel.last")
            self.hidden.insert("insert", text)
        else:
            super().insert(text)
            self._suggest(False)

    def mention(self, name: str) -> None:
        """Insert a name as Tab completes it: for all to read, unlike "@name" at the start."""
        before = self.get()[: self._cursor()]
        space = "" if before[-1:] in ("", " ", "\n") else " "
        super().insert(space + name + (" " if before.strip() else ": "))

    def paste(self, text: str) -> None:
        lines = (protocol.clean(line, MAX_PASTE) for line in (text + "\n").splitlines())
        text = "\n".join(lines)  # as it is sent: the notice is about nothing else
        if not self.ask_paste(len(split_lines(text)), lambda: self.insert(text)):
            self.insert(text)

    def give_back(self, rest: str) -> None:
        """Put lines that were refused before what is in the box, perhaps a draft."""
        self.set("\n".join(filter(None, [rest, self.get()])))

    def _hide_password(self) -> None:
        """Cover the text if a line of it is a command with a password, and take that out of it."""
        lines = enumerate(map(split_secret, self.get().split("\n")), 1)
        found = [(bool(word), row, command, word) for row, (command, word) in lines if command]
        if found and not self._command:
            _, row, command, password = min(found)  # first those whose password is missing
            self.text.delete("%d.0" % row, "%d.0" % (row + 1))
            self.text.edit_reset()
            self.ask_password(command, password)

    def ask_password(self, command: str, password: str = "", first: str = "") -> None:
        """Cover the text with the hidden field for a command's password; "" uncovers it.

        `first` is a new password that was entered before.
        """
        self._command, self._password = command, first
        self.hidden.delete(0, "end")
        self.hidden.insert(0, password)
        set_floating(self.hidden, bool(command), in_=self.text, relwidth=1, relheight=1)
        self.hidden.update_idletasks()  # only what is mapped takes the focus at once
        self._suggest(False)
        (self.hidden if command else self.text).focus_set()
        self._on_change()  # another password may be there

    def ask_again(self, command: str, reason: str) -> None:
        """Ask for a password that was refused, unless another is asked for."""
        if not self._command:
            self.ask_password(command)
            self.show_note(reason, True)

    def _enter_password(self) -> None:
        """Run the command with its password; ask for a new one twice."""
        command, password = self._command, get_line(self.hidden)
        is_new = command.strip().lower() == "/register" and not protocol.password_error(password)
        if self._password and password != self._password:
            self.show_note("This is not the same password.", True)
        elif is_new and not self._password:
            return self.ask_password(command, first=password)
        else:
            self.ask_password("")
            self.give_back(self._submit(command + password))
        return self.hidden.selection_range(0, "end")  # what was refused is written anew

    def cancel(self) -> bool:
        """Close the suggestions, or give up the password; return False if there is neither."""
        if self.suggestions.is_open:
            self._suggest(False)
        elif self._command:
            self.ask_password("")
        else:
            return False
        return True

    def show_notice(self) -> None:
        """Show where the draft goes, if that is not plainly to the room."""
        notice = self.describe(self._command + self._password or self.get())
        style, color, cursor = self.NOTICES[notice.icon]
        self.notice.configure(text=self._look.text(notice.words), style=style + ".TLabel")
        self.notice.configure(image=self._look.icon(notice.icon, color, 14), cursor=cursor)
        set_shown(self.notice, bool(notice.words))
        if not notice.offer and self.frame.focus_lastfor() is self.answer:
            self.text.focus_set()
        verb, *_ = notice.offer.split() or [""]
        is_narrow = self.frame.winfo_width() < self._look.dp(440)
        offer = "%s privately" % verb if is_narrow else notice.offer
        self.answer.configure(text=self._look.text(offer))
        set_shown(self.answer, bool(notice.offer))

    def _on_return(self, event: "Optional[TkEvent]" = None) -> str:
        text = self.get()
        if self._command:
            self._enter_password()
        elif self.suggestions.is_open and not self.completer().is_whole:
            self._complete(0)
        elif len(text) > self.LIMIT:
            self.text.bell()
        else:
            self.set("")
            rest = self._submit(text)
            is_kept = bool(text.strip()) and not rest and not is_secret(text)
            if is_kept and text not in self._history[-1:]:
                self._history.append(text)
            self.give_back(rest)
        return "break"

    def _replace(self, text: str, after: str) -> None:
        """Put a text into the box, with the cursor before `after`, its end."""
        self.set(text)
        self.text.mark_set("insert", "end-1c - %d indices" % utf16_length(after))
        self.text.see("insert")

    def _on_button(self) -> None:
        self.text.focus_set()
        self._on_return()

    def _on_key(self, event: "TkEvent") -> None:
        if self._seen[0] and not self.get():
            self.emptied()
        is_character = bool(event.char) and event.char.isprintable()
        self._suggest(is_character or event.keysym == "BackSpace")

    def _suggest(self, is_typed: bool) -> None:
        """Suggest what the word may become that was just typed, but nothing for other changes."""
        before, self._seen = self._seen, (self.get(), self._cursor())
        if not is_typed or self._seen != before:
            found = self.completer().suggest(*self._seen, "/@#") if is_typed else []
            self.suggestions.show(found, 0, self.frame)

    def _cursor(self) -> int:
        return len(join_surrogates(self.text.get("1.0", "insert")))

    def _choose(self, index: int) -> None:
        self.completer().index = index
        self._complete(0)

    def _complete(self, step: int) -> bool:
        """Complete the word before the cursor; return False if nothing completes it."""
        draft = self.completer().complete(self.get(), self._cursor(), step)
        if draft is not None:
            self._replace(draft[0], draft[0][draft[1] :])
        return draft is not None

    def _on_tab(self, step: int) -> str:
        """Take a suggestion, or complete the word before the cursor; else leave the box."""
        if not self._complete(0 if self.suggestions.is_open else step):
            focus_on(self.text.tk_focusNext() if step > 0 else self.text.tk_focusPrev())
        return "break"

    def _on_arrow(self, step: int) -> Optional[str]:
        """Go through the suggestions, or what was sent, at the first or last row of the box."""
        if self.suggestions.is_open:
            completer = self.completer()
            completer.index = max(0, min(len(completer.found) - 1, completer.index + step))
            self.suggestions.show(completer.found, completer.index, self.frame)
            return "break"
        if count(self.text, "displaylines", "insert", "1.0" if step < 0 else "end-1c"):
            return None
        index = self._history_index + step
        if 0 <= index <= len(self._history):
            if self._history_index == len(self._history):
                self._unfinished = self.get()
            self.set([*self._history, self._unfinished][index])
            self._history_index = index
        return "break"

    def _on_change(self) -> None:
        self._hide_password()
        before = self.get()
        if self.rewrite(before) != before:
            self._replace(self.rewrite(before), before[self._cursor() :])
        length = len(self.get())
        self.button.configure(takefocus=bool(length or self._command))
        self._show_hint()
        self.show_notice()
        words = "{:,} / {:,}".format(length, self.LIMIT) if length >= 0.9 * self.LIMIT else ""
        self.show_note(words, length > self.LIMIT)
        self.text.after_idle(self._grow)

    def _grow(self) -> None:
        if self.text.winfo_exists():
            rows = max(1, min(self.MAX_ROWS, count(self.text, "displaylines", "1.0", "end")))
            if int(self.text.cget("height")) != rows:
                self.text.configure(height=rows)


class Bar:
    """A line of text with buttons, above the transcript; hidden while there is none.

    `leave` is called when what has the focus vanishes from it.
    """

    def __init__(self, parent: "tk.Misc", look: Look, leave: Action, style: str = "Banner") -> None:
        px = look.px
        self._look, self._leave = look, leave
        self._shown = ("", "warn", [])  # type: Tuple[str, str, List[Tuple[str, Action]]]
        self.frame = ttk.Frame(parent, style="Banner.TFrame")
        self.frame.configure(padding=(px(20), px(6), px(14), px(6)))
        self.frame.columnconfigure(0, weight=1)
        self.text = ttk.Label(self.frame, style=style + ".TLabel", compound="left")
        self.text.configure(padding=(0, px(5)))
        self.text.grid(sticky="ew")
        wrap_text(self.text, px(36))  # beside the icon
        self._side = ttk.Frame(self.frame, style="Banner.TFrame")  # of the buttons
        for part in (self.frame, self._side):
            part.bind("<Configure>", lambda event: self._lay_out())
        self.buttons: List[ttk.Button] = []
        look.follow(self.text, self._show_icon)

    def show(self, text: str, icon: str, buttons: Sequence[Tuple[str, Action]] = ()) -> None:
        """Show a text and buttons; "" hides the bar."""
        before, self._shown = self._shown, (text, icon, list(buttons))
        if self._shown == before:
            return
        self._show_icon()
        self.text.configure(text=self._look.text(text))
        if before[2] != self._shown[2]:
            had_focus = holds_focus(self.frame)
            while self.buttons:
                self.buttons.pop().destroy()
            tags = self.frame.bindtags()
            keys = tags[: tags.index(str(self.frame))]  # the window's, before the widget's own
            for label, action in buttons:
                button = ttk.Button(self._side, text=label, style="Banner.TButton", command=action)
                button.bindtags((*keys, *button.bindtags()))
                self.buttons.append(button)
            self._lay_out()
            if had_focus:
                self._leave()
        set_shown(self.frame, bool(text))

    def fit(self, used: int, room: int) -> int:
        """Hide the bar unless it is the first or fits; return the height that is used then."""
        needed = used + self.frame.winfo_reqheight()
        is_shown = bool(self._shown[0]) and (not used or needed <= room)
        if not is_shown and holds_focus(self.frame):
            self._leave()
        set_shown(self.frame, is_shown)
        return needed if is_shown else used

    def _lay_out(self) -> None:
        """Put the buttons below the text, or below each other, where there is little room."""
        gap, room = self._look.px(8), self.frame.master.winfo_width() - self._look.px(34)
        rows, left = [[]], room  # type: List[List[ttk.Button]], int
        for button in self.buttons:
            left -= button.winfo_reqwidth() + gap
            if left < 0 and rows[-1]:
                rows.append([])
                left = room - button.winfo_reqwidth() - gap
            rows[-1].append(button)
        for index, row in enumerate(filter(None, rows)):
            for column, button in enumerate(row, 9 - len(row)):  # all rows end at the right
                button.grid(row=index, column=column, padx=(gap, 0), pady=gap // 4, sticky="e")
            row[0].grid(column=0, columnspan=10 - len(row))
        is_narrow = len(rows) > 1 or left < self._look.dp(240)
        self._side.grid(row=int(is_narrow), column=int(not is_narrow), sticky="e")

    def _show_icon(self) -> None:
        self.text.configure(image=self._look.icon(self._shown[1], "banner_text"))


class Sheet:
    """A list inside the window to choose from, below a text, a field that narrows it, or both.

    There is a field if `hint` says what it is for. `rows` returns the rows for its text. `closed`
    gets the key of the row that was chosen, or None. A wide sheet has room for rows of two lines.
    """

    ROWS = 9  # in view

    def __init__(
        self,
        parent: "tk.Misc",
        look: Look,
        words: Tuple[str, str, str],
        rows: Callable[[str], List[Row]],
        closed: Callable[[Any], object],
        is_wide: bool = False,
    ) -> None:
        px, (title, text, hint) = look.px, words
        self._rows, self._closed = rows, closed
        self._seen: Optional[str] = None  # the words that the rows in view are for
        self.is_form = bool(text and hint)  # what is written there is not lost by a click beside it
        self.frame = frame = ttk.Frame(parent, style="Sheet.TFrame", padding=px(20))
        frame.columnconfigure(0, weight=1)
        frame.rowconfigure(3, weight=1)
        heading = ttk.Label(frame, style="CardStrong.TLabel", text=title)
        heading.grid(row=0, sticky="w", pady=(0, px(8)))
        self.button = icon_button(frame, look, "IconField", "close", self.close, 14)
        self.button.grid(row=0, column=1, sticky="ne")
        self.list = RowList(frame, look, "field", 46 if is_wide else 36, self.close)
        self.list.is_menu, self.list.most = True, self.ROWS
        self.list.least = 1 if text else self.ROWS
        self.list.frame.grid(row=3, columnspan=2, sticky="nsew")
        canvas, width = self.list.canvas, 600 if is_wide else 440
        look.follow(canvas, lambda: canvas.configure(width=look.dp(width)))
        self.field: Optional[Field] = None
        stops: List[tk.Misc] = [canvas, self.button]  # of Tab, which stays inside
        if text:
            label = ttk.Label(frame, style="Card.TLabel", text=text)
            label.grid(row=1, columnspan=2, sticky="ew", pady=(0, px(12)))
            label.configure(wraplength=look.dp(width))
            wrap_text(label)
        if hint:
            self.field = Field(frame, look, "CardField", self.refresh)
            self.field.hint.configure(text=hint)
            self.field.frame.grid(row=2, columnspan=2, sticky="ew", pady=(0, px(8)))
            for key, step in (("Up", -1), ("Down", 1), ("Prior", -8), ("Next", 8)):
                self.field.text.bind("<%s>" % key, functools.partial(self._move, step))
            self.field.text.bind("<<Return>>", lambda event: self.list.enter())
            stops.insert(0, self.field.text)
        for stop, before, after in zip(stops, [stops[-1], *stops], [*stops[1:], stops[0]]):
            stop.bind("<Tab>", functools.partial(focus_on, after))
            stop.bind("<<PrevWindow>>", functools.partial(focus_on, before))
        self.refresh()
        stops[0].focus_set()

    def close(self, key: Any = None) -> None:
        self.frame.destroy()
        self._closed(key)

    @property
    def words(self) -> str:
        """The text of the field."""
        return self.field.get() if self.field is not None else ""

    def fill(self, words: str) -> None:
        """Write into the field."""
        if self.field is not None and words:
            self.field.set(words)
            self.refresh()

    def refresh(self) -> None:
        """Show the rows as they are now."""
        rows = self._rows(self.words)
        keys = [row.key for row in rows if row.key is not None]
        is_kept = self._seen == self.words and self.list.selected in keys
        self._seen = self.words
        first = keys[0] if keys and self.field else None
        self.list.show(rows, self.list.selected if is_kept else first)
        self.list.move(0)  # rows that have come late are chosen by Enter, too

    def _move(self, step: int, event: "TkEvent") -> str:
        self.list.move(step)
        self.list.selected = self.list.cursor
        return "break"


# Views
# -----


def day_name(day: str, today: str) -> str:
    """Return a day, given as 2026-11-26, in words."""
    then, now = (datetime.datetime.strptime(text, "%Y-%m-%d") for text in (day, today))
    if (now - then).days in (0, 1):
        return ("Today", "Yesterday")[(now - then).days]
    name = "%s %d %s" % (then.strftime("%A"), then.day, then.strftime("%B"))
    return name if then.year == now.year else "%s %d" % (name, then.year)


def continues(above: Optional[Entry], entry: Entry, seconds: float) -> bool:
    """Return True if an entry is by the same sender as that above it, at most so much later."""
    if above is None or not entry.line.nickname:
        return False
    old, new = above.line, entry.line
    is_same = (old.kind, old.head, old.nickname) == (new.kind, new.head, new.nickname)
    return is_same and 0 <= new.when - old.when <= seconds


def is_code(lines: Sequence[str]) -> bool:
    """Return True for several lines of which at least one is indented, or opens a fence."""
    return len(lines) > 1 and any(line.startswith(("  ", "```")) for line in lines)


def find_code(entries: Sequence[Entry], is_begun: bool = False) -> Set[Entry]:
    """Return the lines of pastes that are code; `is_begun`: the first continues a line that is."""
    pastes: List[List[Entry]] = []
    for entry in entries:
        if not pastes or not continues(pastes[-1][-1], entry, PASTE_TIME):
            pastes.append([])
        pastes[-1].append(entry)
    begun = pastes[:1] if is_begun else []
    code = [paste for paste in pastes if is_code([entry.line.text for entry in paste])]
    return set(itertools.chain.from_iterable(begun + code))


# What a user can do with a failed message: tags of its buttons, and their words
FAILED_ACTIONS = {"retry": "Try again", "edit": "Edit", "discard": "Discard"}


def render(
    entry: Entry, styles: Tuple[str, ...], nickname: str, note: str, look: Look
) -> List[Any]:
    """Return the line of an entry: texts, fit for Tk, and tags, in turn.

    `styles` are tags of the line, that of the entry last; "code", if first, for its text alone.
    """
    line, code = entry.line, ("code",) if "code" in styles else ()  # type: Line, Tuple[str, ...]
    base = ("line", *styles[len(code) :])
    base = ("mention", *base) if entry.is_mention else base
    has_failed = entry.delivery in FAILED
    kind = "warn" if line.kind == FROM_SYSTEM else line.kind
    tags = (*base, "error" if has_failed else kind if entry.delivery == SENT else "muted")
    is_other, is_repeat = line.kind == FROM_OTHERS, "repeat" in styles
    name = "name%d" % find_shade(line.nickname) if is_other else "name"
    name = "muted" if is_repeat and is_other else tags[-1] if is_repeat else name
    weight = ("name",) if code else ()  # the same on all lines, so that they stand in columns
    person = ("person",) if line.nickname and not entry.is_own else ()
    parts: List[Any] = [
        line.clock + " ",
        (*base, "time"),
        line.head,
        (*tags, name, *weight, *person),
    ]
    tags += code
    pattern = mention_pattern(nickname if entry.is_mention and nickname else "\0")
    words, end = " " + line.text, 0
    rooms = [match.span() for match in _ROOM.finditer(words)]
    for start, stop in [*sorted(find_links(words) + rooms), (len(words), len(words))]:
        if start < end:
            continue  # a part of a link that looks like a room
        for index, part in enumerate(pattern.split(words[end:start])):
            parts += [part, (*tags, "name") if index % 2 else tags]  # the nickname in bold
        place = ("room",) if (start, stop) in rooms else ()
        parts += [words[start:stop], (*tags, "link", *place)]
        end = stop
    if note:
        parts += ["  (%s)" % note, (*base, "aside", "muted")]
    if has_failed:
        for action, words in FAILED_ACTIONS.items():
            gap, words = "   " if action == "retry" else "  ·  ", words.replace(" ", "\xa0")
            parts += [gap, (*base, "aside", "muted"), words, (*base, "aside", "link", action)]
    shown: List[Any] = []
    for part, tags in zip([*parts[::2], "\n"], [*parts[1::2], base + code]):
        for index, piece in enumerate(_UNJOINED.split(part)):
            if piece:
                shown += [look.encode(piece), (*tags, "hidden") if index % 2 else tags]
    return shown


class Transcript:
    """The entries of a conversation, to read, search and copy.

    It shows a tail of `conversation.entries`, each entry with a tag of its own and, above it, the
    headings that belong to it: its day, or the number of new messages. A Change touches the tags
    of its entries alone. A view at the end stays there; otherwise what is read stays where it is.
    At the top, earlier entries are added: those of the conversation first, then the server's,
    which `fetch_older` asks for. `scrolled` is called when another part is in view.
    """

    PAGE = 200  # entries shown at first, and added at the top
    MAX_SHOWN = 5000  # past it a view at the end starts anew with its last page
    CLOCK = "[00:00:00] "

    def __init__(self, parent: "tk.Misc", look: Look) -> None:
        self._look = look
        self.nickname = ""  # of the user, to be set in bold where it is mentioned
        self.fetch_older: Callable[[Conversation], object] = lambda conversation: None
        self.scrolled: Action = lambda: None
        self.conversation = Conversation("", CONSOLE)
        self._entries: List[Entry] = []  # those in the text
        self._unused_tags: List[str] = []  # of entries that are gone
        self._code: Set[Entry] = set()  # those of them that are shown as code
        self._today = ""  # the date, as last seen
        self._found: Dict[str, Sequence[Hit]] = {}  # by tag: what a search has found
        self._marked: Set[Entry] = set()  # those of the text whose hits are marked
        self._selected = ""  # the ranges of the selection, when last looked at
        self.at_end = True  # the last line is in view
        self.unseen = 0  # entries added below the view
        self.covered = 0  # pixels at the bottom, by a button
        self.cursor: Optional[Entry] = None  # chosen with the keyboard
        self.frame = ttk.Frame(parent, style="Chat.TFrame")
        self.text = text = tk.Text(self.frame, wrap="word", state="disabled", width=1, height=1)
        text.configure(bd=0, highlightthickness=0, cursor="arrow", insertwidth=0)
        text.configure(padx=0, pady=look.px(10), takefocus=1)
        add_scrollbar(text, "chat", self._on_scroll)
        text.mark_set("top", "1.0")  # what was at the top when last looked at
        self.empty = ttk.Label(self.frame, style="Empty.TLabel", justify="center")
        look.follow(text, self._restyle)
        focus = ttk.Frame(self.frame, style="Focus.TFrame", width=look.px(2))  # if a key gave it
        text.bind("<FocusIn>", lambda event: set_floating(focus, look.is_by_key, relheight=1))
        text.bind("<FocusOut>", lambda event: focus.place_forget())
        text.bind("<Configure>", lambda event: self._keep_in_view())
        text.bind("<<Selection>>", lambda event: self._select_lines())
        text.bind("<Up>", lambda event: self._move(-1))
        text.bind("<Down>", lambda event: self._move(1))
        text.bind("<Shift-Up>", lambda event: self._select_chosen("last", "first"))
        for sequence in ("<Shift-Down>", "<<Copy>>"):
            text.bind(sequence, lambda event: self._select_chosen("first", "last"))
        for tag in ("link", "person"):
            text.tag_bind(tag, "<Enter>", lambda event: text.configure(cursor="hand2"))
            text.tag_bind(tag, "<Leave>", lambda event: text.configure(cursor="arrow"))

    def _restyle(self) -> None:
        look, color, font, text = self._look, self._look.color, self._look.font, self.text
        style_text(text, look, "chat", "chat")
        text.configure(font=(font["time"].actual("family"), -4))  # of the empty line at the end
        left, px = look.px(20), look.px
        hanging = left + font["time"].measure(self.CLOCK)
        text.tag_configure("line", font=font["chat"], lmargin1=left, lmargin2=hanging)
        text.tag_configure("line", rmargin=px(20), spacing1=px(5), spacing2=px(1), spacing3=px(1))
        text.tag_configure("repeat", spacing1=px(1))
        text.tag_configure("quote", font=font["small"], foreground=color["muted"], rmargin=px(20))
        text.tag_configure("quote", lmargin1=hanging, lmargin2=hanging, spacing1=px(5))
        for tag, role, face in (("day", "muted", "small"), ("new", "error", "small_bold")):
            text.tag_configure(tag, font=font[face], foreground=color[role], justify="center")
            text.tag_configure(tag, spacing1=px(12), spacing3=px(10))
        for tag in ("server", "own", "others", "private", "muted", "warn", "error", "time", "link"):
            text.tag_configure(tag, foreground=color[tag])
        text.tag_configure("code", font=font["code"], background=color["code"])
        text.tag_configure("time", font=font["time"])
        text.tag_configure("name", font=font["name"])
        for tag in ("name%d" % index for index in range(len(AVATARS))):
            text.tag_configure(tag, font=font["name"], foreground=color[tag])
        text.tag_configure("link", underline=True)
        text.tag_configure("hidden", elide=True)
        text.tag_configure("mention", background=color["mention"], spacing1=px(3), spacing3=px(3))
        text.tag_configure("cursor", background=color["selected"])
        text.tag_configure("find", background=color["find"], foreground=color["text"])
        text.tag_configure("found", background=color["found"], foreground=color["on_found"])
        for tag in ("code", "find", "found"):  # not left of a wrapped line
            text.tag_configure(tag, {"lmargincolor": color["chat"]})
        text.tag_raise("sel")
        self._keep_in_view()

    # What is shown

    def open(self, conversation: Conversation) -> None:
        """Show the end of a conversation."""
        with self._editing():
            self.conversation, self.at_end = conversation, True
            self._fill()

    def apply(self, changes: Sequence[Change]) -> None:
        """Show changes of the conversation in view, in their order."""
        if not changes:
            return
        added = sum(len(change.entries) for change in changes if change.kind == ADDED)
        is_too_much = self.at_end and len(self._entries) + added > self.MAX_SHOWN
        with self._editing():
            has_hidden_neighbour = any(
                c.kind == RELOADED or not self._is_shown(c.before) for c in changes
            )
            if is_too_much or has_hidden_neighbour or self._today != time.strftime("%Y-%m-%d"):
                self._fill()
            else:
                self._apply(changes)

    def _apply(self, changes: Sequence[Change]) -> None:
        moves = [change for change in changes if change.kind in (ADDED, REMOVED)]
        for (kind, before), group in itertools.groupby(moves, lambda c: (c.kind, c.before)):
            entries = [e for change in group for e in change.entries if self._is_shown(e)]
            if kind == REMOVED:
                self._remove(entries)
            elif before is None:
                self._replace(len(self._entries), len(self._entries), entries)
                if not self.at_end:
                    self.unseen += len(entries)
            elif before in self._entries:  # else they stand above what is shown
                start = self._entries.index(before)
                self._replace(start, start + 1, [*entries, before])
        changed = [
            entry for change in changes if change.kind == CHANGED for entry in change.entries
        ]
        for entry in dict.fromkeys(changed):
            if entry in self._entries:
                start = self._entries.index(entry)
                self._replace(start, start + 2, self._entries[start : start + 2])
        # Some at a time: Tk takes long to delete an old tag. An entry may have come back.
        tags, self._unused_tags = self._unused_tags[:100], self._unused_tags[100:]
        for tag in tags:
            if not self.text.tag_ranges(tag):
                self.text.tag_delete(tag)

    def _is_shown(self, entry: Optional[Entry]) -> bool:
        return entry is None or not (self.conversation.hides_joins and entry.event)

    def _fill(self) -> None:
        """Show the conversation as it is now, from the entry at the top or its last page."""
        entries = self.conversation.shown
        top = self._top()
        first = entries.index(top) if top in entries else len(entries) - self.PAGE
        self.text.delete("1.0", "end")
        tags = [tag for tag in self.text.tag_names() if tag[1:].isdigit()]
        if tags:
            self.text.tag_delete(*reversed(tags))  # the newest first, which Tk is quick to find
        self._unused_tags.clear()
        self._today = time.strftime("%Y-%m-%d")
        self._entries, self._code, self._marked = [], set(), set()
        self._replace(0, 0, entries[max(0, first) :])

    def _remove(self, entries: Sequence[Entry]) -> None:
        gone = set(entries).intersection(self._entries)
        self._code -= gone
        self._unused_tags += ["e%d" % entry.id for entry in gone]
        for is_gone, group in itertools.groupby(list(self._entries), gone.__contains__):
            if is_gone:
                block = list(group)
                start = self._entries.index(block[0])
                end = start + len(block)
                self._replace(start, end + 1, self._entries[end : end + 1])

    def _replace(self, start: int, end: int, entries: List[Entry]) -> None:
        """Replace shown entries, given by their indices.

        The entry that follows those which come or go is replaced, too: its headings may change.
        """
        shown = [*self._entries[:start], *entries, *self._entries[end:]]
        start, stop = self._find_code(shown, start, start + len(entries))
        end, entries = len(self._entries) - len(shown) + stop, shown[start:stop]
        old, index = self._entries[start:end], "end"
        if start < len(self._entries):
            index = self.text.index("e%d.first" % self._entries[start].id)
        if old:
            self.text.delete(index, "e%d.last" % old[-1].id)
        self._entries[start:end] = entries
        self._marked.difference_update(old)
        above, parts = self._above(start), []  # type: Tuple[Optional[Entry], List[Any]]
        for entry in entries:
            parts += self._render(entry, above)
            above = entry
        if parts:
            self.text.insert(index, *parts)

    def _find_code(self, shown: List[Entry], start: int, stop: int) -> Tuple[int, int]:
        """Find the code among entries that come, given by indices, and around them.

        Returns the indices with those that now look different.
        """
        first, last = max(0, start - 1), min(stop + 1, len(shown))
        while first > max(0, start - MAX_CODE) and self._is_paste(shown, first):
            first -= 1
        while last < min(stop + MAX_CODE, len(shown)) and self._is_paste(shown, last):
            last += 1
        is_begun = self._is_paste(shown, first) and shown[first] in self._code
        code, around = find_code(shown[first:last], is_begun), range(first, last)
        new = [n for n in around if (shown[n] in code) != (shown[n] in self._code)]
        self._code = self._code.difference(shown[first:last]) | code
        return min([start, *new]), max([stop, *(n + 1 for n in new)])

    def _is_paste(self, shown: List[Entry], index: int) -> bool:
        return index > 0 and continues(shown[index - 1], shown[index], PASTE_TIME)

    def _render(self, entry: Entry, above: Optional[Entry]) -> List[Any]:
        """Return texts and their tags, in turn: the headings of an entry, and its line."""
        tag, parts = "e%d" % entry.id, []  # type: Tuple[str, List[Any]]
        if above is None or above.day != entry.day:
            above = None
            parts += [day_name(entry.day, self._today) + "\n", ("day", "aside", tag)]
        if entry is self.conversation.mark and self.conversation.new_count:
            above, words = None, protocol.counted(self.conversation.new_count, "new message")
            parts += ["─────  %s  ─────\n" % words, ("new", "aside", tag)]
        quoted = self.conversation.quoted(entry)
        if quoted is not None:
            above = None
            words = self._look.text("%s %s" % (quoted.line.head, quoted.excerpt))
            parts += ["↳ %s\n" % words, ("quote", "aside", tag)]
        styles = ["code"] if entry in self._code else []
        styles += ["repeat"] if continues(above, entry, GROUP_TIME) else []
        note, is_private = entry.note, entry.line.kind == PRIVATE
        if not note:
            is_row = entry.follows(above) and entry.answer.isdigit() and entry.answer < "400"
            note = "only you" if entry.answer and not is_row else ""
            note = "only you two" if is_private and self.conversation.kind != PRIVATE else note
        return parts + render(entry, (*styles, tag), self.nickname, note, self._look)

    def _above(self, index: int) -> Optional[Entry]:
        """Return the entry above that with this index in the text."""
        if index:
            return self._entries[index - 1]
        entries, first = self.conversation.shown, self._entries[:1]
        start = entries.index(first[0]) if first and first[0] in entries else 0
        return entries[start - 1] if start else None

    def _show_from(self, start: int) -> None:
        """Show the conversation from an index of its entries on.

        All changes so far have been applied to the text.
        """
        entries = self.conversation.shown
        earlier = entries[start : entries.index(self._entries[0])]
        with self._editing():
            self._replace(0, 0, earlier)

    @contextlib.contextmanager
    def _editing(self) -> Iterator[None]:
        """Make the text editable; afterwards, restore the view: the end, or where it was."""
        self._notice_scroll()
        top = self._top()
        y = self._y(top) if top else 0
        self.text.configure(state="normal")
        yield
        self.text.configure(state="disabled")
        if self._found:
            self._mark_found()
        if self.cursor is not None:
            self.choose(self.cursor)
        if self.at_end:
            self.show_end()
        elif top in self._entries:
            self.text.yview(self._line(top))
            self.text.yview_scroll(self._y(top) - y, "pixels")
        set_floating(self.empty, not self._entries, relx=0.5, rely=0.4, anchor="center")
        self.scrolled()

    # What is in view

    def entry_at(self, index: str) -> Optional[Entry]:
        """Return the entry at an index of the text."""
        ids = [int(tag[1:]) for tag in self.text.tag_names(index) if tag[1:].isdigit()]
        return next((entry for entry in self._entries if entry.id in ids), None)

    def _top(self) -> Optional[Entry]:
        """Return the first entry in view that is not being hidden; None at the end."""
        top = None if self.at_end else self.entry_at("@0,0")
        below = self._entries[self._entries.index(top) :] if top is not None else []
        return next(filter(self._is_shown, below), None)

    def is_in_view(self, entry: Entry) -> bool:
        """Return True if the line of an entry is in view, at least its beginning."""
        return entry in self._entries and self.text.dlineinfo(self._line(entry)) is not None

    def show_end(self) -> None:
        """Go to the last line."""
        self.at_end = True
        self.text.see("end")
        self.text.mark_set("top", "@0,0")

    def choose(self, entry: Optional[Entry]) -> bool:
        """Mark the line that the keys of the menu and Enter are for, or (None) no line.

        Return True if a line was marked before.
        """
        before = self.cursor
        self.cursor = entry if entry in self._entries else None
        self.text.tag_remove("cursor", "1.0", "end")
        if self.cursor is not None:
            self.text.tag_add("cursor", self._line(self.cursor), "e%d.last" % self.cursor.id)
        return before is not None

    def _move(self, step: int) -> str:
        """Choose the line below or above the chosen line; if that is not in view, the last."""
        entries, start = self._entries, self.cursor
        if start is None or not self.is_in_view(start):
            start, step = self.entry_at("@0,%d" % (self.text.winfo_height() - self.covered)), 0
            step = -1 if start is not None and self._hidden_part(start) > 0 else 0
        if entries:
            index = entries.index(start) + step if start in entries else len(entries) - 1
            entry = entries[max(0, min(len(entries) - 1, index))]
            self.choose(entry)
            self.text.tag_remove("sel", "1.0", "end")
            self.text.see("cursor.last - 1 char")
            self.text.yview_scroll(max(0, self._hidden_part(entry)), "pixels")
            self.text.see("cursor.first")
        return "break"

    def _select_chosen(self, start: str, end: str) -> None:
        """Select the chosen line, unless something is selected, before Tk copies or extends it."""
        text = self.text
        if self.cursor is not None and not text.tag_ranges("sel"):
            text.tag_add("sel", "cursor.first", "cursor.last - 1 char")
            text.mark_set(text.tk.call("tk::TextAnchor", text), "cursor." + start)
            text.mark_set("insert", "cursor." + end)
            self._select_lines()  # before it is copied

    def _hidden_part(self, entry: Entry) -> int:
        """Return how many pixels the end of an entry is below what can be seen."""
        end = self.text.dlineinfo("e%d.last - 1 char" % entry.id)
        bottom = self.text.winfo_height() - self.covered
        return end[1] + end[3] - bottom if end else self.text.winfo_height()

    @property
    def spot(self) -> Tuple[int, int]:
        """The place on the screen below the beginning of the chosen line, in pixels."""
        x, y, _, height = self.text.bbox("cursor.first") or (0, 0, 0, 0)
        return self.text.winfo_rootx() + x, self.text.winfo_rooty() + y + height

    def _line(self, entry: Entry) -> str:
        """Return the index at which the line of an entry begins, below its headings."""
        return self.text.index("e%d.last -1c linestart" % entry.id)

    def _y(self, entry: Entry) -> int:
        """Return the height in the window, in pixels, at which that line begins."""
        top = self.text.dlineinfo("@0,0")
        return (top[1] if top else 0) - count(self.text, "ypixels", self._line(entry), "@0,0")

    def _keep_in_view(self) -> None:
        """Show, after a change of size, the end or what was found."""
        if self.at_end:
            self.show_end()
        elif self.text.tag_ranges("found"):
            self.text.see("found.first + 2 display lines")  # above the button at the bottom
            self.text.see("found.first")

    def _on_scroll(self, first: float, last: float) -> None:
        self._notice_scroll()
        if first <= 0:
            self.text.after_idle(self._extend)
        self.scrolled()

    def _notice_scroll(self) -> None:
        """Find out if the user has scrolled, which Tk says only once it has drawn."""
        last = self.text.yview()[1]  # Tk may still report the view from before the scroll
        if self.at_end and last <= 0.999 and self.text.compare("@0,0", ">=", "top"):
            self.text.see("end")  # nobody has: the lines have changed their size
        else:
            self.at_end = last > 0.999
        if self.at_end:
            self.unseen = 0
        self.text.mark_set("top", "@0,0")

    def _extend(self) -> None:
        """Add earlier entries if, with everything drawn, the first entry is in view."""
        if not self._entries or self.text.yview()[0] > 0:
            return
        start = self.conversation.shown.index(self._entries[0])
        if start:
            self._show_from(max(0, start - self.PAGE))
        elif self.conversation.has_older:
            self.fetch_older(self.conversation)

    def _select_lines(self) -> None:
        """Deselect headings, notes and buttons, so that Copy takes messages only."""
        asides = self.text.tag_ranges("aside")
        if asides and str(self.text.tag_ranges("sel")) != self._selected:  # this calls it again
            self.text.tk.call(self.text, "tag", "remove", "sel", *asides)
            self._selected = str(self.text.tag_ranges("sel"))

    # What was found

    def mark(self, hits: Sequence[Hit], index: int, moves: bool = True) -> None:
        """Mark what a search has found, and go to the hit of this index.

        Unless the view moves, the next change does that.
        """
        self._found = {"find": hits, "found": hits[index : index + 1]}
        if not moves:
            return
        if hits:  # nothing hides them
            self.choose(None)
            self.text.tag_remove("sel", "1.0", "end")
        self._marked.clear()
        self.text.tag_remove("find", "1.0", "end")
        for entry, _ in self._found["found"]:
            entries = self.conversation.shown
            if entry not in self._entries and entry in entries:
                self._show_from(max(0, entries.index(entry) - self.PAGE // 2))
            self.at_end = False
        self._mark_found()
        self._keep_in_view()
        self._notice_scroll()

    def _mark_found(self) -> None:
        shown, marked = set(self._entries), self._marked
        self._marked = set(shown)
        self.text.tag_remove("found", "1.0", "end")
        for tag, hits in self._found.items():
            new = shown - marked if tag == "find" else shown  # Tk takes long for thousands
            marks = [mark for hit in hits if hit[0] in new for mark in self._marks(*hit)]
            if marks:
                self.text.tag_add(tag, *marks)

    def _marks(self, entry: Entry, span: Span) -> List[str]:
        """Return the indices at which a part of the text of an entry begins and ends."""
        line = self._line(entry).partition(".")[0]
        ends = [utf16_length(self._look.encode(entry.text[:end])) for end in span]
        return ["%s.%d" % (line, len(self.CLOCK) + end) for end in ends]


class SearchBar:
    """A bar with a field for the words to find, and buttons that lead from hit to hit."""

    def __init__(
        self, parent: "tk.Misc", look: Look, transcript: Transcript, closed: Action
    ) -> None:
        px = look.px
        self._transcript, self._closed = transcript, closed
        self._hits: List[Hit] = []
        self._index = 0  # of the hit that the user is at
        self._words = ""  # that they are of
        self.frame = ttk.Frame(parent, style="Chat.TFrame", padding=(px(16), px(8)))
        self.frame.columnconfigure(0, weight=1)
        self.field = Field(self.frame, look, "ChatField", self._on_changed, "search")
        self.field.frame.grid(row=0, column=0, sticky="ew", padx=(0, px(6)))
        self.all_button = ttk.Button(self.frame, style="ChatLink.TButton", text="All conversations")
        tip = "Search all conversations   " + key_name("Ctrl+Shift+F", look.system)
        Tip(self.all_button, look, lambda: tip)
        self.all_button.grid(row=0, column=1)
        steps = {"up": lambda: self.step(-1), "down": lambda: self.step(1), "close": self.close}
        for column, (icon, action) in enumerate(steps.items(), 2):
            icon_button(self.frame, look, "Icon", icon, action, 16).grid(row=0, column=column)
        self.field.text.bind("<<Return>>", lambda event: self.step(-1))
        self.field.text.bind("<Shift-Return>", lambda event: self.step(1))

    @property
    def is_open(self) -> bool:
        return bool(self.frame.winfo_manager())

    def open(self, words: str = "", entry: Optional[Entry] = None) -> None:
        """Show the bar, with these words if given, or go back to it."""
        if words:
            self.field.set(words)
        self.frame.grid()
        self.field.focus()
        self.search(entry)

    def close(self) -> bool:
        """Hide the bar; return False if it is hidden."""
        was_open = self.is_open
        if was_open:
            self.frame.grid_remove()
            self._transcript.mark([], 0)
            self._closed()
        return was_open

    def _on_changed(self) -> None:
        if self.field.get() != self._words:
            self.search()

    def search(self, entry: Optional[Entry] = None) -> None:
        """Find what the field says, and go to the hit in an entry, or else to the newest."""
        self._words = self.field.get()
        self._hits = self._transcript.conversation.find(self._words)
        here = [n for n, (found, _) in enumerate(self._hits) if found is entry]
        self._index = here[-1] if here else len(self._hits) - 1
        self._show()

    def refresh(self) -> None:
        """Find what has come since; the choice and the view stay."""
        chosen = self._hits[self._index :][:1]
        self._hits = self._transcript.conversation.find(self._words)
        self._index = self._hits.index(chosen[0]) if chosen and chosen[0] in self._hits else 0
        self._show(moves=False)

    def step(self, step: int) -> str:
        """Go to an older hit (-1), or back to a newer hit; after the last comes the first."""
        if not self.is_open:
            self.open()
        elif self._hits:
            self._index = (self._index + step) % len(self._hits)
            self._show()
        return "break"

    def _show(self, moves: bool = True) -> None:
        words, number = self._words, len(self._hits)
        note = (
            "%d of %d" % (number - self._index, number) if number else "No matches" if words else ""
        )
        self.field.show_note(note, bool(words and not number))
        self._transcript.mark(self._hits, self._index, moves)


class ConnectView:
    """Asks for the user's name and the server, and says what went wrong."""

    SIZE, MINIMUM = (460, 720), (460, 520)  # of the window
    NEEDED, FIELD = 540, 90  # dp for all with three servers, and for each further field
    HOST = "Host a chat on this computer"
    HINTS = {
        NAME: "Up to %d letters, digits, - or _" % protocol.MAX_NAME,
        SERVER: "As the host's window shows it, such as 192.168.1.20",
        PASSWORD: "The host can tell you",
        NETWORK: "Others see it in their list",
    }
    KEPT = "Messages and registered names of “%s” are kept: those who join see them."

    def __init__(self, root: "tk.Tk", look: Look, window: "Window") -> None:
        px = look.px
        self._look, self._window = look, window
        self.is_busy = False  # connecting, or starting a server
        self.is_hosting = False  # the form for a new chat is in view
        self._finder = Finder()
        self.found: Dict[str, FoundServer] = {}  # by short_address
        self._first_poll = 0.0  # its time
        self._password_server = ""  # the server that has asked for the password
        self._refused = ""  # the short address of a server that is not trusted
        self._name_before = ""  # the name that was not typed here
        self.frame = ttk.Frame(root, style="Bg.TFrame")
        self._body = body = ttk.Frame(self.frame, style="Bg.TFrame")
        body.columnconfigure(0, weight=1)
        body.grid(column=1, sticky="nsew")  # in the middle of a wide window
        self.frame.columnconfigure((0, 2), weight=1)
        self.frame.rowconfigure(0, weight=1)
        look.follow(body, lambda: self.frame.columnconfigure(1, minsize=look.dp(396)))
        self._head = Drawing(body, look, "bg", self._draw_head, 54, 0)
        self._head.canvas.grid(sticky="ew", pady=(0, px(24)))
        self.fields: Dict[str, ttk.Entry] = {}
        self.hints: Dict[str, ttk.Label] = {}
        self._add_field(NAME, "Your name")
        self._add_field(NETWORK, "Name of the chat")
        self._add_field(PASSWORD, "Password")
        self._servers, self.host = self._add_line("Strong", self.HOST)
        self.host.configure(command=lambda: self.open_form(not self.is_hosting))
        self._add_list()
        self._status, self.other = self._add_line("Muted", "Other server…")
        self.other.configure(command=self._on_other)
        self._add_field(SERVER, "Address")
        words, frame = "Trust this server from now on", self.fields[SERVER].master
        self.trust = ttk.Button(frame, text=words, style="Outlined.TButton", command=window.trust)
        self.trust.grid(sticky="ew", pady=(px(6), 0))
        self._body.rowconfigure(self._body.grid_size()[1], weight=1000)  # room for fields to come
        self.error = ttk.Label(body)  # of no field
        self.error.grid(row=self._body.grid_size()[1] + 1, sticky="w", pady=(px(8), 0))
        look.follow(self.error, lambda: self.error.configure(wraplength=look.dp(390)))
        self.button = ttk.Button(body, style="Accent.TButton", command=self.submit)
        self.button.grid(sticky="ew", pady=(px(12), px(10)))
        self._keys = ttk.Label(body, style="Muted.TLabel")
        self._keys.grid()
        for last in (
            self.fields[PASSWORD].master,
            self.button,
            self.host.master,
            self.other.master,
        ):
            last.lift()  # Tab goes there after all else, in this order
        for field in (PASSWORD, SERVER, NETWORK):  # now that all rows are taken
            self._show_field(field, False)
        self.frame.bind("<Configure>", lambda event: self._lay_out())
        look.follow(self.frame, self._lay_out)

    def _add_line(self, style: str, link: str) -> Tuple["ttk.Label", "ttk.Button"]:
        """Add a line with a text and a button that looks like a link."""
        line = ttk.Frame(self._body, style="Bg.TFrame")
        line.columnconfigure(0, weight=1)
        line.grid(sticky="ew", pady=(0, self._look.px(3)))
        label = ttk.Label(line, style=style + ".TLabel")
        label.grid(row=0, column=0, sticky="w")
        button = ttk.Button(line, text=link, style="Link.TButton")
        button.grid(row=0, column=1)
        return label, button

    def _add_field(self, field: str, caption: str) -> None:
        look, px = self._look, self._look.px
        frame = ttk.Frame(self._body, style="Bg.TFrame")
        frame.columnconfigure(0, weight=1)
        frame.grid(sticky="ew", pady=(0, px(14)))
        ttk.Label(frame, text=caption, style="Strong.TLabel").grid(sticky="w")
        entry = ttk.Entry(frame, show="•" if field == PASSWORD else "")
        is_valid = entry.register(functools.partial(self._on_edit, field))
        entry.configure(validate="key", validatecommand=(is_valid, "%P"))
        entry.grid(sticky="ew", pady=(px(6), px(5)))
        hint = ttk.Label(frame, style="Muted.TLabel")
        hint.grid(sticky="w")
        look.follow(entry, lambda: entry.configure(font=look.font["chat"]))
        look.follow(hint, lambda: hint.configure(wraplength=look.dp(390)))
        entry.bind("<<Return>>", lambda event: self.submit())
        entry.bind("<Down>", lambda event: self.list.canvas.focus_set())
        self.fields[field], self.hints[field] = entry, hint

    def _add_list(self) -> None:
        px = self._look.px
        self._card = card = ttk.Frame(self._body, style="Card.TFrame", padding=px(6))
        card.columnconfigure(0, weight=1)
        card.rowconfigure(0, weight=1)
        card.grid(sticky="nsew", pady=(0, px(4)))
        self._body.rowconfigure(int(card.grid_info()["row"]), weight=1)
        self.list = RowList(card, self._look, "field", 52, self._choose)
        self.list.canvas.bind("<<Return>>", lambda event: self._on_enter())
        self.list.moved, self.list.least = self._choose, 3
        self.list.frame.grid(sticky="nsew")

    def _empty_rows(self) -> List[Row]:
        """Return the rows shown while there are no servers."""
        rows = {"No servers yet": "Ask someone to host a chat."}
        rows["Type its address below"] = "The host's window shows it, or the server's console."
        if self._finder.can_ask:
            rows = {"No servers found yet": "Ask someone to host a chat."}
            rows["Or does it run already?"] = "Check that you are on the same network."
        rows["Or be the host"] = "Choose “%s”, above." % self.HOST
        return [text_row(None, words, hint, 11) for words, hint in rows.items()]

    def _draw_head(self, row: Drawing) -> None:
        row.picture(self._look.logo(self._look.dp(52)), 14)
        title, text = "Join the chat", "Pick a name and a server on your network."
        if self.is_hosting:
            title, text = "Host a chat", "It runs on this computer."
        row.text(title, font="title", dy=-12)
        row.text(text, "muted", dy=14)

    def fill(self, name: str, server: str) -> None:
        """Set the name and the chosen server."""
        self._name_before = name
        self._set(NAME, name)
        self._set(SERVER, server)
        network = self._window.settings.hosted or socket.gethostname()
        self._set(NETWORK, protocol.clean(network, protocol.MAX_NETWORK))
        self.open_form(False)

    def open_form(self, is_hosting: bool) -> None:
        """Show the form for a new chat, or that for joining a chat."""
        self.is_hosting = is_hosting
        is_open = self._chosen not in self._addresses and bool(
            self._chosen or not self._finder.can_ask
        )
        self._show_field(PASSWORD, False)
        self._show_field(SERVER, not is_hosting and is_open)
        self._show_field(NETWORK, is_hosting)
        for widget in (self._card, self.other.master):
            set_shown(widget, not is_hosting)
        self._servers.configure(text="" if is_hosting else "Servers")
        self.host.configure(text="Back" if is_hosting else self.HOST)
        self._head.redraw()
        self.show_error("", "")

    def offer_again(self, network: str) -> None:
        """Offer to host a chat again that the user has ended."""
        self._set(SERVER, "")
        self._set(NETWORK, network)
        self.open_form(True)
        self.show_error("", "You ended the chat. Its history is kept.", is_question=True)

    @property
    def _is_open(self) -> bool:
        """True if there is a field or a form that can be closed."""
        shown = [f for f in (PASSWORD, SERVER) if self.fields[f].master.winfo_manager()]
        is_empty = shown == [SERVER] and not self._chosen and not self._finder.can_ask
        return self.is_hosting or bool(shown and not is_empty)

    @property
    def _is_named(self) -> bool:
        """True if a name was typed here."""
        return self.fields[NAME].get() != self._name_before

    def go_back(self) -> bool:
        """Close what is open, or else undo the name that was typed; False if there is neither."""
        is_open, is_named = self._is_open, self._is_named
        if is_open and not self.is_hosting:
            self._set(PASSWORD, "")
            self._set(SERVER, self._chosen if self._chosen in self._addresses else "")
        if is_open:
            self.open_form(False)
        else:
            self._set(NAME, self._name_before)
        return is_open or is_named

    def join(self, server: str, question: str = "") -> None:
        """Connect to a server, or ask first."""
        self.set_busy("")  # else the fields do not change
        self._set(SERVER, server)
        self.open_form(False)
        if question:
            self.show_error(SERVER, question, is_question=True)
        else:
            self.submit()

    def poll(self, now: float) -> None:
        """Show the servers that have answered by now; ask again every few seconds."""
        self._first_poll = self._first_poll or now
        servers = self._finder.poll(now)
        found = {short_address(protocol.format_address(s.host, s.port)): s for s in servers}
        if found != self.found:
            self.found = found
            for address, server in found.items():
                if not self._window.settings.pins.get(address):  # anybody can send an answer
                    self._window.settings.learn(address, server.network)
            self._refresh()
        is_open = self._chosen or self.fields[SERVER].master.winfo_manager()
        last = [a for a in map(short_address, self._window.settings.servers) if a in found][:1]
        likely = last or list(found)
        if len(likely) == 1 and not is_open and now > self._first_poll + CHOICE_TIME:
            self._set(SERVER, *likely)

    def stop_looking(self) -> None:
        """Forget what was found, and send nothing until the next poll."""
        self._finder.close()
        self.found, self._first_poll = {}, 0.0

    def show_error(self, fault: str, error: str, is_question: bool = False) -> None:
        """Show the error, at its field if it has one, and be ready for another attempt.

        A question is shown in the same place, but not as an error.
        """
        field = SERVER if fault in (LOST, TRUST) else fault if fault in self.fields else ""
        kind = "Question" if is_question else "Error"
        words = self._look.text(error) * (not field)
        self.error.configure(text=words, style=kind + ".TLabel")
        set_shown(self.error, bool(words))
        if field == PASSWORD:
            self._password_server = self.fields[SERVER].get().strip()
        self._refused = self._chosen if fault == TRUST else ""
        if field:
            self._show_field(field, True)
        self.set_busy("")
        for name in self.fields:
            self._show_hint(name, "Muted", self._hint(name, self.fields[name].get()))
        if field:
            self._show_hint(field, kind, error)
        self._lay_out()
        first = NETWORK if self.is_hosting and self.fields[NAME].get() else NAME
        entry = self.fields[field or first]
        entry.focus_set()
        entry.selection_range(0, "end")
        entry.icursor("end")

    def set_busy(self, work: str) -> None:
        """Show that a connection is being made, or a server started; "" for neither."""
        self.is_busy = bool(work)
        for entry in self.fields.values():
            entry.state(["disabled" if work else "!disabled"])
        self._refresh()
        if work:
            self.button.configure(text=self._look.text(work + "…   (Esc to cancel)"))
            self.button.focus_set()

    def submit(self) -> None:
        """Connect with what the fields say, or cancel the attempt that is under way."""
        texts = {field: entry.get().strip() for field, entry in self.fields.items()}
        name, server = protocol.normalize(texts[NAME]), texts[SERVER]
        error = protocol.nickname_error(name)
        if self.is_busy:
            self._window.cancel()
        elif error:
            self.show_error(NAME, error)
        elif self.is_hosting:
            self._window.hosting.start(texts[NETWORK])
        else:
            if server != self._password_server:  # no other server gets to see it
                self._set(PASSWORD, "")
            self._window.connect(name, server, get_line(self.fields[PASSWORD]))

    def _show_hint(self, field: str, kind: str, words: str) -> None:
        self.fields[field].state(["invalid" if kind == "Error" else "!invalid"])
        self.hints[field].configure(text=self._look.text(words), style=kind + ".TLabel")

    def _hint(self, field: str, text: str) -> str:
        """Return the words below a field with such a text, if there is no error."""
        before = self._window.settings.hosted
        is_other = field == NETWORK and before not in ("", text.strip())
        return self.KEPT % before if is_other else self.HINTS[field]

    def _on_edit(self, field: str, text: str) -> bool:
        self.frame.after_idle(self._refresh)
        if self.fields[field].instate(["invalid"]) or field == NETWORK:  # not by this text
            self._show_hint(field, "Muted", self._hint(field, text))
            self.frame.after_idle(self._lay_out)
        return fits_entry(text)

    def _set(self, field: str, text: str) -> None:
        self.fields[field].delete(0, "end")
        self.fields[field].insert(0, text)

    def _show_field(self, field: str, is_shown: bool) -> None:
        set_shown(self.fields[field].master, is_shown)
        if field == SERVER:
            set_shown(self.other, not is_shown)
        self._lay_out()

    def _lay_out(self) -> None:
        """In a low window, leave out what the user can do without.

        For a server that is not trusted, rows of the list first: its address is in its field.
        """
        fields = [f for f in (PASSWORD, SERVER) if self.fields[f].master.winfo_manager()]
        needed = self._look.dp(self.NEEDED + self.FIELD * (len(fields) + bool(self._refused)))
        spare = self.frame.winfo_height() - needed
        is_high = self.is_hosting or spare >= 0
        has_head = is_high or (bool(self._refused) and spare >= -2 * self._look.dp(self.FIELD))
        set_shown(self._head.canvas, has_head)
        set_shown(self._keys, is_high)
        for hint in self.hints.values():
            set_shown(hint, has_head or str(hint.cget("style")) != "Muted.TLabel")
        least = 1 if has_head and not is_high else 3
        if least != self.list.least:
            self.list.least = least
            self.list.show(self.list.rows, self.list.selected)
        top, side, bottom = map(self._look.px, (28, 32, 20) if is_high else (14, 32, 14))
        self.frame.configure(padding=(side, top, side, bottom))

    @property
    def _chosen(self) -> str:
        """The short address of the chosen server, "" for none."""
        return short_address(self.fields[SERVER].get())

    @property
    def _addresses(self) -> List[str]:
        """The servers in the list, by short_address: those found, then those known."""
        known = map(short_address, self._window.settings.servers)
        return list(dict.fromkeys([*self.found, *known]))

    def _refresh(self) -> None:
        keys = self._addresses
        if self.list.is_in_use:  # nothing moves below the mouse
            before = {row.key: index for index, row in enumerate(self.list.rows)}
            keys.sort(key=lambda key: before.get(key, len(before)))
        chosen = self._chosen
        rows = [self._row(key, key == chosen) for key in keys]
        self.list.show(rows or self._empty_rows(), chosen or None)
        if self._finder.can_ask:
            looking = "Looking for servers on your network…", "Still looking for more…"
            self._status.configure(text=looking[bool(self.found)])
        name, verb = self._name(chosen), "Connect to "
        if self.is_hosting:
            name, verb = self.fields[NETWORK].get().strip(), "Host "
        if not self.is_busy:
            text = verb + name if name else verb.split()[0]
            width = self._look.dp(360)
            self.button.configure(text=self._look.shorten(text, "ui_bold", width))
        set_shown(self.trust, chosen == self._refused != "" and not self.is_busy)
        words = "start" if self.is_hosting else "connect"
        undo = "undo the name" if self._name_before else "clear the name"
        back = "go back" if self._is_open else undo if self._is_named else "quit"
        self._keys.configure(text="Enter to %s   ·   Esc to %s" % (words, back))

    def _name(self, address: str) -> str:
        """Return the name of a server; its address if it is not known."""
        found = self.found.get(address)
        return found.network if found else self._window.settings.networks.get(address, address)

    def _row(self, address: str, is_chosen: bool) -> Row:
        found, name = self.found.get(address), self._name(address)
        is_here = found.is_own if found else is_local(address)
        detail = "This computer" if is_here else address
        if found:
            detail += " · " + found.people
        elif detail == name:
            detail = "You were there before"

        def paint(row: Drawing) -> None:
            row.skip(6)
            if found:
                row.dot("ok", gap=14)
            else:
                row.skip(24)
            if is_chosen:
                row.icon("check", "focus")
            if found and found.is_encrypted:
                row.icon("lock")
            row.text(name, font="ui_bold", dy=-10)
            row.text(detail, "muted", "small", 11)

        return Row(address, name, paint, tip="Encrypted" if found and found.is_encrypted else "")

    def _on_enter(self) -> str:
        """Choose the keyboard's row, and connect."""
        self.list.enter()
        self.submit()
        return "break"

    def _choose(self, address: str) -> None:
        self._set(SERVER, address)
        self._show_field(SERVER, False)

    def _on_other(self) -> None:
        self._set(SERVER, "")
        self._show_field(SERVER, True)
        self.fields[SERVER].focus_set()


def add_column(
    parent: "tk.Misc", look: Look, side: "Literal['left', 'right']", width: int, paint: Painter
) -> Tuple["ttk.Frame", Drawing]:
    """Return a frame at an edge of its parent, and the drawing at the top of it."""
    frame = ttk.Frame(parent, style="Bg.TFrame")
    frame.grid(row=0, column=0 if side == "left" else 2, sticky="ns")
    frame.pack_propagate(False)
    edge = ttk.Frame(frame, style="Line.TFrame", width=look.px(1))
    edge.pack(side="right" if side == "left" else "left", fill="y")
    look.follow(frame, lambda: frame.configure(width=look.dp(width) + look.px(1)))
    head = Drawing(frame, look, "bg", paint, 60, 16)
    head.canvas.pack(fill="x")
    ttk.Frame(frame, style="Line.TFrame", height=look.px(1)).pack(fill="x")
    return frame, head


class Sidebar:
    """The server, its conversations, and the user."""

    def __init__(self, parent: "tk.Misc", look: Look, window: "Window") -> None:
        px = look.px
        self._look, self._window = look, window
        self.frame, self.head = add_column(parent, look, "left", 232, self._draw_server)
        foot = ttk.Frame(self.frame, style="Bg.TFrame")
        foot.pack(side="bottom", fill="x")
        ttk.Frame(foot, style="Line.TFrame", height=px(1)).pack(fill="x")
        theme = icon_button(foot, look, "IconBg", "sun", window.toggle_theme)
        icons = {"dark": "sun", "light": "moon"}
        look.follow(theme, lambda: theme.configure(image=look.icon(icons[look.theme])))
        theme.pack(side="right", padx=(0, px(12)))
        self.user = Drawing(foot, look, "bg", self._draw_user, 54, 14)
        self.user.canvas.pack(side="left", fill="x", expand=True)
        self.user.make_button(window.menus.open_own, lambda: "You: away, another name, account")
        self.head.make_button(window.menus.open_main, lambda: "Menu   F10")
        self.list = RowList(self.frame, look, "bg", 36, self._on_choose)
        self.list.menu = window.menus.open_conversation
        self.list.frame.pack(fill="both", expand=True, pady=(px(4), px(8)))

    def show(self) -> None:
        """Show the chat as it is now."""
        self.head.redraw()
        self.user.redraw()
        rows, chat = [], self._window.chat
        for title, sign, tip in (
            ("ROOMS", "#", "Browse rooms, or make one"),
            ("PRIVATE", "@", "New private message"),
        ):
            group = [c for c in chat.conversations if (c.kind == PRIVATE) == (sign == "@")]
            rows += [caption(title, sign, tip), *map(self._row, group)]
        self.list.show(rows, chat.current)

    def _on_choose(self, key: Any) -> None:
        if isinstance(key, Conversation):
            self._window.chat_view.select(key)
        else:
            self._window.questions.go_to(key)

    def _row(self, conversation: Conversation) -> Row:
        chat, dots = self._window.chat, {ONLINE: "ok", AWAY: "away", OFFLINE: "offline"}
        unread = conversation.news
        is_bright = conversation is chat.current or unread
        tip = "Your message here is unfinished" if is_unfinished(conversation.draft) else ""

        def paint(row: Drawing) -> None:
            color = "text" if is_bright else "muted"
            if conversation.kind == PRIVATE:
                row.skip(6)
                row.dot(dots[chat.presence(conversation.name)])
            else:
                row.sign("#" if conversation.kind == CHANNEL else "·", color)
            if unread:
                badge = "mention_badge" if conversation.mentions else "badge"
                row.badge(str(unread) if unread < 100 else "99+", badge)
            if tip:
                row.icon("pencil", size=14)
            if conversation.is_outside:
                row.note("not joined")
            row.text(conversation.title, color, "ui_bold" if unread else "ui")

        return Row(conversation, conversation.title, paint, tip=tip)

    def _draw_server(self, row: Drawing) -> None:
        chat = self._window.chat
        row.picture(self._look.logo(self._look.dp(30)), 10)
        row.icon("chevron", size=14, dy=-9)
        row.text(chat.console.name, "text", "ui_bold", dy=-9)
        row.dot({CONNECTED: "ok", DISCONNECTED: "error"}.get(chat.state, "away"), 8, 5, dy=8)
        row.text(chat.status, "muted", "small", dy=8)

    def _draw_user(self, row: Drawing) -> None:
        chat = self._window.chat
        row.avatar(chat.nickname, 32)
        row.text(chat.nickname, "text", "ui_bold", dy=-8)
        status = "Offline" if chat.state != CONNECTED else "Away" if chat.is_away else "Available"
        row.text(status, "muted", "small", dy=9)


class People:
    """The people in the conversation in view."""

    def __init__(self, parent: "tk.Misc", look: Look, window: "Window") -> None:
        self._window = window
        self.frame, self._head = add_column(parent, look, "right", 200, self._draw_head)
        open_menu = window.menus.open_person
        self.list = RowList(self.frame, look, "bg", 38, lambda name: open_menu(name, self.list))
        self.list.menu = open_menu
        self.list.frame.pack(fill="both", expand=True, pady=(look.px(4), look.px(8)))
        self._conversation: Optional[Conversation] = None
        self._members: List[Member] = []  # there, when that was last known

    def show(self) -> None:
        """Show the chat as it is now; while the connection is lost, those who were there before."""
        chat, groups = self._window.chat, {"ok": "ONLINE", "away": "AWAY"}
        if chat.state == CONNECTED or chat.current is not self._conversation:
            self._conversation, self._members = chat.current, list(chat.current.sorted_members)
            if chat.current.kind == PRIVATE:
                presence = chat.presence(chat.current.name)
                other = Member(chat.current.name, "", presence == AWAY)
                own = Member(chat.nickname, "", chat.is_away)
                self._members = [own] if presence == OFFLINE else [own, other]
        if chat.state != CONNECTED:
            groups = {"offline": "LAST SEEN"}
        rows = []
        for dot, title in groups.items():
            members = [m for m in self._members if dot in ("offline", ("ok", "away")[m.is_away])]
            if members:
                rows.append(caption("%s — %d" % (title, len(members))))
                rows += [self._row(member, dot) for member in members]
        self.list.show(rows)
        self._head.redraw()

    def _row(self, member: Member, dot: str) -> Row:
        name, is_me = member.nickname, member.nickname == self._window.chat.nickname
        is_chanop = self._window.chat.session.is_chanop(member)
        color = FROM_ME if is_me else "muted" if member.is_away else "text"

        def paint(row: Drawing) -> None:
            row.avatar(name, 28, dot)
            if is_chanop:
                row.icon("shield", "link", 14)
            if is_me:
                row.note("you")
            if protocol.casefold(name) in self._window.chat.muted:
                row.note("muted")
            row.text(name, color)

        return Row(name, name, paint, tip="Operator of this room" if is_chanop else "")

    def _draw_head(self, row: Drawing) -> None:
        row.left += row.text("People", "text", "ui_bold")
        row.skip(8)
        row.text(str(sum(not row.is_caption for row in self.list.rows)), "muted")


class ChatView:
    """The conversation in view with the message box; the sidebar and the people beside it."""

    SIZE, MINIMUM = (1160, 720), (480, 360)  # of the window
    NARROW, NARROWEST = 900, 680  # dp; in a window less wide: no people, and no sidebar

    def __init__(self, root: "tk.Tk", look: Look, window: "Window") -> None:
        px = look.px
        self._look, self._window = look, window
        self._is_roomy = True
        self._shows_people = {True: True, False: False}  # by whether the window is roomy
        self._old_topic = ""  # what the field for the topic said before the user changed it
        self.buttons: Dict[str, ttk.Button] = {}  # at the right of the head, by icon
        self.frame = ttk.Frame(root, style="Chat.TFrame")
        self.frame.columnconfigure(1, weight=1)
        self.frame.rowconfigure(0, weight=1)
        self.frame.bind("<Configure>", lambda event: self._lay_out())
        self.sidebar = Sidebar(self.frame, look, window)
        self.people = People(self.frame, look, window)
        middle = ttk.Frame(self.frame, style="Chat.TFrame")
        middle.columnconfigure(0, weight=1)
        middle.grid(row=0, column=1, sticky="nsew")
        self._add_head(middle)
        self.banner = Bar(middle, look, self.focus_composer)
        self.invitation = Bar(middle, look, self.focus_composer, "Invitation")
        self.announcement = Bar(middle, look, self.focus_composer)
        self.transcript = Transcript(middle, look)
        self.transcript.fetch_older = lambda shown: window.do(window.chat.fetch_older, shown)
        self.transcript.scrolled = self._show_pill
        self.search_bar = SearchBar(middle, look, self.transcript, self.focus_composer)
        self.search_bar.all_button.configure(command=self.search_all)
        self.composer = Composer(middle, look, self.submit)
        self.composer.completer = self._completer
        self.composer.describe = self._describe_draft
        self.composer.emptied = lambda: self.reply(None)
        self.composer.rewrite = lambda draft: name_recipient(window.chat, draft)
        self.composer.notice.bind("<Button-1>", self._on_notice)
        self.composer.answer.configure(command=self._answer)
        self.composer.ask_paste = window.questions.ask_paste
        frames = [self.banner.frame, self.invitation.frame, self.announcement.frame]
        frames.append(self.search_bar.frame)
        for row, frame in enumerate([*frames, self.transcript.frame, self.composer.frame], 2):
            frame.grid(row=row, sticky="nsew")
        for frame in frames:
            frame.grid_remove()
        middle.rowconfigure(2 + len(frames), weight=1)
        self.composer.frame.grid_configure(padx=px(16), pady=(px(4), px(14)))
        self.pill = ttk.Button(self.transcript.frame, style="Pill.TButton", compound="left")
        self.pill.configure(takefocus=0, command=self.jump_to_end)
        set_icon(self.pill, look, "down", "on_accent", 14)
        self.composer.text.bind("<Prior>", lambda event: self._scroll(-1))
        self.composer.text.bind("<Next>", lambda event: self._scroll(1))
        self.composer.text.bind("<FocusIn>", lambda event: self.transcript.choose(None), "+")
        buttons = (self.composer.button, self.menu_button, *self.buttons.values())
        for widget in (self.transcript.text, self.room.canvas, *buttons):
            widget.bind("<Key>", self._on_stray_key)
        for button in buttons:
            button.bind("<space>", lambda event: None)  # presses it
        self.transcript.text.bind("<<Return>>", self._on_enter)
        for tag in ("link", "person"):
            self.transcript.text.tag_bind(tag, "<ButtonRelease-1>", self._on_link)
        look.follow(self.frame, self._lay_out)

    def _add_head(self, parent: "tk.Misc") -> None:
        look, px = self._look, self._look.px
        head = ttk.Frame(parent, style="Chat.TFrame")
        head.columnconfigure(1, weight=1)
        head.grid(row=0, sticky="ew")
        ttk.Frame(parent, style="Line.TFrame", height=px(1)).grid(row=1, sticky="ew")
        open_menu = self._window.menus.open_conversations
        self.menu_button = icon_button(head, look, "Icon", "menu", open_menu)
        look.follow(self.menu_button, self._show_menu_button)
        self.menu_button.grid(row=0, column=0, padx=(px(10), 0))
        self.room = Drawing(head, look, "chat", self._draw_room, 60, 20)
        self.room.canvas.grid(row=0, column=1, sticky="ew")
        self.room.make_button(lambda canvas: self.edit_topic(), self._topic_tip)
        self.topic = Field(head, look, "ChatField", lambda: None)
        self.topic.text.configure(pady=px(2))  # it leaves room for words above it
        self.topic.text.bind("<<Return>>", lambda event: self._save_topic())
        self.topic.text.bind("<FocusOut>", lambda event: self._leave_topic(), "+")
        actions = {"lock": self._window.questions.show_server, "more": self._open_menu}
        actions.update({"search": lambda: self.search_bar.open(), "person": self.toggle_people})
        for icon, action in actions.items():
            tip = self.lock_tip if icon == "lock" else None
            self.buttons[icon] = icon_button(head, look, "Icon", icon, action, tip=tip)
            self.buttons[icon].grid(row=0, column=2 + len(self.buttons), padx=(0, px(2)))
        self.buttons["person"].grid_configure(padx=(0, px(13)))
        self.buttons["lock"].configure(compound="left")
        look.follow(self.buttons["lock"], self._show_lock)

    def show(self, changes: Sequence[Change]) -> None:
        """Show changes, and nothing else."""
        chat = self._window.chat
        kinds = {c.kind for c in changes if c.conversation in (None, chat.current)}
        self.transcript.nickname = chat.nickname
        if chat.current is not self.transcript.conversation:
            self._open(chat.current)
            kinds |= {SIDEBAR, MEMBERS, HEADER}
        else:
            here = [c for c in changes if c.entries and c.conversation is chat.current]
            if here and self.search_bar.is_open:
                self.search_bar.refresh()  # first, so that each line is marked as it comes
            self.transcript.apply(here)
        if kinds & {SIDEBAR, STATUS}:
            self.sidebar.show()
            self._show_menu_button()
            self._show_lock()
        presence = SIDEBAR if chat.current.kind == PRIVATE else ""
        if kinds & {MEMBERS, STATUS, presence}:
            self.people.show()
        if kinds & {ADDED, MEMBERS, STATUS, HEADER, presence}:
            self.composer.show_notice()
            self.composer.hint.configure(text=self._look.text(chat.hint))
        if kinds & {HEADER, STATUS, presence}:
            self.room.redraw()
        if REVEALED in kinds:
            (entry,) = next(change.entries for change in changes if change.kind == REVEALED)
            self.search_bar.open(chat.lookup.words, entry)

    def _open(self, conversation: Conversation) -> None:
        self.close_topic(is_kept=True)
        self.transcript.conversation.draft = self.composer.get()
        self.search_bar.close()
        self.transcript.empty.configure(text=self._window.chat.empty_text)
        self.transcript.open(conversation)
        self.composer.set(conversation.draft)
        conversation.draft = ""  # it is in the box

    def drafts(self) -> List[str]:
        """Return the names of the conversations with an unfinished message."""
        shown, draft = self.transcript.conversation, self.composer.get()
        conversations = self._window.chat.conversations
        return [c.name for c in conversations if is_unfinished(draft if c is shown else c.draft)]

    # What the user does

    def focus_composer(self) -> None:
        self.composer.text.focus_set()

    def submit(self, text: str) -> str:
        """Send or run what was typed; return the lines from the first that was refused on.

        A "/reply" whose recipient the box has not named comes back with the name.
        """
        named, lines = name_recipient(self._window.chat, text), text.split("\n")
        commands = [missing_password(self._window.chat, line) for line in lines]
        if any(commands):  # the message box asks for it
            return "\n".join(command or line for command, line in zip(commands, lines))
        if named != text:
            return named
        self._window.do(self._window.chat.submit, text)
        rest = self._window.chat.outcome.rest
        if self._window.root is not None:
            self.transcript.show_end()
        return rest

    def select(self, conversation: Optional[Conversation]) -> None:
        """Show another conversation; None for none."""
        if conversation is not None:
            self._window.do(self._window.chat.select, conversation)
            self.focus_composer()

    def select_nth(self, number: int) -> None:
        """Show a conversation by its place in the sidebar, from 1."""
        self.select(dict(enumerate(self._window.chat.conversations, 1)).get(number))

    def open(self, name: str) -> None:
        """Show the conversation with a person or in a room."""
        self._window.do(self._window.chat.open, name)
        self.focus_composer()

    def accept_invitation(self) -> None:
        """Join the room of the announcement in view."""
        self.open(self._window.chat.announcements[-1].room)

    def join(self, room: Optional[Conversation] = None) -> None:
        """Join a room, or that in view; ask for its password if that is what it takes."""
        room = room or self._window.chat.current
        if room.refusal == NEEDS_KEY:
            self._window.questions.ask_room_password(room)
        else:
            self.open(room.name)

    def search_all(self) -> None:
        """Search all conversations for the words in the search bar, if that is open."""
        words = self.search_bar.field.get() if self.search_bar.is_open else ""
        self._window.do(self._window.chat.search, words)

    def reply(self, entry: Optional[Entry]) -> bool:
        """Make the next text a reply to an entry, or (None) to nothing; True if it was a reply.

        To a private entry in a room, it begins with "@name ", until another is chosen. What is
        written privately is not made public by that.
        """
        replied = self._window.chat.current.reply_to
        before, after = map(self._window.chat.address_of, (replied, entry))
        self._window.do(self._window.chat.reply, entry)
        draft = self.composer.get()
        if draft.startswith(before) and (after or draft.strip() == before.strip()):
            draft = draft[len(before) :]
        self.composer.set(draft if draft.startswith(after) else after + draft)
        self.focus_composer()
        return replied is not None

    def _completer(self) -> Completer:
        """Return what completes a draft; the rooms are asked for at the start of /join."""
        if self.composer.get().lower() == "/join ":
            self._window.do(self._window.chat.request, "LIST")
        return self._window.chat.completer

    def _on_notice(self, event: "TkEvent") -> None:
        if str(self.composer.notice.cget("cursor")):  # it can be clicked
            self.reply(None)

    def settle(self, action: str, entry: Entry) -> None:
        """Do one of FAILED_ACTIONS with a failed message; to be edited, it is put into the box."""
        chat = self._window.chat
        self._window.do({"retry": chat.retry, "edit": chat.edit}.get(action, chat.discard), entry)
        if chat.outcome.rest:
            self.composer.give_back(chat.outcome.rest)
            self.focus_composer()

    def reply_to_others(self) -> None:
        """Reply to the chosen line, else to the latest of others, or the one before that."""
        chat, entry = self._window.chat, self.transcript.cursor
        entry = entry or next_reply(chat, self.composer.get())
        if entry is not None and chat.can_reply(entry):
            self.reply(entry)

    def _describe_draft(self, draft: str) -> Notice:
        follow_draft(self._window.chat, draft)
        return describe_draft(self._window.chat, draft)

    def _answer(self) -> None:
        """Answer privately, as the draft's notice offers; only another's entry is replied to."""
        entry = describe_draft(self._window.chat, self.composer.get()).entry
        if entry is not None and entry.is_own:
            self.composer.set(self._window.chat.address_of(entry) + self.composer.get())
            self.focus_composer()
        else:
            self.reply(entry)

    def jump_to_end(self) -> None:
        self.transcript.show_end()
        self.focus_composer()

    def next_pane(self, step: int) -> None:
        """Move the focus to the next of the parts, or the button of one that is not in view."""
        people, button = self.people.list.canvas, self.buttons["person"]
        panes = [self.sidebar.list.canvas, self.menu_button, self.transcript.text]
        panes += [self.composer.text, people if people.winfo_viewable() else button]
        panes = [pane for pane in panes if pane.winfo_viewable()]
        focus = self.frame.focus_get()
        index = panes.index(focus) if focus in panes else panes.index(self.composer.text)
        panes[(index + step) % len(panes)].focus_set()

    def _open_menu(self) -> None:
        conversation = self._window.chat.current
        self._window.menus.open_conversation(conversation, self.buttons["more"])

    def _scroll(self, pages: int) -> str:
        self.transcript.text.yview_scroll(pages, "pages")
        return "break"

    def edit_topic(self) -> None:
        """Lay a field over the topic, or else open the menu."""
        room, field, px = self._window.chat.current, self.topic, self._look.px
        if not self._window.chat.can_set_topic(room):
            return self._open_menu()
        if field.frame.winfo_manager():
            return field.text.focus_set()
        place = {"x": px(12), "rely": 1, "y": -px(3), "relwidth": 1, "width": -px(16)}
        set_floating(field.frame, True, in_=self.room.canvas, anchor="sw", **place)
        self.room.redraw()
        field.frame.update_idletasks()  # only what is mapped takes the focus at once
        field.set(room.topic)
        self._old_topic = field.get()
        field.set(room.topic_draft or room.topic)
        return field.text.edit_reset()

    def close_topic(self, is_kept: bool = False) -> bool:
        """Remove the field for the topic; a change can be kept for the next time."""
        if self.topic.frame.winfo_manager():
            room, text = self.transcript.conversation, self.topic.get()
            room.topic_draft = text if is_kept and text != self._old_topic else ""
            if holds_focus(self.topic.frame):  # where Enter opens it again
                self.room.canvas.focus_set()
            set_floating(self.topic.frame, False)
            self.room.redraw()
        return True

    def _leave_topic(self) -> None:
        """Close an unchanged field for the topic, unless the whole window has lost the focus."""
        if self.topic.get() == self._old_topic and not holds_focus(self.topic.frame):
            self.close_topic()

    def _save_topic(self) -> str:
        chat, room, text = self._window.chat, self.transcript.conversation, self.topic.get()
        if text != self._old_topic:
            topic = protocol.clean(text, protocol.MAX_TOPIC)
            self._window.do(chat.send_command, "TOPIC", room.name, topic)
        self.close_topic(is_kept=not chat.can_set_topic(room))
        self.focus_composer()
        return "break"

    def _topic_tip(self) -> str:
        chat, is_open = self._window.chat, bool(self.topic.frame.winfo_manager())
        can_click = not is_open and chat.can_set_topic(chat.current)
        return "Click to change the topic" if can_click else ""

    def link_at(self, index: str) -> str:
        """Return the address of the link at an index of the transcript, "" for none."""
        text, entry = self.transcript.text, self.transcript.entry_at(index)
        is_link = entry is not None and "link" in text.tag_names(index)
        links = links_of(entry) if entry is not None and is_link else []
        shown = text.get(*text.tag_prevrange("link", index + "+1c")) if links else ""
        return next((link for link in links if self._look.encode(link) == shown), "")

    def _on_link(self, event: "TkEvent") -> str:
        text = self.transcript.text
        index = text.index("@%d,%d" % (event.x, event.y))
        tags, entry = text.tag_names(index), self.transcript.entry_at(index)
        if text.tag_ranges("sel") or entry is None:
            return ""
        action = next((tag for tag in tags if tag in FAILED_ACTIONS), "")
        if action:
            self.settle(action, entry)
        elif "person" in tags:
            self._window.menus.open_person(entry.line.nickname, event)
        elif "room" in tags:
            name = join_surrogates(text.get(*text.tag_prevrange("room", index + "+1c")))
            self.open(name)
        else:
            open_link(self.link_at(index))
        return "break"

    def _on_enter(self, event: "TkEvent") -> str:
        """Send the chosen line again if it has failed, or follow its link; else open its menu."""
        entry = self.transcript.cursor
        links = links_of(entry) if entry is not None else []
        if entry is not None and entry.delivery in FAILED:
            self.settle("retry", entry)
        elif len(links) == 1:
            open_link(links[0])
        elif entry is not None:
            self._window.menus.open_text(event)
        return "break"

    def _on_stray_key(self, event: "TkEvent") -> Optional[str]:
        """Pass a character typed outside the message box on to it."""
        modifiers = 0x20004 if self._look.system == "win32" else 0x4C  # there 8 is Num Lock
        if not event.char or not event.char.isprintable() or int(event.state) & modifiers:
            return None  # a key that the text may want, or with Control or Alt
        self.composer.insert(event.char)
        return "break"

    # How it is laid out

    def _draw_room(self, row: Drawing) -> None:
        chat, conversation = self._window.chat, self._window.chat.current
        if self.topic.frame.winfo_manager():
            hint = "Topic of %s. Enter saves, Esc cancels" % conversation.name
            row.text(hint, "muted", "small", dy=-17)
            return
        sign = "# " if conversation.kind == CHANNEL else ""
        row.text(sign + conversation.title, "text", "room", dy=-9)
        topic = conversation.topic
        if not topic and conversation.kind == CHANNEL:
            topic = "No topic. Click to set one" if chat.can_set_topic(conversation) else "No topic"
        elif conversation.kind == PRIVATE:
            words = {ONLINE: "Online", AWAY: "Away", OFFLINE: "Not here"}
            topic = "Private · %s" % words[chat.presence(conversation.name)]
        row.text(topic, "muted", "small", dy=11)

    def _show_pill(self) -> None:
        unseen, y = self.transcript.unseen, -self._look.px(10)
        self.pill.configure(
            text=" " + (protocol.counted(unseen, "new message") if unseen else "Jump to latest")
        )
        is_shown = not self.transcript.at_end
        set_floating(self.pill, is_shown, relx=0.5, rely=1, y=y, anchor="s")
        self.transcript.covered = self.pill.winfo_reqheight() - y if is_shown else 0

    def _show_menu_button(self) -> None:
        is_unread = any(c.news for c in self._window.chat.conversations)
        icon = self._look.icon("menu", dot="mention_badge" if is_unread else "")
        self.menu_button.configure(image=icon)

    def _show_lock(self) -> None:
        """Show if the chat is encrypted; in grey while there is no connection."""
        icon, color, text = "unlock", "warn", " Not encrypted"
        if self._window.chat.session.pin:
            icon, color, text = "lock", "ok", ""
        if self._window.chat.state != CONNECTED:
            color, text = "muted", ""
        self.buttons["lock"].configure(image=self._look.icon(icon, color), text=text)

    def lock_tip(self) -> str:
        """Return the words about the encryption, and the key that shows more."""
        return describe_pin(self._window.chat.session.pin) + "   F2"

    def toggle_people(self) -> None:
        """Show the people, or hide them; in a narrow window, the keyboard goes there, too."""
        self._shows_people[self._is_roomy] = not self._shows_people[self._is_roomy]
        self._lay_out()
        if self._shows_people[False] and not self._is_roomy:
            self.people.frame.update_idletasks()  # only what is mapped takes the focus at once
            self.people.list.canvas.focus_set()

    def close_people(self) -> bool:
        """In a narrow window, hide the people if they cover the chat or have the focus."""
        people, can_close = self.people.frame, self._shows_people[False] and not self._is_roomy
        can_close = can_close and (people.winfo_manager() == "place" or holds_focus(people))
        if can_close:
            self.toggle_people()
        return can_close

    def _lay_out(self) -> None:
        """Show beside the chat what there is room for."""
        width, dp = self.frame.winfo_width(), self._look.dp
        self._is_roomy, is_wide = width >= dp(self.NARROW), width >= dp(self.NARROWEST)
        set_shown(self.menu_button, not is_wide)
        has_people, people = self._shows_people[self._is_roomy], self.people.frame
        for frame, is_shown in ((self.sidebar.frame, is_wide), (people, has_people)):
            if not is_shown and holds_focus(frame):
                self.focus_composer()
        set_shown(self.sidebar.frame, is_wide)
        if is_wide or not has_people:
            people.place_forget()
        set_shown(people, has_people and is_wide)
        if has_people and not is_wide:  # over the chat, which would be too narrow beside them
            people.place(in_=self.transcript.frame, relx=1, relheight=1, anchor="ne")
            people.lift()


def links_of(entry: Entry) -> List[str]:
    """Return the addresses in an entry."""
    return [entry.text[start:end] for start, end in find_links(entry.text)]


def open_link(address: str) -> None:
    """Show a web page, and nothing but a web page."""
    if find_links(address) == [(0, len(address))]:
        scheme, _, rest = address.partition(":")
        address = scheme.lower() + ":" + rest  # a browser need not know HTTPS://
        # Daemon: the browser may take its time to start.
        thread = threading.Thread(target=webbrowser.open, args=(address,), daemon=True)
        thread.name = "browser"
        thread.start()


# The window
# ----------


class Notifier:
    """Draws attention to the window with what the system has: a bell, a notification."""

    PAUSE = 2.0  # seconds between two alerts
    TIMEOUT = 10.0  # seconds that a notification may take
    # For Windows, without any text: that comes as title and text in the environment, and becomes
    # text in XML. Notifications need the id of an installed program.
    TOAST = r"""
        $manager = [Windows.UI.Notifications.ToastNotificationManager, Windows.UI.Notifications,
            ContentType = WindowsRuntime]
        $kind = [Windows.UI.Notifications.ToastTemplateType]::ToastText02
        $xml = $manager::GetTemplateContent($kind)
        $places = $xml.GetElementsByTagName('text')
        [void]$places.Item(0).AppendChild($xml.CreateTextNode($env:HUBBUB_TITLE))
        [void]$places.Item(1).AppendChild($xml.CreateTextNode($env:HUBBUB_TEXT))
        $id = '{1AC14E77-02E7-4E5D-B744-2EB1AE5198B7}\WindowsPowerShell\v1.0\powershell.exe'
        $toast = [Windows.UI.Notifications.ToastNotification]::new($xml)
        $manager::CreateToastNotifier($id).Show($toast)
    """

    def __init__(self, root: "tk.Tk", system: str) -> None:
        self._root, self._system = root, system
        self._last = -self.PAUSE

    def alert(self, title: str, body: str, sound: bool) -> None:
        """Draw attention now. Never waits."""
        now = time.monotonic()
        if now < self._last + self.PAUSE:
            return
        self._last = now
        command = self._command(title, body)
        if command:
            # Daemon: it waits for another program, which may outlive this one.
            args = (command, {"HUBBUB_TITLE": title, "HUBBUB_TEXT": body})
            threading.Thread(target=self._run, args=args, name="notify", daemon=True).start()
        if sound:
            self._root.bell()

    def _run(self, command: List[str], texts: Dict[str, str]) -> None:
        null, hidden = subprocess.DEVNULL, 0x08000000 if self._system == "win32" else 0
        options: Any = {"stdin": null, "stdout": null, "stderr": null, "creationflags": hidden}
        try:
            options["env"] = {**os.environ, **texts}
            subprocess.run(command, check=True, timeout=self.TIMEOUT, **options)  # noqa: S603
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            log.info("no notification: %s", error)

    def _command(self, title: str, body: str) -> List[str]:
        """Return the command that shows a notification, [] for none. No text is an option."""
        if self._system == "aqua":
            script = "display notification (item 2 of argv) with title (item 1 of argv)"
            return ["osascript", "-e", "on run argv\n%s\nend run" % script, title, body]
        if self._system == "win32":
            folder = os.path.join(os.environ.get("SYSTEMROOT", r"C:\Windows"), "System32")
            program = os.path.join(folder, "WindowsPowerShell", "v1.0", "powershell.exe")
            return [program, "-NoProfile", "-NonInteractive", "-Command", self.TOAST]
        found = shutil.which("notify-send") if self._system == "x11" else None
        return [found, "-a", "Hubbub", "--", title, html.escape(body, False)] if found else []


def copy_text(root: "tk.Tk", text: str) -> None:
    """Put a text into the clipboard."""
    root.clipboard_clear()
    root.clipboard_append(text)


# Where a menu opens: at it, or at the row in use
Spot = Union["TkEvent", "tk.Misc", RowList, Transcript]
MARK = "✓ "  # before the words of an entry that is chosen


class Menus:
    """The menus."""

    def __init__(self, window: "Window") -> None:
        self._window = window
        self.menu = tk.Menu(window.root, tearoff=False, bd=1, relief="flat")
        self._mouse = 0, 0  # where it was when the menu was opened
        for sequence in ("<Enter>", "<Motion>"):
            self.menu.bind(sequence, self._on_mouse)

    def close(self, event: "Optional[TkEvent]" = None) -> bool:
        """Close the open menu, unless the event is in it; return False if none is open."""
        is_inside = event is not None and str(event.widget).startswith(str(self.menu))
        is_open = bool(self.menu.winfo_viewable()) and not is_inside
        if is_open:
            self.menu.tk.call("tk::MenuUnpost", str(self.menu))
        return is_open

    def _on_mouse(self, event: "TkEvent") -> Optional[str]:
        """Highlight no entry only because the menu has opened below the mouse."""
        return "break" if (event.x_root, event.y_root) == self._mouse else None

    def open_person(self, name: str, spot: "Spot") -> None:
        """Open the menu of a person."""
        view, chat = self._window.chat_view, self._window.chat
        if name == chat.nickname:
            return self.open_own(spot)
        invite = functools.partial(self._window.do, chat.send_command, "INVITE", name)
        rooms = [room.name for room in chat.invitable(name)]
        ignore = ("Stop ignoring", "unignore") if chat.is_ignored(name) else ("Ignore", "ignore")
        entries: List[Any] = [
            ("Write privately", lambda: view.open(name)),
            ("Mention", lambda: view.composer.mention(name)),
            ("Who is %s?" % name, lambda: view.submit("/whois %s" % name)),
            None,
            (ignore[0], lambda: view.submit("/%s %s" % (ignore[1], name))),
            *self._moderation(name),
            *([None] if rooms else []),
            *(("Invite to " + room, functools.partial(invite, room)) for room in rooms),
        ]
        return self._open(entries, spot)

    def _moderation(self, name: str) -> List[Any]:
        """Return the entries that tell if a person is an operator, and those of moderation."""
        chat, ask = self._window.chat, self._window.questions.moderate
        room, member = chat.current.name, chat.current.members.get(protocol.casefold(name))
        is_chanop, entries = chat.session.is_chanop(member), []  # type: bool, List[Any]
        if is_chanop:
            entries = [None, ("%s is an operator of %s" % (name, room), None)]
        makes: List[Any] = []
        if member is not None and chat.can_moderate(chat.current):
            entries.append(None)
            entries.append(("Remove from %s…" % room, lambda: ask("KICK", name)))
            entries.append(("Ban from %s…" % room, lambda: ask("MODE", name)))
            mode, words = ("-o", "ordinary member") if is_chanop else ("+o", "operator")
            makes = [None, ("Make %s of %s…" % (words, room), lambda: ask(mode, name))]
        if chat.session.is_operator and RESUME_CAP in chat.session.caps:
            unmute = functools.partial(self._window.do, chat.send_command, "UNBAN", name)
            is_muted = protocol.casefold(name) in chat.muted
            entries.append(None)
            entries.append(("Unmute", unmute) if is_muted else ("Mute…", lambda: ask("MUTE", name)))
            entries.append(("Remove from the chat…", lambda: ask("KILL", name)))
            entries.append(("Ban from the chat…", lambda: ask("BAN", name)))
        return entries + makes

    def open_conversation(self, conversation: Any, spot: "Spot") -> None:
        """Open the menu of a conversation."""
        do, chat, view = self._window.do, self._window.chat, self._window.chat_view
        if not isinstance(conversation, Conversation):
            return
        entries: List[Any] = []
        if conversation.is_outside:
            entries = [("Join " + conversation.name, lambda: view.join(conversation)), None]
        levels = [(ALL, "Notify me of everything"), (MENTIONS, "Notify me of mentions")]
        if conversation.kind == PRIVATE:
            is_off = conversation.level == NONE
            levels = [(MENTIONS if is_off else conversation.level, "Notify me")]
        for level, words in (*levels, (NONE, "Never notify me")):
            action = functools.partial(do, chat.set_level, conversation, level)
            entries.append((MARK * (conversation.level == level) + words, action))
        if conversation in chat.invitable(""):
            invite = functools.partial(self._window.questions.invite, conversation)
            entries += [None, ("Invite someone…", invite)]
        if conversation is chat.current and chat.can_set_topic(conversation):
            entries += [None, ("Change the topic…", view.edit_topic)]
        if chat.can_moderate(conversation):
            bans = functools.partial(self._window.questions.lift, "MODE", conversation.name, "b")
            entries += [None, *self._rules(conversation), ("Bans from this room…", bans)]
        if conversation.kind == CHANNEL:
            action = functools.partial(do, chat.toggle_joins, conversation)
            entries += [None, (MARK * conversation.hides_joins + "Hide joins and leaves", action)]
        if conversation.kind != CONSOLE:
            verb = "Leave " if conversation.kind == CHANNEL else "Close "
            words = "Remove from the list" if conversation.is_outside else verb + conversation.name
            ask = self._window.questions.ask_leave
            entries += [None, (words, functools.partial(ask, conversation, words))]
        self._open(entries, spot)

    def _rules(self, room: Conversation) -> List[Any]:
        """Return the entries for the modes of a room that its operators may change."""
        do, chat, entries = self._window.do, self._window.chat, []  # type: Any, Chat, List[Any]
        rules = {"t": "Only operators set the topic", "i": "Only invited people may join"}
        for mode, words in rules.items():
            mark, sign = (MARK, "-") if mode in room.flags else ("", "+")
            change = functools.partial(do, chat.send_command, "MODE", room.name, sign + mode)
            entries.append((mark + words, change))
        ask = functools.partial(self._window.questions.ask_room_password, room)
        return [*entries, (MARK * bool(room.channel_key) + "Password…", ask)]

    def open_conversations(self) -> None:
        """Open the menu of conversations, where there is no room for the sidebar."""
        view, entries = self._window.chat_view, []  # type: ChatView, List[Any]
        for conversation in self._window.chat.conversations:
            notes = "   (%d)" % conversation.news if conversation.news else ""
            notes += "   (unfinished)" if is_unfinished(conversation.draft) else ""
            action = functools.partial(view.select, conversation)
            mark = MARK * (conversation is self._window.chat.current)
            entries.append((mark + conversation.name + notes, action))
        entries += [None, ("Go to…", self._window.questions.go_to, "Ctrl+K")]
        entries.append(("Menu…", self.open_main, "F10"))
        self._open(entries, view.menu_button)

    def open_own(self, spot: "Spot") -> None:
        """Open the menu of the user's own presence, name and account."""
        self._open(self._own_entries(), spot)

    def _own_entries(self) -> List[Any]:
        view, chat = self._window.chat_view, self._window.chat
        away = ("Set me available", "/away") if chat.is_away else ("Set me away", "/away away")
        entries = [
            (away[0], lambda: view.submit(away[1])),
            ("Another name…", self._window.questions.ask_name),
            None,
            ("Register this name…", lambda: view.composer.ask_password("/register ")),
            ("Log in…", self._window.questions.ask_login),
        ]
        return entries[:2] if chat.session.account else entries

    def open_main(self, spot: "Optional[Spot]" = None) -> None:
        """Open the menu at the network's name: the server, and the program."""
        window, view, questions = self._window, self._window.chat_view, self._window.questions
        head, narrow = view.sidebar.head.canvas, view.menu_button
        hosting = [("Host a chat…", lambda: window.leave(True))]
        if window.hosting.is_own:
            hosting = [("End the chat on this computer…", questions.ask_end)]
        elif is_local(window.chat.address):  # the port is in use
            hosting = []
        entries: List[Any] = [
            ("Browse rooms…", lambda: questions.go_to("#")),
            ("New private message…", lambda: questions.go_to("@")),
            ("Search all conversations…", view.search_all, "Ctrl+Shift+F"),
            None,
            *self._own_entries(),
            None,
            ("Turn sound %s" % ("off" if window.settings.sound else "on"), window.toggle_sound),
            ("Switch to %s" % window.other_theme, window.toggle_theme, "Ctrl+T"),
            ("Larger", lambda: window.zoom(1), "Ctrl++"),
            ("Smaller", lambda: window.zoom(-1), "Ctrl+-"),
            None,
            ("Who can join, and how", window.hosting.invite),
            ("This server, and its encryption", questions.show_server, "F2"),
            *hosting,
            *self._operator_entries(),
            None,
            ("Help, keys, about Hubbub", questions.help, "F1"),
            ("Other server…", window.leave),
            ("Quit", window.close, "Ctrl+Q"),
        ]
        self._open(entries, spot or (head if head.winfo_viewable() else narrow))

    def _operator_entries(self) -> List[Any]:
        """Return the entries of an operator of the server, or that to become an operator."""
        window = self._window
        if window.chat.session.is_operator:
            announce = ("Announce to everyone…", window.questions.ask_announcement)
            lift = functools.partial(window.questions.lift, "BANS")
            return [None, announce, ("Bans and mutes…", lift)]
        operate = window.hosting.operate
        return [None, ("Become the operator", operate)] if window.hosting.is_own else []

    def open_text(self, event: "TkEvent") -> None:
        """Open the menu of the text in a widget, and of the link at the mouse."""
        widget: Any = event.widget
        view, entry = self._window.chat_view, None  # type: ChatView, Optional[Entry]
        spot, links = event, []  # type: Spot, List[str]
        widget.focus_set()
        edits = ["Cut", "Copy", "Paste", "Select all"]
        if widget is view.transcript.text:
            edits = ["Copy", "Select all"]
            entry, at = view.transcript.cursor, "@%d,%d" % (event.x, event.y)
            if event.type != tk.EventType.KeyPress:
                entry = view.transcript.entry_at(at)
                view.transcript.choose(entry)
                links = [link for link in [view.link_at(at)] if link]
            elif entry is not None:
                links, spot = links_of(entry), view.transcript
        entries: List[Any] = []
        for words in edits:
            name = "<<%s>>" % words.title().replace(" ", "")
            entries.append((words, functools.partial(widget.event_generate, name)))
        if entry is not None:
            entries = self._line_entries(entry, links[:MAX_OFFERED], spot, entries)
        self._open(entries, spot)

    def _line_entries(
        self, entry: Entry, links: Sequence[str], spot: "Spot", edits: Sequence[Any]
    ) -> List[Any]:
        """Return the entries for a line of the transcript: itself, then links and rooms in it."""
        window, view, chat = self._window, self._window.chat_view, self._window.chat
        entries: List[Any] = []
        if entry.delivery in FAILED:
            for action, words in FAILED_ACTIONS.items():
                entries.append((words, functools.partial(view.settle, action, entry)))
        elif chat.can_reply(entry):
            words = "Reply" if chat.reply_conversation(entry) is chat.current else "Reply privately"
            entries.append((words, functools.partial(view.reply, entry)))
        entries += [*edits, None]
        for link in links:
            shown, copy = protocol.clean(link, 60), functools.partial(copy_text, window.root, link)
            entries.append(("Open " + shown, functools.partial(open_link, link)))
            entries.append(("Copy " + shown, copy))
        for room in list(dict.fromkeys(_ROOM.findall(entry.text)))[:MAX_OFFERED]:
            known = chat.conversation_named(room)
            if known is not chat.current:
                words = ("Go to " if known else "Join ") + protocol.clean(room, 60)
                entries.append((words, functools.partial(view.open, room)))
        if entry.line.nickname and not entry.is_own:
            more = functools.partial(self.open_person, entry.line.nickname, spot)
            entries.append(("More for %s…" % entry.line.nickname, more))
        return entries[: None if entries[-1] else -1]

    def _open(self, entries: Sequence[Any], spot: "Spot") -> None:
        """Open a menu of (words, action) or (words, action, key), None between two groups.

        If some words begin with MARK, the others begin below the words after it.
        X11 has grooves for lines, which glare on a dark menu, and no room above the first entry:
        there, thin empty entries are around the groups. What is left of the menu is its border.
        """
        look, menu, color = self._window.look, self.menu, self._window.look.color
        has_gaps = look.system == "x11"
        gap = (look.font["ui"].actual("family"), -look.px(6))
        measure, has_marks = look.font["ui"].measure, MARK in "".join(e[0] for e in entries if e)
        margin = " " * (round(measure(MARK) / measure(" ")) * has_marks)
        menu.delete(0, "end")
        menu.configure(
            bg=color["outline" if has_gaps else "field"], fg=color["text"], font=look.font["ui"]
        )
        menu.configure(disabledforeground=color["muted"], activeborderwidth=0)
        menu.configure(activebackground=color["accent"], activeforeground=color["on_accent"])
        for entry in [None, *entries, None] if has_gaps else entries:
            if entry is not None:
                words, action = "  %s  " % (margin * (MARK not in entry[0]) + entry[0]), entry[1]
                key = "".join(key_name(key, look.system) + "  " * has_gaps for key in entry[2:])
                menu.add_command(label=look.text(words), command=action or "", accelerator=key)
                if action is None:
                    menu.entryconfigure("end", state="disabled")
            elif has_gaps:
                menu.add_command(state="disabled", font=gap)
            else:
                menu.add_separator()
            menu.entryconfigure("end", background=color["field"])
        height = 0  # of what stays in view below the menu, or above it
        if isinstance(spot, (RowList, Transcript)):
            x, y = spot.spot
        elif isinstance(spot, tk.Event) and spot.type != tk.EventType.KeyPress:
            x, y = spot.x_root, spot.y_root
        else:
            widget = spot.widget if isinstance(spot, tk.Event) else spot
            height = min(widget.winfo_height(), look.dp(56))
            x, y = widget.winfo_rootx() + look.px(8), widget.winfo_rooty() + height
        menu.update_idletasks()  # for its height
        if y + menu.winfo_reqheight() > menu.winfo_screenheight():  # not below the mouse
            y -= height + menu.winfo_reqheight()
        self._mouse = menu.winfo_pointerxy()
        menu.tk_popup(x, y)
        menu.grab_release()
        if look.is_by_key:  # highlight its first entry
            menu.tk.call("tk::MenuFirstEntry", str(menu))


# Title and text of the sheet in which an operator decides about {0}, in the room {1}
MODERATION = {
    "KICK": ("Remove {0} from {1}", "{0} can come back at once."),
    "MODE": ("Ban {0} from {1}", "{0} is removed from this room, until you lift it."),
    "+o": ("Make {0} an operator of {1}", "{0} may then remove and ban others there, {you}."),
    "-o": ("Make {0} an ordinary member of {1}", "{0} may then remove or ban no one there."),
    "MUTE": (
        "Mute {0}",
        "{0} can still read, and write privately to operators. If only the name is muted, {0} can"
        " come back under another.",
    ),
    "KILL": ("Remove {0} from the chat", "{0} can come back at once."),
    "BAN": (
        "Ban {0} from the chat",
        "{0} is removed, and cannot come back before the ban ends. If only the name is banned, {0}"
        " can come back under another.",
    ),
}
DURATIONS = {"For 10 minutes": "10m", "For an hour": "1h", "Until you lift it": "*"}


class Questions:
    """The questions of the window: sheets to choose from, and questions in the banner."""

    CLOSE = "Close Hubbub?"  # the beginning of that question
    HOST_CLOSE = "You are leaving. Should the chat go on without you?"

    def __init__(self, window: "Window") -> None:
        self._window = window
        self.sheet: Optional[Sheet] = None
        self._results: Optional[Sheet] = None  # that of the last search
        self._searched, self._pause_id = "", ""  # what its field said then; a timer, or ""
        self.question = ""  # that in the banner
        self._is_relevant: Callable[[], bool] = lambda: True  # has the question still a reason?
        self.asked_at = 0.0  # when one was last asked for

    def go_to(self, signs: str = "#@", text: str = "") -> None:
        """Ask for a room ("#"), a person ("@"), or either; known or new."""
        chat = self._window.chat
        if "#" in signs:
            self._window.do(chat.request, "LIST")
        title = {"#": "Browse rooms", "@": "Write privately to"}.get(signs, "Go to")
        choose = self._window.chat_view.open
        kind = {"#": "room", "@": "person"}.get(signs, "room or a person")
        hint = "Find a %s, or type a new name" % kind
        rows = functools.partial(offer_names, chat, signs)
        self._open_sheet(title, "", rows, choose, hint).fill(text)

    def invite(self, room: Conversation) -> None:
        """Ask whom to invite to a room: those who are not there."""
        rows = functools.partial(offer_names, self._window.chat, "@", room=room)
        choose = lambda name: self._send(("INVITE", name, room.name))  # noqa: E731
        hint = "Find a person, or type a name"
        self._open_sheet("Invite to " + room.name, "", rows, choose, hint)

    def search(self) -> None:
        """Show the results of a search in all conversations, below a field for other words."""
        window, sheet = self._window, self._results

        def rows(words: str) -> List[Row]:
            if self._pause_id:
                window.root.after_cancel(self._pause_id)
            self._pause_id = ""
            if words == self._searched:
                lookup = window.chat.lookup
                return [text_row(None, lookup.note), *map(result_row, lookup.results)]
            self._pause_id = window.root.after(TYPING_MS, lambda: search(words))
            return [text_row(None, "Searching…")]

        def search(words: str) -> None:
            if self.sheet is self._results:  # it is not closed
                window.do(window.chat.search, words)

        if sheet is None or sheet is not self.sheet:
            hint = "Words to find"
            choose = functools.partial(window.do, window.chat.reveal)
            window.chat_view.search_bar.close()  # it would stand out behind the sheet
            sheet = self._open_sheet("Search all conversations", "", rows, choose, hint, True)
            sheet.fill(window.chat.lookup.words)
        self._results, self._searched = sheet, sheet.words
        sheet.refresh()

    def moderate(self, command: str, name: str) -> None:
        """Ask if, or for how long, a person is removed, muted or banned."""
        chat, room = self._window.chat, self._window.chat.current.name
        you = "but not you" if chat.session.is_operator else "and you"  # of the whole server
        title, text = (words.format(name, room, you=you) for words in MODERATION[command])
        hint = "" if command in ("+o", "-o") else "Reason, if you want to give one"
        rows = functools.partial(moderation_rows, title, command, name, room)
        self._open_sheet(title, text, rows, lambda keys: self._send(*keys), hint)

    def ask_room_password(self, room: Conversation) -> None:
        """Ask for the password of a room: to join it, or else to set it; none removes it."""
        key, command = "".join(room.channel_key), ["MODE", room.name, "+k"]
        action, hint = "Set the password", "Type a password"
        text = "Those who join have to type it, unless an operator has invited them."
        text += " Clear the field to remove it." if key else ""
        if room.is_outside:
            key, command = "", ["JOIN", room.name]
            action, hint = "Join " + room.name, "Type the password"
            text = "Its operators know it. They can also invite you."

        def row(words: str) -> Row:
            if not words and key:
                return text_row(("MODE", room.name, "-k", key), "Remove the password")
            if protocol.is_key(words):
                return text_row((*command, words), action)
            rule = "At most %d characters, no spaces, no commas" % protocol.MAX_KEY
            return text_row(None, rule if words else hint)

        self._ask_words("Password of " + room.name, text, row, "The password", key)

    def ask_name(self) -> None:
        """Ask for another name of the user."""
        row = functools.partial(name_row, "NICK", "Take this name")
        self._ask_words("Another name", "Everyone sees it.", row, "Your new name")

    def ask_login(self) -> None:
        """Ask for the name of an account, then in the message box for its password."""
        rows = lambda name: [name_row("/login", "Type its password", name)]  # noqa: E731
        ask, text = self._window.chat_view.composer.ask_password, "With a name that is registered."
        choose = lambda command: ask("%s %s " % command)  # noqa: E731
        sheet = self._open_sheet("Log in", text, rows, choose, "A registered name")
        sheet.fill(self._window.chat.nickname)

    def ask_announcement(self) -> None:
        """Ask for words for everyone on the server."""

        def row(words: str) -> Row:
            return text_row(("ANNOUNCE", words) if words else None, "Tell everyone")

        text = "Everyone on this chat sees it, in every room."
        self._ask_words("Announce to everyone", text, row, "The announcement")

    def lift(self, *params: str) -> None:
        """Show the bans and mutes that the server lists with a command, to be lifted."""
        chat = self._window.chat

        def rows(words: str) -> List[Row]:
            listing = chat.listing
            none = "Asking the server…" if listing.word else _NOT_CONNECTED
            none = "Nobody is banned or muted." if listing.is_done else none
            return list(map(lifting_row, listing.rows)) or [text_row(None, none)]

        def choose(command: Tuple[str, ...]) -> None:
            self._send(command)
            self.lift(*params)

        self._window.do(chat.request, *params)
        title = "Bans from %s" % params[1] if params[1:] else "Bans and mutes"
        sheet = self._open_sheet(title, "Choose one to lift it.", rows, choose)
        sheet.button.focus_set()  # Enter lifts nothing by mistake

    def help(self) -> None:
        """Show what can be typed, the keys and the commands."""
        patch = self._window.root.tk.call("info", "patchlevel")
        about = "Hubbub %s, Python %d.%d, Tk %s"
        about %= (protocol.VERSION, *sys.version_info[:2], patch)
        plain = [Suggestion(word, help=help) for word, help in protocol.UNNAMED_HELP]
        typed = lambda each: text_row(each.word, each.word + each.args, each.help, 7)  # noqa: E731
        system = self._window.look.system
        rows = [caption("WHAT YOU CAN TYPE"), *map(typed, plain), caption("KEYS")]
        rows += [text_row(key.name, key.help, note=key_name(key.name, system)) for key in KEYS]
        rows += [caption("COMMANDS"), *map(typed, commands(self._window.chat))]
        reader = "With a screen reader, start Hubbub with --terminal."
        rows += [caption("ABOUT"), text_row(reader, reader), text_row(about, about)]
        self._open_sheet("Help", "", lambda words: rows, None, is_wide=True)

    def show_server(self) -> None:
        """Show the server's address, if it is encrypted, and its fingerprint."""
        chat, copy = self._window.chat, functools.partial(copy_text, self._window.root)
        pin, rows = chat.session.pin, [text_row(None, chat.address)]
        text = describe_pin(pin)
        if pin:
            text += " The host can read everything, nobody on the way can."
        if pin not in ("", SYSTEM):
            text += "\n\nTo be sure that nobody listens in, "
            if is_local(chat.address):
                text += "let the others check that they see this same fingerprint."
            else:
                text += "ask the host to read out theirs: it must be this same fingerprint."
            digest = protocol.format_fingerprint(pin)
            for half in (digest[:39], digest[40:]):
                rows.append(
                    Row(None, half, functools.partial(Drawing.text, text=half, font="code"))
                )
            rows.append(text_row(digest, "Copy the fingerprint"))
        self._open_sheet(chat.console.name, text, lambda words: rows, copy)

    def ask_paste(self, lines: int, paste: Action) -> bool:
        """Ask before many lines are pasted; return True if it is asked."""
        if lines > MANY_LINES:
            window, state = self._window, (self._window.chat.state, self._window.chat.current)
            words = "Paste %d lines? Each line will be a message of its own." % lines
            is_relevant = lambda: (window.chat.state, window.chat.current) == state  # noqa: E731
            self._ask(words, is_relevant, ("Paste", paste), ("Cancel", None))
        return lines > MANY_LINES

    def losses(self) -> str:
        """Return words about the messages that are lost with this chat, "" for none."""
        unsent, names = self._window.chat.unsent, self._window.chat_view.drafts()
        counted = protocol.counted(unsent, "message has", "messages have")
        words = [counted + " not been sent yet, and would be lost."] if unsent else []
        listed = ", ".join([*names[:-2], " and ".join(names[-2:])])
        what = "unfinished messages" if len(names) > 1 else "an unfinished message"
        words += ["You have %s to %s." % (what, listed)] if names else []
        return " ".join(words)

    def ask_close(self, close: Action, question: str = CLOSE, is_always: bool = False) -> None:
        """Ask before messages are lost, or always."""
        chat, words = self._window.chat, ("%s %s" % (question, self.losses())).strip()
        is_relevant = lambda: chat.state != DISCONNECTED and bool(is_always or self.losses())  # noqa: E731
        answers = (question.split()[0], close), ("Stay", None)
        self._ask(words, is_relevant, *answers, again=close)

    def ask_leave(self, conversation: Conversation, words: str) -> None:
        """Leave a room or close a conversation; ask first if a message there is unfinished."""
        drafts = self._window.chat_view.drafts
        leave = functools.partial(self._window.do, self._window.chat.leave, conversation)
        if conversation.name in drafts():
            question = words + "? You have an unfinished message there."
            answers = (words.split()[0], leave), ("Stay", None)
            self._ask(question, lambda: conversation.name in drafts(), *answers)
        else:
            leave()

    def is_asking(self) -> bool:
        """Return True if there is a question that still has a reason."""
        if self.question and not self._is_relevant():
            self.question = ""  # the focus stays where the user writes
            if holds_focus(self._window.chat_view.banner.frame):
                self._window.chat_view.focus_composer()
        return bool(self.question)

    def ask_host_close(self, keep: Action, end: Action) -> None:
        """Ask what becomes of the chat on this computer."""
        answers = ("Keep the chat running", keep), ("End it for everyone", end), ("Cancel", None)
        words = ("%s %s" % (self.HOST_CLOSE, self.losses())).strip()
        self._ask(words, lambda: self._window.hosting.is_in_view, *answers, again=keep)

    def ask_end(self) -> None:
        """Ask before the chat ends for everybody."""
        hosting = self._window.hosting
        words = "The chat ends for everyone who is here. Its history is kept. " + self.losses()
        answers = ("End it for everyone", hosting.end_chat), ("Cancel", None)
        self._ask(words, lambda: hosting.is_own, *answers)

    def close_beside(self, widget: Any) -> None:
        """Close the sheet, unless it is a form, or the widget is in it or the menu."""
        own = [self.sheet.frame, self._window.menus.menu] if self.sheet is not None else []
        is_inside = any(("%s." % widget).startswith("%s." % part) for part in own)
        if self.sheet is not None and not self.sheet.is_form and not is_inside:
            self.cancel()

    def cancel(self) -> bool:
        """Close what is open; return False if nothing is."""
        if self.sheet is not None:
            self.sheet.close()
        elif self.question:
            self._answer()
        else:
            return False
        return True

    def _ask(
        self,
        text: str,
        is_relevant: Callable[[], bool],
        *answers: Tuple[str, Optional[Action]],
        again: Optional[Action] = None,
    ) -> None:
        """Ask in the banner while `is_relevant` returns True; None: back to the message box.

        `again` is done if it is asked for a second time, but not by a key that is held.
        """
        before, self.asked_at = self.asked_at, time.monotonic()
        if self.is_asking() and again and self.question.startswith(text.partition("?")[0]):
            if self.asked_at > before + REPEAT_TIME:
                self._answer(again)
            return
        self.cancel()
        self.question, self._is_relevant = text, is_relevant
        bar = self._window.chat_view.banner
        buttons = [(label, functools.partial(self._answer, action)) for label, action in answers]
        bar.show(text, "warn", buttons)
        bar.buttons[-1].focus_set()

    def _answer(self, action: Optional[Action] = None) -> None:
        self.question = ""
        self._window.show_bars()
        (action or self._window.chat_view.focus_composer)()

    def _send(self, *commands: Tuple[str, ...]) -> None:
        for params in commands:
            self._window.do(self._window.chat.send_command, *params)

    def _ask_words(
        self, title: str, text: str, row: Callable[[str], Row], hint: str, before: str = ""
    ) -> None:
        """Ask for a line of text; `row` returns its row, whose key is the command to send."""
        rows = lambda words: [row(protocol.clean(words))]  # noqa: E731
        self._open_sheet(title, text, rows, self._send, hint).fill(before)

    def _open_sheet(
        self,
        title: str,
        text: str,
        rows: Callable[[str], List[Row]],
        choose: Optional[Callable[[Any], Any]],
        hint: str = "",
        is_wide: bool = False,
    ) -> Sheet:
        """Open a sheet; below a text, rows that can be chosen look like buttons."""
        self.cancel()
        view, look = self._window.chat_view, self._window.look

        def closed(key: Any) -> None:
            self.sheet = None
            view.focus_composer()
            if key is not None and choose is not None:
                choose(key)

        self.sheet = sheet = Sheet(view.frame, look, (title, text, hint), rows, closed, is_wide)
        sheet.list.fill = "choice" if choose is not None and text else ""
        sheet.frame.grid(row=0, column=0, columnspan=3, padx=look.px(10), pady=look.px(10))
        self._window.keys.add_to(sheet.frame)
        return sheet


def moderation_rows(title: str, command: str, name: str, room: str, reason: str) -> List[Row]:
    """Return the rows of the sheet of MODERATION; the keys are the commands to send."""
    reason = protocol.clean(reason)
    why = (reason,) if reason else ()
    kick = ("KICK", room, name, *why)
    at_once: Dict[str, Tuple[Tuple[str, ...], ...]] = {
        "KICK": (kick,),
        "MODE": (("MODE", room, "+b", name + "!*@*"), kick),
        "KILL": (("KILL", name, reason),),
        **{mode: (("MODE", room, mode, name),) for mode in ("+o", "-o")},
    }
    if command in at_once:
        return [text_row(at_once[command], title)]

    def rows(*targets: str) -> List[Row]:
        return [
            text_row(tuple((command, target, length, *why) for target in targets), words)
            for words, length in DURATIONS.items()
        ]

    both = "THE NAME AND THE COMPUTER, FOR ALL WHO USE IT"
    return [caption("ONLY THE NAME"), *rows(name), caption(both), *rows("@" + name, name)]


def name_row(command: str, action: str, name: str) -> Row:
    """Return the row that sends a command with a name, or says why that cannot be a name."""
    error = protocol.nickname_error(protocol.normalize(name))
    return text_row(None if error else (command, name), error or action)


def lifting_row(message: Message) -> Row:
    """Return the row for a ban or a mute; its key lifts it."""
    if message.command == "367":
        room, mask, by, at = (*message.params[1:], "", "")[:4]
        words = protocol.short_mask(mask) + (by and ", banned by " + by.partition("!")[0])
        if re.match(r"[0-9]{6,10}\Z", at):
            when = datetime.datetime.fromtimestamp(int(at))
            words += when.strftime(" on %Y-%m-%d at %H:%M")
        return text_row(("MODE", room, "-b", mask), words)
    _, _, *target, text = message.params
    return text_row(("UNBAN", target[0]) if target else None, text)


def offer_names(chat: Chat, signs: str, text: str, room: Any = None) -> List[Row]:
    """List rooms ("#") and people ("@", not in `room`) with `text`, and for new ones."""
    text = text.lstrip(" #@")
    name = "-".join(text.split())
    new = "#" + re.sub("[,:*?!@]", "", name)[: protocol.MAX_NAME - 1]  # as the server allows
    folded, rows = protocol.casefold(text), []  # type: str, List[Row]
    if "#" in signs:
        rooms, named = known_rooms(chat), protocol.casefold(new)
        found = [
            r for f, r in rooms.items() if f == named or folded in protocol.casefold(" ".join(r))
        ]
        found.sort(key=lambda room: -int(room[1][:9]) if room[1].isdecimal() else 0)
        joined = {c.folded for c in chat.conversations if not c.is_outside}
        rows = [room_row(room, protocol.casefold(room[0]) in joined) for room in found]
    if "@" in signs:
        names, present = nicknames(chat, "", MAX_MEMBERS), room.members if room else ()
        names = [who for who in names if protocol.casefold(who) not in present]
        rows += [text_row(who, who, sign="@") for who in names if folded in protocol.casefold(who)]
    rows.sort(key=lambda row: not protocol.casefold(row.text).startswith(folded))
    taken = [protocol.casefold(row.key) for row in rows]
    if name and "@" in signs and protocol.casefold(name) not in taken:
        rows.append(text_row(name, ("Invite " if room else "Write to ") + name, sign="+"))
    if "#" in signs and len(new) > 1 and protocol.casefold(new) not in taken:
        error = protocol.spelling_error(new)
        words = error or "Make a new room, " + new
        rows.append(text_row(None if error else new, words, sign="+" * (not error)))
    return rows or [text_row(None, "Write a name")]


def room_row(room: Sequence[str], is_joined: bool) -> Row:
    """Return the row for a room: its name, the number of people there, and the topic."""
    name, people, topic = room
    note = "joined · " if is_joined else ""
    note += "1 person" if people == "1" else people + " people"
    return text_row(name, name[1:], topic, sign="#", note=note)


def result_row(result: Result) -> Row:
    """Return the row for a message: conversation, sender and time, and below them its text."""
    conversation, entry, spans = result
    is_private, who = conversation.kind == PRIVATE, "you" if entry.is_own else entry.line.nickname
    if is_private:  # its name says who the other is
        who = "you, privately" if entry.is_own else "privately"
    first = spans[0][0] if spans else 0
    start = first - 24 if first > 40 else 0  # else it might be cut off
    text = "…" * bool(start) + entry.line.text[start:]
    shift = start - bool(start)

    def paint(row: Drawing) -> None:
        today = time.strftime("%Y-%m-%d")
        row.note("%s %s" % (day_name(entry.day, today), entry.line.clock[1:6]), dy=-9)
        left, color = row.left, PRIVATE if is_private else "text"
        row.left += row.text(conversation.name, color, "ui_bold", dy=-9)
        row.skip(8)
        row.text(who, "muted", "small", dy=-9)
        row.left = left
        row.marked(text, [(begin - shift, end - shift) for begin, end in spans], dy=9)

    return Row(result, text, paint)


def fit_window(area: Sequence[int], frame: Sequence[int], wanted: Sequence[int]) -> List[int]:
    """Return the size and place nearest to those wanted that fit into an area with the frame.

    All in pixels: `area` is left, top, width and height, `frame` the border and the title bar,
    `wanted` width, height and, unless the window manager chooses them, left and top.
    """
    border, title_bar = frame
    room = area[2] - 2 * border, area[3] - title_bar - border
    size = [min(pair) for pair in zip(wanted, room)]
    ends = [start + most - part for start, most, part in zip(area, room, size)]
    return [*size, *(max(start, min(at, end)) for start, at, end in zip(area, wanted[2:], ends))]


def work_area(root: "tk.Tk", system: str, wanted: Sequence[int], bars: int) -> List[int]:
    """Return left, top, width and height of the screen without the system's bars.

    On Windows, of the monitor nearest to the place that is wanted. If the system does not say it,
    bars of so many pixels are assumed.
    """
    width, height, left, top = [*wanted, 0, 0][:4]
    if system == "win32":
        user32: Any = ctypes.windll.user32  # type: ignore[attr-defined]
        user32.MonitorFromRect.restype = ctypes.c_void_p
        place = (ctypes.c_int32 * 4)(left, top, left + width, top + height)
        monitor = ctypes.c_void_p(user32.MonitorFromRect(place, 2))
        info = (ctypes.c_int32 * 10)(40)  # MONITORINFO; the work area begins at its sixth number
        if user32.GetMonitorInfoW(monitor, info):
            left, top, right, bottom = info[5:9]
            return [left, top, right - left, bottom - top]
    found = _ask_xprop(root.winfo_screen()) if system == "x11" else []
    if found:
        return found
    left, top, width = root.winfo_vrootx(), root.winfo_vrooty(), root.winfo_vrootwidth()
    return [left, top, width, root.winfo_vrootheight() - bars]


@functools.lru_cache(maxsize=1)
def _ask_xprop(screen: str) -> List[int]:
    """Return the work area, once for each screen; an empty list if it is not known."""
    command = ["xprop", "-display", screen, "-root", "_NET_WORKAREA"]
    try:
        answer = subprocess.check_output(command, stderr=subprocess.DEVNULL, timeout=1)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return []
    found = re.search(rb"= (\d+), (\d+), (\d+), (\d+)", answer)
    return [int(number) for number in found.groups()] if found else []


class Hosting:
    """The server on this computer: the window starts it, invites to it, operates and ends it.

    No server but the user's own is told a secret, or is ended.
    """

    def __init__(self, window: "Window") -> None:
        self._window = window
        self.host: Optional[Host] = None  # started from this window
        self.again: List[Tuple[str, Action]] = []  # a button, once the host in view has ended
        self._command: Optional[Host] = None  # of server.py, under way
        self._status: Optional[Host] = None  # the command that said how others join
        self._has_login = False  # the connection has that of the host

    @property
    def is_own(self) -> bool:
        """True if the server that was joined is that of the user's own data folder."""
        return is_own_server(self._window.chat.address)

    @property
    def is_in_view(self) -> bool:
        """True while a chat that was hosted from a window runs, and is in view."""
        chat, hosted = self._window.chat, self._window.settings.hosted
        is_hosted = chat.state == CONNECTED and chat.console.name == hosted
        return self._window.is_chatting and (is_hosted or self.host is not None) and self.is_own

    def start(self, network: str) -> None:
        """Start a server, to be joined once it runs; or show what is wrong."""
        view = self._window.connect_view
        if not network:
            return view.show_error(NETWORK, "Type a name for the chat first.")
        if len(network) > protocol.MAX_NETWORK:
            error = "The name is too long. Use at most %d characters." % protocol.MAX_NETWORK
            return view.show_error(NETWORK, error)
        try:
            self.host = Host("--network=" + network)
        except OSError as error:
            return view.show_error("", str(error))
        return view.set_busy("Starting " + network)

    def give_up(self) -> None:
        """End a server that was started, but not joined."""
        if self.host is not None and not self.host.was_joined:
            self.host.process.terminate()
            self.host = None

    def on_connected(self) -> None:
        """Become the operator of the chat that the user hosts, unless logged in as its host."""
        self.again = []
        if self.host is not None and self.is_own:
            self.host.was_joined = True
        if self._window.settings.hosted and not self._has_login and self.is_own:
            self.operate()

    def log_in(self, password: str, connect: Callable[[Optional[Login]], object]) -> None:
        """Connect: to the user's own server with the login of its host, if the user has hosted.

        The password of a registered name, if any, is used instead.
        """

        def use(login: Login) -> None:
            self._has_login = True
            connect(login)

        if self._window.settings.hosted and not password and self.is_own:
            self._make_login(use, lambda error: connect(None))
        else:
            connect(None)

    def operate(self) -> None:
        """Make the user the operator of the own server."""
        do, chat = self._window.do, self._window.chat
        self._make_login(
            lambda login: do(chat.send_command, "OPER", *login),
            lambda error: do(chat.inform, "You cannot be made the operator. " + error),
        )

    def _make_login(self, use: Callable[[Login], object], refuse: Callable[[str], object]) -> None:
        """Give the host's account a new password, which is kept in memory alone, and use it.

        Only the owner of the server can run the command that does this.
        """

        def check() -> None:
            if self.is_own:  # still
                use(login)
            else:
                refuse("This is not your own server.")

        login = Login(protocol.HOST_ACCOUNT, secrets.token_urlsafe())
        option = "--add-account=" + login.name
        self._status = self._run(check, refuse, option, "--oper", secret=login.password)

    def end_chat(self) -> None:
        """End the user's own server, for everybody; then offer to host its chat again."""

        def offer() -> None:
            network = self._window.chat.console.name
            self._window.leave_chat()
            self._window.connect_view.offer_again(network)

        inform = functools.partial(self._window.do, self._window.chat.inform)
        self._run(offer, inform, "--stop")

    def _run(
        self, action: Action, refuse: Callable[[str], object], *options: str, secret: str = ""
    ) -> Optional[Host]:
        """Run a command of server.py; then act, or call `refuse` with what went wrong."""

        def decide() -> None:
            if run.process.returncode:
                refuse(run.last_line)
            else:
                action()

        try:
            self._command = run = Host(*options, secret=secret, done=decide)
        except OSError as error:
            refuse(str(error))
            return None
        return run

    def forget(self) -> None:
        """Forget, with the connection, how others join its server, and what is under way."""
        self._status = self._command = None
        self._has_login, self.again = False, []

    def poll(self) -> None:
        """Join the server that was started once it runs, or show its end; go on with commands."""
        command, host, view = self._command, self.host, self._window.connect_view
        if command is not None and command.poll():
            self._command = None
            command.done()
        if host is None:
            return
        was_running, has_ended = bool(host.port), host.poll()
        if has_ended:
            self.host = self._status = None
            if host.port and host.server == short_address(self._window.chat.address):
                self.again = [("Host it again", functools.partial(self._window.leave, True))]
        if has_ended and not host.port:
            own = [address for address, server in view.found.items() if server.is_own]
            if own:
                view.join(own[0], "A chat already runs on this computer. Join it?")
            else:
                view.show_error("", host.last_line)
        elif host.port and not was_running:
            self._window.settings.hosted = view.fields[NETWORK].get().strip()
            self._window.settings.trust(host.server)  # another may have been there before
            view.join(host.server)

    def invite(self) -> None:
        """Show how others join; the own server is asked each time, as its network may change."""
        window = self._window
        inform = functools.partial(window.do, window.chat.inform)

        def show() -> None:
            window.show_bars()
            window.chat_view.invitation.buttons[0].focus_set()

        if not self.is_own:
            address = "" if is_local(window.chat.address) else window.chat.address
            inform(how_to_join(address, window.chat.console.name))
        elif self._command is None:  # else it says that, too
            self._status = self._run(show, inform, "--status")

    def invitation(self) -> Tuple[str, str, List[Tuple[str, Action]]]:
        """Return the words of the bar that invites, its icon and buttons; "" for none."""
        host = self._status
        if host is None or host.is_dismissed:
            return "", "person", []
        copy = ("Copied" if host.is_copied else "Copy", self._copy_invitation)
        buttons = [copy] if host.address else []
        network = self._window.chat.console.name
        return host.invitation(network), "person", [*buttons, ("Close", host.dismiss)]

    def _copy_invitation(self) -> None:
        host = self._status
        if host is not None:
            copy_text(self._window.root, "http://" + host.address)
            host.is_copied = True


class Window:
    """The program's window: it polls the queue, and hands what has changed to its views.

    All of it runs on Tk's thread.
    """

    def __init__(self, root: "tk.Tk", settings: Settings) -> None:
        root.withdraw()  # until there is something to see
        root.report_callback_exception = lambda *error: log.error(
            "Tk callback failed", exc_info=error
        )
        self.root, self.settings = root, settings
        theme = settings.theme if settings.theme in PALETTES else "dark"
        zoom = settings.zoom if settings.zoom in ZOOMS else 100
        self.look = Look(root, theme, zoom, os.environ.get("HUBBUB_EMOJI", ""))
        self.chat = self._new_chat("")
        self._connection: Optional[Connection] = None
        self._events: "queue.Queue[Any]" = queue.Queue()  # each connection has its own
        self.hosting = Hosting(self)
        self._quit_message = QUIT
        self._server = ""  # to which the user connected last, as they wrote it
        self._wanted: Optional[str] = None  # the nickname that the user has asked for, folded
        self._ask_at = 0.0  # when closing asks about messages without an echo; 0 for never
        self.notifier = Notifier(root, self.look.system)
        self.menus, self.questions = Menus(self), Questions(self)
        self.keys = Keys(self)
        self._placed: Set[Any] = set()  # the views for which the window has been placed
        self.connect_view = ConnectView(root, self.look, self)
        self._chat_view: Optional[ChatView] = None
        self.view: Union[ConnectView, ChatView, None] = None
        root.protocol("WM_DELETE_WINDOW", self.close)
        root.createcommand("::tk::mac::Quit", self.close)  # in the program's menu on macOS
        root.after(POLL_MS, lambda: root.iconphoto(True, self.look.logo(64)))  # first the window
        for sequence in ("<FocusIn>", "<FocusOut>"):
            root.bind(sequence, lambda event: root.after_idle(self._on_focus))
        self.look.follow(self.connect_view.frame, self._set_minimum)
        self.keys.add_to(root)

    @property
    def chat_view(self) -> "ChatView":
        """The view of the chat, made when it is first needed: the connect view shows sooner."""
        if self._chat_view is None:
            self._chat_view = ChatView(self.root, self.look, self)
            self.keys.add_to(self._chat_view.frame)
        return self._chat_view

    @property
    def is_chatting(self) -> bool:
        """True if the chat is in view."""
        return self.view is not None and self.view is self._chat_view

    def run(self, server: str, nickname: str, at_once: bool, is_host: bool = False) -> None:
        """Show the window until it is closed; connect at once, or when the user says so."""
        for number in (signal.SIGINT, signal.SIGTERM):  # they come at any time: end soon
            signal.signal(number, lambda number, frame: self.root and self.root.after(0, self._end))
        self.start(server, nickname, at_once)
        if is_host:
            self.connect_view.open_form(True)
        self.root.mainloop()

    def start(self, server: str, nickname: str, at_once: bool) -> None:
        """Do all that `run` does before Tk's loop."""
        sys.setswitchinterval(SWITCH_TIME)
        self.connect_view.fill(nickname or self.settings.name, server)
        self._show(self.connect_view)
        self.connect_view.show_error("", "")
        self._poll()
        if at_once:
            self.connect_view.submit()

    def close(self, quit_message: Message = QUIT) -> None:
        """Send QUIT and end; if messages would be lost, ask first, but not twice. Idempotent.

        While connected, echoes that are on their way are waited for.
        """
        self._quit_message = quit_message
        is_asked = self.questions.question.startswith(Questions.CLOSE)
        if self.hosting.is_in_view:
            self.questions.ask_host_close(self._end, self._end_both)
        elif not (self.is_chatting and self.questions.losses()):
            self._end()
        elif self.chat.unsent and self.chat.session.is_settled and not (self._ask_at or is_asked):
            self._ask_at = time.monotonic() + ECHO_TIME
        else:
            self._ask_at = 0.0
            self.questions.ask_close(self._end)

    def _end_both(self) -> None:
        self.hosting.end_chat()
        self._end()

    def _end(self) -> None:
        if self.root is not None:
            self._save_settings()
            self.connect_view.stop_looking()
            self.hosting.give_up()
            self._disconnect(QUIT_TIME)
            root, self.root = self.root, None  # type: ignore[assignment]
            root.destroy()
            # A paste may still wait for the clipboard, in a loop that runs what is due.
            for number in root.tk.splitlist(root.tk.call("after", "info")):
                root.tk.call("after", "cancel", number)

    def _save_settings(self) -> None:
        if self.is_chatting:
            self.settings.geometry = self.root.geometry()
        self.settings.theme, self.settings.zoom = self.look.theme, self.look.zoom
        self.settings.save()

    def _show(self, view: Union[ConnectView, ChatView]) -> None:
        """Show a view in place of the other."""
        before, self.view = self.view, view
        self._show_title()
        if view is before:
            return
        if before is not None:
            before.frame.pack_forget()
        view.frame.pack(fill="both", expand=True)
        if self.is_chatting:
            self.connect_view.stop_looking()
        elif before is not None:  # what is open there is for this server
            while self.questions.cancel() or self.chat_view.composer.cancel():
                pass
        if view not in self._placed:  # afterwards, the size and the position are the user's
            self._placed.add(view)
            kept = self.settings.geometry if self.is_chatting else ""
            size = self._fit(view.SIZE, kept)
            self.root.geometry(("%dx%d+%d+%d" if size[2:] else "%dx%d") % tuple(size))
        self._set_minimum()
        self.root.update_idletasks()
        self.root.deiconify()
        if self.is_chatting:
            self.chat_view.focus_composer()

    def _set_minimum(self) -> None:
        if self.view is not None:
            self.root.minsize(*self._fit(self.view.MINIMUM)[:2])

    def _fit(self, size: Tuple[int, int], kept: str = "") -> List[int]:
        """Return size and place, as kept or near the present place, that fit on the screen.

        The connect view cannot scroll, and grows with its text.
        """
        root, px = self.root, self.look.px
        zoom = 100 if self.is_chatting else max(100, self.look.zoom)
        wanted = [px(part * zoom / 100) for part in size]
        found = re.match(r"(\d+)x(\d+)\+(-?\d+)\+(-?\d+)\Z", kept)
        if found:
            wanted = [int(number) for number in found.groups()]
        elif root.winfo_viewable():
            wanted += [root.winfo_x(), root.winfo_y()]
        # Not every window manager tells its frame.
        border = root.winfo_rootx() - root.winfo_x() or px(8)
        frame = border, root.winfo_rooty() - root.winfo_y() or px(40)
        return fit_window(work_area(root, self.look.system, wanted, px(48)), frame, wanted)

    def _show_title(self) -> None:
        is_going_on = self.is_chatting or self.chat.state != DISCONNECTED
        title = self.chat.title if is_going_on else "Not connected — Hubbub"
        self.root.title(self.look.text(title))

    # Connecting

    def _new_chat(self, server: str) -> Chat:
        rooms = self.settings.rooms.get(self.settings.visit(server), [])
        return Chat(server, self.settings.levels, self.settings.ignored, rooms)

    def connect(self, nickname: str, server: str, password: str) -> None:
        """Connect, or show what is wrong with the server."""
        if not server:
            return self.connect_view.show_error(SERVER, "Choose a server, or type its address.")
        try:
            address = (*parse_server(server), password)
        except ValueError as error:
            return self.connect_view.show_error(SERVER, str(error))
        self.settings.name = nickname
        if not self.chat.nickname or server != self._server:
            self.chat = self._new_chat(protocol.format_address(*address[:2]))
        self._server = server
        self._disconnect()
        self._events = queue.Queue(MAX_EVENTS)
        found = self.connect_view.found.get(short_address(server))
        pin = self.settings.pin(server, *(found.network, found.is_encrypted) if found else ())
        is_new = short_address(server) not in self.settings.pins
        network = found.network if found and is_new else ""
        self.chat.begin(nickname)

        def connect(login: Optional[Login]) -> None:
            more: Dict[str, Any] = {"pin": pin, "network": network, "login": login}
            self._connection = Connection(*address, nickname, self._events, **more)
            self._connection.start()

        self._show_title()
        self.connect_view.set_busy("Connecting to " + server)
        return self.hosting.log_in(password, connect)

    def trust(self) -> None:
        """Connect again to the server that was refused, whatever it shows."""
        self.settings.trust(self._server)
        self.connect_view.submit()

    def _disconnect(self, wait: float = 0.0) -> None:
        self.hosting.forget()
        if self._connection is not None:
            self._connection.close(wait, self._quit_message)
            self._connection = None

    def cancel(self) -> None:
        """Give up the attempt to connect, or to host."""
        self.hosting.give_up()
        self._disconnect()
        self.chat, self._events = self._new_chat(""), queue.Queue()
        self.connect_view.show_error("", "")
        self._show_title()

    def leave(self, is_hosting: bool = False) -> None:
        """Go back to the connect view, to join another server or to host a chat."""

        def leave() -> None:
            self.leave_chat()
            self.connect_view.open_form(is_hosting)

        is_new = is_hosting and not self.hosting.again
        if self.hosting.is_in_view:
            self.questions.ask_host_close(leave, self.hosting.end_chat)
        elif is_new or self.questions.losses():
            words = "Leave this chat to host another?" if is_new else "Leave this server?"
            self.questions.ask_close(leave, words, is_new)
        else:
            leave()

    def leave_chat(self) -> None:
        """End the connection, and show the connect view."""
        self.cancel()
        self.connect_view.fill(self.settings.name, self._server)
        self._show(self.connect_view)

    # Events

    def do(self, action: Callable[..., object], *args: Any) -> None:
        """Run a method of the chat, and show the changes."""
        outcome = self.chat.do(time.time(), action, *args)
        self._carry_out(outcome)
        self._show_changes(outcome.changes)

    def _poll(self) -> None:
        delay = POLL_MS
        try:
            self._handle_events()
            if not self._events.empty():
                delay = POLL_MS // 3
            self.do(self.chat.tick)
            self.hosting.poll()
            if self.is_chatting:
                self.do(self.chat.mark_seen, self.chat_view.transcript.is_in_view)
                self.show_bars()
            else:
                self.connect_view.poll(time.monotonic())
            is_echoed = not self.chat.unsent or time.monotonic() > self._ask_at
            if self._ask_at and is_echoed:
                self.close(self._quit_message)
        finally:  # whatever happened, the window lives on
            if self.root is not None:
                self.root.after(delay, self._poll)

    def _handle_events(self) -> None:
        """Handle a BATCH of what waits in the queue, then show what has changed."""
        changes: List[Change] = []
        events: List[Any] = []
        rest = ""
        until = time.monotonic() + BATCH_TIME
        while not self._events.empty() and len(events) < BATCH and time.monotonic() < until:
            events.append(self._events.get_nowait())
            try:
                outcome = self.chat.do(time.time(), self.chat.handle, events[-1])
                changes += outcome.changes
                rest = "\n".join(filter(None, [rest, outcome.rest]))
                self._carry_out(outcome)
                is_start = isinstance(events[-1], Connected)
                if is_start and self.settings.keep_pin(self._server, self.chat.session.pin):
                    self.settings.save()
            except Exception:
                log.exception("event not handled")
        starts = [event for event in events if isinstance(event, Connected)]
        if starts and not self.is_chatting:
            self.settings.remember(self._server)
            self.settings.save()
            self._show(self.chat_view)
        if any(not start.is_resumed for start in starts):
            self.hosting.on_connected()
        self._show_changes(changes)
        if rest:  # after a change of the conversation in view
            self.chat_view.composer.give_back(rest)
        end = events[-1] if events else None
        if isinstance(end, Disconnected):  # it is the last of its queue
            self._disconnect()
            if end.fault != CLOSED:
                # The first request for a password is no error.
                is_first = not self.is_chatting and not self.connect_view.fields[PASSWORD].get()
                self._show(self.connect_view)
                is_question = is_first and end.fault == PASSWORD
                self.connect_view.show_error(end.fault, end.reason, is_question)

    def _carry_out(self, outcome: Outcome) -> None:
        """Carry out all but the changes; if it is done, close the window as its button does."""
        if outcome.is_done:
            outcome.is_done = False
            quits = (message for message in outcome.send if message.command == "QUIT")
            self.root.after_idle(self.close, next(quits, QUIT))
            outcome.send = [message for message in outcome.send if message.command != "QUIT"]
        names = [message.params[0] for message in outcome.send if message.command == "NICK"]
        self._wanted = protocol.casefold(names[-1]) if names else self._wanted
        if self._connection is not None:
            self._connection.carry_out(outcome)
        if outcome.settings_changed:
            self.settings.save()
        if outcome.refused[0]:
            self.chat_view.composer.ask_again(*outcome.refused)

    def _show_changes(self, changes: Sequence[Change]) -> None:
        if not changes:
            return
        for change in changes:
            if change.kind == ALERT:
                title = change.conversation.name if change.conversation else "Hubbub"
                self.notifier.alert(title, change.entries[-1].text, self.settings.sound)
        self.chat_view.show(changes)
        kinds = {change.kind for change in changes}
        if SEARCH in kinds:
            self.questions.search()
        elif kinds & {LISTING, RESULTS} and self.questions.sheet is not None:
            self.questions.sheet.refresh()
        if kinds & {STATUS, SIDEBAR, HEADER}:
            self._show_title()
        is_renamed = STATUS in kinds and protocol.casefold(self.chat.nickname) == self._wanted
        if is_renamed:
            self.settings.name, self._wanted = self.chat.nickname, None
        is_joined = (SIDEBAR in kinds or is_renamed) and self.chat.state == CONNECTED
        if (is_joined and self.settings.keep_rooms(self._server, self.chat.rooms)) or is_renamed:
            self.settings.save()
        if HELP in kinds:
            self.questions.help()
        network = self.chat.session.tokens.get("NETWORK", "") and self.chat.console.name
        if STATUS in kinds and network and self.settings.learn(self._server, network):
            self.settings.save()

    def show_bars(self) -> None:
        """Show a question or the state of the connection, an announcement, and how others join."""
        view, chat = self.chat_view, self.chat
        if not self.questions.is_asking():
            buttons: List[Tuple[str, Action]] = []
            room = chat.current
            if chat.state == CONNECTED and room.removal and room.refusal not in FINAL:
                words = "Type its password" if room.refusal == NEEDS_KEY else "Join again"
                buttons.append((words, view.join))
            elif chat.state == RECONNECTING and self._connection is not None:
                buttons += [("Try now", self._connection.retry), *self.hosting.again]
            icon = "check" if chat.state == CONNECTED and not room.removal else "warn"
            view.banner.show(chat.banner(time.time()), icon, buttons)
        shown = chat.announcements[-1] if chat.announcements else Announcement("")
        join = [("Join", view.accept_invitation)] if shown.room else []
        close = ("Close", chat.close_announcement)
        view.announcement.show(shown.text, "announce", [*join, close])
        view.invitation.show(*self.hosting.invitation())
        used = 0
        for bar in (view.banner, view.announcement, view.invitation):  # the urgent ones first
            used = bar.fit(used, view.frame.winfo_height() // 4)

    def _on_focus(self) -> None:
        if self.root is not None:
            try:
                has_focus = self.root.focus_displayof() is not None
            except KeyError:  # a menu, which tkinter does not know
                has_focus = True
            self.do(self.chat.set_focus, has_focus)
            if not has_focus:
                self.menus.close()

    # What keys and menus do

    @property
    def other_theme(self) -> str:
        return "light" if self.look.theme == "dark" else "dark"

    def toggle_theme(self) -> None:
        self.look.change(self.other_theme, self.look.zoom)
        self._save_settings()

    def zoom(self, step: int) -> None:
        """Make everything larger or smaller, or (0) as large as usual."""
        index = ZOOMS.index(self.look.zoom) + step if step else ZOOMS.index(100)
        self.look.change(self.look.theme, ZOOMS[max(0, min(len(ZOOMS) - 1, index))])
        self._save_settings()

    def toggle_sound(self) -> None:
        self.settings.sound = not self.settings.sound
        self.settings.save()

    def on_click(self, event: "TkEvent") -> None:
        """Close what a click elsewhere closes: a menu, and a sheet."""
        self.menus.close(event)
        if event.num not in (4, 5):  # of the wheel, on X11
            self.questions.close_beside(event.widget)

    def escape(self) -> None:
        """Close what is open, first where the focus is; else go to the end, or quit."""
        if not self.is_chatting:
            if self.connect_view.is_busy:
                return self.cancel()
            return None if self.connect_view.go_back() else self.close()
        view, sheet = self.chat_view, self.questions.sheet
        parts = [
            (sheet.frame if sheet is not None else view.banner.frame, self.questions.cancel),
            (view.topic.frame, lambda: holds_focus(view.topic.frame) and view.close_topic()),
            (view.composer.frame, view.composer.cancel),
            (view.transcript.frame, lambda: view.transcript.choose(None)),
            (view.composer.frame, lambda: view.reply(None)),
            (view.search_bar.frame, view.search_bar.close),
            (view.people.frame, view.close_people),
        ]
        parts.sort(key=lambda part: not holds_focus(part[0]))
        return None if any(close() for _, close in parts) else view.jump_to_end()


class Key(NamedTuple):
    """A key, or several that belong together, as the help shows them."""

    name: str
    help: str
    actions: "Mapping[str, Callable[[Window], object]]" = {}  # by sequence; none: of a widget
    is_everywhere: bool = False  # not only in the chat


# In a sequence, Control stands for what goes with letters: Command on macOS.
KEYS = (
    Key("Enter", "send"), Key("Shift+Enter", "start a new line"),
    Key("Up, Down", "what you sent before"),
    Key("Tab", "complete a name, a /command or a #room"),
    Key("Ctrl+F", "search; Enter and F3 go to older matches", {
        "Control-f": lambda window: window.chat_view.search_bar.open(),
        "F3": lambda window: window.chat_view.search_bar.step(-1),
        "Shift-F3": lambda window: window.chat_view.search_bar.step(1)}),
    Key("Ctrl+Shift+F", "search all conversations", {
        "Control-Shift-F": lambda window: window.chat_view.search_all(),
        "Control-Shift-f": lambda window: window.chat_view.search_all()}),
    Key("Ctrl+R", "reply to the last line; again for the one before", {
        "Control-r": lambda window: window.chat_view.reply_to_others()}),
    Key("Ctrl+K, Ctrl+N", "go to a room or a person", {
        "Control-k": lambda window: window.questions.go_to(),
        "Control-n": lambda window: window.questions.go_to()}),
    Key("Ctrl+PgUp, Ctrl+PgDn", "the conversation above or below", {
        "Control-Prior": lambda w: w.chat_view.select(w.chat.neighbour(-1)),
        "Control-Next": lambda w: w.chat_view.select(w.chat.neighbour(1)),
        "Alt-Up": lambda w: w.chat_view.select(w.chat.neighbour(-1)),
        "Alt-Down": lambda w: w.chat_view.select(w.chat.neighbour(1))}),
    Key("Alt+1 … Alt+9", "the first to the ninth conversation", {
        "Alt-Key-%d" % n: functools.partial(lambda n, window: window.chat_view.select_nth(n), n)
        for n in range(1, 10)}),
    Key("Alt+A", "the next conversation with something new", {
        "Alt-a": lambda window: window.chat_view.select(window.chat.next_unread())}),
    Key("PgUp, PgDn", "scroll"),
    Key("Ctrl+Home, Ctrl+End", "go to the top, or to the latest message", {
        "Control-Home": lambda window: window.chat_view.transcript.text.yview_moveto(0),
        "Control-End": lambda window: window.chat_view.transcript.show_end()}),
    Key("Ctrl+Tab", "go to the next part of the window"),
    Key("F6, Shift+F6", "to the rooms, messages or people, and back", {
        "F6": lambda window: window.chat_view.next_pane(1),
        "Shift-F6": lambda window: window.chat_view.next_pane(-1)}),
    Key("Up, Down, Enter", "in the messages: a line, its link or menu"),
    Key("F10, Alt+M", "the menu", {
        "F10": lambda window: window.menus.open_main(),
        "Alt-m": lambda window: window.menus.open_main()}),
    Key("Shift+F10", "open the menu of what is selected"),
    Key("Ctrl+T", "switch between light and dark", {"Control-t": Window.toggle_theme}, True),
    Key("Ctrl++, Ctrl+-, Ctrl+0", "larger, smaller, normal size", {
        "Control-plus": lambda window: window.zoom(1),
        "Control-equal": lambda window: window.zoom(1),
        "Control-KP_Add": lambda window: window.zoom(1),
        "Control-minus": lambda window: window.zoom(-1),
        "Control-KP_Subtract": lambda window: window.zoom(-1),
        "Control-0": lambda window: window.zoom(0)}, True),
    Key("F2", "the server, and if it is encrypted", {
        "F2": lambda window: window.questions.show_server()}),
    Key("F1", "this help", {"F1": lambda window: window.questions.help()}),
    Key("Esc", "close what is open, or go to the latest message", {"Escape": Window.escape}, True),
    Key("Ctrl+Q", "quit", {"Control-q": Window.close}, True),
)  # fmt: skip


class Keys:
    """Binds KEYS to the widgets of a window, before the widgets' own keys."""

    TAG, TIP_TAG = "HubbubKeys", "HubbubTips"
    # All of Tk's ways to paste call GetSelection. It is to give text alone, but some programs
    # that own an image answer a request for text with its bytes.
    TCL = """
        rename ::tk::GetSelection ::tk::GetAnySelection
        proc ::tk::GetSelection {widget {selection PRIMARY}} {
            set request [list selection get -displayof $widget -selection $selection]
            if {![catch {{*}$request -type TARGETS} targets]
                    && [lsearch -regexp $targets {^(UTF8_)?STRING$}] < 0} {
                error "there is no text"
            }
            return [GetAnySelection $widget $selection]
        }
        proc ::tk_textCopy {widget} {
            foreach {first last} [$widget tag ranges sel] {
                append text [$widget get $first $last]
            }
            if {[info exists text]} {
                clipboard clear -displayof $widget
                clipboard append -displayof $widget $text
            }
        }
        proc DeleteWord {widget motion} {
            if {[catch {$widget delete sel.first sel.last}]} {
                event generate $widget <<Select$motion>>
                catch {$widget delete sel.first sel.last}
            }
        }
    """

    def __init__(self, window: Window) -> None:
        self._window = window
        root, control = window.root, window.look.control
        for key in KEYS:
            for sequence in key.actions:
                handler = functools.partial(self._on_key, key, sequence)
                sequence = sequence.replace("Control", control)
                # With Caps Lock, Tk sees another letter.
                locked = re.sub("-([a-z])$", lambda key: "-Lock-" + key.group(1).upper(), sequence)
                for each in {sequence, locked}:
                    root.bind_class(self.TAG, "<%s>" % each, handler)
        for key_name in ("Home", "End"):  # with Shift they select
            root.bind_class(self.TAG, "<%s-Shift-%s>" % (control, key_name), lambda event: None)
        for name in ("Shift", "Control"):  # they ask for the menu of what has the focus
            root.bind_class(self.TAG, "<%s-F10>" % name, lambda event: None)
        root.bind_class(self.TAG, "<Button>", window.on_click)
        for sequence in ("<Key>", "<Button>", "<FocusIn>", "<FocusOut>"):
            root.bind_class(self.TIP_TAG, sequence, self._on_any)
        root.bind_class(self.TAG, "<%s-Key>" % control, self._on_other_key)
        self._change_defaults(root, control)

    def add_to(self, widget: "tk.Misc") -> None:
        """Give the keys to a widget and all that is in it."""
        own = self.TIP_TAG, self.TAG
        widget.bindtags((*own, *(tag for tag in widget.bindtags() if tag not in own)))
        for child in widget.winfo_children():
            self.add_to(child)

    def _change_defaults(self, root: "tk.Tk", control: str) -> None:
        """Change what Tk binds to keys in its text widgets."""
        select_all = ("<%s-a>" % control, "<%s-Lock-A>" % control)
        redo = ("<Control-y>", "<Control-Lock-Y>")
        root.event_delete("<<LineStart>>", *select_all)  # some of Emacs's keys, on X11
        if control == "Control":  # others change the text, which nobody expects
            root.event_delete("<<Cut>>", "<Control-w>", "<Control-Lock-W>")
            root.event_delete("<<Paste>>", *redo)
            root.event_add("<<Redo>>", *redo, "<Control-Z>", "<Control-Lock-z>")
            for kind, letter in itertools.product(("Text", "TEntry"), "dhiko"):
                root.unbind_class(kind, "<Control-%s>" % letter)
        root.unbind_class("Text", "<Insert>")  # pastes, on X11
        root.event_add("<<SelectAll>>", *select_all)
        root.event_add("<<Return>>", "<Return>", "<KP_Enter>")
        root.tk.call("bind", "TButton", "<<Return>>", "%W invoke")
        root.tk.call("bind", "Text", "<<SelectAll>>", "%W tag add sel 1.0 end-1c")
        menu_key = {"win32": "<App>", "x11": "<Menu>"}.get(self._window.look.system)
        root.event_add("<<ContextMenu>>", menu_key or "<Control-F10>", "<Shift-F10>")
        root.tk.eval(self.TCL)
        word = "Option" if self._window.look.system == "aqua" else "Control"
        for kind in ("Text", "TEntry"):
            root.bind_class(kind, "<<ContextMenu>>", self._window.menus.open_text)
            for key, motion in (("BackSpace", "PrevWord"), ("Delete", "NextWord")):
                root.tk.call("bind", kind, "<%s-%s>" % (word, key), "DeleteWord %W " + motion)

    def _on_any(self, event: "TkEvent") -> None:
        """Hide the tip, and note if what follows is done by the keyboard."""
        self._window.look.hide_tip()
        if event.type in (tk.EventType.KeyPress, tk.EventType.ButtonPress):
            self._window.look.is_by_key = event.type == tk.EventType.KeyPress

    def _on_key(self, key: Key, sequence: str, event: "TkEvent") -> Optional[str]:
        if self._window.menus.close() and sequence == "Escape":
            return "break"
        if not key.is_everywhere and not self._window.is_chatting:
            return None
        sheet = self._window.questions.sheet
        if sheet is not None and not key.is_everywhere:
            if "Home" in sequence or "End" in sequence:
                return None  # for the field or the list
            if sheet.is_form and sheet.words:
                return "break"  # they are not lost by mistake
            sheet.close()  # no key is for what is behind it
        key.actions[sequence](self._window)
        return "break"

    def _on_other_key(self, event: "TkEvent") -> Optional[str]:
        """Do, on a keyboard of another alphabet, what the Latin letter on the key does."""
        letter = latin_letter(event, self._window.look.system)
        shifted = ["Control-Shift-" + letter] if int(event.state) & 1 else []
        for sequence, key in itertools.product([*shifted, "Control-" + letter], KEYS):
            if sequence in key.actions:
                return self._on_key(key, sequence, event)
        edits = {"a": "SelectAll", "c": "Copy", "v": "Paste", "x": "Cut", "y": "Redo", "z": "Undo"}
        if letter in edits:
            event.widget.event_generate("<<%s>>" % edits[letter])
            return "break"
        return None


def key_name(name: str, system: str) -> str:
    """Return the name of keys as the keyboard of a system shows it."""
    if system != "aqua":
        return name
    return re.sub(r"Ctrl\+(?!Tab)", "⌘", name).replace("Alt+", "⌥")


# The letters of a keyboard, by X11's or Windows' number of the first key of each row.
LETTERS = {
    "x11": {24: "qwertyuiop", 38: "asdfghjkl", 52: "zxcvbnm"},
    "win32": {65: "abcdefghijklmnopqrstuvwxyz"},
}


def latin_letter(event: "TkEvent", system: str) -> str:
    """Return the Latin letter of a key that has one of another alphabet, "" for others."""
    if event.keysym_num > 255:
        for first, row in LETTERS.get(system, {}).items():
            if first <= event.keycode < first + len(row):
                return row[event.keycode - first]
    return ""


# The command line
# ----------------


def open_window(settings: Settings) -> Optional[Window]:
    """Return the window; None, after saying why, where there is no tkinter or no display."""
    if tk is None:
        print("There is no tkinter here, so you chat in the terminal.", file=sys.stderr)
        return None
    try:
        if sys.platform == "win32":  # else Windows enlarges what is drawn for fewer pixels
            ctypes.windll.user32.SetProcessDPIAware()  # type: ignore[attr-defined]
        return Window(tk.Tk(className="Hubbub"), settings)
    except tk.TclError as error:
        print("There is no window (%s), so you chat in the terminal." % error, file=sys.stderr)
        return None


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description="Chat on the local network.")
    parser.add_argument("server", nargs="?", metavar="SERVER[:PORT]", help="server to connect to")
    parser.add_argument("--username", default="", metavar="NAME", help="your name in the chat")
    parser.add_argument(
        "--terminal", action="store_true", help="chat in this terminal, as with a screen reader"
    )
    parser.add_argument("--host", action="store_true", help="host a chat on this computer")
    parser.add_argument("--find", action="store_true", help="print the servers on this network")
    parser.add_argument("--tls", action="store_true", help="encrypted from the start, as ircs://")
    text = "trust the server though its certificate is another than before, or missing"
    parser.add_argument("--trust", action="store_true", help=text)
    parser.add_argument("--theme", choices=sorted(PALETTES), help="colours of the window")
    parser.add_argument("--version", action="version", version="Hubbub %s" % protocol.VERSION)
    return parser


def main(argv: Optional[List[str]] = None, server: str = "") -> int:
    """Open the window, or chat in the terminal; return the exit code.

    `server` is the server that this copy of the program is for, unless the user names another.
    """
    parser = make_parser()
    args = parser.parse_args(argv)
    logging.basicConfig(level="WARNING", format="%(levelname)s %(message)s")
    username, baked = protocol.normalize(args.username.strip()), server
    server = args.server or baked or SERVER_IP
    try:
        host, port = parse_server(server)
    except ValueError as error:
        parser.error(str(error))
    if args.tls:
        server = "ircs://" + protocol.format_address(host, port)
    wrong = username and protocol.nickname_error(username)
    if wrong:
        parser.error(wrong)
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # it was closed before the program began
            setattr(sys, name, open(os.devnull, "r+"))  # noqa: SIM115
    if args.find:
        return print_found()
    settings = Settings(settings_path())
    settings.load()
    settings.theme = args.theme or settings.theme
    if args.trust:
        settings.trust(server)
    if not args.terminal:
        if baked and not args.server:
            settings.remember(baked)
        elif not args.server and SERVER_IP == "127.0.0.1":  # nobody edited it
            can_ask = Finder().can_ask
            # A server on this computer is offered once it answers.
            known = [s for s in settings.servers if not (can_ask and is_local(s))]
            server = [*known, "" if can_ask else SERVER_IP][0]
        window = open_window(settings)
        if window is not None:
            window.run(server, username, bool(args.server and username), args.host)
            return 0
    if args.host:
        parser.error("--host needs a window. Without it, run server.py, then client.py 127.0.0.1.")
    return Terminal(settings).run(server, username)


def main_in_terminal() -> int:
    """Chat in the terminal: the command `hubbub-terminal`."""
    return main(["--terminal", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
