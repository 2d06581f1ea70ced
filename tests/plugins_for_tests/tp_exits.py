"""Ends the program when it is imported, as a module that is really a script would."""

raise SystemExit("nothing to see here")
