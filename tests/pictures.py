"""Take pictures of every state of the window, in both themes and at three widths.

    python tests/pictures.py [FOLDER] [--only STATE ...] [--dpi 192] [--readme]

Each state is reached as users reach it: a real window on a virtual screen, real keys, a real
server, and other clients that chat there. Only the clock is replaced: it stands still, so that
every run shows the same times. `--readme` takes the pictures of the README instead.
"""

import argparse
import concurrent.futures
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent)]

from client_harness import Responder, ScriptedServer, closed_port  # noqa: E402
from harness import Room  # noqa: E402
from window_harness import Desktop, Screen  # noqa: E402

import client  # noqa: E402
import server  # noqa: E402

README_FOLDER = Path(__file__).resolve().parent.parent / ".github"
SIZES = ((1160, 720), (800, 640), (520, 720))
WIDTHS = ((1160, 720), (800, 640), (480, 360))  # the last is the minimum
SMALL = ((460, 720),)  # the connect view
LOCKS = ((1160, 720), (800, 640), (480, 640))  # at the last, the sidebar is hidden
PEOPLE = "bob carol dana erik grace_with_a_very_long_name".split()
SERVERS = ["192.168.1.20", "lab-3.local", "localhost"]

# The conversation in #lobby: day and time, sender (after a slash: the command), text. A sender
# without a text joins.
TALK = (
    ("21 17:58:40", "dana", "Last one out, please close the windows in the lab."),
    ("22 09:00:02", "alice", ""),
    ("22 09:00:41", "bob", "Morning! Did anyone see the new build?"),
    ("22 09:01:07", "alice", "Yes, it starts twice as fast now 🚀"),
    ("22 09:01:30", "carol", "The notes are at http://192.168.1.20:8080/notes/release-4.html —"
     " please read the part about the upgrade before you touch the shared machine, it takes two"
     " minutes and saves an hour."),
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
STRANGE = (  # nicknames and their messages
    ("🚀rocket", "😀 👍🏽 ❤️ 🇩🇪"),
    ("דנה", "שלום לכולם, 12:30"),
    ("王小明", "你好，世界"),
    ("Ωmega", "z̷̢̛a̷l̷g̷o̷ " + "e\u0301" * 9),
    ("y" * 60, "a" * 400),
    ("مريم", "مرحبا"),
)


class Clock:
    """A clock that stands still until it is set."""

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
    """The server, the clients and the window of a state; `close` removes them all."""

    def __init__(self, theme):
        self._theme = theme
        self._stack = contextlib.ExitStack()
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self.change(os.environ, "XDG_CONFIG_HOME", str(self.folder))
        self.clock = Clock()
        for module in (client, server):
            self.change(vars(module), "time", self.clock)
        self.desktop = self._stack.enter_context(contextlib.closing(Desktop()))
        self.people, self.alice = {}, None

    def change(self, names, name, value):
        """Replace a value until `close`."""
        undo = names.pop if name not in names else names.__setitem__
        self._stack.callback(undo, name, names.get(name))
        names[name] = value

    def set_retry_times(self, *seconds):
        """Set the seconds before each attempt to reconnect."""
        self.change(vars(client), "RETRY_TIMES", seconds)

    def start_server(self, **options):
        options = {"network": "Office", "data": str(self.folder / "data"), **options}
        self.hub = self._stack.enter_context(contextlib.closing(Room(**options)))
        return self.hub

    def enter(self, context):
        """Enter a context that `close` leaves."""
        return self._stack.enter_context(context)

    def open(self, *args, **more):
        """Open alice's window, with a cursor that does not blink."""
        self.alice = self.desktop.open(*args, theme=self._theme, **more)
        self.alice.box.configure(insertofftime=0)
        return self.alice

    def play(self, *talk):
        """Join users and send their messages; wait for each in alice's window, once it is open."""
        for when, sender, text in talk:
            self.clock.set(when)
            name, _, command = sender.partition("/")
            if name == "alice" and not text:
                self.open(self.hub.server.port, "alice", at_once=True)
                self.wait_for("alice joined")
                self.desktop.pump(lambda: not self.is_fetching())
            elif name == "alice":
                self.alice.say(text)
                self.desktop.pump(lambda: not self.alice.window.chat.unsent)
            else:
                if name not in self.people:
                    self.people[name] = self.hub.irc(name)
                if text:
                    self.people[name].send("%s :%s" % (command or "PRIVMSG #lobby", text))
                    self.people[name].heard()
            if self.alice and name != "alice":
                self.wait_for(text or "%s joined" % name)

    def is_fetching(self):
        chat = self.alice.window.chat
        return chat.history.is_fetching(chat.current)

    def wait_for(self, text):
        """Wait until one of the last entries of a conversation of alice contains `text`."""

        def has_come():
            conversations = self.alice.window.chat.conversations
            return any(text in entry.text for c in conversations for entry in c.entries[-9:])

        self.desktop.pump(has_come)

    def take(self, person, path, size):
        """Resize a window (in pixels at 96 dpi) and save its picture, unless `path` is None."""
        root = person.root
        width, height = (person.window.look.px(pixels) for pixels in size)
        root.geometry("%dx%d+0+0" % (width, height))
        self.desktop.pump(lambda: (root.winfo_width(), root.winfo_height()) == (width, height))
        polled = []
        root.after(2 * client.POLL_MS, polled.append, True)
        self.desktop.pump(lambda: polled)  # what a poll lays out is there, too
        for _ in range(5):
            self.desktop.update()
            root.winfo_pointerxy()  # a round trip: everything has been drawn
        if path is None:
            return
        command = "import -silent -window root -crop %dx%d+0+0 +repage +dither -strip -depth 8 %s"
        subprocess.run((command % (width, height, path)).split(), check=True)

    def close(self):
        self._stack.close()


# The states: each function brings alice's window to the state of the picture


def connect(studio, servers=SERVERS, **texts):
    """The connect view, with texts in its fields."""
    alice = studio.open()
    alice.window.settings.servers[:] = servers
    alice.connect_view.fill("", servers[0] if servers else "")
    alice.fill(**texts)
    return alice


def renamed(studio):
    """The form for a chat, under another name than the last one had."""
    alice = connect(studio, (), name="alice")
    alice.window.settings.hosted = "Class 7b"
    alice.connect_view.host.invoke()


def found(studio, port=12001):
    """The connect view with two chats that were found, one of them encrypted."""
    responder = studio.enter(contextlib.closing(Responder()))
    studio.change(os.environ, "HUBBUB_FIND", responder.address)
    alice = connect(studio, (), name="alice")
    query_id = responder.query()
    responder.answer(query_id, "Class 4B", port, is_encrypted=True)
    responder.answer(query_id, "Staff room", port + 1, 3)
    studio.desktop.pump(lambda: len(alice.connect_view.found) == 2)


def refused(studio, port, field=client.SERVER):
    """The connect view after a failed attempt, with the error at a field."""
    alice = connect(studio, name="alice", server="127.0.0.1:%d" % port)
    alice.press("Return", alice.connect_view.fields[client.NAME])
    if field:
        alice.wait_for_error(field)
    return alice


def scripted(studio, *lines):
    """The connect view on a server that is silent, or refuses with `lines`."""
    hub = studio.enter(contextlib.closing(ScriptedServer()))
    alice = refused(studio, hub.port, "")
    if lines:
        hub.accept().send(*lines)
        alice.wait_for_error(client.REJECTED)


def asked(studio):
    """The connect view after a server's first request for its password."""
    alice = refused(studio, studio.start_server(password="sesame").server.port, "")
    studio.desktop.pump(alice.connect_view.fields[client.PASSWORD].winfo_viewable)
    return alice


def refused_login(studio):
    """The hidden field again after a wrong password, over a draft."""
    alice = conversation(studio)
    studio.hub.server.store.add_account("root", "open sesame", True)
    alice.write("Back in a minute.")
    alice.chat_view.composer.ask_password("/login root ")
    alice.type("sesame", "<Return>")
    studio.wait_for("do not match")


def leave(studio):
    """The question before the room in view is left with a draft."""
    alice = pressed(studio, text="It is right")
    alice.chat_view.buttons["more"].invoke()
    alice.choose("Leave #lobby")


def wrong_password(studio):
    alice = asked(studio)
    alice.connect(password="wrong")
    hint = alice.connect_view.hints[client.PASSWORD]
    studio.desktop.pump(lambda: hint.cget("text") == "Wrong password.")


def conversation(studio, **options):
    """An office's chat since yesterday, which alice joined in the morning."""
    studio.start_server(**options)
    studio.play(*[("21 17:58:00", name, "") for name in PEOPLE], *TALK)
    alice, chat, bob = studio.alice, studio.alice.window.chat, studio.people["bob"]
    studio.people["erik"].send("AWAY :at lunch")
    for channel in ("#design", "#random", "#support-and-releases-2026"):
        alice.chat_view.open(channel)
        studio.desktop.pump(lambda channel=channel: chat.conversation_named(channel).members)
        bob.send("JOIN " + channel)
        studio.wait_for("bob joined")
    for name in ("bob", "dana", "erik"):
        alice.chat_view.open(name)
    for channel, unread in (("#design", 3), ("#random", 120)):
        bob.send(*["PRIVMSG %s :news %d" % (channel, number) for number in range(unread)])
        studio.wait_for("news %d" % (unread - 1))
    studio.play(*NEWS)
    bob.send("PRIVMSG alice :Are you coming?", "PRIVMSG alice :They wait.")
    studio.wait_for("They wait.")
    alice.chat_view.open("#lobby")
    return alice


def pressed(studio, *keys, text=""):
    """The conversation, with a draft and after some keys."""
    alice = conversation(studio)
    alice.write(text)
    for key in keys:
        alice.press(key)
    return alice


def untrusted(studio):
    """The connect view on a known server that shows another certificate."""
    conversation(studio).close()
    port = studio.hub.server.port
    studio.hub.close()
    studio.start_server(port=port, data=str(studio.folder / "other"))
    return refused(studio, port)


def busy(studio):
    """Names in their colors, lines of a sender close together, pasted code, a reply, no joins."""
    alice = conversation(studio)
    said = ["Does this look right?", "I have never written one of these.", "Python, by the way."]
    said += [
        "def area(radius):",
        "    if radius < 0:",
        "        raise ValueError(f'{radius} is negative')",
    ]
    said += ["    return 3.14159 * radius ** 2"]
    for second, text in enumerate(said):
        studio.play(("22 09:07:%02d" % (10 + 12 * min(second, 3) + second), "bob", text))
    studio.play(
        ("22 09:08:01", "carol", "Use math.pi"),
        ("22 09:08:04", "carol", "and a docstring."),
        ("22 09:08:30", "erik", "And the unit: metres?"),
        ("22 09:08:41", "alice", "It does, bob."),
        ("22 09:08:50", "alice", "Almost."),
    )
    alice.press("Control-r")
    alice.press("Control-r")
    studio.play(("22 09:09:12", "alice", "Good point"))
    alice.window.do(alice.window.chat.toggle_joins, alice.window.chat.current)
    alice.press("Control-r")
    alice.write("Centimetres, I think")


def failed(studio):
    alice = conversation(studio)
    alice.say("@dave Are you there?")
    alice.sees("[SERVER]: No such user: dave")
    alice.say("/foo")
    alice.sees("[SERVER]: Unknown command: /foo. Type /help for the list.")


def answered(studio, command, answer):
    """The conversation after a command."""
    alice = conversation(studio)
    alice.say(command)
    studio.wait_for(answer)
    return alice


def asked_privately(studio):
    """A private question that is shown in the room in view, and not answered."""
    alice = conversation(studio)
    studio.people["dana"].send("PRIVMSG alice :Shall we meet?")
    studio.wait_for("Shall we meet?")
    return alice


def refused_room(studio, password=""):
    """A room with a password, which alice does not know; she may have tried one."""
    studio.start_server()
    studio.people["bob"] = bob = studio.hub.irc("bob")
    bob.send("JOIN #staff", "MODE #staff +k sesame")
    bob.heard()
    studio.open(studio.hub.server.port, "alice", at_once=True)
    studio.wait_for("alice joined")
    studio.alice.say("/join staff")
    studio.wait_for("#staff has a password")
    if password:
        studio.alice.say("/join staff " + password)
        studio.wait_for("That is not the password of #staff.")


def invite(studio):
    """The sheet to invite others to a room."""
    alice = conversation(studio)
    alice.chat_view.open("#design")
    alice.chat_view.buttons["more"].invoke()
    alice.choose("Invite someone…")


def invited(studio):
    """An invitation that is not accepted yet."""
    alice = conversation(studio)
    dana = studio.people["dana"]
    dana.send("JOIN #trip", "MODE #trip +i", "INVITE alice #trip")
    alice.sees("[SERVER]: dana invites you to #trip. Type /join #trip")


def replaced(studio):
    """A private message to a name that another user has taken meanwhile."""
    alice = conversation(studio)
    alice.chat_view.open("bob")
    studio.people["bob"].send("NICK bobby")
    alice.sees("[SERVER]: bob is now called bobby")
    studio.people["dana"].send("NICK bob")
    alice.window.do(alice.window.chat.open, "#lobby")
    alice.sees("[SERVER]: dana is now called bob")
    alice.say("@bob I like tom")
    studio.wait_for("Not sent: bob may be someone else")
    alice.write("@bob Who are you?")


def absent(studio):
    """A private conversation with a user who is not there, and a user who is away."""
    alice = conversation(studio)
    alice.chat_view.open("zed")
    alice.say("Are you there?")
    alice.sees("[SERVER]: zed is not here. Messages wait only for registered names.")


def lost(studio):
    """Disconnected: two attempts to reconnect have failed, the third follows in 30 seconds."""
    studio.set_retry_times(0.0, 0.0, 30.0)
    alice = conversation(studio)
    studio.port = studio.hub.server.port
    studio.hub.close()
    studio.desktop.pump(lambda: "(attempt 3)" in alice.banner)
    alice.say("I will bring the cake")
    return alice


def back(studio):
    """Reconnected to a new server on the same port."""
    alice = lost(studio)
    studio.start_server(port=studio.port)
    alice.chat_view.banner.buttons[0].invoke()
    studio.desktop.pump(lambda: "Connected again." in alice.banner and not alice.window.chat.unsent)


def search(studio, words="the"):
    alice = pressed(studio, "Control-f")
    field = alice.chat_view.search_bar.field
    field.set(words)
    studio.desktop.pump(lambda: field.note.cget("text"))
    alice.press("F3")


def search_all(studio, words="the", chosen=""):
    """The results in all conversations; with `chosen`, after a choice of a result with that."""
    alice = pressed(studio, "Control-f")
    alice.chat_view.search_bar.field.set(words)
    alice.press("Control-Shift-F")
    lookup = alice.window.chat.lookup
    studio.desktop.pump(lambda: lookup.is_done)
    if chosen:
        alice.sheet.close(next(r for r in lookup.results if chosen in r.entry.text))
        studio.desktop.pump(lambda: lookup.revealing is None)


def scrolled_up(studio):
    alice, bob = conversation(studio), studio.people["bob"]
    for words, count in (("line", 60), ("more", 3)):
        bob.send(*["PRIVMSG #lobby :%s %d" % (words, number) for number in range(count)])
        studio.wait_for("%s %d" % (words, count - 1))
        alice.text.yview_moveto(0.4)
        studio.desktop.update()


def operator(studio, *commands):
    """The conversation of an operator, after commands: of the menu, or of bob's ("bob: …")."""
    alice = conversation(studio)
    studio.hub.server.store.add_account("root", "open sesame", True)
    studio.wait_for("only operators set the topic")
    alice.window.do(alice.window.chat.send_command, "OPER", "root", "open sesame")
    studio.desktop.pump(lambda: alice.window.chat.session.is_operator)
    alice.window.do(alice.window.chat.send_command, "MODE", "#lobby", "+o", "alice")
    alice.say("/announce Five minutes left, please save your work")
    alice.say("/mute carol 10m")
    alice.say("/ban 192.0.2.7 1h noise")
    studio.wait_for("192.0.2.7 is banned")
    for command in commands:
        if command.startswith("bob: "):
            alice.window.menus.open_person("bob", alice.chat_view.people.list)
            alice.choose(command[5:])
        else:
            alice.open_menu(command)
    studio.desktop.pump(lambda: alice.window.chat.listing.is_done)


def announced(studio):
    """An announcement of another operator."""
    alice = conversation(studio)
    studio.hub.server.store.add_account("root", "open sesame", True)
    root = studio.hub.irc("root_admin")
    root.send("OPER root :open sesame", "ANNOUNCE :Five minutes left, please save your work")
    alice.sees("[SERVER]: Announcement by root_admin: Five minutes left, please save your work")
    return alice


def narrow(studio, action):
    """The conversation at the smallest width, after `action` has opened a hidden part."""
    alice = conversation(studio)
    studio.take(alice, None, SIZES[2])
    action(alice)


def crowd(studio):
    """A hundred users, many channels, a long topic and a long word."""
    alice = conversation(studio)
    for number in range(100):
        studio.hub.irc("guest%d" % number)
    for number in range(16):
        alice.chat_view.open("#room-%d" % number)
    studio.desktop.pump(lambda: "guest99" in alice.window.chat.conversation_named("#lobby").members)
    studio.people["dana"].send("TOPIC #lobby :" + "A topic that has much to say. " * 12)
    studio.people["dana"].send("PRIVMSG #lobby :" + "W" * 300)
    studio.wait_for("WWW")
    alice.chat_view.open("#lobby")


def strange(studio):
    """Nicknames and texts in many alphabets, on a server that allows them."""
    hub = studio.enter(contextlib.closing(ScriptedServer()))
    alice = studio.open(hub.port, "alice", at_once=True)
    hub.welcome()
    for name, text in STRANGE:
        hub.send(":%s!u@h JOIN #lobby" % name, ":%s!u@h PRIVMSG #lobby :%s" % (name, text))
        hub.send(":%s!u@h PRIVMSG alice :psst" % name)
    hub.send(":דנה!u@h TOPIC #lobby :ארוחת צהריים 12:30 🍕", "PING end")
    alice.sees("[SERVER]: דנה set the topic: ארוחת צהריים 12:30 🍕")


# Name, sizes and function of each state.
STATES = (
    ("connect-empty", SMALL, lambda studio: connect(studio, ())),
    ("connect-nothing", SMALL, lambda studio: connect(studio, (), name="alice").connect()),
    ("connect-servers", SMALL + SIZES, lambda studio: connect(studio, name="alice")),
    ("connect-found", SMALL + SIZES, found),
    ("connect-host", SMALL + SIZES, lambda studio: connect(studio, ()).connect_view.host.invoke()),
    ("connect-host-renamed", SMALL, renamed),
    ("connect-name-bad", SMALL, lambda studio: connect(studio).connect(name="not a name")),
    ("connect-name-taken", SMALL, lambda studio: refused(
        studio, (studio.start_server(), studio.hub.irc("alice"))[0].server.port, client.NAME)),
    ("connect-refused", SMALL, lambda studio: refused(studio, studio.enter(closed_port()))),
    ("connect-full", SMALL, lambda studio: refused(
        studio, (studio.start_server(max_clients=1), studio.hub.irc("bob"))[0].server.port,
        client.REJECTED)),
    ("connect-ended", SMALL, lambda studio: connect(
        studio, name="alice").connect_view.offer_again("Class 4B")),
    ("connect-banned", SMALL, lambda studio: scripted(
        studio, ":hub 465 alice :You are banned from this server: noise in the library")),
    ("connect-password", SMALL, lambda studio: asked(studio)),
    ("connect-password-wrong", SMALL, wrong_password),
    ("connect-other", SMALL, lambda studio: connect(
        studio, name="alice").connect_view.other.invoke()),
    ("connecting", SMALL, scripted),
    ("conversation", SIZES, conversation),
    ("private", SIZES, lambda studio: conversation(studio).chat_view.open("bob")),
    ("absent", SIZES, absent),
    ("empty", SIZES, lambda studio: conversation(studio).chat_view.open("carol")),
    ("topic-none", SIZES, lambda studio: conversation(studio).chat_view.open("#random")),
    ("typing", SIZES, lambda studio: pressed(studio, text="@dana the table looks right to me")),
    ("typing-much", SIZES, lambda studio: pressed(studio, text="Buy:\n- bread\n- tea\n- milk")),
    ("too-long", SIZES, lambda studio: pressed(studio, text="words and " * 201)),
    ("completion", SIZES, lambda studio: pressed(studio, "Tab", text="@gr")),
    ("busy", (*SIZES, (480, 720)), busy),
    ("suggest-commands", WIDTHS, lambda studio: pressed(studio, "slash", "Down")),
    ("suggest-names", WIDTHS, lambda studio: pressed(studio, "at", "Down", "Down")),
    ("suggest-rooms", WIDTHS, lambda studio: pressed(studio, "numbersign", text="See you in ")),
    ("to-one", WIDTHS, lambda studio: pressed(studio, text="@dana The exam is on Friday")),
    ("to-nobody", WIDTHS, lambda studio: pressed(studio, text="@dan The exam is on Friday")),
    ("to-mixed", WIDTHS, lambda studio: pressed(
        studio, text="@dana The exam is on Friday\n@bob Yes, at ten")),
    ("answer-privately", WIDTHS, lambda studio: asked_privately(studio).write("Yes, at ten")),
    ("password", WIDTHS, lambda studio: pressed(studio, *"sesame", text="/register ")),
    ("login", SIZES, lambda studio: conversation(studio).open_menu("Log in…")),
    ("login-refused", WIDTHS, refused_login),
    ("reply", WIDTHS, lambda studio: pressed(studio, "Control-r")),
    ("chosen-line", WIDTHS, lambda studio: pressed(studio, "Shift-F6", *["Up"] * 5)),
    ("password-below", WIDTHS, lambda studio: pressed(
        studio, *"sesame", text="Back in a minute.\n/register ")),
    ("send-button", SIZES, lambda studio: pressed(studio, "End", "Tab", text="It is right")),
    ("failed", SIZES, failed),
    ("lost", SIZES, lost),
    ("back", SIZES, back),
    ("search", SIZES, search),
    ("search-none", SIZES, lambda studio: search(studio, "zeppelin")),
    ("search-all", (*SIZES, (1366, 768), (480, 360)), search_all),
    ("search-all-none", SIZES, lambda studio: search_all(studio, "zeppelin")),
    ("search-chosen", SIZES, lambda studio: search_all(studio, "news", "news 3")),
    ("scrolled-up", SIZES, scrolled_up),
    ("keys", SIZES, lambda studio: pressed(
        studio, "Control-Tab", "Control-Tab", "Down", "Down")),
    ("help", SIZES, lambda studio: pressed(studio, "F1")),
    ("go-to", SIZES, lambda studio: pressed(studio, "Control-k").sheet.field.set("d")),
    ("rooms", SIZES, lambda studio: conversation(studio).open_menu("Browse rooms…")),
    ("room-new", WIDTHS, lambda studio: answered(
        studio, "/join desing", "You made #desing. Nobody else is here yet.")),
    ("room-refused", SIZES, refused_room),
    ("room-password-wrong", SIZES, lambda studio: refused_room(studio, "wrong")),
    ("invite", SIZES, invite),
    ("invited", SIZES, invited),
    ("replaced", SIZES, replaced),
    ("topic", SIZES, lambda studio: conversation(studio).chat_view.edit_topic()),
    ("announcement", SIZES, announced),
    ("operator", SIZES, operator),
    ("mute", SIZES, lambda studio: operator(studio, "bob: Mute…")),
    ("ban", SIZES, lambda studio: operator(studio, "bob: Ban from the chat…")),
    ("bans", SIZES, lambda studio: operator(studio, "Bans and mutes…")),
    ("paste", SIZES, lambda studio: conversation(studio).paste("line\n" * 34)),
    ("bars", (*SIZES, (480, 360)), lambda studio: announced(studio).paste("line\n" * 34)),
    ("close", SIZES, lambda studio: lost(studio).close()),
    ("close-unfinished", SIZES, lambda studio: pressed(studio, text="It is right").close()),
    ("menu", SIZES[:1], lambda studio: conversation(studio).chat_view.people.list.canvas
        .event_generate("<Button-3>", x=30, y=91, rootx=240, rooty=200)),
    ("main-menu", SIZES, lambda studio: pressed(studio, "F10")),
    ("sidebar", SIZES[2:], lambda studio: narrow(
        studio, lambda alice: alice.window.menus.open_conversations())),
    ("leave-unfinished", SIZES, leave),
    ("people", SIZES[2:], lambda studio: narrow(
        studio, lambda alice: alice.chat_view.toggle_people())),
    ("crowd", SIZES, crowd),
    ("strange", SIZES, strange),
    ("encrypted", LOCKS, conversation),
    ("not-encrypted", LOCKS, lambda studio: conversation(studio, data="")),
    ("server", LOCKS, lambda studio: pressed(studio, "F2")),
    ("server-clear", LOCKS, lambda studio: conversation(studio, data="").press("F2")),
    ("connect-trust", SMALL + LOCKS, untrusted),
    ("zoom-200", SIZES, lambda studio: pressed(studio, *["Control-plus"] * 5)),
    ("zoom-80", SIZES, lambda studio: pressed(studio, *["Control-minus"] * 2)),
)  # fmt: skip


def photograph(name, sizes, state, folder):
    """Take the pictures of a state, reached anew for each theme: open menus keep their colors."""
    for theme in client.PALETTES:
        with contextlib.closing(Studio(theme)) as studio:
            state(studio)
            for size in sizes:
                studio.take(studio.alice, folder / ("%s-%s-%d.png" % (name, theme, size[0])), size)


def main(argv=None):
    """Take the pictures of all states or of some; return the number of states that failed."""
    parser = argparse.ArgumentParser(description="Take pictures of every state of the window.")
    parser.add_argument("folder", nargs="?", type=Path, help="default: a new temporary folder")
    parser.add_argument("--only", nargs="+", metavar="STATE", help="only these states")
    parser.add_argument("--dpi", type=int, default=96, help="resolution of the screen")
    parser.add_argument("--readme", action="store_true", help="update the README's pictures")
    args = parser.parse_args(argv)
    folder = args.folder or Path(tempfile.mkdtemp(prefix="hubbub-"))
    folder.mkdir(parents=True, exist_ok=True)
    if args.readme:
        args.only = ["typing"]
    states = [row for row in STATES if row[0] in (args.only or [row[0]])]
    is_alone = args.only is not None and len(args.only) == 1
    for state in states if is_alone else ():
        with contextlib.closing(Screen(args.dpi)):
            photograph(*state, folder)
    if args.readme:
        for theme, name in (("dark", "window.png"), ("light", "window-light.png")):
            shutil.copy(str(folder / ("typing-%s-1160.png" % theme)), str(README_FOLDER / name))
    if is_alone:
        return 0

    def run(row):  # a process for each state: Tk misbehaves after many windows
        command = [sys.executable, __file__, str(folder), "--dpi", str(args.dpi), "--only", row[0]]
        return subprocess.run(command).returncode

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        failed = [row[0] for row, code in zip(states, pool.map(run, states)) if code]
    print("The pictures are in %s%s" % (folder, "; failed: " + ", ".join(failed) if failed else ""))
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
