"""Finding the handler, and what kind it is."""

import os
import sys

FILES = ("main.py", "handler.py", "app.py", "function.py", "index.py")
NAMES = ("handle", "handler", "main", "app", "application")

COROUTINE, ASYNC_GENERATOR = 0x80, 0x200
VARARGS = 0x04


class HandlerNotFound(Exception):
    """The source has nothing that could be called."""

    __module__ = "builtins"  # so that a trace shows the plain name


def load(name, code):
    """The handler: `name` is "module:attribute", "file.py:attribute", either alone, or empty."""
    place, _, attribute = name.partition(":")
    if not place:
        place = _only_file(code)
    module = _import(place, code)
    if attribute:
        found = module
        for part in attribute.split("."):
            if not hasattr(found, part):
                raise HandlerNotFound(f"{place} has no {attribute!r}")
            found = getattr(found, part)
        return found
    for candidate in NAMES:
        found = getattr(module, candidate, None)
        if callable(found):
            return found
    raise HandlerNotFound(f"{place} has none of {', '.join(NAMES)}; name it: handler: {place}:function")


def _only_file(code):
    for file in FILES:
        if os.path.isfile(os.path.join(code, file)):
            return file
    files = sorted(file for file in os.listdir(code) if file.endswith(".py") and not file.startswith("test_"))
    if len(files) != 1:
        raise HandlerNotFound(
            f"the source has neither one of {', '.join(FILES)} nor exactly one Python file; name it: handler: file.py"
        )
    return files[0]


def _import(place, code):
    name = place[:-3].strip("./").replace("/", ".") if place.endswith(".py") else place
    if all(part.isidentifier() for part in name.split(".")):
        __import__(name)
        return sys.modules[name]
    from importlib.util import module_from_spec, spec_from_file_location

    path = os.path.join(code, place)
    if not os.path.isfile(path):
        raise HandlerNotFound(f"there is no file {place}")
    spec = spec_from_file_location(name.replace("-", "_").replace(".", "_"), path)
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def find_dependencies(deps):
    """Puts installed packages on the path, with the .pth files that some of them need."""
    if not os.path.isdir(deps):
        return
    sys.path.insert(0, deps)
    if any(name.endswith(".pth") for name in os.listdir(deps)):
        import site

        site.addsitedir(deps)


def kind_of(handler):
    """ "asgi", "wsgi", "async" or "sync"."""
    code = _code(handler)
    if code is None:
        return "sync"
    names = _parameters(handler, code)
    if len(names) == 3 and (code.co_flags & COROUTINE or names[0] == "scope"):
        return "asgi"
    if len(names) >= 2 and names[1] == "start_response":
        return "wsgi"
    return "async" if code.co_flags & (COROUTINE | ASYNC_GENERATOR) else "sync"


def adapt(handler):
    """The handler as a function of (request, context), whatever it takes of them."""
    code = _code(handler)
    if code is None or code.co_flags & VARARGS:
        return handler
    takes = len(_parameters(handler, code))
    if takes >= 2:
        return handler
    if takes == 1:
        return lambda request, context: handler(request)
    return lambda request, context: handler()


def _unwrap(handler):
    while True:
        inner = getattr(handler, "__wrapped__", None)
        if inner is None:
            return handler
        handler = inner


def _code(handler):
    """The code that runs when it is called; None when it is not written in Python."""
    handler = _unwrap(handler)
    if isinstance(handler, type):
        return None
    if not hasattr(handler, "__code__"):
        handler = _unwrap(getattr(type(handler), "__call__", None))
    return getattr(handler, "__code__", None)


def _parameters(handler, code):
    names = code.co_varnames[: code.co_argcount]
    handler = _unwrap(handler)
    bound = hasattr(handler, "__self__") or not hasattr(handler, "__code__")
    return names[1:] if bound else names
