"""What the client makes of a conversation: no socket, no window, no clock."""

import calendar
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

import client
import protocol
from client import CLOSED, LOST, NAME, PASSWORD, SERVER, WAITING, Chat, Connected, Disconnected
from protocol import FROM_ME, FROM_OTHERS, FROM_SERVER, PRIVATE

NOW = calendar.timegm((2026, 11, 22, 17, 10, 42))
IN_THE_ROOM = [
    ":hub 001 alice :Welcome to Office, alice.",
    ":hub 005 alice NETWORK=Office CHANTYPES=# :are supported by this server",
    ":alice!alice@host JOIN #lobby",
    ":hub 353 alice = #lobby :alice bob",
    ":hub 366 alice #lobby :End of /NAMES list",
]


class Talk:
    """A Chat with its user and its server; `sent` is what it sent since one last looked."""

    def __init__(self, echoes=True):
        self.chat = Chat("127.0.0.1:12001")
        self.echoes = echoes
        self.lines = []  # all that was shown, as Lines
        self._sent = []

    def connect(self):
        self.chat.begin(self.chat.nickname or "alice")
        return self.tell(Connected(self.chat.nickname, self.echoes))

    def join(self):
        """Be connected and in the room, as on the first day."""
        self.connect()
        self.hear(*IN_THE_ROOM)
        return self

    def lose(self, fault=LOST, reason="The connection was lost."):
        return self.tell(Disconnected(fault, reason))

    def type(self, text):
        """What is shown when the user presses Enter."""
        return self._note(self.chat.submit(text, NOW))

    def hear(self, *lines):
        """What is shown when the server says these lines."""
        shown = []
        for line in lines:
            shown += self.tell(protocol.parse(line.encode()))
        return shown

    def tell(self, event):
        return self._note(self.chat.handle(event, NOW))

    def _note(self, outcome):
        self.lines += outcome.show
        self._sent += [protocol.serialize(message).decode()[:-2] for message in outcome.send]
        return ["%s %s" % (line.head, line.text) for line in outcome.show]

    @property
    def sent(self):
        sent, self._sent = self._sent, []
        return sent

    @property
    def people(self):
        return " ".join(self.chat.people)


@pytest.fixture
def alice():
    """Alice is in #lobby with bob, on a server that echoes what she says."""
    talk = Talk().join()
    assert talk.sent == []
    return talk


@pytest.fixture
def unechoed():
    """The same on a server that does not echo."""
    return Talk(echoes=False).join()


# What is typed


@pytest.mark.parametrize(
    ("typed", "sent"),
    [
        ("Hello everyone!", ["PRIVMSG #lobby :Hello everyone!"]),
        ("  indented", ["PRIVMSG #lobby :indented"]),
        ("@bob Hello Bob!", ["PRIVMSG bob :Hello Bob!"]),
        ("@bob: Hello Bob!", ["PRIVMSG bob :Hello Bob!"]),
        ("/msg bob Hello Bob!", ["PRIVMSG bob :Hello Bob!"]),
        ("/me waves", ["PRIVMSG #lobby :\x01ACTION waves\x01"]),
        ("//shrug", ["PRIVMSG #lobby :/shrug"]),
        ("/nick alicia", ["NICK alicia"]),
        ("/list", ["NAMES #lobby"]),
        ("/LIST", ["NAMES #lobby"]),
        ("/quit", ["QUIT"]),
        ("/quit see you", ["QUIT :see you"]),
        ("", []),
        (" \n\t\n", []),
        ("é 李 😀", ["PRIVMSG #lobby :é 李 😀"]),
        ("half \ud83d of one", ["PRIVMSG #lobby :half \ufffd of one"]),
        ("nul \0 esc \x1b bell \a", ["PRIVMSG #lobby :nul  esc  bell"]),
    ],
)
def test_what_is_typed_becomes_messages(alice, typed, sent):
    """The chat box speaks the grammar of the README, in whatever characters."""
    alice.type(typed)
    assert alice.sent == sent


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("/foo", "Unknown command: /foo. Type /help for the list."),
        ("/", "Unknown command: /. Type /help for the list."),
        ("@bob", "Usage: @USERNAME MESSAGE"),
        ("@", "Usage: @USERNAME MESSAGE"),
        ("@ bob hello", "Usage: @USERNAME MESSAGE"),
        ("/msg bob", "Usage: /msg USERNAME MESSAGE"),
        ("/me", "Usage: /me ACTION"),
        ("/nick", "Usage: /nick USERNAME"),
        ("@b!b hello", "No such user: b!b"),
        ("/foo\nsecond line", "Unknown command: /foo. Type /help for the list."),
    ],
)
def test_what_cannot_be_done_is_refused_in_words_and_nothing_is_sent(alice, typed, words):
    """A slip of the user is answered with what can be done, and no part of it goes out."""
    with pytest.raises(protocol.InputError) as refusal:
        alice.type(typed)
    assert str(refusal.value) == words
    assert alice.sent == []


def test_quit_is_the_only_word_that_ends_the_program(alice):
    """What is done after /quit, and after nothing else, is said by `done`."""
    assert alice.chat.submit("/quit", NOW).done
    assert not alice.chat.submit("quit", NOW).done


def test_help_is_made_from_the_table(alice):
    """/help shows a line for each verb there is, and asks the server nothing."""
    shown = "\n".join(alice.type("/help"))
    for name, verb in protocol.VERBS.items():
        assert "/" + name in shown
        assert verb.help in shown
    assert alice.sent == []


def test_list_is_answered_when_the_last_name_has_come(alice):
    """/list shows one line, sorted, with all names, however many lines they came in."""
    assert alice.type("/list") == []
    assert alice.hear(":hub 353 alice = #lobby :Zoe alice", ":hub 353 alice = #lobby :bob") == []
    shown = alice.hear(":hub 366 alice #lobby :End of /NAMES list")
    assert shown == ["[SERVER]: Online users (3): alice, bob, Zoe"]
    assert alice.hear(":hub 366 alice #lobby :End of /NAMES list") == []


def test_list_that_was_lost_is_not_answered_by_the_next_join(alice):
    """A question that died with its connection is forgotten."""
    alice.type("/list")
    alice.hear(":hub 353 alice = #lobby :ghost")
    alice.lose()
    alice.connect()
    assert not any("Online users" in line for line in alice.hear(*IN_THE_ROOM))
    assert alice.people == "alice bob"


@pytest.mark.parametrize(
    ("pasted", "sent"),
    [
        ("one\ntwo\r\nthree", ["#lobby :one", "#lobby :two", "#lobby :three"]),
        ("one\n\n  \ntwo\n", ["#lobby :one", "#lobby :two"]),
        ("@bob one\ntwo\nthree", ["bob :one", "bob :two", "bob :three"]),
        ("/msg bob one\ntwo", ["bob :one", "bob :two"]),
        ("one\n/quit\n@carol two", ["#lobby :one", "#lobby :/quit", "#lobby :@carol two"]),
        ("@bob one\n/nick two", ["bob :one", "bob :/nick two"]),
        ("/me waves\nhello", ["#lobby :\x01ACTION waves\x01", "#lobby :hello"]),
        ("//one\n//two", ["#lobby :/one", "#lobby ://two"]),
        ("/nick alicia\nhello", ["NICK alicia", "#lobby :hello"]),
        ("/list\nhello", ["NAMES #lobby", "#lobby :hello"]),
        ("/help\nhello", ["#lobby :hello"]),
    ],
)
def test_only_the_first_pasted_line_can_be_a_command(alice, pasted, sent):
    """What follows it is said as it is, to whom the first line was said, or else to the room."""
    alice.type(pasted)
    assert [line.replace("PRIVMSG ", "") for line in alice.sent] == sent


def test_a_long_text_goes_out_whole_in_lines_that_fit(alice):
    """Nothing of a long message is lost, though no line may be longer than IRC's."""
    text = " ".join(["wörd%d" % number for number in range(200)])
    alice.type(text)
    sent = alice.sent
    assert "".join(line[len("PRIVMSG #lobby :") :] for line in sent) == text
    longest = ":alice!%s@%s " % ("u" * 10, "h" * 63)
    assert all(len((longest + line).encode()) <= protocol.MAX_MESSAGE - 2 for line in sent)


# What is seen


@pytest.mark.parametrize(
    ("line", "kind", "shown"),
    [
        (":bob!b@h PRIVMSG #lobby :Hello", FROM_OTHERS, "[bob]: Hello"),
        (":bob!b@h PRIVMSG #lobby :\x01ACTION waves\x01", FROM_OTHERS, "* bob waves"),
        (":bob!b@h PRIVMSG alice :psst", PRIVATE, "[bob -> you]: psst"),
        (":bob!b@h NOTICE alice :psst", PRIVATE, "[bob -> you]: psst"),
        (":alice!a@h PRIVMSG #lobby :Hello", FROM_ME, "[alice]: Hello"),
        (":alice!a@h PRIVMSG bob :psst", PRIVATE, "[you -> bob]: psst"),
        (":hub NOTICE alice :Mind the gap", FROM_SERVER, "[SERVER]: Mind the gap"),
        (":bob!b@h JOIN #lobby", FROM_SERVER, "[SERVER]: bob joined the chat"),
        (":bob!b@h PART #lobby :bye", FROM_SERVER, "[SERVER]: bob left #lobby"),
        (":bob!b@h QUIT :bye", FROM_SERVER, "[SERVER]: bob left the chat"),
        (":bob!b@h NICK rob", FROM_SERVER, "[SERVER]: bob is now called rob"),
        (":hub 401 alice dave :No such nick", FROM_SERVER, "[SERVER]: No such user: dave"),
    ],
)
def test_each_event_is_one_line_of_its_kind(alice, line, kind, shown):
    """Who speaks decides the line's form and its colour."""
    assert alice.hear(line) == [shown]
    assert alice.lines[-1].kind == kind


@pytest.mark.parametrize(
    "line",
    [
        ":bob!b@h PRIVMSG alice :\x01VERSION\x01",
        ":hub 353 alice = #lobby :alice bob",
        ":hub CAP alice NEW :batch",
        ":hub PONG hub :hubbub",
    ],
)
def test_what_programs_say_to_each_other_is_not_shown(alice, line):
    """CTCP, names, capabilities and pongs are no lines of a conversation."""
    assert alice.hear(line) == []


def test_the_server_s_time_is_used(alice):
    """A line is dated by when it was said, not by when it came."""
    alice.hear("@time=2026-11-22T17:09:30.500Z :bob!b@h PRIVMSG #lobby :earlier")
    assert alice.lines[-1].when == NOW - 71.5


@pytest.mark.parametrize(
    "stamp",
    ["", "yesterday", "2026-13-01T00:00:00.000Z", "2026-11-22", "2026-11-22T17:09:30.1e300Z",
     "2026-11-22T17:09:30.-5Z", "2026-11-22T17:09:30.nanZ", "0001-01-01T00:00:00.000Z"],
)  # fmt: skip
def test_a_time_that_is_none_harms_nobody(alice, stamp):
    """Whatever a server says the time is, the line can be shown."""
    assert alice.hear("@time=%s :bob!b@h PRIVMSG #lobby :hi" % stamp) == ["[bob]: hi"]
    assert "[bob]: hi" in str(alice.lines[-1])


def test_with_echo_one_s_own_words_are_shown_when_they_come_back(alice):
    """What is shown as said was delivered."""
    assert alice.type("Hello") == []
    assert alice.hear(":alice!a@h PRIVMSG #lobby :Hello") == ["[alice]: Hello"]


def test_without_echo_one_s_own_words_are_shown_at_once(unechoed):
    """A server that does not echo says nothing, so that they are shown when sent."""
    assert unechoed.type("Hello") == ["[alice]: Hello"]
    assert unechoed.type("@bob psst") == ["[you -> bob]: psst"]
    assert unechoed.type("/me waves") == ["* alice waves"]
    assert unechoed.sent == [
        "PRIVMSG #lobby :Hello", "PRIVMSG bob :psst", "PRIVMSG #lobby :\x01ACTION waves\x01",
    ]  # fmt: skip


# Who is here


@pytest.mark.parametrize(
    ("lines", "people"),
    [
        ([], "alice bob"),
        ([":carol!c@h JOIN #lobby"], "alice bob carol"),
        ([":carol!c@h JOIN #LOBBY"], "alice bob carol"),
        ([":bob!b@h PART #lobby"], "alice"),
        ([":bob!b@h QUIT :gone"], "alice"),
        ([":BOB!b@h QUIT :gone"], "alice"),
        ([":bob!b@h NICK Zed"], "alice Zed"),
        ([":bob!b@h NICK BOB"], "alice BOB"),
        ([":alice!a@h NICK mallory"], "bob mallory"),
        ([":dave!d@h NICK david"], "alice bob"),
        ([":hub 353 alice = #lobby :@zoe +adam", ":hub 366 alice #lobby :End"], "adam zoe"),
        ([":hub 353 alice = #lobby :zoe"], "alice bob"),
        ([":carol!c@h JOIN #other"], "alice bob"),
        ([":bob!b@h PART #other"], "alice bob"),
        ([":hub 353 alice = #other :x y", ":hub 366 alice #other :End"], "alice bob"),
    ],
)
def test_the_list_of_people_follows_what_happens_in_the_room(alice, lines, people):
    """Who joins, leaves or is renamed in our room, and nowhere else, changes the list."""
    alice.hear(*lines)
    assert alice.people == people


@pytest.mark.parametrize(
    "line",
    ["JOIN #lobby", ":!u@h JOIN #lobby", ":bob!b@h NICK :", ":hub 353 alice = #lobby :alice @ bob"],
)
def test_nobody_is_called_nothing(alice, line):
    """A server that leaves a name out adds nobody to the list."""
    alice.hear(line)
    assert all(alice.chat.people)
    alice.hear(":hub 366 alice #lobby :End of /NAMES list")
    assert all(alice.chat.people)


def test_one_s_own_new_name_is_one_s_name(alice):
    """After /nick the title says the new name, and what comes back under it is one's own."""
    alice.hear(":alice!a@h NICK alicia")
    assert alice.chat.title == "Connected: alicia @ Office — Hubbub"
    alice.hear(":alicia!a@h PRIVMSG #lobby :me again")
    assert alice.lines[-1].kind == FROM_ME


def test_a_connection_that_ends_leaves_nobody_in_the_list(alice):
    """Who is not seen is not shown as here."""
    alice.lose()
    assert alice.people == ""


def test_the_topic_is_the_room_s(alice):
    """The topic follows 332 and TOPIC of our room."""
    alice.hear(":hub 332 alice #lobby :Lunch at one", ":bob!b@h TOPIC #other :elsewhere")
    assert alice.chat.topic == "Lunch at one"
    alice.hear(":hub 332 alice #other :elsewhere")
    assert alice.chat.topic == "Lunch at one"
    assert alice.hear(":bob!b@h TOPIC #lobby :Tea") == ["[SERVER]: bob set the topic: Tea"]
    assert alice.chat.topic == "Tea"


def test_the_title_says_state_name_and_server():
    """In every state one sees whether one is connected, as whom and where."""
    alice = Talk()
    alice.chat.begin("alice")
    assert alice.chat.title == "Connecting: alice @ 127.0.0.1:12001 — Hubbub"
    alice.join()
    assert alice.chat.title == "Connected: alice @ Office — Hubbub"
    alice.lose()
    assert alice.chat.title == "Disconnected: alice @ Office — Hubbub"


# When the connection is lost


def test_what_was_not_confirmed_is_shown_as_waiting_and_sent_again_once(alice):
    """What a lost connection may have swallowed is said again, and only that."""
    alice.type("first")
    alice.type("@bob second")
    alice.hear(":alice!a@h PRIVMSG #lobby :first")
    alice.type("third")
    assert len(alice.sent) == 3
    assert alice.lose() == [
        "[SERVER]: The connection was lost.",
        "[you -> bob]: second  (waiting to send)",
        "[alice]: third  (waiting to send)",
    ]
    assert [line.kind for line in alice.lines[-2:]] == [WAITING, WAITING]
    alice.join()
    assert alice.sent == ["PRIVMSG bob :second", "PRIVMSG #lobby :third"]
    alice.hear(":alice!a@h PRIVMSG bob :second", ":alice!a@h PRIVMSG #lobby :third")
    alice.lose()
    alice.join()
    assert alice.sent == []


def test_what_was_sent_again_and_not_confirmed_is_sent_once_more(alice):
    """Words wait until a server has delivered them, over as many connections as it takes."""
    alice.type("patience")
    for _ in range(3):
        assert alice.sent == ["PRIVMSG #lobby :patience"]
        alice.lose()
        alice.join()
    alice.hear(":alice!a@h PRIVMSG #lobby :patience")
    alice.lose()
    alice.join()
    assert alice.sent == ["PRIVMSG #lobby :patience"]  # that of the third time


def test_equal_words_are_confirmed_one_by_one(alice):
    """One echo confirms one message, though another one says the same."""
    alice.type("ha")
    alice.type("ha")
    alice.hear(":alice!a@h PRIVMSG #lobby :ha")
    assert len(alice.sent) == 2
    alice.lose()
    alice.join()
    assert alice.sent == ["PRIVMSG #lobby :ha"]


def test_an_echo_in_the_recipient_s_own_spelling_confirms(alice):
    """@BOB reaches bob; the server names him as he is called, and nothing is sent twice."""
    alice.type("@BOB psst")
    alice.hear(":alice!a@h PRIVMSG bob :psst")
    assert alice.sent == ["PRIVMSG BOB :psst"]
    alice.lose()
    alice.join()
    assert alice.sent == []


@pytest.mark.parametrize(
    ("typed", "refusal"),
    [
        ("@dave hi", ":hub 401 alice dave :No such nick"),
        ("hi", ":hub 404 alice #lobby :Cannot send to channel"),
        ("hi", ":hub 403 alice #lobby :No such channel"),
    ],
)
def test_what_was_refused_is_not_sent_again(alice, typed, refusal):
    """A server that will not deliver is not asked twice."""
    alice.type(typed)
    alice.hear(refusal)
    assert len(alice.sent) == 1
    assert alice.lose() == ["[SERVER]: The connection was lost."]
    alice.join()
    assert alice.sent == []


def test_what_is_typed_while_disconnected_waits_for_the_room(alice):
    """It is shown as waiting, and sent when we are in the room again, not before."""
    alice.lose()
    assert alice.type("later\n@ is text here") == [
        "[alice]: later  (waiting to send)", "[alice]: @ is text here  (waiting to send)",
    ]  # fmt: skip
    assert alice.sent == []
    alice.connect()
    assert alice.sent == []
    alice.hear(*IN_THE_ROOM)
    assert alice.sent == ["PRIVMSG #lobby :later", "PRIVMSG #lobby :@ is text here"]


def test_what_is_typed_before_the_room_is_entered_again_is_sent_once_and_in_order(alice):
    """Between the welcome and the room one can type; it waits its turn."""
    alice.lose()
    alice.type("one")
    alice.connect()
    alice.type("two")
    alice.hear(*IN_THE_ROOM)
    assert alice.sent == ["PRIVMSG #lobby :one", "PRIVMSG #lobby :two"]


def test_without_echo_what_waited_is_sent_once_and_shown_as_said(unechoed):
    """Waiting ends: the line is shown again as one's own when it goes out."""
    unechoed.lose()
    unechoed.type("later")
    unechoed.connect()
    shown = unechoed.hear(*IN_THE_ROOM)
    assert unechoed.sent == ["PRIVMSG #lobby :later"]
    unechoed.lose()
    unechoed.join()
    assert unechoed.sent == []
    assert "[alice]: later" in shown


@pytest.mark.parametrize("typed", ["/list", "/nick alicia"])
def test_a_command_does_not_wait(alice, typed):
    """What only a server could answer is refused while there is none."""
    alice.lose()
    with pytest.raises(protocol.InputError, match="not connected"):
        alice.type(typed)
    alice.join()
    assert alice.sent == []


@pytest.mark.parametrize("typed", ["/help", "/quit"])
def test_what_needs_no_server_works_without_one(alice, typed):
    """Help can be read, and the program left, at any time."""
    alice.lose()
    outcome = alice.chat.submit(typed, NOW)
    assert outcome.show or outcome.done


def test_the_end_that_the_user_chose_is_not_told_to_the_user(alice):
    """Only what nobody asked for is news."""
    assert alice.lose(CLOSED, "") == []


def test_where_there_is_no_room_one_can_only_write_to_a_person():
    """A server may place nobody in a room; the words say what is left."""
    alice = Talk()
    alice.connect()
    with pytest.raises(protocol.InputError, match="@USERNAME MESSAGE"):
        alice.type("hello?")
    alice.type("@bob hello")
    assert alice.sent == ["PRIVMSG bob :hello"]


COMMANDS = "PRIVMSG NOTICE JOIN PART QUIT NICK TOPIC KICK MODE CAP ERROR FAIL PONG 1 X".split()
NUMERICS = "001 005 332 333 353 366 372 401 404 421 433 999".split()
WORDS = st.sampled_from("alice|bob|#lobby||#|@|{}|{0.x}|%s|a b|\x01".split("|"))
MESSAGES = st.builds(
    protocol.Message,
    st.sampled_from(COMMANDS + NUMERICS),
    st.lists(WORDS | st.text(max_size=5), max_size=4).map(tuple),
    st.sampled_from(["", "alice!a@h", "bob!b@h", "hub", "!", "!u@h"]),
    st.dictionaries(st.sampled_from(["time", "msgid"]), st.text(max_size=5), max_size=1),
)


@given(st.lists(MESSAGES | st.just(Disconnected(LOST, "")) | st.just(Connected("alice", True))))
def test_whatever_a_server_says_the_conversation_goes_on(events):
    """No order of messages, however short or odd, breaks the client or what it shows."""
    alice = Talk().join()
    for event in events:
        alice.tell(event)
    shown = "".join(map(str, alice.lines))
    assert {unicodedata.category(char) for char in shown}.isdisjoint({"Cc", "Cs", "Zl", "Zp"})


# What is said before the welcome


class Caller:
    """A Handshake; `hear` gives what it answers, `refused` with what it gives up."""

    def __init__(self, password=""):
        self.handshake = client.Handshake("alice", password)
        self.opening = self._lines(self.handshake.opening())

    def hear(self, *lines):
        answers = []
        for line in lines:
            answers += self.handshake.answer(protocol.parse(line.encode()))
        return self._lines(answers)

    def refused(self, line):
        with pytest.raises(client.RefusedError) as refusal:
            self.hear(line)
        return refusal.value.event

    @staticmethod
    def _lines(messages):
        return [protocol.serialize(message).decode()[:-2] for message in messages]


def test_a_client_introduces_itself():
    """Capabilities are asked for before the name, so that registration waits for them."""
    introduction = ["CAP LS :302", "NICK alice", "USER alice 0 * :alice"]
    assert Caller().opening == introduction
    assert Caller("sesame").opening == ["PASS sesame", *introduction]


WANTED = "CAP REQ :echo-message message-tags server-time"


@pytest.mark.parametrize(
    ("heard", "answers"),
    [
        (["CAP * LS :echo-message message-tags server-time"], [WANTED]),
        (["CAP * LS :sasl=PLAIN server-time=x echo-message message-tags"], [WANTED]),
        (["CAP * LS * :message-tags a=b", "CAP * LS :server-time echo-message"], [WANTED]),
        (["CAP * LS * :echo-message message-tags server-time"], []),
        (["CAP * LS :server-time away-notify"], ["CAP REQ :server-time"]),
        (["CAP * LS :away-notify"], ["CAP END"]),
        (["CAP * LS :"], ["CAP END"]),
        (["CAP * ACK :echo-message server-time "], ["CAP END"]),
        (["CAP * NAK :echo-message server-time"], ["CAP END"]),
        (["CAP * NEW :batch"], []),
        (["CAP"], []),
        (["CAP *"], []),
        (["NOTICE * :*** Looking up your hostname"], []),
    ],
)
def test_capabilities_are_negotiated_and_always_ended(heard, answers):
    """Of what is offered, what we know is asked for; a yes and a no both end it."""
    assert Caller().hear(*heard) == answers


def test_only_what_the_server_agreed_to_counts():
    """After NAK nothing is on; after ACK what it names is."""
    refused, agreed = Caller(), Caller()
    refused.hear("CAP * LS :echo-message", "CAP * NAK :echo-message")
    agreed.hear("CAP * LS :echo-message", "CAP * ACK :echo-message")
    assert refused.handshake.caps == []
    assert agreed.handshake.caps == ["echo-message"]


def test_a_server_without_capabilities_is_good_enough():
    """421 for CAP is no refusal; the welcome is what counts."""
    caller = Caller()
    assert caller.hear(":hub 421 alice CAP :Unknown command", ":hub 001 alicia :Welcome") == []
    assert caller.handshake.done
    assert caller.handshake.nickname == "alicia"  # servers may shorten a name


@pytest.mark.parametrize(
    ("line", "fault", "words"),
    [
        (":hub 433 * alice :In use", NAME, "“alice” is already here."),
        (":hub 433 * alice :In use", NAME, "for example alice2."),
        (":hub 436 * alice :Collision", NAME, "“alice” is already here."),
        (":hub 432 * alice :Not so.", NAME, "Not so."),
        (":hub 437 * alice :Not now.", NAME, "Not now."),
        (":hub 464 alice :Nope", PASSWORD, "This server asks for a password."),
        (":hub 465 alice :You are banned", SERVER, "You are banned"),
        ("ERROR :Office is full (10 people).", SERVER, "Office is full (10 people)."),
    ],
)
def test_a_refusal_says_whose_turn_it_is_and_why(line, fault, words):
    """Another name, a password or another server: the fault tells which, in words."""
    event = Caller().refused(line)
    assert event.fault == fault
    assert words in event.reason


def test_a_wrong_password_is_called_wrong_only_if_there_was_one():
    """Who has typed none is asked for one."""
    assert Caller("sesame").refused(":hub 464 alice :Nope").reason == "Wrong password."


# Where the server is


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("office", ("office", client.SERVER_PORT)),
        (" 192.168.1.20 ", ("192.168.1.20", client.SERVER_PORT)),
        ("192.168.1.20:6667", ("192.168.1.20", 6667)),
        ("office:1", ("office", 1)),
        ("office:65535", ("office", 65535)),
        ("::1", ("::1", client.SERVER_PORT)),
        ("fe80::1:6667", ("fe80::1:6667", client.SERVER_PORT)),
        ("[::1]", ("::1", client.SERVER_PORT)),
        ("[::1]:6667", ("::1", 6667)),
    ],
)
def test_a_server_is_written_as_people_write_it(text, place):
    """A name or an address, with or without a port."""
    assert client.parse_server(text) == place


@pytest.mark.parametrize(
    "text",
    ["", " ", ":", ":80", "office:", "office:0", "office:65536", "office:-1", "office:http",
     "my office", "[::1]:x", "office:\u00b2"],
)  # fmt: skip
def test_what_is_no_server_is_answered_with_how_to_write_one(text):
    """The words show an example."""
    with pytest.raises(ValueError, match=r"192\.168\.1\.20"):
        client.parse_server(text)
