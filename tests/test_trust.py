"""Trust in servers: what is remembered of their certificates, and what users see of it."""

import contextlib
import shutil

import pytest
from client_harness import Responder
from harness import TIMEOUT
from test_terminal import PersonsTerminal, TerminalClient, at_terminal

import client
import protocol
from client import FIRST, NAME, SERVER, SYSTEM, Settings

needs_openssl = pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")
PIN, OTHER = "a" * 64, "b" * 64
REFUSALS = {"another": "shows another certificate than before", "": "and is not any more."}


# What is remembered


def load():
    settings = Settings(client.settings_path())
    settings.load()
    return settings


@pytest.mark.parametrize(
    ("server", "network", "pin"),
    [
        ("office", "", PIN),
        ("ircs://office:12001", "Anything", PIN),
        ("OFFICE", "", PIN),
        ("office:12002", "", ""),  # another server
        ("10.0.0.66", "Class 4B", PIN),  # not a chat of that name without its certificate
        ("10.0.0.66", "Cl\u0430ss  4b ", PIN),  # looks the same
        ("10.0.0.66", "Class 5", ""),
        ("10.0.0.66", protocol.DEFAULT_NETWORK, ""),  # a name that many have
        ("10.0.0.66", "", ""),
        ("10.0.0.66", "\u00b7\u00b7", ""),  # of which nothing is left to compare
        ("trusted", "Class 4B", ""),
        ("ircs://trusted:12001", "", FIRST),
        ("ircs://irc.example.org", "", FIRST),
        ("irc.example.net:6697", "", SYSTEM),
    ],
)
def test_pin_is_that_of_the_address_or_of_the_name(server, network, pin):
    settings = Settings("unused")
    settings.pins = {"office": PIN, "home": OTHER, "trusted": "", "irc.example.net:6697": SYSTEM}
    settings.networks = {"trusted": "Class 4B", "office": "Class 4B"}
    settings.networks["home"] = protocol.DEFAULT_NETWORK
    settings.networks["irc.example.net:6697"] = "\u02d9"
    assert settings.pin(server, network) == pin


def test_forged_answer_does_not_rename_a_server_with_a_pin(desktop, responder):
    settings = load()
    for address, pin in ((responder.address, PIN), ("127.0.0.1:4000", "")):
        settings.remember(address)
        settings.learn(address, "Class 4B")
        settings.pins[address] = pin
    settings.save()
    alice = desktop.open(name="alice")
    query = responder.query()
    for port in (int(responder.address.rpartition(":")[2]), 4000):
        responder.answer(query, "Forged", port)
    desktop.pump(lambda: len(alice.connect_view.found) == 2)
    networks = alice.window.settings.networks
    assert networks == {responder.address: "Class 4B", "127.0.0.1:4000": "Forged"}


def test_pin_is_kept_until_the_server_is_trusted_anew():
    settings = load()
    assert settings.keep_pin("office", PIN)
    assert not settings.keep_pin("office:12001", PIN)
    settings.trust("office")
    assert load().pin("office") == ""
    assert not settings.keep_pin("office", "")
    assert settings.keep_pin("office", OTHER)
    assert settings.pin("office") == OTHER


def test_server_that_was_met_in_the_clear_has_no_pin():
    settings = Settings("unused")
    assert settings.keep_pin("office", "")
    assert settings.pins == {}


# In the window


@pytest.fixture
def open_chat(open_room, tmp_path):
    """Open a server, by default with a certificate of its own; in its place if there is another."""
    rooms = []

    def open_(certificate="its own", **options):
        for room in rooms:
            room.close()
        data = str(tmp_path / certificate) if certificate else ""
        port = rooms[-1].server.port if rooms else 0
        rooms.append(open_room(port=port, data=data, **options))
        return rooms[-1]

    return open_


def lock(person):
    """Return the icon of the lock, its colour, and the words beside it."""
    button, look = person.chat_view.buttons["lock"], person.window.look
    icons = ("lock", "ok"), ("unlock", "warn"), ("unlock", "muted")
    pictures = {str(look.icon(*icon)): icon for icon in icons}
    return (*pictures[str(button.cget("image")[0])], button.cget("text").strip())


def sheet_of(person, desktop):
    """Open the sheet about the server; return its text and its rows."""
    person.open_menu("This server, and its encryption")
    desktop.pump(lambda: person.has_focus(person.sheet.list.canvas))
    labels = [w for w in person.sheet.frame.winfo_children() if w.winfo_class() == "TLabel"]
    return labels[-1].cget("text"), [row.text for row in person.sheet.list.rows]


@needs_openssl
def test_encrypted_chat_has_a_closed_lock_and_a_fingerprint_to_compare(desktop, open_chat):
    room = open_chat()
    alice = desktop.join(room.server.port, "alice")
    assert lock(alice) == ("lock", "ok", "")
    text, rows = sheet_of(alice, desktop)
    assert text.startswith("Encrypted. ")
    assert "let the others check that they see this same fingerprint" in text
    assert alice.chat_view.lock_tip() == "Encrypted.   F2"
    assert " ".join(rows[1:3]) == room.server.digest
    assert load().pins == {"127.0.0.1:%d" % room.server.port: alice.window.chat.session.pin}
    alice.window.chat.address = "192.0.2.1:12001"  # of another computer
    alice.press("Escape")
    alice.press("F2")
    assert (
        "ask the host to read out theirs: it must be this same fingerprint"
        in sheet_of(alice, desktop)[0]
    )
    for key in ("Down", "Return"):
        alice.press(key)
    assert alice.sheet is None
    assert alice.root.clipboard_get() == room.server.digest
    assert alice.has_focus(alice.box)


def test_chat_in_the_clear_has_an_open_lock_and_words(desktop, room):
    alice = desktop.join(room.server.port, "alice")
    assert lock(alice) == ("unlock", "warn", "Not encrypted")
    words = "Not encrypted: others could read what you write."
    assert alice.chat_view.lock_tip() == words + "   F2"
    alice.press("F2")
    text, rows = sheet_of(alice, desktop)
    assert text == "Not encrypted: others could read what you write."
    assert rows == ["127.0.0.1:%d" % room.server.port]
    assert load().pins == {}


def test_lock_of_a_connection_that_is_lost_warns_of_nothing(desktop, hub):
    alice = desktop.open(hub.port, "alice", at_once=True)
    hub.welcome()
    desktop.pump(lambda: alice.window.is_chatting)
    hub.close()
    desktop.pump(lambda: alice.window.chat.state == client.RECONNECTING)
    assert lock(alice) == ("unlock", "muted", "")


@pytest.mark.parametrize("width", [1160, 800, 480])
def test_lock_opens_what_is_known_of_the_server(desktop, room, width):
    alice = desktop.join(room.server.port, "alice")
    alice.root.geometry("%dx500" % width)
    desktop.pump(lambda: alice.root.winfo_width() == width)
    button = alice.chat_view.buttons["lock"]
    desktop.pump(button.winfo_viewable)
    button.invoke()
    assert alice.sheet is not None


@needs_openssl
@pytest.mark.parametrize("certificate", sorted(REFUSALS))
def test_server_that_is_not_the_one_of_before_is_joined_on_purpose_alone(
    desktop, open_chat, certificate
):
    alice = desktop.join(open_chat().server.port, "alice")
    alice.close()
    room = open_chat(certificate)
    alice = desktop.open(room.server.port, "alice")
    view = alice.connect_view
    for field in (NAME, SERVER):  # Enter tries again, and no more
        alice.press("Return", view.fields[field])
        desktop.pump(lambda: not view.is_busy)
        assert REFUSALS[certificate] in alice.wait_for_error(SERVER)
        assert alice.has_focus(view.fields[SERVER])
    desktop.pump(view.trust.winfo_viewable)
    view.trust.invoke()
    alice.sees("[SERVER]: alice joined the chat")
    assert list(load().pins.values()) == [alice.window.chat.session.pin]
    assert bool(alice.window.chat.session.pin) == bool(certificate)
    alice.close()
    desktop.join(room.server.port, "alice")


@needs_openssl
def test_other_servers_are_not_trusted_by_the_way(desktop, open_chat):
    """The button goes when the user chooses another server, and comes with a refusal alone."""
    alice = desktop.join(open_chat().server.port, "alice")
    alice.close()
    alice = desktop.open(open_chat("another").server.port, "alice", at_once=True)
    alice.wait_for_error(SERVER)
    desktop.pump(alice.connect_view.trust.winfo_viewable)
    alice.fill(server="office")
    desktop.pump(lambda: not alice.connect_view.trust.winfo_viewable())
    alice.connect(name="not a name")
    alice.fill(server=load().servers[0])
    desktop.update()
    assert not alice.connect_view.trust.winfo_viewable()


@needs_openssl
@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("rogue", "but has another certificate than the “Class 4B” that you know."),
        ("", "but is not encrypted, as the “Class 4B” that you know is."),
    ],
)
def test_known_name_at_a_new_address_needs_the_known_certificate(
    desktop, open_chat, open_room, tmp_path, monkeypatch, data, words
):
    """Else another computer would only have to call itself as the chat that people know."""
    alice = desktop.join(open_chat(network="Class 4B").server.port, "alice")
    desktop.pump(lambda: list(load().networks.values()) == ["Class 4B"])
    alice.close()
    rogue = open_room(network="Class 4B", data=data and str(tmp_path / data))
    with contextlib.closing(Responder()) as responder:
        monkeypatch.setenv("HUBBUB_FIND", responder.address)
        alice = desktop.open(rogue.server.port, "alice")
        responder.answer(responder.query(), "Class 4B", rogue.server.port)
        desktop.pump(lambda: alice.connect_view.found)
        alice.connect()
        words = "127.0.0.1:%d calls itself “Class 4B”, %s" % (rogue.server.port, words)
        assert words in alice.wait_for_error(SERVER)
        assert rogue.names() == set()  # it was not told a name
        alice.connect_view.trust.invoke()
        alice.sees("[SERVER]: alice joined the chat")
        assert bool(alice.window.chat.session.pin) == bool(data)
        alice.close()
    assert len(set(load().pins.values())) == 2


def test_server_with_a_lock_in_the_list_is_not_joined_in_the_clear(desktop, room, monkeypatch):
    """Else another computer, between the two, could take the offer of encryption away."""
    with contextlib.closing(Responder()) as responder:
        monkeypatch.setenv("HUBBUB_FIND", responder.address)
        alice = desktop.open(room.server.port, "alice")
        responder.answer(responder.query(), "Class 4B", room.server.port, is_encrypted=True)
        desktop.pump(lambda: alice.connect_view.found)
        alice.connect()
        assert "does not speak TLS" in alice.wait_for_error(SERVER)
        assert not alice.connect_view.trust.winfo_viewable()


@needs_openssl
@pytest.mark.parametrize("certificate", sorted(REFUSALS))
def test_nothing_unsent_is_lost_if_the_chat_in_view_is_refused(
    desktop, open_chat, monkeypatch, certificate
):
    """Nor is it sent: another chat may be there now."""
    monkeypatch.setattr(client, "RETRY_TIMES", (0.0,))
    first = open_chat()
    alice = desktop.join(first.server.port, "alice")
    window = alice.window
    first.close()
    desktop.pump(lambda: window.chat.state == client.RECONNECTING)
    alice.say("for the class")
    alice.write("and a draft")
    bob = open_chat(certificate).irc("bob")
    assert REFUSALS[certificate] in alice.wait_for_error(SERVER)
    assert not window.is_chatting
    alice.connect_view.trust.invoke()
    desktop.pump(lambda: window.is_chatting and window.chat.session.is_settled)
    failed = "[alice]: for the class  (not delivered)   Try\xa0again  ·  Edit  ·  Discard"
    assert failed in alice.lines
    assert alice.draft == "and a draft" and "for the class" not in str(bob.heard())
    alice.click("Try\xa0again")
    bob.expect("PRIVMSG #lobby :for the class")


@needs_openssl
def test_reconnect_to_a_server_that_is_encrypted_now_is_remembered(desktop, open_chat, monkeypatch):
    monkeypatch.setattr(client, "RETRY_TIMES", (0.0,))
    alice = desktop.join(open_chat("").server.port, "alice")
    open_chat()
    desktop.pump(lambda: alice.window.chat.session.pin)
    desktop.pump(lambda: list(load().pins.values()) == [alice.window.chat.session.pin])
    assert lock(alice)[:2] == ("lock", "ok")


# In the terminal


@pytest.fixture
def visit(monkeypatch):
    """Chat with a server at a terminal until /quit or a refusal; return exit code and screen."""

    def visit_(room, *options, kind=PersonsTerminal, server="127.0.0.1:%d"):
        arguments = [server % room.server.port, "--username", "alice", "--terminal", *options]
        with contextlib.closing(kind(*arguments)) as alice:
            if kind is TerminalClient:
                output, errors = alice.process.communicate(b"hello\n/quit\n", TIMEOUT)
                return alice.process.returncode, (output + errors).decode()
            with contextlib.suppress(AssertionError):
                alice.sees("alice joined the chat")
                alice.type("/quit\n")
            return alice.finish()

    return visit_


@at_terminal
@needs_openssl
def test_person_is_told_what_is_new_about_the_encryption(open_chat, visit):
    room = open_chat()
    code, shown = visit(room)
    words = "[SYSTEM]: Encrypted. Fingerprint %s, first met now." % room.server.digest
    assert (code, words in shown) == (0, True)
    code, shown = visit(room)
    assert (code, "ncrypted" in shown) == (0, False)


@at_terminal
def test_person_is_told_that_a_chat_is_not_encrypted(room, visit):
    code, shown = visit(room)
    assert code == 0
    assert shown.count("[SYSTEM]: Not encrypted: others could read what you write.") == 1


@at_terminal
@needs_openssl
@pytest.mark.parametrize("certificate", sorted(REFUSALS))
def test_refusal_in_the_terminal_says_what_to_do(open_chat, visit, certificate):
    assert visit(open_chat())[0] == 0
    room = open_chat(certificate)
    for kind in (PersonsTerminal, TerminalClient):
        code, shown = visit(room, kind=kind)
        assert code == 1
        assert REFUSALS[certificate] in shown
        assert "To trust it from now on, add --trust." in shown
        assert "joined" not in shown
    for options in (("--trust",), ()):
        code, shown = visit(room, *options)
        assert (code, "alice joined the chat" in shown) == (0, True)


@at_terminal
@needs_openssl
@pytest.mark.parametrize(
    ("options", "server"), [(("--tls",), "127.0.0.1:%d"), ((), "ircs://127.0.0.1:%d/lobby")]
)
def test_connection_is_encrypted_from_the_start_if_asked_for(
    open_chat, open_room, visit, options, server
):
    """Then a server that does not know TLS is not told a name."""
    room = open_chat()
    code, shown = visit(room, *options, server=server)
    assert (code, room.server.digest in shown) == (0, True)
    clear = open_room()
    for more in ((), ("--trust",)):
        code, shown = visit(clear, *options, *more, server=server)
        assert (code, "joined" in shown) == (1, False)
        assert "does not speak TLS" in shown and "trust" not in shown


def test_pipe_is_not_told_about_the_encryption(room, visit):
    code, shown = visit(room, kind=TerminalClient)
    assert code == 0
    assert "[alice]: hello" in shown
    assert "ncrypted" not in shown
