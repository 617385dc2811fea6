#!/usr/bin/env python3
"""Hubbub's server: chat rooms for a local network, in IRC and in plain text.

    python3 server.py

Threads:

    main            accepts connections, answers discovery, and ends everything in order
    client H:P      one per connection: reads, frames, parses, checks, decides who is told
    delivery        the only one that writes to a client's socket, and that closes it
    history         (class Journal) writes to disk what the delivery is about to send
    reader          reads from the disk for the others, who give up if it does not answer
    hash_N          compute the hashes of passwords
    handshakes_0    does all TLS handshakes
    console         writes the log

Guarantees:

- One order. Each event is numbered and queued under the directory's lock, so users are told of
  changes in the order in which they happened.
- Store, then deliver. Unless the disk fails, a message is on disk before a client sees it, so an
  echo means stored. If the disk is full, broken or slow, the chat goes on, and users are told
  that nothing is being kept.
- Nobody waits for a slow reader. Unsent bytes wait in the client's outbox; past `--max-sendq`
  that client is disconnected.
- Nobody waits for a flood. Work is paid for in tokens, by the client and by its address, before
  it is done (`Session.charge`); a reader that has none waits.
- A nickname has one holder. The thread that reads a connection removes its client from the
  directory; others ask the delivery to hang up. The owner of an account, and RESUME, take a
  nickname at once: the former holder's thread is refused (`Client.check_end`).
- No thread holds two locks, or uses the disk while it holds the directory's.

A user with `nc` is treated as an IRC client: what they type is translated to messages
(`protocol.compose`), and what they are told to text (`protocol.describe`).

A message: Session reads a line, a handler in COMMANDS checks it, a method of Directory queues an
Event, Delivery has Journal store it, renders it and sends it. A new command is a handler and a
row of COMMANDS; it sets `response.is_long` if both an event and replies answer it.

Contents: Constants; Errors; Dialects; Masks; Command parameters; Capabilities; Clients; Channels;
Events; The directory; Limits; The store; The delivery; Sessions; Commands: registration,
accounts, messages, channels, users, history, moderation, server; The command table; The page; The
server; Finding servers; The command line.
"""

import argparse
import base64
import collections
import contextlib
import errno
import functools
import gc
import getpass
import hashlib
import hmac
import html
import io
import ipaddress
import itertools
import json
import logging
import math
import operator
import os
import pkgutil
import queue
import re
import select
import selectors
import shlex
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
import unicodedata
import weakref
import zipfile
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
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
    Pattern,
    Sequence,
    Set,
    TextIO,
    Tuple,
    TypeVar,
    Union,
)

try:
    import protocol
except ImportError as error:  # only server.py was copied
    print("server.py needs protocol.py beside it: %s." % error, file=sys.stderr)
    sys.exit(2)
from protocol import SERVER, VERSION, Message, ModeChange

try:
    import resource
except ImportError:  # Windows, which has no such limits
    resource = None  # type: ignore[assignment]

log = logging.getLogger("hubbub")
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_Found = TypeVar("_Found", bound=Tuple[Any, ...])

# Constants
# ---------

# Buffers
RECEIVE_SIZE = 16384  # bytes read at once
MAX_PLAIN_LINE = 4096  # bytes of a line from nc; terminals pass on no more at once
MAX_CLIENT_TAGS = 4094  # bytes of the tags of a line, without the "@" and the space
MAX_REQUEST = 8192  # bytes of a browser's request, with its blank line
MAX_PENDING = 10000  # events in the delivery's queue, above which readers wait
MAX_BATCH = 500  # events delivered together: bounds what a batch adds to an outbox
MAX_YIELDS = 30  # times that a busy delivery lets readers go on before its next batch
MAX_BACKLOG = 20000  # messages kept in memory while the disk fails
MANY_REPLIES = 20  # after which a reader waits for their delivery
MAX_AHEAD = 1 << 16  # bytes in its outbox with which it goes on, though they are unsent
MAX_ADDRESS_OUTBOX = 32 << 20  # bytes in the outboxes of an address that its sockets do not take
MAX_OUTBOXES = 256 << 20  # the same of all addresses
MAX_TLS_ANSWERS = 1 << 16  # bytes, to requests for new keys, that wait beside an outbox
MAX_SELECT = 500  # sockets in a call of select: Windows takes 512

# Prices of work, in tokens of --rate-limit
BURST = 100  # tokens at once of a client
ADDRESS_SHARE = 10  # clients whose rate an address has
ADDRESS_BURST = 2000  # of an address: a class of 30 joins, and each pastes 30 lines
BYTES_PER_TOKEN = 512  # of input, beside 1 for a line
ROWS_PER_TOKEN = 100  # users or channels looked at, or replies
MASKS_PER_ROW = 4  # masks that a channel is compared with in the time of a reply
PIECE_PRICE = 0.1  # for a read that completes no line, such as a key in a terminal
CONNECTION_PRICE = 1
REQUEST_PRICE = 5  # for the page, or the client
WATCHERS_PER_TOKEN = 10  # users who are told of a nickname by MONITOR
REGISTRATION_PRICE = 3
JOIN_PRICE = 1  # beside a line's, for leaving: the end of a connection waits for no tokens
TLS_PRICE = 8  # for a handshake, which takes a millisecond
PASSWORD_PRICE = 5  # for a hash

# Limits of a client
MAX_CHANNELS = 50  # channels of a client
MAX_WATCHES = 100  # nicknames in MONITOR
MAX_SASL = 4096  # characters of base64 in all chunks of an AUTHENTICATE
MAX_LABEL = 64  # bytes; a longer label is ignored (labeled-response)
NOTE_BYTES = 100  # at most, of the NOTE about a mute beside its text and nickname
MAX_REASON = 200  # characters of an away message, and of the reason for a kick or a ban
MAX_REALNAME = 100  # characters
MAX_CONDITIONS = 20  # of a LIST
MAX_LIMIT = 99999  # members, in mode +l

# Limits of the server
MAX_SERVER_CHANNELS = 10000
MAX_BANS = 100  # ban masks of a channel
MAX_WHOWAS = 500  # nicknames that WHOWAS remembers

# The history
RECALL_LINES = 20  # earlier messages that a joining client is shown
MAX_HISTORY = 500  # earlier messages in an answer
MAX_FOUND = 100  # of them that a search finds
SEARCHED_AT_ONCE = 1000  # messages that a search reads in a step
SEARCHED_PER_TOKEN = 2000
SEARCH_TIME = 5.0  # seconds after which a search answers with what it has found
SAME_TIME = 100  # messages above a limit, if they share a millisecond with the last
MAX_KEPT_TAGS = 512  # bytes of a message's tags that are stored; longer ones are dropped
MAX_NUMBER = 1 << 62  # above the number of every event
NAMES_SIZE = 180  # bytes of names in a line, beside the longest of all other parameters

# Finding servers
DISCOVERY_PORT = protocol.PORT  # of UDP, where clients ask, beside the server's own
ANSWER_RATE = 50  # answers a second
MAX_DATAGRAMS = 20  # datagrams that are read before the next connection is accepted

# Times, in seconds
PROMPT_AFTER = 1.0  # silence before a new connection is asked for a username
MAX_REST = 30.0  # time for lines that a peer sent before it closed its end
LINGER = 2.0  # time for an ended client to read what was sent, and to close
SHUTDOWN_TIME = 1.0  # time for all connections to end when the server stops
STORE_TIMEOUT = 1.0  # time that a batch waits for the disk
RETRY_AFTER = 5.0  # between attempts to use a disk that failed
UPKEEP_INTERVAL = 2.0  # between checks for changed accounts, and for messages to delete
UNUSED_INTERVAL = 600.0  # between checks for unused channels; time to return after a restart
UNUSED_SAVED = 3600.0  # between saves of the time for which a channel has been unused
MAX_UNUSED = 30 * 86400.0  # of running, after which a channel that nobody enters is deleted
STOP_TIMEOUT = 8.0  # time for a server that is to stop: --stop
COMMAND_TIMEOUT = 2.0  # time for a command of the system that tells the addresses
OPENSSL_TIMEOUT = 30.0  # time for openssl to make a certificate
SELECT_PAUSE = 0.02  # between checks of more sockets than select takes
FOREVER = 86400.0  # a timeout where there is none: None would make writes block, too

HISTORY_FAILS = "The server's disk is not working. Messages will be saved once it works again."
HISTORY_LOST = "The server's disk is not working, and some messages will not be saved."
HISTORY_WORKS = "Messages are being saved again."
NO_ACCOUNTS = "This server keeps no accounts."
NOT_ENCRYPTED = (
    "This chat is for encrypted connections only. Turn on TLS in your IRC client, or use"
    " Hubbub's own, or ncat --ssl."
)

OWN_CERTIFICATE = "tls.pem"  # the file of the certificate that the server makes

# What an address may do: tokens a second, and tokens at once
LIMITS = {
    "guess": (0.1, 5),  # wrong passwords for an account, or keys for a channel
    "guesses": (1.0, 300),  # wrong passwords in all: a classroom may share an address
    "registration": (1 / 120, 30),  # accounts: a class at once, and the next class an hour later
    # At this rate, unused channels are deleted before an address has made MAX_SERVER_CHANNELS.
    "founding": (1 / 300, 200),
    # Messages that wait for an account, beside MAX_WAITING: from a sender, and from an address
    "mail": (1 / 60, 50),
    "address_mail": (1 / 60, 200),
    "storing": ((50 << 20) / 3600, 50 << 20),  # bytes of the history
}


class Options(NamedTuple):
    """Options of the command line, with its defaults. 0 turns a limit off."""

    host: str = "0.0.0.0"
    port: int = protocol.PORT
    network: str = protocol.DEFAULT_NETWORK  # the name that people see
    server_name: str = "hubbub.local"  # the name that IRC clients see
    lobby: str = "#lobby"  # "" places nobody in a channel
    motd: Tuple[str, ...] = ()
    password: str = ""
    rate_limit: float = 10.0  # lines a second
    max_clients: int = 10000
    max_per_address: int = 256
    register_timeout: float = 30.0  # seconds
    ping_interval: float = 60.0  # seconds
    max_sendq: int = 1024 * 1024  # bytes
    data: str = ""  # folder of the store; "" keeps nothing
    history_days: float = 0.0  # days to keep history; 0 is forever
    max_history: float = 1024.0  # MiB of history, accounts and channels
    tls_cert: str = ""  # file (PEM); "" makes one in the folder of the store
    tls_key: str = ""
    require_tls: bool = False
    discovery: bool = True  # answer clients that look for servers


# Errors
# ------


class Disconnect(Exception):
    """Ends a connection: `reason` is for others, `farewell` (or "") for its client's ERROR."""

    def __init__(self, reason: str, farewell: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.farewell = farewell


class ReplyError(Exception):
    """Refuses a command: numeric (or FAIL) and parameters of the reply, text last."""

    def __init__(self, numeric: str, *params: str) -> None:
        super().__init__(numeric, *params)
        self.numeric = numeric
        self.params = params


class CertificateError(Exception):
    """There is no certificate that can be used; the text says why. The host's fault."""


# Dialects
# --------

IRC, PLAIN, TLS, HTTP = "IRC", "plain text", "TLS", "HTTP"
_OPENERS = frozenset("CAP NICK PASS USER AUTHENTICATE STARTTLS PING WEBIRC PROTOCTL".split())
_HTTP = re.compile(rb"(?:GET|HEAD|POST|PUT|DELETE|CONNECT|OPTIONS|TRACE|PATCH|PRI) ")
_TELNET = re.compile(rb"\xff(?:[\xfb-\xfe].?|\xfa.*?(?:\xff\xf0|\Z)|.)?", re.DOTALL)
# Verbs of the chat box that a user with nc has
PLAIN_VERBS = {
    name: verb for name, verb in protocol.VERBS.items() if name not in protocol.CLIENT_VERBS
}


def sniff(data: bytes) -> Optional[str]:
    """Return the dialect of a connection from its first bytes; None if it takes more of them.

    A whole line is needed to tell a user called Nick from the command NICK. HTTP is recognised
    by its first word alone, before anything that a web page can choose.
    """
    if data[:1] == b"\x16":
        return TLS
    if _HTTP.match(data):
        return HTTP
    line, end, _ = data.partition(b"\n")
    if not end and len(data) <= MAX_PLAIN_LINE:
        return None
    try:
        message = protocol.parse(line.rstrip(b"\r"), "replace")
    except protocol.ProtocolError:
        return PLAIN
    is_opener = message.command in _OPENERS and message.params
    return IRC if is_opener or message.command == "QUIT" else PLAIN


def decode_plain(line: bytes) -> str:
    """Return the text of a plain-text line: without telnet's commands, and safe to show.

    Backspace and Delete, which some terminals send as characters, take the last character away.
    """
    if b"\xff" in line:
        line = _TELNET.sub(b"", line)
    text = line.decode("utf-8", "replace")
    if "\b" in text or "\x7f" in text:
        kept: List[str] = []
        for char in text:
            kept[-1:] = kept[-1:] + [char] if char not in "\b\x7f" else []
        text = "".join(kept)
    return protocol.clean(text, MAX_PLAIN_LINE).rstrip()


def to_username(text: str) -> str:
    """Return the user part of a source, ASCII letters and digits, from what USER gave."""
    kept = "".join(char for char in text if char.isalnum() and char < "\x7f")
    return kept[: protocol.MAX_USERNAME] or "user"


def describe_with_channel(
    message: Message, me: str, when: float, lobby: str
) -> Optional[protocol.Line]:
    """Describe a message for plain text, naming the channel unless it is the lobby."""
    line = protocol.describe(message, me, when, lobby)
    channel = message.param(0)
    if line is None or line.kind not in (protocol.FROM_ME, protocol.FROM_OTHERS):
        return line
    if protocol.casefold(channel) == protocol.casefold(lobby):
        return line
    if line.head.endswith("]:"):
        return line._replace(head="%s in %s]:" % (line.head[:-2], channel))
    return line._replace(text="%s (in %s)" % (line.text, channel))


# Masks
# -----


class MaskSet:
    """An immutable set of masks, in which * stands for any characters and ? for a single character.

    Each mask is compiled once. Names are compared casefolded. A match takes time linear in the
    text and the masks, however many stars they have.
    """

    __slots__ = ("_patterns",)

    def __init__(self, masks: Iterable[str] = ()) -> None:
        self._patterns = {mask: _compile_mask(mask) for mask in masks}

    def replace(self, masks: Iterable[str]) -> "MaskSet":
        """Return a set of these masks, compiling only those that are new."""
        result, known = MaskSet(), self._patterns
        result._patterns = {mask: known.get(mask) or _compile_mask(mask) for mask in masks}
        return result

    def match(self, text: str) -> bool:
        """Return True if a mask of the set matches all of `text`."""
        folded = protocol.casefold(text)
        return any(pattern.match(folded) for pattern in self._patterns.values())


def _compile_mask(mask: str) -> Pattern[str]:
    first, *rest = (
        re.escape(part).replace(r"\?", ".")
        for part in re.sub(r"\*+", "*", protocol.casefold(mask)).split("*")
    )
    if not rest:
        return re.compile("(?s)%s\\Z" % first)
    *middle, last = rest
    # What stands between two stars is matched at its first place for good: a lookahead is never
    # entered again, so that there is no backtracking.
    atoms = "".join("(?=(?P<g%d>.*?%s))(?P=g%d)" % (n, part, n) for n, part in enumerate(middle, 1))
    return re.compile("(?s)%s%s.*%s\\Z" % (first, atoms, last))


# Command parameters
# ------------------

# https://ircv3.net/specs/extensions/chathistory; LATEST alone may refer to "*"
_REFERENCES = {"LATEST": 1, "BEFORE": 1, "AFTER": 1, "AROUND": 1, "BETWEEN": 2, "TARGETS": 2}

# A position in the history: a msgid, or a time in seconds since 1970.
Reference = Union[int, float]
# The same in numbers: those below the first are before it, those above the second after it.
Span = Tuple[int, int]


class HistoryQuery(NamedTuple):
    """The parameters of CHATHISTORY."""

    verb: str
    target: str  # a channel or a nickname, "" for TARGETS
    references: List[Reference]
    limit: int


def parse_reference(text: str) -> Reference:
    """Parse `msgid=N` or `timestamp=T`; "*" is before everything. Raises ValueError."""
    kind, _, value = text.partition("=")
    if text == "*":
        return 0
    if kind == "msgid" and value.isdecimal() and len(value) < 19:
        return int(value)
    if kind != "timestamp":
        raise ValueError("neither msgid nor timestamp: %.40r" % text)
    return protocol.parse_time(value)


def parse_chathistory(params: Sequence[str]) -> HistoryQuery:
    """Parse CHATHISTORY's parameters. Raises ProtocolError with a text for users."""
    verb, *rest = params
    verb = verb.upper()
    if verb not in _REFERENCES:
        raise protocol.ProtocolError("Unknown command")
    target = rest.pop(0) if rest and verb != "TARGETS" else ""
    if len(rest) != _REFERENCES[verb] + 1 or not rest[-1].isdecimal():
        raise protocol.ProtocolError("Too few parameters, too many, or a limit that is no number")
    *texts, limit = rest
    if "*" in texts and verb != "LATEST":
        raise protocol.ProtocolError("Not a msgid or a timestamp")
    try:
        references = [parse_reference(text) for text in texts]
    except ValueError:
        raise protocol.ProtocolError("Not a msgid or a timestamp") from None
    return HistoryQuery(verb, target, references, int(limit[:9]))


def join_sasl(chunks: Sequence[str]) -> Optional[bytes]:
    """Return the decoded data in chunks of AUTHENTICATE, None before the last has come.

    https://ircv3.net/specs/extensions/sasl-3.1. Raises TooLongError for a chunk over SASL_CHUNK
    (905), and ProtocolError for chunks that are not base64 or exceed MAX_SASL together (904).
    """
    text = "".join(chunk for chunk in chunks if chunk != "+")
    if len(chunks[-1]) > protocol.SASL_CHUNK:
        raise protocol.TooLongError("more than %d characters at once" % protocol.SASL_CHUNK)
    if len(text) > MAX_SASL:
        raise protocol.ProtocolError("more than %d characters" % MAX_SASL)
    if len(chunks[-1]) == protocol.SASL_CHUNK:
        return None
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise protocol.ProtocolError("not base64") from None


def parse_sasl_plain(data: bytes) -> Tuple[str, str, str]:
    """Return authorization identity (often ""), account and password (RFC 4616).

    Raises ProtocolError if `data` is not a PLAIN message.
    """
    try:
        authzid, authcid, password = data.decode("utf-8").split("\0")
    except ValueError:
        raise protocol.ProtocolError("not PLAIN") from None
    if not authcid or not password:
        raise protocol.ProtocolError("no name, or no password")
    return authzid, authcid, password


def format_left(seconds: float) -> str:
    """Format the time that is left of a duration: above a minute, in minutes, rounded up."""
    whole = max(1, math.ceil(seconds))
    return protocol.format_duration(whole if whole <= 60 else math.ceil(whole / 60) * 60)


# In the order of the reply (https://ircv3.net/specs/extensions/whox)
_WHOX_FIELDS = "tcuihsnfdlaor"
_BOUND = re.compile(r"([CT]?)([<>])([0-9]{1,9})\Z", re.IGNORECASE)


def parse_whox(text: str) -> Tuple[str, str]:
    """Return fields, in the order of the reply, and token of WHO's "%fields,token".

    Returns ("", "") if no fields are asked for. A token has at most three digits, or is "".
    """
    asked, _, token = text.partition("%")[2].partition(",")
    fields = "".join(field for field in _WHOX_FIELDS if field in asked)
    return fields, token if fields and re.match(r"[0-9]{1,3}\Z", token) else ""


def parse_elist(text: str) -> Callable[[str, int, float, float], bool]:
    """Return a test of the conditions in LIST's parameter, at most MAX_CONDITIONS.

    Separated by commas: names and masks (`#tea`, `*x*`, `!*x*`), users (`>4`, `<9`), minutes
    since the creation (`C>60`) and since the last topic (`T<5`). Modern IRC, "LIST message";
    ISUPPORT's ELIST=CMNTU.
    """
    items = [item for item in text.split(",") if item][:MAX_CONDITIONS]
    bounds = [match for match in map(_BOUND.match, items) if match]
    masks = [item for item in items if not _BOUND.match(item)]
    wanted = MaskSet([mask for mask in masks if mask[0] != "!"] or ["*"])
    unwanted = MaskSet(mask[1:] for mask in masks if mask[0] == "!")

    def accepts(name: str, users: int, age: float, topic_age: float) -> bool:
        """Return True if a channel meets all conditions; ages in minutes, NaN without a topic."""
        values = {"": users, "C": age, "T": topic_age}
        for what, sign, bound in (match.groups() for match in bounds):
            value = values[what.upper()]
            if not (value > int(bound) if sign == ">" else value < int(bound)):
                return False
        return wanted.match(name) and not unwanted.match(name)

    return accepts


def channel_error(name: str) -> str:
    """Return the rule that a channel's name breaks, in words for the user; "" if it is valid."""
    if not 2 <= len(name) <= protocol.MAX_NAME or name[0] != "#":
        return "A room's name is # and 1 to %d more characters." % (protocol.MAX_NAME - 1)
    if any(unicodedata.category(c)[0] in "CZ" or c in ",:*?!@" for c in name):
        return "A room's name has no spaces and none of , : * ? ! @"
    if unicodedata.category(name[1])[0] == "M":
        return "A room's name begins with # and a letter."
    return protocol.spelling_error(name)


def normalize_target(text: str) -> str:
    """Return the name, address or network of a server's ban in the form in which it is stored."""
    network = _to_network(text)
    if network is None:
        return protocol.casefold(text)
    return str(network.network_address if network.num_addresses == 1 else network)


def target_matches(target: str, names: Iterable[str], address: str) -> bool:
    """Return True if a ban applies to a client with these casefolded names and this address."""
    network = _to_network(target)
    if network is None:
        return protocol.casefold(target) in names
    host = _to_network(address)
    return host is not None and host.network_address in network


def is_target(text: str) -> bool:
    """Return True for a name, an address or a network."""
    return protocol.is_nickname(text) or _to_network(text) is not None


@functools.lru_cache(maxsize=4096)
def _to_network(text: str) -> Union[ipaddress.IPv4Network, ipaddress.IPv6Network, None]:
    """Return the network of an address, or of an address and a prefix; None for a name."""
    if "%" in text:  # a zone, which may be any text
        return None
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


# Capabilities
# ------------

# IRCv3 capabilities (https://ircv3.net/irc/) are bits of Client.caps. PLAIN_TEXT is an extra bit
# for a user with nc, who is also shown their own messages.
CAPABILITIES = {
    name: 1 << bit
    for bit, name in enumerate(
        "account-notify account-tag away-notify batch draft/account-registration draft/chathistory"
        " draft/event-playback echo-message extended-join hubbub/resume"
        " invite-notify labeled-response message-tags multi-prefix sasl server-time setname"
        " soju.im/search standard-replies".split()
    )
}
PLAIN_TEXT = 1 << len(CAPABILITIES)
BATCH = CAPABILITIES["batch"]
CHATHISTORY = CAPABILITIES["draft/chathistory"]
ECHO_MESSAGE = CAPABILITIES["echo-message"]
EXTENDED_JOIN = CAPABILITIES["extended-join"]
MESSAGE_TAGS = CAPABILITIES["message-tags"]
SEARCH = CAPABILITIES["soju.im/search"]
SERVER_TIME = CAPABILITIES["server-time"]
STANDARD_REPLIES = CAPABILITIES["standard-replies"]
TAGS = SERVER_TIME | MESSAGE_TAGS | CAPABILITIES["account-tag"]
# Commands that are sent only to clients with a capability
_NEEDS = {
    "ACCOUNT": CAPABILITIES["account-notify"],
    "AWAY": CAPABILITIES["away-notify"],
    "BATCH": BATCH,
    "SETNAME": CAPABILITIES["setname"],
    "TAGMSG": MESSAGE_TAGS,
}


# Clients
# -------


class Client:
    """A connection, its user and its outbox.

    `reader` and `writer` are two views of one descriptor: reads block with a timeout, writes
    never block.
    """

    response: "Response"  # to its command; used by its own thread alone
    bucket: "Bucket"  # its tokens of --rate-limit; used by its own thread alone

    IDENTITY = (  # state of the user, which RESUME moves to another connection
        "account", "away", "bucket", "channels", "invited", "named_since", "nickname", "realname",
        "registered", "signed_on", "spoke", "username", "watches",
    )  # fmt: skip

    def __init__(self, reader: socket.socket, host: str, port: int) -> None:
        reader.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reader = reader
        kind = reader.family, reader.type, reader.proto
        self.writer = socket.socket(*kind, fileno=reader.fileno())
        self.writer.settimeout(0)
        self.host = host
        self.address = protocol.format_address(host, port)
        self.tls: Optional[protocol.TlsPipe] = None  # set by its own thread, before all output
        self._tls_lock = threading.Lock()  # guards what is in `tls`; never held for the socket
        # Written by the client's own thread alone:
        self.caps = 0  # PLAIN_TEXT for a user with nc
        self.signed_on = self.spoke = 0.0  # seconds since 1970
        # Guarded by the directory's lock:
        self.nickname = self.realname = ""
        self.username = "user"
        self.source = ""  # nickname!user@host
        self.account = NO_ACCOUNT  # logged in to
        self.away = ""  # the reason, "" if present
        self.tags: Tuple[Tag, ...] = ()  # of each of its messages
        self.named_since = 0  # number of the event that gave it the nickname
        self.registered = False
        self.channels: Set[Channel] = set()
        self.invited: weakref.WeakSet[Channel] = weakref.WeakSet()
        self.watches: Dict[str, str] = {}  # casefolded nicknames to the spelling asked for
        # The sender of the last private message: its nickname, and its `readable_since`, which is
        # different if the nickname has changed hands
        self.correspondent = "", 0
        self.token = ""  # for RESUME
        self.unpaid = 0  # bytes that it had stored, and that its address is not charged for yet
        # Written by any thread that applies sanctions:
        self.mute: Optional[Sanction] = None
        # Written by the delivery alone:
        self.outbox: List[Union[bytes, memoryview]] = []
        self.queued = 0  # bytes in it
        self.is_blocked = False  # the socket is full; the selector tells when it is not
        self.is_closed = False  # nothing is put into the outbox any more
        self.finishing = False  # no more is sent once the outbox is empty
        # Why another thread ends the connection; the client's own reads it and leaves.
        self.end_reason = ""

    @property
    def folded(self) -> str:
        """The casefolded nickname."""
        return protocol.casefold(self.nickname)

    @property
    def log_name(self) -> str:
        return "%s (%s)" % (self.address, self.nickname) if self.nickname else self.address

    @property
    def is_operator(self) -> bool:
        """True for an operator of the whole server."""
        return self.account.is_operator

    def owns(self, nickname: str) -> bool:
        """Return True if the nickname is that of the account that it is logged in to."""
        is_same = protocol.casefold(self.account.name) == protocol.casefold(nickname)
        return bool(nickname) and is_same

    @property
    def participant(self) -> str:
        """Identity in private conversations: its account if it owns the nickname, else that."""
        return "=%d" % self.account.id if self.owns(self.nickname) else self.folded

    @property
    def readable_since(self) -> int:
        """The number after which it may read the messages of its private conversations."""
        return 0 if self.owns(self.nickname) else self.named_since

    def check_lookalike(self, nickname: str, names: Mapping[str, Set[str]]) -> None:
        """Raise ReplyError 433 for a nickname that could be taken for another's.

        `names` are those of others, by skeleton.
        """
        own = self.folded, protocol.casefold(self.account.name)
        keys = letters_keys(nickname) | {protocol.skeleton(nickname)}
        alike = {name for key in keys for name in names.get(key, ())}
        others = [name for name in alike if protocol.casefold(name) not in own]
        other = next((name for name in others if is_lookalike(name, nickname)), "")
        if other and not self.owns(nickname):
            text = "%s looks like %s, which is the name of another user. Choose another."
            raise ReplyError("433", nickname, other, text % (nickname, other))

    def decrypt(self, data: bytes) -> bytes:
        """Return what the peer said in bytes from the socket. Raises Disconnect."""
        if self.tls is None:
            return data
        with self._tls_lock:
            try:
                said = self.tls.receive(data)
            except ssl.SSLError:
                raise Disconnect("Encryption failed") from None
            if self.tls.pending > MAX_TLS_ANSWERS:
                raise Disconnect("SendQ exceeded")
        return said

    def encrypt_outbox(self, tls: protocol.TlsPipe) -> None:
        """Encrypt what is new in the outbox, and what TLS itself has to say, in a single call."""
        start = int(self.is_blocked)  # the rest that the socket did not take is encrypted already
        with self._tls_lock:
            with contextlib.suppress(ssl.SSLError):  # its own thread notices, too
                tls.send(b"".join(self.outbox[start:]))
                if self.finishing:
                    tls.close()
            self.outbox[start:] = [tls.outgoing()]

    def check_end(self) -> None:
        """Raise Disconnect if another thread ends the connection: it may have lost its nickname."""
        if self.end_reason:
            raise Disconnect(self.end_reason)

    def refresh(self) -> None:
        """Recompute `source` and `tags`."""
        self.source = "%s!%s@%s" % (self.nickname, self.username, self.host)
        account = (CAPABILITIES["account-tag"], make_tag("account", self.account.name))
        self.tags = (account,) if self.account.id else ()


def is_lookalike(name: str, other: str) -> bool:
    """Return True for two names with the same skeleton that could be taken for each other."""
    folded, other_folded = protocol.casefold(name), protocol.casefold(other)
    is_honest = {name[:1], other[:1]} == {"I", "L"} and folded[1:] == other_folded[1:]  # Iida, Lida
    return folded != other_folded and not is_honest


def letters_keys(name: str) -> Set[str]:
    """Return keys of the letters of a name; i, l and 1 are the same letter.

    Names that have a key in common may be taken for each other.
    """
    texts = name, name.strip("0123456789-_|`^[]{}\\")
    plain = (re.sub("[l1!]", "i", protocol.skeleton(text)) for text in texts)
    keys = {"".join(c for c in text if unicodedata.category(c)[0] in "LM") for text in plain}
    return {"=" + key for key in keys if key}


def private_conversation(first: str, second: str) -> str:
    """Return the name of the conversation of two participants, the same for both."""
    return " ".join(sorted([first, second]))


# Channels
# --------

CHANOP, VOICE = 2, 1  # bits of a member: @ and +
_PREFIXES = ("", "+", "@", "@+")
_MEMBER_BITS = {"o": CHANOP, "v": VOICE}
_NICKNAME = operator.attrgetter("nickname")


class Topic(NamedTuple):
    """The topic of a channel; the text is "" if there is none."""

    text: str = ""
    by: str = ""
    at: float = 0.0  # seconds since 1970


class ChannelBan(NamedTuple):
    """A ban mask of a channel."""

    mask: str
    by: str
    at: int  # seconds since 1970


def format_modes(changes: Iterable[ModeChange]) -> Tuple[str, ...]:
    """Return MODE's parameters after the target, () for none: the inverse of `parse_modes`."""
    letters, sign, args = "", "", []
    for change in changes:
        if sign != "-+"[change.adding]:
            sign = "-+"[change.adding]
            letters += sign
        letters += change.letter
        if change.arg:
            args.append(change.arg)
    return (letters, *args) if letters else ()


def split_modes(changes: List[ModeChange], source: str, target: str) -> List[Tuple[str, ...]]:
    """Return `format_modes` split so that each part fits into a MODE message."""
    words = format_modes(changes)
    line = protocol.serialize_untagged(Message("MODE", (target, *words), source))
    if len(line) <= protocol.MAX_MESSAGE or len(changes) == 1:
        return [words]
    half = len(changes) // 2
    parts = changes[:half], changes[half:]
    return [words for part in parts for words in split_modes(part, source, target)]


def parse_limit(text: str) -> int:
    """Return the argument of mode +l, 1 to MAX_LIMIT; 0 if it is no such number."""
    limit = int(text) if text.isdecimal() and len(text) < 10 else 0
    return limit if limit <= MAX_LIMIT else 0


class Channel:
    """A channel, its members and its modes. Changed under the directory's lock alone.

    Other threads may read it: containers are replaced as a whole, never changed in size.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.folded = protocol.casefold(name)
        self.created = time.time()
        self.set_members({})
        self.topic = Topic()
        self.flags: FrozenSet[str] = frozenset("n")
        self.usual_flags = self.flags  # until operators change them
        self.key = ""  # mode k
        self.limit = 0  # mode l
        self.bans: Tuple[ChannelBan, ...] = ()
        self.ban_masks = MaskSet()
        self.operators: FrozenSet[int] = frozenset()  # accounts that are chanops when they join
        self.restricted_since = 0  # number of the event from which on it has been
        self.unused = 0.0  # seconds for which the server has run while it was empty
        self.is_saved = False  # the store has it

    def set_members(self, members: Dict[Client, int]) -> None:
        """Replace the members, in order of joining, each with CHANOP and VOICE."""
        self.members = members
        self.audience = tuple(members)  # the same tuple until they change

    def names(self) -> List[Tuple[str, int]]:
        """Return the nicknames of the members as they are now, and their bits; in few steps."""
        return list(zip(map(_NICKNAME, self.members), self.members.values()))

    def set_bans(self, bans: Tuple[ChannelBan, ...]) -> None:
        self.bans = bans
        self.ban_masks = self.ban_masks.replace(ban.mask for ban in bans)

    @property
    def is_restricted(self) -> bool:
        """True if its history is not for everyone."""
        return bool(self.key or self.limit or self.bans or self.flags & {"i", "s"})

    @property
    def is_persistent(self) -> bool:
        """True if it is kept over a restart, and if it has an owner, when it is empty."""
        is_plain = self.flags == self.usual_flags and not (self.key or self.limit or self.bans)
        return bool(self.topic.text) or not is_plain

    def is_chanop(self, client: Client) -> bool:
        """Return True for a chanop, and for an operator of the server."""
        return client.is_operator or bool(self.members.get(client, 0) & CHANOP)

    def speak_error(self, client: Client) -> str:
        """Return why `client` may not speak there, "" if it may."""
        is_privileged = bool(self.members.get(client)) or client.is_operator
        if client not in self.members and "n" in self.flags:
            return "Cannot send to a channel that you are not in"
        if "m" in self.flags and not is_privileged:
            return "Only operators and those with a voice may speak in %s" % self.name
        if self.bans and not is_privileged and self.ban_masks.match(client.source):
            return "You are banned from %s, and may not speak there" % self.name
        return ""

    # Permission checks; each raises ReplyError if `client` lacks the right.

    def check_chanop(self, client: Client) -> None:
        if not self.is_chanop(client):
            raise ReplyError("482", self.name, "You're not channel operator")

    def check_can_join(self, client: Client, key: str) -> None:
        if client.is_operator or client.account.id in self.operators:
            return
        if self.ban_masks.match(client.source):
            raise ReplyError("474", self.name, "Cannot join channel (+b)")
        if self in client.invited:
            return
        for is_refused, numeric, letter in (
            ("i" in self.flags, "473", "i"),
            (self.key and key != self.key, "475", "k"),
            (self.limit and len(self.members) >= self.limit, "471", "l"),
        ):
            if is_refused:
                raise ReplyError(numeric, self.name, "Cannot join channel (+%s)" % letter)

    def check_can_speak(self, client: Client) -> None:
        text = self.speak_error(client)
        if text:
            raise ReplyError("404", self.name, text)

    def check_member(self, client: Client) -> Client:
        """Return the client if it is a member."""
        if client not in self.members:
            raise ReplyError("441", client.nickname, self.name, "They aren't on that channel")
        return client

    # Modes

    def change(
        self, change: ModeChange, by: Client, find: Callable[[str], Client]
    ) -> Optional[ModeChange]:
        """Apply a change and return the effective change, or None; `find` is `Directory.get`."""
        adding, letter, arg = change
        kind = protocol.CHANNEL_MODES.get(letter)
        if kind is None:
            raise ReplyError("472", letter, "is unknown mode char to me")
        if kind != "flag" and not arg and (adding or letter not in "kl"):
            raise ReplyError("696", self.name, letter, "*", "This mode needs a parameter")
        if kind == "member":
            return self._change_member(change, self.check_member(find(arg)))
        if letter == "b":
            return self._change_ban(change, by)
        if letter in "kl":
            return self._change_key(change) if letter == "k" else self._change_limit(change)
        if adding == (letter in self.flags):
            return None
        self.flags ^= {letter}
        return change

    def _change_member(self, change: ModeChange, member: Client) -> Optional[ModeChange]:
        bits, bit = self.members[member], _MEMBER_BITS[change.letter]
        if bit == CHANOP and member.account.id:
            self.operators -= {member.account.id}
            if change.adding:
                self.operators |= {member.account.id}
        if bool(bits & bit) == change.adding:
            return None
        self.members[member] = bits ^ bit
        return change._replace(arg=member.nickname)

    def _change_ban(self, change: ModeChange, by: Client) -> Optional[ModeChange]:
        mask = protocol.normalize_mask(change.arg)
        key = protocol.casefold(mask)
        known = [ban for ban in self.bans if protocol.casefold(ban.mask) == key]
        if change.adding == bool(known):
            return None
        if known:
            self.set_bans(tuple(ban for ban in self.bans if ban not in known))
            return change._replace(arg=known[0].mask)
        if len(self.bans) >= MAX_BANS:
            raise ReplyError("478", self.name, "b", "Channel list is full")
        self.set_bans((*self.bans, ChannelBan(mask, by.nickname, int(time.time()))))
        return change._replace(arg=mask)

    def _change_key(self, change: ModeChange) -> Optional[ModeChange]:
        if not change.adding:
            old, self.key = self.key, ""
            return change._replace(arg="*") if old else None
        if not protocol.is_key(change.arg):
            raise ReplyError("696", self.name, "k", "*", "A password has no spaces and no commas")
        self.key = change.arg
        return change

    def _change_limit(self, change: ModeChange) -> Optional[ModeChange]:
        if not change.adding:
            old, self.limit = self.limit, 0
            return change if old else None
        limit = parse_limit(change.arg)
        if not limit:
            raise ReplyError("696", self.name, "l", change.arg, "A limit is a number above 0")
        self.limit = limit
        return change._replace(arg=str(limit))

    def mode_params(self, client: Client) -> Tuple[str, ...]:
        """Return the parameters of 324; only members see the key."""
        changes = [ModeChange(True, flag, "") for flag in sorted(self.flags)]
        if self.key:
            is_shown = client in self.members or client.is_operator
            changes.append(ModeChange(True, "k", self.key if is_shown else "*"))
        if self.limit:
            changes.append(ModeChange(True, "l", str(self.limit)))
        return format_modes(changes) or ("+",)

    def state(self) -> Dict[str, Any]:
        """Return what the store keeps of it, for JSON."""
        saved = ("name", "topic", "created", "unused", "restricted_since", "limit", "bans")
        state = {name: getattr(self, name) for name in saved}
        state.update(flags=sorted(self.flags), operators=sorted(self.operators))
        return dict(state, password=self.key, usual_flags=sorted(self.usual_flags))

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> "Channel":
        """Return the channel of `state`."""
        channel = cls(state["name"])
        channel.topic, channel.created = Topic(*state["topic"]), state["created"]
        channel.unused, channel.restricted_since = state["unused"], state["restricted_since"]
        channel.key, channel.limit = state["password"], state["limit"]
        channel.set_bans(tuple(ChannelBan(*ban) for ban in state["bans"]))
        channel.flags = frozenset(state["flags"])
        channel.usual_flags = frozenset(state.get("usual_flags", "n"))
        channel.operators = frozenset(state["operators"])
        channel.is_saved = True
        return channel


# Events
# ------

Tag = Tuple[int, bytes]  # the capabilities that it takes, and the tag serialized
Tags = Tuple[Tag, ...]
Reply = Tuple[str, ...]  # command, parameters
_TEXT_COMMANDS = ("PRIVMSG", "NOTICE", "TAGMSG")


def make_tag(key: str, value: str) -> bytes:
    return protocol.serialize_tags({key: value})[1:-1]


class Event:
    """A message for several clients; rendered once for each set of capabilities.

    Nobody changes it once it is queued.
    """

    __slots__ = (
        "audience", "client_tags", "conversations", "extended", "label", "line", "message",
        "needs", "number", "sender", "sender_tags", "waiting_for", "when",
    )  # fmt: skip

    def __init__(
        self,
        message: Message,
        audience: Tuple[Client, ...],
        sender: Optional[Client] = None,
        conversations: Tuple[str, ...] = (),
        needs: int = 0,
        client_tags: bytes = b"",
        line: bytes = b"",
        when: float = 0.0,
    ) -> None:
        self.message = message
        self.audience = audience
        self.sender = sender  # gets a rendering of its own, such as an echo
        self.conversations = conversations  # those in whose history it is kept
        # Capabilities that a recipient must have
        self.needs = needs | _NEEDS.get(message.command, 0)
        self.client_tags = client_tags  # given by the sender, serialized
        self.extended = b""  # line for clients with extended-join
        self.waiting_for = 0  # id of the account that it waits for, 0 for none
        # Filled in by Directory.post, or for a reply:
        self.line = line  # without tags
        self.when = when  # seconds since 1970
        self.number = 0  # place in the order of all events, and msgid; 0 for a reply
        self.sender_tags: Tags = ()
        self.label: Tags = ()  # more tags for the sender, as from Response.take_label

    def render(self, caps: int, lobby: str, me: str = "", tags: Tags = ()) -> bytes:
        """Return its line for clients with these capabilities, b"" if they are not told.

        `me` is the nickname and `tags` are more tags of the only client that it is rendered for.
        """
        if caps & self.needs != self.needs:
            return b""
        if caps & PLAIN_TEXT:
            shown = self.describe(me, lobby)
            return (shown + "\r\n").encode("utf-8") if shown else b""
        if caps & TAGS:
            tags += ((SERVER_TIME, b"time=" + protocol.format_time(self.when).encode()),)
            if self.number and ("!" in self.message.source or self.conversations):
                tags += ((MESSAGE_TAGS, b"msgid=%d" % self.number),)
            if self.client_tags:
                tags += ((MESSAGE_TAGS, self.client_tags),)
            tags += self.sender_tags
        data = b";".join([tag for needs, tag in tags if caps & needs == needs])
        line = self.extended if self.extended and caps & EXTENDED_JOIN else self.line
        return b"@" + data + b" " + line if data else line

    def describe(self, me: str, lobby: str) -> str:
        """Return its line for a user in plain text, "" if it is not shown."""
        message = protocol.clean_message(self.message)
        return str(describe_with_channel(message, me, self.when, lobby) or "")

    @property
    def is_text(self) -> bool:
        """True for a text of a user, which its sender sees only as an echo."""
        return self.message.command in _TEXT_COMMANDS and self.sender is not None

    def render_own(self, client: Client, lobby: str) -> bytes:
        """Return its lines for its sender: the echo, and the message if it wrote to itself."""
        message, caps, data = self.message, client.caps, b""
        is_received = self.is_text and message.params[0] == message.nickname
        wants_echo = not self.is_text or caps & ECHO_MESSAGE
        if wants_echo or (caps & PLAIN_TEXT and not is_received):
            data = self.render(caps, lobby, message.nickname, self.label)
        return data + self.render(caps, lobby) if is_received else data

    def rows(self) -> List["Row"]:
        """Return what the history keeps of it."""
        tags = b"@" + self.client_tags + b" " if self.client_tags else b""
        line = tags + self.line[:-2] if len(tags) <= MAX_KEPT_TAGS else self.line[:-2]
        entry = self.message.command, line, self.waiting_for
        return [Row(self.number, self.when, name, *entry) for name in self.conversations]


class Output(NamedTuple):
    """Bytes for one client, queued in order with events; the delivery calls `make`."""

    client: Client
    make: Callable[[], bytes]


class Response:
    """The replies to a command, collected until it is done.

    Used by the client's own thread; any thread may call `make_event`.

    A label is answered once: by ACK, by the one message that there is, or by a batch
    (https://ircv3.net/specs/extensions/labeled-response). Events that are part of the answer,
    such as an echo, are posted before the replies are known: `is_long` tells them of more.
    """

    def __init__(
        self, client: Client, enqueue: Callable[["Work"], None], server_name: str, lobby: str
    ) -> None:
        self.events: List[Event] = []  # for this client alone
        self.is_long = False  # more than one message will answer
        self.batch = ""  # reference of the batch that answers, "" if there is none
        self._client = client
        self._enqueue = enqueue  # only appends
        self._server_name = server_name
        self._lobby = lobby
        self._label = ""  # not answered yet
        self._references = itertools.count(1)

    def begin(self, label: str) -> None:
        """Start the answer to a command with that label, "" if it has none."""
        self._label = label
        self.is_long = False

    def open_batch(self, kind: str, *params: str) -> None:
        """Answer with a batch of that kind, if the client knows batches."""
        if self._client.caps & BATCH:
            self.batch = "b%d" % next(self._references)
            reply = ("BATCH", "+" + self.batch, kind, *params)
            self._send(self._render(reply, self._pop_label()))

    def take_label(self) -> Tags:
        """Return the tags of the next message of the answer: its label, or its batch."""
        if self._label and self.is_long:
            self.open_batch("labeled-response")
        return self._pop_label() or (((0, make_tag("batch", self.batch)),) if self.batch else ())

    def defer(self, make: Callable[[], Iterable[Reply]]) -> None:
        """Answer with replies, at least two, that are made by the delivery in order with events."""
        self.is_long = True
        first, rest = self.take_label(), self.take_label()

        def render() -> bytes:
            replies = enumerate(make())
            return b"".join([self._render(r, rest if i else first) for i, r in replies])

        self._enqueue(Output(self._client, render))

    def flush(self, is_done: bool = True) -> None:
        """Send what was added; `is_done` ends the answer."""
        if not (self.events or self._label or self.batch):
            return  # as after most messages
        events, self.events = self.events, []
        self.is_long |= len(events) > 1 or not is_done
        data = [self._render_event(event, self.take_label()) for event in events]
        if is_done and self._label:
            data.append(self._render(("ACK",), self._pop_label()))
        elif is_done and self.batch:
            data.append(self._render(("BATCH", "-" + self.batch), ()))
            self.batch = ""
        self._send(b"".join(data))

    def _send(self, data: bytes) -> None:
        if data:
            self._enqueue(Output(self._client, lambda: data))

    def _pop_label(self) -> Tags:
        label, self._label = self._label, ""
        return ((0, make_tag("label", label)),) if label else ()

    def make_event(self, reply: Reply, source: str = "") -> Event:
        """Return a reply as an event; numerics and notices get the nickname as first parameter."""
        command, *params = reply
        if command.isdigit() or command == "NOTICE":
            params.insert(0, self._client.nickname or "*")
        params[:-1] = map(protocol.to_middle, params[:-1])
        if not source and command not in ("ERROR", "PING"):
            source = self._server_name
        message, line = protocol.fit_line(Message(command, tuple(params), source))
        return Event(message, (self._client,), line=line, when=time.time())

    def _render_event(self, event: Event, tags: Tags) -> bytes:
        return event.render(self._client.caps, self._lobby, self._client.nickname, tags)

    def _render(self, reply: Reply, tags: Tags) -> bytes:
        return self._render_event(self.make_event(reply), tags)


def names_replies(
    client: Client, channel: Channel, names: Iterable[Tuple[str, int]]
) -> List[Reply]:
    """Return 353, with as many names as surely fit into a line, and 366."""
    words = (member_prefix(client, bits) + nickname for nickname, bits in names)
    kind = "@" if "s" in channel.flags else "="
    texts = protocol.pack(words, " ", NAMES_SIZE)
    replies: List[Reply] = [("353", kind, channel.name, text) for text in texts]
    return [*replies, ("366", channel.name, "End of /NAMES list")]


def topic_replies(channel: Channel) -> List[Reply]:
    """Return 332 and 333, or nothing if there is no topic."""
    name, topic = channel.name, channel.topic
    by = ("333", name, topic.by, str(int(topic.at)))
    return [("332", name, topic.text), by] if topic.text else []


def member_prefix(client: Client, bits: int) -> str:
    """Return the prefix of a member with these bits as `client` sees it."""
    prefix = _PREFIXES[bits]
    return prefix if client.caps & CAPABILITIES["multi-prefix"] else prefix[:1]


class ChannelRecord(NamedTuple):
    """A channel's state for the store; None deletes it."""

    folded: str
    state: Optional[Dict[str, Any]]
    since: Optional[int] = None  # the number from which on its history is deleted, too


FINISH, SEVER, CLOSE = "finish", "sever", "close"


class Ending(NamedTuple):
    """A step of a connection's end.

    FINISH, from its own thread: no more comes; the client is told once its outbox is empty.
    SEVER, from another thread: drop what its socket does not take, and wake its thread.
    CLOSE, the last word of its own thread: the same, and give the descriptor back.
    """

    client: Client
    how: str


Work = Union[Event, Output, ChannelRecord, Ending, threading.Event]  # the last is a barrier


# The directory
# -------------


class Directory:
    """The users, by nickname, and the channels.

    Each method is atomic and does no I/O. Any thread may call those that ask, `end`, `post`,
    `tell`, `set_account` and `update_accounts`; the others are for the thread of `client`, which
    acts: an event that answers its command takes the label. What others are told of a change is
    numbered and posted before the lock is released: the order of events is the order of changes.
    A method that raises ReplyError has changed nothing.
    """

    def __init__(
        self, enqueue: Callable[[Work], None], server_name: str, lobby: str, last_number: int
    ) -> None:
        # Guards all below, and the marked parts of Client and Channel; methods may call each other.
        self._lock = threading.RLock()
        self._enqueue = enqueue  # only appends
        self._server_name = server_name
        self._lobby = protocol.casefold(lobby)
        self._has_operator = False  # an account is that of an operator of the server
        self._last_number = last_number
        self._clients: Dict[str, Client] = {}  # by casefolded nickname
        self._skeletons: Dict[str, Set[str]] = collections.defaultdict(set)  # their nicknames
        self._channels: Dict[str, Channel] = {}  # by casefolded name
        self._watchers: Dict[str, Set[Client]] = collections.defaultdict(set)  # by nickname
        self._tokens: Dict[str, Client] = {}
        self._former: Deque[Tuple[Reply, Reply]] = collections.deque(maxlen=MAX_WHOWAS)
        self.is_closing = False  # QUIT is not announced: all clients leave
        self.user_count = 0  # now; read without the lock
        self.most_users = 0  # at once

    def post(self, event: Event, is_answer: bool = False) -> Event:
        """Complete and number an event, and queue it; its message is truncated if need be.

        `is_answer` if it answers the sender's command, and the sender is in the audience.
        ValueError for what no line can carry.
        """
        event.message, event.line = protocol.fit_line(event.message)
        sender = event.sender
        with self._lock:
            event.when, event.number = time.time(), self._next_number()
            if sender is not None:
                event.sender_tags = sender.tags
                size = len(event.line) + len(event.client_tags)
                sender.unpaid += size * len(event.conversations)
                wanted = event.needs | (ECHO_MESSAGE if event.is_text else 0)
                if is_answer and sender.caps & wanted == wanted:
                    event.label = sender.response.take_label()
            self._enqueue(event)
            return event

    def tell(self, client: Client, command: str, *params: str, source: str = "") -> None:
        """Send a message to `client` alone that does not answer its command."""
        self.post(client.response.make_event((command, *params), source))

    # Users

    def find(self, nickname: str) -> Optional[Client]:
        """Return the registered client with that nickname."""
        with self._lock:
            client = self._clients.get(protocol.casefold(nickname))
            return client if client is not None and client.registered else None

    def get(self, nickname: str) -> Client:
        """Return the registered client with that nickname. Raises ReplyError 401."""
        client = self.find(nickname)
        if client is None:
            raise ReplyError("401", nickname, "No such nick")
        return client

    def users(self) -> List[Client]:
        """Return all registered clients."""
        with self._lock:
            return [client for client in self._clients.values() if client.registered]

    def former_users(self, nickname: str) -> List[Tuple[Reply, Reply]]:
        """Return 314 and 312 for each user who had that nickname, the latest first."""
        folded = protocol.casefold(nickname)
        with self._lock:
            former = list(self._former)
        return [user for user in reversed(former) if protocol.casefold(user[0][1]) == folded]

    def end(self, client: Client, reason: str, farewell: str = "") -> None:
        """End another client's connection, unless it is ending; with a reason for others.

        The client is told the `farewell`, or that reason.
        """
        with self._lock:
            if not client.end_reason:
                client.end_reason = reason
                self.tell(client, "ERROR", farewell or reason)
                self._enqueue(Ending(client, SEVER))

    def claim(self, client: Client, nickname: str) -> None:
        """Give `client` the nickname, in place of any it has. Raises ReplyError 433.

        The owner of its account takes it from its holder, whose connection is ended. For others,
        it must not look like another user's.
        """
        folded, old_folded = protocol.casefold(nickname), client.folded
        with self._lock:
            client.check_end()
            holder = self._clients.get(folded)
            client.check_lookalike(nickname, self._skeletons)
            if holder is not None and holder is not client:
                if not client.owns(nickname):
                    raise ReplyError("433", nickname, "Nickname is already in use")
                reason = "%s has logged in elsewhere" % nickname
                params = ("*", "LOGGED_IN_ELSEWHERE", nickname, reason)
                fail = Message("FAIL", params, self._server_name)
                self.post(Event(fail, (holder,), needs=STANDARD_REPLIES))
                self.end(holder, reason)
                self.remove(holder, "Logged in elsewhere")
            is_user, is_new = client.registered, folded != old_folded
            if is_user and nickname != client.nickname:
                self._post_to_peers(client, "NICK", nickname)
            if is_user and is_new:
                self._tell_watchers(client, False)
            self._forget_name(client)
            if is_new:
                client.named_since = self._next_number()
            self._clients[folded] = client
            self._skeletons[protocol.skeleton(nickname)].add(nickname)
            client.nickname = nickname
            client.refresh()
            if is_user and is_new:
                self._tell_watchers(client, True)

    def register(self, client: Client) -> None:
        """Register a client that has a nickname."""
        with self._lock:
            client.check_end()
            client.refresh()
            client.registered = True
            self.user_count += 1
            self.most_users = max(self.most_users, self.user_count)
            self._issue_token(client)
            self._tell_watchers(client, True)

    def resume(self, client: Client, token: str) -> bool:
        """Transfer the user of a token to `client`, and end the former connection.

        Other users are not told. Returns False if there is no such token.
        """
        with self._lock:
            client.check_end()
            old = self._tokens.get(token)
            if old is None or old.end_reason:  # a user who was removed comes back by no token
                return False
            self.end(old, "Connected again")
            del self._tokens[token]
            self._forget_name(client)
            for name in Client.IDENTITY:
                setattr(client, name, getattr(old, name))
            self._clients[client.folded] = client
            for channel in client.channels:
                members = channel.members.items()
                channel.set_members({client if m is old else m: bits for m, bits in members})
            for folded in client.watches:
                self._watchers[folded] ^= {client, old}
            old.channels, old.watches, old.registered = set(), {}, False  # no user any more
            client.refresh()
            self._issue_token(client)
            return True

    def _issue_token(self, client: Client) -> None:
        if client.caps & CAPABILITIES["hubbub/resume"]:
            client.token = os.urandom(16).hex()
            self._tokens[client.token] = client

    def remove(self, client: Client, reason: str) -> None:
        """Forget a client; its nickname is free. Idempotent."""
        with self._lock:
            if client.registered and not self.is_closing:
                self._post_to_peers(client, "QUIT", reason)
                self._tell_watchers(client, False)
            for channel in list(client.channels):
                self._leave(client, channel)
            self.watch(client, {})
            self._tokens.pop(client.token, None)
            self._forget_name(client)
            self.user_count -= client.registered
            client.registered = False

    def set_account(self, client: Client, account: "Account") -> None:
        """Log the client in to the account, or out for NO_ACCOUNT; its nickname stays."""
        with self._lock:
            client.check_end()
            is_other, was_operator = account.id != client.account.id, client.is_operator
            client.account = account
            client.refresh()
            for channel in client.channels if account.id else ():  # that were made as a guest
                if channel.members[client] & CHANOP and not self._has_owner(channel):
                    channel.operators |= {account.id}
                    self._save(channel)
            if client.registered and is_other:
                self._post_to_peers(client, "ACCOUNT", account.name or "*")
            if client.registered and client.is_operator != was_operator:
                params = (client.nickname, "-o" if was_operator else "+o")
                self.tell(client, "MODE", *params, source=client.source)

    def update_accounts(self, read: Callable[[], Iterable["Account"]]) -> None:
        """Apply what another process has changed: `read` returns all accounts, from memory."""
        with self._lock:  # nobody logs in to a new account after it was read
            accounts = {account.id: account for account in read()}
            for channel in list(self._channels.values()):
                if not channel.operators <= accounts.keys():
                    channel.operators &= accounts.keys()
                    self._drop_if_empty(channel)
            for client in list(self._clients.values()):
                account = accounts.get(client.account.id, NO_ACCOUNT)
                if account == client.account:
                    continue
                if client.registered and not account.id:
                    self.tell(client, "901", client.source, "You are now logged out")
                with contextlib.suppress(Disconnect):
                    self.set_account(client, account)
            self._has_operator = any(account.is_operator for account in accounts.values())
            self._guard_topic(self._channels.get(self._lobby))

    def change_user(self, client: Client, command: str, *params: str, **state: str) -> None:
        """Change attributes of a user, and tell its peers where it may speak, by a message."""
        unheard = self.speak_errors(client) if params else {}
        with self._lock:
            client.check_end()
            for name, value in state.items():
                setattr(client, name, value)
            self._post_to_peers(client, command, *params, without=unheard)

    def watch(self, client: Client, watches: Dict[str, str]) -> None:
        """Tell `client` when users with these nicknames, by casefolded, come and go (MONITOR)."""
        with self._lock:
            if watches:
                client.check_end()
            for folded in client.watches:
                self._watchers[folded].discard(client)
                if not self._watchers[folded]:
                    del self._watchers[folded]
            for folded in watches:
                self._watchers[folded].add(client)
            client.watches = watches

    def count_watchers(self, nickname: str) -> int:
        """Return how many clients are told when the nickname comes or goes."""
        return len(self._watchers.get(protocol.casefold(nickname), ()))

    # Channels

    def channel(self, name: str, client: Optional[Client] = None) -> Optional[Channel]:
        """Return the channel of that name, if `client` may know of it."""
        with self._lock:
            channel = self._channels.get(protocol.casefold(name))
        return channel if channel is not None and _is_visible(client, channel) else None

    def get_channel(self, name: str, client: Client) -> Channel:
        """Return the channel of that name. Raises ReplyError 403."""
        channel = self.channel(name, client)
        if channel is None:
            raise ReplyError("403", name, "No such channel")
        return channel

    def channels(self) -> List[Channel]:
        """Return all channels."""
        with self._lock:
            return list(self._channels.values())

    def channels_of(self, user: Client, client: Client) -> List[Channel]:
        """Return the channels of a user that `client` may know of, sorted."""
        with self._lock:
            found = [channel for channel in user.channels if _is_visible(client, channel)]
        return sorted(found, key=lambda channel: channel.folded)

    def speak_errors(self, client: Client) -> Dict[Channel, str]:
        """Return the channels of `client` in which it may not speak, and why."""
        found = {
            channel: channel.speak_error(client) for channel in self.channels_of(client, client)
        }
        return {channel: text for channel, text in found.items() if text}

    def restore(self, channel: Channel) -> None:
        """Add a channel from the store: its members may come back."""
        with self._lock:
            self._channels[channel.folded] = channel

    def drop(self, client: Client, name: str) -> None:
        """Delete a channel and its history. Raises ReplyError 403, or FAIL for the lobby."""
        with self._lock:
            client.check_end()
            channel = self.get_channel(name, client)
            if channel.folded == self._lobby:
                text = "Everyone is in %s: it cannot be removed." % channel.name
                raise ReplyError("FAIL", "DROP", "INVALID_TARGET", channel.name, text)
            for member in channel.members:  # each is told of itself alone, or many would cost much
                params = channel.name, member.nickname, "The room was removed"
                self.tell(member, "KICK", *params, source=client.source)
                member.channels.discard(channel)
            channel.set_members({})
            self._delete(channel, since=0)

    def drop_unused(self) -> None:
        """Delete empty channels without an owner, and those not entered for MAX_UNUSED.

        Called every UNUSED_INTERVAL: it counts time by that, not by a clock that may be wrong.
        """
        with self._lock:
            for channel in list(self._channels.values()):
                if channel.members:
                    continue
                channel.unused += UNUSED_INTERVAL
                if channel.unused > MAX_UNUSED and channel.folded != self._lobby:
                    self._delete(channel, since=0)
                    continue
                if channel.unused % UNUSED_SAVED == 0:
                    self._save(channel)
                self._drop_if_empty(channel)

    def join(self, client: Client, name: str, key: str) -> Optional[int]:
        """Add `client` to a channel, created if need be, and send it the topic and the names.

        Returns the number of the event, None if it is there already.
        Raises ReplyError 405, 471, 473, 474 or 475.
        """
        folded = protocol.casefold(name)
        with self._lock:
            client.check_end()
            channel = self._channels.get(folded)
            if channel is not None and client in channel.members:
                return None
            if len(client.channels) >= MAX_CHANNELS:
                raise ReplyError("405", name, "You have joined too many channels")
            if channel is None:
                if len(self._channels) >= MAX_SERVER_CHANNELS:
                    raise ReplyError("405", name, "The server has as many channels as it can")
                channel = self._channels[folded] = Channel(name)
                self._guard_topic(channel if folded == self._lobby else None)
            # Modes apply to an empty channel too, or its history would be open.
            channel.check_can_join(client, key)
            is_founder = not (channel.members or self._has_owner(channel))
            account = client.account
            is_chanop = is_founder or account.is_host or account.id in channel.operators
            bits = CHANOP if is_chanop else 0
            if is_founder and client.account.id:
                channel.operators |= {client.account.id}
                self._save(channel)
            channel.set_members({**channel.members, client: bits})
            if channel.unused:
                channel.unused = 0.0
                self._save(channel)
            client.invited.discard(channel)
            client.channels.add(channel)
            number = self._post_join(client, channel, is_new=True)
            news = []  # for the others
            if bits:
                news.append(Message("MODE", (channel.name, "+o", client.nickname), client.source))
            if client.away and not channel.speak_error(client):
                news.append(Message("AWAY", (client.away,), client.source))
            for message in news:
                self.post(Event(message, _without(client, channel.audience), client))
            return number

    def rejoin(self, client: Client) -> None:
        """Tell a client that has resumed of its channels, as if it had joined them."""
        with self._lock:
            for channel in sorted(client.channels, key=lambda channel: channel.folded):
                self._post_join(client, channel, is_new=False)

    def _post_join(self, client: Client, channel: Channel, is_new: bool) -> int:
        """Post a JOIN, then topic and names to `client`; return the number of the event."""
        message, members = Message("JOIN", (channel.name,), client.source), channel.names()
        params = (channel.name, client.account.name or "*", client.realname)
        extended = protocol.fit_line(message._replace(params=params))[1]
        audience, kept_in = (channel.audience, (channel.folded,)) if is_new else ((client,), ())
        client.response.is_long = True
        event = Event(message, audience, client, kept_in)
        event.extended = extended
        self.post(event, is_answer=True)
        names = functools.partial(names_replies, client, channel, members)
        client.response.defer(lambda: topic_replies(channel) + names())
        return event.number

    def names(self, client: Client, channel: Channel) -> None:
        """Tell `client` who is in a channel, in order with joins and leaves."""
        with self._lock:
            make = functools.partial(names_replies, client, channel, channel.names())
            client.response.defer(make)

    def part(self, client: Client, name: str, reason: str) -> None:
        """Remove `client` from a channel. Raises ReplyError 403 or 442."""
        with self._lock:
            channel = self._joined_channel(name, client)
            words = [reason] if reason and not channel.speak_error(client) else []
            self._post_to_channel(channel, client, "PART", *words)
            self._leave(client, channel)

    def kick(self, client: Client, name: str, nickname: str, reason: str) -> None:
        """Remove another user from a channel. Raises ReplyError 401, 403, 441, 442, 482 or 484."""
        with self._lock:
            channel = self._operated_channel(client, name)
            other = channel.check_member(self.get(nickname))
            self._check_rank(client, channel, nickname)
            words = other.nickname, reason or client.nickname
            self._post_to_channel(channel, client, "KICK", *words)
            self._leave(other, channel)

    def invite(self, client: Client, nickname: str, name: str) -> Client:
        """Invite a user to a channel. Raises ReplyError 401, 403, 442, 443 or 482."""
        with self._lock:
            other = self.get(nickname)
            channel = self._joined_channel(name, client)
            if "i" in channel.flags:
                channel.check_chanop(client)
            if other in channel.members:
                raise ReplyError("443", other.nickname, channel.name, "is already on channel")
            if channel.is_chanop(client):  # the invitation of others opens nothing
                other.invited.add(channel)
            message = Message("INVITE", (other.nickname, channel.name), client.source)
            self.post(Event(message, (other,), client))
            members = _without(client, channel.audience)
            needs = CAPABILITIES["invite-notify"]
            self.post(Event(message, members, client, needs=needs))
            return other

    def relay(
        self,
        client: Client,
        target: str,
        message: Message,
        tags: bytes,
        account: Optional["Account"] = None,
    ) -> Optional[str]:
        """Send a text from `client`, with its serialized tags, to a channel or a user.

        Returns the user's away message, "" if it is present. If there is no such user, it is kept
        for the owner of `account`, and None returned. Raises ReplyError 401, 403 or 404.
        """
        command, owner, is_answer = message.command, 0, True
        away: Optional[str] = ""
        with self._lock:
            client.check_end()
            if target.startswith("#"):
                channel = self._channels.get(protocol.casefold(target))
                if channel is None:
                    raise ReplyError("403", target, "No such channel")
                channel.check_can_speak(client)
                is_answer = client in channel.members
                name, audience, conversation = channel.name, channel.audience, channel.folded
            elif account is not None and self.find(account.name) is None:
                name, audience, away = account.name, (client,), None
                conversation = private_conversation("=%d" % account.id, client.participant)
                owner = account.id
            else:
                recipient = self.get(target)
                name = recipient.nickname
                audience = (client,) if recipient is client else (recipient, client)
                conversation = private_conversation(recipient.participant, client.participant)
                if command == "PRIVMSG":
                    away = recipient.away
                if command != "TAGMSG":
                    recipient.correspondent = client.nickname, client.readable_since
            # Of tags alone, reactions are kept: those in a channel, and not that a user types.
            is_kept = command != "TAGMSG" or (
                target.startswith("#") and tags and b"+typing=" not in tags
            )
            kept_in = (conversation,) if is_kept else ()
            client.response.is_long |= away != ""
            relayed = Message(command, (name, *message.params[1:2]), client.source)
            event = Event(relayed, audience, client, kept_in, client_tags=tags)
            event.waiting_for = owner
            self.post(event, is_answer)
            return away

    def set_topic(self, client: Client, name: str, topic: str) -> None:
        """Set the topic. Raises ReplyError 403, 404, 442 or 482."""
        with self._lock:
            channel = self._joined_channel(name, client)
            channel.check_can_speak(client)
            if "t" in channel.flags:
                channel.check_chanop(client)
            event = self._post_to_channel(channel, client, "TOPIC", topic)
            channel.topic = Topic(event.message.text, client.nickname, event.when)
            self._save(channel)

    def change_modes(
        self, client: Client, name: str, changes: List[ModeChange]
    ) -> List[ReplyError]:
        """Apply the changes that are possible; return the errors of the others.

        Raises ReplyError 403, 442 or 482.
        """
        errors: List[ReplyError] = []
        applied: List[ModeChange] = []
        with self._lock:
            channel = self._operated_channel(client, name)
            was_restricted = channel.is_restricted
            for change in changes:
                try:
                    if change[:2] in ((True, "b"), (False, "o")):
                        nickname, *_ = protocol.normalize_mask(change.arg).split("!")
                        self._check_rank(client, channel, nickname)
                    result = channel.change(change, client, self.get)
                    applied += [result] if result else []
                except ReplyError as error:
                    errors.append(error)
            lines = split_modes(applied, client.source, channel.name) if applied else []
            client.response.is_long |= len(lines) + len(errors) > 1
            if not was_restricted:
                channel.restricted_since = self._next_number()
            for params in lines:
                self._post_to_channel(channel, client, "MODE", *params)
            self._save(channel)
            self._drop_if_empty(channel)
        return errors

    # The rest is called with the lock held.

    def _forget_name(self, client: Client) -> None:
        if self._clients.get(client.folded) is client:  # and not the owner, who took it since
            del self._clients[client.folded]
            key = protocol.skeleton(client.nickname)
            self._skeletons[key].discard(client.nickname)
            if not self._skeletons[key]:
                del self._skeletons[key]

    def _next_number(self) -> int:
        """Return the next number: microseconds since 1970, or more if the clock is behind."""
        self._last_number = max(int(time.time() * 1e6), self._last_number + 1)
        return self._last_number

    def _post_to_channel(
        self, channel: Channel, client: Client, command: str, *params: str
    ) -> Event:
        """Tell a channel, and its history, what `client` does to it."""
        message = Message(command, (channel.name, *params), client.source)
        event = Event(message, channel.audience, client, (channel.folded,))
        return self.post(event, is_answer=client in channel.members)

    def _post_to_peers(
        self, client: Client, command: str, *params: str, without: Iterable[Channel] = ()
    ) -> None:
        """Tell all who share a channel with `client`, and itself, what has changed about it."""
        channels = client.channels.difference(without)
        if len(channels) == 1:
            audience = next(iter(channels)).audience
        else:
            members = (channel.members for channel in channels)
            audience = tuple(dict.fromkeys(itertools.chain([client], *members)))
        is_answer = command in ("NICK", "SETNAME")
        if command in ("AWAY", "QUIT"):  # it has a reply of its own
            audience = _without(client, audience)
        is_kept = command in ("NICK", "QUIT")
        kept_in = tuple(channel.folded for channel in channels) if is_kept else ()
        message = Message(command, params, client.source)
        self.post(Event(message, audience, client, kept_in), is_answer)

    def _tell_watchers(self, client: Client, is_online: bool) -> None:
        """Tell of a nickname that comes, or goes and is for WHOWAS then."""
        if not is_online:
            name = client.nickname
            described = "314", name, client.username, client.host, "*", client.realname
            self._former.append((described, ("312", name, self._server_name, time.ctime())))
        numeric, who = ("730", client.source) if is_online else ("731", client.nickname)
        for watcher in self._watchers.get(client.folded, ()):
            self.tell(watcher, numeric, who)

    def _joined_channel(self, name: str, client: Client) -> Channel:
        """Return a channel that `client` is in. Raises ReplyError 403 or 442."""
        client.check_end()
        channel = self.get_channel(name, client)
        if client not in channel.members:
            raise ReplyError("442", channel.name, "You're not on that channel")
        return channel

    def _operated_channel(self, client: Client, name: str) -> Channel:
        """Return a channel that `client` is a chanop of. Raises ReplyError 403, 442 or 482."""
        client.check_end()
        find = self.get_channel if client.is_operator else self._joined_channel
        channel = find(name, client)
        channel.check_chanop(client)
        return channel

    def _check_rank(self, client: Client, channel: Channel, nickname: str) -> None:
        """Raise ReplyError 484 if only operators of the server may act against this user."""
        other = self.find(nickname)
        if other is not None and other.is_operator and not client.is_operator:
            text = "%s is an operator of the server" % other.nickname
            raise ReplyError("484", other.nickname, channel.name, text)

    def _save(self, channel: Channel) -> None:
        """Queue the channel for the store: its state, or its deletion if it is not persistent."""
        if channel.is_persistent or channel.is_saved:
            channel.is_saved = channel.is_persistent
            state = channel.state() if channel.is_saved else None
            self._enqueue(ChannelRecord(channel.folded, state))

    def _leave(self, client: Client, channel: Channel) -> None:
        members = channel.members.copy()
        members.pop(client, None)
        channel.set_members(members)
        client.channels.discard(channel)
        self._drop_if_empty(channel)

    def _guard_topic(self, lobby: Optional[Channel]) -> None:
        """Leave the topic of the lobby to operators, unless nobody could set it then."""
        is_guarded = lobby is not None and "t" in lobby.usual_flags
        if lobby is None or is_guarded == self._has_operator:
            return
        lobby.usual_flags ^= {"t"}
        if ("t" in lobby.flags) == is_guarded:  # else operators have changed it
            lobby.flags ^= {"t"}
            change = Message(
                "MODE", (lobby.name, "-+"[self._has_operator] + "t"), self._server_name
            )
            if lobby.members:
                self.post(Event(change, lobby.audience, None, (lobby.folded,)))
        self._save(lobby)

    def _has_owner(self, channel: Channel) -> bool:
        """Return True if no user becomes a chanop by joining while it is empty."""
        return bool(channel.operators) or channel.folded == self._lobby

    def _drop_if_empty(self, channel: Channel) -> None:
        """Delete an empty channel unless it is persistent and has an owner.

        Nobody could open a restricted channel again; what was said while it was goes with it. At
        the end of the server all are kept: their members may come back.
        """
        if channel.members or self.is_closing:
            return
        if not (channel.is_persistent and self._has_owner(channel)):
            self._delete(channel, channel.restricted_since if channel.is_restricted else None)

    def _delete(self, channel: Channel, since: Optional[int]) -> None:
        """Delete a channel, and its messages from this number on, None for none."""
        del self._channels[channel.folded]
        if channel.is_saved or since is not None:
            self._enqueue(ChannelRecord(channel.folded, None, since))


def _without(client: Client, clients: Iterable[Client]) -> Tuple[Client, ...]:
    return tuple(other for other in clients if other is not client)


def _is_visible(client: Optional[Client], channel: Channel) -> bool:
    """Return True if `client`, or the server itself, may know of the channel."""
    is_public = client is None or "s" not in channel.flags or client.is_operator
    return is_public or client in channel.members


# Limits
# ------

MAX_KEYS = 10000  # keys that a Limiter remembers
CREDIT = 20.0  # tokens by which a new or silent client is ahead of others: enough to register


class Bucket:
    """A token bucket: holds at most `burst` tokens, gains `rate` a second; a rate of 0 is no limit.

    For one thread at a time. `now` is in seconds of the monotonic clock.
    """

    __slots__ = ("_at", "_balance", "_burst", "_rate")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._balance = float(burst)
        self._at = 0.0  # when the balance was computed

    def charge(self, tokens: float, now: float) -> float:
        """Take tokens, and return the seconds until the balance is no longer below zero.

        Negative tokens are given back.
        """
        if not self._rate:
            return 0.0
        if now > self._at:
            self._balance += (now - self._at) * self._rate
            self._at = now
        if self._balance > self._burst:
            self._balance = self._burst
        self._balance -= tokens
        return -self._balance / self._rate if self._balance < 0 else 0.0

    def try_take(self, tokens: float, now: float) -> float:
        """Take tokens and return 0, or take none and return the seconds until there are as many."""
        wait = self.charge(tokens, now)
        if wait:
            self.charge(-tokens, now)
        return wait

    def balance(self, now: float) -> float:
        """Return the tokens that are left; below zero if more were taken."""
        self.charge(0.0, now)
        return self._balance


class _Queue:
    """The clients that wait for tokens of a bucket: who was served less, and wants less, is first.

    Self-clocked fair queueing: each request is due at the time, in tokens, at which a server that
    shares its work equally would be done with it.
    """

    def __init__(self) -> None:
        self.clock = 0.0  # when the last of the served requests was due
        # When the last request of each was due
        self.served: weakref.WeakKeyDictionary[Client, float] = weakref.WeakKeyDictionary()
        self.waiting: Dict[Client, Tuple[float, float]] = {}  # when due, and tokens

    def tokens_before(self, client: Client, tokens: float) -> float:
        """Return the tokens of requests that come before that of the client, which is added."""
        if client not in self.waiting:
            due = max(self.clock - CREDIT, self.served.get(client, -CREDIT)) + tokens
            self.waiting[client] = due, tokens
        due = self.waiting[client][0]
        return sum(count for other, count in self.waiting.values() if other < due)


class Limiter:
    """A Bucket for each key, such as an address or an account; for any thread.

    Of more than MAX_KEYS keys, those with the highest balances are forgotten: a peer with many
    addresses neither fills the memory nor wipes out its debts.
    """

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._lock = threading.RLock()  # guards the buckets and queues
        self._buckets: Dict[str, Bucket] = {}
        self._queues: Dict[str, _Queue] = {}

    def charge(self, key: str, tokens: float, now: float) -> float:
        """Charge the bucket of a key: see `Bucket.charge`."""
        with self._lock:
            return self._bucket(key, now).charge(tokens, now)

    def try_take(self, key: str, now: float) -> float:
        """Try to take a token from the bucket of a key: see `Bucket.try_take`."""
        with self._lock:
            return self._bucket(key, now).try_take(1.0, now)

    def try_turn(self, key: str, client: "Client", tokens: float, now: float) -> float:
        """Take tokens and return 0 if it is the client's turn, or return the seconds until then.

        Once those have passed, it asks again, until its turn comes or it calls `leave`.
        """
        tokens = min(tokens, self._burst)
        with self._lock:
            bucket = self._bucket(key, now)
            if key not in self._queues and not bucket.try_take(tokens, now):
                return 0.0
            queue = self._queues.setdefault(key, _Queue())
            ahead = queue.tokens_before(client, tokens)  # there must be enough for those, too
            wait = bucket.try_take(ahead + tokens, now)
            if wait:
                return max(wait, 0.01)
            bucket.charge(-ahead, now)
            queue.served[client] = queue.waiting[client][0]
            queue.clock = max(queue.clock, queue.served[client])
            self.leave(key, client)
            return 0.0

    def leave(self, key: str, client: "Client") -> None:
        """Wait no more. Idempotent."""
        with self._lock:
            if key in self._queues:
                self._queues[key].waiting.pop(client, None)
                if not self._queues[key].waiting:
                    del self._queues[key]

    def _bucket(self, key: str, now: float) -> Bucket:
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= MAX_KEYS:
                by_balance = sorted(self._buckets.items(), key=lambda it: it[1].balance(now))
                self._buckets = dict(by_balance[: MAX_KEYS // 2])
            bucket = self._buckets[key] = Bucket(self._rate, self._burst)
        return bucket


# The store
# ---------

STORE_FILE = "hubbub.db"
SCHEMA_VERSION = 2  # PRAGMA user_version; files of other versions are not read
# A conversation is a channel's folded name, or two participants with a space between. A
# message is stored once for each of its conversations, in the same B-tree from which it is read:
# texts and other events apart, so that the latest texts are found at once among thousands of
# joins. `conversations` has a row for each participant (for a channel, the channel itself). The
# cost of a password's hash (SCRYPT) is part of the version.
# For the columns' types, see Row, Account and Sanction.
SCHEMA = """
    BEGIN IMMEDIATE; -- another process may be creating the tables, too
    CREATE TABLE IF NOT EXISTS messages (
        key, kind, number, time, command, line, waiting_for, PRIMARY KEY (key, kind, number)
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS numbers ON messages (number);
    CREATE INDEX IF NOT EXISTS waiting ON messages (waiting_for, number)
        WHERE waiting_for IS NOT NULL;
    CREATE TABLE IF NOT EXISTS conversations (
        participant, key, PRIMARY KEY (participant, key)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS accounts (
        id INTEGER PRIMARY KEY AUTOINCREMENT, key UNIQUE, name, is_operator, created, salt, digest
    );
    CREATE TABLE IF NOT EXISTS channels (key PRIMARY KEY, state);
    CREATE TABLE IF NOT EXISTS sanctions (
        kind, target, until, reason, by, at, PRIMARY KEY (kind, target)
    );
    PRAGMA user_version = %d;
    COMMIT
"""
# What is being deleted, in steps: it is not read any more. Older files have no such table.
DELETIONS = "CREATE TABLE IF NOT EXISTS deletions (key, since, upto)"
DELETE_MESSAGE = "DELETE FROM messages WHERE key = ? AND kind = ? AND number = ?"
DELETE_EMPTY = (
    "DELETE FROM conversations WHERE NOT EXISTS"
    " (SELECT 1 FROM messages WHERE messages.key = conversations.key)"
)
TEXT, EVENT = 0, 1  # kinds of messages

DISK_TIMEOUT = 2.0  # seconds to wait for a turn at the disk, and for other processes' writes
LOOK_TIMEOUT = 0.2  # seconds to wait for a process that only asks if a server uses the folder
ROWS_AT_ONCE = 140  # rows of 7 values in an INSERT; SQLite takes 999 values at least
CHECKED_SIZE = 64 * 1024 * 1024  # bytes of a file that is checked as a whole at the start
CLEANED_AT_ONCE = 500  # messages deleted in a step of cleaning
MAX_WAITING = 500  # messages that wait for an account
SCRYPT = (2**14, 8, 1)  # n, r and p: 16 MiB and some 50 ms for each password
HASHES_AT_ONCE = 2  # passwords that are hashed at the same time


class StoreError(Exception):
    """An operation of the store failed; the text says why, for users and the host."""


class AccountExistsError(StoreError):
    """The user's fault: the name has an account."""


class Row(NamedTuple):
    """A message of a conversation in the history."""

    number: int  # grows with each message: microseconds since 1970, or the last number + 1
    time: float  # seconds since 1970
    conversation: str  # a channel's folded name, or as from private_conversation
    command: str
    line: bytes  # with the tags that are kept, without CRLF
    waiting_for: int = 0  # the id of the account that it waits for


class Account(NamedTuple):
    """A registered name."""

    id: int  # never used again for another account
    name: str
    is_operator: bool
    created: float  # seconds since 1970
    is_host: bool = False  # of the host's account, whose name is its user's last nickname


NO_ACCOUNT = Account(0, "", False, 0.0)


class Sanction(NamedTuple):
    """A ban or mute for the whole server."""

    kind: str  # "ban" or "mute"
    target: str  # as given by `normalize_target`
    until: float  # seconds since 1970; 0 is forever
    reason: str
    by: str
    at: float  # seconds since 1970

    def is_in_force(self, now: float) -> bool:
        return not 0 < self.until <= now

    def describe(self, now: float, by: str = "") -> str:
        """Return what it does to its target, as "banned for 9 more minutes, by alice: noise"."""
        done = self.describe_left(now)
        if format_left(self.until - now) == format_left(self.until - self.at):
            done = done.replace(" more ", " ", 1)  # it is new
        return "%s%s%s" % (done, by and ", by " + by, self.reason and ": " + self.reason)

    def describe_left(self, now: float) -> str:
        """Return the same without `by` and the reason."""
        done = {"ban": "banned", "mute": "muted"}[self.kind]
        if not self.until:
            return done
        return "%s for %s" % (done, format_left(self.until - now).replace(" ", " more ", 1))


class _Handle:
    """A connection to the file, opened when first used and again after a fault; for any thread.

    Every method is a transaction, and raises StoreError if it changed nothing.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._lock = threading.Lock()  # guards the connection
        self._connection: Optional[sqlite3.Connection] = None

    def run(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """Return the result of `work`."""
        if not self._lock.acquire(timeout=DISK_TIMEOUT):
            raise StoreError("The server cannot use its disk: it does not answer.")
        try:
            if self._connection is None:
                self._connection = self._connect()
            with self._connection:
                return work(self._connection)
        except (OSError, sqlite3.Error) as error:
            self._drop()
            reason = getattr(error, "strerror", None) or str(error)
            raise StoreError("The server cannot use its disk: %s." % reason) from error
        finally:
            self._lock.release()

    def select(self, query: str, *values: object) -> List[Any]:
        """Return the rows that a query finds."""
        return self.run(lambda connection: connection.execute(query, values).fetchall())

    def execute(self, query: str, *values: object) -> sqlite3.Cursor:
        """Run a statement; the cursor is for its `rowcount` and `lastrowid`."""
        return self.run(lambda connection: connection.execute(query, values))

    def close(self) -> None:
        """Close the connection, unless the disk is stuck in it."""
        if self._lock.acquire(timeout=DISK_TIMEOUT):
            self._drop()
            self._lock.release()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _Reader(_Handle):
    """A handle whose work is done by a thread of its own: nobody waits longer than DISK_TIMEOUT."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(connect)
        self._jobs: "queue.Queue[Optional[Tuple[Callable[..., Any], Future[Any]]]]" = queue.Queue()
        self._busy_since = 0.0  # monotonic; 0 if there is no work
        # Daemon: a disk that never answers must not keep the server from ending.
        self._thread = threading.Thread(target=self._serve, name="reader", daemon=True)
        self._thread.start()

    def run(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        job: "Future[_Result]" = Future()
        if not 0 < self._busy_since < time.monotonic() - DISK_TIMEOUT:
            self._jobs.put((work, job))
            with contextlib.suppress(FutureTimeout):
                return job.result(DISK_TIMEOUT)
            job.cancel()
        raise StoreError("The server cannot use its disk: it does not answer.")

    def _serve(self) -> None:
        for work, job in iter(self._jobs.get, None):
            self._busy_since = time.monotonic()
            if job.set_running_or_notify_cancel():
                try:
                    job.set_result(super().run(work))
                except Exception as error:
                    job.set_exception(error)
            self._busy_since = 0.0

    def close(self) -> None:
        self._jobs.put(None)
        self._thread.join(DISK_TIMEOUT)
        if not self._thread.is_alive():
            super().close()


class Store:
    """Everything that outlives the server: history, accounts, channels and sanctions.

    A SQLite file (write-ahead log) in a folder, or memory if the folder is "": then there is
    no history and there are no accounts. A connection writes and another reads, so that no
    reader waits for a write. Any thread may call any method, but not while it holds the
    directory's lock, except for those that only look at memory: `account`, `accounts`,
    `sanctions`, `find_sanction`. Writes raise StoreError if nothing was stored; the next
    write tries again. A file that is damaged is never repaired, moved or deleted.

    Names are compared casefolded, passwords composed (NFC). Other processes may change accounts
    at any time: `accounts_changed`.
    """

    def __init__(
        self, folder: str, history_days: float = 0.0, max_history: float = 0.0, claim: bool = True
    ) -> None:
        """Open the file, or create it; `claim` keeps other servers from the folder.

        Raises StoreError if another server has the folder, or if there is a file that cannot be
        opened: without its accounts and bans the server must not start. Where there was none
        and none can be created, the store logs it, and tries again with the next write.
        """
        self.path = os.path.join(folder, STORE_FILE) if folder else ""
        self._pid_path = os.path.join(folder, protocol.PID_FILE)
        self.keeps_history = bool(folder)
        self.has_accounts = bool(folder) and hasattr(hashlib, "scrypt")
        self._lifetime = history_days * 86400 or float("inf")  # seconds
        self._max_size = max_history * 2**20 or float("inf")  # bytes
        self._is_full = False  # the log has said so
        self._claim = _claim_folder(folder) if folder and claim else None
        self.note_process()
        self._writer = _Handle(self._open)
        self._reader = _Reader(self._open) if folder else self._writer
        # Replaced as a whole, and read by any thread without a lock.
        self._accounts: Dict[str, Account] = {}  # by casefolded name
        self.skeletons: Dict[str, Set[str]] = {}  # of accounts; the host's by its letters, too
        self._sanctions: Tuple[Sanction, ...] = ()
        self._is_closed = False
        # Few threads hash, not each client's: the memory of a hash stays with its thread.
        self._hashers = ThreadPoolExecutor(HASHES_AT_ONCE, "hash")
        is_new = not os.path.exists(self.path)
        try:
            is_small = self.size() <= CHECKED_SIZE
            if is_small and self._writer.select("PRAGMA quick_check(1)") != [("ok",)]:
                raise StoreError from sqlite3.DatabaseError("it is damaged")
            if claim:
                self._writer.execute(DELETE_EMPTY)
            self._reader.run(self._read_accounts)
        except StoreError as error:
            if not (claim and is_new):
                self.close()
                raise _start_error(self.path, error.__cause__) from error
            log.error("nothing is kept: %s", error)
        if self._claim is not None and os.name == "posix" and os.stat(folder).st_mode & 0o077:
            log.warning("others can read %s; to prevent it: chmod 700", folder)
        # Accounts and sanctions as of the last `accounts_changed`.
        self._reported: object = (self._accounts, self._sanctions)

    def note_process(self, *listens_at: object) -> None:
        """Write process, address and port to a file, for `find_server` in other processes."""
        if self._claim is not None:
            with contextlib.suppress(OSError), open(self._pid_path, "w", encoding="ascii") as file:
                file.write(" ".join(map(str, (os.getpid(), *listens_at))) + "\n")

    def _open(self) -> sqlite3.Connection:
        if self.path:
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
        path = self.path or ":memory:"
        connection = sqlite3.connect(
            path, timeout=DISK_TIMEOUT, isolation_level=None, check_same_thread=False
        )
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(connection.close)
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version not in (0, SCHEMA_VERSION):
                raise sqlite3.DatabaseError("it was made by another version of Hubbub")
            _use_write_ahead_log(connection)
            connection.execute("PRAGMA synchronous = NORMAL")
            if not version:
                connection.executescript(SCHEMA % SCHEMA_VERSION)
            connection.execute(DELETIONS)
            on_failure.pop_all()
        return connection

    def close(self) -> None:
        """Close the file, and let other servers have the folder."""
        self._is_closed = True
        self._reader.close()
        self._writer.close()
        if self._claim is not None:
            with contextlib.suppress(OSError):
                os.remove(self._pid_path)
            self._claim.close()
        self._hashers.shutdown()

    def size(self) -> int:
        """Return the bytes on disk."""
        with contextlib.suppress(OSError):
            return os.path.getsize(self.path)
        return 0

    # History

    def append(self, rows: List[Row]) -> None:
        """Store messages; storing the same number twice for a conversation is harmless."""
        values: List[object] = []
        for number, at, conversation, command, line, account in rows:
            kind = TEXT if command in ("PRIVMSG", "NOTICE") else EVENT
            values += (conversation, kind, number, at, command, line, account or None)
        names = {row.conversation for row in rows}
        pairs = [(who, name) for name in names for who in set(name.split(" "))]

        def insert(writer: sqlite3.Connection) -> None:
            # Few statements: each gives up the interpreter's lock, and has to get it back.
            writer.execute("BEGIN IMMEDIATE")
            for start in range(0, len(values), 7 * ROWS_AT_ONCE):
                part = values[start : start + 7 * ROWS_AT_ONCE]
                marks = ",".join(["(?,?,?,?,?,?,?)"] * (len(part) // 7))
                writer.execute("REPLACE INTO messages VALUES " + marks, part)  # noqa: S608
            writer.executemany("INSERT OR IGNORE INTO conversations VALUES (?,?)", pairs)

        self._writer.run(insert)

    def read(
        self,
        conversation: str,
        after: int,
        before: int,
        limit: int,
        latest: bool,
        with_events: bool = False,
    ) -> List[Row]:
        """Return messages with numbers between two, oldest first: the latest or the earliest.

        Without events, only texts.
        """
        query = (
            "SELECT number, time, key, command, line FROM messages WHERE key = ? AND kind = ?"
            " AND number > MAX(?, (SELECT IFNULL(MAX(upto), -1) FROM deletions WHERE key = ?))"
            " AND number < ? ORDER BY number "
        )
        query += "DESC LIMIT ?" if latest else "ASC LIMIT ?"
        found: List[Row] = []
        for kind in (TEXT, EVENT) if with_events else (TEXT,):
            rows = self._reader.select(
                query, conversation, kind, after, conversation, before, limit
            )
            found += [Row(*row) for row in rows]
        found.sort(reverse=latest)
        return found[:limit][::-1] if latest else found[:limit]

    def last_number(self) -> int:
        """Return the highest number in the history; 0 if it is empty, or cannot be read."""
        with contextlib.suppress(StoreError):
            return int(self._reader.select("SELECT MAX(number) FROM messages")[0][0] or 0)
        return 0

    def span(self, reference: Reference) -> Span:
        """Return the span of a reference; of a time, that of the messages of its millisecond."""
        if isinstance(reference, int):
            return reference, reference
        query = "SELECT time FROM messages WHERE number >= ? ORDER BY number LIMIT 1"
        last = self.last_number()

        def find(reader: sqlite3.Connection, ms: int) -> int:
            """Return the number from which on messages are of that time or later.

            By bisection, from the end: a clock that was wrong long ago changes nothing.
            """

            def is_later(number: int) -> bool:
                found = reader.execute(query, (number,)).fetchone()
                return found is None or int(found[0] * 1000) >= ms

            low, high, step = last, last + 1, 1
            while low > 0 and is_later(low):
                low, high, step = low - step, low, step * 2
            while low < high - 1:
                middle = (low + high) // 2
                low, high = (low, middle) if is_later(middle) else (middle, high)
            return high

        ms = round(reference * 1000)
        return self._reader.run(lambda reader: (find(reader, ms), find(reader, ms + 1) - 1))

    def correspondents(self, owner: str, after: int, before: int) -> List[Tuple[str, int, float]]:
        """Return the participants with whom `owner` last talked between two numbers.

        Each with number and time of the last message; in no particular order.
        """
        query = (
            "SELECT c.key, number, time FROM conversations AS c JOIN messages AS m"
            " ON m.key = c.key AND kind = ? AND number ="
            " (SELECT MAX(number) FROM messages WHERE key = c.key AND kind = ?)"
            " WHERE participant = ? AND number > ? AND number < ?"
        )
        found = []
        for row in self._reader.select(query, TEXT, TEXT, owner, after, before):
            first, _, second = row[0].partition(" ")
            found.append((second if first == owner else first, *row[1:]))
        return found

    def conversations(self, participant: str) -> List[str]:
        """Return the conversations of a participant."""
        query = "SELECT key FROM conversations WHERE participant = ?"
        return [key for (key,) in self._reader.select(query, participant)]

    def waiting_count(self, account_id: int) -> int:
        """Return how many messages wait for an account."""
        query = "SELECT COUNT(*) FROM messages WHERE waiting_for = ?"
        return int(self._reader.select(query, account_id)[0][0])

    def waiting(self, account_id: int, after: int = 0) -> List[Row]:
        """Return the messages that wait for an account, oldest first, at most MAX_WAITING.

        They wait until `forget_waiting` is called.
        """
        query = (
            "SELECT number, time, key, command, line, waiting_for FROM messages"
            " WHERE waiting_for = ? AND number > ? ORDER BY number LIMIT ?"
        )
        return [Row(*row) for row in self._reader.select(query, account_id, after, MAX_WAITING)]

    def forget_waiting(self, account_id: int, upto: int) -> None:
        """Mark messages up to this number as delivered; on failure they are delivered again."""
        query = "UPDATE messages SET waiting_for = NULL WHERE waiting_for = ? AND number <= ?"
        try:
            self._writer.execute(query, account_id, upto)
        except StoreError as error:
            log.warning("cannot note what was delivered: %s", error)

    def clean(self) -> bool:
        """Delete some messages: of what was removed, or the oldest of what is too old or too much.

        Returns True if the next call may find more. Each takes some milliseconds. Messages from
        the future stay: this clock may be wrong.
        """
        query = "SELECT key, kind, number, time FROM messages ORDER BY number LIMIT ?"

        def delete(writer: sqlite3.Connection) -> bool:
            if self._delete_some(writer):
                return True
            names = ("page_size", "page_count", "freelist_count")
            size, count, free = (writer.execute("PRAGMA " + n).fetchone()[0] for n in names)
            is_full, now = size * (count - free) > self._max_size, time.time()
            if is_full and not self._is_full:
                self._is_full = True
                log.warning("the history is full (--max-history): the oldest messages are deleted")
            old = []
            for *row, at in writer.execute(query, (CLEANED_AT_ONCE,)).fetchall():
                if is_full or now - at > self._lifetime:
                    old.append(row)
                elif at <= now:
                    break
            if old:
                writer.execute("BEGIN IMMEDIATE")
                writer.executemany(DELETE_MESSAGE, old)
            return len(old) == CLEANED_AT_ONCE

        return self._writer.run(delete)

    def _delete_some(self, writer: sqlite3.Connection) -> bool:
        """Carry on with the first of the deletions; False if there is none."""
        found = writer.execute("SELECT rowid, * FROM deletions ORDER BY rowid LIMIT 1").fetchone()
        if found is None:
            return False
        if not writer.in_transaction:
            writer.execute("BEGIN IMMEDIATE")
        query = (
            "SELECT key, kind, number FROM messages"
            " WHERE key = ? AND kind IN (0, 1) AND number BETWEEN ? AND ? LIMIT ?"
        )
        rows = writer.execute(query, (*found[1:], CLEANED_AT_ONCE)).fetchall()
        writer.executemany(DELETE_MESSAGE, rows)
        if len(rows) < CLEANED_AT_ONCE:
            writer.execute("DELETE FROM deletions WHERE rowid = ?", found[:1])
        return True

    # Accounts

    def account(self, name: str) -> Optional[Account]:
        """Return the account of a name, as last read."""
        return self._accounts.get(protocol.casefold(name))

    def accounts(self) -> List[Account]:
        """Return all accounts by name, as last read."""
        return list(self._accounts.values())

    def accounts_changed(self) -> bool:
        """Return True if accounts or sanctions changed since the last call.

        For one thread, every few seconds: reads what other processes have changed.
        """
        self._refresh()
        state = self._accounts, self._sanctions
        changed, self._reported = state != self._reported, state
        return changed

    def add_account(self, name: str, password: str, is_operator: bool = False) -> Account:
        """Add an account. Raises AccountExistsError, or StoreError, also for a bad password."""
        salt, digest = self._new_hash(password)
        self._refresh()
        known = self.account(name)
        if known is not None and known.is_host:  # it is under another key
            raise AccountExistsError("%s is the name of the host, and needs no password." % name)
        query = (
            "INSERT OR IGNORE INTO accounts (key, name, is_operator, created, salt, digest)"
            " VALUES (?,?,?,?,?,?)"
        )
        key, created = protocol.casefold(name), time.time()
        cursor = self._change(query, key, name, is_operator, created, salt, digest)
        if not cursor.rowcount:
            raise AccountExistsError("%s has an account already." % name)
        return Account(int(cursor.lastrowid or 0), name, is_operator, created)

    def set_password(self, name: str, password: str, is_operator: bool) -> bool:
        """Change password and rights; False if there is no account. Raises as `add_account`."""
        salt, digest = self._new_hash(password)
        query = "UPDATE accounts SET salt = ?, digest = ?, is_operator = ? WHERE key = ?"
        cursor = self._change(query, salt, digest, is_operator, protocol.casefold(name))
        return cursor.rowcount > 0

    def remove_account(self, name: str) -> bool:
        """Delete an account; `clean` deletes the history that nobody can read. False if none."""
        self._refresh()
        account = self.account(name)
        if account is not None:
            participant, number = "=%d" % account.id, account.id
            query = (
                "INSERT INTO deletions SELECT key, 0, ? FROM conversations WHERE participant = ?"
            )

            def delete(writer: sqlite3.Connection) -> None:
                writer.execute("BEGIN IMMEDIATE")
                writer.execute(query, (MAX_NUMBER, participant))
                writer.execute("DELETE FROM accounts WHERE id = ?", (number,))

            self._writer.run(delete)
            self._refresh()
        return account is not None

    def log_in(self, name: str, password: str) -> Optional[Account]:
        """Return the account if this is its password; the work is the same for every name."""
        query = "SELECT salt, digest, id FROM accounts WHERE key = ?"
        found = self._reader.select(query, protocol.casefold(name))
        salt, digest, number = found[0] if found else (bytes(16), bytes(32), 0)
        if not hmac.compare_digest(self._hash(password, salt), digest) or not found:
            return None
        self._refresh()  # another process may have made or changed it
        return next((account for account in self.accounts() if account.id == number), None)

    def name_host(self, account: Account, nickname: str) -> bool:
        """Name the host's account as its user, unless the name is another's. True if it changed."""
        is_free = self.account(nickname) in (None, account)
        is_new = account.is_host and is_free and account.name != nickname
        if is_new:
            query = "UPDATE accounts SET name = ? WHERE id = ?"
            self._change(query, nickname, account.id)
        return is_new

    def _new_hash(self, password: str) -> Tuple[bytes, bytes]:
        error = protocol.password_error(password)
        if error:
            raise StoreError(error)
        salt = os.urandom(16)
        return salt, self._hash(password, salt)

    def _hash(self, password: str, salt: bytes) -> bytes:
        if not hasattr(hashlib, "scrypt"):
            raise StoreError("This server's Python has no scrypt: it cannot check passwords.")
        # Longer passwords match nothing.
        data = protocol.password_bytes(password)[: protocol.MAX_PASSWORD + 1]
        n, r, p = SCRYPT

        def scrypt() -> bytes:
            if self._is_closed:
                raise StoreError("The server is shutting down.")
            return hashlib.scrypt(data, salt=salt, n=n, r=r, p=p, maxmem=256 * n * r, dklen=32)

        return self._hashers.submit(scrypt).result()

    # Channels

    def save_channel(self, folded: str, state: Dict[str, Any]) -> None:
        """Store the state of a channel, which JSON can hold, in place of an earlier state."""
        self._writer.execute("REPLACE INTO channels VALUES (?,?)", folded, json.dumps(state))

    def delete_channel(self, folded: str, since: Optional[int] = None) -> None:
        """Delete a channel, and its history from a number on, unless that is None."""

        def delete(writer: sqlite3.Connection) -> None:
            writer.execute("BEGIN IMMEDIATE")
            writer.execute("DELETE FROM channels WHERE key = ?", (folded,))
            if since is not None:
                query = "INSERT INTO deletions SELECT ?, ?, MAX(number) FROM messages"
                writer.execute(query, (folded, since))
                self._delete_some(writer)

        self._writer.run(delete)

    def channels(self) -> List[Dict[str, Any]]:
        """Return the states of all channels. Raises StoreError."""
        states = []
        for folded, state in self._reader.select("SELECT key, state FROM channels ORDER BY key"):
            try:
                states.append(json.loads(state))
            except ValueError as error:
                log.warning("cannot read the state of %s: %s", folded, error)
        return states

    # Sanctions

    @property
    def sanctions(self) -> Tuple[Sanction, ...]:
        """The sanctions in force, oldest first."""
        now = time.time()
        return tuple(sanction for sanction in self._sanctions if sanction.is_in_force(now))

    def find_sanction(self, kind: str, names: Iterable[str], address: str) -> Optional[Sanction]:
        """Return a sanction in force for one of the casefolded names or the address."""
        known = tuple(names)
        for sanction in self.sanctions:
            if sanction.kind == kind and target_matches(sanction.target, known, address):
                return sanction
        return None

    def add_sanction(self, sanction: Sanction) -> None:
        """Store a sanction, in place of an earlier one of that kind and target."""
        self._change("DELETE FROM sanctions WHERE until > 0 AND until <= ?", time.time())
        self._change("REPLACE INTO sanctions VALUES (?,?,?,?,?,?)", *sanction)

    def remove_sanctions(self, target: str) -> List[str]:
        """Delete the sanctions of a target, and return the kinds of those in force."""
        target = normalize_target(target)
        kinds = [sanction.kind for sanction in self.sanctions if sanction.target == target]
        self._change("DELETE FROM sanctions WHERE target = ?", target)
        return kinds

    # Accounts and sanctions in memory

    def _change(self, query: str, *values: object) -> sqlite3.Cursor:
        cursor = self._writer.execute(query, *values)
        self._refresh()
        return cursor

    def _refresh(self) -> None:
        """Read accounts and sanctions again; keep the old ones if the disk fails."""
        try:
            self._reader.run(self._read_accounts)
        except StoreError as error:
            log.warning("cannot read accounts and sanctions: %s", error)

    def _read_accounts(self, reader: sqlite3.Connection) -> None:
        # The host's last: another may have registered its name at the moment that it took it.
        query = "SELECT key, id, name, is_operator, created FROM accounts ORDER BY key = ?, key"
        rows = reader.execute(query, (protocol.HOST_ACCOUNT,))
        accounts: Dict[str, Account] = {}
        for key, number, name, is_operator, created in rows:
            is_host = key == protocol.HOST_ACCOUNT
            name = key if is_host and protocol.casefold(name) in accounts else name
            account = Account(number, name, bool(is_operator), created, is_host)
            accounts[protocol.casefold(name)] = account
        self._accounts = accounts
        skeletons: Dict[str, Set[str]] = collections.defaultdict(set)
        for account in self._accounts.values():
            skeletons[protocol.skeleton(account.name)].add(account.name)
            for key in letters_keys(account.name) if account.is_host else ():
                skeletons[key].add(account.name)
        self.skeletons = dict(skeletons)
        rows = reader.execute("SELECT * FROM sanctions ORDER BY at, kind")
        self._sanctions = tuple(Sanction(*row) for row in rows)


def _start_error(path: str, reason: object) -> StoreError:
    """Return the error for the host; for a damaged file, with the command that moves it aside."""
    text = "cannot use %s: %s." % (path, getattr(reason, "strerror", None) or reason)
    # Of SQLite's errors, those of this very class mean a damaged file.
    if type(reason) is sqlite3.DatabaseError:
        aside = path + time.strftime(".%Y%m%d-%H%M%S")
        if sys.platform == "win32":
            command = 'move "%s" "%s"' % (path, aside)
        else:
            command = "mv %s %s" % (shlex.quote(path), shlex.quote(aside))
        text += " To begin with an empty one, move it aside: " + command
    return StoreError(text)


def find_server(folder: str) -> Tuple[int, str, int]:
    """Return process, address and port (0 at first) of the server that uses the folder.

    Raises StoreError if there is none.
    """
    try:
        with open(os.path.join(folder, protocol.PID_FILE), encoding="ascii") as file:
            pid, bound, port = (*file.read().split(), "", "0")[:3]
        if int(pid) > 0 and _is_claimed(folder):  # else it may be any program's by now
            return int(pid), bound, int(port)
    except (OSError, ValueError):
        pass
    raise StoreError("no server uses %s." % folder)


def stop_server(folder: str) -> None:
    """End the server that uses the folder, and wait for its end. Raises StoreError if it cannot."""
    pid, _, _ = find_server(folder)
    try:
        os.kill(pid, signal.SIGTERM)
    except OSError as error:
        raise StoreError("cannot stop process %d: %s." % (pid, error.strerror)) from None
    deadline = time.monotonic() + STOP_TIMEOUT
    while _is_claimed(folder):
        if time.monotonic() > deadline:
            raise StoreError("process %d does not stop." % pid)
        time.sleep(0.05)


def _is_claimed(folder: str) -> bool:
    """Return True if a server uses the folder."""
    try:
        claim = _claim_folder(folder, timeout=0)
    except StoreError:
        return True
    if claim is not None:
        claim.close()
    return False


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Switch the file to a write-ahead log, which outlives the connection."""
    deadline = time.monotonic() + DISK_TIMEOUT
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            # Here SQLite itself does not wait for other processes.
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _claim_folder(folder: str, timeout: float = LOOK_TIMEOUT) -> Optional[sqlite3.Connection]:
    """Lock a data folder against other servers; the lock ends with the process.

    Returns None if the folder cannot be written. Raises StoreError if another server has it.
    """
    claim = None
    try:
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, "lock")
        claim = sqlite3.connect(path, timeout=timeout, check_same_thread=False)
        claim.execute("BEGIN EXCLUSIVE")
    except (OSError, sqlite3.Error) as error:
        if claim is not None:
            claim.close()
        if "locked" in str(error):
            text = "another server uses %s. Give this one its own folder: --data FOLDER"
            raise StoreError(text % folder) from None
        return None
    return claim


# The delivery
# ------------


Record = Union[Row, ChannelRecord]


class Journal(threading.Thread):
    """The thread `history`: writes to disk what the delivery is about to send, in that order.

    A disk that is slow, full or broken delays nobody: the delivery waits STORE_TIMEOUT, then goes
    on, and what waits for the disk is kept in a bounded list. It announces a fault, the first
    message that is lost, and the end of the fault. The thread also deletes old messages, and
    calls `on_upkeep` every UPKEEP_INTERVAL: with True if accounts have changed, perhaps by
    another process.
    """

    def __init__(
        self, store: Store, announce: Callable[[str], None], on_upkeep: Callable[[bool], None]
    ) -> None:
        # Daemon: a disk that never answers must not keep the server from ending.
        super().__init__(name="history", daemon=True)
        self._store = store
        self._announce = announce
        self._on_upkeep = on_upkeep
        # Binary semaphores: `_work` is ready; it is written. One thread releases, the other takes.
        self._start, self._done = threading.Lock(), threading.Lock()
        self._start.acquire()
        self._done.acquire()
        self._work: List[Record] = []
        self._error = ""  # why `_work` was not written
        self._upkeep_at = 0.0  # monotonic
        self._has_more = False  # there may be more to delete
        self._is_stopping = False
        # For the delivery alone:
        self.fault = ""  # why nothing is being kept
        self.lost = 0  # messages that will not be kept, since the disk worked
        self._announced = ""  # the `warning` that users know of
        self._backlog: List[Record] = []
        self._in_progress = 0  # records that the thread is writing
        self._retry_at = 0.0  # monotonic

    def write(self, work: List[Record]) -> None:
        """Return when `work` is on disk, or after STORE_TIMEOUT."""
        self._backlog += work
        if self._in_progress:
            self._collect(0)
        must_wait = self._in_progress or (self.fault and time.monotonic() < self._retry_at)
        if self._backlog and not must_wait:
            self._work, self._backlog = self._backlog, []
            self._in_progress = len(self._work)
            self._start.release()
            self._collect(0 if self.fault else STORE_TIMEOUT)
        if len(self._backlog) > MAX_BACKLOG:
            self._shorten()
        if self.warning != self._announced:
            self._announced = self.warning
            if self.fault:
                log.error("the history is not being kept: %s", self.fault)
            else:
                log.warning("the history is being kept again")
            self._announce(self.warning or HISTORY_WORKS)

    @property
    def warning(self) -> str:
        """The text for users if something is not kept, else ""."""
        return (HISTORY_LOST if self.lost else HISTORY_FAILS) if self.fault else ""

    def _collect(self, timeout: float) -> None:
        """Take the work back if the thread is done with it in time."""
        if not self._done.acquire(timeout=timeout):
            self.fault = self.fault or "the disk does not answer"
            return
        count, self._in_progress, self.fault = self._in_progress, 0, self._error
        if self.fault:
            self.lost += count - len(self._work)  # by a mistake of ours
            self._backlog = self._work + self._backlog
            self._retry_at = time.monotonic() + RETRY_AFTER
        else:
            self.lost = 0

    def _shorten(self) -> None:
        """Drop messages above MAX_BACKLOG, and states of channels that later ones replace."""
        states = {item.folded: item for item in self._backlog if isinstance(item, ChannelRecord)}
        kept: List[Record] = []
        left = MAX_BACKLOG
        for item in self._backlog:
            if isinstance(item, ChannelRecord):
                kept += [item] if item.since is not None or item is states[item.folded] else []
            elif left:
                kept.append(item)
                left -= 1
            else:
                self.lost += 1
        self._backlog = kept

    def stop(self) -> None:
        """Write what waits, and end the thread."""
        if self._in_progress:
            self._collect(DISK_TIMEOUT)
        self.fault = ""  # so that even a disk that failed is tried again, and waited for
        self.write([])
        left = self._in_progress + len(self._backlog) + self.lost
        if left:
            log.error("%d messages and changes of rooms are lost", left)
        self._is_stopping = True
        if not self._in_progress:
            self._start.release()
            self.join(STORE_TIMEOUT)

    def run(self) -> None:
        while not self._is_stopping:
            if self._start.acquire(timeout=0 if self._has_more else UPKEEP_INTERVAL):
                self._error = self._attempt(self._commit)
                self._done.release()
            error = self._attempt(self._do_upkeep)
            if error:
                log.warning("cannot clean the store: %s", error)

    def _attempt(self, work: Callable[[], None]) -> str:
        """Return why `work` failed, "" if it did not. A mistake of ours does not end the thread."""
        try:
            work()
        except StoreError as error:
            return str(error)
        except Exception:
            log.exception("internal error; the history goes on with what comes next")
            return "something went wrong in the server"
        return ""

    def _do_upkeep(self) -> None:
        if time.monotonic() >= self._upkeep_at:
            self._upkeep_at = time.monotonic() + UPKEEP_INTERVAL
            self._has_more = not self._error
            self._on_upkeep(not self._error and self._store.accounts_changed())
        if self._has_more:
            self._has_more = False  # also if this fails
            self._has_more = self._store.clean()

    def _commit(self) -> None:
        """Write `_work` in order. Raises StoreError."""
        work, self._work = self._work, []  # after a mistake of ours, trying again is of no use
        try:
            for is_row, run in itertools.groupby(work, lambda item: isinstance(item, Row)):
                if is_row:
                    self._store.append([item for item in run if isinstance(item, Row)])
                    continue
                for item in run:
                    if isinstance(item, ChannelRecord) and item.state is not None:
                        self._store.save_channel(item.folded, item.state)
                    elif isinstance(item, ChannelRecord):
                        self._store.delete_channel(item.folded, item.since)
        except StoreError:
            self._work = work
            raise


class PartialSelector(selectors.SelectSelector):
    """Calls select for MAX_SELECT sockets at a time.

    The socket that was registered first, which wakes the caller, is among the first of them.
    """

    def select(self, timeout: Optional[float] = None) -> List[Tuple[selectors.SelectorKey, int]]:
        """Return what is ready; nothing, perhaps, before the timeout."""
        keys = list(self.get_map().values())
        if len(keys) <= MAX_SELECT:
            return super().select(timeout)
        ready = []
        for start in range(0, len(keys), MAX_SELECT):
            part = keys[start : start + MAX_SELECT]
            readers = [key.fileobj for key in part if key.events & selectors.EVENT_READ]
            writers = [key.fileobj for key in part if key.events & selectors.EVENT_WRITE]
            pause = 0 if start or timeout == 0 else SELECT_PAUSE
            found = set(itertools.chain(*select.select(readers, writers, [], pause)))
            ready += [(key, key.events) for key in part if key.fileobj in found]
        return ready


class Delivery(threading.Thread):
    """Writes to all sockets: takes a batch of events, has it stored, renders it, and sends."""

    def __init__(self, max_sendq: int, journal: Optional[Journal], lobby: str) -> None:
        super().__init__(name="delivery")
        self._journal = journal
        self._lobby = lobby
        self._max_sendq = max_sendq or sys.maxsize
        self.pending: Deque[Work] = collections.deque()  # appended to by all threads
        self._drained = threading.Condition()  # readers wait here for a shorter queue
        self._is_asleep = False  # True while it waits in select, and a byte must wake it
        self._is_stopping = False
        self._woken, self._waker = socket.socketpair()
        for end in (self._woken, self._waker):
            end.setblocking(False)
        is_partial = issubclass(selectors.DefaultSelector, selectors.SelectSelector)
        self._selector = PartialSelector() if is_partial else selectors.DefaultSelector()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._touched: Dict[Client, None] = {}  # those with something to send, or to shut down
        self.enqueue = self.pending.append  # queues work; `wake` is called when all is posted

    # For all threads

    def wake(self) -> None:
        """Deliver what was posted."""
        if self._is_asleep:
            self._is_asleep = False
            with contextlib.suppress(OSError):  # full of wake-ups, or closed: both are fine
                self._waker.send(b"!")

    def wait(self) -> None:
        """Wake it, and wait while its queue is longer than MAX_PENDING: for readers."""
        self.wake()
        if len(self.pending) > MAX_PENDING:
            with self._drained:
                self._drained.wait_for(lambda: len(self.pending) <= MAX_PENDING)

    def sync(self) -> bool:
        """Wait until all that was posted is stored and sent; False if not in STORE_TIMEOUT."""
        barrier = threading.Event()
        self.pending.append(barrier)
        self.wake()
        is_sent = barrier.wait(STORE_TIMEOUT)
        return is_sent and not (self._journal is not None and self._journal.fault)

    def stop(self) -> None:
        """End the thread when all that was posted has been delivered, and wait for it."""
        self._is_stopping = True
        self._is_asleep = True  # so that it is woken in any case
        self.wake()
        self.join()
        self._selector.close()
        self._woken.close()
        self._waker.close()

    # For its own thread

    def run(self) -> None:
        while self.pending or not self._is_stopping:
            try:
                batch = self._next_batch()
                count = len(batch)
                if len(self.pending) <= MAX_PENDING < len(self.pending) + count:
                    with self._drained:
                        self._drained.notify_all()
                self._store(batch)
                self._deliver(batch)
                self._flush()
                for work in batch:
                    if isinstance(work, threading.Event):
                        work.set()
                # When it is busy, let readers add as many again: a lone message is not delayed.
                for _ in range(MAX_YIELDS if len(batch) > 1 else 0):
                    if len(self.pending) < len(batch):
                        time.sleep(0)
                self._poll()
            except Exception:
                log.exception("delivery failed; it goes on with what comes next")

    def _next_batch(self) -> List[Work]:
        """Take what is delivered together: few enough rows that nobody waits long for the disk."""
        batch: List[Work] = []
        rows = 0
        while self.pending and len(batch) < MAX_BATCH and rows < MAX_BATCH:
            work = self.pending.popleft()
            batch.append(work)
            if type(work) is Event:
                rows += len(work.conversations)
        return batch

    def _store(self, batch: List[Work]) -> None:
        """Give the journal the rows and channels of a batch."""
        kept: List[Record] = []
        for work in batch:
            if isinstance(work, Event) and work.conversations:
                kept += work.rows()
            elif isinstance(work, ChannelRecord):
                kept.append(work)
        if self._journal is not None and (kept or self._journal.fault):
            self._journal.write(kept)

    def _deliver(self, batch: List[Work]) -> None:
        """Render a batch into the outboxes; carry out endings."""
        audience_of = lambda work: isinstance(work, Event) and id(work.audience)  # noqa: E731
        for audience_id, run in itertools.groupby(batch, audience_of):
            if audience_id:
                self._put([work for work in run if isinstance(work, Event)])
                continue
            for work in run:
                if isinstance(work, Output):
                    self._append(work.client, self._try(work.make))
                elif isinstance(work, Ending):
                    self._end(work)

    def _try(self, render: Callable[..., bytes], *args: Any) -> bytes:
        """Return what `render` does; after a mistake of ours only that is lost."""
        try:
            return render(*args)
        except Exception:
            log.exception("internal error: %.1000r", args)
            return b""

    def _put(self, events: List[Event]) -> None:
        """Put events of one audience into its outboxes, rendered once per set of capabilities."""
        lines: Dict[int, List[bytes]] = {}  # of all events, by capabilities
        joined: Dict[int, bytes] = {}
        own: Dict[Client, List[int]] = {}  # senders, and the events that look different to them
        for index, event in enumerate(events):
            if event.sender is not None and (event.is_text or event.label):
                own.setdefault(event.sender, []).append(index)
        for client in events[0].audience:
            caps = client.caps
            if caps not in lines:
                lines[caps] = [self._try(event.render, caps, self._lobby) for event in events]
                joined[caps] = b"".join(lines[caps])
            data = joined[caps]
            if client in own:
                pieces = lines[caps].copy()
                for index in own[client]:
                    pieces[index] = self._try(events[index].render_own, client, self._lobby)
                data = b"".join(pieces)
            self._append(client, data)

    def _append(self, client: Client, data: bytes) -> None:
        # Without data, TLS itself may have something to say.
        if (data or client.tls is not None) and not client.is_closed and not client.finishing:
            client.outbox.append(data)
            client.queued += len(data)
            self._touched[client] = None

    def _flush(self) -> None:
        """Send all outboxes into which something was put, as far as their sockets take it."""
        touched, self._touched = self._touched, {}
        for client in touched:
            if not client.is_closed and not client.is_blocked:
                self._send(client)
        if any(client.is_blocked for client in touched):
            self._check_outboxes()

    def _check_outboxes(self) -> None:
        """End blocked clients with too large an outbox; if all are too large, the largest."""
        blocked = [key.data for key in self._selector.get_map().values() if key.data]
        total, of_host = 0, collections.Counter()  # type: int, Dict[str, int]
        for client in sorted(blocked, key=operator.attrgetter("queued")):
            total += client.queued
            of_host[client.host] += client.queued
            is_full = total > MAX_OUTBOXES or of_host[client.host] > MAX_ADDRESS_OUTBOX
            if is_full or client.queued > self._max_sendq:
                total -= client.queued
                of_host[client.host] -= client.queued
                self._abort(client, "SendQ exceeded")

    def _poll(self) -> None:
        """Send to those who can take more; sleep if there is nothing to do."""
        if not self.pending:
            self._is_asleep = True
        is_idle = self._is_asleep and not self.pending and not self._is_stopping
        if is_idle or len(self._selector.get_map()) > 1:
            for key, _ in self._selector.select(None if is_idle else 0):
                if key.data is None:
                    self._woken.recv(4096)
                else:
                    self._send(key.data)
        self._is_asleep = False

    def _send(self, client: Client) -> None:
        """Send what the socket takes; wait for writability if it does not take all."""
        try:
            if client.tls is not None:
                client.encrypt_outbox(client.tls)
            data = b"".join(client.outbox)
            sent = client.writer.send(data) if data else 0
        except BlockingIOError:
            sent = 0
        except Exception as error:  # a mistake of ours ends this client alone
            if not isinstance(error, OSError):
                log.exception("%s: internal error", client.log_name)
            self._abort(client, getattr(error, "strerror", "") or "Connection lost")
            return
        left = len(data) - sent
        client.outbox[:] = [memoryview(data)[sent:]] if left else []
        if left or client.is_blocked:
            self._set_unsent(client, left)
        else:
            client.queued = 0
        if client.finishing and not left:
            with contextlib.suppress(OSError):  # the peer was faster
                client.reader.shutdown(socket.SHUT_WR)

    def _set_unsent(self, client: Client, left: int) -> None:
        """Note how many bytes the socket has not taken; wait for writability if there are any."""
        if left and not client.is_blocked:
            self._selector.register(client.reader, selectors.EVENT_WRITE, client)
        elif client.is_blocked and not left:
            self._selector.unregister(client.reader)
        client.queued, client.is_blocked = left, bool(left)

    def _end(self, ending: Ending) -> None:
        client = ending.client
        if ending.how == FINISH:
            client.finishing = True
            self._touched[client] = None  # sending finds the outbox empty, and shuts down
            return
        try:
            if not client.is_closed:
                if not client.is_blocked:
                    self._send(client)
                self._abort(client, "")
        finally:
            if ending.how == CLOSE:
                client.writer.detach()
                client.reader.close()

    def _abort(self, client: Client, reason: str) -> None:
        """Send no more, and let the client's thread find the end of its stream."""
        client.is_closed = True
        client.end_reason = client.end_reason or reason
        client.outbox.clear()
        with contextlib.suppress(OSError):
            client.reader.shutdown(socket.SHUT_RDWR)
        self._set_unsent(client, 0)


# Sessions
# --------

# For peers that speak TLS if there is none: fatal, protocol_version (RFC 8446, 6)
TLS_ALERT = b"\x15\x03\x01\x00\x02\x02\x46"


def make_note(client: Client, *params: str) -> Reply:
    """Return a standard reply NOTE, or a notice for a client that does not know those."""
    if not client.caps & STANDARD_REPLIES:
        return "NOTICE", params[-1]
    # ::1 cannot be a middle parameter.
    middle = ["0" + param if param.startswith(":") else param for param in params[:-1]]
    return ("NOTE", *middle, params[-1])


class Session:
    """A client's thread: reads and carries out each line until the connection ends.

    The handlers in COMMANDS get it. They answer with `reply` and `note`, or refuse by raising
    ReplyError; the answer is sent when they are done. They may raise Disconnect.
    """

    def __init__(self, server: "Server", client: Client) -> None:
        self.server = server
        self.options = server.options
        self.directory = server.directory
        self.delivery = server.delivery
        self.client = client
        self.response = client.response = Response(
            client, self.delivery.enqueue, self.options.server_name, self.options.lobby
        )
        client.bucket = Bucket(self.options.rate_limit, BURST)
        self._deadline = time.monotonic() + (server.options.register_timeout or FOREVER)
        self._owed = 0.0  # tokens that its address is not charged for yet
        self._ends_at = float("inf")  # when lines that came before the peer's end are dropped
        self._probe_at = time.monotonic() + MAX_REST / 2  # when a flooding peer is next sent a PING
        self.is_negotiating = False  # between CAP LS or REQ and CAP END
        self.has_user = False  # USER has come
        self.password = ""  # from PASS
        self.sasl: Optional[List[str]] = None  # the chunks of an AUTHENTICATE that is under way
        self.channel = server.options.lobby  # current channel of a user with nc

    def run(self) -> None:
        client = self.client
        log.info("%s connected", client.address)
        try:
            self._converse()
        except Disconnect as disconnect:
            end = disconnect
        except OSError as error:
            end = Disconnect(error.strerror or "Connection lost")
        except Exception:
            log.exception("%s: internal error", client.log_name)
            end = Disconnect("Server error", "Something went wrong in the server. Please rejoin.")
        self._finish(Disconnect(client.end_reason) if client.end_reason else end)

    def _finish(self, end: Disconnect) -> None:
        client = self.client
        name, limits = client.log_name, self.server.limits
        limits["work"].leave(client.host, client)
        limits["storing"].leave(client.host, client)
        if client.unpaid and self.options.rate_limit:
            limits["storing"].charge(client.host, client.unpaid, time.monotonic())
        self.directory.remove(client, end.reason)
        if end.farewell:
            self.response.events.append(self.response.make_event(("ERROR", end.farewell)))
        self.response.flush()
        self.delivery.enqueue(Ending(client, FINISH))
        self.delivery.wake()
        # Read to the end, LINGER at most, so that closing resets nothing that was sent.
        deadline = time.monotonic() + LINGER
        with contextlib.suppress(OSError):
            client.reader.settimeout(LINGER)
            while client.reader.recv(RECEIVE_SIZE) and time.monotonic() < deadline:
                client.reader.settimeout(max(0.001, deadline - time.monotonic()))
        self.delivery.enqueue(Ending(client, CLOSE))
        self.delivery.wake()
        # What users say when they quit is private: the log has what precedes the colon.
        log.info("%s ended: %s", name, end.reason.partition(":")[0])

    def _converse(self) -> None:
        self.charge(CONNECTION_PRICE)
        opening = b""
        name = None
        chunks = self._chunks()
        while name is None:
            opening += next(chunks)
            name = sniff(opening)
            if name is None:
                self.charge(PIECE_PRICE)
        if name == HTTP:
            self._serve_page(opening, chunks)
        if name == TLS:
            self.delivery.enqueue(Output(self.client, lambda: TLS_ALERT))
            raise Disconnect("Refused TLS")
        if name == IRC:
            self.client.caps = 0
        else:  # a user with nc gives no other name than the nickname
            self.client.caps, self.client.username, self.has_user = PLAIN_TEXT, "nc", True
        on_line = on_irc_line if name == IRC else on_plain_line
        max_line = protocol.MAX_TAGS + protocol.MAX_MESSAGE if name == IRC else MAX_PLAIN_LINE
        framer = protocol.Framer(max_line)
        for chunk in itertools.chain([opening], chunks):
            lines = framer.feed(chunk)
            if not lines:
                self.charge(PIECE_PRICE)
            for line in lines:
                self.charge(1.0)
                if line != b"":
                    on_line(self, line)
            self.delivery.wait()

    def _chunks(self) -> Iterator[bytes]:
        """Yield the bytes that arrive; prompt, ping and time out while there are none."""
        client, options = self.client, self.options
        timeout = PROMPT_AFTER
        is_silent = True  # nothing has come, and nobody has been asked for a username
        is_pinged = False  # a PING is not answered yet
        while client.tls is None or not client.tls.is_ended:
            client.reader.settimeout(timeout)
            try:
                data = client.reader.recv(RECEIVE_SIZE)
            except socket.timeout:
                if is_silent and (client.tls is None or client.tls.is_open):
                    client.caps, is_silent = PLAIN_TEXT, False
                    text = "Welcome to %s. Type your username and press Enter."
                    self.notice(text, options.network)
                elif client.registered and is_pinged:
                    reason = "Ping timeout: %g seconds" % options.ping_interval
                    raise Disconnect(reason) from None
                elif self._can_ping():
                    self.reply("PING", options.server_name)
                    is_pinged = True
                self.flush()
                self.delivery.wake()
            else:
                if not data:
                    break
                if len(data) > BYTES_PER_TOKEN:
                    self.charge(len(data) // BYTES_PER_TOKEN)
                data = self._decrypt(data, is_first=is_silent)
                if data:
                    is_silent = is_pinged = False
                yield data
            client.check_end()
            if self._can_ping():
                timeout = options.ping_interval
            elif client.registered:
                timeout = FOREVER  # the system's keepalive watches the connection
            else:
                timeout = self._deadline - time.monotonic()
                if timeout <= 0:
                    farewell = "No username came in time. Connect again when you are ready."
                    raise Disconnect("Registration timeout", farewell)
                timeout = min(timeout, PROMPT_AFTER) if is_silent else timeout
        raise Disconnect("Connection closed", "" if client.registered else "Goodbye.")

    def _decrypt(self, data: bytes, is_first: bool) -> bytes:
        """Return what the peer said in these bytes; send what TLS has to say. Raises Disconnect.

        If they are the first, a TLS hello begins the encryption.
        """
        client = self.client
        if is_first and client.tls is None and self.server.tls is not None and sniff(data) == TLS:
            self.charge(TLS_PRICE)
            client.tls = protocol.TlsPipe(self.server.tls)
        if client.tls is None:
            return data
        try:
            if client.tls.is_open:
                return client.decrypt(data)
            return self.server.handshakes.submit(client.decrypt, data).result()
        finally:
            if client.tls.pending:
                self.delivery.enqueue(Output(client, bytes))
                self.delivery.wake()

    def _serve_page(self, data: bytes, chunks: Iterator[bytes]) -> NoReturn:
        """Answer a browser's request: `respond`. Nothing of it is taken for chat."""
        is_read = data.startswith((b"GET ", b"HEAD "))  # others are refused at once
        try:
            while is_read and len(data) <= MAX_REQUEST and not _BLANK_LINE.search(data):
                self.charge(PIECE_PRICE)
                data += next(chunks)
        except Disconnect as end:
            raise Disconnect(end.reason) from None  # no farewell in another protocol
        self.charge(REQUEST_PRICE + len(data) // BYTES_PER_TOKEN)
        host, port = self.client.reader.getsockname()[:2]
        host = protocol.normalize_host(host)
        app = make_app(protocol.format_address(host, port))
        answer = respond(data, host, port, self.options.network, app, self.server.digest)
        # In pieces that fit into any outbox; the last has LINGER more.
        self._ends_at = time.monotonic() + MAX_REST
        size = min(RECEIVE_SIZE, self.options.max_sendq or RECEIVE_SIZE)
        for start in range(0, len(answer), size):
            piece = answer[start : start + size]
            self.delivery.enqueue(Output(self.client, functools.partial(bytes, piece)))
            self._drain(0)
        raise Disconnect("Answered a browser")

    def _can_ping(self) -> bool:
        client = self.client
        can_answer = client.registered and not client.caps & PLAIN_TEXT
        return bool(can_answer and self.options.ping_interval)

    # For the handlers

    def charge(self, tokens: float) -> None:
        """Take tokens from the client and its address; return when they are paid for.

        Called before the work is done, without a lock. Raises Disconnect once the client's end
        has come.
        """
        wait = self._take(tokens)
        if wait > 0 or len(self.delivery.pending) > MAX_PENDING:
            self.delivery.wait()
            self._wait_for(lambda: self._take(0.0), wait)
        self.client.check_end()

    def _take(self, tokens: float) -> float:
        """Take tokens, and return 0 if they are paid for, or the seconds until it asks again.

        The client pays first: its address is not charged for what waits for the client's rate.
        """
        if not self.options.rate_limit:
            return 0.0
        client, limits, now = self.client, self.server.limits, time.monotonic()
        self._owed += tokens
        wait = client.bucket.charge(tokens, now)
        wait = wait or limits["work"].try_turn(client.host, client, self._owed, now)
        if wait:
            return wait
        self._owed = 0.0
        if client.unpaid:
            wait = limits["storing"].try_turn(client.host, client, client.unpaid, now)
            client.unpaid = client.unpaid if wait else 0
        return wait

    def take_turn(self, name: str, key: str) -> None:
        """Take a token of a limit, and wait for the client's turn."""
        limit, client = self.server.limits[name], self.client

        def ask() -> float:
            return limit.try_turn(key, client, 1.0, time.monotonic())

        try:
            wait = ask()
            if wait:
                text = "Too many wrong passwords or keys: yours will be tried in %d seconds."
                self.notice(text, wait + 1)
                self.flush(is_done=False)
                self.delivery.wake()
            self._wait_for(ask, wait)
        finally:
            limit.leave(key, client)

    def _wait_for(self, ask: Callable[[], float], wait: float) -> None:
        """Wait, and ask how long to wait then, until that is 0. Raises Disconnect."""
        while wait > 0:
            self._pause(wait)
            self.client.check_end()
            wait = ask()

    def _pause(self, wait: float) -> None:
        """Wait, half a second at most, unless the client's end has come."""
        wait = min(wait, 0.5)
        self._deadline += wait  # no fault of the client's
        if not self.client.end_reason:
            time.sleep(wait)
            self._check_peer()

    def _check_peer(self) -> None:
        """Notice the end of the peer's stream while nothing is read, also behind unread bytes.

        What it has sent has MAX_REST left: `nc -N` reads on. Raises Disconnect after that.
        """
        client, now = self.client, time.monotonic()
        if now > self._probe_at and self._can_ping():
            # If the peer is gone, its system answers with a reset; a full socket hides its end.
            self._probe_at = now + MAX_REST / 2
            ping = b"PING %s\r\n" % self.options.server_name.encode()
            self.delivery.enqueue(Output(client, lambda: ping))
            self.delivery.wake()
        if now < self._ends_at and _has_ended(client.writer):
            self._ends_at = min(self._ends_at, now + MAX_REST)
        if now > self._ends_at:
            raise Disconnect("Connection closed")

    def charge_for_peers(self, *nicknames: str) -> None:
        """Charge for a change that is told to peers, and to those who watch these nicknames."""
        channels = list(self.client.channels)
        members = sum(len(channel.members) for channel in channels)
        watchers = sum(map(self.directory.count_watchers, nicknames))
        self.charge(len(channels) + members / ROWS_PER_TOKEN + watchers / WATCHERS_PER_TOKEN)

    def paid(self, items: Sequence[_Item], price: float = 1.0) -> Iterator[_Item]:
        """Yield items to look at; ROWS_PER_TOKEN of them, paid for in advance, cost `price`."""
        for start in range(0, len(items), ROWS_PER_TOKEN):
            part = items[start : start + ROWS_PER_TOKEN]
            self.charge(price * len(part) / ROWS_PER_TOKEN)
            yield from part

    def reply(self, command: str, *params: str, source: str = "") -> None:
        """Add a reply to the answer."""
        self.add(self.response.make_event((command, *params), source))

    def add(self, event: Event) -> None:
        """Add an event to the answer; pieces of a long answer are paid for before they are made."""
        if len(self.response.events) >= ROWS_PER_TOKEN:
            self.flush(is_done=False)
            self.charge(1.0)
        self.response.events.append(event)

    def notice(self, text: str, *args: object) -> None:
        """Reply with a notice, made from `text` and `args`."""
        self.reply("NOTICE", text % args if args else text)

    def note(self, *params: str) -> None:
        """Reply with a NOTE: `make_note`."""
        self.reply(*make_note(self.client, *params))

    def refuse(self, command: str, error: ReplyError) -> None:
        """Reply with an error, except to a user's NOTICE: that is never answered."""
        if command != "NOTICE" or not self.client.registered:
            self.reply(error.numeric, *error.params)

    def reply_packed(self, words: Iterable[str], separator: str, size: int, *reply: str) -> None:
        """Reply with all words, as many in each reply as fit into `size` bytes."""
        for text in protocol.pack(words, separator, size):
            self.reply(*reply, text)

    def flush(self, is_done: bool = True) -> None:
        """Send the replies; wait until many are delivered. `is_done` ends the answer."""
        is_long = len(self.response.events) >= MANY_REPLIES
        self.response.flush(is_done)
        if is_long:
            self._drain(MAX_AHEAD)

    def _drain(self, most: int) -> None:
        """Wait until what was posted is delivered, and no more than `most` bytes are unsent."""
        self.delivery.sync()
        while self.client.queued > most and not self.client.end_reason:
            self._pause(0.05)

    def run_command(self, message: Message) -> bool:
        """Check the rules of a command, and run its handler; return True if it was not refused."""
        name, is_done = message.command, False
        try:
            self._check_rules(message).handler(self, message)
            is_done = True
        except ReplyError as error:
            self.refuse(name, error)
        except StoreError as error:
            self.reply("FAIL", name, "TEMPORARILY_UNAVAILABLE", str(error))
        self.flush()
        return is_done

    def _check_rules(self, message: Message) -> "Command":
        """Return the command's row. Raises ReplyError if rules are broken."""
        name, client = message.command, self.client
        command = COMMANDS.get(name)
        is_open = self.options.require_tls and client.tls is None and name != "CAP"
        if is_open and not ipaddress.ip_address(client.host).is_loopback:
            raise Disconnect("Not encrypted", NOT_ENCRYPTED)
        if command is None:
            raise ReplyError("421", name, "Unknown command")
        if not client.registered and not command.rules & EARLY:
            raise ReplyError("451", "You have not registered")
        if len(message.params) < command.least:
            raise ReplyError("461", name, "Not enough parameters")
        if client.registered and command.rules & NOT_LATE:
            raise ReplyError("462", "You may not reregister")
        if command.rules & OPERATORS and not client.is_operator:
            raise ReplyError("481", "Permission denied: you're not an operator")
        if command.speaks and any(message.params[command.speaks - 1 :]):
            text = mute_text(client)
            if text and not (command.handler is on_text and self._is_to_operator(message)):
                raise ReplyError("FAIL", name, "MUTED", text)
        return command

    def _is_to_operator(self, message: Message) -> bool:
        """Return True for a private message to an operator: a muted user may ask for the reason."""
        other = self.directory.find(message.params[0])
        return other is not None and other.is_operator


def _has_ended(sock: socket.socket) -> bool:
    """Return True if the peer sends no more, as far as the system tells; OSError if it is gone."""
    ended = getattr(select, "POLLRDHUP", 0)  # Linux; elsewhere only if all is read
    if not ended:
        with contextlib.suppress(BlockingIOError):
            return not sock.recv(1, socket.MSG_PEEK)
        return False
    poll = select.poll()
    poll.register(sock, ended)
    events = poll.poll(0)
    if events and events[0][1] & select.POLLHUP:
        raise ConnectionResetError
    return bool(events)


def on_irc_line(session: Session, line: Optional[bytes]) -> None:
    """Carry out a line of an IRC client: a message. None is a line that was too long."""
    tags = line.partition(b" ")[0] if line and line[:1] == b"@" else b""
    session.response.begin(_find_label(session, tags) if tags else "")
    try:
        if line is None or len(tags) - 1 > MAX_CLIENT_TAGS:
            raise protocol.TooLongError
        message = protocol.parse(line)
    except protocol.TooLongError:
        session.reply("417", "Input line was too long")
    except protocol.EncodingError:
        text = "Your line is not UTF-8, the only encoding here. It was not passed on."
        session.reply("FAIL", "*", "INVALID_UTF8", text)
    except ValueError:
        session.reply("400", "*", "That line is not an IRC message")
    else:
        session.run_command(message)
        return
    session.flush()


def _find_label(session: Session, tags: bytes) -> str:
    """Return the label among a line's tags, though it may be no message; "" if it is not valid."""
    label = ""
    if session.client.caps & CAPABILITIES["labeled-response"]:
        with contextlib.suppress(protocol.ProtocolError):
            label = protocol.parse(tags + b" PING").tag("label")
    return label if len(label.encode()) <= MAX_LABEL else ""


def on_plain_line(session: Session, line: Optional[bytes]) -> None:
    """Carry out a line of a user with nc: first a username, then text for the chat box."""
    client, text = session.client, decode_plain(line or b"")
    try:
        if line is None:
            session.notice("That line is too long: %d bytes at most.", MAX_PLAIN_LINE)
        elif client.registered or text.lstrip().startswith("/login "):
            if text:
                _on_input(session, protocol.parse_input(text, PLAIN_VERBS))
        elif text.lstrip() == "/quit":
            raise Disconnect("Quit", "Goodbye.")
        elif text:  # a username, and the server's password if that is asked for
            command = "PASS" if client.nickname else "NICK"
            session.run_command(Message(command, (text.lstrip(),)))
    except protocol.InputError as error:
        session.notice(str(error))
    session.flush()


def _on_input(session: Session, typed: protocol.Input) -> None:
    client, directory = session.client, session.directory
    channels = {channel.folded: channel.name for channel in directory.channels_of(client, client)}
    if protocol.casefold(session.channel) not in channels:
        session.channel = next(iter(channels.values()), "")
    if typed.verb == "help":
        for text in protocol.help_lines(PLAIN_VERBS):
            session.notice(text)
        return
    if typed.verb == "list":
        channel = directory.channel(session.channel)
        users = channel.audience if channel is not None else directory.users()
        for text in protocol.online_lines([user.nickname for user in session.paid(users)]):
            session.notice(text)
        return
    name, since = client.correspondent
    sender = directory.find(name)
    if sender is None or sender.readable_since != since:
        name = ""
    messages = protocol.compose(typed, session.channel, client.source, name)
    if typed.verb == "login":
        messages.append(Message("NICK", typed.args[:1]))
    for message in messages:
        if not session.run_command(message):
            return
        if message.command == "JOIN":
            session.channel = protocol.normalize(message.params[0])


# Commands: registration
# ----------------------

# https://modern.ircdocs.horse describes all commands that are not said to be from elsewhere.


def on_cap(session: Session, message: Message) -> None:
    """Negotiate capabilities: https://ircv3.net/specs/extensions/capability-negotiation"""
    verb, client = message.params[0].upper(), session.client
    nickname, offered = client.nickname or "*", session.server.capabilities
    if verb in ("LS", "REQ") and not client.registered:
        session.is_negotiating = True
    if verb == "LS":
        version = message.param(1)
        is_new = version.isdecimal() and int(version) >= 302
        words = [name + value if is_new else name for name, value in offered.items()]
        if session.server.tls is not None and client.tls is None:
            words.append("hubbub/tls")  # described in README.md; nobody requests it
        session.reply("CAP", nickname, "LS", " ".join(words))
    elif verb == "LIST":
        held = [name for name in offered if client.caps & CAPABILITIES[name]]
        session.reply("CAP", nickname, "LIST", " ".join(held))
    elif verb == "REQ":
        asked = " ".join(message.params[1:])
        words, caps = asked.split(), client.caps
        for word in words:
            bit = CAPABILITIES.get(word.lstrip("-"), 0)
            caps = caps & ~bit if word.startswith("-") else caps | bit
        is_offered = all(word.lstrip("-") in offered for word in words)
        session.reply("CAP", nickname, "ACK" if is_offered else "NAK", asked)
        if is_offered:
            session.flush()
            session.delivery.sync()  # queued events are for the capabilities up to now
            client.caps = caps
    elif verb == "END":
        session.is_negotiating = False
        _try_to_register(session)
    else:
        raise ReplyError("410", verb, "Invalid CAP command")


def on_pass(session: Session, message: Message) -> None:
    session.password = message.params[0]
    _try_to_register(session)


def on_nick(session: Session, message: Message) -> None:
    """Set or change the nickname.

    A registered nickname is for the owner of its account, who takes it from its holder. A
    client that has not logged in yet may have it while capabilities are negotiated: clients send
    NICK before AUTHENTICATE.
    """
    if not message.params or not message.params[0]:
        raise ReplyError("431", "No nickname given")
    client, nickname = session.client, protocol.normalize(message.params[0])
    error = protocol.nickname_error(nickname)
    if error:
        raise ReplyError("432", nickname, error)
    for reason in session.directory.speak_errors(client).values():  # all its channels would read it
        raise ReplyError("FAIL", "NICK", "MUTED", reason + ": leave it first.")
    if not session.is_negotiating:
        _check_not_reserved(session, nickname)
    ban = session.server.store.find_sanction("ban", [protocol.casefold(nickname)], "")
    if ban is not None:
        raise ReplyError("432", nickname, ban_text(ban, nickname + " is"))
    if client.registered:
        session.charge_for_peers(client.nickname, nickname)
    session.directory.claim(client, nickname)
    if client.registered:
        session.server.apply_sanctions(client)  # a mute may be for the new nickname
        deliver_waiting(session)
    _try_to_register(session)


def _check_not_reserved(session: Session, nickname: str) -> None:
    """Refuse, by ReplyError, the nickname of another account, or a lookalike of it."""
    client, store = session.client, session.server.store
    account = store.account(nickname)
    if account is None:
        client.check_lookalike(nickname, store.skeletons)
    if account is None or account.id == client.account.id:
        return
    if account.is_host:
        text = "%s is the name of this chat's host. Choose another." % account.name
        raise ReplyError("433", nickname, account.name, text)
    form = "%s is registered. If it is yours, log in with /login %s. If not, choose another."
    text = form % (account.name, account.name)
    if client.caps & (STANDARD_REPLIES | PLAIN_TEXT):
        raise ReplyError("FAIL", "NICK", "NICKNAME_RESERVED", nickname, text)
    session.notice(text)
    raise ReplyError("433", nickname, "Nickname is registered")


def on_user(session: Session, message: Message) -> None:
    if not message.params[3]:
        raise ReplyError("461", "USER", "Not enough parameters")
    session.client.username = to_username(message.params[0])
    session.client.realname = protocol.clean(message.params[3], MAX_REALNAME)
    session.has_user = True
    _try_to_register(session)


def _try_to_register(session: Session) -> None:
    """Register the client if it has sent all that is needed."""
    client = session.client
    if client.registered or not (client.nickname and session.has_user) or session.is_negotiating:
        return
    if client.caps & PLAIN_TEXT and session.options.password and not session.password:
        text = "%s asks for a password. Type it and press Enter."
        session.notice(text, session.options.network)
        return
    _check_server_password(session)
    _check_not_reserved(session, client.nickname)
    _apply_sanctions(session)
    if session.sasl is not None:
        session.sasl = None
        session.reply("906", "SASL authentication aborted")
    client.realname = client.realname or client.nickname
    client.signed_on = client.spoke = time.time()
    session.charge(REGISTRATION_PRICE)
    session.charge_for_peers(client.nickname, client.nickname)  # who comes, goes
    session.directory.register(client)
    _apply_sanctions(session)  # again: a ban may have been added in between
    dialect = PLAIN if client.caps & PLAIN_TEXT else IRC
    log.info("%s joined as %s (%s)", client.address, client.nickname, dialect)
    _welcome(session)
    if session.options.lobby:
        on_join(session, Message("JOIN", (session.options.lobby,)))
    if client.is_operator:
        session.reply("381", "You are now an operator")
    if client.mute is not None:
        session.note(*mute_note(client))
    deliver_waiting(session)


def _apply_sanctions(session: Session) -> None:
    """Mute the client if a mute applies. Raises Disconnect if a ban does."""
    ban = session.server.apply_sanctions(session.client)
    if ban is not None:
        session.reply("465", ban_text(ban))
        raise Disconnect("Banned", ban_text(ban))


def _check_server_password(session: Session) -> None:
    """Check PASS. Raises Disconnect for a wrong password."""
    wanted, offered = session.options.password.encode(), session.password.encode()
    if not wanted:
        return
    with _guessing(session, ""):
        if not hmac.compare_digest(wanted, offered):
            session.reply("464", "Wrong password.")
            raise Disconnect("Wrong password", "Ask the host for it, and connect again.")


def _welcome(session: Session) -> None:
    client, options = session.client, session.options
    _keep_alive(session)
    count = session.directory.user_count
    people = protocol.counted(count, "person is", "people are")
    modes = "".join(sorted(protocol.CHANNEL_MODES))
    session.reply("001", "Welcome to %s, %s. %s here." % (options.network, client.nickname, people))
    session.reply("002", "Your host is %s, running Hubbub %s" % (options.server_name, VERSION))
    session.reply("003", "This server was started %s" % time.ctime(session.server.started))
    session.reply("004", options.server_name, "hubbub-" + VERSION, "o", modes, "bklov")
    _reply_isupport(session)
    on_lusers(session, Message("LUSERS"))
    on_motd(session, Message("MOTD"))
    if client.is_operator:
        session.reply("MODE", client.nickname, "+o", source=client.source)
    if client.token:
        session.reply("RESUME", "TOKEN", client.token)
    journal = session.server.journal
    if journal is not None and journal.warning:
        session.notice(journal.warning)
    session.flush(is_done=False)


def _reply_isupport(session: Session) -> None:
    tokens = [
        "NETWORK=" + protocol.escape_token(session.options.network),
        "CASEMAPPING=ascii", "CHANTYPES=#",  # of our folding, the part that clients can do
        "CHANMODES=" + protocol.CHANMODES, "PREFIX=(ov)@+", "MODES=%d" % protocol.MAX_MODES,
        "MAXLIST=b:%d" % MAX_BANS, "CHANLIMIT=#:%d" % MAX_CHANNELS,
        "NICKLEN=%d" % protocol.MAX_NAME, "CHANNELLEN=%d" % protocol.MAX_NAME,
        "TOPICLEN=%d" % protocol.MAX_TOPIC, "KICKLEN=%d" % MAX_REASON, "AWAYLEN=%d" % MAX_REASON,
        "KEYLEN=%d" % protocol.MAX_KEY, "USERLEN=%d" % protocol.MAX_USERNAME,
        "NAMELEN=%d" % MAX_REALNAME,
        "TARGMAX=" + ",".join("%s:%d" % (n, c.most) for n, c in COMMANDS.items() if c.most > 1),
        "MONITOR=%d" % MAX_WATCHES, "ELIST=CMNTU", "WHOX", "SAFELIST", "UTF8ONLY",
    ]  # fmt: skip
    if session.server.journal is not None:
        tokens += ["CHATHISTORY=%d" % MAX_HISTORY, "MSGREFTYPES=msgid,timestamp"]
    for text in protocol.pack(tokens, " ", NAMES_SIZE):  # 13 tokens at most
        session.reply("005", *text.split(" "), "are supported by this server")


def _keep_alive(session: Session) -> None:
    """Turn on TCP keepalive, which ends connections of silent clients that cannot PONG."""
    interval, sock = int(session.options.ping_interval), session.client.reader
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, interval > 0)
    values = {"TCP_KEEPIDLE": interval, "TCP_KEEPALIVE": interval, "TCP_KEEPINTVL": interval // 3}
    for name, value in {**values, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 2000 * interval}.items():
        with contextlib.suppress(AttributeError, OSError):  # not on this system
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def on_resume(session: Session, message: Message) -> None:
    """Take over from a connection that was lost, by its token (Hubbub's own command)."""
    client = session.client
    session.charge(REGISTRATION_PRICE)
    if not session.directory.resume(client, message.params[0]):
        raise ReplyError("FAIL", "RESUME", "INVALID_TOKEN", "That connection cannot be resumed")
    session.is_negotiating = False
    session.charge_for_peers()
    _apply_sanctions(session)
    log.info("%s resumed as %s", client.address, client.nickname)
    _welcome(session)
    session.directory.rejoin(client)
    deliver_waiting(session)


# Commands: accounts
# ------------------


def on_authenticate(session: Session, message: Message) -> None:
    """Log in: https://ircv3.net/specs/extensions/sasl-3.2, PLAIN, before and after registration."""
    chunk = message.params[0]
    if session.sasl is None:
        if not session.server.store.has_accounts:
            raise ReplyError("904", NO_ACCOUNTS)
        if chunk.upper() != "PLAIN":
            session.reply("908", "PLAIN", "are available SASL mechanisms")
            raise ReplyError("904", "SASL authentication failed")
        session.sasl = []
        if not session.client.caps & PLAIN_TEXT:
            session.reply("AUTHENTICATE", "+")
        return
    chunks, session.sasl = [*session.sasl, chunk], None
    if chunk == "*":
        raise ReplyError("906", "SASL authentication aborted")
    try:
        data = join_sasl(chunks)
        if data is None:
            session.sasl = chunks
            return
        authzid, name, password = parse_sasl_plain(data)
        if protocol.casefold(authzid or name) != protocol.casefold(name):
            raise protocol.ProtocolError("acting for another account")
    except protocol.TooLongError:
        raise ReplyError("905", "SASL message too long") from None
    except protocol.ProtocolError:
        raise ReplyError("904", "SASL authentication failed") from None
    error = ReplyError("904", "That username and password do not match.")
    account = _check_password(session, name, password, error)
    _log_in(session, account)
    session.reply("903", "SASL authentication successful")


def _check_password(session: Session, name: str, password: str, error: ReplyError) -> Account:
    """Return the account of that name. Raises `error` for a wrong password."""
    store = session.server.store
    with _guessing(session, name, error.numeric):
        session.charge(PASSWORD_PRICE)
        account = store.log_in(name, password)
        if account is None:
            # Some users type their password in place of the name: that is not for the log.
            known = store.account(name)
            name = known.name if known is not None else "no account"
            log.warning("%s: wrong password for %s", session.client.log_name, name)
            raise error
    return account


@contextlib.contextmanager
def _guessing(session: Session, name: str, wrong: str = "") -> Iterator[None]:
    """Limit the guesses at a password or key; `name` is its account or channel, "" the server.

    The body checks it, and raises Disconnect or the numeric `wrong` for a wrong guess. After too
    many of those from its address a client waits for its turn: guessing is slow, but the right
    password is never refused. It costs nothing.
    """
    client, key = session.client, protocol.casefold(name[: protocol.MAX_NAME])
    keys = {"guesses": client.host}
    if name:
        keys["guess"] = "%s %s" % (client.host, key)
    for limit, key in keys.items():
        session.take_turn(limit, key)
    is_wrong = False
    try:
        yield
    except (Disconnect, ReplyError) as error:
        is_wrong = isinstance(error, Disconnect) or error.numeric == wrong
        raise
    finally:
        if not is_wrong:
            for limit, key in keys.items():
                session.server.limits[limit].charge(key, -1.0, time.monotonic())


def _log_in(session: Session, account: Account) -> None:
    """Log the client in to the account. Its nickname stays."""
    client = session.client
    session.directory.set_account(client, account)
    log.info("%s logged in as %s", client.log_name, account.name)
    source = client.source if client.nickname else "*!%s@%s" % (client.username, client.host)
    session.reply("900", source, account.name, "You are now logged in as %s" % account.name)
    if account.is_operator and client.registered:
        session.reply("381", "You are now an operator")
        session.response.is_long = True
        for channel in list(client.channels) if account.is_host else ():
            on_mode(session, Message("MODE", (channel.name, "+o", client.nickname)))
    _apply_sanctions(session)
    if client.registered:
        deliver_waiting(session)


def on_register(session: Session, message: Message) -> None:
    """Create an account: https://ircv3.net/specs/extensions/account-registration"""
    client, store = session.client, session.server.store
    name, _, password = message.params[:3]
    name = client.nickname if name == "*" else name

    def fail(code: str, text: str) -> ReplyError:
        return ReplyError("FAIL", "REGISTER", code, name or "*", text)

    if not store.has_accounts:
        raise fail("TEMPORARILY_UNAVAILABLE", NO_ACCOUNTS)
    if not client.registered:
        raise fail("COMPLETE_CONNECTION_REQUIRED", "Choose a username first.")
    if client.account.id:
        is_own = client.owns(client.nickname)
        text = "%s is yours already." % name if is_own else "You are already logged in."
        raise fail("ALREADY_AUTHENTICATED", text)
    if protocol.casefold(name) != client.folded:
        raise fail("ACCOUNT_NAME_MUST_BE_NICK", "You can only register your present username.")
    error = protocol.password_error(password)
    if error:
        raise fail("WEAK_PASSWORD", error)
    if session.server.limits["registration"].try_take(client.host, time.monotonic()) > 0:
        raise fail("TEMPORARILY_UNAVAILABLE", "Too many at once. Try again in a minute.")
    session.charge(PASSWORD_PRICE)
    try:
        account = store.add_account(client.nickname, password)
    except AccountExistsError as exists:
        raise fail("ACCOUNT_EXISTS", str(exists)) from None
    log.info("%s registered the account %s", client.log_name, account.name)
    text = "%s is now yours alone. Next time, log in with /login %s" % (name, name)
    session.reply("REGISTER", "SUCCESS", account.name, text)
    _log_in(session, account)


def on_oper(session: Session, message: Message) -> None:
    """Log in to an operator's account."""
    error = ReplyError("464", "Password incorrect")
    account = _check_password(session, message.params[0], message.params[1], error)
    if not account.is_operator:
        raise ReplyError("491", "%s is not an operator's account" % account.name)
    _log_in(session, account)


def deliver_waiting(session: Session) -> None:
    """Send the messages that came for an account while its owner was offline.

    The nickname that the host has now is the host's from now on.
    """
    client, store = session.client, session.server.store
    try:
        holder = session.directory.find(client.account.name)
        is_only = holder in (None, client)  # else another window of the host keeps the name
        if is_only and store.name_host(client.account, client.nickname):
            session.directory.update_accounts(store.accounts)
        account = client.account
        if not client.owns(client.nickname) or client.end_reason:
            return
        session.delivery.sync()  # what was stored a moment ago is among them
        rows = store.waiting(account.id)
        while rows:
            replay(session, "While you were away:", rows)
            session.flush(is_done=False)
            if not session.delivery.sync() or client.is_closed:
                break  # they go on waiting
            store.forget_waiting(account.id, rows[-1].number)
            rows = store.waiting(account.id, rows[-1].number)
    except StoreError as error:
        log.warning("%s: cannot use the store: %s", client.log_name, error)


# Commands: messages
# ------------------


def on_text(session: Session, message: Message) -> None:
    """PRIVMSG, NOTICE, and TAGMSG of message-tags."""
    session.client.spoke = time.time()
    if message.command != "TAGMSG" and not message.param(1):
        raise ReplyError("412", "No text to send")
    tags = b""
    if message.tags:
        client_tags = {key: value for key, value in message.tags.items() if key.startswith("+")}
        try:
            tags = protocol.serialize_tags(client_tags)[1:-1]
        except ValueError:
            raise ReplyError("400", "*", "That line is not an IRC message") from None

    def relay(target: str) -> None:
        account = _find_mailbox(session, target) if message.command == "PRIVMSG" else None
        away = session.directory.relay(session.client, target, message, tags, account)
        if away:
            session.reply("301", target, away)
        elif away is None and account is not None:
            text = "%s is offline; your message will be delivered" % account.name
            if not session.delivery.sync():
                text += " if the server's disk works again soon"
            session.note("PRIVMSG", "OFFLINE", account.name, text)

    _for_each(session, message.params[0], message.command, relay)


def _find_mailbox(session: Session, target: str) -> Optional[Account]:
    """Return the account for which a private message waits; None if its recipient is online.

    Also if there is no such account. Raises ReplyError FAIL if the mailbox is full.
    """
    store, journal = session.server.store, session.server.journal
    account = None if target.startswith("#") else store.account(target)
    if account is None or journal is None or session.directory.find(target) is not None:
        return None
    if journal.fault:
        raise StoreError("%s is offline, and no messages can be kept now." % account.name)
    client = session.client
    sender = "=%d" % client.account.id if client.account.id else client.host
    key = "%s =%d" % (sender, account.id)
    limits, now = session.server.limits, time.monotonic()
    wait = limits["mail"].try_take(key, now)
    wait = wait or limits["address_mail"].try_take("%s =%d" % (client.host, account.id), now)
    if wait or store.waiting_count(account.id) >= MAX_WAITING:
        text = "%s is offline, and no more messages can be kept for them" % account.name
        raise ReplyError("FAIL", "PRIVMSG", "MAILBOX_FULL", account.name, text)
    return account


def on_away(session: Session, message: Message) -> None:
    client, away = session.client, protocol.clean(message.text, MAX_REASON)
    params = (away,) if away else ()
    session.charge_for_peers()
    session.directory.change_user(client, "AWAY", *params, away=away)
    if away:
        session.reply("306", "You have been marked as being away")
    else:
        session.reply("305", "You are no longer marked as being away")


# Commands: channels
# ------------------


def _for_each(session: Session, names: str, verb: str, act: Callable[[str], object]) -> None:
    """Act on each of `a,b,c`; an error does not keep the others from it.

    Raises ReplyError 407 for more than the command allows.
    """
    targets, most = names.split(","), COMMANDS[verb].most
    if len(targets) > most:
        text = "Too many targets: %d at most" % most
        raise ReplyError("407", protocol.truncate(names, 200), text)
    if len(targets) == 1:
        act(names)
        return
    session.charge(len(targets) - 1)
    different: Dict[str, str] = {}
    for target in targets:
        different.setdefault(protocol.casefold(target), target)
    session.response.is_long |= len(different) > 1
    for target in different.values():
        try:
            act(target)
        except ReplyError as error:
            session.refuse(verb, error)


def on_join(session: Session, message: Message) -> None:
    client, directory = session.client, session.directory
    keys = dict(zip(message.params[0].split(","), message.param(1).split(",")))

    def join(given: str) -> None:
        name = protocol.normalize(given)
        error = channel_error(name)
        if error:
            raise ReplyError("479", name, error)
        channel = directory.channel(name)
        if channel is None:
            wait = session.server.limits["founding"].try_take(client.host, time.monotonic())
            if wait:
                text = "Your address has made too many rooms. Wait %s."
                raise ReplyError("405", name, text % format_left(wait))
        count = len(channel.members) if channel is not None else 0
        session.charge(JOIN_PRICE + count / ROWS_PER_TOKEN)
        key = keys.get(given, "")
        is_guess = bool(key and channel is not None and channel.key)
        with _guessing(session, name, "475") if is_guess else contextlib.ExitStack():
            number = directory.join(client, name, key)
        if number is not None:
            recall(session, name, number)

    if message.params[0]:  # irssi sends an empty parameter, and expects no answer
        _for_each(session, message.params[0], "JOIN", join)


def on_part(session: Session, message: Message) -> None:
    client, part = session.client, session.directory.part
    reason = "" if mute_text(client) else message.param(1)
    _for_each(session, message.params[0], "PART", lambda name: part(client, name, reason))


def on_kick(session: Session, message: Message) -> None:
    """Remove users from a channel."""
    client, channel, reason = session.client, message.params[0], message.param(2)[:MAX_REASON]

    def kick(nickname: str) -> None:
        session.directory.kick(client, channel, nickname, reason)
        if client.is_operator:
            why = protocol.clean(reason)
            log.warning("%s: removed %s from %s: %s", client.log_name, nickname, channel, why)

    _for_each(session, message.params[1], "KICK", kick)


def on_invite(session: Session, message: Message) -> None:
    nickname, name = message.params[:2]
    other = session.directory.invite(session.client, nickname, name)
    session.reply("341", other.nickname, name)
    if other.away:
        session.reply("301", other.nickname, other.away)


def on_topic(session: Session, message: Message) -> None:
    name = message.params[0]
    if len(message.params) > 1:
        topic = message.params[1][: protocol.MAX_TOPIC]
        session.directory.set_topic(session.client, name, topic)
        return
    channel = session.directory.get_channel(name, session.client)
    for reply in topic_replies(channel) or [("331", channel.name, "No topic is set")]:
        session.reply(*reply)


def on_names(session: Session, message: Message) -> None:
    def names(name: str) -> None:
        channel = session.directory.channel(name, session.client) or Channel(name)
        session.charge(len(channel.members) / ROWS_PER_TOKEN)
        session.directory.names(session.client, channel)

    _for_each(session, message.param(0) or "*", "NAMES", names)


def on_list(session: Session, message: Message) -> None:
    """List channels: by name, by the conditions of ELIST, or by both."""
    text = ",".join(message.params)
    count = min(MAX_CONDITIONS, text.count(",")) + 1
    session.charge(count - 1)  # masks take time to compile
    accepts = parse_elist(text)
    channels, now = session.directory.channels(), time.time()
    session.charge(len(channels) / ROWS_PER_TOKEN)
    channels.sort(key=operator.attrgetter("folded"))
    session.reply("321", "Channel", "Users  Name")
    for channel in session.paid(channels, count / MASKS_PER_ROW):
        name, size, topic = channel.name, len(channel.members), channel.topic
        topic_age = (now - topic.at) / 60 if topic.text else float("nan")
        is_visible = _is_visible(session.client, channel)
        if is_visible and accepts(name, size, (now - channel.created) / 60, topic_age):
            session.reply("322", name, str(size), topic.text)
    session.reply("323", "End of /LIST")


def on_mode(session: Session, message: Message) -> None:
    target, *params = message.params
    if not target.startswith("#"):
        if session.directory.get(target) is not session.client:
            raise ReplyError("502", "Cannot change the modes of others")
        # An operator's account gives "o", and there are no others: changes have no effect.
        session.reply("221", "+o" if session.client.is_operator else "+")
        return
    channel, client = session.directory.get_channel(target, session.client), session.client
    if not params:
        session.reply("324", channel.name, *channel.mode_params(client))
        session.reply("329", channel.name, str(int(channel.created)))
        return
    changes = protocol.parse_modes(params)
    for change in list(changes):
        if change.letter == "b" and not change.arg:
            changes.remove(change)
            for ban in channel.bans:
                session.reply("367", channel.name, ban.mask, ban.by, str(ban.at))
            session.reply("368", channel.name, "End of channel ban list")
            session.response.is_long = True
    if changes:
        session.charge(len(changes) - 1)
        for error in session.directory.change_modes(client, channel.name, changes):
            session.refuse("MODE", error)


# Commands: users
# ---------------


def on_who(session: Session, message: Message) -> None:
    """Describe users, in the fields of https://ircv3.net/specs/extensions/whox if it names any."""
    mask, *options = message.params or ("*",)
    fields, token = parse_whox("".join(options[:1]))
    for other, channel in _who(session, mask):
        if options and options[0].startswith("o") and not other.is_operator:
            continue
        values = _who_values(session, other, channel, token)
        if fields:
            session.reply("354", *(values[field] for field in fields))
        else:
            text = "%s %s" % (values["d"], values["r"])
            session.reply("352", *(values[field] for field in "cuhsnf"), text)
    session.reply("315", mask, "End of WHO list")


def _who(session: Session, mask: str) -> Iterator[Tuple[Client, Optional[Channel]]]:
    """Yield the users that WHO finds, each with a channel that it is in."""
    client, directory = session.client, session.directory
    if mask.startswith("#"):
        channel = directory.channel(mask, client)
        for other in session.paid(channel.audience if channel is not None else ()):
            yield other, channel
        return
    masks = MaskSet([mask])
    for other in session.paid(directory.users()):
        names = (other.nickname, other.username, other.host, other.realname, other.account.name)
        if mask in ("*", "0") or any(map(masks.match, names)):
            shared = client.channels & other.channels
            yield other, min(shared, key=lambda channel: channel.folded, default=None)


def _who_values(
    session: Session, other: Client, channel: Optional[Channel], token: str
) -> Dict[str, str]:
    bits = channel.members.get(other, 0) if channel is not None else 0
    flags = ("G" if other.away else "H") + "*" * other.is_operator
    return {
        "t": token or "0", "c": channel.name if channel is not None else "*",
        "u": other.username, "i": other.host, "h": other.host, "s": session.options.server_name,
        "n": other.nickname, "f": flags + member_prefix(session.client, bits), "d": "0",
        "l": str(int(time.time() - other.spoke)), "a": other.account.name or "0",
        "o": "1" if bits & CHANOP else "n/a", "r": other.realname,
    }  # fmt: skip


def on_whois(session: Session, message: Message) -> None:
    nickname, options = message.text, session.options
    other = session.directory.find(nickname)
    if other is None:
        session.reply("401", nickname, "No such nick")
    else:
        name = other.nickname
        session.reply("311", name, other.username, other.host, "*", other.realname)
        words = (
            member_prefix(session.client, channel.members.get(other, 0)) + channel.name
            for channel in session.directory.channels_of(other, session.client)
        )
        session.reply_packed(words, " ", NAMES_SIZE, "319", name)
        session.reply("312", name, options.server_name, options.network)
        if other.is_operator:
            session.reply("313", name, "is an operator")
        if other.tls is not None:
            session.reply("671", name, "is using a secure connection")
        if other.account.id:
            session.reply("330", name, other.account.name, "is logged in as")
        if other.away:
            session.reply("301", name, other.away)
        # Since when the nickname is this user's, so that clients see if it has changed hands
        since = max(other.signed_on, other.named_since / 1e6)
        since = min(since, other.account.created) if other.owns(name) else since
        times = str(int(time.time() - other.spoke)), str(int(since))
        session.reply("317", name, *times, "seconds idle, signon time")
    session.reply("318", nickname, "End of /WHOIS list")


def on_whowas(session: Session, message: Message) -> None:
    nickname, count = message.params[0], message.param(1)
    found = session.directory.former_users(nickname)
    if count.isdecimal() and int(count[:9]):
        found = found[: int(count[:9])]
    for reply in itertools.chain(*found):
        session.reply(*reply)
    if not found:
        session.reply("406", nickname, "There was no such nickname")
    session.reply("369", nickname, "End of WHOWAS")


def on_ison(session: Session, message: Message) -> None:
    """Reply with those that are online: RFC 2812, 4.9"""
    names = [name for param in message.params for name in param.split()]
    found = map(session.directory.find, names[:MAX_WATCHES])
    session.reply("303", " ".join(user.nickname for user in found if user is not None))


def on_userhost(session: Session, message: Message) -> None:
    """Reply with the hosts of five users at most."""
    words = []
    for user in map(session.directory.find, message.params[:5]):
        if user is not None:
            signs = "*" * user.is_operator + "=" + ("-" if user.away else "+")
            words.append("%s%s%s@%s" % (user.nickname, signs, user.username, user.host))
    session.reply("302", " ".join(words))


def on_monitor(session: Session, message: Message) -> None:
    """Watch users come and go: https://ircv3.net/specs/extensions/monitor"""
    directory, watches = session.directory, session.client.watches
    verb = message.params[0].upper()
    asked = filter(protocol.is_nickname, message.param(1).split(","))
    names = {protocol.casefold(name): name for name in asked}
    if verb == "+":
        new = [key for key in names if key not in watches]
        excess = [names.pop(key) for key in new[MAX_WATCHES - len(watches) :]]
        for text in protocol.pack(excess, ",", 100):
            session.reply("734", str(MAX_WATCHES), text, "Monitor list is full.")
        directory.watch(session.client, {**watches, **names})
    elif verb in ("-", "C"):
        kept = {} if verb == "C" else {key: watches[key] for key in watches if key not in names}
        directory.watch(session.client, kept)
    elif verb == "L":
        session.reply_packed(watches.values(), ",", 350, "732")
        session.reply("733", "End of MONITOR list")
    if verb in ("+", "S"):
        shown = names if verb == "+" else watches
        found = [(name, directory.find(name)) for name in shown.values()]
        online = [user.source for _, user in found if user is not None]
        offline = [name for name, user in found if user is None]
        session.reply_packed(online, ",", 350, "730")
        session.reply_packed(offline, ",", 350, "731")


def on_setname(session: Session, message: Message) -> None:
    """Change the realname: https://ircv3.net/specs/extensions/setname.

    A forgotten colon loses no word.
    """
    realname = protocol.clean(" ".join(message.params), MAX_REALNAME + 1)
    if not realname or len(realname) > MAX_REALNAME:
        text = "A real name has 1 to %d characters." % MAX_REALNAME
        raise ReplyError("FAIL", "SETNAME", "INVALID_REALNAME", text)
    session.charge_for_peers()
    session.directory.change_user(session.client, "SETNAME", realname, realname=realname)


# Commands: history
# -----------------


def recall(session: Session, name: str, before: int) -> None:
    """Replay a channel's last messages to a client without chathistory, up to that number."""
    if session.server.journal is not None and not session.client.caps & CHATHISTORY:
        session.delivery.sync()
        folded = protocol.casefold(name)
        try:
            rows = session.server.store.read(folded, 0, before, RECALL_LINES, latest=True)
        except StoreError as error:
            session.notice("Earlier messages cannot be shown. %s", error)
            return
        is_timed = session.client.caps & SERVER_TIME
        replay(session, "" if is_timed else "Earlier in %s:" % name, rows)


def replay(session: Session, heading: str, rows: List[Row]) -> None:
    """Repeat earlier messages below a heading, if any: with their times, or below their days."""
    client, day = session.client, ""
    is_marked = client.caps & SERVER_TIME or session.response.batch
    if rows and heading:
        session.notice(heading)
    for row in rows:
        tags, line = b"", row.line
        if line.startswith(b"@"):
            tags, _, line = line[1:].partition(b" ")
        message, line = protocol.parse(line), line + b"\r\n"
        event = Event(message, (client,), None, (row.conversation,), 0, tags, line, row.time)
        event.number = row.number
        shown = "" if is_marked else event.describe(client.nickname, session.options.lobby)
        date = protocol.format_day(row.time) if shown else day
        if date != day:
            session.notice(date)
            day = date
        if is_marked or client.caps & PLAIN_TEXT:
            session.add(event)
        elif shown:
            session.notice(shown)
    if rows and heading:
        session.notice("That was all.")


def on_chathistory(session: Session, message: Message) -> None:
    """Read earlier messages: https://ircv3.net/specs/extensions/chathistory"""

    def fail(code: str, *context: str) -> ReplyError:
        return ReplyError("FAIL", "CHATHISTORY", code, message.params[0], *context)

    if session.server.journal is None:
        raise fail("MESSAGE_ERROR", "This server keeps no history")
    try:
        query = parse_chathistory(message.params)
    except protocol.ProtocolError as error:
        raise fail("INVALID_PARAMS", str(error)) from None
    query = query._replace(limit=min(query.limit, MAX_HISTORY))
    # A time is looked for, and may stand for more messages.
    times = sum(isinstance(reference, float) for reference in query.references)
    session.charge((query.limit + times * SAME_TIME) / ROWS_PER_TOKEN)
    session.delivery.sync()  # what this client has just said is part of it
    spans = [session.server.store.span(reference) for reference in query.references]
    if query.verb == "TARGETS":
        _reply_targets(session, query, spans)
        return
    found = _find_conversation(session, query.target)
    if found is None:
        text = "You are not in %s, or it does not exist" % query.target
        raise fail("INVALID_TARGET", query.target, text)
    name, conversation, since = found
    caps = session.client.caps
    with_events = bool(caps & CAPABILITIES["draft/event-playback"])
    rows = _select_rows(session.server.store, query, spans, conversation, since, with_events)
    if caps & (SERVER_TIME | CHATHISTORY):
        session.response.open_batch("chathistory", query.target)
    is_marked = caps & SERVER_TIME or session.response.batch
    if not rows and not is_marked:
        session.notice("There are no earlier messages.")
    replay(session, "" if is_marked else "Earlier in %s:" % name, rows)


def _find_conversation(session: Session, target: str) -> Optional[Tuple[str, str, int]]:
    """Return name and conversation if the client may read it, and the number after which."""
    client = session.client
    channel = session.directory.channel(target)
    if channel is not None and client in channel.members:
        return channel.name, channel.folded, 0
    if not protocol.is_nickname(target):
        return None
    other, account = session.directory.find(target), session.server.store.account(target)
    if other is not None:
        target, participant = other.nickname, other.participant
    else:
        participant = "=%d" % account.id if account is not None else protocol.casefold(target)
    return target, private_conversation(client.participant, participant), client.readable_since


def cut_page(rows: List[_Found], limit: int) -> List[_Found]:
    """Return the first rows (number, time, …), with the rest of the last row's millisecond.

    Clients ask for the next page by that time.
    """
    page = rows[:limit]
    is_same = lambda row: int(row[1] * 1000) == int(page[-1][1] * 1000)  # noqa: E731
    return page + list(itertools.takewhile(is_same, rows[limit:] if page else []))


def _select_rows(
    store: Store,
    query: HistoryQuery,
    spans: List[Span],
    conversation: str,
    since: int,
    with_events: bool,
) -> List[Row]:
    """Return the rows that a query asks for, of those after `since`."""
    verb, _, references, limit = query
    more = SAME_TIME * any(isinstance(reference, float) for reference in references)

    def read(after: int, before: int, limit: int, latest: bool) -> List[Row]:
        span = max(since, after), before
        rows = store.read(conversation, *span, limit + more, latest, with_events)
        return cut_page(rows[::-1], limit)[::-1] if latest else cut_page(rows, limit)

    before, after = spans[0]
    if verb == "AROUND":
        rows = read(0, before, limit // 2, True)
        return rows + read(before - 1, MAX_NUMBER, limit - len(rows), False)
    bounds = {
        "LATEST": (after, MAX_NUMBER, limit, True),
        "BEFORE": (0, before, limit, True),
        "AFTER": (after, MAX_NUMBER, limit, False),
        "BETWEEN": (min(spans)[1], max(spans)[0], limit, spans[0] > spans[-1]),
    }
    return read(*bounds[verb])


def _reply_targets(session: Session, query: HistoryQuery, spans: List[Span]) -> None:
    """Reply with the conversations that ended between two references, from the first on."""
    client, store = session.client, session.server.store
    after, before = min(spans)[1], max(spans)[0]
    names = {"=%d" % account.id: account.name for account in store.accounts()}
    others = store.correspondents(client.participant, max(after, client.readable_since), before)
    found = [(number, at, names.get(key, key)) for key, number, at in others]
    found = [item for item in found if item[2][0] != "="]  # an account that was deleted
    for channel in session.directory.channels_of(client, client):
        last = store.read(channel.folded, after, MAX_NUMBER, 1, latest=True)
        found += [(row.number, row.time, channel.name) for row in last if row.number < before]
    found.sort(reverse=spans[0] > spans[1])
    session.response.open_batch("draft/chathistory-targets")
    for _, at, target in sorted(cut_page(found, query.limit)):
        session.reply("CHATHISTORY", "TARGETS", target, protocol.format_time(at))


def on_search(session: Session, message: Message) -> None:
    """Find earlier messages: https://codeberg.org/emersion/soju/src/branch/master/doc/ext/search.md"""
    if not session.client.caps & SEARCH or session.server.journal is None:
        raise ReplyError("421", "SEARCH", "Unknown command")
    wanted = protocol.parse_tags(message.params[0])
    limit, after, before = wanted.get("limit", "50"), wanted.get("after"), wanted.get("before")
    store, client = session.server.store, session.client
    try:
        most = min(int(limit[:9]), MAX_FOUND)
        times = [protocol.parse_time(text) for text in (after, before) if text is not None]
    except ValueError:
        text = "A time or the limit is wrong"
        raise ReplyError("FAIL", "SEARCH", "INVALID_PARAMS", text) from None
    session.charge(len(times) * SAME_TIME / ROWS_PER_TOKEN)
    session.delivery.sync()  # what this client has just said is part of it
    spans = [store.span(at) for at in times]
    low = spans[0][0] - 1 if after is not None else 0
    high = spans[-1][1] + 1 if before is not None else MAX_NUMBER
    if "in" in wanted:
        found = _find_conversation(session, wanted["in"])
        readable = [found[1:]] if found is not None else []
    else:
        channels = session.directory.channels_of(client, client)
        readable = [(channel.folded, 0) for channel in channels]
        keys = store.conversations(client.participant)
        readable += [(key, client.readable_since) for key in keys]
    ranges = [(key, max(low, since), high) for key, since in readable]
    words = protocol.fold_text(wanted.get("text", ""))
    rows, is_whole = _search(session, ranges, words, wanted.get("from", ""), most, after is None)
    session.response.open_batch("soju.im/search")
    replay(session, "", rows)
    if not is_whole and client.caps & STANDARD_REPLIES:  # a notice would look like a result
        session.note("SEARCH", "INCOMPLETE", "There was no time to search all messages.")


def _search(
    session: Session,
    ranges: Iterable[Tuple[str, int, int]],
    words: str,
    sender: str,
    most: int,
    latest: bool,
) -> Tuple[List[Row], bool]:
    """Return the latest (or the earliest) messages with folded words, oldest first, and True.

    Returns False instead if not all could be searched in SEARCH_TIME. `ranges` are conversations,
    with the numbers between which to look. They are read in steps, each paid for in advance, and
    take turns, so that a long conversation does not use up the time of all.
    """
    found: Dict[str, List[Row]] = collections.defaultdict(list)
    deadline, waiting = time.monotonic() + SEARCH_TIME, collections.deque(ranges)
    while waiting and most > 0 and time.monotonic() < deadline:
        session.charge(SEARCHED_AT_ONCE / SEARCHED_PER_TOKEN)
        key, low, high = waiting.popleft()
        rows = session.server.store.read(key, low, high, SEARCHED_AT_ONCE, latest)
        found[key] += [row for row in rows if _has_words(row, words, sender)]
        if len(rows) == SEARCHED_AT_ONCE and len(found[key]) < most:
            low, high = (low, rows[0].number) if latest else (rows[-1].number, high)
            waiting.append((key, low, high))
    ordered = sorted(itertools.chain(*found.values()), key=lambda row: row.number)
    return ordered[-most:] if latest else ordered[:most], not waiting or most <= 0


def _has_words(row: Row, words: str, sender: str) -> bool:
    if words not in protocol.fold_text(row.line.decode("utf-8", "replace")):
        return False  # most are not worth parsing
    message = protocol.parse(row.line, "replace")
    is_from = not sender or protocol.casefold(message.nickname) == protocol.casefold(sender)
    return is_from and words in protocol.fold_text(message.text)


# Commands: moderation
# --------------------


def mute_text(client: Client) -> str:
    """Return why the client may not speak now, "" if it may."""
    mute, now = client.mute, time.time()
    is_muted = mute is not None and mute.is_in_force(now)
    return "You are %s." % mute.describe_left(now) if mute is not None and is_muted else ""


def ban_text(ban: Sanction, target: str = "You are") -> str:
    """Return the words for a user, or about a nickname, that a ban keeps out."""
    return "%s %s." % (target, ban.describe(time.time(), ban.by).rstrip("."))


def shorten(text: str, size: int) -> str:
    """Return a text of at most `size` bytes in UTF-8, with "…" if its end is cut."""
    is_long = len(text.encode("utf-8")) > size
    return protocol.truncate(text, size - len("…".encode("utf-8"))) + "…" if is_long else text


def mute_note(client: Client) -> Tuple[str, ...]:
    """Return the parameters of the NOTE that tells a client of its mute, or of its end."""
    mute, now = client.mute, time.time()
    if mute is None:
        return "UNBAN", "LIFTED", client.nickname, "You may write again."
    text = "You are %s. You can still read, and write privately to an operator."
    frame = client.nickname + text % mute._replace(reason="").describe(now, mute.by)
    size = protocol.MAX_MESSAGE - NOTE_BYTES - len(frame.encode("utf-8"))
    mute = mute._replace(reason=shorten(mute.reason, size))
    text %= mute.describe(now, mute.by).rstrip(".")
    seconds = str(int(mute.until - now) + 1 if mute.until else 0)
    return "MUTE", "MUTED", client.nickname, seconds, text


def on_sanction(session: Session, message: Message) -> None:
    """BAN or MUTE target duration :reason: by name, account, address or network.

    The target @name is the address of a user who is here.
    """
    client, kind = session.client, message.command.lower()
    target, duration, reason = message.params[:3] + ("", "*", "")[len(message.params) :]
    try:
        seconds = protocol.parse_duration(duration, reason)
    except ValueError:
        text = protocol.INVALID_DURATION
        raise ReplyError("FAIL", message.command, "INVALID_DURATION", text) from None
    if target.startswith("@"):
        target = session.directory.get(target[1:]).host
    if not is_target(target):
        text = "A %s is for a name, an address or a network." % kind
        raise ReplyError("FAIL", message.command, "INVALID_TARGET", text)
    if kind == "ban" and target_matches(target, [client.folded], client.host):
        text = "You cannot ban yourself."
        if protocol.casefold(target) != client.folded:
            text = "You cannot ban %s: it is your own address, too." % target
        raise ReplyError("FAIL", message.command, "INVALID_TARGET", text)
    target, reason, now = normalize_target(target), protocol.clean(reason, MAX_REASON), time.time()
    until = now + seconds if seconds else 0.0
    session.server.store.add_sanction(Sanction(kind, target, until, reason, client.nickname, now))
    session.server.apply_sanctions_to_all()
    length = protocol.format_duration(seconds)
    done = "banned" if kind == "ban" else "muted"
    log.warning("%s: %s %s (%s): %s", client.log_name, done, target, length, reason)
    text = "%s is %s (%s)." % (target, done, length)
    _note_to_operators(session, message.command, "DONE", target, str(seconds), text)


def on_unban(session: Session, message: Message) -> None:
    """Lift the bans and mutes of a target; of a user who is here, those of the address, too."""
    name, store = message.params[0], session.server.store
    user = session.directory.find(name)
    targets = map(normalize_target, [name, *([user.host] if user is not None else [])])
    lifted = {target: store.remove_sanctions(target) for target in targets}
    if not any(lifted.values()):
        text = "%s is neither banned nor muted. /bans shows who is." % next(iter(lifted))
        raise ReplyError("FAIL", "UNBAN", "INVALID_TARGET", next(iter(lifted)), text)
    session.server.apply_sanctions_to_all()
    for target, kinds in lifted.items():
        if kinds:
            log.warning("%s: lifted the sanctions against %s", session.client.log_name, target)
            again = [{"ban": "join", "mute": "write"}[kind] for kind in sorted(kinds)]
            text = "%s may %s again." % (target, " and ".join(again))
            _note_to_operators(session, "UNBAN", "DONE", target, text)


def _note_to_operators(session: Session, *params: str) -> None:
    """Reply with a NOTE, and tell the other operators the same, and by whom."""
    client, text = session.client, "By %s: %s" % (session.client.nickname, params[-1])
    for user in session.directory.users():
        if user.is_operator and user is not client:
            session.directory.tell(user, *make_note(user, *params[:-1], text))
    session.note(*params)


def on_bans(session: Session, message: Message) -> None:
    """List the bans and mutes."""
    now = time.time()
    sanctions = session.server.store.sanctions
    for sanction in sanctions:
        target = sanction.target
        left = str(int(sanction.until - now) + 1 if sanction.until else 0)
        text = "%s is %s" % (target, sanction.describe(now, sanction.by))
        session.note("BANS", sanction.kind.upper(), target, left, text)
    if not sanctions:
        session.note("BANS", "NONE", "Nobody is banned or muted.")


def on_drop(session: Session, message: Message) -> None:
    """Remove a channel, or an account, with its history."""
    target, server = message.params[0], session.server
    if target.startswith("#"):
        session.directory.drop(session.client, target)
    else:
        if not server.store.remove_account(target):
            text = "%s has no account." % target
            raise ReplyError("FAIL", "DROP", "INVALID_TARGET", target, text)
        server.update_accounts()
    log.warning("%s: removed %s", session.client.log_name, target)
    session.note("DROP", "DONE", target, "%s was removed, with its history." % target)


def on_announce(session: Session, message: Message) -> None:
    text = "%s%s: %s" % (protocol.ANNOUNCEMENT, session.client.nickname, message.text)
    log.warning("%s: announced something", session.client.log_name)
    lobby = protocol.casefold(session.options.lobby)
    session.server.announce(text, (lobby,) if lobby else ())


def on_kill(session: Session, message: Message) -> None:
    client, nickname = session.client, message.params[0]
    reason = protocol.clean(message.text, MAX_REASON)
    other = session.directory.get(nickname)
    log.warning("%s: removed %s: %s", client.log_name, other.log_name, reason)
    session.directory.tell(other, "KILL", other.nickname, reason, source=client.source)
    by = client.nickname + (reason and ": " + reason)
    session.directory.end(other, protocol.KILLED + by)


# Commands: server
# ----------------


def on_lusers(session: Session, message: Message) -> None:
    directory = session.directory
    users = directory.users()
    count, most = str(len(users)), str(directory.most_users)
    operators = sum(user.is_operator for user in users)
    session.reply("251", "There are %s users and 0 invisible on 1 servers" % count)
    session.reply("252", str(operators), "operator(s) online")
    session.reply("254", str(len(directory.channels())), "channels formed")
    session.reply("255", "I have %s clients and 0 servers" % count)
    for numeric, where in (("265", "local"), ("266", "global")):
        session.reply(numeric, count, most, "Current %s users %s, max %s" % (where, count, most))


def on_motd(session: Session, message: Message) -> None:
    if not session.options.motd:
        session.reply("422", "There is no message of the day")
        return
    session.reply("375", "- %s Message of the day -" % session.options.server_name)
    for line in session.options.motd:
        session.reply("372", line)
    session.reply("376", "End of /MOTD command")


def on_version(session: Session, message: Message) -> None:
    options = session.options
    session.reply("351", "hubbub-" + VERSION, options.server_name, options.network)
    _reply_isupport(session)


def on_help(session: Session, message: Message) -> None:
    """List the commands, or describe a single command."""
    subject = message.param(0).upper() or "*"
    if subject == "*":
        session.reply("704", subject, "The commands of this server:")
        session.reply_packed(sorted(COMMANDS), " ", 300, "705", subject)
    elif subject in COMMANDS:
        session.reply("704", subject, COMMANDS[subject].help)
    else:
        raise ReplyError("524", subject, "No help available on this topic")
    session.reply("706", subject, "End of /HELP")


def on_stats(session: Session, message: Message) -> None:
    """Show all figures, whatever letter is asked for."""
    letter = message.param(0)[:1] or "*"
    for pair in session.server.statistics().items():
        session.reply("249", letter, "%s: %d" % pair)
    session.reply("249", letter, "fingerprint: " + (session.server.digest or "not encrypted"))
    session.reply("219", letter, "End of /STATS report")


def on_ping(session: Session, message: Message) -> None:
    session.reply("PONG", session.options.server_name, message.params[0])


def on_pong(session: Session, message: Message) -> None:
    """Do nothing: it shows that the client is there."""


def on_quit(session: Session, message: Message) -> None:
    is_silent = mute_text(session.client) or session.directory.speak_errors(session.client)
    reason = "" if is_silent else message.text
    raise Disconnect("Quit: " + reason if reason else "Quit", "Goodbye.")


# The command table
# -----------------


class Command(NamedTuple):
    """A row of the table: the handler, the rules that are checked before it, a line of help."""

    handler: Callable[[Session, Message], None]
    least: int  # parameters
    rules: int  # EARLY and the others below
    help: str
    most: int = 1  # targets, as in a,b,c
    speaks: int = 0  # the first parameter that others read, which a mute forbids; 0: none


EARLY = 1  # allowed before registration
NOT_LATE = 2  # refused after registration
OPERATORS = 4  # for operators only

COMMANDS = {
    "ANNOUNCE": Command(on_announce, 1, OPERATORS, "Send a notice to everyone."),
    "AUTHENTICATE": Command(on_authenticate, 1, EARLY, "Log in to an account (SASL)."),
    "AWAY": Command(on_away, 0, 0, "Mark yourself as away, or as back.", speaks=1),
    "BAN": Command(on_sanction, 1, OPERATORS, "Keep a name, account or address out."),
    "BANS": Command(on_bans, 0, OPERATORS, "List bans and mutes."),
    "CAP": Command(on_cap, 1, EARLY, "Negotiate capabilities."),
    "CHATHISTORY": Command(on_chathistory, 1, 0, "Read earlier messages."),
    "DROP": Command(on_drop, 1, OPERATORS, "Remove a channel or an account."),
    "HELP": Command(on_help, 0, 0, "List the commands, or describe a command."),
    "INVITE": Command(on_invite, 2, 0, "Invite a user to a channel.", speaks=2),
    "ISON": Command(on_ison, 1, 0, "Show which of these users are online."),
    "JOIN": Command(on_join, 1, 0, "Join channels.", most=50),
    "KICK": Command(on_kick, 2, 0, "Remove users from a channel.", most=4, speaks=3),
    "KILL": Command(on_kill, 2, OPERATORS, "Disconnect a user."),
    "LIST": Command(on_list, 0, 0, "List channels."),
    "LUSERS": Command(on_lusers, 0, 0, "Count users and channels."),
    "MODE": Command(on_mode, 1, 0, "Show or change the modes of a channel or user.", speaks=3),
    "MONITOR": Command(on_monitor, 1, 0, "Be told when users come and go."),
    "MOTD": Command(on_motd, 0, 0, "Show the message of the day."),
    "MUTE": Command(on_sanction, 1, OPERATORS, "Let a user read, but not write."),
    "NAMES": Command(on_names, 0, 0, "List the members of a channel.", most=4),
    "NICK": Command(on_nick, 0, EARLY, "Set your nickname.", speaks=1),
    "NOTICE": Command(on_text, 0, 0, "Send a message that no program answers.", most=4, speaks=1),
    "OPER": Command(on_oper, 2, 0, "Log in to an operator's account."),
    "PART": Command(on_part, 1, 0, "Leave channels.", most=50),
    "PASS": Command(on_pass, 1, EARLY | NOT_LATE, "Give the server's password, before NICK."),
    "PING": Command(on_ping, 1, EARLY, "Ask for a PONG."),
    "PONG": Command(on_pong, 0, EARLY, "Answer a PING."),
    "PRIVMSG": Command(on_text, 1, 0, "Send a message to users or channels.", most=4, speaks=1),
    "QUIT": Command(on_quit, 0, EARLY, "Leave the chat."),
    "REGISTER": Command(on_register, 3, EARLY, "Make your nickname yours alone."),
    "RESUME": Command(on_resume, 1, EARLY | NOT_LATE, "Take over from a lost connection."),
    "SEARCH": Command(on_search, 1, 0, "Search earlier messages."),
    "SETNAME": Command(on_setname, 1, 0, "Change your real name.", speaks=1),
    "STATS": Command(on_stats, 0, OPERATORS, "Show the figures of this server."),
    "TAGMSG": Command(on_text, 1, 0, "Send tags without a text.", most=4, speaks=1),
    "TOPIC": Command(on_topic, 1, 0, "Show or set the topic of a channel.", speaks=2),
    "UNBAN": Command(on_unban, 1, OPERATORS, "Lift a ban or a mute."),
    "USER": Command(on_user, 4, EARLY | NOT_LATE, "Give your user name and real name."),
    "USERHOST": Command(on_userhost, 1, 0, "Show the hosts of up to five users."),
    "VERSION": Command(on_version, 0, 0, "Show the version and what is supported."),
    "WHO": Command(on_who, 0, 0, "Describe the users that match a mask, or are in a channel."),
    "WHOIS": Command(on_whois, 1, 0, "Describe a user."),
    "WHOWAS": Command(on_whowas, 1, 0, "Describe the users who had a nickname."),
}


# The page
# --------

_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
_REQUEST = re.compile(r"(?:GET|HEAD) (?:http://[^/?]+)?(/[^? ]*)(?:\?[^ ]*)? HTTP/1\.([01])\Z")
_HEADER = re.compile(r"([!#-'*+.^_`|~0-9A-Za-z-]+):.*\Z")
_PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>%(network)s</title>
<style>
body { max-width: 36em; margin: auto; padding: 1em; font: 1.1em/1.5 sans-serif;
       color: #222; background: #fff }
a { color: #0a58ca } code { font-size: 1.1em; overflow-wrap: anywhere } li { margin: .6em 0 }
@media (prefers-color-scheme: dark) {
  body { color: #ddd; background: #1b1d21 } a { color: #8ab4f8 } }
</style>
<h1>%(network)s</h1>
<p>This is a chat on your own network. You join it in three steps.
<ol>
<li><b>Get Python</b>, version 3.6 or newer.
On Windows and macOS, download it from <a href="https://www.python.org/downloads/">python.org</a>
and install it. Linux has it; if no window opens in the third step, install <code>python3-tk</code>.
<li>%(download)s
<li><b>Open it and type your name.</b> On Windows, double-click it. On macOS and Linux, type in a
terminal: <code>python3 ~/Downloads/hubbub.pyz</code>
</ol>
<p>On a phone, or if you like another IRC app better, let it join the server
<code>%(host)s</code>, port <code>%(port)d</code>, %(security)s.
In a terminal, <code>nc %(host)s %(port)d</code> is enough.
</html>
"""
_DOWNLOAD = '<b><a href="/hubbub.pyz">Download hubbub.pyz</a></b> (%(size)d KB).'
_SECURITY = (
    "with TLS. Accept its own certificate if this is the SHA-256 fingerprint that the app shows:"
    " <code>%s</code>"
)
_NO_DOWNLOAD = "Ask for Hubbub's client: this server has no client.py to give away."


def parse_request(data: bytes) -> str:
    """Return the path of a request. Raises ProtocolError."""
    end = _BLANK_LINE.search(data[:MAX_REQUEST])
    first, *lines = re.split("\r?\n", data[: end.start() if end else 0].decode("latin-1"))
    request, headers = _REQUEST.match(first), list(map(_HEADER.match, lines))
    # Which host is of no use: it may be any name that a page elsewhere gives us.
    hosts = [header for header in headers if header and header.group(1).lower() == "host"]
    if not request or None in headers or (request.group(2) == "1" and len(hosts) != 1):
        raise protocol.ProtocolError("This request is not understood; the page is at /")
    return request.group(1)


def respond(data: bytes, host: str, port: int, network: str, app: bytes, digest: str = "") -> bytes:
    """Return the answer to a request that has come to that address.

    `app` is the client, or b""; `digest` is the fingerprint of the certificate, or "".
    """
    path, kind = "", "text/plain; charset=utf-8"
    extra: List[str] = []
    status, body = "404 Not Found", b"There is nothing here; the page is at /"
    try:
        path = parse_request(data)
    except protocol.ProtocolError as error:
        status, body = "400 Bad Request", str(error).encode()
    if path == "/":
        values = {
            "network": html.escape(network),
            "host": host,
            "port": port,
            "size": len(app) >> 10,
            "security": _SECURITY % digest if digest else "without encryption",
        }
        values["download"] = (_DOWNLOAD if app else _NO_DOWNLOAD) % values
        status, kind, body = "200 OK", "text/html; charset=utf-8", (_PAGE % values).encode()
    elif path == "/hubbub.pyz" and app:
        status, kind, body = "200 OK", "application/zip", app
        extra.append("Content-Disposition: attachment; filename=hubbub.pyz")
    lines = [
        "HTTP/1.1 " + status,
        "Content-Type: " + kind,
        "Content-Length: %d" % len(body),
        "Cache-Control: no-cache",
        "Connection: close",
        "X-Content-Type-Options: nosniff",
        "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'",
        *extra,
    ]
    is_empty = data.startswith(b"HEAD ")
    return "\r\n".join([*lines, "", ""]).encode() + (b"" if is_empty else body)


@functools.lru_cache(maxsize=20)
def make_app(at: str) -> bytes:
    """Return a zipapp of the modules that this server runs, whose client joins ADDRESS:PORT.

    Returns b"" if a module is missing.
    """
    main = (
        "import sys\n"
        "if sys.version_info < (3, 6):\n"
        "    sys.exit('Hubbub needs Python 3.6 or newer: https://www.python.org/downloads/')\n"
        "import client\n"
        "sys.exit(client.main(server=%r))\n" % at
    )
    file = io.BytesIO()
    file.write(b"#!/usr/bin/env python3\n")
    try:
        # The server itself may run from a zipapp.
        names = ("client.py", "protocol.py", "server.py")
        files = {name: pkgutil.get_data("protocol", name) or b"" for name in names}
    except OSError:
        return b""
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in {**files, "__main__.py": main.encode()}.items():
            info = zipfile.ZipInfo(name)  # of 1980: the same bytes each time
            info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(info, data)
    return file.getvalue()


# The server
# ----------


class Server:
    """Listens when it is constructed (OSError if it cannot); `run` serves until `stop`."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.started = time.time()
        self._listener = _listen(options.host, options.port)
        self.address, self.port = self._listener.getsockname()[:2]
        self.tls: Optional[ssl.SSLContext] = None
        self.digest = ""  # the fingerprint of the certificate, for people
        self.not_encrypted = ""  # the reason why there is none
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(self._listener.close)
            self.store = Store(options.data, options.history_days, options.max_history)
            on_failure.callback(self.store.close)
            self._load_certificate()
            on_failure.pop_all()
        # One thread does all handshakes: glibc keeps, for each thread, what they free (28 KiB).
        self.handshakes = ThreadPoolExecutor(1, "handshakes")
        self.journal: Optional[Journal] = None
        if self.store.keeps_history:
            self.journal = Journal(self.store, self.announce, self._on_upkeep)
        self.capabilities = dict.fromkeys(CAPABILITIES, "")  # offered, with their values
        self.capabilities["sasl"] = "=PLAIN"
        if self.journal is None:
            for name in ("draft/chathistory", "draft/event-playback", "soju.im/search"):
                del self.capabilities[name]
        if not self.store.has_accounts:
            del self.capabilities["draft/account-registration"], self.capabilities["sasl"]
        self.delivery = Delivery(options.max_sendq, self.journal, options.lobby)
        last = self.store.last_number()
        if last > (self.started + UPKEEP_INTERVAL) * 1e6:
            text = "the newest message is of %s: this clock is wrong, or was wrong then"
            log.warning(text, time.ctime(last / 1e6))
        self.directory = Directory(self.delivery.enqueue, options.server_name, options.lobby, last)
        self.limits = {name: Limiter(*limit) for name, limit in LIMITS.items()}
        self.limits["work"] = Limiter(options.rate_limit * ADDRESS_SHARE, ADDRESS_BURST)
        with contextlib.suppress(StoreError):  # users are told that nothing is kept
            for state in self.store.channels():
                self.directory.restore(Channel.restore(state))
        self.directory.update_accounts(self.store.accounts)
        ports = [self.port, DISCOVERY_PORT] if options.discovery else []
        self.discovery = Discovery(self.address, ports)
        self._unused_at = time.monotonic() + UNUSED_INTERVAL
        self._lock = threading.Lock()  # guards the two below
        self._threads: Dict[Client, threading.Thread] = {}
        self._per_address: Dict[str, int] = collections.Counter()
        self._is_stopping = False
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)

    def _load_certificate(self) -> None:
        """Turn on encryption; unless it is asked for, it is fine that no certificate is made."""
        options = self.options
        try:
            path = options.tls_cert or make_certificate(options.data)
        except CertificateError as error:
            if options.require_tls:
                raise
            self.not_encrypted = str(error)
            return
        self.tls, digest = load_certificate(path, options.tls_key)
        self.digest = protocol.format_fingerprint(digest)

    # For the sessions

    def announce(self, text: str, kept_in: Tuple[str, ...] = ()) -> None:
        """Send a notice to every user, to be kept in the history of these conversations."""
        message = Message("NOTICE", ("*", text), self.options.server_name)
        audience = tuple(self.directory.users())
        self.directory.post(Event(message, audience, conversations=kept_in))

    def apply_sanctions(self, client: Client) -> Optional[Sanction]:
        """Mute a client to whom a mute applies, and tell it; return the ban that applies to it."""
        names = [client.folded, protocol.casefold(client.account.name)]
        mute, ban = (
            None if client.is_operator else self.store.find_sanction(kind, names, client.host)
            for kind in ("mute", "ban")
        )
        before, was_muted = client.mute, bool(mute_text(client))
        client.mute = mute
        is_news = mute != before and (mute is not None or was_muted)
        if client.registered and is_news and ban is None:
            self.directory.tell(client, *make_note(client, *mute_note(client)))
        return ban

    def apply_sanctions_to_all(self) -> None:
        """Mute, or end the connections of, the users whom sanctions apply to."""
        for client in self.directory.users():
            ban = self.apply_sanctions(client)
            if ban is not None:
                text = ban_text(ban)
                self.directory.tell(client, "465", text)
                reason = protocol.BANNED + ban.by + (ban.reason and ": " + ban.reason)
                self.directory.end(client, reason, text)

    def statistics(self) -> Dict[str, int]:
        """Return the figures for STATS and the log."""
        return {
            "connections": len(self._threads),
            "clients": self.directory.user_count,
            "rooms": len(self.directory.channels()),
            "waiting": len(self.delivery.pending),
            "threads": threading.active_count(),
            "history_mib": self.store.size() >> 20,
            "uptime_s": int(time.time() - self.started),
        }

    def update_accounts(self) -> None:
        """Apply accounts and sanctions that have changed, perhaps by another process."""
        self.directory.update_accounts(self.store.accounts)
        self.apply_sanctions_to_all()

    def _on_upkeep(self, have_accounts_changed: bool) -> None:
        if have_accounts_changed:
            self.update_accounts()
        if time.monotonic() >= self._unused_at:
            self._unused_at = time.monotonic() + UNUSED_INTERVAL
            self.directory.drop_unused()
        self.delivery.wake()  # to send that, and to try the disk again

    # Running

    def fileno(self) -> int:
        """Return the descriptor that wakes `run`, for signal.set_wakeup_fd."""
        return self._waker.fileno()

    def stop(self) -> None:
        """End `run`. Any thread or signal handler may call it, more than once."""
        self._is_stopping = True
        with contextlib.suppress(OSError):  # full, or closed already: `run` knows
            self._waker.send(b"!")

    def run(self) -> None:
        """Serve until `stop`, then tell everyone, close everything and return."""
        if self.journal is not None:
            self.journal.start()
        self.delivery.start()
        try:
            with selectors.DefaultSelector() as selector:
                for sock in (self._listener, self._woken, *self.discovery.senders):
                    selector.register(sock, selectors.EVENT_READ, sock)
                while not self._is_stopping:
                    for key, _ in selector.select():
                        if key.data is self._listener:
                            self._accept()
                        elif key.data is not self._woken:
                            self.discovery.answer(key.data, self._info())
        finally:
            self._shut_down()

    def _info(self) -> protocol.ServerInfo:
        count = self.directory.user_count
        return protocol.ServerInfo(self.options.network, self.port, count, self.tls is not None)

    def _accept(self) -> None:
        try:
            sock, address = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            log.error("cannot accept connections: %s", error.strerror)
            time.sleep(0.1)  # until descriptors are free again
            return
        host = protocol.normalize_host(address[0])
        try:
            refusal = self._start(sock, host, address[1])
            if refusal:
                log.info("%s:%d refused: %s", host, address[1], refusal)
                sock.setblocking(False)
                sock.send(("ERROR :%s\r\n" % refusal).encode("utf-8"))
                sock.close()
        except OSError:
            sock.close()  # the peer has gone already

    def _start(self, sock: socket.socket, host: str, port: int) -> str:
        """Start a session; return why it is refused, or ""."""
        options = self.options
        full = "%s is full (%s). Try again later."
        with self._lock:
            count, from_host = len(self._threads), self._per_address.get(host, 0)
        if options.max_clients and count >= options.max_clients:
            return full % (options.network, protocol.counted(count, "person", "people"))
        if options.max_per_address and from_host >= options.max_per_address:
            return "There are %d connections from your address already." % from_host
        client = Client(sock, host, port)
        name = "client %s" % client.address
        thread = threading.Thread(
            target=self._run_session, args=(Session(self, client),), name=name
        )
        with self._lock:
            self._threads[client] = thread
            self._per_address[host] += 1
        try:
            thread.start()
        except RuntimeError:
            self._forget(client)
            client.writer.detach()
            log.error("the system allows no more threads")
            return full % (options.network, protocol.counted(count, "person", "people"))
        return ""

    def _run_session(self, session: "Session") -> None:
        try:
            session.run()
        finally:
            self._forget(session.client)

    def _forget(self, client: Client) -> None:
        with self._lock:
            del self._threads[client]
            self._per_address[client.host] -= 1
            if not self._per_address[client.host]:
                del self._per_address[client.host]

    def _shut_down(self) -> None:
        self._listener.close()
        self.discovery.close()
        self.directory.is_closing = True
        with self._lock:
            threads = dict(self._threads)
        log.info("shutting down, with %d connected", len(threads))
        for client in threads:
            self.directory.end(client, protocol.CHAT_ENDED)
        self.delivery.wake()
        deadline = time.monotonic() + SHUTDOWN_TIME
        for thread in threads.values():
            thread.join(max(0.0, deadline - time.monotonic()))
        self.handshakes.shutdown()
        self.delivery.stop()
        log.info("statistics: %s", " ".join("%s=%d" % pair for pair in self.statistics().items()))
        if self.journal is not None:
            self.journal.stop()
        self.store.close()

    def close(self) -> None:
        """Close what `fileno` and `stop` use: the last call, after `run`."""
        self._woken.close()
        self._waker.close()


def _listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises OSError, whose text is for the user."""
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, proto, _, address = found[0]
    with contextlib.ExitStack() as on_failure:
        listener = on_failure.enter_context(socket.socket(family, kind, proto))
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):  # Windows, where REUSEADDR shares a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:  # IPPROTO_IPV6 has no name in Windows' older Pythons
            with contextlib.suppress(OSError):
                listener.setsockopt(41, socket.IPV6_V6ONLY, 0)  # "::" accepts IPv4, too
        listener.bind(address)
        listener.listen(1024)
        listener.setblocking(False)
        on_failure.pop_all()
    return listener


def make_certificate(folder: str) -> str:
    """Return the file of key and certificate in the store's folder, made at the first start.

    Raises CertificateError.
    """
    if not folder:
        raise CertificateError("a certificate is kept in the folder of --data, and there is none")
    path = os.path.join(folder, OWN_CERTIFICATE)
    new = path + ".new"
    if os.path.exists(path):
        return path
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -pkeyopt"
        " ec_param_enc:named_curve -nodes -days 3650 -sha256 -subj /CN=hubbub"
    ).split() + ["-keyout", new, "-out", new]
    try:
        os.close(os.open(new, os.O_WRONLY | os.O_CREAT, 0o600))  # some openssl use 0644
        subprocess.run(  # noqa: S603
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, check=True, timeout=OPENSSL_TIMEOUT,
        )  # fmt: skip
        load_certificate(new, "")
        os.chmod(new, 0o600)
        os.replace(new, path)
    except FileNotFoundError:
        text = "the openssl command is not installed, so there is no certificate"
        raise CertificateError(text) from None
    except (OSError, subprocess.SubprocessError) as error:
        reason = str(error).replace(repr(command), "openssl").replace("'openssl'", "openssl")
        lines = (getattr(error, "stderr", b"") or reason.encode()).splitlines()
        text = protocol.clean(lines[-1].decode("utf-8", "replace"), 200)
        raise CertificateError("openssl made no certificate: %s" % text) from None
    finally:
        with contextlib.suppress(OSError):  # it is in its place
            os.remove(new)
    return path


def load_certificate(cert: str, key: str) -> Tuple[ssl.SSLContext, str]:
    """Return a context for the server's end of TLS, and the fingerprint of its certificate.

    `cert` and `key` are files (PEM); "" if `cert` has the key, too. Raises CertificateError.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if hasattr(context, "minimum_version"):
        context.minimum_version = ssl.TLSVersion.TLSv1_2
    else:  # Python 3.6
        context.options |= ssl.OP_NO_TLSv1 | ssl.OP_NO_TLSv1_1
    # A peer that renegotiates has the server compute without end. (3.6 has no name for it.)
    context.options |= getattr(ssl, "OP_NO_RENEGOTIATION", 1 << 30)
    context.set_ecdh_curve("prime256v1")  # with others, a hello costs the server up to 90 ms
    try:
        with open(cert, encoding="ascii", errors="replace") as file:
            pems = re.findall("-----BEGIN CERTIFICATE-.*?-END CERTIFICATE-----", file.read(), re.S)
        if not pems:
            raise ValueError("there is none")
        context.load_cert_chain(cert, key or None, password="")  # never asks
        return context, protocol.fingerprint(ssl.PEM_cert_to_DER_cert(pems[0]))
    except ssl.SSLError as error:
        is_other = error.reason == "KEY_VALUES_MISMATCH"
        reason = "its key is missing, damaged, or kept with a passphrase"
        reason = "the key is that of another certificate" if is_other else reason
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
    if os.path.basename(cert) == OWN_CERTIFICATE:
        reason += ". Without that file, a new certificate is made, which people have to trust anew"
    files = " and ".join(filter(None, [cert, key]))
    raise CertificateError("cannot use the certificate in %s: %s" % (files, reason))


# Finding servers
# ---------------

_VIRTUAL = re.compile(
    "docker|veth|br-[0-9a-f]{12}|virbr|vmnet|vboxnet|u?tun|tap|wg|zt|lxc|tailscale|bridge"
)
_INTERFACE = re.compile(r"(?:\d+: )?([^\s:@]+)")
_INET = re.compile(r"\s+inet6? (?:addr: ?)?([0-9A-Fa-f.:]+)")


def parse_interfaces(text: str) -> List[str]:
    """Return the addresses in the output of `ip addr` or `ifconfig`.

    Those of virtual interfaces, and of a cable that is not plugged in, come last.
    """
    found: Tuple[List[str], List[str]] = ([], [])
    is_last = False
    for line in text.splitlines():
        name, inet = _INTERFACE.match(line), _INET.match(line)
        if name:
            is_last = bool(_VIRTUAL.match(name.group(1))) or "NO-CARRIER" in line
        elif inet:
            found[is_last].append(inet.group(1))
    return found[False] + found[True]


def others_reach(addresses: Iterable[str], bound: str) -> List[str]:
    """Return those of this computer's addresses at which others reach a listener on `bound`.

    "::" accepts IPv4, too. A link-local address is of use to others in IPv4 alone, as the last.
    """
    ip = ipaddress.ip_address(bound.partition("%")[0])
    if not ip.is_unspecified:
        return [] if ip.is_loopback else [bound]
    found = [ipaddress.ip_address(address.partition("%")[0]) for address in addresses]
    found = [it for it in found if it.version <= ip.version and not it.is_loopback]
    found = [it for it in found if it.version == 4 or not it.is_link_local]
    return list(map(str, sorted(dict.fromkeys(found), key=lambda it: it.is_link_local)))


def find_addresses() -> List[str]:
    """Return this computer's addresses, with or without a gateway or a name server."""
    found: List[str] = []
    for command in (["ip", "addr"], ["ifconfig"]) if os.name == "posix" else ():
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            output = subprocess.check_output(  # noqa: S603
                command, stderr=subprocess.DEVNULL, timeout=COMMAND_TIMEOUT
            )
            found = parse_interfaces(output.decode("utf-8", "replace"))
        if found:
            return found
    with contextlib.suppress(OSError):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))  # a documentation address; UDP sends nothing yet
            found.append(probe.getsockname()[0])
    with contextlib.suppress(OSError):  # on Windows, all of them
        found += [str(it[4][0]) for it in socket.getaddrinfo(socket.gethostname(), None)]
    return found


def _open_udp(host: str, port: int) -> socket.socket:
    """Return a socket on a port that all servers of this computer share. Raises OSError."""
    # On the BSDs, SO_REUSEADDR shares no address; on Linux, SO_REUSEPORT keeps it to one user.
    option = "SO_REUSEADDR" if sys.platform in ("linux", "win32") else "SO_REUSEPORT"
    with contextlib.ExitStack() as on_failure:
        sock = on_failure.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, getattr(socket, option), 1)
        sock.bind((host, port))
        on_failure.pop_all()
    return sock


class Discovery:
    """Answers clients that look for servers, on UDP ports, in IPv4. Used by a single thread."""

    def __init__(self, bound: str, ports: Iterable[int]) -> None:
        """Listen on `ports` where a server on the address `bound` is reached."""
        self.senders: Dict[socket.socket, socket.socket] = {}  # by the socket that hears a query
        self._bucket = Bucket(ANSWER_RATE, ANSWER_RATE)
        ip = ipaddress.ip_address(bound.partition("%")[0])
        hosts = [""] if ip.is_unspecified else [bound] if ip.version == 4 else []
        if hosts == [bound] and not ip.is_loopback:
            hosts.append("")  # on Linux, no socket with an address hears broadcasts
        for port in dict.fromkeys(ports):
            try:
                sender = None
                for host in hosts:
                    sock = _open_udp(host, port)
                    sender = sender or sock
                    self.senders[sock] = sender
            except OSError as error:
                log.warning("clients do not find it by UDP port %d: %s", port, error.strerror)

    def answer(self, heard: socket.socket, info: protocol.ServerInfo) -> None:
        """Answer queries that have come to a socket, as many as ANSWER_RATE allows."""
        for _ in range(MAX_DATAGRAMS):
            try:
                data, address = heard.recvfrom(protocol.MAX_DATAGRAM + 1)
                query_id = protocol.parse_query(data)
                if not self._bucket.try_take(1.0, time.monotonic()):
                    answer = protocol.make_answer(query_id, info)
                    self.senders[heard].sendto(answer, address)
            except protocol.ProtocolError:
                continue
            except OSError:  # there is no more, or nobody can be at that address
                return

    def close(self) -> None:
        for sock in self.senders:
            sock.close()


# The command line
# ----------------

MAX_LOG_LINES = 10000  # lines that wait for a console that is stopped
CONSOLE_TIMEOUT = 1.0  # seconds that the end of the program waits for it
STACK_SIZE = 256 * 1024  # bytes of stack for each thread; thousands of them must fit
RESERVED_DESCRIPTORS = 64  # descriptors that are not for clients
MAX_AMOUNT = 86400  # of seconds, lines or days in an option
MAX_COUNT = 10**12  # of connections or bytes in an option


class Console(logging.Handler):
    """The log on stderr and lines on stdout, written by a thread of its own.

    Nobody waits for a console that is stopped or a pipe that is full: lines past MAX_LOG_LINES
    are dropped, and a line says so.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lines: "queue.Queue[Optional[Tuple[TextIO, str]]]" = queue.Queue(MAX_LOG_LINES)
        self._is_incomplete = False  # lines were dropped since the last that was written
        # Daemon: it may be blocked for as long as nobody reads.
        self._thread = threading.Thread(target=self._run, name="console", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        self.print(self.format(record), sys.stderr)

    def print(self, text: str, stream: Optional[TextIO] = None) -> None:
        """Write a line to a standard stream: by default, to stdout."""
        try:
            self._lines.put_nowait((stream or sys.stdout, text))
        except queue.Full:
            self._is_incomplete = True

    def stop(self) -> None:
        """Write what is left if the console takes it, and end the thread."""
        with contextlib.suppress(queue.Full):
            self._lines.put(None, timeout=CONSOLE_TIMEOUT)
        self._thread.join(CONSOLE_TIMEOUT)

    def _run(self) -> None:
        for stream, text in iter(self._lines.get, None):
            # Whatever a peer has brought into it, nothing commands a terminal.
            text = "\n".join(protocol.clean(line, len(line)) for line in text.split("\n"))
            if self._is_incomplete and self._lines.empty():
                self._is_incomplete = False
                text += os.linesep + "Lines were dropped here: nobody read them."
            data = (text + os.linesep).encode("utf-8", "backslashreplace")
            # `stream.write` would keep the stream's lock while it is blocked, and the program
            # could not end. A stream is None in a program without a console.
            with contextlib.suppress(OSError, AttributeError):
                while data:
                    data = data[os.write(stream.fileno(), data) :]


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, "%s: %s\n" % (self.prog, message))

    def expand(self, argument: str) -> List[str]:
        """Return an argument, or those in its @FILE: split as in a shell, # begins a comment."""
        if not argument.startswith("@"):
            return [argument]
        line, found = "", []  # type: str, List[str]
        try:
            # argparse would read it in the encoding of the system.
            for line in _read_lines(argument[1:]):
                found += shlex.split(line) if line.lstrip()[:1] != "#" else []
        except (argparse.ArgumentTypeError, ValueError) as error:
            self.error("%s: %s %s" % (argument, error, line))
        return list(itertools.chain(*map(self.expand, found)))


def parse_arguments(argv: Optional[List[str]]) -> argparse.Namespace:
    """Return the fields of Options, and those of the chores.

    Exits with code 2 and a line of text if the command line is wrong.
    """
    defaults = Options(network=socket.gethostname(), data=protocol.data_folder())
    parser = Parser(
        description="Hubbub's server: chat for a local network.",
        epilog="0 turns a limit off. @FILE reads options from a file. Accounts are in the folder of"
        " --data; they can be changed while a server uses it.",
    )
    for flag, field, convert, metavar, text in _OPTIONS:
        default = getattr(defaults, field)
        text += " (default: %(default)s)" if default else ""
        parser.add_argument(
            "--" + flag, dest=field, type=convert, metavar=metavar, help=text, default=default
        )
    text = "do not answer clients that look for servers"
    parser.add_argument("--no-discovery", dest="discovery", action="store_false", help=text)
    levels = ["DEBUG", "INFO", "WARNING", "ERROR"]
    text = "refuse connections that are not encrypted, except from this computer"
    parser.add_argument("--require-tls", action="store_true", help=text)
    text = "lowest level of messages in the log (default: %(default)s)"
    parser.add_argument("--log-level", choices=levels, default="INFO", help=text)
    parser.add_argument("--version", action="version", version="Hubbub %s" % VERSION)
    nickname = _name(_account_error)
    chores = parser.add_mutually_exclusive_group()
    text = "create an account, or change its password; asks for the password"
    chores.add_argument("--add-account", type=nickname, metavar="NAME", help=text)
    text = "delete an account"
    chores.add_argument("--remove-account", type=nickname, metavar="NAME", help=text)
    chores.add_argument("--list-accounts", action="store_true", help="list the accounts")
    text = "stop the server that uses the folder of --data"
    chores.add_argument("--stop", action="store_true", help=text)
    text = "show where the server that uses the folder of --data runs, and how others join"
    chores.add_argument("--status", action="store_true", help=text)
    text = "with --add-account: make it an operator's account (without: an ordinary one)"
    parser.add_argument("--oper", action="store_true", help=text)
    given = sys.argv[1:] if argv is None else argv
    arguments = parser.parse_args(list(itertools.chain(*map(parser.expand, given))))
    if arguments.oper and not arguments.add_account:
        parser.error("--oper is for --add-account")
    if arguments.tls_key and not arguments.tls_cert:
        parser.error("--tls-key is for --tls-cert")
    names = arguments.add_account, arguments.remove_account
    flags = arguments.list_accounts, arguments.stop, arguments.status
    arguments.is_chore = any((*names, *flags))
    if arguments.is_chore and not arguments.data:
        parser.error("this needs a folder: --data FOLDER")
    return arguments


# Types of options: each raises ArgumentTypeError with a text for the user.


def _number(kind: Callable[[str], float], most: int) -> Callable[[str], float]:
    """Return the type of numbers from 0 to `most`."""

    def convert(text: str) -> float:
        with contextlib.suppress(ValueError):
            if 0 <= kind(text) <= most:
                return kind(text)
        raise argparse.ArgumentTypeError("%s is not a number from 0 to %d" % (text, most))

    return convert


def _name(find_error: Callable[[str], str]) -> Callable[[str], str]:
    """Return the type of names in which `find_error` finds nothing."""

    def convert(text: str) -> str:
        text = protocol.normalize(text)
        error = find_error(text)
        if error:
            raise argparse.ArgumentTypeError("%s: %s" % (text, error))
        return text

    return convert


def _account_error(name: str) -> str:
    return "" if name == protocol.HOST_ACCOUNT else protocol.nickname_error(name)


def _lobby_error(name: str) -> str:
    return channel_error(name) if name else ""


def _host_error(name: str) -> str:
    is_host = re.match(r"[A-Za-z0-9][A-Za-z0-9.-]{0,62}\Z", name)
    return "" if is_host else "This is not a host name."


def _network(name: str) -> str:
    return protocol.clean(name, protocol.MAX_NETWORK).strip() or Options().network


def _read_lines(path: str) -> Tuple[str, ...]:
    try:
        with open(path, encoding="utf-8-sig") as file:
            return tuple(line.rstrip("\n") for line in file)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise argparse.ArgumentTypeError("cannot read %s: %s" % (path, reason)) from None


def _motd_of(path: str) -> Tuple[str, ...]:
    return tuple(protocol.clean(line, 400) for line in _read_lines(path))


def _password_of(path: str) -> str:
    password = "".join(_read_lines(path)[:1]).strip() if path else ""
    if path and not password:
        raise argparse.ArgumentTypeError("%s has no password in its first line" % path)
    return password


_COUNT, _AMOUNT = _number(int, MAX_COUNT), _number(float, MAX_AMOUNT)
# Each option's flag, field of Options, type, placeholder and help.
_OPTIONS: Tuple[Tuple[str, str, Callable[[str], object], str, str], ...] = (
    ("host", "host", str, "ADDRESS", "address to listen on; 0.0.0.0 = all addresses"),
    ("port", "port", _number(int, 65535), "PORT", "TCP port; 0 = any free port"),
    ("network", "network", _network, "NAME", "name of the chat"),
    ("server-name", "server_name", _name(_host_error), "HOST", "the server's name for IRC clients"),
    ("data", "data", str, "FOLDER", "folder for history and accounts; '' = keep nothing"),
    ("history-days", "history_days", _AMOUNT, "DAYS", "days to keep history; 0 = forever"),
    ("max-history", "max_history", _COUNT, "MB", "size of the history; the oldest is deleted"),
    ("lobby", "lobby", _name(_lobby_error), "ROOM", "room that everyone joins; '' = none"),
    ("motd", "motd", _motd_of, "FILE", "text to show to everyone who joins"),
    ("password-file", "password", _password_of, "FILE", "file whose first line is the password"),
    ("rate-limit", "rate_limit", _AMOUNT, "LINES", "lines a second; 10 times that from an address"),
    ("max-clients", "max_clients", _COUNT, "N", "connections at a time"),
    ("max-per-address", "max_per_address", _COUNT, "N", "connections from one address"),
    ("register-timeout", "register_timeout", _AMOUNT, "SECONDS", "time to choose a name"),
    ("ping-interval", "ping_interval", _AMOUNT, "SECONDS", "silence before a PING; 0 = never"),
    ("tls-cert", "tls_cert", str, "FILE", "certificate (PEM); without it, one is made"),
    ("tls-key", "tls_key", str, "FILE", "its key (PEM), if it is in another file"),
    ("max-sendq", "max_sendq", _COUNT, "BYTES", "unsent output before a client is dropped"),
)


def run_chore(arguments: argparse.Namespace) -> int:
    """Stop the server of a folder, or change or list its accounts; return the exit code."""
    try:
        is_host = arguments.add_account == protocol.HOST_ACCOUNT
        password = _read_password(arguments.add_account) if arguments.add_account else ""
        if arguments.stop:
            stop_server(arguments.data)
            print("The server has stopped.")
            return 0
        if arguments.status or is_host:
            _, bound, port = find_server(arguments.data)
            if not bound:
                raise StoreError("the server that uses %s is only starting." % arguments.data)
            at = protocol.format_address(bound, port)
            for line in ["Running on %s" % at, *invitation(bound, port)]:
                print("[%s] %s" % (SERVER, line))
            if arguments.status:
                return 0
        path = os.path.join(arguments.data, STORE_FILE)
        if not (arguments.add_account or os.path.exists(path)):
            raise StoreError("there are no accounts in %s." % arguments.data)
        with contextlib.closing(Store(arguments.data, claim=False)) as store:
            text = _do_chore(arguments, store, password)
    except StoreError as error:
        print("server.py: %s" % error, file=sys.stderr)
        return 2
    except (EOFError, KeyboardInterrupt):
        print("\nserver.py: nothing was changed.", file=sys.stderr)
        return 2
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding))
    return 0


def _do_chore(arguments: argparse.Namespace, store: Store, password: str) -> str:
    """Do the chore, and return a text for the user. Raises StoreError."""
    if arguments.list_accounts:
        rights = ("", " (operator)")
        lines = [account.name + rights[account.is_operator] for account in store.accounts()]
        return "\n".join(lines) or "There are no accounts."
    if arguments.remove_account:
        if not store.remove_account(arguments.remove_account):
            raise StoreError("%s has no account." % arguments.remove_account)
        while store.clean():
            pass
        return "%s no longer has an account. Anyone may use the name." % arguments.remove_account
    name, is_operator = arguments.add_account, arguments.oper
    kind = "an operator's account" if is_operator else "an ordinary account"
    if store.set_password(name, password, is_operator):
        return "%s has a new password, and is %s." % (name, kind)
    store.add_account(name, password, is_operator)
    return "%s now has %s." % (name, kind)


def _read_password(name: str) -> str:
    """Read a password: hidden and twice from a terminal, else a line. Raises StoreError."""
    if sys.stdin.isatty():
        password = getpass.getpass("Password for %s: " % name)
    else:
        line = sys.stdin.buffer.readline().rstrip(b"\r\n")
        password = line.decode("utf-8-sig", "replace")
    error = protocol.password_error(password)
    if "\ufffd" in password:
        error = "The password is not UTF-8."
    if not error and sys.stdin.isatty() and getpass.getpass("Repeat it: ") != password:
        error = "The two passwords differ. Nothing was changed."
    if error:
        raise StoreError(error)
    return password


def main(argv: Optional[List[str]] = None) -> int:
    """Serve until SIGINT or SIGTERM, or do a chore; return 2 on failure, else 0."""
    arguments = parse_arguments(argv)
    os.umask(0o077)  # the files of the store are for their owner alone
    if arguments.is_chore:
        return run_chore(arguments)
    options = Options(*(getattr(arguments, field) for field in Options._fields))
    console = Console()
    form = "%(asctime)s %(levelname)s %(message)s"
    logging.basicConfig(level=arguments.log_level, format=form, handlers=[console])
    try:
        return _serve(options, console)
    finally:
        console.stop()


def _serve(options: Options, console: Console) -> int:
    with contextlib.suppress(ValueError):  # another system may want another multiple of its pages
        threading.stack_size(STACK_SIZE)
    limit = _raise_descriptor_limit()
    if limit:
        most = max(1, limit - RESERVED_DESCRIPTORS)
        options = options._replace(max_clients=min(options.max_clients or most, most))
    # Messages are made and freed by the thousand, in no cycles; looking for cycles among them
    # took a tenth of the readers' time.
    gc.set_threshold(100000, 20, 50)
    try:
        server = Server(options)
    except (StoreError, CertificateError, OSError, UnicodeError) as error:
        print("server.py: %s" % _start_failure(options, error), file=sys.stderr)
        return 2

    def on_signal(number: int, frame: Optional[FrameType]) -> None:
        signal.signal(number, signal.SIG_DFL)  # a second signal forces the end
        server.stop()

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    # On Windows a signal alone does not wake a thread that waits in select.
    signal.set_wakeup_fd(server.fileno())
    server.store.note_process(server.address, server.port)
    at = protocol.format_address(options.host, server.port)
    lines = ["Running on %s" % at, *invitation(server.address, server.port)]
    if server.digest:
        lines.append("Encrypted, with the fingerprint %s" % server.digest)
    else:
        lines.append("Not encrypted: %s" % server.not_encrypted)
    for line in lines:
        console.print("[%s] %s" % (SERVER, line))
    server.run()
    signal.set_wakeup_fd(-1)
    server.close()
    console.print("[%s] Stopped" % SERVER)
    return 0


def invitation(bound: str, port: int) -> List[str]:
    """Return the lines of the console that say how people join a listener on `bound`."""
    if ipaddress.ip_address(bound.partition("%")[0]).is_loopback:
        return ["Only this computer can join"]
    addresses = others_reach(find_addresses(), bound)
    if not addresses:
        words = "No network was found, so nobody else can join."
        return [words + " Connect this computer to Wi-Fi or a cable, then ask again."]
    told = [protocol.format_address(address, port) for address in addresses]
    page = ["In a browser: http://%s" % told[0]] if make_app(told[0]) else []
    return ["Tell people: %s" % at for at in told] + page


def _start_failure(options: Options, error: Exception) -> str:
    if isinstance(error, StoreError):
        return str(error)
    if isinstance(error, CertificateError):
        return "%s." % error
    if getattr(error, "errno", 0) == errno.EADDRINUSE:  # a window shows this, too
        text = "another program uses port %d of this computer. Close it, then try again."
        return text % options.port
    reason = getattr(error, "strerror", None) or str(error)
    at = protocol.format_address(options.host, options.port)
    return "cannot listen on %s: %s." % (at, reason)


def _raise_descriptor_limit() -> int:
    """Allow as many descriptors as the system does; return the limit, 0 if there is none."""
    if resource is None:
        return 0
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # macOS has a lower limit of its own
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 0 if soft == resource.RLIM_INFINITY else soft


if __name__ == "__main__":
    sys.exit(main())
