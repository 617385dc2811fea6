"""The window under load, in every size, and beside a server that falls and gets up again."""

import contextlib
import signal
import sys
import threading
import time

import pytest
from harness import Process
from window_harness import Heartbeat, told

import client
from client import CONNECTED, PALETTES, RECONNECTING, Message

LINE = ":bob!b@h PRIVMSG #lobby :message %d of a flood, as long as people write\r\n"


def grown(alice, count, place=None):
    """Alice's conversation, once so many messages have come, as they come to the queue."""
    chat = alice.window.chat
    for number in range(count):
        text = "message %d of a long day" % number
        chat.handle(Message("PRIVMSG", (place or "#lobby", text), source="bob!b@h"), time.time())
    return chat.find(place or "#lobby")


def longest(desk, steps):
    """The longest time, in seconds, that one of these takes until it is drawn."""
    times = []
    for step in steps:
        start = time.thread_time()
        step()
        desk.update()
        times.append(time.thread_time() - start)
    return max(times)


# Load


def test_a_steady_flood_leaves_time_for_everything_else(alice, desk, hub):
    """20,000 messages a second for two seconds: no pause of a tenth of one."""
    stop = threading.Event()

    def flood():
        number, start = 0, time.monotonic()
        while not stop.is_set():
            hub.send_bytes("".join(LINE % (number + n) for n in range(200)).encode())
            number += 200
            stop.wait(max(0.0, start + number / 20000 - time.monotonic()))

    heart = Heartbeat(alice.root)
    sender = threading.Thread(target=flood)
    sender.start()
    try:
        desk.pump(lambda: heart.beats > 150)
    finally:
        stop.set()
        while sender.is_alive():  # it may wait for the window to read
            desk.update()
            sender.join(0.01)
    heart.stop()
    assert heart.freeze < 0.1
    assert alice.window._events.qsize() <= client.MAX_EVENTS
    assert len(alice.window.chat.current.entries) <= 1.1 * client.MAX_ENTRIES


def test_a_long_conversation_is_as_quick_as_a_short_one(alice, desk, hub):
    """20,000 messages: scrolling, searching and switching take no 50 ms each."""
    lobby = grown(alice, 20000)
    told(hub, alice, "the last")
    text, transcript = alice.text, alice.chat_view.transcript
    hub.send(":carol!c@h PRIVMSG alice :psst")
    desk.pump(lambda: len(alice.conversations) == 2)
    pages = [lambda: transcript.scroll(-1)] * 40 + [lambda: transcript.scroll(1)] * 10
    assert longest(desk, pages) < 0.05
    assert text.yview()[1] < 1.0
    assert longest(desk, [alice.chat_view.search.search] * 3) < 0.05
    alice.press("Control-f", alice.box)
    alice.chat_view.search.field.text.insert("end", "message 19")
    assert longest(desk, [alice.chat_view.search.search] * 3) < 0.1
    assert alice.found == "1111 of 1111"
    other = alice.window.chat.conversations[1]
    switch = [lambda: alice.window.select(other), lambda: alice.window.select(lobby)] * 5
    assert longest(desk, switch) < 0.1


def test_a_line_of_a_megabyte_is_no_line(alice, desk, hub):
    """It is dropped without a pause; what follows is shown."""
    heart = Heartbeat(alice.root)
    hub.send_bytes(b":bob!b@h PRIVMSG #lobby :" + b"x" * 1000000 + b"\r\n")
    told(hub, alice, "next")
    desk.pump(lambda: heart.beats > 5)
    assert heart.freeze < 0.2


# Sizes and looks


@pytest.mark.parametrize("theme", sorted(PALETTES))
@pytest.mark.parametrize(
    ("width", "has_side", "has_people"),
    [(1160, True, True), (800, True, False), (480, False, False)],
)
def test_every_width_shows_what_fits(alice, desk, hub, theme, width, has_side, has_people):
    """First the people go, then the conversations; the chat box and the end stay."""
    view = alice.chat_view
    if theme != "dark":
        alice.press("Control-t", alice.box)
    hub.send(*(LINE.strip() % number for number in range(60)))
    alice.sees("[bob]: message 59 of a flood, as long as people write")
    alice.root.geometry("%dx560" % width)
    desk.pump(lambda: alice.root.winfo_width() == width)
    desk.pump(lambda: view.sidebar.column.frame.winfo_viewable() == has_side)
    desk.pump(lambda: view.people.column.frame.winfo_viewable() == has_people)
    desk.pump(lambda: view.menu_button.winfo_viewable() != has_side)
    assert alice.text.yview()[1] == 1.0
    for widget in (alice.box, alice.text):
        assert widget.winfo_viewable()
        assert widget.winfo_rootx() + widget.winfo_width() <= alice.root.winfo_rootx() + width
    assert alice.text.cget("bg") == PALETTES[theme]["chat"]
    if not has_side:
        view.menu_button.invoke()
        desk.pump(view.sidebar.column.frame.winfo_viewable)
        alice.press("Escape")
        desk.pump(lambda: not view.sidebar.column.frame.winfo_viewable())
        assert alice.has_focus(alice.box)


# The server falls, and gets up again


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent otherwise there")
def test_two_windows_come_back_to_a_server_that_is_killed_five_times(desk, tmp_path, monkeypatch):
    """Nobody does anything for it; each message is there once, in the same order for both."""
    monkeypatch.setattr(client, "RETRY_TIMES", (0.0, 0.05))
    options = ("--data", str(tmp_path / "history"), "--rate-limit", "0")
    with contextlib.ExitStack() as stack:
        server = Process(tmp_path / "stderr", *options)
        stack.callback(lambda: server.close())
        people = {name: desk.join(server.port, name) for name in ("alice", "bob")}
        typed = {name: [] for name in people}

        def say(text):
            for name, person in people.items():
                typed[name].append("[%s]: %s" % (name, text))
                person.say(text)

        for round_ in range(5):
            desk.pump(lambda: all(p.window.chat.state == CONNECTED for p in people.values()))
            for number in range(5):
                say("%d of round %d" % (number, round_))
            server.signal(signal.SIGKILL)
            server.wait()
            desk.pump(lambda: all(p.window.chat.state == RECONNECTING for p in people.values()))
            say("meanwhile, round %d" % round_)
            server.close()
            server = Process(tmp_path / "stderr", *options, "--port", str(server.port))

        def said(person):
            return [line for line in person.lines if line.startswith(("[alice]", "[bob]"))]

        alice, bob = people.values()
        whole = len(typed["alice"]) + len(typed["bob"])
        desk.pump(lambda: len(said(alice)) == len(said(bob)) == whole and said(alice) == said(bob))
        for name, lines in typed.items():
            assert [line for line in said(alice) if line.startswith("[%s]" % name)] == lines
        assert not any(person.window.chat.unsent for person in people.values())
