"""A mint on paper: keys made from a word, blind signatures with DLEQ proofs, answers as JSON. It keeps no books; what a lying mint says is made of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from coincurve import PrivateKey, PublicKey

from tradeskill_plugins.cashu.nuts import curve, keysets, requests
from tradeskill_plugins.cashu.nuts.model import Dleq, Keyset, KeysetInfo, Output, Proof

SEED = bytes(range(32))
AMOUNTS = [2**n for n in range(12)]


class PaperMint:
    def __init__(self, word: str = "paper", version: int = 1, unit: str = "sat", fee_ppk: int = 100, amounts: Sequence[int] = AMOUNTS) -> None:
        self.secrets = {amount: hashlib.sha256(f"{word} {amount}".encode()).digest() for amount in amounts}
        keys = {amount: curve.public_key(secret) for amount, secret in self.secrets.items()}
        self.info = KeysetInfo(keysets.derive_id(version, keys, unit, fee_ppk), unit, True, fee_ppk)
        self.keyset: Keyset = keysets.keyset(self.info, keys)
        self.known = {self.keyset.id: self.keyset}

    def signature(self, point: str, amount: int) -> dict[str, Any]:
        """What a mint answers for one blinded message."""
        return {"amount": amount, "id": self.keyset.id, "C_": self.signed(point, amount), "dleq": self.dleq(point, amount)}

    def signed(self, point: str, amount: int) -> str:
        return PublicKey(bytes.fromhex(point)).multiply(self.secrets[amount]).format().hex()

    def dleq(self, point: str, amount: int) -> dict[str, str]:
        secret, nonce = self.secrets[amount], hashlib.sha256(f"{point} {amount}".encode()).digest()
        r1, r2 = curve.public_key(nonce), PublicKey(bytes.fromhex(point)).multiply(nonce).format().hex()
        e = curve.hash_e(r1, r2, self.keyset.keys[amount], self.signed(point, amount))
        return {"e": e, "s": PrivateKey(nonce).add(PrivateKey(secret).multiply(bytes.fromhex(e)).secret).to_hex().rjust(64, "0")}

    def answer(self, outputs: Sequence[Output]) -> bytes:
        return json.dumps({"signatures": [self.signature(output.point, output.amount) for output in outputs]}).encode()

    def outputs(self, *amounts: int, counter: int = 0) -> tuple[Output, ...]:
        return requests.outputs(SEED, self.keyset, amounts, counter)

    def proof_of(self, output: Output) -> Proof:
        """As honest minting makes it, by the mint's secret alone."""
        dleq = self.dleq(output.point, output.amount)
        signature = PublicKey(bytes.fromhex(curve.y_of(output.secret))).multiply(self.secrets[output.amount]).format().hex()
        return Proof(output.amount, output.keyset_id, output.secret, signature, Dleq(dleq["e"], dleq["s"], output.r))

    def proofs(self, *amounts: int, counter: int = 0) -> tuple[Proof, ...]:
        return tuple(self.proof_of(output) for output in self.outputs(*amounts, counter=counter))
