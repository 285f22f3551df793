"""What does protection cost? Noisy votes at several epsilons beside an unprotected mixture.

python privacy.py [key=value ...]
"""

import sys

import fedprune as fp

runs = {"no protection": fp.run(*sys.argv[1:], oracle=False)}
for epsilon in (1.0, 8.0):
    runs[f"epsilon {epsilon:g}"] = fp.run(*sys.argv[1:], oracle=False, mechanism={"name": "votes", "epsilon": epsilon})
for name, run in runs.items():
    spent = max(run.ledger.spent(device) for device in run.devices["device"])
    print(f"{name}: {100 * run.summary['edge_mean']:.1f} % right; a device's ledger says epsilon {spent:.2f} at most")
