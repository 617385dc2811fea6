"""The page that hands out the client: pure functions, then browsers, then what they download."""

import contextlib
import http.client
import io
import re
import shutil
import subprocess
import sys
import threading
import time
import zipfile

import pytest
from harness import PROGRAM, TIMEOUT

import protocol
import server
from server import MAX_REQUEST, parse_request, respond

MODULES = ["client.py", "protocol.py", "server.py"]
APP = "/hubbub.pyz"
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


# Requests


@pytest.mark.parametrize(
    ("data", "path"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "/"),
        (b"GET / HTTP/1.0\r\n\r\n", "/"),
        (b"HEAD /hubbub.pyz HTTP/1.1\r\nhost:x\r\n\r\n", "/hubbub.pyz"),
        (b"GET /?from=mail HTTP/1.1\r\nHost: x\r\n\r\n", "/"),
        (b"GET http://192.168.1.20:12001/ HTTP/1.1\r\nHost: x\r\n\r\n", "/"),
        (b"GET / HTTP/1.1\nHost: x\n\n", "/"),
        (b"GET /%00%0d%0a HTTP/1.1\r\nHost: x\r\nX: \xff\r\n\r\nbody", "/%00%0d%0a"),
    ],
)
def test_requests_are_read(data, path):
    assert parse_request(data) == path


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nNICK evil\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1 \r\nHost: x\r\n\r\n",
        b"GET * HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n",
        b"\r\n\r\n",
        b"",
    ],
)
def test_wrong_requests_are_refused(data):
    with pytest.raises(protocol.ProtocolError):
        parse_request(data)
    answer = respond(data, "192.168.1.20", 12001, "School", b"app")
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")


def request_of(size):
    start = b"GET / HTTP/1.1\r\nHost: x\r\nCookie: "
    return start + b"c" * (size - len(start) - 4) + b"\r\n\r\n"


@pytest.mark.parametrize(("size", "status"), [(-1, b"200"), (0, b"200"), (1, b"400")])
def test_request_has_a_longest_size(room, size, status):
    """However it arrives."""
    data = request_of(MAX_REQUEST + size)
    for cut in (0, 1000, MAX_REQUEST - 1):
        peer = room.connect()
        for piece in (data[:cut], data[cut:]):
            peer.send_bytes(piece)
        assert peer.rest_of_bytes().startswith(b"HTTP/1.1 " + status)


# Answers


def answer_to(data, app=b"app", network="School"):
    """Return status, headers and body of an answer."""
    head, _, body = respond(data, "192.168.1.20", 12001, network, app).partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return int(first.split()[1]), dict(line.split(": ", 1) for line in lines), body


def get(path, *headers):
    return "\r\n".join(["GET %s HTTP/1.1" % path, "Host: evil.example", *headers, "", ""]).encode()


@pytest.mark.parametrize(
    ("path", "app", "status", "kind"),
    [
        ("/", b"app", 200, "text/html; charset=utf-8"),
        ("/", b"", 200, "text/html; charset=utf-8"),
        (APP, b"app", 200, "application/zip"),
        (APP, b"", 404, "text/plain; charset=utf-8"),
        ("/favicon.ico", b"app", 404, "text/plain; charset=utf-8"),
        ("/../server.py", b"app", 404, "text/plain; charset=utf-8"),
    ],
)
def test_answers_to_paths(path, app, status, kind):
    """With the headers that keep a browser from doing more with them than it should."""
    found, headers, body = answer_to(get(path), app)
    assert (found, headers["Content-Type"]) == (status, kind)
    assert int(headers["Content-Length"]) == len(body) > 0
    assert (headers["Connection"], headers["Cache-Control"]) == ("close", "no-cache")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Security-Policy"] == "default-src 'none'; style-src 'unsafe-inline'"
    is_file = status == 200 and path == APP
    assert ("Content-Disposition" in headers) == is_file == (body == b"app")
    head_status, head_headers, head_body = answer_to(get(path).replace(b"GET", b"HEAD"), app)
    assert (head_status, head_headers, head_body) == (status, headers, b"")


def test_page_needs_nothing_else_and_believes_nothing():
    """Neither scripts nor other files; the network's name is text, the request's host is unused."""
    _, _, body = answer_to(get("/"), network="<script>alert('1')</script> & \"Co\"")
    text = body.decode()
    assert "&lt;script&gt;alert(&#x27;1&#x27;)&lt;/script&gt; &amp; &quot;Co&quot;" in text
    assert not re.search("<(script|img|link|iframe|form|object)", text)
    assert re.findall(r'(?:href|src)="([^"]*)"', text) == [
        "https://www.python.org/downloads/",
        APP,
    ]
    assert text.count("<li>") == 3
    assert "width=device-width" in text
    assert "prefers-color-scheme: dark" in text
    assert "<code>192.168.1.20</code>, port <code>12001</code>" in text
    assert "nc 192.168.1.20 12001" in text
    assert "evil.example" not in text


def test_page_of_a_server_without_a_client_says_so():
    _, _, body = answer_to(get("/"), app=b"")
    assert b'href="%s"' % APP.encode() not in body
    assert b"this server has no client.py to give away" in body


# The client that it gives away


def test_app_holds_the_modules_and_the_address_and_is_the_same_each_time():
    app = server.make_app("192.168.1.20:12001")
    assert app.startswith(b"#!/usr/bin/env python3\n")
    with zipfile.ZipFile(io.BytesIO(app)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [*MODULES, "__main__.py"]
        for name in MODULES:
            assert archive.read(name) == (PROGRAM.parent / name).read_bytes()
        assert b"client.main(server='192.168.1.20:12001')" in archive.read("__main__.py")
    server.make_app.cache_clear()
    assert server.make_app("192.168.1.20:12001") == app
    assert server.make_app("10.0.0.5:12001") != app


def test_server_without_a_client_beside_it_gives_none_away(tmp_path):
    for name in ("server.py", "protocol.py"):
        shutil.copy(str(PROGRAM.parent / name), str(tmp_path / name))
    code = "import server; assert server.make_app('x:1') == b''"
    subprocess.run([sys.executable, "-c", code], cwd=str(tmp_path), check=True, timeout=TIMEOUT)


def test_server_in_an_app_gives_the_same_app_away(tmp_path):
    app = tmp_path / "hubbub.pyz"
    app.write_bytes(server.make_app("192.168.1.20:12001"))
    code = "import sys; sys.path.insert(0, %r); import server; sys.stdout.buffer.write(%s)"
    code %= (str(app), "server.make_app('192.168.1.20:12001')")
    command = [sys.executable, "-c", code]
    output = subprocess.check_output(command, cwd=str(tmp_path), timeout=TIMEOUT)
    assert output == app.read_bytes()


# Browsers


class Browser:
    """A client of HTTP."""

    def __init__(self, port):
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)

    def get(self, path, method="GET", **headers):
        """Return status, headers and body."""
        with contextlib.closing(self._connection):
            self._connection.request(method, path, headers=headers)
            response = self._connection.getresponse()
            return response.status, response.headers, response.read()


def test_browser_gets_the_page_and_the_client_of_the_address_it_asked(room):
    browser = Browser(room.server.port)
    status, _, page = browser.get("/", Host="evil.example")
    assert status == 200
    assert b"port <code>%d</code>" % room.server.port in page
    status, _, app = browser.get(APP, Host="evil.example")
    assert status == 200
    assert app == server.make_app("127.0.0.1:%d" % room.server.port)
    assert b"evil" not in page
    assert browser.get(APP, method="HEAD")[2] == b""
    assert browser.get("/x")[0] == 404
    assert browser.get("/", method="POST")[0] == 400
    assert room.names() == set()


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_curl_gets_the_client_under_its_name(room, tmp_path):
    address = "http://127.0.0.1:%d%s" % (room.server.port, APP)
    command = ["curl", "--silent", "--fail", "--remote-name", "--remote-header-name", address]
    subprocess.run(command, cwd=str(tmp_path), check=True, timeout=TIMEOUT)
    app = server.make_app("127.0.0.1:%d" % room.server.port)
    assert (tmp_path / "hubbub.pyz").read_bytes() == app


def test_a_class_behind_one_address_gets_page_and_client_without_a_wait(open_room, monkeypatch):
    """With the default limits; each request is charged."""
    waits = []
    monkeypatch.setattr(server.Session, "_pause", lambda self, wait: waits.append(wait))
    room = open_room(rate_limit=server.Options().rate_limit)
    for _ in range(30):
        browser = Browser(room.server.port)
        assert (browser.get("/")[0], browser.get(APP)[0]) == (200, 200)
    assert waits == []
    work = room.server.limits["work"]
    assert work._buckets["127.0.0.1"].balance(time.monotonic()) < server.ADDRESS_BURST - 100


@pytest.mark.parametrize("max_sendq", [0, 2000, 100000])
def test_slow_browser_gets_all_of_the_client(open_room, monkeypatch, max_sendq):
    """However little may wait in its outbox."""
    app = bytes(range(256)) * (3 << 12)  # more than the system buffers
    monkeypatch.setattr(server, "make_app", lambda at: app)
    room = open_room(max_sendq=max_sendq)
    blocked = threading.Event()
    monkeypatch.setattr(server.Session, "_pause", lambda self, wait: blocked.set())
    peer = room.connect(receive_buffer=4096)
    peer.send_bytes(get(APP))
    assert blocked.wait(TIMEOUT)
    assert peer.rest_of_bytes().endswith(app)


def test_browser_that_never_reads_is_ended(open_room, monkeypatch):
    """Its thread ends; others are served meanwhile."""
    monkeypatch.setattr(server, "MAX_REST", 0.2)
    monkeypatch.setattr(server, "LINGER", 0.2)
    monkeypatch.setattr(server, "make_app", lambda at: bytes(8 << 20))
    room = open_room()
    peer = room.connect(receive_buffer=4096)
    peer.send_bytes(get(APP))
    room.irc("alice").heard()
    room.wait_for_thread(peer)


@pytest.mark.parametrize("data", [b"GET ", GET[:-2], b"HEAD / HTTP/1.1\r\nNICK evil\r\n"])
def test_request_that_never_ends_is_given_the_time_to_register(open_room, data):
    """And no answer in another protocol."""
    peer = open_room(register_timeout=0.1).connect()
    peer.send_bytes(data)
    assert peer.rest_of_bytes() == b""
