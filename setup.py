"""Builds the compiled modules: everything declarative is in pyproject.toml.

`fastnn._core.kernels` alone is linked with csrc; the other modules reach the arithmetic through its
tables. FASTNN_DEBUG=1 builds with bounds checks, assertions and AddressSanitizer, in a
folder of its own.

The compiled modules are also left beside their sources, whoever asked for the build: `python -m`
puts the current folder first on the import path, so a checkout must be importable after
`pip install .`.
"""

import filecmp
import glob
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

DEBUG = os.environ.get("FASTNN_DEBUG", "") not in ("", "0")
BUILD = "build/debug" if DEBUG else "build/release"

# Products and sums stay separate operations unless the source asks for a fused one: the random
# numbers are the same on every CPU only then. errno alone is given up, never a value.
COMPILE = ["-std=gnu11", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fvisibility=hidden"]
COMPILE += ["-Wno-psabi"]
LINK = []
MACROS = []
if DEBUG:
    COMPILE += ["-O2", "-g", "-fsanitize=address", "-fno-omit-frame-pointer", "-UNDEBUG"]
    LINK += ["-fsanitize=address"]
    MACROS += [("FNN_DEBUG", "1")]
else:
    COMPILE += ["-DNDEBUG", "-g0"]
    if sys.platform == "linux":
        LINK += ["-Wl,-s", "-Wl,-z,relro,-z,now"]

OPENMP_PROGRAM = "#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n"
# What turns OpenMP on, for GCC and Clang, and for Apple's Clang with a libomp of its own.
OPENMP = [(["-fopenmp"], ["-fopenmp"]), (["-Xpreprocessor", "-fopenmp"], ["-lomp"])]


def extension(path: str) -> Extension:
    name = os.path.splitext(os.path.basename(path))[0]
    return Extension(
        f"fastnn._core.{name}",
        [path, *(sorted(glob.glob("csrc/*.c")) if name == "kernels" else [])],
        include_dirs=["csrc"],
        depends=["setup.py", *sorted(glob.glob("csrc/*.h"))],
        define_macros=MACROS,
        extra_compile_args=COMPILE,
        extra_link_args=LINK,
    )


class BuildExtensions(build_ext):
    """Finds OpenMP, compiles all files at once, leaves the modules beside their sources."""

    def build_extensions(self) -> None:
        if self.compiler.compiler_type == "msvc":
            raise SystemExit("fastnn needs GCC or Clang: MSVC has none of their vector extensions.")
        flags = self.openmp()
        if flags is None:
            self.warn("this compiler has no OpenMP: fastnn is built for one thread")
        for ext in self.extensions:
            if flags is not None and ext.name.endswith(".threads"):
                ext.extra_compile_args = ext.extra_compile_args + flags[0]
                ext.extra_link_args = ext.extra_link_args + flags[1]
        compile_serially = self.compiler.compile
        with ThreadPoolExecutor(os.cpu_count()) as pool:

            def compile_at_once(sources: list[str], **options) -> list[str]:
                jobs = [pool.submit(compile_serially, [path], **options) for path in sources]
                return [path for job in jobs for path in job.result()]

            self.compiler.compile = compile_at_once
            self.parallel = len(self.extensions)
            super().build_extensions()

    def openmp(self) -> tuple[list[str], list[str]] | None:
        """The flags with which a small OpenMP program compiles and links."""
        with tempfile.TemporaryDirectory() as folder:
            source = os.path.join(folder, "openmp.c")
            with open(source, "w") as file:
                file.write(OPENMP_PROGRAM)
            for compile_flags, link_flags in OPENMP:
                command = [*self.compiler.compiler, source, *compile_flags, *link_flags]
                program = os.path.join(folder, "openmp")
                if subprocess.run([*command, "-o", program], capture_output=True).returncode == 0:
                    return compile_flags, link_flags
        return None

    def run(self) -> None:
        super().run()
        if not self.inplace:
            self.copy_extensions_to_source()


def generated() -> list[Extension]:
    """The extensions as C, whose files change only with their content.

    pip builds with a Cython of its own each time, newer by its date than what was generated before,
    and so generates all of it again; but what comes out the same need not be compiled again.
    """
    extensions = cythonize(
        [extension(path) for path in sorted(glob.glob("fastnn/_core/*.pyx"))],
        build_dir=f"{BUILD}/cython",
        compiler_directives={
            "language_level": 3,
            "boundscheck": DEBUG,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": False,
            "embedsignature": True,
            "freethreading_compatible": True,
        },
    )
    os.makedirs(f"{BUILD}/c", exist_ok=True)
    for ext in extensions:
        kept = os.path.join(BUILD, "c", os.path.basename(ext.sources[0]))
        if not os.path.exists(kept) or not filecmp.cmp(ext.sources[0], kept, shallow=False):
            shutil.copyfile(ext.sources[0], kept)
        ext.sources[0] = kept
    return extensions


setup(
    cmdclass={"build_ext": BuildExtensions},
    options={"build": {"build_base": BUILD}},
    ext_modules=generated(),
)
