"""Other chat programs for the tests: WeeChat, irssi, HexChat and nc; ngIRCd and InspIRCd.

Each runs as its users run it, with a home of its own in a folder of the test. WeeChat is driven
through its pipe and irssi by keys, both in a detached terminal (tmux); HexChat, on the virtual
screen, by its remote control. Their output is read from the logs that they keep.

Tests read like a talk: `wendy.command("/join #tea")`, `irma.expect("Now talking")`. They wait for
output, never for time to pass; TIMEOUT only makes a test fail.
"""

import contextlib
import itertools
import os
import re
import socket
import subprocess
import sys
import textwrap
from pathlib import Path
from subprocess import DEVNULL, PIPE

import pytest
from client_harness import wait_until
from harness import TIMEOUT
from run import PACKAGES, find_program

ROOT = Path(__file__).resolve().parent.parent
QUIET = {"stdin": DEVNULL, "stdout": DEVNULL, "stderr": DEVNULL}
_numbers = itertools.count(1)


def require(name):
    """Return the path of a program; skip the test if it is not installed."""
    path = find_program(name)
    if path is None:
        pytest.skip("%s is not installed (Debian: apt install %s)" % (name, PACKAGES[name]))
    return path


def unique(name):
    """Return an unused nickname: the server may still know those of earlier tests."""
    return "%s%d" % (name, next(_numbers))


def write_config(path, text, **fields):
    """Write a configuration file from an indented template."""
    path.write_text(textwrap.dedent(text).lstrip().format(**fields), "utf-8")


def environment(folder, **more):
    """Return the environment of a program: home in `folder`, none of the user's own settings."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("XDG_")}
    for key in ("DISPLAY", "DBUS_SESSION_BUS_ADDRESS", "TMUX", "WEECHAT_HOME", "IRCSERVER"):
        kept.pop(key, None)
    return {**kept, "HOME": str(folder), "LC_ALL": "C.UTF-8", **more}


def add_account(folder, name, password):
    """Add an account with the server's own command line."""
    command = [sys.executable, str(ROOT / "server.py"), "--data", str(folder)]
    command += ["--add-account", name]
    data = (password + "\n").encode()
    subprocess.run(command, input=data, stdout=DEVNULL, timeout=TIMEOUT, check=True)


@contextlib.contextmanager
def closed_on_failure(program):
    """Close a program whose start fails."""
    try:
        yield
    except BaseException:
        program.close()
        raise


class Terminals:
    """Detached terminals, in a tmux server of their own."""

    def __init__(self, folder):
        self._socket = folder / "tmux"
        self._command = [require("tmux"), "-u", "-S", str(self._socket), "-f", os.devnull]
        self._process = subprocess.Popen(
            [*self._command, "-D"], **QUIET, env=environment(folder, TERM="screen")
        )
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

    def end(self, name):
        """End the terminal's program and wait for its exit. Idempotent."""
        pid = self._run("display-message", "-p", "-t", "=%s:" % name, "#{pane_pid}").stdout
        if pid.strip():
            self._run("kill-session", "-t", "=" + name)
            wait_until(lambda: not process_exists(int(pid)))

    def close(self):
        self._process.terminate()
        self._process.wait()


def process_exists(pid):
    """Return True if the process exists, even as a zombie."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


class Program:
    """A chat program and its user: commands to type, and output to expect.

    `PATTERNS` has a regular expression for each event that the program shows; the fields in
    braces are the arguments of `sees`.
    """

    PATTERNS = {}
    BACK = "/away"  # the commands that are not the same in all programs
    LIST = "/list"
    PART = "/part {channel} {reason}"
    PING = "/ping {nickname}"

    def __init__(self, name, folder, logs):
        self.name = name
        self._folder, self._logs = folder, logs
        self._skipped = {}  # {log: characters that `forget` has skipped}

    # Commands

    def command(self, line, channel=""):
        """Type a line in the window of `channel`, or in the server's or current window."""
        raise NotImplementedError

    def say(self, channel, text):
        self.command(text, channel)

    def act(self, channel, text):
        self.command("/me " + text, channel)

    def send_private(self, nickname, text):
        self.command("/msg %s %s" % (nickname, text))

    def come_back(self):
        self.command(self.BACK)

    def list_channels(self):
        self.command(self.LIST)

    def ping(self, nickname):
        """Send a CTCP PING."""
        self.command(self.PING.format(nickname=nickname))

    def join(self, channel):
        """Join a channel, and wait until the program shows it."""
        self.command("/join " + channel)
        self.sees("own join", who=self.name, channel=channel)

    def part(self, channel, reason):
        self.command(self.PART.format(channel=channel, reason=reason))

    # Output

    @property
    def text(self):
        """The output of all windows since `forget`."""
        return "".join(text[self._skipped.get(log, 0) :] for log, text in self._read_logs())

    @property
    def full_text(self):
        """The output of all windows since the start."""
        return "".join(text for _, text in self._read_logs())

    def _read_logs(self):
        for log in sorted(self._folder.glob(self._logs)):
            yield log, log.read_text(encoding="utf-8", errors="replace")

    def forget(self):
        """Expect nothing of the output up to now."""
        self._skipped = {log: len(text) for log, text in self._read_logs()}

    def has(self, *words):
        """Return True if a line contains all of these words, in this order."""
        return self._has(".*".join(map(re.escape, words)))

    def _has(self, pattern):
        return re.search(pattern, self.text, re.MULTILINE) is not None

    def expect(self, *words):
        """Wait for a line that contains all of these words, in this order."""
        self._wait(lambda: self.has(*words), words)

    def sees(self, event, **fields):
        """Wait for an event of `PATTERNS`."""
        fields = {name: re.escape(value) for name, value in fields.items()}
        pattern = self.PATTERNS[event].format(**fields)
        self._wait(lambda: self._has(pattern), pattern)

    def _wait(self, condition, wanted):
        __tracebackhide__ = True
        try:
            self._wait_until(condition)
        except (pytest.fail.Exception, AssertionError):
            pytest.fail("%s never saw %r, but\n%s" % (self.name, wanted, self.text), pytrace=False)

    def _wait_until(self, condition):
        wait_until(condition)


class WeeChat(Program):
    """WeeChat in a terminal, driven through its pipe."""

    PATTERNS = {
        "message": r"^\t[@+]?{who}\t{text}$",
        "action": r"^\t \*\t{who} {text}$",
        "private": r"^\t{who}\t{text}$",
        "own private": r"^\t({name}\t|--\tMSG\({who}\): ){text}$",
        "join": r"^\t-->\t{who} \(.*\) has joined {channel}$",
        "part": r"^\t<--\t{who} \(.*\) has left {channel} \({text}\)$",
        "quit": r"^\t<--\t{who} \(.*\) has quit \(.*{text}\)$",
        "nick": r"^\t--\t{who} is now known as {text}$",
        "own nick": r"^\t--\tYou are now known as {text}$",
        "topic": r"^\t--\t{who} has changed topic for {channel} .*to \"{text}\"$",
        "kick": r"^\t<--\t{who} has kicked {whom} \({text}\)$",
        "own join": r"^\t-->\t{who} \(.*\) has joined {channel}$",
        "op": r"^\t--\tMode {channel} \[\+o {whom}\] by {who}$",
        "banned": r"^\t--\t{channel}: .*ban",
        "not invited": r"^\t--\t{channel}: .*invit",
        "invitation": r"^\t--\tYou have been invited to {channel} by {who}",
        "whois": r"^\t--\t\[{who}\] \(.*@127\.0\.0\.1\): {who}$",
        "whois channels": r"^\t--\t\[{who}\] .*{channel}",
        "whois away": r"^\t--\t\[{who}\] is away: {text}$",
        "whois account": r"^\t--\t\[{who}\] is logged in as {account}$",
        "away": r"^\t--\t\[{who}\] is away: {text}$",
        "own away": r"^\t--\tYou have been marked as being away$",
        "own back": r"^\t--\tYou are no longer marked as being away$",
        "list": r"^\t--\t{channel}\({count}\): {text}$",
        "notice": r"^\t--\t{who}( \(.*\))?: {text}$",
        "pong": r"^\t--\tCTCP reply from {who}: PING ",
    }
    PING = "/ctcp {nickname} ping"
    CONFIG = {
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
            hub.ssl = {tls}
            hub.ssl_fingerprint = "{fingerprint}"
            hub.autoconnect = on
            hub.sasl_username = "{account}"
            hub.sasl_password = "{password}"
            """,
    }

    def __init__(self, terminals, folder, name, port, account="", password="", fingerprint=""):
        program = require("weechat")
        require("/usr/lib/*/weechat/plugins/fifo.so")
        folder.mkdir()
        fields = {"name": name, "port": port, "account": account, "password": password}
        fields.update(fingerprint=fingerprint, tls="on" if fingerprint else "off")
        for file, text in self.CONFIG.items():
            write_config(folder / file, text, **fields)
        super().__init__(name, folder, "logs/*.log")
        self._fifo = folder / "fifo"
        self._terminals = terminals
        terminals.open(name, program, "--dir", str(folder))

    def command(self, line, channel=""):
        window = "irc.hub." + channel if channel else "irc.server.hub"
        wait_until(self._fifo.exists)
        with self._fifo.open("w", encoding="utf-8") as pipe:
            pipe.write("%s *%s\n" % (window, line))

    def close(self):
        self._terminals.end(self.name)


class Irssi(Program):
    """irssi in a terminal, driven by keys."""

    PATTERNS = {
        "message": r"<.?{who}> {text}$",
        "action": r" \* {who} {text}$",
        "private": r"(<.?|\[){who}(\(.*\)\]|>) {text}$",
        "own private": r"(<.?{name}>|\[msg\({who}\)\]) {text}$",
        "join": r"-!- {who} \[.*\] has joined {channel}$",
        "part": r"-!- {who} \[.*\] has left {channel} \[{text}\]$",
        "quit": r"-!- {who} \[.*\] has quit \[.*{text}\]$",
        "nick": r"-!- {who} is now known as {text}$",
        "own nick": r"-!- You're now known as {text}$",
        "topic": r"-!- {who} changed the topic of {channel} to: {text}$",
        "kick": r"-!- {whom} was kicked from {channel} by {who} \[{text}\]$",
        "own join": r"-!- {who} \[.*\] has joined {channel}$",
        "op": r"-!- mode/{channel} \[\+o {whom}\] by {who}$",
        "banned": r"-!- Cannot join to channel {channel} \(You are banned\)$",
        "not invited": r"-!- Cannot join to channel {channel} \(You must be invited\)$",
        "invitation": r"-!- {who}( \[.*\])? invites you to {channel}$",
        "whois": r"-!- {who} \[.*@127\.0\.0\.1\]$",
        "whois channels": r"-!-  channels : .*{channel}",
        "whois away": r"-!-  away     : {text}$",
        "whois account": r"-!-  account  : {account}$",
        "away": r"-!- {who} is away: {text}$",
        "own away": r"-!- You have been marked as being away$",
        "own back": r"-!- You are no longer marked as being away$",
        "list": r"-!- {channel} {count} {text}$",
        "notice": r" -{who}\(.*\)- {text}$",
        "pong": r"CTCP PING reply from {who}: ",
    }
    LIST = "/list -yes"
    CONFIG = """
        servers = ({{ address = "127.0.0.1"; port = "{port}"; chatnet = "hub"; {tls}
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
    TLS = 'use_tls = "yes"; tls_verify = "no"; tls_pinned_cert = "%s";'
    LOGIN = 'sasl_mechanism = "PLAIN"; sasl_username = "%s"; sasl_password = "%s";'

    def __init__(self, terminals, folder, name, port, account="", password="", fingerprint=""):
        program = require("irssi")
        folder.mkdir()
        log = folder / "all.log"
        login = self.LOGIN % (account, password) if account else ""
        pairs = ":".join(re.findall("..", fingerprint.upper()))
        fields = {"name": name, "port": port, "log": log, "login": login}
        fields["tls"] = self.TLS % pairs if pairs else ""
        write_config(folder / "config", self.CONFIG, **fields)
        super().__init__(name, folder, log.name)
        self._terminals = terminals
        self._window = ""
        terminals.open(name, program, "--home=%s" % folder)

    def command(self, line, channel=""):
        if channel not in ("", self._window):
            self._terminals.type(self.name, "/window goto " + channel)
            self._window = channel
        if line.startswith("/join "):
            self._window = ""  # irssi goes to the new channel
        self._terminals.type(self.name, line)

    def close(self):
        self._terminals.end(self.name)


class HexChat(Program):
    """HexChat on the virtual screen, driven by its remote control, which needs a D-Bus."""

    PATTERNS = {
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
        "kick": r"^\*\t{who} has kicked {whom} from {channel} \({text}\)$",
        "own join": r"^\*\tNow talking on {channel}$",
        "op": r"^\*\t{who} gives channel operator status to {whom}$",
        "banned": r"^\*\tCannot join {channel} \(You are banned\)\.$",
        "not invited": r"^\*\tCannot join {channel} \(Channel is invite only\)$",
        "invitation": r"^\*\tYou have been invited to {channel} by {who}",
        "whois": r"^\*\t\[{who}\] \(.*@127\.0\.0\.1\): {who}$",
        "whois channels": r"^\*\t\[{who}\] .*{channel}",
        "whois away": r"^\*\t\[{who}\] is away \({text}\)$",
        "whois account": r"^\*\t\[{who}\] is logged in as {account}$",
        "away": r"^\*\t\[{who}\] is away \({text}\)$",
        "own away": r"^\*\tYou have been marked as being away$",
        "own back": r"^\*\tYou are no longer marked as being away$",
        "list": r"^{channel} +{count} +{text}$",
        "notice": r"^-{who}-\t{text}$",
        "pong": r"^\*\tPing reply from {who}: ",
    }
    BACK = "/back"
    LIST = "/quote LIST"  # its own /list opens a window
    CONFIG = """
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
    FLAGS = 8 + 16  # connect at the start, through no proxy
    GLOBAL = 2  # use the names that all networks share
    TLS = 4 + 32  # with any certificate: HexChat knows no fingerprints
    BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
         "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
        <busconfig>
          <type>session</type>
          <listen>unix:path={socket}</listen>
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

    def __init__(self, screen, folder, name, port, account="", password="", fingerprint=""):
        program = require("hexchat")
        folder.mkdir()
        self._bus = self._start_bus(folder)
        bus = "unix:path=%s" % (folder / "bus")
        self._environment = environment(
            folder, DISPLAY=screen.name, DBUS_SESSION_BUS_ADDRESS=bus, NO_AT_BRIDGE="1"
        )
        login = "I=%s\n" % name + self.LOGIN % (account, password) if account else ""
        flags = self.FLAGS if account else self.FLAGS + self.GLOBAL
        flags += self.TLS if fingerprint else 0
        write_config(folder / "hexchat.conf", self.CONFIG, name=name)
        write_config(folder / "servlist.conf", self.NETWORK, login=login, flags=flags, port=port)
        super().__init__(name, folder, "logs/*.log")
        self._command = [program, "--no-plugins", "--cfgdir", str(folder)]
        self._process = subprocess.Popen(self._command, **QUIET, env=self._environment)
        if os.geteuid() == 0:
            with closed_on_failure(self):
                self._dismiss_warning()

    def _start_bus(self, folder):
        program = require("dbus-daemon")
        write_config(folder / "bus.conf", self.BUS, socket=folder / "bus")
        command = [program, "--config-file=%s" % (folder / "bus.conf"), "--nofork", "--nopidfile"]
        bus = subprocess.Popen(
            [*command, "--print-address"], stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL
        )
        with bus.stdout as address:
            assert address.readline()  # printed when it listens
        return bus

    def _dismiss_warning(self):
        """Close the dialog that warns root at the start."""
        key = [require("xdotool"), "search", "--sync", "--onlyvisible", "--pid"]
        key += [str(self._process.pid), "windowfocus", "key", "Return"]

        def has_started():
            subprocess.run(key, **QUIET, env=self._environment, timeout=TIMEOUT, check=False)
            return bool(self.full_text)

        wait_until(has_started)

    def command(self, line, channel=""):
        line = line[1:] if line.startswith("/") else "say " + line
        if channel:
            line = "doat %s %s" % (channel, line)
        command = [*self._command, "--existing", "--command=" + line]
        subprocess.run(command, **QUIET, env=self._environment, timeout=TIMEOUT, check=True)

    def close(self):
        for process in (self._process, self._bus):
            process.terminate()
            process.wait()


# Events as nc, the terminal and the window of client.py show them.
HUBBUB_PATTERNS = {
    "message": r"\[{who}( in \S+)?\]: {text}$",
    "action": r"\* {who} {text}$",
    "private": r"\[{who} -> you\]: {text}(?:  \(only you two\))?$",
    "own private": r"\[you -> {who}\]: {text}(?:  \(only you two\))?$",
    "join": r"\[SERVER\]: {who} joined {channel}$",
    "own join": r"\[SERVER\]: {who} joined {channel}$",
    "part": r"\[SERVER\]: {who} left {channel}$",
    "quit": r"\[SERVER\]: {who} left the chat$",
    "nick": r"\[SERVER\]: {who} is now called {text}$",
    "own nick": r"\[SERVER\]: .* is now called {text}$",
    "topic": r"\[SERVER\]: {who} set the topic: {text}$",
    "kick": r"\[SERVER\]: {whom} was removed from {channel} by {who}: {text}$",
    "op": r"\[SERVER\]: {who} made {whom} an operator of {channel}$",
    "whois": r"\[SERVER\]: {who} is .* \(.*@127\.0\.0\.1\)$",
    "whois channels": r"\[SERVER\]: {who} is in .*{channel}",
    "whois away": r"\[SERVER\]: {who} is away: {text}$",
    "whois account": r"\[SERVER\]: {who} is logged in as {account}$",
    "away": r"\[SERVER\]: {who} is away: {text}$",
    "own away": r"\[SERVER\]: You are away\.",
    "own back": r"\[SERVER\]: You are back\.$",
    "list": r"\[SERVER\]: {channel} \({count}\): {text}$",
}


class PipedProgram(Program):
    """A program that reads commands from a pipe and prints Hubbub's lines for users."""

    PATTERNS = {event: r"\] " + pattern for event, pattern in HUBBUB_PATTERNS.items()}
    LIST = "/rooms"
    PART = "/leave {reason}"

    def __init__(self, folder, name, *command):
        super().__init__(name, folder, name + ".log")
        with (folder / (name + ".log")).open("wb") as file:
            self._process = subprocess.Popen(
                command, stdin=PIPE, stdout=file, stderr=file, env=environment(folder)
            )

    def command(self, line, channel=""):
        self._process.stdin.write((line + "\n").encode())
        self._process.stdin.flush()

    def close(self):
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()


class Netcat(PipedProgram):
    """nc, after answering the server's question for a username."""

    def __init__(self, folder, name, port):
        super().__init__(folder, name, require("nc"), "127.0.0.1", str(port))
        with closed_on_failure(self):
            self.command(name)
            self.expect("[SERVER]: %s joined the chat" % name)


class TerminalClient(PipedProgram):
    """client.py in a terminal."""

    def __init__(self, folder, name, port):
        address = "127.0.0.1:%d" % port
        program = [sys.executable, str(ROOT / "client.py"), address]
        super().__init__(folder, name, *program, "--username", name, "--terminal")
        with closed_on_failure(self):
            self.expect("[SERVER]: Welcome to")


class WindowClient(Program):
    """client.py's window."""

    PATTERNS = {event: "^" + pattern for event, pattern in HUBBUB_PATTERNS.items()}
    LIST = "/rooms"
    PART = "/leave {reason}"

    def __init__(self, desktop, person, name):
        super().__init__(name, None, "")
        self._desktop, self._person = desktop, person

    def _read_logs(self):
        yield "window", "\n".join(self._person.lines).replace("  (only you)", "")

    def _wait_until(self, condition):
        self._desktop.pump(condition)

    def forget(self):
        """Skip nothing: the transcript is that of the conversation in view."""

    def command(self, line, channel=""):
        self._person.box.delete("1.0", "end")  # a refused line stays there
        self._person.say(line)


class IrcServer:
    """A server on free ports, with its own configuration: `port` for clients, `link_port`."""

    PROGRAM: str
    ARGUMENTS = ["--nodaemon"]  # stay in the foreground
    READY: str  # printed when it listens
    FAILED = "failed to bind"  # printed, but InspIRCd runs on
    CONFIG: str

    def __init__(self, folder, **fields):
        command = [require(self.PROGRAM), *self.ARGUMENTS, "--config", str(folder / "conf")]
        folder.mkdir()
        self._output = folder / "output"
        for _ in range(5):  # another program may take a free port before the server does
            self.port, self.link_port = free_ports()
            ports = {"port": self.port, "link_port": self.link_port}
            write_config(folder / "conf", self.CONFIG, folder=folder, **ports, **fields)
            with self._output.open("wb") as file:
                self._process = subprocess.Popen(command, stdin=DEVNULL, stdout=file, stderr=file)
            with closed_on_failure(self):
                wait_until(lambda: self.READY in self.output or self._process.poll() is not None)
            if self._process.poll() is None and self.FAILED not in self.output:
                return
            self.close()
        pytest.fail(self.output)

    @property
    def output(self):
        return self._output.read_text(errors="replace")

    def close(self):
        self._process.terminate()
        self._process.wait()


def free_ports():
    """Return two ports of the loopback interface that are free now."""
    with socket.socket() as first, socket.socket() as second:
        for probe in (first, second):
            probe.bind(("127.0.0.1", 0))
        return first.getsockname()[1], second.getsockname()[1]


class NgIrcd(IrcServer):
    """ngIRCd."""

    PROGRAM = "ngircd"
    READY = "Now listening on"
    CONFIG = """
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


class InspIrcd(IrcServer):
    """InspIRCd, linked to another: `connects` to its `peer_port`, or waits for it to do so."""

    PROGRAM = "inspircd"
    ARGUMENTS = ["--nofork", "--runasroot"]
    READY = "is now running as"
    CONFIG = """
        <server name="{name}.example" description="{name}" network="Example" id="{number}AA">
        <admin name="The tests" nick="tests" email="tests@example">
        <bind address="127.0.0.1" port="{port}" type="clients">
        <bind address="127.0.0.1" port="{link_port}" type="servers">
        <connect name="all" allow="*" resolvehostnames="no" useident="no" fakelag="no">
        <module name="spanningtree">
        <link name="{peer}.example" ipaddr="127.0.0.1" port="{peer_port}" allowmask="127.0.0.1"
         sendpass="secret" recvpass="secret">
        <autoconnect server="{connects}" period="1">
        <pid file="{folder}/pid">
        <log method="file" type="* -USERINPUT -USEROUTPUT" level="default" target="{folder}/log"
         flush="1">
        """

    def __init__(self, folder, name, number, peer, peer_port=0):
        fields = {"name": name, "number": number, "peer": peer, "peer_port": peer_port or 1}
        fields["connects"] = peer + ".example" if peer_port else ""
        super().__init__(folder, **fields)
        self._log = folder / "log"

    def wait_until_linked(self):
        wait_until(lambda: "end of netburst" in self._log.read_text("utf-8"))
