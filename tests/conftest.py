"""What several test modules share: one stage of real processes for the whole session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cli_stage import Stage, staged


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A dev ledger and a folder for profiles that trade on it."""
    with staged(tmp_path_factory.mktemp("stage")) as made:
        yield made
