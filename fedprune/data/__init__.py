"""Data sets, partitions, sub-tasks, the pool; one file a data set."""
