"""Checks what README.md and docs/packaging.md promise of a wheel for Linux: audit.py WHEEL...

Size, tag, bill of materials, licences; and of each module in it: full RELRO, no executable stack,
stack protector, no exported symbol but its PyInit function, no library sought outside the wheel,
none needed but the system's and the wheel's own. Needs pyelftools.
"""

import io
import json
import pathlib
import re
import sys
import zipfile

from elftools.elf.elffile import ELFFile

LARGEST = 1_000_000  # bytes
SYSTEM = {"libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "libc.musl-x86_64.so.1"}
SYSTEM |= {"ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1", "libc.musl-aarch64.so.1"}
DF_BIND_NOW, DF_1_NOW, PF_X = 8, 1, 1


def faults_of_module(name: str, elf: ELFFile, ours: bool, vendored: set[str]) -> list[str]:
    """What is wrong with one shared object."""
    dynamic = elf.get_section_by_name(".dynamic")
    tags = list(dynamic.iter_tags())
    flags = {tag.entry.d_tag: tag.entry.d_val for tag in tags}
    segments = {segment["p_type"]: segment["p_flags"] for segment in elf.iter_segments()}
    symbols = list(elf.get_section_by_name(".dynsym").iter_symbols())
    found = []
    if "PT_GNU_RELRO" not in segments:
        found.append("no RELRO")
    if segments.get("PT_GNU_STACK", PF_X) & PF_X:
        found.append("an executable stack")
    for tag in tags:
        where = getattr(tag, "runpath", None) or getattr(tag, "rpath", None)
        if where and not re.fullmatch(r"\$ORIGIN(/\.\.)*/fastnn_cpu\.libs", where):
            found.append(f"looks for libraries in {where}")
    needed = {tag.needed for tag in tags if tag.entry.d_tag == "DT_NEEDED"}
    found += [f"needs {library}" for library in sorted(needed - SYSTEM - vendored)]
    if not ours:
        return found
    bind_now = flags.get("DT_FLAGS", 0) & DF_BIND_NOW or flags.get("DT_FLAGS_1", 0) & DF_1_NOW
    if not bind_now:
        found.append("symbols are bound late: no full RELRO")
    exported = {
        symbol.name
        for symbol in symbols
        if symbol["st_shndx"] != "SHN_UNDEF" and symbol["st_info"]["bind"] == "STB_GLOBAL"
    }
    wanted = f"PyInit_{pathlib.Path(name).name.split('.')[0]}"
    if exported != {wanted}:
        found.append(f"exports {sorted(exported ^ {wanted})}")
    if elf.get_section_by_name(".symtab"):
        found.append("not stripped")
    return found


def faults(wheel: pathlib.Path) -> list[str]:
    """What is wrong with a wheel."""
    found, stack_protected = [], False
    size = wheel.stat().st_size
    if size > LARGEST:
        found.append(f"{size} bytes, more than {LARGEST}")
    if not re.search(r"-(manylinux|musllinux)_\d+_\d+_(x86_64|aarch64)(\.|$)", wheel.stem):
        found.append("its tag names no manylinux or musllinux platform")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        boms = [name for name in names if re.search(r"\.dist-info/sboms/.*\.cdx\.json$", name)]
        listed = {part["name"] for name in boms for part in parts(json.loads(archive.read(name)))}
        vendored = {name.split("/")[1] for name in names if name.startswith("fastnn_cpu.libs/")}
        if not listed >= {"fastnn-cpu", "Cython", "NumPy"} or (vendored and len(boms) < 2):
            found.append(f"its bills of materials ({len(boms)}) name {sorted(listed)}")
        for file in ("LICENSE", "NOTICE", "fastnn/_data/README.md"):
            if not any(name.endswith(f".dist-info/licenses/{file}") for name in names):
                found.append(f"no licenses/{file}")
        found += [f"{name} does not belong" for name in names if name.endswith((".c", ".pyx"))]
        for name in (name for name in names if re.search(r"\.so(\.|$)", name)):
            elf = ELFFile(io.BytesIO(archive.read(name)))
            ours = name.startswith("fastnn/")
            found += [f"{name}: {fault}" for fault in faults_of_module(name, elf, ours, vendored)]
            called = elf.get_section_by_name(".dynsym").iter_symbols()
            stack_protected |= ours and any(symbol.name == "__stack_chk_fail" for symbol in called)
    return found if stack_protected else [*found, "no module has a stack protector"]


def parts(bill: dict) -> list[dict]:
    """The components of a CycloneDX document, the whole first."""
    return [bill["metadata"]["component"], *bill.get("components", [])]


def main() -> None:
    bad = False
    for path in map(pathlib.Path, sys.argv[1:]):
        found = faults(path)
        bad |= bool(found)
        print(f"{path.name}: {path.stat().st_size:,} bytes", *(found or ["fine"]), sep="\n  ")
    sys.exit(bad)


if __name__ == "__main__":
    main()
