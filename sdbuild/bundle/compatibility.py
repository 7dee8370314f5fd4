"""The hosts that load bundles, as data: which families each runs, and what it needs of a bundle.

To add a host is to add an entry. All were read in their sources, at the commits named; Apple's
Swift package was run as well. Hosts whose images we reproduce are described in `hosts.py`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdbuild.bundle import needs
from sdbuild.bundle.bundle_reader import REFINER, SD, SD3, SDXL, Opened, open_bundle
from sdbuild.bundle.contract import RULES
from sdbuild.bundle.needs import Need
from sdbuild.bundle.rules.rule import ALL, APPS, ERROR, SWIFT, Violation

YES, PARTLY, NO = "yes", "partly", "no"
_ANSWERS = {YES: "runs in", PARTLY: "runs with limits in", NO: "does not run in"}
_COLUMNS = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Loader:
    """A host as it loads bundles.

    Attributes:
        source: the repository and commit in which it was read.
        families: those that it runs at all; none if it loads other files, which `instead` says.
        rules: the hosts whose rules of the contract hold for it, as it is built on them.
        needs: its other requirements for right images.
        limits: features that it lacks with bundles that it does run.
        place: the folder in which it looks for bundles, if that is fixed.
    """

    name: str
    source: str
    families: tuple[str, ...]
    rules: tuple[str, ...] = ()
    needs: tuple[Need, ...] = ()
    limits: tuple[Need, ...] = ()
    place: str = ""
    instead: str = ""

    def verdict(self, bundle: Opened, broken: Iterable[Violation]) -> Verdict:
        """Returns the verdict on a bundle: whether it runs, and why not, or with which limits.

        Args:
            broken: what the bundle breaks of the rules of all hosts.
        """
        reasons = list(dict.fromkeys(self._reasons(bundle, broken)))
        if reasons:
            return Verdict(host=self.name, runs=NO, reasons=tuple(reasons))
        limits = tuple(dict.fromkeys(
            said for need in (*self.limits, *_LIMITS) for said in need(bundle)))
        return Verdict(host=self.name, runs=PARTLY if limits else YES, reasons=limits)

    def _reasons(self, bundle: Opened, broken: Iterable[Violation]) -> Iterator[str]:
        if bundle.family not in self.families:
            yield self.instead or f"it does not run {bundle.family}"
            return
        for found in broken:
            if found.host in self.rules:
                yield f"{found.where}: found {found.found}, expected {found.expected}"
        for need in self.needs:
            yield from need(bundle)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The answer for a host: it runs a bundle (`yes`), `partly` or not (`no`), and why not."""

    host: str
    runs: str
    reasons: tuple[str, ...]


_LIMITS = (needs.one_size,)
"""Limits of all hosts on bundles that they do run."""
_SCHEDULERS = needs.schedulers("dpm", "pndm")
_NOISE = needs.prediction_of_noise
_SCALES = needs.scales(sdxl=0.13025, sd3=1.5305)

LOADERS = (
    Loader(
        name=SWIFT, source="apple/ml-stable-diffusion at e12202c", families=ALL, rules=(SWIFT,),
        needs=(_NOISE,), limits=(needs.no_starting_image, needs.no_refiner, _SCHEDULERS),
    ),
    Loader(
        name=APPS, source="MochiDiffusion/MochiDiffusion at e686551", families=(SD, SDXL, SD3),
        rules=(SWIFT, APPS), place="~/MochiDiffusion/models/NAME/",
        needs=(_NOISE, needs.scales(sdxl=0.13025), needs.more_than_one_step_of_xl),
        limits=(needs.no_starting_image, needs.whole_controlled_unet, needs.no_controlnet_folder,
                needs.no_refiner, _SCHEDULERS),
    ),
    Loader(
        name="swift-coreml-diffusers", source="huggingface/swift-coreml-diffusers at a561fae",
        families=(SD, SDXL, SD3), rules=(SWIFT,), needs=(_NOISE, _SCALES),
        place="the folder of a model in its list, under that model's name",
        limits=(needs.text_to_image_alone, needs.no_controlnets, needs.no_refiner, _SCHEDULERS),
    ),
    Loader(
        name="Guernika", source="GuernikaCore/GuernikaKit at 922f0c0", families=(SD, SDXL, REFINER),
        needs=(needs.metadata, needs.encoder_takes_z, needs.last_hidden_state_and_pooled,
               needs.channels_first, _NOISE,
               needs.scales(**{SDXL: 0.13025, REFINER: 0.13025})),
        limits=(needs.no_starting_image, needs.no_controlnets),
    ),
    Loader(
        name="RunAnywhere", source="RunanywhereAI/runanywhere-sdks at 482bd4f, closed since",
        families=(SD,),
        needs=(needs.whole_unet, needs.a_batch_of_two, needs.as_many_channels_out, _NOISE,
               needs.scales(), needs.no_extra_inputs),
        limits=(needs.text_to_image_alone, needs.no_controlnets, needs.unread_safety_checker),
    ),
    Loader(
        name="Apple's Python pipeline", source="apple/ml-stable-diffusion at e12202c",
        families=(SD, SDXL),
        needs=(needs.whole_unet, needs.ports_by_name, needs.noise_by_name, needs.fp16_unet,
               needs.fp16_vae, needs.as_many_channels_out, needs.no_extra_inputs),
        limits=(needs.text_to_image_alone, needs.no_controlnets),
    ),
    Loader(
        name="ComfyUI-CoreMLSuite", source="aszc-dev/ComfyUI-CoreMLSuite at 7678a07",
        families=(SD, SDXL, REFINER), place="ComfyUI/models/unet/, the U-Net alone",
        needs=(needs.whole_unet, needs.noise_by_name, needs.fp16_unet, needs.as_many_channels_out,
               needs.seventy_seven_tokens),
    ),
    Loader(
        name="off-grid-mobile", source="off-grid-mobile at b780b5d", families=(SD, SDXL),
        rules=(SWIFT,), needs=(_NOISE, needs.scales()),
        place="a repository of the Hub, below split_einsum/compiled/",
        limits=(needs.no_refiner, _SCHEDULERS),
    ),
    Loader(
        name="PromptToImage", source="PromptToImage at 0b91aaa", families=(SD,), rules=(SWIFT,),
        needs=(needs.whole_unet, _NOISE, needs.scales()), limits=(_SCHEDULERS,),
    ),
    Loader(
        name="DigitalMasterpieces' fork", source="ml-stable-diffusion, a fork, at 5ba5e14",
        families=(SD, SDXL), rules=(SWIFT,), needs=(_NOISE,),
        limits=(needs.no_starting_image, needs.no_refiner),
    ),
    Loader(
        name="Unity and React plugins", source="Unity at 2890f49, React Native at 095b10d",
        families=(SD,), rules=(SWIFT,), needs=(_NOISE, needs.scales()),
        limits=(needs.safe_pictures, _SCHEDULERS),
    ),
    Loader(
        name="coreai-models", source="apple/coreai-models at 86b363d", families=(),
        instead="it loads its own format, not compiled models",
    ),
    Loader(
        name="DiffusionKit", source="argmaxinc/DiffusionKit at 498e5db", families=(),
        instead="it loads transformers that it converted itself",
    ),
    Loader(
        name="Draw Things", source="what it says of itself", families=(),
        instead="it loads safetensors and ckpt files",
    ),
    Loader(
        name="coreml-diffusion", source="coreml-diffusion at 1d33cb4", families=(),
        instead="it takes encoder_hidden_states as (batch, tokens, width)",
    ),
)


def verdicts(bundle: Opened) -> tuple[Verdict, ...]:
    """Returns the verdict of every host on a bundle."""
    broken = [found for rule in RULES if rule.level == ERROR for found in rule.violations(bundle)]
    return tuple(host.verdict(bundle, broken) for host in LOADERS)


def with_hosts(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a manifest that says which hosts run the bundle that is laid out in a folder."""
    return {**manifest, "hosts": {
        verdict.host: {"runs": verdict.runs, "reasons": list(verdict.reasons)}
        for verdict in verdicts(open_bundle(folder, manifest))
    }}


def summary_of(manifest: Mapping[str, Any]) -> list[str]:
    """Lines that say which hosts run the bundle of a manifest, in 80 columns."""
    lines = []
    known = {loader.name for loader in LOADERS if loader.families}
    for answer, what in _ANSWERS.items():
        hosts = [host for host, found in manifest["hosts"].items()
                 if host in known and found["runs"] == answer]
        if hosts:
            lines += textwrap.wrap(f"{what}: {', '.join(hosts)}", _COLUMNS, subsequent_indent="  ",
                                   break_on_hyphens=False)
    return lines


def table(found: Sequence[Verdict]) -> str:
    """Returns the hosts, whether each runs a bundle, and why not, in 80 columns."""
    first = max(len(verdict.host) for verdict in found) + 2
    lines = []
    for verdict in found:
        start = f"{verdict.host:{first}}{verdict.runs:8}"
        reasons = [line for reason in verdict.reasons for line in _wrapped(reason, len(start))]
        lines += [start + (reasons[0] if reasons else "").rstrip()]
        lines += [" " * len(start) + line for line in reasons[1:]]
    return "\n".join(line.rstrip() for line in lines)


def page() -> str:
    """Returns the hosts as a table in Markdown, for `docs/contract.md`."""
    rows = [f"| {' | '.join(_row(loader))} |" for loader in LOADERS]
    return "\n".join((
        f"| host | read in | {' | '.join(ALL)} | needs, beside the rules | has limits without |",
        f"| --- | --- |{' --- |' * (len(ALL) + 2)}", *rows,
    ))


def _row(loader: Loader) -> list[str]:
    runs = ["yes" if family in loader.families else "" for family in ALL]
    wanted = loader.instead or "; ".join(map(_said, loader.needs))
    return [loader.name, loader.source, *runs, wanted, "; ".join(map(_said, loader.limits))]


def _said(need: Need) -> str:
    """Returns the text of a need, from its docstring."""
    text = " ".join((need.__doc__ or "").split()).rstrip(".")
    return text[0].lower() + text[1:]


def _wrapped(reason: str, indent: int) -> list[str]:
    return textwrap.wrap(
        reason, _COLUMNS - indent, subsequent_indent="  ", break_on_hyphens=False)
