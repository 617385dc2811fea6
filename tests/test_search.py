"""Search in all conversations: what is loaded, what the server keeps, and the way to a result."""

import time

import pytest
from harness import Room
from test_chat import CAPS, NOW, User
from window_harness import hear

import client
import protocol

SEARCH_CAPS = CAPS + " soju.im/search"
FOUND = "found in everything the server keeps"
LOADED = "found in what is loaded here (%s)"


def say(number, text, target="#lobby", sender="bob"):
    """The line of a message with this number, so many seconds after 17:00."""
    clock = "2026-11-22T%02d:%02d:%02d.000Z" % (17 + number // 3600, number // 60 % 60, number % 60)
    tags = "@msgid=%d;time=%s" % (number, clock)
    return "%s :%s!u@h PRIVMSG %s :%s" % (tags, sender, target, text)


def batch(kind, *lines):
    """An answer of the server."""
    told = [line.replace("@", "@batch=x;", 1) for line in lines]
    return [":hub BATCH +x " + kind, *told, ":hub BATCH -x"]


def found_by(alice):
    return [(r.conversation.name, r.entry.line.text) for r in alice.chat.lookup.results]


def search(alice, words):
    """Search for words; return what is found so far."""
    alice.do(alice.chat.do(NOW, alice.chat.search, words))
    return found_by(alice)


def choose(alice, index=0):
    result = alice.chat.lookup.results[index]
    alice.do(alice.chat.do(NOW, alice.chat.reveal, result))
    return result


def revealed(alice):
    return [change.entries[0].line.text for change in alice.changed(client.REVEALED)]


@pytest.fixture
def alice():
    """Alice on a server that searches; what is loaded of its history are the messages 10 to 12."""
    alice = User(SEARCH_CAPS).join()
    page = [say(10, "Tea at ten"), say(11, "Coffee"), say(12, "more TÉA")]
    alice.hear(*batch("chathistory #lobby", *page))
    alice.chat.conversation_named("#lobby").has_older = True
    assert len(alice.sent) == 1
    return alice


@pytest.fixture
def loaded():
    """Alice on a server that cannot search."""
    return User().join()


def test_loaded_messages_are_found_in_all_conversations(loaded):
    loaded.hear(":alice!a@h JOIN #tea", ":bob!b@h PRIVMSG #tea :green tea", say(1, "no"))
    loaded.hear(say(2, "Tea?"), say(3, "psst tea", "alice"), say(4, "tea, noise", sender="eve"))
    loaded.hear(":bob!b@h TOPIC #lobby :tea", ":hub NOTICE alice :tea")
    loaded.type("/ignore eve")
    # A private message that stands in the room, too, is found once; topics and names are not.
    assert sorted(search(loaded, "tea")) == [
        ("#lobby", "Tea?"), ("#tea", "green tea"), ("bob", "psst tea"),
    ]  # fmt: skip
    assert search(loaded, "bob") == [] and loaded.sent == []
    note = "Nothing " + LOADED % "this server cannot search"
    assert loaded.chat.lookup.note == note


def test_server_is_asked_and_its_answer_is_merged(alice):
    assert search(alice, "tea") == [("#lobby", "more TÉA"), ("#lobby", "Tea at ten")]
    assert alice.sent == ["SEARCH limit=100;text=tea"]
    assert alice.chat.lookup.note == "Searching everything the server keeps…"
    alice.ignored.append("eve")
    answer = [
        say(2, "old tea"), say(3, "tea to you", "alice"), say(4, "tea to bob", "bob", "alice"),
        say(5, "as another tea", "bob", "alicia"), say(6, "tea of eve", sender="eve"),
        say(7, "tea for carol", "carol", "alice"), say(8, "tea there", "#gone"),
        say(10, "Tea at ten"), say(12, "more TÉA"),
    ]  # fmt: skip
    alice.do(alice.chat.do(NOW, alice.chat.open, "bob"))
    assert alice.hear(*batch("soju.im/search", *answer)) == []
    assert found_by(alice) == [
        ("#lobby", "more TÉA"), ("#lobby", "Tea at ten"), ("#gone", "tea there"),
        ("carol", "tea for carol"), ("bob", "as another tea"), ("bob", "tea to bob"),
        ("bob", "tea to you"), ("#lobby", "old tea"),
    ]  # fmt: skip
    assert alice.chat.lookup.note == "8 messages " + FOUND
    assert [r.entry.is_own for r in alice.chat.lookup.results[3:7]] == [True, True, True, False]
    first = alice.chat.lookup.results[0]
    assert first.entry in alice.chat.conversation_named("#lobby").entries and first.spans == (
        (5, 8),
    )
    assert len(alice.chat.conversations) == 2  # none is opened


@pytest.mark.parametrize("found", [(), (say(2, "old tea"),)])
def test_search_that_was_cut_short_says_so(alice, found):
    search(alice, "tea")
    cut = ":hub NOTE SEARCH INCOMPLETE :There was no time to search all messages."
    cut = "@time=2026-11-22T17:00:00.000Z " + cut
    assert alice.hear(*batch("soju.im/search", *found, cut)) == []
    assert alice.chat.lookup.note == (
        "%d messages found, but the server had no time to search older messages" % (2 + len(found))
    )
    assert alice.chat.conversation_named("SEARCH") is None


@pytest.mark.parametrize(
    ("words", "sent"),
    [
        ("green tea; black = \\", "SEARCH limit=100;text=green\\stea\\:\\sblack\\s=\\s\\\\"),
        ("茶", "SEARCH limit=100;text=茶"),
        ("😀", "SEARCH limit=100;text=😀"),
    ],
)
def test_words_are_sent_as_they_are(alice, words, sent):
    assert search(alice, words) == []
    assert alice.sent == [sent]


def test_long_words_are_cut(alice):
    search(alice, "ö" * 20000)
    (line,) = alice.sent
    assert line.startswith("SEARCH limit=100;text=ööö") and len(line.encode()) <= 510


@pytest.mark.parametrize("words", ["", "t", " ", "\u0301", "e\u0301"])
def test_a_letter_is_too_short(alice, words):
    assert search(alice, words.strip()) == [] and alice.sent == []
    assert alice.chat.lookup.note == "Write at least two letters"


@pytest.mark.parametrize(
    ("end", "why"),
    [
        ("refused", "the server could not search"),
        ("late", "the server could not search"),
        ("half an answer", "the server could not search"),
        ("lost", "the connection was lost"),
        ("not connected", "you are not connected"),
    ],
)
def test_search_without_an_answer_says_so(alice, end, why):
    """Loaded messages are shown, and a late answer does not count as news."""
    if end == "not connected":
        alice.lose()
    search(alice, "tea")
    if end == "refused":
        assert alice.hear(":hub FAIL SEARCH INVALID_PARAMS :The limit is wrong") == []
    elif end == "lost":
        alice.lose()
    elif end != "not connected":
        late = batch("soju.im/search", say(2, "old tea"))
        cut = 2 if end == "half an answer" else 0
        alice.hear(*late[:cut])
        alice.do(alice.chat.do(NOW + 100, alice.chat.tick))
        assert alice.hear(*late[cut:]) == []
    assert alice.chat.lookup.note == "2 messages " + LOADED % why
    assert len(found_by(alice)) == 2
    assert alice.chat.history.requests == []


def test_answers_go_to_their_own_search(alice):
    search(alice, "green")
    search(alice, "green")  # is being asked
    search(alice, "tea")
    assert alice.sent == ["SEARCH limit=100;text=green", "SEARCH limit=100;text=tea"]
    alice.hear(*batch("soju.im/search", say(2, "green")))
    assert "green" not in str(found_by(alice)) and not alice.chat.lookup.is_done
    alice.hear(*batch("soju.im/search", say(3, "old tea")))
    assert found_by(alice)[-1] == ("#lobby", "old tea")
    search(alice, "tea")  # again, as there may be more now
    assert alice.sent == ["SEARCH limit=100;text=tea"]


def test_newest_hundred_are_kept(alice):
    search(alice, "tea")
    alice.hear(*batch("soju.im/search", *(say(n, "tea %d" % n) for n in range(100, 200))))
    assert [found_by(alice)[n][1] for n in (0, -1)] == ["tea 199", "tea 100"]
    assert alice.chat.lookup.note == "The newest 100 messages " + FOUND


def test_loaded_result_is_brought_into_view(alice):
    alice.do(alice.chat.do(NOW, alice.chat.open, "carol"))
    alice.hear(*batch("chathistory carol"))
    search(alice, "ten")
    assert alice.sent != []
    choose(alice)
    assert alice.chat.current.name == "#lobby" and revealed(alice) == ["Tea at ten"]
    assert alice.sent == []


def test_history_around_a_result_is_loaded_without_a_gap(alice):
    """First what stands around it, then the rest up to what is loaded, and no more than that."""
    search(alice, "old")
    alice.hear(*batch("soju.im/search", say(2, "old tea")))
    assert alice.sent != []
    choose(alice)
    assert alice.sent == ["CHATHISTORY AROUND #lobby msgid=2 :50"] and revealed(alice) == []
    page = [say(n, "old tea" if n == 2 else "line %d" % n) for n in (1, 2, 3)]
    alice.hear(*batch("chathistory #lobby", *page))
    assert revealed(alice) == ["old tea"] and alice.chat.lookup.revealing is None
    assert alice.sent == ["CHATHISTORY BETWEEN #lobby msgid=3 msgid=10 :500"]
    alice.hear(*batch("chathistory #lobby", *(say(n, "line %d" % n) for n in range(4, 10))))
    assert alice.sent == [] and revealed(alice) == []
    places = [int(e.msgid) for e in alice.chat.conversation_named("#lobby").entries if e.msgid]
    assert places == list(range(1, 13))
    assert alice.chat.conversation_named("#lobby").has_older


def test_gap_that_is_too_long_is_shown(alice, monkeypatch):
    """A result from the gap gets its place there later."""
    monkeypatch.setattr(client, "MAX_ENTRIES", 5)
    search(alice, "old")
    alice.hear(*batch("soju.im/search", say(2, "old tea"), say(5, "old, too")))
    choose(alice, 1)
    alice.hear(*batch("chathistory #lobby", say(2, "old tea"), say(3, "then")))
    choose(alice, 0)
    alice.hear(*batch("chathistory #lobby", say(3, "then"), say(5, "old, too"), say(6, "now")))
    assert revealed(alice) == ["old tea", "old, too"]
    entries = alice.chat.conversation_named("#lobby").entries
    assert [e.msgid or e.line.kind for e in entries if e.line.kind != client.FROM_SERVER] == [
        "2", "3", "system", "5", "6", "system", "10", "11", "12",
    ]  # fmt: skip
    texts = [
        entry.text
        for entry in alice.chat.conversation_named("#lobby").entries
        if entry.line.nickname == ""
    ]
    assert texts.count("[SYSTEM]: Messages are missing here.") == 2
    assert alice.chat.history.requests == []


@pytest.mark.parametrize("end", ["lost", "refused", "late"])
def test_gap_is_shown_if_its_messages_do_not_come(alice, end):
    search(alice, "old")
    alice.hear(*batch("soju.im/search", say(2, "old tea")))
    choose(alice)
    alice.hear(*batch("chathistory #lobby", say(1, "line 1"), say(2, "old tea")))
    assert alice.sent[-1].startswith("CHATHISTORY BETWEEN")
    if end == "lost":
        alice.lose()
    elif end == "refused":
        alice.hear(":hub FAIL CHATHISTORY MESSAGE_ERROR BETWEEN #lobby :No")
    else:
        alice.do(alice.chat.do(NOW + 100, alice.chat.tick))
    texts = [
        entry.line.text
        for entry in alice.chat.conversation_named("#lobby").entries
        if entry.line.head
    ]
    start = texts.index("old tea")
    assert texts[start : start + 3] == ["old tea", "Messages are missing here.", "Tea at ten"]


def test_failure_of_the_history_does_not_end_a_search(alice):
    search(alice, "tea")
    alice.hear(":hub FAIL CHATHISTORY MESSAGE_ERROR :Try again")
    assert not alice.chat.lookup.is_done
    alice.hear(*batch("soju.im/search", say(2, "old tea")))
    assert found_by(alice)[-1] == ("#lobby", "old tea")


def test_result_in_a_room_that_cannot_be_joined_is_not_waited_for(alice):
    search(alice, "tea")
    alice.hear(*batch("soju.im/search", say(2, "tea there", "#gone")))
    choose(alice, -1)
    alice.hear(":hub 473 alice #gone :Cannot join channel (+i)")
    assert alice.chat.lookup.revealing is None
    assert any("cannot be loaded" in text for text in alice.seen("#gone"))


@pytest.mark.parametrize("answer", ["page without it", "refusal", "late", "disconnected"])
def test_result_that_cannot_be_loaded_is_not_waited_for(alice, answer):
    search(alice, "old")
    alice.hear(*batch("soju.im/search", say(2, "old tea")))
    if answer == "disconnected":
        alice.lose()
    alice.lines.clear()
    choose(alice)
    if answer == "page without it":
        alice.hear(*batch("chathistory #lobby", say(1, "line 1")))
    elif answer == "refusal":
        alice.hear(":hub FAIL CHATHISTORY INVALID_TARGET AROUND #lobby :No")
    elif answer == "late":
        alice.do(alice.chat.do(NOW + 100, alice.chat.tick))
    when = alice.chat.lookup.results[0].entry.line.clock
    texts = [line.text for line in alice.lines]
    assert "The message of %s cannot be loaded now." % when in texts
    assert revealed(alice) == [] and alice.chat.lookup.revealing is None


def test_result_in_a_conversation_that_is_not_open(alice):
    """It is opened, or joined, with its latest page, which may have the result already."""
    search(alice, "old")
    found = say(2, "old tea", "alice"), say(3, "old, in the den", "#den")
    alice.hear(*batch("soju.im/search", *found))
    assert alice.sent != []
    choose(alice, 1)
    assert alice.sent == ["CHATHISTORY LATEST bob * :50"] and alice.chat.current.name == "bob"
    alice.hear(*batch("chathistory bob", found[0]))
    assert revealed(alice) == ["old tea"] and alice.sent == []
    choose(alice, 0)
    assert alice.sent == ["JOIN #den"]
    alice.hear(":alice!alice@host JOIN #den")
    alice.hear(*batch("chathistory #den", say(7, "line", "#den"), say(8, "line", "#den")))
    assert alice.sent[-1] == "CHATHISTORY AROUND #den msgid=3 :50"
    alice.hear(*batch("chathistory #den", found[1], say(7, "line", "#den")))
    assert revealed(alice) == ["old, in the den"] and alice.sent == []


def test_result_is_given_up_when_another_conversation_is_chosen(alice):
    search(alice, "old")
    alice.hear(*batch("soju.im/search", say(2, "old tea")))
    choose(alice)
    alice.do(alice.chat.do(NOW, alice.chat.open, "bob"))
    alice.hear(*batch("chathistory #lobby", say(2, "old tea")))
    assert revealed(alice) == [] and alice.chat.current.name == "bob"


def test_many_loaded_messages_are_searched_quickly(loaded):
    line = protocol.Line(client.FROM_OTHERS, NOW, "[bob]:", "é" * 40, "bob")
    for number in range(5):
        room = loaded.chat.create("#room%d" % number, client.CHANNEL)
        room.entries = [client.Entry(n, line) for n in range(client.MAX_ENTRIES)]
    start = time.thread_time()
    search(loaded, "tea")
    assert time.thread_time() - start < 0.5


# In the window


@pytest.fixture
def room(tmp_path):
    """A server that keeps 300 lines of the lobby, the first about tea, and a private line."""
    room = Room(data=str(tmp_path / "room"), network="School")
    bob, carol = room.irc("bob"), room.irc("carol")
    bob.send("PRIVMSG #lobby :the oldest Tea is here")
    bob.send(*("PRIVMSG #lobby :line %d" % number for number in range(300)))
    bob.heard()
    room.bob, room.carol = bob, carol
    yield room
    room.close()


@pytest.fixture
def anna(desktop, room):
    anna = desktop.join(room.server.port, "anna")
    room.bob.send("PRIVMSG anna :green tea?", "PRIVMSG carol :tea is not for anna")
    anna.sees("[bob -> you]: green tea?  (only you two)")
    return anna


def rows(anna):
    return [row.text for row in anna.sheet.list.rows] if anna.sheet is not None else []


FOUND_TEA = ["2 messages " + FOUND, "green tea?", "the oldest Tea is here"]


def asked(anna, monkeypatch):
    """The words that the server is asked for from now on."""
    words, search = [], client._search
    monkeypatch.setattr(
        client, "_search", lambda chat, lookup: (words.append(lookup.words), search(chat, lookup))
    )
    return words


@pytest.mark.parametrize("way", ["key", "button", "menu", "command"])
def test_all_conversations_are_searched_from_the_window(anna, desktop, way):
    if way == "menu":
        anna.open_menu("Search all conversations…")
        desktop.pump(lambda: rows(anna) == ["Write at least two letters"])
        anna.sheet.field.set("tea")
    elif way == "command":
        anna.say("/search tea")
    else:
        anna.press("Control-f", anna.box)
        anna.chat_view.search_bar.field.set("tea")
        button = anna.chat_view.search_bar.all_button
        if way == "key":
            anna.press("Control-Shift-F")
        else:
            anna.press("Tab")
            assert anna.has_focus(button) and button.winfo_viewable()
            anna.press("Return")
    desktop.pump(lambda: rows(anna) == FOUND_TEA)
    assert anna.has_focus(anna.sheet.field.text) and anna.sheet.field.get() == "tea"
    desktop.pump(lambda: {"#lobby", "privately", "tea"} <= set(anna.drawn(anna.sheet.list)))
    anna.press("Escape")
    assert anna.sheet is None


def test_server_is_asked_once_for_what_is_typed(anna, desktop, monkeypatch):
    words, passed = asked(anna, monkeypatch), []
    anna.press("Control-Shift-F", anna.box)
    monkeypatch.setattr(client, "TYPING_MS", 10**6)
    anna.type("gree")
    desktop.pump(lambda: anna.sheet.field.get() == "gree" and rows(anna) == ["Searching…"])
    anna.press("Return", anna.sheet.field.text)  # nothing is there to be chosen yet
    assert words == [""]
    monkeypatch.setattr(client, "TYPING_MS", 20)
    anna.type("n")
    desktop.pump(lambda: rows(anna)[1:] == ["green tea?"])
    assert words == ["", "green"]
    anna.type("s")
    anna.press("Escape")
    anna.root.after(100, passed.append, True)
    desktop.pump(lambda: passed)
    assert anna.sheet is None  # and it does not come back


def test_result_is_shown_where_it_was_said(anna, desktop):
    """With what stands around it, marked; what is typed next is for its conversation."""
    lobby = anna.window.chat.conversation_named("#lobby")
    anna.chat_view.open("bob")
    assert "oldest" not in str([entry.text for entry in lobby.entries])
    anna.say("/search tea")
    desktop.pump(lambda: rows(anna) == FOUND_TEA)
    anna.press("Down")
    anna.press("Return")
    desktop.pump(lambda: anna.text.tag_ranges("found"))
    assert anna.window.chat.current is lobby and anna.sheet is None
    assert anna.text.get(*anna.text.tag_ranges("found")) == "Tea"
    assert anna.text.dlineinfo("found.first")  # in view
    assert anna.chat_view.search_bar.is_open and anna.chat_view.search_bar.field.get() == "tea"
    desktop.pump(lambda: not anna.window.chat.history.requests)
    texts = [entry.line.text for entry in lobby.entries if entry.line.nickname == "bob"]
    assert texts[:301] == ["the oldest Tea is here"] + ["line %d" % n for n in range(300)]
    assert anna.text.dlineinfo("found.first") and anna.found.endswith("of 2")
    anna.press("Escape")
    assert not anna.text.tag_ranges("found")


def test_what_is_loaded_is_searched_where_the_server_cannot(desktop, hub):
    anna = desktop.open(hub.port, "anna", at_once=True)
    hub.welcome("anna")
    hear(hub, anna, "Tea 😀 for two", "a long line about nothing at all %s tea" % ("and " * 20))
    anna.say("/search tea")
    note = "2 messages " + LOADED % "this server cannot search"
    desktop.pump(lambda: rows(anna)[:1] == [note])
    desktop.pump(lambda: anna.drawn(anna.sheet.list).count("#lobby") == 2)
    canvas = anna.sheet.list.canvas
    marks = [item for item in canvas.find_all() if canvas.type(item) == "rectangle"]
    assert len(marks) == 2 and all(canvas.bbox(item)[2] < canvas.winfo_width() for item in marks)
    assert anna.drawn(anna.sheet.list).count("tea") == 1  # it is not cut off
    anna.sheet.close(anna.window.chat.lookup.results[-1])
    desktop.pump(lambda: anna.text.tag_ranges("found"))
    assert anna.text.get(*anna.text.tag_ranges("found")) == "Tea"
