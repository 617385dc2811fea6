"""`client.py --terminal` in a pipe and at a terminal: what it reads and prints, its exit codes."""

import os
import select
import signal
import subprocess
import sys
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from subprocess import PIPE

import pytest
from client_harness import ScriptedServer, closed_port
from harness import TIMEOUT

import protocol

with suppress(ImportError):  # not on Windows
    import fcntl
    import pty
    import termios

PROGRAM = Path(__file__).resolve().parent.parent / "client.py"
BARE = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


class TerminalClient:
    """A process of client.py whose input and output are pipes."""

    def __init__(self, *args, command=(str(PROGRAM),), **streams):
        kept = {name: value for name, value in os.environ.items() if name != "DISPLAY"}
        pipes = {"stdin": PIPE, "stdout": PIPE, "stderr": PIPE}
        self.process = subprocess.Popen(
            [sys.executable, *command, *args], env={**kept, **BARE}, **{**pipes, **streams}
        )

    def say(self, *lines):
        self.process.stdin.write("".join(line + "\n" for line in lines).encode())
        self.process.stdin.flush()

    def line(self):
        """The next line that it prints, without the time."""
        line = self.process.stdout.readline().decode().rstrip("\r\n")
        assert line[:1] == "[", "not a line for people: %r" % line
        return line.partition("] ")[2]

    def expect(self, *lines):
        """Read on until all of `lines` have come, in this order."""
        for line in lines:
            while self.line() != line:
                pass

    def finish(self):
        """No more input; its exit code and what it said on stderr."""
        _, errors = self.process.communicate(timeout=TIMEOUT)
        return self.process.returncode, errors.decode()

    def close(self):
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()


class PersonsTerminal(TerminalClient):
    """A process of client.py at a terminal."""

    def __init__(self, *args, **options):
        self._screen, far = pty.openpty()
        try:
            super().__init__(
                *args,
                stdin=far,
                stdout=far,
                stderr=far,
                start_new_session=True,
                preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
                **options,
            )
        finally:
            os.close(far)
        self.shown = ""

    def type(self, keys):
        os.write(self._screen, keys.encode())

    def sees(self, words):
        """Go on when these stand on the screen."""
        while words not in self.shown:
            assert self._look(), self.shown
        return self

    def finish(self):
        """Its exit code, and all that was on the screen."""
        while self._look():
            pass
        return self.process.wait(TIMEOUT), self.shown

    def _look(self):
        """Read what is shown; return False at the end, and fail if nothing comes for long."""
        assert select.select([self._screen], [], [], TIMEOUT)[0], self.shown
        try:
            data = os.read(self._screen, 65536)
        except OSError:  # nobody writes there any more
            data = b""
        self.shown += data.decode()
        return bool(data)

    def close(self):
        super().close()
        os.close(self._screen)


@pytest.fixture
def start():
    """Starts client.py in a pipe."""
    with ExitStack() as stack:

        def start_(*args, **options):
            return stack.enter_context(closing(TerminalClient(*args, **options)))

        yield start_


@pytest.fixture
def join(start, room):
    """Starts client.py, and goes on when it is in the room."""

    def join_(name):
        terminal = start(address(room), "--username", name, "--terminal")
        terminal.expect("[SERVER]: %s joined the chat" % name)
        return terminal

    return join_


def address(room):
    return "127.0.0.1:%d" % room.server.port


def test_help_prints_what_can_be_typed(room, join):
    alice = join("alice")
    alice.say("/help")
    alice.expect(*["[SERVER]: " + line for line in protocol.help_lines()])


def test_search_prints_what_is_found_in_all_conversations(open_room, start, tmp_path):
    room = open_room(data=str(tmp_path / "history"))
    bob = room.irc("bob")
    bob.send("PRIVMSG #lobby :Tea?", "JOIN #den")
    bob.heard()
    alice = start(address(room), "--username", "alice", "--terminal")
    alice.expect("[SERVER]: alice joined the chat")
    bob.send("PRIVMSG alice :psst, tea")
    alice.expect("[bob -> you]: psst, tea")
    alice.say("/search TEA")
    alice.expect("[bob]: Tea?", "[bob -> you]: psst, tea")
    alice.expect("[SERVER]: 2 messages found in everything the server keeps")
    nothing = "Nothing found in everything the server keeps"
    for words, note in (("t", "Write at least two letters"), ("coffee", nothing)):
        alice.say("/search " + words)
        assert alice.line() == "[SERVER]: " + note


def test_conversation(room, join):
    bob = room.plain("bob")
    alice = join("alice")
    alice.say("Hello everyone!", "@bob Hello Bob!", "/list", "@dave hi", "/foo", "/me waves")
    assert sorted(alice.line() for _ in range(6)) == sorted(
        [
            "[alice]: Hello everyone!",
            "[you -> bob]: Hello Bob!",
            "[SERVER]: Online users (2): alice, bob",
            "[SERVER]: No such user: dave",
            "[SERVER]: Unknown command: /foo. Type /help for the list.",
            "* alice waves",
        ]
    )
    assert bob.heard()[1:] == [
        "[alice]: Hello everyone!",
        "[alice -> you]: Hello Bob!",
        "* alice waves",
    ]
    bob.send("Hi alice!", "@alice psst", "/quit")
    alice.expect("[bob]: Hi alice!", "[bob -> you]: psst", "[SERVER]: bob left the chat")


def test_indentation_arrives(room, join):
    bob, alice = room.plain("bob"), join("alice")
    alice.say("  if x:", "\ty()  ", "  @bob psst", " /me waves")
    alice.expect("[alice]:   if x:", "[alice]:     y()", "[you -> bob]: psst", "* alice waves")
    assert bob.heard()[1:] == [
        "[alice]:   if x:",
        "[alice]:     y()",
        "[alice -> you]: psst",
        "* alice waves",
    ]
    bob.send("    return 1", "\tz()", "  @alice psst", " /quit")
    alice.expect("[bob]:     return 1", "[bob]:     z()", "[bob -> you]: psst")
    alice.expect("[SERVER]: bob left the chat")


def test_lines_of_another_day_have_a_heading(start):
    with closing(ScriptedServer()) as hub:
        alice = start("127.0.0.1:%d" % hub.port, "--username", "alice", "--terminal")
        hub.welcome()
        said = "@time=2020-02-0%dT12:00:00.000Z :bob!b@h PRIVMSG #lobby :%s"
        days = ((1, "one"), (1, "two"), (2, "three"))
        hub.send(*(said % day for day in days), ":bob!b@h PRIVMSG #lobby :now")
        alice.expect("[SERVER]: Saturday, 01 February 2020")
        assert [alice.line() for _ in range(4)] == [
            "[bob]: one",
            "[bob]: two",
            "[SERVER]: Sunday, 02 February 2020",
            "[bob]: three",
        ]
        assert alice.line().startswith("[SERVER]: ")  # today
        assert alice.line() == "[bob]: now"


def test_quit_says_goodbye_and_ends_with_0(room, join):
    bob = room.irc("bob")
    alice = join("alice")
    alice.say("/quit see you")
    bob.expect(":alice!alice@127.0.0.1 QUIT :Quit: see you")
    assert alice.finish() == (0, "")


def test_end_of_input_waits_until_all_is_delivered(room, start):
    bob = room.irc("bob")
    alice = start(address(room), "--username", "alice", "--terminal")
    alice.say(*["line %d" % number for number in range(1000)])
    assert alice.finish() == (0, "")
    lines = bob.until("QUIT Quit")
    texts = [line.partition(" PRIVMSG #lobby :")[2] for line in lines if " PRIVMSG " in line]
    assert texts == ["line %d" % number for number in range(1000)]


def test_questions_before_quit_are_answered(room, start):
    alice = start(address(room), "--username", "alice", "--terminal")
    alice.say("Hello from a pipe", "/list", "/quit")
    alice.expect("[alice]: Hello from a pipe", "[SERVER]: Online users (1): alice")
    assert alice.finish() == (0, "")


def test_quit_waits_for_a_slow_server(open_room, start):
    room = open_room(rate_limit=40)
    bob = room.irc("bob")
    alice = start(address(room), "--username", "alice", "--terminal")
    alice.say(*["line %d" % number for number in range(150)], "/quit", "not said")
    assert alice.finish() == (0, "")
    assert sum(" PRIVMSG " in line for line in bob.until("QUIT Quit")) == 150


def test_end_of_input_does_not_wait_for_a_stuck_server(start):
    script = (
        "import sys; sys.path.insert(0, %r)\n"
        "import client; client.END_TIME = 0.3; sys.exit(client.main())" % str(PROGRAM.parent)
    )
    with closing(ScriptedServer()) as hub:
        arguments = ("127.0.0.1:%d" % hub.port, "--username", "alice", "--terminal")
        alice = start(*arguments, command=("-c", script))
        hub.welcome()
        alice.say("hello?")
        code, errors = alice.finish()
    words = "The server does not answer: 1 of your messages may not have arrived.\n"
    assert (code, errors) == (1, words)


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (lambda hub: hub.finish(), "The connection was lost"),
        (
            lambda hub: hub.send(":hub 465 alice :You are banned, by root: noise."),
            "You are banned, by root: noise",
        ),
    ],
    ids=["lost", "banned"],
)
def test_end_of_a_pipe_says_what_may_be_lost(start, end, reason):
    with closing(ScriptedServer()) as hub:
        alice = start("127.0.0.1:%d" % hub.port, "--username", "alice", "--terminal")
        hub.welcome()
        alice.say("one", "two")
        hub.expect("PRIVMSG #lobby :two")
        end(hub)
        words = "%s: 2 of your messages may not have arrived.\n" % reason
        assert alice.finish() == (1, words)


def test_lines_of_other_rooms_begin_with_their_name(room, join):
    bob = room.irc("bob")
    bob.send("JOIN #tea")
    alice = join("alice")
    alice.say("/join #tea")
    alice.expect("[SERVER]: alice joined #tea")
    bob.send("PRIVMSG #tea :in here", "PRIVMSG #lobby :out there", "PRIVMSG alice :psst")
    alice.expect("[bob]: in here", "#lobby [bob]: out there", "[bob -> you]: psst")
    alice.say("to the tea", "/leave")
    alice.expect("#tea [alice]: to the tea", "[SERVER]: alice left #tea")
    bob.send("PRIVMSG #lobby :back again")
    alice.expect("[bob]: back again")


def test_lines_after_a_join_are_said_in_that_room(room, start):
    bob = room.irc("bob")
    bob.send("JOIN #tea")
    alice = start(address(room), "--username", "alice", "--terminal")
    alice.say("to all", "/join #tea", "in here", "/me sits down", "/leave", "to all again")
    assert alice.finish() == (0, "")
    said = [line for line in bob.until("QUIT Quit") if line.startswith(":alice!")]
    assert [line.partition(" ")[2] for line in said if " JOIN #lobby" not in line] == [
        "PRIVMSG #lobby :to all",
        "JOIN #tea",
        "PRIVMSG #tea :in here",
        "PRIVMSG #tea :\x01ACTION sits down\x01",
        "PART #tea",
        "PRIVMSG #lobby :to all again",
        "QUIT Quit",
    ]


def test_lines_after_a_refused_join_are_said_nowhere(room, start):
    bob = room.irc("bob")
    bob.send("JOIN #tea", "MODE #tea +i")
    bob.until("MODE #tea :+i")
    alice = start(address(room), "--username", "alice", "--terminal")
    alice.say("/join #tea", "the secret", "/me whispers", "@bob let me in")
    alice.expect("[SERVER]: #tea is open to invited users only. Its operators can invite you.")
    alice.expect("[you -> bob]: let me in")
    alice.say("still here?", "/join #cup", "alone")
    alice.expect("[SERVER]: You are not in #tea. Type /join #tea")
    alice.expect("[SERVER]: alice joined #cup", "[alice]: alone")
    assert alice.finish() == (0, "")
    said = [line for line in bob.until("QUIT Quit") if line.startswith(":alice!")]
    assert [line.partition(" ")[2] for line in said if " JOIN " not in line] == [
        "PRIVMSG bob :let me in",
        "QUIT Quit",
    ]


def test_earlier_messages_are_printed_on_joining(open_room, start, tmp_path):
    room = open_room(data=str(tmp_path))
    bob = room.irc("bob")
    bob.send("PRIVMSG #lobby :one", "PRIVMSG #lobby :two")
    bob.heard()
    alice = start(address(room), "--username", "alice", "--terminal")
    alice.expect(
        "[SERVER]: Earlier in #lobby:", "[bob]: one", "[bob]: two", "[SERVER]: That was all."
    )
    alice.say("/history 1")
    alice.expect("[SERVER]: Earlier in #lobby:", "[SERVER]: That was all.")


def test_each_line_is_printed_once(room, start):
    alice = start(address(room), "--username", "alice", "--terminal")
    alice.say("one", "two", "/quit")
    output, _ = alice.process.communicate(timeout=TIMEOUT)
    lines = [line.partition("] ")[2] for line in output.decode().splitlines()]
    assert sorted(lines) == sorted(set(lines))
    assert {"[alice]: one", "[alice]: two", "[SERVER]: alice joined the chat"} < set(lines)


def test_own_message_before_the_first_room_is_printed_once(start):
    with closing(ScriptedServer()) as hub:
        alice = start("127.0.0.1:%d" % hub.port, "--username", "alice", "--terminal")
        hub.accept().send(":hub 001 alice :Welcome", ":hub 422 alice :No MOTD")
        alice.say("@bob psst")
        hub.expect("PING sent-1")
        hub.send("PONG hub :sent-1", ":alice!a@h JOIN #lobby")
        alice.expect("[you -> bob]: psst")
        assert alice.line() == "[SERVER]: alice joined the chat"


def test_last_line_without_an_end_is_sent(room, start):
    bob = room.irc("bob")
    alice = start(address(room), "--username", "alice", "--terminal")
    alice.process.stdin.write(b"no end")
    assert alice.finish() == (0, "")
    bob.expect(" PRIVMSG #lobby :no end")


def test_pipes_are_utf_8_whatever_the_locale(room, start):
    bob = room.plain("bob")
    alice = start(address(room), "--terminal")
    alice.say("élodie", "é 李 😀")
    alice.expect("[élodie]: é 李 😀")
    bob.expect("[élodie]: é 李 😀")
    bob.send("😀 李 é")
    alice.expect("[bob]: 😀 李 é")
    alice.process.stdin.write(b"caf\xe9\n")
    assert alice.finish() == (0, "")
    bob.expect("[élodie]: caf\ufffd")


def test_long_line_is_split_or_refused(room, start):
    bob = room.irc("bob")
    alice = start(address(room), "--username", "alice", "--terminal")
    text = " ".join("word%d" % number for number in range(2000))
    alice.say(text, "x" * 50000)
    alice.expect("[SERVER]: Lines of more than 20000 characters are not sent.")
    assert alice.finish() == (0, "")
    lines = [line.partition(" PRIVMSG #lobby :")[2] for line in bob.until("QUIT Quit")]
    assert "".join(lines) == text


@pytest.mark.skipif(os.name == "nt", reason="Windows closes no streams")
@pytest.mark.parametrize("stream", ["<&-", ">&-", "2>&-"])
def test_closed_standard_streams_do_no_harm(room, stream):
    command = '"$@" ' + stream
    bob = room.irc("bob")
    args = [str(PROGRAM), address(room), "--username", "alice", "--terminal"]
    with subprocess.Popen(
        ["sh", "-c", command, "sh", sys.executable, *args], stdin=PIPE, stdout=PIPE, stderr=PIPE
    ) as process:
        _, errors = process.communicate(b"hello\n", timeout=TIMEOUT)
    assert (process.returncode, errors) == (0, b"")
    assert any("PRIVMSG" in line for line in bob.until("QUIT Quit")) == (stream != "<&-")


def test_first_line_is_the_username_if_none_is_given(room, start):
    bob = room.irc("bob")
    alice = start(address(room), "--terminal")
    alice.say("alice", "Hello!")
    assert alice.finish() == (0, "")
    bob.expect(":alice!alice@127.0.0.1 PRIVMSG #lobby :Hello!")


def test_missing_username_is_an_error_in_words(room, start):
    code, errors = start(address(room), "--terminal").finish()
    assert code == 1
    assert errors.count("\n") == 1


def test_port_without_a_listener_is_an_error_in_words(start):
    with closed_port() as port:
        alice = start("127.0.0.1:%d" % port, "--username", "alice", "--terminal")
        words = "Nothing is listening at 127.0.0.1:%d. Is server.py running there?\n" % port
        assert alice.finish() == (1, words)


def test_wrong_username_is_an_error_in_words(room, start):
    alice = start(address(room), "--terminal")
    alice.say("two words", "hi")
    words = "A name has no spaces. How about two-words?\n"
    assert alice.finish() == (1, words)


def test_username_in_use_is_an_error_in_words(room, start):
    room.irc("alice")
    alice = start(address(room), "--username", "alice", "--terminal")
    words = "“alice” is already here. Try another name, for example alice2.\n"
    assert alice.finish() == (1, words)


def test_stopped_server_is_an_error_in_words(room, join):
    alice = join("alice")
    room.stop()
    assert alice.process.wait(TIMEOUT) == 1
    assert alice.finish() == (1, "The host has ended the chat\n")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--username", "not a name"], "A name has no spaces. How about not-a-name?"),
        (["--username", "1two"], "A name begins with a letter."),
        (["--username", "server"], "server is a reserved name."),
        (["--username", "x" * 33], "A name has at most 32 characters."),
        (["office:port"], "A server is written as 192.168.1.20"),
        (["--theme", "pink"], "invalid choice"),
    ],
)
def test_impossible_command_line_is_refused(start, args, words):
    code, errors = start("--terminal", *args).finish()
    assert code == 2
    assert words in errors
    assert "Traceback" not in errors


def test_closed_output_ends_it_quietly(join, room):
    bob = room.irc("bob")
    alice = join("alice")
    alice.process.stdout.close()
    bob.send("PRIVMSG #lobby :one", "PRIVMSG #lobby :two")
    alice.process.wait(TIMEOUT)
    assert "Traceback" not in alice.process.stderr.read().decode()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process alone")
def test_interrupt_says_goodbye(room, join):
    bob = room.irc("bob")
    alice = join("alice")
    alice.process.send_signal(signal.SIGINT)
    bob.expect(" QUIT Quit")
    assert alice.process.wait(TIMEOUT) == 0


def test_output_is_safe_to_print(start):
    with closing(ScriptedServer()) as hub:
        alice = start("127.0.0.1:%d" % hub.port, "--username", "alice", "--terminal")
        hub.welcome()
        hub.send_bytes(
            b"@time=2026-11-22T17:09:30.1e300Z :bob!b@h PRIVMSG #lobby :dated\r\n"
            b":bob!b@h PRIVMSG #lobby :a\x1b[2Jb\xff\r\n"
            b":bob!b@h PRIVMSG #lobby :last\r\n"
        )
        alice.expect("[bob]: dated", "[bob]: a[2Jb\ufffd", "[bob]: last")
        alice.say("/quit")
        hub.expect("QUIT")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have a display at all times")
def test_without_a_display_the_chat_is_in_the_terminal(room, start):
    alice = start(address(room), "--username", "alice")
    alice.expect("[SERVER]: alice joined the chat")
    code, errors = alice.finish()
    assert code == 0
    assert errors.startswith("There is no window (")
    assert errors.endswith("so you chat in the terminal.\n")
    assert errors.count("\n") == 1


def test_without_tkinter_the_chat_is_in_the_terminal(room, start):
    script = (
        "import sys; sys.modules['tkinter'] = None; sys.path.insert(0, %r)\n"
        "import client; sys.exit(client.main())" % str(PROGRAM.parent)
    )
    alice = start(address(room), "--username", "alice", command=("-c", script))
    alice.expect("[SERVER]: alice joined the chat")
    words = "There is no tkinter here, so you chat in the terminal.\n"
    assert alice.finish() == (0, words)


# At a terminal

at_terminal = pytest.mark.skipif(os.name == "nt", reason="Windows has no pseudo-terminals")


@pytest.fixture
def sit_down():
    """Starts client.py at a terminal."""
    with ExitStack() as stack:

        def sit_down_(port, *args, **options):
            place = ("127.0.0.1:%d" % port, "--terminal")
            return stack.enter_context(closing(PersonsTerminal(*place, *args, **options)))

        yield sit_down_


@at_terminal
@pytest.mark.parametrize("goodbye", ["/quit\n", "\x04"])
def test_person_who_quits_does_not_come_back(room, sit_down, goodbye):
    bob = room.irc("bob")
    alice = sit_down(room.server.port, "--username", "alice").sees("alice joined the chat")
    alice.type("bye\n" + goodbye)
    code, shown = alice.finish()
    assert code == 0
    assert shown.count("[SYSTEM]") == 1  # about the encryption
    heard = [line for line in bob.heard() if "alice!" in line]
    assert [line.split()[1] for line in heard] == ["JOIN", "PRIVMSG", "QUIT"]


@at_terminal
@pytest.mark.parametrize("question", ["Username: ", "Password: "])
@pytest.mark.parametrize("key", ["\x03", "\x04"])
def test_prompts_can_be_interrupted(open_room, sit_down, question, key):
    port = open_room(password="sesame").server.port
    names = () if question == "Username: " else ("--username", "alice")
    alice = sit_down(port, *names).sees(question)
    alice.type(key)
    code, shown = alice.finish()
    assert code == ("\x03", "\x04").index(key)
    assert "Traceback" not in shown


@at_terminal
def test_person_with_a_wrong_username_is_asked_again(room, sit_down):
    alice = sit_down(room.server.port).sees("Username: ")
    alice.type("two words\n")
    alice.sees("How about two-words?\r\nUsername: ")
    alice.type("alice\n")
    alice.sees("alice joined the chat")


@at_terminal
def test_terminal_without_an_encoding_is_utf_8(room, sit_down):
    bob = room.irc("bob")
    alice = sit_down(room.server.port, "--username", "alice").sees("alice joined the chat")
    alice.type("é 李 😀\n")
    bob.expect(" PRIVMSG #lobby :é 李 😀")
    alice.sees("[alice]: é 李 😀")


@at_terminal
def test_person_is_asked_for_a_password_that_the_screen_does_not_show(
    open_room, sit_down, tmp_path
):
    port = open_room(data=str(tmp_path / "kept")).server.port
    alice = sit_down(port, "--username", "alice").sees("alice joined the chat")
    alice.type("/register\n")
    alice.sees("Password: ")
    alice.type("correct horse\n")
    alice.sees("alice is now yours alone.")
    alice.type("/quit\n")
    code, shown = alice.finish()
    assert code == 0
    assert "correct horse" not in shown


@at_terminal
def test_uncertain_message_says_so(sit_down):
    with closing(ScriptedServer()) as hub:
        alice = sit_down(hub.port, "--username", "alice")
        hub.welcome()
        alice.sees("alice joined the chat")
        alice.type("hello?\n")
        hub.expect("PRIVMSG #lobby :hello?")
        hub.finish()
        alice.sees("[alice]: hello?  (waiting to send)")
        hub.welcome()
        alice.sees("[alice]: hello?  (may not have arrived)")


@at_terminal
def test_changed_server_password_ends_it_in_words(sit_down):
    with closing(ScriptedServer()) as hub:
        alice = sit_down(hub.port, "--username", "alice")
        hub.welcome()
        alice.sees("alice joined the chat")
        hub.finish()
        hub.accept().send(":hub 464 alice :Password incorrect")
        code, shown = alice.finish()
    assert code == 1
    assert "This server asks for a password." in shown
    assert "Password: " not in shown


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full device here")
def test_full_disk_is_an_error_in_words(room, start):
    with open("/dev/full", "w", encoding="utf-8") as full:
        alice = start(address(room), "--username", "alice", "--terminal", stdout=full)
        words = "The chat cannot be printed: No space left on device.\n"
        assert alice.finish() == (1, words)
