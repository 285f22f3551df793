"""Run the fast tests as if on other processors: `make test-portable`.

Each setting makes one library leave out instructions that this machine has. Where the library's own word shows that
nothing changes by it, because the machine is so already or because the library does not obey here, the suite is not
run again, and that is said.
"""

import os
import re
import subprocess
import sys

SETTINGS = (
    "ATEN_CPU_CAPABILITY=default",
    "ATEN_CPU_CAPABILITY=avx2",
    "DNNL_MAX_CPU_ISA=AVX2",
    "MKL_ENABLE_INSTRUCTIONS=AVX2",
)
# What each library says of itself: ATen by its own function, oneDNN and MKL in their verbose lines.
QUESTION = """
import torch
print("ATen:", torch.backends.cpu.get_cpu_capability())
a = torch.ones(64, 64)
a @ a
torch.nn.functional.conv2d(torch.ones(1, 3, 16, 16), torch.ones(4, 3, 4, 4))
"""
WORDS = (r"ATen: .*", r"MKL_VERBOSE oneMKL .*", r"onednn_verbose,.*,isa:.*")


def instructions(setting: str | None = None) -> tuple[str, ...]:
    """Return what ATen, MKL and oneDNN say that they use under a setting such as `DNNL_MAX_CPU_ISA=AVX2`."""
    environment = {**os.environ, "MKL_VERBOSE": "1", "DNNL_VERBOSE": "1", **_variables(setting)}
    answer = subprocess.run(
        [sys.executable, "-c", QUESTION], env=environment, capture_output=True, text=True, check=True
    ).stdout
    return tuple(match[0] for word in WORDS if (match := re.search(word, answer)))


def main() -> int:
    """Run the suite under every setting that this machine obeys; 1 where a test fails under one."""
    failed, as_is = False, instructions()
    print("as it is:", *as_is, sep="\n  ")
    for setting in SETTINGS:
        changed = [word for word in instructions(setting) if word not in as_is]
        if not changed:
            print(f"{setting}: changes nothing on this machine, the suite is not run again", flush=True)
            continue
        print(f"{setting}:", *changed, sep="\n  ", flush=True)
        command = [sys.executable, "-m", "pytest", "-n", "2", "-m", "not slow", *sys.argv[1:]]
        failed |= subprocess.run(command, env={**os.environ, **_variables(setting)}, check=False).returncode != 0
    return int(failed)


def _variables(setting: str | None) -> dict[str, str]:
    return {} if setting is None else dict([setting.split("=")])


if __name__ == "__main__":
    sys.exit(main())
