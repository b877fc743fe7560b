"""``serve``: the page of a run as it goes, for browsers on this machine that were given the address."""

from __future__ import annotations

import argparse
import hmac
import re
import secrets
import sys
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Final

import msgspec

from matterstack.cli.main import is_ours
from matterstack.cli.page import workdirs
from matterstack.errors import MatterStackError
from matterstack.history import History
from matterstack.history.past import Past, located
from matterstack.report import Workdir, collect, page
from matterstack.runtime.opening import open_journal

HOST: Final = "127.0.0.1"
_LOOK_S: Final = 0.25
_POLL_S: Final = 20.0
_AT_ONCE: Final = 32  # requests
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",  # the address is the key
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_NOTHING: Final = "default-src 'none'"


def serve(arguments: argparse.Namespace) -> int:
    """Serve the page of a run until interrupted."""
    path = located(arguments.journal)
    with History(path) as history, Past(path) as past, open_journal(path, create=False, read_only=True) as journal:
        run = history.run(arguments.run)
        news = News(past, lambda: journal.head(run).version, run, workdirs(history, run))
        news.newest()
        with _listening(arguments.port, news) as server:
            print(f"{server.address}\nOnly this machine can read it, with this address. Ctrl-C ends it.", flush=True)
            server.serve_forever(poll_interval=_LOOK_S)
    return 0


class News:
    """What the page shows, collected anew only when the run has new events."""

    def __init__(self, past: Past, version: Callable[[], int], run: str, workdir: Workdir) -> None:
        self._past, self._version, self._run, self._workdir = past, version, run, workdir
        self._lock = threading.Lock()
        self._newest: dict[str, Any] = {"position": -1}

    def newest(self) -> dict[str, Any]:
        """Return the data as of now."""
        with self._lock:
            position = self._version()  # before the rest: what comes meanwhile is news the next time
            if position != self._newest["position"]:
                self._newest = {"position": position, **collect(self._past, self._run, self._workdir)}
            return self._newest

    def after(self, position: int) -> dict[str, Any] | None:
        """Return the data as soon as there is an event after ``position``; None if none comes for a while."""
        deadline = time.monotonic() + _POLL_S
        while self._version() <= position:
            if time.monotonic() > deadline:
                return None
            time.sleep(_LOOK_S)
        return self.newest()


class Server(ThreadingHTTPServer):
    """Listens on loopback; its address has a random token, without which it answers nothing."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int, news: News) -> None:
        self.news, self.token = news, secrets.token_urlsafe(32)
        self._free = threading.BoundedSemaphore(_AT_ONCE)
        super().__init__((HOST, port), Answer)
        self.hosts = (f"{HOST}:{self.server_port}", f"localhost:{self.server_port}")
        self.address = f"http://{self.hosts[0]}/{self.token}/"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, or hang up where too many are at it."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and make room for another."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Tell a mistake of ours on standard error; a browser that went away is no trouble."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class Answer(BaseHTTPRequestHandler):
    """One request: refused unless host, method and token are right."""

    server: Server
    timeout: ClassVar[float] = 30.0  # for the request to be sent

    def do_GET(self) -> None:
        """Answer with the page or with news for it."""
        if (self.headers.get_all("Host") or []) not in [[host] for host in self.server.hosts]:
            self._say(HTTPStatus.MISDIRECTED_REQUEST, "This host is not served here.")
            return
        _, _, rest = self.path.partition("/")
        token, _, rest = rest.partition("/")
        if not self.path.startswith("/") or not hmac.compare_digest(
            token.encode("utf-8", "surrogateescape"), self.server.token.encode()
        ):
            self._say(HTTPStatus.FORBIDDEN, "The address is not complete; `matterstack serve` printed it.")
            return
        try:
            self._answer(rest)
        except Exception as error:
            if not is_ours(error):
                raise
            # What cannot be read now may be the next time; the page says that it tries.
            self._say(HTTPStatus.SERVICE_UNAVAILABLE, "The journal could not be read; `matterstack status` says why.")

    do_HEAD = do_GET  # noqa: N815  # names that the base class looks for

    def _answer(self, rest: str) -> None:
        if rest == "":
            made = page(self.server.news.newest(), live=True)
            self._send(HTTPStatus.OK, "text/html; charset=utf-8", made.html.encode(), made.policy)
        elif asked := re.fullmatch(r"data\.json\?after=(\d{1,18})", rest):
            data = self.server.news.after(int(asked[1]))
            if data is None:
                self._send(HTTPStatus.NO_CONTENT)
            else:
                self._send(HTTPStatus.OK, "application/json", msgspec.json.encode(data))
        else:
            self._say(HTTPStatus.NOT_FOUND, "There is nothing here.")

    def _refuse(self) -> None:
        self.close_connection = True
        self._say(HTTPStatus.METHOD_NOT_ALLOWED, "This page is only to be read.")

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = do_CONNECT = _refuse  # noqa: N815

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """Refuse what is no proper request, in few words that repeat none of it."""
        self.close_connection = True
        self._say(code, "This is not understood.")

    def _say(self, code: int, text: str) -> None:
        self._send(code, "text/plain; charset=utf-8", f"{text}\n".encode())

    def _send(self, code: int, kind: str = "", body: bytes = b"", policy: str = _NOTHING) -> None:
        self.send_response(code)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header(
            "Content-Security-Policy", policy if policy == _NOTHING else f"{policy}; frame-ancestors 'none'"
        )
        if code == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        if kind:
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def version_string(self) -> str:
        """Return the server's name, without versions of anything."""
        return "matterstack"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Log nothing: the address is the key."""


def _listening(port: int, news: News) -> Server:
    try:
        return Server(port, news)
    except (OSError, OverflowError) as error:
        raise MatterStackError(
            f"port {port} of {HOST} cannot be listened on: {error}. Nothing is served; leave --port out, and one that "
            "is free is taken."
        ) from error
