"""A server of files by HTTP, with GET, HEAD and PUT, for those who know its password."""

import base64
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self._answer(with_content=True)

    def do_HEAD(self):
        self._answer(with_content=False)

    def do_PUT(self):
        content = b"".join(self._chunks())
        if self._is_known():
            if self.server.takes:
                self.server.files[self.path] = content
            self._say(201 if self.server.takes else 403)

    def _answer(self, with_content):
        if self._is_known():
            found = self.server.files.get(self.path)
            self._say(404 if found is None else 200, found or b"", with_content)

    def _is_known(self):
        if self.headers.get("Authorization") == self.server.password:
            return True
        self._say(401)
        return False

    def _say(self, status, content=b"", with_content=True):
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if with_content:
            self.wfile.write(content)

    def _chunks(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            yield self.rfile.read(int(self.headers["Content-Length"]))
            return
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def log_message(self, *words):
        pass


class FileServer(ThreadingHTTPServer):
    def __init__(self, user, password):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {}
        self.takes = True
        self.port = self.server_address[1]
        self.password = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        self._thread = threading.Thread(
            target=self.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def forbid_writing(self):
        self.takes = False

    def handle_error(self, request, client_address):
        pass  # a connection was cut

    def close(self):
        self.shutdown()
        self.server_close()
        self._thread.join()
