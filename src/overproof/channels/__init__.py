"""Ways to tell people: a webhook, mail, a file; each gets one message within a deadline and raises where it fails."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from overproof.errors import NoticeError, OverproofError

T = TypeVar("T")


class Lifeline:
    """What a thread that may hang is stopped by; made by `within`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._over = False
        self._handles: list[socket.socket] = []

    def hold(self, wire: socket.socket) -> None:
        """
        Say which socket has to be shut when time is up.

        Args:
            wire: open; it stays the caller's to close.

        Raises: TimeoutError where time is up already.
        """
        # A handle of our own: TLS takes the first one away, and closing a socket doesn't wake the thread that reads from it.
        handle = socket.socket(fileno=os.dup(wire.fileno()))
        with self._lock:
            if not self._over:
                self._handles.append(handle)
                return
        handle.close()
        raise TimeoutError

    def cut(self) -> None:
        """Shut everything."""
        with self._lock:
            self._over = True
            for handle in self._handles:
                with contextlib.suppress(OSError):
                    handle.shutdown(socket.SHUT_RDWR)
                handle.close()


def within(seconds: float, work: Callable[[Lifeline], T], *, where: str) -> T:
    """
    Do what may hang, name resolution included, and wait for it no longer than a deadline.

    Args:
        seconds: the deadline, for all of it.
        work: what to do; it tells the lifeline which sockets it waits on.
        where: who is told, for messages.

    Returns: what the work returns.
    Raises: NoticeError when time is up, or where the network fails; whatever else the work raises as it is.
    """
    done: Future[T] = Future()
    line = Lifeline()

    def run() -> None:
        try:
            done.set_result(work(line))
        except Exception as error:  # noqa: BLE001 - told to who waits
            done.set_exception(error)

    # a daemon: a name server that never answers must not keep the program from ending
    threading.Thread(target=run, name=f"telling {where}", daemon=True).start()
    try:
        return done.result(timeout=seconds)
    except OverproofError:
        raise
    except TimeoutError:
        raise NoticeError(f"{where}: no answer within {seconds:g} s", next_action="look whether it is up; it is tried again") from None
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or type(error).__name__
        raise NoticeError(f"{where}: {said}", next_action="look whether it is up; it is tried again") from error
    finally:
        line.cut()
