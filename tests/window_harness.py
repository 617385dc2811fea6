"""Windows on a screen that nobody sees, and the people who sit before them."""

import contextlib
import gc
import os
import re
import shutil
import subprocess
import sys
import threading
import time

import pytest
from client_harness import wait_for_look_ups
from harness import TIMEOUT

import client
from client import NAME, PASSWORD, SERVER

OTHER_PROGRAM = "import tkinter; root = tkinter.Tk(); root.focus_force(); root.mainloop()"
CLOCK = re.compile(r"^\[\d\d:\d\d:\d\d\] ", re.MULTILINE)


def cannot(reason):
    """Skip what needs a screen; fail where it was said that there must be one."""
    if os.environ.get("HUBBUB_REQUIRE_GUI") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


class Screen:
    """An X server of our own; DISPLAY leads to it until `close`."""

    def __init__(self, dpi=96):
        for missing, what in ((client.tk is None, "tkinter"), (not shutil.which("Xvfb"), "Xvfb")):
            if missing:
                cannot("there is no %s here" % what)
        read, write = os.pipe()
        size = "%dx%dx24" % (1280 * dpi // 96, 900 * dpi // 96)
        command = ["Xvfb", "-displayfd", str(write), "-screen", "0", size, "-dpi", str(dpi)]
        self._process = subprocess.Popen(
            [*command, "-nolisten", "tcp", "-noreset"], pass_fds=(write,), stderr=subprocess.DEVNULL
        )
        os.close(write)
        with os.fdopen(read) as number:  # a whole line: it comes in two pieces
            self.name = ":" + number.readline().strip()
        self._before = os.environ.get("DISPLAY")
        os.environ["DISPLAY"] = self.name
        first = client.tk.Tk()  # from now on Tk keeps what it has opened
        first.update()
        corner = {"x": first.winfo_screenwidth(), "y": first.winfo_screenheight()}
        first.event_generate("<Motion>", warp=True, **corner)  # else Tk lends who is there the keys
        first.update()
        first.destroy()

    def close(self):
        if self._before is None:
            del os.environ["DISPLAY"]
        else:
            os.environ["DISPLAY"] = self._before
        self._process.terminate()
        self._process.wait()


class Heartbeat:
    """Beats every 10 ms on Tk's thread, and knows its longest pause.

    `freeze` is the longest work between two beats in seconds of this thread's processor
    time, which other programs do not lengthen; `silence` is the longest pause by the clock.
    """

    def __init__(self, root):
        self._root = root
        self.beats = 0
        self.freeze = self.silence = 0.0
        self._clock, self._work = time.monotonic(), time.thread_time()
        self._beat()

    def _beat(self):
        clock, work = time.monotonic(), time.thread_time()
        self.silence = max(self.silence, clock - self._clock)
        self.freeze = max(self.freeze, work - self._work)
        self._clock, self._work = clock, work
        self.beats += 1
        self._next = self._root.after(10, self._beat)

    def stop(self):
        self._root.after_cancel(self._next)


class Desk:
    """The windows of a test, all on this thread, and what went wrong in them."""

    def __init__(self):
        self._errors = []
        self._people = []
        self._pause = threading.Event()
        gc.disable()  # another thread must not collect what is Tk's

    def open(self, port=client.SERVER_PORT, name="", at_once=False, theme=""):
        """Somebody who has started client.py."""
        settings = client.Settings(client.settings_path())
        settings.load()
        settings.theme = theme or settings.theme
        window = client.Window(client.tk.Tk(), settings)
        window.root.report_callback_exception = self._on_error
        person = Person(self, window)
        self._people.append(person)
        window.start("127.0.0.1", port, name, at_once)
        self.update()
        self.pump(window.root.winfo_viewable)
        window.root.focus_lastfor().focus_force()
        self.pump(lambda: window.root.focus_displayof() is not None)
        return person

    def join(self, port, name):
        """Somebody who has started client.py, and is in the room."""
        person = self.open(port, name, at_once=True)
        person.sees("[SERVER]: %s joined the chat" % name)
        return person

    def pump(self, condition):
        """Let the windows live until `condition()` is true; fail if it never is."""
        deadline = time.monotonic() + TIMEOUT
        while not condition():
            self.update()
            assert time.monotonic() < deadline, "it never came about"
            self._pause.wait(0.002)

    def update(self):
        for person in self._people:
            if person.window.root is not None:
                person.window.root.update()
        self._check()

    @contextlib.contextmanager
    def elsewhere(self, person):
        """The user looks at the window of another program."""
        person.box.focus_force()
        self.pump(lambda: person.root.focus_displayof() is not None)
        with subprocess.Popen([sys.executable, "-c", OTHER_PROGRAM]) as process:
            try:
                self.pump(lambda: person.root.focus_displayof() is None)
                yield
            finally:
                process.kill()

    def _on_error(self, kind, error, trace):
        self._errors.append(error)

    def _check(self):
        if self._errors:
            raise self._errors.pop(0)

    def close(self):
        for person in self._people:
            while person.window.root is not None:
                person.window.close()  # the first time it may ask whether that is meant
        for thread in threading.enumerate():
            if thread.name == "receive":
                thread.join(TIMEOUT)
        wait_for_look_ups()
        self._people.clear()
        gc.enable()
        gc.collect()
        self._check()


class Painter:
    """Takes the place of a client.Pen, and keeps what a row draws."""

    left = right = 0

    def __init__(self):
        self.texts = []

    def text(self, words, color="text", font="ui", dy=0):
        self.texts.append((words, color))
        return 0

    def badge(self, words, color):
        self.texts.append((words, color))

    def __getattr__(self, name):
        return lambda *args, **more: 0


def bar_text(bar):
    """What a bar says; "" if it is hidden."""
    return bar.text.cget("text").strip() if bar.frame.winfo_viewable() else ""


class Person:
    """Somebody at a window: what they do, and what they see."""

    def __init__(self, desk, window):
        self._desk = desk
        self.window = window
        self.root = window.root
        self.connect_view = window.connect_view

    @property
    def chat_view(self):
        """Made when it is first asked for."""
        return self.window.chat_view

    @property
    def text(self):
        """The transcript's widget."""
        return self.chat_view.transcript.text

    @property
    def box(self):
        """The chat box's."""
        return self.chat_view.composer.text

    # What they do

    def press(self, key, widget=None):
        """Press a key in a widget, by default where the focus is."""
        widget = widget or self.root.focus_lastfor()
        widget.focus_force()
        self._desk.pump(lambda: self.root.focus_get() is widget)
        widget.event_generate("<%s>" % key)
        self._desk.update()

    def type(self, *words):
        """Type on the keyboard of the screen: text, and keys in angle brackets."""
        for word in words:
            self.do(*(["key", word[1:-1]] if word[:1] == "<" else ["type", "--delay", "3", word]))

    def do(self, *action):
        """What xdotool does with the keyboard."""
        if not shutil.which("xdotool"):
            cannot("there is no xdotool here")
        with subprocess.Popen(["xdotool", *action]) as process:
            self._desk.pump(lambda: process.poll() is not None)
        self._desk.update()

    def click(self, words, button=1):
        """Click on words of the transcript."""
        x, y, width, height = self.text.bbox(self.text.search(words, "1.0", exact=True))
        for event in ("<Motion>", "<Button-%d>" % button, "<ButtonRelease-%d>" % button):
            self.text.event_generate(event, x=x + width // 2, y=y + height // 2)
        self._desk.update()

    def write(self, text):
        """Write in the chat box."""
        self.box.insert("insert", text)

    def say(self, text):
        self.write(text)
        self.press("Return", self.box)

    def paste(self, text):
        self.root.clipboard_clear()
        self.root.clipboard_append(text)
        self.box.event_generate("<<Paste>>")
        self._desk.update()

    def fill(self, **texts):
        """Write into the fields of the connect view."""
        fields = {"name": NAME, "server": SERVER, "password": PASSWORD}
        for field, text in texts.items():
            entry = self.connect_view.fields[fields[field]]
            entry.delete(0, "end")
            entry.insert(0, text)

    def connect(self, **texts):
        self.fill(**texts)
        self.press("Return", self.connect_view.fields[NAME])

    def close(self):
        """Close the window, as its frame does."""
        self.root.tk.call(self.root.protocol("WM_DELETE_WINDOW"))

    # What they see

    @property
    def title(self):
        return self.root.title()

    @property
    def lines(self):
        """The transcript, without the times."""
        return CLOCK.sub("", self.text.get("1.0", "end-2c")).split("\n")

    @property
    def people(self):
        """Who is in the list."""
        return [row.text for row in self.chat_view.people.list.rows if row.key]

    @property
    def conversations(self):
        """The rooms and people at the left, with their badges: "#lobby 3"."""
        found = []
        for row in self.chat_view.sidebar.list.rows:
            if not row.is_caption:
                badge = [words for words, color in self.painted(row) if "badge" in color]
                found.append(" ".join([row.key.name, *badge]))
        return found

    def painted(self, row):
        """What a row of a list shows: texts and their colors, a badge with that of its shape."""
        painter = Painter()
        row.paint(painter)
        return painter.texts

    @property
    def banner(self):
        """What the banner says; "" where there is none."""
        return bar_text(self.chat_view.banner)

    @property
    def question(self):
        """What the window asks in the bar above the transcript; "" for nothing."""
        return bar_text(self.chat_view.question)

    def sees(self, line):
        """Go on when the transcript has this line."""
        self._desk.pump(lambda: line in self.lines)

    def wait_for_title(self, title):
        self._desk.pump(lambda: self.title == title)

    def wait_for_fault(self, field):
        """What the connect view says of a field, as soon as it marks it as wrong."""
        entry, hint = self.connect_view.fields[field], self.connect_view.hints[field]
        self._desk.pump(lambda: entry.instate(["invalid"]) and entry.winfo_viewable())
        assert str(hint.cget("style")) == "Error.TLabel"
        return hint.cget("text")

    def has_focus(self, widget):
        return self.root.focus_lastfor() is widget

    def kind_of(self, line):
        """The tag of a line's text, and its colour."""
        row = self.lines.index(line) + 1
        names = self.text.tag_names("%d.end-1c" % row)
        others = ("line", "name", "time", "sel", "mention")
        kind = next(name for name in names if name not in others)
        return kind, self.text.tag_cget(kind, "foreground")

    def top_line(self):
        """The first line in view."""
        return self.text.get("@0,20 linestart", "@0,20 lineend")

    def place_of(self, words):
        """How far down in view the line with these words stands, in pixels."""
        return self.text.dlineinfo(self.text.search(words, "1.0", exact=True))[1]

    def tags_of(self, words):
        """The tags in which these words of the transcript stand."""
        start = self.text.search(words, "1.0", exact=True)
        return self.text.tag_names(start) if start else ()

    def badge_color(self, name):
        """The colour of a conversation's badge."""
        rows = [row for row in self.chat_view.sidebar.list.rows if not row.is_caption]
        row = next(row for row in rows if row.key.name == name)
        return next(color for _, color in self.painted(row) if "badge" in color)

    @property
    def pill(self):
        """What the button that leads to the latest says; "" where there is none."""
        pill = self.chat_view.pill
        return pill.cget("text").strip() if pill.winfo_manager() else ""

    @property
    def found(self):
        """What the search says."""
        return self.chat_view.search.field.note.cget("text")

    @property
    def menu(self):
        """What the context menu offers, which it then puts away."""
        menu = self.window.menus.menu
        labels = [menu.entrycget(index, "label").strip() for index in range(menu.index("end") + 1)
                  if menu.type(index) == "command"]  # fmt: skip
        menu.unpost()
        return labels

    @property
    def sheet(self):
        """The title of the sheet that is open."""
        sheet = self.window.questions.sheet
        return sheet.title.cget("text") if sheet else ""

    def drawn(self, drawing):
        """The words on a canvas."""
        canvas = drawing.canvas
        texts = [item for item in canvas.find_all() if canvas.type(item) == "text"]
        return [canvas.itemcget(item, "text") for item in texts]


def told(hub, alice, text):
    """Let bob say something in the lobby, and wait until alice sees it."""
    hub.send(":bob!b@h PRIVMSG #lobby :" + text)
    alice.sees("[bob]: " + text)
