"""Finds the handler and what kind of thing it is."""

import os
import sys

MODULES = ("main", "handler", "app", "function", "index")
NAMES = ("handle", "handler", "main", "app", "application")
COROUTINE = 0x80
ASYNC_GENERATOR = 0x200


class HandlerNotFound(Exception):
    pass


def load(code, deps, wanted):
    """(handler, kind): kind is "sync", "async", "asgi" or "wsgi". Raises whatever importing the source raises."""
    if os.path.isdir(deps):
        sys.path.insert(1, deps)
        if any(name.endswith(".pth") for name in os.listdir(deps)):
            import site

            site.addsitedir(deps)
    sys.path.insert(1, code)
    module, _, name = wanted.partition(":")
    known = any(os.path.exists(os.path.join(code, module + end)) for end in ("", ".py"))
    if module and not name and "." not in module and not known:
        module, name = "", module
    module = _module(code, module)
    found = __import__(module, fromlist=["_"])
    if name:
        target = found
        for part in name.split("."):
            if not hasattr(target, part):
                raise HandlerNotFound(f"{module}.py has no {name!r}")
            target = getattr(target, part)
        return target, kind_of(target)
    for name in NAMES:
        if callable(getattr(found, name, None)):
            return getattr(found, name), kind_of(getattr(found, name))
    raise HandlerNotFound(f"{module}.py has none of {', '.join(NAMES)}")


def _module(code, named):
    if named:
        return named[:-3].replace("/", ".") if named.endswith(".py") else named
    for name in MODULES:
        if os.path.exists(os.path.join(code, name + ".py")):
            return name
    sources = [name[:-3] for name in os.listdir(code) if name.endswith(".py") and not name.startswith("test_")]
    if len(sources) == 1:
        return sources[0]
    raise HandlerNotFound(f"the source has none of {', '.join(name + '.py' for name in MODULES)}: set `handler`")


def kind_of(target):
    code = _code(target)
    if code is None:
        return "sync"
    names = code.co_varnames[: code.co_argcount]
    if names[:1] == ("self",):
        names = names[1:]
    if len(names) == 3 and names[0] == "scope":
        return "asgi"
    if names[-2:] == ("environ", "start_response"):
        return "wsgi"
    return "async" if code.co_flags & (COROUTINE | ASYNC_GENERATOR) else "sync"


def _code(target):
    target = getattr(target, "__wrapped__", target)
    code = getattr(target, "__code__", None)
    if code is None:
        code = getattr(getattr(target, "__func__", None), "__code__", None)
    if code is None and not isinstance(target, type):
        code = getattr(getattr(type(target), "__call__", None), "__code__", None)
    return code


def arity(target):
    """How many positional arguments the handler takes, at most 2."""
    code = _code(target)
    if code is None or code.co_flags & 0x04:
        return 2
    count = code.co_argcount
    if hasattr(target, "__self__") or (not hasattr(target, "__code__") and not isinstance(target, type)):
        count -= 1
    return min(count, 2)
