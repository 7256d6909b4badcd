"""The system calls that somebody else's Python function may make; everything else is refused.

A seccomp filter of the allowed calls: a second wall inside the namespaces, which stands where one
of them has a hole, and the one that keeps a function from the kernel's less trodden parts. Sockets
can be made of the kind AF_UNIX alone, and joined to nothing; threads can be made, processes and
programs cannot.

Source: asm/unistd_64.h (x86_64) and asm-generic/unistd.h (aarch64) of Linux 6.1, the manual page
seccomp(2), linux/bpf_common.h.
"""

from __future__ import annotations

import platform
import struct
import sys

_MACHINES = ("x86_64", "aarch64")
_ARCHITECTURES = (0xC000003E, 0xC00000B7)

_ALLOWED: dict[str, tuple[int | None, int | None]] = {
    # Files and folders, all of them inside.
    "read": (0, 63),
    "write": (1, 64),
    "readv": (19, 65),
    "writev": (20, 66),
    "pread64": (17, 67),
    "pwrite64": (18, 68),
    "preadv": (295, 69),
    "pwritev": (296, 70),
    "preadv2": (327, 286),
    "pwritev2": (328, 287),
    "open": (2, None),
    "openat": (257, 56),
    "openat2": (437, 437),
    "creat": (85, None),
    "close": (3, 57),
    "close_range": (436, 436),
    "lseek": (8, 62),
    "stat": (4, None),
    "fstat": (5, 80),
    "lstat": (6, None),
    "newfstatat": (262, 79),
    "statx": (332, 291),
    "statfs": (137, 43),
    "fstatfs": (138, 44),
    "access": (21, None),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "getdents": (78, None),
    "getdents64": (217, 61),
    "getcwd": (79, 17),
    "chdir": (80, 49),
    "fchdir": (81, 50),
    "mkdir": (83, None),
    "mkdirat": (258, 34),
    "rmdir": (84, None),
    "rename": (82, None),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "link": (86, None),
    "linkat": (265, 37),
    "symlink": (88, None),
    "symlinkat": (266, 36),
    "unlink": (87, None),
    "unlinkat": (263, 35),
    "readlink": (89, None),
    "readlinkat": (267, 78),
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "umask": (95, 166),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "truncate": (76, 45),
    "ftruncate": (77, 46),
    "fallocate": (285, 47),
    "fadvise64": (221, 223),
    "flock": (73, 32),
    "fsync": (74, 82),
    "fdatasync": (75, 83),
    "sync_file_range": (277, 84),
    "sendfile": (40, 71),
    "copy_file_range": (326, 285),
    "getxattr": (191, 8),
    "lgetxattr": (192, 9),
    "fgetxattr": (193, 10),
    "listxattr": (194, 11),
    "llistxattr": (195, 12),
    "flistxattr": (196, 13),
    # Descriptors and waiting on them.
    "fcntl": (72, 25),
    "dup": (32, 23),
    "dup2": (33, None),
    "dup3": (292, 24),
    "pipe": (22, None),
    "pipe2": (293, 59),
    "poll": (7, None),
    "ppoll": (271, 73),
    "select": (23, None),
    "pselect6": (270, 72),
    "epoll_create": (213, None),
    "epoll_create1": (291, 20),
    "epoll_ctl": (233, 21),
    "epoll_wait": (232, None),
    "epoll_pwait": (281, 22),
    "epoll_pwait2": (441, 441),
    "eventfd": (284, None),
    "eventfd2": (290, 19),
    "timerfd_create": (283, 85),
    "timerfd_settime": (286, 86),
    "timerfd_gettime": (287, 87),
    "signalfd": (282, None),
    "signalfd4": (289, 74),
    # Two ends of one pair talk to each other; a socket can be made, and joined to nothing.
    "sendto": (44, 206),
    "recvfrom": (45, 207),
    "sendmsg": (46, 211),
    "recvmsg": (47, 212),
    "shutdown": (48, 210),
    "getsockname": (51, 204),
    "getpeername": (52, 205),
    "getsockopt": (55, 209),
    "setsockopt": (54, 208),
    # Memory.
    "brk": (12, 214),
    "mmap": (9, 222),
    "munmap": (11, 215),
    "mprotect": (10, 226),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "msync": (26, 227),
    "mincore": (27, 232),
    "membarrier": (324, 283),
    # Threads.
    "futex": (202, 98),
    "futex_waitv": (449, 449),
    "set_robust_list": (273, 99),
    "get_robust_list": (274, 100),
    "set_tid_address": (218, 96),
    "rseq": (334, 293),
    "arch_prctl": (158, None),
    "gettid": (186, 178),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "sched_setaffinity": (203, 122),
    "sched_getparam": (143, 121),
    "sched_getscheduler": (145, 120),
    "sched_get_priority_max": (146, 125),
    "sched_get_priority_min": (147, 126),
    "getcpu": (309, 168),
    # Itself, its signals and its end.
    "getpid": (39, 172),
    "getppid": (110, 173),
    "getpgid": (121, 155),
    "getpgrp": (111, None),
    "getsid": (124, 156),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "getresuid": (118, 148),
    "getresgid": (120, 150),
    "getgroups": (115, 158),
    "getpriority": (140, 141),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "rt_sigpending": (127, 136),
    "rt_sigsuspend": (130, 133),
    "rt_sigtimedwait": (128, 137),
    "sigaltstack": (131, 132),
    "kill": (62, 129),
    "tkill": (200, 130),
    "tgkill": (234, 131),
    "pause": (34, None),
    "wait4": (61, 260),
    "waitid": (247, 95),
    "exit": (60, 93),
    "exit_group": (231, 94),
    "restart_syscall": (219, 128),
    # Time and limits.
    "time": (201, None),
    "gettimeofday": (96, 169),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "nanosleep": (35, 101),
    "clock_nanosleep": (230, 115),
    "alarm": (37, None),
    "getitimer": (36, 102),
    "setitimer": (38, 103),
    "timer_create": (222, 107),
    "timer_settime": (223, 110),
    "timer_gettime": (224, 108),
    "timer_getoverrun": (225, 109),
    "timer_delete": (226, 111),
    "times": (100, 153),
    "getrusage": (98, 165),
    "getrlimit": (97, 163),
    "setrlimit": (160, 164),
    "prlimit64": (302, 261),
    "sysinfo": (99, 179),
    "uname": (63, 160),
    "getrandom": (318, 278),
}
"""The number of each call on x86_64 and aarch64; None where there is no such call."""

_AF_UNIX, _CLONE_THREAD = 1, 0x00010000
_BY_ARGUMENT: dict[str, tuple[tuple[int, int], tuple[int, ...], int]] = {
    "socket": ((41, 198), (_AF_UNIX,), 0),
    "socketpair": ((53, 199), (_AF_UNIX,), 0),
    # Names of threads: PR_SET_NAME, PR_GET_NAME.
    "prctl": ((157, 167), (15, 16), 0),
    # TCGETS and TIOCGWINSZ (is it a terminal?), FIONREAD, FIONBIO, FIONCLEX, FIOCLEX; SIOCGIFCONF,
    # by which the self-test sees whether there is a network.
    "ioctl": ((16, 29), (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451, 0x8912), 1),
}
"""Calls of which some are allowed: their numbers, the argument's values, and which argument."""
_CLONE, _CLONE3 = (56, 220), 435
_NEWEST = 462
"""The last call of Linux 6.10. What came later is answered as unknown rather than refused: the C
library then does without."""

_REFUSED: dict[str, tuple[tuple[int, int], tuple[int, int, int]]] = {
    "semget": ((64, 190), (1, 0, 0)),
    "msgget": ((68, 186), (1, 0, 0)),
    "shmget": ((29, 194), (1, 0, 0)),
    "mq_unlink": ((241, 181), (0, 0, 0)),
    "connect": ((42, 203), (-1, 0, 0)),
    "bind": ((49, 200), (-1, 0, 0)),
    "listen": ((50, 201), (-1, 0, 0)),
    "io_uring_setup": ((425, 425), (0, 0, 0)),
    "bpf": ((321, 280), (-1, 0, 0)),
    "ptrace": ((101, 117), (-1, 0, 0)),
    "process_vm_readv": ((310, 270), (0, 0, 0)),
    "process_vm_writev": ((311, 271), (0, 0, 0)),
    "pidfd_open": ((434, 434), (-1, 0, 0)),
    "keyctl": ((250, 219), (-1, 0, 0)),
    "add_key": ((248, 217), (0, 0, 0)),
    "request_key": ((249, 218), (0, 0, 0)),
    "userfaultfd": ((323, 282), (-1, 0, 0)),
    "perf_event_open": ((298, 241), (0, 0, 0)),
    "memfd_create": ((319, 279), (0, -1, 0)),
    "memfd_secret": ((447, 447), (-1, 0, 0)),
    "fanotify_init": ((300, 262), (-1, 0, 0)),
    "inotify_init1": ((294, 26), (-1, 0, 0)),
    "open_by_handle_at": ((304, 265), (-1, 0, 0)),
    "clone": ((56, 220), (0x800, 0, 0)),
    "execve": ((59, 221), (0, 0, 0)),
    "execveat": ((322, 281), (-1, 0, 0)),
    "unshare": ((272, 97), (0, 0, 0)),
    "setns": ((308, 268), (-1, 0, 0)),
    "mount": ((165, 40), (0, 0, 0)),
    "umount2": ((166, 39), (0, 0, 0)),
    "pivot_root": ((155, 41), (0, 0, 0)),
    "chroot": ((161, 51), (0, 0, 0)),
    "fsopen": ((430, 430), (0, 0, 0)),
    "seccomp": ((317, 277), (-1, 0, 0)),
    "personality": ((135, 92), (-1, 0, 0)),
    "init_module": ((175, 105), (0, 0, 0)),
    "kexec_load": ((246, 104), (0, 0, 0)),
    "syslog": ((103, 116), (-1, 0, 0)),
}
"""Some of what is refused, for the self-test: numbers, and arguments with which the call would do
nothing where the wall is missing: no such key, no such descriptor, no such address."""

_ALLOW, _EPERM, _ENOSYS = 0x7FFF0000, 0x00050001, 0x00050026
# The filter's instructions: load a word, jump if equal, greater, at least or bits set; answer.
_LOAD, _EQUAL, _GREATER, _AT_LEAST, _BITS, _RETURN = 0x20, 0x15, 0x25, 0x35, 0x45, 0x06
_Step = tuple[int, int, int, int]


def machine() -> int | None:
    """The place of this machine in the tables; None where its calls are not known."""
    if platform.machine() not in _MACHINES or sys.maxsize < 2**32:
        return None
    return _MACHINES.index(platform.machine())


def program() -> bytes:
    """The filter of this machine as the kernel reads it; empty where its calls are not known."""
    known = machine()
    steps = [] if known is None else _steps(known)
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


def refused() -> dict[str, tuple[int, tuple[int, int, int]]]:
    """Names of refused calls, with the number here and arguments that do no harm."""
    known = machine()
    if known is None:
        return {}
    return {name: (each[known], given) for name, (each, given) in _REFUSED.items()}


def _steps(known: int) -> list[_Step]:
    """The filter as (code, jump if true, jump if false, value).

    ``clone`` may make threads but no processes; ``clone3``, whose flags no filter can see, is
    answered as unknown, and the C library then takes ``clone``.
    """
    steps: list[_Step] = [
        (_LOAD, 0, 0, 4),  # the machine that the call was made for
        (_EQUAL, 1, 0, _ARCHITECTURES[known]),
        (_RETURN, 0, 0, _EPERM),
        (_LOAD, 0, 0, 0),  # the number of the call
        (_AT_LEAST, 0, 1, 0x40000000),  # x86's second table of calls
        (_RETURN, 0, 0, _EPERM),
        (_EQUAL, 0, 1, _CLONE3),
        (_RETURN, 0, 0, _ENOSYS),
        (_GREATER, 0, 1, _NEWEST),
        (_RETURN, 0, 0, _ENOSYS),
    ]
    for numbers in _ALLOWED.values():
        number = numbers[known]
        if number is not None:
            steps += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    for (on_x86, on_arm), values, argument in _BY_ARGUMENT.values():
        tests = [(_EQUAL, 0, 1, value) for value in values]
        block: list[_Step] = [_word(argument)]
        for test in tests:
            block += [test, (_RETURN, 0, 0, _ALLOW)]
        block.append((_RETURN, 0, 0, _EPERM))
        steps += [(_EQUAL, 0, len(block), (on_x86, on_arm)[known]), *block]
    return [
        *steps,
        (_EQUAL, 1, 0, _CLONE[known]),
        (_RETURN, 0, 0, _EPERM),
        _word(0),
        (_BITS, 0, 1, _CLONE_THREAD),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _EPERM),
    ]


def _word(argument: int) -> _Step:
    """Load the lower half of an argument, which is all that these calls read of theirs."""
    return _LOAD, 0, 0, 16 + 8 * argument
