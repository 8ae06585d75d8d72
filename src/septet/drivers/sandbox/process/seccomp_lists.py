"""What real programs called, family by family. Written by scripts/seccomp_trace.py; do not edit."""

from __future__ import annotations

GO = """
accept4 access arch_prctl bind brk chdir clone close connect copy_file_range dup2 dup3 epoll_create1 epoll_ctl
epoll_pwait eventfd2 execve exit exit_group fadvise64 fchmodat fcntl flock fstat fsync ftruncate futex getcwd
getdents64 getegid geteuid getgid getpeername getpid getppid getrandom getsockname getsockopt gettid getuid getxattr
ioctl kill lgetxattr linkat listen lseek madvise mkdirat mmap mprotect munmap nanosleep newfstatat openat pidfd_open
pidfd_send_signal pipe2 pread64 prlimit64 pwrite64 read readlink readlinkat recvfrom renameat rseq rt_sigaction
rt_sigprocmask rt_sigreturn sched_getaffinity sched_yield sendto set_robust_list set_tid_address setpgid setsockopt
sigaltstack socket statfs statx symlinkat tgkill uname unlinkat utimensat vfork wait4 waitid write
"""

NODE = """
accept4 access arch_prctl bind brk capget chmod clone clone3 close connect copy_file_range dup2 epoll_create1
epoll_ctl epoll_pwait eventfd2 execve exit exit_group fadvise64 fchmod fcntl fdatasync fstat fsync ftruncate futex
getcwd getdents64 getegid geteuid getgid getpeername getpid getppid getrandom getrusage getsockname getsockopt gettid
getuid getxattr inotify_add_watch inotify_init1 inotify_rm_watch ioctl kill lgetxattr link listen lseek madvise mkdir
mmap mprotect munmap newfstatat openat pipe2 pkey_alloc pread64 prlimit64 read readlink recvmsg rename rmdir rseq
rt_sigaction rt_sigprocmask rt_sigreturn sched_getaffinity sendmsg set_robust_list set_tid_address setsid setsockopt
shutdown socket socketpair statfs statx symlink sysinfo uname unlink utimensat vfork wait4 write writev
"""

PYTHON = """
accept4 access alarm arch_prctl bind brk chdir chmod clock_nanosleep clone clone3 close close_range connect dup2
epoll_create1 epoll_ctl epoll_wait execve exit exit_group faccessat2 fadvise64 fchown fcntl fdatasync flock fsync
ftruncate futex getcwd getdents64 getegid geteuid getgid getpeername getpid getppid getrandom getrusage getsockname
getsockopt gettid getuid getxattr ioctl kill lgetxattr link listen listxattr llistxattr lseek madvise mkdir mmap
mprotect mremap munmap newfstatat open openat pidfd_open pipe2 poll pread64 prlimit64 pselect6 pwrite64 read readlink
recvfrom recvmsg rename rmdir rseq rt_sigaction rt_sigprocmask rt_sigreturn sched_getaffinity sendfile sendmsg sendto
set_robust_list set_tid_address setitimer setsid setsockopt shutdown sigaltstack socket socketpair statfs statx
symlink sysinfo tgkill umask uname unlink unlinkat utimensat vfork wait4 write
"""

RUBY = """
accept4 access arch_prctl bind brk chdir chmod clock_gettime clone clone3 close connect copy_file_range dup2 eventfd2
execve exit_group fadvise64 fcntl fdatasync flock fsync ftruncate futex getcwd getdents64 getegid geteuid getgid
getpid getppid getrandom getresuid getrusage getsockname getsockopt gettid getuid getxattr ioctl kill lgetxattr link
listen lseek mkdir mmap mprotect munmap newfstatat openat pipe2 poll ppoll prctl pread64 prlimit64 pselect6 pwrite64
read readlink recvfrom recvmsg rename rmdir rseq rt_sigaction rt_sigprocmask rt_sigreturn sched_getaffinity
sched_yield sendmsg sendto set_robust_list set_tid_address setpgid setsockopt sigaltstack socket socketpair statfs
statx symlink sysinfo timer_create timer_delete timer_settime uname unlink utimensat vfork wait4 write writev
"""

SHELL = """
access arch_prctl brk clock_nanosleep clone close connect copy_file_range dup2 execve exit_group fadvise64 fchdir
fcntl fstatfs futex getdents64 getegid geteuid getgid getpeername getpgrp getpid getppid getrandom getuid getxattr
ioctl kill lgetxattr lseek mknodat mmap mprotect munmap newfstatat openat pipe2 pread64 prlimit64 read readlink
renameat2 rseq rt_sigaction rt_sigprocmask rt_sigreturn sched_getaffinity set_robust_list set_tid_address sigaltstack
socket splice statfs statx sysinfo umask uname unlinkat vfork wait4 write
"""
