"""The window under load, and with a server that is killed and comes back."""

import contextlib
import signal
import sys
import threading
import time

import pytest
from harness import Process
from window_harness import Heartbeat, hear

import client
from client import CONNECTED, RECONNECTING, Message

LINE = ":bob!b@h PRIVMSG #lobby :message %d of a flood, as long as people write\r\n"


def fill(alice, count):
    """Add messages to the lobby without drawing each; return the lobby."""
    chat = alice.window.chat
    for number in range(count):
        text = "message %d of a long day" % number
        message = Message("PRIVMSG", ("#lobby", text), source="bob!b@h")
        chat.do(time.time(), chat.handle, message)
    lobby = chat.conversation_named("#lobby")
    alice.chat_view.transcript.open(lobby)
    return lobby


def longest_step(desktop, steps):
    """Return the longest of the steps, until it is drawn, in seconds of the thread's CPU time."""
    times = []
    for step in steps:
        start = time.thread_time()
        step()
        desktop.update()
        times.append(time.thread_time() - start)
    return max(times)


@pytest.mark.parametrize(("is_at_end", "searched"), [(True, ""), (False, ""), (True, "flood")])
def test_steady_flood_does_not_freeze_the_window(alice, desktop, hub, is_at_end, searched):
    """At 20,000 messages a second, no work on Tk's thread takes long; bench_window.py measures it.

    Nor does it while a search is open that finds something in each of them.
    """
    stop = threading.Event()

    def flood():
        number, start = 0, time.monotonic()
        while not stop.is_set():
            hub.send_bytes("".join(LINE % (number + n) for n in range(200)).encode())
            number += 200
            stop.wait(max(0.0, start + number / 20000 - time.monotonic()))

    hear(hub, alice, *("line %d" % number for number in range(100)))
    if not is_at_end:
        alice.text.yview_moveto(0.3)
        desktop.update()
    if searched:
        alice.chat_view.search_bar.open(searched)
        alice.chat_view.jump_to_end()
    heart = Heartbeat(alice.root)
    sender = threading.Thread(target=flood)
    sender.start()
    alice.write("typed meanwhile")
    try:
        desktop.pump(lambda: heart.beats > 150)
    finally:
        stop.set()
        while sender.is_alive():  # its send may wait until the window reads
            desktop.update()
            sender.join(0.01)
    heart.stop()
    assert heart.freeze < 0.25  # twice the goal, and more: others use the processor, too
    assert heart.silence < 2
    assert alice.draft == "typed meanwhile"
    assert alice.is_at_end() == is_at_end
    most = client.Transcript.MAX_SHOWN if is_at_end else 1.2 * client.MAX_ENTRIES
    assert len(alice.lines) <= most + 1  # and the heading of the day
    assert alice.window._events.qsize() <= client.MAX_EVENTS
    assert len(alice.window.chat.current.entries) <= 1.1 * client.MAX_ENTRIES


def test_long_conversation_stays_responsive(alice, desktop, hub):
    """Scrolling, search and switching conversations with MAX_ENTRIES messages."""
    lobby = fill(alice, client.MAX_ENTRIES)
    hear(hub, alice, "the last")
    hub.send(":carol!c@h PRIVMSG alice :psst")
    desktop.pump(lambda: len(alice.conversations) == 2)
    pages = [lambda: alice.press("Prior", alice.box)] * 40
    pages += [lambda: alice.press("Next", alice.box)] * 10
    assert longest_step(desktop, pages) < 0.1
    assert not alice.is_at_end()
    assert longest_step(desktop, [alice.chat_view.search_bar.search] * 3) < 0.05
    alice.press("Control-f", alice.box)
    alice.chat_view.search_bar.field.text.insert("end", "message 99")
    desktop.pump(lambda: alice.found == "1 of 111")
    assert longest_step(desktop, [alice.chat_view.search_bar.search] * 3) < 0.1
    other = alice.window.chat.conversations[1]
    switch = [lambda: alice.chat_view.select(other), lambda: alice.chat_view.select(lobby)] * 5
    assert longest_step(desktop, switch) < 0.1


def test_event_redraws_only_what_it_changes(alice, desktop, hub, monkeypatch):
    view, drawn = alice.chat_view, []
    parts = {
        "sidebar": (view.sidebar, "show"),
        "people": (view.people, "show"),
        "head": (view.room, "redraw"),
        "banner": (view.banner.text, "configure"),
        "text": (view.transcript, "_replace"),
    }
    for name, (owner, method) in parts.items():
        original = getattr(owner, method)

        def call(*args, name=name, original=original, **more):
            drawn.append(name)
            return original(*args, **more)

        monkeypatch.setattr(owner, method, call)

    def drawn_for(*lines):
        drawn.clear()
        hub.send(*lines, "PING end")
        hub.expect("PONG end")
        hear(hub, alice, "end of %s" % (lines,))
        return set(drawn)

    assert drawn_for("PONG hub", ":hub 999 alice", ":hub 305") == {"text"}
    assert drawn_for(":dave!d@h JOIN #lobby") == {"text", "people"}
    assert drawn_for(":dave!d@h TOPIC #lobby :new") == {"text", "head"}


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_killed_server_loses_and_doubles_no_message(desktop, tmp_path, monkeypatch):
    """Killed five times; both windows reconnect and show the same messages in the same order."""
    monkeypatch.setattr(client, "RETRY_TIMES", (0.0, 0.05))
    options = ("--data", str(tmp_path / "history"), "--rate-limit", "0")
    with contextlib.ExitStack() as stack:
        server = Process(tmp_path / "stderr", *options)
        stack.callback(lambda: server.close())
        people = {name: desktop.join(server.port, name) for name in ("alice", "bob")}
        typed = {name: [] for name in people}

        def say(text):
            for name, person in people.items():
                typed[name].append("[%s]: %s" % (name, text))
                person.say(text)

        for round_ in range(5):
            desktop.pump(lambda: all(p.window.chat.state == CONNECTED for p in people.values()))
            for number in range(5):
                say("%d of round %d" % (number, round_))
            server.signal(signal.SIGKILL)
            server.wait()
            desktop.pump(lambda: all(p.window.chat.state == RECONNECTING for p in people.values()))
            say("meanwhile, round %d" % round_)
            server.close()
            server = Process(tmp_path / "stderr", *options, "--port", str(server.port))

        def said(person):
            return [line for line in person.lines if line.startswith(("[alice]", "[bob]"))]

        alice, bob = people.values()
        count = len(typed["alice"]) + len(typed["bob"])
        desktop.pump(
            lambda: len(said(alice)) == len(said(bob)) == count and said(alice) == said(bob)
        )
        for name, lines in typed.items():
            assert [line for line in said(alice) if line.startswith("[%s]" % name)] == lines
        assert not any(person.window.chat.unsent for person in people.values())
