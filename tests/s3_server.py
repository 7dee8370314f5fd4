"""An S3 server on this machine, behind a wire that counts, cuts and slows what goes over it."""

import contextlib
import logging
import re
import socket
import threading
import time

import boto3
from moto.server import ThreadedMotoServer

REQUEST = re.compile(rb"^(GET|HEAD|PUT|POST|DELETE) (\S+) HTTP/1\.1\r\n", re.MULTILINE)

DENIED = (
    b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/xml\r\nContent-Length: 76\r\n"
    b"Connection: close\r\n\r\n"
    b"<Error><Code>AccessDenied</Code><Message>Access is denied.</Message></Error>"
)


class Wire:
    """A TCP proxy before a server. What is set on it holds for what comes after.

    `cut_after`: the bytes of an answer after which its connection breaks; `cuts`: how many may
    still break; `answer_after`: seconds that an answer waits; `answers`: what is answered to a
    method in the server's place.
    """

    def __init__(self, port):
        self.upstream = port
        self.requests = []
        self.sent = self.received = 0
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
        self.answer_after = 0.0
        self.answers = {}

    def forget(self):
        self.requests.clear()
        self.sent = self.received = 0

    def paths(self, *methods):
        """The paths that were asked for, without their queries, in order."""
        return [path for method, path in self.requests if not methods or method in methods]

    def close(self):
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            server = socket.create_connection(("127.0.0.1", self.upstream))
            threading.Thread(target=self._serve, args=(client, server), daemon=True).start()

    def _serve(self, client, server):
        with client, server:
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
                self.requests.append((method.decode(), path.decode().partition("?")[0]))
        return True

    def _pass(self, data, seen):
        time.sleep(self.answer_after)
        with self._lock:
            self.received += len(data)
            if self.cut_after is not None and seen > self.cut_after and self.cuts > 0:
                self.cuts -= 1
                return False
        return True


class S3:
    """moto's server with one bucket, behind a wire."""

    bucket = "shared"

    def __init__(self):
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = ThreadedMotoServer(port=0, verbose=False)
        self._server.start()
        _, port = self._server.get_host_and_port()
        self.wire = Wire(port)
        self.environment = {
            "AWS_ENDPOINT_URL": self.wire.url, "AWS_ACCESS_KEY_ID": "AKIATESTING",
            "AWS_SECRET_ACCESS_KEY": "hush-hush-very-secret", "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true", "NO_PROXY": "127.0.0.1",
        }
        self.client = boto3.client(
            "s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1",
            aws_access_key_id="AKIATESTING", aws_secret_access_key="hush-hush-very-secret",
        )
        self.client.create_bucket(Bucket=self.bucket)

    def begin(self, folder):
        """Goes to an empty folder of the bucket, and to a wire that does nothing."""
        self.folder = folder
        self.wire.mend()
        self.wire.forget()

    @property
    def url(self):
        return f"s3://{self.bucket}/{self.folder}"

    def names(self, below=""):
        """Every name below the URL, with its size."""
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=f"{self.folder}/{below}")
        return {o["Key"].removeprefix(f"{self.folder}/"): o["Size"]
                for page in pages for o in page.get("Contents", ())}

    def read(self, name):
        found = self.client.get_object(Bucket=self.bucket, Key=f"{self.folder}/{name}")
        return found["Body"].read()

    def write(self, name, content):
        self.client.put_object(Bucket=self.bucket, Key=f"{self.folder}/{name}", Body=content)

    def remove(self, name):
        self.client.delete_object(Bucket=self.bucket, Key=f"{self.folder}/{name}")

    def clear(self):
        for name in self.names():
            self.remove(name)

    def close(self):
        self.wire.close()
        self._server.stop()
