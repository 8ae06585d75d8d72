"""Answers a greeting for the name in the request's body."""


def handle(request, context):
    name = request.body.decode().strip() or "world"
    return f"Hello, {name}, from Python\n"
