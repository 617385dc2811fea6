"""The grammar of IRC's commands: modes, masks, queries, durations, SASL, and their words."""

import base64
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

import protocol
from protocol import MAX_MODES, Message, ModeChange, ProtocolError

# Modes


def changes(text):
    """The changes that "+o alice, -b" stands for."""
    return [
        ModeChange(word[0] == "+", word[1], word[3:]) for word in text.split(", ") if word.strip()
    ]


MODES = [  # parameters, what they mean, and how it is written again
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
]


@pytest.mark.parametrize(("params", "wanted", "written"), MODES)
def test_modes_are_parsed_and_written(params, wanted, written):
    """Letters take their arguments in order; what is written merges the signs."""
    assert protocol.parse_modes(params) == changes(wanted)
    assert protocol.format_modes(changes(wanted)) == (params if written is None else written)


@pytest.mark.parametrize(("count", "kept"), [(-1, -1), (0, 0), (1, 0)])
@pytest.mark.parametrize("letter", ["o", "b", "x"])
def test_a_command_has_so_many_changes(letter, count, kept):
    """What is too much is dropped, and flags are never too much."""
    names = ["name%d" % i for i in range(MAX_MODES + count)]
    found = protocol.parse_modes(("+" + letter * len(names) + "mn", *names))
    assert len(found) == MAX_MODES + kept + 2
    assert found[-2:] == changes("+m, +n")
    if letter != "x":
        assert [change.arg for change in found[:-2]] == names[:MAX_MODES]


def change_of(letter, adding, arg):
    kind = protocol.ROOM_MODES[letter]
    has_arg = kind != "flag" and (adding or kind != "set")
    return ModeChange(adding, letter, arg if has_arg else "")


CHANGES = st.lists(
    st.builds(
        change_of,
        st.sampled_from(sorted(protocol.ROOM_MODES)),
        st.booleans(),
        st.text("ab*!@+-", min_size=1),
    ),
    max_size=MAX_MODES,
)


@given(CHANGES)
def test_whatever_modes_are_written_are_read_again(found):
    """parse_modes(format_modes(changes)) is the changes."""
    assert protocol.parse_modes(protocol.format_modes(found)) == found


@pytest.mark.parametrize(("size", "count"), [(9, 1), (60, 2), (200, 2), (300, 4)])
def test_modes_that_are_too_long_for_a_line_take_several(size, count):
    """None of them is cut, and their order is kept."""
    found = changes(", ".join("+b " + "я" * 25 + "!*@%d" % i for i in range(MAX_MODES)))
    source = "s" * size
    pieces = protocol.split_modes(found, source, "#room")
    assert len(pieces) == count
    assert [change for piece in pieces for change in protocol.parse_modes(piece)] == found
    for piece in pieces:
        message = Message("MODE", ("#room", *piece), source)
        assert protocol.fit(message) == message


@given(st.lists(st.text(max_size=20), max_size=4))
def test_parse_modes_takes_anything(params):
    """No peer can make it fail, or give it more to do than the command has letters."""
    assert len(protocol.parse_modes(params)) <= len(params[0] if params else "")


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("k", True),
        ("schlüssel", True),
        ("a:b", True),
        ("x" * 32, True),
        ("x" * 33, False),
        ("", False),
        (":a", False),
        ("a b", False),
        ("a,b", False),
        ("\x02a", False),
        ("a\u200b", False),
    ],
)
def test_a_key_is_one_word_that_looks_like_what_it_is(text, is_one):
    """What members are shown of it opens the room."""
    assert protocol.is_key(text) is is_one


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("1", 1), ("007", 7), ("٣", 3), ("99999", 99999), ("100000", 0), ("0", 0), ("-1", 0),
        ("+1", 0), ("1x", 0), ("", 0), ("²", 0), ("0" * 500 + "7", 0), ("1e3", 0),
    ],
)  # fmt: skip
def test_a_limit_is_a_number_of_people(text, limit):
    """However many digits come, and of whatever script."""
    assert protocol.parse_limit(text) == limit


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("~bob", "bob"),
        ("Bob7", "Bob7"),
        ("", "user"),
        ("жук", "user"),
        ("b!o@b", "bob"),
        ("x" * 11, "x" * 10),
    ],
)
def test_a_username_is_made_of_letters_that_need_no_care(text, name):
    assert protocol.as_username(text) == name


def test_what_is_announced_of_modes_is_the_table():
    """CHANMODES lists the letters by what they take."""
    assert protocol.CHANMODES == "b,k,l,imnst"


# Masks


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
        ("::1", "*!*@::1"),
        (":bob!*", "bob!*@*"),
        ("b\x03ob\u202e", "bob!*@*"),
        ("x" * 200, "x" * 32 + "!*@*"),
    ],
)
def test_what_people_write_of_a_mask_is_made_whole(text, mask):
    """A name, an address or a part of a mask stands for a whole one."""
    assert protocol.as_mask(text) == mask


@given(st.text(max_size=150) | st.text("ab!@*?. :", max_size=150))
def test_a_mask_is_a_word_and_stays_as_it_is(text):
    """However it was written: a middle parameter, at most MAX_MASK characters, made once."""
    mask = protocol.as_mask(text)
    assert protocol.as_mask(mask) == mask
    assert len(mask) <= protocol.MAX_MASK
    assert protocol.clean(mask) == mask
    protocol.serialize(Message("MODE", ("#lobby", "+b", mask, "")))


@pytest.mark.parametrize(
    ("mask", "text", "wanted"),
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
        ("zo\u00eb!*", "zoe\u0308!u", True),
    ],
)
def test_a_mask_matches(mask, text, wanted):
    """Case-folded, from the first character to the last."""
    assert protocol.matches(mask, text) is wanted


def by_definition(mask, text):
    if not mask:
        return not text
    if mask[0] == "*":
        return any(by_definition(mask[1:], text[i:]) for i in range(len(text) + 1))
    return bool(text) and mask[0] in ("?", text[0]) and by_definition(mask[1:], text[1:])


@given(st.text("ab*?", max_size=8), st.text("ab", max_size=8))
def test_matches_does_what_the_definition_says(mask, text):
    """The fast way and the plain way agree."""
    assert protocol.matches(mask, text) == by_definition(mask, text)


@pytest.mark.parametrize("mask", ["*a" * 50 + "b", "*" * 100 + "b", "*?" * 50 + "b", "a*" * 50])
def test_a_hostile_mask_costs_no_more_than_another(mask):
    """One step for each character, however many stars: a thousand checks are no work."""
    start = time.process_time()
    for _ in range(100):
        protocol.matches(mask, "a" * 200)
    assert time.process_time() - start < 1


# Queries


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("%cuhsnfdar", ("cuhsnfdar", "")),  # WeeChat
        ("%chtsunfra,152", ("tcuhsnfar", "152")),  # HexChat
        ("%tna,1", ("tna", "1")),
        ("o%n", ("n", "")),
        ("%nnnn", ("n", "")),
        ("%nxyz", ("n", "")),
        ("%tcuihsnfdlaor,999", ("tcuihsnfdlaor", "999")),
        ("%n,1234", ("n", "")),
        ("%n,abc", ("n", "")),
        ("%n,\u0663", ("n", "")),
        ("%n,", ("n", "")),
        ("%,1", ("", "")),
        ("%", ("", "")),
        ("%xyz,1", ("", "")),
        ("o", ("", "")),
        ("", ("", "")),
    ],
)
def test_whox_asks_for_fields(text, wanted):
    """Fields come in the order of the answer; what is no WHOX asks for none."""
    assert protocol.parse_whox(text) == wanted


def test_whox_answers_in_order_with_the_realname_last():
    """A value for each field; only the last may hold spaces or be empty."""
    values = dict(zip("tcuihsnfdlaor", "1 #c u 1.2.3.4 host srv bob H@ 0 5 0 n/a".split()))
    values["r"] = "Bob the Builder"
    assert protocol.whox_params("tna", values) == ("1", "bob", "0")
    assert protocol.whox_params("nr", values) == ("bob", "Bob the Builder")
    assert protocol.whox_params("cn", {"c": "", "n": "a b"}) == ("*", "a_b")
    assert protocol.whox_params("", values) == ()


NOW = 1_000_000.0
ROOMS = {  # name: users, created, topic_at
    "#lobby": (12, NOW - 9000, NOW - 60),
    "#tea": (4, NOW - 600, 0.0),
    "#TeaParty": (5, NOW - 30, NOW - 30),
}


@pytest.mark.parametrize(
    ("text", "wanted"),
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
        (">1234567890", ""),  # too long for a number, and no room is called so
        (">x", ""),
        ("!", "#lobby #tea #TeaParty"),
        (",,", None),
        ("", None),
    ],
)
def test_list_has_conditions(text, wanted):
    """Any of the names and masks, none of those after !, and every bound."""
    found = protocol.parse_elist(text)
    if wanted is None:
        assert found is None
    else:
        rooms = [name for name in ROOMS if found.accepts(name, *ROOMS[name], NOW)]
        assert " ".join(rooms) == wanted


def test_list_has_so_many_conditions():
    """What is too much is dropped: no LIST costs more than MAX_CONDITIONS for a room."""
    found = protocol.parse_elist(",".join(["#a"] * 15 + ["!#b"] * 15 + [">1"] * 15))
    assert len(found.masks + found.hidden + found.bounds) == protocol.MAX_CONDITIONS


@given(st.text(max_size=40) | st.text("CT<>!*,#a1", max_size=40))
def test_queries_take_anything(text):
    """No peer can make them fail."""
    protocol.parse_whox(text)
    found = protocol.parse_elist(text)
    if found is not None:
        found.accepts("#tea", 1, 0.0, 0.0, NOW)


# Durations


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
        ("*", 0, "for ever"),
        ("0", 0, "for ever"),
        ("0d", 0, "for ever"),
        (str(protocol.MAX_DURATION - 1), protocol.MAX_DURATION - 1, "521 weeks 2 days"),
        (str(protocol.MAX_DURATION), protocol.MAX_DURATION, "521 weeks 3 days"),
    ],
)
def test_a_duration_is_read_and_shown(text, seconds, words):
    """Seconds, or counts of units; people are shown the two largest."""
    assert protocol.parse_duration(text) == seconds
    assert protocol.format_duration(seconds) == words


@pytest.mark.parametrize(
    "text",
    ["", "m", "10x", "10 m", "-1", "+1", "1.5h", "1d12", "10M", "**", "5\n", "\u0663", "noise"]
    + [str(protocol.MAX_DURATION + 1), "3651d", "1w" * 522, "9" * 30, "0" * 30],
)
def test_what_is_no_duration_is_refused(text):
    """A word that begins a reason is never taken for a time; nothing lasts over ten years."""
    with pytest.raises(ValueError):
        protocol.parse_duration(text)


@given(st.integers(0, protocol.MAX_DURATION))
def test_any_number_of_seconds_is_a_duration(seconds):
    """What is said in seconds is not changed."""
    assert protocol.parse_duration(str(seconds)) == seconds
    assert protocol.format_duration(seconds)


# SASL


def fed(pieces):
    """What the pieces make; None but for the last."""
    sasl = protocol.Sasl()
    *waits, data = [sasl.feed(piece) for piece in pieces]
    assert waits == [None] * len(waits)
    return data


@pytest.mark.parametrize("size", [1, 298, 299, 300, 301, 599, 600, 601, 3072])
def test_data_comes_in_pieces_of_400(size):
    """Fewer than 400 characters end it; where it ends on a whole piece, a + does."""
    text = base64.b64encode(b"x" * size).decode()
    pieces = [text[i : i + 400] for i in range(0, len(text), 400)]
    if len(pieces[-1]) == 400:
        pieces.append("+")
    assert fed(pieces) == b"x" * size


def test_an_empty_answer_is_a_plus():
    """A + alone is no data, which is not the same as no answer."""
    assert fed(["+"]) == b""


@pytest.mark.parametrize(
    ("pieces", "error"),
    [
        (["A" * 401], protocol.TooLongError),
        (["A" * 400, "A" * 404], protocol.TooLongError),
        (["A" * 400] * 11, ProtocolError),
        (["A" * 400] * 10 + ["A" * 100], ProtocolError),
        (["A"], ProtocolError),
        (["A*AA"], ProtocolError),
        (["éAAA"], ProtocolError),
        (["*"], ProtocolError),
        (["A" * 400, "?"], ProtocolError),
    ],
)
def test_what_is_no_answer_is_refused_and_forgotten(pieces, error):
    """The next try begins anew, and nothing keeps more than MAX_SASL."""
    sasl = protocol.Sasl()
    for piece in pieces[:-1]:
        assert sasl.feed(piece) is None
    with pytest.raises(ProtocolError) as refusal:
        sasl.feed(pieces[-1])
    assert type(refusal.value) is error
    assert sasl.feed("aGk=") == b"hi"


@pytest.mark.parametrize(("over", "fits"), [(-4, True), (0, True), (4, False)])
def test_sasl_has_a_limit(over, fits):
    """To the character: base64 comes in fours."""
    text = "A" * (protocol.MAX_SASL + over)
    pieces = [text[i : i + 400] for i in range(0, len(text), 400)]
    if fits:
        assert len(fed(pieces)) == len(text) // 4 * 3
    else:
        with pytest.raises(ProtocolError):
            fed(pieces)


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (b"\0alice\0secret", ("", "alice", "secret")),
        (b"alice\0alice\0secret", ("alice", "alice", "secret")),
        ("\0李\0pässword with spaces".encode(), ("", "李", "pässword with spaces")),
        (b"", None),
        (b"alice", None),
        (b"\0alice", None),
        (b"\0\0secret", None),
        (b"\0alice\0", None),
        (b"\0alice\0sec\0ret", None),
        (b"\0alice\0\xff", None),
    ],
)
def test_plain_has_three_parts(data, wanted):
    """Whom to be, an account and a password, between NULs and in UTF-8."""
    if wanted is None:
        with pytest.raises(ProtocolError):
            protocol.parse_plain(data)
    else:
        assert protocol.parse_plain(data) == wanted


@given(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)
    | st.integers(280, 310).map("x".__mul__),
)
def test_what_a_client_composes_a_server_parses(name, password):
    """Piece by piece, each of which fits a line."""
    pieces = protocol.compose_plain(name, password)
    for piece in pieces:
        protocol.serialize(Message("AUTHENTICATE", (piece,)))
    assert protocol.parse_plain(fed(pieces)) == ("", name, password)


# ISUPPORT

TOKENS = st.lists(st.from_regex(r"[A-Z]{1,12}(=[!-9;-~]{0,60})?", fullmatch=True), max_size=50)


@given(TOKENS)
def test_every_line_of_tokens_fits(tokens):
    """All are there, in order, at most 13 a line, beside the longest of names."""
    lines = protocol.isupport(tokens)
    assert [token for line in lines for token in line] == tokens
    for line in lines:
        assert 1 <= len(line) <= 13
        params = ("👋" * protocol.MAX_NAME, *line, "are supported by this server")
        protocol.serialize(Message("005", params, "s" * 64))


def test_no_more_lines_than_it_takes():
    """Short tokens fill their lines."""
    assert [len(line) for line in protocol.isupport(["A=1"] * 27)] == [13, 13, 1]


# The chat box

ALICE = "alice!alice@192.0.2.7"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("/reply yes", ["PRIVMSG carol :yes"]),
        ("/list", ["NAMES #tea"]),
        ("/whois bob", ["WHOIS bob"]),
        ("/history", ["CHATHISTORY LATEST #tea * :50"]),
        ("/history 7", ["CHATHISTORY LATEST #tea * :7"]),
        ("/rooms", ["LIST"]),
        ("/join tea", ["JOIN #tea"]),
        ("/join #tea", ["JOIN #tea"]),
        ("/join tea :key", ["JOIN #tea ::key"]),
        ("/leave", ["PART #tea"]),
        ("/leave to sleep", ["PART #tea :to sleep"]),
        ("/topic", ["TOPIC #tea"]),
        ("/topic all about tea", ["TOPIC #tea :all about tea"]),
        ("/nick al", ["NICK al"]),
        ("/nick :x", ["NICK ::x"]),
        ("/away", ["AWAY"]),
        ("/away having lunch", ["AWAY :having lunch"]),
        ("/ignore", ["SILENCE"]),
        ("/ignore bob", ["SILENCE +bob"]),
        ("/unignore bob", ["SILENCE -bob"]),
        ("/register open sesame", ["REGISTER * * :open sesame"]),
        ("/login alice secret", ["AUTHENTICATE PLAIN", "AUTHENTICATE AGFsaWNlAHNlY3JldA=="]),
        ("/kick bob", ["KICK #tea :bob"]),
        ("/kick bob too loud", ["KICK #tea bob :too loud"]),
        ("/ban bob", ["BAN bob :*"]),
        ("/ban bob 2h", ["BAN bob :2h"]),
        ("/ban bob 2h too loud", ["BAN bob 2h :too loud"]),
        ("/ban bob too loud", ["BAN bob * :too loud"]),
        ("/ban bob loud", ["BAN bob * :loud"]),
        ("/ban bob 99999w", ["BAN bob * :99999w"]),
        ("/ban *!*@192.0.2.* 1d12h", ["BAN *!*@192.0.2.* :1d12h"]),
        ("/ban ::1 1h", ["BAN 0::1 :1h"]),
        ("/mute bob 0 noise", ["MUTE bob 0 :noise"]),
        ("/unban bob", ["UNBAN bob"]),
        ("/unban ::1", ["UNBAN 0::1"]),
        ("/bans", ["BANS"]),
        ("/announce tea is ready", ["ANNOUNCE :tea is ready"]),
        ("/stats", ["STATS"]),
    ],
)
def test_what_is_typed_becomes_lines(text, lines):
    """In #tea, where carol wrote last."""
    messages = protocol.compose(protocol.parse_input(text), "#tea", ALICE, "carol")
    assert [protocol.serialize(message).decode()[:-2] for message in messages] == lines


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("/reply yes", "Nobody has written to you yet."),
        ("/reply", "Usage: /reply MESSAGE"),
        ("/join", "Usage: /join ROOM [KEY]"),
        ("/register", "Usage: /register PASSWORD"),
        ("/login alice", "Usage: /login USERNAME PASSWORD"),
        ("/ban", "Usage: /ban TARGET [DURATION] [REASON]"),
        ("/history x", "Usage: /history [LINES]"),
        ("/whois a!b", "No such user: a!b"),
        ("/ignore :x", "No such user: :x"),
        ("/unignore #x", "No such user: #x"),
        ("/kick :x noise", "No such user: :x"),
        ("/login :x secret", "No such user: :x"),
        ("/register " + "é" * 151, "A password has at most 300 bytes."),
        ("/login alice " + "x" * 301, "A password has at most 300 bytes."),
    ],
)
def test_what_cannot_be_done_is_said(text, words):
    """Nothing is sent, and the words help."""
    with pytest.raises(protocol.InputError) as refusal:
        protocol.compose(protocol.parse_input(text), "#tea", ALICE)
    assert str(refusal.value) == words


@pytest.mark.parametrize("text", ["/leave", "/topic", "/topic x", "/kick bob", "/list", "hello"])
def test_what_is_about_a_room_wants_one(text):
    """And says how one gets into one."""
    with pytest.raises(protocol.InputError) as refusal:
        protocol.compose(protocol.parse_input(text), "", ALICE)
    assert "/join ROOM" in str(refusal.value)


def test_a_password_is_never_cut():
    """The longest that there may be arrives whole, however long the names beside it."""
    password = "x" * protocol.MAX_PASSWORD
    for text in ("/register ", "/login %s " % ("李" * protocol.MAX_NAME)):
        source = "%s!%s@%s" % ("👋" * protocol.MAX_NAME, "u" * 10, "h" * 63)
        messages = protocol.compose(protocol.parse_input(text + password), "#tea", source)
        lines = [protocol.serialize(message) for message in messages]
        if text == "/register ":
            assert lines == [("REGISTER * * :%s\r\n" % password).encode()]
        else:
            data = fed([protocol.parse(line[:-2]).params[0] for line in lines[1:]])
            assert protocol.parse_plain(data)[2] == password


@given(
    st.sampled_from(sorted(protocol.VERBS)),
    st.text(max_size=30)
    | st.integers(400, 600).map("é ".__mul__)
    | st.text(":#&+ab1m* ", max_size=9),
)
def test_whatever_is_typed_can_be_sent(verb, rest):
    """Every verb becomes lines that can carry it, or is refused with words."""
    text = protocol.clean("/%s %s" % (verb, rest), protocol.MAX_TYPED).strip()
    try:
        messages = protocol.compose(protocol.parse_input(text), "#tea", ALICE, "carol")
    except protocol.InputError as refusal:
        assert str(refusal)
        return
    for message in messages:
        protocol.serialize(message)


def test_every_verb_can_be_composed():
    """The words of a row's wire are those of its arguments; the sets name verbs that are there."""
    for name, row in protocol.VERBS.items():
        names = row.args.replace("[", "").replace("]", "").split()
        for word in row.wire.split()[1:]:
            assert word.lstrip("+-") in [*names, "HERE", "LATEST", "*"], name
    assert set(protocol.VERBS) > protocol.FOR_OPERATORS | protocol.SECRETS


def test_help_says_what_only_operators_may_do():
    """At the end, all of it and nothing else."""
    assert list(protocol.help_lines())[-1] == (
        "Only operators may use: /kick, /ban, /mute, /unban, /bans, /announce, /stats"
    )


# What people see


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        (":bob!b@h JOIN #lobby", "bob joined the chat"),
        (":bob!b@h JOIN #LOBBY account :Bob", "bob joined the chat"),
        (":bob!b@h JOIN #tea", "bob joined #tea"),
        (":bob!b@h PART #tea :bye", "bob left #tea"),
        (":alice!a@h TOPIC #tea :about tea", "alice set the topic: about tea"),
        (":alice!a@h TOPIC #tea :", "alice cleared the topic"),
        (":alice!a@h KICK #tea bob :too loud", "bob was removed from #tea by alice: too loud"),
        (":alice!a@h KICK #tea bob", "bob was removed from #tea by alice"),
        (":alice!a@h KICK #tea bob :", "bob was removed from #tea by alice"),
        (":alice!a@h INVITE me #tea", "alice invites you to #tea. Type /join #tea"),
        (":alice!a@h INVITE bob #tea", "alice invited bob to #tea"),
        (":alice!a@h KILL me :spam", "You were removed from the chat by alice: spam"),
        (":alice!a@h WALLOPS :look here", "alice to all operators: look here"),
        (":alice!a@h MODE #tea +o bob", "alice made bob an operator of #tea"),
        (":alice!a@h MODE #tea -o bob", "alice made bob an ordinary member of #tea"),
        (
            ":alice!a@h MODE #tea +v-v bob carol",
            "alice gave bob a voice in #tea, took carol's voice in #tea",
        ),
        (":alice!a@h MODE #tea +b bob!*@*", "alice banned bob from #tea"),
        (":alice!a@h MODE #tea -b *!*@192.0.2.7", "alice lifted the ban of 192.0.2.7 from #tea"),
        (":alice!a@h MODE #tea +b *!*@*", "alice banned * from #tea"),
        (":alice!a@h MODE #tea +k sesame", "alice set a key to #tea"),
        (":alice!a@h MODE #tea -k sesame", "alice removed the key to #tea"),
        (":alice!a@h MODE #tea +l 20", "alice limited #tea to 20 people"),
        (":srv MODE #tea +m", "srv let only operators and those with a voice write in #tea"),
        (":alice!a@h MODE #tea +z", "alice set the mode +z of #tea"),
        (":srv 001 me :Welcome to Hubbub, me.", "Welcome to Hubbub, me. Type /help for commands."),
        (":srv 271 me bob!*@*", "You ignore bob"),
        (":srv 301 me bob :having lunch", "bob is away: having lunch"),
        (":srv 305 me :You are no longer marked as being away", "You are back."),
        (":srv 306 me :You have been marked", "You are away. Type /away to be back."),
        (":srv 311 me bob b 192.0.2.7 * :Bob B.", "bob is Bob B. (b@192.0.2.7)"),
        (":srv 313 me bob :is an IRC operator", "bob is an operator"),
        (":srv 314 me bob b 192.0.2.7 * :Bob B.", "bob was Bob B. (b@192.0.2.7)"),
        (":srv 317 me bob 300 1795367442 :seconds idle", "bob has said nothing for 5 minutes"),
        (":srv 317 me bob 0 1795367442 :seconds idle", "bob has said nothing for 1 second"),
        (":srv 317 me bob x 1795367442 :seconds idle", "bob has said nothing for x"),
        (":srv 319 me bob :@#tea #lobby", "bob is in @#tea #lobby"),
        (":srv 322 me #tea 3 :about tea", "#tea (3): about tea"),
        (":srv 322 me #tea 3 :", "#tea (3)"),
        (":srv 330 me bob robert :is logged in as", "bob is logged in as robert"),
        (":srv 331 me #tea :No topic is set", "#tea has no topic. Type /topic TOPIC to set one."),
        (":srv 332 me #tea :about tea", "Topic: about tea"),
        (":srv 335 me bob :is a bot", "bob is a bot"),
        (":srv 336 me #tea", "You are invited to #tea. Type /join #tea"),
        (":srv 341 me bob #tea", "You invited bob to #tea"),
        (":srv 351 me hubbub-1 srv :Hubbub", "hubbub-1 srv Hubbub"),
        (":srv 367 me #tea bob!*@* alice 1795367442", "bob is banned from #tea"),
        (":srv 381 me :You are now an IRC operator", "You are an operator now."),
        (":srv 401 me dave :No such nick", "No such user: dave"),
        (":srv 403 me #x :No such channel", "No such room: #x"),
        (":srv 404 me #tea :You are muted", "You are muted"),
        (
            ":srv 405 me #x :Too many",
            "You are in as many rooms as you may. Type /leave in one of them first.",
        ),
        (":srv 406 me dave :There was no such nickname", "There was nobody called dave"),
        (":srv 441 me bob #tea :They aren't on that channel", "bob is not in #tea"),
        (":srv 442 me #tea :You're not", "You are not in #tea. Type /join #tea"),
        (":srv 443 me bob #tea :is already on channel", "bob is in #tea already"),
        (":srv 465 me :banned for 2 hours", "You may not come in: banned for 2 hours"),
        (":srv 471 me #tea :Cannot join", "#tea is full. Try again later."),
        (
            ":srv 473 me #tea :Cannot join",
            "#tea is for those who are invited. Ask somebody there to invite you.",
        ),
        (":srv 474 me #tea :Cannot join", "You are banned from #tea. Its operators can lift that."),
        (":srv 475 me #tea :Cannot join", "#tea has a key. Type /join #tea KEY"),
        (
            ":srv 477 me #tea :Need an account",
            "#tea is for those who have an account. Type /register PASSWORD to make one.",
        ),
        (
            ":srv 481 me :Permission denied",
            "Only operators may do that. If you are one: /login USERNAME PASSWORD",
        ),
        (":srv 482 me #tea :You're not", "Only operators of #tea may do that."),
        (":srv 499 me x :Some other refusal", "Some other refusal"),
        (":srv 705 me * :words of help", "words of help"),
        (":srv 900 me me!u@h alice :You are now", "You are logged in as alice"),
        (":srv 901 me me!u@h :You are", "You are logged out."),
        (":srv 904 me :Try again later.", "Try again later."),
        (":srv 905 me :too long", "That password is too long."),
        (":srv 907 me :already", "You are logged in already."),
        (":srv REGISTER SUCCESS alice :The name is yours", "The name is yours"),
        (":srv FAIL REGISTER WEAK_PASSWORD alice :Too short", "Too short"),
        (":srv WARN * X :Mind this", "Mind this"),
        (":srv NOTE * X :Note that", "Note that"),
    ],
)
def test_people_see(line, seen):
    """What happens, and what a server answers, in words that say what to do."""
    shown = protocol.describe(protocol.parse(line.encode()), "me", 0.0)
    assert (shown.kind, shown.head, shown.text) == (protocol.FROM_SERVER, "[SERVER]:", seen)


FOR_PROGRAMS = """
:alice!a@h TAGMSG #tea
:alice!a@h MODE alice +i
:alice!a@h MODE #tea
:bob!b@h ACCOUNT bob
:bob!b@h CHGHOST u h
:bob!b@h SETNAME :B
:bob!b@h AWAY :lunch
:srv BATCH +1 chathistory #tea
:srv CAP * LS :sasl
:srv RESUME TOKEN x
:srv ACK
AUTHENTICATE AGFsaWNlAHNlY3JldA==
AUTHENTICATE +
PASS secret
OPER alice secret
MODE
:srv 221 me +i
:srv 324 me #tea +ntk sesame
:srv 353 me = #tea :a b
"""
NUMERICS = "005 272 315 318 321 323 329 333 352 354 366 368 730 731 732 733 734 903 906 908"


@pytest.mark.parametrize(
    "line",
    FOR_PROGRAMS.strip().splitlines() + [":srv %s me x :y" % word for word in NUMERICS.split()],
)
def test_people_do_not_see(line):
    """Neither secrets, nor what programs tell each other."""
    assert protocol.describe(protocol.parse(line.encode()), "me", 0.0) is None


def test_the_lobby_has_the_name_that_it_has():
    """Where the server's lobby is called otherwise, joining that is joining the chat."""
    for lobby, seen in (("#office", "bob joined the chat"), ("", "bob joined #office")):
        message = Message("JOIN", ("#office",), "bob!b@h")
        assert protocol.describe(message, "me", 0.0, lobby).text == seen


SHOWN = sorted(
    {key.partition(" ")[0] for key in protocol._FORMS} | {"MODE", "999", "300", "TAGMSG"}
)


@given(
    st.sampled_from(SHOWN),
    st.lists(
        st.text(max_size=9) | st.sampled_from(["{0}", "{", "#tea", "+bok-l", "me"]), max_size=6
    ),
)
def test_whatever_comes_can_be_described(command, params):
    """With any parameters, and with none: it never fails."""
    protocol.describe(Message(command, tuple(params), "a!b@c"), "me", 0.0)


@given(st.text("ab!@*?.", max_size=12).map(protocol.as_mask))
def test_a_bare_mask_is_the_same_mask(mask):
    """What people are shown of it, they may write."""
    assert protocol.as_mask(protocol.bare_mask(mask)) == mask


# Hosts, and what CHATHISTORY asks for


@pytest.mark.parametrize(
    ("text", "is_one"),
    [("tea.lan", True), ("fe80::1", True), ("x" * 63, True), ("x" * 64, False), ("", False)]
    + [(word, False) for word in ("-", ":", ".lan", "a b", "a@b", "a!b", "a\n", "é")],
)
def test_a_host_can_stand_in_a_source(text, is_one):
    assert protocol.is_host(text) == is_one


@pytest.mark.parametrize(
    ("line", "query"),
    [
        ("latest #tea * 5", ("LATEST", "#tea", [(0, 0)], 5)),
        ("BEFORE #tea msgid=7 5", ("BEFORE", "#tea", [(7, 7)], 5)),
        ("BETWEEN bob msgid=7 msgid=9 5", ("BETWEEN", "bob", [(7, 7), (9, 9)], 5)),
        ("TARGETS msgid=7 msgid=9 5", ("TARGETS", "", [(7, 7), (9, 9)], 5)),
        ("LATEST #tea * 123456789000", ("LATEST", "#tea", [(0, 0)], 123456789)),
        ("READ #tea * 5", "Unknown command"),
        ("LATEST", "Too few parameters, too many, or a limit that is no number"),
        ("LATEST #tea * 5 6", "Too few parameters, too many, or a limit that is no number"),
        ("TARGETS msgid=7 5", "Too few parameters, too many, or a limit that is no number"),
        ("LATEST #tea * x", "Too few parameters, too many, or a limit that is no number"),
        ("BEFORE #tea * 5", "Not a msgid or a timestamp"),
        ("BEFORE #tea 7 5", "Not a msgid or a timestamp"),
    ],
)
def test_chathistory_asks_for_so_much_of_a_conversation(line, query):
    """Or breaks a rule, in words."""
    if isinstance(query, tuple):
        assert protocol.parse_chathistory(line.split()) == query
        return
    with pytest.raises(protocol.ProtocolError, match=query):
        protocol.parse_chathistory(line.split())
