/* publish: sends publications over keep-alive connections, HTTP POST or Redis PUBLISH.
 *
 * --rate R   open loop: publication i is due at start + i/R, whatever the server does, and carries that time in its
 *            marker, so waiting for a slow server counts as latency (no coordinated omission). All that is due when a
 *            connection is free goes into one request of at most --batch items.
 *            --pause-ms P leaves at least P ms between requests, as a publisher that collects batches does.
 * --rate 0   closed loop: every connection sends its next request when the last is answered.
 *
 * Ends after --seconds or --count publications and prints one JSON object; `published` counts what was answered with
 * success, `request_p99_ms` is from send to answer. The first refusal is shown on standard error.
 */
#include "common.h"

#define MAX_CONNECTIONS 256
#define MAX_HEADERS 8
#define REQUEST_BYTES (1 << 20)
#define RESPONSE_BYTES (1 << 18)
#define MAX_PAYLOAD 16384

typedef struct {
    int fd;
    int items;       /* publications in the request under way; 0: free */
    int64_t sent_at;
    char *request;
    size_t length, written;
    char *response;
    size_t got;
} Connection;

static struct {
    int port, resp, connections, batch, stream, payload, text;
    long targets;
    double rate, seconds;
    int64_t pause_ns;
    int64_t count;
    const char *path, *item, *headers[MAX_HEADERS + 1];
} options = {.connections = 1, .batch = 1, .payload = 200, .path = "/", .item = "%p", .seconds = 5};

static Connection connections[MAX_CONNECTIONS];
static int poller;
static int64_t begun, taken, published, failed, requests, latest_start, not_before;
static Histogram answers;
static char body[REQUEST_BYTES], payload[MAX_PAYLOAD + 1];

static void connect_one(Connection *c, int number) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    c->fd = connecting_socket(options.port, 0);
    c->request = malloc(REQUEST_BYTES);
    c->response = malloc(RESPONSE_BYTES + 1);
    fd_set writable;
    FD_ZERO(&writable);
    FD_SET(c->fd, &writable);
    struct timeval patience = {.tv_sec = 5};
    if (c->fd >= FD_SETSIZE || select(c->fd + 1, NULL, &writable, NULL, &patience) != 1)
        die("connection %d to port %d failed", number, options.port);
    if (epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event)) die("epoll_ctl: %s", strerror(errno));
}

/* Fills `payload` with exactly options.payload bytes around the marker of publication `number`: a JSON object, or with
 * --text what stands between the quotes of a JSON string. */
static void write_payload(int64_t number, int64_t due) {
    long long sequence = options.targets ? number / options.targets : number;
    const char *open = options.text ? "" : "{\"m\":\"", *close = options.text ? "" : "\"}";
    int length = snprintf(payload, sizeof payload, "%s^%d,%lld,%lld;", open, options.stream, sequence, (long long)due);
    while (length < options.payload - (int)strlen(close)) payload[length++] = 'x';
    strcpy(payload + length, close);
}

static void add_http(Connection *c, int64_t first, const int64_t *due, int items) {
    size_t size = 0;
    long long target = options.targets ? first % options.targets : first;
    for (int i = 0; i < items; i++) {
        if (i) put(body, sizeof body, &size, "\n", 1);
        write_payload(first + i, due[i]);
        expand(body, sizeof body, &size, options.item, options.targets ? (first + i) % options.targets : first + i, "", payload);
    }
    expand(c->request, REQUEST_BYTES, &c->length, "POST ", 0, "", "");
    expand(c->request, REQUEST_BYTES, &c->length, options.path, target, "", "");
    expand(c->request, REQUEST_BYTES, &c->length, " HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n", (long long)size, "", "");
    for (const char **header = options.headers; *header; header++) {
        expand(c->request, REQUEST_BYTES, &c->length, *header, target, "", "");
        expand(c->request, REQUEST_BYTES, &c->length, "\r\n", 0, "", "");
    }
    expand(c->request, REQUEST_BYTES, &c->length, "\r\n", 0, "", "");
    put(c->request, REQUEST_BYTES, &c->length, body, size);
}

static void add_resp(Connection *c, int64_t first, const int64_t *due, int items) {
    for (int i = 0; i < items; i++) {
        char head[64];
        size_t channel_size = 0, item_size = 0;
        long long target = options.targets ? (first + i) % options.targets : first + i;
        char channel[512];
        write_payload(first + i, due[i]);
        expand(channel, sizeof channel, &channel_size, options.path, target, "", "");
        expand(body, sizeof body, &item_size, options.item, target, "", payload);
        put(c->request, REQUEST_BYTES, &c->length, head, (size_t)snprintf(head, sizeof head, "*3\r\n$7\r\nPUBLISH\r\n$%zu\r\n", channel_size));
        put(c->request, REQUEST_BYTES, &c->length, channel, channel_size);
        put(c->request, REQUEST_BYTES, &c->length, head, (size_t)snprintf(head, sizeof head, "\r\n$%zu\r\n", item_size));
        put(c->request, REQUEST_BYTES, &c->length, body, item_size);
        put(c->request, REQUEST_BYTES, &c->length, "\r\n", 2);
    }
}

static void flush(Connection *c) {
    while (c->written < c->length) {
        ssize_t sent = write(c->fd, c->request + c->written, c->length - c->written);
        if (sent < 0 && errno == EAGAIN) break;
        if (sent < 0) die("write: %s", strerror(errno));
        c->written += (size_t)sent;
    }
    struct epoll_event event = {.events = c->written < c->length ? EPOLLIN | EPOLLOUT : EPOLLIN, .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event);
}

static void send_items(Connection *c, const int64_t *due, int items) {
    c->length = c->written = c->got = 0;
    c->items = items;
    (options.resp ? add_resp : add_http)(c, taken, due, items);
    taken += items;
    requests++;
    c->sent_at = now_ns();
    if (c->sent_at - due[0] > latest_start) latest_start = c->sent_at - due[0];
    flush(c);
}

static void answered(Connection *c, int refused) {
    if (refused && !failed) fprintf(stderr, "refused: %.600s\n", c->response);
    failed += refused;
    published += c->items - refused;
    histogram_add(&answers, now_ns() - c->sent_at);
    c->items = 0;
}

/* Whether the response is complete: headers and Content-Length bytes (no server here answers a POST with chunks). */
static void read_http(Connection *c) {
    char *end = memmem(c->response, c->got, "\r\n\r\n", 4);
    if (!end) return;
    char *length = strcasestr(c->response, "\r\ncontent-length:");
    size_t header = (size_t)(end - c->response) + 4;
    size_t content = length && length < end ? strtoul(length + 17, NULL, 10) : 0;
    if (c->got < header + content) return;
    /* A batch is answered 200 with a count of the items that failed. */
    char *count = memmem(end, c->got - (size_t)(end - c->response), "\"failed\":", 9);
    answered(c, c->response[9] != '2' ? c->items : count ? atoi(count + 9) : 0);
}

static void read_resp(Connection *c) {
    int lines = 0, errors = 0;
    for (size_t i = 0; i < c->got; i++) {
        if (c->response[i] == '\n') lines++;
        if (c->response[i] == '-' && (!i || c->response[i - 1] == '\n')) errors++;
    }
    if (lines >= c->items) answered(c, errors);
}

static void readable(Connection *c) {
    ssize_t got = read(c->fd, c->response + c->got, RESPONSE_BYTES - c->got);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) die("the server ended the connection");
    c->got += (size_t)got;
    c->response[c->got] = 0;
    if (c->got == RESPONSE_BYTES) die("a response of more than %d bytes", RESPONSE_BYTES);
    if (!c->items) return;
    (options.resp ? read_resp : read_http)(c);
}

/* How many publications there will be in all, as far as is known at `now`. */
static int64_t total(int64_t now) {
    if (options.count) return options.count;
    if (options.rate > 0) return (int64_t)(options.rate * options.seconds);
    return (double)(now - begun) / 1e9 < options.seconds ? INT64_MAX : taken;
}

static int64_t due_at(int64_t number) { return begun + (int64_t)((double)number * 1e9 / options.rate); }

/* Sends what is due on free connections. Returns when the next publication is due (nanoseconds), -1 when there is none. */
static int64_t send_due(int64_t now) {
    static int64_t due[REQUEST_BYTES / 1024];
    int64_t end = total(now), allowed = end;
    if (now < not_before && taken < end) return not_before;
    not_before = now + options.pause_ns;
    if (options.rate > 0) {
        int64_t by_now = (int64_t)((double)(now - begun) / 1e9 * options.rate) + 1;
        if (by_now < allowed) allowed = by_now;
    }
    for (Connection *c = connections; c < connections + options.connections && taken < allowed; c++) {
        if (c->items) continue;
        int items = allowed - taken < options.batch ? (int)(allowed - taken) : options.batch;
        for (int i = 0; i < items; i++) due[i] = options.rate > 0 ? due_at(taken + i) : now_ns();
        send_items(c, due, items);
    }
    if (taken >= end) return -1;
    if (options.rate <= 0) return now + SECOND;
    return due_at(taken) > not_before ? due_at(taken) : not_before;
}

static int under_way(void) {
    for (int i = 0; i < options.connections; i++)
        if (connections[i].items) return 1;
    return 0;
}

static void parse_options(int count, char **values) {
    static const struct option known[] = {
        {"port", 1, 0, 'p'},    {"protocol", 1, 0, 'r'}, {"connections", 1, 0, 'c'}, {"batch", 1, 0, 'b'},
        {"stream", 1, 0, 's'},  {"payload", 1, 0, 'l'},  {"targets", 1, 0, 't'},     {"rate", 1, 0, 'R'},
        {"seconds", 1, 0, 'S'}, {"count", 1, 0, 'N'},    {"path", 1, 0, 'a'},        {"item", 1, 0, 'i'},
        {"header", 1, 0, 'h'},  {"pause-ms", 1, 0, 'P'}, {"text", 0, 0, 'T'},        {0, 0, 0, 0},
    };
    int option, headers = 0;
    while ((option = getopt_long(count, values, "", known, NULL)) != -1) {
        switch (option) {
        case 'p': options.port = atoi(optarg); break;
        case 'r': options.resp = !strcmp(optarg, "resp"); break;
        case 'c': options.connections = atoi(optarg); break;
        case 'b': options.batch = atoi(optarg); break;
        case 's': options.stream = atoi(optarg); break;
        case 'l': options.payload = atoi(optarg); break;
        case 't': options.targets = atol(optarg); break;
        case 'R': options.rate = atof(optarg); break;
        case 'S': options.seconds = atof(optarg); break;
        case 'N': options.count = atoll(optarg); break;
        case 'P': options.pause_ns = (int64_t)(atof(optarg) * 1e6); break;
        case 'a': options.path = optarg; break;
        case 'i': options.item = optarg; break;
        case 'T': options.text = 1; break;
        case 'h':
            if (headers == MAX_HEADERS) die("at most %d headers", MAX_HEADERS);
            options.headers[headers++] = optarg;
            break;
        default:
            die("usage: publish --port P --protocol http|resp --path PATH|CHANNEL [--item T] [--header T]… [--rate R]\n"
                "               [--seconds S] [--count N] [--connections C] [--batch B] [--targets N] [--stream 0|1]\n"
                "               [--payload BYTES] [--text] [--pause-ms P]\n"
                "templates: %%d the target (publication number modulo --targets), %%p the payload, a JSON object or --text");
        }
    }
    if (options.port <= 0 || options.connections < 1 || options.connections > MAX_CONNECTIONS)
        die("--port and --connections (1 to %d) are needed", MAX_CONNECTIONS);
    if (options.batch < 1 || (size_t)options.batch > REQUEST_BYTES / 1024) die("--batch is 1 to %d", REQUEST_BYTES / 1024);
    if (options.payload < 64 || options.payload > MAX_PAYLOAD) die("--payload is 64 to %d bytes", MAX_PAYLOAD);
}

int main(int count, char **values) {
    struct epoll_event events[MAX_CONNECTIONS];
    parse_options(count, values);
    signal(SIGPIPE, SIG_IGN);
    poller = epoll_create1(EPOLL_CLOEXEC);
    for (int i = 0; i < options.connections; i++) connect_one(&connections[i], i);
    begun = now_ns();
    for (;;) {
        int64_t now = now_ns(), next = send_due(now);
        if (next < 0 && !under_way()) break;
        /* Nothing due on a free connection: wait for an answer, but not for ever. epoll_wait counts whole milliseconds. */
        int64_t wait = next <= now ? SECOND : next - now;
        struct timespec patience = {.tv_sec = wait / SECOND, .tv_nsec = wait % SECOND};
        struct pollfd any = {.fd = poller, .events = POLLIN};
        ppoll(&any, 1, &patience, NULL);
        int ready = epoll_wait(poller, events, MAX_CONNECTIONS, 0);
        for (int i = 0; i < ready; i++) {
            if (events[i].events & EPOLLOUT) flush(events[i].data.ptr);
            if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) readable(events[i].data.ptr);
        }
        if (now - begun > (int64_t)(options.seconds * 1e9) + 60 * SECOND) die("no answer for a minute");
    }
    double seconds = (double)(now_ns() - begun) / 1e9;
    printf("{\"taken\":%lld,\"published\":%lld,\"failed\":%lld,\"requests\":%lld,\"seconds\":%.4f,\"rate\":%.1f,"
           "\"request_p50_ms\":%.3f,\"request_p99_ms\":%.3f,\"late_max_ms\":%.3f,\"cpu_s\":%.3f}\n",
           (long long)taken, (long long)published, (long long)failed, (long long)requests, seconds, (double)published / seconds,
           histogram_ms(&answers, .5), histogram_ms(&answers, .99), (double)latest_start / 1e6, cpu_seconds());
    return failed != 0;
}
