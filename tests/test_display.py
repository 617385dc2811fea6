"""protocol.py: what users see of messages, and what they type into the chat box."""

import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from test_protocol import NASTY, is_safe

import protocol
import server
from protocol import (
    CLIENT_VERBS,
    FROM_ME,
    FROM_OTHERS,
    FROM_SERVER,
    MAX_NAME,
    MAX_PASSWORD,
    OPERATOR_VERBS,
    PRIVATE,
    SECRET_VERBS,
    VERBS,
    InputError,
    Message,
)
from server import MAX_PLAIN_LINE, PLAIN_VERBS

ALICE = "alice!alice@192.0.2.7"
NOON = time.mktime((2026, 11, 22, 12, 0, 0, 0, 0, -1))  # in the time zone of the reader


# Display
# -------


def describe(line, *args):
    """Return what the user with the nickname `me` sees of a line from the network."""
    message = protocol.clean_message(protocol.parse(line.encode()))
    return protocol.describe(message, "me", NOON, *args)


@pytest.mark.parametrize(
    ("line", "kind", "sender", "shown"),
    [
        (":al!a@h PRIVMSG #tea :Hello!", FROM_OTHERS, "al", "[al]: Hello!"),
        (":Me!m@h PRIVMSG #tea :Hello!", FROM_ME, "Me", "[Me]: Hello!"),
        (":al!a@h NOTICE #tea :Hello!", FROM_OTHERS, "al", "[al]: Hello!"),
        (":al!a@h PRIVMSG me :Hello!", PRIVATE, "al", "[al -> you]: Hello!"),
        (":me!m@h PRIVMSG al :Hello!", PRIVATE, "me", "[you -> al]: Hello!"),
        (":al!a@h PRIVMSG #tea :\x01ACTION waves\x01", FROM_OTHERS, "al", "* al waves"),
        (":al!a@h PRIVMSG me :\x01ACTION waves\x01", PRIVATE, "al", "[al -> you]: * al waves"),
        (":al!a@h PRIVMSG #tea :\x1b[2J\u202eevil", FROM_OTHERS, "al", "[al]: [2Jevil"),
        (":srv NOTICE me :Restarting", FROM_SERVER, "", "[SERVER]: Restarting"),
        (":srv NOTICE me :\x01ACTION waves\x01", FROM_SERVER, "", "[SERVER]: waves"),
        (":bob!b@h JOIN #lobby", FROM_SERVER, "", "[SERVER]: bob joined the chat"),
    ],
)
def test_line_has_kind_sender_and_local_time(line, kind, sender, shown):
    seen = describe(line)
    assert (seen.kind, seen.nickname, str(seen)) == (kind, sender, "[12:00:00] " + shown)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (":bob!b@h JOIN #LOBBY account :Bob", "bob joined the chat"),
        (":bob!b@h JOIN #tea", "bob joined #tea"),
        (":bob!b@h PART #tea :bye", "bob left #tea"),
        (":bob!b@h QUIT :bye", "bob left the chat"),
        (":bob!b@h NICK robert", "bob is now called robert"),
        (":alice!a@h TOPIC #tea :about tea", "alice set the topic: about tea"),
        (":alice!a@h TOPIC #tea :", "alice cleared the topic"),
        (":alice!a@h KICK #tea bob :too loud", "bob was removed from #tea by alice: too loud"),
        (":alice!a@h KICK #tea bob", "bob was removed from #tea by alice"),
        (":alice!a@h KICK #tea ME :alice", "You were removed from #tea by alice"),
        (":alice!a@h KICK #tea bob :alice", "bob was removed from #tea by alice"),
        (":alice!a@h KICK #tea bob :", "bob was removed from #tea by alice"),
        (":alice!a@h INVITE me #tea", "alice invites you to #tea. Type /join #tea"),
        (":alice!a@h INVITE bob #tea", "alice invited bob to #tea"),
        (":alice!a@h KILL me :spam", "You were removed from the chat by alice: spam"),
        (":alice!a@h MODE #tea +o bob", "alice made bob an operator of #tea"),
        (":alice!a@h MODE #tea +o Alice", "alice became an operator of #tea"),
        (":alice!a@h MODE #tea -v alice", "alice gave up the voice in #tea"),
        (":alice!a@h MODE #tea +b alice", "alice banned alice from #tea"),
        (":alice!a@h MODE #tea -o bob", "alice made bob an ordinary member of #tea"),
        (
            ":alice!a@h MODE #tea +v-v bob carol",
            "alice gave bob a voice in #tea, took carol's voice in #tea",
        ),
        (":alice!a@h MODE #tea +b bob!*@*", "alice banned bob from #tea"),
        (":alice!a@h MODE #tea -b *!*@192.0.2.7", "alice lifted the ban of 192.0.2.7 from #tea"),
        (":alice!a@h MODE #tea +b *!*@*", "alice banned * from #tea"),
        (":alice!a@h MODE #tea +k sesame", "alice set a password for #tea"),
        (":alice!a@h MODE #tea -k sesame", "alice removed the password of #tea"),
        (":alice!a@h MODE #tea +l 20", "alice limited #tea to 20 people"),
        (
            ":srv MODE #tea +m",
            "The server now lets only operators and those with a voice write in #tea",
        ),
        (":alice!a@h MODE #tea +z", "alice set the mode +z of #tea"),
        (":srv MODE #tea -m", "The server now lets everyone write in #tea"),
        (":alice!a@h MODE #tea +i", "alice now lets only invited people join #tea"),
        (":alice!a@h MODE #tea -i", "alice now lets everyone join #tea"),
        (":alice!a@h MODE #tea +n", "alice now lets only members write in #tea"),
        (":alice!a@h MODE #tea -n", "alice now lets people outside write in #tea, too"),
        (":alice!a@h MODE #tea +s", "alice now hides #tea from people outside"),
        (":alice!a@h MODE #tea -s", "alice now shows #tea to people outside"),
        (":srv MODE #tea +t", "The server now lets only operators set the topic of #tea"),
        (":srv MODE #tea -t", "The server now lets everyone in #tea set the topic"),
        (":srv 001 me :Welcome to Hubbub, me.", "Welcome to Hubbub, me. Type /help for commands."),
        (":srv 249 me * :clients: 3", "clients: 3"),
        (":srv 301 me bob :having lunch", "bob is away: having lunch"),
        (":srv 301 me bob :Away", "bob is away"),
        (":srv 305 me :You are no longer marked as being away", "You are back."),
        (":srv 306 me :You have been marked", "You are away."),
        (":srv 311 me bob b 192.0.2.7 * :Bob B.", "bob is Bob B. (b@192.0.2.7)"),
        (":srv 313 me bob :is an IRC operator", "bob is an operator"),
        (":srv 314 me bob b 192.0.2.7 * :Bob B.", "bob was Bob B. (b@192.0.2.7)"),
        (":srv 671 me bob :is using a secure connection", "bob has an encrypted connection"),
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
        (":srv 372 me :- Hello", "- Hello"),
        (":srv 381 me :You are now an IRC operator", "You are an operator now."),
        (":srv 400 me FOO :Some refusal", "Some refusal"),
        (":srv 401 me dave :No such nick", "No such user: dave"),
        (":srv 403 me #x :No such channel", "No such room: #x"),
        (":srv 479 me #x! :A room's name has rules.", "A room's name has rules."),
        (":srv 404 me #tea :You are muted", "You are muted"),
        (
            ":srv 405 me #x :Too many",
            "You cannot be in more rooms. Type /leave in one of them first.",
        ),
        (":srv 406 me dave :There was no such nickname", "There was no user called dave"),
        (":srv 421 me /foo :Unknown", "Unknown command: /foo. Type /help for the list."),
        (":bob!b@h QUIT :Killed by root", "bob was removed from the chat by root"),
        (":bob!b@h QUIT :Banned by root: noise", "bob was banned from the chat by root: noise"),
        (":bob!b@h QUIT :Quit: Killed by root", "bob left the chat"),
        (":srv 433 * alice :In use", "Username already taken: alice. Choose another."),
        (":srv 441 me bob #tea :They aren't on that channel", "bob is not in #tea"),
        (":srv 442 me #tea :You're not", "You are not in #tea. Type /join #tea"),
        (":srv 443 me bob #tea :is already on channel", "bob is already in #tea"),
        (":srv 471 me #tea :Cannot join", "#tea is full. Try again later."),
        (
            ":srv 473 me #tea :Cannot join",
            "#tea is open to invited users only. Its operators can invite you.",
        ),
        (":srv 474 me #tea :Cannot join", "You are banned from #tea. Its operators can lift that."),
        (":srv 475 me #tea :Cannot join", "#tea has a password. Type /join #tea PASSWORD"),
        (
            ":srv 477 me #tea :Need an account",
            "#tea is open to users with an account only. Type /register PASSWORD to make one.",
        ),
        (
            ":srv 481 me :Permission denied",
            "Only operators may do that. If you are one, log in with /login USERNAME",
        ),
        (":srv 482 me #tea :You're not", "Only operators of #tea may do that."),
        (":srv 499 me x :Some other refusal", "Some other refusal"),
        (":srv 705 me * :words of help", "words of help"),
        (":srv 900 me me!u@h alice :You are now", "You are logged in as alice"),
        (":srv 901 me me!u@h :You are", "You are logged out."),
        (":srv 904 me :Try again later.", "Try again later."),
        (":srv 905 me :too long", "That password is too long."),
        (":srv 907 me :already", "You are already logged in."),
        (":srv REGISTER SUCCESS alice :The name is yours", "The name is yours"),
        (":srv FAIL REGISTER WEAK_PASSWORD alice :Too short", "Too short"),
        (":srv WARN * X :Mind this", "Mind this"),
        (":srv NOTE * X :Note that", "Note that"),
        ("ERROR :Goodbye.", "Goodbye."),
    ],
)
def test_events_and_numerics_are_shown_in_words(line, text):
    assert describe(line) == protocol.server_line(text, NOON)


FOR_PROGRAMS = """
:alice!a@h PRIVMSG #tea :\x01VERSION\x01
:srv PRIVMSG me :\x01VERSION\x01
:alice!a@h PRIVMSG #tea
:alice!a@h TAGMSG #tea
:alice!a@h MODE alice +i
:alice!a@h MODE #tea
:bob!b@h ACCOUNT bob
:bob!b@h CHGHOST u h
:bob!b@h SETNAME :B
:bob!b@h AWAY :lunch
:bob!b@h WALLOPS :look
:srv BATCH +1 chathistory #tea
:srv CAP * LS :sasl
:srv PONG x
:srv RESUME TOKEN x
:srv ACK
PING x
AUTHENTICATE AGFsaWNlAHNlY3JldA==
AUTHENTICATE +
PASS secret
OPER alice secret
MODE
:srv 221 me +i
:srv 324 me #tea +ntk sesame
:srv 353 me = #tea :a b
"""
NUMERICS = "005 315 318 321 323 329 333 352 354 366 368 730 731 732 733 734 903 906 908"


@pytest.mark.parametrize(
    "line",
    FOR_PROGRAMS.strip().splitlines() + [":srv %s me x :y" % word for word in NUMERICS.split()],
)
def test_secrets_and_messages_between_programs_are_not_shown(line):
    assert describe(line) is None


@pytest.mark.parametrize(
    ("lobby", "text"), [("#office", "bob joined the chat"), ("", "bob joined #office")]
)
def test_joining_the_lobby_is_joining_the_chat(lobby, text):
    assert describe(":bob!b@h JOIN #office", lobby).text == text


def test_modes_are_those_of_the_server():
    modes = protocol.channel_modes("bq,k,l,im", "ov")
    line = describe(":alice!a@h MODE #tea +qo carol!*@* bob", "", modes)
    assert line.text == "alice set the mode +q of #tea, made bob an operator of #tea"


COMMANDS = (
    "PRIVMSG NOTICE JOIN PART QUIT NICK TOPIC KICK INVITE KILL MODE REGISTER ERROR FAIL WARN NOTE"
    " TAGMSG X".split()
)


def check_is_safe(message):
    shown = protocol.describe(protocol.clean_message(message), "me", NOON)
    assert shown is None or is_safe(str(shown))


@pytest.mark.parametrize("word", ["", "{0}{x}{", "#tea", "me", "+bok-lz", "\x01ACTION \x1b\x01"])
def test_any_command_is_safe_to_show_with_any_number_of_parameters(word):
    for command in [*COMMANDS, *("%03d" % number for number in range(1000))]:
        for count in range(8):
            for source in ("srv", ALICE, "{1}\x01!\n@"):
                check_is_safe(Message(command, (word,) * count, source))


@given(
    st.sampled_from([*COMMANDS, "001", "317", "332", "367", "401", "499"]),
    st.lists(NASTY | st.sampled_from(["#tea", "me", "+bok-l"]), max_size=6).map(tuple),
    NASTY,
)
@example("PRIVMSG", ("bob", "{0}\x01ACTION \x1b"), "a!b@c")
def test_any_text_is_safe_to_show(command, params, source):
    check_is_safe(Message(command, params, source))


@pytest.mark.parametrize(
    ("names", "lines"),
    [
        ([], ["Online users (0): "]),
        (["carol", "Alice", "bob"], ["Online users (3): Alice, bob, carol"]),
        (
            ["n%02d" % n + "x" * 29 for n in range(11)],
            [
                "Online users (11): " + ", ".join("n%02d" % n + "x" * 29 for n in range(10)),
                "n10" + "x" * 29,
            ],
        ),
    ],
)
def test_online_users_are_sorted_and_split_into_lines(names, lines):
    assert protocol.online_lines(names) == lines


# The chat box
# ------------


def compose(text, channel="#tea"):
    """Return the messages for what alice types where carol wrote to her last."""
    return protocol.compose(protocol.parse_input(text), channel, ALICE, "carol")


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("Hello everyone!", ["PRIVMSG #tea :Hello everyone!"]),
        ("  two  spaces ", ["PRIVMSG #tea :  two  spaces "]),
        ("//list is a command", ["PRIVMSG #tea :/list is a command"]),
        ("mail@example.org", ["PRIVMSG #tea :mail@example.org"]),
        ("@bob Hello  Bob!", ["PRIVMSG bob :Hello  Bob!"]),
        ("@bob: Hello", ["PRIVMSG bob :Hello"]),
        ("@bob, @carol hi", ["PRIVMSG bob :@carol hi"]),
        ("@李 hi", ["PRIVMSG 李 :hi"]),
        ("/msg bob Hello  Bob", ["PRIVMSG bob :Hello  Bob"]),
        ("/MSG bob hi", ["PRIVMSG bob :hi"]),
        ("/reply yes", ["PRIVMSG carol :yes"]),
        ("/me waves twice", ["PRIVMSG #tea :\x01ACTION waves twice\x01"]),
        ("/list", ["NAMES #tea"]),
        ("/list ", ["NAMES #tea"]),
        ("    return 1", ["PRIVMSG #tea :    return 1"]),
        ("  // a comment", ["PRIVMSG #tea :  // a comment"]),
        ("  @bob psst", ["PRIVMSG bob :psst"]),
        ("\u3000/NICK al", ["NICK al"]),
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
        ("/ignore", []),
        ("/ignore bob", []),
        ("/unignore bob", []),
        ("/help", []),
        ("/quit", ["QUIT"]),
        ("/quit see you", ["QUIT :see you"]),
        ("/register open sesame", ["REGISTER * * :open sesame"]),
        ("/login alice secret", ["AUTHENTICATE PLAIN", "AUTHENTICATE AGFsaWNlAHNlY3JldA=="]),
        ("/kick bob", ["KICK #tea :bob"]),
        ("/invite bob", ["INVITE bob :#tea"]),
        ("/mode +t", ["MODE #tea :+t"]),
        ("/mode +o bob", ["MODE #tea +o :bob"]),
        ("/kick bob too loud", ["KICK #tea bob :too loud"]),
        ("/ban bob", ["BAN bob :*"]),
        ("/ban bob 2h", ["BAN bob :2h"]),
        ("/ban bob 2h too loud", ["BAN bob 2h :too loud"]),
        ("/ban bob too loud", ["BAN bob * :too loud"]),
        ("/ban bob loud", ["BAN bob * :loud"]),
        ("/ban bob * 2 hours of noise", ["BAN bob * :2 hours of noise"]),
        ("/ban bob 90", ["BAN bob :90"]),
        ("/ban bob -- noise", ["BAN bob * :-- noise"]),
        ("/ban *!*@192.0.2.* 1d12h", ["BAN *!*@192.0.2.* :1d12h"]),
        ("/ban ::1 1h", ["BAN 0::1 :1h"]),
        ("/mute bob 0 noise", ["MUTE bob 0 :noise"]),
        ("/unban bob", ["UNBAN bob"]),
        ("/unban ::1", ["UNBAN 0::1"]),
        ("/unban a:1", ["UNBAN a:1"]),
        ("/bans", ["BANS"]),
        ("/announce tea is ready", ["ANNOUNCE :tea is ready"]),
        ("/stats", ["STATS"]),
    ],
)
def test_typed_line_becomes_messages(text, lines):
    assert [protocol.serialize(message).decode()[:-2] for message in compose(text)] == lines


NO_ROOM = "You are not in a room. Join one with /join ROOM, or write to one person: @USERNAME TEXT"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("/foo", "Unknown command: /foo. Type /help for the list."),
        ("/foo bar", "Unknown command: /foo. Type /help for the list."),
        ("/lsit", "Unknown command: /lsit. Did you mean /list?"),
        ("/JION tea", "Unknown command: /JION. Did you mean /join?"),
        ("/hist", "Unknown command: /hist. Did you mean /history?"),
        ("/l", "Unknown command: /l. Did you mean /list or /leave?"),
        ("/", "Unknown command: /. Type /help for the list."),
        *(
            (text, "Usage: @USERNAME MESSAGE")
            for text in ("@", "@bob", "@bob ", "@ bob hi", "@: a")
        ),
        *((text, "Usage: /msg USERNAME MESSAGE") for text in ("/msg", "/msg bob")),
        ("/me", "Usage: /me ACTION"),
        ("/nick", "Usage: /nick USERNAME"),
        ("/reply", "Usage: /reply MESSAGE"),
        ("/join", "Usage: /join ROOM [PASSWORD]"),
        ("/register", "Usage: /register PASSWORD"),
        ("/login alice", "Usage: /login USERNAME PASSWORD"),
        ("/ban", "Usage: /ban TARGET [DURATION] [REASON]"),
        *(
            ("/%s bob %s" % (verb, words), protocol.INVALID_DURATION)
            for verb in ("ban", "mute")
            for words in ("1.5h", "-5m", "+5m", ".5h", "11y", "2 hours", "99999w", "2h30", "٣ days")
        ),
        ("/history x", "Usage: /history [LINES]"),
        ("@#lobby hi", "No such user: #lobby"),
        ("/whois a!b", "No such user: a!b"),
        ("/ignore :x", "No such user: :x"),
        ("/unignore #x", "No such user: #x"),
        ("/kick :x noise", "No such user: :x"),
        ("/login :x secret", "No such user: :x"),
        ("/register " + "é" * 151, "A password has at most 300 bytes."),
        ("/login alice " + "x" * 301, "A password has at most 300 bytes."),
    ],
)
def test_typed_line_that_cannot_be_sent_is_refused_with_help(text, words):
    with pytest.raises(InputError) as refusal:
        compose(text)
    assert str(refusal.value) == words


@pytest.mark.parametrize(
    "text", ["hello", "/me waves", "/leave", "/topic", "/topic x", "/kick bob", "/list", "/history"]
)
def test_commands_about_a_channel_need_one(text):
    with pytest.raises(InputError) as refusal:
        compose(text, "")
    assert str(refusal.value) == NO_ROOM


def test_reply_needs_a_private_message():
    with pytest.raises(InputError, match="no private message to reply to"):
        protocol.compose(protocol.parse_input("/reply yes"), "#tea", ALICE)


def test_long_action_is_truncated_and_stays_an_action():
    (message,) = compose("/me " + "é" * 600)
    assert message.text.startswith("\x01ACTION é")
    assert message.text.endswith("\x01")
    protocol.serialize(message._replace(source=ALICE))


def test_longest_password_is_not_truncated():
    password = "x" * MAX_PASSWORD
    (register,) = compose("/register " + password)
    assert register == Message("REGISTER", ("*", "*", password))
    _, *chunks = compose("/login %s %s" % ("李" * MAX_NAME, password))
    data = server.join_sasl([message.text for message in chunks])
    assert server.parse_sasl_plain(data)[2] == password


@given(
    st.sampled_from(["", "@", "@bob ", "/", *("/%s " % verb for verb in sorted(VERBS))]),
    NASTY
    | st.integers(400, 600).map("é ".__mul__)
    | st.text(":#&+ab1m*@/ ", max_size=9)
    | NASTY.map("bob ".__add__),
)
def test_any_typed_line_is_sent_or_refused_with_help(prefix, rest):
    text = protocol.clean(prefix + rest, MAX_PLAIN_LINE).rstrip()
    try:
        messages = compose(text)
    except InputError as refusal:
        assert str(refusal)
        return
    for message in messages:
        protocol.serialize(message)
        if message.command == "PRIVMSG":
            protocol.serialize(message._replace(source=ALICE))


@given(st.text(max_size=30) | st.from_regex(r"[/@][a-z/@:]{0,5}\s?.*", fullmatch=True))
def test_parse_input_raises_only_input_errors(text):
    try:
        typed = protocol.parse_input(text)
    except InputError as refusal:
        assert str(refusal)
    else:
        assert typed.verb == "say" or typed.verb in VERBS


def test_table_of_verbs_is_consistent():
    for name, row in VERBS.items():
        arguments = row.args.replace("[", "").replace("]", "").split()
        for word in row.wire.split()[1:]:
            assert word in [*arguments, "HERE", "CHANNEL", "LATEST", "*"], name
    assert set(VERBS) > OPERATOR_VERBS | SECRET_VERBS | CLIENT_VERBS


@pytest.mark.parametrize("verbs", [VERBS, PLAIN_VERBS])
def test_help_lists_the_verbs_of_the_table(verbs):
    lines = list(protocol.help_lines(verbs))
    assert lines[1].startswith("@USERNAME MESSAGE — ")
    assert lines[3:-1] == [
        ("/%s %s" % (name, verb.args)).strip() + " — " + verb.help for name, verb in verbs.items()
    ]
    assert lines[-1] == (
        "Only operators may use: /kick, /ban, /mute, /unban, /bans, /drop, /announce, /stats"
    )


@pytest.mark.parametrize("verb", sorted(CLIENT_VERBS))
def test_plain_text_has_no_verbs_of_the_client(verb):
    assert protocol.parse_input("/%s bob" % verb).args == ("bob",)
    with pytest.raises(InputError, match="Unknown command: /%s" % verb):
        protocol.parse_input("/%s bob" % verb, PLAIN_VERBS)
    assert set(VERBS) - set(PLAIN_VERBS) == CLIENT_VERBS


def test_users_read_of_passwords_and_not_of_keys():
    """In all that is shown; on the wire, IRC calls the password of a room its key."""
    shown = [protocol._TEXTS, protocol._MODE_TEXTS, protocol._OWN_MODE_TEXTS]
    texts = [text for texts in shown for text in texts.values()]
    texts += protocol.help_lines()
    assert not [text for text in texts if re.search(r"\bkey\b", text, re.IGNORECASE)]


@pytest.mark.parametrize(
    ("typed", "params"),
    [
        ("+o bob", ("+o", "bob")),
        ("+oo bob  carol", ("+oo", "bob", "carol")),
        ("+o-v+k bob carol sesame", ("+o-v+k", "bob", "carol", "sesame")),
        ("+to bob", ("+to", "bob")),
        ("+t", ("+t",)),
        ("b", ("b",)),
        ("+q bob", ("+q", "bob")),  # of another server
    ],
)
def test_each_mode_has_an_argument_of_its_own(typed, params):
    (message,) = protocol.compose(protocol.parse_input("/mode " + typed), "#tea", "me!m@h")
    assert message == Message("MODE", ("#tea", *params))


@pytest.mark.parametrize("typed", ["+k open sesame", "+t bob", "+tk open sesame", "+o bob carol"])
def test_more_arguments_than_modes_are_refused(typed):
    """Half of a password with a space would be set, and nobody would know."""
    with pytest.raises(protocol.InputError, match=r"Usage: /mode MODES \[ARGUMENTS\]"):
        protocol.compose(protocol.parse_input("/mode " + typed), "#tea", "me!m@h")


@pytest.mark.parametrize(
    ("text", "size", "shown"),
    [
        ("tea", 3, "tea"),
        ("teas", 4, "teas"),
        ("teapot", 5, "te…"),
        ("чай", 6, "чай"),
        ("чайник", 11, "чайн…"),
        ("чайник", 10, "чай…"),  # not within a character
        ("茶茶茶", 8, "茶…"),
        ("🫖🫖", 7, "🫖…"),
    ],
)
def test_text_is_shortened_between_characters(text, size, shown):
    assert server.shorten(text, size) == shown
