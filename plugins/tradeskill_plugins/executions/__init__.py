"""Jobs run as processes of this machine: kept on disk, supervised, adopted after a crash. Shared by the backends that do so."""
