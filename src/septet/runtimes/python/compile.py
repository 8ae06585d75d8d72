"""Compiles sources once at deploy, so that a cold start does not. The tree never changes afterwards, so the compiled
files need no check against their sources, and depend on nothing but them."""

import compileall
import os
import py_compile
import sys

for folder in sys.argv[1:]:
    if os.path.isdir(folder):
        # A file that does not compile is for whoever imports it.
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        compileall.compile_dir(folder, quiet=2, workers=1, invalidation_mode=mode)
