"""Reads the link while a serial handler runs for long, so that calls which wait behind it can be given back."""

import time
from _thread import allocate_lock, start_new_thread

PAUSE = 0.01
QUIET = 50
"""So many pauses without a call, and it sleeps until the next one."""


class Lookout:
    """A thread that costs a call nothing: it looks at `turn` and `busy`, which the serving thread sets, now and then.

    RuntimeError when the process may have no further thread.
    """

    def __init__(self, link):
        self._link = link
        self._gate = allocate_lock()
        self._gate.acquire()
        self._asleep = False
        self.turn = 0
        self.busy = False
        start_new_thread(self._watch, ())

    def begin(self):
        self.turn += 1
        self.busy = True
        if self._asleep:
            self._asleep = False
            try:
                self._gate.release()
            except RuntimeError:  # it is awake already
                pass

    def end(self):
        self.busy = False

    def _watch(self):
        quiet = 0
        try:
            while True:
                turn = self.turn
                time.sleep(PAUSE)
                if self.turn != turn:
                    quiet = 0
                elif self.busy:
                    quiet = 0
                    self._link.glance()
                else:
                    quiet += 1
                if quiet >= QUIET:
                    self._sleep(turn)
                    quiet = 0
        except BaseException:  # the link is closed; the serving thread finds that too
            return

    def _sleep(self, turn):
        self._asleep = True
        if self.turn == turn:
            self._gate.acquire()
        self._asleep = False
