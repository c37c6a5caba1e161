/*
 * A stand-in for the processes of Slurm that load a SPANK plugin. It exports the same functions,
 * loads the plugin as Slurm does and calls its hooks in Slurm's order for one context. What the
 * plugin does is written to a report that the tests read (tests/fake_host).
 *
 *   host --report FILE --context CONTEXT [WORDS...] -- [ADMIN WORDS...]
 *
 * It is compiled against the site's spank.h, so a function whose form has changed does not
 * compile.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <slurm/slurm.h>
#include <slurm/spank.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define MANY 1024

extern char **environ;

struct spank_handle {
    int magic;
};

static struct spank_handle handle = {42};
static FILE *report;
static enum spank_context where = S_CTX_ERROR;
static uint32_t step = 0, job = 77;
static int task = 0, in_init = 0, command_words = 1;
static char **job_env;
static struct spank_option registered[MANY];
static int registered_count = 0;

static void fail(const char *what)
{
    fprintf(stderr, "host: %s: %s\n", what, strerror(errno));
    exit(99);
}

static void say(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vfprintf(report, format, args);
    va_end(args);
    fputc('\n', report);
    fflush(report);
}

static void check_handle(spank_t spank)
{
    if (spank != &handle)
        say("wrong handle");
}

/* ---- what Slurm exports ---------------------------------------------------------------- */

spank_context_t spank_context(void)
{
    return where;
}

spank_err_t spank_option_register(spank_t spank, struct spank_option *opt)
{
    check_handle(spank);
    if (!in_init || !opt->usage || strlen(opt->name) > SPANK_OPTION_MAXLEN)
        return ESPANK_BAD_ARG;
    say("registered %s %s %d", opt->name, opt->arginfo, opt->has_arg);
    struct spank_option *copy = &registered[registered_count++];
    *copy = *opt;
    copy->name = strdup(opt->name);
    return ESPANK_SUCCESS;
}

spank_err_t spank_get_item(spank_t spank, spank_item_t item, ...)
{
    spank_err_t answer = ESPANK_SUCCESS;
    va_list args;
    check_handle(spank);
    va_start(args, item);
    switch (item) {
    case S_JOB_STEPID:
        *va_arg(args, uint32_t *) = step;
        break;
    case S_JOB_ID:
        *va_arg(args, uint32_t *) = job;
        break;
    case S_TASK_ID:
        *va_arg(args, int *) = task;
        break;
    case S_JOB_ARGV:
        *va_arg(args, int *) = command_words;
        *va_arg(args, char ***) = NULL;
        break;
    case S_JOB_ENV:
        *va_arg(args, char ***) = job_env;
        break;
    default:
        say("asked for item %d", item);
        answer = ESPANK_BAD_ARG;
    }
    va_end(args);
    return answer;
}

static char **find(const char *name)
{
    size_t len = strlen(name);
    char **entry = job_env;
    while (*entry && (strncmp(*entry, name, len) || (*entry)[len] != '='))
        entry++;
    return entry;
}

spank_err_t spank_getenv(spank_t spank, const char *name, char *buf, int len)
{
    check_handle(spank);
    if (where != S_CTX_REMOTE)
        return ESPANK_NOT_REMOTE;
    char **entry = find(name);
    if (!*entry)
        return ESPANK_ENV_NOEXIST;
    const char *value = *entry + strlen(name) + 1;
    snprintf(buf, len, "%s", value);
    return strlen(value) < (size_t)len ? ESPANK_SUCCESS : ESPANK_NOSPACE;
}

/* Like Slurm's, this moves the array and frees the old one. */
spank_err_t spank_setenv(spank_t spank, const char *name, const char *value, int overwrite)
{
    check_handle(spank);
    if (where != S_CTX_REMOTE)
        return ESPANK_NOT_REMOTE;
    int count = 0;
    while (job_env[count])
        count++;
    char **moved = calloc(count + 2, sizeof(*moved));
    memcpy(moved, job_env, count * sizeof(*moved));
    free(job_env);
    job_env = moved;
    char *entry;
    if (asprintf(&entry, "%s=%s", name, value) < 0)
        fail("asprintf");
    char **old = find(name);
    if (*old && !overwrite)
        return ESPANK_ENV_EXISTS;
    free(*old);
    *old = entry;
    return ESPANK_SUCCESS;
}

spank_err_t spank_unsetenv(spank_t spank, const char *name)
{
    check_handle(spank);
    if (where != S_CTX_REMOTE)
        return ESPANK_NOT_REMOTE;
    char **entry = find(name);
    if (*entry)
        free(*entry);
    for (; *entry; entry++)
        entry[0] = entry[1];
    return ESPANK_SUCCESS;
}

spank_err_t spank_job_control_setenv(spank_t spank, const char *name, const char *value,
                                     int overwrite)
{
    check_handle(spank);
    if (where != S_CTX_LOCAL && where != S_CTX_ALLOCATOR)
        return ESPANK_NOT_LOCAL;
    say("control %s=%s %d", name, value, overwrite);
    return ESPANK_SUCCESS;
}

static void log_line(const char *kind, const char *format, va_list args)
{
    char text[16384];
    vsnprintf(text, sizeof(text), format, args);
    say("%s %s", kind, text);
}

void slurm_error(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    log_line("error", format, args);
    va_end(args);
}

void slurm_spank_log(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    log_line("note", format, args);
    va_end(args);
}

/* ---- the host's own work --------------------------------------------------------------- */

static void call(void **plugins, const char *hook, int ac, char **av)
{
    for (; *plugins; plugins++) {
        spank_f *function = (spank_f *)dlsym(*plugins, hook);
        if (function)
            say("hook %s %d", hook, function(&handle, ac, av));
    }
}

static void use_option(const char *option, int remote)
{
    char name[256];
    const char *value = strchr(option, '=');
    snprintf(name, sizeof(name), "%.*s", (int)strcspn(option, "="), option);
    for (int i = 0; i < registered_count; i++)
        if (!strcmp(registered[i].name, name)) {
            int answer = registered[i].cb(registered[i].val, value ? value + 1 : NULL, remote);
            say("option %s %d", name, answer);
            /* Numbers that no option has. */
            registered[i].cb(-1, "x", remote);
            registered[i].cb(99, "x", remote);
            return;
        }
    say("option %s unknown", name);
}

static void show_descriptors(const char *when)
{
    char line[4096] = "";
    DIR *folder = opendir("/proc/self/fd");
    struct dirent *entry;
    while ((entry = readdir(folder)))
        if (entry->d_name[0] != '.' && atoi(entry->d_name) != dirfd(folder)) {
            strcat(line, " ");
            strcat(line, entry->d_name);
        }
    closedir(folder);
    say("descriptors %s%s", when, line);
}

static void show_signals(const char *when)
{
    char line[256], blocked[64] = "", ignored[64] = "";
    FILE *status = fopen("/proc/self/status", "r");
    while (fgets(line, sizeof(line), status)) {
        sscanf(line, "SigBlk: %63s", blocked);
        sscanf(line, "SigIgn: %63s", ignored);
    }
    fclose(status);
    say("signals %s blocked %s ignored %s", when, blocked, ignored);
}

static void show_children(void)
{
    int status;
    pid_t pid = waitpid(-1, &status, WNOHANG);
    say("children %s", pid == -1 && errno == ECHILD ? "none" : "some");
}

static void show_array(const char *kind, char **array)
{
    for (; *array; array++)
        say("%s %s", kind, *array);
}

/* Linux before 5.9 has no close_range. */
static void without_close_range(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_close_range, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof(code) / sizeof(*code), code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        fail("seccomp");
}

static void *idle(void *unused)
{
    (void)unused;
    for (;;)
        pause();
    return NULL;
}

static void be_slurmstepd(void)
{
    sigset_t set;
    sigemptyset(&set);
    int signals[] = {SIGINT, SIGTERM, SIGTSTP, SIGQUIT, SIGPIPE, SIGUSR1, SIGUSR2, SIGALRM, SIGHUP};
    for (size_t i = 0; i < sizeof(signals) / sizeof(*signals); i++)
        sigaddset(&set, signals[i]);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    pthread_t thread;
    pthread_create(&thread, NULL, idle, NULL);
}

/* The part of a task between fork and the user's program. */
static int task_process(void **plugins, int ac, char **av)
{
    pid_t pid = fork();
    if (pid == 0) {
        show_descriptors("before");
        show_signals("before");
        call(plugins, "slurm_spank_task_init", ac, av);
        show_descriptors("after");
        show_signals("after");
        show_children();
        show_array("jobenv", job_env);
        say("script starts");
        _exit(0);
    }
    int status;
    waitpid(pid, &status, 0);
    if (WIFEXITED(status))
        say("task code %d", WEXITSTATUS(status));
    else
        say("task signal %d", WTERMSIG(status));
    return 0;
}

static enum spank_context context_of(const char *name)
{
    const char *names[] = {"error", "local", "remote", "allocator", "slurmd", "job_script"};
    for (int i = 0; i < 6; i++)
        if (!strcmp(name, names[i]))
            return i;
    return 17; /* what a later release may add */
}

static uint32_t step_of(const char *name)
{
    if (!strcmp(name, "batch"))
        return SLURM_BATCH_SCRIPT;
    if (!strcmp(name, "interactive"))
        return SLURM_INTERACTIVE_STEP;
    if (!strcmp(name, "extern"))
        return SLURM_EXTERN_CONT;
    return strtoul(name, NULL, 10);
}

int main(int argc, char **argv)
{
    char *paths[MANY], *options[MANY], *variables[MANY];
    int path_count = 0, option_count = 0, variable_count = 0, how = RTLD_NOW, unload = 0, i;

    for (i = 1; i < argc && strcmp(argv[i], "--"); i++) {
        char *word = argv[i];
        if (!strcmp(word, "--report"))
            report = fopen(argv[++i], "we");
        else if (!strcmp(word, "--context"))
            where = context_of(argv[++i]);
        else if (!strcmp(word, "--plugin"))
            paths[path_count++] = argv[++i];
        else if (!strcmp(word, "--option"))
            options[option_count++] = argv[++i];
        else if (!strcmp(word, "--component")) /* the next component of a heterogeneous job */
            options[option_count++] = NULL;
        else if (!strcmp(word, "--env"))
            variables[variable_count++] = argv[++i];
        else if (!strcmp(word, "--step"))
            step = step_of(argv[++i]);
        else if (!strcmp(word, "--task"))
            task = atoi(argv[++i]);
        else if (!strcmp(word, "--lazy"))
            how = RTLD_LAZY;
        else if (!strcmp(word, "--unload"))
            unload = 1;
        else if (!strcmp(word, "--ignore-children"))
            signal(SIGCHLD, SIG_IGN);
        else if (!strcmp(word, "--no-close-range"))
            without_close_range();
        else if (!strcmp(word, "--open")) /* a descriptor that must not leak */
            fcntl(open("/", O_RDONLY), F_DUPFD, atoi(argv[++i]));
        else if (!strcmp(word, "--close"))
            close(atoi(argv[++i]));
        /* Anything else is only there to be seen in /proc/self/cmdline. */
    }
    char **av = argv + i + 1;
    int ac = argc > i ? argc - i - 1 : 0;
    if (!report)
        fail("opening the report");

    /* As in slurmstepd, the job's environment is another one than the process's. */
    job_env = calloc(variable_count + 1, sizeof(*job_env));
    for (i = 0; i < variable_count; i++)
        job_env[i] = strdup(variables[i]);
    if (where == S_CTX_REMOTE)
        be_slurmstepd();

    void *plugins[MANY] = {NULL};
    for (i = 0; i < path_count; i++) {
        plugins[i] = dlopen(paths[i], how);
        if (!plugins[i]) {
            say("load %s", dlerror());
            return 98;
        }
        const uint32_t *version = dlsym(plugins[i], "plugin_version");
        const char *name = dlsym(plugins[i], "plugin_name"), *type = dlsym(plugins[i], "plugin_type");
        const int *mode = dlsym(plugins[i], "slurm_spank_init_failure_mode");
        say("loaded %s %s %d %d", name, type, *version == SLURM_VERSION_NUMBER, *mode);
    }

    in_init = 1;
    call(plugins, "slurm_spank_init", ac, av);
    in_init = 0;
    for (i = 0; i < option_count; i++) {
        if (options[i])
            use_option(options[i], where == S_CTX_REMOTE);
        else
            call(plugins, "slurm_spank_init_post_opt", ac, av);
    }
    call(plugins, "slurm_spank_init_post_opt", ac, av);
    if (where == S_CTX_LOCAL)
        call(plugins, "slurm_spank_local_user_init", ac, av);
    call(plugins, "slurm_spank_user_init", ac, av);
    call(plugins, "slurm_spank_task_post_fork", ac, av);
    if (where == S_CTX_REMOTE)
        task_process(plugins, ac, av);
    /* Hooks of other contexts, which Slurm never calls here, must do nothing. */
    if (where != S_CTX_LOCAL)
        call(plugins, "slurm_spank_local_user_init", ac, av);
    if (where != S_CTX_REMOTE)
        call(plugins, "slurm_spank_task_init", ac, av);
    call(plugins, "slurm_spank_exit", ac, av);
    show_children();
    show_descriptors("end");
    if (where == S_CTX_LOCAL || where == S_CTX_ALLOCATOR)
        show_array("environ", environ);
    for (i = 0; unload && plugins[i]; i++)
        say("unload %d", dlclose(plugins[i]));
    say("done");
    return 0;
}
