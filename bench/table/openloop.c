/* Load generator for HTTP/1.1 GETs over keep-alive connections; one thread, no allocation while it runs.
 *
 * closed: every connection sends its next request when the answer to the last is complete.
 * open:   requests are due at start + i / rate whatever the answers do, and latency counts from that moment, so that
 *         a server that stalls is charged for all who would have come (no coordinated omission). How late the
 *         generator itself noticed a due request is reported beside it.
 *
 * openloop --port P [--host H] --paths FILE --connections C --seconds S [--rate R] [--token T] [--core N]
 * Prints one JSON object; latencies and lateness in milliseconds. openloop.py is its twin where there is no compiler.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define ROOM 65536
#define MOST 4096

struct connection {
    int fd, busy;
    double due;
    size_t have;
    char in[ROOM];
};

static struct connection *all;
static int *idle, idle_count, connections = 32;
static char **requests;
static size_t *lengths, request_count, next_request;
static double *latency, *late;
static size_t answered, sent, failed, most;
static struct sockaddr_in to;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void join(int epoll, int index) {
    struct connection *c = &all[index];
    int yes = 1;
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&to, sizeof to)) die("connect");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = (unsigned)index};
    epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event);
    c->have = 0;
    c->busy = 0;
}

static void begin(int index, double due) {
    struct connection *c = &all[index];
    size_t which = next_request++ % request_count;
    c->due = due;
    c->busy = 1;
    c->have = 0;
    sent++;
    if (write(c->fd, requests[which], lengths[which]) != (ssize_t)lengths[which]) failed++;
}

/* 1 when the answer in the buffer is whole. */
static int whole(struct connection *c) {
    c->in[c->have] = 0;
    char *end = strstr(c->in, "\r\n\r\n");
    if (!end) return 0;
    for (char *line = strstr(c->in, "\r\n"); line && line < end; line = strstr(line + 2, "\r\n")) {
        if (!strncasecmp(line + 2, "content-length:", 15))
            return c->have >= (size_t)(end + 4 - c->in) + strtoul(line + 17, NULL, 10);
        if (!strncasecmp(line + 2, "transfer-encoding:", 18))
            return c->have >= 5 && !memcmp(c->in + c->have - 5, "0\r\n\r\n", 5);
    }
    return !strncmp(c->in + 9, "204", 3) || !strncmp(c->in + 9, "304", 3);
}

static void receive(int epoll, int index) {
    struct connection *c = &all[index];
    ssize_t got = read(c->fd, c->in + c->have, ROOM - 1 - c->have);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) { /* closed: a request that was under way has failed */
        close(c->fd);
        int was = c->busy;
        join(epoll, index);
        if (was) {
            failed++;
            idle[idle_count++] = index;
        }
        return;
    }
    c->have += (size_t)got;
    if (!c->busy || !whole(c)) return;
    if (c->in[9] != '2') failed++;
    if (answered < most) latency[answered++] = now() - c->due;
    c->busy = 0;
    idle[idle_count++] = index;
}

static int order(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double at(double *values, size_t count, double share) {
    if (!count) return 0;
    size_t i = (size_t)(share * count);
    return values[i < count ? i : count - 1] * 1e3;
}

static void load_paths(const char *file, const char *host, const char *token) {
    FILE *in = fopen(file, "r");
    char line[1024];
    if (!in) die(file);
    while (fgets(line, sizeof line, in)) {
        line[strcspn(line, "\n")] = 0;
        requests = realloc(requests, (request_count + 1) * sizeof *requests);
        lengths = realloc(lengths, (request_count + 1) * sizeof *lengths);
        char *text;
        int size = *token ? asprintf(&text, "GET %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n\r\n", line, host, token)
                          : asprintf(&text, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", line, host);
        requests[request_count] = text;
        lengths[request_count++] = (size_t)size;
    }
    fclose(in);
}

int main(int argc, char **argv) {
    const char *host = "127.0.0.1", *token = "", *paths = "";
    int port = 0, core = -1;
    double rate = 0, seconds = 1;
    for (int i = 1; i + 1 < argc; i += 2) {
        const char *name = argv[i], *value = argv[i + 1];
        if (!strcmp(name, "--host")) host = value;
        else if (!strcmp(name, "--port")) port = atoi(value);
        else if (!strcmp(name, "--paths")) paths = value;
        else if (!strcmp(name, "--connections")) connections = atoi(value);
        else if (!strcmp(name, "--seconds")) seconds = atof(value);
        else if (!strcmp(name, "--rate")) rate = atof(value);
        else if (!strcmp(name, "--token")) token = value;
        else if (!strcmp(name, "--core")) core = atoi(value);
        else { fprintf(stderr, "unknown: %s\n", name); return 2; }
    }
    if (core >= 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(core, &set);
        if (sched_setaffinity(0, sizeof set, &set)) die("pin");
    }
    prctl(PR_SET_TIMERSLACK, 1);
    if (connections > MOST) connections = MOST;
    load_paths(paths, host, token);
    to.sin_family = AF_INET;
    to.sin_port = htons((unsigned short)port);
    inet_pton(AF_INET, host, &to.sin_addr);
    most = (size_t)(rate ? rate * seconds + 1 : 500000 * seconds);
    latency = malloc(most * sizeof *latency);
    late = malloc(most * sizeof *late);
    all = calloc((size_t)connections, sizeof *all);
    idle = malloc((size_t)connections * sizeof *idle);
    int epoll = epoll_create1(0);
    for (int i = 0; i < connections; i++) {
        join(epoll, i);
        idle[idle_count++] = i;
    }
    double start = now(), stop = start + seconds, patience = stop + 5;
    size_t due = 0, wanted = rate ? (size_t)(rate * seconds) : 0, noticed = 0;
    while (1) {
        double t = now();
        if (rate) {
            due = t >= stop ? wanted : (size_t)((t - start) * rate) + 1;
            if (due > wanted) due = wanted;
            while (noticed < due) {
                late[noticed] = t - (start + noticed / rate);
                noticed++;
            }
            while (idle_count && sent < due) begin(idle[--idle_count], start + sent / rate);
        } else if (t < stop) {
            while (idle_count) begin(idle[--idle_count], now());
        }
        int waits = rate ? sent < wanted || idle_count < connections : t < stop || idle_count < connections;
        if (!waits || t > patience) break;
        double rest = patience - t;
        if (rate && noticed < wanted) rest = start + noticed / rate - now();
        else if (!rate && t < stop) rest = stop - t;
        if (rest < 0) rest = 0;
        struct timespec pause = {.tv_sec = (time_t)rest, .tv_nsec = (long)((rest - (time_t)rest) * 1e9)};
        struct pollfd ready = {.fd = epoll, .events = POLLIN};
        if (ppoll(&ready, 1, &pause, NULL) <= 0) continue;
        struct epoll_event events[256];
        int count = epoll_wait(epoll, events, 256, 0);
        for (int i = 0; i < count; i++) receive(epoll, (int)events[i].data.u32);
    }
    double took = now() - start;
    size_t open = (size_t)(connections - idle_count);
    size_t unsent = rate ? wanted - sent : 0;
    qsort(latency, answered, sizeof *latency, order);
    qsort(late, noticed, sizeof *late, order);
    printf("{\"generator\": \"c\", \"requests\": %zu, \"failed\": %zu, \"seconds\": %.6f, \"rate\": %.1f, "
           "\"p50\": %.4f, \"p90\": %.4f, \"p99\": %.4f, \"p999\": %.4f, \"max\": %.4f, "
           "\"late_p50\": %.4f, \"late_p99\": %.4f, \"late_max\": %.4f}\n",
           answered, failed + open + unsent, took, answered / took, at(latency, answered, .5), at(latency, answered, .9),
           at(latency, answered, .99), at(latency, answered, .999), at(latency, answered, 1), at(late, noticed, .5),
           at(late, noticed, .99), at(late, noticed, 1));
    return 0;
}
