#!/usr/bin/python3
"""test_sanitizers.py - a storm of connections under ThreadSanitizer, and under AddressSanitizer with UBSan and leak checks.

storm.c from the builds that the unit tests use anyway, on a folder and on S3 with a fault in every few requests. A report of a
sanitizer, a row too few or a hang is a failure. The same storm runs plainly too, longer in the long form.
"""
# timeout: 600

import os
import platform
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ljtest import fasts3, faults, harness, pages  # noqa: E402
from ljtest.harness import LONG, check, check_equal, test  # noqa: E402
from ljtest.replica import Replica  # noqa: E402

SECONDS = 120 if LONG else 4
OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=1:strict_string_checks=1:detect_stack_use_after_return=1:abort_on_error=0",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    "TSAN_OPTIONS": "second_deadlock_stack=1:halt_on_error=0",
}
REPORTS = ("ThreadSanitizer", "AddressSanitizer", "LeakSanitizer", "runtime error")


def program(variable):
    folder = os.environ.get(variable, "")
    path = os.path.join(folder, "test", "fault", "storm")
    if not folder or not os.access(path, os.X_OK):
        raise harness.Skip("no test/fault/storm in %s" % (folder or variable + ", which is not set"))
    return path


def without_address_randomisation():
    """ThreadSanitizer of this age cannot place its shadow memory on kernels that randomise much."""
    prefix = ["setarch", platform.machine(), "-R"]
    if shutil.which("setarch") and subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0:
        return prefix
    return []


def storm(t, variable, url, folder, env=None):
    command = [program(variable), str(SECONDS), folder, url, str(t.seed)]
    if variable == "LJ_BUILD_TSAN":
        command = without_address_randomisation() + command
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=SECONDS * 20 + 120, check=False,
                          env=dict(os.environ, **OPTIONS, **(env or {})))
    text = done.stdout.decode("utf-8", "replace")
    errors = done.stderr.decode("utf-8", "replace")
    if done.returncode or any(report in errors for report in REPORTS):
        t.note(errors[:12000])
    check(not any(report in errors for report in REPORTS), lambda: "a report: " + next(
        line for line in errors.splitlines() if any(report in line for report in REPORTS)))
    check_equal(done.returncode, 0, "status: %s" % text[-400:])
    t.note(text.strip())
    check("rows" in text and " 0 " not in text.split(",")[0], text)


def on_a_folder(t, variable):
    folder = t.folder("w")
    storm(t, variable, "file://" + t.path("replica"), folder)
    for number in range(3):
        replica = Replica(t.path("replica", "db_%d" % number))
        replica.check(leftovers_ok=True)
        replica.restore(t.path("out.db"), generation=replica.newest().name)
        pages.check_integrity(t.path("out.db"), "db_%d" % number)


def on_s3(t, variable):
    with fasts3.FastS3() as store, faults.Proxy(store.endpoint) as proxy:
        proxy.add(faults.reset_after(), method="PUT", every=7)
        proxy.add(faults.s3_error("SlowDown"), every=11)
        url = store.url("b", "p").replace(store.endpoint, proxy.endpoint)
        storm(t, variable, url, t.folder("w"), store.env)


@test(timeout=200, long_timeout=3000)
def threads_on_a_folder(t):
    on_a_folder(t, "LJ_BUILD_TSAN")


@test(timeout=200, long_timeout=3000)
def threads_on_s3(t):
    on_s3(t, "LJ_BUILD_TSAN")


@test(timeout=200, long_timeout=3000)
def memory_on_a_folder(t):
    on_a_folder(t, "LJ_BUILD_ASAN")


@test(timeout=200, long_timeout=3000)
def memory_on_s3(t):
    on_s3(t, "LJ_BUILD_ASAN")


@test(long_timeout=3000, long_only=True)
def plainly(t):
    on_a_folder(t, "LJ_BUILD")


if __name__ == "__main__":
    harness.main("sanitizers")
