"""`python -m sdbuild`, which imports nothing from the folder that it is started in.

Python puts that folder before its own library, and it may be anybody's: a download with a `json.py`
or a `torch` in it. (`python -P -m sdbuild` and the script `sdbuild` leave it out themselves.)
"""

import sys

if not sys.flags.safe_path:
    del sys.path[0]

from sdbuild.cli.main import main

raise SystemExit(main())
