"""server.py: dialects, and the parameters of users' commands."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_protocol import AT_LIMIT, is_accepted

import protocol
import server
from protocol import (
    MAX_MESSAGE,
    MAX_MODES,
    MAX_NAME,
    MAX_PASSWORD,
    SASL_CHUNK,
    Message,
    ModeChange,
    ProtocolError,
    TooLongError,
)
from server import HTTP, IRC, MAX_CONDITIONS, MAX_PLAIN_LINE, PLAIN, TLS, MaskSet

# Dialects
# --------


@pytest.mark.parametrize(
    ("data", "dialect"),
    [
        *((data, None) for data in (b"", b"N", b"NICK alice", b"x" * MAX_PLAIN_LINE)),
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
        (b"\xef\xbb\xbfCAP LS 302\r\n", IRC),
        (b"\xef\xbb\xbfNICK alice\r\n", IRC),
        (b"\xef\xbb\xbfalice\r\n", PLAIN),
        *((b"\xef\xbb\xbfNICK alice"[:size], None) for size in range(4)),
        *((data, PLAIN) for data in (b"alice\r\n", b"\r\n", b"Nick\r\n", b"NICK\r\n", b"\xe9\r\n")),
        (b"hello NICK alice\r\n", PLAIN),
        (b"\xff\xfb\x01alice\r\n", PLAIN),
        (b"x" * (MAX_PLAIN_LINE + 1), PLAIN),
        *((data, TLS) for data in (b"\x16", b"\x16\x03\x01\x02\x00\x01")),
        (b"GET / HTTP/1.1\r\n", HTTP),
        (b"POST /\r\nNICK evil\r\n", HTTP),
        (b"PRI * HTTP/2.0\r\n", HTTP),
        (b"OPTIONS ", HTTP),
    ],
)
def test_first_bytes_tell_the_dialect(data, dialect):
    assert server.sniff(data) == dialect


@given(st.binary(max_size=60))
def test_dialect_does_not_change_with_later_bytes(data):
    dialects = [server.sniff(data[:size]) for size in range(len(data) + 1)]
    assert len({dialect for dialect in dialects if dialect}) <= 1


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"hello", "hello"),
        (b"  hello \t", "  hello"),
        (b"\xff\xfd\x03\xff\xfb\x18alice", "alice"),
        (b"al\xff\xfa\x18\x00xterm\xff\xf0ice", "alice"),
        (b"\xff\xf1alice\xff", "alice"),
        (b"\xff\xfa\x18never ends", ""),
        (b"caf\xe9", "caf\ufffd"),
        (b"caf\xc3\xa9", "café"),
        (b"\ta\tb\0c", "    a   bc"),
        (b"\x1b[31mred", "[31mred"),
        (b"\xef\xbb\xbfalice", "alice"),
        (b"hellp\x08o", "hello"),
        (b"hellp\x7fo", "hello"),
        (b"hellooo\x08\x08\x7f\x08lo", "hello"),
        (b"\x08\x7f\x08hello\x08", "hell"),
        (b"caf\xc3\xa9\x08e", "cafe"),
        (b"x" * 2000 + b"\x08" * 2001 + b"hello", "hello"),
    ],
)
def test_plain_line_is_clean_and_without_telnet_commands(line, text):
    assert server.decode_plain(line) == text


# Names
# -----


@pytest.mark.parametrize(
    ("text", "username"),
    [("~bob", "bob"), ("Bob7", "Bob7"), ("", "user"), ("жук", "user"), ("b!o@b", "bob")]
    + [("x" * 11, "x" * 10)],
)
def test_username_has_up_to_10_ascii_letters_and_digits(text, username):
    assert server.to_username(text) == username


@pytest.mark.parametrize(
    ("text", "is_valid"),
    [(text, True) for text in ("tea.lan", "192.0.2.7", "x" * 63)]
    + [
        (text, False)
        for text in ("x" * 64, "", "-", ":", ".lan", "a b", "a@b", "a!b", "a\n", "é", "::1")
    ],
)
def test_servers_name_has_up_to_63_characters_of_a_host(text, is_valid):
    assert (server._host_error(text) == "") is is_valid


# History queries
# ---------------


@pytest.mark.parametrize(
    ("line", "query"),
    [
        ("latest #tea * 5", ("LATEST", "#tea", [0], 5)),
        ("BEFORE #tea msgid=7 5", ("BEFORE", "#tea", [7], 5)),
        (
            "AFTER #tea timestamp=1970-01-01T00:00:01.5Z 5",
            ("AFTER", "#tea", [1.5], 5),
        ),
        ("BETWEEN bob msgid=7 msgid=9 5", ("BETWEEN", "bob", [7, 9], 5)),
        ("TARGETS msgid=7 msgid=9 5", ("TARGETS", "", [7, 9], 5)),
        ("LATEST #tea * 123456789000", ("LATEST", "#tea", [0], 123456789)),
    ],
)
def test_chathistory_has_references_and_a_limit(line, query):
    assert server.parse_chathistory(line.split()) == query


COUNT_OR_LIMIT = "Too few parameters, too many, or a limit that is no number"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("READ #tea * 5", "Unknown command"),
        ("LATEST", COUNT_OR_LIMIT),
        ("LATEST #tea * 5 6", COUNT_OR_LIMIT),
        ("TARGETS msgid=7 5", COUNT_OR_LIMIT),
        ("LATEST #tea * x", COUNT_OR_LIMIT),
        ("BEFORE #tea * 5", "Not a msgid or a timestamp"),
        ("BEFORE #tea 7 5", "Not a msgid or a timestamp"),
        ("BEFORE #tea msgid=x 5", "Not a msgid or a timestamp"),
        ("BEFORE #tea msgid=1234567890123456789 5", "Not a msgid or a timestamp"),
        ("BEFORE #tea timestamp=now 5", "Not a msgid or a timestamp"),
    ],
)
def test_invalid_chathistory_is_refused_in_words(line, words):
    with pytest.raises(ProtocolError, match=words):
        server.parse_chathistory(line.split())


# User and channel queries
# ------------------------


@pytest.mark.parametrize(
    ("text", "fields_and_token"),
    [
        ("%cuhsnfdar", ("cuhsnfdar", "")),  # WeeChat
        ("%chtsunfra,152", ("tcuhsnfar", "152")),  # HexChat
        ("%tna,1", ("tna", "1")),
        ("%tcuihsnfdlaor,999", ("tcuihsnfdlaor", "999")),
        *(
            (text, ("n", ""))
            for text in ("o%n", "%nnnn", "%nxyz", "%n,1234", "%n,abc", "%n,٣", "%n,")
        ),
        *((text, ("", "")) for text in ("%,1", "%", "%xyz,1", "o", "")),
    ],
)
def test_whox_fields_are_in_the_order_of_the_reply(text, fields_and_token):
    assert server.parse_whox(text) == fields_and_token


CHANNELS = {  # name: users, minutes since the creation, and since the topic
    "#lobby": (12, 150, 1),
    "#tea": (4, 10, float("nan")),
    "#TeaParty": (5, 0.5, 0.5),
}


@pytest.mark.parametrize(
    ("text", "accepted"),
    [
        (">4,<10000", "#lobby #TeaParty"),  # HexChat
        (">4", "#lobby #TeaParty"),
        ("<5", "#tea"),
        (">4,<12", "#TeaParty"),
        ("#tea", "#tea"),
        ("#TEA,#lobby", "#lobby #tea"),
        ("*tea*", "#tea #TeaParty"),
        ("!*tea*", "#lobby"),
        ("*tea*,!*party", "#tea"),
        ("*tea*,>4", "#TeaParty"),
        ("C>60", "#lobby"),
        ("C<11", "#tea #TeaParty"),
        ("c<11", "#tea #TeaParty"),
        ("T<5", "#lobby #TeaParty"),
        ("T>0", "#lobby #TeaParty"),
        ("T>1", ""),
        (">1234567890", ""),  # too long for a number, so it is a name
        (">x", ""),
        ("", "#lobby #tea #TeaParty"),
        (",,", "#lobby #tea #TeaParty"),
        ("!", "#lobby #tea #TeaParty"),
        ("#x," * (MAX_CONDITIONS - 2) + "#lobby,#tea", "#lobby #tea"),
        ("#x," * (MAX_CONDITIONS - 1) + "#lobby,#tea", "#lobby"),
        ("*," * MAX_CONDITIONS + "!*,>1000", "#lobby #tea #TeaParty"),
    ],
)
def test_list_accepts_any_of_the_masks_within_all_bounds(text, accepted):
    """Conditions after MAX_CONDITIONS are ignored."""
    accepts = server.parse_elist(text)
    names = [name for name in CHANNELS if accepts(name, *CHANNELS[name])]
    assert " ".join(names) == accepted


@given(st.text(max_size=40) | st.text("CT<>!*,#a1", max_size=40))
def test_queries_accept_any_text(text):
    server.parse_whox(text)
    server.parse_elist(text)("#tea", 1, 0.0, 0.0)


# Targets of bans
# ---------------


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("Bob", "bob"),
        ("\uff21lice", "alice"),
        ("192.0.2.7", "192.0.2.7"),
        ("192.0.2.7/24", "192.0.2.0/24"),
        ("192.0.2.7/32", "192.0.2.7"),
        ("192.0.2.0/255.255.255.0", "192.0.2.0/24"),
        ("0::1", "::1"),
        ("2001:DB8::/32", "2001:db8::/32"),
    ],
)
def test_target_is_stored_in_a_normal_form(text, target):
    assert server.is_target(text)
    assert server.normalize_target(text) == target
    assert server.normalize_target(target) == target


@pytest.mark.parametrize("text", ["", "*!*@*", "#tea", "300.1.1.1", "192.0.2.0/33", "a b", "::x"])
def test_target_is_a_nickname_an_address_or_a_network(text):
    assert not server.is_target(text)


@pytest.mark.parametrize(
    ("target", "address", "is_match"),
    [
        ("alice", "192.0.2.7", True),
        ("ALICE", "192.0.2.7", True),
        ("alice2", "192.0.2.7", False),
        ("192.0.2.7", "192.0.2.7", True),
        ("192.0.2.7", "192.0.2.70", False),
        ("192.0.2.0/24", "192.0.2.255", True),
        ("192.0.2.0/24", "192.0.3.0", False),
        ("0.0.0.0/0", "192.0.2.7", True),
        ("0.0.0.0/0", "2001:db8::1", False),
        ("::/0", "192.0.2.7", False),
        ("2001:db8::/32", "2001:db8::1", True),
        ("2001:db8::/32", "2001:db9::1", False),
        ("::1", "0::1", True),
        ("192.0.2.0/24", "somewhere", False),
        ("192.0.2.0/24", "", False),
        ("", "192.0.2.7", False),
    ],
)
def test_target_matches_names_and_addresses(target, address, is_match):
    assert server.target_matches(target, ["ally", "alice"], address) is is_match


# Masks
# -----


@pytest.mark.parametrize(
    ("mask", "text", "is_match"),
    [
        ("bob!*@*", "bob!u@h", True),
        ("BOB!*@*", "bob!u@h", True),
        ("ｂｏｂ!*@*", "Bob!u@h", True),
        ("bob!*@*", "bobby!u@h", False),
        ("b?b", "bob", True),
        ("b?b", "bb", False),
        ("b?b", "boob", False),
        ("*", "", True),
        ("", "", True),
        ("", "a", False),
        ("?", "", False),
        ("a*", "a", True),
        ("*a", "ba", True),
        ("*a", "ab", False),
        ("*a*b*", "xaxbx", True),
        ("*a*b*", "xbxax", False),
        ("*ab", "aab", True),
        ("a*a", "a", False),
        ("*!*@192.0.2.*", "bob!u@192.0.2.77", True),
        ("*!*@192.0.2.*", "bob!u@192.0.3.77", False),
        (r"\*", r"\x", True),  # there are no escapes
        ("[a-z]", "b", False),
        ("a*c", "a\nb\nc", True),
        ("zo\u00eb!*", "zoe\u0308!u", True),
    ],
)
def test_mask_matches_all_of_a_text_casefolded(mask, text, is_match):
    assert MaskSet([mask]).match(text) is is_match


def matches_by_definition(mask, text):
    if not mask:
        return not text
    if mask[0] == "*":
        return any(matches_by_definition(mask[1:], text[i:]) for i in range(len(text) + 1))
    return bool(text) and mask[0] in ("?", text[0]) and matches_by_definition(mask[1:], text[1:])


@given(st.lists(st.text("ab*?", max_size=8), max_size=3), st.text("ab", max_size=8))
def test_masks_match_by_their_definition(masks, text):
    expected = [matches_by_definition(mask, text) for mask in masks]
    assert [MaskSet([mask]).match(text) for mask in masks] == expected
    assert MaskSet(masks).match(text) is any(expected)


def test_mask_set_is_immutable():
    masks = ["bob!*@*"]
    found = MaskSet(masks)
    masks[0] = "carol!*@*"
    assert [found.match(text) for text in ("bob!u@h", "carol!u@h")] == [True, False]


@pytest.mark.parametrize(
    "mask",
    [
        "*a" * 150 + "*b",
        "*" * 150 + "b",
        "*?" * 150 + "b",
        "a*" * 150 + "b",
        "*" + "a?" * 150 + "b*",
    ],
)
def test_time_to_match_is_linear_in_the_text(mask):
    """With any backtracking this would take minutes at least, and pytest would stop it."""
    assert not MaskSet([mask]).match("a" * 200000)


# Names and durations
# -------------------


@pytest.mark.parametrize("name", ["#a", "#lobby", "#李", "#1", "##x", "#" + "x" * (MAX_NAME - 1)])
def test_channel_name_is_a_number_sign_and_a_word(name):
    assert server.channel_error(name) == ""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        *((name, "1 to 31 more") for name in ("", "#", "lobby", "&lobby", "#" + "x" * MAX_NAME)),
        *((name, "has no spaces and none of") for name in ("#a b", "#a,b", "#a:b", "#a*", "#a?")),
        *((name, "has no spaces and none of") for name in ("#a!b", "#a@b", "#a\x07b", "#a\nb")),
        *((name, "has no spaces and none of") for name in ("#a\u200bb", "#a\u202eb")),
        *((name, "no invisible") for name in ("#\u3164", "#a\u3164", "#a\u2800", "#a\ufe70")),
        ("#\u0301a", "begins with # and a letter"),
        ("#a" + "\u0316" * 4, "has at most 3 accents"),
        ("#l\u043ebby", "uses one alphabet"),  # Cyrillic o
    ],
)
def test_channel_name_that_could_deceive_or_break_a_line_is_invalid(name, words):
    assert words in server.channel_error(name)


def are_alike(name, other):
    is_same = protocol.skeleton(name) == protocol.skeleton(other)
    return is_same and server.is_lookalike(name, other)


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("alice", "аӏісе alıce aIice ɑlice a|ice a1ice ᎪᏞᎥᏟᎬ ꓮꓡꓲꓚꓰ ɑʟɪᴄᴇ"),
        ("Alice", "аӏісе ALlCE AIice"),
        ("ALICE", "ALlCE AL1CE aIice"),
        ("bob", "b0b ЬоЬ"),
        ("lan", "Ian |an"),
        ("Laura", "|aura ʟaura"),
        ("ellen", "e11en eIIen"),
        ("Nico", "ꓠꓲꓚꓳ"),
        ("Lisɑ", "Iisa Lisa"),
        ("alice", "ⲁⳑⲓⲥⲉ alicꬲ aliƈe alice\u0335 a\u0336lice aŀice"),
        ("mary", "rnary"),
        ("Will", "vvill"),
        ("kim", "ⲕⲓⲙ"),
    ],
)
def test_names_that_look_alike_are_found(name, others):
    assert others.split()
    for other in others.split():
        assert are_alike(name, other) and are_alike(other, name), other


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("alice", "alice ALICE Ａlice alice1 alicë alic alicee"),
        ("Annal", "Anna1 Anna Annai"),
        ("bobo", "bob0"),
        ("Lan", "Ian"),
        ("Lida", "Iida"),
        ("Nell", "NEIL Neil"),
        ("Kal", "KAI Kai"),
        ("Zoe", "Zoë"),
        ("Lukasz", "Łukasz"),
        ("Al", "AI Ai"),
        ("Иван", "Ivan"),
        ("Bernd", "Bern Bend"),
        ("Clara", "Dara"),
        ("Łukasz", "Lukasz"),
        ("Hauƙa", "Hauka"),
    ],
)
def test_honest_names_stand_beside_each_other(name, others):
    for other in others.split():
        assert not are_alike(name, other) and not are_alike(other, name), other


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-0.5, "1 second"),
        (59.2, "1 minute"),
        (60.0, "1 minute"),
        (61.0, "2 minutes"),
        (598.3, "10 minutes"),  # asked for a moment ago
        (600.0, "10 minutes"),
        (7199.0, "2 hours"),
        (129599.5, "1 day 12 hours"),
    ],
)
def test_what_is_left_is_told_in_whole_minutes(seconds, words):
    assert server.format_left(seconds) == words


# SASL
# ----


def chunks_of(text):
    return [text[i : i + SASL_CHUNK] for i in range(0, len(text), SASL_CHUNK)]


def feed_all(chunks):
    """Return the data of the last chunk; those before it give None."""
    counts = range(1, len(chunks) + 1)
    *unfinished, data = [server.join_sasl(chunks[:count]) for count in counts]
    assert unfinished == [None] * len(unfinished)
    return data


@pytest.mark.parametrize("size", [1, 298, 299, 300, 301, 599, 600, 601, 3072])
def test_sasl_data_ends_with_a_short_chunk_or_a_plus(size):
    chunks = chunks_of(base64.b64encode(b"x" * size).decode())
    assert feed_all(chunks if len(chunks[-1]) < SASL_CHUNK else [*chunks, "+"]) == b"x" * size


def test_sasl_plus_alone_is_empty_data():
    assert feed_all(["+"]) == b""


@pytest.mark.parametrize(
    ("chunks", "error"),
    [
        (["A" * 401], TooLongError),
        (["A" * 400, "A" * 404], TooLongError),
        (["A" * 400] * 11, ProtocolError),
        (["A" * 400] * 10 + ["A" * 100], ProtocolError),
        (["A"], ProtocolError),
        (["A*AA"], ProtocolError),
        (["éAAA"], ProtocolError),
        (["*"], ProtocolError),
        (["A" * 400, "?"], ProtocolError),
    ],
)
def test_sasl_chunks_that_are_invalid_are_refused(chunks, error):
    assert len(chunks) == 1 or server.join_sasl(chunks[:-1]) is None
    with pytest.raises(ProtocolError) as refusal:
        server.join_sasl(chunks)
    assert type(refusal.value) is error


@pytest.mark.parametrize(("over", "fits"), AT_LIMIT)
def test_sasl_data_has_at_most_4096_characters(over, fits):
    text = "A" * (4096 + 4 * over)  # base64 has groups of four
    assert is_accepted(feed_all, chunks_of(text)) is fits


@pytest.mark.parametrize(
    ("data", "parts"),
    [
        (b"\0alice\0secret", ("", "alice", "secret")),
        (b"alice\0alice\0secret", ("alice", "alice", "secret")),
        ("\0李\0pässword with spaces".encode(), ("", "李", "pässword with spaces")),
    ],
)
def test_sasl_plain_has_three_parts(data, parts):
    assert server.parse_sasl_plain(data) == parts


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"alice",
        b"\0alice",
        b"\0\0secret",
        b"\0alice\0",
        b"\0alice\0sec\0ret",
        b"\0alice\0\xff",
    ],
)
def test_parse_sasl_plain_refuses_other_data(data):
    with pytest.raises(ProtocolError):
        server.parse_sasl_plain(data)


NO_NUL = st.characters(exclude_characters="\0", exclude_categories=["Cs"])


@given(
    st.text(NO_NUL, min_size=1),
    st.text(NO_NUL, min_size=1) | st.integers(280, MAX_PASSWORD + 10).map("x".__mul__),
)
def test_parse_sasl_plain_reads_what_sasl_plain_chunks_writes(name, password):
    chunks = protocol.sasl_plain_chunks(name, password)
    for chunk in chunks:
        protocol.serialize(Message("AUTHENTICATE", (chunk,)))
    assert server.parse_sasl_plain(feed_all(chunks)) == ("", name, password)


# Channel modes
# -------------


def changes(text):
    """Return the changes that "+o alice, -b" stands for."""
    words = [word for word in text.split(", ") if word]
    return [ModeChange(word[0] == "+", word[1], word[3:]) for word in words]


@pytest.mark.parametrize(
    ("params", "parsed", "written"),
    [
        (("+ov-l", "alice", "bob"), "+o alice, +v bob, -l", None),
        (("+o-b+m", "alice", "*!*@x"), "+o alice, -b *!*@x, +m", None),
        (("m",), "+m", ("+m",)),
        (("b",), "+b", ("+b",)),
        (("+b",), "+b", None),
        (("-b",), "-b", None),
        (("b", "*!*@x"), "+b *!*@x", ("+b", "*!*@x")),
        (("+k", "key"), "+k key", None),
        (("-k", "key"), "-k key", None),
        (("-k",), "-k", None),
        (("+k",), "+k", None),
        (("+l", "20"), "+l 20", None),
        (("-l", "20"), "-l", ("-l",)),
        (("+l",), "+l", None),
        (("+o",), "+o", None),
        (("+imnst",), "+i, +m, +n, +s, +t", None),
        (("+i-m+n",), "+i, -m, +n", None),
        (("+i+m-n-s",), "+i, +m, -n, -s", ("+im-ns",)),
        (("+xo", "alice"), "+x, +o alice", None),
        (("+é",), "+é", None),
        (("+lk", "5", "key"), "+l 5, +k key", None),
        (("+-+-m",), "-m", ("-m",)),
        (("+",), "", ()),
        (("",), "", ()),
        ((), "", ()),
    ],
)
def test_mode_letters_take_their_arguments_in_order(params, parsed, written):
    assert protocol.parse_modes(params) == changes(parsed)
    assert server.format_modes(changes(parsed)) == (params if written is None else written)


@pytest.mark.parametrize(("over", "dropped"), [(-1, 0), (0, 0), (1, 1)])
@pytest.mark.parametrize("letter", ["o", "b", "x"])
def test_mode_command_has_at_most_8_changes_beside_flags(letter, over, dropped):
    names = ["name%d" % i for i in range(MAX_MODES + over)]
    found = protocol.parse_modes(("+" + letter * len(names) + "mn", *names))
    args = ["" if letter == "x" else name for name in names[: len(names) - dropped]]
    assert found == [*(ModeChange(True, letter, arg) for arg in args), *changes("+m, +n")]


def change_of(letter, adding, arg):
    kind = protocol.CHANNEL_MODES[letter]
    has_arg = kind != "flag" and (adding or kind != "set")
    return ModeChange(adding, letter, arg if has_arg else "")


CHANGES = st.builds(
    change_of,
    st.sampled_from(sorted(protocol.CHANNEL_MODES)),
    st.booleans(),
    st.text("ab*!@+-", min_size=1),
)


@given(st.lists(CHANGES, max_size=MAX_MODES))
def test_parse_modes_reads_what_format_modes_writes(found):
    assert protocol.parse_modes(server.format_modes(found)) == found


@pytest.mark.parametrize(("size", "count"), [(9, 1), (60, 2), (200, 2), (300, 4)])
def test_split_modes_fits_every_part_into_a_line(size, count):
    found = changes(", ".join("+b " + "я" * 25 + "!*@%d" % i for i in range(MAX_MODES)))
    source = "s" * size
    parts = server.split_modes(found, source, "#tea")
    assert len(parts) == count
    assert [change for part in parts for change in protocol.parse_modes(part)] == found
    for part in parts:
        protocol.serialize(Message("MODE", ("#tea", *part), source))


@pytest.mark.parametrize(("over", "count"), [(-1, 1), (0, 1), (1, 2)])
def test_split_modes_makes_as_few_parts_as_possible(over, count):
    found = changes("+b one, +b two")
    source = "s" * (MAX_MESSAGE - len(": MODE #tea +bb one :two\r\n") + over)
    assert len(server.split_modes(found, source, "#tea")) == count


@pytest.mark.parametrize(
    ("text", "limit"),
    [("1", 1), ("007", 7), ("٣", 3), ("99999", 99999)]
    + [(text, 0) for text in ("100000", "0", "-1", "+1", "1x", "", "²", "0" * 500 + "7", "1e3")],
)
def test_limit_is_a_number_up_to_99999(text, limit):
    assert server.parse_limit(text) == limit


# Display
# -------


@pytest.mark.parametrize(
    ("channel", "text", "shown"),
    [
        ("#lobby", "Hello!", ("[bob]:", "Hello!")),
        ("#LOBBY", "\x01ACTION waves\x01", ("* bob", "waves")),
        ("#tea", "Hello!", ("[bob in #tea]:", "Hello!")),
        ("#tea", "\x01ACTION waves\x01", ("* bob", "waves (in #tea)")),
        ("me", "Hello!", ("[bob -> you]:", "Hello!")),
    ],
)
def test_channels_other_than_the_lobby_are_named(channel, text, shown):
    message = protocol.clean_message(Message("PRIVMSG", (channel, text), "bob!b@h"))
    line = server.describe_with_channel(message, "me", 0.0, "#lobby")
    assert (line.head, line.text) == shown


def test_messages_that_are_not_shown_have_no_line():
    assert server.describe_with_channel(Message("PING", ("x",)), "me", 0.0, "#lobby") is None
