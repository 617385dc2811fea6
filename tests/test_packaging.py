"""What is handed out: the sdist and the wheel, and what the README says to make by hand."""

import configparser
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT

import pytest
from clients_harness import PipedProgram
from test_pythons import PYTHONS

ROOT = Path(__file__).resolve().parent.parent
MODULES = ["client.py", "protocol.py", "server.py"]
README = (ROOT / "README.md").read_text("utf-8")
EXECUTABLES = [sys.executable, PYTHONS[min(PYTHONS)], PYTHONS[max(PYTHONS)]]
BIN = "Scripts" if sys.platform == "win32" else "bin"
SAFELY = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # to unpack

pytestmark = pytest.mark.timeout(180)


def run(*command, cwd=ROOT):
    """Run a command that has to succeed, and return all that it writes."""
    done = subprocess.run(command, cwd=str(cwd), stdin=DEVNULL, stdout=PIPE, stderr=STDOUT)
    output = done.stdout.decode()
    assert done.returncode == 0, output
    return output


def build(kind, source, folder):
    """Build an sdist or a wheel of the tree `source`, and return its path."""
    pytest.importorskip("hatchling", reason="hatchling is in tests/requirements.txt")
    command = [sys.executable, "-W", "error", "-m", "hatchling", "build", "-t", kind, "-d", folder]
    run(*command, cwd=source)
    return next(Path(folder).iterdir())


def readme_block(beginning):
    """Return the code block of the README that begins so."""
    blocks = re.findall(r"^```\w*\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return next(block for block in blocks if block.startswith(beginning))


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """Unpack the sdist, and return its folder."""
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(str(build("sdist", ROOT, str(folder / "dist")))) as archive:
        archive.extractall(str(folder), **SAFELY)
    return next(folder.glob("hubbub-*"))


@pytest.fixture(scope="module")
def wheel(unpacked, tmp_path_factory):
    """Build a wheel from the sdist, as pip does."""
    return build("wheel", unpacked, str(tmp_path_factory.mktemp("wheel")))


def test_sdist_holds_the_tests_and_the_pictures(unpacked):
    expected = [*MODULES, "README.md", "LICENSE", "pyproject.toml"]
    expected += re.findall(r"\.github/[\w./-]+", README)  # its pictures, the workflow
    expected += ["tests/" + path.name for path in (ROOT / "tests").iterdir() if path.is_file()]
    assert [name for name in expected if not (unpacked / name).is_file()] == []


def test_tests_of_the_sdist_run(unpacked):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["tests/test_protocol.py", "-k", "parse_and_serialize"]
    assert " passed" in run(*command, cwd=unpacked)


def test_wheel_holds_the_three_modules_and_a_gui_script(wheel):
    with zipfile.ZipFile(str(wheel)) as archive:
        texts = {Path(name).name: archive.read(name) for name in archive.namelist()}
    assert sorted(name for name in texts if name.endswith(".py")) == MODULES
    assert {name: (ROOT / name).read_bytes() for name in MODULES}.items() <= texts.items()
    assert "LICENSE" in texts
    metadata = texts["METADATA"].decode()
    assert "\nLicense-Expression: MIT\n" in metadata
    assert "\nRequires-Python: >=3.6\n" in metadata
    commands = configparser.ConfigParser()
    commands.read_string(texts["entry_points.txt"].decode())
    assert list(commands["gui_scripts"]) == ["hubbub"]  # Windows opens no console for it
    assert list(commands["console_scripts"]) == ["hubbub-server", "hubbub-terminal"]


@pytest.mark.parametrize("python", EXECUTABLES[:2], ids=["this Python", "oldest Python"])
def test_wheel_installs_and_its_commands_run(python, wheel, room, tmp_path, monkeypatch):
    run(python, "-m", "venv", str(tmp_path / "venv"))
    folder = tmp_path / "venv" / BIN
    run(str(folder / "python"), "-m", "pip", "install", "--no-index", str(wheel), cwd=tmp_path)
    version = "Hubbub %s" % wheel.name.split("-")[1]
    for command in ("hubbub", "hubbub-terminal", "hubbub-server"):
        assert run(str(folder / command), "--version", cwd=tmp_path).strip() == version
    monkeypatch.chdir(tmp_path)
    check_chat(room, tmp_path, str(folder / "hubbub-terminal"))


def check_chat(room, folder, *command):
    """Check that a command, with an address and a name, joins and can talk."""
    bob = room.irc("bob")
    program = PipedProgram(
        folder, "terry", *command, "127.0.0.1:%d" % room.server.port, "--username", "terry"
    )
    with contextlib.closing(program) as terry:
        terry.sees("join", who="terry", channel="the chat")
        terry.say("#lobby", "Hello Bob!")
        bob.expect("PRIVMSG #lobby :Hello Bob!")
        terry.sees("message", who="terry", text="Hello Bob!")
    bob.close()


@pytest.fixture(scope="module")
def zipapp(tmp_path_factory):
    """Make hubbub.pyz with the README's command, and return its path in a folder of its own."""
    folder, empty = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("empty")
    for name in MODULES:
        shutil.copy(str(ROOT / name), str(folder))
    command = re.search(r"`([^`]+ -m zipapp [^`]+)`", README).group(1)
    shell = shutil.which("powershell" if os.name == "nt" else "sh")
    run(shell, "-c", command, cwd=folder)
    return shutil.move(str(folder / "hubbub.pyz"), str(empty))


@pytest.mark.parametrize("python", EXECUTABLES[1:], ids=["oldest Python", "newest Python"])
def test_zipapp_made_by_hand_runs_alone(python, zipapp, room, tmp_path, monkeypatch):
    monkeypatch.chdir(Path(zipapp).parent)
    with zipfile.ZipFile(zipapp) as archive:
        assert sorted(archive.namelist()) == ["__main__.py", *MODULES]
    assert run(python, "hubbub.pyz", "--version", cwd=Path.cwd()).startswith("Hubbub ")
    check_chat(room, tmp_path, python, "hubbub.pyz", "--terminal")


def test_systemd_accepts_the_service(tmp_path):
    program = shutil.which("systemd-analyze")
    if not program or not Path("/usr/bin/python3").exists():
        pytest.skip("needs systemd-analyze and /usr/bin/python3")
    unit = tmp_path / "hubbub.service"
    unit.write_text(readme_block("[Unit]"), "utf-8")
    assert run(program, "verify", str(unit)) == ""


@pytest.mark.parametrize("name", ["client.py", "server.py"])
def test_options_in_the_readme_exist(name):
    options = set(re.findall(r"--[a-z-]+", run(sys.executable, name, "--help")))
    used = re.findall(re.escape(name) + r"( [^`\n]+)", README)
    if name == "server.py":  # named without a command
        used += re.findall(r"`(--[a-z-]+)", README)
    used = set(re.findall(r"(?<!\S)--[a-z-]+", " ".join(used)))
    assert used and used - options == set()
