/* narrow: a 32-bit program of x86 that makes the calls which 64-bit programs do not have: those of before there were 32-bit ids,
 * large files and so on, beside the newer ones.  Run in a RUN step as root; says `32 bits work`, or what does not.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "need.h"

/* `struct stat` of the kernel's: the C library knows its own alone. */
struct old_stat {
	uint32_t dev, ino;
	uint16_t mode, nlink, uid, gid;
	uint32_t rdev, size, blksize, blocks, atime, atime_ns, mtime, mtime_ns, ctime, ctime_ns, unused[2];
};

struct stat64_of_kernel {
	uint64_t dev;
	uint32_t pad, low_ino, mode, nlink, uid, gid;
	uint64_t rdev;
	uint32_t pad2;
	uint64_t size;
	uint32_t blksize;
	uint64_t blocks;
	uint32_t atime, atime_ns, mtime, mtime_ns, ctime, ctime_ns;
	uint64_t ino;
} __attribute__((packed));

enum { OLD_STAT = 106, OLD_LSTAT = 107, OLD_FSTAT = 108, STAT64 = 195, LSTAT64 = 196, FSTAT64 = 197, OLDEST_STAT = 18 };
enum { CHOWN16 = 182, LCHOWN16 = 16, FCHOWN16 = 95, CHOWN = 212 };

static void owners(int emulated)
{
	struct old_stat old;
	struct stat64_of_kernel now;
	int fd = creat("/narrow-file", 0640);
	NEED(fd >= 0 && write(fd, "12345", 5) == 5);
	NEED(syscall(CHOWN16, "/narrow-file", 5, 6) == 0);
	NEED(syscall(OLD_STAT, "/narrow-file", &old) == 0 && old.uid == 5 && old.gid == 6 && old.size == 5 && (old.mode & 07777) == 0640);
	NEED(syscall(FCHOWN16, fd, 7, 0xffff) == 0 && syscall(OLD_FSTAT, fd, &old) == 0 && old.uid == 7 && old.gid == 6);
	NEED(syscall(LSTAT64, "/narrow-file", &now) == 0 && now.uid == 7 && now.gid == 6 && now.size == 5 && now.nlink == 1);
	NEED(now.ino == old.ino && now.mtime == old.mtime && now.mtime_ns == old.mtime_ns && now.dev == old.dev);
	if (emulated) {
		NEED(syscall(CHOWN, "/narrow-file", 70000, 80000) == 0);
		NEED(syscall(FSTAT64, fd, &now) == 0 && now.uid == 70000 && now.gid == 80000);
		NEED(syscall(OLD_LSTAT, "/narrow-file", &old) == 0 && old.uid == 65534 && old.gid == 65534);
		NEED(syscall(OLDEST_STAT, "/narrow-file", &old) == -1 && errno == ENOSYS);
	}
	NEED(ftruncate64(fd, 5LL << 30) == 0);
	NEED(syscall(STAT64, "/narrow-file", &now) == 0 && now.size == 5ULL << 30);
	NEED(syscall(OLD_STAT, "/narrow-file", &old) == -1 && errno == EOVERFLOW);
	NEED(setxattr("/narrow-file", "user.x", "value", 5, 0) == 0);
	char value[8] = "";
	NEED(getxattr("/narrow-file", "user.x", value, sizeof value) == 5 && !strcmp(value, "value"));
	NEED(close(fd) == 0 && unlink("/narrow-file") == 0);
}

static void grafts(void)
{
	char path[256] = "";
	struct stat64_of_kernel now;
	int null = open("/dev/null", O_RDWR);
	NEED(null >= 0 && write(null, "x", 1) == 1);
	NEED(syscall(STAT64, "/dev/null", &now) == 0 && S_ISCHR(now.mode) && now.rdev == (1 << 8 | 3));
	NEED(readlink("/proc/self/exe", path, sizeof path - 1) > 0 && strstr(path, "narrow"));
	int self = open("/proc/self/status", O_RDONLY);
	/* Executed by its link, it has the name of the link where `/proc` is the kernel's. */
	NEED(self >= 0 && read(self, path, 12) == 12 && (!memcmp(path, "Name:\tnarrow", 12) || !memcmp(path, "Name:\texe\n", 10)));
	struct statfs64 big;
	struct statfs small;
	NEED(statfs64("/proc", &big) == 0 && big.f_type == 0x9fa0 && big.f_namelen == 255 && big.f_bsize == 4096);
	NEED(statfs("/sys", &small) == 0 && small.f_type == 0x62656572 && small.f_namelen == 255);
	NEED(access("/proc/self/maps", R_OK) == 0 && chdir("/proc/self") == 0 && access("maps", R_OK) == 0 && chdir("/") == 0);
	NEED(mknod("/narrow-fifo", S_IFIFO | 0600, 0) == 0 && unlink("/narrow-fifo") == 0);
}

enum { GETUID16 = 24, GETEUID16 = 49, GETRESUID16 = 165, SETRESUID16 = 164, GETGROUPS16 = 80, SETGROUPS16 = 81, SETGROUPS = 206 };
enum { SETREGID16 = 71, GETGID16 = 47, SETFSUID16 = 138 };

static void ids(int emulated)
{
	uint16_t short_ids[4] = { 8, 9, 0, 0 };
	NEED(syscall(GETUID16) == 0 && getuid() == 0);
	NEED(syscall(SETGROUPS16, 2, short_ids) == 0 && syscall(GETGROUPS16, 4, short_ids + 1) == 2 && short_ids[1] == 8 && short_ids[2] == 9);
	if (emulated) {
		uint32_t long_ids[1] = { 70000 };
		NEED(syscall(SETGROUPS, 1, long_ids) == 0 && syscall(GETGROUPS16, 4, short_ids) == 1 && short_ids[0] == 65534);
	}
	NEED(syscall(SETREGID16, 4, 0xffff) == 0 && syscall(GETGID16) == 4 && getgid() == 4);
	NEED(syscall(SETRESUID16, 0xffff, 1000, 0xffff) == 0 && getuid() == 0 && geteuid() == 1000 && syscall(GETEUID16) == 1000);
	uint16_t three[3];
	NEED(syscall(GETRESUID16, &three[0], &three[1], &three[2]) == 0 && three[0] == 0 && three[1] == 1000 && three[2] == 0);
	NEED(syscall(SETFSUID16, 0) == 1000);
	NEED(setresuid(1000, 1000, 1000) == 0 && setuid(0) == -1 && errno == EPERM);
}

enum { UTIME = 30, UTIMES = 271, FUTIMESAT = 299, UTIMENSAT = 320, UTIMENSAT64 = 412, TRUNCATE = 92, TRUNCATE64 = 193 };
enum { GETCWD = 183, FCHDIR = 133, UMASK = 60, INOTIFY_INIT1 = 332, INOTIFY_ADD_WATCH = 292 };

static void has_times(time_t accessed, long nano, time_t modified)
{
	struct stat st;
	NEED(stat("/narrow-file", &st) == 0 && st.st_atim.tv_sec == accessed && st.st_atim.tv_nsec == nano && st.st_mtime == modified);
}

/* Structures of times are of many kinds; lengths are in one argument or in two. */
static void files(void)
{
	char path[64] = "", event[64];
	int fd = creat("/narrow-file", 0600);
	int32_t two[2] = { 11, 12 }, four[4] = { 13, 14, 15, 16 };
	struct {
		int64_t seconds;
		uint32_t nano, room;
	} wide[2] = { { 5LL << 32, 21, 77 }, { 22, 23, 77 } };
	NEED(syscall(UTIME, "/narrow-file", two) == 0);
	has_times(11, 0, 12);
	NEED(syscall(UTIMES, "/narrow-file", four) == 0);
	has_times(13, 14000, 15);
	four[0] = 17;
	NEED(syscall(FUTIMESAT, AT_FDCWD, "/narrow-file", four) == 0);
	has_times(17, 14000, 15);
	NEED(syscall(UTIMENSAT, AT_FDCWD, "/narrow-file", four, 0) == 0);
	has_times(17, 14, 15);
	four[1] = -1;
	NEED(syscall(UTIMENSAT, AT_FDCWD, "/narrow-file", four, 0) == -1 && errno == EINVAL);
	wide[0].seconds = 24;
	NEED(syscall(UTIMENSAT64, AT_FDCWD, "/narrow-file", wide, 0) == 0);
	has_times(24, 21, 22);
	NEED(syscall(TRUNCATE, "/narrow-file", -1) == -1 && errno == EINVAL && syscall(TRUNCATE, "/narrow-file", 7) == 0);
	NEED(lseek64(fd, 0, SEEK_END) == 7);
	NEED(syscall(TRUNCATE64, "/narrow-file", 9, 1) == 0 && lseek64(fd, 0, SEEK_END) == (1LL << 32) + 9);
	struct statfs64 big;
	struct statfs small;
	NEED(statfs64("/usr", &big) == 0 && statfs("/usr", &small) == 0 && big.f_type == small.f_type && big.f_bsize == small.f_bsize);
	NEED(big.f_blocks == small.f_blocks && big.f_namelen == 255 && small.f_namelen == 255 && small.f_frsize == big.f_frsize);
	int dir = open("/usr", O_RDONLY | O_DIRECTORY), watch = (int)syscall(INOTIFY_INIT1, 0);
	NEED(dir >= 0 && syscall(FCHDIR, dir) == 0 && syscall(GETCWD, path, sizeof path) == 5 && !strcmp(path, "/usr"));
	NEED(syscall(UMASK, 077) == 022 && syscall(UMASK, 022) == 077);
	NEED(watch >= 0 && syscall(INOTIFY_ADD_WATCH, watch, "/narrow-file", 4 /* IN_ATTRIB */) > 0);
	NEED(fchmod(fd, 0640) == 0 && read(watch, event, sizeof event) >= 16);
	NEED(chdir("/") == 0 && close(fd) == 0 && unlink("/narrow-file") == 0);
}

static int in_child(void (*part)(int), int emulated)
{
	int status;
	fflush(stdout);
	pid_t child = fork();
	if (child == 0) {
		part(emulated);
		exit(0);
	}
	return waitpid(child, &status, 0) == child && status == 0;
}

enum { SOCKETCALL = 102, SOCKET = 359, MAKE_SOCKET = 1, MAKE_PAIR = 8 };

static int interrupted;

static void interrupt(int signal)
{
	interrupted += signal == SIGALRM;
}

enum { BIND = 2, CONNECT = 3, LISTEN = 4, ACCEPT = 5, RECEIVE = 10, SEND_MESSAGE = 16, RECEIVE_MESSAGE = 17 };

/* C libraries differ in what they call: here is the call that has its arguments in memory, and those that have them not. */
static void sockets(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = "/narrow-socket" };
	char text[8] = "";
	int pair[2];
	uint32_t unix_stream[] = { AF_UNIX, SOCK_STREAM, 0 }, both[] = { AF_UNIX, SOCK_STREAM, 0, (uint32_t)(uintptr_t)pair };
	uint32_t named[] = { 0, (uint32_t)(uintptr_t)&address, sizeof address }, listens[] = { 0, 1 }, accepts[] = { 0, 0, 0 };
	int server = (int)syscall(SOCKETCALL, MAKE_SOCKET, unix_stream), client = (int)syscall(SOCKET, AF_UNIX, SOCK_STREAM, 0);
	NEED(server >= 0 && client >= 0);
	named[0] = listens[0] = accepts[0] = (uint32_t)server;
	NEED(syscall(SOCKETCALL, BIND, named) == 0 && syscall(SOCKETCALL, LISTEN, listens) == 0);
	named[0] = (uint32_t)client;
	NEED(syscall(SOCKETCALL, CONNECT, named) == 0);
	int accepted = (int)syscall(SOCKETCALL, ACCEPT, accepts);
	NEED(accepted >= 0 && write(client, "hello", 5) == 5 && read(accepted, text, sizeof text) == 5 && !strcmp(text, "hello"));
	NEED(unlink("/narrow-socket") == 0);
	NEED(syscall(SOCKETCALL, 99, both) == -1 && errno == EINVAL && syscall(SOCKETCALL, MAKE_SOCKET, 8) == -1 && errno == EFAULT);
	/* A call that a signal interrupts is made again. */
	NEED(syscall(SOCKETCALL, MAKE_PAIR, both) == 0);
	struct sigaction action = { .sa_handler = interrupt, .sa_flags = SA_RESTART };
	sigaction(SIGALRM, &action, NULL);
	pid_t parent = getpid(), child = fork();
	if (child == 0) {
		/* The parent waits, was interrupted, and waits again. */
		wait_until_asleep(parent);
		kill(parent, SIGALRM);
		usleep(1000);
		wait_until_asleep(parent);
		_exit(write(pair[1], "again", 5) != 5);
	}
	uint32_t receives[] = { (uint32_t)pair[0], (uint32_t)(uintptr_t)text, sizeof text, 0 };
	NEED(syscall(SOCKETCALL, RECEIVE, receives) == 5 && !memcmp(text, "again", 5) && interrupted == 1);
	int status;
	NEED(waitpid(child, &status, 0) == child && status == 0);
	struct iovec part = { .iov_base = text, .iov_len = 3 };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
	uint32_t sends[] = { (uint32_t)pair[1], (uint32_t)(uintptr_t)&message, 0 };
	NEED(syscall(SOCKETCALL, SEND_MESSAGE, sends) == 3);
	sends[0] = (uint32_t)pair[0];
	NEED(syscall(SOCKETCALL, RECEIVE_MESSAGE, sends) == 3);
}

/* Where there is no namespace for the network, a filter stands for it. */
static void network(void)
{
	int pair[2] = { -1, -1 };
	uint32_t internet[3] = { AF_INET, SOCK_DGRAM, 0 }, both[4] = { AF_UNIX, SOCK_STREAM, 0, (uint32_t)(uintptr_t)pair };
	NEED(syscall(SOCKET, AF_INET, SOCK_DGRAM, 0) == -1 && errno == EAFNOSUPPORT);
	NEED(syscall(SOCKETCALL, MAKE_SOCKET, internet) == -1 && errno == EAFNOSUPPORT);
	NEED(syscall(SOCKETCALL, MAKE_PAIR, both) == 0 && write(pair[0], "x", 1) == 1);
	printf("no network\n");
}

int main(int count, char **argument)
{
	if (count == 2 && !strcmp(argument[1], "network")) {
		network();
		return 0;
	}
	if (count > 2 && !strcmp(argument[1], "run")) {
		execv(argument[2], argument + 2);
		printf("%s: %s\n", argument[2], strerror(errno));
		return 1;
	}
	int emulated = count > 1 && !strcmp(argument[1], "emulated");
	owners(emulated);
	grafts();
	files();
	sockets();
	if (!in_child(ids, emulated))
		return 1;
	/* Another program, by its name in a graft: a 32-bit one is found and executed like any. */
	if (count < 3) {
		char *again[] = { "narrow", emulated ? "emulated" : "real", "again", NULL };
		execv("/proc/self/exe", again);
		return 1;
	}
	printf("32 bits work\n");
	return 0;
}
