/* deny_mounts MODE PROGRAM [ARGUMENT...]: executes PROGRAM where the kernel refuses to change what is mounted.
 *
 * MODE is
 *   landlock        a Landlock domain (a real security module): it answers EPERM to every call that attaches, moves or
 *                   detaches a mount.  Files are not restricted at all.
 *   seccomp-eacces  a filter that answers EACCES (what AppArmor answers) to the whole family, detached mounts included.
 *   seccomp-kill    a filter that kills the process at the first such call, so that no attempt can be hidden.
 *   restricted      what a container of Kubernetes' profile `restricted` leaves to a process without capabilities, by the
 *                   container runtimes' default filter: EPERM for mounts, namespaces, chroot, the descriptors of other
 *                   processes, io_uring, bpf, keys; ENOSYS for clone3. For ordinary users: no capability is taken.
 *                   32-bit calls are left alone (the default filter knows them too), so that only Stepwell's own is there.
 *   docker          what docker leaves to root of a container by default: the same less chroot, fourteen capabilities,
 *                   privileges may be gained.
 *
 * It is written in C because no Rust outside the one crate that talks to the kernel may be unsafe.  Ends with 125 where
 * the denial cannot be made: a denial that is not there must never look like a success.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#else
#error "the architecture's number for seccomp is missing here"
#endif

/* Everything that makes, attaches, changes or detaches a mount. The newer ones have one number on all architectures. */
static const unsigned family[] = {
	SYS_mount, SYS_umount2, SYS_pivot_root,
	428 /* open_tree */, 429 /* move_mount */, 430 /* fsopen */, 431 /* fsconfig */,
	432 /* fsmount */, 433 /* fspick */, 442 /* mount_setattr */, 467 /* open_tree_attr */,
};
#define FAMILY (sizeof family / sizeof family[0])

static int deny_by_seccomp(unsigned action)
{
	struct sock_filter code[FAMILY + 6];
	size_t n = 0;
	code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
	/* Another architecture's numbers (32-bit programs) would be a way around. */
	code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCH, 1, 0);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	for (size_t i = 0; i < FAMILY; i++) {
		unsigned char to_denial = (unsigned char)(FAMILY - i); /* over the other comparisons and the permission */
		code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, family[i], to_denial, 0);
	}
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, action);
	struct sock_fprog program = { .len = (unsigned short)n, .filter = code };
	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

/* What that filter allows only with capabilities, or not at all, beside the family. */
static const unsigned restricted[] = {
	SYS_unshare, SYS_setns, SYS_chroot, SYS_pivot_root, SYS_bpf, SYS_perf_event_open, SYS_userfaultfd,
	SYS_add_key, SYS_request_key, SYS_keyctl, SYS_open_by_handle_at, SYS_fanotify_init, SYS_acct, SYS_quotactl,
	SYS_swapon, SYS_swapoff, SYS_reboot, SYS_vhangup, SYS_setdomainname, SYS_sethostname, SYS_syslog,
	438 /* pidfd_getfd */, 425 /* io_uring_setup */, 426 /* io_uring_enter */, 427 /* io_uring_register */,
};
#define RESTRICTED (sizeof restricted / sizeof restricted[0])

/* `except` is a call that is not denied. */
static int deny_as_restricted(unsigned except)
{
	/* CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET */
	const unsigned namespaces = 0x7e020000;
	struct sock_filter code[RESTRICTED * 2 + FAMILY * 2 + 16];
	size_t n = 0;
	code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
	code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCH, 1, 0);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	for (size_t i = 0; i < RESTRICTED + FAMILY; i++) {
		unsigned number = i < RESTRICTED ? restricted[i] : family[i - RESTRICTED];
		if (number == except)
			continue;
		code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1);
		code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
	}
	code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone3, 0, 1);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS);
	code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 3);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args));
	code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, namespaces, 0, 1);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	struct sock_fprog program = { .len = (unsigned short)n, .filter = code };
	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

/* Docker's fourteen. */
static const unsigned kept[] = {
	CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FSETID, CAP_FOWNER, CAP_MKNOD, CAP_NET_RAW, CAP_SETGID, CAP_SETUID, CAP_SETFCAP,
	CAP_SETPCAP, CAP_NET_BIND_SERVICE, CAP_SYS_CHROOT, CAP_KILL, CAP_AUDIT_WRITE,
};

static int deny_as_docker(void)
{
	__u64 set = 0;
	if (deny_as_restricted(SYS_chroot))
		return -1;
	for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++)
		set |= 1ULL << kept[i];
	for (unsigned i = 0; i <= CAP_LAST_CAP; i++)
		if (!(set >> i & 1) && prctl(PR_CAPBSET_DROP, i, 0, 0, 0) && errno != EINVAL)
			return -1;
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = {
		{ .effective = (__u32)set, .permitted = (__u32)set },
		{ .effective = (__u32)(set >> 32), .permitted = (__u32)(set >> 32) },
	};
	return (int)syscall(SYS_capset, &header, data);
}

/* A domain that handles any right to files makes the kernel refuse mounts. REFER has to be allowed again: it is denied
 * by every domain that does not, and renaming between directories would fail. */
static int deny_by_landlock(void)
{
	const __u64 rights = LANDLOCK_ACCESS_FS_REFER | LANDLOCK_ACCESS_FS_MAKE_BLOCK;
	struct landlock_ruleset_attr handled = { .handled_access_fs = rights };
	int ruleset = (int)syscall(SYS_landlock_create_ruleset, &handled, sizeof handled.handled_access_fs, 0);
	if (ruleset < 0)
		return -1;
	struct landlock_path_beneath_attr everywhere = {
		.allowed_access = rights,
		.parent_fd = open("/", O_PATH | O_CLOEXEC),
	};
	if (everywhere.parent_fd < 0 ||
	    syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &everywhere, 0))
		return -1;
	int result = (int)syscall(SYS_landlock_restrict_self, ruleset, 0);
	close(everywhere.parent_fd);
	close(ruleset);
	return result;
}

static int deny(const char *mode)
{
	if (!strcmp(mode, "landlock"))
		return deny_by_landlock();
	if (!strcmp(mode, "seccomp-eacces"))
		return deny_by_seccomp(SECCOMP_RET_ERRNO | EACCES);
	if (!strcmp(mode, "seccomp-kill"))
		return deny_by_seccomp(SECCOMP_RET_KILL_PROCESS);
	if (!strcmp(mode, "restricted"))
		return deny_as_restricted(~0U);
	if (!strcmp(mode, "docker"))
		return deny_as_docker();
	errno = EINVAL;
	return -1;
}

int main(int count, char **argument)
{
	if (count < 3) {
		fprintf(stderr, "usage: %s landlock|seccomp-eacces|seccomp-kill|restricted|docker PROGRAM [ARGUMENT...]\n", argument[0]);
		return 125;
	}
	int may_gain = !strcmp(argument[1], "docker"); /* and root needs no promise to install a filter */
	if ((!may_gain && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) || deny(argument[1])) {
		fprintf(stderr, "%s: the denial `%s` cannot be made: %s\n", argument[0], argument[1], strerror(errno));
		return 125;
	}
	execvp(argument[2], argument + 2);
	fprintf(stderr, "%s: `%s` cannot be executed: %s\n", argument[0], argument[2], strerror(errno));
	return 127;
}
