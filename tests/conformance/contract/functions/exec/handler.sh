#!/bin/sh
plain() { printf 'Content-Type: text/plain\n\n'; }
param() { printf %s "$QUERY_STRING" | tr '&' '\n' | sed -n "s/^$1=//p"; }
case "$PATH_INFO" in
/echo) plain; exec cat ;;
/count) plain; printf %s $(($(wc -c))) ;;
/slow) sleep "$(param s)"; plain; printf slow ;;
/mark) printf ran > "$(param file | sed 's/%2F/\//g')"; plain; printf marked ;;
/flood) plain; exec head -c "$(param mib)M" /dev/zero ;;
/ticks)
    plain
    i=0
    while [ "$i" -lt "$(param n)" ]; do printf 'tick %d\n' "$i"; sleep 0.05; i=$((i + 1)); done
    ;;
/raise) echo "ValueError: a planned error" >&2; exit 1 ;;
/exit) kill -9 "$PPID"; sleep 1 ;;
/print) echo "printed by $(param who)" >&2; plain; printf ok ;;
/header) printf 'Status: 418 Teapot\nX-Answer: tea\n\n%s' "$HTTP_X_TEST" ;;
*) plain; printf 'hello %s' "$REQUEST_METHOD" ;;
esac
