"""A server of WebDAV on this machine: wsgidav, over a folder, for those who know its password."""

import threading
from pathlib import Path

from werkzeug.serving import make_server
from werkzeug.wsgi import get_input_stream
from wsgidav.fs_dav_provider import FileResource, FilesystemProvider
from wsgidav.wsgidav_app import WsgiDAVApp


class File(FileResource):
    """A file that is closed also where its upload was cut; wsgidav leaves it to the collector."""

    def begin_write(self, **options):
        self._written = super().begin_write(**options)
        return self._written

    def end_write(self, **options):
        self._written.close()
        super().end_write(**options)


class Files(FilesystemProvider):
    def get_resource_inst(self, path, environ):
        found = super().get_resource_inst(path, environ)
        if isinstance(found, FileResource):
            return File(path, environ, self._loc_to_file_path(path, environ))
        return found


class WebDAVServer:
    def __init__(self, root: Path):
        self._files = Files(str(root), fs_opts={})
        app = WsgiDAVApp({
            "provider_mapping": {"/": self._files},
            "simple_dc": {"user_mapping": {"*": {"me": {"password": "hunter/22"}}}},
            "http_authenticator": {"accept_basic": True, "accept_digest": False,
                                   "default_to_digest": False},
            "logging": {"enable": False}, "verbose": 0,
        })

        def within_length(environ, start):  # wsgidav reads on, and waits, where the body has ended
            return app(environ | {"wsgi.input": get_input_stream(environ)}, start)

        self._server = make_server("127.0.0.1", 0, within_length, threaded=True)
        self.port = self._server.port
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def forbid_writing(self):
        self._files.readonly = True

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
