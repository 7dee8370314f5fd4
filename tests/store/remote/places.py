"""The places that tests share a store at: a URL, the files behind it, and a wire before its server.

A place that is reached by a server has these:

- `url`, and `strange_url`, with credentials that it does not know
- `wire`, and `close()`
- `forbid_writing()`
- `read(name)`, `write(name, content)`, `names()`: its files, by another way than the URL
"""

from tests.file_server import FileServer
from tests.s3_server import DENIED
from tests.store.remote.sftp_server import KEY, SFTPServer
from tests.store.remote.webdav_server import WebDAVServer
from tests.wire import Wire

PASSWORD = "hunter%2F22"  # as a URL has it; the servers know hunter/22
WRONG = "other%2F77"


class Folder:
    """Files in a folder, which servers may give out."""

    wire = None

    def __init__(self, folder, environment):
        self.root = folder / "there"
        self.root.mkdir()
        self.files = self.root / "deep" / "store"  # which is not there yet
        self.url = str(self.files)

    def read(self, name):
        return (self.files / name).read_bytes()

    def write(self, name, content):
        (self.files / name).parent.mkdir(parents=True, exist_ok=True)
        (self.files / name).write_bytes(content)

    def remove(self, name):
        (self.files / name).unlink()

    def names(self):
        return {p.relative_to(self.files).as_posix()
                for p in self.files.rglob("*") if p.is_file()}

    def close(self):
        pass


class Served(Folder):
    """A folder behind a server and a wire, for those who know the password."""

    def __init__(self, folder, environment):
        super().__init__(folder, environment)
        self.server = self.start()
        self.wire = Wire(self.server.port)
        self.url, self.strange_url = (
            f"{self.scheme}://me:{password}@127.0.0.1:{self.wire.port}/deep/store"
            for password in (PASSWORD, WRONG))

    def forbid_writing(self):
        self.server.forbid_writing()

    def close(self):
        self.wire.close()
        self.server.close()


class SFTP(Served):
    scheme = "sftp"

    def start(self):
        return SFTPServer(self.root)

    def __init__(self, folder, environment):
        super().__init__(folder, environment)
        (folder / "home" / ".ssh").mkdir(parents=True)
        (folder / "home" / ".ssh" / "known_hosts").write_text(
            f"[127.0.0.1]:{self.wire.port} {KEY.get_name()} {KEY.get_base64()}\n")
        environment.setenv("HOME", str(folder / "home"))
        environment.delenv("SSH_AUTH_SOCK", raising=False)


class WebDAV(Served):
    scheme = "webdav"

    def start(self):
        return WebDAVServer(self.root)


class HTTP:
    """A server that keeps what is `PUT` in memory."""

    def __init__(self, folder, environment):
        self.server = FileServer("me", "hunter/22")
        self.wire = Wire(self.server.port)
        self.url, self.strange_url = (
            f"http://me:{password}@127.0.0.1:{self.wire.port}/store"
            for password in (PASSWORD, WRONG))

    def forbid_writing(self):
        self.server.forbid_writing()

    def read(self, name):
        return self.server.files[f"/store/{name}"]

    def write(self, name, content):
        self.server.files[f"/store/{name}"] = content

    def remove(self, name):
        del self.server.files[f"/store/{name}"]

    def names(self):
        return {path.removeprefix("/store/") for path in self.server.files}

    def close(self):
        self.wire.close()
        self.server.close()


class S3:
    """moto's server, which many tests share."""

    def __init__(self, server, environment):
        self.server, self.environment = server, environment
        self.wire, self.url = server.wire, server.url
        self.read, self.write, self.remove = server.read, server.write, server.remove

    @property
    def strange_url(self):
        """Has the server ask for credentials from now on, and the machine bring others."""
        self.server.ask_who(True)
        self.environment.setenv("AWS_SECRET_ACCESS_KEY", "other/77")
        return self.url

    def forbid_writing(self):
        self.wire.answers = {"PUT": DENIED}

    def names(self):
        self.server.ask_who(False)
        return set(self.server.names())

    def close(self):
        self.server.ask_who(False)


KINDS = {"folder": Folder, "http": HTTP, "sftp": SFTP, "webdav": WebDAV}
"""Those that start a server of their own; s3 has one that all tests share."""
