/* Ways out by what the kernel offers beside files and processes. */
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>

#include "attack.h"

/* The builder has a terminal; a byte that is put into its input would be typed by its user. */
static void type_into(int fd, const char *what)
{
	char subcode = 10;
	if (ioctl(fd, TIOCSTI, "x") == 0)
		escaped("typing into %s", what);
	if (ioctl(fd, TIOCLINUX, &subcode) == 0)
		escaped("the console's functions by %s", what);
	struct termios settings;
	if (tcgetattr(fd, &settings) == 0)
		escaped("%s is a terminal", what);
}

void terminals(void)
{
	char path[64];
	for (int fd = 0; fd < 3; fd++) {
		snprintf(path, sizeof path, "descriptor %d", fd);
		type_into(fd, path);
	}
	int fd = open("/dev/tty", O_RDWR);
	if (fd >= 0)
		escaped("/dev/tty is somebody's terminal");
	for (int i = 0; i < 64; i++) {
		snprintf(path, sizeof path, "/dev/pts/%d", i);
		if ((fd = open(path, O_RDWR | O_NOCTTY | O_NONBLOCK)) >= 0)
			escaped("%s is a terminal that the step did not open", path);
	}
	const char *others[] = { "/dev/tty0", "/dev/tty1", "/dev/console", "/dev/ttyS0", "/dev/hvc0" };
	for (size_t i = 0; i < sizeof others / sizeof *others; i++)
		if ((fd = open(others[i], O_RDWR | O_NOCTTY | O_NONBLOCK)) >= 0)
			type_into(fd, others[i]);
}

static int clone3_with(unsigned long long flags)
{
	unsigned long long arguments[11] = { flags, 0, 0, 0, SIGCHLD };
	long child = syscall(SYS_clone3, arguments, sizeof arguments);
	if (child == 0)
		_exit(0);
	return child > 0;
}

void namespaces(void)
{
	static const unsigned kinds[] = {
		CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWNET, CLONE_NEWIPC, CLONE_NEWUTS, CLONE_NEWCGROUP,
	};
	static const char *const names[] = { "user", "mnt", "pid", "net", "ipc", "uts", "cgroup" };
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
		char path[64];
		int status;
		pid_t child = fork();
		if (child == 0)
			_exit(unshare(kinds[i]) == 0);
		waitpid(child, &status, 0);
		if (status)
			escaped("unshare of %s", names[i]);
		long made = syscall(SYS_clone, kinds[i] | SIGCHLD, 0, 0, 0, 0);
		if (made == 0)
			_exit(0);
		if (made > 0)
			escaped("clone into a new %s", names[i]);
		if (clone3_with(kinds[i]))
			escaped("clone3 into a new %s", names[i]);
		for (int pid = 0; pid < 2; pid++) {
			snprintf(path, sizeof path, "/proc/%s/ns/%s", pid ? "1" : "self", names[i]);
			int fd = open(path, O_RDONLY);
			if (fd >= 0 && setns(fd, 0) == 0)
				escaped("setns to %s", path);
			close(fd);
		}
	}
	if (mediated) {
		long untraced = syscall(SYS_clone, 0x00800000 | SIGCHLD, 0, 0, 0, 0);
		if (untraced == 0)
			_exit(0);
		if (untraced > 0)
			escaped("a process that is not traced");
	}
}

void mounts(void)
{
	mkdir("/tmp/mnt", 0755);
	if (mount("none", "/tmp/mnt", "tmpfs", 0, NULL) == 0 || mount("/", "/tmp/mnt", NULL, MS_BIND, NULL) == 0 ||
	    mount("none", "/", NULL, MS_REMOUNT | MS_BIND, NULL) == 0 || mount("none", "/tmp/mnt", "proc", 0, NULL) == 0)
		escaped("mount");
	if (umount2("/", MNT_DETACH) == 0 || umount2("/proc", MNT_DETACH) == 0)
		escaped("umount2");
	if (syscall(SYS_pivot_root, "/tmp/mnt", "/tmp/mnt") == 0)
		escaped("pivot_root");
	if (syscall(428 /* open_tree */, AT_FDCWD, "/", 1 /* OPEN_TREE_CLONE */) >= 0)
		escaped("open_tree");
	if (syscall(430 /* fsopen */, "tmpfs", 0) >= 0 || syscall(433 /* fspick */, AT_FDCWD, "/", 0) >= 0)
		escaped("fsopen");
	if (syscall(429 /* move_mount */, AT_FDCWD, "/tmp", AT_FDCWD, "/tmp/mnt", 0) == 0)
		escaped("move_mount");
	char attributes[32] = { 0 };
	if (syscall(442 /* mount_setattr */, AT_FDCWD, "/", 0, attributes, sizeof attributes) == 0 && mediated)
		escaped("mount_setattr");
}

void surface(void)
{
	char zeroes[256] = { 0 };
	/* Programs fall back from this one only where it does not exist. */
	if (syscall(425 /* io_uring_setup */, 4, zeroes) >= 0 || errno != ENOSYS)
		escaped("io_uring_setup");
	/* EPERM, and not what the kernel thinks of the arguments: it did not get to see them. */
	if (syscall(SYS_bpf, 0, zeroes, sizeof zeroes) >= 0 || errno != EPERM)
		escaped("bpf");
	if (syscall(SYS_perf_event_open, zeroes, -1, -1, -1, 0) >= 0 || errno != EPERM)
		escaped("perf_event_open");
	if (syscall(SYS_userfaultfd, 1) >= 0 || errno != EPERM)
		escaped("userfaultfd");
	if (syscall(SYS_kexec_load, 0, 0, zeroes, 0) == 0 || syscall(SYS_init_module, zeroes, 16, "") == 0 ||
	    syscall(SYS_finit_module, 0, "", 0) == 0 || syscall(SYS_delete_module, "loop", O_NONBLOCK) == 0)
		escaped("another kernel, or a part of it");
	if (syscall(SYS_reboot, 0xfee1dead, 672274793, 0 /* CAD off */, 0) == 0)
		escaped("reboot");
	if (syscall(SYS_swapon, "/bin/busybox", 0) == 0 || syscall(SYS_acct, "/tmp/acct") == 0 || syscall(SYS_syslog, 5, 0, 0) == 0)
		escaped("what is the machine's administrator's");
	struct timespec time = { 0 };
	if (syscall(SYS_clock_settime, 0, &time) == 0)
		escaped("the clock");
	if (nice(-5) != -1)
		escaped("a better priority than the builder's");
	struct rlimit limit, more = { RLIM_INFINITY, RLIM_INFINITY };
	getrlimit(RLIMIT_MEMLOCK, &limit);
	if (limit.rlim_max != RLIM_INFINITY && setrlimit(RLIMIT_MEMLOCK, &more) == 0) {
		/* Emulated, perhaps: what counts is what the kernel then says. */
		getrlimit(RLIMIT_MEMLOCK, &limit);
		if (limit.rlim_max == RLIM_INFINITY)
			escaped("limits without limit");
	}
	if (sethostname("owned", 5) == 0 && mediated)
		escaped("the machine's name");
}

/* Requests of file systems that change a file without a trace, or make a second space of inode numbers in the tree.  EPERM, and not what
 * the file system of this machine thinks of it. */
void controls(void)
{
	static const struct {
		unsigned kind, number;
		const char *name;
	} requests[] = {
		{ 'f', 15, "EXT4_IOC_MOVE_EXT" }, { 'X', 109, "XFS_IOC_SWAPEXT" }, { 'X', 129, "XFS_IOC_EXCHANGE_RANGE" },
		{ 'X', 131, "XFS_IOC_COMMIT_RANGE" }, { 0xf5, 9, "F2FS_IOC_MOVE_RANGE" }, { 0x94, 1, "BTRFS_IOC_SNAP_CREATE" },
		{ 0x94, 14, "BTRFS_IOC_SUBVOL_CREATE" }, { 0x94, 23, "BTRFS_IOC_SNAP_CREATE_V2" },
		{ 0x94, 24, "BTRFS_IOC_SUBVOL_CREATE_V2" }, { 0xbc, 16, "BCH_IOCTL_SUBVOLUME_CREATE" },
	};
	char zeroes[4096] = { 0 };
	int file = open("/tmp/controlled", O_RDWR | O_CREAT, 0600);
	if (file < 0)
		escaped("no file, so nothing is known");
	for (size_t i = 0; i < sizeof requests / sizeof requests[0]; i++) {
		unsigned request = requests[i].kind << 8 | requests[i].number;
		/* The kernel looks at 32 bits, and at length and direction not before it has the type. */
		unsigned long ways[] = { request, request | 0xc0280000u, request | 0x50000000u, request | ~0xffffffffUL };
		for (size_t way = 0; way < sizeof ways / sizeof ways[0]; way++)
			if (syscall(SYS_ioctl, file, ways[way], zeroes) >= 0 || errno != EPERM)
				escaped("%s (%lx)", requests[i].name, ways[way]);
	}
	/* What cp(1) does is let be. */
	if (syscall(SYS_ioctl, file, 0x40049409 /* FICLONE */, file) < 0 && errno == EPERM)
		escaped("no files are cloned, which builds do");
	close(file);
	unlink("/tmp/controlled");
}

#if defined(__x86_64__)
static long narrow(long number, long a, const void *b, long c)
{
	long result;
	__asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c) : "memory", "r8", "r9", "r10", "r11");
	return result;
}
#endif

/* The calls of 32-bit programs have other numbers, and x32 programs have theirs: no filter for others holds for them. */
void narrow_calls(void)
{
#if defined(__x86_64__)
	char *low = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	long path = (long)low;
	if (low == MAP_FAILED) {
		escaped("no memory, so nothing is known");
		return;
	}
	strcpy(low, secret);
	if (is_secret((int)narrow(5 /* open */, path, NULL, 0)))
		escaped("open");
	strcpy(low, "/tmp");
	if (!may_chroot && narrow(61 /* chroot */, path, NULL, 0) == 0)
		escaped("chroot");
	if (narrow(310 /* unshare */, CLONE_NEWUSER, NULL, 0) == 0)
		escaped("unshare");
	/* connect by socketcall(2), whose arguments are in memory. */
	int client = (int)narrow(102, 1, memcpy(low, (int[]){ AF_UNIX, SOCK_STREAM, 0 }, 12), 0);
	struct sockaddr_un *address = memset(low + 64, 0, sizeof *address);
	address->sun_family = AF_UNIX;
	strncpy(address->sun_path, socket_path, sizeof address->sun_path - 1);
	if (client >= 0 && narrow(102, 3, memcpy(low, (int[]){ client, (int)(path + 64), sizeof *address }, 12), 0) == 0)
		escaped("a socket by socketcall");
	memset(low, 0, 256);
	const struct {
		int number, errno_wanted;
		const char *name;
	} refused[] = {
		{ 286, ENOSYS, "add_key" }, { 287, ENOSYS, "request_key" }, { 288, ENOSYS, "keyctl" }, { 425, ENOSYS, "io_uring_setup" },
		{ 336, EPERM, "perf_event_open" }, { 342, EPERM, "open_by_handle_at" }, { 357, EPERM, "bpf" }, { 374, EPERM, "userfaultfd" },
	};
	for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
		long result = narrow(refused[i].number, 0, low, 0);
		/* Where 32-bit calls are refused altogether, so are these. */
		if (result != -refused[i].errno_wanted && result != -ENOSYS && result != -EPERM)
			escaped("%s: %ld", refused[i].name, result);
	}
	if (is_secret((int)syscall(0x40000000 | SYS_open, secret, O_RDONLY)) || errno != ENOSYS)
		escaped("a call of x32 programs");
	if (syscall(0x40000000 | SYS_keyctl, 0, 0, 0) >= 0 || errno != ENOSYS)
		escaped("keyctl of x32 programs");
#endif
}

/* The builder's session keyring holds a key, which whoever has the session may read. */
void keys(void)
{
	static const char *const kinds[] = { "session", "user" };
	const int rings[] = { KEY_SPEC_SESSION_KEYRING, KEY_SPEC_USER_KEYRING };
	char value[64] = "";
	for (size_t i = 0; i < 2; i++) {
		long key = syscall(SYS_keyctl, KEYCTL_SEARCH, rings[i], "user", "of-the-builder", 0);
		if (key > 0 && syscall(SYS_keyctl, KEYCTL_READ, key, value, sizeof value) > 0)
			escaped("a key of the %s keyring: %s", kinds[i], value);
	}
	long key = syscall(SYS_request_key, "user", "of-the-builder", NULL, 0);
	if (key > 0 && syscall(SYS_keyctl, KEYCTL_READ, key, value, sizeof value) > 0)
		escaped("a key by request: %s", value);
	if (syscall(SYS_add_key, "user", "of-the-step", "x", 1, KEY_SPEC_SESSION_KEYRING) > 0)
		escaped("a key of the step's in the builder's session");
#if defined(__x86_64__)
	char *low = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	if (low == MAP_FAILED)
		return;
	strcpy(low, "user");
	strcpy(low + 16, "of-the-builder");
	long found = narrow(287 /* request_key */, (long)low, low + 16, 0);
	if (found > 0)
		escaped("a key by a 32-bit call");
#endif
}

static int install(unsigned action, int only)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)only, 0, only < 0 ? 0 : 1),
		BPF_STMT(BPF_RET | BPF_K, action),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { .len = 4, .filter = code };
	return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
}

/* A step may install filters (browsers do), they work, and they lift nothing. */
void own_filter(void)
{
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	if (install(SECCOMP_RET_ERRNO | ENOTTY, SYS_sysinfo) || syscall(SYS_sysinfo, NULL) != -1 || errno != ENOTTY)
		escaped("a filter of the step's own does not work: %s", strerror(errno));
	struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	struct sock_fprog everything = { .len = 1, .filter = &allow };
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &everything))
		escaped("no filter that allows everything, so nothing is known");
	/* Who answers is settled by the first listener. */
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 1UL << 3 /* NEW_LISTENER */, &everything) >= 0)
		escaped("a listener of the step's own");
	/* What a filter of its own would have a tracer decide: calls that ours leaves to the kernel, and those that it does not. */
	if (install(SECCOMP_RET_TRACE | 7, SYS_getppid) || install(SECCOMP_RET_TRACE | 7, SYS_execve))
		escaped("no filter that traces, so nothing is known");
	syscall(SYS_getppid);
	surface();
	namespaces();
	nested_chroot();
	paths();
	if (mediated)
		programs();
}
