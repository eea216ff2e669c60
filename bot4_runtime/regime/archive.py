"""The immutable part of the model store: one folder a model, named by the file's sha256.

Files are written aside, synced, and appear by one rename. They are read by sha256 alone, never
through a link. What is promoted is `registry`'s business.
"""

import fcntl
import hashlib
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bot4_runtime.domain.errors import ModelError
from bot4_runtime.regime.loader import LoadedModel, load_model
from bot4_runtime.regime.manifest import Manifest, decode_manifest

MODEL, MANIFEST, CARD, LOCK = "model.onnx", "manifest.json", "card.html", ".lock"
SIGNATURE: Final = "model.sig"
MAX_BYTES: Final = 64 * 2**20
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class ModelArchive:
    """``archive/<sha256>/`` under the models folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folder = root / "archive"

    def add(self, onnx_bytes: bytes, manifest: Manifest, card_html: str) -> str:
        """Archive a model for ever under its sha256; adding it again changes nothing.

        Raises:
            ModelError: the file would not be loadable with this manifest.
        """
        sha256 = hashlib.sha256(onnx_bytes).hexdigest()
        encoded = manifest.encode()
        load_model(onnx_bytes, encoded, sha256)
        target = self._folder / sha256
        with locked(self._root):
            if target.exists():
                self.verify(sha256)
                return sha256
            self._folder.mkdir(exist_ok=True)
            staged = self._folder / f".{sha256}.tmp"
            shutil.rmtree(staged, ignore_errors=True)
            staged.mkdir()
            for name, content in (
                (MODEL, onnx_bytes),
                (MANIFEST, encoded),
                (CARD, card_html.encode()),
            ):
                _write(staged / name, content)
            _sync_folder(staged)
            staged.rename(target)
            _sync_folder(self._folder)
        return sha256

    def shas(self) -> list[str]:
        """Return the ids of what is archived, sorted."""
        return sorted(path.name for path in self._folder.glob("*") if _SHA256.fullmatch(path.name))

    def whole(self, prefix: str) -> str:
        """Return the one archived sha256 that begins so.

        Raises:
            ModelError: none does, or several do.
        """
        found = [sha256 for sha256 in self.shas() if prefix and sha256.startswith(prefix)]
        if len(found) != 1:
            raise ModelError(
                f"{len(found)} archived models begin with {prefix!r}; expected one: "
                "`bot4-pipelines models` lists them"
            )
        return found[0]

    def manifest(self, sha256: str) -> Manifest:
        """Read a model's manifest without verifying the model.

        Raises:
            ModelError: there is none, or it is unreadable.
        """
        return decode_manifest(self.read(sha256, MANIFEST))

    def verify(self, sha256: str, now_ms: int | None = None) -> LoadedModel:
        """Check an archived model in every way, expiry only when `now_ms` is given.

        Raises:
            ModelError: it is refused; the message says why.
        """
        return load_model(
            self.read(sha256, MODEL), self.read(sha256, MANIFEST), sha256, now_ms=now_ms
        )

    def has(self, sha256: str, name: str) -> bool:
        """Whether a model has such a file."""
        return bool(_SHA256.fullmatch(sha256)) and (self._folder / sha256 / name).is_file()

    def put(self, sha256: str, name: str, content: bytes) -> None:
        """Write what is told of a model beside it; never the model or its manifest."""
        if name in {MODEL, MANIFEST} or not _SHA256.fullmatch(sha256):
            raise ModelError(f"{name} of model {sha256[:12]} is never written again")
        replace_file(self._folder / sha256 / name, content)

    def read(self, sha256: str, name: str) -> bytes:
        """Read one file of the archive; never through a link, never outside it."""
        if not _SHA256.fullmatch(sha256):
            raise ModelError(
                f"{sha256[:80]!r} is no model id; expected 64 hexadecimal digits in lower case: "
                "see `bot4-pipelines models`"
            )
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        path = self._folder / sha256
        try:
            folder = os.open(path, flags | os.O_DIRECTORY)
            try:
                file = os.open(name, flags, dir_fd=folder)
            finally:
                os.close(folder)
            with os.fdopen(file, "rb") as stream:
                facts = os.fstat(stream.fileno())
                if not stat.S_ISREG(facts.st_mode) or facts.st_size > MAX_BYTES:
                    raise ModelError(
                        f"model {sha256[:12]} refused: {name} is {facts.st_size} bytes; "
                        f"expected a plain file of at most {MAX_BYTES} bytes; promote another"
                    )
                return stream.read()
        except OSError as error:
            raise ModelError(
                f"model {sha256[:12]} refused: {name} is not readable "
                f"({error.strerror or error}); expected it in {path}; restore it, or promote "
                "another model"
            ) from error


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Keep a second writer out while the models folder changes."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / LOCK).open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def append_line(path: Path, line: bytes) -> None:
    """Append a line durably; a torn line before it stays a line of its own."""
    with path.open("a+b") as stream:
        if stream.seek(0, os.SEEK_END):
            stream.seek(-1, os.SEEK_END)
            if stream.read(1) != b"\n":
                stream.write(b"\n")
        stream.write(line + b"\n")
        stream.flush()
        os.fsync(stream.fileno())


def replace_file(path: Path, content: bytes) -> None:
    """Replace a file durably by one rename: whoever reads sees the old one or the new one."""
    staged = path.with_name(f".{path.name}.tmp")
    _write(staged, content)
    staged.replace(path)
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
