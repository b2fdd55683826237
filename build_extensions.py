"""Builds the compiled modules and the wheel; setup.py calls it.

`fastnn._core.kernels` alone is linked with csrc; the other modules reach the arithmetic through its
tables. docs/packaging.md tells why the flags are what they are. Environment:

FASTNN_DEBUG=1    bounds checks, assertions and AddressSanitizer, in a build folder of its own
FASTNN_SYMBOLS=1  the release build with its symbols, for a profiler, in a build folder of its own
FASTNN_OPENMP=0   a serial build; 1: OpenMP or an error; else: OpenMP where the compiler has it

The compiled modules are also left beside their sources, whoever asked for the build: `python -m`
puts the current folder first on the import path, so a checkout must be importable after
`pip install .`.
"""

import filecmp
import glob
import gzip
import json
import os
import re
import shutil
import stat
import sys
import sysconfig
import tarfile
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import Cython
import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist
from setuptools.errors import CompileError, LinkError

DEBUG = os.environ.get("FASTNN_DEBUG", "") not in ("", "0")
SYMBOLS = os.environ.get("FASTNN_SYMBOLS", "") not in ("", "0")
BUILD = f"build/{'debug' if DEBUG else 'symbols' if SYMBOLS else 'release'}"

# Products and sums stay separate operations unless the source asks for a fused one: the random
# numbers are the same on every CPU only then. errno alone is given up, never a value.
COMPILE = ["-std=gnu11", "-ffp-contract=off", "-fno-math-errno", "-fvisibility=hidden"]
COMPILE += ["-Wno-psabi", "-Wno-unused-function"]  # the latter for what Cython writes
COMPILE += ["-DCYTHON_COMPRESS_STRINGS=0"]  # a wheel is compressed as a whole, and better so
LINK = []
X86_64 = sysconfig.get_platform().endswith(("x86_64", "amd64"))
if X86_64:
    # Some systems' compilers are set to newer CPUs; what those can do is chosen at run time.
    COMPILE += ["-march=x86-64", "-mtune=generic"]
if DEBUG:
    COMPILE += ["-g1", "-fsanitize=address", "-fno-omit-frame-pointer", "-UNDEBUG"]
    # The checks of the longest unrolled functions as calls: in line they take a minute to compile.
    COMPILE += ["--param=asan-instrumentation-with-call-threshold=1000"]
    LINK += ["-fsanitize=address"]
else:
    COMPILE += ["-DNDEBUG", "-g0"]
    # C throws no exceptions: without tables to unwind through it
    COMPILE += [] if SYMBOLS else ["-fno-asynchronous-unwind-tables", "-fno-unwind-tables"]
    if sys.platform == "linux":
        COMPILE += ["-fstack-protector-strong", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2"]
        COMPILE += ["-fno-plt"]  # all symbols are bound at once, so calls need no detour
        LINK += ["-Wl,-z,relro,-z,now", "-Wl,-z,noexecstack", "-Wl,--as-needed"]
        LINK += [] if SYMBOLS else ["-Wl,-s", "-Wl,--build-id=none"]
# The kernels; the modules in which a call spends up to a tenth less so; any other, and the kernels
# for CPUs without AVX2, which are as large as those with it.
KERNELS, HOT, COLD = ("-O1",) * 3 if DEBUG else ("-O3", "-O2", "-Os")
HOT_MODULES = ("arrays", "linear", "plan")
# What Cython reads by hand that CPython has functions for: where no call is hot, those are smaller.
SMALL = ["-DCYTHON_FAST_THREAD_STATE=0", "-DCYTHON_USE_UNICODE_INTERNALS=0"]

# Intel's CPUs from Skylake to Cascade Lake decode code anew, each time it runs, if a jump in it
# touches the end of 32 bytes (their erratum SKX102). GNU's assembler can put such jumps elsewhere:
# in the kernels that is worth its 1 % of size. Loops that begin at 16 bytes give nothing there.
X86_KERNELS = ["-Wa,-mbranches-within-32B-boundaries", "-fno-align-loops", "-fno-align-jumps"]

# Before LLVM's headers for Windows declare what a CPU's vectors can do, they want to see it in the
# command line: the target in the file is not enough there.
WINDOWS_TARGETS = {
    "isa_avx2": ["-mavx2", "-mfma"],
    "isa_avx512": ["-mfma", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"],
}

# Flags of the environment or of the interpreter's own build that would tie a wheel to one machine,
# or give up what README.md promises of numbers.
FOREIGN = re.compile(r"-m(arch=|cpu=|tune=|avx|sse|ssse|fma|bmi|popcnt)|-Ofast|-f\w+-math")

OPENMP_PROGRAM = "#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n"
# What turns OpenMP on: for GCC and Clang, for Apple's Clang with a libomp of its own, for clang-cl.
OPENMP = [(["-fopenmp"], ["-fopenmp"]), (["-Xpreprocessor", "-fopenmp"], ["-lomp"])]
OPENMP_MSVC = [(["/clang:-fopenmp"], ["libomp.lib"])]

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": DEBUG,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": False,
    "freethreading_compatible": True,
    # Functions as CPython's own built-in ones: a tenth of the modules' size less than Cython's, and
    # a quicker call; inspect.signature reads the signature from the docstring's first line.
    "binding": False,
    "embedsignature": True,
    "embedsignature.format": "clinic",
    "auto_pickle": False,  # plans and workspaces hold addresses
}


def extension(path: str) -> Extension:
    name = os.path.splitext(os.path.basename(path))[0]
    return Extension(
        f"fastnn._core.{name}",
        [path, *(sorted(glob.glob("csrc/*.c")) if name == "kernels" else [])],
        include_dirs=["csrc", *([numpy.get_include()] if name == "arrays" else [])],
        depends=["build_extensions.py", *sorted(glob.glob("csrc/*.h"))],
        define_macros=[("FNN_DEBUG", "1")] if DEBUG else [],
        extra_compile_args=COMPILE,
        extra_link_args=LINK,
    )


class BuildExtensions(build_ext):
    """Finds OpenMP, compiles all files at once, leaves the modules beside their sources."""

    def build_extensions(self) -> None:
        self.prepare_compiler()
        openmp = self.openmp()
        gnu = X86_64 and self.compiler.compiler_type != "msvc"
        kernel_flags = X86_KERNELS if gnu and self.builds("", X86_KERNELS) else []
        sources = generated(self.extensions)
        for ext in self.extensions:
            ext.sources[0] = sources[ext.name]
            if openmp is not None and ext.name.endswith(".threads"):
                ext.extra_compile_args = ext.extra_compile_args + openmp[0]
                ext.extra_link_args = ext.extra_link_args + openmp[1]
        compile_one = self.compiler.compile
        with ThreadPoolExecutor(os.cpu_count()) as pool:

            def compile_at_once(sources: list[str], **options) -> list[str]:
                jobs = [
                    pool.submit(compile_file, compile_one, path, options, kernel_flags)
                    for path in sources
                ]
                return list(chain.from_iterable(job.result() for job in jobs))

            self.compiler.compile = compile_at_once
            self.parallel = len(self.extensions)
            super().build_extensions()

    def prepare_compiler(self) -> None:
        """clang-cl instead of MSVC; no flags that belong to this machine or interpreter alone."""
        if self.compiler.compiler_type == "msvc":
            if shutil.which("clang-cl") is None:
                sys.exit("fastnn needs clang-cl to build (MSVC lacks its vector types), found none")
            self.compiler.initialize()
            self.compiler.cc = "clang-cl"
            return
        compiler = self.compiler.compiler[0]
        if shutil.which(compiler) is None:
            sys.exit(
                f"fastnn needs GCC or Clang to build (a wheel needs none), found no {compiler}"
            )
        own_rpaths = re.findall(r"-Wl,-rpath\S*", sysconfig.get_config_var("LDSHARED") or "")
        for command in ("compiler", "compiler_so", "linker_so"):
            before = getattr(self.compiler, command)
            after = [flag for flag in before if not FOREIGN.match(flag) and flag not in own_rpaths]
            setattr(self.compiler, command, after)
            dropped = sorted(set(before) - set(after) - set(own_rpaths))
            if dropped and command == "compiler_so":
                self.warn(f"left out {' '.join(dropped)}: see docs/packaging.md")

    def builds(self, program: str, flags: list[str], link_flags: list[str] | None = None) -> bool:
        """Whether this C program can be compiled, and linked where there are flags for that."""
        with tempfile.TemporaryDirectory() as folder:
            source = os.path.join(folder, "program.c")
            with open(source, "w") as file:
                file.write(program)
            try:
                objects = self.compiler.compile([source], "/", extra_postargs=flags)
                if link_flags is not None:
                    name = os.path.join(folder, "program")
                    self.compiler.link_executable(objects, name, extra_postargs=link_flags)
            except (CompileError, LinkError):
                return False
        return True

    def openmp(self) -> tuple[list[str], list[str]] | None:
        """The flags with which a small OpenMP program can be built; None for a serial build."""
        wanted = os.environ.get("FASTNN_OPENMP", "")
        choices = OPENMP_MSVC if self.compiler.compiler_type == "msvc" else OPENMP
        for flags in [] if wanted == "0" else choices:
            if self.builds(OPENMP_PROGRAM, *flags):
                return flags
        if wanted not in ("", "0"):
            sys.exit("fastnn: FASTNN_OPENMP asks for OpenMP, and this compiler has none")
        self.warn("built without OpenMP: fastnn will run on one thread")
        return None

    def run(self) -> None:
        super().run()
        if not self.inplace:
            self.copy_extensions_to_source()


def compile_file(compile_one, path: str, options: dict, kernel_flags: list[str]) -> list[str]:
    folder, name = os.path.split(os.path.splitext(path)[0])
    flags = [*options["extra_postargs"]]
    if folder == "csrc" and (name != "isa_baseline" or not X86_64):
        flags += [KERNELS, *kernel_flags]
    else:
        flags += [HOT if name in HOT_MODULES else COLD]
    if folder != "csrc" and name not in HOT_MODULES:
        flags += SMALL
    if sys.platform == "win32":
        flags += WINDOWS_TARGETS.get(name, [])
        flags = [f"/clang:{flag}" if flag.startswith("-") else flag for flag in flags]
    return compile_one([path], **{**options, "extra_postargs": flags})


def generated(extensions: list[Extension]) -> dict[str, str]:
    """The C file of each extension, which changes only with its content.

    pip builds with a Cython of its own each time, newer by its date than what was generated before,
    and so generates all of it again; but what comes out the same need not be compiled again.
    """
    before = glob.glob(f"{BUILD}/cython/**/*.c", recursive=True)
    written = cythonize(
        extensions,
        build_dir=f"{BUILD}/cython",
        compiler_directives=DIRECTIVES,
        force=any(os.path.getmtime(path) < os.path.getmtime(__file__) for path in before),
    )
    os.makedirs(f"{BUILD}/c", exist_ok=True)
    files = {}
    for ext in written:
        kept = os.path.join(BUILD, "c", os.path.basename(ext.sources[0]))
        if not os.path.exists(kept) or not filecmp.cmp(ext.sources[0], kept, shallow=False):
            shutil.copyfile(ext.sources[0], kept)
        files[ext.name] = kept
    return files


def mode_of(mode: int) -> int:
    """What a file's mode is where no umask has changed it."""
    return 0o755 if mode & stat.S_IXUSR else 0o644


class BuildSource(sdist):
    """Writes the same bytes for the same files: their date is SOURCE_DATE_EPOCH, if that is set."""

    def make_archive(self, base_name: str, *args, base_dir: str, **kwargs) -> str:
        date = int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))

        def plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
            info.mtime, info.mode = date, mode_of(info.mode)
            info.uid = info.gid = 0
            info.uname = info.gname = ""
            return info

        path = f"{base_name}.tar.gz"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with (
            gzip.GzipFile(path, "wb", mtime=date) as packed,
            tarfile.open(fileobj=packed, mode="w") as archive,
        ):
            archive.add(base_dir, filter=plain)
        return path


class BuildWheel(bdist_wheel):
    """Adds a bill of materials (PEP 770): what is in the wheel that was not written for fastnn."""

    def write_wheelfile(self, wheelfile_base: str, *args, **kwargs) -> None:
        super().write_wheelfile(wheelfile_base, *args, **kwargs)
        folder = os.path.join(wheelfile_base, "sboms")
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, "fastnn-cpu.cdx.json"), "w", encoding="utf-8") as file:
            json.dump(bill_of_materials(self.distribution.get_version()), file, indent=1)
        for place, _, names in os.walk(os.path.dirname(wheelfile_base)):
            for path in (os.path.join(place, name) for name in names):
                os.chmod(path, mode_of(os.stat(path).st_mode))


def bill_of_materials(version: str) -> dict:
    """In CycloneDX 1.6. The tool that repairs a wheel writes another for the libraries it adds."""
    parts = [
        {
            "type": "library",
            "bom-ref": "cython",
            "name": "Cython",
            "version": Cython.__version__,
            "purl": f"pkg:pypi/cython@{Cython.__version__}",
            "description": "The run-time support code that Cython writes into each compiled module",
            "licenses": [{"license": {"id": "Apache-2.0"}}],
        },
        {
            "type": "library",
            "bom-ref": "numpy",
            "name": "NumPy",
            "version": numpy.__version__,
            "purl": f"pkg:pypi/numpy@{numpy.__version__}",
            "description": "The inline functions of its C headers, in one module",
            "licenses": [{"license": {"id": "BSD-3-Clause"}}],
        },
        {
            "type": "data",
            "bom-ref": "digits",
            "name": "Optical Recognition of Handwritten Digits",
            "authors": [{"name": "E. Alpaydin"}, {"name": "C. Kaynak"}],
            "description": "fastnn/_data/digits.npz",
            "externalReferences": [
                {"type": "website", "url": "https://doi.org/10.24432/C50P49"},
            ],
            "licenses": [{"license": {"id": "CC-BY-4.0"}}],
        },
    ]
    whole = {
        "type": "library",
        "bom-ref": "fastnn",
        "name": "fastnn-cpu",
        "version": version,
        "purl": f"pkg:pypi/fastnn-cpu@{version}",
        "licenses": [{"license": {"id": "MIT"}}],
    }
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": whole},
        "components": parts,
        "dependencies": [{"ref": "fastnn", "dependsOn": [part["bom-ref"] for part in parts]}],
    }


def main() -> None:
    setup(
        cmdclass={"build_ext": BuildExtensions, "sdist": BuildSource, "bdist_wheel": BuildWheel},
        options={"build": {"build_base": BUILD}},
        ext_modules=[extension(path) for path in sorted(glob.glob("fastnn/_core/*.pyx"))],
    )
