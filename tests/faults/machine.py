"""What surrounds the service goes bad: its disk, its shared memory, its clock."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from faults import private
from faults.load import Users
from faults.scenario import BACK_WITHIN_S, Bench, Outcome, Scenario, Skipped, judge
from faults.service import Service
from support.images import JPEG
from triptych import DetectionClient
from triptych.errors import TriptychError
from triptych.measure.traces import Tracing

_CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* The wall clock, so many seconds off as a file says, which is read at each call. The kernel knows nothing of it, so
   times to wait for are put back; those of the monotonic clock are small. */
static long offset_s(void) {
    char text[32] = {0};
    int file = open(getenv("FAULTS_CLOCK"), O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    if (read(file, text, sizeof text - 1) < 0) text[0] = 0;
    close(file);
    return atol(text);
}
int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += offset_s();
    return failed;
}
int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    (void)zone;
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    now->tv_sec = time.tv_sec;
    now->tv_usec = time.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *now) {
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    if (now) *now = time.tv_sec;
    return time.tv_sec;
}
static struct timespec kernels(const struct timespec *until) {
    struct timespec time = *until;
    if (time.tv_sec > 1000000000) time.tv_sec -= offset_s();
    return time;
}
int pthread_mutex_timedlock(pthread_mutex_t *mutex, const struct timespec *until) {
    static int (*real)(pthread_mutex_t *, const struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "pthread_mutex_timedlock");
    struct timespec time = kernels(until);
    return real(mutex, &time);
}
int sem_timedwait(sem_t *semaphore, const struct timespec *until) {
    static int (*real)(sem_t *, const struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "sem_timedwait");
    struct timespec time = kernels(until);
    return real(semaphore, &time);
}
int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *until) {
    static int (*real)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
    if (!real) real = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
    if (!real) real = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    struct timespec time = kernels(until);
    return real(condition, mutex, &time);
}
"""
DAY_S = 86_400


def full_disk(bench: Bench) -> Outcome:
    """Fill the disk of the server's temporary files while it traces every request."""
    if not private.is_private():
        raise Skipped("no mounts of our own")
    temporary = bench.directory / "tmp"
    with Tracing(bench.service.address) as tracing, bench.users() as users:
        started = tracing.start()
        time.sleep(1)
        fault_s = time.monotonic()
        filler = private.fill(temporary)
        try:
            time.sleep(2 if bench.short else 10)
        finally:
            filler.unlink()
        time.sleep(2)
        tally = users.tally(fault_s)
        try:
            note = f"{len(tracing.stop(tally.sent))} of {tally.sent} requests left a whole trace"
        except TriptychError as error:
            note = str(error)
    broken = judge(tally, may_fail=False)
    if not started:
        broken.append("nothing was traced")
    return Outcome(tally, broken, note)


def full_shared_memory(bench: Bench) -> Outcome:
    """Fill /dev/shm, through which the stages exchange tensors, and send batches that need more of it."""
    if not private.is_private():
        raise Skipped("no mounts of our own")
    victims, ends = bench.service.settled(), len(bench.service.ends)
    with bench.users() as users, DetectionClient(bench.service.address, retries=0, timeout_s=10) as client:
        time.sleep(1)
        fault_s = time.monotonic()
        filler = private.fill(Path("/dev/shm"))
        try:
            batches = [partial(client.detect_batch, [JPEG + b"\0" * 500_000] * size) for size in (16, 16, 8, 4)]
            refused = [failure for batch in batches if (failure := _failure(batch))]
            time.sleep(1 if bench.short else 10)
        finally:
            filler.unlink()
        freed_s = time.monotonic()
        back = users.settle(freed_s, BACK_WITHIN_S, bench.service.is_whole)
    tally = users.tally(fault_s)
    died = [process.model for process in victims if process not in bench.service.models()]
    note = f"of 4 batches {len(refused)} failed ({', '.join(sorted(set(refused))) or 'none'}); died: {died or 'none'}"
    note += "".join(f"; serve ended with code {code}: {words[:160]}" for code, words in bench.service.ends[ends:])
    return Outcome(tally, judge(tally, may_fail=True, back=back), note)


def _failure(call: Callable[[], object]) -> str:
    """Make a call; return the class of its error, or nothing."""
    try:
        call()
    except TriptychError as error:
        return type(error).__name__
    return ""


def clock(bench: Bench) -> Outcome:
    """Set the clock of a service of its own back and forward by a day, for all its processes."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise Skipped("no C compiler")
    directory = bench.directory / "clock"
    directory.mkdir()
    setting, library = directory / "offset", directory / "clock.so"
    setting.write_text("0")
    command = [compiler, "-shared", "-fPIC", "-O2", "-x", "c", "-", "-o", str(library), "-ldl"]
    subprocess.run(command, input=_CLOCK, text=True, check=True, capture_output=True)
    environment = {"LD_PRELOAD": str(library), "FAULTS_CLOCK": str(setting)}
    with Service(bench.service.repository, directory, environment) as service:
        backs_s = []
        server = service.triton()
        pids = [*([server.pid] if server else []), *(process.pid for process in service.models())]
        faked = sum(_holds(pid, library) for pid in pids)
        with Users(service.address, bench.good) as users:
            time.sleep(2)
            began_s = time.monotonic()
            for offset_s in (-DAY_S, DAY_S, 0):
                fault_s = time.monotonic()
                setting.write_text(str(offset_s))
                time.sleep(3 if bench.short else 15)  # what waits until a time of day ends in the meantime
                back = users.settle(fault_s, BACK_WITHIN_S)
                backs_s.append(users.tally(fault_s).back_s if back else float("inf"))
        tally = users.tally(began_s)
        tally.back_s = max(backs_s)
    broken = judge(tally, may_fail=True)
    note = f"back after {', '.join(f'{back_s:.1f}' for back_s in backs_s)} s; {faked} of {len(pids)} processes had it"
    if service.ends:
        code, words = service.ends[0]
        note += f"; serve ended {len(service.ends)} times, at first with code {code}: {words[:150]}"
    return Outcome(tally, broken, note)


def _holds(pid: int, library: Path) -> bool:
    """Return whether a process has loaded a library."""
    return str(library) in Path(f"/proc/{pid}/maps").read_text()


SCENARIOS = [
    Scenario(
        "full-disk-tracing",
        "the disk of the traces is full",
        "every request is answered; only traces may be missing",
        full_disk,
    ),
    Scenario(
        "full-shared-memory",
        "/dev/shm is full, and batches come that need more of it",
        "every request is answered or fails with a reason, and the service is back when there is room",
        full_shared_memory,
    ),
    Scenario(
        "clock",
        "the wall clock of every process goes back a day, forward two, and back (LD_PRELOAD)",
        "every request is answered or fails with a reason, and the service is back without a hand",
        clock,
        is_short=False,
    ),
]
