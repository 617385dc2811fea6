"""The settings: what is saved, where, and what becomes of a damaged file; servers' addresses."""

import json
import logging
import os
import stat
import sys

import pytest

import client
from client import Settings


@pytest.fixture
def path(tmp_path):
    return tmp_path / "config" / "settings.json"


def load(path):
    settings = Settings(str(path))
    settings.load()
    return settings


def test_saved_settings_are_loaded(path):
    settings = load(path)
    settings.name, settings.theme, settings.zoom, settings.sound = "élodie", "light", 125, False
    settings.levels["office/#tea"] = client.NONE
    settings.ignored.append("bob")
    settings.remember("office")
    settings.save()
    assert load(path)._values() == settings._values()
    assert os.listdir(str(path.parent)) == ["settings.json"]


def test_last_server_stands_first_and_few_are_kept(path):
    settings = Settings(str(path))
    for number in [*range(20), 15]:
        settings.remember("server%d" % number)
    assert settings.servers[:3] == ["server15", "server19", "server18"]
    assert len(settings.servers) == client.MAX_SERVERS


def change(settings, changes):
    for name, value in changes.items():
        setattr(settings, name, value)
    settings.save()


BEFORE = {"theme": "dark", "ignored": ["bob", "eve"], "levels": {"x": "all", "y": "all"}}


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        ({"ignored": ["bob", "eve", "mal"]}, {"theme": "light"},
         {"theme": "light", "ignored": ["bob", "eve", "mal"]}),
        ({"theme": "light"}, {"theme": "dark"}, {"theme": "light"}),  # the second has no change
        ({"theme": "light", "zoom": 125}, {"zoom": 150}, {"theme": "light", "zoom": 150}),
        ({"ignored": ["eve"]}, {"ignored": ["bob", "eve", "mal"]}, {"ignored": ["eve", "mal"]}),
        ({"ignored": ["bob", "eve", "mal"]}, {"ignored": []}, {"ignored": ["mal"]}),
        ({"ignored": ["bob", "mal"]}, {"ignored": ["eve", "mal"]}, {"ignored": ["mal"]}),
        ({"levels": {"x": "none", "y": "all"}}, {"levels": {"x": "all", "y": "all", "z": "none"}},
         {"levels": {"x": "none", "y": "all", "z": "none"}}),
        ({"levels": {"x": "none", "y": "all"}}, {"levels": {"x": "mentions", "y": "all"}},
         {"levels": {"x": "mentions", "y": "all"}}),
        ({"levels": {"x": "all"}}, {"levels": {"x": "all", "y": "all", "z": "none"}},
         {"levels": {"x": "all", "z": "none"}}),
        ({"sound": False}, {"name": "al"}, {"sound": False, "name": "al"}),
        ({"pins": {"x": "a" * 64}}, {"pins": {"y": "b" * 64}},
         {"pins": {"x": "a" * 64, "y": "b" * 64}}),
    ],
)  # fmt: skip
def test_windows_keep_the_settings_that_others_change(path, first, second, kept):
    change(load(path), BEFORE)
    windows = load(path), load(path)
    for window, changes in zip(windows, (first, second)):
        change(window, changes)
    windows[0].save()
    assert load(path)._values() == {**Settings(str(path))._values(), **BEFORE, **kept}
    assert os.listdir(str(path.parent)) == ["settings.json"]


def test_change_after_a_change_of_others_keeps_both(path):
    first, second = load(path), load(path)
    for number in range(3):
        for window, name in ((first, "bob%d"), (second, "eve%d")):
            window.ignored.append(name % number)
            window.save()
    del first.ignored[0]
    first.save()
    assert sorted(load(path).ignored) == ["bob1", "bob2", "eve0", "eve1", "eve2"]


def test_rooms_are_kept_for_servers_that_are_known(path):
    settings = load(path)
    settings.name = "Alice"
    settings.remember("office.example")
    assert settings.keep_rooms("office.example", ["#lobby", "#tea"])
    assert not settings.keep_rooms("office.example:12001", ["#lobby", "#tea"])
    assert not settings.keep_rooms("elsewhere.example", ["#lobby"])
    names = ["#%d" % n for n in range(client.MAX_ROOMS + 1)]
    settings.remember("school.example")
    settings.keep_rooms("school.example", names)
    settings.save()
    kept = {"alice@office.example": ["#lobby", "#tea"]}
    kept["alice@school.example"] = names[: client.MAX_ROOMS]
    assert load(path).rooms == kept
    others = load(path)
    others.keep_rooms("office.example", ["#lobby"])
    others.save()
    settings.keep_rooms("office.example", ["#lobby", "#tea", "#maths"])
    settings.save()
    assert load(path).rooms["alice@office.example"] == ["#lobby", "#maths"]


def test_rooms_are_kept_for_each_user_of_a_computer(path):
    settings = load(path)
    settings.remember("office.example")
    for number in range(client.MAX_VISITS + 1):
        settings.name = "Guest%d" % number
        assert settings.keep_rooms("office.example", ["#lobby", "tina%d" % number])
    settings.save()
    kept = load(path).rooms
    assert len(kept) == client.MAX_VISITS and "guest0@office.example" not in kept
    assert kept["guest9@office.example"] == ["#lobby", "tina9"]


@pytest.mark.skipif(os.name == "nt", reason="there are no such rights")
def test_file_is_for_its_owner_alone(path):
    """It names hidden rooms; also one that an earlier version left open is closed."""
    path.parent.mkdir()
    path.write_text("{}", encoding="utf-8")
    path.chmod(0o644)
    load(path).save()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_rooms_of_forgotten_servers_are_forgotten(path):
    settings = load(path)
    for number in range(client.MAX_SERVERS + 1):
        settings.remember("host%d.example" % number)
        settings.keep_rooms("host%d.example" % number, ["#lobby"])
        settings.save()
    assert len(load(path).rooms) == client.MAX_SERVERS
    assert "@host0.example" not in load(path).rooms


@pytest.mark.parametrize(
    ("kept", "rooms"),
    [
        (["#Tea", "#tea"], ["#tea"]),  # of two windows, between which it was made anew
        (["#a,#b", "#a b", "", 7, None, "&local", ":x", "#ok"], ["#ok"]),
        (
            ["Tina", "tina", "#ok", "*", "a,b", "a b", "-o", "t\nQUIT", "t\u200bx"],
            ["#ok", "tina", "tx"],
        ),
        (["=1", "@#ok", "$$*", "a!b@c", "SERVER", "x" * 99, "t\u0456na", "Zoë"], ["Zoë"]),
    ],
)
def test_names_that_cannot_be_those_of_rooms_or_users_are_not_kept(path, kept, rooms):
    path.parent.mkdir()
    path.write_text(json.dumps({"rooms": {"office.example": kept}}), encoding="utf-8")
    assert load(path).rooms == {"office.example": rooms}


@pytest.mark.parametrize("data", [b"", b"{", b"[1]", b"7", b"null", b"caf\xe9", b"[" * 100000])
def test_damaged_file_is_moved_aside(path, data, caplog):
    path.parent.mkdir()
    path.write_bytes(data)
    with caplog.at_level(logging.WARNING, "hubbub"):
        settings = load(path)
    assert settings.theme == "dark"
    assert len(caplog.records) == 1
    assert (path.parent / "settings.json.broken").read_bytes() == data
    settings.save()
    assert load(path).theme == "dark"


def test_text_is_made_safe_to_show_and_to_save(path, caplog):
    path.parent.mkdir()
    odd = "\ud800\0x"
    found = {"name": odd, "geometry": odd, "servers": [odd], "ignored": [odd]}
    path.write_text(json.dumps({**found, "levels": {odd: client.ALL}}))
    settings = load(path)
    assert (settings.name, settings.servers, settings.ignored) == ("\ufffdx", ["\ufffdx"], [])
    settings.save()
    assert caplog.records == []
    assert load(path)._values() == settings._values()


def test_values_of_the_wrong_kind_are_ignored(path):
    path.parent.mkdir()
    found = {
        "theme": 7,
        "zoom": "big",
        "sound": 1,
        "name": "bob",
        "servers": ["a\x1bb", 3],
        "levels": {"x": "loud", "y": "all"},
        "ignored": ["eve", 3, "two words"],
        "pins": {"a\x1bb": "a" * 64, "b": "", "c": "system", "d": "b" * 63, "e": "B" * 64, "f": 1},
        "rooms": {"x": ["#a", "b d", 3, "#c d", "#e\x1b"], "y": "#a", "z\x1b": []},
        "load": 2,
        "_path": "/tmp/elsewhere",
        "unknown": 1,
    }
    path.write_text(json.dumps(found))
    settings = load(path)
    assert settings._values() == {
        **Settings(str(path))._values(),
        "name": "bob",
        "servers": ["ab"],
        "levels": {"y": "all"},
        "ignored": ["eve"],
        "pins": {"ab": "a" * 64, "b": "", "c": "system"},
        "rooms": {"x": ["#a", "#e"], "z": []},
    }


@pytest.mark.skipif(sys.platform == "win32", reason="folders have other rights")
def test_settings_that_cannot_be_saved_do_no_harm(tmp_path, caplog):
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
@pytest.mark.skipif(os.name == "nt", reason="paths are written otherwise")
def test_settings_are_where_the_system_keeps_them(monkeypatch, platform, variables, expected):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    for name, value in {"HOME": "/home/u", **variables}.items():
        monkeypatch.setenv(name, value)
    assert client.settings_path() == expected


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("office", ("office", client.SERVER_PORT)),
        (" 192.168.1.20 ", ("192.168.1.20", client.SERVER_PORT)),
        ("192.168.1.20:6667", ("192.168.1.20", 6667)),
        ("office:1", ("office", 1)),
        ("office:65535", ("office", 65535)),
        ("::1", ("::1", client.SERVER_PORT)),
        ("fe80::1:6667", ("fe80::1:6667", client.SERVER_PORT)),
        ("[::1]", ("::1", client.SERVER_PORT)),
        ("[::1]:6667", ("::1", 6667)),
        ("irc://office:12001", ("office", 12001)),
        ("irc://[::1]:4000/lobby", ("::1", 4000)),
        ("irc://office", ("office", 6667)),
        ("ircs://office", ("office", 6697)),
        (" ircs://[::1]:4000/lobby", ("::1", 4000)),
        *dict.fromkeys(
            ["", " ", ":", ":80", "office:", "office:0", "office:65536", "irc://", "ircs:///x"]
        ).items(),
        *dict.fromkeys(["office:-1", "office:http", "my office", "[::1]:x", "o:\u00b2"]).items(),
    ],
)
def test_address_of_a_server_is_parsed_or_refused_with_an_example(text, address):
    if address:
        assert client.parse_server(text) == address
    else:
        with pytest.raises(ValueError, match=r"192\.168\.1\.20"):
            client.parse_server(text)
