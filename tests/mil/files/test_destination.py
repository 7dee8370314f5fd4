"""Edits and the compiler write only to a path that does not exist, and whole or not at all."""

import pytest

from sdbuild.base.errors import MILError, UnsupportedFormat
from sdbuild.mil.compile.compile import compile_package
from sdbuild.mil.compress.quantize import quantize
from sdbuild.mil.edit.chunk import chunk
from sdbuild.mil.edit.pipeline import chunk_into_pipeline, join
from sdbuild.mil.files.destination import put
from tests.mil.packages import edited, operation

WRITERS = {
    "quantize": quantize,
    "chunk": lambda source, out: chunk(source, [out, out.with_name("free")]),
    "one package": lambda source, out: chunk_into_pipeline(source, out, 2),
    "join": lambda source, out: join([source, source], out),
    "compile": compile_package,
}


@pytest.fixture
def place(source, tmp_path):
    """A folder with the package and nothing else."""
    return edited(source, tmp_path / "m.mlpackage", lambda spec: None).parent


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_nothing_is_written_into_the_package_or_over_what_is_there(write, place):
    (place / "taken").symlink_to("nowhere")
    (place / "link").symlink_to("m.mlpackage")
    before = content(place)

    with pytest.raises(MILError, match="taken: exists already"):
        write(place / "m.mlpackage", place / "taken")
    with pytest.raises(MILError, match=r"is inside .*m\.mlpackage, which is only read"):
        write(place / "m.mlpackage", place / "link" / "new" / "x")

    assert content(place) == before
    assert sorted(p.name for p in place.iterdir()) == ["link", "m.mlpackage", "taken"]


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_folder_that_is_a_file_is_reported(write, place):
    (place / "file").touch()

    with pytest.raises(MILError, match=r"/file: a file, expected a folder"):
        write(place / "m.mlpackage", place / "file" / "deeper" / "out")


@pytest.mark.parametrize(("first", "second", "expected"), [
    ("a", "b/../a", "a: is .*a, which is to be written too"),
    ("a", "a/b", "b: is inside .*a, which is to be written too"),
    ("a/b", "a", "b: is inside .*a, which is to be written too"),
    ("a", "here/a", "a: is .*a, which is to be written too"),
])
def test_chunks_need_places_of_their_own(first, second, expected, place):
    (place / "here").symlink_to(".")

    with pytest.raises(MILError, match=expected):
        chunk(place / "m.mlpackage", [place / first, place / second])

    assert sorted(p.name for p in place.iterdir()) == ["here", "m.mlpackage"]


def test_a_chunk_that_fails_takes_those_before_it_along(place):
    too_long = "3" * 255  # not for itself, but for the folder that it is written in

    with pytest.raises(OSError, match="too long"):
        chunk(place / "m.mlpackage", [place / "1", place / "2", place / too_long])

    assert sorted(p.name for p in place.iterdir()) == ["m.mlpackage"]


@pytest.mark.parametrize("count", [-1, 0, 1, 10**18])
def test_a_pipeline_of_more_programs_than_operations_is_refused_at_once(count, place):
    with pytest.raises(MILError, match=f"{count} chunks, expected two or more, and at most"):
        chunk_into_pipeline(place / "m.mlpackage", place / "out", count)


def test_what_is_written_into_a_compiled_model_stays_out_of_the_package(place, mil):
    assert mil("compile", place / "m.mlpackage", place / "m.mlmodelc")[0] == 0
    before = content(place / "m.mlpackage")
    compiled = place / "m.mlmodelc" / "weights" / "weight.bin"
    assert compiled.read_bytes() in before.values()

    with compiled.open("r+b") as file:
        file.write(b"damage")

    assert content(place / "m.mlpackage") == before


def test_what_is_written_into_a_pipeline_stays_out_of_its_packages(place):
    join([place / "m.mlpackage"] * 2, place / "row.mlpackage")
    before = content(place / "m.mlpackage")

    for file in (place / "row.mlpackage").rglob("*.bin"):
        file.write_bytes(b"damage")

    assert content(place / "m.mlpackage") == before


def test_a_compilation_that_is_refused_leaves_nothing_behind(source, tmp_path):
    package = edited(source, tmp_path / "m.mlpackage",
                     lambda spec: setattr(operation(spec, "relu"), "type", "made_up"))

    with pytest.raises(UnsupportedFormat):
        compile_package(package, tmp_path / "m.mlmodelc")

    assert [p.name for p in tmp_path.iterdir()] == ["m.mlpackage"]


@pytest.mark.parametrize("is_link", [False, True])
@pytest.mark.parametrize("size", [0, 1, 5_000_001])
def test_a_copy_and_a_link_have_the_bytes_of_their_source(is_link, size, tmp_path):
    (tmp_path / "old").write_bytes(b"7" * size)

    put(tmp_path / "old", tmp_path / "new", is_link=is_link)

    assert (tmp_path / "new").read_bytes() == b"7" * size
    assert (tmp_path / "new").samefile(tmp_path / "old") == is_link
