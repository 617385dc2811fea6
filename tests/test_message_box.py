"""The message box: words reach those whom the window names, and a password nobody."""

import pytest
from test_window_conversations import tea  # noqa: F401
from window_harness import hear

import client
from protocol import sasl_plain_chunks


@pytest.fixture
def anna(alice, desktop, hub):
    """Alice as an operator, on a server with accounts."""
    alice.window.chat.session.caps |= {"sasl", "draft/account-registration", client.RESUME_CAP}
    hub.send(":hub MODE alice :+o")
    desktop.pump(lambda: alice.window.chat.session.is_operator)
    return alice


def hidden(person):
    """The text of the hidden field, None if it is not open."""
    field = person.chat_view.composer.hidden
    return field.get() if field.winfo_manager() else None


def log_in(person, *words):
    """Choose "Log in…" in the menu, keep the name in the field, and type."""
    person.open_menu("Log in…")
    person.type("<Return>", *words)


# Commands of the menus


@pytest.mark.parametrize("draft", ["", "see you", "one\ntwo"])
@pytest.mark.parametrize("ask", [log_in, lambda anna: anna.open_menu("Register this name…")])
def test_menu_asks_for_a_password_whatever_the_box_holds(anna, ask, draft):
    anna.write(draft)
    ask(anna)
    anna.type("s3cret")
    assert (hidden(anna), anna.draft) == ("s3cret", draft)
    assert anna.chat_view.composer.frame.instate(["focus"])
    anna.type("<Escape>")
    assert (hidden(anna), anna.draft, anna.notice) == (None, draft, "")


@pytest.mark.parametrize("draft", ["", "see you", "one\ntwo"])
@pytest.mark.parametrize(
    ("words", "sent"), [("Another name…", "NICK anna"), ("Announce to everyone…", "ANNOUNCE anna")]
)
def test_words_that_the_menu_asks_for_leave_the_draft_alone(anna, hub, draft, words, sent):
    anna.write(draft)
    anna.open_menu(words)
    anna.type("an", "<Escape>")
    assert (anna.sheet, anna.draft, anna.has_focus(anna.box)) == (None, draft, True)
    anna.open_menu(words)
    anna.type("<Return>")  # nothing is written yet
    assert anna.sheet is not None
    anna.type("anna", "<Return>")
    hub.expect(sent)
    assert (anna.sheet, anna.draft) == (None, draft)


def test_name_that_the_menu_asks_for_is_checked_at_once(anna):
    anna.open_menu("Another name…")
    anna.type("9lives", "<Return>")
    assert [row.text for row in anna.sheet.list.rows] == [client.protocol.nickname_error("9lives")]


def test_login_of_the_menu_asks_for_the_name_of_the_account(anna, hub):
    """Which need not be the present name."""
    anna.write("a draft")
    anna.open_menu("Log in…")
    assert anna.sheet.words == "alice"
    anna.type("9lives", "<Return>")  # instead of it
    assert [row.text for row in anna.sheet.list.rows] == [client.protocol.nickname_error("9lives")]
    anna.type("<ctrl+a>", "carol", "<Return>")
    assert (anna.sheet, anna.notice) == (None, "Password of carol (hidden). Esc gives up.")
    anna.type("s3cret", "<Return>")
    hub.until(sasl_plain_chunks("carol", "s3cret")[0])
    assert (hidden(anna), anna.draft) == (None, "a draft")


# Passwords


@pytest.mark.parametrize("way", ["key", "click", "event"])
def test_password_is_still_asked_for_in_another_conversation(anna, hub, desktop, way):
    """Nothing that is typed then is sent to it, until the password is entered or given up."""
    anna.chat_view.open("bob")
    anna.type("for bob")
    log_in(anna, "s3")
    if way == "key":
        anna.type("<alt+1>")
    elif way == "click":
        rooms = anna.chat_view.sidebar.list.canvas
        x, y = rooms.winfo_rootx() + 60, rooms.winfo_rooty() + 50
        anna.xdotool("mousemove", str(x), str(y), "click", "1")
    else:
        anna.window.do(anna.window.chat.select, anna.window.chat.conversation_named("#lobby"))
    desktop.pump(lambda: anna.window.chat.current.name == "#lobby")
    anna.type("cret")
    assert (hidden(anna), anna.draft) == ("s3cret", "")
    assert anna.notice == "Password of alice (hidden). Esc gives up."
    anna.type("<Return>")
    hub.expect("AUTHENTICATE PLAIN")
    assert hidden(anna) is None
    anna.type("hello", "<Return>")
    hub.expect("PRIVMSG #lobby :hello")
    anna.press("Control-Next", anna.box)
    assert anna.draft == "for bob"


def test_enter_sends_the_password_and_not_the_draft_below_it(anna, hub):
    anna.type("for all")
    log_in(anna, "s3cret", "<Return>")
    hub.expect("AUTHENTICATE PLAIN")
    assert (anna.draft, anna.lines[-1]) == ("for all", anna.lines[-1])
    assert "[alice]: for all" not in anna.lines


@pytest.mark.parametrize("what", ["password", "sheet"])
def test_nothing_of_the_chat_stays_open_for_another_server(anna, desktop, what):
    if what == "password":
        log_in(anna)
        anna.type("s3cret")
    else:
        anna.press("Control-k", anna.box)
    anna.window.leave()
    assert (hidden(anna), anna.sheet) == (None, None)


def test_refused_password_is_replaced_by_the_next(anna, hub):
    anna.open_menu("Register this name…")
    words = "New password for alice, at least 8 characters (hidden). Esc gives up."
    assert anna.notice == words
    anna.type("short", "<Return>")
    anna.sees("[SERVER]: A password has at least 8 characters.")
    assert (hidden(anna), anna.notice) == ("short", words)
    anna.type("l0ngenough")
    assert hidden(anna) == "l0ngenough"
    anna.type("<Return>", "<Escape>")
    anna.open_menu("Register this name…")
    anna.type("short", "<Return>")
    anna.text.focus_force()
    anna.type("l", "0ngenough")  # what is typed in the transcript goes to the field
    assert hidden(anna) == "l0ngenough"


def test_new_password_is_asked_for_twice(anna, hub):
    note = anna.chat_view.composer.note
    anna.open_menu("Register this name…")
    anna.type("l0ngenough", "<Return>")
    assert hidden(anna) == ""
    assert anna.notice == "The same password again, to be sure (hidden). Esc gives up."
    anna.type("l0ngenuogh", "<Return>")
    assert note.winfo_manager() and note.cget("text") == "This is not the same password."
    anna.type("l0ngenough", "<Return>")
    hub.expect("REGISTER * * :l0ngenough")
    assert (hidden(anna), anna.draft, anna.notice, note.winfo_manager()) == (None, "", "", "")


@pytest.mark.parametrize("draft", ["", "see you", "one\ntwo"])
@pytest.mark.parametrize("way", ["menu", "typed"])
@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        ("904 alice :That username and password do not match.", None),
        ("905 alice :SASL message too long", "That password is too long."),
    ],
)
def test_refused_login_asks_for_its_password_again(anna, desktop, hub, way, draft, refusal, words):
    """What is typed then is for no one in the room, and not for the draft."""
    note = anna.chat_view.composer.note
    if way == "menu":
        anna.write(draft)
        log_in(anna)
    else:
        anna.type("/login alice", "<Return>")
    anna.type("s3cret", "<Return>")
    hub.until(sasl_plain_chunks("alice", "s3cret")[0])
    if way == "typed":
        anna.write(draft)
    hub.send(":hub " + refusal, ":hub " + refusal)  # as some servers do, for each line
    desktop.pump(lambda: hidden(anna) is not None)
    assert anna.notice == "Password of alice (hidden). Esc gives up."
    assert note.winfo_manager() and note.cget("text") == (words or refusal.partition(":")[2])
    anna.type("s3cr3t", "<Return>")
    hub.until(sasl_plain_chunks("alice", "s3cr3t")[0])
    assert (hidden(anna), anna.draft, note.winfo_manager()) == (None, draft, "")
    assert not any("s3cr" in line for line in anna.lines)
    hub.send(":hub 903 alice :yes", ":hub " + refusal)  # the latter is for no login
    hear(hub, anna, "hi")
    assert hidden(anna) is None


def test_refused_login_disturbs_no_other_password(anna, desktop, hub):
    log_in(anna, "s3cret", "<Return>")
    anna.open_menu("Register this name…")
    anna.type("l0ng")
    hub.send(":hub 904 alice :no")
    anna.sees("[SERVER]: no")
    anna.type("enough")
    assert hidden(anna) == "l0ngenough"
    assert anna.notice.startswith("New password for alice")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\x0b", "\u2028"])
def test_pasted_password_is_one_line(anna, hub, end):
    """What stands in the next line is neither shown nor said."""
    log_in(anna)
    field = anna.chat_view.composer.hidden
    anna.root.clipboard_clear()
    anna.root.clipboard_append("anna%ss3cret%s" % (end, end))
    anna.press("<Paste>", field)
    anna.type("<Return>")
    hub.expect("AUTHENTICATE PLAIN")
    hub.expect(sasl_plain_chunks("alice", "anna%ss3cret" % (" " * len(end)))[0])
    hub.send(":hub 904 alice :no", ":hub 904 alice :no")
    anna.sees("[SERVER]: no")
    anna.type("<Escape>", "hello", "<Return>")
    assert not any("s3cret" in line for line in hub.until("PRIVMSG #lobby :hello"))
    assert "s3cret" not in anna.draft


def test_person_mentioned_is_not_written_into_a_password(anna):
    log_in(anna, "s3cret")
    anna.chat_view.composer.mention("bob")
    assert (hidden(anna), anna.draft) == ("s3cret", "bob: ")


# Recipients


def test_answer_goes_to_the_user_whom_the_box_names(alice, desktop, hub):
    def write(name):
        hub.send(":%s!c@h JOIN #lobby" % name, ":%s!c@h PRIVMSG alice :psst" % name)
        alice.sees("[%s -> you]: psst  (only you two)" % name)

    alice.type("/reply yes", "<Return>")
    alice.sees("[SERVER]: You have no private message to reply to yet.")
    assert alice.draft == "/reply yes"
    write("carol")
    alice.type("<Return>")  # carol was not named before
    assert (alice.draft, alice.notice) == ("@carol yes", "Privately to carol")
    write("bob")
    assert (alice.draft, alice.notice) == ("@carol yes", "Privately to carol")
    alice.type("<Return>")
    hub.expect("PRIVMSG carol :yes")
    for steps in (["/reply "], [" /REPLY "], ["/rep", "<Tab>"]):
        alice.type(*steps)
        assert (alice.draft, alice.notice) == ("@bob ", "Privately to bob")
        alice.box.delete("1.0", "end")
    pastes = {"/reply\t": "@bob ", "\xa0/reply\xa0": "@bob ", "\u200b@bob hi": "@bob hi"}
    for pasted, draft in pastes.items():
        alice.paste(pasted)
        assert (alice.draft.strip(), alice.notice) == (draft.strip(), "Privately to bob")
        alice.box.delete("1.0", "end")
    alice.type("ok", "<Home>", "/reply ", "it is ")
    assert alice.draft == "@bob it is ok"
    alice.paste("\n/reply two\n")
    assert "@bob two" in alice.draft


TO_BOB, TO_CAROL = ("Privately to %s, in reply to: " % name for name in ("bob", "carol"))


def test_private_line_is_answered_privately_in_its_room(alice, desktop, hub):
    """Ctrl+R again goes on to the older lines of the room, and takes away what it put there."""
    hear(hub, alice, "one")
    hub.send("@msgid=7 :bob!b@h PRIVMSG alice :psst")
    alice.sees("[bob -> you]: psst  (only you two)")
    hub.send(":carol!c@h PRIVMSG alice :hush", ":bob!b@h PRIVMSG #lobby :two")
    alice.sees("[bob]: two")
    in_public = "Reply to bob in #lobby: "
    steps = [(in_public + "two", ""), (TO_CAROL + "hush", "@carol "),
             (TO_BOB + "psst", "@bob "), (in_public + "one", "")]  # fmt: skip
    hub.send(":carol!c@h JOIN #lobby")
    desktop.pump(lambda: "carol" in alice.people)
    for notice, draft in [*steps, *steps]:
        alice.press("Control-r", alice.box)
        assert (alice.notice, alice.draft) == (notice, draft)
    alice.press("Escape", alice.box)
    for _ in range(3):
        alice.press("Control-r", alice.box)
    alice.chat_view.composer.notice.event_generate("<Button-1>")
    assert (alice.notice, alice.draft) == (TO_BOB + "psst", "@bob ")
    alice.type("fine")
    alice.type("<Return>")
    assert "+draft/reply=7" in hub.expect("PRIVMSG bob :fine")
    assert (alice.notice, alice.draft, alice.conversations[0]) == ("", "", "#lobby")
    assert alice.window.chat.current.name == "#lobby"


def test_line_chosen_by_key_is_the_one_that_is_replied_to(alice, desktop, hub):
    """A line that cannot be replied to is not another's."""
    hear(hub, alice, "one")
    hub.send(
        ":bob!b@h PRIVMSG alice :psst", ":carol!c@h JOIN #lobby", ":carol!c@h PRIVMSG alice :hush"
    )
    alice.sees("[carol -> you]: hush  (only you two)")
    by_key = alice.text
    steps = [(TO_CAROL + "hush", "@carol "), ("", ""), (TO_BOB + "psst", "@bob "),
             ("Reply to bob in #lobby: one", "")]  # fmt: skip
    for count, (notice, draft) in enumerate(steps, 1):
        for _ in range(count):
            alice.press("Up", by_key)
        alice.press("Control-r", by_key)
        assert (alice.notice, alice.draft) == (notice, draft)
        alice.press("Escape", alice.box)


def test_private_answer_that_would_be_public_is_said_so(alice, desktop, hub):
    hub.send(":bob!b@h PRIVMSG alice :psst")
    alice.sees("[bob -> you]: psst  (only you two)")
    alice.press("Control-r", alice.box)
    alice.type("*fine", "<Home>", *["<Delete>"] * 6)
    assert (alice.draft, alice.notice) == ("fine", "To everyone in #lobby")
    assert alice.offer == "Answer bob privately"
    alice.press("Control-r", alice.box)
    assert (alice.draft, alice.notice) == ("@bob fine", TO_BOB + "psst")
    alice.type("<Escape>")  # what is written stays private
    assert (alice.draft, alice.notice, alice.offer) == ("@bob fine", "Privately to bob", "")
    alice.type(*["<BackSpace>"] * 9, "/whois bob")
    assert (alice.notice, alice.offer) == ("", "")
    alice.type(*["<BackSpace>"] * 10, "fine", "<Return>")
    hub.expect("PRIVMSG #lobby :fine")
    assert alice.notice == ""
    alice.press("Control-r", alice.box)
    alice.type("<Escape>")
    assert (alice.draft, alice.notice) == ("", "")


@pytest.mark.parametrize("way", ["click", "Return", "space", "Control-r"])
def test_draft_for_all_becomes_private_where_it_is_offered(alice, desktop, hub, way):
    """The offer comes with the private line, also while something is being written."""
    alice.type("see ", "you")
    assert (alice.notice, alice.offer) == ("", "")
    hub.send("@msgid=7 :bob!b@h PRIVMSG alice :psst")
    alice.sees("[bob -> you]: psst  (only you two)")
    assert (alice.notice, alice.offer) == ("To everyone in #lobby", "Answer bob privately")
    answer = alice.chat_view.composer.answer
    if way == "click":
        x, y = (answer.winfo_rootx() + 5, answer.winfo_rooty() + 5)
        alice.xdotool("mousemove", str(x), str(y), "click", "1")
    elif way == "Control-r":
        alice.press(way, alice.box)
    else:
        steps = 0
        while not alice.has_focus(answer) and steps < 20:
            alice.type("<Tab>")
            steps += 1
        alice.type("<%s>" % way)
    assert (alice.notice, alice.draft, alice.offer) == (TO_BOB + "psst", "@bob see you", "")
    assert alice.has_focus(alice.box)
    alice.type(" soon", "<Return>")
    assert "+draft/reply=7" in hub.expect("PRIVMSG bob :see you soon")


def test_offer_is_level_with_the_notice_and_ends_where_the_box_does(alice, desktop, hub):
    hub.send(":bob!b@h PRIVMSG alice :psst")
    alice.sees("[bob -> you]: psst  (only you two)")
    alice.type("see you")
    box = alice.chat_view.composer
    desktop.pump(lambda: box.answer.winfo_viewable() and box.notice.winfo_viewable())
    desktop.update()
    right, middle = edges(box.answer)
    assert right == edges(box.button)[0] and abs(middle - edges(box.notice)[1]) <= 0.5
    assert box.button.winfo_width() == box.button.winfo_reqwidth()
    assert edges(box.text)[0] == box.button.winfo_x()


@pytest.mark.parametrize("zoom", [100, 150])
def test_notice_beside_an_offer_breaks_no_word(alice, desktop, hub, zoom):
    """In a narrow window."""
    grace = ":grace_with_a_long_name!g@h "
    hub.send(grace + "JOIN #lobby", grace + "PRIVMSG alice :psst")
    alice.root.geometry("480x600")
    alice.window.look.change("dark", zoom)
    alice.type("see you")
    box, font = alice.chat_view.composer, alice.window.look.font["small_bold"]
    desktop.pump(lambda: box.answer.winfo_viewable() and alice.root.winfo_width() == 480)
    widest = max(map(font.measure, alice.notice.split()))
    desktop.pump(lambda: int(str(box.notice.cget("wraplength"))) >= widest)


def edges(widget):
    """Return the right edge of a widget, and its middle from above."""
    right = widget.winfo_x() + widget.winfo_width()
    return right, widget.winfo_y() + widget.winfo_height() / 2


def test_draft_keeps_its_warning_when_the_private_line_is_answered_elsewhere(alice, desktop, hub):
    hub.send(":bob!b@h PRIVMSG alice :psst")
    alice.sees("[bob -> you]: psst  (only you two)")
    alice.type("she is Ruth")
    alice.chat_view.open("bob")
    alice.type("wait", "<Return>", "a moment")
    alice.chat_view.open("#lobby")
    assert (alice.draft, alice.notice) == ("she is Ruth", "To everyone in #lobby")
    assert alice.offer == "Answer bob privately"
    alice.type("<Return>")
    hub.expect("PRIVMSG #lobby :she is Ruth")
    alice.type("x")
    assert (alice.notice, alice.offer) == ("", "")


def test_offer_to_go_on_privately_replies_to_nobody(alice, hub):
    """The last private line is the user's own."""
    hub.send(":bob!b@h JOIN #lobby", ":bob!b@h PRIVMSG alice :psst")
    alice.sees("[bob -> you]: psst  (only you two)")
    alice.type("@bob yes", "<Return>", "and no")
    assert alice.offer == "Write to bob privately"
    alice.chat_view.composer.answer.invoke()
    assert (alice.draft, alice.notice) == ("@bob and no", "Privately to bob")
    assert alice.window.chat.current.reply_to is None


def test_private_draft_is_not_sent_when_another_user_has_taken_the_name(alice, hub):
    """Unless our user wants that."""
    hub.send(":carol!c@h JOIN #lobby")
    alice.sees("[SERVER]: carol joined the chat")
    alice.type("@bob I like tom")
    hub.send(":bob!b@h NICK bobby", ":carol!c@h NICK bob")
    alice.sees("[SERVER]: carol is now called bob")
    assert alice.notice == "Privately to bob, who may be someone else than before"
    alice.type("<Return>")
    hub.expect("WHOIS bob")
    hub.send(":hub 318 alice bob :End", ":hub PONG hub :who")
    again = " Send it again if it is for the user who has this name now."
    alice.sees("[SYSTEM]: Not sent: bob may be someone else than before." + again)
    assert alice.draft == "" and "PRIVMSG" not in str(hub.seen)
    (entry,) = [e for e in alice.window.chat.current.entries if e.delivery in client.FAILED]
    alice.chat_view.settle("retry", entry)
    hub.expect("PRIVMSG bob :I like tom")


def test_offer_that_ends_leaves_the_focus_in_the_box(alice, desktop, hub):
    hub.send(":bob!b@h PRIVMSG alice :psst")
    alice.sees("[bob -> you]: psst  (only you two)")
    alice.type("see you")
    alice.chat_view.composer.answer.focus_force()
    desktop.update()
    hub.send(":carol!c@h KICK #lobby alice :out")
    desktop.pump(lambda: not alice.offer)
    assert alice.has_focus(alice.box)


@pytest.mark.parametrize(
    ("draft", "steps"),
    [
        ("", ["#lobby: two", "@carol hush", "@bob psst", "#lobby: one", "#lobby: two"]),
        ("fine", ["#lobby: two", "#lobby: one", "#lobby: two"]),
        ("@bob fine", ["@bob psst", "@bob psst"]),
        ("@BOB: fine", ["@bob psst"]),
        ("@dave fine", [""]),
        ("fine\n@bob fine", [""]),
        ("/whois bob", [""]),
    ],
)
def test_key_to_reply_does_not_change_who_reads_what_is_written(alice, hub, draft, steps):
    hub.send(":carol!c@h JOIN #lobby", ":dave!d@h JOIN #lobby")
    hear(hub, alice, "one")
    hub.send(":bob!b@h PRIVMSG alice :psst", ":carol!c@h PRIVMSG alice :hush")
    hear(hub, alice, "two")
    alice.write(draft)
    for step in steps:
        before = client.describe_draft(alice.window.chat, alice.draft).words[:9]
        alice.press("Control-r", alice.box)
        reply = alice.window.chat.current.reply_to
        name = alice.window.chat.address_of(reply) or "#lobby: "
        assert (name + reply.line.text if reply else "") == step
        after = client.describe_draft(alice.window.chat, alice.draft).words[:9]
        assert not draft or ("Privately" in (before, after)) == (draft[0] == "@")


def test_private_words_stay_private_beside_a_reply_to_a_public_line(alice, desktop, hub):
    hub.send(":bob!b@h PRIVMSG alice :psst")
    hear(hub, alice, "in public")
    alice.press("Control-r", alice.box)
    alice.press("Control-r", alice.box)
    alice.type("a secret")
    x, y = alice.text.bbox(alice.text.search("in public", "1.0"))[:2]
    alice.text.event_generate("<Button-3>", x=x, y=y)
    alice.text.event_generate("<ButtonRelease-3>", x=x, y=y)
    alice.choose("Reply")
    assert (alice.draft, alice.notice) == ("@bob a secret", "Privately to bob")
    alice.type("<Return>")
    hub.expect("PRIVMSG bob :a secret")


def test_reply_ends_with_the_text_that_is_deleted(alice, desktop, hub):
    """So the key begins again with the newest line."""
    hear(hub, alice, "one", "two", "three")
    for keys in (["<BackSpace>"] * 2, ["<ctrl+a>", "<ctrl+x>"], ["<ctrl+a>", "<Delete>"]):
        for words in ("three", "two"):
            alice.press("Control-r", alice.box)
            assert alice.notice == "Reply to bob in #lobby: " + words
        alice.type("ok", *keys)
        assert (alice.draft, alice.notice) == ("", "")


# Esc


@pytest.mark.parametrize("first", ["topic", "search", "password"])
def test_escape_is_for_the_part_with_the_focus(anna, desktop, hub, first):
    """Here for each of three that are open; the others stay."""
    view = anna.chat_view
    anna.press("Control-f", anna.box)
    anna.type("words")
    log_in(anna, "s3cret")
    view.edit_topic()
    anna.type("a topic")
    fields = {
        "topic": (lambda: view.topic.text, lambda: anna.topic is not None),
        "search": (lambda: view.search_bar.field.text, lambda: view.search_bar.is_open),
        "password": (lambda: view.composer.hidden, lambda: hidden(anna) is not None),
    }
    order = [first, *(name for name in ("search", "password", "topic") if name != first)]
    for count, name in enumerate(order, 1):
        fields[name][0]().focus_force()
        desktop.update()
        anna.type("<Escape>")
        assert [is_open() for _, is_open in map(fields.get, order)] == [
            place > count for place in (1, 2, 3)
        ]


# Sheets


@pytest.mark.parametrize(
    "key", ["Alt-Key-1", "Control-Prior", "Alt-Down", "Control-f", "F3", "F6", "Control-r", "Alt-m"]
)
@pytest.mark.parametrize("opener", ["Control-k", "F1"])
def test_keys_of_the_chat_close_a_sheet_first(tea, opener, key):  # noqa: F811
    tea.press(opener, tea.box)
    tea.press(key)
    assert tea.sheet is None


@pytest.mark.parametrize("key", ["Control-k", "F1", "F2", "Control-Shift-F"])
def test_sheet_takes_the_place_of_another(tea, key):  # noqa: F811
    tea.press("Control-k", tea.box)
    before = tea.sheet
    tea.press(key)
    assert tea.sheet not in (None, before)
    sheets = [w for w in tea.chat_view.frame.winfo_children() if w is tea.sheet.frame]
    assert len(sheets) == 1 and not before.frame.winfo_exists()


@pytest.mark.parametrize(("key", "words"), [("End", "bobx"), ("Home", "xbob"), ("Tab", "bob")])
def test_keys_that_edit_stay_in_a_sheet(alice, hub, key, words):
    hear(hub, alice, *("line %d" % number for number in range(99)))
    alice.press("Control-k", alice.box)
    alice.type("bob", "<Left>")
    top = alice.top_line()
    alice.press("Control-" + key)
    alice.type("x")
    assert (alice.sheet.words, alice.draft, alice.top_line()) == (words, "", top)


def test_words_in_a_sheet_are_not_lost_by_a_key_of_the_chat(anna):
    anna.open_menu("Announce to everyone…")
    sheet = anna.sheet
    anna.type("tea", "<F6>", "<Control-k>")
    assert anna.sheet is sheet and sheet.words == "tea"
    anna.type("<Escape>")
    assert anna.sheet is None


def test_space_presses_the_send_button(alice, desktop, hub):
    alice.write("tea")
    alice.chat_view.composer.button.focus_set()
    alice.type("<space>")
    hub.expect("PRIVMSG #lobby :tea")


def test_escape_closes_the_sheet_before_the_password(anna):
    log_in(anna, "s3cret")
    anna.press("Control-k")
    anna.type("bo", "<Escape>")
    assert (anna.sheet, hidden(anna)) == (None, "s3cret")
    anna.type("!")
    assert hidden(anna) == "s3cret!"
    anna.type("<Escape>")
    assert hidden(anna) is None


def test_question_that_ends_leaves_the_keys_where_they_were(alice, desktop):
    alice.chat_view.composer.ask_paste(99, lambda: None)
    alice.press("Control-f", alice.box)
    alice.type("secret")
    alice.window.chat.do(0, alice.window.chat.select, alice.window.chat.console)
    desktop.pump(lambda: not alice.banner)
    assert alice.has_focus(alice.chat_view.search_bar.field.text)


# The hint


@pytest.mark.parametrize("zoom", [100, 150])
@pytest.mark.parametrize("is_online", [True, False])
def test_hint_of_the_box_is_not_cut(tea, desktop, hub, is_online, zoom):  # noqa: F811
    tea.root.geometry("683x720")
    desktop.pump(lambda: tea.root.winfo_width() == 683)
    if not is_online:
        hub.finish()
        desktop.pump(lambda: "online" in tea.chat_view.composer.hint.cget("text"))
    hint = tea.chat_view.composer.hint
    desktop.update()
    assert hint.winfo_reqwidth() <= hint.winfo_width()
