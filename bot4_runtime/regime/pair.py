"""A verified pair of models: the HMM, and the LSTM that was trained with it."""

from dataclasses import dataclass

from bot4_runtime.domain.errors import ModelError
from bot4_runtime.regime.loader import LoadedModel
from bot4_runtime.regime.lookahead import LookAhead, return_blocks_of
from bot4_runtime.regime.manifest import Manifest


@dataclass(frozen=True, eq=False)
class ModelPair:
    """A verified pair, ready to be asked.

    Attributes:
        lstm: None when the interval has no valid LSTM: the HMM filter's estimate trades.
        lstm_refusal: why, when there is one and it was refused.
    """

    interval: str
    hmm: LoadedModel
    lstm: LoadedModel | None
    lstm_refusal: str = ""

    @property
    def hmm_sha256(self) -> str:
        """Of the HMM file."""
        return self.hmm.sha256

    @property
    def lstm_sha256(self) -> str:
        """Of the LSTM file; empty without one."""
        return self.lstm.sha256 if self.lstm is not None else ""

    @property
    def hmm_manifest(self) -> Manifest:
        """What the HMM says of itself."""
        return self.hmm.manifest

    @property
    def lstm_manifest(self) -> Manifest | None:
        """What the LSTM says of itself."""
        return self.lstm.manifest if self.lstm is not None else None

    @property
    def schema_id(self) -> str:
        """Of the features that both were made from."""
        return self.hmm.manifest.schema_id

    @property
    def deciding(self) -> Manifest:
        """The manifest of the model whose estimate trades."""
        return (self.lstm or self.hmm).manifest

    @property
    def expires_ms(self) -> int:
        """From when on the pair is refused, UTC: the earlier of its files'."""
        manifests = (self.hmm_manifest, self.lstm_manifest)
        return min(manifest.expires_ms for manifest in manifests if manifest is not None)

    def admits(self, symbol: str) -> bool:
        """Whether the pair may name regimes of this symbol."""
        return self.deciding.admits(symbol)

    def look_ahead(self) -> LookAhead:
        """Return the look-ahead of the HMM file.

        Raises:
            ModelError: the file carries no pool of blocks, or too small a one.
        """
        blocks = return_blocks_of(self.hmm.session.get_modelmeta().custom_metadata_map)
        return LookAhead(self.hmm.parameters(), blocks)

    def require(self, symbol: str) -> None:
        """Refuse a symbol the pair may not be used on.

        Raises:
            ModelError: not trained on it, and never proven on symbols it had not seen.
        """
        if not self.admits(symbol):
            raise ModelError(
                f"the {self.interval} models were not trained on {symbol}, and their accuracy on "
                f"unseen symbols did not pass a gate; trained on {' '.join(self.deciding.symbols)}"
                ": trade those, or train with this symbol in the pool"
            )
