/* Ways out by sockets of the machine. */
#include <pthread.h>
#include <stdatomic.h>
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

/* One that would have to wait for room in a queue has got there, too. */
static int got_there(ssize_t sent)
{
	return sent > 0 || (sent < 0 && errno == EAGAIN);
}

static void sends(int fd, struct sockaddr_un *address, socklen_t length, const char *by)
{
	const int flags = MSG_NOSIGNAL | MSG_DONTWAIT;
	struct iovec part = { "x", 1 };
	struct mmsghdr one = { .msg_hdr = { .msg_name = address, .msg_namelen = length, .msg_iov = &part, .msg_iovlen = 1 } };
	if (got_there(sendto(fd, "x", 1, flags, (struct sockaddr *)address, length)))
		escaped("a message by %s", by);
	if (got_there(sendmsg(fd, &one.msg_hdr, flags)))
		escaped("a message with parts by %s", by);
	if (got_there(sendmmsg(fd, &one, 1, flags)))
		escaped("messages by %s", by);
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
		sends(fd, &address, length, is_abstract ? "the name" : "the path");
		close(fd);
	}
	/* The ends of a pair have peers, and send to others all the same. */
	int pair[2];
	if (socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == 0) {
		sends(pair[0], &address, length, "the path, from a pair");
		close(pair[0]);
		close(pair[1]);
	}
}

static struct sockaddr_un exchanged;
static atomic_int stop;

static void *flip_address(void *unused)
{
	(void)unused;
	struct sockaddr_un own, other;
	named(&own, "/tmp/own-datagram", 0);
	named(&other, datagram_path, 0);
	while (!stop) {
		memcpy(&exchanged, &own, sizeof own);
		/* The compiler would leave the first one out. */
		atomic_signal_fence(memory_order_seq_cst);
		memcpy(&exchanged, &other, sizeof other);
		atomic_signal_fence(memory_order_seq_cst);
	}
	return NULL;
}

/* A thread exchanges the name of a message while it is sent. */
static void race(void)
{
	enum { ROUNDS = 1000, MOST_ROUNDS = 50000 };
	struct sockaddr_un own;
	socklen_t length = named(&own, "/tmp/own-datagram", 0);
	int server = socket(AF_UNIX, SOCK_DGRAM, 0), client = socket(AF_UNIX, SOCK_DGRAM, 0), came = 0;
	struct iovec part = { "x", 1 };
	struct msghdr message = { .msg_name = &exchanged, .msg_namelen = length, .msg_iov = &part, .msg_iovlen = 1 };
	pthread_t thread;
	unlink("/tmp/own-datagram");
	if (server < 0 || client < 0 || bind(server, (struct sockaddr *)&own, length) || pthread_create(&thread, NULL, flip_address, NULL)) {
		escaped("a datagram socket of the step's own does not work: %s", strerror(errno));
		return;
	}
	for (int i = 0; i < ROUNDS || (came == 0 && i < MOST_ROUNDS); i++) {
		char byte;
		sendmsg(client, &message, MSG_DONTWAIT);
		sendto(client, "x", 1, MSG_DONTWAIT, (struct sockaddr *)&exchanged, length);
		while (recv(server, &byte, 1, MSG_DONTWAIT) == 1)
			came++;
	}
	if (came == 0)
		escaped("no message came, so nothing is known");
	stop = 1;
	pthread_join(thread, NULL);
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
	reach(datagram_path, 0);
	unlink("/tmp/to-socket");
	symlink(datagram_path, "/tmp/to-socket");
	reach("/tmp/to-socket", 0);
	race();
	/* A socket of its own works, so that what is refused is not all of them. */
	struct sockaddr_un own;
	socklen_t length = named(&own, "/tmp/own", 0);
	int listener = socket(AF_UNIX, SOCK_STREAM, 0), client = socket(AF_UNIX, SOCK_STREAM, 0);
	unlink("/tmp/own");
	if (bind(listener, (struct sockaddr *)&own, length) || listen(listener, 1) || connect(client, (struct sockaddr *)&own, length))
		escaped("a socket of the step's own does not work: %s", strerror(errno));
}
