"""Conversations in the window: switching, what is new, own messages, search, keys and menus."""

import contextlib
import functools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from harness import TIMEOUT
from window_harness import RecordingDrawing, cannot, hear

import client


@pytest.fixture
def tea(alice, desktop, hub):
    """Alice with a second room, which is in view."""
    alice.say("/join tea")
    hub.expect("JOIN #tea")
    hub.send(
        ":alice!a@h JOIN #tea", ":hub 353 alice = #tea :alice carol", ":hub 366 alice #tea :End"
    )
    desktop.pump(lambda: alice.people == ["alice", "carol"])
    return alice


def echo(hub, text, target="#lobby"):
    """Confirm that the server has a message of alice's."""
    hub.expect("PRIVMSG %s :%s" % (target, text))
    hub.send(":alice!a@h PRIVMSG %s :%s" % (target, text))


def test_session_without_a_mouse(desktop, room):
    """Connect, talk, switch, search, write privately, change the theme and quit."""
    bob = room.irc("bob")
    alice = desktop.open(room.server.port)
    alice.type("alice", "<Return>")
    alice.sees("[SERVER]: alice joined the chat")
    alice.type("Hello @bo", "<Tab>", "there", "<Return>")
    bob.expect(" PRIVMSG #lobby :Hello @bob there")
    desktop.pump(lambda: alice.kind_of("[alice]: Hello @bob there") == "own")

    alice.type("/join tea", "<Return>")
    desktop.pump(lambda: alice.conversations == ["#lobby", "#tea"])
    desktop.pump(lambda: alice.people == ["alice"])
    alice.type("over here", "<Return>")
    alice.sees("[alice]: over here")
    alice.type("<ctrl+Prior>")
    assert "[alice]: Hello @bob there" in alice.lines
    alice.type("<alt+2>")
    assert "[alice]: over here" in alice.lines
    alice.type("<alt+Up>")

    alice.type("<ctrl+f>", "HELLO")
    desktop.pump(lambda: alice.found == "1 of 1")
    assert "found" in alice.tags_of("Hello")
    alice.type("<Escape>")
    assert alice.has_focus(alice.box)
    assert not alice.text.tag_ranges("find")

    alice.type("<ctrl+k>", "bo", "<Return>")
    desktop.pump(lambda: alice.conversations == ["#lobby", "#tea", "bob"])
    alice.type("psst", "<Return>")
    bob.expect(" PRIVMSG bob :psst")
    alice.sees("[you -> bob]: psst")

    assert alice.text.cget("bg") == client.PALETTES["dark"]["chat"]
    alice.type("<ctrl+t>")
    desktop.pump(lambda: alice.text.cget("bg") == client.PALETTES["light"]["chat"])
    alice.type("<ctrl+q>")
    desktop.pump(lambda: alice.window.root is None)
    bob.expect(" QUIT Quit")


# What is new


def test_badge_counts_what_is_new_elsewhere(tea, desktop, hub):
    """It is red where the user is mentioned, and goes when the room is selected."""
    hub.send(":bob!b@h PRIVMSG #lobby :one")
    desktop.pump(lambda: tea.conversations == ["#lobby 1", "#tea"])
    assert tea.badge_color("#lobby") == "badge"
    tea.wait_for_title("(1) Connected: alice @ Hub — Hubbub")
    hub.send(":bob!b@h PRIVMSG #lobby :you, alice!")
    desktop.pump(lambda: tea.conversations == ["#lobby 2", "#tea"])
    assert tea.badge_color("#lobby") == "mention_badge"
    tea.wait_for_title("(2!) Connected: alice @ Hub — Hubbub")
    tea.press("Alt-a")
    desktop.pump(lambda: tea.conversations == ["#lobby", "#tea"])
    tea.wait_for_title("Connected: alice @ Hub — Hubbub")
    assert "─────  2 new messages  ─────" in tea.lines
    assert "mention" in tea.tags_of("[bob]: you")


def test_private_message_opens_a_conversation_with_a_badge(alice, desktop, hub):
    with desktop.elsewhere(alice):
        hub.send(":carol!c@h PRIVMSG alice :psst")
        desktop.pump(lambda: alice.conversations == ["#lobby", "carol 1"])
        assert alice.badge_color("carol") == "mention_badge"
    alice.press("Alt-Key-2", alice.box)
    alice.sees("[carol -> you]: psst")
    alice.say("what?")
    echo(hub, "what?", "carol")
    desktop.pump(lambda: alice.kind_of("[you -> carol]: what?") == "private")


def test_new_messages_line_stays_until_the_user_speaks(tea, desktop, hub):
    hub.send(":bob!b@h PRIVMSG #lobby :one", ":bob!b@h PRIVMSG #lobby :two")
    desktop.pump(lambda: tea.conversations[0] == "#lobby 2")
    tea.press("Control-Prior")
    mark = "─────  2 new messages  ─────"
    assert tea.lines[-3:] == [mark, "[bob]: one", "[bob]: two"]
    hear(hub, tea, "three")
    assert tea.lines[-4:] == [mark, "[bob]: one", "[bob]: two", "[bob]: three"]
    tea.say("well")
    assert mark not in tea.lines


def test_new_messages_line_counts_while_the_window_has_no_focus(alice, desktop, hub):
    with desktop.elsewhere(alice):
        hear(hub, alice, "one")
        assert alice.lines[-2:] == ["─────  1 new message  ─────", "[bob]: one"]
        hear(hub, alice, "two")
        alice.sees("─────  2 new messages  ─────")
    assert alice.lines[-3:] == ["─────  2 new messages  ─────", "[bob]: one", "[bob]: two"]


def test_each_conversation_keeps_its_draft(tea, hub):
    tea.write("for tea")
    tea.press("Control-Prior")
    assert tea.draft == ""
    tea.write("for the lobby 😀")
    tea.press("Control-Next")
    assert tea.draft == "for tea"
    tea.press("Control-Next")
    tea.press("Return", tea.box)
    hub.expect("PRIVMSG #lobby :for the lobby 😀")


def test_alerts_come_only_for_what_the_user_does_not_see(alice, desktop, hub, monkeypatch):
    alerts = []
    monkeypatch.setattr(alice.window.notifier, "alert", lambda *alert: alerts.append(alert[:2]))
    hear(hub, alice, "alice, look")
    assert alerts == []
    with desktop.elsewhere(alice):
        hear(hub, alice, "anybody?")
        hear(hub, alice, "alice?")
        assert alerts == [("#lobby", "[bob]: alice?")]
        alice.wait_for_title("(2!) Connected: alice @ Hub — Hubbub")
    alice.box.focus_force()
    alice.wait_for_title("Connected: alice @ Hub — Hubbub")
    hear(hub, alice, "alice!")
    assert len(alerts) == 1


# Own messages


def test_own_message_is_muted_until_the_server_has_it(alice, desktop, hub):
    alice.say("Hello!")
    assert alice.kind_of("[alice]: Hello!") == "muted"
    echo(hub, "Hello!")
    desktop.pump(lambda: alice.kind_of("[alice]: Hello!") == "own")


def test_undelivered_message_can_be_retried_or_discarded(alice, desktop, hub):
    for text in ("one", "two"):
        alice.say("@dave " + text)
        hub.expect("PRIVMSG dave :" + text)
        hub.send(":hub 401 alice dave :No such nick")
        alice.sees("[you -> dave]: %s  (not delivered)   Try\xa0again  ·  Edit  ·  Discard" % text)
    assert "error" in alice.tags_of("[you -> dave]: one")
    alice.click("Discard")
    assert not [line for line in alice.lines if line.endswith("one  (not delivered)")]
    alice.click("Try\xa0again")
    hub.expect("PRIVMSG dave :two")
    hub.send(":alice!a@h PRIVMSG dave :two")
    desktop.pump(lambda: "[you -> dave]: two  (only you two)" in alice.lines)
    assert not [line for line in alice.lines if "(not delivered)" in line]


def drawn_people(person):
    """Return the caption of each group of people, and their dots."""
    rows = person.chat_view.people.list.rows
    return [row.text if row.is_caption else RecordingDrawing(row).dots[0] for row in rows]


def test_without_a_connection_no_one_is_shown_as_online(alice, desktop, hub):
    """And the chat not as encrypted, or not; the people stay in view."""
    look, lock = alice.window.look, alice.chat_view.buttons["lock"]
    lock_image = lambda: str(lock.cget("image")[0])  # noqa: E731
    hub.send(":bob!b@h AWAY :tea")
    desktop.pump(lambda: drawn_people(alice) == ["ONLINE — 1", "ok", "AWAY — 1", "away"])
    assert lock_image() == str(look.icon("unlock", "warn"))
    hub.finish()
    alice.wait_for_title("Reconnecting… — Hub — Hubbub")
    assert drawn_people(alice) == ["LAST SEEN — 2", "offline", "offline"]
    assert lock_image() == str(look.icon("unlock", "muted")) and not lock.cget("text").strip()
    hub.welcome()
    desktop.pump(lambda: drawn_people(alice) == ["ONLINE — 2", "ok", "ok"])
    assert lock_image() == str(look.icon("unlock", "warn")) and lock.cget("text").strip()


def test_message_typed_offline_is_sent_after_reconnecting(alice, desktop, hub):
    hub.finish()
    alice.wait_for_title("Reconnecting… — Hub — Hubbub")
    alice.say("meanwhile")
    alice.sees("[alice]: meanwhile  (waiting to send)")
    assert alice.kind_of("[alice]: meanwhile  (waiting to send)") == "muted"
    hint = alice.chat_view.composer.hint
    assert hint.cget("text").endswith(" — sent when back online")
    hub.welcome()
    hub.send(":hub 376 alice :End of /MOTD command.")
    alice.sees("[alice]: meanwhile")
    echo(hub, "meanwhile")
    desktop.pump(lambda: alice.kind_of("[alice]: meanwhile") == "own")
    assert alice.banner == "Connected again."


def test_closing_asks_before_unsent_messages_are_lost(alice, desktop, hub):
    """In the place of the banner, which comes back; another sheet does not hide the question."""
    hub.finish()
    desktop.pump(lambda: alice.banner.startswith("Connection lost."))
    alice.say("meanwhile")
    alice.press("F1", alice.box)
    alice.close()
    desktop.update()
    question = "Close Hubbub? 1 message has not been sent yet, and would be lost."
    assert alice.banner == question and alice.sheet is None
    alice.press("Return")  # "Stay" has the focus
    assert alice.banner.startswith("Connection lost.") and alice.has_focus(alice.box)
    alice.paste("line\n" * 30)
    assert alice.banner.startswith("Paste 30 lines?")
    alice.close()
    assert alice.banner == question
    alice.close()
    assert alice.window.root is None


CLOSE = "Close Hubbub? %s not been sent yet, and would be lost."


def test_closing_asks_if_the_server_hangs(alice, desktop, monkeypatch):
    """Only for what has no echo after a while, and each time that the user closes the window."""
    monkeypatch.setattr(client, "ECHO_TIME", 0.1)
    for text, words in (("one", "1 message has"), ("two", "2 messages have")):
        alice.say(text)
        alice.close()
        assert alice.banner == "" and alice.window.root is not None
        desktop.pump(lambda words=words: alice.banner == CLOSE % words)
        alice.press("Return")  # "Stay" has the focus
        assert alice.banner == ""
    alice.close()
    alice.close()
    desktop.update()
    assert alice.banner == CLOSE % "2 messages have"
    assert alice.window.root is not None
    alice.close()
    assert alice.window.root is None


@pytest.mark.parametrize("way", ["close", "Control-q", "/quit", "Other server…", "Quit"])
@pytest.mark.parametrize("where", ["#lobby", "bob"])
def test_leaving_asks_before_a_draft_is_lost(alice, desktop, hub, way, where):
    """In whatever conversation it was begun; each way out asks alike, and not twice."""

    def leave():
        if way == "close":
            alice.close()
        elif way == "/quit":
            alice.chat_view.open("carol")
            alice.say(way)
        elif way[0] == "C":
            alice.press(way, alice.box)
        else:
            alice.open_menu(way)

    alice.chat_view.open(where)
    alice.write("half of a")
    if way != "Control-q":
        alice.chat_view.open("carol")
    leave()
    question = "Leave this server?" if way[0] == "O" else "Close Hubbub?"
    question += " You have an unfinished message to %s." % where
    desktop.pump(lambda: alice.banner == question)
    alice.press("Return")  # "Stay" has the focus
    assert alice.banner == "" and alice.window.is_chatting
    alice.chat_view.open(where)
    assert alice.draft == "half of a"
    leave()
    desktop.pump(lambda: alice.banner == question)
    alice.chat_view.banner.buttons[0].invoke()
    desktop.pump(lambda: alice.window.root is None or not alice.window.is_chatting)


@pytest.mark.parametrize(
    ("name", "is_in_view", "words"),
    [("#lobby", True, "Leave #lobby"), ("bob", True, "Close bob"), ("bob", False, "Close bob")],
)
def test_leaving_a_conversation_asks_before_its_draft_is_lost(
    alice, desktop, name, is_in_view, words
):
    """But not for that of another."""

    def leave():
        conversation = alice.window.chat.conversation_named(name)
        alice.window.menus.open_conversation(conversation, alice.chat_view.buttons["more"])
        alice.choose(words)

    alice.chat_view.open("carol")
    alice.write("another")
    alice.chat_view.open(name)
    alice.write("half of a")
    if not is_in_view:
        alice.chat_view.open("carol")
    leave()
    desktop.pump(lambda: alice.banner == words + "? You have an unfinished message there.")
    alice.press("Return")  # "Stay" has the focus
    alice.chat_view.open(name)
    assert (alice.banner, alice.draft) == ("", "half of a")
    leave()
    alice.press("Return", alice.chat_view.banner.buttons[0])
    assert name not in alice.conversations
    alice.chat_view.open(name)
    alice.chat_view.composer.set("")
    leave()
    assert name not in alice.conversations and alice.banner == ""


def test_question_about_drafts_names_all_and_what_is_not_sent(alice, desktop, hub):
    hub.finish()
    desktop.pump(lambda: alice.banner.startswith("Connection lost."))
    alice.say("meanwhile")
    alice.chat_view.open("bob")
    alice.write("to you")
    alice.chat_view.open("#lobby")
    alice.write(" @bob ")
    alice.close()
    words = "1 message has not been sent yet, and would be lost. "
    question = "Close Hubbub? %sYou have an unfinished message to bob." % words
    desktop.update()
    assert alice.banner == question
    alice.press("Return")  # "Stay" has the focus
    assert alice.banner.startswith("Connection lost.")
    alice.chat_view.open("bob")
    alice.chat_view.composer.set("")
    alice.close()
    desktop.pump(lambda: alice.banner == "Close Hubbub? " + words.strip())


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["bob"], "an unfinished message to bob"),
        (["#lobby", "bob"], "unfinished messages to #lobby and bob"),
        (["#lobby", "bob", "carol"], "unfinished messages to #lobby, bob and carol"),
    ],
)
def test_question_names_the_drafts_as_a_list(alice, desktop, names, words):
    for name in names:
        alice.chat_view.open(name)
        alice.write("half of a")
    alice.close()
    desktop.pump(lambda: alice.banner == "Close Hubbub? You have %s." % words)


def test_draft_out_of_view_has_a_pencil(alice, desktop):
    """In the sidebar; the menu in its place says it in a word."""

    def marked():
        rows = [row for row in alice.chat_view.sidebar.list.rows if not row.is_caption]
        marked = [row.text for row in rows if "pencil" in RecordingDrawing(row).icons]
        assert marked == [row.text for row in rows if row.tip]
        return marked

    alice.chat_view.open("carol")
    alice.chat_view.open("bob")
    alice.write("half of a")
    assert marked() == []
    alice.chat_view.open("carol")
    alice.write("@dave ")  # is no draft, nor is a space
    alice.chat_view.open("#lobby")
    assert marked() == ["bob"]
    alice.window.menus.open_conversations()
    assert alice.menu[:3] == ["✓ #lobby", "carol", "bob   (unfinished)"]
    alice.chat_view.open("bob")
    assert marked() == []
    alice.chat_view.composer.set("")
    alice.chat_view.open("#lobby")
    assert marked() == []


def test_question_about_a_draft_ends_with_the_draft(alice, desktop):
    alice.write("half of a")
    alice.close()
    desktop.pump(lambda: "unfinished" in alice.banner)
    alice.chat_view.composer.set("")
    desktop.pump(lambda: alice.banner == "")
    alice.close()
    assert alice.window.root is None


@pytest.mark.parametrize("what", ["draft", "unsent", "/quit"])
def test_held_key_does_not_answer_the_question_that_it_asks(alice, desktop, monkeypatch, what):
    """Nor does it later, after it was let go."""
    monkeypatch.setattr(client, "ECHO_TIME", 0.1)
    monkeypatch.setattr(client, "REPEAT_TIME", TIMEOUT)
    if what == "unsent":
        alice.say("half of a")
    alice.chat_view.open("bob")
    alice.write("half of a")
    for _ in range(31):
        if what == "/quit":
            alice.chat_view.open("carol")
            alice.say(what)
        else:
            alice.press("Control-q")
    desktop.pump(lambda: not alice.window._ask_at)
    assert alice.banner.startswith("Close Hubbub?")
    assert alice.has_focus(alice.chat_view.banner.buttons[-1]) or what == "/quit"
    monkeypatch.setattr(client, "REPEAT_TIME", 0)
    alice.press("Control-q", alice.box)
    assert alice.window.root is None


def test_closing_waits_for_echoes_that_are_on_their_way(alice, desktop, hub, monkeypatch):
    monkeypatch.setattr(client, "ECHO_TIME", TIMEOUT)
    monkeypatch.setattr(client.Questions, "ask_close", None)
    alice.say("one")
    alice.close()
    echo(hub, "one")
    desktop.pump(lambda: alice.window.root is None)


def test_late_echo_ends_the_question_but_not_the_program(alice, desktop, hub, monkeypatch):
    monkeypatch.setattr(client, "ECHO_TIME", 0.1)
    alice.say("one")
    alice.close()
    desktop.pump(lambda: alice.banner == CLOSE % "1 message has")
    echo(hub, "one")
    desktop.pump(lambda: alice.banner == "")
    assert alice.has_focus(alice.box)


@pytest.mark.parametrize(
    ("end", "banner", "title"),
    [
        (lambda alice, hub: hub.finish(), "Connection lost.", "Reconnecting… — Hub — Hubbub"),
        (lambda alice, hub: hub.send(":bob!b@h PART #tea", ":alice!a@h PART #tea"), "", None),
        (lambda alice, hub: alice.press("Alt-Up"), "", None),
    ],
    ids=["connection", "conversation", "view"],
)
def test_question_ends_with_its_reason(tea, desktop, hub, end, banner, title):
    tea.press("Control-2", tea.box)
    tea.paste("line\n" * 30)
    assert tea.banner.startswith("Paste 30 lines?")
    end(tea, hub)
    desktop.pump(lambda: not tea.banner.startswith("Paste"))
    assert tea.banner.startswith(banner) and tea.has_focus(tea.box)
    assert title in (None, tea.title)
    assert tea.draft == ""


def test_title_shows_a_lost_connection_behind_a_question(alice, desktop, hub, monkeypatch):
    monkeypatch.setattr(client, "ECHO_TIME", 0.1)
    alice.say("one")
    alice.close()
    desktop.pump(lambda: alice.banner == CLOSE % "1 message has")
    hub.finish()
    alice.wait_for_title("Reconnecting… — Hub — Hubbub")
    assert alice.banner == CLOSE % "1 message has"
    alice.press("Escape")
    assert alice.banner.startswith("Connection lost.")


SLOW_CLIPBOARD = """
import tkinter
root = tkinter.Tk()
root.clipboard_append("x")
root.update()
print("owned", flush=True)
input()
root.mainloop()
"""


def test_window_that_waits_for_the_clipboard_can_be_closed(alice, desktop):
    """No callback runs afterwards, and nothing is pasted."""
    errors = []
    alice.root.tk.createcommand("bgerror", errors.append)
    command = [sys.executable, "-c", SLOW_CLIPBOARD]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as owner:
        assert owner.stdout.readline() == b"owned\n"
        desktop.update()

        def leave():
            alice.root.event_generate("<FocusOut>")
            alice.close()
            owner.stdin.write(b"\n")
            owner.stdin.flush()

        alice.root.after(1, leave)
        alice.box.event_generate("<<Paste>>")
        owner.kill()
    assert alice.window.root is None
    while alice.root.tk.dooneevent(client.tk._tkinter.DONT_WAIT):
        pass
    assert errors == []


@pytest.mark.parametrize("bar", ["banner", "announcement", "invitation"])
def test_bar_that_vanishes_gives_the_focus_to_the_message_box(alice, desktop, bar):
    """Also if it only loses the button, or its room in a low window."""
    view, alice.window.show_bars = alice.chat_view, lambda: None
    shown = getattr(view, bar)
    for end in (("", "warn"), ("Now", "warn"), None):
        shown.show("A question", "warn", [("Try now", lambda: None)])
        desktop.pump(shown.buttons[0].winfo_viewable)
        shown.buttons[0].focus_force()
        desktop.pump(lambda: alice.root.focus_get() is shown.buttons[0])
        if end is None:
            shown.fit(1, 1)
        else:
            shown.show(*end)
        desktop.pump(lambda: alice.root.focus_get() is alice.box)


# The message box


def test_paste_of_many_lines_is_asked_about(alice, hub):
    lines = ["line %d" % number for number in range(25)]
    alice.paste("\n".join(lines[:20]))
    assert alice.banner == ""
    alice.box.delete("1.0", "end")
    question = "Paste 25 lines? Each line will be a message of its own."
    for answer in ("Escape", "Return", "Shift-Tab"):  # "Cancel" has the focus
        alice.paste("\n".join(lines))
        assert alice.banner == question
        alice.press(answer)
        if answer == "Shift-Tab":
            alice.press("Return")
        assert alice.banner == ""
        assert alice.draft == ("\n".join(lines) if answer == "Shift-Tab" else "")
    alice.press("Return", alice.box)
    assert hub.until("line 24")[-25:] == ["PRIVMSG #lobby :" + line for line in lines]


# A key and the text before and after it: | is the cursor, [ ] what is selected.
EDITS = [
    ("ctrl+BackSpace", "one two|", "one |"),
    ("ctrl+BackSpace", "one two  |three", "one |three"),
    ("ctrl+BackSpace", "o[ne tw]|o", "o|o"),
    ("ctrl+BackSpace", "|one", "|one"),
    ("ctrl+BackSpace", "über ålar|", "über |"),
    ("ctrl+Delete", "one |two three", "one | three"),
    ("ctrl+Delete", "one|", "one|"),
    ("BackSpace", "one two|", "one tw|"),
    ("Delete", "|one", "|ne"),
    ("ctrl+Left", "one two|", "one |two"),
    ("ctrl+Right", "|one two", "one| two"),
    ("ctrl+shift+Left", "one two|", "one |[two]"),
    ("ctrl+shift+Right", "|one two", "[one]| two"),
    ("Home", "one two|", "|one two"),
    ("End", "|one two", "one two|"),
    ("shift+Home", "one two|", "|[one two]"),
    ("shift+End", "one |two", "one [two]|"),
    ("shift+Delete", "one [two]|", "one |"),
    ("ctrl+w", "one [two]|", "one [two]|"),
    ("ctrl+d", "o|ne", "o|ne"),
    ("ctrl+h", "o|ne", "o|ne"),
    ("ctrl+y", "one|", "one|"),
    ("Insert", "one|", "one|"),
    ("shift+Insert", "one|", "onecopied|"),
    ("ctrl+v", "o[n]|e", "ocopied|e"),
]


def write_marked(widget, marked):
    """Write a text with its cursor and selection into a Text or an entry field."""
    row = "1." if widget.winfo_class() == "Text" else ""
    marks = {}
    for mark in re.findall(r"[][|]", marked):
        marks[mark] = row + str(marked.index(mark))
        marked = marked.replace(mark, "", 1)
    widget.delete(row + "0", "end")
    widget.insert(row + "0", marked)
    if row:
        widget.mark_set("insert", marks["|"])
        widget.tag_remove("sel", "1.0", "end")
        widget.tag_add("sel", *(marks.get(mark, "1.0") for mark in "[]"))
    else:
        widget.icursor(marks["|"])
        widget.selection_range(*(marks.get(mark, 0) for mark in "[]"))


def read_marked(widget):
    """Return the text of a Text or an entry field with the marks of `write_marked`."""
    row = "1." if widget.winfo_class() == "Text" else ""
    marks = [(widget.index("insert"), "|")]
    with contextlib.suppress(client.tk.TclError):  # nothing is selected
        marks += [(widget.index("sel.last"), "]"), (widget.index("sel.first"), "[")]
    text = widget.get("1.0", "end-1c") if row else widget.get()
    places = [(int(str(index).replace(row, "")), "]|[".index(mark), mark) for index, mark in marks]
    for place, _, mark in sorted(places, reverse=True):
        text = text[:place] + mark + text[place:]
    return text


@pytest.fixture
def editor(alice, desktop):
    """Returns a user, and the widget of a kind that has the focus in the user's window."""

    def focus(kind):
        person, widget = alice, alice.box
        if kind == "search":
            alice.press("Control-f", alice.box)
            widget = alice.chat_view.search_bar.field.text
        elif kind == "name":
            alice.close()
            person = desktop.open()
            widget = person.connect_view.fields[client.NAME]
        widget.focus_force()
        return person, widget

    return focus


def offer(root, selection, **types):
    """Own a selection, offered to all programs as these types."""
    root.selection_own(selection=selection)
    for type_, text in types.items():
        answer = functools.partial(lambda text, start, length: text[int(start) :], text)
        root.selection_handle(answer, selection=selection, type=type_)


@pytest.mark.parametrize("kind", ["message", "search", "name"])
def test_editing_keys_are_those_of_the_platform(editor, kind):
    """In the message box, in the search field and in the connect view."""
    person, widget = editor(kind)
    done = []
    for key, before, _ in EDITS:
        client.copy_text(person.root, "copied")
        if "[" not in before:  # else what is selected there is what all programs see
            offer(person.root, "PRIMARY", STRING="selected elsewhere")
        write_marked(widget, before)
        person.type("<%s>" % key)
        done.append((key, before, read_marked(widget)))
    assert done == EDITS


@pytest.mark.parametrize("kind", ["message", "search", "name"])
def test_only_text_is_pasted(editor, kind):
    """Some programs answer a request for text with the bytes of their image."""
    person, widget = editor(kind)
    for targets, pasted in (("image/png", ""), ("TARGETS UTF8_STRING", "PNG"), ("STRING", "PNG")):
        for selection, key in (("CLIPBOARD", "<<Paste>>"), ("PRIMARY", "<<PasteSelection>>")):
            write_marked(widget, "|")
            offer(person.root, selection, TARGETS=targets, STRING="PNG", UTF8_STRING="PNG")
            if kind == "name":
                widget.event_generate("<Button-2>", x=1, y=1)  # it pastes where this was
            widget.event_generate(key, x=1, y=1)
            assert read_marked(widget).replace("|", "") == pasted


@pytest.mark.parametrize("redo", ["ctrl+y", "ctrl+shift+z"])
def test_undo_and_redo(alice, redo):
    """A word that was deleted by a key is a step of its own."""
    alice.box.focus_force()
    alice.type("one two", "<ctrl+BackSpace>")
    assert alice.draft == "one "
    alice.type("<ctrl+z>")
    assert alice.draft == "one two"
    alice.type("<%s>" % redo)
    assert alice.draft == "one "


def test_shift_with_up_or_down_selects_and_ctrl_shift_home_too(alice):
    alice.say("sent before")
    alice.write("one\ntwo")
    for key, selected in (("shift+Up", "two"), ("ctrl+shift+Home", "one\ntwo")):
        alice.box.focus_force()
        alice.box.mark_set("insert", "end-1c")
        alice.type("<%s>" % key)
        assert alice.draft == "one\ntwo"
        assert alice.box.get("sel.first", "sel.last").endswith(selected)
        alice.box.tag_remove("sel", "1.0", "end")


def test_tab_completes_names_commands_and_rooms(tea):
    """Tab goes on to the next suggestion, Shift+Tab back; it leaves the box if there is none."""
    for begun, steps in [
        ("ca", ["carol: "]), ("@b", ["@bob "]), ("hi b", ["hi bob "]), ("/who", ["/whois "]),
        ("see #", ["see #lobby ", "see #tea "]),
    ]:  # fmt: skip
        tea.write(begun)
        for step in steps:
            tea.press("Tab", tea.box)
            assert tea.draft == step
        tea.box.delete("1.0", "end")
    tea.press("Tab", tea.box)
    assert not tea.has_focus(tea.box)
    tea.box.focus_force()
    tea.type("xyz")  # nothing completes it: the button that sends is next
    tea.press("Tab", tea.box)
    assert tea.has_focus(tea.chat_view.composer.button)
    tea.type("a", " ")  # not sent by a word that was to be completed
    assert (tea.draft, tea.has_focus(tea.box)) == ("xyza ", True)
    for key, has_focus in (("Shift-Tab", False), ("Tab", True), ("Tab", False)):
        tea.press(key)
        assert tea.has_focus(tea.box) == has_focus
    tea.type("<Return>")
    assert (tea.draft, tea.has_focus(tea.box)) == ("", True)
    tea.write("#")
    tea.press("Control-Tab", tea.box)
    assert not tea.has_focus(tea.box)
    for steps, completed in ((("<Tab>", "<Tab>"), "#tea "), (("<shift+Tab>",), "#lobby ")):
        tea.box.focus_force()
        tea.type(*steps)
        assert tea.draft == completed


@pytest.mark.parametrize("name", ["bob", "bo", "zoe"])
def test_box_says_to_whom_the_draft_goes_before_it_is_sent(alice, desktop, hub, name):
    alice.type("@%s hi" % name)
    words = {
        "bob": "Privately to bob",
        "bo": "No one called “bo” is here. Did you mean bob?",
        "zoe": "No one called “zoe” is here.",
    }
    assert alice.notice == words[name]
    hub.send(":bob!b@h QUIT :bye")
    desktop.pump(lambda: alice.people == ["alice"])
    alice.box.delete("1.0", "end")
    desktop.pump(lambda: alice.notice == "")


def test_answer_to_a_private_line_is_said_to_be_public_before_it_is_sent(alice, desktop, hub):
    hub.send(":bob!b@h PRIVMSG alice :psst")
    desktop.pump(lambda: alice.lines[-1:] == ["[bob -> you]: psst  (only you two)"])
    assert alice.notice == ""
    alice.type("y")
    assert alice.notice == "To everyone in #lobby"
    alice.click("[bob -> you]")
    assert alice.menu[0] == "Write privately"
    alice.choose("Write privately")
    alice.type("y")
    assert alice.notice == ""


def test_notice_changes_with_the_people_who_are_here(alice, desktop, hub):
    alice.type("@bob hi")
    hub.send(":bob!b@h QUIT :bye")
    desktop.pump(lambda: alice.notice == "No one called “bob” is here.")
    alice.press("Control-Next", alice.box)
    hub.send(":bob!b@h JOIN #lobby bob :Bob")
    desktop.pump(lambda: alice.notice == "Privately to bob")
    alice.type("<Return>")
    hub.expect("WHOIS bob")
    hub.send(":hub 330 alice bob bob :is logged in as", ":hub PONG hub :who")
    desktop.pump(lambda: not alice.window.chat.asked)
    hub.expect("PRIVMSG bob :hi")
    assert alice.notice == ""


def test_suggestions_follow_what_is_typed(tea, desktop, hub):
    """Arrows go through them, Tab and Enter take; a word that is complete is sent at once."""
    tea.type("/")
    assert tea.suggested[0] == "</msg>" and "/list" in tea.suggested and "/ban" not in tea.suggested
    drawn = tea.chat_view.composer.suggestions.list
    desktop.pump(lambda: "answer the last private message" in tea.drawn(drawn))
    tea.type("LI")
    assert tea.suggested == ["</list>"]
    tea.type("st", "<Return>")
    hub.expect("NAMES #tea")
    assert (tea.suggested, tea.draft) == ([], "")

    tea.type("hi @")
    assert tea.suggested == ["<@carol>", "@bob"]
    tea.type("<Down>", "<Down>", "<Return>")
    assert (tea.suggested, tea.draft) == ([], "hi @bob ")
    tea.type("@c", "<Tab>", "see #l", "<BackSpace>", "t", "<Tab>", "!", "<Return>")
    hub.expect("PRIVMSG #tea :hi @bob @carol see #tea !")
    tea.type("@carol", "<Down>", "<Return>")
    tea.sees("[SERVER]: Usage: @USERNAME MESSAGE")
    assert tea.draft == "@carol"


def test_suggestions_leave_other_keys_alone(tea, desktop):
    tea.type("one", "<Return>", "@")
    assert tea.suggested
    tea.type("<Escape>")
    assert (tea.suggested, tea.draft) == ([], "@")
    tea.type("<Up>")
    assert (tea.suggested, tea.draft) == ([], "one")
    tea.type("<Down>", "<BackSpace>")
    tea.paste("/li")
    assert tea.suggested == []
    tea.type("s")
    assert tea.suggested == ["</list>"]
    tea.type("<Left>")
    assert tea.suggested == []
    tea.type("<End>", "<BackSpace>")
    assert tea.suggested == ["</list>"]
    tea.press("Control-k")
    assert tea.suggested == []


def test_suggestion_can_be_clicked(tea, desktop):
    tea.type("#")
    canvas = tea.chat_view.composer.suggestions.list.canvas
    desktop.pump(canvas.winfo_viewable)
    canvas.event_generate("<Button-1>", x=30, y=45)
    assert (tea.suggested, tea.draft) == ([], "#tea ")
    assert tea.has_focus(tea.box)


def test_help_typed_opens_the_sheet(alice, desktop):
    alice.type("/help", "<Return>")
    desktop.pump(lambda: alice.sheet is not None)
    assert "/list " in [row.text for row in alice.sheet.list.rows]
    assert not [line for line in alice.lines if "/list" in line]
    alice.type("<Escape>")
    assert alice.sheet is None and alice.has_focus(alice.box)


@pytest.mark.parametrize(
    "steps",
    [
        ("/register", "<Return>", "s3cret"),
        ("/register s3cret",),
        ("/register wrong", "<Escape>", "/register", "<Return>", "s3cret"),
        ("/reg", "<Tab>", "s3cret"),
    ],
)
def test_password_is_never_shown(desktop, open_room, tmp_path, steps):
    """Neither in the box nor in the transcript nor among what was sent before."""
    alice = desktop.join(open_room(data=str(tmp_path / "kept")).server.port, "alice")
    hidden = alice.chat_view.composer.hidden
    alice.type(*steps)
    assert alice.draft == ""
    assert (hidden.get(), hidden.cget("show")) == ("s3cret", "•")
    assert alice.notice == "New password for alice, at least 8 characters (hidden). Esc gives up."
    alice.type("<Return>")
    alice.sees("[SERVER]: A password has at least 8 characters.")
    alice.type("<Escape>")
    assert not hidden.winfo_manager() and alice.has_focus(alice.box)
    alice.type("<Up>")
    assert "s3cret" not in alice.draft + alice.text.get("1.0", "end")


def test_password_that_is_too_short_can_be_made_longer(desktop, open_room, tmp_path):
    alice = desktop.join(open_room(data=str(tmp_path / "kept")).server.port, "alice")
    alice.type("/register s3cret", "<Return>")
    assert alice.lines[-1] == "[SERVER]: A password has at least 8 characters.  (only you)"
    assert alice.notice == "New password for alice, at least 8 characters (hidden). Esc gives up."
    alice.type("<End>", "s3cret", *["<Return>", "s3crets3cret"] * 2, "<Return>")
    alice.sees("[SERVER]: alice is now yours alone. Next time, log in with /login alice")


def test_pasted_password_is_hidden(alice):
    alice.paste("/login bob s3cret")
    assert (alice.draft, alice.chat_view.composer.hidden.get()) == ("", "s3cret")
    alice.chat_view.composer.insert("!")
    assert (alice.draft, alice.chat_view.composer.hidden.get()) == ("", "s3cret!")


@pytest.mark.parametrize("steps", [("/login alice s3cret",), ("/login", "<Return>", "s3cret")])
def test_password_on_a_later_line_is_hidden(tea, hub, steps):
    """It is sent alone; the other lines stay."""
    tea.window.chat.session.caps |= {"sasl"}
    tea.paste("hello\n\nthere")
    tea.type("<Up>", *steps)
    assert (tea.draft, tea.chat_view.composer.hidden.get()) == ("hello\nthere", "s3cret")
    assert tea.notice == "Password of alice (hidden). Esc gives up."
    tea.type("<Escape>")
    assert (tea.draft, tea.notice) == ("hello\nthere", "")
    tea.type("<Return>")
    hub.expect("PRIVMSG #tea :there")
    tea.paste("hello\n\nthere")
    tea.type("<Up>", *steps, "<Return>")
    hub.expect("AUTHENTICATE PLAIN")
    assert tea.draft == "hello\nthere"


def test_two_passwords_in_a_draft_are_hidden(alice):
    alice.paste("/login bob s3cret\n/register s3cret\n")
    alice.root.update()
    assert "s3cret" not in alice.draft or alice.chat_view.composer.hidden.winfo_viewable()
    alice.type("<Escape>")
    assert (alice.draft, alice.chat_view.composer.hidden.get()) == ("", "s3cret")
    assert alice.notice.startswith("New password")


def test_up_and_down_recall_sent_lines_without_passwords(alice):
    for text in ("one", "two"):
        alice.say(text)
    alice.window.chat.session.caps |= {"sasl"}
    alice.write("/login alice secret")
    alice.press("Return", alice.chat_view.composer.hidden)
    alice.box.delete("1.0", "end")
    alice.write("unfinished")
    shown = []
    for key in ("Up", "Up", "Up", "Down", "Down"):
        alice.press(key, alice.box)
        shown.append(alice.draft)
    assert shown == ["two", "one", "one", "two", "unfinished"]
    alice.box.delete("1.0", "end")
    alice.open_menu("Set me away")  # was not typed
    alice.say("three")
    alice.press("Up", alice.box)
    alice.press("Up", alice.box)
    assert alice.draft == "two"
    alice.press("Down", alice.box)
    alice.press("Down", alice.box)
    alice.press("Up", alice.box)
    assert alice.draft == "three"


def test_middle_button_pastes_the_selection(alice, desktop, hub):
    """Through the hint, too; many lines are asked about."""
    hear(hub, alice, "some words")
    start = alice.text.search("some words", "1.0")
    alice.text.tag_add("sel", start, start + "+10c")
    for event in ("<Button-2>", "<ButtonRelease-2>"):
        alice.chat_view.composer.hint.event_generate(event, x=9, y=9)
    assert alice.draft == "some words"
    hear(hub, alice, *("line %d" % number for number in range(30)))
    alice.text.tag_add("sel", "1.0", "end")
    alice.box.event_generate("<<PasteSelection>>", x=9, y=9)
    desktop.pump(lambda: alice.banner.startswith("Paste "))


def test_indentation_is_shown_and_nicknames_in_bold_are_words(alice, hub):
    hear(hub, alice, "    return 1", "alice: malice", "al")
    assert "[bob]:     return 1" in alice.lines
    start = alice.text.search("alice: malice", "1.0")
    names = ["name" in alice.text.tag_names("%s + %d chars" % (start, n)) for n in (0, 8)]
    assert names == [True, False]


def test_muted_room_gives_no_dot_on_the_menu_button(tea, desktop, hub):
    room, view = tea.window.chat.conversation_named("#lobby"), tea.chat_view
    for level, dot in ((client.NONE, ""), (client.MENTIONS, "mention_badge")):
        tea.window.do(tea.window.chat.set_level, room, level)
        hub.send(":bob!b@h PRIVMSG #lobby :%s" % level, ":bob!b@h PRIVMSG #tea :%s" % level)
        tea.sees("[bob]: " + level)
        assert view.menu_button.cget("image")[0] == str(view._look.icon("menu", dot=dot))


def test_room_that_is_named_or_invited_to_is_joined_by_a_click(alice, desktop, hub):
    hub.send(":bob!b@h PRIVMSG #lobby :see #maths", ":tina!t@h INVITE alice #trip")
    alice.sees("[bob]: see #maths")
    alice.click("#maths")
    hub.expect("JOIN #maths")
    bar = alice.chat_view.announcement
    desktop.pump(bar.frame.winfo_viewable)
    assert bar.text.cget("text") == "tina invites you to #trip."
    bar.buttons[0].invoke()
    hub.expect("JOIN #trip")
    hub.send(":alice!a@h JOIN #trip")
    desktop.pump(lambda: not bar.frame.winfo_viewable())


# Sheets, menus and keys


def test_menu_of_the_conversations_counts_no_muted_room(tea, desktop, hub):
    tea.window.do(
        tea.window.chat.set_level, tea.window.chat.conversation_named("#lobby"), client.NONE
    )
    hub.send(":bob!b@h PRIVMSG #lobby :noise", ":bob!b@h PRIVMSG #tea :later")
    tea.sees("[bob]: later")
    tea.window.menus.open_conversations()
    assert "#lobby" in tea.menu


def test_late_answer_leaves_the_chosen_row(tea, desktop, hub):
    tea.window.questions.go_to("#")
    tea.press("Down", tea.sheet.field.text)
    chosen = tea.sheet.list.selected
    hub.expect("LIST")
    end = hub.line().split()[1]
    hub.send(":hub 322 alice #big 900 :Everyone", ":hub PONG hub " + end)
    desktop.pump(lambda: "big" in [row.text for row in tea.sheet.list.rows])
    assert tea.sheet.list.rows[0].text == "big"
    assert (tea.sheet.list.selected, tea.sheet.list.cursor) == (chosen, chosen)
    tea.sheet.fill("bi")
    desktop.pump(lambda: tea.sheet.list.cursor == "#big")


def test_bans_are_not_denied_without_a_connection(alice, desktop, hub):
    none = "You are not connected. Try again when you are."
    alice.window.questions.lift("BANS")
    assert [row.text for row in alice.sheet.list.rows] == ["Asking the server…"]
    hub._hang_up()
    desktop.pump(lambda: [row.text for row in alice.sheet.list.rows] == [none])
    alice.press("Escape")
    alice.window.questions.lift("BANS")
    assert [row.text for row in alice.sheet.list.rows] == [none]


def test_sidebar_scrolls_to_the_conversation_in_view(alice, desktop, hub):
    hub.send(*(":alice!a@h JOIN #room%d" % number for number in range(60)))
    hub.send(":bob!b@h PRIVMSG alice :psst")
    desktop.pump(lambda: alice.conversations[-1] == "bob")
    rows = alice.chat_view.sidebar.list
    for name, shown in (("bob", "bob"), ("#lobby", "lobby"), ("#room30", "room30")):
        alice.chat_view.open(name)
        desktop.pump(lambda shown=shown: shown in alice.drawn(rows))


@pytest.mark.parametrize("key", ["Control-k", "Control-n"])
def test_sheets_offer_people_of_all_rooms(tea, desktop, key):
    tea.press(key, tea.box)
    tea.sheet.field.set("car")
    desktop.pump(lambda: "carol" in [row.text for row in tea.sheet.list.rows])


def test_sheet_does_not_offer_the_server_as_a_person(alice, desktop, hub):
    hub.send(":alice!a@h PART #lobby")
    desktop.pump(lambda: alice.conversations == ["Hub"])
    alice.press("Control-k", alice.box)
    assert [row.text for row in alice.sheet.list.rows] == ["Write a name"]


def test_invalid_name_in_a_sheet_is_explained(alice):
    alice.press("Control-n", alice.box)
    alice.type("a!b", "<Return>")  # "Write to a!b"
    alice.sees("[SERVER]: No such user: a!b")
    assert alice.conversations == ["#lobby"]


def test_tab_stays_in_a_sheet(alice):
    alice.press("Control-k", alice.box)
    sheet = alice.sheet
    field, rows = sheet.field.text, sheet.list.canvas
    close = next(w for w in sheet.frame.winfo_children() if w.winfo_class() == "TButton")
    for key, widget in [("Tab", rows), ("Tab", close), ("Tab", field), ("Shift-Tab", close)]:
        alice.press(key)
        assert alice.has_focus(widget)
    close.invoke()
    assert alice.sheet is None and alice.has_focus(alice.box)


def test_help_is_read_by_keyboard(alice, desktop):
    alice.press("F1", alice.box)
    rows = alice.sheet.list
    names = [row.key for row in rows.rows if row.key]
    assert "/join " in names and "/bans " not in names
    assert names[0] == client.protocol.UNNAMED_HELP[0][0] and names[-1].startswith("Hubbub ")
    assert names[-2] == "With a screen reader, start Hubbub with --terminal."
    keys = [row for row in rows.rows if row.key in {key.name for key in client.KEYS}]
    look = alice.window.look
    width = {
        row.text: look.font["ui"].measure(row.text) + look.font["small"].measure(row.key)
        for row in keys
    }
    wide = [words for words in width if width[words] > look.dp(440 - 8) - look.px(32)]
    assert len(keys) == len(client.KEYS) and not wide
    desktop.pump(lambda: rows.cursor == names[0])
    desktop.pump(lambda: "Enter" in alice.drawn(rows))
    assert rows.canvas.canvasy(0) == 0  # it begins at the first row
    alice.press("Down")
    assert rows.cursor == names[1]
    alice.press("End")
    assert rows.cursor == names[-1]
    desktop.pump(lambda: names[-1] in alice.drawn(rows))
    alice.press("Return")
    assert alice.sheet is None and alice.has_focus(alice.box)


def test_closed_sheets_are_freed(alice, desktop):
    """Neither handlers nor pictures of a sheet outlive it."""

    def open_and_close():
        for key in ("F1", "Control-k"):
            alice.press(key, alice.box)
            alice.press("Escape")

    def left():
        desktop.update()
        tk = alice.root.tk
        return [len(tk.splitlist(tk.eval(command))) for command in ("info commands", "image names")]

    open_and_close()
    before = left()
    for _ in range(5):
        open_and_close()
    assert left() == before


@pytest.mark.parametrize("layout", ["us", "ru", "gr"])
def test_keys_with_letters_work_in_every_alphabet(alice, desktop, layout):
    """Ctrl with the key of F searches, with Shift everywhere; with A and X it cuts everything."""
    if not shutil.which("setxkbmap"):
        cannot("there is no setxkbmap here")
    control, shift, letter_f, letter_a, letter_x = "37", "50", "41", "38", "53"
    try:
        subprocess.run(["setxkbmap", layout], check=True)
        desktop.update()
        alice.write("something")
        for letter in (letter_a, letter_x, letter_f):
            alice.xdotool("keydown", control, "key", letter, "keyup", control)
        desktop.pump(lambda: alice.chat_view.search_bar.is_open)
        assert alice.draft == ""
        assert alice.chat_view.search_bar.field.get() == ""
        alice.xdotool("keydown", control, "keydown", shift, "key", letter_f, "keyup", shift)
        alice.xdotool("keyup", control)
        desktop.pump(lambda: alice.sheet is not None)
    finally:
        subprocess.run(["setxkbmap", "us"], check=True)


def test_keys_work_with_caps_lock(alice):
    alice.write("words")
    alice.box.focus_force()
    alice.type("<Caps_Lock>")
    try:
        alice.type("<ctrl+a>")
        assert alice.box.get("sel.first", "sel.last") == "words"
        alice.type("<ctrl+f>")
        assert alice.has_focus(alice.chat_view.search_bar.field.text)
        alice.type("<ctrl+shift+f>")
        assert alice.sheet is not None
    finally:
        alice.type("<Caps_Lock>")


def test_text_boxes_have_a_menu(alice, desktop):
    """It opens by mouse, by keyboard and through the hint."""
    name = desktop.open().connect_view.fields["name"]
    hint = alice.chat_view.composer.hint
    for widget, key in ((hint, "Button-3"), (alice.box, "Shift-F10"), (name, "Button-3")):
        widget.focus_force()
        widget.event_generate("<%s>" % key, x=3, y=3)
        person = desktop._people[widget is name]
        assert person.menu == ["Cut", "Copy", "Paste", "Select all"]


@pytest.mark.parametrize("row, has, has_not", [(1, "Set me away", "Ignore"), (2, "Ignore", "Quit")])
def test_people_have_a_menu(alice, desktop, row, has, has_not):
    people = alice.chat_view.people.list
    desktop.pump(lambda: "bob" in alice.drawn(people))
    people.canvas.event_generate("<Button-3>", x=30, y=people._tops[row] + 5)
    entries = alice.menu
    assert has in entries and has_not not in entries


# Search and links


def test_search_finds_text_in_all_of_a_conversation(alice, desktop, hub):
    """In any case, with emoji, and in entries that are not in the text yet."""
    hear(hub, alice, "First 😀 Straße")
    hear(hub, alice, *("line %d" % number for number in range(1000)))
    alice.chat_view.transcript.open(alice.window.chat.current)  # its last page
    assert "[bob]: First 😀 Straße" not in alice.lines
    hear(hub, alice, "😀😀 the end 😀 FIRST")
    alice.press("Control-f", alice.box)
    alice.chat_view.search_bar.field.text.insert("end", "first")
    desktop.pump(lambda: alice.found == "1 of 2")
    assert alice.text.get(*alice.text.tag_ranges("found")) == "FIRST"
    alice.press("Return")
    assert alice.found == "2 of 2"
    assert alice.text.get(*alice.text.tag_ranges("found")) == "First"
    assert alice.text.dlineinfo(alice.text.tag_ranges("found")[0])
    for key, found in [("Shift-F3", "1 of 2"), ("F3", "2 of 2"), ("Shift-Return", "1 of 2")]:
        alice.press(key)
        assert alice.found == found
    for words, found in [("STRASSE", "1 of 1"), ("😀", "1 of 4"), ("nowhere", "No matches")]:
        alice.chat_view.search_bar.field.set("")
        alice.chat_view.search_bar.field.text.insert("end", words)
        desktop.pump(lambda found=found: alice.found == found)
    alice.press("Escape")
    assert not alice.chat_view.search_bar.frame.winfo_viewable()


def test_messages_that_come_are_found_but_not_gone_to(alice, desktop, hub):
    hear(hub, alice, "no match")
    hear(hub, alice, "First", *("line %d" % number for number in range(100)))
    alice.press("Control-f", alice.box)
    alice.chat_view.search_bar.field.set("first")
    desktop.pump(lambda: alice.found == "1 of 1")
    top = alice.text.index("@0,0")
    hub.send(":bob!b@h PRIVMSG #lobby :first again")
    desktop.pump(lambda: alice.found == "2 of 2")
    assert alice.text.get(*alice.text.tag_ranges("found")) == "First"
    assert len(alice.text.tag_ranges("find")) == 4
    assert alice.text.index("@0,0") == top and not alice.is_at_end()
    alice.press("Shift-F3")
    assert alice.text.get(*alice.text.tag_ranges("found")) == "first"
    alice.chat_view.search_bar.field.set("second")
    desktop.pump(lambda: alice.found == "No matches")
    hear(hub, alice, "A second", "Another second")
    assert alice.found == "2 of 2"
    alice.press("F3")
    assert alice.found == "1 of 2"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("👍🏽", "👍"), ("👩‍👧‍👦", "👩"), ("❤️", "❤"), ("1️⃣", "1"), ("🏳️‍🌈", "🏳"), ("👩🏽‍💻", "👩"),
        ("👍🏽👍🏽", "👍👍"), ("می‌خواهم क्‍ष", "می‌خواهم क्‍ष"), ("😀👍", "😀👍"), ("a{b $c", "a{b $c"),
    ],
)  # fmt: skip
def test_emoji_that_tk_cannot_join_are_shown_simpler(alice, desktop, hub, text, shown):
    """What is copied, found and sent stays as it is."""
    text, shown = client.protocol.clean(text), client.protocol.clean(shown)
    hub.send(":bob!b@h TOPIC #lobby :%s end" % text)
    hear(hub, alice, "a %s b found" % text)
    line = "[bob]: a %s b found" % shown
    view = alice.text.tk.call(alice.text, "get", "-displaychars", "1.0", "end")
    assert view.splitlines()[-2].endswith(line)
    desktop.pump(lambda: alice.drawn(alice.chat_view.room) == ["# lobby", shown + " end"])
    alice.press("Control-f", alice.box)
    alice.chat_view.search_bar.field.set("found")
    desktop.pump(lambda: alice.found == "1 of 1")
    assert alice.text.get(*alice.text.tag_ranges("found")) == "found"
    alice.press("Control-a", alice.text)
    alice.press("Control-c", alice.text)
    assert " a %s b found" % text in alice.root.clipboard_get()
    alice.paste(text)
    alice.press("Return", alice.box)
    hub.expect("PRIVMSG #lobby :" + text)


@pytest.mark.parametrize("emoji", ["on", "off"])
def test_found_text_is_marked_behind_emoji(desktop, hub, monkeypatch, emoji):
    monkeypatch.setenv("HUBBUB_EMOJI", emoji)
    alice = desktop.open(hub.port, "alice", at_once=True)
    hub.welcome()
    hub.send(":bob!b@h PRIVMSG #lobby :👩🏽‍💻 ❤️ found")
    desktop.pump(lambda: alice.lines[-1].endswith("found"))
    alice.press("Control-f", alice.box)
    alice.chat_view.search_bar.field.set("found")
    desktop.pump(lambda: alice.found == "1 of 1")
    assert alice.text.get(*alice.text.tag_ranges("found")) == "found"


def test_f3_brings_the_search_bar_back(alice, desktop, hub):
    hear(hub, alice, "one two one")
    alice.press("Control-f", alice.box)
    alice.chat_view.search_bar.field.set("one")
    desktop.pump(lambda: alice.found == "1 of 2")
    alice.press("Escape")
    alice.press("F3")
    assert alice.chat_view.search_bar.is_open and alice.found == "1 of 2"
    alice.press("Escape")
    assert not alice.text.tag_ranges("found")


def test_search_shows_its_hits_in_a_line_that_was_chosen(alice, desktop, hub):
    hear(hub, alice, "one two one")
    alice.chat_view.transcript.choose(alice.window.chat.current.entries[-1])
    alice.text.tag_add("sel", "cursor.first", "cursor.last")
    alice.press("Control-f", alice.box)
    alice.chat_view.search_bar.field.set("one")
    desktop.pump(lambda: alice.found == "1 of 2")
    assert not alice.text.tag_ranges("sel") and not alice.text.tag_ranges("cursor")


def test_links_open_on_a_click_and_only_web_pages(alice, desktop, hub, monkeypatch):
    opened = []
    monkeypatch.setattr(client.webbrowser, "open", opened.append)
    hear(hub, alice, "see https://example.org/a?b=(1). or file:///etc/passwd 😀 http://b.example")
    hear(hub, alice, "HTTPS://C.example")
    assert "link" in alice.tags_of("https://example.org")
    assert "link" not in alice.tags_of("file:///etc")
    alice.click("file:///etc")
    assert opened == []
    alice.click("https://example.org")
    alice.click("http://b.example")
    alice.click("HTTPS://C.example")
    desktop.pump(lambda: len(opened) == 3)
    assert sorted(opened) == [
        "http://b.example", "https://C.example", "https://example.org/a?b=(1)"
    ]  # fmt: skip
    x, y, _, _ = alice.text.bbox(alice.text.search("b.example", "1.0"))
    alice.text.event_generate("<Button-3>", x=x + 2, y=y + 2)
    assert alice.menu[:3] == ["Reply", "Copy", "Select all"]
    assert alice.menu[3:5] == ["Open http://b.example", "Copy http://b.example"]


@pytest.mark.parametrize("emoji", ["on", "off"])
@pytest.mark.parametrize(
    ("link", "opened"),
    [
        ("HTTPS://Example.org/Wiki", "https://Example.org/Wiki"),
        ("Http://example.org", "http://example.org"),
        ("http://example.org/👍🏽👩‍👧", "http://example.org/👍🏽👩‍👧"),
    ],
)
def test_link_opens_as_it_was_written(desktop, hub, monkeypatch, emoji, link, opened):
    """Also where parts of it cannot be shown."""
    calls = []
    monkeypatch.setattr(client.webbrowser, "open", calls.append)
    monkeypatch.setenv("HUBBUB_EMOJI", emoji)
    alice = desktop.open(hub.port, "alice", at_once=True)
    hub.welcome()
    hear(hub, alice, "see that")
    hub.send(":bob!b@h PRIVMSG #lobby :one http://a.example, two %s." % link)
    start = link[:11]
    desktop.pump(lambda: "link" in alice.tags_of(start))
    alice.click(start)
    desktop.pump(lambda: calls)
    assert calls == [opened]


# Replies and settings


def test_replies_show_in_the_conversation_in_view(tea, desktop, hub):
    tea.say("/whois bob")
    hub.expect("WHOIS bob")
    hub.send(":hub 311 alice bob b host * :Bob", ":hub 318 alice bob :End of /WHOIS list.")
    desktop.pump(lambda: any("bob is" in line or "bob (" in line for line in tea.lines))
    hub.send(":carol!c@h TOPIC #tea :Green or black?")
    tea.sees("[SERVER]: carol set the topic: Green or black?")
    desktop.pump(lambda: tea.drawn(tea.chat_view.room) == ["# tea", "Green or black?"])
    tea.say("/away lunch")
    hub.expect("AWAY lunch")
    hub.send(":hub 306 alice :You have been marked as being away")
    desktop.pump(lambda: tea.drawn(tea.chat_view.sidebar.user) == ["A", "alice", "Away"])


def test_ignored_users_are_saved_at_once(alice):
    alice.type("/ignore bob", "<Return>")
    saved = client.Settings(client.settings_path())
    saved.load()
    assert saved.ignored == ["bob"]


def test_settings_are_kept_without_the_password(desktop, open_room):
    room = open_room(password="sesame")
    alice = desktop.open(room.server.port, "alice", at_once=True)
    alice.wait_for_question(client.PASSWORD)
    alice.connect(password="sesame")
    alice.sees("[SERVER]: alice joined the chat")
    alice.press("Control-t", alice.box)
    alice.press("Control-plus", alice.box)
    alice.root.geometry("900x600+40+30")
    desktop.pump(lambda: alice.root.geometry() == "900x600+40+30")
    alice.close()
    text = Path(client.settings_path()).read_text(encoding="utf-8")
    assert "sesame" not in text
    kept = json.loads(text)
    assert (kept["theme"], kept["zoom"], kept["name"]) == ("light", 110, "alice")
    again = desktop.open(room.server.port)
    assert str(again.text.cget("bg")) == client.PALETTES["light"]["chat"]
    again.connect(name="alice")
    again.wait_for_question(client.PASSWORD)
    again.connect(password="sesame")
    desktop.pump(lambda: again.root.geometry() == "900x600+40+30")
