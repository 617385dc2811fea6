"""Real windows on a virtual screen, and their users: `alice.say("hi")`, `alice.sees(line)`."""

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
from harness import TIMEOUT

import client
from client import NAME, PASSWORD, SERVER

OTHER_PROGRAM = "import tkinter; root = tkinter.Tk(); root.focus_force(); root.mainloop()"
os.environ.setdefault("HUBBUB_FIND", "")  # for tools that open windows: they look for no servers
CLOCK = re.compile(r"^\[\d\d:\d\d:\d\d\] ", re.MULTILINE)


def cannot(reason):
    """Skip the test; fail it if HUBBUB_REQUIRE_GUI is 1, which promises all that windows need."""
    if os.environ.get("HUBBUB_REQUIRE_GUI") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def start_screen(width, height, dpi=96):
    """Start Xvfb; return its process and the name of its display."""
    for missing, name in ((client.tk is None, "tkinter"), (not shutil.which("Xvfb"), "Xvfb")):
        if missing:
            cannot("there is no %s here" % name)
    read, write = os.pipe()
    size = "%dx%dx24" % (width, height)
    command = ["Xvfb", "-displayfd", str(write), "-screen", "0", size, "-dpi", str(dpi)]
    process = subprocess.Popen(
        [*command, "-nolisten", "tcp", "-noreset"], pass_fds=(write,), stderr=subprocess.DEVNULL
    )
    os.close(write)
    with os.fdopen(read) as number:  # as a file: Xvfb writes the line in two pieces
        return process, ":" + number.readline().strip()


class Screen:
    """A virtual screen (Xvfb), which DISPLAY names until `close`."""

    def __init__(self, dpi=96):
        self._process, self.name = start_screen(1280 * dpi // 96, 900 * dpi // 96, dpi)
        self._before = os.environ.get("DISPLAY")
        os.environ["DISPLAY"] = self.name
        first = client.tk.Tk()  # Tk keeps its display open from now on
        first.update()
        corner = {"x": first.winfo_screenwidth(), "y": first.winfo_screenheight()}
        first.event_generate("<Motion>", warp=True, **corner)  # a window under it gets the keys
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
    """A timer of 10 ms on Tk's thread that measures its longest delay, in seconds.

    `freeze` is the longest work between two beats in the thread's CPU time, which other programs
    do not lengthen; `silence` is the longest pause by the clock.
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


class Desktop:
    """The windows of a test, all on this thread; raises the errors of their callbacks."""

    def __init__(self):
        self._errors = []
        self._people = []
        self._pause = threading.Event()
        gc.disable()  # objects of Tk must be collected on its own thread

    def open(self, port=client.SERVER_PORT, name="", at_once=False, theme=""):
        """Open a window of client.py, and return its user."""
        settings = client.Settings(client.settings_path())
        settings.load()
        settings.theme = theme or settings.theme
        window = client.Window(client.tk.Tk(), settings)
        person = Person(self, window)
        window.root.report_callback_exception = self._on_error
        self._people.append(person)
        server = "127.0.0.1" if port == client.SERVER_PORT else "127.0.0.1:%d" % port
        window.start(server, name, at_once)
        self.update()
        self.pump(window.root.winfo_viewable)
        window.root.focus_lastfor().focus_force()
        self.pump(lambda: window.root.focus_displayof() is not None)
        return person

    def join(self, port, name):
        """Open a window and join the lobby."""
        person = self.open(port, name, at_once=True)
        person.sees("[SERVER]: %s joined the chat" % name)
        return person

    def pump(self, condition):
        """Run the windows until `condition()` is true; fail if it never is."""
        deadline = time.monotonic() + TIMEOUT
        while not condition():
            self.update()
            assert time.monotonic() < deadline, "the condition never became true"
            self._pause.wait(0.002)

    def update(self):
        for person in self._people:
            if person.window.root is not None:
                person.window.root.update()
        self._check()

    @contextlib.contextmanager
    def elsewhere(self, person, widget=None):
        """Focus another program's window while the context lasts, from `widget` or the box."""
        (widget or person.box).focus_force()
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
                person.close()  # the first call may only ask for confirmation
        for thread in threading.enumerate():
            if thread.name == "receive":
                thread.join(TIMEOUT)
        self._people.clear()
        gc.enable()
        gc.collect()
        self._check()


class RecordingDrawing:
    """A stand-in for client.Drawing that records a row's texts with colors, its dots and icons."""

    left = right = 0

    def __init__(self, row):
        self.texts, self.dots, self.icons = [], [], []
        row.paint(self)

    def text(self, text, color="text", font="ui", dy=0):
        self.texts.append((text, color))
        return 0

    def badge(self, text, color):
        self.texts.append((text, color))

    def avatar(self, name, size, dot=""):
        self.dots.append(dot)

    def icon(self, name, *args, **more):
        self.icons.append(name)

    def __getattr__(self, name):
        return lambda *args, **more: 0


class Person:
    """A user of a window: keys, clicks and texts to enter, and properties of the display."""

    def __init__(self, desktop, window):
        self._desktop = desktop
        self.window = window
        self.root = window.root
        self.connect_view = window.connect_view
        self.report = window.root.report_callback_exception  # the window's own handler

    @property
    def chat_view(self):
        return self.window.chat_view

    @property
    def text(self):
        """The transcript's Text widget."""
        return self.chat_view.transcript.text

    @property
    def box(self):
        """The message box's Text widget."""
        return self.chat_view.composer.text

    # Actions

    def press(self, key, widget=None):
        """Press a key in a widget, by default the focused widget."""
        widget = widget or self.root.focus_lastfor()
        widget.focus_force()
        self._desktop.pump(lambda: self.root.focus_get() is widget)
        widget.event_generate("<%s>" % key)
        self._desktop.update()

    def type(self, *words):
        """Type on the virtual screen's keyboard: texts, and names of keys in angle brackets."""
        for word in words:
            self.xdotool(*(["key", word[1:-1]] if word[:1] == "<" else ["type", word]))

    def xdotool(self, *action):
        if not shutil.which("xdotool"):
            cannot("there is no xdotool here")
        with subprocess.Popen(["xdotool", *action]) as process:
            self._desktop.pump(lambda: process.poll() is not None)
        if self.window.root is not None:
            self.root.winfo_pointerxy()  # asks the X server, which sends the keys first
        self._desktop.update()

    def click(self, words):
        """Click on words of the transcript."""
        x, y, width, height = self.text.bbox(self.text.search(words, "1.0", exact=True))
        for event in ("<Motion>", "<Button-1>", "<ButtonRelease-1>"):
            self.text.event_generate(event, x=x + width // 2, y=y + height // 2)
        self._desktop.update()

    def write(self, text):
        """Write into the message box."""
        self.box.insert("insert", text)

    def say(self, text):
        self.write(text)
        self.press("Return", self.box)

    def paste(self, text):
        self.root.clipboard_clear()
        self.root.clipboard_append(text)
        self.box.event_generate("<<Paste>>")
        self._desktop.update()

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
        """Close the window with the button of its frame, at leisure."""
        self.window.questions.asked_at = 0.0
        self.root.tk.call(self.root.protocol("WM_DELETE_WINDOW"))

    # Display

    @property
    def title(self):
        return self.root.title()

    @property
    def draft(self):
        """The text in the message box."""
        return self.box.get("1.0", "end-1c")

    @property
    def lines(self):
        """The transcript, without the times."""
        return CLOCK.sub("", self.text.get("1.0", "end-2c")).split("\n")

    @property
    def people(self):
        return [row.text for row in self.chat_view.people.list.rows if row.key]

    @property
    def conversations(self):
        """The conversations in the sidebar with their badges: "#lobby 3"."""
        rows = [row for row in self.chat_view.sidebar.list.rows if not row.is_caption]
        return [" ".join([row.key.name, *self._badge(row)[:1]]) for row in rows]

    def badge_color(self, name):
        rows = [row for row in self.chat_view.sidebar.list.rows if not row.is_caption]
        return next(self._badge(row)[1] for row in rows if row.key.name == name)

    def _badge(self, row):
        texts = RecordingDrawing(row).texts
        return next((text for text in texts if "badge" in text[1]), ())

    @property
    def banner(self):
        """The text in the banner; "" if it is hidden."""
        banner = self.chat_view.banner
        return banner.text.cget("text").strip() if banner.frame.winfo_viewable() else ""

    @property
    def notice(self):
        """The words above the text in the message box; "" if there are none."""
        notice = self.chat_view.composer.notice
        return notice.cget("text").strip() if notice.winfo_manager() else ""

    @property
    def offer(self):
        """The words of the button beside the notice; "" if there is none."""
        answer = self.chat_view.composer.answer
        return answer.cget("text") if answer.winfo_manager() else ""

    @property
    def suggested(self):
        """The words in the list above the message box; the chosen one is in angle brackets."""
        suggestions = self.chat_view.composer.suggestions
        rows = suggestions.list.rows if suggestions.is_open else []
        words = [row.text.split()[0] for row in rows]
        return ["<%s>" % w if n == suggestions.list.selected else w for n, w in enumerate(words)]

    def sees(self, line):
        """Wait until the transcript has this line, perhaps with the note of an answer."""
        self._desktop.pump(lambda: {line, line + "  (only you)"}.intersection(self.lines))

    def wait_for_title(self, title):
        self._desktop.pump(lambda: self.title == title)

    def wait_for_question(self, field):
        """Wait until the connect view asks for a field, not as an error; return the words."""
        entry, hint = self.connect_view.fields[field], self.connect_view.hints[field]
        self._desktop.pump(lambda: str(hint.cget("style")) == "Question.TLabel")
        assert hint.winfo_viewable() and entry.instate(["!invalid"]) and self.has_focus(entry)
        return hint.cget("text")

    def wait_for_error(self, field):
        """Wait until a field of the connect view is marked as wrong; return the error beside it.

        For a fault without a field, wait until the error of the whole page is in view.
        """
        if field not in self.connect_view.fields:
            error = self.connect_view.error
            self._desktop.pump(error.winfo_viewable)
            assert str(error.cget("style")) == "Error.TLabel"
            return error.cget("text")
        entry, hint = self.connect_view.fields[field], self.connect_view.hints[field]
        self._desktop.pump(lambda: entry.instate(["invalid"]) and entry.winfo_viewable())
        assert str(hint.cget("style")) == "Error.TLabel"
        return hint.cget("text")

    def has_focus(self, widget):
        return self.root.focus_lastfor() is widget

    def kind_of(self, line):
        """Return the tag that gives a line its color."""
        names = self.text.tag_names("%d.end-1c" % (self.lines.index(line) + 1))
        kinds = ("server", "own", "others", "private", "muted", "warn", "error")
        return next(name for name in names if name in kinds)

    def color_of(self, line):
        return self.text.tag_cget(self.kind_of(line), "foreground")

    def is_at_end(self):
        return self.text.yview()[1] == 1.0

    def top_line(self):
        """Return the first line in view."""
        return self.text.get("@0,20 linestart", "@0,20 lineend")

    def y_of(self, words):
        """Return the distance, in pixels, from the top of the view to the line with `words`."""
        return self.text.dlineinfo(self.text.search(words, "1.0", exact=True))[1]

    def tags_of(self, words):
        start = self.text.search(words, "1.0", exact=True)
        return self.text.tag_names(start) if start else ()

    @property
    def pill(self):
        """The text of the button that scrolls to the end; "" if it is hidden."""
        pill = self.chat_view.pill
        return pill.cget("text").strip() if pill.winfo_manager() else ""

    @property
    def found(self):
        """The number of matches beside the search field: "1 of 3"."""
        return self.chat_view.search_bar.field.note.cget("text")

    @property
    def menu(self):
        """The commands of the open menu; closes the menu."""
        self.window.menus.menu.unpost()
        return list(self._commands)

    @property
    def _commands(self):
        menu = self.window.menus.menu
        indices = [i for i in range(menu.index("end") + 1) if menu.type(i) == "command"]
        labels = {menu.entrycget(i, "label").strip(): i for i in indices}
        return {label: index for label, index in labels.items() if label}

    def choose(self, words):
        """Choose a command of the open menu."""
        self.window.menus.menu.unpost()
        self.window.menus.menu.invoke(self._commands[words])
        self._desktop.update()

    def open_menu(self, *words):
        """Open the menu at the network's name, and choose a command of it, if one is given."""
        self.press("F10", self.box)
        for command in words:
            self.choose(command)

    @property
    def tip(self):
        """The words of the tip in view, "" for none."""
        children = self.root.winfo_children()
        tips = [w for w in children if w.winfo_class() == "TLabel" and w.winfo_viewable()]
        return " ".join(str(tip.cget("text")) for tip in tips)

    @property
    def topic(self):
        """The text in the field over the topic; None if there is no field."""
        field = self.chat_view.topic
        return field.get() if field.frame.winfo_manager() else None

    @property
    def sheet(self):
        return self.window.questions.sheet

    def drawn(self, drawing):
        """Return the texts on a canvas."""
        canvas = drawing.canvas
        texts = [item for item in canvas.find_all() if canvas.type(item) == "text"]
        return [canvas.itemcget(item, "text") for item in texts]


def hear(hub, alice, *texts):
    """Send texts from bob to the lobby, and wait until alice sees the last."""
    hub.send(*(":bob!b@h PRIVMSG #lobby :" + text for text in texts))
    alice.sees("[bob]: " + texts[-1])
