/* What the attacks share: the surroundings that the test tells of, and how success is told. */
#ifndef ATTACK_H
#define ATTACK_H

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* A directory of the machine, open to the step's user, that holds `secret`, `program`, `socket` and `mode`, and the paths of
 * those. */
extern char outside[1024], secret[2048], program[2048], socket_path[2048], datagram_path[2048], mode_file[2048];
/* Whether the tier is `mediated`. */
extern int mediated;
/* Whether chroot(2) is a step's right here. */
extern int may_chroot;
/* How many have been found. */
extern int escapes;
/* Processes of the machine, ended by 0. */
extern int strangers[8];

/* Tells of an attack that succeeded. */
void escaped(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Whether a descriptor, which is closed, is on the secret. */
int is_secret(int fd);
/* Whether a process belongs to the step: its session, or the first process of a namespace. */
int is_own(int pid);

void paths(void);
void grafts(void);
void nested_chroot(void);
void descriptors(void);
void passed_descriptors(void);
void proc_files(void);
void machine_files(void);
void environments(void);
void processes(void);
void all_processes(void);
void taken_descriptors(void);
void devices(void);
void terminals(void);
void namespaces(void);
void mounts(void);
void surface(void);
void narrow_calls(void);
void controls(void);
void keys(void);
void own_filter(void);
void sockets(void);
void programs(void);
void races(void);
void core(void);

#endif
