"""The servers in the connect view: found, known or neither, and how users choose one."""

import contextlib

import pytest
from client_harness import responder_at
from test_finding import linux_only
from window_harness import Heartbeat, RecordingDrawing

import client
from client import NAME, SERVER

EMPTY = "No servers found yet"


@pytest.fixture
def alice(desktop, responder):
    """Alice's connect view, with no server chosen; `asked` is the id of a query."""
    alice = desktop.open(name="alice")
    alice.connect_view.fill("alice", "")
    responder.asked = responder.query()
    return alice


def known(*servers, **networks):
    settings = client.Settings(client.settings_path())
    settings.servers = list(servers)
    settings.networks = networks
    settings.save()


def ask_again(alice, desktop, responder):
    """Let the window ask as if the time had come; return the id of the query."""
    alice.connect_view._finder._next = 0.0
    desktop.pump(lambda: alice.connect_view._finder._next)
    return responder.query()


def rows(alice):
    """Return the texts of the servers' rows: name and detail."""
    drawings = [RecordingDrawing(row) for row in alice.connect_view.list.rows if row.key]
    return [tuple(text for text, _ in drawing.texts) for drawing in drawings]


def signs(alice):
    """Return the dot and the icons of each row."""
    found = []
    for row in alice.connect_view.list.rows:
        drawing = RecordingDrawing(row)
        names = []
        drawing.dot = lambda color, names=names, **more: names.append(color)
        drawing.icon = lambda name, *more, names=names: names.append(name)
        row.paint(drawing)
        found.append(names)
    return found


def chosen(alice):
    return alice.connect_view.fields[SERVER].get()


def test_list_says_what_to_do_while_nothing_is_found(alice, desktop):
    view = alice.connect_view
    desktop.pump(lambda: EMPTY in alice.drawn(view.list))
    assert view._status.cget("text") == "Looking for servers on your network…"
    assert "Choose “Host a chat on this computer”, above." in alice.drawn(view.list)
    assert not view.fields[SERVER].winfo_viewable()


def test_nothing_is_promised_where_looking_is_forbidden(desktop):
    alice = desktop.open()
    view = alice.connect_view
    view.fill("alice", "")
    desktop.pump(lambda: "No servers yet" in alice.drawn(view.list))
    assert view._status.cget("text") == ""
    assert view.fields[SERVER].winfo_viewable()


def test_found_servers_are_first_and_known_ones_have_names(desktop, responder, monkeypatch):
    monkeypatch.setattr(client, "is_own_address", lambda host: False)
    known("office.example", "127.0.0.1:4001", "192.168.1.9", **{"office.example": "Office"})
    alice = desktop.open(4001)
    query_id = responder.query()
    responder.answer(query_id, "Class 4B", 4000, 25, True)
    responder.answer(query_id, "Lab", 4001, 0)
    desktop.pump(lambda: len(rows(alice)) == 4)
    assert rows(alice) == [
        ("Class 4B", "127.0.0.1:4000 · 25 people"),
        ("Lab", "127.0.0.1:4001 · nobody yet"),
        ("Office", "office.example"),
        ("192.168.1.9", "You were there before"),
    ]
    assert signs(alice) == [["ok", "lock"], ["ok", "check"], [], []]
    assert alice.connect_view._status.cget("text") == "Still looking for more…"
    assert alice.connect_view.button.cget("text") == "Connect to Lab"
    alice.window.close()
    settings = client.Settings(client.settings_path())
    settings.load()
    assert settings.networks == {"127.0.0.1:4001": "Lab", "office.example": "Office"}


@linux_only
def test_server_on_this_computer_says_so(alice, desktop, responder):
    responder.answer(responder.asked, "Mine", 4000, 1)
    desktop.pump(lambda: rows(alice) == [("Mine", "This computer · 1 person")])


def test_only_server_that_is_found_is_chosen(alice, desktop, responder, monkeypatch):
    """After some time for others to answer."""
    monkeypatch.setattr(client, "CHOICE_TIME", 0.2)
    responder.answer(responder.asked, "Class 4B", 4000)
    desktop.pump(lambda: chosen(alice) == "127.0.0.1:4000")
    desktop.pump(lambda: alice.connect_view.button.cget("text") == "Connect to Class 4B")
    assert alice.has_focus(alice.connect_view.fields[NAME])
    assert alice.connect_view.fields[NAME].get() == "alice"


def test_last_server_is_chosen_among_several(alice, desktop, responder, monkeypatch):
    monkeypatch.setattr(client, "CHOICE_TIME", 0.2)
    alice.window.settings.servers = ["10.1.1.1", "127.0.0.1:4001", "127.0.0.1:4000"]
    for name, port in (("Other", 4000), ("Class 4B", 4001)):
        responder.answer(responder.asked, name, port)
    desktop.pump(lambda: chosen(alice) == "127.0.0.1:4001")


@pytest.mark.parametrize("case", ["typed", "about to type", "two"])
def test_nothing_is_chosen_for_a_user_who_has_a_choice(
    alice, desktop, responder, monkeypatch, case
):
    monkeypatch.setattr(client, "CHOICE_TIME", 0.0)
    if case == "two":
        responder.answer(responder.asked, "Other", 4001)
    elif case == "typed":
        alice.fill(server="offi")
    else:
        alice.connect_view.other.invoke()
    before = chosen(alice)
    responder.answer(responder.asked, "Class 4B", 4000)
    desktop.pump(lambda: "Class 4B" in dict(rows(alice)))
    ask_again(alice, desktop, responder)
    assert chosen(alice) == before


def test_list_stays_as_it_is_while_it_is_used(alice, desktop, responder):
    """Also the chosen row, the focus and what is typed."""
    responder.answer(responder.asked, "B", 4001)
    responder.answer(responder.asked, "C", 4002)
    desktop.pump(lambda: len(rows(alice)) == 2)
    canvas = alice.connect_view.list.canvas
    alice.press("End", canvas)
    assert chosen(alice) == "127.0.0.1:4002"
    alice.window.settings.servers[:] = ["office.example"]
    responder.answer(responder.asked, "A", 4000, 3)
    responder.answer(responder.asked, "B", 4001, 9)
    desktop.pump(lambda: len(rows(alice)) == 4)
    assert [name for name, _ in rows(alice)] == ["B", "C", "A", "office.example"]
    assert alice.connect_view.list.selected == alice.connect_view.list.cursor == chosen(alice)
    assert alice.has_focus(canvas)
    known_row = alice.connect_view.list.rows[3].key
    alice.window.settings.servers[:] = [known_row, "127.0.0.1:4003"]
    responder.answer(responder.asked, "D", 4003)
    desktop.pump(lambda: len(rows(alice)) == 5)
    assert [name for name, _ in rows(alice)][3:] == ["office.example", "D"]
    alice.connect_view.fields[NAME].focus_force()
    responder.answer(responder.asked, "B", 4001, 10)
    desktop.pump(lambda: ("B", "This computer · 10 people") in rows(alice))
    assert [name for name, _ in rows(alice)] == ["B", "C", "A", "D", "office.example"]
    assert chosen(alice) == "127.0.0.1:4002"


def test_nothing_is_drawn_again_if_nothing_has_changed(alice, desktop, responder, monkeypatch):
    responder.answer(responder.asked, "B", 4001)
    desktop.pump(lambda: len(rows(alice)) == 1)
    monkeypatch.setattr(alice.connect_view.list, "show", None)
    for _ in range(2):
        responder.answer(ask_again(alice, desktop, responder), "B", 4001)
    ask_again(alice, desktop, responder)


@pytest.mark.parametrize("way", ["mouse", "keyboard"])
def test_lock_in_the_list_has_a_tip(alice, desktop, responder, monkeypatch, way):
    monkeypatch.setattr(client.Tip, "DELAY", 20)
    responder.answer(responder.asked, "Open", 4001)
    responder.answer(responder.asked, "Closed", 4002, is_encrypted=True)
    desktop.pump(lambda: len(rows(alice)) == 2)
    assert [("lock" in icons) for icons in signs(alice)] == [False, True]
    found, name = alice.connect_view.list, alice.connect_view.fields[NAME]
    alice.xdotool("mousemove", str(name.winfo_rootx() + 9), str(name.winfo_rooty() + 9))
    for index, words in ((0, ""), (1, "Encrypted"), (0, "")):
        if way == "mouse":
            x, y = found.canvas.winfo_rootx() + 60, found.canvas.winfo_rooty() + found._tops[index]
            alice.xdotool("mousemove", str(x), str(y + 10))
        else:
            alice.press("End" if index else "Home", found.canvas)
        desktop.pump(lambda words=words: alice.tip == words)


@pytest.mark.parametrize("keys", [["End", "Return"], ["Down", "Up", "Down", "Return"]])
def test_arrows_choose_and_enter_joins_what_was_found(desktop, responder, hub, keys):
    alice = desktop.open(name="alice")
    alice.connect_view.fill("alice", "")
    query_id = responder.query()
    responder.answer(query_id, "Other", 1)
    responder.answer(query_id, "School", hub.port)
    desktop.pump(lambda: len(rows(alice)) == 2)
    alice.press("Down", alice.connect_view.fields[NAME])
    for key in keys:
        alice.press(key)
    hub.welcome()
    desktop.pump(lambda: alice.title.startswith("Connected: alice"))
    settings = client.Settings(client.settings_path())
    desktop.pump(lambda: settings.load() or settings.networks)
    assert settings.servers == ["127.0.0.1:%d" % hub.port]
    assert list(settings.networks) == settings.servers


def test_enter_joins_the_row_with_the_focus(desktop, responder, hub):
    """A click only chooses."""
    alice = desktop.open(name="alice")
    alice.connect_view.fill("alice", "")
    query_id = responder.query()
    responder.answer(query_id, "School", hub.port)
    responder.answer(query_id, "Other", 1)
    desktop.pump(lambda: len(rows(alice)) == 2)
    canvas = alice.connect_view.list.canvas
    alice.press("Down", alice.connect_view.fields[NAME])
    for _ in range(2):
        canvas.event_generate("<Button-1>", x=99, y=99)
        desktop.update()
        assert (chosen(alice), alice.connect_view.is_busy) == ("127.0.0.1:1", False)
    alice.press("Up", canvas)
    alice.press("Return")
    assert alice.title.startswith("Connecting to 127.0.0.1:%d" % hub.port)


def test_nothing_is_sent_while_the_chat_is_in_view(desktop, responder, hub):
    """When the connect view comes back, it asks again at once."""
    alice = desktop.open(hub.port, "alice", at_once=True)
    alice.connect_view._finder._interval = 0.01
    responder.answer(responder.query(), "Class 4B")
    desktop.pump(lambda: "Class 4B" in dict(rows(alice)))
    hub.welcome()
    desktop.pump(lambda: alice.window.is_chatting)
    assert alice.connect_view._finder._sockets == {}
    while responder.has_query():
        pass
    heart = Heartbeat(alice.root)
    desktop.pump(lambda: heart.beats > 20)
    heart.stop()
    assert not responder.has_query()
    hub.finish()
    hub.accept().send(":hub 465 alice :You are banned")
    desktop.pump(lambda: not alice.window.is_chatting)
    desktop.pump(responder.has_query)


def test_ten_thousand_forged_answers_leave_the_window_usable(
    alice, desktop, responder, monkeypatch
):
    monkeypatch.setattr(client, "is_own_address", lambda host: False)
    heart = Heartbeat(alice.root)
    with contextlib.ExitStack() as stack:
        hosts = [responder]
        if linux_only.args[0] is False:
            others = (responder_at("127.0.0.%d" % n, responder.asker) for n in range(2, 22))
            hosts += [stack.enter_context(other) for other in others]
        for number in range(10000):
            name = "Spam \x1b\u202e%d" % number
            hosts[number % len(hosts)].answer(responder.asked, name, 1 + number % 60000)
            if number % 100 == 0:
                desktop.update()
    desktop.pump(lambda: len(rows(alice)) >= client.MAX_OF_ADDRESS)
    for _ in range(3):
        ask_again(alice, desktop, responder)
    assert len(rows(alice)) <= client.MAX_FOUND
    alice.press("End", alice.connect_view.list.canvas)
    assert chosen(alice).startswith("127.0.0.")
    assert heart.freeze < 0.1
    heart.stop()


def test_old_settings_with_addresses_alone_are_read(desktop, responder):
    known("office.example")
    alice = desktop.open()
    assert rows(alice) == [("office.example", "You were there before")]
