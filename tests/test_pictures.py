"""The script that takes the pictures of the window still does."""

import struct
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("pictures.py")
SIZES = {"empty-dark-520.png": (520, 720), "empty-light-1160.png": (1160, 720)}


def test_a_state_is_taken_in_each_theme_and_width(tmp_path, screen):
    """Each width, both themes, and something to see."""
    command = [sys.executable, str(SCRIPT), "--only", "empty", "--", str(tmp_path)]
    subprocess.run(command, check=True, timeout=50, stdout=subprocess.DEVNULL)
    found = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(found) == 6
    for name, size in SIZES.items():
        assert struct.unpack(">II", found[name][16:24]) == size
        assert len(found[name]) > 5000
