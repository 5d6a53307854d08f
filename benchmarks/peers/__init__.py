"""Our speed beside that of the libraries people would otherwise use, measured turn about."""
