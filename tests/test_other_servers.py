"""client.py on other IRC servers: ngIRCd, which lacks most of ours, and two linked InspIRCd."""

import contextlib

import pytest
from clients_harness import (
    InspIrcd,
    NgIrcd,
    TerminalClient,
    Terminals,
    WeeChat,
    WindowClient,
    unique,
)
from harness import IrcTalker

pytestmark = pytest.mark.timeout(180)

CHANNEL = "#tea"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("other")


@pytest.fixture(scope="module")
def other(folder):
    with contextlib.closing(NgIrcd(folder / "ngircd")) as server:
        yield server


@pytest.fixture
def irene(other):
    """A plain IRC client that has joined the channel before all others."""
    with contextlib.closing(IrcTalker(other.port)) as irene_:
        irene_.nickname = unique("irene")
        irene_.register(irene_.nickname).send("JOIN " + CHANNEL)
        irene_.expect("366 %s %s :End of NAMES list" % (irene_.nickname, CHANNEL))
        yield irene_


@pytest.fixture(scope="module")
def weechat(other, folder):
    """Wendy, connected with WeeChat."""
    with contextlib.ExitStack() as stack:
        terminals = stack.enter_context(contextlib.closing(Terminals(folder)))
        wendy = WeeChat(terminals, folder / "wendy", "wendy", other.port)
        stack.callback(wendy.close)
        wendy.expect("Welcome to")
        yield wendy


@pytest.fixture(params=["terminal", "window"])
def tom(request, other, folder, desktop):
    """Tom, connected with client.py and in no channel."""
    name = unique("tom")
    if request.param == "window":
        tom_ = WindowClient(desktop, desktop.open(other.port, name, at_once=True), name)
        tom_.expect("Welcome to")
        yield tom_
    else:
        with contextlib.closing(TerminalClient(folder, name, other.port)) as tom_:
            yield tom_


def test_everyday_commands_work_on_another_server(tom, irene):
    her, him = irene.nickname, tom.name
    tom.command("/join " + CHANNEL)
    tom.sees("join", who=him, channel=CHANNEL)
    irene.expect("JOIN :" + CHANNEL)
    irene.send("PRIVMSG #tea :Hello Tom!", "PRIVMSG #tea :\x01ACTION waves\x01")
    tom.sees("message", who=her, text="Hello Tom!")
    tom.sees("action", who=her, text="waves")
    tom.say(CHANNEL, "Hello Irene!")
    tom.sees("message", who=him, text="Hello Irene!")
    irene.expect("PRIVMSG #tea :Hello Irene!")
    tom.act(CHANNEL, "bows")
    tom.sees("action", who=him, text="bows")
    irene.expect("PRIVMSG #tea :\x01ACTION bows\x01")
    tom.send_private(her, "psst")
    tom.sees("own private", who=her, text="psst")
    irene.expect("PRIVMSG %s :psst" % her)
    irene.send("PRIVMSG %s :psst yourself" % him)
    tom.sees("private", who=her, text="psst yourself")
    irene.send("TOPIC #tea :Tea for two")
    tom.expect(her + " set the topic: Tea for two")
    tom.command("/whois " + her)
    tom.expect("%s is %s (~%s@127.0.0.1)" % (her, her.title(), her))
    tom.command("/rooms")
    tom.expect("#tea (2): Tea for two")
    tom.command("/list")
    tom.expect("Online users (2): %s, %s" % (her, him))
    tom.command("/away lunch")
    tom.expect("You are away.")
    irene.send("PRIVMSG %s :Are you there?" % him)
    irene.expect("301 %s %s :lunch" % (her, him))
    tom.command("/away")
    tom.expect("You are back.")
    tom.command("/nick new-" + him)
    tom.sees("nick", who=him, text="new-" + him)
    irene.expect("NICK :new-" + him)
    irene.send("NICK new-" + her)
    tom.sees("nick", who=her, text="new-" + her)
    tom.command("/leave")
    irene.expect("PART #tea :")
    tom.command("/quit See you")
    irene.send("PING end")


def test_missing_features_are_refused_in_words_and_cause_no_errors(tom):
    tom.command("/join #tea")
    tom.sees("join", who=tom.name, channel=CHANNEL)
    tom.command("/history")
    tom.expect("This server has no /history.")
    tom.command("/register secret")
    tom.expect("This server has no /register.")
    for word in ("Unknown command", "CAP", "WHO", "MONITOR", "CHATHISTORY"):
        assert not tom.has(word)


def test_weechat_and_client_py_chat_on_another_server(tom, weechat):
    kind = type(tom).__name__
    tom.command("/join " + CHANNEL)
    tom.sees("join", who=tom.name, channel=CHANNEL)
    weechat.join(CHANNEL)
    tom.sees("join", who="wendy", channel=CHANNEL)
    weechat.say(CHANNEL, "from WeeChat to " + kind)
    tom.sees("message", who="wendy", text="from WeeChat to " + kind)
    tom.say(CHANNEL, "to WeeChat from " + kind)
    weechat.sees("message", who=tom.name, text="to WeeChat from " + kind)
    tom.send_private("wendy", "psst from " + kind)
    weechat.sees("private", who=tom.name, text="psst from " + kind)
    weechat.send_private(tom.name, "psst to " + kind)
    tom.sees("private", who="wendy", text="psst to " + kind)
    weechat.part(CHANNEL, "done")
    tom.expect("wendy left " + CHANNEL)


@pytest.fixture
def network(tmp_path):
    """Return the ports of two linked servers."""
    with contextlib.ExitStack() as stack:
        east = InspIrcd(tmp_path / "east", "east", 1, peer="west")
        stack.callback(east.close)
        west = InspIrcd(tmp_path / "west", "west", 2, peer="east", peer_port=east.link_port)
        stack.callback(west.close)
        for server in (east, west):
            server.wait_until_linked()
        yield east.port, west.port


def test_clients_on_two_linked_servers_are_in_one_chat(network, tmp_path, desktop):
    east, west = network
    wanda = WindowClient(desktop, desktop.open(east, "wanda", at_once=True), "wanda")
    wanda.expect("Welcome to")
    with contextlib.closing(TerminalClient(tmp_path, "terry", west)) as terry:
        wanda.join(CHANNEL)
        terry.join(CHANNEL)
        wanda.sees("join", who="terry", channel=CHANNEL)
        wanda.say(CHANNEL, "Hello Terry!")
        terry.sees("message", who="wanda", text="Hello Terry!")
        terry.say(CHANNEL, "Hello Wanda!")
        wanda.sees("message", who="terry", text="Hello Wanda!")
        terry.send_private("wanda", "psst")
        wanda.sees("private", who="terry", text="psst")
        wanda.send_private("terry", "psst yourself")
        terry.sees("private", who="wanda", text="psst yourself")
        terry.command("/list")
        terry.expect("Online users (2): terry, wanda")
        terry.command("/quit")
        wanda.sees("quit", who="terry", text="")
