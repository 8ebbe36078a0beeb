/* mapped FILE...: stores into files through shared mappings until it is killed.  Into half of them before it says so, when their pages are
 * written to already; of the others it has the pages mapped by then, and has only read. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static volatile char *pages[256];
static size_t lengths[256];
static volatile char seen;

static void store(int file, char value)
{
	for (size_t at = 0; at < lengths[file]; at += 512)
		pages[file][at] = value;
}

int main(int count, char **argument)
{
	int files = 0;
	for (int i = 1; i < count && files < 256; i++) {
		struct stat stat;
		int fd = open(argument[i], O_RDWR);
		if (fd < 0 || fstat(fd, &stat)) {
			perror(argument[i]);
			return 2;
		}
		lengths[files] = (size_t)stat.st_size;
		void *mapped = mmap(NULL, lengths[files], PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (mapped == MAP_FAILED) {
			perror("mmap");
			return 2;
		}
		pages[files++] = mapped;
		close(fd);
	}
	for (int file = 0; file < files; file++)
		for (size_t at = 0; at < lengths[file]; at += 4096)
			seen = pages[file][at];
	for (int file = 0; file < files; file += 2)
		store(file, '!');
	printf("it stores\n");
	fflush(stdout);
	/* Far longer than the others need. */
	for (int round = 0; round < 60000; round++) {
		for (int file = files - 1; file >= 0; file--)
			store(file, (char)round);
		usleep(1000);
	}
	return 0;
}
