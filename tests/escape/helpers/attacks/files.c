/* Ways out by files: paths, directories of grafts, descriptors, devices, links of /proc. */
#include <dirent.h>
#include <linux/openat2.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/xattr.h>

#include "attack.h"

void paths(void)
{
	char path[4096];
	if (is_secret(open(secret, O_RDONLY)))
		escaped("an absolute path");
	snprintf(path, sizeof path, "../../../../../../../../../..%s", secret);
	if (is_secret(open(path, O_RDONLY)))
		escaped("dots from the root");
	int root = open("/", O_RDONLY | O_DIRECTORY);
	if (is_secret(openat(root, path, O_RDONLY)))
		escaped("dots from a descriptor of the root");
	if (fchdir(root) == 0 && is_secret(open(path, O_RDONLY)))
		escaped("dots after fchdir");
	symlink(secret, "/tmp/to-secret");
	symlink(path, "/tmp/dots-to-secret");
	if (is_secret(open("/tmp/to-secret", O_RDONLY)) || is_secret(open("/tmp/dots-to-secret", O_RDONLY)))
		escaped("a symbolic link");
	struct open_how how = { .flags = O_RDONLY };
	const unsigned long long resolve[] = { 0, RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_BENEATH, RESOLVE_IN_ROOT, RESOLVE_CACHED };
	for (size_t i = 0; i < sizeof resolve / sizeof *resolve; i++) {
		how.resolve = resolve[i];
		if (is_secret((int)syscall(SYS_openat2, root, path, &how, sizeof how)) ||
		    is_secret((int)syscall(SYS_openat2, AT_FDCWD, secret, &how, sizeof how)) ||
		    is_secret((int)syscall(SYS_openat2, root, "tmp/to-secret", &how, sizeof how)))
			escaped("openat2");
	}
	struct stat st;
	if (stat(secret, &st) == 0 || lstat(secret, &st) == 0 || access(secret, F_OK) == 0)
		escaped("looking at a file");
	if (chmod(mode_file, 0777) == 0 || truncate(secret, 0) == 0 || unlink(secret) == 0 ||
	    rename(secret, "/tmp/stolen") == 0 || link(secret, "/tmp/linked") == 0)
		escaped("changing a file");
	if (chdir(outside) == 0)
		escaped("chdir");
	struct file_handle *handle = calloc(1, sizeof *handle + 128);
	int mount_id;
	handle->handle_bytes = 128;
	if (name_to_handle_at(AT_FDCWD, secret, handle, &mount_id, 0) == 0)
		escaped("name_to_handle_at");
	/* Inode 2 is the root of ext4, 128 of xfs, 256 of btrfs: no path is needed by who may do this. */
	const unsigned inodes[] = { 2, 128, 256 };
	for (size_t i = 0; i < 3; i++) {
		handle->handle_bytes = 8;
		handle->handle_type = 1;
		memcpy(handle->f_handle, &inodes[i], 4);
		memset(handle->f_handle + 4, 0, 4);
		if (open_by_handle_at(root, handle, O_RDONLY) >= 0)
			escaped("open_by_handle_at");
	}
	int watch = (int)syscall(SYS_inotify_init1, 0);
	if (watch >= 0 && syscall(SYS_inotify_add_watch, watch, outside, 0xfff) >= 0)
		escaped("inotify");
	char value[8] = "";
	if (setxattr(secret, "user.x", "x", 1, 0) == 0 || getxattr(secret, "user.x", value, 8) >= 0)
		escaped("attributes");
	close(root);
}

/* Goes up from a directory until it goes no further: that has to be the root. */
static void walk_up(int fd, const char *from)
{
	char path[4096];
	struct stat root, here, above;
	if (fd < 0)
		return;
	stat("/", &root);
	snprintf(path, sizeof path, "../../../../../../../../../..%s", secret);
	if (is_secret(openat(fd, path, O_RDONLY)) || fstatat(fd, path, &here, 0) == 0 || faccessat(fd, path, F_OK, 0) == 0)
		escaped("dots from %s", from);
	if (fchdir(fd) == 0) {
		if (is_secret(open(path, O_RDONLY)) || stat(path, &here) == 0 || chmod(path, 0777) == 0)
			escaped("dots in %s", from);
		chdir("/");
	}
	for (int i = 0; i < 64; i++) {
		int up = openat(fd, "..", O_RDONLY | O_DIRECTORY);
		if (up < 0)
			break;
		fstat(fd, &here);
		fstat(up, &above);
		close(fd);
		fd = up;
		if (here.st_dev == above.st_dev && here.st_ino == above.st_ino) {
			if (here.st_dev != root.st_dev || here.st_ino != root.st_ino)
				escaped("another root above %s", from);
			break;
		}
	}
	close(fd);
}

static const char *const directories[] = {
	"/", "/proc", "/proc/self", "/proc/self/fd", "/proc/self/fdinfo", "/proc/self/task", "/proc/self/ns", "/proc/self/net",
	"/proc/self/cwd", "/proc/self/root", "/proc/thread-self", "/proc/1", "/proc/1/root", "/proc/1/cwd", "/proc/1/fd",
	"/proc/1/task", "/proc/1/task/1", "/proc/1/ns", "/proc/sys", "/proc/sys/kernel", "/proc/net", "/proc/pressure", "/dev",
	"/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/fd", "/sys", "/sys/class", "/sys/class/net", "/sys/class/net/lo",
	"/sys/devices/system/cpu", "/sys/fs/cgroup", "/sys/kernel", "/sys/block", "/etc",
};

void grafts(void)
{
	for (size_t i = 0; i < sizeof directories / sizeof *directories; i++) {
		walk_up(open(directories[i], O_RDONLY | O_DIRECTORY), directories[i]);
		walk_up(open(directories[i], O_PATH | O_DIRECTORY), directories[i]);
		struct open_how how = { .flags = O_RDONLY | O_DIRECTORY, .resolve = RESOLVE_IN_ROOT };
		walk_up((int)syscall(SYS_openat2, AT_FDCWD, directories[i], &how, sizeof how), directories[i]);
	}
}

/* The classic: a root within the root, while the working directory, or a descriptor, stays above it.  Where a step may make one, all
 * ways up have to end at its own root. */
static int out_of_inner_root(int by_descriptor)
{
	struct stat own, here;
	int above = open("/", O_RDONLY | O_DIRECTORY);
	mkdir("/tmp/inner", 0755);
	if (stat("/", &own) || chdir(by_descriptor ? "/tmp/inner" : "/"))
		return 2;
	if (chroot("/tmp/inner"))
		return may_chroot ? 2 : 0;
	if (!may_chroot)
		escaped("chroot");
	if (by_descriptor && fchdir(above))
		return 2;
	for (int i = 0; i < 64; i++)
		chdir("..");
	if (stat(".", &here) || here.st_dev != own.st_dev || here.st_ino != own.st_ino)
		escaped("above its own root");
	if (is_secret(open(secret + 1, O_RDONLY)) || (chroot(".") == 0 && is_secret(open(secret, O_RDONLY))))
		escaped("out of a root within the root");
	return !may_chroot;
}

void nested_chroot(void)
{
	for (int by_descriptor = 0; by_descriptor < 2; by_descriptor++) {
		int status;
		pid_t child = fork();
		if (child == 0)
			_exit(out_of_inner_root(by_descriptor) | (escapes > 0));
		waitpid(child, &status, 0);
		if (status)
			escaped("a root within the root: %d", status);
	}
}

void descriptors(void)
{
	struct stat st;
	for (int fd = 0; fd < 4096; fd++) {
		if (fstat(fd, &st))
			continue;
		int expected = fd == 0 ? S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3) : fd < 3 && S_ISFIFO(st.st_mode);
		if (!expected)
			escaped("an open descriptor %d of mode %o", fd, st.st_mode);
		if (S_ISDIR(st.st_mode))
			walk_up(dup(fd), "an inherited descriptor");
	}
	/* What /proc says is open is what is open, and leads nowhere else when it is opened again. */
	DIR *list = opendir("/proc/self/fd");
	for (struct dirent *entry; list && (entry = readdir(list));) {
		int fd = atoi(entry->d_name);
		if (entry->d_name[0] != '.' && fd > 2 && fd != dirfd(list))
			escaped("a descriptor %d in /proc", fd);
	}
	if (!list)
		escaped("/proc/self/fd cannot be listed, so nothing is known");
	else
		closedir(list);
}

/* A descriptor that comes back over a socket is what it was. */
void passed_descriptors(void)
{
	int pair[2], root = open("/", O_RDONLY | O_DIRECTORY);
	char byte = 'x', control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec data = { &byte, 1 };
	struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair)) {
		escaped("no sockets, so nothing is known");
		return;
	}
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof root);
	memcpy(CMSG_DATA(header), &root, sizeof root);
	if (sendmsg(pair[0], &message, 0) != 1 || recvmsg(pair[1], &message, 0) != 1)
		escaped("a descriptor could not be passed, so nothing is known");
	else {
		int got;
		memcpy(&got, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof got);
		walk_up(got, "a descriptor that was passed");
	}
	close(pair[0]);
	close(pair[1]);
	close(root);
}

/* Whatever /proc shows of processes that are not the step's, and of the one that holds it. */
void proc_files(void)
{
	static const char *const files[] = {
		"environ", "mem", "maps", "smaps", "auxv", "syscall", "stack", "pagemap", "io", "fd/0", "fd/1", "fd/3", "fd/4",
		"exe", "map_files", "clear_refs", "attr/current", "task/1/mem", "task/1/environ",
	};
	char path[4096];
	const char *links[] = { "root", "cwd" };
	int pids[16] = { 1, getppid() }, count = 2;
	for (int i = 0; strangers[i]; i++)
		pids[count++] = strangers[i];
	for (int i = 0; i < count; i++) {
		for (size_t j = 0; j < 2; j++) {
			snprintf(path, sizeof path, "/proc/%d/%s%s", pids[i], links[j], secret);
			if (is_secret(open(path, O_RDONLY)))
				escaped("%s", path);
			snprintf(path, sizeof path, "/proc/%d/%s/../../../../../../..%s", pids[i], links[j], secret);
			if (is_secret(open(path, O_RDONLY)))
				escaped("%s", path);
		}
		if (pids[i] != 1 && is_own(pids[i]))
			continue;
		for (size_t j = 0; j < sizeof files / sizeof *files; j++) {
			snprintf(path, sizeof path, "/proc/%d/%s", pids[i], files[j]);
			if (open(path, O_RDONLY) >= 0)
				escaped("%s can be read", path);
			if (open(path, O_WRONLY) >= 0)
				escaped("%s can be written", path);
		}
		snprintf(path, sizeof path, "/proc/%d/exe", pids[i]);
		char target[64];
		if (readlink(path, target, sizeof target) >= 0)
			escaped("the program of %d is told", pids[i]);
	}
	DIR *list = opendir("/proc");
	for (struct dirent *entry; list && (entry = readdir(list));)
		if (atoi(entry->d_name) && !is_own(atoi(entry->d_name)))
			escaped("/proc lists %s, which is not the step's", entry->d_name);
	if (list)
		closedir(list);
}

/* Tries to write to a file of the machine's, or to change what is said of it, by the path and by a descriptor of it. */
static void change(const char *path)
{
	char again[64];
	struct stat st;
	struct statfs fs;
	int fd = open(path, O_RDONLY | O_NONBLOCK);
	if (fd < 0)
		return;
	const int ways[] = { O_WRONLY, O_RDWR, O_WRONLY | O_TRUNC, O_WRONLY | O_APPEND };
	/* A memory file that holds a copy is the step's own. */
	int is_copy = fstatfs(fd, &fs) == 0 && fs.f_type == 0x01021994;
	snprintf(again, sizeof again, "/proc/self/fd/%d", fd);
	for (size_t i = 0; i < 4; i++) {
		int own = open(path, ways[i] | O_NONBLOCK), by_link = is_copy ? -1 : open(again, ways[i] | O_NONBLOCK);
		if (own >= 0 || by_link >= 0)
			escaped("%s can be written", path);
		close(own);
		close(by_link);
	}
	if (!is_copy && fstat(fd, &st) == 0 && fchmod(fd, st.st_mode ^ 01) == 0) {
		escaped("the mode of %s", path);
		fchmod(fd, st.st_mode);
	}
	close(fd);
}

void machine_files(void)
{
	static const char *const files[] = {
		"/proc/sys/kernel/domainname", "/proc/sys/kernel/core_pattern", "/proc/sys/vm/drop_caches", "/proc/sys/vm/swappiness",
		"/proc/sysrq-trigger", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/version", "/proc/loadavg", "/proc/self/net/dev",
		"/sys/devices/system/cpu/online", "/sys/kernel/mm/transparent_hugepage/enabled", "/sys/class/net/lo/mtu",
		"/sys/fs/cgroup/cgroup.procs", "/sys/module/kernel/parameters/panic", "/sys/block/loop0/queue/scheduler",
	};
	for (size_t i = 0; i < sizeof files / sizeof *files; i++)
		change(files[i]);
	for (size_t i = 0; i < 3; i++) {
		const char *path = (const char *[]){ "/proc/kcore", "/proc/kallsyms", "/proc/kmsg" }[i];
		char first;
		/* What is covered is there, and empty. */
		if (read(open(path, O_RDONLY | O_NONBLOCK), &first, 1) > 0)
			escaped("%s can be read", path);
	}
}

static int holds(const char *path, const char *text)
{
	static char content[1 << 20];
	int fd = open(path, O_RDONLY);
	ssize_t length = fd < 0 ? 0 : read(fd, content, sizeof content);
	close(fd);
	return length > 0 && memmem(content, (size_t)length, text, strlen(text));
}

static void tells(int pid, const char *token)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/environ", pid);
	if (holds(path, token))
		escaped("%s holds the builder's token", path);
	snprintf(path, sizeof path, "/proc/%d/cmdline", pid);
	if (holds(path, token))
		escaped("%s holds the builder's token", path);
}

/* The builder's environment holds a token, whose name is known and whose value begins so. */
void environments(void)
{
	/* Put together here, so that it is in no file that the step holds. */
	char token[64];
	snprintf(token, sizeof token, "%s-%s", "token", "of-the-builder");
	if (getenv("STEPWELL_TEST_TOKEN"))
		escaped("the builder's variable is in the environment");
	for (int pid = 1; pid < 128; pid++)
		tells(pid, token);
	for (int i = 0; strangers[i]; i++)
		tells(strangers[i], token);
	/* Without a namespace: who holds the step, and who started that. */
	for (int pid = getppid(); pid > 1 && pid > getppid() - 64; pid--)
		tells(pid, token);
}

void devices(void)
{
	static const struct {
		mode_t kind;
		unsigned major, minor;
	} all[] = {
		{ S_IFBLK, 8, 0 }, { S_IFBLK, 254, 0 }, { S_IFBLK, 253, 0 }, { S_IFBLK, 259, 0 }, { S_IFBLK, 7, 0 },
		{ S_IFCHR, 1, 1 }, { S_IFCHR, 1, 4 }, { S_IFCHR, 1, 11 }, { S_IFCHR, 4, 0 }, { S_IFCHR, 5, 1 },
		{ S_IFCHR, 10, 229 }, { S_IFCHR, 10, 200 },
	};
	for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
		char path[64], byte;
		struct stat st;
		dev_t number = makedev(all[i].major, all[i].minor);
		snprintf(path, sizeof path, "/tmp/device-%zu", i);
		mknod(path, all[i].kind | 0666, number);
		chmod(path, 0666);
		int fd = open(path, O_RDWR | O_NONBLOCK);
		if (fd < 0)
			continue;
		/* An emulated node is an empty file: fstat tells of a device, reading of nothing. */
		char real[64], target[256] = "";
		snprintf(real, sizeof real, "/proc/self/fd/%d", fd);
		readlink(real, target, sizeof target - 1);
		if (read(fd, &byte, 1) > 0 || (lseek(fd, 0, SEEK_END) > 0 && fstat(fd, &st) == 0))
			escaped("a device %u:%u (%s)", all[i].major, all[i].minor, target);
		close(fd);
		unlink(path);
	}
}

/* A core dump is written by the kernel where the process is, for the kernel. */
void core(void)
{
	int status;
	struct rlimit limit;
	getrlimit(RLIMIT_CORE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_CORE, &limit);
	pid_t child = fork();
	if (child == 0) {
		chdir("/tmp");
		raise(SIGSEGV);
	}
	waitpid(child, &status, 0);
	if (!WIFSIGNALED(status))
		escaped("nothing was dumped, so nothing is known");
	unlink("/tmp/core");
}
