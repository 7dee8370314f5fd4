"""Simulates a power failure: the states that a disk may be in after it, by a small model of file
systems.

A write lasts once its file is synced, a name once its folder is; a rename is whole or not at all,
and lasts once the folder that it goes to is synced. Of all that is not synced the disk may hold any
part, in any order: each change of a name alone may be missing while all others are there, or be
there while all others are missing, and contents may be lost, or be zeros of their full length.
"""

import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.watch import RENAME_EXCHANGE

LOST, ZEROS, KEPT = "lost", "zeros", "kept"
_DULL = re.compile(r"/\.new-\w+$|/cache/(locks|work)(/|$)")
"""Unfinished files, locks and workspaces: whether they are there decides nothing."""


@dataclass(slots=True, eq=False)
class Node:
    """A file or folder: what it is now, and what of it was synced."""

    content: bytes = b""
    synced: bytes | None = None
    is_folder: bool = False
    mode: int = 0o644
    mtime_ns: int | None = None
    names: dict = field(default_factory=dict)
    first: dict = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Change:
    """Names that change together: (folder, name, node or None); it lasts once `where` is synced."""

    where: Node
    names: list
    is_dull: bool
    is_synced: bool = False


class Disk:
    """The files below a folder, and every change of them that is not synced yet."""

    def __init__(self, root):
        self.root = Path(root)
        self.changes = []
        self.nodes = []
        self._inodes = {}
        self.top = self._load(self.root)

    def _load(self, path):
        status = path.stat()
        if status.st_ino in self._inodes:
            return self._inodes[status.st_ino]
        node = Node(is_folder=path.is_dir(), mode=status.st_mode & 0o777,
                    mtime_ns=status.st_mtime_ns)
        self._inodes[status.st_ino] = node
        self.nodes.append(node)
        if node.is_folder:
            node.names = {child.name: self._load(child) for child in path.iterdir()}
            node.first = dict(node.names)
        else:
            node.content = node.synced = path.read_bytes()
        return node

    def _find(self, path):
        node = self.top
        for part in Path(path).relative_to(self.root).parts:
            node = node.names.get(part) if node else None
        return node

    def _change(self, call, where, *names):
        for folder, name, node in names:
            if node is None:
                folder.names.pop(name, None)
            else:
                folder.names[name] = node
        self.changes.append(Change(where=where, names=list(names),
                                   is_dull=all(map(_DULL.search, call.paths))))

    def apply(self, call):
        """Does what the call does, if it can."""
        if (call.name, *call.paths) == ("fsync", str(self.root)):
            self._sync(self.top)
        inside = [path for path in call.paths if path.startswith(f"{self.root}/")]
        if len(inside) < len(call.paths):
            return
        nodes = [self._find(path) for path in call.paths]
        folders = [self._find(Path(path).parent) for path in call.paths]
        names = [Path(path).name for path in call.paths]
        (node, *others), (folder, *_), (name, *_) = nodes, folders, names
        if call.name in ("open", "mkdir") and node is None and folder is not None:
            if call.name == "mkdir" or call.flags & os.O_CREAT:
                made = Node(is_folder=call.name == "mkdir", mode=0o755)
                self.nodes.append(made)
                self._change(call, folder, (folder, name, made))
        elif node is None:
            return
        elif call.name == "open" and call.flags & os.O_TRUNC:
            node.content = b""
        elif call.name == "write":
            head = node.content[:call.offset].ljust(call.offset, b"\0")
            node.content = head + call.content + node.content[call.offset + len(call.content):]
            node.mtime_ns = None
        elif call.name == "copy" and others[0] is not None:
            node.content, node.mtime_ns = others[0].content, None
        elif call.name == "truncate":
            node.content = node.content[:call.offset].ljust(call.offset, b"\0")
        elif call.name == "chmod":
            node.mode = call.mode
        elif call.name == "utime":
            node.mtime_ns = call.mtime_ns
        elif call.name == "fsync":
            self._sync(node)
        elif call.name == "link" and others == [None]:
            self._change(call, folders[1], (folders[1], names[1], node))
        elif call.name in ("unlink", "rmdir"):
            self._change(call, folder, (folder, name, None))
        elif call.name == "rename" and call.flags & RENAME_EXCHANGE:
            self._change(call, folders[1],
                         (folder, name, others[0]), (folders[1], names[1], node))
        elif call.name == "rename":
            self._change(call, folders[1],
                         (folder, name, None), (folders[1], names[1], node))

    def _sync(self, node):
        if not node.is_folder:
            node.synced = node.content
        for change in self.changes:
            change.is_synced |= change.where is node

    def after_power_loss(self):
        """Each state that the disk may be in now: (what was kept, a function that lays it out)."""
        pending = [change for change in self.changes if not change.is_synced]
        every = set(map(id, pending))
        for contents in (LOST, ZEROS):
            yield f"no names, contents {contents}", set(), contents
        for contents in (LOST, ZEROS, KEPT):
            yield f"all names, contents {contents}", every, contents
        for change in pending:
            if not change.is_dull:
                yield f"all but {change.names[-1][1]}", every - {id(change)}, KEPT
                yield f"only {change.names[-1][1]}", {id(change)}, LOST

    def what_matters(self, kept, contents):
        """Returns the files of such a state, without workspaces, locks and unfinished ones."""
        found, now = set(), self._names(kept)

        def look(node, path):
            if node.is_folder:
                found.add(path)
                for name, child in now[id(node)].items():
                    if not _DULL.search(f"{path}/{name}"):
                        look(child, f"{path}/{name}")
            else:
                found.add((path, _survived(node, contents), node.mode, node.mtime_ns))
        look(self.top, "")
        return frozenset(found)

    def _names(self, kept):
        """The names in every folder, if of what is not synced those changes were kept."""
        now = {id(node): dict(node.first) for node in self.nodes}
        for change in self.changes:
            if change.is_synced or id(change) in kept:
                for folder, name, node in change.names:
                    if node is None:
                        now[id(folder)].pop(name, None)
                    else:
                        now[id(folder)][name] = node
        return now

    def lay_out(self, kept, contents, target):
        """Writes such a state to a folder, which is emptied before."""
        shutil.rmtree(target)
        self._write(self.top, Path(target), self._names(kept), contents, {})

    def _write(self, node, path, now, contents, written):
        if node.is_folder:
            path.mkdir()
            for name, child in now[id(node)].items():
                self._write(child, path / name, now, contents, written)
        elif id(node) in written:
            os.link(written[id(node)], path)
        else:
            path.write_bytes(_survived(node, contents))
            written[id(node)] = path
            path.chmod(node.mode)
            if node.mtime_ns is not None:
                os.utime(path, ns=(node.mtime_ns, node.mtime_ns))


def _survived(node, contents):
    """Returns a file's content on the disk: what was synced, if nothing was written to it since."""
    if contents == KEPT or node.synced == node.content:
        return node.content
    return node.synced or b"" if contents == LOST else bytes(len(node.content))
