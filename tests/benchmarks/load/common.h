/* What the load programs share: clock, histogram, templates, loopback sockets, one-line JSON errors.
 *
 * A payload carries the marker  ^<stream>,<sequence>,<nanoseconds>;  where <stream> is one digit, <sequence> counts
 * from 0 without holes for each subscriber of the stream, and <nanoseconds> is CLOCK_REALTIME when the publication
 * was due. Publisher and subscribers run on one machine, so one clock serves both.
 */
#ifndef DUALCAST_BENCH_COMMON_H
#define DUALCAST_BENCH_COMMON_H

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

static inline int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return t.tv_sec * SECOND + t.tv_nsec;
}

static inline void __attribute__((noreturn, format(printf, 1, 2))) die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(2);
}

static inline double cpu_seconds(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec)
         + (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* Log-linear histogram of nanoseconds: 32 steps per power of two, so a reading is at most 3 % off, at the cost of one
 * increment per sample. Every sample is recorded; nothing is thinned out. */
#define STEP_BITS 5
#define STEPS (1 << STEP_BITS)
typedef struct {
    uint64_t counts[64 * STEPS], total;
    int64_t max;
} Histogram;

static inline void histogram_add(Histogram *h, int64_t value) {
    uint64_t v = value > 0 ? (uint64_t)value : 0;
    unsigned index = (unsigned)v;
    if (v >= STEPS) {
        unsigned exponent = 63u - (unsigned)__builtin_clzll(v);
        index = (exponent - STEP_BITS + 1) * STEPS + (unsigned)((v >> (exponent - STEP_BITS)) & (STEPS - 1));
    }
    h->counts[index]++;
    h->total++;
    if (value > h->max) h->max = value;
}

/* The value in milliseconds below which `share` of the samples lie (upper edge of its step); 0 without samples. */
static inline double histogram_ms(const Histogram *h, double share) {
    uint64_t wanted = (uint64_t)(share * (double)h->total), seen = 0;
    if (!h->total) return 0;
    for (unsigned i = 0; i < 64 * STEPS; i++) {
        seen += h->counts[i];
        if (seen <= wanted) continue;
        if (i < STEPS) return (double)i / 1e6;
        unsigned shift = i / STEPS - 1;
        double edge = (double)(((uint64_t)STEPS + i % STEPS + 1) << shift);
        return (edge < (double)h->max ? edge : (double)h->max) / 1e6;
    }
    return (double)h->max / 1e6;
}

static inline void put(char *out, size_t size, size_t *at, const char *text, size_t length) {
    if (*at + length >= size) die("a request of more than %zu bytes", size);
    memcpy(out + *at, text, length);
    *at += length;
}

/* Appends `template` to out[*at…], with %d (number), %t (text) and %p (payload) put in; %% is a percent sign. */
static inline void expand(char *out, size_t size, size_t *at, const char *template, long long number, const char *text,
                   const char *payload) {
    for (const char *c = template; *c; c++) {
        char digits[24];
        if (*c != '%' || !c[1]) {
            put(out, size, at, c, 1);
            continue;
        }
        switch (*++c) {
        case 'd': put(out, size, at, digits, (size_t)snprintf(digits, sizeof digits, "%lld", number)); break;
        case 't': put(out, size, at, text, strlen(text)); break;
        case 'p': put(out, size, at, payload, strlen(payload)); break;
        case '%': put(out, size, at, "%", 1); break;
        default: put(out, size, at, c - 1, 2);
        }
    }
}

/* A socket that is connecting to 127.0.0.1:port. Every 20,000th connection moves on to another loopback source address,
 * because one address has about 28,000 ports. */
static inline int connecting_socket(int port, long ordinal) {
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) die("socket: %s", strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (ordinal >= 20000) {
        struct sockaddr_in source = {.sin_family = AF_INET};
        source.sin_addr.s_addr = htonl(INADDR_LOOPBACK + (uint32_t)(ordinal / 20000 % 200));
        setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
        if (bind(fd, (struct sockaddr *)&source, sizeof source)) die("bind: %s", strerror(errno));
    }
    struct sockaddr_in target = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    target.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (struct sockaddr *)&target, sizeof target) && errno != EINPROGRESS)
        die("connect: %s", strerror(errno));
    return fd;
}

static inline void raise_file_limit(long wanted) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    if ((rlim_t)wanted > limit.rlim_max) die("needs %ld open files, the hard limit is %ld", wanted, (long)limit.rlim_max);
    if ((rlim_t)wanted > limit.rlim_cur) limit.rlim_cur = (rlim_t)wanted;
    setrlimit(RLIMIT_NOFILE, &limit);
}

#endif
