"""Markets: where offers and jobs are exchanged."""
