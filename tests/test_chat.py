"""What the client makes of a conversation: no socket, no window, no clock."""

import calendar
import contextlib
import random
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

import client
import protocol
from client import CLOSED, LOST, NAME, PASSWORD, SERVER, Chat, Connected, Disconnected, Lost
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

    def __init__(self, caps="echo-message"):
        self.chat = Chat("127.0.0.1:12001")
        self.caps = frozenset(caps.split())
        self.lines = []  # all that was shown at the end of a conversation, as Lines
        self.changes = []  # all of them since one last looked
        self.session = 0
        self._sent = []

    def connect(self, nickname="", is_resumed=False):
        self.session += 1
        if self.session == 1:
            self.chat.begin("alice")
        name = nickname or self.chat.nickname
        return self.tell(Connected(name, self.caps, self.session, is_resumed))

    def join(self, *tokens, **options):
        """Be connected and in the room, as on the first day."""
        self.connect(**options)
        self.hear(*[":hub 005 alice %s :are supported" % token for token in tokens])
        self.hear(*IN_THE_ROOM)
        return self

    def lose(self, reason="The connection was lost.", unsent=(), attempt=1, seconds=0.0):
        return self.tell(Lost(reason, attempt, seconds, unsent))

    def type(self, text):
        """What is shown when the user presses Enter."""
        return self._note(self.chat.submit(text, NOW))

    def do(self, outcome):
        """What is shown when the user has done something else."""
        return self._note(outcome)

    def hear(self, *lines):
        """What is shown when the server says these lines."""
        shown = []
        for line in lines:
            shown += self.tell(protocol.parse(line.encode()))
        return shown

    def tell(self, event):
        return self._note(self.chat.handle(event, NOW))

    def _note(self, outcome):
        self._sent += outcome.send
        self.changes += outcome.changes
        new = {e.id: e for c in outcome.changes if c.kind == client.ADDED for e in c.entries}
        self.lines += [entry.line for entry in new.values()]
        return [seen(entry) for entry in new.values()]

    @property
    def sent(self):
        """The lines, but for the questions whose answers say that all before them was taken."""
        messages, self._sent = self._sent, []
        lines = [protocol.serialize(message).decode()[:-2] for message in messages]
        return [line for line in lines if not line.startswith("PING sent-")]

    @property
    def people(self):
        return " ".join(person.nickname for person in self.chat.current.people)

    def seen(self, name="#lobby"):
        """What stands in a conversation."""
        return [seen(entry) for entry in self.chat.find(name).entries]

    def changed(self, kind):
        """The changes of this kind since one last asked."""
        found = [change for change in self.changes if change.kind == kind]
        self.changes = []
        return found


def seen(entry):
    """An entry as one sees it; one's own that wait stand in angle brackets."""
    text = entry.text + (" (%s)" % entry.note if entry.note else "")
    return {client.WAITING: "<%s>", client.FAILED: "!%s!"}.get(entry.state, "%s") % text


@pytest.fixture
def alice():
    """Alice is in #lobby with bob, on a server that echoes what she says."""
    talk = Talk().join()
    assert talk.sent == []
    return talk


@pytest.fixture
def unechoed():
    """The same on a server that does not echo."""
    return Talk("").join()


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


def test_a_server_whose_clock_was_wrong_once_tells_what_was_missed():
    """Windows cannot show every year; and what was missed is what came after the last word."""
    alice = Talk(Hub.CAPS).join()
    alice.hear("@time=9999-12-31T23:59:59.000Z :bob!b@h PRIVMSG #lobby :from afar")
    assert alice.lines[-1].when == client.LAST_TIME
    alice.hear("@time=2026-11-22T17:09:30.500Z :bob!b@h PRIVMSG #lobby :back")
    alice.lose()
    alice.join()
    (asked,) = [line for line in alice.sent if "TARGETS" in line]
    assert "TARGETS timestamp=2026-11-22T17:09:30.500Z" in asked


def test_one_s_own_words_appear_at_once_and_settle_when_they_come_back(alice):
    """They wait, in the same place, until the echo says that they are delivered."""
    assert alice.type("Hello") == ["<[alice]: Hello>"]
    assert (
        alice.hear("@msgid=7;time=2026-11-22T17:10:50.000Z :alice!a@h PRIVMSG #lobby :Hello") == []
    )
    assert alice.seen()[-1] == "[alice]: Hello"
    assert alice.chat.current.entries[-1].line.when == NOW + 8
    (change,) = alice.changed(client.CHANGED)
    assert change.entries == [alice.chat.current.entries[-1]]


def test_what_was_said_before_one_s_own_words_stands_before_them(alice):
    """The server decides on the order: the same for all who read it."""
    alice.type("mine")
    alice.hear(":bob!b@h PRIVMSG #lobby :his")
    assert alice.seen()[-2:] == ["<[alice]: mine>", "[bob]: his"]
    alice.hear(":alice!a@h PRIVMSG #lobby :mine")
    assert alice.seen()[-2:] == ["[bob]: his", "[alice]: mine"]


def test_without_echo_one_s_own_words_settle_when_the_server_has_read_on(unechoed):
    """A question after them is answered when they have been taken, and not refused."""
    unechoed.type("Hello")
    unechoed.type("@dave psst")
    lines = [protocol.serialize(message).decode()[:-2] for message in unechoed._sent]
    assert lines == ["PRIVMSG #lobby :Hello", "PING sent-1", "PRIVMSG dave :psst", "PING sent-2"]
    unechoed.hear(":hub PONG hub :sent-1", ":hub 401 alice dave :No such nick")
    unechoed.hear(":hub PONG hub :sent-2")
    assert unechoed.seen()[-3:] == [
        "[alice]: Hello", "![you -> dave]: psst (not delivered)!", "[SERVER]: No such user: dave",
    ]  # fmt: skip


def test_what_the_server_takes_back_is_not_relied_on():
    """Words whose echo may not come settle as they do where there never was one."""
    alice = Talk("echo-message draft/chathistory").join()
    alice.type("/history")
    alice.type("first")
    alice.hear(":hub CAP alice DEL :echo-message draft/chathistory")
    assert protocol.serialize(alice._sent[-1]) == b"PING sent-1\r\n"
    alice.hear(":hub PONG hub :sent-1")
    assert alice.seen()[-1] == "[alice]: first"
    alice.type("second")
    assert protocol.serialize(alice._sent[-1]) == b"PING sent-2\r\n"
    with pytest.raises(protocol.InputError, match="This server has no /history"):
        alice.type("/history")


def test_labels_tell_which_of_two_is_meant():
    """Where the server has them, an answer names the very message that it is about."""
    alice = Talk("echo-message labeled-response batch message-tags").join()
    alice.type("@bob ha")
    alice.type("@bob ha")
    assert alice.sent == ["@label=m1 PRIVMSG bob :ha", "@label=m2 PRIVMSG bob :ha"]
    alice.hear("@label=m2 :alice!a@h PRIVMSG bob :ha")
    assert alice.seen()[-2:] == ["<[you -> bob]: ha>", "[you -> bob]: ha"]
    alice.hear("@label=m1 :hub 404 alice bob :No")
    assert alice.seen()[-3] == "![you -> bob]: ha (not delivered)!"


def test_what_was_refused_can_be_tried_again_or_dropped(alice):
    """The words are not lost: they go out again at the end, or away."""
    alice.type("@dave hi")
    alice.hear(":hub 401 alice dave :No such nick")
    (entry,) = [e for e in alice.chat.current.entries if e.state == client.FAILED]
    alice.do(alice.chat.retry(entry, NOW))
    assert alice.sent == ["PRIVMSG dave :hi"] * 2
    assert alice.seen()[-1] == "<[you -> dave]: hi>"
    alice.hear(":hub 401 alice dave :No such nick")
    alice.do(alice.chat.drop(entry))
    assert not any("hi" in line for line in alice.seen())
    alice.do(alice.chat.retry(entry, NOW))
    assert alice.sent == []


def test_a_slip_in_a_name_is_answered_with_a_guess(alice):
    """Who is nearly called so was meant, most likely."""
    alice.hear(":robert!r@h JOIN #lobby")
    alice.type("@robrt hi")
    shown = alice.hear(":hub 401 alice robrt :No such nick")
    assert shown == ["[SERVER]: No such user: robrt. Did you mean robert?"]


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
    assert all(alice.chat.current.members)
    alice.hear(":hub 366 alice #lobby :End of /NAMES list")
    assert all(alice.chat.current.members)


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
    assert alice.chat.current.topic == "Lunch at one"
    alice.hear(":hub 332 alice #other :elsewhere")
    assert alice.chat.current.topic == "Lunch at one"
    assert alice.hear(":bob!b@h TOPIC #lobby :Tea") == ["[SERVER]: bob set the topic: Tea"]
    assert alice.chat.current.topic == "Tea"


def test_operators_and_those_who_are_away_are_known(alice):
    """Prefixes follow names and modes, presence follows AWAY."""
    alice.hear(":hub 353 alice = #lobby :@+alice +bob", ":hub 366 alice #lobby :End")
    alice.hear(":alice!a@h MODE #lobby +o-v bob alice", ":bob!b@h AWAY :lunch")
    alice, bob = alice.chat.current.people, alice.chat
    assert [(person.prefix, person.is_away) for person in alice] == [("@", False), ("@+", True)]
    assert bob.presence("BOB") == client.AWAY
    assert bob.presence("alice") == client.ONLINE
    assert bob.presence("zoe") == client.OFFLINE


def test_modes_are_read_as_the_server_has_them():
    """Which of them take an argument, and what stands before whose name: 005 tells."""
    alice = Talk()
    alice.connect()
    alice.hear(":hub 005 alice CHANMODES=be,k,lH,imZ PREFIX=(yov)!@+ :are supported")
    alice.hear(*IN_THE_ROOM[:-2])
    alice.hear(":hub 353 alice = #lobby :alice !@bob +carol ~dan", ":hub 366 alice #lobby :End")
    prefixes = lambda: [person.prefix for person in alice.chat.current.people]  # noqa: E731
    assert prefixes()[:3] == ["", "!@", "+"]
    alice.hear(":bob!b@h MODE #lobby +eZHoy-k *!*@h 10:5 alice carol key")
    assert prefixes()[:3] == ["@", "!@", "!+"]
    shown = alice.hear(":bob!b@h MODE #lobby +H-b+v 10:5 eve!*@* alice")
    assert shown == [
        "[SERVER]: bob set the mode +H of #lobby, lifted the ban of eve from #lobby,"
        " gave alice a voice in #lobby"
    ]
    many = ["alice", "carol"] * 5
    alice.hear(":bob!b@h MODE #lobby -%s %s" % ("oy" * 5, " ".join(many)))
    assert prefixes()[:3] == ["+", "!@", "+"]


def test_who_is_away_is_asked_once_where_that_is_told():
    """After the names of a small room, and never of a server that would not tell of changes."""
    alice = Talk("away-notify").join()
    assert alice.sent == ["WHO #lobby"]
    alice.hear(":hub 352 alice #lobby b h hub bob G@ :0 Bob", ":hub 315 alice #lobby :End")
    assert alice.chat.presence("bob") == client.AWAY
    alice.hear(":hub 353 alice = #lobby :alice bob", ":hub 366 alice #lobby :End")
    assert alice.sent == []
    assert alice.chat.presence("bob") == client.AWAY


def test_the_title_says_state_name_and_server(alice):
    """In every state one sees whether one is connected, as whom and where; and what is new."""
    newcomer = Chat("Office")
    newcomer.begin("bob")
    assert newcomer.title == "Connecting to Office… — Hubbub"
    assert alice.chat.title == "Connected: alice @ Office — Hubbub"
    alice.do(alice.chat.attend(False, NOW))
    alice.hear(":bob!b@h PRIVMSG #lobby :hi")
    assert alice.chat.title == "(1) Connected: alice @ Office — Hubbub"
    alice.hear(":bob!b@h PRIVMSG alice :psst")
    assert alice.chat.title == "(2!) Connected: alice @ Office — Hubbub"
    alice.lose()
    assert alice.chat.title == "(2!) Reconnecting… — Office — Hubbub"
    alice.tell(Disconnected(PASSWORD, "Wrong password."))
    assert alice.chat.title == "(2!) Disconnected — Office — Hubbub"


# Conversations


def names(talk):
    return [conversation.name for conversation in talk.chat.conversations]


def test_there_is_always_a_conversation_in_view():
    """Before the first room it is the server's own, which gives its lines to that room."""
    alice = Talk()
    assert alice.chat.current.kind == client.CONSOLE
    alice.connect()
    alice.hear(*IN_THE_ROOM[:2])
    assert alice.chat.current.name == "Office"
    alice.hear(*IN_THE_ROOM[2:])
    assert names(alice) == ["#lobby"]
    assert alice.seen()[0] == "[SERVER]: Welcome to Office, alice. Type /help for commands."
    alice.hear(":alice!a@h PART #lobby")
    assert alice.chat.current.kind == client.CONSOLE


def test_a_room_that_one_enters_comes_into_view_and_another_does_not(alice):
    """What the user asked for is shown; what the server did is not forced upon anyone."""
    alice.type("/join tea")
    assert alice.sent == ["JOIN :#tea"] or alice.sent == []
    alice.hear(":alice!a@h JOIN #tea")
    assert alice.chat.current.name == "#tea"
    alice.hear(":alice!a@h JOIN #forced")
    assert alice.chat.current.name == "#tea"
    alice.type("/join #lobby")
    assert alice.chat.current.name == "#lobby"
    alice.sent  # noqa: B018
    alice.type("to the room in view")
    assert alice.sent == ["PRIVMSG #lobby :to the room in view"]


def test_rooms_stand_before_people(alice):
    """In the order of their coming."""
    alice.do(alice.chat.open("zoe", NOW))
    alice.hear(":alice!a@h JOIN #tea", ":bob!b@h PRIVMSG alice :hi")
    assert names(alice) == ["#lobby", "#tea", "zoe", "bob"]


def test_leaving_takes_the_conversation_away(alice):
    """A room is left on the server too; a private conversation only here."""
    alice.do(alice.chat.open("bob", NOW))
    assert alice.chat.current.name == "bob"
    alice.type("/leave")
    assert names(alice) == ["#lobby"]
    assert alice.sent == []
    alice.hear(":alice!a@h JOIN #tea")
    alice.do(alice.chat.close(alice.chat.find("#tea"), NOW))
    assert names(alice) == ["#lobby"]
    assert alice.sent == ["PART #tea"]


def test_a_private_message_shows_in_both_places(alice):
    """In its own conversation, and in the room where one is; and the same line is one entry."""
    alice.hear(":bob!b@h PRIVMSG alice :psst")
    assert alice.seen("bob") == ["[bob -> you]: psst"]
    assert alice.seen()[-1] == "[bob -> you]: psst"
    assert alice.chat.find("bob").entries[0] is alice.chat.current.entries[-1]
    alice.type("@bob what?")
    assert alice.seen("bob")[-1] == alice.seen()[-1] == "<[you -> bob]: what?>"
    alice.hear(":alice!a@h PRIVMSG bob :what?")
    assert alice.seen("bob")[-1] == alice.seen()[-1] == "[you -> bob]: what?"
    assert (alice.chat.find("bob").unread, alice.chat.find("bob").mentions) == (1, 1)


def test_a_private_conversation_begins_when_the_first_word_has_arrived(alice):
    """A slip in a name opens nothing."""
    alice.type("@zoe hi")
    assert names(alice) == ["#lobby"]
    alice.hear(":alice!a@h PRIVMSG zoe :hi")
    assert names(alice) == ["#lobby", "zoe"]
    assert alice.seen("zoe") == ["[you -> zoe]: hi"]


def test_in_a_private_conversation_what_is_typed_goes_to_that_person(alice):
    """Rooms' commands go to the room one was in."""
    alice.do(alice.chat.open("bob", NOW))
    alice.type("hello")
    alice.type("/me waves")
    alice.type("/topic Tea")
    assert alice.sent == [
        "PRIVMSG bob :hello", "PRIVMSG bob :\x01ACTION waves\x01", "TOPIC #lobby :Tea",
    ]  # fmt: skip


def test_who_is_renamed_takes_the_conversation_along(alice):
    """One goes on talking to the same person."""
    alice.hear(":bob!b@h PRIVMSG alice :hi", ":bob!b@h NICK rob")
    assert names(alice) == ["#lobby", "rob"]
    assert alice.chat.find("rob").entries[-1].text == "[SERVER]: bob is now called rob"


def test_what_is_new_is_counted_and_marked_until_it_is_seen(alice):
    """The badge goes when one looks; the line above it when one leaves, or answers."""
    alice.do(alice.chat.open("zoe", NOW))
    room = alice.chat.find("#lobby")
    alice.hear(":bob!b@h PRIVMSG #lobby :one", ":bob!b@h PRIVMSG #lobby :alice: two")
    alice.hear(":carol!c@h JOIN #lobby")
    assert (room.unread, room.mentions, room.new_count) == (2, 1, 2)
    first = room.first_unread
    assert [entry.text for entry in room.entries if entry.id == first] == ["[bob]: one"]
    alice.do(alice.chat.select(room, NOW))
    assert (room.unread, room.mentions, room.new_count, room.first_unread) == (0, 0, 2, first)
    alice.type("aha")
    assert (room.new_count, room.first_unread) == (0, 0)


def test_who_looks_away_has_something_new_in_view_too(alice):
    """What comes while the window is not in focus is marked there as well."""
    room = alice.chat.current
    alice.do(alice.chat.attend(False, NOW))
    alice.hear(":bob!b@h PRIVMSG #lobby :one")
    assert (room.unread, room.new_count) == (1, 1)
    alice.do(alice.chat.attend(True, NOW))
    assert (room.unread, room.new_count) == (0, 1)
    alice.do(alice.chat.attend(False, NOW))
    assert (room.new_count, room.first_unread) == (0, 0)


@pytest.mark.parametrize(
    ("level", "texts"),
    [(client.ALL, ["one", "alice: two"]), (client.MENTIONS, ["alice: two"]), (client.NONE, [])],
)
def test_alerts_are_as_one_wants_them(alice, level, texts):
    """All, what mentions us, or nothing; and never for what one is looking at."""
    room = alice.chat.current
    lines = [":bob!b@h PRIVMSG #lobby :one", ":bob!b@h PRIVMSG #lobby :alice: two"]
    alice.do(alice.chat.set_level(room, level))
    alice.hear(*lines)
    assert alice.changed(client.ALERT) == []
    alice.do(alice.chat.attend(False, NOW))
    alice.hear(*lines)
    alerts = alice.changed(client.ALERT)
    assert [entry.line.text for alert in alerts for entry in alert.entries] == texts


@pytest.mark.parametrize(
    ("text", "is_meant"),
    [
        ("alice", True), ("hey ALICE!", True), ("@alice, look", True), ("alice's", True),
        ("malice", False), ("alice2", False), ("al ice", False), ("", False),
    ],
)  # fmt: skip
def test_a_mention_is_one_s_name_as_a_word(alice, text, is_meant):
    """Not a part of another word, whatever its case."""
    alice.hear(":bob!b@h PRIVMSG #lobby :" + text)
    assert alice.chat.current.entries[-1].is_mention == is_meant


def test_who_is_ignored_is_not_heard(alice):
    """Nowhere, until that is lifted; a server that can do it is asked to."""
    assert alice.type("/ignore bob") == ["[SERVER]: You do not hear bob any more"]
    assert alice.hear(":BOB!b@h PRIVMSG #lobby :hi", ":bob!b@h PRIVMSG alice :hi") == []
    assert alice.type("/ignore") == ["[SERVER]: You ignore bob."]
    assert alice.sent == []
    alice.hear(":hub 005 alice SILENCE=15 :are supported")
    alice.type("/unignore bob")
    alice.type("/ignore eve")
    assert alice.sent == ["SILENCE -bob", "SILENCE +eve"]
    assert alice.hear(":bob!b@h PRIVMSG #lobby :hi") == ["[bob]: hi"]
    alice.lose()
    alice.join("SILENCE=15")
    assert alice.sent == ["SILENCE +eve"]


@pytest.mark.parametrize("tokens", [[], ["SILENCE=15"]])
def test_nobody_ignores_themselves(tokens):
    """Or one's own words would never be seen to arrive."""
    alice = Talk().join(*tokens)
    with pytest.raises(protocol.InputError, match="You cannot ignore yourself"):
        alice.type("/ignore ALICE")
    assert alice.sent == []
    alice.type("hi")
    alice.hear(":alice!a@h PRIVMSG #lobby :hi")
    assert alice.seen()[-1] == "[alice]: hi"


@pytest.mark.parametrize(
    "typed", ["/history", "/register s3cret", "/login bob s3cret", "/ban bob", "/bans", "/stats"]
)
def test_nothing_is_asked_of_a_server_that_does_not_offer_it(alice, typed):
    """The words say that this server has it not."""
    with pytest.raises(protocol.InputError, match="This server has no /"):
        alice.type(typed)
    assert alice.sent == []


def test_a_flood_is_bounded(alice, monkeypatch):
    """Old lines go when there are too many, and can be fetched again where there is a history."""
    monkeypatch.setattr(client, "MAX_ENTRIES", 100)
    alice.chat.current.limit = 100
    alice.hear(*["@msgid=%d :bob!b@h PRIVMSG #lobby :%d" % (n, n) for n in range(1000)])
    room = alice.chat.current
    assert len(room.entries) <= 110
    assert room.entries[-1].line.text == "999"
    assert room.past.has_older
    assert not room.knows("1")
    assert room.knows("999")


def test_no_flood_washes_away_what_was_not_sent(alice, monkeypatch):
    """One's own words stay until the server has them, or until one does without."""
    room = alice.chat.current
    room.limit = 100
    alice.type("refused")
    alice.hear(":hub 404 alice #lobby :Cannot send to channel")
    alice.type("on its way")
    alice.hear(*["@msgid=%d :bob!b@h PRIVMSG #lobby :%d" % (n, n) for n in range(1000)])
    assert len(room.entries) <= 110
    assert alice.seen()[:2] == ["![alice]: refused (not delivered)!", "<[alice]: on its way>"]
    alice.hear(":alice!a@h PRIVMSG #lobby :on its way")
    assert alice.seen()[-1] == "[alice]: on its way"
    alice.do(alice.chat.drop(room.entries[0]))
    assert "refused" not in "".join(alice.seen())


@pytest.mark.parametrize(
    "line",
    [
        ":alice!a@h JOIN #room%d", ":alice!a@h JOIN #lobby", ":hub 353 alice = #room%d :a b",
        ":hub 005 alice TOKEN%d=1 :are supported", ":hub 730 alice :u%d!u@h",
        ":hub BATCH +%d chathistory #lobby",
    ],
)  # fmt: skip
def test_no_server_can_fill_our_memory(line, monkeypatch):
    """Whatever it repeats, with other names each time: what is kept of it has a limit."""
    for limit in ("MAX_CONVERSATIONS", "MAX_REQUESTS", "MAX_BATCHES"):
        monkeypatch.setattr(client, limit, 5)
    alice = Talk(Hub.CAPS).join()
    for number in range(1000):
        for word in (line, ":alice!a@h JOIN #r", ":alice!a@h PART #r"):
            alice.tell(protocol.parse((word.replace("%d", str(number))).encode()))
    owners = [alice.chat, alice.chat._session, alice.chat._outbox, *alice.chat.conversations]
    kept = [(name, value) for owner in owners for name, value in vars(owner).items()]
    sizes = {name: len(value) for name, value in kept if isinstance(value, (list, dict, set))}
    assert [name for name in sizes if sizes[name] > 10 and name != "entries"] == []


def test_strangers_cannot_fill_the_list(alice, monkeypatch):
    """Past a number of conversations, private messages stand where one is."""
    monkeypatch.setattr(client, "MAX_STRANGERS", 2)
    alice.hear(*[":u%d!u@h PRIVMSG alice :hi %d" % (n, n) for n in range(5)])
    assert names(alice) == ["#lobby", "u0", "u1"]
    assert alice.seen()[-1] == "[u4 -> you]: hi 4"
    alice.do(alice.chat.open("u4", NOW))  # but whom one writes to has a place
    assert names(alice) == ["#lobby", "u0", "u1", "u4"]


# Completion, search, links


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("bo|", "bob: |"),
        ("hey bo|", "hey bob |"),
        ("@bo|", "@bob |"),
        ("BO|", "bob: |"),
        ("bo| how are you", "bob: | how are you"),
        ("/wh|", "/whois |"),
        ("#lo|", "#lobby |"),
        ("see #lo|", "see #lobby |"),
        ("|", None),
        ("x |", None),
        ("zzz|", None),
        ("see /wh|", None),
        ("ali|", None),
    ],
)
def test_tab_completes_names_rooms_and_commands(alice, before, after):
    """A name at the beginning addresses, elsewhere it is a word; one's own is not offered."""
    cursor = before.index("|")
    found = alice.chat.complete(before.replace("|", ""), cursor)
    assert (found and found[0][: found[1]] + "|" + found[0][found[1] :]) == after


def test_tab_goes_through_all_possibilities_and_back(alice):
    """Who spoke last comes first; Shift+Tab goes the other way; typing begins anew."""
    alice.hear(":bert!b@h JOIN #lobby", ":boris!b@h JOIN #lobby", ":bob!b@h PRIVMSG #lobby :hi")
    found, seen_ = ("b", 1), []
    for step in (1, 1, 1, 1, -1):
        found = alice.chat.complete(*found, step)
        seen_.append(found[0])
    assert seen_ == ["bob: ", "bert: ", "boris: ", "bob: ", "boris: "]
    assert alice.chat.complete("ber", 3) == ("bert: ", 6)
    assert alice.chat.complete("b", 1, -1) == ("boris: ", 7)


def test_a_search_finds_all_places_whatever_the_case(alice):
    """Hits are places in what one sees, also where folding makes letters more."""
    alice.hear(
        ":bob!b@h PRIVMSG #lobby :The cat. the CAT", ":bob!b@h PRIVMSG #lobby :Straße 😀 the"
    )
    room = alice.chat.current

    def found(words):
        return [e.text[start:end] for e, spans in room.find(words).items() for start, end in spans]

    assert found("the")[-3:] == ["The", "the", "the"]
    assert found("STRASSE") == ["Straße"]
    assert found("t.") == ["t."]
    assert found("") == found("nowhere") == []


@pytest.mark.parametrize(
    ("text", "links"),
    [
        ("see http://a.example/x.", ["http://a.example/x"]),
        ("(https://a.example/b_(c))", ["https://a.example/b_(c)"]),
        ("HTTPS://A.example, http://b", ["HTTPS://A.example", "http://b"]),
        ("<http://a/?q=1&r=2#s>!", ["http://a/?q=1&r=2#s"]),
        ("http:// https://... file:///etc xhttp://a javascript:x", []),
        ("http://192.168.1.20:8080/notes — please", ["http://192.168.1.20:8080/notes"]),
    ],
)
def test_links_are_found_without_what_follows_them(text, links):
    """Only those of the web; the sentence's punctuation is not theirs."""
    assert [text[start:end] for start, end in client.find_links(text)] == links


@pytest.mark.parametrize(
    ("text", "secret"),
    [("/login bob s3cret", True), (" /REGISTER s3cret", True), ("/join x", False), ("login", False),
     ("", False), ("/", False), ("//login bob", False)],
)  # fmt: skip
def test_what_holds_a_password_is_known(text, secret):
    """So that no history of the input keeps it."""
    assert client.is_secret(text) == secret


def test_a_password_is_shown_nowhere_and_kept_until_it_proved_right():
    """It goes to the server, and comes back with the connection when it was accepted."""
    alice = Talk("echo-message sasl draft/account-registration").join()
    outcome = alice.chat.submit("/register s3cret", NOW)
    assert (outcome.changes, outcome.login) == ([], None)
    outcome = alice.chat.handle(protocol.parse(b"REGISTER SUCCESS alice :Welcome"), NOW)
    assert outcome.login == ("alice", "s3cret")
    alice.chat.submit("/login bob hunter2", NOW)
    outcome = alice.chat.handle(protocol.parse(b":hub 903 alice :Logged in"), NOW)
    assert outcome.login == ("bob", "hunter2")
    assert not any("s3cret" in line or "hunter2" in line for line in alice.seen())


# When the connection is lost


def test_the_banner_counts_down_and_says_when_it_is_over(alice):
    """What is wrong, when it is tried again, and that it is well."""
    assert alice.chat.banner(NOW) == ("", False)
    alice.lose()
    assert alice.chat.banner(NOW) == ("Connection lost. Trying again now (attempt 1).", False)
    alice.lose(attempt=3, seconds=3.7)
    assert alice.chat.banner(NOW) == ("Connection lost. Trying again in 4 s (attempt 3).", True)
    assert alice.chat.hint == "Message #lobby — sent when you are back online"
    alice.join()
    assert alice.chat.banner(NOW + 1) == ("Connected again.", False)
    assert alice.chat.banner(NOW + 4) == ("", False)
    assert alice.chat.hint == "Message #lobby"


def test_what_is_typed_while_disconnected_waits_for_the_room(alice):
    """It is shown as waiting, and sent when we are in the room again, not before."""
    assert alice.lose() == ["[system]: The connection was lost. Messages you send now wait here."]
    assert alice.type("later\n@ is text here") == [
        "<[alice]: later (waiting to send)>", "<[alice]: @ is text here (waiting to send)>",
    ]  # fmt: skip
    assert alice.chat.unsent == 2
    assert alice.sent == []
    alice.connect()
    alice.type("too")
    assert alice.sent == []
    alice.hear(*IN_THE_ROOM)
    assert alice.sent == [
        "PRIVMSG #lobby :later", "PRIVMSG #lobby :@ is text here", "PRIVMSG #lobby :too",
    ]  # fmt: skip
    assert alice.seen()[-1] == "<[alice]: too>"


def test_without_a_history_what_may_have_arrived_is_not_sent_twice(alice):
    """It says so, and can be tried again by who knows better."""
    alice.type("first")
    alice.type("@bob second")
    alice.hear(":alice!a@h PRIVMSG #lobby :first")
    alice.sent  # noqa: B018
    alice.lose()
    assert alice.seen()[-2] == "<[you -> bob]: second (waiting to send)>"
    alice.join()
    assert alice.sent == []
    assert "![you -> bob]: second (may not have arrived)!" in alice.seen()


def test_what_surely_did_not_go_is_sent_again(alice):
    """What the network never got cannot arrive twice."""
    outcomes = [alice.chat.submit(text, NOW) for text in ("one", "two")]
    alice.lose(unsent=tuple(outcomes[1].send))
    alice.join()
    assert alice.sent == ["PRIVMSG #lobby :two"]
    assert "![alice]: one (may not have arrived)!" in alice.seen()


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
    alice.lose()
    alice.join()
    assert alice.sent == []


def test_an_echo_in_the_recipient_s_own_spelling_confirms(alice):
    """@BOB reaches bob; the server names him as he is called."""
    alice.type("@BOB psst")
    alice.hear(":alice!a@h PRIVMSG bob :psst")
    assert alice.chat.unsent == 0


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
    assert outcome.changes or outcome.done


def test_the_end_that_the_user_chose_is_not_told_to_the_user(alice):
    """Only what nobody asked for is news."""
    assert alice.tell(Disconnected(CLOSED, "")) == []


def test_who_leaves_a_room_says_no_more_there(alice):
    """What waited for it goes with it, and is not said from outside."""
    alice.hear(":alice!a@h JOIN #tea")
    alice.do(alice.chat.select(alice.chat.find("#tea"), NOW))
    alice.lose()
    alice.type("later")
    alice.do(alice.chat.close(alice.chat.current, NOW))
    assert alice.chat.unsent == 0
    alice.join()
    assert alice.sent == []


def test_rooms_are_entered_again_with_their_keys(alice):
    """Also those that nobody is placed in; the view stays where it was."""
    alice.type("/join tea earlgrey")
    alice.hear(":alice!a@h JOIN #tea", ":alice!a@h JOIN #chess")
    alice.sent  # noqa: B018
    alice.lose()
    alice.connect()
    alice.hear(*IN_THE_ROOM)
    assert alice.sent == ["JOIN #tea :earlgrey", "JOIN #chess"]
    assert alice.hear(":alice!a@h JOIN #tea") == []
    assert alice.chat.current.name == "#tea"


@pytest.mark.parametrize("answer", ["474 alice #lobby :You are banned", "470 alice #lobby #b :Go"])
def test_a_room_that_will_not_have_us_gives_our_words_back(alice, answer):
    """What waited for it says that it was not delivered."""
    alice.lose()
    alice.type("later")
    alice.connect()
    alice.hear(":hub 422 alice :No MOTD", ":hub " + answer)
    assert "![alice]: later (not delivered)!" in alice.seen()
    with pytest.raises(protocol.InputError, match="You are not in #lobby"):
        alice.type("hello?")


def test_who_was_removed_from_a_room_does_not_come_back_by_force(alice):
    """A kick outlives the connection; what is typed there is refused with what can be done."""
    alice.hear(":alice!a@h JOIN #tea", ":bob!b@h KICK #tea alice :enough")
    assert alice.chat.find("#tea").people == []
    alice.do(alice.chat.select(alice.chat.find("#tea"), NOW))
    with pytest.raises(protocol.InputError, match=r"You are not in #tea\. /join #tea"):
        alice.type("hello?")
    alice.lose()
    alice.join()
    assert alice.sent == []


def test_our_name_is_taken_back_from_our_ghost(alice):
    """Under another name we wait until the ghost goes."""
    alice.lose()
    alice.join(nickname="alice_")
    alice.hear(":alice!a@h PRIVMSG #lobby :not ours")
    assert alice.sent == []
    alice.hear(":alice!a@h QUIT :Ping timeout")
    assert alice.sent == ["NICK alice"]
    alice.hear(":alice_!a@h NICK alice")
    assert alice.chat.nickname == "alice"


def test_where_it_can_be_asked_for_the_ghost_is_watched(alice):
    """MONITOR tells of those too with whom we share no room."""
    alice.lose()
    alice.join("MONITOR=100", nickname="alice_")
    alice.hear(":hub 422 alice_ :No MOTD")
    assert alice.sent == ["JOIN #lobby", "MONITOR + :alice"]
    alice.hear(":hub 731 alice_ :alice")
    assert alice.sent == ["NICK alice"]


def test_many_long_names_are_watched_in_lines_that_fit(alice):
    """Whoever wrote to us, whatever they are called: nothing keeps us from coming back."""
    people = ["я" * 30 + "abcdefghijkl"[n] for n in range(12)]
    alice.hear(*[":%s!u@h PRIVMSG alice :hi" % name for name in people])
    alice.lose()
    alice.join("MONITOR=100")
    sent = [line.partition("MONITOR + :")[2] for line in alice.sent]
    assert ",".join(line for line in sent if line) == ",".join(people)


def test_who_is_watched_is_here_until_the_connection_or_the_conversation_ends():
    """As far as the server tells."""
    alice = Talk().join("MONITOR=100")
    alice.hear(":bert!b@h PRIVMSG alice :psst")
    assert alice.sent[-1] == "MONITOR + :bert"
    alice.hear(":hub 730 alice :bert!b@h")
    assert alice.chat.presence("bert") == client.ONLINE
    alice.do(alice.chat.close(alice.chat.find("bert"), NOW))
    assert alice.sent == ["MONITOR - :bert"]
    alice.hear(":bert!b@h PRIVMSG alice :psst", ":hub 730 alice :bert!b@h")
    alice.lose()
    assert alice.chat.presence("bert") == client.OFFLINE


def test_where_there_is_no_room_one_can_only_write_to_a_person():
    """A server may place nobody in a room; the words say what is left."""
    alice = Talk()
    alice.connect()
    with pytest.raises(protocol.InputError, match="@USERNAME MESSAGE"):
        alice.type("hello?")
    alice.type("@bob hello")
    assert alice.sent == []
    alice.hear(":hub 422 alice :No MOTD")
    assert alice.sent == ["PRIVMSG bob :hello"]


COMMANDS = "PRIVMSG NOTICE JOIN PART QUIT NICK TOPIC KICK MODE CAP ERROR FAIL PONG 1 X".split()
COMMANDS += "BATCH AWAY ACK INVITE REGISTER CHATHISTORY".split()
NUMERICS = "001 005 305 332 333 352 353 366 372 376 401 403 404 421 433 474 730 731 903 999".split()
WORDS = st.sampled_from(
    "alice|bob|#lobby||#|@|{}|{0.x}|%s|a b|\x01|+x|-x|+o|chathistory".split("|")
)
MESSAGES = st.builds(
    protocol.Message,
    st.sampled_from(COMMANDS + NUMERICS),
    st.lists(WORDS | st.text(max_size=5), max_size=4).map(tuple),
    st.sampled_from(["", "alice!a@h", "bob!b@h", "hub", "!", "!u@h"]),
    st.dictionaries(
        st.sampled_from(["time", "msgid", "label", "batch"]),
        st.text(max_size=5) | st.sampled_from(["x", "m1"]),
        max_size=2,
    ),
)
EVENTS = [
    Disconnected(LOST, ""), Lost("gone"), Connected("alice"),
    Connected("alice", frozenset(["echo-message", "draft/chathistory", "batch"]), 2),
]  # fmt: skip
TYPED = st.sampled_from(["hi", "@bob hi", "/join #a", "/leave", "/list", "/history", "/nick bob"])


@given(st.lists(MESSAGES | st.sampled_from(EVENTS) | TYPED))
def test_whatever_a_server_says_the_conversation_goes_on(events):
    """No order of messages, however short or odd, breaks the client or what it shows."""
    alice = Talk("echo-message draft/chathistory labeled-response").join()
    for event in events:
        if isinstance(event, str):
            with contextlib.suppress(protocol.InputError):
                alice.type(event)
        else:
            alice.tell(event)
        for conversation in alice.chat.conversations:
            alice.do(alice.chat.fetch_older(conversation, NOW))
    assert alice.chat.current in alice.chat.conversations
    shown = "".join(map(str, alice.lines))
    assert {unicodedata.category(char) for char in shown}.isdisjoint({"Cc", "Cs", "Zl", "Zp"})


# The history, on a server that has one


EARLIER = NOW - 1000


class Hub:
    """A server in a few lines: it echoes, keeps everything, and its wire can be cut anywhere."""

    CAPS = "batch draft/chathistory echo-message labeled-response message-tags server-time"

    def __init__(self):
        self.said = []  # of the room, the message number being the index
        self._batches = 0

    def line(self, number, tags=""):
        who, text = self.said[number]
        when = protocol.format_time(EARLIER + number / 1000)
        form = "@%smsgid=%d;time=%s :%s!u@h PRIVMSG #lobby :%s"
        return form % (tags, number, when, who, text)

    def say(self, who, text, tags=""):
        self.said.append((who, text))
        return self.line(len(self.said) - 1, tags)

    def answer(self, line):
        """What it says to alice's line."""
        message = protocol.parse(line.encode())
        if message.command == "PRIVMSG":
            label = message.tags.get("label", "")
            return [self.say("alice", message.text, "label=%s;" % label if label else "")]
        if message.command == "CHATHISTORY" and message.params[0] != "TARGETS":
            return self._tell(*message.params)
        if message.command == "CHATHISTORY":
            return [":hub BATCH +t draft/chathistory-targets", ":hub BATCH -t"]
        return []

    def _tell(self, verb, room, point, limit):
        kind, _, value = point.partition("=")
        if kind == "timestamp":
            value = round((protocol.parse_time(value) - EARLIER) * 1000)
        first, last = 0, len(self.said)
        if verb == "AFTER":
            first = int(value) + 1
            last = min(last, first + int(limit))
        elif verb == "BEFORE":
            last = int(value)
            first = max(0, last - int(limit))
        else:
            first = max(0, last - int(limit))
        self._batches += 1
        ref = "h%d" % self._batches
        lines = [self.line(number, "batch=%s;" % ref) for number in range(max(0, first), last)]
        return [":hub BATCH +%s chathistory %s" % (ref, room), *lines, ":hub BATCH -" + ref]


class Wire:
    """Alice on a Hub; `run` carries lines until there are none."""

    def __init__(self, before=0):
        self.hub = Hub()
        for number in range(before):
            self.hub.say("bob", "before %d" % number)
        self.alice = Talk(Hub.CAPS)
        self.up, self.down = [], []
        self.connect()

    def connect(self):
        self.alice.connect()
        self.down = list(IN_THE_ROOM)

    def run(self):
        while self.up or self.down or self.collect():
            self.collect()
            if self.down:
                self.alice.hear(self.down.pop(0))
            elif self.up:
                self.down += self.hub.answer(self.up.pop(0))

    def collect(self):
        self.up += self.alice.sent
        return bool(self.up)

    def cut(self, heard=0, told=0):
        """The connection is lost: the server hears some lines more, of its answers come some."""
        self.collect()
        answers = [answer for line in self.up[:heard] for answer in self.hub.answer(line)]
        self.alice.hear(*(self.down + answers)[:told])
        self.alice.lose()
        self.up, self.down = [], []
        self.alice.sent  # noqa: B018

    @property
    def room(self):
        """What stands in the room, but for what nobody said."""
        entries = self.alice.chat.find("#lobby").entries
        return [entry.text for entry in entries if "[SERVER]" not in entry.text
                and "[system]" not in entry.text]  # fmt: skip

    @property
    def said(self):
        return ["[%s]: %s" % pair for pair in self.hub.said]


@pytest.mark.parametrize(("heard", "told"), [(0, 0), (1, 0), (2, 0), (3, 0), (3, 1), (3, 3)])
def test_what_was_under_way_is_looked_up_and_sent_only_if_it_is_missing(heard, told):
    """Whatever of it had arrived, each message is there once, and in its order."""
    wire = Wire()
    wire.run()
    wire.down.append(wire.hub.say("bob", "unheard"))
    for text in ("one", "one", "two"):
        wire.alice.type(text)
    wire.cut(heard, told)
    wire.alice.type("three")
    wire.hub.say("bob", "meanwhile")
    wire.connect()
    wire.run()
    assert wire.room == wire.said
    assert sorted(wire.said) == sorted(
        ["[bob]: unheard", "[bob]: meanwhile"]
        + ["[alice]: %s" % text for text in ("one", "one", "two", "three")]
    )
    assert wire.alice.chat.unsent == 0


def test_what_was_missed_is_fetched_counted_and_marked():
    """It stands below the line, and a line says how much it is."""
    wire = Wire(5)
    wire.run()
    wire.cut()
    for number in range(3):
        wire.hub.say("carol", "missed %d" % number)
    wire.connect()
    wire.run()
    room = wire.alice.chat.current
    assert wire.room == wire.said
    assert room.new_count == 3
    (first,) = [entry for entry in room.entries if entry.id == room.first_unread]
    assert first.text == "[carol]: missed 0"
    assert wire.alice.seen()[-1] == "[system]: Welcome back. You missed 3 messages."


def test_what_is_said_while_it_is_fetched_keeps_its_place():
    """Live messages may come before the answer that has those from before them."""
    wire = Wire(2)
    wire.run()
    wire.cut()
    wire.hub.say("bob", "missed")
    wire.connect()
    wire.alice.hear(*wire.down)
    wire.alice.hear(wire.hub.say("bob", "live"))
    wire.down = []
    wire.run()
    assert wire.room == wire.said


def test_a_long_absence_is_fetched_page_by_page(monkeypatch):
    """No gap is left between what was known and what is new."""
    monkeypatch.setattr(client, "MISSED_PAGE", 10)
    wire = Wire(3)
    wire.run()
    wire.alice.type("lost")
    wire.cut(1)
    for number in range(35):
        wire.hub.say("bob", str(number))
    wire.connect()
    wire.run()
    assert wire.room == wire.said


def test_a_very_long_absence_begins_anew(monkeypatch):
    """What is too much to fetch is left to scrolling up; there is no gap in what is shown."""
    monkeypatch.setattr(client, "MISSED_PAGE", 10)
    monkeypatch.setattr(client, "MAX_PAGES", 2)
    wire = Wire(3)
    wire.run()
    wire.cut()
    for number in range(300):
        wire.hub.say("bob", str(number))
    wire.connect()
    wire.run()
    assert wire.room == wire.said[-client.PAGE :]
    assert wire.alice.chat.current.past.has_older


def test_scrolling_up_fetches_what_is_older():
    """Piece by piece, once each, until there is no more."""
    wire = Wire(120)
    wire.run()
    room = wire.alice.chat.current
    assert wire.room == wire.said[-client.PAGE :]
    assert room.past.has_older
    for expected in (100, 120):
        wire.alice.do(wire.alice.chat.fetch_older(room, NOW))
        wire.alice.do(wire.alice.chat.fetch_older(room, NOW))  # under way: nothing more is asked
        assert room.past.is_fetching
        wire.run()
        assert wire.room == wire.said[-expected:]
    (change,) = wire.alice.changed(client.EARLIER)[-1:]
    assert len(change.entries) == 20
    assert not room.past.has_older
    wire.alice.do(wire.alice.chat.fetch_older(room, NOW))
    assert not wire.collect()


def test_history_that_is_typed_is_told_again():
    """/history shows what one has seen as well, to who reads line by line."""
    wire = Wire(3)
    wire.run()
    wire.alice.changes = []
    wire.alice.type("/history 2")
    wire.run()
    (change,) = wire.alice.changed(client.RECALLED)
    assert [entry.text for entry in change.entries] == ["[bob]: before 1", "[bob]: before 2"]
    assert wire.room == wire.said


def test_history_that_is_typed_is_that_of_the_conversation_in_view():
    """The room's, which one does not see there, would be no answer."""
    alice = Talk(Hub.CAPS).join()
    alice.do(alice.chat.open("bob", NOW))
    alice.sent  # noqa: B018
    alice.type("/history 5")
    assert alice.sent == ["CHATHISTORY LATEST bob * :5"]


@given(
    st.lists(
        st.one_of(
            st.sampled_from(["type", "bob", "step", "run"]),
            st.tuples(st.integers(0, 4), st.integers(0, 6)),
        ),
        max_size=30,
    )
)
def test_nothing_is_lost_and_nothing_is_sent_twice(steps):
    """Cut the wire anywhere, any number of times: in the end everyone has read the same."""
    wire = Wire()
    typed = []
    for step in steps:
        if step == "type":
            typed.append(str(len(typed) // 2))
            wire.alice.type(typed[-1]) if wire.alice.chat.find("#lobby") else typed.pop()
        elif step == "bob":
            wire.down.append(wire.hub.say("bob", "b%d" % len(wire.hub.said)))
        elif step == "step" and wire.down:
            wire.alice.hear(wire.down.pop(0))
        elif step == "run":
            wire.run()
        elif isinstance(step, tuple):
            wire.cut(*step)
            wire.connect()
    wire.run()
    wire.alice.do(wire.alice.chat.fetch_older(wire.alice.chat.current, NOW))
    wire.run()
    assert [text for who, text in wire.hub.said if who == "alice"] == typed
    assert wire.room == wire.said
    assert wire.alice.chat.unsent == 0


def test_a_private_history_without_a_link_is_no_proof():
    """What it does not reach back to may have arrived: it is not sent twice."""
    alice = Talk(Hub.CAPS).join()
    alice.type("@bob hi")
    alice.lose()
    alice.sent  # noqa: B018
    alice.join()
    asked = [line for line in alice.sent if "LATEST bob" in line]
    assert asked == ["CHATHISTORY LATEST bob * :500"]
    for target, ref in (("#lobby", "a"), ("bob", "b")):
        alice.hear(":hub BATCH +%s chathistory %s" % (ref, target), ":hub BATCH -" + ref)
    assert "![you -> bob]: hi (may not have arrived)!" in alice.seen()
    assert alice.sent == []


def test_a_history_that_has_lost_its_end_is_no_proof():
    """After a full disk, or a fall of the machine: what others may have read is not said again."""
    wire = Wire(3)
    wire.run()
    wire.alice.hear("@msgid=98 :bob!b@h JOIN #lobby", "@msgid=99 :bob!b@h PRIVMSG alice :psst")
    wire.alice.type("hi")
    wire.cut(heard=1)
    del wire.hub.said[2:]
    wire.connect()
    wire.run()
    assert "![alice]: hi (may not have arrived)!" in wire.alice.seen()
    assert wire.said == ["[bob]: before 0", "[bob]: before 1"]


def test_what_is_older_than_a_room_s_words_is_asked_for_by_them(alice):
    """Not by what else stands among them, of which the room's history knows nothing."""
    alice = Talk(Hub.CAPS).join()
    alice.hear("@msgid=4 :bob!b@h JOIN #lobby", "@msgid=5 :bob!b@h PRIVMSG alice :psst")
    alice.hear("@msgid=6 :bob!b@h PRIVMSG #lobby :hi")
    alice.hear(":hub BATCH +x chathistory #lobby", ":hub BATCH -x")
    alice.chat.current.past.has_older = True
    alice.sent  # noqa: B018
    alice.do(alice.chat.fetch_older(alice.chat.current, NOW))
    assert alice.sent == ["CHATHISTORY BEFORE #lobby msgid=6 :50"]


@pytest.mark.parametrize(("before", "after"), [("alice_", "alice"), ("alice", "alicia")])
def test_what_was_said_under_another_name_is_not_said_twice(before, after):
    """Where the history has it as somebody else's, nothing proves that it has not arrived."""
    alice = Talk(Hub.CAPS).join()
    alice.hear("@msgid=1 :bob!b@h PRIVMSG #lobby :known")

    def come(name):
        alice.connect(name)
        alice.hear(*[line.replace("alice", name) for line in IN_THE_ROOM])
        alice.sent  # noqa: B018
        said = ["1 :bob!b@h PRIVMSG #lobby :known", "2 :%s!a@h PRIVMSG #lobby :hi" % before]
        told = ["@batch=x;msgid=" + line for line in said]
        alice.hear(":hub BATCH +x chathistory #lobby", *told, ":hub BATCH -x")

    alice.lose()
    come(before)
    alice.type("hi")
    alice.tell(Disconnected(SERVER, "You may not come in."))
    alice.chat.begin(after)
    come(after)
    assert alice.sent == []
    assert any("may not have arrived" in line for line in alice.seen())


def test_a_line_tells_of_the_loss_and_one_of_the_return():
    """Who reads line by line sees no banner."""
    alice = Talk().join()
    assert alice.lose() == ["[system]: The connection was lost. Messages you send now wait here."]
    assert alice.lose(attempt=2) == []
    assert alice.connect() == ["[system]: Connected again."]


def test_one_goes_to_ones_rooms_without_a_connection():
    """What one writes there waits; into a room that one is not in one does not come."""
    alice = Talk().join()
    alice.hear(":alice!a@h JOIN #tea", ":op!o@h KICK #tea alice :out")
    alice.lose()
    alice.do(alice.chat.open("bob", NOW))
    alice.do(alice.chat.open("#lobby", NOW))
    assert alice.chat.current.name == "#lobby"
    assert alice.type("hi") == ["<[alice]: hi (waiting to send)>"]
    with pytest.raises(protocol.InputError, match="You are not connected"):
        alice.chat.open("#tea", NOW)


def test_who_takes_the_old_place_back_knows_what_has_not_arrived():
    """Then the history is that of the same session, and what is missing was never there."""
    alice = Talk(Hub.CAPS).join()
    alice.type("@bob hi")
    alice.lose()
    alice.sent  # noqa: B018
    alice.join(is_resumed=True)
    for target, ref in (("#lobby", "a"), ("bob", "b")):
        alice.hear(":hub BATCH +%s chathistory %s" % (ref, target), ":hub BATCH -" + ref)
    assert [line for line in alice.sent if "PRIVMSG" in line] == ["@label=m2 PRIVMSG bob :hi"]


def test_private_messages_that_were_missed_are_fetched():
    """TARGETS says from whom, and each is asked for."""
    alice = Talk(Hub.CAPS).join()
    alice.hear("@time=2026-11-22T17:10:43.000Z :bob!b@h PRIVMSG #lobby :hi")
    alice.lose()
    alice.sent  # noqa: B018
    alice.join()
    (asked,) = [line for line in alice.sent if "TARGETS" in line]
    assert "timestamp=2026-11-22T17:10:43.000Z" in asked
    alice.hear(
        ":hub BATCH +t draft/chathistory-targets",
        "@batch=t :hub CHATHISTORY TARGETS carol 2026-11-22T17:11:00.000Z",
        "@batch=t :hub CHATHISTORY TARGETS #lobby 2026-11-22T17:11:00.000Z",
        ":hub BATCH -t",
    )
    assert [line for line in alice.sent if "CHATHISTORY" in line] == [
        "CHATHISTORY LATEST carol * :500"
    ]
    alice.hear(
        ":hub BATCH +c chathistory carol",
        "@batch=c;msgid=9;time=2026-11-22T17:11:00.000Z :carol!c@h PRIVMSG alice :call me",
        ":hub BATCH -c",
    )
    carol = alice.chat.find("carol")
    assert (carol.unread, carol.mentions) == (1, 1)
    assert alice.seen("carol")[0] == "[carol -> you]: call me"


def test_what_was_missed_is_asked_for_until_it_is_told():
    """However often the connection is lost meanwhile, and whoever speaks before the answer."""
    alice = Talk(Hub.CAPS).join()
    alice.hear("@time=2026-11-22T17:10:43.000Z :bob!b@h PRIVMSG #lobby :hi")
    for _ in range(3):
        alice.lose()
        alice.sent  # noqa: B018
        alice.connect()
        alice.hear(*["@time=2026-11-22T17:12:00.000Z " + line for line in IN_THE_ROOM])
        assert any("TARGETS timestamp=2026-11-22T17:10:43.000Z" in line for line in alice.sent)
        alice.hear(
            "@msgid=9;time=2026-11-22T17:12:00.000Z :carol!c@h PRIVMSG alice :hello?",
            ":hub BATCH +t draft/chathistory-targets",
            "@batch=t :hub CHATHISTORY TARGETS carol 2026-11-22T17:12:00.000Z",
            ":hub BATCH -t",
        )
        assert "CHATHISTORY LATEST carol * :500" in alice.sent
    missed = "@batch=%s;msgid=%d;time=2026-11-22T17:11:0%d.000Z :carol!c@h PRIVMSG alice :call me"
    for target, ref in (("#lobby", "a"), ("carol", "b")):
        said = [missed % (ref, number, number) for number in (7, 8) if target == "carol"]
        alice.hear(":hub BATCH +%s chathistory %s" % (ref, target), *said, ":hub BATCH -" + ref)
    assert alice.seen("carol")[:3] == ["[carol -> you]: call me"] * 2 + ["[carol -> you]: hello?"]
    alice.hear("@time=2026-11-22T17:13:00.000Z :bob!b@h PRIVMSG #lobby :back?")
    alice.lose()
    alice.join()
    assert any("TARGETS timestamp=2026-11-22T17:13:00.000Z" in line for line in alice.sent)


# What is said before the welcome


@pytest.mark.parametrize(
    "answer",
    [
        [],
        [":hub BATCH +x chathistory #lobby"],
        [":hub BATCH +x chathistory #lobby", "@batch=x;msgid=7 :bob!b@h PRIVMSG #lobby :hi"],
    ],
)
def test_a_history_that_is_never_told_holds_nothing_for_ever(answer):
    """What may have arrived says so, what waits is sent; what comes too late is still shown."""
    alice = Talk(Hub.CAPS).join()
    alice.hear(":hub BATCH +f chathistory #lobby", ":hub BATCH -f")
    alice.type("first")
    alice.lose()
    alice.join()
    alice.type("second")
    alice.hear(*answer)
    alice.sent  # noqa: B018
    assert not alice.chat.is_overdue(NOW + client.HISTORY_TIME)
    alice.do(alice.chat.handle(None, NOW + client.HISTORY_TIME))
    assert alice.sent == []
    assert alice.chat.is_overdue(NOW + client.HISTORY_TIME + 1)
    alice.do(alice.chat.handle(None, NOW + client.HISTORY_TIME + 1))
    assert not alice.chat.is_overdue(NOW + 10 * client.HISTORY_TIME)
    assert "![alice]: first (may not have arrived)!" in alice.seen()
    assert [line.partition(" ")[2] for line in alice.sent] == ["PRIVMSG #lobby :second"]
    alice.hear(*answer[:1], "@batch=x;msgid=8 :bob!b@h PRIVMSG #lobby :late", ":hub BATCH -x")
    assert "[bob]: late" in alice.seen()


def test_what_was_asked_before_a_loss_is_not_waited_for_after_it():
    """Only what is asked for when one is back can tell what has arrived."""
    alice = Talk(Hub.CAPS).join()
    alice.hear(":hub BATCH +f chathistory #lobby", ":hub BATCH -f")
    alice.type("first")
    alice.lose()
    alice.join()
    alice.lose()
    alice.do(alice.chat.handle(None, NOW + client.HISTORY_TIME + 1))
    assert "<[alice]: first (waiting to send)>" in alice.seen()


def test_what_is_read_again_says_nothing_of_what_is_missing():
    """Neither its answer nor its refusal ends the search for what may have arrived."""
    alice = Talk(Hub.CAPS).join()
    alice.hear(":hub BATCH +f chathistory #lobby", ":hub BATCH -f")
    alice.type("first")
    alice.lose()
    alice.connect()
    alice.hear(*IN_THE_ROOM[:2], ":hub 376 alice :End of /MOTD command.")
    alice.type("/history")
    alice.hear(IN_THE_ROOM[2])
    alice.hear(":hub BATCH +t draft/chathistory-targets", ":hub BATCH -t")
    alice.hear(":hub FAIL CHATHISTORY MESSAGE_ERROR LATEST #lobby :Not now")
    assert alice.chat.current.past.is_fetching
    assert "<[alice]: first (waiting to send)>" in alice.seen()


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
        (["CAP * LS :x-sasl=PLAIN server-time=x echo-message message-tags"], [WANTED]),
        (["CAP * LS * :message-tags a=b", "CAP * LS :server-time echo-message"], [WANTED]),
        (["CAP * LS * :echo-message message-tags server-time"], []),
        (["CAP * LS :server-time x-notify"], ["CAP REQ :server-time"]),
        (["CAP * LS :x-notify"], ["CAP END"]),
        (["CAP * LS :"], ["CAP END"]),
        (["CAP * ACK :echo-message server-time "], ["CAP END"]),
        (["CAP * ACK * :echo-message"], []),
        (["CAP * ACK * :echo-message", "CAP * ACK :server-time"], ["CAP END"]),
        (["CAP * ACK :echo-message", "CAP * ACK :server-time"], ["CAP END"]),
        (["CAP * NAK :echo-message server-time"], ["CAP END"]),
        (["CAP * DEL :batch"], []),
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
    """After NAK nothing is on; after ACK what it names is, in one line or several, until DEL."""
    refused, agreed, several = Caller(), Caller(), Caller()
    refused.hear("CAP * LS :echo-message", "CAP * NAK :echo-message")
    agreed.hear("CAP * LS :echo-message", "CAP * ACK :echo-message")
    assert refused.handshake.caps == frozenset()
    assert agreed.handshake.caps == {"echo-message"}
    several.hear("CAP * LS :batch echo-message", "CAP * ACK * :batch", "CAP * ACK :echo-message")
    assert several.handshake.caps == {"batch", "echo-message"}
    several.hear("CAP * DEL :batch")
    assert several.handshake.caps == {"echo-message"}


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


def rows(talk):
    """What the window shows of the conversation in view, without the days and the old."""
    entries = talk.chat.current.entries
    items = client.lay_out(entries[1:], talk.chat.current.first_unread, 1, "2026-11-22")
    return [item.face[0].text if item.source else item.face[0] for item in items]


def test_a_crowd_that_comes_or_goes_takes_one_line():
    talk = Talk().join()
    talk.hear(":bob!u@h PRIVMSG #lobby :Open the doors")
    before = len(rows(talk))
    for number in range(client.CROWD - 1):
        talk.hear(":p%d!u@h JOIN #lobby" % number)
    assert rows(talk)[before:] == ["p%d joined the chat" % n for n in range(client.CROWD - 1)]
    for number in range(client.CROWD - 1, 37):
        talk.hear(":p%d!u@h JOIN #lobby" % number)
    assert rows(talk)[before:] == ["37 people joined"]
    talk.hear(":p0!u@h PRIVMSG #lobby :So many!")
    for number in range(9):
        talk.hear(":p%d!u@h QUIT :" % number)
    assert rows(talk)[before:] == ["37 people joined", "So many!", "9 people left"]
    assert len(talk.chat.current.find("joined the chat")) >= 37  # each can still be found


def test_a_topic_is_not_told_again_to_who_comes_back():
    talk = Talk("echo-message draft/chathistory batch").join()
    told = ":hub 332 alice #lobby :Lunch at noon"
    assert len(talk.hear(told)) == 1
    assert len(talk.hear(told)) == 1  # /topic asks for it
    talk.lose()
    talk.connect()
    talk.hear(*IN_THE_ROOM[:3])
    assert talk.chat.current.topic == ""
    assert talk.hear(told) == []
    assert talk.chat.current.topic == "Lunch at noon"
    assert len(talk.hear(":hub 332 alice #lobby :Lunch at one")) == 1


@pytest.mark.parametrize(
    "said",
    [
        "@label=m1 :hub 401 alice",
        "@label=m%s :hub 401 alice bob :No" % ("9" * 5000),
        ":bob!b@h NICK :no name at all",
        ":bob!b@h NICK ::",
        "@label=m1 :alice!a@h PRIVMSG * :hi",
        ":alice!a@h JOIN :#two words",
        ":alice!a@h JOIN :#" + "x" * 100,
    ],
)
def test_what_no_server_should_say_harms_nobody(alice, said):
    """Names that are none make no conversation, and one goes on talking."""
    alice.type("@bob hi")
    for conversation in list(alice.chat.conversations):
        alice.do(alice.chat.select(conversation, NOW))
        alice.hear(said)
        alice.type("/me waves")
    assert all(map(protocol.is_word, names(alice)))


def test_what_was_missed_stands_below_what_the_program_said_before_it():
    """In the order of their times, as far as the server's order allows."""
    room = client.Conversation("#lobby", client.ROOM)

    def entry(when, msgid=""):
        line = protocol.Line(FROM_OTHERS, when, "[bob]:", "at %d" % when)
        return client.Entry(int(when), line, msgid)

    for known in (entry(1.0, "1"), entry(2.0), entry(5.0)):
        room.add(known)
    room.merge([entry(1.0, "1"), entry(3.0, "3"), entry(4.0, "4")])
    assert [known.line.when for known in room.entries] == [1.0, 2.0, 3.0, 4.0, 5.0]


def test_in_a_crowd_tab_and_a_guess_are_as_quick_as_elsewhere(alice):
    """A hundred thousand people: neither takes 50 ms, and a slip at a name's end is found."""
    names = ["user%05d" % number for number in range(99000)] + ["rosalind"]
    random.Random(1).shuffle(names)
    for start in range(0, len(names), 40):
        alice.hear(":hub 353 alice = #lobby :" + " ".join(names[start : start + 40]))
    alice.hear(":hub 366 alice #lobby :End of /NAMES list")

    def took(step):
        """The shortest of three times, as others work here too."""
        times = []
        for _ in range(3):
            start = time.thread_time()
            step()
            times.append(time.thread_time() - start)
        return min(times)

    assert took(lambda: alice.chat.complete("u", 1)) < 0.05
    assert took(lambda: alice.chat.complete("user4711", 8)) < 0.05
    assert alice.chat.complete("user4711", 8) == ("user47110: ", 11)
    shown = []

    def slip():
        alice.chat.submit("@rosalinf hi", NOW)
        shown[:] = alice.hear(":hub 401 alice rosalinf :No such nick")

    assert took(slip) < 0.05
    assert shown == ["[SERVER]: No such user: rosalinf. Did you mean rosalind?"]
