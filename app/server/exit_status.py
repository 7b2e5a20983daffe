"""Exit statuses of the commands. Knows nothing of what they do."""

from typing import Final

# `serve`: the address is not available, or the start failed
START_ERROR: Final = 1
# other commands: some items failed
SOME_FAILED: Final = 1
USAGE_ERROR: Final = 2
MODEL_ERROR: Final = 3
# the store; the server of a command
STORE_ERROR: Final = 4
SERVER_ERROR: Final = 4
# EX_SOFTWARE of sysexits.h: an internal fault
HUNG: Final = 70
# EX_OSERR: the device failed, and this process cannot use it any more
DEVICE_LOST: Final = 71
# a shell's status for a signal is this plus the signal's number
SIGNALLED: Final = 128
INTERRUPTED: Final = 130
READER_LEFT: Final = 141
