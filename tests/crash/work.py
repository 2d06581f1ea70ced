"""The program that is sold here: notes that it ran, waits at the gate if there is one, shouts back or fails."""

import json
import os
import sys

wish = json.load(sys.stdin)
note = os.open(wish["runs"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
os.write(note, b"ran\n")
if wish.get("gate"):  # two pipes of the test's: one that says it stands there, one that lets it through
    os.write(os.open(wish["standing"], os.O_WRONLY), b".")
    os.read(os.open(wish["gate"], os.O_RDONLY), 1)
if wish.get("fail"):
    sys.exit("this wish cannot be fulfilled")
sys.stdout.write(wish["text"].upper())
