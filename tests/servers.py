"""A web server on loopback, of a folder, that can be told to misbehave."""

import contextlib
import functools
import http.server
import pathlib
import threading
from collections.abc import Iterator


class Web(http.server.ThreadingHTTPServer):
    """Serves a folder, with ranges.

    Attributes:
      asked: (method, path, where it shall begin) of each request.
      cut: by path, after how many bytes the line goes dead, once.
      status: by path, what is answered in place of the file.
      ranges: whether it can begin in the middle of a file.
    """

    daemon_threads = True

    def __init__(self, folder: pathlib.Path):
        super().__init__(("127.0.0.1", 0), functools.partial(_Handler, directory=str(folder)))
        self.asked: list[tuple[str, str, int]] = []
        self.cut: dict[str, int] = {}
        self.status: dict[str, int] = {}
        self.ranges = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.SimpleHTTPRequestHandler):
    server: Web

    def log_message(self, *args):
        pass

    def send_head(self):
        asked = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-")
        self.start = int(asked) if self.server.ranges else 0
        self.server.asked.append((self.command, self.path, self.start))
        if self.path in self.server.status:
            self.send_error(self.server.status[self.path])
            return None
        return super().send_head()

    def send_response(self, code, message=None):
        super().send_response(206 if code == 200 and self.start else code, message)

    def send_header(self, name, value):
        super().send_header(name, str(int(value) - self.start) if name == "Content-Length" and self.start else value)

    def copyfile(self, source, outputfile):
        source.seek(self.start)
        data = source.read()
        if (most := self.server.cut.pop(self.path, None)) is not None:
            outputfile.write(data[:most])
            outputfile.flush()
            self.connection.close()
            return
        outputfile.write(data)


@contextlib.contextmanager
def serving(folder: pathlib.Path) -> Iterator[Web]:
    """A server of a folder."""
    with Web(folder) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
