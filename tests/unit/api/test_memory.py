"""What one upload freed is there for the next, without asking the kernel."""

import platform
import resource
import subprocess
import sys

import pytest

ROUNDS = 20
PIECES, PIECE_BYTES = 8, 256 * 1024
PROGRAM = f"""
from resource import RUSAGE_SELF, getrusage
from clipwarden.api.memory import keep_freed

keep_freed()

def upload():
    return [bytes({PIECE_BYTES}) for _ in range({PIECES})]

upload()
before = getrusage(RUSAGE_SELF).ru_minflt
for _ in range({ROUNDS}):
    upload()
print(getrusage(RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries cannot be told")
def test_the_pieces_of_an_upload_come_from_memory_that_is_there() -> None:
    found = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)

    one_upload = PIECES * PIECE_BYTES // resource.getpagesize()
    assert int(found.stdout) < one_upload
