"""Fixtures: servers, windows, and the check that a test leaves nothing behind."""

import contextlib
import logging
import threading

import pytest
from client_harness import Responder, ScriptedServer
from harness import Room, count_descriptors
from hypothesis import settings
from window_harness import Desktop, Screen

import client
import server

# The same examples in every run, without a time limit for slow machines.
settings.register_profile("hubbub", derandomize=True, database=None, deadline=None)
settings.load_profile("hubbub")


class ErrorLog(logging.Handler):
    """Keeps the errors that the program logs."""

    def __init__(self):
        super().__init__(logging.ERROR)
        self.texts = []

    def emit(self, record):
        self.texts.append(self.format(record))


@pytest.fixture(autouse=True)
def nothing_is_left():
    """Fail a test that leaves a thread, a file descriptor or an error in the log."""
    log = ErrorLog()
    logging.getLogger("hubbub").addHandler(log)
    threads, descriptors = set(threading.enumerate()), count_descriptors()
    yield
    logging.getLogger("hubbub").removeHandler(log)
    assert set(threading.enumerate()) <= threads
    assert count_descriptors() <= descriptors
    assert log.texts == []


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """Keep all programs to the test's own folder, and from looking for servers."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HUBBUB_FIND", "")


@pytest.fixture(scope="session")
def make_certificate(tmp_path_factory):
    """Make a key and a self-signed certificate as the server does, and return the file's path."""

    def make():
        try:
            return server.make_certificate(str(tmp_path_factory.mktemp("tls")))
        except server.CertificateError as error:
            return pytest.skip(str(error))

    return make


@pytest.fixture(scope="session")
def certificate(make_certificate):
    """The path of a key and a certificate."""
    return make_certificate()


@pytest.fixture
def open_room():
    """Start servers with the test's options, by default without a rate limit."""
    rooms = []

    def open_(**options):
        rooms.append(Room(**options))
        return rooms[-1]

    yield open_
    for room in rooms:
        room.close()


@pytest.fixture
def room(open_room):
    """A server with the default options, without a rate limit."""
    return open_room()


@pytest.fixture
def hub(monkeypatch):
    """A server that sends what the test tells it to, and need not answer CAP LS."""
    monkeypatch.setattr(client, "CAP_TIME", 0.1)
    with contextlib.closing(ScriptedServer()) as hub_:
        yield hub_


@pytest.fixture
def responder(monkeypatch):
    """The only address that is asked for servers; it answers when the test says so."""
    with contextlib.closing(Responder()) as responder_:
        monkeypatch.setenv("HUBBUB_FIND", responder_.address)
        yield responder_


@pytest.fixture(scope="session")
def screen():
    """A virtual screen for all tests: Tk cannot open another after the first has closed."""
    with contextlib.closing(Screen()) as screen_:
        yield screen_


@pytest.fixture
def desktop(screen):
    """Opens windows; checks at the end that none of their threads or errors is left."""
    with contextlib.closing(Desktop()) as desktop_:
        yield desktop_


@pytest.fixture
def alice(desktop, hub):
    """Alice's window in #lobby, after the server's welcome."""
    alice = desktop.open(hub.port, "alice", at_once=True)
    hub.welcome()
    desktop.pump(lambda: alice.people == ["alice", "bob"])
    desktop.pump(lambda: alice.root.winfo_width() == 1160)  # resizing moves its contents
    return alice
