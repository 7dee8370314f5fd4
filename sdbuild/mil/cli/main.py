"""`sdbuild mil …`: the commands and their arguments.

`inspect.py`, `run.py` and `edit.py` are what they do.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sdbuild.base.errors import MILError
from sdbuild.base.paths import outside_path
from sdbuild.mil.cli import edit, inspect
from sdbuild.mil.ir.dtype import INTEGER_BITS, PALETTE_BITS

Run = Callable[[argparse.Namespace], int]


def add_mil(parser: argparse.ArgumentParser) -> None:
    """Adds the commands of `mil` to its parser."""
    mil = parser.add_subparsers(required=True, metavar="COMMAND")
    show = _command(mil, "show", inspect.show, "what a model is: features, functions, weights")
    show.add_argument("--text", action="store_true", help="the program as MIL text")
    _command(mil, "ops", inspect.ops,
             "its operations, and whether the portable executor has them")
    _command(mil, "weights", inspect.weights,
             "its blobs: what uses them, types, bits, bytes, offsets")
    _command(mil, "verify", inspect.verify, "reads everything and says what is wrong")
    diff = _command(mil, "diff", inspect.diff, "what two models differ in, by name")
    diff.add_argument("other", type=_path, metavar="OTHER", help="the model to compare with")
    _add_run(mil)
    _add_observe(mil)
    _add_compress(mil, "palettize", edit.palettize, "weights as indices into a table")
    _add_compress(mil, "quantize", edit.quantize, "weights as small integers and scales")
    _add_compress(mil, "sparsify", edit.sparsify, "small weights as zeros that need no bytes")
    _add_chunk(mil)
    compile_ = _command(mil, "compile", edit.compile_,
                        "a package as the .mlmodelc of Apple's compiler", takes="an .mlpackage")
    compile_.add_argument("destination", type=_path, metavar="DESTINATION")
    compile_.add_argument("--name", help="the model's name (default: that of the package)")


def _command(
    mil: argparse._SubParsersAction, name: str, run: Run, meaning: str, *,
    takes: str = "an .mlpackage or .mlmodelc",
) -> argparse.ArgumentParser:
    """Returns a command of one path; its options have `refuse`, for those that contradict each
    other."""
    command = mil.add_parser(name, help=meaning, description=meaning)
    command.add_argument("path", type=_path, metavar="PATH", help=takes)
    command.add_argument("--json", action="store_true", help="JSON instead of tables")
    command.set_defaults(run=_guarded(run), refuse=command.error)
    return command


def _add_run(mil: argparse._SubParsersAction) -> None:
    run = _command(mil, "run", inspect.run, "runs it, on random inputs unless some are given")
    run.add_argument("--input", action=_Pairs, default={}, type=_file_pair, metavar="NAME=FILE.npy",
                     help="an input from a file; may be repeated")
    run.add_argument("--seed", type=_integer(0), default=0,
                     help="of the random inputs (default: 0)")
    run.add_argument("--function", help="the function to run (default: that of the model, or main)")
    run.add_argument("--weight-bytes", type=_integer(0), metavar="N",
                     help="decoded weights that are kept; others are decoded at each use")
    run.add_argument("--out", type=_path, help="the folder for the outputs, one .npy each")


def _add_observe(mil: argparse._SubParsersAction) -> None:
    observe = _command(mil, "observe", inspect.observe,
                       "the range of what each layer is given, for quantized activations")
    observe.add_argument("destination", type=_path, metavar="RANGES.json",
                         help="the file to write, for quantize --activations")
    observe.add_argument("--samples", action=_Pairs, default={}, type=_file_pair,
                         metavar="NAME=FILE.npy", help="an input of several samples, along the "
                         "first axis; may be repeated")
    observe.add_argument("--function",
                         help="the function to run (default: that of the model, or main)")
    observe.add_argument("--weight-bytes", type=_integer(0), metavar="N",
                         help="decoded weights that are kept; others are decoded at each use")


def _add_compress(
    mil: argparse._SubParsersAction, name: str, run: Run, meaning: str
) -> None:
    command = _command(mil, name, run, meaning, takes="an .mlpackage")
    command.add_argument("destination", type=_path, metavar="DESTINATION")
    if name == "palettize":
        command.add_argument("--bits", type=int, choices=PALETTE_BITS, required=True,
                             help="of an index; 3 from iOS 18 on")
    elif name == "quantize":
        command.add_argument("--bits", type=int, choices=INTEGER_BITS, required=True,
                             help="of an integer; 4 from iOS 18 on")
    command.add_argument("--min-elements", type=_integer(0), default=2048,
                         help="constants of that many or fewer stay as they are (default: 2048)")
    command.add_argument("--skip", action="append", default=[], metavar="PATTERN",
                         help="names of constants that stay as they are; may be repeated")
    command.add_argument("--skip-type", action="append", default=[], metavar="TYPE",
                         help="operations whose constants stay as they are; may be repeated")
    command.add_argument("--workers", type=_integer(1), default=1, help="threads (default: 1)")
    if name == "palettize":
        command.add_argument("--mixed", action=_Pairs, default={}, type=_bits_pair,
                             metavar="PATTERN=BITS", help="other bits for some; may be repeated")
        command.add_argument("--group-size", type=_integer(1),
                             help="a table for that many output channels (iOS 18)")
        command.add_argument("--per-channel-scale", action="store_true",
                             help="divide each output channel by its greatest magnitude first"
                                  " (iOS 18)")
    elif name == "quantize":
        command.add_argument("--block-size", type=_integer(1),
                             help="a scale for that many input channels (iOS 18)")
        command.add_argument("--activations", type=_path, metavar="RANGES.json",
                             help="what observe wrote: their inputs get 8 bits, too (iOS 17)")
        command.add_argument("--min-snr", type=_magnitude, default=0.0, metavar="DB",
                             help="with --activations: of what the program gives; layers are left "
                             "out until the others have it (default: 0)")
    else:
        what = command.add_mutually_exclusive_group(required=True)
        what.add_argument("--sparsity", type=_share, help="the share that becomes zero, 0 to 1")
        what.add_argument("--threshold", type=_magnitude, help="magnitudes up to it become zero")
        command.add_argument("--min-sparsity", type=_share, help="with --threshold: "
                             "tensors with a smaller share stay as they are (default: 0.5)")


def _add_chunk(mil: argparse._SubParsersAction) -> None:
    command = _command(mil, "chunk", edit.chunk, "several packages that run in a row",
                       takes="an .mlpackage")
    command.add_argument("destinations", type=_path, nargs="+", metavar="DESTINATION",
                         help="one for each chunk, or with --one-package a single one")
    command.add_argument("--one-package", type=_integer(2), metavar="CHUNKS",
                         help="write that many chunks as one pipeline")


class _Pairs(argparse.Action):
    """Gathers pairs of an option that may be repeated, though not for the same name."""

    def __call__(
        self, parser: argparse.ArgumentParser, options: argparse.Namespace, value: Any,
        option: str | None = None,
    ) -> None:
        """Adds a pair."""
        found = getattr(options, self.dest)
        name, given = value
        if name in found:
            parser.error(f"{option} {name}: given twice, expected once")
        setattr(options, self.dest, found | {name: given})


def _path(text: str) -> Path:
    return outside_path(text, "a path")


def _file_pair(text: str) -> tuple[str, str]:
    name, file = _pair(text)
    return name, str(outside_path(file, f"--input {name}"))


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"{text!r}, expected NAME=VALUE")
    return name, value


def _integer(least: int) -> Callable[[str], int]:
    """Reads an integer that is not less than `least`."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"{text!r}, expected an integer of {least} or more")
        return value

    return parse


def _magnitude(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"{text!r}, expected a number of 0 or more")
    return value


def _share(text: str) -> float:
    value = _magnitude(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"{text!r}, expected a number from 0 to 1")
    return value


def _bits_pair(text: str) -> tuple[str, int]:
    name, value = _pair(text)
    if value not in map(str, PALETTE_BITS):
        bits = ", ".join(map(str, PALETTE_BITS))
        raise argparse.ArgumentTypeError(f"{value!r}, expected a number of bits: {bits}")
    return name, int(value)


def _guarded(run: Run) -> Run:
    """Returns `run`, with errors of the file system as our own."""

    def guarded(options: argparse.Namespace) -> int:
        try:
            return run(options)
        except BrokenPipeError:  # of no file: the reader of what is printed has ended
            raise
        except OSError as error:
            place, reason = _place(error, options), error.strerror or str(error)
            raise MILError(f"{place}: {reason}" if place else reason) from error

    return guarded


def _place(error: OSError, options: argparse.Namespace) -> str:
    """Returns the file of an error; that which was to be written, if it has none or is a part of
    that."""
    given = vars(options)
    written = [given[key] for key in ("destination", "out") if given.get(key) is not None]
    written += given.get("destinations", ())
    file = str(error.filename or "")
    for path in written:
        if file.startswith(str(path.parent / f".{path.name}.")):
            return str(path)
    return file or ", ".join(map(str, written))
