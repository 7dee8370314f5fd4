"""Google Cloud Storage and Azure, as emulators on this machine have them: `pytest --clouds`.

They need the extra `clouds`, and Azurite from npm as `azurite-blob` in `PATH`; too much for every
run.
"""

import base64
import shutil
import socket
import subprocess

import pytest

from tests.waiting import wait_for
from tests.wire import Wire

BUCKET = "shared"


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


class WholeUploads(Wire):
    """Before an emulator that takes an upload that is cut for whole."""

    def __setattr__(self, name, value):
        if name == "cut_sent_after" and value is not None:
            pytest.skip("the emulator takes an upload that is cut for whole")
        super().__setattr__(name, value)


class Cloud:
    """A bucket behind a wire; its files are read and written past it, by the same driver."""

    wire_kind = Wire

    def __init__(self, folder, environment):
        self.environment = environment
        self.port = free_port()
        self.process = subprocess.Popen(
            self.command(self.port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(self.is_started, self.process)
        self.wire = self.wire_kind(self.port)
        self.url = f"{self.scheme}://{BUCKET}/store"
        self.files = self.opened(f"http://127.0.0.1:{self.port}")

    def is_started(self):
        try:
            socket.create_connection(("127.0.0.1", self.port)).close()
        except OSError:
            return False
        return True

    def forbid_writing(self):
        pytest.skip("the emulator lets everybody write")

    def read(self, name):
        return self.files.cat_file(f"{BUCKET}/store/{name}")

    def write(self, name, content):
        self.files.pipe_file(f"{BUCKET}/store/{name}", content)

    def remove(self, name):
        self.files.rm_file(f"{BUCKET}/store/{name}")

    def names(self):
        self.files.invalidate_cache()
        return {path.removeprefix(f"{BUCKET}/store/") for path in self.files.find(BUCKET)}

    def close(self):
        self.wire.close()
        self.process.terminate()
        self.process.wait()


class GS(Cloud):
    scheme = "gs"
    wire_kind = WholeUploads

    def command(self, port):
        return [shutil.which("gcp-storage-emulator"), "start", "--host", "127.0.0.1",
                "--port", str(port), "--in-memory", "--default-bucket", BUCKET]

    def opened(self, there):
        self.environment.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        from gcsfs.core import GCSFileSystem

        self.environment.setenv("STORAGE_EMULATOR_HOST", self.wire.url)
        return GCSFileSystem(
            endpoint_url=there, token="anon", skip_instance_cache=True, use_listings_cache=False)

    @property
    def strange_url(self):
        pytest.skip("the emulator asks for no credentials")


class AZ(Cloud):
    scheme = "az"
    key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

    def command(self, port):
        return [shutil.which("azurite-blob"), "--inMemoryPersistence", "--blobPort", str(port),
                "--skipApiVersionCheck", "--silent", "--disableTelemetry"]

    def connection(self, there, key=key):
        return (f"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={key};"
                f"BlobEndpoint={there}/devstoreaccount1;")

    def opened(self, there):
        from adlfs import AzureBlobFileSystem

        self.environment.setenv("AZURE_STORAGE_CONNECTION_STRING", self.connection(self.wire.url))
        files = AzureBlobFileSystem(
            connection_string=self.connection(there), skip_instance_cache=True,
            use_listings_cache=False)
        files.mkdir(BUCKET)
        return files

    @property
    def strange_url(self):
        other = base64.b64encode(b"other/77" * 8).decode()
        self.environment.setenv(
            "AZURE_STORAGE_CONNECTION_STRING", self.connection(self.wire.url, other))
        return self.url


KINDS = {"gs": GS, "az": AZ}
