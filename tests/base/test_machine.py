import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sdbuild.base import machine
from sdbuild.base.machine import machine_bytes, usable_bytes, wait

MAPPED = """
import mmap, os, sys, time
file = open(sys.argv[1], 'rb')
view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
sum(view[i] for i in range(0, len(view), 4096))
time.sleep(2)
"""


@pytest.mark.skipif(sys.platform != machine.sys.platform, reason="a simulated Mac has no footprint")
def test_the_peak_of_a_process_is_what_it_held_at_most_and_not_at_the_end():
    code = "x = bytearray(300_000_000); import time; time.sleep(2); del x; time.sleep(0.2)"
    process = subprocess.Popen([sys.executable, "-c", code])

    process.returncode, peak = wait(process.pid)

    assert process.returncode == 0
    assert 300_000_000 < peak < 350_000_000


@pytest.mark.skipif(sys.platform != machine.sys.platform, reason="a simulated Mac has no footprint")
def test_mapped_files_are_not_counted(tmp_path):
    (tmp_path / "weights").write_bytes(bytes(200_000_000))
    process = subprocess.Popen([sys.executable, "-c", MAPPED, str(tmp_path / "weights")])

    process.returncode, peak = wait(process.pid)

    assert peak < 100_000_000


DARWIN = """
#include <stdint.h>
/* The fields of Darwin's struct rusage_info_v4, in the order of sys/resource.h of XNU. */
struct rusage_info_v4 {
    uint8_t uuid[16];
    uint64_t user_time, system_time, pkg_idle_wkups, interrupt_wkups, pageins, wired_size,
        resident_size, phys_footprint, proc_start_abstime, proc_exit_abstime, child_user_time,
        child_system_time, child_pkg_idle_wkups, child_interrupt_wkups, child_pageins,
        child_elapsed_abstime, diskio_bytesread, diskio_byteswritten, cpu_time_qos_default,
        cpu_time_qos_maintenance, cpu_time_qos_background, cpu_time_qos_utility,
        cpu_time_qos_legacy, cpu_time_qos_user_initiated, cpu_time_qos_user_interactive,
        billed_system_time, serviced_system_time, logical_writes, lifetime_max_phys_footprint,
        instructions, cycles, billed_energy, serviced_energy, interval_max_phys_footprint,
        runnable_time;
};
int proc_pid_rusage(int pid, int flavor, void *buffer) {
    struct rusage_info_v4 *found = buffer;
    if (flavor != 4 || pid != 4711) return -1;
    found->resident_size = 9000000000;
    found->phys_footprint = 1000000000;
    found->lifetime_max_phys_footprint = 6000000000;
    return 0;
}
"""


@pytest.fixture(scope="module")
def darwin(tmp_path_factory):
    """A library with Darwin's `proc_pid_rusage`, for one process."""
    if not shutil.which("cc"):
        pytest.skip("needs a C compiler")
    folder = tmp_path_factory.mktemp("darwin")
    (folder / "libproc.c").write_text(DARWIN)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", folder / "libproc.so", folder / "libproc.c"],
                   check=True)
    return ctypes.CDLL(str(folder / "libproc.so"))


def test_on_a_mac_the_peak_is_the_largest_footprint_and_no_mapped_files(darwin, monkeypatch):
    monkeypatch.setattr(machine.sys, "platform", "darwin")
    monkeypatch.setattr(machine.ctypes, "CDLL", lambda name: darwin)

    assert machine.PeakMemory(4711).peak_bytes(8_000_000_000) == 6_000_000_000
    assert machine.PeakMemory(4712).peak_bytes(8_000_000_000) == 8_000_000_000


def test_the_machines_memory_is_known_where_a_page_has_its_posix_name_only(monkeypatch):
    """Python on a Mac has no SC_PAGE_SIZE."""
    real = os.sysconf

    def sysconf(name):
        if name == "SC_PAGE_SIZE":
            raise ValueError("unrecognized configuration name")
        return real(name)
    found = machine_bytes()
    monkeypatch.setattr(os, "sysconf", sysconf)

    assert machine_bytes() == found > 100_000_000


def test_the_exit_code_of_a_killed_process_is_its_signal():
    process = subprocess.Popen([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"])

    process.returncode, _ = wait(process.pid)

    assert process.returncode == -9


@pytest.mark.skipif(machine.sys.platform != "linux", reason="control groups are Linux's")
def test_the_limit_of_a_control_group_counts_as_the_machines_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "_CGROUPS", tmp_path)
    physical = machine_bytes()
    (tmp_path / "memory").mkdir()
    for file in (tmp_path / "memory.max", tmp_path / "memory" / "memory.limit_in_bytes"):
        file.write_text("1000000000\n")

    assert machine_bytes() == 1_000_000_000
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert machine_bytes() == physical


@pytest.mark.skipif(machine.sys.platform != "linux", reason="control groups are Linux's")
def test_the_limit_of_a_group_inside_another_counts(tmp_path, monkeypatch):
    """Each line of /proc/self/cgroup: number, controllers, path; those above hold too."""
    own = {line.split(":")[1]: line.split(":")[2]
           for line in Path("/proc/self/cgroup").read_text().splitlines()}
    for controllers, mount, name in (("", tmp_path, "memory.max"),
                                     ("memory", tmp_path / "memory", "memory.limit_in_bytes")):
        folder = mount / own.get(controllers, "/").lstrip("/")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("700000000\n")
        (mount / name).write_text("900000000\n")
    monkeypatch.setattr(machine, "_CGROUPS", tmp_path)

    assert machine_bytes() in (700_000_000, 900_000_000)
    assert machine_bytes() == 700_000_000 or set(own.values()) == {"/"}


@pytest.mark.parametrize("total, usable", [
    (25_000_000_000, 21_875_000_000), (8_589_934_592, 7_516_192_768),
    (2_000_000_000, 1_500_000_000), (600_000_000, 300_000_000),
])
def test_an_eighth_and_at_least_half_a_gigabyte_is_left_to_others(monkeypatch, total, usable):
    monkeypatch.setattr(machine, "machine_bytes", lambda: total)

    assert usable_bytes() == usable
