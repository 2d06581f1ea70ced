"""What the server costs an agent's host at each start: processor time to its first list of tools, beside a bare server's in the same run."""

from __future__ import annotations

from pathlib import Path

from tests.mcp_start import BARE, measured


def test_the_server_lists_its_tools_in_under_one_point_three_times_what_a_bare_one_takes(tmp_path: Path) -> None:
    (tmp_path / "bare.py").write_text(BARE)
    taken = measured(str(tmp_path / "bare.py"), 3, {"TRADESKILL_HOME": str(tmp_path / "home")})
    assert taken["ours"] / taken["bare"] < 1.3
