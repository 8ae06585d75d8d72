"""Run with: python3 -m unittest"""

import unittest
from types import SimpleNamespace

from main import handle


class Greeting(unittest.TestCase):
    def test_names_whom_it_greets(self):
        self.assertEqual(handle(SimpleNamespace(body=b"Ada"), None), "Hello, Ada!\n")

    def test_greets_the_world_by_default(self):
        self.assertEqual(handle(SimpleNamespace(body=b""), None), "Hello, world!\n")
