"""One run: configuration, identity, journal, record."""
