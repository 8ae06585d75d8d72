"""The part of Septet that runs inside a Python function's instance. Standard library only.

What a handler does not need is not imported: a synchronous one costs neither asyncio nor threads.
"""
