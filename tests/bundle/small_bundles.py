"""Bundles of declared ports: compiled models that take and give arrays, and compute nothing.

The declarations are of `tests/fixtures/swift-hosts`: a name, and its shape and type.
"""

import copy
import json
from functools import cache
from pathlib import Path

from sdbuild.mil.compile.metadata import describe, format_metadata
from sdbuild.mil.files.coremldata import pack_description
from sdbuild.mil.files.package import Model
from sdbuild.mil.ir.proto import messages
from sdbuild.mil.text.parse import parse_program
from sdbuild.mil.text.printer import dialect_of, format_program

FIXTURES = Path(__file__).parent.parent / "fixtures" / "swift-hosts"
DECLARED = json.loads((FIXTURES / "bundles.json").read_text())
DTYPES = {"Float32": (65568, "fp32"), "Float16": (65552, "fp16"), "Int32": (131104, "int32"),
          "Image": (0, "fp32")}
VERSION = 7
VOCABULARY = {"!": 0, "f": 1, "o": 2, "x</w>": 3, "fo": 4, "fox</w>": 5,
              "<|startoftext|>": 6, "<|endoftext|>": 7}
MERGES = "#version: 0.2\nf o\nfo x</w>\n"
T5_FILES = {
    "tokenizer.json": {
        "normalizer": {"type": "Precompiled"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "WhitespaceSplit"},
            {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True}]},
        "post_processor": {"type": "TemplateProcessing", "single": [], "pair": []},
        "decoder": {"type": "Metaspace"},
        "model": {"type": "Unigram", "unk_id": 2,
                  "vocab": [["<pad>", 0.0], ["</s>", 0.0], ["<unk>", 0.0], ["▁", -2.0]]},
    },
    "tokenizer_config.json": {"tokenizer_class": "T5Tokenizer", "eos_token": "</s>"},
}


class SmallBundle:
    """A bundle of declared models that is changed, then written."""

    def __init__(self, scenario="", models=None):
        self.models = copy.deepcopy(models or DECLARED[scenario])
        self.flexible, self.optional = set(), set()
        self.folders, self.ruined, self.weights = [], {}, {}
        self.files = {"vocab.json": json.dumps(VOCABULARY), "merges.txt": MERGES}
        if "TextEncoderT5" in self.models:
            self.files |= {name: json.dumps(found) for name, found in T5_FILES.items()}

    def port(self, model, name, *, shape=None, dtype=None, new_name=None):
        """Changes one input or output."""
        for side in ("inputs", "outputs"):
            ports = self.models[model][side]
            if name in ports:
                old_shape, old_dtype = ports[name]
                changed = [old_shape if shape is None else shape, dtype or old_dtype]
                self.models[model][side] = {
                    new_name or name if n == name else n: changed if n == name else port
                    for n, port in ports.items()
                }
                return
        raise AssertionError(f"{model} has no {name}")

    def add(self, model, side, name, shape, dtype="Float32"):
        """Gives a model one more input or output."""
        self.models[model][side][name] = [shape, dtype]

    def drop(self, model, *names):
        """Takes inputs or outputs from a model."""
        for side in ("inputs", "outputs"):
            for name in names:
                self.models[model][side].pop(name, None)

    def batch(self, size, *models):
        """Gives all ports of models but flat ones another batch."""
        for model in models:
            for side in ("inputs", "outputs"):
                for port in self.models[model][side].values():
                    port[0] = [size, *port[0][1:]]

    def json(self, name, change):
        """Changes a file of JSON."""
        found = json.loads(self.files[name])
        change(found)
        self.files[name] = json.dumps(found)

    def write(self, folder):
        """Writes the bundle into a new folder, whose path is returned."""
        folder.mkdir()
        for name in self.folders:
            (folder / name).mkdir()
        for name, content in self.files.items():
            data = content if isinstance(content, bytes) else content.encode()
            (folder / name).write_bytes(data)
        for name, ports in self.models.items():
            path = folder / f"{name}.mlmodelc"
            path.mkdir(parents=True)
            for file, content in self.compiled(name, ports).items():
                (path / file).write_bytes(content)
        for name, size in self.weights.items():
            path = folder / f"{name}.mlmodelc" / "weights"
            path.mkdir()
            with (path / "weight.bin").open("wb") as file:
                file.truncate(size)
        return folder

    def compiled(self, name, ports):
        """The files of a model; none if it is broken."""
        if not ports:
            return {}
        marks = tuple(frozenset(n for m, n in found if m == name)
                      for found in (self.flexible, self.optional))
        files = dict(_compiled(json.dumps(ports), name.rpartition("/")[2], *marks))
        for file, change in self.ruined.get(name, ()):
            files[file] = change(files[file])
        return files


def ruined(model, file, content=b"", *, old=b"", new=b""):
    """Changes a file of a model, to other content or in one place, when the bundle is written."""
    def change(found):
        assert old in found
        return found.replace(old, new) if old else content

    return lambda bundle: bundle.ruined.setdefault(model, []).append((file, change))


@cache
def _compiled(ports, name, flexible, optional):
    ports = json.loads(ports)
    description = messages("Model").ModelDescription()
    for side, features in (("inputs", description.input), ("outputs", description.output)):
        for port, (shape, dtype) in ports[side].items():
            feature = features.add(name=port)
            feature.type.isOptional = port in optional
            if dtype == "Image":
                feature.type.imageType.colorSpace = 20
                continue
            array = feature.type.multiArrayType
            array.dataType = DTYPES[dtype][0]
            array.shape.extend(shape)
            for size in shape if port in flexible else ():
                array.shapeRange.sizeRanges.add(lowerBound=1, upperBound=2 * size)
    program = parse_program(_text(ports))
    model = Model(specification_version=VERSION, description=description, program=program,
                  root=Path(), source=Path(name))
    return {
        "coremldata.bin": pack_description(VERSION, description, 1),
        "model.mil": format_program(program, dialect_of(VERSION)).encode(),
        "metadata.json": format_metadata(describe(model, name)).encode(),
    }


def _text(ports):
    def kind(port):
        shape, dtype = port[0] or [1], port[1]
        return f"tensor<{DTYPES[dtype][1]}, {shape}>"

    given = ", ".join(f"{kind(port)} {name}" for name, port in ports["inputs"].items())
    lines = "".join(
        f"{kind(port)} {name} = fill(shape = tensor<int32, [{len(port[0]) or 1}]>"
        f"({port[0] or [1]}), value = tensor<{DTYPES[port[1]][1]}, []>(0x0p+0));"
        for name, port in ports["outputs"].items()
    )
    return (f"program(1.0) {{ func main<ios16>({given}) {{ {lines} }} "
            f"-> ({', '.join(ports['outputs'])}); }}")
