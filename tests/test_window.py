"""The window, as people see it: real windows on a virtual screen, real keys, real peers."""

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from client_harness import closed_port, dead_end
from harness import TIMEOUT
from window_harness import Heartbeat, cannot, told

import client
from client import FROM_ME, FROM_OTHERS, FROM_SERVER, NAME, PASSWORD, PRIVATE, SERVER

ROOT = Path(__file__).resolve().parent.parent


# Connecting


def test_the_window_asks_who_one_is_and_where_the_server_runs(desk):
    """At the start there are two fields, the name's has the focus, and the title is plain."""
    alice = desk.open()
    fields = alice.connect_view.fields
    assert alice.title == "Not connected — Hubbub"
    assert alice.has_focus(fields[NAME])
    desk.pump(lambda: fields[NAME].winfo_viewable())
    assert fields[SERVER].get() == "127.0.0.1"
    assert not fields[PASSWORD].winfo_viewable()


def test_enter_connects_and_shows_the_chat(desk, room):
    """A name, a server and Enter are all it takes; then the chat box has the focus."""
    alice = desk.open(room.server.port)
    alice.connect(name="alice")
    alice.sees("[SERVER]: alice joined the chat")
    assert alice.title == "Connected: alice @ Hubbub — Hubbub"
    assert alice.has_focus(alice.box)
    assert not alice.connect_view.frame.winfo_viewable()


@pytest.mark.parametrize(
    ("field", "texts", "rule"),
    [
        (NAME, {"name": ""}, "A username has 1 to 32 characters."),
        (NAME, {"name": "not a name"}, "A username is made of letters, digits, - and _"),
        (NAME, {"name": "server"}, "server is a reserved name."),
        (SERVER, {"name": "alice", "server": ""}, "A server is written as 192.168.1.20"),
        (SERVER, {"name": "alice", "server": "office:x"}, "A server is written as 192.168.1.20"),
    ],
)
def test_a_slip_is_shown_in_red_at_its_field(desk, field, texts, rule):
    """The rule stands at the field that breaks it, which has the focus; nothing is sent."""
    alice = desk.open()
    alice.connect(**texts)
    assert alice.wait_for_fault(field).startswith(rule)
    color = client.ttk.Style(alice.root).lookup("Error.TLabel", "foreground")
    assert str(color) == "#ff8a80"
    assert alice.has_focus(alice.connect_view.fields[field])


def test_a_taken_name_asks_for_another(desk, room):
    """The window asks again, with the reason; another name gets in."""
    bob = room.irc("alice")
    alice = desk.open(room.server.port, "alice", at_once=True)
    reason = "“alice” is already here. Try another name, for example alice2."
    assert alice.wait_for_fault(NAME) == reason
    assert alice.has_focus(alice.connect_view.fields[NAME])
    alice.connect(name="alice2")
    alice.sees("[SERVER]: alice2 joined the chat")
    bob.expect(" JOIN #lobby")


def test_a_password_is_asked_for_where_there_is_one(desk, open_room):
    """The field for it appears when the server wants it, and says when it was wrong."""
    alice = desk.open(open_room(password="sesame").server.port, "alice", at_once=True)
    assert alice.wait_for_fault(PASSWORD) == "This server asks for a password."
    alice.connect(password="wrong")
    wrong = "Wrong password."
    desk.pump(lambda: alice.connect_view.hints[PASSWORD].cget("text") == wrong)
    alice.connect(password="sesame")
    alice.sees("[SERVER]: alice joined the chat")


def test_nobody_listening_is_shown_with_the_address(desk):
    """The words say where one looked, and what to start there."""
    with closed_port() as port:
        alice = desk.open(port, "alice", at_once=True)
        reason = "Nothing is listening at 127.0.0.1:%d. Is server.py running there?" % port
        assert alice.wait_for_fault(SERVER) == reason
        assert alice.has_focus(alice.connect_view.fields[SERVER])


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse where Linux lets wait")
def test_no_answer_is_shown_after_a_while(desk, monkeypatch):
    """A machine that does not answer is waited for as long as CONNECT_TIME says."""
    monkeypatch.setattr(client, "CONNECT_TIME", 0.5)
    with dead_end() as port:
        alice = desk.open(port, "alice", at_once=True)
        assert alice.wait_for_fault(SERVER).startswith("Nothing answered at 127.0.0.1:%d" % port)


def test_the_window_lives_while_it_connects(desk, hub):
    """A server that takes its time freezes nothing; Esc calls the attempt off."""
    alice = desk.open(hub.port, "alice", at_once=True)
    heart = Heartbeat(alice.root)
    desk.pump(lambda: heart.beats > 20)
    assert alice.title.startswith("Connecting to 127.0.0.1:")
    alice.press("Escape")
    assert alice.title == "Not connected — Hubbub"
    assert alice.connect_view.fields[NAME].instate(["!disabled", "!invalid"])


def test_the_connect_view_is_walked_through_by_keys(desk, room):
    """Tab goes through what can be used, in order, and back; Enter and arrows use it."""
    port = room.server.port
    settings = client.Settings(client.settings_path())
    settings.servers = ["127.0.0.1:%d" % port, "office.example"]
    settings.save()
    alice = desk.open(port)
    view = alice.connect_view
    walk = [view.fields[NAME], view.list.canvas, view.other, view.button, view.fields[NAME]]
    for widget, after in zip(walk, walk[1:]):
        assert alice.has_focus(widget)
        alice.press("Tab")
        assert alice.has_focus(after)
    for widget in walk[-2::-1]:
        alice.press("Shift-Tab")
        assert alice.has_focus(widget)
    alice.press("Tab")
    alice.press("Down")
    alice.press("Return")
    assert view.fields[SERVER].get() == "office.example"
    alice.press("Up")
    alice.press("Return")
    assert view.fields[SERVER].get() == "127.0.0.1:%d" % port
    view.other.invoke()
    desk.pump(lambda: alice.has_focus(view.fields[SERVER]) and not view.other.winfo_ismapped())
    alice.press("Home", view.list.canvas)
    alice.press("Return")
    desk.pump(view.other.winfo_ismapped)
    alice.fill(name="alice")
    alice.press("Return", view.list.canvas)
    alice.sees("[SERVER]: alice joined the chat")


# Talking


def test_a_conversation_between_windows_and_other_clients(desk, room):
    """Two windows, a person with nc and an IRC client each see exactly what is for them."""
    carol, erin = room.plain("carol"), room.irc("erin")
    alice = desk.join(room.server.port, "alice")
    bob = desk.join(room.server.port, "bob")
    alice.sees("[SERVER]: bob joined the chat")
    carol.heard()
    erin.heard()
    before = len(alice.lines), len(bob.lines)

    for text, answer in [
        ("Hello everyone!", "[alice]: Hello everyone!"),
        ("@bob Hello Bob!", "[you -> bob]: Hello Bob!"),
        ("/me waves", "* alice waves"),
        ("/list", "[SERVER]: Online users (4): alice, bob, carol, erin"),
        ("@dave hi", "[SERVER]: No such user: dave"),
    ]:
        alice.say(text)
        alice.sees(answer)
    bob.say("@alice Hello Alice!")
    bob.sees("[you -> alice]: Hello Alice!")
    carol.send("Hello from nc")
    erin.send("PRIVMSG #lobby :Hello from IRC")
    for window in (alice, bob):
        window.sees("[carol]: Hello from nc")
        window.sees("[erin]: Hello from IRC")

    assert alice.lines[before[0] :][:7] == [
        "[alice]: Hello everyone!",
        "[you -> bob]: Hello Bob!",
        "* alice waves",
        "[SERVER]: Online users (4): alice, bob, carol, erin",
        "[you -> dave]: hi  (not delivered)   Try again  ·  Discard",
        "[SERVER]: No such user: dave",
        "[bob -> you]: Hello Alice!",
    ]
    assert bob.lines[before[1] :][:4] == [
        "[alice]: Hello everyone!",
        "[alice -> you]: Hello Bob!",
        "* alice waves",
        "[you -> alice]: Hello Alice!",
    ]
    assert len(alice.lines) == before[0] + 9
    assert len(bob.lines) == before[1] + 6
    heard = ["[alice]: Hello everyone!", "* alice waves", "[carol]: Hello from nc"]
    assert [line for line in carol.heard() if "erin" not in line] == heard
    assert [line.partition(" PRIVMSG ")[2] for line in erin.heard()] == [
        "#lobby :Hello everyone!", "#lobby :\x01ACTION waves\x01", "#lobby :Hello from nc",
    ]  # fmt: skip


def test_each_kind_of_line_has_its_colour(alice, hub):
    """The server speaks in blue, one's own words are green, those of others are white."""
    told(hub, alice, "from bob")
    hub.send(
        ":bob!b@h JOIN #lobby", ":alice!a@h PRIVMSG #lobby :from me", ":bob!b@h PRIVMSG alice :psst"
    )
    alice.sees("[bob -> you]: psst")
    assert alice.kind_of("[SERVER]: bob joined the chat") == (FROM_SERVER, "#6cb6ff")
    assert alice.kind_of("[alice]: from me") == (FROM_ME, "#7ee0a1")
    assert alice.kind_of("[bob]: from bob") == (FROM_OTHERS, "#f2f4f8")
    assert alice.kind_of("[bob -> you]: psst") == (PRIVATE, "#d3adff")


def test_the_title_tells_the_state(desk, hub):
    """Connecting, connected, renamed and disconnected can be read without a look inside."""
    alice = desk.open(hub.port, "alice", at_once=True)
    alice.wait_for_title("Connecting to 127.0.0.1:%d… — Hubbub" % hub.port)
    hub.welcome()
    alice.wait_for_title("Connected: alice @ Hub — Hubbub")
    hub.send(":alice!a@h NICK alicia")
    alice.wait_for_title("Connected: alicia @ Hub — Hubbub")
    hub.finish()
    alice.wait_for_title("Reconnecting… — Hub — Hubbub")


# The chat box


def test_enter_sends_and_empties_the_box(alice, hub):
    """What stood in the box goes out as one line."""
    alice.say("Hello!")
    hub.expect("PRIVMSG #lobby :Hello!")
    assert alice.box.get("1.0", "end") == "\n"


def test_shift_enter_begins_a_line(alice, hub):
    """Nothing is sent until Enter; then each line is a message."""
    alice.write("one")
    alice.press("Shift-Return", alice.box)
    assert alice.box.get("1.0", "end-1c") == "one\n"
    alice.say("two")
    hub.expect("PRIVMSG #lobby :one")
    hub.expect("PRIVMSG #lobby :two")


def test_a_paste_of_three_lines_goes_out_as_three(alice, hub):
    """Line by line, in order, after Enter."""
    alice.paste("one\ntwo\r\nthree")
    assert alice.box.get("1.0", "end-1c") == "one\ntwo\nthree"
    alice.press("Return", alice.box)
    assert hub.until("three")[-3:] == ["PRIVMSG #lobby :%s" % n for n in ("one", "two", "three")]


def test_a_huge_paste_is_cut_and_does_not_freeze(alice, desk):
    """A megabyte in the clipboard leaves MAX_PASTE characters in the box."""
    heart = Heartbeat(alice.root)
    alice.paste("x" * 1_000_000)
    desk.pump(lambda: heart.beats > 5)
    assert len(alice.box.get("1.0", "end-1c")) == client.MAX_PASTE
    assert heart.freeze < 0.5


def test_a_slip_is_answered_and_stays_in_the_box(alice):
    """What cannot be sent is not taken away from its writer."""
    alice.say("/foo bar")
    alice.sees("[SERVER]: Unknown command: /foo. Type /help for the list.")
    assert alice.box.get("1.0", "end-1c") == "/foo bar"


def test_keys_typed_in_the_transcript_go_to_the_box(alice, desk):
    """Wherever one has clicked, one can write on; the transcript itself does not change."""
    before = alice.lines
    alice.press("Key-h", alice.text)
    desk.pump(lambda: alice.box.get("1.0", "end-1c") == "h")
    assert alice.has_focus(alice.box)
    assert alice.lines == before


@pytest.mark.parametrize("system, state, typed", [("win32", 8, "x"), ("x11", 8, "")])
def test_what_means_alt_here_is_num_lock_elsewhere(alice, system, state, typed):
    """With Num Lock one types in the transcript, too; with Alt one does not."""
    alice.window.look.system = system
    alice.text.focus_force()
    alice.text.event_generate("<x>", state=state)
    assert alice.box.get("1.0", "end-1c") == typed


def test_quit_closes_the_window(alice, desk, hub):
    """/quit says goodbye and ends the program."""
    alice.say("/quit see you")
    desk.pump(lambda: alice.window.root is None)
    hub.expect("QUIT :see you")


def test_closing_the_window_says_goodbye(alice, hub):
    """The server hears QUIT, and no thread of ours is left."""
    alice.close()
    assert alice.window.root is None
    assert "receive" not in [thread.name for thread in threading.enumerate()]
    assert [line for line in hub.rest() if line.startswith("QUIT")]


# When the connection is lost


# A server that is no friend


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("emoji 😀 👍🏽".encode(), "emoji 😀 👍🏽"),
        (b"half \xed\xa0\xbd", "half \ufffd\ufffd\ufffd"),
        ("\u202eexe.gpj".encode(), "exe.gpj"),
        (b"\x1b[31mred", "[31mred"),
        (b"{braces} $dollar [exit] \\", "{braces} $dollar [exit] \\"),
        (("e" + "\u0301" * 200).encode(), "é" + "\u0301" * 3),
    ],
)
def test_strange_text_is_shown_or_left_out_and_the_window_lives(alice, hub, sent, shown):
    """Text that breaks Tk, or fools people, is made harmless; the next line arrives too."""
    hub.send_bytes(b":bob!b@h PRIVMSG #lobby :" + sent + b"\r\n")
    told(hub, alice, "next")
    assert alice.lines[-2] == "[bob]: " + shown


@pytest.mark.parametrize("noise", [b"PRIVMSG #lobby :a\0b", b"PRIVMSG #lobby :" + b"x" * 100_000])
def test_what_is_no_message_takes_nothing_else_away(alice, desk, hub, noise):
    """A NUL or a line without measure is dropped; what came with it is shown, at once."""
    heart = Heartbeat(alice.root)
    one, two = b":bob!b@h PRIVMSG #lobby :one\r\n", b":bob!b@h PRIVMSG #lobby :two\r\n"
    hub.send_bytes(one + b":bob!b@h " + noise + b"\r\n" + two)
    alice.sees("[bob]: two")
    assert alice.lines[-2:] == ["[bob]: one", "[bob]: two"]
    desk.pump(lambda: heart.beats > 5)
    assert heart.freeze < 0.2


@pytest.mark.parametrize("name", ["", "x" * 300, "😀" * 9, "\u202ebob", "{[$"])
def test_strange_names_do_not_stop_the_list(alice, desk, hub, name):
    """Whatever a server calls somebody, the list of people is drawn and goes on."""
    hub.send(":%s!u@h JOIN #lobby" % name, ":hub 353 alice = #lobby :alice @%s" % name)
    hub.send(":hub 366 alice #lobby :End", ":carol!c@h JOIN #lobby")
    desk.pump(lambda: "carol" in alice.people)
    told(hub, alice, "next")
    drawn = alice.chat_view.people.list.canvas.find_all()
    hub.send(":dave!d@h JOIN #lobby")
    desk.pump(lambda: alice.chat_view.people.list.canvas.find_all() != drawn)


def test_a_long_line_wraps_and_does_not_freeze(alice, desk, hub):
    """The longest line that can come is shown whole, without a word break too."""
    heart = Heartbeat(alice.root)
    told(hub, alice, "W" * 450)
    told(hub, alice, "word " * 90 + "end")
    desk.pump(lambda: heart.beats > 5)
    assert heart.freeze < 0.2


def test_a_mistake_of_ours_does_not_end_the_window(alice, desk, hub, monkeypatch, caplog):
    """Where handling one event raises, it is logged, and the next one is shown."""
    monkeypatch.setattr(client, "log", logging.getLogger("elsewhere"))
    alice.root.report_callback_exception = alice.window.log_error
    handle = alice.window.chat.handle

    def fail(event, now):
        alice.window.chat.handle = handle
        raise RuntimeError("a mistake on purpose")

    alice.window.chat.handle = fail
    hub.send("PONG first")
    desk.pump(lambda: "a mistake on purpose" in caplog.text)
    told(hub, alice, "still here")


def test_what_cannot_be_carried_out_hides_nothing(alice, desk, hub, monkeypatch, caplog):
    """What has come together is shown, though what follows from it cannot be sent."""
    monkeypatch.setattr(client, "log", logging.getLogger("elsewhere"))
    alice.root.report_callback_exception = alice.window.log_error
    connection = alice.window._connection
    carry_out = connection.carry_out

    def fail(outcome):
        connection.carry_out = carry_out
        raise ValueError("a mistake on purpose")

    connection.carry_out = fail
    told(hub, alice, "the first")
    assert "a mistake on purpose" in caplog.text
    told(hub, alice, "the second")


def test_a_flood_does_not_freeze_the_window(alice, desk, hub):
    """20,000 messages at once leave time for keys, and no more lines than one scrolls through."""
    heart = Heartbeat(alice.root)
    lines = "".join(":bob!b@h PRIVMSG #lobby :message %d\r\n" % n for n in range(20000))
    # The thread that sends waits for the window; this one must not.
    sender = threading.Thread(target=hub.send_bytes, args=(lines.encode(),))
    sender.start()
    alice.write("typed meanwhile")
    desk.pump(lambda: alice.lines[-1].endswith("message 19999"))
    sender.join()
    assert heart.freeze < 0.2
    assert heart.silence < 2
    most = client.Transcript.MAX_SHOWN
    assert len(alice.lines) <= most + 1  # the day has a line too
    assert alice.text.yview()[1] == 1.0
    assert alice.box.get("1.0", "end-1c") == "typed meanwhile"


@pytest.mark.parametrize("count", [500, 2000])
def test_a_view_that_was_scrolled_up_does_not_jump(alice, desk, hub, count):
    """Who reads what was said earlier is left in peace, though old lines are let go."""
    for start in range(0, count, 500):
        hub.send(*[":bob!b@h PRIVMSG #lobby :line %d" % n for n in range(start, start + 500)])
        alice.sees("[bob]: line %d" % (start + 499))
    alice.text.yview_moveto(0.7)
    desk.update()
    seen = alice.top_line()
    told(hub, alice, "news")
    desk.update()
    assert alice.top_line() == seen
    alice.text.yview_moveto(1.0)
    told(hub, alice, "more news")
    desk.update()
    assert alice.text.yview()[1] == 1.0  # who was at the end stays there


def test_what_comes_before_a_scroll_is_drawn_finds_the_view_where_it_is(alice, desk, hub):
    """Tk tells late of a scroll: nobody is torn away from a line, nor misses the end."""
    hub.send(*[":bob!b@h PRIVMSG #lobby :line %d" % number for number in range(300)])
    alice.sees("[bob]: line 299")
    desk.update()
    window, news = alice.window, client.Message("PRIVMSG", ("#lobby", "news"), "bob!b@h")
    for place, is_at_end in ((0.5, False), (1.0, True), (0.9, False), (1.0, True)):
        alice.text.yview_moveto(place)
        seen = alice.top_line()
        window.do(window.chat.handle, news)
        desk.update()
        assert (alice.text.yview()[1] == 1.0) == is_at_end
        assert (alice.top_line() == seen) != is_at_end


# The whole program

OPEN = """
import sys, time
sys.path.insert(0, sys.argv[1])
import client, tkinter
settings = client.Settings(client.settings_path())
window = client.Window(tkinter.Tk(), settings)
def pump(condition):
    deadline = time.monotonic() + 10
    while not condition():
        window.root.update()
        assert time.monotonic() < deadline
text = window.chat_view.transcript.text
box = window.chat_view.composer.text
window.start("127.0.0.1", int(sys.argv[2]), "alice", True)
"""

SHOW_EMOJI = (
    OPEN
    + """
pump(lambda: "afterwards" in text.get("1.0", "end"))
box.insert("end", "seen")
box.focus_force()
pump(lambda: window.root.focus_get() is box)
box.event_generate("<Return>")
pump(lambda: "[alice]: seen" in text.get("1.0", "end"))
window.close()
"""
)

EDIT_EMOJI = (
    OPEN
    + r"""
import random
pump(lambda: window.chat_view.people.list.rows)
chance = random.Random(1)
moves = ["<BackSpace>", "<Delete>", "<Left>", "<Right>", "<Shift-Left>", "<Home>", "<Control-a>"]
box.focus_force()
pump(lambda: window.root.focus_get() is box)
for _ in range(1500):
    if chance.random() < 0.5:
        box.insert("insert", chance.choice(["\U0001f600", "\U0001f44d\U0001f3fd", "e\u0301", "a "]))
    else:
        box.event_generate(chance.choice(moves))
    window.root.update()
box.insert("end", "seen")
box.event_generate("<Return>")
window.root.update()
window.close()
"""
)


@contextlib.contextmanager
def run_script(python, script, hub):
    """Start a script that opens a window on the hub; a crash of Tk is its, not ours."""
    command = [str(python), "-c", script, str(ROOT), str(hub.port)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def end_of(process):
    """Exit code and stderr."""
    _, errors = process.communicate(timeout=TIMEOUT)
    return process.returncode, errors.decode()


def python_3_6():
    """The oldest Python that we promise, with tkinter."""
    versions = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    found = [shutil.which("python3.6"), *sorted(versions.glob("3.6*/bin/python"))]
    for python in filter(None, found):
        check = [str(python), "-c", "import sys, tkinter; sys.exit(sys.version_info[:2] != (3, 6))"]
        if subprocess.run(check, stderr=subprocess.DEVNULL).returncode == 0:
            return python
    return pytest.skip("there is no Python 3.6 with tkinter here")


@pytest.mark.parametrize("python", [sys.executable, "3.6"], ids=["this", "oldest"])
def test_emoji_are_shown_by_the_oldest_python_too(screen, hub, python):
    """A line, a name and a topic with emoji pass; the window goes on to what follows."""
    strange = [":😀!b@h JOIN #lobby", ":b!b@h TOPIC #lobby :😀", ":b!b@h PRIVMSG #lobby :😀 first"]
    with run_script(python_3_6() if python == "3.6" else python, SHOW_EMOJI, hub) as process:
        hub.welcome()
        hub.send(*strange, ":bob!b@h PRIVMSG #lobby :afterwards")
        hub.expect("PRIVMSG #lobby :seen")
        hub.send(":alice!a@h PRIVMSG #lobby :seen")
        hub.rest()
        assert end_of(process) == (0, "")


def test_editing_emoji_in_the_chat_box_does_not_crash(screen, hub):
    """Tk's entry fields do crash on this: the chat box must not be one."""
    with run_script(sys.executable, EDIT_EMOJI, hub) as process:
        hub.welcome()
        assert any(line.startswith("PRIVMSG") for line in hub.rest())
        assert end_of(process) == (0, "")


def test_an_address_that_was_pasted_by_mouse_can_be_connected_to(desk):
    """The button knows what stands in the field, whatever put it there."""
    alice = desk.open()
    alice.fill(server="")
    desk.update()
    assert alice.connect_view.button.instate(["disabled"])
    alice.root.clipboard_clear()
    alice.root.clipboard_append("office")
    alice.connect_view.fields[SERVER].event_generate("<<Paste>>")
    desk.update()
    assert alice.connect_view.button.cget("text") == "Connect to office"
    assert alice.connect_view.button.instate(["!disabled"])


def test_the_connect_fields_refuse_emoji(desk):
    """Neither a name nor an address has any, and Tk's entry fields cannot edit them."""
    alice = desk.open()
    field = alice.connect_view.fields[NAME]
    field.insert("end", "😀")
    assert field.get() == ""
    field.insert("end", "élodie")
    assert field.get() == "élodie"


class Program:
    """client.py as people start it, and a hand at its keyboard."""

    def __init__(self, *args):
        if not shutil.which("xdotool"):
            cannot("there is no xdotool here")
        self._manager = None
        if shutil.which("openbox"):
            self._manager = subprocess.Popen(["openbox"], stderr=subprocess.DEVNULL)
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "client.py"), *args], stderr=subprocess.PIPE
        )

    def find(self, title):
        """Wait for a window of this title, and put the keyboard into it."""
        command = ["xdotool", "search", "--sync", "--onlyvisible", "--name", title]
        subprocess.run([*command, "windowfocus", "--sync"], check=True, timeout=TIMEOUT)

    def type(self, *words):
        """Text, and keys in angle brackets."""
        for word in words:
            action = ["key", word[1:-1]] if word[:1] == "<" else ["type", "--delay", "5", word]
            subprocess.run(["xdotool", *action], check=True, timeout=TIMEOUT)

    def close(self):
        for process in (self.process, self._manager):
            if process is not None:
                process.kill()
                process.wait()
        self.process.stderr.close()


@pytest.fixture
def start(screen):
    """Starts the whole program."""
    with contextlib.ExitStack() as stack:
        yield lambda *args: stack.enter_context(contextlib.closing(Program(*args)))


def test_the_program_chats_with_real_keys(start, room):
    """Started with a server and a name it connects at once; one types, and is heard."""
    bob = room.irc("bob")
    program = start("127.0.0.1:%d" % room.server.port, "--username", "alice")
    program.find("^Connected: alice @ Hubbub")
    program.type("Hello @bob: 1/2?", "<Return>", "@bob psst", "<Return>")
    bob.expect(":alice!alice@127.0.0.1 PRIVMSG #lobby :Hello @bob: 1/2?")
    bob.expect(":alice!alice@127.0.0.1 PRIVMSG bob :psst")
    program.type("/quit", "<Return>")
    assert end_of(program.process) == (0, "")
    bob.expect(" QUIT Quit")


def test_the_program_asks_and_can_be_used_without_a_mouse(start, room):
    """Name, Tab, server, Enter; and a signal from the system ends it in order."""
    bob = room.irc("bob")
    program = start()
    program.find("^Not connected")
    program.type("alice", "<Tab>", "127.0.0.1:%d" % room.server.port, "<Return>")
    bob.expect(":alice!alice@127.0.0.1 JOIN #lobby")
    program.find("^Connected: alice @ Hubbub")
    program.process.send_signal(signal.SIGTERM)
    assert end_of(program.process) == (0, "")
    bob.expect(" QUIT Quit")


def test_the_program_offers_the_name_and_the_server_of_the_last_time(start, room):
    """Who comes back to the room presses Enter, and is there."""
    bob = room.irc("bob")
    settings = client.Settings(client.settings_path())
    settings.name, settings.servers = "alice", ["127.0.0.1:%d" % room.server.port, "office"]
    settings.save()
    program = start()
    program.find("^Not connected")
    program.type("<Return>")
    bob.expect(":alice!alice@127.0.0.1 JOIN #lobby")


# The end of the conversation stays in view


def fill(hub, alice, desk):
    """So many lines that they do not fit; the last is in view."""
    hub.send(*(":bob!b@h PRIVMSG #lobby :line %d" % number for number in range(200)))
    alice.sees("[bob]: line 199")
    desk.update()
    assert alice.text.yview()[1] == 1.0


def end_of_view(desk, alice):
    for _ in range(20):
        desk.update()
    return alice.text.yview()[1]


def test_the_end_stays_in_view_when_the_window_changes(alice, desk, hub):
    """Larger or smaller, the last line is what one sees."""
    fill(hub, alice, desk)
    for size in ("700x400", "480x360", "1000x700"):
        alice.root.geometry(size)
        assert end_of_view(desk, alice) == 1.0


def test_the_end_stays_in_view_when_the_chat_box_grows(alice, desk, hub):
    """A paste of several lines hides nothing that is said."""
    fill(hub, alice, desk)
    alice.paste("a\nb\nc\nd\ne")
    assert end_of_view(desk, alice) == 1.0
    told(hub, alice, "news")
    assert end_of_view(desk, alice) == 1.0


def test_the_end_stays_in_view_under_the_banner(alice, desk, hub):
    """One sees that the connection was lost."""
    fill(hub, alice, desk)
    hub.finish()
    desk.pump(lambda: alice.banner)
    assert end_of_view(desk, alice) == 1.0


def test_who_scrolled_up_stays_there_until_they_speak(alice, desk, hub):
    """News moves nothing; one's own words are shown."""
    fill(hub, alice, desk)
    alice.text.yview_moveto(0.2)
    desk.update()
    told(hub, alice, "news")
    assert end_of_view(desk, alice) < 0.5
    alice.paste("/help")
    alice.press("Return", alice.box)
    assert end_of_view(desk, alice) == 1.0
