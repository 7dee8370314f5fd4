"""A server of files by HTTP, with GET, HEAD and PUT, for those who know its password."""

import base64
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    password = "Basic " + base64.b64encode(b"me:hunter22").decode()

    def do_GET(self):
        self._answer(with_content=True)

    def do_HEAD(self):
        self._answer(with_content=False)

    def do_PUT(self):
        content = b"".join(self._chunks())
        if self._is_known():
            self.server.files[self.path] = content
            self._say(201)

    def _answer(self, with_content):
        if self._is_known():
            found = self.server.files.get(self.path)
            self._say(404 if found is None else 200, found or b"", with_content)

    def _is_known(self):
        if self.headers.get("Authorization") == self.password:
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
    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {}
        self._thread = threading.Thread(target=self.serve_forever, daemon=True)
        self._thread.start()

    def url(self, user="me:hunter22"):
        return f"http://{user}@127.0.0.1:{self.server_address[1]}/store"

    def close(self):
        self.shutdown()
        self.server_close()
        self._thread.join()
