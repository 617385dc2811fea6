"""tests/pictures.py: pictures of the states of the window."""

import shutil
import subprocess
import sys
from pathlib import Path

import pictures
import pytest
from harness import TIMEOUT
from window_harness import cannot


def size_of(picture):
    """Return the width and the height of a picture file, in pixels."""
    command = ["identify", "-format", "%w %h", str(picture)]
    output = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    return tuple(int(number) for number in output.split())


@pytest.mark.parametrize("state", ["connect-name-taken", "lost", "sidebar"])
def test_state_is_photographed_in_both_themes_at_all_its_sizes(tmp_path, state):
    if not (shutil.which("import") and shutil.which("identify") and shutil.which("Xvfb")):
        cannot("there is no Xvfb or no ImageMagick here")
    command = [sys.executable, str(Path(pictures.__file__)), str(tmp_path), "--only", state]
    assert subprocess.run(command, timeout=TIMEOUT).returncode == 0
    sizes = next(sizes for name, sizes, _ in pictures.STATES if name == state)
    wanted = {
        "%s-%s-%d.png" % (state, theme, size[0]): size
        for theme in ("dark", "light")
        for size in sizes
    }
    assert {path.name: size_of(path) for path in tmp_path.iterdir()} == wanted


def test_states_have_different_names():
    names = [name for name, _, _ in pictures.STATES]
    assert len(names) == len(set(names))
