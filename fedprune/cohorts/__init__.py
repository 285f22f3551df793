"""Which devices share an edge model: groupings, one file each."""
