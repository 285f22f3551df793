"""Tab completion, asked as a shell asks: through the environment, for a line that is being typed."""

import os
import subprocess
import sys

import pytest

IFS = "\v"


def completions(line):
    """Return how argcomplete would let `line` go on."""
    script = f"import os; os.dup2(os.open({os.devnull!r}, os.O_WRONLY), 9); from fedprune.cli.main import main; main()"
    asked = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_STDOUT_FILENAME": "/dev/stdout", "_ARGCOMPLETE_IFS": IFS}
    asked |= {"COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_COMP_WORDBREAKS": " \t\n"}
    done = subprocess.run([sys.executable, "-c", script], env={**os.environ, **asked}, capture_output=True, text=True)
    return [word.strip() for word in done.stdout.split(IFS)]


@pytest.mark.parametrize(
    ("line", "there", "not_there"),
    [
        ("fedprune ru", ["run", "runs"], ["table"]),
        ("fedprune run meth", ["method="], ["mixture="]),
        ("fedprune run method=nuwa", ["method=nuwa_v1", "method=nuwa_v2"], ["method=tap"]),
        ("fedprune run method.", ["method.stream="], ["method.mask_rate="]),
        ("fedprune run method=nuwa_v2 method.", ["method.mask_rate="], ["method.importance="]),
        ("fedprune run -m scale=", ["scale=cifar", "scale=glyphs"], []),
        ("fedprune run nothing.", [], ["nothing.="]),
        ("fedprune table tap/q", ["tap/question"], ["tap/released"]),
        ("fedprune list meth", ["methods"], ["tables"]),
    ],
)
def test_a_line_goes_on_as_it_may(line, there, not_there):
    found = completions(line)
    assert set(there) <= set(found)
    assert not set(not_there) & set(found)
