"""A disk that can lose its power: a file system of its own, which drops what was not synced."""

import fcntl
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engines.unprivileged import give_to_unprivileged_user, report_missing

# EXT4_IOC_SHUTDOWN: the file system stops at once. Without a flush of the journal, only what is on the disk remains.
_SHUTDOWN = 0x8004587D
_WITHOUT_FLUSH = struct.pack("I", 2)
_MEGABYTES = 256
_DEADLINE_SECONDS = 300
_POLL_SECONDS = 0.1


class Disk:
    """
    An ext4 file system in a file.

    Args:
        path: The folder to mount the file system on; it is created. The file is beside it.
    """

    def __init__(self, path: Path) -> None:
        self._image = path.with_suffix(".image")
        #: The root of the file system, which belongs to the unprivileged user.
        self.path = path

    def format(self) -> None:
        self.path.mkdir()
        with self._image.open("wb") as image:
            image.truncate(_MEGABYTES * 2**20)
        _run("mkfs.ext4", "-q", self._image)

    def mount(self) -> None:
        _run("mount", "-o", "loop", self._image, self.path)
        give_to_unprivileged_user(self.path)

    def unmount(self) -> None:
        # The kernel may still release what a program that has just ended had open.
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while (done := subprocess.run(["umount", self.path], check=False, capture_output=True, text=True)).returncode:
            assert "busy" in done.stderr, done.stderr
            assert time.monotonic() < deadline, done.stderr
            time.sleep(_POLL_SECONDS)

    def sync(self) -> None:
        """Write all data, as if minutes passed."""
        _run("sync", "--file-system", self.path)

    def cut_power(self) -> None:
        """Drop all data that was not synced; each access fails from now on."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, _WITHOUT_FLUSH)
        finally:
            os.close(descriptor)

    def restore_power(self) -> None:
        """Mount the file system again; no process may use it."""
        self.unmount()
        self.mount()


@contextmanager
def mounted_disk(path: Path) -> Iterator[Disk]:
    """Mount a disk; skip the test if this machine cannot."""
    if os.geteuid() != 0:
        report_missing("root", "run the tests as root to mount file systems")
    for program in ("mkfs.ext4", "mount"):
        if shutil.which(program) is None:
            report_missing(program, "apt-get install e2fsprogs mount")
    if not Path("/dev/loop-control").exists():
        report_missing("/dev/loop-control", "load the kernel module loop")
    disk = Disk(path)
    disk.format()
    disk.mount()
    try:
        yield disk
    finally:
        disk.unmount()


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=_DEADLINE_SECONDS)
