# Dialects
# --------

IRC, PLAIN, TLS, HTTP = "IRC", "plain text", "TLS", "HTTP"
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:-]{0,62}\Z")
_OPENERS = frozenset("CAP NICK PASS USER AUTHENTICATE STARTTLS PING WEBIRC PROTOCTL".split())
_HTTP = re.compile(rb"(?:GET|HEAD|POST|PUT|DELETE|CONNECT|OPTIONS|TRACE|PATCH|PRI) ")
_TELNET = re.compile(rb"\xff(?:[\xfb-\xfe].?|\xfa.*?(?:\xff\xf0|\Z)|.)?", re.DOTALL)


def sniff(data: bytes) -> Optional[str]:
    """Return the dialect of a connection from its first bytes; None if it takes more of them.

    A whole line is needed to tell a user called Nick from the command NICK. HTTP is recognised
    by its first word alone, before anything that a web page can choose.
    """
    if data[:1] == b"\x16":
        return TLS
    if _HTTP.match(data):
        return HTTP
    line, end, _ = data.partition(b"\n")
    if not end and len(data) <= MAX_PLAIN_LINE:
        return None
    try:
        message = protocol.parse(line.rstrip(b"\r"), "replace")
    except protocol.ProtocolError:
        return PLAIN
    is_opener = message.command in _OPENERS and message.params
    return IRC if is_opener or message.command == "QUIT" else PLAIN


def decode_plain(line: bytes) -> str:
    """Return the text of a plain-text line: without telnet's commands, and safe to show."""
    if b"\xff" in line:
        line = _TELNET.sub(b"", line)
    return protocol.clean(line.decode("utf-8", "replace"), MAX_PLAIN_LINE).strip()


def to_username(text: str) -> str:
    """Return what USER gave as the user part of a source: ASCII letters and digits."""
    kept = "".join(char for char in text if char.isalnum() and char < "\x7f")
    return kept[: protocol.MAX_USERNAME] or "user"


def is_host(text: str) -> bool:
    """Return True for a host name or address that may stand in a source."""
    return bool(_HOST.match(text))


def describe_with_channel(message: Message, me: str, when: float, lobby: str) -> Optional[protocol.Line]:
    """Return `describe` for a reader of all channels in one place: it names all but the lobby."""
    line = protocol.describe(message, me, when, lobby)
    channel = message.param(0)
    if line is None or line.kind not in (protocol.FROM_ME, protocol.FROM_OTHERS):
        return line
    if protocol.casefold(channel) == protocol.casefold(lobby):
        return line
    if line.head.endswith("]:"):
        return line._replace(head="%s in %s]:" % (line.head[:-2], channel))
    return line._replace(text="%s (in %s)" % (line.text, channel))


# Command parameters
# ------------------

# https://ircv3.net/specs/extensions/chathistory; LATEST alone may refer to "*"
_REFERENCES = {"LATEST": 1, "BEFORE": 1, "AFTER": 1, "AROUND": 1, "BETWEEN": 2, "TARGETS": 2}

# A reference to a place in the history, among message numbers that grow with the microseconds
# since 1970: what is before it is below the first number, what is after it above the second.
Reference = Tuple[int, int]


class HistoryQuery(NamedTuple):
    """The parameters of CHATHISTORY."""

    verb: str
    target: str  # a channel or a nickname, "" for TARGETS
    references: List[Reference]
    limit: int


def parse_reference(text: str) -> Reference:
    """Return the place of `msgid=N` or `timestamp=T`; "*" is before everything.

    Raises ValueError for anything else.
    """
    kind, _, value = text.partition("=")
    if text == "*":
        return 0, 0
    if kind == "msgid" and value.isdecimal() and len(value) < 19:
        return int(value), int(value)
    if kind != "timestamp":
        raise ValueError("neither msgid nor timestamp: %.40r" % text)
    ms = round(protocol.parse_time(value) * 1000)
    return ms * 1000, ms * 1000 + 999


def parse_chathistory(params: Sequence[str]) -> HistoryQuery:
    """Return the query in CHATHISTORY's parameters. Raises ProtocolError with words for people."""
    verb, *rest = params
    verb = verb.upper()
    if verb not in _REFERENCES:
        raise protocol.ProtocolError("Unknown command")
    target = rest.pop(0) if rest and verb != "TARGETS" else ""
    if len(rest) != _REFERENCES[verb] + 1 or not rest[-1].isdecimal():
        raise protocol.ProtocolError("Too few parameters, too many, or a limit that is no number")
    *texts, limit = rest
    if "*" in texts and verb != "LATEST":
        raise protocol.ProtocolError("Not a msgid or a timestamp")
    try:
        references = [parse_reference(text) for text in texts]
    except ValueError:
        raise protocol.ProtocolError("Not a msgid or a timestamp") from None
    return HistoryQuery(verb, target, references, int(limit[:9]))


_WHOX_FIELDS = (
    "tcuihsnfdlaor"  # in the order of the reply (https://ircv3.net/specs/extensions/whox)
)
_BOUND = re.compile(r"([CT]?)([<>])([0-9]{1,9})\Z", re.IGNORECASE)


def parse_whox(text: str) -> Tuple[str, str]:
    """Return fields, in the order of the reply, and token of WHO's "%fields,token".

    Returns ("", "") if no fields are asked for. A token has at most three digits, or is "".
    """
    asked, _, token = text.partition("%")[2].partition(",")
    fields = "".join(field for field in _WHOX_FIELDS if field in asked)
    return fields, token if fields and re.match(r"[0-9]{1,3}\Z", token) else ""


def whox_params(fields: str, values: Mapping[str, str]) -> Tuple[str, ...]:
    """Return the parameters of 354 after the client's name; the realname is last."""
    return tuple(values[field] if field == "r" else protocol.to_middle(values[field]) for field in fields)


class ListFilter(NamedTuple):
    """The conditions of LIST (ISUPPORT's ELIST=CMNTU)."""

    wanted: Optional[protocol.MaskSet]  # None accepts every name
    unwanted: protocol.MaskSet
    bounds: Tuple[Tuple[str, str, int], ...]  # ("", ">", users) or ("C" or "T", "<", minutes)

    def accepts(self, name: str, users: int, created: float, topic_at: float, now: float) -> bool:
        """Return True if a channel meets all conditions; times in seconds, no topic is 0."""
        for what, sign, bound in self.bounds:
            if what == "T" and not topic_at:
                return False
            value = (now - (created if what == "C" else topic_at)) / 60 if what else users
            if not (value > bound if sign == ">" else value < bound):
                return False
        return not self.unwanted.match(name) and (self.wanted is None or self.wanted.match(name))


def parse_elist(text: str) -> Optional[ListFilter]:
    """Return the conditions in LIST's parameter, at most MAX_CONDITIONS; None without any.

    Separated by commas: names and masks (`#tea`, `*x*`, `!*x*`), users (`>4`, `<9`), minutes
    since the creation (`C>60`) and since the last topic (`T<5`). Modern IRC, "LIST message".
    """
    items = [item for item in text.split(",") if item][:MAX_CONDITIONS]
    bounds = [match for match in map(_BOUND.match, items) if match]
    masks = [item for item in items if not _BOUND.match(item)]
    wanted = [mask for mask in masks if mask[0] != "!"]
    unwanted = protocol.MaskSet(mask[1:] for mask in masks if mask[0] == "!")
    limits = tuple((match[1].upper(), match[2], int(match[3])) for match in bounds)
    return ListFilter(protocol.MaskSet(wanted) if wanted else None, unwanted, limits) if items else None


# Bans and mutes of the whole server are for names, addresses and networks.


def normalize_target(text: str) -> str:
    """Return the name, address or network of a ban in the form in which it is stored."""
    network = _to_network(text)
    if network is None:
        return protocol.casefold(text)
    return str(network.network_address if network.num_addresses == 1 else network)


def target_matches(target: str, names: Iterable[str], address: str) -> bool:
    """Return True if a ban applies to a client with these casefolded names and this address."""
    network = _to_network(target)
    if network is None:
        return protocol.casefold(target) in names
    host = _to_network(address)
    return host is not None and host.network_address in network


def is_target(text: str) -> bool:
    """Return True for a name, an address or a network."""
    return protocol.is_nickname(text) or _to_network(text) is not None


@functools.lru_cache(maxsize=4096)
def _to_network(text: str) -> Union[ipaddress.IPv4Network, ipaddress.IPv6Network, None]:
    """Return the network of an address, or of an address and a prefix; None for a name.

    IPv4-mapped IPv6 (::ffff:192.0.2.1) is IPv4; the zone of an address is ignored.
    """
    if not ("." in text or ":" in text):
        return None
    try:
        network = ipaddress.ip_network(text.partition("%")[0], strict=False)
    except ValueError:
        return None
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return ipaddress.IPv4Network((int(mapped), network.prefixlen - 96))
    return network


