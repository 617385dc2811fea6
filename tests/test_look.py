"""The window without a screen: everything can be read, and little is redrawn."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client import AVATARS, FROM_ME, FROM_OTHERS, FROM_SERVER, PALETTES, PRIVATE, edits

WORDS = (
    "text", "muted", "time", FROM_SERVER, FROM_ME, FROM_OTHERS, PRIVATE, "warn", "error", "link",
)  # fmt: skip

# What stands on what: surfaces, and the words that are written there.
WRITTEN = [
    (("chat", "field", "bg"), WORDS),
    (("mention",), WORDS),
    (("selection",), ("text",)),  # what is selected is shown in this colour, whoever said it
    (("hover", "selected"), ("text", "muted", FROM_ME)),
    (("banner",), ("banner_text",)),
    (("accent", "accent_hover", "accent_pressed", "badge", "mention_badge"), ("on_accent",)),
    (("find",), ("text",)),
    (("found",), ("on_found",)),
]

# The edges of what one uses, and the ring around what has the focus.
EDGES = [(("chat", "bg", "field"), ("outline", "focus"))]


def contrast(one, other):
    """Of two colours, as WCAG 2.1 defines it."""

    def luminance(color):
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear))

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def pairs(table):
    return [pair for below, above in table for pair in itertools.product(below, above)]


@pytest.mark.parametrize("theme", sorted(PALETTES))
@pytest.mark.parametrize(("below", "above"), pairs(WRITTEN))
def test_words_can_be_read(theme, below, above):
    """4.5 to 1 at least, on everything that they stand on."""
    color = PALETTES[theme]
    assert contrast(color[below], color[above]) >= 4.5 - 0.005


@pytest.mark.parametrize("theme", sorted(PALETTES))
@pytest.mark.parametrize(("below", "above"), pairs(EDGES))
def test_edges_can_be_seen(theme, below, above):
    """3 to 1 at least."""
    color = PALETTES[theme]
    assert contrast(color[below], color[above]) >= 3


@pytest.mark.parametrize("shade", AVATARS)
def test_an_initial_can_be_read_on_every_avatar(shade):
    """They are white."""
    assert contrast(shade, "#ffffff") >= 4.5


def test_both_themes_have_every_colour():
    assert PALETTES["dark"].keys() == PALETTES["light"].keys()


@given(st.lists(st.integers(0, 9), max_size=12), st.lists(st.integers(0, 9), max_size=12))
def test_edits_make_one_list_of_another(old, new):
    """Applied in order, they turn the old one into the new one."""
    made = list(old)
    for row, remove, items in edits(old, new):
        made[row : row + remove] = items
    assert made == new


def test_edits_touch_only_what_differs():
    """Pages that come before, under a line that stays; one that changes; one that moves."""
    page = ["day", *range(100)]
    for new, count in [
        (["day", *range(-50, 0), *range(100)], 50), (["day", *range(30, 100)], 0),
        ([*page[:40], "other", *page[41:]], 1), ([*page[:98], 98, 97], 1), ([*page, 100, 101], 2),
    ]:  # fmt: skip
        assert sum(len(items) for _, _, items in edits(page, new)) == count
