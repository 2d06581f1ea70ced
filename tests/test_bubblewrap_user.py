"""What holds of the bubblewrap backend where root runs it holds for an ordinary user as well: its tests and its contract's once more, as one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.ordinary_user import UID

ROOT = Path(__file__).parent.parent
AGAIN = """
import os, sys
from pathlib import Path
from tests.ordinary_user import become
become(int(sys.argv[1]), Path(sys.argv[2]))
os.environ |= {"HOME": sys.argv[2], "PYTHONDONTWRITEBYTECODE": "1"}
import pytest
contract = "plugins/tradeskill_plugins/bubblewrap/conformance.py"
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "--basetemp", f"{sys.argv[2]}/tests", "tests/test_bubblewrap.py", contract]))
"""


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bwrap is not installed: apt install bubblewrap")
@pytest.mark.skipif(os.geteuid() != 0, reason="whoever is not root has run them as an ordinary user already")
def test_all_of_it_holds_for_an_ordinary_user_too() -> None:
    with tempfile.TemporaryDirectory() as name:
        os.chown(name, UID, UID)
        command = [sys.executable, "-c", AGAIN, str(UID), name]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "TestBubblewrap (backend): of 22 clauses 22 hold" in done.stdout
