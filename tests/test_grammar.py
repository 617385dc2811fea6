"""The grammar of IRC's commands: modes, masks, queries, durations, SASL, and their words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import protocol
from protocol import MAX_MODES, ModeChange

# Modes


def changes(text):
    """The changes that "+o alice, -b" stands for."""
    return [
        ModeChange(word[0] == "+", word[1], word[3:]) for word in text.split(", ") if word.strip()
    ]


MODES = [  # parameters, what they mean, and how it is written again
    (("+ov-l", "alice", "bob"), "+o alice, +v bob, -l", None),
    (("+o-b+m", "alice", "*!*@x"), "+o alice, -b *!*@x, +m", None),
    (("m",), "+m", ("+m",)),
    (("b",), "+b", ("+b",)),
    (("+b",), "+b", None),
    (("-b",), "-b", None),
    (("b", "*!*@x"), "+b *!*@x", ("+b", "*!*@x")),
    (("+k", "key"), "+k key", None),
    (("-k", "key"), "-k key", None),
    (("-k",), "-k", None),
    (("+k",), "+k", None),
    (("+l", "20"), "+l 20", None),
    (("-l", "20"), "-l", ("-l",)),
    (("+l",), "+l", None),
    (("+o",), "+o", None),
    (("+imnst",), "+i, +m, +n, +s, +t", None),
    (("+i-m+n",), "+i, -m, +n", None),
    (("+i+m-n-s",), "+i, +m, -n, -s", ("+im-ns",)),
    (("+xo", "alice"), "+x, +o alice", None),
    (("+é",), "+é", None),
    (("+lk", "5", "key"), "+l 5, +k key", None),
    (("+-+-m",), "-m", ("-m",)),
    (("+",), "", ()),
    (("",), "", ()),
    ((), "", ()),
]


@pytest.mark.parametrize(("params", "wanted", "written"), MODES)
def test_modes_are_parsed_and_written(params, wanted, written):
    """Letters take their arguments in order; what is written merges the signs."""
    assert protocol.parse_modes(params) == changes(wanted)
    assert protocol.format_modes(changes(wanted)) == (params if written is None else written)


@pytest.mark.parametrize(("count", "kept"), [(-1, -1), (0, 0), (1, 0)])
@pytest.mark.parametrize("letter", ["o", "b", "x"])
def test_a_command_has_so_many_changes(letter, count, kept):
    """What is too much is dropped, and flags are never too much."""
    names = ["name%d" % i for i in range(MAX_MODES + count)]
    found = protocol.parse_modes(("+" + letter * len(names) + "mn", *names))
    assert len(found) == MAX_MODES + kept + 2
    assert found[-2:] == changes("+m, +n")
    if letter != "x":
        assert [change.arg for change in found[:-2]] == names[:MAX_MODES]


def change_of(letter, adding, arg):
    kind = protocol.ROOM_MODES[letter]
    has_arg = kind != "flag" and (adding or kind != "set")
    return ModeChange(adding, letter, arg if has_arg else "")


CHANGES = st.lists(
    st.builds(
        change_of,
        st.sampled_from(sorted(protocol.ROOM_MODES)),
        st.booleans(),
        st.text("ab*!@+-", min_size=1),
    ),
    max_size=MAX_MODES,
)


@given(CHANGES)
def test_whatever_modes_are_written_are_read_again(found):
    """parse_modes(format_modes(changes)) is the changes."""
    assert protocol.parse_modes(protocol.format_modes(found)) == found


@given(st.lists(st.text(max_size=20), max_size=4))
def test_parse_modes_takes_anything(params):
    """No peer can make it fail, or give it more to do than the command has letters."""
    assert len(protocol.parse_modes(params)) <= len(params[0] if params else "")
