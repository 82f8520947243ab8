/* Loaded into a server with LD_PRELOAD. Of its append-only files it notes how much was synced, so
 * that a power loss can be played by cutting them to that. Told to by files in its folder, it
 * makes every sync slow (shim.delay: milliseconds) or lets nothing be written (shim.full). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
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
