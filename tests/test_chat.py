"""The state of a chat: what is typed, what servers send, what is shown. No socket, no window."""

import calendar
import itertools
import random
import time
import types
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import client
import protocol
from client import CLOSED, LOST, PASSWORD, SERVER, Chat, Connected, Disconnected, Lost
from protocol import FROM_ME, FROM_OTHERS, FROM_SERVER, PRIVATE

NOW = calendar.timegm((2026, 11, 22, 17, 10, 42))
CAPS = "batch draft/chathistory echo-message labeled-response message-tags server-time"
WELCOME = [
    ":hub 001 alice :Welcome to Office, alice.",
    ":hub 005 alice NETWORK=Office CHANTYPES=# :are supported by this server",
    ":alice!alice@host JOIN #lobby",
    ":hub 353 alice = #lobby :alice bob",
    ":hub 366 alice #lobby :End of /NAMES list",
]


class User:
    """A Chat between a user and a scripted server."""

    def __init__(self, caps="echo-message"):
        self.ignored = []
        self.chat = Chat("127.0.0.1:12001", {}, self.ignored)
        self.caps = frozenset(caps.split())
        self.lines = []  # added to a conversation, as protocol.Lines
        self.changes = []
        self.session = 0
        self._sent = []
        self._pings = []  # that follow commands of a paste, not answered yet

    def connect(self, nickname="", is_resumed=False):
        self.session += 1
        if self.session == 1:
            self.chat.begin("alice")
        nickname = nickname or self.chat.nickname
        return self.handle(Connected(nickname, self.caps, self.session, is_resumed))

    def join(self, *tokens, **options):
        """Connect, and be placed in #lobby."""
        self.connect(**options)
        self.hear(*[":hub 005 alice %s :are supported" % token for token in tokens])
        self.hear(*WELCOME)
        return self

    def lose(self, reason="The connection was lost.", attempt=1, seconds=0.0):
        return self.handle(Lost(reason, attempt, seconds))

    def type(self, text):
        """Press Return; return what is added."""
        return self.do(self.chat.do(NOW, self.chat.submit, text))

    def refusal(self, text):
        """Press Return; return why nothing was sent."""
        (reason,) = self.type(text)
        assert (self.chat.outcome.send, self.chat.outcome.rest) == ([], text)
        return reason[len("[SERVER]: ") :]

    def hear(self, *lines):
        """Receive lines from the server; return what is added."""
        messages = [protocol.parse(line.encode()) for line in lines]
        return [text for message in messages for text in self.handle(message)]

    def handle(self, event):
        if isinstance(event, protocol.Message):
            event = protocol.clean_message(event)
        return self.do(self.chat.do(NOW, self.chat.handle, event))

    def answer(self, *lines):
        """Receive the answer to a command that a paste waits for; return False if none does."""
        if self._pings:
            self.hear(*lines, ":hub PONG hub :" + self._pings.pop(0))
            return True
        return False

    def do(self, outcome):
        self._sent += outcome.send
        self._pings += [m.text for m in outcome.send if m.text.startswith("paste-")]
        self.changes += outcome.changes
        added = {e.id: e for c in outcome.changes if c.kind == client.ADDED for e in c.entries}
        self.lines += [entry.line for entry in added.values()]
        return [shown(entry) for entry in added.values()]

    @property
    def all_sent(self):
        """The lines sent since the last look."""
        messages, self._sent = self._sent, []
        return [protocol.serialize(message).decode()[:-2] for message in messages]

    @property
    def sent(self):
        """The same without PINGs, and without questions about modes."""
        return [line for line in self.all_sent if not line.startswith(("PING ", "MODE #"))]

    @property
    def people(self):
        return " ".join(person.nickname for person in self.chat.current.sorted_members)

    @property
    def names(self):
        return [conversation.name for conversation in self.chat.conversations]

    def seen(self, name="#lobby"):
        """The entries of a conversation."""
        return [shown(entry) for entry in self.chat.conversation_named(name).entries]

    def changed(self, *kinds):
        """The changes of these kinds since the last look."""
        found = [change for change in self.changes if change.kind in kinds]
        self.changes = []
        return found


def shown(entry):
    """An entry as it is seen: <waiting>, !failed!, or plain."""
    text = entry.text + (" (%s)" % entry.note if entry.note else "")
    form = "!%s!" if entry.delivery in client.FAILED else "<%s>"
    return text if entry.delivery == client.SENT else form % text


@pytest.fixture
def alice():
    """Alice is in #lobby with bob, on a server with echoes."""
    alice = User().join()
    assert alice.sent == []
    return alice


@pytest.fixture
def kept():
    """The same on a server with a history, which is empty."""
    alice = User(CAPS).join()
    alice.hear(":hub BATCH +f chathistory #lobby", ":hub BATCH -f")
    assert len(alice.sent) == 1
    return alice


def history(target, *lines):
    """The answer to CHATHISTORY."""
    told = ["@batch=x;" + line for line in lines]
    return [":hub BATCH +x chathistory " + target, *told, ":hub BATCH -x"]


# What users type

TO_ALL = "PRIVMSG #lobby :hi"


@pytest.mark.parametrize(
    ("typed", "sent"),
    [
        ("Hello everyone!", ["PRIVMSG #lobby :Hello everyone!"]),
        ("    return 1 \t", ["PRIVMSG #lobby :    return 1"]),
        ("\tif x:\n\t\ty()", ["PRIVMSG #lobby :    if x:", "PRIVMSG #lobby :        y()"]),
        ("  @bob psst", ["PRIVMSG bob :psst"]),
        (" /nick alicia", ["NICK alicia"]),
        ("  // a comment", ["PRIVMSG #lobby :  // a comment"]),
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
        # Each line of a paste is typed where the line before has led.
        ("one\ntwo\r\nthree", ["PRIVMSG #lobby :" + text for text in ("one", "two", "three")]),
        ("one\n\n  \ntwo\n", ["PRIVMSG #lobby :one", "PRIVMSG #lobby :two"]),
        ("one\n/quit bye\nmore", ["PRIVMSG #lobby :one", "QUIT bye"]),
        ("@bob one\n/nick two\n three", ["PRIVMSG bob :one", "NICK two", "PRIVMSG bob : three"]),
        ("@bob one\n/join #tea\ntwo", ["PRIVMSG bob :one", "JOIN #tea", "PRIVMSG #tea :two"]),
        ("@bob one\n@eve two\n3", ["PRIVMSG bob :one", "PRIVMSG eve :two", "PRIVMSG eve :3"]),
        ("//one\n//two", ["PRIVMSG #lobby :/one", "PRIVMSG #lobby :/two"]),
        ("/list\nhello", ["NAMES #lobby", "PRIVMSG #lobby :hello"]),
        ("/help\nhello", ["PRIVMSG #lobby :hello"]),
        ("/join #tea\nhello", ["JOIN #tea", "PRIVMSG #tea :hello"]),
        (
            "/join #tea\n/topic Tea\n/leave\nhi",
            ["JOIN #tea", "TOPIC #tea :Tea", "PART #tea", TO_ALL],
        ),
        ("/join #a,#b\nhello", ["JOIN #a,#b", "PRIVMSG #b :hello"]),
        ("/leave\n/join #tea\nhi", ["PART #lobby", "JOIN #tea", "PRIVMSG #tea :hi"]),
    ],
)
def test_typed_text_becomes_messages(alice, typed, sent):
    alice.type(typed)
    while alice.answer():
        pass
    assert alice.sent == sent


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("/foo", "Unknown command: /foo. Type /help for the list."),
        ("/", "Unknown command: /. Type /help for the list."),
        ("@bob", "Usage: @USERNAME MESSAGE"),
        ("@", "Usage: @USERNAME MESSAGE"),
        ("@ bob hello", "Usage: @USERNAME MESSAGE"),
        ("/me", "Usage: /me ACTION"),
        ("@b!b hello", "No such user: b!b"),
        ("/foo\nsecond line", "Unknown command: /foo. Type /help for the list."),
        ("/join #tea,bob\nfor the room", "The name of a room begins with #."),
        ("/reply hi", "You have no private message to reply to yet."),
        ("/history", "This server has no /history."),
        ("/register s3cret", "This server has no /register."),
        ("/login bob s3cret", "This server has no /login."),
        ("/ban bob", "This server has no /ban."),
        ("/ignore ALICE", "You cannot ignore yourself."),
    ],
)
def test_impossible_input_is_refused_in_words(alice, typed, words):
    assert alice.refusal(typed) == words


@pytest.mark.parametrize(
    ("typed", "sent", "rest"),
    [
        ("hi\n/foo\nmore", [TO_ALL], "/foo\nmore"),
        ("hi\n/login carol hunter2\nmore", [TO_ALL], "/login carol hunter2\nmore"),
        ("hi\n  /REGISTER s3cret", [TO_ALL], "  /REGISTER s3cret"),
        ("hi\n\u200b/oper carol hunter2", [TO_ALL], "/oper carol hunter2"),
        ("@bob one\n@property\n  def", ["PRIVMSG bob :one"], "@bob @property\n@bob   def"),
        ("hi\n/quit\n/foo", [TO_ALL, "QUIT"], ""),
    ],
)
def test_paste_ends_with_the_line_that_is_refused(alice, typed, sent, rest):
    lines = alice.type(typed)
    assert (alice.sent, alice.chat.outcome.rest) == (sent, rest)
    assert any(line.startswith("[SERVER]: ") for line in lines) == bool(rest)
    assert not any("hunter2" in line or "s3cret" in line for line in alice.seen())


def test_pasted_password_is_for_the_server_alone():
    alice = User("echo-message sasl").join()
    alice.type("hi\n /login carol hunter2\nlater")
    login = ["AUTHENTICATE PLAIN", "AUTHENTICATE AGNhcm9sAGh1bnRlcjI="]
    assert alice.answer(":hub 903 alice :You are logged in")
    assert alice.sent == [TO_ALL, *login, "NICK carol", "PRIVMSG #lobby :later"]


@pytest.mark.parametrize(
    ("typed", "answer", "sent", "rest"),
    [
        ("/join #tea\n/leave\nhi", ":hub 473 alice #tea :Invite only", "JOIN #tea", ...),
        ("/join #tea\n/topic x", ":hub 475 alice #tea :Wrong key", "JOIN #tea", ...),
        ("/nick bob\n/register pw", ":hub 433 alice bob :In use", "NICK bob", ...),
        ("/topic x\nhi", ":hub 482 alice #lobby :Not a chanop", "TOPIC #lobby :x", ...),
        ("/topic x\nhi", ":hub FAIL TOPIC X #lobby :No", "TOPIC #lobby :x", ...),
        ("/topic x\n/ignore bob", ":hub 401 alice dave :No such nick", "TOPIC #lobby :x", ...),
        ("/topic x\n/foo\nhi", ":a!a@h TOPIC #lobby x", "TOPIC #lobby :x", "/foo\nhi"),
        ("/topic x\nhi", ":hub FAIL CHATHISTORY X #lobby :No", "TOPIC #lobby :x|" + TO_ALL, ""),
    ],
)
def test_paste_ends_with_the_line_that_the_server_refuses(typed, answer, sent, rest):
    alice = User("echo-message draft/account-registration").join()
    alice.type(typed)
    alice.hear(answer)
    rests = [alice.chat.outcome.rest]
    alice.answer()
    rests.append(alice.chat.outcome.rest)
    assert "|".join(alice.sent) == sent
    assert "".join(rests) == (typed if rest is ... else rest)
    assert alice.chat.unsent == sent.count("PRIVMSG")
    assert not alice.answer() and alice.ignored == []


def test_refused_message_does_not_end_the_paste_after_it(alice):
    alice.type("@dave hi\n/topic x\nmore")
    assert alice.answer(":hub 401 alice dave :No such nick")
    assert alice.sent[-1] == "PRIVMSG dave :more"


def test_each_line_of_a_paste_waits_for_the_line_before():
    alice = User("echo-message draft/account-registration").join()
    alice.type("/nick carol\n/register passw0rd\nhi")
    assert (alice.sent, alice.chat.unsent) == (["NICK carol"], 2)
    alice.type("meanwhile")
    assert alice.answer(":alice!a@h NICK carol")
    assert alice.chat.pending_login == ("carol", "passw0rd")
    assert alice.answer(":hub REGISTER SUCCESS carol :Done")
    texts = ["PRIVMSG #lobby :" + text for text in ("meanwhile", "hi")]
    assert alice.sent == [texts[0], "REGISTER * * :passw0rd", texts[1]]


def test_paste_goes_on_in_its_own_conversation_alone(alice):
    alice.hear(":alice!a@h JOIN #tea")
    alice.type("/topic x\nfor the lobby")
    alice.do(alice.chat.do(NOW, alice.chat.select, alice.chat.conversation_named("#tea")))
    assert alice.answer(":alice!a@h TOPIC #lobby x")
    assert (alice.sent, alice.chat.outcome.rest) == (["TOPIC #lobby :x"], "for the lobby")


def test_lost_connection_gives_back_what_waits_in_a_paste(alice):
    alice.type("/join #tea\nhi")
    alice.type("/topic x\n/me waves")
    alice.lose()
    assert alice.chat.outcome.rest == "/join #tea\nhi\n/topic x\n/me waves"
    assert (alice.chat.unsent, alice.chat.pastes) == (0, {})


def test_no_room_is_entered_beyond_those_that_can_be_shown(alice, monkeypatch):
    monkeypatch.setattr(client, "MAX_CONVERSATIONS", 1)
    assert "too many rooms to join #tea" in alice.refusal("/join #tea\nfor the room")
    assert alice.sent == []


def test_reply_and_the_lines_pasted_after_it_stay_private(alice):
    alice.hear(":bob!b@h PRIVMSG alice :psst")
    alice.type("/reply one\ntwo")
    assert alice.sent == ["PRIVMSG bob :one", "PRIVMSG bob :two"]


def test_only_quit_ends_the_program(alice):
    assert alice.chat.do(NOW, alice.chat.submit, "/quit").is_done
    assert not alice.chat.do(NOW, alice.chat.submit, "quit").is_done


def test_help_is_for_the_window_or_the_terminal_to_show(alice):
    outcome = alice.chat.do(NOW, alice.chat.submit, "/help")
    assert [change.kind for change in outcome.changes] == [client.HELP]
    assert outcome.send == []


@pytest.mark.parametrize(
    ("draft", "words", "icon"),
    [
        ("@bob hi", "Privately to bob", "lock"),
        (" @bob: hi", "Privately to bob", "lock"),
        ("/MSG bob hi", "Privately to bob", "lock"),
        ("/reply hi", "Privately to carol", "lock"),
        ("yes", "To everyone in #lobby", "warn"),
        (" ", "", "lock"),
        ("/whois bob", "", "lock"),
        ("@bob", "", "lock"),
        ("hello @bob hi", "To everyone in #lobby", "announce"),
        ("@ bob", "", "lock"),
        ("//msg bob hi", "To everyone in #lobby", "warn"),
        ("/me waves", "To everyone in #lobby", "warn"),
        ("@bo hi", "No one called “bo” is here. Did you mean bob or bonnie?", "warn"),
        ("@crol hi", "No one called “crol” is here. Did you mean carol?", "warn"),
        ("@zoe hi", "No one called “zoe” is here.", "warn"),
        (
            "/register ",
            "New password for alice, at least 8 characters (hidden). Esc gives up.",
            "lock",
        ),
        ("/register x", "The same password again, to be sure (hidden). Esc gives up.", "lock"),
        ("/login bob ", "Password of bob (hidden). Esc gives up.", "lock"),
        ("/login bob", "", "lock"),
    ],
)
def test_draft_that_is_not_for_the_room_has_a_notice(alice, draft, words, icon):
    alice.hear(
        ":bonnie!b@h JOIN #lobby", ":carol!c@h PRIVMSG alice :psst", ":carol!c@h JOIN #lobby"
    )
    notice = client.describe_draft(alice.chat, draft)
    assert (notice.words.strip(), notice.icon) == (words, icon)
    is_doubtful = (words, icon) == ("To everyone in #lobby", "warn")
    assert notice.offer == ("Answer carol privately" if is_doubtful else "")


@pytest.mark.parametrize(
    ("draft", "words", "targets"),
    [
        ("hello", "", "#lobby"),
        ("one\ntwo", "", "#lobby"),
        ("@bob one\ntwo", "Privately to bob", "bob"),
        ("@bob one\n\n  two\n", "Privately to bob", "bob"),
        ("\n @BOB: one\n//two\n/me waves", "Privately to BOB", "BOB"),
        ("@bob one\n/list\ntwo", "Privately to bob", "bob"),
        ("/list\none", "", "#lobby"),
        ("/whois bob", "", ""),
        (
            "one\n@bob two\nthree",
            "First to everyone in #lobby, then privately to bob",
            "#lobby bob",
        ),
        (
            "@bob one\n/msg carol two",
            "First privately to bob, then privately to carol",
            "bob carol",
        ),
        ("@bob one\n/reply two", "First privately to bob, then privately to carol", "bob carol"),
        ("/join #tea\none", "To everyone in #tea", "#tea"),
        ("/join #a,#tea\none", "To everyone in #tea", "#tea"),
        ("/join tea,bob\none", "", ""),
        (
            "@bob one\n/join tea\ntwo",
            "First privately to bob, then to everyone in #tea",
            "bob #tea",
        ),
        (
            "@bob one\n/leave\ntwo",
            "First privately to bob, then to where /leave leads",
            "bob carol",
        ),
        ("/leave\n/join #tea\none", "To everyone in #tea", "#tea"),
        ("@bob one\n/lsit\ntwo", "Privately to bob", "bob"),
        ("@bob one\n@property\ntwo", "Privately to bob", "bob"),
        ("@bob \ntwo", "", ""),
        ("@bob:\ntwo", "", ""),
        ("/msg #lobby two", "", ""),
        ("/announce two", "", ""),
    ],
)
def test_notice_names_all_to_whom_the_lines_of_a_draft_go(draft, words, targets):
    """And no others: it is compared with what is sent."""
    alice = User().join()
    alice.hear(":carol!c@h JOIN #lobby", ":carol!c@h PRIVMSG alice :psst")
    alice.type("to all")
    alice.sent.clear()
    assert client.describe_draft(alice.chat, draft).words == words
    alice.type(draft)
    sent = alice.sent
    while alice.answer(*(":alice!a@h " + line for line in sent if line[:4] == "JOIN")):
        sent += alice.sent
    reached = [line.split()[1] for line in sent if line.startswith("PRIVMSG ")]
    assert list(dict.fromkeys(reached)) == targets.split()


DRAFT_LINES = [
    "hello", "  two", "@bob one", "@carol: one", "@b,c one", "@property", "/msg bob one",
    "/msg bob", "/msg-x one", "/reply one", "/reply", "/me waves", "//usr", " //usr", "/join tea",
    "/join #spam", "/join", "/leave", "/topic x", "/whois bob", "/list", "/foo", "/ignore alice",
    "x\u2028y", "\u200b@bob one", "@bob\u00a0one", "@bob one\rtwo", "@bob one\0two",
]  # fmt: skip
RANDOM_DRAFTS = st.lists(st.sampled_from(DRAFT_LINES), min_size=1, max_size=5)


def reached(alice, text):
    """Type a text; return all whom it reaches, and what is given back."""
    alice.sent.clear()
    alice.type(text)
    sent = alice.sent
    while alice.answer(*(":alice!a@h " + line for line in sent if line[:4] == "JOIN")):
        sent += alice.sent
    targets = [line.split()[1] for line in sent if line.startswith("PRIVMSG ")]
    return list(dict.fromkeys(targets)), alice.chat.outcome.rest


@given(RANDOM_DRAFTS, st.sampled_from(["#lobby", "bob", "Office"]), st.booleans())
@example(["/join #spam", "hello"], "#lobby", True)
@example(["/join tea", "/topic x", "hello"], "Office", False)
def test_notice_names_all_whom_a_random_draft_reaches(lines, view, is_removed):
    """From each kind of conversation, and if the user was removed from a room."""
    alice, draft = User().join(), "\n".join(lines)
    alice.hear(":carol!c@h JOIN #lobby", ":alice!a@h JOIN #spam", ":bob!b@h PRIVMSG alice :psst")
    alice.hear(*[":bob!b@h KICK #spam alice :out"] * is_removed)
    alice.chat.do(NOW, alice.chat.select, alice.chat.conversation_named(view) or alice.chat.console)
    named = client._recipients(alice.chat, draft)
    assert set(reached(alice, draft)[0]) <= set(named) or client._NEXT in named


@given(RANDOM_DRAFTS)
@example(["@bob one", "/msg carol", "two"])
def test_private_line_stays_private_if_the_refused_lines_are_deleted(lines):
    """Each line is sent to the room only if it would be without the lines that are refused."""
    alice, other = User().join(), User().join()
    for user in (alice, other):
        user.hear(":carol!c@h JOIN #lobby", ":carol!c@h PRIVMSG alice :psst")
    rest, valid, targets = "\n".join(lines), lines[:], []
    while rest:
        found, rest = reached(alice, rest)
        targets += found
        refused, _, rest = rest.partition("\n")
        valid.remove(refused) if refused in valid else None
    public = {target for target in targets if target[0] == "#"}
    assert public <= set(reached(other, "\n".join(valid))[0])


@pytest.mark.parametrize(
    ("name", "words"),
    [("a", "a"), ("fourteen_chars", "fourteen_chars"), ("fifteen_letters", "fifteen_lette…")],
)
def test_offer_has_room_beside_the_notice(alice, name, words):
    alice.hear(":%s!c@h JOIN #lobby" % name, ":%s!c@h PRIVMSG alice :psst" % name)
    assert client.describe_draft(alice.chat, "hi").offer == "Answer %s privately" % words


def test_text_of_a_private_conversation_is_private_in_its_notice(alice):
    alice.hear(":carol!c@h JOIN #lobby", ":bob!b@h PRIVMSG alice :psst")
    alice.do(alice.chat.do(NOW, alice.chat.open, "bob"))
    mixed = "First privately to bob, then privately to carol"
    cases = [("one", ""), ("@bob one", ""), ("one\n@carol two", mixed)]
    assert [client.describe_draft(alice.chat, draft).words for draft, _ in cases] == [
        w for _, w in cases
    ]


def test_operator_s_notice_of_an_announcement():
    alice = User("hubbub/resume").join()
    alice.hear(":alice!a@h MODE alice :+o")
    assert client.describe_draft(alice.chat, "/announce ")[:2] == (
        "To everyone on this chat",
        "announce",
    )


@pytest.mark.parametrize(
    ("typed", "rest"),
    [
        ("@bob one\n/etc/hosts\nsecret", "@bob /etc/hosts\n@bob secret"),
        ("@bob one\n@property\n  def two", "@bob @property\n@bob   def two"),
        ("@bob one\n/foo\n/me waves\nthree", "@bob /foo\n@bob /me waves\nthree"),
        ("@bob one\n/foo\n@carol two\nthree", "@bob /foo\n@carol two\nthree"),
        ("@bob one\n/foo\n//two", "@bob /foo\n@bob /two"),
        ("@bob one\n/foo", "@bob /foo"),
        ("@bob one\n/who am i\nthree", "@bob /who am i\n@bob three"),
        ("@bob one\n /LOGIN carol hunter2\ntwo", " /LOGIN carol hunter2\n@bob two"),
        ("@bob one\n/msg carol\ntwo", "/msg carol\n@bob two"),
        ("@bob one\n/reply\n/me waves", "/reply\n@bob /me waves"),
        ("@bob one\n/msg-x\ntwo", "@bob /msg-x\n@bob two"),
        ("/join #tea\n/foo\nhi", "/foo\nhi"),
        ("one\n/foo\ntwo", "/foo\ntwo"),
        ("@bob one\n/topic x\nsecret", "@bob secret"),  # another conversation is in view then
        ("@bob one\n/topic x\n/foo\nsecret", "@bob /foo\n@bob secret"),
    ],
)
def test_private_lines_that_are_given_back_stay_private(alice, typed, rest):
    alice.hear(":alice!a@h JOIN #spam")
    alice.type(typed)
    if "/topic" in typed:
        alice.do(alice.chat.do(NOW, alice.chat.select, alice.chat.conversation_named("#spam")))
    alice.answer(":alice!a@h JOIN #tea")
    assert alice.chat.outcome.rest == rest


def test_private_lines_that_wait_are_private_after_a_lost_connection(alice):
    alice.type("@bob one\n/topic x\nsecret")
    alice.lose()
    assert alice.chat.outcome.rest == "/topic x\n@bob secret"


@pytest.mark.parametrize("is_lost", [False, True])
def test_lines_of_a_private_conversation_stay_private_in_another(alice, is_lost):
    """They wait for the answer to a command, and the user goes to the room meanwhile."""
    alice.do(alice.chat.do(NOW, alice.chat.open, "bob"))
    alice.type("/whois carol\nsecret")
    alice.do(alice.chat.do(NOW, alice.chat.open, "#lobby"))
    alice.lose() if is_lost else alice.answer()
    assert alice.chat.outcome.rest == "/whois carol\n" * is_lost + "@bob secret"


def test_lines_that_wait_follow_their_recipient_to_a_new_name(alice):
    """Another user may have the old name by then."""
    alice.type("@bob one\n/topic x\nsecret")
    alice.hear(":bob!b@h NICK rob", ":mallory!m@h NICK bob")
    alice.sent.clear()
    alice.answer()
    assert alice.sent == ["PRIVMSG rob :secret"]


FROM_BOB, FROM_CAROL = ":bob!b@h PRIVMSG alice :psst", ":carol!c@h PRIVMSG alice :hm"


@pytest.mark.parametrize(
    ("lines", "offer"),
    [
        ([FROM_BOB], "Answer bob"),
        ([FROM_BOB, ":carol!c@h PRIVMSG #lobby :tea?"], "Answer bob"),
        ([FROM_BOB, "> @bob yes"], "Write to bob"),
        ([FROM_BOB, "> @bob yes", "go bob", "> and no", "go #lobby"], "Write to bob"),
        (["> @bob yes"], ""),  # not delivered yet
        ([FROM_BOB, "> @bob yes", "> hello"], ""),
        ([FROM_BOB, FROM_CAROL, "> @carol yes"], "Write to carol"),
        ([FROM_BOB, FROM_CAROL, "> @bob yes"], "Write to bob"),
        ([FROM_BOB, FROM_CAROL, "> @bob yes", "go bob", "> no", "go #lobby"], "Write to bob"),
        ([FROM_BOB, FROM_CAROL], "Answer carol"),
        ([FROM_BOB, FROM_CAROL, ":carol!c@h QUIT :bye"], "Answer bob"),
        ([FROM_BOB, FROM_CAROL, "go carol", "> yes", "go #lobby"], "Answer bob"),
        ([FROM_BOB, "> @bob yes", ":bob!b@h QUIT :bye", ":bob!b@h JOIN #lobby"], "Write to bob"),
        ([FROM_BOB, "> /whois bob"], "Answer bob"),
        ([FROM_BOB, "> hello"], ""),
        ([FROM_BOB, "> hello", ":bob!b@h PRIVMSG alice :well?"], "Answer bob"),
        ([FROM_BOB, "go bob", "> yes", "go #lobby"], ""),
        ([FROM_BOB, "go bob"], ""),
        ([":bob!b@h PRIVMSG #lobby :hi"], ""),
        (["go bob", FROM_BOB, "go #lobby"], ""),  # it is not there
        # A draft that was begun then keeps it, until it is sent or emptied:
        ([FROM_BOB, "draft she", "go bob", "> yes", "go #lobby"], "Answer bob"),
        ([FROM_BOB, "draft she", "draft @bob she", "go bob", "> yes", "go #lobby"], "Answer bob"),
        ([FROM_BOB, "draft she", "go bob", "> yes", "go #lobby", "draft "], ""),
        ([FROM_BOB, "draft she", "go bob", "> yes", "close bob"], "Answer bob"),
        ([FROM_BOB, "> @bob yes", "draft she", "close bob"], ""),
    ],
)
def test_draft_for_all_says_so_below_private_lines(alice, lines, offer):
    """It offers the user of the last of them who is here, up to one's own last line to all."""
    alice.hear(":carol!c@h JOIN #lobby")
    for line in lines:
        word, _, rest = line.partition(" ")
        if word == ">":
            alice.type(rest)
        elif word == "go":
            alice.chat.do(NOW, alice.chat.open, rest)
        elif word == "draft":
            client.follow_draft(alice.chat, rest)
        elif word == "close":
            alice.chat.do(NOW, alice.chat.leave, alice.chat.conversation_named(rest))
        else:
            alice.hear(line)
    expected = "To everyone in #lobby", "warn", offer + " privately"
    assert client.describe_draft(alice.chat, "yes")[:3] == (expected if offer else ("", "lock", ""))


@pytest.mark.parametrize(
    ("draft", "is_named"),
    [
        ("hey @bob I like tom", True),
        ("/me hugs @Bob.", True),
        ("one\n(@bob?) two", True),
        ("hey bob", False),
        ("hey @zoe", False),
        ("write to a@bob", False),
        ("hey @", False),
    ],
)
def test_draft_for_all_that_names_a_user_like_a_recipient_says_so(alice, draft, is_named):
    expected = ("To everyone in #lobby", "announce", "") if is_named else ("", "lock", "")
    assert client.describe_draft(alice.chat, draft)[:3] == expected


def test_nobody_is_called_absent_while_it_is_not_known_who_is_here(alice):
    assert client.describe_draft(alice.chat, "@zoe hi")[1] == "warn"
    alice.chat.do(NOW, alice.chat.handle, Lost("Connection lost"))
    assert client.describe_draft(alice.chat, "@zoe hi")[:2] == ("Privately to zoe", "lock")


@pytest.mark.parametrize(
    ("draft", "command"),
    [
        ("/register", "/register "), ("/register ", "/register "), ("/login", "/login alice "),
        ("/login bob", "/login bob "), ("/register secret", ""), ("/login bob secret", ""),
        ("/register\nhello", ""), ("register", ""), ("", ""), ("/", ""),
    ],
)  # fmt: skip
def test_command_that_lacks_its_password_is_recognized(alice, draft, command):
    alice.chat.session.caps |= {"sasl", "draft/account-registration"}
    assert client.missing_password(alice.chat, draft) == command


def test_no_password_is_asked_for_that_the_server_cannot_use(alice):
    alice.chat.session.caps = frozenset()
    assert client.missing_password(alice.chat, "/register") == ""
    assert alice.type("/register") == ["[SERVER]: Usage: /register PASSWORD"]


def test_private_message_that_stays_in_view_or_is_answered_is_read(alice):
    """In the room where it is shown, but not if it came while another conversation was in view."""
    clock = itertools.count(NOW)

    def unread():
        return [(c.name, c.unread) for c in alice.chat.conversations if c.unread]

    def look(*hidden, seconds=5):
        in_view = [e for e in alice.chat.current.entries if e.line.text not in hidden]
        for now in itertools.islice(clock, seconds + 1):
            alice.chat.do(now, alice.chat.mark_seen, in_view.__contains__)

    alice.hear(":bob!b@h PRIVMSG alice :one")
    look("one")
    look(seconds=4)
    look("one", seconds=0)  # it has scrolled away
    look(seconds=4)
    assert unread() == [("bob", 1)]
    look(seconds=0)
    assert unread() == []
    alice.chat.do(NOW, alice.chat.set_focus, False)
    alice.hear(":bob!b@h PRIVMSG alice :two", ":bob!b@h PRIVMSG alice :three")
    look()
    assert unread() == [("bob", 2)]
    alice.chat.do(NOW, alice.chat.set_focus, True)
    look("two")
    assert unread() == [("bob", 2)]
    look("one")
    assert unread() == [] and alice.chat.conversation_named("bob").mark is None
    alice.chat.do(NOW, alice.chat.open, "bob")
    alice.hear(":carol!c@h PRIVMSG alice :four")
    alice.chat.do(NOW, alice.chat.open, "#lobby")
    look()
    assert unread() == [("carol", 1)]
    alice.type("@carol what?")
    assert unread() == [] and alice.chat.conversation_named("carol").mark is None


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([":tina!t@h INVITE alice #trip"], [("tina invites you to #trip.", "#trip")]),
        ([":tina!t@h INVITE alice #trip"] * 2, [("tina invites you to #trip.", "#trip")]),
        (
            [":bob!b@h INVITE alice #Trip", ":tina!t@h INVITE alice #trip"],
            [("tina invites you to #trip.", "#trip")],
        ),
        ([":tina!t@h INVITE alice #trip", ":alice!a@h JOIN #Trip"], []),
        (
            [":tina!t@h INVITE alice #trip", ":bob!b@h INVITE alice #tea"],
            [("tina invites you to #trip.", "#trip"), ("bob invites you to #tea.", "#tea")],
        ),
        ([":tina!t@h INVITE alice #trip", ":alice!a@h JOIN #trip"], []),
        ([":tina!t@h INVITE bob #trip"], []),
        ([":tina!t@h INVITE alice #lobby"], []),
    ],
)
def test_invitation_stays_until_it_is_accepted_or_closed(alice, lines, expected):
    alice.hear(*lines)
    assert alice.chat.announcements == expected
    while alice.chat.announcements:
        alice.chat.close_announcement()


def test_reply_that_is_begun_stays_with_its_room(alice):
    alice.hear(":alice!a@h JOIN #tea", ":bob!b@h PRIVMSG #lobby :is it ready?")
    alice.do(alice.chat.do(NOW, alice.chat.open, "#lobby"))
    alice.do(alice.chat.do(NOW, alice.chat.reply, alice.chat.current.entries[-1]))
    notice = client.describe_draft(alice.chat, "great")
    assert notice.words == "Reply to bob in #lobby: is it ready?"
    alice.do(alice.chat.do(NOW, alice.chat.open, "#tea"))
    assert client.describe_draft(alice.chat, "great").words == ""
    alice.do(alice.chat.do(NOW, alice.chat.open, "#lobby"))
    assert client.describe_draft(alice.chat, "great") == notice


@pytest.mark.parametrize("has_focus", [True, False])
def test_private_message_in_a_room_in_view_raises_no_alert(alice, has_focus):
    alice.do(alice.chat.do(NOW, alice.chat.set_focus, has_focus))
    alice.hear(":bob!b@h PRIVMSG alice :psst")
    assert bool(alice.changed(client.ALERT)) != has_focus


def test_commands_are_suggested_to_those_who_may_use_them(alice):
    def suggested():
        return {each.word[1:-1] for each in client.commands(alice.chat)}

    alice.chat.session.caps |= {
        "sasl",
        "draft/account-registration",
        client.HISTORY_CAP,
        client.RESUME_CAP,
    }
    assert suggested() == set(protocol.VERBS) - protocol.OPERATOR_VERBS
    alice.hear(":bob!b@h MODE #lobby +h alice")  # no operator, nor is one in the menus
    assert suggested() == set(protocol.VERBS) - protocol.OPERATOR_VERBS
    assert not alice.chat.can_moderate(alice.chat.current)
    alice.hear(":bob!b@h MODE #lobby +o alice")
    assert suggested() == set(protocol.VERBS) - protocol.OPERATOR_VERBS | {"kick"}
    alice.hear(":alice!a@h MODE alice +io")
    assert suggested() == set(protocol.VERBS)
    alice.hear(":alice!a@h MODE alice -i-o")
    assert suggested() == set(protocol.VERBS) - protocol.OPERATOR_VERBS | {"kick"}
    alice.chat.session.caps = frozenset()
    assert not suggested() & {"history", "register", "login", "ban"}


@pytest.mark.parametrize(
    ("typed", "args"), [("/reg", ""), ("/log", "USERNAME"), ("/top", "[TOPIC]")]
)
def test_suggestion_of_a_command_asks_for_no_password_in_the_open(alice, typed, args):
    alice.chat.session.caps |= {"sasl", "draft/account-registration"}
    (found,) = alice.chat.completer.suggest(typed, len(typed))
    assert found.word.startswith(typed) and found.args == args and found.help


def test_list_is_answered_in_one_line_when_all_names_have_come(alice):
    assert alice.type("/list") == []
    assert alice.hear(":hub 353 alice = #lobby :Zoe alice", ":hub 353 alice = #lobby :bob") == []
    end = ":hub 366 alice #lobby :End of /NAMES list"
    assert alice.hear(end) == ["[SERVER]: Online users (3): alice, bob, Zoe"]
    assert alice.hear(end) == []
    alice.type("/list")
    alice.hear(":hub 353 alice = #lobby :ghost")
    alice.lose()  # the question is lost with the connection
    alice.connect()
    assert not any("Online users" in line for line in alice.hear(*WELCOME))
    assert alice.people == "alice bob"


def test_long_text_is_split_into_lines_that_fit(alice):
    text = " ".join(["wörd%d" % number for number in range(200)])
    alice.type(text)
    sent = alice.sent
    assert "".join(line[len("PRIVMSG #lobby :") :] for line in sent) == text
    longest = ":alice!%s@%s " % ("u" * 10, "h" * 63)
    assert all(len((longest + line).encode()) <= protocol.MAX_MESSAGE - 2 for line in sent)


def test_ignored_users_are_not_shown_on_any_server(kept):
    assert kept.type("/ignore bob") == ["[SERVER]: You now ignore bob."]
    assert kept.ignored == ["bob"]
    said = [":BOB!b@h PRIVMSG #lobby :hi", ":bob!b@h NOTICE alice :hi", ":bob!b@h INVITE alice #x"]
    assert kept.hear(*said) == []
    assert kept.hear(*history("#lobby", "msgid=1 :bob!b@h PRIVMSG #lobby :earlier")) == []
    assert kept.type("/ignore") == ["[SERVER]: You ignore bob."]
    assert kept.type("/unignore BOB") == ["[SERVER]: You no longer ignore BOB."]
    assert kept.ignored == []
    assert kept.type("/unignore bob") == ["[SERVER]: You do not ignore bob."]
    assert kept.hear(":bob!b@h PRIVMSG #lobby :hi") == ["[bob]: hi"]
    assert kept.sent == []


@pytest.mark.parametrize(
    ("do", "is_changed"),
    [
        (lambda chat: chat.do(NOW, chat.submit, "/ignore bob"), True),
        (lambda chat: chat.do(NOW, chat.submit, "/ignore"), False),
        (lambda chat: chat.do(NOW, chat.submit, "/unignore bob"), False),
        (lambda chat: chat.do(NOW, chat.set_level, chat.current, client.ALL), True),
        (lambda chat: chat.do(NOW, chat.submit, "hello"), False),
    ],
)
def test_changed_settings_are_to_be_saved(alice, do, is_changed):
    assert do(alice.chat).settings_changed == is_changed


def test_ignored_user_opens_no_conversation_by_writing_while_one_is_away(kept):
    kept.type("/ignore bob")
    kept.lose()
    kept.join()
    kept.all_sent  # noqa: B018
    kept.hear(
        ":hub BATCH +t draft/chathistory-targets",
        "@batch=t :hub CHATHISTORY TARGETS bob 2026-11-22T17:11:00.000Z",
        ":hub BATCH -t",
    )
    assert (kept.names, kept.sent) == (["#lobby"], [])


def test_page_by_ignored_users_is_skipped(kept, monkeypatch):
    monkeypatch.setattr(client, "PAGE", 2)
    room = kept.chat.current
    kept.type("/ignore bob")
    kept.hear("@msgid=9 :carol!c@h PRIVMSG #lobby :hi")
    room.has_older = True
    kept.do(kept.chat.do(NOW, kept.chat.fetch_older, room))
    assert kept.sent == ["CHATHISTORY BEFORE #lobby msgid=9 :2"]
    page = ["msgid=%d :bob!b@h PRIVMSG #lobby :noise" % number for number in (7, 8)]
    kept.hear(*history("#lobby", *page))
    assert kept.sent == ["CHATHISTORY BEFORE #lobby msgid=7 :2"]
    kept.hear(*history("#lobby", "msgid=6 :carol!c@h PRIVMSG #lobby :earlier"))
    assert (kept.sent, room.has_older) == ([], False)
    assert [line for line in kept.seen() if "carol" in line] == ["[carol]: earlier", "[carol]: hi"]


def test_page_before_an_entry_that_is_gone_is_dropped(kept, monkeypatch):
    monkeypatch.setattr(client, "MAX_ENTRIES", 20)
    room = kept.chat.current
    kept.hear("@msgid=9 :bob!b@h PRIVMSG #lobby :first")
    room.has_older = True
    kept.do(kept.chat.do(NOW, kept.chat.fetch_older, room))
    kept.hear(*["@msgid=%d :bob!b@h PRIVMSG #lobby :hi" % number for number in range(10, 40)])
    kept.hear(*history("#lobby", "msgid=8 :bob!b@h PRIVMSG #lobby :earlier"))
    assert (room.has_older, room.knows("8"), room.knows("9")) == (True, False, False)


def test_own_messages_are_not_ignored_under_an_ignored_nickname(alice):
    alice.type("/ignore bob")
    alice.hear(":alice!a@h NICK bob")
    alice.type("hi")
    alice.hear(":bob!a@h PRIVMSG #lobby :hi")
    assert alice.seen()[-1] == "[bob]: hi"


def test_password_is_not_shown_and_kept_once_it_is_accepted():
    alice = User("echo-message sasl draft/account-registration").join()
    outcome = alice.chat.do(NOW, alice.chat.submit, "/register s3cret-pass")
    assert (outcome.changes, outcome.login) == ([], None)
    outcome = alice.chat.do(
        NOW, alice.chat.handle, protocol.parse(b"REGISTER SUCCESS alice :Welcome")
    )
    assert (outcome.login, outcome.send) == (("alice", "s3cret-pass"), [])
    alice.chat.do(NOW, alice.chat.submit, "/login bob hunter2")
    outcome = alice.chat.do(NOW, alice.chat.handle, protocol.parse(b":hub 903 alice :Logged in"))
    assert outcome.login == ("bob", "hunter2")
    assert outcome.send == [protocol.Message("NICK", ("bob",))]  # logging in does not rename
    assert not any("s3cret" in line or "hunter2" in line for line in alice.seen())


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("/login bob s3cret", True),
        (" /REGISTER s3cret", True),
        ("hello\n/login bob s3cret", True),
        ("\ufeff/login bob s3cret", True),
        ("\u200b/\x02login bob s3cret", True),
        ("/join x", False),
        ("login", False),
        ("", False),
        ("/", False),
        ("//login bob", False),
    ],
)
def test_text_with_a_password_is_recognized(text, secret):
    assert client.is_secret(text) == secret


# What servers send


@pytest.mark.parametrize(
    ("line", "kind", "text"),
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
def test_each_event_is_one_line_of_its_kind(alice, line, kind, text):
    assert alice.hear(line) == [text]
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
def test_messages_between_programs_change_nothing(alice, line):
    alice.changes = []
    assert alice.hear(line) == []
    assert alice.changes == []


@pytest.mark.parametrize(
    ("stamp", "when"),
    [
        ("2026-11-22T17:09:30.500Z", NOW - 71.5),
        ("9999-12-31T23:59:59.000Z", client.LATEST_TIME),  # Windows cannot show every year
        ("0001-01-01T00:00:00.000Z", 86400),
        *dict.fromkeys(["", "yesterday", "2026-13-01T00:00:00.000Z", "2026-11-22"], NOW).items(),
        *dict.fromkeys(["2026-11-22T17:09:30.1e300Z", "2026-11-22T17:09:30.nanZ"], NOW).items(),
    ],
)
def test_line_has_the_time_of_the_server_if_that_makes_sense(alice, stamp, when):
    assert alice.hear("@time=%s :bob!b@h PRIVMSG #lobby :hi" % stamp) == ["[bob]: hi"]
    assert alice.lines[-1].when == when
    assert "[bob]: hi" in str(alice.lines[-1])


@pytest.mark.parametrize(
    ("lines", "people"),
    [
        ([], "alice bob"),
        ([":carol!c@h JOIN #lobby"], "alice bob carol"),
        ([":carol!c@h JOIN #LOBBY"], "alice bob carol"),
        ([":bob!b@h PART #lobby"], "alice"),
        ([":BOB!b@h QUIT :gone"], "alice"),
        ([":op!o@h KICK #lobby bob :out"], "alice"),
        ([":bob!b@h NICK Zed"], "alice Zed"),
        ([":alice!a@h NICK mallory"], "bob mallory"),
        ([":dave!d@h NICK david"], "alice bob"),
        ([":hub 353 alice = #lobby :@zoe +adam", ":hub 366 alice #lobby :End"], "adam zoe"),
        ([":hub 353 alice = #lobby :zoe"], "alice bob"),
        ([":carol!c@h JOIN #other"], "alice bob"),
        ([":bob!b@h PART #other"], "alice bob"),
        ([":hub 353 alice = #other :x y", ":hub 366 alice #other :End"], "alice bob"),
        (["JOIN #lobby"], "alice bob"),
        ([":!u@h JOIN #lobby"], "alice bob"),
        ([":bob!b@h NICK :"], "alice bob"),
        ([":hub 353 alice = #lobby :a @ b", ":hub 366 alice #lobby :End"], "a b"),
    ],
)
def test_members_follow_what_happens_in_the_channel(alice, lines, people):
    alice.hear(*lines)
    assert alice.people == people
    alice.lose()
    assert alice.people == ""


def test_own_new_nickname_is_used_from_then_on(alice):
    alice.hear(":alice!a@h NICK alicia")
    assert alice.chat.title == "Connected: alicia @ Office — Hubbub"
    alice.hear(":alicia!a@h PRIVMSG #lobby :me again")
    assert alice.lines[-1].kind == FROM_ME


def test_topic_is_that_of_the_channel(alice):
    alice.hear(":hub 332 alice #lobby :Lunch at one", ":bob!b@h TOPIC #other :elsewhere")
    assert alice.chat.current.topic == "Lunch at one"
    assert alice.hear(":bob!b@h TOPIC #lobby :Tea") == ["[SERVER]: bob set the topic: Tea"]
    assert alice.chat.current.topic == "Tea"
    assert len(alice.hear(":hub 332 alice #lobby :Tea")) == 1  # /topic asked for it


def test_unchanged_topic_is_not_shown_again_after_a_reconnect(alice):
    told = ":hub 332 alice #lobby :Lunch at noon"
    assert len(alice.hear(told)) == 1
    for topic, lines in [(told, 0), (":hub 332 alice #lobby :Lunch at one", 1)]:
        alice.lose()
        alice.connect()
        alice.hear(*WELCOME[:3])
        assert alice.chat.current.topic == ""
        assert len(alice.hear(topic)) == lines
        assert alice.chat.current.topic == topic.rpartition(":")[2]


def test_prefixes_and_presence_follow_modes_and_away(alice):
    alice.hear(":hub 353 alice = #lobby :@alice +bob", ":hub 366 alice #lobby :End")
    alice.hear(":alice!a@h MODE #lobby +o-v bob alice", ":bob!b@h AWAY :lunch")
    people = alice.chat.current.sorted_members
    assert [(person.prefix, person.is_away) for person in people] == [("@", False), ("@+", True)]
    presence = [alice.chat.presence(name) for name in ("BOB", "alice", "zoe")]
    assert presence == [client.AWAY, client.ONLINE, client.OFFLINE]
    alice.hear(":hub 306 alice :You are away")
    assert alice.chat.is_away
    alice.hear(":hub 305 alice :You are back")
    assert not alice.chat.is_away


@pytest.mark.parametrize(
    ("line", "kinds"),
    [
        (":carol!c@h JOIN #lobby", {"members", "sidebar"}),  # she is not "Not here" any more
        (":zoe!z@h JOIN #lobby", {"members"}),
        (":bob!b@h QUIT :gone", {"members"}),
        (":bob!b@h NICK rob", {"members"}),
        (":bob!b@h NICK carol", {"members", "sidebar"}),
        (":hub 353 alice = #lobby :alice carol", set()),
        (":hub 366 alice #lobby :End", {"members", "sidebar"}),
        (":zoe!z@h NICK zia", set()),
        (":zoe!z@h QUIT :gone", set()),
        (":op!o@h KICK #lobby zoe :out", set()),
        (":op!o@h MODE #lobby -o bob", set()),
        (":hub 331 alice #lobby :No topic is set", set()),
        (":bob!b@h TOPIC #lobby :Tea", {"header"}),
        (":bob!b@h AWAY :lunch", {"members"}),
        (":bob!b@h AWAY", set()),
    ],
)
def test_event_redraws_only_what_it_changes(alice, line, kinds):
    alice.do(alice.chat.do(NOW, alice.chat.open, "carol"))
    alice.changes = []
    alice.hear(line)
    assert {change.kind for change in alice.changes if not change.entries} == kinds


@pytest.mark.parametrize(
    "line",
    [
        ":bob!b@h PRIVMSG #tea :secret of tea",
        ":bob!b@h NOTICE @#tea :secret of tea",
        ":bob!b@h TOPIC #tea :new",
        ":bob!b@h MODE #tea +m",
        ":bob!b@h KICK #tea carol",
        ":bob!b@h JOIN #tea",
        ":bob!b@h PART #tea",
    ],
)
def test_what_happens_in_a_channel_just_left_is_not_shown_elsewhere(alice, line):
    alice.hear(":alice!a@h JOIN #tea")
    alice.do(alice.chat.do(NOW, alice.chat.open, "#tea"))
    alice.type("/leave")
    assert alice.hear(line) == []


def test_message_to_the_chanops_is_one_in_their_channel(alice):
    alice.hear(":bob!b@h PRIVMSG @#lobby :for chanops")
    assert alice.seen()[-1] == "[bob]: for chanops"
    assert alice.lines[-1].kind == FROM_OTHERS


def test_reply_follows_the_new_nickname_of_its_recipient(alice):
    alice.hear(":bob!b@h PRIVMSG alice :psst", ":bob!b@h NICK rob")
    alice.type("/reply what?")
    assert alice.sent == ["PRIVMSG rob :what?"]


@pytest.mark.parametrize("line", [":bob!b@h QUIT :bye", ""])
def test_reply_goes_to_nobody_whose_name_may_have_changed_hands(alice, line):
    """The sender has left, or the connection was lost meanwhile."""
    alice.hear(":bob!b@h PRIVMSG alice :psst")
    if line:
        alice.hear(line)
    else:
        alice.lose()
        alice.connect()
        alice.hear(*WELCOME)
    assert "no private message to reply to" in alice.refusal("/reply what?")


def test_modes_are_parsed_as_the_server_defines_them():
    alice = User()
    alice.connect()
    alice.hear(":hub 005 alice CHANMODES=be,k,lH,imZ PREFIX=(yov)!@+ :are supported")
    alice.hear(*WELCOME[:-2])
    alice.hear(":hub 353 alice = #lobby :alice !@bob +carol ~dan", ":hub 366 alice #lobby :End")
    prefixes = lambda: [person.prefix for person in alice.chat.current.sorted_members]  # noqa: E731
    assert prefixes()[:3] == ["", "!@", "+"]
    alice.hear(":bob!b@h MODE #lobby +eZHoy-k *!*@h 10:5 alice carol key")
    assert prefixes()[:3] == ["@", "!@", "!+"]
    assert alice.hear(":bob!b@h MODE #lobby +H-b+v 10:5 eve!*@* alice") == [
        "[SERVER]: bob set the mode +H of #lobby, lifted the ban of eve from #lobby,"
        " gave alice a voice in #lobby"
    ]
    alice.hear(":bob!b@h MODE #lobby -%s %s" % ("oy" * 5, " ".join(["alice", "carol"] * 5)))
    assert prefixes()[:3] == ["+", "!@", "+"]


@pytest.mark.parametrize("is_resumed", [True, False])
def test_user_is_away_after_a_reconnect_only_if_the_session_goes_on(alice, is_resumed):
    alice.hear(":hub 306 alice :You are away")
    alice.lose()
    alice.join(is_resumed=is_resumed)
    assert alice.chat.is_away == is_resumed


def test_who_is_away_is_asked_once_where_changes_are_told():
    alice = User("away-notify").join()
    assert alice.sent == ["WHO #lobby"]
    alice.hear(":hub 352 alice #lobby b h hub bob G@ :0 Bob", ":hub 315 alice #lobby :End")
    assert alice.chat.presence("bob") == client.AWAY
    alice.hear(":hub 353 alice = #lobby :alice bob", ":hub 366 alice #lobby :End")
    assert alice.sent == []
    assert alice.chat.presence("bob") == client.AWAY


def test_title_says_state_nickname_server_and_news(alice):
    assert Chat("Office", {}, []).title == "Disconnected — Office — Hubbub"
    newcomer = Chat("Office", {}, [])
    newcomer.begin("bob")
    assert newcomer.title == "Connecting to Office… — Hubbub"
    assert alice.chat.title == "Connected: alice @ Office — Hubbub"
    alice.do(alice.chat.do(NOW, alice.chat.set_focus, False))
    alice.hear(":bob!b@h PRIVMSG #lobby :hi")
    assert alice.chat.title == "(1) Connected: alice @ Office — Hubbub"
    alice.hear(":bob!b@h PRIVMSG alice :psst")
    assert alice.chat.title == "(2!) Connected: alice @ Office — Hubbub"
    alice.lose()
    assert alice.chat.title == "(2!) Reconnecting… — Office — Hubbub"
    alice.handle(Disconnected(PASSWORD, "Wrong password."))
    assert alice.chat.title == "(2!) Disconnected — Office — Hubbub"


@pytest.mark.parametrize(
    "line",
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
def test_names_that_are_none_do_no_harm(alice, line):
    alice.type("@bob hi")
    for conversation in list(alice.chat.conversations):
        alice.do(alice.chat.do(NOW, alice.chat.select, conversation))
        alice.hear(line)
        alice.type("/me waves")
    assert all(map(protocol.is_middle, alice.names))


@pytest.mark.parametrize(
    "line",
    [
        ":alice!a@h JOIN #room%d",
        ":alice!a@h JOIN #lobby",
        ":hub 353 alice = #room%d :a b",
        ":hub 005 alice TOKEN%d=1 :are supported",
        ":hub 730 alice :u%d!u@h",
        ":u%d!u@h PRIVMSG alice :hi",
        ":hub BATCH +%d chathistory #lobby",
        ":hub 353 alice = #lobby :u%d",
        ":u%d!u@h JOIN #lobby",
        ":hub 352 alice #lobby u h hub u%d G :0 U",
        ":hub 322 alice #room%d 1 :Topic",
        ":hub CAP alice NEW :cap%d",
    ],
)
def test_no_server_can_fill_the_memory(line, monkeypatch):
    for limit in ("MAX_CONVERSATIONS", "MAX_STRANGERS", "MAX_UNASKED", "MAX_MEMBERS"):
        monkeypatch.setattr(client, limit, 5)
    alice = User(CAPS).join()
    for number in range(1000):
        alice.hear(line.replace("%d", str(number)), ":alice!a@h JOIN #r", ":alice!a@h PART #r")
    chat = alice.chat
    owners = [chat, chat.session, chat.outbox, chat.history, *chat.conversations]
    kept = [(name, value) for owner in owners for name, value in vars(owner).items()]
    sizes = {name: len(value) for name, value in kept if isinstance(value, (list, dict, set))}
    assert [name for name in sizes if sizes[name] > 15 and name != "entries"] == []


COMMANDS = "PRIVMSG NOTICE JOIN PART QUIT NICK TOPIC KICK MODE CAP ERROR FAIL PONG 1 X".split()
COMMANDS += "BATCH AWAY ACK INVITE REGISTER CHATHISTORY SEARCH".split()
NUMERICS = "001 005 305 332 333 352 353 366 372 376 401 403 404 421 433 474 730 731 903 999".split()
WORDS = st.sampled_from(
    "alice|bob|#lobby||#|@|{}|{0.x}|%s|a b|\x01|+x|-x|+o|chathistory|soju.im/search".split("|")
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
EVENTS = st.sampled_from(
    [
        Disconnected(LOST, ""),
        Lost("gone"),
        Connected("alice"),
        Connected(
            "alice", frozenset("echo-message draft/chathistory batch soju.im/search".split()), 2
        ),
    ]
)
TYPED = st.sampled_from("hi|@bob hi|/join #a|/leave|/list|/history|/nick bob|/search hi".split("|"))


@given(st.lists(MESSAGES | EVENTS | TYPED))
def test_whatever_a_server_says_the_chat_goes_on(events):
    alice = User("echo-message draft/chathistory labeled-response soju.im/search").join()
    for event in events:
        if isinstance(event, str):
            alice.type(event)
        else:
            alice.handle(event)
        for conversation in alice.chat.conversations:
            alice.do(alice.chat.do(NOW, alice.chat.fetch_older, conversation))
        for result in alice.chat.lookup.results[:1]:
            alice.do(alice.chat.do(NOW, alice.chat.reveal, result))
    assert alice.chat.current in alice.chat.conversations
    text = "".join(map(str, alice.lines))
    assert {unicodedata.category(char) for char in text}.isdisjoint({"Cc", "Cs", "Zl", "Zp"})


# Own messages


def test_own_message_shows_at_once_and_is_confirmed_by_its_echo(alice):
    assert alice.type("Hello") == ["<[alice]: Hello>"]
    echo = "@msgid=7;time=2026-11-22T17:10:50.000Z :alice!a@h PRIVMSG #lobby :Hello"
    alice.changes = []
    assert alice.hear(echo) == []
    entry = alice.chat.current.entries[-1]
    assert (shown(entry), entry.line.when, entry.is_own) == ("[alice]: Hello", NOW + 8, True)
    assert [(c.kind, c.entries) for c in alice.changes] == [(client.CHANGED, [entry])]


def test_own_message_moves_to_where_the_server_puts_it(alice):
    alice.type("mine")
    alice.hear(":bob!b@h PRIVMSG #lobby :his")
    assert alice.seen()[-2:] == ["<[alice]: mine>", "[bob]: his"]
    alice.changes = []
    alice.hear(":alice!a@h PRIVMSG #lobby :mine")
    assert alice.seen()[-2:] == ["[bob]: his", "[alice]: mine"]
    assert [c.kind for c in alice.changes] == [client.REMOVED, client.ADDED]


def test_without_echoes_a_pong_confirms():
    alice = User("").join()
    alice.type("Hello")
    alice.type("@dave psst")
    assert alice.all_sent == [
        "MODE #lobby",
        "PRIVMSG #lobby :Hello",
        "PING sent-1",
        "PRIVMSG dave :psst",
        "PING sent-2",
    ]
    alice.hear(":hub PONG hub :sent-1", ":hub 401 alice dave :No such nick", ":hub PONG h :sent-2")
    assert alice.seen()[-3:] == [
        "[alice]: Hello",
        "![you -> dave]: psst (not delivered)!",
        "[SERVER]: No such user: dave",
    ]


def test_labels_tell_equal_messages_apart():
    alice = User("echo-message labeled-response batch message-tags").join()
    alice.type("@bob ha")
    alice.type("@bob ha")
    assert alice.sent == ["@label=m1 PRIVMSG bob :ha", "@label=m2 PRIVMSG bob :ha"]
    alice.hear("@label=m2 :alice!a@h PRIVMSG bob :ha")
    assert alice.seen()[-2:] == ["<[you -> bob]: ha>", "[you -> bob]: ha"]
    alice.hear("@label=m1 :hub 404 alice bob :No")
    assert alice.seen()[-3] == "![you -> bob]: ha (not delivered)!"


@pytest.mark.parametrize("caps", ["", "echo-message", "echo-message labeled-response"])
def test_message_to_oneself_is_shown_once(caps):
    alice = User(caps).join()
    alice.type("@alice note")
    label = "@label=m1 " if "labeled" in caps else ""
    copies = [label + ":alice!a@h PRIVMSG alice :note", ":alice!a@h PRIVMSG alice :note"]
    alice.hear(*copies["echo" not in caps :], ":hub PONG hub :sent-1")
    assert alice.seen("alice") == ["[you -> alice]: note"]


def test_refused_message_can_be_retried_or_discarded(alice):
    failed = lambda: [e for e in alice.chat.current.entries if e.delivery in client.FAILED][-1]  # noqa: E731
    alice.type("@dave hi")
    alice.hear(":hub 401 alice dave :No such nick")
    first = failed()
    alice.do(alice.chat.do(NOW, alice.chat.retry, first))
    assert alice.sent == ["PRIVMSG dave :hi"] * 2
    assert alice.seen()[-1] == "<[you -> dave]: hi>"
    alice.hear(":hub 401 alice dave :No such nick")
    alice.do(alice.chat.do(NOW, alice.chat.discard, failed()))
    assert not any("hi" in line for line in alice.seen())
    alice.do(alice.chat.do(NOW, alice.chat.retry, first))
    assert alice.sent == []


def test_message_to_a_channel_that_was_left_is_not_retried(alice):
    alice.type("hi")
    alice.hear(":hub 404 alice #lobby :Cannot send", ":bob!b@h KICK #lobby alice")
    (failed,) = [e for e in alice.chat.current.entries if e.delivery in client.FAILED]
    answer = alice.do(alice.chat.do(NOW, alice.chat.retry, failed))
    assert answer == ["[SERVER]: You are not in #lobby. Type /join #lobby"]
    assert "![alice]: hi (not delivered)!" in alice.seen()
    alice.hear(":alice!a@h JOIN #lobby")
    alice.do(alice.chat.do(NOW, alice.chat.retry, failed))
    assert alice.sent == ["PRIVMSG #lobby :hi"] * 2


def test_message_that_waits_for_the_history_fails_when_the_channel_removes_the_user(kept):
    kept.type("hi")
    kept.lose()
    kept.connect()
    kept.hear(*WELCOME, ":bob!b@h KICK #lobby alice", *history("#lobby"))
    assert "![alice]: hi (may not have arrived)!" in kept.seen()


def test_unknown_channel_is_not_called_a_user(alice):
    assert alice.hear(":hub 401 alice #nope :No such nick") == ["[SERVER]: No such room: #nope"]


@pytest.mark.parametrize(
    ("caps", "words"), [("", ""), (client.RESUME_CAP, " Messages wait only for registered names.")]
)
def test_absent_user_is_not_here_in_their_conversation(caps, words):
    """Elsewhere the name may be a slip. Only servers of ours let messages wait."""
    alice = User(caps).join()
    alice.chat.do(NOW, alice.chat.open, "dave")
    alice.type("hi")
    answer = alice.hear(":hub 401 alice dave :No such nick")
    assert answer[-1] == "[SERVER]: dave is not here." + words


def test_misspelt_nickname_is_answered_with_a_guess(alice):
    alice.hear(":robert!r@h JOIN #lobby")
    alice.type("@robrt hi")
    answer = alice.hear(":hub 401 alice robrt :No such nick")
    assert answer == ["[SERVER]: No such user: robrt. Did you mean robert?"]


# Conversations


def test_console_gives_its_entries_to_the_first_channel():
    alice = User()
    assert alice.chat.current.kind == client.CONSOLE
    alice.connect()
    alice.hear(*WELCOME[:2])
    assert alice.chat.current.name == "Office"
    alice.hear(*WELCOME[2:])
    assert alice.names == ["#lobby"]
    assert alice.seen()[0] == "[SERVER]: Welcome to Office, alice. Type /help for commands."
    alice.hear(":alice!a@h PART #lobby")
    assert alice.chat.current.kind == client.CONSOLE


def test_message_typed_on_the_console_is_confirmed_in_the_first_channel():
    alice = User()
    alice.connect()
    alice.type("@bob hi")
    alice.hear(":hub 376 alice :End", *WELCOME[2:])
    alice.changes = []
    alice.hear(":alice!a@h PRIVMSG bob :hi")
    changed = {change.conversation.name for change in alice.changes if change.entries}
    assert changed == {"#lobby", "bob"}
    assert "[you -> bob]: hi" in alice.seen()


def test_same_words_of_another_day_do_not_stand_for_an_uncertain_message(kept):
    kept.hear("@time=2026-11-22T17:00:00.000Z;msgid=5 :bob!b@h PRIVMSG #lobby :hi")
    kept.type("@bob ok")
    kept.lose()
    kept.join()
    old = "msgid=3;time=2026-11-21T17:00:00.000Z :alice!a@h PRIVMSG bob :ok"
    kept.hear(*history("bob", old))
    assert "![you -> bob]: ok (may not have arrived)!" in kept.seen()
    assert kept.seen("bob")[0] == "[you -> bob]: ok"


@pytest.mark.parametrize(("msgid", "is_sent_again"), [("9", False), ("6", True)])
def test_number_decides_if_words_are_those_of_an_uncertain_message(kept, msgid, is_sent_again):
    """Also where the server's clock was set back."""
    kept.hear("@time=2026-11-22T17:10:43.000Z;msgid=7 :bob!b@h PRIVMSG #lobby :before")
    kept.type("hi")
    kept.lose()
    kept.join()
    kept.all_sent  # noqa: B018
    own = "time=2026-11-22T15:00:00.000Z;msgid=%s :alice!a@h PRIVMSG #lobby :hi" % msgid
    end = "time=2026-11-22T15:00:00.000Z;msgid=7 :bob!b@h PRIVMSG #lobby :before"
    kept.hear(*history("#lobby", *sorted([own, end])))
    assert (TO_ALL in [line.partition(" ")[2] for line in kept.sent]) == is_sent_again


def test_known_words_do_not_stand_for_an_uncertain_message(kept):
    kept.type("@bob ok")
    kept.hear("@time=2026-11-22T17:00:00.000Z;msgid=5 :alice!a@h PRIVMSG bob :ok")
    kept.do(kept.chat.do(NOW, kept.chat.leave, kept.chat.conversation_named("bob")))
    kept.type("@bob ok")
    kept.lose()
    kept.join()
    said = "msgid=%d;time=2026-11-22T17:00:00.000Z :alice!a@h PRIVMSG bob :ok"
    kept.hear(*history("bob", said % 5))
    assert "![you -> bob]: ok (may not have arrived)!" in kept.seen()


@pytest.mark.parametrize("is_late", [True, False])
def test_history_that_nobody_waits_for_is_no_news(kept, is_late):
    kept.hear("@time=2026-11-22T17:00:00.000Z;msgid=9 :bob!b@h PRIVMSG #lobby :now")
    kept.do(kept.chat.do(NOW, kept.chat.set_focus, False))
    answer = history("#lobby", "msgid=7;time=2026-11-22T16:00:00.000Z :bob!b@h PRIVMSG #lobby :old")
    if is_late:
        kept.type("/history 5")
        kept.hear(answer[0])
        kept.do(kept.chat.do(NOW + client.HISTORY_TIME + 1, kept.chat.tick))
        answer = answer[1:]
    kept.hear(*answer)
    assert [text for text in kept.seen() if "bob]" in text] == ["[bob]: old", "[bob]: now"]
    assert kept.chat.current.unread == 0


def test_unasked_history_confirms_no_message_that_is_on_its_way(kept):
    kept.type("hello")
    kept.hear(*history("#lobby", "msgid=7 :alice!a@h PRIVMSG #lobby :hello"))
    assert kept.seen()[-1] == "<[alice]: hello>"


def test_channel_that_is_left_and_entered_again_at_once_stays(alice):
    alice.hear(":alice!a@h JOIN #tea")
    alice.do(alice.chat.do(NOW, alice.chat.select, alice.chat.conversation_named("#tea")))
    for text in ("/leave", "/join tea", "hello"):
        alice.type(text)
    alice.hear(":alice!a@h PART #tea", ":alice!a@h JOIN #tea", ":alice!a@h PRIVMSG #tea :hello")
    assert alice.chat.current.name == "#tea"
    assert alice.seen("#tea")[-1] == "[alice]: hello"


def test_without_a_channel_one_can_write_to_a_user():
    alice = User()
    alice.connect()
    assert "@USERNAME" in alice.refusal("hello?")
    alice.type("@bob hello")
    assert alice.sent == []
    alice.hear(":hub 422 alice :No MOTD")
    assert alice.sent == ["PRIVMSG bob :hello"]


def test_typed_join_brings_the_channel_up_at_once(alice):
    alice.type("/join tea")
    alice.type("hello")
    assert alice.chat.current.name == "#tea"
    assert alice.sent == ["JOIN #tea", "PRIVMSG #tea :hello"]
    alice.hear(":alice!a@h JOIN #tea", ":alice!a@h PRIVMSG #tea :hello")
    assert alice.seen("#tea")[-1] == "[alice]: hello"
    alice.hear(":alice!a@h JOIN #forced")  # the server's idea: the view stays
    assert alice.chat.current.name == "#tea"
    alice.type("/join #lobby")
    assert alice.chat.current.name == "#lobby"
    alice.all_sent  # noqa: B018
    alice.type("to the room in view")
    assert alice.sent == ["PRIVMSG #lobby :to the room in view"]


def test_refused_join_says_nothing_elsewhere(alice):
    for text in ("/join tea", "secret", "/me whispers"):
        alice.type(text)
    alice.hear(":hub 473 alice #tea :Invite only")
    alice.hear(*[":hub 404 alice #tea :Cannot send"] * 2)
    assert "![alice]: secret (not delivered)!" in alice.seen("#tea")
    alice.type("/join cup")
    assert alice.hear(":hub 474 alice #cup :Banned")[-1].startswith("[SERVER]: You are banned")
    assert "You are not in #cup. Type /join #cup" in alice.refusal(
        "typed before the answer was read"
    )
    assert not any("typed" in line or "secret" in line for line in alice.seen())
    alice.type("/leave")
    assert alice.names == ["#lobby", "#tea"]
    assert not any(line.startswith("PART") for line in alice.sent)


def test_leaving_removes_the_conversation(alice):
    alice.do(alice.chat.do(NOW, alice.chat.open, "bob"))
    assert alice.chat.current.name == "bob"
    alice.type("/leave")
    assert (alice.names, alice.sent) == (["#lobby"], [])
    alice.hear(":alice!a@h JOIN #tea", ":alice!a@h JOIN #cup")
    alice.do(alice.chat.do(NOW, alice.chat.leave, alice.chat.conversation_named("#tea")))
    alice.do(alice.chat.do(NOW, alice.chat.open, "#cup"))
    alice.type("/leave")
    assert (alice.names, alice.sent) == (["#lobby"], ["PART #tea", "PART #cup"])
    assert alice.hear(":alice!a@h PART #tea") == ["[SERVER]: alice left #tea"]


def leave_by_menu(user, reason):
    user.do(user.chat.do(NOW, user.chat.leave, user.chat.current))


def leave_by_typing(user, reason):
    user.type("/leave " + reason)


@pytest.mark.parametrize("leave", [leave_by_menu, leave_by_typing])
@pytest.mark.parametrize(
    ("before", "sent"),
    [
        ([], ["PART #tea"]),
        ([":op!o@h KICK #tea alice :out"], []),  # the server would refuse PART
        ([":hub NOTICE alice :bye"], ["PART #tea"]),
        (None, []),  # not connected
    ],
)
def test_channel_is_left_in_one_way(alice, leave, before, sent):
    alice.hear(":alice!a@h JOIN #tea")
    alice.do(alice.chat.do(NOW, alice.chat.open, "#tea"))
    if before is None:
        alice.lose()
    else:
        alice.hear(*before)
    leave(alice, "")
    assert (alice.names, alice.sent) == (["#lobby"], sent)


def test_channel_that_is_left_before_its_join_is_answered_stays_away(kept):
    for text in ("/join #tea", "/leave", "hi"):
        kept.type(text)
    assert kept.sent[:2] == ["JOIN #tea", "PART #tea"]
    kept.hear(":alice!a@h JOIN #tea", ":hub 332 alice #tea :Green", ":hub 366 alice #tea :End")
    assert (kept.names, kept.all_sent) == (["#lobby"], [])
    assert not any("Green" in line for line in kept.seen())
    assert kept.hear(":alice!a@h PART #tea") == ["[SERVER]: alice left #tea"]
    kept.type("/join #tea\n/leave\n/join #tea")
    kept.hear(":alice!a@h JOIN #tea", ":alice!a@h PART #tea", ":alice!a@h JOIN #tea")
    assert kept.names == ["#lobby", "#tea"]


def test_reason_for_leaving_is_sent(alice):
    alice.type("/leave see you")
    assert alice.sent == ["PART #lobby :see you"]


def test_channel_left_without_a_connection_is_left_when_the_session_resumes(alice):
    alice.hear(":alice!a@h JOIN #tea")
    alice.lose()
    alice.do(alice.chat.do(NOW, alice.chat.leave, alice.chat.conversation_named("#tea")))
    alice.join(is_resumed=True)
    alice.hear(":alice!a@h JOIN #tea")
    assert (alice.names, alice.sent) == (["#lobby"], ["PART #tea"])
    alice.hear(":alice!a@h PART #tea")
    alice.type("/join #tea")
    alice.hear(":alice!a@h JOIN #tea")
    assert alice.names == ["#lobby", "#tea"]


def test_channels_stand_before_private_conversations(alice):
    alice.do(alice.chat.do(NOW, alice.chat.open, "zoe"))
    alice.hear(":alice!a@h JOIN #tea", ":bob!b@h PRIVMSG alice :hi")
    assert alice.names == ["#lobby", "#tea", "zoe", "bob"]


def test_private_message_is_one_entry_in_both_conversations(alice):
    alice.hear(":bob!b@h PRIVMSG alice :psst")
    assert alice.chat.conversation_named("bob").entries[0] is alice.chat.current.entries[-1]
    alice.type("@bob what?")
    assert alice.seen("bob")[-1] == alice.seen()[-1] == "<[you -> bob]: what?>"
    alice.hear(":alice!a@h PRIVMSG bob :what?")
    assert alice.seen("bob")[-1] == alice.seen()[-1] == "[you -> bob]: what?"
    assert (
        alice.chat.conversation_named("bob").unread,
        alice.chat.conversation_named("bob").mentions,
    ) == (0, 0)  # it is read


def test_private_conversation_begins_when_the_first_message_is_delivered(alice):
    alice.type("@zoe hi")
    assert alice.names == ["#lobby"]
    alice.hear(":alice!a@h PRIVMSG zoe :hi")
    assert alice.seen("zoe") == ["[you -> zoe]: hi"]


def test_text_in_a_private_conversation_goes_to_that_user(alice):
    alice.do(alice.chat.do(NOW, alice.chat.open, "bob"))
    alice.type("hello")
    alice.type("/me waves")
    alice.type("/list")
    assert alice.sent == ["PRIVMSG bob :hello", "PRIVMSG bob :\x01ACTION waves\x01", "NAMES #lobby"]


@pytest.mark.parametrize("typed", ["/kick bob", "/topic Tea", "/topic", " /KICK bob"])
def test_commands_for_rooms_are_for_the_room_in_view(alice, typed):
    alice.hear(":alice!a@h JOIN #tea")
    alice.do(alice.chat.do(NOW, alice.chat.open, "bob"))
    words = "/%s is for rooms. Go to the room first." % typed.lower().split()[0][1:]
    assert alice.refusal(typed) == words


def test_renamed_user_keeps_the_conversation(kept):
    kept.hear(":bob!b@h PRIVMSG alice :hi")
    kept.do(kept.chat.do(NOW, kept.chat.open, "zoe"))
    kept.hear(":bob!b@h NICK rob", ":zoe!z@h NICK zia")  # while zoe's history is on its way
    assert kept.names == ["#lobby", "rob", "zia"]
    assert kept.chat.conversation_named("rob").entries[-1].text == "[SERVER]: bob is now called rob"
    kept.hear(*history("zia"))
    assert kept.chat.history.requests == []


def test_news_are_counted_and_marked_until_seen(alice):
    alice.do(alice.chat.do(NOW, alice.chat.open, "zoe"))
    room = alice.chat.conversation_named("#lobby")
    alice.hear(":bob!b@h PRIVMSG #lobby :one", ":bob!b@h PRIVMSG #lobby :alice: two")
    alice.hear(":carol!c@h JOIN #lobby")
    assert (room.unread, room.mentions, room.new_count) == (2, 1, 2)
    first = room.mark
    assert [entry.text for entry in room.entries if entry is first] == ["[bob]: one"]
    alice.do(alice.chat.do(NOW, alice.chat.select, room))
    assert (room.unread, room.mentions, room.new_count, room.mark) == (0, 0, 2, first)
    alice.changes = []
    alice.type("aha")
    assert (room.new_count, room.mark) == (0, None)
    assert first in [change.entries[0] for change in alice.changed(client.CHANGED)]


def test_news_in_view_are_marked_while_the_window_has_no_focus(alice):
    room = alice.chat.current
    alice.do(alice.chat.do(NOW, alice.chat.set_focus, False))
    alice.hear(":bob!b@h PRIVMSG #lobby :one")
    assert (room.unread, room.new_count) == (1, 1)
    alice.do(alice.chat.do(NOW, alice.chat.set_focus, True))
    assert (room.unread, room.new_count) == (0, 1)
    alice.do(alice.chat.do(NOW, alice.chat.set_focus, False))
    assert (room.new_count, room.mark) == (0, None)


@pytest.mark.parametrize(
    ("level", "texts"),
    [(client.ALL, ["one", "alice: two"]), (client.MENTIONS, ["alice: two"]), (client.NONE, [])],
)
def test_alerts_follow_the_level_of_the_conversation(alice, level, texts):
    room = alice.chat.current
    lines = [":bob!b@h PRIVMSG #lobby :one", ":bob!b@h PRIVMSG #lobby :alice: two"]
    alice.do(alice.chat.do(NOW, alice.chat.set_level, room, level))
    alice.hear(*lines)
    assert alice.changed(client.ALERT) == []
    alice.do(alice.chat.do(NOW, alice.chat.set_focus, False))
    alice.hear(*lines)
    alerts = alice.changed(client.ALERT)
    assert [entry.line.text for alert in alerts for entry in alert.entries] == texts


@pytest.mark.parametrize(
    ("text", "is_mention"),
    [
        *dict.fromkeys(["alice", "hey ALICE!", "@alice, look", "alice's"], True).items(),
        *dict.fromkeys(["bob/alice: look", "so.. alice...", "http://a/ alice?"], True).items(),
        *dict.fromkeys(["malice", "alice2", "al ice", ""], False).items(),
        *dict.fromkeys(
            ["http://alice.example/", "HTTPS://a/alice", "(irc://alice)"], False
        ).items(),
        *dict.fromkeys(
            ["bob@alice", "to alice@a.example", "www.alice", "alice.org"], False
        ).items(),
    ],
)
def test_mention_is_the_nickname_as_a_word(alice, text, is_mention):
    alice.hear(":bob!b@h PRIVMSG #lobby :" + text)
    assert alice.chat.current.entries[-1].is_mention == is_mention


def test_oldest_entries_go_but_not_own_unsent_ones(kept, monkeypatch):
    monkeypatch.setattr(client, "MAX_ENTRIES", 100)
    kept.type("refused")
    kept.hear(":hub 404 alice #lobby :Cannot send to channel")
    kept.type("on its way")
    kept.hear(*["@msgid=%d :bob!b@h PRIVMSG #lobby :%d" % (n, n) for n in range(1000)])
    room = kept.chat.current
    assert len(room.entries) <= 110
    assert kept.seen()[:2] == ["![alice]: refused (not delivered)!", "<[alice]: on its way>"]
    assert room.entries[-1].line.text == "999"
    assert (room.has_older, room.knows("1"), room.knows("999")) == (True, False, True)
    assert replay(kept.changes, room) == room.entries
    kept.hear(":alice!a@h PRIVMSG #lobby :on its way")
    assert kept.seen()[-1] == "[alice]: on its way"


def test_strangers_cannot_fill_the_list(alice, monkeypatch):
    monkeypatch.setattr(client, "MAX_STRANGERS", 2)
    alice.hear(*[":u%d!u@h PRIVMSG alice :hi %d" % (n, n) for n in range(5)])
    assert alice.names == ["#lobby", "u0", "u1"]
    assert alice.seen()[-1] == "[u4 -> you]: hi 4"
    alice.do(alice.chat.do(NOW, alice.chat.set_focus, False))
    alice.changes = []
    alice.hear(":u5!u@h PRIVMSG alice :hi 5")
    room = alice.chat.current
    assert (room.unread, room.mentions) == (1, 1)
    assert [c.conversation.name for c in alice.changed(client.ALERT)] == ["#lobby"]
    alice.do(alice.chat.do(NOW, alice.chat.open, "u4"))  # the user's own wish is another matter
    assert alice.names == ["#lobby", "u0", "u1", "u4"]


def test_entries_that_are_gone_are_not_known(alice, monkeypatch):
    monkeypatch.setattr(client, "MAX_ENTRIES", 20)
    room = alice.chat.current
    for number in range(100):
        text = ("JOIN #lobby", "PART #lobby", "PRIVMSG #lobby :hi")[number // 10 % 3]
        alice.hear("@msgid=m%d :p%d!u@h %s" % (number, number, text))
        here = {entry.msgid for entry in room.entries if entry.msgid}
        assert room._known.keys() == here
    assert replay(alice.changes, room)[-5:] == room.entries[-5:]


def test_mark_of_what_is_new_moves_on_when_its_entry_goes(alice, monkeypatch):
    monkeypatch.setattr(client, "MAX_ENTRIES", 20)
    alice.do(alice.chat.do(NOW, alice.chat.set_focus, False))
    alice.hear(*[":bob!b@h PRIVMSG #lobby :%d" % number for number in range(50)])
    room = alice.chat.current
    assert (room.mark, room.new_count) == (room.entries[0], 50)


def test_crowd_that_comes_or_goes_is_one_entry(alice):
    before = len(alice.seen())
    for number in range(client.CROWD - 1):
        alice.hear(":p%d!u@h JOIN #lobby" % number)
    assert alice.seen()[before:] == ["[SERVER]: p%d joined the chat" % n for n in range(4)]
    for number in range(client.CROWD - 1, 37):
        alice.hear(":p%d!u@h JOIN #lobby" % number)
    assert alice.seen()[before:] == ["[SERVER]: 37 people joined"]
    alice.hear(":p0!u@h PRIVMSG #lobby :So many!")
    for number in range(9):
        alice.hear(":p%d!u@h QUIT :" % number)
    assert alice.seen()[before:] == [
        "[SERVER]: 37 people joined",
        "[p0]: So many!",
        "[SERVER]: 9 people left",
    ]
    assert replay(alice.changes, alice.chat.current) == alice.chat.current.entries


def replay(changes, conversation):
    """Return the entries of a view that has applied the changes to a conversation in order."""
    entries = []
    for kind, place, changed, before in changes:
        if place is not conversation:
            continue
        if kind == client.ADDED:
            index = entries.index(before) if before else len(entries)
            entries[index:index] = changed
        elif kind == client.REMOVED:
            entries = [entry for entry in entries if entry not in changed]
    return entries


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
def test_tab_completes_nicknames_channels_and_commands(alice, before, after):
    cursor = before.index("|")
    found = alice.chat.completer.complete(before.replace("|", ""), cursor)
    assert (found and found[0][: found[1]] + "|" + found[0][found[1] :]) == after


def test_tab_goes_through_all_possibilities_and_back(alice):
    alice.hear(":bert!b@h JOIN #lobby", ":boris!b@h JOIN #lobby", ":bob!b@h PRIVMSG #lobby :hi")
    found, texts = ("b", 1), []
    for step in (1, 1, 1, 1, -1):
        found = alice.chat.completer.complete(*found, step)
        texts.append(found[0])
    assert texts == ["bob: ", "bert: ", "boris: ", "bob: ", "boris: "]  # the last speaker first
    assert alice.chat.completer.complete("ber", 3) == ("bert: ", 6)
    assert alice.chat.completer.complete("b", 1, -1) == ("boris: ", 7)


def test_in_a_crowd_of_a_hundred_thousand_tab_and_guess_take_under_50_ms(alice):
    names = ["user%05d" % number for number in range(99000)] + ["rosalind"]
    random.Random(1).shuffle(names)
    for start in range(0, len(names), 40):
        alice.hear(":hub 353 alice = #lobby :" + " ".join(names[start : start + 40]))
    alice.hear(":hub 366 alice #lobby :End of /NAMES list")

    def seconds(step):
        """The shortest of three times, as other programs run, too."""
        times = []
        for _ in range(3):
            start = time.thread_time()
            step()
            times.append(time.thread_time() - start)
        return min(times)

    def misspell():
        alice.chat.do(NOW, alice.chat.submit, "@rosalinf hi")
        answer[:] = alice.hear(":hub 401 alice rosalinf :No such nick")

    answer = []
    assert seconds(lambda: alice.chat.completer.complete("u", 1)) < 0.05
    assert seconds(lambda: alice.chat.completer.complete("user4711", 8)) < 0.05
    assert alice.chat.completer.complete("user4711", 8) == ("user47110: ", 11)
    assert seconds(misspell) < 0.05
    assert answer == ["[SERVER]: No such user: rosalinf. Did you mean rosalind?"]


def test_search_finds_all_places_ignoring_case(alice):
    alice.hear(":bob!b@h PRIVMSG #lobby :The cat. the CAT")
    alice.hear(":bob!b@h PRIVMSG #lobby :Straße 😀 the")
    room = alice.chat.current

    def found(words):
        return [e.text[start:end] for e, (start, end) in room.find(words)]

    assert found("the")[-3:] == ["The", "the", "the"]
    assert found("STRASSE") == ["Straße"]
    assert found("t.") == ["t."]
    alice.hear(":bob!b@h PRIVMSG #lobby :Ein naïves Café x\u0303 in İstanbul, Straße")
    assert found("istanbul") == found("İSTANBUL") == ["İstanbul"]
    assert found("cafe") == found("CAFÉ") == found("cafe\u0301") == ["Café"]
    assert found("naive") == ["naïve"]
    assert found("x i") == ["x\u0303 i"]
    assert found("x")[-1] == "x\u0303"
    assert found("stras")[-1] == "Straß"
    assert found("\u0301") == []
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
def test_links_are_found_without_the_punctuation_after_them(text, links):
    assert [text[start:end] for start, end in client.find_links(text)] == links


# When the connection is lost


def test_end_of_the_chat_is_not_called_a_lost_connection(alice):
    """It may only be started anew: it is looked for again."""
    lines = ["[SYSTEM]: The host has ended the chat. Messages you send now wait here."]
    assert alice.lose(reason=protocol.CHAT_ENDED) == lines
    words = "The host has ended the chat. Looking for it again in 4 s (attempt 3)."
    assert alice.lose(attempt=3, seconds=3.7) == []
    assert alice.chat.banner(NOW) == words
    alice.connect()
    alice.lose()
    assert alice.chat.banner(NOW) == "Connection lost. Trying again now (attempt 1)."


def test_server_that_is_full_is_not_called_a_lost_connection(alice):
    alice.lose()
    alice.handle(Lost("Office is full (10 {people}). Try again later.", 2, 3.7, True))
    words = "Office is full (10 {people}). Try again later. Trying again in 4 s (attempt 2)."
    assert alice.chat.banner(NOW) == words


@pytest.mark.parametrize("fault", [client.REJECTED, client.TRUST])
def test_nothing_goes_by_itself_after_the_user_was_turned_away(alice, fault):
    """The user may be let in again, an hour later, or trust another server at the address."""
    alice.type("in flight")
    alice.lose()
    alice.type("written here")
    reason = "You are banned, by root: noise."
    assert alice.handle(Disconnected(fault, reason)) == ["[SYSTEM]: " + reason]
    states = [item.entry.delivery for item in alice.chat.outbox.items]
    assert states == [client.UNKNOWN, client.REFUSED] and alice.chat.unsent == 0
    alice.join()
    assert str(alice.sent).count("PRIVMSG") == 1


@pytest.mark.parametrize(
    ("name", "is_another"), [("Parents\\x20evening", True), ("Office", False), ("", False)]
)
def test_nothing_goes_by_itself_to_another_chat_at_the_address(alice, name, is_another):
    alice.lose()
    alice.type("for the class")
    alice.connect()
    shown = alice.hear(*[":hub 005 alice NETWORK=%s :are supported" % name] * bool(name))
    words = "[SYSTEM]: This chat is called Parents evening now."
    assert shown == [words] * is_another
    alice.hear(WELCOME[0], *WELCOME[2:])
    assert ("for the class" in str(alice.sent)) != is_another
    assert alice.chat.unsent == (not is_another)


def test_name_that_is_learned_late_holds_nothing(alice):
    """By a reconnect to a server whose name was not known, or once all is settled."""
    alice.type("in flight")
    alice.hear(":hub 005 alice NETWORK=Other :are supported")
    assert alice.chat.unsent == 1
    bob = User()
    bob.connect()
    bob.hear(*WELCOME[2:])
    bob.lose()
    bob.type("later")
    bob.join()
    assert "later" in str(bob.sent)


def test_banner_counts_down_and_says_when_it_is_over(alice):
    assert alice.chat.banner(NOW) == ""
    text = "[SYSTEM]: The connection was lost. Messages you send now wait here."
    assert alice.lose() == [text]
    assert alice.chat.banner(NOW) == "Connection lost. Trying again now (attempt 1)."
    assert alice.lose(attempt=3, seconds=3.7) == []
    assert alice.chat.banner(NOW) == "Connection lost. Trying again in 4 s (attempt 3)."
    assert alice.chat.hint == "Message #lobby — sent when back online"
    assert alice.connect() == ["[SYSTEM]: Connected again."]
    assert alice.chat.banner(NOW + 1) == "Connected again."
    assert alice.chat.banner(NOW + 4) == ""
    assert alice.chat.hint == "Message #lobby"
    assert alice.handle(Disconnected(CLOSED, "")) == []  # the user's own wish


STRANGER = "bob may be someone else than before."
NOT_SENT = (
    "[SYSTEM]: Not sent: %s Send it again if it is for the user who has this name now." % STRANGER
)


WHOIS_END = ":hub PONG hub :who"


def whois(*answers):
    """Return the answer to WHOIS bob, with its end after 318."""
    parts = (answer.partition(" ") for answer in answers)
    lines = [":hub %s alice bob %s :" % (number, rest) for number, _, rest in parts]
    return lines + [WHOIS_END] * ("318" in answers)


@pytest.mark.parametrize(
    ("answers", "is_sent"),
    [
        (["311 b h *", "317 9 %d" % (NOW + 59)], True),  # since when
        (["317 9 %d" % (NOW + 60)], False),  # in the same second, by another
        (["317 9 %d" % (NOW + 69)], False),
        (["317 9 %d" % (NOW + 69), "330 Bob"], False),  # the account may be new
        (["330 carol"], False),
        (["317 9 x", "671"], False),
        (["401"], True),  # the server refuses it, or keeps it for the account
        ([], False),
    ],
)
@pytest.mark.parametrize("is_resumed", [False, True])
@pytest.mark.parametrize("view", ["#lobby", "bob"])
def test_private_message_after_a_reconnect_is_for_the_same_user(
    alice, view, is_resumed, answers, is_sent
):
    """What has waited, and what is written afterwards."""
    alice.caps |= {client.RESUME_CAP}
    alice.hear("@time=2026-11-22T17:11:42.000Z :bob!b@h PRIVMSG #lobby :hi")
    alice.do(alice.chat.do(NOW, alice.chat.open, view))
    alice.lose()
    alice.type("@bob one")
    alice.do(alice.chat.do(NOW, alice.chat.open, "#lobby"))
    alice.type("to all")
    alice.join(is_resumed=is_resumed)
    alice.type("@bob two")
    sent = alice.all_sent
    assert [line for line in sent if "bob" in line] == ["WHOIS bob"]
    assert "PRIVMSG #lobby :to all" in sent
    before = alice.seen()
    alice.hear(*whois(*answers))
    assert alice.sent == []
    alice.hear(*whois("318"))
    private = ["PRIVMSG bob :one", "PRIVMSG bob :two"]
    assert alice.sent == (private if is_sent else [])
    assert str(alice.seen(view)).count(NOT_SENT) == (not is_sent)
    assert not any(
        " is in " in line or "seconds" in line for line in set(alice.seen()) - set(before)
    )
    if not is_sent:
        assert "![you -> bob]: one (not delivered)!" in alice.seen(view)
        failed = alice.chat.outbox.having(client.REFUSED)[0].entry
        alice.do(alice.chat.do(NOW, alice.chat.retry, failed))
        assert alice.sent == private[:1]


@pytest.mark.parametrize(
    "answer",
    [
        ":hub 263 alice WHOIS :Please wait a while and try again.",
        ":hub 318 alice b :End of /WHOIS list.",  # as it is spelled there
        ":hub 421 alice WHOIS :Unknown command",
        ":hub 317 alice bob 9 1 :seconds idle, signon time",  # not since it has the name
    ],
)
def test_message_waits_no_longer_than_for_the_answer_of_another_server(alice, answer):
    """Of two names, in order."""
    alice.hear("@time=2026-11-22T17:11:42.000Z :bob!b@h PRIVMSG #lobby :hi")
    for name in ("carol", "#lobby"):
        alice.do(alice.chat.do(NOW, alice.chat.open, name))
    alice.lose()
    alice.join()
    alice.type("@bob one\n@carol two")
    alice.hear(answer, WHOIS_END)
    assert NOT_SENT in alice.seen()
    alice.hear(":hub 330 alice carol carol :is logged in as", WHOIS_END)
    alice.type("@bob three")
    assert alice.sent == [
        "WHOIS bob",
        "WHOIS carol",
        "PRIVMSG carol :two",
        "PRIVMSG bob :three",
    ]


def test_only_names_from_before_the_loss_are_asked_about(alice):
    """Once, and while the connection lasts."""
    alice.lose()
    alice.join()
    alice.hear(":zoe!z@h JOIN #lobby")
    alice.type("@zoe welcome")
    assert alice.sent == ["PRIVMSG zoe :welcome"]
    alice.type("@bob one")
    assert alice.sent == ["WHOIS bob"]
    alice.lose()
    alice.join()
    alice.type("@bob two")
    assert alice.sent == ["WHOIS bob"]
    alice.hear(*whois("318"))
    alice.type("@bob three")
    assert alice.sent == ["PRIVMSG bob :three"]


@pytest.mark.parametrize("is_failed", [True, False])
def test_name_that_was_given_up_before_the_loss_is_asked_about(alice, is_failed):
    """Somebody may have taken it meanwhile."""
    if is_failed:
        alice.hear(":bob!b@h PART #lobby")
        alice.type("@bob psst")
        alice.hear(":hub 401 alice bob :No such nick")
    else:
        alice.hear(":bob!b@h QUIT :bye")
    alice.lose()
    if not is_failed:
        alice.type("@bob psst")
    alice.join()
    for item in alice.chat.outbox.having(client.REFUSED):
        alice.do(alice.chat.do(NOW, alice.chat.retry, item.entry))
    assert alice.sent == ["PRIVMSG bob :psst"] * is_failed + ["WHOIS bob"]


def test_message_waits_for_the_answer_about_its_name_though_the_user_has_left_it(alice):
    """Else the answer, that nobody has the name, would be taken for its refusal."""
    alice.hear(":carol!c@h JOIN #lobby", *TAKEN)
    alice.type("@bob one")
    alice.hear(":bob!c@h NICK carol")
    alice.type("@bob two")
    assert alice.sent == ["WHOIS bob"]
    alice.hear(*whois("401", "318"))
    assert alice.sent == ["PRIVMSG bob :one", "PRIVMSG bob :two"]
    assert not alice.chat.outbox.having(client.REFUSED)


def test_user_who_takes_a_doubtful_name_again_stays_in_doubt(alice):
    alice.hear(":carol!c@h JOIN #lobby", ":bob!b@h QUIT :bye")
    alice.lose()
    alice.join()
    alice.hear(":bob!c@h NICK carol")
    alice.type("@carol hi")
    alice.hear(":hub 330 alice carol carol :is logged in as", WHOIS_END)
    alice.hear(":carol!c@h NICK bob")
    alice.type("@bob psst")
    assert alice.sent == ["WHOIS carol", "PRIVMSG carol :hi", "WHOIS bob"]


def test_name_stays_in_doubt_until_the_user_was_told(alice):
    """What waited for it has followed its user to another name."""
    alice.lose()
    alice.join()
    alice.type("@bob one")
    alice.hear(":bob!b@h NICK rob", ":bob!x@h JOIN #lobby * :Bob", *whois("317 9 1", "318"))
    alice.type("@bob two")
    assert alice.sent == ["WHOIS bob", "WHOIS rob", "WHOIS bob"]


def test_name_stays_in_doubt_while_the_connection_is_lost_again(alice):
    """Its user has left in between, and another has it when it is seen next."""
    for here in ("bob", "carol", "carol"):
        alice.hear(":hub 353 alice = #lobby :alice " + here, ":hub 366 alice #lobby :End")
        alice.lose()
        alice.connect()
        alice.hear(*WELCOME[:3])
    alice.hear(":bob!b@h JOIN #lobby * :Bob")
    alice.type("@bob psst")
    assert alice.sent == ["WHOIS bob"]


def test_message_follows_a_user_who_is_renamed_before_the_name_is_known(alice):
    alice.lose()
    alice.join()
    alice.type("@bob one")
    alice.hear(":bob!b@h NICK rob", *whois("317 9 1", "318"))
    assert alice.sent == ["WHOIS bob", "WHOIS rob"]
    alice.hear(":hub 330 alice rob rob :is", ":hub 318 alice rob :End", WHOIS_END)
    assert alice.sent == ["PRIVMSG rob :one"]


def test_private_message_of_a_closed_conversation_that_is_not_sent_is_told(alice):
    alice.do(alice.chat.do(NOW, alice.chat.open, "bob"))
    alice.lose()
    alice.type("one")
    alice.do(alice.chat.do(NOW, alice.chat.leave, alice.chat.current))
    alice.join()
    alice.hear(*whois("318"))
    assert not any("PRIVMSG" in line for line in alice.sent)
    assert NOT_SENT in alice.seen()


def test_typed_while_disconnected_is_sent_when_the_channel_is_joined_again(alice):
    alice.lose()
    assert alice.type("later\n  on") == [
        "<[alice]: later (waiting to send)>",
        "<[alice]:   on (waiting to send)>",
    ]
    assert alice.chat.unsent == 2
    alice.connect()
    alice.type("too")
    assert alice.sent == []
    alice.hear(*WELCOME)
    assert alice.sent == [
        "PRIVMSG #lobby :later",
        "PRIVMSG #lobby :  on",
        "PRIVMSG #lobby :too",
    ]
    assert alice.seen()[-1] == "<[alice]: too>"


@pytest.mark.parametrize("typed", ["/list", "/nick alicia", "/join #tea"])
def test_commands_need_a_connection(alice, typed):
    alice.lose()
    assert "not connected" in alice.refusal(typed)
    alice.join()
    assert alice.sent == []


@pytest.mark.parametrize("typed", ["/help", "/quit", "/ignore bob"])
def test_commands_of_the_client_need_none(alice, typed):
    alice.lose()
    outcome = alice.chat.do(NOW, alice.chat.submit, typed)
    assert outcome.changes or outcome.is_done


def test_without_a_history_nothing_is_sent_twice(alice):
    alice.type("first")
    alice.type("@bob second")
    alice.hear(":alice!a@h PRIVMSG #lobby :first")
    alice.all_sent  # noqa: B018
    alice.lose()
    assert alice.seen()[-2] == "<[you -> bob]: second (waiting to send)>"
    alice.join()
    assert alice.sent == []
    assert "![you -> bob]: second (may not have arrived)!" in alice.seen()


@pytest.mark.parametrize(
    ("typed", "refusal"),
    [
        ("@dave hi", ":hub 401 alice dave :No such nick"),
        ("hi", ":hub 404 alice #lobby :Cannot send to channel"),
        ("hi", ":hub 403 alice #lobby :No such channel"),
    ],
)
def test_refused_message_is_not_sent_again(alice, typed, refusal):
    alice.type(typed)
    alice.hear(refusal)
    assert len(alice.sent) == 1
    alice.lose()
    alice.join()
    assert alice.sent == []


def test_echo_in_the_recipients_spelling_confirms(alice):
    alice.type("@BOB psst")
    alice.hear(":alice!a@h PRIVMSG bob :psst")
    assert alice.chat.unsent == 0


def test_leaving_a_channel_drops_what_waits_for_it(alice):
    alice.hear(":alice!a@h JOIN #tea")
    alice.do(alice.chat.do(NOW, alice.chat.select, alice.chat.conversation_named("#tea")))
    alice.lose()
    alice.type("later")
    alice.do(alice.chat.do(NOW, alice.chat.leave, alice.chat.current))
    assert alice.chat.unsent == 0
    alice.join()
    assert alice.sent == []


def test_channels_are_joined_again_with_their_keys(alice):
    alice.type("/join tea earlgrey")
    alice.hear(":alice!a@h JOIN #tea", ":alice!a@h JOIN #chess")
    alice.all_sent  # noqa: B018
    alice.lose()
    alice.connect()
    alice.hear(*WELCOME)
    assert alice.sent == ["JOIN #tea :earlgrey", "JOIN #chess"]
    assert alice.hear(":alice!a@h JOIN #tea") == []
    assert alice.chat.current.name == "#tea"


@pytest.mark.parametrize("answer", ["474 alice #lobby :You are banned", "470 alice #lobby #b :Go"])
def test_channel_that_refuses_to_be_joined_again_fails_what_waits(alice, answer):
    alice.type("first")
    alice.lose()
    alice.type("later")
    alice.connect()
    alice.hear(":hub 422 alice :No MOTD", ":hub " + answer)
    assert "![alice]: first (may not have arrived)!" in alice.seen()
    assert "![alice]: later (not delivered)!" in alice.seen()
    assert "You are not in #lobby" in alice.refusal("hello?")


def test_channel_that_removed_the_user_is_not_joined_again(alice):
    alice.hear(":alice!a@h JOIN #tea")
    alice.do(alice.chat.do(NOW, alice.chat.select, alice.chat.conversation_named("#tea")))
    alice.type("hello")
    alice.hear(":bob!b@h KICK #tea alice :enough")
    assert alice.chat.conversation_named("#tea").sorted_members == []
    assert "You are not in #tea" in alice.refusal("hello?")
    alice.all_sent  # noqa: B018
    alice.lose()
    refusal = alice.do(alice.chat.do(NOW, alice.chat.open, "#tea"))
    assert refusal == ["[SERVER]: You are not connected. Try again when you are."]
    alice.do(alice.chat.do(NOW, alice.chat.open, "#lobby"))  # it will be joined again
    assert alice.type("hi") == ["<[alice]: hi (waiting to send)>"]
    alice.join()
    assert alice.sent == ["PRIVMSG #lobby :hi"]
    assert "![alice]: hello (may not have arrived)!" in alice.seen("#tea")


# On a server with a history

EARLIER = NOW - 1000


class FakeServer:
    """Echoes, keeps everything that is said in #lobby, and answers CHATHISTORY."""

    def __init__(self):
        self.said = []  # nickname and text; the msgid is the index
        self._batches = 0

    def line(self, number, tags=""):
        nickname, text = self.said[number]
        when = protocol.format_time(EARLIER + number / 1000)
        form = "@%smsgid=%d;time=%s :%s!u@h PRIVMSG #lobby :%s"
        return form % (tags, number, when, nickname, text)

    def say(self, nickname, text, tags=""):
        self.said.append((nickname, text))
        return self.line(len(self.said) - 1, tags)

    def answer(self, line):
        message = protocol.parse(line.encode())
        if message.command == "PRIVMSG":
            label = message.tags.get("label", "")
            return [self.say("alice", message.text, "label=%s;" % label if label else "")]
        if message.command == "CHATHISTORY" and message.params[0] != "TARGETS":
            return self._tell(*message.params)
        if message.command == "CHATHISTORY":
            return [":hub BATCH +t draft/chathistory-targets", ":hub BATCH -t"]
        return []

    def _tell(self, verb, channel, reference, limit):
        kind, _, value = reference.partition("=")
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
        batch = "h%d" % self._batches
        lines = [self.line(number, "batch=%s;" % batch) for number in range(max(0, first), last)]
        return [":hub BATCH +%s chathistory %s" % (batch, channel), *lines, ":hub BATCH -" + batch]


class Link:
    """Alice on a FakeServer, over a connection that can be cut at any line."""

    def __init__(self, before=0):
        self.server = FakeServer()
        for number in range(before):
            self.server.say("bob", "before %d" % number)
        self.alice = User(CAPS)
        self.up, self.down = [], []
        self.connect()

    def connect(self):
        self.alice.connect()
        self.down = list(WELCOME)

    def run(self):
        """Carry lines until there are none."""
        while self.up or self.down or self.collect():
            self.collect()
            if self.down:
                self.alice.hear(self.down.pop(0))
            elif self.up:
                self.down += self.server.answer(self.up.pop(0))

    def collect(self):
        self.up += self.alice.sent
        return bool(self.up)

    def cut(self, heard=0, told=0):
        """Lose the connection after some more lines up, and some of their answers down."""
        self.collect()
        answers = [answer for line in self.up[:heard] for answer in self.server.answer(line)]
        self.alice.hear(*(self.down + answers)[:told])
        self.alice.lose()
        self.up, self.down = [], []
        self.alice.all_sent  # noqa: B018

    @property
    def seen(self):
        """The messages of users, as they are shown."""
        entries = self.alice.chat.conversation_named("#lobby").entries
        return [entry.text for entry in entries if entry.line.nickname]

    @property
    def said(self):
        return ["[%s]: %s" % pair for pair in self.server.said]


@pytest.mark.parametrize(("heard", "told"), [(0, 0), (1, 0), (2, 0), (3, 0), (3, 1), (3, 3)])
def test_messages_in_flight_are_sent_again_only_if_the_history_lacks_them(heard, told):
    link = Link()
    link.run()
    link.down.append(link.server.say("bob", "unheard"))
    for text in ("one", "one", "two"):
        link.alice.type(text)
    link.cut(heard, told)
    link.alice.type("three")
    link.server.say("bob", "meanwhile")
    link.connect()
    link.run()
    assert link.seen == link.said
    own = ["[alice]: %s" % text for text in ("one", "one", "two", "three")]
    assert sorted(link.said) == sorted(["[bob]: unheard", "[bob]: meanwhile", *own])
    assert link.alice.chat.unsent == 0


@given(
    st.lists(
        st.one_of(
            st.sampled_from(["type", "bob", "step", "run"]),
            st.tuples(st.integers(0, 4), st.integers(0, 6)),
        ),
        max_size=30,
    )
)
def test_nothing_is_lost_and_nothing_is_sent_twice_wherever_the_connection_is_cut(steps):
    link = Link()
    typed = []
    for step in steps:
        if step == "type" and link.alice.chat.conversation_named("#lobby"):
            typed.append(str(len(typed) // 2))
            link.alice.type(typed[-1])
        elif step == "bob":
            link.down.append(link.server.say("bob", "b%d" % len(link.server.said)))
        elif step == "step" and link.down:
            link.alice.hear(link.down.pop(0))
        elif step == "run":
            link.run()
        elif isinstance(step, tuple):
            link.cut(*step)
            link.connect()
    link.run()
    link.alice.do(link.alice.chat.do(NOW, link.alice.chat.fetch_older, link.alice.chat.current))
    link.run()
    assert [text for who, text in link.server.said if who == "alice"] == typed
    assert link.seen == link.said
    assert link.alice.chat.unsent == 0
    room = link.alice.chat.current
    assert replay(link.alice.changes, room) == room.entries


@pytest.mark.parametrize(
    ("caps", "msgid", "since"),
    [
        ("hubbub/resume", "1700000000000017", "msgid=1700000000000016"),  # its clock may be wrong
        ("hubbub/resume", "x" * 20, "timestamp="),
        ("hubbub/resume", "1" * 30, "timestamp="),
        ("", "1700000000000017", "timestamp="),
    ],
)
def test_missed_messages_are_asked_for_by_number_where_numbers_only_grow(caps, msgid, since):
    alice = User("draft/chathistory batch " + caps).join()
    alice.hear("@msgid=%s :bob!b@h PRIVMSG #lobby :hello" % msgid)
    alice.lose()
    alice.connect()
    alice.hear(*WELCOME)
    asked = [line for line in alice.sent if line.startswith("CHATHISTORY AFTER #lobby ")]
    assert [line.split()[3].startswith(since) for line in asked] == [True], asked


def test_console_has_no_history_on_the_server():
    alice = User("draft/chathistory batch").join("NETWORK=erin")
    alice.type("/leave")
    alice.hear(":alice!a@h PART #lobby")
    assert alice.chat.current.kind == client.CONSOLE
    alice.do(alice.chat.do(NOW, alice.chat.fetch_older, alice.chat.current))
    assert not any("erin" in line for line in alice.sent)


def test_missed_messages_are_fetched_counted_and_marked():
    link = Link(5)
    link.run()
    link.cut()
    for number in range(3):
        link.server.say("carol", "missed %d" % number)
    link.connect()
    link.alice.hear(*link.down)
    link.alice.hear(link.server.say("bob", "live"))  # before the answer to what was missed
    link.down = []
    link.run()
    room = link.alice.chat.current
    assert link.seen == link.said
    assert room.new_count == 3
    (first,) = [entry for entry in room.entries if entry is room.mark]
    assert first.text == "[carol]: missed 0"
    assert link.alice.seen()[-1] == "[SYSTEM]: Welcome back. You missed 3 messages."


def test_long_absence_is_fetched_page_by_page(monkeypatch):
    monkeypatch.setattr(client, "MISSED_PAGE", 10)
    link = Link(3)
    link.run()
    link.alice.type("lost")
    link.cut(1)
    for number in range(35):
        link.server.say("bob", str(number))
    link.connect()
    link.run()
    assert link.seen == link.said
    assert link.alice.seen()[-1] == "[SYSTEM]: Welcome back. You missed 35 messages."


def test_scrolling_up_fetches_older_messages_page_by_page():
    link = Link(120)
    link.run()
    room, chat = link.alice.chat.current, link.alice.chat
    assert link.seen == link.said[-client.PAGE :]
    for expected in (100, 120):
        assert room.has_older
        first = room.first_stored(room.entries)
        link.alice.do(chat.do(NOW, chat.fetch_older, room))
        link.alice.do(chat.do(NOW, chat.fetch_older, room))  # the page is on its way
        link.alice.changes = []
        link.run()
        assert link.seen == link.said[-expected:]
        (change,) = link.alice.changed(client.ADDED)
        assert change.before is first
    assert len(change.entries) == 20
    assert not room.has_older
    link.alice.do(chat.do(NOW, chat.fetch_older, room))
    assert not link.collect()


def test_older_messages_are_asked_for_by_what_the_history_has(kept):
    kept.hear("@msgid=4 :bob!b@h JOIN #lobby", "@msgid=5 :bob!b@h PRIVMSG alice :psst")
    kept.hear("@msgid=6 :bob!b@h PRIVMSG #lobby :hi")
    kept.chat.current.has_older = True
    kept.do(kept.chat.do(NOW, kept.chat.fetch_older, kept.chat.current))
    assert kept.sent == ["CHATHISTORY BEFORE #lobby msgid=6 :50"]


def test_typed_history_is_recalled_even_if_it_is_known():
    link = Link(3)
    link.run()
    link.alice.changes = []
    link.alice.type("/history 2")
    link.run()
    (change,) = link.alice.changed(client.RECALLED)
    assert [entry.text for entry in change.entries] == ["[bob]: before 1", "[bob]: before 2"]
    assert link.seen == link.said


def test_empty_history_is_read_once(kept):
    bob = kept.chat.private("bob")
    for asked in (["CHATHISTORY LATEST bob * :50"], []):
        kept.do(kept.chat.do(NOW, kept.chat.select, bob))
        kept.do(kept.chat.do(NOW, kept.chat.select, kept.chat.conversation_named("#lobby")))
        assert kept.sent == asked
        kept.hear(*history("bob"))


def test_typed_history_is_that_of_the_conversation_in_view(kept):
    kept.do(kept.chat.do(NOW, kept.chat.open, "bob"))
    kept.all_sent  # noqa: B018
    kept.type("/history 5")
    assert kept.sent == ["CHATHISTORY LATEST bob * :5"]


def test_private_history_from_before_a_new_nickname_has_its_senders(kept):
    kept.hear(":alice!a@h NICK alicia")
    kept.do(kept.chat.do(NOW, kept.chat.open, "bob"))
    said = ["msgid=1 :alice!a@h PRIVMSG bob :hi", "msgid=2 :bob!b@h PRIVMSG alice :hello"]
    kept.hear(*history("bob", *said))
    assert kept.seen("bob") == ["[you -> bob]: hi", "[bob -> you]: hello"]
    assert [entry.is_own for entry in kept.chat.current.entries] == [True, False]


@pytest.mark.parametrize("is_resumed", [False, True])
def test_private_history_without_a_link_is_no_proof_unless_the_session_goes_on(kept, is_resumed):
    kept.type("@bob hi")
    kept.lose()
    kept.all_sent  # noqa: B018
    kept.join(is_resumed=is_resumed)
    assert "CHATHISTORY LATEST bob * :500" in kept.sent
    kept.hear(*history("#lobby"), *history("bob"))
    if is_resumed:
        kept.hear(*whois("330 bob", "318"))
        assert kept.sent == ["WHOIS bob", "@label=m2 PRIVMSG bob :hi"]
    else:
        assert kept.sent == []
        assert "![you -> bob]: hi (may not have arrived)!" in kept.seen()


def test_private_message_that_has_not_arrived_is_not_sent_to_another_user(kept):
    kept.hear("@msgid=1 :bob!b@h PRIVMSG alice :psst")
    kept.type("@bob hi")
    kept.lose()
    kept.join()
    kept.all_sent  # noqa: B018
    kept.hear(*history("#lobby"), *history("bob", "msgid=1 :bob!b@h PRIVMSG alice :psst"))
    assert kept.sent == [] and "![you -> bob]: hi (may not have arrived)!" in kept.seen("bob")


def test_history_that_has_lost_its_end_is_no_proof():
    link = Link(3)
    link.run()
    link.alice.hear("@msgid=98 :bob!b@h JOIN #lobby", "@msgid=99 :bob!b@h PRIVMSG alice :psst")
    link.alice.type("hi")
    link.cut(heard=1)
    del link.server.said[2:]
    link.connect()
    link.run()
    assert "![alice]: hi (may not have arrived)!" in link.alice.seen()
    assert link.said == ["[bob]: before 0", "[bob]: before 1"]


@pytest.mark.parametrize("has_arrived", [True, False])
@pytest.mark.parametrize(("before", "after"), [("alice_", "alice"), ("alice", "alicia")])
def test_message_sent_under_another_nickname_is_not_sent_twice(kept, before, after, has_arrived):
    known = "msgid=1 :bob!b@h PRIVMSG #lobby :known"
    said = [known, "msgid=2 :%s!a@h PRIVMSG #lobby :hi" % before]
    kept.hear("@" + known)

    def come(nickname, told):
        kept.connect(nickname)
        kept.hear(*[line.replace("alice", nickname) for line in WELCOME])
        kept.all_sent  # noqa: B018
        kept.hear(*history("#lobby", *told))

    kept.lose()
    come(before, [known])
    kept.type("hi")
    kept.handle(Disconnected(SERVER, "You may not join."))
    kept.chat.begin(after)
    come(after, said if has_arrived else [known])
    assert kept.sent == []
    entries = [text for text in kept.seen() if "hi" in text.split()]
    arrived, unknown = "[%s]: hi" % before, "![%s]: hi (may not have arrived)!" % before
    assert entries == [arrived if has_arrived else unknown]


def test_missed_private_messages_are_fetched(kept):
    kept.hear("@time=2026-11-22T17:10:43.000Z :bob!b@h PRIVMSG #lobby :hi")
    kept.lose()
    kept.join()
    (asked,) = [line for line in kept.sent if "TARGETS" in line]
    assert "timestamp=2026-11-22T17:10:42.999Z" in asked
    kept.hear(
        ":hub BATCH +t draft/chathistory-targets",
        "@batch=t :hub CHATHISTORY TARGETS carol 2026-11-22T17:11:00.000Z",
        "@batch=t :hub CHATHISTORY TARGETS #lobby 2026-11-22T17:11:00.000Z",
        ":hub BATCH -t",
    )
    assert kept.sent == ["CHATHISTORY LATEST carol * :500"]
    said = "msgid=%d;time=2026-11-22T17:%d:00.000Z :carol!c@h PRIVMSG alice :call me"
    kept.hear(*history("carol", said % (3, 9), said % (9, 11)))
    carol = kept.chat.conversation_named("carol")
    assert (carol.unread, carol.mentions) == (1, 1)  # the first was there at the last visit
    assert kept.seen("carol")[:2] == ["[carol -> you]: call me"] * 2
    assert kept.seen("carol")[-1] == "[SYSTEM]: Welcome back. You missed 1 message."


def test_reconnect_with_private_conversations_alone_asks_for_what_was_missed(kept):
    kept.do(kept.chat.do(NOW, kept.chat.open, "dan"))
    kept.do(kept.chat.do(NOW, kept.chat.leave, kept.chat.conversation_named("#lobby")))
    kept.handle(Disconnected(LOST, "The connection was lost."))
    kept.chat.begin("alice")
    kept.all_sent  # noqa: B018
    kept.connect()
    assert kept.hear(":hub 372 alice :- the same message of the day") == []
    kept.hear(":hub 376 alice :End")
    assert [line for line in kept.sent if "TARGETS" in line]


@pytest.mark.parametrize("years", [-40, -10, 0, 10])
@pytest.mark.parametrize(
    ("more", "since"),
    [("", "timestamp=2026-11-22T17:10:42.999Z"), (" hubbub/resume", "msgid=6")],
)
def test_wrong_clock_of_the_client_loses_no_missed_messages(monkeypatch, years, more, since):
    monkeypatch.setitem(globals(), "NOW", NOW + years * 365 * 86400)
    kept = User(CAPS + more).join()
    kept.hear(*history("#lobby"), "@time=2026-11-22T17:10:43.000Z;msgid=7 :b!b@h PRIVMSG alice :1")
    kept.hear(":hub PONG hub :x")  # without a time: that of the client is not used
    kept.lose()
    kept.all_sent  # noqa: B018
    kept.join()
    asked = "CHATHISTORY TARGETS %s timestamp=2999-01-01T00:00:00.000Z :50" % since
    assert asked in kept.sent


def test_missed_messages_are_asked_for_until_they_are_told(kept):
    kept.hear("@time=9999-12-31T23:59:59.000Z :bob!b@h PRIVMSG #lobby :a clock that was wrong")
    kept.hear("@time=2026-11-22T17:10:43.000Z :bob!b@h PRIVMSG #lobby :hi")
    for _ in range(3):
        kept.lose()
        kept.all_sent  # noqa: B018
        kept.connect()
        kept.hear(*["@time=2026-11-22T17:12:00.000Z " + line for line in WELCOME])
        assert any("TARGETS timestamp=2026-11-22T17:10:42.999Z" in line for line in kept.sent)
        kept.hear(
            "@msgid=9;time=2026-11-22T17:12:00.000Z :carol!c@h PRIVMSG alice :hello?",
            ":hub BATCH +t draft/chathistory-targets",
            "@batch=t :hub CHATHISTORY TARGETS carol 2026-11-22T17:12:00.000Z",
            ":hub BATCH -t",
        )
        assert "CHATHISTORY LATEST carol * :500" in kept.sent
    missed = "msgid=%d;time=2026-11-22T17:11:0%d.000Z :carol!c@h PRIVMSG alice :call me"
    kept.hear(*history("#lobby"), *history("carol", missed % (7, 7), missed % (8, 8)))
    assert kept.seen("carol")[:3] == ["[carol -> you]: call me"] * 2 + ["[carol -> you]: hello?"]
    kept.hear("@time=2026-11-22T17:13:00.000Z :bob!b@h PRIVMSG #lobby :back?")
    kept.lose()
    kept.join()
    assert any("TARGETS timestamp=2026-11-22T17:12:59.999Z" in line for line in kept.sent)


@pytest.mark.parametrize(
    "answer",
    [
        [],
        [":hub BATCH +x chathistory #lobby"],
        [":hub BATCH +x chathistory #lobby", "@batch=x;msgid=7 :bob!b@h PRIVMSG #lobby :hi"],
    ],
)
def test_history_that_is_never_told_holds_nothing_for_ever(kept, answer):
    kept.type("first")
    kept.lose()
    kept.do(
        kept.chat.do(NOW + client.HISTORY_TIME + 1, kept.chat.tick)
    )  # what was asked before is forgotten
    assert "<[alice]: first (waiting to send)>" in kept.seen()
    kept.join()
    kept.type("second")
    kept.hear(*answer)
    kept.all_sent  # noqa: B018
    kept.changes = []
    kept.do(kept.chat.do(NOW + client.HISTORY_TIME, kept.chat.tick))
    assert (kept.sent, kept.changes) == ([], [])
    kept.do(kept.chat.do(NOW + client.HISTORY_TIME + 1, kept.chat.tick))
    assert "![alice]: first (may not have arrived)!" in kept.seen()
    assert [line.partition(" ")[2] for line in kept.sent] == ["PRIVMSG #lobby :second"]
    kept.hear("@batch=x;msgid=8 :bob!b@h PRIVMSG #lobby :late", ":hub BATCH -x")
    assert "[bob]: late" in kept.seen()
    assert kept.chat.history.requests == []


@pytest.mark.parametrize("begun", [0, 1, 2])
def test_page_of_history_that_comes_late_or_unasked_is_no_news(kept, begun):
    kept.do(kept.chat.do(NOW, kept.chat.set_focus, False))
    kept.hear("@msgid=9;time=2026-11-22T17:10:42.000Z :bob!b@h PRIVMSG #lobby :new")
    room, upto = kept.chat.current, kept.chat.complete_until
    room.has_older = True
    kept.do(kept.chat.do(NOW, kept.chat.fetch_older, room))
    said = [
        "msgid=%d;time=2026-11-22T09:00:0%d.000Z :bob!b@h PRIVMSG #lobby :old" % (n, n)
        for n in (7, 8)
    ]
    page = history("#lobby", *said)
    kept.hear(*page[:begun])
    kept.do(kept.chat.do(NOW + client.HISTORY_TIME + 1, kept.chat.tick))
    kept.changes = []
    kept.hear(*page[begun:])
    assert [line for line in kept.seen() if "bob]" in line] == ["[bob]: old"] * 2 + ["[bob]: new"]
    assert (room.unread, room.new_count, kept.chat.complete_until) == (1, 1, upto)
    assert kept.changed(client.ALERT) == kept.chat.history.requests == []


def test_conversation_that_is_removed_has_no_requests(kept):
    kept.do(kept.chat.do(NOW, kept.chat.open, "bob"))
    assert kept.chat.history.is_fetching(kept.chat.current)
    kept.do(kept.chat.do(NOW, kept.chat.leave, kept.chat.current))
    assert kept.chat.history.requests == []
    kept.hear(*history("bob", "msgid=1 :bob!b@h PRIVMSG alice :hi"))
    assert kept.names == ["#lobby"]


@pytest.mark.parametrize("name", ["bob", "rob"])
@pytest.mark.parametrize("is_refused", [True, False])
def test_user_may_be_renamed_while_the_history_is_on_its_way(kept, name, is_refused):
    kept.do(kept.chat.do(NOW, kept.chat.open, "bob"))
    kept.hear(":bob!b@h NICK rob")
    if is_refused:
        kept.hear(":hub FAIL CHATHISTORY INVALID_TARGET LATEST %s :No" % name)
    else:
        kept.hear(*history(name, "msgid=1 :bob!b@h PRIVMSG alice :hi"))
        assert "[bob -> you]: hi" in kept.seen("rob")
    assert kept.chat.history.requests == []


def test_typed_history_does_not_decide_on_uncertain_messages(kept):
    kept.type("first")
    kept.lose()
    kept.connect()
    kept.hear(*WELCOME[:2], ":hub 376 alice :End of /MOTD command.")
    kept.type("/history")
    kept.hear(WELCOME[2])
    kept.hear(":hub BATCH +t draft/chathistory-targets", ":hub BATCH -t")
    kept.hear(":hub FAIL CHATHISTORY MESSAGE_ERROR LATEST #lobby :Not now")
    assert "<[alice]: first (waiting to send)>" in kept.seen()
    kept.hear(":hub FAIL CHATHISTORY MESSAGE_ERROR LATEST #lobby :Not now")
    assert "![alice]: first (may not have arrived)!" in kept.seen()


@pytest.mark.parametrize(
    ("known", "page", "expected"),
    [
        # Each is a time and a number: of the client's own lines, none.
        ("1/1 2 5", "1/1 3/3 4/4", "1/1 2 3/3 4/4 5"),
        ("1/1 3/3 5/5", "2/2 4/4 6/6", "1/1 2/2 3/3 4/4 5/5 6/6"),  # private messages between
        ("1/1 3/3 5/5", "4/4", "1/1 3/3 4/4 5/5"),
        ("1/1 7 8/9", "2/2 3/10", "1/1 2/2 7 8/9 3/10"),
        ("9/8 7/11 5", "8/9 1/10", "9/8 8/9 1/10 7/11 5"),  # the clock was wrong: numbers decide
        ("1/a 3/b", "2/x 3/y 3/z", "1/a 2/x 3/b 3/y 3/z"),  # of another server: times decide
        ("1/a 3/b 3/c", "2/x 3/y 3/b 3/z", "1/a 2/x 3/y 3/b 3/c 3/z"),
        ("", "2/2 3/3", "2/2 3/3"),
    ],
)
def test_page_of_history_is_put_in_by_number_or_by_time(known, page, expected):
    room, ids = client.Conversation("#lobby", client.CHANNEL), itertools.count(1)

    def entries(text):
        for when, _, msgid in (word.partition("/") for word in text.split()):
            line = protocol.Line(FROM_OTHERS, float(when), "[bob]:", "hi")
            yield client.Entry(next(ids), line, msgid)

    for entry in entries(known):
        room.append(entry)
    before = list(room.entries)
    changes = room.merge(list(entries(page)))
    shown = ["%d/%s" % (entry.line.when, entry.msgid) for entry in room.entries]
    assert " ".join(shown).replace("/ ", " ").rstrip("/") == expected
    added = [entry for change in changes for entry in change.entries]
    assert added == [entry for entry in room.entries if entry not in before]
    assert replay([client.Change(client.ADDED, room, before), *changes], room) == room.entries


def test_missed_messages_stand_among_those_that_came_meanwhile(kept):
    kept.hear("@msgid=1;time=2026-11-22T17:00:00.000Z :bob!b@h PRIVMSG #lobby :one")
    kept.lose()
    kept.type("mine")
    kept.connect()
    kept.hear(*WELCOME)
    missed = "msgid=%d;time=2026-11-22T17:0%d:00.000Z :bob!b@h PRIVMSG %s :%s"
    kept.hear("@" + missed % (2, 2, "alice", "psst"))
    page = [missed % (1, 0, "#lobby", "one"), missed % (3, 4, "#lobby", "two")]
    kept.hear(*history("#lobby", *page))
    kept.hear("@msgid=4;time=2026-11-22T17:05:00.000Z :alice!a@h PRIVMSG #lobby :mine")
    texts = [line for line in kept.seen() if "[bob" in line or "mine" in line]
    assert texts == ["[bob]: one", "[bob -> you]: psst", "[bob]: two", "[alice]: mine"]


@pytest.mark.parametrize(
    ("lines", "joined"),
    [
        ([":op!o@h MODE #tea +k earlgrey"], "JOIN #tea :earlgrey"),
        ([":op!o@h MODE #tea +lk-m 9 earlgrey"], "JOIN #tea :earlgrey"),
        ([":hub 324 alice #tea +klt earlgrey 9"], "JOIN #tea :earlgrey"),
        ([":op!o@h MODE #tea +k one", ":op!o@h MODE #tea +k two"], "JOIN #tea :two"),
        ([":op!o@h MODE #tea +k one", ":op!o@h MODE #tea -k one"], "JOIN #tea"),
        ([":op!o@h MODE #tea +k one", ":op!o@h MODE #tea -k *"], "JOIN #tea"),
        ([":op!o@h MODE #tea +k one", ":hub 324 alice #tea +k *"], "JOIN #tea :one"),
        ([":op!o@h MODE #cup +k one"], "JOIN #tea"),
        ([":op!o@h MODE #tea +o alice"], "JOIN #tea"),
    ],
)
def test_key_of_a_channel_is_learned_and_forgotten(alice, lines, joined):
    alice.hear(":alice!a@h JOIN #tea")
    assert "MODE #tea" in alice.all_sent
    alice.hear(*lines)
    alice.lose()
    alice.connect()
    alice.hear(*WELCOME)
    assert alice.sent == [joined]


@pytest.mark.parametrize(
    ("caps", "tags"),
    [
        ("echo-message message-tags", "@+draft/reply=7 "),
        ("echo-message", ""),
        ("echo-message labeled-response message-tags", "@label=m1;+draft/reply=7 "),
    ],
)
def test_reply_is_sent_as_a_tag_and_begins_with_a_name(caps, tags):
    """The tag only where the server takes tags; once, and again when it is sent again."""
    alice = User(caps).join()
    alice.hear("@msgid=7 :bob!b@h PRIVMSG #lobby :who comes?")
    alice.sent.clear()
    alice.do(alice.chat.do(NOW, alice.chat.reply, alice.chat.current.entries[-1]))
    alice.type("@carol a word")
    alice.type("I do")
    alice.type("and you?")
    sent = [line for line in alice.sent if "carol" not in line]
    labels = "labeled" in caps
    tags = tags.replace("m1", "m2")
    assert sent[0] == tags + "PRIVMSG #lobby :bob: I do"
    assert sent[1] == ("@label=m3 " if labels else "") + "PRIVMSG #lobby :and you?"
    entry = alice.chat.current.entries[-2]
    alice.hear((tags and "@label=m2 ") + ":hub 404 alice #lobby :Cannot send to channel")
    if entry.delivery == client.REFUSED and tags:
        alice.do(alice.chat.do(NOW, alice.chat.retry, entry))
        (again,) = alice.sent
        assert "+draft/reply=7" in again and again.endswith("PRIVMSG #lobby :bob: I do")
        assert alice.chat.current.entries[-1].reply_to == "7"


@pytest.mark.parametrize("typed", ["I do", "/me comes"])
def test_failed_reply_that_is_edited_is_still_a_reply(typed):
    alice = User("echo-message message-tags").join()
    alice.hear("@msgid=7 :bob!b@h PRIVMSG #lobby :who comes?")
    question = alice.chat.current.entries[-1]
    alice.do(alice.chat.do(NOW, alice.chat.reply, question))
    alice.type(typed)
    alice.hear(":hub 404 alice #lobby :Cannot send to channel")
    outcome = alice.chat.do(NOW, alice.chat.edit, alice.chat.outbox.items[0].entry)
    assert alice.chat.current.reply_to is question
    alice.sent.clear()
    alice.type(outcome.rest + " too")
    (again,) = alice.sent
    assert again.startswith("@+draft/reply=7 PRIVMSG #lobby ")


def test_message_that_is_sent_again_takes_no_reply_that_is_being_written(alice):
    alice.hear("@msgid=7 :bob!b@h PRIVMSG #lobby :who comes?")
    question = alice.chat.current.entries[-1]
    alice.type("unrelated")
    alice.hear(":hub 404 alice #lobby :Cannot send to channel")
    failed = alice.chat.outbox.items[0].entry
    alice.do(alice.chat.do(NOW, alice.chat.reply, question))
    alice.do(alice.chat.do(NOW, alice.chat.retry, failed))
    assert alice.chat.current.entries[-1].reply_to == "" and alice.chat.current.reply_to is question


def test_reply_is_forgotten_in_another_conversation(alice):
    alice.hear(
        "@msgid=7 :bob!b@h PRIVMSG #lobby :who comes?", "@msgid=8 :bob!b@h PRIVMSG alice :hm"
    )
    lobby = alice.chat.conversation_named("#lobby")
    assert [alice.chat.can_reply(entry) for entry in lobby.entries[-2:]] == [True, True]
    alice.do(alice.chat.do(NOW, alice.chat.reply, lobby.entries[-2]))
    alice.do(alice.chat.do(NOW, alice.chat.select, alice.chat.conversation_named("bob")))
    alice.type("fine")
    assert alice.chat.current.reply_to is None and alice.sent[-1] == "PRIVMSG bob :fine"
    assert alice.chat.can_reply(alice.chat.current.entries[0])


def test_reply_to_a_private_message_in_a_room_is_private(alice):
    """It is written there, also under a new name of the sender."""
    alice.hear("@msgid=8 :bob!b@h PRIVMSG alice :hm", ":bob!b@h NICK rob")
    entry = alice.chat.current.entries[-2]
    alice.do(alice.chat.do(NOW, alice.chat.reply, entry))
    assert (alice.chat.current.name, alice.chat.address_of(entry)) == ("#lobby", "@rob ")
    assert client.describe_draft(alice.chat, "fine") == (
        "To everyone in #lobby", "warn", "Answer rob privately", entry)  # fmt: skip
    assert (
        client.describe_draft(alice.chat, "@rob fine").words == "Privately to rob, in reply to: hm"
    )
    alice.type("@rob fine")
    assert alice.sent[-1].endswith("PRIVMSG rob :fine") and alice.chat.current.reply_to is None
    assert alice.chat.conversation_named("rob").entries[-1].reply_to == "8"
    alice.do(alice.chat.do(NOW, alice.chat.leave, alice.chat.conversation_named("rob")))
    assert alice.chat.current.name == "#lobby" and not alice.chat.can_reply(entry)
    alice.do(alice.chat.do(NOW, alice.chat.reply, entry))  # chosen before that
    assert client.describe_draft(alice.chat, "fine")[2:] == ("Answer bob privately", entry)
    alice.type("@zoe hello")
    assert alice.sent[-1] == "PRIVMSG zoe :hello" and alice.chat.current.reply_to is entry


HERE_AGAIN = "[SYSTEM]: bob is here again."
UNKNOWN = HERE_AGAIN + " It may be someone else."
SOMEONE_ELSE = HERE_AGAIN + " The name is not registered, so it may be someone else."


@pytest.mark.parametrize(
    ("events", "words"),
    [
        (["QUIT :bye", "JOIN #lobby * :Bob"], [SOMEONE_ELSE]),
        (["QUIT :bye", "JOIN #lobby * :Bob", "JOIN #tea * :Bob"], [SOMEONE_ELSE]),
        (["QUIT :bye", "JOIN #lobby bob :Bob"], [HERE_AGAIN]),
        (["QUIT :bye", "JOIN #lobby carol :Bob"], [SOMEONE_ELSE]),
        (["QUIT :bye", "JOIN #lobby"], [UNKNOWN]),  # the account is not known
        (["QUIT :bye", "JOIN #lobby", "QUIT :bye", "JOIN #lobby"], [UNKNOWN] * 2),
        (["PART #lobby", "JOIN #lobby * :Bob"], []),
        (["JOIN #tea * :Bob"], []),
    ],
)
def test_return_is_told_and_a_name_that_may_be_another_user_s_is_pointed_out(alice, events, words):
    """In the private conversation under that name, once."""
    alice.hear(":alice!alice@host JOIN #tea", ":bob!b@h PRIVMSG alice :psst")
    alice.hear(*(":bob!b@h " + event for event in events))
    assert [line for line in alice.seen("bob") if "here again" in line] == words
    assert "here again" not in str(alice.seen() + alice.seen("#tea"))


TAKEN = [":bob!b@h NICK bobby", ":carol!c@h NICK bob"]  # the name of a user
RETURNED = [":bob!b@h QUIT :bye", ":bob!x@h JOIN #lobby * :Bob"]
RENAMED, ROB_IS_BOB = [":bob!b@h NICK rob"], [":carol!c@h NICK rob", ":rob!c@h NICK bob"]


@pytest.mark.parametrize(
    ("lines", "is_stranger"),
    [
        (TAKEN, True),
        ([*TAKEN, ":bob!c@h JOIN #tea * :Carol"], True),
        ([FROM_BOB, *TAKEN], True),
        ([FROM_BOB, *TAKEN, ":bob!c@h NICK carol", ":bobby!b@h NICK bob"], True),  # for safety
        ([":bob!b@h QUIT :bye", ":carol!c@h NICK Bob"], True),
        ([FROM_BOB, ":bob!b@h QUIT :bye", ":carol!c@h NICK bob"], True),
        ([FROM_BOB, *RETURNED], True),
        (RETURNED, True),  # the draft was begun before
        ([*RETURNED, ":bob!x@h NICK BOB"], True),
        ([*RETURNED, ":bob!x@h NICK rob", ":rob!x@h NICK bob"], True),
        ([RETURNED[0], ":bob!b@h JOIN #lobby"], True),  # the account is not known
        ([RETURNED[0], ":bob!b@h JOIN #lobby carol :Bob"], True),
        ([":bob!b@h NICK rob", ":rob!b@h NICK bob"], False),
        ([":bob!b@h NICK rob", ":carol!c@h NICK bob", ":bob!c@h QUIT", RETURNED[1]], True),
        ([":alice!a@h NICK al", ":bob!b@h NICK alice", ":alice!b@h NICK bob"], False),
        ([*RENAMED, ":rob!b@h NICK bert", *ROB_IS_BOB], True),
        ([*RENAMED, ":rob!b@h QUIT :bye", *ROB_IS_BOB], True),
        ([*RENAMED, ":rob!b@h NICK bert", ":bert!b@h NICK bob"], False),
        ([":bob!b@h NICK BOB"], False),
        ([":bob!b@h JOIN #tea * :Bob"], False),
        ([":carol!c@h NICK caro"], False),
    ],
)
def test_private_message_to_a_name_that_may_be_another_user_s_asks_once(alice, lines, is_stranger):
    """The notice of the draft says it before."""
    alice.hear(":alice!a@h JOIN #tea", ":carol!c@h JOIN #lobby", *lines)
    warned = "Privately to bob, who may be someone else than before", "warn"
    for is_doubtful in (is_stranger, False):
        expected = warned if is_doubtful else ("Privately to bob", "lock")
        assert client.describe_draft(alice.chat, "@bob I like tom")[:2] == expected
        alice.sent.clear()
        alice.type("@bob I like tom")
        alice.hear(*whois("317 9 1", "318") if is_doubtful else [])
        told = ["WHOIS bob"] if is_doubtful else ["PRIVMSG bob :I like tom"]
        assert [line for line in alice.sent if "CHATHISTORY" not in line] == told
        assert (NOT_SENT in alice.seen()[-1:]) == is_doubtful


@pytest.mark.parametrize(
    ("lines", "is_doubtful"),
    [
        ([":bob!b@h PART #lobby"], True),
        ([":carol!c@h KICK #lobby bob :out"], True),
        ([":carol!c@h KICK #lobby alice :out"], True),
        ([":alice!a@h PART #lobby"], True),
        ([":alice!a@h JOIN #tea", ":bob!b@h JOIN #tea", ":bob!b@h PART #lobby"], False),
    ],
)
def test_user_who_may_have_left_unseen_is_asked_about(lines, is_doubtful):
    """Hubbub's WHOIS tells if it is the same user."""
    alice = User("echo-message " + client.RESUME_CAP).join()
    alice.hear("@time=2026-11-22T17:11:42.000Z :bob!b@h PRIVMSG alice :hi", *lines)
    alice.do(alice.chat.do(NOW, alice.chat.open, "bob"))
    alice.all_sent  # noqa: B018
    alice.type("psst")
    assert alice.sent == ["WHOIS bob" if is_doubtful else "PRIVMSG bob :psst"]
    alice.hear(*whois("317 9 %d" % NOW, "318") if is_doubtful else [])
    assert alice.sent == ["PRIVMSG bob :psst"] * is_doubtful


def test_pasted_lines_are_all_asked_about(alice):
    alice.hear(":carol!c@h JOIN #lobby", *TAKEN)
    alice.type("@bob one\ntwo\nthree")
    alice.hear(*whois("318"))
    assert not alice.answer()
    assert alice.sent == ["WHOIS bob"]
    assert [i.message.text for i in alice.chat.outbox.having(client.REFUSED)] == [
        "one",
        "two",
        "three",
    ]


@pytest.mark.parametrize("is_answered", [True, False])
def test_private_message_does_not_follow_another_user_who_had_the_name(alice, is_answered):
    """It was not sent, or waits to be, when that user takes the former name again."""
    alice.hear(":carol!c@h JOIN #lobby", *TAKEN)
    alice.type("@bob I like tom")
    alice.hear(*whois(*["318"] * is_answered), ":bob!c@h NICK carol", *whois("401", "318"))
    for item in alice.chat.outbox.having(client.REFUSED):
        alice.do(alice.chat.do(NOW, alice.chat.retry, item.entry))
    assert alice.sent == ["WHOIS bob", "PRIVMSG bob :I like tom"]


def test_failed_message_goes_to_the_name_that_it_shows(alice):
    """Its user is called otherwise now."""
    alice.type("@bob hi")
    alice.hear(":hub 404 alice bob :No", ":bob!b@h NICK rob")
    (item,) = alice.chat.outbox.having(client.REFUSED)
    alice.do(alice.chat.do(NOW, alice.chat.retry, item.entry))
    assert alice.sent == ["PRIVMSG bob :hi"] * 2


def test_conversation_that_follows_another_user_who_had_the_name_asks_once(alice):
    alice.hear(":carol!c@h JOIN #lobby", FROM_BOB)
    alice.do(alice.chat.do(NOW, alice.chat.open, "bob"))
    alice.hear(":bob!b@h QUIT :bye", ":carol!c@h NICK bob", ":bob!c@h NICK carol")
    alice.type("I like tom")
    assert not any("PRIVMSG" in line for line in alice.sent)


@pytest.mark.parametrize(
    ("since", "is_sent"), [(NOW + 59, True), (NOW + 60, False), (NOW + 61, False)]
)
@pytest.mark.parametrize("how", ["JOIN #lobby bob :Bob", "JOIN #lobby * :Bob", "NICK"])
def test_only_an_account_from_before_the_name_was_given_up_proves_its_user(how, since, is_sent):
    """WHOIS of Hubbub's server tells when the account was made; another could make it now."""
    alice = User("echo-message " + client.RESUME_CAP).join()
    alice.hear("@time=2026-11-22T17:11:42.000Z :bob!b@h QUIT :bye")
    again = ":rob!b@h JOIN #lobby", ":rob!b@h NICK bob"
    alice.hear(*again if how == "NICK" else [":bob!b@h " + how])
    icon = client.describe_draft(alice.chat, "@bob psst").icon
    assert (icon == "lock") == (how == "JOIN #lobby bob :Bob")
    alice.all_sent  # noqa: B018
    alice.type("@bob psst")
    alice.hear(*whois("330 bob", "317 9 %d" % since, "318"))
    assert alice.sent == ["WHOIS bob", "PRIVMSG bob :psst"][: 1 + is_sent]


def test_registered_user_who_takes_the_name_back_is_no_stranger(alice):
    alice.hear(":bob!b@h NICK bobby", ":carol!c@h NICK bob")
    alice.type("@bob hi")
    alice.hear(*whois("330 bob", "318"))
    assert alice.sent == ["WHOIS bob", "PRIVMSG bob :hi"]


@pytest.mark.parametrize("draft", ["hi", "@bob hi", "one\n@carol two"])
def test_conversation_with_another_user_than_before_asks_once(alice, draft):
    """Also in a reply, and if there are other recipients."""
    alice.hear(":dave!d@h JOIN #lobby", ":carol!c@h JOIN #lobby", FROM_BOB)
    alice.do(alice.chat.do(NOW, alice.chat.open, "bob"))
    alice.do(alice.chat.do(NOW, alice.chat.reply, alice.chat.current.entries[0]))
    alice.hear(":bob!b@h QUIT :bye", ":dave!d@h NICK bob")
    notice = client.describe_draft(alice.chat, draft)
    assert "to bob, who may be someone else than before" in notice.words and notice.icon == "warn"
    alice.type(draft)
    alice.hear(*whois("318"))
    assert not any("PRIVMSG bob" in line for line in alice.sent)
    assert NOT_SENT in alice.seen("bob")
    alice.type("again")
    assert alice.sent[-1] == "PRIVMSG bob :again"


def test_failed_message_is_not_sent_to_another_user_unasked(alice):
    alice.hear(":bob!b@h QUIT :bye")
    alice.type("@bob psst")
    alice.hear(":hub 401 alice bob :No such nick", ":bob!x@h JOIN #lobby * :Bob")

    def retry():
        failed = [e for e in alice.chat.current.entries if e.delivery in client.FAILED]
        alice.do(alice.chat.do(NOW, alice.chat.retry, *failed))
        return alice.sent

    assert "PRIVMSG bob :psst" in alice.sent
    assert retry() == ["WHOIS bob"]
    alice.hear(*whois("318"))
    assert alice.seen()[-2:] == ["![you -> bob]: psst (not delivered)!", NOT_SENT]
    assert retry() == ["PRIVMSG bob :psst"]


@pytest.mark.parametrize(
    ("since", "is_sent"), [(NOW - 99, True), (NOW - 61, True), (NOW - 60, False), (NOW, False)]
)
def test_message_from_before_the_session_is_answered_to_its_sender_alone(since, is_sent):
    """It is in the history, or has waited for our account."""
    said = "time=2026-11-22T17:09:42.000Z;msgid=1 :bob!b@h PRIVMSG alice :psst"
    for page, waiting in ([said], []), ([], ["@" + said]):
        alice = User(CAPS + " " + client.RESUME_CAP)
        alice.connect()
        alice.hear(*("@time=2026-11-22T17:10:42.000Z " + line for line in WELCOME), *waiting)
        alice.do(alice.chat.do(NOW, alice.chat.open, "bob"))
        alice.hear(*history("bob", *page))
        alice.all_sent  # noqa: B018
        alice.type("you too?")
        assert alice.sent == ["WHOIS bob"]
        alice.hear(*whois("317 9 %d" % since, "318"))
        assert alice.sent == (["@label=m1 PRIVMSG bob :you too?"] if is_sent else [])
        alice.hear("@time=2026-11-22T17:11:42.000Z;msgid=7 :bob!b@h PRIVMSG alice :yes")
        alice.type("fine")
        assert "PRIVMSG bob :fine" in alice.sent[-1]


def test_names_that_change_hands_do_not_fill_the_memory(alice, monkeypatch):
    monkeypatch.setattr(client, "MAX_LISTED", 3)
    for number in range(9):
        alice.hear(":u%d!u@h JOIN #lobby" % number, ":u%d!u@h QUIT :bye" % number)
    assert list(alice.chat.former) == ["u6", "u7", "u8"]
    monkeypatch.setattr(client, "MAX_MEMBERS", 3)
    for number in range(9):
        lines = [*RETURNED, ":bob!x@h PART #lobby"]
        alice.hear(*[line.replace("bob", "u%d" % number) for line in lines])
    assert list(alice.chat.unsure) == ["u6", "u7", "u8"]


def test_user_who_renames_to_a_name_that_was_given_up_is_pointed_out(alice):
    alice.hear(":bob!b@h PRIVMSG alice :psst", ":carol!c@h JOIN #lobby", ":bob!b@h QUIT :bye")
    alice.hear(":carol!c@h NICK bob")
    told = [
        "[SERVER]: bob left the chat",
        "[SERVER]: carol is now called bob",
        "[SYSTEM]: bob may be someone else than before.",
    ]
    assert alice.seen("bob")[-3:] == told
    alice.hear(":bob!c@h JOIN #tea * :Carol")
    assert alice.seen("bob")[-3:] == told and told[-1] not in alice.seen()


@pytest.mark.parametrize(
    ("room", "typed", "target", "given_back"),
    [
        ("#lobby", "@ana my secret", "ana", "@ana my secret"),
        ("#lobby", "hello", "#lobby", "hello"),
        ("#lobby", "//list is a command", "#lobby", "//list is a command"),
        ("#lobby", "/me waves", "#lobby", "/me waves"),
        ("#lobby", "@ana /me waves", "ana", "@ana /me waves"),
        ("ana", "my secret", "ana", "my secret"),
        ("ana", "//list", "ana", "//list"),
        ("ana", "@ana @bob is late", "ana", "@ana @bob is late"),  # not for bob
    ],
)
def test_failed_message_can_be_edited(alice, room, typed, target, given_back):
    """It comes back as it was typed."""
    alice.do(alice.chat.do(NOW, alice.chat.open, room))
    alice.type(typed)
    number = "404" if target.startswith("#") else "401"
    entry = alice.chat.current.entries[-1]
    alice.hear(":hub %s alice %s :No" % (number, target))
    assert entry.delivery == client.REFUSED
    outcome = alice.chat.do(NOW, alice.chat.edit, entry)
    assert outcome.rest == given_back and entry not in alice.chat.current.entries
    assert outcome.send == [] and alice.chat.do(NOW, alice.chat.edit, entry).rest == ""


def test_nobody_else_is_suggested_for_a_user_who_has_left(alice):
    """Neither in their conversation nor in a room, nor before the message is sent."""
    alice.hear(":bobby!b@h JOIN #lobby", ":bob!b@h PRIVMSG alice :psst", ":bob!b@h QUIT :bye")
    assert client.describe_draft(alice.chat, "@bob hi")[:2] == (
        "No one called “bob” is here. ",
        "warn",
    )
    assert alice.hear(":hub 401 alice bob :No such nick") == ["[SERVER]: No such user: bob"]
    alice.do(alice.chat.do(NOW, alice.chat.open, "bob"))
    assert alice.hear(":hub 401 alice bob :No such nick") == ["[SERVER]: bob is not here."]
    alice.do(alice.chat.do(NOW, alice.chat.open, "bobb"))  # a slip
    answer = alice.hear(":hub 401 alice bobb :No such nick")
    assert answer[0].startswith("[SERVER]: No such user: bobb. Did you mean bob")


@pytest.mark.parametrize(
    ("line", "is_answer"),
    [
        (":hub 311 alice bob b h * :Bob", True),
        (":hub 401 alice zed :No such nick", True),
        ("FAIL REGISTER WEAK_PASSWORD alice :A password has at least 8 characters", True),
        (":hub NOTICE alice :bob is muted (10 minutes).", True),
        (":hub NOTE BAN DONE bob 600 :bob is banned (10 minutes).", True),
        (":hub REGISTER SUCCESS alice :alice is now yours alone.", True),
        (":hub NOTICE * :The server ends at five.", False),
        (":hub 332 alice #lobby :Tests on Monday", False),
        (":bob!b@h TOPIC #lobby :Tests on Monday", False),
        (":carol!c@h JOIN #lobby", False),
        (":bob!b@h PRIVMSG #lobby :hi", False),
    ],
)
def test_answer_to_this_user_alone_is_known(alice, line, is_answer):
    alice.hear(line)
    assert bool(alice.chat.current.entries[-1].answer) == is_answer
    alice.type("/foo")
    assert alice.chat.current.entries[-1].answer


# Lists that a sheet shows


ROOMS = [":hub 322 alice #music 5 :All about music", ":hub 323 alice :End"]
BANS = [":hub NOTE BANS BAN mallory 0 :mallory is banned"]


def request(alice, *params):
    """Ask for a list; return the line that ends the answer."""
    alice.do(alice.chat.do(NOW, alice.chat.request, *params))
    (ping,) = [line for line in alice.all_sent if line.startswith("PING ")]
    return ":hub PONG hub :" + ping.split()[1].lstrip(":")


def listed(alice):
    return [message.params[1] for message in alice.chat.listing.rows]


def test_answers_to_two_requests_are_kept_apart(alice):
    alice.all_sent  # noqa: B018
    ends = request(alice, "LIST"), request(alice, "BANS")
    alice.hear(*ROOMS, ends[0])
    assert (listed(alice), alice.chat.listing.is_done) == ([], False)
    alice.hear(*BANS, ends[1])
    assert (listed(alice), alice.chat.listing.is_done) == (["BAN"], True)
    assert alice.hear(":hub NOTE BANS MUTE bob 60 :bob is muted") == ["[SERVER]: bob is muted"]


def test_bans_are_asked_for_once_for_all_changes_of_a_moment(alice):
    alice.all_sent  # noqa: B018
    end = request(alice, "BANS")
    alice.hear(*[":hub NOTE MUTE DONE bob 60 :bob is muted"] * 3)
    assert alice.sent == []
    alice.hear(*BANS, end)
    alice.hear(*[":hub NOTE BAN DONE eve 60 :eve is banned"] * 3)
    assert alice.sent == ["BANS"]
    alice.hear(BANS[0], ":hub NOTE UNBAN DONE bob :bob is unmuted")
    assert "BANS" in alice.sent  # that came too late for the answer


def test_list_is_not_waited_for_after_the_connection_is_lost(alice):
    alice.all_sent  # noqa: B018
    end = request(alice, "BANS")
    alice.changed()
    alice.lose()
    assert alice.changed(client.LISTING)
    assert alice.chat.listing.word == "" and not alice.chat.listing.is_done
    alice.join()
    alice.hear(*BANS, end)
    assert listed(alice) == []


@pytest.mark.parametrize("people", ["lots", "", "-5", "\u00b2", "9" * 400])
def test_number_that_a_server_invents_does_no_harm(alice, people):
    alice.all_sent  # noqa: B018
    end = request(alice, "LIST")
    alice.hear(":hub 322 alice #x %s :Topic" % (people or ":"), ROOMS[0], end)
    assert "#music" in [row.key for row in client.offer_names(alice.chat, "#", "")]
    assert client.offer_names(alice.chat, "#", "mu")[0].key == "#music"


# Names that change, and news


@pytest.mark.parametrize("name", ["Bob", "robert"])
def test_private_conversation_and_what_waits_there_follow_a_new_nickname(alice, name):
    alice.do(alice.chat.do(NOW, alice.chat.open, "bob"))
    alice.lose()
    alice.type("hi")
    alice.connect(is_resumed=True)
    alice.hear(":bob!b@h NICK " + name, *WELCOME)
    assert name in alice.names and "bob" not in alice.names
    alice.hear(*(":hub %s alice %s %s :" % (n, name, name) for n in ("330", "318")), WHOIS_END)
    assert [line for line in alice.sent if "PRIVMSG" in line] == ["PRIVMSG %s :hi" % name]


def test_muted_conversation_has_no_news(alice):
    alice.hear(":alice!a@h JOIN #quiet")
    quiet = alice.chat.conversation_named("#quiet")
    alice.do(alice.chat.do(NOW, alice.chat.set_level, quiet, client.NONE))
    alice.do(alice.chat.do(NOW, alice.chat.select, alice.chat.conversation_named("#lobby")))
    alice.hear(":bob!b@h PRIVMSG #quiet :alice: noise")
    assert (quiet.unread, quiet.news, alice.chat.next_unread()) == (1, 0, None)
    assert not alice.chat.title.startswith("(")


def test_quoted_message_that_comes_later_is_shown(kept):
    history = "@batch=x;msgid=%d;time=2026-11-22T17:00:%02d.000Z :bob!b@h PRIVMSG #lobby :%s"
    reply = "@msgid=50;time=2026-11-22T17:10:50.000Z;+draft/reply=4 :bob!b@h PRIVMSG #lobby :yes"
    kept.hear(reply)
    kept.changed()
    kept.hear(":hub BATCH +x chathistory #lobby", history % (4, 4, "Tea?"), ":hub BATCH -x")
    lobby = kept.chat.conversation_named("#lobby")
    assert [entry.line.text for entry in lobby.entries if entry.msgid] == ["Tea?", "yes"]
    changed = [entry.line.text for c in kept.changed(client.CHANGED) for entry in c.entries]
    assert changed == ["yes"] and lobby.quoted(lobby.entries[-1]).line.text == "Tea?"


@pytest.mark.parametrize(
    "text", ["see http://example.com/(#foo) ok", "http://a.example/#b #room", "#a, #b"]
)
def test_text_is_shown_once(text):
    line = protocol.Line(FROM_OTHERS, NOW, "[bob]:", text, "bob")
    look = types.SimpleNamespace(encode=lambda part: part)
    parts = client.render(client.Entry(1, line), (), "alice", "", look)
    assert "".join(parts[::2]).endswith("[bob]: %s\n" % text)


# Operators of a channel, and new channels


OPERATES = "[SYSTEM]: " + client.OPERATES
JOIN_TEA = [":alice!a@h JOIN #tea", ":hub 353 alice = #tea :%salice", ":hub 366 alice #tea :End"]


def enter(alice, sign="", *more):
    """Enter #tea, with a sign before the nickname; return what is shown."""
    alice.type("/join #tea")
    joined = [line % sign if "%s" in line else line for line in JOIN_TEA]
    return alice.hear(*joined, *more, ":hub 324 alice #tea +nt")


@pytest.mark.parametrize(
    ("sign", "lines", "times"),
    [
        ("@", [], 1),
        ("", [], 0),
        ("+", [], 0),
        ("", [":bob!b@h MODE #tea +o alice"], 1),
        ("", [":hub MODE #tea +o alice"], 1),
        ("@", [":bob!b@h MODE #tea +v alice", ":hub 324 alice #tea +nt"], 1),
        ("@", [":bob!b@h MODE #tea -o alice", ":bob!b@h MODE #tea +o alice"], 2),
        ("", [":alice!a@h MODE #tea +o alice"], 0),  # who does it knows it
        ("", [":alice!a@h MODE #tea +o bob"], 0),
    ],
)
def test_user_who_becomes_an_operator_is_told_what_that_gives(alice, sign, lines, times):
    assert (enter(alice, sign) + alice.hear(*lines)).count(OPERATES % "#tea") == times


def test_operator_is_not_told_again_after_a_reconnect(alice):
    assert OPERATES % "#tea" in enter(alice, "@")
    alice.lose()
    alice.join()
    rejoined = [line % "@" if "%s" in line else line for line in JOIN_TEA]
    assert OPERATES % "#tea" not in alice.hear(*rejoined, ":hub 324 alice #tea +nt")


def test_operator_of_the_server_is_not_told_what_a_room_s_may(alice):
    alice.hear(":hub MODE alice +o")
    assert OPERATES % "#tea" not in enter(alice, "@")


@pytest.mark.parametrize(
    ("age", "others", "is_made"),
    [(0, "", True), (-1, "", True), (3600, "", False), (0, " bob", False)],
)
def test_channel_that_a_join_has_made_is_told_from_others(alice, age, others, is_made):
    created = ":hub 329 alice #tea %d" % (NOW - age)
    alice.type("/join #tea")
    joined = [line % "@" + others if "%s" in line else line for line in JOIN_TEA]
    shown = alice.hear(*joined, ":hub 324 alice #tea +nt", created, created)
    made = "[SYSTEM]: You made #tea. Nobody else is here yet."
    assert shown.count(made) == is_made


def test_channel_that_the_server_chose_is_not_called_the_user_s(alice):
    joined = [line % "@" if "%s" in line else line for line in JOIN_TEA]
    assert "You made" not in str(alice.hear(*joined, ":hub 329 alice #tea %d" % NOW))


@pytest.mark.parametrize("number", ["", "x", "9" * 400, "-1", "²"])
def test_creation_time_that_is_none_does_no_harm(alice, number):
    enter(alice, "@")
    alice.hear(":hub 329 alice #tea :" + number)
    assert alice.type("hello") == ["<[alice]: hello>"]


@pytest.mark.parametrize(
    ("caps", "lines", "is_shown"),
    [
        ("", [], False),  # a server without our rule
        (client.RESUME_CAP, [], True),
        (client.RESUME_CAP, [":hub 900 alice alice!a@h alice :In"], False),
        (client.RESUME_CAP, [":hub 900 alice alice!a@h ALICE :In"], False),
        (client.RESUME_CAP, [":alice!a@h JOIN #tea alice :Alice"], False),
        (client.RESUME_CAP, [":alice!a@h JOIN #tea * :Alice"], True),
        (client.RESUME_CAP, [":hub 900 alice alice!a@h bob :In"], True),  # of another name
        (client.RESUME_CAP, [":hub 900 alice alice!a@h alice :", ":hub 901 alice a :"], True),
    ],
)
def test_rule_of_private_messages_is_shown_to_those_for_whom_it_holds(caps, lines, is_shown):
    alice = User(caps).join()
    alice.hear(*lines)
    alice.do(alice.chat.do(NOW, alice.chat.open, "bob"))
    assert (client.PRIVATE_RULE in alice.chat.empty_text) == is_shown
    is_registered = bool(caps) and not is_shown
    rule = "What was said before you registered, or bob did, is not shown."
    assert (rule in alice.chat.empty_text) == is_registered
    assert ("No messages here yet" in alice.chat.empty_text) != is_registered
    alice.do(alice.chat.do(NOW, alice.chat.open, "#lobby"))
    assert alice.chat.empty_text == "No messages here yet. Say hello."


@pytest.mark.parametrize(
    ("lines", "count"),
    [
        ([":hub 482 alice #lobby :You're not channel operator"] * 2, 1),
        ([":hub 484 alice bob #lobby :bob is an operator of the server"] * 2, 1),
        ([":hub FAIL BAN INVALID_TARGET :You cannot ban yourself."] * 2, 1),
        ([":hub 401 alice zed :No such nick", ":hub 401 alice yan :No such nick"], 2),
        ([":bob!b@h PRIVMSG #lobby :hi"] * 2, 2),
    ],
)
def test_refusal_of_two_commands_at_once_is_said_once(alice, lines, count):
    assert len(alice.hear(*lines)) == count


# Passwords of rooms


WRONG = "[SYSTEM]: That is not the password of #tea."
NEEDED = "[SERVER]: #tea has a password. Type /join #tea PASSWORD"
NO_KEY = ":hub 475 alice #tea :Cannot join channel (+k)"


def test_wrong_password_of_a_room_is_said_to_be_wrong_and_forgotten(alice):
    for typed, shown_ in (("/join #tea", NEEDED), ("/join #tea x", WRONG), ("/join #tea", NEEDED)):
        alice.type(typed)
        assert alice.hear(NO_KEY) == [shown_]
    assert alice.sent == ["JOIN #tea", "JOIN #tea :x", "JOIN #tea"]
    assert alice.chat.current.refusal == client.NEEDS_KEY


def test_password_of_a_room_is_wrong_once_another_is_set(alice):
    alice.type("/join #tea sesame")
    alice.hear(*JOIN_TEA, ":hub 324 alice #tea +nt")
    alice.lose()
    alice.join()
    assert "JOIN #tea :sesame" in alice.sent
    assert alice.hear(NO_KEY) == [WRONG]
    alice.type("/join #tea sesame")
    alice.hear(*JOIN_TEA, ":bob!b@h KICK #tea alice :out")
    alice.type("/join #tea")  # without the password
    assert alice.hear(NO_KEY) == [NEEDED]
