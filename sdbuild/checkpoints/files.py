"""Files that are all read, in their order: not a checkpoint, but what is added to one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sdbuild.base.errors import SourceError
from sdbuild.base.filenames import contents
from sdbuild.base.parsing import shown
from sdbuild.checkpoints.folder import DigestOf
from sdbuild.checkpoints.layout import COMMAS
from sdbuild.checkpoints.loras.config import CONFIG
from sdbuild.checkpoints.single_file import SUFFIX
from sdbuild.safetensors.pickles import UNPICKLE

_OF_FOLDERS = ("adapter_model.safetensors", "pytorch_lora_weights.safetensors",
               "learned_embeds.safetensors")
"""The file of a folder that peft, or diffusers, saved a LoRA or an embedding into."""

LORAS, EMBEDDINGS = "loras", "embeddings"
"""The kinds of such files, as the parts that a step reads."""
_SHOWN = 8


class Files:
    """Some safetensors files, or folders that something was saved into, each as the file in it.

    Raises:
        SourceError: one is not there, or is something else.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self.places = tuple(map(_file_of, paths))
        for place in self.places:
            path = Path(place)
            if not path.is_file():
                raise SourceError(f"{place}: there is no such file",
                                  hint=COMMAS if len(paths) > 1 else "")
            if path.suffix != SUFFIX:
                raise SourceError(f"{place}: expected a {SUFFIX} file", hint=UNPICKLE)

    def __repr__(self) -> str:
        return ", ".join(self.places)

    def identity(self, part: str, digest_of: DigestOf) -> dict[str, str]:
        """Returns the digest of each, by its place in the order, and of what peft writes beside a
        LoRA."""
        found = {}
        for i, place in enumerate(self.places):
            found[str(i)] = digest_of(Path(place))
            config = Path(place).with_name(CONFIG)
            if part == LORAS and config.is_file():
                found[f"{i}/{CONFIG}"] = digest_of(config)
        return found

    def check(self, part: str, family: str) -> None:
        """Makes sure that each is a whole LoRA, or embedding, for a family; reads the header and
        single numbers.

        Raises:
            SourceError: one is not; names the tensors.
        """
        from sdbuild.checkpoints.embeddings import embedding
        from sdbuild.checkpoints.loras import lora

        for path in map(Path, self.places):
            if part == EMBEDDINGS:
                embedding.expect_family(path, family)
            else:
                lora.expect_family(path, lora.read(path), family)


def _file_of(place: str) -> str:
    folder = Path(place)
    if not folder.is_dir():
        return place
    for name in _OF_FOLDERS:
        if (folder / name).is_file():
            return str(folder / name)
    names = [shown(path.name) for path in contents(folder)]
    more = ", …" if len(names) > _SHOWN else ""
    raise SourceError(
        f"{place}: a folder, expected a {SUFFIX} file, or {' or '.join(_OF_FOLDERS)} in it; "
        f"there is {', '.join(names[:_SHOWN]) + more if names else 'nothing'} in it",
        hint=f"name the file: FOLDER/FILE{SUFFIX}",
    )
