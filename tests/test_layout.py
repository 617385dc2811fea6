"""Where things stand in the window: at every width and zoom, and with much to show."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import pytest
from harness import TIMEOUT
from window_harness import cannot, hear, start_screen

import client
from client import PALETTES

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def alice(desktop, hub):
    """Alice at her window, in a lobby with more lines than fit."""
    alice = desktop.open(hub.port, "alice", at_once=True)
    hub.welcome()
    hear(hub, alice, *("line %d" % number for number in range(99)))
    desktop.update()
    return alice


def resize(desktop, person, width, height):
    person.root.geometry("%dx%d" % (width, height))
    desktop.pump(lambda: (person.root.winfo_width(), person.root.winfo_height()) == (width, height))
    desktop.update()


def test_scrollbar_is_visible_and_can_be_dragged(alice):
    (bar,) = [w for w in alice.text.master.winfo_children() if w.winfo_class() == "TScrollbar"]
    assert bar.winfo_width() == 10
    assert bar.identify(5, bar.winfo_height() - 8).endswith("thumb")
    assert bar.identify(5, 8).endswith("trough")


def test_list_takes_the_width_of_a_scrollbar_that_goes(alice, desktop, hub):
    people = alice.chat_view.people.list
    hub.send(*(":guest%d!g@h JOIN #lobby" % number for number in range(40)))
    desktop.pump(lambda: people.canvas.winfo_width() < people.frame.winfo_width())
    hub.send(*(":guest%d!g@h QUIT" % number for number in range(40)))
    desktop.pump(lambda: people.canvas.winfo_width() == people.frame.winfo_width())


@pytest.mark.parametrize("steps", [-2, 5])
def test_end_stays_in_view_at_every_zoom_and_width(alice, desktop, hub, steps):
    """Also with lines that wrap, and get shorter when the window grows."""
    hear(hub, alice, *("words " * 9 * number for number in range(1, 9)), "last")
    for _ in range(abs(steps)):
        alice.window.zoom(1 if steps > 0 else -1)
    for width in (1160, 520, 680, 1160, 800):
        resize(desktop, alice, width, 700)
        desktop.pump(alice.is_at_end)
        assert not alice.pill


def test_found_text_stays_in_view_at_every_zoom(alice, desktop):
    alice.press("Control-f", alice.box)
    alice.chat_view.search_bar.field.set("line 50")
    desktop.pump(lambda: alice.found == "1 of 1")
    for _ in range(5):
        alice.press("Control-plus")
        assert alice.text.dlineinfo("found.first")


def test_found_text_is_not_hidden_by_the_pill(alice, desktop):
    alice.press("Control-f", alice.box)
    alice.chat_view.search_bar.field.set("line 9")

    def is_seen():
        place = alice.text.dlineinfo("found.first")
        pill = alice.chat_view.pill
        low = pill.winfo_y() if pill.winfo_ismapped() else alice.text.winfo_height()
        return place is not None and place[1] + place[3] <= low

    desktop.pump(lambda: alice.found == "1 of 10" and is_seen())
    alice.press("Escape")
    alice.press("Control-f", alice.box)
    for step in range(12):
        desktop.pump(is_seen)
        alice.press("F3" if step < 5 else "Shift-F3")


def picture(widget):
    """Return the pixels of a widget and of what is just around it."""
    if not shutil.which("import"):
        cannot("there is no ImageMagick here")
    left, top = max(0, widget.winfo_rootx() - 3), max(0, widget.winfo_rooty() - 3)
    size = widget.winfo_width() + 6, widget.winfo_height() + 6
    crop = "%dx%d+%d+%d" % (*size, left, top)
    command = ["import", "-silent", "-window", "root", "-crop", crop, "rgb:-"]
    return subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout


@pytest.mark.parametrize("theme", sorted(PALETTES))
@pytest.mark.parametrize("view", ["chat", "connect", "search", "help"])
def test_focus_is_visible_at_every_widget_that_keys_reach(alice, desktop, theme, view):
    """Without the text cursor, which one might miss."""
    alice.window.look.change(theme, 100)
    if view == "connect":
        alice = desktop.open(theme=theme)
        alice.window.settings.servers[:] = ["office", "lab"]
        alice.connect_view.fill("alice", "office")
    elif view != "chat":
        alice.press({"search": "Control-f", "help": "F1"}[view], alice.box)
    alice.root.tk.eval("foreach w [info commands .*] {catch {$w configure -insertwidth 0}}")
    client.ttk.Style(alice.root).configure("TEntry", insertwidth=0)
    first = widget = alice.root.focus_lastfor()
    seen = []
    while widget not in seen:
        seen.append(widget)
        desktop.update()
        alice.root.winfo_pointerxy()
        with_focus = picture(widget)
        alice.press("Control-Tab" if view == "chat" else "Tab", widget)
        desktop.pump(lambda widget=widget, old=with_focus: picture(widget) != old)
        widget = alice.root.focus_lastfor()
    assert widget is first
    assert len(seen) > 1


@pytest.mark.parametrize("name", ["sidebar", "people"])
def test_focus_leaves_a_column_that_goes(alice, desktop, name):
    canvas = getattr(alice.chat_view, name).list.canvas
    canvas.focus_set()
    desktop.update()
    assert alice.has_focus(canvas)
    resize(desktop, alice, 520, 560)
    desktop.pump(lambda: alice.has_focus(alice.box))


def test_pictures_of_a_changing_width_are_few_and_stay_in_view(alice, desktop):
    room, look = alice.chat_view.room, alice.window.look
    room.canvas.focus_force()
    desktop.pump(lambda: room.canvas.find_all() and room._has_focus)
    desktop.update()
    before = len(alice.root.tk.call("image", "names"))
    (ring,) = [
        name
        for name in (room.canvas.itemcget(n, "image") for n in room.canvas.find_withtag("all")
                     if room.canvas.type(n) == "image")
        if int(alice.root.tk.call("image", "width", name)) > 300
    ]  # fmt: skip
    for width in range(300, 500):
        look.box(width, 40, 8, "hover", is_kept=False)
    names = alice.root.tk.call("image", "names")
    assert len(names) < before + 40 and ring in map(str, names)


def test_transcript_shows_that_the_keyboard_is_in_it(alice, desktop):
    alice.press("Shift-Tab", alice.box)
    assert alice.has_focus(alice.text)
    (mark,) = [w for w in alice.text.master.winfo_children() if w.winfo_class() == "TFrame"]
    desktop.pump(mark.winfo_ismapped)
    alice.press("Tab")
    assert alice.has_focus(alice.box)
    desktop.pump(lambda: not mark.winfo_ismapped())
    alice.text.event_generate("<Button-1>", x=200, y=200)
    desktop.pump(lambda: alice.root.focus_get() is alice.text)
    desktop.update()
    assert not mark.winfo_ismapped()


@pytest.mark.parametrize("theme", sorted(PALETTES))
@pytest.mark.parametrize(
    ("width", "zoom", "has_sidebar", "has_people"),
    [(1160, 100, 1, 1), (800, 100, 1, 0), (520, 100, 0, 0), (480, 100, 0, 0), (1160, 200, 0, 0)],
)
def test_columns_give_way_to_the_chat(alice, desktop, theme, width, zoom, has_sidebar, has_people):
    """First the people, whom a button brings back, then the sidebar, for which there is a menu."""
    view = alice.chat_view
    alice.window.look.change(theme, zoom)
    resize(desktop, alice, width, 560)
    sidebar, people = view.sidebar.frame, view.people.frame
    desktop.pump(lambda: (sidebar.winfo_viewable(), people.winfo_viewable())
                 == (has_sidebar, has_people))  # fmt: skip
    assert view.menu_button.winfo_viewable() != has_sidebar
    desktop.pump(alice.is_at_end)
    for widget in (alice.box, alice.text):
        assert widget.winfo_viewable()
        assert widget.winfo_rootx() + widget.winfo_width() <= alice.root.winfo_rootx() + width
    assert alice.text.cget("bg") == PALETTES[theme]["chat"]
    if not has_people:
        view.toggle_people()
        desktop.pump(people.winfo_viewable)
    if not has_sidebar:
        view.menu_button.invoke()
        assert alice.menu == ["✓ #lobby", "Go to…", "Menu…"]


def test_theme_reaches_what_was_never_shown(desktop):
    """As the connect view when the server answers at once, and the chat view before."""
    settings = client.Settings(client.settings_path())
    settings.theme = "dark"
    window = client.Window(client.tk.Tk(), settings)
    try:
        window.start("127.0.0.1:1", "alice", at_once=False)
        window.toggle_theme()
        window.root.update()
        color = PALETTES["light"]
        assert window.connect_view.list.canvas.cget("bg") == color["field"]
        assert window.chat_view.room.canvas.cget("bg") == color["chat"]
        assert window.chat_view.transcript.text.cget("bg") == color["chat"]
        assert window.chat_view.sidebar.list.canvas.cget("bg") == color["bg"]
    finally:
        window.close()


def test_people_lie_over_the_chat_where_they_would_squeeze_it(alice, desktop):
    view = alice.chat_view
    people, transcript = view.people.frame, view.transcript.frame
    for width, is_over in ((480, True), (800, False), (480, True), (1160, False)):
        resize(desktop, alice, width, 600)
        if not people.winfo_viewable():
            view.buttons["person"].invoke()
        desktop.pump(people.winfo_viewable)
        desktop.update()
        right = transcript.winfo_rootx() + transcript.winfo_width()
        assert (people.winfo_rootx() < right) == is_over
        assert people.winfo_rootx() + people.winfo_width() == alice.root.winfo_rootx() + width
        assert transcript.winfo_width() >= width - 440 and alice.people == ["alice", "bob"]
        if is_over:
            assert people.winfo_rooty() == transcript.winfo_rooty()
            top = alice.root.winfo_containing(people.winfo_rootx() + 20, people.winfo_rooty() + 80)
            assert str(top).startswith(str(people))
            alice.press("F6", alice.box)
            assert alice.has_focus(view.people.list.canvas)
            view.buttons["person"].invoke()
            desktop.pump(lambda: not people.winfo_viewable())
            assert alice.has_focus(alice.box)


def test_connect_view_stays_narrow_in_a_wide_window(desktop):
    alice = desktop.open()
    resize(desktop, alice, 1160, 700)
    field = alice.connect_view.fields["name"]
    assert field.winfo_width() == 396
    assert field.winfo_rootx() - alice.root.winfo_rootx() == (1160 - 396) // 2


@pytest.mark.parametrize(
    ("key", "width"),
    [("Control-k", 2 * 440 + 2 * 20), ("F1", 1160 - 2 * 10)],  # as wanted; all that there is
)
def test_sheet_fits_into_the_window(alice, desktop, key, width):
    """Also if the window gets smaller, or the text larger, while it is open."""
    alice.press(key, alice.box)
    frame, root = alice.sheet.frame, alice.root

    def margin():
        desktop.update()
        left = frame.winfo_rootx() - root.winfo_rootx()
        top = frame.winfo_rooty() - root.winfo_rooty()
        right = root.winfo_width() - left - frame.winfo_width()
        return min(left, top, right, root.winfo_height() - top - frame.winfo_height())

    for size, zoom in (((1160, 720), 100), ((480, 360), 100), ((1160, 720), 200)):
        alice.window.look.change("light", zoom)
        resize(desktop, alice, *size)
        desktop.pump(lambda: margin() >= 8)
    assert frame.winfo_width() == width


@pytest.mark.parametrize("kept", ["", "900x600+5000+4000", "900x600+-3000+-20", "9000x6000+50+50"])
def test_window_is_on_the_screen(desktop, hub, kept):
    """However much it grows when the chat comes, and wherever it was the last time."""
    settings = client.Settings(client.settings_path())
    settings.geometry = kept
    settings.save()
    alice = desktop.open(hub.port)
    alice.root.geometry("+800+290")
    desktop.pump(lambda: (alice.root.winfo_x(), alice.root.winfo_y()) == (800, 290))
    alice.connect(name="alice")
    hub.welcome()
    desktop.pump(lambda: alice.root.winfo_width() >= 900)
    root = alice.root
    for start, size, room in (
        (root.winfo_rootx(), root.winfo_width(), root.winfo_screenwidth()),
        (root.winfo_rooty(), root.winfo_height(), root.winfo_screenheight()),
    ):
        assert 0 <= start <= start + size <= room


@pytest.mark.parametrize(
    ("area", "frame", "wanted", "fitting"),
    [
        # 1366x768 and the bar of Windows 10; there the frame has borders that are not seen
        ((0, 0, 1366, 728), (8, 31), (1160, 720), [1160, 689]),
        ((0, 0, 1366, 728), (8, 31), (1160, 720, 453, 64), [1160, 689, 190, 0]),
        ((0, 0, 1366, 728), (8, 31), (1366, 705, -8, -8), [1350, 689, 0, 0]),  # as when maximised
        # the same at 125 %: text and frame are larger, the screen is not
        ((0, 0, 1366, 708), (10, 39), (1450, 900, 100, 100), [1346, 659, 0, 0]),
        # a monitor at the left of the first, with its bar on top
        ((-1920, 48, 1920, 1032), (8, 31), (1160, 720, -1500, 200), [1160, 720, -1500, 200]),
        ((-1920, 48, 1920, 1032), (8, 31), (1160, 720, -300, 10), [1160, 720, -1176, 48]),
        # one that was larger when the place was saved
        ((0, 0, 1024, 600), (1, 20), (1160, 720, 1400, 900), [1022, 579, 0, 0]),
        ((0, 0, 1920, 1080), (0, 0), (1160, 720, 700, 300), [1160, 720, 700, 300]),
    ],
)
def test_window_fits_with_its_frame_beside_the_bars(area, frame, wanted, fitting):
    assert client.fit_window(area, frame, wanted) == fitting


class Windows:
    """A stand-in for the functions of Windows that know its monitors."""

    def __init__(self, is_known):
        self.is_known, self.user32 = is_known, self
        self.MonitorFromRect = lambda *args: self._find(*args)  # its type can be set

    def _find(self, place, which):
        assert (list(place), which) == ([100, 50, 1260, 770], 2)
        return 2**40 + 1

    def GetMonitorInfoW(self, monitor, info):  # noqa: N802
        assert (monitor.value, info[0], len(info)) == (2**40 + 1, 40, 10)
        info[1:10] = [-1366, 0, 0, 768, -1366, 0, 0, 728, 0]
        return self.is_known


@pytest.mark.parametrize(
    ("is_known", "area"), [(1, [-1366, 0, 1366, 728]), (0, [0, 0, 1280, 900 - 48])]
)
def test_work_area_of_windows_is_that_of_the_monitor(desktop, monkeypatch, is_known, area):
    monkeypatch.setattr(client.ctypes, "windll", Windows(is_known), raising=False)
    root = desktop.open().root
    assert client.work_area(root, "win32", (1160, 720, 100, 50), 48) == area


HANGING_XPROP = """#!%s
import sys, threading
print(file=open(sys.argv[0] + ".calls", "a"))
threading.Event().wait(20)
"""


@pytest.mark.skipif(os.name == "nt", reason="there is no xprop")
def test_work_area_is_asked_for_once_and_not_waited_for(desktop, hub, monkeypatch, tmp_path):
    program = tmp_path / "xprop"
    program.write_text(HANGING_XPROP % sys.executable)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    client._ask_xprop.cache_clear()
    alice = desktop.open(hub.port, "alice", at_once=True)
    hub.welcome()
    alice.sees("[SERVER]: alice joined the chat")
    for key in ("Control-t", "Control-plus", "Control-0"):
        alice.press(key, alice.box)
    client._ask_xprop.cache_clear()
    assert (tmp_path / "xprop.calls").read_text() == "\n"


PANEL = """
import subprocess, sys, tkinter
panel, (top, bottom) = tkinter.Tk(), map(int, sys.argv[1:])
panel.title("panel")
panel.attributes("-type", "dock")
y = 0 if top else panel.winfo_screenheight() - bottom
panel.geometry("%dx%d+0+%d" % (panel.winfo_screenwidth(), top + bottom, y))
panel.update()
strut = ["-f", "_NET_WM_STRUT", "32c", "-set", "_NET_WM_STRUT", "0, 0, %d, %d" % (top, bottom)]
subprocess.run(["xprop", "-name", "panel", *strut], check=True)
panel.mainloop()
"""


class SmallScreen:
    """A screen with a window manager and a panel on top or at the bottom."""

    def __init__(self, width, height, top, bottom):
        for program in ("openbox", "xprop", "xwininfo", "xdotool"):
            if not shutil.which(program):
                cannot("there is no %s here" % program)
        process, name = start_screen(width, height)
        self._processes = [process]
        self._pause = threading.Event()
        self.environment = {**os.environ, "DISPLAY": name}
        self.start("openbox")
        self.wait_for("_NET_SUPPORTING_WM_CHECK", "window id")
        self.start(sys.executable, "-c", PANEL, top, bottom)
        self.area = (0, top, width, height - top - bottom)
        self.wait_for("_NET_WORKAREA", "= %d, %d, %d, %d," % self.area)

    def start(self, *command):
        command = [str(word) for word in command]
        streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._processes.append(subprocess.Popen(command, env=self.environment, **streams))
        return self._processes[-1]

    def ask(self, *command):
        return subprocess.run(
            command, env=self.environment, stdout=subprocess.PIPE, timeout=TIMEOUT
        ).stdout.decode()

    def wait_for(self, name, value):
        """Wait until a property of the root window has this value."""
        deadline = time.monotonic() + TIMEOUT
        while value not in self.ask("xprop", "-root", name):
            assert time.monotonic() < deadline, "%s is not %s" % (name, value)
            self._pause.wait(0.01)

    def assert_shown(self, title):
        """Wait until a window is shown; check that it is in view with its frame."""
        search = ["xdotool", "search", "--sync", "--onlyvisible", "--name", title]
        (number,) = self.ask(*search).split()
        found = self.ask("xwininfo", "-id", number)
        names = ("Absolute upper-left X", "Absolute upper-left Y", "Width", "Height")
        x, y, width, height = (int(re.search(name + r": +(\d+)", found).group(1)) for name in names)
        frame = re.findall(r"\d+", self.ask("xprop", "-id", number, "_NET_FRAME_EXTENTS"))
        left, right, top, bottom = map(int, frame)
        start, end, room = (x - left, y - top), (x + width + right, y + height + bottom), self.area
        assert room[0] <= start[0] and end[0] <= room[0] + room[2], (start, end)
        assert room[1] <= start[1] and end[1] <= room[1] + room[3], (start, end)

    def close(self):
        for process in reversed(self._processes):
            process.kill()
            process.wait()


@pytest.mark.parametrize(
    ("screen", "kept"),
    [
        ((1366, 768, 0, 0), ""),
        ((1366, 768, 0, 40), "1160x708+206+60"),
        ((1366, 768, 32, 0), "900x900+900+900"),
        ((1024, 600, 0, 48), ""),
        ((1024, 600, 32, 0), "1160x720+-40+30"),
    ],
)
def test_program_is_in_view_on_a_small_screen(room, screen, kept):
    """With its frame, beside the panel: both views, when they are shown at first, and again."""
    settings = client.Settings(client.settings_path())
    settings.geometry = kept
    settings.save()
    address = "127.0.0.1:%d" % room.server.port
    with contextlib.closing(SmallScreen(*screen)) as small:
        for _ in range(2):
            program = small.start(sys.executable, ROOT / "client.py", address)
            small.assert_shown("^Not connected")
            small.ask("xdotool", "type", "alice\r")
            small.assert_shown("^Connected: alice")
            program.terminate()
            program.wait()


@pytest.mark.parametrize("is_known", [True, False])
def test_connect_view_fits_at_every_zoom(desktop, is_known):
    """The keys for the zoom work before the chat."""
    settings = client.Settings(client.settings_path())
    settings.zoom, settings.servers = 150, ["office"]
    settings.save()
    alice = desktop.open()
    view, root = alice.connect_view, alice.root
    view.fill("alice", "office" if is_known else "")

    def fits():
        desktop.update()
        right = view.button.winfo_rootx() + view.button.winfo_width() - root.winfo_rootx()
        bottom = view.button.winfo_rooty() + view.button.winfo_height() - root.winfo_rooty()
        is_inside = right < root.winfo_width() and bottom + 20 < root.winfo_height()
        return is_inside and view.list.canvas.winfo_height() > 60

    for keys in ((), ("Control-plus", "Control-plus"), ("Control-0",)):
        for key in keys:
            alice.press(key, view.fields["name"])
        desktop.pump(fits)
    assert alice.window.look.zoom == 100


@pytest.mark.parametrize(("height", "is_whole"), [(552, False), (800, True)])
def test_three_servers_are_in_view_in_a_low_window(desktop, height, is_whole):
    """With all fields and an error, as on a screen of 1024x600; the rest comes back."""
    alice = desktop.open()
    view = alice.connect_view
    for high in (1 - is_whole, is_whole):
        resize(desktop, alice, 460, 800 if high else 552)
        alice.window.settings.servers[:] = ["office", "lab", "hub", "home"]
        view.fill("alice", "192.168.1.20")
        view.show_error(client.PASSWORD, "“alice” is registered. " * 3)
        desktop.update()
    assert view.list.canvas.winfo_height() >= 3 * 52
    assert view.button.winfo_viewable()
    assert view.hints[client.PASSWORD].winfo_viewable()
    assert view.hints[client.NAME].winfo_viewable() == is_whole
    assert view._head.canvas.winfo_viewable() == is_whole


@pytest.mark.parametrize(("width", "height"), [(480, 548), (1024, 576), (460, 720)])
@pytest.mark.parametrize("words", [client.OTHER_CERTIFICATE % "office", client.OTHER_NAMESAKE])
def test_question_of_trust_keeps_its_title_and_hints_in_a_low_window(desktop, width, height, words):
    """The list gives way, down to the server that it is about; it has its rows again later."""
    alice = desktop.open()
    view = alice.connect_view
    resize(desktop, alice, width, height)
    alice.window.settings.servers[:] = ["office", "lab", "hub", "home"]
    view.fill("alice", "office")
    view.show_error(client.TRUST, words)
    desktop.update()
    shown = view._head.canvas, view.hints[client.NAME], view.hints[client.SERVER], view.trust
    assert all(widget.winfo_viewable() for widget in (*shown, view.button))
    bottom = view.button.winfo_rooty() + view.button.winfo_height() - alice.root.winfo_rooty()
    assert bottom <= height - 14
    top = view.trust.winfo_rooty() + view.trust.winfo_height() - alice.root.winfo_rooty()
    assert top <= view.button.winfo_rooty() - alice.root.winfo_rooty()
    assert view.list.canvas.winfo_height() >= 52 and view._keys.winfo_viewable() == (height == 720)
    view.show_error("", "")
    desktop.update()
    assert view.list.least == 3


def test_people_stay_in_view_while_the_connection_is_lost(alice, desktop, hub):
    hub.finish()
    desktop.pump(lambda: alice.title.startswith("Reconnecting"))
    assert alice.people == ["alice", "bob"]


@pytest.mark.parametrize(
    "size, zoom, shown",
    [((1160, 720), 100, 3), ((800, 500), 100, 2), ((480, 360), 100, 1), ((480, 600), 200, 1)],
)
def test_bars_take_a_quarter_of_the_window_and_cut_no_button(desktop, room, size, zoom, shown):
    """At least one is shown: a question before an announcement, that before the invitation."""
    alice = desktop.join(room.server.port, "alice")
    view = alice.chat_view
    alice.root.geometry("%dx%d" % size)
    alice.window.look.change("dark", zoom)
    alice.window.chat.announce("Announcement by bob: books away")
    words = {"address": "192.168.1.20", "invitation": lambda network: "Others pick " + network}
    state = {"is_dismissed": False, "is_copied": False, "dismiss": len}
    alice.window.hosting._status = types.SimpleNamespace(**words, **state)
    answers = ("Keep the chat running", len), ("End it for everyone", len), ("Cancel", None)
    alice.window.questions._ask(client.Questions.HOST_CLOSE, lambda: True, *answers)
    bars = [view.banner, view.announcement, view.invitation]
    desktop.pump(lambda: (alice.root.winfo_width(), alice.root.winfo_height()) == size)
    desktop.pump(lambda: [bar.frame.winfo_viewable() for bar in bars].count(True) == shown)
    desktop.pump(lambda: view.banner.buttons[-1].winfo_viewable())
    for bar in bars[:shown]:
        right = bar.frame.winfo_rootx() + bar.frame.winfo_width()
        for button in bar.buttons:
            assert button.winfo_width() == button.winfo_reqwidth()
            assert button.winfo_rootx() + button.winfo_width() <= right
