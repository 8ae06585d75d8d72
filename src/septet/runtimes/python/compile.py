"""Compiles sources once at deploy, so that a cold start does not."""

import compileall
import os
import sys

for folder in sys.argv[1:]:
    if os.path.isdir(folder):
        compileall.compile_dir(folder, quiet=2, workers=1)
sys.exit(0)
