"""Asking the owner through the MCP client: by elicitation within the call, or, on newer protocols, by ending the call with the question."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final, Protocol

import mcp_types as types
from mcp.server import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types.version import is_version_at_least

from tradeskill.errors import PolicyError
from tradeskill.pluginruns import PassingThrough

__all__ = ["Asker", "OwnerWanted", "Question"]

INPUT_REQUIRED: Final = "2026-07-28"  # from this protocol on a question ends the call, which the client repeats with the answer
_FORM: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {"approve": {"type": "boolean", "title": "Approve", "description": "Yes, do it and spend what is asked."}},
    "required": ["approve"],
}


class Question(Protocol):
    """What is asked: the same text whenever the same thing is asked."""

    @property
    def text(self) -> str: ...


class OwnerWanted(PassingThrough):
    """Leaves a call that has a question. What it did so far is in the journal, and the same call continues it."""

    def __init__(self, key: str, question: str, answers: dict[str, bool]) -> None:
        super().__init__(question)
        self._key, self._question, self._answers = key, question, answers

    def as_result(self) -> types.InputRequiredResult:
        request = types.ElicitRequest(params=types.ElicitRequestFormParams(message=self._question, requested_schema=_FORM))
        return types.InputRequiredResult(input_requests={self._key: request}, request_state=json.dumps(self._answers))


class Asker:
    """Of one call. An answer is good for exactly the words that were asked, and only yes is a yes."""

    def __init__(self, context: ServerRequestContext[Any], params: types.CallToolRequestParams) -> None:
        self._context = context
        self._answers = _earlier(params.request_state)
        for key, response in (params.input_responses or {}).items():
            self._answers[key] = isinstance(response, types.ElicitResult) and _is_yes(response)

    @property
    def can_ask(self) -> bool:
        capabilities = self._context.session.client_capabilities
        elicitation = None if capabilities is None else capabilities.elicitation
        return elicitation is not None and (elicitation.form is not None or elicitation.url is None)

    async def ask(self, question: Question) -> bool:
        """True for a yes. PolicyError where the client says that it can ask its user, and then cannot."""
        key = f"owner-{hashlib.sha256(question.text.encode()).hexdigest()[:32]}"
        if is_version_at_least(self._context.protocol_version, INPUT_REQUIRED):
            if key not in self._answers:
                raise OwnerWanted(key, question.text, self._answers)
            return self._answers[key]
        try:
            return _is_yes(await self._context.session.elicit_form(question.text, _FORM, self._context.request_id))
        except MCPError as error:
            raise PolicyError(f"the owner has to approve this and could not be asked: {question.text}", money="not moved") from error


def _is_yes(result: types.ElicitResult) -> bool:
    return result.action == "accept" and (result.content or {}).get("approve") is True


def _earlier(state: str | None) -> dict[str, bool]:
    """What this call's owner said before, as the client hands it back: the client is the owner's, and could as well answer itself."""
    try:
        found = json.loads(state or "{}")
    except ValueError:
        return {}
    return {key: value is True for key, value in found.items()} if isinstance(found, dict) else {}
