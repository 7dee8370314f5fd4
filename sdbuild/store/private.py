"""A folder that nobody else can write to, within the machine's folder for temporary files.

Its name can be guessed, and all users may make files beside it: another user may have put a folder
or a link of that name there before.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from sdbuild.base.errors import StoreError
from sdbuild.store.disk import file_error

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def private_folder() -> Path:
    """Returns the folder of this user, made if it is not there.

    Raises:
        StoreError: something else has its name, or others can get in.
    """
    folder = Path(tempfile.gettempdir()) / f"sdbuild-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise file_error(error, folder) from error
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & _OTHERS:
        raise StoreError(
            f"{folder}: user {found.st_uid}, {stat.filemode(found.st_mode)}; expected a folder of "
            f"user {os.getuid()} that no other user can open",
            hint="remove it, or choose another folder for temporary files with TMPDIR",
        )
    return folder
