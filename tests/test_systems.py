"""What the window does on macOS, on Windows and with Tk 9, as far as it shows elsewhere."""

import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from harness import TIMEOUT

import client

TITLE, TEXT = "#lobby", "[bob]: <b>$(calc)</b> '\" & -o\u2028"


class Canvas:
    """Records handlers and by how many pixels it was scrolled."""

    def __init__(self):
        self.handlers = {}
        self.scrolled = []

    def bind(self, sequence, handler):
        self.handlers[sequence] = handler

    def yview_scroll(self, number, what):
        assert what == "units"
        self.scrolled.append(number)

    def turn(self, sequence, delta):
        self.scrolled.clear()
        assert self.handlers[sequence](SimpleNamespace(delta=delta)) == "break"
        return self.scrolled[0]


@pytest.fixture
def run(monkeypatch):
    """Return a function that alerts on a system, and returns the command and its options."""

    def alert(system, title=TITLE, text=TEXT, error=None):
        calls, bells = [], []

        def run_(command, **options):
            calls.append((command, options, threading.current_thread().name))
            if error is not None:
                raise error

        monkeypatch.setattr(subprocess, "run", run_)
        monkeypatch.setattr(client.shutil, "which", lambda name: "/usr/bin/" + name)
        root = SimpleNamespace(bell=lambda: bells.append(1))
        client.Notifier(root, system).alert(title, text, sound=True)
        for thread in threading.enumerate():
            if thread.name == "notify":
                thread.join(TIMEOUT)
        assert bells == [1]
        return calls[0]

    return alert


@pytest.mark.parametrize(
    ("platform", "version", "sequence", "delta", "pixels"),
    [
        ("linux", 8.6, "<Button-4>", 0, -36),
        ("linux", 8.6, "<Button-5>", 0, 36),
        ("win32", 8.6, "<MouseWheel>", 120, -36),
        ("win32", 8.6, "<MouseWheel>", -40, 12),  # a fine wheel
        ("darwin", 8.6, "<MouseWheel>", -2, 72),
        *((platform, 9.0, "<MouseWheel>", -240, 72) for platform in ("linux", "win32", "darwin")),
        ("darwin", 9.0, "<TouchpadScroll>", 5, -5),
        ("darwin", 9.0, "<TouchpadScroll>", -5 & 0xFFFF, 5),
        ("darwin", 9.0, "<TouchpadScroll>", (3 << 16) | (-7 & 0xFFFF), 7),
        ("win32", 9.1, "<TouchpadScroll>", (-3 << 16) | 7, -7),
    ],
)
def test_wheel_and_touchpad_scroll_on_every_system(
    monkeypatch, platform, version, sequence, delta, pixels
):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(client.tk, "TkVersion", version)
    canvas = Canvas()
    client.bind_wheel(canvas, lambda: 36)
    assert canvas.turn(sequence, delta) == pixels
    assert ("<TouchpadScroll>" in canvas.handlers) == (version > 8.6)
    assert ("<Button-4>" in canvas.handlers) == (version < 9)  # a button of its own in Tk 9


def test_keys_are_named_as_on_the_keyboard():
    names = [client.key_name(key.name, "aqua") for key in client.KEYS]
    assert {"⌘F", "⌘K, ⌘N", "⌥1 … ⌥9", "Ctrl+Tab", "⌘Q"} <= set(names)
    for system in ("x11", "win32"):
        assert [client.key_name(key.name, system) for key in client.KEYS] == [
            key.name for key in client.KEYS
        ]


def test_quit_in_the_menu_of_macos_asks_as_closing_does(desktop, hub):
    alice = desktop.open(hub.port, "alice", at_once=True)
    hub.welcome()
    desktop.pump(lambda: alice.people == ["alice", "bob"])
    hub.finish()
    desktop.pump(lambda: alice.title.startswith("Reconnecting"))
    alice.say("not sent")
    alice.root.tk.call("::tk::mac::Quit")
    desktop.pump(lambda: "Close Hubbub?" in alice.banner)


@pytest.mark.parametrize("system", ["win32", "aqua", "x11"])
def test_notification_runs_no_text_and_keeps_nobody_waiting(run, system):
    command, options, thread = run(system)
    others = run(system, title="title", text="text")[0]
    assert thread == "notify"
    assert options["timeout"] <= 10
    assert all(options[name] == subprocess.DEVNULL for name in ("stdin", "stdout", "stderr"))
    same = sum(word == other for word, other in zip(command, others))
    assert len(command) == len(others)
    if system == "win32":
        assert same == len(command)  # the script is always the same
        assert command[0].endswith("powershell.exe") and "System32" in command[0]
        assert (options["env"]["HUBBUB_TITLE"], options["env"]["HUBBUB_TEXT"]) == (TITLE, TEXT)
        assert "CreateTextNode($env:HUBBUB_TEXT)" in command[-1] and '"' not in command[-1]
        assert options["creationflags"] == 0x08000000  # CREATE_NO_WINDOW
    else:
        assert same == len(command) - 2
        assert command[-2] == TITLE
        assert options["creationflags"] == 0


@pytest.mark.parametrize(
    "error",
    [
        OSError("no such program"),
        subprocess.TimeoutExpired("powershell", 10),
        subprocess.CalledProcessError(1, "powershell"),
        ValueError("embedded null byte"),
    ],
)
def test_notification_that_fails_disturbs_nobody(run, monkeypatch, error):
    raised = []
    monkeypatch.setattr(sys, "excepthook", lambda *args: raised.append(args))
    if hasattr(threading, "excepthook"):
        monkeypatch.setattr(threading, "excepthook", raised.append)
    run("win32", error=error)
    assert raised == []


def test_notification_that_hangs_is_ended(monkeypatch):
    monkeypatch.setattr(client.Notifier, "TIMEOUT", 0.1)
    notifier = client.Notifier(SimpleNamespace(bell=lambda: None), "x11")
    hang = [sys.executable, "-c", "import threading; threading.Event().wait()"]
    monkeypatch.setattr(notifier, "_command", lambda title, text: hang)
    start = time.monotonic()
    notifier.alert(TITLE, TEXT, sound=False)
    assert time.monotonic() - start < 0.1  # the window goes on
    for thread in threading.enumerate():
        if thread.name == "notify":
            thread.join(TIMEOUT)
            assert not thread.is_alive()
