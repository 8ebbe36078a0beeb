/* world NAME: run in a RUN step, uses something that programs expect of the world, and says `NAME works`; else what failed. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <syslog.h>
#include <termios.h>
#include <unistd.h>

#include "need.h"

static int ended(pid_t child)
{
	int status;
	NEED(waitpid(child, &status, 0) == child);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* What Python's multiprocessing and PostgreSQL's tests do. */
static void semaphores(void)
{
	sem_t *semaphore = sem_open("/world", O_CREAT | O_EXCL, 0600, 0);
	NEED(semaphore != SEM_FAILED);
	pid_t child = fork();
	if (child == 0) {
		sem_post(semaphore);
		_exit(0);
	}
	NEED(sem_wait(semaphore) == 0 && ended(child) == 0 && sem_close(semaphore) == 0 && sem_unlink("/world") == 0);
	int shared = shm_open("/world", O_CREAT | O_RDWR, 0600);
	NEED(shared >= 0 && ftruncate(shared, 8192) == 0);
	char *memory = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, shared, 0);
	NEED(memory != MAP_FAILED);
	child = fork();
	if (child == 0) {
		strcpy(memory, "shared");
		_exit(0);
	}
	NEED(ended(child) == 0 && !strcmp(memory, "shared") && shm_unlink("/world") == 0);
}

/* What `script`, `expect` and Python's `pty` do. */
static void terminals(void)
{
	char text[64] = "";
	int terminal = posix_openpt(O_RDWR | O_NOCTTY);
	NEED(terminal >= 0 && grantpt(terminal) == 0 && unlockpt(terminal) == 0);
	NEED(!strncmp(ptsname(terminal), "/dev/pts/", 9));
	pid_t child = fork();
	if (child == 0) {
		NEED(setsid() > 0);
		int side = open(ptsname(terminal), O_RDWR);
		NEED(side >= 0 && ioctl(side, TIOCSCTTY, 0) == 0 && isatty(side));
		int own = open("/dev/tty", O_RDWR);
		NEED(own >= 0);
		NEED(write(own, "by tty", 6) == 6);
		_exit(0);
	}
	NEED(read(terminal, text, sizeof text) == 6 && !strcmp(text, "by tty") && ended(child) == 0);
}

static void *thread(void *value)
{
	char path[64], name[64] = "";
	snprintf(path, sizeof path, "/proc/thread-self/comm");
	int fd = open(path, O_RDONLY);
	if (fd >= 0 && read(fd, name, sizeof name) > 0)
		*(int *)value = !strncmp(name, "world", 5) && getpid() != syscall(SYS_gettid);
	close(fd);
	return NULL;
}

/* How Chromium's sandbox asks whether it has a single thread. */
static int tasks(void)
{
	struct stat st;
	int proc = open("/proc/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	NEED(proc >= 0 && fstatat(proc, "self/task/", &st, 0) == 0);
	close(proc);
	return (int)st.st_nlink - 2;
}

static void threads(void)
{
	NEED(tasks() == 1);
	enum { COUNT = 64 };
	pthread_t threads[COUNT];
	int values[COUNT] = { 0 };
	for (int i = 0; i < COUNT; i++)
		NEED(pthread_create(&threads[i], NULL, thread, &values[i]) == 0);
	for (int i = 0; i < COUNT; i++)
		NEED(pthread_join(threads[i], NULL) == 0 && values[i]);
	/* A thread that forks and one that pins itself, as runtimes do. */
	cpu_set_t all;
	NEED(sched_getaffinity(0, sizeof all, &all) == 0);
	NEED(pthread_setaffinity_np(pthread_self(), sizeof all, &all) == 0);
}

static int child_of_vfork(void *unused)
{
	(void)unused;
	execl("/bin/true", "true", (char *)NULL);
	_exit(9);
}

/* What C libraries, Go and runtimes start processes by. */
static void processes(void)
{
	static char stack[65536];
	pid_t child = clone(child_of_vfork, stack + sizeof stack - 64, CLONE_VM | CLONE_VFORK | SIGCHLD, NULL);
	NEED(child > 0 && ended(child) == 0);
	unsigned long long arguments[11] = { 0, 0, 0, 0, SIGCHLD };
	long made = syscall(SYS_clone3, arguments, sizeof arguments);
	if (made == 0)
		_exit(7);
	/* Refused as if there were none, so that programs fall back. */
	NEED(made > 0 ? ended((pid_t)made) == 7 : errno == ENOSYS);
	int program = memfd_create("program", MFD_CLOEXEC), self = open("/proc/self/exe", O_RDONLY);
	char buffer[65536];
	NEED(program >= 0 && self >= 0);
	for (ssize_t length; (length = read(self, buffer, sizeof buffer)) > 0;)
		NEED(write(program, buffer, (size_t)length) == length);
	child = fork();
	if (child == 0) {
		char *own[] = { "world", "nothing", NULL }, *environment[] = { NULL };
		fexecve(program, own, environment);
		_exit(9);
	}
	NEED(ended(child) == 0);
}

/* A thousand at once. */
static void crowd(void)
{
	enum { COUNT = 1000 };
	static pid_t children[COUNT];
	int go[2];
	char byte;
	NEED(pipe(go) == 0);
	for (int i = 0; i < COUNT; i++) {
		NEED((children[i] = fork()) >= 0);
		if (children[i] == 0) {
			close(go[1]);
			_exit(read(go[0], &byte, 1) != 0);
		}
	}
	for (int i = 0; i < COUNT; i += 100)
		NEED(kill(children[i], 0) == 0);
	close(go[1]);
	for (int i = 0; i < COUNT; i++)
		NEED(ended(children[i]) == 0);
}

static void sockets(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = "/tmp/world-socket" };
	int listener = socket(AF_UNIX, SOCK_STREAM, 0), client = socket(AF_UNIX, SOCK_STREAM, 0);
	NEED(bind(listener, (struct sockaddr *)&address, sizeof address) == 0 && listen(listener, 1) == 0);
	NEED(connect(client, (struct sockaddr *)&address, sizeof address) == 0 && accept(listener, NULL, NULL) >= 0);
	struct stat st;
	NEED(stat(address.sun_path, &st) == 0 && S_ISSOCK(st.st_mode));
	/* What the kernel says that its name is leads to it, too. */
	socklen_t length = sizeof address;
	int another = socket(AF_UNIX, SOCK_STREAM, 0);
	NEED(getsockname(listener, (struct sockaddr *)&address, &length) == 0);
	NEED(connect(another, (struct sockaddr *)&address, length) == 0 && accept(listener, NULL, NULL) >= 0);
}

static struct sockaddr_un named(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	strncpy(address.sun_path, path, sizeof address.sun_path - 1);
	return address;
}

static int bound(const char *path)
{
	struct sockaddr_un address = named(path);
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	unlink(path);
	NEED(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0);
	return fd;
}

static void receives(int fd, const char *wanted)
{
	char text[64] = "";
	NEED(recv(fd, text, sizeof text - 1, MSG_DONTWAIT) == (ssize_t)strlen(wanted) && !strcmp(text, wanted));
}

/* What syslog(3), sd_notify(3) and servers with a control socket do. */
static void datagrams(void)
{
	struct sockaddr_un to = named("/tmp/world-server"), from, nothing = { .sun_family = AF_UNSPEC };
	struct sockaddr *address = (struct sockaddr *)&to, *sender = (struct sockaddr *)&from;
	socklen_t length = sizeof from;
	char text[64] = "";
	int server = bound("/tmp/world-server"), client;
	NEED(chdir("/tmp") == 0);
	client = bound("world-client");
	NEED(sendto(client, "asked", 5, 0, address, sizeof to) == 5);
	NEED(recvfrom(server, text, sizeof text, 0, sender, &length) == 5 && !strcmp(text, "asked"));
	NEED(sendto(server, "answered", 8, 0, sender, length) == 8);
	receives(client, "answered");
	/* By a message with a name, by two at once, and without a name. */
	struct iovec parts[2] = { { "me", 2 }, { "ssage", 5 } };
	struct msghdr message = { .msg_name = &to, .msg_namelen = sizeof to, .msg_iov = parts, .msg_iovlen = 2 };
	struct mmsghdr two[2] = { { .msg_hdr = message }, { .msg_hdr = message } };
	two[1].msg_hdr.msg_iovlen = 1;
	NEED(sendmsg(client, &message, 0) == 7 && sendmmsg(client, two, 2, 0) == 2 && two[0].msg_len == 7 && two[1].msg_len == 2);
	receives(server, "message");
	receives(server, "message");
	receives(server, "me");
	message.msg_name = NULL;
	NEED(sendmsg(client, &message, 0) == -1 && errno == ENOTCONN);
	NEED(connect(client, address, sizeof to) == 0 && send(client, "sent", 4, 0) == 4 && sendmsg(client, &message, 0) == 7);
	receives(server, "sent");
	receives(server, "message");
	NEED(connect(client, (struct sockaddr *)&nothing, sizeof nothing) == 0 && send(client, "x", 1, 0) == -1 && errno == ENOTCONN);
	/* Names that are no paths: one that is asked for, one that the kernel gives. */
	struct sockaddr_un name = { .sun_family = AF_UNIX, .sun_path = "\0world-name" };
	int other = socket(AF_UNIX, SOCK_DGRAM, 0), third = socket(AF_UNIX, SOCK_RAW | SOCK_NONBLOCK, 0);
	NEED(bind(other, (struct sockaddr *)&name, 13) == 0 && sendto(client, "by name", 7, 0, (struct sockaddr *)&name, 13) == 7);
	receives(other, "by name");
	length = sizeof from;
	NEED(bind(third, (struct sockaddr *)&name, 2) == 0 && getsockname(third, sender, &length) == 0 && length == 8);
	NEED(sendto(other, "given", 5, 0, sender, length) == 5);
	receives(third, "given");
	NEED(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, (int *)text) == 0 && fcntl(((int *)text)[1], F_GETFD) == FD_CLOEXEC);
	NEED(write(((int *)text)[0], "pair", 4) == 4);
	receives(((int *)text)[1], "pair");
	/* What cannot be sent. */
	struct sockaddr_un missing = named("/tmp/missing"), file = named("/etc/passwd");
	NEED(sendto(client, "x", 1, 0, (struct sockaddr *)&missing, sizeof missing) == -1 && errno == ENOENT);
	NEED(sendto(client, "x", 1, 0, (struct sockaddr *)&file, sizeof file) == -1 && errno == ECONNREFUSED);
	NEED(sendmsg(client, (struct msghdr *)16, 0) == -1 && errno == EFAULT);
	/* Who sends faster than is received waits. */
	while (sendto(client, "x", 1, MSG_DONTWAIT, address, sizeof to) == 1)
		;
	NEED(errno == EAGAIN);
	pid_t parent = getpid(), child = fork();
	if (child == 0) {
		wait_until_asleep(parent);
		receives(server, "x");
		_exit(0);
	}
	NEED(sendto(client, "last", 4, 0, address, sizeof to) == 4 && ended(child) == 0);
	/* A server that has ended refuses. */
	int go[2];
	NEED(pipe(go) == 0);
	child = fork();
	if (child == 0) {
		close(go[1]);
		server = bound("/tmp/world-ended");
		_exit(read(go[0], text, 1) != 0);
	}
	struct stat st;
	while (stat("/tmp/world-ended", &st))
		;
	to = named("/tmp/world-ended");
	NEED(connect(third, address, sizeof to) == 0 && send(third, "x", 1, 0) == 1);
	NEED(close(go[1]) == 0 && ended(child) == 0);
	NEED(sendto(client, "x", 1, 0, address, sizeof to) == -1 && errno == ECONNREFUSED);
	while (send(third, "x", 1, 0) == 1)
		;
	NEED(errno == ECONNREFUSED);
	NEED(close(server) == 0 && unlink("/tmp/world-ended") == 0 && unlink("/tmp/world-server") == 0 && unlink("world-client") == 0);
}

/* C libraries say it to whoever has this name. */
static void logs(void)
{
	char text[256] = "";
	int server = bound("/dev/log");
	openlog("world", LOG_NDELAY, LOG_USER);
	syslog(LOG_NOTICE, "said %d", 7);
	NEED(recv(server, text, sizeof text - 1, 0) > 0 && strstr(text, "world: said 7") && !strncmp(text, "<13>", 4));
	closelog();
	NEED(unlink("/dev/log") == 0);
}

/* The bytes that setcap(8) writes for cap_net_raw+ep, and reads again. */
static void capabilities(void)
{
	static const unsigned char value[20] = { 1, 0, 0, 2, 0, 0x20 };
	unsigned char got[24];
	int fd = open("/tmp/capable", O_CREAT | O_WRONLY, 0755);
	NEED(fd >= 0 && setxattr("/tmp/capable", "security.capability", value, sizeof value, 0) == 0);
	NEED(getxattr("/tmp/capable", "security.capability", got, sizeof got) == sizeof value && !memcmp(got, value, sizeof value));
	NEED(fgetxattr(fd, "security.capability", got, sizeof got) == sizeof value);
	NEED(listxattr("/tmp/capable", NULL, 0) > 0);
	/* They are root's to give, also to one's own files. */
	pid_t powerless = fork();
	if (powerless == 0) {
		int own;
		NEED(setresgid(1000, 1000, 1000) == 0 && setresuid(1000, 1000, 1000) == 0);
		NEED((own = open("/tmp/powerless", O_CREAT | O_WRONLY, 0700)) >= 0);
		NEED(setxattr("/tmp/powerless", "security.capability", value, sizeof value, 0) == -1 && errno == EPERM);
		NEED(fsetxattr(own, "security.capability", value, sizeof value, 0) == -1 && errno == EPERM);
		NEED(removexattr("/tmp/capable", "security.capability") == -1 && errno == EPERM);
		_exit(0);
	}
	NEED(ended(powerless) == 0 && unlink("/tmp/powerless") == 0);
	/* They stay when nothing comes of an attempt to write, and go when the file is written anew. */
	NEED(open("/tmp/capable", O_CREAT | O_EXCL | O_TRUNC | O_WRONLY, 0755) == -1 && errno == EEXIST);
	NEED(getxattr("/tmp/capable", "security.capability", got, sizeof got) == sizeof value && close(fd) == 0);
	int running[2];
	NEED(system("cp /world /tmp/running") == 0 && pipe2(running, O_CLOEXEC) == 0);
	NEED(setxattr("/tmp/running", "security.capability", value, sizeof value, 0) == 0);
	pid_t child = fork();
	if (child == 0) {
		execl("/tmp/running", "running", "forever", (char *)NULL);
		_exit(9);
	}
	/* Closed when it is executed. */
	NEED(close(running[1]) == 0 && read(running[0], got, 1) == 0);
	NEED(open("/tmp/running", O_TRUNC | O_WRONLY) == -1 && errno == ETXTBSY);
	NEED(getxattr("/tmp/running", "security.capability", got, sizeof got) == sizeof value);
	NEED(kill(child, SIGKILL) == 0 && ended(child) == 128 + SIGKILL);
	NEED((fd = open("/tmp/running", O_TRUNC | O_WRONLY)) >= 0 && write(fd, "x", 1) == 1 && close(fd) == 0);
	NEED(getxattr("/tmp/running", "security.capability", got, sizeof got) == -1 && errno == ENODATA);
	NEED(unlink("/tmp/running") == 0);
}

/* What tar, rsync and Python's shutil do: the C library has no call for a name beneath a descriptor but by `/proc/self/fd`. */
static void attributes(void)
{
	char path[64], got[16] = "", names[64] = "";
	NEED(mkdir("/tmp/attributes", 0755) == 0);
	int dir = open("/tmp/attributes", O_RDONLY | O_DIRECTORY), file = open("/tmp/attributes/file", O_CREAT | O_WRONLY, 0644);
	NEED(dir >= 0 && file >= 0);
	snprintf(path, sizeof path, "/proc/self/fd/%d/file", dir);
	NEED(lsetxattr(path, "user.x", "value", 5, XATTR_CREATE) == 0);
	NEED(lsetxattr(path, "user.x", "value", 5, XATTR_CREATE) == -1 && errno == EEXIST);
	NEED(getxattr("/tmp/attributes/file", "user.x", got, sizeof got) == 5 && !strcmp(got, "value"));
	NEED(lgetxattr(path, "user.x", got, 0) == 5 && lgetxattr(path, "user.x", got, 2) == -1 && errno == ERANGE);
	NEED(llistxattr(path, names, sizeof names) >= 7 && memmem(names, sizeof names, "user.x", 7));
	snprintf(path, sizeof path, "/proc/self/fd/%d", file);
	NEED(getxattr(path, "user.x", got, sizeof got) == 5 && removexattr(path, "user.x") == 0);
	NEED(getxattr("/tmp/attributes/file", "user.x", got, sizeof got) == -1 && errno == ENODATA);
}

/* What `tail -f`, Node's fs.watch and build tools do. */
static void watches(void)
{
	char buffer[4096] __attribute__((aligned(8)));
	const struct inotify_event *event = (void *)buffer;
	NEED(mkdir("/tmp/watched", 0755) == 0 && symlink("watched", "/tmp/link-to-watched") == 0);
	int queue = inotify_init1(IN_CLOEXEC), other = inotify_init1(IN_NONBLOCK);
	NEED(queue >= 0 && other >= 0 && (fcntl(queue, F_GETFD) & FD_CLOEXEC) && !(fcntl(other, F_GETFD) & FD_CLOEXEC));
	int watch = inotify_add_watch(queue, "/tmp/link-to-watched", IN_CREATE | IN_ONLYDIR);
	NEED(watch > 0 && inotify_add_watch(queue, "/tmp/watched", IN_CREATE | IN_DELETE) == watch);
	NEED(inotify_add_watch(queue, "/tmp/link-to-watched", IN_CREATE | IN_ONLYDIR | IN_DONT_FOLLOW) == -1 && errno == ENOTDIR);
	NEED(inotify_add_watch(queue, "/no-such", IN_CREATE) == -1 && errno == ENOENT);
	NEED(inotify_add_watch(0, "/tmp", IN_CREATE) == -1 && errno == EINVAL);
	pid_t child = fork();
	if (child == 0) {
		/* Inherited, and named by another number. */
		int same = dup(queue);
		NEED(inotify_add_watch(same, "/tmp", IN_ATTRIB) > watch && mkdir("/tmp/watched/made", 0700) == 0);
		_exit(0);
	}
	NEED(ended(child) == 0 && read(queue, buffer, sizeof buffer) > 0);
	NEED(event->wd == watch && event->mask == (IN_CREATE | IN_ISDIR) && !strcmp(event->name, "made"));
	NEED(read(other, buffer, sizeof buffer) == -1 && errno == EAGAIN && inotify_rm_watch(queue, watch) == 0);
	NEED(rmdir("/tmp/watched/made") == 0 && rmdir("/tmp/watched") == 0 && unlink("/tmp/link-to-watched") == 0);
}

static void io_uring(void)
{
	char parameters[256] = { 0 };
	NEED(syscall(425, 4, parameters) < 0 && errno == ENOSYS);
}

#if defined(__x86_64__)
static long by_32_bits(long number, const void *a, const void *b, const void *c)
{
	long result;
	__asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c) : "memory", "r8", "r9", "r10", "r11");
	return result;
}

/* A 64-bit program may make the calls of 32-bit ones, execve too: here once a native one has failed late. */
static void narrow_calls(void)
{
	char *low = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	unsigned *vector = (unsigned *)(low + 64);
	static char long_argument[1 << 20];
	NEED(low != MAP_FAILED);
	memset(long_argument, 'x', sizeof long_argument - 1);
	int script = open("/tmp/narrow-script", O_CREAT | O_WRONLY | O_CLOEXEC, 0755);
	NEED(script >= 0 && write(script, "#!/bin/cat\nscript\n", 18) == 18 && close(script) == 0);
	strcpy(low, "/tmp/narrow-script");
	vector[0] = (unsigned)(unsigned long)low;
	fflush(stdout);
	pid_t child = fork();
	if (child == 0) {
		char *too_long[] = { "true", long_argument, NULL };
		NEED(execv("/bin/true", too_long) == -1 && errno == E2BIG);
		NEED(by_32_bits(11, low, (void *)1, NULL) == -EFAULT);
		by_32_bits(11 /* execve */, low, vector, NULL);
		_exit(9);
	}
	NEED(ended(child) == 0 && unlink("/tmp/narrow-script") == 0);
	strcpy(low, "/usr");
	NEED(by_32_bits(12 /* chdir */, low, NULL, NULL) == 0 && by_32_bits(183 /* getcwd */, low + 32, (void *)32, NULL) == 5);
	NEED(!strcmp(low + 32, "/usr"));
	child = (pid_t)by_32_bits(2 /* fork */, NULL, NULL, NULL);
	if (child == 0)
		_exit(by_32_bits(183, low + 32, (void *)32, NULL) != 5);
	NEED(child > 0 && ended(child) == 0);
}
#endif

static volatile sig_atomic_t alarms;

static void count_alarm(int signal)
{
	(void)signal;
	alarms++;
}

/* Calls about other processes never wait, so no program is ready for EINTR; here signals come without end. */
static void interrupts(void)
{
	struct sigaction action = { .sa_handler = count_alarm };
	struct itimerval often = { { 0, 100 }, { 0, 100 } }, never = { { 0, 0 }, { 0, 0 } };
	NEED(sigaction(SIGALRM, &action, NULL) == 0 && setitimer(ITIMER_REAL, &often, NULL) == 0);
	pid_t self = getpid();
	for (int i = 0; i < 5000 || alarms < 50; i++)
		NEED(kill(self, 0) == 0 && syscall(SYS_tgkill, self, self, 0) == 0);
	NEED(setitimer(ITIMER_REAL, &never, NULL) == 0);
}

static void nothing(void)
{
}

static void forever(void)
{
	pause();
}

static const struct {
	const char *name;
	void (*use)(void);
} all[] = {
	{ "semaphores", semaphores }, { "terminals", terminals }, { "threads", threads }, { "processes", processes }, { "crowd", crowd },
	{ "sockets", sockets }, { "datagrams", datagrams }, { "logs", logs }, { "capabilities", capabilities }, { "attributes", attributes }, { "watches", watches }, { "io_uring", io_uring }, { "interrupts", interrupts },
#if defined(__x86_64__)
	{ "narrow_calls", narrow_calls },
#endif
	{ "nothing", nothing }, { "forever", forever },
};

int main(int count, char **argument)
{
	for (size_t i = 0; count >= 2 && i < sizeof all / sizeof all[0]; i++)
		if (!strcmp(argument[1], all[i].name)) {
			all[i].use();
			if (all[i].use != nothing)
				printf("%s works\n", all[i].name);
			return 0;
		}
	return 2;
}
