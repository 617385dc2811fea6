"""Conversations in the window: going from one to the other, what is new, and one's own words."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from window_harness import cannot, told

import client
from client import FROM_ME, PRIVATE

HISTORY = "batch echo-message message-tags server-time draft/chathistory"


@pytest.fixture
def tea(alice, desk, hub):
    """Alice in a second room, which is in view."""
    alice.say("/join tea")
    hub.expect("JOIN #tea")
    hub.send(
        ":alice!a@h JOIN #tea", ":hub 353 alice = #tea :alice carol", ":hub 366 alice #tea :End"
    )
    desk.pump(lambda: alice.people == ["alice", "carol"])
    return alice


def echo(hub, text, place="#lobby"):
    """The server has what alice said."""
    hub.expect("PRIVMSG %s :%s" % (place, text))
    hub.send(":alice!a@h PRIVMSG %s :%s" % (place, text))


def scroll_up(desk, alice, hub, count=100):
    """A conversation that does not fit, scrolled away from its end."""
    hub.send(*(":bob!b@h PRIVMSG #lobby :line %d" % number for number in range(count)))
    alice.sees("[bob]: line %d" % (count - 1))
    alice.text.yview_moveto(0.3)
    desk.update()


# A session without a mouse


def test_a_session_without_a_mouse(desk, room):
    """Connect, talk, switch, search, write privately, change the theme and quit: by keys alone."""
    bob = room.irc("bob")
    alice = desk.open(room.server.port)
    alice.type("alice", "<Return>")
    alice.sees("[SERVER]: alice joined the chat")
    alice.type("Hello @bo", "<Tab>", "there", "<Return>")
    bob.expect(" PRIVMSG #lobby :Hello @bob there")
    desk.pump(lambda: alice.kind_of("[alice]: Hello @bob there")[0] == FROM_ME)

    alice.type("/join tea", "<Return>")
    desk.pump(lambda: alice.conversations == ["#lobby", "#tea"])
    desk.pump(lambda: alice.people == ["alice"])
    alice.type("over here", "<Return>")
    alice.sees("[alice]: over here")
    alice.type("<ctrl+Prior>")
    assert "[alice]: Hello @bob there" in alice.lines
    alice.type("<alt+2>")
    assert "[alice]: over here" in alice.lines
    alice.type("<alt+Up>")

    alice.type("<ctrl+f>", "HELLO")
    desk.pump(lambda: alice.found == "1 of 1")
    assert "found" in alice.tags_of("Hello")
    alice.type("<Escape>")
    assert alice.has_focus(alice.box)
    assert not alice.text.tag_ranges("find")

    alice.type("<ctrl+k>", "bo", "<Return>")
    desk.pump(lambda: alice.conversations == ["#lobby", "#tea", "bob"])
    alice.type("psst", "<Return>")
    bob.expect(" PRIVMSG bob :psst")
    alice.sees("[you -> bob]: psst")

    assert alice.text.cget("bg") == client.PALETTES["dark"]["chat"]
    alice.type("<ctrl+t>")
    assert alice.text.cget("bg") == client.PALETTES["light"]["chat"]
    alice.type("<ctrl+q>")
    desk.pump(lambda: alice.window.root is None)
    bob.expect(" QUIT Quit")


def test_a_name_that_nobody_can_have_is_answered(alice, desk):
    """Whatever is written into the sheet that leads to people, one reads why it is nobody's."""
    alice.press("Control-n", alice.box)
    alice.type("a!b", "<Return>")
    alice.sees("[SERVER]: No such user: a!b")
    assert alice.conversations == ["#lobby"]


# What is new


def test_a_badge_counts_what_is_new_elsewhere(tea, desk, hub):
    """Blue for what was said, red where one is named; it goes when one looks."""
    hub.send(":bob!b@h PRIVMSG #lobby :one")
    desk.pump(lambda: tea.conversations == ["#lobby 1", "#tea"])
    assert tea.badge_color("#lobby") == "badge"
    tea.wait_for_title("(1) Connected: alice @ Hub — Hubbub")
    hub.send(":bob!b@h PRIVMSG #lobby :you, alice!")
    desk.pump(lambda: tea.conversations == ["#lobby 2", "#tea"])
    assert tea.badge_color("#lobby") == "mention_badge"
    tea.wait_for_title("(2!) Connected: alice @ Hub — Hubbub")
    tea.press("Alt-a")
    desk.pump(lambda: tea.conversations == ["#lobby", "#tea"])
    tea.wait_for_title("Connected: alice @ Hub — Hubbub")
    assert "─────  2 new messages  ─────" in tea.lines
    assert "mention" in tea.tags_of("[bob]: you")


def test_a_private_message_opens_a_conversation_with_a_badge(alice, desk, hub):
    """Who writes to one person is answered in a place of their own."""
    hub.send(":carol!c@h PRIVMSG alice :psst")
    desk.pump(lambda: alice.conversations == ["#lobby", "carol 1"])
    assert alice.badge_color("carol") == "mention_badge"
    alice.press("Alt-Key-2")
    alice.sees("[carol -> you]: psst")
    alice.say("what?")
    echo(hub, "what?", "carol")
    desk.pump(lambda: alice.kind_of("[you -> carol]: what?")[0] == PRIVATE)


def test_the_line_above_the_new_goes_when_one_speaks(tea, desk, hub):
    """It stands above what came while one was elsewhere, and has done its part with an answer."""
    told_before = ":bob!b@h PRIVMSG #lobby :%s"
    hub.send(told_before % "one", told_before % "two")
    desk.pump(lambda: tea.conversations[0] == "#lobby 2")
    tea.press("Control-Prior")
    mark = "─────  2 new messages  ─────"
    assert tea.lines[-3:] == [mark, "[bob]: one", "[bob]: two"]
    told(hub, tea, "three")
    assert tea.lines[-4:] == [mark, "[bob]: one", "[bob]: two", "[bob]: three"]
    tea.say("well")
    assert mark not in tea.lines


def test_each_conversation_keeps_its_draft(tea, hub):
    """What was being written stands in the box again when one comes back."""
    tea.write("for tea")
    tea.press("Control-Prior")
    assert tea.box.get("1.0", "end-1c") == ""
    tea.write("for the lobby 😀")
    tea.press("Control-Next")
    assert tea.box.get("1.0", "end-1c") == "for tea"
    tea.press("Control-Next")
    tea.press("Return", tea.box)
    hub.expect("PRIVMSG #lobby :for the lobby 😀")


def test_a_pill_leads_to_the_latest(alice, desk, hub):
    """Away from the end one is told how much has come, and Esc leads there."""
    scroll_up(desk, alice, hub)
    assert alice.pill == "Jump to latest"
    told(hub, alice, "one")
    told(hub, alice, "two")
    desk.pump(lambda: alice.pill == "2 new messages")
    alice.chat_view.pill.invoke()
    desk.pump(lambda: not alice.pill)
    assert alice.text.yview()[1] == 1.0
    scroll_up(desk, alice, hub)
    alice.press("Escape")
    desk.pump(lambda: not alice.pill)
    assert alice.text.yview()[1] == 1.0


# What was said before


def test_scrolling_up_fetches_what_was_said_before(desk, open_room, tmp_path):
    """Page after page, up to the first word; what one reads stays where it is."""
    room = open_room(data=str(tmp_path / "data"))
    bob = room.irc("bob")
    for number in range(170):
        bob.send("PRIVMSG #lobby :word %d" % number)
    bob.heard()
    alice = desk.open(room.server.port, "alice", at_once=True)
    alice.sees("[bob]: word 169")
    assert "[bob]: word 119" not in alice.lines
    alice.press("Control-Home", alice.box)
    seen = alice.place_of("word 120")
    desk.pump(lambda: "[bob]: word 119" in alice.lines)
    desk.update()
    assert alice.place_of("word 120") == seen
    while "[bob]: word 0" not in alice.lines:
        before = len(alice.lines)
        alice.press("Control-Home", alice.box)
        desk.pump(lambda before=before: len(alice.lines) > before)
    words = [line for line in alice.lines if line.startswith("[bob]")]
    assert words == ["[bob]: word %d" % number for number in range(170)]


# One's own words


def test_own_words_are_muted_until_the_server_has_them(alice, desk, hub):
    """They stand there at once, and turn green when they are stored."""
    alice.say("Hello!")
    assert alice.kind_of("[alice]: Hello!")[0] == "muted"
    echo(hub, "Hello!")
    desk.pump(lambda: alice.kind_of("[alice]: Hello!")[0] == FROM_ME)


def test_what_was_not_delivered_can_be_tried_again_or_discarded(alice, desk, hub):
    """It is red, says so, and offers both."""
    for text in ("one", "two"):
        alice.say("@dave " + text)
        hub.expect("PRIVMSG dave :" + text)
        hub.send(":hub 401 alice dave :No such nick")
        alice.sees("[you -> dave]: %s  (not delivered)   Try again  ·  Discard" % text)
    assert "error" in alice.tags_of("[you -> dave]: one")
    alice.click("Discard")
    assert not [line for line in alice.lines if line.endswith("one  (not delivered)")]
    alice.click("Try again")
    hub.expect("PRIVMSG dave :two")
    hub.send(":alice!a@h PRIVMSG dave :two")
    desk.pump(lambda: "[you -> dave]: two" in alice.lines)
    assert not [line for line in alice.lines if "(not delivered)" in line]


def test_what_is_typed_without_a_connection_goes_out_on_return(alice, desk, hub):
    """The banner tells, the words wait in sight, and go out when the server is back."""
    hub.finish()
    alice.wait_for_title("Reconnecting… — Hub — Hubbub")
    alice.say("meanwhile")
    alice.sees("[alice]: meanwhile  (waiting to send)")
    assert alice.kind_of("[alice]: meanwhile  (waiting to send)")[0] == "muted"
    assert alice.chat_view.composer.hint.cget("text").endswith(" — sent when you are back online")
    hub.welcome()
    hub.send(":hub 376 alice :End of /MOTD command.")
    alice.sees("[alice]: meanwhile")
    echo(hub, "meanwhile")
    desk.pump(lambda: alice.kind_of("[alice]: meanwhile")[0] == FROM_ME)
    assert alice.banner.strip() == "Connected again."


# What goes into the chat box


def test_a_paste_of_many_lines_is_asked_about(alice, hub):
    """More than twenty lines at once may be a mistake: nothing goes before one agrees."""
    lines = ["line %d" % number for number in range(25)]
    alice.paste("\n".join(lines[:20]))
    assert not alice.sheet
    alice.box.delete("1.0", "end")
    alice.paste("\n".join(lines))
    assert alice.sheet == "Paste 25 lines?"
    alice.press("Escape")
    assert (alice.sheet, alice.box.get("1.0", "end-1c")) == ("", "")
    alice.paste("\n".join(lines))
    alice.press("Return")
    assert alice.box.get("1.0", "end-1c") == "\n".join(lines)
    alice.press("Return")
    assert hub.until("line 24")[-25:] == ["PRIVMSG #lobby :" + line for line in lines]


def test_the_conversation_in_view_is_in_view_in_the_list(alice, desk, hub):
    """However many there are, and whoever goes to it."""
    hub.send(*(":alice!a@h JOIN #room%d" % number for number in range(60)))
    hub.send(":bob!b@h PRIVMSG alice :psst")
    desk.pump(lambda: alice.conversations[-1] == "bob 1")
    rows = alice.chat_view.sidebar.list
    for name, shown in (("bob", "bob"), ("#lobby", "lobby"), ("#room30", "room30")):
        alice.window.open(name)
        desk.pump(lambda shown=shown: shown in alice.drawn(rows))


def test_people_of_other_rooms_are_offered(tea, desk):
    """Ctrl+K and Ctrl+N know everybody who is here, not only those in the room in view."""
    tea.window.open("erik")
    for key in ("Control-k", "Control-n"):
        tea.press(key, tea.box)
        tea.window.questions.sheet.field.set("car")
        desk.pump(lambda: "carol" in [row.text for row in tea.window.questions.sheet.list.rows])
        tea.press("Escape")


def test_the_server_is_nobody_to_write_to(alice, desk, hub):
    """Who is in no room sees its name, but it is no person's."""
    hub.send(":alice!a@h PART #lobby")
    desk.pump(lambda: alice.conversations == ["Hub"])
    alice.press("Control-k", alice.box)
    assert [row.text for row in alice.window.questions.sheet.list.rows] == ["Write a name"]


@pytest.mark.parametrize("key", "dhiot")
def test_a_key_pressed_by_mistake_leaves_the_text_alone(alice, key):
    """What Tk has from Emacs deletes, turns around or inserts."""
    alice.write("words")
    alice.box.mark_set("insert", "1.2")
    alice.press("Control-" + key, alice.box)
    assert alice.box.get("1.0", "end-1c") == "words"


def test_tab_stays_in_a_question(alice):
    """Keys go to the question until it is answered: Tab comes round, and back."""
    alice.paste("line\n" * 30)
    cancel, paste = alice.window.questions.sheet.buttons
    for key, button in (("Tab", cancel), ("Tab", paste), ("Shift-Tab", cancel)):
        alice.press(key)
        assert alice.has_focus(button)
    alice.press("Return")
    assert (alice.sheet, alice.box.get("1.0", "end-1c")) == ("", "")


@pytest.mark.parametrize("layout", ["us", "ru", "gr"])
def test_keys_with_letters_work_on_every_alphabet(alice, desk, layout):
    """Ctrl and the key of F search, those of A and X cut all, in every layout."""
    if not shutil.which("setxkbmap"):
        cannot("there is no setxkbmap here")
    control, letter_f, letter_a, letter_x = "37", "41", "38", "53"
    try:
        subprocess.run(["setxkbmap", layout], check=True)
        desk.update()
        alice.write("something")
        for letter in (letter_a, letter_x, letter_f):
            alice.do("keydown", control, "key", letter, "keyup", control)
        desk.pump(lambda: alice.chat_view.search.is_open)
        assert alice.box.get("1.0", "end-1c") == ""
        assert alice.chat_view.search.field.get() == ""
    finally:
        subprocess.run(["setxkbmap", "us"], check=True)


def test_the_help_is_read_by_keys(alice, desk):
    """It opens with its first line marked; arrows go on, to the last line too; Enter closes."""
    alice.press("F1", alice.box)
    rows, names = alice.window.questions.sheet.list, [key.name for key in client.KEYS]
    desk.pump(lambda: rows.cursor == names[0])
    alice.press("Down")
    assert rows.cursor == names[1]
    alice.press("End")
    assert rows.cursor == names[-1]
    desk.pump(lambda: "quit" in alice.drawn(rows))
    alice.press("Return")
    assert not alice.sheet and alice.has_focus(alice.box)


def test_caps_lock_takes_no_key_away(alice):
    """The keys with Control and Alt are the same with it; Ctrl+A selects all that is written."""
    alice.write("words")
    alice.box.focus_force()
    alice.type("<Caps_Lock>")
    try:
        alice.type("<ctrl+a>")
        assert alice.box.get("sel.first", "sel.last") == "words"
        alice.type("<ctrl+f>")
        assert alice.has_focus(alice.chat_view.search.field.text)
    finally:
        alice.type("<Caps_Lock>")


def test_what_is_written_has_a_menu(alice, desk):
    """Cut, copy and paste by mouse and by keys; the hint is in nobody's way."""
    for widget, key in ((alice.chat_view.composer.hint, "Button-3"), (alice.box, "Shift-F10")):
        widget.focus_force()
        widget.event_generate("<%s>" % key, x=3, y=3)
        assert alice.menu == ["Cut", "Copy", "Paste", "Select all"]
    assert [kind.winfo_class() for kind in alice.root.winfo_children()].count("Menu") == 1
    name = desk.open().connect_view.fields["name"]
    name.event_generate("<Button-3>", x=3, y=3)
    assert desk._people[1].menu == ["Cut", "Copy", "Paste", "Select all"]


def test_the_middle_button_pastes_as_control_v_does(alice, hub, desk):
    """What is selected anywhere goes into the box, which asks before it takes many lines."""
    told(hub, alice, "some words")
    start = alice.text.search("some words", "1.0")
    alice.text.tag_add("sel", start, start + "+10c")
    hint = alice.chat_view.composer.hint
    for event in ("<Button-2>", "<ButtonRelease-2>"):
        hint.event_generate(event, x=9, y=9)
    assert alice.box.get("1.0", "end-1c") == "some words"
    hub.send(*(":bob!b@h PRIVMSG #lobby :line %d" % number for number in range(30)))
    alice.sees("[bob]: line 29")
    alice.text.tag_add("sel", "1.0", "end")
    alice.box.event_generate("<<PasteSelection>>", x=9, y=9)
    assert alice.sheet.startswith("Paste ")


def test_ones_own_row_has_ones_own_menu(alice):
    """Nobody writes to themselves, or ignores themselves."""
    alice.window.menus.open_person("alice", 0, 0)
    assert "I am away" in alice.menu
    alice.window.menus.open_person("bob", 0, 0)
    assert "Ignore" in alice.menu


def test_tab_completes_names_commands_and_rooms(tea, hub):
    """Tab goes on to the next way, Shift+Tab back; in an empty box it leaves."""
    for begun, steps in [
        ("ca", ["carol: "]), ("@b", ["@bob "]), ("hi b", ["hi bob "]), ("/who", ["/whois "]),
        ("see #", ["see #lobby ", "see #tea "]),
    ]:  # fmt: skip
        tea.write(begun)
        for step in steps:
            tea.press("Tab", tea.box)
            assert tea.box.get("1.0", "end-1c") == step
        tea.box.delete("1.0", "end")
    tea.press("Tab", tea.box)
    assert not tea.has_focus(tea.box)
    tea.write("#")
    for steps, completed in ((("<Tab>", "<Tab>"), "#tea "), (("<shift+Tab>",), "#lobby ")):
        tea.box.focus_force()
        tea.type(*steps)
        assert tea.box.get("1.0", "end-1c") == completed


def test_up_and_down_recall_what_was_sent_but_no_password(alice):
    """The unfinished text is kept below; a /login is remembered nowhere."""
    for text in ("one", "two", "/login alice secret"):
        alice.say(text)
    alice.box.delete("1.0", "end")
    alice.write("unfinished")
    shown = []
    for key in ("Up", "Up", "Up", "Down", "Down"):
        alice.press(key, alice.box)
        shown.append(alice.box.get("1.0", "end-1c"))
    assert shown == ["two", "one", "one", "two", "unfinished"]


# Looking for something


def test_search_goes_through_the_whole_conversation(alice, desk, hub):
    """Whatever the case, emoji and all; also what has been scrolled out of the text."""
    told(hub, alice, "First 😀 Straße")
    hub.send(*(":bob!b@h PRIVMSG #lobby :line %d" % number for number in range(2000)))
    alice.sees("[bob]: line 1999")
    assert "[bob]: First 😀 Straße" not in alice.lines
    told(hub, alice, "😀😀 the end 😀 FIRST")
    alice.press("Control-f", alice.box)
    alice.chat_view.search.field.text.insert("end", "first")
    desk.pump(lambda: alice.found == "2 of 2")
    found = alice.text.tag_ranges("found")
    assert alice.text.get(*found) == "FIRST"
    alice.press("Return")
    assert alice.found == "1 of 2"
    assert alice.text.get(*alice.text.tag_ranges("found")) == "First"
    assert alice.text.dlineinfo(alice.text.tag_ranges("found")[0])
    alice.press("Shift-F3")
    assert alice.found == "2 of 2"
    for words, told_ in [("STRASSE", "1 of 1"), ("😀", "4 of 4"), ("nowhere", "No matches")]:
        alice.chat_view.search.field.set("")
        alice.chat_view.search.field.text.insert("end", words)
        desk.pump(lambda told_=told_: alice.found == told_)
    alice.press("Escape")
    assert not alice.chat_view.search.frame.winfo_viewable()


def test_to_search_on_one_needs_the_bar(alice, desk, hub):
    """F3 brings it back with its words, so that Esc can take away what is marked."""
    told(hub, alice, "one two one")
    alice.press("Control-f", alice.box)
    alice.chat_view.search.field.set("one")
    desk.pump(lambda: alice.found == "2 of 2")
    alice.press("Escape")
    alice.press("F3")
    assert alice.chat_view.search.is_open and alice.found == "2 of 2"
    alice.press("Escape")
    assert not alice.text.tag_ranges("found")


def test_links_open_on_a_click_and_only_to_the_web(alice, desk, hub, monkeypatch):
    """Those of http and https, without the full stop behind; nothing opens by itself."""
    opened = []
    monkeypatch.setattr(client.webbrowser, "open", opened.append)
    told(hub, alice, "see https://example.org/a?b=(1). or file:///etc/passwd 😀 http://b.example")
    assert "link" in alice.tags_of("https://example.org")
    assert "link" not in alice.tags_of("file:///etc")
    alice.click("file:///etc")
    assert opened == []
    alice.click("https://example.org")
    alice.click("http://b.example")
    desk.pump(lambda: len(opened) == 2)
    assert sorted(opened) == ["http://b.example", "https://example.org/a?b=(1)"]


# What the server answers


def test_answers_stand_where_one_looks(tea, desk, hub):
    """Who somebody is, in the conversation in view; topic and absence in their places too."""
    tea.say("/whois bob")
    hub.expect("WHOIS bob")
    hub.send(":hub 311 alice bob b host * :Bob", ":hub 318 alice bob :End of /WHOIS list.")
    desk.pump(lambda: any("bob is" in line or "bob (" in line for line in tea.lines))
    hub.send(":carol!c@h TOPIC #tea :Green or black?")
    tea.sees("[SERVER]: carol set the topic: Green or black?")
    desk.pump(lambda: tea.drawn(tea.chat_view.room) == ["# tea", "Green or black?"])
    tea.say("/away lunch")
    hub.expect("AWAY lunch")
    hub.send(":hub 306 alice :You have been marked as being away")
    desk.pump(lambda: tea.drawn(tea.chat_view.sidebar.user) == ["A", "alice", "Away"])


# What stays


def test_settings_are_kept_but_no_password(desk, open_room):
    """Theme, size of type, place of the window, name and server; nothing secret."""
    room = open_room(password="sesame")
    alice = desk.open(room.server.port, "alice", at_once=True)
    alice.wait_for_fault(client.PASSWORD)
    alice.connect(password="sesame")
    alice.sees("[SERVER]: alice joined the chat")
    alice.press("Control-t", alice.box)
    alice.press("Control-plus", alice.box)
    alice.root.geometry("900x600+40+30")
    desk.pump(lambda: alice.root.geometry() == "900x600+40+30")
    alice.close()
    text = Path(client.settings_path()).read_text(encoding="utf-8")
    assert "sesame" not in text
    kept = json.loads(text)
    assert (kept["theme"], kept["zoom"], kept["name"]) == ("light", 110, "alice")
    again = desk.open(room.server.port)
    assert str(again.text.cget("bg")) == client.PALETTES["light"]["chat"]
    again.connect(name="alice", password="sesame")
    desk.pump(lambda: again.root.geometry() == "900x600+40+30")


def test_one_is_notified_only_of_what_one_does_not_look_at(alice, desk, hub, monkeypatch):
    """Nothing while the window has the focus; else what is meant for one, once."""
    alerts = []
    monkeypatch.setattr(alice.window.notifier, "alert", lambda *alert: alerts.append(alert[:2]))
    told(hub, alice, "alice, look")
    assert alerts == []
    with desk.elsewhere(alice):
        told(hub, alice, "anybody?")
        told(hub, alice, "alice?")
        assert alerts == [("#lobby", "[bob]: alice?")]
        alice.wait_for_title("(2!) Connected: alice @ Hub — Hubbub")
    alice.box.focus_force()
    alice.wait_for_title("Connected: alice @ Hub — Hubbub")
    told(hub, alice, "alice!")
    assert len(alerts) == 1
