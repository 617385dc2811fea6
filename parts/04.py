# Events
# ------

# A serialized tag, and the capabilities of the clients that get it
Tag = Tuple[int, bytes]
_TEXTS = ("PRIVMSG", "NOTICE", "TAGMSG")  # their sender sees them only as an echo


def make_tag(key: str, value: str, needs: int = 0) -> Tag:
    """Return a tag for clients with the capabilities `needs`."""
    return needs, protocol.serialize_tags({key: value})[1:-1]


class Event:
    """A message for `audience`, a tuple of clients; rendered once for each set of capabilities.

    `number` is its place in the order of all events and its msgid, 0 for a reply; `when` is its
    time. The history keeps it under each of `keys`, and for the account `waiting_for`. `sender`
    is a client of the audience that gets another rendering: an echo, with the label `label`.
    Only clients with the capabilities `needs` are told. `extended` is the line for clients with
    extended-join.

    A message too long for a line is truncated. Raises ValueError for what no line can carry.
    """

    __slots__ = (
        "_sender_tags", "_tags", "audience", "client_tags", "extended", "is_text", "keys", "label", "line",
        "message", "needs", "number", "sender", "waiting_for", "when",
    )  # fmt: skip

    def __init__(
        self,
        message: Message,
        audience: Tuple[Client, ...],
        when: float,
        number: int = 0,
        keys: Tuple[str, ...] = (),
        sender: Optional[Client] = None,
    ) -> None:
        self.message, self.line = protocol.fit_line(message)
        self.audience = audience
        self.when = when
        self.number = number
        self.keys = keys
        self.sender = sender
        self.is_text = message.command in _TEXTS and sender is not None
        self.needs = _NEEDS.get(message.command, 0)
        self.label = NO_LABEL
        self.client_tags = b""  # tags that the sender has given it, serialized
        self.extended = b""
        self.waiting_for = 0
        self._sender_tags = sender.tags if sender is not None else ()
        self._tags: Optional[Tuple[Tag, ...]] = None

    def render(self, caps: int, lobby: str, me: str = "", tags: Tuple[Tag, ...] = ()) -> bytes:
        """Return its line for clients with these capabilities, b"" if they are not told.

        `me` is the nickname and `tags` are more tags of the only client that it is rendered for.
        """
        if caps & self.needs != self.needs:
            return b""
        if caps & PLAIN_TEXT:
            message = protocol.clean_message(self.message)
            shown = describe_with_channel(message, me, self.when, lobby)
            return (str(shown) + "\r\n").encode("utf-8") if shown else b""
        tags += self._tags or self._make_tags()
        data = b";".join([tag for needs, tag in tags if caps & needs == needs])
        line = self.extended if self.extended and caps & EXTENDED_JOIN else self.line
        return b"@" + data + b" " + line if data else line

    def render_own(self, client: Client, lobby: str) -> bytes:
        """Return its line for its sender: an echo, and if it wrote to itself what it receives."""
        message, caps, data = self.message, client.caps, self.label.opening
        is_received = self.is_text and message.params[0] == message.nickname
        wants_echo = not self.is_text or caps & ECHO_MESSAGE
        if wants_echo or (caps & PLAIN_TEXT and not is_received):
            data += self.render(caps, lobby, message.nickname, self.label.tags)
        if is_received:
            data += self.render(caps, lobby)
        return data

    def rows(self) -> List["Row"]:
        """Return what the history keeps of it."""
        tags = b"@" + self.client_tags + b" " if self.client_tags else b""
        line = tags + self.line[:-2] if len(tags) <= MAX_KEPT_TAGS else self.line[:-2]
        command, waiting_for = self.message.command, self.waiting_for
        return [Row(self.number, self.when, key, command, line, waiting_for) for key in self.keys]

    def _make_tags(self) -> Tuple[Tag, ...]:
        tags = [make_tag("time", protocol.format_time(self.when), SERVER_TIME)]
        if self.number and "!" in self.message.source:
            tags.append(make_tag("msgid", str(self.number), MESSAGE_TAGS))
        if self.client_tags:
            tags.append((MESSAGE_TAGS, self.client_tags))
        self._tags = (*tags, *self._sender_tags)
        return self._tags


class Output:
    """Bytes for one client, in their place among the events.

    `make` may take long, so it runs after the directory's lock was released, in the first thread
    that needs the data.
    """

    __slots__ = ("_data", "_make", "client")

    def __init__(
        self,
        client: Client,
        data: Optional[bytes] = None,
        make: Optional[Callable[[], bytes]] = None,
    ) -> None:
        self.client = client
        self._data = data
        self._make = make

    @property
    def data(self) -> bytes:
        """The bytes."""
        if self._data is None and self._make is not None:
            self._data = self._make()
        return self._data or b""


class Label(NamedTuple):
    """The beginning of a message that answers a labeled command."""

    opening: bytes  # the line that opens the batch, for its first message
    tags: Tuple[Tag, ...]


NO_LABEL = Label(b"", ())
Reply = Tuple[str, ...]  # command, parameters


class Response:
    """The replies to a command, collected until it is done. Used by the client's own thread.

    A label is answered once: by ACK, by the one message that there is, or by a batch
    (https://ircv3.net/specs/extensions/labeled-response). Events that are part of the answer,
    such as an echo, take the label before they are posted.
    """

    def __init__(self, client: Client, server_name: str, lobby: str) -> None:
        self.client = client
        self.is_long = False  # more than one message will answer
        self._server_name = server_name
        self._lobby = lobby
        self._label = ""  # not answered yet
        self._batch = ""  # reference of the batch that answers
        self._references = itertools.count(1)
        self._opening = b""  # the line that opens the batch, not sent yet
        self._replies: List[Event] = []

    def begin(self, label: str) -> None:
        """Start the answer to a command with that label, "" if it has none."""
        self._label = label
        self.is_long = False

    def reply(self, command: str, *params: str, source: str = "") -> None:
        """Add a reply. Numerics and notices get the client's nickname as first parameter."""
        self.add(self._make_event((command, *params), source))

    def add(self, event: Event) -> None:
        """Add an event for this client alone."""
        self._replies.append(event)

    def open_batch(self, kind: str, *params: str) -> None:
        """Answer with a batch of that kind, if the client knows batches."""
        if self.client.caps & BATCH:
            label, self._label = self._label, ""
            self._batch = "b%d" % next(self._references)
            tags = (make_tag("label", label),) if label else ()
            self._opening = self._render(("BATCH", "+" + self._batch, kind, *params), tags)

    def take_label(self, more: bool) -> Label:
        """Return the beginning of the next message of the answer; `more` will follow it."""
        if self._label and (more or self.is_long):
            self.open_batch("labeled-response")
        label, self._label = self._label, ""
        if label:
            return Label(b"", (make_tag("label", label),))
        opening, self._opening = self._opening, b""
        return Label(opening, (make_tag("batch", self._batch),) if self._batch else ())

    def defer(self, make: Callable[[], Iterable[Reply]]) -> Output:
        """Return replies that are made later, for a place among the events."""
        first, rest = self.take_label(True), self.take_label(True)

        def render() -> bytes:
            replies = enumerate(make())
            lines = [self._render(reply, rest.tags if i else first.tags) for i, reply in replies]
            return first.opening + b"".join(lines)

        return Output(self.client, make=render)

    def flush(self, is_done: bool = True) -> Tuple[bytes, int]:
        """Return what was added, and the number of lines; `is_done` ends the answer."""
        replies, self._replies = self._replies, []
        more, data = len(replies) > 1 or not is_done, []
        for event in replies:
            opening, tags = self.take_label(more)
            data.append(opening + self._render_event(event, tags))
        if is_done and self._label:
            data.append(self._render(("ACK",), self.take_label(False).tags))
        elif is_done and self._batch:
            data += [self._opening, self._render(("BATCH", "-" + self._batch), ())]
            self._opening, self._batch = b"", ""
        return b"".join(data), len(replies)

    def _make_event(self, reply: Reply, source: str = "") -> Event:
        command, *params = reply
        if command.isdigit() or command == "NOTICE":
            params.insert(0, self.client.nickname or "*")
        params[:-1] = map(protocol.to_middle, params[:-1])
        if not source and command not in ("ERROR", "PING"):
            source = self._server_name
        return Event(Message(command, tuple(params), source), (self.client,), time.time())

    def _render_event(self, event: Event, tags: Tuple[Tag, ...]) -> bytes:
        return event.render(self.client.caps, self._lobby, self.client.nickname, tags)

    def _render(self, reply: Reply, tags: Tuple[Tag, ...]) -> bytes:
        return self._render_event(self._make_event(reply), tags)


def names_replies(client: Client, channel: Channel, members: Iterable[Client]) -> List[Reply]:
    """Return 353, with as many names as surely fit into a line, and 366."""
    with_hosts = client.caps & USERHOST_IN_NAMES
    shows_all = channel.shows_all(client)
    words = (
        member_prefix(client, channel.members.get(member, 0))
        + (member.source if with_hosts else member.nickname)
        for member in members
        if shows_all or "i" not in member.modes
    )
    kind = "@" if "s" in channel.flags else "="
    texts = protocol.pack(words, " ", NAMES_SIZE)
    replies: List[Reply] = [("353", kind, channel.name, text) for text in texts]
    return [*replies, ("366", channel.name, "End of /NAMES list")]


def topic_replies(channel: Channel) -> List[Reply]:
    """Return 332 and 333, or nothing if there is no topic."""
    topic = channel.topic
    if not topic.text:
        return []
    by = ("333", channel.name, topic.by, str(int(topic.at)))
    return [("332", channel.name, topic.text), by]


def member_prefix(client: Client, bits: int) -> str:
    """Return the signs of a member with these bits as `client` sees them."""
    prefix = _PREFIXES[bits]
    return prefix if client.caps & MULTI_PREFIX else prefix[:1]


class ChannelRecord(NamedTuple):
    """A channel for the store to save; None to delete it, and if it was evicted its history."""

    key: str
    state: Optional[Dict[str, Any]]
    is_evicted: bool = False


class Ending(NamedTuple):
    """A step of a connection's end, when all that was posted before has been sent.

    FINISH tells the client that no more comes, SEVER also wakes its thread, ABORT does so
    without sending what is left, CLOSE gives the descriptor back.
    """

    client: Client
    how: str


FINISH, SEVER, ABORT, CLOSE = "finish", "sever", "abort", "close"
Work = Union[Event, Output, ChannelRecord, Ending, threading.Event]  # the last is a barrier


