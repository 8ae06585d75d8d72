"""The function __NAME__."""


def handle(request, context):
    """Answers a greeting for the name in the request's body."""
    name = request.body.decode().strip() or "world"
    return f"Hello, {name}!\n"
