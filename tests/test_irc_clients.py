"""WeeChat, irssi and HexChat, as people run them, in one conversation with a window and nc."""

import contextlib

import pytest
from clients_harness import HexChat, Irssi, Netcat, Terminals, WeeChat, add_account
from harness import Process
from window_harness import Desk, Screen

PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where everything of these programs is kept."""
    return tmp_path_factory.mktemp("clients")


@pytest.fixture(scope="module")
def server(folder):
    """A server for all these tests; it may not make a single mistake."""
    log = folder / "server.log"
    process = Process(log, "--data", str(folder / "data"), "--rate-limit", "0")
    with contextlib.closing(process):
        yield process
    assert "Traceback" not in log.read_text("utf-8")


@pytest.fixture(scope="module")
def terminals(folder):
    with contextlib.closing(Terminals(folder)) as terminals_:
        yield terminals_


@pytest.fixture(scope="module")
def screen():
    with contextlib.closing(Screen()) as screen_:
        yield screen_


@pytest.fixture(scope="module")
def start(request, server, folder):
    """Starts a program, and goes on when it has been welcomed."""
    with contextlib.ExitStack() as stack:

        def start_(kind, name, *login):
            place = request.getfixturevalue("screen" if kind is HexChat else "terminals")
            program = kind(place, folder / name, name, server.port, *login)
            stack.callback(program.close)
            program.expect("Welcome to")
            return program

        yield start_


@pytest.fixture(scope="module")
def weechat(start):
    return start(WeeChat, "wendy")


@pytest.fixture(scope="module")
def irssi(start):
    return start(Irssi, "irma")


@pytest.fixture(scope="module")
def hexchat(start):
    return start(HexChat, "harry")


@pytest.fixture
def wendy(weechat):
    """At WeeChat. What she saw in other tests does not count."""
    weechat.forget()
    return weechat


@pytest.fixture
def irma(irssi):
    """At irssi."""
    irssi.forget()
    return irssi


@pytest.fixture
def harry(hexchat):
    """At HexChat."""
    hexchat.forget()
    return hexchat


@pytest.fixture
def people(wendy, irma, harry):
    """The three, each in turn."""
    return [wendy, irma, harry]


@pytest.fixture
def nora(server, folder):
    """A person with nc."""
    with contextlib.closing(Netcat(folder, "nora", server.port)) as nora_:
        yield nora_


@pytest.fixture
def desk(screen):
    """Where windows are opened."""
    with contextlib.closing(Desk()) as desk_:
        yield desk_


@pytest.fixture
def alice(desk, server):
    """At a window."""
    return AtWindow(desk.join(server.port, "alice"))


class AtWindow:
    """A person at a window, who sees what people at other programs see."""

    SHOWS = {
        "message": "[{who}]: {text}",
        "action": "* {who} {text}",
        "private": "[{who} -> you]: {text}",
        "own private": "[you -> {who}]: {text}",
        "join": "[SERVER]: {who} joined the chat",
        "quit": "[SERVER]: {who} left the chat",
        "nick": "[SERVER]: {who} is now called {text}",
        "own nick": "[SERVER]: {who} is now called {text}",
    }
    name = "alice"

    def __init__(self, person):
        self._person = person

    def say(self, room, text):
        self._person.say(text)

    def act(self, room, text):
        self._person.say("/me " + text)

    def write(self, nickname, text):
        self._person.say("@%s %s" % (nickname, text))

    def command(self, line):
        self._person.say(line)

    def sees(self, what, **words):
        self._person.sees(self.SHOWS[what].format(**words))


# In the lobby, where everybody is


def test_everybody_hears_everybody(wendy, irma, harry, alice, nora):
    """What one says or does, all see, each as their program shows it; oneself too."""
    everybody = [wendy, irma, harry, alice, nora]
    for speaker in everybody:
        speaker.say("#lobby", "hello from " + speaker.name)
        speaker.act("#lobby", "waves with " + speaker.name)
    for listener in everybody:
        for speaker in everybody:
            listener.sees("message", who=speaker.name, text="hello from " + speaker.name)
            listener.sees("action", who=speaker.name, text="waves with " + speaker.name)


def test_everybody_writes_to_everybody(wendy, irma, harry, alice, nora):
    """A private message reaches the one it is for, and nobody else."""
    everybody = [wendy, irma, harry, alice, nora]
    pairs = [(one, other) for one in everybody for other in everybody if one is not other]
    for one, other in pairs:
        one.write(other.name, "psst %s, %s here" % (other.name, one.name))
    for one, other in pairs:
        text = "psst %s, %s here" % (other.name, one.name)
        other.sees("private", who=one.name, text=text)
        one.sees("own private", who=other.name, name=one.name, text=text)
    for third in (wendy, irma, harry, nora):
        for one, other in pairs:
            if third not in (one, other):
                assert not third.has("psst %s, %s here" % (other.name, one.name))
