/*
 * A stand-in for aifb-agent. `prepare` and `launch` do what the variables TEST_PREPARE and
 * TEST_LAUNCH say, after they have written all that a program can know of its surroundings to
 * the file that TEST_SEEN names.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

extern char **environ;

static void write_seen(int argc, char **argv)
{
    char path[4096], link[64], target[4096], line[4096];
    snprintf(path, sizeof(path), "%s.%s", getenv("TEST_SEEN"), argc > 1 ? argv[1] : "");
    /* Look before a file is opened. */
    int open_ones[1024], count = 0;
    for (int fd = 0; fd < 1024; fd++)
        if (fcntl(fd, F_GETFD) != -1)
            open_ones[count++] = fd;
    char *unfinished;
    if (asprintf(&unfinished, "%s.new", path) < 0)
        exit(97);
    FILE *seen = fopen(unfinished, "w");
    for (int i = 1; i < argc; i++)
        fprintf(seen, "arg %s\n", argv[i]);
    for (int i = 0; i < count; i++) {
        snprintf(link, sizeof(link), "/proc/self/fd/%d", open_ones[i]);
        ssize_t len = readlink(link, target, sizeof(target) - 1);
        target[len > 0 ? len : 0] = 0;
        char *end = strchr(target, ':'); /* pipe:[123] becomes pipe */
        if (end)
            *end = 0;
        fprintf(seen, "fd %d %s\n", open_ones[i], target);
    }
    FILE *status = fopen("/proc/self/status", "r");
    while (fgets(line, sizeof(line), status))
        if (!strncmp(line, "Sig", 3))
            fprintf(seen, "%.6s %s", line, strchr(line, '\t') + 1);
    fclose(status);
    fprintf(seen, "session %s\n", getsid(0) == getpid() ? "own" : "host's");
    fprintf(seen, "folder %s\n", getcwd(target, sizeof(target)));
    for (char **entry = environ; *entry; entry++)
        fprintf(seen, "env %s\n", *entry);
    fclose(seen);
    rename(unfinished, path);
}

static void put(const char *record)
{
    if (write(3, record, strlen(record) + 1) < 0)
        exit(96);
}

static int prepare(const char *mode)
{
    if (!strcmp(mode, "refuse")) {
        fputs("launcher: recipe.yaml:3:5: unknown key 'servces'\n", stderr);
        return 2;
    }
    if (!strcmp(mode, "hang"))
        sleep(1000);
    if (!strcmp(mode, "hang-closed")) {
        close(1);
        sleep(1000);
    }
    if (!strcmp(mode, "code"))
        return 41;
    if (!strcmp(mode, "signal"))
        abort();
    if (!strcmp(mode, "silent"))
        return 0;
    if (!strcmp(mode, "lines"))
        return puts("one\ntwo") < 0;
    if (!strcmp(mode, "endless"))
        for (;;)
            puts("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
    if (!strcmp(mode, "long")) { /* has ended by the time that the last of it is read */
        for (int i = 0; i < 66000; i++)
            putchar('a');
        return 41;
    }
    return puts("snapshot-1") < 0;
}

static int launch(const char *mode)
{
    put("AIFB_RUN_ID=c-77");
    put("AIFB_RUN_DIR=/runs/c-77");
    put("PATH=/ours:/usr/bin");
    if (!strcmp(mode, "failed"))
        put("FAILED 4 service 'llm' failed: exit 1\n  its last words\nhint: look");
    else if (!strcmp(mode, "die"))
        return 1;
    else if (!strcmp(mode, "nonsense"))
        put("what?");
    else if (!strcmp(mode, "hang")) {
        struct pollfd status = {.fd = 3};
        poll(&status, 1, -1); /* until nobody listens any more */
        return 0;
    } else if (!strcmp(mode, "slow")) {
        usleep(300 * 1000);
        put("READY");
    } else
        put("READY");
    return 0;
}

int main(int argc, char **argv)
{
    const char *mode;
    if (getenv("TEST_SEEN"))
        write_seen(argc, argv);
    if (argc > 1 && !strcmp(argv[1], "prepare"))
        return prepare((mode = getenv("TEST_PREPARE")) ? mode : "");
    if (argc > 1 && !strcmp(argv[1], "launch"))
        return launch((mode = getenv("TEST_LAUNCH")) ? mode : "");
    return 95;
}
