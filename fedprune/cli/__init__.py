"""The fedprune command."""
