"""Menus, tips and panes: everything that the window can do is found with the mouse and by keys."""

import contextlib

import pytest
from harness import Room

import client
from client import Tip

MAIN = ["Browse rooms…", "New private message…", "Search all conversations…",
        "Set me away", "Another name…", "Register this name…", "Log in…",
        "Turn sound off", "Switch to light", "Larger", "Smaller", "Who can join, and how",
        "This server, and its encryption", "Help, keys, about Hubbub",
        "Other server…", "Quit"]  # fmt: skip


@pytest.fixture
def settled(alice, desktop, hub):
    """Alice in the lobby, with bob and carol."""
    hub.send(":server 353 alice = #lobby :@alice bob carol", ":server 366 alice #lobby :End")
    desktop.pump(lambda: alice.people == ["alice", "bob", "carol"])
    return alice


def point_at(person, widget, *more):
    """Move the mouse to the middle of a widget, and click if `more` says so."""
    x = widget.winfo_rootx() + widget.winfo_width() // 2
    y = widget.winfo_rooty() + widget.winfo_height() // 2
    person.xdotool("mousemove", str(x), str(y), *more)


@pytest.mark.parametrize("way", ["click", "F10", "alt+m"])
def test_menu_at_the_name_of_the_network_has_what_the_program_can_do(settled, way):
    if way == "click":
        point_at(settled, settled.chat_view.sidebar.head.canvas, "click", "1")
    else:
        settled.box.focus_force()
        settled.type("<%s>" % way)
    assert settled.menu == MAIN


@pytest.mark.parametrize("way", ["click", "Escape", "choice"])
def test_menu_is_closed_by_a_click_elsewhere_and_by_a_key(settled, desktop, way):
    menu = settled.window.menus.menu
    point_at(settled, settled.chat_view.sidebar.head.canvas, "click", "1")
    desktop.pump(menu.winfo_viewable)
    if way == "click":
        point_at(settled, settled.box, "click", "1")
    elif way == "choice":
        first = settled._commands["Browse rooms…"]
        x, y = menu.winfo_rootx() + 40, menu.winfo_rooty() + menu.yposition(first) + 8
        settled.xdotool("mousemove", str(x), str(y), "click", "1")
        desktop.pump(lambda: settled.sheet is not None)
    else:
        settled.type("<Escape>")
    desktop.pump(lambda: not menu.winfo_viewable())


@pytest.mark.parametrize("key", ["F1", "F2", "ctrl+k", "ctrl+t", "F10"])
def test_key_closes_the_menu_before_its_work(settled, desktop, key):
    """F10 opens another."""
    menu, look = settled.window.menus.menu, settled.window.look
    point_at(settled, settled.chat_view.sidebar.user.canvas, "click", "1")
    desktop.pump(menu.winfo_viewable)
    settled.type("<%s>" % key)
    if key == "F10":
        desktop.pump(lambda: "Browse rooms…" in settled._commands)
        assert menu.winfo_viewable() and "Browse rooms…" in settled.menu
        return
    desktop.pump(lambda: settled.sheet is not None or look.theme == "light")
    assert not menu.winfo_viewable()
    assert settled.root.focus_get() is not None  # tkinter does not know menus


def test_escape_in_a_menu_of_the_connect_view_closes_that_alone(desktop):
    alice = desktop.open()
    entry, menu = alice.connect_view.fields[client.NAME], alice.window.menus.menu
    alice.press("Shift-F10", entry)
    desktop.pump(menu.winfo_viewable)
    alice.type("<Escape>")
    desktop.pump(lambda: alice.window.root is None or not menu.winfo_viewable())
    assert alice.window.root is not None


def test_menu_is_reached_in_a_narrow_window(settled, desktop):
    settled.root.geometry("480x600")
    button = settled.chat_view.menu_button
    desktop.pump(button.winfo_viewable)
    button.invoke()
    settled.choose("Menu…")
    assert settled.menu == MAIN
    settled.open_menu()
    assert settled.menu == MAIN


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("Browse rooms…", lambda alice: alice.sheet is not None),
        ("New private message…", lambda alice: alice.sheet is not None),
        ("Switch to light", lambda alice: alice.window.look.theme == "light"),
        ("Larger", lambda alice: alice.window.look.zoom == 110),
        ("Turn sound off", lambda alice: not alice.window.settings.sound),
        ("Register this name…", lambda alice: alice.chat_view.composer._command == "/register "),
        ("Log in…", lambda alice: alice.sheet is not None),
        ("Help, keys, about Hubbub", lambda alice: alice.sheet is not None),
        ("Quit", lambda alice: alice.window.root is None),
    ],
)
def test_commands_of_the_menu(settled, words, expected):
    assert not expected(settled)
    settled.open_menu(words)
    assert expected(settled)


def test_away_is_in_the_menu_and_at_the_avatar(settled, hub, desktop):
    settled.open_menu("Set me away")
    hub.expect("AWAY away")
    hub.send(":server 306 alice :You have been marked as being away")
    desktop.pump(lambda: settled.window.chat.is_away)
    point_at(settled, settled.chat_view.sidebar.user.canvas, "click", "1")
    assert settled.menu == ["Set me available", "Another name…", "Register this name…", "Log in…"]


@pytest.mark.parametrize("host", ["127.0.0.1", "192.0.2.1"])
def test_invitation_is_found_again(settled, host):
    settled.window.chat.address = host + ":12001"
    settled.open_menu("Who can join, and how")
    at = "" if host == "127.0.0.1" else "open http://192.0.2.1:12001 in a browser, or "
    settled.sees("[SYSTEM]: Others %spick “Hub” in Hubbub." % at)


def test_another_server_is_joined_without_closing_the_window(settled, hub, desktop):
    settled.open_menu("Other server…")
    hub.expect("QUIT")
    desktop.pump(lambda: settled.title == "Not connected — Hubbub")
    view = settled.connect_view
    desktop.pump(view.fields[client.NAME].winfo_viewable)
    with contextlib.closing(Room()) as room:
        settled.connect(name="alice", server="127.0.0.1:%d" % room.server.port)
        settled.sees("[SERVER]: alice joined the chat")


def test_leaving_a_server_asks_before_messages_are_lost(settled, desktop):
    settled.say("not confirmed yet")
    settled.open_menu("Other server…")
    words = "Leave this server? 1 message has not been sent yet, and would be lost."
    desktop.pump(lambda: settled.banner == words)
    assert settled.window.is_chatting
    settled.chat_view.banner.buttons[0].invoke()
    desktop.pump(lambda: not settled.window.is_chatting)


def test_hosting_is_offered_where_no_chat_runs_here(settled, desktop):
    settled.window.chat.address = "192.0.2.1:12001"
    words = "Leave this chat to host another?"
    settled.open_menu("Host a chat…")
    desktop.pump(lambda: settled.banner == words)
    buttons = settled.chat_view.banner.buttons
    assert [button.cget("text") for button in buttons] == ["Leave", "Stay"]
    buttons[1].invoke()
    assert settled.window.is_chatting
    settled.write("a draft")
    settled.open_menu("Host a chat…")
    words += " You have an unfinished message to #lobby."
    desktop.pump(lambda: settled.banner == words)
    settled.box.delete("1.0", "end")  # the question stays
    for _ in range(2):
        settled.window.show_bars()
    settled.chat_view.banner.buttons[0].invoke()
    desktop.pump(settled.connect_view.fields[client.NETWORK].winfo_viewable)
    assert not settled.window.is_chatting


@pytest.mark.parametrize("way", ["click", "key"])
def test_people_have_their_menu_at_a_click(settled, desktop, way):
    people = settled.chat_view.people.list
    desktop.pump(lambda: "bob" in settled.drawn(people))
    if way == "click":
        people.canvas.event_generate("<Button-1>", x=30, y=people._tops[2] + 5)
    else:
        settled.press("F6", settled.box)
        settled.press("Down")
        settled.press("Return")
    entries = settled.menu
    assert entries[:2] == ["Write privately", "Mention"] and "Ignore" in entries
    settled.choose("Mention")
    assert settled.draft == "bob: " and settled.notice == ""  # for all to read
    people.menu("bob", people)
    settled.choose("Mention")
    assert settled.draft == "bob: bob "
    people.menu("bob", people)
    settled.choose("Write privately")
    assert settled.conversations == ["#lobby", "bob"]


def test_conversation_in_view_has_its_menu_in_the_header(settled):
    settled.chat_view.buttons["more"].invoke()
    entries = settled.menu
    assert "✓ Notify me of mentions" in entries and entries[-1] == "Leave #lobby"


def test_entries_begin_alike_in_a_menu_with_marks(settled, desktop):
    """Whether they have a mark, have none, or never have any; else there is no such margin."""
    menu = settled.window.menus.menu

    def margins():
        labels = [
            menu.entrycget(i, "label")
            for i in range(menu.index("end") + 1)
            if menu.type(i) == "command"
        ]
        return {label[: -len(label.lstrip(" ✓"))] for label in labels if label.strip()}

    settled.chat_view.buttons["more"].invoke()
    both = margins()
    assert settled.menu[-1] == "Leave #lobby"
    assert sorted(margin.strip() for margin in both) == ["", "✓"]
    settled.window.menus.open_person("bob", settled.box)
    assert margins() == {"  "} and "  " not in both
    assert "Mention" in settled.menu


def test_menu_of_a_private_conversation_does_not_speak_of_mentions(settled):
    settled.chat_view.open("bob")
    chosen = [["✓ Notify me", "Never notify me"], ["Notify me", "✓ Never notify me"]]
    for words, shown in (("✓ Notify me", chosen[0]), ("Never notify me", chosen[0])):
        settled.chat_view.buttons["more"].invoke()
        assert settled.menu == [*shown, "Close bob"]
        settled.choose(words)
    settled.chat_view.buttons["more"].invoke()
    assert settled.menu == [*chosen[1], "Close bob"]


def test_menu_of_the_user_does_not_open_below_the_mouse(settled, desktop):
    """The second of two clicks chooses nothing."""
    user, menu = settled.chat_view.sidebar.user.canvas, settled.window.menus.menu
    height = settled.root.winfo_screenheight()
    settled.root.geometry("1160x720+0+%d" % (height - 740))
    desktop.pump(lambda: user.winfo_rooty() + user.winfo_height() > height - 60)
    for _ in range(2):
        point_at(settled, user, "click", "1")
        desktop.pump(menu.winfo_viewable)
        bottom = menu.winfo_rooty() + menu.winfo_height()
        assert bottom <= user.winfo_rooty() + 4
        settled.type("<Escape>")
        desktop.pump(lambda: not menu.winfo_viewable())


@pytest.mark.parametrize("entries", [5, 40])
def test_menu_opened_low_on_the_screen_lies_above_the_mouse(settled, desktop, entries):
    """Where there is no room for that, nothing is highlighted before the mouse moves."""
    menus, people = settled.window.menus, settled.chat_view.people.list
    people.menu = lambda key, spot: menus._open([("Entry", print)] * entries, spot)
    height = settled.root.winfo_screenheight()
    settled.root.geometry("1160x720+0+%d" % (height - 230))
    desktop.pump(lambda: people.canvas.winfo_rooty() > height - 200)
    x, y = people.canvas.winfo_rootx() + 30, people.canvas.winfo_rooty() + people._tops[2] + 8
    settled.xdotool("mousemove", str(x), str(y), "click", "3")
    desktop.pump(menus.menu.winfo_viewable)
    desktop.update()
    assert menus.menu.index("active") in (None, "none")
    bottom = menus.menu.winfo_rooty() + menus.menu.winfo_height()
    assert (bottom <= y + 1) == (entries == 5)
    settled.xdotool("mousemove_relative", "--", "10", "-30")
    assert menus.menu.index("active") not in (None, "none")
    settled.type("<Escape>")


def test_menu_of_conversations_marks_that_in_view(settled, desktop):
    settled.chat_view.open("bob")
    settled.root.geometry("480x600")
    desktop.pump(settled.chat_view.menu_button.winfo_viewable)
    settled.chat_view.menu_button.invoke()
    assert settled.menu[:2] == ["#lobby", "✓ bob"]


def test_f6_goes_through_the_panes_in_view(settled, desktop):
    view = settled.chat_view
    panes = [
        view.composer.text,
        view.people.list.canvas,
        view.sidebar.list.canvas,
        view.transcript.text,
    ]
    settled.press("Escape", settled.box)
    for pane in [*panes[1:], panes[0]]:
        settled.press("F6")
        assert settled.has_focus(pane)
    for pane in panes[:0:-1]:
        settled.press("Shift-F6")
        assert settled.has_focus(pane)
    settled.root.geometry("480x600")  # buttons stand for what is not in view
    desktop.pump(view.menu_button.winfo_viewable)
    for pane in (view.buttons["person"], view.menu_button, panes[3], panes[0]):
        settled.press("F6")
        assert settled.has_focus(pane)


@pytest.mark.parametrize("name", ["menu", "lock", "more", "search", "person"])
def test_typing_at_a_button_of_the_head_goes_to_the_box(settled, desktop, name):
    """Space and Enter still press the button."""
    view = settled.chat_view
    settled.root.geometry("480x600")
    desktop.pump(view.menu_button.winfo_viewable)
    button = view.menu_button if name == "menu" else view.buttons[name]
    pressed = []
    button.configure(command=lambda: pressed.append(name))
    for key in ("space", "Return"):
        settled.press(key, button)
    assert pressed == [name, name] and settled.draft == ""
    settled.type("hi", "<space>", "all")
    assert settled.draft == "hi all" and settled.has_focus(settled.box)
    assert len(pressed) == 2


def test_typing_after_the_topic_goes_to_the_box(settled):
    """Esc in the topic's field leads to the topic, where no text is expected."""
    settled.chat_view.edit_topic()
    settled.press("Escape", settled.chat_view.topic.text)
    assert settled.has_focus(settled.chat_view.room.canvas) and settled.topic is None
    settled.type("hi", "<space>", "all")
    assert (settled.draft, settled.topic) == ("hi all", None)


def test_people_over_the_chat_are_for_the_keyboard(settled, desktop):
    """In a narrow window: Enter at their button goes to them, Esc comes back."""
    view = settled.chat_view
    settled.root.geometry("480x600")
    desktop.pump(view.menu_button.winfo_viewable)
    settled.press("F6", settled.box)
    assert settled.has_focus(view.buttons["person"])
    settled.press("Return")
    desktop.pump(lambda: settled.has_focus(view.people.list.canvas))
    settled.press("Escape")
    assert not view.people.frame.winfo_viewable() and settled.has_focus(settled.box)
    view.toggle_people()
    desktop.pump(view.people.frame.winfo_viewable)
    settled.press("Escape", settled.box)
    assert not view.people.frame.winfo_viewable()


def test_menu_opened_by_key_begins_at_its_first_entry(settled, desktop):
    """Wherever the mouse is."""
    head = settled.chat_view.sidebar.head.canvas
    at = head.winfo_rootx() + 60, head.winfo_rooty() + head.winfo_height() + 90
    settled.xdotool("mousemove", "--sync", *map(str, at))
    settled.type("<F10>")
    menu = settled.window.menus.menu
    desktop.pump(lambda: menu.winfo_viewable() and menu.index("active") not in (None, "none"))
    assert menu.entrycget("active", "label").strip() == "Browse rooms…"
    settled.type("<Escape>")


def test_menu_of_a_person_stops_ignoring_who_is_ignored(settled):
    ignored = settled.window.settings.ignored
    for words, names in (("Ignore", ["bob"]), ("Stop ignoring", [])) * 2:
        settled.window.menus.open_person("bob", settled.box)
        settled.choose(words)
        assert ignored == names


def test_people_beside_a_narrow_chat_are_for_the_keyboard(settled, desktop):
    """Esc hides them only from there: elsewhere they are in nobody's way."""
    view = settled.chat_view
    settled.root.geometry("700x600")
    desktop.pump(lambda: not view.people.frame.winfo_viewable())
    settled.press("Return", view.buttons["person"])
    desktop.pump(lambda: settled.has_focus(view.people.list.canvas))
    before = view.people.list.cursor
    settled.press("Down")
    assert view.people.list.cursor != before
    settled.press("Escape", settled.box)
    assert view.people.frame.winfo_viewable()
    settled.press("Escape", view.people.list.canvas)
    assert not view.people.frame.winfo_viewable() and settled.has_focus(settled.box)


@pytest.mark.parametrize("width", [1160, 800, 480])
def test_tab_reaches_all_buttons_of_the_chat(settled, desktop, width):
    view, reached = settled.chat_view, []
    settled.root.geometry("%dx600" % width)
    desktop.pump(lambda: settled.root.winfo_width() == width)
    desktop.update()
    settled.press("F6", settled.box)
    for _ in range(20):
        settled.press("Tab")
        reached.append(settled.root.focus_lastfor())
        if reached[-1] is view.composer.text:
            settled.press("Control-Tab")
            reached.append(settled.root.focus_lastfor())
    wanted = [view.sidebar.head.canvas, view.sidebar.user.canvas, view.menu_button]
    wanted += [
        view.sidebar.list.canvas,
        view.people.list.canvas,
        view.room.canvas,
        view.transcript.text,
    ]
    in_view = {widget for widget in [*wanted, *view.buttons.values()] if widget.winfo_viewable()}
    assert in_view <= set(reached) and len(in_view) >= 7


@pytest.mark.parametrize("way", ["mouse", "keyboard"])
def test_buttons_have_tips(settled, desktop, monkeypatch, way):
    monkeypatch.setattr(Tip, "DELAY", 20)
    view = settled.chat_view
    for widget, words in (
        (view.buttons["search"], "Search   Ctrl+F"),
        (view.buttons["person"], "The people here"),
        (view.buttons["more"], "More for this conversation"),
        (view.sidebar.head.canvas, "Menu   F10"),
        (view.sidebar.user.canvas, "You: away, another name, account"),
    ):
        if way == "mouse":
            point_at(settled, widget)
        else:
            widget.focus_force()
        desktop.pump(lambda words=words: settled.tip == words)
    if way == "mouse":
        point_at(settled, settled.text)
    else:
        settled.press("x")
    desktop.pump(lambda: not settled.tip)


@pytest.mark.parametrize("way", ["key", "click", "focus", "sheet", "menu"])
def test_tip_goes_when_the_user_goes_on(settled, desktop, monkeypatch, way):
    """Also where the mouse stays, and nothing shows it again over a menu."""
    monkeypatch.setattr(Tip, "DELAY", 20)
    view = settled.chat_view
    settled.box.focus_force()
    point_at(settled, view.buttons["more"])
    desktop.pump(lambda: settled.tip)
    actions = {
        "key": lambda: settled.type("x"),
        "click": lambda: settled.text.event_generate("<Button-1>", x=5, y=5),
        "focus": lambda: settled.press("Control-Tab", settled.box),
        "sheet": lambda: settled.type("<F1>"),
        "menu": lambda: settled.xdotool("click", "1"),
    }
    actions[way]()
    desktop.pump(lambda: settled.tip != "More for this conversation")
    if way == "menu":
        menu, due = settled.window.menus.menu, []
        desktop.pump(menu.winfo_viewable)
        settled.root.after(100, lambda: due.append(True))
        desktop.pump(lambda: due)
        assert not settled.tip
        menu.unpost()


@pytest.mark.parametrize("place", ["topic", "search", "sheet", "announcement", "banner", "people"])
def test_keys_hide_tips_and_do_their_work_everywhere(settled, desktop, monkeypatch, place):
    """Also in what is made later, such as the button of an announcement."""
    monkeypatch.setattr(Tip, "DELAY", 20)
    view, window = settled.chat_view, settled.window
    window.chat.announce("Announcement by bob: books away")
    window.chat.current.removal = "You were removed"
    window.show_bars()
    actions = {"topic": view.edit_topic, "search": view.search_bar.open}
    actions["sheet"] = window.questions.go_to
    actions.get(place, lambda: None)()
    focus = {
        "topic": lambda: view.topic.text,
        "search": lambda: view.search_bar.field.text,
        "sheet": lambda: settled.sheet.field.text,
        "announcement": lambda: view.announcement.buttons[0],
        "banner": lambda: view.banner.buttons[0],
        "people": lambda: view.people.list.canvas,
    }[place]()
    desktop.pump(focus.winfo_viewable)
    focus.focus_force()
    desktop.update()
    point_at(settled, settled.text)
    point_at(settled, view.buttons["more"])
    desktop.pump(lambda: settled.tip == "More for this conversation")
    settled.type("x")
    desktop.pump(lambda: not settled.tip)
    settled.type("<F1>")
    desktop.pump(lambda: settled.sheet is not None and settled.sheet.list.rows[0].is_caption)


def test_topic_that_is_edited_promises_no_click(settled, desktop, monkeypatch):
    monkeypatch.setattr(Tip, "DELAY", 20)
    view = settled.chat_view
    point_at(settled, view.room.canvas)
    desktop.pump(lambda: settled.tip == "Click to change the topic")
    view.edit_topic()
    assert view._topic_tip() == ""


@pytest.mark.parametrize("length", [40, 41])
def test_names_that_are_cut_have_tips(settled, desktop, hub, monkeypatch, length):
    """What is drawn is cut with an ellipsis, and so is a name that is longer than ours are."""
    monkeypatch.setattr(Tip, "DELAY", 20)
    name = "Chemistry and other things, Room 12 " + "x" * (length - 36)
    hub.send(":hub 005 alice NETWORK=%s :are supported" % client.protocol.escape_token(name))
    shown = name if length == 40 else name[:39] + "…"
    title = "Connected: alice @ %s — Hubbub" % shown
    desktop.pump(lambda: settled.root.title() == title)
    point_at(settled, settled.chat_view.sidebar.head.canvas)
    desktop.pump(lambda: settled.tip == shown + "\nMenu   F10")


def test_rows_have_tips(settled, desktop, monkeypatch):
    """The plus beside a caption, and the shield of an operator."""
    monkeypatch.setattr(Tip, "DELAY", 20)
    view = settled.chat_view
    for rows, index, words in (
        (view.sidebar.list, 0, "Browse rooms, or make one"),
        (view.sidebar.list, 1, ""),
        (view.sidebar.list, 2, "New private message"),
        (view.people.list, 1, "Operator of this room"),
        (view.people.list, 2, ""),
    ):
        canvas, y = rows.canvas, rows._tops[index] + 10
        settled.xdotool("mousemove", str(canvas.winfo_rootx() + 60), str(canvas.winfo_rooty() + y))
        desktop.pump(lambda words=words: settled.tip == words)
        if words:
            label = settled.window.look.tip
            assert label.winfo_rooty() - canvas.winfo_rooty() < rows._tops[index + 1] + 9


@pytest.mark.parametrize("way", ["click", "F10"])
def test_menu_opened_by_a_key_highlights_its_first_entry(settled, desktop, way):
    menu = settled.window.menus.menu
    if way == "click":
        point_at(settled, settled.chat_view.sidebar.head.canvas, "click", "1")
    else:
        settled.box.focus_force()
        settled.type("<F10>")
    desktop.pump(menu.winfo_viewable)
    active = menu.index("active")
    assert (menu.entrycget(active, "label").strip() if active is not None else "") == (
        "Browse rooms…" if way == "F10" else ""
    )
    keys = [menu.entrycget(i, "accelerator") for i in settled._commands.values()]
    assert all(key.endswith("  ") for key in keys if key)  # a space from the edge
    assert {"Ctrl+T", "Ctrl++", "Ctrl+-", "F1", "F2", "Ctrl+Q"} <= set(map(str.strip, keys))
    menu.unpost()


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_groups_of_a_menu_are_apart_without_grooves(settled, theme):
    """Nor does an entry touch the border, which has the color of a sheet's."""
    menu, look = settled.window.menus.menu, settled.window.look
    if look.theme != theme:
        settled.open_menu("Switch to " + theme)
    for open_menu in (settled.window.menus.open_main, settled.chat_view.buttons["more"].invoke):
        open_menu()
        kinds = [menu.type(index) for index in range(menu.index("end") + 1)]
        ends = [menu.yposition(index) for index in range(len(kinds))] + [menu.winfo_reqheight()]
        heights = [below - above for above, below in zip(ends, ends[1:])]
        assert set(kinds) == {"command"} and heights[0] == heights[-1] - 1 < heights[1]
        assert menu.entrycget(0, "state") == "disabled"
        fills = {str(menu.entrycget(index, "background")) for index in range(len(kinds))}
        assert (fills, str(menu.cget("background"))) == (
            {look.color["field"]},
            look.color["outline"],
        )
        menu.unpost()


def test_click_beside_a_sheet_closes_it(settled, desktop):
    settled.press("F1", settled.box)
    desktop.update()
    settled.sheet.list.canvas.event_generate("<Button-4>", x=50, y=5)
    settled.sheet.frame.event_generate("<Button-1>", x=5, y=5)
    settled.text.event_generate("<Button-4>", x=5, y=5)  # the wheel
    assert settled.sheet is not None
    settled.text.event_generate("<Button-1>", x=5, y=5)
    assert settled.sheet is None


@pytest.mark.parametrize("size", [(1160, 720), (800, 600), (480, 360)])
def test_tips_stay_in_the_window(settled, desktop, monkeypatch, size):
    monkeypatch.setattr(Tip, "DELAY", 20)
    settled.root.geometry("%dx%d" % size)
    desktop.pump(lambda: settled.root.winfo_width() == size[0])
    view = settled.chat_view
    for widget in (view.buttons["person"], view.sidebar.user.canvas, view.menu_button):
        if widget.winfo_viewable():
            widget.focus_force()
            desktop.pump(lambda: settled.tip)
            (tip,) = [w for w in settled.root.winfo_children() if w.winfo_class() == "TLabel"]
            assert tip.winfo_x() >= 0 and tip.winfo_x() + tip.winfo_width() <= size[0]
            assert tip.winfo_y() >= 0 and tip.winfo_y() + tip.winfo_height() <= size[1]
