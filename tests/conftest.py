"""Fixtures: a server for a test, and the proof that the test left nothing behind."""

import contextlib
import logging
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent.parent))

from client_harness import ScriptedServer
from harness import Room, count_descriptors
from window_harness import Desktop, Screen

# The same examples each time, however slow the machine is.
settings.register_profile("hubbub", derandomize=True, database=None, deadline=None)
settings.load_profile("hubbub")


class Errors(logging.Handler):
    """Keeps what the program logs as its own mistakes."""

    def __init__(self):
        super().__init__(logging.ERROR)
        self.found = []

    def emit(self, record):
        self.found.append(self.format(record))


@pytest.fixture(autouse=True)
def nothing_stays_behind():
    """No thread, no descriptor, and no mistake in the log is left after a test."""
    errors = Errors()
    logging.getLogger("hubbub").addHandler(errors)
    threads, descriptors = set(threading.enumerate()), count_descriptors()
    yield
    logging.getLogger("hubbub").removeHandler(errors)
    assert set(threading.enumerate()) <= threads
    assert count_descriptors() <= descriptors
    assert errors.found == []


@pytest.fixture(autouse=True)
def data_of_its_own(monkeypatch, tmp_path):
    """Programs that a test starts keep their data in a folder of the test."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def open_room():
    """Opens servers with options of the test's choice; nobody is slowed but on purpose."""
    rooms = []

    def open_(**options):
        rooms.append(Room(**options))
        return rooms[-1]

    yield open_
    for room in rooms:
        room.close()


@pytest.fixture
def room(open_room):
    """A server with everything at its default, but no limit to what one may say a second."""
    return open_room()


@pytest.fixture
def hub():
    """A server that says what the test tells it."""
    with contextlib.closing(ScriptedServer()) as server:
        yield server


@pytest.fixture(scope="session")
def screen():
    """One virtual screen for all tests: Tk cannot open a second one."""
    with contextlib.closing(Screen()) as screen_:
        yield screen_


@pytest.fixture
def desktop(screen):
    """Opens windows; at the end none of their threads and errors may be left."""
    with contextlib.closing(Desktop()) as desktop_:
        yield desktop_


@pytest.fixture
def alice(desktop, hub):
    """Alice at her window, in the lobby of that server, all of whose welcome she has seen."""
    alice = desktop.open(hub.port, "alice", at_once=True)
    hub.welcome()
    desktop.pump(lambda: alice.people == ["alice", "bob"])
    desktop.pump(lambda: alice.root.winfo_width() == 1160)
    return alice
