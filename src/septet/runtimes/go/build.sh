#!/bin/sh
# Compiles a Go function: build.sh CODE DEPS RUNTIME makes DEPS/function.
# The source is copied aside, given a main function that serves its Handle (or Handler), and built with the package
# `septet` from the runtime's folder.
set -eu
code=$1 deps=$2 runtime=$3

for folder in /usr/local/go/bin /usr/lib/go/bin; do PATH=$PATH:$folder; done
command -v go >/dev/null || { echo "this host has no Go compiler: apt install golang-go" >&2; exit 1; }

work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
export GOCACHE="${GOCACHE:-$work/cache}" GOPATH="${GOPATH:-$work/path}" GOFLAGS=-mod=mod GOTOOLCHAIN=local CGO_ENABLED=0
mkdir -p "$deps"
cp -R "$code" "$work/source"
chmod -R u+w "$work/source"
cd "$work/source"

[ -f go.mod ] || printf 'module function\n\ngo 1.21\n' >go.mod
go mod edit -require=septet@v0.0.0 -replace="septet=$runtime/septet"
module=$(sed -n 's/^module[ \t]*//p' go.mod | tr -d '" \t\r' | head -n 1)

sources=$(ls ./*.go 2>/dev/null | grep -v '_test\.go$' || true)
[ -n "$sources" ] || { echo "the source has no Go file at its top" >&2; exit 1; }
# shellcheck disable=SC2086 - a list of names without blanks
package=$(sed -n 's/^package[ \t]\{1,\}\([A-Za-z0-9_]*\).*/\1/p' $sources | head -n 1)
# shellcheck disable=SC2086
if grep -q '^func main()' $sources; then
	target=.
else
	if grep -q '^func Handle(' $sources; then name=Handle
	elif grep -Eq '^(func|var) Handler\b|^\tHandler +(=|http)' $sources; then name=Handler
	else echo "the source has neither a function Handle, nor a Handler, nor a main function" >&2; exit 1
	fi
	if [ "$package" = main ]; then
		target=.
		printf 'package main\n\nimport "septet"\n\nfunc main() { septet.Start(%s) }\n' "$name" >septet_main_generated.go
	else
		target=./septet_main
		mkdir septet_main
		printf 'package main\n\nimport (\n\tfunction "%s"\n\t"septet"\n)\n\nfunc main() { septet.Start(function.%s) }\n' \
			"$module" "$name" >septet_main/main.go
	fi
fi
go mod tidy -e >/dev/null 2>&1 || true
go build -trimpath -ldflags '-s -w' -o "$deps/function" "$target"
