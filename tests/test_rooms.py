"""The window's rooms: the browser, what can be clicked in the transcript, and the topic."""

from pathlib import Path

import pytest
from harness import Room

import client
from client import Tip

LONG = (
    "The homework is on the shared folder, and it is due on Friday before the second lesson. " * 2
)


@pytest.fixture
def room(tmp_path):
    """A server with the rooms #maths (2 people) and #secrets."""
    room = Room(data=str(tmp_path / "room"), network="School")
    bob, carol = room.irc("bob"), room.irc("carol")
    bob.send("JOIN #maths", "TOPIC #maths :Fractions, page 12", "JOIN #secrets", "MODE #secrets +t")
    carol.send("JOIN #maths")
    for talker in (bob, carol):
        talker.heard()
    room.bob = bob
    yield room
    room.close()


@pytest.fixture
def alice(desktop, room):
    return desktop.join(room.server.port, "alice")


def rows(alice):
    return [row.text for row in alice.sheet.list.rows]


@pytest.mark.parametrize("way", ["menu", "plus"])
def test_rooms_are_browsed_with_people_and_topics(alice, desktop, way):
    if way == "menu":
        alice.open_menu("Browse rooms…")
    else:
        sidebar = alice.chat_view.sidebar.list
        sidebar._choose("#")
    desktop.pump(lambda: rows(alice) == ["lobby", "maths", "secrets"])
    drawn = lambda: alice.drawn(alice.sheet.list)  # noqa: E731
    desktop.pump(lambda: "Fractions, page 12" in drawn())
    assert {"joined · 3 people", "2 people", "1 person"} <= set(drawn())
    hint = alice.sheet.field.hint
    assert hint.cget("text") == "Find a room, or type a new name" and hint.winfo_viewable()
    alice.type("fract")
    desktop.pump(lambda: rows(alice) == ["maths", "Make a new room, #fract"])
    assert not hint.winfo_viewable()
    alice.press("Return")
    alice.sees("[SERVER]: alice joined #maths")
    assert "322" not in str(alice.lines) and "#secrets (1)" not in str(alice.lines)


def test_mouse_moves_the_highlight_of_a_sheet(alice, desktop):
    alice.open_menu("Browse rooms…")
    desktop.pump(lambda: "secrets" in rows(alice))
    found = alice.sheet.list
    found.canvas.event_generate("<Motion>", x=60, y=found._tops[1] + 9)
    assert found.selected == found.cursor == "#maths"
    alice.press("Return", alice.sheet.field.text)
    alice.sees("[SERVER]: alice joined #maths")


def test_room_is_made_by_the_last_row_alone(alice, desktop):
    alice.open_menu("Browse rooms…")
    desktop.pump(lambda: "secrets" in rows(alice))
    alice.type("sec")
    desktop.pump(lambda: rows(alice) == ["secrets", "Make a new room, #sec"])
    alice.type("rets")
    desktop.pump(lambda: rows(alice) == ["secrets"])
    alice.sheet.field.set("new")
    desktop.pump(lambda: rows(alice) == ["Make a new room, #new"])
    alice.press("Return", alice.sheet.field.text)
    alice.sees("[SERVER]: alice joined #new")


def test_typed_list_of_rooms_is_still_shown(alice):
    alice.say("/rooms")
    alice.sees("[SERVER]: #maths (2): Fractions, page 12")


def test_private_message_is_begun_from_the_menu(alice, desktop):
    alice.open_menu("New private message…")
    desktop.pump(lambda: rows(alice) == ["bob", "carol"])
    alice.type("dav")
    desktop.pump(lambda: rows(alice) == ["Write to dav"])


def test_room_in_a_text_is_a_way_there(alice, desktop, room):
    """It is not entered at the click: rooms are made by entering them."""
    room.bob.send("PRIVMSG #lobby :see #maths, not #12 or http://h.example/#frag or a#b")
    alice.sees("[bob]: see #maths, not #12 or http://h.example/#frag or a#b")
    assert "room" in alice.tags_of("#maths, not")
    for words in ("#12", "#frag", "#b"):
        assert "room" not in alice.tags_of(words)
    alice.click("#maths")
    desktop.pump(lambda: alice.sheet is not None and rows(alice) == ["maths"])
    alice.press("Return", alice.sheet.field.text)
    alice.sees("[SERVER]: alice joined #maths")
    alice.chat_view.open("#lobby")
    alice.click("#maths")
    desktop.pump(lambda: alice.window.chat.current.name == "#maths")


def test_name_in_the_transcript_has_its_menu(alice, desktop, room):
    room.bob.send("PRIVMSG #lobby :hello")
    alice.sees("[bob]: hello")
    alice.say("hi")
    alice.sees("[alice]: hi")
    assert "person" not in alice.tags_of("[alice]: hi")
    alice.click("[bob]")
    assert alice.menu[:2] == ["Write privately", "Mention"]


@pytest.mark.parametrize("way", ["click", "menu", "keyboard"])
def test_topic_is_changed_in_place(alice, desktop, way):
    view = alice.chat_view
    alice.write("a draft")
    if way == "click":
        view.room.canvas.event_generate("<Button-1>")
    elif way == "keyboard":
        view.room.canvas.focus_force()
        alice.type("<Return>")
    else:
        view.buttons["more"].invoke()
        alice.choose("Change the topic…")
    desktop.pump(lambda: alice.has_focus(view.topic.text))
    alice.type("Tests on Monday", "<Return>")
    alice.sees("[SERVER]: alice set the topic: Tests on Monday")
    assert view.topic is None and alice.has_focus(alice.box) and alice.draft == "a draft"
    desktop.pump(lambda: "Tests on Monday" in alice.drawn(view.room))
    view.edit_topic()
    alice.press("Escape", view.topic.text)
    assert view.topic is None and alice.has_focus(alice.box)
    view.edit_topic()
    view.topic.set("")
    alice.press("Return", view.topic.text)
    alice.sees("[SERVER]: alice cleared the topic")


@pytest.mark.parametrize("way", ["click", "F6", "Control-r", "F1"])
def test_topic_that_is_left_is_not_set(alice, desktop, room, way):
    """But its menu, and another program's window, do not leave it."""
    room.bob.send("PRIVMSG #lobby :hello")
    alice.sees("[bob]: hello")
    view = alice.chat_view
    view.edit_topic()
    desktop.pump(lambda: alice.has_focus(view.topic.text))
    hint = "Topic of #lobby. Enter saves, Esc cancels"
    desktop.pump(lambda: alice.drawn(view.room) == [hint])
    with desktop.elsewhere(alice, view.topic.text):
        desktop.update()
    view.topic.text.focus_force()
    view.topic.text.event_generate("<<ContextMenu>>")
    desktop.update()
    alice.press("Escape", view.topic.text)  # closes the menu alone
    assert "Paste" in alice.menu and view.topic is not None
    view.topic.text.focus_force()
    desktop.update()
    if way == "click":
        view.transcript.text.event_generate("<Button-1>", x=5, y=5)
    else:
        alice.press(way, view.composer.text if way == "Control-r" else view.topic.text)
    desktop.pump(lambda: view.topic is None and hint not in alice.drawn(view.room))


@pytest.mark.parametrize("way", ["click", "Tab", "Shift-Tab", "Alt-Up"])
def test_changed_topic_stays_until_it_is_saved_or_given_up(alice, desktop, way):
    alice.chat_view.open("#maths")
    alice.sees("[SERVER]: alice joined #maths")
    view = alice.chat_view
    view.edit_topic()
    desktop.pump(lambda: alice.has_focus(view.topic.text))
    view.topic.set("Tests on Monday")
    if way == "click":
        view.transcript.text.event_generate("<Button-1>", x=5, y=5)
        view.transcript.text.focus_force()
    else:
        alice.press(way, view.topic.text)
    desktop.pump(lambda: view.topic is None or not alice.has_focus(view.topic.text))
    desktop.update()
    if way == "Alt-Up":
        assert view.topic is None and alice.window.chat.current.name == "#lobby"
        alice.press("Alt-Down", alice.box)
    assert view.topic.get() == "Tests on Monday" and not alice.has_focus(view.topic.text)
    view.edit_topic()
    desktop.pump(lambda: alice.has_focus(view.topic.text))
    alice.press("Escape", view.topic.text)
    assert view.topic is None and alice.has_focus(alice.box)
    view.edit_topic()
    assert view.topic.get() == "Fractions, page 12"


def test_topic_is_not_offered_to_those_who_may_not_set_it(alice, desktop):
    alice.chat_view.open("#secrets")
    desktop.pump(lambda: alice.window.chat.current.has_fixed_topic)
    view = alice.chat_view
    desktop.pump(lambda: "No topic" in alice.drawn(view.room))
    view.room.canvas.event_generate("<Button-1>")
    assert view.topic is None
    assert "Change the topic…" not in alice.menu


def test_topic_that_is_written_is_for_its_own_room(alice, desktop):
    alice.chat_view.edit_topic()
    alice.chat_view.open("#maths")
    alice.sees("[SERVER]: alice joined #maths")
    assert alice.chat_view.topic is None


@pytest.mark.parametrize("is_long", [True, False])
def test_topic_that_is_cut_has_a_tip(alice, desktop, room, monkeypatch, is_long):
    monkeypatch.setattr(Tip, "DELAY", 20)
    topic = LONG.strip() if is_long else "short"
    room.bob.send("TOPIC #lobby :" + topic)
    alice.sees("[SERVER]: bob set the topic: " + topic)
    alice.chat_view.room.canvas.focus_force()
    shown = topic + "\n" if is_long else ""
    desktop.pump(lambda: alice.tip == shown + "Click to change the topic")


def test_rooms_are_joined_again_at_the_next_start(alice, desktop, room):
    """But for those that were left, or refuse; no key is kept."""
    room.bob.send("MODE #secrets +k s3cret")
    for name in ("#maths", "#secrets s3cret", "#left"):
        alice.say("/join " + name)
        alice.sees("[SERVER]: alice joined " + name.split()[0])
    alice.say("/leave")
    desktop.pump(lambda: alice.conversations == ["#lobby", "#maths", "#secrets"])
    alice.close()
    assert "s3cret" not in Path(client.settings_path()).read_text(encoding="utf-8")
    again = desktop.join(room.server.port, "alice")
    desktop.pump(lambda: "bob" in again.window.chat.find("#maths").members)
    assert again.window.chat.current.name == "#lobby"
    again.press("Alt-Key-3", again.box)
    assert "#secrets has a key" in again.lines[-1]
    again.press("Alt-Key-2", again.box)
    again.sees("[SERVER]: alice joined #maths")
    again.close()
    last = desktop.join(room.server.port, "alice")
    assert last.conversations == ["#lobby", "#maths"]
