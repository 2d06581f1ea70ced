"""Signs what schemathesis sends (`SCHEMATHESIS_HOOKS=tests.relay_signing_hook`): method, raw target and body, as they go out."""

from __future__ import annotations

import os
import time
from typing import Any

import requests
import schemathesis
from requests.auth import AuthBase

from tradeskill_plugins.relay.signed_http import sign_request

SEEDS = (b"schemathesis buyer".ljust(32), b"schemathesis seller".ljust(32))


class Signed(AuthBase):
    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        body = request.body or b""
        raw = body.encode() if isinstance(body, str) else bytes(body) if isinstance(body, bytes | bytearray) else b""
        seed = SEEDS[int(time.monotonic() * 10) % 2]
        target = request.path_url.encode("latin-1", "replace")
        request.headers.update(sign_request(seed, request.method or "GET", target, raw, timestamp=int(time.time()), nonce=os.urandom(16).hex()))
        return request


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    kwargs["auth"] = Signed()
