# The command line
# ----------------

MAX_LOG_LINES = 10000  # lines that wait for a console that is stopped
CONSOLE_TIMEOUT = 1.0  # seconds that the end of the program waits for it
STACK_SIZE = 256 * 1024  # bytes of stack for each thread; thousands of them must fit
RESERVED_DESCRIPTORS = 64  # descriptors that are not for clients
MAX_NUMBER = 86400.0  # for options in seconds, lines or days


class Console(logging.Handler):
    """The log on stderr and lines on stdout, written by a thread of its own.

    Nobody waits for a console that is stopped or a pipe that is full: lines past MAX_LOG_LINES
    are dropped and counted. The thread does not use Python's streams: a blocked write would
    keep their locks, and the program could not end.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lines: "queue.Queue[Optional[Tuple[BinaryIO, str]]]" = queue.Queue(MAX_LOG_LINES)
        self._stdout, self._stderr = _unbuffered(sys.stdout), _unbuffered(sys.stderr)
        self._dropped = 0  # lines; guarded by the handler's lock
        # Daemon: it may be blocked for as long as nobody reads.
        self._thread = threading.Thread(target=self._run, name="console", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        self._put(self._stderr, self.format(record))

    def print(self, text: str) -> None:
        """Write a line to stdout."""
        self.acquire()
        self._put(self._stdout, text)
        self.release()

    def stop(self) -> None:
        """Write what is left if the console takes it, and end the thread."""
        with contextlib.suppress(queue.Full):
            self._lines.put(None, timeout=CONSOLE_TIMEOUT)
        self._thread.join(CONSOLE_TIMEOUT)

    def _put(self, stream: Optional[BinaryIO], text: str) -> None:
        if stream is not None:
            try:
                self._lines.put_nowait((stream, text))
            except queue.Full:
                self._dropped += 1

    def _run(self) -> None:
        for stream, text in iter(self._lines.get, None):
            self._write(stream, text)
            if self._dropped:
                self.acquire()
                dropped, self._dropped = self._dropped, 0
                self.release()
                self._write(stream, "%d lines were dropped here: nobody read them." % dropped)

    def _write(self, stream: BinaryIO, text: str) -> None:
        data = (text + os.linesep).encode("utf-8", "backslashreplace")
        with contextlib.suppress(OSError):  # closed: the line is lost
            while data:
                data = data[stream.write(data) or len(data) :]


def _unbuffered(stream: Optional[TextIO]) -> Optional[BinaryIO]:
    """Return a file for the descriptor of a standard stream; None if the program has none."""
    return open(stream.fileno(), "wb", buffering=0, closefd=False) if stream is not None else None


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, "%s: %s\n" % (self.prog, message))

    def convert_arg_line_to_args(self, arg_line: str) -> List[str]:
        """Split a line of @FILE as a shell does; lines that begin with # are comments."""
        if arg_line.lstrip().startswith("#"):
            return []
        try:
            return shlex.split(arg_line)
        except ValueError as error:
            self.error("%s in the line %s" % (error, arg_line))


def parse_arguments(argv: Optional[List[str]]) -> argparse.Namespace:
    """Return the fields of Options, and those of the account chores.

    Exits with code 2 and one line if the command line is wrong.
    """
    defaults = Options(network=socket.gethostname(), data=_default_folder())
    parser = Parser(
        description="Hubbub's server: chat for a local network.",
        epilog="@FILE reads options from a file. Accounts are in the folder of --data; they can"
        " be changed while a server uses it.",
        fromfile_prefix_chars="@",
    )
    for flag, field, convert, metavar, text in _OPTIONS:
        default = getattr(defaults, field)
        parser.add_argument(
            "--" + flag, dest=field, type=convert, metavar=metavar, help=text, default=default
        )
    levels = ["DEBUG", "INFO", "WARNING", "ERROR"]
    text = "lowest level of messages in the log (default: %(default)s)"
    parser.add_argument("--log-level", choices=levels, default="INFO", help=text)
    parser.add_argument("--version", action="version", version="Hubbub %s" % VERSION)
    chores = parser.add_mutually_exclusive_group()
    text = "create an account, or change its password; asks for the password"
    chores.add_argument("--add-account", type=_nickname, metavar="NAME", help=text)
    text = "delete an account"
    chores.add_argument("--remove-account", type=_nickname, metavar="NAME", help=text)
    chores.add_argument("--list-accounts", action="store_true", help="list the accounts")
    text = "with --add-account: make it an operator's account (without: an ordinary one)"
    parser.add_argument("--oper", action="store_true", help=text)
    arguments = parser.parse_args(argv)
    if arguments.oper and not arguments.add_account:
        parser.error("--oper is for --add-account")
    if _is_chore(arguments) and not arguments.data:
        parser.error("accounts need a folder: --data FOLDER")
    return arguments


def _is_chore(arguments: argparse.Namespace) -> bool:
    return bool(arguments.add_account or arguments.remove_account or arguments.list_accounts)


def _nickname(name: str) -> str:
    name = protocol.normalize(name)
    error = protocol.nickname_error(name)
    if error:
        raise argparse.ArgumentTypeError(error)
    return name


def _network(name: str) -> str:
    return protocol.clean(name, 40).strip() or Options().network


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError("%s is not a whole number" % text)
    return int(text)


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= MAX_NUMBER:
        raise argparse.ArgumentTypeError("%s is not a number from 0 to %g" % (text, MAX_NUMBER))
    return value


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError("a port is a number from 0 to 65535, not %s" % text)
    return int(text)


def _lobby(name: str) -> str:
    error = name and protocol.channel_error(name)
    if error:
        raise argparse.ArgumentTypeError("%s: %s" % (name, error))
    return name


def _server_name(name: str) -> str:
    if not is_host(name) or ":" in name:  # with a colon it is an address and a port, or IPv6
        raise argparse.ArgumentTypeError("%s is not a host name" % name)
    return name


def _default_folder() -> str:
    """Return the folder for the program's data that is usual on this system."""
    home = os.path.expanduser("~")
    if sys.platform == "win32":
        return os.path.join(os.environ.get("LOCALAPPDATA") or home, "Hubbub")
    if sys.platform == "darwin":
        return os.path.join(home, "Library", "Application Support", "Hubbub")
    data = os.environ.get("XDG_DATA_HOME") or os.path.join(home, ".local", "share")
    return os.path.join(data, "hubbub")


def _lines_of(path: str) -> Tuple[str, ...]:
    try:
        with open(path, encoding="utf-8") as file:
            return tuple(protocol.clean(line.rstrip("\n"), 400) for line in file)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise argparse.ArgumentTypeError("cannot read %s: %s" % (path, reason)) from None


def _first_line_of(path: str) -> str:
    lines = _lines_of(path) if path else ("",)
    if path and not (lines and lines[0].strip()):
        raise argparse.ArgumentTypeError("%s has no password in its first line" % path)
    return lines[0].strip()


# Each option's flag, field of Options, type, placeholder and help.
_OPTIONS: Tuple[Tuple[str, str, Callable[[str], object], str, str], ...] = (
    ("host", "host", str, "ADDRESS", "address to listen on (default: %(default)s, all addresses)"),
    ("port", "port", _port, "PORT", "TCP port (default: %(default)s; 0 = any free port)"),
    ("network", "network", _network, "NAME", "name of the chat (default: %(default)s)"),
    ("server-name", "server_name", _server_name, "HOST",
     "name of the server for IRC clients (default: %(default)s)"),
    ("data", "data", str, "FOLDER",
     "folder for history and accounts (default: %(default)s; '' = keep nothing)"),
    ("history-days", "history_days", _number, "DAYS",
     "days to keep history (default: %(default)g = forever)"),
    ("lobby", "lobby", _lobby, "ROOM",
     "room that everyone joins (default: %(default)s; '' = none)"),
    ("motd", "motd", _lines_of, "FILE", "text to show to everyone who joins"),
    ("password-file", "password", _first_line_of, "FILE",
     "file whose first line is the password for joining"),
    ("rate-limit", "rate_limit", _number, "LINES",
     "lines a second from one client (default: %(default)g; 0 = no limit)"),
    ("max-clients", "max_clients", _count, "N",
     "connections at a time (default: %(default)s; 0 = no limit)"),
    ("max-per-address", "max_per_address", _count, "N",
     "connections from one address (default: %(default)s; 0 = no limit)"),
    ("register-timeout", "register_timeout", _number, "SECONDS",
     "time to choose a name (default: %(default)g; 0 = no limit)"),
    ("ping-interval", "ping_interval", _number, "SECONDS",
     "silence before a PING to a client (default: %(default)g; 0 = never)"),
    ("max-sendq", "max_sendq", _count, "BYTES",
     "unsent output before a client is dropped (default: %(default)s; 0 = no limit)"),
)  # fmt: skip


def run_chore(arguments: argparse.Namespace) -> int:
    """Change or list the accounts in a folder, which a server may be using; the exit code."""
    try:
        password = _read_password(arguments.add_account) if arguments.add_account else ""
        path = os.path.join(arguments.data, STORE_FILE)
        if not (arguments.add_account or os.path.exists(path)):
            raise StoreError("there are no accounts in %s." % arguments.data)
        with contextlib.closing(Store(arguments.data, claim=False)) as store:
            lines = _do_chore(arguments, store, password)
    except StoreError as error:
        print("server.py: %s" % error, file=sys.stderr)
        return 2
    except (EOFError, KeyboardInterrupt):
        print("\nserver.py: nothing was changed.", file=sys.stderr)
        return 2
    encoding = sys.stdout.encoding or "utf-8"
    for line in lines:
        print(line.encode(encoding, "replace").decode(encoding))
    return 0


def _do_chore(arguments: argparse.Namespace, store: Store, password: str) -> List[str]:
    """Do the chore, and return lines for the user. Raises StoreError."""
    if arguments.list_accounts:
        return [
            account.name + (" (operator)" if account.is_operator else "")
            for account in store.accounts()
        ]
    if arguments.remove_account:
        if not store.remove_account(arguments.remove_account):
            raise StoreError("%s has no account." % arguments.remove_account)
        return ["%s has no account now. Anyone may use the name." % arguments.remove_account]
    name, is_operator = arguments.add_account, arguments.oper
    kind = "an operator's account" if is_operator else "an ordinary account"
    if store.set_password(name, password, is_operator):
        return ["%s has a new password. It is %s." % (name, kind)]
    store.add_account(name, password, is_operator)
    return ["%s now has %s." % (name, kind)]


def _read_password(name: str) -> str:
    """Read a password: hidden and twice from a terminal, else a line. Raises PasswordError."""
    if sys.stdin.isatty():
        password = getpass.getpass("Password for %s: " % name)
        error = protocol.password_error(password)
        if not error and getpass.getpass("Repeat it: ") != password:
            error = "The two passwords differ. Nothing was changed."
    else:
        try:
            password = sys.stdin.buffer.readline().decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            raise PasswordError("The password is not UTF-8.") from None
        error = protocol.password_error(password) if password else "No password on standard input."
    if error:
        raise PasswordError(error)
    return password


def main(argv: Optional[List[str]] = None) -> int:
    """Serve until SIGINT or SIGTERM, or do a chore; 2 if it could not, else 0."""
    arguments = parse_arguments(argv)
    if _is_chore(arguments):
        return run_chore(arguments)
    options = Options(*(getattr(arguments, field) for field in Options._fields))
    console = Console()
    form = "%(asctime)s %(levelname)s %(message)s"
    logging.basicConfig(level=arguments.log_level, format=form, handlers=[console])
    try:
        return _serve(options, console)
    finally:
        console.stop()


def _serve(options: Options, console: Console) -> int:
    with contextlib.suppress(ValueError):  # another system may want another multiple of its pages
        threading.stack_size(STACK_SIZE)
    limit = _raise_descriptor_limit()
    if limit:
        most = max(1, limit - RESERVED_DESCRIPTORS)
        options = options._replace(max_clients=min(options.max_clients or most, most))
    # Messages are made and freed by the thousand, in no cycles; looking for cycles among them
    # took a tenth of the readers' time.
    gc.set_threshold(100000, 20, 50)
    try:
        server = Server(options)
    except (StoreError, OSError, UnicodeError) as error:
        print("server.py: %s" % _start_error(options, error), file=sys.stderr)
        return 2

    def on_signal(number: int, frame: Optional[FrameType]) -> None:
        signal.signal(number, signal.SIG_DFL)  # a second signal forces the end
        server.stop()

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    # On Windows a signal alone does not wake a thread that waits in select.
    signal.set_wakeup_fd(server.fileno())
    console.print("[%s] Running on %s:%d" % (SERVER, options.host, server.port))
    for address in addresses_to_tell(options.host):
        console.print("[%s] Tell people: %s:%d" % (SERVER, address, server.port))
    server.run()
    signal.set_wakeup_fd(-1)
    server.close()
    console.print("[%s] Stopped" % SERVER)
    return 0


def _start_error(options: Options, error: Exception) -> str:
    if isinstance(error, StoreError):
        return str(error)
    reason = getattr(error, "strerror", None) or str(error)
    if getattr(error, "errno", 0) == errno.EADDRINUSE:
        reason = "another program uses the port. Stop it, or choose another with --port"
    return "cannot listen on %s:%d: %s." % (options.host, options.port, reason)


def _raise_descriptor_limit() -> int:
    """Allow as many descriptors as the system does; return the limit, 0 if there is none."""
    if resource is None:
        return 0
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # macOS has a lower limit of its own
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 0 if soft == resource.RLIM_INFINITY else soft


if __name__ == "__main__":
    sys.exit(main())
