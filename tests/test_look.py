"""The colors and pictures of the window: everything can be read, and is drawn well."""

import itertools

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


def difference(color, other):
    """Return how different two colors look: CIE76, the distance in CIELAB."""

    def lab(text):
        red, green, blue = linear(text)
        x = (0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.9505
        y = 0.2126 * red + 0.7152 * green + 0.0722 * blue
        z = (0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.0888
        x, y, z = (p ** (1 / 3) if p > 0.008856 else 7.787 * p + 16 / 116 for p in (x, y, z))
        return 116 * y - 16, 500 * (x - y), 200 * (y - z)

    return sum((a - b) ** 2 for a, b in zip(lab(color), lab(other))) ** 0.5


@pytest.mark.parametrize("role", [FROM_ME, FROM_SERVER, PRIVATE])
@pytest.mark.parametrize("theme", sorted(PALETTES))
def test_names_of_others_look_like_nobody_elses_lines(theme, role):
    color = PALETTES[theme]
    for name in NAMES:
        assert difference(color[name], color[role]) >= 25, name


@pytest.mark.parametrize("theme", sorted(PALETTES))
def test_names_in_different_colors_look_different(theme):
    for name, other in itertools.combinations(NAMES, 2):
        assert difference(PALETTES[theme][name], PALETTES[theme][other]) >= 20, (name, other)


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


ALIKE = [name for name in map("user{}".format, range(999)) if not client.Shades.preferred(name)]


def test_names_have_colors_of_their_own_as_long_as_there_are_any():
    """In any case of letters, and after a change of the nickname."""
    shades = client.Shades()
    assert sorted(map(shades.of, ALIKE[:8])) == list(range(8))
    assert shades.of(ALIKE[0]) == shades.of(ALIKE[8]) == 0
    assert shades.of(ALIKE[3].upper()) == shades.of(ALIKE[3])
    shades.rename(ALIKE[3], ALIKE[9].upper())
    assert shades.of(ALIKE[9]) == shades.of(ALIKE[3]) == 3
    assert list(map(shades.of, ALIKE[:8])) == list(map(shades.of, ALIKE[:8]))
