/* Ways out by sockets of the machine. */
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "attack.h"

/* The length that the kernel is told: a name without a path begins with a zero and has no end. */
static socklen_t named(struct sockaddr_un *address, const char *name, int is_abstract)
{
	memset(address, 0, sizeof *address);
	address->sun_family = AF_UNIX;
	snprintf(address->sun_path + is_abstract, sizeof address->sun_path - 1, "%s", name);
	return is_abstract ? (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name)) : sizeof *address;
}

static void reach(const char *name, int is_abstract)
{
	struct sockaddr_un address;
	socklen_t length = named(&address, name, is_abstract);
	const int kinds[] = { SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET };
	for (size_t i = 0; i < 3; i++) {
		int fd = socket(AF_UNIX, kinds[i], 0);
		if (fd < 0)
			continue;
		if (connect(fd, (struct sockaddr *)&address, length) == 0)
			escaped("a socket by %s %s", is_abstract ? "the name" : "the path", name);
		if (sendto(fd, "x", 1, 0, (struct sockaddr *)&address, length) >= 0)
			escaped("a message by %s %s", is_abstract ? "the name" : "the path", name);
		close(fd);
	}
}

void sockets(void)
{
	static char relative[4096], name[4096];
	reach(socket_path, 0);
	snprintf(relative, sizeof relative, "../../../../../..%s", socket_path);
	reach(relative, 0);
	symlink(socket_path, "/tmp/to-socket");
	reach("/tmp/to-socket", 0);
	/* Bound without a path by the test: its directory's name, one stream, one datagram. */
	snprintf(name, sizeof name, "stepwell%s", outside);
	reach(name, 1);
	int pair[2];
	if (mediated && socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == 0)
		escaped("a socket whose messages carry paths");
	/* A socket of its own works, so that what is refused is not all of them. */
	struct sockaddr_un own;
	socklen_t length = named(&own, "/tmp/own", 0);
	int listener = socket(AF_UNIX, SOCK_STREAM, 0), client = socket(AF_UNIX, SOCK_STREAM, 0);
	unlink("/tmp/own");
	if (bind(listener, (struct sockaddr *)&own, length) || listen(listener, 1) || connect(client, (struct sockaddr *)&own, length))
		escaped("a socket of the step's own does not work: %s", strerror(errno));
}
