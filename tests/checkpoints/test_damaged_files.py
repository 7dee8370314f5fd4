"""Refuses files of tensors that are damaged, or are none."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from sdbuild.base.errors import SourceError
from sdbuild.safetensors import tensors


def test_a_tensor_that_two_files_hold_is_refused(tmp_path):
    for name in "ab":
        save_file({"w": np.zeros(3, np.float32)}, tmp_path / f"{name}.safetensors")

    with pytest.raises(SourceError, match=r"the tensor w is in .*a\.safetensors and in .*b\.saf"):
        tensors.table([tmp_path / "a.safetensors", tmp_path / "b.safetensors"])


@pytest.mark.parametrize("content", [b"", b"\x00" * 7, b"\xff" * 64, b"\x02\0\0\0\0\0\0\0{}x",
                                     b"<html>404</html>" * 9])
def test_a_file_that_is_no_safetensors_is_refused(tmp_path, content):
    (tmp_path / "w.safetensors").write_bytes(content)

    with pytest.raises(SourceError, match="not a complete safetensors file"):
        tensors.table([tmp_path / "w.safetensors"])


@pytest.mark.parametrize("change, hint", [
    (lambda content: content + b"xyz", "something was written behind its end"),
    (lambda content: content[:-3], "it was cut while it was copied"),
])
def test_a_file_that_is_longer_or_shorter_than_its_header_says_is_called_so(
    tmp_path, change, hint,
):
    path = tmp_path / "w.safetensors"
    save_file({"w": np.zeros(8, np.float32)}, path)
    whole = path.read_bytes()
    path.write_bytes(change(whole))

    with pytest.raises(SourceError, match=f"it has {len(change(whole))} bytes, expected "
                       f"{len(whole)} by its header") as error:
        tensors.table([path])
    assert hint in error.value.hint
