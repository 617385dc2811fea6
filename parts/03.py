# Capabilities
# ------------

# IRCv3 capabilities (https://ircv3.net/irc/) are bits of Client.caps. PLAIN_TEXT, which is none,
# marks a user with nc, who is also shown their own messages.
CAPABILITIES = {
    name: 1 << bit
    for bit, name in enumerate(
        "account-notify account-tag away-notify batch cap-notify draft/account-registration"
        " draft/chathistory draft/event-playback echo-message extended-join extended-monitor"
        " hubbub/resume invite-notify labeled-response message-tags multi-prefix sasl server-time"
        " setname standard-replies userhost-in-names".split()
    )
}
PLAIN_TEXT = 1 << len(CAPABILITIES)
ACCOUNT_TAG = CAPABILITIES["account-tag"]
BATCH = CAPABILITIES["batch"]
CHATHISTORY = CAPABILITIES["draft/chathistory"]
ECHO_MESSAGE = CAPABILITIES["echo-message"]
EVENT_PLAYBACK = CAPABILITIES["draft/event-playback"]
EXTENDED_JOIN = CAPABILITIES["extended-join"]
EXTENDED_MONITOR = CAPABILITIES["extended-monitor"]
INVITE_NOTIFY = CAPABILITIES["invite-notify"]
LABELED_RESPONSE = CAPABILITIES["labeled-response"]
MESSAGE_TAGS = CAPABILITIES["message-tags"]
MULTI_PREFIX = CAPABILITIES["multi-prefix"]
RESUME = CAPABILITIES["hubbub/resume"]
SERVER_TIME = CAPABILITIES["server-time"]
SETNAME = CAPABILITIES["setname"]
STANDARD_REPLIES = CAPABILITIES["standard-replies"]
USERHOST_IN_NAMES = CAPABILITIES["userhost-in-names"]
# Commands that are sent only to clients with a capability
_NEEDS = {
    "ACCOUNT": CAPABILITIES["account-notify"],
    "AWAY": CAPABILITIES["away-notify"],
    "BATCH": BATCH,
    "SETNAME": SETNAME,
    "TAGMSG": MESSAGE_TAGS,
}


# Clients
# -------


class Client:
    """A connection and its user, as every thread sees them.

    `reader` and `writer` are two views of one descriptor: reads block with a timeout, writes
    never block.
    """

    __slots__ = (
        "account", "address", "away", "blocked", "caps", "channels", "closed", "correspondent",
        "end", "finishing", "host", "invited", "left", "modes", "muted_until", "named_since",
        "nickname", "outbox", "queued", "reader", "realname", "registered", "signed_on", "source",
        "spoke", "tags", "token", "username", "watches", "writer",
    )  # fmt: skip

    IDENTITY = (  # state of the user, which RESUME moves to another connection
        "account", "away", "channels", "invited", "modes", "named_since", "nickname", "realname",
        "registered", "signed_on", "spoke", "username", "watches",
    )  # fmt: skip

    def __init__(self, reader: socket.socket, host: str, port: int) -> None:
        reader.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reader = reader
        self.writer = socket.socket(
            reader.family, reader.type, reader.proto, fileno=reader.fileno()
        )
        self.writer.settimeout(0)
        self.address = "%s:%d" % (host, port)
        # Written by the client's own thread alone:
        self.caps = 0  # PLAIN_TEXT once the user turns out to have nc
        self.signed_on = self.spoke = 0.0  # seconds since 1970
        # Guarded by the directory's lock:
        self.nickname = ""
        self.username = "user"
        self.host = host
        self.realname = ""
        self.source = ""  # nickname!user@host
        self.account: Optional[Account] = None  # logged in to
        self.away = ""  # the reason, "" if present
        self.modes: FrozenSet[str] = frozenset()
        self.tags: Tuple[Tag, ...] = ()  # of each of its messages
        self.named_since = 0  # number of the event that gave it the nickname
        self.registered = False
        self.channels: Set[Channel] = set()
        self.invited: "weakref.WeakSet[Channel]" = weakref.WeakSet()
        self.left: Dict[str, int] = {}  # channels that it left, and the number of that event
        self.watches: Dict[str, str] = {}  # casefolded nicknames to the spelling asked for
        self.correspondent = ""  # sender of the last private message
        self.token = ""  # for RESUME
        # Written by the thread that sanctions, read by the client's own:
        self.muted_until = 0.0  # seconds since 1970
        # Touched by the delivery alone:
        self.outbox: List[Union[bytes, memoryview]] = []
        self.queued = 0  # bytes in it
        self.blocked = False  # the socket is full; the selector tells when it is not
        self.closed = False  # nothing is put into the outbox any more
        self.finishing: Optional[int] = None  # how to shut down once the outbox is empty
        # Set once by the thread that ends the connection; the client's thread reads it and leaves.
        self.end = ""

    @property
    def key(self) -> str:
        """The casefolded nickname."""
        return protocol.casefold(self.nickname)

    @property
    def ip(self) -> str:
        """The address without the port."""
        return self.address.rpartition(":")[0]

    @property
    def log_name(self) -> str:
        """The name in the log."""
        return "%s (%s)" % (self.address, self.nickname) if self.nickname else self.address

    @property
    def is_operator(self) -> bool:
        """True for an operator of the whole server."""
        return "o" in self.modes

    @property
    def account_name(self) -> str:
        """The name of its account, "" if it is not logged in."""
        return self.account.name if self.account is not None else ""

    def owns(self, nickname: str) -> bool:
        """Return True if the nickname is that of the account that it is logged in to."""
        return bool(nickname) and protocol.casefold(self.account_name) == protocol.casefold(nickname)

    @property
    def participant(self) -> str:
        """Its part of the key of a private conversation: its account, or its nickname."""
        if self.account is not None and self.owns(self.nickname):
            return "=%d" % self.account.id
        return self.key

    @property
    def readable_since(self) -> int:
        """The number after which private messages to its nickname are its own."""
        return 0 if self.owns(self.nickname) else self.named_since

    def refresh(self) -> None:
        """Rebuild what goes with its messages, after a change of what that says."""
        self.source = "%s!%s@%s" % (self.nickname, self.username, self.host)
        tags = [make_tag("account", self.account_name, ACCOUNT_TAG)] if self.account else []
        tags += [make_tag("bot", "", MESSAGE_TAGS)] if "B" in self.modes else []
        self.tags = tuple(tags)


def private_key(one: str, other: str) -> str:
    """Return the key of the conversation of two participants, the same for both."""
    return " ".join(sorted([one, other]))


# Channels
# --------

CHANOP, VOICE = 2, 1  # bits of a member: @ and +
_PREFIXES = ("", "+", "@", "@+")
_MEMBER_BITS = {"o": CHANOP, "v": VOICE}


class Topic(NamedTuple):
    """The topic of a channel; without one, the text is ""."""

    text: str = ""
    by: str = ""
    at: float = 0.0  # seconds since 1970


class ChannelBan(NamedTuple):
    """A ban mask of a channel."""

    mask: str
    by: str
    at: int  # seconds since 1970


class Channel:
    """A channel, its members and its modes. Changed under the directory's lock alone.

    Other threads may read it without: what is not a number or a string is immutable and replaced
    as a whole, but for `members`, which may only be asked for one member's bits.
    """

    __slots__ = (
        "__weakref__", "audience", "ban_masks", "bans", "created", "flags", "is_lobby",
        "is_saved", "key", "limit", "members", "name", "operators", "password", "topic",
    )  # fmt: skip

    def __init__(self, name: str, is_lobby: bool = False) -> None:
        self.name = name
        self.key = protocol.casefold(name)
        self.is_lobby = is_lobby
        self.created = time.time()
        self.members: Dict[Client, int] = {}  # in order of joining; CHANOP and VOICE
        self.topic = Topic()
        self.flags: FrozenSet[str] = frozenset("n")
        self.password = ""  # mode k
        self.limit = 0  # mode l
        self.bans: Tuple[ChannelBan, ...] = ()
        self.ban_masks = protocol.MaskSet(())  # of `bans`
        self.operators: FrozenSet[int] = frozenset()  # accounts that are chanops when they join
        self.is_saved = False  # the store has it
        self.audience: Tuple[Client, ...] = ()  # the members: the same tuple until they change

    def add(self, client: Client, bits: int = 0) -> None:
        self.members[client] = bits
        self.audience = tuple(self.members)

    def discard(self, client: Client) -> None:
        self.members.pop(client, None)
        self.audience = tuple(self.members)

    def replace(self, old: Client, new: Client) -> None:
        """Put `new` in the place of a member."""
        members = self.members.items()
        self.members = {new if member is old else member: bits for member, bits in members}
        self.audience = tuple(self.members)

    @property
    def is_persistent(self) -> bool:
        """True if it is kept when it is empty, and over a restart."""
        is_plain = self.flags == {"n"} and not (self.password or self.limit or self.bans)
        return bool(self.topic.text) or not is_plain

    @property
    def has_owner(self) -> bool:
        """True if a user who comes back can prove to be a chanop."""
        return bool(self.operators) or self.is_lobby

    def add_operator(self, client: Client) -> None:
        """Make the client's account a chanop whenever it joins."""
        if client.account is not None:
            self.operators |= {client.account.id}

    def has_operator(self, client: Client) -> bool:
        """Return True if the client's account is a chanop whenever it joins."""
        return client.account is not None and client.account.id in self.operators

    # Permission checks; each raises ReplyError if `client` lacks the right.

    def is_chanop(self, client: Client) -> bool:
        """Return True for a chanop, and for an operator of the server."""
        return client.is_operator or bool(self.members.get(client, 0) & CHANOP)

    def check_chanop(self, client: Client) -> None:
        if not self.is_chanop(client):
            raise ReplyError("482", self.name, "You're not channel operator")

    def check_can_join(self, client: Client, password: str) -> None:
        if self in client.invited or client.is_operator or self.has_operator(client):
            return
        for is_refused, numeric, letter in (
            (self.ban_masks.match(client.source), "474", "b"),
            ("i" in self.flags, "473", "i"),
            (self.password and password != self.password, "475", "k"),
            (self.limit and len(self.members) >= self.limit, "471", "l"),
        ):
            if is_refused:
                raise ReplyError(numeric, self.name, "Cannot join channel (+%s)" % letter)

    def check_can_speak(self, client: Client) -> None:
        text = ""
        if client not in self.members and "n" in self.flags:
            text = "Cannot send to a channel that you are not in"
        elif self.members.get(client) or client.is_operator:
            return
        elif "m" in self.flags:
            text = "Only operators and those with a voice may speak in %s" % self.name
        elif self.ban_masks.match(client.source):
            text = "You are banned from %s, and may not speak there" % self.name
        if text:
            raise ReplyError("404", self.name, text)

    def check_member(self, client: Client) -> Client:
        """Return the client if it is a member."""
        if client not in self.members:
            raise ReplyError("441", client.nickname, self.name, "They aren't on that channel")
        return client

    # Modes

    def change(
        self, change: ModeChange, by: Client, find: Callable[[str], Client]
    ) -> Optional[ModeChange]:
        """Apply a mode change; return it as it took effect, None if it changes nothing.

        `find` returns the client of a nickname. Raises ReplyError.
        """
        adding, letter, arg = change
        kind = protocol.CHANNEL_MODES.get(letter)
        if kind is None:
            raise ReplyError("472", letter, "is unknown mode char to me")
        if kind == "flag":
            if adding == (letter in self.flags):
                return None
            self.flags ^= {letter}
            return change
        if not arg and (adding or letter not in "kl"):
            raise ReplyError("696", self.name, letter, "*", "This mode needs a parameter")
        if kind == "member":
            return self._change_member(change, self.check_member(find(arg)))
        if letter == "b":
            return self._change_ban(change, by)
        return self._change_key(change) if letter == "k" else self._change_limit(change)

    def _change_member(self, change: ModeChange, member: Client) -> Optional[ModeChange]:
        bits, bit = self.members[member], _MEMBER_BITS[change.letter]
        if bit == CHANOP and member.account is not None:
            account = frozenset([member.account.id])
            self.operators = self.operators | account if change.adding else self.operators - account
        if bool(bits & bit) == change.adding:
            return None
        self.members[member] = bits ^ bit
        return change._replace(arg=member.nickname)

    def _change_ban(self, change: ModeChange, by: Client) -> Optional[ModeChange]:
        mask = protocol.normalize_mask(change.arg)
        key = protocol.casefold(mask)
        known = [ban for ban in self.bans if protocol.casefold(ban.mask) == key]
        if change.adding == bool(known):
            return None
        if known:
            mask = known[0].mask
            self.bans = tuple(ban for ban in self.bans if ban not in known)
        elif len(self.bans) >= MAX_BANS:
            raise ReplyError("478", self.name, "b", "Channel list is full")
        else:
            self.bans += (ChannelBan(mask, by.nickname, int(time.time())),)
        self.ban_masks = protocol.MaskSet(ban.mask for ban in self.bans)
        return change._replace(arg=mask)

    def _change_key(self, change: ModeChange) -> Optional[ModeChange]:
        if not change.adding:
            old, self.password = self.password, ""
            return change._replace(arg="*") if old else None
        if not protocol.is_key(change.arg):
            raise ReplyError("696", self.name, "k", "*", "A key has no spaces and no commas")
        self.password = change.arg
        return change

    def _change_limit(self, change: ModeChange) -> Optional[ModeChange]:
        if not change.adding:
            old, self.limit = self.limit, 0
            return change if old else None
        limit = protocol.parse_limit(change.arg)
        if not limit:
            raise ReplyError("696", self.name, "l", change.arg, "A limit is a number above 0")
        self.limit = limit
        return change._replace(arg=str(limit))

    def mode_params(self, client: Client) -> Tuple[str, ...]:
        """Return the parameters of 324; only members see the key."""
        changes = [ModeChange(True, flag, "") for flag in sorted(self.flags)]
        if self.password:
            key = self.password if self.shows_all(client) else "*"
            changes.append(ModeChange(True, "k", key))
        if self.limit:
            changes.append(ModeChange(True, "l", str(self.limit)))
        return protocol.format_modes(changes) or ("+",)

    def shows_all(self, client: Client) -> bool:
        """Return True if the client sees invisible members and the key."""
        return client in self.members or client.is_operator

    # Saving

    SAVED = ("name", "topic", "created", "password", "limit", "bans")

    def state(self) -> Dict[str, Any]:
        """Return what the store keeps of it, for JSON."""
        state = {name: getattr(self, name) for name in self.SAVED}
        return dict(state, flags=sorted(self.flags), operators=sorted(self.operators))

    @classmethod
    def restore(cls, state: Mapping[str, Any], accounts: Iterable[int]) -> "Channel":
        """Return the channel of `state`, whose operators are among `accounts`.

        Raises KeyError, TypeError or ValueError for what is no state.
        """
        channel = cls(str(state["name"]))
        channel.topic = Topic(*state["topic"])
        channel.created = float(state["created"])
        channel.password, channel.limit = str(state["password"]), int(state["limit"])
        channel.bans = tuple(ChannelBan(*ban) for ban in state["bans"])
        channel.ban_masks = protocol.MaskSet(ban.mask for ban in channel.bans)
        channel.flags = frozenset(state["flags"])
        channel.operators = frozenset(state["operators"]).intersection(accounts)
        channel.is_saved = True
        return channel


