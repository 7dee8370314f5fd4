"""Makes a process of Python take the extra `networks` for not installed: its packages can neither
be imported nor have a version. A test puts this folder on the `PYTHONPATH` of what it starts.
"""

import sys
from importlib import metadata

MODULES = {"torch", "coremltools", "diffusers", "transformers", "tokenizers", "regex", "PIL"}
PACKAGES = MODULES - {"PIL"} | {"pillow"}


class Missing:
    """Finds none of them, before anybody else is asked."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


real = metadata.Distribution.from_name.__func__


def from_name(cls, name):
    if name.lower() in PACKAGES:
        raise metadata.PackageNotFoundError(name)
    return real(cls, name)


sys.meta_path.insert(0, Missing)
metadata.Distribution.from_name = classmethod(from_name)
