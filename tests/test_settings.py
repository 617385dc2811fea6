"""What the program remembers: where, how, and what it makes of a damaged file."""

import json
import logging
import os
import sys

import pytest

import client
from client import Settings


@pytest.fixture
def path(tmp_path):
    """A file in a folder that does not exist yet."""
    return tmp_path / "config" / "settings.json"


def load(path):
    settings = Settings(str(path))
    settings.load()
    return settings


def test_what_is_saved_comes_back(path):
    """All of it, whatever the alphabet; the folder is made."""
    settings = load(path)
    settings.name, settings.theme, settings.zoom, settings.sound = "élodie", "light", 125, False
    settings.levels["office/#tea"] = client.NONE
    settings.remember("office")
    settings.save()
    assert load(path)._values() == settings._values()
    assert os.listdir(str(path.parent)) == ["settings.json"]


def test_the_last_server_stands_first_and_few_are_kept(path):
    """A server that one goes to again moves up."""
    settings = Settings(str(path))
    for number in [*range(20), 15]:
        settings.remember("server%d" % number)
    assert settings.servers[:3] == ["server15", "server19", "server18"]
    assert len(settings.servers) == client.MAX_SERVERS


def test_two_windows_keep_what_each_has_changed(path):
    """The last to save takes back nothing that the other one has done."""
    load(path).save()
    one, other = load(path), load(path)
    one.theme = "light"
    one.levels["office/#tea"] = client.NONE
    one.remember("office")
    one.save()
    other.zoom = 125
    other.levels["office/#lobby"] = client.ALL
    other.remember("lab")
    other.save()
    one.save()
    found = load(path)
    assert (found.theme, found.zoom) == ("light", 125)
    assert found.levels == {"office/#tea": client.NONE, "office/#lobby": client.ALL}
    assert sorted(found.servers) == ["lab", "office"]


def test_what_was_saved_once_is_not_saved_for_ever(path):
    """What another window changes after it stays, too."""
    one, other = load(path), load(path)
    one.theme, one.levels["office/#tea"] = "light", client.NONE
    one.save()
    other.load()
    other.theme, other.levels["office/#tea"] = "dark", client.ALL
    other.save()
    one.save()
    found = load(path)
    assert (found.theme, found.levels) == ("dark", {"office/#tea": client.ALL})


@pytest.mark.parametrize("data", [b"", b"{", b"[1]", b"7", b"null", b"caf\xe9", b"[" * 100000])
def test_a_file_that_makes_no_sense_is_moved_aside(path, data, caplog):
    """The program starts as on the first day, says so in the log, and keeps the file."""
    path.parent.mkdir()
    path.write_bytes(data)
    with caplog.at_level(logging.WARNING, "hubbub"):
        settings = load(path)
    assert settings.theme == "dark"
    assert len(caplog.records) == 1
    assert (path.parent / "settings.json.broken").read_bytes() == data
    settings.save()
    assert load(path).theme == "dark"


def test_values_of_the_wrong_kind_are_not_taken(path):
    """Each setting alone: what makes sense is used; what is unknown is left out."""
    path.parent.mkdir()
    found = {
        "theme": 7, "zoom": "big", "sound": 1, "name": "bob", "servers": ["a\x1bb", 3],
        "levels": {"x": "loud", "y": "all"}, "_path": "/tmp/elsewhere", "unknown": 1, "load": 2,
    }  # fmt: skip
    path.write_text(json.dumps(found))
    settings = load(path)
    assert settings._values() == {
        **Settings(str(path))._values(), "name": "bob", "servers": ["ab"], "levels": {"y": "all"},
    }  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="folders have other rights there")
def test_what_cannot_be_written_does_not_stop_the_program(tmp_path, caplog):
    """A file in the place of the folder: one line in the log, and life goes on."""
    (tmp_path / "config").write_text("a file")
    settings = Settings(str(tmp_path / "config" / "settings.json"))
    with caplog.at_level(logging.WARNING, "hubbub"):
        settings.load()
        settings.save()
    assert caplog.records


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {"XDG_CONFIG_HOME": "/x"}, "/x/hubbub/settings.json"),
        ("linux", {}, "/home/u/.config/hubbub/settings.json"),
        ("linux", {"XDG_CONFIG_HOME": ""}, "/home/u/.config/hubbub/settings.json"),
        ("darwin", {}, "/home/u/Library/Application Support/Hubbub/settings.json"),
        ("win32", {"APPDATA": "/roaming"}, "/roaming/Hubbub/settings.json"),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="paths are written otherwise there")
def test_the_file_is_where_the_system_keeps_such_things(
    monkeypatch, platform, variables, expected
):
    """One's own configuration folder, by the rules of the platform."""
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    for name, value in {"HOME": "/home/u", **variables}.items():
        monkeypatch.setenv(name, value)
    assert client.settings_path() == expected
