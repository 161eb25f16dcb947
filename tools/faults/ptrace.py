"""Makes system calls of one thread fail, from outside: ptrace through ctypes, on x86-64 Linux.

The tracer is the parent of the traced process, which needs no privileges. A call that is to fail is
not made at all; the thread sees the errno. Only one thread of the tracer may use a `Tracer`.
"""

import ctypes
import os
import signal
import time

SEIZE, INTERRUPT, DETACH, SYSCALL, POKE_USER, SYSCALL_INFO = 0x4206, 0x4207, 17, 24, 6, 0x420E
OPTION_SYSGOOD = 1
EVENT_STOP = 128
WAIT_ALL = 0x40000000
RAX, ORIG_RAX = 10 * 8, 15 * 8
ENTRY, EXIT = 1, 2
# A wait for a futex may be interrupted. To wake somebody cannot fail, and is waited for.
FUTEX_WAITS = (0, 9)
NUMBERS = {
    "read": 0, "write": 1, "close": 3, "fstat": 5, "poll": 7, "mmap": 9, "munmap": 11, "brk": 12,
    "ioctl": 16, "pread64": 17, "madvise": 28, "socket": 41, "sendto": 44, "recvfrom": 45,
    "shutdown": 48, "getpeername": 52, "setsockopt": 54, "getsockopt": 55, "fcntl": 72,
    "fstatfs": 138, "futex": 202, "clock_gettime": 228, "openat": 257, "accept4": 288,
    "getrandom": 318, "statx": 332, "newfstatat": 262, "io_uring_enter": 426,
    "io_uring_register": 427,
}

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.ptrace.restype = ctypes.c_long
LIBC.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)


class Information(ctypes.Structure):
    """What the kernel says about a stop, as far as it is used here: `ptrace_syscall_info`."""

    _fields_ = (("op", ctypes.c_uint8), ("pad", ctypes.c_uint8 * 3), ("arch", ctypes.c_uint32),
                ("ip", ctypes.c_uint64), ("sp", ctypes.c_uint64), ("number", ctypes.c_uint64),
                ("arguments", ctypes.c_uint64 * 6), ("more", ctypes.c_uint64))


class Ended(Exception):
    """The traced thread has ended; the argument is the status of its wait."""


def ptrace(request, thread, address=0, data=0):
    """The call itself; raises `OSError`."""
    result = LIBC.ptrace(request, thread, ctypes.c_void_p(address), ctypes.c_void_p(data))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


class Tracer:
    """One thread under trace, from `attach` until `detach`."""

    def __init__(self, thread):
        self.thread = thread
        self.failing = False
        # Calls that were made to fail.
        self.failed = 0

    def attach(self):
        """Begins the trace."""
        ptrace(SEIZE, self.thread, 0, OPTION_SYSGOOD)
        ptrace(INTERRUPT, self.thread)
        self.wait()

    def wait(self, seconds=None):
        """The next stop of the thread as a status; `None` if there is none in time."""
        deadline = None if seconds is None else time.monotonic() + seconds
        turns = 0
        while True:
            try:
                found, status = os.waitpid(self.thread, WAIT_ALL | os.WNOHANG)
            except ChildProcessError:
                raise Ended(None) from None
            if found:
                if os.WIFEXITED(status) or os.WIFSIGNALED(status):
                    raise Ended(status)
                return status
            if deadline is not None and time.monotonic() > deadline:
                return None
            turns += 1
            time.sleep(0 if turns < 300 else 0.0003)

    def resume(self, status):
        """Lets the thread run to its next stop; signals reach it."""
        number = os.WSTOPSIG(status)
        is_event = status >> 16 != 0
        is_ours = number == signal.SIGTRAP | 0x80 or is_event
        ptrace(SYSCALL, self.thread, 0, 0 if is_ours else number)

    def fail(self, call, error, seconds, times):
        """Has the next `times` calls of this name fail, within so many seconds, and counts them in
        `failed`. The thread is stopped afterwards, as before."""
        number = NUMBERS[call]
        deadline = time.monotonic() + seconds
        ptrace(SYSCALL, self.thread)
        while True:
            rest = deadline - time.monotonic()
            status = self.wait(max(0, rest))
            if status is None:
                ptrace(INTERRUPT, self.thread)
                status = self.wait()
            if os.WSTOPSIG(status) == signal.SIGTRAP | 0x80:
                self.failed += self.at_call(number, error, self.failed < times)
            over = self.failed >= times or time.monotonic() >= deadline
            if over and not self.failing:
                return
            self.resume(status)

    def at_call(self, number, error, wanted):
        """The thread stands before or behind a call; whether that one was made to fail."""
        information = Information()
        ptrace(SYSCALL_INFO, self.thread, ctypes.sizeof(information),
               ctypes.addressof(information))
        may_fail = number != NUMBERS["futex"] or information.arguments[1] & 0x7F in FUTEX_WAITS
        if information.op == ENTRY and information.number == number and wanted and may_fail:
            ptrace(POKE_USER, self.thread, ORIG_RAX, (1 << 64) - 1)
            self.failing = True
        elif information.op == EXIT and self.failing:
            ptrace(POKE_USER, self.thread, RAX, (1 << 64) - error)
            self.failing = False
            return 1
        return 0

    def detach(self):
        """Ends the trace of a thread that is stopped."""
        ptrace(DETACH, self.thread)
