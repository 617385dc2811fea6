# Sessions
# --------

REFUSALS = {  # for peers that speak neither of our dialects
    # A TLS alert: fatal, protocol_version (RFC 8446, 6)
    TLS: b"\x15\x03\x01\x00\x02\x02\x46",
    HTTP: b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Connection: close\r\n\r\n"
    b"This is a Hubbub chat server. Join with client.py, an IRC client, or nc.\n",
}


class Session:
    """The work of a client's thread: reads and carries out each line until the connection ends.

    The handlers in COMMANDS get it. They answer with `reply` and `note`, or refuse by raising
    ReplyError; the answer is sent when they are done. They may raise Disconnect.
    """

    def __init__(self, server: "Server", client: Client) -> None:
        self.server = server
        self.options = server.options
        self.directory = server.directory
        self.delivery = server.delivery
        self.client = client
        self.response = Response(client, server.options.server_name, server.options.lobby)
        self._bucket = Bucket(server.options.rate_limit, BURST)
        self._deadline = time.monotonic() + (server.options.register_timeout or FOREVER)
        self.is_negotiating = False  # between CAP LS or REQ and CAP END
        self.has_user = False  # USER has come
        self.cap_version = 0
        self.password = ""  # for the server
        self.sasl: Optional[protocol.SaslBuffer] = None  # while an AUTHENTICATE is under way

    def run(self) -> None:
        client = self.client
        log.info("%s connected", client.address)
        try:
            self._converse()
        except Disconnect as disconnect:
            end = disconnect
        except OSError as error:
            end = Disconnect(error.strerror or "Connection lost")
        except Exception:
            log.exception("%s: our mistake", client.log_name)
            end = Disconnect("Server error", "Something went wrong in the server. Please rejoin.")
        self._finish(Disconnect(client.end, client.end) if client.end else end)

    def _finish(self, end: Disconnect) -> None:
        client = self.client
        name = client.log_name
        self.directory.remove(client, end.reason)
        if end.farewell:
            self.reply("ERROR", end.farewell)
        self.flush()
        self.delivery.post(Ending(client, FINISH))
        self.delivery.wake()
        with contextlib.suppress(OSError):
            self._drain()
        self.delivery.post(Ending(client, CLOSE))
        self.delivery.wake()
        # The words with which users leave are not for the log.
        log.info("%s ended: %s", name, end.reason.partition(":")[0])

    def _drain(self) -> None:
        """Read to the end, so that closing resets nothing that was sent (LINGER at most)."""
        deadline = time.monotonic() + LINGER
        left = LINGER
        while left > 0:
            self.client.reader.settimeout(left)
            if not self.client.reader.recv(RECEIVE_SIZE):
                return
            left = deadline - time.monotonic()

    def _converse(self) -> None:
        opening = b""
        name = None
        chunks = self._chunks()
        while name is None:
            opening += next(chunks)
            name = sniff(opening)
        if name in REFUSALS:
            self.delivery.post(Output(self.client, REFUSALS[name]))
            raise Disconnect("Refused %s" % name)
        dialect = IrcDialect(self) if name == IRC else PlainDialect(self)
        framer = protocol.Framer(dialect.MAX_LINE)
        for chunk in itertools.chain([opening], chunks):
            for line in framer.feed(chunk):
                if line != b"":
                    self._throttle()
                    dialect.on_line(line)
            self.delivery.wait()

    def _chunks(self) -> Iterator[bytes]:
        """Yield what arrives; prompts, pings and times out meanwhile."""
        client, options = self.client, self.options
        timeout = PROMPT_AFTER
        is_silent = True  # nothing has come, and nobody has been asked for a username
        is_pinged = False  # a PING is not answered yet
        while True:
            client.reader.settimeout(timeout)
            try:
                data = client.reader.recv(RECEIVE_SIZE)
            except socket.timeout:
                if is_silent:
                    client.caps = PLAIN_TEXT
                    self.notice("Welcome to %s. Type your username and press Enter.", options.network)
                elif client.registered and is_pinged:
                    reason = "Ping timeout: %g seconds" % options.ping_interval
                    raise Disconnect(reason) from None
                elif self._can_ping():
                    self.reply("PING", options.server_name)
                    is_pinged = True
                is_silent = False
                self.flush()
                self.delivery.wake()
            else:
                if not data:
                    raise Disconnect("Connection closed", "" if client.registered else "Goodbye.")
                is_silent = is_pinged = False
                yield data
            if client.end:
                raise Disconnect(client.end)
            if self._can_ping():
                timeout = options.ping_interval
            elif client.registered:
                timeout = FOREVER  # the system's keepalive watches the connection
            else:
                self._check_deadline()
                timeout = max(0.01, self._deadline - time.monotonic())

    def _can_ping(self) -> bool:
        client = self.client
        can_answer = client.registered and not client.caps & PLAIN_TEXT
        return bool(can_answer and self.options.ping_interval)

    def _throttle(self) -> None:
        """Pay for a line; wait for tokens, and for the delivery, unless the connection ends."""
        client = self.client
        wait = self._bucket.charge(1.0, time.monotonic())
        if wait > 0 or self.delivery.waiting > MAX_PENDING:
            self.delivery.wait()
        while wait > 0 and not client.end:
            time.sleep(min(wait, 0.5))
            wait -= 0.5
            self._check_deadline()
            with contextlib.suppress(BlockingIOError):
                if not client.writer.recv(1, socket.MSG_PEEK):
                    raise Disconnect("Connection closed")
        if client.end:
            raise Disconnect(client.end)

    def _check_deadline(self) -> None:
        if not self.client.registered and time.monotonic() > self._deadline:
            farewell = "No username came in time. Connect again when you are ready."
            raise Disconnect("Registration timeout", farewell)

    # For the handlers

    def reply(self, command: str, *params: str, source: str = "") -> None:
        """Reply to the command; numerics and notices get the client's nickname first."""
        self.response.reply(command, *params, source=source)

    def notice(self, text: str, *args: object) -> None:
        """Reply with a notice, made from `text` and `args`."""
        self.reply("NOTICE", text % args if args else text)

    def note(self, *params: str) -> None:
        """Reply with a standard reply NOTE; a notice, if the client does not know them."""
        if self.client.caps & STANDARD_REPLIES:
            self.reply("NOTE", *params)
        else:
            self.reply("NOTICE", params[-1])

    def charge(self, tokens: float) -> None:
        """Charge the client for work: the next line waits until it is paid for."""
        self._bucket.charge(tokens, time.monotonic())

    def charge_looks(self, count: int) -> None:
        """Charge the client for `count` users or channels looked at."""
        self.charge(count / LOOKS_A_TOKEN)

    def flush(self, is_done: bool = True) -> None:
        """Send the replies; `is_done` ends the answer to the command."""
        data, lines = self.response.flush(is_done)
        if data:
            self.delivery.post(Output(self.client, data))
            self.charge(lines / LINES_A_TOKEN)

    def run_command(self, message: Message, label: str = "") -> bool:
        """Check the rules of a command, and run its handler; return True if it was carried out.

        A NOTICE is never answered, not even with an error.
        """
        name, is_done = message.command, False
        self.response.begin(label)
        try:
            self._check_rules(message).handler(self, message)
            is_done = True
        except ReplyError as error:
            if name != "NOTICE" or not self.client.registered:
                self.reply(error.numeric, *error.params)
        except StoreError as error:
            self.reply("FAIL", name, "TEMPORARILY_UNAVAILABLE", str(error))
        self.flush()
        return is_done

    def _check_rules(self, message: Message) -> "Command":
        """Return the command's row. Raises ReplyError if its rules are not kept."""
        name, client = message.command, self.client
        command = COMMANDS.get(name)
        if command is None:
            raise ReplyError("421", name, "Unknown command")
        if not client.registered and not command.rules & EARLY:
            raise ReplyError("451", "You have not registered")
        if len(message.params) < command.least:
            raise ReplyError("461", name, "Not enough parameters")
        if client.registered and command.rules & NOT_LATE:
            raise ReplyError("462", "You may not reregister")
        if command.rules & OPERATORS and not client.is_operator:
            raise ReplyError("481", "Permission denied: you're not an operator")
        if command.rules & OF_SERVER and not self._is_here(message.param(0)):
            raise ReplyError("402", message.params[0], "No such server")
        if client.muted_until and 0 < command.speaks <= len(message.params) and message.text:
            text = mute_text(client)
            if text:
                raise ReplyError("FAIL", name, "MUTED", text)
        return command

    def _is_here(self, mask: str) -> bool:
        """Return True if `mask` is this server, or a user of it."""
        is_ours = protocol.mask_matches(mask or "*", self.options.server_name)
        return is_ours or self.directory.find(mask) is not None


class IrcDialect:
    """Lines of IRC clients: a message each."""

    MAX_LINE = protocol.MAX_TAGS + protocol.MAX_MESSAGE

    def __init__(self, session: Session) -> None:
        self._session = session
        session.client.caps = 0

    def on_line(self, line: Optional[bytes]) -> None:
        session = self._session
        session.response.begin("")
        try:
            tags_size = line.find(b" ") - 1 if line and line[:1] == b"@" else 0
            if line is None or tags_size > protocol.MAX_CLIENT_TAGS:
                raise protocol.TooLongError
            message = protocol.parse(line)
        except protocol.TooLongError:
            session.reply("417", "Input line was too long")
        except protocol.EncodingError:
            text = "Your line is not UTF-8, the only encoding here. It was not passed on."
            session.reply("FAIL", "*", "INVALID_UTF8", text)
        except ValueError:
            session.reply("400", "*", "That line is not an IRC message")
        else:
            session.charge(tags_size // protocol.MAX_MESSAGE)  # tags cost what lines do
            label = message.tag("label") if session.client.caps & LABELED_RESPONSE else ""
            session.run_command(message, label if len(label.encode()) <= MAX_LABEL else "")
            return
        session.flush()


class PlainDialect:
    """Lines of users with `nc`: first a username, then what can be typed in a chat box."""

    MAX_LINE = MAX_PLAIN_LINE

    def __init__(self, session: Session) -> None:
        self._session = session
        self._client = session.client
        self._client.caps = PLAIN_TEXT
        self._tries = MAX_NAME_TRIES
        self._channel = session.options.lobby  # where messages go

    def on_line(self, line: Optional[bytes]) -> None:
        session = self._session
        text = decode_plain(line or b"")
        try:
            if line is None:
                session.notice("That line is too long: %d bytes at most.", self.MAX_LINE)
            elif not text:
                return
            elif self._client.registered or text.startswith("/login "):
                self._on_input(protocol.parse_input(text, protocol.PLAIN_VERBS))
            elif text == "/quit":
                raise Disconnect("Quit", "Goodbye.")
            elif self._client.nickname:
                session.password = text
                self._register()
            else:
                self._on_username(text)
        except protocol.InputError as error:
            session.notice(str(error))
        session.flush()

    def _on_username(self, text: str) -> None:
        if self._session.run_command(Message("NICK", (text,))):
            self._register()
            return
        self._tries -= 1
        if not self._tries:
            raise Disconnect("No username", "That was none either. Connect again to try others.")

    def _register(self) -> None:
        session, options = self._session, self._session.options
        if options.password and not session.password:
            session.notice("%s asks for a password. Type it and press Enter.", options.network)
        else:
            session.run_command(Message("USER", ("nc", "0", "*", self._client.nickname)))

    def _on_input(self, typed: protocol.Input) -> None:
        session, client = self._session, self._client
        channels = {channel.key: channel.name for channel in session.directory.channels(of=client)}
        if protocol.casefold(self._channel) not in channels:
            self._channel = next(iter(channels.values()), "")
        if typed.verb == "help":
            for text in protocol.help_lines(protocol.PLAIN_VERBS):
                session.notice(text)
            return
        if typed.verb == "list" and self._channel in ("", session.options.lobby):
            self._list_users()
            return
        messages = protocol.compose(typed, self._channel, client.source, client.correspondent)
        if typed.verb == "login":
            messages.append(Message("NICK", typed.args[:1]))
        for message in messages:
            if not session.run_command(message):
                return
            if message.command == "JOIN":
                self._channel = protocol.normalize(message.params[0])
        if not client.registered and client.nickname:
            self._register()

    def _list_users(self) -> None:
        directory = self._session.directory
        lobby = directory.channel(self._session.options.lobby)
        users = list(lobby.audience) if lobby is not None else directory.users()
        for text in protocol.online_lines([user.nickname for user in users]):
            self._session.notice(text)


# Commands: registration
# ----------------------

# https://modern.ircdocs.horse describes all commands that are not said to be from elsewhere.


def on_cap(session: Session, message: Message) -> None:
    """https://ircv3.net/specs/extensions/capability-negotiation"""
    verb, client = message.params[0].upper(), session.client
    offered = session.server.offered_capabilities()
    if verb in ("LS", "REQ") and not client.registered:
        session.is_negotiating = True
    if verb == "LS":
        word = message.param(1)
        version = int(word) if word.isdecimal() else 0
        session.cap_version = max(session.cap_version, version)
        is_new = version >= 302
        if is_new:
            client.caps |= CAPABILITIES["cap-notify"]
        words = [name + value if is_new else name for name, value in offered.items()]
        _reply_capabilities(session, "LS", words, is_new)
    elif verb == "LIST":
        held = [name for name in offered if client.caps & CAPABILITIES[name]]
        _reply_capabilities(session, "LIST", held, session.cap_version >= 302)
    elif verb == "REQ":
        words = list(dict.fromkeys(message.text.split())) if len(message.params) > 1 else []
        caps = _changed_capabilities(session, words)
        if caps is None:
            rejected = protocol.truncate(" ".join(words), 300)
            _reply_capabilities(session, "NAK", [rejected], False)
        else:
            _reply_capabilities(session, "ACK", words, False)
            session.flush()
            session.delivery.sync()  # what is on the way is for the capabilities up to now
            client.caps = caps
    elif verb == "END":
        session.is_negotiating = False
        _try_to_register(session)
    else:
        raise ReplyError("410", verb, "Invalid CAP command")


def _changed_capabilities(session: Session, words: List[str]) -> Optional[int]:
    """Return the client's capabilities after these changes; None if one is not possible."""
    caps, offered = session.client.caps, session.server.offered_capabilities()
    for word in words:
        name = word[1:] if word.startswith("-") else word
        if name not in offered or (word == "-cap-notify" and session.cap_version >= 302):
            return None
        caps = caps | CAPABILITIES[name] if word == name else caps & ~CAPABILITIES[name]
    return caps


def _reply_capabilities(session: Session, verb: str, words: List[str], is_new: bool) -> None:
    """Reply in one line, or for new clients in as many as it takes."""
    name = session.client.nickname or "*"
    *lines, last = protocol.pack(words, " ", 400 if is_new else 480) or [""]
    for line in lines:
        session.reply("CAP", name, verb, *(["*"] if is_new else []), line)
    session.reply("CAP", name, verb, last)


def on_pass(session: Session, message: Message) -> None:
    session.password = message.params[0]


def on_nick(session: Session, message: Message) -> None:
    """Set or change the nickname.

    A registered nickname is for the owner of its account, who takes it from whoever has it. A
    client that has not logged in yet may have it while capabilities are negotiated: clients send
    NICK before AUTHENTICATE.
    """
    if not message.params or not message.params[0]:
        raise ReplyError("431", "No nickname given")
    client, server = session.client, session.server
    nickname = protocol.normalize(message.params[0])
    error = protocol.nickname_error(nickname)
    if error:
        raise ReplyError("432", nickname, error)
    if not session.is_negotiating:
        _check_not_reserved(session, nickname)
    ban = server.store.find_sanction("ban", [protocol.casefold(nickname)], "")
    if ban is not None:
        raise ReplyError("432", nickname, "%s is banned: %s" % (nickname, ban.reason))
    session.response.is_long = client.owns(nickname)  # messages may wait for the account
    holder = session.directory.claim(client, nickname, session.response)
    if holder is not None:
        server.end(holder, elsewhere=nickname)
    if client.registered:
        deliver_waiting(session)
    _try_to_register(session)


def _check_not_reserved(session: Session, nickname: str) -> None:
    """Raises ReplyError for a nickname that is registered, unless by this client's account."""
    client = session.client
    account = session.server.store.account(nickname)
    if account is None or (client.account is not None and client.account.id == account.id):
        return
    form = "%s is registered. If it is yours, type /login %s PASSWORD. If not, choose another."
    text = form % (account.name, account.name)
    if client.caps & (STANDARD_REPLIES | PLAIN_TEXT):
        raise ReplyError("FAIL", "NICK", "NICKNAME_RESERVED", nickname, text)
    session.notice(text)
    raise ReplyError("433", nickname, "Nickname is registered")


def on_user(session: Session, message: Message) -> None:
    session.client.username = to_username(message.params[0])
    session.client.realname = protocol.clean(message.params[3], MAX_REALNAME)
    session.has_user = True
    _try_to_register(session)


def _try_to_register(session: Session) -> None:
    """Let the client in if it has said all that is needed."""
    client = session.client
    if client.registered or not (client.nickname and session.has_user) or session.is_negotiating:
        return
    _check_server_password(session)
    try:
        _check_not_reserved(session, client.nickname)
    except ReplyError:
        session.directory.release(client)
        raise
    _apply_sanctions(session)
    if session.sasl is not None:
        session.sasl = None
        session.reply("906", "SASL authentication aborted")
    client.signed_on = client.spoke = time.time()
    session.directory.register(client, _new_token(client))
    _apply_sanctions(session)  # again: one may have been added in between
    dialect = PLAIN if client.caps & PLAIN_TEXT else IRC
    log.info("%s registered as %s (%s)", client.address, client.nickname, dialect)
    _welcome(session)
    if session.options.lobby:
        on_join(session, Message("JOIN", (session.options.lobby,)))
    deliver_waiting(session)


def _apply_sanctions(session: Session) -> None:
    """Mute the client if a mute applies. Raises Disconnect if a ban does."""
    client = session.client
    session.server.apply_sanctions(client)
    if client.end:
        session.reply("465", client.end)
        raise Disconnect(client.end, client.end)


def _check_server_password(session: Session) -> None:
    """Raises Disconnect for a wrong password, and for any after too many from that address."""
    wanted, offered = session.options.password.encode(), session.password.encode()
    if not wanted:
        return
    guesses, address = session.server.guesses, session.client.ip
    if guesses.try_take(address, time.monotonic()) > 0:
        session.reply("464", "Too many wrong passwords.")
        raise Disconnect("Too many wrong passwords", "Connect again in a minute.")
    if not hmac.compare_digest(wanted, offered):
        session.reply("464", "Wrong password.")
        raise Disconnect("Wrong password", "Ask the host for it, and connect again.")
    guesses.refund(address)


def _new_token(client: Client) -> str:
    return "%x" % int.from_bytes(os.urandom(16), "big") if client.caps & RESUME else ""


def _welcome(session: Session) -> None:
    client, options = session.client, session.options
    _keep_alive(session)
    count = len(session.directory.users())
    people = "1 person is" if count == 1 else "%d people are" % count
    modes = "".join(sorted(protocol.CHANNEL_MODES))
    session.reply("001", "Welcome to %s, %s. %s here." % (options.network, client.nickname, people))
    session.reply("002", "Your host is %s, running Hubbub %s" % (options.server_name, VERSION))
    session.reply("003", "This server was started %s" % time.ctime(session.server.started))
    session.reply("004", options.server_name, "hubbub-" + VERSION, USER_MODES, modes, "bklov")
    _reply_isupport(session)
    on_lusers(session)
    on_motd(session)
    if client.modes:
        modes = "+" + "".join(sorted(client.modes))
        session.reply("MODE", client.nickname, modes, source=client.source)
    if client.token:
        session.reply("RESUME", "TOKEN", client.token)
    journal = session.server.journal
    if journal is not None and journal.fault:
        session.notice(HISTORY_FAILS)
    session.flush(is_done=False)


def _reply_isupport(session: Session) -> None:
    tokens = [
        "NETWORK=" + protocol.escape_token(session.options.network),
        "CASEMAPPING=ascii", "CHANTYPES=#",  # of our folding, the part that clients can do
        "CHANMODES=" + protocol.CHANMODES, "PREFIX=(ov)@+", "MODES=%d" % protocol.MAX_MODES,
        "MAXLIST=b:%d" % MAX_BANS, "CHANLIMIT=#:%d" % MAX_CHANNELS,
        "NICKLEN=%d" % protocol.MAX_NAME, "CHANNELLEN=%d" % protocol.MAX_NAME,
        "TOPICLEN=%d" % protocol.MAX_TOPIC, "KICKLEN=%d" % MAX_REASON, "AWAYLEN=%d" % MAX_REASON,
        "KEYLEN=%d" % protocol.MAX_KEY, "USERLEN=%d" % protocol.MAX_USERNAME,
        "NAMELEN=%d" % MAX_REALNAME,
        "TARGMAX=" + ",".join("%s:%d" % pair for pair in sorted(MAX_TARGETS.items())),
        "MONITOR=%d" % MAX_WATCHES, "ELIST=CMNTU", "WHOX", "BOT=B", "SAFELIST", "UTF8ONLY",
    ]  # fmt: skip
    if session.server.journal is not None:
        tokens += ["CHATHISTORY=%d" % MAX_HISTORY, "MSGREFTYPES=msgid,timestamp"]
    for line in protocol.isupport_lines(tokens):
        session.reply("005", *line, "are supported by this server")


def _keep_alive(session: Session) -> None:
    """Let the system find out if a silent peer is gone: for clients that cannot PONG."""
    interval = int(session.options.ping_interval)
    if interval < 1:
        return
    sock = session.client.reader
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", interval),
        ("TCP_KEEPALIVE", interval),  # the same on macOS
        ("TCP_KEEPINTVL", max(1, interval // 3)),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", 2000 * interval),  # ms
    ):
        if hasattr(socket, option):
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def on_resume(session: Session, message: Message) -> None:
    """Take over from a connection that was lost, by its token (Hubbub's own command)."""
    client = session.client
    old = session.directory.resume(client, message.params[0], _new_token(client))
    if old is None:
        raise ReplyError("FAIL", "RESUME", "INVALID_TOKEN", "That connection cannot be resumed")
    session.server.end(old)
    session.is_negotiating = False
    _apply_sanctions(session)
    log.info("%s resumed as %s", client.address, client.nickname)
    _welcome(session)
    session.directory.rejoin(client, session.response)
    deliver_waiting(session)


# Commands: accounts
# ------------------


def on_authenticate(session: Session, message: Message) -> None:
    """https://ircv3.net/specs/extensions/sasl-3.2: PLAIN, before and after registration."""
    chunk = message.params[0]
    if session.sasl is None:
        if not session.server.store.has_accounts:
            raise ReplyError("904", NO_ACCOUNTS)
        if chunk.upper() != "PLAIN":
            session.reply("908", "PLAIN", "are available SASL mechanisms")
            raise ReplyError("904", "SASL authentication failed")
        session.sasl = protocol.SaslBuffer()
        if not session.client.caps & PLAIN_TEXT:
            session.reply("AUTHENTICATE", "+")
        return
    sasl, session.sasl = session.sasl, None
    if chunk == "*":
        raise ReplyError("906", "SASL authentication aborted")
    try:
        data = sasl.feed(chunk)
        if data is None:
            session.sasl = sasl
            return
        authzid, name, password = protocol.parse_sasl_plain(data)
    except protocol.TooLongError:
        raise ReplyError("905", "SASL message too long") from None
    except protocol.ProtocolError:
        raise ReplyError("904", "SASL authentication failed") from None
    if protocol.casefold(authzid or name) != protocol.casefold(name):
        raise ReplyError("904", "SASL authentication failed")
    error = ReplyError("904", "That username and that password do not belong together.")
    account = _check_password(session, name, password, error)
    _log_in(session, account)
    session.reply("903", "SASL authentication successful")


def _check_password(session: Session, name: str, password: str, error: ReplyError) -> Account:
    """Return the account of that name. Raises `error` for a wrong password, or too many of them."""
    client, server, now = session.client, session.server, time.monotonic()
    guess = "%s %s" % (client.ip, protocol.casefold(name[: protocol.MAX_NAME]))
    wait = server.attempts.try_take(guess, now)
    if wait <= 0:
        wait = server.guesses.try_take(client.ip, now)
        if wait > 0:
            server.attempts.refund(guess)
    if wait > 0:
        text = "Too many wrong passwords. Try again in %d seconds." % (wait + 1)
        raise ReplyError(error.numeric, text)
    account = server.store.log_in(name, password)
    if account is None:
        # Some users type their password in place of the name: that is not for the log.
        known = server.store.account(name)
        name = known.name if known is not None else "no account"
        log.warning("%s: wrong password for %s", client.log_name, name)
        raise error
    server.attempts.refund(guess)
    server.guesses.refund(client.ip)
    return account


def _log_in(session: Session, account: Account) -> None:
    """Log the client in to the account. Its nickname stays."""
    client = session.client
    session.directory.log_in(client, account)
    log.info("%s logged in as %s", client.log_name, account.name)
    source = client.source if client.nickname else "*!%s@%s" % (client.username, client.host)
    session.reply("900", source, account.name, "You are now logged in as %s" % account.name)
    if account.is_operator and client.registered:
        session.reply("381", "You are now an operator")
    session.server.apply_sanctions(client)
    if client.registered:
        deliver_waiting(session)


def on_register(session: Session, message: Message) -> None:
    """https://ircv3.net/specs/extensions/account-registration"""
    client, store = session.client, session.server.store
    name, _, password = message.params[:3]
    name = client.nickname if name == "*" else name

    def fail(code: str, text: str) -> ReplyError:
        return ReplyError("FAIL", "REGISTER", code, name or "*", text)

    if not store.has_accounts:
        raise fail("TEMPORARILY_UNAVAILABLE", NO_ACCOUNTS)
    if not client.registered:
        raise fail("COMPLETE_CONNECTION_REQUIRED", "Choose a username first.")
    if client.account is not None:
        raise fail("ALREADY_AUTHENTICATED", "You are logged in already.")
    if protocol.casefold(name) != client.key:
        raise fail("ACCOUNT_NAME_MUST_BE_NICK", "You can only register the username that you have.")
    error = protocol.password_error(password)
    if error:
        raise fail("WEAK_PASSWORD", error)
    if session.server.registrations.try_take(client.ip, time.monotonic()) > 0:
        raise fail("TEMPORARILY_UNAVAILABLE", "Too many at once. Try again in a minute.")
    try:
        account = store.add_account(client.nickname, password)
    except AccountExistsError as exists:
        raise fail("ACCOUNT_EXISTS", str(exists)) from None
    log.info("%s registered the account %s", client.log_name, account.name)
    text = "%s is yours alone now. Next time, type /login %s PASSWORD" % (name, name)
    session.reply("REGISTER", "SUCCESS", account.name, text)
    _log_in(session, account)


def on_oper(session: Session, message: Message) -> None:
    """Log in to an operator's account."""
    error = ReplyError("464", "Password incorrect")
    account = _check_password(session, message.params[0], message.params[1], error)
    if not account.is_operator:
        raise ReplyError("491", "%s is not an operator's account" % account.name)
    _log_in(session, account)


def deliver_waiting(session: Session) -> None:
    """Send the messages that came for an account while its owner was offline."""
    client, store = session.client, session.server.store
    account = client.account
    if account is None or not client.owns(client.nickname) or client.end:
        return
    session.delivery.sync()  # what was stored a moment ago is among them
    rows = store.waiting(account.id)
    if rows:
        session.notice("While you were away:")
        _repeat(session, rows)
        session.notice("Now:")
        session.flush(is_done=False)
        session.delivery.sync()
        if not client.closed:
            store.forget_waiting(account.id, rows[-1].number)


# Commands: messages
# ------------------


def on_text(session: Session, message: Message) -> None:
    """PRIVMSG, NOTICE, and TAGMSG of message-tags."""
    params = message.params
    session.client.spoke = time.time()
    if message.command != "TAGMSG" and (len(params) < 2 or not params[1]):
        raise ReplyError("412", "No text to send")
    tags = b""
    if message.tags:
        client_tags = {key: value for key, value in message.tags.items() if key.startswith("+")}
        try:
            tags = protocol.serialize_tags(client_tags)[1:-1]
        except ValueError:
            raise ReplyError("400", "*", "That line is not an IRC message") from None
    for target in _targets(session, params[0], "PRIVMSG"):
        _relay(session, target, message, tags)


def _relay(session: Session, target: str, message: Message, tags: bytes) -> None:
    client, response = session.client, session.response
    try:
        away = session.directory.relay(client, target, message, tags, response)
    except ReplyError as error:
        if message.command == "PRIVMSG" and error.numeric == "401":
            _store_offline(session, target, message, tags)
        elif message.command != "NOTICE":
            session.reply(error.numeric, *error.params)
    else:
        if away:
            session.reply("301", target, away)


def _store_offline(session: Session, target: str, message: Message, tags: bytes) -> None:
    """Keep a private message for the owner of an account, if there is one of that name."""
    client, server = session.client, session.server
    account = server.store.account(target)
    if account is None or server.journal is None or server.journal.fault:
        session.reply("401", target, "No such nick")
    elif server.store.waiting_count(account.id) >= MAX_WAITING:
        text = "%s is offline, and no more messages can be kept for them" % account.name
        session.reply("FAIL", "PRIVMSG", "MAILBOX_FULL", account.name, text)
    elif session.directory.store_offline(client, message, tags, account, session.response):
        text = "%s is offline; it will be delivered" % account.name
        session.note("PRIVMSG", "OFFLINE", account.name, text)
    else:
        _relay(session, target, message, tags)


def mute_text(client: Client) -> str:
    """Return why the client may not speak now, "" if it may."""
    left = client.muted_until - time.time()
    if left <= 0:
        return ""
    duration = "" if left == float("inf") else " for " + protocol.format_duration(int(left) + 1)
    return "An operator has muted you%s. You can still read." % duration


def on_away(session: Session, message: Message) -> None:
    away = protocol.clean(message.text, MAX_REASON)
    session.directory.set_away(session.client, away)
    if away:
        session.reply("306", "You have been marked as being away")
    else:
        session.reply("305", "You are no longer marked as being away")


# Commands: channels
# ------------------


def _targets(session: Session, names: str, verb: str) -> List[str]:
    """Return the names of `a,b,c`. Raises ReplyError 407 for more than MAX_TARGETS."""
    targets = names.split(",")
    most = MAX_TARGETS[verb]
    if len(targets) > most:
        text = "Too many targets: %d at most" % most
        raise ReplyError("407", protocol.truncate(names, 200), text)
    session.charge(len(targets) - 1)
    session.response.is_long |= len(targets) > 1
    return targets


def _for_each(session: Session, names: str, verb: str, act: Callable[[str], None]) -> None:
    """Act on each of `a,b,c`; an error does not keep the others from it."""
    for name in _targets(session, names, verb):
        try:
            act(name)
        except ReplyError as error:
            session.reply(error.numeric, *error.params)


def on_join(session: Session, message: Message) -> None:
    """Join channels; "0" leaves all of them."""
    client, directory = session.client, session.directory
    keys = dict(zip(message.params[0].split(","), message.param(1).split(",")))

    def join(given: str) -> None:
        name = protocol.normalize(given)
        error = protocol.channel_error(name)
        if error:
            raise ReplyError("403", name, error)
        joined = directory.join(client, name, keys.get(given, ""), session.response)
        if joined is not None:
            session.charge_looks(joined.size)
            recall(session, name, joined)

    if message.params[0] == "0":
        session.response.is_long = True
        for channel in directory.channels(of=client):
            with contextlib.suppress(ReplyError):  # the client was removed meanwhile
                directory.part(client, channel.name, "", session.response)
    elif message.params[0]:  # irssi sends an empty one, and expects no answer
        _for_each(session, message.params[0], "JOIN", join)


def on_part(session: Session, message: Message) -> None:
    client, directory = session.client, session.directory
    reason = "" if mute_text(client) else message.param(1)

    def part(name: str) -> None:
        directory.part(client, name, reason, session.response)

    _for_each(session, message.params[0], "PART", part)


def on_kick(session: Session, message: Message) -> None:
    """Remove several users of one channel, or one of each of several channels."""
    names = message.params[0].split(",")
    channels = itertools.cycle(names) if len(names) == 1 else iter(names)
    client, reason = session.client, message.param(2)[:MAX_REASON]

    def kick(nickname: str) -> None:
        channel = next(channels, "")
        session.directory.kick(client, channel, nickname, reason, session.response)
        if client.is_operator:
            why = protocol.clean(reason)
            log.warning("%s: removed %s from %s: %s", client.log_name, nickname, channel, why)

    _for_each(session, message.params[1], "KICK", kick)


def on_invite(session: Session, message: Message) -> None:
    """Invite a user to a channel; without parameters, list the client's own invitations."""
    if not message.params:
        for name in session.directory.invitations(session.client):
            session.reply("336", name)
        session.reply("337", "End of /INVITE list")
        return
    if len(message.params) < 2:
        raise ReplyError("461", "INVITE", "Not enough parameters")
    nickname, name = message.params[:2]
    other = session.directory.invite(session.client, nickname, name)
    session.reply("341", other.nickname, name)
    if other.away:
        session.reply("301", other.nickname, other.away)


def on_topic(session: Session, message: Message) -> None:
    name = message.params[0]
    if len(message.params) > 1:
        topic = message.params[1][: protocol.MAX_TOPIC]
        session.directory.set_topic(session.client, name, topic, session.response)
        return
    channel = _find_channel(session, name)
    for reply in topic_replies(channel) or [("331", channel.name, "No topic is set")]:
        session.reply(*reply)


def _find_channel(session: Session, name: str) -> Channel:
    """Raises ReplyError 403."""
    channel = session.directory.channel(name, session.client)
    if channel is None:
        raise ReplyError("403", name, "No such channel")
    return channel


def on_names(session: Session, message: Message) -> None:
    def names(name: str) -> None:
        channel = session.directory.channel(name, session.client)
        if channel is None:
            session.reply("366", name, "End of /NAMES list")
        else:
            session.charge_looks(len(channel.members))
            session.directory.names(session.client, channel, session.response)

    _for_each(session, message.param(0) or "*", "NAMES", names)


def on_list(session: Session, message: Message) -> None:
    """List channels: by name, by the conditions of ELIST, or by both."""
    condition = parse_elist(",".join(message.params))
    now = time.time()
    channels = session.directory.channels(session.client)
    session.charge_looks(len(channels))
    session.reply("321", "Channel", "Users  Name")
    for channel in channels:
        topic, size = channel.topic, len(channel.members)
        facts = (channel.name, size, channel.created, topic.at if topic.text else 0.0, now)
        if condition is None or condition.accepts(*facts):
            session.reply("322", channel.name, str(size), topic.text)
    session.reply("323", "End of /LIST")


def on_mode(session: Session, message: Message) -> None:
    target, *params = message.params
    if target.startswith("#"):
        _channel_modes(session, target, params)
    else:
        _user_modes(session, target, "".join(params[:1]))


def _channel_modes(session: Session, name: str, params: List[str]) -> None:
    channel, client = _find_channel(session, name), session.client
    if not params:
        session.reply("324", channel.name, *channel.mode_params(client))
        session.reply("329", channel.name, str(int(channel.created)))
        return
    changes = protocol.parse_modes(params)
    for change in list(changes):
        if change.letter == "b" and not change.arg:
            changes.remove(change)
            for ban in channel.bans:
                session.reply("367", channel.name, ban.mask, ban.by, str(ban.at))
            session.reply("368", channel.name, "End of channel ban list")
            session.response.is_long = True
    if changes:
        response = session.response
        for error in session.directory.change_modes(client, channel.name, changes, response):
            session.reply(error.numeric, *error.params)


def _user_modes(session: Session, nickname: str, change: str) -> None:
    client = session.client
    if session.directory.get(nickname) is not client:
        raise ReplyError("502", "Cannot change the modes of others")
    if not change:
        session.reply("221", "+" + "".join(sorted(client.modes)))
        return
    old, modes, adding = client.modes, set(client.modes), True
    for letter in change:
        if letter in "+-":
            adding = letter == "+"
        elif letter not in USER_MODES:
            session.reply("501", "Unknown mode %s" % letter)
        elif not adding:
            modes.discard(letter)
        elif letter != "o":  # OPER gives that, for a password
            modes.add(letter)
    session.directory.set_modes(client, frozenset(modes))
    changes = [ModeChange(False, letter, "") for letter in sorted(old - modes)]
    changes += [ModeChange(True, letter, "") for letter in sorted(modes - old)]
    if changes:
        params = protocol.format_modes(changes)
        session.reply("MODE", client.nickname, *params, source=client.source)


# Commands: users
# ---------------


def on_who(session: Session, message: Message) -> None:
    """Describe users, in the fields of https://ircv3.net/specs/extensions/whox if it names any."""
    mask, *options = message.params or ("*",)
    fields, token = parse_whox("".join(options[:1]))
    for other, channel in _who(session, mask):
        if options and options[0].startswith("o") and not other.is_operator:
            continue
        values = _who_values(session, other, channel, token)
        if fields:
            session.reply("354", *whox_params(fields, values))
        else:
            text = "%s %s" % (values["d"], values["r"])
            session.reply("352", *(values[field] for field in "cuhsnf"), text)
    session.reply("315", mask, "End of WHO list")


def _who(session: Session, mask: str) -> Iterator[Tuple[Client, Optional[Channel]]]:
    """Yield the users that WHO finds, each with a channel that it is in."""
    client, directory = session.client, session.directory
    if mask.startswith("#"):
        channel = directory.channel(mask, client)
        for other in channel.audience if channel is not None else ():
            if "i" not in other.modes or (channel is not None and channel.shows_all(client)):
                yield other, channel
        return
    users = directory.users()
    session.charge_looks(len(users))
    masks = protocol.MaskSet([mask])
    for other in users:
        names = (other.nickname, other.username, other.host, other.realname, other.account_name)
        if mask in ("*", "0") or any(map(masks.match, names)):
            shared = directory.shared_channel(client, other)
            is_exact = protocol.casefold(mask) == other.key
            if "i" not in other.modes or shared or is_exact or other is client:
                yield other, shared


def _who_values(
    session: Session, other: Client, channel: Optional[Channel], token: str
) -> Dict[str, str]:
    bits = channel.members.get(other, 0) if channel is not None else 0
    flags = "G" if other.away else "H"
    flags += "*" if other.is_operator else ""
    flags += member_prefix(session.client, bits)
    flags += "B" if "B" in other.modes else ""
    return {
        "t": token or "0", "c": channel.name if channel is not None else "*",
        "u": other.username, "i": other.host, "h": other.host, "s": session.options.server_name,
        "n": other.nickname, "f": flags, "d": "0", "l": str(int(time.time() - other.spoke)),
        "a": other.account_name or "0", "o": "1" if bits & CHANOP else "n/a", "r": other.realname,
    }  # fmt: skip


def on_whois(session: Session, message: Message) -> None:
    nickname = message.text
    other = session.directory.find(nickname)
    if other is None:
        session.reply("401", nickname, "No such nick")
    else:
        _reply_whois(session, other)
    session.reply("318", nickname, "End of /WHOIS list")


def _reply_whois(session: Session, other: Client) -> None:
    name, options = other.nickname, session.options
    session.reply("311", name, other.username, other.host, "*", other.realname)
    channels = session.directory.channels(session.client, of=other)
    words = (
        member_prefix(session.client, channel.members.get(other, 0)) + channel.name
        for channel in channels
    )
    for text in protocol.pack(words, " ", NAMES_SIZE):
        session.reply("319", name, text)
    session.reply("312", name, options.server_name, options.network)
    if other.is_operator:
        session.reply("313", name, "is an operator")
    if other.account is not None:
        session.reply("330", name, other.account_name, "is logged in as")
    if "B" in other.modes:
        session.reply("335", name, "is a bot")
    if other.away:
        session.reply("301", name, other.away)
    times = str(int(time.time() - other.spoke)), str(int(other.signed_on))
    session.reply("317", name, *times, "seconds idle, signon time")


def on_whowas(session: Session, message: Message) -> None:
    nickname, count = message.params[0], message.param(1)
    found = session.directory.former_users(nickname)
    if count.isdecimal() and int(count[:9]):
        found = found[: int(count[:9])]
    for user in found:
        session.reply("314", user.nickname, user.username, user.host, "*", user.realname)
        left_at = time.ctime(user.left_at)
        session.reply("312", user.nickname, session.options.server_name, left_at)
    if not found:
        session.reply("406", nickname, "There was no such nickname")
    session.reply("369", nickname, "End of WHOWAS")


def on_ison(session: Session, message: Message) -> None:
    """RFC 2812, 4.9"""
    names = [name for param in message.params for name in param.split()]
    found = map(session.directory.find, names[:MAX_WATCHES])
    session.reply("303", " ".join(user.nickname for user in found if user is not None))


def on_userhost(session: Session, message: Message) -> None:
    """Reply with the hosts of five users at most."""
    words = []
    for user in map(session.directory.find, message.params[:5]):
        if user is not None:
            sign = "-" if user.away else "+"
            values = (user.nickname, "*" * user.is_operator, sign, user.username, user.host)
            words.append("%s%s=%s%s@%s" % values)
    session.reply("302", " ".join(words))


def on_monitor(session: Session, message: Message) -> None:
    """https://ircv3.net/specs/extensions/monitor"""
    client, directory = session.client, session.directory
    verb = message.params[0].upper()
    names = [name for name in message.param(1).split(",") if name]
    if verb == "+":
        added: List[str] = []
        for i, name in enumerate(names):
            if not protocol.is_nickname(name):
                continue
            if len(client.watches) >= MAX_WATCHES and protocol.casefold(name) not in client.watches:
                for text in protocol.pack(names[i:], ",", 100):
                    session.reply("734", str(MAX_WATCHES), text, "Monitor list is full.")
                break
            directory.watch(client, name)
            added.append(name)
        _reply_presence(session, added)
    elif verb == "-":
        directory.unwatch(client, names)
    elif verb == "C":
        directory.unwatch(client, list(client.watches))
    elif verb == "L":
        for text in protocol.pack(list(client.watches.values()), ",", 350):
            session.reply("732", text)
        session.reply("733", "End of MONITOR list")
    elif verb == "S":
        _reply_presence(session, list(client.watches.values()))


def _reply_presence(session: Session, names: List[str]) -> None:
    users = [(name, session.directory.find(name)) for name in names]
    online = [user.source for _, user in users if user is not None]
    offline = [name for name, user in users if user is None]
    for numeric, words in (("730", online), ("731", offline)):
        for text in protocol.pack(words, ",", 350):
            session.reply(numeric, text)


def on_setname(session: Session, message: Message) -> None:
    """https://ircv3.net/specs/extensions/setname; a forgotten colon loses no word."""
    realname = protocol.clean(" ".join(message.params), MAX_REALNAME + 1)
    if not realname or len(realname) > MAX_REALNAME:
        text = "A real name has 1 to %d characters." % MAX_REALNAME
        raise ReplyError("FAIL", "SETNAME", "INVALID_REALNAME", text)
    session.directory.set_realname(session.client, realname, session.response)


# Commands: history
# -----------------


def recall(session: Session, name: str, joined: Joined) -> None:
    """Show a client that cannot ask what was said in a channel before it joined.

    A client that was there before has it up to when it left: it is shown the rest.
    """
    server = session.server
    if server.journal is not None and not session.client.caps & CHATHISTORY:
        session.delivery.sync()
        key = protocol.casefold(name)
        rows = server.store.read(key, joined.left, joined.number, RECALLED, latest=True)
        is_marked = rows and not session.client.caps & SERVER_TIME
        if is_marked:
            session.notice("Earlier in %s:", name)
        _repeat(session, rows)
        if is_marked:
            session.notice("Now:")


def replay(session: Session, target: str, rows: List[Row]) -> None:
    """Repeat earlier messages, marked as such: by a batch, by their times, or in words."""
    caps = session.client.caps
    if caps & SERVER_TIME or (caps & BATCH and caps & CHATHISTORY):
        session.response.open_batch("chathistory", target)
        for row in rows:
            session.response.add(_to_event(session, row))
    elif rows:
        session.notice("Earlier in %s:" % target)
        _repeat(session, rows)
        session.notice("Now:")
    else:
        session.notice("Nothing was said earlier.")


def _to_event(session: Session, row: Row) -> Event:
    tags, line = b"", row.line
    if line.startswith(b"@"):
        tags, _, line = line[1:].partition(b" ")
    event = Event(protocol.parse(line), (session.client,), row.time, row.number)
    event.client_tags = tags
    return event


def _repeat(session: Session, rows: List[Row]) -> None:
    """Repeat earlier messages with their times, or below the names of their days."""
    client, day = session.client, ""
    for event in [_to_event(session, row) for row in rows]:
        if client.caps & SERVER_TIME:
            session.response.add(event)
            continue
        message = protocol.clean_message(event.message)
        shown = describe_with_channel(
            message, client.nickname, event.when, session.options.lobby
        )
        date = time.strftime("%A, %d %B %Y", time.localtime(event.when))
        if shown and date != day:
            session.notice(date)
            day = date
        if client.caps & PLAIN_TEXT:
            session.response.add(event)
        elif shown:
            session.notice(str(shown))


def on_chathistory(session: Session, message: Message) -> None:
    """https://ircv3.net/specs/extensions/chathistory"""

    def fail(code: str, *context: str) -> ReplyError:
        return ReplyError("FAIL", "CHATHISTORY", code, message.params[0], *context)

    if session.server.journal is None:
        raise fail("MESSAGE_ERROR", "This server keeps no history")
    try:
        query = parse_chathistory(message.params)
    except protocol.ProtocolError as error:
        raise fail("INVALID_PARAMS", str(error)) from None
    query = query._replace(limit=min(query.limit, MAX_HISTORY))
    session.delivery.sync()  # what this client has just said is part of it
    if query.verb == "TARGETS":
        _reply_targets(session, query)
        return
    found = _find_conversation(session, query.target)
    if found is None:
        text = "You are not in %s, or it does not exist" % query.target
        raise fail("INVALID_TARGET", query.target, text)
    name, key, since = found
    with_events = bool(session.client.caps & EVENT_PLAYBACK)
    read = functools.partial(session.server.store.read, key, with_events=with_events)
    replay(session, name, _select_rows(query, since, read))


def _find_conversation(session: Session, target: str) -> Optional[Tuple[str, str, int]]:
    """Return the name and key of what the client may read, and the number after which it may."""
    client = session.client
    channel = session.directory.channel(target)
    if channel is not None and client in channel.members:
        return channel.name, channel.key, 0
    if not protocol.is_nickname(target):
        return None
    other, account = session.directory.find(target), session.server.store.account(target)
    if other is not None:
        name, participant = other.nickname, other.participant
    else:
        name = target
        participant = "=%d" % account.id if account is not None else protocol.casefold(target)
    return name, private_key(client.participant, participant), client.readable_since


def _select_rows(
    query: HistoryQuery, since: int, read: Callable[..., List[Row]]
) -> List[Row]:
    """Return the rows that a query asks for, of those after `since`."""
    verb, _, references, limit = query
    before, after = references[0]
    if verb == "LATEST":
        return read(max(since, after), LAST, limit, latest=True)
    if verb == "BEFORE":
        return read(since, before, limit, latest=True)
    if verb == "AFTER":
        return read(max(since, after), LAST, limit, latest=False)
    if verb == "AROUND":
        rows = read(since, before, limit // 2, latest=True)
        rest = limit - len(rows)
        return rows + read(max(since, before - 1), LAST, rest, latest=False)
    low, high = sorted(references)
    is_latest = references[0] > references[1]
    return read(max(since, low[1]), high[0], limit, latest=is_latest)


def _reply_targets(session: Session, query: HistoryQuery) -> None:
    """Reply with the conversations that ended between two references, counted from the first."""
    client, store = session.client, session.server.store
    _, _, references, limit = query
    after, before = min(references)[1], max(references)[0]
    names = {"=%d" % account.id: account.name for account in store.accounts()}
    since = max(after, client.readable_since)
    found = [
        (names.get(other, other), number)
        for other, number in store.correspondents(client.participant, since, before)
    ]
    for channel in session.directory.channels(of=client):
        last = store.read(channel.key, after, LAST, 1, latest=True)
        found += [(channel.name, row.number) for row in last if row.number < before]
    found.sort(key=lambda pair: pair[1], reverse=references[0] > references[1])
    session.response.open_batch("draft/chathistory-targets")
    for target, number in sorted(found[:limit], key=lambda pair: pair[1]):
        session.reply("CHATHISTORY", "TARGETS", target, protocol.format_time(number / 1e6))


# Commands: moderation
# --------------------


def on_sanction(session: Session, message: Message) -> None:
    """BAN or MUTE target duration :reason: by name, account, address or network."""
    client, kind = session.client, message.command.lower()
    target, duration, reason = message.params[:3] + ("", "*", "")[len(message.params) :]
    try:
        seconds = protocol.parse_duration(duration)
    except ValueError:
        text = "A duration is a number and a unit: 90s, 10m, 2h, 3d, 1w; * is forever."
        raise ReplyError("FAIL", message.command, "INVALID_DURATION", text) from None
    if not is_target(target):
        text = "A %s is for a name, an address or a network." % kind
        raise ReplyError("FAIL", message.command, "INVALID_TARGET", text)
    if kind == "ban" and target_matches(target, [client.key], client.ip):
        raise ReplyError("FAIL", message.command, "INVALID_TARGET", "That would ban yourself.")
    target, reason, now = normalize_target(target), protocol.clean(reason, MAX_REASON), time.time()
    until = now + seconds if seconds else 0.0
    session.server.store.add_sanction(Sanction(kind, target, until, reason, client.nickname, now))
    session.server.apply_sanctions_to_all()
    length = protocol.format_duration(seconds)
    done = "banned" if kind == "ban" else "muted"
    log.warning("%s: %s %s (%s): %s", client.log_name, done, target, length, reason)
    session.note(message.command, "DONE", target, "%s is %s (%s)." % (target, done, length))


def on_unban(session: Session, message: Message) -> None:
    """Lift the bans and mutes of a target."""
    target = message.params[0]
    if not session.server.store.remove_sanctions(target):
        text = "%s is neither banned nor muted. /bans shows who is." % target
        raise ReplyError("FAIL", "UNBAN", "INVALID_TARGET", target, text)
    session.server.apply_sanctions_to_all()
    log.warning("%s: lifted the sanctions against %s", session.client.log_name, target)
    session.note("UNBAN", "DONE", target, "%s may join and speak again." % target)


def on_bans(session: Session, message: Message) -> None:
    """List the bans and mutes."""
    now = time.time()
    sanctions = session.server.store.sanctions
    for sanction in sanctions:
        done = "banned" if sanction.kind == "ban" else "muted"
        left = protocol.format_duration(int(sanction.until - now) + 1) if sanction.until else ""
        length = " for " + left if left else ""
        reason = ": " + sanction.reason if sanction.reason else ""
        session.notice("%s is %s%s, by %s%s", sanction.target, done, length, sanction.by, reason)
    if not sanctions:
        session.notice("Nobody is banned or muted.")


def on_announce(session: Session, message: Message) -> None:
    text = "Announcement by %s: %s" % (session.client.nickname, message.text)
    log.warning("%s: announced something", session.client.log_name)
    session.flush(is_done=False)
    session.server.announce(text)


def on_kill(session: Session, message: Message) -> None:
    client, nickname = session.client, message.params[0]
    reason = protocol.clean(message.text, MAX_REASON)
    other = session.directory.get(nickname)
    log.warning("%s: removed %s: %s", client.log_name, other.log_name, reason)
    session.directory.post(Message("KILL", (other.nickname, reason), client.source), (other,))
    other.end = other.end or "Killed by %s: %s" % (client.nickname, reason)
    session.server.end(other)


# Commands: server
# ----------------


def on_lusers(session: Session, message: Optional[Message] = None) -> None:
    users, channels = session.directory.users(), session.directory.channels()
    invisible, operators = (sum(mode in user.modes for user in users) for mode in "io")
    count, most = len(users), max(session.directory.most_users, len(users))
    text = "There are %d users and %d invisible on 1 servers" % (count - invisible, invisible)
    unknown = session.server.connection_count() - count
    session.reply("251", text)
    session.reply("252", str(operators), "operator(s) online")
    session.reply("253", str(unknown), "unknown connection(s)")
    session.reply("254", str(len(channels)), "channels formed")
    session.reply("255", "I have %d clients and 0 servers" % count)
    for numeric, where in (("265", "local"), ("266", "global")):
        text = "Current %s users %d, max %d" % (where, count, most)
        session.reply(numeric, str(count), str(most), text)


def on_motd(session: Session, message: Optional[Message] = None) -> None:
    if not session.options.motd:
        session.reply("422", "There is no message of the day")
        return
    session.reply("375", "- %s Message of the day -" % session.options.server_name)
    for line in session.options.motd:
        session.reply("372", line)
    session.reply("376", "End of /MOTD command")


def on_version(session: Session, message: Message) -> None:
    options = session.options
    session.reply("351", "hubbub-" + VERSION, options.server_name, options.network)
    _reply_isupport(session)


def on_time(session: Session, message: Message) -> None:
    now = time.strftime("%A, %d %B %Y, %H:%M:%S %z")
    session.reply("391", session.options.server_name, now)


def on_info(session: Session, message: Message) -> None:
    session.reply("371", "Hubbub %s: chat for a local network" % VERSION)
    session.reply("371", "Up since %s" % time.ctime(session.server.started))
    session.reply("374", "End of INFO list")


def on_help(session: Session, message: Message) -> None:
    """List the commands, or show the line of one of them."""
    subject = message.param(0).upper() or "*"
    if subject == "*":
        session.reply("704", subject, "The commands of this server:")
        for text in protocol.pack(sorted(COMMANDS), " ", 300):
            session.reply("705", subject, text)
    elif subject in COMMANDS:
        session.reply("704", subject, COMMANDS[subject].help)
    else:
        raise ReplyError("524", subject, "No help available on this topic")
    session.reply("706", subject, "End of /HELP")


def on_stats(session: Session, message: Message) -> None:
    """Show all figures, whatever letter is asked for."""
    letter = message.param(0)[:1] or "*"
    for figure in session.server.statistics().split():
        session.reply("249", letter, figure.replace("=", ": "))
    session.reply("219", letter, "End of /STATS report")


def on_ping(session: Session, message: Message) -> None:
    session.reply("PONG", session.options.server_name, message.params[0])


def on_pong(session: Session, message: Message) -> None:
    """Do nothing: it shows that the client is there."""


def on_quit(session: Session, message: Message) -> None:
    reason = "" if mute_text(session.client) else message.text
    raise Disconnect("Quit: %s" % reason if reason else "Quit", "Goodbye.")


# The command table
# -----------------


class Command(NamedTuple):
    """A row of the table: the handler, the rules that are checked before it, a line of help."""

    handler: Callable[[Session, Message], None]
    least: int  # parameters
    rules: int  # EARLY and the others below
    help: str
    speaks: int = 0  # parameters with which it says something to others; 0: it never does


EARLY = 1  # allowed before registration
NOT_LATE = 2  # refused after registration
OPERATORS = 4  # for operators only
OF_SERVER = 8  # the first parameter, if there is one, names the server that is asked

COMMANDS = {
    "ANNOUNCE": Command(on_announce, 1, OPERATORS, "Send a notice to everyone."),
    "AUTHENTICATE": Command(on_authenticate, 1, EARLY, "Log in to an account (SASL)."),
    "AWAY": Command(on_away, 0, 0, "Mark yourself as away, or as back.", speaks=1),
    "BAN": Command(on_sanction, 1, OPERATORS, "Keep a name, account or address out."),
    "BANS": Command(on_bans, 0, OPERATORS, "List bans and mutes."),
    "CAP": Command(on_cap, 1, EARLY, "Negotiate capabilities."),
    "CHATHISTORY": Command(on_chathistory, 1, 0, "Read earlier messages."),
    "HELP": Command(on_help, 0, 0, "List the commands, or describe one."),
    "INFO": Command(on_info, 0, OF_SERVER, "Describe this server."),
    "INVITE": Command(on_invite, 0, 0, "Invite a user to a channel.", speaks=2),
    "ISON": Command(on_ison, 1, 0, "Show which of these users are online."),
    "JOIN": Command(on_join, 1, 0, "Join channels; JOIN 0 leaves all."),
    "KICK": Command(on_kick, 2, 0, "Remove users from a channel.", speaks=3),
    "KILL": Command(on_kill, 2, OPERATORS, "Disconnect a user."),
    "LIST": Command(on_list, 0, 0, "List channels."),
    "LUSERS": Command(on_lusers, 0, 0, "Count users and channels."),
    "MODE": Command(on_mode, 1, 0, "Show or change the modes of a channel or user.", speaks=3),
    "MONITOR": Command(on_monitor, 1, 0, "Be told when users come and go."),
    "MOTD": Command(on_motd, 0, OF_SERVER, "Show the message of the day."),
    "MUTE": Command(on_sanction, 1, OPERATORS, "Let a user read, but not write."),
    "NAMES": Command(on_names, 0, 0, "List the members of a channel."),
    "NICK": Command(on_nick, 0, EARLY, "Set your nickname.", speaks=1),
    "NOTICE": Command(on_text, 0, 0, "Send a message that no program answers.", speaks=1),
    "OPER": Command(on_oper, 2, 0, "Log in to an operator's account."),
    "PART": Command(on_part, 1, 0, "Leave channels."),
    "PASS": Command(on_pass, 1, EARLY | NOT_LATE, "Give the server's password, before NICK."),
    "PING": Command(on_ping, 1, EARLY, "Ask for a PONG."),
    "PONG": Command(on_pong, 0, EARLY, "Answer a PING."),
    "PRIVMSG": Command(on_text, 1, 0, "Send a message to users or channels.", speaks=1),
    "QUIT": Command(on_quit, 0, EARLY, "Leave the chat."),
    "REGISTER": Command(on_register, 3, EARLY, "Make your nickname yours alone."),
    "RESUME": Command(on_resume, 1, EARLY | NOT_LATE, "Take over from a lost connection."),
    "SETNAME": Command(on_setname, 1, 0, "Change your real name.", speaks=1),
    "STATS": Command(on_stats, 0, OPERATORS, "Show the figures of this server."),
    "TAGMSG": Command(on_text, 1, 0, "Send tags without a text.", speaks=1),
    "TIME": Command(on_time, 0, OF_SERVER, "Show this server's time."),
    "TOPIC": Command(on_topic, 1, 0, "Show or set the topic of a channel.", speaks=2),
    "UNBAN": Command(on_unban, 1, OPERATORS, "Lift a ban or a mute."),
    "USER": Command(on_user, 4, EARLY | NOT_LATE, "Give your user name and real name."),
    "USERHOST": Command(on_userhost, 1, 0, "Show the hosts of up to five users."),
    "VERSION": Command(on_version, 0, OF_SERVER, "Show the version and what is supported."),
    "WHO": Command(on_who, 0, 0, "Describe the users that match a mask, or are in a channel."),
    "WHOIS": Command(on_whois, 1, 0, "Describe a user."),
    "WHOWAS": Command(on_whowas, 1, 0, "Describe the users who had a nickname."),
}
USER_MODES = "Bio"
# Names in one command, for those that take several
MAX_TARGETS = {"JOIN": 50, "KICK": 4, "NAMES": 4, "NOTICE": 4, "PART": 50, "PRIVMSG": 4}


# The server
# ----------


class Server:
    """Listens as soon as it is made (OSError if it cannot); `run` serves until `stop`."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.started = time.time()
        self._listener = _listen(options.host, options.port)
        self.port: int = self._listener.getsockname()[1]
        try:
            self.store = Store(options.data, options.history_days)
        except BaseException:
            self._listener.close()
            raise
        self.journal: Optional[Journal] = None
        if self.store.keeps_history:
            self.journal = Journal(self.store, self._on_journal, self._on_accounts)
        self.delivery = Delivery(options.max_sendq, self.journal, options.lobby)
        self.directory = Directory(
            self.delivery.post, options.server_name, options.lobby, self.store.last_number()
        )
        self.attempts = Limiter(*PASSWORDS)  # passwords for one account from one address
        self.guesses = Limiter(*GUESSES)  # passwords from one address
        self.registrations = Limiter(*REGISTRATIONS)  # accounts from one address
        self._restore_channels()
        self._lock = threading.Lock()  # guards the two below
        self._threads: Dict[Client, threading.Thread] = {}
        self._per_address: Dict[str, int] = collections.defaultdict(int)
        self._is_stopping = False
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)

    def _restore_channels(self) -> None:
        accounts = [account.id for account in self.store.accounts()]
        with contextlib.suppress(StoreError):  # users are told that nothing is kept
            for state in self.store.channels():
                try:
                    self.directory.restore(Channel.restore(state, accounts))
                except (KeyError, TypeError, ValueError) as error:
                    log.warning("cannot restore a channel: %r", error)

    # For the sessions

    def offered_capabilities(self) -> Dict[str, str]:
        """Return each capability, and its value for clients of version 302."""
        offered = dict.fromkeys(CAPABILITIES, "")
        offered["sasl"] = "=PLAIN"
        if self.journal is None:
            del offered["draft/chathistory"], offered["draft/event-playback"]
        if not self.store.has_accounts:
            del offered["draft/account-registration"], offered["sasl"]
        return offered

    def end(self, client: Client, elsewhere: str = "") -> None:
        """End another client's connection; its `end` says why.

        `elsewhere` is the nickname that the owner of its account has taken from it.
        """
        if elsewhere:
            fail = Message("FAIL", ("*", "LOGGED_IN_ELSEWHERE", elsewhere, client.end))
            source = self.options.server_name
            self.directory.post(fail._replace(source=source), (client,), STANDARD_REPLIES)
        self.directory.post(Message("ERROR", (client.end,)), (client,))
        self.delivery.post(Ending(client, SEVER))
        self.delivery.wake()

    def announce(self, text: str) -> None:
        """Send a notice to every user."""
        for user in self.directory.users():
            message = Message("NOTICE", (user.nickname, text), self.options.server_name)
            self.directory.post(message, (user,))

    def apply_sanctions(self, client: Client) -> None:
        """Mark a client that is banned as ended (its `end` says why), mute one that is muted."""
        names = [client.key, protocol.casefold(client.account_name)]
        ban = self.store.find_sanction("ban", names, client.ip)
        if ban is not None and not client.is_operator:
            reason = ban.reason or "no reason was given"
            client.end = client.end or "You are banned: %s." % reason.rstrip(".")
        mute = self.store.find_sanction("mute", names, client.ip)
        until = (mute.until or float("inf")) if mute is not None else 0.0
        client.muted_until = 0.0 if client.is_operator else until

    def apply_sanctions_to_all(self) -> None:
        """Mute, or end the connections of, the users whom sanctions apply to."""
        for client in self.directory.users():
            self.apply_sanctions(client)
            if client.end:
                self.end(client)

    def connection_count(self) -> int:
        """Return the number of connections, registered or not."""
        with self._lock:
            return len(self._threads)

    def statistics(self) -> str:
        """Return the figures for STATS and the log."""
        figures = {
            "connections": self.connection_count(),
            "clients": len(self.directory.users()),
            "rooms": len(self.directory.channels()),
            "events": self.delivery.count,
            "waiting": self.delivery.waiting,
            "threads": threading.active_count(),
            "memory_mib": _memory() >> 20,
            "history_mib": self.store.size() >> 20,
            "uptime_s": int(time.time() - self.started),
        }
        return " ".join("%s=%d" % pair for pair in figures.items())

    def _on_journal(self, fault: str) -> None:
        """The history is not being kept, or is again. Called by the delivery."""
        if fault:
            log.error("the history is not being kept: %s", fault)
        else:
            log.warning("the history is being kept again")
        self.announce(HISTORY_FAILS if fault else HISTORY_WORKS)

    def _on_accounts(self, accounts: Mapping[int, Account]) -> None:
        """Accounts or sanctions have changed, perhaps by another process."""
        self.directory.update_accounts(accounts)
        self.apply_sanctions_to_all()
        self.delivery.wake()

    # Running

    def fileno(self) -> int:
        """Return a descriptor to which a written byte ends `run`: for signal.set_wakeup_fd."""
        return self._waker.fileno()

    def stop(self) -> None:
        """End `run`. Any thread or signal handler may call it, more than once."""
        self._is_stopping = True
        with contextlib.suppress(OSError):  # full, or closed already: `run` knows
            self._waker.send(b"!")

    def run(self) -> None:
        """Serve until `stop`, then tell everyone, close everything and return."""
        if self.journal is not None:
            self.journal.start()
        self.delivery.start()
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._listener, selectors.EVENT_READ)
                selector.register(self._woken, selectors.EVENT_READ)
                while not self._is_stopping:
                    for key, _ in selector.select():
                        if key.fileobj is self._listener:
                            self._accept()
        finally:
            self._shut_down()

    def _accept(self) -> None:
        try:
            sock, address = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            log.error("cannot accept connections: %s", error.strerror)
            time.sleep(0.1)  # until descriptors are free again
            return
        host = address[0]
        refusal = self._refusal(host)
        if refusal:
            log.info("%s:%d refused: %s", host, address[1], refusal)
            _refuse(sock, refusal)
            return
        try:
            self._start(sock, host, address[1])
        except OSError:
            sock.close()  # the peer has gone already

    def _refusal(self, host: str) -> str:
        """Return why a connection from that address is refused, "" if it is not."""
        options = self.options
        with self._lock:
            count, from_host = len(self._threads), self._per_address.get(host, 0)
        if options.max_clients and count >= options.max_clients:
            return "%s is full (%d people). Try again later." % (options.network, count)
        if options.max_per_address and from_host >= options.max_per_address:
            return "There are %d connections from your address already." % from_host
        return ""

    def _start(self, sock: socket.socket, host: str, port: int) -> None:
        # An address that begins with a colon could not be a middle parameter.
        client = Client(sock, "0" + host if host.startswith(":") else host, port)
        session = Session(self, client)

        def body() -> None:
            try:
                session.run()
            finally:
                self._forget(client, host)

        thread = threading.Thread(target=body, name="client %s" % client.address)
        with self._lock:
            self._threads[client] = thread
            self._per_address[host] += 1
        try:
            thread.start()
        except RuntimeError:  # the system gives no more threads
            log.error("%s refused: out of threads", client.address)
            self._forget(client, host)
            self.delivery.post(Output(client, _error_line("%s is full." % self.options.network)))
            self.delivery.post(Ending(client, CLOSE))
            self.delivery.wake()

    def _forget(self, client: Client, host: str) -> None:
        with self._lock:
            del self._threads[client]
            self._per_address[host] -= 1
            if not self._per_address[host]:
                del self._per_address[host]

    def _shut_down(self) -> None:
        self._listener.close()
        self.directory.close()
        with self._lock:
            threads = dict(self._threads)
        log.info("shutting down, with %d connected", len(threads))
        farewell = Message("ERROR", ("The server is shutting down",))
        for client in threads:
            client.end = client.end or farewell.text
        self.directory.post(farewell, tuple(threads))
        for how in (SEVER, ABORT):
            for client in threads:
                self.delivery.post(Ending(client, how))
            self.delivery.wake()
            deadline = time.monotonic() + SHUTDOWN_TIME
            for thread in threads.values():
                thread.join(max(0.0, deadline - time.monotonic()))
            threads = {client: thread for client, thread in threads.items() if thread.is_alive()}
            if not threads:
                break
        self.delivery.stop()
        log.info("statistics: %s", self.statistics())
        if self.journal is not None:
            self.journal.stop()
        self.store.close()

    def close(self) -> None:
        """Close what `fileno` and `stop` use: the last call, after `run`."""
        self._woken.close()
        self._waker.close()


def _error_line(text: str) -> bytes:
    """Return a line that is understood in both dialects."""
    return ("ERROR :%s\r\n" % text).encode("utf-8")


def _refuse(sock: socket.socket, text: str) -> None:
    """Say why, if that needs no waiting, and close."""
    sock.setblocking(False)
    with contextlib.suppress(OSError):
        sock.send(_error_line(text))
    sock.close()


def _memory() -> int:
    """Return the bytes of memory in use at most, 0 if the system does not tell."""
    if resource is None:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises OSError, whose text is for the user."""
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, proto, _, address = found[0]
    listener = socket.socket(family, kind, proto)
    try:
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):  # Windows, where REUSEADDR shares a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def addresses_to_tell(host: str) -> List[str]:
    """Return the addresses at which others find a server that listens on `host`."""
    if host not in ("", "0.0.0.0", "::"):
        return [host]
    found = []
    with contextlib.suppress(OSError):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))  # a documentation address; UDP sends nothing yet
            found.append(probe.getsockname()[0])
    with contextlib.suppress(OSError):
        for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET):
            address = str(info[4][0])
            if address not in found and not address.startswith("127."):
                found.append(address)
    return found


