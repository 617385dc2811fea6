"""The server: who hears which messages, and the clients that leave, lie, flood or fall silent."""

import itertools
import random
import re
import threading
import time

import pytest
from harness import IrcTalker, PlainTalker, count_descriptors, folded

import protocol
import server
from protocol import MAX_MESSAGE, VERSION
from server import BURST, MAX_CHANNELS, MAX_CLIENT_TAGS, MAX_PLAIN_LINE, SEVER, Ending

# Talking


def test_irc_and_plain_text_users_talk_to_each_other(room):
    """Each is shown a message in the form of their dialect."""
    alice, bob, carol = room.irc("alice"), room.irc("bob"), room.plain("carol")
    alice.send("PRIVMSG #lobby :Hello everyone!")
    bob.expect(":alice!alice@127.0.0.1 PRIVMSG #lobby :Hello everyone!")
    carol.expect("[alice]: Hello everyone!")
    carol.send("Hello alice!")
    alice.expect(":carol!nc@127.0.0.1 PRIVMSG #lobby :Hello alice!")
    carol.expect("[carol]: Hello alice!")


def test_conversation_in_plain_text(room):
    """The lines are those of the design, to the letter."""
    alice = room.plain("alice")
    bob = room.plain("bob")
    assert alice.heard() == ["[SERVER]: bob joined the chat"]
    alice.send("Hello everyone!", "@bob Hello Bob!", "/list", "@dave hi", "/foo", "/me waves")
    assert alice.heard() == [
        "[alice]: Hello everyone!",
        "[you -> bob]: Hello Bob!",
        "[SERVER]: Online users (2): alice, bob",
        "[SERVER]: No such user: dave",
        "[SERVER]: Unknown command: /foo. Type /help for the list.",
        "* alice waves",
    ]
    assert bob.heard() == [
        "[alice]: Hello everyone!",
        "[alice -> you]: Hello Bob!",
        "* alice waves",
    ]
    bob.send("/join tea", "/list")
    bob.expect("[SERVER]: Online users (1): bob")
    bob.send("/nick rob", "/quit")
    assert bob.rest() == ["[SERVER]: bob is now called rob", "[SERVER]: Goodbye."]
    alice.expect("[SERVER]: bob is now called rob")
    alice.expect("[SERVER]: rob left the chat")


def test_silent_user_is_asked_for_a_username(room, monkeypatch):
    """An invalid name is answered with the rule."""
    monkeypatch.setattr(server, "PROMPT_AFTER", 0.01)
    room.irc("alice")
    carol = room.connect(PlainTalker)
    carol.expect("[SERVER]: Welcome to Hubbub. Type your username and press Enter.")
    carol.send("alice")
    carol.expect("[SERVER]: Username already taken: alice. Choose another.")
    carol.send("1two")
    carol.expect("[SERVER]: A name begins with a letter.")
    carol.send("carol")
    carol.expect("[SERVER]: Welcome to Hubbub, carol. 2 people are here. Type /help for commands.")
    carol.send("/help")
    carol.expect("/quit [REASON] — leave the chat")


@pytest.mark.parametrize("name", [":)", "a b", "\u200b", "x" * 300, "é" * 300, "\x1b", "#lobby"])
def test_another_username_may_follow_an_invalid_one(room, name):
    """No name ends the connection."""
    carol = room.connect(PlainTalker)
    carol.send(name)
    carol.register("carol")


def test_private_message_reaches_its_recipient_alone(room):
    """Neither other members nor the sender's own IRC client get it."""
    alice, bob, eve = room.irc("alice"), room.irc("bob"), room.irc("eve")
    carol, dora = room.plain("carol"), room.plain("dora")
    for talker in (alice, bob, eve, carol, dora):
        talker.heard()
    alice.send("PRIVMSG BOB :psst", "PRIVMSG carol :psst", "NOTICE bob :psst")
    assert alice.heard() == []
    carol.send("@bob psst")
    assert carol.heard() == ["[alice -> you]: psst", "[you -> bob]: psst"]
    assert bob.heard() == [
        ":alice!alice@127.0.0.1 PRIVMSG bob :psst",
        ":alice!alice@127.0.0.1 NOTICE bob :psst",
        ":carol!nc@127.0.0.1 PRIVMSG bob :psst",
    ]
    assert eve.heard() == dora.heard() == []


def test_input_of_several_messages_is_refused_once(room):
    """The messages after a refused message are not tried."""
    ann = room.plain("ann")
    ann.send("/login ann a-password")
    (line,) = ann.heard()
    assert line == "[SERVER]: This server keeps no accounts."


def test_user_can_write_to_themselves(room):
    """The message comes a single time."""
    alice, carol = room.irc("alice"), room.plain("carol")
    alice.heard()
    alice.send("PRIVMSG alice :buy milk")
    assert alice.heard() == [":alice!alice@127.0.0.1 PRIVMSG alice :buy milk"]
    carol.send("@carol buy milk")
    assert carol.heard() == ["[carol -> you]: buy milk"]


def test_notice_is_never_answered(room):
    """Not even with an error, so two programs cannot answer each other forever."""
    alice = room.irc("alice")
    alice.send("NOTICE", "NOTICE alice", "NOTICE dave :x", "NOTICE #nowhere :x", "NOTICE :")
    assert alice.heard() == []


def test_messages_in_a_single_write_arrive_apart(room):
    """A message ends where its line ends, not where a write does."""
    alice, bob = room.irc("alice"), room.irc("bob")
    alice.send(*["PRIVMSG #lobby :message %d" % n for n in range(20)])
    alice.heard()
    assert bob.heard() == [
        ":alice!alice@127.0.0.1 PRIVMSG #lobby :message %d" % n for n in range(20)
    ]


def test_message_split_across_writes_is_joined(room):
    """The pieces of a line are put together, in both dialects."""
    alice, carol = room.irc("alice"), room.plain("carol")
    alice.heard()
    for byte in b"PRIVMSG #lobby :hello\r\n":
        alice.send_bytes(bytes([byte]))
    alice.heard()
    assert carol.heard() == ["[alice]: hello"]
    for byte in "zoë says hello\n".encode():
        carol.send_bytes(bytes([byte]))
    carol.heard()
    assert alice.heard() == [":carol!nc@127.0.0.1 PRIVMSG #lobby :zoë says hello"]


def test_message_too_long_with_its_source_is_truncated(room):
    """Between two characters."""
    alice, bob = room.irc("alice"), room.irc("bob")
    text = "李" * ((MAX_MESSAGE - len("PRIVMSG #lobby :\r\n")) // 3)
    alice.send("PRIVMSG #lobby :" + text)
    alice.heard()
    (line,) = bob.heard()
    assert re.match(":alice!alice@127.0.0.1 PRIVMSG #lobby :李{140,}$", line)
    assert len(line.encode()) + 2 <= MAX_MESSAGE


def test_long_line_of_plain_text_arrives_in_pieces(room):
    """A user with nc may write as much as a terminal passes on."""
    carol, bob = room.plain("carol"), room.irc("bob")
    text = "word " * (MAX_PLAIN_LINE // 5 - 1) + "end"
    carol.send(text)
    carol.heard()
    pieces = [line.partition(" #lobby :")[2] for line in bob.heard()]
    assert len(pieces) > 5
    assert "".join(pieces) == text


def test_terminal_escapes_never_reach_a_terminal(room):
    """Escapes in messages, topics, reasons and real names are removed for nc."""
    alice, carol = room.irc("alice"), room.plain("carol")  # who checks each line
    evil = "\x1b[2J\x9b31m\u202e\x07evil"
    alice.send("PRIVMSG #lobby :" + evil, "PRIVMSG carol :" + evil, "NOTICE #lobby :" + evil)
    alice.send("TOPIC #lobby :" + evil, "PART #lobby :" + evil, "JOIN #lobby", "QUIT :" + evil)
    carol.expect("[alice]: [2J31mevil")
    carol.expect("[alice -> you]: [2J31mevil")
    carol.expect("[SERVER]: alice set the topic: [2J31mevil")
    carol.expect("[SERVER]: alice left the chat")


def test_all_users_see_the_same_order(room):
    """Two listeners hear several talkers in the same order, each talker in their own."""
    first, second = room.irc("first"), room.plain("second")
    talkers = [room.irc("talker%d" % n) for n in range(3)] + [room.plain("talker3")]
    first.heard()
    second.heard()

    def talk(talker, number):
        command = "PRIVMSG #lobby :" if isinstance(talker, IrcTalker) else ""
        for n in range(100):
            talker.send("%s%d/%d" % (command, number, n))
        talker.heard()

    threads = [threading.Thread(target=talk, args=(t, n)) for n, t in enumerate(talkers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    heard = [line.rpartition(":")[2].strip() for line in first.heard()]
    assert [line.rpartition(":")[2].strip() for line in second.heard()] == heard
    for number in range(4):
        assert [line for line in heard if line.startswith("%d/" % number)] == [
            "%d/%d" % (number, n) for n in range(100)
        ]


# Registration

OPENINGS = {
    "NICK first": ["NICK alice", "USER alice 0 * :Alice"],
    "USER first": ["USER alice 0 * :Alice", "NICK alice"],
    "CAP around": ["CAP LS 302", "NICK alice", "USER alice 0 * :Alice", "CAP END"],
    "CAP END before USER": ["CAP LS", "NICK alice", "CAP END", "USER alice 0 * :Alice"],
    "REQ without LS": ["CAP REQ :server-time", "USER a 0 * :A", "NICK alice", "CAP END"],
    "PASS for nothing": ["PASS x", "NICK alice", "USER alice 0 * :Alice"],
    "a second thought": ["NICK ann", "NICK alice", "USER alice 0 * :Alice"],
    "a refused name first": ["NICK 1ice", "USER alice 0 * :Alice", "NICK alice"],
    "lower case": ["nick alice", "user alice 0 * Alice"],
}


@pytest.mark.parametrize("way", ["at once", "line by line", "byte by byte"])
@pytest.mark.parametrize("opening", OPENINGS.values(), ids=list(OPENINGS))
def test_registration_may_come_in_any_order(room, opening, way):
    """And in any pieces."""
    alice = room.connect(IrcTalker)
    if way == "at once":
        alice.send(*opening)
    elif way == "line by line":
        for line in opening:
            alice.send(line)
    else:
        for byte in "".join(line + "\n" for line in opening).encode():
            alice.send_bytes(bytes([byte]))
    alice.expect(" 001 alice :Welcome to Hubbub, alice. 1 person is here.")
    alice.expect(" 366 alice #lobby :End of /NAMES list")
    assert room.names() == folded("alice")


def test_welcome_has_the_numerics_in_order(room):
    """Then the lobby and its members."""
    room.irc("bob")
    alice = room.connect(IrcTalker)
    alice.send("NICK alice", "USER alice 0 * :Alice")
    lines = alice.until("End of /NAMES list")
    assert [line.split()[1] for line in lines] == (
        "001 002 003 004 005 005 251 252 254 255 265 266 422 JOIN 353 366".split()
    )
    assert ":hubbub.local 353 alice = #lobby :bob alice" in lines
    tokens = {word for line in lines if " 005 " in line for word in line.split()}
    assert {"UTF8ONLY", "NETWORK=Hubbub", "PREFIX=(ov)@+", "WHOX"} <= tokens
    assert any("running Hubbub " + VERSION in line for line in lines)


@pytest.mark.parametrize("name", ["x", " ".join("abcdefghijklmnopqrst"), "\\" * 40, "👋" * 40])
def test_network_name_is_announced_in_full(open_room, name):
    """However much of it has to be escaped; no line has more than 13 tokens."""
    alice = open_room(network=name).connect(IrcTalker)
    alice.send("NICK " + "a" * protocol.MAX_NAME, "USER alice 0 * :Alice")
    lines = [line.split(" :are supported")[0] for line in alice.heard() if " 005 " in line]
    assert all(4 <= len(line.split()) <= 3 + 13 for line in lines)
    assert "NETWORK=" + protocol.escape_token(name) in lines[0].split()


def test_message_of_the_day_is_shown(open_room):
    """Line by line, at registration and on request."""
    room = open_room(motd=("Welcome!", "", "  Be kind."))
    alice, carol = room.irc("alice"), room.connect(PlainTalker)
    alice.send("MOTD")
    assert [line.split(" ", 1)[1] for line in alice.heard()] == [
        "375 alice :- hubbub.local Message of the day -",
        "372 alice :Welcome!",
        "372 alice :",
        "372 alice :  Be kind.",
        "376 alice :End of /MOTD command",
    ]
    carol.send("carol")
    assert "[SERVER]:   Be kind." in carol.until("joined the chat")


def test_without_a_lobby_nobody_joins_a_channel(open_room):
    """Users may still write to each other, and join channels."""
    room = open_room(lobby="")
    alice, carol = room.irc("alice"), room.connect(PlainTalker)
    carol.send("carol", "hello?", "@alice hi")
    carol.expect("or write to one person: @USERNAME TEXT")
    alice.expect("PRIVMSG alice :hi")
    alice.send("JOIN #den")
    alice.expect(" 366 alice #den :End of /NAMES list")


def test_only_the_first_of_200_claims_gets_a_nickname(room):
    """All others are told."""
    talkers = [room.connect(IrcTalker) for _ in range(200)]
    start = threading.Barrier(200)
    answers = []

    def claim(talker):
        start.wait()
        talker.send("NICK alice", "USER alice 0 * :Alice", "PING x")
        answers.append({line.split()[1] for line in talker.until("PONG hubbub.local :x")})

    threads = [threading.Thread(target=claim, args=(talker,)) for talker in talkers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum("001" in numerics and "433" not in numerics for numerics in answers) == 1
    assert sum("433" in numerics for numerics in answers) == 199


@pytest.mark.parametrize("other", ["alice", "ALICE", "Ａｌｉｃｅ"])
def test_nickname_that_looks_like_another_is_taken(room, other):
    """At registration and later."""
    room.irc("alice")
    bob = room.irc("bob")
    bob.send("NICK " + other)
    bob.expect(" 433 bob %s :Nickname is already in use" % other)
    carol = room.connect(IrcTalker)
    carol.send("NICK " + other)
    carol.expect(" 433 * %s :Nickname is already in use" % other)


def test_former_nickname_is_free(room):
    """At once; a change of case is a new nickname too."""
    alice, bob = room.irc("alice"), room.irc("bob")
    alice.send("NICK ann", "NICK Ann")
    alice.expect(":alice!alice@127.0.0.1 NICK ann")
    alice.expect(":ann!alice@127.0.0.1 NICK Ann")
    bob.expect(":ann!alice@127.0.0.1 NICK Ann")
    assert room.names() == folded("ann", "bob")
    room.plain("alice")
    bob.send("NICK ANN")
    bob.expect(" 433 bob ANN :Nickname is already in use")


def test_whois_tells_since_when_a_user_has_the_nickname(room):
    """So that others see that it has changed hands."""
    alice, bob = room.irc("alice"), room.irc("bob")

    def since(nickname):
        bob.send("WHOIS " + nickname)
        (line,) = [line for line in bob.heard() if " 317 " in line]
        return int(line.split()[5])

    before = since("alice")
    while int(time.time()) == before:
        bob.heard()
    alice.send("NICK ann")
    bob.expect(" NICK ann")
    assert since("ann") > before
    alice.send("NICK Ann")
    bob.expect(" NICK Ann")
    assert since("Ann") == since("ann")


PASSWORD = "zoë's secret"


def test_right_server_password_lets_users_in(open_room):
    """In both dialects, and not without a username."""
    room = open_room(password=PASSWORD)
    room.irc("alice", password=":" + PASSWORD)
    carol = room.connect(PlainTalker)
    carol.send("carol")
    carol.expect("Hubbub asks for a password. Type it and press Enter.")
    assert room.client("carol") is None
    carol.send(PASSWORD)
    carol.expect("[SERVER]: carol joined the chat")


@pytest.mark.parametrize(
    ("kind", "lines"),
    [
        (IrcTalker, ["NICK bob", "USER bob 0 * :Bob"]),
        (IrcTalker, ["PASS wrong", "NICK bob", "USER bob 0 * :Bob"]),
        (IrcTalker, ["CAP LS", "NICK bob", "USER bob 0 * :Bob", "CAP END"]),
        (PlainTalker, ["bob", "wrong"]),
    ],
)
def test_wrong_server_password_lets_nobody_in(open_room, kind, lines):
    """The client is told and disconnected; others hear nothing of it."""
    room = open_room(password=PASSWORD)
    alice = room.irc("alice", password=":" + PASSWORD)
    bob = room.connect(kind)
    bob.send(*lines)
    *_, told, farewell = bob.rest()
    assert told.endswith("Wrong password.")
    assert farewell.endswith("Ask the host for it, and connect again.")
    bob.close()
    room.wait_until_gone(bob)
    assert alice.heard() == []
    assert room.names() == folded("alice")


# Commands


@pytest.mark.parametrize(
    "line",
    [
        "JOIN :#a b",
        "JOIN \u200b",
        "PART :#a b",
        "PART #a,,#b",
        "PART :",
        "TOPIC :#a b",
        "TOPIC :",
        "NAMES :a b",
        "NAMES :",
        "NAMES #a,",
        "LIST :a b",
        "MODE :#a b",
        "MODE #lobby ::",
        "MODE #lobby : ",
        "WHO :a b",
        "WHO :",
        "WHOIS :a b",
        "WHOIS :",
        "ISON :",
        "USERHOST :",
        "NICK ::x",
        "NICK :a b",
        "PRIVMSG ,bob :hi",
        "PRIVMSG ,:bob :hi",
        "PRIVMSG #lobby, :hi",
        "PRIVMSG : :hi",
        "CAP :a b",
        "CAP :",
        "CAP REQ",
        "CAP REQ :" + "server-time " * 40,
        "CAP REQ :" + "é" * 240,
        "PONG :",
        "PING :",
        "MOTD :a b",
    ],
)
def test_strange_parameters_do_not_end_the_connection(room, line):
    """Some cannot stand in the middle of a reply."""
    alice, bob = room.irc("alice"), room.irc("x" * 32)
    bob.send(line)
    bob.heard()
    bob.send("PRIVMSG #lobby :still here")
    alice.expect("PRIVMSG #lobby :still here")


def test_random_lines_cause_no_mistake_of_the_server(room):
    """Of two thousand lines none ends the connection."""
    dice = random.Random(1)
    words = [
        "#lobby",
        "#den",
        "mallory",
        "alice",
        "",
        "a b",
        ":",
        ",",
        "#",
        "é" * 60,
        "\u200b",
        "0",
    ]
    words += ["+b", "-k", "LS", "REQ", "END", "server-time", "x" * 200, "*", "\x01", "%s", "{}"]
    commands = sorted(set(server.COMMANDS) - {"QUIT"}) + ["@+a=b;c PRIVMSG", ":x PRIVMSG", "FOO"]
    alice, mallory = room.plain("alice"), room.irc("mallory", caps="echo-message message-tags")
    for _ in range(100):
        for _ in range(20):
            params = [dice.choice(words) for _ in range(dice.randrange(4))]
            middles = [param.replace(" ", "") or "x" for param in params[:-1]]
            mallory.send(" ".join([dice.choice(commands), *middles]) + " :" + "".join(params[-1:]))
        mallory.heard()
    mallory.send("NICK mallory", "JOIN #lobby", "PRIVMSG #lobby :still here")
    alice.expect("[mallory]: still here")


def test_quit_is_answered_and_announced(room):
    """With its reason."""
    alice, bob = room.irc("alice"), room.irc("bob")
    bob.send("QUIT :gone fishing", "PRIVMSG #lobby :too late")
    assert bob.rest()[-1] == "ERROR Goodbye."
    assert alice.heard()[-1] == ":bob!bob@127.0.0.1 QUIT :Quit: gone fishing"


# Rooms


def test_channel_message_reaches_its_members_alone(room):
    """Only members may speak there."""
    alice, bob, eve = room.irc("alice"), room.irc("bob"), room.irc("eve")
    for talker in (alice, bob, eve):
        talker.send("JOIN #den" if talker is not eve else "NAMES #den")
        talker.heard()
    alice.heard()
    alice.send("PRIVMSG #DEN :hi")
    alice.heard()
    assert bob.heard() == [":alice!alice@127.0.0.1 PRIVMSG #den :hi"]
    assert eve.heard() == []
    alice.send("PART #den :tea time", "PRIVMSG #den :hi")
    alice.expect(" 404 alice #den :Cannot send to a channel that you are not in")
    assert bob.heard() == [":alice!alice@127.0.0.1 PART #den :tea time"]


def test_join_is_answered_with_topic_and_names(room):
    """In the order of joining."""
    bob, alice = room.irc("bob"), room.irc("alice")
    bob.send("JOIN #den", "TOPIC #den :coffee")
    bob.heard()
    alice.heard()
    alice.send("JOIN #den,#den")
    lines = [re.sub(r"\d{9,}$", "TIME", line) for line in alice.heard()]
    assert lines == [
        ":alice!alice@127.0.0.1 JOIN #den",
        ":hubbub.local 332 alice #den :coffee",
        ":hubbub.local 333 alice #den bob :TIME",
        ":hubbub.local 353 alice #den :@bob alice".replace("alice #den", "alice = #den"),
        ":hubbub.local 366 alice #den :End of /NAMES list",
    ]
    assert bob.heard() == [":alice!alice@127.0.0.1 JOIN #den"]


def test_topic_is_announced_and_can_be_cleared(room):
    """All members learn of both."""
    alice, bob, carol = room.irc("alice"), room.irc("bob"), room.plain("carol")
    alice.send("TOPIC #lobby :tea", "TOPIC #lobby :", "TOPIC #lobby")
    alice.expect(" 331 alice #lobby :No topic is set")
    bob.expect(":alice!alice@127.0.0.1 TOPIC #lobby :tea")
    bob.expect(":alice!alice@127.0.0.1 TOPIC #lobby :")
    carol.expect("[SERVER]: alice set the topic: tea")
    carol.expect("[SERVER]: alice cleared the topic")


def test_empty_channel_is_gone(room):
    alice, bob = room.irc("alice"), room.irc("bob")
    alice.send("JOIN #den", "PART #den,#lobby", "LIST")
    lines = alice.until("End of /LIST")
    assert [line.split()[3] for line in lines if " 322 " in line] == ["#lobby"]
    bob.expect(":alice!alice@127.0.0.1 PART #lobby")


def test_client_has_a_limited_number_of_channels(room):
    """The last that is allowed is joined, the next refused with 405."""
    alice = room.irc("alice")
    alice.send("JOIN " + ",".join("#%d" % n for n in range(MAX_CHANNELS)))
    lines = alice.heard()
    assert sum(" JOIN #" in line for line in lines) == MAX_CHANNELS - 1  # and the lobby
    assert ":hubbub.local 405 alice #%d :You have joined too many channels" % (
        MAX_CHANNELS - 1
    ) in (lines)


def test_names_of_a_large_channel_all_arrive(room):
    """In as many lines as it takes."""
    names = ["%s%02d" % ("李" * 30, n) for n in range(20)]
    for name in names:
        room.irc(name)
    alice = room.irc("alice")
    alice.send("NAMES #lobby")
    lines = alice.heard()
    told = [name for line in lines if " 353 " in line for name in line.split(" :")[1].split()]
    assert told == [*names, "alice"]
    assert all(len(line.encode()) + 2 <= MAX_MESSAGE for line in lines)


# Capabilities: https://ircv3.net/irc/


def untagged(line):
    return line.partition(" ")[2] if line.startswith("@") else line


def tags_of(line):
    pairs = (tag.partition("=") for tag in line[1:].partition(" ")[0].split(";"))
    return {key: value for key, _, value in pairs} if line.startswith("@") else {}


def test_capabilities_are_listed_requested_and_removed(room):
    """By LS, REQ, LIST, and REQ with a minus."""
    alice = room.irc("alice")
    alice.send("CAP LS 302", "CAP REQ :server-time echo-message", "CAP LIST")
    alice.send("CAP REQ :-server-time", "CAP LIST")
    assert [untagged(line) for line in alice.heard()] == [
        ":hubbub.local CAP alice LS :account-notify account-tag away-notify batch"
        " echo-message extended-join hubbub/resume invite-notify"
        " labeled-response message-tags multi-prefix server-time setname standard-replies",
        ":hubbub.local CAP alice ACK :server-time echo-message",
        ":hubbub.local CAP alice LIST :echo-message server-time",
        ":hubbub.local CAP alice ACK :-server-time",
        ":hubbub.local CAP alice LIST :echo-message",
    ]


def test_unknown_capability_refuses_the_entire_request(room):
    """NAK changes nothing."""
    alice = room.irc("alice")
    alice.send("CAP REQ :echo-message nonsense", "CAP LIST")
    assert alice.heard() == [
        ":hubbub.local CAP alice NAK :echo-message nonsense",
        ":hubbub.local CAP alice LIST :",
    ]


def test_server_time_is_the_present_in_utc(room):
    """For clients with the capability."""
    alice, bob = room.irc("alice", caps="server-time"), room.irc("bob")
    before = time.time()
    alice.send("PRIVMSG bob :hi", "PRIVMSG alice :hi")
    line = alice.expect("PRIVMSG alice :hi")
    assert list(tags_of(line)) == ["time"]
    assert before - 1 < protocol.parse_time(tags_of(line)["time"]) < time.time() + 1
    assert bob.heard()[-1].startswith(":alice!")


def test_message_has_the_same_unique_msgid_for_all(room):
    """The echo included."""
    caps = "message-tags echo-message"
    alice, bob, eve = room.irc("alice", caps), room.irc("bob", caps), room.irc("eve", caps)
    alice.send("PRIVMSG #lobby :one", "PRIVMSG #lobby :two", "PRIVMSG bob :three")
    alice.send("PRIVMSG alice :four")
    alice.heard()
    alice.send("PRIVMSG #lobby :five", "PRIVMSG alice :six")

    def ids(talker):
        lines = [line for line in talker.heard() if " PRIVMSG " in line]
        return {line.rpartition(":")[2]: tags_of(line).get("msgid") for line in lines}

    bob.heard()
    told = ids(alice)
    assert set(told) == {"five", "six"}
    assert all(told.values())
    assert len(set(told.values())) == 2
    eve_told = ids(eve)
    assert eve_told["five"] == told["five"]
    assert len(set(eve_told.values())) == len(eve_told) == 3


def test_echo_needs_its_capability(room):
    """It comes in the order of all events."""
    alice, bob = room.irc("alice", caps="echo-message"), room.irc("bob")
    alice.send("PRIVMSG #lobby :one", "PRIVMSG bob :two", "NOTICE #lobby :three")
    alice.send("PRIVMSG dave :nobody")
    lines = alice.heard()
    bob.send("PRIVMSG #lobby :mine")
    assert bob.heard()[-1] == ":alice!alice@127.0.0.1 NOTICE #lobby :three"
    assert ":alice!alice@127.0.0.1 PRIVMSG #lobby :one" in lines
    assert ":alice!alice@127.0.0.1 PRIVMSG bob :two" in lines
    assert ":alice!alice@127.0.0.1 NOTICE #lobby :three" in lines
    assert not any(line.endswith("PRIVMSG dave :nobody") for line in lines)


def test_client_only_tags_are_passed_on(room):
    """To clients with message-tags; no other tag is."""
    alice, eve = room.irc("alice"), room.irc("eve")
    bob = room.irc("bob", caps="message-tags")
    alice.send("@+reply=a\\:b;+x;msgid=forged;time=forged PRIVMSG #lobby :hi")
    alice.heard()
    tags = tags_of(bob.expect(":alice!alice@127.0.0.1 PRIVMSG #lobby :hi"))
    assert tags.pop("msgid").isdigit()
    assert tags == {"+reply": "a\\:b", "+x": ""}
    assert eve.heard()[-1] == ":alice!alice@127.0.0.1 PRIVMSG #lobby :hi"


def test_longest_client_tags_are_passed_on(room):
    """4094 bytes, without the @ and the space."""
    alice, bob = room.irc("alice"), room.irc("bob", caps="message-tags server-time")
    value = "x" * (MAX_CLIENT_TAGS - len("+k="))
    alice.send("@+k=%s PRIVMSG #lobby :%s" % (value, "y" * 480))
    assert not any(" 417 " in line for line in alice.heard())
    assert tags_of(bob.heard()[-1])["+k"] == value


# What is not UTF-8


def test_line_that_is_not_utf8_is_refused_over_irc(room):
    """As UTF8ONLY says; the next line is welcome."""
    alice, bob = room.irc("alice"), room.irc("bob")
    alice.heard()
    bob.send_bytes(b"PRIVMSG #lobby :caf\xe9\r\nPRIVMSG #lobby :caf\xc3\xa9\r\n")
    bob.expect(
        ":hubbub.local FAIL * INVALID_UTF8 "
        ":Your line is not UTF-8, the only encoding here. It was not passed on."
    )
    bob.heard()
    assert alice.heard() == [":bob!bob@127.0.0.1 PRIVMSG #lobby :café"]


def test_bytes_that_are_not_utf8_are_replaced_in_plain_text(room):
    """By U+FFFD."""
    alice, carol = room.irc("alice"), room.plain("carol")
    carol.send_bytes(b"caf\xe9\n")
    alice.expect(":carol!nc@127.0.0.1 PRIVMSG #lobby :caf\ufffd")


def test_telnet_commands_are_ignored(room):
    """They are part of no username and no message."""
    alice, carol = room.irc("alice"), room.connect(PlainTalker)
    carol.send_bytes(b"\xff\xfd\x03\xff\xfb\x18\xff\xfb\x1fcarol\r\0\n")
    carol.expect("[SERVER]: carol joined the chat")
    carol.send_bytes(b"hel\xff\xfa\x18\0xterm\xff\xf0lo\r\n")
    alice.expect(":carol!nc@127.0.0.1 PRIVMSG #lobby :hello")


# Ends


def quits(room, bob):
    bob.send("QUIT")


def closes(room, bob):
    bob.close()


def closes_its_half(room, bob):
    bob.finish()


def closes_in_the_middle_of_a_line(room, bob):
    bob.send_bytes(b"PRIVMSG #lobby :I was about to")
    bob.close()


def resets(room, bob):
    bob.reset()


def falls_silent(room, bob):
    """And does not answer PING."""


def never_reads(room, bob):
    flooder = room.irc("flooder")
    for _ in range(50):
        flooder.send(*["PRIVMSG bob :" + "x" * 400] * 200)
        if any(" 401 flooder bob " in line for line in flooder.heard()):
            break
    flooder.send("PART #lobby")  # those who are left hear nothing more of it
    flooder.heard()


def is_hung_up_on(room, bob):
    room.server.delivery.enqueue(Ending(room.client("bob"), SEVER))
    room.server.delivery.wake()


ENDS = [
    (quits, "Quit", {}),
    (closes, "Connection closed", {}),
    (closes_its_half, "Connection closed", {}),
    (closes_in_the_middle_of_a_line, "Connection closed", {}),
    (resets, "Connection reset by peer", {}),
    (falls_silent, "Ping timeout", {"ping_interval": 0.1}),
    (never_reads, "SendQ exceeded", {"max_sendq": 20000}),
    (is_hung_up_on, "Connection closed", {}),
]


@pytest.mark.parametrize(("end", "reason", "options"), ENDS, ids=[e.__name__ for e, _, _ in ENDS])
def test_end_of_a_connection_is_announced_once(open_room, caplog, end, reason, options):
    """The log has the reason, and the nickname is free."""
    caplog.set_level("INFO", "hubbub")
    room = open_room(**options)
    carol, dora = room.plain("carol"), room.plain("dora")  # people with nc are not pinged
    bob = room.irc("bob", receive_buffer=4096)
    carol.heard()
    dora.heard()
    end(room, bob)
    carol.expect("[SERVER]: bob left the chat")
    bob.close()
    room.wait_until_gone(bob)
    assert not any("bob" in line for line in carol.heard())
    assert dora.heard().count("[SERVER]: bob left the chat") == 1
    assert "%s (bob) ended: %s" % (bob.address, reason) in caplog.messages
    room.irc("bob")
    assert carol.heard() == ["[SERVER]: bob joined the chat"]


def test_client_that_answers_pings_stays(open_room):
    """However long it says nothing else."""
    room = open_room(ping_interval=0.05)
    alice = room.connect(IrcTalker)
    alice.send("NICK alice", "USER alice 0 * :Alice")
    for _ in range(5):
        alice.expect("PING hubbub.local")
        alice.send("PONG hubbub.local")
    carol = room.plain("carol")
    carol.send("@alice still there?")
    carol.expect("[you -> alice]: still there?")


# Hostile peers


def body_of(path):
    lines = "NICK evil\r\nUSER evil 0 * :x\r\nPRIVMSG #lobby :spam\r\n"
    return ("%s HTTP/1.1\r\nHost: x\r\n\r\n%s" % (path, lines)).encode()


HOSTILE = {
    "says nothing": [],
    "half a line": [b"NICK ev"],
    "half a registration": [b"NICK evil\r\n"],
    "half a registration and half a line": [b"NICK evil\r\nUSER evil 0"],
    "never ends CAP": [b"CAP LS\r\nNICK evil\r\nUSER evil 0 * :x\r\n"],
    "a megabyte without a newline": [b"x" * 1000000],
    "a megabyte of IRC without a newline": [b"NICK evil\r\nPRIVMSG #lobby :", b"x" * 1000000],
    "a hundred thousand newlines": [b"\n" * 100000],
    "zeros": [b"\0" * 10000 + b"\n"],
    "noise": [bytes(random.Random(7).randrange(256) for _ in range(20000)) + b"\n"],
    "not UTF-8": [b"NICK \xff\r\nUSER \xff 0 * :\xff\r\nQUIT :\xff\r\n"],
    "telnet without end": [b"\xff\xfa" * 5000, b"\xff\n"],
    "TLS": [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)],
    "GET": [body_of("GET /")],
    "GET that never ends": [b"GET / HTTP/1.1\r\nHost: x\r\nNICK evil\r\nUSER evil 0 * :x\r\n"],
    "GET of the client, unread": [body_of("GET /hubbub.pyz")],
    "POST": [body_of("POST /")],
    "POST in pieces": [b"POS", b"T / HTTP/1.1\r\n\r\nNICK evil\r\nUSER evil 0 * :x\r\n"],
    "a thousand commands before registration": [b"JOIN #lobby\r\nPRIVMSG #lobby :x\r\n" * 500],
}


@pytest.mark.parametrize("leave", ["close", "reset"])
@pytest.mark.parametrize("pieces", HOSTILE.values(), ids=list(HOSTILE))
def test_hostile_peer_leaves_nothing_behind(room, pieces, leave):
    """No thread, descriptor or nickname; other users hear nothing of it."""
    alice, carol = room.irc("alice"), room.plain("carol")
    alice.heard()
    threads, descriptors = threading.active_count(), count_descriptors()
    peer = room.connect()
    try:
        for piece in pieces:
            peer.send_bytes(piece)
    except ConnectionError:
        pass  # the server had enough
    getattr(peer, leave)()
    room.wait_until_gone(peer)
    alice.send("PRIVMSG #lobby :hi")
    assert alice.heard() == []
    assert carol.heard() == ["[alice]: hi"]
    assert threading.active_count() == threads
    assert count_descriptors() == descriptors
    assert room.names() == folded("alice", "carol")


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\x15\x03\x01\x00\x02\x02\x46"),
        (body_of("GET /"), b"HTTP/1.1 200 OK\r\n"),
        (body_of("HEAD /"), b"HTTP/1.1 200 OK\r\n"),
        (body_of("GET /x"), b"HTTP/1.1 404 Not Found\r\n"),
        (b"GET /\nNICK evil\nUSER evil 0 * :x\n\n", b"HTTP/1.1 400 Bad Request\r\n"),
        (body_of("POST /"), b"HTTP/1.1 400 Bad Request\r\n"),
    ],
    ids=["TLS", "GET", "HEAD", "404", "400", "POST"],
)
def test_browsers_and_tls_are_answered_in_their_protocol(room, data, answer):
    """None of their lines is obeyed."""
    peer = room.connect()
    peer.send_bytes(data)
    peer.finish()
    assert peer.rest_of_bytes().startswith(answer)
    room.wait_until_gone(peer)
    assert room.names() == set()


def test_endless_line_is_refused_and_forgotten(room):
    """In both dialects; the next line is heard."""
    alice, carol = room.irc("alice"), room.plain("carol")
    alice.send_bytes(b"PRIVMSG #lobby :" + b"x" * 1000000 + b"\r\nPRIVMSG #lobby :hi\r\n")
    alice.expect(" 417 alice :Input line was too long")
    assert carol.until("[alice]: hi") == ["[alice]: hi"]
    carol.send_bytes(b"x" * 1000000 + b"\nhi\n")
    carol.expect("[SERVER]: That line is too long: 4096 bytes at most.")
    carol.expect("[carol]: hi")


def test_client_that_never_reads_delays_nobody(room):
    """Messages to others come as ever, and in order."""
    room.irc("sleeper", receive_buffer=4096)
    alice, bob = room.irc("alice"), room.irc("bob")
    for round_ in range(10):
        alice.send(*["PRIVMSG #lobby :%d %s" % (round_, "x" * 300)] * 100)
        alice.heard()
        assert sum(":%d x" % round_ in line for line in bob.heard()) == 100
    assert room.client("sleeper") is not None


def test_client_that_reads_late_gets_all_that_waited(open_room):
    """In order, as soon as its connection takes it."""
    room = open_room(max_sendq=0)
    sleeper, alice = room.irc("sleeper", receive_buffer=4096), room.irc("alice")
    for round_ in range(10):
        alice.send(*["PRIVMSG sleeper :%d %s" % (round_, "x" * 400)] * 800)
        alice.heard()
    lines = [line for line in sleeper.heard() if " PRIVMSG " in line]
    assert [line.split()[3] for line in lines] == [":%d" % (n // 800) for n in range(8000)]


@pytest.mark.parametrize(
    "lines", [[], ["QUIT"], ["QUIT :bye"], ["CAP LS 302"], ["NICK bob", "QUIT"]]
)
def test_probe_is_told_goodbye_and_counts_for_nothing(room, lines):
    """It says nothing or QUIT, and goes."""
    alice = room.irc("alice")
    probe = room.connect()
    probe.send(*lines)
    probe.finish()
    assert probe.rest()[-1] == "ERROR Goodbye."
    room.wait_until_gone(probe)
    alice.send("LUSERS", "WHOWAS bob", "WHOWAS QUIT")
    heard = "\n".join(alice.heard())
    assert " 266 alice 1 1 " in heard
    assert heard.count(" 406 alice ") == 2 and "joined" not in heard


@pytest.mark.parametrize("line", ["NICK slow", "CAP LS", "slow", ""])
def test_registration_that_takes_too_long_is_ended(open_room, monkeypatch, line):
    """Its nickname is free; a byte now and then does not help."""
    monkeypatch.setattr(server, "PROMPT_AFTER", 0.05)
    room = open_room(register_timeout=0.1, password="x")
    slow = room.connect()
    if line:
        slow.send(line)
    assert "No username came in time. Connect again when you are ready." in slow.rest()[-1]
    slow.close()
    room.wait_until_gone(slow)
    assert room.names() == set()


def test_many_short_visits_leave_nothing_behind(room):
    """No thread, descriptor, nickname or channel."""
    carol = room.plain("carol")
    threads, descriptors = threading.active_count(), count_descriptors()
    for n in range(10):
        visitors = [room.connect(IrcTalker) for _ in range(20)]
        for m, visitor in enumerate(visitors):
            visitor.send("NICK v%d" % m, "USER v 0 * :v", "JOIN #den%d" % n, "PRIVMSG #lobby :hi")
        for visitor, leave in zip(visitors, itertools.cycle(["close", "reset", "finish"])):
            getattr(visitor, leave)()
        room.wait_until_gone(*visitors)
        for visitor in visitors:
            visitor.close()
    lines = carol.heard()
    for m in range(20):
        joined = lines.count("[SERVER]: v%d joined the chat" % m)
        assert joined == lines.count("[SERVER]: v%d left the chat" % m)
    assert threading.active_count() == threads
    assert count_descriptors() == descriptors
    assert room.names() == folded("carol")
    assert [found.name for found in room.server.directory.channels()] == ["#lobby"]


# Limits


def test_flood_is_slowed_and_loses_nothing(open_room):
    """A paste passes at once; the rest comes at the rate that is allowed."""
    room = open_room(rate_limit=200)
    carol = room.plain("carol")
    flooder = room.irc("flooder")
    started = time.monotonic()
    flooder.send(*["PRIVMSG #lobby :%d" % n for n in range(BURST + 50)])
    lines = carol.until("[flooder]: %d" % (BURST + 49))
    assert time.monotonic() - started > 50 / 200 * 0.9
    assert lines[-BURST - 50 :] == ["[flooder]: %d" % n for n in range(BURST + 50)]


def test_full_queue_slows_the_readers_and_loses_nothing(room, monkeypatch):
    """The readers wait for the delivery, and nobody is stuck."""
    monkeypatch.setattr(server, "MAX_PENDING", 3)
    carol = room.plain("carol")
    talkers = [room.irc("talker%d" % n) for n in range(4)]
    for talker in talkers:
        talker.send(*["PRIVMSG #lobby :hi"] * 300)
    for talker in talkers:
        talker.heard()
    assert sum("]: hi" in line for line in carol.heard()) == 1200


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_clients": 2}, "ERROR :Hubbub is full (2 people). Try again later."),
        ({"max_per_address": 2}, "ERROR :There are 2 connections from your address already."),
    ],
)
def test_client_beyond_a_limit_is_refused_with_the_reason(open_room, options, words):
    """There is room again as soon as another leaves."""
    room = open_room(**options)
    alice, bob = room.irc("alice"), room.irc("bob")
    assert room.connect().rest() == [words]
    bob.send("QUIT")
    bob.rest()
    bob.close()
    room.wait_for_thread(bob)
    eve = room.irc("eve")
    assert alice.heard()[-1] == ":eve!eve@127.0.0.1 JOIN #lobby"
    for talker in (alice, eve):
        talker.close()
        room.wait_for_thread(talker)
    room.irc("alice")
    room.irc("bob")


# The end


def test_server_that_stops_tells_all_and_waits_for_nobody(open_room):
    """Clients that never read, and half registrations, delay nothing."""
    room = open_room(max_sendq=0)
    never_reads(room, room.irc("bob", receive_buffer=4096))
    alice, carol, half = room.irc("alice"), room.plain("carol"), room.connect(IrcTalker)
    half.send("NICK half")
    for talker in (alice, carol, half):
        talker.heard()
    started = time.monotonic()
    room.stop()
    assert time.monotonic() - started < 5
    assert alice.rest() == ["ERROR :The host has ended the chat"]
    assert carol.rest() == ["[SERVER]: The host has ended the chat"]
    assert half.rest() == ["ERROR :The host has ended the chat"]
