/* What the programs here ask for, and say when it does not come. */
#ifndef NEED_H
#define NEED_H

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#define NEED(done) \
	do { \
		if (!(done)) { \
			printf("line %d: %s: %s\n", __LINE__, #done, strerror(errno)); \
			exit(1); \
		} \
	} while (0)

/* Waits until a process waits itself. */
static inline void wait_until_asleep(pid_t process)
{
	char path[64], text[256], *state;
	snprintf(path, sizeof path, "/proc/%d/stat", process);
	do {
		int fd = open(path, O_RDONLY);
		ssize_t length = read(fd, text, sizeof text - 1);
		close(fd);
		text[length > 0 ? length : 0] = 0;
		state = strrchr(text, ')');
	} while (state && state[2] != 'S');
}

#endif
