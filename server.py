#!/usr/bin/env python3
"""Hubbub's server: chat rooms for a local network, spoken in IRC and in plain text.

    python3 server.py

Four kinds of thread share the work:

    main            accepts connections, and ends everything in order
    client H:P      one for each connection: reads, frames, parses, checks, and decides
                    who is to be told
    delivery        the only one that writes to sockets, and the only one that closes them
    history         writes to disk what the delivery is about to send

What holds at all times:

- One order. Whatever happens is appended to the delivery's queue while the directory's
  lock is held, so the order in which people are told is the order in which it happened.
- Log, then deliver. What anybody has seen is on disk, and an echo means stored. A disk that
  is full, broken or slow stops nobody: the chat goes on, and says that nothing is kept.
- Nobody waits for a slow reader. The delivery never blocks on a socket; what a client
  does not take waits in its outbox, and past `--max-sendq` that client is ended.
- A name has one owner. The thread that reads a connection removes its client from the
  directory; everybody else asks the delivery to hang up. Only who proves that the name, or
  the place, is theirs takes it at once: that thread can do nothing more under the name.
- A descriptor is closed by the delivery, as its last work for that client: no other thread
  can be about to use the number.

A person with `nc` is an IRC client with other words: what they type becomes the same
messages (`protocol.compose`), and what they are told is described (`protocol.describe`).
"""

import argparse
import collections
import contextlib
import errno
import functools
import gc
import getpass
import hashlib
import hmac
import itertools
import json
import logging
import os
import queue
import selectors
import shlex
import signal
import socket
import sqlite3
import sys
import threading
import time
import urllib.parse
import weakref
from types import FrameType
from typing import (
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
    NoReturn,
    Optional,
    Set,
    Tuple,
    TypeVar,
    Union,
)

import protocol
from protocol import HTTP, IRC, PLAIN, SERVER, TLS, VERSION, Message, ModeChange, ReplyError

try:
    import resource
except ImportError:  # Windows, which has no such limit
    resource = None  # type: ignore[assignment]

log = logging.getLogger("hubbub")
_Result = TypeVar("_Result")

RECEIVE_SIZE = 16384  # bytes read at once
BURST = 100  # lines that may come at once before --rate-limit counts
MAX_PENDING = 10000  # events that wait for the delivery; past it the readers wait
MAX_BATCH = 500  # events delivered together: bounds what a batch puts into one outbox
END = 1 << 62  # past the number of every event
RECALLED = 20  # earlier texts that one is told on joining a room
MAX_HISTORY = 500  # earlier texts that one may ask for at once
MAX_TRIES = 10  # usernames that a person may try before they have to connect again
MAX_ROOMS = 50  # rooms that one client may be in
NAMES_SIZE = 180  # bytes of names in one line, beside the longest of all other names
LINES_A_TOKEN = 20  # lines of an answer that count as one line said
LOOKS_A_LINE = 10  # people or rooms looked at that count as one line of an answer
MAX_ALL_ROOMS = 10000  # rooms of the server
MAX_GUEST_ROOMS = 1000  # of those, empty ones that are kept though no account has a say there
MAX_BANS = 100  # masks that a room may ban
MAX_REASON = 200  # characters of why somebody is away, or was removed
MAX_REALNAME = 100  # characters
MAX_KEPT_TAGS = 512  # bytes of a message's tags that the history keeps; of longer ones, none
MAX_LABEL = 64  # bytes of a label; longer ones are none (labeled-response)
MAX_WATCHES = 100  # names that one client may watch, and masks that it may ignore
MAX_PAST = 500  # names of which one remembers who had them
HISTORY_FAILS = "The chat goes on, but what is said is not being kept for later."
HISTORY_WORKS = "What is said is being kept again."
NO_ACCOUNTS = "This server keeps no accounts."
OUT_OF_MEANS = "The server cannot take more people now. Try again later."
PROMPT_AFTER = 1.0  # seconds of silence after which a person is asked for a name
LINGER = 2.0  # seconds that an ended client has to take what was sent and close
SHUTDOWN_TIME = 1.0  # seconds that all of them have when the server stops
PATIENCE = 1.0  # seconds that the chat waits for the disk, before it goes on without
RETRY_AFTER = 5.0  # seconds after a fault of the disk in which it is left alone
DISK_TIMEOUT = 5.0  # seconds that one waits for a turn at the database, before it is stuck
MAX_WAITING = 500  # messages that wait for somebody who is away
SCRYPT = (2**14, 8, 1)  # n, r and p of new passwords: 16 MiB and some 50 ms each
HASHES_AT_ONCE = 2  # passwords that are hashed at the same time
ATTEMPTS_AT_ONCE = 5  # wrong passwords for one account from one address, before a wait
ATTEMPT_INTERVAL = 10.0  # seconds until there may be one more
# Many people may share an address, and all come at once: those bound the work of hashing.
GUESSES_AT_ONCE, GUESS_INTERVAL = 300, 1.0  # wrong passwords from one address, for whatever
FOUNDINGS_AT_ONCE, FOUNDING_INTERVAL = 60, 60.0  # accounts that one address may make
MAX_ATTEMPTERS = 10000  # addresses that are remembered for each of that
ROWS_AT_ONCE = 200  # rows to a statement; SQLite takes 999 values at least
CLEANED_AT_ONCE = 2000  # rows deleted with one write
CLEANING_INTERVAL = 3600.0  # seconds between two looks for what is older than --history-days
FOREVER = 86400.0  # seconds: a timeout for those who have none
LARGE = 4 * 1024 * 1024  # bytes of memory that go back to the system as soon as they are free
STACK_SIZE = 256 * 1024  # bytes of stack for each thread; thousands of them must fit


class Options(NamedTuple):
    """What the command line sets; the defaults are its defaults. 0 turns a limit off."""

    host: str = "0.0.0.0"
    port: int = protocol.PORT
    network: str = "Hubbub"  # the name that people see
    server_name: str = "hubbub.local"  # the name that IRC clients see
    lobby: str = "#lobby"  # "" places nobody in a room
    motd: Tuple[str, ...] = ()
    password: str = ""
    rate_limit: float = 10.0  # lines a second
    max_clients: int = 10000
    max_per_address: int = 256
    register_timeout: float = 30.0  # seconds
    ping_interval: float = 60.0  # seconds
    max_sendq: int = 1024 * 1024  # bytes
    data: str = ""  # the folder of the history; "" keeps none
    history_days: float = 0.0  # days that it is kept; 0 is for ever


class FolderTakenError(Exception):
    """The user's: another server keeps its history in the folder."""

    def __str__(self) -> str:
        return (
            "another server keeps its history in %s. Give this one a folder of its own:"
            " --data FOLDER" % self.args[0]
        )


class Ended(Exception):
    """This connection is over. `told` is what its client still hears about it, if anything."""

    def __init__(self, reason: str, told: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.told = told


# Clients and rooms

# IRCv3 capabilities (https://ircv3.net/irc/), as bits of Client.caps; and PLAIN_TEXT, which is
# none: it marks a person, who is also shown what they said.
CAPABILITIES = {
    name: 1 << bit
    for bit, name in enumerate(
        (
            "account-notify", "account-tag", "away-notify", "batch", "cap-notify", "chghost",
            "draft/account-registration", "draft/chathistory", "draft/event-playback",
            "echo-message", "extended-join", "extended-monitor", "hubbub/resume",
            "invite-notify", "labeled-response", "message-tags", "multi-prefix", "sasl",
            "server-time", "setname", "standard-replies", "userhost-in-names",
        )
    )
}  # fmt: skip
PLAIN_TEXT = 1 << len(CAPABILITIES)
ACCOUNT_TAG = CAPABILITIES["account-tag"]
BATCH = CAPABILITIES["batch"]
CHATHISTORY = CAPABILITIES["draft/chathistory"]
ECHO_MESSAGE = CAPABILITIES["echo-message"]
EXTENDED_JOIN = CAPABILITIES["extended-join"]
EXTENDED_MONITOR = CAPABILITIES["extended-monitor"]
LABELS = CAPABILITIES["labeled-response"]
MESSAGE_TAGS = CAPABILITIES["message-tags"]
MULTI_PREFIX = CAPABILITIES["multi-prefix"]
PLAYBACK = CAPABILITIES["draft/event-playback"]
RESUME = CAPABILITIES["hubbub/resume"]
SERVER_TIME = CAPABILITIES["server-time"]
STANDARD_REPLIES = CAPABILITIES["standard-replies"]
USERHOST_IN_NAMES = CAPABILITIES["userhost-in-names"]
# Commands of which only those are told who asked for them.
_ASKED_FOR = {
    "ACCOUNT": CAPABILITIES["account-notify"],
    "AWAY": CAPABILITIES["away-notify"],
    "BATCH": BATCH,
    "CHGHOST": CAPABILITIES["chghost"],
    "SETNAME": CAPABILITIES["setname"],
    "TAGMSG": MESSAGE_TAGS,
}
INVITE_NOTIFY = CAPABILITIES["invite-notify"]
_TEXTS = ("PRIVMSG", "NOTICE", "TAGMSG")  # their sender sees them only as an echo

OPERATOR, VOICE = 2, 1  # bits of a member: @ and +
_PREFIXES = ("", "+", "@", "@+")
_MEMBER_BITS = {"o": OPERATOR, "v": VOICE}

# Tags that go with a message to those who hold a capability: its bit, key and value.
Tags = Tuple[Tuple[int, str, str], ...]


class Client:
    """One connection, as every thread sees it.

    `reader` and `writer` are two views of one descriptor: reads block with a timeout,
    writes never do. Who may touch what is said beside each attribute.
    """

    __slots__ = (
        "account", "address", "away", "blocked", "caps", "closed", "correspondent", "end",
        "finishing", "host", "ignored", "ignored_by", "ignores", "invited", "label", "left",
        "modes", "muted_until", "named", "nickname", "opening", "outbox", "owned_since", "queued",
        "reader", "realname", "registered", "rooms", "signed_on", "source", "spoke", "tags",
        "token", "username", "watches", "writer",
    )  # fmt: skip

    PERSON = (  # what is of who it is, and not of its connection
        "account", "away", "host", "ignored", "ignores", "invited", "modes", "named", "nickname",
        "owned_since", "realname", "registered", "rooms", "signed_on", "spoke", "username",
        "watches",
    )  # fmt: skip

    def __init__(self, reader: socket.socket, host: str, port: int) -> None:
        reader.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reader = reader
        self.writer = socket.socket(
            reader.family, reader.type, reader.proto, fileno=reader.fileno()
        )
        self.writer.settimeout(0)
        self.address = "%s:%d" % (host, port)
        # Written by the client's own thread alone:
        self.caps = 0  # PLAIN_TEXT once it turns out to be a person
        self.label = protocol.NO_TAGS  # the tags that answer the label of the present command
        self.opening = b""  # the line that begins their batch, until the first answer is under way
        self.signed_on = self.spoke = 0.0  # seconds since 1970
        # Guarded by the directory's lock:
        self.nickname = ""
        self.username = "user"
        self.host = host
        self.realname = ""
        self.source = ""  # nickname!user@host, before what this client says
        self.account = ""  # the name that it has proved to own
        self.owned_since = 0  # the number, as of an event, of when that account was made
        self.away = ""  # why, or "" for one who is here
        self.modes: Set[str] = set()
        self.tags: Tags = ()  # of what it says
        self.named: Optional[Event] = None  # has the number since which it has that name
        self.registered = False
        self.rooms: Set[Room] = set()
        self.invited: "weakref.WeakSet[Room]" = weakref.WeakSet()  # those that are there still
        self.left: Dict[str, Event] = {}  # rooms that it was in, and has read up to there
        self.ignores: Dict[str, None] = {}  # masks of those whom it does not want to hear
        self.ignored = protocol.Masks(())  # the same, to match with
        self.ignored_by: FrozenSet[Client] = frozenset()
        self.watches: Dict[str, str] = {}  # folded nicknames to those it was asked for
        self.correspondent = ""  # who wrote to it last
        self.token = ""  # with which it may take its place back
        # Written by whoever sanctions, read by its thread:
        self.muted_until = 0.0  # seconds since 1970
        # Touched by the delivery alone:
        self.outbox: List[Union[bytes, memoryview]] = []
        self.queued = 0  # bytes in it
        self.blocked = False  # the socket is full: the selector tells when it is not
        self.closed = False  # nothing is put into it any more
        self.finishing: Optional[int] = None  # what to shut down when it is empty
        # Set once by whoever ends the connection; its thread reads it and leaves.
        self.end = ""

    @property
    def key(self) -> str:
        """What tells its name from all others."""
        return protocol.casefold(self.nickname)

    @property
    def is_operator(self) -> bool:
        """Whether it may moderate the whole server."""
        return "o" in self.modes

    @property
    def named_since(self) -> int:
        """The number since which the name is its own: what came before is not.

        The event that gave the name, or the making of its account of that name, if earlier.
        """
        named = (self.named and self.named.number) or END
        is_owner = self.account and protocol.casefold(self.account) == self.key
        return min(named, self.owned_since) if is_owner else named

    @property
    def ip(self) -> str:
        """Where it comes from, whatever CHGHOST has others see."""
        return self.address.rpartition(":")[0]

    @property
    def name(self) -> str:
        """How the log calls it."""
        return "%s (%s)" % (self.address, self.nickname) if self.nickname else self.address

    def take_label(self) -> Tuple[Mapping[str, str], bytes]:
        """The tags for an answer, and what begins their batch, where it is the first of it.

        A label is for one answer, a batch for all. Called by the client's own thread.
        """
        label, opening = self.label, self.opening
        self.opening = b""
        if "label" in label:
            self.label = protocol.NO_TAGS
        return label, opening

    def take_over(self, old: "Client") -> None:
        """Be who `old` was."""
        for name in self.PERSON:
            setattr(self, name, getattr(old, name))

    def introduce(self) -> None:
        """See that what goes with its messages tells who it is now."""
        self.source = "%s!%s@%s" % (self.nickname, self.username, self.host)
        account: Tags = ((ACCOUNT_TAG, "account", self.account),) if self.account else ()
        self.tags = account + (((MESSAGE_TAGS, "bot", ""),) if "B" in self.modes else ())


class Room:
    """A room, its members and its modes. Guarded by the directory's lock."""

    __slots__ = (
        "__weakref__", "_audience", "banned", "bans", "created", "flags", "is_guarded", "is_lobby",
        "key", "limit", "members", "name", "operators", "password", "topic", "topic_at", "topic_by",
    )  # fmt: skip

    def __init__(self, name: str, is_lobby: bool = False) -> None:
        self.name = name
        self.key = protocol.casefold(name)
        self.is_lobby = is_lobby
        self.members: Dict[Client, int] = {}  # in order of joining; OPERATOR and VOICE
        self.topic = self.topic_by = ""
        self.created = self.topic_at = time.time()
        self.flags = {"n"}
        self.password = ""  # mode k
        self.limit = 0  # mode l
        self.bans: Dict[str, Tuple[str, int]] = {}  # mask to who set it, and when
        self.banned = protocol.Masks(())  # the same, to match with
        self.operators: Dict[str, int] = {}  # whenever they join: folded accounts, their numbers
        self.is_guarded = False  # being a member is not enough to speak
        self._audience: Optional[Tuple[Client, ...]] = None

    def add(self, client: Client, bits: int = 0) -> None:
        self.members[client] = bits
        self._audience = None

    def discard(self, client: Client) -> None:
        self.members.pop(client, None)
        self._audience = None

    def replace(self, old: Client, new: Client) -> None:
        """Have another in the place of a member."""
        members = self.members.items()
        self.members = {new if member is old else member: bits for member, bits in members}
        self._audience = None

    @property
    def audience(self) -> Tuple[Client, ...]:
        """The members: the same tuple until they change, so that sending costs no copy."""
        if self._audience is None:
            self._audience = tuple(self.members)
        return self._audience

    @property
    def is_kept(self) -> bool:
        """Whether it is there when nobody is in it, and after a restart."""
        is_plain = self.flags == {"n"} and not (self.password or self.limit or self.bans)
        return bool(self.topic) or not is_plain

    @property
    def is_of_guests(self) -> bool:
        """Whether nobody who comes back can prove to have a say here."""
        return not (self.operators or self.is_lobby)

    def remember(self, client: Client) -> None:
        """Have the owner of its account be an operator again, whenever they join."""
        self.operators[protocol.casefold(client.account)] = client.owned_since

    def remembers(self, client: Client) -> bool:
        """Whether its account was an operator: that one, not an earlier of the same name."""
        since = self.operators.get(protocol.casefold(client.account), 0)
        return bool(client.account) and client.owned_since <= since

    # Who may do what: each raises ReplyError for one who may not

    def governs(self, client: Client) -> bool:
        """Whether it has the say here."""
        return client.is_operator or bool(self.members.get(client, 0) & OPERATOR)

    def mind_rank(self, client: Client) -> None:
        if not self.governs(client):
            raise ReplyError("482", self.name, "You're not channel operator")

    def mind_door(self, client: Client, password: str) -> None:
        if self in client.invited or client.is_operator or self.remembers(client):
            return
        for is_kept_out, numeric, letter in (
            (self.banned.match(client.source), "474", "b"),
            ("i" in self.flags, "473", "i"),
            (self.password and password != self.password, "475", "k"),
            (self.limit and len(self.members) >= self.limit, "471", "l"),
        ):
            if is_kept_out:
                raise ReplyError(numeric, self.name, "Cannot join channel (+%s)" % letter)

    def mind_silence(self, client: Client) -> None:
        fault = ""
        if client not in self.members and "n" in self.flags:
            fault = "Cannot send to a channel that you are not in"
        elif self.members.get(client) or client.is_operator:
            return
        elif "m" in self.flags:
            fault = "Only those with a voice may speak in %s. Its operators give it." % self.name
        elif self.banned.match(client.source):
            fault = "You are banned from %s, and may not speak there" % self.name
        if fault:
            raise ReplyError("404", self.name, fault)

    def member(self, client: Client) -> Client:
        """The same, who is in it."""
        if client not in self.members:
            raise ReplyError("441", client.nickname, self.name, "They aren't on that channel")
        return client

    # What it is like

    def change(
        self, change: ModeChange, by: Client, find: Callable[[str], Client]
    ) -> Optional[ModeChange]:
        """Make one change; what it was, or None where it changes nothing.

        `find` gives the client of a nickname. Raises ReplyError for what cannot be done.
        """
        adding, letter, arg = change
        kind = protocol.ROOM_MODES.get(letter)
        if kind is None:
            raise ReplyError("472", letter, "is unknown mode char to me")
        if kind == "flag":
            return self._change_flag(change)
        if not arg and (adding or letter not in "kl"):
            raise ReplyError("696", self.name, letter, "*", "This mode wants a parameter")
        if kind == "member":
            return self._change_rank(change, self.member(find(arg)))
        if letter == "b":
            return self._change_ban(change, by)
        if letter == "k":
            return self._change_key(change)
        return self._change_limit(change)

    def _change_flag(self, change: ModeChange) -> Optional[ModeChange]:
        if change.adding == (change.letter in self.flags):
            return None
        self.flags ^= {change.letter}
        return change

    def _change_rank(self, change: ModeChange, member: Client) -> Optional[ModeChange]:
        bits, bit = self.members[member], _MEMBER_BITS[change.letter]
        if bit == OPERATOR and member.account:
            if change.adding:
                self.remember(member)
            else:
                self.operators.pop(protocol.casefold(member.account), None)
        if bool(bits & bit) == change.adding:
            return None
        self.members[member] = bits ^ bit
        return change._replace(arg=member.nickname)

    def _change_ban(self, change: ModeChange, by: Client) -> Optional[ModeChange]:
        mask = protocol.as_mask(change.arg)
        key = protocol.casefold(mask)
        known = next((ban for ban in self.bans if protocol.casefold(ban) == key), "")
        if not change.adding:
            return change._replace(arg=known) if self.bans.pop(known, None) else None
        if known:
            return None
        if len(self.bans) >= MAX_BANS:
            raise ReplyError("478", self.name, "b", "Channel list is full")
        self.bans[mask] = (by.nickname, int(time.time()))
        return change._replace(arg=mask)

    def _change_key(self, change: ModeChange) -> Optional[ModeChange]:
        if not change.adding:
            was, self.password = self.password, ""
            return change._replace(arg="*") if was else None
        if not protocol.is_key(change.arg):
            raise ReplyError("696", self.name, "k", "*", "A key has no spaces, no commas")
        self.password = change.arg
        return change

    def _change_limit(self, change: ModeChange) -> Optional[ModeChange]:
        if not change.adding:
            was, self.limit = self.limit, 0
            return change if was else None
        limit = protocol.parse_limit(change.arg)
        if not limit:
            raise ReplyError("696", self.name, "l", change.arg, "A limit is a number above 0")
        self.limit = limit
        return change._replace(arg=str(limit))

    def modes(self, in_full: bool) -> Tuple[str, ...]:
        """The parameters of 324; the key is for members."""
        changes = [protocol.ModeChange(True, flag, "") for flag in sorted(self.flags)]
        if self.password:
            changes.append(protocol.ModeChange(True, "k", self.password if in_full else "*"))
        if self.limit:
            changes.append(protocol.ModeChange(True, "l", str(self.limit)))
        return protocol.format_modes(changes) or ("+",)

    def guard(self) -> None:
        """See that what depends on the modes follows from them."""
        self.banned = protocol.Masks(self.bans)
        self.is_guarded = bool(self.bans) or "m" in self.flags

    KEPT = ("name", "topic", "topic_by", "topic_at", "created", "password", "limit", "bans")

    def state(self) -> Dict[str, Any]:
        """What is kept of it, for JSON."""
        state = {name: getattr(self, name) for name in self.KEPT}
        return dict(state, flags=sorted(self.flags), operators=self.operators)

    def restore(self, state: Dict[str, Any]) -> None:
        """The inverse of `state`. KeyError, TypeError or ValueError for what is none."""
        for name in self.KEPT:
            setattr(self, name, type(getattr(self, name))(state[name]))
        self.bans = {mask: (str(by), int(at)) for mask, (by, at) in self.bans.items()}
        self.flags, operators = set(state["flags"]), state["operators"]
        # Earlier versions kept no more than the names.
        is_old = isinstance(operators, list)
        self.operators = dict.fromkeys(operators, END) if is_old else dict(operators)
        self.guard()

    def review(self, owners: Mapping[str, int]) -> None:
        """Forget operators whose account is gone; `owners` has the folded names and numbers."""
        known = self.operators.items()
        self.operators = {key: at for key, at in known if key in owners and owners[key] <= at}

    def copy(self) -> "Room":
        copy = Room(self.name, self.is_lobby)
        copy.restore(self.state())
        copy.members = dict(self.members)
        return copy


class Listed(NamedTuple):
    """What lists tell of a room."""

    name: str
    key: str
    size: int  # members
    bits: int  # of the member whose rooms were asked for
    created: float  # seconds since 1970, as is `topic_at`
    topic: str
    topic_at: float


class Was(NamedTuple):
    """Somebody who had a name."""

    nickname: str
    username: str
    host: str
    realname: str
    left_at: float  # seconds since 1970


def private_key(nickname: str, other: str) -> str:
    """What the history calls the conversation of two people: the same for both."""
    return " ".join(sorted([protocol.casefold(nickname), protocol.casefold(other)]))


class Event:
    """Something that `audience` is to be told: a message, or bytes as they are.

    The `sender`, where it is in the audience, gets a text back only as an echo. The history
    keeps it for each of `kept_for`, the keys of rooms or private conversations. The delivery
    gives each event its `number`: its place in the one order, its msgid, and its time in
    microseconds since 1970, all in one. What the history repeats has its number already.

    `needs` are the capabilities without which one is not told, `extended` is the line for
    those with extended-join, `waiting_for` the account for which it is also kept.

    A message too long for its line is cut; what no line can carry is a ValueError here, in
    the thread that thought of it.
    """

    __slots__ = (
        "audience", "extended", "is_text", "kept_for", "label", "line", "message",
        "needs", "number", "opening", "sender", "tags", "waiting_for",
    )  # fmt: skip

    def __init__(
        self,
        message: Union[Message, bytes],
        audience: Tuple[Client, ...],
        sender: Optional[Client] = None,
        kept_for: Tuple[str, ...] = (),
        number: int = 0,
        tags: Tags = (),
        needs: int = 0,
    ) -> None:
        self.needs = needs
        if isinstance(message, Message):
            message, self.line = protocol.fit_line(message)
            self.is_text = message.command in _TEXTS and "!" in message.source
            if not needs:
                self.needs = _ASKED_FOR.get(message.command, 0)
        else:
            self.line, self.is_text = message, False
        self.message = message
        self.audience = audience
        self.sender = sender
        self.kept_for = kept_for
        self.number = number
        self.tags = tags  # beside time and msgid
        self.extended, self.waiting_for = b"", ""
        self.label = protocol.NO_TAGS  # those that answer the sender's label, for it alone
        self.opening = b""  # what goes before it then
        if sender is None:
            return
        if sender.tags and isinstance(message, Message) and "!" in message.source:
            self.tags = tags + sender.tags
        if sender.label and self._is_answer(sender):
            self.label, self.opening = sender.take_label()

    def _is_answer(self, sender: Client) -> bool:
        """Whether the sender itself gets to read it."""
        may_read = sender.caps & self.needs == self.needs and sender in self.audience
        return may_read and not self.is_unheard

    def render(self, caps: int, lobby: str, own: bool = False) -> bytes:
        """Its line for clients with these capabilities, or (`own`) for its sender among them."""
        message = self.message
        if isinstance(message, bytes):
            return message
        try:
            return self._render(message, caps, lobby, own)
        except Exception:  # this one is lost then, but none beside it
            log.exception("our mistake: %.200r", message)
            return b""

    def _render(self, message: Message, caps: int, lobby: str, own: bool) -> bytes:
        if caps & self.needs != self.needs:
            return b""
        if caps & PLAIN_TEXT:
            me, when = message.nickname if own else "", self.number / 1e6
            line = protocol.describe_in(message, me, when, lobby)
            return (str(line) + "\r\n").encode("utf-8") if line else b""
        tags: Dict[str, str] = {}
        if own:
            tags.update(self.label)
        if caps & SERVER_TIME:
            tags["time"] = protocol.format_time(self.number / 1e6)
        if caps & MESSAGE_TAGS:
            if "!" in message.source:  # somebody said or did it
                tags["msgid"] = str(self.number)
            tags.update(message.tags)
        for bit, key, value in self.tags:
            if caps & bit:
                tags[key] = value
        body = self.extended if self.extended and caps & EXTENDED_JOIN else self.line
        opening = self.opening if own else b""
        return opening + protocol.serialize_tags(tags) + body

    @property
    def is_unheard(self) -> bool:
        """Whether it is a text whose sender, an IRC client, does not want its own words back."""
        is_wanted = self.sender is None or self.sender.caps & (ECHO_MESSAGE | PLAIN_TEXT)
        return self.is_text and not is_wanted

    @property
    def is_to_self(self) -> bool:
        """Whether it is a text that its sender hears as its recipient, too."""
        message = self.message
        if not self.is_text or isinstance(message, bytes):
            return False
        return message.params[0] == message.nickname

    def render_for(self, client: Client, lobby: str) -> bytes:
        """Its line for one to whom it looks different: its sender, or who ignores its sender.

        For the sender it is an echo, if that is wanted, with the label that asked for it;
        an IRC client that writes to itself gets that echo, and then what it wrote.
        """
        if client is not self.sender:
            return b""
        echo = b"" if self.is_unheard else self.render(client.caps, lobby, own=True)
        if not self.is_to_self:
            return echo
        received = self.render(client.caps, lobby)
        return received if client.caps & PLAIN_TEXT else echo + received

    def rows(self) -> List["Row"]:
        """What the history keeps of it."""
        if not isinstance(self.message, Message):
            return []
        command, tags, rows = self.message.command, dict(self.message.tags), []
        if len(protocol.serialize_tags(tags)) > MAX_KEPT_TAGS:
            tags.clear()
        for i, key in enumerate(self.kept_for):
            line = protocol.serialize_tags(tags) + self.line[:-2]
            rows.append((self.number + i, key, command, line, self.waiting_for))
            tags["msgid"] = str(self.number)  # it has one, wherever it is kept
        return rows


class Directory:
    """Who is here, by username, and in which rooms.

    Each method is atomic and does no I/O. What others are to be told of a change is posted
    before the lock is let go: the order of events is the order of the changes. A method that
    refuses raises ReplyError, and nothing has changed.
    """

    def __init__(self, post: Callable[[Event], None], server_name: str, lobby: str = "") -> None:
        self._lock = threading.Lock()  # guards all below, and the marked parts of Client
        self._post = post  # only appends to a queue
        self._server_name = server_name
        self._lobby = protocol.casefold(lobby)
        self._clients: Dict[str, Client] = {}  # folded nickname to connection
        self._rooms: Dict[str, Room] = {}  # folded name to room
        self._left: Dict[str, None] = {}  # keys of guests' rooms that are empty, the longest first
        self._watchers: Dict[str, Set[Client]] = {}  # folded nickname to who asked for it
        self._ignorers: Set[Client] = set()
        self._tokens: Dict[str, Client] = {}
        self._past: Deque[Was] = collections.deque(maxlen=MAX_PAST)
        self._closing = False
        self.most = 0  # clients at once

    # People

    def claim(self, client: Client, nickname: str, is_owner: bool = False) -> Optional[Client]:
        """Give `client` the name, in place of any it has. Raises ReplyError 433 if it is taken.

        Its owner gets it all the same: who had it is gone from here, and is given back, for
        the caller to end the connection.
        """
        key = protocol.casefold(nickname)
        with self._lock:
            self._mind_end(client)
            holder: Optional[Client] = self._clients.get(key)
            if holder is client:
                holder = None
            if holder is not None:
                if not is_owner:
                    raise ReplyError("433", nickname, "Nickname is already in use")
                holder.end = holder.end or protocol.OWNER_CAME.format(nickname)
                self._remove(holder, "Its owner has come back")
            self._rename(client, nickname, key)
            return holder

    def _rename(self, client: Client, nickname: str, key: str) -> None:
        if client.nickname == nickname:
            return
        old_key = client.key
        if client.registered:
            message = Message("NICK", (nickname,), client.source)
            keys = tuple(room.key for room in client.rooms)
            self._post(Event(message, self._peers(client), client, keys))
            if old_key != key:
                self._remember(client)
                self._tell_watchers(client, False)
        if client.nickname:
            del self._clients[old_key]
        if old_key != key:
            client.named = Event(b"", ())
            self._post(client.named)
        self._clients[key] = client
        client.nickname = nickname
        self._introduce(client)
        if client.registered and old_key != key:
            self._tell_watchers(client, True)

    def release(self, client: Client) -> None:
        """Take the name from one who has not registered."""
        with self._lock:
            self._mind_end(client)
            if not client.registered and client.nickname:
                del self._clients[client.key]
                client.nickname = ""

    def register(self, client: Client, token: str) -> int:
        """`client` has a name and may speak from now on; how many are here with it."""
        with self._lock:
            self._mind_end(client)
            self._introduce(client)
            client.registered = True
            self._give_token(client, token)
            self._tell_watchers(client, True)
            count = sum(1 for other in self._clients.values() if other.registered)
            self.most = max(self.most, count)
            return count

    def resume(self, client: Client, token: str, new_token: str) -> Optional[Client]:
        """Give `client` the place of whoever has the token; nobody is told of it.

        Gives back who had it, as `claim` does; None where nobody has that token.
        """
        with self._lock:
            self._mind_end(client)
            old = self._tokens.get(token)
            if old is None or old.end:  # who was put out comes back by no token
                return None
            old.end = "Connected again"
            del self._tokens[token]
            if client.nickname:
                self._clients.pop(client.key, None)
            client.take_over(old)
            self._clients[client.key] = client
            for room in client.rooms:
                room.replace(old, client)
            for key in client.watches:
                self._watchers[key].add(client)
                self._watchers[key].discard(old)
            if old in self._ignorers:
                self._ignorers.add(client)
            for other in self._clients.values():
                if old in other.ignored_by:
                    other.ignored_by = other.ignored_by - {old} | {client}
            self._ignorers.discard(old)
            old.rooms, old.watches, old.registered = set(), {}, False  # nobody any more
            old.nickname = old.token = ""
            self._introduce(client)
            self._give_token(client, new_token)
            return old

    def _give_token(self, client: Client, token: str) -> None:
        client.token = token
        if token:
            self._tokens[token] = client

    def remove(self, client: Client, reason: str) -> None:
        """Forget `client`: its name is free. Idempotent."""
        with self._lock:
            self._remove(client, reason)

    def _remove(self, client: Client, reason: str) -> None:
        if client.registered:
            if not self._closing:
                message = Message("QUIT", (reason,), client.source)
                audience = tuple(peer for peer in self._peers(client) if peer is not client)
                keys = tuple(room.key for room in client.rooms)
                self._post(Event(message, audience, client, keys))
                self._tell_watchers(client, False)
            self._remember(client)
        for room in list(client.rooms):
            self._leave(client, room)
        for key in client.watches:
            self._unwatch(client, key)
        client.watches = {}
        if client in self._ignorers:
            self._ignorers.discard(client)
            for other in self._clients.values():
                other.ignored_by = other.ignored_by - {client}
        self._tokens.pop(client.token, None)
        if self._clients.get(client.key) is client:  # not its owner's, who has taken it since
            del self._clients[client.key]
        client.registered = False

    def log_in(self, client: Client, account: Optional["Account"]) -> None:
        """`client` has proved to own an account; or it owns none any more."""
        with self._lock:
            client.account = account.name if account is not None else ""
            client.owned_since = account.number if account is not None else 0
            is_operator = account is not None and account.is_operator
            client.modes = client.modes - {"o"} | ({"o"} if is_operator else set())
            self._introduce(client)
            if client.registered:
                params = (client.account or "*",)
                self._tell_peers(client, Message("ACCOUNT", params, client.source))

    def become(self, client: Client, **changes: Any) -> None:
        """Change `away`, `realname`, `host`, `modes` or `owned_since`; who wants to is told."""
        with self._lock:
            source = client.source
            for name, value in changes.items():
                setattr(client, name, value)
            self._introduce(client)
            if not client.registered:
                return
            if "away" in changes:
                why = (client.away,) if client.away else ()
                self._tell_peers(client, Message("AWAY", why, source))
            elif "realname" in changes:
                self._tell_peers(client, Message("SETNAME", (client.realname,), source))
            elif "host" in changes:
                names = (client.username, client.host)
                self._tell_peers(client, Message("CHGHOST", names, source))

    def find(self, nickname: str) -> Optional[Client]:
        """The registered client of that name."""
        with self._lock:
            return self._registered(nickname)

    def get(self, nickname: str) -> Client:
        """The same. Raises ReplyError 401."""
        with self._lock:
            return self._person(nickname)

    def find_all(self, nicknames: Iterable[str]) -> List[Client]:
        """The registered clients of those names."""
        with self._lock:
            found = map(self._registered, nicknames)
            return [client for client in found if client is not None]

    def everyone(self) -> List[Client]:
        """All who have registered."""
        with self._lock:
            return [client for client in self._clients.values() if client.registered]

    def past(self, nickname: str) -> List[Was]:
        """Who had that name, the latest first."""
        key = protocol.casefold(nickname)
        with self._lock:
            return [was for was in reversed(self._past) if protocol.casefold(was.nickname) == key]

    def peers(self, client: Client) -> Set[Client]:
        """Everyone who shares a room with `client`, and itself."""
        with self._lock:
            return set(self._peers(client))

    # Who wants to know, and who does not

    def watch(self, client: Client, nickname: str) -> None:
        """MONITOR: tell `client` when somebody of that name comes or goes."""
        key = protocol.casefold(nickname)
        with self._lock:
            self._mind_end(client)
            client.watches[key] = nickname
            self._watchers.setdefault(key, set()).add(client)

    def unwatch(self, client: Client, nicknames: Iterable[str]) -> None:
        with self._lock:
            for key in map(protocol.casefold, nicknames):
                if client.watches.pop(key, None) is not None:
                    self._unwatch(client, key)

    def ignore(self, client: Client, mask: str, adding: bool) -> None:
        """SILENCE: `client` hears no more, or again, of those whom the mask stands for."""
        with self._lock:
            self._mind_end(client)
            if adding:
                client.ignores[mask] = None
                self._ignorers.add(client)
            else:
                client.ignores.pop(mask, None)
                if not client.ignores:
                    self._ignorers.discard(client)
            client.ignored = protocol.Masks(client.ignores)
            for other in self._clients.values():
                # What is added changes nothing for those who are ignored, nor the reverse.
                may_change = other is not client and (client in other.ignored_by) != adding
                if may_change and client.ignored.match(other.source) == adding:
                    other.ignored_by = other.ignored_by ^ {client}

    # Rooms

    def restore(self, state: Dict[str, Any], owners: Mapping[str, int]) -> None:
        """Have a room of which something was kept, and its operators that have accounts still."""
        room = Room(str(state["name"]))
        room.is_lobby = room.key == self._lobby
        room.restore(state)
        room.review(owners)
        with self._lock:
            self._rooms[room.key] = room
            self._mind_emptiness(room)

    def join(self, client: Client, name: str, password: str = "") -> Optional[Event]:
        """Place `client` in a room, made where there is none, and tell it who is there.

        Gives what others are told, or None where the client was there already. Raises
        ReplyError 405, 471, 473, 474 or 475.
        """
        key = protocol.casefold(name)
        with self._lock:
            self._mind_end(client)
            room = self._rooms.get(key)
            if room is not None and client in room.members:
                return None
            if len(client.rooms) >= MAX_ROOMS:
                raise ReplyError("405", name, "You have joined too many channels")
            if room is None:
                if len(self._rooms) >= MAX_ALL_ROOMS:
                    raise ReplyError("405", name, "The server has as many channels as it can")
                room = self._rooms[key] = Room(name, key == self._lobby)
            # Who comes first has the say where nobody else can; what keeps others out of a room
            # that was left empty keeps them out too: its history is behind that door.
            is_first = not (room.members or room.operators or room.is_lobby)
            bits = OPERATOR if is_first or room.remembers(client) else 0
            room.mind_door(client, password)
            room.add(client, bits)
            self._left.pop(room.key, None)
            client.invited.discard(room)
            client.rooms.add(room)
            if bits and client.account:
                room.remember(client)
            event = self._joined(client, room, room.audience, (room.key,))
            self._post(event)
            if client.away:
                away = Message("AWAY", (client.away,), client.source)
                self._post(Event(away, tuple(m for m in room.members if m is not client)))
            self._post(self._welcome(client, room))
            return event

    def left(self, client: Client, name: str) -> int:
        """The number up to which it has read a room that it was in; 0 where it was not."""
        with self._lock:
            event = client.left.get(protocol.casefold(name))
            return event.number if event is not None else 0

    def rejoin(self, client: Client) -> None:
        """Tell one who has taken a place back of its rooms, as if it had joined them."""
        with self._lock:
            for room in sorted(client.rooms, key=lambda room: room.key):
                self._post(self._joined(client, room, (client,)))
                self._post(self._welcome(client, room))

    def _joined(
        self,
        client: Client,
        room: Room,
        audience: Tuple[Client, ...],
        kept_for: Tuple[str, ...] = (),
    ) -> Event:
        message = Message("JOIN", (room.name,), client.source)
        event = Event(message, audience, client, kept_for)
        params = (room.name, client.account or "*", client.realname)
        event.extended = protocol.fit_line(message._replace(params=params))[1]
        return event

    def _welcome(self, client: Client, room: Room) -> Event:
        return answer(client, topic_replies(room) + names_replies(client, room), self._server_name)

    def names(self, client: Client, name: str) -> int:
        """Tell `client` who is in a room, in order with who comes and goes; how many lines."""
        with self._lock:
            room = self._seen(client, name) or Room(name)
            replies = names_replies(client, room)
            self._post(answer(client, replies, self._server_name))
            return len(replies)

    def part(self, client: Client, name: str, reason: str) -> None:
        """Take `client` out of a room. Raises ReplyError 403 or 442."""
        with self._lock:
            room = self._room(client, name)
            self._tell_room(room, client, "PART", *([reason] if reason else []))
            self._put_out(client, room)

    def kick(self, client: Client, name: str, nickname: str, reason: str) -> None:
        """Put somebody out of a room. Raises ReplyError 401, 403, 441, 442 or 482."""
        with self._lock:
            room = self._governed(client, name)
            other = room.member(self._person(nickname))
            self._tell_room(room, client, "KICK", other.nickname, reason or client.nickname)
            self._put_out(other, room)

    def invite(self, client: Client, nickname: str, name: str) -> Client:
        """Ask somebody to a room. Raises ReplyError 401, 403, 442, 443 or 482."""
        with self._lock:
            other = self._person(nickname)
            room = self._room(client, name)
            if "i" in room.flags:
                room.mind_rank(client)
            if other in room.members:
                raise ReplyError("443", other.nickname, room.name, "is already on channel")
            if room.governs(client):  # others may ask, but open no door
                other.invited.add(room)
            message = Message("INVITE", (other.nickname, room.name), client.source)
            if other not in client.ignored_by:
                self._post(Event(message, (other,), client))
            others = tuple(member for member in room.members if member is not client)
            self._post(Event(message, others, client, needs=INVITE_NOTIFY))
            return other

    def invitations(self, client: Client) -> List[str]:
        """The rooms that `client` is asked to."""
        with self._lock:
            return sorted(room.name for room in client.invited)

    def tell(self, client: Client, message: Message) -> str:
        """Pass on what `client` says to a room or a person, `message.params[0]`.

        Gives why that person is away, "" for one who is not. Raises ReplyError 401, 403, 404.
        """
        params = message.params
        target = params[0]
        away = ""
        with self._lock:
            self._mind_end(client)
            if target.startswith("#"):
                room = self._rooms.get(protocol.casefold(target))
                if room is None:
                    raise ReplyError("403", target, "No such channel")
                if room.is_guarded or client not in room.members:
                    room.mind_silence(client)
                name, audience, key = room.name, room.audience, room.key
            else:
                recipient = self._person(target)
                name, away = recipient.nickname, recipient.away
                audience = (client,) if recipient is client else (recipient, client)
                key = private_key(name, client.nickname)
                if message.command != "TAGMSG" and recipient not in client.ignored_by:
                    recipient.correspondent = client.nickname  # whom they have read
            if name != target:
                params = (name, *params[1:])
            relayed = Message(message.command, params, client.source, message.tags)
            kept_for = () if message.command == "TAGMSG" else (key,)
            self._post(Event(relayed, audience, client, kept_for))
        return away

    def leave_word(self, client: Client, message: Message, owner: str) -> bool:
        """Keep a private text for the owner of an account; False where they have come now."""
        with self._lock:
            self._mind_end(client)
            if self._registered(owner) is not None:
                return False
            relayed = Message("PRIVMSG", (owner, message.params[1]), client.source, message.tags)
            event = Event(relayed, (client,), client, (private_key(owner, client.nickname),))
            event.waiting_for = protocol.casefold(owner)
            self._post(event)
            return True

    def set_topic(self, client: Client, name: str, topic: str) -> None:
        """Raises ReplyError 403, 404, 442 or 482."""
        with self._lock:
            room = self._room(client, name)
            room.mind_silence(client)
            if "t" in room.flags:
                room.mind_rank(client)
            topic = protocol.fit(Message("TOPIC", (room.name, topic), client.source)).text
            self._tell_room(room, client, "TOPIC", topic)
            room.topic, room.topic_by, room.topic_at = topic, client.nickname, time.time()

    def change_modes(
        self, client: Client, name: str, changes: List[ModeChange]
    ) -> List[ReplyError]:
        """Do what can be done, and give what cannot. Raises ReplyError 403, 442 or 482."""
        refused: List[ReplyError] = []
        done: List[ModeChange] = []
        with self._lock:
            room = self._governed(client, name)
            for change in changes:
                try:
                    made = room.change(change, client, self._person)
                except ReplyError as refusal:
                    refused.append(refusal)
                else:
                    done += [made] if made else []
            room.guard()
            for words in protocol.split_modes(done, client.source, room.name) if done else ():
                self._tell_room(room, client, "MODE", *words)
            self._mind_emptiness(room)
        return refused

    def history_key(self, client: Client, target: str) -> Optional[Tuple[str, str, int]]:
        """The name and key of what `client` may read again, and the number after which it may.

        A room's members may read all of it; of private messages, one reads what came since
        one has had the name. None for what is not there for this client.
        """
        with self._lock:
            room = self._rooms.get(protocol.casefold(target))
            if room is not None and client in room.members:
                return room.name, room.key, 0
            if not protocol.is_nickname(target):
                return None
            other = self._registered(target)
            name = other.nickname if other is not None else target
            return name, private_key(name, client.nickname), client.named_since

    def room(self, name: str, client: Optional[Client] = None) -> Optional[Room]:
        """A copy of the room of that name, if `client` may know of it."""
        with self._lock:
            room = self._seen(client, name)
            return room and room.copy()

    def rooms(self, client: Optional[Client] = None, of: Optional[Client] = None) -> List[Listed]:
        """All rooms that `client` may know of, or those of them that `of` is in."""
        listed = []
        with self._lock:
            for room in self._rooms.values() if of is None else of.rooms:
                if self._is_seen(client, room):
                    size, bits = len(room.members), 0 if of is None else room.members[of]
                    facts = (room.created, room.topic, room.topic_at)
                    listed.append(Listed(room.name, room.key, size, bits, *facts))
        return sorted(listed, key=lambda room: room.key)

    def shared(self, client: Client, other: Client) -> Optional[Tuple[str, int]]:
        """The name of a room that both are in, and the bits that `other` has there."""
        with self._lock:
            room = min(client.rooms & other.rooms, key=lambda room: room.key, default=None)
            return None if room is None else (room.name, room.members[other])

    def counts(self) -> Tuple[int, int, int, int, int]:
        """Who has registered, the invisible and the operators of them, who has not, and rooms."""
        with self._lock:
            here = [client for client in self._clients.values() if client.registered]
            invisible, operators = (sum(mode in client.modes for client in here) for mode in "io")
            unknown = len(self._clients) - len(here)
            return len(here), invisible, operators, unknown, len(self._rooms)

    def close(self) -> None:
        """From now on nobody is told who leaves: everybody does."""
        with self._lock:
            self._closing = True

    # What follows is called with the lock held.

    def _mind_end(self, client: Client) -> None:
        """Raises Ended for one who was put out: another may have the name, and the place."""
        if client.end:
            raise Ended(client.end)

    def _registered(self, nickname: str) -> Optional[Client]:
        client = self._clients.get(protocol.casefold(nickname))
        return client if client is not None and client.registered else None

    def _person(self, nickname: str) -> Client:
        """Raises ReplyError 401."""
        client = self._registered(nickname)
        if client is None:
            raise ReplyError("401", nickname, "No such nick")
        return client

    def _is_seen(self, client: Optional[Client], room: Room) -> bool:
        is_open = client is None or "s" not in room.flags or client.is_operator
        return is_open or client in room.members

    def _seen(self, client: Optional[Client], name: str) -> Optional[Room]:
        room = self._rooms.get(protocol.casefold(name))
        return room if room is not None and self._is_seen(client, room) else None

    def _room(self, client: Client, name: str) -> Room:
        """A room that `client` is in. Raises ReplyError 403 or 442."""
        room = self._seen(client, name)
        if room is None:
            raise ReplyError("403", name, "No such channel")
        if client not in room.members:
            raise ReplyError("442", room.name, "You're not on that channel")
        return room

    def _governed(self, client: Client, name: str) -> Room:
        """A room that `client` has the say in. Raises ReplyError 403, 442 or 482."""
        room = self._seen(client, name)
        if room is None or not client.is_operator:
            room = self._room(client, name)
        room.mind_rank(client)
        return room

    def _introduce(self, client: Client) -> None:
        source = client.source
        client.introduce()
        if client.source != source:
            others = (other for other in self._ignorers if other is not client)
            ignorers = (other for other in others if other.ignored.match(client.source))
            client.ignored_by = frozenset(ignorers)

    def _peers(self, client: Client) -> Tuple[Client, ...]:
        """Everyone who shares a room with `client`, and itself, once each."""
        if len(client.rooms) == 1:
            return next(iter(client.rooms)).audience
        peers = {client: 0}
        for room in client.rooms:
            peers.update(room.members)
        return tuple(peers)

    def _tell_room(self, room: Room, client: Client, command: str, *params: str) -> None:
        """What `client` does to a room: for all who are there, and for later."""
        message = Message(command, (room.name, *params), client.source)
        self._post(Event(message, room.audience, client, (room.key,)))

    def _tell_peers(self, client: Client, message: Message) -> None:
        """What has changed about `client`: for its peers, and for those who watch it closely."""
        peers = self._peers(client)
        others = peers
        if message.command == "AWAY":  # who said it has its own answer
            others = tuple(peer for peer in peers if peer is not client)
        self._post(Event(message, others, client))
        watchers = self._watchers.get(client.key, set()).difference(peers)
        if watchers:
            needs = EXTENDED_MONITOR | _ASKED_FOR[message.command]
            self._post(Event(message, tuple(watchers), client, needs=needs))

    def _tell_watchers(self, client: Client, is_here: bool) -> None:
        numeric, who = ("730", client.source) if is_here else ("731", client.nickname)
        for watcher in self._watchers.get(client.key, ()):
            message = Message(numeric, (watcher.nickname, who), self._server_name)
            self._post(Event(message, (watcher,)))

    def _unwatch(self, client: Client, key: str) -> None:
        watchers = self._watchers.get(key, set())
        watchers.discard(client)
        if not watchers:
            self._watchers.pop(key, None)

    def _remember(self, client: Client) -> None:
        names = (client.nickname, client.username, client.host, client.realname)
        self._past.append(Was(*names, time.time()))

    def _put_out(self, client: Client, room: Room) -> None:
        client.left.pop(room.key, None)
        while len(client.left) >= MAX_ROOMS:
            del client.left[next(iter(client.left))]
        mark = client.left[room.key] = Event(b"", ())
        self._post(mark)
        self._leave(client, room)

    def _leave(self, client: Client, room: Room) -> None:
        room.discard(client)
        client.rooms.discard(room)
        self._mind_emptiness(room)

    def _mind_emptiness(self, room: Room) -> None:
        """See that no room is there for nothing, when it may be that nobody is in it."""
        if room.members:
            return
        self._left.pop(room.key, None)
        if not room.is_kept:
            del self._rooms[room.key]
        elif room.is_of_guests:
            self._left[room.key] = None
            if len(self._left) > MAX_GUEST_ROOMS:
                self._end_room(next(iter(self._left)))

    def _end_room(self, key: str) -> None:
        """Forget a room, and see that what was said in it is not for the next of its name."""
        del self._left[key]
        self._post(Event(Message("GONE", (self._rooms.pop(key).name,)), (), None, (key,)))


# The database: what outlives the server


class Handle:
    """One connection to the database: opened when it is needed, and anew after a fault.

    Any thread may use it; one does at a time.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._lock = threading.Lock()  # guards the connection
        self._is_stuck = False  # somebody has waited for it in vain: the next do not
        self._connection: Optional[sqlite3.Connection] = None

    def run(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """What `work` gives: one transaction. Raises sqlite3.Error or OSError, and nothing is done.

        It may be asked again then: what it changes is to be the same the second time.
        """
        if not self._lock.acquire(timeout=0 if self._is_stuck else DISK_TIMEOUT):
            self._is_stuck = True
            raise sqlite3.OperationalError("the disk does not answer")
        self._is_stuck = False
        try:
            if self._connection is None:
                self._connection = self._connect()
            with self._connection:
                return work(self._connection)
        except (OSError, sqlite3.Error):
            self._drop()
            raise
        finally:
            self._lock.release()

    def close(self) -> bool:
        """Close the connection until it is needed again; False where the disk is stuck in it."""
        if not self._lock.acquire(timeout=PATIENCE):
            return False
        self._drop()
        self._lock.release()
        return True

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Database:
    """The file that all is kept in (SQLite, write-ahead log), or the memory where there is none.

    One handle writes and one reads, so that nobody who reads waits for a write. A file that
    turns out to be damaged is moved aside, never deleted, by the process that has claimed the
    folder: a server. Other processes may open the file meanwhile, and never move it.
    """

    MIGRATIONS = (  # from each version of the schema to the next
        """
        CREATE TABLE messages (number INTEGER PRIMARY KEY, key TEXT NOT NULL,
                               command TEXT NOT NULL, line BLOB NOT NULL);
        CREATE INDEX messages_by_key ON messages (key, number);
        CREATE TABLE conversations (owner TEXT NOT NULL, other TEXT NOT NULL,
                                    number INTEGER NOT NULL, PRIMARY KEY (owner, other));
        """,
        """
        CREATE TABLE waiting (owner TEXT NOT NULL, number INTEGER NOT NULL,
                              PRIMARY KEY (owner, number));
        CREATE TABLE accounts (key TEXT PRIMARY KEY, name TEXT NOT NULL,
                               is_operator INTEGER NOT NULL, created REAL NOT NULL,
                               n INTEGER NOT NULL, r INTEGER NOT NULL, p INTEGER NOT NULL,
                               salt BLOB NOT NULL, hash BLOB NOT NULL);
        CREATE TABLE rooms (key TEXT PRIMARY KEY, state TEXT NOT NULL);
        CREATE TABLE sanctions (kind TEXT NOT NULL, target TEXT NOT NULL, until REAL NOT NULL,
                                reason TEXT NOT NULL, by TEXT NOT NULL, at REAL NOT NULL,
                                PRIMARY KEY (kind, target));
        """,
        # What is said last is found at once, however often people came and went since.
        """
        CREATE INDEX texts_by_key ON messages (key, number)
        WHERE command IN ('PRIVMSG', 'NOTICE');
        """,
        # What came before a room was GONE is not for those who are in it since.
        """
        CREATE INDEX gone_by_key ON messages (key, number) WHERE command = 'GONE';
        """,
    )
    RESCUED = ("accounts", "sanctions", "rooms")  # taken over from a damaged file, if readable

    def __init__(self, folder: str, patience: float, claim: bool = True) -> None:
        """`patience` is for other processes' writes, in seconds. Raises FolderTakenError."""
        self.path = os.path.join(folder, "history.db") if folder else ""
        self._patience = patience
        self._claim = _claim_folder(folder) if folder and claim else None  # ours while it is open
        self._moved = threading.Condition()  # guards the two below
        self._age = 0  # how often the file was moved aside
        self._is_moving = False
        self._writer = Handle(lambda: self._connect(self._open))
        to_read = functools.partial(_open_to_read, self.path)
        self._reader = Handle(lambda: self._connect(to_read)) if folder else self._writer

    def write(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """What `work` gives: one transaction. Raises sqlite3.Error or OSError, and nothing is done.

        Where the file had to be moved aside, `work` runs once more, on the new one.
        """
        return self._run(self._writer, work)

    def read(self, query: str, values: Tuple[object, ...] = ()) -> List[Any]:
        """All rows that it finds. Raises sqlite3.Error or OSError."""

        def find(reader: sqlite3.Connection) -> List[Any]:
            return reader.execute(query, values).fetchall()

        try:
            return self._run(self._reader, find)
        except sqlite3.OperationalError:
            # On a read-only disk SQLite cannot make the files that readers share. A file with
            # no log beside it is at rest, and can be read without.
            is_at_rest = self.path and not os.path.exists(self.path + "-wal")
            if not is_at_rest or os.access(self.path, os.W_OK):
                raise
            with contextlib.closing(_open_to_read(self.path, "&immutable=1")) as reader:
                return find(reader)

    def size(self) -> int:
        """Bytes on disk."""
        size = 0
        for path in (self.path, self.path + "-wal") if self.path else ():
            with contextlib.suppress(OSError):
                size += os.stat(path).st_size
        return size

    @property
    def is_on_disk(self) -> bool:
        """Whether it outlives the server."""
        return bool(self.path)

    def close(self) -> None:
        """Close the file, and let others claim the folder."""
        self._reader.close()
        self._writer.close()
        if self._claim is not None:
            self._claim.close()

    def _run(self, handle: Handle, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        age = self._age
        try:
            return handle.run(work)
        except (OSError, sqlite3.Error) as error:
            if not (_is_damage(error) and self._move_aside(str(error), age)):
                raise
        return handle.run(work)

    def _connect(self, connect: Callable[[], sqlite3.Connection]) -> sqlite3.Connection:
        if self._is_moving:
            raise sqlite3.OperationalError(_MOVING)
        return connect()

    def _open(self) -> sqlite3.Connection:
        if self.path:
            os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
            # SQLite keeps the mode. A file that is there is not opened: closing it again
            # would end the locks that this process has on it (POSIX).
            with contextlib.suppress(FileExistsError):
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        path = self.path or ":memory:"
        writer = sqlite3.connect(path, timeout=self._patience, check_same_thread=False)
        try:
            writer.execute("PRAGMA journal_mode = WAL")
            writer.execute("PRAGMA synchronous = NORMAL")
            self._migrate(writer)
            writer.execute("SELECT 1 FROM messages LIMIT 1").fetchone()
        except BaseException:
            writer.close()
            raise
        return writer

    def _migrate(self, writer: sqlite3.Connection) -> None:
        query, latest = "PRAGMA user_version", len(self.MIGRATIONS)
        if writer.execute(query).fetchone()[0] != latest:
            with writer:
                writer.execute("BEGIN IMMEDIATE")  # another process may be about to do the same
                version = writer.execute(query).fetchone()[0]
                if version > latest:
                    raise sqlite3.OperationalError("it was made by a newer Hubbub")
                for script in self.MIGRATIONS[version:]:
                    for statement in script.split(";"):
                        writer.execute(statement)
                writer.execute("PRAGMA user_version = %d" % latest)

    def _move_aside(self, reason: str, age: int) -> bool:
        """Have a new file in place of the damaged one that was there at `age`; whether it is."""
        with self._moved:
            self._moved.wait_for(lambda: not self._is_moving, DISK_TIMEOUT)
            if self._age != age:
                return True  # somebody was faster
            if self._is_moving or self._claim is None:
                return False
            self._is_moving = True  # from here on nobody opens it
        is_done = False
        try:
            # What is open would write to the old file, and delete the new one's log.
            if not (self._reader.close() and self._writer.close()):
                return False
            aside = self.path + time.strftime(".damaged-%Y%m%d-%H%M%S")
            try:
                os.replace(self.path, aside)
            except OSError as error:
                log.error("the history is damaged (%s), and cannot be moved: %s", reason, error)
                return False
            for suffix in ("-wal", "-shm"):
                with contextlib.suppress(OSError):
                    os.replace(self.path + suffix, aside + suffix)
            log.error("the history is damaged (%s): moved to %s, a new one begins", reason, aside)
            is_done = True
            self._rescue(aside)
        finally:
            with self._moved:
                self._age += is_done
                self._is_moving = False
                self._moved.notify_all()
        return is_done

    def _rescue(self, aside: str) -> None:
        """Take over what can be read of RESCUED: nobody else is to have a name that was owned."""
        try:
            with contextlib.closing(_open_to_read(aside)) as old:
                with contextlib.closing(self._open()) as new:
                    for table in self.RESCUED:
                        self._rescue_table(table, old, new)
        except (OSError, sqlite3.Error) as error:
            log.error("nothing of it can be taken over: %s", error)

    def _rescue_table(self, table: str, old: sqlite3.Connection, new: sqlite3.Connection) -> None:
        rows: List[Tuple[object, ...]] = []
        fault = "that is all"
        try:
            for row in old.execute("SELECT * FROM %s" % table):  # noqa: S608
                rows.append(row)
        except sqlite3.Error as error:
            fault = "the rest is lost: %s" % error
        with new:
            for row in rows:
                marks = ",".join("?" * len(row))
                new.execute("INSERT OR IGNORE INTO %s VALUES (%s)" % (table, marks), row)  # noqa: S608
        log.error("of its %s, %d are taken over; %s", table, len(rows), fault)


def _open_to_read(path: str, more: str = "") -> sqlite3.Connection:
    uri = "file:%s?mode=ro%s" % (urllib.parse.quote(path), more)
    return sqlite3.connect(uri, timeout=PATIENCE, uri=True, check_same_thread=False)


def _claim_folder(folder: str) -> Optional[sqlite3.Connection]:
    """Keep other servers from a data folder: by a lock, which ends with the process.

    Raises FolderTakenError where another has it; None where the folder cannot be written at all,
    which is no reason not to chat.
    """
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        claim = sqlite3.connect(os.path.join(folder, "lock"), timeout=0, check_same_thread=False)
        claim.execute("PRAGMA journal_mode = MEMORY")
        claim.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise FolderTakenError(folder) from None
        return None
    except OSError:
        return None
    return claim


_MOVING = "it is being moved aside"


def _is_damage(error: Exception) -> bool:
    return any(words in str(error) for words in ("malformed", "not a database", _MOVING))


# The history


# A message as the history keeps it: its number (microseconds since 1970, and the msgid), the
# key of the room or private conversation, the command, the line with the tags of its sender,
# and the folded name of the account that it waits for ("" for none).
Row = Tuple[int, str, str, bytes, str]


class History:
    """What was said, on disk: the thread `history` writes, all read.

    No disk can stop the chat: `finish` waits PATIENCE for a slow one, and what a full or broken
    one did not take is passed on all the same. `on_change` is then told why, once, and ""
    once it is kept again; it runs in the delivery thread.
    """

    def __init__(self, database: Database, days: float, on_change: Callable[[str], None]) -> None:
        self._database = database
        self._days = days
        self._on_change = on_change
        self._jobs: "queue.Queue[Optional[List[Row]]]" = queue.Queue()
        self._faults: "queue.Queue[str]" = queue.Queue()  # one for each job: "" where it was kept
        self._late = 1  # jobs whose fault the delivery has not heard: it alone counts them
        self.fault = ""  # the present one, as `on_change` was told
        self._clean_at = self._retry_at = 0.0  # in seconds of the monotonic clock
        # Daemon: a disk that never answers must not keep the server from ending.
        self._thread = threading.Thread(target=self._run, name="history", daemon=True)
        self._thread.start()
        self._jobs.put([])  # so that a fault is known before anybody comes

    # For the delivery

    def begin(self, rows: List[Row]) -> None:
        """Have `rows` written: `finish` waits for it."""
        self._collect(0.0 if self.fault else PATIENCE)
        if not self._late and not (self.fault and time.monotonic() < self._retry_at):
            self._jobs.put(rows)
            self._late += 1

    def finish(self) -> None:
        """Return when the rows are on disk, or when it is clear that they will not be."""
        self._collect(0.0 if self.fault else PATIENCE)
        if self._late and not self.fault:
            self._tell("the disk does not answer")

    def _collect(self, wait: float) -> None:
        with contextlib.suppress(queue.Empty):
            while self._late:
                fault = self._faults.get(timeout=wait) if wait else self._faults.get_nowait()
                self._late -= 1
                self._tell(fault)

    def _tell(self, fault: str) -> None:
        was, self.fault = self.fault, fault
        self._retry_at = time.monotonic() + RETRY_AFTER
        if bool(fault) != bool(was):
            self._on_change(fault)

    def stop(self) -> None:
        """Write what is left and end the thread."""
        self._jobs.put(None)
        self._thread.join(PATIENCE)

    # For all threads

    def read(
        self, key: str, after: int, before: int, limit: int, latest: bool, more: bool = False
    ) -> List[Row]:
        """Texts with numbers between the two, oldest first: the `limit` latest or earliest.

        With `more`, joins, leaves, topics and modes too.

        What cannot be read is as if it were not there; the log says why.
        """
        order = "DESC" if latest else "ASC"
        texts = "" if more else "AND command IN ('PRIVMSG', 'NOTICE')"
        end = "SELECT COALESCE(MAX(number), 0) FROM messages WHERE key = ? AND command = 'GONE'"
        query = (
            "SELECT number, key, command, line, '' FROM messages WHERE key = ?"
            " AND number > MAX(?, (%s)) AND number < ? %s ORDER BY number %s LIMIT ?"
        )
        found = self._select(query % (end, texts, order), (key, after, key, before, limit))
        return found[::-1] if latest else found

    def last_number(self) -> int:
        """The highest number that it holds; 0 where there is none."""
        found = self._select("SELECT MAX(number) FROM messages", ())
        return int(found[0][0] or 0) if found else 0

    def conversations(self, nickname: str, after: int, before: int) -> List[Tuple[str, int]]:
        """With whom somebody spoke privately between the two numbers, and the last number."""
        return self._select(
            "SELECT other, number FROM conversations WHERE owner = ? AND number > ? AND number < ?",
            (protocol.casefold(nickname), after, before),
        )

    def waiting_count(self, owner: str) -> int:
        """How many messages wait for an account; MAX_WAITING are enough."""
        found = self._select("SELECT COUNT(*) FROM waiting WHERE owner = ?", (owner,))
        return int(found[0][0]) if found else 0

    def take_waiting(self, owner: str) -> List[Row]:
        """What waits for an account, oldest first, MAX_WAITING at once.

        It waits on until `forget_waiting` is told that it has been delivered.
        """
        return self._select(
            "SELECT number, key, command, line, owner FROM waiting JOIN messages USING (number)"
            " WHERE owner = ? ORDER BY number LIMIT ?",
            (owner, MAX_WAITING),
        )

    def forget_waiting(self, owner: str, upto: int) -> None:
        """What waited for an account is delivered, up to this number.

        Where the disk does not take that, it is delivered again the next time.
        """
        query = "DELETE FROM waiting WHERE owner = ? AND number <= ?"
        try:
            self._database.write(lambda writer: writer.execute(query, (owner, upto)))
        except (OSError, sqlite3.Error) as error:
            log.warning("cannot note what was delivered: %s", error)

    def _select(self, query: str, values: Tuple[object, ...]) -> List[Any]:
        try:
            return self._database.read(query, values)
        except (OSError, sqlite3.Error) as error:
            log.warning("cannot read the history: %s", error)
            return []

    # The thread

    def _run(self) -> None:
        while True:
            rows = self._jobs.get()
            if rows is None:
                break
            self._faults.put(self._write(rows))

    def _write(self, rows: List[Row]) -> str:
        """Write in one transaction; what kept it from being done, or ""."""

        def insert_and_clean(writer: sqlite3.Connection) -> None:
            self._insert(writer, rows)
            self._clean(writer)

        try:
            self._database.write(insert_and_clean)
        except (OSError, sqlite3.Error) as error:
            return getattr(error, "strerror", None) or str(error)
        return ""

    def _insert(self, writer: sqlite3.Connection, rows: List[Row]) -> None:
        # Many rows to a statement: each statement lets go of the interpreter, and has to
        # wait for its turn again.
        for start in range(0, len(rows), ROWS_AT_ONCE):
            part = rows[start : start + ROWS_AT_ONCE]
            marks = ",".join(["(?,?,?,?)"] * len(part))
            values = list(itertools.chain.from_iterable([row[:4] for row in part]))
            writer.execute("INSERT INTO messages VALUES " + marks, values)  # noqa: S608
        for number, key, command, _, waiting_for in rows:
            owner, is_private, other = key.partition(" ")
            if is_private:
                pairs = [(owner, other, number), (other, owner, number)]
                writer.executemany("REPLACE INTO conversations VALUES (?,?,?)", pairs)
            if command == "GONE":  # with all that was kept of it
                writer.execute("DELETE FROM rooms WHERE key = ?", (key,))
            if waiting_for:
                writer.execute("REPLACE INTO waiting VALUES (?,?)", (waiting_for, number))

    def _clean(self, writer: sqlite3.Connection) -> None:
        """Delete some of what is too old; the rest with the next writes."""
        if not self._days or time.monotonic() < self._clean_at:
            return
        oldest = int((time.time() - self._days * 86400) * 1e6)
        query = "SELECT number FROM messages WHERE number < ? LIMIT ?"
        query = "DELETE FROM messages WHERE number IN (%s)" % query  # noqa: S608
        if writer.execute(query, (oldest, CLEANED_AT_ONCE)).rowcount < CLEANED_AT_ONCE:
            writer.execute("DELETE FROM conversations WHERE number < ?", (oldest,))
            writer.execute("DELETE FROM waiting WHERE number < ?", (oldest,))
            self._clean_at = time.monotonic() + CLEANING_INTERVAL


# What is remembered of people and rooms


class RecordsError(Exception):
    """The disk's: what is asked cannot be read or kept. The text is for people."""


class AccountExistsError(RecordsError):
    """The user's: the name has an account."""

    def __str__(self) -> str:
        return "%s has an account already." % self.args[0]


class PasswordError(RecordsError):
    """The user's: nobody may have such a password. The text says why."""


# What a fault of the disk means for people, by a word of its text.
_ADVICE = (
    (("full", "no space"), "the disk is full. Its host has to make room there."),
    (("locked", "moved aside", "not answer"), "they are busy. Try again in a moment."),
    (
        ("readonly", "read-only", "denied", "unable to open"),
        "its folder cannot be written. Its host has to see to the rights of it.",
    ),
    (
        ("malformed", "not a database"),
        "the file is damaged. A server that starts there moves it aside and begins a new one.",
    ),
)


def _advice(error: Exception) -> str:
    fault = getattr(error, "strerror", None) or str(error)
    for words, text in _ADVICE:
        if any(word in fault.lower() for word in words):
            return "The server's records cannot be used: " + text
    return "The server's records cannot be used: %s." % fault


class Account(NamedTuple):
    """A name that somebody owns."""

    name: str
    is_operator: bool
    created: float  # seconds since 1970

    @property
    def number(self) -> int:
        """When it was made, as events are numbered: tells it from others that had its name."""
        return int(self.created * 1e6)


class Sanction(NamedTuple):
    """What keeps somebody out ("ban") or silent ("mute")."""

    kind: str
    target: str  # as `protocol.sanction_target` gives it
    until: float  # seconds since 1970; 0 is for ever
    reason: str
    by: str
    at: float  # seconds since 1970


class _Secret(NamedTuple):
    """An account as it is stored: what its password's hash was made with, and the hash."""

    account: Account
    cost: Tuple[int, int, int]
    salt: bytes
    digest: bytes


# What no password gives: it stands for the names without an account, at the same price.
_NOBODY = _Secret(Account("", False, 0.0), SCRYPT, bytes(16), bytes(32))


class Records:
    """Accounts, rooms and sanctions, in the database: one short transaction an operation.

    Any thread may call it, though not under the directory's lock: it waits for the disk.
    Where that refuses, RecordsError says so, and nothing has changed. Other processes may
    change accounts at any time. Names are compared folded, passwords composed (NFC).
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: Dict[str, _Secret] = {}  # as last read, by folded name: for broken disks
        self._hashing = threading.BoundedSemaphore(HASHES_AT_ONCE)
        self.keeps = database.is_on_disk
        self.has_accounts = self.keeps and hasattr(hashlib, "scrypt")
        with contextlib.suppress(RecordsError):  # the history tells of it
            self._write(lambda writer: None)  # makes what is not there yet
        with contextlib.suppress(RecordsError):
            rows = self._read("SELECT * FROM accounts")
            self._known = {row[0]: _secret(row) for row in rows}

    # Accounts

    def account(self, name: str) -> Optional[Account]:
        """Who owns a name. What cannot be read is as it was last; the log says why."""
        secret = self._find(protocol.casefold(name))
        return secret and secret.account

    def accounts(self) -> List[Account]:
        """All of them, by name."""
        rows = self._read("SELECT * FROM accounts ORDER BY key")
        return [_secret(row).account for row in rows]

    def add_account(self, name: str, password: str, is_operator: bool = False) -> Account:
        """Raises AccountExistsError, PasswordError, RecordsError."""
        key = protocol.casefold(name)
        if self._find(key) is not None:  # before a hash is made for nothing
            raise AccountExistsError(name)
        account = Account(name, is_operator, time.time())
        values = (key, *account, *self._new_hash(password))
        query = "INSERT OR IGNORE INTO accounts VALUES (?,?,?,?,?,?,?,?,?)"
        if not self._write(lambda writer: writer.execute(query, values).rowcount):
            raise AccountExistsError(name)
        self._find(key)
        return account

    def set_password(self, name: str, password: str, is_operator: Optional[bool] = None) -> bool:
        """Change the password, and the rights too unless None; False where no account is.

        Raises PasswordError, RecordsError.
        """
        return self._set_password(protocol.casefold(name), password, is_operator, None)

    def renew(self, name: str) -> int:
        """Have an account begin now, after what others have said under its name; its new number."""
        now, key = time.time(), protocol.casefold(name)
        query = "UPDATE accounts SET created = ? WHERE key = ?"
        self._write(lambda writer: writer.execute(query, (now, key)))
        self._find(key)
        return int(now * 1e6)

    def remove_account(self, name: str) -> bool:
        """Forget an account and what waits for it; False where there is none."""
        key = protocol.casefold(name)

        def remove(writer: sqlite3.Connection) -> int:
            writer.execute("DELETE FROM waiting WHERE owner = ?", (key,))
            return writer.execute("DELETE FROM accounts WHERE key = ?", (key,)).rowcount

        was_there = self._write(remove) > 0
        self._find(key)
        return was_there

    def log_in(self, name: str, password: str) -> Optional[Account]:
        """The account, if that is its password: the same work whether or not there is one."""
        key = protocol.casefold(name)
        found = self._find(key)
        secret = found or _NOBODY
        digest = self._digest(password, secret.salt, secret.cost)
        if not hmac.compare_digest(digest, secret.digest) or found is None:
            return None
        if secret.cost != SCRYPT:  # passwords become as expensive as new ones are
            with contextlib.suppress(RecordsError):
                self._set_password(key, password, None, secret.digest)
        return secret.account

    def _find(self, key: str) -> Optional[_Secret]:
        """The account of a folded name, which is known from now on."""
        try:
            rows = self._read("SELECT * FROM accounts WHERE key = ?", (key,))
        except RecordsError as error:
            log.warning("cannot read the accounts: %s", error.__cause__)
            return self._known.get(key)
        if not rows:
            self._known.pop(key, None)
            return None
        secret = self._known[key] = _secret(rows[0])
        return secret

    def _set_password(
        self, key: str, password: str, is_operator: Optional[bool], old: Optional[bytes]
    ) -> bool:
        values = (*self._new_hash(password), is_operator, key, old)
        query = (
            "UPDATE accounts SET n = ?, r = ?, p = ?, salt = ?, hash = ?,"
            " is_operator = COALESCE(?, is_operator) WHERE key = ? AND hash = COALESCE(?, hash)"
        )
        is_done = self._write(lambda writer: writer.execute(query, values).rowcount) > 0
        self._find(key)
        return is_done

    def _new_hash(self, password: str) -> Tuple[int, int, int, bytes, bytes]:
        fault = protocol.password_fault(password)
        if fault:
            raise PasswordError(fault)
        salt = os.urandom(16)
        return (*SCRYPT, salt, self._digest(password, salt, SCRYPT))

    def _digest(self, password: str, salt: bytes, cost: Tuple[int, int, int]) -> bytes:
        if not hasattr(hashlib, "scrypt"):
            raise RecordsError("This server's Python cannot do scrypt: it keeps no passwords.")
        n, r, p = cost
        # Longer ones match nothing.
        data = protocol.password_bytes(password)[: protocol.MAX_PASSWORD + 1]
        with self._hashing:
            return hashlib.scrypt(data, salt=salt, n=n, r=r, p=p, maxmem=256 * n * r, dklen=32)

    # Rooms

    def save_room(self, key: str, state: Dict[str, Any]) -> None:
        """Remember what is said of a room, in place of what was: anything that JSON can say."""
        values = (key, json.dumps(state, ensure_ascii=False))
        self._write(lambda writer: writer.execute("REPLACE INTO rooms VALUES (?,?)", values))

    def forget_room(self, key: str) -> None:
        """Nothing happens where it is not remembered."""
        self._write(lambda writer: writer.execute("DELETE FROM rooms WHERE key = ?", (key,)))

    def rooms(self) -> List[Dict[str, Any]]:
        """What is remembered of each room."""
        found = []
        for key, state in self._read("SELECT * FROM rooms ORDER BY key"):
            try:
                found.append(json.loads(state))
            except ValueError as error:
                log.warning("cannot read what is remembered of %s: %s", key, error)
        return found

    # Sanctions

    def add_sanction(self, sanction: Sanction) -> None:
        """In place of one of that kind which that target has."""
        values = sanction._replace(target=protocol.sanction_target(sanction.target))
        query = "REPLACE INTO sanctions VALUES (?,?,?,?,?,?)"
        self._write(lambda writer: writer.execute(query, values))

    def remove_sanctions(self, target: str) -> int:
        """How many there were."""
        query = "DELETE FROM sanctions WHERE target = ?"
        values = (protocol.sanction_target(target),)
        return self._write(lambda writer: writer.execute(query, values).rowcount)

    def sanctions(self) -> List[Sanction]:
        """Those that hold, oldest first. Those that have run out are deleted."""
        now = time.time()
        found = [Sanction(*row) for row in self._read("SELECT * FROM sanctions ORDER BY at, kind")]
        holding = [sanction for sanction in found if not 0 < sanction.until <= now]
        if len(holding) < len(found):
            query = "DELETE FROM sanctions WHERE until > 0 AND until <= ?"
            with contextlib.suppress(RecordsError):  # they are not told of, all the same
                self._write(lambda writer: writer.execute(query, (now,)))
        return holding

    def _write(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        try:
            return self._database.write(work)
        except (OSError, sqlite3.Error) as error:
            raise RecordsError(_advice(error)) from error

    def _read(self, query: str, values: Tuple[object, ...] = ()) -> List[Any]:
        try:
            return self._database.read(query, values)
        except (OSError, sqlite3.Error) as error:
            raise RecordsError(_advice(error)) from error


def _secret(row: Tuple[Any, ...]) -> _Secret:
    _, name, is_operator, created, n, r, p, salt, digest = row
    return _Secret(Account(name, bool(is_operator), created), (n, r, p), salt, digest)


class Attempts:
    """Limits how fast an address may try something. Any thread may call it."""

    def __init__(self, at_once: int = ATTEMPTS_AT_ONCE, interval: float = ATTEMPT_INTERVAL) -> None:
        self._at_once, self._interval = at_once, interval
        self._lock = threading.Lock()  # guards the one below
        self._paid_until: Dict[str, float] = {}  # by address, as in Bucket

    def wait(self, address: str, now: float) -> float:
        """Take an attempt; or the seconds until there is one, where there is none."""
        with self._lock:
            paid_until = max(self._paid_until.get(address, now), now) + self._interval
            wait = paid_until - now - self._at_once * self._interval
            if wait > 0:
                return wait
            self._paid_until[address] = paid_until
            if len(self._paid_until) > MAX_ATTEMPTERS:
                self._forget_half()
            return 0.0

    def give_back(self, address: str) -> None:
        """The attempt was the right password: it does not count."""
        with self._lock:
            if address in self._paid_until:
                self._paid_until[address] -= self._interval

    def _forget_half(self) -> None:
        """Of those who have to wait longest, nobody is forgotten."""
        longest = sorted(self._paid_until.items(), key=lambda item: item[1], reverse=True)
        self._paid_until = dict(longest[: MAX_ATTEMPTERS // 2])


# The delivery

FINISH, SEVER, ABORT, CLOSE = "finish", "sever", "abort", "close"


class Ending(NamedTuple):
    """What the delivery is to do to a connection, when all that was posted before is sent.

    FINISH tells the client that no more comes, SEVER also wakes its thread, ABORT does so
    without sending what is left, CLOSE gives the descriptor back.
    """

    client: Client
    how: str


Work = Union[Event, Ending, threading.Event]  # the last is set when its turn comes


class Delivery(threading.Thread):
    """The one thread that writes: takes all that waits, then sends each outbox at once."""

    def __init__(self, max_sendq: int, history: Optional[History], lobby: str) -> None:
        super().__init__(name="delivery")
        self._history = history
        self._lobby = lobby
        self._max_sendq = max_sendq or sys.maxsize
        self._pending: Deque[Work] = collections.deque()  # appended to by all
        self._drained = threading.Condition()  # readers wait here for a shorter queue
        self._asleep = False  # True while it waits in select, and a byte must wake it
        self._stopping = False
        self._woken, self._waker = socket.socketpair()
        for end in (self._woken, self._waker):
            end.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self.count = 0  # events that have had their turn
        self._last_number = 0
        self._touched: Dict[Client, None] = {}  # those with something to send, or to shut down

    # For all threads:

    def post(self, work: Work) -> None:
        """Queue `work`. Never blocks and wakes nobody: call `wake` when the batch is whole."""
        self._pending.append(work)

    def wake(self) -> None:
        """See to what was posted."""
        if self._asleep:
            self._asleep = False
            with contextlib.suppress(OSError):  # full of wake-ups, or closed: both will do
                self._waker.send(b"!")

    @property
    def waiting(self) -> int:
        """Events that have not had their turn."""
        return len(self._pending)

    def wait(self) -> None:
        """Wake it, and wait while its queue is longer than MAX_PENDING: for readers."""
        self.wake()
        if len(self._pending) > MAX_PENDING:
            with self._drained:
                self._drained.wait_for(lambda: len(self._pending) <= MAX_PENDING)

    def sync(self) -> None:
        """Wait until all that was posted has its number and is kept: PATIENCE at most."""
        done = threading.Event()
        self._pending.append(done)
        self.wake()
        done.wait(PATIENCE)

    def stop(self) -> None:
        """End the thread when all that was posted has been seen to, and wait for it."""
        self._stopping = True
        self._asleep = True  # so that it is woken in any case
        self.wake()
        self.join()
        self._selector.close()
        self._woken.close()
        self._waker.close()

    # For its own:

    def run(self) -> None:
        if self._history is not None:
            self._history.finish()  # opening it
            self._last_number = self._history.last_number()
        while self._pending or not self._stopping:
            try:
                batch = self._take()
                self._record(batch)
                self._flush()  # the last batch goes out while the disk is busy with this one
                if self._history is not None:
                    self._history.finish()
                self._deliver(batch)
                if not self._pending:
                    self._flush()
                self._poll()
            except Exception:
                log.exception("delivery failed; it goes on with what comes next")

    def _take(self) -> List[Work]:
        pending = self._pending
        batch = [pending.popleft() for _ in range(min(len(pending), MAX_BATCH))]
        if batch and len(pending) <= MAX_PENDING < len(pending) + len(batch):
            with self._drained:
                self._drained.notify_all()
        return batch

    def _poll(self) -> None:
        """Send to those who can take more; sleep where there is nothing to do."""
        if not self._pending:
            self._asleep = True
        idle = self._asleep and not self._pending and not self._stopping  # nothing came since
        if idle or len(self._selector.get_map()) > 1:
            for key, _ in self._selector.select(None if idle else 0):
                if key.data is not None:
                    self._send(key.data)
                else:
                    self._woken.recv(4096)
        self._asleep = False

    def _record(self, batch: List[Work]) -> None:
        """Number the events, and have the history begin to write those that it keeps."""
        now = int(time.time() * 1e6)
        self.count += len(batch)
        rows: List[Row] = []
        for event in batch:
            if isinstance(event, Event) and not event.number:
                event.number = max(now, self._last_number + 1)
                self._last_number = event.number + max(0, len(event.kept_for) - 1)
                if event.kept_for and self._history is not None:
                    rows += event.rows()
        if rows and self._history is not None:
            self._history.begin(rows)

    def _deliver(self, batch: List[Work]) -> None:
        """Put what is on disk now into the outboxes, and do what else has its turn."""
        for _, run in itertools.groupby(batch, _audience_id):
            works = list(run)
            events = [work for work in works if isinstance(work, Event)]
            if events:
                self._put(events)
            for work in works:
                if isinstance(work, Ending):
                    try:
                        self._end(work)
                    except Exception:
                        log.exception("%s: our mistake", work.client.name)
                elif isinstance(work, threading.Event):
                    work.set()

    def _flush(self) -> None:
        """Send all outboxes into which something was put, as far as their sockets take it."""
        touched, self._touched = self._touched, {}
        for client in touched:
            if not client.closed and not client.blocked:
                self._send(client)

    def _put(self, events: List[Event]) -> None:
        """Put events of one audience into its outboxes, rendered once for each kind of client."""
        lines: Dict[int, List[bytes]] = {}  # of all events, by capabilities
        joined: Dict[int, bytes] = {}
        own: Dict[Client, List[int]] = {}  # which events look different to whom
        for index, event in enumerate(events):
            sender = event.sender
            if sender is not None:
                is_echo = sender.caps & ECHO_MESSAGE and not event.is_to_self
                if event.label or (event.is_text and not is_echo):
                    own.setdefault(sender, []).append(index)
                for client in sender.ignored_by if event.is_text else ():
                    own.setdefault(client, []).append(index)
        for client in events[0].audience:
            if client.closed or client.finishing is not None:
                continue
            bits = client.caps
            if bits not in lines:
                lines[bits] = [event.render(bits, self._lobby) for event in events]
                joined[bits] = b"".join(lines[bits])
            data = joined[bits]
            if client in own:
                pieces = lines[bits].copy()
                for index in own[client]:
                    pieces[index] = events[index].render_for(client, self._lobby)
                data = b"".join(pieces)
            if data:
                client.outbox.append(data)
                client.queued += len(data)
                self._touched[client] = None
                if client.blocked and client.queued > self._max_sendq:
                    self._abort(client, "SendQ exceeded")

    def _send(self, client: Client) -> None:
        """Send what the socket takes; wait for writability where it does not take all."""
        data = b"".join(client.outbox)
        try:
            sent = client.writer.send(data) if data else 0
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._abort(client, error.strerror or "Connection lost")
            return
        client.queued = len(data) - sent
        client.outbox[:] = [memoryview(data)[sent:]] if client.queued else []
        self._watch(client, bool(client.queued))
        if client.queued > self._max_sendq:
            self._abort(client, "SendQ exceeded")
        elif not client.queued and client.finishing is not None:
            self._shutdown(client, client.finishing)

    def _watch(self, client: Client, blocked: bool) -> None:
        if blocked and not client.blocked:
            self._selector.register(client.reader, selectors.EVENT_WRITE, client)
        elif client.blocked and not blocked:
            self._selector.unregister(client.reader)
        client.blocked = blocked

    def _end(self, ending: Ending) -> None:
        client = ending.client
        if ending.how == CLOSE:
            if not client.closed:
                if not client.blocked:
                    self._send(client)
                self._abort(client, "")
            client.writer.detach()
            client.reader.close()
        elif ending.how == ABORT:
            self._abort(client, "")
        elif not client.closed:
            client.finishing = socket.SHUT_WR if ending.how == FINISH else socket.SHUT_RDWR
            self._touched[client] = None  # sending finds the outbox empty, and shuts down

    def _abort(self, client: Client, reason: str) -> None:
        """Send no more, and let the client's thread find the end of its stream."""
        self._watch(client, False)
        client.outbox.clear()
        client.queued = 0
        client.closed = True
        client.end = client.end or reason
        self._shutdown(client, socket.SHUT_RDWR)

    def _shutdown(self, client: Client, how: int) -> None:
        with contextlib.suppress(OSError):  # the peer was faster
            client.reader.shutdown(how)


def _audience_id(work: Work) -> int:
    return id(work.audience) if isinstance(work, Event) else 0


# Replies that several commands give, and how replies are told

Reply = Tuple[str, ...]  # a numeric, or another command of the server's, and its parameters


def names_replies(client: Client, room: Room) -> List[Message]:
    """353 with as many names as surely fit a line, and 366."""
    with_hosts = client.caps & USERHOST_IN_NAMES
    is_inside = client in room.members or client.is_operator
    words = (
        _prefix(client, held) + (member.source if with_hosts else member.nickname)
        for member, held in room.members.items()
        if is_inside or "i" not in member.modes
    )
    kind = "@" if "s" in room.flags else "="
    texts = protocol.pack(words, " ", NAMES_SIZE)
    replies = [Message("353", (kind, room.name, text)) for text in texts]
    return [*replies, Message("366", (room.name, "End of /NAMES list"))]


def _prefix(client: Client, bits: int) -> str:
    """How a member with these bits is marked for `client`."""
    prefix = _PREFIXES[bits]
    return prefix if client.caps & MULTI_PREFIX else prefix[:1]


def topic_replies(room: Room) -> List[Message]:
    """332 and 333, or nothing where no topic is set."""
    if not room.topic:
        return []
    topic = Message("332", (room.name, room.topic))
    return [topic, Message("333", (room.name, room.topic_by, str(int(room.topic_at))))]


def _addressed(message: Message, client: Client, server_name: str) -> Message:
    """What the server says as `client` gets it: a numeric has its own name first.

    What a peer has said may stand in it, so each middle parameter is made a word.
    """
    command, params, _, _ = message
    to = (client.nickname or "*",) if command.isdigit() else ()
    return Message(command, (*to, *map(protocol.as_word, params[:-1]), *params[-1:]), server_name)


def answer(client: Client, replies: Iterable[Message], server_name: str) -> Event:
    """What the server says to one client, as one piece of work: a long answer is no crowd."""
    now = time.time()
    is_timed = client.caps & SERVER_TIME
    times = {"time": protocol.format_time(now)} if is_timed else protocol.NO_TAGS
    lines: List[bytes] = []
    for reply in replies:
        message, line = protocol.fit_line(_addressed(reply, client, server_name))
        if not client.caps & PLAIN_TEXT:
            label, opening = client.take_label()
            lines.append(opening + protocol.serialize_tags({**label, **times}) + line)
            continue
        told = protocol.describe(message, client.nickname, now)
        if told:
            lines.append((str(told) + "\r\n").encode("utf-8"))
    return Event(b"".join(lines), (client,))


# One connection


class Bucket:
    """Slows a flood: `rate` tokens a second, BURST at once (0 is no limit)."""

    def __init__(self, rate: float) -> None:
        self._interval = 1 / rate if rate else 0.0
        self._paid_until = 0.0

    def charge(self, tokens: float) -> None:
        """Take tokens that need not be there: the next line waits for them."""
        self._paid_until += tokens * self._interval

    def take(self, now: float) -> float:
        """Take a token; the seconds to wait until there is one, where there is none."""
        if not self._interval:
            return 0.0
        self._paid_until = max(self._paid_until, now) + self._interval
        return max(0.0, self._paid_until - now - BURST * self._interval)


REFUSALS = {  # bytes, for peers that speak neither of our dialects
    # A TLS alert: fatal, protocol_version (RFC 8446, 6)
    TLS: b"\x15\x03\x01\x00\x02\x02\x46",
    HTTP: (
        b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"
        b"Connection: close\r\n\r\n"
        b"This is a Hubbub chat server. Join with client.py, an IRC client, or nc.\n"
    ),
}  # fmt: skip


class Session:
    """What a client's thread does: reads, and answers each line, until the connection ends.

    The handlers of COMMANDS work on it. They may raise ReplyError, which becomes the
    numeric, and Ended.
    """

    def __init__(self, server: "Server", client: Client) -> None:
        self.server = server
        self.options = server.options
        self.directory = server.directory
        self.delivery = server.delivery
        self.client = client
        self._bucket = Bucket(server.options.rate_limit)
        self._deadline = time.monotonic() + (server.options.register_timeout or FOREVER)
        self.is_negotiating = False  # between CAP LS or REQ and CAP END
        self.has_user = False  # USER has come
        self.cap_version = 0
        self.password = ""  # what the client offered
        self.taken = ""  # folded: the name that it was refused, for somebody else has it
        self.sasl: Optional[protocol.Sasl] = None  # while an AUTHENTICATE is under way
        self.batches = itertools.count(1)

    # The thread

    def run(self) -> None:
        client = self.client
        log.info("%s connected", client.address)
        try:
            self._converse()
        except Ended as ended:
            end = ended
        except OSError as error:
            end = Ended(error.strerror or "Connection lost")
        except Exception:
            log.exception("%s: our mistake", client.name)
            end = Ended("Server error", "Something went wrong in the server. Please come again.")
        self._finish(Ended(client.end, client.end) if client.end else end)

    def _finish(self, end: Ended) -> None:
        client = self.client
        name = client.name
        self.directory.remove(client, end.reason)
        if end.told:
            self.tell(Message("ERROR", (end.told,)))
        self.delivery.post(Ending(client, FINISH))
        self.delivery.wake()
        with contextlib.suppress(OSError):
            self._drain()
        self.delivery.post(Ending(client, CLOSE))
        self.delivery.wake()
        # What people say as they leave is not for the log.
        log.info("%s ended: %s", name, end.reason.partition(":")[0])

    def _drain(self) -> None:
        """Read to the end, so that closing resets nothing that was sent (LINGER at most)."""
        deadline = time.monotonic() + LINGER
        left = LINGER
        while left > 0:
            self.client.reader.settimeout(left)
            if not self.client.reader.recv(RECEIVE_SIZE):
                return
            left = deadline - time.monotonic()

    def _converse(self) -> None:
        opening = b""
        name = None
        chunks = self._chunks()
        while name is None:
            opening += next(chunks)
            name = protocol.sniff(opening)
        if name in REFUSALS:
            self.delivery.post(Event(REFUSALS[name], (self.client,)))
            raise Ended("Refused %s" % name)
        dialect = IrcDialect(self) if name == IRC else PlainDialect(self)
        framer = protocol.Framer(dialect.LIMIT)
        for chunk in itertools.chain([opening], chunks):
            for line in framer.feed(chunk):
                if line != b"":
                    self._throttle()
                    dialect.on_line(line)
            self.delivery.wait()

    def _chunks(self) -> Iterator[bytes]:
        """What arrives, as it comes; sees to the prompt, the pings and the timeouts meanwhile."""
        client, options = self.client, self.options
        timeout = PROMPT_AFTER
        silent = True  # nothing has come, and nobody has been asked for a name
        asked = False  # a PING is out
        while True:
            client.reader.settimeout(timeout)
            try:
                data = client.reader.recv(RECEIVE_SIZE)
            except socket.timeout:
                if silent:
                    client.caps = PLAIN_TEXT
                    self.say("Welcome to %s. Type your username and press Enter." % options.network)
                elif client.registered and asked:
                    raise Ended("Ping timeout: %g seconds" % options.ping_interval) from None
                elif self._is_pinged():
                    self.tell(Message("PING", (options.server_name,)))
                    asked = True
                silent = False
                self.delivery.wake()
            else:
                if not data:
                    raise Ended("Connection closed", "" if client.registered else "Goodbye.")
                silent = asked = False
                yield data
            if client.end:
                raise Ended(client.end)
            if self._is_pinged():
                timeout = options.ping_interval
            elif client.registered:
                timeout = FOREVER  # the system's keepalive watches over it
            else:
                self._mind_deadline()
                timeout = max(0.01, self._deadline - time.monotonic())

    def _is_pinged(self) -> bool:
        client = self.client
        may_answer = client.registered and not client.caps & PLAIN_TEXT
        return bool(may_answer and self.options.ping_interval)

    def _throttle(self) -> None:
        """Wait for a token, and for the delivery; notice meanwhile if the connection ends."""
        client = self.client
        wait = self._bucket.take(time.monotonic())
        if wait > 0 or self.delivery.waiting > MAX_PENDING:
            self.delivery.wait()
        while wait > 0 and not client.end:
            time.sleep(min(wait, 0.5))
            wait -= 0.5
            self._mind_deadline()
            with contextlib.suppress(BlockingIOError):
                if not client.writer.recv(1, socket.MSG_PEEK):
                    raise Ended("Connection closed")
        if client.end:
            raise Ended(client.end)

    def _mind_deadline(self) -> None:
        if not self.client.registered and time.monotonic() > self._deadline:
            told = "No username came in time. Connect again when you are ready."
            raise Ended("Registration timeout", told)

    # Answers

    def tell(self, message: Message) -> None:
        """What is not the server's own word, or not for all clients."""
        self.delivery.post(Event(message, (self.client,), self.client))

    def reply(self, command: str, *params: str) -> None:
        """One message of the server's: a numeric, which gets the client's name, or another."""
        replies = [Message(command, params)]
        self.delivery.post(answer(self.client, replies, self.options.server_name))

    def say(self, text: str) -> None:
        """Its own words."""
        self.reply("NOTICE", self.client.nickname or "*", text)

    def note(self, *params: str) -> None:
        """A standard reply NOTE: as a notice, for those who do not know them."""
        if self.client.caps & STANDARD_REPLIES:
            self.reply("NOTE", *params)
        else:
            self.say(params[-1])

    def refuse(self, refusal: ReplyError) -> None:
        self.reply(refusal.numeric, *refusal.params)

    def answer(self, replies: Iterable[Reply]) -> None:
        """Tell a long answer, which costs more of the rate limit than a short one.

        What a handler gives before it refuses is told, and then the refusal.
        """
        messages: List[Message] = []
        try:
            for reply in replies:
                messages.append(Message(reply[0], reply[1:]))
        finally:
            if messages:
                with self.labeled_batch(len(messages) > 1):
                    self.delivery.post(answer(self.client, messages, self.options.server_name))
                self.charge(len(messages))

    def charge(self, lines: int) -> None:
        """Have an answer of so many lines count: it takes others' time too."""
        self._bucket.charge(lines / LINES_A_TOKEN)

    @contextlib.contextmanager
    def batch(self, kind: str, *params: str) -> Iterator[str]:
        """What is told meanwhile, with its reference, belongs together."""
        name, reference = self.options.server_name, "b%d" % next(self.batches)
        self.tell(Message("BATCH", ("+" + reference, kind, *params), name))
        yield reference
        self.tell(Message("BATCH", ("-" + reference,), name))

    @contextlib.contextmanager
    def labeled_batch(self, is_needed: bool = True) -> Iterator[None]:
        """What answers the present command meanwhile is in one batch, where it has a label."""
        client, name = self.client, self.options.server_name
        label = client.label
        if not is_needed or "label" not in label or not client.caps & BATCH:
            yield
            return
        reference = "b%d" % next(self.batches)
        opening = Message("BATCH", ("+" + reference, "labeled-response"), name)
        client.opening = protocol.serialize_tags(label) + protocol.fit_line(opening)[1]
        client.label = {"batch": reference}
        try:
            yield
        finally:
            is_empty, client.opening = bool(client.opening), b""  # there is no batch then
            client.label = label if is_empty else protocol.NO_TAGS
            if not is_empty:
                self.tell(Message("BATCH", ("-" + reference,), name))

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """What is told meanwhile is no answer to the present command."""
        client = self.client
        label, opening = client.label, client.opening
        client.label, client.opening = protocol.NO_TAGS, b""
        yield
        client.label, client.opening = label, opening

    def run_command(self, message: Message) -> bool:
        """Look the command up, check its row's rules, call its handler; whether it was done.

        A NOTICE is never answered, not even refused.
        """
        name, client = message.command, self.client
        command = COMMANDS.get(name)
        try:
            if command is None:
                raise ReplyError("421", name, "Unknown command")
            if not client.registered and not command.rules & EARLY:
                raise ReplyError("451", "You have not registered")
            if len(message.params) < command.least:
                raise ReplyError("461", name, "Not enough parameters")
            if client.registered and command.rules & NOT_LATE:
                raise ReplyError("462", "You may not reregister")
            if command.rules & (BY_OPERATORS | BY_RANK):
                _review(self)
            if command.rules & BY_OPERATORS and not client.is_operator:
                raise ReplyError("481", "Permission denied: you're not an operator")
            if command.rules & OF_SERVER and not self._is_here(message.param(0)):
                raise ReplyError("402", message.params[0], "No such server")
            if client.muted_until and 0 < command.heard <= len(message.params) and message.text:
                fault = _mute_fault(client)
                if fault:
                    raise ReplyError("FAIL", name, "MUTED", fault)
            replies = command.handler(self, message)
            if replies is not None:
                self.answer(replies)
        except ReplyError as refusal:
            if name != "NOTICE" or not client.registered:
                self.refuse(refusal)
            return False
        except RecordsError as error:
            self.reply("FAIL", name, "TEMPORARILY_UNAVAILABLE", str(error))
            return False
        return True

    def _is_here(self, mask: str) -> bool:
        """Whether this server, or somebody on it, is called so."""
        is_ours = protocol.matches(mask or "*", self.options.server_name)
        return is_ours or self.directory.find(mask) is not None


class IrcDialect:
    """Lines of programs: one message each."""

    LIMIT = protocol.MAX_TAGS + protocol.MAX_MESSAGE

    def __init__(self, session: Session) -> None:
        self._session = session
        self._client = session.client
        self._client.caps = 0

    def on_line(self, line: Optional[bytes]) -> None:
        session = self._session
        try:
            if line is None:
                raise protocol.TooLongError
            message = protocol.parse(line)
            if message.tags and _size_of(message.tags) > protocol.MAX_CLIENT_TAGS:
                raise protocol.TooLongError
        except protocol.TooLongError:
            session.reply("417", "Input line was too long")
        except protocol.EncodingError:
            text = "Your line is not UTF-8, the only encoding here. It was not passed on."
            session.reply("FAIL", "*", "INVALID_UTF8", text)
        except ValueError:
            session.reply("400", "*", "That line is not an IRC message")
        else:
            if message.tags:  # they are kept and passed on too: so many lines' worth of them
                session.charge(LINES_A_TOKEN * (_size_of(message.tags) // protocol.MAX_MESSAGE))
            label = message.tag("label") if self._client.caps & LABELS else ""
            if 0 < len(label.encode("utf-8")) <= MAX_LABEL:
                self._run_labeled(message, label)
            else:
                session.run_command(message)

    def _run_labeled(self, message: Message, label: str) -> None:
        """https://ircv3.net/specs/extensions/labeled-response"""
        session, client = self._session, self._client
        client.label = {"label": label}
        try:
            with session.labeled_batch(self._has_several_answers(message)):
                session.run_command(message)
            if client.label:
                session.reply("ACK")
        finally:
            client.label = protocol.NO_TAGS

    def _has_several_answers(self, message: Message) -> bool:
        """Whether a command may be answered by more than what its handler yields."""
        command = COMMANDS.get(message.command)
        if command is None:
            return False
        asked = message.params[: command.least]
        if command.rules & SEVERAL or any("," in param for param in asked):
            return True
        target = message.param(0)
        if command.handler is not on_text or target.startswith("#"):
            return False
        other = self._session.directory.find(target)
        return other is None or bool(other.away)  # an echo, and what there is to say of it


def _size_of(tags: Mapping[str, str]) -> int:
    return len(protocol.serialize_tags(tags)) - 2  # without the "@" and the space


class PlainDialect:
    """Lines of people with `nc`: first a username, then what one types in a chat box."""

    LIMIT = protocol.MAX_TYPED

    def __init__(self, session: Session) -> None:
        self._session = session
        self._client = session.client
        self._client.caps = PLAIN_TEXT
        self._tries = MAX_TRIES  # that are left to choose a username
        self._home = session.options.lobby  # the room in which what is typed is said

    def on_line(self, line: Optional[bytes]) -> None:
        session = self._session
        if line is None:
            session.say("That line is too long: %d bytes at most." % protocol.MAX_TYPED)
            return
        text = protocol.typed(line)
        if not text:
            return
        try:
            if self._client.registered or text.startswith("/login "):
                self._on_input(protocol.parse_input(text))
            elif text == "/quit":
                raise Ended("Quit", "Goodbye.")
            elif self._client.nickname:
                session.password = text
                self._come_in()
            else:
                self._on_name(text)
        except protocol.InputError as error:
            session.say(str(error))

    def _on_name(self, text: str) -> None:
        if self._session.run_command(Message("NICK", (text,))):
            self._come_in()
            return
        self._tries -= 1
        if not self._tries:
            raise Ended("No username", "That was none either. Connect again to try others.")

    def _come_in(self) -> None:
        session, options = self._session, self._session.options
        if options.password and not session.password:
            session.say("%s asks for a password. Type it and press Enter." % options.network)
        else:
            session.run_command(Message("USER", ("nc", "0", "*", self._client.nickname)))

    def _on_input(self, typed: protocol.Input) -> None:
        session, client = self._session, self._client
        rooms = {room.key: room.name for room in session.directory.rooms(of=client)}
        if protocol.casefold(self._home) not in rooms:
            self._home = next(iter(rooms.values()), "")
        lobby = session.options.lobby
        if typed.verb == "help":
            for line in protocol.help_lines():
                session.say(line)
        elif typed.verb == "list" and self._home in ("", lobby):
            room = session.directory.room(lobby)
            found = list(room.members) if room is not None else session.directory.everyone()
            for text in protocol.online([client.nickname for client in found]):
                session.say(text)
        else:
            friend = client.correspondent
            for message in protocol.compose(typed, self._home, client.source, friend):
                if not session.run_command(message):
                    break
                if message.command == "JOIN":
                    self._home = protocol.normalize(message.params[0])
            if not client.registered and client.account and client.nickname:
                self._come_in()


# Registration: Modern IRC (https://modern.ircdocs.horse), Connection Setup


def on_cap(session: Session, message: Message) -> None:
    """https://ircv3.net/specs/extensions/capability-negotiation"""
    verb, client = message.params[0].upper(), session.client
    offered = session.server.offered_capabilities()
    if verb in ("LS", "REQ") and not client.registered:
        session.is_negotiating = True
    if verb == "LS":
        word = message.param(1)
        version = int(word) if word.isdecimal() else 0
        session.cap_version = max(session.cap_version, version)
        is_new = version >= 302
        words = [cap + value if is_new else cap for cap, value in offered.items()]
        if is_new:
            client.caps |= CAPABILITIES["cap-notify"]
        _cap_reply(session, "LS", words, is_new)
    elif verb == "LIST":
        held = [cap for cap in offered if client.caps & CAPABILITIES[cap]]
        _cap_reply(session, "LIST", held, session.cap_version >= 302)
    elif verb == "REQ":
        words = list(dict.fromkeys(message.text.split())) if len(message.params) > 1 else []
        caps = _changed_caps(session, words)
        if caps is None:
            _cap_reply(session, "NAK", [protocol.cut(" ".join(words), 300)], False)
        else:
            _cap_reply(session, "ACK", words, False)
            session.delivery.sync()  # what is on the way is for the capabilities up to now
            client.caps = caps
    elif verb == "END":
        session.is_negotiating = False
        _try_to_register(session)
    else:
        raise ReplyError("410", verb, "Invalid CAP command")


def _changed_caps(session: Session, words: List[str]) -> Optional[int]:
    """The capabilities that the client has with these changes; None where one cannot be."""
    caps, offered = session.client.caps, session.server.offered_capabilities()
    for word in words:
        name = word[1:] if word.startswith("-") else word
        if name not in offered or (word == "-cap-notify" and session.cap_version >= 302):
            return None
        caps = caps | CAPABILITIES[name] if word == name else caps & ~CAPABILITIES[name]
    return caps


def _cap_reply(session: Session, verb: str, words: List[str], may_continue: bool) -> None:
    name = session.client.nickname or "*"
    *lines, last = protocol.pack(words, " ", 400 if may_continue else 480) or [""]
    for line in lines:
        session.reply("CAP", name, verb, *(["*"] if may_continue else []), line)
    session.reply("CAP", name, verb, last)


def on_pass(session: Session, message: Message) -> None:
    """Modern IRC, PASS message"""
    session.password = message.params[0]


def on_nick(session: Session, message: Message) -> None:
    """Modern IRC, NICK message: at first and to rename.

    A name that has an account is its owner's: who has not logged in yet may take it only
    while capabilities are negotiated, and is asked again at the end.
    """
    if not message.params or not message.params[0]:
        raise ReplyError("431", "No nickname given")
    client = session.client
    nickname = protocol.normalize(message.params[0])
    fault = protocol.nickname_fault(nickname)
    if fault:
        raise ReplyError("432", nickname, fault)
    if not session.is_negotiating:
        _refuse_if_owned(session, nickname)
    ban = session.server.sanctions.find("ban", [protocol.casefold(nickname)], "")
    if ban is not None:
        raise ReplyError("432", nickname, "%s is banned: %s" % (nickname, ban.reason))
    try:
        _claim(session, nickname, _owns(client, nickname))
    except ReplyError:
        session.taken = protocol.casefold(nickname)
        raise
    if client.registered:
        _tell_what_waited(session)
    _try_to_register(session)


def _claim(session: Session, nickname: str, is_owner: bool) -> None:
    """Give the client a name, and end who had it, where its owner has come."""
    client, records = session.client, session.server.records
    holder = session.directory.claim(client, nickname, is_owner)
    if holder is None:
        return
    session.server.end(holder)
    if holder.signed_on and holder.account != client.account:
        session.delivery.sync()  # what they said privately has its number, and is not the owner's
        with contextlib.suppress(RecordsError):
            session.directory.become(client, owned_since=records.renew(client.account))


def _owns(client: Client, nickname: str) -> bool:
    return protocol.casefold(client.account) == protocol.casefold(nickname)


def _refuse_if_owned(session: Session, nickname: str) -> None:
    account = session.server.records.account(nickname)
    if account is None or _owns(session.client, nickname):
        return
    form = "%s is registered. If it is yours, type /login %s PASSWORD. If not, choose another."
    session.say(form % (account.name, account.name))
    raise ReplyError("433", nickname, "Nickname is registered")


def on_user(session: Session, message: Message) -> None:
    """Modern IRC, USER message"""
    session.client.username = protocol.as_username(message.params[0])
    session.client.realname = protocol.clean(message.params[3], MAX_REALNAME)
    session.has_user = True
    _try_to_register(session)


def _try_to_register(session: Session) -> None:
    client, options = session.client, session.options
    if client.registered or not (client.nickname and session.has_user) or session.is_negotiating:
        return
    _check_server_password(session)
    try:
        _refuse_if_owned(session, client.nickname)
    except ReplyError:
        session.directory.release(client)
        raise
    _apply_sanctions(session)
    if session.sasl is not None:  # it comes in without
        session.sasl = None
        session.reply("906", "SASL authentication aborted")
    client.signed_on = client.spoke = time.time()
    session.directory.register(client, _new_token(client))
    _apply_sanctions(session)  # there may be new ones, since it was asked
    dialect = PLAIN if client.caps & PLAIN_TEXT else IRC
    log.info("%s registered as %s (%s)", client.address, client.nickname, dialect)
    _welcome(session)
    if options.lobby:
        session.run_command(Message("JOIN", (options.lobby,)))
    _tell_what_waited(session)


def _apply_sanctions(session: Session) -> None:
    """Mute one who is muted, and raise Ended for one who may not come in."""
    client = session.client
    session.server.sanctions.apply(client)
    if client.end:
        session.reply("465", client.end)
        raise Ended(client.end, client.end)


def _check_server_password(session: Session) -> None:
    """Raises Ended for a wrong one, and for any where too many came from that address."""
    wanted, offered = session.options.password.encode("utf-8"), session.password.encode("utf-8")
    if not wanted:
        return
    guesses, address = session.server.guesses, session.client.ip
    if guesses.wait(address, time.monotonic()) > 0:
        session.reply("464", "Too many wrong passwords.")
        raise Ended("Too many wrong passwords", "Connect again in a minute.")
    if not hmac.compare_digest(wanted, offered):
        session.reply("464", "Wrong password.")
        raise Ended("Wrong password", "Ask the host for it, and connect again.")
    guesses.give_back(address)


def _new_token(client: Client) -> str:
    return "%x" % int.from_bytes(os.urandom(16), "big") if client.caps & RESUME else ""


def _welcome(session: Session) -> None:
    client, options = session.client, session.options
    _watch_line(session)
    count = session.directory.counts()[0]
    people = "1 person is" if count == 1 else "%d people are" % count
    welcome = "Welcome to %s, %s. %s here." % (options.network, client.nickname, people)
    modes = "".join(sorted(protocol.ROOM_MODES))
    replies: List[Reply] = [
        ("001", welcome),
        ("002", "Your host is %s, running Hubbub %s" % (options.server_name, VERSION)),
        ("003", "This server was started %s" % time.ctime(session.server.started)),
        ("004", options.server_name, "hubbub-" + VERSION, USER_MODES, modes, "bklov"),
    ]
    for tokens in protocol.isupport(_isupport(session)):
        replies.append(("005", *tokens, "are supported by this server"))
    session.answer([*replies, *on_lusers(session), *on_motd(session)])
    session.charge(-len(replies))
    _tell_modes(session, set())
    if client.token:
        session.reply("RESUME", "TOKEN", client.token)
    if session.server.history is not None and session.server.history.fault:
        session.say(HISTORY_FAILS)


def _isupport(session: Session) -> List[str]:
    tokens = [
        "NETWORK=" + protocol.escape_token(session.options.network),
        "CASEMAPPING=ascii", "CHANTYPES=#",  # of our folding, the part that clients can do
        "CHANMODES=" + protocol.CHANMODES, "PREFIX=(ov)@+", "MODES=%d" % protocol.MAX_MODES,
        "MAXLIST=b:%d" % MAX_BANS, "CHANLIMIT=#:%d" % MAX_ROOMS,
        "NICKLEN=%d" % protocol.MAX_NAME, "CHANNELLEN=%d" % protocol.MAX_NAME,
        "TOPICLEN=%d" % protocol.MAX_TOPIC, "KICKLEN=%d" % MAX_REASON, "AWAYLEN=%d" % MAX_REASON,
        "KEYLEN=%d" % protocol.MAX_KEY, "USERLEN=%d" % protocol.MAX_USERNAME,
        "NAMELEN=%d" % MAX_REALNAME,
        "TARGMAX=" + ",".join("%s:%d" % pair for pair in sorted(TARGETS.items())),
        "MONITOR=%d" % MAX_WATCHES, "SILENCE=%d" % MAX_WATCHES, "ELIST=CMNTU", "WHOX", "BOT=B",
        "SAFELIST", "UTF8ONLY",
    ]  # fmt: skip
    if session.server.history is not None:
        tokens += ["CHATHISTORY=%d" % MAX_HISTORY, "MSGREFTYPES=msgid,timestamp"]
    return tokens


def _watch_line(session: Session) -> None:
    """Let the system find out when a silent peer is gone: for those who cannot PONG."""
    interval = int(session.options.ping_interval)
    if interval < 1:
        return
    sock = session.client.reader
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", interval),
        ("TCP_KEEPALIVE", interval),  # macOS's name for it
        ("TCP_KEEPINTVL", max(1, interval // 3)),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", 2000 * interval),  # ms
    ):
        if hasattr(socket, option):
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def on_resume(session: Session, message: Message) -> None:
    """Hubbub's own: take back the place of a connection that was lost, by its token."""
    client = session.client
    old = session.directory.resume(client, message.params[0], _new_token(client))
    if old is None:
        raise ReplyError("FAIL", "RESUME", "INVALID_TOKEN", "That place is not kept any more")
    session.server.end(old)
    _review(session)
    session.is_negotiating = False
    if old.host == old.ip != client.ip:  # from another address, which is not hidden
        session.directory.become(client, host=client.ip)
    _apply_sanctions(session)
    log.info("%s took back the place of %s", client.address, client.nickname)
    _welcome(session)
    session.directory.rejoin(client)
    _tell_what_waited(session)


# Accounts


def on_authenticate(session: Session, message: Message) -> Iterator[Reply]:
    """https://ircv3.net/specs/extensions/sasl-3.2: PLAIN, before and after registration."""
    word = message.params[0]
    if session.sasl is None:
        if not session.server.records.has_accounts:
            raise ReplyError("904", NO_ACCOUNTS)
        if word.upper() != "PLAIN":
            yield "908", "PLAIN", "are available SASL mechanisms"
            raise ReplyError("904", "SASL authentication failed")
        session.sasl = protocol.Sasl()
        if not session.client.caps & PLAIN_TEXT:
            yield "AUTHENTICATE", "+"
        return
    if word == "*":
        session.sasl = None
        raise ReplyError("906", "SASL authentication aborted")
    try:
        data = session.sasl.feed(word)
        if data is None:
            return
        session.sasl = None
        authzid, name, password = protocol.parse_plain(data)
    except protocol.TooLongError:
        session.sasl = None
        raise ReplyError("905", "SASL message too long") from None
    except protocol.ProtocolError:
        session.sasl = None
        raise ReplyError("904", "SASL authentication failed") from None
    if protocol.casefold(authzid or name) != protocol.casefold(name):
        raise ReplyError("904", "SASL authentication failed")
    refusal = ReplyError("904", "That username and that password do not belong together.")
    account = _check_password(session, name, password, refusal)
    yield from _log_in(session, account)
    yield "903", "SASL authentication successful"


def _check_password(session: Session, name: str, password: str, refusal: ReplyError) -> Account:
    """The account of that name. Raises `refusal` for a wrong password, or one try too many."""
    client, server = session.client, session.server
    address, now = client.ip, time.monotonic()
    whose = "%s %s" % (address, protocol.casefold(name[: protocol.MAX_NAME]))
    wait = server.attempts.wait(whose, now)
    if wait <= 0:
        wait = server.guesses.wait(address, now)
        if wait > 0:
            server.attempts.give_back(whose)
    if wait > 0:
        text = "Too many wrong passwords. Try again in %d seconds." % (wait + 1)
        raise ReplyError(refusal.numeric, text)
    account = server.records.log_in(name, password)
    if account is None:
        # Some type their password in the place of the name: that is not for the log.
        known = server.records.account(name)
        log.warning("%s: wrong password for %s", client.name, known.name if known else "no account")
        raise refusal
    server.attempts.give_back(whose)
    server.guesses.give_back(address)
    return account


def _log_in(session: Session, account: Account) -> Iterator[Reply]:
    """Make the client the account's: it gets that name, if it talks already or has asked for it."""
    client, modes = session.client, session.client.modes
    session.directory.log_in(client, account)
    log.info("%s logged in as %s", client.name, account.name)
    has_asked = _owns(client, client.nickname) or _owns(client, session.taken)
    if client.registered or client.caps & PLAIN_TEXT or has_asked:
        _claim(session, account.name, is_owner=True)
    if client.registered:
        _tell_modes(session, modes)
    source = client.source if client.nickname else "*!%s@%s" % (client.username, client.host)
    yield "900", source, account.name, "You are now logged in as %s" % account.name
    if account.is_operator and client.registered:
        yield "381", "You are now an operator"
    session.server.sanctions.apply(client)
    if client.registered:
        _tell_what_waited(session)


def _review(session: Session) -> None:
    """See that the client has no more than its account gives: other processes change accounts."""
    client, modes = session.client, session.client.modes
    if not client.account:
        return
    account = session.server.records.account(client.account)
    with session.aside():
        if account is None or account.number != client.owned_since:
            session.directory.log_in(client, None)
            session.reply("901", client.source, "You are now logged out")
        elif client.is_operator and not account.is_operator:
            session.directory.become(client, modes=modes - {"o"})
        _tell_modes(session, modes)


def on_register(session: Session, message: Message) -> Iterator[Reply]:
    """https://ircv3.net/specs/extensions/account-registration"""
    client, records = session.client, session.server.records
    name, _, password = message.params[:3]
    name = client.nickname if name == "*" else name

    def fail(code: str, text: str) -> ReplyError:
        return ReplyError("FAIL", "REGISTER", code, name or "*", text)

    if not records.has_accounts:
        raise fail("TEMPORARILY_UNAVAILABLE", NO_ACCOUNTS)
    if not client.registered:
        raise fail("COMPLETE_CONNECTION_REQUIRED", "Choose a username first.")
    if client.account:
        raise fail("ALREADY_AUTHENTICATED", "You are logged in already.")
    if protocol.casefold(name) != client.key:
        raise fail("ACCOUNT_NAME_MUST_BE_NICK", "You can register the name that you have.")
    fault = protocol.password_fault(password)
    if fault:
        raise fail("WEAK_PASSWORD", fault)
    if session.server.foundings.wait(client.ip, time.monotonic()) > 0:
        raise fail("TEMPORARILY_UNAVAILABLE", "Too many at once. Try again in a minute.")
    try:
        account = records.add_account(client.nickname, password)
    except AccountExistsError as error:
        raise fail("ACCOUNT_EXISTS", str(error)) from None
    log.info("%s registered the account %s", client.name, account.name)
    text = "%s is yours alone now. Next time, type /login %s PASSWORD" % (name, name)
    yield "REGISTER", "SUCCESS", account.name, text
    yield from _log_in(session, account)


def on_oper(session: Session, message: Message) -> Iterator[Reply]:
    """Modern IRC, OPER message: the name and password of an operator's account."""
    refusal = ReplyError("464", "Password incorrect")
    account = _check_password(session, message.params[0], message.params[1], refusal)
    if not account.is_operator:
        raise ReplyError("491", "%s is not an operator's account" % account.name)
    yield from _log_in(session, account)


def _tell_what_waited(session: Session) -> None:
    """Private messages that came for an account while its owner was away from the network."""
    client, history = session.client, session.server.history
    is_owner = client.account and _owns(client, client.nickname)
    if history is None or not is_owner or client.end:
        return
    owner = protocol.casefold(client.account)
    session.delivery.sync()  # what was left a moment ago is among it
    rows = history.take_waiting(owner)
    if rows:
        session.say("While you were away:")
        day = ""
        for row in rows:
            day = _repeat(session, row, day)
        session.say("Now:")
        session.delivery.sync()
        session.delivery.sync()  # what had its turn before it has been sent
        if not client.closed:
            history.forget_waiting(owner, rows[-1][0])


# Talking


def on_text(session: Session, message: Message) -> None:
    """Modern IRC, PRIVMSG message and NOTICE message; TAGMSG, of message-tags."""
    params = message.params
    session.client.spoke = time.time()
    if message.command != "TAGMSG" and (len(params) < 2 or not params[1]):
        raise ReplyError("412", "No text to send")
    tags = message.tags
    if tags:
        tags = {key: value for key, value in tags.items() if key.startswith("+")}
    for target in _targets(params[0], "PRIVMSG"):
        _say(session, Message(message.command, (target, *params[1:2]), "", tags))


def _say(session: Session, message: Message) -> None:
    try:
        away = session.directory.tell(session.client, message)
    except ReplyError as refusal:
        if message.command == "NOTICE" or (refusal.numeric == "401" and _leave(session, message)):
            return
        session.refuse(refusal)
    else:
        if away and message.command == "PRIVMSG":
            session.reply("301", message.params[0], away)


def _leave(session: Session, message: Message) -> bool:
    """Keep a private text for somebody who is not here; False where nobody has such an account."""
    history, target = session.server.history, message.params[0]
    account = session.server.records.account(target) if history is not None else None
    if account is None or history is None or history.fault or message.command != "PRIVMSG":
        return False
    if history.waiting_count(protocol.casefold(account.name)) >= MAX_WAITING:
        text = "%s is offline, and no more can be kept for their return" % account.name
        session.reply("FAIL", "PRIVMSG", "MAILBOX_FULL", account.name, text)
    elif session.directory.leave_word(session.client, message, account.name):
        text = "%s is offline; it will be delivered" % account.name
        session.note("PRIVMSG", "OFFLINE", account.name, text)
    else:
        _say(session, message)
    return True


def _mute_fault(client: Client) -> str:
    """Why it may not speak now; "" where it may."""
    left = client.muted_until - time.time()
    if left <= 0:
        return ""
    how_long = "" if left == float("inf") else " for " + protocol.format_duration(int(left) + 1)
    return "An operator has muted you%s. You can read on." % how_long


def _last_words(session: Session, text: str) -> str:
    """What others hear of why somebody leaves: of one who is muted, nothing."""
    return "" if _mute_fault(session.client) else text


def on_away(session: Session, message: Message) -> Iterator[Reply]:
    """Modern IRC, AWAY message"""
    away = protocol.clean(message.text, MAX_REASON)
    session.directory.become(session.client, away=away)
    if away:
        yield "306", "You have been marked as being away"
    else:
        yield "305", "You are no longer marked as being away"


def on_silence(session: Session, message: Message) -> Iterator[Reply]:
    """SILENCE +MASK, -MASK, or none for the list: whom one does not want to hear."""
    client, word = session.client, message.param(0)
    name = word.lstrip("+-")
    if not name:
        for mask in list(client.ignores):
            yield "271", mask, "is silenced"
        yield "272", "End of silence list"
        return
    mask = protocol.as_mask(name)
    adding = not word.startswith("-")
    if adding and len(client.ignores) >= MAX_WATCHES:
        raise ReplyError("511", mask, "Your silence list is full")
    session.directory.ignore(client, mask, adding)
    session.charge(session.directory.counts()[0] // LOOKS_A_LINE)
    text = "You do not hear %s any more" if adding else "You hear %s again"
    session.note("SILENCE", "DONE", text % protocol.bare_mask(mask))


# Rooms


def _targets(names: str, verb: str) -> List[str]:
    """The names of `a,b,c`. Raises ReplyError 407 for more than TARGETS allows."""
    targets = names.split(",")
    most = TARGETS[verb]
    if len(targets) > most:
        raise ReplyError("407", protocol.cut(names, 200), "Too many targets: %d at most" % most)
    return targets


def _for_each(session: Session, names: str, verb: str, act: Callable[[str], None]) -> None:
    """Act on each of `a,b,c`; one that is refused does not keep the others from it.

    Raises ReplyError 407 for more than TARGETS allows, before any is acted on.
    """
    each = _targets(names, verb)
    session.charge(LINES_A_TOKEN * (len(each) - 1))  # as if each had come on its own
    for name in each:
        try:
            act(name)
        except ReplyError as refusal:
            session.refuse(refusal)


def on_join(session: Session, message: Message) -> None:
    """Modern IRC, JOIN message; "0" leaves every room."""
    client, directory = session.client, session.directory
    keys = dict(zip(message.params[0].split(","), message.param(1).split(",")))

    def join(given: str) -> None:
        name = protocol.normalize(given)
        fault = protocol.room_fault(name)
        if fault:
            raise ReplyError("403", name, fault)
        event = directory.join(client, name, keys.get(given, ""))
        if event is not None:
            session.charge(len(event.audience) // LOOKS_A_LINE)  # who is there is told
            recall(session, event, name)

    if message.params[0] == "0":
        for room in directory.rooms(of=client):
            with contextlib.suppress(ReplyError):  # somebody was faster, and put it out
                directory.part(client, room.name, "")
    elif message.params[0]:  # irssi sends an empty one, and expects no answer
        _for_each(session, message.params[0], "JOIN", join)


def on_part(session: Session, message: Message) -> None:
    """Modern IRC, PART message"""
    reason = _last_words(session, message.param(1))
    part = session.directory.part
    _for_each(session, message.params[0], "PART", lambda name: part(session.client, name, reason))


def on_kick(session: Session, message: Message) -> None:
    """Modern IRC, KICK message: several people of one room, or one of each of several."""
    rooms = message.params[0].split(",")
    places = itertools.cycle(rooms) if len(rooms) == 1 else iter(rooms)
    client, reason = session.client, message.param(2)[:MAX_REASON]

    def kick(nickname: str) -> None:
        room = next(places, "")
        session.directory.kick(client, room, nickname, reason)
        if client.is_operator:
            why = protocol.clean(reason)
            log.warning("%s: removed %s from %s: %s", client.name, nickname, room, why)

    _for_each(session, message.params[1], "KICK", kick)


def on_invite(session: Session, message: Message) -> Iterator[Reply]:
    """Modern IRC, INVITE message; without parameters, the list of one's invitations."""
    if not message.params:
        for name in session.directory.invitations(session.client):
            yield "336", name
        yield "337", "End of /INVITE list"
        return
    if len(message.params) < 2:
        raise ReplyError("461", "INVITE", "Not enough parameters")
    nickname, name = message.params[:2]
    other = session.directory.invite(session.client, nickname, name)
    yield "341", other.nickname, name
    if other.away:
        yield "301", other.nickname, other.away


def on_topic(session: Session, message: Message) -> Iterator[Reply]:
    """Modern IRC, TOPIC message"""
    name = message.params[0]
    if len(message.params) > 1:
        topic = message.params[1][: protocol.MAX_TOPIC]
        session.directory.set_topic(session.client, name, topic)
        session.server.keep_room(name)
        return
    room = _seen_room(session, name)
    if not room.topic:
        yield "331", room.name, "No topic is set"
    for reply in topic_replies(room):
        yield (reply.command, *reply.params)


def _seen_room(session: Session, name: str) -> Room:
    room = session.directory.room(name, session.client)
    if room is None:
        raise ReplyError("403", name, "No such channel")
    return room


def on_names(session: Session, message: Message) -> None:
    """Modern IRC, NAMES message"""
    names = message.param(0) or "*"

    def tell(name: str) -> None:
        session.charge(session.directory.names(session.client, name))

    _for_each(session, names, "NAMES", tell)


def on_list(session: Session, message: Message) -> Iterator[Reply]:
    """Modern IRC, LIST message: names, conditions of ELIST, or both"""
    wanted = protocol.parse_elist(",".join(message.params))
    now = time.time()
    rooms = session.directory.rooms(session.client)
    session.charge(len(rooms) // LOOKS_A_LINE)
    yield "321", "Channel", "Users  Name"
    for room in rooms:
        topic_at = room.topic_at if room.topic else 0.0
        facts = (room.name, room.size, room.created, topic_at, now)
        if wanted is None or wanted.accepts(*facts):
            yield "322", room.name, str(room.size), room.topic
    yield "323", "End of /LIST"


def on_mode(session: Session, message: Message) -> Optional[Iterator[Reply]]:
    """Modern IRC, MODE message"""
    target, *params = message.params
    if not target.startswith("#"):
        return _user_modes(session, target, "".join(params[:1]))
    return _room_modes(session, target, params)


def _room_modes(session: Session, name: str, params: List[str]) -> Iterator[Reply]:
    room = _seen_room(session, name)
    if not params:
        is_inside = session.client in room.members or session.client.is_operator
        yield ("324", room.name, *room.modes(is_inside))
        yield "329", room.name, str(int(room.created))
        return
    changes = protocol.parse_modes(params)
    for change in list(changes):
        if change.letter == "b" and not change.arg:
            changes.remove(change)
            for mask, (by, at) in room.bans.items():
                yield "367", room.name, mask, by, str(at)
            yield "368", room.name, "End of channel ban list"
    if changes:
        for refusal in session.directory.change_modes(session.client, name, changes):
            yield (refusal.numeric, *refusal.params)
        session.server.keep_room(name)


def _user_modes(session: Session, nickname: str, change: str) -> Iterator[Reply]:
    client = session.client
    if session.directory.get(nickname) is not client:
        raise ReplyError("502", "Cannot change the modes of others")
    if not change:
        yield "221", "+" + "".join(sorted(client.modes))
        return
    old, modes, adding = client.modes, set(client.modes), True
    for letter in change:
        if letter in "+-":
            adding = letter == "+"
        elif letter not in USER_MODES:
            yield "501", "Unknown mode %s" % letter
        elif not adding:
            modes.discard(letter)
        elif letter != "o":  # that takes a password: OPER
            modes.add(letter)
    session.directory.become(client, modes=modes)
    _tell_modes(session, old)


def _tell_modes(session: Session, old: Set[str]) -> None:
    """Tell the client what has become of its modes."""
    client = session.client
    changes = [ModeChange(False, letter, "") for letter in sorted(old - client.modes)]
    changes += [ModeChange(True, letter, "") for letter in sorted(client.modes - old)]
    if changes:
        params = (client.nickname, *protocol.format_modes(changes))
        session.tell(Message("MODE", params, client.source))


# Asking about people


def on_who(session: Session, message: Message) -> Iterator[Reply]:
    """Modern IRC, WHO message, and WHOX (https://ircv3.net/specs/extensions/whox)"""
    mask, *options = message.params or ("*",)
    client, directory = session.client, session.directory
    fields, token = protocol.parse_whox("".join(options[:1]))
    room = directory.room(mask, client) if mask.startswith("#") else None
    if room is not None:
        is_inside = client in room.members or client.is_operator
        found = [other for other in room.members if is_inside or "i" not in other.modes]
    elif mask.startswith("#"):
        found = []
    else:
        peers, everyone = directory.peers(client), directory.everyone()
        masks = protocol.Masks([mask])
        found = [
            other
            for other in everyone
            if (mask in ("*", "0") or _is_meant(masks, other))
            and ("i" not in other.modes or other in peers or _is_exact(mask, other))
        ]
        session.charge(len(everyone) // LOOKS_A_LINE)
    if options and options[0].startswith("o"):
        found = [other for other in found if other.is_operator]
    for other in found:
        if room is not None:
            place: Optional[Tuple[str, int]] = (room.name, room.members[other])
        else:
            place = directory.shared(client, other)
        values = _who_values(session, place, other, token)
        if fields:
            yield ("354", *protocol.whox_params(fields, values))
        else:
            text = "%s %s" % (values["d"], values["r"])
            yield ("352", *(values[field] for field in "cuhsnf"), text)
    yield "315", mask, "End of WHO list"


def _is_exact(mask: str, other: Client) -> bool:
    return protocol.casefold(mask) == other.key


def _is_meant(masks: protocol.Masks, other: Client) -> bool:
    texts = (other.nickname, other.username, other.host, other.realname, other.account)
    return any(map(masks.match, texts))


def _who_values(
    session: Session, place: Optional[Tuple[str, int]], other: Client, token: str
) -> Dict[str, str]:
    name, bits = place or ("*", 0)
    flags = "G" if other.away else "H"
    flags += "*" if other.is_operator else ""
    flags += _prefix(session.client, bits)
    flags += "B" if "B" in other.modes else ""
    return {
        "t": token or "0", "c": name, "u": other.username,
        "i": other.host, "h": other.host, "s": session.options.server_name, "n": other.nickname,
        "f": flags, "d": "0", "l": str(int(time.time() - other.spoke)),
        "a": other.account or "0", "o": "1" if bits & OPERATOR else "n/a", "r": other.realname,
    }  # fmt: skip


def on_whois(session: Session, message: Message) -> Iterator[Reply]:
    """Modern IRC, WHOIS message"""
    nickname = message.text
    client = session.directory.find(nickname)
    if client is None:
        yield "401", nickname, "No such nick"
    else:
        rooms = session.directory.rooms(session.client, of=client)
        name, now = client.nickname, time.time()
        yield "311", name, client.username, client.host, "*", client.realname
        words = (_prefix(session.client, room.bits) + room.name for room in rooms)
        for text in protocol.pack(words, " ", NAMES_SIZE):
            yield "319", name, text
        yield "312", name, session.options.server_name, session.options.network
        if client.is_operator:
            yield "313", name, "is an operator"
        if client.account:
            yield "330", name, client.account, "is logged in as"
        if "B" in client.modes:
            yield "335", name, "is a bot"
        if client.away:
            yield "301", name, client.away
        times = str(int(now - client.spoke)), str(int(client.signed_on))
        yield ("317", name, *times, "seconds idle, signon time")
    yield "318", nickname, "End of /WHOIS list"


def on_whowas(session: Session, message: Message) -> Iterator[Reply]:
    """Modern IRC, WHOWAS message"""
    nickname = message.params[0]
    count = message.param(1)
    found = session.directory.past(nickname)
    if count.isdecimal() and int(count[:9]):
        found = found[: int(count[:9])]
    for was in found:
        yield "314", was.nickname, was.username, was.host, "*", was.realname
        left = time.ctime(was.left_at)
        yield "312", was.nickname, session.options.server_name, left
    if not found:
        yield "406", nickname, "There was no such nickname"
    yield "369", nickname, "End of WHOWAS"


def on_ison(session: Session, message: Message) -> Iterator[Reply]:
    """RFC 2812, 4.9"""
    asked = [name for param in message.params for name in param.split()]
    found = session.directory.find_all(asked[:MAX_WATCHES])
    yield ("303", " ".join(client.nickname for client in found))


def on_userhost(session: Session, message: Message) -> Iterator[Reply]:
    """Modern IRC, USERHOST message: five names at most"""
    found = session.directory.find_all(message.params[:5])
    words = (
        "%s%s=%s%s@%s"
        % (c.nickname, "*" * c.is_operator, "-" if c.away else "+", c.username, c.host)
        for c in found
    )
    yield ("302", " ".join(words))


def on_monitor(session: Session, message: Message) -> Iterator[Reply]:
    """https://ircv3.net/specs/extensions/monitor"""
    client, directory = session.client, session.directory
    verb = message.params[0].upper()
    names = [name for name in message.param(1).split(",") if name]
    if verb == "+":
        added: List[str] = []
        for i, name in enumerate(names):
            if not protocol.is_nickname(name):
                continue
            if len(client.watches) >= MAX_WATCHES and protocol.casefold(name) not in client.watches:
                for text in protocol.pack(names[i:], ",", 100):
                    yield "734", str(MAX_WATCHES), text, "Monitor list is full."
                break
            directory.watch(client, name)
            added.append(name)
        yield from _presence(session, added)
    elif verb == "-":
        directory.unwatch(client, names)
    elif verb == "C":
        directory.unwatch(client, list(client.watches))
    elif verb == "L":
        for text in protocol.pack(list(client.watches.values()), ",", 350):
            yield "732", text
        yield "733", "End of MONITOR list"
    elif verb == "S":
        yield from _presence(session, list(client.watches.values()))


def _presence(session: Session, names: List[str]) -> Iterator[Reply]:
    found = {client.key: client for client in session.directory.find_all(names)}
    here = (client.source for client in found.values())
    gone = (name for name in names if protocol.casefold(name) not in found)
    for numeric, words in (("730", here), ("731", gone)):
        for text in protocol.pack(words, ",", 350):
            yield numeric, text


def on_setname(session: Session, message: Message) -> None:
    """https://ircv3.net/specs/extensions/setname; a colon forgotten costs no word."""
    realname = protocol.clean(" ".join(message.params), MAX_REALNAME + 1)
    if not realname or len(realname) > MAX_REALNAME:
        text = "A real name has 1 to %d characters." % MAX_REALNAME
        raise ReplyError("FAIL", "SETNAME", "INVALID_REALNAME", text)
    session.directory.become(session.client, realname=realname)


# The history, read again


def recall(session: Session, joined: Event, name: str) -> None:
    """Tell a client that cannot ask what was said last in a room, before it joined.

    Who was there before has it on the screen up to when it left: it is told of the rest.
    """
    history = session.server.history
    if history is not None and not session.client.caps & CHATHISTORY:
        session.delivery.sync()
        key = protocol.casefold(name)
        left = session.directory.left(session.client, name)
        rows = history.read(key, left, joined.number or END, RECALLED, latest=True)
        if rows:
            replay(session, name, rows)


def replay(session: Session, target: str, rows: List[Row]) -> None:
    """Repeat what was said earlier, marked so: by its time, in a batch, or in words."""
    session.charge(len(rows))
    caps = session.client.caps
    if caps & SERVER_TIME or (caps & BATCH and caps & CHATHISTORY):
        with session.batch("chathistory", target) as reference:
            for number, _, _, line, _ in rows:
                tags: Tags = ((BATCH, "batch", reference),)
                message = protocol.parse(line)
                session.delivery.post(Event(message, (session.client,), None, (), number, tags))
        return
    with session.labeled_batch():
        session.say("Earlier in %s:" % target if rows else "Nothing was said earlier.")
        day = ""
        for row in rows:
            day = _repeat(session, row, day)
        if rows:
            session.say("Now:")


def _repeat(session: Session, row: Row, day: str) -> str:
    """Repeat one message, after the name of its day where that is not `day`; its day."""
    client, number = session.client, row[0]
    message, when = protocol.parse(row[3]), row[0] / 1e6
    if client.caps & SERVER_TIME:
        session.delivery.post(Event(message, (client,), None, (), number))
        return day
    line = protocol.describe_in(message, client.nickname, when, session.options.lobby)
    date = time.strftime("%A, %d %B %Y", time.localtime(when))
    if line and date != day:
        session.say(date)
    if line and client.caps & PLAIN_TEXT:
        session.delivery.post(Event((str(line) + "\r\n").encode("utf-8"), (client,)))
    elif line:
        session.say(str(line))
    return date


def on_chathistory(session: Session, message: Message) -> None:
    """https://ircv3.net/specs/extensions/chathistory"""

    def fail(code: str, *context: str) -> ReplyError:
        return ReplyError("FAIL", "CHATHISTORY", code, message.params[0], *context)

    history = session.server.history
    if history is None:
        raise fail("MESSAGE_ERROR", "This server keeps no history")
    try:
        query = protocol.parse_chathistory(message.params)
    except protocol.ProtocolError as error:
        raise fail("INVALID_PARAMS", str(error)) from None
    query = query._replace(limit=min(query.limit, MAX_HISTORY))
    session.delivery.sync()  # what this client has just said is part of it
    if query.verb == "TARGETS":
        _replay_targets(session, history, query)
        return
    place = session.directory.history_key(session.client, query.target)
    if place is None:
        fault = "You are not in %s, or it is not there" % query.target
        raise fail("INVALID_TARGET", query.target, fault)
    name, key, since = place
    is_full = bool(session.client.caps & PLAYBACK)
    read = functools.partial(history.read, key, more=is_full)
    replay(session, name, _rows_of(query, since, read))


def _rows_of(
    query: protocol.HistoryQuery, since: int, read: Callable[..., List[Row]]
) -> List[Row]:
    """What it asks for of a conversation, of which one may read what came after `since`."""
    verb, _, points, limit = query
    before, after = points[0]
    if verb == "LATEST":
        return read(max(since, after), END, limit, latest=True)
    if verb == "BEFORE":
        return read(since, before, limit, latest=True)
    if verb == "AFTER":
        return read(max(since, after), END, limit, latest=False)
    if verb == "AROUND":
        rows = read(since, before, limit // 2, latest=True)
        rest = limit - len(rows)
        return rows + read(max(since, before - 1), END, rest, latest=False)
    low, high = sorted(points)
    return read(max(since, low[1]), high[0], limit, latest=points[0] > points[1])


def _replay_targets(session: Session, history: History, query: protocol.HistoryQuery) -> None:
    """TARGETS: where the last was said between two points, and when; counted from the first."""
    client, name = session.client, session.options.server_name
    _, _, points, limit = query
    after, before = min(points)[1], max(points)[0]
    found = history.conversations(client.nickname, max(after, client.named_since), before)
    for room in session.directory.rooms(of=client):
        last = history.read(room.key, after, END, 1, latest=True)
        found += [(room.name, row[0]) for row in last if row[0] < before]
    found.sort(key=lambda pair: pair[1], reverse=points[0] > points[1])
    with session.batch("draft/chathistory-targets") as reference:
        for target, number in sorted(found[:limit], key=lambda pair: pair[1]):
            params = ("TARGETS", target, protocol.format_time(number / 1e6))
            message = Message("CHATHISTORY", params, name)
            tags: Tags = ((BATCH, "batch", reference),)
            session.delivery.post(Event(message, (client,), None, tags=tags))


# Moderation: what operators do, for the whole server


def on_sanction(session: Session, message: Message) -> None:
    """BAN or MUTE target duration :reason: by name, account, address or network."""
    client, kind = session.client, message.command.lower()
    target, duration, reason = message.params[:3] + ("", "*", "")[len(message.params) :]
    try:
        seconds = protocol.parse_duration(duration)
    except ValueError:
        text = "A duration is a number and a unit: 90s, 10m, 2h, 3d, 1w; * is for ever."
        raise ReplyError("FAIL", message.command, "INVALID_DURATION", text) from None
    if not protocol.is_target(target):
        text = "A %s is for a name, an address or a network." % kind
        raise ReplyError("FAIL", message.command, "INVALID_TARGET", text)
    if kind == "ban" and protocol.sanction_matches(target, [client.key], client.ip):
        raise ReplyError("FAIL", message.command, "INVALID_TARGET", "That would ban yourself.")
    now = time.time()
    until = now + seconds if seconds else 0.0
    reason = protocol.clean(reason, MAX_REASON)
    sanction = Sanction(kind, protocol.sanction_target(target), until, reason, client.nickname, now)
    session.server.sanctions.add(sanction)
    session.server.end_banned()
    how_long = protocol.format_duration(seconds)
    done = "banned" if kind == "ban" else "muted"
    text = "%s is %s (%s)." % (sanction.target, done, how_long)
    log.warning("%s: %s %s (%s): %s", client.name, done, sanction.target, how_long, reason)
    session.note(message.command, "DONE", sanction.target, text)


def on_unban(session: Session, message: Message) -> None:
    """UNBAN target: lift its bans and mutes."""
    target = message.params[0]
    if not session.server.sanctions.remove(target):
        fault = "%s is neither banned nor muted. /bans shows who is." % target
        raise ReplyError("FAIL", "UNBAN", "INVALID_TARGET", target, fault)
    log.warning("%s: lifted what was against %s", session.client.name, target)
    session.note("UNBAN", "DONE", target, "%s may come in and speak again." % target)


def on_bans(session: Session, message: Message) -> Iterator[Reply]:
    """BANS: who is banned or muted."""
    now, name = time.time(), session.client.nickname
    held = session.server.sanctions.all()
    for sanction in held:
        done = "banned" if sanction.kind == "ban" else "muted"
        left = protocol.format_duration(int(sanction.until - now) + 1) if sanction.until else ""
        how_long = " for " + left if left else ""
        form = "%s is %s%s, by %s%s"
        reason = ": " + sanction.reason if sanction.reason else ""
        yield "NOTICE", name, form % (sanction.target, done, how_long, sanction.by, reason)
    if not held:
        yield "NOTICE", name, "Nobody is banned or muted."


def on_announce(session: Session, message: Message) -> None:
    """ANNOUNCE :text, to everyone in every room"""
    client, name = session.client, session.options.server_name
    text = "Announcement by %s: %s" % (client.nickname, message.text)
    log.warning("%s: announced something", client.name)
    for other in session.directory.everyone():
        session.delivery.post(Event(Message("NOTICE", (other.nickname, text), name), (other,)))


def on_wallops(session: Session, message: Message) -> None:
    """Modern IRC, WALLOPS message: to those with the mode w"""
    client = session.client
    audience = tuple(other for other in session.directory.everyone() if "w" in other.modes)
    session.delivery.post(
        Event(Message("WALLOPS", (message.text,), client.source), audience, client)
    )


def on_kill(session: Session, message: Message) -> None:
    """Modern IRC, KILL message"""
    nickname, reason = message.params[0], protocol.clean(message.text, MAX_REASON)
    other = session.directory.get(nickname)
    log.warning("%s: removed %s: %s", session.client.name, other.name, reason)
    kill = Message("KILL", (other.nickname, reason), session.client.source)
    session.delivery.post(Event(kill, (other,)))
    other.end = other.end or "Killed by %s: %s" % (session.client.nickname, reason)
    session.server.end(other)


def on_chghost(session: Session, message: Message) -> None:
    """CHGHOST nickname host: have others see another host than somebody's address."""
    nickname, host = message.params[:2]
    other = session.directory.get(nickname)
    if not protocol.is_host(host):
        raise ReplyError("FAIL", "CHGHOST", "INVALID_HOST", "%s is not a host's name" % host)
    log.warning("%s: %s has the host %s", session.client.name, other.name, host)
    session.directory.become(other, host=host)
    session.note("CHGHOST", "DONE", "%s has the host %s" % (other.nickname, host))


# The server and the connection


def on_lusers(session: Session, message: Optional[Message] = None) -> Iterator[Reply]:
    """Modern IRC, LUSERS message"""
    people, invisible, operators, unknown, rooms = session.directory.counts()
    most = max(session.directory.most, people)
    visible = people - invisible
    yield "251", "There are %d users and %d invisible on 1 servers" % (visible, invisible)
    yield "252", str(operators), "operator(s) online"
    yield "253", str(unknown), "unknown connection(s)"
    yield "254", str(rooms), "channels formed"
    yield "255", "I have %d clients and 0 servers" % people
    for numeric, where in (("265", "local"), ("266", "global")):
        text = "Current %s users %d, max %d" % (where, people, most)
        yield numeric, str(people), str(most), text


def on_motd(session: Session, message: Optional[Message] = None) -> Iterator[Reply]:
    """Modern IRC, MOTD message"""
    if not session.options.motd:
        yield "422", "There is no message of the day"
        return
    yield "375", "- %s Message of the day -" % session.options.server_name
    for line in session.options.motd:
        yield "372", line
    yield "376", "End of /MOTD command"


def on_version(session: Session, message: Message) -> Iterator[Reply]:
    """Modern IRC, VERSION message"""
    yield "351", "hubbub-" + VERSION, session.options.server_name, session.options.network
    for tokens in protocol.isupport(_isupport(session)):
        yield ("005", *tokens, "are supported by this server")


def on_time(session: Session, message: Message) -> Iterator[Reply]:
    """Modern IRC, TIME message"""
    yield ("391", session.options.server_name, time.strftime("%A, %d %B %Y, %H:%M:%S %z"))


def on_info(session: Session, message: Message) -> Iterator[Reply]:
    """Modern IRC, INFO message"""
    yield "371", "Hubbub %s: chat for a local network" % VERSION
    yield "371", "Up since %s" % time.ctime(session.server.started)
    yield "374", "End of INFO list"


def on_admin(session: Session, message: Message) -> Iterator[Reply]:
    """Modern IRC, ADMIN message"""
    yield "256", session.options.server_name, "Administrative info"
    yield "257", "This is %s." % session.options.network
    yield "258", "Whoever started the server looks after it."
    yield "259", "Ask an operator: /who * o shows those who are here."


def on_links(session: Session, message: Message) -> Iterator[Reply]:
    """Modern IRC, LINKS message: this server has none."""
    name = session.options.server_name
    yield "364", name, name, "0 %s" % session.options.network
    yield "365", "*", "End of /LINKS list"


def on_help(session: Session, message: Message) -> Iterator[Reply]:
    """Modern IRC, HELP message: what there is, from the table."""
    subject = message.param(0).upper() or "*"
    if subject == "*":
        yield "704", subject, "The commands of this server:"
        for text in protocol.pack(sorted(COMMANDS), " ", 300):
            yield "705", subject, text
    elif subject in COMMANDS:
        row = COMMANDS[subject]
        yield "704", subject, ("%s %s" % (subject, row.usage)).rstrip()
        yield "705", subject, row.help + (" For operators." if row.rules & BY_OPERATORS else "")
    else:
        raise ReplyError("524", subject, "No help available on this topic")
    yield "706", subject, "End of /HELP"


def on_stats(session: Session, message: Message) -> Iterator[Reply]:
    """Modern IRC, STATS message: all there is, whatever letter is asked for."""
    letter = message.param(0)[:1] or "*"
    for figure in session.server.statistics().split():
        yield "249", letter, figure.replace("=", ": ")
    yield "219", letter, "End of /STATS report"


def on_ping(session: Session, message: Message) -> None:
    """Modern IRC, PING message"""
    session.reply("PONG", session.options.server_name, message.params[0])


def on_pong(session: Session, message: Message) -> None:
    """Modern IRC, PONG message: that it came was all there is to it."""


def on_quit(session: Session, message: Message) -> None:
    """Modern IRC, QUIT message"""
    reason = _last_words(session, message.text)
    raise Ended("Quit: %s" % reason if reason else "Quit", "Goodbye.")


class Command(NamedTuple):
    """A row of the table: what runs, what is checked before it does, and what HELP says of it.

    A handler gives its replies, and refuses by raising ReplyError.
    """

    handler: Callable[[Session, Message], Optional[Iterator[Reply]]]
    least: int  # parameters
    rules: int  # those of EARLY and the others below that hold
    usage: str
    help: str
    heard: int = 0  # parameters with which it says something to others; 0: it never does


EARLY = 1  # allowed before registration
NOT_LATE = 2  # refused after registration
SEVERAL = 4  # more than one message may answer it, beside its replies
BY_OPERATORS = 8
BY_RANK = 16  # what it does depends on what the client's account may
OF_SERVER = 32  # the first parameter, where there is one, tells which server is asked

COMMANDS = {
    "ADMIN": Command(on_admin, 0, OF_SERVER, "[SERVER]", "Tells who looks after this server."),
    "ANNOUNCE": Command(on_announce, 1, BY_OPERATORS, ":TEXT",
                        "Tells everyone in every room something."),
    "AUTHENTICATE": Command(on_authenticate, 1, EARLY | SEVERAL, "PLAIN",
                            "Logs in to an account, as programs do it (SASL)."),
    "AWAY": Command(on_away, 0, 0, "[:REASON]",
                    "Says that you are away, and without a reason that you are back.", heard=1),
    "BAN": Command(on_sanction, 1, BY_OPERATORS, "TARGET [DURATION] [:REASON]",
                   "Keeps a name, account or address out."),
    "BANS": Command(on_bans, 0, BY_OPERATORS, "", "Shows who is banned or muted."),
    "CAP": Command(on_cap, 1, EARLY | SEVERAL, "LS|LIST|REQ|END [:NAMES]",
                   "Agrees on what a program and this server can do."),
    "CHATHISTORY": Command(on_chathistory, 1, 0, "LATEST|BEFORE|AFTER|AROUND|BETWEEN|TARGETS …",
                           "Reads what was said earlier."),
    "CHGHOST": Command(on_chghost, 2, SEVERAL | BY_OPERATORS, "NAME HOST",
                       "Has others see another host than an address."),
    "HELP": Command(on_help, 0, 0, "[COMMAND]", "Shows the commands, or how one is used."),
    "INFO": Command(on_info, 0, OF_SERVER, "[SERVER]",
                    "Tells what this server is, and since when it runs."),
    "INVITE": Command(on_invite, 0, BY_RANK, "[NAME ROOM]",
                      "Asks somebody to a room, or shows where you are asked to.", heard=2),
    "ISON": Command(on_ison, 1, 0, "NAME …", "Tells which of these people are here."),
    "JOIN": Command(on_join, 1, SEVERAL | BY_RANK, "ROOM[,ROOM] [KEY[,KEY]]",
                    "Enters rooms; JOIN 0 leaves them all."),
    "KICK": Command(on_kick, 2, BY_RANK, "ROOM NAME[,NAME] [:REASON]",
                    "Puts people out of a room that you look after.", heard=3),
    "KILL": Command(on_kill, 2, BY_OPERATORS, "NAME :REASON", "Ends somebody's connection."),
    "LINKS": Command(on_links, 0, 0, "", "Shows the servers of this network: there is one."),
    "LIST": Command(on_list, 0, 0, "[CONDITION[,CONDITION]]",
                    "Shows the rooms, or those with more than so many people."),
    "LUSERS": Command(on_lusers, 0, 0, "", "Tells how many people and rooms there are."),
    "MODE": Command(on_mode, 1, SEVERAL | BY_RANK, "ROOM|NAME [CHANGES]",
                    "Shows or changes how a room is, or how you are.", heard=3),
    "MONITOR": Command(on_monitor, 1, 0, "+|-|C|L|S [NAME[,NAME]]",
                       "Tells you when these people come and go."),
    "MOTD": Command(on_motd, 0, OF_SERVER, "[SERVER]", "Shows the message of the day."),
    "MUTE": Command(on_sanction, 1, BY_OPERATORS, "TARGET [DURATION] [:REASON]",
                    "Has somebody read, but not speak."),
    "NAMES": Command(on_names, 0, SEVERAL, "[ROOM[,ROOM]]", "Shows who is in a room."),
    "NICK": Command(on_nick, 0, EARLY | SEVERAL | BY_RANK, "NAME",
                    "Gives you a name, or another one.", heard=1),
    "NOTICE": Command(on_text, 0, 0, "NAME|ROOM :TEXT", "Says something that no program answers.",
                      heard=1),
    "OPER": Command(on_oper, 2, SEVERAL, "NAME PASSWORD",
                    "Makes you an operator, with the password of that account."),
    "PART": Command(on_part, 1, 0, "ROOM[,ROOM] [:REASON]", "Leaves rooms."),
    "PASS": Command(on_pass, 1, EARLY | NOT_LATE, "PASSWORD",
                    "Gives the password that this server may ask for, before NICK."),
    "PING": Command(on_ping, 1, EARLY, "TEXT", "Is answered with PONG: the connection works."),
    "PONG": Command(on_pong, 0, EARLY, "TEXT", "Answers a PING."),
    "PRIVMSG": Command(on_text, 1, 0, "NAME|ROOM[,…] :TEXT",
                       "Says something to people or in rooms.", heard=1),
    "QUIT": Command(on_quit, 0, EARLY, "[:REASON]", "Leaves the chat."),
    "REGISTER": Command(on_register, 3, EARLY | SEVERAL, "* * :PASSWORD",
                        "Makes your name yours alone."),
    "RESUME": Command(on_resume, 1, EARLY | NOT_LATE | SEVERAL, "TOKEN",
                      "Takes the place of a connection that was lost."),
    "SETNAME": Command(on_setname, 1, 0, ":NAME", "Changes your real name.", heard=1),
    "SILENCE": Command(on_silence, 0, 0, "[+NAME|-NAME]",
                       "Ignores somebody, hears them again, or shows whom you ignore."),
    "STATS": Command(on_stats, 0, BY_OPERATORS, "", "Shows the figures of this server."),
    "TAGMSG": Command(on_text, 1, 0, "NAME|ROOM", "Sends tags without a text, as programs do it.",
                      heard=1),
    "TIME": Command(on_time, 0, OF_SERVER, "[SERVER]", "Tells this server's time."),
    "TOPIC": Command(on_topic, 1, BY_RANK, "ROOM [:TEXT]", "Shows or changes what a room is about.",
                     heard=2),
    "UNBAN": Command(on_unban, 1, BY_OPERATORS, "TARGET", "Lifts a ban or a mute."),
    "USER": Command(on_user, 4, EARLY | NOT_LATE | SEVERAL, "NAME 0 * :REAL NAME",
                    "Says who you are, on connecting."),
    "USERHOST": Command(on_userhost, 1, 0, "NAME …", "Tells the addresses of up to five people."),
    "VERSION": Command(on_version, 0, OF_SERVER, "[SERVER]",
                       "Tells which program this is, and what it can do."),
    "WALLOPS": Command(on_wallops, 1, BY_OPERATORS, ":TEXT",
                       "Tells something to those with the mode w."),
    "WHO": Command(on_who, 0, 0, "[ROOM|NAME] [o] [%FIELDS]",
                   "Shows who is in a room, or who is like a name."),
    "WHOIS": Command(on_whois, 1, 0, "NAME", "Tells what is known of somebody."),
    "WHOWAS": Command(on_whowas, 1, 0, "NAME [COUNT]", "Tells who had a name."),
}  # fmt: skip
USER_MODES = "Biow"
# Names that one command may hold, where not one alone is meant.
TARGETS = {"JOIN": 50, "KICK": 4, "NAMES": 4, "NOTICE": 4, "PART": 50, "PRIVMSG": 4}


class Sanctions:
    """Who is banned or muted, here and in the records. Any thread may call it."""

    def __init__(self, records: Records, everyone: Callable[[], List[Client]]) -> None:
        self._records = records
        self._everyone = everyone
        self._lock = threading.Lock()  # guards the one below, which is replaced as a whole
        self._held: Tuple[Sanction, ...] = ()
        with contextlib.suppress(RecordsError):  # the log says why
            self._held = tuple(records.sanctions())

    def all(self) -> List[Sanction]:
        """Those that hold now, oldest first."""
        now = time.time()
        return [sanction for sanction in self._held if not 0 < sanction.until <= now]

    def find(self, kind: str, names: Iterable[str], address: str) -> Optional[Sanction]:
        """One of that kind that meets somebody with these folded names and this address."""
        known = tuple(names)
        for sanction in self.all():
            if sanction.kind == kind and protocol.sanction_matches(sanction.target, known, address):
                return sanction
        return None

    def apply(self, client: Client) -> None:
        """End a client that is banned (its `end` says why), and mute one that is muted."""
        names = [client.key, protocol.casefold(client.account)]
        ban = self.find("ban", names, client.ip)
        if ban is not None and not client.is_operator:
            reason = ban.reason or "no reason was given"
            client.end = client.end or "You are banned: %s." % reason.rstrip(".")
        mute = self.find("mute", names, client.ip)
        until = (mute.until or float("inf")) if mute is not None else 0.0
        client.muted_until = 0.0 if client.is_operator else until

    def add(self, sanction: Sanction) -> None:
        """In place of one of its kind and target. Raises RecordsError, and nothing has changed."""
        with self._lock:
            self._records.add_sanction(sanction)
            rest = (s for s in self.all() if s[:2] != sanction[:2])
            self._held = (*rest, sanction)
        self._apply_to_all()

    def remove(self, target: str) -> int:
        """How many there were. Raises RecordsError, and nothing has changed."""
        target = protocol.sanction_target(target)
        with self._lock:
            self._records.remove_sanctions(target)
            held = self.all()
            self._held = tuple(sanction for sanction in held if sanction.target != target)
            count = len(held) - len(self._held)
        self._apply_to_all()
        return count

    def _apply_to_all(self) -> None:
        for client in self._everyone():
            self.apply(client)


# The server


class Server:
    """Listens as soon as it is made (OSError where it cannot); `run` serves until `stop`."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.started = time.time()
        self._listener = _listen(options.host, options.port)
        self.port: int = self._listener.getsockname()[1]
        try:
            self._database = Database(options.data, PATIENCE)
        except FolderTakenError:
            self._listener.close()
            raise
        self.records = Records(self._database)
        self.history: Optional[History] = None
        if options.data:
            self.history = History(self._database, options.history_days, self._on_history)
        self.delivery = Delivery(options.max_sendq, self.history, options.lobby)
        self.directory = Directory(self.delivery.post, options.server_name, options.lobby)
        self.sanctions = Sanctions(self.records, self.directory.everyone)
        self.attempts = Attempts()  # by address and account
        self.guesses = Attempts(GUESSES_AT_ONCE, GUESS_INTERVAL)
        self.foundings = Attempts(FOUNDINGS_AT_ONCE, FOUNDING_INTERVAL)
        self._keeping_lock = threading.Lock()  # so that what is kept last is the latest
        self._restore_rooms()
        self._threads_lock = threading.Lock()  # guards the two below
        self._threads: Dict[Client, threading.Thread] = {}
        self._per_address: Dict[str, int] = collections.defaultdict(int)
        self._stopping = False
        self._reporting = False
        self._is_out = False  # of descriptors
        self._spare = socket.socket()  # one descriptor to turn people away with
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)

    def _restore_rooms(self) -> None:
        with contextlib.suppress(RecordsError):  # the log says why
            accounts = self.records.accounts()
            owners = {protocol.casefold(account.name): account.number for account in accounts}
            for state in self.records.rooms():
                try:
                    self.directory.restore(state, owners)
                except (KeyError, TypeError, ValueError) as error:
                    log.warning("cannot use what was kept of a room: %r", error)

    def keep_room(self, name: str) -> None:
        """Have the records know what a room is now: after each change of its topic or modes."""
        self.delivery.sync()  # an earlier one of that name is forgotten before
        with self._keeping_lock:
            room = self.directory.room(name)
            try:
                if room is not None and room.is_kept:
                    self.records.save_room(room.key, room.state())
                else:
                    self.records.forget_room(protocol.casefold(name))
            except RecordsError as error:
                log.error("what %s is like will not outlive the server: %s", name, error)

    def offered_capabilities(self) -> Dict[str, str]:
        """Each capability, and what is said of it to clients of version 302."""
        offered = dict.fromkeys(CAPABILITIES, "")
        offered["sasl"] = "=PLAIN"
        if self.history is None:
            del offered["draft/chathistory"], offered["draft/event-playback"]
        if not self.records.has_accounts:
            del offered["draft/account-registration"], offered["sasl"]
        return offered

    def end(self, client: Client) -> None:
        """End somebody else's connection, whose `end` tells them why. Any thread may call it."""
        self.delivery.post(Event(Message("ERROR", (client.end,)), (client,)))
        self.delivery.post(Ending(client, SEVER))
        self.delivery.wake()

    def end_banned(self) -> None:
        """End those who are here, and are banned now."""
        for client in self.directory.everyone():
            if client.end:
                self.end(client)

    def fileno(self) -> int:
        """A descriptor to which a written byte ends `run`: for signal.set_wakeup_fd."""
        return self._waker.fileno()

    def stop(self) -> None:
        """End `run`. Any thread or signal handler may call it, more than once."""
        self._stopping = True
        with contextlib.suppress(OSError):  # full, or closed already: `run` knows
            self._waker.send(b"!")

    def report(self) -> None:
        """Have the statistics logged. Any thread or signal handler may call it."""
        self._reporting = True
        with contextlib.suppress(OSError):
            self._waker.send(b"!")

    def statistics(self) -> str:
        """What is in the log at SIGUSR1 and at the end."""
        with self._threads_lock:
            count = len(self._threads)
        size = self._database.size()
        figures = {
            "connections": count,
            "clients": len(self.directory.everyone()),
            "rooms": len(self.directory.rooms()),
            "events": self.delivery.count,
            "waiting": self.delivery.waiting,
            "threads": threading.active_count(),
            "memory_mib": _memory() >> 20,
            "history_mib": size >> 20,
            "uptime_s": int(time.time() - self.started),
        }
        return " ".join("%s=%d" % pair for pair in figures.items())

    def run(self) -> None:
        """Serve until `stop`, then tell everyone, close everything and return."""
        self.delivery.start()
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._listener, selectors.EVENT_READ, self._accept)
                selector.register(self._woken, selectors.EVENT_READ)
                while not self._stopping:
                    for key, _ in selector.select():
                        if key.data is not None:
                            key.data()
                        else:
                            self._woken.recv(4096)
                    if self._reporting:
                        self._reporting = False
                        log.info("statistics: %s", self.statistics())
        finally:
            self._shut_down()

    def _accept(self) -> None:
        try:
            sock, address = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            self._turn_away(error)
            return
        self._is_out = False
        host = address[0]
        refusal = self._refusal(host)
        if refusal:
            log.info("%s:%d refused: %s", host, address[1], refusal)
            _refuse(sock, refusal)
            return
        try:
            self._start(sock, host, address[1])
        except OSError:
            sock.close()  # gone before we looked

    def _turn_away(self, error: OSError) -> None:
        """Out of descriptors: take one more newcomer with the spare one, and say so."""
        if not self._is_out:
            log.error("newcomers are turned away: %s", error.strerror)
        self._is_out = True
        self._spare.close()
        with contextlib.suppress(OSError):
            sock, _ = self._listener.accept()
            _refuse(sock, OUT_OF_MEANS)
        try:
            self._spare = socket.socket()
        except OSError:
            time.sleep(0.1)  # somebody was faster; do not spin

    def _refusal(self, host: str) -> str:
        options = self.options
        with self._threads_lock:
            count, from_host = len(self._threads), self._per_address.get(host, 0)
        if options.max_clients and count >= options.max_clients:
            return "%s is full (%d people). Try again later." % (options.network, count)
        if options.max_per_address and from_host >= options.max_per_address:
            return "There are %d connections from your address already." % from_host
        return ""

    def _start(self, sock: socket.socket, host: str, port: int) -> None:
        # An address that begins with a colon would begin a last parameter.
        client = Client(sock, "0" + host if host.startswith(":") else host, port)
        session = Session(self, client)

        def body() -> None:
            try:
                session.run()
            finally:
                self._forget(client, host)

        thread = threading.Thread(target=body, name="client %s" % client.address)
        with self._threads_lock:
            self._threads[client] = thread
            self._per_address[host] += 1
        try:
            thread.start()
        except RuntimeError:  # the system gives no more threads
            log.error("%s refused: out of threads", client.address)
            self._forget(client, host)
            self.delivery.post(Event(_refusal_line(OUT_OF_MEANS), (client,)))
            self.delivery.post(Ending(client, CLOSE))
            self.delivery.wake()

    def _forget(self, client: Client, host: str) -> None:
        with self._threads_lock:
            del self._threads[client]
            self._per_address[host] -= 1
            if not self._per_address[host]:
                del self._per_address[host]

    def _shut_down(self) -> None:
        self._listener.close()
        self.directory.close()
        with self._threads_lock:
            threads = dict(self._threads)
        log.info("shutting down, with %d connected", len(threads))
        farewell = Message("ERROR", ("The server is shutting down",))
        for client in threads:
            client.end = client.end or farewell.text
        self.delivery.post(Event(farewell, tuple(threads)))
        for how in (SEVER, ABORT):
            for client in threads:
                self.delivery.post(Ending(client, how))
            self.delivery.wake()
            deadline = time.monotonic() + SHUTDOWN_TIME
            for thread in threads.values():
                thread.join(max(0.0, deadline - time.monotonic()))
            threads = {client: thread for client, thread in threads.items() if thread.is_alive()}
            if not threads:
                break
        self.delivery.stop()
        log.info("statistics: %s", self.statistics())
        if self.history is not None:
            self.history.stop()
        self._database.close()

    def _on_history(self, fault: str) -> None:
        """The history has failed, or is well again."""
        if fault:
            log.error("the history is not being kept: %s", fault)
        else:
            log.warning("the history is being kept again")
        for client in self.directory.everyone():
            text = HISTORY_FAILS if fault else HISTORY_WORKS
            message = Message("NOTICE", (client.nickname, text), self.options.server_name)
            self.delivery.post(Event(message, (client,)))

    def close(self) -> None:
        """Give back what `fileno` and `stop` use: the last thing, after `run`."""
        self._spare.close()
        self._woken.close()
        self._waker.close()


def _refusal_line(text: str) -> bytes:
    """What both dialects understand."""
    return ("ERROR :%s\r\n" % text).encode("utf-8")


def _refuse(sock: socket.socket, text: str) -> None:
    """Say why, as far as that needs no waiting, and close."""
    sock.setblocking(False)
    with contextlib.suppress(OSError):
        sock.send(_refusal_line(text))
    sock.close()


def _memory() -> int:
    """Bytes of memory in use at most, as far as the system tells."""
    if resource is None:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises OSError, whose text is for the user."""
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, proto, _, address = found[0]
    listener = socket.socket(family, kind, proto)
    try:
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):  # Windows, where REUSEADDR shares a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def addresses_to_tell(host: str) -> List[str]:
    """The addresses at which others on the network find a server that listens on `host`."""
    if host not in ("", "0.0.0.0", "::"):
        return [host]
    found = []
    with contextlib.suppress(OSError):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))  # a documentation address; UDP sends nothing yet
            found.append(probe.getsockname()[0])
    with contextlib.suppress(OSError):
        for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET):
            address = str(info[4][0])
            if address not in found and not address.startswith("127."):
                found.append(address)
    return found


# The command line


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, "%s: %s\n" % (self.prog, message))

    def convert_arg_line_to_args(self, arg_line: str) -> List[str]:
        """@FILE holds options as one writes them; a line that begins with # is a comment."""
        if arg_line.lstrip().startswith("#"):
            return []
        try:
            return shlex.split(arg_line)
        except ValueError as error:
            self.error("%s in the line %s" % (error, arg_line))


class Chore(NamedTuple):
    """What the command line asks for in place of serving."""

    verb: str  # "add", "remove" or "list"
    name: str = ""
    is_operator: bool = False


def parse_options(argv: Optional[List[str]]) -> Tuple[Options, str, Optional[Chore]]:
    """The options, the log level and what else is to be done, if anything.

    Exits with 2 and one line where they cannot be had.
    """
    defaults = Options(
        network=socket.gethostname(), server_name=_default_server_name(), data=_default_folder()
    )
    rows: List[Tuple[str, str, Callable[[str], object], str, str]] = [
        ("host", "host", str, "ADDRESS", "where to listen (default %(default)s: everywhere)"),
        ("port", "port", _port, "PORT", "default %(default)s; 0: any that is free"),
        ("network", "network", _network, "NAME", "the name that people see (%(default)s)"),
        ("server-name", "server_name", _server_name, "HOST", "IRC's own name (%(default)s)"),
        ("data", "data", str, "FOLDER", "where the history is kept (%(default)s); '' keeps none"),
        ("history-days", "history_days", _limit, "DAYS", "that it is kept; 0: for ever"),
        ("lobby", "lobby", _lobby, "ROOM", "where all are placed (%(default)s); '' for nowhere"),
        ("motd", "motd", _lines_of, "FILE", "a text that everybody is shown"),
        ("password-file", "password", _first_line_of, "FILE", "its first line is asked of all"),
        ("rate-limit", "rate_limit", _limit, "LINES", "a second of one client (%(default)g)"),
        ("max-clients", "max_clients", _count, "N", "connections (%(default)s)"),
        ("max-per-address", "max_per_address", _count, "N", "of one address (%(default)s)"),
        ("register-timeout", "register_timeout", _limit, "S", "to choose a name (%(default)g)"),
        ("ping-interval", "ping_interval", _limit, "S", "of silence, then a PING (%(default)g)"),
        ("max-sendq", "max_sendq", _count, "BYTES", "that may wait for a client (%(default)s)"),
    ]
    parser = Parser(
        description="Hubbub's server: chat rooms for a local network.",
        epilog="0 turns a limit off. @FILE reads options from a file. What has to do with accounts"
        " is done in the folder of --data, also while a server runs on it, and starts none.",
        fromfile_prefix_chars="@",
    )
    for flag, name, kind, metavar, text in rows:
        default = getattr(defaults, name)
        parser.add_argument(
            "--" + flag, dest=name, type=kind, metavar=metavar, help=text, default=default
        )
    levels = ["DEBUG", "INFO", "WARNING", "ERROR"]
    parser.add_argument("--log-level", choices=levels, default="INFO", help="default %(default)s")
    parser.add_argument("--version", action="version", version="Hubbub %s" % VERSION)
    chores = parser.add_mutually_exclusive_group()
    text = "make an account, or give it a new password, which is asked for"
    chores.add_argument("--add-account", type=_nickname, metavar="NAME", help=text)
    chores.add_argument("--remove-account", type=_nickname, metavar="NAME", help="forget it")
    chores.add_argument("--list-accounts", action="store_true", help="those that there are")
    text = "with --add-account: with the rights of an operator; else without them"
    parser.add_argument("--oper", action="store_true", help=text)
    values = vars(parser.parse_args(argv))
    log_level = values.pop("log_level")
    added, removed = values.pop("add_account"), values.pop("remove_account")
    listed, is_operator = values.pop("list_accounts"), values.pop("oper")
    chore = None
    if added:
        chore = Chore("add", added, is_operator)
    elif is_operator:
        parser.error("--oper goes with --add-account")
    elif removed or listed:
        chore = Chore("remove", removed) if removed else Chore("list")
    if chore is not None and not values["data"]:
        parser.error("accounts are kept in a folder: --data FOLDER")
    return Options(**values), log_level, chore


def _nickname(name: str) -> str:
    name = protocol.normalize(name)
    fault = protocol.nickname_fault(name)
    if fault:
        raise argparse.ArgumentTypeError(fault)
    return name


def _network(name: str) -> str:
    return protocol.clean(name, 40).strip() or Options().network


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError("%s is not a whole number" % text)
    return int(text)


def _limit(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= FOREVER:
        raise argparse.ArgumentTypeError("%s is not a number from 0 to %g" % (text, FOREVER))
    return value


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError("a port is a number from 0 to 65535, not %s" % text)
    return int(text)


def _lobby(name: str) -> str:
    fault = name and protocol.room_fault(name)
    if fault:
        raise argparse.ArgumentTypeError("%s: %s" % (name, fault))
    return name


def _server_name(name: str) -> str:
    if not protocol.is_host(name) or ":" in name:  # a port does not belong to it
        raise argparse.ArgumentTypeError("%s is not a host's name" % name)
    return name


def _default_server_name() -> str:
    name = socket.gethostname().partition(".")[0]
    try:
        return _server_name(name + ".local")
    except argparse.ArgumentTypeError:
        return Options().server_name


def _default_folder() -> str:
    """Where programs keep what is theirs, on this system."""
    home = os.path.expanduser("~")
    if sys.platform == "win32":
        return os.path.join(os.environ.get("LOCALAPPDATA") or home, "Hubbub")
    if sys.platform == "darwin":
        return os.path.join(home, "Library", "Application Support", "Hubbub")
    data = os.environ.get("XDG_DATA_HOME") or os.path.join(home, ".local", "share")
    return os.path.join(data, "hubbub")


def _lines_of(path: str) -> Tuple[str, ...]:
    try:
        with open(path, encoding="utf-8") as file:
            return tuple(protocol.clean(line.rstrip("\n"), 400) for line in file)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise argparse.ArgumentTypeError("cannot read %s: %s" % (path, reason)) from None


def _first_line_of(path: str) -> str:
    if not path:  # the default
        return ""
    lines = _lines_of(path)
    if not lines or not lines[0].strip():
        raise argparse.ArgumentTypeError("%s has no password in its first line" % path)
    return lines[0].strip()


def _raise_descriptor_limit() -> None:
    """Let as many clients connect as the system allows."""
    if resource is None:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # macOS has a lower limit of its own
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _give_memory_back() -> None:
    """Have glibc keep no large piece of memory: it would keep a password's 16 MiB a thread."""
    m_trim_threshold, m_mmap_threshold = -1, -3  # malloc.h
    # Another C library, or a Python that was built without ctypes.
    with contextlib.suppress(ImportError, AttributeError, OSError, TypeError):
        import ctypes

        for which in (m_trim_threshold, m_mmap_threshold):
            ctypes.CDLL(None).mallopt(which, LARGE)


def do(chore: Chore, folder: str) -> int:
    """See to an account; 0 where that was done, else 2 and one line that tells why.

    A server may run on the folder meanwhile, and notices.
    """
    try:
        password = _ask_for_password(chore.name) if chore.verb == "add" else ""
        database = Database(folder, DISK_TIMEOUT, claim=False)
        if chore.verb != "add" and not os.path.exists(database.path):
            raise RecordsError("no accounts are kept in %s." % folder)
        try:
            told = _do(chore, Records(database), password)
        finally:
            database.close()
    except RecordsError as error:
        print("server.py: %s" % error, file=sys.stderr)
        return 2
    except (EOFError, KeyboardInterrupt):
        print("\nserver.py: nothing was changed.", file=sys.stderr)
        return 2
    encoding = sys.stdout.encoding or "utf-8"
    for line in told:
        print(line.encode(encoding, "replace").decode(encoding))
    return 0


def _do(chore: Chore, records: Records, password: str) -> List[str]:
    """Do it; what people are told. Raises RecordsError."""
    name = chore.name
    if chore.verb == "list":
        return [
            account.name + (" (operator)" if account.is_operator else "")
            for account in records.accounts()
        ]
    if chore.verb == "remove":
        if not records.remove_account(name):
            raise RecordsError("%s has no account." % name)
        return ["%s has no account any more. Anybody may have the name." % name]
    rights = "with" if chore.is_operator else "without"
    rights += " the rights of an operator."
    if records.set_password(name, password, chore.is_operator):
        return ["%s had an account: it has the new password now, %s" % (name, rights)]
    records.add_account(name, password, chore.is_operator)
    return ["%s has an account now, %s" % (name, rights)]


def _ask_for_password(name: str) -> str:
    """From the terminal, twice and unseen, or a line of standard input. Raises PasswordError."""
    if sys.stdin.isatty():
        password = getpass.getpass("Password for %s: " % name)
        fault = protocol.password_fault(password)
        if not fault and getpass.getpass("The same again: ") != password:
            fault = "Those were two different passwords. Nothing was changed."
    else:
        try:
            password = sys.stdin.buffer.readline().decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            raise PasswordError("That password is not UTF-8.") from None
        fault = protocol.password_fault(password)
        if not password:
            fault = "No password came on standard input."
    if fault:
        raise PasswordError(fault)
    return password


def main(argv: Optional[List[str]] = None) -> int:
    """Serve until SIGINT or SIGTERM; 0 after an orderly end, 2 where it could not start."""
    options, log_level, chore = parse_options(argv)
    logging.basicConfig(level=log_level, format="%(asctime)s %(levelname)s %(message)s")
    if chore is not None:
        return do(chore, options.data)
    with contextlib.suppress(ValueError):  # a system that rounds differently keeps its own
        threading.stack_size(STACK_SIZE)
    _raise_descriptor_limit()
    _give_memory_back()
    # Messages are born and die by the thousand, in no cycles: looking for cycles among them
    # took a tenth of the readers' time.
    gc.set_threshold(100000, 20, 50)
    try:
        server = Server(options)
    except FolderTakenError as error:
        print("server.py: %s" % error, file=sys.stderr)
        return 2
    except (OSError, UnicodeError) as error:  # no host's name can be as long as some are
        reason = getattr(error, "strerror", None) or str(error)
        if getattr(error, "errno", 0) == errno.EADDRINUSE:
            reason = "another program listens there. Stop it, or choose another with --port"
        place = "%s:%d" % (options.host, options.port)
        print("server.py: cannot listen on %s: %s." % (place, reason), file=sys.stderr)
        return 2

    def on_signal(number: int, frame: Optional[FrameType]) -> None:
        signal.signal(number, signal.SIG_DFL)  # a second one forces the end
        server.stop()

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, lambda number, frame: server.report())
    # On Windows a signal alone does not wake a thread that waits in select.
    signal.set_wakeup_fd(server.fileno())
    print("[%s] Running on %s:%d" % (SERVER, options.host, server.port))
    for address in addresses_to_tell(options.host):
        print("[%s] Tell people: %s:%d" % (SERVER, address, server.port))
    sys.stdout.flush()
    server.run()
    signal.set_wakeup_fd(-1)
    server.close()
    print("[%s] Stopped" % SERVER)
    return 0


if __name__ == "__main__":
    sys.exit(main())
