"""The folder of Apple's converter, and the note of what was put there."""

from sdbuild.bundle.inferred import tokenizer_in
from sdbuild.cli.apple import named, names, packages
from sdbuild.cli.apple.layout import FOREIGN, OURS, Output


def test_two_commands_at_a_time_note_what_each_of_them_put_there(tmp_path):
    first, second = Output(tmp_path), Output(tmp_path)

    first.put("a", "", lambda new: new.write_text("one"))
    second.put("b", "", lambda new: new.write_text("two"))
    first.put("c", "", lambda new: new.write_text("three"))

    (tmp_path / "d").write_text("of another program")
    assert [Output(tmp_path).state(name) for name in "abcd"] == [OURS, OURS, OURS, FOREIGN]


def test_the_tokenizer_of_packages_is_the_one_that_is_bundled_beside_them(tmp_path):
    beside = tmp_path / "Resources"
    beside.mkdir()
    assert tokenizer_in(tmp_path) is None

    for name in ("vocab.json", "merges.txt"):
        (beside / name).touch()
    assert tokenizer_in(tmp_path) == beside

    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).touch()
    assert tokenizer_in(tmp_path) == tmp_path


def test_packages_without_a_tokenizer_are_given_that_of_their_checkpoint(tmp_path):
    """A refiner has the second one alone."""
    files = {"tokenizer_2/vocab.json": b"{}", "tokenizer_2/merges.txt": b"#version: 0.2"}

    assert named.tokenizer(files, tmp_path) == tmp_path
    assert (tmp_path / "vocab.json").read_bytes() == b"{}"
    assert named.tokenizer({"tokenizer/vocab.json": b"{}"}, tmp_path) is None


def test_a_model_that_was_compiled_from_an_earlier_package_is_stale(tmp_path):
    output = Output(tmp_path)
    package, model = names.package("m", "unet"), names.compiled("unet")
    output.put(package, "", lambda new: new.write_text("one"))
    output.put(model, output.digest(package), lambda new: new.write_text("compiled"))
    assert packages.stale(output, "m", ()) == []

    output.put(package, "", lambda new: new.write_text("another"))

    assert packages.stale(output, "m", ()) == [model]
    (tmp_path / model).write_text("of another program")
    assert packages.stale(Output(tmp_path), "m", ()) == []
