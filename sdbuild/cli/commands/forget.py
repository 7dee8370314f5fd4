"""`forget`: drops the records of steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sdbuild.cli.commands import doit_command


def _expect_records(arguments: Sequence[str], words: Mapping[str, str]) -> None:
    """Makes sure that the store has a record of one of the steps that are named.

    Raises:
        StoreError: it has none, so that nothing would be dropped.
    """
    from sdbuild.base.errors import StoreError
    from sdbuild.cli.tasks import prepared

    builder, _ = prepared(words)
    steps = [step.name for step in builder.plan.steps.values()
             if step.name in arguments or step.kind in arguments]
    keys = [state.key for state in map(builder.state, steps)]
    store = builder.store
    if steps and not any(key and (store.find(key) or store.flaws(key)) for key in keys):
        raise StoreError(
            f"{store.root}: no record of {', '.join(steps)} of the recipe "
            f"{builder.plan.recipe.name}",
            hint="name the recipe and the words that it was made with, as in: "
                 f"sdbuild forget {arguments[0]} model=NAME quant=6")


command = doit_command("forget", "Drop the records of steps, so that they run again.",
                       _expect_records)
