"""A Hub on this machine: the HTTP that huggingface_hub speaks with model repositories.

Two servers, as there are two in the world: the Hub, which answers about repositories and hands out
small files, and a CDN at another address, where the Hub sends requests for a file in LFS.

Source:
    huggingface_hub 2.4.0 (Apache 2.0): `hf_api.py` (model_info, auth_check), `file_download.py`
    (HEAD and GET of /resolve/), `utils/_http.py` (X-Error-Code, redirects, Retry-After),
    `_commit_api.py` and `lfs.py` (preupload, the batches of LFS, uploads, commits).
"""

import base64
import dataclasses
import hashlib
import http.server
import json
import re
import threading
import time
import urllib.parse

API = re.compile(r"/api/models/([^/]+/[^/]+)(/auth-check|/revision/([^/]+))?")
RESOLVE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
WRITE = re.compile(r"/api/models/([^/]+/[^/]+)/(preupload|commit|xet-write-token)/([^/]+)")
LICENCES = ("apache-2.0", "mit", "creativeml-openrail-m", "openrail++", "other")
BATCH = re.compile(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch")


@dataclasses.dataclass
class Repository:
    """Files by path at each commit, and the commits that branches are at."""

    commits: dict
    branches: dict
    is_gated: bool = False
    is_private: bool = False

    def commit_of(self, revision):
        found = self.branches.get(revision, revision)
        return found if found in self.commits else None


@dataclasses.dataclass
class Fault:
    """A fault in the next answers for a path; `times` counts down.

    An answer is cut `cut_after` so many bytes of it; with `is_held`, what follows does not come,
    but the connection stays.
    """

    path: str
    status: int = 0
    headers: dict = dataclasses.field(default_factory=dict)
    times: int = 1 << 30
    cut_after: int | None = None
    is_held: bool = False
    wait_s: float = 0
    swap: bytes | None = None
    text: str = ""


class Hub:
    """The two servers. `requests` are those so far, as (method, path, whether with a token);
    `ranges` what the CDN was asked for, and `uploads` what was put there. With `offers_xet`, it
    names a store of chunks, which refuses what comes."""

    token = "hf_only_for_tests"

    def __init__(self):
        self.repositories = {}
        self.faults = []
        self.requests = []
        self.ranges = []
        self.uploads = {}
        self.offers_xet = False
        self.closed = threading.Event()
        self.servers = [http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind)
                        for kind in (HubHandler, CDNHandler)]
        self.url, self.cdn_url = (f"http://127.0.0.1:{s.server_port}" for s in self.servers)
        for server in self.servers:
            server.hub = self
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.closed.set()
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def add(self, name, files, **kinds):
        """A repository with one commit, at `main`; the commit."""
        self.repositories[name] = Repository(commits={}, branches={}, **kinds)
        return self.commit(name, files)

    def commit(self, name, files, branch="main"):
        """Another commit at the top of a branch."""
        content = json.dumps({p: blob_id(b) for p, b in sorted(files.items())}).encode()
        commit = hashlib.sha1(content, usedforsecurity=False).hexdigest()
        self.repositories[name].commits[commit] = dict(files)
        self.repositories[name].branches[branch] = commit
        return commit

    def fail(self, path, **how):
        self.faults.append(Fault(path=path, **how))

    def paths(self, method=None):
        return [path for m, path, _ in self.requests if method in (None, m)]

    def objects(self):
        """The content of every file in LFS, by its digest."""
        return {hashlib.sha256(content).hexdigest(): content for r in self.repositories.values()
                for files in r.commits.values() for content in files.values()} | self.uploads


def is_lfs(path):
    return path.endswith((".safetensors", ".bin", ".ckpt", ".zip", ".png"))


def blob_id(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self):
        return self.server.hub

    def log_message(self, *arguments):
        pass

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def do_POST(self):
        self.answer()

    def do_PUT(self):
        self.answer()

    def body(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        found = b""
        while size := int(self.rfile.readline().strip() or b"0", 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def answer(self):
        self.content = self.body() if self.command in ("POST", "PUT") else b""
        path = self.path.partition("?")[0]  # quoted: a branch may have a / in its name
        authorization = self.headers.get("authorization")
        self.hub.requests.append((self.command, path, authorization is not None))
        self.has_token = authorization == f"Bearer {self.hub.token}"
        self.fault = next((f for f in self.hub.faults if f.times and re.search(f.path, path)), None)
        if self.fault:
            self.fault.times -= 1
            time.sleep(self.fault.wait_s)
            if self.fault.status:
                self.send(self.fault.status, self.fault.headers, self.fault.text.encode())
                return
        self.respond(path)

    def send(self, status, headers=None, content=b""):
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = self.fault.cut_after if self.fault else None
        self.wfile.write(content if cut is None else content[:cut])
        if cut is not None:
            self.wfile.flush()
            self.close_connection = True
            if self.fault.is_held:
                self.hub.closed.wait()

    def refuse(self, status, code, message):
        text = json.dumps({"error": message}).encode()
        self.send(status, {"X-Error-Code": code, "X-Error-Message": message,
                           "Content-Type": "application/json"}, text)


class HubHandler(Handler):
    def respond(self, path):
        if found := API.fullmatch(path):
            self.about(found[1], found[2] or "", urllib.parse.unquote(found[3] or "main"))
        elif found := RESOLVE.fullmatch(path):
            self.resolve(*map(urllib.parse.unquote, found.groups()))
        elif found := WRITE.fullmatch(path):
            self.write(*map(urllib.parse.unquote, found.groups()))
        elif found := BATCH.fullmatch(path):
            self.batch(found[1])
        elif path == "/api/repos/create":
            self.create(json.loads(self.content))
        elif path == "/api/validate-yaml":
            self.validate(json.loads(self.content)["content"])
        else:
            self.send(404)

    def send_json(self, content, status=200):
        self.send(status, {"Content-Type": "application/json"}, json.dumps(content).encode())

    def validate(self, card):
        """Answers as the Hub does to a card with a licence that is not on its list, which is
        longer."""
        found = re.search(r"^license: (.+)$", card, re.MULTILINE)
        errors = [] if found is None or found[1] in LICENCES else [
            {"message": f'"license" must be one of [{", ".join(LICENCES)}, array]'}]
        self.send_json({"errors": errors, "warnings": []}, 400 if errors else 200)

    def create(self, asked):
        name = "/".join(filter(None, (asked["organization"], asked["name"])))
        if not self.has_token:
            self.refuse(401, "", "Invalid username or password.")
        elif name in self.hub.repositories:
            self.send_json({"error": "You already created this model repo",
                            "url": f"{self.hub.url}/{name}"}, 409)
        else:
            self.hub.add(name, {".gitattributes": b"*.bin filter=lfs\n"},
                         is_private=asked.get("visibility") == "private")
            self.send_json({"url": f"{self.hub.url}/{name}", "name": name, "id": name})

    def write(self, name, what, revision):
        repository = self.repository(name)
        if repository is None:
            return
        if not self.has_token:
            self.refuse(403, "", "You don't have the rights to write.")
        elif what == "preupload":
            files = repository.commits[repository.commit_of(revision)]
            self.send_json({"files": [
                {"path": f["path"], "uploadMode": "lfs" if is_lfs(f["path"]) else "regular",
                 "shouldIgnore": False, "oid": oid(f["path"], files)}
                for f in json.loads(self.content)["files"]]})
        elif what == "commit":
            self.commit(name, repository, revision)
        elif self.hub.offers_xet:
            self.send_json({"casUrl": f"{self.hub.cdn_url}/cas", "accessToken": "of-xet",
                            "exp": 1 << 33}, 200)
        else:
            self.refuse(404, "", "This repository has no xet storage.")

    def batch(self, name):
        if self.repository(name) is None:
            return
        if not self.has_token:
            self.refuse(403, "", "You don't have the rights to write.")
            return
        objects = self.hub.objects()
        href = f"{self.hub.cdn_url}/upload/"
        self.send_json({"transfer": "basic", "objects": [
            {"oid": each["oid"], "size": each["size"]} | ({} if each["oid"] in objects else {
                "actions": {"upload": {"href": href + each["oid"]}}})
            for each in json.loads(self.content)["objects"]]})

    def commit(self, name, repository, revision):
        files = dict(repository.commits[repository.commit_of(revision)])
        objects = self.hub.objects()
        for line in self.content.splitlines():
            key, value = (json.loads(line)[part] for part in ("key", "value"))
            parent = value.get("parentCommit", repository.branches[revision])
            if key == "header" and parent != repository.branches[revision]:
                self.refuse(412, "", "A commit has happened since.")
                return
            if key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                files[value["path"]] = objects[value["oid"]]
            elif key == "deletedFile":
                del files[value["path"]]
        commit = self.hub.commit(name, files, revision)
        self.send_json({"commitUrl": f"{self.hub.url}/{name}/commit/{commit}",
                        "commitOid": commit, "pullRequestUrl": None})

    def repository(self, name):
        """The repository, unless nobody may know that it is there."""
        found = self.hub.repositories.get(name)
        if found is None or (found.is_private and not self.has_token):
            self.refuse(404 if self.has_token else 401, "RepoNotFound", "Repository not found")
            return None
        return found

    def about(self, name, what, revision):
        repository = self.repository(name)
        if repository is None:
            return
        if what == "/auth-check":
            if repository.is_gated and not self.has_token:
                self.gated(name)
            else:
                self.send(200)
            return
        commit = repository.commit_of(revision)
        if commit is None:
            self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return
        content = json.dumps({
            "id": name, "modelId": name, "sha": commit, "private": repository.is_private,
            "gated": "manual" if repository.is_gated else False, "tags": [], "downloads": 0,
            "siblings": [sibling(p, c) for p, c in repository.commits[commit].items()],
        }).encode()
        self.send(200, {"Content-Type": "application/json"}, content)

    def gated(self, name):
        self.refuse(403, "GatedRepo", f"Access to model {name} is restricted.")

    def resolve(self, name, revision, path):
        repository = self.repository(name)
        if repository is None:
            return
        if repository.is_gated and not self.has_token:
            self.gated(name)
            return
        commit = repository.commit_of(revision)
        if commit is None:
            self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return
        content = repository.commits[commit].get(path)
        if content is None:
            self.refuse(404, "EntryNotFound", "Entry not found")
            return
        headers = {"X-Repo-Commit": commit}
        if is_lfs(path):
            digest = hashlib.sha256(content).hexdigest()
            self.send(302, headers | {
                "Location": f"{self.hub.cdn_url}/{digest}?signature=s",
                "X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content)),
            })
            return
        if self.fault and self.fault.swap is not None:
            content = self.fault.swap
            self.send(200, headers | {"ETag": f'"{blob_id(repository.commits[commit][path])}"'},
                      content)
            return
        self.send(200, headers | {"ETag": f'"{blob_id(content)}"'}, content)


class CDNHandler(Handler):
    def respond(self, path):
        if path.startswith("/cas"):
            self.send(403)
            return
        if self.command == "PUT":
            digest = hashlib.sha256(self.content).hexdigest()
            if digest != path.rpartition("/")[2]:
                self.send(400)
                return
            self.hub.uploads[digest] = self.content
            self.send(200, {"ETag": f'"{digest}"'})
            return
        content = self.hub.objects()[path.strip("/")]
        if self.fault and self.fault.swap is not None:
            content = self.fault.swap
        headers = {"ETag": '"of-the-cdn"', "Accept-Ranges": "bytes"}
        self.hub.ranges.append(self.headers.get("Range"))
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if not asked:
            self.send(200, headers, content)
            return
        start = int(asked[1])
        rest = content[start:]
        self.send(206, headers | {
            "Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}, rest)


def oid(path, files):
    """Returns the Hub's digest of a file: SHA-256 of its content, or git's digest of the blob."""
    if path not in files:
        return None
    return hashlib.sha256(files[path]).hexdigest() if is_lfs(path) else blob_id(files[path])


def sibling(path, content):
    lfs = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return {"rfilename": path, "size": len(content), "blobId": blob_id(content)} | (
        {"lfs": lfs} if is_lfs(path) else {})
