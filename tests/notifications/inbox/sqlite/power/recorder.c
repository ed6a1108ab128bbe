/*
 * Records what a process does to the files of one folder, in one order, for a replay of what a disk could hold.
 *
 * Preloaded (LD_PRELOAD), it answers for the C library's calls, makes the same system calls, and writes a record of
 * each to a log. POWER_FOLDER is the folder (absolute, resolved), POWER_LOG the log (outside of it). With
 * POWER_FAIL="N M", the syncs in that folder from the Nth to before the (N + M)th fail with EIO; with POWER_DIE="N" the
 * process dies in place of the Nth. Processes that run at once, as those of PostgreSQL, count together in the file
 * POWER_SHARED (outside of the folder); it does not exist when the first of them starts.
 *
 * A change and its record are made under one lock, so that the log's order is that of the changes. A sync is two
 * records, since it covers only what was written before it began, and only once it has returned.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum operation { START = 1, OPEN, WRITE, TRUNCATE, SYNC, SYNCED, UNSYNCED, UNLINK, RENAME };

struct __attribute__((packed)) record {
    uint32_t operation;
    uint32_t handle; /* of an opening of a file; 0 where there is none */
    uint64_t place;  /* WRITE: offset; TRUNCATE: size; OPEN: flags; SYNCED, UNSYNCED: which SYNC, by its number */
    uint64_t size;   /* of the bytes that follow: what was written, or a name */
};

enum { MOST_FILES = 65536 };

/* Of one process, or, in the file POWER_SHARED, of several at once. */
struct shared {
    pthread_mutex_t order;
    uint32_t openings;
    uint64_t records, syncs;
};

static struct shared own = {PTHREAD_MUTEX_INITIALIZER, 0, 0, 0};
static struct shared *shared = &own;
static uint32_t handles[MOST_FILES]; /* by file descriptor */
static uint64_t failing_from, failing_to, dying_at;
static char folder[PATH_MAX];
static int journal = -1;

static void lock(void) { pthread_mutex_lock(&shared->order); }

/* Unlocks, and leaves errno as it was. */
static long unlock(long result) {
    int error = errno;
    pthread_mutex_unlock(&shared->order);
    errno = error;
    return result;
}

static void put(const void *bytes, size_t size) {
    while (size > 0) {
        ssize_t written = syscall(SYS_write, journal, bytes, size);
        if (written < 0) abort();
        bytes = (const char *)bytes + written;
        size -= written;
    }
}

static uint64_t note(enum operation operation, uint32_t handle, uint64_t place, const void *bytes, size_t size) {
    struct record record = {operation, handle, place, size};
    int error = errno;
    put(&record, sizeof record);
    put(bytes, size);
    errno = error;
    return shared->records++;
}

/* Maps the state that processes share; returns whether this is the first of them. */
static int share(const char *path) {
    int file = syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    struct stat status;
    if (file < 0 || fstat(file, &status) != 0) abort();
    int is_first = status.st_size == 0;
    if (is_first && syscall(SYS_ftruncate, file, sizeof own) != 0) abort();
    shared = mmap(NULL, sizeof own, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (shared == MAP_FAILED) abort();
    syscall(SYS_close, file);
    if (is_first) {
        pthread_mutexattr_t attributes;
        pthread_mutexattr_init(&attributes);
        pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
        pthread_mutex_init(&shared->order, &attributes);
    }
    return is_first;
}

__attribute__((constructor)) static void start(void) {
    const char *recorded = getenv("POWER_FOLDER"), *log = getenv("POWER_LOG");
    const char *failing = getenv("POWER_FAIL"), *dying = getenv("POWER_DIE");
    if (!recorded || !log) return;
    snprintf(folder, sizeof folder, "%s", recorded);
    if (dying) dying_at = strtoul(dying, NULL, 10);
    unsigned long from = 0, many = 0;
    if (failing && sscanf(failing, "%lu %lu", &from, &many) == 2) failing_from = from, failing_to = from + many;
    journal = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (journal < 0) abort();
    if (!getenv("POWER_SHARED") || share(getenv("POWER_SHARED"))) note(START, 0, 0, NULL, 0);
}

/*
 * Returns a path's name in the folder, "" for the folder itself, NULL for what is elsewhere. Relative paths are those of
 * a process that runs in the folder.
 */
static const char *name_in_folder(const char *path) {
    size_t length = strlen(folder);
    char current[PATH_MAX];
    if (journal >= 0 && path[0] != '/' && getcwd(current, sizeof current) && strcmp(current, folder) == 0) {
        if (strcmp(path, ".") == 0) return "";
        return strncmp(path, "./", 2) == 0 ? path + 2 : path;
    }
    if (journal < 0 || strncmp(path, folder, length) != 0) return NULL;
    if (path[length] == '\0') return "";
    return path[length] == '/' ? path + length + 1 : NULL;
}

static uint32_t handle_of(int file) { return file >= 0 && file < MOST_FILES ? handles[file] : 0; }

static void set_handle(int file, uint32_t handle) {
    if (file >= MOST_FILES) abort();
    if (file >= 0) handles[file] = handle;
}

/* --- names ---------------------------------------------------------------------------------------------- */

static int open_at(int directory, const char *path, int flags, mode_t mode) {
    const char *name = name_in_folder(path);
    lock();
    int file = syscall(SYS_openat, directory, path, flags, mode);
    set_handle(file, 0);
    if (file >= 0 && name) {
        /* A "/" follows the name of a folder in the folder. */
        struct stat status;
        char label[PATH_MAX + 1];
        int is_folder = name[0] && fstat(file, &status) == 0 && S_ISDIR(status.st_mode);
        int size = snprintf(label, sizeof label, "%s%s", name, is_folder ? "/" : "");
        set_handle(file, ++shared->openings);
        note(OPEN, shared->openings, flags, label, size);
    }
    return unlock(file);
}

#define MODE_AFTER(last)                                                                                               \
    mode_t mode = 0;                                                                                                   \
    if (flags & (O_CREAT | O_TMPFILE)) {                                                                               \
        va_list rest;                                                                                                  \
        va_start(rest, last);                                                                                          \
        mode = va_arg(rest, mode_t);                                                                                   \
        va_end(rest);                                                                                                  \
    }

int open(const char *path, int flags, ...) {
    MODE_AFTER(flags)
    return open_at(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    MODE_AFTER(flags)
    return open_at(AT_FDCWD, path, flags, mode);
}

int openat(int directory, const char *path, int flags, ...) {
    MODE_AFTER(flags)
    return open_at(directory, path, flags, mode);
}

int openat64(int directory, const char *path, int flags, ...) {
    MODE_AFTER(flags)
    return open_at(directory, path, flags, mode);
}

int creat(const char *path, mode_t mode) { return open_at(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

int creat64(const char *path, mode_t mode) { return creat(path, mode); }

int unlinkat(int directory, const char *path, int flags) {
    const char *name = name_in_folder(path);
    lock();
    int result = syscall(SYS_unlinkat, directory, path, flags);
    if (result == 0 && name) note(UNLINK, 0, 0, name, strlen(name));
    return unlock(result);
}

int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }

/* The names stand one after the other, a NUL between them; outside of the folder is "". */
int rename(const char *from, const char *to) {
    const char *names[2] = {name_in_folder(from), name_in_folder(to)};
    char both[2 * PATH_MAX];
    lock();
    int result = syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    if (result == 0 && (names[0] || names[1])) {
        int length = snprintf(both, sizeof both, "%s%c%s", names[0] ? names[0] : "", 0, names[1] ? names[1] : "");
        note(RENAME, 0, 0, both, length);
    }
    return unlock(result);
}

/* --- descriptors ---------------------------------------------------------------------------------------- */

int close(int file) {
    lock();
    if (file >= 0 && file < MOST_FILES) handles[file] = 0;
    return unlock(syscall(SYS_close, file));
}

static int copied(int from, int to) {
    if (to >= 0) set_handle(to, handle_of(from));
    return to;
}

int dup(int file) {
    lock();
    return unlock(copied(file, syscall(SYS_dup, file)));
}

int dup3(int from, int to, int flags) {
    lock();
    return unlock(copied(from, syscall(SYS_dup3, from, to, flags)));
}

int dup2(int from, int to) { return from == to ? (fcntl(from, F_GETFD) < 0 ? -1 : to) : dup3(from, to, 0); }

static int control(int file, int command, void *value) {
    if (command != F_DUPFD && command != F_DUPFD_CLOEXEC) return syscall(SYS_fcntl, file, command, value);
    lock();
    return unlock(copied(file, syscall(SYS_fcntl, file, command, value)));
}

#define VALUE_AFTER(last)                                                                                              \
    va_list rest;                                                                                                      \
    va_start(rest, last);                                                                                              \
    void *value = va_arg(rest, void *);                                                                                \
    va_end(rest);

int fcntl(int file, int command, ...) {
    VALUE_AFTER(command)
    return control(file, command, value);
}

int fcntl64(int file, int command, ...) {
    VALUE_AFTER(command)
    return control(file, command, value);
}

/* --- contents ------------------------------------------------------------------------------------------- */

/* Notes the first *written* bytes of what was handed over. */
static void note_written(int file, off_t offset, const struct iovec *parts, int count, ssize_t written) {
    for (int part = 0; part < count && written > 0; part++) {
        ssize_t size = written < (ssize_t)parts[part].iov_len ? written : (ssize_t)parts[part].iov_len;
        note(WRITE, handle_of(file), offset, parts[part].iov_base, size);
        offset += size;
        written -= size;
    }
}

/* Where a write without an offset has ended. */
static off_t position(int file) { return syscall(SYS_lseek, file, 0, SEEK_CUR); }

ssize_t writev(int file, const struct iovec *parts, int count) {
    if (!handle_of(file)) return syscall(SYS_writev, file, parts, count);
    lock();
    ssize_t written = syscall(SYS_writev, file, parts, count);
    if (written > 0) note_written(file, position(file) - written, parts, count, written);
    return unlock(written);
}

ssize_t write(int file, const void *bytes, size_t size) {
    if (!handle_of(file)) return syscall(SYS_write, file, bytes, size);
    struct iovec whole = {(void *)bytes, size};
    return writev(file, &whole, 1);
}

ssize_t pwritev(int file, const struct iovec *parts, int count, off_t offset) {
    /* The kernel takes the offset in two halves; on the 64-bit machines that this is for, the first holds all. */
    if (!handle_of(file)) return syscall(SYS_pwritev, file, parts, count, offset, 0);
    lock();
    ssize_t written = syscall(SYS_pwritev, file, parts, count, offset, 0);
    note_written(file, offset, parts, count, written);
    return unlock(written);
}

ssize_t pwritev64(int file, const struct iovec *parts, int count, off64_t offset) {
    return pwritev(file, parts, count, offset);
}

ssize_t pwrite(int file, const void *bytes, size_t size, off_t offset) {
    struct iovec whole = {(void *)bytes, size};
    return pwritev(file, &whole, 1, offset);
}

ssize_t pwrite64(int file, const void *bytes, size_t size, off64_t offset) { return pwrite(file, bytes, size, offset); }

int ftruncate(int file, off_t size) {
    lock();
    int result = syscall(SYS_ftruncate, file, size);
    if (result == 0 && handle_of(file)) note(TRUNCATE, handle_of(file), size, NULL, 0);
    return unlock(result);
}

int truncate(const char *path, off_t size) {
    const char *name = name_in_folder(path);
    lock();
    int result = syscall(SYS_truncate, path, size);
    if (result == 0 && name) {
        note(OPEN, ++shared->openings, O_WRONLY, name, strlen(name));
        note(TRUNCATE, shared->openings, size, NULL, 0);
    }
    return unlock(result);
}

int truncate64(const char *path, off64_t size) { return truncate(path, size); }

/* Noted as a growth with zeros. */
int fallocate(int file, int mode, off_t offset, off_t size) {
    struct stat status;
    lock();
    int result = syscall(SYS_fallocate, file, mode, offset, size);
    if (result == 0 && handle_of(file) && fstat(file, &status) == 0) note(TRUNCATE, handle_of(file), status.st_size, NULL, 0);
    return unlock(result);
}

int fallocate64(int file, int mode, off64_t offset, off64_t size) { return fallocate(file, mode, offset, size); }

int posix_fallocate(int file, off_t offset, off_t size) { return fallocate(file, 0, offset, size) == 0 ? 0 : errno; }

int posix_fallocate64(int file, off64_t offset, off64_t size) { return posix_fallocate(file, offset, size); }

int ftruncate64(int file, off64_t size) { return ftruncate(file, size); }

static int synced(int file, long call) {
    uint32_t handle = handle_of(file);
    if (!handle) return syscall(call, file);
    lock();
    uint64_t sync = note(SYNC, handle, 0, NULL, 0);
    if (++shared->syncs == dying_at) _exit(0);
    int failing = shared->syncs >= failing_from && shared->syncs < failing_to;
    unlock(0);
    int result = syscall(call, file);
    if (failing) result = -1, errno = EIO;
    lock();
    note(result == 0 ? SYNCED : UNSYNCED, handle, sync, NULL, 0);
    return unlock(result);
}

int fsync(int file) { return synced(file, SYS_fsync); }

int fdatasync(int file) { return synced(file, SYS_fdatasync); }
