"""Hosting a chat from the window: the server is another process, which may outlive the window."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from client_harness import wait_until
from harness import TIMEOUT, IrcTalker, Room

import client
import protocol
from client import NAME, NETWORK, SERVER, Host

ROOT = Path(__file__).resolve().parent.parent
QUESTION = client.Questions.HOST_CLOSE
OWN = {"End the chat on this computer…", "Become the operator"}  # for the owner of the server
MODULES = ("client.py", "protocol.py", "server.py")

# A stand-in for server.py: prints lines, then ends with a code, or (None) waits for a signal.
FAKE = """
import signal, sys
def main():
    is_command = sys.argv[1].startswith(("--add-account=", "--status"))
    if not is_command:
        with open({seen!r}, "a") as file:
            file.write(" ".join(sys.argv[1:]) + chr(10))
    for line in {lines!r}:
        print(line, flush=True)
    code = 0 if is_command else {code!r}
    if code is None:
        signal.pause()
    return code
"""


def listens_at(address, port):
    """Note, as a server does, where that of the user's data folder runs."""
    path = Path(protocol.data_folder()) / protocol.PID_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("1234 %s %s\n" % (address.strip("[]"), port))


class FakeServer:
    """A folder with a stand-in for server.py, from which windows start servers."""

    def __init__(self, folder):
        self.folder = folder
        self._seen = folder / "arguments"

    def plays(self, *lines, code=None):
        """Print lines; with a code, end. Leave a note of where it runs, if they say that."""
        for line in lines[:1]:
            if " Running on " in line:
                listens_at(*line.split()[-1].rsplit(":", 1))
        text = FAKE.format(seen=str(self._seen), lines=lines, code=code)
        (self.folder / "server.py").write_text(text, encoding="utf-8")
        for path in self.folder.glob("__pycache__/*"):
            path.unlink()

    def runs_at(self, hub):
        """Play the server that a test plays itself."""
        self.plays(
            "[SERVER] Running on 127.0.0.1:%d" % hub.port, "[SERVER] Only this computer can join"
        )

    @property
    def arguments(self):
        """The arguments of each start."""
        return self._seen.read_text().splitlines() if self._seen.exists() else []


@pytest.fixture(autouse=True)
def hosts(monkeypatch):
    """All processes that a test has started; ends those that are left."""
    hosts, init = [], Host.__init__
    monkeypatch.setattr(
        Host,
        "__init__",
        lambda self, *args, **more: init(self, *args, **more) or hosts.append(self),
    )
    monkeypatch.setattr(Host, "OPTIONS", ("--host", "127.0.0.1", "--port", "0"))
    yield hosts
    for host in hosts:
        host.process.terminate()
        host.thread.join(TIMEOUT)


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """Replaces server.py; it says nothing and waits, unless the test wants more."""
    folder = tmp_path / "fake"
    folder.mkdir()
    monkeypatch.setattr(Host, "FOLDER", str(folder))
    monkeypatch.setattr(Host, "OPTIONS", ())
    fake = FakeServer(folder)
    fake.plays()
    return fake


def host(desktop, network="Class 4B", name="alice"):
    """Open a window and host a chat."""
    alice = desktop.open()
    alice.connect_view.host.invoke()
    for field, text in ((NAME, name), (NETWORK, network)):
        alice.connect_view.fields[field].delete(0, "end")
        alice.connect_view.fields[field].insert(0, text)
    desktop.update()
    alice.press("Return", alice.connect_view.fields[NETWORK])
    return alice


def host_at(desktop, hub):
    """Host a chat whose server, which the test plays, listens where `hub` does."""
    alice = host(desktop)
    desktop.pump(lambda: alice.window._connection is not None)
    hub.welcome()
    return alice


def answer(desktop, alice, words):
    (button,) = [b for b in alice.chat_view.banner.buttons if b.cget("text") == words]
    button.invoke()


def invitation(alice):
    """Return the words and the buttons of the invitation."""
    bar = alice.chat_view.invitation
    if not bar.frame.winfo_viewable():
        return None
    return (bar.text.cget("text").strip(), *(button.cget("text") for button in bar.buttons))


def has_ended(host):
    return host.process.poll() is not None


def test_hosted_chat_is_joined_and_goes_on_without_the_window(desktop, hosts):
    alice = host(desktop)
    alice.sees("[SERVER]: alice joined the chat")
    assert alice.title == "Connected: alice @ Class 4B — Hubbub"
    alice.close()
    desktop.pump(lambda: alice.banner == QUESTION)
    alice.press("Escape")
    bob = IrcTalker(hosts[0].port).register("bob")
    desktop.pump(lambda: "bob" in alice.people)
    alice.close()
    desktop.pump(lambda: alice.banner == QUESTION)
    alice.press("Escape")
    desktop.pump(lambda: not alice.banner and alice.has_focus(alice.box))
    alice.close()
    answer(desktop, alice, "Keep the chat running")
    assert alice.window.root is None
    bob.expect(" QUIT Quit")
    bob.send("PRIVMSG #lobby :still here")
    bob.heard()
    bob.close()
    again = desktop.open(hosts[0].port, "alice", at_once=True)
    again.sees("[bob]: still here")
    desktop.pump(lambda: invitation(again) == ("Only this computer can join", "Close"))
    desktop.pump(lambda: again.window.chat.session.is_operator)
    assert again.connect_view.fields[NETWORK].get() == "Class 4B"  # for the next time


@pytest.mark.parametrize("leave", ["close", "Other server…"])
def test_chat_that_another_window_has_hosted_is_asked_about(desktop, hosts, leave):
    alice = host(desktop)
    alice.sees("[SERVER]: alice joined the chat")
    alice.close()
    answer(desktop, alice, "Keep the chat running")
    again = desktop.open(hosts[0].port, "alice", at_once=True)
    desktop.pump(lambda: again.window.chat.session.is_operator)
    if leave == "close":
        again.close()
    else:
        again.open_menu(leave)
    desktop.pump(lambda: again.banner == QUESTION)
    answer(desktop, again, "End it for everyone")
    wait_until(lambda: has_ended(hosts[0]))
    desktop.pump(lambda: not again.window.root or not again.window.is_chatting)


def test_chat_that_was_started_by_hand_is_not_asked_about(desktop, room):
    listens_at("127.0.0.1", room.server.port)
    alice = desktop.join(room.server.port, "alice")
    alice.window.settings.hosted = "Class 4B"
    assert alice.window.hosting.is_own
    alice.close()
    assert alice.window.root is None


def test_chat_of_another_user_of_this_computer_is_not_taken_over(desktop, hosts, hub):
    alice = desktop.open(hub.port, "alice")
    alice.window.settings.hosted = "Class 4B"
    alice.connect()
    hub.welcome()
    desktop.pump(lambda: alice.window.is_chatting)
    alice.open_menu()
    assert not {"Host a chat…", *OWN}.intersection(alice.menu)
    assert not hosts and not invitation(alice)


def test_note_of_a_server_that_has_crashed_does_not_make_another_server_the_user_s(desktop, hub):
    """The entries are there, but say why they cannot be."""
    listens_at("127.0.0.1", hub.port)
    alice = desktop.open(hub.port, "alice", at_once=True)
    hub.welcome()
    desktop.pump(lambda: alice.window.is_chatting)
    words = "No server uses %s." % protocol.data_folder()
    alice.open_menu("Become the operator")
    alice.sees("[SYSTEM]: You cannot be made the operator. " + words)
    alice.open_menu("End the chat on this computer…")
    answer(desktop, alice, "End it for everyone")
    alice.sees("[SYSTEM]: " + words)
    alice.say("done")
    hub.expect("PRIVMSG #lobby :done")
    assert "OPER" not in str(hub.seen)


def test_secret_is_not_told_if_the_own_server_moves_meanwhile(desktop, hub, fake, monkeypatch):
    """By the end of the command another server may listen at its address."""
    fake.runs_at(hub)
    alice = desktop.open(hub.port, "alice", at_once=True)
    hub.welcome()
    desktop.pump(lambda: alice.window.is_chatting)
    start = Host.__init__

    def start_and_move(self, *options, **more):
        start(self, *options, **more)
        listens_at("127.0.0.1", hub.port - 1)

    monkeypatch.setattr(Host, "__init__", start_and_move)
    alice.open_menu("Become the operator")
    words = "You cannot be made the operator. This is not your own server."
    alice.sees("[SYSTEM]: " + words)
    alice.say("done")
    hub.expect("PRIVMSG #lobby :done")
    assert "OPER" not in str(hub.seen)


def test_hosted_chat_survives_the_program_that_started_it():
    """Nobody reads any more what the server prints."""
    code = """if True:
        import sys; sys.path.insert(0, sys.argv[1]); import client
        host = client.Host("--host=127.0.0.1", "--port=0", "--log-level=DEBUG")
        while not (host.poll() or host.port):
            host.thread.join(0.01)
        print(host.port, host.process.pid)"""
    output = subprocess.check_output([sys.executable, "-c", code, str(ROOT)], timeout=TIMEOUT)
    port, number = map(int, output.split())
    try:
        for name in ("bob", "carol"):
            talker = IrcTalker(port).register(name)
            talker.send("PRIVMSG #lobby :hello")
            talker.heard()
            talker.close()
    finally:
        os.kill(number, signal.SIGTERM)
    wait_until(lambda: not is_listening(port))


def is_listening(port):
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def test_long_answers_leave_room_for_the_question(desktop, hub, fake):
    """In a narrow window they are below it."""
    fake.runs_at(hub)
    alice = host_at(desktop, hub)
    desktop.pump(lambda: invitation(alice))
    alice.close()
    banner = alice.chat_view.banner
    for width, is_below in ((1160, False), (480, True), (1160, False)):
        alice.root.geometry("%dx600" % width)
        desktop.pump(lambda width=width: alice.root.winfo_width() == width)
        desktop.pump(lambda below=is_below: below == (
            banner.buttons[0].winfo_rooty() > banner.text.winfo_rooty() + 20))  # fmt: skip
        assert banner.frame.winfo_height() < 120
        right = alice.root.winfo_rootx() + alice.root.winfo_width()
        assert banner.buttons[-1].winfo_rootx() + banner.buttons[-1].winfo_width() <= right


def test_closing_twice_keeps_the_chat_running(desktop, hosts):
    """But not with a key that is held."""
    alice = host(desktop)
    alice.sees("[SERVER]: alice joined the chat")
    alice.close()
    alice.press("Control-q")
    assert alice.banner == QUESTION
    alice.close()
    assert alice.window.root is None
    assert not has_ended(hosts[0])


def test_asking_twice_for_the_end_of_the_chat_ends_nothing(desktop, hosts, monkeypatch):
    monkeypatch.setattr(client, "REPEAT_TIME", 0)
    alice = host(desktop)
    alice.sees("[SERVER]: You are an operator now.")
    for _ in range(2):
        alice.open_menu("End the chat on this computer…")
        assert alice.banner.startswith("The chat ends for everyone who is here.")
    answer(desktop, alice, "Cancel")
    alice.say("still here")
    alice.sees("[alice]: still here")
    assert not has_ended(hosts[0])


def test_hosting_form_has_the_computer_s_name_and_can_be_left(desktop):
    alice = desktop.open(name="alice")
    view = alice.connect_view
    view.host.invoke()
    desktop.pump(view.fields[NETWORK].winfo_viewable)
    assert view.fields[NETWORK].get() == client.socket.gethostname()[: client.protocol.MAX_NETWORK]
    assert alice.has_focus(view.fields[NETWORK])
    assert not view.list.canvas.winfo_viewable()
    assert view.button.cget("text") == "Host " + view.fields[NETWORK].get()
    alice.fill(name="")
    view.fields[NETWORK].delete(0, "end")
    alice.press("Escape")
    desktop.pump(view.list.canvas.winfo_viewable)
    view.host.invoke()
    desktop.pump(view.fields[NETWORK].winfo_viewable)
    assert view.host.cget("text") == "Back"
    view.host.invoke()
    desktop.pump(view.list.canvas.winfo_viewable)
    assert not view.fields[NETWORK].winfo_viewable()
    assert view.button.cget("text") == "Connect to 127.0.0.1"


def test_form_says_whose_messages_are_shown_under_a_new_name(desktop):
    """All chats of a computer are in one folder."""
    alice = desktop.open(name="alice")
    alice.window.settings.hosted = "Class 7b"
    view = alice.connect_view
    view.fill("alice", "")
    view.host.invoke()
    hint, field = view.hints[NETWORK], view.fields[NETWORK]
    desktop.pump(hint.winfo_viewable)
    kept = "Messages and registered names of “Class 7b” are kept: those who join see them."
    texts = [
        ("Class 7b", view.HINTS[NETWORK]),
        ("Class 7", kept),
        ("Class 7b ", view.HINTS[NETWORK]),
    ]
    for text, words in [*texts, ("x" * 41, kept)]:
        field.delete(0, "end")
        field.insert(0, text)
        assert hint.cget("text") == words and str(hint.cget("style")) == "Muted.TLabel"
    alice.press("Return", field)
    assert alice.wait_for_error(NETWORK).startswith("The name is too long.")
    view.host.invoke()  # back, and once more
    view.host.invoke()
    assert hint.cget("text") == kept


def test_failed_start_leaves_the_name_of_the_chat_whose_messages_are_kept(desktop, fake):
    fake.plays("server.py: cannot use hubbub.db.", code=2)
    alice = host(desktop)
    assert alice.wait_for_error("") == "Cannot use hubbub.db."
    assert alice.window.settings.hosted == ""


def test_host_is_told_what_to_do_about_a_port_in_use(desktop, hosts, monkeypatch):
    """A window has no command line."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        monkeypatch.setattr(Host, "OPTIONS", ("--host=127.0.0.1", "--port=%d" % port))
        alice = host(desktop)
        words = "Another program uses port %d of this computer. Close it, then try again."
        assert alice.wait_for_error("") == words % port
        assert not any(field.instate(["invalid"]) for field in alice.connect_view.fields.values())
    alice.press("Return", alice.connect_view.fields[NETWORK])
    alice.sees("[SERVER]: alice joined the chat")


def test_name_is_checked_before_anything_starts(desktop, hosts, fake):
    alice = host(desktop, name="not a name")
    assert alice.wait_for_error(NAME) == "A name has no spaces. How about not-a-name?"
    alice = host(desktop, network="")
    assert alice.wait_for_error(NETWORK) == "Type a name for the chat first."
    alice = host(desktop, network="x" * 41)
    assert alice.wait_for_error(NETWORK) == "The name is too long. Use at most 40 characters."
    assert hosts == []


def test_others_are_invited_until_the_user_has_enough(desktop, hub, fake):
    lines = ["Running on 0.0.0.0:%d" % hub.port, "Tell people: 192.168.1.20:12001"]
    lines += ["Tell people: [2001:db8::1]:12001", "In a browser: http://192.168.1.20:12001"]
    fake.plays(*("[SERVER] " + line for line in lines))
    alice = host_at(desktop, hub)
    words = "Others open http://192.168.1.20:12001 in a browser, or pick “Hub” in Hubbub."
    desktop.pump(lambda: invitation(alice) == (words, "Copy", "Close"))
    assert fake.arguments == ["--network=Class 4B"]
    alice.chat_view.invitation.buttons[0].invoke()
    desktop.pump(lambda: invitation(alice)[1] == "Copied")
    alice.open_menu("Who can join, and how")
    desktop.pump(lambda: invitation(alice) == (words, "Copy", "Close"))
    desktop.pump(lambda: alice.has_focus(alice.chat_view.invitation.buttons[0]))
    assert alice.root.clipboard_get() == "http://192.168.1.20:12001"
    alice.chat_view.invitation.buttons[1].invoke()
    desktop.pump(lambda: not invitation(alice))


def test_server_says_in_its_own_words_why_nobody_can_join(desktop, hub, fake):
    fake.runs_at(hub)
    alice = host_at(desktop, hub)
    desktop.pump(lambda: invitation(alice) == ("Only this computer can join", "Close"))


def test_server_is_asked_anew_each_time_how_others_join(desktop, hub, fake):
    """The network may have come, or gone, since the start."""
    at, none = "[SERVER] Running on 127.0.0.1:%d" % hub.port, "No network was found. Connect it"
    fake.plays(at, "[SERVER] " + none)
    alice = host_at(desktop, hub)

    def ask():
        desktop.pump(lambda: alice.window.hosting._command is None)  # the last has ended
        alice.open_menu("Who can join, and how")

    desktop.pump(lambda: invitation(alice) == (none, "Close"))
    fake.plays(at, "[SERVER] Tell people: 192.168.1.20:12001")
    ask()
    desktop.pump(lambda: (invitation(alice) or "")[1:] == ("Copy", "Close"))
    desktop.pump(lambda: alice.has_focus(alice.chat_view.invitation.buttons[0]))
    fake.plays(at, "[SERVER] " + none)
    ask()
    desktop.pump(lambda: invitation(alice) == (none, "Close"))
    fake.plays(code=2)
    (fake.folder / "server.py").write_text("import sys\ndef main():\n    sys.exit('no disk')\n")
    ask()
    alice.sees("[SYSTEM]: No disk")
    assert not invitation(alice)


def test_nothing_is_asked_after_the_server_has_ended(desktop, hub, hosts, fake):
    fake.runs_at(hub)
    alice = host_at(desktop, hub)
    desktop.pump(lambda: invitation(alice))
    hosts[0].process.terminate()
    desktop.pump(lambda: not invitation(alice))
    alice.close()
    assert alice.window.root is None


@pytest.mark.parametrize(
    ("lines", "code", "words"),
    [
        (["a log line", "server.py: another program uses the port."],
         2, "Another program uses the port."),
        ([], 0, "The server ended at once."),
        (["é\x1b[2J", ""], 1, "É[2J"),
    ],
)  # fmt: skip
def test_server_that_ends_at_once_is_shown_with_its_last_line(desktop, fake, lines, code, words):
    fake.plays(*lines, code=code)
    alice = host(desktop)
    assert alice.wait_for_error("") == words
    assert not alice.connect_view.fields[NETWORK].instate(["invalid"])
    assert alice.connect_view.button.cget("text") == "Host Class 4B"


def test_missing_server_is_named(desktop, fake, hosts):
    (fake.folder / "server.py").unlink()
    alice = host(desktop)
    words = "There is no server.py beside client.py. Copy it there, then try again."
    assert alice.wait_for_error("") == words
    assert hosts == []


@pytest.mark.parametrize("leave", ["Escape", "close"])
def test_no_process_is_left_by_a_start_that_is_given_up(desktop, fake, hosts, leave):
    alice = host(desktop)
    wait_until(lambda: fake.arguments)
    for number in range(3):
        assert alice.connect_view.button.cget("text") == "Starting Class 4B…   (Esc to cancel)"
        if leave == "close" and number == 2:
            alice.close()
            break
        alice.press("Escape")
        assert alice.connect_view.button.cget("text") == "Host Class 4B"
        alice.press("Return", alice.connect_view.fields[NETWORK])
    else:
        alice.press("Escape")
    wait_until(lambda: all(map(has_ended, hosts)))
    assert len(hosts) > 2


def test_running_chat_is_offered_where_the_port_is_in_use(desktop, hub, fake, responder):
    fake.plays("server.py: another program uses the port", code=2)
    alice = desktop.open(name="alice")
    responder.answer(responder.query(), "Already here", hub.port)
    desktop.pump(lambda: alice.connect_view.found)
    alice.connect_view.host.invoke()
    alice.press("Return", alice.connect_view.fields[NETWORK])
    assert alice.wait_for_question(SERVER) == "A chat already runs on this computer. Join it?"
    assert alice.connect_view.button.cget("text") == "Connect to Already here"
    alice.press("Return")
    desktop.pump(lambda: alice.window._connection is not None)
    hub.welcome()
    desktop.pump(lambda: alice.title.startswith("Connected: alice"))


@pytest.mark.parametrize("by", ["question", "menu"])
def test_chat_on_this_computer_is_ended_by_the_server_s_own_command(desktop, hub, fake, hosts, by):
    fake.runs_at(hub)
    alice = host_at(desktop, hub)
    desktop.pump(lambda: invitation(alice))
    fake.plays("The chat has ended.", code=0)
    if by == "question":
        alice.close()
        answer(desktop, alice, "End it for everyone")
        assert alice.window.root is None
    else:
        alice.open_menu("End the chat on this computer…")
        answer(desktop, alice, "End it for everyone")
        view = alice.connect_view
        desktop.pump(view.error.winfo_viewable)
        assert view.error.cget("text") == "You ended the chat. Its history is kept."
        assert str(view.error.cget("style")) == "Question.TLabel"
        assert not alice.window.is_chatting and alice.title == "Not connected — Hubbub"
        assert view.button.cget("text") == "Host Hub"
        view.host.invoke()  # back to the list, where nothing is chosen
        assert view.button.cget("text") == "Connect" and not view.error.winfo_manager()
    wait_until(lambda: fake.arguments[1:] == ["--stop"])


@pytest.mark.parametrize("draft", ["", "half of a"])
def test_chat_whose_server_has_crashed_is_hosted_again_from_its_window(desktop, hosts, draft):
    """In the form, filled in, after a question about what would be lost."""
    alice = host(desktop)
    alice.sees("[SERVER]: You are an operator now.")
    alice.write(draft)
    hosts[0].process.kill()
    buttons = alice.chat_view.banner.buttons
    desktop.pump(lambda: "Host it again" in [button.cget("text") for button in buttons])
    answer(desktop, alice, "Host it again")
    if draft:
        assert alice.banner.startswith("Leave this server? You have an unfinished message")
        answer(desktop, alice, "Leave")
    desktop.pump(lambda: alice.connect_view.button.cget("text") == "Host Class 4B")
    alice.press("Return", alice.connect_view.fields[NETWORK])
    desktop.pump(lambda: alice.title == "Connected: alice @ Class 4B — Hubbub")
    desktop.pump(lambda: alice.window.chat.session.is_operator and not alice.banner)
    assert alice.window.chat.address == alice.window.hosting.host.server


def test_other_servers_are_not_hosted_again(desktop, hub, fake):
    fake.runs_at(hub)
    alice = host_at(desktop, hub)
    desktop.pump(lambda: invitation(alice))
    alice.open_menu("Other server…")
    answer(desktop, alice, "Keep the chat running")
    with contextlib.closing(Room()) as room:
        alice.connect(name="alice", server="127.0.0.1:%d" % room.server.port)
        alice.sees("[SERVER]: alice joined the chat")
        ended = alice.window.hosting.host
        ended.process.kill()
        ended.thread.join(TIMEOUT)
    desktop.pump(lambda: alice.window.hosting.host is None and alice.banner)
    desktop.pump(lambda: [b.cget("text") for b in alice.chat_view.banner.buttons] == ["Try now"])


@pytest.mark.parametrize("steps", [("/quit see you", "<Return>"), ("<ctrl+q>",), ("<F10>",)])
def test_all_ways_to_quit_ask_what_becomes_of_the_chat(desktop, hub, fake, steps):
    fake.runs_at(hub)
    alice = host_at(desktop, hub)
    desktop.pump(lambda: invitation(alice))
    if steps == ("<F10>",):
        alice.open_menu("Quit")
    else:
        alice.type(*steps)
    desktop.pump(lambda: alice.banner == QUESTION)
    answer(desktop, alice, "Keep the chat running")
    assert alice.window.root is None
    hub.expect("QUIT :see you" if "/quit" in steps[0] else "QUIT")


def test_host_is_asked_before_it_leaves_for_another_server(desktop, hosts):
    alice = host(desktop)
    alice.sees("[SERVER]: You are an operator now.")
    alice.open_menu("Other server…")
    desktop.pump(lambda: alice.banner == QUESTION)
    alice.press("Escape")
    assert alice.window.is_chatting
    alice.open_menu("Other server…")
    answer(desktop, alice, "Keep the chat running")
    assert not alice.window.is_chatting and not has_ended(hosts[0])
    with contextlib.closing(Room()) as room:
        alice.connect(name="alice", server="127.0.0.1:%d" % room.server.port)
        alice.sees("[SERVER]: alice joined the chat")
        # The other server is told nothing of that chat, and it is not in question here.
        alice.open_menu()
        assert not {"Host a chat…", *OWN}.intersection(alice.menu)
        alice.press("Escape")
        assert "--add-account" not in str([host.process.args for host in hosts[2:]])
        assert not alice.window.chat.session.account
        assert not invitation(alice)
        alice.close()
        assert alice.window.root is None
    IrcTalker(hosts[0].port).register("bob").close()


def test_chat_is_ended_before_its_host_goes_to_another_server(desktop, hosts):
    alice = host(desktop)
    alice.sees("[SERVER]: You are an operator now.")
    alice.open_menu("Other server…")
    answer(desktop, alice, "End it for everyone")
    desktop.pump(lambda: alice.connect_view.button.cget("text") == "Host Class 4B")
    desktop.pump(lambda: has_ended(hosts[0]))


def test_chat_elsewhere_cannot_be_ended(alice):
    at = alice.window.chat.address
    for bound, address in ((at, at), ("0.0.0.0:1", at), (at, "192.0.2.1:12001"), (at, "office:1")):
        listens_at(*bound.rsplit(":", 1))
        alice.window.chat.address = address
        alice.open_menu()
        assert OWN.issubset(alice.menu) == (bound == address)
        assert ("Host a chat…" in alice.menu) == (address != at)
        alice.press("Escape")


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")
def test_server_that_the_window_has_just_started_is_met_anew(
    desktop, hosts, monkeypatch, tmp_path, open_room
):
    """Whatever was at its address before; a server that it has not started is not."""
    first = open_room(data=str(tmp_path / "first"))
    port = first.server.port
    desktop.join(port, "alice").close()
    first.close()
    monkeypatch.setattr(Host, "OPTIONS", ("--host=127.0.0.1", "--port=%d" % port))
    alice = host(desktop)
    alice.sees("[SERVER]: alice joined the chat")
    pin = alice.window.chat.session.pin
    assert pin and alice.window.settings.pins["127.0.0.1:%d" % port] == pin
    alice.window._end_both()
    wait_until(lambda: has_ended(hosts[0]))
    third = open_room(data=str(tmp_path / "third"), port=port)
    alice = desktop.open(third.server.port, "alice", at_once=True)
    assert "shows another certificate than before" in alice.wait_for_error(SERVER)


# Programs in one file, and incomplete copies


@pytest.fixture
def zipapp(tmp_path):
    path = tmp_path / "hubbub.pyz"
    with zipfile.ZipFile(str(path), "w") as archive:
        for module in MODULES:
            archive.write(str(ROOT / module), module)
    return path


def test_zipapp_hosts_too(zipapp, monkeypatch, hosts):
    code = "import sys; sys.path[0] = sys.argv[1]; import client; print(client.Host.FOLDER)"
    found = subprocess.check_output([sys.executable, "-c", code, str(zipapp)])
    assert found.decode().strip() == str(zipapp)
    monkeypatch.setattr(Host, "FOLDER", str(zipapp))
    server = Host("--network=Zip")
    wait_until(lambda: server.poll() or server.port)
    assert server.port, server.last_line
    IrcTalker(server.port).register("bob").close()


def test_server_takes_no_module_from_the_folder_that_the_user_is_in(tmp_path, monkeypatch):
    """Others may be able to write there."""
    (tmp_path / "sqlite3.py").write_text("print('not ours', flush=True); 1 / 0")
    monkeypatch.chdir(tmp_path)
    status = Host("--status", "--data=" + str(tmp_path / "none"))
    status.thread.join(TIMEOUT)
    assert status.poll()
    assert status.last_line.startswith("No server uses ")


@pytest.mark.parametrize("name", ["client.py", "server.py"])
def test_program_without_protocol_says_so_in_a_line(tmp_path, name):
    (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, str(tmp_path / name), "--version"]
    done = subprocess.run(command, stderr=subprocess.PIPE, cwd=str(tmp_path))
    assert done.returncode == 2
    words = "%s needs protocol.py beside it: " % name
    assert re.match(re.escape(words) + r".*\n\Z", done.stderr.decode())


def test_terminal_joins_the_server_that_the_program_is_for(monkeypatch):
    seen = []

    class Terminal:
        def __init__(self, settings):
            self.run = lambda *args: seen.append(args) or 0

    monkeypatch.setattr(client, "Terminal", Terminal)
    for argv in ([], ["office"], ["irc://office:4000"]):
        assert client.main(["--terminal", *argv], server="192.168.1.20:12001") == 0
    assert client.main(["--terminal"]) == 0
    assert [client.parse_server(server) for server, _ in seen] == [
        ("192.168.1.20", 12001), ("office", 12001), ("office", 4000), ("127.0.0.1", 12001),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("argv", "baked", "known", "find", "expected"),
    [
        ([], "", [], "", "127.0.0.1"),
        ([], "", [], "192.0.2.1", ""),
        ([], "", ["office"], "192.0.2.1", "office"),
        ([], "", ["127.0.0.1", "office"], "192.0.2.1", "office"),
        ([], "", ["localhost:4000"], "192.0.2.1", ""),
        ([], "192.168.1.20:12001", ["office"], "", "192.168.1.20:12001"),
        (["lab"], "192.168.1.20:12001", ["office"], "", "lab"),
    ],
)
def test_server_that_the_window_offers_at_first(monkeypatch, argv, baked, known, find, expected):
    settings = client.Settings(client.settings_path())
    settings.servers = known
    settings.save()
    monkeypatch.setenv("HUBBUB_FIND", find)
    seen = []

    class Window:
        def run(self, *args):
            seen.append(args)

    monkeypatch.setattr(client, "open_window", lambda settings: Window())
    assert client.main(argv, server=baked) == 0
    assert seen == [(expected, "", False, False)]


def test_host_needs_a_window(monkeypatch, capsys):
    monkeypatch.setattr(client, "open_window", lambda settings: None)
    with pytest.raises(SystemExit) as exit_:
        client.main(["--host"])
    assert exit_.value.code == 2
    assert "run server.py" in capsys.readouterr().err
