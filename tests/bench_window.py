"""Measure the window in a flood and a long conversation: `python tests/bench_window.py [SECONDS]`.

Prints a line for each: the time to the first paint; the longest delays of a timer of 10 ms
during a flood of 20,000 messages a second; the times of keys in the longest conversation.
"""

import contextlib
import resource
import subprocess
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from client_harness import ScriptedServer  # noqa: E402
from window_harness import Desktop, Heartbeat, Screen  # noqa: E402

from client import MAX_ENTRIES, Message  # noqa: E402

RATE = 20000  # messages a second
LINE = ":bob!b@h PRIVMSG #lobby :message %d of a flood, as long as people write\r\n"


def memory():
    """Return this process's peak memory, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# Sends lines at a rate for some seconds and prints their number. A process of its own, to take
# no time of the window's interpreter.
FLOOD = """
import socket, sys, time
fd, rate, seconds, line = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
peer, sent, start = socket.socket(fileno=fd), 0, time.monotonic()
peer.settimeout(None)
while time.monotonic() < start + seconds:
    peer.sendall("".join(line % (sent + n) for n in range(200)).encode())
    sent += 200
    time.sleep(max(0.0, start + sent / rate - time.monotonic()))
print(sent)
"""


FIRST_PAINT = """
import sys, time
start = time.perf_counter()
sys.path.insert(0, sys.argv[1])
import client, tkinter
window = client.Window(tkinter.Tk(), client.Settings(""))
window.start("127.0.0.1:1", "alice", False)
window.root.update()
print("%.0f" % ((time.perf_counter() - start) * 1000))
window.close()
"""


def first_paint():
    """Print the time from before `import client` to the first paint, in fresh processes."""
    command = [sys.executable, "-c", FIRST_PAINT, str(Path(__file__).parent.parent)]
    times = [int(subprocess.check_output(command, stderr=subprocess.DEVNULL)) for _ in range(5)]
    print("first paint: median %d ms, longest %d ms" % (sorted(times)[2], max(times)))


def flood(desktop, alice, hub, seconds):
    """Print what a flood of messages for `seconds` does to the window."""
    before, heart = memory(), Heartbeat(alice.root)
    start = time.monotonic()
    fd = hub.fileno()
    command = [sys.executable, "-c", FLOOD, str(fd), str(RATE), str(seconds), LINE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=[fd]) as sender:
        while sender.poll() is None:
            desktop.update()
        sent = int(sender.stdout.read())
    took = time.monotonic() - start
    heart.stop()
    print(
        "flood: %d messages in %.1f s (%d a second), " % (sent, took, sent / took)
        + "heartbeat %d of %d, " % (heart.beats, took * 100)
        + "longest pause %.0f ms by the clock, " % (heart.silence * 1000)
        + "%.0f ms of work; " % (heart.freeze * 1000)
        + "memory %.0f -> %.0f MB" % (before, memory())
    )


def times(desktop, step, count):
    """Return "median/longest" of the times of a step until it is drawn, in ms."""
    found = []
    for _ in range(count):
        start = time.perf_counter()
        step()
        desktop.update()
        found.append((time.perf_counter() - start) * 1000)
    return "%.1f/%.1f" % (sorted(found)[count // 2], max(found))


def long_conversation(desktop, alice, hub, count):
    """Print the times of keys in a conversation of `count` messages."""
    chat, view = alice.window.chat, alice.chat_view
    text, search = view.transcript.text, view.search_bar
    start = time.perf_counter()
    for number in range(count):
        message = Message("PRIVMSG", ("#lobby", "message %d of a long day" % number), "bob!b@h")
        chat.do(1.7e9 + number, chat.handle, message)
    grew = time.perf_counter() - start
    hub.send(":bob!b@h PRIVMSG #lobby :last", ":carol!c@h PRIVMSG alice :psst")
    desktop.pump(lambda: len(alice.conversations) == 2)
    lobby, other = chat.conversations
    steps = [
        ("open", lambda: view.transcript.open(lobby), 10),
        ("page up", lambda: text.yview_scroll(-1, "pages"), 300),
        ("top", lambda: text.yview_moveto(0), 10),
        ("end", view.transcript.show_end, 10),
    ]
    parts = [(name, times(desktop, step, number)) for name, step, number in steps]
    view.transcript.open(lobby)
    search.open()
    for words in ("last", "message 99", "e", "message 0 "):  # in the end, to the first entry
        search.field.set(words)
        parts.append(("search %r" % words, times(desktop, search.search, 1)))
    parts.append(("next", times(desktop, lambda: search.step(-1), 50)))
    search.close()
    both = [other, lobby]
    switch = times(desktop, lambda: view.select(both[chat.current is other]), 20)
    parts.append(("switch", switch))
    print(
        "%d messages (handled in %.1f s), median/longest ms: %s; memory %.0f MB"
        % (count, grew, ", ".join("%s %s" % part for part in parts), memory())
    )


def main():
    seconds = float(sys.argv[1]) if sys.argv[1:] else 15
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.closing(Screen()))
        first_paint()
        for work, size in ((flood, seconds), (long_conversation, MAX_ENTRIES)):
            with contextlib.ExitStack() as inner:
                hub = inner.enter_context(contextlib.closing(ScriptedServer()))
                desktop = inner.enter_context(contextlib.closing(Desktop()))
                alice = desktop.open(hub.port, "alice", at_once=True)
                hub.welcome()
                desktop.pump(lambda alice=alice: alice.people == ["alice", "bob"])
                work(desktop, alice, hub, size)


if __name__ == "__main__":
    main()
