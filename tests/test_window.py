"""The window as people use it: real windows on a virtual screen, real keys, real servers."""

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from client_harness import closed_port, dead_end
from harness import TIMEOUT
from window_harness import Heartbeat, cannot, hear

import client
from client import NAME, PASSWORD, SERVER

ROOT = Path(__file__).resolve().parent.parent


# Connecting


def test_start_asks_for_name_and_server(desktop):
    alice = desktop.open()
    fields = alice.connect_view.fields
    assert alice.title == "Not connected — Hubbub"
    assert alice.has_focus(fields[NAME])
    desktop.pump(lambda: fields[NAME].winfo_viewable())
    assert fields[SERVER].get() == "127.0.0.1"
    assert not fields[PASSWORD].winfo_viewable()


def test_enter_connects_and_shows_the_chat(desktop, room):
    alice = desktop.open(room.server.port)
    alice.connect(name="alice")
    alice.sees("[SERVER]: alice joined the chat")
    assert alice.title == "Connected: alice @ Hubbub — Hubbub"
    assert alice.has_focus(alice.box)
    assert not alice.connect_view.frame.winfo_viewable()


@pytest.mark.parametrize(
    ("field", "texts", "rule"),
    [
        (NAME, {"name": ""}, "Type a name first."),
        (NAME, {"name": "not a name"}, "A name has no spaces. How about not-a-name?"),
        (NAME, {"name": "server"}, "server is a reserved name."),
        (SERVER, {"name": "alice", "server": ""}, "Choose a server, or type its address."),
        (SERVER, {"name": "alice", "server": "office:x"}, "A server is written as 192.168.1.20"),
    ],
)
def test_invalid_input_is_explained_in_red_at_its_field(desktop, field, texts, rule):
    alice = desktop.open()
    alice.connect(**texts)
    assert alice.wait_for_error(field).startswith(rule)
    color = client.ttk.Style(alice.root).lookup("Error.TLabel", "foreground")
    assert str(color) == "#ff8a80"
    entry, hint = alice.connect_view.fields[field], alice.connect_view.hints[field]
    assert alice.has_focus(entry)
    alice.press("x")
    assert entry.instate(["!invalid"]) and hint.cget("text") == alice.connect_view.HINTS[field]


def test_taken_name_asks_for_another(desktop, room):
    bob = room.irc("alice")
    alice = desktop.open(room.server.port, "alice", at_once=True)
    error = "“alice” is already here. Try another name, for example alice2."
    assert alice.wait_for_error(NAME) == error
    assert alice.has_focus(alice.connect_view.fields[NAME])
    alice.connect(name="alice2")
    alice.sees("[SERVER]: alice2 joined the chat")
    bob.expect(" JOIN #lobby")


def test_own_name_that_another_window_holds_is_taken_over_by_its_password(
    desktop, open_room, tmp_path
):
    """A name that is wrong in itself brings up no password field."""
    room = open_room(data=str(tmp_path))
    before = desktop.join(room.server.port, "alice")
    before.say("/register opensesame")
    desktop.pump(lambda: room.server.store.account("alice"))
    alice = desktop.open(room.server.port)
    field = alice.connect_view.fields[PASSWORD]
    alice.connect(name="not a name")
    assert alice.wait_for_error(NAME) and not field.winfo_ismapped()
    alice.connect(name="alice")
    assert alice.wait_for_question(PASSWORD).startswith("“alice” is registered. If it is yours, ")
    alice.connect(password="wrong")
    assert alice.wait_for_error(PASSWORD) == "Wrong password."
    assert alice.has_focus(field)
    alice.connect(password="opensesame")
    alice.sees("[SERVER]: alice joined the chat")
    assert before.wait_for_error(PASSWORD) == "alice has logged in elsewhere"
    assert before.connect_view.fields[PASSWORD].winfo_viewable()


def test_password_is_asked_for_if_the_server_has_one(desktop, open_room):
    """The first request is no error, also after a password for another server."""
    alice = desktop.open(open_room(password="sesame").server.port, "alice", at_once=True)
    words = "This server asks for a password. The host can tell you."
    assert alice.wait_for_question(PASSWORD) == words
    for wrong in ("wrong", "two\nlines"):  # as it can be pasted
        alice.connect(password=wrong)
        assert alice.wait_for_error(PASSWORD) == "Wrong password."
    alice.connect(server="127.0.0.1:%d" % open_room(password="other").server.port)
    assert alice.wait_for_question(PASSWORD) == words
    alice.connect(password="other")
    alice.sees("[SERVER]: alice joined the chat")


@pytest.mark.parametrize("field", [NAME, SERVER, PASSWORD])
def test_enter_in_any_field_connects(desktop, open_room, field):
    alice = desktop.open(open_room(password="sesame").server.port, "alice", at_once=True)
    alice.wait_for_question(PASSWORD)
    alice.connect_view._show_field(SERVER, True)
    alice.fill(password="sesame")
    alice.press("Return", alice.connect_view.fields[field])
    alice.sees("[SERVER]: alice joined the chat")


def test_list_of_servers_keeps_its_size_when_fields_appear(desktop):
    """With the gap below it used up by both."""
    alice = desktop.open()
    view = alice.connect_view
    alice.window.settings.servers[:] = ["office", "lab", "hub"]
    view.fill("alice", "office")
    desktop.update()
    height = view.list.canvas.winfo_height()
    assert height >= 3 * 52
    view.other.invoke()
    for field in (SERVER, PASSWORD):
        desktop.pump(view.fields[field].winfo_viewable)
        assert view.list.canvas.winfo_height() == height
        assert view._head.canvas.winfo_viewable()
        view.show_error(PASSWORD, "Wrong password.")


def test_password_is_sent_to_the_server_that_asked_for_it_alone(desktop, open_room, hub):
    alice = desktop.open(open_room(password="sesame").server.port, "alice", at_once=True)
    alice.wait_for_question(PASSWORD)
    alice.connect(password="sesame!", server="127.0.0.1:%d" % hub.port)
    hub.accept()
    assert hub.line() == "CAP LS :302"


def test_refused_connection_is_shown_with_the_address(desktop):
    with closed_port() as port:
        alice = desktop.open(port, "alice", at_once=True)
        error = "Nothing is listening at 127.0.0.1:%d. Is server.py running there?" % port
        assert alice.wait_for_error(SERVER) == error


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse where Linux waits")
def test_connecting_times_out(desktop, monkeypatch):
    monkeypatch.setattr(client, "CONNECT_TIME", 0.5)
    with dead_end() as port:
        alice = desktop.open(port, "alice", at_once=True)
        assert alice.wait_for_error(SERVER).startswith("Nothing answered at 127.0.0.1:%d" % port)


def test_escape_cancels_connecting(desktop, hub):
    """A slow server freezes nothing."""
    alice = desktop.open(hub.port, "alice", at_once=True)
    heart = Heartbeat(alice.root)
    desktop.pump(lambda: heart.beats > 20)
    assert alice.title.startswith("Connecting to 127.0.0.1:")
    alice.press("Escape")
    assert alice.title == "Not connected — Hubbub"
    assert alice.connect_view.fields[NAME].instate(["!disabled", "!invalid"])


def test_hint_says_that_escape_goes_back_from_the_password(desktop, open_room):
    """As soon as it is asked for, by a server in the list."""
    room = open_room()
    room.server.store.add_account("alice", "opensesame", False)
    desktop.join(room.server.port, "bob").close()
    alice = desktop.open(room.server.port, "alice", at_once=True)
    alice.wait_for_question(PASSWORD)
    assert "Esc to go back" in alice.connect_view._keys.cget("text")
    alice.press("Escape")
    assert not alice.connect_view.fields[PASSWORD].winfo_viewable()


def test_escape_closes_and_undoes_before_it_quits(desktop, monkeypatch):
    """First the fields that are open, then a name that was typed."""
    monkeypatch.setenv("HUBBUB_FIND", "127.0.0.1:9")
    alice = desktop.open(name="al")
    view = alice.connect_view
    alice.fill(server="")
    view.open_form(False)
    alice.fill(name="alice")
    view.other.invoke()
    assert "192.168" in view.hints[SERVER].cget("text")
    alice.fill(server="10.0.0.7")
    desktop.pump(lambda: "Esc to go back" in view._keys.cget("text"))
    alice.press("Escape", view.fields[SERVER])
    assert not view.fields[SERVER].winfo_viewable() and view.fields[SERVER].get() == ""
    assert view.fields[NAME].get() == "alice" and alice.has_focus(view.fields[NAME])
    alice.press("Escape")
    assert view.fields[NAME].get() == "al" and alice.window.root is not None
    desktop.pump(lambda: "Esc to quit" in view._keys.cget("text"))
    for name, words in (("alice", "Esc to undo the name"), ("al", "Esc to quit")):
        alice.fill(name=name)
        desktop.pump(lambda words=words: words in view._keys.cget("text"))
    view.fill("", "")
    alice.fill(name="alice")
    desktop.pump(lambda: "Esc to clear the name" in view._keys.cget("text"))
    alice.press("Escape", view.fields[NAME])
    assert view.fields[NAME].get() == "" and alice.window.root is not None
    alice.press("Escape")
    assert alice.window.root is None


def test_connect_view_works_by_keyboard(desktop, room):
    """Tab goes through the widgets in order, and back; arrows choose in the list, Enter joins."""
    port = room.server.port
    settings = client.Settings(client.settings_path())
    settings.servers = ["127.0.0.1:%d" % port, "office.example"]
    settings.save()
    alice = desktop.open(port)
    view = alice.connect_view
    walk = [view.fields[NAME], view.list.canvas, view.button, view.host, view.other]
    walk.append(walk[0])
    for widget, after in zip(walk, walk[1:]):
        assert alice.has_focus(widget)
        alice.press("Tab")
        assert alice.has_focus(after)
    for widget in walk[-2::-1]:
        alice.press("Shift-Tab")
        assert alice.has_focus(widget)
    for key, chosen in (("Down", "office.example"), ("Up", "127.0.0.1:%d" % port)):
        alice.press(key, view.list.canvas)
        assert view.fields[SERVER].get() == chosen
    view.other.invoke()
    desktop.pump(lambda: alice.has_focus(view.fields[SERVER]) and not view.other.winfo_ismapped())
    view.show_error(PASSWORD, "Wrong password")
    desktop.pump(lambda: alice.has_focus(view.fields[PASSWORD]))
    walk = [view.fields[NAME], view.list.canvas, view.fields[SERVER], view.fields[PASSWORD]]
    for widget in [view.host, view.button, *walk[::-1]]:
        alice.press("Shift-Tab", None if widget is not view.host else view.fields[NAME])
        assert alice.has_focus(widget)
    alice.press("Home", view.list.canvas)
    desktop.pump(view.other.winfo_ismapped)
    alice.fill(name="alice")
    alice.press("Return", view.list.canvas)
    alice.sees("[SERVER]: alice joined the chat")


def test_address_pasted_by_mouse_is_named_on_the_button(desktop):
    alice = desktop.open()
    alice.fill(server="")
    desktop.update()
    assert alice.connect_view.button.cget("text") == "Connect"
    alice.root.clipboard_clear()
    alice.root.clipboard_append("office")
    alice.connect_view.fields[SERVER].event_generate("<<Paste>>")
    desktop.update()
    assert alice.connect_view.button.cget("text") == "Connect to office"
    assert alice.connect_view.button.instate(["!disabled"])


def test_connect_fields_refuse_emoji(desktop):
    """Tk's entry fields crash when emoji are edited."""
    field = desktop.open().connect_view.fields[NAME]
    field.insert("end", "😀")
    assert field.get() == ""
    field.insert("end", "élodie")
    assert field.get() == "élodie"


# Talking


def test_windows_and_other_clients_see_what_is_for_them(desktop, room):
    """Two windows, a person with nc and an IRC client talk."""
    carol, erin = room.plain("carol"), room.irc("erin")
    alice = desktop.join(room.server.port, "alice")
    bob = desktop.join(room.server.port, "bob")
    alice.sees("[SERVER]: bob joined the chat")
    carol.heard()
    erin.heard()
    before = len(alice.lines), len(bob.lines)

    for text, answer in [
        ("Hello everyone!", "[alice]: Hello everyone!"),
        ("@bob Hello Bob!", "[you -> bob]: Hello Bob!  (only you two)"),
        ("/me waves", "* alice waves"),
        ("/list", "[SERVER]: Online users (4): alice, bob, carol, erin  (only you)"),
        ("@dave hi", "[SERVER]: No such user: dave  (only you)"),
    ]:
        alice.say(text)
        alice.sees(answer)
    bob.say("@alice Hello Alice!")
    bob.sees("[you -> alice]: Hello Alice!  (only you two)")
    alice.sees("[bob -> you]: Hello Alice!  (only you two)")
    carol.send("Hello from nc")
    erin.send("PRIVMSG #lobby :Hello from IRC")
    for window in (alice, bob):
        window.sees("[carol]: Hello from nc")
        window.sees("[erin]: Hello from IRC")

    assert alice.lines[before[0] :][:7] == [
        "[alice]: Hello everyone!",
        "[you -> bob]: Hello Bob!  (only you two)",
        "* alice waves",
        "[SERVER]: Online users (4): alice, bob, carol, erin  (only you)",
        "[you -> dave]: hi  (not delivered)   Try\xa0again  ·  Edit  ·  Discard",
        "[SERVER]: No such user: dave  (only you)",
        "[bob -> you]: Hello Alice!  (only you two)",
    ]
    assert bob.lines[before[1] :][:4] == [
        "[alice]: Hello everyone!",
        "[alice -> you]: Hello Bob!  (only you two)",
        "* alice waves",
        "[you -> alice]: Hello Alice!  (only you two)",
    ]
    assert len(alice.lines) == before[0] + 9
    assert len(bob.lines) == before[1] + 6
    heard = ["[alice]: Hello everyone!", "* alice waves", "[carol]: Hello from nc"]
    assert [line for line in carol.heard() if "erin" not in line] == heard
    assert [line.partition(" PRIVMSG ")[2] for line in erin.heard()] == [
        "#lobby :Hello everyone!", "#lobby :\x01ACTION waves\x01", "#lobby :Hello from nc",
    ]  # fmt: skip


def test_server_is_blue_own_green_others_white_private_violet(alice, hub):
    hear(hub, alice, "from bob")
    hub.send(
        ":bob!b@h JOIN #lobby", ":alice!a@h PRIVMSG #lobby :from me", ":bob!b@h PRIVMSG alice :psst"
    )
    alice.sees("[bob -> you]: psst  (only you two)")
    assert alice.color_of("[SERVER]: bob joined the chat") == "#6cb6ff"
    assert alice.color_of("[alice]: from me") == "#7ee0a1"
    assert alice.color_of("[bob]: from bob") == "#f2f4f8"
    assert "private" in alice.tags_of("psst")
    assert alice.text.tag_cget("private", "foreground") == "#d3adff"


def test_title_shows_the_state_of_the_connection(desktop, hub):
    alice = desktop.open(hub.port, "alice", at_once=True)
    alice.wait_for_title("Connecting to 127.0.0.1:%d… — Hubbub" % hub.port)
    hub.welcome()
    alice.wait_for_title("Connected: alice @ Hub — Hubbub")
    hub.send(":alice!a@h NICK alicia")
    alice.wait_for_title("Connected: alicia @ Hub — Hubbub")
    hub.finish()
    alice.wait_for_title("Reconnecting… — Hub — Hubbub")


@pytest.mark.parametrize("leave", [lambda a: a.say("/quit bye"), lambda a: a.close()])
def test_closing_the_window_sends_quit(alice, desktop, hub, leave):
    leave(alice)
    desktop.pump(lambda: alice.window.root is None)
    assert [line for line in hub.rest() if line.startswith("QUIT")]


# The message box


def test_enter_sends_each_line_as_a_message(alice, hub):
    """Shift+Enter begins a line."""
    alice.write("one")
    alice.press("Shift-Return", alice.box)
    assert alice.draft == "one\n"
    alice.say("two")
    hub.expect("PRIVMSG #lobby :one")
    hub.expect("PRIVMSG #lobby :two")
    assert alice.draft == ""


def test_pasted_lines_are_sent_in_order(alice, hub):
    alice.paste("one\ntwo\r\nthree")
    assert alice.draft == "one\ntwo\nthree"
    alice.press("Return", alice.box)
    assert hub.until("three")[-3:] == ["PRIVMSG #lobby :%s" % n for n in ("one", "two", "three")]


def answer(hub, *lines):
    """Answer the command of a paste that has just been read, and the PING after it."""
    hub.send(*lines, ":hub PONG hub :" + hub.line().split()[1])


def test_pasted_commands_run_and_what_is_refused_stays(alice, desktop, hub):
    """No password is said, or recalled by Up."""
    lines = ["def one():", "    return 1", "/join #tea", "hello tea", "/nosuch", "more"]
    alice.paste("\n".join([*lines[:5], "/login carol hunter2", "more"]))
    alice.press("Return", alice.chat_view.composer.hidden)
    assert alice.lines[-1] == "[SERVER]: This server has no /login.  (only you)"
    assert alice.notice == "Password of carol (hidden). Esc gives up."
    assert alice.chat_view.composer.hidden.get() == "hunter2"
    alice.press("Escape")
    assert alice.draft.split("\n") == lines
    alice.press("Return", alice.box)
    texts = ["PRIVMSG #lobby :def one():", "PRIVMSG #lobby :    return 1"]
    assert hub.until("JOIN #tea")[-3:] == [*texts, "JOIN #tea"]
    answer(hub, ":alice!u@h JOIN #tea")
    alice.sees("[alice]: hello tea")
    hub.expect("PRIVMSG #tea :hello tea")
    desktop.pump(lambda: alice.draft == "/nosuch\nmore")
    hub.send(*(":alice!u@h " + text for text in [*texts, "PRIVMSG #tea :hello tea"]))
    desktop.pump(lambda: not alice.window.chat.unsent)
    alice.box.delete("1.0", "end")
    alice.press("Up", alice.box)
    assert alice.draft.split("\n") == lines
    alice.box.delete("1.0", "end")
    alice.paste("/quit bye\nnot said")
    alice.press("Return", alice.box)
    assert (hub.until("bye"), hub.rest()) == (["QUIT bye"], [])


def test_rest_of_a_paste_that_the_server_refuses_comes_back(alice, desktop, hub):
    """Above what was typed meanwhile; settings that a line changes are saved."""
    alice.say("/topic x\n/ignore bob\n/topic y\n/ignore eve")
    hub.expect("TOPIC #lobby :x")
    answer(hub)
    desktop.pump(lambda: alice.window.chat.ignored == ["bob"])
    hub.expect("TOPIC #lobby :y")
    alice.write("draft")
    answer(hub, ":hub 482 alice #lobby :You are not a chanop")
    desktop.pump(lambda: alice.draft == "/topic y\n/ignore eve\ndraft")
    saved = client.Settings(client.settings_path())
    saved.load()
    assert saved.ignored == ["bob"]
    alice.box.delete("1.0", "end")
    alice.say("/topic z\n/quit bye")
    hub.expect("TOPIC #lobby :z")
    answer(hub)
    desktop.pump(lambda: alice.window.root is None)
    hub.expect("QUIT bye")


def test_huge_paste_is_cut_and_does_not_freeze(alice, desktop):
    heart = Heartbeat(alice.root)
    alice.paste("x" * 1_000_000)
    desktop.pump(lambda: heart.beats > 5)
    assert len(alice.draft) == client.MAX_PASTE
    assert heart.freeze < 0.5


def test_unknown_command_is_explained_and_stays_in_the_box(alice):
    alice.say("/foo bar")
    alice.sees("[SERVER]: Unknown command: /foo. Type /help for the list.")
    assert alice.draft == "/foo bar"


def test_typing_in_the_transcript_goes_to_the_box(alice, desktop):
    before = alice.lines
    alice.press("Key-h", alice.text)
    desktop.pump(lambda: alice.draft == "h")
    assert alice.has_focus(alice.box)
    assert alice.lines == before


@pytest.mark.parametrize("system, state, typed", [("win32", 8, "x"), ("x11", 8, "")])
def test_alt_does_not_type_but_num_lock_does(alice, system, state, typed):
    """The bit that means Alt on X11 means Num Lock on Windows."""
    alice.window.look.system = system
    alice.text.focus_force()
    alice.text.event_generate("<x>", state=state)
    assert alice.draft == typed


# Hostile servers


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
def test_harmful_text_is_cleaned_and_the_next_line_arrives(alice, hub, sent, shown):
    hub.send_bytes(b":bob!b@h PRIVMSG #lobby :" + sent + b"\r\n")
    hear(hub, alice, "next")
    assert alice.lines[-2] == "[bob]: " + shown


@pytest.mark.parametrize(
    "noise", [b"PRIVMSG #lobby :a\0b", b"PRIVMSG #lobby :" + b"x" * 1_000_000], ids=["NUL", "long"]
)
def test_invalid_line_is_dropped_and_the_others_are_shown(alice, desktop, hub, noise):
    heart = Heartbeat(alice.root)
    one, two = b":bob!b@h PRIVMSG #lobby :one\r\n", b":bob!b@h PRIVMSG #lobby :two\r\n"
    hub.send_bytes(one + b":bob!b@h " + noise + b"\r\n" + two)
    alice.sees("[bob]: two")
    assert alice.lines[-2:] == ["[bob]: one", "[bob]: two"]
    desktop.pump(lambda: heart.beats > 5)
    assert heart.freeze < 0.2


@pytest.mark.parametrize("name", ["", "x" * 300, "😀" * 9, "\u202ebob", "{[$"])
def test_strange_names_do_not_stop_the_list_of_people(alice, desktop, hub, name):
    hub.send(":%s!u@h JOIN #lobby" % name, ":hub 353 alice = #lobby :alice @%s" % name)
    hub.send(":hub 366 alice #lobby :End", ":carol!c@h JOIN #lobby")
    desktop.pump(lambda: "carol" in alice.people)
    desktop.pump(lambda: "carol" in alice.drawn(alice.chat_view.people.list))


def test_longest_line_wraps_and_does_not_freeze(alice, desktop, hub):
    heart = Heartbeat(alice.root)
    hear(hub, alice, "W" * 450)
    hear(hub, alice, "word " * 90 + "end")
    desktop.pump(lambda: heart.beats > 5)
    assert heart.freeze < 0.2


@pytest.mark.parametrize("owner, method", [("chat", "handle"), ("_connection", "carry_out")])
def test_bug_is_logged_and_the_window_goes_on(
    alice, desktop, hub, monkeypatch, caplog, owner, method
):
    monkeypatch.setattr(client, "log", logging.getLogger("elsewhere"))
    alice.root.report_callback_exception = alice.report
    victim = getattr(alice.window, owner)
    original = getattr(victim, method)

    def fail(*args):
        setattr(victim, method, original)
        raise RuntimeError("a bug on purpose")

    setattr(victim, method, fail)
    hub.send("PONG first")
    desktop.pump(lambda: "a bug on purpose" in caplog.text)
    hear(hub, alice, "still here")


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
window.start("127.0.0.1:" + sys.argv[2], "alice", True)
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
    """Run a script that opens a window on the hub: a crash of Tk ends only that process."""
    command = [str(python), "-c", script, str(ROOT), str(hub.port)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def end_of(process):
    """Return exit code and stderr."""
    _, errors = process.communicate(timeout=TIMEOUT)
    return process.returncode, errors.decode()


def python_3_6():
    """Return the oldest supported Python, with tkinter."""
    versions = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    found = [shutil.which("python3.6"), *sorted(versions.glob("3.6*/bin/python"))]
    for python in filter(None, found):
        check = [str(python), "-c", "import sys, tkinter; sys.exit(sys.version_info[:2] != (3, 6))"]
        if subprocess.run(check, stderr=subprocess.DEVNULL).returncode == 0:
            return python
    return pytest.skip("there is no Python 3.6 with tkinter here")


@pytest.mark.parametrize("python", [sys.executable, "3.6"], ids=["this", "oldest"])
def test_emoji_are_shown_by_the_oldest_python_too(screen, hub, python):
    strange = [":😀!b@h JOIN #lobby", ":b!b@h TOPIC #lobby :😀", ":b!b@h PRIVMSG #lobby :😀 first"]
    with run_script(python_3_6() if python == "3.6" else python, SHOW_EMOJI, hub) as process:
        hub.welcome()
        hub.send(*strange, ":bob!b@h PRIVMSG #lobby :afterwards")
        hub.expect("PRIVMSG #lobby :seen")
        hub.send(":alice!a@h PRIVMSG #lobby :seen")
        hub.rest()
        assert end_of(process) == (0, "")


def test_editing_emoji_in_the_message_box_does_not_crash(screen, hub):
    with run_script(sys.executable, EDIT_EMOJI, hub) as process:
        hub.welcome()
        assert any(line.startswith("PRIVMSG") for line in hub.rest())
        assert end_of(process) == (0, "")


class Program:
    """client.py as people start it, and a keyboard."""

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
        """Wait for a window with this title, and give it the focus."""
        command = ["xdotool", "search", "--sync", "--onlyvisible", "--name", title]
        subprocess.run([*command, "windowfocus", "--sync"], check=True, timeout=TIMEOUT)

    def type(self, *words):
        """Type text, and keys in angle brackets."""
        for word in words:
            action = ["key", word[1:-1]] if word[:1] == "<" else ["type", word]
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


def test_program_with_server_and_name_connects_at_once(start, room):
    bob = room.irc("bob")
    program = start("127.0.0.1:%d" % room.server.port, "--username", "alice")
    program.find("^Connected: alice @ Hubbub")
    program.type("Hello @bob: 1/2?", "<Return>", "@bob psst", "<Return>")
    bob.expect(":alice!alice@127.0.0.1 PRIVMSG #lobby :Hello @bob: 1/2?")
    bob.expect(":alice!alice@127.0.0.1 PRIVMSG bob :psst")
    program.type("/quit", "<Return>")
    assert end_of(program.process) == (0, "")
    bob.expect(" QUIT Quit")


def test_program_works_by_keyboard_and_ends_on_sigterm(start, room):
    bob = room.irc("bob")
    program = start()
    program.find("^Not connected")
    program.type("alice", "<Tab>", "127.0.0.1:%d" % room.server.port, "<Return>")
    bob.expect(":alice!alice@127.0.0.1 JOIN #lobby")
    program.find("^Connected: alice @ Hubbub")
    program.process.send_signal(signal.SIGTERM)
    assert end_of(program.process) == (0, "")
    bob.expect(" QUIT Quit")


def test_program_remembers_name_and_server(start, room):
    bob = room.irc("bob")
    settings = client.Settings(client.settings_path())
    settings.name, settings.servers = "alice", ["127.0.0.1:%d" % room.server.port, "office"]
    settings.save()
    program = start()
    program.find("^Not connected")
    program.type("<Return>")
    bob.expect(":alice!alice@127.0.0.1 JOIN #lobby")
