"""The program the walk's offer sells: notes that it ran, waits for the gate if there is one, shouts back or fails."""

import json
import os
import sys

wish = json.load(sys.stdin)
note = os.open(wish["runs"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
os.write(note, b"ran\n")
if wish.get("gate"):
    os.read(os.open(wish["gate"], os.O_RDONLY), 1)  # a pipe that the test writes into
if wish.get("fail"):
    sys.exit("this wish cannot be fulfilled")
sys.stdout.write(wish["text"].upper())
