"""One run, one sweep: configuration, identity, records, collection."""
