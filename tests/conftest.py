"""What all tests stand on."""

import signal

# Started in the background of a script, the tests would hand "ignore Ctrl-C" on to every program that they start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
