/* Loaded into a server with LD_PRELOAD. Of its append-only files it notes how much was synced, so
 * that a power loss can be played by cutting them to that. Told to by files in its folder, it
 * makes every sync slow (shim.delay: milliseconds), lets nothing be written (shim.full), or has
 * the clock on the wall go wrong (shim.clock: microseconds, an integer of eight bytes). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static long hits;

static const char *folder(void) { return getenv("CHAOS_SHIM_FOLDER"); }

/* The name of an append-only file, or NULL. */
static const char *aof(int fd, char *path, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, size - 1);
    if (length <= 0) return NULL;
    path[length] = 0;
    if (length < 4 || strcmp(path + length - 4, ".aof") != 0) return NULL;
    const char *name = strrchr(path, '/');
    return name ? name + 1 : NULL;
}

static int put(const char *name, long value) {
    char path[4096], text[32];
    snprintf(path, sizeof path, "%s/%s", folder(), name);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0) return -1;
    /* As long each time, so that one write replaces the whole. */
    int length = snprintf(text, sizeof text, "%020ld\n", value);
    ssize_t done = pwrite(fd, text, length, 0);
    close(fd);
    return done == length ? 0 : -1;
}

static void hit(void) {
    pthread_mutex_lock(&lock);
    put("shim.hits", ++hits);
    pthread_mutex_unlock(&lock);
}

static long told(const char *name) {
    char path[4096], text[32] = "";
    snprintf(path, sizeof path, "%s/%s", folder(), name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    return length > 0 ? atol(text) : 0;
}

static int sync_with(const char *call, int fd) {
    int (*real)(int) = dlsym(RTLD_NEXT, call);
    char path[4096];
    const char *name = folder() ? aof(fd, path, sizeof path) : NULL;
    if (!name) return real(fd);
    struct stat before;
    int known = fstat(fd, &before) == 0;
    long delay = told("shim.delay");
    if (delay > 0) {
        struct timespec time = {delay / 1000, (delay % 1000) * 1000000};
        nanosleep(&time, NULL);
        hit();
    }
    int answer = real(fd);
    if (answer == 0 && known) {
        char note[512];
        snprintf(note, sizeof note, "%s.synced", name);
        pthread_mutex_lock(&lock);
        put(note, (long)before.st_size);
        pthread_mutex_unlock(&lock);
    }
    return answer;
}

int fdatasync(int fd) { return sync_with("fdatasync", fd); }

int fsync(int fd) { return sync_with("fsync", fd); }

ssize_t write(int fd, const void *bytes, size_t count) {
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) real = dlsym(RTLD_NEXT, "write");
    char path[4096];
    /* Sockets are written far more often than files: the cheap question comes first. */
    if (folder() && told("shim.full") && aof(fd, path, sizeof path)) {
        hit();
        errno = ENOSPC;
        return -1;
    }
    return real(fd, bytes, count);
}

/* Asked for several times a command, so it is read from memory. */
static volatile const int64_t *ahead;

__attribute__((constructor)) static void find_clock(void) {
    if (!folder()) return;
    char path[4096];
    snprintf(path, sizeof path, "%s/shim.clock", folder());
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0) return;
    if (ftruncate(fd, sizeof *ahead) == 0) {
        void *place = mmap(NULL, sizeof *ahead, PROT_READ, MAP_SHARED, fd, 0);
        if (place != MAP_FAILED) ahead = place;
    }
    close(fd);
}

/* The time on the wall, as wrong as it is told to be. */
static int wall(clockid_t clock, struct timespec *time) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int answer = real(clock, time);
    if (answer != 0 || !ahead || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE)) {
        return answer;
    }
    int64_t by = *ahead, nanos = time->tv_nsec + by % 1000000 * 1000;
    time->tv_sec += by / 1000000 + (nanos >= 1000000000) - (nanos < 0);
    time->tv_nsec = (nanos + 1000000000) % 1000000000;
    return answer;
}

int clock_gettime(clockid_t clock, struct timespec *time) { return wall(clock, time); }

int gettimeofday(struct timeval *restrict value, void *restrict zone) {
    (void)zone;
    struct timespec time;
    int answer = wall(CLOCK_REALTIME, &time);
    value->tv_sec = time.tv_sec;
    value->tv_usec = time.tv_nsec / 1000;
    return answer;
}

time_t time(time_t *place) {
    struct timespec now;
    wall(CLOCK_REALTIME, &now);
    if (place) *place = now.tv_sec;
    return now.tv_sec;
}
