"""The section `mcp` of `make bench`: what `tradeskill mcp` takes to its first list of tools, beside a bare server of one tool, by turns in one run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def mcp(rounds: int, folder: Path) -> dict[str, Any]:
    """Processor time, so that what else the machine does hardly counts."""
    sys.path.append(str(ROOT))
    from tests.mcp_start import BARE, measured

    (folder / "bare.py").write_text(BARE)
    taken = measured(str(folder / "bare.py"), rounds, {"TRADESKILL_HOME": str(folder / "home")})
    ours, bare = (round(taken[name] * 1000, 1) for name in ("ours", "bare"))
    return {"what": "processor time to the first list of tools", "ours_cpu_ms": ours, "bare_cpu_ms": bare, "ours_to_bare": round(ours / bare, 3)}
