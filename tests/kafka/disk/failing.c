/* A disk that fails: files below a folder answer EIO to one kind of call from some call on. Preloaded into the worker.
   DISK_FOLDER: the folder. DISK_CALL: write, sync or read. DISK_AFTER: how many of these calls succeed. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_long calls;

static int fails(const char *call, int fd)
{
	const char *failing = getenv("DISK_CALL"), *folder = getenv("DISK_FOLDER"), *after = getenv("DISK_AFTER");
	if (!failing || !folder || !after || strcmp(call, failing))
		return 0;
	int before = errno;
	char link[64], path[4096];
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t length = readlink(link, path, sizeof path);
	size_t prefix = strlen(folder);
	errno = before;
	if (length < (ssize_t)prefix || memcmp(path, folder, prefix))
		return 0;
	if (atomic_fetch_add(&calls, 1) < atol(after))
		return 0;
	errno = EIO;
	return 1;
}

#define FAILING(kind, type, name, parameters, arguments)                                                                        \
	type name parameters                                                                                                    \
	{                                                                                                                       \
		static type(*real) parameters;                                                                                  \
		if (!real)                                                                                                      \
			real = (type(*) parameters)dlsym(RTLD_NEXT, #name);                                                     \
		return fails(kind, fd) ? -1 : real arguments;                                                                   \
	}

FAILING("write", ssize_t, write, (int fd, const void *from, size_t size), (fd, from, size))
FAILING("write", ssize_t, writev, (int fd, const struct iovec *from, int count), (fd, from, count))
FAILING("write", ssize_t, pwrite, (int fd, const void *from, size_t size, off_t at), (fd, from, size, at))
FAILING("write", ssize_t, pwrite64, (int fd, const void *from, size_t size, off64_t at), (fd, from, size, at))
FAILING("sync", int, fsync, (int fd), (fd))
FAILING("sync", int, fdatasync, (int fd), (fd))
FAILING("read", ssize_t, pread, (int fd, void *to, size_t size, off_t at), (fd, to, size, at))
FAILING("read", ssize_t, pread64, (int fd, void *to, size_t size, off64_t at), (fd, to, size, at))
