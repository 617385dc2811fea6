"""The window of an operator: removing, muting, banning, lifting, announcing; and of who hosts."""

import re
import socket
from pathlib import Path

import pytest
from harness import TIMEOUT, IrcTalker, Room
from test_hosting import answer, host, hosts, listens_at  # noqa: F401

import client
from client import Host, protocol

HOST = protocol.HOST_ACCOUNT
STILL = " You can still read, and write privately to an operator."


@pytest.fixture
def room(tmp_path):
    """A server with an operator's account, root."""
    room = Room(data=str(tmp_path / "room"), network="Class 4B")
    room.server.store.add_account("root", "open sesame", True)
    yield room
    room.close()


@pytest.fixture
def teacher(desktop, room):
    """The window of an operator of the server; bob is in the lobby."""
    teacher = desktop.join(room.server.port, "alice")
    teacher.window.do(teacher.window.chat.send_command, "OPER", "root", "open sesame")
    desktop.pump(lambda: teacher.window.chat.session.is_operator)
    teacher.bob = room.irc("bob")
    desktop.pump(lambda: "bob" in teacher.people)
    return teacher


def person_menu(person, name):
    """Open the menu of a person with the keyboard."""
    people = person.chat_view.people.list
    people.canvas.focus_force()
    people.cursor = name
    person.press("Return", people.canvas)


def remove(person, name, words, reason):
    """Choose `words` in the menu of a person, and give a reason."""
    person_menu(person, name)
    person.choose(words)
    person.type(reason)
    person.press("Return")


def choose_row(person, words):
    """Choose a row of the open sheet."""
    rows = person.sheet.list
    rows.cursor = next(row.key for row in rows.rows if row.text == words)
    person.press("Return", rows.canvas)


def test_operator_mutes_a_person_for_ten_minutes_and_lifts_it(teacher, desktop):
    person_menu(teacher, "bob")
    teacher.choose("Mute…")
    assert {row.text for row in teacher.sheet.list.rows} > set(client.DURATIONS)
    rows, frame = teacher.sheet.list, teacher.sheet.frame
    desktop.pump(lambda: rows.canvas.winfo_height() == rows._tops[-1])  # no room is left over
    assert rows.fill and frame.winfo_height() == frame.winfo_reqheight()
    choose_row(teacher, "For 10 minutes")
    teacher.sees("[SERVER]: bob is muted (10 minutes).")
    teacher.bob.expect("NOTICE bob :You are muted for 10 minutes, by alice." + STILL)
    teacher.open_menu("Bans and mutes…")
    words = "bob is muted for 10 minutes, by alice"
    desktop.pump(lambda: [row.text for row in teacher.sheet.list.rows] == [words])
    assert words not in str(teacher.lines)
    teacher.press("Return")  # it closes the list
    assert teacher.sheet is None
    teacher.open_menu("Bans and mutes…")
    desktop.pump(lambda: [row.text for row in teacher.sheet.list.rows] == [words])
    choose_row(teacher, words)
    teacher.sees("[SERVER]: bob may write again.")
    teacher.bob.expect("NOTICE bob :You may write again.")
    teacher.bob.send("PRIVMSG #lobby :thanks")
    teacher.sees("[bob]: thanks")
    none = ["Nobody is banned or muted."]
    desktop.pump(lambda: [row.text for row in teacher.sheet.list.rows] == none)


def test_mute_is_shown_and_lifted_where_it_was_set(teacher, desktop, room):
    carol = room.plain("carol")
    desktop.pump(lambda: "carol" in teacher.people)
    assert "muted" not in drawn_people(teacher)
    teacher.say("/mute carol 1h noise")
    carol.expect("[SERVER]: You are muted for 1 hour, by alice: noise." + STILL)
    desktop.pump(lambda: "muted" in drawn_people(teacher))
    person_menu(teacher, "bob")
    assert "Mute…" in teacher.menu and "Unmute" not in teacher.menu
    person_menu(teacher, "carol")
    teacher.choose("Unmute")
    carol.expect("[SERVER]: You may write again.")
    desktop.pump(lambda: "muted" not in drawn_people(teacher))
    teacher.say("/mute carol 1h")
    desktop.pump(lambda: "muted" in drawn_people(teacher))
    chat = teacher.window.chat
    chat.do(chat.now + 3601, chat.tick)  # it has ended
    person_menu(teacher, "carol")
    assert "Mute…" in teacher.menu


def test_sanctions_of_other_operators_are_known_at_once(teacher, desktop, room):
    """In the marks of the people and in the open list; those of before, too."""
    other = room.irc("olga", "standard-replies")
    other.send("OPER root :open sesame", "MUTE carol 1h")
    other.expect("carol is muted (1 hour).")
    teacher.sees("[SERVER]: By olga: carol is muted (1 hour).")
    carol = room.plain("carol")
    desktop.pump(lambda: "muted" in drawn_people(teacher))
    teacher.open_menu("Bans and mutes…")
    rows = lambda: [row.text for row in teacher.sheet.list.rows]  # noqa: E731
    desktop.pump(lambda: rows() == ["carol is muted for 1 hour, by olga"])
    other.send("BAN mallory * :noise")
    desktop.pump(lambda: rows()[1:] == ["mallory is banned, by olga: noise"])
    other.send("UNBAN carol", "UNBAN mallory")
    desktop.pump(lambda: rows() == ["Nobody is banned or muted."])
    desktop.pump(lambda: "muted" not in drawn_people(teacher))
    teacher.press("Escape")
    other.send("MUTE carol 1h", "MUTE 0::1 1h")
    teacher.sees("[SERVER]: By olga: ::1 is muted (1 hour).")
    late = desktop.join(room.server.port, "late")
    late.window.do(late.window.chat.send_command, "OPER", "root", "open sesame")
    desktop.pump(lambda: "muted" in drawn_people(late))
    assert "is muted" not in str(late.lines) + str(carol.heard())


def test_muted_user_is_told_by_whom_and_why_and_may_ask_an_operator(teacher, desktop, room):
    carol = desktop.join(room.server.port, "carol")
    hint = carol.chat_view.composer.hint
    teacher.say("/mute carol 1h noise")
    carol.sees("[SERVER]: You are muted for 1 hour, by alice: noise." + STILL)
    desktop.pump(lambda: hint.cget("text") == "You are muted: you can read, but not write here")
    carol.say("why?")
    carol.sees("[SERVER]: You are muted for 1 more hour.")
    carol.say("@alice why?")
    desktop.pump(lambda: "[carol -> you]: why?" in str(teacher.lines))
    teacher.say("/unban carol")
    carol.sees("[SERVER]: You may write again.")
    desktop.pump(lambda: hint.cget("text") == "Message #lobby")


def test_answers_in_a_private_conversation_are_seen_by_the_user_alone(teacher, desktop, room):
    carol = desktop.join(room.server.port, "carol")
    carol.chat_view.open("bob")
    teacher.say("/mute carol 10m")
    only = "  (only you)"
    words = "[SERVER]: You are muted for 10 minutes, by alice." + STILL + only
    desktop.pump(lambda: words in carol.lines)
    carol.say("bob?")
    desktop.pump(lambda: "[SERVER]: You are muted for 10 more minutes." + only in carol.lines)
    teacher.say("/unban carol")
    desktop.pump(lambda: "[SERVER]: You may write again." + only in carol.lines)
    carol.say("bob!")
    desktop.pump(lambda: "[you -> bob]: bob!" in carol.lines)


def drawn_people(person):
    return person.drawn(person.chat_view.people.list)


def test_rights_outlast_a_lost_connection(desktop, room):
    alice = desktop.join(room.server.port, "alice")
    alice.say("/login root open sesame")
    desktop.pump(lambda: alice.title.startswith("Connected: root") and is_operator(alice))
    session = alice.window.chat.session
    other = room.irc("olga")
    alice.window.chat.muted["carol"] = 1e12  # lifted while the connection is lost
    other.send("OPER root :open sesame", "MUTE dave 1h")
    desktop.pump(lambda: "dave" in alice.window.chat.muted)
    del alice.window.chat.muted["dave"]
    room.server.directory.find("root").reader.shutdown(socket.SHUT_RDWR)
    desktop.pump(lambda: alice.window.chat.session is not session and is_operator(alice))
    desktop.pump(lambda: list(alice.window.chat.muted) == ["dave"])


def test_host_has_its_rights_again_after_a_lost_connection(desktop, hosts):  # noqa: F811
    """Without RESUME, too: from a server with the same certificate."""
    alice = host(desktop)
    desktop.pump(lambda: is_operator(alice))
    assert alice.window.chat.session.pin
    alice.window._connection._token = ""
    bob = IrcTalker(hosts[0].port).register("bob")
    alice.window.chat.session.is_operator = False
    alice.window._connection.send([client.QUIT])
    bob.until(" JOIN #lobby")
    desktop.pump(lambda: is_operator(alice))
    assert len(hosts) == 2
    bob.close()


def is_operator(person):
    return person.window.chat.session.is_operator


def test_what_is_chosen_while_disconnected_is_said_to_fail(teacher, desktop, monkeypatch):
    monkeypatch.setattr(client, "RETRY_TIMES", (60.0,))
    teacher.window.chat.session.is_settled = False
    person_menu(teacher, "bob")
    teacher.choose("Mute…")
    choose_row(teacher, "For an hour")
    teacher.sees("[SERVER]: You are not connected. Try again when you are.")


def test_operator_bans_a_person_with_a_reason(teacher, desktop):
    person_menu(teacher, "bob")
    teacher.choose("Ban from the chat…")
    assert teacher.has_focus(teacher.sheet.field.text)
    teacher.type("throwing chalk")
    choose_row(teacher, "For an hour")
    teacher.sees("[SERVER]: bob is banned (1 hour).")
    teacher.bob.expect("465 bob :You are banned for 1 hour, by alice: throwing chalk.")
    teacher.bob.expect("ERROR :You are banned for 1 hour, by alice: throwing chalk.")
    desktop.pump(lambda: "bob" not in teacher.people)


def test_banned_user_is_told_by_whom_and_why_and_does_not_try_again(teacher, desktop, room):
    carol = desktop.join(room.server.port, "carol")
    teacher.say("/ban carol 1h too loud")
    words = "You are banned for 1 hour, by alice: too loud."
    assert carol.wait_for_error(client.REJECTED) == words
    assert carol.window._connection is None and not carol.window.is_chatting
    carol.press("Return", carol.connect_view.button)
    assert carol.wait_for_error(client.NAME) == words.replace("You are", "carol is")


@pytest.mark.parametrize(("words", "done"), [("Ban from the chat…", "banned"), ("Mute…", "muted")])
def test_operator_bans_or_mutes_the_address_of_a_person(teacher, desktop, room, words, done):
    far = room.irc("dave", host="127.0.0.1")
    near = room.irc("erin")  # at the same computer
    for name in ("dave", "erin"):
        room.client(name).host = "192.0.2.7"
    desktop.pump(lambda: {"dave", "erin"} <= set(teacher.people))
    person_menu(teacher, "dave")
    teacher.choose(words)
    rows = teacher.sheet.list
    names = [row.text for row in rows.rows]
    assert names[1:4] == names[5:] == list(client.DURATIONS)
    assert names[::4] == ["ONLY THE NAME", "THE NAME AND THE COMPUTER, FOR ALL WHO USE IT"]
    rows.cursor = rows.rows[5].key
    teacher.press("Return", rows.canvas)
    teacher.sees("[SERVER]: 192.0.2.7 is %s (10 minutes)." % done)
    teacher.sees("[SERVER]: dave is %s (10 minutes)." % done)
    if done == "banned":
        for talker in (far, near):
            talker.expect("ERROR :You are banned for 10 minutes, by alice.")
        return
    for talker in (far, near):
        talker.send("PRIVMSG #lobby :hello")
        talker.expect("FAIL PRIVMSG MUTED :You are muted for 10 more minutes.")
    assert "hello" not in str(teacher.lines)
    person_menu(teacher, "dave")
    teacher.choose("Unmute")
    teacher.sees("[SERVER]: 192.0.2.7 may write again.")
    teacher.sees("[SERVER]: dave may write again.")
    for talker, name in ((far, "dave"), (near, "erin")):
        talker.expect("NOTICE %s :You may write again." % name)
        talker.send("PRIVMSG #lobby :thanks")
        teacher.sees("[%s]: thanks" % name)
    assert not teacher.window.chat.muted


def test_removed_from_the_chat_is_told_why_and_can_come_back(teacher, desktop, room):
    carol = desktop.join(room.server.port, "carol")
    desktop.pump(lambda: "carol" in teacher.people)
    remove(teacher, "carol", "Remove from the chat…", "go to work")
    words = "You were removed from the chat by alice: go to work"
    assert carol.wait_for_error(client.REJECTED) == words
    assert not carol.connect_view.fields[client.SERVER].winfo_viewable()
    desktop.pump(lambda: "carol" not in teacher.people)
    carol.press("Return", carol.connect_view.button)
    carol.sees("[SERVER]: carol joined the chat")


def test_removed_from_a_room_is_told_so_and_joins_again(teacher, desktop, room):
    carol = desktop.join(room.server.port, "carol")
    assert carol.chat_view.composer.hint.cget("text") == "Message #lobby"
    desktop.pump(lambda: "carol" in teacher.people)
    remove(teacher, "carol", "Remove from #lobby…", "too loud")
    words = "You were removed from #lobby by alice: too loud"
    desktop.pump(lambda: carol.banner == words)
    assert carol.chat_view.composer.hint.cget("text") == "Join #lobby to write here"
    carol.say("hello?")
    carol.sees("[SERVER]: You are not in #lobby. Type /join #lobby")
    assert carol.draft == "hello?"
    answer(desktop, carol, "Join again")
    carol.sees("[SERVER]: carol joined the chat")
    desktop.pump(lambda: carol.banner != words)
    carol.press("Return", carol.box)
    teacher.sees("[carol]: hello?")


def test_sheets_of_an_operator_can_be_left(teacher, desktop):
    others = "Make operator of #lobby…", "Remove from the chat…"
    for words in (
        "Mute…",
        "Ban from the chat…",
        "Remove from #lobby…",
        "Ban from #lobby…",
        *others,
    ):
        person_menu(teacher, "bob")
        teacher.choose(words)
        teacher.press("Escape")
        assert teacher.sheet is None
    teacher.bob.send("PRIVMSG #lobby :still here")
    teacher.sees("[bob]: still here")


def test_person_is_removed_from_the_room_that_was_in_view(teacher, desktop):
    person_menu(teacher, "bob")
    teacher.choose("Remove from #lobby…")
    teacher.chat_view.open("#other")
    choose_row(teacher, "Remove bob from #lobby")
    teacher.bob.expect("KICK #lobby bob :alice")


def test_operator_of_a_room_bans_from_it_and_lifts_that(desktop, room):
    alice = desktop.join(room.server.port, "alice")
    alice.chat_view.open("#own")
    alice.sees("[SERVER]: alice joined #own")
    bob = room.irc("bob")
    bob.send("JOIN #own")
    desktop.pump(lambda: "bob" in alice.people)
    person_menu(alice, "bob")
    entries = alice.menu
    assert "Ban from #own…" in entries and "Mute…" not in entries
    alice.choose("Ban from #own…")
    choose_row(alice, "Ban bob from #own")
    bob.expect("KICK #own bob :alice")
    bob.send("JOIN #own")
    bob.expect("474 bob #own :Cannot join channel (+b)")
    alice.chat_view.buttons["more"].invoke()
    alice.choose("Bans from this room…")
    said = re.compile(r"bob, banned by alice on \d{4}-\d\d-\d\d at \d\d:\d\d")
    desktop.pump(lambda: said.fullmatch(alice.sheet.list.rows[0].text))
    assert len(alice.sheet.list.rows) == 1
    labels = [
        each.cget("text") for each in alice.sheet.frame.winfo_children() if "label" in str(each)
    ]
    assert labels == ["Bans from #own", "Choose one to lift it."]
    choose_row(alice, alice.sheet.list.rows[0].text)
    alice.sees("[SERVER]: alice lifted the ban of bob from #own")
    none = ["Nobody is banned or muted."]
    desktop.pump(lambda: [row.text for row in alice.sheet.list.rows] == none)
    assert alice.has_focus(alice.sheet.button)


@pytest.mark.parametrize("mask", ["carol!*@*", "*!*@127.*"])
def test_banned_from_a_room_is_not_asked_to_join_it_again(teacher, desktop, room, mask):
    carol = desktop.join(room.server.port, "carol")
    desktop.pump(lambda: "carol" in teacher.people)
    words = "You were removed from #lobby by alice: too loud"
    if mask.startswith("carol"):
        remove(teacher, "carol", "Ban from #lobby…", "too loud")
    else:
        chat = teacher.window.chat
        teacher.window.do(chat.send_command, "MODE", "#lobby", "+b", mask)
        teacher.window.do(chat.send_command, "KICK", "#lobby", "carol", "too loud")
        desktop.pump(lambda: carol.chat_view.banner.buttons)
        answer(desktop, carol, "Join again")  # a mask says nothing to her
        words = "You are banned from #lobby. Its operators can lift that."
        carol.sees("[SERVER]: " + words)
    desktop.pump(lambda: carol.banner == words)
    desktop.pump(lambda: not carol.chat_view.banner.buttons)
    assert carol.chat_view.composer.hint.cget("text") == "You are banned from #lobby"
    teacher.window.do(teacher.window.chat.send_command, "MODE", "#lobby", "-b", mask)
    desktop.pump(lambda: "alice lifted the ban of " in str(teacher.lines))
    carol.window.do(carol.window.chat.submit, "/join #lobby")
    desktop.pump(lambda: carol.chat_view.composer.hint.cget("text") == "Message #lobby")


def test_operators_of_a_room_are_made_and_marked(teacher, desktop):
    people = teacher.chat_view.people.list
    icon = str(teacher.window.look.icon("shield", "link", 14))

    def marked():
        desktop.update()
        canvas = people.canvas
        images = [i for i in canvas.find_all() if canvas.type(i) == "image"]
        return sum(canvas.itemcget(i, "image") == icon for i in images)

    assert marked() == 0
    person_menu(teacher, "bob")
    assert teacher.menu[-1] == "Make operator of #lobby…"  # far from "Remove"
    teacher.choose("Make operator of #lobby…")
    choose_row(teacher, "Make bob an operator of #lobby")
    desktop.pump(lambda: marked() == 1)
    person_menu(teacher, "bob")
    assert "bob is an operator of #lobby" in teacher.menu
    teacher.choose("Make ordinary member of #lobby…")
    choose_row(teacher, "Make bob an ordinary member of #lobby")
    desktop.pump(lambda: marked() == 0)


def test_members_without_rights_are_offered_none(desktop, room):
    room.irc("zoe").send("JOIN #own")
    alice = desktop.join(room.server.port, "alice")
    alice.chat_view.open("#own")
    desktop.pump(lambda: "zoe" in alice.people)
    person_menu(alice, "zoe")
    entries = alice.menu
    assert entries[-1] == "zoe is an operator of #own"
    assert not [words for words in entries if "Remove" in words or "Ban" in words]
    alice.open_menu()
    assert not {"Announce to everyone…", "Bans and mutes…"} & set(alice.menu)


def test_announcement_stays_until_it_is_closed(teacher, desktop, room):
    pupil = desktop.join(room.server.port, "carol")
    bar = pupil.chat_view.announcement
    for text in ("Five minutes left", "Stop writing"):
        teacher.open_menu("Announce to everyone…")
        teacher.sheet.fill(text)
        teacher.press("Return", teacher.sheet.field.text)  # two windows: no real keyboard
        words = "Announcement by alice: " + text
        desktop.pump(lambda words=words: bar.text.cget("text").strip() == words)
        pupil.sees("[SERVER]: " + words)
        teacher.sees("[SERVER]: " + words)
        assert not teacher.chat_view.announcement.frame.winfo_manager()
    pupil.chat_view.open("#other")
    desktop.update()
    assert bar.frame.winfo_viewable()
    bar.buttons[0].invoke()
    words = "Announcement by alice: Five minutes left"
    desktop.pump(lambda: bar.text.cget("text").strip() == words)
    bar.buttons[0].invoke()
    desktop.pump(lambda: not bar.frame.winfo_viewable())


def test_announcement_is_kept_in_the_history_of_the_lobby(teacher, desktop, room):
    early = room.irc("dan", "message-tags server-time draft/chathistory batch")
    teacher.say("/announce Five minutes left")
    said = early.until("Five minutes left")[-1]
    early.send("CHATHISTORY LATEST #lobby * 10")
    (kept,) = [line for line in early.heard() if "Five minutes left" in line]
    msgid = re.compile("msgid=([0-9]+)")
    assert msgid.search(kept).group(1) == msgid.search(said).group(1)  # else it is shown twice
    late = desktop.join(room.server.port, "eve")
    late.sees("[SERVER]: Announcement by alice: Five minutes left")
    assert not late.chat_view.announcement.frame.winfo_manager()


@pytest.mark.parametrize(
    "line",
    [
        ":bob!b@h NOTICE * :Announcement by alice: fake",
        ":bob!b@h NOTICE alice :Announcement by alice: fake",
        ":server NOTICE * :The history is being kept again.",
        ":server NOTICE alice :Announcement by alice: fake",
    ],
)
def test_nobody_else_announces(alice, hub, desktop, line):
    hub.send(line, ":bob!b@h PRIVMSG #lobby :later")
    alice.sees("[bob]: later")
    assert not alice.chat_view.announcement.frame.winfo_manager()


# Hosting


def test_who_hosts_is_the_operator_of_the_chat(desktop, hosts):  # noqa: F811
    alice = host(desktop)
    alice.sees("[SERVER]: You are an operator now.")
    lobby = alice.window.chat.current
    desktop.pump(lambda: alice.window.chat.session.is_chanop(lobby.members.get("alice")))
    assert "logged in as" not in str(alice.lines)
    assert client.OPERATES % "#lobby" not in str(alice.lines)
    desktop.pump(lambda: alice.window.chat.session.is_operator)
    bob = IrcTalker(hosts[0].port).register("bob")
    desktop.pump(lambda: "bob" in alice.people)
    person_menu(alice, "bob")
    assert {"Mute…", "Ban from the chat…"} <= set(alice.menu)
    arguments = [word for process in hosts for word in process.process.args]
    assert alice.window.hosting._command is None and "--add-account=" + HOST in arguments
    bob.close()
    # Who started it without the window takes the rights from the menu.
    alice.close()
    answer(desktop, alice, "Keep the chat running")
    again = desktop.open(hosts[0].port, "teacher")
    again.window.settings.hosted = ""
    again.connect()
    again.sees("[SERVER]: teacher joined the chat")
    again.open_menu("Become the operator")
    again.sees("[SERVER]: You are an operator now.")
    again.sees("[SERVER]: teacher became an operator of #lobby")
    assert client.OPERATES % "#lobby" not in str(again.lines)


def test_name_of_the_host_stays_theirs_while_the_window_is_closed(desktop, hosts):  # noqa: F811
    tina = host(desktop, name="tina")
    tina.sees("[SERVER]: You are an operator now.")
    tina.window.do(tina.window.chat.submit, "/join #staff")
    staff = tina.window.chat.conversation_named("#staff")
    desktop.pump(lambda: "tina" in staff.members)
    ben = IrcTalker(hosts[0].port).register("ben", "standard-replies message-tags echo-message")
    tina.window.do(tina.window.chat.submit, "@ben see me later")
    ben.expect(":see me later")
    tina.window.do(tina.window.chat.send_command, "MODE", "#staff", "+i")
    desktop.pump(lambda: "i" in staff.flags)
    tina.close()
    answer(desktop, tina, "Keep the chat running")
    ben.expect(" QUIT Quit")
    for name in ("tina", "TINA"):
        ben.send("NICK " + name)
        assert "tina is the name of this chat's host." in ben.expect("Choose another.")
    ben.send("REGISTER tina * :a-long-password", "PRIVMSG tina :what is it?")
    assert "ACCOUNT_NAME_MUST_BE_NICK" in ben.expect("your present username.")
    ben.heard()
    back = desktop.open(hosts[0].port, "tina", at_once=True)
    talk = back.window.chat.private("ben")
    desktop.pump(lambda: "what is it?" in [entry.line.text for entry in talk.entries])
    assert back.window.chat.nickname == "tina" and back.window.chat.session.is_operator
    desktop.pump(lambda: "#staff" in back.window.chat.rooms)
    desktop.pump(lambda: not back.window.chat.conversation_named("#staff").is_outside)
    assert "invited" not in str(back.lines)
    ben.close()


def test_registering_is_not_offered_to_those_who_are_logged_in(desktop, open_room, tmp_path):
    room = open_room(data=str(tmp_path / "data"))
    alice = desktop.join(room.server.port, "alice")
    alice.open_menu()
    assert {"Register this name…", "Log in…"} <= set(alice.menu)
    alice.window.do(alice.window.chat.submit, "/register s3cret-word")
    desktop.pump(lambda: alice.window.chat.session.account == "alice")
    alice.open_menu()
    assert not {"Register this name…", "Log in…"}.intersection(alice.menu)
    alice.close()
    again = desktop.open(room.server.port, "alice", at_once=True)
    again.wait_for_question(client.PASSWORD)
    again.connect(password="s3cret-word")
    again.sees("[SERVER]: alice joined the chat")
    again.open_menu()
    assert not {"Register this name…", "Log in…"}.intersection(again.menu)


def test_nobody_takes_the_name_of_the_host_s_account(room):
    for name in (HOST, HOST.upper(), "host_operator", "hοst-operator"):
        assert "reserved" in protocol.nickname_error(name)


def visit(desktop, alice, hub):
    """Go on to another server, which the test plays."""
    alice.window.cancel()
    alice.connect(name="alice", server="127.0.0.1:%d" % hub.port)
    desktop.pump(lambda: alice.window._connection is not None)
    hub.welcome()
    desktop.pump(lambda: alice.window.is_chatting and alice.window.chat.session.is_settled)


@pytest.mark.parametrize("when", ["while it is made", "after the own chat"])
def test_secret_is_not_told_to_another_server(desktop, hosts, hub, when):  # noqa: F811
    """Not even to another server on this computer: it may be another user's."""
    alice = host(desktop)
    desktop.pump(lambda: alice.window.hosting._command is not None)
    if when != "while it is made":
        alice.sees("[SERVER]: You are an operator now.")
        alice.window.leave()
        answer(desktop, alice, "Keep the chat running")
    visit(desktop, alice, hub)
    assert len(hosts) == 2
    desktop.pump(lambda: not any(host.thread.is_alive() for host in hosts[1:]))
    alice.window.hosting.poll()
    alice.say("done")
    hub.expect("PRIVMSG #lobby :done")
    assert "OPER" not in str(hub.seen) and "AUTHENTICATE" not in str(hub.seen)
    assert not alice.chat_view.invitation.frame.winfo_manager()


def test_host_with_a_registered_name_gives_its_password_and_is_the_operator(desktop, hosts):  # noqa: F811
    alice = host(desktop, name="tina")
    alice.sees("[SERVER]: You are an operator now.")
    zoe = IrcTalker(hosts[0].port).register("zoe", "standard-replies")
    zoe.send("REGISTER * * :a-long-password")
    zoe.expect(":You are now logged in as zoe")
    zoe.close()
    alice.window.leave()
    answer(desktop, alice, "Keep the chat running")
    alice.connect(name="zoe", server=hosts[0].server)
    alice.wait_for_question(client.PASSWORD)
    alice.connect(name="zoe", server=hosts[0].server, password="a-long-password")
    alice.sees("[SERVER]: You are an operator now.")
    assert alice.window.chat.nickname == "zoe"
    desktop.pump(lambda: alice.chat_view.invitation.frame.winfo_viewable())


def test_host_is_told_why_there_are_no_rights(desktop, hosts, monkeypatch):  # noqa: F811
    """With a Python without scrypt: the chat goes on, without accounts."""
    monkeypatch.setattr(Host, "COMMAND", "import hashlib; del hashlib.scrypt; " + Host.COMMAND)
    alice = host(desktop)
    words = "This server's Python has no scrypt: it cannot check passwords."
    alice.sees("[SYSTEM]: You cannot be made the operator. " + words)
    assert not is_operator(alice) and alice.chat_view.invitation.frame.winfo_viewable()


def test_leaving_while_the_secret_is_made_does_not_end_the_chat(desktop, hosts):  # noqa: F811
    alice = host(desktop)
    desktop.pump(lambda: alice.window.hosting._command is not None)
    alice.window.leave()
    hosts[1].thread.join(TIMEOUT)
    alice.window.hosting.poll()
    assert "ended" not in alice.connect_view.hints[client.SERVER].cget("text")


@pytest.mark.parametrize(
    ("bound", "own", "others"),
    [
        ("0.0.0.0:4000", ["127.0.0.1:4000"], ["[::1]:4000", "localhost:4000", "127.0.0.1", ""]),
        ("[::]:4000", ["127.0.0.1:4000", "[::1]:4000"], ["192.0.2.1:4000", "127.0.0.1:4001"]),
        ("127.0.0.1:4000", ["127.0.0.1:4000"], ["127.0.0.2:4000", "127.0.0.1:400"]),
    ],
)
def test_own_server_is_known_by_its_address(bound, own, others):
    listens_at(*bound.rsplit(":", 1))
    assert [address for address in own + others if client.is_own_server(address)] == own


@pytest.mark.parametrize("note", ["", "1234\n", "1234 127.0.0.1\n", "é", "1234 127.0.0.1 x\n"])
def test_server_that_is_only_starting_is_nowhere(note):
    listens_at("127.0.0.1", "4000")
    assert client.is_own_server("127.0.0.1:4000")
    Path(protocol.data_folder(), protocol.PID_FILE).write_text(note, encoding="utf-8")
    assert not client.is_own_server("127.0.0.1:4000")


@pytest.mark.parametrize("letter", ["n", "ч", "茶", "🫖"])
@pytest.mark.parametrize("nickname", ["carol", "茶" * 32])
def test_long_reason_leaves_the_rest_of_a_mute_whole(teacher, desktop, room, letter, nickname):
    """In every script: its end is cut, between two characters."""
    carol = room.irc(nickname, "standard-replies")
    teacher.say("/mute %s 10m %s" % (nickname, letter * 200))
    teacher.sees("[SERVER]: %s is muted (10 minutes)." % nickname)
    (line,) = [text for text in carol.heard() if " MUTE MUTED " in text]
    start, end = "You are muted for 10 minutes, by alice: ", "." + STILL
    reason = line[line.index(start) + len(start) : -len(end)]
    assert line.endswith(end) and len(line.encode()) <= protocol.MAX_MESSAGE - 2
    assert reason == letter * 200 or reason.strip(letter) == "…"
    assert len(reason.encode()) > 120  # no more is cut than needed


@pytest.mark.parametrize("is_operator", [True, False])
def test_operator_of_a_room_is_told_who_may_be_removed_by_another(desktop, room, is_operator):
    """An operator of the server may be removed by no one of them."""
    alice, bob = desktop.join(room.server.port, "alice"), room.irc("bob")
    if is_operator:
        alice.window.do(alice.window.chat.send_command, "OPER", "root", "open sesame")
    alice.say("/join club")
    alice.sees("[SERVER]: alice joined #club")
    bob.send("JOIN #club")
    desktop.pump(lambda: alice.window.chat.session.is_operator == is_operator)
    desktop.pump(lambda: "bob" in alice.people)
    person_menu(alice, "bob")
    alice.choose("Make operator of #club…")
    words = "bob may then remove and ban others there, "
    words += "but not you." if is_operator else "and you."
    assert words in texts_of(alice.sheet.frame)
    choose_row(alice, "Make bob an operator of #club")
    bob.expect("MODE #club +o :bob")
    bob.send("KICK #club alice")
    assert ("484" in str(bob.heard())) == is_operator


def texts_of(widget):
    """Return the texts of all labels in a widget."""
    found = [str(widget.cget("text"))] if widget.winfo_class() == "TLabel" else []
    return found + [text for child in widget.winfo_children() for text in texts_of(child)]
