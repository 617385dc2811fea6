"""Tests of finding servers: the datagrams, who answers them, and what the client makes of them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import protocol
from protocol import MAX_DATAGRAM, QUERY_SIZE, ServerInfo

SCHOOL = ServerInfo("School", 12001, 25, False)
ANSWER = {"hubbub": "answer", "id": "a1", "network": "x", "port": 1, "users": 0, "tls": True}


@pytest.mark.parametrize(
    "announcement",
    [
        SCHOOL,
        ServerInfo("Class 4B", 1, 0, True),
        ServerInfo("\U0001f600" * protocol.MAX_NETWORK, 65535, 10**6, False),
        ServerInfo('"\\' * (protocol.MAX_NETWORK // 2), 65535, 10**6, False),
    ],
)
def test_answers_are_read_as_they_were_made_and_amplify_nothing(announcement):
    query = protocol.make_query("0123456789ab")
    answer = protocol.make_answer(protocol.parse_query(query), announcement)
    assert protocol.parse_answer(answer) == ("0123456789ab", announcement)
    assert len(answer) <= len(query) == QUERY_SIZE


@pytest.mark.parametrize(("size", "is_query"), [(-1, False), (0, True), (1, True)])
def test_query_is_at_least_as_long_as_an_answer(size, is_query):
    data = protocol.make_query("a1").strip().ljust(QUERY_SIZE + size)
    if is_query:
        assert protocol.parse_query(data) == "a1"
    else:
        with pytest.raises(protocol.ProtocolError):
            protocol.parse_query(data)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hubbub", "query"),
        ("hubbub", None),
        ("id", ""),
        ("id", "a" * (protocol.MAX_QUERY_ID + 1)),
        ("id", "a b"),
        ("id", None),
        ("network", ""),
        ("network", "\x1b\u202e"),
        ("network", 1),
        ("network", None),
        ("port", 0),
        ("port", 65536),
        ("port", "80"),
        ("port", True),
        ("port", 1.5),
        ("users", -1),
        ("users", None),
        ("users", float("nan")),
    ],
)
def test_answer_with_a_wrong_field_is_refused(field, value):
    assert protocol.parse_answer(json.dumps(ANSWER).encode())
    with pytest.raises(protocol.ProtocolError):
        protocol.parse_answer(json.dumps(dict(ANSWER, **{field: value})).encode())


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"\xff", b"[" * MAX_DATAGRAM, b" " * MAX_DATAGRAM, b"NaN", b"1" * 99]
)
def test_datagram_of_others_is_refused(data):
    for parse in (protocol.parse_query, protocol.parse_answer):
        with pytest.raises(protocol.ProtocolError):
            parse(data)


@pytest.mark.parametrize(("size", "is_read"), [(-1, True), (0, True), (1, False)])
def test_datagrams_are_read_up_to_their_limit(size, is_read):
    query = protocol.make_query("a1").ljust(MAX_DATAGRAM + size)
    answer = json.dumps(ANSWER).encode().ljust(MAX_DATAGRAM + size)
    for parse, data in ((protocol.parse_query, query), (protocol.parse_answer, answer)):
        if is_read:
            assert parse(data)
        else:
            with pytest.raises(protocol.ProtocolError):
                parse(data)


def test_names_of_networks_are_safe_to_show_and_short():
    data = json.dumps(dict(ANSWER, network=" A\x1b\u202eB" + "c" * 99, users=10**30)).encode()
    _, found = protocol.parse_answer(data)
    assert found.network == protocol.clean("AB" + "c" * 99, protocol.MAX_NETWORK)
    assert found.users == 10**6


@given(st.binary(max_size=600))
def test_any_datagram_is_read_or_refused(data):
    for parse in (protocol.parse_query, protocol.parse_answer):
        try:
            assert parse(data)
        except protocol.ProtocolError:
            pass
