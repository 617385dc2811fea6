"""Other people's programs in the tests: WeeChat, irssi, HexChat, nc, and an IRC server, ngIRCd.

Each runs as its users run it, with a home of its own in a folder of the test, and is driven
as it lets itself be driven: WeeChat through its pipe and irssi by keys, both in a terminal
that nobody sees (tmux); HexChat, on the tests' screen, by its own remote control. What they
show is read from the logs that they keep.

They read like a talk: `wendy.command("/join #tea")`, `irma.expect("Now talking")`. Whoever
waits, waits for what a program shows, and TIMEOUT only makes a test fail.
"""

import contextlib
import itertools
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from subprocess import DEVNULL, PIPE

import pytest
from client_harness import wait_until
from harness import TIMEOUT
from run import PACKAGES, find_program

ROOT = Path(__file__).resolve().parent.parent


def find(name):
    """Where a program is. Skips the test where it is not installed."""
    path = find_program(name)
    if path is None:
        pytest.skip("there is no %s here (Debian: apt install %s)" % (name, PACKAGES[name]))
    return path


_numbers = itertools.count(1)


def fresh(name):
    """A nickname that nobody had before: of who has gone, a server may not know it yet."""
    return "%s%d" % (name, next(_numbers))


@contextlib.contextmanager
def closed_on_failure(program):
    """What cannot be begun is ended."""
    try:
        yield
    except BaseException:
        program.close()
        raise


def environment(folder, **more):
    """What a program finds around it: a home of its own, and nothing of whoever runs the tests."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("XDG_")}
    for key in ("DISPLAY", "DBUS_SESSION_BUS_ADDRESS", "TMUX", "WEECHAT_HOME", "IRCSERVER"):
        kept.pop(key, None)
    return {**kept, "HOME": str(folder), "LC_ALL": "C.UTF-8", **more}


class Terminals:
    """Terminals on no screen: a tmux server of our own."""

    def __init__(self, folder):
        self._socket = folder / "tmux"
        self._command = [find("tmux"), "-u", "-S", str(self._socket), "-f", os.devnull]
        self._process = subprocess.Popen(
            [*self._command, "-D"], stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL,
            env=environment(folder, TERM="screen"),
        )  # fmt: skip
        with closed_on_failure(self):
            wait_until(self._socket.exists)

    def _run(self, *words):
        return subprocess.run(
            [*self._command, *words], stdin=DEVNULL, stdout=PIPE, stderr=PIPE, check=False
        )

    def open(self, name, *command):
        """Run a program in a terminal called `name`."""
        done = self._run("new-session", "-d", "-s", name, "-x", "200", "-y", "50", *command)
        assert done.returncode == 0, done.stderr.decode()

    def type(self, name, line):
        """Type a line, and Enter."""
        self._run("send-keys", "-t", "=%s:" % name, "-l", line)
        self._run("send-keys", "-t", "=%s:" % name, "Enter")

    def screen(self, name):
        """What stands on it."""
        return self._run("capture-pane", "-p", "-t", "=%s:" % name).stdout.decode()

    def is_open(self, name):
        """Whether its program runs."""
        return self._run("has-session", "-t", "=" + name).returncode == 0

    def end(self, name):
        """End its program, and wait until it has ended."""
        pid = self._run("display-message", "-p", "-t", "=%s:" % name, "#{pane_pid}").stdout
        if pid.strip():
            self._run("kill-session", "-t", "=" + name)
            wait_until(lambda: not is_running(int(pid)))

    def close(self):
        self._process.terminate()
        self._process.wait()


def is_running(pid):
    """Whether a process is there, be it dead and unburied."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


class Program:
    """Somebody at a chat program: what they do, and what they see.

    `SHOWS` is how the program shows what happens, as regular expressions with the words of
    `sees` in them.
    """

    SHOWS = {}

    def __init__(self, name, folder, logs):
        self.name = name
        self._folder, self._logs = folder, logs
        self._seen = {}  # characters of each log that `forget` has forgotten

    @property
    def text(self):
        """All that it has shown, window by window, since `forget`."""
        return "".join(text[self._seen.get(log, 0) :] for log, text in self._read_logs())

    @property
    def everything(self):
        """All that it has shown, window by window."""
        return "".join(text for _, text in self._read_logs())

    def _read_logs(self):
        for log in sorted(self._folder.glob(self._logs)):
            yield log, log.read_text(encoding="utf-8", errors="replace")

    def forget(self):
        """What has been shown so far is not what is expected."""
        self._seen = {log: len(text) for log, text in self._read_logs()}

    def has(self, *words):
        """Whether there is a line with all of these words, in this order."""
        return self._has(".*".join(map(re.escape, words)))

    def _has(self, pattern):
        return re.search(pattern, self.text, re.MULTILINE) is not None

    def expect(self, *words):
        """See, sooner or later, a line with all of these words, in this order."""
        self._wait(lambda: self.has(*words), words)

    def sees(self, what, **words):
        """See, sooner or later, what is in the table `SHOWS`."""
        words = {name: re.escape(word) for name, word in words.items()}
        pattern = self.SHOWS[what].format(**words)
        self._wait(lambda: self._has(pattern), pattern)

    def _wait(self, condition, wanted):
        __tracebackhide__ = True
        try:
            self._wait_until(condition)
        except (pytest.fail.Exception, AssertionError):
            pytest.fail("%s never saw %r, but\n%s" % (self.name, wanted, self.text), pytrace=False)

    def _wait_until(self, condition):
        wait_until(condition)

    def say(self, room, text):
        self.command("/say " + text, room)

    def act(self, room, text):
        self.command("/me " + text, room)

    def write(self, nickname, text):
        """Say it to one person."""
        self.command("/msg %s %s" % (nickname, text))

    def come_back(self):
        """Be away no longer."""
        self.command("/away")

    def list_rooms(self):
        self.command("/list")

    def ping(self, nickname):
        """Ask another's program for an answer."""
        self.command("/ping " + nickname)

    def leave_room(self, room, reason):
        self.command("/part %s %s" % (room, reason))

    def enter(self, room):
        """Join a room, and see it."""
        self.command("/join " + room)
        self.sees("own join", who=self.name, room=room)


class WeeChat(Program):
    """WeeChat in a terminal, driven through its pipe."""

    SHOWS = {
        "message": r"^\t[@+]?{who}\t{text}$",
        "action": r"^\t \*\t{who} {text}$",
        "private": r"^\t{who}\t{text}$",
        "own private": r"^\t({name}\t|--\tMSG\({who}\): ){text}$",
        "join": r"^\t-->\t{who} \(.*\) has joined {room}$",
        "part": r"^\t<--\t{who} \(.*\) has left {room} \({text}\)$",
        "quit": r"^\t<--\t{who} \(.*\) has quit \(.*{text}\)$",
        "nick": r"^\t--\t{who} is now known as {text}$",
        "own nick": r"^\t--\tYou are now known as {text}$",
        "topic": r"^\t--\t{who} has changed topic for {room} .*to \"{text}\"$",
        "kick": r"^\t<--\t{who} has kicked {whom} \({text}\)$",
        "own join": r"^\t-->\t{who} \(.*\) has joined {room}$",
        "op": r"^\t--\tMode {room} \[\+o {whom}\] by {who}$",
        "banned": r"^\t--\t{room}: .*ban",
        "not invited": r"^\t--\t{room}: .*invit",
        "invitation": r"^\t--\tYou have been invited to {room} by {who}",
        "whois": r"^\t--\t\[{who}\] \(.*@127\.0\.0\.1\): {who}$",
        "whois rooms": r"^\t--\t\[{who}\] .*{room}",
        "whois away": r"^\t--\t\[{who}\] is away: {text}$",
        "whois account": r"^\t--\t\[{who}\] is logged in as {account}$",
        "away": r"^\t--\t\[{who}\] is away: {text}$",
        "own away": r"^\t--\tYou have been marked as being away$",
        "own back": r"^\t--\tYou are no longer marked as being away$",
        "list": r"^\t--\t{room}\({count}\): {text}$",
        "notice": r"^\t--\t{who}( \(.*\))?: {text}$",
        "pong": r"^\t--\tCTCP reply from {who}: PING ",
    }
    CONFIGURATION = {
        "logger.conf": """
            [file]
            flush_delay = 0
            mask = "$name.log"
            path = "${{weechat_data_dir}}/logs"
            time_format = ""
            """,
        "fifo.conf": """
            [file]
            path = "${{weechat_data_dir}}/fifo"
            """,
        "irc.conf": """
            [look]
            server_buffer = independent
            smart_filter = off
            display_pv_away_once = off
            [server_default]
            anti_flood_prio_high = 0
            anti_flood_prio_low = 0
            autoreconnect_delay = 1
            [server]
            hub.addresses = "127.0.0.1/{port}"
            hub.nicks = "{name}"
            hub.username = "{name}"
            hub.realname = "{name}"
            hub.ssl = off
            hub.autoconnect = on
            hub.sasl_username = "{account}"
            hub.sasl_password = "{password}"
            """,
    }

    def __init__(self, terminals, folder, name, port, account="", password=""):
        program = find("weechat")
        find("/usr/lib/*/weechat/plugins/fifo.so")
        folder.mkdir()
        fields = {"name": name, "port": port, "account": account, "password": password}
        for file, text in self.CONFIGURATION.items():
            lines = [line.strip() for line in text.format(**fields).strip().splitlines()]
            (folder / file).write_text("\n".join(lines) + "\n", "utf-8")
        super().__init__(name, folder, "logs/*.log")
        self._fifo = folder / "fifo"
        self._terminals = terminals
        terminals.open(name, program, "--dir", str(folder))

    def command(self, line, room=""):
        """Type a line, in the window of `room` or in the server's."""
        window = "irc.hub." + room if room else "irc.server.hub"
        wait_until(self._fifo.exists)
        with self._fifo.open("w", encoding="utf-8") as pipe:
            pipe.write("%s *%s\n" % (window, line))

    def say(self, room, text):
        self.command(text, room)

    def ping(self, nickname):
        self.command("/ctcp %s ping" % nickname)

    @property
    def is_open(self):
        return self._terminals.is_open(self.name)

    def leave(self):
        """Quit the program itself."""
        self.command("/quit")
        wait_until(lambda: not self.is_open)

    def close(self):
        self._terminals.end(self.name)


class Irssi(Program):
    """irssi in a terminal, driven by keys."""

    SHOWS = {
        "message": r"<.?{who}> {text}$",
        "action": r" \* {who} {text}$",
        "private": r"(<.?|\[){who}(\(.*\)\]|>) {text}$",
        "own private": r"(<.?{name}>|\[msg\({who}\)\]) {text}$",
        "join": r"-!- {who} \[.*\] has joined {room}$",
        "part": r"-!- {who} \[.*\] has left {room} \[{text}\]$",
        "quit": r"-!- {who} \[.*\] has quit \[.*{text}\]$",
        "nick": r"-!- {who} is now known as {text}$",
        "own nick": r"-!- You're now known as {text}$",
        "topic": r"-!- {who} changed the topic of {room} to: {text}$",
        "kick": r"-!- {whom} was kicked from {room} by {who} \[{text}\]$",
        "own join": r"-!- {who} \[.*\] has joined {room}$",
        "op": r"-!- mode/{room} \[\+o {whom}\] by {who}$",
        "banned": r"-!- Cannot join to channel {room} \(You are banned\)$",
        "not invited": r"-!- Cannot join to channel {room} \(You must be invited\)$",
        "invitation": r"-!- {who}( \[.*\])? invites you to {room}$",
        "whois": r"-!- {who} \[.*@127\.0\.0\.1\]$",
        "whois rooms": r"-!-  channels : .*{room}",
        "whois away": r"-!-  away     : {text}$",
        "whois account": r"-!-  account  : {account}$",
        "away": r"-!- {who} is away: {text}$",
        "own away": r"-!- You have been marked as being away$",
        "own back": r"-!- You are no longer marked as being away$",
        "list": r"-!- {room} {count} {text}$",
        "notice": r" -{who}\(.*\)- {text}$",
        "pong": r"CTCP PING reply from {who}: ",
    }
    CONFIGURATION = """
        servers = ({{ address = "127.0.0.1"; port = "{port}"; chatnet = "hub";
                      autoconnect = "yes"; }});
        chatnets = {{ hub = {{ type = "IRC"; nick = "{name}"; {login} }}; }};
        logs = {{ "{log}" = {{ auto_open = "yes"; level = "ALL"; }}; }};
        settings = {{
          core = {{ real_name = "{name}"; user_name = "{name}"; nick = "{name}";
                    server_reconnect_time = "1s"; }};
          "irc/core" = {{ cmd_queue_speed = "1msec"; }};
          "fe-text" = {{ paste_verify_line_count = "0"; }};
        }};
        """
    LOGIN = 'sasl_mechanism = "PLAIN"; sasl_username = "%s"; sasl_password = "%s";'

    def __init__(self, terminals, folder, name, port, account="", password=""):
        program = find("irssi")
        folder.mkdir()
        log = folder / "all.log"
        login = self.LOGIN % (account, password) if account else ""
        text = self.CONFIGURATION.format(name=name, port=port, log=log, login=login)
        (folder / "config").write_text(text, "utf-8")
        super().__init__(name, folder, log.name)
        self._terminals = terminals
        self._window = ""
        terminals.open(name, program, "--home=%s" % folder)

    def command(self, line, room=""):
        """Type a line, in the window of `room` or in the present one."""
        if room not in ("", self._window):
            self._terminals.type(self.name, "/window goto " + room)
            self._window = room
        if line.startswith("/join "):
            self._window = ""
        self._terminals.type(self.name, line)

    def say(self, room, text):
        self.command(text, room)

    def list_rooms(self):
        self.command("/list -yes")

    @property
    def is_open(self):
        return self._terminals.is_open(self.name)

    def leave(self):
        """Quit the program itself."""
        self.command("/quit")
        wait_until(lambda: not self.is_open)

    def close(self):
        self._terminals.end(self.name)


class HexChat(Program):
    """HexChat on the tests' screen, driven by its remote control, which needs a message bus."""

    SHOWS = {
        "message": r"^<{who}>\t{text}$",
        "action": r"^\*\t{who} {text}$",
        "private": r"^(<|\*){who}(>|\*)\t{text}$",
        "own private": r"^(<{name}>|>{who}<)\t{text}$",
        "join": r"^\*\t{who} \(.*\) has joined$",
        "part": r"^\*\t{who} \(.*\) has left \({text}\)$",
        "quit": r"^\*\t{who} has quit \(.*{text}\)$",
        "nick": r"^\*\t{who} is now known as {text}$",
        "own nick": r"^\*\tYou are now known as {text}$",
        "topic": r"^\*\t{who} has changed the topic to: {text}$",
        "kick": r"^\*\t{who} has kicked {whom} from {room} \({text}\)$",
        "own join": r"^\*\tNow talking on {room}$",
        "op": r"^\*\t{who} gives channel operator status to {whom}$",
        "banned": r"^\*\tCannot join {room} \(You are banned\)\.$",
        "not invited": r"^\*\tCannot join {room} \(Channel is invite only\)$",
        "invitation": r"^\*\tYou have been invited to {room} by {who}",
        "whois": r"^\*\t\[{who}\] \(.*@127\.0\.0\.1\): {who}$",
        "whois rooms": r"^\*\t\[{who}\] .*{room}",
        "whois away": r"^\*\t\[{who}\] is away \({text}\)$",
        "whois account": r"^\*\t\[{who}\] is logged in as {account}$",
        "away": r"^\*\t\[{who}\] is away \({text}\)$",
        "own away": r"^\*\tYou have been marked as being away$",
        "own back": r"^\*\tYou are no longer marked as being away$",
        "list": r"^{room} +{count} +{text}$",
        "notice": r"^-{who}-\t{text}$",
        "pong": r"^\*\tPing reply from {who}: ",
    }
    CONFIGURATION = """
        irc_logging = 1
        irc_logmask = %c.log
        stamp_log = 0
        irc_nick1 = {name}
        irc_nick2 = {name}2
        irc_user_name = {name}
        irc_real_name = {name}
        gui_slist_skip = 1
        gui_join_dialog = 0
        net_throttle = 0
        net_auto_reconnect = 1
        net_reconnect_delay = 1
        """
    NETWORK = """
        v=2.16.1

        N=Hub
        {login}E=UTF-8
        F={flags}
        D=0
        S=127.0.0.1/{port}
        """
    LOGIN = "U=%s\nP=%s\nL=6\n"  # 6 is SASL PLAIN
    FLAGS = 8 + 16  # connects by itself, and through no proxy
    GLOBAL = 2  # with the names that all networks share
    BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
         "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
        <busconfig>
          <type>session</type>
          <listen>unix:path={path}</listen>
          <auth>EXTERNAL</auth>
          <policy context="default">
            <allow own="*"/>
            <allow send_destination="*"/>
            <allow receive_sender="*"/>
            <allow send_requested_reply="true"/>
            <allow receive_requested_reply="true"/>
          </policy>
        </busconfig>
        """

    def __init__(self, screen, folder, name, port, account="", password=""):
        program = find("hexchat")
        folder.mkdir()
        self._bus = self._start_bus(folder)
        bus = "unix:path=%s" % (folder / "bus")
        self._environment = environment(
            folder, DISPLAY=screen.name, DBUS_SESSION_BUS_ADDRESS=bus, NO_AT_BRIDGE="1"
        )
        login = "I=%s\n" % name + self.LOGIN % (account, password) if account else ""
        flags = self.FLAGS if account else self.FLAGS + self.GLOBAL
        self._write(folder / "hexchat.conf", self.CONFIGURATION.format(name=name))
        network = self.NETWORK.replace("        ", "").lstrip()
        network = network.format(login=login, flags=flags, port=port)
        (folder / "servlist.conf").write_text(network, "utf-8")
        super().__init__(name, folder, "logs/*.log")
        self._command = [program, "--no-plugins", "--cfgdir", str(folder)]
        self._process = subprocess.Popen(
            self._command, env=self._environment, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL
        )
        if os.geteuid() == 0:
            with closed_on_failure(self):
                self._dismiss_warning()

    def _start_bus(self, folder):
        program = find("dbus-daemon")
        self._write(folder / "bus.conf", self.BUS.format(path=folder / "bus"))
        command = [program, "--config-file=%s" % (folder / "bus.conf"), "--nofork", "--nopidfile"]
        bus = subprocess.Popen(
            [*command, "--print-address"], stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL
        )
        with bus.stdout as address:
            assert address.readline()  # as soon as it listens
        return bus

    def _write(self, path, text):
        path.write_text("\n".join(line.strip() for line in text.strip().splitlines()) + "\n")

    def _dismiss_warning(self):
        """It tells root off in a dialog before it starts."""
        key = [find("xdotool"), "search", "--sync", "--onlyvisible", "--pid"]
        key += [str(self._process.pid), "windowfocus", "key", "Return"]

        def is_gone():
            subprocess.run(
                key, env=self._environment, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL,
                timeout=TIMEOUT, check=False,
            )  # fmt: skip
            return bool(self.everything)

        wait_until(is_gone)

    def command(self, line, room=""):
        """Type a line, in the window of `room` or in the one at the front."""
        line = line[1:] if line.startswith("/") else "say " + line
        if room:
            line = "doat %s %s" % (room, line)
        subprocess.run(
            [*self._command, "--existing", "--command=" + line], env=self._environment,
            stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL, timeout=TIMEOUT, check=True,
        )  # fmt: skip

    def come_back(self):
        self.command("/back")

    def list_rooms(self):
        self.command("/quote LIST")  # its own /list opens a window

    @property
    def is_open(self):
        return self._process.poll() is None

    def leave(self):
        """Quit the program itself."""
        self.command("/killall")
        self._process.wait(TIMEOUT)

    def close(self):
        for process in (self._process, self._bus):
            process.terminate()
            process.wait()


# What nc, client.py's window and its terminal show: the lines for people.
FOR_PEOPLE = {
    "message": r"\[{who}( in \S+)?\]: {text}$",
    "action": r"\* {who} {text}$",
    "private": r"\[{who} -> you\]: {text}$",
    "own private": r"\[you -> {who}\]: {text}$",
    "join": r"\[SERVER\]: {who} joined {room}$",
    "own join": r"\[SERVER\]: {who} joined {room}$",
    "part": r"\[SERVER\]: {who} left {room}$",
    "quit": r"\[SERVER\]: {who} left the chat$",
    "nick": r"\[SERVER\]: {who} is now called {text}$",
    "own nick": r"\[SERVER\]: .* is now called {text}$",
    "topic": r"\[SERVER\]: {who} set the topic: {text}$",
    "kick": r"\[SERVER\]: {whom} was removed from {room} by {who}: {text}$",
    "op": r"\[SERVER\]: {who} made {whom} an operator of {room}$",
    "whois": r"\[SERVER\]: {who} is .* \(.*@127\.0\.0\.1\)$",
    "whois rooms": r"\[SERVER\]: {who} is in .*{room}",
    "whois away": r"\[SERVER\]: {who} is away: {text}$",
    "whois account": r"\[SERVER\]: {who} is logged in as {account}$",
    "away": r"\[SERVER\]: {who} is away: {text}$",
    "own away": r"\[SERVER\]: You are away\.",
    "own back": r"\[SERVER\]: You are back\.$",
    "list": r"\[SERVER\]: {room} \({count}\): {text}$",
}


class Piped(Program):
    """Somebody at a program that reads lines from a pipe and prints what people see."""

    SHOWS = {what: r"\] " + pattern for what, pattern in FOR_PEOPLE.items()}

    def __init__(self, folder, name, *command):
        super().__init__(name, folder, name + ".log")
        with (folder / (name + ".log")).open("wb") as file:
            self._process = subprocess.Popen(
                command, stdin=PIPE, stdout=file, stderr=file, env=environment(folder)
            )

    def command(self, line, room=""):
        """Type a line."""
        self._process.stdin.write((line + "\n").encode())
        self._process.stdin.flush()

    def say(self, room, text):
        self.command(text)

    def list_rooms(self):
        self.command("/rooms")

    def leave_room(self, room, reason):
        self.command("/leave " + reason)

    def close(self):
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()


class Netcat(Piped):
    """A person with nc, who knows nothing but the address."""

    def __init__(self, folder, name, port):
        super().__init__(folder, name, find("nc"), "127.0.0.1", str(port))
        with closed_on_failure(self):
            self.command(name)
            self.expect("[SERVER]: %s joined the chat" % name)


class AtTerminal(Piped):
    """Somebody at client.py without a window."""

    def __init__(self, folder, name, port):
        address = "127.0.0.1:%d" % port
        program = [sys.executable, str(ROOT / "client.py"), address]
        super().__init__(folder, name, *program, "--username", name, "--terminal")
        with closed_on_failure(self):
            self.expect("[SERVER]: Welcome to")


class AtWindow(Program):
    """Somebody at client.py's window."""

    SHOWS = {what: "^" + pattern for what, pattern in FOR_PEOPLE.items()}

    def __init__(self, desktop, person, name):
        super().__init__(name, None, "")
        self._desktop, self._person = desktop, person

    def _read_logs(self):
        yield "window", "\n".join(self._person.lines)

    def _wait_until(self, condition):
        self._desktop.pump(condition)

    def command(self, line, room=""):
        """Type a line, over any that was refused and still stands in the chat box."""
        self._person.box.delete("1.0", "end")
        self._person.say(line)

    def say(self, room, text):
        self.command(text)

    def list_rooms(self):
        self.command("/rooms")

    def leave_room(self, room, reason):
        self.command("/leave " + reason)


class NgIrcd:
    """ngIRCd, with a configuration that is all its own."""

    CONFIGURATION = """
        [Global]
        Name = other.example
        Info = Another server
        Listen = 127.0.0.1
        Ports = {port}
        PidFile =
        MotdPhrase = Hello
        AdminInfo1 = The tests
        [Limits]
        MaxConnectionsIP = 0
        MaxNickLength = 32
        MaxPenaltyTime = 0
        [Options]
        DNS = no
        Ident = no
        PAM = no
        IncludeDir = {folder}
        [Channel]
        Name = #lobby
        Topic = Another server's lobby
        Modes = tn
        """

    def __init__(self, folder):
        program = find("ngircd")
        folder.mkdir()
        self._output = folder / "output"
        for _ in range(5):  # a port that was free may be taken when it comes to it
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.port = probe.getsockname()[1]
            text = self.CONFIGURATION.format(port=self.port, folder=folder)
            (folder / "conf").write_text(text.replace("        ", "").lstrip(), "utf-8")
            with self._output.open("wb") as file:
                self._process = subprocess.Popen(
                    [program, "--nodaemon", "--config", str(folder / "conf")],
                    stdin=DEVNULL, stdout=file, stderr=file,
                )  # fmt: skip
            with closed_on_failure(self):
                wait_until(lambda: self._listens or self._process.poll() is not None)
            if self._process.poll() is None:
                return
        pytest.fail(self._output.read_text(errors="replace"))

    @property
    def _listens(self):
        return "Now listening on" in self._output.read_text(errors="replace")

    def close(self):
        self._process.terminate()
        self._process.wait()


def add_account(folder, name, password):
    """Make an account with the server's own command line."""
    command = [sys.executable, str(ROOT / "server.py"), "--data", str(folder)]
    subprocess.run(
        [*command, "--add-account", name], input=(password + "\n").encode(), stdout=DEVNULL,
        timeout=TIMEOUT, check=True,
    )  # fmt: skip
