"""Hubbub's wire protocol: IRC lines, names, the chat box, and what people see of messages.

Shared by the server, the window and the terminal. Bytes and text go in, values come out:
nothing here does I/O or knows threads, locks, clocks or logs, and every function may be called
from any thread.

    bytes --Framer--> lines --parse--> Message --clean_message--> describe --> Line --str--> text
                               Message --serialize--> bytes
    text from the chat box --parse_input--> Input --compose--> Messages

Guarantees:

- `parse` and `serialize` are inverses. `serialize` refuses what a line cannot carry, so no
  text can become a second command.
- What `clean` returns is one line that is safe to print: no control characters, no terminal
  escapes, nothing that reorders or hides text.
- Every buffer and every name has a limit, and the limit is a constant.

Contents: Errors; Messages; Names; Text; Time; ISUPPORT; Passwords; Channel modes; Addresses
and masks; Discovery; Encryption; Display; The chat box.

Specifications: RFC 1459 and 2812, Modern IRC (https://modern.ircdocs.horse), and of IRCv3
(https://ircv3.net/irc/) message-tags, server-time, UTF8ONLY, SASL, chathistory and WHOX.
"""

import base64
import calendar
import contextlib
import difflib
import functools
import hashlib
import ipaddress
import json
import os
import re
import ssl
import sys
import time
import unicodedata
from types import MappingProxyType
from typing import (
    Callable,
    Dict,
    Iterable,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

VERSION = "0.1.0"
PORT = 12001
SERVER = "SERVER"  # the sender of the program's own lines: "[SERVER]: bob joined the chat"
LOBBY = "#lobby"  # the channel that everyone is placed in, unless the server has another

# Limits of a line, in bytes
MAX_MESSAGE = 512  # without its tags, CRLF included (RFC 1459, 2.3)
MAX_TAGS = 8191  # all tags, "@" and the space included (message-tags)
MAX_RECORD = 16384  # plain text in a record of TLS (RFC 8446, 5.1)

# Limits of names and texts, in characters unless said otherwise
MAX_NAME = 32  # a nickname or a channel's name
MAX_USERNAME = 10
MAX_NETWORK = 40  # the name of a server's chat
DEFAULT_NETWORK = "Hubbub"
MAX_TOPIC = 200
MAX_MIDDLE = 200  # a middle parameter
MAX_TEXT = 2000  # any text that is shown
MAX_MARKS = 3  # combining marks in a row; more only hide what is below them
MAX_KEY = 32  # a channel's key
MAX_MASK = 100
MIN_PASSWORD = 8
MAX_PASSWORD = 300  # bytes, so that it fits into REGISTER together with its account

# Limits of a command
MAX_MODES = 8  # mode changes with an argument
MAX_DURATION = 10 * 365 * 86400  # seconds
SASL_CHUNK = 400  # characters of base64 in an AUTHENTICATE

NO_TAGS: Mapping[str, str] = MappingProxyType({})


# Errors
# ------


class ProtocolError(ValueError):
    """The peer sent something that is not a message."""


class TooLongError(ProtocolError):
    """The peer sent a line that is too long (417)."""


class EncodingError(ProtocolError):
    """The peer sent a line that is not UTF-8 (UTF8ONLY)."""


class InputError(ValueError):
    """The user typed something that cannot be done; the text says what can."""


# Messages
# --------


class Message(NamedTuple):
    """An IRC message. `source` is a server's name or nickname!user@host, "" if there is none."""

    command: str
    params: Tuple[str, ...] = ()
    source: str = ""
    tags: Mapping[str, str] = NO_TAGS

    @property
    def nickname(self) -> str:
        """The nickname in `source`, or the server's name."""
        return self.source.partition("!")[0]

    @property
    def text(self) -> str:
        """The last parameter, "" if there is none."""
        return self.params[-1] if self.params else ""

    def param(self, index: int) -> str:
        """Return the parameter at `index` (from 0), "" if there is none."""
        return self.params[index] if index < len(self.params) else ""

    def tag(self, name: str) -> str:
        """Return the value of a tag, "" if there is none."""
        return self.tags.get(name, "")


class Framer:
    """Splits a stream of bytes into lines; buffers at most `limit` bytes of an unfinished line."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rest = b""
        self._is_discarding = False  # the present line is too long already

    def feed(self, data: bytes) -> List[Optional[bytes]]:
        """Return the lines that `data` completes, without their ends (LF or CRLF).

        None stands for a line of more than `limit` bytes, which is discarded.
        """
        *complete, rest = (self._rest + data).split(b"\n")
        lines: List[Optional[bytes]] = []
        for line in complete:
            line = line[:-1] if line.endswith(b"\r") else line
            lines.append(None if self._is_discarding or len(line) > self._limit else line)
            self._is_discarding = False
        self._is_discarding = self._is_discarding or len(rest) > self._limit + 1  # room for a CR
        self._rest = b"" if self._is_discarding else rest
        return lines


_COMMAND = re.compile(r"(?:[A-Za-z][A-Za-z_]*|[0-9]{3})\Z")
_TAG_KEY = re.compile(r"\+?(?:[A-Za-z0-9.-]+/)?[A-Za-z0-9-]+\Z")
_TAG_UNESCAPES = {"\\": "\\", ":": ";", "s": " ", "r": "\r", "n": "\n"}
_TAG_ESCAPES = str.maketrans({char: "\\" + letter for letter, char in _TAG_UNESCAPES.items()})


def parse(line: bytes, errors: str = "strict") -> Message:
    """Return the message in a line (without its end). Commands come out in upper case.

    A byte order mark before the command is ignored: text editors leave it in files.
    Raises TooLongError, EncodingError, or ProtocolError for anything else that is no message.
    With `errors="replace"`, bytes that are not UTF-8 become U+FFFD.
    """
    try:
        text = line.decode("utf-8", errors)
    except UnicodeDecodeError:
        raise EncodingError("Line is not UTF-8") from None
    tags, size = NO_TAGS, len(line)
    if text.startswith("@"):
        tag_text, _, text = text.partition(" ")
        tags_size = line.find(b" ") + 1 or size
        if tags_size > MAX_TAGS:
            raise TooLongError("Tags are too long")
        size -= tags_size
        tags = parse_tags(tag_text[1:])
    if size > MAX_MESSAGE - 2:
        raise TooLongError("Line is too long")
    if "\0" in text or "\r" in text or "\n" in text:
        raise ProtocolError("Line contains NUL, CR or LF")
    head, has_text, text = text.partition(" :")
    words = head.split(" ")
    if "" in words:
        words = [word for word in words if word]
    source = words.pop(0)[1:] if words and words[0].startswith(":") else ""
    command = _to_command(words[0].lstrip("\ufeff")) if words else ""
    if not command:
        raise ProtocolError("Line has no command")
    if has_text:
        words.append(text)
    return Message(command, tuple(words[1:]), source, tags)


def serialize(message: Message) -> bytes:
    """Return the line of a message, CRLF included.

    Raises ValueError, the caller's fault, for what a line cannot carry: CR, LF, NUL, a space in
    a middle parameter, more than MAX_MESSAGE bytes.
    """
    line = serialize_untagged(message)
    if len(line) > MAX_MESSAGE:
        raise ValueError("message of %d bytes: %.80r" % (len(line), message))
    return serialize_tags(message.tags) + line


def serialize_tags(tags: Mapping[str, str]) -> bytes:
    """Return the tags as they stand before a line, space included. ValueError as `serialize`."""
    if not tags:
        return b""
    for key in tags:
        if not _TAG_KEY.match(key):
            raise ValueError("invalid tag key: %.80r" % key)
    items = (k + "=" + v.translate(_TAG_ESCAPES) if v else k for k, v in tags.items())
    data = ("@" + ";".join(items) + " ").encode("utf-8")
    if len(data) > MAX_TAGS or b"\0" in data:
        raise ValueError("tags of %d bytes: %.80r" % (len(data), data))
    return data


def fit(message: Message) -> Message:
    """Return `message` with its longest parameter truncated until it fits into a line."""
    return fit_line(message)[0]


def fit_line(message: Message) -> Tuple[Message, bytes]:
    """Return what `fit` returns, and its line without the tags. ValueError as `serialize`."""
    while True:
        line = serialize_untagged(message)
        excess = len(line) - MAX_MESSAGE
        if excess <= 0:
            return message, line
        longest = max(range(len(message.params)), key=lambda i: len(message.params[i].encode()))
        params = list(message.params)
        end = "\x01" if params[longest].endswith("\x01") else ""  # keeps CTCP well-formed
        size = len(params[longest].encode()) - excess - len(end)
        params[longest] = truncate(params[longest], max(1, size)) + end
        if params == list(message.params):
            raise ValueError("message cannot be made to fit: %.80r" % (message,))
        message = message._replace(params=tuple(params))


def truncate(text: str, size: int) -> str:
    """Return the longest prefix of `text` that has at most `size` bytes in UTF-8."""
    return text.encode("utf-8")[:size].decode("utf-8", "ignore")


def split_text(text: str, source: str, command: str, target: str) -> List[str]:
    """Split `text` into pieces that each fit into a message, `source` included.

    Splits at a space if there is one in the second half of a piece, else between characters.
    """
    size = MAX_MESSAGE - len(serialize_untagged(Message(command, (target, ""), source)))
    pieces = []
    while text:
        piece = truncate(text, size) or text[0]
        if len(piece) < len(text):
            space = piece.rfind(" ")
            if space > len(piece) // 2:
                piece = piece[: space + 1]
        pieces.append(piece)
        text = text[len(piece) :]
    return pieces


def pack(words: Iterable[str], separator: str, size: int) -> List[str]:
    """Join words into texts of at most `size` bytes, never splitting a word."""
    texts: List[str] = []
    for word in words:
        longer = texts[-1] + separator + word if texts else ""
        if longer and len(longer.encode("utf-8")) <= size:
            texts[-1] = longer
        else:
            texts.append(word)
    return texts


@functools.lru_cache(maxsize=1000)
def _to_command(word: str) -> str:
    """Return a command in upper case, "" if `word` is none."""
    return word.upper() if _COMMAND.match(word) else ""


def _unescape_tag(value: str) -> str:
    return re.sub(r"\\(.?)", lambda m: _TAG_UNESCAPES.get(m.group(1), m.group(1)), value)


def parse_tags(text: str) -> Mapping[str, str]:
    """Parse "key=value;…", in which values are escaped."""
    tags = {}
    for item in text.split(";"):
        key, _, value = item.partition("=")
        if key:
            tags[key] = _unescape_tag(value) if "\\" in value else value
    return tags or NO_TAGS


def serialize_untagged(message: Message) -> bytes:
    """Return the line of a message without its tags, of any length. ValueError as `serialize`."""
    command, params, source, _ = message
    words = [":" + source, command] if source else [command]
    for word in params[:-1]:
        if not word or " " in word or word[0] == ":":
            raise ValueError("%.80r can only be a last parameter" % word)
    words += params
    if params:
        text = params[-1]
        # Written wherever it is allowed, not only where it is needed: simple scripts expect " :".
        if len(params) > 1 or not text or text[0] == ":" or " " in text:
            words[-1] = ":" + text
    if not _to_command(command) or " " in source:
        raise ValueError("not a message: %.80r" % (message,))
    line = " ".join(words)
    if "\r" in line or "\n" in line or "\0" in line:
        raise ValueError("a line cannot carry %.80r" % line)
    return line.encode("utf-8") + b"\r\n"


# Names
# -----

# Invisible, though Unicode counts them as letters, marks or symbols. The halves of Hangul
# syllables are among them: NFC has already joined those that belong together.
_INVISIBLE = re.compile(
    "[\u034f\u1100-\u11ff\u17b4\u17b5\u180b-\u180f\u2800\u3164\ua960-\ua97f\ud7b0-\ud7ff"
    "\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_NICKNAME_SPECIAL = "_[]{}\\`^|"  # RFC 2812, 2.3.1
_LETTERS = frozenset("Ll Lm Lo Lt Lu Mc Mn".split())  # Unicode's categories, with marks
# The account with which the host of a chat is its operator, and the beginning of an announcement
HOST_ACCOUNT, ANNOUNCEMENT = "host-operator", "Announcement by "
KILLED, BANNED = "Killed by ", "Banned by "  # begin the reasons for the QUIT of removed users
CHAT_ENDED = "The host has ended the chat"  # the last words of a server that is shut down
# The program's own senders and account, which no user may be called
_RESERVED = frozenset(["server", "system", "you", HOST_ACCOUNT.replace("-", "")])
# Letters that look like Latin ones: Cyrillic, Greek, Armenian, Cherokee, Lisu, Coptic, Latin itself
_LOOKALIKES = str.maketrans(
    "АВЕЅІЈКМНОРСТУХЬаеѕіјкорсухьгӏһԁԛԝѵ" "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧαικνορυϲϳ" "ՍՕԼՏոսօհզցյ"
    "ᎪᏴᏟᎠᎬᏀᎻᎥᎫᏦᏞᎷᏢᏒᏚᎢᏙᎳᏃ" "ꓮꓐꓚꓓꓰꓝꓖꓧꓲꓙꓗꓡꓟꓠꓳꓑꓣꓢꓔꓴꓦꓪꓫꓬꓜ"
    "ⲀⲂⲈⲌⲎⲒⲔⳐⲘⲚⲞⲢⲤⲦⲨⲬⲁⲃⲉⲏⲓⲕⳑⲙⲛⲟⲣⲥⲧⲩⲭ" "ɑɩƖƽǀǃ|ƈ",
    "ABESIJKMHOPCTYXbaesijkopcuxbrlhdqwv" "ABEZHIKMNOPTYXaiknopucj" "UOLSnuohqgj"
    "ABCDEGHiJKLMPRSTVWZ" "ABCDEFGHIJKLMNOPRSTUVWXYZ"
    "ABEZHIKLMNOPCTYXabehiklmnopctyx" "ailsl!lc",
)  # fmt: skip
# Those whose names say it. Hooks and strokes are left alone: they make other letters, as in Łukasz.
_LATIN_VARIANT = re.compile(
    "LATIN (SMALL|CAPITAL|LETTER SMALL CAPITAL) (?:LETTER )?"
    "(?:DOTLESS |SCRIPT |BLACKLETTER )?([A-Z])"
    "(?: WITH (?:SWASH TAIL|CURL|LONG LEG|FISHHOOK|PALATAL HOOK|RETROFLEX HOOK))?"
)
# Scripts that are written together, and beside Latin, and have no lookalikes in it
_NEUTRAL_SCRIPTS = tuple(
    "CJK HIRAGANA KATAKANA HANGUL BOPOMOFO IDEOGRAPHIC MODIFIER COMBINING".split()
)


@functools.lru_cache(maxsize=10000)
def casefold(name: str) -> str:
    """Return the form in which names are compared: the same for `Alice`, `ALICE`, `Ａｌｉｃｅ`."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    return unicodedata.normalize("NFKC", folded)


@functools.lru_cache(maxsize=10000)
def skeleton(name: str) -> str:
    """Return the form that a name has in common with those that look the same.

    Accents and a number at the end make a difference: Zoë and Anna1 are not Zoe and Annal.
    """
    text = "".join(map(_to_latin, unicodedata.normalize("NFKC", name)))
    text = re.sub("1(?=[0-9]*[A-Za-z])|I(?=[a-z])|(?<=[a-z])I", "l", text)
    text = re.sub("l(?=[A-Z]{2})|(?<=[A-Z]{2})l", "I", text)
    text = text.replace("rn", "m").replace("vv", "w")
    return casefold(re.sub("0(?=[0-9]*[A-Za-z])", "o", text))


def _to_latin(char: str) -> str:
    """Return the Latin letter that looks like a letter; "" for a dot or a stroke beside one."""
    match = _LATIN_VARIANT.fullmatch(unicodedata.name(char, "")) if char > "\x7f" else None
    if match:
        return match.group(2).lower() if match.group(1) == "SMALL" else match.group(2)
    return "" if char in "\u0307·\u0334\u0335\u0336\u0337\u0338" else char.translate(_LOOKALIKES)


def normalize(name: str) -> str:
    """Return a name or password in NFC, the form in which it is stored."""
    return unicodedata.normalize("NFC", name)


def is_nickname(name: str) -> bool:
    """Return True for a valid nickname; `nickname_error` says what is wrong with others."""
    return not nickname_error(name)


def nickname_error(name: str) -> str:
    """Return the rule that a nickname breaks, in words for the user; "" if it is valid."""
    if not name:
        return "Type a name first."
    if len(name) > MAX_NAME:
        return "A name has at most %d characters." % MAX_NAME
    hyphenated = "-".join(name.split())
    if hyphenated != name and is_nickname(hyphenated):
        return "A name has no spaces. How about %s?" % hyphenated
    signs = "-" + _NICKNAME_SPECIAL
    if not all(unicodedata.category(c) in _LETTERS or c.isdecimal() or c in signs for c in name):
        return "A name is made of letters, digits, - and _, without spaces."
    if not (name[0].isalpha() or name[0] in _NICKNAME_SPECIAL):
        return "A name begins with a letter."
    if unicodedata.name(name[-1], "").startswith("MODIFIER LETTER"):
        return "A name does not end with a sign that looks like punctuation."
    letters = (unicodedata.name(char, "") for char in skeleton(name) if char.isalnum())
    plain = "".join(re.sub(r"LATIN SMALL LETTER (\w)\b.*", r"\1", letter) for letter in letters)
    if plain.lower() in _RESERVED:
        return "%s is a reserved name. Choose another." % name
    return spelling_error(name)


def spelling_error(name: str) -> str:
    """Return the rule for names of all kinds that a name breaks, "" if it breaks none."""
    if _INVISIBLE.search(normalize(name)) or " " in casefold(name):
        return "A name has no invisible characters."
    if clean(name, MAX_NAME) != normalize(name):
        return "A name has at most %d accents on one letter." % MAX_MARKS
    scripts = {
        unicodedata.name(c, "").partition(" ")[0]
        for c in unicodedata.normalize("NFKC", name)
        if c.isalpha() or unicodedata.category(c)[0] == "M"
    }
    if len([script for script in scripts if not script.startswith(_NEUTRAL_SCRIPTS)]) > 1:
        return "A name uses one alphabet: letters that look alike could imitate another name."
    return ""


# Text
# ----

_FORMATTING = re.compile("\x03(?:[0-9]{1,2}(?:,[0-9]{1,2})?)?|\x04(?:[0-9A-Fa-f]{6})?")
_PRINTABLE_ASCII = re.compile(r"[ -~]*\Z")
_JOINER = "\u200d"  # joins emoji into one
_ACCENTS = re.compile("[\u0300-\u036f]")
# Commands whose last parameter is a name or a list of names, not a text
_NAMES_LAST = frozenset("JOIN INVITE MODE NICK 353 366 730 731".split())


def clean(text: str, limit: int = MAX_TEXT) -> str:
    """Return `text` as one line of at most `limit` characters that is safe to print or show.

    A tab becomes spaces up to a multiple of four, a line end a space. Removed are controls,
    terminal escapes, IRC's colours, bidirectional and zero-width characters, noncharacters,
    lone surrogates (they become U+FFFD), and combining marks beyond MAX_MARKS.
    """
    if not _PRINTABLE_ASCII.match(text):
        # Joins surrogate pairs, which Python 3.6's Tk and JSON may have left apart.
        text = text[: 4 * limit].encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        text = "".join(map(_safe_char, _FORMATTING.sub("", text.expandtabs(4))))
        text = _limit_marks(unicodedata.normalize("NFC", text))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def fold_text(text: str) -> str:
    """Return a text without case and accents, as searches compare it: "ss" for "ß"."""
    if len(text.encode("utf-8", "surrogatepass")) == len(text):  # ASCII, as most is
        return text.lower()
    return _ACCENTS.sub("", unicodedata.normalize("NFD", text.casefold()))


def clean_name(text: str, limit: int = MAX_TEXT) -> str:
    """Return `clean` for names, in which emoji are not joined."""
    return clean(text.replace(_JOINER, ""), limit)


def clean_message(message: Message) -> Message:
    """Return a message from the network with all its text safe to show.

    The delimiters of CTCP stay. Tags with a value that is not a middle parameter are dropped.
    """
    command, params, source, tags = message
    cleaned = [clean_name(param) for param in params]
    if params and command not in _NAMES_LAST:
        is_ctcp = command in ("PRIVMSG", "NOTICE") and params[-1].startswith("\x01")
        delimiter = "\x01" if is_ctcp else ""
        cleaned[-1] = delimiter + clean(params[-1]) + delimiter
    if tags:
        tags = {key: value for key, value in tags.items() if is_middle(value)}
    return Message(command, tuple(cleaned), clean_name(source, MAX_MIDDLE), tags)


def to_middle(text: str) -> str:
    """Return `text` as a middle parameter can carry it: no spaces, not empty, no first colon."""
    return clean(text, MAX_MIDDLE).replace(" ", "_").lstrip(":") or "*"


def is_middle(text: str) -> bool:
    """Return True if a middle parameter can carry `text` as it is, and show it."""
    return to_middle(text) == text


@functools.lru_cache(maxsize=10000)
def _safe_char(char: str) -> str:
    """Return what `clean` makes of a character: itself, a space, or nothing."""
    category = unicodedata.category(char)
    if char in "\t\n\r\x0b\x0c\x85" or category in ("Zl", "Zp"):
        return " "
    if category == "Cc" or (category == "Cf" and char != _JOINER):
        return ""
    is_noncharacter = ord(char) & 0xFFFE == 0xFFFE or "\ufdd0" <= char <= "\ufdef"
    return "" if is_noncharacter else char


def _limit_marks(text: str) -> str:
    kept: List[str] = []
    marks = 0
    for char in text:
        marks = marks + 1 if unicodedata.category(char) in ("Mn", "Me") else 0
        if marks <= MAX_MARKS:
            kept.append(char)
    return "".join(kept)


# Time
# ----

_SERVER_TIME = re.compile(r"([0-9]{4}(?:-[0-9]{2}){2}T[0-9]{2}(?::[0-9]{2}){2})(\.[0-9]{1,9})?Z\Z")
_UNITS = (("week", 604800), ("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))
_DURATION = re.compile(r"\*|[0-9]{1,9}|(?:[0-9]{1,9}[wdhms])+")
INVALID_DURATION = "A duration is a number and a unit: 90s, 10m, 2h, 3d, 1w; * is forever."


def format_day(when: float) -> str:
    """Format a local day, the heading above the lines of another day: Sunday, 22 November 2026."""
    return time.strftime("%A, %d %B %Y", time.localtime(when))


def format_time(when: float) -> str:
    """Format seconds since 1970 for server-time: 2026-11-22T17:10:42.123Z."""
    ms = int(when * 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ms // 1000)) + ".%03dZ" % (ms % 1000)


def parse_time(text: str) -> float:
    """Return seconds since 1970 from server-time's format; ValueError for any other text."""
    match = _SERVER_TIME.match(text)
    if not match:
        raise ValueError("not a server-time: %.40r" % text)
    return _whole_seconds(match.group(1)) + float(match.group(2) or 0)


@functools.lru_cache(maxsize=64)  # messages of a moment share their second
def _whole_seconds(text: str) -> int:
    return calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))


def parse_duration(text: str, reason: str = "") -> int:
    """Return seconds from "90", "10m" or "1d12h"; 0, which is forever, from "0" and "*".

    Raises ValueError for anything else, for more than MAX_DURATION, and for a number without a
    unit before a reason: "2 hours" is not 2 seconds.
    """
    is_unclear = reason and text.strip("0").isdecimal()
    if is_unclear or not _DURATION.fullmatch(text):
        raise ValueError("not a duration: %.40r" % text)
    sizes = {unit[0]: size for unit, size in _UNITS}
    parts = re.findall("([0-9]+)([a-z]?)", text)
    seconds = sum(int(count) * sizes[unit or "s"] for count, unit in parts)
    if seconds > MAX_DURATION:
        raise ValueError("more than ten years: %.40r" % text)
    return seconds


def format_duration(seconds: int) -> str:
    """Format a duration for people in its two largest units: "1 day 12 hours"; 0 is forever."""
    words: List[str] = []
    for unit, size in _UNITS:
        count, seconds = divmod(seconds, size)
        if count:
            words.append("%d %s%s" % (count, unit, "s" if count > 1 else ""))
    return " ".join(words[:2]) or "forever"


# ISUPPORT
# --------

# Modern IRC, "RPL_ISUPPORT": escapes of what a value cannot contain; the backslash comes first
_TOKEN_ESCAPES = (("\\", "\\x5C"), (" ", "\\x20"), ("=", "\\x3D"))


def escape_token(value: str) -> str:
    """Return `value` as an ISUPPORT token can carry it."""
    for char, escaped in _TOKEN_ESCAPES:
        value = value.replace(char, escaped)
    return value


def unescape_token(value: str) -> str:
    """Return the inverse of `escape_token`."""
    for char, escaped in reversed(_TOKEN_ESCAPES):
        value = value.replace(escaped, char)
    return value


# Passwords
# ---------


def password_error(password: str) -> str:
    """Return the rule that a new password breaks, in words for the user; "" if it is valid."""
    if len(normalize(password)) < MIN_PASSWORD:
        return "A password has at least %d characters." % MIN_PASSWORD
    if len(password_bytes(password)) > MAX_PASSWORD:
        return "That password is too long: %d bytes at most." % MAX_PASSWORD
    return ""


def password_bytes(password: str) -> bytes:
    """Return what is hashed of a password: NFC, so that all ways to type it are the same."""
    return normalize(password).encode("utf-8", "surrogatepass")


def sasl_plain_chunks(name: str, password: str) -> List[str]:
    """Return the chunks of AUTHENTICATE that log in to an account once PLAIN is accepted."""
    text = base64.b64encode(("\0%s\0%s" % (name, password)).encode("utf-8")).decode("ascii")
    chunks = [text[i : i + SASL_CHUNK] for i in range(0, len(text), SASL_CHUNK)]
    return chunks if len(text) % SASL_CHUNK else [*chunks, "+"]


# Channel modes
# -------------


def channel_modes(chanmodes: str, member_modes: Iterable[str]) -> Dict[str, str]:
    """Return the type of each channel mode from ISUPPORT's CHANMODES ("b,k,l,imnst").

    "list" takes an argument, or none to query it; "always" takes an argument to set and to unset;
    "set" takes it to set; "flag" takes none; "member" takes a nickname.
    """
    types = dict.fromkeys(member_modes, "member")
    for kind, modes in zip(("list", "always", "set", "flag"), chanmodes.split(",")):
        types.update(dict.fromkeys(modes, kind))
    return types


CHANMODES = "b,k,l,imnst"
CHANNEL_MODES = channel_modes(CHANMODES, "ov")


class ModeChange(NamedTuple):
    """A change in a MODE command. `arg` is "" if it has none, even if it needs an argument."""

    adding: bool
    letter: str
    arg: str


def parse_modes(
    params: Sequence[str], modes: Mapping[str, str] = CHANNEL_MODES, limit: int = MAX_MODES
) -> List[ModeChange]:
    """Return the changes in MODE's parameters after the target, like ("+ov-l", "alice", "bob").

    Unknown modes are returned too. After `limit` changes, all but flags are dropped.
    """
    args = iter(params[1:])
    changes: List[ModeChange] = []
    adding = True
    for letter in params[0] if params else "":
        kind = modes.get(letter, "")
        if letter in "+-":
            adding = letter == "+"
        elif kind == "flag":
            changes.append(ModeChange(adding, letter, ""))
        elif limit:
            limit -= 1
            takes_arg = kind and (adding or kind != "set")
            changes.append(ModeChange(adding, letter, next(args, "") if takes_arg else ""))
    return changes


def is_key(text: str) -> bool:
    """Return True for a valid channel key: a middle parameter without commas."""
    return is_middle(text) and "," not in text and len(text) <= MAX_KEY


# Addresses and masks
# -------------------


def normalize_host(text: str) -> str:
    """Return an address as it stands in a source, where it may not begin with a colon.

    IPv4-mapped IPv6 (::ffff:192.0.2.1) is IPv4; a zone (%eth0) is of a single machine.
    """
    text = re.sub(r"^::ffff:(?=[0-9.]+\Z)", "", text.partition("%")[0])
    with contextlib.suppress(ValueError):
        text = str(ipaddress.ip_address(text))
    return "0" + text if text.startswith(":") else text


def format_address(host: str, port: int) -> str:
    """Return host and port as people pass them on: 192.0.2.7:12001, [2001:db8::7]:12001."""
    return ("[%s]:%d" if ":" in host else "%s:%d") % (host, port)


def normalize_mask(text: str) -> str:
    """Return nickname!user@host from a short form: "bob", "*@host", "192.0.2.7"."""
    text = clean(text).replace(" ", "_")
    if "!" not in text and "@" not in text and ("." in text or ":" in text):
        text = "@" + text  # an address: it has characters that no nickname has
    rest, _, host = text.partition("@")
    nickname, _, user = rest.partition("!")
    host = normalize_host(host)
    nickname = nickname.lstrip(":")[:MAX_NAME]  # a middle parameter does not begin with a colon
    # The three at their longest, with the signs between them, make MAX_MASK.
    return "%s!%s@%s" % (nickname or "*", user[:MAX_USERNAME] or "*", host[:56] or "*")


def short_mask(mask: str) -> str:
    """Return the short form of a mask for people, the inverse of `normalize_mask`."""
    nickname, _, host = mask.partition("!*@")
    return next((short for short in (nickname, host) if normalize_mask(short) == mask), mask)


# Discovery
# ---------

# A query is at least as long as any answer to it, so that a server that is asked in the name of
# another host amplifies nothing.
QUERY_SIZE = 256  # bytes
MAX_DATAGRAM = 512  # bytes of a query or an answer that are looked at
MAX_QUERY_ID = 12  # ASCII letters and digits
_QUERY_ID = re.compile(r"[0-9A-Za-z]{1,%d}\Z" % MAX_QUERY_ID)


class ServerInfo(NamedTuple):
    """A server's answer to a client that looks for servers: JSON in a UDP datagram."""

    network: str  # its name
    port: int  # of TCP
    users: int  # online
    is_encrypted: bool


def make_query(query_id: str) -> bytes:
    """Return the datagram that asks for servers; the answers repeat the random id."""
    return json.dumps({"hubbub": "query", "id": query_id}).encode().ljust(QUERY_SIZE)


def parse_query(data: bytes) -> str:
    """Return the id of a query. Raises ProtocolError if it is none."""
    fields = _parse_datagram(data, "query")
    if len(data) < QUERY_SIZE:
        raise ProtocolError("A query is padded to %d bytes" % QUERY_SIZE)
    return str(fields["id"])


def make_answer(query_id: str, info: ServerInfo) -> bytes:
    """Return the answer to a query, of at most QUERY_SIZE bytes."""
    network, port, users, is_encrypted = info
    fields = {"hubbub": "answer", "id": query_id, "network": network[:MAX_NETWORK], "port": port}
    fields.update(users=users, tls=is_encrypted)
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


def parse_answer(data: bytes) -> Tuple[str, ServerInfo]:
    """Return the id of an answer, and what it says, safe to show. Raises ProtocolError."""
    fields = _parse_datagram(data, "answer")
    network, port, users = fields.get("network"), fields.get("port"), fields.get("users")
    if not isinstance(network, str) or type(port) is not int or type(users) is not int:
        raise ProtocolError("A field is missing, or of another type")
    name = clean(network.strip(), MAX_NETWORK)
    if not (name and 0 < port < 65536 and users >= 0):
        raise ProtocolError("A value is out of range")
    return str(fields["id"]), ServerInfo(name, port, min(users, 10**6), fields.get("tls") is True)


def _parse_datagram(data: bytes, kind: str) -> Mapping[str, object]:
    try:
        fields = json.loads(data.decode()) if len(data) <= MAX_DATAGRAM else None
    except ValueError:
        fields = None
    if not isinstance(fields, dict) or fields.get("hubbub") != kind:
        raise ProtocolError("Not a datagram of Hubbub's")
    query_id = fields.get("id")
    if not isinstance(query_id, str) or not re.match(_QUERY_ID, query_id):
        raise ProtocolError("Not the id of a query")
    return fields


# A server's own computer knows it by this file in its data folder: process, address and port
PID_FILE = "server.pid"


def data_folder() -> str:
    """Return the folder for the server's data that is usual on this system."""
    home = os.path.expanduser("~")
    if sys.platform == "win32":
        return os.path.join(os.environ.get("LOCALAPPDATA") or home, "Hubbub")
    if sys.platform == "darwin":
        return os.path.join(home, "Library", "Application Support", "Hubbub")
    data = os.environ.get("XDG_DATA_HOME") or os.path.join(home, ".local", "share")
    return os.path.join(data, "hubbub")


# Encryption
# ----------


class TlsPipe:
    """An end of a TLS connection, without I/O: the caller moves the bytes.

    Not for two threads at a time. Methods raise ssl.SSLError when the connection cannot go on,
    which is the peer's fault, or the network's; `outgoing` may then have an alert for the peer.
    """

    def __init__(self, context: ssl.SSLContext, server: Optional[str] = None) -> None:
        """`server` is the host that a client connects to; None for the server's end."""
        self._from_peer, self._to_peer = ssl.MemoryBIO(), ssl.MemoryBIO()
        bios = self._from_peer, self._to_peer
        self._tls = context.wrap_bio(*bios, server_side=server is None, server_hostname=server)
        self._waiting = bytearray()  # for the end of the handshake
        self._encrypted: List[bytes] = []  # taken from `_to_peer`, whose buffer never shrinks
        self.is_open = False  # the handshake is done
        self.is_ended = False  # the peer has said that it sends no more
        if server is not None:
            self.receive(b"")  # begins the handshake

    def receive(self, data: bytes) -> bytes:
        """Take bytes from the network, and return what the peer has said; b"" for nothing yet."""
        pieces: List[bytes] = []
        for start in range(0, len(data) or 1, MAX_RECORD):
            self._from_peer.write(data[start : start + MAX_RECORD])
            with contextlib.suppress(ssl.SSLWantReadError):
                if not self.is_open:
                    self._tls.do_handshake()
                    self.is_open = True
                    self.send(bytes(self._waiting))
                    self._waiting.clear()
                while not self.is_ended:
                    try:
                        pieces.append(self._tls.read(MAX_RECORD))
                    except ssl.SSLZeroReturnError:
                        pieces.append(b"")
                    self.is_ended = not pieces[-1]
        return b"".join(pieces)

    def send(self, data: bytes) -> None:
        """Say something to the peer: `outgoing` has it, once the handshake is done."""
        if not self.is_open:
            self._waiting += data
        else:
            for start in range(0, len(data), MAX_RECORD):
                if start:
                    self._encrypted.append(self._to_peer.read())
                self._tls.write(data[start : start + MAX_RECORD])

    def close(self) -> None:
        """Say that no more comes."""
        with contextlib.suppress(ssl.SSLError):  # the peer need not agree, or be there
            self._tls.unwrap()

    @property
    def pending(self) -> int:
        """The bytes that `outgoing` has, but for those of a long `send`."""
        return self._to_peer.pending

    def outgoing(self) -> bytes:
        """Return the bytes that the network is to carry, once."""
        pieces, self._encrypted = [*self._encrypted, self._to_peer.read()], []
        return b"".join(pieces)

    def fingerprint(self) -> str:
        """Return the fingerprint of the peer's certificate, "" before it has come."""
        certificate = self._tls.getpeercert(binary_form=True) if self.is_open else None
        return fingerprint(certificate) if certificate else ""


def fingerprint(certificate: bytes) -> str:
    """Return the SHA-256 of a certificate (DER) in hexadecimal."""
    return hashlib.sha256(certificate).hexdigest()


def format_fingerprint(digest: str) -> str:
    """Return a fingerprint in groups, to compare aloud: "3F2A 9C01 …"."""
    return " ".join(re.findall("..?.?.?", digest.upper()))


# Display
# -------

# Kinds of lines, which a window colours
FROM_SERVER, FROM_ME, FROM_OTHERS, PRIVATE = "server", "own", "others", "private"

NO_SUCH_USER = "No such user: {}"
UNKNOWN_COMMAND = "Unknown command: {}. {}"
_TYPE_HELP = "Type /help for the list."
ACTION = "\x01ACTION "  # CTCP: "/me waves" is PRIVMSG #lobby :\x01ACTION waves\x01


class Line(NamedTuple):
    """A line of a transcript. `str` gives it as people see it, in the reader's time zone."""

    kind: str
    when: float  # seconds since 1970
    head: str  # "[alice]:", or "* alice" for an action
    text: str
    nickname: str = ""  # the sender; "" for the server

    @property
    def clock(self) -> str:
        """The local time, as "[17:10:42]"."""
        return time.strftime("[%H:%M:%S]", time.localtime(self.when))

    def __str__(self) -> str:
        return "%s %s %s" % (self.clock, self.head, self.text)


def counted(number: int, single: str, plural: str = "") -> str:
    """Return a number with its noun: "1 message", "2 messages"."""
    return "%d %s" % (number, single if number == 1 else plural or single + "s")


def server_line(text: str, when: float) -> Line:
    """Return a line of the program's own; `text` is safe to show."""
    return Line(FROM_SERVER, when, "[%s]:" % SERVER, text)


def online_lines(names: List[str]) -> List[str]:
    """Return the answer to /list: as many texts as it takes, each short enough for a line."""
    ordered = sorted(names, key=casefold)
    first, *more = pack(ordered, ", ", 350) or [""]
    return ["Online users (%d): %s" % (len(names), first), *more]


def describe(
    message: Message,
    me: str,
    when: float,
    lobby: str = LOBBY,
    modes: Mapping[str, str] = CHANNEL_MODES,
) -> Optional[Line]:
    """Return `message` as the user with the nickname `me` sees it; None if it is not shown.

    The message has been through `clean_message`. `modes` are the channel modes of its server.
    """
    if message.command in ("PRIVMSG", "NOTICE") and len(message.params) > 1:
        return _describe_text(message, me, when)
    is_mode = message.command == "MODE"
    text = _describe_modes(message, modes) if is_mode else _describe_event(message, me, lobby)
    return server_line(text, when) if text else None


def _describe_text(message: Message, me: str, when: float) -> Optional[Line]:
    target, text = message.params[0], message.params[1]
    is_action = text.startswith(ACTION)
    if is_action:
        text = text[len(ACTION) :].rstrip("\x01")
    elif text.startswith("\x01"):
        return None  # other CTCP, from program to program
    if "!" not in message.source:
        return server_line(text, when)
    sender = message.nickname
    is_own = casefold(sender) == casefold(me)
    if not target.startswith("#"):
        head = "[you -> %s]:" % target if is_own else "[%s -> you]:" % sender
        return Line(PRIVATE, when, head, "* %s %s" % (sender, text) if is_action else text, sender)
    kind = FROM_ME if is_own else FROM_OTHERS
    return Line(kind, when, "* %s" % sender if is_action else "[%s]:" % sender, text, sender)


# Texts for events and numerics. {0} is the sender of an event, or the receiver of a numeric; then
# come the parameters. Events without a text are not shown; numerics without one show their last
# parameter if they are errors, else all parameters but the first.
_TEXTS: Dict[str, str] = {
    "JOIN": "{0} joined {1}",
    "JOIN lobby": "{0} joined the chat",
    "PART": "{0} left {1}",
    "QUIT": "{0} left the chat",
    "QUIT Killed": "{0} was removed from the chat by {by}",
    "QUIT Banned": "{0} was banned from the chat by {by}",
    "NICK": "{0} is now called {1}",
    "TOPIC": "{0} set the topic: {2}",
    "TOPIC none": "{0} cleared the topic",
    "KICK": "{2} was removed from {1} by {0}: {3}",
    "KICK you": "You were removed from {1} by {0}: {3}",
    "INVITE": "{0} invites you to {2}. Type /join {2}",
    "INVITE another": "{0} invited {1} to {2}",
    "KILL": "You were removed from the chat by {0}: {2}",
    "REGISTER": "{text}",
    **dict.fromkeys(["ERROR", "FAIL", "WARN", "NOTE"], "{text}"),
    "001": "{1} Type /help for commands.",
    "249": "{2}",
    "301": "{1} is away: {2}",
    "305": "You are back.",
    "306": "You are away.",
    "311": "{1} is {5} ({2}@{3})",
    "313": "{1} is an operator",
    "314": "{1} was {5} ({2}@{3})",
    "317": "{1} has said nothing for {2}",
    "319": "{1} is in {2}",
    "322": "{1} ({2}): {3}",
    "330": "{1} is logged in as {2}",
    "331": "{1} has no topic. Type /topic TOPIC to set one.",
    "332": "Topic: {2}",
    "335": "{1} is a bot",
    "336": "You are invited to {1}. Type /join {1}",
    "341": "You invited {1} to {2}",
    "367": "{2} is banned from {1}",
    "372": "{1}",
    "381": "You are an operator now.",
    "401": NO_SUCH_USER.replace("{}", "{1}"),
    "403": "No such room: {1}",
    "405": "You cannot be in more rooms. Type /leave in one of them first.",
    "406": "There was no user called {1}",
    "421": UNKNOWN_COMMAND.format("{1}", _TYPE_HELP),
    "433": "Username already taken: {1}. Choose another.",
    "441": "{1} is not in {2}",
    "442": "You are not in {1}. Type /join {1}",
    "443": "{1} is already in {2}",
    "471": "{1} is full. Try again later.",
    "473": "{1} is open to invited users only. Its operators can invite you.",
    "474": "You are banned from {1}. Its operators can lift that.",
    "475": "{1} has a password. Type /join {1} PASSWORD",
    "477": "{1} is open to users with an account only. Type /register PASSWORD to make one.",
    "481": "Only operators may do that. If you are one, log in with /login USERNAME",
    "482": "Only operators of {1} may do that.",
    "671": "{1} has an encrypted connection",
    "705": "{2}",
    "900": "You are logged in as {2}",
    "901": "You are logged out.",
    "905": "That password is too long.",
    "907": "You are already logged in.",
}
_NOT_SHOWN = frozenset(  # numerics for programs
    "002 003 004 005 042 219 221 250 251 252 253 254 255 265 266 276 302 303 312 315 318 321"
    " 323 324 329 333 337 338 347 349 352 353 354 365 366 368 369 374 375 376 378 379 396 422 465"
    " 670 704 706 730 731 732 733 734 903 906 908".split()
)
_DIGITS = re.compile(r"[0-9]{1,9}\Z")
# Parameters that people read in another form: the index, and a function that gives it
_REWORDED: Dict[str, Tuple[int, Callable[[str], str]]] = {
    "301": (2, lambda text: "" if text.lower() == "away" else text),
    "317": (2, lambda text: format_duration(int(text) or 1) if _DIGITS.match(text) else text),
    "367": (2, short_mask),
}


def _describe_event(message: Message, me: str, lobby: str) -> str:
    command, params = message.command, message.params
    if command in _NOT_SHOWN:
        return ""
    key, by = command, ""
    if command == "JOIN" and casefold(message.param(0)) == casefold(lobby):
        key = "JOIN lobby"
    elif command == "TOPIC" and not message.text:
        key = "TOPIC none"
    elif command == "INVITE" and me and casefold(params[0] if params else me) != casefold(me):
        key = "INVITE another"
    elif command == "433" and len(params) > 3:  # it looks like another, says the text
        key = ""
    elif command == "QUIT" and message.text.startswith((KILLED, BANNED)):
        verb, _, by = message.text.partition(" by ")
        key = "QUIT " + verb
    elif command == "KICK":
        is_own = bool(me) and casefold(message.param(1)) == casefold(me)
        key = "KICK you" if is_own else key
        if params[2:] == (message.nickname,):  # servers send it if there is no reason
            params = params[:2]
    is_numeric = command.isdigit()
    if key not in _TEXTS:
        shown = message.text if command >= "400" else " ".join(params[1:])
        return shown if is_numeric else ""
    words = [*(params if is_numeric else (message.nickname, *params)), *[""] * 6]
    if command in _REWORDED:
        index, reword = _REWORDED[command]
        words[index] = reword(words[index])
    shown = _TEXTS[key].format(*words, text=message.text, by=by)
    return shown[:-2] if shown.endswith(": ") else shown  # no reason, or no topic, was given


_MODE_TEXTS: Dict[str, str] = {
    "+o": "made {1} an operator of {0}",
    "-o": "made {1} an ordinary member of {0}",
    "+v": "gave {1} a voice in {0}",
    "-v": "took {1}'s voice in {0}",
    "+b": "banned {1} from {0}",
    "-b": "lifted the ban of {1} from {0}",
    "+k": "set a password for {0}",  # the password itself is for members alone
    "-k": "removed the password of {0}",
    "+l": "limited {0} to {1} people",
    "-l": "removed the limit of {0}",
    "+i": "now lets only invited people join {0}",
    "-i": "now lets everyone join {0}",
    "+m": "now lets only operators and those with a voice write in {0}",
    "-m": "now lets everyone write in {0}",
    "+n": "now lets only members write in {0}",
    "-n": "now lets people outside write in {0}, too",
    "+s": "now hides {0} from people outside",
    "-s": "now shows {0} to people outside",
    "+t": "now lets only operators set the topic of {0}",
    "-t": "now lets everyone in {0} set the topic",
}
_OWN_MODE_TEXTS = {  # of members who change their own rights
    "+o": "became an operator of {0}",
    "-o": "became an ordinary member of {0}",
    "+v": "took a voice in {0}",
    "-v": "gave up the voice in {0}",
}


def _describe_modes(message: Message, modes: Mapping[str, str]) -> str:
    """Return a channel's mode changes in words; a user's own modes are for programs."""
    if not message.text or not message.params[0].startswith("#"):
        return ""
    channel, texts = message.params[0], []
    for change in parse_modes(message.params[1:], modes, MAX_MESSAGE):
        mode = "-+"[change.adding] + change.letter
        text = _MODE_TEXTS.get(mode, "set the mode {2} of {0}")
        if casefold(change.arg) == casefold(message.nickname):
            text = _OWN_MODE_TEXTS.get(mode, text)
        texts.append(text.format(channel, short_mask(change.arg), mode))
    who = message.nickname if "!" in message.source else "The server"
    return "%s %s" % (who, ", ".join(texts)) if texts else ""


# The chat box
# ------------


class Input(NamedTuple):
    """A line typed into the chat box: a verb of VERBS, or "say", and its arguments."""

    verb: str
    args: Tuple[str, ...]


class Verb(NamedTuple):
    """A row of the chat box's grammar: the arguments ([optional]), and a line of help.

    `wire` is the message to send: words in upper case stand for those of `args`, HERE for the
    conversation in view, CHANNEL for the same if it is a channel; arguments that were not given are
    left out. It is "" for verbs that take more.
    """

    args: str
    help: str
    wire: str = ""


VERBS: Dict[str, Verb] = {
    "msg": Verb("USERNAME MESSAGE", "the same as @USERNAME MESSAGE"),
    "reply": Verb("MESSAGE", "answer the last private message"),
    "me": Verb("ACTION", "say what you are doing: /me waves"),
    "list": Verb("", "see who is online", "NAMES HERE"),
    "whois": Verb("USERNAME", "see who a user is", "WHOIS USERNAME"),
    "history": Verb("[LINES]", "see earlier messages", "CHATHISTORY LATEST HERE * LINES"),
    "search": Verb("WORDS", "find messages in all your rooms and private conversations"),
    "rooms": Verb("", "see which rooms there are", "LIST"),
    "join": Verb("ROOM [PASSWORD]", "join a room, or make one", "JOIN ROOM PASSWORD"),
    "leave": Verb("[REASON]", "leave the room", "PART HERE REASON"),
    "topic": Verb("[TOPIC]", "see or set the topic of the room", "TOPIC CHANNEL TOPIC"),
    "invite": Verb("USERNAME", "invite a user to the room", "INVITE USERNAME CHANNEL"),
    "mode": Verb(
        "MODES [ARGUMENTS]", "change rules of the room: /mode +t", "MODE CHANNEL MODES ARGUMENTS"
    ),
    "nick": Verb("USERNAME", "change your username", "NICK USERNAME"),
    "away": Verb("[REASON]", "mark yourself as away; without a reason, as back", "AWAY REASON"),
    "ignore": Verb("[USERNAME]", "hide a user's messages; alone, see whom you ignore"),
    "unignore": Verb("USERNAME", "show a user's messages again"),
    "register": Verb("PASSWORD", "make your username yours alone", "REGISTER * * PASSWORD"),
    "login": Verb("USERNAME PASSWORD", "log in, and take your registered username"),
    "help": Verb("", "see this list"),
    "quit": Verb("[REASON]", "leave the chat", "QUIT REASON"),
    "kick": Verb(
        "USERNAME [REASON]", "remove a user from the room", "KICK CHANNEL USERNAME REASON"
    ),
    "ban": Verb(
        "TARGET [DURATION] [REASON]",
        "keep a username or an address out: /ban bob 2h noise",
        "BAN TARGET DURATION REASON",
    ),
    "mute": Verb(
        "TARGET [DURATION] [REASON]",
        "let a user read, but not write",
        "MUTE TARGET DURATION REASON",
    ),
    "unban": Verb("TARGET", "lift a ban, or a mute", "UNBAN TARGET"),
    "bans": Verb("", "see who is banned or muted", "BANS"),
    "drop": Verb("TARGET", "remove a room or an account, with its history", "DROP TARGET"),
    "announce": Verb("MESSAGE", "tell everyone, in every room", "ANNOUNCE MESSAGE"),
    "stats": Verb("", "see how the server is doing", "STATS"),
}
OPERATOR_VERBS = frozenset("kick ban mute unban bans drop announce stats".split())
SECRET_VERBS = frozenset(["register", "login"])  # never shown, never in the input history
CLIENT_VERBS = frozenset(["ignore", "search", "unignore"])  # done by client.py alone

UNNAMED_HELP = (
    ("MESSAGE", "say it to everyone in the room"),
    ("@USERNAME MESSAGE", "say it to one person, privately"),
    ("//MESSAGE", "say a message that begins with a slash"),
)
_NO_CHANNEL = (
    "You are not in a room. Join one with /join ROOM, or write to one person: @USERNAME TEXT"
)
_NOT_A_ROOM = "/{} is for rooms. Go to the room first."


def help_lines(verbs: Mapping[str, Verb] = VERBS) -> Iterable[str]:
    """Return the answer to /help."""
    named = [(("/%s %s" % (name, verb.args)).strip(), verb.help) for name, verb in verbs.items()]
    yield from map(" — ".join, [*UNNAMED_HELP, *named])
    yield "Only operators may use: %s" % ", ".join("/" + v for v in verbs if v in OPERATOR_VERBS)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return "Did you mean X or Y?" for the known words that begin so, or are closest, or ""."""
    folded, by_folded = casefold(word), {casefold(name): name for name in known}
    by_folded.pop(folded, None)
    begun = [name for name in by_folded if name.startswith(folded)]
    close = begun[:2] or difflib.get_close_matches(folded, by_folded, 2, 0.7)
    return "Did you mean %s?" % " or ".join(by_folded[name] for name in close) if close else ""


def parse_input(text: str, verbs: Mapping[str, Verb] = VERBS) -> Input:
    """Parse a line from the chat box. Raises InputError with words for the user.

    Blanks before a command are ignored, before a text they are part of it.
    """
    line = text.lstrip()
    if line.startswith("@"):
        return _parse_args("msg", line[1:], "@")
    if text.startswith("//"):
        return Input("say", (text[1:],))
    if not line.startswith("/") or line.startswith("//"):
        return Input("say", (text,))
    name, _, rest = line[1:].partition(" ")
    if name.lower() not in verbs:
        guess = did_you_mean("/" + name, ["/" + verb for verb in verbs]) if name else ""
        raise InputError(UNKNOWN_COMMAND.format("/" + name, guess or _TYPE_HELP))
    return _parse_args(name.lower(), rest, "/%s " % name.lower())


def compose(typed: Input, channel: str, source: str, correspondent: str = "") -> List[Message]:
    """Return the messages that carry out what was typed in `channel`, each fit for a line.

    `source` is what the server will put before them; `correspondent` is the sender of the last
    private message. Verbs that need no server give none. Logging in does not change the
    nickname: the caller sends NICK after it. Raises InputError with words for the user.
    """
    verb, args = typed
    row = VERBS.get(verb, Verb("MESSAGE", ""))
    names = [name.strip("[]") for name in row.args.split()]
    _check_input(typed, names, channel, correspondent)
    if verb in ("say", "msg", "reply"):
        target = {"say": channel, "reply": correspondent}.get(verb, args[0])
        pieces = split_text(args[-1], source, "PRIVMSG", target)
        return [Message("PRIVMSG", (target, piece)) for piece in pieces]
    if verb == "me":
        action = fit(Message("PRIVMSG", (channel, ACTION + args[0] + "\x01"), source))
        return [action._replace(source="")]
    if verb == "login":
        return [Message("AUTHENTICATE", (text,)) for text in ("PLAIN", *sasl_plain_chunks(*args))]
    if not row.wire:
        return []
    values = dict(zip(names, _wire_args(typed)), HERE=channel, CHANNEL=channel)
    command, *words = row.wire.split()
    # A word that is no argument's name stands for itself.
    params = [values.get(word, word) for word in words if word in values or word not in names]
    if verb == "mode":
        params[2:] = _mode_args(*args)
    return [fit(Message(command, tuple(params)))]


def _check_input(typed: Input, names: List[str], channel: str, correspondent: str) -> None:
    verb, args = typed
    wire = VERBS[verb].wire.split() if verb in VERBS else []
    if not channel and (verb in ("say", "me") or {"HERE", "CHANNEL"}.intersection(wire)):
        raise InputError(_NO_CHANNEL)
    if "CHANNEL" in wire and not channel.startswith("#"):
        raise InputError(_NOT_A_ROOM.format(verb))
    if verb == "reply" and not correspondent:
        raise InputError("You have no private message to reply to yet.")
    if "USERNAME" in names and args and verb != "nick" and not is_nickname(args[0]):
        raise InputError(NO_SUCH_USER.format(args[0]))
    if verb in SECRET_VERBS and len(args[-1].encode("utf-8")) > MAX_PASSWORD:
        raise InputError("A password has at most %d bytes." % MAX_PASSWORD)
    if verb == "register" and password_error(args[0]):
        raise InputError(password_error(args[0]))


def _mode_args(modes: str, words: str = "") -> List[str]:
    """Return the arguments of modes, each of which takes one at most."""
    letters = [letter for letter in modes if letter not in "+-"]
    args, most = words.split(), sum(CHANNEL_MODES.get(letter) != "flag" for letter in letters)
    if len(args) > most:
        raise InputError("Usage: /mode %s" % VERBS["mode"].args)
    return args


def _wire_args(typed: Input) -> Tuple[str, ...]:
    """Return the arguments as the server expects them, with defaults filled in."""
    verb, args = typed
    if verb == "history":
        count = args[0] if args else "50"
        if not count.isdecimal():
            raise InputError("Usage: /history %s" % VERBS[verb].args)
        return (count,)
    if verb == "join" and args[0][0] != "#":
        return ("#" + args[0], *args[1:])
    if verb in ("ban", "mute", "unban") and args[0][0] == ":":
        args = ("0" + args[0], *args[1:])  # ::1, which cannot be a middle parameter
    if verb in ("ban", "mute"):
        try:
            parse_duration("".join(args[1:2]), "".join(args[2:]))
        except ValueError:  # then the reason begins there
            if re.match(r"[-+.,]*\d", "".join(args[1:2])):
                raise InputError(INVALID_DURATION) from None
            return (args[0], "*", " ".join(args[1:])) if args[1:] else (args[0], "*")
    return args


def _parse_args(verb: str, rest: str, prefix: str) -> Input:
    expected = VERBS[verb].args.split()
    args = rest.split(None, len(expected) - 1) if expected else []
    if prefix == "@" and args:
        args[0] = args[0].rstrip(":,")  # "@bob, hello" is what people write
        if rest[:1] == " ":
            args = []
    if len(args) < len([word for word in expected if not word.startswith("[")]) or "" in args:
        raise InputError("Usage: %s%s" % (prefix, VERBS[verb].args))
    return Input(verb, tuple(args))
