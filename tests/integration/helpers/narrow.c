/* A 32-bit program without any library: writes a line and ends with 0. */
static long call(long number, long a, const void *b, long c)
{
	long result;
	__asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c) : "memory");
	return result;
}

void _start(void)
{
	static const char line[] = "32 bits work\n";
	call(4 /* write */, 1, line, sizeof line - 1);
	call(1 /* exit */, 0, 0, 0);
	for (;;)
		;
}
