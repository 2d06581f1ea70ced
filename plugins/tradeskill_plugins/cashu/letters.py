"""How money is left at a mint for an address: outputs that both sides derive from the address's key, and that only its owner can spend.

A refund has no way back to the buyer but the mint. So whoever sends to an address swaps into the address's *letters* 0, 1, 2, …: secrets locked
(NUT-11) to its key, blinded by factors that anybody who knows the key can compute. The owner asks the mint for the signatures on them (NUT-09),
verifies them, and swaps what it finds. Who else knows the key learns what was sent, as on any ledger, and can spend none of it.
"""

from __future__ import annotations

import hashlib
from typing import Final

from tradeskill_plugins.cashu.nuts import curve
from tradeskill_plugins.cashu.nuts.model import Output

__all__ = ["letter"]

_DOMAIN: Final = b"tradeskill/cashu/letter/1\n"


def letter(pubkey: str, keyset_id: str, index: int, amount: int = 1) -> Output:
    """Output number `index` for the key in a keyset. The amount is the sender's choice: it is no part of what is derived."""
    seed = hashlib.sha256(_DOMAIN + bytes.fromhex(pubkey) + bytes.fromhex(keyset_id) + index.to_bytes(8, "big")).digest()
    nonce = hashlib.sha256(seed + b"nonce").hexdigest()
    secret = f'["P2PK",{{"nonce":"{nonce}","data":"{pubkey}","tags":[["sigflag","SIG_INPUTS"]]}}]'
    r = f"{int.from_bytes(hashlib.sha512(seed + b'r').digest(), 'big') % (curve.ORDER - 1) + 1:064x}"
    return Output(amount, keyset_id, secret, r, curve.blind(secret, r))
