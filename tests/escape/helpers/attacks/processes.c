/* Ways to other processes: signals, tracing, memory, descriptors, limits. */
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/uio.h>

#include "attack.h"

static void reach(int pid)
{
	char buffer[16];
	struct iovec local = { buffer, sizeof buffer }, remote = { (void *)(uintptr_t)0x400000, sizeof buffer };
	struct rlimit limit = { 0, 0 };
	if (kill(pid, SIGKILL) == 0 || syscall(SYS_tgkill, pid, pid, SIGKILL) == 0 || syscall(SYS_tkill, pid, SIGKILL) == 0)
		escaped("a signal to %d", pid);
	if (kill(-pid, SIGKILL) == 0)
		escaped("a signal to the group %d", pid);
	siginfo_t info = { .si_code = SI_QUEUE };
	if (syscall(SYS_rt_sigqueueinfo, pid, SIGTERM, &info) == 0)
		escaped("a queued signal to %d", pid);
	int handle = (int)syscall(SYS_pidfd_open, pid, 0);
	if (handle >= 0 && syscall(SYS_pidfd_send_signal, handle, SIGKILL, NULL, 0) == 0)
		escaped("a signal to %d by a handle", pid);
	if (ptrace(PTRACE_SEIZE, pid, 0, 0) == 0 || ptrace(PTRACE_ATTACH, pid, 0, 0) == 0)
		escaped("tracing %d", pid);
	if (process_vm_readv(pid, &local, 1, &remote, 1, 0) > 0 || process_vm_writev(pid, &local, 1, &remote, 1, 0) > 0)
		escaped("memory of %d", pid);
	/* The address may be nothing there: whoever may look at all gets EFAULT. */
	if (process_vm_readv(pid, &local, 1, &remote, 1, 0) < 0 && errno == EFAULT)
		escaped("memory of %d could be looked at", pid);
	if (prlimit(pid, RLIMIT_NOFILE, &limit, NULL) == 0)
		escaped("limits of %d", pid);
	if (setpriority(PRIO_PROCESS, (id_t)pid, 19) == 0)
		escaped("priority of %d", pid);
	cpu_set_t cpus;
	CPU_ZERO(&cpus);
	CPU_SET(0, &cpus);
	if (sched_setaffinity(pid, sizeof cpus, &cpus) == 0)
		escaped("processors of %d", pid);
}

void processes(void)
{
	for (int i = 0; strangers[i]; i++)
		reach(strangers[i]);
	/* The first process of a namespace holds the step and is the builder's; a signal that it does not wait for never
	 * arrives, whatever kill(2) says. */
	char buffer[16];
	struct iovec local = { buffer, sizeof buffer }, remote = { (void *)(uintptr_t)0x400000, sizeof buffer };
	if (getppid() != 1 && getpid() != 1) {
		if (ptrace(PTRACE_SEIZE, 1, 0, 0) == 0)
			escaped("tracing process 1");
		if (process_vm_writev(1, &local, 1, &remote, 1, 0) > 0 || errno == EFAULT)
			escaped("memory of process 1");
	}
}

/* Nobody is in reach but the step's own: all numbers are tried. */
void all_processes(void)
{
	for (int pid = 1; pid < 33000; pid++)
		if (kill(pid, 0) == 0 && !is_own(pid))
			escaped("process %d can be signalled", pid);
}

/* pidfd_getfd(2) takes descriptors out of whoever could be traced. */
void taken_descriptors(void)
{
	int pids[16] = { 1, getppid() }, count = 2;
	for (int i = 0; strangers[i]; i++)
		pids[count++] = strangers[i];
	for (int i = 0; i < count; i++) {
		int handle = pids[i] != 1 && is_own(pids[i]) ? -1 : (int)syscall(SYS_pidfd_open, pids[i], 0);
		for (int fd = 0; handle >= 0 && fd < 64; fd++)
			if (syscall(SYS_pidfd_getfd, handle, fd, 0) >= 0)
				escaped("descriptor %d of %d", fd, pids[i]);
	}
}
