import io
import json
import zipfile

import numpy as np
import pytest

from overproof.errors import DataError
from overproof.students.files import folder_size, read_arrays, read_json, write_arrays, write_json


def npz_of(**members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return buffer.getvalue()


def npy_of(array, **options):
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def huge_header():
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)})
    return buffer.getvalue()


def test_arrays_survive_the_file(tmp_path):
    """What is written is read back with type and shape."""
    path = tmp_path / "a.npz"
    write_arrays(path, {"x": np.arange(6, dtype=np.float32).reshape(2, 3), "y": np.array([1, 2])})
    found = read_arrays(path, {"x": 2, "y": 1})
    assert found["x"].dtype == np.float32
    assert found["x"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert found["y"].tolist() == [1, 2]


HOSTILE = {
    "pickle": npz_of(x=npy_of(np.array([{"a": 1}], dtype=object), allow_pickle=True)),
    "claims a terabyte": npz_of(x=huge_header()),
    "other names": npz_of(y=npy_of(np.zeros(2))),
    "more names": npz_of(x=npy_of(np.zeros(2)), z=npy_of(np.zeros(2))),
    "other shape": npz_of(x=npy_of(np.zeros((2, 2)))),
    "text": npz_of(x=npy_of(np.array(["a"]))),
    "nan": npz_of(x=npy_of(np.array([np.nan]))),
    "cut off": npz_of(x=npy_of(np.zeros(9)))[:-30],
    "no archive": b"\x80\x04K\x01.",
    "empty": b"",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_arrays_are_refused(tmp_path, what):
    """Pickles, lying headers, foreign names and broken archives are one clear error, and no code runs."""
    path = tmp_path / "a.npz"
    path.write_bytes(HOSTILE[what])
    with pytest.raises(DataError, match=r"a\.npz"):
        read_arrays(path, {"x": 1})


def test_compressed_arrays_are_refused(tmp_path):
    """An archive that could unfold to a thousand times its size is not opened."""
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=np.zeros(10**6))
    with pytest.raises(DataError, match="compressed"):
        read_arrays(path, {"x": 1})


@pytest.mark.parametrize("text", ['{"a": NaN}', "{", "[" * 200_000, "\ufffe"])
def test_bad_json_is_refused(tmp_path, text):
    """NaN, half a document and endless nesting are one clear error."""
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.json"):
        read_json(path)


def test_large_json_is_not_read(tmp_path):
    """A file beyond the bound is refused by its size."""
    path = tmp_path / "a.json"
    write_json(path, "x" * 100)
    with pytest.raises(DataError, match="at most 50"):
        read_json(path, max_bytes=50)
    assert json.loads(path.read_text()) == "x" * 100
    assert folder_size(tmp_path) == 103
