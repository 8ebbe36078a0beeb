/* special WHAT PATH [ARGUMENT...]: makes in a step what busybox has no command for.
 *
 *   xattr PATH NAME HEX     sets an extended attribute
 *   time PATH SECONDS NANO  sets the time of the last change
 *   socket PATH             makes a socket
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/xattr.h>

static int set_xattr(char **arg)
{
	unsigned char value[256];
	size_t length = strlen(arg[2]) / 2;
	for (size_t i = 0; i < length && i < sizeof(value); i++)
		sscanf(arg[2] + 2 * i, "%2hhx", &value[i]);
	return setxattr(arg[0], arg[1], value, length, 0);
}

static int set_time(char **arg)
{
	struct timespec times[2] = { { 0, UTIME_OMIT }, { atol(arg[1]), atol(arg[2]) } };
	return utimensat(AT_FDCWD, arg[0], times, 0);
}

static int make_socket(char **arg)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	strncpy(address.sun_path, arg[0], sizeof(address.sun_path) - 1);
	return bind(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&address, sizeof(address));
}

int main(int argc, char **argv)
{
	int result = -1;
	if (argc == 5 && strcmp(argv[1], "xattr") == 0)
		result = set_xattr(argv + 2);
	if (argc == 5 && strcmp(argv[1], "time") == 0)
		result = set_time(argv + 2);
	if (argc == 3 && strcmp(argv[1], "socket") == 0)
		result = make_socket(argv + 2);
	if (result != 0)
		perror(argc > 2 ? argv[2] : "special");
	return result != 0;
}
