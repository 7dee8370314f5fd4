"""An S3 server on this machine, behind a wire that counts, cuts and slows what goes over it."""

import logging
import urllib.request

import boto3
from moto.server import ThreadedMotoServer

from tests.wire import Wire

DENIED = (
    b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/xml\r\nContent-Length: 76\r\n"
    b"Connection: close\r\n\r\n"
    b"<Error><Code>AccessDenied</Code><Message>Access is denied.</Message></Error>"
)


class S3:
    """moto's server with one bucket, behind a wire."""

    bucket = "shared"

    def __init__(self):
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = ThreadedMotoServer(port=0, verbose=False)
        self._server.start()
        _, self._port = self._server.get_host_and_port()
        self.wire = Wire(self._port)
        self.environment = {
            "AWS_ENDPOINT_URL": self.wire.url, "AWS_ACCESS_KEY_ID": "AKIATESTING",
            "AWS_SECRET_ACCESS_KEY": "hush-hush-very-secret", "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true", "NO_PROXY": "127.0.0.1",
        }
        self.client = boto3.client(
            "s3", endpoint_url=f"http://127.0.0.1:{self._port}", region_name="us-east-1",
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

    def ask_who(self, does):
        """Has the server look at credentials, of which it knows none, or take any."""
        count = "0" if does else "inf"  # of requests that it answers before it looks
        urllib.request.urlopen(urllib.request.Request(
            f"http://127.0.0.1:{self._port}/moto-api/reset-auth", data=count.encode(),
            headers={"Content-Type": "text/plain"})).close()

    def clear(self):
        for name in self.names():
            self.remove(name)

    def close(self):
        self.wire.close()
        self._server.stop()
