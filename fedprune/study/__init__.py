"""Many runs: sweeps, tables and figures as files, measurements of finished runs, statistics."""
