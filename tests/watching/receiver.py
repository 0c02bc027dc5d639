"""A receiver of deliveries for tests: the one of the documentation's kind, and ill-behaved ones."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Receiver:
    """Keeps (headers, body) of each request; answers from a list, then 204 for ever."""

    def __init__(self, *answers, pause_s: float = 0.0) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.answers, self.pause_s = list(answers), pause_s
        self.url = ""

    @contextmanager
    def serving(self, port: int = 0):
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.got.append(({k.lower(): v for k, v in self.headers.items()}, body))
                time.sleep(outer.pause_s)
                answer = outer.answers.pop(0) if outer.answers else 204
                code, more = answer if isinstance(answer, tuple) else (answer, {})
                if code == 0:  # closes the connection without an answer
                    return
                self.send_response(code)
                for name, value in more.items():
                    self.send_header(name, value)
                self.end_headers()

            do_GET = do_POST  # what a followed redirect would send

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{server.server_port}/hook"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
