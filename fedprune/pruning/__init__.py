"""Methods that turn evidence and a budget into an edge model, one file each."""
