"""Makes a wheel that installs anywhere out of one that was built here: repair.py WHEEL FOLDER.

auditwheel, delocate or delvewheel adds the OpenMP library and the platform's tag; zopfli then packs
the wheel again, a twentieth smaller. The bytes depend on the wheel alone. The environment must have
zopflipy, and the tool of its platform (with patchelf on Linux).
"""

import pathlib
import stat
import subprocess
import sys
import tempfile
import zipfile

import zopfli

UNIX = 3  # the system whose file modes an entry of a zip file has
REPAIR = {
    "linux": ["auditwheel", "repair", "-w"],
    "darwin": ["delocate-wheel", "-v", "-w"],
    "win32": ["delvewheel", "repair", "-w"],
}


def pack_again(wheel: pathlib.Path, path: pathlib.Path) -> None:
    """The same files in the same order, without entries for folders."""
    with zipfile.ZipFile(wheel) as source, zopfli.ZipFile(path, "w") as target:
        for info in source.infolist():
            if info.is_dir():
                continue
            same = zipfile.ZipInfo(info.filename, info.date_time)
            # No umask has changed its mode: auditwheel writes files of its own.
            mode = 0o755 if info.external_attr >> 16 & stat.S_IXUSR else 0o644
            same.external_attr, same.create_system = (stat.S_IFREG | mode) << 16, UNIX
            same.compress_type = zipfile.ZIP_DEFLATED
            target.writestr(same, source.read(info))


def main() -> None:
    wheel, folder = map(pathlib.Path, sys.argv[1:])
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run([*REPAIR[sys.platform], scratch, str(wheel)], check=True)
        (repaired,) = pathlib.Path(scratch).glob("*.whl")
        pack_again(repaired, folder / repaired.name)
    print(folder / repaired.name, (folder / repaired.name).stat().st_size, "bytes")


if __name__ == "__main__":
    main()
