"""The transcript: it applies changes exactly, and leaves the view where it is."""

import random
import re
import time

import pytest
from window_harness import CLOCK, hear

import client
from client import ADDED, CHANGED, REMOVED, Change, Entry, Line


@pytest.fixture
def alice(desktop, hub):
    """Alice at a window of a fixed size, in a lobby with more lines than fit."""
    alice = desktop.open(hub.port, "alice", at_once=True)
    hub.welcome()
    hear(hub, alice, *("line %d" % number for number in range(200)))
    desktop.pump(lambda: alice.root.winfo_width() == 1160)
    desktop.update()
    return alice


def settled(desktop, alice):
    """Return whether the view is at the end once nothing moves any more."""
    for _ in range(20):
        desktop.update()
    return alice.is_at_end()


def chosen(alice):
    """Return the lines that are marked as chosen."""
    found = alice.text.tag_ranges("cursor")
    return [alice.text.get(*found).rstrip("\n")[len("[00:00:00] ") :]] if found else []


class Model:
    """A conversation that changes at random, and tells which changes those were."""

    def __init__(self, seed):
        self.conversation = client.Conversation("#lobby", client.CHANNEL)
        self.conversation.hides_joins = seed % 2 == 1
        self._random = random.Random(seed)
        self._count = 0

    def _entries(self, most):
        for _ in range(self._random.randint(1, most)):
            self._count += 1
            when = self._random.choice([1.7e9, 1.7e9, 1.7e9 + 100, 1.7e9 + 9e4, time.time()])
            name = self._random.choice(["bob", "bob", "bob", "carol"])
            text = self._random.choice(["text %d", "text %d", "    text %d"]) % self._count
            entry = Entry(self._count, Line(client.FROM_OTHERS, when, "[%s]:" % name, text, name))
            entry.event = self._random.choice(["", "", "", "joined"])
            yield entry

    def change(self):
        """Change the conversation, and return what a Chat would."""
        entries, pick = self.conversation.entries, self._random.randrange
        kind = self._random.choice([ADDED, ADDED, ADDED, CHANGED, REMOVED, "mark"])
        if kind == ADDED:
            new, index = list(self._entries(5)), len(entries)
            if self._random.random() < 0.5:
                index = pick(len(entries) + 1)
            before = entries[index] if index < len(entries) else None
            entries[index:index] = new
            return [Change(ADDED, self.conversation, new, before)]
        if not entries:
            return []
        start = pick(len(entries))
        some = entries[start : start + 3]
        if kind == CHANGED:
            for entry in some:
                when = self._random.choice([entry.line.when, time.time()])  # late at night
                entry.line = entry.line._replace(text=entry.line.text + "!", when=when)
        elif kind == REMOVED:
            del entries[start : start + 3]
        else:
            old, self.conversation.mark = self.conversation.mark, some[0]
            self.conversation.new_count = pick(3)
            return [Change(CHANGED, self.conversation, [e for e in (old, some[0]) if e])]
        return [Change(kind, self.conversation, some)]


def shown(transcript):
    """Return the text, and the tags at the beginning and the end of each line."""
    text = transcript.text
    lines = text.get("1.0", "end-1c").split("\n")
    places = ["%d.%s" % (row, end) for row in range(1, len(lines)) for end in ("0", "end")]
    return lines, [sorted(set(text.tag_names(place)) - {"sel"}) for place in places]


@pytest.mark.parametrize("seed", range(8))
def test_changes_give_the_same_text_as_opening_anew(desktop, seed):
    """Applied singly, or in batches when the conversation is already ahead of them."""
    window = desktop.open().window
    window.chat_view.frame.pack()
    applied, opened = (client.Transcript(window.root, window.look) for _ in range(2))
    for transcript in (applied, opened):
        transcript.frame.place(width=300, height=200)
    model, chance = Model(seed), random.Random(seed)
    applied.open(model.conversation)
    for _ in range(30):
        changes = [c for _ in range(chance.choice([1, 1, 6])) for c in model.change()]
        applied.apply(changes)
        window.root.update()
        opened.open(model.conversation)
        window.root.update()
        assert shown(applied) == shown(opened)


def test_entries_above_the_view_move_nothing(alice, desktop, hub):
    """They come, change and go above; what is read stays at its place."""
    alice.text.yview_moveto(0.5)
    desktop.update()
    words = alice.top_line()[11:]
    y = alice.y_of(words)
    conversation = alice.window.chat.current
    entries, day = conversation.entries, time.time() - 90000
    earlier = [Entry(10**6 + n, Line("others", day, "[bob]:", "earlier", "bob")) for n in range(30)]
    first, gone = entries[0], entries[5:9]
    entries[0:0] = earlier
    entries[:] = [entry for entry in entries if entry not in gone]
    entries[40].line = entries[40].line._replace(text="much longer " * 30)
    alice.chat_view.show(
        [
            Change(ADDED, conversation, earlier, first),
            Change(REMOVED, conversation, gone),
            Change(CHANGED, conversation, [entries[40]]),
        ]
    )
    assert alice.y_of(words) == y
    hear(hub, alice, "news")
    assert alice.y_of(words) == y


def test_view_at_the_end_stays_there(alice, desktop, hub):
    """Also when the user scrolls just before a message comes, of which Tk tells late."""
    for place, is_at_end in ((0.5, False), (1.0, True), (0.8, False), (1.0, True)):
        alice.text.yview_moveto(place)
        seen = alice.top_line()
        news = client.Message("PRIVMSG", ("#lobby", "news"), "bob!b@h")
        alice.window.do(alice.window.chat.handle, news)
        assert settled(desktop, alice) == is_at_end
        assert (alice.top_line() == seen) != is_at_end


@pytest.mark.parametrize("count", [500, 2000])
def test_scrolled_up_view_does_not_jump(alice, desktop, hub, count):
    for start in range(0, count, 500):
        hear(hub, alice, *("message %d" % n for n in range(start, start + 500)))
    alice.text.yview("end - 100 lines")
    desktop.update()
    seen = alice.top_line()
    hear(hub, alice, "news")
    desktop.update()
    assert alice.top_line() == seen


def test_end_stays_in_view_when_the_window_changes(alice, desktop, hub):
    for size in ("700x400", "480x360", "1000x700"):
        alice.root.geometry(size)
        assert settled(desktop, alice)
    alice.paste("a\nb\nc\nd\ne")  # the box grows
    assert settled(desktop, alice)
    hub.finish()
    desktop.pump(lambda: alice.banner)
    assert settled(desktop, alice)


def test_own_message_brings_the_end_into_view(alice, desktop, hub):
    alice.text.yview_moveto(0.2)
    desktop.update()
    hear(hub, alice, "news")
    assert not settled(desktop, alice)
    alice.say("/help")
    assert settled(desktop, alice)


def test_pill_counts_what_came_and_leads_to_the_end(alice, desktop, hub):
    for lead in (alice.chat_view.pill.invoke, lambda: alice.press("Escape")):
        alice.text.yview_moveto(0.3)
        desktop.update()
        assert alice.pill == "Jump to latest"
        hear(hub, alice, "one")
        hear(hub, alice, "two")
        desktop.pump(lambda: alice.pill == "2 new messages")
        lead()
        desktop.pump(lambda: not alice.pill)
        assert alice.is_at_end()


def test_scrolling_to_the_top_adds_earlier_entries(desktop, open_room, tmp_path):
    """Page after page, up to the first message; what is read stays where it is."""
    room = open_room(data=str(tmp_path / "data"))
    bob = room.irc("bob")
    for number in range(170):
        bob.send("PRIVMSG #lobby :word %d" % number)
    bob.heard()
    alice = desktop.open(room.server.port, "alice", at_once=True)
    alice.sees("[bob]: word 169")
    assert "[bob]: word 119" not in alice.lines
    alice.press("Control-Home", alice.box)
    seen = alice.y_of("word 120")
    desktop.pump(lambda: "[bob]: word 119" in alice.lines)
    desktop.update()
    assert alice.y_of("word 120") == seen
    while "[bob]: word 0" not in alice.lines:
        before = len(alice.lines)
        alice.press("Control-Home", alice.box)
        desktop.pump(lambda before=before: len(alice.lines) > before)
    words = [line for line in alice.lines if line.startswith("[bob]")]
    assert words == ["[bob]: word %d" % number for number in range(170)]


def test_selection_is_copied_as_it_is_shown(alice):
    start = alice.text.search("line 198", "1.0")
    alice.text.tag_add("sel", start, "end-2c")
    alice.text.event_generate("<<Copy>>")
    copied = alice.root.clipboard_get().split("\n")
    assert copied[0] == "line 198" and copied[1].endswith("[bob]: line 199")


def test_copy_is_the_classic_format_alone(alice, desktop, hub):
    """Without headings, quotes and notes; the same for what X11 pastes with the middle button."""
    hear(hub, alice, "old")
    hub.send(
        ":bob!b@h PRIVMSG alice :psst",
        "@msgid=1 :bob!b@h PRIVMSG #lobby :a",
        "@+draft/reply=1 :bob!b@h PRIVMSG #lobby :b",
    )
    alice.sees("[bob]: b")
    alice.say("@dave hi")
    hub.send(":hub 401 alice dave :No such nick/channel")
    alice.sees("[SERVER]: No such user: dave")
    shown = alice.lines[alice.lines.index("[bob]: old") + 1 :]
    assert [line for line in shown if "bob" in line or "hi" in line] == [
        "[bob -> you]: psst  (only you two)", "[bob]: a", "↳ [bob]: a", "[bob]: b",
        "[you -> dave]: hi  (not delivered)   Try\xa0again  ·  Edit  ·  Discard",
    ]  # fmt: skip
    classic = ["[bob -> you]: psst", "[bob]: a", "[bob]: b", "[you -> dave]: hi"]
    alice.press("Control-a", alice.text)
    alice.press("Control-c", alice.text)
    copied = alice.root.clipboard_get(), alice.root.selection_get()
    for text in copied:
        clocks, lines = zip(*(line.split(" ", 1) for line in text.splitlines()))
        assert [*lines[lines.index("[bob]: old") + 1 :]][:4] == classic
        assert all(re.match(r"\[\d\d:\d\d:\d\d\]$", clock) for clock in clocks)


@pytest.mark.parametrize(
    ("name", "caps", "words"),
    [
        ("carol", [], []),
        ("carol", [client.RESUME_CAP], [client.PRIVATE_RULE]),
        ("#tea", [client.RESUME_CAP], []),
    ],
)
def test_empty_conversation_says_so(alice, desktop, name, caps, words):
    """And, in private, for whom the server keeps what was said before."""
    alice.window.chat.session.caps |= set(caps)
    alice.chat_view.open(name)
    label = alice.chat_view.transcript.empty
    desktop.pump(label.winfo_viewable)
    assert label.cget("text").split("\n") == ["No messages here yet. Say hello.", *words]
    alice.say("hello")
    desktop.pump(lambda: not label.winfo_viewable())


def test_days_have_headings(alice, monkeypatch):
    """Each above its first entry; at midnight, Today becomes Yesterday."""
    assert alice.lines[0] == "Today"
    assert client.day_name("2026-11-25", "2026-11-26") == "Yesterday"
    assert client.day_name("2026-11-02", "2026-11-26") == "Monday 2 November"
    assert client.day_name("2025-11-02", "2026-11-26") == "Sunday 2 November 2025"
    alice.chat_view.open("carol")
    alice.say("one")
    tomorrow = time.strftime("%Y-%m-%d", time.localtime(time.time() + 86400))
    real = time.strftime
    monkeypatch.setattr(
        client.time, "strftime", lambda form, *when: real(form, *when) if when else tomorrow
    )
    alice.say("two")
    assert alice.lines == ["Yesterday", "[you -> carol]: one", "[you -> carol]: two"]


def head_color(person, words):
    """Return the color of the name at the beginning of the line with `words`."""
    start = person.text.search(words, "1.0", exact=True)
    tags = person.text.tag_names("%s linestart + 12c" % start)
    colors = [person.text.tag_cget(tag, "foreground") for tag in tags]
    return [color for color in colors if color][-1]  # that of the highest tag


def test_others_names_have_their_own_colors(alice, desktop, hub):
    """The text beside them does not; own lines and the server's keep theirs."""
    hub.send(":carol!c@h PRIVMSG #lobby :hello", ":dave!d@h JOIN #lobby")
    alice.sees("[SERVER]: dave joined the chat")
    for theme in ("dark", "light"):
        color = client.PALETTES[theme]
        expected = color["name%d" % client.find_shade("carol")]
        assert head_color(alice, "hello") == expected != color["others"]
        assert alice.color_of("[carol]: hello") == color["others"]
        assert head_color(alice, "dave joined") == color["server"]
        alice.window.toggle_theme()
        desktop.update()


def test_name_and_avatar_are_of_the_same_color(alice, desktop, hub, monkeypatch):
    names = ["erik", "dana", "frank", "zoe"]
    hub.send(*(":%s!x@h JOIN #lobby" % name for name in names))
    hub.send(*(":%s!x@h PRIVMSG #lobby :I am %s" % (name, name) for name in names))
    alice.sees("[zoe]: I am zoe")
    avatars = drawn_avatars(alice, desktop, monkeypatch)
    for name in names:
        shade = client.find_shade(name)
        assert head_color(alice, "I am " + name) == alice.window.look.color["name%d" % shade]
        assert avatars[name] == client.AVATARS[shade]
    assert len({avatars[name] for name in names}) > 2


def drawn_avatars(person, desktop, monkeypatch):
    """Draw the people in view; return the colors of their avatars, by name."""
    discs, disc = [], client.Drawing._disc
    with monkeypatch.context() as patch:
        recorder = lambda *args: discs.append(args[1:]) or disc(*args)  # noqa: E731
        patch.setattr(client.Drawing, "_disc", recorder)
        person.chat_view.people.list._drawing.redraw()
        desktop.update()
    return dict(zip(person.people, [color for size, color in discs if size == 28]))


def test_lines_of_a_sender_stand_close_together(alice, desktop, hub):
    """The first stands out, the others are dimmer; all keep time and name."""
    hub.send(*("@time=2026-01-01T12:%02d:00.000Z :%s!u@h PRIVMSG #lobby :%s" % said for said in [
        (0, "bob", "one"), (1, "bob", "two"), (2, "carol", "three"), (3, "bob", "four"),
        (9, "bob", "five"), (9, "bob", "\x01ACTION waves\x01"), (9, "bob", "six"),
    ]))  # fmt: skip
    alice.sees("[bob]: six")
    close = [w for w in "one two three four five waves six".split() if "repeat" in alice.tags_of(w)]
    assert close == ["two"]
    assert head_color(alice, "two") == client.PALETTES["dark"]["muted"] != head_color(alice, "one")
    assert "[bob]: two" in alice.lines


def test_joins_and_leaves_can_be_hidden(alice, desktop, hub):
    """In a room, with those to come; search, copies and the mark of what is new pass over them."""
    chat = alice.window.chat
    moves = ":carol!c@h JOIN #lobby", ":carol!c@h PART #lobby"
    hub.send(moves[0], ":bob!b@h PRIVMSG #lobby :one", moves[1], ":bob!b@h PRIVMSG #lobby :two")
    alice.sees("[bob]: two")

    def toggle(words):
        alice.window.menus.open_conversation(chat.current, desktop_event(alice))
        alice.choose(words)

    toggle("Hide joins and leaves")
    assert alice.lines[-2:] == ["[bob]: one", "[bob]: two"]
    assert "repeat" in alice.tags_of("two") and not chat.current.find("carol")
    hub.send(moves[0], ":bob!b@h PRIVMSG #lobby :three", moves[1])
    alice.sees("[bob]: three")
    assert alice.lines[-1] == "[bob]: three"
    settings = client.Settings(client.settings_path())
    settings.load()
    again = client.Chat(chat.address, settings.levels, [])
    assert again.create("#lobby", client.CHANNEL).hides_joins
    assert not again.create("#other", client.CHANNEL).hides_joins
    toggle("✓ Hide joins and leaves")
    assert [line for line in alice.lines if "carol" in line] == [
        "[SERVER]: carol joined the chat", "[SERVER]: carol left #lobby",
    ] * 2  # fmt: skip


def test_hiding_joins_leaves_the_view_where_it_is(alice, desktop, hub):
    """Also if a join is at its top."""
    lines = [
        ":u%d!u@h JOIN #lobby" % n if n % 4 == 0 else ":bob!b@h PRIVMSG #lobby :line %d" % n
        for n in range(1, 260)
    ]
    hub.send(*lines)
    alice.sees("[bob]: line 259")
    transcript, chat = alice.chat_view.transcript, alice.window.chat
    top = next(e for e in chat.current.entries if e.line.text.startswith("u120 "))
    alice.text.yview(transcript._line(top))
    alice.text.yview_scroll(2, "pixels")
    desktop.pump(lambda: transcript.entry_at("@0,0") is top and not transcript.at_end)
    alice.window.do(chat.toggle_joins, chat.current)
    assert transcript.entry_at("@0,0").line.text in ("line 119", "line 121")


def desktop_event(person):
    """Return an event at a widget, for which a menu is opened."""
    event = client.tk.Event()
    event.widget, event.type = person.text, client.tk.EventType.KeyPress
    return event


CODE = ["def area(r):", "    if r < 0:", "        raise ValueError", "    return 3 * r * r"]


@pytest.mark.parametrize("times", ["2223", "2468"])
@pytest.mark.parametrize("lines", [CODE, ["```", "x = 1", "y = 2", "```"]])
def test_pasted_code_keeps_its_shape(alice, hub, lines, times):
    """It comes line by line, is recognised late, and is copied as it was said."""
    said = ":bob!b@h PRIVMSG #lobby :"
    hub.send("@time=2026-01-01T12:00:00.000Z " + said + "look at this")
    for second, line in zip(times, lines):
        hub.send("@time=2026-01-01T12:00:%02d.000Z %s%s" % (int(second) + 2, said, line))
        alice.sees("[bob]: " + line)
    hub.send(said + "what do you think?")
    alice.sees("[bob]: what do you think?")
    rows = [alice.lines.index("[bob]: " + line) + 1 for line in lines]
    assert all("code" in alice.text.tag_names("%d.end" % row) for row in rows)
    assert "code" not in alice.text.tag_names("%d.0" % rows[0])  # its time
    assert not {"code"}.intersection(alice.tags_of("look at"), alice.tags_of("what do"))


def test_lines_that_are_no_paste_are_not_code(alice, hub):
    """A single line, lines of several people, lines that are not indented."""
    hub.send(*("@time=2026-01-01T12:00:%02d.000Z :%s!u@h PRIVMSG #lobby :%s" % said for said in [
        (0, "bob", "    one"), (3, "bob", "two"), (4, "bob", "three"), (4, "carol", "    four"),
        (4, "bob", "five"), (5, "bob", " six"),
    ]))  # fmt: skip
    alice.sees("[bob]:  six")
    assert not alice.text.tag_ranges("code")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (CODE, True),
        (["so:", *CODE, "print(area(2))"], True),
        (["import sys", " ", "  x = 1"], True),
        (["```sh", "ls", "```"], True),
        (["not closed:", "```", "ls"], True),
        (["    return 1"], False),  # a single line
        (["```"], False),
        (["one", " two", " "], False),
    ],
)
def test_paste_is_code_if_a_line_of_it_is_indented_or_fenced(lines, expected):
    """All of it is, and nothing around it."""
    entries = [
        Entry(number, Line(client.FROM_OTHERS, 10.0 * at, "[bob]:", text, "bob"))
        for number, (at, text) in enumerate(
            [(0, "look"), *((1, line) for line in lines), (2, "so")]
        )
    ]
    assert client.find_code(entries) == (set(entries[1:-1]) if expected else set())


@pytest.mark.parametrize(
    "lines",
    [
        ["if x:", *(("z%d()" if n % 50 else "    y%d()") % n for n in range(301))],
        ["```", *("z%d()" % n for n in range(301))],
    ],
)
def test_long_paste_is_code_to_its_end(alice, hub, lines):
    """Though a line of it is looked at again only while few follow."""
    for start in range(0, len(lines), 30):
        hear(hub, alice, *lines[start : start + 30])
    first = alice.lines.index("[bob]: " + lines[0]) + 1
    names = [alice.text.tag_names("%d.end" % row) for row in range(first, first + len(lines))]
    assert [n for n, tags in enumerate(names) if "code" not in tags] == []


def test_pasted_code_keeps_its_blank_lines_and_its_columns(desktop, open_room, tmp_path):
    """All of its lines begin below each other; in other texts blank lines are left out."""
    room = open_room(data=str(tmp_path / "data"))
    alice, carol = (desktop.join(room.server.port, name) for name in ("alice", "carol"))
    bob = room.irc("bob")
    alice.paste("\n\none\n\ntwo\n")
    alice.press("Return", alice.box)
    carol.sees("[alice]: two")
    assert carol.lines[-2:] == ["[alice]: one", "[alice]: two"]
    code = ["def f(x):", "    return x", "", "", "def g(y):", "    return y"]
    alice.paste("\n".join(["  ", *code, " "]))
    alice.press("Return", alice.box)
    assert "PRIVMSG #lobby : " in [line.partition(" ")[2] for line in bob.until(":    return y")]
    for person in (alice, carol):
        person.sees("[alice]:     return y")
        assert person.lines[-6:] == ["[alice]: " + (line or " ") for line in code]
        rows = range(len(person.lines) - 5, len(person.lines) + 1)
        starts = {person.text.bbox("%d.%d" % (row, len("[00:00:00] [alice]: "))) for row in rows}
        assert len({x for x, *_ in starts}) == 1


def test_reply_quotes_the_line(desktop, open_room, tmp_path):
    """Clients that know the line show it above; others read the name of who is answered."""
    room = open_room(data=str(tmp_path / "data"))
    alice, carol = (desktop.join(room.server.port, name) for name in ("alice", "carol"))
    bob = room.irc("bob")
    bob.send("PRIVMSG #lobby :Shall we start?", "PRIVMSG #lobby :Or wait for dave?")
    alice.sees("[bob]: Or wait for dave?")
    alice.press("Control-r", alice.box)
    assert alice.notice == "Reply to bob in #lobby: Or wait for dave?"
    alice.press("Control-r", alice.box)
    assert alice.notice == "Reply to bob in #lobby: Shall we start?"
    alice.press("Escape", alice.box)
    assert not alice.notice and alice.is_at_end()
    alice.press("Control-r", alice.box)
    alice.chat_view.composer.notice.event_generate("<Button-1>")
    assert not alice.notice and alice.has_focus(alice.box)
    alice.press("Control-r", alice.box)
    alice.press("Control-r", alice.box)
    alice.say("Yes")
    assert not alice.notice
    bob.expect("PRIVMSG #lobby :bob: Yes")
    for person in (alice, carol):
        person.sees("[alice]: bob: Yes")
        row = person.lines.index("[alice]: bob: Yes")
        assert person.lines[row - 1] == "↳ [bob]: Shall we start?"
    alice.say("And so?")  # replies to nothing any more
    carol.sees("[alice]: And so?")
    assert carol.lines[-2:] == ["[alice]: bob: Yes", "[alice]: And so?"]
    dora = desktop.join(room.server.port, "dora")  # who reads it in the history
    dora.sees("↳ [bob]: Shall we start?")


def test_cut_quotes_end_with_an_ellipsis(alice, desktop, hub):
    """At 80 characters, also in the notice; links in the menu at 60."""
    long, whole = "words " * 13 + "and more", "a" * 80
    cut = long[:79] + "…"
    hub.send(
        "@msgid=1 :bob!b@h PRIVMSG #lobby :" + long, "@msgid=2 :bob!b@h PRIVMSG #lobby :" + whole
    )
    hub.send(*("@+draft/reply=%d :eve!e@h PRIVMSG #lobby :yes" % number for number in (1, 2)))
    alice.sees("↳ [bob]: " + whole)
    assert "↳ [bob]: " + cut in alice.lines
    hear(hub, alice, long + "!")
    alice.press("Control-r", alice.box)
    assert alice.notice == "Reply to bob in #lobby: " + cut
    hub.send(":bob!b@h PRIVMSG alice :" + long)
    alice.sees("[bob -> you]: %s  (only you two)" % long)
    alice.press("Escape", alice.box)
    alice.press("Control-r", alice.box)
    assert alice.notice == "Privately to bob, in reply to: " + cut
    link, room = "http://a.example/" + "x" * 60, "#" + "y" * 63
    hear(hub, alice, "%s %s" % (link, room))
    alice.press("Up", alice.text)
    alice.press("Shift-F10", alice.text)
    ends = ["Open %s…" % link[:59], "Copy %s…" % link[:59], "Join %s…" % room[:59]]
    assert [words for words in alice.menu if "…" in words and words != "More for bob…"] == ends


def test_reply_is_offered_in_the_menu_of_a_line(alice, desktop, hub):
    """But not for the server's lines; to a private message in a room, it is private."""
    hub.send(":bob!b@h PRIVMSG alice :a secret", ":dave!d@h JOIN #lobby")
    hear(hub, alice, "in public")
    desktop.update()
    offers = {"in public": ["Reply"], "a secret": ["Reply privately"], "dave joined": []}
    for words, offered in offers.items():
        x, y = alice.text.bbox(alice.text.search(words, "1.0"))[:2]
        alice.text.event_generate("<Button-3>", x=x, y=y)
        alice.text.event_generate("<ButtonRelease-3>", x=x, y=y)
        assert [command for command in alice.menu if "Reply" in command] == offered
    alice.box.focus_force()
    desktop.pump(lambda: chosen(alice) == [])
    alice.press("Control-r", alice.box)
    assert alice.window.chat.current.reply_to.line.text == "in public"
    alice.press("Control-r", alice.box)
    assert (alice.draft, alice.notice) == ("@bob ", "Privately to bob, in reply to: a secret")
    alice.say("it is safe")
    hub.expect("PRIVMSG bob :it is safe")


def test_lines_are_chosen_and_answered_by_keyboard(alice, desktop, hub, monkeypatch):
    opened = []
    monkeypatch.setattr(client.webbrowser, "open", opened.append)
    hear(hub, alice, "see http://a.example/x", "http://b.example and http://c.example", "plain")
    alice.press("Shift-F6", alice.box)
    assert alice.has_focus(alice.text)
    alice.press("Up")
    assert chosen(alice) == ["[bob]: plain"]
    alice.press("Down")
    alice.press("Up")
    alice.press("Up")
    alice.press("Return")
    hear(hub, alice, "more")  # the line stays chosen, and the menu open
    assert chosen(alice) == ["[bob]: see http://a.example/x"]
    desktop.pump(lambda: opened == ["http://a.example/x"])
    alice.press("Down")
    alice.press("Return")
    assert [c for c in alice.menu if c.startswith("Open")] == [
        "Open http://b.example", "Open http://c.example",
    ]  # fmt: skip
    alice.press("Shift-F10", alice.text)
    alice.choose("Copy")
    assert alice.root.clipboard_get().endswith(" [bob]: http://b.example and http://c.example")
    alice.press("Down", alice.text)
    alice.press("Shift-F10")
    alice.choose("Reply")
    assert alice.notice == "Reply to bob in #lobby: plain" and alice.has_focus(alice.box)
    desktop.pump(lambda: chosen(alice) == [])
    for key in ("Tab", "Escape"):
        alice.press("Up", alice.text)
        assert chosen(alice) == ["[bob]: more"]
        alice.press(key)
        desktop.pump(lambda: chosen(alice) == [])
        assert alice.has_focus(alice.box if key == "Tab" else alice.text)


@pytest.mark.parametrize(
    ("keys", "copied"),
    [
        ([], ["line 197"]),
        (["Shift-Down"], ["line 197", "line 198"]),
        (["Shift-Up", "Shift-Up"], ["line 195", "line 196", "line 197"]),
        (["Shift-Up", "Shift-Down"], ["line 197"]),
        (["Control-c", "Shift-Down"], ["line 197", "line 198"]),
        (["Shift-Down", "Up"], ["line 196"]),
    ],
)
def test_selection_by_keyboard_begins_at_the_chosen_line(alice, keys, copied):
    for key in ["Up", "Up", "Up", *keys]:
        alice.press(key, alice.text)
    alice.press("Control-c", alice.text)
    assert CLOCK.sub("", alice.root.clipboard_get()).splitlines() == ["[bob]: " + w for w in copied]


@pytest.mark.parametrize("is_by_mouse", [True, False])
def test_menu_copies_its_own_line_without_the_note(alice, hub, is_by_mouse):
    """Not another, which was chosen by keyboard before."""
    hub.send(":bob!b@h PRIVMSG alice :psst")
    hear(hub, alice, "in public")
    alice.press("Up", alice.text)
    if is_by_mouse:
        x, y = alice.text.bbox(alice.text.search("psst", "1.0"))[:2]
        alice.text.event_generate("<Button-3>", x=x, y=y)
        alice.text.event_generate("<ButtonRelease-3>", x=x, y=y)
    else:
        alice.press("Up", alice.text)
        alice.press("Shift-F10", alice.text)
    alice.choose("Copy")
    assert alice.root.clipboard_get().endswith(" [bob -> you]: psst")


def test_failed_line_is_sent_again_or_edited_by_keyboard(alice, desktop, hub):
    for _ in range(2):
        if "@ana hi" not in alice.draft:
            alice.write("@ana hi")
        alice.press("Return", alice.box)
        hub.expect("PRIVMSG ana :hi")
        hub.send(":hub 401 alice ana :No such nick")
        desktop.pump(lambda: alice.lines[-1].startswith("[SERVER]: No such user: ana"))
        alice.press("Up", alice.text)
        alice.press("Up")
        assert chosen(alice) == [
            "[you -> ana]: hi  (not delivered)   Try\xa0again  ·  Edit  ·  Discard"
        ]
        alice.press("Shift-F10")
        alice.choose("Edit")
        assert alice.draft == "@ana hi" and alice.has_focus(alice.box)
    alice.press("Return", alice.box)
    hub.expect("PRIVMSG ana :hi")
    hub.send(":hub 401 alice ana :No such nick")
    desktop.pump(lambda: any(line.endswith("Discard") for line in alice.lines))
    alice.press("Up", alice.text)
    while "hi" not in chosen(alice)[0]:
        alice.press("Up")
    alice.press("Return")
    hub.expect("PRIVMSG ana :hi")


def test_keyboard_goes_through_all_lines_and_starts_in_view(alice, desktop):
    alice.press("Up", alice.text)
    assert chosen(alice) == ["[bob]: line 199"]
    alice.press("Down")
    assert chosen(alice) == ["[bob]: line 199"]
    for _ in range(60):
        alice.press("Up")
    assert chosen(alice) == ["[bob]: line 139"] and not alice.is_at_end()
    alice.text.yview_moveto(0)
    desktop.update()
    alice.press("Up")
    row = int(alice.text.index("cursor.first").split(".")[0])
    assert chosen(alice) != ["[bob]: line 138"] and alice.text.dlineinfo("%d.0" % row)


@pytest.mark.parametrize("height", [620, 633, 645])
def test_first_chosen_line_is_not_under_the_pill(alice, desktop, height):
    alice.root.geometry("1160x%d" % height)
    desktop.pump(lambda: alice.root.winfo_height() == height)
    alice.text.yview_scroll(-30, "units")
    desktop.pump(lambda: alice.pill)
    for key in ["Up", *["Down"] * 9]:
        alice.press(key, alice.text)
        desktop.update()
        _, y, _, line_height, _ = alice.text.dlineinfo("cursor.first")
        top = alice.chat_view.pill.winfo_y() if alice.pill else alice.text.winfo_height()
        assert y > 0 and y + line_height <= top, key


def test_escape_takes_away_the_choice_before_it_goes_to_the_end(alice, desktop):
    alice.text.yview_scroll(-30, "units")
    desktop.update()
    alice.press("Up", alice.text)
    top = alice.top_line()
    alice.press("Escape")
    assert chosen(alice) == [] and alice.top_line() == top and alice.has_focus(alice.text)
    alice.press("Escape")
    assert alice.is_at_end() and alice.has_focus(alice.box)


def test_private_message_is_unread_until_it_is_in_view(alice, desktop, hub):
    hub.send(":carol!c@h PRIVMSG alice :psst")
    alice.sees("[carol -> you]: psst  (only you two)")
    desktop.pump(lambda: alice.conversations == ["#lobby", "carol"])
    alice.text.yview_moveto(0.3)
    desktop.update()
    hub.send(":carol!c@h PRIVMSG alice :again")
    alice.sees("[carol -> you]: again  (only you two)")
    desktop.update()
    assert alice.conversations == ["#lobby", "carol 1"]
    alice.press("Escape", alice.box)
    desktop.pump(lambda: alice.conversations == ["#lobby", "carol"])
    with desktop.elsewhere(alice):
        hub.send(":carol!c@h PRIVMSG alice :and again")
        hear(hub, alice, *("more %d" % number for number in range(60)))
    alice.box.focus_force()
    desktop.pump(lambda: alice.window.chat._has_focus)
    hear(hub, alice, "even more")
    assert alice.conversations == ["#lobby", "carol 1"]
    alice.say("@carol what?")
    desktop.pump(lambda: alice.conversations == ["#lobby", "carol"])


def test_answers_say_that_only_the_user_sees_them(alice, desktop, hub):
    """Which is not copied."""
    words = "[SERVER]: Unknown command: /foo. Type /help for the list."
    for name in ("#lobby", "bob"):
        alice.chat_view.open(name)
        alice.say("/foo")
        assert alice.lines[-1] == words + "  (only you)"
    alice.press("Control-a", alice.text)
    alice.press("Control-c", alice.text)
    assert alice.root.clipboard_get().endswith(words + "\n")


def test_each_of_two_answers_at_once_says_that_only_the_user_sees_it(alice, hub):
    """Unlike the rows of a list."""
    hub.send(
        ":hub NOTE BAN DONE bob 600 :bob is banned (10 minutes).",
        ":hub REGISTER SUCCESS alice :alice is now yours alone.",
        ":hub 401 alice zed :No such nick",
        ":hub 401 alice yan :No such nick",
    )
    alice.sees("[SERVER]: No such user: yan")
    alice.paste("/me")
    alice.press("Return", alice.box)
    alice.press("Return", alice.box)
    assert [line.endswith("  (only you)") for line in alice.lines[-6:]] == [True] * 6
    assert alice.lines[-2:] == ["[SERVER]: Usage: /me ACTION  (only you)"] * 2


def test_answer_of_several_lines_says_once_that_only_the_user_sees_it(alice, hub):
    """And again in a later answer, and below a line of others."""

    def say(second, line):
        return "@time=2026-11-22T17:00:%02d.000Z :%s" % (second, line)

    rooms = ["hub 322 alice #r%d 1 :topic %d" % (number, number) for number in range(3)]
    end = "hub 322 alice #end 1 :topic"
    seconds = (0, *rooms), (1, "bob!b@h PRIVMSG #lobby :hi", *rooms[:2]), (5, rooms[0], end)
    hub.send(*(say(second, line) for second, *lines in seconds for line in lines))
    alice.sees("[SERVER]: #end (1): topic")
    ends = [line.endswith("  (only you)") for line in alice.lines[-8:]]
    assert ends == [True, False, False, False, True, False, True, False]


def test_reply_can_be_retried_and_goes_without_tags_where_there_are_none(alice, hub):
    """To a server without message-tags no tag is sent."""
    hear(hub, alice, "hello")
    alice.press("Control-r", alice.box)
    alice.say("@carol not to bob")  # goes elsewhere: the reply is still to be written
    assert alice.window.chat.current.reply_to is not None
    alice.say("hi, Bob")  # names him already
    hub.expect("PRIVMSG #lobby :hi, Bob")
    assert alice.window.chat.current.reply_to is None
