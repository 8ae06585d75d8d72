#!/bin/sh
# One process for each call: the body on standard input, the answer on standard output.
read -r name || true
printf 'Hello, %s, from a shell script\n' "${name:-world}"
