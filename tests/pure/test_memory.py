import subprocess
import sys

from sdbuild.memory import wait

MAPPED = """
import mmap, os, sys, time
file = open(sys.argv[1], 'rb')
view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
sum(view[i] for i in range(0, len(view), 4096))
time.sleep(0.2)
"""


def test_the_peak_of_a_process_is_what_it_held_at_most_and_not_at_the_end():
    code = "x = bytearray(300_000_000); import time; time.sleep(0.2); del x; time.sleep(0.2)"
    process = subprocess.Popen([sys.executable, "-c", code])

    process.returncode, peak = wait(process.pid)

    assert process.returncode == 0
    assert 300_000_000 < peak < 350_000_000


def test_mapped_files_are_not_counted_where_the_system_tells_them_apart(tmp_path):
    (tmp_path / "weights").write_bytes(bytes(200_000_000))
    process = subprocess.Popen([sys.executable, "-c", MAPPED, str(tmp_path / "weights")])

    process.returncode, peak = wait(process.pid)

    assert (peak < 100_000_000) == (sys.platform == "linux")


def test_the_exit_code_of_a_killed_process_is_its_signal():
    process = subprocess.Popen([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"])

    process.returncode, _ = wait(process.pid)

    assert process.returncode == -9
