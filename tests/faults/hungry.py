"""A student that wants more memory than there is, or that the kernel's killer ends, as an environment variable says."""

import os
import resource
import signal
from pathlib import Path

import numpy as np

from overproof.students.linear import LinearStudent

HOW = "OVERPROOF_TEST_HUNGER"
SPARE, WANTED = 256 << 20, 1 << 30


class Hungry(LinearStudent):
    """Linear, once it has its memory."""

    kind = "tests.faults.hungry:Hungry"

    def __init__(self, *, labels, batch=32, **options):
        super().__init__(labels=labels, **options)
        self.batch = batch

    def fit(self, train, *, workdir):
        if os.environ.get(HOW):
            (workdir / "half").write_bytes(b"x" * 1000)
        if os.environ.get(HOW) == "limit":
            now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (now + SPARE, now + SPARE))
            self.weights = np.ones(WANTED, dtype=np.uint8)
        elif os.environ.get(HOW) == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        super().fit(train, workdir=workdir)
