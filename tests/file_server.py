"""A web server on the loopback that serves bytes, ranges of them too, and misbehaves as it is told."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Request:
    """One request, as it came."""

    method: str
    path: str
    headers: dict[str, str]
    query: str = ""


@dataclass
class FileServer:
    """Serve `files` by path; paths in `dynamic` are answered by a function of the request."""

    files: dict[str, bytes] = field(default_factory=dict)
    dynamic: dict[str, Callable[[Request, bytes], tuple[int, dict[str, str], bytes]]] = field(default_factory=dict)
    headers: Callable[[str], dict[str, str]] = lambda _path: {}
    """Further headers of a file."""
    cut_after: list[int] = field(default_factory=list)
    """Bytes after which the connection is cut, one entry for each of the next files that are sent."""
    refusals: list[int] = field(default_factory=list)
    """Status of the next answers, instead of a file."""
    has_ranges: bool = True
    requests: list[Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._make_handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def gets(self, path: str) -> list[Request]:
        return [request for request in self.requests if request.method == "GET" and request.path == path]

    def _make_handler(server: "FileServer") -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server._answer(self)

            do_HEAD = do_POST = do_DELETE = do_GET

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        path, _, query = handler.path.partition("?")
        request = Request(handler.command, path, dict(handler.headers), query)
        self.requests.append(request)
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        if self.refusals and handler.command == "GET":
            self._send(handler, self.refusals.pop(0), {}, b"not now")
        elif path in self.dynamic:
            self._send(handler, *self.dynamic[path](request, body))
        elif path in self.files:
            self._send_file(handler, path)
        else:
            self._send(handler, 404, {"X-Error-Code": "EntryNotFound"}, b"")

    def _send_file(self, handler: BaseHTTPRequestHandler, path: str) -> None:
        content, wanted = self.files[path], handler.headers.get("Range", "")
        headers = {**self.headers(path), **({"Accept-Ranges": "bytes"} if self.has_ranges else {})}
        if not wanted or not self.has_ranges:
            return self._send(handler, 200, headers, content)
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        start, end = int(first), min(int(last) + 1 if last else len(content), len(content))
        if start >= len(content):
            return self._send(handler, 416, {"Content-Range": f"bytes */{len(content)}"}, b"")
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
        return self._send(handler, 206, headers, content[start:end])

    def _send(self, handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        if handler.command == "HEAD":
            return
        if self.cut_after and status in (200, 206) and handler.path.partition("?")[0] in self.files:
            handler.wfile.write(body[: self.cut_after.pop(0)])
            handler.close_connection = True
        else:
            handler.wfile.write(body)
