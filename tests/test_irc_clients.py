"""WeeChat, irssi and HexChat, as people run them, in one conversation with a window and nc."""

import contextlib

import pytest
from clients_harness import (
    AtWindow,
    HexChat,
    Irssi,
    Netcat,
    Terminals,
    WeeChat,
    add_account,
    fresh,
)
from harness import Process

pytestmark = pytest.mark.timeout(180)  # the first waits for all of them to start

PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where everything of these programs is kept."""
    return tmp_path_factory.mktemp("clients")


@pytest.fixture(scope="module")
def server(folder):
    """A server for all these tests; it may not make a single mistake."""
    log = folder / "server.log"
    process = Process(log, "--data", str(folder / "data"), "--rate-limit", "0")
    with contextlib.closing(process):
        yield process
    assert "Traceback" not in log.read_text("utf-8")


@pytest.fixture(scope="module")
def terminals(folder):
    with contextlib.closing(Terminals(folder)) as terminals_:
        yield terminals_


@pytest.fixture(scope="module")
def start(request, server, folder):
    """Starts a program, and goes on when it shows that it has been welcomed."""
    with contextlib.ExitStack() as stack:

        def start_(kind, name, *login, until="Welcome to"):
            place = request.getfixturevalue("screen" if kind is HexChat else "terminals")
            program = kind(place, folder / name, name, server.port, *login)
            stack.callback(program.close)
            program.expect(until)
            return program

        yield start_


@pytest.fixture(scope="module")
def weechat(start):
    return start(WeeChat, "wendy")


@pytest.fixture(scope="module")
def irssi(start):
    return start(Irssi, "irma")


@pytest.fixture(scope="module")
def hexchat(start):
    return start(HexChat, "harry")


@pytest.fixture
def wendy(weechat):
    """At WeeChat. What she saw in other tests does not count."""
    weechat.forget()
    return weechat


@pytest.fixture
def irma(irssi):
    """At irssi."""
    irssi.forget()
    return irssi


@pytest.fixture
def harry(hexchat):
    """At HexChat."""
    hexchat.forget()
    return hexchat


@pytest.fixture
def people(wendy, irma, harry):
    """The three, each in turn."""
    return [wendy, irma, harry]


@pytest.fixture
def everybody(wendy, irma, harry, nora, alice):
    """The three, nora with nc, and alice at a window."""
    return [wendy, irma, harry, nora, alice]


@pytest.fixture
def nora(server, folder):
    """A person with nc."""
    with contextlib.closing(Netcat(folder, fresh("nora"), server.port)) as nora_:
        yield nora_


@pytest.fixture
def alice(desktop, server):
    """At a window."""
    name = fresh("alice")
    return AtWindow(desktop, desktop.join(server.port, name), name)


@pytest.fixture
def stranger(server):
    """Somebody who is in the lobby alone."""
    with contextlib.closing(server.irc("stranger")) as stranger_:
        yield stranger_


# In the lobby, where everybody is


def test_everybody_hears_everybody(everybody):
    """What one says or does, all see, each as their program shows it; oneself too."""
    for speaker in everybody:
        speaker.say("#lobby", "hello from " + speaker.name)
        speaker.act("#lobby", "waves with " + speaker.name)
    for listener in everybody:
        for speaker in everybody:
            listener.sees("message", who=speaker.name, text="hello from " + speaker.name)
            listener.sees("action", who=speaker.name, text="waves with " + speaker.name)


def test_everybody_writes_to_everybody(everybody):
    """A private message reaches the one it is for, and nobody else."""
    pairs = [(one, other) for one in everybody for other in everybody if one is not other]
    for one, other in pairs:
        one.write(other.name, "psst %s, %s here" % (other.name, one.name))
    for one, other in pairs:
        text = "psst %s, %s here" % (other.name, one.name)
        other.sees("private", who=one.name, text=text)
        one.sees("own private", who=other.name, name=one.name, text=text)
    for third in everybody:
        for one, other in pairs:
            if third not in (one, other):
                assert not third.has("psst %s, %s here" % (other.name, one.name))


def test_a_new_name_is_seen_by_all(everybody):
    """Whoever renames themselves sees it, as do all others; what they say carries it."""
    for one in everybody:
        for before, after in ((one.name, one.name + "2"), (one.name + "2", one.name)):
            one.command("/nick " + after)
            one.sees("own nick", text=after)
            one.say("#lobby", "I am %s now" % after)
            for other in everybody:
                if other is not one:
                    other.sees("nick", who=before, text=after)
                    other.sees("message", who=after, text="I am %s now" % after)


@pytest.mark.parametrize(("kind", "name"), [(WeeChat, "will"), (Irssi, "ida"), (HexChat, "hal")])
def test_who_quits_is_seen_to_leave(start, everybody, kind, name):
    """With their reason, where the program shows reasons."""
    start(kind, name).command("/quit see you")
    for other in everybody:
        other.sees("quit", who=name, text="see you")


def test_who_quits_with_nc_is_seen_to_leave(people, server, folder):
    """/quit is all that it takes."""
    with contextlib.closing(Netcat(folder, "noel", server.port)) as noel:
        noel.command("/quit see you")
        for other in people:
            other.sees("quit", who="noel", text="see you")
        noel.expect("Goodbye.")


def test_who_is_away_says_so_to_those_who_write_and_ask(everybody):
    """The sender of a private message and who asks are told why; and not after the return."""
    for one in everybody:
        reason = "gone to " + one.name
        one.command("/away " + reason)
        one.sees("own away")
        for other in everybody:
            if other is not one:
                other.write(one.name, "are you there?")
                other.sees("away", who=one.name, text=reason)
                if not isinstance(other, AtWindow):  # its transcript is looked at as a whole
                    other.forget()
                other.command("/whois " + one.name)
                other.sees("whois away", who=one.name, text=reason)
        one.come_back()
        one.sees("own back")


# In rooms


@pytest.fixture
def meet(everybody):
    """They meet in a room, and leave it in the end."""
    rooms = []

    def meet_(room):
        rooms.append(room)
        for one in everybody:
            one.enter(room)
        for one in everybody[:-1]:
            one.sees("join", who=everybody[-1].name, room=room)
        return everybody

    yield meet_
    for one in everybody:
        for room in rooms:
            one.leave_room(room, "done")


def test_coming_and_going_is_seen_by_those_in_the_room(everybody):
    """Joins, and leaves with their reasons, by those who are there."""
    there = []
    for one in everybody:
        one.enter("#come")
        for other in there:
            other.sees("join", who=one.name, room="#come")
        there.append(one)
    for one in everybody:
        there.remove(one)
        one.leave_room("#come", "tea for " + one.name)
        for other in there:
            other.sees("part", who=one.name, room="#come", text="tea for " + one.name)


def test_a_room_is_for_those_in_it(meet, stranger):
    """What is said in a room reaches its members alone."""
    people = meet("#aside")
    for one in people:
        one.say("#aside", "only here, says " + one.name)
    for one in people:
        for other in people:
            one.sees("message", who=other.name, text="only here, says " + other.name)
    assert not any("only here" in line for line in stranger.heard())


def test_a_topic_is_seen_by_all(meet):
    """Who sets it, everybody sees."""
    people = meet("#topics")
    for one in people:
        text = "set by %s today" % one.name
        one.command("/topic " + text if one in people[3:] else "/topic #topics " + text)
        for other in people:
            other.sees("topic", who=one.name, room="#topics", text=text)


def test_the_list_of_rooms_shows_members_and_topics(meet):
    """Each program shows a room's name, how many are in it, and its topic."""
    people = meet("#listed")
    people[0].command("/topic #listed what is listed")
    for one in people:
        one.sees("topic", who=people[0].name, room="#listed", text="what is listed")
    for one in people:
        one.list_rooms()
        one.sees("list", room="#listed", count="5", text="what is listed")


def test_whois_tells_who_and_where(meet):
    """Each sees of each other: name, address, rooms."""
    people = meet("#known")
    for one in people:
        for other in people:
            if one is not other:
                one.command("/whois " + other.name)
                one.sees("whois", who=other.name)
                one.sees("whois rooms", who=other.name, room="#known")


def test_notices_and_programs_questions_pass(wendy, irma, harry):
    """/notice is shown as such, and one program's ping is answered by the other."""
    for one, other in ((wendy, harry), (harry, wendy), (irma, wendy)):  # irssi takes its time
        one.command("/notice %s note from %s" % (other.name, one.name))
        other.sees("notice", who=one.name, text="note from " + one.name)
        one.ping(other.name)
        one.sees("pong", who=other.name)


# Moderation


@pytest.mark.parametrize("operator", ["wendy", "irma", "harry"])
def test_an_operator_makes_operators_kicks_bans_and_invites(people, operator):
    """The one who opened the room may, with the words of every program; all see it."""
    one, two, three = sorted(people, key=lambda person: person.name != operator)
    room = "#of-" + operator
    for person in (one, two, three):
        person.enter(room)
    one.sees("join", who=three.name, room=room)
    one.command("/op " + two.name, room)
    two.sees("op", who=one.name, whom=two.name, room=room)
    one.command("/kick %s enough" % three.name, room)
    for person in (two,):
        person.sees("kick", who=one.name, whom=three.name, room=room, text="enough")
    two.command("/ban %s!*@*" % three.name, room)
    one.expect("%s!*@*" % three.name)
    three.command("/join " + room)
    three.sees("banned", room=room)
    one.command("/unban %s!*@*" % three.name, room)
    one.command("/mode %s +i" % room, room)
    two.expect("+i")
    three.command("/join " + room)
    three.sees("not invited", room=room)
    one.command("/invite %s %s" % (three.name, room), room)
    three.sees("invitation", who=one.name, room=room)
    three.enter(room)
    for person in (one, two, three):
        person.leave_room(room, "done")


# Accounts


@pytest.mark.parametrize("kind", [WeeChat, Irssi, HexChat])
def test_sasl_logs_in(start, server, folder, people, kind):
    """An account's owner is logged in before joining, and others see it."""
    name = {WeeChat: "olga", Irssi: "oleg", HexChat: "otto"}[kind]
    add_account(folder / "data", name, PASSWORD)
    owner = start(kind, name, name, PASSWORD)
    owner.expect("logged in")
    for one in people:
        one.command("/whois " + name)
        one.sees("whois account", who=name, account=name)
    owner.leave()


@pytest.mark.parametrize("kind", [WeeChat, Irssi, HexChat])
def test_sasl_with_a_wrong_password_is_refused(start, server, folder, kind):
    """And the program says so."""
    name = {WeeChat: "wrong-w", Irssi: "wrong-i", HexChat: "wrong-h"}[kind]
    add_account(folder / "data", name, PASSWORD)
    start(kind, name, name, "not it", until="do not belong together").close()


def test_nobody_was_told_of_an_unknown_command(people):
    """All that these programs send by themselves is understood here."""
    for one in people:
        assert "Unknown command" not in one.everything
        assert "unknown mode" not in one.everything.lower()
