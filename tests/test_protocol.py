"""protocol.py: messages, names, text, time, ISUPPORT, passwords, channel modes and masks."""

import tracemalloc
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import client
import protocol
from protocol import (
    MAX_MASK,
    MAX_MESSAGE,
    MAX_MIDDLE,
    MAX_NAME,
    MAX_TAGS,
    EncodingError,
    Framer,
    Message,
    ProtocolError,
    TooLongError,
)

ALICE = "alice!alice@192.0.2.7"
AT_LIMIT = [(-1, True), (0, True), (1, False)]  # size relative to a limit, is it accepted


def is_accepted(function, *args):
    try:
        function(*args)
    except ValueError:  # or ProtocolError, its subclass
        return False
    return True


# Messages
# --------

LINES = [  # the spelling that `serialize` gives, and its message
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
STREAM = b"".join(line + b"\r\n" for line, _ in LINES)

OTHER_SPELLINGS = [  # accepted from other programs, never sent
    (b"privmsg #lobby hi", Message("PRIVMSG", ("#lobby", "hi"))),
    (b"NICK :alice", Message("NICK", ("alice",))),
    (b"  NICK   alice  ", Message("NICK", ("alice",))),
    (b":srv  PING  :x", Message("PING", ("x",), "srv")),
    (b"@ PING x", Message("PING", ("x",))),
    (b"@a=;b PING x", Message("PING", ("x",), tags={"a": "", "b": ""})),
    (b"@a=1;;a=2 PING x", Message("PING", ("x",), tags={"a": "2"})),
    (b"@k=\\q\\ PING x", Message("PING", ("x",), tags={"k": "q"})),
    (b"PRIVMSG a b:c d", Message("PRIVMSG", ("a", "b:c", "d"))),
    (b"\xef\xbb\xbfNICK alice", Message("NICK", ("alice",))),
    (b"no_such_command x", Message("NO_SUCH_COMMAND", ("x",))),
]


@pytest.mark.parametrize(("line", "message"), LINES)
def test_parse_and_serialize_are_inverses(line, message):
    assert protocol.parse(line) == message
    assert protocol.serialize(message) == line + b"\r\n"


@pytest.mark.parametrize(("line", "message"), OTHER_SPELLINGS)
def test_parse_accepts_other_spellings(line, message):
    assert protocol.parse(line) == message


@pytest.mark.parametrize(
    ("line", "error"),
    [(line, ProtocolError) for line in (b"", b" ", b":", b":srv", b"@a", b"@a ", b"P1NG x")]
    + [(line, ProtocolError) for line in (b"12 x", b"1234 x", b"PI\0NG")]
    + [(b"PING a%sb" % end, ProtocolError) for end in (b"\0", b"\r", b"\n")]
    + [(line, EncodingError) for line in (b"PRIVMSG a :\xff", b"@k=\xff PING x", b"NICK \xc3")]
    + [(b"PING :" + b"x" * MAX_MESSAGE, TooLongError), (b"@" + b"k" * MAX_TAGS, TooLongError)],
)
def test_parse_names_the_fault_of_an_invalid_line(line, error):
    with pytest.raises(ProtocolError) as refusal:
        protocol.parse(line)
    assert type(refusal.value) is error


@pytest.mark.parametrize(
    "message",
    [
        *(Message("PRIVMSG", ("#lobby", "hi%sQUIT" % end)) for end in ("\r\n", "\r", "\n", "\0")),
        *(Message("PRIVMSG", (middle, "hi")) for middle in ("#lob\nby", "#lob by", ":lobby", "")),
        *(Message(command, ("#lobby", "hi")) for command in ("PRIVMSG\n", "PRIV MSG", "")),
        *(Message("PING", ("x",), source) for source in ("a b", "a\nb")),
        *(Message("PING", ("x",), tags={key: "1"}) for key in ("a b", "", "a\n")),
        *(Message("PING", ("x",), tags={"a": value}) for value in ("\0", "\ud800")),
        Message("PING", ("\ud800",)),
    ],
)
def test_serialize_refuses_what_a_line_cannot_carry(message):
    """No text can become a second command, another parameter or another tag."""
    with pytest.raises(ValueError):
        protocol.serialize(message)


@pytest.mark.parametrize(("over", "fits"), AT_LIMIT)
def test_message_has_at_most_512_bytes(over, fits):
    text = "x" * (512 - len("PRIVMSG #lobby :\r\n") + over)
    assert is_accepted(protocol.serialize, Message("PRIVMSG", ("#lobby", text))) is fits
    assert is_accepted(protocol.parse, b"PRIVMSG #lobby :" + text.encode()) is fits


@pytest.mark.parametrize(("over", "fits"), AT_LIMIT)
def test_tags_have_at_most_8191_bytes_beside_the_message(over, fits):
    """The @ and the space count, the message does not."""
    value = "x" * (8191 - len("@k= ") + over)
    text = "x" * (MAX_MESSAGE - len("PING \r\n"))
    assert is_accepted(protocol.serialize, Message("PING", (text,), tags={"k": value})) is fits
    assert is_accepted(protocol.parse, ("@k=%s PING %s" % (value, text)).encode()) is fits


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
def test_parse_reads_any_message_that_serialize_writes(message):
    assert protocol.parse(protocol.serialize(message)[:-2]) == message


@given(st.binary(max_size=80) | TEXTS.map(str.encode))
@example(b"\x00")
@example(b": :")
def test_parse_raises_only_protocol_errors(line):
    try:
        message = protocol.parse(line)
    except ProtocolError:
        return
    assert message.command


def split(stream, limit, cuts):
    """Return the lines that a Framer gives when the stream arrives in pieces."""
    framer, lines = Framer(limit), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)]):
        lines += framer.feed(stream[start:end])
    return lines


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_lines_do_not_depend_on_the_size_of_the_pieces(size):
    cuts = range(size, len(STREAM), size)
    assert split(STREAM, MAX_MESSAGE, cuts) == [line for line, _ in LINES]


def test_stream_can_be_cut_at_any_byte():
    for cut in range(len(STREAM) + 1):
        assert split(STREAM, MAX_MESSAGE, [cut]) == [line for line, _ in LINES]


@given(
    st.lists(st.binary(max_size=12), max_size=8).map(b"\n".join),
    st.lists(st.integers(0, 80), max_size=8),
)
def test_lines_do_not_depend_on_the_cuts(stream, cuts):
    """Overlong lines included."""
    cuts = sorted(min(cut, len(stream)) for cut in cuts)
    assert split(stream, 6, cuts) == Framer(6).feed(stream)


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("limit", [10, 4096])
@pytest.mark.parametrize(("over", "fits"), AT_LIMIT)
def test_framer_discards_overlong_lines_only(end, limit, over, fits):
    line = b"x" * (limit + over)
    stream = line + end + b"next" + end
    for cuts in ([], range(len(stream))):
        assert split(stream, limit, cuts) == [line if fits else None, b"next"]


def test_framer_does_not_keep_an_endless_line():
    framer, piece = Framer(100), b"x" * 100000
    tracemalloc.start()
    try:
        for _ in range(100):
            assert framer.feed(piece) == []
        assert tracemalloc.get_traced_memory()[1] < 10 * len(piece)
    finally:
        tracemalloc.stop()
    assert framer.feed(b"\nhello\n") == [None, b"hello"]


@pytest.mark.parametrize(
    ("text", "size", "prefix"),
    [("abc", 3, "abc"), ("abc", 2, "ab"), ("aéb", 2, "a"), ("aéb", 3, "aé"), ("👋", 3, "")],
)
def test_truncate_splits_no_character(text, size, prefix):
    assert protocol.truncate(text, size) == prefix


@pytest.mark.parametrize("letter", ["x", "é", "李", "👋"])
def test_fit_truncates_the_longest_parameter_as_little_as_possible(letter):
    message = Message("PRIVMSG", ("#lobby", letter * 600), ALICE, {"k": "v"})
    fitted, line = protocol.fit_line(message)
    assert fitted == protocol.fit(message)
    assert fitted == message._replace(params=("#lobby", letter * len(fitted.text)))
    assert 0 <= MAX_MESSAGE - len(line) < len(letter.encode())
    assert protocol.serialize(fitted) == b"@k=v " + line


@pytest.mark.parametrize(("over", "fits"), AT_LIMIT)
def test_fit_changes_only_what_is_too_long(over, fits):
    message = Message("PING", ("x" * (512 - len("PING \r\n") + over),))
    fitted = protocol.fit(message)
    assert (fitted is message) is fits
    assert len(protocol.serialize(fitted)) == min(512 + over, 512)


def test_fit_refuses_a_message_without_parameters_to_truncate():
    with pytest.raises(ValueError):
        protocol.fit(Message("PING", ("x",), "s" * MAX_MESSAGE))


@pytest.mark.parametrize(
    "text",
    ["", "hi", "word " * 500, "x" * 2000, "é" * 2000, "👋" * 1000, "x" * 700 + " y", " " * 1000],
)
def test_split_text_loses_nothing_and_each_piece_fits(text):
    pieces = protocol.split_text(text, ALICE, "PRIVMSG", "#lobby")
    assert "".join(pieces) == text
    for piece in pieces:
        protocol.serialize(Message("PRIVMSG", ("#lobby", piece), ALICE))


def test_split_text_splits_at_spaces():
    pieces = protocol.split_text("word " * 500, ALICE, "PRIVMSG", "#lobby")
    assert len(pieces) > 1
    assert all(piece.endswith("word ") for piece in pieces)


@given(st.lists(st.text("aé", min_size=1, max_size=9), max_size=20), st.integers(0, 30))
def test_pack_splits_no_word_and_wastes_no_room(words, size):
    texts = protocol.pack(words, ", ", size)
    assert ", ".join(texts) == ", ".join(words)
    assert all(len(text.encode()) <= size or text in words for text in texts)
    for text, following in zip(texts, texts[1:]):
        assert len((text + ", " + following.split(", ")[0]).encode()) > size


# Names
# -----


@pytest.mark.parametrize(
    "name",
    "alice a zoë zoe\u0308 Ünal 李 李明bob 李Ann さくらサクラ 한글 ㅋㅋ Ωλφα Иван علي مريم नमन नीता"
    " ไทย _x [a] a-b_c a1 {}`^|\\ serve servers ルーシー 佐々 zoë_ Łukasz".split()
    + ["x" * (MAX_NAME - 1), "x" * MAX_NAME],
)
def test_nickname_is_made_of_letters_of_one_alphabet_digits_and_signs(name):
    name = protocol.normalize(name)
    assert protocol.nickname_error(name) == ""
    assert protocol.is_nickname(name)


RESERVED = (
    "SERVER server Server ＳＥＲＶＥＲ ᏚᎬᏒᏙᎬᏒ SERVER] [SERVER] SERVER_ SERVER\u0332"
    " you [you] System ȿerver ʂerver šɇrver SERVERǃ y0u ꓢꓰꓣꓦꓰꓣ"
).split()
MIXED = "\u0430lice al\u03b9ce alice\u1039 alice\u2d7f".split()
INVISIBLE = "a\u034fb \u3164 a\u3164 alice\u1161 alice\u115f a\ufe70 \ufdfa".split()
NO_LETTERS = (
    "#abc &abc @abc :abc +abc ~abc %abc a,b a:b a!b a@b a*b a?b a.b a\0b a\x1bb 😀 a\ud800"
    " a\u202eb a\u2066b a\u200bb a\u200db a\u2060b a\ufeffb a\u00adb"
).split()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "Type a name first."),
        ("x" * (MAX_NAME + 1), "has at most 32 characters"),
        *((name, "is made of letters, digits") for name in [*NO_LETTERS, "a b!"]),
        *((name, "has no spaces. How about a-b?") for name in ("a b", " a  b", "a\nb")),
        *((name, "begins with a letter") for name in ("1abc", "-abc", "\u0301a")),
        *((name, "is a reserved name") for name in RESERVED),
        *((name, "does not end with a sign") for name in ("SERVERː", "aliceʼ", "bobˑ")),
        *((name, "has no invisible characters") for name in INVISIBLE),
        ("a" + "\u0316" * 4, "has at most 3 accents"),
        *((name, "uses one alphabet") for name in MIXED),
    ],
)
def test_nickname_that_could_deceive_or_break_a_line_is_invalid(name, words):
    assert words in protocol.nickname_error(name)
    assert not protocol.is_nickname(name)


@pytest.mark.parametrize("other", ["Alice", "ALICE", "ａｌｉｃｅ", "Ａｌｉｃｅ"])
def test_case_and_width_do_not_distinguish_names(other):
    assert protocol.casefold(other) == protocol.casefold("alice")


@given(st.text(max_size=8))
def test_casefold_is_idempotent(name):
    folded = protocol.casefold(name)
    assert protocol.casefold(folded) == folded


@given(st.text(max_size=MAX_NAME + 1) | st.text("aé1-_ :@\u0301\u200b\u202e", max_size=8))
def test_valid_nickname_fits_into_parameters_sources_and_lists(name):
    if not protocol.is_nickname(name):
        return
    protocol.serialize(Message("PRIVMSG", (name, "hi"), name + "!u@h"))
    assert not set(name) & set(" ,!@:#*?")
    assert protocol.clean(name) == protocol.normalize(name)


# Text
# ----

NASTY = st.text(
    st.sampled_from("aé e\u0301\u0327\u0316\u1100\u1161\u200b\u200d\u202e\u2066\ufeff\x01\x1b[3m"),
    max_size=20,
) | st.text(max_size=40)


def is_safe(text):
    """Return True if text is one line without controls and, joiners aside, hidden characters."""
    categories = {unicodedata.category(char) for char in text if char != "\u200d"}
    return not categories & {"Cc", "Cf", "Cs", "Zl", "Zp"}


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("hello", "hello"),
        ("a\tb\nc\r\nd\u2028e", "a   b c  d e"),
        ("\t\treturn", "        return"),
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
def test_clean_removes_controls_and_keeps_letters(text, cleaned):
    assert protocol.clean(text) == cleaned


@pytest.mark.parametrize("letter", ["x", "é", "李", "👋"])
@pytest.mark.parametrize(("size", "shown"), [(9, 9), (10, 10), (11, 10)])
def test_clean_marks_truncated_text_with_an_ellipsis(letter, size, shown):
    text = protocol.clean(letter * size, 10)
    assert len(text) == shown
    assert text.endswith("…") is (size > 10)


@given(NASTY, st.integers(1, 50))
@example("a\u200b\u0301", 50)
def test_clean_text_is_one_safe_line_within_its_limit(text, limit):
    cleaned = protocol.clean(text, limit)
    assert is_safe(cleaned)
    assert len(cleaned) <= limit
    assert protocol.clean(cleaned, limit) == cleaned


@pytest.mark.parametrize(("text", "cleaned"), [("bo\u200db", "bob"), ("e\u200d\u0301", "é")])
def test_clean_name_joins_no_emoji(text, cleaned):
    """A joiner is invisible: with it, two different names would look the same."""
    assert protocol.clean_name(text) == cleaned


@pytest.mark.parametrize(
    ("text", "word"),
    [("a", "a"), ("a b", "a_b"), ("", "*"), (":a", "a"), ("::", "*"), ("a:b", "a:b")]
    + [("a\x02b", "ab"), ("x" * MAX_MIDDLE, "x" * MAX_MIDDLE)]
    + [("x" * (MAX_MIDDLE + 1), "x" * (MAX_MIDDLE - 1) + "…")],
)
def test_to_middle_gives_a_middle_parameter(text, word):
    assert protocol.to_middle(text) == word
    assert protocol.is_middle(text) is (text == word)
    assert protocol.is_middle(word)


WOMAN = "👩\u200d💻"


@pytest.mark.parametrize(
    ("message", "cleaned"),
    [
        (Message("PRIVMSG", ("#t\x07", "a\x1bb"), "a\x02l!u@h"), ("#t", "ab")),
        (Message("PRIVMSG", ("bo\u200db", WOMAN)), ("bob", WOMAN)),
        (Message("PRIVMSG", ("#t", "\x01ACTION w\x02\x01")), ("#t", "\x01ACTION w\x01")),
        (Message("NOTICE", ("#t", "\x01PING 1")), ("#t", "\x01PING 1\x01")),
        (Message("TOPIC", ("#t", "\x01ACTION w\x01")), ("#t", "ACTION w")),
        (Message("NICK", ("bo\u200db",)), ("bob",)),
        (Message("353", ("me", "=", "#t", "@bo\u200db \x02al")), ("me", "=", "#t", "@bob al")),
        (Message("QUIT"), ()),
    ],
)
def test_clean_message_cleans_all_parameters(message, cleaned):
    """CTCP's delimiters stay where CTCP is allowed; emoji are joined in texts only."""
    source = protocol.clean_name(message.source)
    assert protocol.clean_message(message) == message._replace(params=cleaned, source=source)


def test_clean_message_keeps_tags_that_are_middle_parameters():
    tags = {"msgid": "7", "time": "2026-11-22T17:10:42.125Z", "+a": "b c", "+b": "\x1b", "+c": ""}
    cleaned = protocol.clean_message(Message("PING", ("x",), tags=tags))
    assert cleaned.tags == {"msgid": "7", "time": "2026-11-22T17:10:42.125Z"}


@given(st.sampled_from(["PRIVMSG", "JOIN", "332"]), st.lists(NASTY, max_size=4), NASTY)
def test_cleaned_message_is_safe_to_show(command, params, source):
    cleaned = protocol.clean_message(Message(command, tuple(params), source))
    assert all(is_safe(text.strip("\x01")) for text in (*cleaned.params, cleaned.source))
    assert protocol.clean_message(cleaned) == cleaned


# Time
# ----


@pytest.mark.parametrize(
    ("when", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1795367442.125, "2026-11-22T17:10:42.125Z"),
        (1795367442.9996, "2026-11-22T17:10:42.999Z"),
    ],
)
def test_server_time_is_in_utc_with_milliseconds(when, text):
    assert protocol.format_time(when) == text
    assert protocol.parse_time(text) == pytest.approx(when, abs=0.001)


@pytest.mark.parametrize("fraction", ["", ".5", ".123456789"])
def test_server_time_may_have_any_precision(fraction):
    when = protocol.parse_time("2026-11-22T17:10:42%sZ" % fraction)
    assert when == pytest.approx(1795367442 + float(fraction or 0), abs=1e-6)


@pytest.mark.parametrize(
    "text",
    ["", "now", "17:10:42", "2026-11-22", "2026-11-22T17:10:42.1e9Z", "2026-13-22T17:10:42.000Z"]
    + ["2026-11-22T17:10:42.xZ", "2026-11-22T17:10:42.000Z\n"],
)
def test_parse_time_refuses_other_formats(text):
    with pytest.raises(ValueError):
        protocol.parse_time(text)


MAX_DURATION = protocol.MAX_DURATION


@pytest.mark.parametrize(
    ("text", "seconds", "words"),
    [
        ("90", 90, "1 minute 30 seconds"),
        ("1", 1, "1 second"),
        ("10s", 10, "10 seconds"),
        ("10m", 600, "10 minutes"),
        ("2h", 7200, "2 hours"),
        ("3d", 259200, "3 days"),
        ("1w", 604800, "1 week"),
        ("1d12h", 129600, "1 day 12 hours"),
        ("12h1d", 129600, "1 day 12 hours"),
        ("36h", 129600, "1 day 12 hours"),
        ("1h0m5s", 3605, "1 hour 5 seconds"),
        ("1d1h1m", 90060, "1 day 1 hour"),
        ("*", 0, "forever"),
        ("0", 0, "forever"),
        ("0d", 0, "forever"),
        (str(MAX_DURATION - 1), MAX_DURATION - 1, "521 weeks 2 days"),
        (str(MAX_DURATION), MAX_DURATION, "521 weeks 3 days"),
    ],
)
def test_duration_is_a_number_of_seconds_or_of_units(text, seconds, words):
    assert protocol.parse_duration(text) == seconds
    assert protocol.format_duration(seconds) == words


@pytest.mark.parametrize(
    "text",
    ["", "m", "10x", "10 m", "-1", "+1", "1.5h", "1d12", "10M", "**", "5\n", "\u0663", "noise"]
    + [str(MAX_DURATION + 1), "3651d", "1w" * 522, "9" * 30, "0" * 30],
)
def test_parse_duration_refuses_other_words_and_more_than_ten_years(text):
    with pytest.raises(ValueError):
        protocol.parse_duration(text)


@pytest.mark.parametrize(
    ("text", "reason", "is_duration"),
    [
        ("2", "hours", False),
        ("90", "noise", False),
        ("2h", "hours of noise", True),
        ("0", "noise", True),
        ("*", "2 hours", True),
        ("90", "", True),
    ],
)
def test_number_before_a_reason_needs_a_unit(text, reason, is_duration):
    if is_duration:
        protocol.parse_duration(text, reason)
    else:
        with pytest.raises(ValueError):
            protocol.parse_duration(text, reason)


@given(st.integers(0, MAX_DURATION))
def test_any_number_of_seconds_up_to_the_limit_is_a_duration(seconds):
    assert protocol.parse_duration(str(seconds)) == seconds
    assert protocol.format_duration(seconds)


# ISUPPORT
# --------


@given(st.text("\\x205C3D =a"))
def test_unescape_token_is_the_inverse_of_escape_token(value):
    escaped = protocol.escape_token(value)
    assert not set(escaped) & set(" =")
    assert protocol.unescape_token(escaped) == value


# Passwords
# ---------


@pytest.mark.parametrize(
    ("password", "words"),
    [
        *((word, "has at least 8 characters") for word in ("", "1234567", "e\u0301" * 7)),
        *((word, "") for word in ("12345678", "e\u0301" * 8, "x" * 300, "é" * 150)),
        *((word, "is too long: 300 bytes at most") for word in ("x" * 301, "é" * 151)),
    ],
)
def test_password_has_8_characters_to_300_bytes(password, words):
    assert words in protocol.password_error(password)
    assert bool(protocol.password_error(password)) is bool(words)


def test_password_bytes_do_not_depend_on_the_keyboard():
    assert protocol.password_bytes("e\u0301") == protocol.password_bytes("é") == b"\xc3\xa9"
    assert protocol.password_bytes("\ud800")  # typed, if not sent


# Channel modes
# -------------


def test_channel_modes_follow_isupport():
    assert protocol.channel_modes("bI,k,l,im", "qov") == {
        **dict.fromkeys("bI", "list"),
        "k": "always",
        "l": "set",
        **dict.fromkeys("im", "flag"),
        **dict.fromkeys("qov", "member"),
    }


@given(st.lists(st.text(max_size=20), max_size=4))
def test_parse_modes_accepts_any_parameters(params):
    assert len(protocol.parse_modes(params)) <= len(params[0] if params else "")


@pytest.mark.parametrize(
    ("text", "is_valid"),
    [(key, True) for key in ("k", "schlüssel", "a:b", "x" * 32)]
    + [(key, False) for key in ("", ":a", "a b", "a,b", "\x02a", "a\u200b", "x" * 33)],
)
def test_key_is_a_visible_word_without_commas(text, is_valid):
    assert protocol.is_key(text) is is_valid


# Masks
# -----


@pytest.mark.parametrize(
    ("text", "mask"),
    [
        ("bob", "bob!*@*"),
        ("*@host", "*!*@host"),
        ("@host", "*!*@host"),
        ("a!b", "a!b@*"),
        ("a!b@c", "a!b@c"),
        ("!b", "*!b@*"),
        ("a@c", "a!*@c"),
        ("", "*!*@*"),
        ("*", "*!*@*"),
        ("!@", "*!*@*"),
        ("192.0.2.7", "*!*@192.0.2.7"),
        ("192.0.2.*", "*!*@192.0.2.*"),
        ("2001:db8::1", "*!*@2001:db8::1"),
        ("李", "李!*@*"),
        ("a b", "a_b!*@*"),
        ("::1", "*!*@0::1"),
        ("*!*@::1", "*!*@0::1"),
        ("*!*@::1*", "*!*@0::1*"),
        ("*@0:0::0:1", "*!*@0::1"),
        ("2001:DB8:0::1", "*!*@2001:db8::1"),
        ("fe80::1%eth0", "*!*@fe80::1"),
        ("::ffff:192.0.2.7", "*!*@192.0.2.7"),
        (":bob!*", "bob!*@*"),
        ("b\x03ob\u202e", "bob!*@*"),
        ("x" * 200, "x" * 32 + "!*@*"),
    ],
)
def test_normalize_mask_completes_short_forms(text, mask):
    assert protocol.normalize_mask(text) == mask


@pytest.mark.parametrize(
    ("host", "address"),
    [("192.0.2.7", "192.0.2.7:12001"), ("tea.lan", "tea.lan:12001"), ("0::1", "[0::1]:12001")],
)
def test_address_is_written_as_the_client_reads_it(host, address):
    assert protocol.format_address(host, 12001) == address
    assert client.parse_server(address) == (host, 12001)


@given(st.text(max_size=150) | st.text("ab!@*?. :", max_size=150))
def test_normalized_mask_is_stable_short_and_safe(text):
    mask = protocol.normalize_mask(text)
    assert protocol.normalize_mask(mask) == mask
    assert protocol.normalize_mask(protocol.short_mask(mask)) == mask
    assert len(mask) <= MAX_MASK
    assert protocol.clean(mask) == mask
    protocol.serialize(Message("MODE", ("#lobby", "+b", mask, "")))
