"""What `import fedprune as fp` gives: the same runs, sweeps and tables as the command, for notebooks and scripts."""
