"""The store: what was made, by what it was made of. `store.py` is its face; the rest serves it.

`record.py` is what is known of an artifact, `disk.py` every write, `locks.py` who waits for whom;
`json_cache.py`, `stat_cache.py` and `roots.py` remember what can be found out again.
"""

from sdbuild.store.location import check_place
from sdbuild.store.record import SHIPPED, SIGNED, UNSIGNED, Entry, Record, key
from sdbuild.store.store import Store

__all__ = ["SHIPPED", "SIGNED", "UNSIGNED", "Entry", "Record", "Store", "check_place", "key"]
