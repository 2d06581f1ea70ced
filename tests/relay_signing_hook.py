"""What goes into schemathesis' requests (`SCHEMATHESIS_HOOKS=tests.relay_signing_hook`): a signature, and often a job that is there, in the right state.

Without that a description is only ever tried at the door: made-up keys sign nothing, and made-up ids name nothing. `TRADESKILL_RELAY_URL` is the relay.
"""

from __future__ import annotations

import os
import random
import time
from typing import Any

import requests
import schemathesis
from requests.auth import AuthBase

from tests.relay_wire import Floor, Party, Wire, as_json
from tradeskill_plugins.relay.signed_http import sign_request

STATES = {"quote": "requested", "decline": "quoted", "accept": "quoted", "payment": "accepted", "lock": "paid", "deliver": "running", "cancel": "accepted"}
SELLERS = ("quote", "decline", "lock", "deliver", "{id}")
DOCUMENTS = {"document": "offer", "request": "request", "quote": "quote", "receipt": "receipt"}


class Signed(AuthBase):
    def __init__(self, party: Party) -> None:
        self.party = party

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        body = request.body or b""
        raw = body.encode() if isinstance(body, str) else bytes(body) if isinstance(body, bytes | bytearray) else b""
        target = request.path_url.encode("latin-1", "replace")
        request.headers.update(sign_request(self.party.seed, request.method or "GET", target, raw, timestamp=int(time.time()), nonce=os.urandom(16).hex()))
        return request


class Mending:
    """Puts into a case what chance would never find."""

    def __init__(self, url: str) -> None:
        self.floor = Floor.at(Wire(url))
        self.random = random.Random(1)

    def __call__(self, case: Any) -> Party:
        path = case.operation.path
        action = path.rpartition("/")[2]
        party = self.floor.seller if action in SELLERS or path == "/v1/offers" else self.floor.buyer
        if self.random.random() < 0.3:
            return party  # as it was made up
        if path.startswith("/v1/jobs/"):
            case.path_parameters = {"id": self.floor.in_state(STATES.get(action, "running"))["job_id"]}
        elif path.startswith("/v1/offers/"):
            case.path_parameters = {"id": self.floor.offer()["offer_id"]}
        if isinstance(case.body, dict):
            self._mend(case.body, party)
        return party

    def _mend(self, body: dict[str, Any], party: Party) -> None:
        for name, kind in DOCUMENTS.items():
            if name in body and self.random.random() < 0.7:
                del body[name]
            elif name in body and isinstance(body[name], dict) and isinstance(body[name].get("body"), dict):
                try:
                    body[name] = as_json(party.identity.sign(kind, body[name]["body"]))
                except Exception:  # noqa: BLE001  # what has no canonical form is sent as it was made up
                    return
        if "offer_id" in body:
            body["offer_id"] = self.floor.offer()["offer_id"]
        given = [name for name in ("result", "error", "result_url") if name in body]
        for name in given[1:]:
            del body[name]


MENDING = Mending(os.environ["TRADESKILL_RELAY_URL"])


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    kwargs["auth"] = Signed(MENDING(case))
