"""Named arrays in files: what a run that may be cut at any moment keeps between its steps.

    FOLDER/fragments/0_2048.npz      key "fragments/0_2048"

A file appears under its name when it is complete, and not before: it is written under another name,
brought to the disk, then renamed. What is there can be relied on, what is missing is done again.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, MutableMapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]


class ScratchFolder(MutableMapping[str, Arrays]):
    """A dict of dicts of arrays, each of the first a compressed file in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __getitem__(self, key: str) -> Arrays:
        try:
            with np.load(self._file(key), allow_pickle=False) as stored:
                return {name: _decoded(stored[name]) for name in stored.files}
        except FileNotFoundError:
            raise KeyError(key) from None

    def __setitem__(self, key: str, arrays: Arrays) -> None:
        file = self._file(key)
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_name(f".{file.name}.{os.getpid()}.{threading.get_ident()}")
        encoded: dict[str, Any] = {name: _encoded(array) for name, array in arrays.items()}
        try:
            with draft.open("wb") as stream:
                np.savez(stream, **encoded)
                stream.flush()
                os.fsync(stream.fileno())
            draft.replace(file)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise

    def __delitem__(self, key: str) -> None:
        try:
            self._file(key).unlink()
        except FileNotFoundError:
            raise KeyError(key) from None

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._file(key).is_file()

    def __iter__(self) -> Iterator[str]:
        for file in sorted(self.folder.rglob("*.npz")):
            if not file.name.startswith("."):
                yield file.relative_to(self.folder).with_suffix("").as_posix()

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}.npz"


def _codec() -> Any:
    from numcodecs import Blosc  # here: most commands keep nothing

    return Blosc("zstd", clevel=1, shuffle=Blosc.SHUFFLE)


def _encoded(array: NDArray[Any]) -> NDArray[np.uint8]:
    """The bytes of a .npy file, compressed: labels and zeros shrink to a few percent."""
    plain = BytesIO()
    np.save(plain, array, allow_pickle=False)
    return np.frombuffer(_codec().encode(plain.getvalue()), np.uint8)


def _decoded(code: NDArray[np.uint8]) -> NDArray[Any]:
    found: NDArray[Any] = np.load(BytesIO(_codec().decode(code.tobytes())), allow_pickle=False)
    return found
