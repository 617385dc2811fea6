"""The language: IRC lines, names, the chat box, and what people see."""

import time
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import protocol
from protocol import (
    FROM_ME,
    FROM_OTHERS,
    FROM_SERVER,
    HTTP,
    IRC,
    MAX_MESSAGE,
    MAX_NAME,
    MAX_TAGS,
    MAX_TYPED,
    PLAIN,
    PRIVATE,
    TLS,
    EncodingError,
    Framer,
    Input,
    InputError,
    Message,
    ProtocolError,
    TooLongError,
)

ALICE = "alice!alice@192.0.2.7"
NOON = time.mktime((2026, 11, 22, 12, 0, 0, 0, 0, -1))  # local, as people read it


# Lines

LINES = [  # each is the only spelling that `serialize` gives, and `parse` gives it back
    (b"QUIT", Message("QUIT")),
    (b"NICK alice", Message("NICK", ("alice",))),
    (b"NICK zo\xc3\xab", Message("NICK", ("zoë",))),
    (b"QUIT :gone fishing", Message("QUIT", ("gone fishing",))),
    (b"AWAY :", Message("AWAY", ("",))),
    (b"PRIVMSG #lobby :hi", Message("PRIVMSG", ("#lobby", "hi"))),
    (b"PRIVMSG #lobby ::-)", Message("PRIVMSG", ("#lobby", ":-)"))),
    (b"PRIVMSG #lobby :a :b", Message("PRIVMSG", ("#lobby", "a :b"))),
    (b"PRIVMSG #lobby : two  spaces ", Message("PRIVMSG", ("#lobby", " two  spaces "))),
    (b"USER alice 0 * :Alice", Message("USER", ("alice", "0", "*", "Alice"))),
    (b":srv 001 alice :Welcome", Message("001", ("alice", "Welcome"), "srv")),
    (b":a!b@c JOIN #lobby", Message("JOIN", ("#lobby",), "a!b@c")),
    (b"@a PING x", Message("PING", ("x",), tags={"a": ""})),
    (b"@a=1;+b=2 PING x", Message("PING", ("x",), tags={"a": "1", "+b": "2"})),
    (b"@+ex.org/k=v :s PING x", Message("PING", ("x",), "s", {"+ex.org/k": "v"})),
    (b"@k=a\\:b\\sc\\\\d\\re\\nf PING x", Message("PING", ("x",), tags={"k": "a;b c\\d\re\nf"})),
    (b"@k=\xe6\x9d\x8e PING x", Message("PING", ("x",), tags={"k": "李"})),
]

OTHER_SPELLINGS = [  # what else `parse` takes, as servers and clients in the wild write it
    (b"privmsg #lobby hi", Message("PRIVMSG", ("#lobby", "hi"))),
    (b"NICK :alice", Message("NICK", ("alice",))),
    (b"  NICK   alice  ", Message("NICK", ("alice",))),
    (b":srv  PING  :x", Message("PING", ("x",), "srv")),
    (b"@ PING x", Message("PING", ("x",))),
    (b"@a=;b PING x", Message("PING", ("x",), tags={"a": "", "b": ""})),
    (b"@a=1;;a=2 PING x", Message("PING", ("x",), tags={"a": "2"})),
    (b"@k=\\q\\ PING x", Message("PING", ("x",), tags={"k": "q"})),
    (b"PRIVMSG a b:c d", Message("PRIVMSG", ("a", "b:c", "d"))),
]


@pytest.mark.parametrize(("line", "message"), LINES)
def test_parse_and_serialize_are_inverses(line, message):
    """Each line is parsed to its message, and the message is serialized to that line."""
    assert protocol.parse(line) == message
    assert protocol.serialize(message) == line + b"\r\n"


@pytest.mark.parametrize(("line", "message"), OTHER_SPELLINGS)
def test_parse_takes_what_others_write(line, message):
    """A line that we would write otherwise still gives its message."""
    assert protocol.parse(line) == message


@pytest.mark.parametrize(
    "line",
    [b"", b" ", b":", b":srv", b"@a", b"@a ", b"P1NG x", b"12 x", b"1234 x", b"PI\0NG", b"A\rB"],
)
def test_what_is_no_message_is_the_peers_fault(line):
    """A line without a command, or with a character that no line may hold, is refused."""
    with pytest.raises(ProtocolError):
        protocol.parse(line)


@pytest.mark.parametrize("line", [b"PRIVMSG a :\xff", b"@k=\xff PING x", b"NICK \xc3"])
def test_a_line_that_is_not_utf8_has_an_error_of_its_own(line):
    """UTF8ONLY tells a line that is not UTF-8 from one that is no message."""
    with pytest.raises(EncodingError):
        protocol.parse(line)


@pytest.mark.parametrize(
    "message",
    [
        Message("PRIVMSG", ("#lobby", "hi\r\nQUIT")),
        Message("PRIVMSG", ("#lobby", "hi\rQUIT")),
        Message("PRIVMSG", ("#lobby", "hi\nQUIT")),
        Message("PRIVMSG", ("#lobby", "hi\0")),
        Message("PRIVMSG", ("#lob\nby", "hi")),
        Message("PRIVMSG", ("#lob by", "hi")),
        Message("PRIVMSG", (":lobby", "hi")),
        Message("PRIVMSG", ("", "hi")),
        Message("PRIVMSG\n", ("#lobby", "hi")),
        Message("PRIV MSG", ("#lobby", "hi")),
        Message("", ("hi",)),
        Message("PING", ("x",), "a b"),
        Message("PING", ("x",), "a\nb"),
        Message("PING", ("\ud800",)),
        Message("PING", ("x",), tags={"a b": ""}),
        Message("PING", ("x",), tags={"": "1"}),
        Message("PING", ("x",), tags={"a\n": "1"}),
        Message("PING", ("x",), tags={"a": "\0"}),
        Message("PING", ("x",), tags={"a": "\ud800"}),
    ],
)
def test_serialize_refuses_what_a_line_cannot_carry(message):
    """Nobody's text becomes a second command, another parameter or another tag."""
    with pytest.raises(ValueError):
        protocol.serialize(message)


def succeeds(function, *args):
    """Whether the call is not refused as too long."""
    try:
        function(*args)
    except (TooLongError, ValueError):
        return False
    return True


@pytest.mark.parametrize(("over", "fits"), [(-1, True), (0, True), (1, False)])
def test_a_message_has_512_bytes_with_its_end(over, fits):
    """Both directions hold the limit of RFC 1459 to the byte."""
    text = "x" * (MAX_MESSAGE - len("PRIVMSG #lobby :\r\n") + over)
    assert succeeds(protocol.serialize, Message("PRIVMSG", ("#lobby", text))) is fits
    assert succeeds(protocol.parse, b"PRIVMSG #lobby :" + text.encode()) is fits


@pytest.mark.parametrize(("over", "fits"), [(-1, True), (0, True), (1, False)])
def test_tags_have_8191_bytes_beside_the_message(over, fits):
    """The @ and the space count, the message does not."""
    value = "x" * (MAX_TAGS - len("@k= ") + over)
    text = "x" * (MAX_MESSAGE - len("PING \r\n"))
    assert succeeds(protocol.serialize, Message("PING", (text,), tags={"k": value})) is fits
    assert succeeds(protocol.parse, ("@k=%s PING %s" % (value, text)).encode()) is fits


def test_too_long_has_an_error_of_its_own():
    """A line that is too long is answered with 417, and so is told from one that is wrong."""
    with pytest.raises(TooLongError):
        protocol.parse(b"PING :" + b"x" * MAX_MESSAGE)


@pytest.mark.parametrize("letter", ["x", "é", "李", "👋"])
def test_fit_cuts_the_longest_parameter_between_two_characters(letter):
    """As much stays as the line can carry, and no character is halved."""
    message = Message("PRIVMSG", ("#lobby", letter * 600), ALICE)
    fitted = protocol.fit(message)
    assert letter * len(fitted.text) == fitted.text
    assert fitted.params[0] == "#lobby"
    assert 0 <= MAX_MESSAGE - len(protocol.serialize(fitted)) < len(letter.encode())


def test_fit_leaves_alone_what_fits():
    """A message of just the size that a line has is not touched."""
    message = Message("PING", ("x" * (MAX_MESSAGE - len("PING \r\n")),))
    assert protocol.fit(message) is message


@pytest.mark.parametrize(
    "text",
    ["", "hi", "word " * 500, "x" * 2000, "é" * 2000, "👋" * 1000, "x" * 700 + " y", " " * 1000],
)
def test_split_text_loses_nothing_and_each_piece_fits(text):
    """The pieces rejoin to the text, and each fits a line with the source before it."""
    pieces = protocol.split_text(text, ALICE, "PRIVMSG", "#lobby")
    assert "".join(pieces) == text
    for piece in pieces:
        protocol.serialize(Message("PRIVMSG", ("#lobby", piece), ALICE))


def test_split_text_cuts_between_words():
    """A long message is not broken inside a word where it has spaces."""
    pieces = protocol.split_text("word " * 500, ALICE, "PRIVMSG", "#lobby")
    assert len(pieces) > 1
    assert all(piece.endswith("word ") for piece in pieces)


WORDS = st.text(
    st.characters(exclude_characters="\r\n\0 ", exclude_categories=["Cs"]), min_size=1, max_size=20
).filter(lambda word: word[0] != ":")
TEXTS = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), max_size=60)
TAG_VALUES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
MESSAGES = st.builds(
    lambda command, middles, last, source, tags: Message(command, (*middles, *last), source, tags),
    st.from_regex(r"[A-Z]{1,12}|[0-9]{3}", fullmatch=True),
    st.lists(WORDS, max_size=3),
    st.lists(TEXTS, max_size=1),
    st.just("") | WORDS,
    st.dictionaries(
        st.from_regex(r"\+?([A-Za-z0-9.-]{1,8}/)?[A-Za-z0-9-]{1,8}", fullmatch=True),
        TAG_VALUES,
        max_size=3,
    ),
)


@given(MESSAGES)
def test_whatever_serialize_gives_parse_gives_back(message):
    """parse(serialize(message)) is the message."""
    assert protocol.parse(protocol.serialize(message)[:-2]) == message


@given(st.binary(max_size=80) | TEXTS.map(str.encode))
@example(b"\x00")
@example(b": :")
def test_parse_raises_nothing_but_protocol_errors(line):
    """No peer can make a reader's thread fail."""
    try:
        message = protocol.parse(line)
    except ProtocolError:
        return
    assert message.command


# Streams

STREAM = b"".join(line + b"\r\n" for line, _ in LINES)


@pytest.mark.parametrize("size", [1, 2, 3, 7, len(STREAM)])
def test_lines_come_out_whole_however_they_come_in(size):
    """A stream in pieces of any size gives the lines that were sent."""
    framer = Framer(MAX_MESSAGE)
    lines = []
    for start in range(0, len(STREAM), size):
        lines += framer.feed(STREAM[start : start + size])
    assert lines == [line for line, _ in LINES]
    assert framer.pending == b""


def test_a_stream_may_be_cut_at_every_byte():
    """Wherever a stream is cut in two, the lines are the same."""
    for cut in range(len(STREAM) + 1):
        framer = Framer(MAX_MESSAGE)
        assert framer.feed(STREAM[:cut]) + framer.feed(STREAM[cut:]) == [line for line, _ in LINES]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("limit", [10, MAX_TYPED])
@pytest.mark.parametrize(("over", "fits"), [(-1, True), (0, True), (1, False)])
def test_a_line_has_the_length_that_its_framer_allows(end, limit, over, fits):
    """One byte too many makes None of a line, whole or byte by byte; the next is not harmed."""
    line = b"x" * (limit + over)
    wanted = [line if fits else None, b"next"]
    assert Framer(limit).feed(line + end + b"next" + end) == wanted
    framer = Framer(limit)
    assert [got for byte in line + end + b"next" + end for got in framer.feed(bytes([byte]))] == (
        wanted
    )


def test_an_endless_line_is_not_kept():
    """A peer that sends no newline costs no more memory than a line."""
    framer = Framer(100)
    for _ in range(1000):
        assert framer.feed(b"x" * 50) == []
        assert len(framer.pending) <= 101
    assert framer.feed(b"\nhello\n") == [None, b"hello"]


@given(
    st.lists(st.binary(max_size=12), max_size=8).map(b"\n".join),
    st.lists(st.integers(0, 80), max_size=8),
)
def test_framing_does_not_depend_on_how_the_stream_is_cut(stream, cuts):
    """Pieces give the lines that the whole gives, those that are too long among them."""
    whole = Framer(6)
    lines = whole.feed(stream)
    framer, pieces, start = Framer(6), [], 0
    for cut in [*sorted(cuts), len(stream)]:
        pieces += framer.feed(stream[start:cut])
        start = max(start, cut)
    assert pieces == lines
    assert framer.pending == whole.pending


# Dialects


@pytest.mark.parametrize(
    ("data", "dialect"),
    [
        (b"", None),
        (b"N", None),
        (b"NICK alice", None),
        (b"NICK alice\n", IRC),
        (b"nick alice\r\n", IRC),
        (b"CAP LS 302\r\n", IRC),
        (b"PASS secret\r\n", IRC),
        (b"PASS caf\xe9\r\n", IRC),
        (b"NICK \xff\r\n", IRC),
        (b"USER a 0 * :A\r\nNICK a\r\n", IRC),
        (b"AUTHENTICATE PLAIN\r\n", IRC),
        (b"QUIT\r\n", IRC),
        (b"QUIT :bye now\r\n", IRC),
        (b"alice\r\n", PLAIN),
        (b"\r\n", PLAIN),
        (b"Nick\r\n", PLAIN),
        (b"NICK\r\n", PLAIN),
        (b"hello NICK alice\r\n", PLAIN),
        (b"\xff\xfb\x01alice\r\n", PLAIN),
        (b"\xe9\r\n", PLAIN),
        (b"x" * MAX_TYPED, None),
        (b"x" * (MAX_TYPED + 1), PLAIN),
        (b"\x16", TLS),
        (b"\x16\x03\x01\x02\x00\x01", TLS),
        (b"GET / HTTP/1.1\r\n", HTTP),
        (b"POST /\r\nNICK evil\r\n", HTTP),
        (b"PRI * HTTP/2.0\r\n", HTTP),
        (b"OPTIONS ", HTTP),
    ],
)
def test_the_first_bytes_tell_the_dialect(data, dialect):
    """A name that looks like a command is a name; a browser is known before its headers."""
    assert protocol.sniff(data) == dialect


@given(st.binary(max_size=60))
def test_what_a_dialect_is_does_not_change_with_what_follows(data):
    """Once the first bytes have told, more of them tell the same."""
    told = [protocol.sniff(data[:size]) for size in range(len(data) + 1)]
    assert len({dialect for dialect in told if dialect}) <= 1


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"hello", "hello"),
        (b"  hello \t", "hello"),
        (b"\xff\xfd\x03\xff\xfb\x18alice", "alice"),
        (b"al\xff\xfa\x18\x00xterm\xff\xf0ice", "alice"),
        (b"\xff\xf1alice\xff", "alice"),
        (b"\xff\xfa\x18never ends", ""),
        (b"caf\xe9", "caf\ufffd"),
        (b"caf\xc3\xa9", "café"),
        (b"a\tb\0c", "a bc"),
        (b"\x1b[31mred", "[31mred"),
    ],
)
def test_a_typed_line_has_no_telnet_and_nothing_that_acts(line, text):
    """Telnet's commands are dropped, what is not UTF-8 is replaced, controls do not pass."""
    assert protocol.typed(line) == text


# Names


@pytest.mark.parametrize(
    "name",
    [
        "alice",
        "a",
        "zoë",
        "zoe\u0308",
        "李",
        "李明bob",
        "さくらサクラ",
        "Ωmega"[0] + "λφα",
        "Иван",
        "علي",
        "नमन",
        "_x",
        "[a]",
        "a-b_c",
        "a1",
        "{}`^|\\",
        "x" * (MAX_NAME - 1),
        "x" * MAX_NAME,
        "serve",
        "servers",
    ],
)
def test_people_may_be_called_by_their_names(name):
    """A nickname is made of letters of any one alphabet, digits and a few signs."""
    assert protocol.nickname_fault(protocol.normalize(name)) == ""
    assert protocol.is_nickname(protocol.normalize(name))


@pytest.mark.parametrize(
    "name",
    [
        "",
        "x" * (MAX_NAME + 1),
        "1abc",
        "#abc",
        "&abc",
        "@abc",
        ":abc",
        "+abc",
        "~abc",
        "%abc",
        "-abc",
        "a b",
        "a,b",
        "a:b",
        "a!b",
        "a@b",
        "a*b",
        "a?b",
        "a.b",
        "a\nb",
        "a\0b",
        "a\x1bb",
        "SERVER",
        "server",
        "Server",
        "ＳＥＲＶＥＲ",
        "ᏚᎬᏒᏙᎬᏒ",
        "you",
        "System",
        "\u0430lice",  # Cyrillic a
        "al\u03b9ce",  # Greek iota
        "a\u202eb",
        "a\u2066b",
        "a\u200bb",
        "a\u200db",
        "a\u2060b",
        "a\ufeffb",
        "a\u00adb",
        "a\u034fb",
        "\u3164",
        "a\u3164",
        "\u0301a",
        "a" + "\u0316" * 4,
        "a\ud800",
        "😀",
    ],
)
def test_a_name_that_could_deceive_or_break_a_line_is_refused(name):
    """No prefix, no space, no invisible character, no second alphabet, nobody called SERVER."""
    assert protocol.nickname_fault(name)
    assert not protocol.is_nickname(name)


@pytest.mark.parametrize("name", ["#a", "#lobby", "#李", "#1", "##x", "#" + "x" * (MAX_NAME - 1)])
def test_a_room_may_be_called_by_any_word(name):
    """A room's name is # and what may be a word."""
    assert protocol.room_fault(name) == ""
    assert protocol.is_room(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "#",
        "lobby",
        "&lobby",
        "#a b",
        "#a,b",
        "#a:b",
        "#a\x07b",
        "#a\nb",
        "#a\u200bb",
        "#a\u202eb",
        "#\u0301a",
        "#\u3164",
        "#l\u043ebby",  # Cyrillic o
        "#" + "x" * MAX_NAME,
    ],
)
def test_a_rooms_name_that_could_deceive_or_break_a_line_is_refused(name):
    """The rules of nicknames hold for rooms where they can."""
    assert protocol.room_fault(name)
    assert not protocol.is_room(name)


@pytest.mark.parametrize("other", ["Alice", "ALICE", "ａｌｉｃｅ", "Ａｌｉｃｅ"])
def test_names_that_look_alike_are_one_name(other):
    """Case and width do not tell two names apart."""
    assert protocol.casefold(other) == protocol.casefold("alice")


@given(st.text(max_size=8))
def test_casefold_is_idempotent(name):
    """Folding a folded name changes nothing."""
    folded = protocol.casefold(name)
    assert protocol.casefold(folded) == folded


@given(st.text(max_size=MAX_NAME + 1) | st.text("aé1-_ :@\u0301\u200b\u202e", max_size=8))
def test_whoever_has_a_name_can_be_written_to(name):
    """What is a nickname can stand in a message's middle, alone in a list, before a "!"."""
    if not protocol.is_nickname(name):
        return
    protocol.serialize(Message("PRIVMSG", (name, "hi"), name + "!u@h"))
    assert not set(name) & set(" ,!@:#*?")
    assert protocol.clean(name) == protocol.normalize(name)


# Text


def is_safe(text):
    """Whether text is one line in which nothing is invisible or acts on what is around it."""
    return all(
        unicodedata.category(char) not in ("Cc", "Zl", "Zp", "Cs")
        and unicodedata.bidirectional(char) not in BIDI_CONTROLS
        for char in text
    )


BIDI_CONTROLS = {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"}
NASTY = st.text(
    st.sampled_from("aé e\u0301\u0327\u0316\u1100\u1161\u200b\u200d\u202e\u2066\ufeff\x1b[3m"),
    max_size=20,
) | st.text(max_size=40)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("hello", "hello"),
        ("a\tb\nc\r\nd\u2028e", "a b c  d e"),
        ("\x1b[2J\x1b]0;x\x07", "[2J]0;x"),
        ("\x02bold\x02 \x0304,01red\x03 \x04ff0000hex\x0f", "bold red hex"),
        ("a\u202eb\u2066c\u200bd\ufeffe\u00adf", "abcdef"),
        ("👩\u200d💻", "👩\u200d💻"),
        ("\ud83d\udc4b", "👋"),
        ("a\ud800b", "a\ufffdb"),
        ("a\uffffb\ufdd0", "ab"),
        ("e\u0301", "é"),
        ("Z" + "\u0316" * 9, "Z" + "\u0316" * 3),
        ("\x9b31m", "31m"),
    ],
)
def test_clean_drops_what_acts_and_keeps_what_is_read(text, cleaned):
    """Controls, escapes, colours and bidi go; letters, accents and emoji stay."""
    assert protocol.clean(text) == cleaned


def test_nothing_is_joined_in_a_name():
    """What no reader sees would make two names of one."""
    assert protocol.clean_name("bo\u200db") == "bob"
    assert protocol.clean_name("e\u200d\u0301") == "é"


@pytest.mark.parametrize("letter", ["x", "é", "李", "👋"])
@pytest.mark.parametrize(("size", "shown"), [(9, 9), (10, 10), (11, 10)])
def test_clean_shows_that_it_cut(letter, size, shown):
    """What is longer than the limit ends with an ellipsis, within the limit."""
    text = protocol.clean(letter * size, 10)
    assert len(text) == shown
    assert text.endswith("…") is (size > 10)


@given(NASTY, st.integers(1, 50))
def test_clean_text_is_one_safe_line_within_its_limit(text, limit):
    """Whatever goes in, what comes out is harmless."""
    cleaned = protocol.clean(text, limit)
    assert is_safe(cleaned)
    assert len(cleaned) <= limit


@given(NASTY, st.integers(1, 50))
@example("a\u200b\u0301", 50)
def test_clean_is_idempotent(text, limit):
    """Clean text is not changed by cleaning: two programs show the same."""
    cleaned = protocol.clean(text, limit)
    assert protocol.clean(cleaned, limit) == cleaned


# Time


@pytest.mark.parametrize(
    ("when", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1795367442.125, "2026-11-22T17:10:42.125Z"),
        (1795367442.9996, "2026-11-22T17:10:42.999Z"),
    ],
)
def test_a_time_is_written_as_server_time_says(when, text):
    """UTC, with thousandths, and read back to the same thousandth."""
    assert protocol.format_time(when) == text
    assert protocol.parse_time(text) == pytest.approx(when, abs=0.001)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "17:10:42",
        "2026-11-22",
        "2026-11-22T17:10:42.1e9Z",
        "2026-13-22T17:10:42.000Z",
        "2026-11-22T17:10:42.xZ",
    ],
)
def test_what_is_not_server_time_is_refused(text):
    """A time that a peer made up is an error, never another time."""
    with pytest.raises(ValueError):
        protocol.parse_time(text)


# What people see


def line(text, source="", target="#lobby", command="PRIVMSG"):
    return Message(command, (target, text), source)


@pytest.mark.parametrize(
    ("message", "kind", "seen"),
    [
        (line("Hello everyone!", ALICE), FROM_OTHERS, "[alice]: Hello everyone!"),
        (line("Hello!", "bob!b@h"), FROM_ME, "[bob]: Hello!"),
        (line("Hello Bob!", ALICE, "bob"), PRIVATE, "[alice -> you]: Hello Bob!"),
        (line("Hello Alice!", "bob!b@h", "alice"), PRIVATE, "[you -> alice]: Hello Alice!"),
        (line("\x01ACTION waves\x01", ALICE), FROM_OTHERS, "* alice waves"),
        (line("\x01ACTION waves\x01", ALICE, "bob"), PRIVATE, "[alice -> you]: * alice waves"),
        (line("\x1b[2J\u202eevil", ALICE), FROM_OTHERS, "[alice]: [2Jevil"),
        (Message("JOIN", ("#lobby",), "bob!b@h"), FROM_SERVER, "[SERVER]: bob joined the chat"),
        (Message("QUIT", ("x",), "bob!b@h"), FROM_SERVER, "[SERVER]: bob left the chat"),
        (Message("PART", ("#lobby",), "bob!b@h"), FROM_SERVER, "[SERVER]: bob left #lobby"),
        (Message("NICK", ("al",), ALICE), FROM_SERVER, "[SERVER]: alice is now called al"),
        (line("tea", ALICE, "#lobby", "TOPIC"), FROM_SERVER, "[SERVER]: alice set the topic: tea"),
        (line("", ALICE, "#lobby", "TOPIC"), FROM_SERVER, "[SERVER]: alice cleared the topic"),
        (
            line(protocol.online(["carol", "alice", "bob"])[0], "srv", "bob", "NOTICE"),
            FROM_SERVER,
            "[SERVER]: Online users (3): alice, bob, carol",
        ),
        (
            Message("401", ("bob", "dave", "No such nick"), "srv"),
            FROM_SERVER,
            "[SERVER]: No such user: dave",
        ),
        (
            Message("433", ("*", "alice", "Nickname is already in use"), "srv"),
            FROM_SERVER,
            "[SERVER]: Username already taken: alice. Choose another.",
        ),
        (
            Message("421", ("bob", "/foo", "Unknown command"), "srv"),
            FROM_SERVER,
            "[SERVER]: Unknown command: /foo. Type /help for the list.",
        ),
        (Message("ERROR", ("Goodbye.",)), FROM_SERVER, "[SERVER]: Goodbye."),
        (
            Message("404", ("bob", "#x", "You are not in"), "s"),
            FROM_SERVER,
            "[SERVER]: You are not in",
        ),
    ],
)
def test_bob_sees(message, kind, seen):
    """What a message looks like to bob, to the letter."""
    shown = protocol.describe(message, "bob", NOON)
    assert shown.kind == kind
    assert str(shown) == "[12:00:00] " + seen


@pytest.mark.parametrize(
    "message",
    [
        line("\x01VERSION\x01", ALICE),
        Message("PING", ("x",)),
        Message("PONG", ("x",), "srv"),
        Message("366", ("bob", "#lobby", "End of /NAMES list"), "srv"),
        Message("PRIVMSG", ("#lobby",), ALICE),
        Message("CAP", ("*", "LS", "x"), "srv"),
    ],
)
def test_what_only_programs_say_to_each_other_is_not_shown(message):
    """People are not shown what is not for them."""
    assert protocol.describe(message, "bob", NOON) is None


@given(
    st.sampled_from(
        "PRIVMSG NOTICE JOIN PART QUIT NICK TOPIC ERROR FAIL 001 332 401 421 433 499 X".split()
    ),
    st.lists(st.text(max_size=20) | NASTY, max_size=4).map(tuple),
    st.text(max_size=20) | NASTY,
)
@example("PRIVMSG", ("bob", "{0}\x01ACTION \x1b"), "a!b@c")
@example("401", ("{0}", "{x}"), "{}")
def test_whatever_comes_can_be_shown(command, params, source):
    """Describe never fails, and never gives more than one line, or anything that acts."""
    shown = protocol.describe(Message(command, params, source), "bob", NOON)
    assert shown is None or is_safe(str(shown))


def test_times_are_local_to_the_reader():
    """A line's clock says what the reader's own clock said."""
    assert protocol.server_line("x", NOON + 17).clock == "[12:00:17]"


# The chat box

USAGE_MSG = "Usage: /msg USERNAME MESSAGE"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Hello everyone!", Input("say", ("Hello everyone!",))),
        ("  two  spaces ", Input("say", ("  two  spaces ",))),
        ("//list is a command", Input("say", ("/list is a command",))),
        ("mail@example.org", Input("say", ("mail@example.org",))),
        ("@bob Hello Bob!", Input("msg", ("bob", "Hello Bob!"))),
        ("@bob: Hello", Input("msg", ("bob", "Hello"))),
        ("@bob, @carol hi", Input("msg", ("bob", "@carol hi"))),
        ("@李 hi", Input("msg", ("李", "hi"))),
        ("/msg bob Hello  Bob", Input("msg", ("bob", "Hello  Bob"))),
        ("/MSG bob hi", Input("msg", ("bob", "hi"))),
        ("/me waves twice", Input("me", ("waves twice",))),
        ("/nick al", Input("nick", ("al",))),
        ("/list", Input("list", ())),
        ("/list ", Input("list", ())),
        ("/help", Input("help", ())),
        ("/quit", Input("quit", ())),
        ("/quit see you", Input("quit", ("see you",))),
        ("/foo", "Unknown command: /foo. Type /help for the list."),
        ("/foo bar", "Unknown command: /foo. Type /help for the list."),
        ("/", "Unknown command: /. Type /help for the list."),
        ("@", "Usage: @USERNAME MESSAGE"),
        ("@bob", "Usage: @USERNAME MESSAGE"),
        ("@bob ", "Usage: @USERNAME MESSAGE"),
        ("@ bob hi", "Usage: @USERNAME MESSAGE"),
        ("@: hi", "Usage: @USERNAME MESSAGE"),
        ("/msg", USAGE_MSG),
        ("/msg bob", USAGE_MSG),
        ("/me", "Usage: /me ACTION"),
        ("/nick", "Usage: /nick USERNAME"),
    ],
)
def test_the_chat_box_understands(text, wanted):
    """A line of the chat box is an input, or refused with the words that help."""
    if isinstance(wanted, Input):
        assert protocol.parse_input(text) == wanted
    else:
        with pytest.raises(InputError) as refusal:
            protocol.parse_input(text)
        assert str(refusal.value) == wanted


@given(st.text(max_size=30) | st.from_regex(r"[/@][a-z/@:]{0,5}\s?.*", fullmatch=True))
def test_the_chat_box_raises_nothing_but_its_own_error(text):
    """Whatever somebody types is understood, or refused with words."""
    try:
        typed = protocol.parse_input(text)
    except InputError as refusal:
        assert str(refusal)
    else:
        assert typed.verb == "say" or typed.verb in protocol.VERBS


@given(NASTY.map(protocol.clean).map(str.strip), st.sampled_from(["", "/me ", "@bob ", "/quit "]))
def test_what_is_typed_can_be_sent(text, prefix):
    """Every input becomes messages that a line can carry."""
    try:
        messages = protocol.compose(protocol.parse_input(prefix + text), "#lobby", ALICE)
    except InputError:
        return
    for message in messages:
        protocol.serialize(protocol.fit(message._replace(source=ALICE)))


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("hi", [Message("PRIVMSG", ("#lobby", "hi"))]),
        ("@bob hi", [Message("PRIVMSG", ("bob", "hi"))]),
        ("/me waves", [Message("PRIVMSG", ("#lobby", "\x01ACTION waves\x01"))]),
        ("/nick al", [Message("NICK", ("al",))]),
        ("/list", [Message("NAMES", ("#lobby",))]),
        ("/quit", [Message("QUIT")]),
        ("/quit bye", [Message("QUIT", ("bye",))]),
        ("/help", []),
    ],
)
def test_an_input_becomes_messages(text, messages):
    """Compose gives what carries out an input."""
    assert protocol.compose(protocol.parse_input(text), "#lobby", ALICE) == messages


def test_a_long_action_is_cut_and_stays_an_action():
    """What somebody is doing keeps its end mark however long it is."""
    (message,) = protocol.compose(Input("me", ("é" * 600,)), "#lobby", ALICE)
    assert message.text.startswith("\x01ACTION é")
    assert message.text.endswith("\x01")
    protocol.serialize(message._replace(source=ALICE))


@pytest.mark.parametrize(
    ("text", "room"), [("hi", ""), ("/me waves", ""), ("/list", ""), ("@#lobby hi", "#lobby")]
)
def test_what_has_no_recipient_is_refused(text, room):
    """Without a room there is nobody to hear; a room is not a person."""
    with pytest.raises(InputError):
        protocol.compose(protocol.parse_input(text), room, ALICE)


def test_help_is_made_from_the_table():
    """Every verb has its line, with its arguments and its words."""
    lines = list(protocol.help_lines())
    for name, verb in protocol.VERBS.items():
        usage = ("/%s %s" % (name, verb.args)).strip()
        assert any(x == "%s — %s" % (usage, verb.help) for x in lines)
    assert lines[1].startswith("@USERNAME MESSAGE ")


@pytest.mark.parametrize(
    "name",
    ["SERVER]", "[SERVER]", "SERVER_", "SERVER\u0332", "[you]", "a\ufe70", "\ufdfa", "alice\u1161",
     "alice\u2d7f", "alice\u1039", "alice\u115f"],
)  # fmt: skip
def test_a_name_that_would_pass_for_another_is_refused(name):
    """Ours in brackets, what is invisible, and what folds into two words."""
    assert protocol.nickname_fault(name)
    assert not protocol.is_nickname(name)


@pytest.mark.parametrize("name", ["#lobby\u2800", "#x\ufe70", "#lobby\u3164"])
def test_a_room_that_would_pass_for_another_is_refused(name):
    """The same for rooms."""
    assert not protocol.is_room(name)


@pytest.mark.parametrize(
    "name", ["zoë", "李", "한글", "ㅋㅋ", "さくら", "李Ann", "Ünal", "नीता", "مريم", "ไทย"]
)
def test_people_may_write_their_names_in_their_own_letters(name):
    """Marks and letters of one alphabet, whichever it is."""
    assert protocol.is_nickname(name), protocol.nickname_fault(name)
