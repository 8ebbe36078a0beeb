/* churn SEED COUNT FILE: does COUNT things to files beneath TOP, the same ones for the same SEED, and writes to FILE what came of each.
 * Two file systems that start alike and are told apart by it are told apart by programs, too.
 *
 * Root does what it likes beneath TOP/root; the users 1000 and 5 work each in a directory of theirs, where nothing but
 * their own is, since what a user may not do is not kept from it where ids are emulated. */
#include <dirent.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/openat2.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#include "need.h"

/* So deep that no chain of `..` and links leads out of it. */
#define TOP "/churn/1/2/3/4/5/6"

#define COUNT_OF(list) (sizeof(list) / sizeof *(list))

static uint64_t state;

/* SplitMix64. */
static unsigned below(unsigned limit)
{
	uint64_t z = (state += 0x9e3779b97f4a7c15);
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return (unsigned)((z ^ (z >> 31)) % limit);
}

#define ONE_OF(list) ((list)[below(COUNT_OF(list))])

static const char *const names[] = { "a", "b", "c", "d", "lib", "dev", "proc", "mail" };
/* The first half leads nowhere else. */
static const char *const targets[] = { "a", "c/d", ".", "lib/dev", "nothing", "mail/", "../b", "..", TOP "/root/a", TOP "/root/lib/mail", "/etc/nothing", "../../root/c" };
static const mode_t modes[] = { 0755, 0700, 04755, 02775, 01777, 0744, 06711 };
static const int ids[] = { 0, 5, 1000, 70, -1 };

/* Whether root does it. */
static int is_root = 1;

static void said(const char *what, long result, const char *form, ...)
{
	int error = errno;
	va_list list;
	va_start(list, form);
	printf("%s ", what);
	vprintf(form, list);
	va_end(list);
	if (result < 0)
		printf(": %s\n", strerrorname_np(error));
	else
		printf(": %ld\n", result);
}

/* A path of one to three names, sometimes with `..` or a slash at its end, relative to the working directory or absolute. */
static const char *path(void)
{
	static char texts[4][256];
	static unsigned next;
	char *text = texts[next++ % 4];
	unsigned count = 1 + below(3), up = is_root ? below(24) : 9;
	strcpy(text, below(4) ? "" : is_root ? TOP "/root/" : "./");
	for (unsigned i = 0; i < count; i++) {
		strcat(text, i == up && i + 1 < count ? ".." : ONE_OF(names));
		if (i + 1 < count || below(6) == 0)
			strcat(text, "/");
	}
	return text;
}

/* What a relative path starts from: mostly the working directory. */
static int base(void)
{
	static int directory = -1;
	if (below(4))
		return AT_FDCWD;
	if (directory >= 0)
		close(directory);
	directory = open(ONE_OF(names), O_DIRECTORY | (below(2) ? O_PATH : O_RDONLY));
	return directory < 0 ? AT_FDCWD : directory;
}

static void show(const char *what, const char *name, int result, const struct stat *st)
{
	if (result < 0)
		return said(what, result, "%s", name);
	printf("%s %s: %o %u:%u %u", what, name, st->st_mode, st->st_uid, st->st_gid, (unsigned)st->st_nlink);
	if (S_ISREG(st->st_mode) || S_ISLNK(st->st_mode))
		printf(" %ld", (long)st->st_size);
	printf("\n");
}

static void look(void)
{
	struct stat st;
	struct statx stx;
	const char *name = path();
	struct statfs fs;
	int directory;
	switch (below(8)) {
	case 0:
		return show("stat", name, stat(name, &st), &st);
	case 1:
		return show("lstat", name, lstat(name, &st), &st);
	case 2:
		directory = open(ONE_OF(names), O_PATH | O_DIRECTORY);
		show("fstatat", name, fstatat(directory, name, &st, below(2) ? AT_SYMLINK_NOFOLLOW : 0), &st);
		close(directory);
		return;
	case 3:
		if (statx(AT_FDCWD, name, below(2) ? AT_SYMLINK_NOFOLLOW : 0, STATX_BASIC_STATS, &stx) < 0)
			return said("statx", -1, "%s", name);
		printf("statx %s: %o %u:%u %u\n", name, stx.stx_mode, stx.stx_uid, stx.stx_gid, stx.stx_nlink);
		return;
	case 4: {
		static const unsigned ways[] = { 0, RESOLVE_BENEATH, RESOLVE_IN_ROOT, RESOLVE_NO_SYMLINKS, RESOLVE_NO_MAGICLINKS };
		struct open_how how = { .flags = below(2) ? O_RDONLY | O_NONBLOCK | O_NOFOLLOW : O_RDONLY | O_NONBLOCK, .resolve = ONE_OF(ways) };
		directory = (int)syscall(SYS_openat2, base(), name, &how, sizeof how);
		said("openat2", directory < 0 ? -1 : 0, "%s %lx %lx", name, (long)how.flags, (long)how.resolve);
		show("fstat", name, fstat(directory, &st), &st);
		close(directory);
		return;
	}
	case 5: {
		static const int flags[] = { 0, AT_EACCESS, AT_SYMLINK_NOFOLLOW };
		int flag = ONE_OF(flags), mode = (int)below(8);
		return said("faccessat2", syscall(SYS_faccessat2, base(), name, mode, flag), "%s %d %x", name, mode, flag);
	}
	case 6:
		return said("statfs", statfs(name, &fs), "%s", name);
	default:
		directory = open(name, O_RDONLY | O_NONBLOCK);
		show("fstat", name, fstat(directory, &st), &st);
		close(directory);
	}
}

static void make(void)
{
	const char *name = path(), *other = path(), *target = targets[below(COUNT_OF(targets) / (is_root ? 1 : 2))];
	static const int ways[] = { O_EXCL, O_TRUNC, O_EXCL | O_TRUNC };
	mode_t mode = ONE_OF(modes);
	struct stat st;
	int file;
	switch (below(8)) {
	case 0:
	case 1:
		return said("mkdir", mkdirat(base(), name, mode), "%s %o", name, mode);
	case 2:
	case 3:
		file = openat(base(), name, O_CREAT | O_WRONLY | O_NONBLOCK | ONE_OF(ways), mode);
		said("open", file < 0 ? -1 : 0, "%s %o", name, mode);
		if (file < 0)
			return;
		show("made", name, fstat(file, &st), &st);
		if (S_ISREG(st.st_mode) && fgetxattr(file, "security.capability", NULL, 0) < 0)
			said("write", write(file, name, strlen(name)), "%s", name);
		close(file);
		return;
	case 4:
		return said("symlink", below(2) ? symlink(target, name) : symlinkat(target, base(), name), "%s %s", target, name);
	case 5:
		return said("link", linkat(base(), name, AT_FDCWD, other, below(2) ? AT_SYMLINK_FOLLOW : 0), "%s %s", name, other);
	case 6:
		return said("mkfifo", mkfifoat(base(), name, mode), "%s %o", name, mode);
	default:
		file = openat(base(), ".", O_TMPFILE | O_RDWR, mode);
		said("unnamed", file < 0 ? -1 : 0, "%o", mode);
		char own[64];
		snprintf(own, sizeof own, "/proc/self/fd/%d", file);
		said("name", linkat(AT_FDCWD, own, base(), other, AT_SYMLINK_FOLLOW), "%s", other);
		close(file);
	}
}

static void change(void)
{
	/* Version 2 of a file capability: net_bind_service, effective. */
	static const unsigned char capability[20] = { 1, 0, 0, 2, 0, 4 };
	const char *name = path(), *other = path();
	mode_t mode = ONE_OF(modes);
	int uid = is_root ? ONE_OF(ids) : -1, gid = is_root ? ONE_OF(ids) : (int)getgid();
	char value[64], list[256];
	struct stat st;
	int file;
	switch (below(18)) {
	case 14:
		return said("utimensat", utimensat(base(), name, NULL, below(2) ? AT_SYMLINK_NOFOLLOW : 0), "%s", name);
	case 15:
		return said("lsetxattr", lsetxattr(name, "user.y", name, strlen(name), (int)below(3)), "%s", name);
	case 16:
		return said("lgetxattr", lgetxattr(name, below(2) ? "user.y" : "security.capability", value, sizeof value), "%s", name);
	case 17:
		return said("fchmodat2", syscall(452, base(), name, mode, below(2) ? AT_SYMLINK_NOFOLLOW : 0), "%s %o", name, mode);
	case 0:
	case 1:
		return said("rename", below(2) ? rename(name, other) : renameat(AT_FDCWD, name, base(), other), "%s %s", name, other);
	case 2: {
		unsigned how = below(2) ? 1 /* RENAME_NOREPLACE */ : 2 /* RENAME_EXCHANGE */;
		return said("renameat2", syscall(SYS_renameat2, AT_FDCWD, name, AT_FDCWD, other, how), "%s %s %u", name, other, how);
	}
	case 3:
		return said("chown", chown(name, (uid_t)uid, (gid_t)gid), "%s %d:%d", name, uid, gid);
	case 4:
		return said("lchown", fchownat(base(), name, (uid_t)uid, (gid_t)gid, AT_SYMLINK_NOFOLLOW), "%s %d:%d", name, uid, gid);
	case 5:
		file = open(name, O_RDONLY | O_NONBLOCK);
		said("fchown", fchown(file, (uid_t)uid, (gid_t)gid), "%s %d:%d", name, uid, gid);
		close(file);
		return;
	case 6:
		return said("chmod", fchmodat(base(), name, mode, 0), "%s %o", name, mode);
	case 7:
		return said("unlink", unlinkat(base(), name, 0), "%s", name);
	case 8:
		return said("rmdir", below(2) ? rmdir(name) : unlinkat(base(), name, AT_REMOVEDIR), "%s", name);
	case 9:
		if (!is_root || lstat(name, &st) < 0 || !S_ISREG(st.st_mode))
			return;
		return said("setcap", setxattr(name, "security.capability", capability, sizeof capability, 0), "%s", name);
	case 10:
		return said("setxattr", setxattr(name, "user.x", name, strlen(name), 0), "%s", name);
	case 11: {
		const char *attribute = below(2) ? "security.capability" : "user.x";
		return said("getxattr", getxattr(name, attribute, value, sizeof value), "%s %s", name, attribute);
	}
	case 12:
		return said("listxattr", listxattr(name, list, sizeof list), "%s", name);
	default:
		/* Where owners are emulated, capabilities go only when a file is opened to be written anew. */
		if (getxattr(name, "security.capability", value, sizeof value) > 0)
			return;
		return said("truncate", truncate(name, below(40)), "%s", name);
	}
}

static void read_link(void)
{
	char text[512];
	const char *name = path();
	ssize_t length = readlinkat(base(), name, text, sizeof text - 1);
	text[length < 0 ? 0 : length] = 0;
	said("readlink", length, "%s %s", name, text);
}

/* Goes somewhere else, and comes back. */
static void wander(void)
{
	char text[512];
	const char *name = path(), *there = ONE_OF(names);
	int back = open(".", O_PATH | O_DIRECTORY);
	said("chdir", chdir(name), "%s", name);
	said("getcwd", getcwd(text, sizeof text) ? 0 : -1, "%s", text);
	said("access", access(there, (int)below(8)), "%s", there);
	look();
	NEED(fchdir(back) == 0 && close(back) == 0);
}

static void many(unsigned count)
{
	static void (*const all[])(void) = { look, look, look, make, make, make, change, change, change, read_link, wander };
	while (count-- > 0)
		ONE_OF(all)();
}

/* Everything beneath the working directory, as it is now. */
static void list(const char *directory)
{
	struct dirent **entries;
	int count = scandir(directory, &entries, NULL, alphasort);
	for (int i = 0; i < count; i++) {
		char name[4096];
		struct stat st;
		const char *own = entries[i]->d_name;
		if (!strcmp(own, ".") || !strcmp(own, ".."))
			continue;
		snprintf(name, sizeof name, "%s/%s", directory, own);
		show("is", name, lstat(name, &st), &st);
		if (S_ISDIR(st.st_mode))
			list(name);
	}
}

static void as_user(uid_t user, unsigned count)
{
	char home[64];
	snprintf(home, sizeof home, "../%u", user);
	mkdir(home, 0755);
	NEED(chown(home, user, user) == 0);
	fflush(stdout);
	uint64_t seed = below(1000000);
	pid_t child = fork();
	if (child == 0) {
		gid_t groups[] = { user, 50 };
		NEED(chdir(home) == 0 && setgroups(2, groups) == 0 && setgid(user) == 0 && setuid(user) == 0);
		umask(below(2) ? 022 : 027);
		is_root = 0;
		state = seed;
		many(count);
		list(".");
		fflush(stdout);
		_exit(0);
	}
	int status;
	NEED(child > 0 && waitpid(child, &status, 0) == child && status == 0);
}

static void whoami(void)
{
	uid_t real, effective, saved;
	gid_t groups[8];
	NEED(getresuid(&real, &effective, &saved) == 0);
	printf("  uids %u %u %u %d", real, effective, saved, setfsuid((uid_t)-1));
	NEED(getresgid(&real, &effective, &saved) == 0);
	printf(", gids %u %u %u %d, groups", real, effective, saved, setfsgid((gid_t)-1));
	for (int i = 0, count = getgroups(8, groups); i < count; i++)
		printf(" %u", groups[i]);
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct sets[2];
	NEED(syscall(SYS_capget, &header, sets) == 0);
	/* Which capabilities root has depends on the tier. */
	printf(", may %d %d, keeps %d\n", sets[0].effective >> CAP_SETUID & 1, sets[0].permitted >> CAP_SETUID & 1, prctl(PR_GET_KEEPCAPS));
}

static void become(void)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct sets[2];
	int a = ONE_OF(ids), b = ONE_OF(ids), c = ONE_OF(ids);
	gid_t groups[] = { 5, 70, 1000 };
	switch (below(14)) {
	case 0:
		return said("setuid", setuid((uid_t)a), "%d", a);
	case 1:
		return said("setgid", setgid((gid_t)a), "%d", a);
	case 2:
		return said("setreuid", setreuid((uid_t)a, (uid_t)b), "%d %d", a, b);
	case 3:
		return said("setregid", setregid((gid_t)a, (gid_t)b), "%d %d", a, b);
	case 4:
	case 5:
		return said("setresuid", setresuid((uid_t)a, (uid_t)b, (uid_t)c), "%d %d %d", a, b, c);
	case 6:
	case 7:
		return said("setresgid", setresgid((gid_t)a, (gid_t)b, (gid_t)c), "%d %d %d", a, b, c);
	case 8:
		return said("setfsuid", setfsuid((uid_t)a), "%d", a);
	case 9:
		return said("setfsgid", setfsgid((gid_t)a), "%d", a);
	case 10:
		return said("setgroups", setgroups(below(4), groups), "%s", "");
	case 11:
		a = (int)below(2);
		return said("keepcaps", prctl(PR_SET_KEEPCAPS, a), "%d", a);
	case 12:
		NEED(syscall(SYS_capget, &header, sets) == 0);
		a = (int)below(3);
		for (int i = 0; i < 2; i++)
			if (a == 0)
				sets[i].effective = 0;
			else if (a == 1)
				sets[i].effective = sets[i].permitted;
			else
				sets[i].effective = sets[i].permitted = sets[i].inheritable = 0;
		return said("capset", syscall(SYS_capset, &header, sets), "%d", a);
	default: {
		/* What is made belongs to whoever is thought to be here. */
		struct stat st;
		int file = open("/tmp-of-churn/x", O_CREAT | O_EXCL | O_WRONLY, 0600);
		show("x", "", fstat(file, &st), &st);
		close(file);
		unlink("/tmp-of-churn/x");
	}
	}
}

static void as_many(unsigned count)
{
	mkdir("/tmp-of-churn", 0777);
	chmod("/tmp-of-churn", 0777);
	fflush(stdout);
	uint64_t seed = below(1000000);
	pid_t child = fork();
	if (child == 0) {
		state = seed;
		while (count-- > 0) {
			become();
			whoami();
		}
		fflush(stdout);
		_exit(0);
	}
	int status;
	NEED(child > 0 && waitpid(child, &status, 0) == child && status == 0);
}

int main(int count, char **argument)
{
	if (count != 4)
		return 2;
	NEED(freopen(argument[3], "w", stdout));
	state = strtoull(argument[1], NULL, 10);
	char parent[] = TOP "/root/";
	for (char *slash = parent; (slash = strchr(slash + 1, '/')) != NULL; *slash = '/') {
		*slash = 0;
		mkdir(parent, 0755);
	}
	NEED(chdir(TOP "/root") == 0);
	unsigned rounds = (unsigned)atoi(argument[2]) / 50;
	for (unsigned round = 0; round < rounds; round++) {
		many(30);
		as_user(round % 2 ? 1000 : 5, 20);
		as_many(10);
	}
	list("..");
	return 0;
}
