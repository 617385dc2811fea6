"""Every command and what it is answered with, every capability and what it changes: as tables.

A row of ROWS says who sends what, and how a line ends that they hear then (* is anything). A
command, a capability or a refusal without its row fails a test at the end of its table.
"""

import base64

import pytest
from harness import IrcTalker

import protocol
import server

PASSWORD = "correct horse"
ME = ":alice!alice@127.0.0.1 "
BOB = ":bob!bob@127.0.0.1 "


def plain(name, password=PASSWORD, authzid=""):
    """What AUTHENTICATE carries for SASL's PLAIN."""
    return base64.b64encode("\0".join((authzid, name, password)).encode()).decode()


def is_like(mask, line):
    """Whether a line, its tags aside, is as the mask says."""
    if line.startswith("@") and not mask.startswith("@"):
        line = line.partition(" ")[2]
    return protocol.matches(mask, line)


def untagged(lines):
    return [line.partition(" ")[2] if line.startswith("@") else line for line in lines]


def tags_of(line):
    pairs = (tag.partition("=") for tag in line[1:].partition(" ")[0].split(";"))
    return {key: value for key, _, value in pairs} if line.startswith("@") else {}


def hear(talker, mask):
    """Fail unless a line like the mask has come by now."""
    lines = talker.heard()
    assert any(is_like(mask, line) for line in lines), (mask, lines)
    return lines


def sasl(talker, name, password=PASSWORD):
    talker.send("AUTHENTICATE PLAIN", "AUTHENTICATE " + plain(name, password))
    return talker.heard()


@pytest.fixture
def kept(open_room, tmp_path):
    """A server with accounts and a history; alice and root have accounts, root is an operator's."""
    room = open_room(data=str(tmp_path / "kept"))
    room.server.records.add_account("alice", PASSWORD)
    room.server.records.add_account("root", PASSWORD, is_operator=True)
    return room


def operator(room, nickname="root", caps=""):
    root = room.irc(nickname, "sasl " + caps if caps else "") if nickname != "root" else None
    if root is None:
        root = room.connect(IrcTalker)
        root.send("CAP REQ :sasl " + caps, "NICK root", "USER root 0 * :Root")
        sasl(root, "root")
        root.send("CAP END")
        root.heard()
    else:
        root.send("OPER root :" + PASSWORD)
        root.heard()
    return root


# Commands

# Who sends: "alice", an ordinary person among those of `people`; "root", an operator, where
# alice has an account that she has not logged in to; "new", who has not registered; "gone",
# the same, whose connection ends with it.
ROWS = {
    "ADMIN": [("alice", "ADMIN", "256 alice hubbub.local :Administrative info")],
    "ANNOUNCE": [
        ("alice", "ANNOUNCE :tea", "481 alice :Permission denied: you're not an operator"),
        ("root", "ANNOUNCE", "461 root ANNOUNCE :Not enough parameters"),
        ("root", "ANNOUNCE :tea", "NOTICE root :Announcement by root: tea"),
    ],
    "AUTHENTICATE": [
        ("new", "AUTHENTICATE PLAIN", "904 * :SASL authentication failed"),
        ("root", "AUTHENTICATE", "461 root AUTHENTICATE :Not enough parameters"),
        ("root", "AUTHENTICATE EXTERNAL", "908 root PLAIN :are available SASL mechanisms"),
        ("root", "AUTHENTICATE EXTERNAL", "904 root :SASL authentication failed"),
        ("root", "AUTHENTICATE PLAIN", "AUTHENTICATE +"),
        ("root", "AUTHENTICATE PLAIN", "AUTHENTICATE *", "906 root :SASL authentication aborted"),
        ("root", "AUTHENTICATE PLAIN", "AUTHENTICATE " + "A" * 401, "905 root :*too long"),
        ("root", "AUTHENTICATE PLAIN", "AUTHENTICATE ???", "904 root :SASL *failed"),
        ("root", "AUTHENTICATE PLAIN", "AUTHENTICATE YWJj", "904 root :SASL *failed"),
        ("root", "AUTHENTICATE PLAIN", "AUTHENTICATE " + plain("root", "x"), "904 root :SASL *"),
        ("root", "AUTHENTICATE PLAIN", "AUTHENTICATE " + plain("no", "x"), "904 root :SASL *"),
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
    ],
    "AWAY": [
        ("alice", "AWAY :tea", "306 alice :You have been marked as being away"),
        ("alice", "AWAY :tea", "AWAY", "305 alice :You are no longer marked as being away"),
        ("alice", "AWAY :tea", "PRIVMSG alice :x", "301 alice alice :tea"),
        ("alice", "AWAY :tea", "INVITE bob #own", "341 alice bob :#own"),
        ("alice", "PRIVMSG carol :hi", "301 alice carol :lunch"),
        ("alice", "INVITE carol #own", "301 alice carol :lunch"),
    ],
    "BAN": [
        ("alice", "BAN bob", "481 alice :Permission denied: you're not an operator"),
        ("root", "BAN", "461 root BAN :Not enough parameters"),
        ("root", "BAN bob soon", "FAIL BAN INVALID_DURATION :A duration is *"),
        ("root", "BAN root", "FAIL BAN INVALID_TARGET :That would ban yourself."),
        ("root", "BAN 127.0.0.0/8", "FAIL BAN INVALID_TARGET :That would ban yourself."),
        ("root", "BAN bob 1h :spam", "NOTICE root :bob is banned (1 hour)."),
    ],
    "BANS": [
        ("alice", "BANS", "481 alice :Permission denied: you're not an operator"),
        ("root", "BANS", "NOTICE root :Nobody is banned or muted."),
        ("root", "MUTE bob * :noise", "BANS", "NOTICE root :bob is muted, by root: noise"),
        ("root", "BAN eve 1h", "BANS", "NOTICE root :eve is banned for 1 hour, by root"),
    ],
    "CAP": [
        ("new", "CAP", "461 * CAP :Not enough parameters"),
        ("new", "CAP LS", "CAP * LS :*"),
        ("new", "CAP LIST", "CAP * LIST :"),
        ("new", "CAP REQ :setname", "CAP * ACK :setname"),
        ("new", "CAP REQ :setname nonsense", "CAP * NAK :setname nonsense"),
        ("new", "CAP FOO", "410 * FOO :Invalid CAP command"),
        ("alice", "CAP END", "PING x", "PONG hubbub.local :x"),
    ],
    "CHATHISTORY": [
        ("alice", "CHATHISTORY", "461 alice CHATHISTORY :Not enough parameters"),
        ("alice", "CHATHISTORY LATEST #lobby * 5", "FAIL CHATHISTORY MESSAGE_ERROR LATEST :*"),
        ("root", "CHATHISTORY FOO #lobby * 5", "FAIL CHATHISTORY INVALID_PARAMS FOO :*"),
        ("root", "CHATHISTORY LATEST #lobby * x", "FAIL CHATHISTORY INVALID_PARAMS LATEST :*"),
        ("root", "CHATHISTORY BEFORE #lobby x=1 5", "FAIL CHATHISTORY INVALID_PARAMS BEFORE :*"),
        ("root", "CHATHISTORY LATEST #no * 5", "FAIL CHATHISTORY INVALID_TARGET #no :*"),
        ("root", "CHATHISTORY LATEST #lobby * 5", "NOTICE root :Earlier in #lobby:"),
    ],
    "CHGHOST": [
        ("alice", "CHGHOST bob here", "481 alice :Permission denied: you're not an operator"),
        ("root", "CHGHOST bob", "461 root CHGHOST :Not enough parameters"),
        ("root", "CHGHOST dave here", "401 root dave :No such nick"),
        ("root", "CHGHOST root -", "FAIL CHGHOST INVALID_HOST :- is not a host's name"),
        ("root", "CHGHOST root here", "NOTICE root :root has the host here"),
    ],
    "HELP": [
        ("alice", "HELP", "704 alice * :The commands of this server:"),
        ("alice", "HELP who", "704 alice WHO :WHO"),
        ("alice", "HELP who", "706 alice WHO :End of /HELP"),
        ("alice", "HELP tea", "524 alice TEA :No help available on this topic"),
    ],
    "INFO": [("alice", "INFO", "374 alice :End of INFO list")],
    "INVITE": [
        ("alice", "INVITE", "336 alice :#asked"),
        ("alice", "INVITE", "337 alice :End of /INVITE list"),
        ("alice", "INVITE bob", "461 alice INVITE :Not enough parameters"),
        ("alice", "INVITE bob #own", "341 alice bob :#own"),
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
        ("alice", "ISON dave :BOB alice", "303 alice :bob alice"),
    ],
    "JOIN": [
        ("alice", "JOIN", "461 alice JOIN :Not enough parameters"),
        ("alice", "JOIN tea", "403 alice tea :A room's name is # and 1 to 31 more characters."),
        ("alice", "JOIN #new", "353 alice = #new :@alice"),
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
        ("alice", "JOIN #1,#2,#3,#4", "405 alice #4 :You have joined too many channels"),
        ("alice", "JOIN #key,#new", ME + "JOIN #new"),
        ("alice", "JOIN 0", ME + "PART #lobby"),
        ("root", "JOIN #key", ":root!root@127.0.0.1 JOIN #key"),
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
        ("alice", "KICK #own dave,bob", ME + "KICK #own bob alice"),
        ("root", "KICK #lobby bob", ":root!root@127.0.0.1 KICK #lobby bob root"),
    ],
    "KILL": [
        ("alice", "KILL bob :x", "481 alice :Permission denied: you're not an operator"),
        ("root", "KILL", "461 root KILL :Not enough parameters"),
        ("root", "KILL dave :x", "401 root dave :No such nick"),
    ],
    "LINKS": [("alice", "LINKS", "365 alice * :End of /LINKS list")],
    "LIST": [
        ("alice", "LIST", "321 alice Channel :Users  Name"),
        ("alice", "LIST", "322 alice #topic 1 tea"),
        ("alice", "LIST", "323 alice :End of /LIST"),
    ],
    "LUSERS": [
        ("alice", "LUSERS", "251 alice :There are 3 users and 0 invisible on 1 servers"),
        ("alice", "LUSERS", "254 alice 9 :channels formed"),
        ("alice", "LUSERS", "266 alice 3 3 :Current global users 3, max 3"),
    ],
    "MODE": [
        ("alice", "MODE", "461 alice MODE :Not enough parameters"),
        ("alice", "MODE #nowhere", "403 alice #nowhere :No such channel"),
        ("alice", "MODE #own", "324 alice #own :+n"),
        ("alice", "MODE #own", "329 alice #own :*"),
        ("alice", "MODE #key", "324 alice #key +kn *"),
        ("alice", "MODE #full", "324 alice #full +nl 1"),
        ("alice", "MODE #banned b", "367 alice #banned alice!*@* bob :*"),
        ("alice", "MODE #banned b", "368 alice #banned :End of channel ban list"),
        ("alice", "MODE #own +x", "472 alice x :is unknown mode char to me"),
        ("alice", "MODE #own +k", "696 alice #own k * :This mode wants a parameter"),
        ("alice", "MODE #own +o", "696 alice #own o * :This mode wants a parameter"),
        ("alice", "MODE #own +k a,b", "696 alice #own k * :A key has no spaces, no commas"),
        ("alice", "MODE #own +l x", "696 alice #own l x :A limit is a number above 0"),
        ("alice", "MODE #own +l 0", "696 alice #own l 0 :A limit is a number above 0"),
        ("alice", "MODE #own +o dave", "401 alice dave :No such nick"),
        ("alice", "MODE #own +v carol", "441 alice carol #own :They aren't on that channel"),
        ("alice", "MODE #key +t", "442 alice #key :You're not on that channel"),
        ("alice", "MODE #lobby +t", "482 alice #lobby :You're not channel operator"),
        ("alice", "MODE #own +bbb a b c", "478 alice #own b :Channel list is full"),
        ("alice", "MODE #own +mx-n+vl bob 9", ME + "MODE #own +m-n+vl bob 9"),
        ("alice", "MODE #own +mx-n+vl bob 9", "472 alice x :is unknown mode char to me"),
        ("alice", "MODE #own +k tea", "MODE #own", "324 alice #own +kn tea"),
        ("alice", "MODE #own +k tea", "MODE #own -k x", ME + "MODE #own -k *"),
        ("alice", "MODE #own +l 5", "MODE #own -l", ME + "MODE #own -l"),
        ("alice", "MODE #own +b eve", "MODE #own -b EVE", ME + "MODE #own -b eve!*@*"),
        ("alice", "MODE alice", "221 alice :+"),
        ("alice", "MODE alice +iwB", ME + "MODE alice +Biw"),
        ("alice", "MODE alice +o", "MODE alice", "221 alice :+"),
        ("alice", "MODE alice +x", "501 alice :Unknown mode x"),
        ("alice", "MODE bob", "502 alice :Cannot change the modes of others"),
        ("alice", "MODE dave", "401 alice dave :No such nick"),
        ("root", "MODE #lobby +t", ":root!root@127.0.0.1 MODE #lobby +t"),
        ("root", "MODE root -o", ":root!root@127.0.0.1 MODE root -o"),
    ],
    "MONITOR": [
        ("alice", "MONITOR", "461 alice MONITOR :Not enough parameters"),
        ("alice", "MONITOR + bob,dave", "730 alice bob!bob@127.0.0.1"),
        ("alice", "MONITOR + bob,dave", "731 alice dave"),
        ("alice", "MONITOR + bob,dave", "MONITOR L", "732 alice bob,dave"),
        ("alice", "MONITOR + bob,dave", "MONITOR - BOB", "MONITOR L", "732 alice dave"),
        ("alice", "MONITOR L", "733 alice :End of MONITOR list"),
        ("alice", "MONITOR + a,b,c,d", "734 alice 2 c,d :Monitor list is full."),
        ("alice", "MONITOR + dave", "MONITOR S", "731 alice dave"),
        ("alice", "MONITOR + bob", "MONITOR C", "MONITOR L", "733 alice :End of MONITOR list"),
    ],
    "MOTD": [("alice", "MOTD", "422 alice :There is no message of the day")],
    "MUTE": [
        ("alice", "MUTE bob", "481 alice :Permission denied: you're not an operator"),
        ("root", "MUTE", "461 root MUTE :Not enough parameters"),
        ("root", "MUTE bob soon", "FAIL MUTE INVALID_DURATION :A duration is *"),
        ("root", "MUTE bob", "NOTICE root :bob is muted (for ever)."),
    ],
    "NAMES": [
        ("alice", "NAMES #own", "353 alice = #own :@alice bob"),
        ("alice", "NAMES #own,#topic", "353 alice = #topic @bob"),
        ("alice", "NAMES #secret", "366 alice #secret :End of /NAMES list"),
    ],
    "NICK": [
        ("new", "NICK", "431 * :No nickname given"),
        ("new", "NICK 1a", "432 * 1a :A username begins with a letter."),
        ("new", "NICK bob", "433 * bob :Nickname is already in use"),
        ("alice", "NICK BOB", "433 alice BOB :Nickname is already in use"),
        ("alice", "NICK Alice", ME + "NICK Alice"),
        ("root", "NICK alice", "433 root alice :Nickname is registered"),
        ("root", "BAN eve 1h :spam", "NICK eve", "432 root eve :eve is banned: spam"),
    ],
    "NOTICE": [
        ("alice", "NOTICE alice :x", ME + "NOTICE alice x"),
        ("alice", "NOTICE dave :x", "PING x", "PONG hubbub.local :x"),
    ],
    "OPER": [
        ("alice", "OPER root", "461 alice OPER :Not enough parameters"),
        ("alice", "OPER root x", "464 alice :*"),
        ("root", "OPER root :wrong", "464 root :*"),
        ("root", "OPER alice :" + PASSWORD, "491 root :alice is not an operator's account"),
        ("root", "OPER root :" + PASSWORD, "381 root :You are now an operator"),
    ],
    "PART": [
        ("alice", "PART", "461 alice PART :Not enough parameters"),
        ("alice", "PART #nowhere", "403 alice #nowhere :No such channel"),
        ("alice", "PART #key", "442 alice #key :You're not on that channel"),
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
    "PONG": [("new", "PONG", "PING x", "PONG hubbub.local :x")],
    "PRIVMSG": [
        ("alice", "PRIVMSG", "461 alice PRIVMSG :Not enough parameters"),
        ("alice", "PRIVMSG bob", "412 alice :No text to send"),
        ("alice", "PRIVMSG dave :hi", "401 alice dave :No such nick"),
        ("alice", "PRIVMSG #nowhere :hi", "403 alice #nowhere :No such channel"),
        ("alice", "PRIVMSG #key :hi", "404 alice #key :Cannot send to a channel *"),
        ("alice", "JOIN #quiet", "PRIVMSG #quiet :hi", "404 alice #quiet :Only those with a *"),
        ("alice", "JOIN #own,#soon", "PRIVMSG #soon :hi", "404 alice #soon :You are banned *"),
        ("alice", "PRIVMSG a,b,c,d,e :hi", "407 alice a,b,c,d,e :Too many targets: 4 at most"),
        ("alice", "PRIVMSG dave,alice :hi", ME + "PRIVMSG alice hi"),
        ("root", "PRIVMSG alice :hi", "NOTICE root :alice is offline; it will be delivered"),
    ],
    "QUIT": [("gone", "QUIT", "ERROR Goodbye.")],
    "REGISTER": [
        ("alice", "REGISTER * *", "461 alice REGISTER :Not enough parameters"),
        ("alice", "REGISTER * * longenough", "FAIL REGISTER TEMPORARILY_UNAVAILABLE alice :*"),
        ("root", "REGISTER * * longenough", "FAIL REGISTER ALREADY_AUTHENTICATED root :*"),
    ],
    "RESUME": [
        ("new", "RESUME", "461 * RESUME :Not enough parameters"),
        ("new", "RESUME abc", "FAIL RESUME INVALID_TOKEN :That place is not kept any more"),
        ("alice", "RESUME abc", "462 alice :You may not reregister"),
    ],
    "SETNAME": [
        ("alice", "SETNAME", "461 alice SETNAME :Not enough parameters"),
        ("alice", "SETNAME :", "FAIL SETNAME INVALID_REALNAME :A real name has 1 to *"),
        ("alice", "SETNAME :" + "x" * 101, "FAIL SETNAME INVALID_REALNAME :A real name has *"),
        ("alice", "SETNAME :Al B", "WHOIS alice", "311 alice alice alice 127.0.0.1 * :Al B"),
    ],
    "SILENCE": [
        ("alice", "SILENCE", "272 alice :End of silence list"),
        ("alice", "SILENCE +bob", "NOTICE alice :You do not hear bob any more"),
        ("alice", "SILENCE +bob", "SILENCE", "271 alice bob!*@* :is silenced"),
        ("alice", "SILENCE +bob", "SILENCE -bob", "NOTICE alice :You hear bob again"),
        ("alice", "SILENCE a", "SILENCE b", "SILENCE c", "511 alice c!*@* :Your silence *"),
    ],
    "STATS": [
        ("alice", "STATS u", "481 alice :Permission denied: you're not an operator"),
        ("root", "STATS u", "249 root u :clients: 1"),
        ("root", "STATS u", "219 root u :End of /STATS report"),
    ],
    "TAGMSG": [
        ("alice", "TAGMSG", "461 alice TAGMSG :Not enough parameters"),
        ("alice", "@+t=1 TAGMSG dave", "401 alice dave :No such nick"),
        ("alice", "@+t=1 TAGMSG #nowhere", "403 alice #nowhere :No such channel"),
        ("alice", "@+t=1 TAGMSG #key", "404 alice #key :Cannot send to a channel *"),
    ],
    "TIME": [("alice", "TIME", "391 alice hubbub.local :*")],
    "TOPIC": [
        ("alice", "TOPIC", "461 alice TOPIC :Not enough parameters"),
        ("alice", "TOPIC #own", "331 alice #own :No topic is set"),
        ("alice", "TOPIC #topic", "332 alice #topic tea"),
        ("alice", "TOPIC #topic", "333 alice #topic bob :*"),
        ("alice", "TOPIC #own :green tea", ME + "TOPIC #own :green tea"),
        ("alice", "TOPIC #secret", "403 alice #secret :No such channel"),
        ("alice", "TOPIC #key :x", "442 alice #key :You're not on that channel"),
        ("alice", "JOIN #topic", "TOPIC #topic :x", "482 alice #topic :You're not channel *"),
    ],
    "UNBAN": [
        ("alice", "UNBAN bob", "481 alice :Permission denied: you're not an operator"),
        ("root", "UNBAN", "461 root UNBAN :Not enough parameters"),
        ("root", "UNBAN bob", "FAIL UNBAN INVALID_TARGET bob :bob is neither banned nor muted. *"),
        ("root", "BAN bob", "UNBAN bob", "NOTICE root :bob may come in and speak again."),
    ],
    "USER": [
        ("new", "USER a 0 *", "461 * USER :Not enough parameters"),
        ("new", "USER a 0 * :A", "NICK new", "001 new :Welcome to Hubbub, new. 4 people are here."),
        ("alice", "USER a 0 * :A", "462 alice :You may not reregister"),
    ],
    "USERHOST": [
        ("alice", "USERHOST", "461 alice USERHOST :Not enough parameters"),
        ("alice", "USERHOST bob carol dave", "302 alice :bob=+bob@127.0.0.1 carol=-carol@*"),
        ("root", "USERHOST root", "302 root root*=+root@127.0.0.1"),
    ],
    "VERSION": [("alice", "VERSION", "351 alice hubbub-* hubbub.local Hubbub")],
    "WALLOPS": [
        ("alice", "WALLOPS :x", "481 alice :Permission denied: you're not an operator"),
        ("root", "WALLOPS", "461 root WALLOPS :Not enough parameters"),
        ("root", "MODE root +w", "WALLOPS :x", ":root!root@127.0.0.1 WALLOPS x"),
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
        ("alice", "MODE alice +B", "WHOIS alice", "335 alice alice :is a bot"),
        ("alice", "WHOIS bob", "318 alice bob :End of /WHOIS list"),
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
CASES = [row for rows in ROWS.values() for row in rows]


def people(room):
    """Alice, and the rooms that bob has made ready for her."""
    bob, alice, carol = room.irc("bob"), room.irc("alice"), room.irc("carol")
    carol.send("AWAY :lunch")
    carol.heard()
    bob.send("JOIN #topic,#key,#full,#invited,#banned,#secret,#asked")
    bob.send("TOPIC #topic :tea", "MODE #topic +t", "MODE #key +k sesame", "MODE #full +l 1")
    bob.send("MODE #invited +i", "MODE #banned +b alice", "MODE #secret +s")
    bob.send("MODE #asked +i", "INVITE alice #asked")
    bob.heard()
    alice.send("JOIN #own")
    alice.heard()
    bob.send("JOIN #own")
    bob.heard()
    return alice


@pytest.fixture
def small(monkeypatch):
    """Limits that a row can reach."""
    monkeypatch.setattr(server, "MAX_BANS", 2)
    monkeypatch.setattr(server, "MAX_WATCHES", 2)


@pytest.mark.parametrize("row", CASES, ids=[" | ".join(row[:-1])[:40] for row in CASES])
def test_a_command_is_answered_as_its_row_says(row, open_room, tmp_path, small, monkeypatch):
    """Each command, done or refused, has the answer that IRC clients know."""
    who, *lines, answer = row
    room = open_room(data=str(tmp_path / "kept") if who == "root" else "")
    if who == "root":
        room.server.records.add_account("alice", PASSWORD)
        room.server.records.add_account("root", PASSWORD, is_operator=True)
        if any(" bob" in line or "#key" in line for line in lines) and lines[0][:4] != "MUTE":
            bob = room.irc("bob")
            bob.send("JOIN #key", "MODE #key +k sesame")
            bob.heard()
        talker = operator(room)
    else:
        talker = people(room)
        if "#quiet" in answer or "#soon" in answer:
            bob = room.irc("eve")
            bob.send("JOIN #quiet,#soon", "MODE #quiet +m")
            bob.heard()
            if "#soon" in answer:
                talker.send("JOIN #soon")
                talker.heard()
                bob.send("MODE #soon +b alice")
                bob.heard()
        if who in ("new", "gone"):
            talker = room.connect(IrcTalker)
    if " 405 " in " " + answer:
        monkeypatch.setattr(server, "MAX_ROOMS", 5)
    talker.send(*lines)
    heard = talker.rest() if who == "gone" else talker.heard()
    forms = ("*" + answer, "*" + loose(answer))
    assert any(is_like(form, line) for form in forms for line in heard), heard


def loose(answer):
    """The same with a colon before its last word, which may stand there or not."""
    rest, _, last = answer.rpartition(" ")
    return rest + " :" + last
