"""`python -m tests.cluster.client ADDRESS CACHE REMOTE NBITS,… WEIGHTS…`: builds variants of each.

Prints lines as they come, and last the failures and the digests of the bundles as JSON.
"""

import json
import os
import sys
import types
from pathlib import Path

from sdbuild.base.errors import SDBuildError
from sdbuild.cluster.build import Wanted, build_on
from sdbuild.engine.build import Builder
from sdbuild.store import Store
from sdbuild.store.remote.remote import remote_at
from tests.cluster import PATIENCE
from tests.cluster.stages import plan


def main(address, cache, remote, nbits, *weights):
    plans = {made.recipe.variant: made for path in weights for number in nbits.split(",")
             for made in [plan(path, int(number))]}
    found = types.SimpleNamespace(cache=Path(cache), ram_bytes=None)
    wanted = Wanted(builders=Builder.of_plans(plans, found), steps=lambda each: ["bundle"],
                    architectures=lambda step: "one", remote=remote, jobs=2,
                    patience_s=float(os.environ.get(PATIENCE, "600")))
    try:
        failed = build_on(address, wanted, lambda line: print(line, flush=True))
    except SDBuildError as error:
        print(json.dumps({"error": type(error).__name__, "message": error.message,
                          "hint": error.hint}))
        return
    store = Store(Path(cache))
    bundles = {}
    for name, each in plans.items():
        if name in failed:
            continue
        record = Builder(each, store, remote=remote_at(remote, store)).state("bundle").record
        bundles[name] = record and record.digest()
    print(json.dumps({"failed": {name: str(error) for name, error in failed.items()},
                      "bundles": bundles}))


if __name__ == "__main__":
    main(*sys.argv[1:])
