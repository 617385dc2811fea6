"""Where things stand in the window: at every width, every zoom, and with much to show."""

import shutil
import subprocess

import pytest
from window_harness import cannot

import client


@pytest.fixture
def alice(desk, hub):
    """Alice at her window, in #lobby, where more was said than fits."""
    alice = desk.open(hub.port, "alice", at_once=True)
    hub.welcome()
    hub.send(*(":bob!b@h PRIVMSG #lobby :line %d" % number for number in range(99)))
    alice.sees("[bob]: line 98")
    desk.update()
    return alice


def resize(desk, person, width, height):
    person.root.geometry("%dx%d" % (width, height))
    desk.pump(lambda: (person.root.winfo_width(), person.root.winfo_height()) == (width, height))
    desk.update()


def test_a_scrollbar_can_be_seen_and_taken_hold_of(alice):
    """It is as wide as designed, and its thumb is where the view is."""
    (bar,) = [w for w in alice.text.master.winfo_children() if w.winfo_class() == "TScrollbar"]
    assert bar.winfo_width() == 10
    assert bar.identify(5, bar.winfo_height() - 8).endswith("thumb")
    assert bar.identify(5, 8).endswith("trough")


def test_a_list_has_all_the_width_when_its_scrollbar_goes(alice, desk, hub):
    """More people than fit bring the scrollbar; when they have gone, no gap is left."""
    people = alice.chat_view.people.list
    hub.send(*(":guest%d!g@h JOIN #lobby" % number for number in range(40)))
    desk.pump(lambda: people.canvas.winfo_width() < people.frame.winfo_width())
    hub.send(*(":guest%d!g@h QUIT" % number for number in range(40)))
    desk.pump(lambda: people.canvas.winfo_width() == people.frame.winfo_width())


@pytest.mark.parametrize("steps", [-2, 5])
def test_the_end_stays_in_view_at_every_zoom_and_width(alice, desk, steps):
    """Letters that grow, and lines that wrap, push nothing out of sight."""
    for _ in range(abs(steps)):
        alice.window.zoom(1 if steps > 0 else -1)
    for width in (1160, 520, 800):
        resize(desk, alice, width, 700)
        desk.pump(lambda: alice.text.yview()[1] == 1.0)
        assert not alice.chat_view.pill.winfo_ismapped()


def test_the_end_stays_in_view_when_wrapped_lines_get_room(alice, desk, hub):
    """A window that grows makes long lines shorter: what comes into view above is no scrolling."""
    hub.send(*(":bob!b@h PRIVMSG #lobby :" + "words " * 9 * number for number in range(1, 9)))
    hub.send(":bob!b@h PRIVMSG #lobby :last")
    alice.sees("[bob]: last")
    for width in (520, 1160, 680, 1160, 520, 900):
        resize(desk, alice, width, 700)
        desk.pump(lambda: alice.text.yview()[1] == 1.0)
        assert not alice.pill


def test_what_was_found_stays_in_view_at_every_zoom(alice, desk):
    """Who looks at a hit goes on looking at it when the letters grow."""
    alice.press("Control-f", alice.box)
    alice.chat_view.search.field.set("line 50")
    desk.pump(lambda: alice.found == "1 of 1")
    for _ in range(5):
        alice.press("Control-plus")
        assert alice.text.dlineinfo("found.first")


def test_what_was_found_is_hidden_by_nothing(alice, desk):
    """Neither below the view, when the search opens, nor behind the button at the bottom."""
    alice.press("Control-f", alice.box)
    alice.chat_view.search.field.set("line 9")

    def is_seen():
        place = alice.text.dlineinfo("found.first")
        pill = alice.chat_view.pill
        low = pill.winfo_y() if pill.winfo_ismapped() else alice.text.winfo_height()
        return place is not None and place[1] + place[3] <= low

    desk.pump(lambda: alice.found == "10 of 10" and is_seen())
    alice.press("Escape")
    alice.press("Control-f", alice.box)
    for step in range(12):
        desk.pump(is_seen)
        alice.press("Shift-F3" if step < 5 else "F3")


def test_the_transcript_shows_that_it_has_the_keys(alice, desk):
    """As everything does that F6 leads to."""
    alice.press("F6", alice.chat_view.sidebar.list.canvas)
    assert alice.has_focus(alice.text)
    (mark,) = [w for w in alice.text.master.winfo_children() if w.winfo_class() == "TFrame"]
    desk.pump(mark.winfo_ismapped)
    alice.press("F6")
    desk.pump(lambda: not mark.winfo_ismapped())


def test_the_columns_give_way_to_the_chat(alice, desk):
    """Below 900 the people go, below 680 the sidebar; at 200 % that is below 1,800 and 1,360."""
    view = alice.chat_view

    def columns():
        desk.update()
        return view.sidebar.column.frame.winfo_ismapped(), view.people.column.frame.winfo_ismapped()

    found = []
    for width in (1160, 800, 520):
        resize(desk, alice, width, 700)
        found.append(columns())
    assert found == [(1, 1), (1, 0), (0, 0)]
    resize(desk, alice, 1160, 700)
    alice.window.look.change("dark", 200)
    assert columns() == (0, 0)
    alice.window.look.change("dark", 100)
    assert columns() == (1, 1)


def test_the_connect_view_stays_narrow_in_a_wide_window(desk):
    """Its fields keep their width, in the middle."""
    alice = desk.open()
    resize(desk, alice, 1160, 700)
    field = alice.connect_view.fields["name"]
    assert field.winfo_width() == 396
    assert field.winfo_rootx() - alice.root.winfo_rootx() == (1160 - 396) // 2


def test_a_question_fits_into_the_window(alice, desk):
    """Also into one that gets smaller, or whose letters grow, while it is open."""
    alice.press("F1", alice.box)
    frame, button = alice.window.questions.sheet.frame, alice.window.questions.sheet.buttons[0]

    def room():
        """What is left beside the sheet and the button in it: left, above, right and below."""
        desk.update()
        found = []
        for part in (frame, button):
            left, top = (part.winfo_rootx() - alice.root.winfo_rootx(),
                         part.winfo_rooty() - alice.root.winfo_rooty())  # fmt: skip
            found += [left, top, alice.root.winfo_width() - left - part.winfo_width(),
                      alice.root.winfo_height() - top - part.winfo_height()]  # fmt: skip
        return found

    for size, zoom in (((1160, 720), 100), ((480, 360), 100), ((1160, 720), 200)):
        alice.window.look.change("light", zoom)
        resize(desk, alice, *size)
        desk.pump(lambda: min(room()) >= 8)
    assert frame.winfo_width() == 960


@pytest.mark.parametrize("theme", sorted(client.PALETTES))
def test_nothing_white_is_seen_where_the_window_grows(desk, hub, theme):
    """What Tk has not drawn yet has the colour of the theme already."""
    if not shutil.which("import"):
        cannot("there is no import here")
    alice = desk.open(hub.port, "alice", at_once=True)
    hub.welcome()
    desk.pump(lambda: alice.root.winfo_width() == 1160)
    alice.window.look.change(theme, 100)
    desk.update()
    root, handle = alice.root, client.ctypes.c_void_p
    with client.x11_frame(root.winfo_id(), root.winfo_screen()) as (x11, display, frame):
        x11.XResizeWindow(handle(display), frame, 1260, 800)
    command = "import -silent -window root -crop 1x1+1250+780 +repage -depth 8 txt:-"
    pixel = subprocess.run(command.split(), check=True, stdout=subprocess.PIPE).stdout.decode()
    assert client.PALETTES[theme]["bg"].upper() in pixel


@pytest.mark.parametrize("kept", ["", "900x600+5000+4000", "900x600+-3000+-20", "9000x6000+50+50"])
def test_the_whole_window_is_on_the_screen(desk, hub, kept):
    """However far it grows from where it was, and wherever it was the last time."""
    settings = client.Settings(client.settings_path())
    settings.geometry = kept
    settings.save()
    alice = desk.open(hub.port)
    alice.root.geometry("+800+290")
    desk.pump(lambda: (alice.root.winfo_x(), alice.root.winfo_y()) == (800, 290))
    alice.connect(name="alice")
    hub.welcome()
    desk.pump(lambda: alice.root.winfo_width() >= 900)
    root = alice.root
    for start, size, room in (
        (root.winfo_rootx(), root.winfo_width(), root.winfo_screenwidth()),
        (root.winfo_rooty(), root.winfo_height(), root.winfo_screenheight()),
    ):
        assert 0 <= start <= start + size <= room


@pytest.mark.parametrize("is_known", [True, False])
def test_all_of_the_connect_view_is_seen_at_every_zoom(desk, is_known):
    """Who needs large letters sees the button too; the keys for that work before one is there."""
    settings = client.Settings(client.settings_path())
    settings.zoom, settings.servers = 150, ["office"]
    settings.save()
    alice = desk.open()
    view, root = alice.connect_view, alice.root
    view.fill("alice", ["office"], "office" if is_known else "")

    def is_whole():
        desk.update()
        button = view.button
        right = button.winfo_rootx() + button.winfo_width() - root.winfo_rootx()
        below = button.winfo_rooty() + button.winfo_height() - root.winfo_rooty()
        return (right < root.winfo_width() and below + 20 < root.winfo_height()
                and view.list.canvas.winfo_height() > 60)  # fmt: skip

    for keys in ((), ("Control-plus", "Control-plus"), ("Control-0",)):
        for key in keys:
            alice.press(key, view.fields["name"])
        desk.pump(is_whole)
    assert alice.window.look.zoom == 100


def test_who_was_there_is_shown_while_the_connection_is_lost(alice, desk, hub):
    """The list of people does not empty for the moment until one is back."""
    hub.finish()
    desk.pump(lambda: alice.title.startswith("Reconnecting"))
    assert alice.people == ["alice", "bob"]
