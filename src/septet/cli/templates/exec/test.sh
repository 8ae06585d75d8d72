#!/bin/sh
# Run with: ./test.sh
set -eu
cd "$(dirname "$0")"
[ "$(echo Ada | ./handler.sh)" = "Hello, Ada!" ] || { echo "it does not name whom it greets" >&2; exit 1; }
[ "$(printf '' | ./handler.sh)" = "Hello, world!" ] || { echo "it does not greet the world by default" >&2; exit 1; }
echo ok
