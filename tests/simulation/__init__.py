"""Random trades under random faults, on virtual time: the shipped flows, unpatched, against the invariants I1 to I8. See `__main__`."""
