"""`python -m fedprune` is the `fedprune` command."""

import sys

from fedprune.cli.main import main

sys.exit(main())
