"""The colors and pictures of the window: everything can be read, and is drawn well."""

import collections
import itertools
from math import atan2, cos, degrees, exp, hypot, radians, sin

import pytest

import client
from client import AVATARS, DOTS, FROM_ME, FROM_OTHERS, FROM_SERVER, PALETTES, PRIVATE

NAMES = tuple("name%d" % number for number in range(len(AVATARS)))
WORDS = (
    "text", "muted", "time", FROM_SERVER, FROM_ME, FROM_OTHERS, PRIVATE, "warn", "error", "link",
    *NAMES,
)  # fmt: skip

# The least contrast that WCAG 2.1 asks for, surfaces, and colors on each of them.
CONTRASTS = [
    (4.5, ("chat", "field", "bg", "mention", "code"), WORDS),
    (4.5, ("selection",), ("text",)),  # selected text has this color, whatever its own
    (4.5, ("hover", "selected"), ("text", "muted", FROM_ME)),
    (4.5, ("choice", "chosen"), ("text", "muted")),
    (1.2, ("choice",), ("field",)),  # an answer of a sheet looks like a button
    (4.5, ("banner",), ("banner_text",)),
    (4.5, ("accent", "accent_hover", "accent_pressed", "badge", "mention_badge"), ("on_accent",)),
    (4.5, ("find",), ("text",)),
    (4.5, ("found",), ("on_found",)),
    (4.5, AVATARS, ("#ffffff",)),
    (3.0, ("chat", "bg", "field"), ("outline", "focus")),  # edges of controls, the focus ring
    (3.0, ("bg", "field", "hover", "selected"), tuple(DOTS)),
    (3.0, ("chat", "bg", "hover"), ("ok", "warn")),  # the lock
]
PAIRS = [(least, *pair) for least, *table in CONTRASTS for pair in itertools.product(*table)]


def linear(color):
    """Return red, green and blue of a color, each in proportion to its light."""
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]


def contrast(color, other):
    """Return the contrast of two colors as WCAG 2.1 defines it."""

    def luminance(text):
        parts = zip((0.2126, 0.7152, 0.0722), linear(text))
        return sum(weight * part for weight, part in parts)

    dark, light = sorted((luminance(color), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", sorted(PALETTES))
@pytest.mark.parametrize(("least", "below", "above"), PAIRS)
def test_colors_have_enough_contrast(theme, least, below, above):
    color = PALETTES[theme]
    assert contrast(color.get(below, below), color.get(above, above)) >= least - 0.005


def lab(color):
    """Return a color in CIELAB."""
    red, green, blue = linear(color)
    x = (0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.9505
    y = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    z = (0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.0888
    x, y, z = (p ** (1 / 3) if p > 0.008856 else 7.787 * p + 16 / 116 for p in (x, y, z))
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def difference(color, other):
    """Return how different two colors look: CIE76, the distance in CIELAB."""
    return sum((a - b) ** 2 for a, b in zip(lab(color), lab(other))) ** 0.5


def seen_difference(color, other):
    """Return the same as CIEDE2000, in which vivid colors are nearer to each other."""
    (light, a, b), (other_light, other_a, other_b) = lab(color), lab(other)

    def weight(chroma):
        return (chroma**7 / (chroma**7 + 25**7)) ** 0.5

    grey = 1.5 - weight((hypot(a, b) + hypot(other_a, other_b)) / 2) / 2
    chroma, other_chroma = hypot(a * grey, b), hypot(other_a * grey, other_b)
    hue, other_hue = degrees(atan2(b, a * grey)), degrees(atan2(other_b, other_a * grey))
    turn = (other_hue - hue + 180) % 360 - 180
    middle, mean, level = hue + turn / 2, (chroma + other_chroma) / 2, (light + other_light) / 2
    waves = ((-0.17, 1, -30), (0.24, 2, 0), (0.32, 3, 6), (-0.2, 4, -63))
    wave = 1 + sum(size * cos(radians(n * middle + shift)) for size, n, shift in waves)
    blue = 30 * exp(-((((middle - 275 + 180) % 360 - 180) / 25) ** 2))
    of_light = (other_light - light) / (
        1 + 0.015 * (level - 50) ** 2 / (20 + (level - 50) ** 2) ** 0.5
    )
    of_chroma = (other_chroma - chroma) / (1 + 0.045 * mean)
    of_hue = 2 * (chroma * other_chroma) ** 0.5 * sin(radians(turn / 2)) / (1 + 0.015 * mean * wave)
    crossed = -2 * weight(mean) * sin(radians(2 * blue)) * of_chroma * of_hue
    return (of_light**2 + of_chroma**2 + of_hue**2 + crossed) ** 0.5


@pytest.mark.parametrize(  # as calculators of CIEDE2000 have it
    ("color", "other", "expected"),
    [("#ffffff", "#000000", 100.0), ("#ff0000", "#00ff00", 86.6), ("#0000ff", "#00ff00", 83.2)],
)
def test_differences_are_those_of_the_formula(color, other, expected):
    assert abs(seen_difference(color, other) - expected) < 0.1


@pytest.mark.parametrize("role", [FROM_ME, FROM_SERVER, PRIVATE])
@pytest.mark.parametrize("theme", sorted(PALETTES))
def test_names_of_others_look_like_nobody_elses_lines(theme, role):
    color = PALETTES[theme]
    for name in NAMES:
        assert difference(color[name], color[role]) >= 25, name


@pytest.mark.parametrize("theme", sorted(PALETTES))
def test_names_in_different_colors_look_different(theme):
    for name, other in itertools.combinations(NAMES, 2):
        assert seen_difference(PALETTES[theme][name], PALETTES[theme][other]) >= 19, (name, other)


@pytest.mark.parametrize(
    "width, height, radius", [(216, 34, 8), (20, 20, 10), (7, 5, 9), (1, 1, 0)]
)
def test_box_is_the_same_as_one_drawn_without_mirroring(width, height, radius):
    """Only a quarter of the outlined box is rasterised; the rest mirrors it."""
    shape = "r %d %d %d %d %g"
    radius_ = min(radius, width / 2, height / 2)
    inner = shape % (2, 2, width - 2, height - 2, max(0.0, radius_ - 2))
    layers = [(shape % (0, 0, width, height, radius_), "#ff0000"), (inner, "#0000ff")]
    plain = client.make_png(client.rasterize(width, height, layers))
    if min(width, height) > 4:  # else the outline leaves nothing inside
        assert client.draw_box(width, height, radius, "#0000ff", "#ff0000", 2) == plain
    plain = client.make_png(client.rasterize(width, height, layers[:1]))
    assert client.draw_box(width, height, radius, "#ff0000") == plain


@pytest.mark.parametrize("size", [8, 10, 20])
def test_presence_differs_in_shape(size):
    """Without colors: the disc is full, the crescent open at one side, the ring in the middle."""

    def opacity(color, x, y):
        pen = max(1.15, 24 / size * 0.55)
        rows = client.rasterize(size, size, [(DOTS[color], "#ffffff")], 24 / size, pen)
        return rows[int(y * size)][int(x * size)][3]

    middle, left, right = (0.5, 0.5), (0.15, 0.5), (0.8, 0.4)
    shapes = {
        color: [opacity(color, *place) > 127 for place in (left, middle, right)] for color in DOTS
    }
    ring = [True, False, True]
    assert shapes == {
        "ok": [True] * 3,
        "away": [True, False, False],
        "offline": ring,
        "error": ring,
    }


@pytest.mark.parametrize("name", sorted(client.ICONS))
def test_icon_has_smooth_edges(name):
    rows = client.rasterize(24, 24, [(client.ICONS[name], "#ffffff")], 1, 1.15)
    opacities = [pixel[3] for row in rows for pixel in row]
    assert sum(opacity > 0 for opacity in opacities) > 40
    assert any(0 < opacity < 255 for opacity in opacities)


def test_color_of_a_name_depends_on_the_name_alone():
    """It is the same in every window and after a restart, in any case of letters."""
    names = ("alice", "bob", "carol", "Éva", "\udcff", "")
    assert list(map(client.find_shade, names)) == [0, 4, 3, 4, 6, 0]
    assert client.find_shade("ALICE") == client.find_shade("alice")
    used = collections.Counter(map(client.find_shade, map("user{}".format, range(800))))
    assert sorted(used) == list(range(len(AVATARS))) and max(used.values()) < 150


def test_pictures_of_styles_stay_however_often_the_look_changes(desktop):
    """Tk draws nothing in place of one that is gone: a frame, or the ring of the focus."""
    alice = desktop.open()
    look, patch, names = alice.window.look, alice.window.look._patch, set()
    look._patch = lambda *args: names.add(str(patch(*args))) or patch(*args)
    for theme, zoom in itertools.product(PALETTES, client.ZOOMS):
        look.change(theme, zoom)
    assert len(names) > 40 and names <= set(alice.root.image_names())
