import asyncio
import os


async def handle(request, context):
    path = request.path
    if path == "/echo":
        return echo(request)
    if path == "/count":
        size = 0
        async for chunk in request:
            size += len(chunk)
        return str(size)
    if path == "/slow":
        await asyncio.sleep(float(request.query["s"]))
        return "slow"
    if path == "/mark":
        with open(request.query["file"], "w") as file:
            file.write("ran")
        return "marked"
    if path == "/flood":
        return flood(int(request.query["mib"]) * 16)
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


async def echo(request):
    async for chunk in request:
        yield chunk


async def flood(n):
    piece = b"x" * 65536
    for _ in range(n):
        yield piece


async def ticks(n):
    for i in range(n):
        yield f"tick {i}\n"
        await asyncio.sleep(0.05)
