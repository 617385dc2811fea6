"""The window's rooms: the browser, what can be clicked in the transcript, and the topic."""

import re
from pathlib import Path

import pytest
from harness import Room

import client
from client import Tip, protocol

LONG = (
    "The homework is on the shared folder, and it is due on Friday before the second lesson. " * 2
)


@pytest.fixture
def room(tmp_path):
    """A server with the rooms #maths (2 people) and #secrets."""
    room = Room(data=str(tmp_path / "room"), network="School")
    bob, carol = room.irc("bob"), room.irc("carol")
    bob.send("JOIN #maths", "TOPIC #maths :Fractions, page 12", "JOIN #secrets", "MODE #secrets +t")
    bob.heard()  # the first to join a room is its operator
    carol.send("JOIN #maths")
    carol.heard()
    bob.heard()
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


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("Is 17 right?", "Make a new room, #Is-17-right"),
        (" #two  words ", "Make a new room, #two-words"),
        ("@home, 5:30!", "Make a new room, #home-530"),
        ("#" + "a" * 40, "Make a new room, #" + "a" * 31),
        ("?!", "Write a name"),
        ("maths?", "maths"),
        ("irc-\u0447\u0430\u0442", protocol.spelling_error("#irc-\u0447\u0430\u0442")),
    ],
)  # fmt: skip
def test_room_is_offered_by_a_name_that_rooms_can_have(alice, desktop, typed, offered):
    alice.open_menu("Browse rooms…")
    desktop.pump(lambda: "secrets" in rows(alice))
    alice.sheet.field.set(typed)
    desktop.pump(lambda: rows(alice) == [offered])
    if offered.startswith("Make"):
        alice.press("Return", alice.sheet.field.text)
        alice.sees("[SERVER]: alice joined " + offered.partition(", ")[2])


def test_typed_list_of_rooms_is_still_shown(alice):
    alice.say("/rooms")
    alice.sees("[SERVER]: #maths (2): Fractions, page 12")


def test_private_message_is_begun_from_the_menu(alice, desktop):
    alice.open_menu("New private message…")
    desktop.pump(lambda: rows(alice) == ["bob", "carol"])
    alice.type("dav")
    desktop.pump(lambda: rows(alice) == ["Write to dav"])


def test_room_in_a_text_is_a_way_there(alice, desktop, room):
    room.bob.send("PRIVMSG #lobby :see #maths, not #12 or http://h.example/#frag or a#b")
    alice.sees("[bob]: see #maths, not #12 or http://h.example/#frag or a#b")
    assert "room" in alice.tags_of("#maths, not")
    for words in ("#12", "#frag", "#b"):
        assert "room" not in alice.tags_of(words)
    alice.click("#maths")
    alice.sees("[SERVER]: alice joined #maths")
    alice.chat_view.open("#lobby")
    alice.press("Escape")  # else it would be a double click
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


def test_long_name_of_a_room_is_cut_in_the_menu(alice, room):
    room.bob.send("PRIVMSG #lobby :#" + "w" * 300)
    alice.sees("[bob]: #" + "w" * 300)
    alice.press("Up", alice.text)
    alice.press("Return")
    assert max(map(len, alice.menu)) < 80


@pytest.mark.parametrize("key", ["Return", "Shift-F10"])
def test_rooms_and_the_sender_of_a_line_are_reached_by_key(alice, desktop, room, key):
    room.bob.send("PRIVMSG #lobby :#maths is not #lobby, see #maths")
    alice.sees("[bob]: #maths is not #lobby, see #maths")

    def open_menu():
        alice.press("Up", alice.text)
        alice.press(key)

    open_menu()
    assert alice.menu == ["Reply", "Copy", "Select all", "Join #maths", "More for bob…"]
    alice.choose("Join #maths")
    alice.sees("[SERVER]: alice joined #maths")
    alice.chat_view.open("#lobby")
    open_menu()
    alice.choose("Go to #maths")
    assert alice.window.chat.current.name == "#maths"
    alice.chat_view.open("#lobby")
    open_menu()
    alice.choose("More for bob…")
    assert alice.menu[:2] == ["Write privately", "Mention"]
    alice.say("#maths")
    alice.sees("[alice]: #maths")
    open_menu()
    assert alice.menu == ["Reply", "Copy", "Select all", "Go to #maths"]
    alice.text.event_generate("<Button-3>", x=90, y=alice.y_of("see #maths") + 5)
    assert "Go to #maths" in alice.menu
    alice.choose("More for bob…")  # no line is chosen there
    assert alice.menu[:2] == ["Write privately", "Mention"]
    alice.say(" ".join("#r%d" % number for number in range(20)))
    alice.sees("[alice]: " + " ".join("#r%d" % number for number in range(20)))
    open_menu()
    assert alice.menu[0] == "Reply" and len(alice.menu) == 3 + client.MAX_OFFERED


def edit_topic(alice, desktop):
    alice.chat_view.edit_topic()
    desktop.pump(lambda: alice.has_focus(alice.chat_view.topic.text))


def topics_set_by(alice, room):
    """Return the topics that Alice has set, as Bob has heard it up to now."""
    alice.say("done")
    lines = room.bob.until(" :done")
    return [line.rpartition(" :")[2] for line in lines if re.match(":alice!.* TOPIC ", line)]


def click_on(person, widget):
    """Click near the top left corner of a widget, with the mouse."""
    x, y = widget.winfo_rootx() + 9, widget.winfo_rooty() + 9
    person.xdotool("mousemove", str(x), str(y), "click", "1")


@pytest.mark.parametrize("way", ["click", "menu", "<Return>", "<space>"])
def test_topic_is_changed_in_place(alice, desktop, way):
    view = alice.chat_view
    alice.write("a draft")
    if way == "click":
        click_on(alice, view.room.canvas)
    elif way == "menu":
        view.buttons["more"].invoke()
        alice.choose("Change the topic…")
    else:
        view.room.canvas.focus_force()
        alice.type(way)
    desktop.pump(lambda: alice.has_focus(view.topic.text))
    desktop.pump(lambda: alice.drawn(view.room) == ["Topic of #lobby. Enter saves, Esc cancels"])
    alice.type("Tests on Monday", "<Return>")
    alice.sees("[SERVER]: alice set the topic: Tests on Monday")
    assert alice.topic is None and alice.has_focus(alice.box) and alice.draft == "a draft"
    desktop.pump(lambda: "Tests on Monday" in alice.drawn(view.room))
    for _ in range(2):
        edit_topic(alice, desktop)
        assert alice.topic == "Tests on Monday"
        alice.type("Tests on Tuesday", "<Escape>")
        assert alice.topic is None and alice.has_focus(view.room.canvas)
        assert alice.draft == "a draft"
    edit_topic(alice, desktop)
    alice.type("<BackSpace>", "<Return>")
    alice.sees("[SERVER]: alice cleared the topic")
    assert "Tuesday" not in str(alice.lines)


def test_unchanged_topic_is_not_set(alice, desktop, room):
    """Not even if another user has changed it in the meantime."""
    alice.chat_view.open("#maths")
    alice.sees("[SERVER]: alice joined #maths")
    edit_topic(alice, desktop)
    assert alice.topic == "Fractions, page 12"
    room.bob.send("TOPIC #maths :Fractions, page 13")
    alice.sees("[SERVER]: bob set the topic: Fractions, page 13")
    alice.type("<End>", "x", "<BackSpace>", "<Return>")
    assert alice.topic is None and alice.has_focus(alice.box)
    assert topics_set_by(alice, room) == []


@pytest.mark.parametrize("way", ["click", "<Tab>", "<shift+Tab>", "<F6>", "<F1>", "<ctrl+r>"])
@pytest.mark.parametrize("is_changed", [True, False])
def test_topic_that_is_left_stays_if_it_is_changed(alice, desktop, room, way, is_changed):
    room.bob.send("PRIVMSG #lobby :hello")
    alice.sees("[bob]: hello")
    view = alice.chat_view
    edit_topic(alice, desktop)
    alice.type("Tests", *(["<Return>"] if not is_changed else []))
    if not is_changed:
        alice.sees("[SERVER]: alice set the topic: Tests")
        edit_topic(alice, desktop)
    click_on(alice, alice.text) if way == "click" else alice.type(way)
    desktop.pump(lambda: not alice.has_focus(view.topic.text))
    desktop.update()
    assert alice.topic == ("Tests" if is_changed else None)
    if alice.sheet is not None:
        alice.type("<Escape>")
    alice.box.focus_force()
    alice.type("<Escape>")  # is not for the topic
    assert alice.topic == ("Tests" if is_changed else None)
    click_on(alice, view.topic.text) if is_changed else edit_topic(alice, desktop)
    desktop.pump(lambda: alice.has_focus(view.topic.text))
    alice.type("<Escape>")
    assert alice.topic is None and alice.has_focus(view.room.canvas)
    edit_topic(alice, desktop)
    assert alice.topic == ("" if is_changed else "Tests")
    assert topics_set_by(alice, room) == ([] if is_changed else ["Tests"])


def test_topic_takes_the_focus_at_once(alice, desktop):
    """Not later, from the part that has it by then."""
    alice.chat_view.edit_topic()
    alice.chat_view.focus_composer()
    desktop.pump(lambda: alice.topic is None)
    assert alice.has_focus(alice.box)


def test_topic_is_not_left_for_its_menu_or_another_program(alice, desktop):
    edit_topic(alice, desktop)
    text = alice.chat_view.topic.text
    with desktop.elsewhere(alice, text):
        desktop.update()
        assert alice.topic == ""
    text.focus_force()
    text.event_generate("<<ContextMenu>>")
    desktop.pump(alice.window.menus.menu.winfo_viewable)
    alice.type("<Escape>")  # closes the menu alone
    assert "Paste" in alice.menu and alice.topic == ""
    desktop.pump(lambda: alice.root.focus_get() is text)
    alice.box.focus_force()
    desktop.pump(lambda: alice.topic is None)


@pytest.mark.parametrize("way", ["<alt+Up>", "click"])
def test_changed_topic_is_kept_for_its_own_room(alice, desktop, way):
    """The field does not open itself; after Esc, nothing is kept."""
    view = alice.chat_view
    view.open("#maths")
    alice.sees("[SERVER]: alice joined #maths")
    edit_topic(alice, desktop)
    alice.type("Tests")
    if way == "click":
        alice.box.focus_force()
        view.select_nth(1)
    else:
        alice.type(way)
    assert alice.topic is None and alice.window.chat.current.name == "#lobby"
    desktop.pump(lambda: alice.has_focus(alice.box))
    edit_topic(alice, desktop)
    assert alice.topic == ""
    alice.type("<ctrl+z>", "<alt+Down>")  # nothing is undone that was in another room
    assert alice.topic is None and alice.has_focus(alice.box)
    view.open("#lobby")
    assert view.transcript.conversation.topic_draft == ""
    for kept, topic in (("Tests", "Fractions, page 12"), ("Fractions, page 12",) * 2):
        view.open("#maths")
        edit_topic(alice, desktop)
        assert alice.topic == kept and alice.window.chat.current.topic == topic
        alice.type("<Escape>")
        assert alice.topic is None


def test_topic_that_can_no_longer_be_set_is_kept(alice, desktop, room):
    view = alice.chat_view
    view.open("#maths")
    alice.sees("[SERVER]: alice joined #maths")
    edit_topic(alice, desktop)
    alice.type("Tests")
    room.bob.send("MODE #maths +t")
    desktop.pump(lambda: "t" in alice.window.chat.current.flags)
    alice.type("<Return>")
    assert alice.topic is None
    alice.sees("[SERVER]: Only operators of #maths may do that.")
    view.edit_topic()
    assert alice.topic is None and "Change the topic…" not in alice.menu
    room.bob.send("MODE #maths -t")
    desktop.pump(lambda: "t" not in alice.window.chat.current.flags)
    edit_topic(alice, desktop)
    assert alice.topic == "Tests"


@pytest.mark.parametrize("zoom", client.ZOOMS)
def test_words_above_the_topic_have_room(alice, desktop, zoom):
    view, look = alice.chat_view, alice.window.look
    look.change(look.theme, zoom)
    edit_topic(alice, desktop)
    canvas, field = view.room.canvas, view.topic.frame
    desktop.pump(lambda: len(alice.drawn(view.room)) == 1)
    desktop.update()
    (words,) = [item for item in canvas.find_all() if canvas.type(item) == "text"]
    _, top, _, bottom = canvas.bbox(words)
    above, below = field.winfo_rooty() - canvas.winfo_rooty(), field.winfo_height()
    assert top >= 4 and bottom <= above and above + below < canvas.winfo_height()


def test_click_beside_keeps_a_sheet_that_asks_for_words(alice, desktop):
    alice.window.questions.ask_name()
    sheet = alice.sheet
    desktop.pump(lambda: alice.has_focus(sheet.field.text))
    alice.type("Tests")
    sheet.field.text.event_generate("<<ContextMenu>>")
    desktop.update()
    assert "Paste" in alice.menu
    for _ in range(2):  # the first closes the menu
        alice.text.event_generate("<Button-1>", x=5, y=5)
        desktop.update()
    assert alice.sheet is sheet and sheet.words == "Tests"
    sheet.close()
    alice.window.questions.go_to()
    alice.text.event_generate("<Button-1>", x=5, y=5)
    assert alice.sheet is None


def test_message_box_has_the_focus_again(alice, desktop):
    """After another room, by key, click or sheet, and after a sheet alone."""
    alice.chat_view.open("#maths")
    alice.sees("[SERVER]: alice joined #maths")
    view = alice.chat_view
    alice.type("hello")
    for way in ("keys", "sheet", "sheet that is closed", "click"):
        for index, name in enumerate(("lobby", "maths"), 1):
            if way == "keys":
                alice.type("<alt+%d>" % index)
            elif way == "click":
                canvas, y = view.sidebar.list.canvas, view.sidebar.list._tops[index] + 10
                canvas.event_generate("<Button-1>", x=60, y=y)
                desktop.update()
            else:
                alice.type("<ctrl+k>", name)
                desktop.pump(lambda name=name: alice.sheet.list.rows[0].key == "#" + name)
                alice.type("<Return>" if way == "sheet" else "<Escape>")
        assert alice.window.chat.current.name == "#maths" and not alice.sheet
        desktop.pump(lambda: alice.has_focus(alice.box))
        alice.type("<End>", "!")
    assert alice.draft == "hello!!!!"


def test_topic_is_not_offered_to_those_who_may_not_set_it(alice, desktop):
    alice.chat_view.open("#secrets")
    desktop.pump(lambda: alice.window.chat.current.flags >= {"t"})
    view = alice.chat_view
    desktop.pump(lambda: "No topic" in alice.drawn(view.room))
    view.room.canvas.event_generate("<Button-1>")
    assert alice.topic is None
    assert "Change the topic…" not in alice.menu


def test_topic_of_the_lobby_is_not_offered_once_the_server_has_an_operator(alice, desktop, room):
    view = alice.chat_view
    desktop.pump(lambda: "No topic. Click to set one" in alice.drawn(view.room))
    room.server.store.add_account("root", "open sesame", True)
    alice.sees("[SERVER]: The server now lets only operators set the topic of #lobby")
    desktop.pump(lambda: "No topic" in alice.drawn(view.room))
    view.room.canvas.event_generate("<Button-1>")
    assert "Change the topic…" not in alice.menu and alice.topic is None
    alice.window.do(alice.window.chat.send_command, "OPER", "root", "open sesame")
    desktop.pump(lambda: "No topic. Click to set one" in alice.drawn(view.room))


def choose_in_room_menu(alice, *words):
    """Open the menu of the room in view, choose a command, and return the commands."""
    alice.chat_view.buttons["more"].invoke()
    for command in words:
        alice.choose(command)
    return alice.menu


@pytest.fixture
def club(alice, desktop):
    """Alice in #club, which she has made."""
    alice.chat_view.open("#club")
    desktop.pump(lambda: alice.window.chat.can_moderate(alice.window.chat.current))
    return alice


def test_rules_of_a_room_are_in_its_menu_for_its_operators(club, desktop):
    for words, on, off in (
        ("Only operators set the topic", "now lets only operators set the topic of #club",
         "now lets everyone in #club set the topic"),
        ("Only invited people may join", "now lets only invited people join #club",
         "now lets everyone join #club"),
    ):  # fmt: skip
        choose_in_room_menu(club, words)
        club.sees("[SERVER]: alice " + on)
        choose_in_room_menu(club, "✓ " + words)
        club.sees("[SERVER]: alice " + off)
        assert words in choose_in_room_menu(club)
    club.chat_view.open("#maths")
    club.sees("[SERVER]: alice joined #maths")
    assert not {words, "Password…"}.intersection(choose_in_room_menu(club))


def test_password_of_a_room_is_set_and_removed_in_a_sheet(club, desktop):
    choose_in_room_menu(club, "Password…")
    assert rows(club) == ["Type a password"] and club.sheet.words == ""
    for typed in ("two words", "a" * 33, "a,b"):
        club.sheet.field.set(typed)
        desktop.pump(lambda: rows(club) == ["At most 32 characters, no spaces, no commas"])
    club.sheet.field.set("sesame")
    desktop.pump(lambda: rows(club) == ["Set the password"])
    club.press("Return")
    club.sees("[SERVER]: alice set a password for #club")
    choose_in_room_menu(club, "✓ Password…")
    assert club.sheet.words == "sesame"
    club.sheet.field.set("")
    desktop.pump(lambda: rows(club) == ["Remove the password"])
    club.press("Return")
    club.sees("[SERVER]: alice removed the password of #club")
    assert "Password…" in choose_in_room_menu(club)


def test_people_are_invited_in_their_menu(club, desktop, room):
    """To rooms that they are not in, where the user may invite."""
    room.irc("dave")
    club.chat_view.open("#maths")
    club.sees("[SERVER]: alice joined #maths")
    club.chat_view.open("#lobby")
    desktop.pump(lambda: "dave" in club.people)
    invitations = lambda name: [  # noqa: E731
        words for words in person_menu(club, name) if words.startswith("Invite to ")
    ]
    assert invitations("dave") == ["Invite to #club", "Invite to #maths"]
    assert club.menu[-2:] == ["Invite to #club", "Invite to #maths"]  # the others keep their places
    assert invitations("bob") == ["Invite to #club"]
    club.choose("Invite to #club")
    club.sees("[SERVER]: You invited bob to #club")
    room.bob.expect("INVITE bob :#club")
    room.bob.send("MODE #maths +i")
    desktop.pump(lambda: invitations("dave") == ["Invite to #club"])
    club.say("/invite dave")
    club.sees("[SERVER]: dave is already in #lobby")


def person_menu(person, name):
    person.window.menus.open_person(name, person.chat_view.people.list)
    return person.menu


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
    desktop.pump(lambda: "bob" in again.window.chat.conversation_named("#maths").members)
    assert again.window.chat.current.name == "#lobby"
    again.press("Alt-Key-3", again.box)
    assert "#secrets has a password" in again.lines[-1]
    again.press("Alt-Key-2", again.box)
    again.sees("[SERVER]: alice joined #maths")
    again.close()
    last = desktop.join(room.server.port, "alice")
    assert last.conversations == ["#lobby", "#maths"]


@pytest.mark.parametrize("way", ["/nick", "menu"])
def test_another_name_is_kept_for_the_next_start_with_its_rooms(alice, desktop, room, way):
    alice.chat_view.open("#maths")
    alice.sees("[SERVER]: alice joined #maths")
    if way == "menu":
        alice.open_menu("Another name…")
        alice.type("Ann", "<Return>")
    else:
        alice.say("/nick bob")  # it is taken
        alice.sees("[SERVER]: Username already taken: bob. Choose another.")
        assert alice.window.settings.name == "alice"
        alice.say("/nick Ann")
    alice.sees("[SERVER]: alice is now called Ann")
    desktop.pump(lambda: alice.window.settings.name == "Ann")
    alice.open_menu("Other server…")
    assert alice.connect_view.fields[client.NAME].get() == "Ann"
    assert alice.connect_view.fields[client.SERVER].get().endswith(str(room.server.port))
    alice.close()
    again = desktop.open(room.server.port)
    assert again.connect_view.fields[client.NAME].get() == "Ann"
    again.connect()
    again.sees("[SERVER]: Ann joined the chat")
    desktop.pump(lambda: again.conversations == ["#lobby", "#maths"])


def test_name_that_a_server_gives_is_not_kept(desktop, hub):
    alice = desktop.open(hub.port, "alice", at_once=True)
    hub.welcome()
    desktop.pump(lambda: alice.people == ["alice", "bob"])
    hub.send(":alice!a@h NICK Guest42")
    alice.sees("[SERVER]: alice is now called Guest42")
    assert alice.window.settings.name == "alice"


@pytest.mark.parametrize("password", ["", "opensesame"])
def test_private_conversations_are_in_the_list_at_the_next_start(alice, desktop, room, password):
    """But for those that were closed. What the server keeps is shown when they are opened."""

    def come_back(*missed):
        alice.close()
        desktop.pump(lambda: room.server.directory.find("alice") is None)
        room.bob.send(*["PRIVMSG alice :" + text for text in missed])
        room.bob.heard()
        again = desktop.open(room.server.port, "alice", at_once=True)
        if password:
            again.wait_for_question(client.PASSWORD)
            again.connect(password=password)
        again.sees("[SERVER]: alice joined the chat")
        return again

    if password:
        alice.say("/register " + password)
        desktop.pump(lambda: alice.window.chat.session.account == "alice")
    for name in ("bob", "carol"):
        alice.chat_view.open(name)
        alice.say("hello " + name)
        desktop.pump(lambda: not alice.window.chat.unsent)
    alice.window.do(alice.window.chat.leave, alice.window.chat.current)
    alice = come_back()
    assert alice.conversations == ["#lobby", "bob"] and alice.window.chat.current.name == "#lobby"
    alice.press("Alt-Key-2", alice.box)
    empty = alice.chat_view.transcript.empty
    if password:
        alice.sees("[you -> bob]: hello bob")
    assert empty.winfo_ismapped() == (client.PRIVATE_RULE in empty.cget("text")) == (not password)
    alice = come_back(*["are you there?"] * 40)  # more than a view shows
    desktop.pump(lambda: alice.conversations == ["#lobby", "bob 40" if password else "bob"])
    alice.press("Alt-Key-2", alice.box)
    assert alice.conversations == ["#lobby", "bob"]
    alice.text.yview_moveto(0)
    if password:
        alice.sees("[you -> bob]: hello bob")
    other = desktop.join(room.server.port, "dora")  # on the same computer
    assert other.conversations == ["#lobby"]


def test_person_is_invited_from_the_menu_of_the_room(club, desktop, room):
    """The sheet offers those who are not there, and any other name."""
    room.bob.send("JOIN #club")
    desktop.pump(lambda: "bob" in club.people)
    choose_in_room_menu(club, "Invite someone…")
    assert rows(club) == ["carol"]
    club.sheet.field.set("dave")
    desktop.pump(lambda: rows(club) == ["Invite dave"])
    club.sheet.field.set("ca")
    desktop.pump(lambda: rows(club) == ["carol", "Invite ca"])
    club.press("Return")
    club.sees("[SERVER]: You invited carol to #club")
    room.bob.send("JOIN #maths", "MODE #maths +i")
    club.chat_view.open("#maths")
    desktop.pump(lambda: "Password…" not in choose_in_room_menu(club))
    assert "Invite someone…" not in choose_in_room_menu(club)  # only its operators may
    club.chat_view.open("bob")
    assert "Invite someone…" not in choose_in_room_menu(club)


def test_room_that_does_not_exist_is_said_to_be_new(alice, desktop):
    """And which one may have been meant, as the server lists them at the start of /join."""
    alice.box.focus_force()
    alice.type("/join ")
    desktop.pump(lambda: alice.window.chat.listing.is_done)
    alice.type("math")
    desktop.pump(lambda: alice.suggested == ["<#maths>"])
    alice.type("<Escape>", "<Return>")
    alice.sees("[SYSTEM]: You made #math. Nobody else is here yet. Did you mean #maths?")
    assert [line for line in alice.lines if "operator of #math now" in line]
    alice.window.do(alice.window.chat.send_command, "MODE", "#math")
    alice.say("/join #other")
    alice.sees("[SYSTEM]: You made #other. Nobody else is here yet.")
    for name in ("#maths", "#math"):  # they exist
        alice.say("/join " + name)
        desktop.pump(lambda name=name: alice.window.chat.current.name == name)
    assert sum("You made" in line for line in alice.lines) == 1


def test_rooms_of_the_server_are_suggested_without_their_sign(alice, desktop):
    alice.box.focus_force()
    alice.type("/join ")
    desktop.pump(lambda: alice.window.chat.listing.is_done)
    alice.type("s")
    desktop.pump(lambda: alice.suggested == ["<#secrets>"])
    alice.type("<Return>")
    assert alice.draft == "/join #secrets " and alice.suggested == []
    alice.type("<Return>")
    alice.sees("[SERVER]: alice joined #secrets")


@pytest.mark.parametrize(
    ("mode", "typed", "refusal"),
    [
        ("+i", "", "#maths is open to invited users only. Its operators can invite you."),
        ("+l 1", "", "#maths is full. Try again later."),
        ("+b *!*@*", "", "You are banned from #maths. Its operators can lift that."),
        ("+k sesame", "", "#maths has a password. Type /join #maths PASSWORD"),
        ("+k sesame", " wrong", "That is not the password of #maths."),
    ],
)
def test_room_that_refuses_is_shown_as_not_joined(alice, desktop, room, mode, typed, refusal):
    buttons = {"+k": ["Type its password"], "+b": []}.get(mode[:2], ["Join again"])
    room.bob.send("MODE #maths " + mode)
    room.bob.heard()
    alice.say("/join maths" + typed)
    alice.sees(("[SYSTEM]: " if "wrong" in typed else "[SERVER]: ") + refusal)
    sidebar = alice.chat_view.sidebar.list
    desktop.pump(lambda: alice.drawn(sidebar).count("not joined") == 1)
    desktop.pump(lambda: alice.banner == refusal.partition(" Type /join")[0])
    assert [button.cget("text") for button in alice.chat_view.banner.buttons] == buttons
    assert choose_in_room_menu(alice)[0] == "Join #maths"
    assert choose_in_room_menu(alice)[-1] == "Remove from the list"
    alice.chat_view.buttons["more"].invoke()
    alice.choose("Remove from the list")
    assert alice.conversations == ["#lobby"]
    alice.say("/join secrets")
    alice.sees("[SERVER]: alice joined #secrets")
    assert "not joined" not in alice.drawn(sidebar)
    assert choose_in_room_menu(alice)[-1] == "Leave #secrets"


@pytest.mark.parametrize("way", ["banner", "menu"])
def test_password_of_a_room_is_typed_to_join_it(alice, desktop, room, way):
    room.bob.send("MODE #maths +k sesame")
    room.bob.heard()
    alice.chat_view.open("#maths")
    desktop.pump(lambda: alice.banner == "#maths has a password.")
    for typed in ("wrong", "sesame"):
        if way == "menu":
            choose_in_room_menu(alice, "Join #maths")
        else:
            alice.chat_view.banner.buttons[0].invoke()
        assert rows(alice) == ["Type the password"]
        desktop.pump(lambda: alice.has_focus(alice.sheet.field.text))
        alice.sheet.field.set("two words")
        desktop.pump(lambda: rows(alice) == ["At most 32 characters, no spaces, no commas"])
        alice.sheet.field.set(typed)
        desktop.pump(lambda: rows(alice) == ["Join #maths"])
        alice.press("Return")
        if typed == "wrong":
            desktop.pump(lambda: alice.banner == "That is not the password of #maths.")
            assert alice.chat_view.banner.buttons[0].cget("text") == "Type its password"
    alice.sees("[SERVER]: alice joined #maths")
    desktop.pump(lambda: not alice.banner)
    assert "Join #maths" not in choose_in_room_menu(alice)


def test_room_that_is_open_again_is_joined_from_the_banner(alice, desktop, room):
    room.bob.send("MODE #maths +i")
    room.bob.heard()
    alice.chat_view.open("#maths")
    desktop.pump(lambda: alice.banner.startswith("#maths is open to invited users only."))
    room.bob.send("MODE #maths -i")
    room.bob.heard()
    alice.chat_view.banner.buttons[0].invoke()
    alice.sees("[SERVER]: alice joined #maths")
    desktop.pump(lambda: not alice.banner)


@pytest.mark.parametrize("way", ["click", "menu"])
def test_invitation_is_accepted_where_it_is_shown(alice, desktop, room, way):
    """At once: the room of an invitation exists."""
    room.bob.send("MODE #maths +i", "INVITE alice #maths")
    line = "[SERVER]: bob invites you to #maths. Type /join #maths  (only you)"
    desktop.pump(lambda: line in alice.lines)
    if way == "click":
        alice.click("#maths")
    else:
        alice.press("Up", alice.text)
        alice.press("Shift-F10")
        alice.choose("Join #maths")
    alice.sees("[SERVER]: alice joined #maths")
    assert alice.sheet is None
