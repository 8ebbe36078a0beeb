#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    const char *greeting = getenv("GREETING");
    printf("hello from uid %d: %s, %s\n", (int)getuid(), argc > 1 ? argv[1] : "world", greeting ? greeting : "");
    return 0;
}
