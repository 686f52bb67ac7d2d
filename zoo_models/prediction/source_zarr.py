"""Zarr of which only the touched chunks are read: on this machine, or behind an fsspec URL."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from zoo_models.errors import ImageError, InputError
from zoo_models.prediction.decoding import first_line
from zoo_models.prediction.source_arrays import LazyArray
from zoo_models.prediction.stored_arrays import ArrayPlace, open_zarr
from zoo_models.prediction.zarr_images import ZarrImage, find_zarr

# The chunk files that a fingerprint looks at, evenly spread over the array where it has more.
LOCAL_CHUNKS = 50_000
REMOTE_CHUNKS = 128

_DOCUMENTS = ("zarr.json", ".zarray", ".zgroup", ".zattrs")
# What file systems say about a file and its last change; not its owner, links or access times.
_TIMES = ("mtime", "updated", "LastModified", "Last-Modified", "last_modified", "date_time")
_FACTS = ("size", *_TIMES, "ETag", "etag", "md5Hash", "Content-MD5", "Digest", "CRC")
_IN_STORE = re.compile(r"(?P<store>.*?\.zarr)(?:/(?P<key>.*))?")


def open_local_zarr(place: ArrayPlace) -> LazyArray:
    """An array in a Zarr store on this machine.

    Raises:
        ImageError: no such store, or no array there.
    """
    return _lazy(open_zarr(place), str(place.path.absolute()), LOCAL_CHUNKS)


def open_remote_zarr(url: str) -> LazyArray:
    """An array or OME-Zarr image behind an fsspec URL: https://, s3://, memory://, zip://...::...

    Raises:
        ImageError: nothing can be read there, or no array.
        InputError: fsspec misses the library for the protocol.
    """
    from zarr.storage import FsspecStore  # here: most commands read no Zarr

    first, *rest = url.split("::", 1)  # zip://a.zarr/0::https://host/b.zip
    found = _IN_STORE.fullmatch(first)
    root = "::".join([found["store"] if found else first, *rest])
    key = (found["key"] or "").strip("/") if found else ""
    try:
        image = find_zarr(FsspecStore.from_url(root, read_only=True), key, name=url)
    except ImageError:
        raise
    except ImportError as error:
        raise InputError(
            f"{url}: cannot be reached ({first_line(error)}), expected a URL for which fsspec has "
            "the library: install it (s3fs for s3://, gcsfs for gs://)"
        ) from error
    except Exception as error:  # every file system raises its own classes
        raise ImageError(
            f"{url}: cannot be read ({first_line(error)}), expected a Zarr array or an OME-Zarr "
            "image: check the address, the connection and the permission"
        ) from error
    return _lazy(image, root, REMOTE_CHUNKS)


def _lazy(image: ZarrImage, root: str, chunks: int) -> LazyArray:
    array = image.array
    return LazyArray(
        shape=tuple(array.shape),
        dtype=np.dtype(array.dtype),
        axes=image.axes,
        chunk=tuple(array.chunks),
        read=lambda index: np.asarray(array[index]),
        identity=lambda: list(_identity(array, root, chunks)),
        size_um=image.size_um,
    )


def _identity(array: Any, root: str, limit: int) -> Iterator[str]:
    """The metadata documents from the array up to the root, and facts of at most `limit` files of
    chunks (of shards, where there are): all, or as many evenly spread over the array.
    """
    from fsspec.core import url_to_fs

    files, base = url_to_fs(root)
    files.invalidate_cache()  # what was listed before may have changed
    base = base.rstrip("/")
    names = array.path.split("/") if array.path else []
    for depth in range(len(names), -1, -1):
        for document in _DOCUMENTS:
            path = "/".join([base, *names[:depth], document])
            yield f"{'/'.join(names[:depth])} {_content(files, path)!r}"
    grid = [
        math.ceil(n / c) for n, c in zip(array.shape, array.shards or array.chunks, strict=True)
    ]
    number = math.prod(grid)
    picked = range(number) if number <= limit else [i * number // limit for i in range(limit)]
    keys = [
        array.metadata.encode_chunk_key(tuple(map(int, np.unravel_index(i, grid)))) for i in picked
    ]
    paths = ["/".join([base, *names, key]) for key in keys]
    with ThreadPoolExecutor(16) as pool:  # a request each, where they are remote
        yield from pool.map(partial(_facts, files), paths)


def _content(files: Any, path: str) -> bytes | None:
    try:
        content: bytes = files.cat_file(path)
    except FileNotFoundError:
        return None
    return content


def _facts(files: Any, path: str) -> str:
    """What tells a file from its changed self; 'absent' for a chunk that is not stored."""
    try:
        info = files.info(path)
    except FileNotFoundError:
        return "absent"
    known = {name: info[name] for name in _FACTS if name in info}
    if known.keys() <= {"size"}:
        known["created"] = info.get("created")
    return repr(sorted(known.items(), key=lambda item: item[0]))
