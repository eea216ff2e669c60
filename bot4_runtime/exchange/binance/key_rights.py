"""What an API key may do, and why it must not trade with more.

A key that trades needs no more than reading and spot trading. It must not take money out or move
it, nor trade on margin, futures or options; that it may not must be told. It must be bound to
addresses, and be the account's that the settings name. Source: Binance's wallet
interface, "Get API Key Permission".
"""

from typing import NamedTuple

import msgspec

from bot4_runtime.exchange.binance.messages import Id


class AccountNumber(msgspec.Struct):
    """`GET /api/v3/account`, as far as it names the account."""

    uid: Id | None = None


class KeyHolder(msgspec.Struct, rename="camel"):
    """`GET /api/v3/account`, as far as it says whose it is."""

    uid: Id
    can_trade: bool


class KeyRights(msgspec.Struct, rename="camel"):
    """`GET /sapi/v1/account/apiRestrictions`; None where a right is not told."""

    ip_restrict: bool
    enable_reading: bool
    enable_spot_and_margin_trading: bool
    enable_withdrawals: bool | None = None
    enable_internal_transfer: bool | None = None
    permits_universal_transfer: bool | None = None
    enable_margin: bool | None = None
    enable_futures: bool | None = None
    enable_vanilla_options: bool | None = None
    enable_portfolio_margin_trading: bool | None = None


class KeyTold(NamedTuple):
    """Whose key it is and what it may do."""

    holder: KeyHolder
    rights: KeyRights | None

    def faults(self, uid: int) -> list[str]:
        """Return why the key must not trade; empty when it may.

        Args:
            uid: of the account that the settings name; 0 when they name none.
        """
        found = _too_much_or_too_little(self.rights) if self.rights is not None else []
        if not self.holder.can_trade:
            found.append(f"account {self.holder.uid} may not trade")
        if uid == 0:
            found.append(f"no account is named: set binance.account_uid = {self.holder.uid}")
        elif uid != self.holder.uid:
            found.append(f"it is of account {self.holder.uid}, and binance.account_uid is {uid}")
        return found


def _too_much_or_too_little(rights: KeyRights) -> list[str]:
    excess = {
        "withdraw (enableWithdrawals)": rights.enable_withdrawals,
        "transfer to others (enableInternalTransfer)": rights.enable_internal_transfer,
        "move money between accounts (permitsUniversalTransfer)": (
            rights.permits_universal_transfer
        ),
        "borrow on margin (enableMargin)": rights.enable_margin,
        "trade futures (enableFutures)": rights.enable_futures,
        "trade options (enableVanillaOptions)": rights.enable_vanilla_options,
        "trade on portfolio margin (enablePortfolioMarginTrading)": (
            rights.enable_portfolio_margin_trading
        ),
    }
    may = [name for name, told in excess.items() if told]
    untold = [name for name, told in excess.items() if told is None]
    found = [f"it may {' and '.join(may)}: take these rights away"] if may else []
    if untold:
        found.append(f"the venue does not tell whether it may {' or '.join(untold)}")
    if not rights.ip_restrict:
        found.append("it is bound to no address: restrict it to this machine's")
    if not (rights.enable_reading and rights.enable_spot_and_margin_trading):
        found.append("it may not read and trade: give it these two rights alone")
    return found
