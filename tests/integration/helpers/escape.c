/* escape OUTSIDE PID PID: run as a RUN step of the tier `mediated`, tries every way out of the tree that is known.
 *
 * OUTSIDE is a directory of the machine, open to the step's user, that holds `secret`, `program`, `socket` and `mode`; the
 * processes are others of the machine. Prints what it got; ends with 0 and `every way is closed` where that is nothing.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

static int escapes;
static char outside[1024], secret[2048], program[2048], socket_path[2048], mode_file[2048];

static void got(const char *what)
{
	printf("ESCAPED: %s\n", what);
	escapes++;
}

/* Whether a descriptor is on the secret. */
static int is_secret(int fd)
{
	char text[64] = "";
	if (fd < 0)
		return 0;
	ssize_t length = pread(fd, text, sizeof text - 1, 0);
	close(fd);
	return length > 0 && strstr(text, "machine's secret");
}

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void by_paths(void)
{
	char path[4096];
	if (is_secret(open(secret, O_RDONLY)))
		got("an absolute path");
	snprintf(path, sizeof path, "../../../../../../../../../..%s", secret);
	if (is_secret(open(path, O_RDONLY)))
		got("dots from the root");
	int root = open("/", O_RDONLY | O_DIRECTORY);
	if (is_secret(openat(root, path, O_RDONLY)))
		got("dots from a descriptor of the root");
	if (fchdir(root) == 0 && is_secret(open(path, O_RDONLY)))
		got("dots after fchdir");
	symlink(secret, "/tmp/to-secret");
	symlink(path, "/tmp/dots-to-secret");
	if (is_secret(open("/tmp/to-secret", O_RDONLY)) || is_secret(open("/tmp/dots-to-secret", O_RDONLY)))
		got("a symbolic link");
	struct open_how how = { .flags = O_RDONLY };
	const unsigned long long resolve[] = { 0, RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_BENEATH, RESOLVE_IN_ROOT, RESOLVE_CACHED };
	for (size_t i = 0; i < sizeof resolve / sizeof *resolve; i++) {
		how.resolve = resolve[i];
		if (is_secret((int)syscall(SYS_openat2, root, path, &how, sizeof how)) ||
		    is_secret((int)syscall(SYS_openat2, AT_FDCWD, secret, &how, sizeof how)) ||
		    is_secret((int)syscall(SYS_openat2, root, "tmp/to-secret", &how, sizeof how)))
			got("openat2");
	}
	struct stat st;
	if (stat(secret, &st) == 0 || lstat(secret, &st) == 0 || access(secret, F_OK) == 0)
		got("looking at a file");
	if (chmod(mode_file, 0777) == 0 || truncate(secret, 0) == 0 || unlink(secret) == 0 ||
	    rename(secret, "/tmp/stolen") == 0 || link(secret, "/tmp/linked") == 0)
		got("changing a file");
	if (chdir(outside) == 0)
		got("chdir");
	close(root);
}

static void by_proc(const char *pid)
{
	char path[4096];
	const char *links[] = { "root", "cwd" };
	const char *pids[] = { "self", "1", pid };
	for (size_t i = 0; i < 6; i++) {
		snprintf(path, sizeof path, "/proc/%s/%s%s", pids[i / 2], links[i % 2], secret);
		if (is_secret(open(path, O_RDONLY)))
			got(path);
		snprintf(path, sizeof path, "/proc/%s/%s/..%s", pids[i / 2], links[i % 2], secret);
		if (is_secret(open(path, O_RDONLY)))
			got(path);
	}
	snprintf(path, sizeof path, "/proc/%s/mem", pid);
	if (open(path, O_RDWR) >= 0)
		got(path);
	snprintf(path, sizeof path, "/proc/%d/mem", getppid());
	if (open(path, O_RDWR) >= 0)
		got(path);
	for (int fd = 3; fd < 256; fd++)
		if (fcntl(fd, F_GETFD) >= 0) {
			snprintf(path, sizeof path, "an open descriptor %d", fd);
			got(path);
		}
}

static void by_processes(int pid)
{
	char buffer[16];
	struct iovec local = { buffer, sizeof buffer }, remote = { (void *)(uintptr_t)0x400000, sizeof buffer };
	struct rlimit limit = { 0, 0 };
	if (kill(pid, SIGKILL) == 0 || syscall(SYS_tgkill, pid, pid, SIGKILL) == 0 || syscall(SYS_tkill, pid, SIGKILL) == 0)
		got("a signal");
	int handle = (int)syscall(SYS_pidfd_open, pid, 0);
	if (handle >= 0 && syscall(SYS_pidfd_send_signal, handle, SIGKILL, NULL, 0) == 0)
		got("a signal by a handle");
	if (handle >= 0 && syscall(SYS_pidfd_getfd, handle, 0, 0) >= 0)
		got("a descriptor of another process");
	if (ptrace(PTRACE_SEIZE, pid, 0, 0) == 0 || ptrace(PTRACE_ATTACH, pid, 0, 0) == 0)
		got("tracing");
	if (process_vm_readv(pid, &local, 1, &remote, 1, 0) > 0 || process_vm_writev(pid, &local, 1, &remote, 1, 0) > 0)
		got("memory of another process");
	if (prlimit(pid, RLIMIT_NOFILE, &limit, NULL) == 0)
		got("limits of another process");
	if (setpriority(PRIO_PROCESS, (id_t)pid, 19) == 0)
		got("priority of another process");
}

static void by_calls(void)
{
	if (unshare(CLONE_NEWUSER) == 0 || unshare(CLONE_NEWNS) == 0)
		got("unshare");
	if (chroot("/tmp") == 0)
		got("chroot");
	if (mount("none", "/mnt", "tmpfs", 0, NULL) == 0)
		got("mount");
	struct file_handle *handle = calloc(1, sizeof *handle + 128);
	int mount_id;
	handle->handle_bytes = 128;
	if (name_to_handle_at(AT_FDCWD, secret, handle, &mount_id, 0) == 0)
		got("name_to_handle_at");
	if (syscall(425 /* io_uring_setup */, 4, calloc(1, 256)) >= 0)
		got("io_uring");
	if (syscall(428 /* open_tree */, AT_FDCWD, "/", 0) >= 0)
		got("open_tree");
	int watch = (int)syscall(SYS_inotify_init1, 0);
	if (watch >= 0 && syscall(SYS_inotify_add_watch, watch, outside, 0xfff) >= 0)
		got("inotify");
	char value[8] = "";
	if (setxattr(secret, "user.x", "x", 1, 0) == 0 || getxattr(secret, "user.x", value, 8) >= 0)
		got("attributes");
	long untraced = syscall(SYS_clone, 0x00800000 | SIGCHLD, 0, 0, 0, 0);
	if (untraced == 0)
		_exit(0);
	if (untraced > 0)
		got("a process that is not traced");
#if defined(__x86_64__)
	/* The calls of 32-bit programs have other numbers; 5 is open. The path has to be below 4 GiB. */
	char *low = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	if (low != MAP_FAILED) {
		long result;
		strcpy(low, secret);
		__asm__ volatile("int $0x80" : "=a"(result) : "a"(5), "b"(low), "c"(0), "d"(0) : "memory", "r8", "r9", "r10", "r11");
		if (is_secret((int)result))
			got("a call of 32-bit programs");
	}
	if (is_secret((int)syscall(0x40000000 | SYS_open, secret, O_RDONLY)))
		got("a call of x32 programs");
#endif
}

static void by_sockets(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	if (strlen(socket_path) >= sizeof address.sun_path)
		return;
	strcpy(address.sun_path, socket_path);
	int stream = socket(AF_UNIX, SOCK_STREAM, 0);
	if (connect(stream, (struct sockaddr *)&address, sizeof address) == 0)
		got("a socket");
	int datagram = socket(AF_UNIX, SOCK_DGRAM, 0);
	if (datagram >= 0 && sendto(datagram, "x", 1, 0, (struct sockaddr *)&address, sizeof address) >= 0)
		got("a message to a socket");
	int pair[2];
	if (socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == 0)
		got("a socket whose messages carry paths");
}

static int runs(const char *path)
{
	int status;
	pid_t child = fork();
	if (child == 0) {
		execl(path, path, (char *)NULL);
		_exit(7);
	}
	waitpid(child, &status, 0);
	return WIFEXITED(status) && WEXITSTATUS(status) == 99;
}

static void script(const char *path, const char *line)
{
	int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0755);
	dprintf(fd, "#!%s\n", line);
	close(fd);
}

static void by_programs(void)
{
	if (runs(program))
		got("a program");
	symlink(program, "/tmp/to-program");
	if (runs("/tmp/to-program"))
		got("a link to a program");
	script("/tmp/script", program);
	if (runs("/tmp/script"))
		got("an interpreter");
	script("/tmp/dots", "../../../../../../../../bin/true");
	script("/tmp/link", "/tmp/to-program");
	if (runs("/tmp/link"))
		got("a link to an interpreter");
}

/* Races: one thread exchanges what another one names. */

static atomic_int stop;
static char flipped[4096];

static void *flip_path(void *unused)
{
	(void)unused;
	while (!stop) {
		memcpy(flipped, secret, strlen(secret) + 1);
		memcpy(flipped, "/etc/hostname", 14);
	}
	return NULL;
}

static void *flip_directory(void *unused)
{
	(void)unused;
	mkdir("/tmp/real", 0755);
	close(open("/tmp/real/secret", O_CREAT | O_WRONLY, 0644));
	while (!stop) {
		rename("/tmp/real", "/tmp/flip");
		rename("/tmp/flip", "/tmp/real");
		symlink(outside, "/tmp/flip");
		unlink("/tmp/flip");
	}
	return NULL;
}

/* Where the supervisor has put paths of programs: starts of pages of nameless memory that begin with a slash. */
static char *places[64];
static atomic_int place_count;

static void find_places(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	char line[512], rights[8], name[256];
	int count = 0;
	while (maps && fgets(line, sizeof line, maps)) {
		unsigned long start, end;
		if (sscanf(line, "%lx-%lx %7s %*s %*s %*s %255s", &start, &end, rights, name) != 3 || strcmp(rights, "rw-p"))
			continue;
		for (unsigned long at = start; at < end && count < 64; at += 4096)
			if (*(volatile char *)at == '/')
				places[count++] = (char *)at;
	}
	if (maps)
		fclose(maps);
	place_count = count;
}

/* Writes the path of the machine's program wherever a path of the tree's was. */
static void *flip_memory(void *unused)
{
	(void)unused;
	while (!stop)
		for (int i = 0; i < place_count; i++)
			memcpy(places[i], program, strlen(program) + 1);
	return NULL;
}

static int vfork_stack[65536];

static int child_of_vfork(void *path)
{
	char *arguments[] = { path, NULL };
	execv(path, arguments);
	_exit(7);
}

static void by_races(double seconds)
{
	pthread_t threads[3];
	pthread_create(&threads[0], NULL, flip_path, NULL);
	pthread_create(&threads[1], NULL, flip_directory, NULL);
	pthread_create(&threads[2], NULL, flip_memory, NULL);
	int round = 0;
	for (double end = now() + seconds; now() < end; round++) {
		if (round == 10)
			find_places();
		struct stat st;
		if (is_secret(open(flipped, O_RDONLY)))
			got("a path that was exchanged");
		if (stat(flipped, &st) == 0 && st.st_size == 21)
			got("a path that was exchanged, looked at");
		if (is_secret(open("/tmp/flip/secret", O_RDONLY)))
			got("a directory that was exchanged");
		/* A static program, so that nothing is done to it that one of the machine's would not stand. */
		int status = 0;
		pid_t child = clone(child_of_vfork, vfork_stack + 65000, CLONE_VM | CLONE_VFORK | SIGCHLD, "/escape");
		waitpid(child, &status, 0);
		if (WIFEXITED(status) && WEXITSTATUS(status) == 99)
			got("the path of a program, exchanged");
	}
	/* Without them the race would not be one. */
	if (place_count == 0) {
		puts("the supervisor's memory was not found");
		escapes++;
	}
	stop = 1;
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
}

int main(int count, char **argument)
{
	if (count != 4)
		return 2;
	setvbuf(stdout, NULL, _IONBF, 0);
	snprintf(outside, sizeof outside, "%s", argument[1]);
	snprintf(secret, sizeof secret, "%s/secret", outside);
	snprintf(program, sizeof program, "%s/program", outside);
	snprintf(socket_path, sizeof socket_path, "%s/socket", outside);
	snprintf(mode_file, sizeof mode_file, "%s/mode", outside);
	by_paths();
	by_proc(argument[2]);
	by_processes(atoi(argument[2]));
	by_processes(atoi(argument[3]));
	by_processes(getppid());
	by_calls();
	by_sockets();
	by_programs();
	by_races(3);
	if (escapes)
		return 1;
	puts("every way is closed");
	return 0;
}
