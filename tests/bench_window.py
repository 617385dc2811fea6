"""How the window bears a flood and a long conversation: `python tests/bench_window.py [SECONDS]`.

Prints a line for each: the longest pauses of a heartbeat of 10 ms while 20,000 messages a second
come, and the longest time that a key takes in a conversation of 100,000 messages.
"""

import contextlib
import resource
import subprocess
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from client_harness import ScriptedServer  # noqa: E402
from window_harness import Desk, Heartbeat, Screen  # noqa: E402

from client import Message  # noqa: E402

RATE = 20000  # messages a second
LINE = ":bob!b@h PRIVMSG #lobby :message %d of a flood, as long as people write\r\n"


def memory():
    """MB that this process has used at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# A program of its own, so that it takes no time of the window's interpreter: says the lines at
# that rate for so many seconds, and then how many there were.
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


def flood(desk, alice, hub, seconds):
    """Have so much said for so long."""
    before, heart = memory(), Heartbeat(alice.root)
    start = time.monotonic()
    fd = hub.fileno()
    words = [sys.executable, "-c", FLOOD, str(fd), str(RATE), str(seconds), LINE]
    with subprocess.Popen(words, stdout=subprocess.PIPE, pass_fds=[fd]) as sender:
        while sender.poll() is None:
            desk.update()
        sent = int(sender.stdout.read())
    took = time.monotonic() - start
    heart.stop()
    print(
        "flood: %d messages in %.1f s (%d a second), heartbeat %d of %d, longest pause %.0f ms by"
        " the clock, %.0f ms of work; memory %.0f -> %.0f MB"
        % (sent, took, sent / took, heart.beats, took * 100, heart.silence * 1000,
           heart.freeze * 1000, before, memory())
    )  # fmt: skip


def times(desk, step, count):
    """The median and the longest time that a step takes until it is drawn, in ms."""
    found = []
    for _ in range(count):
        start = time.perf_counter()
        step()
        desk.update()
        found.append((time.perf_counter() - start) * 1000)
    return "%.1f/%.1f" % (sorted(found)[count // 2], max(found))


def long_conversation(desk, alice, hub, count):
    """What keys take in a conversation of so many messages."""
    chat, transcript = alice.window.chat, alice.chat_view.transcript
    start = time.perf_counter()
    for number in range(count):
        message = Message("PRIVMSG", ("#lobby", "message %d of a long day" % number), "bob!b@h")
        chat.handle(message, 1.7e9 + number)
    grew = time.perf_counter() - start
    hub.send(":bob!b@h PRIVMSG #lobby :last", ":carol!c@h PRIVMSG alice :psst")
    desk.pump(lambda: len(alice.conversations) == 2)
    lobby, other = chat.conversations
    parts = [("page up", times(desk, lambda: transcript.scroll(-1), 200))]
    parts.append(("page down", times(desk, lambda: transcript.scroll(1), 100)))
    parts.append(("top", times(desk, lambda: alice.window._on_ends(0.0), 10)))
    parts.append(("end", times(desk, lambda: alice.window._on_ends(1.0), 10)))
    alice.chat_view.search.open()
    for words in ("last", "message 99", "e"):
        alice.chat_view.search.field.set(words)
        parts.append(("search %r" % words, times(desk, alice.chat_view.search.search, 5)))
    parts.append(("next", times(desk, lambda: alice.chat_view.search.step(-1), 50)))
    alice.chat_view.search.close()
    parts.append(("go away", times(desk, lambda: alice.window.select(other), 1)))
    both = [other, lobby]
    switch = times(desk, lambda: alice.window.select(both[chat.current is other]), 20)
    parts.append(("switch", switch))
    print(
        "%d messages (handled in %.1f s), median/longest ms: %s; memory %.0f MB"
        % (count, grew, ", ".join("%s %s" % part for part in parts), memory())
    )


def main():
    seconds = float(sys.argv[1]) if sys.argv[1:] else 15
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.closing(Screen()))
        for work, size in ((flood, seconds), (long_conversation, 100000)):
            with contextlib.closing(ScriptedServer()) as hub, contextlib.closing(Desk()) as desk:
                alice = desk.open(hub.port, "alice", at_once=True)
                hub.welcome()
                desk.pump(lambda alice=alice: alice.people == ["alice", "bob"])
                work(desk, alice, hub, size)


if __name__ == "__main__":
    main()
