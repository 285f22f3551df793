"""The same sweep on a laptop and on a cluster: only the launcher differs.

python cluster.py [key=value ...] [hydra/launcher=submitit_slurm hydra.launcher.partition=gpu]
"""

import sys

import fedprune as fp

launcher = [word for word in sys.argv[1:] if word.startswith("hydra")]  # without one: child processes here
settings = [word for word in sys.argv[1:] if word not in launcher]

swept = fp.sweep(*settings, method=["fedprune", "global"], seed=[0, 1], launcher=launcher)
print(swept.table["mean"].round(1).to_string())
print(f"{len(swept.runs)} of {len(swept.plan.cells)} runs are finished; the same command goes on with the others")
