"""The language of Hubbub: IRC lines and their grammar, names, the chat box, what people see.

Bytes and text go in, values come out. Nothing here does I/O, keeps a thread, a
lock or a log, or asks what time it is; every function may be called from any
thread. Three programs share it: the server, the window and the terminal.

    bytes --Framer--> lines --parse--> Message --describe--> Line --str--> text
                                Message --serialize--> bytes
    what somebody typed --parse_input--> Input --compose--> Messages

What it promises:

- `parse` and `serialize` are inverses. `serialize` refuses what a line cannot
  carry, so that nobody's text can become a second command.
- Whatever `describe` or `clean` returns is one line and safe to print: no
  control characters, no terminal escapes, nothing that reorders text.
- Every buffer and every name has a limit, and the limit has a name below.

Specifications: RFC 1459 and 2812, "Modern IRC client protocol" (modern.ircdocs.horse),
IRCv3 message-tags, server-time, UTF8ONLY, SASL and WHOX.
"""

import base64
import calendar
import functools
import ipaddress
import re
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
    Union,
)

VERSION = "0.1.0"
PORT = 12001

MAX_MESSAGE = 512  # bytes of a line without its tags, CRLF included (RFC 1459, 2.3)
MAX_TAGS = 8191  # bytes of the tags, "@" and the space included (message-tags)
MAX_CLIENT_TAGS = 4094  # bytes of them that a client may fill, without the "@" and the space
MAX_TYPED = 4096  # bytes of a line of plain text: no terminal hands on more at once
MAX_NAME = 32  # characters of a nickname or a room's name
MAX_TOPIC = 200  # characters
MAX_WORD = 200  # characters of a middle parameter
MAX_SHOWN = 2000  # characters of any text that is put before people
MAX_MARKS = 3  # combining marks in a row; more only hide what is under them

SERVER = "SERVER"  # who speaks where nobody does: "[SERVER]: bob joined the chat"
NO_TAGS: Mapping[str, str] = MappingProxyType({})


# Errors: each says whose fault it is. (A ValueError from `serialize` is ours.)


class ProtocolError(ValueError):
    """The peer sent something that is not a message."""


class TooLongError(ProtocolError):
    """The peer's line is longer than a message may be (417)."""


class EncodingError(ProtocolError):
    """The peer's line is not UTF-8 (UTF8ONLY)."""


class InputError(ValueError):
    """The user typed what cannot be done; the text says what can."""


class ReplyError(Exception):
    """A command is refused: the numeric and the parameters of the answer, text last."""

    def __init__(self, numeric: str, *params: str) -> None:
        super().__init__(numeric, *params)
        self.numeric = numeric
        self.params = params


# Messages


class Message(NamedTuple):
    """One IRC message. `source` is a server's name or `nickname!user@host`; "" is none."""

    command: str
    params: Tuple[str, ...] = ()
    source: str = ""
    tags: Mapping[str, str] = NO_TAGS

    @property
    def nickname(self) -> str:
        """Who speaks: the nickname in `source`, or the server's name."""
        return self.source.partition("!")[0]

    @property
    def text(self) -> str:
        """The last parameter, "" where there is none."""
        return self.params[-1] if self.params else ""

    def param(self, index: int) -> str:
        """The parameter of that number, from 0; "" where there is none."""
        return self.params[index] if index < len(self.params) else ""

    def tag(self, name: str) -> str:
        """The value of a tag, "" where there is none."""
        return self.tags.get(name, "")


class Framer:
    """Cuts a stream of bytes into lines, holding at most `limit` bytes of an unfinished one."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rest = b""
        self._dropping = False  # inside a line that has already grown too long

    @property
    def pending(self) -> bytes:
        """The unfinished line."""
        return self._rest

    def feed(self, data: bytes) -> List[Optional[bytes]]:
        """The lines that `data` completes, without their ends (LF or CRLF).

        None stands for a line of more than `limit` bytes, whose bytes are gone.
        """
        *lines, rest = (self._rest + data).split(b"\n")
        whole: List[Optional[bytes]] = []
        for line in lines:
            line = line[:-1] if line.endswith(b"\r") else line
            whole.append(None if self._dropping or len(line) > self._limit else line)
            self._dropping = False
        self._dropping = self._dropping or len(rest) > self._limit + 1  # room for a CR
        self._rest = b"" if self._dropping else rest
        return whole


def parse(line: bytes, errors: str = "strict") -> Message:
    """The message in a line (without its end). Commands come out in upper case.

    Raises TooLongError, EncodingError or, for what else is no message, ProtocolError; with
    `errors="replace"`, what is not UTF-8 becomes U+FFFD instead.
    """
    try:
        text = line.decode("utf-8", errors)
    except UnicodeDecodeError:
        raise EncodingError("Line is not UTF-8") from None
    tags, size = NO_TAGS, len(line)
    if text.startswith("@"):
        data, _, text = text.partition(" ")
        size_of_tags = line.find(b" ") + 1 or size
        if size_of_tags > MAX_TAGS:
            raise TooLongError("Tags are too long")
        size -= size_of_tags
        tags = _parse_tags(data[1:])
    if size > MAX_MESSAGE - 2:
        raise TooLongError("Line is too long")
    if "\0" in text or "\r" in text or "\n" in text:
        raise ProtocolError("Line holds a character that no line may hold")
    head, has_text, text = text.partition(" :")
    words = head.split(" ")
    if "" in words:
        words = [word for word in words if word]
    source = words.pop(0)[1:] if words and words[0].startswith(":") else ""
    command = _command(words[0]) if words else ""
    if not command:
        raise ProtocolError("Line has no command")
    if has_text:
        words.append(text)
    return Message(command, tuple(words[1:]), source, tags)


def serialize(message: Message) -> bytes:
    """The line of a message, CRLF included.

    Raises ValueError for what a line cannot carry (CR, LF, NUL, a space in a middle
    parameter, more than MAX_MESSAGE bytes): whoever made the message is at fault.
    """
    line = _serialize_body(message)
    if len(line) > MAX_MESSAGE:
        raise ValueError("message of %d bytes: %.80r" % (len(line), message))
    return serialize_tags(message.tags) + line


def serialize_tags(tags: Mapping[str, str]) -> bytes:
    """The tags as they stand before a line, "" for none. Raises ValueError as `serialize` does."""
    if not tags:
        return b""
    for key in tags:
        if not _TAG_KEY.match(key):
            raise ValueError("no tag may be called %.80r" % key)
    parts = (key + "=" + _escape(value) if value else key for key, value in tags.items())
    data = ("@" + ";".join(parts) + " ").encode("utf-8")
    if len(data) > MAX_TAGS or b"\0" in data:
        raise ValueError("tags of %d bytes: %.80r" % (len(data), data))
    return data


def fit(message: Message) -> Message:
    """`message`, its longest parameter cut between two characters until it fits a line."""
    return fit_line(message)[0]


def fit_line(message: Message) -> Tuple[Message, bytes]:
    """`fit`, and the line that it gives, without the tags. ValueError as from `serialize`."""
    while True:
        line = _serialize_body(message)
        over = len(line) - MAX_MESSAGE
        if over <= 0:
            return message, line
        longest = max(range(len(message.params)), key=lambda i: len(message.params[i].encode()))
        params = list(message.params)
        end = "\x01" if params[longest].endswith("\x01") else ""  # what CTCP wraps stays wrapped
        size = len(params[longest].encode()) - over - len(end)
        params[longest] = cut(params[longest], max(1, size)) + end
        if params == list(message.params):
            raise ValueError("no cut makes it fit: %.80r" % (message,))
        message = message._replace(params=tuple(params))


def cut(text: str, size: int) -> str:
    """The longest beginning of `text` of at most `size` bytes of UTF-8."""
    return text.encode("utf-8")[:size].decode("utf-8", "ignore")


def split_text(text: str, source: str, command: str, target: str) -> List[str]:
    """`text` in pieces that each fit a message once the server has put `source` before it.

    Cut at spaces where a piece has one in its second half, else between two characters.
    """
    size = MAX_MESSAGE - len(_serialize_body(Message(command, (target, ""), source)))
    pieces = []
    while text:
        piece = cut(text, size) or text[0]
        if len(piece) < len(text):
            space = piece.rfind(" ")
            if space > len(piece) // 2:
                piece = piece[: space + 1]
        pieces.append(piece)
        text = text[len(piece) :]
    return pieces


_COMMAND = re.compile(r"(?:[A-Za-z]+|[0-9]{3})\Z")
_TAG_KEY = re.compile(r"\+?(?:[A-Za-z0-9.-]+/)?[A-Za-z0-9-]+\Z")


@functools.lru_cache(maxsize=1000)
def _command(word: str) -> str:
    """A command in upper case; "" for what is none."""
    return word.upper() if _COMMAND.match(word) else ""


_ESCAPES = ((";", "\\:"), (" ", "\\s"), ("\r", "\\r"), ("\n", "\\n"))
_UNESCAPES = {escaped[1]: char for char, escaped in _ESCAPES}


def _escape(value: str) -> str:
    value = value.replace("\\", "\\\\")
    for char, escaped in _ESCAPES:
        value = value.replace(char, escaped)
    return value


def _parse_tags(text: str) -> Mapping[str, str]:
    if not text:
        return NO_TAGS
    tags = {}
    for item in text.split(";"):
        key, _, value = item.partition("=")
        if key:
            unescape = lambda match: _UNESCAPES.get(match.group(1), match.group(1))  # noqa: E731
            tags[key] = re.sub(r"\\(.?)", unescape, value)
    return tags


def _serialize_body(message: Message) -> bytes:
    command, params, source, _ = message
    words = [":" + source, command] if source else [command]
    for word in params[:-1]:
        if not word or " " in word or word[0] == ":":
            raise ValueError("%.80r can only be a last parameter" % word)
    words += params
    if params:
        text = params[-1]
        # The colon is written wherever it may be: simple scripts look for " :".
        if len(params) > 1 or not text or text[0] == ":" or " " in text:
            words[-1] = ":" + text
    if not _command(command) or " " in source:
        raise ValueError("not a message: %.80r" % (message,))
    line = " ".join(words)
    if "\r" in line or "\n" in line or "\0" in line:
        raise ValueError("a line cannot carry %.80r" % line)
    return line.encode("utf-8") + b"\r\n"


# Dialects: what the first bytes of a connection say

IRC, PLAIN, TLS, HTTP = "IRC", "plain text", "TLS", "HTTP"
_OPENERS = frozenset("CAP NICK PASS USER AUTHENTICATE STARTTLS PING WEBIRC PROTOCTL".split())
_HTTP = re.compile(rb"(?:GET|HEAD|POST|PUT|DELETE|CONNECT|OPTIONS|TRACE|PATCH|PRI) ")


def sniff(data: bytes) -> Optional[str]:
    """The dialect that a connection opens with; None while `data` does not tell yet.

    A first line is needed to tell a person called Nick from the command NICK; nobody is
    called Quit. Browsers are known by their first word, before anything that a web page may
    choose.
    """
    if data[:1] == b"\x16":
        return TLS
    if _HTTP.match(data):
        return HTTP
    line, end, _ = data.partition(b"\n")
    if not end and len(data) <= MAX_TYPED:
        return None
    try:
        message = parse(line.rstrip(b"\r"), "replace")
    except ProtocolError:
        return PLAIN
    is_opener = message.command in _OPENERS and message.params
    return IRC if is_opener or message.command == "QUIT" else PLAIN


_TELNET = re.compile(rb"\xff(?:[\xfb-\xfe].?|\xfa.*?(?:\xff\xf0|\Z)|.)?", re.DOTALL)


def typed(line: bytes) -> str:
    """The text in a line of plain text: telnet's commands dropped, the rest made safe to show."""
    if b"\xff" in line:
        line = _TELNET.sub(b"", line)
    return clean(line.decode("utf-8", "replace"), MAX_TYPED).strip()


# Names

# Look like nothing at all, though Unicode counts them as letters, marks or symbols: among
# them the halves of Hangul syllables, which NFC joins where they belong together.
_INVISIBLE = re.compile(
    "[\u034f\u1100-\u11ff\u17b4\u17b5\u180b-\u180f\u2800\u3164\ua960-\ua97f\ud7b0-\ud7ff"
    "\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_NICKNAME_EXTRA = "_-[]{}\\`^|"  # RFC 2812's "special", and the dash
_RESERVED = frozenset(["server", "system", "you"])  # they stand in our own brackets
# Letters of Cherokee, Lisu and phonetics that spell SERVER, as people read them.
_SERVER_LOOKALIKES = str.maketrans(
    "\u13da\u13ac\u13d2\u13d9\ua4e2\ua4f0\ua4e3\ua4e6\ua731\u1d07\u0280\u1d20", "serv" * 3
)
# Not alphabets: they are written together, and beside Latin, and forge nothing.
_NEUTRAL_SCRIPTS = (
    "CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "IDEOGRAPHIC", "MODIFIER", "COMBINING",
)  # fmt: skip


@functools.lru_cache(maxsize=10000)
def casefold(name: str) -> str:
    """What tells two names apart: equal for `Alice`, `ALICE` and full-width `Ａｌｉｃｅ`."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    return unicodedata.normalize("NFKC", folded)


def normalize(name: str) -> str:
    """A name or a password as it is kept: composed (NFC), so that one look is one spelling."""
    return unicodedata.normalize("NFC", name)


def is_nickname(name: str) -> bool:
    """Whether somebody may be called so; `nickname_fault` says why not."""
    return not nickname_fault(name)


def is_room(name: str) -> bool:
    """Whether a room may be called so; `room_fault` says why not."""
    return not room_fault(name)


def nickname_fault(name: str) -> str:
    """The rule that a nickname breaks, in words for whoever chose it; "" for none."""
    if not 1 <= len(name) <= MAX_NAME:
        return "A username has 1 to %d characters." % MAX_NAME
    if not all(_is_letter(c) or c.isdecimal() or c in _NICKNAME_EXTRA for c in name):
        return "A username is made of letters, digits, - and _, without spaces."
    if not (name[0].isalpha() or name[0] in "_[]{}\\`^|"):
        return "A username begins with a letter."
    bare = unicodedata.normalize("NFKD", casefold(name)).translate(_SERVER_LOOKALIKES)
    if "".join(c for c in bare if c.isalnum()) in _RESERVED:
        return "%s is a reserved name. Choose another." % name
    return _spelling_fault(name)


def room_fault(name: str) -> str:
    """The rule that a room's name breaks, in words for whoever chose it; "" for none."""
    if not 2 <= len(name) <= MAX_NAME or name[0] != "#":
        return "A room's name is # and 1 to %d more characters." % (MAX_NAME - 1)
    if any(unicodedata.category(c)[0] in "CZ" or c in ",:*?!@" for c in name):
        return "A room's name has no spaces and none of , : * ? ! @"
    if unicodedata.category(name[1])[0] == "M":
        return "A room's name begins with # and a letter."
    return _spelling_fault(name)


def _is_letter(char: str) -> bool:
    category = unicodedata.category(char)
    return category[0] == "L" or category in ("Mn", "Mc")


def _spelling_fault(name: str) -> str:
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
        return "A name keeps to one alphabet: letters that look alike would pass for another's."
    return ""


MAX_USERNAME = 10  # characters


def as_username(text: str) -> str:
    """What USER calls somebody, as it stands in a source: ASCII letters and digits."""
    kept = "".join(char for char in text if char.isalnum() and char < "\x7f")
    return kept[:MAX_USERNAME] or "user"


_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:-]{0,62}\Z")


def is_host(text: str) -> bool:
    """Whether it may stand in a source as the name or the address of a host."""
    return bool(_HOST.match(text))


# Text

_COLOURS = re.compile("\x03(?:[0-9]{1,2}(?:,[0-9]{1,2})?)?|\x04(?:[0-9A-Fa-f]{6})?")
_SAFE = re.compile(r"[ -~]*\Z")  # most text: nothing in it can do harm
_JOINER = "\u200d"  # between the parts of one emoji


def clean(text: str, limit: int = MAX_SHOWN) -> str:
    """`text` as one line of at most `limit` characters that is safe to print or to show.

    Drops what is invisible or acts on what is around it: controls (a tab or a line's end
    becomes a space), terminal escapes, IRC's colours, bidirectional and zero-width
    characters, lone surrogates, noncharacters, and combining marks beyond MAX_MARKS.
    """
    if _SAFE.match(text):
        return text if len(text) <= limit else text[: limit - 1] + "…"
    # Halves of one character are joined; other lone surrogates become U+FFFD.
    text = text[: 4 * limit].encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    text = _COLOURS.sub("", text).translate(_SAFE_CHARS)
    text = unicodedata.normalize("NFC", text)
    if "m" * (MAX_MARKS + 1) in text.translate(_MARKS):
        text = _without_excess_marks(text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def clean_name(text: str, limit: int = MAX_SHOWN) -> str:
    """`clean` for names, which are not made of the parts of emoji."""
    return clean(text.replace(_JOINER, ""), limit)


def _without_excess_marks(text: str) -> str:
    kept: List[str] = []
    marks = 0
    for char in text:
        marks = marks + 1 if _mark_flag(char) == "m" else 0
        if marks <= MAX_MARKS:
            kept.append(char)
    return "".join(kept)


def _safe_char(char: str) -> str:
    """What `clean` makes of a character: itself, a space, or nothing."""
    category = unicodedata.category(char)
    if char in "\t\n\r\x0b\x0c\x85" or category in ("Zl", "Zp"):
        return " "
    if category == "Cc" or (category == "Cf" and char != _JOINER):
        return ""
    is_no_char = ord(char) & 0xFFFE == 0xFFFE or "\ufdd0" <= char <= "\ufdef"
    return "" if is_no_char else char


def _mark_flag(char: str) -> str:
    return "m" if unicodedata.category(char) in ("Mn", "Me") else "."


class _CharTable(Dict[int, str]):
    """A table for str.translate that asks `function` once for each of the usual characters."""

    SIZE = 10000  # characters that are remembered

    def __init__(self, function: Callable[[str], str]) -> None:
        super().__init__()
        self._function = function

    def __missing__(self, code: int) -> str:
        result = self._function(chr(code))
        if len(self) < self.SIZE:
            self[code] = result
        return result


_SAFE_CHARS = _CharTable(_safe_char)
_MARKS = _CharTable(_mark_flag)


def as_word(text: str) -> str:
    """`text` as a middle parameter can hold it: no spaces, not empty, no colon first."""
    return clean(text, MAX_WORD).replace(" ", "_").lstrip(":") or "*"


def is_word(text: str) -> bool:
    """Whether a middle parameter can hold `text` as it is, and show it."""
    return as_word(text) == text


# Time

_SERVER_TIME = re.compile(r"([0-9]{4}(?:-[0-9]{2}){2}T[0-9]{2}(?::[0-9]{2}){2})(\.[0-9]{1,9})?Z\Z")


def format_time(when: float) -> str:
    """Seconds since 1970 as server-time writes them: 2026-11-22T17:10:42.123Z."""
    ms = int(when * 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ms // 1000)) + ".%03dZ" % (ms % 1000)


def parse_time(text: str) -> float:
    """Seconds since 1970 from server-time's form; ValueError for any other."""
    match = _SERVER_TIME.match(text)
    if not match:
        raise ValueError("not a server-time: %.40r" % text)
    return _whole_seconds(match.group(1)) + float(match.group(2) or 0)


@functools.lru_cache(maxsize=64)  # what is said, is said in few seconds
def _whole_seconds(text: str) -> int:
    return calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))


def parse_point(text: str) -> Tuple[int, int]:
    """A place in the history, `msgid=N` or `timestamp=T`, among numbers of microseconds.

    What is below the first number was before it, what is above the second is after it; "*" is
    before everything. ValueError for what is no place.
    """
    kind, _, value = text.partition("=")
    if text == "*":
        return 0, 0
    if kind == "msgid" and value.isdecimal() and len(value) < 19:
        return int(value), int(value)
    if kind != "timestamp":
        raise ValueError("neither msgid nor timestamp: %.40r" % text)
    ms = round(parse_time(value) * 1000)
    return ms * 1000, ms * 1000 + 999


class HistoryQuery(NamedTuple):
    """What CHATHISTORY asks for."""

    verb: str
    target: str  # a room, or somebody; "" for TARGETS
    points: List[Tuple[int, int]]  # as `parse_point` gives them
    limit: int


# The places that each verb names, before the limit; LATEST's may be "*".
_POINTS = {"LATEST": 1, "BEFORE": 1, "AFTER": 1, "AROUND": 1, "BETWEEN": 2, "TARGETS": 2}


def parse_chathistory(params: Sequence[str]) -> HistoryQuery:
    """The query in CHATHISTORY's parameters; ProtocolError, in words, for what is none."""
    verb, *rest = params
    verb = verb.upper()
    if verb not in _POINTS:
        raise ProtocolError("Unknown command")
    target = rest.pop(0) if rest and verb != "TARGETS" else ""
    if len(rest) != _POINTS[verb] + 1 or not rest[-1].isdecimal():
        raise ProtocolError("Too few parameters, too many, or a limit that is no number")
    *places, limit = rest
    if "*" in places and verb != "LATEST":
        raise ProtocolError("Not a msgid or a timestamp")
    try:
        points = [parse_point(text) for text in places]
    except ValueError:
        raise ProtocolError("Not a msgid or a timestamp") from None
    return HistoryQuery(verb, target, points, int(limit[:9]))


MAX_DURATION = 10 * 365 * 86400  # seconds
_UNITS = (("week", 604800), ("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))
_DURATION = re.compile(r"\*|[0-9]{1,9}|(?:[0-9]{1,9}[wdhms])+")


def parse_duration(text: str) -> int:
    """Seconds from "90", "10m" or "1d12h"; 0, which is for ever, from "0" and "*".

    ValueError for anything else, and beyond MAX_DURATION.
    """
    if not _DURATION.fullmatch(text):
        raise ValueError("not a duration: %.40r" % text)
    sizes = {unit[0]: size for unit, size in _UNITS}
    parts = re.findall("([0-9]+)([a-z]?)", text)
    seconds = sum(int(count) * sizes[unit or "s"] for count, unit in parts)
    if seconds > MAX_DURATION:
        raise ValueError("more than ten years: %.40r" % text)
    return seconds


def format_duration(seconds: int) -> str:
    """A duration for people, in its two largest units: "1 day 12 hours"; 0 is "for ever"."""
    words: List[str] = []
    for unit, size in _UNITS:
        count, seconds = divmod(seconds, size)
        if count:
            words.append("%d %s%s" % (count, unit, "s" if count > 1 else ""))
    return " ".join(words[:2]) or "for ever"


# ISUPPORT ("Modern IRC", "RPL_ISUPPORT")

# What stands for what no value may hold; the backslash first.
_TOKEN_ESCAPES = (("\\", "\\x5C"), (" ", "\\x20"), ("=", "\\x3D"))


def escape_token(value: str) -> str:
    """`value` as a token of ISUPPORT (005) holds it."""
    for char, escaped in _TOKEN_ESCAPES:
        value = value.replace(char, escaped)
    return value


def unescape_token(value: str) -> str:
    """The inverse of `escape_token`."""
    for char, escaped in reversed(_TOKEN_ESCAPES):
        value = value.replace(escaped, char)
    return value


MAX_TOKENS = 13  # of a line: beside the client's name and the text, the most there may be


def isupport(tokens: List[str]) -> List[Tuple[str, ...]]:
    """The tokens of 005 by lines, each short enough beside the longest names there are."""
    names = Message("005", ("n" * 4 * MAX_NAME, "are supported by this server"), "s" * 64)
    size = MAX_MESSAGE - len(_serialize_body(names)) - len(" ")
    lines: List[Tuple[str, ...]] = []
    for start in range(0, len(tokens), MAX_TOKENS):
        texts = pack(tokens[start : start + MAX_TOKENS], " ", size)
        lines += [tuple(text.split(" ")) for text in texts]
    return lines


# SASL (https://ircv3.net/specs/extensions/sasl-3.1; PLAIN is RFC 4616)

SASL_PIECE = 400  # characters of base64 in one AUTHENTICATE; fewer are the last
MAX_SASL = 4096  # of them in all
MIN_PASSWORD = 8  # characters
MAX_PASSWORD = 300  # bytes: with its account, what one REGISTER can hold


def password_fault(password: str) -> str:
    """The rule that a password breaks, in words for whoever chose it; "" for none."""
    if len(normalize(password)) < MIN_PASSWORD:
        return "A password has at least %d characters." % MIN_PASSWORD
    if len(password_bytes(password)) > MAX_PASSWORD:
        return "That password is too long: %d bytes at most." % MAX_PASSWORD
    return ""


def password_bytes(password: str) -> bytes:
    """What is hashed of a password: composed, so that one look is one spelling."""
    return normalize(password).encode("utf-8", "surrogatepass")


class Sasl:
    """Collects what comes in pieces of AUTHENTICATE."""

    def __init__(self) -> None:
        self._text = ""

    def feed(self, piece: str) -> Optional[bytes]:
        """The data, once its last piece has come; then, and after an error, it begins anew.

        TooLongError for a piece over SASL_PIECE (905), ProtocolError for one that is no
        base64 or more than MAX_SASL with those before it (904).
        """
        text, self._text = self._text + ("" if piece == "+" else piece), ""
        if len(piece) > SASL_PIECE:
            raise TooLongError("more than %d characters at once" % SASL_PIECE)
        if len(text) > MAX_SASL:
            raise ProtocolError("more than %d characters" % MAX_SASL)
        if len(piece) == SASL_PIECE:
            self._text = text
            return None
        try:
            return base64.b64decode(text, validate=True)
        except ValueError:
            raise ProtocolError("not base64") from None


def parse_plain(data: bytes) -> Tuple[str, str, str]:
    """Whom to be (often ""), the account and its password. ProtocolError for what is not PLAIN."""
    try:
        authzid, authcid, password = data.decode("utf-8").split("\0")
    except ValueError:
        raise ProtocolError("not PLAIN") from None
    if not authcid or not password:
        raise ProtocolError("no name, or no password")
    return authzid, authcid, password


def compose_plain(name: str, password: str) -> List[str]:
    """The pieces that log in as `name`, after the server has taken the word PLAIN."""
    text = base64.b64encode(("\0%s\0%s" % (name, password)).encode("utf-8")).decode("ascii")
    pieces = [text[i : i + SASL_PIECE] for i in range(0, len(text), SASL_PIECE)]
    return pieces if len(text) % SASL_PIECE else [*pieces, "+"]


# Modes of rooms ("Modern IRC", "MODE message"; RFC 2811, 4)

MAX_MODES = 8  # changes in one command, flags not counted
# What each letter takes: "list" an argument, or none to ask; "always" one to set and one to
# unset; "set" one to set; "flag" none; "member" somebody's nickname.
ROOM_MODES: Dict[str, str] = {
    "b": "list", "k": "always", "l": "set", "o": "member", "v": "member",
    **dict.fromkeys("imnst", "flag"),
}  # fmt: skip
# The same as ISUPPORT's CHANMODES wants it: b,k,l,imnst
CHANMODES = ",".join(
    "".join(letter for letter in ROOM_MODES if ROOM_MODES[letter] == kind)
    for kind in ("list", "always", "set", "flag")
)


def parse_prefix(token: str) -> Dict[str, str]:
    """The signs of members' modes, the highest first, in ISUPPORT's PREFIX: "(ov)@+"."""
    letters, _, signs = token[1:].partition(")")
    return dict(zip(letters, signs))


def room_modes(chanmodes: str, members: Iterable[str]) -> Dict[str, str]:
    """ROOM_MODES as ISUPPORT's CHANMODES has them, and those of members."""
    kinds = dict.fromkeys(members, "member")
    for kind, letters in zip(("list", "always", "set", "flag"), chanmodes.split(",")):
        kinds.update(dict.fromkeys(letters, kind))
    return kinds


class ModeChange(NamedTuple):
    """One letter of a MODE command; `arg` is "" where it has none, even where it wants one."""

    adding: bool
    letter: str
    arg: str


def parse_modes(
    params: Sequence[str], modes: Mapping[str, str] = ROOM_MODES, most: int = MAX_MODES
) -> List[ModeChange]:
    """The changes in MODE's parameters after its target: ("+ov-l", "alice", "bob").

    Letters that no room has come out too. Beyond so many, all but flags are dropped.
    """
    args = iter(params[1:])
    changes: List[ModeChange] = []
    adding, left = True, most
    for letter in params[0] if params else "":
        kind = modes.get(letter, "")
        if letter in "+-":
            adding = letter == "+"
        elif kind == "flag":
            changes.append(ModeChange(adding, letter, ""))
        elif left:
            left -= 1
            takes = kind and (adding or kind != "set")
            changes.append(ModeChange(adding, letter, next(args, "") if takes else ""))
    return changes


MAX_KEY = 32  # characters of a room's key
MAX_LIMIT = 99999  # people to which a room may be limited


def is_key(text: str) -> bool:
    """Whether it may open a room: one word that looks like what it is, and no list."""
    return is_word(text) and "," not in text and len(text) <= MAX_KEY


def parse_limit(text: str) -> int:
    """The people to whom mode l limits a room, 1 to MAX_LIMIT; 0 for what is no such number."""
    limit = int(text) if text.isdecimal() and len(text) < 10 else 0
    return limit if limit <= MAX_LIMIT else 0


def format_modes(changes: Iterable[ModeChange]) -> Tuple[str, ...]:
    """The inverse of `parse_modes`, each sign once for those it holds for; () for none."""
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
    """`format_modes`, in as many pieces as it takes for each to fit a line beside those names."""
    words = format_modes(changes)
    line = _serialize_body(Message("MODE", (target, *words), source))
    if len(line) <= MAX_MESSAGE or len(changes) == 1:
        return [words]
    half = len(changes) // 2
    parts = changes[:half], changes[half:]
    return [words for part in parts for words in split_modes(part, source, target)]


# Masks: nickname!user@host with * and ?, of bans, silences and searches

MAX_MASK = 100  # characters


def as_mask(text: str) -> str:
    """A whole mask from what people write of one: "bob", "*@host", "192.0.2.7"."""
    text = clean(text).replace(" ", "_")
    if "!" not in text and "@" not in text and ("." in text or ":" in text):
        text = "@" + text  # no nickname has these, every address has
    rest, _, host = text.partition("@")
    nickname, _, user = rest.partition("!")
    nickname = nickname.lstrip(":")[:MAX_NAME]  # a middle parameter begins with none
    # The three at their longest, and what is between them, make MAX_MASK.
    return "%s!%s@%s" % (nickname or "*", user[:MAX_USERNAME] or "*", host[:56] or "*")


def bare_mask(mask: str) -> str:
    """What people write of a mask: the inverse of `as_mask`."""
    nickname, _, host = mask.partition("!*@")
    return next((bare for bare in (nickname, host) if as_mask(bare) == mask), mask)


class Masks:
    """Any of several masks, in which * stands for any characters and ? for any one.

    All ways to match all of them are followed at once, a bit for each beginning of each mask,
    so that many masks, and masks of stars, cost little more than one: a step a character.
    """

    __slots__ = ("_any_one", "_begin", "_ends", "_stars", "_steps")

    def __init__(self, masks: Iterable[str]) -> None:
        steps: Dict[str, int] = {}  # a character: where the masks have it
        bit, begin, self._ends = 1, 0, 0
        for mask in masks:
            begin |= bit
            for char in re.sub(r"\*+", "*", casefold(mask)):
                steps[char] = steps.get(char, 0) | bit
                bit <<= 1
            self._ends |= bit
            bit <<= 1
        self._stars, self._any_one = steps.pop("*", 0), steps.pop("?", 0)
        self._steps = steps
        self._begin = begin | (begin & self._stars) << 1

    def match(self, text: str) -> bool:
        """Whether one of them stands for `text`."""
        steps, stars, any_one, reached = self._steps, self._stars, self._any_one, self._begin
        for char in casefold(text):
            reached = (reached & (steps.get(char, 0) | any_one)) << 1 | (reached & stars)
            if not reached:
                return False
            reached |= (reached & stars) << 1
        return bool(reached & self._ends)


def matches(mask: str, text: str) -> bool:
    """Whether `text` is one that `mask` stands for."""
    return Masks([mask]).match(text)


# What bans and mutes of the whole server are for: names, addresses, networks


def sanction_target(text: str) -> str:
    """What a sanction calls a name, an address or a network, however it was typed."""
    network = _network_of(text)
    if network is None:
        return casefold(text)
    return str(network.network_address if network.num_addresses == 1 else network)


def sanction_matches(target: str, names: Iterable[str], address: str) -> bool:
    """Whether a sanction meets somebody with these folded names, who comes from `address`."""
    network = _network_of(target)
    if network is None:
        return casefold(target) in names
    host = _network_of(address)
    return host is not None and host.network_address in network


def is_target(text: str) -> bool:
    """Whether there can be a sanction for it: a name, an address or a network."""
    return is_nickname(text) or _network_of(text) is not None


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


# Queries: WHOX (https://ircv3.net/specs/extensions/whox) and ELIST ("Modern IRC", "LIST")

_WHOX_FIELDS = "tcuihsnfdlaor"  # in the order of the answer
MAX_CONDITIONS = 20  # of one LIST


def parse_whox(text: str) -> Tuple[str, str]:
    """The fields, in the order of the answer, and the token of WHO's "%fields,token".

    ("", "") where it asks for no fields. A token has at most three digits, else there is none.
    """
    asked, _, token = text.partition("%")[2].partition(",")
    fields = "".join(field for field in _WHOX_FIELDS if field in asked)
    return fields, token if fields and re.match(r"[0-9]{1,3}\Z", token) else ""


def whox_params(fields: str, values: Mapping[str, str]) -> Tuple[str, ...]:
    """The parameters of 354 after the client's name: a value for each field, the realname last."""
    return tuple(values[field] if field == "r" else as_word(values[field]) for field in fields)


class ListFilter(NamedTuple):
    """What LIST asks for: any of the masks, none of the hidden, within every bound."""

    masks: Tuple[str, ...]
    hidden: Tuple[str, ...]
    bounds: Tuple[Tuple[str, str, int], ...]  # ("", ">", users) or ("C" or "T", "<", minutes)

    def accepts(self, name: str, users: int, created: float, topic_at: float, now: float) -> bool:
        """Whether a room is one of them; the times are seconds, `topic_at` 0 without a topic."""
        for what, sign, bound in self.bounds:
            if what == "T" and not topic_at:
                return False
            value = (now - (created if what == "C" else topic_at)) / 60 if what else users
            if not (value > bound if sign == ">" else value < bound):
                return False
        if any(matches(mask, name) for mask in self.hidden):
            return False
        return not self.masks or any(matches(mask, name) for mask in self.masks)


_BOUND = re.compile(r"([CT]?)([<>])([0-9]{1,9})\Z", re.IGNORECASE)


def parse_elist(text: str) -> Optional[ListFilter]:
    """The conditions in LIST's parameter, at most MAX_CONDITIONS; None where it has none.

    Names and masks (`#tea,*x*,!*x*`), users (`>4`, `<9`), minutes since a room was made
    (`C>60`) and since its topic was set (`T<5`), between commas.
    """
    items = [item for item in text.split(",") if item][:MAX_CONDITIONS]
    bounds = [match for match in map(_BOUND.match, items) if match]
    words = [item for item in items if not _BOUND.match(item)]
    masks = tuple(word for word in words if word[0] != "!")
    hidden = tuple(word[1:] for word in words if word[0] == "!")
    limits = tuple((match[1].upper(), match[2], int(match[3])) for match in bounds)
    return ListFilter(masks, hidden, limits) if items else None


# What people see

LOBBY = "#lobby"  # the room that stands for the whole chat, where the server names no other
ONLINE = "Online users ({}): {}"
NO_SUCH_USER = "No such user: {}"
NAME_TAKEN = "Username already taken: {}. Choose another."
OWNER_CAME = "{} has come back, and taken the name"
UNKNOWN_COMMAND = "Unknown command: {}. Type /help for the list."

# The kinds of line, which a window colours.
FROM_SERVER, FROM_ME, FROM_OTHERS, PRIVATE = "server", "own", "others", "private"


class Line(NamedTuple):
    """One line of a transcript. `str` gives it as everyone sees it, in local time."""

    kind: str
    when: float  # seconds since 1970
    head: str  # "[alice]:", or "* alice" for an action
    text: str

    @property
    def clock(self) -> str:
        """The time as "[17:10:42]", local to the reader."""
        return time.strftime("[%H:%M:%S]", time.localtime(self.when))

    def __str__(self) -> str:
        return "%s %s %s" % (self.clock, self.head, self.text)


def server_line(text: str, when: float) -> Line:
    """What the program itself says, as a line."""
    return Line(FROM_SERVER, when, "[%s]:" % SERVER, clean(text))


def online(names: List[str]) -> List[str]:
    """The answer to /list: as many texts as it takes, each short enough for a line."""
    ordered = sorted(names, key=casefold)
    first, *more = pack(ordered, ", ", 350) or [""]
    return [ONLINE.format(len(names), first), *more]


def pack(words: Iterable[str], separator: str, size: int) -> List[str]:
    """The words in texts of at most `size` bytes, none of them cut."""
    texts: List[str] = []
    for word in words:
        longer = texts[-1] + separator + word if texts else ""
        if longer and len(longer.encode("utf-8")) <= size:
            texts[-1] = longer
        else:
            texts.append(word)
    return texts


def describe(
    message: Message, me: str, when: float, lobby: str = LOBBY,
    modes: Mapping[str, str] = ROOM_MODES,
) -> Optional[Line]:  # fmt: skip
    """What `message` looks like to the person called `me`; None for what is not shown.

    `modes` are those of the server that it comes from.
    """
    if message.command in ("PRIVMSG", "NOTICE") and len(message.params) > 1:
        return _describe_text(message, me, when)
    is_mode = message.command == "MODE"
    text = _describe_modes(message, modes) if is_mode else _tell(message, me, lobby)
    return server_line(text, when) if text else None


def describe_in(message: Message, me: str, when: float, lobby: str) -> Optional[Line]:
    """`describe` for one who sees all rooms in one place: those beside the lobby are named."""
    line = describe(message, me, when, lobby)
    target = message.param(0)
    is_said = line is not None and line.kind in (FROM_ME, FROM_OTHERS)
    if line is None or not is_said or casefold(target) == casefold(lobby):
        return line
    room = clean_name(target, MAX_NAME)
    if line.head.endswith("]:"):
        return line._replace(head="%s in %s]:" % (line.head[:-2], room))
    return line._replace(text="%s (in %s)" % (line.text, room))


ACTION = "\x01ACTION "  # CTCP: PRIVMSG #lobby :\x01ACTION waves\x01 is "/me waves"


def _describe_text(message: Message, me: str, when: float) -> Optional[Line]:
    target, text = message.params[0], message.params[1]
    if "!" not in message.source:
        return server_line(text, when)
    action = text.startswith(ACTION)
    if action:
        text = text[len(ACTION) :].rstrip("\x01")
    elif text.startswith("\x01"):
        return None  # other CTCP: programs talking to programs
    who = clean_name(message.nickname, MAX_NAME)
    mine = casefold(message.nickname) == casefold(me)
    text = clean(text)
    if not target.startswith("#"):
        head = "[you -> %s]:" % clean_name(target, MAX_NAME) if mine else "[%s -> you]:" % who
        return Line(PRIVATE, when, head, "* %s %s" % (who, text) if action else text)
    kind = FROM_ME if mine else FROM_OTHERS
    return Line(kind, when, "* %s" % who if action else "[%s]:" % who, text)


# What events and numerics say: "{0}" is who did it, or whom a numeric is for, then come the
# parameters. Other events are not shown. Of other numerics, errors show their text, the rest
# all but their first parameter.
_FORMS: Dict[str, str] = {
    "JOIN": "{0} joined {1}",
    "JOIN lobby": "{0} joined the chat",
    "PART": "{0} left {1}",
    "QUIT": "{0} left the chat",
    "NICK": "{0} is now called {1}",
    "TOPIC": "{0} set the topic: {2}",
    "TOPIC none": "{0} cleared the topic",
    "KICK": "{2} was removed from {1} by {0}: {3}",
    "INVITE": "{0} invites you to {2}. Type /join {2}",
    "INVITE another": "{0} invited {1} to {2}",
    "KILL": "You were removed from the chat by {0}: {2}",
    "WALLOPS": "{0} to all operators: {1}",
    "REGISTER": "{text}",
    **dict.fromkeys(["ERROR", "FAIL", "WARN", "NOTE"], "{text}"),
    "001": "{1} Type /help for commands.",
    "271": "You ignore {1}",
    "301": "{1} is away: {2}",
    "305": "You are back.",
    "306": "You are away. Type /away to be back.",
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
    "405": "You are in as many rooms as you may. Type /leave in one of them first.",
    "406": "There was nobody called {1}",
    "421": UNKNOWN_COMMAND.replace("{}", "{1}"),
    "433": NAME_TAKEN.replace("{}", "{1}"),
    "441": "{1} is not in {2}",
    "442": "You are not in {1}. Type /join {1}",
    "443": "{1} is in {2} already",
    "465": "You may not come in: {text}",
    "471": "{1} is full. Try again later.",
    "473": "{1} is for those who are invited. Ask somebody there to invite you.",
    "474": "You are banned from {1}. Its operators can lift that.",
    "475": "{1} has a key. Type /join {1} KEY",
    "477": "{1} is for those who have an account. Type /register PASSWORD to make one.",
    "481": "Only operators may do that. If you are one: /login USERNAME PASSWORD",
    "482": "Only operators of {1} may do that.",
    "705": "{2}",
    "900": "You are logged in as {2}",
    "901": "You are logged out.",
    "905": "That password is too long.",
    "907": "You are logged in already.",
}
_SILENT = frozenset(  # for programs
    "002 003 004 005 042 219 221 250 251 252 253 254 255 265 266 272 276 302 303 312 315 318 321"
    " 323 324 329 333 337 338 347 349 352 353 354 365 366 368 369 374 375 376 378 379 396 422 670"
    " 671 704 706 730 731 732 733 734 903 906 908".split()
)
_DIGITS = re.compile(r"[0-9]{1,9}\Z")
# Words that people read otherwise than programs: which of them, and how.
_REWORDED: Dict[str, Tuple[int, Callable[[str], str]]] = {
    "271": (1, bare_mask),
    "317": (2, lambda text: format_duration(int(text) or 1) if _DIGITS.match(text) else text),
    "367": (2, bare_mask),
}


def _tell(message: Message, me: str, lobby: str) -> str:
    command, params = message.command, message.params
    if command in _SILENT:
        return ""
    form = _FORMS.get(command)
    if command == "JOIN" and casefold(message.param(0)) == casefold(lobby):
        form = _FORMS["JOIN lobby"]
    elif command == "TOPIC" and not message.text:
        form = _FORMS["TOPIC none"]
    elif command == "INVITE" and me and casefold(params[0] if params else me) != casefold(me):
        form = _FORMS["INVITE another"]
    is_numeric = command.isdigit()
    if form is None:
        shown = message.text if command >= "400" else " ".join(params[1:])
        return shown if is_numeric else ""
    words = [*(params if is_numeric else (message.nickname, *params)), *[""] * 6]
    if command in _REWORDED:
        index, reword = _REWORDED[command]
        words[index] = reword(words[index])
    shown = form.format(*words, text=message.text)
    return shown[:-2] if shown.endswith(": ") else shown  # nothing follows: no reason, no topic


_MODE_FORMS: Dict[str, str] = {
    "+o": "made {1} an operator of {0}",
    "-o": "made {1} an ordinary member of {0}",
    "+v": "gave {1} a voice in {0}",
    "-v": "took {1}'s voice in {0}",
    "+b": "banned {1} from {0}",
    "-b": "lifted the ban of {1} from {0}",
    "+k": "set a key to {0}",  # which one is for those who may know it
    "-k": "removed the key to {0}",
    "+l": "limited {0} to {1} people",
    "-l": "removed the limit of {0}",
    "+i": "closed {0} to those who are not invited",
    "-i": "opened {0} to those who are not invited",
    "+m": "let only operators and those with a voice write in {0}",
    "-m": "let everyone write in {0}",
    "+n": "closed {0} to messages from outside",
    "-n": "opened {0} to messages from outside",
    "+s": "hid {0} from those outside",
    "-s": "showed {0} to those outside",
    "+t": "let only operators set the topic of {0}",
    "-t": "let everyone in {0} set the topic",
}


def _describe_modes(message: Message, modes: Mapping[str, str]) -> str:
    """A room's modes in words; somebody's own modes are for programs."""
    if not message.text or not message.params[0].startswith("#"):
        return ""
    room, told = message.params[0], []
    for change in parse_modes(message.params[1:], modes, MAX_MESSAGE):
        mode = "-+"[change.adding] + change.letter
        form = _MODE_FORMS.get(mode, "set the mode {2} of {0}")
        told.append(form.format(room, bare_mask(change.arg), mode))
    return "%s %s" % (message.nickname, ", ".join(told)) if told else ""


# The chat box


class Input(NamedTuple):
    """What somebody typed: a verb of VERBS, or "say", and its arguments."""

    verb: str
    args: Tuple[str, ...]


class Verb(NamedTuple):
    """A row of the chat box's grammar: the words that follow ([optional]), a line of help.

    `wire` is the message that does it: its words in upper case stand for those of `args`, HERE
    for the room; those that were not given are left out. "" where it takes more than that.
    """

    args: str
    help: str
    wire: str = ""


VERBS: Dict[str, Verb] = {
    "msg": Verb("USERNAME MESSAGE", "the same as @USERNAME MESSAGE"),
    "reply": Verb("MESSAGE", "answer whoever wrote to you last"),
    "me": Verb("ACTION", "say what you are doing: /me waves"),
    "list": Verb("", "see who is online", "NAMES HERE"),
    "whois": Verb("USERNAME", "see who somebody is", "WHOIS USERNAME"),
    "history": Verb("[LINES]", "see what was said earlier", "CHATHISTORY LATEST HERE * LINES"),
    "rooms": Verb("", "see which rooms there are", "LIST"),
    "join": Verb("ROOM [KEY]", "enter a room, or make one", "JOIN ROOM KEY"),
    "leave": Verb("[REASON]", "leave the room", "PART HERE REASON"),
    "topic": Verb("[TOPIC]", "see what the room is about, or say it", "TOPIC HERE TOPIC"),
    "nick": Verb("USERNAME", "change your username", "NICK USERNAME"),
    "away": Verb("[REASON]", "be away; without a reason, be back", "AWAY REASON"),
    "ignore": Verb("[USERNAME]", "hear no more of somebody; alone, see whom", "SILENCE +USERNAME"),
    "unignore": Verb("USERNAME", "hear somebody again", "SILENCE -USERNAME"),
    "register": Verb("PASSWORD", "make your username yours alone", "REGISTER * * PASSWORD"),
    "login": Verb("USERNAME PASSWORD", "come in with a username that is yours"),
    "help": Verb("", "see this list"),
    "quit": Verb("[REASON]", "leave the chat", "QUIT REASON"),
    "kick": Verb("USERNAME [REASON]", "remove somebody from the room", "KICK HERE USERNAME REASON"),
    "ban": Verb(
        "TARGET [DURATION] [REASON]",
        "keep a username or an address out: /ban bob 2h noise",
        "BAN TARGET DURATION REASON",
    ),
    "mute": Verb(
        "TARGET [DURATION] [REASON]",
        "let somebody read, but not write",
        "MUTE TARGET DURATION REASON",
    ),
    "unban": Verb("TARGET", "lift a ban, or a mute", "UNBAN TARGET"),
    "bans": Verb("", "see who is banned or muted", "BANS"),
    "announce": Verb("MESSAGE", "tell everyone, in every room", "ANNOUNCE MESSAGE"),
    "stats": Verb("", "see how the server is doing", "STATS"),
}
FOR_OPERATORS = frozenset("kick ban mute unban bans announce stats".split())
SECRETS = frozenset(["register", "login"])  # never shown, never in the input's history

_UNNAMED = (  # what has no word of its own
    ("MESSAGE", "say it to everyone in the room"),
    ("@USERNAME MESSAGE", "say it to one person, privately"),
    ("//MESSAGE", "say a message that begins with a slash"),
)


def help_lines() -> Iterable[str]:
    """The answer to /help, made from the table."""
    for usage, text in _UNNAMED:
        yield "%s — %s" % (usage, text)
    for name, verb in VERBS.items():
        yield "%s — %s" % (("/%s %s" % (name, verb.args)).strip(), verb.help)
    yield "Only operators may use: %s" % ", ".join("/" + v for v in VERBS if v in FOR_OPERATORS)


def parse_input(text: str) -> Input:
    """What a line from the chat box means. Raises InputError with the words for its user."""
    if text.startswith("@"):
        return _parse_args("msg", text[1:], "@")
    if not text.startswith("/"):
        return Input("say", (text,))
    if text.startswith("//"):
        return Input("say", (text[1:],))
    name, _, rest = text[1:].partition(" ")
    if name.lower() not in VERBS:
        raise InputError(UNKNOWN_COMMAND.format("/" + name))
    return _parse_args(name.lower(), rest, "/%s " % name.lower())


def compose(typed: Input, room: str, source: str, correspondent: str = "") -> List[Message]:
    """The messages that carry out what was typed in `room`, each short enough for its line.

    `source` is what the server will put before them, `correspondent` is who wrote last. /help
    is not a message: it gives none.
    """
    verb, args = typed
    row = VERBS.get(verb, Verb("MESSAGE", ""))
    names = [name.strip("[]") for name in row.args.split()]
    if not room and (verb in ("say", "me") or " HERE" in row.wire):
        raise InputError(
            "You are in no room. Enter one with /join ROOM, or write to one person: "
            "@USERNAME MESSAGE"
        )
    if verb == "reply" and not correspondent:
        raise InputError("Nobody has written to you yet.")
    if "USERNAME" in names and args and verb != "nick" and not is_nickname(args[0]):
        raise InputError(NO_SUCH_USER.format(args[0]))
    if verb in SECRETS and len(args[-1].encode("utf-8")) > MAX_PASSWORD:
        raise InputError("A password has at most %d bytes." % MAX_PASSWORD)
    if verb in ("say", "msg", "reply"):
        target = {"say": room, "reply": correspondent}.get(verb, args[0])
        pieces = split_text(args[-1], source, "PRIVMSG", target)
        return [Message("PRIVMSG", (target, piece)) for piece in pieces]
    if verb == "me":
        action = fit(Message("PRIVMSG", (room, ACTION + args[0] + "\x01"), source))
        return [action._replace(source="")]
    if verb == "login":
        return [Message("AUTHENTICATE", (piece,)) for piece in ("PLAIN", *compose_plain(*args))]
    if not row.wire:
        return []
    values = dict(zip(names, _completed(typed)), HERE=room)
    command, *words = row.wire.split()
    params: List[str] = []
    for word in words:
        name = word.lstrip("+-")
        if name in values or name not in names:  # what is no name stands for itself
            params.append(word[: -len(name)] + values.get(name, name))
    return [fit(Message(command, tuple(params)))]


def _completed(typed: Input) -> Tuple[str, ...]:
    """The arguments as the server wants them: with what goes without saying."""
    verb, args = typed
    if verb == "history":
        count = args[0] if args else "50"
        if not count.isdecimal():
            raise InputError("Usage: /history %s" % VERBS[verb].args)
        return (count,)
    if verb == "join" and args[0][0] != "#":
        return ("#" + args[0], *args[1:])
    if verb in ("ban", "mute", "unban") and args[0][0] == ":":
        args = ("0" + args[0], *args[1:])  # ::1, where no colon may be first
    if verb in ("ban", "mute"):
        try:
            parse_duration("".join(args[1:2]))
        except ValueError:  # then it begins the reason
            return (args[0], "*", " ".join(args[1:])) if args[1:] else (args[0], "*")
    return args


def _parse_args(verb: str, rest: str, prefix: str) -> Input:
    wanted = VERBS[verb].args.split()
    args = rest.split(None, len(wanted) - 1) if wanted else []
    if prefix == "@" and args:
        args[0] = args[0].rstrip(":,")  # "@bob, hello" is what people write
        if rest[:1] == " ":
            args = []
    if len(args) < len([word for word in wanted if not word.startswith("[")]) or "" in args:
        raise InputError("Usage: %s%s" % (prefix, VERBS[verb].args))
    return Input(verb, tuple(args))
