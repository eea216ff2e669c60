"""The model store: what is archived, what is promoted, and the way from one to the other.

    models/archive/<sha256>/{model.onnx, manifest.json}   immutable
    models/archive/<sha256>/{card.html, model.sig}   its card; its signature, once promoted
    models/current.json        the one pointer, replaced by one rename
    models/activations.jsonl   what was activated when; the way back
    models/hmm_regime.onnx, models/lstm_regime.onnx   copies of the main interval's pair

Whether a model deserves promotion is judged by `bot4_pipelines.training.promotion`; whether a
file may be trusted by `loader`. Here a crash at any moment leaves the old pair or the new one.
"""

import hashlib
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from bot4_runtime.domain.candle import INTERVALS_MS
from bot4_runtime.domain.errors import ModelError
from bot4_runtime.domain.unreadable import UNREADABLE
from bot4_runtime.regime.archive import (
    CARD,
    MANIFEST,
    MODEL,
    SIGNATURE,
    ModelArchive,
    append_line,
    locked,
    replace_file,
)
from bot4_runtime.regime.comparison import Comparison
from bot4_runtime.regime.loader import LoadedModel, load_model
from bot4_runtime.regime.manifest import Manifest, ModelKind
from bot4_runtime.regime.pair import ModelPair
from bot4_runtime.regime.signature import ModelKeys

__all__ = ["Activation", "ArchivedModel", "CurrentPair", "ModelPair", "ModelRegistry"]

MAIN_INTERVAL: Final = "1h"
POINTER, ACTIVATIONS = "current.json", "activations.jsonl"
PROMOTE: Final = "promote"
NOTHING: Final = ("", "")
"""The files of an interval for which nothing is promoted."""


class CurrentPair(msgspec.Struct, frozen=True, kw_only=True):
    """What the pointer names for one interval; `lstm_sha256` is empty when the HMM is alone."""

    hmm_sha256: str
    lstm_sha256: str
    schema_id: str
    hmm_code_version: str
    lstm_code_version: str
    activated_ms: int

    @property
    def shas(self) -> tuple[str, str]:
        """The two files, HMM first."""
        return self.hmm_sha256, self.lstm_sha256


class Activation(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the history.

    Attributes:
        action: ``promote`` or ``rollback``.
        champion: how the pair did against the one it replaced; None when it was not compared.
        note: why there was no comparison, or why its verdict was set aside.
    """

    action: str
    interval: str
    pair: CurrentPair
    champion: Comparison | None = None
    note: str = ""


class _Pointer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    intervals: dict[str, CurrentPair]
    format: int = 1


@dataclass(frozen=True)
class ArchivedModel:
    """One archived file; `manifest` is None when it cannot be read, and `problem` says why."""

    sha256: str
    manifest: Manifest | None
    problem: str
    active: tuple[str, ...]


class ModelRegistry:
    """The models folder.

    Args:
        root: the folder.
        keys: what is promoted is signed, and what is loaded checked, with those that are there;
            None takes them from the environment.
    """

    def __init__(self, root: Path, keys: ModelKeys | None = None) -> None:
        self.root = root
        self._archive = ModelArchive(root)
        self._keys = ModelKeys.from_environment() if keys is None else keys

    def add(self, onnx_bytes: bytes, manifest: Manifest, card_html: str) -> str:
        """Archive a model for ever; return its sha256. Adding it again changes nothing.

        Raises:
            ModelError: the file would not be loadable with this manifest.
        """
        return self._archive.add(onnx_bytes, manifest, card_html)

    def manifest(self, sha256: str) -> Manifest:
        """Read a model's manifest without verifying the model.

        Raises:
            ModelError: there is none, or it is unreadable.
        """
        return self._archive.manifest(sha256)

    def verify(self, sha256: str, now_ms: int | None = None) -> LoadedModel:
        """Check an archived model in every way, expiry only when `now_ms` is given.

        Raises:
            ModelError: it is refused; the message says why.
        """
        return self._archive.verify(sha256, now_ms)

    def current(self, interval: str) -> CurrentPair | None:
        """Return what is promoted for an interval.

        Raises:
            ModelError: the interval is unknown, or the pointer is damaged.
        """
        _check_interval(interval)
        return self._pointer().intervals.get(interval)

    def promoted(self, interval: str) -> CurrentPair:
        """Return what is promoted for an interval; nothing is a refusal.

        Raises:
            ModelError: nothing is promoted, or `current` raises.
        """
        pair = self.current(interval)
        if pair is None:
            promoted = " ".join(self._pointer().intervals) or "none"
            raise ModelError(
                f"no models are promoted for {interval} in {self.root / POINTER}; promoted "
                f"intervals: {promoted}. Train and promote with `bot4-pipelines run`"
            )
        return pair

    def pointer_stamp(self) -> tuple[int, int, int] | None:
        """Return what changes when anything is activated; cheap enough to poll."""
        try:
            facts = (self.root / POINTER).stat()
        except OSError:
            return None
        return facts.st_ino, facts.st_mtime_ns, facts.st_size

    def load(
        self, interval: str, now_ms: int | None = None, *, hmm_alone: bool = False
    ) -> ModelPair:
        """Verify and open the promoted pair. The caller keeps its last good pair on refusal.

        Args:
            interval: of the candles.
            now_ms: UTC; expired models are refused. None does not look at the expiry.
            hmm_alone: accept a pair whose LSTM is refused; without it, that is a refusal.

        Raises:
            ModelError: nothing is promoted, or a file does not hold.
        """
        return self.open(interval, *self.promoted(interval).shas, now_ms, hmm_alone=hmm_alone)

    def open(
        self,
        interval: str,
        hmm_sha256: str,
        lstm_sha256: str = "",
        now_ms: int | None = None,
        *,
        hmm_alone: bool = False,
    ) -> ModelPair:
        """Verify and open any archived pair, promoted or not; arguments as of `load`.

        Raises:
            ModelError: a file does not hold, or the two do not belong together.
        """
        hmm = self._verified(hmm_sha256, ModelKind.HMM, interval, now_ms)
        lstm, refusal = None, ""
        if lstm_sha256:
            try:
                lstm = self._verified(lstm_sha256, ModelKind.LSTM, interval, now_ms)
                _check_together(hmm, lstm)
            except ModelError as error:
                if not hmm_alone:
                    raise
                lstm, refusal = None, str(error)
        return ModelPair(interval, hmm, lstm, refusal)

    def activate(
        self,
        interval: str,
        hmm_sha256: str,
        lstm_sha256: str = "",
        now_ms: int | None = None,
        action: str = PROMOTE,
        *,
        instead_of: tuple[str, str] | None = None,
        champion: Comparison | None = None,
        note: str = "",
    ) -> CurrentPair:
        """Point an interval at a pair whose manifests say that the gates passed.

        A promotion signs both files first, where there is a key to sign with; going back to an
        earlier pair signs nothing. All of it happens under the lock of the models folder.

        Args:
            interval: of the candles.
            hmm_sha256: the HMM.
            lstm_sha256: the LSTM; empty for the HMM alone.
            now_ms: UTC; the present when None.
            action: ``promote`` or ``rollback``.
            instead_of: the files it was decided to replace, `NOTHING` when there were none; None
                replaces whatever is promoted.
            champion: as of `Activation`.
            note: as of `Activation`.

        Raises:
            ModelError: a file does not hold, has expired, or failed a gate; or another pair than
                the one to replace is promoted by now.
        """
        now_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
        _check_interval(interval)
        with locked(self.root):
            intervals = self._pointer().intervals
            _check_replaced(interval, intervals.get(interval), instead_of)
            if self._keys.signing is not None and action == PROMOTE:
                for sha256 in filter(None, (hmm_sha256, lstm_sha256)):
                    self._sign(sha256)
            opened = self.open(interval, hmm_sha256, lstm_sha256, now_ms)
            lstm = opened.lstm_manifest
            pair = CurrentPair(
                hmm_sha256=hmm_sha256,
                lstm_sha256=lstm_sha256,
                schema_id=opened.schema_id,
                hmm_code_version=opened.hmm_manifest.code_version,
                lstm_code_version=lstm.code_version if lstm else "",
                activated_ms=now_ms,
            )
            intervals = {**intervals, interval: pair}
            told = Activation(
                action=action, interval=interval, pair=pair, champion=champion, note=note
            )
            append_line(self.root / ACTIVATIONS, msgspec.json.encode(told))
            pointer = _Pointer(intervals=dict(sorted(intervals.items())))
            replace_file(self.root / POINTER, msgspec.json.format(msgspec.json.encode(pointer)))
            self._refresh_copies(intervals)
        return pair

    def tell(self, sha256: str, section: str) -> None:
        """Add a section of HTML to a model's card; a card that is gone begins anew."""
        with locked(self.root):
            there = self._archive.has(sha256, CARD)
            card = self._archive.read(sha256, CARD) if there else b""
            page = card.decode(errors="replace").removesuffix("</html>")
            self._archive.put(sha256, CARD, f"{page}{section}</html>".encode())

    def activations(self, interval: str) -> list[Activation]:
        """Return the history of an interval, oldest first; a torn last line is left out."""
        _check_interval(interval)
        try:
            lines = (self.root / ACTIVATIONS).read_bytes().splitlines()
        except OSError:
            return []
        history = []
        for line in lines:
            with suppress(*UNREADABLE):
                history.append(msgspec.json.decode(line, type=Activation))
        return [entry for entry in history if entry.interval == interval]

    def check_copies(self) -> list[str]:
        """Say which of the copies for people differ from what is promoted; empty when none."""
        problems = []
        for name, sha256 in _copies(self._pointer().intervals).items():
            path = self.root / name
            found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
            if found != sha256:
                problems.append(
                    f"{path} is {found[:12] or 'missing'}; the pointer names "
                    f"{sha256[:12] or 'none'}: activate the pair again"
                )
        return problems

    def _refresh_copies(self, intervals: dict[str, CurrentPair]) -> None:
        for name, sha256 in _copies(intervals).items():
            if sha256:
                replace_file(self.root / name, self._archive.read(sha256, MODEL))
            else:
                (self.root / name).unlink(missing_ok=True)

    def _pointer(self) -> _Pointer:
        path = self.root / POINTER
        try:
            return msgspec.json.decode(path.read_bytes(), type=_Pointer)
        except FileNotFoundError:
            return _Pointer(intervals={})
        except (OSError, *UNREADABLE) as error:
            raise ModelError(
                f"the pointer {path} is unreadable ({error}); expected what `bot4-pipelines "
                "promote` writes: remove the file, then promote again"
            ) from error

    def _sign(self, sha256: str) -> None:
        manifest_json = self._archive.read(sha256, MANIFEST)
        load_model(self._archive.read(sha256, MODEL), manifest_json, sha256)
        self._archive.put(sha256, SIGNATURE, self._keys.sign(sha256, manifest_json))

    def _verified(
        self, sha256: str, kind: ModelKind, interval: str, now_ms: int | None
    ) -> LoadedModel:
        """Return a model of the bytes whose signature was checked: each file is read once."""
        manifest_json = self._archive.read(sha256, MANIFEST)
        if self._keys.public is not None:
            signed = self._archive.has(sha256, SIGNATURE)
            signature = self._archive.read(sha256, SIGNATURE) if signed else b""
            self._keys.check(sha256, manifest_json, signature)
        data = self._archive.read(sha256, MODEL)
        model = load_model(data, manifest_json, sha256, now_ms=now_ms)
        manifest = model.manifest
        for what, found, expected in (
            ("its kind", manifest.kind.value, kind.value),
            ("its interval", manifest.interval, interval),
        ):
            if found != expected:
                raise ModelError(
                    f"model {sha256[:12]} refused: {what} is {found}; expected {expected}; "
                    "promote one of the right kind"
                )
        if not manifest.gates_passed:
            failed = "; ".join(str(gate) for gate in manifest.gates if not gate.passed)
            raise ModelError(
                f"model {sha256[:12]} refused: {failed or 'its gates were never judged'}; "
                "expected every gate passed; promote another, or train again"
            )
        return model

    def list(self) -> list[ArchivedModel]:
        """Return what is archived, newest first; unreadable ones with their problem."""
        active: dict[str, list[str]] = {}
        with suppress(ModelError):
            for interval, pair in self._pointer().intervals.items():
                for used in pair.shas:
                    active.setdefault(used, []).append(interval)
        found = []
        for sha256 in self._archive.shas():
            manifest, problem = None, ""
            try:
                manifest = self.manifest(sha256)
            except ModelError as error:
                problem = str(error)
            uses = tuple(active.get(sha256, ()))
            found.append(ArchivedModel(sha256, manifest, problem, uses))
        found.sort(key=lambda model: model.manifest.created_ms if model.manifest else 0)
        return found[::-1]


def _check_interval(interval: str) -> None:
    if interval not in INTERVALS_MS:
        raise ModelError(f"unknown interval {interval[:20]!r}; known: {' '.join(INTERVALS_MS)}")


def _check_replaced(
    interval: str, current: CurrentPair | None, instead_of: tuple[str, str] | None
) -> None:
    held = NOTHING if current is None else current.shas
    if instead_of is not None and held != instead_of:
        raise ModelError(
            f"nothing is activated: {_told(held)} is promoted for {interval}; expected "
            f"{_told(instead_of)}, which the decision was made about: decide anew, by the same "
            "command"
        )


def _told(shas: tuple[str, str]) -> str:
    return " and ".join(sha256[:12] for sha256 in shas if sha256) or "nothing"


def _check_together(hmm: LoadedModel, lstm: LoadedModel) -> None:
    named = lstm.manifest.hmm_sha256
    if named != hmm.sha256:
        raise ModelError(
            f"model {lstm.sha256[:12]} refused: it was trained with HMM {named[:12]}; the pair "
            f"has {hmm.sha256[:12]}; promote the two that belong together"
        )
    if lstm.manifest.market is not hmm.manifest.market:
        raise ModelError(
            f"model {lstm.sha256[:12]} refused: its market is {lstm.manifest.market.value}; the "
            f"HMM's is {hmm.manifest.market.value}; promote the two that belong together"
        )


def _copies(intervals: dict[str, CurrentPair]) -> dict[str, str]:
    """Return which model each copy holds: the main interval's, or the only one's."""
    pair = intervals.get(MAIN_INTERVAL)
    if pair is None and len(intervals) == 1:
        (pair,) = intervals.values()
    if pair is None:
        return {}
    return {"hmm_regime.onnx": pair.hmm_sha256, "lstm_regime.onnx": pair.lstm_sha256}
