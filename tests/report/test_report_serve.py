"""``serve``: the page as it goes, to those alone who have its address, and only to be read."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from page_journals import RUN

from journal.errors import JournalUnavailable
from matterstack.cli.serving import Server

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "matterstack.cli.main"]
WAIT_S = 30


class Served:
    """A server in a process of its own."""

    def __init__(self, journal, *options):
        self.process = subprocess.Popen(
            [*COMMAND, "serve", RUN, "--journal", str(journal), *options],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.address = self.process.stdout.readline().strip()
        self.port, self.path = urlsplit(self.address).port, urlsplit(self.address).path

    def ask(self, path=None, method="GET", host=None, **headers):
        """Return code, headers and body of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        with closing(connection):
            connection.putrequest(method, self.path if path is None else path, skip_host=True)
            for name in [f"127.0.0.1:{self.port}"] if host is None else host:
                connection.putheader("Host", name)
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders()
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read().decode()

    def raw(self, data):
        """Return what comes back for these bytes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=WAIT_S) as connected:
            connected.sendall(data)
            connected.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connected.recv(65536), b""))

    def end(self):
        self.process.terminate()
        self.process.communicate(timeout=WAIT_S)


@pytest.fixture
def served(story):
    story.task(0, "a")
    story.attempt("a", at=1)
    made = Served(story.write())
    yield made
    made.end()


def test_it_gives_the_page_and_its_data(served):
    code, headers, body = served.ask()
    assert code == 200
    assert 'data-live="live"' in body
    code, _, body = served.ask(served.path + "data.json?after=0")
    assert (code, json.loads(body)["counts"]) == (200, [0, 1, 0, 0])
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Content-Type-Options"] == "nosniff"
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy


def test_it_listens_on_loopback_only(served):
    listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    mine = [one[1] for one in listening if one[3] == "0A" and one[1].endswith(f":{served.port:04X}")]
    assert mine == [f"0100007F:{served.port:04X}"]


def test_each_has_a_token_of_its_own(served, story):
    other = Served(story.path)
    try:
        assert len(served.path) > 40
        assert served.path != other.path
        assert other.ask(served.path)[0] == 403
    finally:
        other.end()


@pytest.mark.parametrize(
    "change",
    [
        lambda path: "/",
        lambda path: "",
        lambda path: path[:-2] + "/",
        lambda path: path[:-1] + "A/",
        lambda path: path.swapcase(),
        lambda path: "/x" + path,
        lambda path: "/%00" + path[1:],
        lambda path: "/../" + path[1:-1] + "\xe9/",
        lambda path: path[:-1] + "%2f",
    ],
)
def test_a_wrong_token_gets_nothing(served, change):
    path = change(served.path) or "*"
    answer = served.raw(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n\r\n".encode("latin-1"))
    assert answer.split()[1] == b"403"
    assert served.path.strip("/").encode() not in answer
    assert b"<" not in answer


@pytest.mark.parametrize("hosts", [["evil.example"], ["127.0.0.1"], ["127.0.0.1:1"], ["0.0.0.0:{port}"], [], None])
def test_another_host_gets_nothing(served, hosts):
    right = f"127.0.0.1:{served.port}"
    names = [right, "evil.example"] if hosts is None else [host.format(port=served.port) for host in hosts]
    assert served.ask(host=names)[0] == 421
    assert served.ask(host=[f"localhost:{served.port}"])[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW"])
def test_whatever_would_write_is_refused(served, method):
    code, headers, body = served.ask(method=method)
    assert code == (405 if method != "BREW" else 501)
    assert body in ("This page is only to be read.\n", "This is not understood.\n")
    if code == 405:
        assert headers["Allow"] == "GET, HEAD"


def test_head_is_get_without_the_body(served):
    code, headers, body = served.ask(method="HEAD")
    assert (code, body) == (200, "")
    assert int(headers["Content-Length"]) > 1000


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\xff\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"",
    ],
)
def test_no_proper_request_is_refused_and_the_next_is_answered(served, data):
    assert b"Traceback" not in served.raw(data)
    assert served.ask()[0] == 200
    served.process.terminate()
    assert served.process.communicate(timeout=WAIT_S)[1] == ""


@pytest.mark.parametrize(
    "rest", ["x", "data.json", "data.json?after=-1", "data.json?after=" + "9" * 40, "../etc/passwd"]
)
def test_there_is_nothing_else(served, rest):
    assert served.ask(served.path + rest)[0] == 404


def test_news_is_given_when_it_comes(served, story):
    _, _, body = served.ask(served.path + "data.json?after=0")
    position, answers = json.loads(body)["position"], []
    asking = threading.Thread(target=lambda: answers.append(served.ask(f"{served.path}data.json?after={position}")))
    asking.start()
    story.completed("a", 9)
    story.write()
    asking.join(WAIT_S)
    ((code, _, body),) = answers
    assert (code, json.loads(body)["counts"]) == (200, [0, 0, 1, 0])
    assert json.loads(body)["position"] > position


def test_the_page_follows_the_run_and_keeps_what_was_chosen(served, story, chromium):
    context = chromium.new_context(viewport={"width": 1000, "height": 800})
    trouble, page = [], context.new_page()
    page.set_default_timeout(WAIT_S * 1000)
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("console", lambda said: trouble.append(said.text) if said.type == "error" else None)
    with closing(context):
        page.goto(served.address)
        page.locator(".tile.RUNNING b", has_text="1").wait_for()
        page.click("#states [data-state=PENDING]")
        page.click("#tasks td button")
        story.completed("a", 9)
        story.task(1, "b")
        story.write()
        page.locator(".tile.COMPLETED b", has_text="1").wait_for()
        page.locator("#task dd", has_text="COMPLETED").first.wait_for()
        assert page.locator("#tasks td button").all_inner_texts() == ["a"]  # b is pending
        assert trouble == []
        served.end()
        page.locator("#trouble", has_text="No news").wait_for()


def test_a_port_that_is_taken_is_said(served, story):
    done = subprocess.run(
        [*COMMAND, "serve", RUN, "--journal", str(story.path), "--port", str(served.port)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=WAIT_S,
    )  # fmt: skip
    assert done.returncode == 2
    assert f"port {served.port}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [(JournalUnavailable("it is locked"), 503, False), (KeyError("a mistake of ours"), None, True)],
)
def test_what_cannot_be_read_is_said_and_a_mistake_of_ours_is_not_taken_for_that(error, code, told, capfd):
    class Broken:
        def newest(self):
            raise error

    server = Server(0, Broken())
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=WAIT_S)
        with closing(connection):
            connection.request("GET", f"/{server.token}/")
            if code is None:
                with pytest.raises(http.client.RemoteDisconnected):
                    connection.getresponse()
            else:
                assert connection.getresponse().status == code
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    shown = capfd.readouterr().err
    assert ("a mistake of ours" in shown) == told
    assert server.token not in shown
