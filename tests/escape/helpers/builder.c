/* builder SECRET PROGRAM [ARGUMENT...]: executes PROGRAM as a careless user would: with a key in its session keyring, on a
 * terminal of its own, with descriptors of `/` (7) and of SECRET (8) that nobody closes.  Passes on what the terminal gets,
 * and the status.  Ends with 125 where it cannot: surroundings that are not there must never look like a success.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void need(int done, const char *what)
{
	if (!done) {
		fprintf(stderr, "builder: %s: %s\n", what, strerror(errno));
		exit(125);
	}
}

int main(int count, char **argument)
{
	char buffer[4096];
	int status;
	ssize_t length;
	need(count > 2, "arguments");
	need(syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) > 0, "a session keyring");
	long key = syscall(SYS_add_key, "user", "of-the-builder", "hush", 4, KEY_SPEC_SESSION_KEYRING);
	need(key > 0, "a key");
	/* Whoever possesses the session may search, read and link, whatever their ids are. */
	need(syscall(SYS_keyctl, KEYCTL_SETPERM, key, 0x3f3f3f3f) == 0, "rights of the key");
	need(dup2(open("/", O_RDONLY | O_DIRECTORY), 7) == 7 && dup2(open(argument[1], O_RDONLY), 8) == 8, "descriptors");
	int terminal = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	need(terminal >= 0 && grantpt(terminal) == 0 && unlockpt(terminal) == 0, "a terminal");
	/* Of whom the secret is: the user who builds, as a login would have it. */
	struct stat owner;
	need(fstat(8, &owner) == 0 && chown(ptsname(terminal), owner.st_uid, owner.st_gid) == 0, "the terminal's owner");
	pid_t child = fork();
	need(child >= 0, "fork");
	if (child == 0) {
		setsid();
		int side = open(ptsname(terminal), O_RDWR);
		need(side >= 0 && ioctl(side, TIOCSCTTY, 0) == 0, "the terminal's other side");
		for (int fd = 0; fd < 3; fd++)
			dup2(side, fd);
		if (side > 8)
			close(side);
		execvp(argument[2], argument + 2);
		need(0, argument[2]);
	}
	/* EIO when the last of the other side is gone. */
	while ((length = read(terminal, buffer, sizeof buffer)) > 0)
		need(write(1, buffer, (size_t)length) == length, "output");
	waitpid(child, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
