"""`python -m sdbuild`."""

from sdbuild.cli import main

raise SystemExit(main())
