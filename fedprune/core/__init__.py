"""What every room needs: errors, the registry of options, random streams, hashes, atomic files."""
