"""bundle: the folder that a host loads: compiled models, tokenizer, and a manifest of our own.

The manifest makes the bundle self-describing: how to draw with it, and how every part was made.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdbuild.base.errors import SourceError
from sdbuild.base.filenames import contents
from sdbuild.base.parsing import json_value
from sdbuild.bundle.layout import link_models
from sdbuild.bundle.manifest import SCHEMA, write_manifest
from sdbuild.checkpoints.normalized import LATENTS, Latents, latents
from sdbuild.checkpoints.resources import (
    SCHEDULER,
    TOKENIZER,
    WORDS,
    file_name,
)
from sdbuild.checkpoints.schedule import FLOW, predicts
from sdbuild.checkpoints.sidecar_configs import END_TOKEN
from sdbuild.checkpoints.t5_tokenizer import T5_FILE, t5_files
from sdbuild.engine.stage import BundleStage, From, Job, Memory, Time
from sdbuild.mil.files.suffixes import COMPILED
from sdbuild.recipe.bits import BITS, encoded, read_bits
from sdbuild.recipe.recipe import Recipe
from sdbuild.store.disk import link_out

T5 = "text_encoder_3"


class MakeBundle(BundleStage):
    """Collects what a host loads."""

    version = 4
    summary = "collect everything that a host loads"
    memory = Memory(60_000_000)  # links files
    time = Time(0.4)
    needs_provenance = True

    def inputs(self, recipe: Recipe, made: Mapping[str, Mapping[str, str]]) -> dict[str, From]:
        """Returns the compiled components, the resources, and how latents are scaled."""
        found = {"resources": From(made["resources"]["checkpoint"])}
        found |= {c.label: From(made[c.label]["compiled"]) for c in recipe.components}
        vae = next((c.name for c in recipe.components if c.folder == "vae"), None)
        found |= {f"bits/{c.label}": From(made[c.label]["bits"], BITS)
                  for c in recipe.components if "bits" in made[c.label]}
        return found | (
            {"latents": From(made[vae]["checkpoint"], LATENTS)} if vae else {})

    def params(self, recipe: Recipe) -> dict[str, Any]:
        """Returns the fields of the manifest that its parts do not have."""
        return {
            "name": recipe.name,
            "family": recipe.family.name,
            "width_px": recipe.network.width_px,
            "height_px": recipe.network.height_px,
            "attention": recipe.network.attention,
            "target": recipe.packaging.target,
            "compiler": recipe.packaging.compiler,
            "prediction": recipe.network.prediction,
            "components": {
                c.label: {
                    "models": [name + COMPILED for name in recipe.packaging.model_names(c)],
                    "nbits": recipe.packaging.nbits_of(c),
                    **({"activations": bits}
                       if (bits := recipe.packaging.activations_of(c)) else {}),
                    **({"has_sizes": True} if recipe.network.sizes_of(c) else {}),
                }
                for c in recipe.components
            },
            "draw": recipe.draw.settings(),
            **recipe.network.encoder_params,
            **({"recipe": recipe.model} if recipe.found else {}),
            **({"lower": recipe.packaging.lower} if recipe.is_of_packages else {}),
            **({"sizes": [list(size) for size in recipe.network.sizes]}
               if recipe.network.sizes else {}),
        }

    def expect(self, recipe: Recipe) -> None:
        """Makes sure that the recipe alone breaks no rule of the contract.

        Raises:
            ContractBroken: no host could use the bundle.
        """
        from sdbuild.bundle.contract import require_planned
        from sdbuild.recipe.foreseen import foreseen

        require_planned(foreseen(recipe))

    def facts(self, recipe: Recipe) -> dict[str, Any]:
        """Returns the variant, by which reports call the bundle."""
        return {"variant": recipe.variant}

    def run(self, job: Job) -> dict[str, Any]:
        """Lays all parts flat in one folder, ControlNets in one of their own, as hosts expect,
        with `manifest.json`.

        Returns:
            What is worth a warning, and the hosts that run it, for the record.

        Raises:
            ContractBroken: a host would crash or draw wrongly on it.
            SourceError: the checkpoint's tokenizer or configs are not sound.
        """
        from sdbuild.bundle.compatibility import summary_of, with_hosts
        from sdbuild.bundle.contract import require
        from sdbuild.bundle.finished import check_packing

        for label, component in job.params["components"].items():
            link_models(job.inputs[label], job.output, component["models"])
            if "lower" in job.params:
                check_packing(label, contents(job.inputs[label], COMPILED), component["nbits"])
        resources = job.inputs["resources"]
        _write_tokenizer(resources, job.output)
        if T5 in job.params["components"]:
            for name, content in t5_files(resources / T5_FILE).items():
                (job.output / name).write_bytes(content)
        for card in ("README.md", "LICENSE", "LICENSE.txt", "LICENSE.md"):
            if (resources / card).is_file():
                link_out(resources / card, job.output / card)
        manifest = with_hosts(job.output, _manifest(job, resources))
        write_manifest(job.output, manifest)
        return {"warnings": [str(violation) for violation in require(job.output)],
                "hosts": summary_of(manifest)}


STAGE = MakeBundle()


def _write_tokenizer(resources: Path, target: Path) -> None:
    """Writes the tokenizer's two files, which the download step checked.

    A last line of `merges.txt` without a line end would be dropped by the Swift reader.
    """
    vocabulary, merges = file_name(TOKENIZER.vocabulary), file_name(TOKENIZER.merges)
    link_out(resources / vocabulary, target / vocabulary)
    lines = (resources / merges).read_bytes()
    (target / merges).write_bytes(lines if lines.endswith(b"\n") else lines + b"\n")


def _manifest(job: Job, resources: Path) -> dict[str, Any]:
    scheduler = _json(resources / file_name(SCHEDULER))
    return {
        "schema": SCHEMA,
        **{k: v for k, v in job.params.items() if k not in ("components", "prediction")},
        "licence": _licence(resources),
        "prediction_type": _prediction_type(job, scheduler),
        "pad_token": END_TOKEN,
        **_scales(job),
        "scheduler": {k: v for k, v in scheduler.items() if k != "_diffusers_version"},
        "components": job.params["components"],
        **_bits(job),
        **({"words": _json(resources / WORDS)} if (resources / WORDS).is_file() else {}),
        "made_from": _json(job.inputs["provenance"]),
    }


def _bits(job: Job) -> dict[str, Any]:
    """Returns the bit recipe of all components whose weights have bits of their own."""
    found: dict[str, dict[str, int]] = {}
    for name, path in job.inputs.items():
        if name.startswith("bits/"):
            found |= read_bits(path)
    return {"bits": encoded(found)} if found else {}


def _scales(job: Job) -> dict[str, float]:
    """Returns how latents are scaled, as an autoencoder of the bundle says; their shift if there is
    one."""
    found = latents(job.inputs["latents"]) if "latents" in job.inputs else Latents()
    shift = {"shift_factor": found.shift_factor} if found.shift_factor else {}
    return {"scale_factor": found.scaling_factor, **shift}


def _prediction_type(job: Job, scheduler: Mapping[str, Any]) -> str:
    """Returns what the bundle's denoiser predicts: noise, unless the checkpoint's is left as it
    is, or matches a flow."""
    own = str(predicts(scheduler))
    return own if job.params["prediction"] == "checkpoint" or own == FLOW else "epsilon"


def _licence(resources: Path) -> str | None:
    """Returns the licence that the model card's header names."""
    try:
        card = (resources / "README.md").read_text("utf-8", "replace")
    except OSError:
        return None
    found = re.search(r"\A---\n(?:.*\n)*?license:\s*(\S+)", card)
    return found[1] if found and found[1].isprintable() else None


def _json(path: Path) -> Any:
    return json_value(path.read_bytes(), path.name, SourceError, has_infinities=True)
