"""A server of SFTP on this machine: paramiko's, over a folder, for those who know its password."""

import errno
import os
import socket
import threading
from pathlib import Path

import paramiko

from tests.wire import clients, close

KEY = paramiko.ECDSAKey.generate()


class Door(paramiko.ServerInterface):
    may_write = True

    def __init__(self):
        self.asked = []

    def check_auth_password(self, username, password):
        self.asked.append(username)
        is_known = (username, password) == ("me", "hunter/22")
        return paramiko.AUTH_SUCCESSFUL if is_known else paramiko.AUTH_FAILED

    def get_allowed_auths(self, username):
        return "password"

    def check_channel_request(self, kind, chanid):
        return paramiko.OPEN_SUCCEEDED


def answered(call):
    """Returns the result of a system call, or its error as a status of SFTP."""
    def answer(*arguments):
        try:
            found = call(*arguments)
            return paramiko.SFTP_OK if found is None else found
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno)
    return answer


class Files(paramiko.SFTPServerInterface):
    def __init__(self, server, root):
        super().__init__(server)
        self.root, self.door = root, server
        self._files = []

    def session_ended(self):
        """Closes what a client that went away left open."""
        for file in self._files:
            file.close()

    def _at(self, path):
        return self.root / self.canonicalize(path).lstrip("/")

    def _check_may_write(self):
        if not self.door.may_write:
            raise PermissionError(errno.EACCES, "read-only")

    @answered
    def stat(self, path):
        return paramiko.SFTPAttributes.from_stat(self._at(path).stat())

    lstat = stat

    @answered
    def list_folder(self, path):
        listed = []
        for found in self._at(path).iterdir():
            listed.append(paramiko.SFTPAttributes.from_stat(found.stat(), found.name))
        return listed

    @answered
    def open(self, path, flags, attributes):
        if flags & os.O_WRONLY:
            self._check_may_write()
        handle = paramiko.SFTPHandle(flags)
        mode = "r+b" if flags & (os.O_WRONLY | os.O_RDWR) else "rb"
        handle.readfile = handle.writefile = os.fdopen(os.open(self._at(path), flags, 0o644), mode)
        self._files.append(handle.readfile)
        handle.stat = lambda: paramiko.SFTPAttributes.from_stat(os.fstat(handle.readfile.fileno()))
        return handle

    @answered
    def mkdir(self, path, attributes):
        self._check_may_write()
        self._at(path).mkdir()

    @answered
    def remove(self, path):
        self._at(path).unlink()

    @answered
    def rename(self, old, new):
        if self._at(new).exists():
            raise FileExistsError(errno.EEXIST, "it exists")
        self._at(old).rename(self._at(new))

    @answered
    def posix_rename(self, old, new):
        self._at(old).replace(self._at(new))


class SFTPServer:
    def __init__(self, root: Path):
        self._root = root
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._transports = []
        self._door = Door()
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def asked(self):
        """The users for whom a password was given, right or wrong."""
        return self._door.asked

    def forbid_writing(self):
        self._door.may_write = False

    def close(self):
        close(self._listener)
        for transport in self._transports:
            transport.close()

    def _accept(self):
        for client in clients(self._listener):
            transport = paramiko.Transport(client)
            transport.add_server_key(KEY)
            transport.set_subsystem_handler("sftp", paramiko.SFTPServer, Files, self._root)
            transport.start_server(event=threading.Event(), server=self._door)
            self._transports.append(transport)
