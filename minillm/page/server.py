"""The page with a model behind it: a server for one person, on this machine.

It listens on the loopback device only. The address holds a random token, which other users of the
machine do not know; `Host` and `Origin` are checked, so that no other page can ask through a
browser (DNS rebinding, cross-site requests). Whatever is not one of its three answers is refused
with a number and nothing else. Nothing is fetched from anywhere.
"""

from __future__ import annotations

import base64
import hmac
import json
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypedDict

from ..errors import InputError, one_line
from ..machine.files import parse_json
from ..recording import Recording, to_bytes
from .patched import Change

MOST_BODY = 100_000  # bytes of a request
SLOW = 15  # seconds that a client may take to say what it wants, or to take what it is given
MOST_AT_ONCE = 32  # connections
WATCHING = 0.3  # seconds between two looks at what may change
STAYING = 5  # seconds between two signs of life
Prompt = str | list[int]


class Drawing(TypedDict, total=False):
    """How the next token is drawn, as decoding.Options has it."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    seed: int


class Asked(TypedDict, total=False):
    """What a page asks for: a text, or ids, to continue; how to draw, where not as at first; which
    lever to pull (page.levers)."""

    text: str
    ids: list[int]
    drawing: Drawing
    lever: str
    patch: Change  # what would follow from it, of the ids, in the place of a text
    again: bool  # after something that the server watches has changed


# run(prompt, asked, told) -> recordings, as they are made. told is given what is written meanwhile:
# {"word": ...}.
Run = Callable[[Prompt, Asked, Callable[[dict], None]], Iterable[Recording]]


HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Server(ThreadingHTTPServer):
    """Serves `page` (HTML) and answers texts by `run`, one at a time; names: hosts besides this
    machine's own by which it may be called, as a proxy's; state: what a text is continued anew for
    when it changes. InputError for a port that is taken."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = MOST_AT_ONCE

    def __init__(
        self,
        page: str,
        run: Run,
        port: int = 0,
        names: Iterable[str] = (),
        state: Callable[[], object] = lambda: None,
    ):
        self.page, self.run, self.state = page.encode(), run, state
        self.token = secrets.token_urlsafe(16)
        self.one_at_a_time = threading.Lock()
        self.places = threading.BoundedSemaphore(MOST_AT_ONCE)
        try:
            super().__init__(("127.0.0.1", port), Handler)
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or error
            raise InputError(
                f"port {port} cannot be had: {why}; leave it out for another"
            ) from None
        own = {f"{host}:{self.server_port}" for host in ("127.0.0.1", "localhost")}
        self.hosts = own | {name.lower() for name in names}

    @property
    def address(self) -> str:
        """What a browser opens."""
        return f"http://127.0.0.1:{self.server_port}/{self.token}/"

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self.places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever hangs up, or talks no HTTP, is not worth a traceback."""


class Handler(BaseHTTPRequestHandler):
    """One connection, which asks once."""

    server: Server
    timeout = SLOW
    server_version, sys_version = "minillm", ""

    def do_GET(self) -> None:
        """The page; and at "alive" a line now and then, whose end says that the server has gone."""
        if self.path.endswith("/alive"):
            return self._stay()
        if self._refused("/"):
            return
        self._begin(200, "text/html; charset=utf-8", len(self.server.page))
        self.wfile.write(self.server.page)

    def _stay(self) -> None:
        if self._refused("/alive"):
            return
        self._begin(200, "text/event-stream")
        with suppress(OSError):  # the page was closed
            while True:
                self.wfile.write(b":\n\n")
                time.sleep(STAYING)

    def do_POST(self) -> None:
        """A text to continue: what is written as lines of JSON, at last the recording."""
        if self._refused("/run"):
            return
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdecimal()) or len(length) > 9:
            return self.send_error(411)
        if int(length) > MOST_BODY:
            return self.send_error(413)
        try:
            asked = parse_json(self.rfile.read(int(length)), Asked, "the request")
            prompt = asked["ids"] if "ids" in asked else asked["text"]
        except (InputError, KeyError):
            return self.send_error(400)
        self._begin(200, "application/x-ndjson; charset=utf-8")
        try:
            state = self.server.state()
            self._run(prompt, asked)
            while state is not None:
                while (now := self.server.state()) == state:
                    time.sleep(WATCHING)
                    self._tell({"watching": True})
                state = now
                self._run(prompt, asked | {"again": True})
        except OSError:  # nobody listens any more
            pass

    def _run(self, prompt: Prompt, asked: Asked) -> None:
        """Continue a text, one at a time."""
        if not self.server.one_at_a_time.acquire(blocking=False):
            self._tell({"waiting": True})
            self.server.one_at_a_time.acquire()
        try:
            for recording in self.server.run(prompt, asked, self._tell):
                self._tell({"recording": base64.b64encode(to_bytes(recording)).decode()})
        except InputError as error:
            self._tell({"error": str(error)})
        except MemoryError:
            self._tell({"error": "not enough memory"})
        except OSError:
            raise
        except Exception as error:  # whose words are for the terminal alone
            self.log_error("%s: %s", type(error).__name__, one_line(str(error)))
            self._tell({"error": "something is wrong in minillm; the terminal says what"})
        finally:
            self.server.one_at_a_time.release()

    def _tell(self, what: dict) -> None:
        """One line; OSError where nobody listens any more, which ends the run."""
        self.wfile.write(json.dumps(what).encode() + b"\n")
        self.wfile.flush()

    def _refused(self, place: str) -> bool:
        """Whether somebody asks who may not, or for what is not here; it has been said then."""
        host = self.headers.get("Host", "").lower()
        origins = self.headers.get_all("Origin", [])
        own = all(o.lower() in (f"http://{host}", f"https://{host}") for o in origins)
        if self.command == "POST":  # a link to the page may stand anywhere
            own &= self.headers.get("Sec-Fetch-Site", "same-origin") == "same-origin"
        if host not in self.server.hosts or not own:
            self.send_error(403)
        elif not hmac.compare_digest(
            self.path.encode("utf-8", "replace"), f"/{self.server.token}{place}".encode()
        ):
            self.send_error(404)
        else:
            return False
        return True

    def _begin(self, status: int, kind: str, length: int | None = None) -> None:
        self.send_response_only(status)
        for name, value in (HEADERS | {"Content-Type": kind}).items():
            self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.send_header("Connection", "close")
        self.end_headers()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """A number, and nothing of what was asked."""
        self.close_connection = True
        with suppress(OSError):
            self._begin(code, "text/plain; charset=utf-8", 0)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is said of who asks what."""

    def log_error(self, format: str, *args: Any) -> None:
        """What broke while a text was continued."""
        if args and not isinstance(args[0], int):
            print("minillm explore:", format % args, file=sys.stderr, flush=True)
