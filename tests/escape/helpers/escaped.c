/* A program of the machine's: whoever executes it has left the tree. It leaves a trace beside itself. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(void)
{
	char path[4096];
	ssize_t length = readlink("/proc/self/exe", path, sizeof path - 16);
	if (length > 0) {
		path[length] = 0;
		char *slash = strrchr(path, '/');
		if (slash) {
			strcpy(slash + 1, "executed");
			close(open(path, O_CREAT | O_WRONLY, 0644));
		}
	}
	puts("ESCAPED: a program of the machine runs");
	return 99;
}
