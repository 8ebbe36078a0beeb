/* Ways out by programs, and by exchanging what was looked at before it is used. */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <time.h>

#include "attack.h"

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
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

void programs(void)
{
	if (runs(program))
		escaped("a program");
	symlink(program, "/tmp/to-program");
	if (runs("/tmp/to-program"))
		escaped("a link to a program");
	script("/tmp/script", program);
	if (runs("/tmp/script"))
		escaped("an interpreter");
	script("/tmp/dots", "../../../../../../../../bin/true");
	script("/tmp/link", "/tmp/to-program");
	if (runs("/tmp/link"))
		escaped("a link to an interpreter");
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

static void race(double seconds)
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
		char value[8];
		if (chmod(flipped, 0777) == 0 && !mediated && stat(secret, &st) == 0)
			escaped("a path that was exchanged, its mode");
		if (getxattr(flipped, "user.of-the-machine", value, sizeof value) > 0)
			escaped("a path that was exchanged, an attribute");
		if (is_secret(open(flipped, O_RDONLY)))
			escaped("a path that was exchanged");
		if (stat(flipped, &st) == 0 && st.st_size == 21)
			escaped("a path that was exchanged, looked at");
		if (is_secret(open("/tmp/flip/secret", O_RDONLY)))
			escaped("a directory that was exchanged");
		/* A static program, so that nothing is done to it that one of the machine's would not stand. */
		int status = 0;
		pid_t child = clone(child_of_vfork, vfork_stack + 65000, CLONE_VM | CLONE_VFORK | SIGCHLD, "/attacks");
		waitpid(child, &status, 0);
		if (WIFEXITED(status) && WEXITSTATUS(status) == 99)
			escaped("the path of a program, exchanged");
	}
	/* Without them the race would not be one; elsewhere there is no such memory. */
	if (mediated && place_count == 0)
		escaped("the supervisor's memory was not found, so nothing is known");
	stop = 1;
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
}

void races(void)
{
	race(3);
}
