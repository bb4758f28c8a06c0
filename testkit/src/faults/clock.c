// A wall clock that is set while a process runs, for that process alone: preload this library.
//
// The file that TRIPLINE_TEST_CLOCK names holds eight bytes, by how many nanoseconds the wall clock is ahead. Whoever asks what time
// it is gets that much more; whoever waits until a moment of the wall clock waits as long as without it. The monotonic clock is
// left alone, as it is when an operator or NTP sets a machine's time. Unlike there, a wait that is under way is not prolonged when the
// clock is set back.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#define SECOND INT64_C(1000000000)

static const int64_t *ahead;

static int (*next_clock_gettime)(clockid_t, struct timespec *);
static int (*next_cond_timedwait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
static int (*next_cond_clockwait)(pthread_cond_t *, pthread_mutex_t *, clockid_t, const struct timespec *);
static int (*next_mutex_timedlock)(pthread_mutex_t *, const struct timespec *);
static int (*next_sem_timedwait)(sem_t *, const struct timespec *);
static int (*next_cnd_timedwait)(cnd_t *, mtx_t *, const struct timespec *);
static int (*next_mtx_timedlock)(mtx_t *, const struct timespec *);

__attribute__((constructor)) static void start(void) {
    const char *path = getenv("TRIPLINE_TEST_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *mapped = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *ahead, PROT_READ, MAP_SHARED, file, 0);
    if (file >= 0) close(file);
    // Of this function there are two versions; a plain look-up may find the old one.
    void *cond_timedwait = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
    next_cond_timedwait = cond_timedwait ? cond_timedwait : dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    next_cond_clockwait = dlsym(RTLD_NEXT, "pthread_cond_clockwait");
    next_mutex_timedlock = dlsym(RTLD_NEXT, "pthread_mutex_timedlock");
    next_sem_timedwait = dlsym(RTLD_NEXT, "sem_timedwait");
    next_cnd_timedwait = dlsym(RTLD_NEXT, "cnd_timedwait");
    next_mtx_timedlock = dlsym(RTLD_NEXT, "mtx_timedlock");
    next_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    if (mapped != MAP_FAILED) ahead = mapped;
}

static int64_t ahead_ns(void) {
    return ahead ? __atomic_load_n(ahead, __ATOMIC_RELAXED) : 0;
}

static struct timespec shifted(struct timespec time, int64_t by_ns) {
    int64_t ns = time.tv_nsec + by_ns % SECOND;
    time.tv_sec += by_ns / SECOND + (ns >= SECOND) - (ns < 0);
    time.tv_nsec = ns + (ns < 0 ? SECOND : 0) - (ns >= SECOND ? SECOND : 0);
    return time;
}

// What time it is.

int clock_gettime(clockid_t clock, struct timespec *time) {
    int failed = next_clock_gettime ? next_clock_gettime(clock, time) : (int)syscall(SYS_clock_gettime, clock, time);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) *time = shifted(*time, ahead_ns());
    return failed;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    (void)zone;
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now)) return -1;
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *time) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (time) *time = now.tv_sec;
    return now.tv_sec;
}

int timespec_get(struct timespec *time, int base) {
    return base == TIME_UTC && !clock_gettime(CLOCK_REALTIME, time) ? base : 0;
}

// Until when to wait.

int pthread_cond_timedwait(pthread_cond_t *restrict cond, pthread_mutex_t *restrict mutex, const struct timespec *restrict until) {
    struct timespec real = shifted(*until, -ahead_ns());
    return next_cond_timedwait(cond, mutex, &real);
}

int pthread_cond_clockwait(pthread_cond_t *cond, pthread_mutex_t *mutex, clockid_t clock, const struct timespec *until) {
    struct timespec real = clock == CLOCK_REALTIME ? shifted(*until, -ahead_ns()) : *until;
    return next_cond_clockwait(cond, mutex, clock, &real);
}

int pthread_mutex_timedlock(pthread_mutex_t *restrict mutex, const struct timespec *restrict until) {
    struct timespec real = shifted(*until, -ahead_ns());
    return next_mutex_timedlock(mutex, &real);
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict until) {
    struct timespec real = shifted(*until, -ahead_ns());
    return next_sem_timedwait(semaphore, &real);
}

int cnd_timedwait(cnd_t *restrict cond, mtx_t *restrict mutex, const struct timespec *restrict until) {
    struct timespec real = shifted(*until, -ahead_ns());
    return next_cnd_timedwait(cond, mutex, &real);
}

int mtx_timedlock(mtx_t *restrict mutex, const struct timespec *restrict until) {
    struct timespec real = shifted(*until, -ahead_ns());
    return next_mtx_timedlock(mutex, &real);
}
