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
- A name has one owner. The thread that reads a connection is the only one that removes
  its client from the directory; everybody else asks the delivery to hang up.
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
import getpass
import hashlib
import hmac
import ipaddress
import itertools
import json
import logging
import os
import queue
import re
import selectors
import shlex
import signal
import socket
import sqlite3
import sys
import threading
import time
import unicodedata
import urllib.parse
from types import FrameType
from typing import (
    Any,
    Callable,
    Deque,
    Dict,
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
from protocol import HTTP, IRC, PLAIN, SERVER, TLS, VERSION, Message, ReplyError

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
MAX_TARGETS = 4  # recipients that one PRIVMSG may name
HISTORY_FAILS = "The chat goes on, but what is said is not being kept for later."
HISTORY_WORKS = "What is said is being kept again."
OUT_OF_MEANS = "The server cannot take more people now. Try again later."
PROMPT_AFTER = 1.0  # seconds of silence after which a person is asked for a name
LINGER = 2.0  # seconds that an ended client has to take what was sent and close
SHUTDOWN_TIME = 1.0  # seconds that all of them have when the server stops
PATIENCE = 1.0  # seconds that the chat waits for the disk, before it goes on without
RETRY_AFTER = 5.0  # seconds after a fault of the disk in which it is left alone
DISK_TIMEOUT = 5.0  # seconds that anybody waits for a turn at the database
MAX_WAITING = 500  # messages that wait for somebody who is away
MIN_PASSWORD = 8  # characters
MAX_PASSWORD = 300  # bytes
SCRYPT = (2**14, 8, 1)  # n, r and p of new passwords: 16 MiB and some 50 ms each
HASHES_AT_ONCE = 2  # passwords that are hashed at the same time
ATTEMPTS_AT_ONCE = 5  # passwords that an address may try before it has to wait
ATTEMPT_INTERVAL = 10.0  # seconds until it may try one more
MAX_ATTEMPTERS = 10000  # addresses that are remembered for that
ROWS_AT_ONCE = 200  # rows to a statement; SQLite takes 999 values at least
CLEANED_AT_ONCE = 2000  # rows deleted with one write
CLEANING_INTERVAL = 3600.0  # seconds between two looks for what is older than --history-days
FOREVER = 86400.0  # seconds: a timeout for those who have none
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

# IRCv3 capabilities, as bits of Client.caps. https://ircv3.net/irc/
SERVER_TIME, MESSAGE_TAGS, ECHO_MESSAGE, BATCH, LABELS, CHATHISTORY = 1, 2, 4, 8, 16, 32
PLAIN_TEXT = 64  # none of them: it marks a person, who is also shown what they said
CAPABILITIES = {
    "batch": BATCH,
    "draft/chathistory": CHATHISTORY,
    "echo-message": ECHO_MESSAGE,
    "labeled-response": LABELS,
    "message-tags": MESSAGE_TAGS,
    "server-time": SERVER_TIME,
}
_TEXTS = ("PRIVMSG", "NOTICE")
# The bits that change a line's bytes.
_RENDERED = SERVER_TIME | MESSAGE_TAGS | BATCH | PLAIN_TEXT


class Client:
    """One connection, as every thread sees it.

    `reader` and `writer` are two views of one descriptor: reads block with a timeout,
    writes never do. Who may touch what is said beside each attribute.
    """

    __slots__ = (
        "address", "blocked", "caps", "closed", "end", "finishing", "host", "label", "named",
        "nickname", "outbox", "queued", "reader", "realname", "registered", "rooms",
        "signed_on", "spoke", "username", "writer",
    )  # fmt: skip

    def __init__(self, reader: socket.socket, host: str, port: int) -> None:
        reader.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reader = reader
        self.writer = socket.socket(
            reader.family, reader.type, reader.proto, fileno=reader.fileno()
        )
        self.writer.settimeout(0)
        self.host = host
        self.address = "%s:%d" % (host, port)
        # Written by the client's own thread alone:
        self.caps = PLAIN_TEXT  # a person, until the first line tells
        self.label = protocol.NO_TAGS  # the tags that answer the label of the present command
        self.username = "user"
        self.realname = ""
        self.signed_on = self.spoke = 0.0  # seconds since 1970
        # Guarded by the directory's lock:
        self.nickname = ""
        self.named: Optional[Event] = None  # has the number since which it has that name
        self.registered = False
        self.rooms: Set[Room] = set()
        # Touched by the delivery alone:
        self.outbox: List[Union[bytes, memoryview]] = []
        self.queued = 0  # bytes in it
        self.blocked = False  # the socket is full: the selector tells when it is not
        self.closed = False  # nothing is put into it any more
        self.finishing: Optional[int] = None  # what to shut down when it is empty
        # Set once by whoever ends the connection; its thread reads it and leaves.
        self.end = ""

    @property
    def source(self) -> str:
        """`nickname!user@host`, as it stands before what this client says."""
        return "%s!%s@%s" % (self.nickname, self.username, self.host)

    @property
    def named_since(self) -> int:
        """The number of the event with which it got its name: what came before is not its own."""
        return (self.named and self.named.number) or END

    @property
    def name(self) -> str:
        """How the log calls it."""
        return "%s (%s)" % (self.address, self.nickname) if self.nickname else self.address


class Room:
    """A room and its members. Guarded by the directory's lock."""

    __slots__ = ("_audience", "created", "key", "members", "name", "topic", "topic_at", "topic_by")

    def __init__(self, name: str) -> None:
        self.name = name
        self.key = protocol.casefold(name)
        self.members: Dict[Client, None] = {}  # in order of joining
        self.topic = self.topic_by = ""
        self.created = self.topic_at = time.time()
        self._audience: Optional[Tuple[Client, ...]] = None

    def add(self, client: Client) -> None:
        self.members[client] = None
        self._audience = None

    def discard(self, client: Client) -> None:
        self.members.pop(client, None)
        self._audience = None

    @property
    def audience(self) -> Tuple[Client, ...]:
        """The members: the same tuple until they change, so that sending costs no copy."""
        if self._audience is None:
            self._audience = tuple(self.members)
        return self._audience


def private_key(nickname: str, other: str) -> str:
    """What the history calls the conversation of two people: the same for both."""
    return " ".join(sorted([protocol.casefold(nickname), protocol.casefold(other)]))


class Event:
    """Something that `audience` is to be told: a message, or bytes as they are.

    The `sender`, where it is in the audience, gets a text back only as an echo. The history
    keeps it for each of `kept_for`, the keys of rooms or private conversations. The delivery
    gives each event its `number`: its place in the one order, its msgid, and its time in
    microseconds since 1970, all in one. What the history repeats has its number already.

    A message too long for its line is cut; what no line can carry is a ValueError here, in
    the thread that thought of it.
    """

    __slots__ = (
        "audience", "is_text", "kept_for", "label", "line", "message", "number", "sender", "tags",
    )  # fmt: skip

    def __init__(
        self,
        message: Union[Message, bytes],
        audience: Tuple[Client, ...],
        sender: Optional[Client] = None,
        kept_for: Tuple[str, ...] = (),
        number: int = 0,
        tags: Mapping[str, str] = protocol.NO_TAGS,
    ) -> None:
        if isinstance(message, Message):
            message, self.line = protocol.fit_line(message)
            self.is_text = message.command in _TEXTS  # its sender sees it only as an echo
        else:
            self.line, self.is_text = message, False
        self.message = message
        self.audience = audience
        self.sender = sender
        self.kept_for = kept_for
        self.number = number
        self.tags = tags  # the server's own, beside time and msgid: for those with batch
        self.label = protocol.NO_TAGS  # the same, for the sender alone
        if sender is not None and sender.label and not (self.is_text and self.is_unheard):
            self.label = sender.label
            if "label" in self.label:  # for the first answer; a batch is for all
                sender.label = protocol.NO_TAGS

    def render(self, caps: int, own: bool = False) -> bytes:
        """Its line for clients with these capabilities, or (`own`) for its sender among them."""
        message = self.message
        if isinstance(message, bytes):
            return message
        try:
            return self._render(message, caps, own)
        except Exception:  # this one is lost then, but none beside it
            log.exception("our mistake: %.200r", message)
            return b""

    def _render(self, message: Message, caps: int, own: bool) -> bytes:
        if caps & PLAIN_TEXT:
            when = self.number / 1e6
            line = protocol.describe(message, message.nickname if own else "", when)
            return (str(line) + "\r\n").encode("utf-8") if line else b""
        tags: Dict[str, str] = {}
        if own:
            tags.update(self.label)
        if caps & BATCH:
            tags.update(self.tags)
        elif message.command == "BATCH":
            return b""
        if caps & SERVER_TIME:
            tags["time"] = protocol.format_time(self.number / 1e6)
        if caps & MESSAGE_TAGS:
            if "!" in message.source:  # somebody said or did it
                tags["msgid"] = str(self.number)
            tags.update(message.tags)
        return protocol.serialize_tags(tags) + self.line

    @property
    def is_unheard(self) -> bool:
        """Whether the sender, an IRC client, does not want its own words back."""
        sender = self.sender
        return sender is not None and not sender.caps & (ECHO_MESSAGE | PLAIN_TEXT)

    def render_for_sender(self) -> bytes:
        """Its line for the sender: an echo, if that is wanted, with the label that asked for it."""
        caps = self.sender.caps if self.sender is not None else 0
        return b"" if self.is_text and self.is_unheard else self.render(caps, own=True)

    def rows(self) -> List["Row"]:
        """What the history keeps of it."""
        if not isinstance(self.message, Message):
            return []
        tags, command = self.message.tags, self.message.command
        line = (protocol.serialize_tags(tags) + self.line if tags else self.line)[:-2]
        return [(self.number + i, key, command, line, "") for i, key in enumerate(self.kept_for)]


class Directory:
    """Who is here, by username, and in which rooms.

    Each method is atomic and does no I/O. What others are to be told of a change is posted
    before the lock is let go: the order of events is the order of the changes.
    """

    def __init__(self, post: Callable[[Event], None]) -> None:
        self._lock = threading.Lock()  # guards all below, and the marked parts of Client
        self._post = post  # only appends to a queue
        self._clients: Dict[str, Client] = {}  # folded nickname to connection
        self._rooms: Dict[str, Room] = {}  # folded name to room
        self._closing = False

    def claim(self, client: Client, nickname: str) -> None:
        """Give `client` the name, in place of any it has. Raises ReplyError 433 if it is taken."""
        key = protocol.casefold(nickname)
        with self._lock:
            if self._clients.get(key, client) is not client:
                raise ReplyError("433", nickname, "Nickname is already in use")
            if client.nickname == nickname:
                return
            if client.registered:
                message = Message("NICK", (nickname,), client.source)
                self._post(Event(message, self._peers(client), client))
            if client.nickname:
                del self._clients[protocol.casefold(client.nickname)]
            if protocol.casefold(client.nickname) != key:
                client.named = Event(b"", ())
                self._post(client.named)
            self._clients[key] = client
            client.nickname = nickname

    def register(self, client: Client) -> int:
        """`client` has a name and may speak from now on; how many are here with it."""
        with self._lock:
            client.registered = True
            return sum(1 for other in self._clients.values() if other.registered)

    def join(self, client: Client, name: str, server_name: str) -> Optional[Event]:
        """Place `client` in a room, made where there is none, and tell it who is there.

        Gives what others are told, or None where the client was there already. Raises
        ReplyError 405 for one room too many.
        """
        with self._lock:
            room = self._rooms.get(protocol.casefold(name))
            if room is not None and client in room.members:
                return None
            if len(client.rooms) >= MAX_ROOMS:
                raise ReplyError("405", name, "You have joined too many channels")
            if room is None:
                room = self._rooms[protocol.casefold(name)] = Room(name)
            room.add(client)
            client.rooms.add(room)
            message = Message("JOIN", (room.name,), client.source)
            event = Event(message, room.audience, client, (room.key,))
            self._post(event)
            self._post(answer(client, topic_replies(room) + names_replies(room), server_name))
            return event

    def names(self, client: Client, name: str, server_name: str) -> int:
        """Tell `client` who is in a room, in order with who comes and goes; how many lines."""
        with self._lock:
            replies = names_replies(self._rooms.get(protocol.casefold(name)) or Room(name))
            self._post(answer(client, replies, server_name))
            return len(replies)

    def part(self, client: Client, name: str, reason: str) -> None:
        """Take `client` out of a room. Raises ReplyError 403 or 442."""
        with self._lock:
            room = self._room(client, name)
            message = Message("PART", (room.name, reason), client.source)
            self._post(Event(message, room.audience, client, (room.key,)))
            self._leave(client, room)

    def remove(self, client: Client, reason: str) -> None:
        """Forget `client`: its name is free. Idempotent."""
        with self._lock:
            if client.registered and not self._closing:
                message = Message("QUIT", (reason,), client.source)
                audience = tuple(peer for peer in self._peers(client) if peer is not client)
                keys = tuple(room.key for room in client.rooms)
                self._post(Event(message, audience, client, keys))
            for room in list(client.rooms):
                self._leave(client, room)
            if client.nickname:
                self._clients.pop(protocol.casefold(client.nickname), None)
            client.registered = False

    def tell(self, client: Client, message: Message) -> None:
        """Pass on what `client` says to a room or a person: `message.params[0]`.

        Raises ReplyError 401, 403 or 404.
        """
        target = message.params[0]
        sender: Optional[Client] = client
        with self._lock:
            if target.startswith("#"):
                room = self._rooms.get(protocol.casefold(target))
                if room is None:
                    raise ReplyError("403", target, "No such channel")
                if client not in room.members:
                    raise ReplyError("404", target, "Cannot send to a channel that you are not in")
                target, audience, key = room.name, room.audience, room.key
            else:
                recipient = self._registered(target)
                if recipient is None:
                    raise ReplyError("401", target, "No such nick")
                target = recipient.nickname
                audience = (recipient, client)
                key = private_key(recipient.nickname, client.nickname)
                if recipient is client:  # who writes to themselves gets it once, as anybody's
                    audience, sender = (client,), None
            params = (target, *message.params[1:])
            relayed = Message(message.command, params, client.source, message.tags)
            self._post(Event(relayed, audience, sender, (key,)))

    def set_topic(self, client: Client, name: str, topic: str) -> None:
        """Raises ReplyError 403 or 442."""
        with self._lock:
            room = self._room(client, name)
            message = protocol.fit(Message("TOPIC", (room.name, topic), client.source))
            self._post(Event(message, room.audience, client, (room.key,)))
            room.topic, room.topic_by, room.topic_at = message.text, client.nickname, time.time()

    def history_key(self, client: Client, target: str) -> Tuple[str, int]:
        """The key of what `client` may read again, and the number after which it may.

        A room's members may read all of it; of private messages, one reads what came since
        one has had the name. Raises ReplyError.
        """
        with self._lock:
            room = self._rooms.get(protocol.casefold(target))
            if room is not None and client in room.members:
                return room.key, 0
            if not protocol.is_nickname(target):
                fault = "You are not in %s, or it is not there" % target
                raise ReplyError("FAIL", "CHATHISTORY", "INVALID_TARGET", target, fault)
            return private_key(target, client.nickname), client.named_since

    def find(self, nickname: str) -> Optional[Client]:
        """The registered client of that name."""
        with self._lock:
            return self._registered(nickname)

    def everyone(self) -> List[Client]:
        """All who have registered."""
        with self._lock:
            return [client for client in self._clients.values() if client.registered]

    def room(self, name: str) -> Optional[Room]:
        """A copy of the room of that name."""
        with self._lock:
            room = self._rooms.get(protocol.casefold(name))
            return room and _copy_of(room)

    def rooms(self, client: Optional[Client] = None) -> List[Room]:
        """Copies of all rooms, or of those that `client` is in."""
        with self._lock:
            found = self._rooms.values() if client is None else client.rooms
            return sorted(map(_copy_of, found), key=lambda room: protocol.casefold(room.name))

    def close(self) -> None:
        """From now on nobody is told who leaves: everybody does."""
        with self._lock:
            self._closing = True

    # What follows is called with the lock held.

    def _registered(self, nickname: str) -> Optional[Client]:
        client = self._clients.get(protocol.casefold(nickname))
        return client if client is not None and client.registered else None

    def _room(self, client: Client, name: str) -> Room:
        room = self._rooms.get(protocol.casefold(name))
        if room is None:
            raise ReplyError("403", name, "No such channel")
        if client not in room.members:
            raise ReplyError("442", name, "You're not on that channel")
        return room

    def _peers(self, client: Client) -> Tuple[Client, ...]:
        """Everyone who shares a room with `client`, and itself, once each."""
        if len(client.rooms) == 1:
            return next(iter(client.rooms)).audience
        peers = {client: None}
        for room in client.rooms:
            peers.update(room.members)
        return tuple(peers)

    def _leave(self, client: Client, room: Room) -> None:
        room.discard(client)
        client.rooms.discard(room)
        if not room.members:
            del self._rooms[room.key]


def _copy_of(room: Room) -> Room:
    copy = Room(room.name)
    copy.members = dict(room.members)
    copy.created, copy.topic_at = room.created, room.topic_at
    copy.topic, copy.topic_by = room.topic, room.topic_by
    return copy


# The database: what outlives the server


class Handle:
    """One connection to the database: opened when it is needed, and anew after a fault.

    Any thread may use it; one does at a time.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._lock = threading.Lock()  # guards the connection
        self._connection: Optional[sqlite3.Connection] = None

    def run(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """What `work` gives: one transaction. Raises sqlite3.Error or OSError, and nothing is done.

        It may be asked again then: what it changes is to be the same the second time.
        """
        if not self._lock.acquire(timeout=DISK_TIMEOUT):
            raise sqlite3.OperationalError("the disk does not answer")
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

    def read(self, key: str, after: int, before: int, limit: int, latest: bool) -> List[Row]:
        """Texts with numbers between the two, oldest first: the `limit` latest or earliest.

        What cannot be read is as if it were not there; the log says why.
        """
        order = "DESC" if latest else "ASC"
        query = (
            "SELECT number, key, command, line, '' FROM messages WHERE key = ? AND number > ?"
            " AND number < ? AND command IN ('PRIVMSG', 'NOTICE') ORDER BY number %s LIMIT ?"
        )
        found = self._select(query % order, (key, after, before, limit))
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
        for number, key, _, _, waiting_for in rows:
            owner, is_private, other = key.partition(" ")
            if is_private:
                pairs = [(owner, other, number), (other, owner, number)]
                writer.executemany("REPLACE INTO conversations VALUES (?,?,?)", pairs)
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


class Sanction(NamedTuple):
    """What keeps somebody out ("ban") or silent ("mute")."""

    kind: str
    target: str  # as `sanction_target` gives it
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


def password_fault(password: str) -> str:
    """The rule that a password breaks, in words for whoever chose it; "" for none."""
    if len(unicodedata.normalize("NFC", password)) < MIN_PASSWORD:
        return "A password has at least %d characters." % MIN_PASSWORD
    if len(_password_bytes(password)) > MAX_PASSWORD:
        return "That password is too long: %d bytes at most." % MAX_PASSWORD
    return ""


def _password_bytes(password: str) -> bytes:
    return unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")


def sanction_target(text: str) -> str:
    """What a sanction calls a name, an address or a network, however it was typed."""
    network = _network_of(text)
    if network is None:
        return protocol.casefold(text)
    return str(network.network_address if network.num_addresses == 1 else network)


def sanction_matches(target: str, names: Iterable[str], address: str) -> bool:
    """Whether a sanction meets somebody with these folded names, who comes from `address`."""
    network = _network_of(target)
    if network is None:
        return protocol.casefold(target) in names
    host = _network_of(address)
    return host is not None and host.network_address in network


@functools.lru_cache(maxsize=4096)
def _network_of(text: str) -> Union[ipaddress.IPv4Network, ipaddress.IPv6Network, None]:
    """The network that an address, or an address and a size, stands for; None for a name.

    IPv4 in IPv6's clothes (::ffff:192.0.2.1) is IPv4, and the zone of an address does not count.
    """
    if not ("." in text or ":" in text):
        return None
    try:
        network = ipaddress.ip_network(text.partition("%")[0], strict=False)
    except ValueError:
        return None
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return ipaddress.IPv4Network((int(mapped), network.prefixlen - 96))
    return network


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
        fault = password_fault(password)
        if fault:
            raise PasswordError(fault)
        salt = os.urandom(16)
        return (*SCRYPT, salt, self._digest(password, salt, SCRYPT))

    def _digest(self, password: str, salt: bytes, cost: Tuple[int, int, int]) -> bytes:
        if not hasattr(hashlib, "scrypt"):
            raise RecordsError("This server's Python cannot do scrypt: it keeps no passwords.")
        n, r, p = cost
        data = _password_bytes(password)[: MAX_PASSWORD + 1]  # longer ones match nothing
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
        values = sanction._replace(target=sanction_target(sanction.target))
        query = "REPLACE INTO sanctions VALUES (?,?,?,?,?,?)"
        self._write(lambda writer: writer.execute(query, values))

    def remove_sanctions(self, target: str) -> int:
        """How many there were."""
        query, values = "DELETE FROM sanctions WHERE target = ?", (sanction_target(target),)
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
    """Limits how fast an address may try passwords. Any thread may call it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the one below
        self._paid_until: Dict[str, float] = {}  # by address, as in Bucket

    def wait(self, address: str, now: float) -> float:
        """Take an attempt; or the seconds until there is one, where there is none."""
        with self._lock:
            paid_until = max(self._paid_until.get(address, now), now) + ATTEMPT_INTERVAL
            wait = paid_until - now - ATTEMPTS_AT_ONCE * ATTEMPT_INTERVAL
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
                self._paid_until[address] -= ATTEMPT_INTERVAL

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

    def __init__(self, max_sendq: int, history: Optional["History"]) -> None:
        super().__init__(name="delivery")
        self._history = history
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
        lines: Dict[int, List[bytes]] = {}  # of all events, by the bits that change their bytes
        joined: Dict[int, bytes] = {}
        own: Dict[Client, List[int]] = {}  # which events look different to their sender
        for index, event in enumerate(events):
            sender = event.sender
            if sender is not None and (
                event.label or (event.is_text and not sender.caps & ECHO_MESSAGE)
            ):
                own.setdefault(sender, []).append(index)
        for client in events[0].audience:
            if client.closed or client.finishing is not None:
                continue
            bits = client.caps & _RENDERED
            if bits not in lines:
                lines[bits] = [event.render(bits) for event in events]
                joined[bits] = b"".join(lines[bits])
            data = joined[bits]
            if client in own:
                pieces = lines[bits].copy()
                for index in own[client]:
                    pieces[index] = events[index].render_for_sender()
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


# Replies that several commands give


def names_replies(room: Room) -> List[Message]:
    """353 with as many names as surely fit a line, and 366."""
    texts = protocol.pack((client.nickname for client in room.members), " ", NAMES_SIZE)
    replies = [Message("353", ("=", room.name, text)) for text in texts]
    return [*replies, Message("366", (room.name, "End of /NAMES list"))]


def topic_replies(room: Room) -> List[Message]:
    """332 and 333, or nothing where no topic is set."""
    if not room.topic:
        return []
    topic = Message("332", (room.name, room.topic))
    return [topic, Message("333", (room.name, room.topic_by, str(int(room.topic_at))))]


def _addressed(message: Message, client: Client, server_name: str) -> Message:
    """A numeric as `client` gets it: from the server, its own name first.

    What a peer has said may stand in it, so each middle parameter is made a word.
    """
    words = map(protocol.as_word, message.params[:-1])
    to = (client.nickname or "*",) if message.command.isdigit() else ()  # FAIL names nobody
    params = (*to, *words, message.text)
    return Message(message.command, params, server_name)


def answer(client: Client, replies: Iterable[Message], server_name: str) -> Event:
    """Many numerics as one piece of work: a long answer is no crowd in the delivery's queue."""
    now = time.time()
    lines: List[bytes] = []
    for reply in replies:
        message, line = protocol.fit_line(_addressed(reply, client, server_name))
        if not client.caps & PLAIN_TEXT:
            lines.append(protocol.serialize_tags(client.label) + line)
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
        self._delivery = server.delivery
        self.client = client
        self._bucket = Bucket(server.options.rate_limit)
        self._deadline = time.monotonic() + (server.options.register_timeout or FOREVER)
        self.negotiating = False  # between CAP LS or REQ and CAP END
        self.user_came = False
        self.password = ""  # what the client offered
        self._tries = MAX_TRIES  # that a person has left to choose a username
        self._batches = itertools.count(1)

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
        self._delivery.post(Ending(client, FINISH))
        self._delivery.wake()
        with contextlib.suppress(OSError):
            self._drain()
        self._delivery.post(Ending(client, CLOSE))
        self._delivery.wake()
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
        dialect = None
        chunks = self._chunks()
        while dialect is None:
            opening += next(chunks)
            dialect = protocol.sniff(opening)
        if dialect in REFUSALS:
            self._delivery.post(Event(REFUSALS[dialect], (self.client,)))
            raise Ended("Refused %s" % dialect)
        if dialect == IRC:
            framer = protocol.Framer(protocol.MAX_TAGS + protocol.MAX_MESSAGE)
            handle = self._on_irc_line
            self.client.caps = 0
        else:
            framer = protocol.Framer(protocol.MAX_TYPED)
            handle = self._on_typed_line
        for chunk in itertools.chain([opening], chunks):
            for line in framer.feed(chunk):
                if line != b"":
                    self._throttle()
                    handle(line)
            self._delivery.wait()

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
                    self.say("Welcome to %s. Type your username and press Enter." % options.network)
                elif client.registered and asked:
                    raise Ended("Ping timeout: %g seconds" % options.ping_interval) from None
                elif self._is_pinged():
                    self.tell(Message("PING", (options.server_name,)))
                    asked = True
                silent = False
                self._delivery.wake()
            else:
                if not data:
                    raise Ended("Connection closed")
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
        if wait > 0 or self._delivery.waiting > MAX_PENDING:
            self._delivery.wait()
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
        self._delivery.post(Event(message, (self.client,), self.client))

    def say(self, text: str) -> None:
        """The server's own words, to this client."""
        target = self.client.nickname or "*"
        self.tell(Message("NOTICE", (target, text), self.options.server_name))

    def reply(self, numeric: str, *params: str) -> None:
        message = _addressed(Message(numeric, params), self.client, self.options.server_name)
        self.tell(message)

    def recall(self, joined: Event, name: str) -> None:
        """Tell a client that cannot ask what was said last in a room, before it joined."""
        history = self.server.history
        if history is not None and not self.client.caps & CHATHISTORY:
            self._delivery.sync()
            key = protocol.casefold(name)
            rows = history.read(key, 0, joined.number or END, RECALLED, latest=True)
            if rows:
                self.replay(name, rows)

    def replay(self, target: str, rows: List[Row]) -> None:
        """Repeat what was said earlier, marked so: by its time, in a batch, or in words."""
        client, name = self.client, self.options.server_name
        self.charge(len(rows))
        said = [(number, protocol.parse(line)) for number, _, _, line, _ in rows]
        if client.caps & SERVER_TIME:
            batch = "h%d" % next(self._batches)
            self.tell(Message("BATCH", ("+" + batch, "chathistory", target), name))
            for number, message in said:
                tags = {"batch": batch}
                self._delivery.post(Event(message, (client,), None, (), number, tags))
            self.tell(Message("BATCH", ("-" + batch,), name))
            return
        self.say("Earlier in %s:" % target if rows else "Nothing was said earlier.")
        day = ""
        for number, message in said:
            when = number / 1e6
            line = protocol.describe(message, client.nickname, when)
            date = time.strftime("%A, %d %B %Y", time.localtime(when))
            if line and date != day:
                day = date
                self.say(date)
            if line and client.caps & PLAIN_TEXT:
                self._delivery.post(Event((str(line) + "\r\n").encode("utf-8"), (client,)))
            elif line:
                self.say(str(line))
        if rows:
            self.say("Now:")

    def replay_targets(self, after: int, before: int, limit: int) -> None:
        """CHATHISTORY TARGETS: where something was said between two numbers, and when last."""
        client, history, name = self.client, self.server.history, self.options.server_name
        if history is None:
            return
        found = history.conversations(client.nickname, max(after, client.named_since), before)
        for room in self.directory.rooms(client):
            last = history.read(room.key, after, before, 1, latest=True)
            found += [(room.name, number) for number, _, _, _, _ in last]
        found.sort(key=lambda pair: pair[1])
        batch = "h%d" % next(self._batches)
        self.tell(Message("BATCH", ("+" + batch, "draft/chathistory-targets"), name))
        for target, number in found[:limit]:
            params = ("TARGETS", target, protocol.format_time(number / 1e6))
            message = Message("CHATHISTORY", params, name)
            self._delivery.post(Event(message, (client,), client, tags={"batch": batch}))
        self.tell(Message("BATCH", ("-" + batch,), name))

    def answer(self, replies: List[Message]) -> None:
        """Tell a long answer, which costs more of the rate limit than a short one."""
        self._delivery.post(answer(self.client, replies, self.options.server_name))
        self.charge(len(replies))

    def charge(self, lines: int) -> None:
        """Have an answer of so many lines count: it takes others' time too."""
        self._bucket.charge(lines / LINES_A_TOKEN)

    # Plain text

    def _on_typed_line(self, line: Optional[bytes]) -> None:
        if line is None:
            self.say("That line is too long: %d bytes at most." % protocol.MAX_TYPED)
            return
        text = protocol.typed(line)
        if not text:
            return
        try:
            if self.client.registered:
                self._on_input(protocol.parse_input(text))
            elif text == "/quit":
                raise Ended("Quit", "Goodbye.")
            elif self.client.nickname:
                self._on_typed_password(text)
            else:
                self._on_typed_name(text)
        except protocol.InputError as error:
            self.say(str(error))

    def _on_typed_name(self, text: str) -> None:
        if not self._run(Message("NICK", (text,))):
            self._tries -= 1
            if not self._tries:
                raise Ended("No username", "That was none either. Connect again to try others.")
            return
        if self.options.password:
            self.say("%s asks for a password. Type it and press Enter." % self.options.network)
        else:
            self._run(Message("USER", ("nc", "0", "*", self.client.nickname)))

    def _on_typed_password(self, text: str) -> None:
        self.password = text
        self._run(Message("USER", ("nc", "0", "*", self.client.nickname)))

    def _on_input(self, typed: protocol.Input) -> None:
        if typed.verb == "help":
            for line in protocol.help_lines():
                self.say(line)
        elif typed.verb == "list":
            room = self.directory.room(self.options.lobby)
            found = list(room.members) if room is not None else self.directory.everyone()
            for text in protocol.online([client.nickname for client in found]):
                self.say(text)
        else:
            for message in protocol.compose(typed, self.options.lobby, self.client.source):
                self._run(message)

    # IRC

    def _on_irc_line(self, line: Optional[bytes]) -> None:
        if line == b"":
            return
        try:
            if line is None:
                raise protocol.TooLongError
            message = protocol.parse(line)
            if len(protocol.serialize_tags(message.tags)) > protocol.MAX_CLIENT_TAGS + 2:
                raise protocol.TooLongError
        except protocol.TooLongError:
            self.reply("417", "Input line was too long")
        except protocol.EncodingError:
            text = "Your line is not UTF-8, the only encoding here. It was not passed on."
            self.tell(Message("FAIL", ("*", "INVALID_UTF8", text), self.options.server_name))
        except ValueError:
            self.reply("400", "*", "That line is not an IRC message")
        else:
            label = message.tags.get("label", "") if self.client.caps & LABELS else ""
            if label:
                self._run_labeled(message, label)
            else:
                self._run(message)

    def _run_labeled(self, message: Message, label: str) -> None:
        """https://ircv3.net/specs/extensions/labeled-response"""
        client, name = self.client, self.options.server_name
        command = COMMANDS.get(message.command)
        batch = ""
        client.label = {"label": label}
        if command is not None and command.several and client.caps & BATCH:
            batch = "l%d" % next(self._batches)
            self.tell(Message("BATCH", ("+" + batch, "labeled-response"), name))
            client.label = {"batch": batch}
        try:
            self._run(message)
            if not batch and client.label:
                self.tell(Message("ACK", (), name))
        finally:
            client.label = protocol.NO_TAGS
        if batch:
            self.tell(Message("BATCH", ("-" + batch,), name))

    def _run(self, message: Message) -> bool:
        """Look the command up, check its row's rules, call its handler; whether it was done."""
        name = message.command
        command = COMMANDS.get(name)
        try:
            if command is None:
                raise ReplyError("421", name, "Unknown command")
            if not self.client.registered and not command.early:
                raise ReplyError("451", "You have not registered")
            if len(message.params) < command.least:
                raise ReplyError("461", name, "Not enough parameters")
            command.handler(self, message)
        except ReplyError as refusal:
            self.reply(refusal.numeric, *refusal.params)
            return False
        return True


# Registration: https://modern.ircdocs.horse/#connection-setup


def on_cap(session: Session, message: Message) -> None:
    """https://ircv3.net/specs/extensions/capability-negotiation"""
    verb = message.params[0].upper()
    offered = sorted(CAPABILITIES)
    if session.server.history is None:
        offered.remove("draft/chathistory")
    if verb in ("LS", "REQ") and not session.client.registered:
        session.negotiating = True
    if verb == "LS":
        _cap_reply(session, "LS", " ".join(offered))
    elif verb == "LIST":
        held = [cap for cap in offered if session.client.caps & CAPABILITIES[cap]]
        _cap_reply(session, "LIST", " ".join(held))
    elif verb == "REQ":
        words = list(dict.fromkeys(message.text.split())) if len(message.params) > 1 else []
        if all(word.lstrip("-") in offered for word in words):
            for word in words:
                bit = CAPABILITIES[word.lstrip("-")]
                caps = session.client.caps
                session.client.caps = caps & ~bit if word.startswith("-") else caps | bit
            _cap_reply(session, "ACK", " ".join(words))
        else:
            _cap_reply(session, "NAK", " ".join(words)[:300])
    elif verb == "END":
        session.negotiating = False
        _try_to_register(session)
    else:
        raise ReplyError("410", verb, "Invalid CAP command")


def _cap_reply(session: Session, verb: str, words: str) -> None:
    params = (session.client.nickname or "*", verb, words)
    session.tell(Message("CAP", params, session.options.server_name))


def on_pass(session: Session, message: Message) -> None:
    """RFC 2812, 3.1.1"""
    _refuse_if_registered(session)
    session.password = message.params[0]


def on_nick(session: Session, message: Message) -> None:
    """RFC 2812, 3.1.2; also later, to rename."""
    if not message.params or not message.params[0]:
        raise ReplyError("431", "No nickname given")
    nickname = protocol.normalize(message.params[0])
    fault = protocol.nickname_fault(nickname)
    if fault:
        raise ReplyError("432", nickname, fault)
    session.directory.claim(session.client, nickname)
    _try_to_register(session)


def on_user(session: Session, message: Message) -> None:
    """RFC 2812, 3.1.3"""
    _refuse_if_registered(session)
    letters = [char for char in message.params[0] if char.isalnum() and char < "\x7f"]
    session.client.username = "".join(letters[:10]) or "user"
    session.client.realname = protocol.clean(message.params[3], 100)
    session.user_came = True
    _try_to_register(session)


def _refuse_if_registered(session: Session) -> None:
    if session.client.registered:
        raise ReplyError("462", "You may not reregister")


def _try_to_register(session: Session) -> None:
    client, options = session.client, session.options
    if client.registered or not (client.nickname and session.user_came) or session.negotiating:
        return
    wanted, offered = options.password.encode("utf-8"), session.password.encode("utf-8")
    if wanted and not hmac.compare_digest(wanted, offered):
        session.reply("464", "Wrong password.")
        raise Ended("Wrong password", "Ask the host for it, and connect again.")
    client.signed_on = client.spoke = time.time()
    count = session.directory.register(client)
    dialect = PLAIN if client.caps & PLAIN_TEXT else IRC
    log.info("%s registered as %s (%s)", client.address, client.nickname, dialect)
    _watch_line(session)
    people = "1 person is" if count == 1 else "%d people are" % count
    welcome = "Welcome to %s, %s. %s here." % (options.network, client.nickname, people)
    session.reply("001", welcome)
    session.reply("002", "Your host is %s, running Hubbub %s" % (options.server_name, VERSION))
    session.reply("003", "This server was started %s" % time.ctime(session.server.started))
    session.reply("004", options.server_name, "hubbub-" + VERSION, "i", "n")
    session.reply("005", *_isupport(session), "are supported by this server")
    _motd(session)
    if options.lobby:
        on_join(session, Message("JOIN", (options.lobby,)))
    if session.server.history is not None and session.server.history.fault:
        session.say(HISTORY_FAILS)


def _isupport(session: Session) -> List[str]:
    tokens = [
        "NETWORK=" + protocol.escape_token(session.options.network),
        "CASEMAPPING=ascii", "CHANTYPES=#",  # of our folding, the part that clients can do
        "CHANMODES=,,,n", "PREFIX=", "NICKLEN=%d" % protocol.MAX_NAME,
        "CHANNELLEN=%d" % protocol.MAX_NAME, "TOPICLEN=%d" % protocol.MAX_TOPIC,
        "CHANLIMIT=#:%d" % MAX_ROOMS, "MAXTARGETS=%d" % MAX_TARGETS, "UTF8ONLY",
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


def _motd(session: Session) -> None:
    if not session.options.motd:
        session.reply("422", "There is no message of the day")
        return
    session.reply("375", "- %s Message of the day -" % session.options.server_name)
    for line in session.options.motd:
        session.reply("372", line)
    session.reply("376", "End of /MOTD command")


# Talking and rooms


def on_text(session: Session, message: Message) -> None:
    """PRIVMSG and NOTICE: RFC 2812, 3.3. A NOTICE is never answered, not even refused."""
    is_notice = message.command == "NOTICE"
    session.client.spoke = time.time()
    if len(message.params) < 2 or not message.params[1]:
        if is_notice:
            return
        raise ReplyError("412", "No text to send")
    targets = message.params[0]
    if targets.count(",") >= MAX_TARGETS:
        raise ReplyError("407", targets, "Too many targets: %d at most" % MAX_TARGETS)
    tags = message.tags
    if tags:
        tags = {key: value for key, value in tags.items() if key.startswith("+")}
    for target in targets.split(","):
        said = Message(message.command, (target, message.params[1]), "", tags)
        try:
            session.directory.tell(session.client, said)
        except ReplyError as refusal:
            if not is_notice:
                session.reply(refusal.numeric, *refusal.params)


def _for_each(session: Session, names: str, act: Callable[[str], None]) -> None:
    """Act on each of `a,b,c`; one that is refused does not keep the others from it."""
    for name in names.split(","):
        try:
            act(name)
        except ReplyError as refusal:
            session.reply(refusal.numeric, *refusal.params)


def on_join(session: Session, message: Message) -> None:
    """RFC 2812, 3.2.1; "0" leaves every room."""

    def join(name: str) -> None:
        name = protocol.normalize(name)
        fault = protocol.room_fault(name)
        if fault:
            raise ReplyError("403", name, fault)
        event = session.directory.join(session.client, name, session.options.server_name)
        if event is not None:
            session.recall(event, name)

    if message.params[0] == "0":
        for room in session.directory.rooms(session.client):
            session.directory.part(session.client, room.name, "")
    elif message.params[0]:  # irssi sends an empty one, and expects no answer
        _for_each(session, message.params[0], join)


def on_part(session: Session, message: Message) -> None:
    """RFC 2812, 3.2.2"""
    reason = message.params[1] if len(message.params) > 1 else ""
    part = session.directory.part
    _for_each(session, message.params[0], lambda name: part(session.client, name, reason))


def on_chathistory(session: Session, message: Message) -> None:
    """https://ircv3.net/specs/extensions/chathistory"""

    def fail(code: str, text: str) -> ReplyError:
        return ReplyError("FAIL", "CHATHISTORY", code, message.params[0], text)

    history = session.server.history
    if history is None:
        raise fail("MESSAGE_ERROR", "This server keeps no history")
    verb, *params = message.params
    verb = verb.upper()
    points = 2 if verb in ("BETWEEN", "TARGETS") else 1
    wanted = points + (1 if verb == "TARGETS" else 2)
    if verb not in ("LATEST", "BEFORE", "AFTER", "AROUND", "BETWEEN", "TARGETS"):
        raise fail("INVALID_PARAMS", "Unknown command")
    if len(params) < wanted or not params[wanted - 1].isdecimal():
        raise fail("INVALID_PARAMS", "Too few parameters, or a limit that is not a number")
    limit = min(int(params[wanted - 1][:9]), MAX_HISTORY)
    try:
        found = [protocol.parse_point(text) for text in params[wanted - 1 - points : wanted - 1]]
    except ValueError:
        raise fail("INVALID_PARAMS", "Not a msgid or a timestamp") from None
    session.server.delivery.sync()  # what this client has just said is part of it
    if verb == "TARGETS":
        session.replay_targets(min(found)[1], max(found)[0], limit)
        return
    key, since = session.directory.history_key(session.client, params[0])
    before, after = found[0]
    if verb == "LATEST":
        rows = history.read(key, max(since, after), END, limit, latest=True)
    elif verb == "BEFORE":
        rows = history.read(key, since, before, limit, latest=True)
    elif verb == "AFTER":
        rows = history.read(key, max(since, after), END, limit, latest=False)
    elif verb == "AROUND":
        rows = history.read(key, since, before, limit // 2, latest=True)
        rest = limit - len(rows)
        rows += history.read(key, max(since, before - 1), END, rest, latest=False)
    else:
        low, high = sorted(found)
        rows = history.read(key, max(since, low[1]), high[0], limit, latest=found[0] > found[1])
    session.replay(params[0], rows)


def on_topic(session: Session, message: Message) -> None:
    """RFC 2812, 3.2.4"""
    name = message.params[0]
    if len(message.params) > 1:
        topic = message.params[1][: protocol.MAX_TOPIC]
        session.directory.set_topic(session.client, name, topic)
        return
    room = session.directory.room(name)
    if room is None:
        raise ReplyError("403", name, "No such channel")
    if not room.topic:
        raise ReplyError("331", room.name, "No topic is set")
    for reply in topic_replies(room):
        session.reply(reply.command, *reply.params)


def on_names(session: Session, message: Message) -> None:
    """RFC 2812, 3.2.5"""
    names = message.params[0].split(",") if message.params else ["*"]
    for name in names[:MAX_TARGETS]:
        lines = session.directory.names(session.client, name, session.options.server_name)
        session.charge(lines)


def on_list(session: Session, message: Message) -> None:
    """RFC 2812, 3.2.6"""
    wanted = [protocol.casefold(name) for name in message.text.split(",") if name[:1] == "#"]
    rooms = [room for room in session.directory.rooms() if not wanted or room.key in wanted]
    form = [(room.name, str(len(room.members)), room.topic) for room in rooms]
    replies = [Message("322", params) for params in form]
    session.answer([*replies, Message("323", ("End of /LIST",))])


def on_mode(session: Session, message: Message) -> None:
    """RFC 2812, 3.1.5 and 3.2.3: every room is +n, every user +i, and stays so."""
    target, change = message.params[0], message.params[1] if len(message.params) > 1 else ""
    letter = change.lstrip("+-")[:1]
    if not target.startswith("#"):
        if protocol.casefold(target) != protocol.casefold(session.client.nickname):
            raise ReplyError("502", "Cannot change the modes of others")
        if letter not in ("", "i"):
            raise ReplyError("501", "Unknown mode")
        session.reply("221", "+i")
        return
    room = session.directory.room(target)
    if room is None:
        raise ReplyError("403", target, "No such channel")
    if letter == "b":
        session.reply("368", room.name, "End of channel ban list")
    elif letter:
        raise ReplyError("472", letter, "is unknown mode char to me")
    else:
        session.reply("324", room.name, "+n")
        session.reply("329", room.name, str(int(room.created)))


# Asking about people


def on_who(session: Session, message: Message) -> None:
    """RFC 2812, 3.6.1: a room, a person, or everyone."""
    mask = message.params[0] if message.params else "*"
    room = session.directory.room(mask) if mask.startswith("#") else None
    if room is not None:
        found = list(room.members)
    elif mask in ("*", "0"):
        found = session.directory.everyone()
    else:
        found = [client for client in [session.directory.find(mask)] if client]
    place, server_name = room.name if room else "*", session.options.server_name
    replies = [
        Message("352", (place, client.username, client.host, server_name, client.nickname, "H",
                        "0 " + client.realname))
        for client in found
    ]  # fmt: skip
    session.answer([*replies, Message("315", (mask, "End of WHO list"))])


def on_whois(session: Session, message: Message) -> None:
    """RFC 2812, 3.6.2"""
    nickname = message.text
    client = session.directory.find(nickname)
    if client is None:
        session.reply("401", nickname, "No such nick")
    else:
        rooms = session.directory.rooms(client)
        name, now = client.nickname, time.time()
        session.reply("311", name, client.username, client.host, "*", client.realname)
        for text in protocol.pack((room.name for room in rooms), " ", NAMES_SIZE):
            session.reply("319", name, text)
        session.reply("312", name, session.options.server_name, session.options.network)
        times = str(int(now - client.spoke)), str(int(client.signed_on))
        session.reply("317", name, *times, "seconds idle, signon time")
    session.reply("318", nickname, "End of /WHOIS list")


def on_ison(session: Session, message: Message) -> None:
    """RFC 2812, 4.9"""
    asked = [name for param in message.params for name in param.split()]
    session.reply("303", " ".join(client.nickname for client in _found(session, asked)))


def on_userhost(session: Session, message: Message) -> None:
    """RFC 2812, 4.8: five names at most"""
    form = "%s=+%s@%s"
    found = _found(session, message.params[:5])
    session.reply("302", " ".join(form % (c.nickname, c.username, c.host) for c in found))


def _found(session: Session, nicknames: Iterable[str]) -> List[Client]:
    found = (session.directory.find(nickname) for nickname in nicknames)
    return [client for client in found if client is not None]


# The connection


def on_ping(session: Session, message: Message) -> None:
    """RFC 2812, 3.7.2"""
    name = session.options.server_name
    session.tell(Message("PONG", (name, message.params[0]), name))


def on_pong(session: Session, message: Message) -> None:
    """RFC 2812, 3.7.3: that it came was all there is to it."""


def on_motd(session: Session, message: Message) -> None:
    """RFC 2812, 3.4.1"""
    _motd(session)


def on_quit(session: Session, message: Message) -> None:
    """RFC 2812, 3.1.7"""
    raise Ended("Quit: %s" % message.text if message.text else "Quit", "Goodbye.")


class Command(NamedTuple):
    """A row of the table: what runs, and what is checked before it does."""

    handler: Callable[[Session, Message], None]
    least: int = 0  # parameters
    early: bool = False  # allowed before registration
    several: bool = False  # messages answer it: a label gets a batch


COMMANDS = {
    "CAP": Command(on_cap, 1, early=True),
    "CHATHISTORY": Command(on_chathistory, 1, several=True),
    "ISON": Command(on_ison, 1),
    "JOIN": Command(on_join, 1, several=True),
    "LIST": Command(on_list, several=True),
    "MODE": Command(on_mode, 1, several=True),
    "MOTD": Command(on_motd, several=True),
    "NAMES": Command(on_names, several=True),
    "NICK": Command(on_nick, early=True),
    "NOTICE": Command(on_text),
    "PART": Command(on_part, 1),
    "PASS": Command(on_pass, 1, early=True),
    "PING": Command(on_ping, 1, early=True),
    "PONG": Command(on_pong, early=True),
    "PRIVMSG": Command(on_text, 1),
    "QUIT": Command(on_quit, early=True),
    "TOPIC": Command(on_topic, 1, several=True),
    "USER": Command(on_user, 4, early=True),
    "USERHOST": Command(on_userhost, 1),
    "WHO": Command(on_who, several=True),
    "WHOIS": Command(on_whois, 1, several=True),
}


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
        self.delivery = Delivery(options.max_sendq, self.history)
        self.directory = Directory(self.delivery.post)
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
    if not re.match(r"[A-Za-z0-9][A-Za-z0-9.-]{0,62}\Z", name):
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
        fault = password_fault(password)
        if not fault and getpass.getpass("The same again: ") != password:
            fault = "Those were two different passwords. Nothing was changed."
    else:
        try:
            password = sys.stdin.buffer.readline().decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            raise PasswordError("That password is not UTF-8.") from None
        fault = password_fault(password) if password else "No password came on standard input."
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
