"""WeeChat, irssi and HexChat, as their users run them, beside client.py's window and nc."""

import contextlib
import ssl

import pytest
from clients_harness import (
    HexChat,
    Irssi,
    Netcat,
    Terminals,
    WeeChat,
    WindowClient,
    add_account,
    unique,
)
from harness import Process

import protocol

pytestmark = pytest.mark.timeout(180)  # the first test waits for all programs to start

PASSWORD = "correct horse battery"
KINDS = [WeeChat, Irssi, HexChat]
NAMES = ["wendy", "irma", "harry"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder for the files of all programs."""
    return tmp_path_factory.mktemp("clients")


@pytest.fixture(scope="module")
def server(folder):
    """A server for all tests; fails if it logs an exception."""
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
    """Start an IRC client, and wait for the server's welcome."""
    with contextlib.ExitStack() as stack:

        def start_(kind, name, *login, until="Welcome to", fingerprint=""):
            display = request.getfixturevalue("screen" if kind is HexChat else "terminals")
            given = (display, folder / name, name, server.port, *login)
            client = kind(*given, fingerprint=fingerprint)
            stack.callback(client.close)
            client.expect(until)
            return client

        yield start_


@pytest.fixture(scope="module")
def started(start):
    return [start(kind, name) for kind, name in zip(KINDS, NAMES)]


@pytest.fixture
def irc_users(started):
    """Wendy with WeeChat, Irma with irssi and Harry with HexChat, all in the lobby."""
    for client in started:
        client.forget()
    return started


@pytest.fixture
def nora(server, folder):
    """Nora, with nc."""
    with contextlib.closing(Netcat(folder, unique("nora"), server.port)) as nora_:
        yield nora_


@pytest.fixture
def alice(desktop, server):
    """Alice, at client.py's window."""
    name = unique("alice")
    return WindowClient(desktop, desktop.join(server.port, name), name)


@pytest.fixture
def users(irc_users, nora, alice):
    """A user of each program, all in the lobby."""
    return [*irc_users, nora, alice]


@pytest.fixture
def stranger(server):
    """A client that is only in the lobby."""
    with contextlib.closing(server.irc("stranger")) as stranger_:
        yield stranger_


def pairs_of(users):
    return [(user, other) for user in users for other in users if user is not other]


# In the lobby


def test_message_and_action_are_shown_to_all_and_to_the_sender(users):
    for sender in users:
        sender.say("#lobby", "hello from " + sender.name)
        sender.act("#lobby", "waves with " + sender.name)
    for user in users:
        for sender in users:
            user.sees("message", who=sender.name, text="hello from " + sender.name)
            user.sees("action", who=sender.name, text="waves with " + sender.name)


def test_private_message_is_shown_to_sender_and_recipient_alone(users):
    texts = {
        (sender, recipient): "psst %s, %s here" % (recipient.name, sender.name)
        for sender, recipient in pairs_of(users)
    }
    for (sender, recipient), text in texts.items():
        sender.send_private(recipient.name, text)
    for (sender, recipient), text in texts.items():
        recipient.sees("private", who=sender.name, text=text)
        sender.sees("own private", who=recipient.name, name=sender.name, text=text)
    for user in users:
        assert not any(user.has(text) for pair, text in texts.items() if user not in pair)


def test_rename_is_shown_to_all_and_used_for_later_messages(users):
    for user in users:
        renamed = user.name + "2"
        for before, after in ((user.name, renamed), (renamed, user.name)):
            user.command("/nick " + after)
            user.sees("own nick", text=after)
            user.say("#lobby", "I am %s now" % after)
            for other in users:
                if other is not user:
                    other.sees("nick", who=before, text=after)
                    other.sees("message", who=after, text="I am %s now" % after)


@pytest.mark.parametrize(("kind", "name"), list(zip(KINDS, ["will", "ida", "hal"])))
def test_quit_is_shown_to_all(start, users, kind, name):
    """With the reason, in programs that show reasons."""
    start(kind, name).command("/quit see you")
    for user in users:
        user.sees("quit", who=name, text="see you")


def test_quit_with_nc_is_shown_with_its_reason(irc_users, server, folder):
    with contextlib.closing(Netcat(folder, "noel", server.port)) as noel:
        noel.command("/quit see you")
        for user in irc_users:
            user.sees("quit", who="noel", text="see you")
        noel.expect("Goodbye.")


def test_away_reason_is_shown_to_private_senders_and_in_whois(users):
    for absent in users:
        reason = "gone to " + absent.name
        absent.command("/away " + reason)
        absent.sees("own away")
        for other in users:
            if other is not absent:
                other.send_private(absent.name, "are you there?")
                other.sees("away", who=absent.name, text=reason)
                other.forget()
                other.command("/whois " + absent.name)
                other.sees("whois away", who=absent.name, text=reason)
        absent.come_back()
        absent.sees("own back")


# In other channels


@pytest.fixture
def join_all(users):
    """Join all users to a channel; they leave it at the end."""
    channels = []

    def join_all_(channel):
        channels.append(channel)
        for user in users:
            user.join(channel)
        for user in users[:-1]:
            user.sees("join", who=users[-1].name, channel=channel)
        return users

    yield join_all_
    for user in users:
        for channel in channels:
            user.part(channel, "done")


def test_join_and_part_are_shown_to_members(users):
    members = []
    for user in users:
        user.join("#come")
        for member in members:
            member.sees("join", who=user.name, channel="#come")
        members.append(user)
    for user in users:
        members.remove(user)
        user.part("#come", "tea for " + user.name)
        for member in members:
            member.sees("part", who=user.name, channel="#come", text="tea for " + user.name)


def test_channel_message_reaches_members_alone(join_all, stranger):
    members = join_all("#aside")
    for sender in members:
        sender.say("#aside", "only here, says " + sender.name)
    for member in members:
        for sender in members:
            member.sees("message", who=sender.name, text="only here, says " + sender.name)
    assert not any("only here" in line for line in stranger.heard())


def test_topic_is_shown_to_members_with_its_author(join_all, irc_users):
    members = join_all("#topics")
    for author in members:
        text = "set by %s today" % author.name
        author.command(("/topic #topics " if author in irc_users else "/topic ") + text)
        for member in members:
            member.sees("topic", who=author.name, channel="#topics", text=text)


def test_list_shows_member_count_and_topic(join_all):
    members = join_all("#listed")
    members[0].command("/topic #listed what is listed")
    for member in members:
        member.sees("topic", who=members[0].name, channel="#listed", text="what is listed")
    for member in members:
        member.list_channels()
        member.sees("list", channel="#listed", count="5", text="what is listed")


def test_whois_shows_name_address_and_channels(join_all):
    for user, other in pairs_of(join_all("#known")):
        user.command("/whois " + other.name)
        user.sees("whois", who=other.name)
        user.sees("whois channels", who=other.name, channel="#known")


def test_notice_and_ctcp_ping_pass_between_clients(irc_users):
    wendy, irma, harry = irc_users
    for sender, recipient in ((wendy, harry), (harry, wendy), (irma, wendy)):
        sender.command("/notice %s note from %s" % (recipient.name, sender.name))
        recipient.sees("notice", who=sender.name, text="note from " + sender.name)
        sender.ping(recipient.name)
        sender.sees("pong", who=recipient.name)


# Moderation


@pytest.mark.parametrize("name", NAMES)
def test_chanop_can_op_kick_ban_and_invite(irc_users, name):
    """With each program's own commands."""
    founder, helper, guest = sorted(irc_users, key=lambda user: user.name != name)
    channel = "#of-" + name
    mask = guest.name + "!*@*"
    for user in (founder, helper, guest):
        user.join(channel)
    founder.sees("join", who=guest.name, channel=channel)
    founder.command("/op " + helper.name, channel)
    helper.sees("op", who=founder.name, whom=helper.name, channel=channel)
    founder.command("/kick %s enough" % guest.name, channel)
    helper.sees("kick", who=founder.name, whom=guest.name, channel=channel, text="enough")
    helper.command("/ban " + mask, channel)
    founder.expect(mask)
    guest.command("/join " + channel)
    guest.sees("banned", channel=channel)
    founder.command("/unban " + mask, channel)
    founder.command("/mode %s +i" % channel, channel)
    helper.expect("+i")
    guest.command("/join " + channel)
    guest.sees("not invited", channel=channel)
    founder.command("/invite %s %s" % (guest.name, channel), channel)
    guest.sees("invitation", who=founder.name, channel=channel)
    guest.join(channel)
    for user in (founder, helper, guest):
        user.part(channel, "done")


# Accounts


@pytest.mark.parametrize(("kind", "name"), list(zip(KINDS, ["olga", "oleg", "otto"])))
def test_sasl_login_is_shown_in_whois(start, folder, irc_users, kind, name):
    add_account(folder / "data", name, PASSWORD)
    owner = start(kind, name, name, PASSWORD)
    owner.expect("logged in")
    for user in irc_users:
        user.command("/whois " + name)
        user.sees("whois account", who=name, account=name)
    owner.close()


@pytest.mark.parametrize(("kind", "name"), list(zip(KINDS, ["wrong-w", "wrong-i", "wrong-h"])))
def test_sasl_with_wrong_password_shows_the_refusal(start, folder, kind, name):
    add_account(folder / "data", name, PASSWORD)
    start(kind, name, name, "not it", until="do not match").close()


@pytest.mark.parametrize(("kind", "name"), list(zip(KINDS, ["wanda", "iris", "hugo"])))
def test_client_joins_encrypted(start, server, folder, kind, name):
    """With the fingerprint that the server's console shows, where the program can compare it."""
    pem = (folder / "data" / "tls.pem").read_text().partition("-----BEGIN CERTIFICATE")
    fingerprint = protocol.fingerprint(ssl.PEM_cert_to_DER_cert("".join(pem[1:])))
    user = start(kind, name, fingerprint=fingerprint)
    with contextlib.closing(server.irc(unique("nick"))) as nick:
        nick.send("WHOIS " + name)
        nick.expect(" %s :is using a secure connection" % name)
        user.say("#lobby", "hello")
        nick.expect(" PRIVMSG #lobby :hello")
    user.close()


@pytest.mark.parametrize(
    ("kind", "name", "refusal"),
    [(WeeChat, "wolf", "fingerprint"), (Irssi, "ivan", "Pinned certificate mismatch")],
)
def test_client_refuses_another_fingerprint(start, kind, name, refusal):
    start(kind, name, fingerprint="ab" * 32, until=refusal).close()


def test_clients_have_sent_no_unknown_commands_or_modes(irc_users):
    for user in irc_users:
        assert "Unknown command" not in user.full_text
        assert "unknown mode" not in user.full_text.lower()
