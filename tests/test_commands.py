"""All commands and their answers, as a table.

A row has a client, the lines that it sends, and masks of the lines that it gets. A command, a
numeric or a code of server.py that no row names fails a test below the table.
"""

import ast
import base64
import contextlib
import itertools
import re
from pathlib import Path

import pytest
from harness import IrcTalker

import server

PASSWORD = "correct horse"
ME = ":alice!alice@127.0.0.1 "
BOB = ":bob!bob@127.0.0.1 "
ROOT = ":root!root@127.0.0.1 "
HUB = ":hubbub.local "


def plain(name, password=PASSWORD, authzid=""):
    """Return the parameter of AUTHENTICATE for SASL PLAIN."""
    return base64.b64encode("\0".join((authzid, name, password)).encode()).decode()


def untagged(line):
    return line.partition(" ")[2] if line.startswith("@") else line


def is_like(mask, line):
    """Return True if a line matches the mask, but for its tags, the server and the last colon."""
    line = untagged(line)
    if not mask.startswith(":") and line.startswith(HUB):
        line = line[len(HUB) :]
    return server.MaskSet([mask.replace(" :", " ")]).match(line.replace(" :", " "))


def expect_in_order(masks, lines):
    """Fail unless lines match all masks in order, without a gap except after "…"."""
    rest, is_gap = list(lines), True
    for mask in masks:
        while is_gap and rest and mask != "…" and not is_like(mask, rest[0]):
            rest.pop(0)
        is_gap = mask == "…"
        assert is_gap or (rest and is_like(mask, rest.pop(0))), (mask, lines)


def tags_of(line):
    pairs = (tag.partition("=") for tag in line[1:].partition(" ")[0].split(";"))
    return {key: value for key, _, value in pairs} if line.startswith("@") else {}


MUTED = "You are muted%s, by root%s. You can still read, and write privately to an operator."
OWN_ADDRESS = "FAIL BAN INVALID_TARGET :You cannot ban %s: it is your own address, too."
RANK = "root is an operator of the server"
BANNED_AN_HOUR = "You are banned for 1 hour, by root: Enough."


@pytest.fixture(autouse=True)
def cheap_passwords(monkeypatch):
    """Passwords that cost next to nothing."""
    monkeypatch.setattr(server, "SCRYPT", (16, 8, 1))
    monkeypatch.setattr(server, "UPKEEP_INTERVAL", 0.01)


@pytest.fixture
def kept(open_room, tmp_path):
    """Opens a server with the accounts of root, an operator, and of olga, who is not here."""

    def open_(**options):
        room = open_room(data=str(tmp_path / "kept"), **options)
        with contextlib.suppress(server.AccountExistsError):
            room.server.store.add_account("root", PASSWORD, is_operator=True)
            room.server.store.add_account("olga", PASSWORD)
        return room

    return open_


def operator(room, caps="", nickname="root"):
    """root, who has logged in."""
    root = room.connect(IrcTalker)
    root.send("CAP REQ :sasl " + caps, "NICK " + nickname, "USER root 0 * :Root")
    root.send("AUTHENTICATE PLAIN", "AUTHENTICATE " + plain("root"), "CAP END")
    assert any(" 001 root " in line for line in root.heard())
    return root


# Commands

# What the people of a row have done before it: carol is away, and bob has made the rooms.
SCENE = (
    ("carol", "AWAY :lunch"),
    ("bob", "JOIN #topic,#key,#full,#invited,#banned,#secret,#asked,#quiet,#soon"),
    ("bob", "TOPIC #topic :tea"),
    ("bob", "MODE #topic +t"),
    ("bob", "MODE #key +k sesame"),
    ("bob", "MODE #full +l 1"),
    ("bob", "MODE #invited +i"),
    ("bob", "MODE #banned +b alice"),
    ("bob", "MODE #secret +s"),
    ("bob", "MODE #asked +i"),
    ("bob", "INVITE alice #asked"),
    ("bob", "MODE #quiet +m"),
    ("alice", "JOIN #own,#soon"),
    ("bob", "JOIN #own"),
)

# Who sends: alice, bob, carol, or root, an operator; "new", who has not registered; "bare", alone
# on a server without a folder; "guest", who has not registered where a password is asked for. A
# line like "bob> JOIN #x" is another's; "add-account> bob" and "remove-account> bob" are typed
# where the server runs. The last item of a row is what the first sender receives then: a line, or
# several in this order ("…": any lines between them), or () for nothing.
ABORTED = ("906 dave :SASL authentication aborted", "001 dave *")
ROWS = {
    "any line": [
        ("alice", "TEA", "421 alice TEA :Unknown command"),
        ("alice", "NONEXISTENT_COMMAND", "421 alice NONEXISTENT_COMMAND :Unknown command"),
        ("alice", ":x", "400 alice * :That line is not an IRC message"),
        ("alice", "PING :" + "x" * 9000, "417 alice :Input line was too long"),
        ("alice", "PING :" + "x" * 512, "417 alice :Input line was too long"),
        ("alice", "@+k=" + "x" * 4094 + " PING x", "417 alice :Input line was too long"),
        ("new", "WHOIS bob", "451 * :You have not registered"),
    ],
    "as programs send it": [  # irssi, HexChat and WeeChat
        ("new", "JOIN :", "451 * :You have not registered"),
        ("new", "NICK new", "CAP LS 302", "USER a a a :A", "CAP END", "001 new *"),
        ("new", "CAP REQ :batch sasl", "NICK new", "USER a 0 * :A", "CAP END", "001 new *"),
        ("alice", "MODE #own b", "368 alice #own :End of channel ban list"),
        ("alice", "PING hubbub.local", "PONG hubbub.local :hubbub.local"),
        ("alice", "PING LAG1234567890", "PONG hubbub.local :LAG1234567890"),
        ("alice", "whois bob bob", "311 alice bob bob 127.0.0.1 * :Bob"),
        ("alice", "LIST >4,<10000", ("321 *", "323 *")),
        (
            "alice",
            "WHO #own %cuhsnfdar",
            (
                "354 alice #own alice 127.0.0.1 hubbub.local alice H@ 0 0 :Alice",
                "354 alice #own bob 127.0.0.1 hubbub.local bob H 0 0 :Bob",
                "315 alice #own :End of WHO list",
            ),
        ),
        (
            "alice",
            "WHO #own %chtsunfra,152",
            (
                "354 alice 152 #own alice 127.0.0.1 hubbub.local alice H@ 0 :Alice",
                "354 alice 152 #own bob 127.0.0.1 hubbub.local bob H 0 :Bob",
                "315 alice #own :End of WHO list",
            ),
        ),
    ],
    "ANNOUNCE": [
        ("alice", "ANNOUNCE :tea", "481 alice :Permission denied: you're not an operator"),
        ("root", "ANNOUNCE", "461 root ANNOUNCE :Not enough parameters"),
        ("root", "ANNOUNCE :tea", "NOTICE * :Announcement by root: tea"),
    ],
    "AUTHENTICATE": [
        ("bare", "AUTHENTICATE PLAIN", "904 alice :This server keeps no accounts."),
        ("new", "AUTHENTICATE PLAIN", "AUTHENTICATE " + plain("olga"), "900 * *!user@* olga :*"),
        ("alice", *["AUTHENTICATE PLAIN", "AUTHENTICATE YWJj"] * 5, "904 alice :SASL *"),
        (
            "alice",
            "AUTHENTICATE PLAIN",
            "AUTHENTICATE " + plain("olga"),
            ("900 alice alice!alice@127.0.0.1 olga :*", "903 *"),
        ),
        ("root", "AUTHENTICATE", "461 root AUTHENTICATE :Not enough parameters"),
        ("root", "AUTHENTICATE EXTERNAL", "908 root PLAIN :are available SASL mechanisms"),
        ("root", "AUTHENTICATE EXTERNAL", "904 root :SASL authentication failed"),
        ("root", "AUTHENTICATE PLAIN", "AUTHENTICATE +"),
        ("root", "AUTHENTICATE PLAIN", "AUTHENTICATE *", "906 root :SASL authentication aborted"),
        ("root", "AUTHENTICATE PLAIN", "AUTHENTICATE " + "A" * 401, "905 root :*too long"),
        ("root", "AUTHENTICATE PLAIN", "AUTHENTICATE ???", "904 root :SASL *failed"),
        ("root", "AUTHENTICATE PLAIN", "AUTHENTICATE YWJj", "904 root :SASL *failed"),
        ("root", "AUTHENTICATE PLAIN", "AUTHENTICATE " + plain("root", "x"), "904 root :That *"),
        ("root", "AUTHENTICATE PLAIN", "AUTHENTICATE " + plain("no", "x"), "904 root :That *"),
        (
            "root",
            "AUTHENTICATE PLAIN",
            "AUTHENTICATE " + plain("root", PASSWORD, "alice"),
            "904 root :SASL authentication failed",
        ),
        (
            "root",
            "AUTHENTICATE PLAIN",
            "AUTHENTICATE " + plain("root"),
            "900 root root!root@127.0.0.1 root :You are now logged in as root",
        ),
        ("root", "AUTHENTICATE PLAIN", "AUTHENTICATE " + plain("root"), "903 root :SASL *success*"),
        (
            "root",
            "AUTHENTICATE PLAIN",
            "AUTHENTICATE " + plain("olga"),
            (ROOT + "MODE root -o", "900 root root!root@127.0.0.1 olga :*", "903 root *"),
        ),
        (
            "new",
            "root> BAN olga",
            "CAP REQ sasl",
            "AUTHENTICATE PLAIN",
            "AUTHENTICATE " + plain("olga"),
            ("900 *", "465 * :You are banned, by root.", "ERROR :You are banned, by root."),
        ),
    ],
    "AWAY": [
        ("alice", "AWAY :tea", "306 alice :You have been marked as being away"),
        ("alice", "AWAY :tea", "AWAY", "305 alice :You are no longer marked as being away"),
        ("alice", "AWAY :tea", "PRIVMSG alice :x", "301 alice alice :tea"),
        ("alice", "PRIVMSG carol :hi", "301 alice carol :lunch"),
        ("alice", "INVITE carol #own", ("341 alice carol :#own", "301 alice carol :lunch")),
    ],
    "BAN": [
        ("alice", "BAN bob", "481 alice :Permission denied: you're not an operator"),
        ("root", "BAN", "461 root BAN :Not enough parameters"),
        ("root", "BAN bob soon", "FAIL BAN INVALID_DURATION :A duration is *"),
        ("root", "BAN bob 2 hours", "FAIL BAN INVALID_DURATION :A duration is *"),
        ("root", "BAN #room", "FAIL BAN INVALID_TARGET :A ban is for a name, *"),
        (
            "root",
            "BAN 127.0.0.1",
            OWN_ADDRESS % "127.0.0.1",
        ),
        (
            "root",
            "BAN @bob",
            OWN_ADDRESS % "127.0.0.1",
        ),
        ("root", "BAN @dave", "401 root dave :No such nick"),
        ("root", "BAN root", "FAIL BAN INVALID_TARGET :You cannot ban yourself."),
        (
            "root",
            "BAN 127.0.0.0/8",
            OWN_ADDRESS % "127.0.0.0/8",
        ),
        ("root", "BAN bob 1h :spam", "NOTICE root :bob is banned (1 hour)."),
        ("root", "CAP REQ standard-replies", "BAN eve", "NOTE BAN DONE eve 0 :eve is banned *"),
    ],
    "BANS": [
        ("alice", "BANS", "481 alice :Permission denied: you're not an operator"),
        ("root", "BANS", "NOTICE root :Nobody is banned or muted."),
        ("root", "MUTE bob * :noise", "BANS", "NOTICE root :bob is muted, by root: noise"),
        ("root", "BAN eve 1h", "BANS", "NOTICE root :eve is banned for 1 hour, by root"),
        ("root", "CAP REQ standard-replies", "BANS", "NOTE BANS NONE :Nobody is banned or muted."),
        (
            "root",
            "CAP REQ standard-replies",
            "BAN eve",
            "BANS",
            "NOTE BANS BAN eve 0 :eve is banned, by root",
        ),
        (
            "root",
            "CAP REQ standard-replies",
            "MUTE 0::1 1h :noise",
            "BANS",
            "NOTE BANS MUTE 0::1 3* :::1 is muted for 1 hour, by root: noise",
        ),
    ],
    "CAP": [
        ("alice", "CAP", "461 alice CAP :Not enough parameters"),
        ("new", "CAP LS", "CAP * LS :*"),
        ("new", "CAP LIST", "CAP * LIST :"),
        ("new", "CAP REQ :setname", "CAP * ACK :setname"),
        ("new", "CAP REQ :setname nonsense", "CAP * NAK :setname nonsense"),
        ("new", "CAP REQ :batch  tea -tea batch ", "CAP * NAK :batch  tea -tea batch "),
        ("new", "CAP FOO", "410 * FOO :Invalid CAP command"),
        (
            "new",
            "CAP LS",
            "NICK dave",
            "USER a 0 * :A",
            "AUTHENTICATE PLAIN",
            "CAP END",
            ("CAP * LS :*", "AUTHENTICATE +", *ABORTED, "…"),
        ),
        ("alice", "CAP END", ()),
        ("new", "CAP LS", "NICK olga", "USER o 0 * :O", "CAP END", "433 * olga :* registered"),
        ("guest", "CAP LS", "NICK new", "USER a 0 * :A", "CAP END", ("464 new :*", "ERROR *")),
        (
            "new",
            "CAP LS",
            "NICK dave",
            "USER a 0 * :A",
            "root> BAN dave * :Enough",
            "CAP END",
            ("465 dave :You are banned, by root: Enough.", "ERROR :You are banned, by *"),
        ),
    ],
    "CHATHISTORY": [
        ("alice", "CHATHISTORY", "461 alice CHATHISTORY :Not enough parameters"),
        ("bare", "CHATHISTORY LATEST #lobby * 5", "FAIL CHATHISTORY MESSAGE_ERROR LATEST :*"),
        ("root", "CHATHISTORY FOO #lobby * 5", "FAIL CHATHISTORY INVALID_PARAMS FOO :*"),
        ("root", "CHATHISTORY LATEST #lobby * x", "FAIL CHATHISTORY INVALID_PARAMS LATEST :*"),
        ("root", "CHATHISTORY BEFORE #lobby x=1 5", "FAIL CHATHISTORY INVALID_PARAMS BEFORE :*"),
        ("root", "CHATHISTORY LATEST #no * 5", "FAIL CHATHISTORY INVALID_TARGET LATEST #no *"),
        ("root", "CHATHISTORY LATEST #lobby * 5", "NOTICE root :There are no earlier messages."),
        (
            "root",
            "bob> PRIVMSG #lobby :hi",
            "CHATHISTORY LATEST #lobby * 5",
            "NOTICE root :That was all.",
        ),
    ],
    "SEARCH": [
        ("alice", "SEARCH", "461 alice SEARCH :Not enough parameters"),
        ("root", "SEARCH text=x", "421 root SEARCH :Unknown command"),
        ("root", "CAP REQ soju.im/search", "SEARCH limit=x", "FAIL SEARCH INVALID_PARAMS :*"),
        ("root", "CAP REQ soju.im/search", "SEARCH after=x", "FAIL SEARCH INVALID_PARAMS :*"),
    ],
    "DROP": [
        ("alice", "DROP #own", "481 alice :Permission denied: you're not an operator"),
        ("root", "DROP", "461 root DROP :Not enough parameters"),
        ("root", "DROP #nowhere", "403 root #nowhere :No such channel"),
        (
            "root",
            "DROP #lobby",
            "FAIL DROP INVALID_TARGET #lobby :Everyone is in #lobby: it cannot be removed.",
        ),
        ("root", "DROP dave", "FAIL DROP INVALID_TARGET dave :dave has no account."),
        ("root", "DROP #own", "NOTICE root :#own was removed, with its history."),
        ("root", "CAP REQ standard-replies", "DROP olga", "NOTE DROP DONE olga :olga was removed*"),
    ],
    "HELP": [
        (
            "alice",
            "HELP",
            ("704 alice * :The commands of this server:", "705 alice * :ANNOUNCE *", "…"),
        ),
        (
            "alice",
            "HELP kick",
            ("704 alice KICK :Remove users from a channel.", "706 alice KICK :End of /HELP"),
        ),
        ("alice", "HELP tea", "524 alice TEA :No help available on this topic"),
    ],
    "INVITE": [
        ("alice", "INVITE bob", "461 alice INVITE :Not enough parameters"),
        ("alice", "INVITE carol #own", "341 alice carol :#own"),
        ("alice", "INVITE dave #own", "401 alice dave :No such nick"),
        ("alice", "INVITE bob #nowhere", "403 alice #nowhere :No such channel"),
        ("alice", "INVITE bob #secret", "403 alice #secret :No such channel"),
        ("alice", "INVITE carol #asked", "442 alice #asked :You're not on that channel"),
        ("alice", "INVITE bob #lobby", "443 alice bob #lobby :is already on channel"),
        (
            "alice",
            "JOIN #asked",
            "INVITE carol #asked",
            "482 alice #asked :You're not channel operator",
        ),
    ],
    "ISON": [
        ("alice", "ISON", "461 alice ISON :Not enough parameters"),
        ("alice", "ISON BOB :alice", "303 alice :bob alice"),
        ("alice", "ISON dave", "303 alice :"),
    ],
    "JOIN": [
        ("alice", "JOIN", "461 alice JOIN :Not enough parameters"),
        ("alice", "JOIN tea", "479 alice tea :A room's name is # and 1 to 31 more characters."),
        ("alice", "JOIN #new", ("353 alice = #new :@alice", "366 alice #new :*")),
        ("alice", "JOIN #topic", "332 alice #topic :tea"),
        ("alice", "JOIN #topic", "333 alice #topic bob :*"),
        ("alice", "JOIN #full", "471 alice #full :Cannot join channel (+l)"),
        ("alice", "JOIN #invited", "473 alice #invited :Cannot join channel (+i)"),
        ("alice", "JOIN #banned", "474 alice #banned :Cannot join channel (+b)"),
        ("alice", "JOIN #key", "475 alice #key :Cannot join channel (+k)"),
        ("alice", "JOIN #key wrong", "475 alice #key :Cannot join channel (+k)"),
        ("alice", "JOIN #topic,#key x,sesame", ME + "JOIN #key"),
        ("alice", "JOIN #key sesame", ME + "JOIN #key"),
        ("alice", "JOIN #asked", ME + "JOIN #asked"),
        ("alice", "JOIN #1,#2,#3", "405 alice #3 :You have joined too many channels"),
        ("alice", "JOIN " + ",#" * 50, "407 alice * :Too many targets: 50 at most"),
        ("alice", "JOIN :", ()),
        ("alice", "JOIN #key,#new", ME + "JOIN #new"),
        ("root", "JOIN #key", ROOT + "JOIN #key"),
        ("root", "JOIN #banned,#full,#invited", ROOT + "JOIN #invited"),
        ("root", "JOIN #new", (ROOT + "JOIN #new", "353 root = #new :@root", "366 *")),
        (
            "alice",
            "root> JOIN #new",
            "JOIN #new",
            "root> PART #new",
            "root> JOIN #new",
            (ROOT + "JOIN #new", ROOT + "MODE #new +o root"),
        ),
    ],
    "KICK": [
        ("alice", "KICK #own", "461 alice KICK :Not enough parameters"),
        ("alice", "KICK #own bob", ME + "KICK #own bob alice"),
        ("alice", "KICK #own bob :bye now", ME + "KICK #own bob :bye now"),
        ("alice", "KICK #own dave", "401 alice dave :No such nick"),
        ("alice", "KICK #nowhere bob", "403 alice #nowhere :No such channel"),
        ("alice", "KICK #own carol", "441 alice carol #own :They aren't on that channel"),
        ("alice", "KICK #key bob", "442 alice #key :You're not on that channel"),
        ("alice", "KICK #lobby bob", "482 alice #lobby :You're not channel operator"),
        ("alice", "KICK", "461 alice KICK :Not enough parameters"),
        ("alice", "KICK #own a,b,c,d,e", "407 alice a,b,c,d,e :Too many targets: 4 at most"),
        ("alice", "KICK #own dave,bob", ME + "KICK #own bob alice"),
        ("alice", "KICK #own bob :" + "я" * 201, ME + "KICK #own bob :" + "я" * 200),
        ("root", "KICK #lobby bob", ROOT + "KICK #lobby bob root"),
        ("alice", "root> JOIN #own", "KICK #own root", "484 alice root #own :" + RANK),
        ("root", "alice> JOIN #own", "JOIN #own", "KICK #own root", ROOT + "KICK #own root root"),
    ],
    "KILL": [
        ("alice", "KILL bob :x", "481 alice :Permission denied: you're not an operator"),
        ("root", "KILL bob", "461 root KILL :Not enough parameters"),
        ("root", "KILL dave :x", "401 root dave :No such nick"),
        (
            "bob",
            "root> KILL bob :x y",
            (ROOT + "KILL bob :x y", "ERROR Killed by *: x y"),
        ),
        ("root", "KILL root :x", (ROOT + "KILL root :x", "ERROR Killed by root: x")),
    ],
    "LIST": [
        (
            "alice",
            "LIST",
            (
                "321 alice Channel :Users  Name",
                "…",
                "322 alice #topic 1 :tea",
                "323 alice :End of /LIST",
            ),
        ),
        ("alice", "LIST >3", ("321 *", "322 alice #lobby 4 :", "323 *")),
        ("alice", "LIST <2,#to*", ("321 *", "322 alice #topic 1 :tea", "323 *")),
        ("alice", "LIST #to*,#key C<9,<2", ("321 *", "322 alice #key 1 :", "322 alice #topic *")),
        ("alice", "LIST #to*,#key >1", ("321 *", "323 *")),
        ("alice", "LIST !#[a-su-z]*,T<9", ("321 *", "322 alice #topic *", "323 *")),
    ],
    "LUSERS": [
        (
            "alice",
            "LUSERS",
            (
                "251 alice :There are 4 users and 0 invisible on 1 servers",
                "252 alice 1 :operator(s) online",
                "254 alice 11 :channels formed",
                "255 alice :I have 4 clients and 0 servers",
                "265 alice 4 4 :Current local users 4, max 4",
                "266 alice 4 4 :Current global users 4, max 4",
            ),
        ),
    ],
    "MODE": [
        ("alice", "MODE", "461 alice MODE :Not enough parameters"),
        ("alice", "MODE #nowhere", "403 alice #nowhere :No such channel"),
        ("alice", "MODE #own", "324 alice #own :+n"),
        ("alice", "MODE #own", "329 alice #own :*"),
        ("alice", "MODE #key", "324 alice #key +nk *"),
        ("alice", "MODE #full", "324 alice #full +nl 1"),
        ("alice", "MODE #banned b", "367 alice #banned alice!*@* bob :*"),
        ("alice", "MODE #banned b", "368 alice #banned :End of channel ban list"),
        ("alice", "MODE #own +x", "472 alice x :is unknown mode char to me"),
        ("alice", "MODE #own +k", "696 alice #own k * :This mode needs a parameter"),
        ("alice", "MODE #own +o", "696 alice #own o * :This mode needs a parameter"),
        (
            "alice",
            "MODE #own +k \x02a",
            "696 alice #own k * :A password has no spaces and no commas",
        ),
        (
            "alice",
            "MODE #own +k :a b",
            "696 alice #own k * :A password has no spaces and no commas",
        ),
        ("alice", "MODE #own +k " + "a" * 33, "696 alice #own k * :A password has no spaces *"),
        ("alice", "MODE #own +k a,b", "696 alice #own k * :A password has no spaces and no commas"),
        ("alice", "MODE #own +l x", "696 alice #own l x :A limit is a number above 0"),
        ("alice", "MODE #own +l 0", "696 alice #own l 0 :A limit is a number above 0"),
        ("alice", "MODE #own +l 000000019999999", "696 alice #own l *"),
        ("alice", "MODE #own +l 007", ME + "MODE #own +l 7"),
        ("alice", "MODE #own +o dave", "401 alice dave :No such nick"),
        ("alice", "MODE #own +v carol", "441 alice carol #own :They aren't on that channel"),
        ("alice", "MODE #key +t", "442 alice #key :You're not on that channel"),
        ("alice", "MODE #lobby +t", "482 alice #lobby :You're not channel operator"),
        ("alice", "MODE #lobby b+t", ("368 alice #lobby :*", "482 alice #lobby :*")),
        ("alice", "MODE #own +bbb a b c", "478 alice #own b :Channel list is full"),
        (
            "alice",
            "MODE #own " + "+m-m" * 120,
            (ME + "MODE #own " + "+m-m" * 60, ME + "MODE #own " + "+m-m" * 60),
        ),
        ("alice", "MODE #own +mx-n+vl bob 9", ME + "MODE #own +m-n+vl bob 9"),
        ("alice", "MODE #own +mx-n+vl bob 9", "472 alice x :is unknown mode char to me"),
        ("alice", "MODE #own +k tea", "MODE #own", "324 alice #own +nk tea"),
        ("alice", "MODE #own +k tea", "MODE #own -k x", ME + "MODE #own -k *"),
        ("alice", "MODE #own +l 5", "MODE #own -l", ME + "MODE #own -l"),
        ("alice", "MODE #own +b eve", "MODE #own -b EVE", ME + "MODE #own -b eve!*@*"),
        ("alice", "MODE alice", "221 alice :+"),
        ("alice", "MODE alice +ox-i", "221 alice :+"),
        ("alice", "MODE bob", "502 alice :Cannot change the modes of others"),
        ("alice", "MODE dave", "401 alice dave :No such nick"),
        ("root", "MODE #lobby -t", ROOT + "MODE #lobby -t"),
        ("alice", "root> JOIN #own", "MODE #own -o root", "484 alice root #own :" + RANK),
        ("alice", "MODE #own +b ROOT", "484 alice root #own :" + RANK),
        ("alice", "MODE #own +b root@*", "484 alice root #own :" + RANK),
        ("alice", "MODE #own +b root!*@*", "MODE #own b", ("484 *", "368 alice #own :*")),
        ("alice", "MODE #own +b *!*@127.0.0.9", ME + "MODE #own +b *!*@127.0.0.9"),
        ("root", "MODE #lobby +b root", ROOT + "MODE #lobby +b root!*@*"),
        ("root", "MODE root -o", "221 root :+o"),
    ],
    "MONITOR": [
        ("alice", "MONITOR", "461 alice MONITOR :Not enough parameters"),
        ("alice", "MONITOR + bob,dave", "730 alice bob!bob@127.0.0.1"),
        ("alice", "MONITOR + bob,dave", "731 alice dave"),
        ("alice", "MONITOR + bob,dave", "MONITOR L", "732 alice bob,dave"),
        ("alice", "MONITOR + bob,dave", "MONITOR - BOB", "MONITOR L", "732 alice dave"),
        ("alice", "MONITOR L", "733 alice :End of MONITOR list"),
        ("alice", "MONITOR + a,b,c,d", "734 alice 2 c,d :Monitor list is full."),
        (
            "alice",
            "MONITOR + a,b," + ",".join("cdef"[i] * 30 for i in range(4)),
            ("734 alice 2 ccc*,ddd*,eee*e :*", "734 alice 2 fff*f :*"),
        ),
        ("alice", "MONITOR + dave", "MONITOR S", "731 alice dave"),
        ("alice", "MONITOR + dave", "MONITOR :", "MONITOR -C", "MONITOR L", "732 alice dave"),
        ("alice", "MONITOR + dave", "MONITOR + 1dave", "PING x", ("731 alice dave", "PONG *")),
        (
            "alice",
            "MONITOR + a,b",
            "MONITOR + A,b,c",
            ("731 alice a,b", "734 alice 2 c *", "731 *"),
        ),
        ("alice", "MONITOR + dave", "MONITOR :", "MONITOR L", "732 alice dave"),
        ("alice", "MONITOR + bob", "MONITOR C", "MONITOR L", "733 alice :End of MONITOR list"),
    ],
    "MOTD": [
        ("bare", "MOTD", "422 alice :There is no message of the day"),
        ("alice", "MOTD", ("375 alice :*", "372 alice :Be kind.", "376 alice :End of /MOTD *")),
    ],
    "MUTE": [
        ("alice", "MUTE bob", "481 alice :Permission denied: you're not an operator"),
        ("root", "MUTE", "461 root MUTE :Not enough parameters"),
        ("root", "MUTE bob soon", "FAIL MUTE INVALID_DURATION :A duration is *"),
        ("root", "MUTE bob", "NOTICE root :bob is muted (forever)."),
        ("root", "MUTE @dave", "401 root dave :No such nick"),
        ("root", "MUTE @bob 1h", "NOTICE root :127.0.0.1 is muted (1 hour)."),
        ("alice", "root> MUTE alice 10m", "NOTICE alice :" + MUTED % (" for 10 minutes", "")),
        ("alice", "root> MUTE alice * :noise.", "NOTICE alice :" + MUTED % ("", ": noise")),
        (
            "alice",
            "CAP REQ standard-replies",
            "root> MUTE alice 10m",
            "root> UNBAN alice",
            (
                "NOTE MUTE MUTED alice 600 :" + MUTED % (" for 10 minutes", ""),
                "NOTE UNBAN LIFTED alice :You may write again.",
            ),
        ),
        ("root", "MUTE alice", "alice> PRIVMSG root :why?", ME + "PRIVMSG root why?"),
        ("alice", "root> MUTE alice", "PRIVMSG root,bob :x", "FAIL PRIVMSG MUTED :You are muted."),
        ("alice", "root> MUTE alice", "PRIVMSG #own :why?", "FAIL PRIVMSG MUTED :You are muted."),
        ("alice", "root> MUTE bob", ()),
        (
            "alice",
            "root> MUTE alice 10m",
            "root> UNBAN alice",
            ("NOTICE alice :You are muted *", "NOTICE alice :You may write again."),
        ),
        (
            "new",
            "root> MUTE dave 1h",
            "NICK dave",
            "USER a 0 * :A",
            ("001 dave *", "…", "NOTICE dave :" + MUTED % (" for 1 hour", "")),
        ),
        ("bob", "root> MUTE alice 1h", "alice> PRIVMSG #lobby :x", ()),
        ("bob", "root> BAN alice 1h :noise", ME + "QUIT :Banned by root: noise"),
    ],
    "NAMES": [
        ("alice", "NAMES #own", "353 alice = #own :@alice bob"),
        (
            "alice",
            "NAMES #own,#topic",
            ("353 alice = #own @alice bob", "366 alice #own *", "353 alice = #topic @bob", "366 *"),
        ),
        ("alice", "NAMES #1,#2,#3,#4,#5", "407 alice #1,#2,#3,#4,#5 :Too many targets: 4 at most"),
        ("alice", "NAMES #secret", "366 alice #secret :End of /NAMES list"),
    ],
    "NICK": [
        ("new", "USER a 0 * :A", "AUTHENTICATE PLAIN", "NICK dave", (*ABORTED, "…")),
        (
            "root",
            "remove-account> root",
            "NICK toor",
            "901 root root!root@127.0.0.1 :You are now logged out",
        ),
        ("new", "NICK :", "431 * :No nickname given"),
        ("new", "NICK olga", "433 * olga :Nickname is registered"),
        ("guest", "USER a 0 * :A", "NICK new", ("464 new :Wrong password.", "ERROR *")),
        ("new", "NICK 1a", "432 * 1a :A name begins with a letter."),
        ("new", "NICK bob", "433 * bob :Nickname is already in use"),
        ("new", "NICK b0b", "433 * b0b bob :b0b looks like bob, which is *"),
        ("new", "NICK o1ga", "433 * o1ga olga :o1ga looks like olga, which is *"),
        ("alice", "NICK 0lga", "432 alice 0lga *"),
        (
            "alice",
            "bob> MODE #soon +b alice",
            "NICK al",
            "FAIL NICK MUTED :You are banned from #soon, and may not speak there: leave it first.",
        ),
        ("alice", "NICK BOB", "433 alice BOB :Nickname is already in use"),
        ("alice", "NICK Alice", ME + "NICK Alice"),
        ("alice", "NICK olga", "433 alice olga :Nickname is registered"),
        (
            "alice",
            "CAP REQ standard-replies",
            "NICK olga",
            "FAIL NICK NICKNAME_RESERVED olga :olga is registered. *",
        ),
        (
            "bob",
            "CAP REQ standard-replies",
            "add-account> bob",
            "alice> AUTHENTICATE PLAIN",
            "alice> AUTHENTICATE " + plain("bob"),
            "alice> NICK bob",
            (
                "FAIL * LOGGED_IN_ELSEWHERE bob :bob has logged in elsewhere",
                "ERROR :bob has logged in elsewhere",
            ),
        ),
        ("root", "BAN eve 1h :spam", "NICK eve", "432 root eve :eve is banned *, by root: spam."),
    ],
    "NOTICE": [
        ("alice", "NOTICE", ()),
        ("alice", "NOTICE alice :x", ME + "NOTICE alice x"),
        ("alice", "NOTICE dave :x", ()),
        ("alice", "NOTICE a,b,c,d,e :x", ()),
    ],
    "OPER": [
        ("alice", "OPER root", "461 alice OPER :Not enough parameters"),
        ("alice", "OPER root x", "464 alice :Password incorrect"),
        ("alice", "OPER dave x", "464 alice :Password incorrect"),
        ("alice", "OPER olga :" + PASSWORD, "491 alice :olga is not an operator's account"),
        (
            "alice",
            "OPER root :" + PASSWORD,
            (ME + "MODE alice +o", "900 alice alice!alice@* root :*", "381 alice :You are now *"),
        ),
        ("root", "OPER root :" + PASSWORD, ("900 *", "381 root :You are now an operator")),
    ],
    "PART": [
        ("alice", "PART", "461 alice PART :Not enough parameters"),
        ("alice", "PART #nowhere", "403 alice #nowhere :No such channel"),
        ("alice", "PART #key", "442 alice #key :You're not on that channel"),
        ("alice", "PART " + ",#" * 50, "407 alice * :Too many targets: 50 at most"),
        ("alice", "PART #key,#own :bye now", ME + "PART #own :bye now"),
    ],
    "PASS": [
        ("new", "PASS", "461 * PASS :Not enough parameters"),
        ("alice", "PASS x", "462 alice :You may not reregister"),
    ],
    "PING": [
        ("new", "PING", "461 * PING :Not enough parameters"),
        ("new", "PING :a b", "PONG hubbub.local :a b"),
    ],
    "PONG": [("new", "PONG", ())],
    "PRIVMSG": [
        ("alice", "PRIVMSG", "461 alice PRIVMSG :Not enough parameters"),
        ("alice", "PRIVMSG bob", "412 alice :No text to send"),
        ("alice", "PRIVMSG dave :hi", "401 alice dave :No such nick"),
        ("alice", "@+a_b PRIVMSG bob :hi", "400 alice * :That line is not an IRC message"),
        ("alice", "PRIVMSG #nowhere :hi", "403 alice #nowhere :No such channel"),
        ("alice", "PRIVMSG #key :hi", "404 alice #key :Cannot send to a channel *"),
        ("alice", "JOIN #quiet", "PRIVMSG #quiet :hi", "404 alice #quiet :Only operators and *"),
        (
            "alice",
            "bob> MODE #soon +b alice",
            "PRIVMSG #soon :hi",
            "404 alice #soon :You are banned *",
        ),
        ("alice", "PRIVMSG a,b,c,d,e :hi", "407 alice a,b,c,d,e :Too many targets: 4 at most"),
        ("alice", "PRIVMSG dave,alice :hi", ME + "PRIVMSG alice hi"),
        ("alice", "PRIVMSG olga :hi", "NOTICE alice :olga is offline; your message *"),
        ("alice", "PRIVMSG olga :hi", "PRIVMSG olga :hi", "FAIL PRIVMSG MAILBOX_FULL olga :*"),
        (
            "alice",
            "CAP REQ standard-replies",
            "PRIVMSG olga :hi",
            "NOTE PRIVMSG OFFLINE olga :olga is offline; your message will be delivered",
        ),
        ("alice", "root> MUTE alice", "PRIVMSG bob :hi", "FAIL PRIVMSG MUTED :You are muted."),
    ],
    "QUIT": [
        ("new", "QUIT", "ERROR Goodbye."),
        ("alice", "QUIT :bye now", "ERROR Goodbye."),
        ("alice", "bob> QUIT :bye now", BOB + "QUIT :Quit: bye now"),
        ("alice", "bob> QUIT", BOB + "QUIT Quit"),
        ("carol", "bob> MODE #lobby +t", "alice> QUIT :bye", ME + "QUIT :Quit: bye"),
    ],
    "REGISTER": [
        ("alice", "REGISTER * *", "461 alice REGISTER :Not enough parameters"),
        ("bare", "REGISTER * * longenough", "FAIL REGISTER TEMPORARILY_UNAVAILABLE alice :*"),
        ("new", "REGISTER * * longenough", "FAIL REGISTER COMPLETE_CONNECTION_REQUIRED * :*"),
        ("root", "REGISTER * * longenough", "FAIL REGISTER ALREADY_AUTHENTICATED root :*"),
        ("alice", "REGISTER dave * longenough", "FAIL REGISTER ACCOUNT_NAME_MUST_BE_NICK dave :*"),
        (
            "alice",
            "add-account> alice",
            "REGISTER * * longenough",
            "FAIL REGISTER ACCOUNT_EXISTS *",
        ),
        ("alice", "REGISTER * * short", "FAIL REGISTER WEAK_PASSWORD alice :*"),
        ("alice", "REGISTER * * :long enough", ("REGISTER SUCCESS alice :*", "900 *")),
        (
            "alice",
            "CAP LS",
            "bob> REGISTER * * longenough",
            "bob> NICK rob",
            "NICK bob",
            "433 alice bob :Nickname is registered",
        ),
    ],
    "RESUME": [
        ("alice", "RESUME", "461 alice RESUME :Not enough parameters"),
        ("new", "RESUME abc", "FAIL RESUME INVALID_TOKEN :That connection cannot be resumed"),
        ("alice", "RESUME abc", "462 alice :You may not reregister"),
    ],
    "SETNAME": [
        ("alice", "SETNAME", "461 alice SETNAME :Not enough parameters"),
        ("alice", "SETNAME :", "FAIL SETNAME INVALID_REALNAME :A real name has 1 to *"),
        ("alice", "SETNAME :" + "x" * 101, "FAIL SETNAME INVALID_REALNAME :A real name has *"),
        ("alice", "SETNAME Al B", "WHOIS alice", "311 alice alice alice 127.0.0.1 * :Al B"),
        ("alice", "SETNAME :Al B", "WHOIS alice", "311 alice alice alice 127.0.0.1 * :Al B"),
    ],
    "STATS": [
        ("alice", "STATS u", "481 alice :Permission denied: you're not an operator"),
        ("root", "STATS u", "249 root u :clients: 4"),
        ("root", "STATS u", "219 root u :End of /STATS report"),
    ],
    "TAGMSG": [
        ("alice", "TAGMSG", "461 alice TAGMSG :Not enough parameters"),
        ("alice", "@+t=1 TAGMSG dave", "401 alice dave :No such nick"),
        ("alice", "@+t_1 TAGMSG dave", "400 alice * :That line is not an IRC message"),
        ("alice", "@+t=1 TAGMSG #nowhere", "403 alice #nowhere :No such channel"),
        ("alice", "@+t=1 TAGMSG #key", "404 alice #key :Cannot send to a channel *"),
        ("alice", "root> MUTE alice", "@+t=1 TAGMSG bob", "FAIL TAGMSG MUTED :You are muted."),
        ("alice", "@+t=1 TAGMSG a,b,c,d,e", "407 alice a,b,c,d,e :Too many targets: 4 at most"),
    ],
    "TOPIC": [
        ("alice", "TOPIC", "461 alice TOPIC :Not enough parameters"),
        ("alice", "TOPIC #own", "331 alice #own :No topic is set"),
        ("alice", "TOPIC #topic", "332 alice #topic tea"),
        ("alice", "TOPIC #topic", "333 alice #topic bob :*"),
        ("alice", "TOPIC #own :green tea", ME + "TOPIC #own :green tea"),
        ("alice", "root> MUTE alice", "TOPIC #own :x", "FAIL TOPIC MUTED :You are muted."),
        ("alice", "TOPIC #secret", "403 alice #secret :No such channel"),
        ("alice", "TOPIC #key :x", "442 alice #key :You're not on that channel"),
        ("alice", "JOIN #quiet", "TOPIC #quiet :x", "404 alice #quiet :Only operators and *"),
        ("alice", "JOIN #topic", "TOPIC #topic :x", "482 alice #topic :You're not channel *"),
    ],
    "UNBAN": [
        ("alice", "UNBAN bob", "481 alice :Permission denied: you're not an operator"),
        ("root", "UNBAN", "461 root UNBAN :Not enough parameters"),
        ("root", "UNBAN bob", "FAIL UNBAN INVALID_TARGET bob :bob is neither banned nor muted. *"),
        ("root", "CAP REQ standard-replies", "MUTE eve", "UNBAN eve", "NOTE UNBAN DONE eve :*"),
        ("root", "BAN bob", "UNBAN bob", "NOTICE root :bob may join again."),
        ("root", "MUTE bob", "UNBAN bob", "NOTICE root :bob may write again."),
        ("root", "MUTE x", "BAN x", "UNBAN x", "NOTICE root :x may join and write again."),
        ("root", "MUTE @bob", "UNBAN bob", "NOTICE root :127.0.0.1 may write again."),
    ],
    "USER": [
        ("new", "NICK dave", "AUTHENTICATE PLAIN", "USER a 0 * :A", (*ABORTED, "…")),
        ("new", "USER a 0 *", "461 * USER :Not enough parameters"),
        ("new", "NICK dave", "USER a 0 * :", "461 dave USER :Not enough parameters"),
        (
            "new",
            "USER a 0 * :A",
            "NICK new",
            (
                "001 new :Welcome to Hubbub, new. 5 people are here.",
                "002 new :Your host is hubbub.local, running Hubbub *",
                "003 new :This server was started *",
                "004 new hubbub.local hubbub-* o biklmnostv bklov",
                "005 new NETWORK=Hubbub *",
                "…",
                "251 new *",
                "…",
                "422 new *",
                ":new!a@127.0.0.1 JOIN #lobby",
                "353 new = #lobby :*",
                "366 new #lobby :*",
            ),
        ),
        ("new", "CAP LS", "NICK olga", "CAP END", "USER o 0 * :O", "433 * olga :* registered"),
        ("guest", "PASS tea", "NICK new", "USER a 0 * :A", "001 new :*"),
        ("guest", "NICK new", "USER a 0 * :A", ("464 new :Wrong password.", "ERROR *")),
        (
            "new",
            "CAP REQ sasl",
            "USER a 0 * :A",
            "AUTHENTICATE PLAIN",
            "AUTHENTICATE " + plain("root"),
            "NICK root",
            "CAP END",
            ("001 root *", "…", "422 *", ":root!a@127.0.0.1 MODE root +o"),
        ),
        (
            "new",
            "NICK dave",
            "root> BAN dave 1h :Enough.",
            "USER a 0 * :A",
            ("465 dave :%s" % BANNED_AN_HOUR, "ERROR :" + BANNED_AN_HOUR),
        ),
        ("alice", "USER a 0 * :A", "462 alice :You may not reregister"),
    ],
    "USERHOST": [
        ("alice", "USERHOST", "461 alice USERHOST :Not enough parameters"),
        ("alice", "USERHOST bob carol dave", "302 alice :bob=+bob@127.0.0.1 carol=-carol@*"),
        ("root", "USERHOST root", "302 root root*=+root@127.0.0.1"),
    ],
    "VERSION": [
        (
            "alice",
            "VERSION",
            (
                "351 alice hubbub-* hubbub.local Hubbub",
                "005 alice NETWORK=Hubbub CASEMAPPING=ascii CHANTYPES=# CHANMODES=b,k,l,imnst"
                " PREFIX=(ov)@+ MODES=8 MAXLIST=b:2 CHANLIMIT=#:5 NICKLEN=32 CHANNELLEN=32"
                " TOPICLEN=200 KICKLEN=200 AWAYLEN=200 :are supported by this server",
                "005 alice KEYLEN=32 USERLEN=10 NAMELEN=100"
                " TARGMAX=JOIN:50,KICK:4,NAMES:4,NOTICE:4,PART:50,PRIVMSG:4,TAGMSG:4 MONITOR=2"
                " ELIST=CMNTU WHOX SAFELIST UTF8ONLY CHATHISTORY=500 :are supported by this server",
                "005 alice MSGREFTYPES=msgid,timestamp :are supported by this server",
            ),
        ),
    ],
    "WHO": [
        ("alice", "WHO #own", "352 alice #own bob 127.0.0.1 hubbub.local bob H :0 Bob"),
        ("alice", "WHO carol", "352 alice #lobby carol 127.0.0.1 hubbub.local carol G :0 Carol"),
        ("alice", "WHO #secret", "315 alice #secret :End of WHO list"),
        ("alice", "WHO bob %tcuihsnfdlaor,42", "354 alice 42 #lobby bob 127.0.0.1 127.0.0.1 *"),
        ("alice", "WHO #own %cuhsnf", "354 alice #own alice 127.0.0.1 hubbub.local alice H@"),
        ("alice", "WHO #own %na", "354 alice bob 0"),
        ("alice", "WHO #own %no", "354 alice alice 1"),
        ("root", "WHO * o", "352 root #lobby root 127.0.0.1 hubbub.local root H* :0 Root"),
        ("root", "WHO root %na", "354 root root root"),
    ],
    "WHOIS": [
        ("alice", "WHOIS", "461 alice WHOIS :Not enough parameters"),
        ("alice", "WHOIS dave", "401 alice dave :No such nick"),
        ("alice", "WHOIS carol", "301 alice carol :lunch"),
        ("alice", "WHOIS bob", "317 alice bob * :seconds idle, signon time"),
        ("alice", "WHOIS hubbub.local bob", "311 alice bob *"),
        (
            "alice",
            "WHOIS bob",
            (
                "311 alice bob bob 127.0.0.1 * :Bob",
                "319 alice bob :*@#topic",
                "312 alice bob hubbub.local :Hubbub",
                "317 *",
                "318 alice bob :End of /WHOIS list",
            ),
        ),
        ("root", "WHOIS root", "313 root root :is an operator"),
        ("root", "WHOIS root", "330 root root root :is logged in as"),
    ],
    "WHOWAS": [
        ("alice", "WHOWAS", "461 alice WHOWAS :Not enough parameters"),
        ("alice", "WHOWAS dave", "406 alice dave :There was no such nickname"),
        ("alice", "WHOWAS dave", "369 alice dave :End of WHOWAS"),
        ("alice", "NICK al", "WHOWAS alice", "314 al alice alice 127.0.0.1 * :Alice"),
        ("alice", "NICK al", "WHOWAS alice", "312 al alice hubbub.local :*"),
    ],
}


class World:
    """The people of a row."""

    def __init__(self, room):
        self.room = room
        self.people = {name: room.irc(name) for name in ("bob", "alice", "carol")}
        self.people["root"] = operator(room)
        for name, line in SCENE:
            self.say(name, line)

    def say(self, name, *lines):
        """Return the lines that a client gets after it has sent these."""
        self.people[name].send(*lines)
        return self.people[name].heard()


def opening(talker):
    """The same, known to speak IRC, and registered as nobody."""
    talker.send("CAP LIST")
    talker.heard()
    return talker


@pytest.fixture
def small(monkeypatch):
    """Limits that a row can reach."""
    monkeypatch.setattr(server, "MAX_BANS", 2)
    monkeypatch.setattr(server, "MAX_WATCHES", 2)
    monkeypatch.setattr(server, "MAX_WAITING", 1)


@pytest.fixture
def answers(kept, open_room, small, monkeypatch):
    """Gives what the first of a row hears."""

    def answers_(who, *lines):
        people = {}
        if who == "bare":
            people[who] = open_room().irc("alice")
        elif who == "guest":
            people[who] = opening(open_room(password="tea").connect(IrcTalker))
        else:
            world = World(kept(motd=("Be kind.",) if "MOTD" in lines[-1:] else ()))
            people = world.people
            if who == "new":
                people[who] = opening(world.room.connect(IrcTalker))
        for talker in people.values():
            talker.heard()
        monkeypatch.setattr(server, "MAX_CHANNELS", 5)
        heard = []
        for line in lines:
            name, _, words = line.rpartition("> ")
            if name == "add-account":
                world.room.server.store.add_account(words, PASSWORD)
                continue
            if name == "remove-account":
                world.room.server.store.remove_account(words)
                world.room.wait_until_noticed()
                continue
            people[name or who].send(words)
            lines_heard = people[name or who].heard_or_rest()
            for nickname in people if name else ():  # others hear a QUIT once the thread has ended
                client = world.room.client(nickname)
                if client is not None and client.end_reason:
                    world.room.wait_for_thread(people[nickname])
            heard += people[who].heard_or_rest() if name else lines_heard
        return heard

    return answers_


CASES = [row for rows in ROWS.values() for row in rows]


@pytest.mark.parametrize("row", CASES, ids=[" | ".join(row[:-1])[:60] for row in CASES])
def test_command_is_answered_as_its_row_says(row, answers):
    """With the reply or error that IRC clients know."""
    *said, masks = row
    heard = answers(*said)
    expect_in_order((masks,) if isinstance(masks, str) else masks, heard)
    assert masks or not heard


SOURCE = Path(server.__file__).read_text(encoding="utf-8")
NAMED = {
    code
    for row in CASES
    for mask in ((row[-1],) if isinstance(row[-1], str) else row[-1])
    for code in re.findall(r"^(\d{3}|(?:FAIL|NOTE) \S+ \S+)(?= )", mask)
}


def test_each_command_has_rows():
    assert sorted(ROWS) == sorted([*server.COMMANDS, "any line", "as programs send it"])


def test_each_rule_of_the_command_table_has_a_row():
    """Of each command to which it applies."""
    for name, command in server.COMMANDS.items():
        masks = [row[-1] for row in ROWS[name] if isinstance(row[-1], str)]
        if command.least:
            assert any(mask.startswith("461 ") for mask in masks), name
        if command.rules & server.NOT_LATE:
            assert any(mask.startswith("462 ") for mask in masks), name
        if command.rules & server.OPERATORS:
            assert any(mask.startswith("481 ") for mask in masks), name


def functions():
    """Those of the server, by class ("" for none) and name."""
    for node in ast.parse(SOURCE).body:
        if isinstance(node, ast.FunctionDef):
            yield ("", node.name), node
        for inner in node.body if isinstance(node, ast.ClassDef) else ():
            if isinstance(inner, ast.FunctionDef):
                yield (node.name, inner.name), inner


FUNCTIONS = dict(functions())
NEVER = {  # though the function that refuses with it is used
    ("NICK", "465"): "432 comes before",
    ("OPER", "465"): "operators are not banned",
    **{("PASS", code): "NICK, USER or CAP completes it" for code in ("433", "464", "465", "906")},
    ("REGISTER", "465"): "its nickname would be banned already",
    ("RESUME", "465"): "no row knows a token",
    ("TAGMSG", "412"): "it has no text",
    ("WHOIS", "671"): "nobody is encrypted in these rows; test_tls.py has it",
    **{
        ("NOTICE", numeric): "never answered"
        for numeric in ("400", "401", "403", "404", "407", "412")
    },
}


def refusals(key, seen):
    """The numerics with which a function refuses, or what it uses does."""
    found = set()
    if key not in FUNCTIONS or key in seen:
        return found
    seen.add(key)
    for node in ast.walk(FUNCTIONS[key]):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("ReplyError", "session.reply"):
            found.add(ast.unparse(node.args[0]).strip("'"))
        elif isinstance(node, ast.Name) and not node.id.startswith("on_"):
            found |= refusals(("", node.id), seen)
        elif isinstance(node, ast.Attribute):
            of = ast.unparse(node.value)
            owners = {"self": key[0], "directory": "Directory", "channel": "Channel"}
            owner = owners.get(of.rpartition(".")[2])
            found |= refusals((owner, node.attr), seen)
    return found


@pytest.mark.parametrize("name", sorted(server.COMMANDS))
def test_each_error_of_a_command_has_a_row(name):
    """All that its handler and the directory raise, as the source has it."""
    handler = server.COMMANDS[name].handler.__name__
    numerics = {code for code in refusals(("", handler), set()) if re.match("[4-9]..$", code)}
    masks = [[row[-1]] if isinstance(row[-1], str) else row[-1] for row in ROWS[name]]
    named = {mask[:3] for mask in itertools.chain.from_iterable(masks)}
    never = {numeric for of, numeric in NEVER if of == name}
    assert numerics - named == never


def test_each_numeric_has_a_row():
    """Each string of three digits in the source of the server."""
    assert set(re.findall(r'"(\d{3})"', SOURCE)) - NAMED == {"671"}  # that of NEVER


def test_each_code_of_a_standard_reply_has_a_row():
    """With its command, if the source names that."""
    codes = re.findall(r'\bfail\("([A-Z_]+)"', SOURCE)
    found = re.findall(r'(?:"FAIL", |\bnote\()("?)([\w.*]+)"?, "([A-Z_]+)"', SOURCE)
    named = {tuple(code.split()[1:]) for code in NAMED if " " in code}
    named.add(("SEARCH", "INCOMPLETE"))  # no row takes so long; test_history.py has it
    assert set(codes) - {code for _, code in named} == set()
    for quote, verb, code in found:
        assert any(code == known and (not quote or verb == of) for of, known in named), code


def test_help_describes_each_command(room):
    """In a single sentence without jargon."""
    alice = room.irc("alice")
    for name in server.COMMANDS:
        alice.send("HELP " + name)
        sentence, _ = alice.heard()
        assert sentence.startswith(":hubbub.local 704 alice %s :" % name)
        assert sentence.endswith(".") and "IRC" not in sentence and "http" not in sentence


def test_operators_command_is_refused_whatever_its_parameters(room):
    """A user learns nothing from the server's errors."""
    alice = room.irc("alice")
    for name, command in server.COMMANDS.items():
        if command.rules & server.OPERATORS:
            alice.send("%s a b c" % name)
            assert " 481 alice " in alice.heard()[0]


def test_command_before_registration_is_refused(room):
    """451, whatever its parameters; unless its row allows it."""
    new = opening(room.connect(IrcTalker))
    for name, command in server.COMMANDS.items():
        if not command.rules & server.EARLY:
            new.send(name)
            assert new.heard() == [HUB + "451 * :You have not registered"]
