# The store
# ---------

STORE_FILE = "hubbub.db"
SCHEMA_VERSION = 1  # PRAGMA user_version; files of other versions are not read
# Conversations are channels and pairs of people. A message is stored once for each of its
# conversations, in the one B-tree from which it is read again: texts and other events apart, so
# that the latest texts are found at once among thousands of joins. A deleted channel keeps its
# row, without a key, until its messages are deleted in small steps. `revision` counts changes of
# accounts and sanctions, so that a server notices those of other processes. The cost of a
# password's hash (SCRYPT) is part of the version.
SCHEMA = """
    CREATE TABLE conversations (id INTEGER PRIMARY KEY, key TEXT UNIQUE);
    CREATE TABLE participants (participant TEXT NOT NULL, conversation INTEGER NOT NULL,
                               PRIMARY KEY (participant, conversation)) WITHOUT ROWID;
    CREATE TABLE messages (conversation INTEGER NOT NULL, kind INTEGER NOT NULL,
                           number INTEGER NOT NULL, time REAL NOT NULL, command TEXT NOT NULL,
                           line BLOB NOT NULL,
                           PRIMARY KEY (conversation, kind, number)) WITHOUT ROWID;
    CREATE TABLE waiting (account INTEGER NOT NULL, number INTEGER NOT NULL,
                          conversation INTEGER NOT NULL,
                          PRIMARY KEY (account, number)) WITHOUT ROWID;
    CREATE TABLE accounts (id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE,
                           name TEXT NOT NULL, is_operator INTEGER NOT NULL, created REAL NOT NULL,
                           salt BLOB NOT NULL, digest BLOB NOT NULL);
    CREATE TABLE channels (key TEXT PRIMARY KEY, state TEXT NOT NULL);
    CREATE TABLE sanctions (kind TEXT NOT NULL, target TEXT NOT NULL, until REAL NOT NULL,
                            reason TEXT NOT NULL, by TEXT NOT NULL, at REAL NOT NULL,
                            PRIMARY KEY (kind, target));
    CREATE TABLE revision (number INTEGER NOT NULL);
    INSERT INTO revision VALUES (1)
"""
TEXT, EVENT = 0, 1  # kinds of messages

DISK_TIMEOUT = 5.0  # seconds to wait for a turn at the disk, before it counts as stuck
LOCK_TIMEOUT = 1.0  # seconds that a server waits for another process's write
ROWS_AT_ONCE = 150  # rows in one INSERT; SQLite takes 999 values at least
CHECKED_SIZE = 64 * 1024 * 1024  # bytes of a file that is checked as a whole at the start
CLEANED_AT_ONCE = 2000  # rows deleted in one step of cleaning
CONVERSATIONS_AT_ONCE = 500  # conversations looked at in one step of cleaning
CACHED_CONVERSATIONS = 10000
MAX_WAITING = 500  # messages that wait for one account
SCRYPT = (2**14, 8, 1)  # n, r and p: 16 MiB and some 50 ms for each password
HASHES_AT_ONCE = 2  # passwords that are hashed at the same time


class StoreError(Exception):
    """The disk cannot be read or written; the text is for users."""


class DamagedError(StoreError):
    """The file cannot be used. The text, for the host, has the command that moves it aside."""

    def __init__(self, path: str, reason: str) -> None:
        aside = path + time.strftime(".%Y%m%d-%H%M%S")
        if sys.platform == "win32":
            command = 'move "%s" "%s"' % (path, aside)
        else:
            command = "mv %s %s" % (shlex.quote(path), shlex.quote(aside))
        text = "cannot use %s: %s. To begin with an empty one, move it aside: %s"
        super().__init__(text % (path, reason, command))


class FolderTakenError(StoreError):
    """Another server uses the data folder; the text is for the host."""


class AccountExistsError(StoreError):
    """The user's fault: the name has an account."""

    def __init__(self, name: str) -> None:
        super().__init__("%s has an account already." % name)


class PasswordError(StoreError):
    """The user's fault: the password is not allowed; the text says why."""


class Row(NamedTuple):
    """A message of one conversation in the history."""

    number: int  # grows with each message
    time: float  # seconds since 1970
    key: str  # the conversation: a channel's key, or two participants with a space between
    command: str
    line: bytes  # with the tags that are kept, without CRLF
    waiting_for: int = 0  # the id of the account that it waits for


class Account(NamedTuple):
    """A registered name."""

    id: int  # never used again for another account
    name: str
    is_operator: bool
    created: float  # seconds since 1970


class Sanction(NamedTuple):
    """A ban or mute for the whole server."""

    kind: str  # "ban" or "mute"
    target: str  # as given by `normalize_target`
    until: float  # seconds since 1970; 0 is forever
    reason: str
    by: str
    at: float  # seconds since 1970

    def is_in_force(self, now: float) -> bool:
        return not 0 < self.until <= now


class _Secret(NamedTuple):
    """An account and the hash of its password."""

    account: Account
    salt: bytes
    digest: bytes


# Stands in for names without an account, so that they cost the same work; no password fits.
_NO_SECRET = _Secret(Account(0, "", False, 0.0), bytes(16), bytes(32))


class _Handle:
    """A connection to the file, opened when first used and again after a fault; for any thread."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._lock = threading.Lock()  # guards the connection
        self._connection: Optional[sqlite3.Connection] = None
        self._is_stuck = False  # a caller has waited in vain: until it moves, no other waits

    def run(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """Return what `work` returns, run as one transaction; StoreError if nothing was changed."""
        if not self._lock.acquire(timeout=0 if self._is_stuck else DISK_TIMEOUT):
            self._is_stuck = True
            raise StoreError("The server cannot use its disk: it does not answer.")
        self._is_stuck = False
        try:
            if self._connection is None:
                self._connection = self._connect()
            with self._connection:
                return work(self._connection)
        except (OSError, sqlite3.Error) as error:
            self._drop()
            reason = getattr(error, "strerror", None) or str(error)
            raise StoreError("The server cannot use its disk: %s." % reason) from error
        finally:
            self._lock.release()

    def close(self) -> None:
        """Close the connection, unless the disk is stuck in it."""
        if self._lock.acquire(timeout=LOCK_TIMEOUT):
            self._drop()
            self._lock.release()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Store:
    """Everything that outlives the server: history, accounts, channels and sanctions.

    One SQLite file (write-ahead log) in a folder, or memory if the folder is "": then there is
    no history and there are no accounts. One connection writes and another reads, so that no
    reader waits for a write. Every method is one short transaction; any thread may call it, but
    not while it holds the directory's lock, except for those that only look at memory:
    `account`, `sanctions`, `find_sanction`. Writes raise StoreError if nothing was stored; the
    next one tries again. A file that is damaged is never repaired, moved or deleted.

    Names are compared casefolded, passwords composed (NFC). Other processes may change accounts
    at any time: `accounts_changed`.
    """

    def __init__(self, folder: str, history_days: float = 0.0, claim: bool = True) -> None:
        """Open the file, or create it; `claim` keeps other servers from the folder.

        Raises FolderTakenError, DamagedError, or StoreError if there is a file that cannot be
        opened: without its accounts and bans the server must not start. Where there was none
        and none can be created, the store logs it, and tries again with the next write.
        """
        self.path = os.path.join(folder, STORE_FILE) if folder else ""
        self.keeps_history = bool(folder)
        self.has_accounts = bool(folder) and hasattr(hashlib, "scrypt")
        self._history_days = history_days
        self._timeout = LOCK_TIMEOUT if claim else DISK_TIMEOUT
        self._writer = _Handle(self._open)
        self._reader = _Handle(self._open) if folder else self._writer
        # Used under the writer's lock: the ids of conversations, and how far cleaning has come.
        self._conversations: Dict[str, int] = {}
        self._cleaned = 0
        # Replaced as a whole, under the reader's lock; read by any thread without it.
        self._accounts: Dict[str, _Secret] = {}  # by casefolded name
        self._sanctions: Tuple[Sanction, ...] = ()
        self._revision = 0  # of the file, when those two were read
        self._reported = 0  # the revision of the last `accounts_changed`
        self._last_number = 0
        self._is_closed = False
        self._hashers = ThreadPoolExecutor(HASHES_AT_ONCE, "hash")
        self._claim = _claim_folder(folder) if folder and claim else None
        is_new = not (folder and os.path.exists(self.path))
        try:
            self._load(must_check=claim)
        except StoreError as error:
            if not (claim and is_new):
                self.close()
                raise
            log.error("nothing is kept: %s", error)

    def close(self) -> None:
        """Close the file, and let other servers have the folder."""
        self._is_closed = True
        self._reader.close()
        self._writer.close()
        if self._claim is not None:
            self._claim.close()
        self._hashers.shutdown()

    def size(self) -> int:
        """Return the bytes on disk."""
        size = 0
        for path in (self.path, self.path + "-wal") if self.path else ():
            with contextlib.suppress(OSError):
                size += os.stat(path).st_size
        return size

    # History

    def append(self, rows: List[Row]) -> None:
        """Store messages; storing the same number twice for a conversation is harmless."""

        def insert(writer: sqlite3.Connection) -> None:
            values: List[object] = []
            waiting: List[Tuple[int, int, int]] = []
            for number, at, key, command, line, account in rows:
                conversation = self._conversation(writer, key)
                kind = TEXT if command in ("PRIVMSG", "NOTICE") else EVENT
                values += (conversation, kind, number, at, command, line)
                if account:
                    waiting.append((account, number, conversation))
            # Many rows in a statement: each statement gives up the interpreter's lock.
            for start in range(0, len(values), 6 * ROWS_AT_ONCE):
                part = values[start : start + 6 * ROWS_AT_ONCE]
                marks = ",".join(["(?,?,?,?,?,?)"] * (len(part) // 6))
                writer.execute("REPLACE INTO messages VALUES " + marks, part)  # noqa: S608
            writer.executemany("REPLACE INTO waiting VALUES (?,?,?)", waiting)

        try:
            self._writer.run(insert)
        except StoreError:
            self._conversations.clear()  # some of them may not be in the file now
            raise

    def read(
        self,
        key: str,
        after: int,
        before: int,
        limit: int,
        latest: bool,
        with_events: bool = False,
    ) -> List[Row]:
        """Return messages with numbers between two, oldest first: the latest or the earliest.

        Without events, only texts. If the disk fails, the list is empty and the log says so.
        """
        query = (
            "SELECT number, time, ?, command, line FROM messages WHERE conversation ="  # noqa: S608
            " (SELECT id FROM conversations WHERE key = ?) AND kind = ? AND number > ?"
            " AND number < ? ORDER BY number %s LIMIT ?" % ("DESC" if latest else "ASC")  # noqa: S608
        )
        found: List[Row] = []
        for kind in (TEXT, EVENT) if with_events else (TEXT,):
            rows = self._select(query, (key, key, kind, after, before, limit))
            found += [Row(*row) for row in rows]
        found.sort(reverse=latest)
        return found[:limit][::-1] if latest else found[:limit]

    def last_number(self) -> int:
        """Return the highest number in the file when it was opened; 0 if it was empty."""
        return self._last_number

    def correspondents(self, owner: str, after: int, before: int) -> List[Tuple[str, int]]:
        """Return the participants with whom `owner` last talked between two numbers.

        Each with the number of the last message; in no particular order.
        """
        query = (
            "SELECT key, (SELECT MAX(number) FROM messages WHERE conversation = id AND kind = ?)"
            " FROM participants JOIN conversations ON id = conversation WHERE participant = ?"
        )
        found = []
        for key, number in self._select(query, (TEXT, owner)):
            first, _, second = key.partition(" ")
            if number is not None and after < number < before:
                found.append((second if first == owner else first, number))
        return found

    def waiting_count(self, account_id: int) -> int:
        """Return how many messages wait for an account."""
        query = "SELECT COUNT(*) FROM waiting WHERE account = ?"
        found = self._select(query, (account_id,))
        return int(found[0][0]) if found else 0

    def waiting(self, account_id: int) -> List[Row]:
        """Return the messages that wait for an account, oldest first, at most MAX_WAITING.

        They wait until `forget_waiting` is called.
        """
        query = (
            "SELECT number, time, key, command, line, account FROM waiting"
            " JOIN messages USING (conversation, number) JOIN conversations ON id = conversation"
            " WHERE account = ? AND kind = ? ORDER BY number LIMIT ?"
        )
        return [Row(*row) for row in self._select(query, (account_id, TEXT, MAX_WAITING))]

    def forget_waiting(self, account_id: int, upto: int) -> None:
        """Note that messages up to this number were delivered; if it fails, they come again."""
        query = "DELETE FROM waiting WHERE account = ? AND number <= ?"
        try:
            self._writer.run(lambda writer: writer.execute(query, (account_id, upto)))
        except StoreError as error:
            log.warning("cannot note what was delivered: %s", error)

    def clean(self) -> bool:
        """Delete some messages of deleted channels, or older than `history_days`.

        Returns True if the next call may find more. Each takes some milliseconds.
        """
        oldest = time.time() - self._history_days * 86400 if self._history_days else 0.0
        return self._writer.run(lambda writer: self._clean(writer, oldest))

    def _clean(self, writer: sqlite3.Connection, oldest: float) -> bool:
        query = (
            "SELECT id, key FROM conversations WHERE id > ? AND (key IS NULL OR ?)"
            " ORDER BY id LIMIT ?"
        )
        found = writer.execute(query, (self._cleaned, oldest > 0, CONVERSATIONS_AT_ONCE)).fetchall()
        left = CLEANED_AT_ONCE
        for conversation, key in found:
            until = oldest if key is not None else float("inf")
            for kind in (TEXT, EVENT):
                left -= _delete_older(writer, conversation, kind, until, left)
            if left <= 0:
                return True
            self._cleaned = conversation
            query = "SELECT 1 FROM messages WHERE conversation = ? LIMIT 1"
            if not writer.execute(query, (conversation,)).fetchone():
                self._conversations.pop(key, None)
                writer.execute("DELETE FROM conversations WHERE id = ?", (conversation,))
                query = "DELETE FROM participants WHERE participant = ? AND conversation = ?"
                names = (key or "").split(" ")
                writer.executemany(query, [(name, conversation) for name in names])
        if found:
            return True
        self._cleaned = 0
        writer.execute(
            "DELETE FROM waiting WHERE NOT EXISTS (SELECT 1 FROM messages WHERE kind = ?"
            " AND conversation = waiting.conversation AND number = waiting.number)",
            (TEXT,),
        )
        return False

    def _conversation(self, writer: sqlite3.Connection, key: str) -> int:
        """Return the id of a conversation, which begins if there is none."""
        found = self._conversations.get(key)
        if found is None:
            query = "SELECT id FROM conversations WHERE key = ?"
            row = writer.execute(query, (key,)).fetchone()
            if row is not None:
                found = int(row[0])
            else:
                query = "INSERT INTO conversations (key) VALUES (?)"
                found = int(writer.execute(query, (key,)).lastrowid or 0)
                if " " in key:
                    pairs = [(name, found) for name in set(key.split(" "))]
                    writer.executemany("INSERT INTO participants VALUES (?,?)", pairs)
            if len(self._conversations) >= CACHED_CONVERSATIONS:
                self._conversations.clear()
            self._conversations[key] = found
        return found

    def _select(self, query: str, values: Tuple[object, ...]) -> List[Any]:
        """Return all rows; none if the disk fails, and the log says so."""
        try:
            return self._reader.run(lambda reader: reader.execute(query, values).fetchall())
        except StoreError as error:
            log.warning("cannot read the history: %s", error)
            return []

    # Accounts

    def account(self, name: str) -> Optional[Account]:
        """Return the account of a name, as last read: no disk."""
        found = self._accounts.get(protocol.casefold(name))
        return found.account if found is not None else None

    def accounts(self) -> List[Account]:
        """Return all accounts by name, as last read: no disk."""
        return [secret.account for _, secret in sorted(self._accounts.items())]

    def accounts_changed(self) -> bool:
        """Return True if accounts or sanctions changed since the last call.

        For one thread, every few seconds: reads what other processes have changed.
        """
        self._refresh()
        changed, self._reported = self._reported != self._revision, self._revision
        return changed

    def add_account(self, name: str, password: str, is_operator: bool = False) -> Account:
        """Raises AccountExistsError, PasswordError or StoreError."""
        key = protocol.casefold(name)
        if key in self._accounts:  # before the work of a hash
            raise AccountExistsError(name)
        salt, digest = self._new_hash(password)
        query = (
            "INSERT OR IGNORE INTO accounts (key, name, is_operator, created, salt, digest)"
            " VALUES (?,?,?,?,?,?)"
        )
        created = time.time()
        cursor = self._change((query, (key, name, is_operator, created, salt, digest)))
        if not cursor.rowcount:
            raise AccountExistsError(name)
        return Account(int(cursor.lastrowid or 0), name, is_operator, created)

    def set_password(self, name: str, password: str, is_operator: Optional[bool] = None) -> bool:
        """Change the password, and the rights unless None; False if there is no account.

        Raises PasswordError or StoreError.
        """
        salt, digest = self._new_hash(password)
        query = (
            "UPDATE accounts SET salt = ?, digest = ?, is_operator = COALESCE(?, is_operator)"
            " WHERE key = ?"
        )
        values = (salt, digest, is_operator, protocol.casefold(name))
        return self._change((query, values)).rowcount > 0

    def remove_account(self, name: str) -> bool:
        """Delete an account and what waits for it; False if there is none."""
        key = (protocol.casefold(name),)
        query = "DELETE FROM waiting WHERE account = (SELECT id FROM accounts WHERE key = ?)"
        return self._change((query, key), ("DELETE FROM accounts WHERE key = ?", key)).rowcount > 0

    def log_in(self, name: str, password: str) -> Optional[Account]:
        """Return the account if this is its password; the work is the same for every name."""
        self._refresh()
        secret = self._accounts.get(protocol.casefold(name), _NO_SECRET)
        digest = self._hash(password, secret.salt)
        if hmac.compare_digest(digest, secret.digest) and secret is not _NO_SECRET:
            return secret.account
        return None

    def _new_hash(self, password: str) -> Tuple[bytes, bytes]:
        error = protocol.password_error(password)
        if error:
            raise PasswordError(error)
        salt = os.urandom(16)
        return salt, self._hash(password, salt)

    def _hash(self, password: str, salt: bytes) -> bytes:
        if not hasattr(hashlib, "scrypt"):
            raise StoreError("This server's Python has no scrypt: it cannot check passwords.")
        # Longer passwords match nothing.
        data = protocol.password_bytes(password)[: protocol.MAX_PASSWORD + 1]
        return self._hashers.submit(self._scrypt, data, salt).result()

    def _scrypt(self, data: bytes, salt: bytes) -> bytes:
        if self._is_closed:
            raise StoreError("The server is shutting down.")
        n, r, p = SCRYPT
        return hashlib.scrypt(data, salt=salt, n=n, r=r, p=p, maxmem=256 * n * r, dklen=32)

    # Channels

    def save_channel(self, key: str, state: Dict[str, Any]) -> None:
        """Store the state of a channel, which JSON can hold, in place of an earlier one."""
        query, values = "REPLACE INTO channels VALUES (?,?)", (key, json.dumps(state))
        self._writer.run(lambda writer: writer.execute(query, values))

    def delete_channel(self, key: str, with_history: bool) -> None:
        """Delete a channel; with its history, so that a later one of that name begins anew."""

        def delete(writer: sqlite3.Connection) -> None:
            writer.execute("DELETE FROM channels WHERE key = ?", (key,))
            if with_history:
                self._conversations.pop(key, None)
                writer.execute("UPDATE conversations SET key = NULL WHERE key = ?", (key,))

        self._writer.run(delete)

    def channels(self) -> List[Dict[str, Any]]:
        """Return the states of all channels. Raises StoreError."""
        query = "SELECT key, state FROM channels ORDER BY key"
        states = []
        for key, state in self._reader.run(lambda reader: reader.execute(query).fetchall()):
            try:
                states.append(json.loads(state))
            except ValueError as error:
                log.warning("cannot read the state of %s: %s", key, error)
        return states

    # Sanctions

    @property
    def sanctions(self) -> Tuple[Sanction, ...]:
        """The sanctions in force, oldest first: no disk."""
        now = time.time()
        return tuple(sanction for sanction in self._sanctions if sanction.is_in_force(now))

    def find_sanction(self, kind: str, names: Iterable[str], address: str) -> Optional[Sanction]:
        """Return a sanction in force for one of the casefolded names or the address: no disk."""
        known = tuple(names)
        for sanction in self.sanctions:
            if sanction.kind == kind and target_matches(sanction.target, known, address):
                return sanction
        return None

    def add_sanction(self, sanction: Sanction) -> None:
        """Store a sanction in place of an earlier one of that kind and target."""
        expired = ("DELETE FROM sanctions WHERE until > 0 AND until <= ?", (time.time(),))
        self._change(expired, ("REPLACE INTO sanctions VALUES (?,?,?,?,?,?)", sanction))

    def remove_sanctions(self, target: str) -> int:
        """Delete the sanctions of a target, and return how many were in force."""
        target = normalize_target(target)
        count = sum(sanction.target == target for sanction in self.sanctions)
        self._change(("DELETE FROM sanctions WHERE target = ?", (target,)))
        return count

    def _change(self, *statements: Tuple[str, Tuple[object, ...]]) -> sqlite3.Cursor:
        """Run statements that change accounts or sanctions; return the cursor of the last."""

        def change(writer: sqlite3.Connection) -> sqlite3.Cursor:
            for query, values in statements:
                cursor = writer.execute(query, values)
            writer.execute("UPDATE revision SET number = number + 1")
            return cursor

        cursor = self._writer.run(change)
        self._refresh()
        return cursor

    def _refresh(self) -> None:
        """Read accounts and sanctions if they have changed; keep the old ones if the disk fails."""
        try:
            self._reader.run(self._read_accounts)
        except StoreError as error:
            log.warning("cannot read accounts and sanctions: %s", error)

    def _read_accounts(self, reader: sqlite3.Connection) -> None:
        reader.execute("BEGIN")  # all of them as of one moment
        (revision,) = reader.execute("SELECT number FROM revision").fetchone()
        if revision == self._revision:
            return
        accounts = {}
        for row in reader.execute("SELECT * FROM accounts"):
            number, key, name, is_operator, created, salt, digest = row
            account = Account(number, name, bool(is_operator), created)
            accounts[key] = _Secret(account, salt, digest)
        sanctions = reader.execute("SELECT * FROM sanctions ORDER BY at, kind").fetchall()
        self._accounts = accounts
        self._sanctions = tuple(Sanction(*row) for row in sanctions)
        self._revision = revision

    # The file

    def _load(self, must_check: bool) -> None:
        """Read what is kept in memory, having checked the file if it is not large."""
        query = (
            "SELECT MAX((SELECT MAX(number) FROM messages WHERE conversation = id AND kind = k))"
            " FROM conversations, (SELECT 0 AS k UNION SELECT 1)"
        )

        def check(writer: sqlite3.Connection) -> int:
            if must_check and self.size() <= CHECKED_SIZE:
                (found,) = writer.execute("PRAGMA quick_check(1)").fetchone()
                if found != "ok":
                    raise DamagedError(self.path, "it is damaged")
            return int(writer.execute(query).fetchone()[0] or 0)

        try:
            self._last_number = self._writer.run(check)
            self._reader.run(self._read_accounts)
        except DamagedError:
            raise
        except StoreError as error:
            # SQLite's errors of this class, not of one below it, are those of a damaged file.
            if type(error.__cause__) is sqlite3.DatabaseError:
                raise DamagedError(self.path, str(error.__cause__)) from error
            reason = error.__cause__ or error
            raise StoreError("cannot open %s: %s" % (self.path, reason)) from error
        self._reported = self._revision

    def _open(self) -> sqlite3.Connection:
        if self.path:
            os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
            # SQLite keeps the mode. A file that is there is not opened: closing it again would
            # release this process's locks on it (POSIX).
            with contextlib.suppress(FileExistsError):
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            if not stat.S_ISREG(os.stat(self.path).st_mode):
                raise DamagedError(self.path, "it is not a file")
        path = self.path or ":memory:"
        connection = sqlite3.connect(path, timeout=self._timeout, check_same_thread=False)
        try:
            # Tables first: another process may be creating them, and commits both together.
            (tables,) = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version != SCHEMA_VERSION and (version or tables):
                raise DamagedError(self.path, "it was made by another version of Hubbub")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            if not version:
                _create_schema(connection)
        except BaseException:
            connection.close()
            raise
        return connection


def _create_schema(connection: sqlite3.Connection) -> None:
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if not version:  # no other process was faster
            for statement in SCHEMA.split(";"):
                connection.execute(statement)
            connection.execute("PRAGMA user_version = %d" % SCHEMA_VERSION)


def _delete_older(
    writer: sqlite3.Connection, conversation: int, kind: int, until: float, limit: int
) -> int:
    """Delete the first messages of a conversation that are older; return how many there were."""
    query = (
        "SELECT number, time FROM messages WHERE conversation = ? AND kind = ?"
        " ORDER BY number LIMIT ?"
    )
    count = last = 0
    for number, at in writer.execute(query, (conversation, kind, limit)):
        if at >= until:
            break
        count, last = count + 1, number
    if count:
        query = "DELETE FROM messages WHERE conversation = ? AND kind = ? AND number <= ?"
        writer.execute(query, (conversation, kind, last))
    return count


def _claim_folder(folder: str) -> Optional[sqlite3.Connection]:
    """Lock a data folder against other servers; the lock ends with the process.

    Returns None if the folder cannot be written. Raises FolderTakenError.
    """
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        claim = sqlite3.connect(os.path.join(folder, "lock"), timeout=0, check_same_thread=False)
    except (OSError, sqlite3.Error):
        return None
    try:
        claim.execute("PRAGMA journal_mode = MEMORY")
        claim.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        claim.close()
        if "locked" in str(error):
            text = "another server uses %s. Give this one its own folder: --data FOLDER"
            raise FolderTakenError(text % folder) from None
        return None
    return claim


