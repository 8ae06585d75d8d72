"""Run with: python3 -m unittest"""

import unittest

from server import greeting


class Greeting(unittest.TestCase):
    def test_names_whom_it_greets(self):
        self.assertEqual(greeting(b"Ada"), b"Hello, Ada!\n")

    def test_greets_the_world_by_default(self):
        self.assertEqual(greeting(b""), b"Hello, world!\n")
