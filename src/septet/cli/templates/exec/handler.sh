#!/bin/sh
# The function __NAME__: one process for each call, the body on standard input, the answer on standard output.
read -r name || true
printf 'Hello, %s!\n' "${name:-world}"
