#!/usr/bin/env python3
"""Hubbub's server: chat rooms for a local network, in IRC and in plain text.

    python3 server.py

Threads:

    main            accepts connections, and ends everything in order
    client H:P      one per connection: reads, frames, parses, checks, decides who is told
    delivery        the only one that writes to sockets, and the only one that closes them
    history         writes to disk what the delivery is about to send, and the channels

Guarantees:

- One order. Whatever happens gets its number and its place in the delivery's queue under the
  directory's lock, so users are told of it in the order in which it happened.
- Store, then deliver. What anybody has seen is on disk; an echo means stored. A disk that is
  full, broken or slow stops nobody: users are told that nothing is being kept.
- Nobody waits for a slow reader. The delivery never blocks on a socket: what a client does not
  take waits in its outbox, and past `--max-sendq` that client is disconnected.
- A nickname has one holder. The thread that reads a connection removes its client from the
  directory; other threads ask the delivery to hang up. Only the owner of an account, and RESUME,
  take a nickname at once: the thread that had it can do nothing more under that nickname.
- A descriptor is closed by the delivery, as its last work for that client.
- No thread holds two locks, or uses the disk while it holds the directory's.

A user with `nc` is an IRC client in other words: what they type becomes the same messages
(`protocol.compose`), and what they are told is described (`protocol.describe`).

Contents: Constants; Errors; Dialects; Command parameters; Capabilities; Clients; Channels;
Events; The directory; Limits; The store; The delivery; Sessions; Commands: registration,
accounts, messages, channels, users, history, moderation, server; The command table; The server;
The command line.
"""

import argparse
import collections
import contextlib
import errno
import functools
import gc
import getpass
import hashlib
import hmac
import ipaddress
import itertools
import json
import logging
import os
import queue
import re
import selectors
import shlex
import signal
import socket
import sqlite3
import stat
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import (
    Any,
    BinaryIO,
    Callable,
    Deque,
    Dict,
    FrozenSet,
    Iterable,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    NoReturn,
    Optional,
    Sequence,
    Set,
    TextIO,
    Tuple,
    TypeVar,
    Union,
)

import protocol
from protocol import MAX_PLAIN_LINE, SERVER, VERSION, Message, ModeChange, ReplyError

try:
    import resource
except ImportError:  # Windows, which has no such limits
    resource = None  # type: ignore[assignment]

log = logging.getLogger("hubbub")
_Result = TypeVar("_Result")

# Constants
# ---------

# Buffers
RECEIVE_SIZE = 16384  # bytes read at once
MAX_PENDING = 10000  # events that wait for the delivery; beyond it readers wait
MAX_BATCH = 500  # events delivered together: bounds what a batch adds to an outbox
MAX_BACKLOG = 20000  # rows that wait for a disk which does not take them

# What a client may cause, in tokens of --rate-limit
BURST = 100  # tokens at once
LINES_A_TOKEN = 20  # lines of a reply for a token
LOOKS_A_TOKEN = 200  # users or channels looked at for a token

# What a client may have
MAX_CHANNELS = 50  # channels of one client
MAX_WATCHES = 100  # nicknames in MONITOR
MAX_NAME_TRIES = 10  # usernames that a person with nc may try
MAX_LABEL = 64  # bytes; a longer label is ignored (labeled-response)
MAX_REASON = 200  # characters of an away message, and of the reason for a kick or a ban
MAX_REALNAME = 100  # characters
MAX_CONDITIONS = 20  # of one LIST

# What the server has
MAX_ALL_CHANNELS = 10000
MAX_ABANDONED = 1000  # empty channels that are kept though no account has a say in them
MAX_BANS = 100  # ban masks of a channel
MAX_WHOWAS = 500  # nicknames that WHOWAS remembers

# The history
RECALLED = 20  # earlier messages that a joining client is shown
MAX_HISTORY = 500  # earlier messages in one answer
MAX_KEPT_TAGS = 512  # bytes of a message's tags that are stored; longer ones are dropped
LAST = 1 << 62  # beyond the number of every event
NAMES_SIZE = 180  # bytes of names in a line, beside the longest of all other parameters

# Times, in seconds
PROMPT_AFTER = 1.0  # of silence before a new connection is asked for a username
LINGER = 2.0  # for an ended client to take what was sent, and to close
SHUTDOWN_TIME = 1.0  # the same for all of them when the server stops
PATIENCE = 1.0  # that the chat waits for the disk before it goes on without
RETRY_AFTER = 5.0  # between attempts to use a disk that failed
PAUSE = 0.0004  # between batches, for more to come
CLEANING_INTERVAL = 3600.0  # between searches for messages that are too old
UPKEEP_INTERVAL = 2.0  # between checks for accounts changed by another process
FOREVER = 86400.0  # a timeout where there is none

HISTORY_FAILS = "The chat goes on, but what is said is not being kept for later."
HISTORY_WORKS = "What is said is being kept again."
# Limiters: attempts a second from one address, and attempts at once
PASSWORDS = (0.1, 5)  # wrong passwords for one account
GUESSES = (1.0, 300)  # wrong passwords in all: a classroom may share an address
REGISTRATIONS = (1 / 60, 60)  # new accounts

NO_ACCOUNTS = "This server keeps no accounts."


class Options(NamedTuple):
    """Options of the command line, with its defaults. 0 turns a limit off."""

    host: str = "0.0.0.0"
    port: int = protocol.PORT
    network: str = "Hubbub"  # the name that people see
    server_name: str = "hubbub.local"  # the name that IRC clients see
    lobby: str = "#lobby"  # "" places nobody in a channel
    motd: Tuple[str, ...] = ()
    password: str = ""
    rate_limit: float = 10.0  # lines a second
    max_clients: int = 10000
    max_per_address: int = 256
    register_timeout: float = 30.0  # seconds
    ping_interval: float = 60.0  # seconds
    max_sendq: int = 1024 * 1024  # bytes
    data: str = ""  # folder of the store; "" keeps nothing
    history_days: float = 0.0  # days to keep history; 0 is forever


# Errors
# ------


class Disconnect(Exception):
    """This connection is to end: the reason for others, and a last line for its client, or ""."""

    def __init__(self, reason: str, farewell: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.farewell = farewell


