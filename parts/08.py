# The delivery
# ------------


class Journal(threading.Thread):
    """The thread `history`: writes to disk what the delivery is about to send, in that order.

    A disk that is slow, full or broken holds up nobody: `write` waits PATIENCE, then what waits
    for the disk is kept in a bounded list, and `on_change` is told why, once; and "" once it is
    all written. It also deletes what is too old, and looks for accounts that another process has
    changed, for `on_accounts`.
    """

    def __init__(
        self,
        store: "Store",
        on_change: Callable[[str], None],
        on_accounts: Callable[[Mapping[int, "Account"]], None],
    ) -> None:
        # Daemon: a disk that never answers must not keep the server from ending.
        super().__init__(name="history", daemon=True)
        self._store = store
        self._on_change = on_change
        self._on_accounts = on_accounts
        self._changed = threading.Condition()  # guards all below
        self._waiting: List[Union[Row, ChannelRecord]] = []
        self._error = ""  # of the last attempt
        self._is_stopping = False
        self.fault = ""  # why nothing is being kept, as `on_change` was told
        self._clean_at = 0.0  # monotonic; for the thread alone

    def write(self, work: List[Union[Row, ChannelRecord]]) -> None:
        """Return when `work` is on disk, or when it is clear that it will not be soon."""
        with self._changed:
            self._waiting += work[: MAX_BACKLOG - len(self._waiting)]
            self._changed.notify_all()
            if not self.fault:
                is_settled = lambda: not self._waiting or self._error  # noqa: E731
                if not self._changed.wait_for(is_settled, PATIENCE):
                    self._error = "the disk does not answer"
            fault = self._error if self._waiting else ""
        if fault != self.fault:
            is_news = bool(fault) != bool(self.fault)
            self.fault = fault
            if is_news:
                self._on_change(fault)

    def stop(self) -> None:
        """Write what waits, and end the thread."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        self.join(PATIENCE)

    def run(self) -> None:
        upkeep_at = 0.0
        while not self._is_stopping or (self._waiting and not self._error):
            if time.monotonic() >= upkeep_at:
                self._do_upkeep()
                upkeep_at = time.monotonic() + UPKEEP_INTERVAL
            with self._changed:
                is_due = lambda: self._is_stopping or self._waiting  # noqa: E731
                self._changed.wait_for(is_due, UPKEEP_INTERVAL)
                work = self._waiting[:]
            error = self._commit(work) if work else ""
            with self._changed:
                if not error:
                    del self._waiting[: len(work)]
                self._error = error
                self._changed.notify_all()
                if error:
                    self._changed.wait_for(lambda: self._is_stopping, RETRY_AFTER)

    def _commit(self, work: List[Union[Row, ChannelRecord]]) -> str:
        """Write in order; return the error, "" if there was none."""
        try:
            for is_row, run in itertools.groupby(work, lambda item: isinstance(item, Row)):
                items = list(run)
                if is_row:
                    self._store.append([item for item in items if isinstance(item, Row)])
                for item in items:
                    if isinstance(item, ChannelRecord) and item.state is not None:
                        self._store.save_channel(item.key, item.state)
                    elif isinstance(item, ChannelRecord):
                        self._store.delete_channel(item.key, item.is_evicted)
        except StoreError as error:
            return str(error)
        return ""

    def _do_upkeep(self) -> None:
        try:
            if time.monotonic() >= self._clean_at and not self._store.clean():
                self._clean_at = time.monotonic() + CLEANING_INTERVAL
            if self._store.accounts_changed():
                accounts = self._store.accounts()
                self._on_accounts({account.id: account for account in accounts})
        except StoreError as error:
            log.warning("cannot look after the store: %s", error)


class Delivery(threading.Thread):
    """The one thread that writes: takes all that waits, then sends each outbox at once."""

    def __init__(self, max_sendq: int, journal: Optional[Journal], lobby: str) -> None:
        super().__init__(name="delivery")
        self._journal = journal
        self._lobby = lobby
        self._max_sendq = max_sendq or sys.maxsize
        self._pending: Deque[Work] = collections.deque()  # appended to by all threads
        self._drained = threading.Condition()  # readers wait here for a shorter queue
        self._is_asleep = False  # True while it waits in select, and a byte must wake it
        self._is_stopping = False
        self._woken, self._waker = socket.socketpair()
        for end in (self._woken, self._waker):
            end.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._touched: Dict[Client, None] = {}  # those with something to send, or to shut down
        self.count = 0  # items delivered

    # For all threads

    def post(self, work: Work) -> None:
        """Queue `work`. Never blocks and wakes nobody: call `wake` when all is posted."""
        self._pending.append(work)

    def wake(self) -> None:
        """Deliver what was posted."""
        if self._is_asleep:
            self._is_asleep = False
            with contextlib.suppress(OSError):  # full of wake-ups, or closed: both are fine
                self._waker.send(b"!")

    @property
    def waiting(self) -> int:
        """The number of items not delivered yet."""
        return len(self._pending)

    def wait(self) -> None:
        """Wake it, and wait while its queue is longer than MAX_PENDING: for readers."""
        self.wake()
        if len(self._pending) > MAX_PENDING:
            with self._drained:
                self._drained.wait_for(lambda: len(self._pending) <= MAX_PENDING)

    def sync(self) -> None:
        """Wait until all that was posted is stored and sent: PATIENCE at most."""
        barrier = threading.Event()
        self._pending.append(barrier)
        self.wake()
        barrier.wait(PATIENCE)

    def stop(self) -> None:
        """End the thread when all that was posted has been delivered, and wait for it."""
        self._is_stopping = True
        self._is_asleep = True  # so that it is woken in any case
        self.wake()
        self.join()
        self._selector.close()
        self._woken.close()
        self._waker.close()

    # For its own thread

    def run(self) -> None:
        while self._pending or not self._is_stopping:
            try:
                batch = self._take()
                self._store(batch)
                self._deliver(batch)
                self._flush()
                for work in batch:
                    if isinstance(work, threading.Event):
                        work.set()
                if len(batch) > 1:  # busy: larger batches cost less, and one message no delay
                    time.sleep(PAUSE)
                self._poll()
            except Exception:
                log.exception("delivery failed; it goes on with what comes next")

    def _take(self) -> List[Work]:
        pending = self._pending
        batch = [pending.popleft() for _ in range(min(len(pending), MAX_BATCH))]
        self.count += len(batch)
        if batch and len(pending) <= MAX_PENDING < len(pending) + len(batch):
            with self._drained:
                self._drained.notify_all()
        return batch

    def _poll(self) -> None:
        """Send to those who can take more; sleep if there is nothing to do."""
        if not self._pending:
            self._is_asleep = True
        is_idle = self._is_asleep and not self._pending and not self._is_stopping
        if is_idle or len(self._selector.get_map()) > 1:
            for key, _ in self._selector.select(None if is_idle else 0):
                if key.data is not None:
                    self._send(key.data)
                else:
                    self._woken.recv(4096)
        self._is_asleep = False

    def _store(self, batch: List[Work]) -> None:
        """Have the history keep what it is to keep of a batch."""
        if self._journal is None:
            return
        kept: List[Union[Row, ChannelRecord]] = []
        for work in batch:
            if isinstance(work, Event):
                if work.keys:
                    kept += work.rows()
            elif isinstance(work, ChannelRecord):
                kept.append(work)
        if kept:
            self._journal.write(kept)

    def _deliver(self, batch: List[Work]) -> None:
        """Put what is on disk now into the outboxes; carry out endings."""
        for audience, run in itertools.groupby(batch, _audience_id):
            if audience:
                self._put([work for work in run if isinstance(work, Event)])
                continue
            for work in run:
                try:
                    if isinstance(work, Output):
                        self._append(work.client, work.data)
                    elif isinstance(work, Ending):
                        self._end(work)
                except Exception:
                    log.exception("our mistake: %.200r", work)

    def _put(self, events: List[Event]) -> None:
        """Put events of one audience into its outboxes, rendered once per set of capabilities."""
        lines: Dict[int, List[bytes]] = {}  # of all events, by capabilities
        joined: Dict[int, bytes] = {}
        own: Dict[Client, List[int]] = {}  # senders, and the events that look different to them
        for index, event in enumerate(events):
            if event.sender is not None and (event.is_text or event.label is not NO_LABEL):
                own.setdefault(event.sender, []).append(index)
        for client in events[0].audience:
            caps = client.caps
            if caps not in lines:
                lines[caps] = [self._render(event, caps) for event in events]
                joined[caps] = b"".join(lines[caps])
            data = joined[caps]
            if client in own:
                pieces = lines[caps].copy()
                for index in own[client]:
                    pieces[index] = self._render(events[index], caps, client)
                data = b"".join(pieces)
            self._append(client, data)

    def _render(self, event: Event, caps: int, sender: Optional[Client] = None) -> bytes:
        try:
            if sender is not None:
                return event.render_own(sender, self._lobby)
            return event.render(caps, self._lobby)
        except Exception:  # this event is lost then, but none beside it
            log.exception("our mistake: %.200r", event.message)
            return b""

    def _append(self, client: Client, data: bytes) -> None:
        if data and not client.closed and client.finishing is None:
            client.outbox.append(data)
            client.queued += len(data)
            self._touched[client] = None
            if client.blocked and client.queued > self._max_sendq:
                self._abort(client, "SendQ exceeded")

    def _flush(self) -> None:
        """Send all outboxes into which something was put, as far as their sockets take it."""
        touched, self._touched = self._touched, {}
        for client in touched:
            if not client.closed and not client.blocked:
                self._send(client)

    def _send(self, client: Client) -> None:
        """Send what the socket takes; wait for writability if it does not take all."""
        data = b"".join(client.outbox)
        try:
            sent = client.writer.send(data) if data else 0
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._abort(client, error.strerror or "Connection lost")
            return
        client.queued = len(data) - sent
        client.outbox[:] = [memoryview(data)[sent:]] if client.queued else []
        self._watch(client, bool(client.queued))
        if client.queued > self._max_sendq:
            self._abort(client, "SendQ exceeded")
        elif not client.queued and client.finishing is not None:
            self._shutdown(client, client.finishing)

    def _watch(self, client: Client, blocked: bool) -> None:
        if blocked and not client.blocked:
            self._selector.register(client.reader, selectors.EVENT_WRITE, client)
        elif client.blocked and not blocked:
            self._selector.unregister(client.reader)
        client.blocked = blocked

    def _end(self, ending: Ending) -> None:
        client = ending.client
        if ending.how == CLOSE:
            if not client.closed:
                if not client.blocked:
                    self._send(client)
                self._abort(client, "")
            client.writer.detach()
            client.reader.close()
        elif ending.how == ABORT:
            self._abort(client, "")
        elif not client.closed:
            client.finishing = socket.SHUT_WR if ending.how == FINISH else socket.SHUT_RDWR
            self._touched[client] = None  # sending finds the outbox empty, and shuts down

    def _abort(self, client: Client, reason: str) -> None:
        """Send no more, and let the client's thread find the end of its stream."""
        self._watch(client, False)
        client.outbox.clear()
        client.queued = 0
        client.closed = True
        client.end = client.end or reason
        self._shutdown(client, socket.SHUT_RDWR)

    def _shutdown(self, client: Client, how: int) -> None:
        with contextlib.suppress(OSError):  # the peer was faster
            client.reader.shutdown(how)


def _audience_id(work: Work) -> int:
    """Return what events of one audience have in common; 0 for other work."""
    return id(work.audience) if isinstance(work, Event) else 0


