/* attacks NAME: run in a RUN step, tries one way out of it.  Prints a line `ESCAPED: …` for each that is open, and ends with
 * 1 if there is one, with 0 if there is none, with 2 where it could not be tried.
 *
 * The surroundings come in the environment: OUTSIDE, TIER, STRANGERS, CHROOT.  Each attack is a function in a file of its theme;
 * the rows that say what each is about are in src/table.rs.
 */
#include <stdarg.h>

#include "attack.h"

char outside[1024], secret[2048], program[2048], socket_path[2048], datagram_path[2048], mode_file[2048];
int mediated, may_chroot, strangers[8], escapes;

static const struct {
	const char *name;
	void (*attack)(void);
} attacks[] = {
	{ "paths", paths }, { "grafts", grafts }, { "nested_chroot", nested_chroot }, { "descriptors", descriptors },
	{ "passed_descriptors", passed_descriptors }, { "proc_files", proc_files }, { "machine_files", machine_files },
	{ "environments", environments }, { "processes", processes }, { "all_processes", all_processes },
	{ "taken_descriptors", taken_descriptors }, { "devices", devices }, { "terminals", terminals },
	{ "namespaces", namespaces }, { "mounts", mounts }, { "surface", surface }, { "narrow_calls", narrow_calls },
	{ "controls", controls }, { "keys", keys }, { "own_filter", own_filter }, { "sockets", sockets }, { "programs", programs },
	{ "races", races }, { "core", core },
};

void escaped(const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	printf("ESCAPED: ");
	vprintf(format, arguments);
	printf("\n");
	va_end(arguments);
	escapes++;
}

int is_secret(int fd)
{
	char text[64] = "";
	if (fd < 0)
		return 0;
	ssize_t length = pread(fd, text, sizeof text - 1, 0);
	close(fd);
	return length > 0 && strstr(text, "machine's secret");
}

int is_own(int pid)
{
	return getsid(pid) == getsid(0) || (pid == 1 && getsid(1) == 0);
}

static const char *required(const char *name)
{
	const char *value = getenv(name);
	if (!value) {
		printf("%s is not set\n", name);
		exit(2);
	}
	return value;
}

int main(int count, char **argument)
{
	/* An attack may execute this program, and means nothing by it. */
	if (count != 2)
		return 2;
	setvbuf(stdout, NULL, _IONBF, 0);
	snprintf(outside, sizeof outside, "%s", required("OUTSIDE"));
	snprintf(secret, sizeof secret, "%s/secret", outside);
	snprintf(program, sizeof program, "%s/program", outside);
	snprintf(socket_path, sizeof socket_path, "%s/socket", outside);
	snprintf(datagram_path, sizeof datagram_path, "%s/datagram", outside);
	snprintf(mode_file, sizeof mode_file, "%s/mode", outside);
	mediated = !strcmp(required("TIER"), "mediated");
	may_chroot = !strcmp(required("CHROOT"), "allowed");
	char *next = strdup(required("STRANGERS"));
	for (int i = 0; i < 7 && next && *next; i++)
		strangers[i] = (int)strtol(next, &next, 10);
	for (size_t i = 0; i < sizeof attacks / sizeof attacks[0]; i++)
		if (!strcmp(argument[1], attacks[i].name)) {
			attacks[i].attack();
			return escapes != 0;
		}
	printf("no such attack\n");
	return 2;
}
