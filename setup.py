"""Says in one line what a build lacks, in a Python that old interpreters can read, too.

The build itself is in build_extensions.py, and everything declarative in pyproject.toml.
"""

import os
import sys


def missing():
    """What this interpreter lacks for a build, as one line; empty where it lacks nothing."""
    if sys.version_info < (3, 11):
        return "needs Python 3.11 or newer, this is %d.%d" % sys.version_info[:2]
    if sys.maxsize < 2**32 or sys.byteorder != "little":
        machine = "%d-bit, %s-endian" % (64 if sys.maxsize > 2**32 else 32, sys.byteorder)
        return "needs a 64-bit little-endian machine, this Python is " + machine
    for name, least in (("setuptools", (77, 0, 3)), ("Cython", (3, 1, 0)), ("numpy", (2, 0, 0))):
        wanted = "needs %s %s or newer to build" % (name, ".".join(map(str, least)))
        try:
            version = __import__(name).__version__
        except ImportError:
            return wanted + ", found none (pip 19 and newer fetch it)"
        if tuple(int(part) for part in version.split(".")[:3] if part.isdigit()) < least:
            return wanted + ", found " + version
    return ""


if missing():
    sys.exit("fastnn " + missing())

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import build_extensions  # noqa: E402

build_extensions.main()
