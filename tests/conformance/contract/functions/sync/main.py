import os
import time


def handle(request, context):
    path = request.path
    if path == "/echo":
        return (chunk for chunk in request)
    if path == "/count":
        return str(sum(len(chunk) for chunk in request))
    if path == "/slow":
        time.sleep(float(request.query["s"]))
        return "slow"
    if path == "/mark":
        with open(request.query["file"], "w") as file:
            file.write("ran")
        return "marked"
    if path == "/flood":
        piece = b"x" * 65536
        return (piece for _ in range(int(request.query["mib"]) * 16))
    if path == "/ticks":
        return ticks(int(request.query["n"]))
    if path == "/raise":
        raise ValueError("a planned error")
    if path == "/exit":
        os._exit(3)
    if path == "/print":
        print("printed by", request.query["who"])
        return "ok"
    if path == "/header":
        return request.headers["X-Test"], 418, {"X-Answer": "tea"}
    return f"hello {request.method}"


def ticks(n):
    for i in range(n):
        yield f"tick {i}\n"
        time.sleep(0.05)
