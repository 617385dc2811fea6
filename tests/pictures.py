"""Pictures of every state of the window, in both themes and at three widths.

    python tests/pictures.py [FOLDER] [--only WORD] [--dpi 192] [--readme]

Each state is come to as people come to it: a real window on a screen of its own, real keys,
a real server, and others who talk there. Only the clock is ours, and it stands still, so that
each run gives the same pictures. `--readme` makes those of the README instead.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent)]

from client_harness import ScriptedServer, closed_port
from harness import Room
from window_harness import Desk, Screen

import client
import server

SIZES = ((1160, 720), (800, 640), (520, 720))
SMALL = ((460, 600),)  # the connect view
PEOPLE = "bob carol dana erik grace_with_a_very_long_name".split()
SERVERS = ["192.168.1.20", "lab-3.local", "localhost"]

# What is said in #lobby: day and time, who (after a slash: what they send), and the words.
TALK = (
    ("21 17:58:40", "dana", "Last one out, please close the windows in the lab."),
    ("22 09:00:02", "alice", ""),
    ("22 09:00:41", "bob", "Morning! Did anyone see the new build?"),
    ("22 09:01:07", "alice", "Yes, it starts twice as fast now 🚀"),
    ("22 09:01:30", "carol", "The notes are at http://192.168.1.20:8080/notes/release-4.html — please"
     " read the part about the upgrade before you touch the shared machine, it takes two minutes"
     " and saves an hour."),
    ("22 09:02:12", "frank", ""),
    ("22 09:02:55", "dana", "Thanks! @alice could you check the last table?"),
    ("22 09:03:20", "alice", "On it."),
    ("22 09:03:44", "bob/PRIVMSG alice", "Coffee after the stand-up?"),
    ("22 09:04:02", "alice", "@bob Sure, 10:15."),
)  # fmt: skip
NEWS = (
    ("22 09:05:18", "erik", "Is Friday lunch still on?"),
    ("22 09:05:33", "dana/TOPIC #lobby", "Friday lunch 12:30 in the kitchen — say who is coming"),
    ("22 09:06:01", "frank", "I am in. 你好 · Привет · ¡hola!"),
)


class Clock:
    """Stands still until it is set."""

    def __init__(self):
        self.set("21 17:58:00")

    def set(self, when):
        self._now = time.mktime(time.strptime("2024 11 " + when, "%Y %m %d %H:%M:%S"))

    def time(self):
        return self._now

    def strftime(self, form, *when):
        return time.strftime(form, *(when or [time.localtime(self._now)]))

    def __getattr__(self, name):
        return getattr(time, name)


class Studio:
    """Where a state is made, and its pictures are taken; nothing of it is left after `close`."""

    def __init__(self):
        self._stack = contextlib.ExitStack()
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self._change(os.environ, "XDG_CONFIG_HOME", str(self.folder))
        self.clock = Clock()
        for module in (client, server):
            self._change(vars(module), "time", self.clock)
        self.desk = self._stack.enter_context(contextlib.closing(Desk()))
        self.people, self.alice = {}, None

    def _change(self, names, name, value):
        """Have a name mean something else until the end."""
        undo = names.pop if name not in names else names.__setitem__
        self._stack.callback(undo, name, names.get(name))
        names[name] = value

    def retry(self, *seconds):
        """How long the window waits before it tries to come back."""
        self._change(vars(client), "RETRY_TIMES", seconds)

    def keep(self, **values):
        """Settings that are there already."""
        settings = client.Settings(client.settings_path())
        vars(settings).update(values)
        settings.save()

    def room(self, **options):
        options = {"network": "Office", "data": str(self.folder / "data"), **options}
        self.lobby = self._stack.enter_context(contextlib.closing(Room(**options)))
        return self.lobby

    def enter(self, thing):
        return self._stack.enter_context(thing)

    def open(self, *args, **more):
        """A window at the left top, whose cursor does not blink."""
        self.alice = self.desk.open(*args, **more)
        self.alice.box.configure(insertofftime=0)
        return self.alice

    def play(self, *talk):
        """Let people talk; alice sees all of it, once she is there."""
        for when, who, words in talk:
            self.clock.set(when)
            name, _, verb = who.partition("/")
            if name == "alice" and not words:
                self.open(self.lobby.server.port, "alice", at_once=True)
                words = "alice joined"
            elif name == "alice":
                self.alice.say(words)
                self.desk.pump(lambda: not self.alice.window.chat.unsent)
            else:
                if name not in self.people:
                    self.people[name] = self.lobby.irc(name)
                if words:
                    self.people[name].send("%s :%s" % (verb or "PRIVMSG #lobby", words))
                    self.people[name].heard()
            if self.alice and name != "alice":
                self.hears(words or "%s joined" % name)

    def hears(self, words):
        """Go on when this stands in some conversation of alice's window."""
        chat = self.alice.window.chat
        self.desk.pump(lambda: any(words in entry.text for place in chat.conversations
                                   for entry in place.entries[-9:]))  # fmt: skip

    def take(self, person, path, size):
        """One picture of a window of this size (of 96 dpi)."""
        width, height = (person.window.look.px(each) for each in size)
        person.root.geometry("%dx%d+0+0" % (width, height))
        self.desk.pump(lambda: (person.root.winfo_width(), person.root.winfo_height()) == (width, height))
        for _ in range(5):
            self.desk.update()
            person.root.winfo_pointerxy()  # an answer: all that was asked for is drawn
        command = "import -silent -window root -crop %dx%d+0+0 +repage +dither -colors 250 -strip %s"
        subprocess.run((command % (width, height, path)).split(), check=True)

    def close(self):
        self._stack.close()


# The states: each leaves alice's window as it is to be seen


def connect(studio, port=0, servers=(), **texts):
    """She has filled in the fields, and pressed Enter where there is a port."""
    studio.keep(servers=list(servers))
    alice = studio.open(port or client.SERVER_PORT)
    alice.connect_view.fill("", servers, servers[0] if servers else "")
    if texts:
        alice.fill(**texts)
    if port:
        alice.window.connect_view.fill(texts.get("name", "alice"), servers, "127.0.0.1:%d" % port)
        alice.press("Return", alice.connect_view.fields[client.NAME])
    return alice


def connect_empty(studio):
    connect(studio)


def connect_servers(studio):
    connect(studio, servers=SERVERS, name="alice")


def connect_name_bad(studio):
    connect(studio, servers=SERVERS).connect(name="not a name")


def connect_name_taken(studio):
    studio.room().irc("alice")
    connect(studio, studio.lobby.server.port, SERVERS).wait_for_fault(client.NAME)


def connect_refused(studio):
    port = studio.enter(closed_port())
    connect(studio, port, SERVERS).wait_for_fault(client.SERVER)


def connect_full(studio):
    studio.room(max_clients=1).irc("bob")
    connect(studio, studio.lobby.server.port, SERVERS).wait_for_fault(client.SERVER)


def connect_banned(studio):
    hub = studio.enter(contextlib.closing(ScriptedServer()))
    alice = connect(studio, hub.port, SERVERS)
    hub.accept().send(":hub 465 alice :You are banned from this server: noise in the library")
    alice.wait_for_fault(client.SERVER)


def connect_password_wrong(studio):
    alice = connect(studio, studio.room(password="sesame").server.port, SERVERS)
    alice.wait_for_fault(client.PASSWORD)
    alice.connect(password="wrong")
    wrong = lambda: alice.connect_view.hints[client.PASSWORD].cget("text") == "Wrong password."  # noqa: E731
    studio.desk.pump(wrong)


def connecting(studio):
    hub = studio.enter(contextlib.closing(ScriptedServer()))
    connect(studio, hub.port, SERVERS)


def lobby(studio):
    """An office that has talked since yesterday; alice has looked away for a while."""
    studio.room()
    studio.play(*[("21 17:58:00", name, "") for name in PEOPLE], *TALK)
    alice, chat, bob = studio.alice, studio.alice.window.chat, studio.people["bob"]
    studio.people["erik"].send("AWAY :at lunch")
    for room, unread in (("#design", 3), ("#random", 120), ("#support-and-releases-2026", 0)):
        alice.say("/join " + room)
        studio.desk.pump(lambda room=room: chat.current.name == room)
        bob.send("JOIN " + room)
        studio.hears("bob joined")
        alice.window.open("#support-and-releases-2026" if unread else "#lobby")
        bob.send(*["PRIVMSG %s :news %d" % (room, number) for number in range(unread)])
    for name in ("dana", "erik", "bob"):
        alice.window.open(name)
    alice.window.open("#design")
    studio.play(*NEWS)
    bob.send("PRIVMSG alice :Are you coming?", "PRIVMSG alice :They wait.")
    studio.hears("They wait.")
    alice.window.open("#lobby")
    return alice


def conversation(studio):
    lobby(studio)


def private(studio):
    lobby(studio).window.open("bob")


STATES = (
    (connect_empty, SMALL), (connect_servers, ((460, 600), (800, 640), (1160, 720))),
    (connect_name_bad, SMALL), (connect_name_taken, SMALL), (connect_refused, SMALL),
    (connect_full, SMALL), (connect_banned, SMALL), (connect_password_wrong, SMALL),
    (connecting, SMALL),
    (conversation, SIZES), (private, SIZES),
)  # fmt: skip


def main(argv=None):
    """Take them all, or those whose names have a word in them; the number of pictures."""
    parser = argparse.ArgumentParser(description="Take pictures of every state of the window.")
    parser.add_argument("folder", nargs="?", type=Path, help="where to (a temporary folder)")
    parser.add_argument("--only", default="", metavar="WORD", help="states with this in their name")
    parser.add_argument("--dpi", type=int, default=96, help="of the screen")
    args = parser.parse_args(argv)
    folder = args.folder or Path(tempfile.mkdtemp(prefix="hubbub-"))
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    with contextlib.closing(Screen()):
        for state, sizes in STATES:
            if args.only not in state.__name__:
                continue
            with contextlib.closing(Studio()) as studio:
                state(studio)
                for theme in ("dark", "light"):
                    studio.alice.window.look.change(theme, 100)
                    for size in sizes:
                        name = "%s-%s-%d.png" % (state.__name__, theme, size[0])
                        studio.take(studio.alice, folder / name, size)
                        count += 1
    print("%d pictures are in %s" % (count, folder))
    return count


if __name__ == "__main__":
    main()
