"""What can go wrong with strangers' tokens and with mints, by what the wallet should do then; the rest of the tree is tradeskill.errors."""

from __future__ import annotations

from typing import Final

from tradeskill.errors import RefusedError

__all__ = ["MintRefusedError", "TokenError"]

# NUT error codes that a wallet acts on; older and newer numbers of the same thing stand together
_SPENT: Final = frozenset({11001})
_PENDING: Final = frozenset({11002, 11004, 20005})
_SIGNED: Final = frozenset({10002, 11003})
_UNPAID: Final = frozenset({20001})
_ISSUED: Final = frozenset({20002})
_PAID: Final = frozenset({20006})
_KEYSET: Final = frozenset({12001, 12002, 12003})
_LIGHTNING: Final = frozenset({20004})


class TokenError(RefusedError):
    """A token, payment request or lock that cannot be read or must not be taken. Nothing was sent anywhere."""

    code = "refused.token"


class MintRefusedError(RefusedError):
    """The mint understood and said no, with a code of the protocol: this request, now, changed nothing.

    Of a request that was sent *before*, a refusal says nothing: `spent`, `signed` and `issued` are what a mint answers when the first try did
    succeed. Ask `checkstate` and `restore` then. Code 0 and other answers without a protocol code are unknown outcomes, never this: inputs that the
    mint then calls UNSPENT, and outputs that it does not restore, show that nothing had happened.
    """

    code = "refused.mint"

    def __init__(self, message: str, mint_code: int) -> None:
        super().__init__(message, mint_code=mint_code)
        self.mint_code = mint_code

    @property
    def spent(self) -> bool:
        """An input is spent already, by whomever."""
        return self.mint_code in _SPENT

    @property
    def pending(self) -> bool:
        """Inputs, outputs or the quote are in another request that is not decided: ask again later."""
        return self.mint_code in _PENDING

    @property
    def signed(self) -> bool:
        """An output was signed before: a counter was used twice, or the first try did succeed."""
        return self.mint_code in _SIGNED

    @property
    def unpaid(self) -> bool:
        """The mint quote's invoice is not paid (yet)."""
        return self.mint_code in _UNPAID

    @property
    def issued(self) -> bool:
        """The mint quote's ecash was taken before."""
        return self.mint_code in _ISSUED

    @property
    def paid(self) -> bool:
        """The invoice to be melted is paid already."""
        return self.mint_code in _PAID

    @property
    def keyset(self) -> bool:
        """The mint does not know the keyset, does not sign with it any more, or it has expired: load the keysets again."""
        return self.mint_code in _KEYSET

    @property
    def lightning(self) -> bool:
        """The Lightning payment of a melt failed for good; the inputs are free again."""
        return self.mint_code in _LIGHTNING
