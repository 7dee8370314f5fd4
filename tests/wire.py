"""A wire before a server: it counts, cuts and slows what goes over it."""

import contextlib
import re
import socket
import threading

REQUEST = re.compile(rb"^(GET|HEAD|PUT|POST|DELETE) (\S+) HTTP/1\.1\r\n", re.MULTILINE)


def clients(listener):
    """The sockets of those who connect, until the listener is closed."""
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        yield client


def close(listener):
    """Has `clients` end."""
    with contextlib.suppress(OSError):  # a Mac's refuses it
        listener.shutdown(socket.SHUT_RDWR)
    listener.close()


class Wire:
    """A TCP proxy before a server. What is set on it holds for what comes after.

    `cut_after`: the bytes of an answer after which its connection breaks; `cuts`: how many may
    still break; `cut_sent_after`: the bytes of what is sent after which any connection breaks;
    `is_away`: connections break at once; `holds`: the methods to which no answer comes,
    until it is mended; `answers`: what is answered to a method in the server's place.
    """

    def __init__(self, port):
        self.upstream = port
        self.requests = []
        self.sent = self.received = 0
        self._method = ""  # of the last request
        self._mended = threading.Event()
        self.mend()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def mend(self):
        self.cut_after, self.cuts = None, 0
        self.cut_sent_after = None
        self.is_away = False
        self.holds = set()
        self.answers = {}
        self._mended.set()  # those that were held go on
        self._mended = threading.Event()

    def forget(self):
        self.requests.clear()
        self.sent = self.received = 0

    def paths(self, *methods):
        """The paths that were asked for, without their queries, in order."""
        return [path for method, path in self.requests if not methods or method in methods]

    def close(self):
        self._mended.set()
        close(self._listener)

    def _accept(self):
        for client in clients(self._listener):
            if self.is_away:
                client.close()
                continue
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        """Passes on what goes over a connection, until either end breaks it."""
        with contextlib.suppress(OSError), client, \
                socket.create_connection(("127.0.0.1", self.upstream)) as server:
            there = threading.Thread(
                target=self._pump, args=(client, server, self._note), daemon=True)
            method = client.recv(8, socket.MSG_PEEK).partition(b" ")[0].decode()
            if method in self.answers:
                self._note(client.recv(1 << 16), 0)
                client.sendall(self.answers[method])
                return
            there.start()
            self._pump(server, client, self._pass)
            there.join()

    def _pump(self, source, target, look):
        seen = 0
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                seen += len(data)
                if not look(data, seen):
                    break
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _note(self, data, seen):
        with self._lock:
            self.sent += len(data)
            for method, path in REQUEST.findall(data):
                self._method = method.decode()
                self.requests.append((self._method, path.decode().partition("?")[0]))
        return self.cut_sent_after is None or seen <= self.cut_sent_after

    def _pass(self, data, seen):
        with self._lock:
            is_held, mended = self._method in self.holds, self._mended
        if is_held:
            mended.wait()
        with self._lock:
            self.received += len(data)
            if self.cut_after is not None and seen > self.cut_after and self.cuts > 0:
                self.cuts -= 1
                return False
        return True
