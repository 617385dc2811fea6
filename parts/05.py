# The directory
# -------------


class FormerUser(NamedTuple):
    """A user who had a nickname."""

    nickname: str
    username: str
    host: str
    realname: str
    left_at: float  # seconds since 1970


class Joined(NamedTuple):
    """A client has joined a channel."""

    number: int  # of the event
    left: int  # number at which it had left the channel before, 0 if it had not
    size: int  # members now


class Directory:
    """The users, by nickname, and the channels.

    Any thread may call its methods. Each is atomic and does no I/O. What others are told of a
    change is numbered and posted before the lock is released: the order of events is the order
    of changes. A method that raises ReplyError has changed nothing. `response` is that of the
    client that acts: an event that answers its command takes the label.
    """

    def __init__(
        self, post: Callable[[Work], None], server_name: str, lobby: str, last_number: int
    ) -> None:
        self._lock = threading.Lock()  # guards all below, and the marked parts of Client
        self._queue = post  # only appends to a queue
        self._server_name = server_name
        self._lobby = protocol.casefold(lobby)
        self._last_number = last_number
        self._clients: Dict[str, Client] = {}  # by casefolded nickname
        self._channels: Dict[str, Channel] = {}  # by casefolded name
        self._abandoned: Dict[str, None] = {}  # empty channels without owner, oldest first
        self._watchers: Dict[str, Set[Client]] = {}  # by casefolded nickname
        self._tokens: Dict[str, Client] = {}
        self._former: Deque[FormerUser] = collections.deque(maxlen=MAX_WHOWAS)
        self._is_closing = False
        self.most_users = 0  # at once

    def post(self, message: Message, audience: Tuple[Client, ...], needs: int = 0) -> None:
        """Send a message to the clients that have the capabilities `needs`."""
        with self._lock:
            self._post(message, audience, needs=needs)

    # Users

    def claim(self, client: Client, nickname: str, response: Response) -> Optional[Client]:
        """Give `client` the nickname, in place of any it has. Raises ReplyError 433.

        The owner of its account takes it from its holder, who is removed and returned: the
        caller ends that connection.
        """
        key = protocol.casefold(nickname)
        with self._lock:
            self._check_end(client)
            holder = self._clients.get(key)
            if holder is client:
                holder = None
            if holder is not None:
                if not client.owns(nickname):
                    raise ReplyError("433", nickname, "Nickname is already in use")
                holder.end = holder.end or "%s has logged in elsewhere" % nickname
                self._remove(holder, "Logged in elsewhere")
            self._rename(client, nickname, key, response)
            return holder

    def _rename(self, client: Client, nickname: str, key: str, response: Response) -> None:
        old, old_key = client.nickname, client.key
        if nickname == old:
            return
        if client.registered:
            keys = tuple(channel.key for channel in client.channels)
            message = Message("NICK", (nickname,), client.source)
            self._post(message, self._peers(client), client, keys, response)
            if key != old_key:
                self._remember(client)
                self._tell_watchers(client, False)
        if old:
            del self._clients[old_key]
        if key != old_key:
            client.named_since = self._next_number()
        self._clients[key] = client
        client.nickname = nickname
        client.refresh()
        if client.registered and key != old_key:
            self._tell_watchers(client, True)

    def release(self, client: Client) -> None:
        """Take the nickname from a client that has not registered."""
        with self._lock:
            self._check_end(client)
            if not client.registered and client.nickname:
                del self._clients[client.key]
                client.nickname = ""

    def register(self, client: Client, token: str) -> None:
        """Let a client that has a nickname in."""
        with self._lock:
            self._check_end(client)
            client.refresh()
            client.registered = True
            self._set_token(client, token)
            self._tell_watchers(client, True)
            self.most_users = max(self.most_users, len(self._users()))

    def resume(self, client: Client, token: str, new_token: str) -> Optional[Client]:
        """Make `client` the user who has the token; nobody is told.

        Returns the former client, as `claim` does; None if there is no such token.
        """
        with self._lock:
            self._check_end(client)
            old = self._tokens.get(token)
            if old is None or old.end:  # a user who was removed comes back by no token
                return None
            old.end = "Connected again"
            del self._tokens[token]
            if client.nickname:
                self._clients.pop(client.key, None)
            for name in Client.IDENTITY:
                setattr(client, name, getattr(old, name))
            self._clients[client.key] = client
            for channel in client.channels:
                channel.replace(old, client)
            for key in client.watches:
                self._watchers[key].add(client)
                self._watchers[key].discard(old)
            old.channels, old.watches, old.registered = set(), {}, False  # no user any more
            old.nickname = old.token = ""
            client.refresh()
            self._set_token(client, new_token)
            return old

    def _set_token(self, client: Client, token: str) -> None:
        client.token = token
        if token:
            self._tokens[token] = client

    def remove(self, client: Client, reason: str) -> None:
        """Forget a client; its nickname is free. Idempotent."""
        with self._lock:
            self._remove(client, reason)

    def _remove(self, client: Client, reason: str) -> None:
        if client.registered:
            if not self._is_closing:
                audience = tuple(peer for peer in self._peers(client) if peer is not client)
                keys = tuple(channel.key for channel in client.channels)
                message = Message("QUIT", (reason,), client.source)
                self._post(message, audience, client, keys)
                self._tell_watchers(client, False)
            self._remember(client)
        for channel in list(client.channels):
            self._leave(client, channel)
        for key in client.watches:
            self._unwatch(client, key)
        client.watches = {}
        self._tokens.pop(client.token, None)
        if self._clients.get(client.key) is client:  # and not the owner, who has taken it since
            del self._clients[client.key]
        client.registered = False

    def log_in(self, client: Client, account: "Account") -> None:
        """Make the client the account's; it keeps its nickname."""
        with self._lock:
            self._check_end(client)
            self._set_account(client, account)

    def update_accounts(self, accounts: Mapping[int, "Account"]) -> None:
        """Apply what another process has changed: these are all accounts now, by id."""
        with self._lock:
            for channel in self._channels.values():
                channel.operators &= accounts.keys()
            for client in list(self._clients.values()):
                if client.account is None or client.account == accounts.get(client.account.id):
                    continue
                account = accounts.get(client.account.id)
                if account is None and client.registered:
                    params = (client.nickname, client.source, "You are now logged out")
                    self._post(Message("901", params, self._server_name), (client,))
                self._set_account(client, account)

    def _set_account(self, client: Client, account: Optional["Account"]) -> None:
        old_name, old_modes = client.account_name, client.modes
        client.account = account
        client.modes -= {"o"}
        if account is not None and account.is_operator:
            client.modes |= {"o"}
        client.refresh()
        if not client.registered:
            return
        if client.account_name != old_name:
            message = Message("ACCOUNT", (client.account_name or "*",), client.source)
            self._post_to_peers(client, message)
        if client.modes != old_modes:
            params = (client.nickname, "+o" if client.is_operator else "-o")
            self._post(Message("MODE", params, client.source), (client,))

    def set_away(self, client: Client, reason: str) -> None:
        """Mark the user as away, or with "" as back."""
        with self._lock:
            client.away = reason
            params = (reason,) if reason else ()
            self._post_to_peers(client, Message("AWAY", params, client.source))

    def set_realname(self, client: Client, realname: str, response: Response) -> None:
        with self._lock:
            client.realname = realname
            message = Message("SETNAME", (realname,), client.source)
            self._post_to_peers(client, message, response)

    def set_modes(self, client: Client, modes: FrozenSet[str]) -> None:
        """Change the modes of a user; nobody is told."""
        with self._lock:
            client.modes = modes
            client.refresh()

    def find(self, nickname: str) -> Optional[Client]:
        """Return the registered client with that nickname."""
        with self._lock:
            return self._find(nickname)

    def get(self, nickname: str) -> Client:
        """Return the registered client with that nickname. Raises ReplyError 401."""
        with self._lock:
            return self._get(nickname)

    def users(self) -> List[Client]:
        """Return all registered clients."""
        with self._lock:
            return self._users()

    def former_users(self, nickname: str) -> List[FormerUser]:
        """Return the users who had that nickname, the latest first."""
        key = protocol.casefold(nickname)
        with self._lock:
            former = list(self._former)
        return [user for user in reversed(former) if protocol.casefold(user.nickname) == key]

    def watch(self, client: Client, nickname: str) -> None:
        """Tell `client` when a user with that nickname comes or goes (MONITOR)."""
        key = protocol.casefold(nickname)
        with self._lock:
            self._check_end(client)
            client.watches[key] = nickname
            self._watchers.setdefault(key, set()).add(client)

    def unwatch(self, client: Client, nicknames: Iterable[str]) -> None:
        with self._lock:
            for key in map(protocol.casefold, nicknames):
                if client.watches.pop(key, None) is not None:
                    self._unwatch(client, key)

    # Channels

    def restore(self, channel: Channel) -> None:
        """Add a channel from the store."""
        with self._lock:
            channel.is_lobby = channel.key == self._lobby
            self._channels[channel.key] = channel
            self._drop_if_empty(channel)

    def join(
        self, client: Client, name: str, password: str, response: Response
    ) -> Optional[Joined]:
        """Add `client` to a channel, created if need be, and tell it who is there.

        Returns None if it was there already. Raises ReplyError 405, 471, 473, 474 or 475.
        """
        key = protocol.casefold(name)
        with self._lock:
            self._check_end(client)
            channel = self._channels.get(key)
            if channel is not None and client in channel.members:
                return None
            if len(client.channels) >= MAX_CHANNELS:
                raise ReplyError("405", name, "You have joined too many channels")
            if channel is None:
                if len(self._channels) >= MAX_ALL_CHANNELS:
                    raise ReplyError("405", name, "The server has as many channels as it can")
                channel = self._channels[key] = Channel(name, key == self._lobby)
            # An empty channel stays closed to those that its modes keep out: so does its history.
            is_founder = not (channel.members or channel.has_owner)
            bits = CHANOP if is_founder or channel.has_operator(client) else 0
            channel.check_can_join(client, password)
            channel.add(client, bits)
            self._abandoned.pop(key, None)
            client.invited.discard(channel)
            client.channels.add(channel)
            if bits:
                channel.add_operator(client)
            number = self._post_join(client, channel, channel.audience, response, (key,))
            if client.away:
                others = tuple(member for member in channel.members if member is not client)
                self._post(Message("AWAY", (client.away,), client.source), others, client)
            return Joined(number, client.left.get(key, 0), len(channel.members))

    def rejoin(self, client: Client, response: Response) -> None:
        """Tell a client that has resumed of its channels, as if it had joined them."""
        with self._lock:
            for channel in sorted(client.channels, key=lambda channel: channel.key):
                self._post_join(client, channel, (client,), response)

    def _post_join(
        self,
        client: Client,
        channel: Channel,
        audience: Tuple[Client, ...],
        response: Response,
        keys: Tuple[str, ...] = (),
    ) -> int:
        """Tell of a JOIN, and the client who is there; return the number of the event."""
        message = Message("JOIN", (channel.name,), client.source)
        params = (channel.name, client.account_name or "*", client.realname)
        extended = protocol.fit_line(message._replace(params=params))[1]
        event = self._post(
            message, audience, client, keys, response, more=True, extended=extended
        )
        members = channel.audience
        make = lambda: topic_replies(channel) + names_replies(client, channel, members)  # noqa: E731
        self._queue(response.defer(make))
        return event.number

    def names(self, client: Client, channel: Channel, response: Response) -> None:
        """Tell `client` who is in a channel, in order with joins and leaves."""
        with self._lock:
            make = functools.partial(names_replies, client, channel, channel.audience)
            self._queue(response.defer(make))

    def part(self, client: Client, name: str, reason: str, response: Response) -> None:
        """Remove `client` from a channel. Raises ReplyError 403 or 442."""
        with self._lock:
            channel = self._joined_channel(client, name)
            params = (reason,) if reason else ()
            event = self._post_to_channel(channel, client, response, "PART", *params)
            self._leave(client, channel, event.number)

    def kick(
        self, client: Client, name: str, nickname: str, reason: str, response: Response
    ) -> None:
        """Remove another user from a channel. Raises ReplyError 401, 403, 441, 442 or 482."""
        with self._lock:
            channel = self._operated_channel(client, name)
            other = channel.check_member(self._get(nickname))
            params = (other.nickname, reason or client.nickname)
            event = self._post_to_channel(channel, client, response, "KICK", *params)
            self._leave(other, channel, event.number)

    def invite(self, client: Client, nickname: str, name: str) -> Client:
        """Invite a user to a channel. Raises ReplyError 401, 403, 442, 443 or 482."""
        with self._lock:
            other = self._get(nickname)
            channel = self._joined_channel(client, name)
            if "i" in channel.flags:
                channel.check_chanop(client)
            if other in channel.members:
                raise ReplyError("443", other.nickname, channel.name, "is already on channel")
            if channel.is_chanop(client):  # the invitation of others opens nothing
                other.invited.add(channel)
            message = Message("INVITE", (other.nickname, channel.name), client.source)
            self._post(message, (other,), client)
            members = tuple(member for member in channel.members if member is not client)
            self._post(message, members, client, needs=INVITE_NOTIFY)
            return other

    def invitations(self, client: Client) -> List[str]:
        """Return the names of the channels that `client` is invited to."""
        with self._lock:
            return sorted(channel.name for channel in client.invited)

    def relay(
        self, client: Client, target: str, message: Message, tags: bytes, response: Response
    ) -> str:
        """Send a text from `client`, with its serialized tags, to a channel or a user.

        Returns why that user is away, "" otherwise. Raises ReplyError 401, 403 or 404.
        """
        command, params, away = message.command, message.params, ""
        with self._lock:
            self._check_end(client)
            if target.startswith("#"):
                channel = self._channels.get(protocol.casefold(target))
                if channel is None:
                    raise ReplyError("403", target, "No such channel")
                is_member = client in channel.members
                if not is_member or channel.bans or "m" in channel.flags:
                    channel.check_can_speak(client)
                name, audience, key = channel.name, channel.audience, channel.key
                heard_by = response if is_member else None
            else:
                recipient = self._get(target)
                name, heard_by = recipient.nickname, response
                audience = (client,) if recipient is client else (recipient, client)
                key = private_key(recipient.participant, client.participant)
                if command == "PRIVMSG":
                    away = recipient.away
                if command != "TAGMSG":
                    recipient.correspondent = client.nickname
            keys = (key,) if command != "TAGMSG" else ()
            relayed = Message(command, (name, *params[1:2]), client.source)
            more = bool(away)
            self._post(relayed, audience, client, keys, heard_by, more, client_tags=tags)
            return away

    def store_offline(
        self, client: Client, message: Message, tags: bytes, account: "Account", response: Response
    ) -> bool:
        """Keep a private text for the owner of an account; False if they have come meanwhile."""
        with self._lock:
            self._check_end(client)
            if self._find(account.name) is not None:
                return False
            stored = Message("PRIVMSG", (account.name, message.params[1]), client.source)
            keys = (private_key("=%d" % account.id, client.participant),)
            self._post(
                stored,
                (client,),
                client,
                keys,
                response,
                more=True,
                client_tags=tags,
                waiting_for=account.id,
            )
            return True

    def set_topic(self, client: Client, name: str, topic: str, response: Response) -> None:
        """Raises ReplyError 403, 404, 442 or 482."""
        with self._lock:
            channel = self._joined_channel(client, name)
            channel.check_can_speak(client)
            if "t" in channel.flags:
                channel.check_chanop(client)
            event = self._post_to_channel(channel, client, response, "TOPIC", topic)
            channel.topic = Topic(event.message.text, client.nickname, event.when)
            self._save(channel)

    def change_modes(
        self, client: Client, name: str, changes: List[ModeChange], response: Response
    ) -> List[ReplyError]:
        """Apply the changes that are possible; return the errors of the others.

        Raises ReplyError 403, 442 or 482.
        """
        errors: List[ReplyError] = []
        applied: List[ModeChange] = []
        with self._lock:
            channel = self._operated_channel(client, name)
            for change in changes:
                try:
                    result = channel.change(change, client, self._get)
                except ReplyError as error:
                    errors.append(error)
                else:
                    applied += [result] if result else []
            lines = protocol.split_modes(applied, client.source, channel.name) if applied else []
            response.is_long |= len(lines) + len(errors) > 1
            for params in lines:
                self._post_to_channel(channel, client, response, "MODE", *params)
            self._save(channel)
            self._drop_if_empty(channel)
        return errors

    def channel(self, name: str, client: Optional[Client] = None) -> Optional[Channel]:
        """Return the channel of that name, if `client` may know of it."""
        with self._lock:
            return self._find_channel(client, name)

    def channels(
        self, client: Optional[Client] = None, of: Optional[Client] = None
    ) -> List[Channel]:
        """Return the channels that `client` may know of; only those that `of` is in, if given."""
        with self._lock:
            found = list(self._channels.values() if of is None else of.channels)
            found = [channel for channel in found if self._is_visible(client, channel)]
        return sorted(found, key=lambda channel: channel.key)

    def shared_channel(self, client: Client, other: Client) -> Optional[Channel]:
        """Return a channel that both are in."""
        with self._lock:
            shared = client.channels & other.channels
            return min(shared, key=lambda channel: channel.key, default=None)

    def close(self) -> None:
        """Stop telling others who leaves: everybody does."""
        with self._lock:
            self._is_closing = True

    # The rest is called with the lock held.

    def _next_number(self) -> int:
        """Return the next number: microseconds since 1970, or more if the clock is behind."""
        self._last_number = max(int(time.time() * 1e6), self._last_number + 1)
        return self._last_number

    def _post(
        self,
        message: Message,
        audience: Tuple[Client, ...],
        sender: Optional[Client] = None,
        keys: Tuple[str, ...] = (),
        response: Optional[Response] = None,
        more: bool = False,
        needs: int = 0,
        client_tags: bytes = b"",
        extended: bytes = b"",
        waiting_for: int = 0,
    ) -> Event:
        """Number a message and queue it.

        `response` is that of the sender, if the sender is in the audience; `more` of the answer
        will follow. For the rest see Event.
        """
        event = Event(message, audience, time.time(), self._next_number(), keys, sender)
        event.needs |= needs
        event.extended, event.client_tags, event.waiting_for = extended, client_tags, waiting_for
        if response is not None:
            caps = response.client.caps
            if caps & event.needs == event.needs and (caps & ECHO_MESSAGE or not event.is_text):
                event.label = response.take_label(more)
        self._queue(event)
        return event

    def _post_to_channel(
        self, channel: Channel, client: Client, response: Response, command: str, *params: str
    ) -> Event:
        """Tell a channel, and its history, what `client` does to it."""
        message = Message(command, (channel.name, *params), client.source)
        heard = response if client in channel.members else None
        return self._post(message, channel.audience, client, (channel.key,), heard)

    def _post_to_peers(
        self, client: Client, message: Message, response: Optional[Response] = None
    ) -> None:
        """Tell what has changed about `client` to its peers, and with extended-monitor others."""
        peers = self._peers(client)
        audience = peers
        if message.command == "AWAY":  # its sender has a reply of its own
            audience = tuple(peer for peer in peers if peer is not client)
        self._post(message, audience, client, response=response)
        watchers = self._watchers.get(client.key, set()).difference(peers)
        if watchers:
            self._post(message, tuple(watchers), client, needs=EXTENDED_MONITOR)

    def _tell_watchers(self, client: Client, is_online: bool) -> None:
        numeric, who = ("730", client.source) if is_online else ("731", client.nickname)
        for watcher in self._watchers.get(client.key, ()):
            self._post(Message(numeric, (watcher.nickname, who), self._server_name), (watcher,))

    def _save(self, channel: Channel) -> None:
        """Have the store keep the channel as it is now, or delete it if it is not persistent."""
        if channel.is_persistent or channel.is_saved:
            channel.is_saved = channel.is_persistent
            self._queue(ChannelRecord(channel.key, channel.state() if channel.is_saved else None))

    def _check_end(self, client: Client) -> None:
        """Raise Disconnect for a client that was removed: another may have its nickname."""
        if client.end:
            raise Disconnect(client.end)

    def _users(self) -> List[Client]:
        return [client for client in self._clients.values() if client.registered]

    def _find(self, nickname: str) -> Optional[Client]:
        client = self._clients.get(protocol.casefold(nickname))
        return client if client is not None and client.registered else None

    def _get(self, nickname: str) -> Client:
        """Raises ReplyError 401."""
        client = self._find(nickname)
        if client is None:
            raise ReplyError("401", nickname, "No such nick")
        return client

    def _is_visible(self, client: Optional[Client], channel: Channel) -> bool:
        is_public = client is None or "s" not in channel.flags or client.is_operator
        return is_public or client in channel.members

    def _find_channel(self, client: Optional[Client], name: str) -> Optional[Channel]:
        channel = self._channels.get(protocol.casefold(name))
        return channel if channel is not None and self._is_visible(client, channel) else None

    def _joined_channel(self, client: Client, name: str) -> Channel:
        """Return a channel that `client` is in. Raises ReplyError 403 or 442."""
        channel = self._find_channel(client, name)
        if channel is None:
            raise ReplyError("403", name, "No such channel")
        if client not in channel.members:
            raise ReplyError("442", channel.name, "You're not on that channel")
        return channel

    def _operated_channel(self, client: Client, name: str) -> Channel:
        """Return a channel that `client` is a chanop of. Raises ReplyError 403, 442 or 482."""
        channel = self._find_channel(client, name)
        if channel is None or not client.is_operator:
            channel = self._joined_channel(client, name)
        channel.check_chanop(client)
        return channel

    def _peers(self, client: Client) -> Tuple[Client, ...]:
        """Return all who share a channel with `client`, and itself, once each."""
        if len(client.channels) == 1:
            return next(iter(client.channels)).audience
        peers = {client: 0}
        for channel in client.channels:
            peers.update(channel.members)
        return tuple(peers)

    def _unwatch(self, client: Client, key: str) -> None:
        watchers = self._watchers.get(key, set())
        watchers.discard(client)
        if not watchers:
            self._watchers.pop(key, None)

    def _remember(self, client: Client) -> None:
        names = (client.nickname, client.username, client.host, client.realname)
        self._former.append(FormerUser(*names, left_at=time.time()))

    def _leave(self, client: Client, channel: Channel, number: int = 0) -> None:
        """Remove a client from a channel; `number` is that of the event, if it stays online."""
        if number:
            client.left.pop(channel.key, None)
            while len(client.left) >= MAX_CHANNELS:
                del client.left[next(iter(client.left))]
            client.left[channel.key] = number
        channel.discard(client)
        client.channels.discard(channel)
        self._drop_if_empty(channel)

    def _drop_if_empty(self, channel: Channel) -> None:
        """Delete an empty channel unless it is persistent; keep so many of guests, the latest."""
        if channel.members:
            return
        self._abandoned.pop(channel.key, None)
        if not channel.is_persistent:
            del self._channels[channel.key]
        elif not channel.has_owner:
            self._abandoned[channel.key] = None
            if len(self._abandoned) > MAX_ABANDONED:
                key = next(iter(self._abandoned))
                del self._abandoned[key], self._channels[key]
                self._queue(ChannelRecord(key, None, is_evicted=True))


