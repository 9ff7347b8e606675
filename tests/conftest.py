"""What holds for every test."""

import signal

# A shell that starts the tests in the background has them ignore these, and every daemon would inherit that.
for signum in (signal.SIGHUP, signal.SIGQUIT):
    signal.signal(signum, signal.SIG_DFL)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
